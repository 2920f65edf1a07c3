//! The sales of every item by week.

use rayon::prelude::*;

/// Days before 1970-01-01, a Thursday, on which the ISO week of that day began.
const DAYS_INTO_WEEK_OF_1970: i64 = 3;

/// Shortest series that a forecast rests on; shorter ones are preceded by zeros.
pub const MIN_WEEKS: usize = 14;

/// Most items that parameters are fitted on: more would only take longer.
const MAX_FITTED_ITEMS: usize = 50_000;

/// Returns the days from 1970-01-01 to the Monday of `week`, a week as [`iso_week`] counts them.
pub fn monday_of(week: i64) -> i64 {
    week * 7 - DAYS_INTO_WEEK_OF_1970
}

/// Returns the ISO week, in UTC, of the day that is `days` after 1970-01-01, counted from that day's own week.
pub fn iso_week(days: i64) -> i64 {
    (days + DAYS_INTO_WEEK_OF_1970).div_euclid(7)
}

/// An order line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sale {
    /// Dense index of the item.
    pub item: u32,
    /// The week, counted from the first week of the history.
    pub week: u16,
    /// Units, above 0.
    pub quantity: f32,
}

/// Units of an order line that came back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Return {
    /// Position of the line among the sales.
    pub sale: usize,
    /// The week in which they came back, not before that of the sale.
    pub week: u16,
    /// Units, above 0.
    pub quantity: f32,
}

/// A week in which an item could not be bought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StockOut {
    pub item: u32,
    pub week: u16,
}

/// Why sales are not a history.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HistoryError {
    #[error("sale {position} is of item {item}, but there are {n_items} items")]
    Item { position: usize, item: u32, n_items: usize },
    #[error("{what} {position} is in week {week}, but the history has {n_weeks} weeks")]
    Week {
        what: &'static str,
        position: usize,
        week: u16,
        n_weeks: usize,
    },
    #[error("{what} {position} has the quantity {quantity}, which must be finite and above 0")]
    Quantity {
        what: &'static str,
        position: usize,
        quantity: f32,
    },
    #[error("return {position} is of sale {sale}, but there are {n_sales} sales")]
    Sale {
        position: usize,
        sale: usize,
        n_sales: usize,
    },
}

/// A column of a stored history that does not fit the others.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {0} of the sales do not fit the rest")]
pub struct ColumnsError(pub &'static str);

/// The columns of a [`SalesHistory`], each as the function of the same name describes it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SalesColumns {
    pub offsets: Vec<usize>,
    pub weeks: Vec<u16>,
    pub quantities: Vec<f32>,
    pub returns: Vec<Return>,
    pub stock_outs: Vec<StockOut>,
}

/// The order lines of n items over w weeks, by item and week.
#[derive(Debug, Clone, PartialEq)]
pub struct SalesHistory {
    n_weeks: usize,
    /// The lines of item i stand at `offsets[i]..offsets[i + 1]`, by week.
    offsets: Vec<usize>,
    weeks: Vec<u16>,
    quantities: Vec<f32>,
    /// By position of the line, then week.
    returns: Vec<Return>,
    /// Ascending.
    stock_outs: Vec<StockOut>,
}

impl SalesHistory {
    /// Sorts `sales` by item and week, and attaches `returns` to them.
    ///
    /// `stock_outs`: weeks without stock, in which no sale tells nothing of the demand.
    ///
    /// # Errors
    /// [`HistoryError`] names the first entry that is out of range.
    pub fn new(
        n_items: usize,
        n_weeks: usize,
        sales: &[Sale],
        returns: &[Return],
        mut stock_outs: Vec<StockOut>,
    ) -> Result<Self, HistoryError> {
        check(n_items, n_weeks, sales, returns)?;
        let mut order: Vec<usize> = (0..sales.len()).collect();
        order.sort_by_key(|&at| (sales[at].item, sales[at].week));
        let mut position_of = vec![0; sales.len()];
        let mut offsets = vec![0; n_items + 1];
        for (position, &at) in order.iter().enumerate() {
            position_of[at] = position;
            offsets[sales[at].item as usize + 1] += 1;
        }
        for item in 0..n_items {
            offsets[item + 1] += offsets[item];
        }
        let mut returns: Vec<Return> = returns
            .iter()
            .map(|&returned| Return {
                sale: position_of[returned.sale],
                ..returned
            })
            .collect();
        returns.sort_by_key(|returned| (returned.sale, returned.week));
        stock_outs.sort_unstable();
        stock_outs.dedup();
        Ok(Self {
            n_weeks,
            offsets,
            weeks: order.iter().map(|&at| sales[at].week).collect(),
            quantities: order.iter().map(|&at| sales[at].quantity).collect(),
            returns,
            stock_outs,
        })
    }

    /// Makes a history of stored columns.
    ///
    /// # Errors
    /// [`ColumnsError`] says which column does not fit.
    pub fn from_columns(n_weeks: usize, columns: SalesColumns) -> Result<Self, ColumnsError> {
        let SalesColumns {
            offsets,
            weeks,
            quantities,
            returns,
            stock_outs,
        } = columns;
        let n_lines = weeks.len();
        let is_quantity = |quantity: f32| quantity.is_finite() && quantity > 0.0;
        let is_week = |week: u16| usize::from(week) < n_weeks;
        let n_items = offsets.len().checked_sub(1).ok_or(ColumnsError("offsets"))?;
        if offsets[0] != 0 || !offsets.is_sorted() || offsets[n_items] != n_lines {
            return Err(ColumnsError("offsets"));
        }
        let are_ascending = offsets.windows(2).all(|pair| weeks[pair[0]..pair[1]].is_sorted());
        if !are_ascending || !weeks.iter().all(|&week| is_week(week)) {
            return Err(ColumnsError("weeks"));
        }
        if quantities.len() != n_lines || !quantities.iter().all(|&quantity| is_quantity(quantity)) {
            return Err(ColumnsError("quantities"));
        }
        let fits =
            |returned: &Return| returned.sale < n_lines && is_week(returned.week) && is_quantity(returned.quantity);
        if !returns.iter().all(fits) || !returns.is_sorted_by_key(|returned| (returned.sale, returned.week)) {
            return Err(ColumnsError("returns"));
        }
        let fits = |out: &StockOut| (out.item as usize) < n_items;
        if !stock_outs.iter().all(fits) || !stock_outs.is_sorted() {
            return Err(ColumnsError("stock-outs"));
        }
        Ok(Self {
            n_weeks,
            offsets,
            weeks,
            quantities,
            returns,
            stock_outs,
        })
    }

    /// Returns the number of the first line of each item; the end of the last item stands at the end.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// Returns the week of every line, by item, then ascending.
    pub fn weeks(&self) -> &[u16] {
        &self.weeks
    }

    /// Returns the units of every line.
    pub fn quantities(&self) -> &[f32] {
        &self.quantities
    }

    /// Returns what came back, by the number of its line, then by week.
    pub fn returns(&self) -> &[Return] {
        &self.returns
    }

    /// Returns the weeks without stock, ascending by item, then week.
    pub fn stock_outs(&self) -> &[StockOut] {
        &self.stock_outs
    }

    /// Returns the history of `item` alone, as item 0, with the lines of the weeks from `from` on replaced by `fresh`.
    ///
    /// `fresh`: week and net units, above 0, of each line.
    pub fn with_fresh_lines(&self, item: usize, from: usize, fresh: &[(u16, f32)]) -> Self {
        let lines = self.offsets[item]..self.offsets[item + 1];
        let n_kept = self.weeks[lines.clone()].partition_point(|&week| usize::from(week) < from);
        let kept = lines.start..lines.start + n_kept;
        let mut fresh = fresh.to_vec();
        fresh.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let returns = self.returns.iter().filter(|returned| kept.contains(&returned.sale));
        let stock_outs = self.stock_outs.iter().filter(|out| out.item as usize == item);
        let n_weeks = fresh.last().map_or(0, |last| usize::from(last.0) + 1).max(self.n_weeks);
        Self {
            n_weeks,
            offsets: vec![0, n_kept + fresh.len()],
            weeks: self.weeks[kept.clone()]
                .iter()
                .copied()
                .chain(fresh.iter().map(|line| line.0))
                .collect(),
            quantities: self.quantities[kept.clone()]
                .iter()
                .copied()
                .chain(fresh.iter().map(|line| line.1))
                .collect(),
            returns: returns
                .map(|returned| Return {
                    sale: returned.sale - kept.start,
                    ..*returned
                })
                .collect(),
            stock_outs: stock_outs.map(|out| StockOut { item: 0, ..*out }).collect(),
        }
    }

    /// Adds to `units` what the item sold in each of its weeks, as total sales count it: what came back is taken off the week in
    /// which it came back. A week may be below 0.
    pub fn add_totals(&self, item: usize, units: &mut [f64]) {
        let lines = self.offsets[item]..self.offsets[item + 1];
        for line in lines.clone() {
            if let Some(week) = units.get_mut(usize::from(self.weeks[line])) {
                *week += f64::from(self.quantities[line]);
            }
        }
        let first = self.returns.partition_point(|returned| returned.sale < lines.start);
        for returned in self.returns[first..]
            .iter()
            .take_while(|returned| returned.sale < lines.end)
        {
            if let Some(week) = units.get_mut(usize::from(returned.week)) {
                *week -= f64::from(returned.quantity);
            }
        }
    }

    /// Returns the week of the item's last line before `origin`.
    pub fn last_week(&self, item: usize, origin: usize) -> Option<usize> {
        let weeks = &self.weeks[self.offsets[item]..self.offsets[item + 1]];
        let n_before = weeks.partition_point(|&week| usize::from(week) < origin);
        n_before.checked_sub(1).map(|at| usize::from(weeks[at]))
    }

    /// Returns the items that parameters are fitted on: all, or evenly spread ones where there are more than
    /// `MAX_FITTED_ITEMS`.
    pub fn fitted_items(&self) -> impl IndexedParallelIterator<Item = usize> {
        let step = self.n_items().div_ceil(MAX_FITTED_ITEMS).max(1);
        (0..self.n_items().div_ceil(step))
            .into_par_iter()
            .map(move |at| at * step)
    }

    pub fn n_items(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The number of whole weeks, and so the origin of a forecast that knows them all.
    pub fn n_weeks(&self) -> usize {
        self.n_weeks
    }

    /// Fills `units` with the item's sales in the weeks 0 to `origin` − 1, as they were known at `origin`: returns that
    /// had come back by then are taken off the week of their sale. A week is never below 0.
    ///
    /// `units`: overwritten with `origin` entries.
    pub fn weekly_units(&self, item: usize, origin: usize, units: &mut Vec<f64>) {
        self.sum_lines(item, origin, f64::INFINITY, units);
    }

    /// Fills `units` as [`weekly_units`](Self::weekly_units) does, with no order line counting more than `cap` units.
    pub fn weekly_units_with_cap(&self, item: usize, origin: usize, cap: f64, units: &mut Vec<f64>) {
        self.sum_lines(item, origin, cap, units);
    }

    fn sum_lines(&self, item: usize, origin: usize, cap: f64, units: &mut Vec<f64>) {
        units.clear();
        units.resize(origin, 0.0);
        self.for_each_line(item, origin, |week, quantity| units[week] += quantity.min(cap));
    }

    /// Fills `quantities` with what the item's order lines before `origin` sold, as known at `origin`, ascending.
    pub fn line_quantities(&self, item: usize, origin: usize, quantities: &mut Vec<f64>) {
        quantities.clear();
        self.for_each_line(item, origin, |_, quantity| quantities.push(quantity));
        quantities.sort_unstable_by(f64::total_cmp);
    }

    /// Calls `visit` with the week and the net quantity of every order line before `origin` of which anything is left.
    fn for_each_line(&self, item: usize, origin: usize, mut visit: impl FnMut(usize, f64)) {
        let lines = self.offsets[item]..self.offsets[item + 1];
        let n_before = self.weeks[lines.clone()].partition_point(|&week| usize::from(week) < origin);
        let mut returned = self.returns.partition_point(|returned| returned.sale < lines.start);
        for line in lines.start..lines.start + n_before {
            let mut quantity = f64::from(self.quantities[line]);
            while let Some(found) = self.returns.get(returned).filter(|found| found.sale <= line) {
                if found.sale == line && usize::from(found.week) < origin {
                    quantity -= f64::from(found.quantity);
                }
                returned += 1;
            }
            if quantity > 0.0 {
                visit(usize::from(self.weeks[line]), quantity);
            }
        }
    }

    /// Returns the units that the item sold in the weeks `from` to `to` − 1, without what came back of them since.
    pub fn units_between(&self, item: usize, from: usize, to: usize) -> f64 {
        let mut sum = 0.0;
        // Returns count whenever they came: what was returned was not wanted.
        let lines = self.offsets[item]..self.offsets[item + 1];
        let mut returned = self.returns.partition_point(|returned| returned.sale < lines.start);
        for line in lines {
            let mut quantity = f64::from(self.quantities[line]);
            while let Some(found) = self.returns.get(returned).filter(|found| found.sale <= line) {
                if found.sale == line {
                    quantity -= f64::from(found.quantity);
                }
                returned += 1;
            }
            if (from..to).contains(&usize::from(self.weeks[line])) {
                sum += quantity.max(0.0);
            }
        }
        sum
    }

    /// Removes from `units`, which begin with week `first`, the weeks in which the item was out of stock.
    pub fn remove_stock_outs(&self, item: usize, first: usize, units: &mut Vec<f64>) {
        let of_item = |stock_out: &StockOut| (stock_out.item as usize).cmp(&item);
        let begin = self.stock_outs.partition_point(|found| of_item(found).is_lt());
        let end = self.stock_outs.partition_point(|found| of_item(found).is_le());
        let weeks = &self.stock_outs[begin..end];
        if weeks.is_empty() {
            return;
        }
        let mut week = first;
        units.retain(|_| {
            let is_out = weeks
                .binary_search_by_key(&week, |found| usize::from(found.week))
                .is_ok();
            week += 1;
            !is_out
        });
    }
}

fn check(n_items: usize, n_weeks: usize, sales: &[Sale], returns: &[Return]) -> Result<(), HistoryError> {
    let checked = |what, position, week: u16, quantity: f32| {
        if usize::from(week) >= n_weeks {
            return Err(HistoryError::Week {
                what,
                position,
                week,
                n_weeks,
            });
        }
        match quantity.is_finite() && quantity > 0.0 {
            true => Ok(()),
            false => Err(HistoryError::Quantity {
                what,
                position,
                quantity,
            }),
        }
    };
    for (position, sale) in sales.iter().enumerate() {
        if sale.item as usize >= n_items {
            return Err(HistoryError::Item {
                position,
                item: sale.item,
                n_items,
            });
        }
        checked("sale", position, sale.week, sale.quantity)?;
    }
    for (position, returned) in returns.iter().enumerate() {
        if returned.sale >= sales.len() {
            return Err(HistoryError::Sale {
                position,
                sale: returned.sale,
                n_sales: sales.len(),
            });
        }
        checked("return", position, returned.week, returned.quantity)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sale(item: u32, week: u16, quantity: f32) -> Sale {
        Sale { item, week, quantity }
    }

    #[test]
    fn weeks_begin_on_monday() {
        // 1970-01-01 is a Thursday, 1970-01-05 the Monday after it, 2010-12-06 a Monday.
        assert_eq!([iso_week(0), iso_week(3), iso_week(4), iso_week(-4)], [0, 0, 1, -1]);
        assert_eq!(iso_week(14_949) - iso_week(14_948), 1);
    }

    #[test]
    fn returns_count_from_the_week_in_which_they_come_back() {
        let sales = [sale(1, 2, 5.0), sale(0, 1, 3.0), sale(1, 2, 4.0)];
        let returns = [Return {
            sale: 0,
            week: 4,
            quantity: 2.0,
        }];
        let history = SalesHistory::new(2, 6, &sales, &returns, Vec::new()).unwrap();
        let mut units = Vec::new();
        let mut check = |item, origin, expected: &[f64]| {
            history.weekly_units(item, origin, &mut units);
            assert_eq!(units, expected, "item {item} at {origin}");
        };
        check(0, 3, &[0.0, 3.0, 0.0]);
        check(1, 2, &[0.0, 0.0]);
        check(1, 4, &[0.0, 0.0, 9.0, 0.0]);
        check(1, 5, &[0.0, 0.0, 7.0, 0.0, 0.0]);
        assert_eq!(history.units_between(1, 2, 3), 7.0);
        assert_eq!(history.units_between(1, 3, 6), 0.0);
    }

    #[test]
    fn a_line_returned_more_than_once_is_never_below_zero() {
        let returned = |week| Return {
            sale: 0,
            week,
            quantity: 2.0,
        };
        let history = SalesHistory::new(1, 5, &[sale(0, 1, 3.0)], &[returned(3), returned(2)], Vec::new()).unwrap();
        let mut units = Vec::new();
        history.weekly_units(0, 3, &mut units);
        assert_eq!(units, [0.0, 1.0, 0.0]);
        history.weekly_units(0, 4, &mut units);
        assert_eq!(units, [0.0; 4]);
    }

    #[test]
    fn weeks_without_stock_are_left_out() {
        let stock_outs = vec![StockOut { item: 0, week: 2 }, StockOut { item: 1, week: 1 }];
        let history = SalesHistory::new(2, 4, &[sale(0, 1, 3.0)], &[], stock_outs).unwrap();
        let mut units = vec![3.0, 0.0, 7.0];
        history.remove_stock_outs(0, 1, &mut units);
        assert_eq!(units, [3.0, 7.0]);
    }

    #[test]
    fn entries_out_of_range_are_named() {
        let check = |sales: &[Sale], returns: &[Return], expected: &str| {
            let error = SalesHistory::new(1, 3, sales, returns, Vec::new()).unwrap_err();
            assert_eq!(error.to_string(), expected);
        };
        check(&[sale(1, 0, 1.0)], &[], "sale 0 is of item 1, but there are 1 items");
        check(
            &[sale(0, 3, 1.0)],
            &[],
            "sale 0 is in week 3, but the history has 3 weeks",
        );
        check(
            &[sale(0, 0, f32::NAN)],
            &[],
            "sale 0 has the quantity NaN, which must be finite and above 0",
        );
        let returned = Return {
            sale: 1,
            week: 0,
            quantity: 1.0,
        };
        check(
            &[sale(0, 0, 1.0)],
            &[returned],
            "return 0 is of sale 1, but there are 1 sales",
        );
    }
}
