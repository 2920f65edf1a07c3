//! Measures forecasts, and stock rules that rest on them, on stored sales.

use crate::app::train::{TrainError, compute};
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::training::sales::{self, ItemSales};
use demand::backtest::{DistributionErrors, PointErrors};
use demand::comparison::Comparison;
use demand::launch::{LaunchErrors, launch_errors};
use demand::model::{DatedHistory, UNKNOWN_LAUNCH_WEEKS};
use domain::consent::PrivacyOptions;
use domain::time::Timestamp;
use recommender::snapshot::catalog::NONE;

use super::backtest::{BacktestOptions, measure, origins};
use super::fit::dated;
use super::forecast::monday;
use super::simulate::{SimulationOptions, replay_last_weeks};

/// Weeks of which the sums are measured.
const HORIZONS: [usize; 2] = [3, 8];

/// The items whose sales make up one series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeriesOf {
    Item,
    /// All items of a category together; items without one are left out.
    Category,
}

/// The sales that are measured on.
#[derive(Debug, Clone, Copy)]
pub struct DemandScope {
    pub from: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub series: SeriesOf,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DemandEvaluation {
    /// The Monday of week 0.
    pub begins_at: Timestamp,
    pub n_weeks: usize,
    pub points: Vec<PointErrors>,
    pub distributions: Vec<DistributionErrors>,
    pub launches: Vec<LaunchErrors>,
}

/// Forecasts from each of the last `n_origins` origins with what was known then, and measures on what came.
///
/// `min_weeks`: the least number of weeks with sales of a series.
pub async fn evaluate_demand(
    pool: &Pool,
    scope: DemandScope,
    n_origins: usize,
    min_weeks: usize,
    privacy: &PrivacyOptions,
) -> Result<DemandEvaluation, TrainError> {
    let read = sales::read_all(pool, privacy).await?;
    let evaluate = move || {
        let dated = history(read, scope)?;
        let DatedHistory { history, origin, .. } = &dated;
        let options = |horizon_weeks| BacktestOptions {
            origins: n_origins,
            horizon_weeks,
            min_weeks_with_sales: min_weeks,
        };
        let origins = origins(*origin, &options(HORIZONS[1]));
        let [short, long] = HORIZONS.map(|weeks| measure(history, &origins, &options(weeks)));
        let launches = origins
            .iter()
            .filter_map(|&past| launch_errors(history, UNKNOWN_LAUNCH_WEEKS, past, HORIZONS[1]));
        Ok(DemandEvaluation {
            begins_at: monday(dated.first_week),
            n_weeks: *origin,
            launches: launches.collect(),
            points: long.points,
            distributions: [short.distributions, long.distributions].concat(),
        })
    };
    compute(evaluate).await?
}

/// Sorts the sales of the scope into weeks.
pub fn history(read: ItemSales, scope: DemandScope) -> Result<DatedHistory, TrainError> {
    let ItemSales {
        items,
        catalog,
        mut sales,
        as_of,
        ..
    } = read;
    let (from, until) = (
        scope.from.map(|at| at.timestamp()),
        scope.until.map(|at| at.timestamp()),
    );
    sales
        .lines
        .retain(|line| from.is_none_or(|from| line.at >= from) && until.is_none_or(|until| line.at < until));
    let n_series = match scope.series {
        SeriesOf::Item => items.len(),
        SeriesOf::Category => {
            sales.stock_outs.clear();
            sales.lines.retain_mut(|line| {
                line.item = catalog.category_of[line.item as usize];
                line.item != NONE
            });
            catalog.categories.len()
        }
    };
    Ok(dated(&mut sales, n_series, scope.until.unwrap_or(as_of).min(as_of))?)
}

/// Replays the last weeks of the sales, once for each of `options`. Returns the lead time of each and the comparison, which is
/// `None` where too little history lies before the replay.
pub async fn evaluate_replenishment(
    pool: &Pool,
    scope: DemandScope,
    options: Vec<SimulationOptions>,
    privacy: &PrivacyOptions,
) -> Result<Vec<(usize, Option<Comparison>)>, TrainError> {
    let read = sales::read_all(pool, privacy).await?;
    let evaluate = move || {
        let unit_values = match scope.series {
            SeriesOf::Item => read.unit_values.clone(),
            // Items of a category differ in price.
            SeriesOf::Category => Vec::new(),
        };
        let dated = history(read, scope)?;
        let replay = |options: &SimulationOptions| {
            let found = replay_last_weeks(&dated.history, dated.origin, &unit_values, options);
            (options.lead_time_weeks, found)
        };
        Ok(options.iter().map(replay).collect())
    };
    compute(evaluate).await?
}
