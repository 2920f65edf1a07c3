//! `likemind import`: imports records from a CSV file.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::database::{Database, Purpose};
use super::{Exit, process};
use crate::app::import::columns::ColumnMap;
use crate::app::import::input::Input;
use crate::app::import::times::TimeFormats;
use crate::app::import::{ImportError, ImportKind, ImportOptions, ImportSummary, Progress, import};
use crate::config::Config;
use crate::store::postgres::pool::Pool;
use domain::error::{InvalidField, chain};
use domain::rating::RatingScale;

#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct ImportArgs {
    /// The kind of record on the lines of the file
    #[arg(value_enum)]
    kind: Kind,
    /// CSV file with a header line, plain or compressed with gzip or zstd; - for standard input
    file: PathBuf,
    /// Read a field from this column, or from a template of columns [default: the column with the field's name]
    #[arg(long, value_name = "FIELD=COLUMN,…", value_parser = pairs)]
    map: Vec<Pairs>,
    /// Give a field the same text on every line
    #[arg(long, value_name = "FIELD=TEXT,…", value_parser = pairs)]
    set: Vec<Pairs>,
    /// Format of times: a strftime format, unix or unix_ms; if repeated, the first that fits [default: ISO 8601]
    #[arg(long, value_name = "FORMAT")]
    time_format: Vec<String>,
    /// Time zone of times without an offset
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// Character between fields: one ASCII character, or the word tab
    #[arg(long, value_name = "CHARACTER", default_value = ",", value_parser = delimiter)]
    delimiter: u8,
    /// File for rejected lines [default: FILE.rejects.csv]
    #[arg(long, value_name = "PATH")]
    rejects: Option<PathBuf>,
    /// Stop once more lines than this have been rejected
    #[arg(long, value_name = "LINES")]
    max_rejects: Option<u64>,
    /// Number of database connections that store in parallel
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    connections: u8,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Fields (those with * are required: map them, set them, or have a column of the same name):
  ratings    user_id* item_id* value* rated_at
  purchases  order_id* line_number user_id* item_id* quantity* currency* purchased_at*,
             one of line_total_minor, line_total and unit_price*,
             and coupon_discount_minor or coupon_discount: the discount that coupons gave on the line
  items      item_id* title merchant_id category listed,
             and price or price_minor, together with currency
  merchants  merchant_id* name
  campaigns  campaign_id* merchant_id name state starts_at* currency* priority exclusive audience
             holdout_basis_points, one of ends_at and ends_on*, and budget or budget_minor
  coupons    coupon_id* campaign_id* title currency* max_discount_minor min_cart_minor covers
             per_user_cap total_cap, and one of percent, amount, amount_minor and free_shipping*
  coupon-items  coupon_id* item_id*
  assignments   campaign_id* user_id*
  redemptions   coupon_id* user_id* redeemed_at* redemption_id order_id amount_minor
  attributes    user_id* name* value*
  consents      user_id* purpose* granted* decided_at source
  suppressions  user_id* reason

Values:
  An empty cell leaves the stored value as it is. In a field with * it is an error.
  A template names columns in braces: --map 'title={type} {size}'.
  rated_at: the latest rating wins. Without rated_at every rating is dated with the start of the
  import; to make repeated imports have no effect, set a date: --set rated_at=2024-01-01.
  line_total, unit_price and price are decimal numbers in major units (pounds, not pence). The total
  of a line is computed exactly and then rounded to the minor unit, halves away from zero. A negative
  quantity is a return. Without line_number, lines with the same order, user and item are numbered in
  the order of the file; all lines of an order must then be in one file and close to each other.
  state is draft, scheduled, active, paused or ended. Without state, a new campaign has ended if its
  window is over, and is a draft otherwise. ends_on is the last day of a campaign, ends_at the first
  instant after its end. audience is all or assigned. covers is all or items; items are those imported
  as coupon-items.
  Import campaigns before their coupons and assignments, and coupons before their items and
  redemptions: lines that refer to unknown records are rejected. A redemption without redemption_id
  is identified by coupon, user and instant.
  purpose is marketing, profiling or training; the latest decision wins. Suppressed users are never
  offered anything.
  Times without an offset are in --time-zone. Where its clocks show a time twice, the earlier is meant.

Lines that cannot be imported go to the file of rejects with line number, field, reason, message and
the original record; all other lines are imported. To repeat an import, after an interruption or with
corrected lines, import the whole file again: the result is the same as that of a single import.

Examples:
  likemind import ratings ratings.csv.gz --map value=stars,rated_at=timestamp --time-format unix
  likemind import purchases purchases.csv.zst \\
    --map order_id=invoice,user_id=customer_id,item_id=stock_code,quantity=qty,purchased_at=ts \\
    --set currency=GBP --time-zone Europe/London
  zcat items.csv.gz | likemind import items - --map 'item_id=sku,title={type} {size}'";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Ratings,
    Purchases,
    Items,
    Merchants,
    Campaigns,
    Coupons,
    CouponItems,
    Assignments,
    Redemptions,
    Attributes,
    Consents,
    Suppressions,
}

impl From<Kind> for ImportKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Ratings => Self::Ratings,
            Kind::Purchases => Self::Purchases,
            Kind::Items => Self::Items,
            Kind::Merchants => Self::Merchants,
            Kind::Campaigns => Self::Campaigns,
            Kind::Coupons => Self::Coupons,
            Kind::CouponItems => Self::CouponItems,
            Kind::Assignments => Self::Assignments,
            Kind::Redemptions => Self::Redemptions,
            Kind::Attributes => Self::Attributes,
            Kind::Consents => Self::Consents,
            Kind::Suppressions => Self::Suppressions,
        }
    }
}

/// Fields with their value.
type Pairs = Vec<(String, String)>;

/// Reads `field=value,field=value`. A comma that is not followed by another `field=` belongs to the value.
fn pairs(text: &str) -> Result<Pairs, String> {
    let is_field = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let mut pairs: Pairs = Vec::new();
    for piece in text.split(',') {
        match (piece.split_once('='), pairs.last_mut()) {
            (Some((field, value)), _) if is_field(field.trim()) => {
                pairs.push((field.trim().to_owned(), value.to_owned()));
            }
            (_, Some((_, value))) => {
                value.push(',');
                value.push_str(piece);
            }
            (_, None) => {
                return Err("must begin with a field and an equals sign, for example user_id=customer".to_owned());
            }
        }
    }
    Ok(pairs)
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [b'"' | b'\n' | b'\r'] => Err("must not be a quote or a line end".to_owned()),
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => Err("must be one ASCII character, or the word tab".to_owned()),
    }
}

pub(super) async fn run(args: ImportArgs, config: Config) -> anyhow::Result<Exit> {
    let database = Database::open(&config, Purpose::Job).await?;
    let imported = import_file(args, &database.pool, &config.rating).await;
    database.close().await?;
    match imported {
        Ok(summary) if summary.interrupted => Ok(Exit::Interrupted),
        Ok(_) => Ok(Exit::Done),
        Err(error) if is_usage(&error) => {
            eprintln!("error: {}", chain(&*error));
            Ok(Exit::Usage)
        }
        Err(error) => Err(error),
    }
}

/// Returns whether the options of the command are wrong.
fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<InvalidField>() || matches!(error.downcast_ref(), Some(ImportError::Columns(_)))
}

/// Imports a file and prints the summary, also when the import stopped early.
async fn import_file(args: ImportArgs, pool: &Pool, scale: &RatingScale) -> anyhow::Result<ImportSummary> {
    let is_stdin = args.file.as_os_str() == "-";
    let input = match is_stdin {
        true => Input::stdin(),
        false => Input::file(&args.file).with_context(|| format!("{} cannot be opened", args.file.display()))?,
    };
    let options = ImportOptions {
        column_map: ColumnMap {
            columns: args.map.concat(),
            constants: args.set.concat(),
        },
        times: TimeFormats::new(&args.time_format, &args.time_zone)?,
        scale: *scale,
        delimiter: args.delimiter,
        rejects: match args.rejects {
            Some(path) => vec![path],
            None if is_stdin => vec![PathBuf::from("stdin.rejects.csv")],
            None => default_rejects(&args.file),
        },
        max_rejects: args.max_rejects,
        connections: args.connections.into(),
        ..ImportOptions::new(args.kind.into())
    };
    let result = import_with_progress(pool, input, &options, &process::shutdown_requested()).await;
    match &result {
        Ok(summary) => print(summary, args.json)?,
        Err(ImportError::Stopped { summary, .. }) => print(summary, args.json)?,
        Err(_) => {}
    }
    Ok(result?)
}

/// Imports and shows the progress.
pub(super) async fn import_with_progress(
    pool: &Pool,
    input: Input,
    options: &ImportOptions,
    interrupt: &CancellationToken,
) -> Result<ImportSummary, ImportError> {
    let mut report = Report::new(&input);
    let result = import(pool, input, options, interrupt, |progress| report.update(progress)).await;
    report.end();
    result
}

/// Returns the default files for rejected lines: beside the file, or in the working folder if that is not possible.
fn default_rejects(file: &Path) -> Vec<PathBuf> {
    let with_suffix = |path: &Path| {
        let mut name = OsString::from(path);
        name.push(".rejects.csv");
        PathBuf::from(name)
    };
    let working_folder = file.file_name().map(|name| with_suffix(Path::new(name)));
    std::iter::once(with_suffix(file)).chain(working_folder).collect()
}

/// Shows the progress as a bar on a terminal, and in log lines otherwise.
struct Report {
    bar: ProgressBar,
    last_log: Instant,
}

impl Report {
    const LOG_INTERVAL: Duration = Duration::from_secs(5);

    fn new(input: &Input) -> Self {
        let (bar, template) = match (std::io::stderr().is_terminal(), input.bytes) {
            (false, _) => (ProgressBar::hidden(), "{msg}"),
            (true, Some(bytes)) => (
                ProgressBar::new(bytes),
                "{bar:30} {percent:>3} %  {msg}  {elapsed} (about {eta} left)",
            ),
            (true, None) => (ProgressBar::new_spinner(), "{spinner} {bytes}  {msg}  {elapsed}"),
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = bar.with_style(style);
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self {
            bar,
            last_log: Instant::now(),
        }
    }

    fn update(&mut self, progress: Progress<'_>) {
        let summary = progress.summary;
        let rate = summary.lines_per_second() as u64;
        if self.bar.is_hidden() {
            if self.last_log.elapsed() >= Self::LOG_INTERVAL {
                self.last_log = Instant::now();
                let percent = progress.bytes.map(|bytes| 100 * progress.bytes_read / bytes.max(1));
                let (read, rejected) = (summary.read, summary.rejected);
                tracing::info!(
                    read,
                    rejected,
                    percent,
                    rate,
                    "imported {read} lines so far, {rate} per second"
                );
            }
            return;
        }
        self.bar.set_position(progress.bytes_read);
        self.bar.set_message(format!(
            "{} lines, {} rejected, {} per second",
            HumanCount(summary.read),
            HumanCount(summary.rejected),
            HumanCount(rate)
        ));
    }

    fn end(self) {
        self.bar.finish_and_clear();
    }
}

pub(super) fn print(summary: &ImportSummary, json: bool) -> anyhow::Result<()> {
    let rate = summary.lines_per_second().round();
    if json {
        let mut value = json!(summary);
        value["lines_per_second"] = json!(rate);
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    println!(
        "read {} = stored {} + merged {} + rejected {}, in {:.1} s ({rate} lines per second)",
        summary.read, summary.stored, summary.merged, summary.rejected, summary.seconds
    );
    for (reason, lines) in &summary.rejects_by_reason {
        println!("  rejected {lines}: {reason}");
    }
    if let Some(path) = &summary.rejects_file {
        println!("The rejected lines are in {}.", path.display());
    }
    if summary.interrupted {
        println!(
            "Interrupted after line {}. Import the file again to import the rest.",
            summary.last_line
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        import: ImportArgs,
    }

    fn parse(args: &[&str]) -> Result<ImportArgs, String> {
        let args = ["import"].iter().chain(args);
        Program::try_parse_from(args)
            .map(|program| program.import)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_comma_may_belong_to_a_value() {
        let check = |text: &str, want: &[(&str, &str)]| {
            let got = pairs(text).unwrap();
            let got: Vec<(&str, &str)> = got
                .iter()
                .map(|(field, value)| (field.as_str(), value.as_str()))
                .collect();
            assert_eq!(got, want, "{text}");
        };
        check("user_id=customer", &[("user_id", "customer")]);
        check(
            "user_id=customer, item_id=sku",
            &[("user_id", "customer"), ("item_id", "sku")],
        );
        check(
            "title={a}, {b},item_id=sku",
            &[("title", "{a}, {b}"), ("item_id", "sku")],
        );
        check("title=a=b,C=d", &[("title", "a=b,C=d")]);
        check("title=", &[("title", "")]);
        for bad in ["", "user_id", "=x", ",user_id=x", "User=x"] {
            assert!(pairs(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn arguments_are_understood() {
        let args = parse(&[
            "ratings",
            "-",
            "--map",
            "value=stars",
            "--map=user_id=u",
            "--delimiter=tab",
        ])
        .unwrap();
        assert_eq!(args.kind, Kind::Ratings);
        assert_eq!(args.map.concat().len(), 2);
        assert_eq!(args.delimiter, b'\t');
        for bad in [
            &["ratings"][..],
            &["shoes", "-"],
            &["ratings", "-", "--map", "value"],
            &["ratings", "-", "--delimiter", "ab"],
            &["ratings", "-", "--delimiter", "\""],
            &["ratings", "-", "--max-rejects", "-1"],
        ] {
            parse(bad).unwrap_err();
        }
    }

    #[test]
    fn rejects_stand_beside_the_file() {
        let check = |file: &str, want: &[&str]| {
            let want: Vec<PathBuf> = want.iter().map(PathBuf::from).collect();
            assert_eq!(default_rejects(Path::new(file)), want);
        };
        check(
            "/data/a.csv.zst",
            &["/data/a.csv.zst.rejects.csv", "a.csv.zst.rejects.csv"],
        );
        check("a.csv", &["a.csv.rejects.csv", "a.csv.rejects.csv"]);
    }

    #[test]
    fn the_help_names_every_field() {
        for kind in [
            ImportKind::Ratings,
            ImportKind::Purchases,
            ImportKind::Items,
            ImportKind::Merchants,
            ImportKind::Campaigns,
            ImportKind::Coupons,
            ImportKind::CouponItems,
            ImportKind::Assignments,
            ImportKind::Redemptions,
            ImportKind::Attributes,
            ImportKind::Consents,
            ImportKind::Suppressions,
        ] {
            for field in kind.fields() {
                assert!(HELP.contains(field), "{field}");
            }
        }
    }
}
