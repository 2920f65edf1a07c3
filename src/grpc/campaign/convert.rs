//! Converts the messages of CampaignService. Coupons and lift reports have files of their own.

pub mod assignments;
mod bias;
mod coupon;
mod lift;
mod warnings;

use tonic::Status;

use crate::admission;
use crate::grpc::convert::{instant, required, timestamp};
use crate::grpc::page;
use crate::grpc::proto::v1;
use crate::grpc::status::{self, Violations, invalid_argument};
use crate::store::coupons::campaigns::StoredCampaign;
use domain::access::{Caller, Role};
use domain::campaign::{Audience, Campaign, CampaignPatch, CampaignState, HistoryScope, Holdout, Window};
use domain::coupon::MAX_BASIS_POINTS;
use domain::error::InvalidField;
use domain::id::{CampaignId, CouponId, MerchantId};
use domain::item::check_text;
use domain::money::Currency;

pub use self::bias::{AllowAttribute, bias_report};
pub use self::coupon::{coupon_patch, new_coupon};
pub use self::lift::lift_report;
pub use self::warnings::warnings;

pub fn campaign_id(id: String) -> Result<CampaignId, Status> {
    CampaignId::new(id).map_err(|error| invalid_argument(vec![error]))
}

pub fn coupon_id(id: String) -> Result<CouponId, Status> {
    CouponId::new(id).map_err(|error| invalid_argument(vec![error]))
}

/// The checked fields of a campaign's message.
struct Spec {
    id: CampaignId,
    merchant: Option<MerchantId>,
    currency: Option<Currency>,
    patch: CampaignPatch,
}

fn spec(violations: &mut Violations, spec: v1::CampaignSpec, caller: &Caller) -> Result<Option<Spec>, Status> {
    let named = spec.merchant_id.iter().map(String::as_str);
    admission::check_merchants(caller, "campaign.merchant_id", named)?;
    let history_scope = spec.history_scope.map(history_scope).transpose();
    if let Ok(Some(HistoryScope::Platform)) = history_scope
        && !matches!(caller.role, Role::Operator | Role::Admin)
    {
        return Err(status::history_scope_not_allowed(caller.role));
    }
    let mut check = Within(violations);
    let id = check.field(CampaignId::new(spec.campaign_id));
    let merchant = check.field(spec.merchant_id.map(MerchantId::new).transpose());
    let name = check.field(spec.name.map(|name| check_text("name", name)).transpose());
    let starts_at = check.field(spec.starts_at.map(|at| instant("starts_at", at)).transpose());
    let ends_at = check.field(spec.ends_at.map(|at| instant("ends_at", at)).transpose());
    let currency = check.field(spec.currency_code.map(|code| Currency::new(&code)).transpose());
    let budget = check.field(at_least("budget_limit_minor", spec.budget_limit_minor, 0));
    let audience = check.field(spec.audience.map(audience).transpose());
    let basis_points = check.field(spec.holdout_basis_points.map(basis_points).transpose());
    let history_scope = check.field(history_scope);
    let fields = id.zip(merchant).zip(name).zip(starts_at).zip(ends_at).zip(currency);
    let shares = audience.zip(basis_points).zip(history_scope);
    let spec = fields
        .zip(budget)
        .zip(shares)
        .map(|((fields, budget_limit_minor), shares)| {
            let (((((id, merchant), name), starts_at), ends_at), currency) = fields;
            let ((audience, holdout_basis_points), history_scope) = shares;
            Spec {
                id: id.clone(),
                merchant,
                currency,
                patch: CampaignPatch {
                    id,
                    name,
                    starts_at,
                    ends_at,
                    budget_limit_minor: budget_limit_minor.map(Some),
                    priority: spec.priority,
                    is_exclusive: spec.exclusive,
                    audience,
                    holdout_basis_points,
                    history_scope,
                },
            }
        });
    Ok(spec)
}

/// Notes errors as errors of the field `campaign`.
struct Within<'a>(&'a mut Violations);

impl Within<'_> {
    fn field<T>(&mut self, result: Result<T, InvalidField>) -> Option<T> {
        self.0.check(result.map_err(|error| error.within("campaign")))
    }
}

fn at_least(field: &str, amount: Option<i64>, least: i64) -> Result<Option<i64>, InvalidField> {
    match amount {
        Some(amount) if amount < least => {
            let message = format!("must be {least} or more, is {amount}");
            Err(InvalidField::new(field, "OUT_OF_RANGE", message))
        }
        amount => Ok(amount),
    }
}

fn audience(audience: i32) -> Result<Audience, InvalidField> {
    match v1::Audience::try_from(audience) {
        Ok(v1::Audience::Unspecified | v1::Audience::Everybody) => Ok(Audience::Everybody),
        Ok(v1::Audience::Assigned) => Ok(Audience::Assigned),
        Err(_) => Err(unknown("audience", audience)),
    }
}

fn history_scope(scope: i32) -> Result<HistoryScope, InvalidField> {
    match v1::HistoryScope::try_from(scope) {
        Ok(v1::HistoryScope::Unspecified | v1::HistoryScope::Own) => Ok(HistoryScope::OwnMerchant),
        Ok(v1::HistoryScope::Platform) => Ok(HistoryScope::Platform),
        Err(_) => Err(unknown("history_scope", scope)),
    }
}

fn basis_points(points: i32) -> Result<u16, InvalidField> {
    match u16::try_from(points) {
        Ok(points @ 0..=MAX_BASIS_POINTS) => Ok(points),
        _ => {
            let message = format!("must lie between 0 and {MAX_BASIS_POINTS}, is {points}");
            Err(InvalidField::new("holdout_basis_points", "OUT_OF_RANGE", message))
        }
    }
}

fn unknown(field: &str, value: i32) -> InvalidField {
    InvalidField::new(
        field,
        "UNKNOWN_ENUM_VALUE",
        format!("must be a value of its enum, is {value}"),
    )
}

/// `salt`: random bytes for the campaign's holdout.
pub fn new_campaign(request: v1::CreateCampaignRequest, salt: [u8; 16], caller: &Caller) -> Result<Campaign, Status> {
    let mut violations = Violations::default();
    let state = violations.check(first_state(request.state));
    let Some(message) = violations.check(required("campaign", request.campaign)) else {
        return violations.finish(None);
    };
    for (field, is_given) in [
        ("starts_at", message.starts_at.is_some()),
        ("ends_at", message.ends_at.is_some()),
        ("currency_code", message.currency_code.is_some()),
    ] {
        Within(&mut violations).field(required(field, is_given.then_some(())));
    }
    let Some(spec) = spec(&mut violations, message, caller)? else {
        return violations.finish(None);
    };
    let currency = spec.currency;
    let window = spec.patch.starts_at.zip(spec.patch.ends_at);
    let window = window.and_then(|(starts_at, ends_at)| Within(&mut violations).field(Window::new(starts_at, ends_at)));
    let campaign = state
        .zip(window)
        .zip(currency)
        .map(|((state, window), currency)| Campaign {
            id: spec.id,
            // A merchant's key creates campaigns for that merchant only.
            merchant: spec.merchant.or_else(|| caller.merchant.clone()),
            name: spec.patch.name.unwrap_or_default(),
            state,
            window,
            currency,
            budget_limit_minor: spec.patch.budget_limit_minor.flatten(),
            priority: spec.patch.priority.unwrap_or(0),
            is_exclusive: spec.patch.is_exclusive.unwrap_or(false),
            audience: spec.patch.audience.unwrap_or(Audience::Everybody),
            holdout: Holdout {
                basis_points: spec.patch.holdout_basis_points.unwrap_or(0),
                salt,
            },
            history_scope: spec.patch.history_scope.unwrap_or_default(),
        });
    violations.finish(campaign)
}

fn first_state(state: i32) -> Result<CampaignState, InvalidField> {
    match v1::CampaignState::try_from(state) {
        Ok(v1::CampaignState::Unspecified | v1::CampaignState::Draft) => Ok(CampaignState::Draft),
        Ok(v1::CampaignState::Scheduled) => Ok(CampaignState::Scheduled),
        Ok(v1::CampaignState::Active) => Ok(CampaignState::Active),
        Ok(v1::CampaignState::Paused | v1::CampaignState::Ended) => {
            let message = "must be DRAFT, SCHEDULED or ACTIVE for a new campaign";
            Err(InvalidField::new("state", "NOT_A_FIRST_STATE", message))
        }
        Err(_) => Err(unknown("state", state)),
    }
}

pub fn campaign_patch(request: v1::UpdateCampaignRequest, caller: &Caller) -> Result<CampaignPatch, Status> {
    let mut violations = Violations::default();
    let Some(message) = violations.check(required("campaign", request.campaign)) else {
        return violations.finish(None);
    };
    let Some(spec) = spec(&mut violations, message, caller)? else {
        return violations.finish(None);
    };
    let mut check = Within(&mut violations);
    let fixed = |field: &str| InvalidField::new(field, "CANNOT_CHANGE", "cannot be changed; leave it out");
    if spec.merchant.is_some() {
        check.field::<()>(Err(fixed("merchant_id")));
    }
    if spec.currency.is_some() {
        check.field::<()>(Err(fixed("currency_code")));
    }
    if request.clear_budget_limit && spec.patch.budget_limit_minor.is_some() {
        let message = "must be left out when clear_budget_limit is true";
        check.field::<()>(Err(InvalidField::new("budget_limit_minor", "CONTRADICTION", message)));
    }
    let patch = CampaignPatch {
        budget_limit_minor: match request.clear_budget_limit {
            true => Some(None),
            false => spec.patch.budget_limit_minor,
        },
        ..spec.patch
    };
    violations.finish(Some(patch))
}

pub fn new_state(request: v1::SetCampaignStateRequest) -> Result<(CampaignId, CampaignState), Status> {
    let mut violations = Violations::default();
    let id = violations.check(CampaignId::new(request.campaign_id));
    let state = violations.check(match v1::CampaignState::try_from(request.state) {
        Ok(v1::CampaignState::Unspecified) => Err(InvalidField::new("state", "MISSING", "must be given")),
        Ok(v1::CampaignState::Draft) => Ok(CampaignState::Draft),
        Ok(v1::CampaignState::Scheduled) => Ok(CampaignState::Scheduled),
        Ok(v1::CampaignState::Active) => Ok(CampaignState::Active),
        Ok(v1::CampaignState::Paused) => Ok(CampaignState::Paused),
        Ok(v1::CampaignState::Ended) => Ok(CampaignState::Ended),
        Err(_) => Err(unknown("state", request.state)),
    });
    violations.finish(id.zip(state))
}

impl From<StoredCampaign> for v1::Campaign {
    fn from(stored: StoredCampaign) -> Self {
        let campaign = stored.campaign;
        Self {
            campaign_id: campaign.id.to_string(),
            merchant_id: campaign.merchant.map(|merchant| merchant.to_string()),
            name: campaign.name,
            state: match campaign.state {
                CampaignState::Draft => v1::CampaignState::Draft,
                CampaignState::Scheduled => v1::CampaignState::Scheduled,
                CampaignState::Active => v1::CampaignState::Active,
                CampaignState::Paused => v1::CampaignState::Paused,
                CampaignState::Ended => v1::CampaignState::Ended,
            }
            .into(),
            starts_at: Some(timestamp(campaign.window.starts_at)),
            ends_at: Some(timestamp(campaign.window.ends_at)),
            budget: Some(v1::Budget {
                currency_code: campaign.currency.to_string(),
                limit_minor: campaign.budget_limit_minor,
                reserved_minor: stored.reserved_minor,
                spent_minor: stored.spent_minor,
            }),
            priority: campaign.priority,
            exclusive: campaign.is_exclusive,
            audience: match campaign.audience {
                Audience::Everybody => v1::Audience::Everybody,
                Audience::Assigned => v1::Audience::Assigned,
            }
            .into(),
            holdout_basis_points: campaign.holdout.basis_points.into(),
            created_at: Some(timestamp(stored.created_at)),
            history_scope: match campaign.history_scope {
                HistoryScope::OwnMerchant => v1::HistoryScope::Own,
                HistoryScope::Platform => v1::HistoryScope::Platform,
            }
            .into(),
        }
    }
}

pub struct ListCampaigns {
    pub merchant: Option<MerchantId>,
    pub after: String,
    pub page_size: i64,
}

impl ListCampaigns {
    /// Selects no campaigns that `caller` may not see.
    pub fn new(request: v1::ListCampaignsRequest, caller: &Caller) -> Result<Self, Status> {
        let named = request.merchant_id.iter().map(String::as_str);
        admission::check_merchants(caller, "merchant_id", named)?;
        let mut violations = Violations::default();
        let merchant = request.merchant_id.map(MerchantId::new).transpose();
        let merchant = violations.check(merchant.map(|merchant| merchant.or_else(|| caller.merchant.clone())));
        let page_size = violations.check(page::page_size(request.page_size));
        let after = merchant.as_ref().and_then(|merchant| {
            let is_id = |id: &String| CampaignId::new(id).is_ok();
            violations.check(page::cursor(&campaigns_key(merchant), &request.page_token, is_id))
        });
        let list = merchant
            .zip(page_size)
            .zip(after)
            .map(|((merchant, page_size), after)| Self {
                merchant,
                after: after.unwrap_or_default(),
                page_size,
            });
        violations.finish(list)
    }

    /// Returns what a page token is bound to.
    pub fn key(&self) -> (&'static str, Option<&str>) {
        campaigns_key(&self.merchant)
    }
}

fn campaigns_key(merchant: &Option<MerchantId>) -> (&'static str, Option<&str>) {
    ("ListCampaigns", merchant.as_ref().map(MerchantId::as_str))
}

pub struct ListCoupons {
    pub campaign: CampaignId,
    pub after: String,
    pub page_size: i64,
}

impl TryFrom<v1::ListCouponsRequest> for ListCoupons {
    type Error = Status;

    fn try_from(request: v1::ListCouponsRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let campaign = violations.check(CampaignId::new(request.campaign_id));
        let page_size = violations.check(page::page_size(request.page_size));
        let after = campaign.as_ref().and_then(|campaign| {
            let is_id = |id: &String| CouponId::new(id).is_ok();
            violations.check(page::cursor(&coupons_key(campaign), &request.page_token, is_id))
        });
        let list = campaign
            .zip(page_size)
            .zip(after)
            .map(|((campaign, page_size), after)| Self {
                campaign,
                after: after.unwrap_or_default(),
                page_size,
            });
        violations.finish(list)
    }
}

impl ListCoupons {
    /// Returns what a page token is bound to.
    pub fn key(&self) -> (&'static str, &str) {
        coupons_key(&self.campaign)
    }
}

fn coupons_key(campaign: &CampaignId) -> (&'static str, &str) {
    ("ListCoupons", campaign.as_str())
}
