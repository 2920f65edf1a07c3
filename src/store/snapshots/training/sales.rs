//! Reads the order lines that demand is forecast from.

use futures_util::TryStreamExt;

use demand::returns::RecordedLine;
use domain::consent::PrivacyOptions;
use domain::time::Timestamp;
use recommender::snapshot::catalog::Catalog;
use recommender::snapshot::dictionary::ItemIndex;

use super::{Keyed, read_items};
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool, without_timeouts};
use crate::store::sales::number_of;

/// The order lines of all users who allow training.
#[derive(Debug, Default)]
pub struct Sales {
    /// In any order.
    pub lines: Vec<RecordedLine>,
    /// The share of units, in [0, 1), that the other users bought.
    pub left_out_share: f64,
    /// Counts at which an item was out of stock: the index of the item and the time in seconds since 1970.
    pub stock_outs: Vec<(u32, i64)>,
}

/// Sales with the items that they are of.
#[derive(Debug)]
pub struct ItemSales {
    pub catalog: Catalog,
    pub sales: Sales,
    pub as_of: Timestamp,
    /// The mean price of a unit of each item, in minor units of whatever currency; 0 for items without a sale.
    pub unit_values: Vec<f64>,
}

/// Reads the sales of all items as of one moment.
pub async fn read_all(pool: &Pool, privacy: &PrivacyOptions) -> Result<ItemSales, StoreError> {
    let mut tx = pool.begin_snapshot().await?;
    without_timeouts(&mut tx).await?;
    let as_of = sqlx::query_scalar!(r#"SELECT now() AS "now!""#)
        .fetch_one(&mut *tx)
        .await?;
    let (items, catalog) = read_items(&mut tx).await?;
    let sales = read(&mut tx, privacy.training_without_record, &items).await?;
    let unit_values = read_unit_values(&mut tx, privacy.training_without_record, &items).await?;
    Ok(ItemSales {
        unit_values,
        catalog,
        sales,
        as_of,
    })
}

async fn read_unit_values(
    connection: &mut Connection,
    by_default: bool,
    items: &Keyed<ItemIndex>,
) -> Result<Vec<f64>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT item_id, (sum(line_total_minor) / sum(quantity))::float8 AS "unit_value!"
           FROM purchases LEFT JOIN consents ON consents.user_id = purchases.user_id AND purpose = 'training'
           WHERE quantity > 0 AND COALESCE(is_granted, $1) GROUP BY item_id"#,
        by_default
    )
    .fetch_all(connection)
    .await?;
    let mut values = vec![0.0; items.ids.len()];
    for row in rows {
        values[items.index("purchases", row.item_id)?.at()] = row.unit_value;
    }
    Ok(values)
}

/// `by_default`: whether users who have said nothing about training allow it. PostgreSQL adds up all units of users who
/// do not allow it to one number, and nothing else of theirs is read.
pub(super) async fn read(
    connection: &mut Connection,
    by_default: bool,
    items: &Keyed<ItemIndex>,
) -> Result<Sales, StoreError> {
    let units = sqlx::query!(
        r#"SELECT COALESCE(sum(quantity), 0)::float8 AS "all!",
                  COALESCE(sum(quantity) FILTER (WHERE NOT COALESCE(is_granted, $1)), 0)::float8 AS "left_out!"
           FROM purchases LEFT JOIN consents ON consents.user_id = purchases.user_id AND purpose = 'training'
           WHERE quantity > 0"#,
        by_default
    )
    .fetch_one(&mut *connection)
    .await?;
    let stock_outs = sqlx::query!("SELECT item_id, counted_at FROM inventory_positions WHERE on_hand = 0")
        .fetch_all(&mut *connection)
        .await?;
    let stock_outs = stock_outs.into_iter().map(|row| {
        let item = items.index("inventory_positions", row.item_id)?.at() as u32;
        Ok((item, row.counted_at.timestamp()))
    });
    let stock_outs = stock_outs.collect::<Result<_, StoreError>>()?;
    let mut lines = Vec::new();
    let mut rows = sqlx::query!(
        "SELECT order_id, purchases.user_id, item_id, quantity, purchased_at
         FROM purchases LEFT JOIN consents ON consents.user_id = purchases.user_id AND purpose = 'training'
         WHERE COALESCE(is_granted, $1)",
        by_default
    )
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        lines.push(RecordedLine {
            user: row.user_id,
            item: items.index("purchases", row.item_id)?.at() as u32,
            order: number_of(&row.order_id),
            at: row.purchased_at.timestamp(),
            quantity: row.quantity,
        });
    }
    // Without any line there is nothing that could stand for those left out.
    let left_out_share = match lines.is_empty() {
        true => 0.0,
        false => units.left_out / units.all.max(1.0),
    };
    Ok(Sales {
        lines,
        left_out_share,
        stock_outs,
    })
}
