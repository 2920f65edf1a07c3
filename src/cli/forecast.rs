//! `likemind forecast`: forecasts how much will sell.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow};
use chrono::Utc;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::database::{Database, Purpose};
use super::figures::Figure;
use super::process::operator;
use super::{Exit, csv_output, ids};
use crate::app::demand::forecast::{Forecast, ForecastRequest, Forecasts, Outcome, Sales, Selection, forecast};
use crate::config::Config;
use crate::live::Live;
use demand::class::DemandClass;
use demand::collaborative::Collaborative;
use demand::distribution::{MAX_WEEKS, Quantiles};
use demand::model::DemandModel;
use domain::id::{Category, ItemId, MerchantId};

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ForecastArgs {
    /// The ids of the items
    #[arg(value_name = "ITEM", required_unless_present_any = ["category", "merchant"], value_parser = ids::item)]
    items: Vec<ItemId>,
    /// Forecast the items of this category
    #[arg(long, conflicts_with_all = ["items", "merchant"], value_parser = ids::category)]
    category: Option<Category>,
    /// Forecast the items of this merchant
    #[arg(long, conflicts_with = "items", value_parser = ids::merchant)]
    merchant: Option<MerchantId>,
    /// Weeks to forecast, 1 to 26
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=MAX_WEEKS as i64))]
    weeks: u32,
    /// The levels of the quantiles, each above 0 and below 1
    #[arg(long, value_name = "LEVEL", value_delimiter = ',', default_values_t = [0.1, 0.5, 0.9, 0.95], value_parser = level)]
    levels: Vec<f64>,
    /// The most items of a category or merchant to list, those with the highest expected units first
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// The format of the output
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

const AFTER_HELP: &str = "\
Expected units are the mean of the demand: plan totals with them. A quantile of level .9 is the stock that is enough in nine of
ten cases. The confidence is LOW for items that are new or hardly sell, and NO_HISTORY for those that were never sold.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
}

fn level(text: &str) -> Result<f64, String> {
    let level = text.parse().ok().filter(|level: &f64| *level > 0.0 && *level < 1.0);
    level.ok_or_else(|| "must be a number above 0 and below 1".to_owned())
}

pub(super) async fn run(args: ForecastArgs, config: Config) -> anyhow::Result<Exit> {
    let database = Database::open(&config, Purpose::Job).await?;
    let live = Live::read(database.pool.clone(), config.live.clone(), config.privacy.consent()).await?;
    let view = live.view().ok_or_else(|| anyhow!(live.status().without_snapshot()))?;
    live.refresh_fresh_sales().await?;
    let fresh = live.fresh_sales();
    let model = view.snapshot.demand().map_err(anyhow::Error::msg);
    let model = model.with_context(|| format!("snapshot {} has no forecast", view.version))?;
    let sales = Sales::new(&view, model, &fresh, Utc::now());
    let request = ForecastRequest {
        selection: match (args.category, args.merchant) {
            (Some(category), _) => Selection::Category(category),
            (None, Some(merchant)) => Selection::Merchant(merchant),
            (None, None) => Selection::Items(args.items),
        },
        horizon_weeks: args.weeks as usize,
        limit: args.limit as usize,
    };
    let found = forecast(&sales, &request, &operator());
    let weeks = request.horizon_weeks;
    match args.format {
        Format::Table => print_table(&found, model, weeks, &args.levels),
        Format::Csv => print_csv(&found, weeks, &args.levels)?,
        Format::Json => println!(
            "{}",
            serde_json::to_string_pretty(&to_json(&found, model, weeks, &args.levels))?
        ),
    }
    database.close().await?;
    Ok(Exit::Done)
}

fn confidence(forecast: &Forecast, weeks: usize) -> &'static str {
    match &forecast.outcome {
        Outcome::Demand(demand) if demand.is_certain(weeks) => "NORMAL",
        Outcome::Demand(_) => "LOW",
        Outcome::NoHistory => "NO_HISTORY",
        Outcome::Unknown => "UNKNOWN_ITEM",
    }
}

fn print_table(found: &Forecasts, model: &DemandModel, weeks: usize, levels: &[f64]) {
    println!(
        "Demand of the {weeks} weeks from {}, in units",
        found.begins_at.format("%Y-%m-%d")
    );
    let heads: String = levels
        .iter()
        .map(|level| format!(" {:>9}", format!("Q {level}")))
        .collect();
    println!(
        "{:<20} {:>9}{heads} {:<12} {:<12} method",
        "item", "expected", "class", "confidence"
    );
    for item in &found.items {
        let confidence = confidence(item, weeks);
        let Some(demand) = item.demand() else {
            let blanks = " ".repeat(10 * levels.len());
            println!("{:<20} {:>9}{blanks} {:<12} {confidence:<12}", item.item, "", "");
            continue;
        };
        let whole = demand.of_weeks(weeks);
        println!(
            "{:<20} {:>9.1}{} {:<12} {confidence:<12} {}",
            item.item,
            whole.mean(),
            figures(whole, levels),
            demand.class.name(),
            demand.method_name()
        );
    }
    if let Some((expected, quantiles)) = found.total.last().filter(|_| found.n_items > 1) {
        let blanks = " ".repeat(10 * levels.len());
        let quantiles = quantiles
            .as_ref()
            .map_or(blanks, |quantiles| figures(quantiles, levels));
        println!(
            "{:<20} {expected:>9.1}{quantiles}",
            format!("all {} items", found.n_items)
        );
    }
    if let Some(quality) = model.quality_of(None) {
        println!(
            "\nLately, over {} origins: WAPE {:.3}, RMSSE {:.3}, bias {:+.3}, pinball loss {:.3}, skill {:+.3} over naive and {:+.3} \
             over IMAPA",
            quality.n_origins,
            quality.wape,
            quality.rmsse,
            Figure(quality.bias),
            quality.pinball,
            Figure(quality.skill_over_naive),
            Figure(quality.skill_over_imapa)
        );
    }
    print_collaborative(&model.fitted.collaborative);
    let share = model.fitted.left_out_share;
    if share > 0.0 {
        println!(
            "{:.1} % of units were bought by users who refuse training; the figures make up for them.",
            share * 100.0
        );
    }
}

/// Says how much the point forecasts rest on what users are expected to buy.
fn print_collaborative(collaborative: &Collaborative) {
    let Some(all) = collaborative.backtest.first() else {
        return;
    };
    let weights = DemandClass::ALL.map(|class| format!("{} {:.1}", class.name(), collaborative.weight_of(class)));
    println!(
        "What users are expected to buy has the weight {}; over {} origins WAPE {:.3} with it, {:.3} without",
        weights.join(", "),
        all.n_origins,
        all.wape_with,
        all.wape_without
    );
}

fn figures(quantiles: &Quantiles, levels: &[f64]) -> String {
    levels
        .iter()
        .map(|&level| format!(" {:>9.1}", quantiles.at(level)))
        .collect()
}

fn print_csv(found: &Forecasts, weeks: usize, levels: &[f64]) -> anyhow::Result<()> {
    let mut columns: Vec<String> = ["item_id", "weeks", "expected_units", "point_units"]
        .map(str::to_owned)
        .to_vec();
    columns.extend(levels.iter().map(|level| format!("q{level}")));
    columns.extend(["class", "confidence", "method", "history_weeks"].map(str::to_owned));
    let mut rows = vec![columns];
    for item in &found.items {
        let mut row = vec![item.item.clone(), weeks.to_string()];
        match item.demand() {
            Some(demand) => {
                let whole = demand.of_weeks(weeks);
                let point: f64 = demand.point_units.iter().sum();
                row.extend([whole.mean(), point].map(|units| format!("{units:.3}")));
                row.extend(levels.iter().map(|&level| format!("{:.3}", whole.at(level))));
                row.push(demand.class.name().to_owned());
                row.push(confidence(item, weeks).to_owned());
                row.push(demand.method_name());
                row.push(demand.history_weeks.to_string());
            }
            None => {
                row.resize(row.len() + 2 + levels.len() + 1, String::new());
                row.push(confidence(item, weeks).to_owned());
                row.extend([String::new(), String::new()]);
            }
        }
        rows.push(row);
    }
    for row in rows {
        println!("{}", csv_output::line(&row)?);
    }
    Ok(())
}

fn to_json(found: &Forecasts, model: &DemandModel, weeks: usize, levels: &[f64]) -> Value {
    let quantiles_of = |quantiles: &Quantiles| -> Vec<Value> {
        let quantile = |&level: &f64| json!({"level": level, "units": quantiles.at(level)});
        levels.iter().map(quantile).collect()
    };
    let item = |item: &Forecast| match item.demand() {
        None => json!({"item_id": item.item, "confidence": confidence(item, weeks)}),
        Some(demand) => json!({
            "item_id": item.item,
            "confidence": confidence(item, weeks),
            "class": demand.class,
            "method": demand.method_name(),
            "history_weeks": demand.history_weeks,
            "weeks_with_sales": demand.weeks_with_sales,
            "expected_units": demand.of_weeks(weeks).mean(),
            "point_units": demand.point_units.iter().sum::<f64>(),
            "quantiles": quantiles_of(demand.of_weeks(weeks)),
            "weeks": (1..=weeks).map(|week| json!({
                "weeks": week,
                "expected_units": demand.of_weeks(week).mean(),
                "quantiles": quantiles_of(demand.of_weeks(week)),
            })).collect::<Vec<_>>(),
        }),
    };
    let total = found.total.last();
    let collaborative = &model.fitted.collaborative;
    json!({
        "begins_at": found.begins_at.to_rfc3339(),
        "weeks": weeks,
        "items": found.items.iter().map(item).collect::<Vec<_>>(),
        "total": {
            "items": found.n_items,
            "expected_units": total.map_or(0.0, |total| total.0),
            "quantiles": total.and_then(|total| total.1.as_ref()).map(quantiles_of),
        },
        "left_out_share": model.fitted.left_out_share,
        "quality": model.fitted.quality,
        "collaborative": {
            "weights": BTreeMap::from(DemandClass::ALL.map(|class| (class.name(), collaborative.weight_of(class)))),
            "backtest": collaborative.backtest,
        },
    })
}
