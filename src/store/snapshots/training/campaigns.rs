//! What became of all campaigns.

use std::collections::HashMap;

use futures_util::TryStreamExt;

use coupons::affinity::covered_by_any;
use coupons::offer_catalog::{Offer, OfferCatalog};
use domain::id::CampaignId;
use domain::time::Timestamp;
use recommender::snapshot::catalog::Catalog;
use recommender::snapshot::dictionary::{ItemIndex, UserIndex};
use recommender::training::input::{CampaignHistory, RedemptionEvent};

use super::Keyed;
use crate::store::coupons::offer_catalog;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Connection;

/// Ascending by id; recipients and redeemers are those who allow to be trained on, those of whom nothing is on record if
/// `by_default`. Covered is what the coupons cover by the facts that `catalog` has of the items.
pub(super) async fn read(
    connection: &mut Connection,
    by_default: bool,
    users: &Keyed<UserIndex>,
    items: &Keyed<ItemIndex>,
    catalog: &Catalog,
) -> Result<Vec<CampaignHistory>, StoreError> {
    let campaigns = offer_catalog::read_campaigns(connection).await?;
    let offer_catalog = OfferCatalog::new(campaigns, offer_catalog::read_coupons(connection).await?);
    let mut offers: HashMap<&CampaignId, Vec<&Offer>> = HashMap::new();
    for offer in offer_catalog.offers() {
        offers.entry(&offer.campaign.id).or_default().push(offer);
    }
    let mut recipients = read_recipients(connection, by_default, users).await?;
    let mut redemptions = read_redemptions(connection, by_default, users).await?;
    let mut histories: Vec<CampaignHistory> = offer_catalog
        .campaigns()
        .map(|campaign| {
            let offers = offers.remove(&campaign.id).unwrap_or_default();
            CampaignHistory {
                id: campaign.id.clone(),
                window: campaign.window,
                items: covered_by_any(&items.ids, catalog, offers),
                recipients: recipients.remove(campaign.id.as_str()).unwrap_or_default(),
                redemptions: redemptions.remove(campaign.id.as_str()).unwrap_or_default(),
            }
        })
        .collect();
    histories.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    Ok(histories)
}

/// By campaign; ascending, each once.
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

/// By campaign; ascending by time, then user. Those that were given back as a whole are left out.
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
