//! `likemind evaluate demand`: measures forecasts at past origins, against all classic methods.

use chrono::Days;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::super::Exit;
use super::super::database::{Database, Purpose};
use super::super::figures::Figure;
use super::super::report::PhaseReport;
use super::instant;
use crate::app::demand::evaluate::{DemandEvaluation, DemandScope, SeriesOf, evaluate_demand};
use crate::config::Config;
use demand::backtest::{DistributionErrors, PointErrors};
use demand::class::DemandClass;
use demand::collaborative::CollaborativeErrors;
use domain::time::Timestamp;

#[derive(Debug, clap::Args)]
pub(super) struct DemandArgs {
    /// Only sales from this instant on, a date (2010-12-06) or RFC 3339
    #[arg(long, value_name = "DATE", value_parser = instant)]
    from: Option<Timestamp>,
    /// Only sales before this instant
    #[arg(long, value_name = "DATE", value_parser = instant)]
    until: Option<Timestamp>,
    /// Origins to forecast from, four weeks apart, the last of them eight weeks before the end
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=12))]
    origins: u32,
    /// Only items with at least this many weeks with sales before the origin
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    min_weeks: u32,
    /// The series to forecast
    #[arg(long, value_enum, default_value_t = By::Item)]
    by: By,
    /// Print the figures of every origin, method and class as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum By {
    Item,
    /// All items of a category together, as one series
    Category,
}

impl From<By> for SeriesOf {
    fn from(by: By) -> Self {
        match by {
            By::Item => Self::Item,
            By::Category => Self::Category,
        }
    }
}

pub(super) async fn run(args: DemandArgs, config: Config) -> anyhow::Result<Exit> {
    let database = Database::open(&config, Purpose::Job).await?;
    let scope = DemandScope {
        from: args.from,
        until: args.until,
        series: args.by.into(),
    };
    let progress = PhaseReport::new();
    progress.begin("evaluating");
    let (origins, min_weeks) = (args.origins as usize, args.min_weeks as usize);
    let evaluated = evaluate_demand(
        &database.pool,
        scope,
        origins,
        min_weeks,
        config.training_parameters(),
        &config.privacy.consent(),
    )
    .await;
    progress.end();
    let evaluated = evaluated?;
    match args.json {
        true => println!(
            "{}",
            serde_json::to_string_pretty(&json!({
                "points": evaluated.points,
                "distributions": evaluated.distributions,
                "launches": evaluated.launches,
                "collaborative": collaborative_json(&evaluated.collaborative),
            }))?
        ),
        false => print(&evaluated),
    }
    database.close().await?;
    Ok(Exit::Done)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0), |(sum, n), value| (sum + value, n + 1));
    sum / f64::from(n.max(1))
}

fn print(evaluated: &DemandEvaluation) {
    let Some(first) = evaluated.points.first() else {
        println!(
            "The sales of {} weeks are too short to forecast any from.",
            evaluated.n_weeks
        );
        return;
    };
    let mut origins: Vec<usize> = evaluated.points.iter().map(|row| row.origin).collect();
    origins.dedup();
    let date = |origin: usize| {
        (evaluated.begins_at + Days::new(origin as u64 * 7))
            .format("%Y-%m-%d")
            .to_string()
    };
    let dates: Vec<String> = origins.iter().map(|&origin| date(origin)).collect();
    println!("{} series, forecast from {}", first.n_items, dates.join(", "));
    println!("\nPoint forecasts of eight weeks, means over the origins");
    print_points(&evaluated.points);
    println!("\nThe same by class and origin");
    print_classes(&evaluated.points, &date);
    println!("\nDistribution of what sells in L weeks; the normal has mean and deviation of the last 13 weeks");
    print_distributions(&evaluated.distributions);
    print_collaborative(&evaluated.collaborative, &date);
    if !evaluated.launches.is_empty() {
        println!("\nNew items, WAPE of eight weeks");
        println!(
            "{:<12} {:>6} {:>11} {:>9} {:>11}",
            "origin", "items", "regression", "own mean", "class mean"
        );
        for row in &evaluated.launches {
            println!(
                "{:<12} {:>6} {:>11.3} {:>9.3} {:>11.3}",
                date(row.origin),
                row.n_items,
                row.regression_wape,
                row.own_mean_wape,
                row.class_mean_wape
            );
        }
    }
}

fn collaborative_json(rows: &[(usize, CollaborativeErrors)]) -> Vec<Value> {
    let row = |(origin, errors): &(usize, CollaborativeErrors)| json!({"origin": origin, "errors": errors});
    rows.iter().map(row).collect()
}

fn print_collaborative(rows: &[(usize, CollaborativeErrors)], date: &dyn Fn(usize) -> String) {
    if rows.is_empty() {
        return;
    }
    println!("\nWith what users are expected to buy, WAPE of eight weeks; the weight is that fitted before the origin");
    println!(
        "{:<12} {:<13} {:>6} {:>7} {:>8} {:>7} {:>7}",
        "origin", "class", "series", "weight", "without", "with", "alone"
    );
    for (origin, row) in rows {
        println!(
            "{:<12} {:<13} {:>6} {:>7} {:>8.4} {:>7.4} {:>7.4}",
            date(*origin),
            row.class.map_or("all", DemandClass::name),
            row.n_items,
            row.weight.map_or_else(String::new, |weight| format!("{weight:.1}")),
            row.wape_without,
            row.wape_with,
            row.wape_alone
        );
    }
}

fn print_points(points: &[PointErrors]) {
    let of = |method: &str| -> Vec<&PointErrors> {
        let rows = points.iter();
        rows.filter(|row| row.class.is_none() && row.method == method).collect()
    };
    let wape = |method: &str| mean(of(method).iter().map(|row| row.wape));
    let imapa = wape("IMAPA");
    let mut methods: Vec<&str> = points.iter().map(|row| row.method.as_str()).collect();
    methods.sort_unstable();
    methods.dedup();
    methods.sort_by(|a, b| wape(a).total_cmp(&wape(b)));
    println!(
        "{:<58} {:>7} {:>8} {:>7} {:>8}",
        "method", "WAPE", "÷ IMAPA", "RMSSE", "bias"
    );
    for method in methods {
        let rows = of(method);
        println!(
            "{method:<58} {:>7.4} {:>8.3} {:>7.3} {:>+8.3}",
            wape(method),
            wape(method) / imapa,
            mean(rows.iter().map(|row| row.rmsse)),
            Figure(mean(rows.iter().map(|row| row.bias)))
        );
    }
}

fn print_classes(points: &[PointErrors], date: &dyn Fn(usize) -> String) {
    println!(
        "{:<12} {:<13} {:>6} {:>7} {:>7} {:>7}",
        "origin", "class", "series", "chosen", "IMAPA", "naive"
    );
    for chosen in points.iter().filter(|row| row.method == "chosen") {
        let wape_of = |method: &str| {
            let mut rows = points.iter();
            let found =
                rows.find(|row| (row.origin, row.class) == (chosen.origin, chosen.class) && row.method == method);
            found.map_or(f64::NAN, |row| row.wape)
        };
        println!(
            "{:<12} {:<13} {:>6} {:>7.4} {:>7.4} {:>7.4}",
            date(chosen.origin),
            chosen.class.map_or("all", DemandClass::name),
            chosen.n_items,
            chosen.wape,
            wape_of("IMAPA"),
            wape_of("naive")
        );
    }
}

fn print_distributions(distributions: &[DistributionErrors]) {
    let mut horizons: Vec<usize> = distributions.iter().map(|row| row.weeks).collect();
    horizons.sort_unstable();
    horizons.dedup();
    println!(
        "{:>2} {:>8} {:>8} {:>8} {:>8}  coverage",
        "L", "bias", "pinball", "normal", "ratio"
    );
    for weeks in horizons {
        let rows: Vec<&DistributionErrors> = distributions
            .iter()
            .filter(|row| row.class.is_none() && row.weeks == weeks)
            .collect();
        let pinball = mean(rows.iter().map(|row| row.mean_pinball()));
        let normal = mean(rows.iter().map(|row| row.mean_normal_pinball()));
        let coverage: Vec<String> = (0..rows[0].levels.len())
            .map(|at| {
                let covered = mean(rows.iter().map(|row| row.levels[at].coverage));
                format!("{}: {covered:.3}", rows[0].levels[at].level)
            })
            .collect();
        println!(
            "{weeks:>2} {:>+8.3} {pinball:>8.4} {normal:>8.4} {:>8.3}  {}",
            Figure(mean(rows.iter().map(|row| row.bias))),
            pinball / normal,
            coverage.join("  ")
        );
    }
}
