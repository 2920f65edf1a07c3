//! What a model is trained on.

use crate::domain::time::Timestamp;
use crate::model::catalogue::Catalogue;
use crate::model::dictionary::{Dictionary, ItemIndex, UserIndex};

/// Everything the trainer has read. m users, n items.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingInput {
    /// All users, also those without a rating or a purchase.
    pub users: Dictionary<UserIndex>,
    /// All items of the catalogue.
    pub items: Dictionary<ItemIndex>,
    /// n entries.
    pub catalogue: Catalogue,
    /// At most one a (user, item), in any order.
    pub ratings: Vec<RatingEvent>,
    /// One for each distinct order of a (user, item) with a net quantity above 0, in any order.
    pub orders: Vec<OrderEvent>,
}

/// An explicit rating.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RatingEvent {
    pub user: UserIndex,
    pub item: ItemIndex,
    /// Within the rating scale.
    pub value: f32,
    pub rated_at: Timestamp,
}

/// An order that holds the item, after all returns that are known now: one that was returned later is not seen by the part
/// of an evaluation that comes before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OrderEvent {
    pub user: UserIndex,
    pub item: ItemIndex,
    pub ordered_at: Timestamp,
}
