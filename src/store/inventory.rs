//! Stores the stock of items and the policies by which they are ordered.

use std::collections::{BTreeMap, HashSet};

use demand::inventory::{OnOrder, PolicyScope, Position, ScopedPolicy};
use demand::replenishment::{Policy, ServiceGoal};
use domain::id::ItemId;
use domain::money::{Currency, Money};
use domain::time::Timestamp;

use crate::store::catalog::ids;
use crate::store::error::StoreError;
use crate::store::outcome::WriteOutcome;
use crate::store::postgres::pool::{Connection, Pool, without_timeouts};
use crate::store::snapshots::changes::{Watermark, current};

/// The latest count of an item, and what was sold since.
#[derive(Debug, Clone, PartialEq)]
pub struct CountedStock {
    pub position: Position,
    /// Units, net of returns; below 0 where more came back.
    pub sold_units: f64,
}

/// Stores counts in one transaction. One of an item and moment that are stored already replaces what is stored. Returns the
/// outcome of each.
pub async fn upsert_positions(pool: &Pool, positions: &[Position]) -> Result<Vec<WriteOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let outcomes = upsert_positions_in(&mut tx, positions).await?;
        tx.commit().await?;
        Ok(outcomes)
    })
    .await
}

async fn upsert_positions_in(
    connection: &mut Connection,
    positions: &[Position],
) -> Result<Vec<WriteOutcome>, StoreError> {
    let keys = ids::ensure_items(connection, positions.iter().map(|position| position.item.as_str())).await?;
    // The last entry of an item and moment counts.
    let last: BTreeMap<(i64, Timestamp), usize> = positions
        .iter()
        .zip(0..)
        .map(|(position, at)| ((keys.key(position.item.as_str()), position.counted_at), at))
        .collect();
    let item_ids: Vec<i64> = last.keys().map(|key| key.0).collect();
    let counted_at: Vec<Timestamp> = last.keys().map(|key| key.1).collect();
    let on_hand: Vec<f64> = last.values().map(|&at| positions[at].on_hand).collect();
    let backordered: Vec<f64> = last.values().map(|&at| positions[at].backordered).collect();
    let (mut rows, mut quantities, mut expected_at) = (Vec::<i64>::new(), Vec::<f64>::new(), Vec::<Timestamp>::new());
    for (&at, row) in last.values().zip(1..) {
        for order in &positions[at].on_order {
            rows.push(row);
            quantities.push(order.quantity);
            expected_at.push(order.expected_at);
        }
    }
    let stored = sqlx::query!(
        r#"WITH orders AS (
               SELECT entry, array_agg(quantity ORDER BY number) AS quantities, array_agg(expected_at ORDER BY number) AS expected_at
               FROM UNNEST($5::bigint[], $6::float8[], $7::timestamptz[]) WITH ORDINALITY
                        AS orders (entry, quantity, expected_at, number)
               GROUP BY entry
           ), stored AS (
               INSERT INTO inventory_positions AS old (item_id, counted_at, on_hand, backordered, on_order, expected_at)
               SELECT item_id, counted_at, on_hand, backordered, COALESCE(quantities, '{}'),
                      COALESCE(orders.expected_at, '{}')
               FROM UNNEST($1::bigint[], $2::timestamptz[], $3::float8[], $4::float8[]) WITH ORDINALITY
                        AS counted (item_id, counted_at, on_hand, backordered, number)
               LEFT JOIN orders ON orders.entry = counted.number
               ON CONFLICT (item_id, counted_at) DO UPDATE
               SET on_hand = excluded.on_hand, backordered = excluded.backordered, on_order = excluded.on_order,
                   expected_at = excluded.expected_at, recorded_at = clock_timestamp()
               WHERE (old.on_hand, old.backordered, old.on_order, old.expected_at)
                     IS DISTINCT FROM (excluded.on_hand, excluded.backordered, excluded.on_order, excluded.expected_at)
               RETURNING item_id, counted_at
           ), logged AS (
               INSERT INTO changes (item_id) SELECT DISTINCT item_id FROM stored
           )
           SELECT item_id AS "item_id!", counted_at AS "counted_at!" FROM stored"#,
        &item_ids,
        &counted_at,
        &on_hand,
        &backordered,
        &rows,
        &quantities,
        &expected_at,
    )
    .fetch_all(connection)
    .await?;
    let stored: HashSet<(i64, Timestamp)> = stored.into_iter().map(|row| (row.item_id, row.counted_at)).collect();
    let mut outcomes = vec![WriteOutcome::Merged; positions.len()];
    for (key, at) in last {
        if stored.contains(&key) {
            outcomes[at] = WriteOutcome::Stored;
        }
    }
    Ok(outcomes)
}

struct PositionRow {
    external_id: String,
    counted_at: Timestamp,
    on_hand: f64,
    backordered: f64,
    on_order: Vec<f64>,
    expected_at: Vec<Timestamp>,
    sold_units: f64,
}

impl TryFrom<PositionRow> for CountedStock {
    type Error = StoreError;

    fn try_from(row: PositionRow) -> Result<Self, StoreError> {
        let item = ItemId::stored(row.external_id).map_err(|error| StoreError::corrupt("items", error))?;
        let orders = row.on_order.into_iter().zip(row.expected_at);
        let on_order = orders.map(|(quantity, expected_at)| OnOrder { quantity, expected_at });
        Ok(Self {
            position: Position {
                item,
                on_hand: row.on_hand,
                backordered: row.backordered,
                on_order: on_order.collect(),
                counted_at: row.counted_at,
            },
            sold_units: row.sold_units,
        })
    }
}

/// Reads the latest count of every item, and the moment as of which that is.
pub async fn read_stock(pool: &Pool) -> Result<(Vec<CountedStock>, Watermark), StoreError> {
    let mut tx = pool.begin_snapshot().await?;
    without_timeouts(&mut tx).await?;
    let watermark = current(&mut tx).await?;
    let rows = sqlx::query_as!(
        PositionRow,
        r#"SELECT external_id, counted_at, on_hand, backordered, on_order, expected_at,
                  COALESCE((SELECT sum(quantity) FROM purchases
                            WHERE purchases.item_id = latest.item_id AND purchased_at > counted_at), 0)::float8 AS "sold_units!"
           FROM (SELECT DISTINCT ON (item_id) * FROM inventory_positions ORDER BY item_id, counted_at DESC) AS latest
           JOIN items ON items.id = latest.item_id"#
    )
    .fetch_all(&mut *tx)
    .await?;
    let stock = rows.into_iter().map(CountedStock::try_from).collect::<Result<_, _>>()?;
    Ok((stock, watermark))
}

/// Reads the latest count of those of `items` that have one.
pub async fn stock_of(pool: &Pool, items: &[String]) -> Result<Vec<CountedStock>, StoreError> {
    let rows = sqlx::query_as!(
        PositionRow,
        r#"SELECT external_id, counted_at, on_hand, backordered, on_order, expected_at,
                  COALESCE((SELECT sum(quantity) FROM purchases
                            WHERE purchases.item_id = items.id AND purchased_at > counted_at), 0)::float8 AS "sold_units!"
           FROM items, LATERAL (
               SELECT * FROM inventory_positions WHERE item_id = items.id ORDER BY counted_at DESC LIMIT 1
           ) AS latest
           WHERE external_id = ANY($1)"#,
        items
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    rows.into_iter().map(CountedStock::try_from).collect()
}

/// Lists counts, by item, then the latest first: of one item all that are kept, of all items the latest.
///
/// `after`: the item and the moment of the last count before the page.
pub async fn list_positions(
    pool: &Pool,
    item: Option<&ItemId>,
    after: (&str, Timestamp),
    limit: i64,
) -> Result<Vec<Position>, StoreError> {
    let rows = sqlx::query_as!(
        PositionRow,
        r#"SELECT external_id, counted_at, on_hand, backordered, on_order, expected_at, 0::float8 AS "sold_units!"
           FROM inventory_positions JOIN items ON items.id = item_id
           WHERE CASE WHEN $1::text IS NULL THEN counted_at = (SELECT max(counted_at) FROM inventory_positions AS other
                                                               WHERE other.item_id = inventory_positions.item_id)
                      ELSE external_id = $1 END
             AND (external_id > $2 OR external_id = $2 AND counted_at < $3)
           ORDER BY external_id, counted_at DESC LIMIT $4"#,
        item.map(ItemId::as_str),
        after.0,
        after.1,
        limit
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    let stock = rows.into_iter().map(CountedStock::try_from);
    stock.map(|stock| Ok(stock?.position)).collect()
}

/// Stores policies in one transaction; one of a scope that has one replaces it. Returns the outcome of each.
pub async fn upsert_policies(pool: &Pool, policies: &[ScopedPolicy]) -> Result<Vec<WriteOutcome>, StoreError> {
    pool.write(|mut tx| async move {
        let outcomes = upsert_policies_in(&mut tx, policies).await?;
        tx.commit().await?;
        Ok(outcomes)
    })
    .await
}

async fn upsert_policies_in(
    connection: &mut Connection,
    policies: &[ScopedPolicy],
) -> Result<Vec<WriteOutcome>, StoreError> {
    let last: BTreeMap<(&str, &str), usize> = policies
        .iter()
        .zip(0..)
        .map(|(policy, at)| ((policy.scope.kind(), policy.scope.id()), at))
        .collect();
    let entries: Vec<&ScopedPolicy> = last.values().map(|&at| &policies[at]).collect();
    let numbers = |of: fn(&Policy) -> f64| entries.iter().map(|entry| of(&entry.policy)).collect::<Vec<f64>>();
    let goals =
        |of: fn(ServiceGoal) -> Option<f64>| entries.iter().map(|entry| of(entry.policy.goal)).collect::<Vec<_>>();
    let kinds: Vec<String> = last.keys().map(|key| key.0.to_owned()).collect();
    let ids: Vec<String> = last.keys().map(|key| key.1.to_owned()).collect();
    let levels = goals(|goal| match goal {
        ServiceGoal::CycleServiceLevel(level) => Some(level),
        ServiceGoal::FillRate(_) => None,
    });
    let rates = goals(|goal| match goal {
        ServiceGoal::FillRate(rate) => Some(rate),
        ServiceGoal::CycleServiceLevel(_) => None,
    });
    let costs: Vec<Option<i64>> = entries
        .iter()
        .map(|entry| entry.unit_cost.map(|cost| cost.amount_minor))
        .collect();
    let currencies: Vec<Option<String>> = entries
        .iter()
        .map(|entry| entry.unit_cost.map(|cost| cost.currency.to_string()))
        .collect();
    let stored = sqlx::query!(
        "INSERT INTO replenishment_policies AS old
             (scope, scope_id, lead_time_days, review_period_days, cycle_service_level, fill_rate, min_order_quantity,
              order_multiple, max_cover_days, unit_cost_minor, currency_code)
         SELECT * FROM UNNEST($1::text[], $2::text[], $3::float8[], $4::float8[], $5::float8[], $6::float8[], $7::float8[],
                              $8::float8[], $9::float8[], $10::bigint[], $11::text[])
         ON CONFLICT (scope, scope_id) DO UPDATE
         SET lead_time_days = excluded.lead_time_days, review_period_days = excluded.review_period_days,
             cycle_service_level = excluded.cycle_service_level, fill_rate = excluded.fill_rate,
             min_order_quantity = excluded.min_order_quantity, order_multiple = excluded.order_multiple,
             max_cover_days = excluded.max_cover_days, unit_cost_minor = excluded.unit_cost_minor,
             currency_code = excluded.currency_code
         WHERE (old.lead_time_days, old.review_period_days, old.cycle_service_level, old.fill_rate, old.min_order_quantity,
                old.order_multiple, old.max_cover_days, old.unit_cost_minor, old.currency_code)
               IS DISTINCT FROM
               (excluded.lead_time_days, excluded.review_period_days, excluded.cycle_service_level, excluded.fill_rate,
                excluded.min_order_quantity, excluded.order_multiple, excluded.max_cover_days, excluded.unit_cost_minor,
                excluded.currency_code)
         RETURNING scope, scope_id",
        &kinds,
        &ids,
        &numbers(|policy| policy.lead_time_days),
        &numbers(|policy| policy.review_period_days),
        &levels as &[Option<f64>],
        &rates as &[Option<f64>],
        &numbers(|policy| policy.min_order_quantity),
        &numbers(|policy| policy.order_multiple),
        &numbers(|policy| policy.max_cover_days),
        &costs as &[Option<i64>],
        &currencies as &[Option<String>],
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut outcomes = vec![WriteOutcome::Merged; policies.len()];
    for row in &stored {
        if let Some(&at) = last.get(&(row.scope.as_str(), row.scope_id.as_str())) {
            outcomes[at] = WriteOutcome::Stored;
        }
    }
    if !stored.is_empty() {
        raise_revision(connection).await?;
    }
    Ok(outcomes)
}

/// Deletes the policy of a scope. Returns whether there was one.
pub async fn delete_policy(pool: &Pool, scope: &PolicyScope) -> Result<bool, StoreError> {
    pool.write(|mut tx| async move {
        let deleted = sqlx::query!(
            "DELETE FROM replenishment_policies WHERE scope = $1 AND scope_id = $2",
            scope.kind(),
            scope.id()
        )
        .execute(&mut *tx)
        .await?;
        let is_deleted = deleted.rows_affected() > 0;
        if is_deleted {
            raise_revision(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(is_deleted)
    })
    .await
}

/// This must be the last statement of its transaction: from here on other transactions wait.
async fn raise_revision(connection: &mut Connection) -> Result<(), StoreError> {
    sqlx::query!("UPDATE replenishment_revision SET revision = revision + 1")
        .execute(connection)
        .await?;
    Ok(())
}

/// Reads a number that every change of a policy raises.
pub async fn policy_revision(pool: &Pool) -> Result<i64, StoreError> {
    let revision = sqlx::query_scalar!("SELECT revision FROM replenishment_revision")
        .fetch_one(&mut *pool.acquire().await?)
        .await?;
    Ok(revision)
}

struct PolicyRow {
    scope: String,
    scope_id: String,
    lead_time_days: f64,
    review_period_days: f64,
    cycle_service_level: Option<f64>,
    fill_rate: Option<f64>,
    min_order_quantity: f64,
    order_multiple: f64,
    max_cover_days: f64,
    unit_cost_minor: Option<i64>,
    currency_code: Option<String>,
}

impl TryFrom<PolicyRow> for ScopedPolicy {
    type Error = StoreError;

    fn try_from(row: PolicyRow) -> Result<Self, StoreError> {
        let corrupt = |error| StoreError::corrupt("replenishment_policies", error);
        let goal = match (row.cycle_service_level, row.fill_rate) {
            (Some(level), _) => ServiceGoal::CycleServiceLevel(level),
            (None, rate) => ServiceGoal::FillRate(rate.unwrap_or_default()),
        };
        let currency = row
            .currency_code
            .as_deref()
            .map(Currency::new)
            .transpose()
            .map_err(corrupt)?;
        let unit_cost = row.unit_cost_minor.zip(currency);
        Ok(Self {
            scope: PolicyScope::new(&row.scope, &row.scope_id).map_err(corrupt)?,
            policy: Policy {
                lead_time_days: row.lead_time_days,
                review_period_days: row.review_period_days,
                goal,
                min_order_quantity: row.min_order_quantity,
                order_multiple: row.order_multiple,
                max_cover_days: row.max_cover_days,
            },
            unit_cost: unit_cost.map(|(amount_minor, currency)| Money { amount_minor, currency }),
        })
    }
}

/// Reads all policies, and their revision.
pub async fn read_policies(pool: &Pool) -> Result<(Vec<ScopedPolicy>, i64), StoreError> {
    let mut tx = pool.begin_snapshot().await?;
    let revision = sqlx::query_scalar!("SELECT revision FROM replenishment_revision")
        .fetch_one(&mut *tx)
        .await?;
    let rows = sqlx::query_as!(
        PolicyRow,
        "SELECT scope, scope_id, lead_time_days, review_period_days, cycle_service_level, fill_rate, min_order_quantity,
                order_multiple, max_cover_days, unit_cost_minor, currency_code
         FROM replenishment_policies"
    )
    .fetch_all(&mut *tx)
    .await?;
    let policies = rows.into_iter().map(ScopedPolicy::try_from).collect::<Result<_, _>>()?;
    Ok((policies, revision))
}

/// Lists policies by scope and id.
///
/// `after`: scope and id of the last policy before the page.
pub async fn list_policies(pool: &Pool, after: (&str, &str), limit: i64) -> Result<Vec<ScopedPolicy>, StoreError> {
    let rows = sqlx::query_as!(
        PolicyRow,
        r#"SELECT scope, scope_id, lead_time_days, review_period_days, cycle_service_level, fill_rate, min_order_quantity,
                  order_multiple, max_cover_days, unit_cost_minor, currency_code
           FROM replenishment_policies
           WHERE (scope COLLATE "C", scope_id) > ($1, $2) ORDER BY scope COLLATE "C", scope_id LIMIT $3"#,
        after.0,
        after.1,
        limit
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    rows.into_iter().map(ScopedPolicy::try_from).collect()
}
