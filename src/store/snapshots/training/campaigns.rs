//! Reads past campaigns: their definitions, recipients and redemptions.

use std::collections::HashMap;

use futures_util::TryStreamExt;

use domain::campaign::Campaign;
use domain::coupon::Coupon;
use domain::id::CampaignId;
use domain::time::Timestamp;
use recommender::snapshot::dictionary::UserIndex;
use recommender::training::input::RedemptionEvent;

use super::Keyed;
use crate::store::coupons::offer_catalog;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Connection;

/// A campaign until now, among the users who allow training.
#[derive(Debug)]
pub struct PastCampaign {
    pub campaign: Campaign,
    /// In any order.
    pub coupons: Vec<Coupon>,
    /// The users to whom it was assigned, or who were exposed to it and not held out. Ascending, each once.
    pub recipients: Vec<UserIndex>,
    /// One for each redemption that was not given back as a whole, ascending by time, then user.
    pub redemptions: Vec<RedemptionEvent>,
}

/// Reads all campaigns, ascending by id.
///
/// `by_default`: whether users who have said nothing about training allow it.
pub(super) async fn read(
    connection: &mut Connection,
    by_default: bool,
    users: &Keyed<UserIndex>,
) -> Result<Vec<PastCampaign>, StoreError> {
    let mut campaigns = offer_catalog::read_campaigns(connection).await?;
    let mut coupons: HashMap<CampaignId, Vec<Coupon>> = HashMap::new();
    for coupon in offer_catalog::read_coupons(connection).await? {
        coupons.entry(coupon.campaign.clone()).or_default().push(coupon);
    }
    let mut recipients = read_recipients(connection, by_default, users).await?;
    let mut redemptions = read_redemptions(connection, by_default, users).await?;
    campaigns.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    let past = campaigns.into_iter().map(|campaign| PastCampaign {
        coupons: coupons.remove(&campaign.id).unwrap_or_default(),
        recipients: recipients.remove(campaign.id.as_str()).unwrap_or_default(),
        redemptions: redemptions.remove(campaign.id.as_str()).unwrap_or_default(),
        campaign,
    });
    Ok(past.collect())
}

/// Reads the recipients of each campaign by its id, ascending, each once.
async fn read_recipients(
    connection: &mut Connection,
    by_default: bool,
    users: &Keyed<UserIndex>,
) -> Result<HashMap<String, Vec<UserIndex>>, StoreError> {
    struct Row {
        campaign_id: String,
        user_id: i64,
    }
    let mut recipients: HashMap<String, Vec<UserIndex>> = HashMap::new();
    let mut rows = sqlx::query_as!(
        Row,
        r#"SELECT campaigns.external_id AS "campaign_id!", offered.user_id AS "user_id!"
           FROM (SELECT campaign_id, user_id FROM assignments
                 UNION
                 SELECT campaign_id, user_id FROM exposures WHERE NOT is_held_out) AS offered
           JOIN campaigns ON campaigns.id = campaign_id
           LEFT JOIN consents ON consents.user_id = offered.user_id AND purpose = 'training'
           WHERE COALESCE(is_granted, $1)"#,
        by_default
    )
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let user = users.index("assignments", row.user_id)?;
        recipients.entry(row.campaign_id).or_default().push(user);
    }
    recipients.values_mut().for_each(|users| users.sort_unstable());
    Ok(recipients)
}

/// Reads the redemptions of each campaign by its id, ascending by time, then user. Leaves out those that were given back
/// as a whole.
async fn read_redemptions(
    connection: &mut Connection,
    by_default: bool,
    users: &Keyed<UserIndex>,
) -> Result<HashMap<String, Vec<RedemptionEvent>>, StoreError> {
    struct Row {
        campaign_id: String,
        user_id: i64,
        redeemed_at: Timestamp,
    }
    let mut redemptions: HashMap<String, Vec<RedemptionEvent>> = HashMap::new();
    let mut rows = sqlx::query_as!(
        Row,
        "SELECT campaigns.external_id AS campaign_id, redemptions.user_id, redeemed_at
         FROM redemptions JOIN campaigns ON campaigns.id = campaign_id
         LEFT JOIN consents ON consents.user_id = redemptions.user_id AND purpose = 'training'
         WHERE NOT is_cap_restored AND (rolled_back_minor < amount_minor OR amount_minor = 0)
               AND COALESCE(is_granted, $1)",
        by_default
    )
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let event = RedemptionEvent {
            user: users.index("redemptions", row.user_id)?,
            redeemed_at: row.redeemed_at,
        };
        redemptions.entry(row.campaign_id).or_default().push(event);
    }
    let in_order = |event: &RedemptionEvent| (event.redeemed_at, event.user);
    redemptions
        .values_mut()
        .for_each(|events| events.sort_unstable_by_key(in_order));
    Ok(redemptions)
}
