//! The bytes of a snapshot.
//!
//! A snapshot is stored as twelve named parts. All numbers are little-endian; nothing is aligned; "n × 4" is n times 4
//! bytes. A part is
//!
//! | bytes | |
//! |---|---|
//! | 8 | magic: `likemind` in ASCII |
//! | 4 | format version, unsigned: 3 |
//! | 8 | length of the part in bytes, from the magic through the checksum, unsigned |
//! | … | contents |
//! | 16 | checksum: XXH3-128 of the part's name, a byte 0, and all bytes of the part before the checksum |
//!
//! The checksum of the snapshot is the XXH3-128 of, for every part in byte order of the names: the name, a byte 0, the
//! part's checksum. The name of a part is not among its bytes: whoever stores them keeps it.
//!
//! # Columns
//!
//! Contents are made of columns, each of which begins with the number n of its entries (8, unsigned):
//!
//! | column | bytes after the number of entries |
//! |---|---|
//! | integers | width w (1): 1, 2, 3, 4 or 8, the least that holds every entry; n × w, unsigned |
//! | lengths | integers: entry i is `offsets[i + 1] - offsets[i]`; offsets begin at 0 |
//! | floats | number d of distinct values (2); where that is 0, n × 4, IEEE 754 binary32; else d × 4, the distinct values in ascending order of their bits read as an unsigned integer, d ≤ 256, then n × 1, the position of each entry's value among them. d is 0 when that is the shorter, or there are more than 256 |
//! | doubles | n × 8, IEEE 754 binary64 |
//! | bits | ⌈n / 64⌉ × 8: entry i is bit i mod 64, counted from the least significant, of word ⌊i / 64⌋; bits past n are 0 |
//! | texts | as lengths: width (1) and n × w, the lengths in bytes; then all texts in UTF-8, one after the other |
//! | currencies | n × 3, ISO 4217 in ASCII |
//!
//! # Parts
//!
//! m users, n items; a user's or item's index is its position in the part `users` or `items`.
//!
//! | part | contents |
//! |---|---|
//! | `parameters` | [`TrainingParameters`] as JSON |
//! | `weights` | doubles, 4: weighted sum, weighted mean, baseline, ranking |
//! | `users` | texts, m: the ids, strictly ascending byte by byte |
//! | `items` | texts, n: the ids, strictly ascending byte by byte |
//! | `catalogue` | texts, n: titles, empty for none · texts: categories, strictly ascending · texts: merchants, strictly ascending · currencies, strictly ascending · integers, n: category, merchant and currency of every item, in three columns, each 1 + position, 0 for none · integers, n: price in minor units, two's complement in 64 bits · bits, n: listed |
//! | `ratings` | integers, n: items by popularity, those with most ratings first, ties by index; an item's rank is its position here · lengths, m: ratings of every user · integers: ranks of the items, strictly ascending for one user · floats: effective ratings · bits: purchased |
//! | `biases` | doubles, 1: the mean · floats, m: of the users · floats, n: of the items |
//! | `user_neighbors` | m (8) · lengths, m: neighbors of every user · integers: neighbors, best first · floats: similarities |
//! | `item_neighbors` | n (8) · the same for items |
//! | `activity` | when the input was read, seconds since 1970, two's complement (8) · integers, m, in six columns: orders · spend in minor units, two's complement in 64 bits · last order, seconds since 1970, two's complement in 64 bits · lines with a coupon's discount · redemptions · campaigns |
//! | `consents` | texts, k: ids, strictly ascending · integers, k: [`Consents`] as bits |
//! | `propensity` | [`Propensity`] as JSON |
//!
//! Indices below 65,536 therefore take 2 bytes and below 16,777,216 take 3, so that a neighbor is stored in 6 or 7, and
//! a rating on a scale of few steps in 3 or 4.
//!
//! # Changes
//!
//! A change of a layout raises the format version. [`TrainingParameters`] may grow without: a field that bytes do not
//! have reads as its serde default, which therefore must mean what was done before there was the field. A field that
//! the program does not know is an error, so an older program refuses what it would misread. A number in JSON comes
//! back exactly with up to 15 significant digits, which is what people write; what is fitted is kept in binary.
//!
//! Whatever the bytes are, decoding allocates in proportion to their length: a column is known to be there before
//! memory is taken for it.

use std::collections::BTreeMap;
use std::iter;

use rayon::prelude::*;
use xxhash_rust::xxh3::Xxh3;

use domain::consent::Consents;
use domain::money::Currency;
use similarity::lists::NeighborLists;
use similarity::sparse::SparseError;

use self::columns::{Reader, Writer};
use super::activity::Activity;
use super::bits::Bits;
use super::catalog::Catalog;
use super::consents::ConsentRecords;
use super::dictionary::{DenseIndex, Dictionary, ItemIndex, UserIndex};
use super::parameters::{BlendWeights, TrainingParameters};
use super::propensity::Propensity;
use super::ratings::{RankSlice, Ranks, Ratings, RatingsError};
use crate::snapshot::{Biases, SnapshotParts};

mod columns;
mod huge_pages;
#[cfg(test)]
mod tests;

/// The layout that is written, and the only one that is read.
pub const FORMAT_VERSION: u32 = 3;

const MAGIC: [u8; 8] = *b"likemind";
const LENGTH_AT: usize = MAGIC.len() + size_of::<u32>();
const CHECKSUM_BYTES: usize = 16;

const PARAMETERS: &str = "parameters";
const WEIGHTS: &str = "weights";
const USERS: &str = "users";
const ITEMS: &str = "items";
/// Spelled as stored snapshots have it.
const CATALOG: &str = "catalogue";
const RATINGS: &str = "ratings";
const BIASES: &str = "biases";
const USER_NEIGHBORS: &str = "user_neighbors";
const ITEM_NEIGHBORS: &str = "item_neighbors";
const ACTIVITY: &str = "activity";
const CONSENTS: &str = "consents";
const PROPENSITY: &str = "propensity";

/// One part, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPart {
    pub name: &'static str,
    pub bytes: Vec<u8>,
}

/// Why bytes are no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("part {part} is missing")]
    Missing { part: &'static str },
    #[error("part {part} is not known")]
    Unknown { part: String },
    #[error("part {part} is given twice")]
    Duplicate { part: String },
    #[error("part {part} does not begin like a part of a snapshot")]
    Magic { part: &'static str },
    #[error("part {part} has format version {version}, but this program reads {FORMAT_VERSION}")]
    Version { part: &'static str, version: u32 },
    #[error("part {part} has {actual} bytes, but {written} were written")]
    Length {
        part: &'static str,
        written: u64,
        actual: u64,
    },
    #[error("part {part} is damaged: its bytes do not match its checksum")]
    Checksum { part: &'static str },
    #[error("every part is intact, but they are not those that were written together")]
    Exchanged,
    #[error("part {part} ends before the end of its {field}")]
    Ended { part: &'static str, field: &'static str },
    #[error("part {part} goes on for {n_bytes} bytes after its last field")]
    Surplus { part: &'static str, n_bytes: usize },
    #[error("part {part}: {field} {problem}")]
    Field {
        part: &'static str,
        field: &'static str,
        problem: &'static str,
    },
    #[error("part catalogue: {problem}")]
    Catalog { problem: &'static str },
    #[error("part {part}: {source}")]
    Sparse { part: &'static str, source: SparseError },
    #[error("part {part}: {source}")]
    Json {
        part: &'static str,
        source: serde_json::Error,
    },
}

/// The checksum of a snapshot, fed part by part in any order.
#[derive(Debug, Clone, Default)]
pub struct Checksum {
    parts: BTreeMap<String, [u8; CHECKSUM_BYTES]>,
}

impl Checksum {
    /// `bytes`: all of an encoded part. Only the checksum at their end is looked at.
    pub fn add(&mut self, name: &str, bytes: &[u8]) {
        let checksum = bytes.last_chunk().copied().unwrap_or_default();
        self.parts.insert(name.to_owned(), checksum);
    }

    pub fn finish(&self) -> [u8; CHECKSUM_BYTES] {
        let mut hasher = Xxh3::new();
        for (name, checksum) in &self.parts {
            hasher.update(name.as_bytes());
            hasher.update(&[0]);
            hasher.update(checksum);
        }
        hasher.digest128().to_le_bytes()
    }
}

/// The parts of a validated snapshot, each encoded when it is asked for. Equal snapshots have equal bytes.
pub fn encode(parts: &SnapshotParts) -> impl Iterator<Item = EncodedPart> {
    type Write = fn(&SnapshotParts, &mut Writer);
    let contents: [(&'static str, Write); 12] = [
        (PARAMETERS, |parts, to| write_parameters(&parts.parameters, to)),
        (WEIGHTS, |parts, to| to.doubles(&parts.weights.all())),
        (USERS, |parts, to| to.texts(parts.users.texts())),
        (ITEMS, |parts, to| to.texts(parts.items.texts())),
        (CATALOG, |parts, to| write_catalog(&parts.catalog, to)),
        (RATINGS, |parts, to| write_ratings(&parts.ratings, &parts.purchased, to)),
        (BIASES, |parts, to| write_biases(&parts.biases, to)),
        (USER_NEIGHBORS, |parts, to| write_neighbors(&parts.user_neighbors, to)),
        (ITEM_NEIGHBORS, |parts, to| write_neighbors(&parts.item_neighbors, to)),
        (ACTIVITY, |parts, to| write_activity(&parts.activity, to)),
        (CONSENTS, |parts, to| write_consents(&parts.consents, to)),
        (PROPENSITY, |parts, to| write_propensity(&parts.propensity, to)),
    ];
    contents.into_iter().map(|(name, write)| {
        let mut writer = Writer::new(header());
        write(parts, &mut writer);
        EncodedPart {
            name,
            bytes: seal(name, writer.into_bytes()),
        }
    })
}

/// One part, decoded: valid by itself.
#[derive(Debug)]
pub struct DecodedPart {
    name: &'static str,
    checksum: [u8; CHECKSUM_BYTES],
    contents: Contents,
}

#[derive(Debug)]
enum Contents {
    Parameters(TrainingParameters),
    Weights(BlendWeights),
    Users(Dictionary<UserIndex>),
    Items(Dictionary<ItemIndex>),
    Catalog(Catalog),
    Ratings(Ratings, Bits),
    Biases(Biases),
    UserNeighbors(NeighborLists),
    ItemNeighbors(NeighborLists),
    Activity(Activity),
    Consents(ConsentRecords),
    Propensity(Propensity),
}

/// Decodes one part, whatever has become of the others, while its bytes come.
///
/// `n_bytes`: of all of `chunks`, which are cut anywhere. Each is freed before the next one is asked for.
///
/// # Errors
/// Names the part, and what is wrong with it. What its contents say is wrong only where the checksum is right.
pub fn decode_part(
    name: &str,
    n_bytes: u64,
    mut chunks: impl Iterator<Item = Vec<u8>>,
) -> Result<DecodedPart, CodecError> {
    type Read = fn(&mut Reader<'_>) -> Result<Contents, CodecError>;
    let (part, read): (&'static str, Read) = match name {
        PARAMETERS => (PARAMETERS, |from| read_parameters(from).map(Contents::Parameters)),
        WEIGHTS => (WEIGHTS, |from| read_weights(from).map(Contents::Weights)),
        USERS => (USERS, |from| read_dictionary(from).map(Contents::Users)),
        ITEMS => (ITEMS, |from| read_dictionary(from).map(Contents::Items)),
        CATALOG => (CATALOG, |from| read_catalog(from).map(Contents::Catalog)),
        RATINGS => (RATINGS, |from| {
            read_ratings(from).map(|(ratings, purchased)| Contents::Ratings(ratings, purchased))
        }),
        BIASES => (BIASES, |from| read_biases(from).map(Contents::Biases)),
        USER_NEIGHBORS => (USER_NEIGHBORS, |from| read_neighbors(from).map(Contents::UserNeighbors)),
        ITEM_NEIGHBORS => (ITEM_NEIGHBORS, |from| read_neighbors(from).map(Contents::ItemNeighbors)),
        ACTIVITY => (ACTIVITY, |from| read_activity(from).map(Contents::Activity)),
        CONSENTS => (CONSENTS, |from| read_consents(from).map(Contents::Consents)),
        PROPENSITY => (PROPENSITY, |from| read_propensity(from).map(Contents::Propensity)),
        unknown => {
            let part = unknown.to_owned();
            return Err(CodecError::Unknown { part });
        }
    };
    let mut reader = open(part, n_bytes, &mut chunks)?;
    let contents = read(&mut reader).and_then(|contents| reader.finish().map(|()| contents));
    match reader.close() {
        Some((written, actual)) if written == actual => Ok(DecodedPart {
            name: part,
            checksum: actual,
            contents: contents?,
        }),
        _ => Err(CodecError::Checksum { part }),
    }
}

/// The parts of a snapshot from each of them, in any order.
///
/// `checksum`: of the snapshot, as [`Checksum::finish`] gave it. That the parts fit together is for
/// [`Snapshot::new`](crate::snapshot::Snapshot::new) to check.
///
/// # Errors
/// A part is missing or given twice, or they were not written together.
pub fn assemble(parts: impl IntoIterator<Item = DecodedPart>, checksum: &[u8]) -> Result<SnapshotParts, CodecError> {
    let mut actual_checksum = Checksum::default();
    let mut contents = BTreeMap::new();
    for part in parts {
        actual_checksum.parts.insert(part.name.to_owned(), part.checksum);
        if contents.insert(part.name, part.contents).is_some() {
            let part = part.name.to_owned();
            return Err(CodecError::Duplicate { part });
        }
    }
    macro_rules! take {
        ($part:ident, $contents:ident $(, $more:ident)?) => {
            match contents.remove($part) {
                Some(Contents::$contents(contents $(, $more)?)) => (contents $(, $more)?),
                _ => return Err(CodecError::Missing { part: $part }),
            }
        };
    }
    let (ratings, purchased) = take!(RATINGS, Ratings, purchased);
    let parts = SnapshotParts {
        parameters: take!(PARAMETERS, Parameters),
        weights: take!(WEIGHTS, Weights),
        users: take!(USERS, Users),
        items: take!(ITEMS, Items),
        catalog: take!(CATALOG, Catalog),
        ratings,
        purchased,
        biases: take!(BIASES, Biases),
        user_neighbors: take!(USER_NEIGHBORS, UserNeighbors),
        item_neighbors: take!(ITEM_NEIGHBORS, ItemNeighbors),
        activity: take!(ACTIVITY, Activity),
        consents: take!(CONSENTS, Consents),
        propensity: take!(PROPENSITY, Propensity),
    };
    if actual_checksum.finish() != checksum {
        return Err(CodecError::Exchanged);
    }
    Ok(parts)
}

/// [`decode_part`] of each of `parts` and [`assemble`].
///
/// # Errors
/// Of the first part that has one.
pub fn decode(parts: Vec<(String, Vec<u8>)>, checksum: &[u8]) -> Result<SnapshotParts, CodecError> {
    let decoded: Vec<_> = parts
        .into_par_iter()
        .map(|(name, bytes)| decode_part(&name, bytes.len() as u64, iter::once(bytes)))
        .collect();
    assemble(decoded.into_iter().collect::<Result<Vec<_>, _>>()?, checksum)
}

/// What stands before the contents, without the length.
fn header() -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&0_u64.to_le_bytes());
    bytes
}

/// Completes header and contents with the length and the checksum.
fn seal(part: &str, mut bytes: Vec<u8>) -> Vec<u8> {
    let length = (bytes.len() + CHECKSUM_BYTES) as u64;
    bytes[LENGTH_AT..][..size_of::<u64>()].copy_from_slice(&length.to_le_bytes());
    let checksum = part_checksum(part, &bytes);
    bytes.extend_from_slice(&checksum);
    bytes
}

fn part_checksum(part: &str, bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = Xxh3::new();
    hasher.update(part.as_bytes());
    hasher.update(&[0]);
    hasher.update(bytes);
    hasher.digest128().to_le_bytes()
}

/// Checks what stands before the contents of a part. Returns what reads those.
fn open<'a>(
    part: &'static str,
    n_bytes: u64,
    chunks: &'a mut dyn Iterator<Item = Vec<u8>>,
) -> Result<Reader<'a>, CodecError> {
    let mut reader = Reader::new(part, n_bytes, CHECKSUM_BYTES, chunks);
    if reader.array("magic").ok() != Some(MAGIC) {
        return Err(CodecError::Magic { part });
    }
    // Before the checksum: another version may keep it elsewhere.
    let version = u32::from_le_bytes(reader.array("format version")?);
    if version != FORMAT_VERSION {
        return Err(CodecError::Version { part, version });
    }
    let (written, actual) = (reader.u64("length")?, n_bytes);
    if written != actual {
        return Err(CodecError::Length { part, written, actual });
    }
    reader.keep_back("checksum", CHECKSUM_BYTES)?;
    Ok(reader)
}

fn write_parameters(parameters: &TrainingParameters, to: &mut Writer) {
    let json = serde_json::to_vec(parameters).unwrap_or_else(|_| unreachable!("numbers and names in two structs"));
    to.raw(&json);
}

fn read_parameters(from: &mut Reader<'_>) -> Result<TrainingParameters, CodecError> {
    let part = from.part();
    serde_json::from_slice(&from.rest("contents")?).map_err(|source| CodecError::Json { part, source })
}

fn read_weights(from: &mut Reader<'_>) -> Result<BlendWeights, CodecError> {
    let [weighted_sum, weighted_mean, baseline, ranking] = from.doubles("weights")?;
    Ok(BlendWeights {
        weighted_sum,
        weighted_mean,
        baseline,
        ranking,
    })
}

fn read_dictionary<I: DenseIndex>(from: &mut Reader<'_>) -> Result<Dictionary<I>, CodecError> {
    let ids = from.texts("ids")?;
    Dictionary::new(ids).ok_or_else(|| from.invalid("ids", "are not strictly ascending, or too many"))
}

fn write_catalog(catalog: &Catalog, to: &mut Writer) {
    to.texts(&catalog.titles);
    to.texts(&catalog.categories);
    to.texts(&catalog.merchants);
    to.u64(catalog.currencies.len() as u64);
    for currency in &catalog.currencies {
        to.raw(currency.as_str().as_bytes());
    }
    for references in [&catalog.category_of, &catalog.merchant_of, &catalog.currency_of] {
        // NONE, the highest, becomes 0.
        to.integers(references.iter().map(|reference| u64::from(reference.wrapping_add(1))));
    }
    to.integers(catalog.price_minor.iter().map(|&price| price as u64));
    to.bits(&catalog.listed);
}

fn read_catalog(from: &mut Reader<'_>) -> Result<Catalog, CodecError> {
    let (titles, categories, merchants) = (
        from.texts("titles")?,
        from.texts("categories")?,
        from.texts("merchants")?,
    );
    let n_currencies = from.u64("currencies")?;
    let currencies = from
        .entries("currencies", n_currencies, |letters: [u8; 3]| {
            std::str::from_utf8(&letters)
                .ok()
                .and_then(|code| Currency::new(code).ok())
        })?
        .into_iter()
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| from.invalid("currencies", "are not all three capital letters"))?;
    let mut references = |field| {
        let references = from.u32s(field)?;
        Ok(references
            .into_iter()
            .map(|reference| reference.wrapping_sub(1))
            .collect())
    };
    let catalog = Catalog {
        titles,
        categories,
        merchants,
        currencies,
        category_of: references("categories of the items")?,
        merchant_of: references("merchants of the items")?,
        currency_of: references("currencies of the items")?,
        price_minor: from.u64s("prices")?.into_iter().map(|price| price as i64).collect(),
        listed: from.bits("listed")?,
    };
    match catalog.problem() {
        Some(problem) => Err(CodecError::Catalog { problem }),
        None => Ok(catalog),
    }
}

fn write_ratings(ratings: &Ratings, purchased: &Bits, to: &mut Writer) {
    to.integers(ratings.popularity().items().iter().map(|item| u64::from(item.0)));
    to.lengths(ratings.offsets());
    match ratings.ranks() {
        RankSlice::Narrow(ranks) => to.integers(ranks.iter().map(|&rank| u64::from(rank))),
        RankSlice::Wide(ranks) => to.integers(ranks.iter().map(|&rank| u64::from(rank))),
    }
    to.packed_floats(ratings.values());
    to.bits(purchased);
}

fn read_ratings(from: &mut Reader<'_>) -> Result<(Ratings, Bits), CodecError> {
    let part = from.part();
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
        Err(RatingsError::Sparse(source)) => Err(CodecError::Sparse { part, source }),
        Err(RatingsError::Popularity) => Err(from.invalid(
            "items by popularity",
            "are not all items, most ratings first, equals in order",
        )),
    }
}

fn write_biases(biases: &Biases, to: &mut Writer) {
    to.doubles(&[biases.global_mean]);
    to.floats(&biases.users);
    to.floats(&biases.items);
}

fn read_biases(from: &mut Reader<'_>) -> Result<Biases, CodecError> {
    let [global_mean] = from.doubles("mean")?;
    Ok(Biases {
        global_mean,
        users: from.floats("biases of the users")?.into_vec(),
        items: from.floats("biases of the items")?.into_vec(),
    })
}

fn write_neighbors(lists: &NeighborLists, to: &mut Writer) {
    to.u64(lists.n_targets() as u64);
    to.lengths(lists.offsets());
    to.integers(lists.neighbors().iter().map(|&neighbor| u64::from(neighbor)));
    to.floats(lists.similarities());
}

fn read_neighbors(from: &mut Reader<'_>) -> Result<NeighborLists, CodecError> {
    let part = from.part();
    let n_targets = from.size("number of targets")?;
    let offsets = from.offsets("lengths")?;
    // Nothing else bounds the number of targets by the number of bytes, and checking the lists takes memory for each.
    if n_targets != offsets.len() - 1 {
        return Err(from.invalid("number of targets", "is not the number of lists"));
    }
    let (neighbors, similarities) = (from.u32s("neighbors")?, from.floats("similarities")?.into_vec());
    NeighborLists::new(n_targets, offsets, neighbors, similarities)
        .map_err(|source| CodecError::Sparse { part, source })
}

fn write_activity(activity: &Activity, to: &mut Writer) {
    to.u64(activity.as_of as u64);
    to.integers(activity.orders.iter().map(|&orders| u64::from(orders)));
    to.integers(activity.spend_minor.iter().map(|&spend| spend as u64));
    to.integers(activity.last_order_at.iter().map(|&at| at as u64));
    for counts in [&activity.discounted_lines, &activity.redemptions, &activity.campaigns] {
        to.integers(counts.iter().map(|&count| u64::from(count)));
    }
}

fn read_activity(from: &mut Reader<'_>) -> Result<Activity, CodecError> {
    let as_of = from.u64("time")? as i64;
    let orders = from.u32s("orders")?;
    let mut signed = |field| {
        let column = from.u64s(field)?;
        Ok::<_, CodecError>(column.into_iter().map(|value| value as i64).collect())
    };
    Ok(Activity {
        as_of,
        orders,
        spend_minor: signed("spend")?,
        last_order_at: signed("last order")?,
        discounted_lines: from.u32s("discounted lines")?,
        redemptions: from.u32s("redemptions")?,
        campaigns: from.u32s("campaigns")?,
    })
}

fn write_consents(records: &ConsentRecords, to: &mut Writer) {
    to.texts(records.ids());
    to.integers(records.consents().iter().map(|consents| u64::from(consents.bits())));
}

fn read_consents(from: &mut Reader<'_>) -> Result<ConsentRecords, CodecError> {
    let ids = from.texts("ids")?;
    let known = |bits: u32| u8::try_from(bits).ok().and_then(Consents::from_bits);
    let consents: Option<Vec<_>> = from.u32s("consents")?.into_iter().map(known).collect();
    let consents = consents.ok_or_else(|| from.invalid("consents", "are not all known"))?;
    ConsentRecords::new(ids, consents).ok_or_else(|| from.invalid("ids", "are not strictly ascending, or not as many"))
}

fn write_propensity(propensity: &Propensity, to: &mut Writer) {
    let json = serde_json::to_vec(propensity).unwrap_or_else(|_| unreachable!("numbers and names in plain structs"));
    to.raw(&json);
}

fn read_propensity(from: &mut Reader<'_>) -> Result<Propensity, CodecError> {
    let part = from.part();
    serde_json::from_slice(&from.rest("contents")?).map_err(|source| CodecError::Json { part, source })
}
