//! Maps columns, constants and templates of a file to the fields of its records.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::ids::IdDoubts;
use domain::error::InvalidField;
use tabular::encoding;
use tabular::header::{self, Found, trimmed};
use tabular::open::Format;
use tabular::option_names::OptionNames;
use tabular::record::Record;

/// Says where each field comes from; the field stands first in a pair. A field that is not named here is read from the
/// column of its own name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnMap {
    /// Fields with their column, or with a template of columns such as `{brand} {name}`.
    pub columns: Vec<(String, String)>,
    /// Fields that have the same text on every line.
    pub constants: Vec<(String, String)>,
    /// Columns that are not read although a field has their name.
    pub unmapped: Vec<String>,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ColumnError {
    #[error("{field} is not a field; the fields are {}", .known.join(", "))]
    UnknownField { field: String, known: Vec<&'static str> },
    #[error("{field} is mapped or set twice")]
    GivenTwice { field: &'static str },
    #[error("{field}: the file has no column {column:?}; its columns are {header}")]
    UnknownColumn {
        field: &'static str,
        column: String,
        header: Header,
    },
    #[error(
        "{field}: the file has two columns {column:?}; to tell them apart by number, leave the names out with {} 1 and {}",
        .names.name("--skip-lines"), .names.name("--no-header")
    )]
    AmbiguousColumn {
        field: &'static str,
        column: String,
        names: OptionNames,
    },
    #[error("{field}: the template {template:?} has a brace without its partner; double a brace that is plain text")]
    InvalidTemplate { field: &'static str, template: String },
    #[error(
        "{} is missing: map it to a column or set it to a constant; the file's columns are {header}",
        .fields.join(" or ")
    )]
    Missing {
        /// One of these is required.
        fields: Vec<&'static str>,
        header: Header,
    },
    #[error("only one of {} can be used: map the one to read", .fields.join(", "))]
    Exclusive { fields: Vec<&'static str> },
    #[error("the constant for {} is not valid: {}", .0.field, .0.message)]
    InvalidConstant(InvalidField),
    #[error("{column:?} cannot be unmapped: it is neither a field nor one of the file's columns, which are {header}")]
    UnknownUnmapped { column: String, header: Header },
}

/// Facts about a file that messages about its columns rest on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFacts {
    pub format: Format,
    /// How messages name the options of the import.
    pub options: OptionNames,
    /// The likely encoding of text that is not UTF-8.
    pub encoding_guess: Option<&'static str>,
    /// The column of a single JSON object that has an array of objects.
    pub nested: Option<String>,
}

impl FileFacts {
    pub fn new(format: Format, options: OptionNames) -> Self {
        Self {
            format,
            options,
            encoding_guess: None,
            nested: None,
        }
    }
}

/// The names of a file's columns, as errors list them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    names: Vec<String>,
    facts: Arc<FileFacts>,
}

impl fmt::Display for Header {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&quoted(&self.names, &self.facts))
    }
}

fn quoted(names: &[String], facts: &FileFacts) -> String {
    const MAX_SHOWN: usize = 50;
    const MAX_CHARS: usize = 60;
    let shown = |name: &String| format!("{:?}", name.chars().take(MAX_CHARS).collect::<String>());
    let mut quoted: Vec<String> = names.iter().take(MAX_SHOWN).map(shown).collect();
    if names.len() > MAX_SHOWN {
        quoted.push(format!("and {} more", names.len() - MAX_SHOWN));
    }
    quoted.join(", ") + &hint(names, facts)
}

/// Returns what is likely to be wrong where these are the columns of a file.
fn hint(names: &[String], facts: &FileFacts) -> String {
    let options = facts.options;
    let is_numbered = names.iter().zip(1..).all(|(name, number)| *name == number.to_string());
    let delimiter = |name: &String| [';', '\t', '|', ':', ','].into_iter().find(|sign| name.contains(*sign));
    match (names, facts.format) {
        (_, Format::JsonLines) => match (&facts.nested, options) {
            (None, _) => String::new(),
            (Some(key), OptionNames::Arguments) => format!(
                " (to import the objects in {key:?}, write each on a line: jq -c '.{key}[]' FILE | likemind import KIND -)"
            ),
            (Some(key), OptionNames::Fields) => {
                format!(" (to import the objects in {key:?}, send each of them on a line)")
            }
        },
        (_, Format::Parquet) => String::new(),
        ([_], Format::Csv) if is_numbered => format!(
            " (the first line has one field: if that is not right, say {} or {})",
            options.name("--delimiter"),
            options.name("--skip-lines")
        ),
        ([name], Format::Csv) if delimiter(name).is_some() => {
            let sign = match (delimiter(name), options) {
                (Some('\t'), _) => "tab".to_owned(),
                (Some(sign), OptionNames::Arguments) => format!("'{sign}'"),
                (sign, _) => sign.map(String::from).unwrap_or_default(),
            };
            format!(
                " (is the delimiter right? say, for example, {})",
                options.with("--delimiter", sign)
            )
        }
        (names, _) if names.len() == 1 || names.iter().all(String::is_empty) => format!(
            " (if the names of the columns stand further down, say how many lines come before them, with {})",
            options.name("--skip-lines")
        ),
        _ if !is_numbered && header::looks_like_data(names) => format!(
            " (they look like data: if the file has no header, say {} and name the columns by number)",
            options.name("--no-header")
        ),
        _ => String::new(),
    }
}

/// Knows, for one header, where the text of every field comes from.
#[derive(Debug)]
pub(super) struct Columns {
    header: Vec<String>,
    facts: Arc<FileFacts>,
    sources: BTreeMap<&'static str, Source>,
    /// The fields that the map names; others are only found in the header.
    named: Vec<&'static str>,
    /// The fields without which no record can be read.
    required: Vec<&'static str>,
    /// Reads each field of a record for itself.
    probes: Vec<Probe>,
    /// The doubtful ids of each field.
    id_doubts: BTreeMap<&'static str, Arc<IdDoubts>>,
    /// How many lines have no time of their own, by field.
    undated: BTreeMap<&'static str, Arc<AtomicU64>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Column(usize),
    Template(Vec<Part>),
    Constant(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Column(usize),
}

impl Columns {
    /// # Errors
    /// [`ColumnError`] names the field.
    pub fn new(
        header: Vec<String>,
        fields: &[&'static str],
        map: &ColumnMap,
        facts: FileFacts,
    ) -> Result<Self, ColumnError> {
        let mut columns = Self {
            header,
            facts: Arc::new(facts),
            sources: BTreeMap::new(),
            named: Vec::new(),
            required: Vec::new(),
            probes: Vec::new(),
            id_doubts: BTreeMap::new(),
            undated: BTreeMap::new(),
        };
        let known = |field: &str| {
            let found = fields.iter().copied().find(|known| *known == field);
            found.ok_or_else(|| ColumnError::UnknownField {
                field: field.to_owned(),
                known: fields.to_vec(),
            })
        };
        for (field, column) in &map.columns {
            let field = known(field)?;
            let source = columns.source(field, column)?;
            columns.name(field, source)?;
        }
        for (field, constant) in &map.constants {
            columns.name(known(field)?, Source::Constant(constant.clone()))?;
        }
        let unmapped: Vec<String> = map.unmapped.iter().map(|name| header::simplified(name)).collect();
        for (name, simplified) in map.unmapped.iter().zip(&unmapped) {
            let known = fields.iter().copied().chain(columns.header.iter().map(String::as_str));
            if known.into_iter().all(|known| header::simplified(known) != *simplified) {
                let (column, header) = (name.clone(), columns.shown_header());
                return Err(ColumnError::UnknownUnmapped { column, header });
            }
        }
        for &field in fields {
            if columns.sources.contains_key(field) || unmapped.contains(&header::simplified(field)) {
                continue;
            }
            if header::find(&columns.header, field) != Found::None {
                let source = Source::Column(columns.index(field, field)?);
                columns.sources.insert(field, source);
            }
        }
        Ok(columns)
    }

    fn shown_header(&self) -> Header {
        Header {
            names: self.header.clone(),
            facts: self.facts.clone(),
        }
    }

    /// Returns the optional fields that are read only because a column has their name, with that column.
    pub fn taken_by_name(&self) -> BTreeMap<&'static str, String> {
        let is_optional = |field| !self.named.contains(field) && !self.required.contains(field);
        let unnamed = self.sources.iter().filter(|(field, _)| is_optional(*field));
        let columns = unnamed.filter_map(|(field, source)| match source {
            Source::Column(index) => Some((*field, self.header[*index].clone())),
            _ => None,
        });
        columns.collect()
    }

    /// Returns the doubtful ids of each field, which are counted while records are read.
    pub fn id_doubts(&self) -> BTreeMap<&'static str, Arc<IdDoubts>> {
        self.id_doubts.clone()
    }

    /// Returns how many lines have no time of their own, by field. They are counted while records are read.
    pub fn undated(&self) -> BTreeMap<&'static str, Arc<AtomicU64>> {
        self.undated.clone()
    }

    /// Takes the probes of all fields that are read from the file.
    pub fn take_probes(&mut self) -> Vec<Probe> {
        std::mem::take(&mut self.probes)
    }

    /// Returns the counter of lines that have nothing in the time `field` of a file that has this field.
    pub fn count_undated(&mut self, field: &'static str) -> Arc<AtomicU64> {
        self.undated.entry(field).or_default().clone()
    }

    /// Marks a field of which the file must have it or another one.
    pub fn mark_required(&mut self, field: &'static str) {
        self.required.push(field);
    }

    fn name(&mut self, field: &'static str, source: Source) -> Result<(), ColumnError> {
        self.named.push(field);
        match self.sources.insert(field, source) {
            None => Ok(()),
            Some(_) => Err(ColumnError::GivenTwice { field }),
        }
    }

    fn source(&self, field: &'static str, text: &str) -> Result<Source, ColumnError> {
        if header::find(&self.header, text) != Found::None || !text.contains('{') {
            return Ok(Source::Column(self.index(field, text)?));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        let mut literal = String::new();
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let end = if brace == "{" { rest.find('}') } else { None };
            let Some(end) = end else {
                let template = text.to_owned();
                return Err(ColumnError::InvalidTemplate { field, template });
            };
            parts.push(Part::Text(std::mem::take(&mut literal)));
            parts.push(Part::Column(self.index(field, &rest[..end])?));
            rest = &rest[end + 1..];
        }
        if parts.is_empty() {
            return self.index(field, text).map(Source::Column);
        }
        literal.push_str(rest);
        parts.push(Part::Text(literal));
        Ok(Source::Template(parts))
    }

    fn index(&self, field: &'static str, column: &str) -> Result<usize, ColumnError> {
        match header::find(&self.header, column) {
            Found::One(index) => Ok(index),
            Found::Several => Err(ColumnError::AmbiguousColumn {
                field,
                column: column.to_owned(),
                names: self.facts.options,
            }),
            Found::None => Err(ColumnError::UnknownColumn {
                field,
                column: column.to_owned(),
                header: self.shown_header(),
            }),
        }
    }

    /// Returns the field if the file or the map has a source for it.
    pub fn optional<T: 'static>(
        &mut self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, InvalidField> + Send + Sync + 'static,
    ) -> Result<Option<Field<T>>, ColumnError> {
        let value = match self.sources.get(name) {
            None => return Ok(None),
            Some(Source::Constant(text)) => Value::Constant(read(trimmed(text)).map_err(ColumnError::InvalidConstant)?),
            Some(source) => {
                let (source, read): (Source, Read<T>) = (source.clone(), Arc::new(read));
                self.probes
                    .push(probe(name, source.clone(), read.clone(), self.facts.clone()));
                Value::Cell { source, read }
            }
        };
        let id_doubts = match name.ends_with("_id") {
            true => Some(self.id_doubts.entry(name).or_default().clone()),
            false => None,
        };
        Ok(Some(Field {
            name,
            value,
            id_doubts,
            facts: self.facts.clone(),
        }))
    }

    /// # Errors
    /// [`ColumnError::Missing`] when neither the file nor the map has a source for the field.
    pub fn required<T: 'static>(
        &mut self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, InvalidField> + Send + Sync + 'static,
    ) -> Result<Field<T>, ColumnError> {
        self.required.push(name);
        self.optional(name, read)?.ok_or_else(|| self.missing(&[name]))
    }

    /// Returns the one of `names` that has a source. A field that the map names goes before fields that are only found in
    /// the header.
    ///
    /// # Errors
    /// [`ColumnError::Exclusive`] when several have one.
    pub fn one_of(&self, names: &[&'static str]) -> Result<Option<&'static str>, ColumnError> {
        let filter = |keep: &dyn Fn(&&'static str) -> bool| -> Vec<&'static str> {
            names.iter().copied().filter(|name| keep(name)).collect()
        };
        let mut candidates = filter(&|name| self.named.contains(name));
        if candidates.is_empty() {
            candidates = filter(&|name| self.sources.contains_key(name));
        }
        match candidates[..] {
            [] => Ok(None),
            [name] => Ok(Some(name)),
            _ => Err(ColumnError::Exclusive { fields: candidates }),
        }
    }

    pub fn missing(&self, fields: &[&'static str]) -> ColumnError {
        ColumnError::Missing {
            fields: fields.to_vec(),
            header: self.shown_header(),
        }
    }
}

/// Reads one field of every record.
pub(super) struct Field<T> {
    name: &'static str,
    value: Value<T>,
    /// Counts doubtful ids, if these are ids.
    id_doubts: Option<Arc<IdDoubts>>,
    facts: Arc<FileFacts>,
}

enum Value<T> {
    Constant(T),
    Cell { source: Source, read: Read<T> },
}

type Read<T> = Arc<dyn Fn(&str) -> Result<T, InvalidField> + Send + Sync>;

/// Reads one field of a record for itself.
pub(super) struct Probe(Box<FindProblem>);

type FindProblem = dyn Fn(&Record<'_>) -> Option<InvalidField> + Send;

impl fmt::Debug for Probe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Probe")
    }
}

impl Probe {
    /// Returns what is wrong with the field, if anything is.
    pub fn problem(&self, record: &Record<'_>) -> Option<InvalidField> {
        (self.0)(record)
    }
}

fn probe<T: 'static>(name: &'static str, source: Source, read: Read<T>, facts: Arc<FileFacts>) -> Probe {
    Probe(Box::new(move |record| match source.text((name, &facts), record) {
        Err(error) => Some(error),
        Ok(text) if text.is_empty() => None,
        Ok(text) => read(&text).err(),
    }))
}

impl<T: Clone> Field<T> {
    /// Returns `None` where the record has nothing, or only blanks. Blanks around a text are not part of it.
    ///
    /// # Errors
    /// `INVALID_UTF8`, or the error of the field's own reader.
    pub fn get(&self, record: &Record<'_>) -> Result<Option<T>, InvalidField> {
        match &self.value {
            Value::Constant(value) => Ok(Some(value.clone())),
            Value::Cell { source, read } => {
                let text = source.text((self.name, &self.facts), record)?;
                if text.is_empty() {
                    return Ok(None);
                }
                if let Some(doubts) = &self.id_doubts {
                    doubts.see(&text);
                }
                read(&text).map(Some)
            }
        }
    }

    /// # Errors
    /// `MISSING` where the record has nothing, or only blanks.
    pub fn require(&self, record: &Record<'_>) -> Result<T, InvalidField> {
        self.get(record)?.ok_or_else(|| missing(self.name))
    }
}

pub(super) fn missing(field: &str) -> InvalidField {
    InvalidField::new(field, "MISSING", "must be given")
}

impl Source {
    fn text<'a>(&'a self, field: (&str, &FileFacts), record: &Record<'a>) -> Result<Cow<'a, str>, InvalidField> {
        match self {
            Self::Constant(text) => Ok(Cow::Borrowed(text)),
            Self::Column(index) => cell(field, record, *index).map(Cow::Borrowed),
            Self::Template(parts) => {
                let mut text = String::new();
                let mut is_empty = true;
                for part in parts {
                    match part {
                        Part::Text(literal) => text.push_str(literal),
                        Part::Column(index) => {
                            let cell = cell(field, record, *index)?;
                            is_empty &= cell.is_empty();
                            text.push_str(cell);
                        }
                    }
                }
                // The template's own text means nothing where all its columns are empty.
                Ok(Cow::Owned(match is_empty {
                    true => String::new(),
                    false => trimmed(&text).to_owned(),
                }))
            }
        }
    }
}

/// Texts that spreadsheets show in a cell that has no value.
const SPREADSHEET_ERRORS: [&str; 8] = [
    "#N/A", "#REF!", "#VALUE!", "#DIV/0!", "#NAME?", "#NUM!", "#NULL!", "#SPILL!",
];

/// `field`: its name, and what is known about the file.
fn cell<'a>((field, facts): (&str, &FileFacts), record: &Record<'a>, index: usize) -> Result<&'a str, InvalidField> {
    let bytes = record.field(index);
    match std::str::from_utf8(bytes) {
        Ok(text) => match trimmed(text) {
            text if text.starts_with('#') && SPREADSHEET_ERRORS.contains(&text) => {
                let message = format!(
                    "must be a value, is the error {text} of a spreadsheet; to read such a cell as an empty one, give the \
                     error to {}",
                    facts.options.name("--null")
                );
                Err(InvalidField::new(field, "SPREADSHEET_ERROR", message))
            }
            text => Ok(text),
        },
        Err(error) => {
            let byte = error.valid_up_to();
            let guess = facts
                .encoding_guess
                .or_else(|| encoding::guess(bytes))
                .unwrap_or("windows-1252");
            let message = format!(
                "must be UTF-8, but byte {byte} of the field is not; if the file is in another encoding, say so, for \
                 example {}",
                facts.options.with("--encoding", guess)
            );
            Err(InvalidField::new(field, "INVALID_UTF8", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tabular::input::Input;
    use tabular::open::{ReadOptions, open};

    use super::*;

    const FIELDS: [&str; 4] = ["user_id", "title", "price", "price_minor"];

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(field, value)| ((*field).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn columns(header: &str, map: &[(&str, &str)], set: &[(&str, &str)]) -> Result<Columns, ColumnError> {
        let map = ColumnMap {
            columns: pairs(map),
            constants: pairs(set),
            unmapped: Vec::new(),
        };
        Columns::new(
            header.split(',').map(str::to_owned).collect(),
            &FIELDS,
            &map,
            FileFacts::new(Format::Csv, OptionNames::Arguments),
        )
    }

    /// Accepts every text but `bad`.
    fn read(text: &str) -> Result<String, InvalidField> {
        match text {
            "bad" => Err(InvalidField::new("title", "BAD", "is bad")),
            text => Ok(text.to_owned()),
        }
    }

    #[test]
    fn fields_are_read_from_where_the_map_says() {
        let check = |header: &str, map: &[(&str, &str)], set: &[(&str, &str)], line: &str, want: Option<&str>| {
            let mut columns = columns(header, map, set).unwrap();
            let title = columns.optional("title", read).unwrap();
            let text = format!("{header}\n{line}\n");
            let input = Input::new("test", Cursor::new(text), None);
            let mut source = open(input, &ReadOptions::default()).unwrap();
            let record = source.rows.next().unwrap().unwrap().unwrap();
            let got = title.and_then(|title| title.get(&record).unwrap());
            assert_eq!(got.as_deref(), want, "{header} {map:?} {set:?} {line}");
        };
        check("title,b", &[], &[], "x,y", Some("x"));
        check("a,b", &[], &[], "x,y", None);
        check("title,b", &[("title", "b")], &[], "x,y", Some("y"));
        check("title,b", &[], &[("title", "z")], "x,y", Some("z"));
        check("title,b", &[], &[], ",y", None);
        check("title,b", &[], &[], "  ,y", None);
        check("title,b", &[], &[], " x \u{a0},y", Some("x"));
        check("Ti Tle,b", &[], &[], "x,y", Some("x"));
        check("a,B_b", &[("title", "bb")], &[], "x,y", Some("y"));
        check("a,b", &[("title", "{a}-{b}")], &[], "x ,y", Some("x-y"));
        check("a,b", &[("title", "{a} {b}")], &[], "x,y", Some("x y"));
        check("a,b", &[("title", "{a} {b}")], &[], "x,", Some("x"));
        check("a,b", &[("title", "{a} {b}")], &[], ",", None);
        check("a,b", &[("title", "{a}/{{{b}}}")], &[], "x,y", Some("x/{y}"));
        check("a,{b}", &[("title", "{b}")], &[], "x,y", Some("y"));
    }

    #[test]
    fn a_header_that_looks_like_data_is_said_to_look_so() {
        let missing = columns("196,242,3,881250949", &[], &[])
            .unwrap()
            .missing(&["user_id"])
            .to_string();
        assert!(missing.contains("they look like data"), "{missing}");
        let numbered = columns("1,2,3", &[], &[]).unwrap().missing(&["user_id"]).to_string();
        assert!(!numbered.contains("look like data"), "{numbered}");
    }

    #[test]
    fn the_likely_cause_of_a_missing_column_is_named() {
        let check = |format, header: &[&str], nested: Option<&str>, want: &str| {
            let facts = FileFacts {
                nested: nested.map(str::to_owned),
                ..FileFacts::new(format, OptionNames::Arguments)
            };
            let header = header.iter().map(|name| (*name).to_owned()).collect();
            let columns = Columns::new(header, &FIELDS, &ColumnMap::default(), facts).unwrap();
            let message = columns.missing(&["user_id"]).to_string();
            assert!(message.ends_with(want), "{message}");
        };
        check(
            Format::Csv,
            &["a;b"],
            None,
            "(is the delimiter right? say, for example, --delimiter ';')",
        );
        check(Format::Csv, &["a\tb"], None, "say, for example, --delimiter tab)");
        check(
            Format::Csv,
            &["Report"],
            None,
            "say how many lines come before them, with --skip-lines)",
        );
        check(
            Format::Csv,
            &["", ""],
            None,
            "say how many lines come before them, with --skip-lines)",
        );
        check(Format::Csv, &["1"], None, "say --delimiter or --skip-lines)");
        check(Format::Workbook, &["a;b"], None, "with --skip-lines)");
        check(Format::JsonLines, &["a"], None, "are \"a\"");
        check(
            Format::JsonLines,
            &["page", "data.orders"],
            Some("data.orders"),
            "write each on a line: jq -c '.data.orders[]' FILE | likemind import KIND -)",
        );
        check(Format::Parquet, &["a"], None, "are \"a\"");
    }

    #[test]
    fn errors_of_spreadsheets_are_no_values() {
        let read_cell = |cell: &str| {
            let mut columns = columns("title", &[], &[]).unwrap();
            let title = columns.optional("title", read).unwrap().unwrap();
            let input = Input::new("test", Cursor::new(format!("title\n{cell}\n")), None);
            let mut source = open(input, &ReadOptions::default()).unwrap();
            title.get(&source.rows.next().unwrap().unwrap().unwrap())
        };
        assert_eq!(read_cell("#N/A").unwrap_err().reason, "SPREADSHEET_ERROR");
        assert_eq!(read_cell(" #REF! ").unwrap_err().reason, "SPREADSHEET_ERROR");
        assert_eq!(read_cell("#1").unwrap().as_deref(), Some("#1"));
    }

    #[test]
    fn an_unmapped_column_is_not_read() {
        let new = |unmapped: &str| {
            let map = ColumnMap {
                unmapped: vec![unmapped.to_owned()],
                ..ColumnMap::default()
            };
            Columns::new(
                vec!["user_id".to_owned(), "Title".to_owned()],
                &FIELDS,
                &map,
                FileFacts::new(Format::Csv, OptionNames::Arguments),
            )
        };
        let taken = |unmapped| new(unmapped).unwrap().taken_by_name().into_keys().collect::<Vec<_>>();
        assert_eq!(taken("title"), ["user_id"]);
        assert_eq!(taken("price"), ["title", "user_id"]);
        assert!(
            new("colour")
                .unwrap_err()
                .to_string()
                .starts_with("\"colour\" cannot be unmapped")
        );
    }

    #[test]
    fn a_map_is_checked_before_anything_is_read() {
        let check = |header: &str, map: &[(&str, &str)], set: &[(&str, &str)], want: &str| {
            let got = columns(header, map, set).and_then(|mut columns| {
                columns.required("user_id", read)?;
                columns.optional("title", read)?;
                columns.one_of(&["price", "price_minor"])
            });
            let got = got.map(|price| price.unwrap_or("no price").to_owned());
            let got = got.unwrap_or_else(|error| error.to_string());
            assert!(got.starts_with(want), "{header} {map:?} {set:?}: {got}");
        };
        check("user_id", &[], &[], "no price");
        check("user_id,price", &[], &[], "price");
        check(
            "user_id,price,price_minor",
            &[("price_minor", "price_minor")],
            &[],
            "price_minor",
        );
        check(
            "user_id,price,price_minor",
            &[],
            &[],
            "only one of price, price_minor can be used",
        );
        check(
            "a",
            &[("user_id", "a"), ("price", "a")],
            &[("price_minor", "1")],
            "only one of price, price_minor",
        );
        check("a", &[], &[], "user_id is missing");
        check(
            "a",
            &[],
            &[],
            "user_id is missing: map it to a column or set it to a constant; the file's columns are \"a\"",
        );
        check(
            "a",
            &[("usr", "a")],
            &[],
            "usr is not a field; the fields are user_id, title, price, price_minor",
        );
        check("a", &[], &[("usr", "a")], "usr is not a field");
        check(
            "a,b",
            &[("user_id", "c")],
            &[],
            "user_id: the file has no column \"c\"; its columns are \"a\", \"b\"",
        );
        check(
            "a,b",
            &[("user_id", "{a}{c}")],
            &[],
            "user_id: the file has no column \"c\"",
        );
        check(
            "a,b",
            &[("user_id", "{{a}}")],
            &[],
            "user_id: the file has no column \"{{a}}\"",
        );
        check(
            "a,b",
            &[("user_id", "{a")],
            &[],
            "user_id: the template \"{a\" has a brace without its partner",
        );
        check("a,b", &[("user_id", "{a}}")], &[], "user_id: the template");
        check(
            "a,a",
            &[("user_id", "a")],
            &[],
            "user_id: the file has two columns \"a\"; to tell them apart by number, leave the names out with --skip-lines 1 \
             and --no-header",
        );
        check("user_id,user_id", &[], &[], "user_id: the file has two columns");
        check("user_id,a,a", &[], &[], "no price");
        check(
            "a,b",
            &[("user_id", "a"), ("user_id", "b")],
            &[],
            "user_id is mapped or set twice",
        );
        check(
            "a,b",
            &[("user_id", "a")],
            &[("user_id", "b")],
            "user_id is mapped or set twice",
        );
        check(
            "user_id",
            &[],
            &[("title", "bad")],
            "the constant for title is not valid: is bad",
        );
    }
}
