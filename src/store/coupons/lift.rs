//! Reads the purchases of the users to whom a campaign was offered, or would have been, for each arm.

use futures_util::TryStreamExt;

use domain::id::CampaignId;
use domain::returns::{ItemHistory, ItemLine};
use domain::time::Timestamp;

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// The outcome of one arm, over all users in it whatever they did.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ArmOutcome {
    pub users: u64,
    /// The users who bought a covered item from their exposure until the end of the campaign's window, and did not return all
    /// of it within that time.
    pub converters: u64,
    /// The sum of the totals of these purchases less their returns, in the currency of the campaign. A return of what was
    /// bought before does not count.
    pub revenue_minor: i64,
    /// The sum over users of the square of their revenue.
    pub revenue_minor_squared: f64,
}

/// Reads the outcomes of the users who were offered the campaign, then of those who were held out. A user who was exposed
/// to several coupons counts once, from the first exposure on. The covered items are those that the coupons cover now.
pub async fn outcomes(pool: &Pool, campaign: &CampaignId) -> Result<(ArmOutcome, ArmOutcome), StoreError> {
    let mut connection = pool.acquire().await?;
    let mut rows = sqlx::query_as!(
        Row,
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
           )
           SELECT exposed.user_id, is_held_out, item_id AS "item_id?", order_id AS "order_id?",
                  purchased_at AS "purchased_at?", quantity AS "quantity?",
                  CASE WHEN lines.currency_code = campaign.currency_code THEN line_total_minor ELSE 0 END
                      AS "total_minor?"
           FROM exposed CROSS JOIN campaign LEFT JOIN purchases AS lines
               ON lines.user_id = exposed.user_id AND purchased_at >= exposed_at AND purchased_at < ends_at
                  AND item_id IN (SELECT id FROM covered)
           ORDER BY exposed.user_id, item_id"#,
        campaign.as_str()
    )
    .fetch(&mut *connection);
    let mut outcomes = [ArmOutcome::default(), ArmOutcome::default()];
    let mut user_rows: Vec<Row> = Vec::new();
    while let Some(row) = rows.try_next().await? {
        if user_rows.first().is_some_and(|first| first.user_id != row.user_id) {
            count_user(&user_rows, &mut outcomes);
            user_rows.clear();
        }
        user_rows.push(row);
    }
    count_user(&user_rows, &mut outcomes);
    let [offered, held_out] = outcomes;
    Ok((offered, held_out))
}

/// An order line of an exposed user, or the user alone if they have none.
struct Row {
    user_id: i64,
    is_held_out: bool,
    item_id: Option<i64>,
    order_id: Option<String>,
    purchased_at: Option<Timestamp>,
    quantity: Option<i32>,
    /// 0 in another currency than that of the campaign.
    total_minor: Option<i64>,
}

impl Row {
    fn line(&self) -> Option<ItemLine<'_>> {
        Some(ItemLine {
            order: self.order_id.as_deref()?,
            at: self.purchased_at?,
            quantity: self.quantity?.into(),
            total_minor: self.total_minor?,
        })
    }
}

/// Adds a user to the outcome of their arm. `rows`: all rows of the user, ascending by item.
fn count_user(rows: &[Row], outcomes: &mut [ArmOutcome; 2]) {
    let Some(first) = rows.first() else { return };
    let arm = &mut outcomes[usize::from(first.is_held_out)];
    let mut has_converted = false;
    let mut revenue_minor: i128 = 0;
    for item_rows in rows.chunk_by(|a, b| a.item_id == b.item_id) {
        let history = ItemHistory::new(item_rows.iter().filter_map(Row::line));
        has_converted |= history.standing().next().is_some();
        revenue_minor += history.paid_minor;
    }
    arm.users += 1;
    arm.converters += u64::from(has_converted);
    // Within 64 bits, whatever was recorded.
    let bounded = revenue_minor.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
    arm.revenue_minor = arm.revenue_minor.saturating_add(bounded);
    arm.revenue_minor_squared += (revenue_minor as f64).powi(2);
}
