//! Returned units, matched to the order lines that they came back from.

use std::collections::HashMap;

use super::history::{Return, Sale};

/// An order line as it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordedLine {
    /// Any number that tells users apart.
    pub user: i64,
    /// Dense index of the item.
    pub item: u32,
    /// Any number that tells orders apart.
    pub order: u64,
    /// Seconds since 1970.
    pub at: i64,
    /// Negative for a return.
    pub quantity: i32,
}

/// Returns the lines that sold something, and what came back of each.
///
/// A return is taken off lines of the same user and item that are not later than it: those of its own order first, then the
/// latest. Returned units that belong to no known line are left out.
///
/// `lines`: in any order; they are sorted. `week_of`: the week of a line, counted from the first week of the history; a line
/// without one is left out.
pub fn match_returns(
    lines: &mut [RecordedLine],
    week_of: impl Fn(&RecordedLine) -> Option<u16>,
) -> (Vec<Sale>, Vec<Return>) {
    lines.sort_unstable_by_key(|line| {
        (
            line.user,
            line.item,
            line.at,
            line.quantity < 0,
            line.order,
            line.quantity,
        )
    });
    let (mut sales, mut returns) = (Vec::new(), Vec::new());
    // The open sales of the present user and item: order, position among the sales, units that have not come back.
    let mut open: Vec<(u64, usize, u32)> = Vec::new();
    for pair in lines.chunk_by(|a, b| (a.user, a.item) == (b.user, b.item)) {
        open.clear();
        for line in pair {
            let Some(week) = week_of(line) else { continue };
            let units = line.quantity.unsigned_abs();
            if line.quantity > 0 {
                open.push((line.order, sales.len(), units));
                sales.push(Sale {
                    item: line.item,
                    week,
                    quantity: units as f32,
                });
            } else {
                take_back(&mut open, line.order, units, |sale, quantity| {
                    returns.push(Return { sale, week, quantity });
                });
            }
        }
    }
    in_canonical_order(sales, returns)
}

/// Orders sales by what they are, and not by whose they are, so that the same sales give the same bytes whatever numbers stand
/// for users and orders.
fn in_canonical_order(sales: Vec<Sale>, mut returns: Vec<Return>) -> (Vec<Sale>, Vec<Return>) {
    let units = |quantity: f32| quantity as u32;
    let mut came_back: HashMap<usize, Vec<(u16, u32)>> = HashMap::new();
    for returned in &returns {
        let of_sale = came_back.entry(returned.sale).or_default();
        of_sale.push((returned.week, units(returned.quantity)));
    }
    came_back.values_mut().for_each(|of_sale| of_sale.sort_unstable());
    let key = |sale: usize| {
        let Sale { item, week, quantity } = sales[sale];
        (item, week, units(quantity), came_back.get(&sale))
    };
    let mut order: Vec<usize> = (0..sales.len()).collect();
    order.sort_unstable_by(|&a, &b| key(a).cmp(&key(b)));
    let mut position = vec![0; sales.len()];
    for (to, &from) in order.iter().enumerate() {
        position[from] = to;
    }
    for returned in &mut returns {
        returned.sale = position[returned.sale];
    }
    returns.sort_unstable_by_key(|returned| (returned.sale, returned.week, units(returned.quantity)));
    (order.into_iter().map(|from| sales[from]).collect(), returns)
}

/// Takes `units` that came back in `order` off the open lines, and hands each line and its units to `take`.
fn take_back(open: &mut [(u64, usize, u32)], of_order: u64, mut units: u32, mut take: impl FnMut(usize, f32)) {
    for is_own_order in [true, false] {
        for (order, sale, left) in open.iter_mut().rev() {
            let taken = units.min(*left);
            if taken > 0 && (*order == of_order) == is_own_order {
                *left -= taken;
                units -= taken;
                take(*sale, taken as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(user: i64, order: u64, week: u16, quantity: i32) -> RecordedLine {
        RecordedLine {
            user,
            item: 0,
            order,
            at: i64::from(week) * 604_800,
            quantity,
        }
    }

    #[test]
    fn returns_come_off_their_order_then_off_the_latest_lines() {
        let check = |mut lines: Vec<RecordedLine>, expected: &[(u16, u16, f32)]| {
            let (sales, returns) = match_returns(&mut lines, |line| u16::try_from(line.at / 604_800).ok());
            let found: Vec<_> = returns
                .iter()
                .map(|returned| (sales[returned.sale].week, returned.week, returned.quantity))
                .collect();
            assert_eq!(found, expected);
        };
        // (week of the sale, week of the return, units)
        check(
            vec![line(1, 7, 0, 5), line(1, 8, 1, 5), line(1, 7, 2, -3)],
            &[(0, 2, 3.0)],
        );
        check(
            vec![line(1, 7, 0, 5), line(1, 8, 1, 5), line(1, 9, 2, -7)],
            &[(0, 2, 2.0), (1, 2, 5.0)],
        );
        check(
            vec![line(1, 7, 0, 5), line(1, 7, 1, -2), line(1, 7, 2, -9)],
            &[(0, 1, 2.0), (0, 2, 3.0)],
        );
        // Nothing was bought before, or somebody else has bought it.
        check(vec![line(1, 7, 3, 5), line(1, 7, 2, -3), line(2, 8, 4, -1)], &[]);
    }
}
