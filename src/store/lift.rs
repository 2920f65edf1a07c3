//! What became of those a campaign would have been offered to, arm by arm.

use crate::domain::id::CampaignId;

use super::error::StoreError;
use super::pool::Pool;

/// Of one arm: everybody in it, whatever they did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ArmOutcome {
    pub users: u64,
    /// Who bought a covered item from their exposure on until the end of the campaign's window.
    pub converters: u64,
    /// Sum of those lines' totals, returns taken off, in the campaign's currency.
    pub revenue_minor: i64,
    /// Sum over users of the square of each one's revenue.
    pub revenue_minor_squared: f64,
}

/// The offered, then the held out. A user who was exposed to several coupons counts once, from the first on.
pub async fn outcomes(pool: &Pool, campaign: &CampaignId) -> Result<(ArmOutcome, ArmOutcome), StoreError> {
    let mut tx = pool.begin_unlimited().await?;
    let rows = sqlx::query!(
        r#"WITH campaign AS (
               SELECT campaigns.id, merchant_id, currency_code, ends_at
               FROM campaigns JOIN campaign_states ON campaign_id = campaigns.id WHERE external_id = $1
           ), exposed AS (
               SELECT user_id, bool_or(is_held_out) AS is_held_out, min(exposed_at) AS exposed_at
               FROM exposures WHERE campaign_id = (SELECT id FROM campaign) GROUP BY user_id
           ), covered AS (
               SELECT DISTINCT items.id
               FROM campaign
               JOIN coupons ON coupons.campaign_id = campaign.id
               JOIN items ON campaign.merchant_id IS NULL OR items.merchant_id = campaign.merchant_id
               LEFT JOIN merchants ON merchants.id = items.merchant_id
               WHERE covers_all OR items.category = ANY(categories) OR merchants.external_id = ANY(coupons.merchants)
                  OR EXISTS (SELECT FROM coupon_items WHERE coupon_id = coupons.id AND item_id = items.id)
           ), spent AS (
               SELECT exposed.user_id, sum(line_total_minor)::bigint AS revenue_minor, sum(quantity) > 0 AS has_bought
               FROM exposed CROSS JOIN campaign
               JOIN purchases ON purchases.user_id = exposed.user_id
                   AND purchased_at >= exposed.exposed_at AND purchased_at < campaign.ends_at
                   AND purchases.currency_code = campaign.currency_code
               JOIN covered ON covered.id = purchases.item_id
               GROUP BY exposed.user_id
           )
           SELECT is_held_out AS "is_held_out!", count(*) AS "users!",
                  count(*) FILTER (WHERE has_bought) AS "converters!",
                  COALESCE(sum(revenue_minor), 0)::bigint AS "revenue_minor!",
                  COALESCE(sum(revenue_minor::double precision ^ 2), 0) AS "revenue_minor_squared!"
           FROM exposed LEFT JOIN spent USING (user_id) GROUP BY is_held_out"#,
        campaign.as_str()
    )
    .fetch_all(&mut *tx)
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
