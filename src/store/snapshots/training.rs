//! Reads what a model is trained on, as of one moment.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use futures_util::{TryStreamExt, try_join};

use domain::consent::{Consents, PrivacyOptions, Purpose};
use domain::money::Currency;
use domain::time::Timestamp;
use recommender::snapshot::catalog::{Catalog, NONE};
use recommender::snapshot::consents::ConsentRecords;
use recommender::snapshot::dictionary::{DenseIndex, Dictionary, ItemIndex, Texts, UserIndex};
use recommender::training::input::{CouponUseEvent, RatingEvent, TrainingInput};

mod campaigns;
mod purchases;
pub mod sales;

pub use self::campaigns::PastCampaign;
use self::purchases::Purchases;
use self::sales::Sales;

use crate::store::error::StoreError;
use crate::store::postgres::copy::{self, Extent};
use crate::store::postgres::pool::{Connection, Pool};
use crate::store::snapshots::changes::{self, Watermark};
use crate::store::snapshots::redaction;

/// Everything that was read for a training.
#[derive(Debug)]
pub struct TrainingData {
    /// Its `campaigns` are empty: the caller works out which items they cover.
    pub input: TrainingInput,
    pub campaigns: Vec<PastCampaign>,
    pub sales: Sales,
    /// The moment as of which everything was read.
    pub watermark: Watermark,
    /// The last erasure before that moment; 0 without any.
    pub erased_through: i64,
}

/// Reads everything over two connections that see the same moment.
///
/// Reads nothing about users who do not allow training, except what they have said about the use of their data: every
/// query about users checks this.
pub async fn read(pool: &Pool, privacy: &PrivacyOptions) -> Result<TrainingData, StoreError> {
    let (mut first, mut second, watermark) = changes::two_readers(pool).await?;
    let as_of = sqlx::query_scalar!(r#"SELECT now() AS "now!""#)
        .fetch_one(&mut *first)
        .await?;
    let erased_through = redaction::last_erasure(&mut first).await?;
    let by_default = privacy.training_without_record;
    let (users, (items, catalog)) = try_join!(read_users(&mut first, by_default), read_items(&mut second))?;
    let ratings = Ratings::new(copy::ratings_extent(&mut first).await?, by_default);
    let ((), (Purchases { orders, returns }, coupon_uses, sales)) =
        try_join!(ratings.read(&mut first, &users, &items), async {
            let purchases = purchases::read(&mut second, by_default, &users, &items).await?;
            let coupon_uses = read_coupon_uses(&mut second, by_default, &users).await?;
            let sales = sales::read(&mut second, by_default, &items).await?;
            ratings.read(&mut second, &users, &items).await?;
            Ok((purchases, coupon_uses, sales))
        })?;
    let consents = read_consents(&mut first).await?;
    let campaigns = campaigns::read(&mut first, by_default, &users).await?;
    let input = TrainingInput {
        users: users.ids,
        items: items.ids,
        catalog,
        ratings: ratings.into_events(),
        orders,
        coupon_uses,
        returns,
        consents,
        campaigns: Vec::new(),
        as_of,
    };
    Ok(TrainingData {
        input,
        campaigns,
        sales,
        watermark,
        erased_through,
    })
}

/// The external ids of users or items, and the database key of each.
struct Keyed<I> {
    ids: Dictionary<I>,
    /// The lowest key.
    first_key: i64,
    /// The index of each key from `first_key` on, or [`NONE`]. PostgreSQL counts keys up, so few are unused.
    by_key: Vec<u32>,
    /// The keys further away, where keys were set by hand or many are unused.
    far: HashMap<i64, I>,
}

impl<I: DenseIndex> Keyed<I> {
    /// The most entries of `by_key` for every id.
    const MAX_SPREAD: usize = 8;

    /// `rows`: key and external id, ascending by id.
    fn new(table: &'static str, rows: &[(i64, String)]) -> Result<Self, StoreError> {
        let ids: Texts = rows.iter().map(|(_, id)| id).collect();
        let ids = Dictionary::new(ids).ok_or_else(|| StoreError::corrupt(table, "ids are not ascending"))?;
        let keys = || rows.iter().map(|(key, _)| *key);
        let (first_key, last_key) = (keys().min().unwrap_or(0), keys().max().unwrap_or(0));
        let span = usize::try_from(last_key.abs_diff(first_key))
            .unwrap_or(usize::MAX)
            .saturating_add(1);
        let mut keyed = Self {
            ids,
            first_key,
            by_key: vec![NONE; span.min(Self::MAX_SPREAD * rows.len())],
            far: HashMap::new(),
        };
        for (key, index) in keys().zip(0..) {
            match keyed.by_key.get_mut(key.abs_diff(first_key) as usize) {
                Some(entry) => *entry = index,
                None => _ = keyed.far.insert(key, I::new(index)),
            }
        }
        Ok(keyed)
    }

    fn index(&self, table: &'static str, key: i64) -> Result<I, StoreError> {
        let near = usize::try_from(key.wrapping_sub(self.first_key)).ok();
        let index = match near.and_then(|position| self.by_key.get(position)) {
            Some(&NONE) => None,
            Some(&index) => Some(I::new(index)),
            None => self.far.get(&key).copied(),
        };
        index.ok_or_else(|| StoreError::corrupt(table, format!("key {key} is not known")))
    }
}

/// Reads the users who allow training.
///
/// `by_default`: whether users who have said nothing about training allow it, here and below.
async fn read_users(connection: &mut Connection, by_default: bool) -> Result<Keyed<UserIndex>, StoreError> {
    let mut rows = Vec::new();
    let mut users = sqlx::query!(
        "SELECT id, external_id
         FROM users LEFT JOIN consents ON consents.user_id = users.id AND purpose = 'training'
         WHERE COALESCE(is_granted, $1)",
        by_default
    )
    .fetch(connection);
    while let Some(user) = users.try_next().await? {
        rows.push((user.id, user.external_id));
    }
    // They are sorted here, as an ORDER BY halves the speed of PostgreSQL.
    rows.sort_unstable_by(|a, b| a.1.cmp(&b.1));
    Keyed::new("users", &rows)
}

/// Reads all items, with the facts about them.
async fn read_items(connection: &mut Connection) -> Result<(Keyed<ItemIndex>, Catalog), StoreError> {
    let mut rows = sqlx::query_as!(
        ItemRow,
        r#"SELECT items.id, items.external_id, title, merchants.external_id AS "merchant_id?", category, price_minor,
                  currency_code, listed
           FROM items LEFT JOIN merchants ON merchants.id = merchant_id"#
    )
    .fetch_all(connection)
    .await?;
    rows.sort_unstable_by(|a, b| a.external_id.cmp(&b.external_id));

    let (categories, category_of) = references(rows.iter().map(|row| row.category.as_deref()));
    let (merchants, merchant_of) = references(rows.iter().map(|row| row.merchant_id.as_deref()));
    let currency = |row: &ItemRow| row.currency_code.as_deref().map(Currency::new).transpose();
    let currency_column = rows.iter().map(currency).collect::<Result<Vec<_>, _>>();
    let currency_column = currency_column.map_err(|error| StoreError::corrupt("items", error))?;
    let (currencies, currency_of) = references(currency_column.into_iter());
    let catalog = Catalog {
        titles: rows.iter().map(|row| row.title.as_deref().unwrap_or("")).collect(),
        categories: categories.into_iter().collect(),
        merchants: merchants.into_iter().collect(),
        category_of,
        merchant_of,
        price_minor: rows.iter().map(|row| row.price_minor.unwrap_or(0)).collect(),
        currency_of,
        currencies,
        listed: rows.iter().map(|row| row.listed).collect(),
    };
    let keys: Vec<(i64, String)> = rows.into_iter().map(|row| (row.id, row.external_id)).collect();
    Ok((Keyed::new("items", &keys)?, catalog))
}

struct ItemRow {
    id: i64,
    external_id: String,
    title: Option<String>,
    merchant_id: Option<String>,
    category: Option<String>,
    price_minor: Option<i64>,
    currency_code: Option<String>,
    listed: bool,
}

/// Returns the distinct names, ascending, and for every entry the position of its name among them, or [`NONE`].
fn references<N: Copy + Ord + Hash>(names: impl Iterator<Item = Option<N>> + Clone) -> (Vec<N>, Vec<u32>) {
    let mut distinct: Vec<N> = names.clone().flatten().collect();
    distinct.sort_unstable();
    distinct.dedup();
    let positions: HashMap<N, u32> = distinct.iter().copied().zip(0..).collect();
    let position = |name: Option<N>| name.map_or(NONE, |name| positions[&name]);
    let column = names.map(position).collect();
    (distinct, column)
}

/// Reads the consents of every user who has any on record, and the suppressed users.
async fn read_consents(connection: &mut Connection) -> Result<ConsentRecords, StoreError> {
    let mut rows = Vec::new();
    let mut recorded = sqlx::query!(
        r#"SELECT users.external_id, marketing.is_granted AS "marketing?", profiling.is_granted AS "profiling?",
                  training.is_granted AS "training?", suppressions.user_id IS NOT NULL AS "is_suppressed!"
           FROM (SELECT user_id FROM consents UNION SELECT user_id FROM suppressions) AS recorded
           JOIN users ON users.id = recorded.user_id
           LEFT JOIN consents AS marketing ON marketing.user_id = users.id AND marketing.purpose = 'marketing'
           LEFT JOIN consents AS profiling ON profiling.user_id = users.id AND profiling.purpose = 'profiling'
           LEFT JOIN consents AS training ON training.user_id = users.id AND training.purpose = 'training'
           LEFT JOIN suppressions ON suppressions.user_id = users.id
           WHERE NOT is_pseudonym"#
    )
    .fetch(connection);
    while let Some(row) = recorded.try_next().await? {
        let consents = Consents::default()
            .with(Purpose::Marketing, row.marketing)
            .with(Purpose::Profiling, row.profiling)
            .with(Purpose::Training, row.training)
            .suppressed(row.is_suppressed);
        rows.push((row.external_id, consents));
    }
    rows.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let ids = rows.iter().map(|(id, _)| id).collect();
    let consents = rows.iter().map(|(_, consents)| *consents).collect();
    ConsentRecords::new(ids, consents).ok_or_else(|| StoreError::corrupt("consents", "ids are not ascending"))
}

/// Reads the ratings over several connections, each of which takes the next range of pages that none has read yet.
struct Ratings {
    extent: Extent,
    by_default: bool,
    next_block: AtomicI64,
    events: Mutex<Vec<RatingEvent>>,
}

impl Ratings {
    /// The number of ranges: enough that no connection is left alone with a large rest, few enough that a range has many
    /// pages.
    const N_RANGES: i64 = 32;

    /// The number of events that a connection collects before it takes the lock to add them to all others.
    const BATCH: usize = 8_192;

    fn new(extent: Extent, by_default: bool) -> Self {
        Self {
            extent,
            by_default,
            next_block: AtomicI64::new(0),
            events: Mutex::new(Vec::with_capacity(extent.rows)),
        }
    }

    async fn read(
        &self,
        connection: &mut Connection,
        users: &Keyed<UserIndex>,
        items: &Keyed<ItemIndex>,
    ) -> Result<(), StoreError> {
        let n_blocks = self.extent.blocks / Self::N_RANGES + 1;
        let mut batch = Vec::with_capacity(Self::BATCH);
        loop {
            let start = self.next_block.fetch_add(n_blocks, Ordering::Relaxed);
            if start >= self.extent.blocks {
                self.add(&mut batch);
                return Ok(());
            }
            copy::read_ratings(connection, start..start + n_blocks, self.by_default, |row| {
                batch.push(RatingEvent {
                    user: users.index("ratings", row.user_id)?,
                    item: items.index("ratings", row.item_id)?,
                    value: row.value,
                    rated_at: row.rated_at,
                });
                if batch.len() == Self::BATCH {
                    self.add(&mut batch);
                }
                Ok(())
            })
            .await?;
        }
    }

    /// Moves `events` to those of all connections.
    fn add(&self, events: &mut Vec<RatingEvent>) {
        let mut all = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        all.append(events);
    }

    fn into_events(self) -> Vec<RatingEvent> {
        self.events.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the lines that are no purchases but tell of a coupon, one event for each order of a user.
async fn read_coupon_uses(
    connection: &mut Connection,
    by_default: bool,
    users: &Keyed<UserIndex>,
) -> Result<Vec<CouponUseEvent>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT purchases.user_id, min(purchased_at) AS "used_at!", count(*) AS "lines!"
           FROM purchases LEFT JOIN consents ON consents.user_id = purchases.user_id AND purpose = 'training'
           WHERE quantity = 0 AND COALESCE(is_granted, $1)
           GROUP BY order_id, purchases.user_id"#,
        by_default
    )
    .fetch_all(connection)
    .await?;
    let event = |row: _| -> Result<CouponUseEvent, StoreError> {
        let (user_id, used_at, lines): (i64, Timestamp, i64) = row;
        Ok(CouponUseEvent {
            user: users.index("purchases", user_id)?,
            used_at,
            lines: u32::try_from(lines).unwrap_or(u32::MAX),
        })
    };
    rows.into_iter()
        .map(|row| event((row.user_id, row.used_at, row.lines)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_finds_its_id_and_no_other_does() {
        let check = |keys: &[i64]| {
            let rows: Vec<(i64, String)> = keys.iter().zip('a'..).map(|(key, id)| (*key, id.to_string())).collect();
            let keyed = Keyed::<UserIndex>::new("users", &rows).unwrap();
            assert!(keyed.by_key.len() <= 8 * keys.len());
            for (&key, index) in keys.iter().zip(0..) {
                assert_eq!(
                    keyed.index("users", key).unwrap(),
                    UserIndex(index),
                    "{key} of {keys:?}"
                );
                for other in [key.wrapping_sub(1), key.wrapping_add(1)]
                    .iter()
                    .filter(|key| !keys.contains(key))
                {
                    keyed.index("users", *other).unwrap_err();
                }
            }
        };
        check(&[]);
        check(&[1]);
        check(&[3, 1, 2, 9]);
        check(&[1 << 40, 5, 3]);
        check(&[i64::MAX, i64::MIN, 0, -1]);
    }

    #[test]
    fn names_become_ascending_references() {
        let check = |names: &[Option<&str>], distinct: &[&str], column: &[u32]| {
            let found = references(names.iter().copied());
            assert_eq!(found, (distinct.to_vec(), column.to_vec()));
        };
        check(&[], &[], &[]);
        check(&[None, None], &[], &[NONE, NONE]);
        check(&[Some("b"), None, Some("a"), Some("b")], &["a", "b"], &[1, NONE, 0, 1]);
    }
}
