//! Converts the messages of DemandService.

use demand::backtest::{DistributionErrors, LevelErrors, PointErrors};
use demand::class::DemandClass;
use demand::collaborative::{Collaborative, CollaborativeErrors};
use demand::distribution::{MAX_WEEKS, Quantiles};
use demand::model::DemandModel;
use demand::quality::{ClassQuality, MEASURED_LEVELS};
use domain::access::Caller;
use domain::error::InvalidField;
use domain::id::{Category, ItemId, MerchantId};
use recommender::snapshot::view::View;
use tonic::Status;

use crate::admission;
use crate::app::demand::backtest::{Backtest, BacktestOptions};
use crate::app::demand::forecast::{Forecast, ForecastRequest, Forecasts, Outcome, Selection, monday_at};
use crate::grpc::batch::MAX_BATCH;
use crate::grpc::convert::timestamp;
use crate::grpc::proto::v1;
use crate::grpc::status::Violations;

const DEFAULT_HORIZON_WEEKS: usize = 8;
const DEFAULT_LEVELS: [f64; 4] = [0.1, 0.5, 0.9, 0.95];
const MAX_LEVELS: usize = 20;
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;
/// Multiply-adds that the demand of one item takes for each week.
const ITEM_WEEK_WORK: usize = 20_000;

/// A forecast that is asked for, with the levels of its quantiles.
pub struct WantedForecast {
    pub request: ForecastRequest,
    levels: Vec<f64>,
}

/// # Errors
/// INVALID_ARGUMENT naming every bad field; PERMISSION_DENIED for another merchant than the caller's.
pub fn forecast_request(request: v1::ForecastDemandRequest, caller: &Caller) -> Result<WantedForecast, Status> {
    use v1::forecast_demand_request::Of;
    if let Some(Of::MerchantId(merchant)) = &request.of {
        admission::check_merchants(caller, "merchant_id", std::iter::once(merchant.as_str()))?;
    }
    let mut violations = Violations::default();
    let selection = match request.of {
        Some(Of::Items(items)) => item_ids(&mut violations, items.item_ids).map(Selection::Items),
        Some(Of::Category(category)) => violations.check(Category::new(category)).map(Selection::Category),
        Some(Of::MerchantId(merchant)) => violations.check(MerchantId::new(merchant)).map(Selection::Merchant),
        None => {
            let message = "must be items, category or merchant_id";
            violations.check(Err(InvalidField::new("of", "MISSING", message)))
        }
    };
    let horizon_weeks = violations.check(horizon(request.horizon_weeks));
    let limit = violations.check(limit(request.limit));
    let levels = levels(&mut violations, request.levels);
    let wanted = selection.zip(horizon_weeks).zip(limit).zip(levels);
    violations.finish(
        wanted.map(|(((selection, horizon_weeks), limit), levels)| WantedForecast {
            request: ForecastRequest {
                selection,
                horizon_weeks,
                limit,
            },
            levels,
        }),
    )
}

fn item_ids(violations: &mut Violations, ids: Vec<String>) -> Option<Vec<ItemId>> {
    if !(1..=MAX_BATCH).contains(&ids.len()) {
        let message = format!("must have 1 to {MAX_BATCH} entries, has {}", ids.len());
        violations.add(InvalidField::new("items.item_ids", "BATCH_SIZE_OUT_OF_RANGE", message));
        return None;
    }
    let id = |(position, id): (usize, String)| {
        let id = ItemId::new(id).map_err(|error| InvalidField {
            field: format!("items.item_ids[{position}]"),
            ..error
        });
        violations.check(id)
    };
    Some(ids.into_iter().enumerate().filter_map(id).collect())
}

fn limit(requested: i32) -> Result<usize, InvalidField> {
    in_range("limit", requested, DEFAULT_LIMIT, MAX_LIMIT).map_err(|error| InvalidField {
        reason: "LIMIT_OUT_OF_RANGE",
        ..error
    })
}

fn horizon(weeks: i32) -> Result<usize, InvalidField> {
    in_range("horizon_weeks", weeks, DEFAULT_HORIZON_WEEKS, MAX_WEEKS)
}

/// Returns `value`, or `default` for 0.
fn in_range(field: &str, value: i32, default: usize, most: usize) -> Result<usize, InvalidField> {
    match usize::try_from(value) {
        Ok(0) => Ok(default),
        Ok(value) if value <= most => Ok(value),
        _ => {
            let message = format!("must be 1 to {most}, or 0 for {default}, is {value}");
            Err(InvalidField::new(field, "OUT_OF_RANGE", message))
        }
    }
}

fn levels(violations: &mut Violations, levels: Vec<f64>) -> Option<Vec<f64>> {
    if levels.is_empty() {
        return Some(DEFAULT_LEVELS.to_vec());
    }
    if levels.len() > MAX_LEVELS {
        let message = format!("must have at most {MAX_LEVELS} entries, has {}", levels.len());
        violations.add(InvalidField::new("levels", "BATCH_SIZE_OUT_OF_RANGE", message));
        return None;
    }
    for (position, level) in levels.iter().enumerate() {
        if !(*level > 0.0 && *level < 1.0) {
            let message = format!("must be above 0 and below 1, is {level}");
            violations.add(InvalidField::new(
                format!("levels[{position}]"),
                "OUT_OF_RANGE",
                message,
            ));
        }
    }
    Some(levels)
}

/// Estimates the multiply-adds of a forecast.
pub fn estimated_work(view: &View, request: &ForecastRequest) -> usize {
    let items = match &request.selection {
        Selection::Items(items) => items.len(),
        Selection::Category(_) | Selection::Merchant(_) => view.snapshot.items().len(),
    };
    items * request.horizon_weeks * ITEM_WEEK_WORK
}

pub fn forecasts(
    view: &View,
    model: &DemandModel,
    wanted: &WantedForecast,
    forecasts: Forecasts,
) -> v1::ForecastDemandResponse {
    let weeks = wanted.request.horizon_weeks;
    let cumulative = |(week, (expected_units, found)): (usize, &(f64, Option<Quantiles>))| v1::CumulativeDemand {
        weeks: week as i32 + 1,
        expected_units: *expected_units,
        quantiles: found
            .as_ref()
            .map_or_else(Vec::new, |found| quantiles(found, &wanted.levels)),
    };
    let totals: Vec<v1::CumulativeDemand> = forecasts.total.iter().enumerate().map(cumulative).collect();
    let last = totals.last().cloned().unwrap_or_default();
    v1::ForecastDemandResponse {
        snapshot_version: view.version,
        begins_at: Some(timestamp(forecasts.begins_at)),
        total: Some(v1::TotalForecast {
            items: forecasts.n_items as i64,
            expected_units: last.expected_units,
            quantiles: last.quantiles,
            weeks: totals,
        }),
        left_out_share: model.fitted.left_out_share,
        quality: model.fitted.quality.iter().map(Into::into).collect(),
        collaborative: collaborative_quality(&model.fitted.collaborative),
        items: forecasts
            .items
            .into_iter()
            .map(|item| item_forecast(item, weeks, &wanted.levels))
            .collect(),
    }
}

fn collaborative_quality(collaborative: &Collaborative) -> Vec<v1::CollaborativeQuality> {
    let quality = |errors: &CollaborativeErrors| v1::CollaborativeQuality {
        demand_class: errors.class.map(|class| v1::DemandClass::from(class).into()),
        weight: errors.class.map(|class| collaborative.weight_of(class)),
        origins: errors.n_origins as i32,
        items: errors.n_items as i64,
        wape_without: errors.wape_without,
        wape_with: errors.wape_with,
        wape_alone: errors.wape_alone,
    };
    collaborative.backtest.iter().map(quality).collect()
}

fn item_forecast(forecast: Forecast, weeks: usize, levels: &[f64]) -> v1::ItemForecast {
    let bare = |confidence: v1::ForecastConfidence| v1::ItemForecast {
        item_id: forecast.item.clone(),
        confidence: confidence.into(),
        ..v1::ItemForecast::default()
    };
    let demand = match &forecast.outcome {
        Outcome::Demand(demand) => demand,
        Outcome::NoHistory => return bare(v1::ForecastConfidence::NoHistory),
        Outcome::Unknown => return bare(v1::ForecastConfidence::UnknownItem),
    };
    let whole = demand.of_weeks(weeks);
    let cumulative = (1..=weeks).map(|week| v1::CumulativeDemand {
        weeks: week as i32,
        expected_units: demand.of_weeks(week).mean(),
        quantiles: quantiles(demand.of_weeks(week), levels),
    });
    let confidence = match demand.is_certain(weeks) {
        true => v1::ForecastConfidence::Normal,
        false => v1::ForecastConfidence::Low,
    };
    v1::ItemForecast {
        demand_class: Some(v1::DemandClass::from(demand.class).into()),
        method: demand.method_name(),
        collaborative_weight: demand.collaborative_weight,
        history_weeks: demand.history_weeks as i32,
        weeks_with_sales: demand.weeks_with_sales as i32,
        expected_units: whole.mean(),
        median_units: whole.at(0.5),
        point_units: demand.point_units.iter().sum(),
        quantiles: quantiles(whole, levels),
        weeks: cumulative.collect(),
        ..bare(confidence)
    }
}

fn quantiles(found: &Quantiles, levels: &[f64]) -> Vec<v1::DemandQuantile> {
    let quantile = |&level: &f64| v1::DemandQuantile {
        level,
        units: found.at(level),
    };
    levels.iter().map(quantile).collect()
}

impl From<DemandClass> for v1::DemandClass {
    fn from(class: DemandClass) -> Self {
        match class {
            DemandClass::Smooth => Self::Smooth,
            DemandClass::Erratic => Self::Erratic,
            DemandClass::Intermittent => Self::Intermittent,
            DemandClass::Lumpy => Self::Lumpy,
        }
    }
}

fn class_of(class: Option<DemandClass>) -> Option<i32> {
    class.map(|class| v1::DemandClass::from(class).into())
}

impl From<&ClassQuality> for v1::DemandQuality {
    fn from(quality: &ClassQuality) -> Self {
        let coverage = MEASURED_LEVELS.iter().zip(quality.coverage);
        Self {
            demand_class: class_of(quality.class),
            origins: quality.n_origins as i32,
            items: quality.n_items as i64,
            wape: quality.wape,
            rmsse: quality.rmsse,
            bias: quality.bias,
            pinball_loss: quality.pinball,
            coverage: coverage
                .map(|(&level, coverage)| v1::QuantileCoverage { level, coverage })
                .collect(),
            skill_over_naive: quality.skill_over_naive,
            skill_over_imapa: quality.skill_over_imapa,
        }
    }
}

/// # Errors
/// INVALID_ARGUMENT naming every bad field.
pub fn backtest_options(request: &v1::BacktestDemandRequest) -> Result<BacktestOptions, Status> {
    const MAX_ORIGINS: usize = 12;
    const MAX_MIN_WEEKS: usize = 208;
    let defaults = BacktestOptions::default();
    let mut violations = Violations::default();
    let origins = violations.check(in_range("origins", request.origins, defaults.origins, MAX_ORIGINS));
    let weeks = violations.check(horizon(request.horizon_weeks));
    let min_weeks_with_sales = violations.check(in_range(
        "min_weeks_with_sales",
        request.min_weeks_with_sales,
        defaults.min_weeks_with_sales,
        MAX_MIN_WEEKS,
    ));
    let options = origins.zip(weeks).zip(min_weeks_with_sales);
    violations.finish(
        options.map(|((origins, horizon_weeks), min_weeks_with_sales)| BacktestOptions {
            origins,
            horizon_weeks,
            min_weeks_with_sales,
        }),
    )
}

pub fn backtest(view: &View, model: &DemandModel, found: Backtest) -> v1::BacktestDemandResponse {
    let at = |origin: usize| Some(timestamp(monday_at(model, origin)));
    let point = |row: PointErrors| v1::PointBacktest {
        origin: at(row.origin),
        demand_class: class_of(row.class),
        method: row.method,
        items: row.n_items as i64,
        wape: row.wape,
        rmsse: row.rmsse,
        bias: row.bias,
    };
    let level = |level: &LevelErrors| v1::LevelBacktest {
        level: level.level,
        coverage: level.coverage,
        pinball_loss: level.pinball,
        normal_pinball_loss: level.normal_pinball,
    };
    let distribution = |row: DistributionErrors| v1::DistributionBacktest {
        origin: at(row.origin),
        demand_class: class_of(row.class),
        weeks: row.weeks as i32,
        items: row.n_items as i64,
        bias: row.bias,
        levels: row.levels.iter().map(level).collect(),
    };
    v1::BacktestDemandResponse {
        snapshot_version: view.version,
        points: found.points.into_iter().map(point).collect(),
        distributions: found.distributions.into_iter().map(distribution).collect(),
    }
}
