//! Computes one effective rating per (user, item) from ratings and orders.

use rayon::prelude::*;

use crate::snapshot::bits::Bits;
use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::snapshot::parameters::TrainingParameters;
use domain::time::Timestamp;
use similarity::sparse::CsrMatrix;

use super::error::TrainingError;
use super::input::{RatingEvent, TrainingInput};

/// The effective ratings of users for the items that they have rated or bought.
#[derive(Debug, Clone, PartialEq)]
pub struct EffectiveRatings {
    /// [m, n], including empty rows of users without any.
    pub ratings: CsrMatrix,
    /// One bit per entry of `ratings`, set if the user has bought the item.
    pub purchased: Bits,
}

/// Computes effective ratings from the events that `keep` admits by their user, item and time.
///
/// An effective rating is the explicit rating if that is kept, and otherwise follows from the number of kept orders of which
/// something is left after the kept returns.
///
/// Takes time O(m + events) and sorts each user's events. The result is the same for any order of the events and any number
/// of threads.
///
/// # Errors
/// [`TrainingError::Rating`] for a kept rating that is not finite and above 0.
///
/// Source: docs/formulas.md, "Similarity".
pub fn effective_ratings(
    input: &TrainingInput,
    parameters: &TrainingParameters,
    keep: impl Fn(UserIndex, ItemIndex, Timestamp) -> bool,
) -> Result<EffectiveRatings, TrainingError> {
    let (row_starts, events) = events_by_user(input, keep)?;

    let mut offsets = Vec::with_capacity(row_starts.len());
    let (mut items, mut values, mut purchased) = (Vec::new(), Vec::new(), Vec::new());
    offsets.push(0);
    for row in row_starts.windows(2) {
        for item_events in events[row[0]..row[1]].chunk_by(|a, b| a.item() == b.item()) {
            // The orders come first, and the rating, if there is one, last.
            let orders = item_events.iter().take_while(|event| event.rating().is_none()).count();
            let explicit = item_events.last().and_then(|event| event.rating());
            if let Some(value) = parameters.effective_rating(explicit, orders.try_into().unwrap_or(u32::MAX)) {
                items.push(item_events[0].item());
                values.push(value);
                purchased.push(orders > 0);
            }
        }
        offsets.push(items.len() as u64);
    }
    Ok(EffectiveRatings {
        ratings: CsrMatrix::new(input.items.len(), offsets, items, values)?,
        purchased: purchased.into_iter().collect(),
    })
}

/// An order or a rating of an item in one word: 32 bits of the item, then 32 bits of the rating, 0 for an order.
///
/// Events ascend by item, and orders come before the rating, because the bits of floats above 0 ascend with their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct PackedEvent(u64);

impl PackedEvent {
    fn of_order(item: ItemIndex) -> Self {
        Self(u64::from(item.0) << 32)
    }

    /// `rating` > 0.
    fn of_rating(item: ItemIndex, rating: f32) -> Self {
        Self(u64::from(item.0) << 32 | u64::from(rating.to_bits()))
    }

    fn item(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// `None` for an order.
    fn rating(self) -> Option<f32> {
        let bits = self.0 as u32;
        (bits != 0).then(|| f32::from_bits(bits))
    }
}

/// Returns where each user's events begin (m + 1 positions), and the kept events, ascending for each user.
fn events_by_user(
    input: &TrainingInput,
    keep: impl Fn(UserIndex, ItemIndex, Timestamp) -> bool,
) -> Result<(Vec<usize>, Vec<PackedEvent>), TrainingError> {
    let ratings = || {
        input
            .ratings
            .iter()
            .filter(|event| keep(event.user, event.item, event.rated_at))
    };
    let settled = input.settle(&keep);
    let orders = || {
        let orders = input.orders.iter().enumerate();
        let kept =
            orders.filter(|&(order, event)| settled.stands(order) && keep(event.user, event.item, event.ordered_at));
        kept.map(|(_, event)| event)
    };

    let mut starts = vec![0; input.users.len() + 1];
    for event in ratings() {
        check(input, event)?;
        starts[event.user.at() + 1] += 1;
    }
    for event in orders() {
        starts[event.user.at() + 1] += 1;
    }
    for user in 0..input.users.len() {
        starts[user + 1] += starts[user];
    }

    let mut next = starts.clone();
    let mut events = vec![PackedEvent::default(); next[input.users.len()]];
    let mut insert = |user: UserIndex, event: PackedEvent| {
        events[next[user.at()]] = event;
        next[user.at()] += 1;
    };
    for event in ratings() {
        insert(event.user, PackedEvent::of_rating(event.item, event.value));
    }
    for event in orders() {
        insert(event.user, PackedEvent::of_order(event.item));
    }
    rows_of(&mut events, &starts)
        .into_par_iter()
        .for_each(<[PackedEvent]>::sort_unstable);
    Ok((starts, events))
}

fn check(input: &TrainingInput, event: &RatingEvent) -> Result<(), TrainingError> {
    if event.value.is_finite() && event.value > 0.0 {
        return Ok(());
    }
    Err(TrainingError::Rating {
        user: input.users.id(event.user).to_owned(),
        item: input.items.id(event.item).to_owned(),
        value: event.value,
    })
}

/// Splits `all` at `starts`, which begin with 0 and end with its length.
fn rows_of<'a, T>(mut all: &'a mut [T], starts: &[usize]) -> Vec<&'a mut [T]> {
    let mut rows = Vec::with_capacity(starts.len());
    for row in starts.windows(2) {
        let (first, rest) = all.split_at_mut(row[1] - row[0]);
        rows.push(first);
        all = rest;
    }
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::testing::{at, input, order, rating, returned};
    use super::*;
    use crate::snapshot::parameters::{ImplicitFeedback, TrainingOptions};
    use crate::training::input::{OrderEvent, ReturnEvent};

    fn parameters(implicit: ImplicitFeedback) -> TrainingParameters {
        TrainingParameters {
            options: TrainingOptions {
                implicit,
                ..TrainingOptions::default()
            },
            ..TrainingParameters::default()
        }
    }

    /// Returns (user, item, effective rating, purchased) of every entry.
    fn entries(effective: &EffectiveRatings) -> Vec<(u32, u32, f32, bool)> {
        let EffectiveRatings { ratings, purchased } = effective;
        let mut entries = Vec::new();
        for user in 0..ratings.n_rows() {
            let (items, values) = ratings.row(user);
            for ((&item, &value), position) in items.iter().zip(values).zip(ratings.row_range(user)) {
                entries.push((user as u32, item, value, purchased.get(position)));
            }
        }
        entries
    }

    #[test]
    fn a_rating_counts_before_orders_and_only_kept_events_count() {
        use ImplicitFeedback::{Binary, LogOrders, Off};
        let input = input(
            3,
            4,
            &[rating(0, 2, 4.5, 5), rating(2, 1, 2.0, 1)],
            &[
                order(0, 2, 1),
                order(0, 0, 1),
                order(0, 0, 3),
                order(0, 3, 9),
                order(2, 0, 4),
            ],
        );
        let check = |implicit, until, expected: &[(u32, u32, f32, bool)]| {
            let found = effective_ratings(&input, &parameters(implicit), |_, _, time| time < at(until)).unwrap();
            assert_eq!(entries(&found), expected, "{implicit:?} until {until}");
            assert_eq!((found.ratings.n_rows(), found.ratings.n_columns()), (3, 4));
        };
        let all: [(u32, u32, f32, bool); 5] = [
            (0, 0, 2.0, true),
            (0, 2, 4.5, true),
            (0, 3, 1.0, true),
            (2, 0, 1.0, true),
            (2, 1, 2.0, false),
        ];
        check(LogOrders, 10, &all);
        check(LogOrders, 5, &[(0, 0, 2.0, true), (0, 2, 1.0, true), all[3], all[4]]);
        check(LogOrders, 2, &[(0, 0, 1.0, true), (0, 2, 1.0, true), all[4]]);
        check(LogOrders, 0, &[]);
        check(Binary, 10, &[(0, 0, 1.0, true), all[1], all[2], all[3], all[4]]);
        check(Off, 10, &[all[1], all[4]]);
    }

    #[test]
    fn an_order_counts_until_all_of_it_is_returned() {
        let mut input = input(
            2,
            3,
            &[rating(0, 2, 4.5, 5)],
            &[
                order(0, 0, 1),
                order(0, 0, 3),
                order(0, 0, 7),
                order(0, 2, 1),
                OrderEvent {
                    quantity: 2,
                    ..order(1, 0, 1)
                },
            ],
        );
        input.returns = vec![
            returned(0, 2, 6),
            returned(1, 0, 2),
            ReturnEvent {
                quantity: 9,
                ..returned(0, 0, 5)
            },
            returned(0, 0, 4),
            // Nobody bought this.
            returned(1, 1, 2),
        ];
        let check = |until, expected: &[(u32, u32, f32, bool)]| {
            let until = |_, _, time| time < at(until);
            let found = effective_ratings(&input, &TrainingParameters::default(), until).unwrap();
            assert_eq!(entries(&found), expected);
        };
        let half_returned = (1, 0, 1.0, true);
        check(4, &[(0, 0, 2.0, true), (0, 2, 1.0, true), half_returned]);
        check(5, &[(0, 0, 1.0, true), (0, 2, 1.0, true), half_returned]);
        check(6, &[(0, 2, 4.5, true), half_returned]);
        check(7, &[(0, 2, 4.5, false), half_returned]);
        check(8, &[(0, 0, 1.0, true), (0, 2, 4.5, false), half_returned]);
        // A return in the same document takes back its own order.
        input.returns = vec![ReturnEvent {
            order: Some(0),
            ..returned(0, 0, 8)
        }];
        let settled = input.settle(|_, _, _| true);
        assert_eq!(
            (0..5).map(|order| settled.stands(order)).collect::<Vec<_>>(),
            [false, true, true, true, true]
        );
    }

    #[test]
    fn an_invalid_rating_is_refused_by_user_and_item() {
        for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let input = input(2, 2, &[rating(1, 0, value, 1)], &[]);
            let error = effective_ratings(&input, &TrainingParameters::default(), |_, _, _| true).unwrap_err();
            let expected = format!("the rating of item i0 by user u1 is {value}; it must be finite and above 0");
            assert_eq!(error.to_string(), expected);
            assert!(effective_ratings(&input, &TrainingParameters::default(), |_, _, _| false).is_ok());
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_map_of_pairs(
            ratings in prop::collection::btree_map((0u32..6, 0u32..9), (1u8..=10, 0u32..20), 0..30),
            orders in prop::collection::vec((0u32..6, 0u32..9, 0u32..20), 0..60),
            until in 0u32..22,
        ) {
            let rating_events: Vec<_> =
                ratings.iter().map(|(&(u, i), &(half_stars, t))| rating(u, i, f32::from(half_stars) / 2.0, t)).collect();
            let order_events: Vec<_> = orders.iter().map(|&(u, i, t)| order(u, i, t)).collect();
            let parameters = TrainingParameters::default();
            let input = input(6, 9, &rating_events, &order_events);
            let found = effective_ratings(&input, &parameters, |_, _, time| time < at(until)).unwrap();

            let mut pairs: BTreeMap<(u32, u32), (Option<f32>, u32)> = BTreeMap::new();
            for (&(u, i), &(half_stars, _)) in ratings.iter().filter(|(_, event)| event.1 < until) {
                pairs.entry((u, i)).or_default().0 = Some(f32::from(half_stars) / 2.0);
            }
            for &(u, i, _) in orders.iter().filter(|event| event.2 < until) {
                pairs.entry((u, i)).or_default().1 += 1;
            }
            let expected: Vec<_> = pairs.iter().map(|(&(u, i), &(explicit, orders))| {
                (u, i, parameters.effective_rating(explicit, orders).unwrap(), orders > 0)
            }).collect();
            prop_assert_eq!(entries(&found), expected);
        }
    }
}
