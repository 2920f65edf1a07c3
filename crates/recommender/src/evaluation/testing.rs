//! A shop with a history, for tests.

use crate::training::input::TrainingInput;
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
