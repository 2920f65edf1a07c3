//! Compares the names in coupons with the items of the catalog.

use std::collections::HashMap;

use domain::coupon::{Coupon, ItemSet, Rule};
use domain::id::{Category, ItemId, MerchantId};

use super::rows::corrupt;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Connection;

/// Counts the items of the catalog that each coupon covers, by the key of the coupon. In a merchant's campaign only that
/// merchant's items count.
pub(super) async fn count_covered(
    connection: &mut Connection,
    coupon_keys: &[i64],
) -> Result<HashMap<i64, i64>, StoreError> {
    let rows = sqlx::query!(
        r#"WITH asked AS MATERIALIZED (
               SELECT coupons.id, campaigns.merchant_id AS owner_id, covers_all, categories, merchants, unseen_items
               FROM coupons JOIN campaigns ON campaigns.id = campaign_id WHERE coupons.id = ANY($1)
           ), counts AS MATERIALIZED (
               -- Coupons that name only items do not need to read the whole catalog.
               SELECT category, sellers.id AS seller_id, sellers.external_id AS seller, count(*) AS n_items
               FROM items LEFT JOIN merchants AS sellers ON sellers.id = items.merchant_id
               WHERE EXISTS (SELECT FROM asked WHERE covers_all OR cardinality(categories) + cardinality(merchants) > 0)
               GROUP BY category, sellers.id, sellers.external_id
           )
           SELECT asked.id,
                  ((SELECT COALESCE(sum(n_items), 0) FROM counts
                    WHERE (owner_id IS NULL OR seller_id = owner_id)
                      AND (covers_all OR category = ANY(categories) OR seller = ANY(merchants)))
                   -- The named items that are not counted above.
                   + (SELECT count(*)
                      FROM (SELECT item_id AS id FROM coupon_items WHERE coupon_id = asked.id
                            UNION
                            SELECT id FROM items WHERE external_id = ANY(unseen_items)) AS named
                      JOIN items USING (id) LEFT JOIN merchants AS sellers ON sellers.id = items.merchant_id
                      WHERE NOT covers_all AND (owner_id IS NULL OR sellers.id = owner_id)
                        AND (category = ANY(categories)) IS NOT TRUE
                        AND (sellers.external_id = ANY(merchants)) IS NOT TRUE))::bigint AS "covered!"
           FROM asked"#,
        coupon_keys
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.covered)).collect())
}

/// Returns all names in the scope and the rules of `coupon`, ascending, each once.
pub(super) fn all_names(coupon: &Coupon) -> ItemSet {
    let of_rules = coupon.rules.iter().filter_map(Rule::set);
    let mut all = ItemSet::default();
    for set in coupon.scope.listed().into_iter().chain(of_rules) {
        all.items.extend_from_slice(&set.items);
        all.categories.extend_from_slice(&set.categories);
        all.merchants.extend_from_slice(&set.merchants);
    }
    let of_shares = coupon.rules.iter().filter_map(|rule| match rule {
        Rule::CategoryAffinity { category, .. } => Some(category.clone()),
        _ => None,
    });
    all.categories.extend(of_shares);
    all.items.sort_unstable();
    all.items.dedup();
    all.categories.sort_unstable();
    all.categories.dedup();
    all.merchants.sort_unstable();
    all.merchants.dedup();
    all
}

/// Returns the names of `names` that match no item of the catalog; with an `owner`, no item of that merchant. They keep their
/// order.
pub(super) async fn unmatched(
    connection: &mut Connection,
    owner: Option<&MerchantId>,
    names: &ItemSet,
) -> Result<ItemSet, StoreError> {
    let items: Vec<String> = names.items.iter().map(ToString::to_string).collect();
    let categories: Vec<String> = names.categories.iter().map(ToString::to_string).collect();
    let merchants: Vec<String> = names.merchants.iter().map(ToString::to_string).collect();
    let found = sqlx::query!(
        r#"WITH owner AS (SELECT (SELECT id FROM merchants WHERE external_id = $1) AS id)
           SELECT ARRAY(SELECT name FROM UNNEST($2::text[]) WITH ORDINALITY AS asked (name, position)
                        WHERE NOT EXISTS (SELECT FROM items WHERE items.external_id = asked.name
                                            AND ($1::text IS NULL OR items.merchant_id = owner.id))
                        ORDER BY position) AS "items!",
                  ARRAY(SELECT name FROM UNNEST($3::text[]) WITH ORDINALITY AS asked (name, position)
                        WHERE NOT EXISTS (SELECT FROM items WHERE items.category = asked.name
                                            AND ($1::text IS NULL OR items.merchant_id = owner.id))
                        ORDER BY position) AS "categories!",
                  ARRAY(SELECT name FROM UNNEST($4::text[]) WITH ORDINALITY AS asked (name, position)
                        WHERE NOT EXISTS (SELECT FROM items JOIN merchants AS sellers ON sellers.id = items.merchant_id
                                          WHERE sellers.external_id = asked.name
                                            AND ($1::text IS NULL OR sellers.id = owner.id))
                        ORDER BY position) AS "merchants!"
           FROM owner"#,
        owner.map(MerchantId::as_str),
        &items,
        &categories,
        &merchants,
    )
    .fetch_one(connection)
    .await?;
    let items = found.items.into_iter().map(ItemId::stored);
    let categories = found.categories.into_iter().map(Category::stored);
    let merchants = found.merchants.into_iter().map(MerchantId::stored);
    Ok(ItemSet {
        items: items.collect::<Result<_, _>>().map_err(corrupt)?,
        categories: categories.collect::<Result<_, _>>().map_err(corrupt)?,
        merchants: merchants.collect::<Result<_, _>>().map_err(corrupt)?,
    })
}
