//! Hands out the audience of an item or of a category: everybody who is likely to want it.
//!
//! All users are ranked at one moment. The audit records the audience before the first row leaves. The rows then leave in
//! batches, and before each batch the consents are checked again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::live::{Live, ServingStatus};
use crate::store::coupons::audience::{self, ListedRows, Listing, ListingKind};
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::VersionedBytes;
use chrono::Utc;
use coupons::audience::{AudienceCounts, AudienceInput, RankedAudience};
use domain::access::Caller;
use domain::consent::{PrivacyOptions, Purpose};
use domain::id::{Category, ItemId};
use domain::time::Timestamp;
use recommender::snapshot::Snapshot;
use recommender::snapshot::bits::Bits;
use recommender::snapshot::catalog::Facts;
use recommender::snapshot::dictionary::ItemIndex;
use recommender::snapshot::overlay::ItemRef;
use recommender::snapshot::view::View;

use super::targets::{ASSESSMENTS, FIRST_BATCH, MAX_BATCH, MAX_CHECK_AGE, Position};

/// The goods that are advertised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goods {
    Item(ItemId),
    /// The items of the category that the caller may see.
    Category(Category),
}

impl Goods {
    fn as_str(&self) -> &str {
        match self {
            Self::Item(item) => item.as_str(),
            Self::Category(category) => category.as_str(),
        }
    }

    /// Returns whether `item` is meant, and `caller` may see it.
    fn include(&self, item: &str, facts: &Facts<'_>, caller: &Caller) -> bool {
        caller.sees(facts.merchant)
            && match self {
                Self::Item(own) => own.as_str() == item,
                Self::Category(own) => facts.category == Some(own.as_str()),
            }
    }
}

#[derive(Debug, Clone)]
pub struct AudienceRequest {
    pub goods: Goods,
    /// The greatest number of rows of this call; `None` allows all.
    pub limit: Option<u64>,
    pub min_score: Option<f64>,
    /// Leaves out users who have bought one of the items.
    pub exclude_purchased: bool,
    /// Continues after this row.
    pub after: Option<Position>,
    /// The purpose of the audience, for the audit.
    pub note: String,
    pub caller: Arc<Caller>,
}

/// The counts that come before the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The snapshot that the scores come from.
    pub bytes: VersionedBytes,
    /// The number of items that the scores are summed over.
    pub items: usize,
    pub counts: AudienceCounts,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Counts from 1, over all pages.
    pub rank: u64,
    pub user: String,
    /// The affinity to the items, above 0.
    pub score: f64,
}

#[derive(Debug, thiserror::Error)]
pub enum AudienceError {
    #[error("there is no item {0}")]
    UnknownItem(ItemId),
    #[error("no item is in the category {0}")]
    UnknownCategory(Category),
    #[error("no snapshot is loaded")]
    NoSnapshot(Arc<ServingStatus>),
    #[error("snapshot {version} is no longer in memory; list the audience from the beginning")]
    SnapshotGone { version: i64 },
    #[error("ranking the users ended with a panic")]
    Panicked,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An audience that is being sent. End it with [`Audience::close`], which logs it.
#[derive(Debug)]
pub struct Audience {
    pool: Pool,
    /// When the users were ranked.
    ranked_at: Timestamp,
    privacy: PrivacyOptions,
    request: AudienceRequest,
    header: Header,
    snapshot: Arc<Snapshot>,
    ranked: RankedAudience,
    /// The first position that no batch has held yet.
    next: usize,
    /// The positions that are sent next.
    batch: VecDeque<usize>,
    checked_at: Instant,
    batch_size: usize,
    sent: u64,
}

impl Audience {
    /// Ranks all users, and records in the audit that the audience is handed out.
    pub async fn open(
        pool: &Pool,
        live: &Live,
        privacy: PrivacyOptions,
        request: AudienceRequest,
    ) -> Result<Self, AudienceError> {
        let ranked_at = Utc::now();
        // Everything committed by now is taken into account. If the database is not available, the audit row below fails.
        live.refresh().await;
        // Without the database nothing can be audited, which is said first.
        live.refresh_offer_catalog().await?;
        let view = live.view().ok_or_else(|| AudienceError::NoSnapshot(live.status()))?;
        check_goods(&view, &request)?;
        let after = request.after.as_ref();
        let of_view = VersionedBytes {
            version: view.version,
            redaction: view.redaction,
        };
        let bytes = after.map_or(of_view, |after| after.bytes);
        let snapshot = live
            .snapshot(bytes)
            .ok_or(AudienceError::SnapshotGone { version: bytes.version })?;
        // The semaphore is never closed.
        let _slot = ASSESSMENTS.acquire().await.map_err(|_| AudienceError::Panicked)?;
        let (n_items, ranked) = tokio::task::spawn_blocking({
            let (request, snapshot) = (request.clone(), snapshot.clone());
            move || rank(&view, &snapshot, &request)
        })
        .await
        .map_err(|_| AudienceError::Panicked)?;
        let next = after.map_or(0, |after| ranked.position_after(&snapshot, after.score, &after.user));
        let audience = Self {
            pool: pool.clone(),
            ranked_at,
            privacy,
            header: Header {
                bytes,
                items: n_items,
                counts: ranked.counts,
            },
            snapshot,
            next,
            batch: VecDeque::new(),
            checked_at: Instant::now(),
            batch_size: FIRST_BATCH,
            sent: 0,
            ranked,
            request,
        };
        let left = (audience.ranked.members.len() - next) as u64;
        audience.log(ListedRows::AtMost(left.min(audience.left()))).await?;
        Ok(audience)
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the next row, whose consent was checked within the last second, or `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Member>, AudienceError> {
        if self.checked_at.elapsed() > MAX_CHECK_AGE && !self.batch.is_empty() {
            let rows = std::mem::take(&mut self.batch);
            self.check(rows.into()).await?;
        }
        loop {
            if let Some(position) = self.batch.pop_front() {
                self.sent += 1;
                return Ok(Some(self.member(position)));
            }
            let size = usize::try_from(self.left()).unwrap_or(usize::MAX).min(self.batch_size);
            let end = self.ranked.members.len().min(self.next.saturating_add(size));
            if self.next == end {
                return Ok(None);
            }
            let rows = (self.next..end).collect();
            self.next = end;
            self.batch_size = (self.batch_size * 2).min(MAX_BATCH);
            self.check(rows).await?;
        }
    }

    /// Logs how many rows were handed out.
    pub async fn close(self) -> Result<(), StoreError> {
        self.log(ListedRows::Sent(self.sent)).await
    }

    async fn log(&self, rows: ListedRows) -> Result<(), StoreError> {
        let listing = Listing {
            actor: &self.request.caller.name,
            kind: ListingKind::Audience,
            subject: self.request.goods.as_str(),
            note: &self.request.note,
            rows,
            snapshot_version: self.header.bytes.version,
        };
        audience::log_listing(&self.pool, listing).await
    }

    /// Returns how many more rows may be sent.
    fn left(&self) -> u64 {
        self.request.limit.map_or(u64::MAX, |limit| limit - self.sent)
    }

    fn id(&self, position: usize) -> &str {
        self.snapshot.users().id(self.ranked.members[position].0)
    }

    /// Adds the users at `positions` who still agree to the batch.
    async fn check(&mut self, positions: Vec<usize>) -> Result<(), AudienceError> {
        let ids: Vec<String> = positions.iter().map(|&position| self.id(position).to_owned()).collect();
        self.checked_at = Instant::now();
        let users = audience::recheck_users(&self.pool, &ids).await?;
        for (position, id) in positions.into_iter().zip(&ids) {
            let agrees = users.get(id).is_some_and(|user| {
                !user.has_come_back_since(self.ranked_at)
                    && !user.consents.is_suppressed()
                    && self.privacy.allows(user.consents, Purpose::Marketing)
                    && self.privacy.allows(user.consents, Purpose::Profiling)
            });
            if agrees {
                self.batch.push_back(position);
            }
        }
        Ok(())
    }

    fn member(&self, position: usize) -> Member {
        let before = self.request.after.as_ref().map_or(0, |after| after.rank);
        Member {
            rank: before + self.sent,
            user: self.id(position).to_owned(),
            score: self.ranked.members[position].1,
        }
    }
}

/// Checks that the goods exist for the caller, by the present facts.
fn check_goods(view: &View, request: &AudienceRequest) -> Result<(), AudienceError> {
    let includes = |id: &str, facts: &Facts<'_>| request.goods.include(id, facts, &request.caller);
    match &request.goods {
        Goods::Item(item) => {
            let exists = match view.item(item) {
                Some(ItemRef::Known(index)) => includes(item.as_str(), &view.facts(index)),
                Some(ItemRef::New(id)) => view
                    .overlay
                    .new_item(&id)
                    .is_some_and(|facts| includes(id.as_str(), &facts)),
                None => false,
            };
            exists
                .then_some(())
                .ok_or_else(|| AudienceError::UnknownItem(item.clone()))
        }
        Goods::Category(category) => {
            let mut known = (0..view.snapshot.items().len() as u32).map(ItemIndex);
            let exists = known.any(|item| includes(view.item_id(item), &view.facts(item)))
                || view
                    .overlay
                    .new_items()
                    .any(|(id, facts)| includes(id.as_str(), &facts));
            exists
                .then_some(())
                .ok_or_else(|| AudienceError::UnknownCategory(category.clone()))
        }
    }
}

/// Ranks the users by their affinity to the goods. Returns the number of items and the audience.
///
/// An item that is newer than the snapshot is similar to no other yet.
fn rank(view: &View, snapshot: &Arc<Snapshot>, request: &AudienceRequest) -> (usize, RankedAudience) {
    let bits = |snapshot: &Snapshot, facts: &dyn Fn(ItemIndex) -> bool| -> Bits {
        (0..snapshot.items().len() as u32)
            .map(|item| facts(ItemIndex(item)))
            .collect()
    };
    let (goods, caller) = (&request.goods, &*request.caller);
    let items = bits(snapshot, &|item| {
        goods.include(snapshot.items().id(item), &snapshot.catalog().facts(item), caller)
    });
    let items_now = bits(&view.snapshot, &|item| {
        goods.include(view.item_id(item), &view.facts(item), caller)
    });
    let ranked = RankedAudience::new(&AudienceInput {
        snapshot,
        items: &items,
        view,
        items_now: &items_now,
        min_score: request.min_score,
        exclude_purchased: request.exclude_purchased,
    });
    (items.count_ones(), ranked)
}
