//! `likemind evaluate`: measures parameters on past data.

mod coupons;
mod demand;
mod replenishment;
mod trade_offs;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::json;

use super::Exit;
use super::database::{Database, Purpose};
use super::report::{self, PhaseReport};
use crate::app::evaluate::evaluate;
use crate::config::Config;
use domain::time::Timestamp;
use recommender::evaluation::report::ItemScope;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct EvaluateArgs {
    #[command(subcommand)]
    command: Option<EvaluateCommand>,
    /// Hold out all data from this instant on, a date (2011-08-15) or RFC 3339 [default: hold out the last
    /// weeks, as training does; see evaluation.test_weeks]
    #[arg(long, value_name = "DATE", value_parser = instant)]
    split_at: Option<Timestamp>,
    #[command(flatten)]
    grids: trade_offs::Grids,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum EvaluateCommand {
    /// Measure how well the redeemers of past campaigns could be ranked and predicted before each campaign started
    Coupons(coupons::CouponsArgs),
    /// Measure how well demand could be forecast at past origins, against all classic methods
    Demand(demand::DemandArgs),
    /// Measure how much stock is needed, by replaying past weeks, against a common rule
    Replenishment(replenishment::ReplenishmentArgs),
}

fn instant(text: &str) -> Result<Timestamp, String> {
    let date = text
        .parse::<NaiveDate>()
        .ok()
        .and_then(|date| date.and_hms_opt(0, 0, 0));
    date.map(|midnight| midnight.and_utc())
        .or_else(|| DateTime::parse_from_rfc3339(text).ok().map(|at| at.with_timezone(&Utc)))
        .ok_or_else(|| "must be a date, for example 2011-08-15, or a time in RFC 3339".to_owned())
}

pub(super) async fn run(args: EvaluateArgs, config: Config) -> anyhow::Result<Exit> {
    match args.command {
        Some(EvaluateCommand::Coupons(args)) => return coupons::run(args, config).await,
        Some(EvaluateCommand::Demand(args)) => return demand::run(args, config).await,
        Some(EvaluateCommand::Replenishment(args)) => return replenishment::run(args, config).await,
        None => {}
    }
    let database = Database::open(&config, Purpose::Job).await?;
    let progress = PhaseReport::new();
    progress.begin("evaluating");
    let parameters = config.training_parameters();
    let options = config.evaluation.clone();
    let settings = args.grids.settings();
    let evaluated = evaluate(
        &database.pool,
        parameters,
        args.split_at,
        options,
        &config.privacy.consent(),
        settings,
    )
    .await;
    progress.end();
    let (evaluated, measured) = evaluated?;
    args.grids.write_csv(&measured)?;
    match args.json {
        true => {
            let figures = json!({
                "weights": evaluated.fitted.weights,
                "settings": evaluated.fitted.settings,
                "choice": evaluated.choice,
                "tables": evaluated.tables,
                "ranking": evaluated.ranking,
                "rating": evaluated.rating,
                "trade_offs": trade_offs::to_json(&measured),
            });
            println!("{}", serde_json::to_string_pretty(&figures)?);
        }
        false => {
            report::print_ranking(&evaluated.ranking);
            report::print_rating(&evaluated.rating);
            report::print_settings(Some(&evaluated.fitted.settings), &evaluated.tables);
            report::print_choices(Some(&evaluated.fitted.weights), Some(&evaluated.choice));
            trade_offs::print(evaluated.ranker(ItemScope::New).name, &measured);
        }
    }
    database.close().await?;
    Ok(Exit::Done)
}
