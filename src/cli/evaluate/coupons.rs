//! `likemind evaluate coupons`: ranks and predicts the redeemers of past campaigns.

use super::super::Exit;
use super::super::database::{Database, Purpose};
use super::super::report::{self, PhaseReport};
use super::instant;
use crate::app::evaluate::evaluate_coupons;
use crate::config::Config;
use coupons::backtest::{Backtest, BacktestOptions, LeftOut, LeftOutReason, RecipientRanker};
use coupons::propensity::fit::FitOptions;
use domain::time::Timestamp;

#[derive(Debug, clap::Args)]
pub(super) struct CouponsArgs {
    /// Only campaigns that start at this instant or later, a date (2017-03-01) or RFC 3339
    #[arg(long, value_name = "DATE", value_parser = instant)]
    from: Option<Timestamp>,
    /// Only campaigns that start before this instant
    #[arg(long, value_name = "DATE", value_parser = instant)]
    until: Option<Timestamp>,
    /// Only campaigns with at least this many recipients who redeemed a coupon
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    min_redeemers: u32,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: CouponsArgs, config: Config) -> anyhow::Result<Exit> {
    let database = Database::open(&config, Purpose::Job).await?;
    let fit = FitOptions::new(config.coupons.min_redemptions);
    let options = BacktestOptions {
        from: args.from,
        until: args.until,
        min_redeemers: args.min_redeemers as usize,
        ..BacktestOptions::new(fit, config.training.seed)
    };
    let progress = PhaseReport::new();
    progress.begin("evaluating");
    let backtest = evaluate_coupons(
        &database.pool,
        config.training_parameters(),
        options,
        &config.privacy.consent(),
    )
    .await;
    progress.end();
    let backtest = backtest?;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&backtest)?),
        false => print(&backtest),
    }
    database.close().await?;
    Ok(Exit::Done)
}

fn print(backtest: &Backtest) {
    match &backtest.propensity {
        Some(quality) => {
            println!("Ranking the recipients of {} campaigns by", quality.campaigns.len());
            println!("{:<44} {:>8} {:>8}", "", "ROC-AUC", "lift@10%");
            for row in &backtest.rankers {
                let ranker = ranker(row.ranker);
                println!("{ranker:<44} {:>8.3} {:>8.2}", row.roc_auc, row.lift_at_10_percent);
            }
            println!();
            report::print_propensity(quality);
            if let Some(known_until) = backtest.known_until {
                println!("The data end at {}.", known_until.format("%Y-%m-%dT%H:%M:%SZ"));
            }
        }
        None => println!("No campaign could be predicted."),
    }
    if !backtest.left_out.is_empty() {
        println!("\nCampaigns left out:");
    }
    for campaign in &backtest.left_out {
        let start = campaign.starts_at.format("%Y-%m-%d");
        println!("  {} ({start}): {}", campaign.campaign_id, reason_left_out(campaign));
    }
}

fn ranker(ranker: RecipientRanker) -> &'static str {
    match ranker {
        RecipientRanker::Random => "random",
        RecipientRanker::Spend => "spend",
        RecipientRanker::Orders => "orders (frequency)",
        RecipientRanker::Recency => "last order (recency)",
        RecipientRanker::OwnPurchases => "own purchases",
        RecipientRanker::Affinity => "affinity (item-based)",
        RecipientRanker::AffinityAllPairs => "affinity (item-based, all neighbors)",
        RecipientRanker::AffinityUserBased => "affinity (user-based)",
        RecipientRanker::Redemptions => "past redemptions",
        RecipientRanker::DiscountedLines => "past discounted lines",
        RecipientRanker::RankMean => "mean rank of redemptions, lines and affinity",
        RecipientRanker::Propensity => "propensity",
    }
}

fn reason_left_out(campaign: &LeftOut) -> String {
    let (recipients, redeemers) = (campaign.recipients, campaign.redeemers);
    match &campaign.because {
        LeftOutReason::NoRecipients => "nobody was assigned or exposed to it".to_owned(),
        LeftOutReason::NoHistory => "there are too few days of purchases before it started".to_owned(),
        LeftOutReason::TooFewRedeemers => format!("only {redeemers} of {recipients} recipients redeemed"),
        LeftOutReason::AllRedeemed => format!("all {recipients} recipients redeemed"),
        LeftOutReason::TooLongAgo => "it is too long ago".to_owned(),
        LeftOutReason::PropensityRefused { reason } => format!("the propensity cannot be fitted: {reason}"),
    }
}
