//! A small shop with a trained snapshot.

use sqlx::{Connection, PgConnection};
use tokio::sync::OnceCell;

use super::postgres::{TestDatabase, execute};
use super::program::succeed_at;

pub const USERS: usize = 200;
/// Fewer than a neighbor list holds, so that every list is complete and "similar to" is mutual.
pub const ITEMS: usize = 48;

pub fn user(number: usize) -> String {
    format!("u{number:03}")
}

pub fn item(number: usize) -> String {
    format!("i{number:02}")
}

/// Returns the category of an item. Even items are books of merchant m0, odd ones games of m1; the price is 100 times the
/// number.
pub fn category(number: usize) -> &'static str {
    ["books", "games"][number % 2]
}

/// Returns the rating that `user` has given `item`. There are four tastes, and everybody has one of them.
pub fn rating(user: usize, item: usize) -> Option<f32> {
    // A multiplicative hash: the same numbers in every run.
    let mixed = ((user * ITEMS + item + 1) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let likes = user % 4 == item % 4;
    let (share, least) = if likes { (60, 3) } else { (15, 1) };
    (mixed % 100 < share).then(|| (least + (mixed / 100) % (6 - least)) as f32)
}

/// Returns the first item that `user` has rated, or has not rated.
pub fn item_where(user: usize, is_rated: bool) -> usize {
    (0..ITEMS)
        .find(|&item| rating(user, item).is_some() == is_rated)
        .unwrap()
}

/// Creates a database with the shop and its first snapshot, which is active.
pub async fn open() -> TestDatabase {
    static TRAINED: OnceCell<TestDatabase> = OnceCell::const_new();
    let trained = TRAINED
        .get_or_init(|| async {
            let database = TestDatabase::create().await;
            stock(database.url()).await;
            train(database.url());
            database
        })
        .await;
    trained.copy().await
}

/// Fills an empty database with the shop.
pub async fn stock(url: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let pairs = || (0..USERS).flat_map(|user| (0..ITEMS).map(move |item| (user, item)));
    let rated: Vec<(i64, i64, f32)> = pairs()
        .filter_map(|(user, item)| Some((user as i64, item as i64, rating(user, item)?)))
        .collect();
    let column = |of: fn(&(i64, i64, f32)) -> i64| rated.iter().map(of).collect::<Vec<i64>>();
    let users_and_items = format!(
        "INSERT INTO users (external_id) SELECT 'u' || lpad(n::text, 3, '0') FROM generate_series(0, {USERS} - 1) AS n;
         INSERT INTO merchants (external_id) VALUES ('m0'), ('m1');
         INSERT INTO items (external_id, title, merchant_id, category, price_minor, currency_code)
         SELECT 'i' || lpad(n::text, 2, '0'), 'Item ' || n, 1 + n % 2, (ARRAY['books', 'games'])[1 + n % 2], n * 100, 'GBP'
         FROM generate_series(0, {ITEMS} - 1) AS n"
    );
    execute(&mut connection, &users_and_items).await;
    sqlx::query(
        "INSERT INTO ratings (user_id, item_id, value, rated_at)
         SELECT 1 + user_number, 1 + item_number, value,
                timestamptz '2025-01-01' + make_interval(hours => (user_number * 31 + item_number * 17 % 97)::integer)
         FROM UNNEST($1::bigint[], $2::bigint[], $3::real[]) AS rated (user_number, item_number, value)",
    )
    .bind(column(|row| row.0))
    .bind(column(|row| row.1))
    .bind(rated.iter().map(|row| row.2).collect::<Vec<f32>>())
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
}

/// Trains and activates a snapshot of what is stored, without the gate's judgment.
pub fn train(url: &str) {
    succeed_at(url, &["train", "--set-config=gate.min_users=1000000"]);
}

/// Writes a rating as a server does, in the transaction that is open on `connection`. Returns the transaction's id.
pub async fn write_rating(connection: &mut PgConnection, user: &str, item: &str, value: f32) -> i64 {
    sqlx::query_scalar(
        "WITH stored AS (
             INSERT INTO ratings (user_id, item_id, value, rated_at)
             SELECT users.id, items.id, $3, clock_timestamp() FROM users, items
             WHERE users.external_id = $1 AND items.external_id = $2
             ON CONFLICT (user_id, item_id) DO UPDATE SET value = excluded.value, rated_at = excluded.rated_at
             RETURNING user_id, item_id
         ), logged AS (
             INSERT INTO changes (user_id, item_id) SELECT user_id, item_id FROM stored
         )
         SELECT pg_current_xact_id()::text::bigint FROM stored",
    )
    .bind(user)
    .bind(item)
    .bind(value)
    .fetch_one(connection)
    .await
    .unwrap()
}
