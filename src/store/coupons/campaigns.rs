//! Creates, changes and reads campaigns.

use domain::campaign::{Campaign, CampaignPatch, CampaignState, HistoryScope};
use domain::error::InvalidField;
use domain::id::{CampaignId, CouponId, MerchantId};
use domain::time::Timestamp;

use super::revision;
use super::rows::CampaignRow;
use crate::store::access::audit::{self, Action};
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Connection, Pool, Tx};

/// A campaign and how much of its budget is used.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredCampaign {
    pub campaign: Campaign,
    pub reserved_minor: i64,
    pub spent_minor: i64,
    pub created_at: Timestamp,
}

/// The reason why a campaign or a coupon was not created or changed.
#[derive(Debug, thiserror::Error)]
pub enum DefineError {
    #[error("there is no campaign {0}")]
    UnknownCampaign(CampaignId),
    #[error("there is no coupon {0}")]
    UnknownCoupon(CouponId),
    #[error("there is no merchant {0}")]
    UnknownMerchant(MerchantId),
    #[error("there are no merchants {}", first_names(.0))]
    UnknownMerchants(Vec<MerchantId>),
    #[error("the campaign belongs to merchant {owner} and cannot refer to merchant {named}")]
    ForeignMerchant { owner: MerchantId, named: MerchantId },
    #[error("campaign {0} exists already, with other content")]
    CampaignExists(CampaignId),
    #[error("coupon {0} exists already, with other content")]
    CouponExists(CouponId),
    /// The id is in use, and the caller may not see by whom.
    #[error("this id cannot be used; choose another one, for example one that begins with the merchant's id")]
    IdNotAvailable,
    #[error("{field} can change only while the campaign is a draft; it is {state}")]
    NotDraft { field: &'static str, state: CampaignState },
    #[error("a campaign that is {from} cannot become {to}")]
    InvalidTransition { from: CampaignState, to: CampaignState },
    #[error("the campaign has begun, so it cannot become a draft again")]
    Begun,
    #[error("{field} must be at least {used}, which is already used, but is {limit}")]
    LimitBelowUse { field: &'static str, limit: i64, used: i64 },
    #[error(
        "attribute {attribute} is sensitive (privacy.sensitive_attributes); an operator has to allow it for campaign {campaign} \
         before a rule may name it"
    )]
    SensitiveAttribute { campaign: CampaignId, attribute: String },
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Joins the first ten of `merchants`, and says how many more there are.
fn first_names(merchants: &[MerchantId]) -> String {
    const MAX_NAMES: usize = 10;
    let names: Vec<&str> = merchants.iter().take(MAX_NAMES).map(MerchantId::as_str).collect();
    let names = names.join(", ");
    match merchants.len().saturating_sub(MAX_NAMES) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

/// Creates `campaign`. Returns the stored one if it exists already and differs at most in its salt.
///
/// `by`: see [`Definer`].
pub async fn create(pool: &Pool, campaign: &Campaign, by: Definer<'_>) -> Result<StoredCampaign, DefineError> {
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
                  holdout_salt, history_scope)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (external_id) DO NOTHING RETURNING id",
            campaign.id.as_str(),
            merchant_id,
            campaign.name,
            campaign.currency.as_str(),
            campaign.priority,
            campaign.is_exclusive,
            campaign.audience.as_str(),
            i32::from(campaign.holdout.basis_points),
            &campaign.holdout.salt[..],
            campaign.history_scope.as_str(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(id) = created else {
            let Some(stored) = read(&mut tx, &campaign.id, by.viewer, Lock::None).await? else {
                return Ok(Err(DefineError::IdNotAvailable));
            };
            let is_same = |stored: &StoredCampaign| {
                let mut stored = stored.campaign.clone();
                stored.holdout.salt = campaign.holdout.salt;
                stored == *campaign
            };
            return Ok(match is_same(&stored) {
                true => Ok(stored),
                false => Err(DefineError::CampaignExists(campaign.id.clone())),
            });
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
        if campaign.history_scope != HistoryScope::default() {
            record_history_scope(&mut tx, campaign, by.actor).await?;
        }
        finish(tx, &campaign.id).await
    })
    .await?
}

/// The caller who defines campaigns and coupons.
#[derive(Debug, Clone, Copy)]
pub struct Definer<'a> {
    /// For the audit.
    pub actor: &'a str,
    /// The merchant to which other merchants' campaigns and coupons do not exist; `None` sees all.
    pub viewer: Option<&'a MerchantId>,
}

/// Records in the audit what the rules of a campaign see from now on.
async fn record_history_scope(connection: &mut Connection, campaign: &Campaign, actor: &str) -> Result<(), StoreError> {
    let entry = audit::Entry {
        actor,
        action: match campaign.history_scope {
            HistoryScope::OwnMerchant => Action::PlatformHistoryWithdrawn,
            HistoryScope::Platform => Action::PlatformHistoryGranted,
        },
        subject: campaign.id.as_str(),
        note: "",
        row_count: 1,
        snapshot_version: None,
    };
    audit::record(connection, entry).await
}

async fn merchant_key(connection: &mut Connection, merchant: &MerchantId) -> Result<Option<i64>, StoreError> {
    let key = sqlx::query_scalar!("SELECT id FROM merchants WHERE external_id = $1", merchant.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(key)
}

/// Changes a campaign.
pub async fn update(pool: &Pool, patch: &CampaignPatch, by: Definer<'_>) -> Result<StoredCampaign, DefineError> {
    pool.write(|mut tx| async move {
        let Some(stored) = read(&mut tx, &patch.id, by.viewer, Lock::ForUpdate).await? else {
            return Ok(Err(DefineError::UnknownCampaign(patch.id.clone())));
        };
        let old = &stored.campaign;
        let new = match patch.apply(old) {
            Ok(new) => new,
            Err(error) => return Ok(Err(error.into())),
        };
        if let Err(error) = check_change(&stored, &new) {
            return Ok(Err(error));
        }
        if new == *old {
            return Ok(Ok(stored));
        }
        sqlx::query!(
            "UPDATE campaigns SET name = $2, priority = $3, is_exclusive = $4, audience = $5, holdout_basis_points = $6,
                 history_scope = $7
             WHERE external_id = $1",
            new.id.as_str(),
            new.name,
            new.priority,
            new.is_exclusive,
            new.audience.as_str(),
            i32::from(new.holdout.basis_points),
            new.history_scope.as_str(),
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
        if new.history_scope != old.history_scope {
            record_history_scope(&mut tx, &new, by.actor).await?;
        }
        finish(tx, &patch.id).await
    })
    .await?
}

/// Checks that audience and holdout change only in a draft, and that the budget covers what is used.
fn check_change(stored: &StoredCampaign, new: &Campaign) -> Result<(), DefineError> {
    let old = &stored.campaign;
    let fixed = [
        ("audience", new.audience != old.audience),
        ("holdout_basis_points", new.holdout != old.holdout),
    ];
    for (field, is_changed) in fixed {
        if is_changed && old.state != CampaignState::Draft {
            let state = old.state;
            return Err(DefineError::NotDraft { field, state });
        }
    }
    let used = stored.reserved_minor + stored.spent_minor;
    match new.budget_limit_minor {
        Some(limit) if limit < used => Err(DefineError::LimitBelowUse {
            field: "budget_limit_minor",
            limit,
            used,
        }),
        _ => Ok(()),
    }
}

/// Puts a campaign into another state. `viewer`: see [`Definer`].
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
        // Users may have been offered something since the start, so their arms must stay. Those of a draft may change.
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

/// Raises the revision of the definitions and commits. Returns the campaign as it is then.
async fn finish(mut tx: Tx, id: &CampaignId) -> Result<Result<StoredCampaign, DefineError>, StoreError> {
    let stored = read(&mut tx, id, None, Lock::None).await?;
    revision::raise(&mut tx).await?;
    tx.commit().await?;
    Ok(stored.ok_or_else(|| DefineError::UnknownCampaign(id.clone())))
}

/// Reads a campaign. `viewer`: see [`Definer`].
pub async fn get(
    pool: &Pool,
    id: &CampaignId,
    viewer: Option<&MerchantId>,
) -> Result<Option<StoredCampaign>, StoreError> {
    read(&mut *pool.acquire().await?, id, viewer, Lock::None).await
}

/// Whether [`read`] locks the campaign until the end of the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    None,
    ForUpdate,
}

/// Reads a campaign. `viewer`: see [`Definer`].
pub(super) async fn read(
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
                  history_scope, reserved_minor, spent_minor, created_at
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

/// Returns up to `limit` campaigns after `after`, ascending by id: those of `merchant`, or all if it is `None`.
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
                  history_scope, reserved_minor, spent_minor, created_at
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
    history_scope: String,
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
                history_scope: row.history_scope,
            }
            .try_into()?,
        })
    }
}
