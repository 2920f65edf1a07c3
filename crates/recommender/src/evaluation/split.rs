//! Splits the data in time into three parts: one to fit on, one for the blend weights, one for the figures.

use chrono::{DateTime, Utc};
use rayon::prelude::*;

use crate::snapshot::dictionary::UserIndex;
use crate::training::input::TrainingInput;
use domain::time::Timestamp;

use super::error::EvaluationError;
use super::options::EvaluationOptions;

/// The rule by which the data is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Holds out the latest share of every user's history. The model still learns from what other users did later, so the
    /// figures are better than those of a single date.
    PerUser,
    /// Holds out everything at `at` or later, for all users.
    At { at: Timestamp },
}

/// A part of the data, ascending in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Fit,
    Validation,
    Test,
}

/// The assignment of events to parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Per user.
    boundaries: Vec<Boundaries>,
}

/// The least events of a user with held-out parts. With fewer, too little would be left to fit on.
const MIN_EVENTS: usize = 5;

impl Split {
    /// Splits `input` in time.
    ///
    /// [`Cut::PerUser`]: the latest `test_share` of each user's events (ratings and items of orders) is the test part, and the
    /// `validation_share` before it the validation part. A boundary never falls between events of one instant, so that an order
    /// stays whole: it moves to the nearest gap, the later one of two. A part without such a gap before it is empty. Both parts
    /// are empty for users with fewer than 5 events.
    ///
    /// [`Cut::At`]: the validation part is as long as the test part, from `at` to the last event, but at most half of the time
    /// before `at`.
    ///
    /// # Errors
    /// For [`Cut::At`], [`EvaluationError::NoEvents`] without events, and [`EvaluationError::CutOutsideOfData`] if there are none
    /// before or after it.
    pub fn new(input: &TrainingInput, cut: &Cut, options: &EvaluationOptions) -> Result<Self, EvaluationError> {
        let boundaries = match *cut {
            Cut::PerUser => per_user(input, options),
            Cut::At { at } => vec![at_date(input, at)?; input.users.len()],
        };
        Ok(Self { boundaries })
    }

    /// Returns the part of an event of `user` at an instant.
    pub fn part(&self, user: UserIndex, at: Timestamp) -> Part {
        let Boundaries { validation, test } = self.boundaries[user.at()];
        if at < validation {
            Part::Fit
        } else if at < test {
            Part::Validation
        } else {
            Part::Test
        }
    }
}

/// Returns the user and the time of every rating and of every item of an order.
pub(super) fn events(input: &TrainingInput) -> impl Iterator<Item = (UserIndex, Timestamp)> {
    let ratings = input.ratings.iter().map(|event| (event.user, event.rated_at));
    let orders = input.orders.iter().map(|event| (event.user, event.ordered_at));
    ratings.chain(orders)
}

/// The first instants of the two held-out parts.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Boundaries {
    validation: Timestamp,
    /// Not before `validation`.
    test: Timestamp,
}

fn at_date(input: &TrainingInput, at: Timestamp) -> Result<Boundaries, EvaluationError> {
    let times = || events(input).map(|(_, at)| at);
    let (Some(first), Some(last)) = (times().min(), times().max()) else {
        return Err(EvaluationError::NoEvents);
    };
    if at <= first || at > last {
        return Err(EvaluationError::CutOutsideOfData { at, first, last });
    }
    let validation = (last - at).min((at - first) / 2);
    Ok(Boundaries {
        validation: at - validation,
        test: at,
    })
}

fn per_user(input: &TrainingInput, options: &EvaluationOptions) -> Vec<Boundaries> {
    let mut starts = vec![0; input.users.len() + 1];
    for (user, _) in events(input) {
        starts[user.at() + 1] += 1;
    }
    for user in 0..input.users.len() {
        starts[user + 1] += starts[user];
    }
    let mut next = starts.clone();
    let mut times = vec![DateTime::UNIX_EPOCH; next[input.users.len()]];
    for (user, at) in events(input) {
        times[next[user.at()]] = at;
        next[user.at()] += 1;
    }
    starts
        .par_windows(2)
        .map_init(Vec::new, |sorted, range| {
            sorted.clear();
            sorted.extend_from_slice(&times[range[0]..range[1]]);
            sorted.sort_unstable();
            boundaries(sorted, options)
        })
        .collect()
}

/// Returns the boundaries of one user. `times`: the times of their events, ascending.
fn boundaries(times: &[Timestamp], options: &EvaluationOptions) -> Boundaries {
    const NEVER: Timestamp = DateTime::<Utc>::MAX_UTC;
    let share = |share: f64| ((share * times.len() as f64).round() as usize).max(1);
    let test_at = match times.len() < MIN_EVENTS {
        true => None,
        false => nearest_gap(times, times.len() - share(options.test_share)),
    };
    let Some(test_at) = test_at else {
        return Boundaries {
            validation: NEVER,
            test: NEVER,
        };
    };
    let test = times[test_at];
    let validation_at = nearest_gap(
        &times[..test_at],
        test_at.saturating_sub(share(options.validation_share)),
    );
    Boundaries {
        validation: validation_at.map_or(test, |at| times[at]),
        test,
    }
}

/// Returns the position nearest to `wanted` whose time differs from the one before, the later one of two.
///
/// `times`: ascending. Returns `None` if all times are equal.
fn nearest_gap(times: &[Timestamp], wanted: usize) -> Option<usize> {
    let at = *times.get(wanted)?;
    let before = times.partition_point(|time| *time < at);
    let after = times.partition_point(|time| *time <= at);
    match (before > 0, after < times.len()) {
        (true, true) if wanted - before < after - wanted => Some(before),
        (_, true) => Some(after),
        (true, false) => Some(before),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::testing::{at, input, order, rating};

    /// Returns how many events of user 0 at these hours are in the fit, validation and test parts.
    fn counts(split: &Split, hours: &[u32]) -> [usize; 3] {
        let mut counts = [0; 3];
        for &hour in hours {
            counts[split.part(UserIndex(0), at(hour)) as usize] += 1;
        }
        counts
    }

    #[test]
    fn every_user_is_cut_by_their_own_history_between_instants() {
        let check = |hours: &[u32], expected: [usize; 3]| {
            let orders: Vec<_> = (0..).zip(hours).map(|(item, &hour)| order(0, item, hour)).collect();
            let input = input(1, hours.len(), &[], &orders);
            let split = Split::new(&input, &Cut::PerUser, &EvaluationOptions::default()).unwrap();
            assert_eq!(counts(&split, hours), expected, "{hours:?}");
        };
        // A tenth and a fifth of ten events are held out, in whatever order they are given.
        check(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [7, 1, 2]);
        check(&[9, 3, 1, 7, 5, 2, 0, 8, 4, 6], [7, 1, 2]);
        // Each part has at least one event.
        check(&[0, 1, 2, 3, 4], [3, 1, 1]);
        check(&[0, 1, 2, 3], [4, 0, 0]);
        // Orders stay whole: the boundaries are the gap nearest to 8 of 10, then the one nearest to 1 less.
        check(&[0, 0, 0, 1, 1, 1, 2, 2, 2, 2], [3, 3, 4]);
        check(&[0, 1, 2, 2, 2, 2, 2, 2, 2, 3], [2, 7, 1]);
        check(&[0, 1, 1, 1, 1, 1, 2, 2, 3, 3], [6, 2, 2]);
        // The later of two gaps that are equally near leaves more to fit on.
        check(&[0, 1, 2, 3, 4, 5, 6, 7, 7, 8], [7, 2, 1]);
        // Two orders leave no gap for a validation part.
        check(&[0, 0, 0, 5, 5, 5, 5, 5, 5, 5], [3, 0, 7]);
        // One order has no gap.
        check(&[4, 4, 4, 4, 4, 4], [6, 0, 0]);
    }

    #[test]
    fn ratings_and_orders_form_one_history() {
        let input = input(
            2,
            5,
            &[rating(0, 0, 3.0, 1), rating(0, 1, 3.0, 4), rating(1, 1, 3.0, 9)],
            &[order(0, 2, 2), order(0, 3, 3), order(0, 4, 5)],
        );
        let split = Split::new(&input, &Cut::PerUser, &EvaluationOptions::default()).unwrap();
        assert_eq!(counts(&split, &[1, 2, 3, 4, 5]), [3, 1, 1]);
        assert_eq!(split.part(UserIndex(1), at(9)), Part::Fit);
    }

    #[test]
    fn a_date_cuts_all_users_at_once() {
        let input = input(2, 2, &[rating(0, 0, 3.0, 0)], &[order(1, 1, 100)]);
        let check = |hour, validation: Option<u32>| {
            let found = Split::new(&input, &Cut::At { at: at(hour) }, &EvaluationOptions::default());
            let expected = match validation {
                Some(validation) => Ok(vec![
                    Boundaries {
                        validation: at(validation),
                        test: at(hour),
                    };
                    2
                ]),
                None => Err(EvaluationError::CutOutsideOfData {
                    at: at(hour),
                    first: at(0),
                    last: at(100),
                }),
            };
            assert_eq!(found.map(|split| split.boundaries), expected);
        };
        // The validation part is as long as the test part …
        check(90, Some(80));
        check(68, Some(36));
        // … while at least half of the time before remains.
        check(60, Some(30));
        check(100, Some(100));
        check(0, None);
        check(101, None);
    }

    #[test]
    fn a_date_needs_events_to_split() {
        let none = input(2, 2, &[], &[]);
        let options = EvaluationOptions::default();
        let cut_at = Split::new(&none, &Cut::At { at: at(1) }, &options);
        assert_eq!(cut_at, Err(EvaluationError::NoEvents));
        assert!(Split::new(&none, &Cut::PerUser, &options).is_ok());
    }
}
