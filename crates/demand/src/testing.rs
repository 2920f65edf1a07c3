//! Series and histories for tests.

use proptest::prelude::*;

use super::history::{Sale, SalesHistory};

#[track_caller]
pub fn assert_near(actual: f64, expected: f64, tolerance: f64) {
    assert!((actual - expected).abs() <= tolerance, "{actual} is not {expected}");
}

/// Weekly units of all kinds: none, few, many, huge.
pub fn any_units() -> impl Strategy<Value = Vec<f64>> {
    let unit = prop_oneof![
        4 => Just(0.0),
        4 => (0u32..20).prop_map(f64::from),
        1 => (0u32..2_000_000_000).prop_map(f64::from),
    ];
    prop::collection::vec(unit, 1..80)
}

/// A history in which each item sold `units[item][week]` in one line a week.
pub fn history(units: &[Vec<f64>]) -> SalesHistory {
    let n_weeks = units.iter().map(Vec::len).max().unwrap_or(0);
    let mut sales = Vec::new();
    for (item, weeks) in units.iter().enumerate() {
        for (week, &quantity) in weeks.iter().enumerate().filter(|(_, quantity)| **quantity > 0.0) {
            sales.push(Sale {
                item: item as u32,
                week: week as u16,
                quantity: quantity as f32,
            });
        }
    }
    SalesHistory::new(units.len(), n_weeks, &sales, &[], Vec::new()).unwrap()
}
