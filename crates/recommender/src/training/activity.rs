//! Computes each user's activity from orders and redemptions.

use std::collections::{HashMap, HashSet};

use crate::snapshot::activity::Activity;
use crate::snapshot::catalog::NONE;
use crate::snapshot::dictionary::{Dictionary, UserIndex};
use crate::snapshot::merchant_orders::MerchantOrders;
use domain::time::Timestamp;

use super::input::TrainingInput;

/// Returns the activity of the `users` of a snapshot, up to the last event of anybody.
///
/// The figures do not depend on when the data was read.
pub fn activity(input: &TrainingInput, users: &Dictionary<UserIndex>) -> Activity {
    let rows: Vec<Option<UserIndex>> = input.users.texts().iter().map(|id| users.find(id)).collect();
    let figures = activity_before(input, &rows, users.len(), Timestamp::MAX_UTC);
    Activity {
        as_of: input.known_until().map_or(0, |until| until.timestamp()),
        ..figures
    }
}

/// Returns when the `users` of a snapshot last bought something from each merchant.
pub fn merchant_orders(input: &TrainingInput, users: &Dictionary<UserIndex>) -> MerchantOrders {
    let rows: Vec<Option<UserIndex>> = input.users.texts().iter().map(|id| users.find(id)).collect();
    let mut last: HashMap<(u32, u32), i64> = HashMap::new();
    for event in &input.orders {
        let merchant = input.catalog.merchant_of[event.item.at()];
        if let Some(user) = rows[event.user.at()]
            && merchant != NONE
        {
            let ordered_at = event.ordered_at.timestamp();
            let last = last.entry((user.0, merchant)).or_insert(ordered_at);
            *last = ordered_at.max(*last);
        }
    }
    let mut orders: Vec<(u32, u32, i64)> = last
        .into_iter()
        .map(|((user, merchant), at)| (user, merchant, at))
        .collect();
    orders.sort_unstable();
    MerchantOrders::new(users.len(), &orders)
}

/// Returns the activity of some users strictly before `before`.
///
/// Orders of a user at the same instant count as one. A campaign counts from its start.
///
/// `rows`: for each user of `input`, their row in the result, below `n_rows`, if they have one.
pub fn activity_before(
    input: &TrainingInput,
    rows: &[Option<UserIndex>],
    n_rows: usize,
    before: Timestamp,
) -> Activity {
    let mut activity = Activity::none(n_rows, before.timestamp());
    let mut seen = HashSet::new();
    for event in input.orders.iter().filter(|event| event.ordered_at < before) {
        let Some(user) = rows[event.user.at()] else {
            continue;
        };
        let ordered_at = event.ordered_at.timestamp();
        activity.orders[user.at()] += u32::from(seen.insert((user, event.ordered_at)));
        activity.spend_minor[user.at()] = activity.spend_minor[user.at()].saturating_add(event.total_minor);
        activity.last_order_at[user.at()] = activity.last_order_at[user.at()].max(ordered_at);
        activity.discounted_lines[user.at()] += event.discounted_lines;
    }
    for event in input.coupon_uses.iter().filter(|event| event.used_at < before) {
        if let Some(user) = rows[event.user.at()] {
            activity.discounted_lines[user.at()] += event.lines;
        }
    }
    for campaign in &input.campaigns {
        let past = campaign.redemptions.iter().filter(|event| event.redeemed_at < before);
        for redemption in past {
            if let Some(user) = rows[redemption.user.at()] {
                activity.redemptions[user.at()] += 1;
            }
        }
        let has_started = campaign.window.starts_at < before;
        for recipient in campaign.recipients.iter().filter(|_| has_started) {
            if let Some(user) = rows[recipient.at()] {
                activity.campaigns[user.at()] += 1;
            }
        }
    }
    activity
}
