//! The sensitive attributes that an operator has allowed in the rules of a campaign.

use domain::id::CampaignId;

use crate::store::access::audit::{self, Action, Entry};
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;

/// Allows the rules of a campaign to name `attribute`. Returns `false` for an unknown campaign. Audited the first time;
/// allowing it again changes nothing.
pub async fn allow(
    pool: &Pool,
    campaign: &CampaignId,
    attribute: &str,
    actor: &str,
    reason: &str,
) -> Result<bool, StoreError> {
    pool.write(|mut tx| async move {
        let campaign_id = sqlx::query_scalar!("SELECT id FROM campaigns WHERE external_id = $1", campaign.as_str())
            .fetch_optional(&mut *tx)
            .await?;
        let Some(campaign_id) = campaign_id else {
            return Ok(false);
        };
        let added = sqlx::query!(
            "INSERT INTO allowed_sensitive_attributes (campaign_id, name, allowed_by, reason) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
            campaign_id,
            attribute,
            actor,
            reason
        )
        .execute(&mut *tx)
        .await?;
        if added.rows_affected() > 0 {
            let note = match reason.is_empty() {
                true => attribute.to_owned(),
                false => format!("{attribute}: {reason}"),
            };
            let entry = Entry {
                actor,
                action: Action::SensitiveAttributeAllowed,
                subject: campaign.as_str(),
                note: &note,
                row_count: 1,
                snapshot_version: None,
            };
            audit::record(&mut tx, entry).await?;
        }
        tx.commit().await?;
        Ok(true)
    })
    .await
}

/// Returns the attributes that are allowed in the rules of a campaign, ascending.
pub async fn allowed(pool: &Pool, campaign: &CampaignId) -> Result<Vec<String>, StoreError> {
    let names = sqlx::query_scalar!(
        "SELECT allowed_sensitive_attributes.name FROM allowed_sensitive_attributes JOIN campaigns ON id = campaign_id
         WHERE external_id = $1 ORDER BY 1",
        campaign.as_str()
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    Ok(names)
}

/// Returns the attributes that the rules of a campaign's coupons name now, each once.
pub async fn named(pool: &Pool, campaign: &CampaignId) -> Result<Vec<String>, StoreError> {
    let names = sqlx::query_scalar!(
        r#"SELECT DISTINCT rule -> 'attribute' ->> 'name' AS "name!"
           FROM coupons JOIN campaigns ON campaigns.id = campaign_id
           CROSS JOIN LATERAL jsonb_array_elements(rules) AS rule
           WHERE campaigns.external_id = $1 AND jsonb_typeof(rule) = 'object' AND rule ? 'attribute' ORDER BY 1"#,
        campaign.as_str()
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?;
    Ok(names)
}
