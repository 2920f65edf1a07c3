//! May this user have this coupon now, and if not, why? One evaluator for every RPC: facts in, verdict out.

use std::sync::Arc;

use crate::domain::consent::{Consents, PrivacyOptions};
use crate::domain::coupon::{CampaignState, Cart, Window};
use crate::domain::id::{CampaignId, CouponId, UserId};
use crate::domain::money::Currency;
use crate::domain::time::Timestamp;

use super::book::Offer;
use super::rules::History;

/// What holds for all users and coupons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub privacy: PrivacyOptions,
    /// Most coupons a user is offered in the exposure window; `None`: without limit.
    pub max_exposures: Option<u32>,
    pub exposure_window_days: u32,
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
    /// `rule`: position among the coupon's rules. `seen`: for people.
    RuleFailed {
        rule: usize,
        seen: String,
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
    ExclusiveConflict {
        with: CouponId,
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
}

/// Everything that decides about one user and one coupon.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    pub offer: &'a Offer,
    pub user: &'a UserFacts,
    pub usage: &'a Usage,
    /// What the user did; `None` while no snapshot is loaded, when no coupon with rules that need it may be asked about.
    pub history: Option<&'a History<'a>>,
    pub cart: Option<&'a Cart>,
    /// The offers of the coupons that are applied in the cart or reserved for the user, where they are known.
    pub others: &'a [Arc<Offer>],
    pub now: Timestamp,
}
