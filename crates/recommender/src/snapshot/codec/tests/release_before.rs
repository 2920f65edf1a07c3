//! The bytes of a snapshot as the release before this one wrote them, kept as files: they must be served.
//!
//! That release wrote format 3 without versions of parts. Its own test had the checksums that
//! `the_bytes_are_those_of_format_3` lists, which are also those at the end of the files.

use crate::ranking::rank::{Personalization, RankOptions, Recipient, Scratch, recommend};
use crate::snapshot::fixture::{user_id, view};

use super::*;

/// The checksum of the snapshot, as the release before stored it.
const CHECKSUM: u128 = 0xfc88_9307_ad17_9880_646b_1655_0f73_348d;

macro_rules! stored {
    ($($name:literal)+) => {
        vec![$( ($name.to_owned(), include_bytes!(concat!("../../../../testdata/format-3/", $name, ".part")).to_vec()) ),+]
    };
}

fn stored_by_the_release_before() -> Stored {
    stored!["parameters" "weights" "users" "items" "catalogue" "ratings" "biases" "user_neighbors" "item_neighbors"
        "activity" "consents" "propensity"]
}

#[test]
fn the_snapshot_of_the_release_before_is_decoded_into_the_same_parts() {
    let parts = decode(stored_by_the_release_before(), &CHECKSUM.to_le_bytes()).unwrap();
    assert_eq!(parts, rich_parts());
}

#[test]
fn the_snapshot_of_the_release_before_is_served() {
    let parts = decode(stored_by_the_release_before(), &CHECKSUM.to_le_bytes()).unwrap();
    let view = view(parts);
    let user = user_id("u1");
    let options = RankOptions {
        limit: 5,
        ..RankOptions::default()
    };
    let answer = recommend(&view, &Recipient::User(&user), &options, &mut Scratch::default());
    assert_eq!(answer.personalization, Personalization::Personalized);
    assert!(!answer.items.is_empty());
    assert!(matches!(view.snapshot.propensity(), Propensity::Fitted(_)));
}
