//! `likemind quickstart`: everything at once, on a sample of real purchases.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use chrono::Utc;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::call::{Client, KEY_VARIABLE, TlsArgs, command_line};
use super::database::{Database, Purpose};
use super::keys::random_key;
use super::{Exit, actor, import, serve, shutdown, train};
use crate::app::import::columns::Assignments;
use crate::app::import::input::Input;
use crate::app::import::times::TimeFormats;
use crate::app::import::{ImportKind, ImportOptions, ImportSummary};
use crate::app::train::{TrainError, Trained};
use crate::config::Config;
use crate::domain::access::Role;
use crate::domain::error::chain;
use crate::grpc::server::{self, Listener};
use crate::store::keys::{self, NewKey};
use crate::store::pool::Pool;
use crate::store::snapshots::{self, SnapshotState};
use crate::store::{leases, statistics};
use crate::telemetry;

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
    let exit = match prepare(&database.pool, &config, &shutdown).await? {
        Exit::Done => show_and_serve(&args, &config, &database, listener, &address, shutdown).await?,
        early => early,
    };
    database.close().await?;
    Ok(exit)
}

/// Serves, and asks what is served.
async fn show_and_serve(
    args: &QuickstartArgs,
    config: &Config,
    database: &Database,
    listener: Listener,
    address: &str,
    shutdown: CancellationToken,
) -> anyhow::Result<Exit> {
    if let Err(error) = telemetry::init_metrics(&config.telemetry) {
        tracing::warn!(error = %chain(&error), "going on without metrics");
    }
    let pool = database.pool_for(config, Purpose::Serving)?;
    let key = new_key(&database.pool).await?;
    let mut serving = tokio::spawn({
        let (config, pool, shutdown) = (config.clone(), pool.clone(), shutdown.clone());
        async move { serve::serve(listener, &config, pool, shutdown).await }
    });
    const PANICKED: &str = "the server ended with a panic";
    let shown = tokio::select! {
        shown = show(address, &key) => shown,
        ended = &mut serving => {
            ended.context(PANICKED)??;
            return Ok(Exit::Interrupted);
        }
    };
    match (&shown, args.exit) {
        (Ok(()), false) => println!("\nServing on {address} until Ctrl-C."),
        _ => shutdown.cancel(),
    }
    serving.await.context(PANICKED)??;
    pool.close().await;
    shown.map(|()| Exit::Done)
}

/// A key for this run; those of earlier runs, which nobody has any more, are revoked.
async fn new_key(pool: &Pool) -> anyhow::Result<String> {
    let actor = actor::this_process();
    for record in keys::list(pool).await? {
        if record.note == QUICKSTART && record.revoked_at.is_none() {
            keys::revoke(pool, &record.id, &actor).await?;
        }
    }
    let key = random_key()?;
    let new = NewKey {
        id: key.id.clone(),
        secret_hash: key.secret_hash(),
        role: Role::Admin,
        merchant: None,
        note: QUICKSTART.to_owned(),
        expires_at: None,
    };
    keys::create(pool, &new, &actor).await?;
    Ok(key.expose())
}

/// Who imports the sample: one at a time, and the trace that it was the sample that was imported.
const QUICKSTART: &str = "quickstart";

/// Imports the sample and trains, unless a snapshot is active already. What follows takes [`Exit::Done`].
async fn prepare(pool: &Pool, config: &Config, interrupt: &CancellationToken) -> anyhow::Result<Exit> {
    if let Some(version) = snapshots::active_version(pool).await? {
        println!("Reusing the data and snapshot {version} that are there; --data-dir takes another folder.");
        return Ok(Exit::Done);
    }
    if !statistics::is_empty(pool).await? && !leases::has_been_taken(pool, QUICKSTART).await? {
        bail!(
            "the database holds data already, and nothing trained on it: the sample would mix with them. \
             Try the sample elsewhere (--data-dir, or an empty database in database.url), or run `likemind train`"
        );
    }
    // Only its trace counts: importing the sample twice at a time does no harm.
    let _ = leases::acquire(pool, QUICKSTART, &actor::this_process(), Duration::from_secs(1)).await?;
    println!("Importing items and purchases of Online Retail, a wholesaler of gifts:");
    let items = [("item_id", "stock_code"), ("title", "description")];
    let items = sample_options(ImportKind::Items, &items, &[])?;
    let purchases = [
        ("order_id", "invoice"),
        ("user_id", "customer_id"),
        ("item_id", "stock_code"),
        ("quantity", "qty"),
        ("purchased_at", "ts"),
    ];
    let purchases = sample_options(ImportKind::Purchases, &purchases, &[("currency", "GBP")])?;
    for (name, bytes, options) in [("items", ITEMS, items), ("purchases", PURCHASES, purchases)] {
        if import_sample(pool, config, interrupt, name, bytes, options)
            .await?
            .interrupted
        {
            return Ok(Exit::Interrupted);
        }
    }
    println!("Training:");
    let trained = match train_patiently(pool, config, interrupt).await {
        Ok(trained) => trained,
        Err(error) => return train::ended(error),
    };
    train::print(&trained);
    if trained.snapshot.state != SnapshotState::Active {
        bail!("the snapshot was not activated");
    }
    Ok(Exit::Done)
}

/// Trains; after another trainer, if there is one. It may have been killed, and keeps others out for a while.
async fn train_patiently(pool: &Pool, config: &Config, interrupt: &CancellationToken) -> Result<Trained, TrainError> {
    loop {
        match train::train_now(pool, config, interrupt, None).await {
            Err(TrainError::AnotherTrainer(held)) => {
                println!(
                    "Waiting for another trainer: {}, until {} at the latest.",
                    held.holder, held.expires_at
                );
                let wait = (held.expires_at - Utc::now()).to_std().unwrap_or_default() + Duration::from_millis(100);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = interrupt.cancelled() => return Err(TrainError::Interrupted),
                }
            }
            result => return result,
        }
    }
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
) -> anyhow::Result<ImportSummary> {
    let input = Input::new(name, bytes, Some(bytes.len() as u64));
    let options = ImportOptions {
        scale: config.rating,
        ..options
    };
    let summary = import::import_now(pool, input, &options, interrupt).await?;
    import::print(&summary, false)?;
    Ok(summary)
}

/// Asks the running server over gRPC and prints what it answers.
async fn show(address: &str, key: &str) -> anyhow::Result<()> {
    let mut client = Client::connect(address, &TlsArgs::default()).await?.with_key(key)?;
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
    println!("  export {KEY_VARIABLE}={key}");
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
