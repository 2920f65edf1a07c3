//! `likemind evaluate`.

mod coupons;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::json;

use super::Exit;
use super::database::{Database, Purpose};
use super::report::{self, PhaseReport};
use crate::app::evaluate::evaluate;
use crate::config::Config;
use domain::time::Timestamp;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct EvaluateArgs {
    #[command(subcommand)]
    subject: Option<Subject>,
    /// Hold out everything from this instant on (2011-08-15, or RFC 3339) instead of the latest part of every
    /// user's history
    #[arg(long, value_name = "DATE", value_parser = instant)]
    split_at: Option<Timestamp>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Subject {
    /// How well past campaigns' redeemers would have been found and foreseen, each by what was known when it started
    Coupons(coupons::CouponsArgs),
}

fn instant(text: &str) -> Result<Timestamp, String> {
    let date = text
        .parse::<NaiveDate>()
        .ok()
        .and_then(|date| date.and_hms_opt(0, 0, 0));
    date.map(|midnight| midnight.and_utc())
        .or_else(|| DateTime::parse_from_rfc3339(text).ok().map(|at| at.with_timezone(&Utc)))
        .ok_or_else(|| "must be a date like 2011-08-15, or RFC 3339".to_owned())
}

pub(super) async fn run(args: EvaluateArgs, config: Config) -> anyhow::Result<Exit> {
    if let Some(Subject::Coupons(args)) = args.subject {
        return coupons::run(args, config).await;
    }
    let database = Database::open(&config, Purpose::Job).await?;
    let progress = PhaseReport::new();
    progress.begin("evaluating");
    let parameters = config.training_parameters();
    let options = config.evaluation.clone();
    let evaluated = evaluate(&database.pool, parameters, args.split_at, options, &config.privacy).await;
    progress.end();
    let evaluated = evaluated?;
    match args.json {
        true => {
            let figures = json!({
                "weights": evaluated.weights,
                "ranking": evaluated.ranking,
                "rating": evaluated.rating,
            });
            println!("{}", serde_json::to_string_pretty(&figures)?);
        }
        false => {
            report::print_ranking(&evaluated.ranking);
            report::print_rating(&evaluated.rating);
        }
    }
    database.close().await?;
    Ok(Exit::Done)
}
