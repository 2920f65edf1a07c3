//! Rules that change cells before they are read, and filters that leave records out.

use crate::header::{self, Found, trimmed};
use crate::option_names::OptionNames;
use crate::record::Record;

/// The rules for the columns of one file, by the names of the columns. For each cell they apply in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellRules {
    /// Texts that mean an empty cell, in every column.
    pub nulls: Vec<String>,
    /// Columns whose empty cells repeat the cell above.
    pub fill_forward: Vec<String>,
    /// The column that must have the same cell as the record above for cells to be repeated.
    pub fill_within: Option<String>,
    /// Columns with the text of their empty cells.
    pub defaults: Vec<(String, String)>,
    /// Columns with texts and what they are replaced by.
    pub maps: Vec<(String, Vec<(String, String)>)>,
    /// Columns whose numbers change their sign.
    pub negated: Vec<String>,
    /// Conditions that a record must meet, all of them.
    pub filters: Vec<Filter>,
}

/// A condition on one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    pub column: String,
    pub test: Test,
}

/// A test of a cell. Blanks around the cell do not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// The cell is one of these, or none of these.
    In {
        texts: Vec<String>,
        is_negated: bool,
    },
    Empty {
        is_negated: bool,
    },
}

impl Filter {
    /// Parses `status = paid`, `status != cancelled`, `status in paid, sent`, `status not in …`, `note is empty` and
    /// `note is not empty`. The name of a column, and a text, may stand in quotes.
    ///
    /// # Errors
    /// Says what the condition must look like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no condition; write COLUMN = TEXT, COLUMN != TEXT, COLUMN in TEXT,TEXT, or COLUMN is empty"
            )
        };
        let (column, rest) = column_of(text.trim()).ok_or_else(wrong)?;
        let rest = rest.trim();
        let list = |texts: &str| -> Vec<String> {
            let texts = texts.trim();
            let inner = texts
                .strip_prefix('(')
                .and_then(|texts| texts.strip_suffix(')'))
                .unwrap_or(texts);
            inner.split(',').map(unquoted).collect()
        };
        let test = if let Some(text) = rest.strip_prefix("!=") {
            Test::In {
                texts: vec![unquoted(text)],
                is_negated: true,
            }
        } else if let Some(text) = rest.strip_prefix("==").or_else(|| rest.strip_prefix('=')) {
            Test::In {
                texts: vec![unquoted(text)],
                is_negated: false,
            }
        } else if let Some(texts) = rest.strip_prefix("in").filter(|texts| texts.starts_with([' ', '('])) {
            Test::In {
                texts: list(texts),
                is_negated: false,
            }
        } else if let Some(texts) = rest.strip_prefix("not in ") {
            Test::In {
                texts: list(texts),
                is_negated: true,
            }
        } else {
            match rest {
                "is empty" => Test::Empty { is_negated: false },
                "is not empty" => Test::Empty { is_negated: true },
                _ => return Err(wrong()),
            }
        };
        Ok(Self { column, test })
    }
}

/// Splits a condition into its column and the rest.
fn column_of(text: &str) -> Option<(String, &str)> {
    for quote in ['"', '\''] {
        if let Some(quoted) = text.strip_prefix(quote) {
            let (column, rest) = quoted.split_once(quote)?;
            return Some((column.to_owned(), rest));
        }
    }
    let operators = ["!=", "=", " in ", " in(", " not in ", " is empty", " is not empty"];
    let at = operators.iter().filter_map(|operator| text.find(operator)).min()?;
    let column = text[..at].trim();
    (!column.is_empty()).then(|| (column.to_owned(), &text[at..]))
}

fn unquoted(text: &str) -> String {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote)) {
            return inner.to_owned();
        }
    }
    text.to_owned()
}

/// A rule that does not fit the file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{option}: {problem}")]
pub struct RuleError {
    /// The option that the rule comes from.
    pub option: String,
    pub problem: String,
}

/// Lists the names of columns, the first of them if there are very many.
fn listed(header: &[String]) -> String {
    const MAX_SHOWN: usize = 50;
    const MAX_CHARS: usize = 60;
    let shown = |name: &String| name.chars().take(MAX_CHARS).collect::<String>();
    let mut names: Vec<String> = header.iter().take(MAX_SHOWN).map(shown).collect();
    if header.len() > MAX_SHOWN {
        names.push(format!("and {} more", header.len() - MAX_SHOWN));
    }
    names.join(", ")
}

/// Applies [`CellRules`] to the records of one file.
#[derive(Debug)]
pub struct CellChanger {
    columns: Vec<ColumnRules>,
    filters: Vec<(usize, Test)>,
    nulls: Vec<String>,
    /// The column within which cells are repeated, and its cell in the record above.
    group: Option<(usize, String)>,
    /// The cells of the current record that differ from the file.
    changed: Vec<Option<String>>,
    /// Whether a rule other than a filter exists.
    changes_cells: bool,
}

#[derive(Debug, Clone, Default)]
struct ColumnRules {
    /// The last cell with a text, if empty cells repeat it.
    above: Option<String>,
    default: Option<String>,
    map: Vec<(String, String)>,
    is_negated: bool,
}

impl CellChanger {
    /// Returns `None` if there is no rule.
    ///
    /// `names`: how errors name the options that the rules come from.
    ///
    /// # Errors
    /// [`RuleError`] names the option and the column that the file has not.
    pub fn new(rules: &CellRules, header: &[String], names: OptionNames) -> Result<Option<Self>, RuleError> {
        if *rules == CellRules::default() {
            return Ok(None);
        }
        let find = |option: &str, column: &String| match header::find(header, column) {
            Found::One(index) => Ok(index),
            Found::Several => Err(RuleError {
                option: names.name(option),
                problem: format!("the file has several columns {column:?}"),
            }),
            Found::None => Err(RuleError {
                option: names.name(option),
                problem: format!("the file has no column {column:?}; its columns are {}", listed(header)),
            }),
        };
        let mut columns = vec![ColumnRules::default(); header.len()];
        for column in &rules.fill_forward {
            columns[find("--fill-forward", column)?].above = Some(String::new());
        }
        for (column, text) in &rules.defaults {
            columns[find("--default", column)?].default = Some(text.clone());
        }
        for (column, map) in &rules.maps {
            columns[find("--map-value", column)?].map.extend(map.iter().cloned());
        }
        for column in &rules.negated {
            columns[find("--negate", column)?].is_negated = true;
        }
        let filter = |filter: &Filter| Ok((find("--where", &filter.column)?, filter.test.clone()));
        let filters = rules.filters.iter().map(filter).collect::<Result<_, RuleError>>()?;
        let without_filters = CellRules {
            filters: Vec::new(),
            ..rules.clone()
        };
        Ok(Some(Self {
            changed: vec![None; header.len()],
            columns,
            filters,
            nulls: rules.nulls.clone(),
            group: match &rules.fill_within {
                Some(column) => Some((find("--fill-within", column)?, String::new())),
                None => None,
            },
            changes_cells: without_filters != CellRules::default(),
        }))
    }

    /// Returns `record` with the rules applied, or `None` if a filter leaves it out.
    pub fn apply<'a>(&'a mut self, record: Record<'a>) -> Option<Record<'a>> {
        if self.changes_cells {
            self.leave_group(&record);
            for index in 0..record.width().min(self.columns.len()) {
                // A cell that is not UTF-8 is rejected where it is read.
                self.changed[index] = match std::str::from_utf8(record.original(index)) {
                    Ok(cell) => self.columns[index].apply(cell, &self.nulls),
                    Err(_) => None,
                };
            }
        }
        let record = Record {
            changed: if self.changes_cells { &self.changed } else { &[] },
            ..record
        };
        let passes = |(index, test): &(usize, Test)| {
            let cell = std::str::from_utf8(record.field(*index)).unwrap_or("\u{fffd}");
            test.holds(trimmed(cell))
        };
        self.filters.iter().all(passes).then_some(record)
    }
}

impl CellChanger {
    /// Forgets the cells above when `record` begins another group.
    fn leave_group(&mut self, record: &Record<'_>) {
        let Some((column, last)) = &mut self.group else { return };
        let cell = String::from_utf8_lossy(record.original(*column));
        if trimmed(&cell) != last {
            trimmed(&cell).clone_into(last);
            let above = self.columns.iter_mut().filter_map(|column| column.above.as_mut());
            above.for_each(String::clear);
        }
    }
}

impl Test {
    fn holds(&self, cell: &str) -> bool {
        match self {
            Self::In { texts, is_negated } => texts.iter().any(|text| text == cell) != *is_negated,
            Self::Empty { is_negated } => cell.is_empty() != *is_negated,
        }
    }
}

impl ColumnRules {
    /// Returns what becomes of `cell`, or `None` if it stays as it is.
    fn apply(&mut self, cell: &str, nulls: &[String]) -> Option<String> {
        let original = trimmed(cell);
        let mut text = match nulls.iter().any(|null| null == original) {
            true => "",
            false => original,
        };
        if let Some(above) = &mut self.above {
            match text.is_empty() {
                true => text = above,
                false => text.clone_into(above),
            }
        }
        if let (true, Some(default)) = (text.is_empty(), &self.default) {
            text = default;
        }
        if let Some((_, to)) = self.map.iter().find(|(from, _)| from == text) {
            text = to;
        }
        if self.is_negated && !text.is_empty() {
            return Some(match text.strip_prefix('-') {
                Some(positive) => positive.to_owned(),
                None => format!("-{}", text.strip_prefix('+').unwrap_or(text)),
            });
        }
        (text != original).then(|| text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RowBuffer;

    fn text(text: &str) -> String {
        text.to_owned()
    }

    fn check(rules: &CellRules, rows: &[(&[&str], Option<&[&str]>)]) {
        let header = [text("a"), text("B c")];
        let mut changer = CellChanger::new(rules, &header, OptionNames::Arguments)
            .unwrap()
            .unwrap();
        for (cells, want) in rows {
            let mut row = RowBuffer::default();
            cells.iter().for_each(|cell| row.push(cell));
            let got = changer.apply(row.record(1, None)).map(|record| {
                let cell = |index| String::from_utf8(record.field(index).to_vec()).unwrap();
                (0..record.width()).map(cell).collect::<Vec<_>>()
            });
            assert_eq!(
                got.as_deref(),
                want.map(|want| want.iter().map(|cell| text(cell)).collect::<Vec<_>>())
                    .as_deref(),
                "{cells:?}"
            );
        }
    }

    #[test]
    fn cells_change_by_their_rules() {
        let rules = CellRules {
            nulls: vec![text("NA"), text("\\N")],
            defaults: vec![(text("b_c"), text("none"))],
            fill_forward: vec![text("a")],
            maps: vec![(text("a"), vec![(text("x"), text("y"))])],
            ..CellRules::default()
        };
        check(
            &rules,
            &[
                (&["NA", ""], Some(&["", "none"])),
                (&["x", "1"], Some(&["y", "1"])),
                (&["\\N", " NA "], Some(&["y", "none"])),
                (&["z", "NAB"], Some(&["z", "NAB"])),
                (&["", "2"], Some(&["z", "2"])),
            ],
        );
        let negated = CellRules {
            negated: vec![text("a")],
            ..CellRules::default()
        };
        check(
            &negated,
            &[
                (&["-5", "-5"], Some(&["5", "-5"])),
                (&["+5.0", ""], Some(&["-5.0", ""])),
                (&["", ""], Some(&["", ""])),
            ],
        );
    }

    #[test]
    fn cells_are_repeated_within_a_group_only() {
        let rules = CellRules {
            fill_forward: vec![text("b c")],
            fill_within: Some(text("a")),
            ..CellRules::default()
        };
        check(
            &rules,
            &[
                (&["1", "x"], Some(&["1", "x"])),
                (&["1", ""], Some(&["1", "x"])),
                (&["2", ""], Some(&["2", ""])),
                (&["2", "y"], Some(&["2", "y"])),
                (&["1", ""], Some(&["1", ""])),
            ],
        );
    }

    #[test]
    fn filters_leave_records_out() {
        let check_filter = |filter: &str, kept: &[&str], dropped: &[&str]| {
            let rules = CellRules {
                filters: vec![Filter::parse(filter).unwrap()],
                ..CellRules::default()
            };
            for cell in kept {
                check(&rules, &[(&[cell, ""], Some(&[cell, ""]))]);
            }
            for cell in dropped {
                check(&rules, &[(&[cell, ""], None)]);
            }
        };
        check_filter("a = paid", &["paid", " paid "], &["", "Paid"]);
        check_filter("A==\"paid\"", &["paid"], &[""]);
        check_filter("a!=cancelled", &["paid", ""], &["cancelled"]);
        check_filter("a in paid, 'part paid'", &["paid", "part paid"], &["sent"]);
        check_filter("a in (1,2)", &["1", "2"], &["3"]);
        check_filter("a not in 1,2", &["3", ""], &["1", "2"]);
        check_filter("a is empty", &["", " "], &["x"]);
        check_filter("'a' is not empty", &["x"], &["", "\u{a0}"]);
        check_filter("b c is empty", &["x"], &[]);
        check_filter("a = x = y", &["x = y"], &["x"]);
        for bad in ["", "a", "= x", "a > 5", "'a", "a is nothing"] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn filters_see_cells_after_the_other_rules() {
        let rules = CellRules {
            nulls: vec![text("NA")],
            filters: vec![Filter::parse("a is not empty").unwrap()],
            ..CellRules::default()
        };
        check(&rules, &[(&["NA", "1"], None), (&["x", "NA"], Some(&["x", ""]))]);
    }

    #[test]
    fn unknown_columns_are_named_with_the_option() {
        let rules = CellRules {
            negated: vec![text("price")],
            ..CellRules::default()
        };
        let new = |names| CellChanger::new(&rules, &[text("a"), text("b")], names);
        let error = new(OptionNames::Arguments).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--negate: the file has no column \"price\"; its columns are a, b"
        );
        let error = new(OptionNames::Fields).unwrap_err();
        assert!(error.to_string().starts_with("options.negate: "), "{error}");
    }
}
