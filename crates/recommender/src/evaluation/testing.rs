//! A shop with a history, for tests.

use chrono::Duration;

use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::training::input::{OrderEvent, TrainingInput};
use crate::training::testing::{input, order};

/// The number of users of [`tastes`].
pub const N_USERS: u32 = 120;
/// The number of items of [`tastes`].
pub const N_ITEMS: u32 = 49;

/// Returns a shop with four tastes of twelve items each, and item 48, which everybody buys first.
///
/// User u has taste u mod 4 and then orders ten items of it, one every ten hours, starting from a different one than other
/// users of the same taste. Their last two items are ordered from hour 90 on.
pub fn tastes() -> TrainingInput {
    let mut orders = Vec::new();
    for user in 0..N_USERS {
        let (taste, first) = (user % 4, user / 4);
        orders.push(order(user, 48, user % 10));
        for nth in 0..10 {
            // The order of the twelve items differs between users of the same taste.
            let step = [1, 5, 7, 11][(user / 48) as usize % 4];
            let item = 12 * taste + (first + nth * step) % 12;
            orders.push(order(user, item, 10 * (nth + 1) + user % 10));
        }
    }
    input(N_USERS as usize, N_ITEMS as usize, &[], &orders)
}

/// Returns two shops in one database, both as [`tastes`], whose records have years between them. The users and items of the later
/// shop come after those of the earlier one.
pub fn tastes_of_two_shops() -> TrainingInput {
    let earlier = tastes().orders;
    let later = earlier.iter().map(|event| OrderEvent {
        user: UserIndex(event.user.0 + N_USERS),
        item: ItemIndex(event.item.0 + N_ITEMS),
        ordered_at: event.ordered_at + Duration::days(2_000),
        ..*event
    });
    let orders: Vec<OrderEvent> = earlier.iter().copied().chain(later).collect();
    input(2 * N_USERS as usize, 2 * N_ITEMS as usize, &[], &orders)
}
