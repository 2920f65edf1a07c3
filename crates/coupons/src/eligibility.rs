//! Decides whether a user may have a coupon at a moment, and gives every reason why not.
//!
//! One pure function, [`assess`], serves every RPC: it takes the facts and returns the verdict. The single checks are in
//! `checks`, the texts of the failures in `text`.

mod checks;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use domain::campaign::{CampaignState, Window};
use domain::consent::{Consents, PrivacyOptions, Purpose};
use domain::coupon::{Cart, Rule, Scope};
use domain::id::{CampaignId, CouponId, UserId};
use domain::money::Currency;
use domain::time::Timestamp;
use recommender::snapshot::view::View;

use self::checks::{CartFacts, already_applied, check_cart, check_limits, exclusive_conflict, frequency_cap};
use super::cart::CartAmounts;
use super::holdout::is_held_out;
use super::offer_catalog::Offer;
use super::options::CouponOptions;
use super::rules::history::History;
use super::rules::{CompiledRules, Seen};

/// The configuration that holds for all users and coupons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub privacy: PrivacyOptions,
    /// The most coupons that a user is offered within the exposure window; `None` for no limit.
    pub max_exposures: Option<u32>,
    pub exposure_window_days: u32,
}

impl Policy {
    pub fn new(privacy: PrivacyOptions, coupons: &CouponOptions) -> Self {
        Self {
            privacy,
            max_exposures: (coupons.max_exposures > 0).then_some(coupons.max_exposures),
            exposure_window_days: coupons.exposure_window_days,
        }
    }
}

/// The facts about a user that are the same for every coupon.
#[derive(Debug, Clone, PartialEq)]
pub struct UserFacts {
    pub id: UserId,
    /// Whether the user exists.
    pub is_known: bool,
    pub consents: Consents,
    /// Name and value, ascending by name.
    pub attributes: Vec<(String, String)>,
    /// The coupons that the user was offered within the exposure window, also those that they were held out of.
    pub recent_exposures: Vec<CouponId>,
    /// The coupons with a reservation of the user that has not expired, and their campaigns.
    pub reserved: Vec<(CouponId, CampaignId)>,
}

/// The counters of one user and one coupon, and the campaign's present state. They change with every redemption.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    pub state: CampaignState,
    pub window: Window,
    /// The limit of the campaign's budget; `None` for no limit.
    pub limit_minor: Option<i64>,
    pub reserved_minor: i64,
    pub spent_minor: i64,
    pub total_cap: Option<i64>,
    /// The reservations of all users.
    pub reserved: i64,
    /// The redemptions by all users.
    pub redeemed: i64,
    /// Whether the user is assigned to the campaign.
    pub is_assigned: bool,
    pub user_reserved: i64,
    pub user_redeemed: i64,
}

/// A reason why a user cannot have a coupon, with what was required and what was seen.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    CouponUnknown,
    CampaignDraft,
    CampaignNotStarted {
        starts_at: Timestamp,
        now: Timestamp,
    },
    CampaignEnded {
        ends_at: Timestamp,
        now: Timestamp,
    },
    CampaignPaused,
    BudgetExhausted {
        needed_minor: i64,
        left_minor: i64,
        currency: Currency,
    },
    TotalCapReached {
        cap: i64,
        reserved: i64,
        redeemed: i64,
    },
    UserCapReached {
        cap: i64,
        reserved: i64,
        redeemed: i64,
    },
    AlreadyRedeemed,
    NotAssigned,
    UserUnknown,
    /// `rule`: the position among the coupon's rules.
    RuleFailed {
        rule: usize,
        seen: Seen,
    },
    MinCartNotMet {
        required_minor: i64,
        seen_minor: i64,
        currency: Currency,
    },
    NoQualifyingItem,
    /// The coupon covers no item of the catalog.
    EmptyScope,
    CurrencyMismatch {
        required: Currency,
        seen: Currency,
    },
    /// `with`: the other coupon. `with_own_merchant`: whether both are coupons of one merchant.
    ExclusiveConflict {
        with: CouponId,
        with_own_merchant: bool,
    },
    /// `is_refused`: whether the user has refused; otherwise nothing is on record.
    NoMarketingConsent {
        is_refused: bool,
    },
    /// `rule`: the position among the coupon's rules of one that needs the history.
    ProfilingObjected {
        rule: usize,
    },
    Suppressed,
    FrequencyCapped {
        max: u32,
        seen: u32,
        days: u32,
    },
    HeldOut,
    AlreadyApplied,
}

/// The code of a failure. Reasons are given in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    CouponUnknown,
    CampaignDraft,
    CampaignNotStarted,
    CampaignEnded,
    CampaignPaused,
    BudgetExhausted,
    TotalCapReached,
    UserCapReached,
    AlreadyRedeemed,
    NotAssigned,
    UserUnknown,
    RuleFailed,
    MinCartNotMet,
    NoQualifyingItem,
    CurrencyMismatch,
    ExclusiveConflict,
    NoMarketingConsent,
    ProfilingObjected,
    Suppressed,
    FrequencyCapped,
    HeldOut,
    AlreadyApplied,
}

/// The result of an assessment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Eligible,
    Ineligible,
    /// Nothing fails, but a cart decides and none was given.
    Indeterminate,
}

/// The assessment of one user and one coupon.
#[derive(Debug, Clone, PartialEq)]
pub struct Assessment {
    pub verdict: Verdict,
    /// Every failure, in the order of the codes.
    pub failures: Vec<Failure>,
    /// The discount on the cart; `None` without a cart, and unless the verdict is [`Verdict::Eligible`].
    pub discount_minor: Option<i64>,
}

/// The input of [`assess`]: everything that decides about one user and one coupon.
#[derive(Debug, Clone, Copy)]
pub struct AssessmentInput<'a> {
    pub offer: &'a Offer,
    pub rules: &'a CompiledRules<'a>,
    pub user: &'a UserFacts,
    pub usage: &'a Usage,
    /// Whether the offer covers no item at all (`scope::is_empty`). It decides where no cart is given.
    pub is_scope_empty: bool,
    /// The user's history. `None` while no snapshot is loaded; then only offers that do not [need a view](needs_view) can be
    /// assessed.
    pub history: Option<&'a History<'a>>,
    /// The view with the facts about the items in the cart.
    pub view: Option<&'a View>,
    pub cart: Option<&'a Cart>,
    /// The amounts of the cart that the applied coupons leave; `None` if they take nothing.
    pub left: Option<&'a CartAmounts>,
    /// The known offers among the coupons that are applied to the cart or reserved for the user.
    pub others: &'a [Arc<Offer>],
    pub now: Timestamp,
}

impl Assessment {
    /// Returns the assessment of a coupon that does not exist.
    pub fn unknown_coupon() -> Self {
        Self {
            verdict: Verdict::Ineligible,
            failures: vec![Failure::CouponUnknown],
            discount_minor: None,
        }
    }

    /// Returns whether the user is a target: nothing fails, though a cart may still decide.
    pub fn is_target(&self) -> bool {
        self.failures.is_empty()
    }

    /// Returns whether the user would be a target if they were not held out.
    pub fn is_held_out_target(&self) -> bool {
        self.failures == [Failure::HeldOut]
    }
}

/// Returns every reason why the user cannot have the coupon at this moment, and the discount on the cart.
///
/// Source: docs/formulas.md, "Coupons".
pub fn assess(input: &AssessmentInput<'_>, policy: &Policy) -> Assessment {
    let mut failures = campaign_failures(input.usage.state, &input.usage.window, input.now);
    let cart = input.cart.map(|cart| CartFacts::new(input, cart));
    check_limits(input, cart.as_ref(), &mut failures);
    if !input.user.is_known {
        failures.push(Failure::UserUnknown);
    }
    // Ignores history left under the id of a user who no longer exists.
    let history = input.history.filter(|_| input.user.is_known);
    let may_profile = policy.privacy.allows(input.user.consents, Purpose::Profiling);
    let mut objections = Vec::new();
    for rule in 0..input.rules.len() {
        if input.rules.needs_history(rule) && !may_profile {
            objections.push(Failure::ProfilingObjected { rule });
        } else if let Err(seen) = input.rules.check(rule, &input.user.attributes, history, input.now) {
            failures.push(Failure::RuleFailed { rule, seen });
        }
    }
    match &cart {
        // The shop may sell a named item that the catalog does not have, so that a cart with it qualifies all the same.
        Some(cart) => check_cart(input.offer, cart, &mut failures),
        None if input.is_scope_empty => failures.push(Failure::EmptyScope),
        None => {}
    }
    failures.extend(exclusive_conflict(input));
    if !policy.privacy.allows(input.user.consents, Purpose::Marketing) {
        let is_refused = input.user.consents.record(Purpose::Marketing) == Some(false);
        failures.push(Failure::NoMarketingConsent { is_refused });
    }
    failures.append(&mut objections);
    if input.user.consents.is_suppressed() {
        failures.push(Failure::Suppressed);
    }
    failures.extend(frequency_cap(input, policy));
    let holdout = &input.offer.campaign.holdout;
    // Most campaigns have no holdout, and then the hash is not computed.
    if holdout.basis_points > 0 && is_held_out(&holdout.salt, &input.user.id, holdout.basis_points) {
        failures.push(Failure::HeldOut);
    }
    failures.extend(already_applied(cart.as_ref()));
    let verdict = match (failures.is_empty(), &cart) {
        (false, _) => Verdict::Ineligible,
        (true, None) if needs_cart(input.offer) => Verdict::Indeterminate,
        (true, _) => Verdict::Eligible,
    };
    Assessment {
        verdict,
        discount_minor: cart
            .filter(|_| verdict == Verdict::Eligible)
            .map(|cart| cart.discount_minor),
        failures,
    }
}

/// Returns whether `offer` cannot be assessed without a view: a rule looks at the history, or the covered lines of the cart
/// depend on facts about its items.
pub fn needs_view(offer: &Offer, cart: Option<&Cart>) -> bool {
    offer.coupon.rules.iter().any(Rule::needs_history) || cart.is_some() && covers_by_facts(offer)
}

/// Returns whether the covered lines of a cart depend on facts about its items.
pub fn covers_by_facts(offer: &Offer) -> bool {
    offer.merchant().is_some()
        || matches!(&offer.coupon.scope, Scope::Listed(set) if !set.categories.is_empty() || !set.merchants.is_empty())
}

/// Returns whether a cart decides; it does not if every cart qualifies.
fn needs_cart(offer: &Offer) -> bool {
    offer.coupon.scope != Scope::All || offer.merchant().is_some() || offer.coupon.min_cart_minor > 0
}

/// Returns why a campaign in this state and with this window gives no coupons at this moment; nothing if it does.
pub fn campaign_failures(state: CampaignState, window: &Window, now: Timestamp) -> Vec<Failure> {
    let mut failures = Vec::new();
    let starts_at = window.starts_at;
    match state {
        CampaignState::Draft => failures.push(Failure::CampaignDraft),
        CampaignState::Scheduled | CampaignState::Active | CampaignState::Paused if now < starts_at => {
            failures.push(Failure::CampaignNotStarted { starts_at, now });
        }
        CampaignState::Scheduled | CampaignState::Active | CampaignState::Paused | CampaignState::Ended => {}
    }
    if state == CampaignState::Ended || now >= window.ends_at {
        let ends_at = window.ends_at;
        failures.push(Failure::CampaignEnded { ends_at, now });
    }
    if state == CampaignState::Paused {
        failures.push(Failure::CampaignPaused);
    }
    failures
}
