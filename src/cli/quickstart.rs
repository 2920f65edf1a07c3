//! `likemind quickstart`: everything at once, on a sample of real purchases.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::call::{Client, TlsArgs, command_line};
use super::database::{Database, Purpose};
use super::{Exit, import, serve, shutdown, train};
use crate::app::import::columns::Assignments;
use crate::app::import::input::Input;
use crate::app::import::times::TimeFormats;
use crate::app::import::{ImportKind, ImportOptions};
use crate::config::Config;
use crate::grpc::server;
use crate::store::pool::Pool;
use crate::store::snapshots::{self, SnapshotState};

#[derive(Debug, clap::Args)]
pub(super) struct QuickstartArgs {
    /// Address and port of the gRPC server (server.listen)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) listen: Option<SocketAddr>,
    /// End after the answers instead of serving on
    #[arg(long)]
    exit: bool,
}

/// UCI Online Retail, see data/README.md; inside the program, so that it works wherever it is started.
const ITEMS: &[u8] = include_bytes!("../../data/online_retail/items.csv.zst");
const PURCHASES: &[u8] = include_bytes!("../../data/online_retail/purchases.csv.zst");
/// Items of an explanation that are shown one by one.
const MAX_TERMS: usize = 6;
/// A customer of the sample with a long history.
const SAMPLE_USER: &str = "17841";

pub(super) async fn run(args: QuickstartArgs, config: Config) -> anyhow::Result<Exit> {
    if config.tls.is_on() {
        bail!(
            "quickstart asks its own server in plain text: leave tls.certificate_file and tls.key_file out, or use serve"
        );
    }
    let shutdown = shutdown::requested();
    let listener = server::bind(&config.server, &config.tls).await?;
    let address = format!("http://{}", listener.address);
    let database = Database::open(&config, Purpose::Job).await?;
    prepare(&database.pool, &config, &shutdown).await?;

    let mut serving = tokio::spawn({
        let (config, pool, shutdown) = (config.clone(), database.pool.clone(), shutdown.clone());
        async move { serve::serve(listener, &config, pool, shutdown).await }
    });
    let shown = tokio::select! {
        shown = show(&address) => shown,
        ended = &mut serving => return ended.context("the server ended with a panic")?.map(|()| Exit::Done),
    };
    match (&shown, args.exit) {
        (Ok(()), false) => println!("\nServing on {address} until Ctrl-C."),
        _ => shutdown.cancel(),
    }
    serving.await.context("the server ended with a panic")??;
    database.close().await?;
    shown.map(|()| Exit::Done)
}

/// Imports the sample and trains, unless a snapshot is active already.
async fn prepare(pool: &Pool, config: &Config, interrupt: &CancellationToken) -> anyhow::Result<()> {
    if let Some(version) = snapshots::active_version(pool).await? {
        println!("Reusing the data and snapshot {version} that are there; --data-dir takes another folder.");
        return Ok(());
    }
    println!("Importing items and purchases of Online Retail, a wholesaler of gifts:");
    let items = [("item_id", "stock_code"), ("title", "description")];
    import_sample(
        pool,
        config,
        interrupt,
        "items",
        ITEMS,
        sample_options(ImportKind::Items, &items, &[])?,
    )
    .await?;
    let purchases = [
        ("order_id", "invoice"),
        ("user_id", "customer_id"),
        ("item_id", "stock_code"),
        ("quantity", "qty"),
        ("purchased_at", "ts"),
    ];
    let options = sample_options(ImportKind::Purchases, &purchases, &[("currency", "GBP")])?;
    import_sample(pool, config, interrupt, "purchases", PURCHASES, options).await?;
    println!("Training:");
    let trained = train::train_now(pool, config, interrupt, None).await?;
    train::print(&trained);
    if trained.snapshot.state != SnapshotState::Active {
        bail!("the snapshot was not activated");
    }
    Ok(())
}

/// `columns` and `constants`: field and column, field and text.
fn sample_options(
    kind: ImportKind,
    columns: &[(&str, &str)],
    constants: &[(&str, &str)],
) -> anyhow::Result<ImportOptions> {
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        let owned = |(field, text): &(&str, &str)| ((*field).to_owned(), (*text).to_owned());
        pairs.iter().map(owned).collect()
    };
    Ok(ImportOptions {
        assignments: Assignments {
            columns: pairs(columns),
            constants: pairs(constants),
        },
        times: TimeFormats::new(&[], "Europe/London")?,
        ..ImportOptions::new(kind)
    })
}

async fn import_sample(
    pool: &Pool,
    config: &Config,
    interrupt: &CancellationToken,
    name: &str,
    bytes: &'static [u8],
    options: ImportOptions,
) -> anyhow::Result<()> {
    let input = Input::new(name, bytes, Some(bytes.len() as u64));
    let options = ImportOptions {
        scale: config.rating,
        ..options
    };
    let summary = import::import_now(pool, input, &options, interrupt).await?;
    import::print(&summary, false)?;
    if summary.interrupted {
        bail!("interrupted");
    }
    Ok(())
}

/// Asks the running server over gRPC and prints what it answers.
async fn show(address: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(address, &TlsArgs::default()).await?;
    let mut ask = async |method: &str, request: &Value| {
        let answer = client.unary(method, request).await;
        answer.with_context(|| format!("{method} was not answered"))
    };
    let recommend = json!({ "user_id": SAMPLE_USER, "limit": 10, "exclude_history": true, "explain": true });
    let recommended = ask("RecommendationService/Recommend", &recommend).await?;
    let items = array(&recommended["items"]);
    let first = items.first().context("nothing was recommended")?;
    let predict = json!({ "user_id": SAMPLE_USER, "item_ids": [first["item_id"]], "explain": true });
    let predicted = ask("RecommendationService/PredictRatings", &predict).await?;
    let similar_to = json!({ "item_id": first["item_id"], "limit": 5 });
    let similar = ask("RecommendationService/ListSimilarItems", &similar_to).await?;

    println!("\nWhat would customer {SAMPLE_USER} rate {}?", named(first));
    print_prediction(&predicted["predictions"][0]["rating"]);
    println!("\nWhat should customer {SAMPLE_USER} be shown that they have not bought yet?");
    for item in items {
        println!(
            "  {:>2}. {:<40} {:.4}",
            number(&item["rank"]),
            named(item),
            number(&item["score"])
        );
        println!("      {}", reason(&item["explanation"]));
    }
    println!("\nWhich items are bought by the same customers as {}?", named(first));
    for item in array(&similar["items"]) {
        println!(
            "  {:>2}. {:<40} {:.4}",
            number(&item["rank"]),
            named(item),
            number(&item["score"])
        );
    }

    println!("\nAsk yourself, from another terminal:");
    let program = std::env::args().next().unwrap_or_else(|| "likemind".to_owned());
    let rate = json!({ "ratings": [{ "user_id": "me", "item_id": first["item_id"], "value": 5 }] });
    for (method, request) in [
        ("RecommendationService/Recommend", &recommend),
        ("RecommendationService/PredictRatings", &predict),
        ("RecommendationService/ListSimilarItems", &similar_to),
        ("RatingService/UpsertRatings", &rate),
        ("RecommendationService/Recommend", &json!({ "user_id": "me" })),
        ("ModelService/GetServingStatus", &json!({})),
    ] {
        println!("  {}", command_line(&program, method, request, address));
    }
    Ok(())
}

fn print_prediction(rating: &Value) {
    let explanation = &rating["explanation"];
    println!(
        "  {:.2} from {} neighbors:",
        number(&rating["value"]),
        number(&rating["support"])
    );
    let term = |value: f64, what: String| println!("  {value:>+8.3}  {what}");
    term(number(&explanation["global_mean"]), "mean of all ratings".to_owned());
    term(
        number(&explanation["user_bias"]),
        "how this customer differs from it".to_owned(),
    );
    term(
        number(&explanation["item_bias"]),
        "how this item differs from it".to_owned(),
    );
    let items = array(&explanation["items"]);
    let (shown, others) = items.split_at_checked(MAX_TERMS).unwrap_or((items, &[]));
    for item in shown {
        let what = format!("for their {:.2} of {}", number(&item["rating"]), named(item));
        term(number(&item["contribution"]), what);
    }
    if !others.is_empty() {
        let contribution = others.iter().map(|item| number(&item["contribution"])).sum();
        term(contribution, format!("for {} other items", others.len()));
    }
    if let similar @ Value::Object(_) = &explanation["similar_users"] {
        term(
            number(&similar["contribution"]),
            format!("for {} similar customers", number(&similar["users"])),
        );
    }
    if number(&explanation["clamping"]) != 0.0 {
        term(
            number(&explanation["clamping"]),
            "to stay on the rating scale".to_owned(),
        );
    }
}

/// The largest parts of a score.
fn reason(explanation: &Value) -> String {
    let items: Vec<String> = array(&explanation["items"]).iter().take(2).map(named).collect();
    let users = number(&explanation["similar_users"]["users"]);
    match (items.is_empty(), users > 0.0) {
        (false, true) => format!("bought {}; and {users} similar customers bought it", items.join(", ")),
        (false, false) => format!("bought {}", items.join(", ")),
        (true, _) => format!("{users} similar customers bought it"),
    }
}

fn named(item: &Value) -> String {
    let id = item["item_id"].as_str().unwrap_or_default();
    match item["title"].as_str() {
        Some(title) if !title.is_empty() => format!("{title} ({id})"),
        _ => id.to_owned(),
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A number of an answer; 0 where the answer leaves it out.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}
