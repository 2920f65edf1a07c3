//! Fits a model: computes the parts of a snapshot from effective ratings.

use crate::snapshot::SnapshotParts;
use crate::snapshot::bits::Bits;
use crate::snapshot::dictionary::{Dictionary, UserIndex};
use crate::snapshot::parameters::{BlendWeights, TrainingParameters};
use crate::snapshot::parts::Optional;
use crate::snapshot::ratings::Ratings;
use crate::snapshot::settings::FittedSettings;
use crate::snapshot::significance::SignificantNeighbors;
use similarity::cosine::{KernelPath, Observer, RowSelection, TopK, TopKOptions, top_k_observed};
use similarity::lists::NeighborLists;
use similarity::significance::{SignificanceOptions, significant_lists};
use similarity::sparse::CsrMatrix;

use super::activity::{activity, merchant_orders};
use super::biases::biases;
use super::error::TrainingError;
use super::input::TrainingInput;
use super::matrix::EffectiveRatings;

/// The stages of [`fit`], in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Biases,
    ItemNeighbors,
    /// By far the longest stage if there are more users than items.
    UserNeighbors,
}

/// A progress event of [`fit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FitEvent {
    /// A stage begins (0 done) or goes on. `total`: 0 if it is unknown.
    Progress { stage: Stage, done: u64, total: u64 },
    /// The similarities of a stage were computed by this code path.
    Computed { stage: Stage, path: KernelPath },
}

impl FitEvent {
    fn begin(stage: Stage) -> Self {
        Self::Progress {
            stage,
            done: 0,
            total: 0,
        }
    }
}

/// Options of [`fit`].
#[derive(Debug, Clone, Copy)]
pub struct ModelOptions<'a> {
    pub parameters: &'a TrainingParameters,
    pub weights: BlendWeights,
    /// Decides how the similarities of items are shrunk; the other settings are only taken over.
    pub settings: FittedSettings,
    /// The users who get a list of neighbors, one bit per user of the input; `None` for all. Lists cost most of the time, so a
    /// model that serves few users is fitted sooner.
    pub listed_users: Option<&'a Bits>,
}

impl<'a> ModelOptions<'a> {
    /// Returns the options of a model with unfitted weights and settings, and lists of all users.
    pub fn plain(parameters: &'a TrainingParameters) -> Self {
        Self {
            parameters,
            weights: BlendWeights::default(),
            settings: FittedSettings::default(),
            listed_users: None,
        }
    }
}

/// Fits a model of `effective`. Users without an effective rating are left out. The orders are left to
/// [`orders`](super::orders::orders).
///
/// `effective`: [m, n], the effective ratings of `input`. `observe`: may be called from any thread. Runs on the current rayon
/// pool; the result is the same, byte by byte, for any number of threads.
///
/// # Errors
/// None for the effective ratings of this `input`.
pub fn fit(
    input: &TrainingInput,
    effective: EffectiveRatings,
    options: &ModelOptions,
    observe: &(dyn Fn(FitEvent) + Sync),
) -> Result<SnapshotParts, TrainingError> {
    let (mut parts, lists) = fit_each(input, effective, options, &[options.settings.significance], observe)?;
    parts.significant_item_neighbors = lists
        .into_iter()
        .next()
        .map_or_else(Optional::default, Optional::Present);
    Ok(parts)
}

/// Does the same as [`fit`], and returns the lists of significant neighbors for each of `significances` beside the model, which
/// has none.
pub fn fit_each(
    input: &TrainingInput,
    effective: EffectiveRatings,
    options: &ModelOptions,
    significances: &[f64],
    observe: &(dyn Fn(FitEvent) + Sync),
) -> Result<(SnapshotParts, Vec<SignificantNeighbors>), TrainingError> {
    let parameters = options.parameters;
    let (users, ratings) = without_empty_rows(&input.users, effective.ratings)?;
    let by_item = ratings.transpose();

    observe(FitEvent::begin(Stage::Biases));
    let biases = biases(&ratings, &by_item, &parameters.options);

    let neighbors = parameters.options.neighbors;
    let lists_of = |stage, rows, columns, selection, neighbors| {
        observe(FitEvent::begin(stage));
        let progress = |done, total| observe(FitEvent::Progress { stage, done, total });
        let TopK { lists, path } = nearest(rows, columns, selection, neighbors, &progress)?;
        observe(FitEvent::Computed { stage, path });
        Ok::<_, TrainingError>(lists)
    };
    let n_candidates = match significances.iter().any(|&significance| significance > 0.0) {
        true => CANDIDATES_PER_NEIGHBOR * neighbors,
        false => neighbors,
    };
    let candidates = lists_of(
        Stage::ItemNeighbors,
        &by_item,
        &ratings,
        RowSelection::All,
        n_candidates,
    )?;
    let shrinking = SignificanceOptions {
        neighbors,
        candidates: n_candidates,
    };
    let significant = significant_lists(&by_item, &ratings, &candidates, &shrinking, significances);
    let significant = significances.iter().zip(significant);
    let significant = significant.map(|(&shrinkage, neighbors)| SignificantNeighbors { shrinkage, neighbors });
    let significant: Vec<SignificantNeighbors> = significant.collect();
    let item_neighbors = candidates.truncated(neighbors);
    drop(candidates);
    let user_neighbors = match options.listed_users {
        None => lists_of(Stage::UserNeighbors, &ratings, &by_item, RowSelection::All, neighbors)?,
        Some(listed) => {
            let rows = listed_rows(&input.users, &users, listed);
            let lists = lists_of(
                Stage::UserNeighbors,
                &ratings,
                &by_item,
                RowSelection::Rows(&rows),
                neighbors,
            )?;
            lists.among(&rows, users.len())
        }
    };

    let activity = activity(input, &users);
    let merchant_orders = Optional::Present(merchant_orders(input, &users));
    let (ratings, purchased) = Ratings::of_matrix(ratings, &effective.purchased);
    let parts = SnapshotParts {
        parameters: parameters.clone(),
        weights: options.weights,
        users,
        items: input.items.clone(),
        catalog: input.catalog.clone(),
        ratings,
        purchased,
        biases,
        user_neighbors,
        item_neighbors,
        activity,
        merchant_orders,
        consents: input.consents.clone(),
        default_ranker: options.settings.new_items.ranker,
        fitted_settings: Optional::Present(options.settings),
        ..SnapshotParts::default()
    };
    Ok((parts, significant))
}

/// The candidates for each neighbor that is kept after shrinking. It decides the time, not the result.
const CANDIDATES_PER_NEIGHBOR: usize = 2;

/// Computes the neighbor lists of the selected rows.
///
/// `rows`: effective ratings, [users, items], or their transpose for the lists of items. `columns`: the other of the two. Rows
/// may be empty.
///
/// # Errors
/// None for effective ratings and selected rows that ascend.
pub fn neighbors(
    rows: &CsrMatrix,
    columns: &CsrMatrix,
    selection: RowSelection<'_>,
    parameters: &TrainingParameters,
) -> Result<NeighborLists, TrainingError> {
    Ok(nearest(rows, columns, selection, parameters.options.neighbors, &|_, _| {})?.lists)
}

fn nearest(
    rows: &CsrMatrix,
    columns: &CsrMatrix,
    selection: RowSelection<'_>,
    neighbors: usize,
    observe: Observer<'_>,
) -> Result<TopK, TrainingError> {
    let options = TopKOptions { neighbors };
    Ok(top_k_observed(rows, columns, selection, &options, observe)?)
}

/// Returns the rows of `users` (those with ratings) who are `listed` in the dictionary of all users.
fn listed_rows(all_users: &Dictionary<UserIndex>, users: &Dictionary<UserIndex>, listed: &Bits) -> Vec<u32> {
    let index = |user: u32| all_users.find(users.id(UserIndex(user)));
    let is_listed = |&user: &u32| index(user).is_some_and(|user| listed.get(user.at()));
    (0..users.len() as u32).filter(is_listed).collect()
}

/// Removes users without ratings, and their rows, which are empty.
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
    use crate::snapshot::Snapshot;
    use crate::snapshot::dictionary::ItemIndex;
    use crate::snapshot::fixture::snapshot_parts;
    use crate::snapshot::parameters::TrainingOptions;
    use similarity::cosine::Products;

    fn parts_of(input: &TrainingInput, parameters: &TrainingParameters) -> SnapshotParts {
        let effective = effective_ratings(input, parameters, |_, _, _| true).unwrap();
        fit(input, effective, &ModelOptions::plain(parameters), &|_| {}).unwrap()
    }

    #[test]
    fn users_without_a_rating_are_left_out() {
        let input = input(
            4,
            3,
            &[rating(1, 1, 4.0, 1), rating(1, 2, 2.0, 2), rating(3, 2, 5.0, 3)],
            &[order(3, 0, 1), order(3, 0, 2)],
        );
        let parts = parts_of(&input, &TrainingParameters::default());
        assert_eq!(parts.users.texts().iter().collect::<Vec<_>>(), ["u1", "u3"]);
        assert_eq!(parts.items, input.items);
        let entry = |item, rating| (ItemIndex(item), rating);
        // Item 2 is the most popular, so it comes first.
        assert!(parts.ratings.row(0).iter().eq([entry(2, 2.0), entry(1, 4.0)]));
        assert!(parts.ratings.row(1).iter().eq([entry(2, 5.0), entry(0, 2.0)]));
        let purchased: Vec<bool> = (0..4).map(|position| parts.purchased.get(position)).collect();
        assert_eq!(purchased, [false, false, false, true]);
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
    fn users_who_are_not_listed_get_no_list_and_change_none() {
        // User 1 has no rating, so that users of the input and of the model differ.
        let events: Vec<_> = [0, 2, 3, 4]
            .into_iter()
            .flat_map(|user| (0..3).map(move |item| rating(user, item, 1.0 + ((user + item) % 4) as f32, 1)))
            .collect();
        let input = input(5, 3, &events, &[]);
        let parameters = TrainingParameters::default();
        let all = parts_of(&input, &parameters);
        let effective = effective_ratings(&input, &parameters, |_, _, _| true).unwrap();
        let listed: Bits = [false, true, true, false, true].into_iter().collect();
        let few = ModelOptions {
            listed_users: Some(&listed),
            ..ModelOptions::plain(&parameters)
        };
        let found = fit(&input, effective, &few, &|_| {}).unwrap();
        for (row, is_listed) in [false, true, false, true].into_iter().enumerate() {
            match is_listed {
                true => assert_eq!(found.user_neighbors.row(row), all.user_neighbors.row(row)),
                false => assert!(found.user_neighbors.row(row).0.is_empty()),
            }
        }
        assert_eq!(found.item_neighbors, all.item_neighbors);
        Snapshot::new(found).unwrap();
    }

    #[test]
    fn every_stage_is_observed_once() {
        let input = input(1, 1, &[rating(0, 0, 3.0, 1)], &[]);
        let parameters = TrainingParameters::default();
        let effective = effective_ratings(&input, &parameters, |_, _, _| true).unwrap();
        let seen = Mutex::new(Vec::new());
        fit(&input, effective, &ModelOptions::plain(&parameters), &|event| {
            seen.lock().unwrap().push(event)
        })
        .unwrap();
        let seen = seen.into_inner().unwrap();
        let begun = seen.iter().filter_map(|event| match event {
            FitEvent::Progress { stage, done: 0, .. } => Some(*stage),
            _ => None,
        });
        let stages = [Stage::Biases, Stage::ItemNeighbors, Stage::UserNeighbors];
        assert_eq!(begun.collect::<Vec<_>>(), stages);
        let computed = seen.iter().filter_map(|event| match event {
            FitEvent::Computed { stage, path } => Some((*stage, path.products)),
            FitEvent::Progress { .. } => None,
        });
        let expected = stages[1..].iter().map(|&stage| (stage, Products::Integer));
        assert_eq!(computed.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }

    #[test]
    fn an_empty_input_makes_an_empty_model() {
        for input in [input(0, 0, &[], &[]), input(2, 0, &[], &[]), input(2, 3, &[], &[])] {
            let parts = parts_of(&input, &TrainingParameters::default());
            assert_eq!((parts.users.len(), parts.ratings.nnz()), (0, 0));
            Snapshot::new(parts).unwrap();
        }
    }
}
