//! `likemind targets`: lists the users who should get a coupon.

use std::io::{self, ErrorKind, Write};
use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::database::{Database, Purpose};
use super::figures::Figure;
use super::{Exit, csv_output, process};
use crate::app::targets::{Header, Target, Targets, TargetsError, TargetsRequest};
use crate::config::Config;
use crate::live::Live;
use coupons::affinity::AffinityTerm;
use coupons::eligibility::Policy;
use coupons::propensity::FeatureContribution;
use coupons::scoring::{Explanation, RankBy};
use domain::error::chain;
use domain::id::CouponId;
use recommender::snapshot::Snapshot;

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct TargetsArgs {
    /// The id of the coupon
    #[arg(value_name = "COUPON", value_parser = coupon)]
    coupon: CouponId,
    /// The greatest number of rows [default: all]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// List only targets with at least this score
    #[arg(long, value_name = "X", value_parser = score, allow_negative_numbers = true)]
    min_score: Option<f64>,
    /// The score to rank by
    #[arg(long, value_enum, default_value_t = Ranker::Affinity)]
    by: Ranker,
    /// The format of the rows
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
    /// The format of the numbers of users on standard error
    #[arg(long, value_enum, default_value_t = CountsFormat::Text)]
    counts: CountsFormat,
    /// Explain each score
    #[arg(long)]
    explain: bool,
    /// Log the listed users as offered, and those who are held out as such; without it nothing is logged
    #[arg(long)]
    log: bool,
    /// Log nobody; this is the default
    #[arg(long, hide = true, conflicts_with = "log")]
    preview: bool,
}

const AFTER_HELP: &str = "\
Rows go to standard output; the numbers of eligible and excluded users go to standard error, with whether the list is
logged. Each excluded user counts once, by the first reason, and in a second column by every reason. Users who object
to marketing or are suppressed while the command runs are left out of the remaining rows.

Without --log the list is a preview: nobody counts as offered, neither for the cap on offers nor for the effect of the
campaign. Use --log when the coupon is sent to the listed users; the rows that are printed are then logged, with the
users held out among them.

Exit codes:
  0  success
  1  failure; the message says why
  2  invalid usage or configuration
  3  the propensity is not fitted, or the campaign has stopped; rows printed before remain valid
130  interrupted; rows printed before remain valid";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Ranker {
    /// The summed similarity of the covered items to the user's history, which is not a probability
    Affinity,
    /// The probability that the user redeems the coupon
    Propensity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Csv,
    /// One JSON object per line
    Jsonl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CountsFormat {
    Text,
    /// One JSON object
    Json,
}

fn coupon(text: &str) -> Result<CouponId, String> {
    CouponId::new(text).map_err(|error| error.message)
}

fn score(text: &str) -> Result<f64, String> {
    let score = text.parse().ok().filter(|score: &f64| score.is_finite());
    score.ok_or_else(|| "must be a finite number".to_owned())
}

pub(super) async fn run(args: TargetsArgs, config: Config) -> anyhow::Result<Exit> {
    let interrupt = process::shutdown_requested();
    let database = Database::open(&config, Purpose::Job).await?;
    let live = Live::read(database.pool.clone(), config.live.clone(), config.privacy.consent()).await?;
    let (format, counts) = (args.format, args.counts);
    let explain = args.explain;
    let policy = Policy::new(config.privacy.consent(), &config.coupons);
    let listed = match Targets::open(&database.pool, &live, policy, request(args)).await {
        Ok(mut targets) => {
            match counts {
                CountsFormat::Text => eprintln!("{}", describe(targets.header())),
                CountsFormat::Json => eprintln!("{}", header_json(targets.header())),
            }
            let listed = tokio::select! {
                listed = list(&mut targets, format, explain) => listed,
                () = interrupt.cancelled() => Ok(Exit::Interrupted),
            };
            targets.close().await?;
            listed
        }
        Err(error) => Err(error.into()),
    };
    let exit = match listed {
        Err(error) if is_refusal(&error) => {
            eprintln!("error: {}", chain(&*error));
            Exit::Refused
        }
        Err(error) if matches!(error.downcast_ref(), Some(TargetsError::NoSnapshot(_))) => {
            anyhow::bail!(live.status().without_snapshot());
        }
        listed => listed?,
    };
    database.close().await?;
    Ok(exit)
}

/// Returns whether the state of the coupon or of its campaign is the reason, which has an exit code of its own.
fn is_refusal(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(TargetsError::NotFitted(_) | TargetsError::Stopped { .. })
    )
}

fn request(args: TargetsArgs) -> TargetsRequest {
    TargetsRequest {
        coupon: args.coupon,
        by: match args.by {
            Ranker::Affinity => RankBy::Affinity,
            Ranker::Propensity => RankBy::Propensity,
        },
        limit: args.limit,
        min_score: args.min_score,
        after: None,
        explain: args.explain,
        // `--preview` says what holds without `--log` anyway.
        preview: !args.log || args.preview,
        caller: Arc::new(process::operator()),
    }
}

fn by_name(by: RankBy) -> &'static str {
    match by {
        RankBy::Affinity => "affinity",
        RankBy::Propensity => "propensity",
    }
}

/// Says in words how many users are eligible, and how many are not and why.
fn describe(header: &Header) -> String {
    let counts = &header.counts;
    let mut text = format!(
        "coupon {}, ranked by {} with snapshot {}: {} users, of whom {} are eligible",
        header.coupon,
        by_name(header.by),
        header.bytes.version,
        counts.audience,
        counts.eligible
    );
    text.push_str(match header.is_logged {
        true => "; the listed users are logged as offered",
        false => "; a preview, nobody is logged as offered (--log)",
    });
    if counts.excluded.is_empty() {
        return text;
    }
    let widest = counts.audience.to_string().len().max("by first reason".len());
    text.push_str(&format!(
        "\n  {:<22} {:>widest$}  {:>widest$}",
        "excluded", "by first reason", "by any reason"
    ));
    for (code, users) in &counts.excluded {
        text.push_str(&format!(
            "\n  {:<22} {:>widest$}  {:>widest$}",
            code.name(),
            users.first,
            users.all
        ));
    }
    let excluded: usize = counts.excluded.values().map(|users| users.first).sum();
    text.push_str(&format!("\n  {:<22} {excluded:>widest$}", "all reasons"));
    text
}

fn header_json(header: &Header) -> Value {
    let counts = &header.counts;
    let excluded = counts.excluded.iter().map(
        |(code, users)| json!({ "reason": code.name(), "users_by_first_reason": users.first, "users": users.all }),
    );
    json!({
        "coupon_id": header.coupon.as_str(),
        "by": by_name(header.by),
        "snapshot_version": header.bytes.version,
        "audience_count": counts.audience,
        "eligible_count": counts.eligible,
        "logged": header.is_logged,
        "excluded": excluded.collect::<Vec<_>>(),
    })
}

/// Prints the rows until the end, or until the reader closes the pipe.
async fn list(targets: &mut Targets, format: Format, explain: bool) -> anyhow::Result<Exit> {
    let snapshot = targets.snapshot().clone();
    let mut output = io::BufWriter::new(io::stdout());
    let mut print = |line: String| match writeln!(output, "{line}") {
        Ok(()) => Ok(true),
        // The reader has closed the pipe, as `head` does, and needs no more.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("standard output cannot be written"),
    };
    if format == Format::Csv && !print(csv_output::line(&columns(explain))?)? {
        return Ok(Exit::Done);
    }
    loop {
        let Some(target) = targets.next().await? else { break };
        let line = match format {
            Format::Csv => csv_row(&snapshot, &target, explain)?,
            Format::Jsonl => json_row(&snapshot, &target).to_string(),
        };
        if !print(line)? {
            return Ok(Exit::Done);
        }
    }
    match output.flush() {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("standard output cannot be written"),
        _ => Ok(Exit::Done),
    }
}

fn columns(explain: bool) -> Vec<String> {
    let explanation = explain.then_some("explanation");
    let names = ["rank", "user_id", "score"].into_iter().chain(explanation);
    names.map(str::to_owned).collect()
}

fn csv_row(snapshot: &Snapshot, target: &Target, explain: bool) -> anyhow::Result<String> {
    let mut fields = vec![
        target.rank.to_string(),
        target.user.clone(),
        Figure(target.score).to_string(),
    ];
    if explain {
        let explanation = target.explanation.as_ref();
        fields.push(explanation.map_or_else(String::new, |explanation| in_words(snapshot, explanation)));
    }
    csv_output::line(&fields)
}

/// Explains a score in one line.
fn in_words(snapshot: &Snapshot, explanation: &Explanation) -> String {
    match explanation {
        Explanation::Affinity(affinity) => {
            let name = |term: &AffinityTerm| match snapshot.catalog().facts(term.item).title {
                "" => snapshot.items().id(term.item).to_owned(),
                title => title.to_owned(),
            };
            let item = |term: &AffinityTerm| format!("{} {:.4}", name(term), Figure(term.contribution));
            let mut parts: Vec<String> = affinity.items.iter().map(item).collect();
            if affinity.other_items > 0 {
                let (others, contribution) = (affinity.other_items, affinity.other_items_contribution);
                parts.push(format!("{others} others {:.4}", Figure(contribution)));
            }
            parts.join("; ")
        }
        Explanation::Propensity(propensity) => {
            let feature = |feature: &FeatureContribution| {
                format!("{} {:+.4}", feature.feature.as_str(), Figure(feature.contribution))
            };
            let base = std::iter::once(format!("base {:+.4}", Figure(propensity.base_log_odds)));
            base.chain(propensity.features.iter().map(feature))
                .collect::<Vec<_>>()
                .join("; ")
        }
    }
}

fn json_row(snapshot: &Snapshot, target: &Target) -> Value {
    let mut row = json!({ "rank": target.rank, "user_id": target.user, "score": target.score });
    if let Some(explanation) = &target.explanation {
        row["explanation"] = explanation_json(snapshot, explanation);
    }
    row
}

fn explanation_json(snapshot: &Snapshot, explanation: &Explanation) -> Value {
    match explanation {
        Explanation::Affinity(affinity) => {
            let item = |term: &AffinityTerm| {
                json!({
                    "item_id": snapshot.items().id(term.item),
                    "title": snapshot.catalog().facts(term.item).title,
                    "rating": term.rating,
                    "contribution": term.contribution,
                })
            };
            json!({
                "items": affinity.items.iter().map(item).collect::<Vec<_>>(),
                "other_items": affinity.other_items,
                "other_items_contribution": affinity.other_items_contribution,
            })
        }
        Explanation::Propensity(propensity) => {
            let feature = |feature: &FeatureContribution| {
                json!({
                    "feature": feature.feature.as_str(),
                    "value": feature.value,
                    "contribution": feature.contribution,
                })
            };
            json!({
                "base_log_odds": propensity.base_log_odds,
                "features": propensity.features.iter().map(feature).collect::<Vec<_>>(),
            })
        }
    }
}
