//! `likemind replenish`: lists what to reorder, and what is overstocked.

use anyhow::{Context, anyhow};
use chrono::Utc;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::database::{Database, Purpose};
use super::process::operator;
use super::{Exit, csv_output, ids};
use crate::app::demand::forecast::Sales;
use crate::app::demand::replenishment::{Alert, Replenishment, ReplenishmentRequest, Row, list};
use crate::config::Config;
use crate::live::Live;
use demand::replenishment::QuantityReason;
use domain::decimal::Decimal;
use domain::id::{Category, ItemId, MerchantId};
use domain::money::{Currency, Money};

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct ReplenishArgs {
    /// Only these items
    #[arg(value_name = "ITEM", value_parser = ids::item)]
    items: Vec<ItemId>,
    /// Only items of this category
    #[arg(long, value_parser = ids::category)]
    category: Option<Category>,
    /// Only items of this merchant
    #[arg(long, value_parser = ids::merchant)]
    merchant: Option<MerchantId>,
    /// Only items with an alert
    #[arg(long)]
    only_alerts: bool,
    /// The money that orders may cost together, such as "2500 GBP"
    #[arg(long, value_name = "AMOUNT CURRENCY", value_parser = money)]
    budget: Option<Money>,
    /// The greatest number of rows [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// The format of the rows
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
}

const AFTER_HELP: &str = "\
Rows go to standard output, most urgent first: by the probability of a stock-out within the lead time. What is not listed goes to
standard error: counted items without a policy, and with a budget those without a cost in its currency. Load stock with `import
inventory` and policies with `import policies`.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Csv,
    /// One JSON object per line
    Jsonl,
    Table,
}

fn money(text: &str) -> Result<Money, String> {
    let (amount, currency) = text
        .split_once(' ')
        .ok_or("must be an amount and a currency, such as \"2500 GBP\"")?;
    let currency = Currency::new(currency.trim()).map_err(|error| error.message)?;
    let amount = Decimal::parse("budget", amount).map_err(|error| error.message)?;
    let money = Money::from_major("budget", amount, currency).map_err(|error| error.message)?;
    money.require_not_negative().map_err(|error| error.message)
}

pub(super) async fn run(args: ReplenishArgs, config: Config) -> anyhow::Result<Exit> {
    let database = Database::open(&config, Purpose::Job).await?;
    let live = Live::read(database.pool.clone(), config.live.clone(), config.privacy.consent()).await?;
    let view = live.view().ok_or_else(|| anyhow!(live.status().without_snapshot()))?;
    live.refresh_fresh_sales().await?;
    live.refresh_inventory().await?;
    let (fresh, inventory) = (live.fresh_sales(), live.inventory());
    let model = view.snapshot.demand().map_err(anyhow::Error::msg);
    let model = model.with_context(|| format!("snapshot {} has no forecast", view.version))?;
    let now = Utc::now();
    let sales = Sales::new(&view, model, &fresh, now);
    let request = ReplenishmentRequest {
        items: args.items,
        category: args.category,
        merchant: args.merchant,
        only_alerts: args.only_alerts,
        budget: args.budget,
    };
    let mut found = list(&sales, &inventory, &request, now, &operator());
    found
        .rows
        .truncate(args.limit.map_or(usize::MAX, |limit| limit as usize));
    describe(&found, args.budget);
    match args.format {
        Format::Csv => print_csv(&found)?,
        Format::Jsonl => found
            .rows
            .iter()
            .zip(1..)
            .for_each(|(row, rank)| println!("{}", to_json(row, rank))),
        Format::Table => print_table(&found),
    }
    database.close().await?;
    Ok(Exit::Done)
}

/// Says what is not in the list.
fn describe(found: &Replenishment, budget: Option<Money>) {
    const NAMED: usize = 5;
    let names = |items: &[ItemId]| {
        let named: Vec<&str> = items.iter().take(NAMED).map(ItemId::as_str).collect();
        let more = if items.len() > NAMED { ", …" } else { "" };
        format!("{}{more}", named.join(", "))
    };
    if !found.without_policy.is_empty() {
        let items = &found.without_policy;
        eprintln!(
            "{} counted items have no policy and are not listed: {}",
            items.len(),
            names(items)
        );
    }
    if !found.without_cost.is_empty() {
        let items = &found.without_cost;
        eprintln!(
            "{} items to order have no cost in the budget's currency: {}",
            items.len(),
            names(items)
        );
    }
    if let Some(budget) = budget {
        let spent = Money {
            amount_minor: found.budget_spent_minor,
            ..budget
        };
        eprintln!("the orders within the budget cost {spent} of {budget}");
    }
}

const COLUMNS: [&str; 20] = [
    "rank",
    "item_id",
    "order_units",
    "order_cost_minor",
    "currency",
    "budget_units",
    "position",
    "on_hand",
    "on_order",
    "backordered",
    "reorder_point",
    "order_up_to",
    "safety_stock",
    "expected_units",
    "stock_out_probability",
    "stock_out_in_days",
    "late_units",
    "overstock_units",
    "alerts",
    "why",
];

fn print_csv(found: &Replenishment) -> anyhow::Result<()> {
    println!("{}", csv_output::line(&COLUMNS.map(str::to_owned))?);
    for (row, rank) in found.rows.iter().zip(1..) {
        println!("{}", csv_output::line(&fields(row, rank))?);
    }
    Ok(())
}

fn fields(row: &Row, rank: usize) -> Vec<String> {
    let units = |value: f64| {
        format!("{value:.3}")
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    };
    let cost = row.cost_of(row.quantity.units);
    let on_order = row.stock.on_order();
    let days = row.risks.stock_out_in_days;
    vec![
        rank.to_string(),
        row.item.to_string(),
        units(row.quantity.units),
        cost.map_or_else(String::new, |cost| cost.amount_minor.to_string()),
        cost.map_or_else(String::new, |cost| cost.currency.to_string()),
        row.budget_units.map_or_else(String::new, units),
        units(row.stock.position()),
        units(row.stock.on_hand),
        units(on_order),
        units(row.stock.backordered),
        units(row.levels.reorder_point),
        units(row.levels.order_up_to),
        units(row.levels.safety_stock),
        units(row.expected_units),
        format!("{:.4}", row.risks.stock_out_probability),
        days.map_or_else(String::new, |days| days.to_string()),
        units(row.risks.late_units),
        units(row.risks.overstock_units),
        alerts(row).join(" "),
        row.reasons.join(" "),
    ]
}

fn alerts(row: &Row) -> Vec<&'static str> {
    let name = |alert: &Alert| match alert {
        Alert::StockOut => "STOCK_OUT",
        Alert::LateOrder => "LATE_ORDER",
        Alert::Overstock => "OVERSTOCK",
        Alert::DeadStock => "DEAD_STOCK",
        Alert::StaleCount => "STALE_COUNT",
    };
    row.alerts.iter().map(name).collect()
}

fn quantity_reason(row: &Row) -> &'static str {
    match row.quantity.reason {
        QuantityReason::NotDue => "NOT_DUE",
        QuantityReason::Missing => "MISSING",
        QuantityReason::RaisedToMinimum => "RAISED_TO_MINIMUM",
        QuantityReason::RoundedToMultiple => "ROUNDED_TO_MULTIPLE",
        QuantityReason::ReducedToCover => "REDUCED_TO_COVER",
        QuantityReason::MinimumExceedsCover => "MINIMUM_EXCEEDS_COVER",
    }
}

fn to_json(row: &Row, rank: usize) -> Value {
    json!({
        "rank": rank,
        "item_id": row.item.as_str(),
        "order_units": row.quantity.units,
        "quantity_reason": quantity_reason(row),
        "order_cost_minor": row.cost_of(row.quantity.units).map(|cost| cost.amount_minor),
        "currency": row.policy.unit_cost.map(|cost| cost.currency.to_string()),
        "budget_units": row.budget_units,
        "position": row.stock.position(),
        "on_hand": row.stock.on_hand,
        "backordered": row.stock.backordered,
        "reorder_point": row.levels.reorder_point,
        "order_up_to": row.levels.order_up_to,
        "safety_stock": row.levels.safety_stock,
        "expected_units": row.expected_units,
        "stock_out_probability": row.risks.stock_out_probability,
        "stock_out_in_days": row.risks.stock_out_in_days,
        "late_units": row.risks.late_units,
        "overstock_units": row.risks.overstock_units,
        "alerts": alerts(row),
        "reasons": row.reasons,
    })
}

fn print_table(found: &Replenishment) {
    println!(
        "{:<20} {:>8} {:>9} {:>9} {:>9} {:>10} alerts",
        "item", "order", "position", "reorder", "up to", "stock-out"
    );
    for row in &found.rows {
        println!(
            "{:<20} {:>8.0} {:>9.1} {:>9.1} {:>9.1} {:>8.0} % {}",
            row.item,
            row.quantity.units,
            row.stock.position(),
            row.levels.reorder_point,
            row.levels.order_up_to,
            row.risks.stock_out_probability * 100.0,
            alerts(row).join(" ")
        );
    }
}
