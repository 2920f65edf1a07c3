//! The bytes of a snapshot.
//!
//! A snapshot is stored as named parts. This page describes the container, which every part has, and the columns that
//! contents are made of. [`parts`] lists the parts and says how to add one; each part's own file there
//! describes its contents. All numbers are little-endian; nothing is aligned; "n × 4" is n times 4 bytes.
//!
//! # The container
//!
//! | bytes | |
//! |---|---|
//! | 8 | magic: `likemind` in ASCII |
//! | 2 | container version, unsigned: 3 |
//! | 2 | version of the part's contents, unsigned; each part counts its own from 0 |
//! | 8 | length of the part in bytes, from the magic through the checksum, unsigned |
//! | … | contents |
//! | 16 | checksum: XXH3-128 of the part's name, a byte 0, and all bytes of the part before the checksum |
//!
//! The name of a part is not among its bytes, but stored beside them. The checksum of the snapshot is the XXH3-128 of, for
//! every part in byte order of the names: the name, a byte 0, the part's checksum.
//!
//! Releases before the first that knew versions of contents wrote both versions as one number of 4 bytes, 3. Their parts
//! are therefore of version 0, and they read parts of version 0.
//!
//! # What a reader accepts
//!
//! - A part of another container version is an error, and so is a part whose bytes do not match its checksum. Both hold
//!   for parts of unknown names and versions too.
//! - An intact part of unknown name or version counts as missing.
//! - A missing part is an error, unless it is optional: then the snapshot is served, and the feature that needs the part
//!   is unavailable and gives the reason.
//! - The checksum of the snapshot covers all stored parts, known or not, so that none can be lost or exchanged unnoticed.
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
//! | neighbor lists | lengths, n: neighbors of every row · integers: neighbors, best first · floats: similarities |
//! | weight lists | lengths, n: weights of every row · integers: targets, strictly ascending in a row · floats: weights |
//!
//! Indices below 65,536 therefore take 2 bytes and below 16,777,216 take 3, so that a neighbor is stored in 6 or 7, and
//! a rating on a scale of few steps in 3 or 4.
//!
//! Whatever the bytes are, decoding allocates in proportion to their length: a column is known to be there before
//! memory is taken for it.

use std::collections::{BTreeMap, HashSet};
use std::iter;

use rayon::prelude::*;
use xxhash_rust::xxh3::Xxh3;

use similarity::sparse::SparseError;

use self::columns::{Reader, Writer};
use super::dictionary::Texts;
use super::erased_users::ErasedUsers;
use super::parts::{self, PARTS, PartEntry, SnapshotParts, StoredContents};

pub(super) mod columns;
mod huge_pages;
#[cfg(test)]
mod tests;

/// The layout of the container that is written, and the only one that is read.
pub const CONTAINER_VERSION: u16 = 3;

const MAGIC: [u8; 8] = *b"likemind";
const VERSIONS_AT: usize = MAGIC.len();
const LENGTH_AT: usize = VERSIONS_AT + 2 * size_of::<u16>();
const CHECKSUM_BYTES: usize = 16;

/// One part, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedPart {
    pub name: &'static str,
    pub bytes: Vec<u8>,
}

/// The reason why bytes are no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("part {part} is missing")]
    Missing { part: String },
    #[error("part {part} is given twice")]
    Duplicate { part: String },
    #[error("part {part} does not begin like a part of a snapshot")]
    Magic { part: String },
    #[error("part {part} has format version {version}, but this program reads {CONTAINER_VERSION}")]
    ContainerVersion { part: String, version: u16 },
    #[error("part {part} has layout version {version}, but this program reads {}", versions(*oldest, *newest))]
    PartVersion {
        part: String,
        version: u16,
        oldest: u16,
        newest: u16,
    },
    #[error("part {part} is not known to this program")]
    UnknownPart { part: String },
    #[error("part {part} has {actual} bytes, but {written} were written")]
    Length { part: String, written: u64, actual: u64 },
    #[error("part {part} is damaged: its bytes do not match its checksum")]
    Checksum { part: String },
    #[error(
        "every part is intact, but they are not those that were written together{}",
        not_there(absent)
    )]
    Exchanged {
        /// The optional parts that are not there, one of which may be lost.
        absent: Vec<&'static str>,
    },
    #[error("part {part} ends before the end of its {field}")]
    Ended { part: String, field: &'static str },
    #[error("part {part} goes on for {n_bytes} bytes after its last field")]
    Surplus { part: String, n_bytes: usize },
    #[error("part {part}: {field} {problem}")]
    Field {
        part: String,
        field: &'static str,
        problem: &'static str,
    },
    #[error("part catalogue: {problem}")]
    Catalog { problem: &'static str },
    #[error("part {part}: {source}")]
    Sparse { part: String, source: SparseError },
    #[error("part {part}: {source}")]
    Json { part: String, source: serde_json::Error },
}

fn versions(oldest: u16, newest: u16) -> String {
    match oldest == newest {
        true => newest.to_string(),
        false => format!("{oldest} to {newest}"),
    }
}

fn not_there(absent: &[&str]) -> String {
    match absent {
        [] => String::new(),
        absent => format!("; optional parts that are not among them: {}", absent.join(", ")),
    }
}

impl CodecError {
    /// Whether the bytes are as another release of this program writes them, rather than damaged.
    pub fn is_of_another_release(&self) -> bool {
        matches!(
            self,
            Self::ContainerVersion { .. } | Self::PartVersion { .. } | Self::UnknownPart { .. }
        )
    }
}

/// Computes the checksum of a snapshot, fed part by part in any order.
#[derive(Debug, Clone, Default)]
pub struct Checksum {
    parts: BTreeMap<String, [u8; CHECKSUM_BYTES]>,
}

impl Checksum {
    /// `bytes`: all of an encoded part, of which only the checksum at their end is read.
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

/// Returns the parts of a validated snapshot, each encoded when it is asked for. Equal snapshots have equal bytes.
pub fn encode(parts: &SnapshotParts) -> impl Iterator<Item = EncodedPart> {
    let present = PARTS.iter().filter(|part| (part.is_present)(parts));
    present.map(|part| encode_part(part, parts))
}

fn encode_part(part: &PartEntry, parts: &SnapshotParts) -> EncodedPart {
    let mut writer = Writer::new(header(part.version));
    (part.encode)(parts, &mut writer);
    EncodedPart {
        name: part.name,
        bytes: seal(part.name, writer.into_bytes()),
    }
}

/// Returns whether the part of this name holds external ids of users; `None` if this program does not know it.
pub fn names_users(name: &str) -> Option<bool> {
    PartEntry::find(name).map(|part| part.names_users)
}

/// Returns whether the part of this name holds anything about single users; `None` if this program does not know it.
pub fn concerns_users(name: &str) -> Option<bool> {
    PartEntry::find(name).map(|part| part.concerns_users)
}

/// One part, intact and valid by itself.
#[derive(Debug)]
pub struct DecodedPart {
    name: String,
    checksum: [u8; CHECKSUM_BYTES],
    contents: DecodedContents,
}

#[derive(Debug)]
enum DecodedContents {
    /// A part that this program knows by this name.
    Known(&'static str, StoredContents),
    UnknownName,
}

impl DecodedPart {
    /// Says why an intact part was left out; `None` for one that was decoded.
    pub fn left_out(&self) -> Option<String> {
        let Self { name, contents, .. } = self;
        match contents {
            DecodedContents::Known(_, StoredContents::Decoded(_) | StoredContents::Checked) => None,
            DecodedContents::Known(_, StoredContents::UnknownVersion(version)) => Some(format!(
                "part {name} is left out: this program does not read its layout version {version}"
            )),
            DecodedContents::UnknownName => Some(format!("part {name} is left out: this program does not know it")),
        }
    }

    /// Returns the external ids of users that the part holds; empty for a part that has none, or was not decoded.
    pub fn user_ids(&self) -> impl Iterator<Item = &str> {
        let ids = match &self.contents {
            DecodedContents::Known(_, StoredContents::Decoded(contents)) => contents.user_ids(),
            _ => None,
        };
        ids.into_iter().flat_map(Texts::iter)
    }

    /// Finds those of `ids` whom a snapshot holds, in this part or as its users.
    ///
    /// `self`: the part `users`.
    pub fn find_users(&self, ids: HashSet<String>) -> ErasedUsers {
        match &self.contents {
            DecodedContents::Known(_, StoredContents::Decoded(contents)) => {
                let none = Texts::default();
                ErasedUsers::new(ids, contents.user_ids().unwrap_or(&none))
            }
            _ => ErasedUsers::new(ids, &Texts::default()),
        }
    }

    /// Removes erased users from the part, and encodes the rest in the newest layout.
    ///
    /// # Errors
    /// [`CodecError::PartVersion`] for a part of a version that this program does not read, and [`CodecError::UnknownPart`] for
    /// one that it does not know: nobody can tell whether they hold the users.
    pub fn without_users(self, erased: &ErasedUsers) -> Result<EncodedPart, CodecError> {
        let part = self.name;
        let (entry, contents) = match self.contents {
            DecodedContents::Known(name, contents) => (PartEntry::find(name), contents),
            DecodedContents::UnknownName => (None, StoredContents::Checked),
        };
        match (entry, contents) {
            (Some(entry), StoredContents::Decoded(mut contents)) => {
                contents.redact(erased);
                Ok(encode_part(entry, &contents.alone()))
            }
            (Some(entry), StoredContents::UnknownVersion(version)) => Err(CodecError::PartVersion {
                part,
                version,
                oldest: entry.oldest_version,
                newest: entry.version,
            }),
            (Some(_), StoredContents::Checked) | (None, _) => Err(CodecError::UnknownPart { part }),
        }
    }

    /// Frees the contents. The rest is enough for [`check_together`].
    pub fn without_contents(mut self) -> Self {
        if let DecodedContents::Known(_, contents @ StoredContents::Decoded(_)) = &mut self.contents {
            *contents = StoredContents::Checked;
        }
        self
    }
}

/// Decodes one part while its bytes come, whatever has become of the other parts.
///
/// `n_bytes`: the length of all `chunks` together, which are cut anywhere. Each is freed before the next one is asked for.
/// A part of unknown name or version is checked and left out.
///
/// # Errors
/// Names the part, and what is wrong with it. An error about the contents is returned only where the checksum is right.
pub fn decode_part(
    name: &str,
    n_bytes: u64,
    mut chunks: impl Iterator<Item = Vec<u8>>,
) -> Result<DecodedPart, CodecError> {
    let (version, mut reader) = open(name, n_bytes, &mut chunks)?;
    let contents = match PartEntry::find(name) {
        None => Ok(DecodedContents::UnknownName),
        Some(part) if !part.reads(version) => {
            let contents = StoredContents::UnknownVersion(version);
            Ok(DecodedContents::Known(part.name, contents))
        }
        Some(part) => (part.decode)(version, &mut reader)
            .and_then(|contents| reader.finish().map(|()| contents))
            .map(|contents| DecodedContents::Known(part.name, StoredContents::Decoded(Box::new(contents)))),
    };
    match reader.close() {
        Some((written, actual)) if written == actual => Ok(DecodedPart {
            name: name.to_owned(),
            checksum: actual,
            contents: contents?,
        }),
        _ => Err(CodecError::Checksum { part: name.to_owned() }),
    }
}

/// Joins decoded parts, in any order, to those of a snapshot.
///
/// `checksum`: of the snapshot, as [`Checksum::finish`] gave it. That the parts fit together is for
/// [`Snapshot::new`](crate::snapshot::Snapshot::new) to check.
///
/// # Errors
/// A part is given twice, one that is not optional is missing, or they were not written together.
pub fn assemble(parts: impl IntoIterator<Item = DecodedPart>, checksum: &[u8]) -> Result<SnapshotParts, CodecError> {
    let known = join(parts)?;
    let (checksum_is_right, absent) = (known.checksum == checksum, known.absent());
    let parts = parts::assemble(known.contents)?;
    match checksum_is_right {
        true => Ok(parts),
        false => Err(CodecError::Exchanged { absent }),
    }
}

/// Checks decoded parts, in any order and without their contents, as [`assemble`] does.
///
/// # Errors
/// Those of [`assemble`].
pub fn check_together(parts: impl IntoIterator<Item = DecodedPart>, checksum: &[u8]) -> Result<(), CodecError> {
    let known = join(parts)?;
    parts::check_complete(&known.contents)?;
    match known.checksum == checksum {
        true => Ok(()),
        false => Err(CodecError::Exchanged { absent: known.absent() }),
    }
}

/// The known ones of the parts of a snapshot, and the checksum of all.
struct Joined {
    contents: BTreeMap<&'static str, StoredContents>,
    checksum: [u8; CHECKSUM_BYTES],
}

impl Joined {
    fn absent(&self) -> Vec<&'static str> {
        let names = PARTS.iter().map(|part| part.name);
        names.filter(|name| !self.contents.contains_key(name)).collect()
    }
}

fn join(parts: impl IntoIterator<Item = DecodedPart>) -> Result<Joined, CodecError> {
    let mut checksum = Checksum::default();
    let mut known = BTreeMap::new();
    for part in parts {
        if checksum.parts.insert(part.name.clone(), part.checksum).is_some() {
            return Err(CodecError::Duplicate { part: part.name });
        }
        if let DecodedContents::Known(name, contents) = part.contents {
            known.insert(name, contents);
        }
    }
    Ok(Joined {
        contents: known,
        checksum: checksum.finish(),
    })
}

/// Decodes each of `parts` and joins them: [`decode_part`] and [`assemble`].
///
/// # Errors
/// The error of the first part that has one.
pub fn decode(parts: Vec<(String, Vec<u8>)>, checksum: &[u8]) -> Result<SnapshotParts, CodecError> {
    let decoded: Vec<_> = parts
        .into_par_iter()
        .map(|(name, bytes)| decode_part(&name, bytes.len() as u64, iter::once(bytes)))
        .collect();
    assemble(decoded.into_iter().collect::<Result<Vec<_>, _>>()?, checksum)
}

/// Returns everything before the contents, with a length of 0.
fn header(part_version: u16) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&CONTAINER_VERSION.to_le_bytes());
    bytes.extend_from_slice(&part_version.to_le_bytes());
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

/// Checks the bytes before the contents of a part. Returns the version of the contents, and a reader of them.
fn open<'a>(
    name: &'a str,
    n_bytes: u64,
    chunks: &'a mut dyn Iterator<Item = Vec<u8>>,
) -> Result<(u16, Reader<'a>), CodecError> {
    let part = || name.to_owned();
    let mut reader = Reader::new(name, n_bytes, CHECKSUM_BYTES, chunks);
    if reader.array("magic").ok() != Some(MAGIC) {
        return Err(CodecError::Magic { part: part() });
    }
    // Before the checksum: another container version may keep it elsewhere.
    let [container_low, container_high, part_low, part_high] = reader.array("format version")?;
    let version = u16::from_le_bytes([container_low, container_high]);
    if version != CONTAINER_VERSION {
        return Err(CodecError::ContainerVersion { part: part(), version });
    }
    let (written, actual) = (reader.u64("length")?, n_bytes);
    if written != actual {
        let part = part();
        return Err(CodecError::Length { part, written, actual });
    }
    reader.keep_back("checksum", CHECKSUM_BYTES)?;
    Ok((u16::from_le_bytes([part_low, part_high]), reader))
}
