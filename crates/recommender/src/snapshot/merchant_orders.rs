//! The time of each user's last order from each merchant.

/// For each of m users, the merchants that they have bought from. A merchant is that of the item in the snapshot's catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct MerchantOrders {
    /// m + 1, never falling, from 0 to the number of entries.
    pub(in crate::snapshot) offsets: Vec<u64>,
    /// Positions in the merchants of the catalog, strictly ascending for each user.
    pub(in crate::snapshot) merchants: Vec<u32>,
    /// One an entry, in seconds since 1970.
    pub(in crate::snapshot) last_order_at: Vec<i64>,
}

impl MerchantOrders {
    /// `orders`: user below `m`, merchant and time of the last order, strictly ascending by user and merchant.
    pub fn new(m: usize, orders: &[(u32, u32, i64)]) -> Self {
        let mut offsets = vec![0; m + 1];
        for &(user, _, _) in orders {
            offsets[user as usize + 1] += 1;
        }
        for user in 0..m {
            offsets[user + 1] += offsets[user];
        }
        Self {
            offsets,
            merchants: orders.iter().map(|&(_, merchant, _)| merchant).collect(),
            last_order_at: orders.iter().map(|&(_, _, at)| at).collect(),
        }
    }

    /// Returns the time of the last order of `user`, below m, from `merchant`, a position in the merchants of the catalog.
    pub fn last_order_at(&self, user: usize, merchant: usize) -> Option<i64> {
        let row = self.offsets[user] as usize..self.offsets[user + 1] as usize;
        let merchant = u32::try_from(merchant).ok()?;
        let position = self.merchants[row.clone()].binary_search(&merchant).ok()?;
        Some(self.last_order_at[row.start + position])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_orders_are_found_by_user_and_merchant() {
        let orders = MerchantOrders::new(4, &[(0, 1, 10), (0, 3, -5), (2, 0, 7)]);
        let check = |user, merchant, expected| {
            assert_eq!(orders.last_order_at(user, merchant), expected, "{user} {merchant}");
        };
        check(0, 1, Some(10));
        check(0, 3, Some(-5));
        check(0, 0, None);
        check(0, 2, None);
        check(1, 1, None);
        check(2, 0, Some(7));
        check(3, 0, None);
        assert_eq!(MerchantOrders::new(1, &[]).last_order_at(0, 0), None);
    }
}
