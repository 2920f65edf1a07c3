//! Lists the targets of a coupon.
//!
//! All users are assessed and ranked at one moment. The rows then leave in batches, and before each batch the facts that
//! may have changed are checked again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use futures_util::{TryFutureExt, try_join};
use tokio::sync::Semaphore;

use crate::live::{Live, ServingStatus};
use crate::store::coupons::audience::{
    self, AudienceQuery, AudienceRead, Conflicts, ListedRows, Listing, ListingKind, OfferKeys, Recheck,
};
use crate::store::coupons::exposures::{self, Exposure};
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::VersionedBytes;
use coupons::eligibility::{Failure, Policy, campaign_failures};
use coupons::offer_catalog::{Offer, OfferCatalog};
use coupons::rules::{CompiledRules, Users};
use coupons::scope;
use coupons::scoring::{Explanation, NotFitted, RankBy, Scorer, Scores};
use coupons::targeting::{Counts, RankedTargets, RankedUser, TargetingInput};
use coupons::user_set::{UserSet, UserSetError};
use coupons::visibility::Reader;
use domain::access::Caller;
use domain::consent::Purpose;
use domain::coupon::Rule;
use domain::id::CouponId;
use domain::time::Timestamp;
use recommender::snapshot::Snapshot;
use recommender::snapshot::view::View;

use super::eligibility::reader;

/// The size of the first batch, small so that the first row comes soon. Each batch is twice as long as the one before.
pub(super) const FIRST_BATCH: usize = 64;
pub(super) const MAX_BATCH: usize = 1_024;
/// The remaining rows of a batch are checked again after this time.
pub(super) const MAX_CHECK_AGE: Duration = Duration::from_secs(1);

/// Limits how many audiences are assessed at the same time, since each takes two connections and all cores.
pub(super) static ASSESSMENTS: Semaphore = Semaphore::const_new(2);

#[derive(Debug, Clone)]
pub struct TargetsRequest {
    pub coupon: CouponId,
    pub by: RankBy,
    /// The greatest number of rows of this call; `None` allows all.
    pub limit: Option<u64>,
    pub min_score: Option<f64>,
    /// Continues after this row.
    pub after: Option<Position>,
    pub explain: bool,
    /// Logs nobody as offered or held out.
    pub preview: bool,
    pub caller: Arc<Caller>,
}

/// The position of a row that was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    pub bytes: VersionedBytes,
    pub score: f64,
    pub user: String,
    pub rank: u64,
}

/// The counts that come before the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The snapshot that the scores come from.
    pub bytes: VersionedBytes,
    pub coupon: CouponId,
    pub by: RankBy,
    pub counts: Counts,
    /// Whether the users are logged as offered and held out.
    pub is_logged: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    /// Counts from 1, over all pages.
    pub rank: u64,
    pub user: String,
    /// An affinity, 0 or more, or a probability.
    pub score: f64,
    pub explanation: Option<Explanation>,
}

#[derive(Debug, thiserror::Error)]
pub enum TargetsError {
    #[error("there is no coupon {0}")]
    UnknownCoupon(CouponId),
    #[error("no snapshot is loaded")]
    NoSnapshot(Arc<ServingStatus>),
    #[error("snapshot {version} is no longer in memory; list the targets from the beginning")]
    SnapshotGone { version: i64 },
    #[error(transparent)]
    NotFitted(#[from] NotFitted),
    /// Occurs after the header: nobody is eligible any more.
    #[error("the campaign of coupon {coupon} has stopped: {}", failure.code().name())]
    Stopped { coupon: CouponId, failure: Failure },
    #[error("the users cannot be ranked")]
    Audience(#[from] UserSetError),
    #[error("assessing the users ended with a panic")]
    Panicked,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A list of targets that is being sent. End it with [`Targets::close`], which logs it.
#[derive(Debug)]
pub struct Targets {
    pool: Pool,
    /// When the users were ranked.
    ranked_at: Timestamp,
    request: TargetsRequest,
    header: Header,
    offer: Arc<Offer>,
    snapshot: Arc<Snapshot>,
    policy: Policy,
    keys: OfferKeys,
    scorer: Scorer,
    ranking: RankedTargets,
    /// Whether eligibility depends on the users' history.
    rules_need_history: bool,
    /// The first position in the ranking that no batch has held yet.
    next: usize,
    batch: Batch,
    batch_size: usize,
    rank: u64,
    sent: u64,
}

/// The rows that are sent next.
#[derive(Debug)]
struct Batch {
    /// Positions in the ranking.
    rows: VecDeque<usize>,
    checked_at: Instant,
}

impl Targets {
    /// Assesses and ranks all users. The audit tells of the list before any row of it can leave.
    pub async fn open(pool: &Pool, live: &Live, policy: Policy, request: TargetsRequest) -> Result<Self, TargetsError> {
        let offer = find_offer(live, &request).await?;
        let ranked_at = Utc::now();
        // Everything committed by now is taken into account. If the database is not available, reading it below fails.
        live.refresh().await;
        let view = live.view().ok_or_else(|| TargetsError::NoSnapshot(live.status()))?;
        let of_view = VersionedBytes {
            version: view.version,
            redaction: view.redaction,
        };
        let bytes = request.after.as_ref().map_or(of_view, |after| after.bytes);
        let snapshot = live
            .snapshot(bytes)
            .ok_or(TargetsError::SnapshotGone { version: bytes.version })?;
        let rules_need_history = offer.coupon.rules.iter().any(Rule::needs_history);
        let ranked = rank_audience(pool, live, policy, &request, offer.clone(), view, &snapshot).await?;
        let RankedAudience { scorer, keys, ranking } = ranked;
        let header = Header {
            bytes,
            coupon: request.coupon.clone(),
            by: request.by,
            counts: ranking.counts().clone(),
            is_logged: !request.preview,
        };
        let next = request
            .after
            .as_ref()
            .map_or(0, |after| ranking.position_after(after.score, &after.user));
        let targets = Self {
            pool: pool.clone(),
            ranked_at,
            header,
            offer,
            snapshot,
            policy,
            keys,
            scorer,
            rules_need_history,
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
        };
        let most = targets.left().min((targets.ranking.len() - targets.next) as u64);
        targets.log(ListedRows::AtMost(most)).await?;
        Ok(targets)
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the next row, checked within the last second, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Target>, TargetsError> {
        if self.batch.checked_at.elapsed() > MAX_CHECK_AGE && !self.batch.rows.is_empty() {
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

    /// Logs how many rows were listed.
    pub async fn close(self) -> Result<(), StoreError> {
        self.log(ListedRows::Sent(self.sent)).await
    }

    async fn log(&self, rows: ListedRows) -> Result<(), StoreError> {
        let listing = Listing {
            actor: &self.request.caller.name,
            kind: ListingKind::Targets,
            subject: self.request.coupon.as_str(),
            note: if self.request.preview { "preview" } else { "" },
            rows,
            snapshot_version: self.header.bytes.version,
        };
        audience::log_listing(&self.pool, listing).await
    }

    /// Returns how many more rows may be sent.
    fn left(&self) -> u64 {
        self.request.limit.map_or(u64::MAX, |limit| limit - self.sent)
    }

    /// Fills the next batch and logs its users as offered or held out.
    async fn fill(&mut self) -> Result<(), TargetsError> {
        let size = usize::try_from(self.left()).unwrap_or(usize::MAX).min(self.batch_size);
        let (first, mut offered) = (self.next, 0);
        // The bound on held-out users keeps a campaign that holds out most of its users from logging them all at once.
        while self.next < self.ranking.len() && offered < size && self.next - first < 2 * self.batch_size {
            offered += usize::from(!self.ranking.get(self.next).is_held_out);
            self.next += 1;
        }
        self.batch_size = (self.batch_size * 2).min(MAX_BATCH);
        let exposed = self.check((first..self.next).collect()).await?;
        if !self.request.preview {
            exposures::log(&self.pool, self.keys, self.header.bytes.version, &exposed).await?;
        }
        Ok(())
    }

    /// Adds the users at `positions` who may still be targeted to the batch. Returns them together with the held-out users
    /// for whom the same is true.
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

    /// Returns the user's key, unless they have withdrawn their consent in the meantime.
    fn still_targeted(&self, ranked: &RankedUser, recheck: &Recheck) -> Option<i64> {
        let user = recheck.users.get(ranked.id)?;
        let privacy = &self.policy.privacy;
        let rests_on_history = ranked.index.is_some() || self.rules_need_history;
        let is_same = ranked.index.is_none() || !user.has_come_back_since(self.ranked_at);
        let is_in = is_same
            && privacy.allows(user.consents, Purpose::Marketing)
            && !user.consents.is_suppressed()
            && (!rests_on_history || privacy.allows(user.consents, Purpose::Profiling));
        is_in.then_some(user.user_id)
    }

    fn target(&self, position: usize) -> Target {
        let ranked = self.ranking.get(position);
        let reader = reader(&self.request.caller);
        let explanation = ranked.index.filter(|_| self.request.explain);
        Target {
            rank: self.rank,
            user: ranked.id.to_owned(),
            score: ranked.score,
            explanation: explanation.and_then(|user| self.scorer.explain(&self.snapshot, user, &self.offer, reader)),
        }
    }

    /// Returns the snapshot that the scores come from.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }
}

/// Finds the offer in the offer catalog. Reads the catalog again if it is not there.
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

struct RankedAudience {
    scorer: Scorer,
    keys: OfferKeys,
    ranking: RankedTargets,
}

/// Scores the users while their state is read, then assesses and ranks them.
async fn rank_audience(
    pool: &Pool,
    live: &Live,
    policy: Policy,
    request: &TargetsRequest,
    offer: Arc<Offer>,
    view: Arc<View>,
    snapshot: &Arc<Snapshot>,
) -> Result<RankedAudience, TargetsError> {
    // The semaphore is never closed.
    let _slot = ASSESSMENTS.acquire().await.map_err(|_| TargetsError::Panicked)?;
    let offer_catalog = live.offer_catalog();
    let score = compute({
        let (by, snapshot, offer) = (request.by, snapshot.clone(), offer.clone());
        move || {
            let scorer = Scorer::new(by, &snapshot, &offer)?;
            let scores = scorer.scores(&snapshot);
            Ok::<_, TargetsError>((scorer, scores))
        }
    });
    let query = query(&request.coupon, &offer, &offer_catalog, &policy, snapshot);
    let read = audience::read(pool, &query).map_err(TargetsError::from);
    let (scored, read) = try_join!(score, read)?;
    let (scorer, scores) = scored?;
    let read = read.ok_or_else(|| TargetsError::UnknownCoupon(request.coupon.clone()))?;
    let keys = read.keys;
    let task = RankingTask {
        snapshot: snapshot.clone(),
        view,
        offer,
        offer_catalog,
        policy,
        scores,
        min_score: request.min_score,
        reader: reader(&request.caller),
    };
    let ranking = compute(move || task.rank(read)).await??;
    Ok(RankedAudience { scorer, keys, ranking })
}

/// Everything that is needed to rank an audience on a blocking thread.
struct RankingTask {
    snapshot: Arc<Snapshot>,
    view: Arc<View>,
    offer: Arc<Offer>,
    offer_catalog: Arc<OfferCatalog>,
    policy: Policy,
    scores: Scores,
    min_score: Option<f64>,
    reader: Reader,
}

impl RankingTask {
    fn rank(self, read: AudienceRead) -> Result<RankedTargets, TargetsError> {
        let audience = UserSet::new(self.snapshot, read.ids(), |id| self.view.overlay.has_erased(id))?;
        let rules = CompiledRules::new(&self.offer, Some(&self.view), Users::Many);
        let question = TargetingInput {
            offer: &self.offer,
            rules: &rules,
            offer_catalog: &self.offer_catalog,
            policy: &self.policy,
            view: &self.view,
            usage: &read.usage,
            is_scope_empty: scope::is_empty(&self.offer, &self.view),
            scores: &self.scores,
            min_score: self.min_score,
            reader: self.reader,
            now: read.now,
        };
        Ok(RankedTargets::new(audience, read.particulars, &question))
    }
}

/// Runs CPU work on a blocking thread.
async fn compute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, TargetsError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| TargetsError::Panicked)
}
