//! Small training inputs for tests.

use chrono::DateTime;

use crate::snapshot::consents::ConsentRecords;
use crate::snapshot::dictionary::{DenseIndex, Dictionary, ItemIndex, UserIndex};
use crate::snapshot::fixture;
use domain::item::ItemFacts;
use domain::time::Timestamp;

use super::input::{OrderEvent, RatingEvent, ReturnEvent, TrainingInput};

/// Returns an input of `m` users u0, u1, … and `n` listed items i0, i1, ….
pub fn input(m: usize, n: usize, ratings: &[RatingEvent], orders: &[OrderEvent]) -> TrainingInput {
    TrainingInput {
        users: ids("u", m),
        items: ids("i", n),
        catalog: fixture::catalog(&vec![ItemFacts::default(); n]),
        ratings: ratings.to_vec(),
        orders: orders.to_vec(),
        coupon_uses: Vec::new(),
        returns: Vec::new(),
        consents: ConsentRecords::default(),
        campaigns: Vec::new(),
        as_of: at(1_000),
    }
}

/// Returns a rating `hour` hours after the epoch.
pub fn rating(user: u32, item: u32, value: f32, hour: u32) -> RatingEvent {
    RatingEvent {
        user: UserIndex(user),
        item: ItemIndex(item),
        value,
        rated_at: at(hour),
    }
}

/// Returns an order `hour` hours after the epoch.
pub fn order(user: u32, item: u32, hour: u32) -> OrderEvent {
    OrderEvent {
        user: UserIndex(user),
        item: ItemIndex(item),
        ordered_at: at(hour),
        quantity: 1,
        total_minor: 100,
        discounted_lines: 0,
    }
}

/// Returns a return of one piece `hour` hours after the epoch, under a document of its own.
pub fn returned(user: u32, item: u32, hour: u32) -> ReturnEvent {
    ReturnEvent {
        user: UserIndex(user),
        item: ItemIndex(item),
        returned_at: at(hour),
        quantity: 1,
        total_minor: -100,
        order: None,
    }
}

/// Returns the instant `hour` hours after the epoch.
pub fn at(hour: u32) -> Timestamp {
    DateTime::UNIX_EPOCH + chrono::Duration::hours(i64::from(hour))
}

fn ids<I: DenseIndex>(prefix: &str, count: usize) -> Dictionary<I> {
    let width = count.saturating_sub(1).to_string().len();
    let ids = (0..count).map(|index| format!("{prefix}{index:0width$}"));
    Dictionary::new(ids.collect()).unwrap()
}
