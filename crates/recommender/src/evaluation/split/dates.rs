//! Chooses the dates from which events are held out: one for all users, and others for sources that it would not represent.

use std::collections::BTreeMap;

use chrono::{DateTime, Duration, Utc};

use crate::snapshot::bits::Bits;
use crate::snapshot::dictionary::ItemIndex;
use crate::training::input::TrainingInput;
use domain::time::Timestamp;

use super::super::sources::Sources;
use super::super::tuning::MIN_USERS;
use super::{Part, events, part_of};

/// A date represents users too badly where another one lets at least so many times as many of them return.
const MIN_GAIN: usize = 2;

/// The beginnings of the two held-out parts. That of the test part is not before that of the validation part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dates {
    pub validation: Timestamp,
    pub test: Timestamp,
}

impl Dates {
    /// Holds nothing out.
    pub const NEVER: Self = Self {
        validation: DateTime::<Utc>::MAX_UTC,
        test: DateTime::<Utc>::MAX_UTC,
    };

    pub fn part(&self, at: Timestamp) -> Part {
        part_of(at, self.validation, self.test)
    }
}

/// The dates of all users and items.
pub(super) struct LatestDates {
    pub of_users: Vec<Dates>,
    /// Empty if all users have the same.
    pub of_items: Vec<Dates>,
}

/// The times of the first and the last event of a user.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: Timestamp,
    last: Timestamp,
}

impl Span {
    /// Whether the user has events on both sides of the date.
    fn returns_after(&self, at: Timestamp) -> bool {
        self.first < at && at <= self.last
    }
}

/// Chooses dates that hold out the last `test_weeks` weeks; `None` where all events are of one instant.
///
/// `timeless`: the users whose events have no say, one bit per user.
pub(super) fn latest(input: &TrainingInput, test_weeks: u32, timeless: &Bits) -> Option<LatestDates> {
    let mut spans: Vec<Option<Span>> = vec![None; input.users.len()];
    for (user, _, at) in events(input).filter(|(user, _, _)| !timeless.get(user.at())) {
        let span = spans[user.at()].get_or_insert(Span { first: at, last: at });
        *span = Span {
            first: span.first.min(at),
            last: span.last.max(at),
        };
    }
    let all: Vec<Span> = spans.iter().flatten().copied().collect();
    let of_all = last_weeks(&all, test_weeks)?;
    let sources = Sources::of(input);
    let own = dates_of_sources(&sources, &spans, test_weeks, of_all);
    let own_of = |source: &ItemIndex| own.get(&source.0).copied();
    let of_users = sources
        .of_users
        .iter()
        .map(|source| source.as_ref().and_then(own_of).unwrap_or(of_all));
    let of_items = sources
        .of_items
        .iter()
        .map(|source| own_of(source).unwrap_or(Dates::NEVER));
    Some(LatestDates {
        of_users: of_users.collect(),
        of_items: if own.is_empty() { Vec::new() } else { of_items.collect() },
    })
}

/// Returns the dates of those sources that the one date of all users represents too badly, by the source's item.
fn dates_of_sources(sources: &Sources, spans: &[Option<Span>], test_weeks: u32, of_all: Dates) -> BTreeMap<u32, Dates> {
    let mut spans_of: BTreeMap<u32, Vec<Span>> = BTreeMap::new();
    for (source, span) in sources.of_users.iter().zip(spans) {
        if let (Some(source), Some(span)) = (source, span) {
            spans_of.entry(source.0).or_default().push(*span);
        }
    }
    let large = spans_of.into_iter().filter(|(_, spans)| spans.len() >= MIN_USERS);
    let own = large.filter_map(|(source, spans)| {
        let own = last_weeks(&spans, test_weeks)?;
        represents_better(own, of_all, &spans).then_some((source, own))
    });
    own.collect()
}

/// Returns the dates of the last weeks of some users; `None` where all their events are of one instant.
///
/// The test part ends with the last event. Where fewer than [`MIN_USERS`] users return in it, it ends with the last event of that
/// many users instead, if that represents them better; what comes later belongs to it too.
fn last_weeks(spans: &[Span], test_weeks: u32) -> Option<Dates> {
    let first = spans.iter().map(|span| span.first).min()?;
    let mut lasts: Vec<Timestamp> = spans.iter().map(|span| span.last).collect();
    lasts.sort_unstable_by(|a, b| b.cmp(a));
    let dates_until = |last: Timestamp| {
        let length = Duration::weeks(i64::from(test_weeks)).min((last - first) / 4);
        let test = last - length;
        (length > Duration::zero()).then(|| Dates {
            validation: test - length,
            test,
        })
    };
    let latest = dates_until(*lasts.first()?)?;
    let earlier = lasts.get(MIN_USERS - 1).and_then(|&last| dates_until(last));
    let is_too_few = returning(spans, latest) < MIN_USERS;
    let earlier = earlier.filter(|&earlier| is_too_few && represents_better(earlier, latest, spans));
    Some(earlier.unwrap_or(latest))
}

/// Returns how many of the users return in the test part.
fn returning(spans: &[Span], dates: Dates) -> usize {
    spans.iter().filter(|span| span.returns_after(dates.test)).count()
}

fn represents_better(one: Dates, other: Dates, spans: &[Span]) -> bool {
    let (one, other) = (returning(spans, one), returning(spans, other));
    one > 0 && one >= MIN_GAIN * other
}
