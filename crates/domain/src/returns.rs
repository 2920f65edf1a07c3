//! Counts returns against purchases.
//!
//! Many shops write a return as a document of its own, days after the order and without a reference to it. It takes back
//! what the same user bought of the item, the newest purchase first. Every reader of purchases asks [`settle`] what is left.

use std::collections::BTreeMap;

use super::time::Timestamp;

/// The part of an order by which one user bought one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purchase {
    pub at: Timestamp,
    /// Above 0.
    pub quantity: i64,
}

/// The part of a document by which one user returned one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Return {
    pub at: Timestamp,
    /// The returned quantity, above 0.
    pub quantity: i64,
    /// The position of the purchase in the same document, if it has one.
    pub purchase: Option<usize>,
}

/// The outcome of [`settle`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The quantity that is left of each purchase, from 0 to its quantity.
    pub left: Vec<i64>,
    /// The quantity that each return took back, from 0 to its quantity.
    pub taken: Vec<i64>,
}

/// Counts the returns of one item by one user against their purchases of it.
///
/// A return takes back first what its own document holds. Its rest takes back purchases that were made before it or at the
/// same instant, the newest first; of equally new ones the one that is given last. Returns follow one another by time, equal
/// ones as they are given. Where a return is larger than all that it can take back, 0 is left.
///
/// To know what was left at an earlier time, leave out the purchases and returns after it.
///
/// Takes time O(n log n + n · the purchases that are used up before a return meets its own).
pub fn settle(purchases: &[Purchase], returns: &[Return]) -> Settled {
    let mut left: Vec<i64> = purchases.iter().map(|purchase| purchase.quantity).collect();
    let mut taken = vec![0; returns.len()];
    let take = |purchase: &mut i64, taken: &mut i64, quantity: i64| {
        let taken_now = (*purchase).min(quantity - *taken);
        *purchase -= taken_now;
        *taken += taken_now;
    };
    for (event, taken) in returns.iter().zip(&mut taken) {
        if let Some(purchase) = event.purchase {
            take(&mut left[purchase], taken, event.quantity);
        }
    }
    let mut by_time: Vec<usize> = (0..purchases.len()).collect();
    by_time.sort_by_key(|&purchase| purchases[purchase].at);
    let mut in_order: Vec<usize> = (0..returns.len()).collect();
    in_order.sort_by_key(|&event| returns[event].at);

    // The purchases until now of which something is left, oldest first.
    let mut open: Vec<usize> = Vec::new();
    let mut later = by_time.into_iter().peekable();
    for event in in_order {
        let Return { at, quantity, .. } = returns[event];
        while let Some(purchase) = later.next_if(|&purchase| purchases[purchase].at <= at) {
            open.push(purchase);
        }
        while taken[event] < quantity
            && let Some(&newest) = open.last()
        {
            take(&mut left[newest], &mut taken[event], quantity);
            if left[newest] == 0 {
                open.pop();
            }
        }
    }
    Settled { left, taken }
}

/// One order line of one item of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemLine<'a> {
    pub order: &'a str,
    pub at: Timestamp,
    /// Not 0; negative for a return.
    pub quantity: i64,
    /// The total of the line in minor units; negative for a refund.
    pub total_minor: i64,
}

/// One order of an item by a user, after returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemOrder<'a> {
    pub order: &'a str,
    /// The time of the first line that bought the item.
    pub at: Timestamp,
    /// The quantity that is left, 0 or more.
    pub left: i64,
}

/// The orders of an item by a user, and what they paid.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ItemHistory<'a> {
    /// Ascending by time, then order. An order of which nothing is left is among them.
    pub orders: Vec<ItemOrder<'a>>,
    /// The totals of the purchases less the refunds, in minor units. A return that was larger than what it could take back
    /// counts in proportion.
    pub paid_minor: i128,
}

impl<'a> ItemHistory<'a> {
    /// Settles `lines`, all the order lines of one item by one user, in any order.
    pub fn new(lines: impl IntoIterator<Item = ItemLine<'a>>) -> Self {
        let mut bought: BTreeMap<&str, (Timestamp, i64)> = BTreeMap::new();
        let mut returned: BTreeMap<(&str, Timestamp), (i64, i128)> = BTreeMap::new();
        let mut paid_minor = 0;
        for line in lines {
            if line.quantity > 0 {
                let (at, quantity) = bought.entry(line.order).or_insert((line.at, 0));
                *at = line.at.min(*at);
                *quantity += line.quantity;
                paid_minor += i128::from(line.total_minor);
            } else {
                let (quantity, total_minor) = returned.entry((line.order, line.at)).or_default();
                *quantity -= line.quantity;
                *total_minor += i128::from(line.total_minor);
            }
        }
        let mut orders: Vec<ItemOrder<'a>> = bought
            .into_iter()
            .map(|(order, (at, left))| ItemOrder { order, at, left })
            .collect();
        orders.sort_by_key(|order| (order.at, order.order));
        let positions: BTreeMap<&str, usize> = orders.iter().map(|order| order.order).zip(0..).collect();
        let purchases: Vec<Purchase> = orders
            .iter()
            .map(|order| Purchase {
                at: order.at,
                quantity: order.left,
            })
            .collect();
        let returns: Vec<Return> = returned
            .iter()
            .map(|(&(order, at), &(quantity, _))| Return {
                at,
                quantity,
                purchase: positions.get(order).copied(),
            })
            .collect();
        let settled = settle(&purchases, &returns);
        for (order, left) in orders.iter_mut().zip(settled.left) {
            order.left = left;
        }
        for (&(quantity, total_minor), taken) in returned.values().zip(settled.taken) {
            paid_minor += share(total_minor, taken, quantity);
        }
        Self { orders, paid_minor }
    }

    /// Returns the orders of which something is left.
    pub fn standing(&self) -> impl Iterator<Item = &ItemOrder<'a>> {
        self.orders.iter().filter(|order| order.left > 0)
    }
}

/// Returns the share of the total of a return that belongs to the quantity `taken` of `quantity`.
pub fn share(total_minor: i128, taken: i64, quantity: i64) -> i128 {
    if taken == quantity {
        return total_minor;
    }
    total_minor * i128::from(taken) / i128::from(quantity)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    /// `purchases`: time and quantity. `returns`: time, quantity and the position of the purchase in the same document.
    fn settled(purchases: &[(i64, i64)], returns: &[(i64, i64, Option<usize>)]) -> Settled {
        let purchases = purchases.iter().map(|&(second, quantity)| Purchase {
            at: at(second),
            quantity,
        });
        let returns = returns.iter().map(|&(second, quantity, purchase)| Return {
            at: at(second),
            quantity,
            purchase,
        });
        settle(&purchases.collect::<Vec<_>>(), &returns.collect::<Vec<_>>())
    }

    #[test]
    fn a_return_takes_back_earlier_purchases_the_newest_first() {
        let check = |purchases: &[(i64, i64)], returns: &[(i64, i64, Option<usize>)], left: &[i64], taken: &[i64]| {
            let expected = Settled {
                left: left.to_vec(),
                taken: taken.to_vec(),
            };
            assert_eq!(settled(purchases, returns), expected, "{purchases:?} {returns:?}");
        };
        check(&[], &[], &[], &[]);
        check(&[(1, 5)], &[], &[5], &[]);
        check(&[(1, 5)], &[(2, 2, None)], &[3], &[2]);
        check(&[(1, 5), (2, 5)], &[(3, 2, None)], &[5, 3], &[2]);
        check(&[(2, 5), (1, 5)], &[(3, 6, None)], &[0, 4], &[6]);
        // The purchase at the same instant is before the return, the later one is not.
        check(&[(1, 5), (2, 5), (3, 5)], &[(2, 7, None)], &[3, 0, 5], &[7]);
        // More cannot be returned than was bought, neither at once nor by and by.
        check(&[(1, 2)], &[(2, 9, None)], &[0], &[2]);
        check(&[(2, 2)], &[(1, 9, None)], &[2], &[0]);
        check(&[(1, 2), (4, 1)], &[(3, 1, None), (2, 2, None)], &[0, 1], &[0, 2]);
        // A return in the document of the purchase takes back that one first, also when it is given as the earlier one.
        check(&[(1, 5), (2, 5)], &[(3, 2, Some(0))], &[3, 5], &[2]);
        check(&[(1, 5), (2, 5)], &[(3, 7, Some(0))], &[0, 3], &[7]);
        check(&[(2, 5)], &[(1, 7, Some(0))], &[0], &[5]);
        check(&[(1, 1), (2, 1)], &[(3, 1, None), (4, 1, Some(1))], &[0, 0], &[1, 1]);
    }

    #[test]
    fn lines_of_an_order_are_one_purchase_and_refunds_count_as_far_as_they_take_back() {
        let line = |order, second, quantity, total_minor| ItemLine {
            order,
            at: at(second),
            quantity,
            total_minor,
        };
        let check = |lines: &[ItemLine<'static>], expected: &[(&str, i64, i64)], paid_minor: i128| {
            for lines in [lines.to_vec(), lines.iter().rev().copied().collect()] {
                let found = ItemHistory::new(lines);
                let orders: Vec<_> = found
                    .orders
                    .iter()
                    .map(|order| (order.order, order.at.timestamp(), order.left))
                    .collect();
                assert_eq!((&*orders, found.paid_minor), (expected, paid_minor));
                let standing = expected.iter().filter(|&&(_, _, left)| left > 0).count();
                assert_eq!(found.standing().count(), standing);
            }
        };
        check(&[], &[], 0);
        check(
            &[line("o", 5, 1, 100), line("o", 4, 2, 150), line("n", 4, 1, 90)],
            &[("n", 4, 1), ("o", 4, 3)],
            340,
        );
        check(&[line("o", 1, 2, 200), line("C", 3, -1, -100)], &[("o", 1, 1)], 100);
        check(&[line("o", 1, 2, 200), line("C", 3, -4, -400)], &[("o", 1, 0)], 0);
        check(
            &[line("o", 1, 2, 200), line("p", 2, 2, 180), line("o", 3, -2, -200)],
            &[("o", 1, 0), ("p", 2, 2)],
            180,
        );
        check(&[line("C", 3, -4, -400)], &[], 0);
        check(
            &[
                line("o", 1, i32::MAX.into(), i64::MAX),
                line("C", 3, i32::MIN.into(), i64::MIN),
            ],
            &[("o", 1, 0)],
            i128::from(i64::MAX) - (1 << 63) + (1 << 32),
        );
    }

    /// Does what [`settle`] does, one piece at a time.
    fn plain(purchases: &[(i64, i64)], returns: &[(i64, i64, Option<usize>)]) -> Settled {
        let mut left: Vec<i64> = purchases.iter().map(|&(_, quantity)| quantity).collect();
        let mut taken = vec![0; returns.len()];
        for (event, &(_, quantity, own)) in returns.iter().enumerate() {
            for _ in 0..quantity {
                if let Some(own) = own.filter(|&own| left[own] > 0) {
                    left[own] -= 1;
                    taken[event] += 1;
                }
            }
        }
        let mut in_order: Vec<usize> = (0..returns.len()).collect();
        in_order.sort_by_key(|&event| (returns[event].0, event));
        for event in in_order {
            let (time, quantity, _) = returns[event];
            while taken[event] < quantity {
                let before = (0..purchases.len()).filter(|&at| purchases[at].0 <= time && left[at] > 0);
                let Some(newest) = before.max_by_key(|&at| (purchases[at].0, at)) else {
                    break;
                };
                left[newest] -= 1;
                taken[event] += 1;
            }
        }
        Settled { left, taken }
    }

    proptest! {
        #[test]
        fn settling_agrees_with_taking_back_piece_by_piece(
            purchases in vec((0_i64..8, 1_i64..5), 0..6),
            returns in vec((0_i64..8, 1_i64..7, 0_usize..9), 0..6),
        ) {
            // Most returns have no purchase of their own.
            let returns: Vec<_> = returns
                .into_iter()
                .map(|(at, quantity, own)| (at, quantity, Some(own).filter(|&own| own < purchases.len())))
                .collect();
            let found = settled(&purchases, &returns);
            prop_assert_eq!(found.taken.iter().sum::<i64>() + found.left.iter().sum::<i64>(),
                purchases.iter().map(|&(_, quantity)| quantity).sum::<i64>());
            prop_assert_eq!(found, plain(&purchases, &returns));
        }

        #[test]
        fn later_returns_never_give_back_what_earlier_ones_took(
            purchases in vec((0_i64..8, 1_i64..5), 0..6),
            returns in vec((0_i64..16, 1_i64..7), 0..6),
        ) {
            let until = |cut: i64| {
                let returns: Vec<_> =
                    returns.iter().filter(|&&(at, _)| at < cut).map(|&(at, quantity)| (at, quantity, None)).collect();
                settled(&purchases, &returns).left
            };
            for cut in 0..16 {
                prop_assert!(until(cut).iter().zip(until(cut + 1)).all(|(&before, after)| after <= before));
            }
        }
    }
}
