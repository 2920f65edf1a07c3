use proptest::prelude::*;

use super::*;
use crate::ranking::testing::{Change, Person, any_changes, any_parts, changed, ids, interaction, mean_of, near};
use crate::snapshot::SnapshotParts;
use crate::snapshot::fixture::{EXAMPLE, item_id, snapshot_parts, user_id, view};
use crate::snapshot::overlay::FreshChange;
use crate::snapshot::parameters::BlendWeights;
use domain::consent::{Consents, Purpose};
use domain::rating::RatingScale;

const ESTIMATORS: [Estimator; 3] = [Estimator::WeightedSum, Estimator::WeightedMean, Estimator::Baseline];
const BASES: [Basis; 3] = [Basis::ItemBased, Basis::UserBased, Basis::Blended];

fn options(estimator: Estimator, basis: Basis) -> PredictOptions {
    PredictOptions {
        estimator,
        basis,
        explain: true,
        thresholds: Thresholds::default(),
    }
}

fn known(item: u32) -> ItemRef {
    ItemRef::Known(ItemIndex(item))
}

#[test]
fn gives_the_values_of_the_worked_example() {
    let view = view(snapshot_parts(&EXAMPLE));
    let check = |basis, expected: [f64; 5]| {
        for predictor in [
            Predictor::new(&view, &user_id("u0")),
            Predictor::for_index(&view, UserIndex(0)),
        ] {
            for (item, expected) in (0..).zip(expected) {
                let prediction = predictor.predict(&known(item), &options(Estimator::WeightedSum, basis));
                near(prediction.value, expected, 1e-6);
                assert_eq!((prediction.clamped, prediction.fallback), (false, Fallback::None));
            }
        }
    };
    check(
        Basis::UserBased,
        [1.85674873, 0.14325127, 0.21487691, 1.92837436, 1.85674873],
    );
    check(Basis::ItemBased, [1.0, 0.28989795, 0.28989795, 1.55877287, 2.40115636]);
    // Half of each.
    check(
        Basis::Blended,
        [1.428374365, 0.21657461, 0.25238743, 1.743573615, 2.128952545],
    );
}

/// A prediction, computed with plain loops from the formulas of docs/formulas.md.
#[derive(Debug, PartialEq)]
struct Plain {
    value: f64,
    support: u32,
    clamped: bool,
    fallback: Fallback,
}

fn plain(parts: &SnapshotParts, person: &Person, item: usize, estimator: Estimator, basis: Basis) -> Plain {
    let mean = mean_of(parts);
    let item_bias = |item: usize| f64::from(parts.biases.items[item]);
    let by_baseline = estimator == Estimator::Baseline;

    // Similarity, rating and expected rating of every neighbor.
    let (items, similarities) = parts.item_neighbors.row(item);
    let of_items: Vec<(f64, f64, f64)> = items
        .iter()
        .zip(similarities)
        .map(|(&j, &similarity)| {
            let expected = mean + person.bias + item_bias(j as usize);
            (f64::from(similarity), person.ratings[j as usize], expected)
        })
        .collect();
    let of_users: Vec<(f64, f64, f64)> = person
        .neighbors
        .iter()
        .map(|&(user, similarity)| {
            let rating = parts.ratings.get(user, ItemIndex(item as u32)).map_or(0.0, f64::from);
            (
                similarity,
                rating,
                mean + f64::from(parts.biases.users[user]) + item_bias(item),
            )
        })
        .collect();

    let side = |neighbors: &[(f64, f64, f64)]| {
        let used: Vec<_> = neighbors
            .iter()
            .filter(|neighbor| neighbor.1 > 0.0 || estimator == Estimator::WeightedSum)
            .collect();
        let weight: f64 = used.iter().map(|neighbor| neighbor.0).sum();
        let deviation = |expected: f64| if by_baseline { expected } else { 0.0 };
        let total: f64 = used
            .iter()
            .map(|neighbor| neighbor.0 * (neighbor.1 - deviation(neighbor.2)))
            .sum();
        (!used.is_empty()).then(|| (total / weight, used.len() as u32))
    };
    let by_items = side(&of_items).filter(|_| basis != Basis::UserBased && person.has_ratings());
    let by_users = side(&of_users).filter(|_| basis != Basis::ItemBased);

    let weight = match estimator {
        Estimator::WeightedSum => parts.weights.weighted_sum,
        Estimator::WeightedMean => parts.weights.weighted_mean,
        Estimator::Baseline => parts.weights.baseline,
    };
    let neighbors = match (by_items, by_users) {
        (Some(items), Some(users)) => Some((weight * items.0 + (1.0 - weight) * users.0, items.1 + users.1)),
        (one, other) => one.or(other),
    };
    let base = mean + person.bias + item_bias(item);
    let raw = match neighbors {
        Some((deviation, _)) if by_baseline => base + deviation,
        Some((value, _)) => value,
        None => base,
    };
    let RatingScale { min, max } = parts.parameters.scale;
    let value = match estimator {
        Estimator::WeightedSum if neighbors.is_some() => raw,
        _ => raw.max(f64::from(min)).min(f64::from(max)),
    };
    let item_is_rated = (0..parts.users.len()).any(|user| parts.ratings.get(user, ItemIndex(item as u32)).is_some());
    Plain {
        value,
        support: neighbors.map_or(0, |neighbors| neighbors.1),
        clamped: value != raw,
        fallback: match (neighbors, person.has_ratings(), item_is_rated) {
            (Some(_), _, _) => Fallback::None,
            (None, true, true) => Fallback::BaselineOnly,
            (None, true, false) => Fallback::UserMean,
            (None, false, true) => Fallback::ItemMean,
            (None, false, false) => Fallback::GlobalMean,
        },
    }
}

/// Compares whether both are clamped only where rounding does not decide it.
fn agree(found: &Prediction, expected: &Plain, scale: RatingScale) -> Result<(), TestCaseError> {
    prop_assert!(
        (found.value - expected.value).abs() < 1e-9,
        "{:?} {:?}",
        found,
        expected
    );
    prop_assert_eq!((found.support, found.fallback), (expected.support, expected.fallback));
    let at_limit = [scale.min, scale.max]
        .iter()
        .any(|&limit| (found.value - f64::from(limit)).abs() < 1e-9);
    if !at_limit {
        prop_assert_eq!(found.clamped, expected.clamped);
    }
    Ok(())
}

fn terms_sum_to_the_value(prediction: &Prediction) -> Result<(), TestCaseError> {
    let explanation = prediction.explanation.as_ref().unwrap();
    let items: f64 = explanation.items.iter().map(|item| item.contribution).sum();
    let users = explanation.similar_users.map_or(0.0, |users| users.contribution);
    let base = explanation.global_mean + explanation.user_bias + explanation.item_bias;
    let total = base + items + users + explanation.clamping;
    prop_assert!((total - prediction.value).abs() < 1e-9, "{total}: {:?}", prediction);
    prop_assert_eq!(explanation.clamping != 0.0, prediction.clamped);
    prop_assert!(
        explanation
            .items
            .is_sorted_by(|a, b| a.contribution.abs() >= b.contribution.abs())
    );
    Ok(())
}

/// Thresholds with which few items of the small test data are enough for either method of looking ratings up.
const SMALL_THRESHOLDS: Thresholds = Thresholds {
    lookup: LookupOptions {
        max_scanned: 1,
        max_filtered: 2,
        max_filter_items: 128,
    },
    max_spread: 1,
};

/// Checks that predictions of several items are those of the single ones, with few items, for which rows are searched, and
/// with many, for which rows are scanned.
fn check_together(view: &View, predictor: &Predictor, scratch: &mut Scratch) -> Result<(), TestCaseError> {
    let known = (0..view.snapshot.items().len() as u32).map(|item| Some(ItemIndex(item)));
    let all: Vec<Option<ItemIndex>> = known.rev().chain([None]).collect();
    for (estimator, basis) in ESTIMATORS
        .into_iter()
        .flat_map(|estimator| BASES.map(|basis| (estimator, basis)))
    {
        let options = PredictOptions {
            thresholds: SMALL_THRESHOLDS,
            ..options(estimator, basis)
        };
        let alone = |item: &Option<ItemIndex>| {
            let item = item.map_or(ItemRef::New(item_id("new")), ItemRef::Known);
            predictor.predict(&item, &options)
        };
        for items in [&all[..], &all[..1], &all[all.len() - 2..], &[]] {
            let expected: Vec<Prediction> = items.iter().map(alone).collect();
            prop_assert_eq!(predictor.predict_all(items, &options, scratch), expected);
        }
    }
    prop_assert!(scratch.ratings.iter().all(|&rating| rating == 0.0));
    prop_assert!(scratch.requested.is_empty());
    Ok(())
}

/// Checks every item, estimator and basis for a user who is `person`.
fn check_all(view: &View, predictor: &Predictor, person: &Person) -> Result<(), TestCaseError> {
    check_together(view, predictor, &mut Scratch::default())?;
    let parts = view.snapshot.parts();
    for item in 0..parts.items.len() {
        for estimator in ESTIMATORS {
            for basis in BASES {
                let found = predictor.predict(&known(item as u32), &options(estimator, basis));
                let expected = plain(parts, person, item, estimator, basis);
                agree(&found, &expected, parts.parameters.scale)?;
                terms_sum_to_the_value(&found)?;
                let unexplained = PredictOptions {
                    explain: false,
                    ..options(estimator, basis)
                };
                let silent = predictor.predict(&known(item as u32), &unexplained);
                prop_assert_eq!(
                    silent,
                    Prediction {
                        explanation: None,
                        ..found
                    }
                );
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn agrees_with_the_formulas(parts in any_parts()) {
        let view = view(parts);
        let parts = view.snapshot.parts();
        for user in 0..parts.users.len() {
            let person = Person::new(parts, Some(user), &[]);
            check_all(&view, &Predictor::for_index(&view, UserIndex(user as u32)), &person)?;
            let id = user_id(parts.users.texts().get(user));
            check_all(&view, &Predictor::new(&view, &id), &person)?;
        }
        check_all(&view, &Predictor::new(&view, &user_id("nobody")), &Person::new(parts, None, &[]))?;
    }

    #[test]
    fn agrees_with_the_formulas_after_changes(parts in any_parts(), changes in any_changes()) {
        let view = view(parts);
        let change = |&(item, rating, orders): &Change| interaction("u0", &format!("i{item}"), rating, orders);
        let view = changed(view, changes.iter().map(change));
        let parts = view.snapshot.parts();
        let person = Person::new(parts, Some(0), &changes);
        check_all(&view, &Predictor::new(&view, &user_id("u0")), &person)?;
        // By index, the user is still as the snapshot knows them.
        let person = Person::new(parts, Some(0), &[]);
        check_all(&view, &Predictor::for_index(&view, UserIndex(0)), &person)?;
    }

    #[test]
    fn a_blend_lies_between_its_sides(parts in any_parts()) {
        let view = view(parts);
        for user in 0..view.snapshot.users().len() {
            let predictor = Predictor::for_index(&view, UserIndex(user as u32));
            for item in 0..view.snapshot.items().len() {
                let item = ItemIndex(item as u32);
                for estimator in ESTIMATORS {
                    let of = |basis| predictor.predict(&ItemRef::Known(item), &options(estimator, basis));
                    let raw = |prediction: &Prediction| {
                        prediction.value - prediction.explanation.as_ref().unwrap().clamping
                    };
                    let (items, users) = (of(Basis::ItemBased), of(Basis::UserBased));
                    let both = items.support > 0 && users.support > 0;
                    let sides = predictor.sides(item, estimator);
                    prop_assert_eq!(sides.is_some(), both);
                    if let Some((by_items, by_users)) = sides {
                        prop_assert!((by_items - raw(&items)).abs() < 1e-9);
                        prop_assert!((by_users - raw(&users)).abs() < 1e-9);
                        let blended = raw(&of(Basis::Blended));
                        prop_assert!(blended >= by_items.min(by_users) - 1e-9);
                        prop_assert!(blended <= by_items.max(by_users) + 1e-9);
                    }
                }
            }
        }
    }
}

/// Returns ratings with biases: μ 3; users 0.5, −0.25 and 0; items 1, −1, 0 and 0.25. Nobody has rated the last item.
fn biased() -> SnapshotParts {
    let mut parts = snapshot_parts(&[&[4.0, 2.0, 0.0, 0.0], &[5.0, 0.0, 3.0, 0.0], &[0.0, 1.0, 2.0, 0.0]]);
    parts.biases.global_mean = 3.0;
    parts.biases.users = vec![0.5, -0.25, 0.0];
    parts.biases.items = vec![1.0, -1.0, 0.0, 0.25];
    parts
}

#[test]
fn without_usable_neighbors_the_biases_that_are_known_decide() {
    let mut parts = biased();
    // Item 2 has raters, but no item is similar to it.
    parts.item_neighbors = snapshot_parts(&[&[1.0, 1.0, 0.0, 0.0]]).item_neighbors;
    let withdrawn = ["i0", "i1"].map(|item| interaction("u0", item, None, 0));
    let view = view(parts);
    let check = |view: &View, user: &str, item: ItemRef, fallback, value| {
        for estimator in ESTIMATORS {
            let predictor = Predictor::new(view, &user_id(user));
            let found = predictor.predict(&item, &options(estimator, Basis::ItemBased));
            near(found.value, value, 1e-12);
            assert_eq!(
                (found.fallback, found.support, found.clamped),
                (fallback, 0, false),
                "{user}"
            );
            let explanation = found.explanation.unwrap();
            assert_eq!((explanation.items.len(), explanation.similar_users), (0, None));
            near(explanation.global_mean, 3.0, 0.0);
            if let ItemRef::Known(item) = item {
                near(predictor.baseline(item), value, 1e-12);
            }
        }
    };
    check(&view, "u0", known(2), Fallback::BaselineOnly, 3.5);
    check(&view, "u0", known(3), Fallback::UserMean, 3.75);
    check(&view, "u0", ItemRef::New(item_id("new")), Fallback::UserMean, 3.5);
    for unknown in ["nobody", "u0"] {
        let view = changed(view.clone(), withdrawn.clone());
        check(&view, unknown, known(0), Fallback::ItemMean, 4.0);
        check(&view, unknown, known(3), Fallback::GlobalMean, 3.25);
        check(&view, unknown, ItemRef::New(item_id("new")), Fallback::GlobalMean, 3.0);
    }
}

#[test]
fn without_any_rating_the_middle_of_the_scale_is_predicted() {
    let mut parts = snapshot_parts(&[&[0.0, 0.0]]);
    parts.parameters.scale = RatingScale { min: 1.0, max: 10.0 };
    let view = view(parts);
    for user in ["u0", "nobody"] {
        let found = Predictor::new(&view, &user_id(user)).predict(&known(0), &PredictOptions::default());
        assert_eq!((found.value, found.fallback), (5.5, Fallback::GlobalMean));
    }
}

#[test]
fn only_the_weighted_sum_leaves_the_scale() {
    let mut parts = biased();
    parts.parameters.scale = RatingScale { min: 2.5, max: 3.0 };
    let view = view(parts);
    let check = |user: &str, item, estimator, value: Option<f64>| {
        let predictor = Predictor::new(&view, &user_id(user));
        let found = predictor.predict(&known(item), &options(estimator, Basis::UserBased));
        assert_eq!(found.clamped, value.is_some(), "{found:?}");
        match value {
            Some(limit) => assert_eq!(found.value, limit),
            None => assert!(found.value < 2.5 || found.value > 3.0, "{found:?}"),
        }
        terms_sum_to_the_value(&found).unwrap();
    };
    // The only rating of item 0 among the neighbors of user 2 is user 1's 5, and that of item 1 among those of user 1 is user 2's 1.
    check("u2", 0, Estimator::WeightedMean, Some(3.0));
    check("u2", 0, Estimator::Baseline, Some(3.0));
    check("u2", 0, Estimator::WeightedSum, None);
    check("u1", 1, Estimator::WeightedMean, Some(2.5));
    check("u1", 1, Estimator::Baseline, Some(2.5));
    check("u1", 1, Estimator::WeightedSum, None);
}

#[test]
fn the_fitted_weight_is_that_of_the_item_based_side() {
    let mut parts = biased();
    parts.weights = BlendWeights {
        weighted_sum: 1.0,
        weighted_mean: 0.0,
        baseline: 0.25,
        ranking: 0.5,
    };
    let view = view(parts);
    let predictor = Predictor::for_index(&view, UserIndex(0));
    let value = |estimator, basis| predictor.predict(&known(2), &options(estimator, basis)).value;
    for (estimator, weight) in ESTIMATORS.into_iter().zip([1.0, 0.0, 0.25]) {
        let (items, users) = (value(estimator, Basis::ItemBased), value(estimator, Basis::UserBased));
        assert_ne!(items, users);
        let expected = weight * items + (1.0 - weight) * users;
        near(value(estimator, Basis::Blended), expected, 1e-12);
    }
}

#[test]
fn an_own_rating_counts_in_predictions_of_other_items_only() {
    let view = view(biased());
    let later = changed(view.clone(), [interaction("u0", "i0", Some(1.0), 0)]);
    let by_items = options(Estimator::WeightedMean, Basis::ItemBased);
    let predict = |view: &View, item| Predictor::new(view, &user_id("u0")).predict(&known(item), &by_items);
    // Item 0 is predicted from item 1 alone, before as after.
    assert_eq!(predict(&view, 0).value, 2.0);
    assert_eq!(predict(&later, 0).value, 2.0);
    // Item 1 from item 0.
    assert_eq!(predict(&view, 1).value, 4.0);
    assert_eq!(predict(&later, 1).value, 1.0);

    let withdrawn = changed(view, [interaction("u0", "i0", None, 0)]);
    let explained = predict(&withdrawn, 2).explanation.unwrap();
    assert_eq!(ids(&withdrawn, explained.items.iter().map(|item| item.item)), ["i1"]);
}

#[test]
fn a_user_who_objects_to_profiling_is_predicted_for_like_an_unknown_one() {
    let mut parts = snapshot_parts(&EXAMPLE);
    parts.biases.users = vec![0.5; 3];
    let consents = Consents::default().with(Purpose::Profiling, Some(false));
    let user = user_id("u0");
    let changes = [
        FreshChange::Consents { user, consents },
        interaction("u0", "i1", Some(5.0), 0),
    ];
    let view = changed(view(parts), changes);
    let of = |user: &str| Predictor::new(&view, &user_id(user));
    for estimator in ESTIMATORS {
        for basis in BASES {
            for item in 0..5 {
                let predict = |user| of(user).predict(&known(item), &options(estimator, basis));
                assert_eq!(predict("u0"), predict("stranger"), "{estimator:?}, {basis:?}");
                assert_ne!(predict("u2"), predict("stranger"), "{estimator:?}, {basis:?}");
            }
        }
    }
}
