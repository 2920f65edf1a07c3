//! `likemind evaluate replenishment`: replays past weeks, and compares the stock with that of the common rule.

use serde_json::json;

use super::super::Exit;
use super::super::database::{Database, Purpose};
use super::super::report::PhaseReport;
use super::demand::By;
use super::instant;
use crate::app::demand::evaluate::{DemandScope, evaluate_replenishment};
use crate::app::demand::simulate::{SimulationOptions, WARM_UP_WEEKS};
use crate::config::Config;
use demand::comparison::Comparison;
use domain::time::Timestamp;

#[derive(Debug, clap::Args)]
pub(super) struct ReplenishmentArgs {
    /// Only sales from this instant on, a date (2010-12-06) or RFC 3339
    #[arg(long, value_name = "DATE", value_parser = instant)]
    from: Option<Timestamp>,
    /// Only sales before this instant
    #[arg(long, value_name = "DATE", value_parser = instant)]
    until: Option<Timestamp>,
    /// Weeks between an order and its arrival
    #[arg(long, value_name = "WEEKS", value_delimiter = ',', default_values_t = [1, 2, 4], value_parser = clap::value_parser!(u32).range(1..=12))]
    lead_times: Vec<u32>,
    /// Weeks to replay, the last ones; the first four are not counted
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(6..=52))]
    weeks: u32,
    /// Only items with at least this many weeks with sales before the replay
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    min_weeks: u32,
    /// The series to stock
    #[arg(long, value_enum, default_value_t = By::Item)]
    by: By,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ReplenishmentArgs, config: Config) -> anyhow::Result<Exit> {
    let database = Database::open(&config, Purpose::Job).await?;
    let scope = DemandScope {
        from: args.from,
        until: args.until,
        series: args.by.into(),
    };
    let options = |&lead_time_weeks: &u32| SimulationOptions {
        lead_time_weeks: lead_time_weeks as usize,
        weeks: args.weeks as usize,
        min_weeks_with_sales: args.min_weeks as usize,
    };
    let options: Vec<SimulationOptions> = args.lead_times.iter().map(options).collect();
    let progress = PhaseReport::new();
    progress.begin("evaluating");
    let evaluated = evaluate_replenishment(&database.pool, scope, options, &config.privacy.consent()).await;
    progress.end();
    let evaluated = evaluated?;
    match args.json {
        true => {
            let rows = evaluated
                .iter()
                .map(|(weeks, found)| json!({"lead_time_weeks": weeks, "comparison": found}));
            println!("{}", serde_json::to_string_pretty(&rows.collect::<Vec<_>>())?);
        }
        false => print(&evaluated),
    }
    database.close().await?;
    Ok(Exit::Done)
}

fn print(evaluated: &[(usize, Option<Comparison>)]) {
    println!(
        "Weekly orders and lost sales; the first {WARM_UP_WEEKS} weeks are not counted. The rule is mean + z · deviation · √L of the last 13 weeks."
    );
    for (lead_time_weeks, found) in evaluated {
        let Some(found) = found else {
            println!("\nLead time {lead_time_weeks} weeks: no item has enough sales before the replay.");
            continue;
        };
        println!("\nLead time {lead_time_weeks} weeks, {} items", found.n_items);
        println!(
            "{:>9} {:>12} {:>12} {:>9} {:>9}",
            "fill rate", "units", "rule's units", "saved", "in value"
        );
        for row in &found.stocks {
            println!(
                "{:>9.2} {:>12.0} {:>12.0} {:>7.1} % {:>9}",
                row.fill_rate,
                row.stock_units,
                row.rule_stock_units,
                row.saved_units_share() * 100.0,
                row.saved_value_share()
                    .map_or_else(String::new, |share| format!("{:.1} %", share * 100.0))
            );
        }
        for row in &found.realized {
            println!("A target fill rate of {:.2} realizes {:.3}.", row.target, row.realized);
        }
        println!("Stock-outs by predicted probability:");
        for bin in &found.stock_outs {
            println!(
                "  up to {:.2}: predicted {:.3}, observed {:.3} of {}",
                bin.up_to, bin.predicted, bin.observed, bin.n
            );
        }
    }
}
