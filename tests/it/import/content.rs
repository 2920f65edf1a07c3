//! A database to import into, and files to import.

use std::io::Cursor;
use std::path::Path;

use likemind::app::import::columns::ColumnMap;
use likemind::app::import::{ImportError, ImportKind, ImportOptions, ImportSummary, import};
use likemind::store::postgres::pool::Pool;
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tabular::input::Input;
use tokio_util::sync::CancellationToken;

use crate::support::postgres::TestDatabase;

/// A database to import into, and a connection for looking at what is stored.
pub struct Content {
    pub pool: Pool,
    /// One connection.
    pub sql: PgPool,
    /// The last field, so that it is dropped when nobody is connected to it any more.
    pub database: TestDatabase,
}

pub async fn fresh_database() -> Content {
    let database = TestDatabase::create().await;
    Content {
        pool: database.pool().await,
        sql: PgPoolOptions::new()
            .max_connections(1)
            .connect(database.url())
            .await
            .unwrap(),
        database,
    }
}

impl Content {
    pub async fn import(
        &self,
        text: impl Into<Vec<u8>>,
        options: &ImportOptions,
    ) -> Result<ImportSummary, ImportError> {
        let input = Input::new("test", Cursor::new(text.into()), None);
        let summary = import(&self.pool, input, options, &CancellationToken::new(), |_| {}).await?;
        assert_adds_up(&summary);
        Ok(summary)
    }

    /// Returns the number that `query` asks for.
    pub async fn number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.sql).await.unwrap()
    }

    /// Returns everything that is stored, with external ids, in a fixed order.
    pub async fn content(&self) -> Vec<String> {
        let queries = [
            "SELECT concat_ws('|', 'rating', users.external_id, items.external_id, value, extract(epoch FROM rated_at))
             FROM ratings JOIN users ON users.id = user_id JOIN items ON items.id = item_id ORDER BY 1",
            "SELECT concat_ws('|', 'purchase', order_id, users.external_id, items.external_id, line_number, quantity,
                              line_total_minor, purchases.currency_code, extract(epoch FROM purchased_at))
             FROM purchases JOIN users ON users.id = user_id JOIN items ON items.id = item_id ORDER BY 1",
            "SELECT concat_ws('|', 'item', items.external_id, title, merchants.external_id, category, price_minor,
                              currency_code, listed)
             FROM items LEFT JOIN merchants ON merchants.id = merchant_id ORDER BY 1",
            "SELECT concat_ws('|', 'merchant', external_id, name) FROM merchants ORDER BY 1",
            "SELECT concat_ws('|', 'user', external_id) FROM users ORDER BY 1",
        ];
        let mut content = Vec::new();
        for query in queries {
            content.extend(
                sqlx::query_scalar::<_, String>(query)
                    .fetch_all(&self.sql)
                    .await
                    .unwrap(),
            );
        }
        content
    }

    /// Returns the stored rows of one kind, as [`Content::content`] writes them.
    pub async fn rows(&self, kind: &str) -> Vec<String> {
        let content = self.content().await;
        content
            .into_iter()
            .filter(|line| line.split('|').next() == Some(kind))
            .collect()
    }
}

pub fn assert_adds_up(summary: &ImportSummary) {
    let ImportSummary {
        read,
        stored,
        merged,
        rejected,
        ..
    } = *summary;
    assert_eq!(read, stored + merged + rejected, "{summary:?}");
    assert_eq!(summary.rejects_by_reason.values().sum::<u64>(), rejected, "{summary:?}");
}

/// Returns the lines read, stored, merged and rejected.
pub fn counts(summary: &ImportSummary) -> (u64, u64, u64, u64) {
    (summary.read, summary.stored, summary.merged, summary.rejected)
}

/// Splits `field=value,field=value`.
pub fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        pair.split_once('=')
            .map(|(field, value)| (field.to_owned(), value.to_owned()))
            .unwrap()
    };
    text.split_terminator(',').map(pair).collect()
}

/// Returns options with a column map and constants, each written as `field=value,field=value`.
pub fn options(kind: ImportKind, map: &str, set: &str) -> ImportOptions {
    ImportOptions {
        column_map: ColumnMap {
            columns: pairs(map),
            constants: pairs(set),
            unmapped: Vec::new(),
        },
        ..ImportOptions::new(kind)
    }
}

/// Returns options that make an import write many small batches over several connections.
pub fn small_batches(kind: ImportKind) -> ImportOptions {
    ImportOptions {
        connections: 3,
        transaction_lines: 7,
        max_reject_share: 1.0,
        ..ImportOptions::new(kind)
    }
}

/// Returns a file of 500 ratings, of which some are for a pair that is rated in an earlier line; `rated_at` ascends.
pub fn many_ratings() -> String {
    let mut text = "user_id,item_id,value,rated_at\n".to_owned();
    for line in 0..500 {
        let (user, item) = (line % 7, (line / 3) % 60);
        let second = line / 100;
        text += &format!("u{user},i{item},{},2020-01-01T00:00:{second:02}Z\n", 1 + line % 5);
    }
    text
}

/// Returns a file of 400 order lines without line numbers, several of them for one order, user and item.
pub fn many_purchases() -> String {
    let mut text = "order_id,user_id,item_id,quantity,line_total_minor,currency,purchased_at\n".to_owned();
    for line in 0..400 {
        let (order, item) = (line / 8, line % 3);
        text += &format!(
            "o{order},u{},i{item},{},{},GBP,2020-01-01\n",
            order % 5,
            1 + line % 4,
            line
        );
    }
    text
}

/// Returns the records of a file of rejects: line, field, reason, message, record.
pub fn rejects(path: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    assert_eq!(
        reader.headers().unwrap(),
        ["line", "field", "reason", "message", "record"].as_slice()
    );
    let record = |record: csv::StringRecord| record.iter().map(str::to_owned).collect();
    reader.records().map(Result::unwrap).map(record).collect()
}
