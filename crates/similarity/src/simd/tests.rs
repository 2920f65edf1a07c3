use proptest::prelude::*;

use super::*;

/// Returns the sets of this processor other than the portable one.
fn faster_sets() -> Vec<InstructionSet> {
    let mut sets = InstructionSet::available();
    assert_eq!(sets.pop(), Some(InstructionSet::Portable));
    sets
}

/// Returns a linear congruential generator of numbers below its argument.
fn draws(seed: u32) -> impl FnMut(u32) -> u32 {
    let mut state = seed;
    move |n| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % n
    }
}

#[test]
fn every_lane_has_its_own_byte() {
    let mut bytes: Vec<usize> = (0..1024).map(byte_of_lane).collect();
    assert_eq!(bytes[..3], [0, 1, 2]);
    assert_eq!(
        (bytes[8], bytes[31], bytes[32], bytes[40], bytes[64]),
        (16, 55, 8, 24, 64)
    );
    bytes.sort_unstable();
    assert_eq!(bytes, (0..1024).collect::<Vec<_>>());
}

#[test]
fn integer_products_equal_plain_sums() {
    fn check(n_columns: u32, width: usize, n_lanes: usize, largest: u32) {
        let mut draw = draws(n_columns);
        let values: Vec<Vec<u32>> = (0..n_columns)
            .map(|_| (0..width).map(|_| draw(largest + 1).max(draw(largest + 1))).collect())
            .collect();
        let mut block = vec![0; n_columns as usize * width];
        for (column, values) in block.chunks_exact_mut(width).zip(&values) {
            for (lane, &value) in values.iter().enumerate() {
                column[byte_of_lane(lane)] = value as u8;
            }
        }
        let first = 3;
        let factors: Vec<u32> = (0..n_columns)
            .map(|column| (first + column) << 4 | draw(largest + 1))
            .collect();
        let before: Vec<u32> = (0..width).map(|_| draw(1_000)).collect();
        for set in InstructionSet::available() {
            let mut dots = before.clone();
            let block = Block {
                cells: &block,
                first: first as usize,
            };
            add_integer_products(set, block, &factors, &mut dots, n_lanes);
            for lane in 0..n_lanes {
                let products = factors
                    .iter()
                    .zip(&values)
                    .map(|(factor, values)| (factor & 15) * values[lane]);
                assert_eq!(dots[lane], before[lane] + products.sum::<u32>(), "{set:?}, lane {lane}");
            }
        }
    }
    check(0, 256, 256, 15);
    check(1, 256, 256, 15);
    check(2, 256, 256, 15);
    check(2, 512, 1, 5);
    check(9, 768, 500, 10);
    // These are more pairs than 16 bits can sum.
    check(291, 256, 256, 15);
    check(600, 512, 512, 15);
}

#[test]
fn real_products_equal_plain_sums_bit_by_bit() {
    fn check(n_columns: u32, width: usize, n_lanes: usize) {
        let mut draw = draws(n_columns + 7);
        let mut value = || draw(1 << 20) as f32 / 999.0;
        let cells: Vec<f32> = (0..n_columns as usize * width)
            .map(|_| (value() - 300.0).max(0.0))
            .collect();
        let (first, factors) = (3u32, (0..n_columns).map(|_| value()).collect::<Vec<_>>());
        let entries = (first..).zip(&factors);
        let entries: Vec<u64> = entries
            .map(|(place, factor)| u64::from(place) << 32 | u64::from(factor.to_bits()))
            .collect();
        let before: Vec<f64> = (0..width).map(|_| f64::from(value()) / 3.0).collect();
        let block = Block {
            cells: &cells,
            first: first as usize,
        };
        for set in InstructionSet::available() {
            let mut dots = before.clone();
            add_real_products(set, block, &entries, &mut dots, n_lanes);
            for lane in 0..width {
                let mut expected = before[lane];
                if lane < n_lanes.next_multiple_of(LANES) {
                    for (factor, column) in factors.iter().zip(cells.chunks_exact(width)) {
                        expected += f64::from(*factor) * f64::from(column[lane]);
                    }
                }
                assert_eq!(dots[lane].to_bits(), expected.to_bits(), "{set:?}, lane {lane}");
            }
        }
    }
    check(0, 256, 256);
    check(1, 256, 256);
    check(2, 512, 1);
    check(9, 768, 500);
    check(40, 256, 256);
}

#[test]
#[should_panic(expected = "outside of the block")]
fn a_column_past_a_real_block_is_refused() {
    let block = Block {
        cells: &[0.0; 256],
        first: 0,
    };
    add_real_products(InstructionSet::detect(), block, &[0, 1 << 32], &mut [0.0; 256], 256);
}

#[test]
#[should_panic(expected = "not whole lanes")]
fn more_lanes_than_real_sums_are_refused() {
    let block = Block {
        cells: &[0.0; 256],
        first: 0,
    };
    add_real_products(InstructionSet::detect(), block, &[0], &mut [0.0; 256], 257);
}

#[test]
fn the_largest_integer_sums_fit() {
    let block = vec![15; 256 * 290];
    let factors: Vec<u32> = (0..290).map(|place| place << 4 | 15).collect();
    for set in InstructionSet::available() {
        let mut dots = vec![u32::MAX - 290 * 225; 256];
        add_integer_products(
            set,
            Block {
                cells: &block,
                first: 0,
            },
            &factors,
            &mut dots,
            256,
        );
        assert!(dots.iter().all(|&dot| dot == u32::MAX), "{set:?}");
    }
}

fn add_to_one_column(first: usize, entries: &[u32], n_lanes: usize) {
    let block = Block {
        cells: &[0; 256],
        first,
    };
    add_integer_products(InstructionSet::detect(), block, entries, &mut [0; 256], n_lanes);
}

#[test]
#[should_panic(expected = "outside of the block")]
fn a_column_past_the_block_is_refused() {
    add_to_one_column(0, &[1, 1 << 4], 256);
}

#[test]
#[should_panic(expected = "outside of the block")]
fn a_column_before_the_block_is_refused() {
    add_to_one_column(1, &[1], 256);
}

#[test]
#[should_panic(expected = "not whole lanes")]
fn more_lanes_than_sums_are_refused() {
    add_to_one_column(0, &[1], 257);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn all_sets_find_the_same_candidates(n_lanes in 0usize..300, seed in any::<u32>(), threshold in 0.0f32..1.0) {
        let mut draw = draws(seed);
        let dots: Vec<u32> = (0..n_lanes).map(|_| if draw(3) == 0 { 0 } else { draw(1 << 24) * draw(256) }).collect();
        let norms: Vec<f32> = (0..n_lanes).map(|_| draw(100_000) as f32).collect();
        let scaled_thresholds: Vec<f32> =
            (0..n_lanes).map(|_| [0.0, f32::INFINITY, draw(50_000) as f32][draw(3) as usize]).collect();
        let cutoff = Cutoff { norm: 40_000.0, threshold, norms: &norms, scaled_thresholds: &scaled_thresholds };
        let least = |lane: usize| cutoff.norm * (threshold * norms[lane]).min(scaled_thresholds[lane]);
        let expected: Vec<u16> = (0..n_lanes)
            .filter(|&lane| dots[lane] > 0 && dots[lane] as f32 >= least(lane))
            .map(|lane| lane as u16)
            .collect();
        for set in InstructionSet::available() {
            let mut found = Vec::new();
            find_integer_candidates(set, &dots, cutoff, &mut found);
            prop_assert_eq!(&found, &expected, "{:?}", set);
        }

        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&value| f64::from(value)).collect() };
        let (real_norms, real_thresholds) = (wide(&norms), wide(&scaled_thresholds));
        let real_dots: Vec<f64> = dots.iter().map(|&dot| f64::from(dot) / 3.0).collect();
        let cutoff = Cutoff {
            norm: 13_333.3,
            threshold: f64::from(threshold),
            norms: &real_norms,
            scaled_thresholds: &real_thresholds,
        };
        let mut expected = Vec::new();
        find_real_candidates_portable(&real_dots, cutoff, &mut expected);
        for set in faster_sets() {
            let mut found = Vec::new();
            find_real_candidates(set, &real_dots, cutoff, &mut found);
            prop_assert_eq!(&found, &expected, "{:?}", set);
        }
    }
}
