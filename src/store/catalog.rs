//! Stores and lists merchants and items.

pub mod categories;
pub mod ids;
pub mod key_cache;

use std::collections::{BTreeMap, HashSet};

use domain::id::{Category, ItemId, MerchantId};
use domain::item::{Item, ItemFacts, ItemPatch, MerchantPatch};
use domain::money::{Currency, Money};

use crate::store::error::StoreError;
use crate::store::outcome::WriteOutcome;
use crate::store::postgres::pool::{Connection, Pool};

/// Creates the unknown ones among `items`, bare.
pub async fn create_items(pool: &Pool, items: &[&ItemId]) -> Result<(), StoreError> {
    pool.write(|mut tx| async move {
        ids::ensure_items(&mut tx, items.iter().map(|item| item.as_str())).await?;
        Ok(tx.commit().await?)
    })
    .await
}

/// Creates the unknown ones among `merchants`, without a name.
pub async fn create_merchants(pool: &Pool, merchants: &[&MerchantId]) -> Result<(), StoreError> {
    pool.write(|mut tx| async move {
        ids::ensure_merchants(&mut tx, merchants.iter().map(|merchant| merchant.as_str())).await?;
        Ok(tx.commit().await?)
    })
    .await
}

/// Creates or updates merchants in one transaction. Returns the outcome of each entry; the outcome of several entries for
/// one merchant is that of the last.
pub async fn upsert_merchants(pool: &Pool, merchants: &[MerchantPatch]) -> Result<Vec<WriteOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let outcomes = upsert_merchants_in(&mut tx, merchants).await?;
        tx.commit().await?;
        Ok(outcomes)
    })
    .await
}

async fn upsert_merchants_in(
    connection: &mut Connection,
    merchants: &[MerchantPatch],
) -> Result<Vec<WriteOutcome>, StoreError> {
    let keys = ids::ensure_merchants(connection, merchants.iter().map(|merchant| merchant.id.as_str())).await?;
    let mut names: BTreeMap<i64, Option<&str>> = BTreeMap::new();
    for merchant in merchants {
        let name = names.entry(keys.key(merchant.id.as_str())).or_default();
        *name = merchant.name.as_deref().or(*name);
    }
    let merchant_ids: Vec<i64> = names.keys().copied().collect();
    let names: Vec<Option<String>> = names.values().map(|name| name.map(str::to_owned)).collect();
    // The update alone would take its locks in the order of its plan.
    sqlx::query!(
        "SELECT FROM merchants WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE",
        &merchant_ids
    )
    .fetch_all(&mut *connection)
    .await?;
    let updated = sqlx::query_scalar!(
        "UPDATE merchants SET name = new.name
         FROM UNNEST($1::bigint[], $2::text[]) AS new (id, name)
         WHERE merchants.id = new.id AND new.name IS NOT NULL AND merchants.name IS DISTINCT FROM new.name
         RETURNING merchants.id",
        &merchant_ids,
        &names as &[Option<String>],
    )
    .fetch_all(&mut *connection)
    .await?;
    Ok(outcomes(
        merchants.iter().map(|merchant| keys.key(merchant.id.as_str())),
        &keys.created,
        &updated,
    ))
}

/// Creates or updates items in one transaction. A field that is `None` keeps the stored value; an empty title removes it.
/// Returns the outcome of each entry; the outcome of several entries for one item is that of the last.
pub async fn upsert_items(pool: &Pool, items: &[ItemPatch]) -> Result<Vec<WriteOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let outcomes = upsert_items_in(&mut tx, items).await?;
        tx.commit().await?;
        Ok(outcomes)
    })
    .await
}

async fn upsert_items_in(connection: &mut Connection, items: &[ItemPatch]) -> Result<Vec<WriteOutcome>, StoreError> {
    let merchants = items
        .iter()
        .filter_map(|item| item.merchant.as_ref().map(|merchant| merchant.as_str()));
    let merchants = ids::ensure_merchants(connection, merchants).await?;
    let keys = ids::ensure_items(connection, items.iter().map(|item| item.id.as_str())).await?;

    let mut patches: BTreeMap<i64, ItemPatch> = BTreeMap::new();
    for item in items {
        patches
            .entry(keys.key(item.id.as_str()))
            .and_modify(|patch| patch_over(patch, item))
            .or_insert_with(|| item.clone());
    }
    let updated = patch_items(connection, &patches, &merchants).await?;
    Ok(outcomes(
        items.iter().map(|item| keys.key(item.id.as_str())),
        &keys.created,
        &updated,
    ))
}

/// Updates items by `patches`, by key. Returns the keys of those that changed.
///
/// `merchants`: must hold every merchant of the patches.
async fn patch_items(
    connection: &mut Connection,
    patches: &BTreeMap<i64, ItemPatch>,
    merchants: &ids::Keys,
) -> Result<Vec<i64>, StoreError> {
    let column = |of: fn(&ItemPatch) -> Option<String>| patches.values().map(of).collect::<Vec<_>>();
    let item_ids: Vec<i64> = patches.keys().copied().collect();
    let titles = column(|patch| patch.title.clone());
    let merchant_ids: Vec<Option<i64>> = patches
        .values()
        .map(|patch| patch.merchant.as_ref().map(|merchant| merchants.key(merchant.as_str())))
        .collect();
    let categories = column(|patch| patch.category.as_ref().map(ToString::to_string));
    let prices: Vec<Option<i64>> = patches
        .values()
        .map(|patch| patch.price.map(|price| price.amount_minor))
        .collect();
    let currencies = column(|patch| patch.price.map(|price| price.currency.to_string()));
    let listed: Vec<Option<bool>> = patches.values().map(|patch| patch.listed).collect();
    // Locking is a separate statement, so that the update sees the rows as they are after the wait. An update that waits
    // itself has read the row before the wait, and would write old values over newer ones.
    sqlx::query!(
        "SELECT FROM items WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE",
        &item_ids
    )
    .fetch_all(&mut *connection)
    .await?;
    let updated = sqlx::query_scalar!(
        r#"WITH patched AS (
               SELECT items.id, NULLIF(COALESCE(new.title, items.title), '') AS title,
                      COALESCE(new.merchant_id, items.merchant_id) AS merchant_id,
                      COALESCE(new.category, items.category) AS category,
                      COALESCE(new.price_minor, items.price_minor) AS price_minor,
                      COALESCE(new.currency_code, items.currency_code) AS currency_code,
                      COALESCE(new.listed, items.listed) AS listed
               FROM UNNEST($1::bigint[], $2::text[], $3::bigint[], $4::text[], $5::bigint[], $6::text[], $7::boolean[])
                        AS new (id, title, merchant_id, category, price_minor, currency_code, listed)
               JOIN items ON items.id = new.id
           ), updated AS (
               UPDATE items
               SET title = patched.title, merchant_id = patched.merchant_id, category = patched.category,
                   price_minor = patched.price_minor, currency_code = patched.currency_code, listed = patched.listed
               FROM patched
               WHERE items.id = patched.id
                 AND (items.title, items.merchant_id, items.category, items.price_minor, items.currency_code,
                      items.listed)
                     IS DISTINCT FROM
                     (patched.title, patched.merchant_id, patched.category, patched.price_minor,
                      patched.currency_code, patched.listed)
               RETURNING items.id
           ), logged AS (
               INSERT INTO changes (item_id) SELECT id FROM updated
           )
           SELECT id AS "id!" FROM updated"#,
        &item_ids,
        &titles as &[Option<String>],
        &merchant_ids as &[Option<i64>],
        &categories as &[Option<String>],
        &prices as &[Option<i64>],
        &currencies as &[Option<String>],
        &listed as &[Option<bool>],
    )
    .fetch_all(connection)
    .await?;
    Ok(updated)
}

/// Overwrites the fields of `patch` that `later` has.
fn patch_over(patch: &mut ItemPatch, later: &ItemPatch) {
    fn replace<T: Clone>(field: &mut Option<T>, later: &Option<T>) {
        if later.is_some() {
            field.clone_from(later);
        }
    }
    replace(&mut patch.title, &later.title);
    replace(&mut patch.merchant, &later.merchant);
    replace(&mut patch.category, &later.category);
    replace(&mut patch.price, &later.price);
    replace(&mut patch.listed, &later.listed);
}

/// Returns [`WriteOutcome::Stored`] for the last entry of every key that was created or updated.
fn outcomes(keys: impl DoubleEndedIterator<Item = i64>, created: &[i64], updated: &[i64]) -> Vec<WriteOutcome> {
    let mut changed: HashSet<i64> = created.iter().chain(updated).copied().collect();
    let outcome = |key| {
        if changed.remove(&key) {
            WriteOutcome::Stored
        } else {
            WriteOutcome::Merged
        }
    };
    let mut outcomes: Vec<WriteOutcome> = keys.rev().map(outcome).collect();
    outcomes.reverse();
    outcomes
}

pub async fn get_item(pool: &Pool, item: &ItemId) -> Result<Option<Item>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"SELECT items.external_id, title, merchants.external_id AS "merchant_id?", category, price_minor,
                  currency_code, listed
           FROM items LEFT JOIN merchants ON merchants.id = merchant_id
           WHERE items.external_id = $1"#,
        item.as_str(),
    )
    .fetch_optional(&mut *pool.acquire().await?)
    .await?
    .map(Item::try_from)
    .transpose()
}

/// The items to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemSelection {
    pub merchant: Option<MerchantId>,
    pub category: Option<Category>,
}

/// Returns up to `limit` items whose ids follow `after`, ascending by id.
pub async fn list_items(
    pool: &Pool,
    selection: &ItemSelection,
    after: &str,
    limit: i64,
) -> Result<Vec<Item>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"SELECT items.external_id, title, merchants.external_id AS "merchant_id?", category, price_minor,
                  currency_code, listed
           FROM items LEFT JOIN merchants ON merchants.id = merchant_id
           WHERE items.external_id > $1
             AND ($2::text IS NULL OR merchants.external_id = $2)
             AND ($3::text IS NULL OR category = $3)
           ORDER BY items.external_id LIMIT $4"#,
        after,
        selection.merchant.as_ref().map(|merchant| merchant.as_str()),
        selection.category.as_ref().map(|category| category.as_str()),
        limit,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?
    .into_iter()
    .map(Item::try_from)
    .collect()
}

struct Row {
    external_id: String,
    title: Option<String>,
    merchant_id: Option<String>,
    category: Option<String>,
    price_minor: Option<i64>,
    currency_code: Option<String>,
    listed: bool,
}

impl TryFrom<Row> for Item {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: ItemId::stored(row.external_id).map_err(|error| StoreError::corrupt("items", error))?,
            facts: facts(
                row.title,
                row.merchant_id,
                row.category,
                row.price_minor,
                row.currency_code,
                row.listed,
            )?,
        })
    }
}

/// Makes the facts of an item from their columns.
pub(super) fn facts(
    title: Option<String>,
    merchant_id: Option<String>,
    category: Option<String>,
    price_minor: Option<i64>,
    currency_code: Option<String>,
    listed: bool,
) -> Result<ItemFacts, StoreError> {
    let corrupt = |error| StoreError::corrupt("items", error);
    Ok(ItemFacts {
        title,
        merchant: merchant_id.map(MerchantId::stored).transpose().map_err(corrupt)?,
        category: category.map(Category::stored).transpose().map_err(corrupt)?,
        price: match (price_minor, currency_code) {
            (Some(amount_minor), Some(code)) => Some(Money {
                amount_minor,
                currency: Currency::new(&code).map_err(corrupt)?,
            }),
            _ => None,
        },
        listed,
    })
}
