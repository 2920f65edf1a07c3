//! A shop with 40 weeks of sales, until the week before this one.

use sqlx::PgConnection;

use crate::support::postgres::{TestDatabase, execute};
use crate::support::shop;

/// Items `bulk-00` to `bulk-29` of merchant `big`, which sell 5 a week each.
pub const BULK_ITEMS: usize = 30;

/// Creates a database with the shop and its first snapshot, which is active.
pub async fn open() -> TestDatabase {
    let database = TestDatabase::create().await;
    stock(&mut database.connect().await).await;
    shop::train(database.url());
    database
}

/// Adds the items and sales. Two users, `even` and `odd`, buy the same in every week.
///
/// `steady` sells 10 a week, and `seldom` 6 in every third week; both are tea of merchant `small`. `never` is tea too and has
/// not sold.
pub async fn stock(connection: &mut PgConnection) {
    execute(
        connection,
        "INSERT INTO users (external_id) VALUES ('even'), ('odd');
         INSERT INTO merchants (external_id) VALUES ('small'), ('big');
         INSERT INTO items (external_id, merchant_id, category)
         SELECT item, id, 'tea' FROM merchants, UNNEST(ARRAY['steady', 'seldom', 'never']) AS item
         WHERE merchants.external_id = 'small';
         INSERT INTO items (external_id, merchant_id, category)
         SELECT 'bulk-' || lpad(n::text, 2, '0'), id, 'bulk' FROM merchants, generate_series(0, 29) AS n
         WHERE merchants.external_id = 'big';
         INSERT INTO purchases (order_id, user_id, item_id, line_number, quantity, line_total_minor, currency_code, purchased_at)
         SELECT 'w' || week || users.external_id || items.external_id, users.id, items.id, 1, units, units * 100, 'GBP',
                date_trunc('week', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - make_interval(weeks => week) + interval '2 days'
         FROM generate_series(1, 40) AS week, users, items, LATERAL (
             SELECT CASE items.external_id WHEN 'steady' THEN 5 WHEN 'seldom' THEN 3 * (week % 3 / 2) WHEN 'never' THEN 0
                    ELSE 2 + (week + (users.external_id = 'odd')::integer) % 2 END AS units
         ) AS sold
         WHERE units > 0 AND users.external_id IN ('even', 'odd')
           AND (items.external_id IN ('steady', 'seldom', 'never') OR items.external_id LIKE 'bulk-%')",
    )
    .await;
}
