//! What a model is trained on.

use chrono::Duration;

use crate::snapshot::catalog::Catalog;
use crate::snapshot::consents::ConsentRecords;
use crate::snapshot::dictionary::{Dictionary, ItemIndex, UserIndex};
use domain::campaign::Window;
use domain::id::CampaignId;
use domain::time::Timestamp;

/// Everything the trainer has read. m users, n items.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingInput {
    /// All users, also those without a rating or a purchase.
    pub users: Dictionary<UserIndex>,
    /// All items of the catalog.
    pub items: Dictionary<ItemIndex>,
    /// n entries.
    pub catalog: Catalog,
    /// At most one a (user, item), in any order.
    pub ratings: Vec<RatingEvent>,
    /// One for each distinct order of a (user, item) with a net quantity above 0, in any order.
    pub orders: Vec<OrderEvent>,
    /// What users have said about the use of their data. Who has refused to be trained on is in none of the other fields.
    pub consents: ConsentRecords,
    /// In any order.
    pub campaigns: Vec<CampaignHistory>,
    /// When all this was read.
    pub as_of: Timestamp,
}

impl TrainingInput {
    /// What is known ends here: one second after the last order or redemption, at the latest when it was read. `None`
    /// without any.
    pub fn known_until(&self) -> Option<Timestamp> {
        let orders = self.orders.iter().map(|event| event.ordered_at);
        let campaigns = self.campaigns.iter();
        let redemptions = campaigns.flat_map(|campaign| campaign.redemptions.iter().map(|event| event.redeemed_at));
        let last = orders.chain(redemptions).max()?;
        Some((last + Duration::seconds(1)).min(self.as_of))
    }
}

/// What became of a campaign until now.
#[derive(Debug, Clone, PartialEq)]
pub struct CampaignHistory {
    pub id: CampaignId,
    pub window: Window,
    /// The items that its coupons cover, ascending, each once.
    pub items: Vec<ItemIndex>,
    /// Who it was offered to: assigned, or exposed and not held out. Ascending, each once.
    pub recipients: Vec<UserIndex>,
    /// One a redemption that was not given back as a whole; by anybody, recipient or not.
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

/// An order that holds the item, after all returns that are known now: one that was returned later is not seen by the part
/// of an evaluation that comes before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OrderEvent {
    pub user: UserIndex,
    pub item: ItemIndex,
    pub ordered_at: Timestamp,
    /// Sum of the line totals, returns taken off, in minor units of whatever currency.
    pub total_minor: i64,
    /// Lines on which a coupon took something off.
    pub discounted_lines: u32,
}
