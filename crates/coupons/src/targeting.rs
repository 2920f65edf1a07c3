//! Finds and ranks the targets of a coupon: all users who have no failing reason, apart from those that need a cart.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;

use domain::consent::{Consents, Purpose};
use domain::id::{CampaignId, CouponId, UserId};
use domain::time::Timestamp;
use recommender::snapshot::dictionary::UserIndex;
use recommender::snapshot::view::View;

use super::eligibility::{Assessment, AssessmentInput, Code, Policy, Usage, UserFacts, assess};
use super::offer_catalog::{Offer, OfferCatalog};
use super::rules::CompiledRules;
use super::rules::history::History;
use super::scoring::Scores;
use super::user_set::{Member, UserSet};
use super::visibility::{self, Reader};

/// The number of places that one task assesses.
const PLACES_PER_TASK: usize = 4_096;

/// Records of single users, by user id, in any order. Users without a record have none of these.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UserRecords {
    /// The number of reservations and redemptions of this coupon by the user.
    pub usage: Vec<(String, (i64, i64))>,
    /// Reserved coupons of the user that exclude this coupon, and their campaigns.
    pub reserved: Vec<(String, (CouponId, CampaignId))>,
    /// Coupons that the user was offered within the exposure window, if they may reach the cap.
    pub exposures: Vec<(String, CouponId)>,
    /// Name and value of attributes that the rules ask for.
    pub attributes: Vec<(String, (String, String))>,
}

/// Everything that decides about one coupon and all users, apart from the users themselves.
#[derive(Debug, Clone, Copy)]
pub struct TargetingInput<'a> {
    pub offer: &'a Offer,
    /// The offer's rules, compiled in `view`.
    pub rules: &'a CompiledRules<'a>,
    pub offer_catalog: &'a OfferCatalog,
    pub policy: &'a Policy,
    /// The present view, for consents and rules.
    pub view: &'a View,
    /// The usage of a user without a record.
    pub usage: &'a Usage,
    /// Whether the offer covers no item at all (`scope::is_empty`), so that it has no targets.
    pub is_scope_empty: bool,
    /// The scores, from the snapshot of the user set.
    pub scores: &'a Scores,
    /// The least score of a target; `None` for no limit.
    pub min_score: Option<f64>,
    /// The reader of the counts.
    pub reader: Reader,
    pub now: Timestamp,
}

/// The numbers of users that were assessed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// All assessed users.
    pub audience: usize,
    /// The targets, before limit and minimum score.
    pub eligible: usize,
    /// The other users, by reason, as the reader may see it. The control group is counted under its own name, whoever reads it:
    /// the counts tell of no user.
    pub excluded: BTreeMap<Code, Excluded>,
}

/// The numbers of users with one reason to be excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Excluded {
    /// The users for whom it is the first of their reasons, in the order of the codes. Over all reasons these are the users who
    /// are not targets.
    pub first: usize,
    /// All users who have the reason, whatever else they have.
    pub all: usize,
}

impl Counts {
    fn plus(mut self, other: Self) -> Self {
        self.eligible += other.eligible;
        for (code, users) in other.excluded {
            let own = self.excluded.entry(code).or_default();
            own.first += users.first;
            own.all += users.all;
        }
        self
    }
}

/// The arm of a user in the campaign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    /// The user is no target, held out or not.
    Neither,
    Offered,
    HeldOut,
}

/// The result for one user, in 16 bytes.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    score: f64,
    place: u32,
    arm: Arm,
    /// Whether the score comes from the user's history in the snapshot.
    is_personal: bool,
}

/// The targets of a coupon, best first, ties by user id. Users who are held out are ranked among the others.
#[derive(Debug)]
pub struct RankedTargets {
    users: UserSet,
    candidates: Vec<Candidate>,
    counts: Counts,
}

/// A target, or a user who would be one if they were not held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankedUser<'a> {
    pub id: &'a str,
    /// The user's index in the snapshot, if the score comes from their history.
    pub index: Option<UserIndex>,
    pub score: f64,
    /// Whether the user belongs to the control group and must not be offered the coupon.
    pub is_held_out: bool,
}

impl RankedTargets {
    /// Assesses and ranks all `users` on all threads of the current rayon pool.
    pub fn new(users: UserSet, records: UserRecords, input: &TargetingInput) -> Self {
        let records = RecordsByPlace::new(records, &users);
        let nobody = Candidate {
            score: 0.0,
            place: 0,
            arm: Arm::Neither,
            is_personal: false,
        };
        let mut candidates = vec![nobody; users.n_places() as usize];
        let counts = candidates
            .par_chunks_mut(PLACES_PER_TASK)
            .enumerate()
            .map(|(chunk, candidates)| {
                let first_place = (chunk * PLACES_PER_TASK) as u32;
                assess_chunk(first_place, candidates, &users, &records, input)
            })
            .reduce(Counts::default, Counts::plus);
        candidates.retain(|candidate| candidate.arm != Arm::Neither);
        candidates.shrink_to_fit();
        candidates.par_sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.place.cmp(&b.place)));
        Self {
            counts: Counts {
                audience: users.len(),
                ..counts
            },
            candidates,
            users,
        }
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Returns the number of ranked users in both arms, without those whose score is too low.
    pub fn len(&self) -> usize {
        self.candidates.len()
    }

    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// Returns the user at `position`, which is below [`len`](Self::len).
    pub fn get(&self, position: usize) -> RankedUser<'_> {
        let Candidate {
            score,
            place,
            arm,
            is_personal,
        } = self.candidates[position];
        let member = self.users.at(place);
        RankedUser {
            id: self.users.id(member),
            index: match member {
                Member::Known(index) if is_personal => Some(index),
                _ => None,
            },
            score,
            is_held_out: arm == Arm::HeldOut,
        }
    }

    /// Returns the first position after a user with this score and id, whether they are still ranked or not.
    pub fn position_after(&self, score: f64, id: &str) -> usize {
        self.candidates.partition_point(|candidate| {
            let by_score = score.total_cmp(&candidate.score);
            let own = || self.users.id(self.users.at(candidate.place));
            by_score.then_with(|| own().cmp(id)) != Ordering::Greater
        })
    }
}

/// [`UserRecords`] by place, ascending.
struct RecordsByPlace {
    usage: Vec<(u32, (i64, i64))>,
    reserved: Vec<(u32, (CouponId, CampaignId))>,
    exposures: Vec<(u32, CouponId)>,
    attributes: Vec<(u32, (String, String))>,
}

impl RecordsByPlace {
    fn new(records: UserRecords, users: &UserSet) -> Self {
        Self {
            usage: by_place(records.usage, users),
            reserved: by_place(records.reserved, users),
            exposures: by_place(records.exposures, users),
            attributes: by_place(records.attributes, users),
        }
    }
}

/// Sorts rows by the place of their user. Rows of users who are not in the set are left out.
fn by_place<T: Ord + Send>(rows: Vec<(String, T)>, users: &UserSet) -> Vec<(u32, T)> {
    let row = |(id, row): (String, T)| Some((users.place(&id)?, row));
    let mut rows: Vec<(u32, T)> = rows.into_iter().filter_map(row).collect();
    rows.par_sort_unstable();
    rows
}

/// Returns the rows of one place.
fn at<T>(rows: &[(u32, T)], place: u32) -> impl Iterator<Item = &T> {
    let from = rows.partition_point(|(other, _)| *other < place);
    rows[from..]
        .iter()
        .take_while(move |(other, _)| *other == place)
        .map(|(_, row)| row)
}

/// Assesses the users from `first_place` on, one per candidate.
fn assess_chunk(
    first_place: u32,
    candidates: &mut [Candidate],
    users: &UserSet,
    records: &RecordsByPlace,
    input: &TargetingInput,
) -> Counts {
    let mut counts = Counts::default();
    let is_current = Arc::ptr_eq(users.snapshot(), &input.view.snapshot);
    for (place, member) in users.members(first_place..first_place + candidates.len() as u32) {
        // This never fails: ids are checked when they are written.
        let Ok(id) = UserId::stored(users.id(member)) else {
            continue;
        };
        let known = match member {
            Member::Known(index) => Some(index),
            Member::Other(_) => None,
        };
        let index = match is_current {
            true => known,
            false => input.view.user(&id),
        };
        let consents = index.map_or_else(|| input.view.consents(&id), |index| input.view.user_consents(index));
        let user = user_facts(id, consents, place, records);
        let assessment = assess_user(&user, index, place, records, input);
        let arm = arm(&assessment);
        match arm {
            Arm::Offered => counts.eligible += 1,
            Arm::HeldOut | Arm::Neither => count(&mut counts.excluded, &assessment, input.reader),
        }
        let may_profile = input.view.privacy.allows(consents, Purpose::Profiling);
        let known = known.filter(|_| may_profile);
        let score = known.map_or(input.scores.without_history, |index| input.scores.users[index.at()]);
        if input.min_score.is_none_or(|min_score| score >= min_score) {
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

fn user_facts(id: UserId, consents: Consents, place: u32, records: &RecordsByPlace) -> UserFacts {
    UserFacts {
        id,
        is_known: true,
        consents,
        attributes: at(&records.attributes, place).cloned().collect(),
        recent_exposures: at(&records.exposures, place).cloned().collect(),
        reserved: at(&records.reserved, place).cloned().collect(),
    }
}

fn assess_user(
    user: &UserFacts,
    index: Option<UserIndex>,
    place: u32,
    records: &RecordsByPlace,
    input: &TargetingInput,
) -> Assessment {
    let own = at(&records.usage, place).next().copied();
    let own = own.map(|(user_reserved, user_redeemed)| Usage {
        user_reserved,
        user_redeemed,
        ..input.usage.clone()
    });
    let others: Vec<Arc<Offer>> = user
        .reserved
        .iter()
        .filter_map(|(coupon, _)| input.offer_catalog.offer(coupon).cloned())
        .collect();
    let history = History::new(input.view, index, &user.id);
    let single = AssessmentInput {
        offer: input.offer,
        rules: input.rules,
        user,
        usage: own.as_ref().unwrap_or(input.usage),
        is_scope_empty: input.is_scope_empty,
        history: Some(&history),
        view: Some(input.view),
        cart: None,
        left: None,
        others: &others,
        now: input.now,
    };
    assess(&single, input.policy)
}

fn arm(assessment: &Assessment) -> Arm {
    match (assessment.is_target(), assessment.is_held_out_target()) {
        (true, _) => Arm::Offered,
        (_, true) => Arm::HeldOut,
        (false, false) => Arm::Neither,
    }
}

fn count(excluded: &mut BTreeMap<Code, Excluded>, assessment: &Assessment, reader: Reader) {
    let failures = assessment.failures.iter();
    let mut codes: Vec<Code> = failures
        .map(|failure| visibility::counted_as(failure, reader))
        .collect();
    codes.sort_unstable();
    // The failures are in the order of the codes, so equal codes are adjacent.
    codes.dedup();
    for (position, code) in codes.into_iter().enumerate() {
        let users = excluded.entry(code).or_default();
        users.all += 1;
        users.first += usize::from(position == 0);
    }
}

#[cfg(test)]
mod tests;
