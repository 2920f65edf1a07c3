//! Everything that is fitted on past sales, and the sales themselves: what forecasts are made from.

use super::collaborative::{Collaborative, UserForecasts};
use super::distribution::{ErrorPools, MAX_WEEKS};
use super::history::{SalesHistory, StockOut, iso_week};
use super::launch::LaunchModel;
use super::point::PointMethods;
use super::quality::{ClassQuality, measure};
use super::returns::{RecordedLine, match_returns};

/// Weeks after the first of the history in which a first sale may only be the beginning of the records.
pub const UNKNOWN_LAUNCH_WEEKS: usize = 8;

/// The longest history, in weeks: what happened before says nothing of the coming weeks.
const MAX_HISTORY_WEEKS: i64 = 208;
const DAY_SECONDS: i64 = 86_400;

/// The fitted model, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Demand {
    Fitted(Box<DemandModel>),
    NotFitted {
        /// Tells people what is missing.
        reason: String,
    },
}

/// Sales and what was fitted on them.
#[derive(Debug, Clone, PartialEq)]
pub struct DemandModel {
    /// The ISO week of week 0, as [`iso_week`] counts weeks.
    pub first_week: i64,
    /// The number of weeks that were over: the origin that the parameters were fitted for. The history may hold lines of the
    /// week after them.
    pub origin: usize,
    pub history: SalesHistory,
    pub fitted: Fitted,
}

/// The fitted parameters and the measured quality.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Fitted {
    /// The share of units, in [0, 1), that users bought who refuse training; their sales are not in the history.
    pub left_out_share: f64,
    pub methods: PointMethods,
    /// Without weights in a snapshot of an earlier release.
    #[serde(default)]
    pub collaborative: Collaborative,
    pub pools: ErrorPools,
    /// The model of the next L weeks of new items stands at L − 1; `None` where too few launches are known.
    pub launches: Vec<Option<LaunchModel>>,
    /// For all items, then for each class that has any.
    pub quality: Vec<ClassQuality>,
}

/// The reason why no model was fitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there are no sales in a week that is over")]
pub struct NoSales;

/// Sales by week, with what the weeks are.
#[derive(Debug, Clone, PartialEq)]
pub struct DatedHistory {
    /// The ISO week of week 0.
    pub first_week: i64,
    /// The number of weeks that were over.
    pub origin: usize,
    pub history: SalesHistory,
}

impl DatedHistory {
    /// Sorts recorded lines into weeks. Those that are over end with the one before `as_of`, or with the last that has a line,
    /// whichever is earlier: where records end, it is not demand that ends. Lines after `as_of`, or from more than four years
    /// before the end, are left out.
    ///
    /// `stock_outs`: the items that were counted and out of stock, with the time in seconds since 1970. `as_of`: seconds since
    /// 1970.
    ///
    /// # Errors
    /// [`NoSales`] without any line.
    pub fn new(
        lines: &mut [RecordedLine],
        n_items: usize,
        stock_outs: &[(u32, i64)],
        as_of: i64,
    ) -> Result<Self, NoSales> {
        let week_of = |line: &RecordedLine| iso_week(line.at.div_euclid(DAY_SECONDS));
        let this_week = iso_week(as_of.div_euclid(DAY_SECONDS));
        let known = || lines.iter().map(week_of).filter(|&week| week <= this_week);
        let last = known().max().ok_or(NoSales)?;
        let first_week = known().min().unwrap_or(last).max(last - MAX_HISTORY_WEEKS);
        let origin = (last + 1).min(this_week) - first_week;
        let n_weeks = (last + 1 - first_week) as usize;
        let from_first = |line: &RecordedLine| u16::try_from(week_of(line) - first_week).ok();
        let (sales, returns) = match_returns(lines, |line| {
            from_first(line).filter(|&week| usize::from(week) < n_weeks)
        });
        let stock_outs = stock_outs.iter().filter_map(|&(item, at)| {
            let week = u16::try_from(iso_week(at.div_euclid(DAY_SECONDS)) - first_week).ok()?;
            (usize::from(week) < n_weeks && (item as usize) < n_items).then_some(StockOut { item, week })
        });
        let stock_outs = stock_outs.collect();
        let history = SalesHistory::new(n_items, n_weeks, &sales, &returns, stock_outs).map_err(|_| NoSales)?;
        Ok(Self {
            first_week,
            origin: origin as usize,
            history,
        })
    }
}

impl DemandModel {
    /// Fits everything on the weeks before `origin`.
    ///
    /// # Errors
    /// [`NoSales`] where none of these weeks has a sale.
    pub fn fit(history: SalesHistory, first_week: i64, origin: usize, left_out_share: f64) -> Result<Self, NoSales> {
        if !history.weeks().iter().any(|&week| usize::from(week) < origin) {
            return Err(NoSales);
        }
        let launches = (1..=MAX_WEEKS).map(|weeks| LaunchModel::fit(&history, UNKNOWN_LAUNCH_WEEKS, origin, weeks));
        let fitted = Fitted {
            left_out_share,
            methods: PointMethods::fit(&history, origin),
            collaborative: Collaborative::default(),
            pools: ErrorPools::fit(&history, origin),
            launches: launches.collect(),
            quality: measure(&history, origin),
        };
        Ok(Self {
            first_week,
            origin,
            history,
            fitted,
        })
    }

    /// Fits the weights of what users are expected to buy; without this they are 0.
    ///
    /// `forecasts`: of [`UserForecasts::origins`].
    #[must_use]
    pub fn with_users(mut self, forecasts: &UserForecasts) -> Self {
        self.fitted.collaborative = Collaborative::fit(&self.history, self.origin, forecasts);
        self
    }

    /// Returns what all units are multiplied by, so that they stand for the sales that are left out too.
    pub fn scale(&self) -> f64 {
        1.0 / (1.0 - self.fitted.left_out_share)
    }

    /// Finds a number that no fit returns.
    pub fn problem(&self) -> Option<&'static str> {
        let fitted = &self.fitted;
        let are_finite = |quality: &ClassQuality| quality.values().iter().all(|value| value.is_finite());
        if !(0.0..1.0).contains(&fitted.left_out_share) {
            Some("the share left out is not in [0, 1)")
        } else if self.origin > self.history.n_weeks() {
            Some("the origin is beyond the history")
        } else if !fitted.collaborative.is_valid(self.history.n_items()) {
            Some("the weights of what users are expected to buy do not fit")
        } else if !fitted.pools.is_valid() {
            Some("the pooled errors do not fit")
        } else if fitted.launches.len() != MAX_WEEKS || !fitted.launches.iter().flatten().all(LaunchModel::is_valid) {
            Some("the models of launches do not fit")
        } else if !fitted.quality.iter().all(are_finite) {
            Some("a measured figure is not finite")
        } else {
            None
        }
    }

    /// Returns the measured quality for items of `class`, or for all items where that class has none.
    pub fn quality_of(&self, class: Option<super::class::DemandClass>) -> Option<&ClassQuality> {
        let of = |class| self.fitted.quality.iter().find(move |quality| quality.class == class);
        of(class).or_else(|| of(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn line(day: i64, quantity: i32) -> RecordedLine {
        RecordedLine {
            user: 1,
            item: 0,
            order: day as u64,
            at: day * DAY_SECONDS,
            quantity,
        }
    }

    #[test]
    fn weeks_that_are_over_end_with_the_records() {
        // 2010-12-06, day 14,949 since 1970, is a Monday.
        let monday = 14_949;
        let check = |lines: &[(i64, i32)], as_of: i64, expected: (i64, usize, usize)| {
            let mut lines: Vec<_> = lines
                .iter()
                .map(|&(day, quantity)| line(monday + day, quantity))
                .collect();
            let found = DatedHistory::new(&mut lines, 1, &[], (monday + as_of) * DAY_SECONDS).unwrap();
            let first = found.first_week - iso_week(monday);
            assert_eq!((first, found.origin, found.history.n_weeks()), expected);
        };
        // (first week, weeks that are over, weeks)
        check(&[(-1, 2), (6, 2)], 8, (-1, 2, 2));
        check(&[(-1, 2), (6, 2)], 6, (-1, 1, 2));
        check(&[(-1, 2), (6, 2)], 400, (-1, 2, 2));
        // A line from the future, and one that is too old.
        check(&[(0, 2), (20, 2)], 8, (0, 1, 1));
        check(&[(-2_000, 2), (0, 2)], 8, (-208, 209, 209));
        // A return belongs to the week of its purchase once it is known.
        let mut lines = [line(monday, 5), line(monday + 7, -2)];
        let found = DatedHistory::new(
            &mut lines,
            1,
            &[(0, monday * DAY_SECONDS), (0, 0)],
            (monday + 14) * DAY_SECONDS,
        )
        .unwrap();
        let mut units = Vec::new();
        found.history.weekly_units(0, 2, &mut units);
        assert_eq!(units, [3.0, 0.0]);
        let mut totals = [0.0; 2];
        found.history.add_totals(0, &mut totals);
        assert_eq!(totals, [5.0, -2.0]);
        // A count from before the first week says nothing.
        assert_eq!(found.history.stock_outs(), [StockOut { item: 0, week: 0 }]);
        assert_eq!(DatedHistory::new(&mut [], 1, &[], 0), Err(NoSales));
    }

    #[test]
    fn a_history_without_a_whole_week_of_sales_fits_nothing() {
        let history = testing::history(&[vec![0.0, 3.0]]);
        assert_eq!(DemandModel::fit(history.clone(), 0, 1, 0.0), Err(NoSales));
        let model = DemandModel::fit(history, 0, 2, 0.2).unwrap();
        assert_eq!((model.problem(), model.scale()), (None, 1.25));
    }
}
