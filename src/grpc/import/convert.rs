//! Converts the messages of ImportService.

use std::collections::HashMap;
use std::time::Duration;

use tonic::Status;

use crate::app::import::columns::ColumnMap;
use crate::app::import::findings::Count;
use crate::app::import::numbers::{DecimalSign, NumberFormat};
use crate::app::import::rejects::{Reject, RejectsTo};
use crate::app::import::times::TimeFormats;
use crate::app::import::{ImportError, ImportKind, ImportOptions, ImportSummary, RejectCause, StopCause};
use crate::grpc::convert::timestamp;
use crate::grpc::proto::v1;
use crate::grpc::status::{self, Violations, invalid_argument};
use crate::store::imports::{ImportRecord, ImportState, Undone};
use domain::error::InvalidField;
use domain::item::check_text;
use domain::rating::RatingScale;
use tabular::cells::{CellRules, Filter};
use tabular::csv::{self, Delimiter, Dialect};
use tabular::encoding;
use tabular::open::{Format, ReadOptions};
use tabular::option_names::OptionNames;

/// The field of the messages that has the options.
const OPTIONS: &str = "options";
/// The number of rejected lines in an answer, and of the characters of their records.
const REJECTS: RejectsTo = RejectsTo::Summary {
    max_lines: 100,
    max_record_chars: 1_000,
};
/// How long an import waits for a database that is not available. Its client can repeat the whole call.
const PATIENCE: Duration = Duration::from_secs(10);
/// Page tokens of ListImports are bound to the name alone: the request has nothing but the page.
pub const LIST_KEY: &str = "ListImports";

/// Returns the name of the file and the options of an import.
///
/// # Errors
/// INVALID_ARGUMENT naming every wrong field.
pub fn options(options: v1::ImportOptions, scale: RatingScale) -> Result<(String, ImportOptions), Status> {
    let mut violations = Violations::default();
    let mut check = Checks(&mut violations);
    let kind = check.result(kind_of(options.kind()));
    let format = check.result(format_of(options.format));
    let source = check.result(source(options.source));
    let delimiter = check.parsed("delimiter", &options.delimiter, Delimiter::parse);
    let quote = check.parsed("quote", &options.quote, csv::quote);
    let escape = check.parsed("escape", &options.escape, csv::one_character);
    let decimal = check.parsed("decimal", &options.decimal, DecimalSign::parse);
    let zone = if options.time_zone.is_empty() {
        "UTC"
    } else {
        &options.time_zone
    };
    let times = check.result(TimeFormats::new(&options.time_format, zone));
    let encoding = check.parsed("encoding", &options.encoding, encoding);
    let filters = options.r#where.iter().zip(0..);
    let filter = |(text, position): (&String, usize)| {
        let field = format!("where[{position}]");
        check.result(Filter::parse(text).map_err(|problem| InvalidField::new(field, "INVALID_OPTION", problem)))
    };
    let filters: Vec<Filter> = filters.filter_map(filter).collect();
    let max_reject_share = check.result(max_reject_share(options.max_reject_share));
    let dialect = Dialect::default();
    let converted = kind.zip(source).zip(format).zip(times).zip(max_reject_share);
    let converted = converted.map(|((((kind, source), format), times), max_reject_share)| {
        let options = ImportOptions {
            read: ReadOptions {
                format,
                encoding,
                dialect: Dialect {
                    delimiter: delimiter.unwrap_or(dialect.delimiter),
                    quote: quote.unwrap_or(dialect.quote),
                    escape,
                },
                has_header: !options.no_header,
                skip_lines: options.skip_lines,
                sheet: given(options.sheet),
                names: OptionNames::Fields,
                ..ReadOptions::default()
            },
            cells: CellRules {
                nulls: options.null,
                fill_forward: options.fill_forward,
                fill_within: given(options.fill_within),
                defaults: sorted(options.default),
                maps: options.map_value.into_iter().map(value_map).collect(),
                negated: options.negate,
                filters,
            },
            numbers: NumberFormat {
                decimal,
                rounds: options.round,
                ..NumberFormat::default()
            },
            column_map: ColumnMap {
                columns: sorted(options.map),
                constants: sorted(options.set),
                unmapped: options.unmap,
            },
            times,
            scale,
            rejects: REJECTS,
            max_rejects: options.max_rejects,
            max_reject_share,
            patience: PATIENCE,
            dry_run: options.dry_run,
            ..ImportOptions::new(kind)
        };
        (source, options)
    });
    violations.finish(converted)
}

/// Notes the errors of options under their names in the request.
struct Checks<'a>(&'a mut Violations);

impl Checks<'_> {
    fn result<T>(&mut self, result: Result<T, InvalidField>) -> Option<T> {
        self.0.check(result.map_err(|error| error.within(OPTIONS)))
    }

    /// Parses `text`, unless it is empty.
    fn parsed<T>(&mut self, field: &str, text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        if text.is_empty() {
            return None;
        }
        let parsed = parse(text).map_err(|problem| InvalidField::new(field, "INVALID_OPTION", problem));
        self.result(parsed)
    }
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn encoding(name: &str) -> Result<String, String> {
    let unknown = || "must be a name of the WHATWG standard, such as utf-8, latin1 or shift_jis".to_owned();
    encoding::named(name).map(|_| name.to_owned()).ok_or_else(unknown)
}

fn source(source: String) -> Result<String, InvalidField> {
    const MAX_CHARS: usize = 200;
    if source.is_empty() {
        return Ok("an upload".to_owned());
    }
    let n_chars = source.chars().count();
    if n_chars > MAX_CHARS {
        let message = format!("must have at most {MAX_CHARS} characters, has {n_chars}");
        return Err(InvalidField::new("source", "TEXT_TOO_LONG", message));
    }
    check_text("source", source)
}

fn max_reject_share(share: Option<f64>) -> Result<f64, InvalidField> {
    const DEFAULT: f64 = 0.1;
    match share.unwrap_or(DEFAULT) {
        share if (0.0..=1.0).contains(&share) => Ok(share),
        share => {
            let message = format!("must lie between 0 and 1, is {share}");
            Err(InvalidField::new("max_reject_share", "OUT_OF_RANGE", message))
        }
    }
}

/// Returns the pairs in an order that does not change.
fn sorted(map: HashMap<String, String>) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = map.into_iter().collect();
    pairs.sort_unstable();
    pairs
}

fn value_map(map: v1::ValueMap) -> (String, Vec<(String, String)>) {
    (map.column, sorted(map.values))
}

fn kind_of(kind: v1::ImportKind) -> Result<ImportKind, InvalidField> {
    Ok(match kind {
        v1::ImportKind::Unspecified => {
            return Err(InvalidField::new("kind", "MISSING", "must say what the file holds"));
        }
        v1::ImportKind::Ratings => ImportKind::Ratings,
        v1::ImportKind::Purchases => ImportKind::Purchases,
        v1::ImportKind::Orders => ImportKind::Orders,
        v1::ImportKind::Items => ImportKind::Items,
        v1::ImportKind::Merchants => ImportKind::Merchants,
        v1::ImportKind::Campaigns => ImportKind::Campaigns,
        v1::ImportKind::Coupons => ImportKind::Coupons,
        v1::ImportKind::CouponItems => ImportKind::CouponItems,
        v1::ImportKind::Assignments => ImportKind::Assignments,
        v1::ImportKind::Redemptions => ImportKind::Redemptions,
        v1::ImportKind::Attributes => ImportKind::Attributes,
        v1::ImportKind::Consents => ImportKind::Consents,
        v1::ImportKind::Suppressions => ImportKind::Suppressions,
        v1::ImportKind::Inventory => ImportKind::Inventory,
        v1::ImportKind::Policies => ImportKind::Policies,
    })
}

impl From<ImportKind> for v1::ImportKind {
    fn from(kind: ImportKind) -> Self {
        match kind {
            ImportKind::Ratings => Self::Ratings,
            ImportKind::Purchases => Self::Purchases,
            ImportKind::Orders => Self::Orders,
            ImportKind::Items => Self::Items,
            ImportKind::Merchants => Self::Merchants,
            ImportKind::Campaigns => Self::Campaigns,
            ImportKind::Coupons => Self::Coupons,
            ImportKind::CouponItems => Self::CouponItems,
            ImportKind::Assignments => Self::Assignments,
            ImportKind::Redemptions => Self::Redemptions,
            ImportKind::Attributes => Self::Attributes,
            ImportKind::Consents => Self::Consents,
            ImportKind::Suppressions => Self::Suppressions,
            ImportKind::Inventory => Self::Inventory,
            ImportKind::Policies => Self::Policies,
        }
    }
}

fn format_of(format: i32) -> Result<Option<Format>, InvalidField> {
    let unknown = |_| InvalidField::new("format", "UNKNOWN_FORMAT", "must be one of the known formats");
    Ok(match v1::FileFormat::try_from(format).map_err(unknown)? {
        v1::FileFormat::Unspecified => None,
        v1::FileFormat::Csv => Some(Format::Csv),
        v1::FileFormat::JsonLines => Some(Format::JsonLines),
        v1::FileFormat::Parquet => Some(Format::Parquet),
        v1::FileFormat::Xlsx => Some(Format::Workbook),
    })
}

/// Returns the summary of an import that has read its file, and what is wrong with the file.
///
/// # Errors
/// The status of an import that could not begin, or that something else than its file has ended.
pub fn outcome(
    imported: Result<ImportSummary, ImportError>,
) -> Result<(ImportSummary, Option<v1::ImportProblem>), Status> {
    let problem = |reason: &str, message: String| {
        Some(v1::ImportProblem {
            reason: reason.to_owned(),
            message,
        })
    };
    match imported {
        Ok(summary) if summary.interrupted => Err(status::import_interrupted(summary.import_id, summary.last_line)),
        Ok(summary) => Ok((summary, None)),
        Err(ImportError::Rejected { cause, summary }) => {
            let reason = match &cause {
                RejectCause::NoneAccepted { .. } => "NONE_ACCEPTED",
                RejectCause::NoneLeft { .. } => "NONE_LEFT",
                RejectCause::ShareAtFirst { .. } | RejectCause::Share { .. } | RejectCause::TooMany { .. } => {
                    "TOO_MANY_REJECTS"
                }
            };
            Ok((*summary, problem(reason, cause.to_string())))
        }
        Err(ImportError::Stopped {
            cause: StopCause::Read(error),
            summary,
        }) if error.raw_os_error().is_none() => {
            let line = summary.last_line;
            let message = format!("the file cannot be read after line {line}: {error}");
            Ok((*summary, problem("UNREADABLE_FILE", message)))
        }
        Err(error) => Err(error.into()),
    }
}

impl From<ImportSummary> for v1::ImportSummary {
    fn from(summary: ImportSummary) -> Self {
        let contents = summary.contents;
        let counts = |(name, count): (&'static str, u64)| (name.to_owned(), count);
        let values = contents.values.into_iter();
        Self {
            read: summary.read,
            filtered: summary.filtered,
            stored: summary.stored,
            merged: summary.merged,
            older: summary.older,
            overwritten: summary.overwritten,
            dropped: summary.dropped,
            rejected: summary.rejected,
            rejects_by_reason: summary.rejects_by_reason.into_iter().map(counts).collect(),
            rejects_by_field: summary.rejects_by_field.into_iter().collect(),
            rejects: summary.first_rejects.into_iter().map(Into::into).collect(),
            users: contents.users.map(Into::into),
            items: contents.items.map(Into::into),
            first_time: contents.times.map(|(first, _)| timestamp(first)),
            last_time: contents.times.map(|(_, last)| timestamp(last)),
            values: values
                .map(|(least, greatest)| v1::ValueRange { least, greatest })
                .collect(),
            columns_by_name: summary
                .columns_by_name
                .into_iter()
                .map(|(field, column)| (field.to_owned(), column))
                .collect(),
            warnings: summary.warnings,
            first: summary.first,
            last_line: summary.last_line,
            seconds: summary.seconds,
        }
    }
}

impl From<Count> for v1::DistinctIds {
    fn from(count: Count) -> Self {
        Self {
            count: count.count as u64,
            at_least: count.is_at_least,
        }
    }
}

impl From<Reject> for v1::RejectedLine {
    fn from(reject: Reject) -> Self {
        Self {
            line: reject.line,
            error: Some(v1::EntryError {
                reason: reject.reason.to_owned(),
                field: reject.field,
                message: reject.message,
            }),
            record: reject.record,
        }
    }
}

impl From<ImportState> for v1::ImportState {
    fn from(state: ImportState) -> Self {
        match state {
            ImportState::Running => Self::Running,
            ImportState::Abandoned => Self::Abandoned,
            ImportState::Done => Self::Done,
            ImportState::Stopped => Self::Stopped,
            ImportState::Interrupted => Self::Interrupted,
            ImportState::Rejected => Self::Rejected,
            ImportState::Undone => Self::Undone,
        }
    }
}

impl From<ImportRecord> for v1::Import {
    fn from(record: ImportRecord) -> Self {
        // A newer version of the program may know more kinds.
        let kind = ImportKind::parse(&record.kind).map_or(v1::ImportKind::Unspecified, Into::into);
        Self {
            import_id: record.id,
            kind: kind.into(),
            source: record.source,
            state: v1::ImportState::from(record.state).into(),
            read: record.lines.read,
            stored: record.lines.stored,
            merged: record.lines.merged,
            rejected: record.lines.rejected,
            started_at: Some(timestamp(record.started_at)),
            ended_at: record.ended_at.map(timestamp),
            undone_at: record.undone_at.map(timestamp),
            undoable: record.is_undoable,
        }
    }
}

pub fn undone(undone: Undone, import: ImportRecord) -> v1::UndoImportResponse {
    v1::UndoImportResponse {
        import: Some(import.into()),
        restored: undone.restored,
        removed: undone.removed,
        rolled_back: undone.rolled_back,
        kept: undone.kept,
    }
}

pub fn import_id(id: i64) -> Result<i64, Status> {
    if id < 1 {
        let message = format!("must be 1 or more, is {id}");
        return Err(invalid_argument(vec![InvalidField::new(
            "import_id",
            "ID_OUT_OF_RANGE",
            message,
        )]));
    }
    Ok(id)
}
