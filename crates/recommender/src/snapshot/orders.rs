//! The orders behind a snapshot: how often each user has ordered an item, and how lately.

use super::dictionary::ItemIndex;

/// Orders by user and item, and by item. An order of an item is one order, whatever its quantity, that was not returned.
#[derive(Debug, Clone, PartialEq)]
pub struct Orders {
    /// The time of the newest order, from which ages are counted, in seconds since 1970. It stays fixed until the next
    /// snapshot.
    pub newest_at: i64,
    /// h: an order of this age counts half. Above 0.
    pub half_life_days: f64,
    /// Where the bought items of each user begin in `counts` and `recent`: m + 1.
    pub offsets: Vec<u64>,
    /// For every purchased entry of the ratings, in their order: the number of orders, at least 1.
    pub counts: Vec<u32>,
    /// For the same entries: Σ 2^(−age/h) over these orders.
    pub recent: Vec<f32>,
    pub items: ItemOrders,
}

/// Sums over the orders of each of n items.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ItemOrders {
    pub orders: Vec<u32>,
    /// Σ 2^(−age/h) over the item's orders.
    pub recent: Vec<f32>,
    /// Users with at least one order of the item.
    pub buyers: Vec<u32>,
    /// Users with at least two orders of the item.
    pub repeat_buyers: Vec<u32>,
}

/// The sums of one item, or what one user adds to them.
///
/// `recent` is kept in a fixed number of binary places, so that sums are the same in whatever order changes are added to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OrderSums {
    pub orders: i64,
    recent: i128,
    pub buyers: i64,
    pub repeat_buyers: i64,
}

impl Orders {
    /// Returns the positions of the user's bought items in `counts` and `recent`.
    pub fn row_range(&self, user: usize) -> std::ops::Range<usize> {
        self.offsets[user] as usize..self.offsets[user + 1] as usize
    }

    /// Returns the sums of an item.
    pub fn of_item(&self, item: ItemIndex) -> OrderSums {
        let at = item.at();
        OrderSums {
            orders: i64::from(self.items.orders[at]),
            recent: OrderSums::fixed(f64::from(self.items.recent[at])),
            buyers: i64::from(self.items.buyers[at]),
            repeat_buyers: i64::from(self.items.repeat_buyers[at]),
        }
    }

    /// Returns what `count` orders of one user add to the sums of their item. `recent`: Σ 2^(−age/h) over them.
    pub fn of_pair(count: u32, recent: f64) -> OrderSums {
        OrderSums {
            orders: i64::from(count),
            recent: OrderSums::fixed(recent),
            buyers: i64::from(count >= 1),
            repeat_buyers: i64::from(count >= 2),
        }
    }

    /// Returns Σ 2^(−age/h) over orders at these times, in seconds since 1970. Orders newer than the snapshot have a negative
    /// age and count more than 1.
    pub fn recent_of(&self, times: &[i64]) -> f64 {
        let of_order = |&at: &i64| decayed(at, self.newest_at, self.half_life_days);
        times.iter().map(of_order).sum()
    }
}

/// Returns 2^(−age/h) of an order at `at` as of `newest_at`, both in seconds since 1970, at most 2³².
pub fn decayed(at: i64, newest_at: i64, half_life_days: f64) -> f64 {
    const SECONDS_PER_DAY: f64 = 86_400.0;
    let age_days = newest_at.saturating_sub(at) as f64 / SECONDS_PER_DAY;
    (-age_days / half_life_days).min(32.0).exp2()
}

impl OrderSums {
    const PLACES: f64 = (1_u64 << 40) as f64;

    fn fixed(recent: f64) -> i128 {
        (recent * Self::PLACES).round() as i128
    }

    /// Returns Σ 2^(−age/h), at least 0.
    pub fn recent(&self) -> f64 {
        self.recent.max(0) as f64 / Self::PLACES
    }

    /// Returns these sums after a user's part has changed from `before` to `after`.
    pub fn changed(self, before: Self, after: Self) -> Self {
        Self {
            orders: self.orders - before.orders + after.orders,
            recent: self.recent - before.recent + after.recent,
            buyers: self.buyers - before.buyers + after.buyers,
            repeat_buyers: self.repeat_buyers - before.repeat_buyers + after.repeat_buyers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_counts_half_after_the_half_life() {
        let day = 86_400;
        let check = |at, expected: f64| assert!((decayed(at, 100 * day, 7.0) - expected).abs() < 1e-12, "{at}");
        check(100 * day, 1.0);
        check(93 * day, 0.5);
        check(86 * day, 0.25);
        // Newer than the snapshot.
        check(107 * day, 2.0);
        check(i64::MAX, f64::from(u32::MAX) + 1.0);
        check(i64::MIN, 0.0);
    }

    #[test]
    fn changes_of_a_users_part_change_the_sums_and_undo_each_other() {
        let of_item = OrderSums {
            orders: 7,
            recent: OrderSums::fixed(2.5),
            buyers: 3,
            repeat_buyers: 2,
        };
        let (none, one, two) = (
            Orders::of_pair(0, 0.0),
            Orders::of_pair(1, 0.3),
            Orders::of_pair(2, 1.3),
        );
        let changed = of_item.changed(one, two);
        assert_eq!((changed.orders, changed.buyers, changed.repeat_buyers), (8, 3, 3));
        assert!((changed.recent() - 3.5).abs() < 1e-9);
        assert_eq!(changed.changed(two, one), of_item);
        let returned = of_item.changed(one, none);
        assert_eq!((returned.orders, returned.buyers, returned.repeat_buyers), (6, 2, 2));
    }
}
