//! Counts ids that are likely to be none, or not those of other files.

use std::sync::atomic::{AtomicU64, Ordering};

use tabular::option_names::OptionNames;

/// Words that programs write for nothing.
const ABSENT: [&str; 13] = [
    "NA", "N/A", "n/a", "NaN", "nan", "NULL", "Null", "null", "None", "none", "nil", "\\N", "<NA>",
];

/// The doubtful ids of one field.
#[derive(Debug, Default)]
pub(super) struct IdDoubts {
    /// Ids that end in `.0`.
    floats: AtomicU64,
    /// Ids such as `1.23457E+12`, whose last digits are lost.
    rounded: AtomicU64,
    /// Ids in quotes.
    quoted: AtomicU64,
    /// Ids that are the words of [`ABSENT`].
    absent: [AtomicU64; ABSENT.len()],
}

impl IdDoubts {
    /// Counts `id` if it is doubtful.
    pub fn see(&self, id: &str) {
        let is_number = |text: &[u8]| text.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
        match id.as_bytes() {
            [digits @ .., b'.', b'0'] if is_number(digits) => {
                self.floats.fetch_add(1, Ordering::Relaxed);
            }
            [digits @ .., b'e' | b'E', b'+', b'0'..=b'9', b'0'..=b'9'] if is_number(digits) => {
                self.rounded.fetch_add(1, Ordering::Relaxed);
            }
            [first @ (b'"' | b'\''), .., last] if first == last => {
                self.quoted.fetch_add(1, Ordering::Relaxed);
            }
            [b'N' | b'n' | b'<' | b'\\', _, ..] if id.len() <= 4 => {
                if let Some(at) = ABSENT.iter().position(|word| *word == id) {
                    self.absent[at].fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }

    /// Returns what is doubtful in the ids of `field`, as sentences that name options as `names` does.
    pub fn sentences(&self, field: &str, names: OptionNames) -> Vec<String> {
        let mut sentences = Vec::new();
        let floats = self.floats.load(Ordering::Relaxed);
        if floats > 0 {
            sentences.push(format!(
                "{floats} ids in {field} end in .0, as numbers do that have passed through floating point: are they the ids \
                 that other files have?"
            ));
        }
        let rounded = self.rounded.load(Ordering::Relaxed);
        if rounded > 0 {
            sentences.push(format!(
                "{rounded} ids in {field} are like 1.23457E+12: a spreadsheet has rounded them, so that different ids have \
                 become one. Export them as text."
            ));
        }
        let quoted = self.quoted.load(Ordering::Relaxed);
        if quoted > 0 {
            sentences.push(format!(
                "{quoted} ids in {field} stand in quotes, which were read as letters: give {} if the file writes single \
                 quotes, or a comma and a space as {} if it writes a space before each field.",
                names.name("--quote"),
                names.name("--delimiter")
            ));
        }
        for (word, count) in ABSENT.iter().zip(&self.absent) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                sentences.push(format!(
                    "{count} ids in {field} are {word:?}: if that means an empty cell, say {}.",
                    names.with("--null", word)
                ));
            }
        }
        sentences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubtful_ids_are_counted() {
        let check = |ids: &[&str], want: &[&str]| {
            let doubts = IdDoubts::default();
            ids.iter().for_each(|id| doubts.see(id));
            let got = doubts.sentences("user_id", OptionNames::Arguments);
            assert_eq!(got.len(), want.len(), "{got:?}");
            for (sentence, part) in got.iter().zip(want) {
                assert!(sentence.contains(part), "{sentence}");
            }
        };
        check(
            &["12", "a.0", "NAN-1", "nano", "v1E+1", "E", "N", "Nina", "1e12", ""],
            &[],
        );
        check(&["12.0", "1.0", "x"], &["2 ids in user_id end in .0"]);
        check(&["1.23457E+12", "4e+07"], &["2 ids in user_id are like 1.23457E+12"]);
        check(&["'a'", "\"b\"", "'c", "'"], &["2 ids in user_id stand in quotes"]);
        check(
            &["nan", "nan", "\\N", "<NA>"],
            &[
                "2 ids in user_id are \"nan\": if that means an empty cell, say --null nan.",
                "say --null \\N.",
                "say --null <NA>.",
            ],
        );
    }
}
