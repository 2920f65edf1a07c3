use ndarray::{Array2, array};
use proptest::prelude::*;

use super::super::reference::top_k_dense;
use super::*;

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
    let options = TopKOptions { neighbors };
    top_k(&rows, &rows.transpose(), 0..rows.n_rows(), &options).unwrap()
}

/// Equality of lists, of their similarities as bits.
fn assert_same_bytes(left: &NeighborLists, right: &NeighborLists) {
    let bits = |lists: &NeighborLists| -> Vec<u32> { lists.similarities().iter().map(|s| s.to_bits()).collect() };
    assert_eq!(left, right);
    assert_eq!(bits(left), bits(right));
}

/// The check matrix of ARCHITECTURE.md.
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
fn what_rounds_to_0_is_no_neighbor() {
    let ratings = array![[1e-30, 1e30, 0.0], [1e-30, 0.0, 1e30], [1e30, 0.0, 0.0]];
    let lists = lists_of(&ratings, 50);
    assert!(lists.is_empty(), "{lists:?}");
}

#[test]
fn rounding_never_leads_above_1() {
    assert_eq!(pair_similarity(9.000_01, 9.0, 9.0), 1.0);
    assert_eq!(pair_similarity(0.3, 0.3, 0.3), 1.0);
    assert_eq!(pair_similarity(1.0, 2.0, 2.0), 0.5);
}

#[test]
fn the_best_neighbors_need_twice_their_number_of_places() {
    let mut best = BestNeighbors::new(5);
    for index in 0..1_000 {
        // Ever better ones: the order in which the bar rejects nothing.
        let similarity = (index / 2) as f32 / 500.0;
        best.offer(Neighbor { index, similarity });
        assert!(best.candidates.len() <= 10);
    }
    let indices: Vec<u32> = best.sorted().iter().map(|found| found.index).collect();
    assert_eq!(indices, [998, 999, 996, 997, 994]);
}

#[test]
fn similarities_that_round_far_still_tie() {
    // To row 4: rows 5 and 6 first, at the smallest f32 above 0; then row 0, which rounds up to it.
    let mut ratings = Array2::zeros((10, 4));
    ratings.row_mut(4).assign(&array![1.0, 1.0, 1e19, 0.0]);
    ratings.row_mut(5).assign(&array![1.4e-7, 0.0, 0.0, 1e19]);
    ratings.row_mut(6).assign(&array![1.4e-7, 0.0, 0.0, 1e19]);
    ratings.row_mut(0).assign(&array![0.0, 0.8e-7, 0.0, 1e19]);
    let lists = lists_of(&ratings, 1);
    let smallest = f32::from_bits(1);
    assert_eq!(lists.row(4), (&[0][..], &[smallest][..]));
    let expected = top_k_dense(ratings.view(), 0..10, &TopKOptions { neighbors: 1 });
    assert_same_bytes(&lists, &expected);
}

/// Enough rows of real values for many chunks, of very different lengths.
fn big() -> CsrMatrix {
    let mut state = 1u32;
    let ratings = Array2::from_shape_fn((300, 60), |(row, _)| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let draw = state >> 8;
        let absent = draw as usize % 300 > row;
        if absent { 0.0 } else { 0.1 + (draw % 977) as f32 / 200.0 }
    });
    sparse(&ratings)
}

#[test]
fn gives_the_same_bytes_on_any_number_of_threads() {
    let rows = big();
    let columns = rows.transpose();
    let work: Vec<u64> = (0..300).map(|row| multiply_adds(&rows, &columns, row)).collect();
    assert!(chunks_of_similar_work(&work, 0).len() > 16);

    let lists_on = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads);
        let options = TopKOptions { neighbors: 10 };
        let pool = pool.build().unwrap();
        pool.install(|| top_k(&rows, &columns, 0..300, &options).unwrap())
    };
    let lists = lists_on(1);
    assert_same_bytes(&lists_on(2), &lists);
    assert_same_bytes(&lists_on(8), &lists);
}

#[test]
fn chunks_cover_the_range_and_share_the_work() {
    fn check(work: &[u64], expected: &[(usize, usize)]) {
        let chunks = chunks_of_similar_work(work, 5);
        let chunks: Vec<_> = chunks.iter().map(|chunk| (chunk.start, chunk.end)).collect();
        assert_eq!(chunks, expected);
    }
    let half = MIN_CHUNK_WORK / 2;
    check(&[], &[(5, 5)]);
    check(&[1, 1, 1], &[(5, 8)]);
    check(&[half, half, half, half, 1], &[(5, 7), (7, 9), (9, 10)]);
    check(&[half, half, half, half], &[(5, 7), (7, 9)]);
    check(&[1, 1_000 * half, 1], &[(5, 7), (7, 8)]);
    let many = chunks_of_similar_work(&[half; 5_000], 0);
    assert!(many.len() as u64 <= MAX_CHUNKS);
}

#[test]
fn refuses_what_does_not_fit_together() {
    #[expect(clippy::reversed_empty_ranges, reason = "such a range is what is refused")]
    let backwards = 2..1;
    let rows = sparse(&check_matrix());
    let check = |columns: &CsrMatrix, range: Range<usize>, message: &str| {
        let error = top_k(&rows, columns, range, &TopKOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), message);
    };
    let outside = "rows 1..4 do not lie within the 3 rows of the matrix";
    check(&rows.transpose(), 1..4, outside);
    let reversed = "rows 2..1 do not lie within the 3 rows of the matrix";
    check(&rows.transpose(), backwards, reversed);
    let same = "a matrix of 3 × 5 with 9 entries has no transpose of 3 × 5 with 9";
    check(&rows, 0..3, same);
    let fewer = "a matrix of 3 × 5 with 9 entries has no transpose of 5 × 3 with 0";
    check(&CsrMatrix::empty(5, 3), 0..3, fewer);
}

/// Dense ratings of up to 14 × 9, about half of them absent, all of one kind.
fn any_ratings() -> impl Strategy<Value = Array2<f32>> {
    let whole = (1u8..=5).prop_map(f32::from).boxed();
    let half_stars = (1u8..=10).prop_map(|n| f32::from(n) / 2.0).boxed();
    let real = (0.01f32..5.0).boxed();
    let few = (1u8..=2).prop_map(f32::from).boxed();
    let kind = prop::sample::select(vec![whole, half_stars, real, few]);
    (kind, 1usize..15, 1usize..10).prop_flat_map(|(kind, n_rows, n_columns)| {
        let rating = prop_oneof![Just(0.0), kind];
        prop::collection::vec(rating, n_rows * n_columns)
            .prop_map(move |values| Array2::from_shape_vec((n_rows, n_columns), values).unwrap())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn agrees_with_the_dense_reference(ratings in any_ratings(), neighbors in 0usize..16) {
        let options = TopKOptions { neighbors };
        for ratings in [&ratings, &ratings.t().to_owned()] {
            let lists = lists_of(ratings, neighbors);
            let expected = top_k_dense(ratings.view(), 0..ratings.nrows(), &options);
            assert_same_bytes(&lists, &expected);

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
            pieces.push(top_k(&rows, &columns, start..end, &options).unwrap());
            start = end;
        }
        let whole = top_k(&rows, &columns, 0..n_rows, &options).unwrap();
        assert_same_bytes(&NeighborLists::concat(pieces), &whole);
    }
}
