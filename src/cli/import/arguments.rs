//! The arguments of `likemind import`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use tabular::cells::{CellRules, Filter};
use tabular::csv::{self, Delimiter, Dialect};
use tabular::open::{Format, ReadOptions};

use crate::app::import::columns::ColumnMap;
use crate::app::import::numbers::{DecimalSign, NumberFormat};
use crate::app::import::rejects::RejectsTo;
use crate::app::import::times::TimeFormats;
use crate::app::import::{ImportKind, ImportOptions};
use domain::error::InvalidField;
use domain::rating::RatingScale;

#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The kind of record on the lines of the file
    #[arg(value_parser = kinds(), required = true)]
    kind: Option<ImportKind>,
    /// CSV, JSON, Parquet or Excel workbook, plain or compressed with gzip or zstd; - for standard input
    #[arg(required = true)]
    file: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    columns: ColumnArgs,
    /// Store nothing: print the summary and the first records as they are understood
    #[arg(long)]
    dry_run: bool,
    /// File for rejected lines [default: FILE.rejects.csv in the working folder]
    #[arg(long, value_name = "PATH")]
    rejects: Option<PathBuf>,
    /// Stop at the line with which more lines than this are rejected
    #[arg(long, value_name = "LINES")]
    max_rejects: Option<u64>,
    /// Fail when more than this share of the lines is rejected; if so at first, nothing is stored
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    max_reject_share: f64,
    /// Number of database connections that store in parallel
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    connections: u8,
    /// Print the summary as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// How the file is written.
#[derive(Debug, clap::Args)]
struct FormatArgs {
    /// Format of the file [default: told by its first bytes]
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
    /// Encoding of the text, such as latin1, windows-1251 or utf-16le [default: utf-8]
    #[arg(long, value_name = "NAME")]
    encoding: Option<String>,
    /// The file has no line with names: its columns are called 1, 2, 3 and so on
    #[arg(long)]
    no_header: bool,
    /// Lines before the names of the columns, or before the first record, that are left out; empty ones do not count
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    skip_lines: u32,
    /// Text between fields; the words tab and whitespace stand for a tab and for any number of spaces and tabs
    #[arg(long, value_name = "TEXT", default_value = ",", value_parser = Delimiter::parse)]
    delimiter: Delimiter,
    /// Character that encloses fields, or none
    #[arg(long, value_name = "CHARACTER", default_value = "\"", value_parser = quote)]
    quote: Quote,
    /// Character that takes the meaning of the one after it, such as \
    #[arg(long, value_name = "CHARACTER", value_parser = csv::one_character)]
    escape: Option<u8>,
    /// Sheet of a workbook [default: the first]
    #[arg(long, value_name = "NAME")]
    sheet: Option<String>,
    /// Sign before the decimals: , or . [default: ., and commas only where they are clearly between thousands]
    #[arg(long, value_name = "SIGN", value_parser = DecimalSign::parse)]
    decimal: Option<DecimalSign>,
    /// Round amounts with more decimals than their currency has, instead of rejecting them
    #[arg(long)]
    round: bool,
    /// Format of times: a strftime format, unix, unix_ms, unix_us, unix_ns or excel; if repeated, the first that fits [default: ISO 8601]
    #[arg(long, value_name = "FORMAT")]
    time_format: Vec<String>,
    /// Time zone of times without an offset
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
}

/// Where fields come from, and what becomes of cells before they are read.
#[derive(Debug, clap::Args)]
struct ColumnArgs {
    /// Read a field from this column, or from a template of columns [default: the column with the field's name]
    #[arg(long, value_name = "FIELD=COLUMN,…", value_parser = pairs)]
    map: Vec<Pairs>,
    /// Give a field the same text on every line
    #[arg(long, value_name = "FIELD=TEXT,…", value_parser = pairs)]
    set: Vec<Pairs>,
    /// Do not read this column although a field has its name
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    unmap: Vec<String>,
    /// Import only lines for which this holds: COLUMN = TEXT, !=, in TEXT,TEXT, is empty; if repeated, all must hold
    #[arg(long = "where", value_name = "CONDITION", value_parser = Filter::parse)]
    filters: Vec<Filter>,
    /// Texts that mean an empty cell, such as NA,\N
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    null: Vec<String>,
    /// Repeat the cell above in the empty cells of this column
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    fill_forward: Vec<String>,
    /// Repeat cells only as long as this column stays the same, such as the number of an order
    #[arg(long, value_name = "COLUMN", requires = "fill_forward")]
    fill_within: Option<String>,
    /// Give the empty cells of a column this text
    #[arg(long, value_name = "COLUMN=TEXT", value_parser = column_text)]
    default: Vec<(String, String)>,
    /// Replace texts in a column
    #[arg(long, value_name = "COLUMN=FROM:TO,…", value_parser = value_map)]
    map_value: Vec<(String, Pairs)>,
    /// Change the sign of the numbers in this column
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    negate: Vec<String>,
}

impl ImportArgs {
    /// Returns the file, or `None` for standard input.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref().filter(|file| file.as_os_str() != "-")
    }

    /// # Errors
    /// [`InvalidField`] names the option that is wrong.
    pub(super) fn options(self, scale: RatingScale) -> Result<ImportOptions, InvalidField> {
        let rejects = match (&self.rejects, self.file()) {
            (Some(path), _) => path.clone(),
            (None, None) => PathBuf::from("stdin.rejects.csv"),
            (None, Some(file)) => default_rejects(file),
        };
        // Only the commands that import nothing go without.
        let kind = self
            .kind
            .ok_or_else(|| InvalidField::new("KIND", "MISSING", "must be given"))?;
        let (format, columns) = (self.format, self.columns);
        Ok(ImportOptions {
            numbers: NumberFormat {
                decimal: format.decimal,
                rounds: format.round,
                ..NumberFormat::default()
            },
            times: TimeFormats::new(&format.time_format, &format.time_zone)?,
            read: ReadOptions {
                format: format.format.map(Format::from),
                encoding: format.encoding,
                dialect: Dialect {
                    delimiter: format.delimiter,
                    quote: format.quote.0,
                    escape: format.escape,
                },
                has_header: !format.no_header,
                skip_lines: format.skip_lines,
                sheet: format.sheet,
                ..ReadOptions::default()
            },
            cells: CellRules {
                nulls: columns.null,
                fill_forward: columns.fill_forward,
                fill_within: columns.fill_within,
                defaults: columns.default,
                maps: columns.map_value,
                negated: columns.negate,
                filters: columns.filters,
            },
            column_map: ColumnMap {
                columns: columns.map.concat(),
                constants: columns.set.concat(),
                unmapped: columns.unmap,
            },
            scale,
            rejects: RejectsTo::File(rejects),
            dry_run: self.dry_run,
            max_rejects: self.max_rejects,
            max_reject_share: self.max_reject_share,
            connections: self.connections.into(),
            ..ImportOptions::new(kind)
        })
    }
}

/// Returns the default file for rejected lines, in the working folder.
fn default_rejects(file: &Path) -> PathBuf {
    let mut name = OsString::from(file.file_name().unwrap_or_default());
    name.push(".rejects.csv");
    PathBuf::from(name)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FileFormat {
    Csv,
    #[value(alias = "json")]
    JsonLines,
    Parquet,
    Xlsx,
}

impl From<FileFormat> for Format {
    fn from(format: FileFormat) -> Self {
        match format {
            FileFormat::Csv => Self::Csv,
            FileFormat::JsonLines => Self::JsonLines,
            FileFormat::Parquet => Self::Parquet,
            FileFormat::Xlsx => Self::Workbook,
        }
    }
}

/// Parses the names of the kinds, and lists them in the help.
fn kinds() -> impl TypedValueParser<Value = ImportKind> {
    PossibleValuesParser::new(ImportKind::ALL.map(ImportKind::as_str))
        .try_map(|name| ImportKind::parse(&name).ok_or("is not a kind"))
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

/// Reads `column=text`.
fn column_text(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((column, text)) if !column.trim().is_empty() => Ok((column.trim().to_owned(), text.to_owned())),
        _ => Err("must be a column, an equals sign and a text, for example quantity=1".to_owned()),
    }
}

/// Reads `column=from:to,from:to`.
fn value_map(text: &str) -> Result<(String, Pairs), String> {
    let wrong = || "must be a column and texts to replace, for example stars=good:5,bad:1".to_owned();
    let (column, map) = column_text(text).map_err(|_| wrong())?;
    let pair = |pair: &str| {
        let (from, to) = pair.split_once(':').ok_or_else(wrong)?;
        Ok((from.trim().to_owned(), to.trim().to_owned()))
    };
    Ok((column, map.split(',').map(pair).collect::<Result<_, String>>()?))
}

/// The character that encloses fields, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quote(Option<u8>);

fn quote(text: &str) -> Result<Quote, String> {
    csv::quote(text).map(Quote)
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("must be a number from 0 to 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::help::HELP;
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
            "--decimal=,",
            "--quote=none",
            "--null=NA,\\N",
            "--where=status != cancelled",
            "--map-value=stars=good:5,bad:1",
            "--default=quantity=1",
        ])
        .unwrap();
        assert_eq!(args.kind, Some(ImportKind::Ratings));
        let options = args.options(RatingScale::default()).unwrap();
        assert_eq!(options.column_map.columns.len(), 2);
        assert_eq!(options.read.dialect.delimiter, Delimiter::Byte(b'\t'));
        assert_eq!(options.read.dialect.quote, None);
        assert_eq!(options.numbers.decimal, Some(DecimalSign::Comma));
        assert_eq!(options.cells.nulls, ["NA", "\\N"]);
        assert_eq!(options.cells.maps[0].1.len(), 2);
        assert_eq!(options.cells.defaults, [("quantity".to_owned(), "1".to_owned())]);
        let delimited = |text: &str| parse(&["ratings", "-", "--delimiter", text]).unwrap().format.delimiter;
        assert_eq!(delimited("::"), Delimiter::Text("::".to_owned()));
        assert_eq!(delimited("whitespace"), Delimiter::Whitespace);
        for bad in [
            &["ratings"][..],
            &["shoes", "-"],
            &["ratings", "-", "--map", "value"],
            &["ratings", "-", "--delimiter", ""],
            &["ratings", "-", "--delimiter", "\""],
            &["ratings", "-", "--quote", "ab"],
            &["ratings", "-", "--decimal", ";"],
            &["ratings", "-", "--where", "a > 5"],
            &["ratings", "-", "--map-value", "a=b"],
            &["ratings", "-", "--max-rejects", "-1"],
            &["ratings", "-", "--max-reject-share", "1.5"],
        ] {
            parse(bad).unwrap_err();
        }
    }

    #[test]
    fn rejects_stand_in_the_working_folder() {
        assert_eq!(
            default_rejects(Path::new("/data/a.csv.zst")),
            Path::new("a.csv.zst.rejects.csv")
        );
        assert_eq!(default_rejects(Path::new("a.csv")), Path::new("a.csv.rejects.csv"));
    }

    #[test]
    fn the_help_names_every_field() {
        for kind in ImportKind::ALL {
            for field in kind.fields() {
                assert!(HELP.contains(field), "{field}");
            }
        }
    }
}
