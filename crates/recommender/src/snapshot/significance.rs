//! The item lists that rank: similarities shrunk where they rest on few co-raters.

use similarity::significance::SignificantLists;

/// Lists of n items over n items, with the shrinkage that they were made with.
#[derive(Debug, Clone, PartialEq)]
pub struct SignificantNeighbors {
    /// s: a similarity that rests on s co-raters counts half.
    pub shrinkage: f64,
    pub neighbors: SignificantLists,
}
