//! Looks for further problems in rejected lines, so that one run tells all that is to be changed.

use std::collections::{BTreeMap, BTreeSet};

use domain::error::InvalidField;
use tabular::record::Record;

use super::columns::Probe;
use super::rejects::sentence;

/// In how many rejected lines further problems are looked for.
const MAX_LINES: u32 = 100;

/// The problems of rejected lines besides those that they were rejected for.
pub(super) struct OtherProblems {
    probes: Vec<Probe>,
    n_lines: u32,
    /// Fields that lines were rejected for.
    rejected: BTreeSet<String>,
    /// The first problem of each other field, as a sentence.
    found: BTreeMap<String, String>,
}

impl OtherProblems {
    /// `probes`: one for each field that is read from the file.
    pub fn new(probes: Vec<Probe>) -> Self {
        Self {
            probes,
            n_lines: 0,
            rejected: BTreeSet::new(),
            found: BTreeMap::new(),
        }
    }

    /// Looks at a line that was rejected for `error`.
    pub fn look(&mut self, line: u64, record: &Record<'_>, error: &InvalidField) {
        if self.n_lines == MAX_LINES {
            return;
        }
        self.n_lines += 1;
        if !self.rejected.contains(&error.field) {
            self.rejected.insert(error.field.clone());
        }
        for other in self.probes.iter().filter_map(|probe| probe.problem(record)) {
            let problem = sentence(line, &other.field, &other.message);
            self.found.entry(other.field).or_insert(problem);
        }
    }

    /// Returns the problems of fields that no line was rejected for, as sentences.
    pub fn sentences(&self) -> Vec<String> {
        let others = self.found.iter().filter(|(field, _)| !self.rejected.contains(*field));
        others
            .map(|(_, problem)| format!("Rejected lines have another problem too: {problem}."))
            .collect()
    }
}
