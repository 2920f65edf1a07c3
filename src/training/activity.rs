//! Orders and redemptions to figures of each user.

use std::collections::HashSet;

use crate::model::activity::Activity;
use crate::model::dictionary::{Dictionary, UserIndex};

use super::input::TrainingInput;

/// What the `users` of a snapshot have done until the input was read. Orders made at the same instant are one.
pub fn activity(input: &TrainingInput, users: &Dictionary<UserIndex>) -> Activity {
    let positions: Vec<Option<UserIndex>> = input.users.texts().iter().map(|id| users.find(id)).collect();
    let mut activity = Activity::none(users.len(), input.as_of.timestamp());
    let mut seen = HashSet::with_capacity(input.orders.len());
    for event in &input.orders {
        let Some(user) = positions[event.user.at()] else {
            continue;
        };
        let ordered_at = event.ordered_at.timestamp();
        activity.orders[user.at()] += u32::from(seen.insert((user, event.ordered_at)));
        activity.spend_minor[user.at()] = activity.spend_minor[user.at()].saturating_add(event.total_minor);
        activity.last_order_at[user.at()] = activity.last_order_at[user.at()].max(ordered_at);
        activity.discounted_lines[user.at()] += event.discounted_lines;
    }
    for campaign in &input.campaigns {
        for redemption in &campaign.redemptions {
            if let Some(user) = positions[redemption.user.at()] {
                activity.redemptions[user.at()] += 1;
            }
        }
        for recipient in &campaign.recipients {
            if let Some(user) = positions[recipient.at()] {
                activity.campaigns[user.at()] += 1;
            }
        }
    }
    activity
}
