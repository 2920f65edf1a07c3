//! Campaigns: made, changed, put into another state.

use domain::campaign::{Campaign, CampaignPatch, CampaignState};
use domain::error::InvalidField;
use domain::id::{CampaignId, CouponId, MerchantId};
use domain::time::Timestamp;

use crate::store::coupons::offer_catalog::{CampaignRow, raise_revision};
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool};

/// A campaign with what is used of its budget.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCampaign {
    pub campaign: Campaign,
    pub reserved_minor: i64,
    pub spent_minor: i64,
    pub created_at: Timestamp,
}

/// Why a campaign or a coupon was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum DefineError {
    #[error("there is no campaign {0}")]
    UnknownCampaign(CampaignId),
    #[error("there is no coupon {0}")]
    UnknownCoupon(CouponId),
    #[error("there is no merchant {0}")]
    UnknownMerchant(MerchantId),
    #[error("the campaign is of {of}: it covers and asks for nothing that {named} sells")]
    ForeignMerchant { of: MerchantId, named: MerchantId },
    #[error("there is another campaign {0} already")]
    CampaignExists(CampaignId),
    #[error("there is another coupon {0} already")]
    CouponExists(CouponId),
    #[error("{field} cannot change any more: the campaign is {state}, no draft")]
    NotDraft { field: &'static str, state: CampaignState },
    #[error("a campaign that is {from} cannot become {to}")]
    InvalidTransition { from: CampaignState, to: CampaignState },
    #[error("the campaign has begun and cannot become a draft again")]
    Begun,
    #[error("{field} must be at least {used}, which is used already, is {limit}")]
    LimitBelowUse { field: &'static str, limit: i64, used: i64 },
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes `campaign`; one that is there already, the same but for its salt, is answered again.
pub async fn create(pool: &Pool, campaign: &Campaign) -> Result<StoredCampaign, DefineError> {
    pool.write(|mut tx| async move {
        let merchant_id = match &campaign.merchant {
            None => None,
            Some(merchant) => match merchant_key(&mut tx, merchant).await? {
                None => return Ok(Err(DefineError::UnknownMerchant(merchant.clone()))),
                key => key,
            },
        };
        let created = sqlx::query_scalar!(
            "INSERT INTO campaigns
                 (external_id, merchant_id, name, currency_code, priority, is_exclusive, audience, holdout_basis_points,
                  holdout_salt)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (external_id) DO NOTHING RETURNING id",
            campaign.id.as_str(),
            merchant_id,
            campaign.name,
            campaign.currency.as_str(),
            campaign.priority,
            campaign.is_exclusive,
            campaign.audience.as_str(),
            i32::from(campaign.holdout.basis_points),
            &campaign.holdout.salt[..],
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(id) = created else {
            let stored = read(&mut tx, &campaign.id, None, Lock::None).await?;
            let is_same = |stored: &StoredCampaign| {
                let mut stored = stored.campaign.clone();
                stored.holdout.salt = campaign.holdout.salt;
                stored == *campaign
            };
            let same = stored.filter(is_same);
            return Ok(same.ok_or_else(|| DefineError::CampaignExists(campaign.id.clone())));
        };
        sqlx::query!(
            "INSERT INTO campaign_states (campaign_id, state, starts_at, ends_at, limit_minor) VALUES ($1, $2, $3, $4, $5)",
            id,
            campaign.state.as_str(),
            campaign.window.starts_at,
            campaign.window.ends_at,
            campaign.budget_limit_minor,
        )
        .execute(&mut *tx)
        .await?;
        finish(tx, &campaign.id).await
    })
    .await?
}

async fn merchant_key(connection: &mut Connection, merchant: &MerchantId) -> Result<Option<i64>, StoreError> {
    let key = sqlx::query_scalar!("SELECT id FROM merchants WHERE external_id = $1", merchant.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(key)
}

/// Changes a campaign. `viewer`: the only merchant whose campaigns there are; `None`: all.
pub async fn update(
    pool: &Pool,
    patch: &CampaignPatch,
    viewer: Option<&MerchantId>,
) -> Result<StoredCampaign, DefineError> {
    pool.write(|mut tx| async move {
        let Some(stored) = read(&mut tx, &patch.id, viewer, Lock::ForUpdate).await? else {
            return Ok(Err(DefineError::UnknownCampaign(patch.id.clone())));
        };
        let old = &stored.campaign;
        let new = match patch.apply(old) {
            Ok(new) => new,
            Err(error) => return Ok(Err(error.into())),
        };
        if old.state != CampaignState::Draft {
            let state = old.state;
            if new.audience != old.audience {
                let field = "audience";
                return Ok(Err(DefineError::NotDraft { field, state }));
            }
            if new.holdout != old.holdout {
                let field = "holdout_basis_points";
                return Ok(Err(DefineError::NotDraft { field, state }));
            }
        }
        let used = stored.reserved_minor + stored.spent_minor;
        if let Some(limit) = new.budget_limit_minor
            && limit < used
        {
            let field = "budget_limit_minor";
            return Ok(Err(DefineError::LimitBelowUse { field, limit, used }));
        }
        if new == *old {
            return Ok(Ok(stored));
        }
        sqlx::query!(
            "UPDATE campaigns SET name = $2, priority = $3, is_exclusive = $4, audience = $5, holdout_basis_points = $6
             WHERE external_id = $1",
            new.id.as_str(),
            new.name,
            new.priority,
            new.is_exclusive,
            new.audience.as_str(),
            i32::from(new.holdout.basis_points),
        )
        .execute(&mut *tx)
        .await?;
        sqlx::query!(
            "UPDATE campaign_states SET starts_at = $2, ends_at = $3, limit_minor = $4
             WHERE campaign_id = (SELECT id FROM campaigns WHERE external_id = $1)",
            new.id.as_str(),
            new.window.starts_at,
            new.window.ends_at,
            new.budget_limit_minor,
        )
        .execute(&mut *tx)
        .await?;
        finish(tx, &patch.id).await
    })
    .await?
}

/// Puts a campaign into another state. `viewer`: see [`update`].
pub async fn set_state(
    pool: &Pool,
    id: &CampaignId,
    state: CampaignState,
    viewer: Option<&MerchantId>,
) -> Result<StoredCampaign, DefineError> {
    pool.write(|mut tx| async move {
        let Some(stored) = read(&mut tx, id, viewer, Lock::ForUpdate).await? else {
            return Ok(Err(DefineError::UnknownCampaign(id.clone())));
        };
        let from = stored.campaign.state;
        if from == state {
            return Ok(Ok(stored));
        }
        if !from.may_become(state) {
            return Ok(Err(DefineError::InvalidTransition { from, to: state }));
        }
        // Users may have been offered something since the start: their arms must not change any more, as a draft's may.
        let changed = sqlx::query!(
            "UPDATE campaign_states SET state = $2
             WHERE campaign_id = (SELECT id FROM campaigns WHERE external_id = $1)
               AND ($2 <> 'draft' OR clock_timestamp() < starts_at)",
            id.as_str(),
            state.as_str(),
        )
        .execute(&mut *tx)
        .await?;
        if changed.rows_affected() == 0 {
            return Ok(Err(DefineError::Begun));
        }
        finish(tx, id).await
    })
    .await?
}

/// Commits, having said that definitions have changed; the campaign as it is then.
async fn finish(
    mut tx: crate::store::postgres::pool::Tx,
    id: &CampaignId,
) -> Result<Result<StoredCampaign, DefineError>, StoreError> {
    let stored = read(&mut tx, id, None, Lock::None).await?;
    raise_revision(&mut tx).await?;
    tx.commit().await?;
    Ok(stored.ok_or_else(|| DefineError::UnknownCampaign(id.clone())))
}

/// `viewer`: see [`update`].
pub async fn get(
    pool: &Pool,
    id: &CampaignId,
    viewer: Option<&MerchantId>,
) -> Result<Option<StoredCampaign>, StoreError> {
    read(&mut *pool.acquire().await?, id, viewer, Lock::None).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Lock {
    None,
    ForUpdate,
}

/// `viewer`: see [`update`].
pub(in crate::store) async fn read(
    connection: &mut Connection,
    id: &CampaignId,
    viewer: Option<&MerchantId>,
    lock: Lock,
) -> Result<Option<StoredCampaign>, StoreError> {
    if lock == Lock::ForUpdate {
        sqlx::query!(
            "SELECT campaign_id FROM campaign_states JOIN campaigns ON campaigns.id = campaign_id
             WHERE external_id = $1 FOR NO KEY UPDATE",
            id.as_str()
        )
        .fetch_optional(&mut *connection)
        .await?;
    }
    let row = sqlx::query_as!(
        Row,
        r#"SELECT campaigns.external_id, merchants.external_id AS "merchant_id?", campaigns.name, state, starts_at, ends_at,
                  currency_code, limit_minor, priority, is_exclusive, audience, holdout_basis_points, holdout_salt,
                  reserved_minor, spent_minor, created_at
           FROM campaigns JOIN campaign_states ON campaign_states.campaign_id = campaigns.id
           LEFT JOIN merchants ON merchants.id = merchant_id
           WHERE campaigns.external_id = $1 AND ($2::text IS NULL OR merchants.external_id = $2)"#,
        id.as_str(),
        viewer.map(MerchantId::as_str),
    )
    .fetch_optional(connection)
    .await?;
    row.map(StoredCampaign::try_from).transpose()
}

/// Up to `limit` campaigns after `after`, ascending by id; of `merchant` alone if there is one.
pub async fn list(
    pool: &Pool,
    merchant: Option<&MerchantId>,
    after: &str,
    limit: i64,
) -> Result<Vec<StoredCampaign>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"SELECT campaigns.external_id, merchants.external_id AS "merchant_id?", campaigns.name, state, starts_at, ends_at,
                  currency_code, limit_minor, priority, is_exclusive, audience, holdout_basis_points, holdout_salt,
                  reserved_minor, spent_minor, created_at
           FROM campaigns JOIN campaign_states ON campaign_states.campaign_id = campaigns.id
           LEFT JOIN merchants ON merchants.id = merchant_id
           WHERE campaigns.external_id > $1 AND ($2::text IS NULL OR merchants.external_id = $2)
           ORDER BY campaigns.external_id LIMIT $3"#,
        after,
        merchant.map(MerchantId::as_str),
        limit,
    )
    .fetch_all(&mut *pool.acquire().await?)
    .await?
    .into_iter()
    .map(StoredCampaign::try_from)
    .collect()
}

struct Row {
    external_id: String,
    merchant_id: Option<String>,
    name: String,
    state: String,
    starts_at: Timestamp,
    ends_at: Timestamp,
    currency_code: String,
    limit_minor: Option<i64>,
    priority: i32,
    is_exclusive: bool,
    audience: String,
    holdout_basis_points: i32,
    holdout_salt: Vec<u8>,
    reserved_minor: i64,
    spent_minor: i64,
    created_at: Timestamp,
}

impl TryFrom<Row> for StoredCampaign {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            reserved_minor: row.reserved_minor,
            spent_minor: row.spent_minor,
            created_at: row.created_at,
            campaign: CampaignRow {
                external_id: row.external_id,
                merchant_id: row.merchant_id,
                name: row.name,
                state: row.state,
                starts_at: row.starts_at,
                ends_at: row.ends_at,
                currency_code: row.currency_code,
                limit_minor: row.limit_minor,
                priority: row.priority,
                is_exclusive: row.is_exclusive,
                audience: row.audience,
                holdout_basis_points: row.holdout_basis_points,
                holdout_salt: row.holdout_salt,
            }
            .try_into()?,
        })
    }
}
