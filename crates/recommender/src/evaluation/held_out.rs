//! The held-out parts: the users whom a model is asked about, and the right answers.
//!
//! They are fixed before there is a model, so that models with different parameters, even with different ratings made of the
//! same purchases, answer the same questions.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::snapshot::bits::Bits;
use crate::snapshot::dictionary::{Dictionary, ItemIndex, UserIndex};
use crate::snapshot::parameters::{ImplicitFeedback, TrainingOptions, TrainingParameters};
use crate::training::error::TrainingError;
use crate::training::input::TrainingInput;
use crate::training::matrix::{EffectiveRatings, effective_ratings};
use domain::rating::RatingScale;
use domain::time::Timestamp;

use super::error::EvaluationError;
use super::options::EvaluationOptions;
use super::report::ItemScope;
use super::split::{Cut, Part, Split};

/// The most users of the validation part. All settings are tried on them, and more would hardly tell these better apart.
const MAX_VALIDATION_USERS: usize = 2_500;

/// A split of the data, with its two later parts, which are held out.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOutParts {
    pub(super) split: Split,
    pub(super) validation: HeldOutPart,
    pub(super) test: HeldOutPart,
}

/// How many users have ratings or purchases before a held-out part, in it, and both, without which nobody can be asked about
/// it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    pub before: u64,
    pub within: u64,
    pub both: u64,
}

/// One held-out part: the later events of some users.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HeldOutPart {
    pub part: Part,
    pub reach: Reach,
    /// The users whom a model of the earlier data is asked about, one bit per user of the input.
    pub asked: Bits,
    /// Ascending by user.
    pub cases: Vec<EvaluationCase>,
}

/// A user who rated or bought something both before the held-out part and in it, with the right answers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct EvaluationCase {
    /// The index in the input.
    pub user: UserIndex,
    /// The items rated or bought before, ascending.
    pub history: Vec<ItemIndex>,
    /// The listed items that were bought in the part, or rated at least the middle of the scale; ascending.
    pub relevant: Vec<ItemIndex>,
    /// The items of `relevant` that are not in `history`.
    pub relevant_new: Vec<ItemIndex>,
}

impl HeldOutParts {
    /// Splits `input` and collects the cases of both held-out parts.
    ///
    /// At most `options.max_users` users are asked in the test part, and at most 2,500 of them in the validation part.
    ///
    /// `reference`: its rating scale decides which items are relevant, and its seed which users are drawn
    /// and how ratings without times are split.
    ///
    /// # Errors
    /// As [`Split::new`], and [`TrainingError::Rating`] for a rating that is not finite and above 0.
    pub fn new(
        input: &TrainingInput,
        reference: &TrainingParameters,
        cut: &Cut,
        options: &EvaluationOptions,
    ) -> Result<Self, EvaluationError> {
        let split = Split::new(input, cut, options, reference.options.seed)?;
        let held_out = |part, max_users| HeldOutPart::new(input, reference, &split, part, max_users);
        let max_validation_users = match options.max_users {
            0 => MAX_VALIDATION_USERS,
            max_users => max_users.min(MAX_VALIDATION_USERS),
        };
        Ok(Self {
            validation: held_out(Part::Validation, max_validation_users)?,
            test: held_out(Part::Test, options.max_users)?,
            split,
        })
    }

    /// Returns the number of users with a relevant new item in the test part.
    pub(super) fn users(&self) -> usize {
        let has_new = |case: &&EvaluationCase| !case.relevant_new.is_empty();
        self.test.cases.iter().filter(has_new).count()
    }
}

impl HeldOutPart {
    fn new(
        input: &TrainingInput,
        reference: &TrainingParameters,
        split: &Split,
        part: Part,
        max_users: usize,
    ) -> Result<Self, TrainingError> {
        let (known, reach) = known_in(input, split, part);
        let asked = sample(&input.users, &known, max_users, reference.options.seed);
        // All purchases count here, whatever ratings the model makes of them.
        let interactions = TrainingParameters {
            scale: reference.scale,
            options: TrainingOptions {
                implicit: ImplicitFeedback::Binary,
                ..TrainingOptions::default()
            },
        };
        let kept = |admits: &dyn Fn(Part) -> bool| {
            effective_ratings(input, &interactions, |user, item, at| {
                asked.get(user.at()) && admits(split.part(user, item, at))
            })
        };
        let before = kept(&|event_part| event_part < part)?;
        let within = kept(&|event_part| event_part == part)?;
        let users = (0..input.users.len()).filter(|&user| asked.get(user));
        let cases = users.map(|user| EvaluationCase::new(input, &reference.scale, user, &before, &within));
        Ok(Self {
            part,
            reach,
            cases: cases.collect(),
            asked,
        })
    }

    /// Returns whether an event belongs to the part: the split puts it there, and it is by one of the users asked about.
    pub fn holds(&self, split: &Split, user: UserIndex, item: ItemIndex, at: Timestamp) -> bool {
        self.asked.get(user.at()) && split.part(user, item, at) == self.part
    }
}

impl EvaluationCase {
    fn new(
        input: &TrainingInput,
        scale: &RatingScale,
        user: usize,
        before: &EffectiveRatings,
        within: &EffectiveRatings,
    ) -> Self {
        let middle = f32::midpoint(scale.min, scale.max);
        let history: Vec<ItemIndex> = before.ratings.row(user).0.iter().copied().map(ItemIndex).collect();
        let (items, ratings) = within.ratings.row(user);
        let rated = items.iter().zip(ratings).zip(within.ratings.row_range(user));
        let relevant: Vec<ItemIndex> = rated
            .filter(|&((_, &rating), position)| within.purchased.get(position) || rating >= middle)
            .map(|((&item, _), _)| ItemIndex(item))
            .filter(|item| input.catalog.listed.get(item.at()))
            .collect();
        let is_new = |item: &ItemIndex| history.binary_search(item).is_err();
        Self {
            user: UserIndex(user as u32),
            relevant_new: relevant.iter().copied().filter(is_new).collect(),
            relevant,
            history,
        }
    }

    /// Returns the relevant items of a scope.
    pub fn relevant(&self, scope: ItemScope) -> &[ItemIndex] {
        match scope {
            ItemScope::All => &self.relevant,
            ItemScope::New => &self.relevant_new,
        }
    }
}

/// Returns the users with ratings or purchases both before `part` and in it, and how many there are of each. A purchase that was
/// returned within the same time is none.
fn known_in(input: &TrainingInput, split: &Split, part: Part) -> (Bits, Reach) {
    let known = |admits: &dyn Fn(Part) -> bool| {
        let keep = |user, item, at| admits(split.part(user, item, at));
        let mut users = Bits::zeros(input.users.len());
        for event in input.ratings.iter() {
            if keep(event.user, event.item, event.rated_at) {
                users.set(event.user.at(), true);
            }
        }
        let settled = input.settle(keep);
        for (order, event) in input.orders.iter().enumerate() {
            if settled.stands(order) && keep(event.user, event.item, event.ordered_at) {
                users.set(event.user.at(), true);
            }
        }
        users
    };
    let before = known(&|event_part| event_part < part);
    let within = known(&|event_part| event_part == part);
    let both: Bits = (0..input.users.len())
        .map(|user| before.get(user) && within.get(user))
        .collect();
    let reach = Reach {
        before: before.count_ones() as u64,
        within: within.count_ones() as u64,
        both: both.count_ones() as u64,
    };
    (both, reach)
}

/// Returns up to `max_users` of the `eligible` users, or all if it is 0: those whose ids have the lowest hashes.
///
/// If users join or leave, the sample of the others stays the same.
pub(super) fn sample(users: &Dictionary<UserIndex>, eligible: &Bits, max_users: usize, seed: u64) -> Bits {
    if max_users == 0 || eligible.count_ones() <= max_users {
        return eligible.clone();
    }
    let hash = |user: u32| (xxh3_64_with_seed(users.id(UserIndex(user)).as_bytes(), seed), user);
    let users = (0..eligible.len() as u32).filter(|&user| eligible.get(user as usize));
    let mut hashed: Vec<(u64, u32)> = users.map(hash).collect();
    hashed.select_nth_unstable(max_users);
    let mut sampled = Bits::zeros(eligible.len());
    for &(_, user) in &hashed[..max_users] {
        sampled.set(user as usize, true);
    }
    sampled
}

#[cfg(test)]
mod tests {
    use super::super::split::events;
    use super::super::testing::{N_USERS, tastes};
    use super::*;
    use crate::training::input::ReturnEvent;
    use crate::training::testing::{at, input, order, rating, returned};

    fn held_out(input: &TrainingInput, implicit: ImplicitFeedback, cut_at: u32) -> HeldOutParts {
        let reference = TrainingParameters {
            options: TrainingOptions {
                implicit,
                ..TrainingOptions::default()
            },
            ..TrainingParameters::default()
        };
        let cut = Cut::At { at: at(cut_at) };
        HeldOutParts::new(input, &reference, &cut, &EvaluationOptions::default()).unwrap()
    }

    #[test]
    fn purchases_and_good_ratings_of_listed_items_are_relevant() {
        let mut input = input(
            4,
            6,
            &[
                rating(0, 1, 2.0, 0),
                rating(0, 2, 2.5, 20),
                rating(0, 3, 3.0, 20),
                rating(1, 3, 1.0, 20),
                rating(3, 0, 5.0, 20),
            ],
            &[
                order(0, 0, 1),
                order(0, 0, 20),
                order(0, 1, 21),
                order(0, 4, 21),
                order(0, 5, 21),
                order(1, 2, 2),
                // The item was rated low, but bought.
                order(1, 3, 21),
                order(2, 0, 3),
            ],
        );
        input.catalog.listed.set(4, false);
        let items = |indices: &[u32]| indices.iter().copied().map(ItemIndex).collect::<Vec<_>>();
        let expected = [
            EvaluationCase {
                user: UserIndex(0),
                history: items(&[0, 1]),
                relevant: items(&[0, 1, 3, 5]),
                relevant_new: items(&[3, 5]),
            },
            EvaluationCase {
                user: UserIndex(1),
                history: items(&[2]),
                relevant: items(&[3]),
                relevant_new: items(&[3]),
            },
        ];
        // The cases do not depend on what a model makes of purchases. User 2 has nothing relevant, user 3 no history.
        for implicit in [
            ImplicitFeedback::LogOrders,
            ImplicitFeedback::Binary,
            ImplicitFeedback::Off,
        ] {
            let held_out = held_out(&input, implicit, 10);
            assert_eq!(held_out.test.cases, expected, "{implicit:?}");
            assert_eq!(held_out.users(), 2);
            let reach = Reach {
                before: 3,
                within: 3,
                both: 2,
            };
            assert_eq!(held_out.test.reach, reach);
        }
    }

    #[test]
    fn the_validation_part_has_the_history_before_it() {
        let orders = [order(0, 0, 0), order(0, 1, 40), order(0, 2, 50), order(0, 3, 60)];
        let held_out = held_out(&input(1, 4, &[], &orders), ImplicitFeedback::LogOrders, 50);
        let [validation] = &held_out.validation.cases[..] else {
            panic!("{held_out:?}")
        };
        let [test] = &held_out.test.cases[..] else {
            panic!("{held_out:?}")
        };
        assert_eq!(
            (&validation.history[..], &validation.relevant[..]),
            (&[ItemIndex(0)][..], &[ItemIndex(1)][..])
        );
        assert_eq!((test.history.len(), test.relevant.len()), (2, 2));
    }

    #[test]
    fn a_return_changes_only_the_parts_from_its_time_on() {
        /// A user, the items of their history, and the relevant ones.
        type Items = (u32, Vec<u32>, Vec<u32>);
        let orders = [
            order(0, 0, 0),
            order(0, 1, 1),
            order(0, 2, 40),
            order(0, 3, 50),
            order(0, 4, 60),
            order(1, 0, 1),
            order(1, 1, 60),
        ];
        let cases = |returns: Vec<ReturnEvent>| {
            let mut input = input(2, 5, &[], &orders);
            input.returns = returns;
            let held_out = held_out(&input, ImplicitFeedback::LogOrders, 50);
            let parts = [held_out.validation, held_out.test];
            parts.map(|part| {
                let case = |case: EvaluationCase| {
                    let items = |items: Vec<ItemIndex>| items.iter().map(|item| item.0).collect::<Vec<u32>>();
                    (case.user.0, items(case.history), items(case.relevant))
                };
                part.cases.into_iter().map(case).collect::<Vec<_>>()
            })
        };
        let validation = vec![(0, vec![0, 1], vec![2])];
        let kept = (1, vec![0], vec![1]);
        let check = |returns: &[ReturnEvent], expected: [Vec<Items>; 2]| {
            assert_eq!(cases(returns.to_vec()), expected, "{returns:?}");
        };
        let all = (0, vec![0, 1, 2], vec![3, 4]);
        check(&[], [validation.clone(), vec![all.clone(), kept.clone()]]);
        // After the cut, what was bought before it stays bought there.
        check(
            &[returned(0, 0, 55), returned(1, 0, 70)],
            [validation.clone(), vec![all, kept.clone()]],
        );
        let without_3 = (0, vec![0, 1, 2], vec![4]);
        check(&[returned(0, 3, 55)], [validation, vec![without_3, kept.clone()]]);
        // Within the validation part, only the test part has a shorter history.
        let shorter = (0, vec![0, 1], vec![3, 4]);
        check(&[returned(0, 2, 45)], [vec![], vec![shorter, kept]]);
        // A user who has returned everything before the cut has no history to rank by.
        check(
            &[returned(1, 0, 2), returned(0, 1, 2)],
            [vec![(0, vec![0], vec![2])], vec![(0, vec![0, 2], vec![3, 4])]],
        );
    }

    #[test]
    fn a_sample_is_the_same_for_a_seed_and_grows_by_the_rest() {
        let users = tastes().users;
        let eligible: Bits = (0..N_USERS).map(|user| user % 3 > 0).collect();
        let sampled = |max_users, seed| -> Vec<usize> {
            let sampled = sample(&users, &eligible, max_users, seed);
            (0..sampled.len()).filter(|&user| sampled.get(user)).collect()
        };
        let all: Vec<usize> = (0..N_USERS as usize).filter(|user| user % 3 > 0).collect();
        for max_users in [0, 80, 1_000] {
            assert_eq!(sampled(max_users, 1), all);
        }
        let mut fewer = Vec::new();
        for max_users in 1..80 {
            let more = sampled(max_users, 1);
            assert_eq!(more.len(), max_users);
            assert!(fewer.iter().all(|user| more.contains(user)));
            assert!(more.iter().all(|user| all.contains(user)));
            fewer = more;
        }
        assert_eq!(sampled(20, 1), sampled(20, 1));
        assert_ne!(sampled(20, 1), sampled(20, 2));
    }

    #[test]
    fn only_sampled_users_are_asked() {
        let input = tastes();
        let options = EvaluationOptions {
            max_users: 7,
            ..EvaluationOptions::default()
        };
        let reference = TrainingParameters::default();
        let held_out = HeldOutParts::new(&input, &reference, &Cut::Latest, &options).unwrap();
        assert_eq!(held_out.test.cases.len(), 7);
        let mut held = vec![false; N_USERS as usize];
        for (user, item, at) in events(&input) {
            held[user.at()] |= held_out.test.holds(&held_out.split, user, item, at);
        }
        let asked: Vec<usize> = held_out.test.cases.iter().map(|case| case.user.at()).collect();
        assert_eq!((0..held.len()).filter(|&user| held[user]).collect::<Vec<_>>(), asked);
    }
}
