//! Shows a forecast, and what to reorder by stock levels that are made up.

use serde_json::{Value, json};

use super::commands::Commands;
use super::demo::{Demo, array, named, number, text};

/// A category of the Complete Journey that sells every week.
const CATEGORY: &str = "SOFT DRINKS";
const WEEKS: u32 = 8;
/// Weeks of its expected demand that each item is given as its stock, in turn.
const MADE_UP_WEEKS: [f64; 5] = [0.0, 0.5, 2.0, 5.0, 60.0];

pub(super) async fn show(demo: &mut Demo, commands: &mut Commands) -> anyhow::Result<()> {
    let forecast = json!({ "category": CATEGORY, "horizon_weeks": WEEKS, "levels": [0.5, 0.9], "limit": 10 });
    let asked = demo
        .ask_unless("NO_DEMAND_MODEL", "DemandService/ForecastDemand", &forecast)
        .await?;
    let Some(answer) = asked else { return Ok(()) };
    let items = array(&answer["items"]);
    let Some(first) = items.first().filter(|item| number(&item["expected_units"]) > 0.0) else {
        return Ok(());
    };
    let item_ids: Vec<&str> = items.iter().map(|item| text(&item["item_id"])).collect();
    print_forecast(demo, first, &answer).await?;
    make_up_stock(demo, items).await?;
    let list = json!({ "item_ids": item_ids, "limit": 5 });
    let listed = demo.stream("InventoryService/ListReplenishment", &list).await?;
    println!("\nWhat should be reordered first? The stock levels are made up for this demonstration.");
    for row in listed
        .iter()
        .map(|message| &message["row"])
        .filter(|row| row.is_object())
    {
        println!(
            "  {:>2}. {:<40} order {:.0}; {:.0} on hand, stock-out within two weeks: {:.0} %",
            number(&row["rank"]),
            with_title(demo, text(&row["item_id"])).await?,
            number(&row["recommended_units"]),
            number(&row["on_hand"]),
            number(&row["stock_out_probability"]) * 100.0
        );
    }
    commands.begin("Forecast demand and reorder:");
    commands.call("DemandService/ForecastDemand", &forecast);
    commands.call("InventoryService/ListReplenishment", &list);
    commands.likemind(&["forecast", "--category", CATEGORY]);
    commands.likemind(&["replenish", "--format", "table"]);
    Ok(())
}

async fn print_forecast(demo: &mut Demo, item: &Value, answer: &Value) -> anyhow::Result<()> {
    let name = with_title(demo, text(&item["item_id"])).await?;
    let begins = text(&answer["begins_at"]).get(..10).unwrap_or_default();
    println!("\nHow much of {name} will sell in the {WEEKS} weeks from {begins}?");
    let quantiles: Vec<String> = array(&item["quantiles"])
        .iter()
        .map(|quantile| {
            let percent = number(&quantile["level"]) * 100.0;
            format!("at most {:.0} with {percent:.0} %", number(&quantile["units"]))
        })
        .collect();
    println!(
        "  {:.1} units are expected: {}",
        number(&item["expected_units"]),
        quantiles.join(", ")
    );
    let total = &answer["total"];
    println!(
        "  All {} items of {CATEGORY}: {:.0} units",
        number(&total["items"]),
        number(&total["expected_units"])
    );
    Ok(())
}

/// Stores a policy and a stock of some weeks of its expected demand for each item.
async fn make_up_stock(demo: &mut Demo, items: &[Value]) -> anyhow::Result<()> {
    let weeks = MADE_UP_WEEKS.iter().cycle();
    let position = |(item, weeks): (&Value, &f64)| {
        let weekly = number(&item["expected_units"]) / f64::from(WEEKS);
        json!({ "item_id": item["item_id"], "on_hand": (weekly * weeks).round() })
    };
    let positions: Vec<Value> = items.iter().zip(weeks).map(position).collect();
    let policy = |item: &Value| {
        json!({
            "scope": { "item_id": item["item_id"] },
            "lead_time_days": 14,
            "review_period_days": 7,
            "fill_rate": 0.95,
        })
    };
    let policies: Vec<Value> = items.iter().map(policy).collect();
    let policies = json!({ "policies": policies });
    demo.ask("InventoryService/UpsertReplenishmentPolicies", &policies)
        .await?;
    let positions = json!({ "positions": positions });
    demo.ask("InventoryService/UpsertInventoryPositions", &positions)
        .await?;
    Ok(())
}

/// Returns title and id of an item.
async fn with_title(demo: &mut Demo, item_id: &str) -> anyhow::Result<String> {
    let answer = demo
        .ask("CatalogService/GetItem", &json!({ "item_id": item_id }))
        .await?;
    Ok(named(&answer["item"]))
}
