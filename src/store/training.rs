//! What a model is trained on, as of one moment.

use std::collections::HashMap;
use std::hash::Hash;

use futures_util::{TryStreamExt, try_join};

use crate::domain::money::Currency;
use crate::domain::time::Timestamp;
use crate::model::catalogue::{Catalogue, NONE};
use crate::model::consents::ConsentRecords;
use crate::model::dictionary::{DenseIndex, Dictionary, ItemIndex, Texts, UserIndex};
use crate::training::input::{OrderEvent, RatingEvent, TrainingInput};

mod campaigns;

use super::changes::{self, Watermark};
use super::error::StoreError;
use super::pool::{Connection, Pool};

/// Reads everything, over two connections that see the same moment; and that moment.
pub async fn read_input(pool: &Pool) -> Result<(TrainingInput, Watermark), StoreError> {
    let (mut first, mut second, watermark) = changes::two_readers(pool).await?;
    let as_of = sqlx::query_scalar!(r#"SELECT now() AS "now!""#)
        .fetch_one(&mut *first)
        .await?;
    let (users, (items, catalogue)) = try_join!(read_users(&mut first), read_items(&mut second))?;
    let ratings = read_ratings(&mut first, &users, &items);
    let orders = read_orders(&mut second, &users, &items);
    let (ratings, orders) = try_join!(ratings, orders)?;
    let campaigns = campaigns::read(&mut first, &users, &items, &catalogue).await?;
    let input = TrainingInput {
        users: users.ids,
        items: items.ids,
        catalogue,
        ratings,
        orders,
        consents: ConsentRecords::default(),
        campaigns,
        as_of,
    };
    Ok((input, watermark))
}

/// The ids of one kind, and which key each has.
struct Keyed<I> {
    ids: Dictionary<I>,
    by_key: HashMap<i64, I>,
}

impl<I: DenseIndex> Keyed<I> {
    /// `rows`: key and external id, ascending by id.
    fn new(table: &'static str, rows: &[(i64, String)]) -> Result<Self, StoreError> {
        let ids: Texts = rows.iter().map(|(_, id)| id).collect();
        let ids = Dictionary::new(ids).ok_or_else(|| StoreError::corrupt(table, "ids are not ascending"))?;
        let by_key = rows.iter().zip(0..).map(|((key, _), index)| (*key, I::new(index)));
        Ok(Self {
            by_key: by_key.collect(),
            ids,
        })
    }

    fn index(&self, table: &'static str, key: i64) -> Result<I, StoreError> {
        let index = self.by_key.get(&key).copied();
        index.ok_or_else(|| StoreError::corrupt(table, format!("key {key} is not known")))
    }
}

async fn read_users(connection: &mut Connection) -> Result<Keyed<UserIndex>, StoreError> {
    let mut rows = Vec::new();
    let mut users = sqlx::query!("SELECT id, external_id FROM users").fetch(connection);
    while let Some(user) = users.try_next().await? {
        rows.push((user.id, user.external_id));
    }
    // Sorted here: an ORDER BY would cost PostgreSQL half of its speed.
    rows.sort_unstable_by(|a, b| a.1.cmp(&b.1));
    Keyed::new("users", &rows)
}

async fn read_items(connection: &mut Connection) -> Result<(Keyed<ItemIndex>, Catalogue), StoreError> {
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
    let catalogue = Catalogue {
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
    Ok((Keyed::new("items", &keys)?, catalogue))
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

/// The distinct names, ascending, and for every entry the position of its name among them, or [`NONE`].
fn references<N: Copy + Ord + Hash>(names: impl Iterator<Item = Option<N>> + Clone) -> (Vec<N>, Vec<u32>) {
    let mut distinct: Vec<N> = names.clone().flatten().collect();
    distinct.sort_unstable();
    distinct.dedup();
    let positions: HashMap<N, u32> = distinct.iter().copied().zip(0..).collect();
    let position = |name: Option<N>| name.map_or(NONE, |name| positions[&name]);
    let column = names.map(position).collect();
    (distinct, column)
}

async fn read_ratings(
    connection: &mut Connection,
    users: &Keyed<UserIndex>,
    items: &Keyed<ItemIndex>,
) -> Result<Vec<RatingEvent>, StoreError> {
    let mut ratings = Vec::new();
    let mut rows =
        sqlx::query!(r#"SELECT user_id, item_id, value AS "value!", rated_at FROM ratings WHERE value IS NOT NULL"#)
            .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        ratings.push(RatingEvent {
            user: users.index("ratings", row.user_id)?,
            item: items.index("ratings", row.item_id)?,
            value: row.value,
            rated_at: row.rated_at,
        });
    }
    Ok(ratings)
}

async fn read_orders(
    connection: &mut Connection,
    users: &Keyed<UserIndex>,
    items: &Keyed<ItemIndex>,
) -> Result<Vec<OrderEvent>, StoreError> {
    struct Row {
        user_id: i64,
        item_id: i64,
        ordered_at: Timestamp,
        total_minor: i64,
        discounted_lines: i64,
    }
    let mut orders = Vec::new();
    let mut rows = sqlx::query_as!(
        Row,
        r#"SELECT user_id, item_id, min(purchased_at) AS "ordered_at!", sum(line_total_minor)::bigint AS "total_minor!",
                  count(*) FILTER (WHERE coupon_discount_minor > 0) AS "discounted_lines!"
           FROM purchases
           GROUP BY order_id, user_id, item_id HAVING sum(quantity) > 0"#
    )
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        orders.push(OrderEvent {
            user: users.index("purchases", row.user_id)?,
            item: items.index("purchases", row.item_id)?,
            ordered_at: row.ordered_at,
            total_minor: row.total_minor,
            discounted_lines: u32::try_from(row.discounted_lines).unwrap_or(u32::MAX),
        });
    }
    Ok(orders)
}

#[cfg(test)]
mod tests {
    use super::*;

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
