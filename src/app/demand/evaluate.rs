//! Measures forecasts, and stock rules that rest on them, on stored sales.

use crate::app::train::{TrainError, compute};
use crate::app::training_input;
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::training::sales::{self, ItemSales, Sales};
use demand::backtest::{DistributionErrors, PointErrors};
use demand::collaborative::{Collaborative, CollaborativeErrors, UserForecasts};
use demand::comparison::Comparison;
use demand::launch::{LaunchErrors, launch_errors};
use demand::model::{DatedHistory, UNKNOWN_LAUNCH_WEEKS};
use domain::consent::PrivacyOptions;
use domain::time::Timestamp;
use recommender::evaluation::error::EvaluationError;
use recommender::snapshot::catalog::{Catalog, NONE};
use recommender::snapshot::parameters::TrainingParameters;
use recommender::training::input::TrainingInput;

use super::backtest::{BacktestOptions, measure, origins};
use super::fit::{UserModel, dated, unfitted_settings};
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
    /// The point forecast with and without what users are expected to buy, by origin, then class.
    pub collaborative: Vec<(usize, CollaborativeErrors)>,
}

/// Forecasts from each of the last `n_origins` origins with what was known then, and measures on what came.
///
/// `min_weeks`: the least number of weeks with sales of a series. `parameters`: of the models that users are expected to buy by.
pub async fn evaluate_demand(
    pool: &Pool,
    scope: DemandScope,
    n_origins: usize,
    min_weeks: usize,
    parameters: TrainingParameters,
    privacy: &PrivacyOptions,
) -> Result<DemandEvaluation, TrainError> {
    let training_input::Read { mut input, sales, .. } = training_input::read(pool, privacy).await?;
    let evaluate = move || {
        let dated = dated_in_scope(sales, &input.catalog, input.as_of, scope)?;
        let DatedHistory { history, origin, .. } = &dated;
        let options = |horizon_weeks| BacktestOptions {
            origins: n_origins,
            horizon_weeks,
            min_weeks_with_sales: min_weeks,
        };
        let origins = origins(*origin, &options(HORIZONS[1]));
        let [short, long] = HORIZONS.map(|weeks| measure(history, &origins, &options(weeks)));
        input.orders.retain(|event| scope.holds(event.ordered_at.timestamp()));
        let collaborative = collaborative_errors(&input, &parameters, &dated, &origins, scope.series)?;
        let launches = origins
            .iter()
            .filter_map(|&past| launch_errors(history, UNKNOWN_LAUNCH_WEEKS, past, HORIZONS[1]));
        Ok(DemandEvaluation {
            begins_at: monday(dated.first_week),
            n_weeks: *origin,
            launches: launches.collect(),
            collaborative,
            points: long.points,
            distributions: [short.distributions, long.distributions].concat(),
        })
    };
    compute(evaluate).await?
}

/// Measures the point forecast with and without what users are expected to buy at each of `origins`, by the models of that time.
fn collaborative_errors(
    input: &TrainingInput,
    parameters: &TrainingParameters,
    dated: &DatedHistory,
    origins: &[usize],
    series: SeriesOf,
) -> Result<Vec<(usize, CollaborativeErrors)>, EvaluationError> {
    let users = UserModel {
        input,
        parameters,
        settings: unfitted_settings(),
    };
    let needed = origins.iter().flat_map(|&origin| UserForecasts::origins(origin));
    let forecasts = users.forecasts(needed, dated.first_week)?;
    let forecasts = match series {
        SeriesOf::Item => forecasts,
        SeriesOf::Category => forecasts.grouped(&input.catalog.category_of, input.catalog.categories.len()),
    };
    let at = |&origin: &usize| {
        let errors = Collaborative::backtest(&dated.history, &[origin], &forecasts);
        errors.into_iter().map(move |errors| (origin, errors))
    };
    Ok(origins.iter().flat_map(at).collect())
}

impl DemandScope {
    /// Whether a time, in seconds since 1970, lies within the scope.
    fn holds(&self, at: i64) -> bool {
        self.from.is_none_or(|from| at >= from.timestamp()) && self.until.is_none_or(|until| at < until.timestamp())
    }
}

/// Sorts the sales of the scope into weeks.
fn dated_in_scope(
    mut sales: Sales,
    catalog: &Catalog,
    as_of: Timestamp,
    scope: DemandScope,
) -> Result<DatedHistory, TrainError> {
    sales.lines.retain(|line| scope.holds(line.at));
    let n_series = match scope.series {
        SeriesOf::Item => catalog.category_of.len(),
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
    let ItemSales {
        catalog,
        sales,
        as_of,
        unit_values,
    } = sales::read_all(pool, privacy).await?;
    let evaluate = move || {
        let unit_values = match scope.series {
            SeriesOf::Item => unit_values,
            // Items of a category differ in price.
            SeriesOf::Category => Vec::new(),
        };
        let dated = dated_in_scope(sales, &catalog, as_of, scope)?;
        let replay = |options: &SimulationOptions| {
            let found = replay_last_weeks(&dated.history, dated.origin, &unit_values, options);
            (options.lead_time_weeks, found)
        };
        Ok(options.iter().map(replay).collect())
    };
    compute(evaluate).await?
}
