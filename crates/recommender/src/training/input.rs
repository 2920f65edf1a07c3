//! The input of training.

use chrono::Duration;

use crate::snapshot::catalog::Catalog;
use crate::snapshot::consents::ConsentRecords;
use crate::snapshot::dictionary::{Dictionary, ItemIndex, UserIndex};
use domain::campaign::Window;
use domain::id::CampaignId;
use domain::time::Timestamp;

/// All data that a model is trained on: m users, n items.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingInput {
    /// All users, including those without a rating or a purchase.
    pub users: Dictionary<UserIndex>,
    /// All items of the catalog.
    pub items: Dictionary<ItemIndex>,
    /// The facts about the n items.
    pub catalog: Catalog,
    /// At most one rating per (user, item), in any order.
    pub ratings: Vec<RatingEvent>,
    /// One event per distinct order of a (user, item) with a net quantity above 0, in any order.
    pub orders: Vec<OrderEvent>,
    /// Lines without quantity that tell of a coupon, in any order. They are no purchases.
    pub coupon_uses: Vec<CouponUseEvent>,
    /// The users' consents. The other fields hold no data of users who refused training.
    pub consents: ConsentRecords,
    /// In any order.
    pub campaigns: Vec<CampaignHistory>,
    /// When the data was read.
    pub as_of: Timestamp,
}

impl TrainingInput {
    /// Returns the end of the known data: one second after the last order or redemption, but not after the data was read.
    /// Returns `None` without orders and redemptions.
    pub fn known_until(&self) -> Option<Timestamp> {
        let orders = self.orders.iter().map(|event| event.ordered_at);
        let campaigns = self.campaigns.iter();
        let redemptions = campaigns.flat_map(|campaign| campaign.redemptions.iter().map(|event| event.redeemed_at));
        let last = orders.chain(redemptions).max()?;
        Some((last + Duration::seconds(1)).min(self.as_of))
    }
}

/// Lines of one user's order without quantity but with a coupon discount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CouponUseEvent {
    pub user: UserIndex,
    pub used_at: Timestamp,
    pub lines: u32,
}

/// The history of a campaign until now.
#[derive(Debug, Clone, PartialEq)]
pub struct CampaignHistory {
    pub id: CampaignId,
    pub window: Window,
    /// The items that its coupons cover, strictly ascending.
    pub items: Vec<ItemIndex>,
    /// The users whom it was offered to: assigned, or exposed and not held out. Strictly ascending.
    pub recipients: Vec<UserIndex>,
    /// One event per redemption that was not rolled back entirely, by recipients and others.
    pub redemptions: Vec<RedemptionEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedemptionEvent {
    pub user: UserIndex,
    pub redeemed_at: Timestamp,
}

/// An explicit rating.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RatingEvent {
    pub user: UserIndex,
    pub item: ItemIndex,
    /// Within the rating scale.
    pub value: f32,
    pub rated_at: Timestamp,
}

/// An order that holds the item, after all returns that are known now.
///
/// An order that was returned later is missing from the earlier part of an evaluation too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OrderEvent {
    pub user: UserIndex,
    pub item: ItemIndex,
    pub ordered_at: Timestamp,
    /// The sum of the line totals net of returns, in minor units, whatever the currency.
    pub total_minor: i64,
    /// The number of lines with a coupon discount.
    pub discounted_lines: u32,
}
