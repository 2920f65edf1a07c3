use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn sample() -> CsrMatrix {
    CsrMatrix::new(5, vec![0, 2, 2, 3], vec![1, 4, 0], vec![1.5, f32::MIN_POSITIVE, 3.0]).unwrap()
}

#[test]
fn entries_are_read_as_given() {
    let matrix = sample();
    assert_eq!((matrix.n_rows(), matrix.n_columns(), matrix.nnz()), (3, 5, 3));
    assert_eq!(matrix.row(0), (&[1, 4][..], &[1.5, f32::MIN_POSITIVE][..]));
    assert_eq!(matrix.row(1), (&[][..], &[][..]));
    assert_eq!(matrix.row_range(2), 2..3);
    assert_eq!(matrix.get(0, 1), Some(1.5));
    assert_eq!(matrix.get(0, 2), None);
    assert_eq!(matrix.get(1, 0), None);
    assert_eq!(matrix.offsets(), [0, 2, 2, 3]);
    assert_eq!(matrix.columns(), [1, 4, 0]);
    assert_eq!(matrix.values(), [1.5, f32::MIN_POSITIVE, 3.0]);
}

#[test]
fn transpose_swaps_rows_and_columns() {
    let columns = sample().transpose();
    assert_eq!((columns.n_rows(), columns.n_columns()), (5, 3));
    assert_eq!(columns.offsets(), [0, 1, 2, 2, 2, 3]);
    assert_eq!(columns.columns(), [2, 0, 0]);
    assert_eq!(columns.values(), [3.0, 1.5, f32::MIN_POSITIVE]);
}

#[test]
fn empty_matrices_keep_their_shape() {
    for (n_rows, n_columns) in [(0, 0), (0, 3), (3, 0), (2, 3)] {
        let matrix = CsrMatrix::empty(n_rows, n_columns);
        let built = CsrMatrix::from_triplets(n_rows, n_columns, Vec::new());
        assert_eq!(built, Ok(matrix.clone()));
        assert_eq!((matrix.n_rows(), matrix.n_columns()), (n_rows, n_columns));
        assert_eq!(matrix.transpose(), CsrMatrix::empty(n_columns, n_rows));
    }
}

#[test]
fn arrays_that_break_an_invariant_are_refused() {
    fn check(offsets: &[u64], columns: &[u32], values: &[f32], message: &str) {
        let matrix = CsrMatrix::new(3, offsets.to_vec(), columns.to_vec(), values.to_vec());
        assert_eq!(matrix.unwrap_err().to_string(), message);
    }
    check(
        &[],
        &[],
        &[],
        "offsets are empty; there must be one more than there are rows",
    );
    check(&[1, 1], &[0], &[1.0], "offsets start at 1; they must start at 0");
    check(
        &[0, 2, 1],
        &[0],
        &[1.0],
        "offsets decrease from 2 to 1 at row 1; they must not decrease",
    );
    check(
        &[0, 2],
        &[0],
        &[1.0],
        "offsets end at 2; they must end at 1, the number of entries",
    );
    check(
        &[0, 1],
        &[0],
        &[],
        "there are 1 column or neighbor indices, but 0 values; there must be as many",
    );
    check(
        &[0, 0, 1],
        &[3],
        &[1.0],
        "entry (row 1, column 3) lies outside of 3 columns",
    );
    check(
        &[0, 0, 2],
        &[1, 0],
        &[1.0, 1.0],
        "row 1: column 0 follows column 1; columns must ascend",
    );
    check(
        &[0, 2],
        &[2, 2],
        &[1.0, 1.0],
        "entry (row 0, column 2) is given twice; it must be given once",
    );
    for value in [f32::NAN, f32::INFINITY, 0.0, -1.0] {
        let message = format!("entry (row 1, column 2) is {value}; it must be finite and above 0");
        check(&[0, 1, 2], &[2, 2], &[1.0, value], &message);
    }
}

#[test]
fn more_rows_than_indices_are_refused() {
    assert_eq!(check_row_count(u32::MAX as usize), Ok(()));
    let n_rows = u32::MAX as usize + 1;
    let error = check_row_count(n_rows);
    assert_eq!(error, Err(SparseError::TooManyRows { n_rows }));
}

#[test]
fn triplets_that_form_no_matrix_are_refused() {
    fn check(triplets: &[(u32, u32, f32)], message: &str) {
        let matrix = CsrMatrix::from_triplets(2, 3, triplets.to_vec());
        assert_eq!(matrix.unwrap_err().to_string(), message);
    }
    check(&[(2, 0, 1.0)], "entry (row 2, column 0) lies outside of 2 rows");
    check(&[(1, 3, 1.0)], "entry (row 1, column 3) lies outside of 3 columns");
    check(
        &[(1, 2, 1.0), (0, 0, 1.0), (1, 2, 2.0)],
        "entry (row 1, column 2) is given twice; it must be given once",
    );
    check(
        &[(1, 2, 0.0)],
        "entry (row 1, column 2) is 0; it must be finite and above 0",
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn triplets_in_any_order_make_the_same_matrix(
        (entries, shuffled) in prop::collection::btree_map((0u32..7, 0u32..9), 0.1f32..5.0, 0..40)
            .prop_flat_map(|entries| {
                let triplets: Vec<_> = entries.iter().map(|(&(r, c), &v)| (r, c, v)).collect();
                (Just(entries), Just(triplets).prop_shuffle())
            })
    ) {
        let matrix = CsrMatrix::from_triplets(7, 9, shuffled).unwrap();
        let read: BTreeMap<(u32, u32), f32> = (0..7u32)
            .flat_map(|row| (0..9u32).map(move |column| (row, column)))
            .filter_map(|(row, column)| Some(((row, column), matrix.get(row as usize, column)?)))
            .collect();
        prop_assert_eq!(read, entries);

        let columns = matrix.transpose();
        for row in 0..7u32 {
            for column in 0..9u32 {
                prop_assert_eq!(columns.get(column as usize, row), matrix.get(row as usize, column));
            }
        }
        let (offsets, indices, values) = (columns.offsets(), columns.columns(), columns.values());
        let checked = CsrMatrix::new(7, offsets.to_vec(), indices.to_vec(), values.to_vec());
        prop_assert_eq!(checked.as_ref(), Ok(&columns));
        prop_assert_eq!(columns.transpose(), matrix);
    }
}
