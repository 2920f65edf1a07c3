//! Who should get this coupon? Everybody is assessed; who has no failing reason but those that need a cart is ranked.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use domain::consent::{Consents, Purpose};
use domain::id::{CampaignId, CouponId, UserId};
use domain::time::Timestamp;
use recommender::snapshot::dictionary::UserIndex;
use recommender::snapshot::view::View;

use super::audience::{Audience, Member};
use super::eligibility::{Assessment, Code, Facts, Failure, Policy, Reader, Usage, UserFacts, assess};
use super::offer_catalog::{Offer, OfferCatalog};
use super::rules::{CompiledRules, History};
use super::scoring::Scores;

/// Places that one thread assesses at a time.
const CHUNK: usize = 4_096;

/// What holds for some users only, by id, in any order; users that are not named have nothing of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Particulars {
    /// Reserved and redeemed by the user, of this coupon.
    pub usage: Vec<(String, (i64, i64))>,
    /// What else is set aside for the user and excludes this coupon.
    pub reserved: Vec<(String, (CouponId, CampaignId))>,
    /// Coupons that the user was offered within the exposure window, where they are so many that it matters.
    pub exposures: Vec<(String, CouponId)>,
    /// Name and value.
    pub attributes: Vec<(String, (String, String))>,
}

/// Everything that decides about one coupon and everybody, besides who they are.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub offer: &'a Offer,
    /// Of the offer, in `view`.
    pub rules: &'a CompiledRules<'a>,
    pub offer_catalog: &'a OfferCatalog,
    pub policy: &'a Policy,
    /// The present, for consents and rules.
    pub view: &'a View,
    /// Of a user who has nothing of the coupon.
    pub usage: &'a Usage,
    /// Of the audience's snapshot.
    pub scores: &'a Scores,
    /// Only targets with at least this score.
    pub min_score: Option<f64>,
    pub reader: Reader,
    pub now: Timestamp,
}

/// Who was looked at and what became of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    pub audience: usize,
    /// Before limit and minimum score.
    pub eligible: usize,
    /// Who is not, by reason; a user with several counts for each.
    pub excluded: BTreeMap<Code, usize>,
}

impl Counts {
    fn plus(mut self, other: Self) -> Self {
        self.eligible += other.eligible;
        for (code, users) in other.excluded {
            *self.excluded.entry(code).or_default() += users;
        }
        self
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    Neither,
    Offered,
    HeldOut,
}

/// 16 bytes of each user.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    score: f64,
    place: u32,
    arm: Arm,
    /// Whether the score comes from what the snapshot knows of the user.
    is_personal: bool,
}

/// Who would get the coupon, best first, ties by user id; those who are held out among the others.
#[derive(Debug)]
pub struct Ranking {
    audience: Audience,
    candidates: Vec<Candidate>,
    counts: Counts,
}

/// One of a ranking.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked<'a> {
    pub id: &'a str,
    /// In the snapshot, where the score comes from what it knows of the user.
    pub index: Option<UserIndex>,
    pub score: f64,
    /// Belongs to the control group: is not to be offered the coupon, but would be.
    pub is_held_out: bool,
}

impl Ranking {
    /// Assesses everybody, on all cores.
    pub fn new(audience: Audience, particulars: Particulars, question: &Question) -> Self {
        let placed = Placed::new(particulars, &audience);
        let nobody = Candidate {
            score: 0.0,
            place: 0,
            arm: Arm::Neither,
            is_personal: false,
        };
        let mut candidates = vec![nobody; audience.n_places() as usize];
        let counts = candidates
            .par_chunks_mut(CHUNK)
            .enumerate()
            .map(|(chunk, candidates)| assess_chunk((chunk * CHUNK) as u32, candidates, &audience, &placed, question))
            .reduce(Counts::default, Counts::plus);
        candidates.retain(|candidate| candidate.arm != Arm::Neither);
        candidates.shrink_to_fit();
        candidates.par_sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.place.cmp(&b.place)));
        Self {
            counts: Counts {
                audience: audience.len(),
                ..counts
            },
            candidates,
            audience,
        }
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Both arms, those with too low a score left out.
    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// `position` < `len`.
    pub fn get(&self, position: usize) -> Ranked<'_> {
        let Candidate {
            score,
            place,
            arm,
            is_personal,
        } = self.candidates[position];
        let member = self.audience.at(place);
        Ranked {
            id: self.audience.id(member),
            index: match member {
                Member::Known(index) if is_personal => Some(index),
                _ => None,
            },
            score,
            is_held_out: arm == Arm::HeldOut,
        }
    }

    /// The first position behind who has, or had, this score and id.
    pub fn position_after(&self, score: f64, id: &str) -> usize {
        self.candidates.partition_point(|candidate| {
            let by_score = score.total_cmp(&candidate.score);
            let own = || self.audience.id(self.audience.at(candidate.place));
            by_score.then_with(|| own().cmp(id)) != Ordering::Greater
        })
    }
}

/// [`Particulars`] by place, ascending.
struct Placed {
    usage: Vec<(u32, (i64, i64))>,
    reserved: Vec<(u32, (CouponId, CampaignId))>,
    exposures: Vec<(u32, CouponId)>,
    attributes: Vec<(u32, (String, String))>,
}

impl Placed {
    fn new(particulars: Particulars, audience: &Audience) -> Self {
        Self {
            usage: placed(particulars.usage, audience),
            reserved: placed(particulars.reserved, audience),
            exposures: placed(particulars.exposures, audience),
            attributes: placed(particulars.attributes, audience),
        }
    }
}

/// Who is not in the audience is left out.
fn placed<T: Ord + Send>(rows: Vec<(String, T)>, audience: &Audience) -> Vec<(u32, T)> {
    let row = |(id, row): (String, T)| Some((audience.place(&id)?, row));
    let mut placed: Vec<(u32, T)> = rows.into_iter().filter_map(row).collect();
    placed.par_sort_unstable();
    placed
}

/// The rows of one place.
fn at<T>(rows: &[(u32, T)], place: u32) -> impl Iterator<Item = &T> {
    let from = rows.partition_point(|(other, _)| *other < place);
    rows[from..]
        .iter()
        .take_while(move |(other, _)| *other == place)
        .map(|(_, row)| row)
}

fn assess_chunk(
    first_place: u32,
    candidates: &mut [Candidate],
    audience: &Audience,
    placed: &Placed,
    question: &Question,
) -> Counts {
    let mut counts = Counts::default();
    let is_current = Arc::ptr_eq(audience.snapshot(), &question.view.snapshot);
    for (place, member) in audience.members(first_place..first_place + candidates.len() as u32) {
        // Ids are checked where they are written.
        let Ok(id) = UserId::new(audience.id(member)) else {
            continue;
        };
        let known = match member {
            Member::Known(index) => Some(index),
            Member::Other(_) => None,
        };
        let index = match is_current {
            true => known,
            false => question.view.user(&id),
        };
        let consents = index.map_or_else(
            || question.view.consents(&id),
            |index| question.view.user_consents(index),
        );
        let user = user_facts(id, consents, place, placed);
        let assessment = assess_user(&user, index, place, placed, question);
        let arm = arm(&assessment);
        match arm {
            Arm::Offered => counts.eligible += 1,
            Arm::HeldOut | Arm::Neither => count(&mut counts.excluded, assessment, question.reader),
        }
        let may_profile = question.view.privacy.allows(consents, Purpose::Profiling);
        let known = known.filter(|_| may_profile);
        let score = known.map_or(question.scores.of_strangers, |index| {
            question.scores.of_users[index.at()]
        });
        if question.min_score.is_none_or(|min_score| score >= min_score) {
            candidates[(place - first_place) as usize] = Candidate {
                score,
                place,
                arm,
                is_personal: known.is_some(),
            };
        }
    }
    counts
}

fn user_facts(id: UserId, consents: Consents, place: u32, placed: &Placed) -> UserFacts {
    UserFacts {
        id,
        is_known: true,
        consents,
        attributes: at(&placed.attributes, place).cloned().collect(),
        recent_exposures: at(&placed.exposures, place).cloned().collect(),
        reserved: at(&placed.reserved, place).cloned().collect(),
    }
}

fn assess_user(
    user: &UserFacts,
    index: Option<UserIndex>,
    place: u32,
    placed: &Placed,
    question: &Question,
) -> Assessment {
    let own = at(&placed.usage, place).next().copied();
    let own = own.map(|(user_reserved, user_redeemed)| Usage {
        user_reserved,
        user_redeemed,
        ..question.usage.clone()
    });
    let others: Vec<Arc<Offer>> = user
        .reserved
        .iter()
        .filter_map(|(coupon, _)| question.offer_catalog.offer(coupon).cloned())
        .collect();
    let history = History::new(question.view, index, &user.id);
    let facts = Facts {
        offer: question.offer,
        rules: question.rules,
        user,
        usage: own.as_ref().unwrap_or(question.usage),
        history: Some(&history),
        view: Some(question.view),
        cart: None,
        others: &others,
        now: question.now,
    };
    assess(&facts, question.policy)
}

fn arm(assessment: &Assessment) -> Arm {
    match (assessment.is_target(), assessment.is_held_out_target()) {
        (true, _) => Arm::Offered,
        (_, true) => Arm::HeldOut,
        (false, false) => Arm::Neither,
    }
}

fn count(excluded: &mut BTreeMap<Code, usize>, assessment: Assessment, reader: Reader) {
    let failures = assessment.for_reader(reader).failures;
    let mut codes: Vec<Code> = failures.iter().map(Failure::code).collect();
    // In the order of the codes: of several rules that fail each stands beside the next.
    codes.dedup();
    for code in codes {
        *excluded.entry(code).or_default() += 1;
    }
}

#[cfg(test)]
mod tests;
