//! Puts together what a user should know about a file that has been read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::Datelike;
use tabular::option_names::OptionNames;

use super::findings::{Contents, Findings};
use super::ids::IdDoubts;
use super::times::TimeFormats;

/// The facts that are known about a file, as far as it has been read.
#[derive(Debug, Clone, Default)]
pub(super) struct Conclusion {
    pub contents: Contents,
    /// Optional fields that are read only because a column has their name, with that column.
    pub columns_by_name: BTreeMap<&'static str, String>,
    /// Sentences about what is doubtful.
    pub warnings: Vec<String>,
}

/// The observations from reading a file that are reported at its end.
pub(super) struct FileNotes {
    pub times: Arc<TimeFormats>,
    pub id_doubts: BTreeMap<&'static str, Arc<IdDoubts>>,
    /// How many lines have no time of their own, by field.
    pub undated: BTreeMap<&'static str, Arc<AtomicU64>>,
    pub taken_by_name: BTreeMap<&'static str, String>,
    pub header_looks_like_data: bool,
    /// How sentences name the options of the import.
    pub names: OptionNames,
}

impl FileNotes {
    /// `notes`: what is to be said besides, as sentences.
    pub fn conclusion(&self, findings: &Findings, notes: Vec<String>) -> Conclusion {
        let contents = findings.contents();
        let mut warnings = notes;
        if self.header_looks_like_data {
            warnings.push(format!(
                "The first line was read as the names of the columns, but looks like data: if the file has no header, import \
                 it with {} and name the columns by number.",
                self.names.name("--no-header")
            ));
        }
        for (field, doubts) in &self.id_doubts {
            warnings.extend(doubts.sentences(field, self.names));
        }
        for (field, count) in &self.undated {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                warnings.push(format!(
                    "{count} lines have nothing in {field}, and are dated with the start of the import."
                ));
            }
        }
        warnings.extend(self.times.doubts(self.names));
        if let Some((first, last)) = contents.times
            && first.year() == 1970
            && last.year() == 1970
        {
            let message =
                "All times lie in 1970: their unit is likely to be another, such as unix_ms or excel for unix.";
            warnings.push(message.to_owned());
        }
        Conclusion {
            contents,
            columns_by_name: self.taken_by_name.clone(),
            warnings,
        }
    }
}
