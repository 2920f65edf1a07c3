//! The targets of a coupon: everybody is assessed and ranked at one moment, then the rows leave in batches; what may have
//! changed since is looked at again before each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{TryFutureExt, try_join};
use tokio::sync::Semaphore;

use crate::live::{Live, ServingStatus};
use crate::store::coupons::audience::{self, AudienceQuery, AudienceRead, Conflicts, Listing, OfferKeys, Recheck};
use crate::store::coupons::exposures::{self, Exposure};
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use coupons::eligibility::{Failure, Policy, Reader, campaign_failures};
use coupons::offer_catalog::{Offer, OfferCatalog};
use coupons::rules::{CompiledRules, Users};
use coupons::scoring::{Explanation, NotFitted, RankBy, Scorer, Scores};
use coupons::targeting::{Counts, RankedTargets, RankedUser, TargetingInput};
use coupons::user_set::{UserSet, UserSetError};
use domain::access::Caller;
use domain::consent::Purpose;
use domain::coupon::Rule;
use domain::id::CouponId;
use recommender::snapshot::Snapshot;
use recommender::snapshot::dictionary::ItemIndex;
use recommender::snapshot::view::View;

use super::eligibility::reader;

/// Rows of the first batch, so that the first row comes soon; each batch is twice as long as the one before.
const FIRST_BATCH: usize = 64;
const LONGEST_BATCH: usize = 1_024;
/// After so long what is left of a batch is looked at again.
const FRESH: Duration = Duration::from_secs(1);

/// Each takes two connections and all cores.
static ASSESSMENTS: Semaphore = Semaphore::const_new(2);

#[derive(Debug, Clone)]
pub struct TargetsRequest {
    pub coupon: CouponId,
    pub by: RankBy,
    /// Most rows of this call; `None`: all.
    pub limit: Option<u64>,
    pub min_score: Option<f64>,
    /// Continues behind this row.
    pub after: Option<Position>,
    pub explain: bool,
    /// Logs nobody as offered, nor as held out.
    pub preview: bool,
    pub caller: Arc<Caller>,
}

/// A row that was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    pub snapshot_version: i64,
    pub score: f64,
    pub user: String,
    pub rank: u64,
}

/// What comes before the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub snapshot_version: i64,
    pub coupon: CouponId,
    pub by: RankBy,
    pub counts: Counts,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// From 1, over all pages.
    pub rank: u64,
    pub user: String,
    /// Affinity, 0 or more, or a probability.
    pub score: f64,
    pub explanation: Option<Explanation>,
}

#[derive(Debug, thiserror::Error)]
pub enum TargetsError {
    #[error("there is no coupon {0}")]
    UnknownCoupon(CouponId),
    #[error("no snapshot is loaded")]
    NoSnapshot(Arc<ServingStatus>),
    #[error("snapshot {version} is not held any more: list the targets anew")]
    SnapshotGone { version: i64 },
    #[error(transparent)]
    NotFitted(#[from] NotFitted),
    /// After the header: nobody is eligible any more.
    #[error("the campaign of coupon {coupon} has stopped: {}", failure.code().name())]
    Stopped { coupon: CouponId, failure: Failure },
    #[error("users are not in order: {0}")]
    Audience(#[from] UserSetError),
    #[error("assessing the users ended with a panic")]
    Panicked,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Rows under way. End with [`Targets::close`].
#[derive(Debug)]
pub struct Targets {
    pool: Pool,
    request: TargetsRequest,
    header: Header,
    snapshot: Arc<Snapshot>,
    policy: Policy,
    keys: OfferKeys,
    scorer: Scorer,
    ranking: RankedTargets,
    /// Whether who is eligible depends on what they did.
    rules_need_history: bool,
    /// Of the ranking: the first that no batch has held yet.
    next: usize,
    batch: Batch,
    batch_size: usize,
    rank: u64,
    sent: u64,
}

/// What leaves next.
#[derive(Debug)]
struct Batch {
    /// Positions in the ranking.
    rows: VecDeque<usize>,
    checked_at: Instant,
}

impl Targets {
    /// Assesses and ranks everybody.
    pub async fn open(pool: &Pool, live: &Live, policy: Policy, request: TargetsRequest) -> Result<Self, TargetsError> {
        let offer = find_offer(live, &request).await?;
        // What is committed now shows; where the database is away, reading it says so.
        live.refresh().await;
        let view = live.view().ok_or_else(|| TargetsError::NoSnapshot(live.status()))?;
        let version = request
            .after
            .as_ref()
            .map_or(view.version, |after| after.snapshot_version);
        let snapshot = live.snapshot(version).ok_or(TargetsError::SnapshotGone { version })?;
        // Closed never.
        let _slot = ASSESSMENTS.acquire().await.map_err(|_| TargetsError::Panicked)?;
        let offer_catalog = live.offer_catalog();
        let (by, scored) = (request.by, snapshot.clone());
        let scored_offer = offer.clone();
        let score = compute(move || {
            let scorer = Scorer::new(by, &scored, &scored_offer)?;
            let scores = scorer.scores(&scored);
            Ok::<_, TargetsError>((scorer, scores))
        });
        let query = query(&request.coupon, &offer, &offer_catalog, &policy, &snapshot);
        let read = audience::read(pool, &query).map_err(TargetsError::from);
        let (scored, read) = try_join!(score, read)?;
        let (scorer, scores) = scored?;
        let read = read.ok_or_else(|| TargetsError::UnknownCoupon(request.coupon.clone()))?;
        let keys = read.keys;
        let assessment = Assessment {
            snapshot: snapshot.clone(),
            view,
            offer: offer.clone(),
            offer_catalog,
            policy,
            scores,
            min_score: request.min_score,
            reader: reader(&request.caller),
        };
        let ranking = compute(move || assessment.rank(read)).await??;
        let header = Header {
            snapshot_version: version,
            coupon: request.coupon.clone(),
            by,
            counts: ranking.counts().clone(),
        };
        let next = request
            .after
            .as_ref()
            .map_or(0, |after| ranking.position_after(after.score, &after.user));
        Ok(Self {
            pool: pool.clone(),
            header,
            snapshot,
            policy,
            keys,
            scorer,
            rules_need_history: offer.coupon.rules.iter().any(Rule::needs_history),
            next,
            batch: Batch {
                rows: VecDeque::new(),
                checked_at: Instant::now(),
            },
            batch_size: FIRST_BATCH,
            rank: request.after.as_ref().map_or(0, |after| after.rank),
            sent: 0,
            ranking,
            request,
        })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next row; `None` at the end. What it answers has been looked at within the last second.
    pub async fn next(&mut self) -> Result<Option<Target>, TargetsError> {
        if self.batch.checked_at.elapsed() > FRESH && !self.batch.rows.is_empty() {
            let rows = std::mem::take(&mut self.batch.rows);
            self.check(rows.into()).await?;
        }
        loop {
            if let Some(position) = self.batch.rows.pop_front() {
                self.rank += 1;
                self.sent += 1;
                return Ok(Some(self.target(position)));
            }
            if self.next == self.ranking.len() || self.left() == 0 {
                return Ok(None);
            }
            self.fill().await?;
        }
    }

    /// Writes down how many rows were listed.
    pub async fn close(self) -> Result<(), StoreError> {
        let listing = Listing {
            actor: &self.request.caller.name,
            coupon: &self.request.coupon,
            note: if self.request.preview { "preview" } else { "" },
            rows: self.sent,
            snapshot_version: self.header.snapshot_version,
        };
        audience::log_listing(&self.pool, listing).await
    }

    /// How many more rows may be sent.
    fn left(&self) -> u64 {
        self.request.limit.map_or(u64::MAX, |limit| limit - self.sent)
    }

    /// The next batch: of those who are still to be offered the coupon, and of those who are held out among them.
    async fn fill(&mut self) -> Result<(), TargetsError> {
        let size = usize::try_from(self.left()).unwrap_or(usize::MAX).min(self.batch_size);
        let (first, mut offered) = (self.next, 0);
        // As many again may be held out: a campaign that holds out most of its users logs them bit by bit.
        while self.next < self.ranking.len() && offered < size && self.next - first < 2 * self.batch_size {
            offered += usize::from(!self.ranking.get(self.next).is_held_out);
            self.next += 1;
        }
        self.batch_size = (self.batch_size * 2).min(LONGEST_BATCH);
        let exposed = self.check((first..self.next).collect()).await?;
        if !self.request.preview {
            exposures::log(&self.pool, self.keys, self.header.snapshot_version, &exposed).await?;
        }
        Ok(())
    }

    /// Puts those at `positions` who may still be targeted into the batch; and who would be, in both arms.
    async fn check(&mut self, positions: Vec<usize>) -> Result<Vec<Exposure>, TargetsError> {
        let ids: Vec<String> = positions
            .iter()
            .map(|&position| self.ranking.get(position).id.to_owned())
            .collect();
        let checked_at = Instant::now();
        let recheck = audience::recheck(&self.pool, self.keys, &ids).await?;
        if let Some(failure) = campaign_failures(recheck.state, &recheck.window, recheck.now)
            .into_iter()
            .next()
        {
            let coupon = self.request.coupon.clone();
            return Err(TargetsError::Stopped { coupon, failure });
        }
        let mut exposed = Vec::with_capacity(positions.len());
        self.batch.checked_at = checked_at;
        for position in positions {
            let ranked = self.ranking.get(position);
            let Some(user_id) = self.still_targeted(&ranked, &recheck) else {
                continue;
            };
            let is_held_out = ranked.is_held_out;
            exposed.push(Exposure { user_id, is_held_out });
            if !is_held_out {
                self.batch.rows.push_back(position);
            }
        }
        Ok(exposed)
    }

    /// The user's key, unless they have withdrawn in the meantime.
    fn still_targeted(&self, ranked: &RankedUser, recheck: &Recheck) -> Option<i64> {
        let user = recheck.users.get(ranked.id)?;
        let privacy = &self.policy.privacy;
        let rests_on_history = ranked.index.is_some() || self.rules_need_history;
        let is_in = privacy.allows(user.consents, Purpose::Marketing)
            && !user.consents.is_suppressed()
            && (!rests_on_history || privacy.allows(user.consents, Purpose::Profiling));
        is_in.then_some(user.user_id)
    }

    fn target(&self, position: usize) -> Target {
        let ranked = self.ranking.get(position);
        let catalog = self.snapshot.catalog();
        let is_shown = |item: ItemIndex| self.request.caller.sees(catalog.facts(item).merchant);
        let explanation = ranked.index.filter(|_| self.request.explain);
        Target {
            rank: self.rank,
            user: ranked.id.to_owned(),
            score: ranked.score,
            explanation: explanation.and_then(|user| self.scorer.explain(&self.snapshot, user, is_shown)),
        }
    }

    /// From which the scores come.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }
}

/// From the offer catalog; read anew once if it is not there.
async fn find_offer(live: &Live, request: &TargetsRequest) -> Result<Arc<Offer>, TargetsError> {
    let visible = |offer_catalog: Arc<OfferCatalog>| {
        let offer = offer_catalog.offer(&request.coupon).cloned();
        offer.filter(|offer| request.caller.sees(offer.merchant()))
    };
    if let Some(offer) = visible(live.offer_catalog()) {
        return Ok(offer);
    }
    live.refresh_offer_catalog().await?;
    visible(live.offer_catalog()).ok_or_else(|| TargetsError::UnknownCoupon(request.coupon.clone()))
}

fn query<'a>(
    coupon: &'a CouponId,
    offer: &Offer,
    offer_catalog: &OfferCatalog,
    policy: &Policy,
    snapshot: &'a Snapshot,
) -> AudienceQuery<'a> {
    let ids = snapshot.users().texts();
    let has_exclusive = || offer_catalog.offers().any(|other| other.campaign.is_exclusive);
    let wanted = offer.coupon.rules.iter().filter_map(|rule| match rule {
        Rule::Attribute { name, values } => Some(values.iter().map(|value| (name.clone(), value.clone()))),
        _ => None,
    });
    AudienceQuery {
        coupon,
        audience: offer.campaign.audience,
        middle: if ids.is_empty() { "" } else { ids.get(ids.len() / 2) },
        conflicts: match (offer.campaign.is_exclusive, has_exclusive()) {
            (true, _) => Conflicts::WithAny,
            (false, true) => Conflicts::WithExclusive,
            (false, false) => Conflicts::None,
        },
        max_exposures: policy.max_exposures,
        exposure_window_days: policy.exposure_window_days,
        attributes: wanted.flatten().collect(),
    }
}

/// Everything that is needed to rank an audience, away from the async workers.
struct Assessment {
    snapshot: Arc<Snapshot>,
    view: Arc<View>,
    offer: Arc<Offer>,
    offer_catalog: Arc<OfferCatalog>,
    policy: Policy,
    scores: Scores,
    min_score: Option<f64>,
    reader: Reader,
}

impl Assessment {
    fn rank(self, read: AudienceRead) -> Result<RankedTargets, TargetsError> {
        let audience = UserSet::new(self.snapshot, read.ids())?;
        let rules = CompiledRules::new(&self.offer, Some(&self.view), Users::Many);
        let question = TargetingInput {
            offer: &self.offer,
            rules: &rules,
            offer_catalog: &self.offer_catalog,
            policy: &self.policy,
            view: &self.view,
            usage: &read.usage,
            scores: &self.scores,
            min_score: self.min_score,
            reader: self.reader,
            now: read.now,
        };
        Ok(RankedTargets::new(audience, read.particulars, &question))
    }
}

async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, TargetsError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| TargetsError::Panicked)
}
