//! `likemind import`.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::database::{Database, Purpose};
use super::{Exit, shutdown};
use crate::app::import::columns::Assignments;
use crate::app::import::input::Input;
use crate::app::import::times::TimeFormats;
use crate::app::import::{ImportError, ImportKind, ImportOptions, ImportSummary, Progress, import};
use crate::config::Config;
use crate::store::postgres::pool::Pool;
use domain::error::InvalidField;
use domain::rating::RatingScale;

#[derive(Debug, clap::Args)]
#[command(after_long_help = HELP)]
pub struct ImportArgs {
    /// What the file holds, one a line
    #[arg(value_enum)]
    what: What,
    /// CSV with a header, plain or compressed with gzip or zstd, whatever its name; - for standard input
    file: PathBuf,
    /// Column that gives a field, or a template of columns; a field with a column of its own name needs none
    #[arg(long, value_name = "FIELD=COLUMN,…", value_parser = assignments)]
    map: Vec<Pairs>,
    /// Text that a field has in every line
    #[arg(long, value_name = "FIELD=TEXT,…", value_parser = assignments)]
    set: Vec<Pairs>,
    /// Format of times, as strftime has it, or unix, or unix_ms; the first that fits [default: ISO 8601]
    #[arg(long, value_name = "FORMAT")]
    time_format: Vec<String>,
    /// Zone of times that name no offset
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// Character between fields: one ASCII character, or tab
    #[arg(long, value_name = "CHARACTER", default_value = ",", value_parser = delimiter)]
    delimiter: u8,
    /// Where rejected lines go [default: FILE.rejects.csv]
    #[arg(long, value_name = "PATH")]
    rejects: Option<PathBuf>,
    /// Stop when more lines than this have been rejected
    #[arg(long, value_name = "LINES")]
    max_rejects: Option<u64>,
    /// Connections to the database that store at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    connections: u8,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

const HELP: &str = "\
Fields (* must be mapped, set, or have a column of the same name):
  ratings    user_id* item_id* value* rated_at
  purchases  order_id* line_number user_id* item_id* quantity* currency* purchased_at*,
             one of line_total_minor, line_total, unit_price,
             and coupon_discount_minor or coupon_discount: what coupons took off the line
  items      item_id* title merchant_id category listed,
             and price or price_minor, with currency
  merchants  merchant_id* name
  campaigns  campaign_id* merchant_id name state starts_at* currency* priority exclusive audience
             holdout_basis_points, one of ends_at and ends_on*, and budget or budget_minor
  coupons    coupon_id* campaign_id* title currency* max_discount_minor min_cart_minor covers
             per_user_cap total_cap, and one of percent, amount, amount_minor, free_shipping*
  coupon-items  coupon_id* item_id*
  assignments   campaign_id* user_id*
  redemptions   coupon_id* user_id* redeemed_at* redemption_id order_id amount_minor
  attributes    user_id* name* value*
  consents      user_id* purpose* granted* decided_at source
  suppressions  user_id* reason

  An empty cell is an absent value: it keeps what is stored, and is rejected where the field has a *.
  A template names its columns in braces: --map 'title={type} {size}'.
  rated_at: the latest wins. Without it every rating is as new as the import; to repeat an import
  without effect, give it an instant: --set rated_at=2024-01-01.
  line_total, unit_price and price are decimal numbers in major units (pounds, not pence); the total
  of a line is exact and rounded to the minor unit once, halves away from zero. quantity is negative
  for a return. Without line_number the lines of an order with the same user and item are counted;
  an order must then be in one file, and its lines near each other.
  state is draft, scheduled, active, paused or ended; without it a new campaign whose window is over
  has ended, any other is a draft. ends_on is the last day, ends_at the first instant after the end.
  audience is all or assigned; covers is all or items, those of coupon-items. Campaigns come before
  their coupons and assignments, coupons before their items and redemptions: a line that names what
  there is not is rejected. A redemption without redemption_id is known by coupon, user and instant.
  purpose is marketing, profiling or training; what was decided later holds. Suppressed users are never
  offered anything.
  Times name their offset or are those of --time-zone; one that its clocks show twice is the earlier.

Lines that cannot be imported go to the file of rejects, with line number, field, reason and the
record as it stands; all others are imported. To repeat an import, after an interruption or with
lines mended, import the whole file again: it ends as if it had been imported once.

Examples:
  likemind import ratings ratings.csv.gz --map value=stars,rated_at=timestamp --time-format unix
  likemind import purchases purchases.csv.zst \\
    --map order_id=invoice,user_id=customer_id,item_id=stock_code,quantity=qty,purchased_at=ts \\
    --set currency=GBP --time-zone Europe/London
  zcat items.csv.gz | likemind import items - --map 'item_id=sku,title={type} {size}'";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
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

impl From<What> for ImportKind {
    fn from(what: What) -> Self {
        match what {
            What::Ratings => Self::Ratings,
            What::Purchases => Self::Purchases,
            What::Items => Self::Items,
            What::Merchants => Self::Merchants,
            What::Campaigns => Self::Campaigns,
            What::Coupons => Self::Coupons,
            What::CouponItems => Self::CouponItems,
            What::Assignments => Self::Assignments,
            What::Redemptions => Self::Redemptions,
            What::Attributes => Self::Attributes,
            What::Consents => Self::Consents,
            What::Suppressions => Self::Suppressions,
        }
    }
}

/// Field and value, several of them.
type Pairs = Vec<(String, String)>;

/// `field=value,field=value`; a comma that is not followed by another `field=` belongs to the value.
fn assignments(text: &str) -> Result<Pairs, String> {
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
        _ => Err("must be one ASCII character, or tab".to_owned()),
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
            eprintln!("error: {error:#}");
            Ok(Exit::Usage)
        }
        Err(error) => Err(error),
    }
}

/// Whether the command itself has to be changed.
fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<InvalidField>() || matches!(error.downcast_ref(), Some(ImportError::Columns(_)))
}

/// Imports a file and prints what became of it, also when it stopped early.
async fn import_file(args: ImportArgs, pool: &Pool, scale: &RatingScale) -> anyhow::Result<ImportSummary> {
    let is_stdin = args.file.as_os_str() == "-";
    let input = match is_stdin {
        true => Input::stdin(),
        false => Input::file(&args.file).with_context(|| format!("{} cannot be opened", args.file.display()))?,
    };
    let options = ImportOptions {
        assignments: Assignments {
            columns: args.map.concat(),
            constants: args.set.concat(),
        },
        times: TimeFormats::new(&args.time_format, &args.time_zone)?,
        scale: *scale,
        delimiter: args.delimiter,
        rejects: match args.rejects {
            Some(path) => vec![path],
            None if is_stdin => vec![PathBuf::from("stdin.rejects.csv")],
            None => rejects_of(&args.file),
        },
        max_rejects: args.max_rejects,
        connections: args.connections.into(),
        ..ImportOptions::new(args.what.into())
    };
    let result = import_now(pool, input, &options, &shutdown::requested()).await;
    match &result {
        Ok(summary) => print(summary, args.json)?,
        Err(ImportError::Stopped { summary, .. }) => print(summary, args.json)?,
        Err(_) => {}
    }
    Ok(result?)
}

/// Imports, showing progress.
pub(super) async fn import_now(
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

/// Beside the file; in the working folder where that one cannot be written.
fn rejects_of(file: &Path) -> Vec<PathBuf> {
    let with_suffix = |path: &Path| {
        let mut name = OsString::from(path);
        name.push(".rejects.csv");
        PathBuf::from(name)
    };
    let working_folder = file.file_name().map(|name| with_suffix(Path::new(name)));
    std::iter::once(with_suffix(file)).chain(working_folder).collect()
}

/// A bar on a terminal, a log line now and then elsewhere.
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
                tracing::info!(read, rejected, percent, rate, "imported {read} lines, {rate} a second");
            }
            return;
        }
        self.bar.set_position(progress.bytes_read);
        self.bar.set_message(format!(
            "{} lines, {} rejected, {} a second",
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
        "read {} = stored {} + merged {} + rejected {}, in {:.1} s ({rate} lines a second)",
        summary.read, summary.stored, summary.merged, summary.rejected, summary.seconds
    );
    for (reason, lines) in &summary.rejects_by_reason {
        println!("  rejected {lines}: {reason}");
    }
    if let Some(path) = &summary.rejects_file {
        println!("rejected lines are in {}", path.display());
    }
    if summary.interrupted {
        println!(
            "interrupted after line {}: import the file again for the rest",
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
    fn pairs_are_told_apart() {
        let check = |text: &str, want: &[(&str, &str)]| {
            let got = assignments(text).unwrap();
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
            assert!(assignments(bad).is_err(), "{bad}");
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
        assert_eq!(args.what, What::Ratings);
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
            assert_eq!(rejects_of(Path::new(file)), want);
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
