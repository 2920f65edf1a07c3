//! Reads whom a campaign was offered to, and who redeemed.

use std::collections::HashSet;

use domain::id::CampaignId;

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// The users of a campaign as of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CampaignUsers {
    /// All users, ascending by their bytes.
    pub all: Vec<String>,
    /// The users who are assigned, or were offered a coupon and not held out.
    pub targeted: HashSet<String>,
    /// The users with a redemption of which something is left.
    pub redeemed: HashSet<String>,
}

/// Reads the users of `campaign`, and all users. Nobody who was erased is among them.
pub async fn users(pool: &Pool, campaign: &CampaignId) -> Result<CampaignUsers, StoreError> {
    let mut transaction = pool.begin_unlimited().await?;
    let all = sqlx::query_scalar!("SELECT external_id FROM users WHERE NOT is_pseudonym ORDER BY external_id")
        .fetch_all(&mut *transaction)
        .await?;
    let targeted = sqlx::query_scalar!(
        "WITH campaign AS MATERIALIZED (SELECT id FROM campaigns WHERE external_id = $1)
         SELECT external_id FROM users WHERE id IN (
             SELECT user_id FROM assignments WHERE campaign_id = (SELECT id FROM campaign)
             UNION SELECT user_id FROM exposures WHERE campaign_id = (SELECT id FROM campaign) AND NOT is_held_out)",
        campaign.as_str()
    )
    .fetch_all(&mut *transaction)
    .await?;
    let redeemed = sqlx::query_scalar!(
        "SELECT DISTINCT users.external_id FROM redemptions
         JOIN users ON users.id = user_id JOIN campaigns ON campaigns.id = redemptions.campaign_id
         WHERE campaigns.external_id = $1 AND NOT is_cap_restored AND NOT is_pseudonym
           AND (rolled_back_minor < amount_minor OR amount_minor = 0)",
        campaign.as_str()
    )
    .fetch_all(&mut *transaction)
    .await?;
    Ok(CampaignUsers {
        all,
        targeted: targeted.into_iter().collect(),
        redeemed: redeemed.into_iter().collect(),
    })
}
