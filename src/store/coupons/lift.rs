//! Reads the purchases of the users to whom a campaign was offered, or would have been, for each arm.

use domain::id::CampaignId;

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// The outcome of one arm, over all users in it whatever they did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ArmOutcome {
    pub users: u64,
    /// The users who have an order with a net quantity above 0 of covered items, from their exposure until the end of the
    /// campaign's window.
    pub converters: u64,
    /// The sum of the totals of those lines, less returns, in the currency of the campaign.
    pub revenue_minor: i64,
    /// The sum over users of the square of their revenue.
    pub revenue_minor_squared: f64,
}

/// Reads the outcomes of the users who were offered the campaign, then of those who were held out. A user who was exposed
/// to several coupons counts once, from the first exposure on. The covered items are those that the coupons cover now.
pub async fn outcomes(pool: &Pool, campaign: &CampaignId) -> Result<(ArmOutcome, ArmOutcome), StoreError> {
    let rows = sqlx::query!(
        r#"WITH campaign AS MATERIALIZED (
               SELECT campaigns.id, merchant_id, currency_code, ends_at
               FROM campaigns JOIN campaign_states ON campaign_id = id WHERE external_id = $1
           ), exposed AS MATERIALIZED (
               SELECT DISTINCT ON (user_id) user_id, is_held_out, exposed_at
               FROM exposures WHERE campaign_id = (SELECT id FROM campaign)
               ORDER BY user_id, exposed_at, coupon_id
           ), offers AS MATERIALIZED (
               SELECT id, covers_all, categories, merchants, unseen_items FROM coupons
               WHERE campaign_id = (SELECT id FROM campaign)
           ), covered AS MATERIALIZED (
               SELECT items.id
               FROM items CROSS JOIN campaign LEFT JOIN merchants ON merchants.id = items.merchant_id
               WHERE (campaign.merchant_id IS NULL OR items.merchant_id = campaign.merchant_id)
                 AND (EXISTS (SELECT FROM offers WHERE covers_all)
                      OR items.id IN (SELECT item_id FROM coupon_items WHERE coupon_id IN (SELECT id FROM offers))
                      OR items.external_id IN (SELECT UNNEST(unseen_items) FROM offers)
                      OR items.category IN (SELECT UNNEST(categories) FROM offers)
                      OR merchants.external_id IN (SELECT UNNEST(merchants) FROM offers))
           ), orders AS (
               SELECT exposed.user_id, sum(quantity) AS quantity,
                      sum(line_total_minor) FILTER (WHERE purchases.currency_code = campaign.currency_code) AS revenue
               FROM exposed CROSS JOIN campaign
               JOIN purchases ON purchases.user_id = exposed.user_id
                   AND purchased_at >= exposed_at AND purchased_at < ends_at
               WHERE item_id IN (SELECT id FROM covered)
               GROUP BY exposed.user_id, order_id
           ), bought AS (
               SELECT user_id, bool_or(quantity > 0) AS has_converted, COALESCE(sum(revenue), 0) AS revenue
               FROM orders GROUP BY user_id
           )
           SELECT is_held_out, count(*) AS "users!", count(*) FILTER (WHERE has_converted) AS "converters!",
                  -- Within 64 bits, whatever was recorded.
                  GREATEST(LEAST(COALESCE(sum(revenue), 0), 9223372036854775807), -9223372036854775808)::bigint
                      AS "revenue_minor!",
                  COALESCE(sum(revenue * revenue), 0)::double precision AS "revenue_minor_squared!"
           FROM exposed LEFT JOIN bought USING (user_id) GROUP BY is_held_out"#,
        campaign.as_str()
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    let (mut offered, mut held_out) = (ArmOutcome::default(), ArmOutcome::default());
    for row in rows {
        let arm = if row.is_held_out { &mut held_out } else { &mut offered };
        *arm = ArmOutcome {
            users: row.users as u64,
            converters: row.converters as u64,
            revenue_minor: row.revenue_minor,
            revenue_minor_squared: row.revenue_minor_squared,
        };
    }
    Ok((offered, held_out))
}
