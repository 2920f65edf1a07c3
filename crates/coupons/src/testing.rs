//! Campaigns and coupons for tests. A test changes the fields that it is about.

pub mod past;

use chrono::{TimeZone, Utc};

use domain::campaign::{Audience, Campaign, CampaignState, HistoryScope, Holdout, Window};
use domain::coupon::{Coupon, DEFAULT_RESERVATION_TTL_SECONDS, Discount, ItemSet, MinCartBasis, Scope};
use domain::id::{CampaignId, CouponId, ItemId};
use domain::money::Currency;
use domain::time::Timestamp;

/// Returns noon of a day of January 2025, which lies within the window of [`campaign`] from the 10th to the 19th.
pub fn noon(day: u32) -> Timestamp {
    Utc.with_ymd_and_hms(2025, 1, day, 12, 0, 0).unwrap()
}

/// Returns a campaign of the platform, active from noon of the 10th until noon of the 20th, without any limit.
pub fn campaign(id: &str) -> Campaign {
    Campaign {
        id: CampaignId::new(id).unwrap(),
        merchant: None,
        name: String::new(),
        state: CampaignState::Active,
        window: Window::new(noon(10), noon(20)).unwrap(),
        currency: Currency::new("USD").unwrap(),
        budget_limit_minor: None,
        priority: 0,
        is_exclusive: false,
        audience: Audience::Everybody,
        holdout: Holdout {
            basis_points: 0,
            salt: [7; 16],
        },
        history_scope: HistoryScope::OwnMerchant,
    }
}

/// Returns a coupon of campaign k that takes 1.00 off everything, without any limit.
pub fn coupon(id: &str) -> Coupon {
    Coupon {
        id: CouponId::new(id).unwrap(),
        campaign: CampaignId::new("k").unwrap(),
        title: String::new(),
        discount: Discount::Amount { amount_minor: 100 },
        max_discount_minor: None,
        min_cart_minor: 0,
        min_cart_basis: MinCartBasis::BeforeDiscounts,
        scope: Scope::All,
        per_user_cap: None,
        total_cap: None,
        reservation_ttl_seconds: DEFAULT_RESERVATION_TTL_SECONDS,
        rules: Vec::new(),
    }
}

/// Returns the scope of these items. `items`: ascending.
pub fn listed(items: &[&str]) -> Scope {
    Scope::Listed(item_set(items))
}

pub fn item_set(items: &[&str]) -> ItemSet {
    ItemSet {
        items: items.iter().map(|id| ItemId::new(id).unwrap()).collect(),
        ..ItemSet::default()
    }
}
