//! Decides what the rules of an offer see of a user, and what a reader sees of the facts that decided.
//!
//! A merchant must not learn what users do elsewhere. Two things keep it from that, and both are decided here:
//!
//! - In a merchant's campaign, rules about the history see the orders and ratings of that merchant's items only, unless an
//!   operator has let the campaign [see the whole platform](HistoryScope::Platform). It would not be enough to hide what a
//!   rule saw: whether it holds tells a threshold at a time.
//! - A reader who acts for one merchant is told only facts of that merchant. A failure that rests on others, such as a
//!   coupon of theirs that excludes this one, is told as "not offered to this user", which a holdout looks like too.
//!
//! Every place that tells something about a user asks here: eligibility, the counts and explanations of targets, and the
//! errors of reservations.

use domain::campaign::HistoryScope;
use domain::coupon::Rule;
use recommender::snapshot::propensity::Feature;

use super::eligibility::{Assessment, Code, Failure};
use super::offer_catalog::Offer;
use super::rules::Seen;

/// The reader of an assessment or an explanation, who decides what it may show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// Sees who is held out.
    Operator,
    /// Does not see who is held out: to this reader the coupon is just not offered, so that control groups stay clean.
    Other,
    /// Acts for one merchant, whose offers are all that it sees. In addition to [`Self::Other`], it sees of a user only what
    /// concerns that merchant.
    Merchant,
}

impl Reader {
    pub const ALL: [Self; 3] = [Self::Operator, Self::Other, Self::Merchant];

    fn sees_holdout(self) -> bool {
        match self {
            Self::Operator => true,
            Self::Other | Self::Merchant => false,
        }
    }

    fn sees_other_merchants(self) -> bool {
        match self {
            Self::Operator | Self::Other => true,
            Self::Merchant => false,
        }
    }
}

/// Returns the merchant to whose items the rules of `offer` about the history are limited; `None` if they see all items.
pub fn history_of(offer: &Offer) -> Option<&str> {
    match offer.campaign.history_scope {
        HistoryScope::OwnMerchant => offer.merchant(),
        HistoryScope::Platform => None,
    }
}

/// Returns `assessment`, of a user and `offer`, as `reader` may see it. Whether the user is eligible stays the same.
pub fn of_assessment(mut assessment: Assessment, reader: Reader, offer: Option<&Offer>) -> Assessment {
    let before = assessment.failures.len();
    assessment.failures.retain(|failure| is_told(failure, reader));
    if assessment.failures.len() < before && !assessment.failures.contains(&Failure::NotAssigned) {
        let is_earlier = |failure: &Failure| failure.code() < Code::NotAssigned;
        let position = assessment.failures.partition_point(is_earlier);
        assessment.failures.insert(position, Failure::NotAssigned);
    }
    for failure in &mut assessment.failures {
        if let Failure::RuleFailed { rule, seen } = failure
            && !is_seen_told(*rule, reader, offer)
        {
            *seen = Seen::Hidden;
        }
    }
    assessment
}

/// Returns whether `reader` is told of the failure at all. Otherwise it learns only that the coupon is not offered.
fn is_told(failure: &Failure, reader: Reader) -> bool {
    match failure {
        Failure::HeldOut => reader.sees_holdout(),
        // The conflict by itself tells that the user holds a coupon of somebody else.
        Failure::ExclusiveConflict { with_own_merchant, .. } => *with_own_merchant || reader.sees_other_merchants(),
        // It counts the offers of everybody.
        Failure::FrequencyCapped { .. } => reader.sees_other_merchants(),
        Failure::CouponUnknown
        | Failure::CampaignDraft
        | Failure::CampaignNotStarted { .. }
        | Failure::CampaignEnded { .. }
        | Failure::CampaignPaused
        | Failure::BudgetExhausted { .. }
        | Failure::TotalCapReached { .. }
        | Failure::UserCapReached { .. }
        | Failure::AlreadyRedeemed
        | Failure::NotAssigned
        | Failure::UserUnknown
        | Failure::RuleFailed { .. }
        | Failure::MinCartNotMet { .. }
        | Failure::NoQualifyingItem
        | Failure::EmptyScope
        | Failure::CurrencyMismatch { .. }
        | Failure::NoMarketingConsent { .. }
        | Failure::ProfilingObjected { .. }
        | Failure::Suppressed
        | Failure::AlreadyApplied => true,
    }
}

/// Returns the code under which `reader` finds a user with `failure` counted. The control group has its own name for every
/// reader, because a count does not say who belongs to it.
pub fn counted_as(failure: &Failure, reader: Reader) -> Code {
    match failure {
        Failure::HeldOut => Code::HeldOut,
        failure if is_told(failure, reader) => failure.code(),
        _ => Code::NotAssigned,
    }
}

/// Returns whether `reader` is told what rule number `rule` of `offer` saw.
fn is_seen_told(rule: usize, reader: Reader, offer: Option<&Offer>) -> bool {
    let sees_history = || offer.is_some_and(|offer| history_of(offer).is_some());
    let rule = offer.and_then(|offer| offer.coupon.rules.get(rule));
    reader.sees_other_merchants()
        || match rule {
            // Attributes belong to the platform.
            None | Some(Rule::Attribute { .. }) => false,
            Some(
                Rule::Bought(_)
                | Rule::NotBought(_)
                | Rule::CategoryAffinity { .. }
                | Rule::MinAffinity { .. }
                | Rule::NewUser
                | Rule::LapsedUser { .. },
            ) => sees_history(),
        }
}

/// Returns whether an explanation for `reader` of a score for `offer` may name an item of `merchant`.
pub fn is_item_named(reader: Reader, offer: &Offer, merchant: Option<&str>) -> bool {
    reader.sees_other_merchants() || merchant.is_some() && merchant == offer.merchant()
}

/// Returns whether an explanation for `reader` may show the value of a feature. A merchant's covered items are its own; all
/// other features are about the whole platform.
pub fn is_feature_named(reader: Reader, feature: Feature) -> bool {
    reader.sees_other_merchants()
        || match feature {
            Feature::Affinity | Feature::OwnPurchases => true,
            Feature::Redemptions
            | Feature::DiscountedLines
            | Feature::Orders
            | Feature::DaysSinceOrder
            | Feature::Spend => false,
        }
}
