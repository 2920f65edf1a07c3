use std::cmp::Reverse;

use ndarray::{Array2, Axis, array};
use proptest::prelude::*;

use super::super::lists::Neighbor;
use super::super::reference::top_k_dense;
use super::*;

/// Returns sizes so small that a few rows make several tiles, and a few columns several blocks.
fn small_sizes() -> Sizes {
    Sizes {
        max_tile_rows: 20,
        min_tile_rows: 5,
        job_rows: 7,
        block_bytes: 40,
        max_block_bytes: 600,
        panel_bytes: 3_000,
    }
}

fn sparse(ratings: &Array2<f32>) -> CsrMatrix {
    let triplets = ratings
        .indexed_iter()
        .filter(|&(_, &value)| value > 0.0)
        .map(|((row, column), &value)| (row as u32, column as u32, value))
        .collect();
    CsrMatrix::from_triplets(ratings.nrows(), ratings.ncols(), triplets).unwrap()
}

fn lists_of(ratings: &Array2<f32>, neighbors: usize) -> NeighborLists {
    let rows = sparse(ratings);
    lists_of_matrix(&rows, neighbors)
}

fn kernel_config(sizes: &Sizes) -> KernelConfig<'_> {
    KernelConfig {
        instructions: InstructionSet::detect(),
        sizes,
        observe: &|_, _| {},
    }
}

/// Returns the lists of the reference, which sums in the order of the columns: here those with more entries come first.
fn reference(ratings: &Array2<f32>, neighbors: usize) -> NeighborLists {
    let n_entries = |&column: &usize| ratings.column(column).iter().filter(|&&value| value > 0.0).count();
    let mut columns: Vec<usize> = (0..ratings.ncols()).collect();
    columns.sort_by_key(|column| Reverse(n_entries(column)));
    let ratings = ratings.select(Axis(1), &columns);
    top_k_dense(ratings.view(), 0..ratings.nrows(), &TopKOptions { neighbors })
}

/// Checks the lists with all instruction sets of this processor, in large and in small tiles.
fn assert_all_paths_agree(rows: &CsrMatrix, selection: &RowSelection<'_>, neighbors: usize, expected: &NeighborLists) {
    let columns = rows.transpose();
    let options = TopKOptions { neighbors };
    for set in InstructionSet::available() {
        for sizes in [Sizes::default(), small_sizes()] {
            let config = KernelConfig {
                instructions: set,
                ..kernel_config(&sizes)
            };
            let found = top_k_by(config, rows, &columns, selection.clone(), &options).unwrap();
            assert_same_bytes(&found.lists, expected);
        }
    }
}

fn lists_of_matrix(rows: &CsrMatrix, neighbors: usize) -> NeighborLists {
    top_k(rows, &rows.transpose(), RowSelection::All, &TopKOptions { neighbors })
        .unwrap()
        .lists
}

/// Checks that lists are equal, comparing their similarities as bits.
fn assert_same_bytes(left: &NeighborLists, right: &NeighborLists) {
    let bits = |lists: &NeighborLists| -> Vec<u32> { lists.similarities().iter().map(|s| s.to_bits()).collect() };
    assert_eq!(left, right);
    assert_eq!(bits(left), bits(right));
}

/// Returns the check matrix of docs/formulas.md.
fn check_matrix() -> Array2<f32> {
    array![
        [4.0, 0.0, 0.0, 1.0, 1.0],
        [0.0, 2.0, 3.0, 1.0, 0.0],
        [2.0, 0.0, 0.0, 2.0, 2.0]
    ]
}

#[test]
fn gives_the_similarities_worked_out_by_hand() {
    fn check(ratings: Array2<f32>, neighbors: usize, expected: &[&[(u32, f32)]]) {
        let lists = lists_of(&ratings, neighbors);
        assert_eq!(lists.n_rows(), expected.len());
        for (row, expected) in expected.iter().enumerate() {
            let (found, similarities) = lists.row(row);
            let indices: Vec<u32> = expected.iter().map(|&(index, _)| index).collect();
            assert_eq!(found, indices, "row {row}");
            for (found, (index, expected)) in similarities.iter().zip(*expected) {
                let message = format!("({row}, {index}): {found}, not {expected}");
                assert!((found - expected).abs() < 1e-6, "{message}");
            }
        }
    }

    let user_lists: [&[(u32, f32)]; 3] = [
        &[(2, 0.816_496_58), (1, 0.062_994_08)],
        &[(2, 0.154_303_35), (0, 0.062_994_08)],
        &[(0, 0.816_496_58), (1, 0.154_303_35)],
    ];
    check(check_matrix(), 50, &user_lists);
    check(check_matrix(), 1, &user_lists.map(|list| &list[..1]));
    check(check_matrix(), 0, &[&[], &[], &[]]);

    // Products over lengths: 8/√(20·5), 8/√(20·6), 6/√(4·9), 2/√(4·6), 3/√(9·6), 5/√(6·5).
    let item_lists: [&[(u32, f32)]; 5] = [
        &[(4, 0.8), (3, 0.730_296_74)],
        &[(2, 1.0), (3, 0.408_248_3)],
        &[(1, 1.0), (3, 0.408_248_3)],
        &[(4, 0.912_870_93), (0, 0.730_296_74), (1, 0.408_248_3), (2, 0.408_248_3)],
        &[(3, 0.912_870_93), (0, 0.8)],
    ];
    check(check_matrix().reversed_axes(), 50, &item_lists);

    check(array![[3.0, 1.0]], 50, &[&[]]);
    check(array![[3.0], [0.0], [1.0]], 50, &[&[(2, 1.0)], &[], &[(0, 1.0)]]);
    check(Array2::zeros((2, 3)), 50, &[&[], &[]]);
    check(Array2::zeros((2, 0)), 50, &[&[], &[]]);
    check(Array2::zeros((0, 3)), 50, &[]);
}

#[test]
fn ties_go_to_the_lower_index_and_equal_rows_are_exactly_1() {
    let row = [0.3, 1.7, 4.9, 0.0, 2.2];
    let ratings = Array2::from_shape_fn((40, 5), |(_, column)| row[column]);
    for neighbors in [1, 3, 7, 19, 20, 39, 50] {
        let lists = lists_of(&ratings, neighbors);
        for a in 0..40 {
            let (found, similarities) = lists.row(a as usize);
            let expected: Vec<u32> = (0..40).filter(|&b| b != a).take(neighbors).collect();
            assert_eq!(found, expected, "row {a}");
            assert!(similarities.iter().all(|&similarity| similarity == 1.0));
        }
    }
}

#[test]
fn a_similarity_that_rounds_to_0_makes_no_neighbor() {
    let ratings = array![[1e-30, 1e30, 0.0], [1e-30, 0.0, 1e30], [1e30, 0.0, 0.0]];
    let lists = lists_of(&ratings, 50);
    assert!(lists.is_empty(), "{lists:?}");
}

#[test]
fn similarities_that_round_far_still_tie() {
    // Row 4 first gets rows 5 and 6, at the smallest f32 above 0, and then row 0, which rounds up to it.
    let mut ratings = Array2::zeros((10, 4));
    ratings.row_mut(4).assign(&array![1.0, 1.0, 1e19, 0.0]);
    ratings.row_mut(5).assign(&array![1.4e-7, 0.0, 0.0, 1e19]);
    ratings.row_mut(6).assign(&array![1.4e-7, 0.0, 0.0, 1e19]);
    ratings.row_mut(0).assign(&array![0.0, 0.8e-7, 0.0, 1e19]);
    let lists = lists_of(&ratings, 1);
    let smallest = f32::from_bits(1);
    assert_eq!(lists.row(4), (&[0][..], &[smallest][..]));
    let expected = reference(&ratings, 1);
    assert_same_bytes(&lists, &expected);
}

/// Returns more rows than a tile has, of very different lengths; values are k / `per_one`, k in 1..=`largest`.
fn big(n_rows: usize, n_columns: usize, largest: u32, per_one: f32) -> Array2<f32> {
    let mut state = 1u32;
    Array2::from_shape_fn((n_rows, n_columns), |(row, column)| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let draw = state >> 8;
        let absent = draw as usize % n_rows > row / (1 + column % 7);
        if absent {
            0.0
        } else {
            (1 + draw / 1_024 % largest) as f32 / per_one
        }
    })
}

#[test]
fn many_tiles_agree_with_the_reference() {
    for (largest, per_one, products) in [(10, 2.0, Products::Integer), (977, 200.0, Products::Real)] {
        let ratings = big(1_300, 40, largest, per_one);
        let rows = sparse(&ratings);
        let expected = reference(&ratings, 20);
        assert_all_paths_agree(&rows, &RowSelection::All, 20, &expected);
        let found = top_k(
            &rows,
            &rows.transpose(),
            RowSelection::All,
            &TopKOptions { neighbors: 20 },
        )
        .unwrap();
        assert_eq!(found.path.products, products);
    }
}

#[test]
fn a_first_threshold_lets_all_of_the_best_pass() {
    // One tile holds rows of one length, and the rows of each half are alike. The nearest rows share no group with one
    // another, nor with the row itself, and no later tile makes up for one that is left out.
    let wholes = big(256, 40, 8, 1.0).mapv(|value| value.max(1.0));
    let ratings = Array2::from_shape_fn(wholes.dim(), |(row, column)| match (row < 128) == (column < 20) {
        true => wholes[[row, column]] + 7.0,
        false => 1.0,
    });
    for ratings in [ratings.clone(), ratings.mapv(f32::sqrt)] {
        for neighbors in [1, 40, 64, 65] {
            let expected = reference(&ratings, neighbors);
            assert_all_paths_agree(&sparse(&ratings), &RowSelection::All, neighbors, &expected);
        }
    }
}

#[test]
fn rows_of_many_columns_agree_with_the_reference() {
    // Every row has 300 entries of 15: more products than 16 bits can sum.
    let ratings = Array2::from_shape_fn((270, 1_200), |(row, column)| match (row * 7 + column * 3) % 4 {
        0 => 15.0,
        1 if row % 5 == 0 => 14.0,
        _ => 0.0,
    });
    let expected = reference(&ratings, 30);
    assert_all_paths_agree(&sparse(&ratings), &RowSelection::All, 30, &expected);
}

#[test]
fn gives_the_same_bytes_on_any_number_of_threads() {
    for (largest, per_one) in [(5, 1.0), (977, 200.0)] {
        let rows = sparse(&big(2_000, 60, largest, per_one));
        let columns = rows.transpose();
        let lists_on = |n_threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads);
            let options = TopKOptions { neighbors: 10 };
            let find = || {
                top_k_by(
                    kernel_config(&small_sizes()),
                    &rows,
                    &columns,
                    RowSelection::All,
                    &options,
                )
            };
            pool.build().unwrap().install(find).unwrap().lists
        };
        let lists = lists_on(1);
        assert_eq!(lists, lists_of_matrix(&rows, 10));
        for n_threads in [2, 3, 8] {
            assert_same_bytes(&lists_on(n_threads), &lists);
        }
    }
}

#[test]
fn steps_that_are_no_power_of_two_are_close_to_the_reference() {
    let ratings = big(300, 30, 15, 10.0);
    let rows = sparse(&ratings);
    let options = TopKOptions { neighbors: 300 };
    let found = top_k(&rows, &rows.transpose(), RowSelection::All, &options).unwrap();
    assert_eq!(found.path.products, Products::Integer);
    let expected = reference(&ratings, 300);
    for row in 0..300 {
        let (neighbors, similarities) = found.lists.row(row);
        let (expected_neighbors, expected_similarities) = expected.row(row);
        assert_eq!(neighbors.len(), expected_neighbors.len());
        for (neighbor, similarity) in neighbors.iter().zip(similarities) {
            let at = expected_neighbors.iter().position(|other| other == neighbor).unwrap();
            assert!(
                (similarity - expected_similarities[at]).abs() < 1e-6,
                "row {row}, neighbor {neighbor}"
            );
        }
    }
}

#[test]
fn arguments_that_do_not_fit_together_are_refused() {
    #[expect(clippy::reversed_empty_ranges, reason = "such a range is what is refused")]
    let backwards = 2..1;
    let rows = sparse(&check_matrix());
    let check = |columns: &CsrMatrix, selection: RowSelection<'_>, message: &str| {
        let error = top_k(&rows, columns, selection, &TopKOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), message);
    };
    let outside = "rows 1..4 do not lie within the 3 rows of the matrix";
    check(&rows.transpose(), RowSelection::Range(1..4), outside);
    let reversed = "rows 2..1 do not lie within the 3 rows of the matrix";
    check(&rows.transpose(), RowSelection::Range(backwards), reversed);
    let outside = "row 3 does not lie within the 3 rows of the matrix";
    check(&rows.transpose(), RowSelection::Rows(&[0, 3]), outside);
    for (selected, previous, row) in [([2, 1], 2, 1), ([1, 1], 1, 1)] {
        let order = format!("row {row} follows row {previous}; selected rows must ascend");
        check(&rows.transpose(), RowSelection::Rows(&selected), &order);
    }
    let same = "the transpose of a matrix of 3 × 5 with 9 entries must be 5 × 3 with 9, is 3 × 5 with 9";
    check(&rows, RowSelection::All, same);
    let fewer = "the transpose of a matrix of 3 × 5 with 9 entries must be 5 × 3 with 9, is 5 × 3 with 0";
    check(&CsrMatrix::empty(5, 3), RowSelection::All, fewer);
}

/// Generates dense ratings of up to 30 × 9, about half of them absent, all of one kind.
fn any_ratings() -> impl Strategy<Value = Array2<f32>> {
    let whole = (1u8..=5).prop_map(f32::from).boxed();
    let half_stars = (1u8..=10).prop_map(|n| f32::from(n) / 2.0).boxed();
    let counts = (1u8..=15).prop_map(|n| f32::from(n) * 4.0).boxed();
    let real = (0.01f32..5.0).boxed();
    let few = (1u8..=2).prop_map(f32::from).boxed();
    let kind = prop::sample::select(vec![whole, half_stars, counts, real, few]);
    (kind, 1usize..31, 1usize..10).prop_flat_map(|(kind, n_rows, n_columns)| {
        let rating = prop_oneof![Just(0.0), kind];
        prop::collection::vec(rating, n_rows * n_columns)
            .prop_map(move |values| Array2::from_shape_vec((n_rows, n_columns), values).unwrap())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn agrees_with_the_dense_reference(ratings in any_ratings(), neighbors in 0usize..32) {
        for ratings in [&ratings, &ratings.t().to_owned()] {
            let lists = lists_of(ratings, neighbors);
            let expected = reference(ratings, neighbors);
            assert_same_bytes(&lists, &expected);
            assert_all_paths_agree(&sparse(ratings), &RowSelection::All, neighbors, &expected);

            let (offsets, indices) = (lists.offsets().to_vec(), lists.neighbors().to_vec());
            let similarities = lists.similarities().to_vec();
            let checked = NeighborLists::new(ratings.nrows(), offsets, indices, similarities);
            prop_assert_eq!(checked, Ok(lists));
        }
    }

    #[test]
    fn a_pair_is_equally_similar_from_both_sides(ratings in any_ratings()) {
        let lists = lists_of(&ratings, ratings.nrows());
        let of = |a: usize, b: u32| {
            let (neighbors, similarities) = lists.row(a);
            let at = neighbors.iter().position(|&neighbor| neighbor == b)?;
            Some(similarities[at].to_bits())
        };
        for a in 0..ratings.nrows() {
            for b in 0..a {
                prop_assert_eq!(of(a, b as u32), of(b, a as u32));
            }
        }
    }

    #[test]
    fn pieces_of_the_range_join_to_the_whole(
        ratings in any_ratings(),
        cuts in prop::collection::vec(0.0f64..=1.0, 0..4),
    ) {
        let rows = sparse(&ratings);
        let columns = rows.transpose();
        let options = TopKOptions { neighbors: 5 };
        let n_rows = rows.n_rows();
        let mut ends: Vec<usize> = cuts.iter().map(|cut| (cut * n_rows as f64) as usize).collect();
        ends.push(n_rows);
        ends.sort_unstable();
        let mut start = 0;
        let mut pieces = Vec::new();
        for end in ends {
            pieces.push(top_k(&rows, &columns, RowSelection::Range(start..end), &options).unwrap().lists);
            start = end;
        }
        let whole = top_k(&rows, &columns, RowSelection::All, &options).unwrap().lists;
        assert_same_bytes(&NeighborLists::concat(pieces), &whole);
    }

    #[test]
    fn selected_rows_get_the_lists_that_all_get(
        ratings in any_ratings(),
        picks in prop::collection::vec(any::<bool>(), 30),
        neighbors in 1usize..8,
    ) {
        let rows = sparse(&ratings);
        let all = lists_of(&ratings, neighbors);
        let selected: Vec<u32> = (0..rows.n_rows() as u32).filter(|&row| picks[row as usize]).collect();
        let mut expected = NeighborLists::of_targets(rows.n_rows());
        for &row in &selected {
            let (indices, similarities) = all.row(row as usize);
            let list = indices.iter().zip(similarities);
            let list: Vec<Neighbor> = list.map(|(&index, &similarity)| Neighbor { index, similarity }).collect();
            expected.push_row(&list);
        }
        assert_all_paths_agree(&rows, &RowSelection::Rows(&selected), neighbors, &expected);
    }
}
