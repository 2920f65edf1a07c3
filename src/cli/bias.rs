//! `likemind bias`: shows how a snapshot, or a campaign, treats items, merchants and groups of users.

mod campaign;

use serde_json::json;

use super::Exit;
use super::database::{Database, Purpose};
use super::report::name;
use crate::config::Config;
use crate::store::snapshots;
use domain::id::CampaignId;
use recommender::evaluation::bias::report::{AttributeBias, GroupRatio, RankerBias};
use recommender::evaluation::report::four_digits;

/// The most merchants that are printed; JSON has more.
const MAX_MERCHANTS: usize = 10;

#[derive(Debug, clap::Args)]
pub(super) struct BiasArgs {
    /// The version of the snapshot [default: the active one]
    #[arg(value_name = "VERSION")]
    snapshot: Option<i64>,
    /// Show only the ranker that training has chosen
    #[arg(long)]
    chosen: bool,
    /// Compare how groups of users were selected by this campaign, instead of a snapshot
    #[arg(long, value_name = "ID", value_parser = campaign, conflicts_with_all = ["snapshot", "chosen"])]
    campaign: Option<CampaignId>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn campaign(id: &str) -> Result<CampaignId, String> {
    CampaignId::new(id).map_err(|error| error.to_string())
}

pub(super) async fn run(args: BiasArgs, config: Config) -> anyhow::Result<Exit> {
    let database = Database::open(&config, Purpose::Job).await?;
    if let Some(id) = &args.campaign {
        campaign::print(&database.pool, &config, id, args.json).await?;
        database.close().await?;
        return Ok(Exit::Done);
    }
    let record = snapshots::get_or_active(&database.pool, args.snapshot).await?;
    let record = record.ok_or_else(|| match args.snapshot {
        Some(version) => anyhow::anyhow!("there is no snapshot {version}"),
        None => anyhow::anyhow!("no snapshot is active; run `likemind train` first"),
    })?;
    let (choice, mut rankers) = record
        .evaluation
        .map_or((None, Vec::new()), |evaluation| (evaluation.choice, evaluation.bias));
    let chosen = choice.map_or(String::new(), |choice| choice.ranker);
    if args.chosen {
        rankers.retain(|bias| bias.ranker == chosen);
    }
    match args.json {
        true => println!(
            "{:#}",
            json!({ "snapshot_version": record.version, "chosen_ranker": chosen, "rankers": rankers })
        ),
        false => print(record.version, &chosen, &rankers),
    }
    database.close().await?;
    Ok(Exit::Done)
}

fn print(version: i64, chosen: &str, rankers: &[RankerBias]) {
    println!("Snapshot {version}, measured on items that are new to the users of the test part");
    if rankers.is_empty() {
        println!("Nobody could be measured, or another release trained the snapshot; train again for a report.");
        return;
    }
    println!(
        "\n{:<12} {:>3} {:>7} {:>8} {:>8} {:>8} {:>9} {:>11} {:>10} {:>10} {:>11}",
        "ranker",
        "top",
        "users",
        "NDCG",
        "hit rate",
        "Gini",
        "coverage",
        "popularity",
        "tail shown",
        "tail rated",
        "divergence"
    );
    for bias in rankers {
        let mark = if bias.ranker == chosen { "*" } else { "" };
        let calibration = bias.calibration.as_ref();
        println!(
            "{:<12} {:>3} {:>7} {:>8} {:>8} {:>8} {:>9} {:>11} {:>10} {:>10} {:>11}",
            format!("{}{mark}", bias.ranker),
            bias.top,
            bias.users,
            four_digits(bias.ndcg),
            four_digits(bias.hit_rate),
            four_digits(bias.exposure.gini),
            four_digits(bias.exposure.coverage),
            four_digits(bias.exposure.mean_popularity),
            four_digits(bias.exposure.long_tail.exposure_share),
            four_digits(bias.exposure.long_tail.rating_share),
            calibration.map_or("-".to_owned(), |calibration| four_digits(calibration.divergence)),
        );
    }
    println!("* the chosen ranker. Tail: the items that make the last 20 % of all ratings.");
    for bias in rankers.iter().filter(|bias| bias.top == 10) {
        print_groups(bias);
    }
}

/// Prints groups of users and merchants for the first 10 items.
fn print_groups(bias: &RankerBias) {
    println!("\n{}, first {} items", bias.ranker, bias.top);
    if !bias.popularity_groups.is_empty() {
        println!(
            "  {:<20} {:>7} {:>12} {:>12} {:>8} {:>8}",
            "tastes", "users", "in history", "shown", "lift", "NDCG"
        );
    }
    for group in &bias.popularity_groups {
        println!(
            "  {:<20} {:>7} {:>12} {:>12} {:>8} {:>8}",
            name(&group.group),
            group.users,
            four_digits(group.history_popularity),
            four_digits(group.shown_popularity),
            group
                .popularity_lift
                .map_or("-".to_owned(), |lift| format!("{lift:+.2}")),
            four_digits(group.ndcg)
        );
    }
    let quartiles = bias.activity_quartiles.iter();
    let quartiles: Vec<String> = quartiles
        .map(|row| {
            format!(
                "{} of {} users in quartile {}",
                four_digits(row.ndcg),
                row.users,
                row.quartile
            )
        })
        .collect();
    if !quartiles.is_empty() {
        println!("  NDCG by length of history: {}", quartiles.join(", "));
    }
    bias.attributes.iter().for_each(print_attribute);
    print_merchants(bias);
}

fn print_attribute(attribute: &AttributeBias) {
    println!(
        "  {:<20} {:>7} {:>12} {:>12} {:>8}",
        attribute.attribute, "users", "NDCG", "hit rate", "selected"
    );
    for group in &attribute.groups {
        println!(
            "  {:<20} {:>7} {:>12} {:>12} {:>8}",
            group.value,
            group.users,
            four_digits(group.ndcg),
            four_digits(group.hit_rate),
            four_digits(group.selection_rate)
        );
    }
    println!("  {:<20} {:>7}", "(not shown)", attribute.hidden_users);
    let ratios = [
        ("NDCG", &attribute.ndcg_ratio),
        ("hit rate", &attribute.hit_rate_ratio),
        ("selection rate", &attribute.selection_rate_ratio),
    ];
    for (figure, ratio) in ratios
        .into_iter()
        .filter_map(|(figure, ratio)| Some((figure, ratio.as_ref()?)))
    {
        println!("  {}", ratio_sentence(figure, ratio));
    }
}

/// Says who is favored least and most, in words.
pub(super) fn ratio_sentence(figure: &str, ratio: &GroupRatio) -> String {
    format!(
        "{figure} of {}, the least favored, is {:.2} of that of {}, the most favored (95 % interval: {:.2} to {:.2})",
        ratio.least_favored, ratio.ratio, ratio.most_favored, ratio.low, ratio.high
    )
}

fn print_merchants(bias: &RankerBias) {
    let merchants = &bias.merchants;
    if merchants.largest.is_empty() {
        return;
    }
    println!(
        "  {:<20} {:>9} {:>9} {:>9} {:>12} {:>12}",
        format!("{} merchants", merchants.merchants),
        "shown",
        "catalog",
        "sales",
        "÷ catalog",
        "÷ sales"
    );
    let optional = |figure: Option<f64>| figure.map_or("-".to_owned(), four_digits);
    for merchant in merchants.largest.iter().take(MAX_MERCHANTS) {
        println!(
            "  {:<20} {:>9} {:>9} {:>9} {:>12} {:>12}",
            merchant.merchant_id,
            four_digits(merchant.exposure_share),
            four_digits(merchant.catalog_share),
            optional(merchant.sales_share),
            four_digits(merchant.exposure_per_catalog_share),
            optional(merchant.exposure_per_sales_share)
        );
    }
}
