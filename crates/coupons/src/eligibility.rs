//! May this user have this coupon now, and if not, why? One evaluator for every RPC: facts in, verdict out.

#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use domain::campaign::{Audience, CampaignState, Window};
use domain::consent::{Consents, PrivacyOptions, Purpose};
use domain::coupon::{Cart, Rule, Scope};
use domain::id::{CampaignId, CouponId, UserId};
use domain::money::Currency;
use domain::time::Timestamp;
use recommender::snapshot::view::View;

use super::cart::{Covered, covered_lines, discount_minor};
use super::holdout::is_held_out;
use super::offer_catalog::Offer;
use super::options::CouponOptions;
use super::rules::{CompiledRules, History, Seen};

/// What holds for all users and coupons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub privacy: PrivacyOptions,
    /// Most coupons a user is offered in the exposure window; `None`: without limit.
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

/// What is known of a user, for every coupon the same.
#[derive(Debug, Clone, PartialEq)]
pub struct UserFacts {
    pub id: UserId,
    /// Whether the user exists at all.
    pub is_known: bool,
    pub consents: Consents,
    /// Name and value, ascending by name.
    pub attributes: Vec<(String, String)>,
    /// Coupons that the user was offered, in either arm, within the exposure window.
    pub recent_exposures: Vec<CouponId>,
    /// Coupons that are set aside for the user and have not expired, with their campaigns.
    pub reserved: Vec<(CouponId, CampaignId)>,
}

/// What changes with every redemption, for one user and one coupon.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    pub state: CampaignState,
    pub window: Window,
    pub limit_minor: Option<i64>,
    pub reserved_minor: i64,
    pub spent_minor: i64,
    pub total_cap: Option<i64>,
    pub reserved: i64,
    pub redeemed: i64,
    /// Whether the user is assigned to the campaign.
    pub is_assigned: bool,
    pub user_reserved: i64,
    pub user_redeemed: i64,
}

/// Why a user cannot have a coupon.
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
    /// `rule`: position among the coupon's rules.
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
    CurrencyMismatch {
        required: Currency,
        seen: Currency,
    },
    /// `with`: `None` when the reader may not know which.
    ExclusiveConflict {
        with: Option<CouponId>,
    },
    NoMarketingConsent {
        is_refused: bool,
    },
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
}

/// A failure without what was seen; in the order in which reasons are given.
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
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Eligible,
    Ineligible,
    /// Nothing fails, but the cart decides and was not given.
    Indeterminate,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Assessment {
    pub verdict: Verdict,
    /// Every failing one, in the order of the codes.
    pub failures: Vec<Failure>,
    /// What it takes off the cart; `None` without a cart, and where the verdict is not [`Verdict::Eligible`].
    pub discount_minor: Option<i64>,
}

/// Who reads an assessment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Sees who is held out.
    Operator,
    /// For whom the coupon is just not offered to those who are held out, so that control groups stay clean.
    Other,
    /// Acts for one merchant: as [`Self::Other`], and is not told which items the user has bought, nor which coupons they
    /// have reserved, for they may be another merchant's.
    Merchant,
}

/// Everything that decides about one user and one coupon.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    pub offer: &'a Offer,
    pub rules: &'a CompiledRules<'a>,
    pub user: &'a UserFacts,
    pub usage: &'a Usage,
    /// What the user did; `None` while no snapshot is loaded, when nothing that [`needs_view`] may be asked about.
    pub history: Option<&'a History<'a>>,
    /// For the facts of the items in the cart.
    pub view: Option<&'a View>,
    pub cart: Option<&'a Cart>,
    /// Of the coupons that are applied in the cart or reserved for the user, where they are known.
    pub others: &'a [Arc<Offer>],
    pub now: Timestamp,
}

impl Assessment {
    /// Of a coupon that there is not.
    pub fn unknown_coupon() -> Self {
        Self {
            verdict: Verdict::Ineligible,
            failures: vec![Failure::CouponUnknown],
            discount_minor: None,
        }
    }

    /// As `reader` may see it.
    pub fn for_reader(mut self, reader: Reader) -> Self {
        match reader {
            Reader::Operator => {}
            Reader::Other => self.hide_holdout(),
            Reader::Merchant => {
                self.hide_holdout();
                self.hide_names();
            }
        }
        self
    }

    fn hide_holdout(&mut self) {
        let before = self.failures.len();
        self.failures.retain(|failure| *failure != Failure::HeldOut);
        if self.failures.len() < before && !self.failures.contains(&Failure::NotAssigned) {
            let position = self
                .failures
                .partition_point(|failure| failure.code() < Code::NotAssigned);
            self.failures.insert(position, Failure::NotAssigned);
        }
    }

    fn hide_names(&mut self) {
        for failure in &mut self.failures {
            match failure {
                Failure::ExclusiveConflict { with } => *with = None,
                Failure::RuleFailed {
                    seen: Seen::Bought { item },
                    ..
                } => *item = None,
                _ => {}
            }
        }
    }

    /// Whether the user belongs to those who should get the coupon: nothing fails, though a cart may decide yet.
    pub fn is_target(&self) -> bool {
        self.failures.is_empty()
    }

    /// Whether nothing keeps the user from it but being held out.
    pub fn is_held_out_target(&self) -> bool {
        self.failures == [Failure::HeldOut]
    }
}

/// Every reason why the user cannot have the coupon at this moment, and what it would take off the cart.
///
/// Source: design of eligibility in ARCHITECTURE.md, "Coupons".
pub fn assess(facts: &Facts<'_>, policy: &Policy) -> Assessment {
    let mut failures = campaign_failures(facts.usage.state, &facts.usage.window, facts.now);
    let cart = facts.cart.map(|cart| look_into(facts, cart));
    check_limits(facts, cart.as_ref(), &mut failures);
    if !facts.user.is_known {
        failures.push(Failure::UserUnknown);
    }
    // What anybody once did under this id says nothing of a user that there is not.
    let history = facts.history.filter(|_| facts.user.is_known);
    let may_profile = policy.privacy.allows(facts.user.consents, Purpose::Profiling);
    let mut objections = Vec::new();
    for rule in 0..facts.rules.len() {
        if facts.rules.needs_history(rule) && !may_profile {
            objections.push(Failure::ProfilingObjected { rule });
        } else if let Err(seen) = facts.rules.check(rule, &facts.user.attributes, history, facts.now) {
            failures.push(Failure::RuleFailed { rule, seen });
        }
    }
    if let Some(cart) = &cart {
        check_cart(facts.offer, cart, &mut failures);
    }
    failures.extend(exclusive_conflict(facts));
    if !policy.privacy.allows(facts.user.consents, Purpose::Marketing) {
        let is_refused = facts.user.consents.record(Purpose::Marketing) == Some(false);
        failures.push(Failure::NoMarketingConsent { is_refused });
    }
    failures.append(&mut objections);
    if facts.user.consents.is_suppressed() {
        failures.push(Failure::Suppressed);
    }
    failures.extend(frequency_cap(facts, policy));
    let holdout = &facts.offer.campaign.holdout;
    // Most campaigns hold nobody out: spare the hash.
    if holdout.basis_points > 0 && is_held_out(&holdout.salt, &facts.user.id, holdout.basis_points) {
        failures.push(Failure::HeldOut);
    }
    let verdict = match (failures.is_empty(), &cart) {
        (false, _) => Verdict::Ineligible,
        (true, None) if needs_cart(facts.offer) => Verdict::Indeterminate,
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

/// Whether nothing can be said about `offer` without a view: a rule looks at the history, or what is covered of the cart
/// depends on facts of its items.
pub fn needs_view(offer: &Offer, cart: Option<&Cart>) -> bool {
    let covers_by_facts = offer.merchant().is_some()
        || matches!(&offer.coupon.scope, Scope::Listed(set) if !set.categories.is_empty() || !set.merchants.is_empty());
    offer.coupon.rules.iter().any(Rule::needs_history) || cart.is_some() && covers_by_facts
}

/// Whether a cart decides: not where any will do.
fn needs_cart(offer: &Offer) -> bool {
    offer.coupon.scope != Scope::All || offer.merchant().is_some() || offer.coupon.min_cart_minor > 0
}

/// Why a campaign in this state and with this window gives nothing at this moment; empty when it does.
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

/// What a cart comes to.
struct CartFacts {
    currency: Currency,
    covered: Covered,
    /// 0 in another currency, whose amounts say nothing.
    discount_minor: i64,
}

fn look_into(facts: &Facts<'_>, cart: &Cart) -> CartFacts {
    let covered = covered_lines(facts.offer, cart, facts.view);
    let is_comparable = cart.currency == facts.offer.campaign.currency && covered.lines > 0;
    CartFacts {
        currency: cart.currency,
        covered,
        discount_minor: match is_comparable {
            true => discount_minor(facts.offer, cart, covered),
            false => 0,
        },
    }
}

fn check_cart(offer: &Offer, cart: &CartFacts, failures: &mut Vec<Failure>) {
    let (currency, required_minor) = (offer.campaign.currency, offer.coupon.min_cart_minor);
    if cart.currency == currency && cart.covered.total_minor < required_minor {
        failures.push(Failure::MinCartNotMet {
            required_minor,
            seen_minor: cart.covered.total_minor,
            currency,
        });
    }
    if cart.covered.lines == 0 {
        failures.push(Failure::NoQualifyingItem);
    }
    if cart.currency != currency {
        failures.push(Failure::CurrencyMismatch {
            required: currency,
            seen: cart.currency,
        });
    }
}

fn check_limits(facts: &Facts<'_>, cart: Option<&CartFacts>, failures: &mut Vec<Failure>) {
    let usage = facts.usage;
    if let Some(limit_minor) = usage.limit_minor {
        let left_minor = limit_minor - usage.reserved_minor - usage.spent_minor;
        // Something has to be left in any case, so that no cart makes eligible who is not without one.
        let needed_minor = cart.map_or(1, |cart| cart.discount_minor.max(1));
        if left_minor < needed_minor {
            failures.push(Failure::BudgetExhausted {
                needed_minor,
                left_minor,
                currency: facts.offer.campaign.currency,
            });
        }
    }
    let (reserved, redeemed) = (usage.reserved, usage.redeemed);
    if let Some(cap) = usage.total_cap
        && reserved + redeemed >= cap
    {
        failures.push(Failure::TotalCapReached {
            cap,
            reserved,
            redeemed,
        });
    }
    let (reserved, redeemed) = (usage.user_reserved, usage.user_redeemed);
    match facts.offer.campaign.audience {
        Audience::Assigned if !usage.is_assigned => failures.push(Failure::NotAssigned),
        // An assignment is good for one redemption.
        Audience::Assigned if redeemed >= 1 => failures.push(Failure::AlreadyRedeemed),
        Audience::Assigned if reserved >= 1 => {
            failures.push(Failure::UserCapReached {
                cap: 1,
                reserved,
                redeemed,
            });
        }
        Audience::Assigned => {}
        Audience::Everybody => {
            if let Some(cap) = facts.offer.coupon.per_user_cap.map(i64::from)
                && reserved + redeemed >= cap
            {
                failures.push(Failure::UserCapReached {
                    cap,
                    reserved,
                    redeemed,
                });
            }
        }
    }
}

/// A coupon of another campaign that is applied or reserved, if either of the two stands alone. An applied one of which
/// nothing is known conflicts with nothing.
fn exclusive_conflict(facts: &Facts<'_>) -> Option<Failure> {
    let own = &facts.offer.campaign;
    let known = |coupon: &CouponId| facts.others.iter().find(|other| other.coupon.id == *coupon);
    let applied = facts.cart.iter().flat_map(|cart| &cart.applied);
    let applied = applied.map(|coupon| (coupon, known(coupon).map(|other| &other.campaign.id)));
    let reserved = facts.user.reserved.iter();
    let reserved = reserved.map(|(coupon, campaign)| (coupon, Some(campaign)));
    let (with, _) = applied.chain(reserved).find(|(coupon, campaign)| {
        campaign.is_some_and(|campaign| *campaign != own.id)
            && (own.is_exclusive || known(coupon).is_some_and(|other| other.campaign.is_exclusive))
    })?;
    let with = Some(with.clone());
    Some(Failure::ExclusiveConflict { with })
}

/// A coupon that the user was offered already is no further one.
fn frequency_cap(facts: &Facts<'_>, policy: &Policy) -> Option<Failure> {
    let max = policy.max_exposures?;
    let exposed = &facts.user.recent_exposures;
    let seen = u32::try_from(exposed.len()).unwrap_or(u32::MAX);
    (seen >= max && !exposed.contains(&facts.offer.coupon.id)).then_some(Failure::FrequencyCapped {
        max,
        seen,
        days: policy.exposure_window_days,
    })
}
