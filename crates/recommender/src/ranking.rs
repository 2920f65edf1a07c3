//! Ranks items for a user, and users for an item, and explains the scores.
//!
//! A ranking score ([`rank`]) is a weighted sum, while a predicted rating ([`prediction`](crate::prediction)) is a weighted
//! mean on the rating scale. The two are never mixed: ranking by the predicted rating is a known failure, because it favors
//! items with one enthusiastic neighbor.

pub mod adjust;
pub mod audience;
pub mod explain;
pub mod filter;
pub(crate) mod kernel;
pub mod popular;
pub mod rank;
pub mod rankers;
pub(crate) mod shopper;
pub mod similar;
#[cfg(any(test, feature = "test-support"))]
pub mod testing;

/// The kind of similarity that an answer rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Basis {
    /// Users similar to this one.
    UserBased,
    /// Items similar to those of the user's history.
    ItemBased,
    /// Both, weighted as fitted at training.
    #[default]
    Blended,
}

impl Basis {
    pub(crate) fn has_users(self) -> bool {
        matches!(self, Self::UserBased | Self::Blended)
    }

    pub(crate) fn has_items(self) -> bool {
        matches!(self, Self::ItemBased | Self::Blended)
    }
}
