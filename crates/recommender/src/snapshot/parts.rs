//! The parts of a snapshot: what a part is, and the one list of all of them.
//!
//! # Adding a part
//!
//! 1. Write one file in this folder, like `item_weights.rs`: the plain data, if nothing else has it yet, and an
//!    implementation of `Part`. Its module documentation gives the layout byte by byte.
//! 2. Add one line, with a line that documents it, to the list at the end of this file, and the `mod` of the new file.
//!
//! Encoding, decoding, checking and the field of [`SnapshotParts`] follow from the list. A new part must be optional
//! (`Part::missing` returns something), because a release reads the snapshots of the release before it, which do not
//! have the part. Code that builds a snapshot without it ends its literal with `..SnapshotParts::default()`.
//!
//! # Changing a part
//!
//! A change of the layout raises `Part::VERSION`. `Part::decode` goes on reading the version before, and
//! `Part::OLDEST_VERSION` names it. The name of a part never changes.

use std::collections::BTreeMap;

use ::demand::model::Demand;
use similarity::lists::{NeighborLists, WeightLists};

use super::activity::Activity;
use super::bits::Bits;
use super::catalog::Catalog;
use super::codec::CodecError;
use super::codec::columns::{Reader, Writer};
use super::consents::ConsentRecords;
use super::dictionary::{Dictionary, ItemIndex, Texts, UserIndex};
use super::erased_users::ErasedUsers;
use super::merchant_orders::MerchantOrders;
use super::orders::Orders;
use super::parameters::{BlendWeights, DefaultRanker, TrainingParameters};
use super::propensity::Propensity;
use super::ratings::Ratings;
use super::settings::FittedSettings;
use super::significance::SignificantNeighbors;
use super::{Biases, SnapshotError};

mod activity;
mod biases;
mod catalog;
mod consents;
mod default_ranker;
mod demand;
mod fitted_settings;
mod item_neighbors;
mod item_weights;
mod items;
mod merchant_orders;
mod orders;
mod parameters;
mod propensity;
mod ratings;
mod significant_item_neighbors;
mod user_neighbors;
mod users;
mod weights;

/// Removes erased users from the contents of a part. What is left is as valid as before.
pub(super) type Redact<Contents> = fn(&mut Contents, &ErasedUsers);
/// Returns the external ids of users in the contents of a part.
pub(super) type UserIds<Contents> = fn(&Contents) -> &Texts;

/// One part: how it is named, stored and checked.
pub(super) trait Part {
    /// Identifies the part where it is stored.
    const NAME: &'static str;
    /// The version of the layout that [`encode`](Self::encode) writes, counted from 0.
    const VERSION: u16 = 0;
    /// [`decode`](Self::decode) reads every version from this one to [`VERSION`](Self::VERSION).
    const OLDEST_VERSION: u16 = Self::VERSION;

    /// The part in memory: the part's fields of [`SnapshotParts`], as a tuple where there are several.
    type Contents;

    /// Removes erased users from the contents. `None` for a part that holds nothing about single users: figures about all
    /// of them together stay until the next training.
    const REDACT: Option<Redact<Self::Contents>>;
    /// Returns the external ids of users in the contents; `None` for a part that has none.
    const USER_IDS: Option<UserIds<Self::Contents>> = None;

    /// Whether `parts` hold this part. A part that they do not hold is not stored.
    fn is_present(_parts: &SnapshotParts) -> bool {
        true
    }

    fn encode(parts: &SnapshotParts, to: &mut Writer);

    /// Reads the layout of `version`, which lies within the versions that this part reads.
    ///
    /// # Errors
    /// Names the part, and the field that is wrong. Memory is taken only for entries whose bytes are there.
    fn decode(version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError>;

    /// Stands for the part in a snapshot that does not hold it. `None` for a part without which a snapshot cannot be
    /// served.
    fn missing(_absence: Absence) -> Option<Self::Contents> {
        None
    }

    /// Checks whatever [`decode`](Self::decode) cannot see: numbers, and how the part fits the others.
    ///
    /// # Errors
    /// Names the part whose shape or values do not fit.
    fn validate(_parts: &SnapshotParts) -> Result<(), SnapshotError> {
        Ok(())
    }
}

/// The reason why a snapshot does not hold a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, thiserror::Error)]
pub enum Absence {
    #[default]
    #[error("the snapshot was written without it; train a new snapshot")]
    NotWritten,
    #[error(
        "the snapshot holds it in layout version {version}, which this program does not read; train a new snapshot"
    )]
    UnknownVersion { version: u16 },
}

/// The contents of an optional part, or why the snapshot does not hold it.
#[derive(Debug, Clone, PartialEq)]
pub enum Optional<T> {
    Present(T),
    Missing(Absence),
}

impl<T> Default for Optional<T> {
    fn default() -> Self {
        Self::Missing(Absence::NotWritten)
    }
}

impl<T> Optional<T> {
    /// # Errors
    /// The reason why there is none, for callers of the feature that needs it.
    pub fn get(&self) -> Result<&T, Absence> {
        match self {
            Self::Present(contents) => Ok(contents),
            Self::Missing(absence) => Err(*absence),
        }
    }
}

/// [`Part`] as an entry of [`PARTS`].
pub(super) struct PartEntry {
    pub name: &'static str,
    pub version: u16,
    pub oldest_version: u16,
    pub is_present: fn(&SnapshotParts) -> bool,
    pub encode: fn(&SnapshotParts, &mut Writer),
    pub decode: fn(u16, &mut Reader<'_>) -> Result<Contents, CodecError>,
    pub validate: fn(&SnapshotParts) -> Result<(), SnapshotError>,
    /// Whether the part holds anything about single users.
    pub concerns_users: bool,
    /// Whether the part holds external ids of users.
    pub names_users: bool,
    /// Whether a snapshot can be served without the part.
    pub spare: fn(Absence) -> Result<(), CodecError>,
}

impl PartEntry {
    pub fn find(name: &str) -> Option<&'static Self> {
        PARTS.iter().find(|part| part.name == name)
    }

    pub fn reads(&self, version: u16) -> bool {
        (self.oldest_version..=self.version).contains(&version)
    }
}

/// A part of known name that was stored.
#[derive(Debug)]
pub(super) enum StoredContents {
    Decoded(Box<Contents>),
    /// Decoded, and freed again.
    Checked,
    UnknownVersion(u16),
}

/// Checks that no part is missing without which a snapshot cannot be served.
///
/// # Errors
/// Those of [`assemble`].
pub(super) fn check_complete(stored: &BTreeMap<&'static str, StoredContents>) -> Result<(), CodecError> {
    PARTS.iter().try_for_each(|part| match stored.get(part.name) {
        Some(StoredContents::Decoded(_) | StoredContents::Checked) => Ok(()),
        other => (part.spare)(absence(other)),
    })
}

fn absence(stored: Option<&StoredContents>) -> Absence {
    match stored {
        Some(&StoredContents::UnknownVersion(version)) => Absence::UnknownVersion { version },
        _ => Absence::NotWritten,
    }
}

/// Returns the contents that stand for a part that was not decoded.
fn without<P: Part>(absence: Absence) -> Result<P::Contents, CodecError> {
    P::missing(absence).ok_or_else(|| {
        let part = P::NAME.to_owned();
        match absence {
            Absence::NotWritten => CodecError::Missing { part },
            Absence::UnknownVersion { version } => CodecError::PartVersion {
                part,
                version,
                oldest: P::OLDEST_VERSION,
                newest: P::VERSION,
            },
        }
    })
}

fn check_length(part: &'static str, expected: usize, actual: usize) -> Result<(), SnapshotError> {
    match expected == actual {
        true => Ok(()),
        false => Err(SnapshotError::Shape { part, expected, actual }),
    }
}

/// Makes the struct that holds all parts, the type of one decoded part, [`PARTS`] and [`assemble`] from the list.
macro_rules! parts {
    ($( #[doc = $doc:literal] $module:ident::$Part:ident { $( $field:ident: $Type:ty ),+ } )+) => {
        /// All parts of a snapshot; m users, n items. The default is the snapshot of a shop without anything.
        #[derive(Debug, Clone, PartialEq, Default)]
        pub struct SnapshotParts {
            $( $( #[doc = $doc] pub $field: $Type, )+ )+
        }

        /// The contents of one part.
        #[expect(clippy::enum_variant_names, reason = "the variants are the names in the list")]
        #[derive(Debug)]
        pub(super) enum Contents {
            $( $Part(<$module::$Part as Part>::Contents), )+
        }

        /// Every part that this program knows, in the order in which they are written.
        pub(super) const PARTS: &[PartEntry] = &[
            $( PartEntry {
                name: <$module::$Part as Part>::NAME,
                version: <$module::$Part as Part>::VERSION,
                oldest_version: <$module::$Part as Part>::OLDEST_VERSION,
                is_present: <$module::$Part as Part>::is_present,
                encode: <$module::$Part as Part>::encode,
                decode: |version, from| <$module::$Part as Part>::decode(version, from).map(Contents::$Part),
                validate: <$module::$Part as Part>::validate,
                concerns_users: <$module::$Part as Part>::REDACT.is_some(),
                names_users: <$module::$Part as Part>::USER_IDS.is_some(),
                spare: |absence| without::<$module::$Part>(absence).map(drop),
            }, )+
        ];

        impl Contents {
            /// Removes erased users, as [`Part::REDACT`] says.
            pub fn redact(&mut self, users: &ErasedUsers) {
                match self {
                    $( Self::$Part(contents) => {
                        if let Some(redact) = <$module::$Part as Part>::REDACT {
                            redact(contents, users);
                        }
                    } )+
                }
            }

            /// Returns what [`Part::USER_IDS`] says.
            pub fn user_ids(&self) -> Option<&Texts> {
                match self {
                    $( Self::$Part(contents) => <$module::$Part as Part>::USER_IDS.map(|ids| ids(contents)), )+
                }
            }

            /// Returns parts of which only this one is filled, to encode it.
            #[expect(unused_parens, reason = "most parts have one field, and then the tuple is a name in parentheses")]
            pub fn alone(self) -> SnapshotParts {
                match self {
                    $( Self::$Part(contents) => {
                        let ($( $field ),+) = contents;
                        SnapshotParts { $( $field, )+ ..SnapshotParts::default() }
                    } )+
                }
            }
        }

        /// Joins stored parts, by name. That they fit together is for [`Part::validate`] to check.
        ///
        /// # Errors
        /// Names a part that is missing, or of a version that is not read, and without which no snapshot can be served.
        #[expect(unused_parens, reason = "most parts have one field, and then the tuple is a name in parentheses")]
        pub(super) fn assemble(
            mut stored: BTreeMap<&'static str, StoredContents>,
        ) -> Result<SnapshotParts, CodecError> {
            $(
                let ($( $field ),+) = match stored.remove(<$module::$Part as Part>::NAME) {
                    Some(StoredContents::Decoded(contents)) => match *contents {
                        Contents::$Part(contents) => contents,
                        _ => unreachable!("a part decodes into its own contents"),
                    },
                    other => without::<$module::$Part>(absence(other.as_ref()))?,
                };
            )+
            Ok(SnapshotParts { $( $( $field, )+ )+ })
        }
    };
}

parts! {
    /// The parameters of the training run.
    parameters::ParametersPart { parameters: TrainingParameters }
    /// The fitted weights of the blends.
    weights::WeightsPart { weights: BlendWeights }
    /// The m users with at least one effective rating.
    users::UsersPart { users: Dictionary<UserIndex> }
    /// All n items of the catalog.
    items::ItemsPart { items: Dictionary<ItemIndex> }
    /// The facts of the n items.
    catalog::CatalogPart { catalog: Catalog }
    /// Effective ratings, [m, n], and one bit per entry of them: the user has bought the item.
    ratings::RatingsPart { ratings: Ratings, purchased: Bits }
    /// The biases of the m users and n items.
    biases::BiasesPart { biases: Biases }
    /// The m lists of the most similar users.
    user_neighbors::UserNeighborsPart { user_neighbors: NeighborLists }
    /// The n lists of the most similar items.
    item_neighbors::ItemNeighborsPart { item_neighbors: NeighborLists }
    /// Figures about the activity of the m users.
    activity::ActivityPart { activity: Activity }
    /// The consents on record.
    consents::ConsentsPart { consents: ConsentRecords }
    /// The fitted propensity, or the reason why there is none.
    propensity::PropensityPart { propensity: Propensity }
    /// The n lists of learned weights, which may be below 0.
    item_weights::ItemWeightsPart { item_weights: Optional<WeightLists> }
    /// The ranker of recommendations for which the request names no basis.
    default_ranker::DefaultRankerPart { default_ranker: DefaultRanker }
    /// The fitted settings of ranking scores.
    fitted_settings::FittedSettingsPart { fitted_settings: Optional<FittedSettings> }
    /// How often and how lately items were ordered.
    orders::OrdersPart { orders: Optional<Orders> }
    /// The n lists of the most similar items by shrunk similarity.
    significant_item_neighbors::SignificantItemNeighborsPart { significant_item_neighbors: Optional<SignificantNeighbors> }
    /// The time of each user's last order from each merchant.
    merchant_orders::MerchantOrdersPart { merchant_orders: Optional<MerchantOrders> }
    /// The weekly sales of the n items and what was fitted on them, or the reason why there is nothing.
    demand::DemandPart { demand: Optional<Demand> }
}
