//! Refuses rules about sensitive attributes, unless an operator has allowed them by name for the campaign.
//!
//! A permission is never taken back, so that checking it before the rules are written is as good as checking it with them.

use crate::store::coupons::campaigns::{self, DefineError};
use crate::store::coupons::{sensitive, stored};
use crate::store::postgres::pool::Pool;
use domain::campaign::CampaignState;
use domain::coupon::{CouponPatch, Rule};
use domain::id::{CampaignId, MerchantId};

/// The attributes of `privacy.sensitive_attributes`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SensitiveAttributes(pub Vec<String>);

impl SensitiveAttributes {
    /// Checks the rules of a new coupon. `viewer`: the merchant to which other merchants' campaigns do not exist; `None` sees
    /// all.
    ///
    /// # Errors
    /// [`DefineError::SensitiveAttribute`] names the first attribute that is not allowed.
    pub async fn check_rules(
        &self,
        pool: &Pool,
        campaign: &CampaignId,
        rules: &[Rule],
        viewer: Option<&MerchantId>,
    ) -> Result<(), DefineError> {
        let names = rules.iter().filter_map(|rule| match rule {
            Rule::Attribute { name, .. } => Some(name.clone()),
            _ => None,
        });
        self.check(pool, campaign, names.collect(), viewer).await
    }

    /// Checks the rules that a change gives a coupon. A coupon that does not exist, or that `viewer` may not see, is left to
    /// the change to refuse.
    ///
    /// # Errors
    /// As [`Self::check_rules`].
    pub async fn check_patch(
        &self,
        pool: &Pool,
        patch: &CouponPatch,
        viewer: Option<&MerchantId>,
    ) -> Result<(), DefineError> {
        let Some(rules) = patch.rules.as_deref().filter(|_| !self.0.is_empty()) else {
            return Ok(());
        };
        match stored::get(pool, &patch.id, viewer).await? {
            Some(found) => self.check_rules(pool, &found.coupon.campaign, rules, viewer).await,
            None => Ok(()),
        }
    }

    /// Checks the rules of a campaign that is about to reach users: they may be older than the list.
    ///
    /// # Errors
    /// As [`Self::check_rules`].
    pub async fn check_state(
        &self,
        pool: &Pool,
        campaign: &CampaignId,
        state: CampaignState,
        viewer: Option<&MerchantId>,
    ) -> Result<(), DefineError> {
        if self.0.is_empty() || !matches!(state, CampaignState::Scheduled | CampaignState::Active) {
            return Ok(());
        }
        let names = sensitive::named(pool, campaign).await?;
        self.check(pool, campaign, names, viewer).await
    }

    async fn check(
        &self,
        pool: &Pool,
        campaign: &CampaignId,
        names: Vec<String>,
        viewer: Option<&MerchantId>,
    ) -> Result<(), DefineError> {
        let mut listed = names.into_iter().filter(|name| self.0.contains(name)).peekable();
        if listed.peek().is_none() {
            return Ok(());
        }
        let allowed = sensitive::allowed(pool, campaign).await?;
        let refused = listed.find(|name| !allowed.contains(name));
        // A campaign of another merchant is left to the change itself, which refuses it like one that does not exist.
        let is_visible = refused.is_some() && campaigns::get(pool, campaign, viewer).await?.is_some();
        match refused.filter(|_| is_visible) {
            Some(attribute) => Err(DefineError::SensitiveAttribute {
                campaign: campaign.clone(),
                attribute,
            }),
            None => Ok(()),
        }
    }
}
