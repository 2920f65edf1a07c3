//! The part `ratings`:
//!
//! | column | contents |
//! |---|---|
//! | integers, n | all items by popularity: those with most ratings first, ties by index. The position of an item is its rank |
//! | lengths, m | how many ratings each user has |
//! | integers | the ranks of the rated items, user by user, strictly ascending for one user |
//! | floats | the effective ratings |
//! | bits | whether the user has bought the item |

use super::{Part, Reader, Redact, SnapshotParts, Writer, check_length};
use crate::snapshot::SnapshotError;
use crate::snapshot::bits::Bits;
use crate::snapshot::codec::CodecError;
use crate::snapshot::ratings::{RankSlice, Ranks, Ratings, RatingsError};

pub(in crate::snapshot) struct RatingsPart;

impl Part for RatingsPart {
    const NAME: &'static str = "ratings";

    type Contents = (Ratings, Bits);

    const REDACT: Option<Redact<Self::Contents>> = Some(|(ratings, purchased), erased| {
        (*ratings, *purchased) = ratings.without(erased, purchased);
    });

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        let ratings = &parts.ratings;
        to.integers(ratings.popularity().items().iter().map(|item| u64::from(item.0)));
        to.lengths(ratings.offsets());
        match ratings.ranks() {
            RankSlice::Narrow(ranks) => to.integers(ranks.iter().map(|&rank| u64::from(rank))),
            RankSlice::Wide(ranks) => to.integers(ranks.iter().map(|&rank| u64::from(rank))),
        }
        to.packed_floats(ratings.values());
        to.bits(&parts.purchased);
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        let by_popularity = from.u32s("items by popularity")?;
        let offsets = from.offsets("lengths")?;
        let ranks = match Ranks::are_narrow(by_popularity.len()) {
            true => Ranks::Narrow(from.u16s("ranks")?),
            false => Ranks::Wide(from.u32s("ranks")?),
        };
        let values = from.floats("values")?;
        let purchased = from.bits("purchased")?;
        match Ratings::new(by_popularity, offsets, ranks, values) {
            Ok(ratings) => Ok((ratings, purchased)),
            Err(RatingsError::Sparse(source)) => Err(from.inconsistent(source)),
            Err(RatingsError::Popularity) => Err(from.invalid(
                "items by popularity",
                "are not all items, most ratings first, equals in order",
            )),
        }
    }

    fn validate(parts: &SnapshotParts) -> Result<(), SnapshotError> {
        check_length("ratings (rows)", parts.users.len(), parts.ratings.n_users())?;
        check_length("ratings (columns)", parts.items.len(), parts.ratings.n_items())?;
        check_length("purchased", parts.ratings.nnz(), parts.purchased.len())
    }
}
