//! The input of training.

use std::collections::BTreeMap;

use chrono::Duration;

use crate::snapshot::bits::Bits;
use crate::snapshot::catalog::Catalog;
use crate::snapshot::consents::ConsentRecords;
use crate::snapshot::dictionary::{Dictionary, ItemIndex, UserIndex};
use domain::campaign::Window;
use domain::id::CampaignId;
use domain::returns::{Purchase, Return, settle, share};
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
    /// One event per distinct order of a (user, item), in any order.
    pub orders: Vec<OrderEvent>,
    /// Lines without quantity that tell of a coupon, in any order. They are no purchases.
    pub coupon_uses: Vec<CouponUseEvent>,
    /// The returns of items, in any order.
    pub returns: Vec<ReturnEvent>,
    /// The users' consents. The other fields hold no data of users who refused training.
    pub consents: ConsentRecords,
    /// In any order.
    pub campaigns: Vec<CampaignHistory>,
    /// When the data was read.
    pub as_of: Timestamp,
}

impl TrainingInput {
    /// Returns the end of the known data: one second after the last order, return or redemption, but not after the data was
    /// read. Returns `None` without any of these.
    pub fn known_until(&self) -> Option<Timestamp> {
        let orders = self.orders.iter().map(|event| event.ordered_at);
        let returns = self.returns.iter().map(|event| event.returned_at);
        let campaigns = self.campaigns.iter();
        let redemptions = campaigns.flat_map(|campaign| campaign.redemptions.iter().map(|event| event.redeemed_at));
        let last = orders.chain(returns).chain(redemptions).max()?;
        Some((last + Duration::seconds(1)).min(self.as_of))
    }

    /// Counts the returns that `keep` admits by their user, item and time against the orders that it admits.
    ///
    /// Takes time O(orders of users with such returns), and hardly any where there are none.
    pub fn settle(&self, keep: impl Fn(UserIndex, ItemIndex, Timestamp) -> bool) -> SettledOrders {
        let mut settled = SettledOrders {
            gone: Bits::zeros(self.orders.len()),
            refunds: Vec::new(),
        };
        let mut pairs: BTreeMap<(UserIndex, ItemIndex), ReturnedPair> = BTreeMap::new();
        let mut have_returns = Bits::zeros(self.users.len());
        for (event, position) in self.returns.iter().zip(0..) {
            if keep(event.user, event.item, event.returned_at) {
                have_returns.set(event.user.at(), true);
                pairs
                    .entry((event.user, event.item))
                    .or_default()
                    .returns
                    .push(position);
            }
        }
        if pairs.is_empty() {
            return settled;
        }
        for (event, position) in self.orders.iter().zip(0..) {
            if have_returns.get(event.user.at())
                && keep(event.user, event.item, event.ordered_at)
                && let Some(pair) = pairs.get_mut(&(event.user, event.item))
            {
                pair.orders.push(position);
            }
        }
        for (&(user, _), pair) in &mut pairs {
            pair.settle(self, user, &mut settled);
        }
        settled
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

/// An order that holds the item, before later returns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OrderEvent {
    pub user: UserIndex,
    pub item: ItemIndex,
    pub ordered_at: Timestamp,
    /// Above 0.
    pub quantity: i64,
    /// The sum of the line totals in minor units, whatever the currency.
    pub total_minor: i64,
    /// The number of lines with a coupon discount.
    pub discounted_lines: u32,
}

/// A return of the item, later than the order in the same document, or under a document of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReturnEvent {
    pub user: UserIndex,
    pub item: ItemIndex,
    pub returned_at: Timestamp,
    /// The returned quantity, above 0.
    pub quantity: i64,
    /// The sum of the line totals in minor units, whatever the currency; below 0 for a refund.
    pub total_minor: i64,
    /// The position in [`TrainingInput::orders`] of the order in the same document, if there is one.
    pub order: Option<u32>,
}

/// The orders at a moment, after the returns until then.
#[derive(Debug, Clone, PartialEq)]
pub struct SettledOrders {
    /// One bit per order of the input, set if nothing is left of it.
    gone: Bits,
    /// The users with refunds and the amounts in minor units, ascending by user.
    refunds: Vec<(UserIndex, i64)>,
}

impl SettledOrders {
    /// Returns whether something is left of order number `order` of the input.
    pub fn stands(&self, order: usize) -> bool {
        !self.gone.get(order)
    }

    /// Returns users and what they were refunded, in minor units, mostly below 0: a user may have several refunds. A return
    /// that was larger than what it could take back counts in proportion.
    pub fn refunds(&self) -> &[(UserIndex, i64)] {
        &self.refunds
    }
}

/// The orders and returns of one user and item, by their positions in the input.
#[derive(Debug, Default)]
struct ReturnedPair {
    orders: Vec<u32>,
    returns: Vec<u32>,
}

impl ReturnedPair {
    /// Adds the outcome for this pair to `settled`.
    fn settle(&mut self, input: &TrainingInput, user: UserIndex, settled: &mut SettledOrders) {
        let order = |position: u32| &input.orders[position as usize];
        let event = |position: u32| &input.returns[position as usize];
        // Whatever equal events differ in decides between them, so that the outcome does not depend on how they are given.
        self.orders.sort_by_key(|&position| {
            let order = order(position);
            (
                order.ordered_at,
                order.quantity,
                order.total_minor,
                order.discounted_lines,
            )
        });
        self.returns.sort_by_key(|&position| {
            let event = event(position);
            (event.returned_at, event.quantity, event.total_minor)
        });
        let purchases: Vec<Purchase> = self
            .orders
            .iter()
            .map(|&position| Purchase {
                at: order(position).ordered_at,
                quantity: order(position).quantity,
            })
            .collect();
        let returns: Vec<Return> = self
            .returns
            .iter()
            .map(|&position| Return {
                at: event(position).returned_at,
                quantity: event(position).quantity,
                purchase: event(position)
                    .order
                    .and_then(|own| self.orders.iter().position(|&order| order == own)),
            })
            .collect();
        let outcome = settle(&purchases, &returns);
        for (&position, left) in self.orders.iter().zip(outcome.left) {
            settled.gone.set(position as usize, left == 0);
        }
        for (&position, taken) in self.returns.iter().zip(outcome.taken) {
            let event = event(position);
            let refund = share(event.total_minor.into(), taken, event.quantity);
            // A share of an amount is within its range.
            settled
                .refunds
                .push((user, i64::try_from(refund).unwrap_or(event.total_minor)));
        }
    }
}
