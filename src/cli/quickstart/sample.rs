//! The samples: their files and columns, and the import and training that happen once.

use std::time::Duration;

use anyhow::bail;
use chrono::Utc;
use tabular::input::Input;
use tokio_util::sync::CancellationToken;

use crate::app::import::columns::ColumnMap;
use crate::app::import::times::TimeFormats;
use crate::app::import::{ImportKind, ImportOptions};
use crate::app::train::{TrainError, Trained};
use crate::cli::{Exit, import, process, train};
use crate::config::Config;
use crate::store::postgres::pool::Pool;
use crate::store::postgres::{analyze, leases};
use crate::store::snapshots::{self, SnapshotState};

/// A file of a sample, described in data/README.md. It is compiled in, so that the program works wherever it is started.
struct File {
    name: &'static str,
    bytes: &'static [u8],
    kind: ImportKind,
    /// Fields with their column or template.
    columns: &'static [(&'static str, &'static str)],
    /// Fields with their constant text.
    constants: &'static [(&'static str, &'static str)],
}

struct Sample {
    title: &'static str,
    time_zone: &'static str,
    /// The files in the order of import: a file that refers to records comes after the file with those records.
    files: &'static [File],
}

const ONLINE_RETAIL: Sample = Sample {
    title: "items and purchases of Online Retail, a wholesaler of gifts",
    time_zone: "Europe/London",
    files: &[
        File {
            name: "items",
            bytes: include_bytes!("../../../data/online_retail/items.csv.zst"),
            kind: ImportKind::Items,
            columns: &[("item_id", "stock_code"), ("title", "description")],
            constants: &[],
        },
        File {
            name: "purchases",
            bytes: include_bytes!("../../../data/online_retail/purchases.csv.zst"),
            kind: ImportKind::Purchases,
            columns: &[
                ("order_id", "invoice"),
                ("user_id", "customer_id"),
                ("item_id", "stock_code"),
                ("quantity", "qty"),
                ("purchased_at", "ts"),
            ],
            constants: &[("currency", "GBP")],
        },
    ],
};

/// Its ids have prefixes, because the ids of both samples are numbers.
const COMPLETE_JOURNEY: Sample = Sample {
    title: "products, purchases, campaigns and coupons of The Complete Journey, households at a grocer",
    time_zone: "UTC",
    files: &[
        File {
            name: "products",
            bytes: include_bytes!("../../../data/complete_journey/products.csv.zst"),
            kind: ImportKind::Items,
            columns: &[
                ("item_id", "cj-{product_id}"),
                ("merchant_id", "maker-{manufacturer_id}"),
                ("category", "product_category"),
                ("title", "{product_type} {package_size}"),
            ],
            constants: &[],
        },
        File {
            name: "transactions",
            bytes: include_bytes!("../../../data/complete_journey/transactions.csv.zst"),
            kind: ImportKind::Purchases,
            columns: &[
                ("order_id", "cj-{basket_id}"),
                ("user_id", "household-{household_id}"),
                ("item_id", "cj-{product_id}"),
                ("line_total", "sales_value"),
                ("coupon_discount", "coupon_disc"),
                ("purchased_at", "transaction_timestamp"),
            ],
            constants: &[("currency", "USD")],
        },
        File {
            name: "campaigns",
            bytes: include_bytes!("../../../data/complete_journey/campaign_descriptions.csv.zst"),
            kind: ImportKind::Campaigns,
            columns: &[
                ("campaign_id", "cj-{campaign_id}"),
                ("name", "Campaign {campaign_id}, {campaign_type}"),
                ("starts_at", "start_date"),
                ("ends_on", "end_date"),
            ],
            constants: &[("currency", "USD"), ("audience", "assigned"), ("state", "ended")],
        },
        File {
            name: "coupons",
            bytes: COUPONS,
            kind: ImportKind::Coupons,
            columns: &[
                ("coupon_id", "cj-{campaign_id}:{coupon_upc}"),
                ("campaign_id", "cj-{campaign_id}"),
            ],
            // The data do not give the value of a coupon.
            constants: &[("amount", "1.00"), ("currency", "USD")],
        },
        File {
            name: "items of the coupons",
            bytes: COUPONS,
            kind: ImportKind::CouponItems,
            columns: &[
                ("coupon_id", "cj-{campaign_id}:{coupon_upc}"),
                ("item_id", "cj-{product_id}"),
            ],
            constants: &[],
        },
        File {
            name: "assignments",
            bytes: include_bytes!("../../../data/complete_journey/campaigns.csv.zst"),
            kind: ImportKind::Assignments,
            columns: &[
                ("campaign_id", "cj-{campaign_id}"),
                ("user_id", "household-{household_id}"),
            ],
            constants: &[],
        },
        File {
            name: "redemptions",
            bytes: include_bytes!("../../../data/complete_journey/coupon_redemptions.csv.zst"),
            kind: ImportKind::Redemptions,
            columns: &[
                ("coupon_id", "cj-{campaign_id}:{coupon_upc}"),
                ("user_id", "household-{household_id}"),
                ("redeemed_at", "redemption_date"),
            ],
            constants: &[],
        },
    ],
};

const COUPONS: &[u8] = include_bytes!("../../../data/complete_journey/coupons.csv.zst");

/// The lease of the import of the samples. That it was once taken shows that the data are those of the samples.
const LEASE: &str = "quickstart";

/// Imports the samples and trains, unless a snapshot is active already. Quickstart goes on only after [`Exit::Done`].
pub(super) async fn prepare(pool: &Pool, config: &Config, interrupt: &CancellationToken) -> anyhow::Result<Exit> {
    if let Some(version) = snapshots::active_version(pool).await? {
        println!(
            "Reusing the existing data and snapshot {version}. To start afresh, choose another folder with --data-dir."
        );
        return Ok(Exit::Done);
    }
    if !analyze::is_empty(pool).await? && !leases::has_been_taken(pool, LEASE).await? {
        bail!(
            "the database has data but no snapshot, and the sample would mix with those data; choose another database \
             for the sample (--data-dir, or database.url), or run `likemind train` to train on the data"
        );
    }
    // The lease need not be held: importing the samples twice at the same time does no harm.
    let _ = leases::acquire(pool, LEASE, &process::actor(), Duration::from_secs(1)).await?;
    for sample in [ONLINE_RETAIL, COMPLETE_JOURNEY] {
        println!("Importing {}:", sample.title);
        for file in sample.files {
            if import_file(pool, config, interrupt, &sample, file).await? == Exit::Interrupted {
                return Ok(Exit::Interrupted);
            }
        }
    }
    println!("Training:");
    let trained = match train_patiently(pool, config, interrupt).await {
        Ok(trained) => trained,
        Err(error) => return train::exit_of(error),
    };
    train::print(&trained);
    if trained.snapshot.state != SnapshotState::Active {
        bail!("the snapshot was not activated, because the gate rejected it");
    }
    Ok(Exit::Done)
}

async fn import_file(
    pool: &Pool,
    config: &Config,
    interrupt: &CancellationToken,
    sample: &Sample,
    file: &File,
) -> anyhow::Result<Exit> {
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        let owned = |(field, text): &(&str, &str)| ((*field).to_owned(), (*text).to_owned());
        pairs.iter().map(owned).collect()
    };
    let options = ImportOptions {
        column_map: ColumnMap {
            columns: pairs(file.columns),
            constants: pairs(file.constants),
            unmapped: Vec::new(),
        },
        times: TimeFormats::new(&[], sample.time_zone)?,
        scale: config.rating,
        actor: process::actor(),
        ..ImportOptions::new(file.kind)
    };
    let input = Input::new(file.name, file.bytes, Some(file.bytes.len() as u64));
    let summary = import::import_with_progress(pool, input, &options, interrupt).await?;
    print!("{}: ", file.name);
    import::print_counts(&summary);
    Ok(match summary.interrupted {
        true => Exit::Interrupted,
        false => Exit::Done,
    })
}

/// Trains, after any other trainer. One that was killed keeps others out until its lease expires.
async fn train_patiently(pool: &Pool, config: &Config, interrupt: &CancellationToken) -> Result<Trained, TrainError> {
    loop {
        match train::train_with_progress(pool, config, interrupt, train::Requested::default()).await {
            Err(TrainError::AnotherTrainer(held)) => {
                println!(
                    "Waiting for another trainer, {}, until {} at the latest.",
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
