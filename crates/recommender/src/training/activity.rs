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

/// Returns when the `users` of a snapshot last bought something from each merchant that they have not returned.
pub fn merchant_orders(input: &TrainingInput, users: &Dictionary<UserIndex>) -> MerchantOrders {
    let rows: Vec<Option<UserIndex>> = input.users.texts().iter().map(|id| users.find(id)).collect();
    let settled = input.settle(|_, _, _| true);
    let mut last: HashMap<(u32, u32), i64> = HashMap::new();
    for (_, event) in input
        .orders
        .iter()
        .enumerate()
        .filter(|&(order, _)| settled.stands(order))
    {
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
/// Orders of a user at the same instant count as one; of an order, something must be left after the returns before `before`. A
/// campaign counts from its start.
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
    let settled = input.settle(|user, _, at| rows[user.at()].is_some() && at < before);
    for &(user, refund_minor) in settled.refunds() {
        if let Some(user) = rows[user.at()] {
            let spend_minor = &mut activity.spend_minor[user.at()];
            *spend_minor = spend_minor.saturating_add(refund_minor);
        }
    }
    for (order, event) in input.orders.iter().enumerate() {
        let Some(user) = rows[event.user.at()].filter(|_| event.ordered_at < before) else {
            continue;
        };
        let spend_minor = &mut activity.spend_minor[user.at()];
        *spend_minor = spend_minor.saturating_add(event.total_minor);
        if !settled.stands(order) {
            continue;
        }
        let ordered_at = event.ordered_at.timestamp();
        activity.orders[user.at()] += u32::from(seen.insert((user, event.ordered_at)));
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

#[cfg(test)]
mod tests {
    use super::super::input::ReturnEvent;
    use super::super::testing::{at, input, order, returned};
    use super::*;

    #[test]
    fn returns_take_back_orders_and_what_was_paid_for_them() {
        let mut input = input(2, 2, &[], &[order(0, 0, 1), order(0, 1, 2), order(1, 0, 3)]);
        input.returns = vec![
            returned(0, 1, 5),
            // Twice what was bought: half of the refund is for something else.
            ReturnEvent {
                quantity: 2,
                total_minor: -160,
                ..returned(1, 0, 6)
            },
        ];
        let check = |before, orders: [u32; 2], spend_minor: [i64; 2], last_hour: [u32; 2]| {
            let rows: Vec<_> = (0..2).map(|user| Some(UserIndex(user))).collect();
            let found = activity_before(&input, &rows, 2, at(before));
            let last_order_at = last_hour.map(|hour| at(hour).timestamp());
            assert_eq!((&*found.orders, &*found.spend_minor), (&orders[..], &spend_minor[..]));
            assert_eq!(found.last_order_at, last_order_at);
        };
        check(5, [2, 1], [200, 100], [2, 3]);
        check(6, [1, 1], [100, 100], [1, 3]);
        check(7, [1, 0], [100, 20], [1, 0]);
        assert_eq!(input.known_until(), Some(at(6) + chrono::Duration::seconds(1)));
    }
}
