//! The texts of failures for people: what would be right, and what was seen.

use chrono::SecondsFormat;

use domain::coupon::{ItemSet, Rule};
use domain::money::{Currency, Money};
use domain::time::Timestamp;

use super::{Code, Failure};
use crate::offer_catalog::Offer;
use crate::rules::Seen;
use crate::visibility::history_of;

/// The most names of a set that a text spells out.
const MAX_NAMES: usize = 3;

impl Code {
    pub const ALL: [Self; 22] = [
        Self::CouponUnknown,
        Self::CampaignDraft,
        Self::CampaignNotStarted,
        Self::CampaignEnded,
        Self::CampaignPaused,
        Self::BudgetExhausted,
        Self::TotalCapReached,
        Self::UserCapReached,
        Self::AlreadyRedeemed,
        Self::NotAssigned,
        Self::UserUnknown,
        Self::RuleFailed,
        Self::MinCartNotMet,
        Self::NoQualifyingItem,
        Self::CurrencyMismatch,
        Self::ExclusiveConflict,
        Self::NoMarketingConsent,
        Self::ProfilingObjected,
        Self::Suppressed,
        Self::FrequencyCapped,
        Self::HeldOut,
        Self::AlreadyApplied,
    ];

    /// Returns the stable name in upper snake case, by which programs may decide.
    pub fn name(self) -> &'static str {
        match self {
            Self::CouponUnknown => "COUPON_UNKNOWN",
            Self::CampaignDraft => "CAMPAIGN_DRAFT",
            Self::CampaignNotStarted => "CAMPAIGN_NOT_STARTED",
            Self::CampaignEnded => "CAMPAIGN_ENDED",
            Self::CampaignPaused => "CAMPAIGN_PAUSED",
            Self::BudgetExhausted => "BUDGET_EXHAUSTED",
            Self::TotalCapReached => "TOTAL_CAP_REACHED",
            Self::UserCapReached => "USER_CAP_REACHED",
            Self::AlreadyRedeemed => "ALREADY_REDEEMED",
            Self::NotAssigned => "NOT_ASSIGNED",
            Self::UserUnknown => "USER_UNKNOWN",
            Self::RuleFailed => "RULE_FAILED",
            Self::MinCartNotMet => "MIN_CART_NOT_MET",
            Self::NoQualifyingItem => "NO_QUALIFYING_ITEM",
            Self::CurrencyMismatch => "CURRENCY_MISMATCH",
            Self::ExclusiveConflict => "EXCLUSIVE_CONFLICT",
            Self::NoMarketingConsent => "NO_MARKETING_CONSENT",
            Self::ProfilingObjected => "PROFILING_OBJECTED",
            Self::Suppressed => "SUPPRESSED",
            Self::FrequencyCapped => "FREQUENCY_CAPPED",
            Self::HeldOut => "HELD_OUT",
            Self::AlreadyApplied => "ALREADY_APPLIED",
        }
    }

    /// Returns whether only a cart can cause the failure, unless the coupon covers no item at all. A budget may be too small for a
    /// cart, but also be used up.
    pub fn needs_cart(self) -> bool {
        matches!(
            self,
            Self::MinCartNotMet | Self::NoQualifyingItem | Self::CurrencyMismatch | Self::AlreadyApplied
        )
    }
}

impl Failure {
    pub fn code(&self) -> Code {
        match self {
            Self::CouponUnknown => Code::CouponUnknown,
            Self::CampaignDraft => Code::CampaignDraft,
            Self::CampaignNotStarted { .. } => Code::CampaignNotStarted,
            Self::CampaignEnded { .. } => Code::CampaignEnded,
            Self::CampaignPaused => Code::CampaignPaused,
            Self::BudgetExhausted { .. } => Code::BudgetExhausted,
            Self::TotalCapReached { .. } => Code::TotalCapReached,
            Self::UserCapReached { .. } => Code::UserCapReached,
            Self::AlreadyRedeemed => Code::AlreadyRedeemed,
            Self::NotAssigned => Code::NotAssigned,
            Self::UserUnknown => Code::UserUnknown,
            Self::RuleFailed { .. } => Code::RuleFailed,
            Self::MinCartNotMet { .. } => Code::MinCartNotMet,
            Self::NoQualifyingItem | Self::EmptyScope => Code::NoQualifyingItem,
            Self::CurrencyMismatch { .. } => Code::CurrencyMismatch,
            Self::ExclusiveConflict { .. } => Code::ExclusiveConflict,
            Self::NoMarketingConsent { .. } => Code::NoMarketingConsent,
            Self::ProfilingObjected { .. } => Code::ProfilingObjected,
            Self::Suppressed => Code::Suppressed,
            Self::FrequencyCapped { .. } => Code::FrequencyCapped,
            Self::HeldOut => Code::HeldOut,
            Self::AlreadyApplied => Code::AlreadyApplied,
        }
    }

    /// Returns what would be right. `offer`: the one that was assessed, `None` for a coupon that does not exist.
    pub fn required(&self, offer: Option<&Offer>) -> String {
        match self {
            Self::CouponUnknown => "an existing coupon".to_owned(),
            Self::CampaignDraft => "a campaign that has been scheduled or activated".to_owned(),
            Self::CampaignNotStarted { starts_at, .. } => format!("from {} on", time(*starts_at)),
            Self::CampaignEnded { ends_at, now } if now < ends_at => "a campaign that has not been ended".to_owned(),
            Self::CampaignEnded { ends_at, .. } => format!("before {}", time(*ends_at)),
            Self::CampaignPaused => "a campaign that is not paused".to_owned(),
            Self::BudgetExhausted {
                needed_minor, currency, ..
            } => format!("at least {} left of the budget", money(*needed_minor, *currency)),
            Self::TotalCapReached { cap, .. } => format!("fewer than {cap} redemptions by all users"),
            Self::UserCapReached { cap, .. } => format!("fewer than {cap} redemptions by this user"),
            Self::AlreadyRedeemed => "an assignment that has not been redeemed".to_owned(),
            Self::NotAssigned | Self::HeldOut => "a user to whom the coupon is offered".to_owned(),
            Self::UserUnknown => "an existing user".to_owned(),
            Self::RuleFailed { rule, .. } | Self::ProfilingObjected { rule } => {
                let merchant = offer.and_then(history_of);
                let rule = offer.and_then(|offer| offer.coupon.rules.get(*rule));
                rule.map_or_else(String::new, |rule| wanted(rule, merchant))
            }
            Self::MinCartNotMet {
                required_minor,
                currency,
                ..
            } => format!("at least {} of covered items", money(*required_minor, *currency)),
            Self::NoQualifyingItem => "an item that the coupon covers".to_owned(),
            Self::EmptyScope => "a coupon that covers an item of the catalog".to_owned(),
            Self::CurrencyMismatch { required, .. } => format!("a cart in {required}"),
            Self::ExclusiveConflict { .. } => "no coupon of another campaign together with an exclusive one".to_owned(),
            Self::NoMarketingConsent { .. } => "consent to marketing".to_owned(),
            Self::Suppressed => "a user who is not suppressed".to_owned(),
            Self::FrequencyCapped { max, days, .. } => format!("fewer than {max} coupons offered in {days} days"),
            Self::AlreadyApplied => "a coupon that is not applied to the cart".to_owned(),
        }
    }

    /// Returns what was seen.
    pub fn seen(&self) -> String {
        match self {
            Self::CouponUnknown => "no such coupon".to_owned(),
            Self::CampaignDraft => "a draft".to_owned(),
            Self::CampaignEnded { ends_at, now } if now < ends_at => "ended before the end of its window".to_owned(),
            Self::CampaignNotStarted { now, .. } | Self::CampaignEnded { now, .. } => format!("it is {}", time(*now)),
            Self::CampaignPaused => "paused".to_owned(),
            Self::BudgetExhausted {
                left_minor, currency, ..
            } => format!("{} left", money(*left_minor, *currency)),
            Self::TotalCapReached { reserved, redeemed, .. } | Self::UserCapReached { reserved, redeemed, .. } => {
                format!("{redeemed} redeemed and {reserved} reserved")
            }
            Self::AlreadyRedeemed => "redeemed".to_owned(),
            Self::NotAssigned => "not offered to this user".to_owned(),
            Self::UserUnknown => "no such user".to_owned(),
            Self::RuleFailed { seen, .. } => found(seen),
            Self::MinCartNotMet {
                seen_minor, currency, ..
            } => money(*seen_minor, *currency),
            Self::NoQualifyingItem => "the cart does not qualify: it holds no covered item".to_owned(),
            Self::EmptyScope => "the coupon covers no item".to_owned(),
            Self::CurrencyMismatch { seen, .. } => format!("a cart in {seen}"),
            Self::ExclusiveConflict { with, .. } => format!("coupon {with} is in use"),
            Self::NoMarketingConsent { is_refused: true } => "the user has opted out".to_owned(),
            Self::NoMarketingConsent { is_refused: false } => "no consent on record".to_owned(),
            Self::ProfilingObjected { .. } => "the user does not allow the use of their history".to_owned(),
            Self::Suppressed => "the user is suppressed".to_owned(),
            Self::FrequencyCapped { seen, .. } => format!("{seen} offered"),
            Self::HeldOut => "held out".to_owned(),
            Self::AlreadyApplied => "applied already".to_owned(),
        }
    }
}

fn time(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn money(amount_minor: i64, currency: Currency) -> String {
    Money { amount_minor, currency }.to_string()
}

/// `merchant`: the only one whose items the rule sees, if any.
fn wanted(rule: &Rule, merchant: Option<&str>) -> String {
    let from = merchant.map_or_else(String::new, |merchant| format!(" from merchant {merchant}"));
    match rule {
        Rule::Bought(set) => format!("has bought {}", names(set)),
        Rule::NotBought(set) => format!("has not bought {}", names(set)),
        Rule::CategoryAffinity { category, min_share } => {
            format!("a share of at least {min_share} of category {category} in the history")
        }
        Rule::MinAffinity { min_score } => format!("an affinity of at least {min_score}"),
        Rule::NewUser => format!("has never bought anything{from}"),
        Rule::LapsedUser { days } => format!("has bought something{from}, but not for {days} days"),
        Rule::Attribute { name, values } => format!("{name} is {}", one_of(values.to_vec())),
    }
}

fn found(seen: &Seen) -> String {
    match seen {
        Seen::NoneBought => "bought none of them".to_owned(),
        Seen::Bought { item } => format!("bought {item}"),
        Seen::Share(share) => format!("a share of {share}"),
        Seen::Affinity(score) => format!("an affinity of {score}"),
        Seen::NeverBought => "has never bought anything".to_owned(),
        Seen::LastBought { at } => format!("last bought something at {}", time(*at)),
        Seen::Attribute(Some(value)) => value.clone(),
        Seen::Attribute(None) => "unknown".to_owned(),
        Seen::NotTrained => "not known until the next training".to_owned(),
        Seen::Hidden => "something else".to_owned(),
    }
}

fn names(set: &ItemSet) -> String {
    let items = set.items.iter().map(ToString::to_string);
    let categories = set
        .categories
        .iter()
        .map(|category| format!("an item in category {category}"));
    let merchants = set
        .merchants
        .iter()
        .map(|merchant| format!("an item of merchant {merchant}"));
    one_of(items.chain(categories).chain(merchants).collect())
}

/// Joins names by "or". It spells out the first [`MAX_NAMES`] and counts the others.
fn one_of(mut names: Vec<String>) -> String {
    let n_others = names.len().saturating_sub(MAX_NAMES);
    if n_others > 0 {
        names.truncate(MAX_NAMES);
        names.push(format!("{n_others} others"));
    }
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}
