//! Lists the categories that items are in.

use domain::id::{Category, MerchantId};

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// A category and how many items are in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CategoryCount {
    pub category: Category,
    pub items: i64,
    /// The items of these that are listed.
    pub listed_items: i64,
}

/// Returns up to `limit` categories whose names follow `after`, ascending by name. Counts the items of `merchant`, or all.
pub async fn list(
    pool: &Pool,
    merchant: Option<&MerchantId>,
    after: &str,
    limit: i64,
) -> Result<Vec<CategoryCount>, StoreError> {
    let rows = sqlx::query!(
        r#"SELECT category AS "category!", count(*) AS "items!", count(*) FILTER (WHERE listed) AS "listed_items!"
           FROM items LEFT JOIN merchants ON merchants.id = merchant_id
           WHERE category > $1 AND ($2::text IS NULL OR merchants.external_id = $2)
           GROUP BY category ORDER BY category LIMIT $3"#,
        after,
        merchant.map(MerchantId::as_str),
        limit,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(CategoryCount {
                category: Category::stored(row.category).map_err(|error| StoreError::corrupt("items", error))?,
                items: row.items,
                listed_items: row.listed_items,
            })
        })
        .collect()
}
