//! Splits the data into three parts: one to fit on, one for the blend weights, one for the figures.
//!
//! One date separates the parts of all users, because a trend that is learned from what others did later would be a leak. Where
//! several sources share the data, such as shops whose records end in different years, each may have a date of its own. Ratings
//! whose times say nothing are split user by user: in time, or at random if all are of one instant, as an import without times
//! dates them.

mod dates;

use chrono::DateTime;
use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::snapshot::bits::Bits;
use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::training::input::TrainingInput;
use domain::time::Timestamp;

use super::error::EvaluationError;
use super::options::EvaluationOptions;
use dates::Dates;

/// The rule by which the data is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Holds out the last `evaluation.test_weeks` weeks, for all users, so that nothing is learned from what others did later. A
    /// source of its own, few of whose users return in these weeks, has its own last weeks held out.
    ///
    /// Where the times of ratings say nothing about an order in time, every user's own history is cut instead, and at random
    /// where all its ratings are of one instant.
    Latest,
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
    /// Per item, the dates that its events are held out from, whoever they are by; empty if those of the users are enough.
    item_dates: Vec<Dates>,
    /// A hash of every item's id and the seed; empty if no user is split at random.
    item_hashes: Vec<u64>,
}

/// The least events of a user with held-out parts. With fewer, too little would be left to fit on.
const MIN_EVENTS: usize = 5;

/// Where nobody has ordered anything, the least share of the users with [`MIN_EVENTS`] whose ratings lie on both sides of the
/// test date. With fewer, users give all their ratings in one sitting, and a date would separate users, not past and future.
const MIN_SHARE_AROUND_DATE: f64 = 0.1;

impl Split {
    /// Splits `input`.
    ///
    /// [`Cut::Latest`]: the test part is the last `test_weeks` weeks, but at most a quarter of the time that the events span,
    /// and the validation part is as long a time before it. The span leaves out users with 5 or more ratings, all of one
    /// instant, and no orders: these ratings are split at random, a `test_share` and a `validation_share` of each user's.
    ///
    /// A source with at least 50 users has its own date where twice as many of its users return after that date as after the
    /// one of all. What is held out for the source of an item is held out for all its users. Where fewer than 50 users return in
    /// the last weeks, they count back from the last event of the fiftieth user, the latest first, if that lets twice as many
    /// return.
    ///
    /// If nobody has ordered anything, and fewer than a tenth of the users with 5 or more events have some on both sides of the
    /// test date, every history is cut for itself, into the same shares by time. A boundary never falls between events of one
    /// instant: it moves to the nearest gap, the later one of two. A part without such a gap before it is empty. Both parts are
    /// empty for users with fewer than 5 events.
    ///
    /// [`Cut::At`]: the validation part is as long as the test part, from `at` to the last event, but at most half of the time
    /// before `at`.
    ///
    /// `seed`: of the random split.
    ///
    /// # Errors
    /// For [`Cut::At`], [`EvaluationError::NoEvents`] without events, and [`EvaluationError::CutOutsideOfData`] if there are none
    /// before or after it.
    pub fn new(
        input: &TrainingInput,
        cut: &Cut,
        options: &EvaluationOptions,
        seed: u64,
    ) -> Result<Self, EvaluationError> {
        match *cut {
            Cut::Latest => Ok(latest(input, options, seed)),
            Cut::At { at } => Ok(Self {
                boundaries: vec![Boundaries::InTime(at_date(input, at)?); input.users.len()],
                item_dates: Vec::new(),
                item_hashes: Vec::new(),
            }),
        }
    }

    /// Returns the part of an event: that `user` rated or bought `item` at an instant.
    pub fn part(&self, user: UserIndex, item: ItemIndex, at: Timestamp) -> Part {
        match self.boundaries[user.at()] {
            Boundaries::InTime(of_user) => {
                let of_item = self.item_dates.get(item.at()).map(|dates| dates.part(at));
                of_user.part(at).max(of_item.unwrap_or(Part::Fit))
            }
            Boundaries::AtRandom {
                user_hash,
                validation,
                test,
            } => part_of(mixed(user_hash, self.item_hashes[item.at()]), validation, test),
        }
    }
}

fn part_of<T: Ord>(position: T, validation: T, test: T) -> Part {
    if position < validation {
        Part::Fit
    } else if position < test {
        Part::Validation
    } else {
        Part::Test
    }
}

/// Returns the user, the item and the time of every rating and of every item of an order, whether it was returned later or
/// not: what comes after a boundary does not move it.
pub(super) fn events(input: &TrainingInput) -> impl Iterator<Item = (UserIndex, ItemIndex, Timestamp)> {
    let ratings = input.ratings.iter();
    let ratings = ratings.map(|event| (event.user, event.item, event.rated_at));
    let orders = input.orders.iter();
    let orders = orders.map(|event| (event.user, event.item, event.ordered_at));
    ratings.chain(orders)
}

/// The beginnings of the two held-out parts of one user. That of the test part is not before that of the validation part.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Boundaries {
    InTime(Dates),
    /// In the order of [`mixed`] hashes.
    AtRandom {
        user_hash: u64,
        validation: u64,
        test: u64,
    },
}

/// Splits by date, or user by user where dates say nothing.
fn latest(input: &TrainingInput, options: &EvaluationOptions, seed: u64) -> Split {
    let timeless = timeless_users(input);
    let by_date = dates::latest(input, options.test_weeks, &timeless);
    let (mut boundaries, item_dates) = match by_date.filter(|dates| tells_apart(input, &dates.of_users, &timeless)) {
        Some(dates) => {
            let of_users = dates.of_users.into_iter().map(Boundaries::InTime);
            (of_users.collect(), dates.of_items)
        }
        None => (per_user(input, options), Vec::new()),
    };
    let item_hashes = split_at_random(input, options, seed, &timeless, &mut boundaries);
    Split {
        boundaries,
        item_dates,
        item_hashes,
    }
}

/// Returns whether the dates of the users tell past and future apart: where nobody has ordered anything, some users must have
/// rated on both sides of their date.
///
/// `timeless`: the users whose events have no say, one bit per user.
fn tells_apart(input: &TrainingInput, dates: &[Dates], timeless: &Bits) -> bool {
    if !input.orders.is_empty() {
        return true;
    }
    let mut counts = vec![[0_usize; 2]; input.users.len()];
    for (user, _, at) in events(input).filter(|(user, _, _)| !timeless.get(user.at())) {
        counts[user.at()][usize::from(at >= dates[user.at()].test)] += 1;
    }
    let asked = counts.iter().filter(|[before, after]| before + after >= MIN_EVENTS);
    let around = asked.clone().filter(|[before, after]| *before > 0 && *after > 0);
    around.count() as f64 >= MIN_SHARE_AROUND_DATE * asked.count() as f64
}

/// Returns the users with 5 or more ratings, all of one instant, and no orders: one bit per user.
fn timeless_users(input: &TrainingInput) -> Bits {
    let mut counts = vec![0; input.users.len()];
    let mut instants: Vec<Option<Timestamp>> = vec![None; input.users.len()];
    let mut has_times = vec![false; input.users.len()];
    for event in &input.ratings {
        let user = event.user.at();
        has_times[user] |= *instants[user].get_or_insert(event.rated_at) != event.rated_at;
        counts[user] += 1;
    }
    for event in &input.orders {
        has_times[event.user.at()] = true;
    }
    let users = counts.into_iter().zip(has_times);
    users
        .map(|(count, has_times)| !has_times && count >= MIN_EVENTS)
        .collect()
}

fn at_date(input: &TrainingInput, at: Timestamp) -> Result<Dates, EvaluationError> {
    let times = || events(input).map(|(_, _, at)| at);
    let (Some(first), Some(last)) = (times().min(), times().max()) else {
        return Err(EvaluationError::NoEvents);
    };
    if at <= first || at > last {
        return Err(EvaluationError::CutOutsideOfData { at, first, last });
    }
    let validation = (last - at).min((at - first) / 2);
    Ok(Dates {
        validation: at - validation,
        test: at,
    })
}

fn per_user(input: &TrainingInput, options: &EvaluationOptions) -> Vec<Boundaries> {
    let mut starts = vec![0; input.users.len() + 1];
    for (user, _, _) in events(input) {
        starts[user.at() + 1] += 1;
    }
    for user in 0..input.users.len() {
        starts[user + 1] += starts[user];
    }
    let mut next = starts.clone();
    let mut times = vec![DateTime::UNIX_EPOCH; next[input.users.len()]];
    for (user, _, at) in events(input) {
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

/// Splits the ratings of the `timeless` users, one bit per user, at random. Replaces the boundaries of these users, and returns
/// the hashes of the items; none if there are no such users.
fn split_at_random(
    input: &TrainingInput,
    options: &EvaluationOptions,
    seed: u64,
    timeless: &Bits,
    boundaries: &mut [Boundaries],
) -> Vec<u64> {
    let users: Vec<usize> = (0..input.users.len()).filter(|&user| timeless.get(user)).collect();
    if users.is_empty() {
        return Vec::new();
    }
    let mut items: Vec<Vec<ItemIndex>> = vec![Vec::new(); input.users.len()];
    for event in input.ratings.iter().filter(|event| timeless.get(event.user.at())) {
        items[event.user.at()].push(event.item);
    }
    let hash = |id: &str| xxh3_64_with_seed(id.as_bytes(), seed);
    let item_hashes: Vec<u64> = (0..input.items.len() as u32)
        .map(|item| hash(input.items.id(ItemIndex(item))))
        .collect();
    for user in users {
        let user_hash = hash(input.users.id(UserIndex(user as u32)));
        let mut hashes: Vec<u64> = items[user]
            .iter()
            .map(|item| mixed(user_hash, item_hashes[item.at()]))
            .collect();
        hashes.sort_unstable();
        let n_test = share(options.test_share, hashes.len());
        let n_validation = share(options.validation_share, hashes.len());
        // At least 5 ratings, of which at most a half is tested, leave a place for each of these.
        let test_at = hashes.len() - n_test;
        boundaries[user] = Boundaries::AtRandom {
            user_hash,
            validation: hashes[test_at.saturating_sub(n_validation).max(1)],
            test: hashes[test_at],
        };
    }
    item_hashes
}

/// Combines the hashes of a user and an item, so that every user's items stand in another order.
fn mixed(user_hash: u64, item_hash: u64) -> u64 {
    xxh3_64_with_seed(&item_hash.to_le_bytes(), user_hash)
}

/// Returns how many of `n_events` a share is: at least 1.
fn share(share: f64, n_events: usize) -> usize {
    ((share * n_events as f64).round() as usize).max(1)
}

/// Returns the boundaries of one user. `times`: the times of their events, ascending.
fn boundaries(times: &[Timestamp], options: &EvaluationOptions) -> Boundaries {
    let test_at = match times.len() < MIN_EVENTS {
        true => None,
        false => nearest_gap(times, times.len() - share(options.test_share, times.len())),
    };
    let Some(test_at) = test_at else {
        return Boundaries::InTime(Dates::NEVER);
    };
    let test = times[test_at];
    let validation_at = nearest_gap(
        &times[..test_at],
        test_at.saturating_sub(share(options.validation_share, times.len())),
    );
    Boundaries::InTime(Dates {
        validation: validation_at.map_or(test, |at| times[at]),
        test,
    })
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
    use crate::training::input::OrderEvent;
    use crate::training::testing::{at, input, order, rating};
    use chrono::Duration;

    /// The hours of a week.
    const WEEK: u32 = 7 * 24;

    /// Returns how many events of user 0 at these hours are in the fit, validation and test parts.
    fn counts(split: &Split, hours: &[u32]) -> [usize; 3] {
        let mut counts = [0; 3];
        for &hour in hours {
            counts[split.part(UserIndex(0), ItemIndex(0), at(hour)) as usize] += 1;
        }
        counts
    }

    fn split_per_user(input: &TrainingInput) -> Split {
        Split {
            boundaries: per_user(input, &EvaluationOptions::default()),
            item_dates: Vec::new(),
            item_hashes: Vec::new(),
        }
    }

    fn latest(input: &TrainingInput, test_weeks: u32) -> Split {
        let options = EvaluationOptions {
            test_weeks,
            ..EvaluationOptions::default()
        };
        Split::new(input, &Cut::Latest, &options, 1).unwrap()
    }

    #[test]
    fn the_last_weeks_of_all_users_are_held_out() {
        let check = |test_weeks, last_hour, validation: u32, test: u32| {
            // Nobody but user 1 has ordered anything late.
            let input = input(2, 2, &[rating(0, 0, 3.0, 0)], &[order(0, 1, 5), order(1, 1, last_hour)]);
            let expected = Boundaries::InTime(Dates {
                validation: at(validation),
                test: at(test),
            });
            assert_eq!(latest(&input, test_weeks).boundaries, vec![expected; 2]);
        };
        check(8, 40 * WEEK, 24 * WEEK, 32 * WEEK);
        check(2, 40 * WEEK, 36 * WEEK, 38 * WEEK);
        // At most a quarter of a short history.
        check(8, 8 * WEEK, 4 * WEEK, 6 * WEEK);
        check(8, 100, 50, 75);
        // Everything of one instant cannot be cut.
        let input = input(1, 9, &[], &[order(0, 1, 5), order(0, 2, 5)]);
        assert_eq!(counts(&latest(&input, 8), &[5]), [1, 0, 0]);
    }

    /// Returns orders of `n` users from `first_user` on, of one item: one in week `first` and one in week `last`, at the minute of
    /// the user.
    fn shop(first_user: u32, n: u32, item: u32, first: u32, last: u32) -> Vec<OrderEvent> {
        let orders = (first_user..first_user + n).flat_map(|user| {
            let order_in = |week: u32| {
                let ordered_at = at(week * WEEK) + Duration::minutes(i64::from(user));
                OrderEvent {
                    ordered_at,
                    ..order(user, item, 0)
                }
            };
            [order_in(first), order_in(last)]
        });
        orders.collect()
    }

    /// Returns the hour at which the test part of a user begins, rounded down.
    fn test_hour(split: &Split, user: u32) -> u32 {
        let Boundaries::InTime(dates) = split.boundaries[user as usize] else {
            panic!("{split:?}")
        };
        ((dates.test - at(0)).num_hours()) as u32
    }

    #[test]
    fn sources_whose_users_do_not_return_in_the_last_weeks_have_their_own() {
        let check = |old_shop: Vec<OrderEvent>, n_old: u32, old_date: u32| {
            let orders: Vec<_> = old_shop.into_iter().chain(shop(n_old, 60, 1, 200, 240)).collect();
            let split = latest(&input(n_old as usize + 60, 2, &[], &orders), 8);
            assert_eq!(test_hour(&split, n_old), 232 * WEEK + 1);
            assert_eq!(test_hour(&split, 0), old_date, "{n_old} users");
        };
        check(shop(0, 50, 0, 0, 40), 50, 32 * WEEK);
        // Too few users to learn from.
        check(shop(0, 49, 0, 0, 40), 49, 232 * WEEK + 1);
        // As many users return after the date of all.
        check(shop(0, 60, 0, 0, 239), 60, 232 * WEEK + 1);
        // More than half as many do: 31 of 60.
        let half = [shop(0, 29, 0, 0, 40), shop(29, 31, 0, 0, 234)].concat();
        check(half, 60, 232 * WEEK + 1);
        // Less than half as many do: 20 of 60, of whom at least 50 return after the date of their source.
        let few = [shop(0, 40, 0, 0, 228), shop(40, 20, 0, 0, 235)].concat();
        check(few, 60, 227 * WEEK);
    }

    #[test]
    fn nothing_of_a_source_is_learned_from_later_than_its_date() {
        let orders = [shop(0, 200, 0, 0, 40), shop(200, 210, 1, 200, 240)].concat();
        // One user of the later shop has an order of the earlier one, after its date.
        let common = [order(200, 0, 36 * WEEK)];
        let split = latest(&input(410, 2, &[], &[&orders[..], &common].concat()), 8);
        let part = |user, item, week| split.part(UserIndex(user), ItemIndex(item), at(week * WEEK));
        assert_eq!(part(200, 0, 36), Part::Test);
        assert_eq!(part(200, 0, 30), Part::Validation);
        assert_eq!(part(200, 1, 200), Part::Fit);
        assert_eq!(part(0, 0, 36), Part::Test);
        // Users of the earlier shop do everything in the later one after their own date.
        assert_eq!(part(0, 1, 200), Part::Test);
    }

    #[test]
    fn a_few_late_users_do_not_make_up_the_test_part() {
        let check = |n_late, expected: u32| {
            let orders = [shop(0, 60, 0, 0, 40), shop(60, n_late, 0, 0, 200)].concat();
            let split = latest(&input(60 + n_late as usize, 1, &[], &orders), 8);
            assert_eq!(test_hour(&split, 0), expected, "{n_late} late users");
        };
        check(0, 32 * WEEK);
        check(1, 32 * WEEK);
        check(30, 32 * WEEK);
        // Ninety users return after the earlier date, and half as many after the later one.
        check(45, 32 * WEEK);
        check(50, 192 * WEEK + 1);
    }

    #[test]
    fn ratings_are_cut_by_date_only_if_users_rate_on_both_sides_of_it() {
        let check = |n_returning: u32, orders: &[_], is_by_date: bool| {
            // Twenty users give six ratings within an hour each, one user after the other; some return at the end.
            let sittings =
                (0..20).flat_map(|user| (0..6).map(move |item| rating(user, item, 3.0, 10 * user + item % 2)));
            let returns = (0..n_returning).map(|user| rating(user, 6, 3.0, 190));
            let ratings: Vec<_> = sittings.chain(returns).collect();
            let split = latest(&input(20, 7, &ratings, orders), 8);
            let distinct = split.boundaries.iter().any(|found| *found != split.boundaries[0]);
            assert_eq!(!distinct, is_by_date, "{n_returning} users return");
        };
        check(0, &[], false);
        check(1, &[], false);
        check(2, &[], true);
        check(0, &[order(0, 6, 100)], true);
    }

    #[test]
    fn every_user_is_cut_by_their_own_history_between_instants() {
        let check = |hours: &[u32], expected: [usize; 3]| {
            let orders: Vec<_> = (0..).zip(hours).map(|(item, &hour)| order(0, item, hour)).collect();
            let input = input(1, hours.len(), &[], &orders);
            assert_eq!(counts(&split_per_user(&input), hours), expected, "{hours:?}");
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
        let split = split_per_user(&input);
        assert_eq!(counts(&split, &[1, 2, 3, 4, 5]), [3, 1, 1]);
        assert_eq!(split.part(UserIndex(1), ItemIndex(1), at(9)), Part::Fit);
    }

    #[test]
    fn ratings_of_one_instant_are_split_at_random_by_the_seed() {
        // User 0 has ten ratings of one instant; user 1 has too few; user 2 has times; user 3 has an order besides.
        let of_one_instant = |user, n| (0..n).map(move |item| rating(user, item, 3.0, 4));
        let ratings: Vec<_> = of_one_instant(0, 10)
            .chain(of_one_instant(1, 4))
            .chain((0..10).map(|item| rating(2, item, 3.0, item)))
            .chain(of_one_instant(3, 10))
            .collect();
        let input = input(4, 10, &ratings, &[order(3, 0, 4)]);
        let parts = |seed| {
            let split = Split::new(&input, &Cut::Latest, &EvaluationOptions::default(), seed).unwrap();
            let parts = |user, hour: &dyn Fn(u32) -> u32| -> Vec<Part> {
                let part = |item| split.part(UserIndex(user), ItemIndex(item), at(hour(item)));
                (0..10).map(part).collect()
            };
            [
                parts(0, &|_| 4),
                parts(1, &|_| 4),
                parts(2, &|item| item),
                parts(3, &|_| 4),
            ]
        };
        let sizes = |parts: &[Part]| {
            [Part::Fit, Part::Validation, Part::Test].map(|part| parts.iter().filter(|&&found| found == part).count())
        };
        let first = parts(1);
        assert_eq!(
            first.each_ref().map(|parts| sizes(parts)),
            [[7, 1, 2], [10, 0, 0], [5, 2, 3], [10, 0, 0]]
        );
        assert_eq!(parts(1), first);
        assert!((2..9).any(|seed| parts(seed)[0] != first[0]));
        assert!((2..9).all(|seed| parts(seed)[2] == first[2]));
    }

    #[test]
    fn a_date_cuts_all_users_at_once() {
        let input = input(2, 2, &[rating(0, 0, 3.0, 0)], &[order(1, 1, 100)]);
        let check = |hour, validation: Option<u32>| {
            let found = Split::new(&input, &Cut::At { at: at(hour) }, &EvaluationOptions::default(), 1);
            let expected = match validation {
                Some(validation) => Ok(vec![
                    Boundaries::InTime(Dates {
                        validation: at(validation),
                        test: at(hour),
                    });
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
        let cut_at = Split::new(&none, &Cut::At { at: at(1) }, &options, 1);
        assert_eq!(cut_at, Err(EvaluationError::NoEvents));
        assert!(Split::new(&none, &Cut::Latest, &options, 1).is_ok());
    }
}
