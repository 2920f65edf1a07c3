//! Effective ratings to the parts of a snapshot.

use crate::model::dictionary::{Dictionary, UserIndex};
use crate::model::parameters::{BlendWeights, TrainingParameters};
use crate::model::propensity::Propensity;
use crate::model::snapshot::SnapshotParts;
use crate::similarity::cosine::{KernelPath, Selection, TopK, TopKOptions, top_k};
use crate::similarity::lists::{InvertedLists, NeighborLists};
use crate::similarity::sparse::CsrMatrix;

use super::activity::activity;
use super::biases::biases;
use super::error::TrainingError;
use super::input::TrainingInput;
use super::matrix::EffectiveRatings;

/// Where [`fit`] stands, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Biases,
    ItemNeighbors,
    ItemNeighborsDone(KernelPath),
    /// By far the longest where there are more users than items.
    UserNeighbors,
    UserNeighborsDone(KernelPath),
}

/// A model of `effective`: users without an effective rating have no part in it.
///
/// `effective`: [m, n] of `input`. `observe`: called when a stage is reached. Runs on the rayon pool it is called
/// in; the result is the same, byte by byte, for any number of threads.
///
/// # Errors
/// None for effective ratings of this `input`.
pub fn fit(
    input: &TrainingInput,
    effective: EffectiveRatings,
    parameters: &TrainingParameters,
    weights: BlendWeights,
    observe: &(dyn Fn(Stage) + Sync),
) -> Result<SnapshotParts, TrainingError> {
    let (users, ratings) = without_empty_rows(&input.users, effective.ratings)?;
    let by_item = ratings.transpose();

    observe(Stage::Biases);
    let biases = biases(&ratings, &by_item, &parameters.options);
    observe(Stage::ItemNeighbors);
    let items = neighbors(&by_item, &ratings, parameters)?;
    observe(Stage::ItemNeighborsDone(items.path));
    observe(Stage::UserNeighbors);
    let users_alike = neighbors(&ratings, &by_item, parameters)?;
    observe(Stage::UserNeighborsDone(users_alike.path));

    let activity = activity(input, &users);
    Ok(SnapshotParts {
        parameters: parameters.clone(),
        weights,
        users,
        items: input.items.clone(),
        catalogue: input.catalogue.clone(),
        ratings,
        purchased: effective.purchased,
        biases,
        user_neighbors: users_alike.lists,
        item_neighbors: items.lists,
        activity,
        consents: input.consents.clone(),
        propensity: Propensity::default(),
    })
}

/// The item-based lists alone, turned round: for every item those that have it in their list.
///
/// `ratings`: effective, [users, n]; rows may be empty.
///
/// # Errors
/// None for effective ratings.
pub fn item_followers(ratings: &CsrMatrix, parameters: &TrainingParameters) -> Result<InvertedLists, TrainingError> {
    Ok(neighbors(&ratings.transpose(), ratings, parameters)?.lists.transpose())
}

/// The user-based lists alone.
///
/// `ratings`: effective, [m, items]; rows may be empty.
///
/// # Errors
/// None for effective ratings.
pub fn user_neighbors(ratings: &CsrMatrix, parameters: &TrainingParameters) -> Result<NeighborLists, TrainingError> {
    Ok(neighbors(ratings, &ratings.transpose(), parameters)?.lists)
}

fn neighbors(rows: &CsrMatrix, columns: &CsrMatrix, parameters: &TrainingParameters) -> Result<TopK, TrainingError> {
    let options = TopKOptions {
        neighbors: parameters.options.neighbors,
    };
    Ok(top_k(rows, columns, Selection::All, &options)?)
}

/// The entries stay where they are: an empty row has none.
fn without_empty_rows(
    users: &Dictionary<UserIndex>,
    ratings: CsrMatrix,
) -> Result<(Dictionary<UserIndex>, CsrMatrix), TrainingError> {
    let has_entries = |&row: &usize| !ratings.row_range(row).is_empty();
    if (0..ratings.n_rows()).all(|row| has_entries(&row)) {
        return Ok((users.clone(), ratings));
    }
    let kept = || (0..ratings.n_rows()).filter(has_entries);
    let ids = kept().map(|row| users.texts().get(row)).collect();
    let Some(kept_users) = Dictionary::new(ids) else {
        unreachable!("a part of an ascending list ascends");
    };
    let ends = kept().map(|row| ratings.row_range(row).end as u64);
    let offsets = std::iter::once(0).chain(ends).collect();
    let (columns, values) = (ratings.columns().to_vec(), ratings.values().to_vec());
    let kept_ratings = CsrMatrix::new(ratings.n_columns(), offsets, columns, values)?;
    Ok((kept_users, kept_ratings))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::matrix::effective_ratings;
    use super::super::testing::{input, order, rating};
    use super::*;
    use crate::model::fixture::snapshot_parts;
    use crate::model::parameters::TrainingOptions;
    use crate::model::snapshot::Snapshot;
    use crate::similarity::cosine::Products;

    fn parts_of(input: &TrainingInput, parameters: &TrainingParameters) -> SnapshotParts {
        let effective = effective_ratings(input, parameters, |_, _| true).unwrap();
        fit(input, effective, parameters, BlendWeights::default(), &|_| {}).unwrap()
    }

    #[test]
    fn users_without_a_rating_are_left_out() {
        let input = input(
            4,
            3,
            &[rating(1, 0, 4.0, 1), rating(1, 2, 2.0, 2), rating(3, 2, 5.0, 3)],
            &[order(3, 0, 1), order(3, 0, 2)],
        );
        let parts = parts_of(&input, &TrainingParameters::default());
        assert_eq!(parts.users.texts().iter().collect::<Vec<_>>(), ["u1", "u3"]);
        assert_eq!(parts.items, input.items);
        assert_eq!(parts.ratings.row(0), (&[0, 2][..], &[4.0, 2.0][..]));
        assert_eq!(parts.ratings.row(1), (&[0, 2][..], &[2.0, 5.0][..]));
        let purchased: Vec<bool> = (0..4).map(|position| parts.purchased.get(position)).collect();
        assert_eq!(purchased, [false, false, true, false]);
        let snapshot = Snapshot::new(parts).unwrap();
        assert_eq!(snapshot.user_neighbors().row(0).0, [1]);
    }

    #[test]
    fn the_lists_are_those_of_the_similarity_kernel() {
        let rows: [&[f32]; 3] = [&[4.0, 0.0, 1.0, 1.0], &[0.0, 2.0, 3.0, 1.0], &[2.0, 0.0, 0.0, 2.0]];
        let mut ratings = Vec::new();
        for (user, row) in (0..).zip(rows) {
            let rated = (0..).zip(row).filter(|&(_, &value)| value > 0.0);
            ratings.extend(rated.map(|(item, &value)| rating(user, item, value, item)));
        }
        let expected = snapshot_parts(&rows);
        let input = input(3, 4, &ratings, &[]);
        let found = parts_of(&input, &TrainingParameters::default());
        assert_eq!(found.user_neighbors, expected.user_neighbors);
        assert_eq!(found.item_neighbors, expected.item_neighbors);

        let options = TrainingOptions {
            neighbors: 1,
            ..TrainingOptions::default()
        };
        let short = TrainingParameters {
            options,
            ..TrainingParameters::default()
        };
        let found = parts_of(&input, &short);
        assert_eq!(found.user_neighbors.row(0).0, &expected.user_neighbors.row(0).0[..1]);
        assert_eq!(found.item_neighbors.row(2).0, &expected.item_neighbors.row(2).0[..1]);
    }

    #[test]
    fn every_stage_is_observed_once() {
        let input = input(1, 1, &[rating(0, 0, 3.0, 1)], &[]);
        let parameters = TrainingParameters::default();
        let effective = effective_ratings(&input, &parameters, |_, _| true).unwrap();
        let seen = Mutex::new(Vec::new());
        fit(&input, effective, &parameters, BlendWeights::default(), &|stage| {
            seen.lock().unwrap().push(stage);
        })
        .unwrap();
        let seen = seen.into_inner().unwrap();
        let [
            Stage::Biases,
            Stage::ItemNeighbors,
            Stage::ItemNeighborsDone(items),
            Stage::UserNeighbors,
            last,
        ] = seen[..]
        else {
            panic!("{seen:?}");
        };
        assert_eq!(items.products, Products::Integer);
        assert_eq!(last, Stage::UserNeighborsDone(items));
    }

    #[test]
    fn nothing_makes_an_empty_model() {
        for input in [input(0, 0, &[], &[]), input(2, 0, &[], &[]), input(2, 3, &[], &[])] {
            let parts = parts_of(&input, &TrainingParameters::default());
            assert_eq!((parts.users.len(), parts.ratings.nnz()), (0, 0));
            Snapshot::new(parts).unwrap();
        }
    }
}
