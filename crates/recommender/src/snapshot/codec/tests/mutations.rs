//! Decoding bytes that nobody wrote.

use std::collections::BTreeMap;

use super::*;

const N_MUTATIONS: u32 = 10_000;

/// Decoding and [`Snapshot::new`] may allocate so many bytes for a byte of input, and some for messages.
const ALLOCATED_PER_BYTE: u64 = 24;
const ALLOCATED_ANYWAY: u64 = 16 * 1024;

/// Half of the mutations leave the checksums behind, as damage does: an error, or an equal snapshot. For the other
/// half they are mended, so that the checks behind them are reached: an error, or a snapshot that comes back.
#[test]
fn mutated_bytes_are_an_error_or_a_snapshot() {
    let outcomes = on_one_thread(|| {
        let parts = full_parts();
        let row: &[f32] = &[2.0; 9];
        let (intact, other) = (encoded(&parts), encoded(&snapshot_parts(&[row; 9])));
        let written = checksum(&intact);
        let mut random = Random(1);
        let mut outcomes = BTreeMap::new();
        for _ in 0..N_MUTATIONS {
            let mended = random.below(2) == 0;
            let mutated = mutate(&intact, &other, mended, &mut random);
            let expected = if mended { checksum(&mutated) } else { written };
            let n_bytes: usize = mutated.iter().map(|(_, bytes)| bytes.len()).sum();
            let is_intact = mutated == intact;

            let (outcome, allocated) = allocations::allocated_by(|| decode(mutated, &expected).map(Snapshot::new));
            let limit = ALLOCATED_PER_BYTE * n_bytes as u64 + ALLOCATED_ANYWAY;
            assert!(allocated <= limit, "{allocated} bytes allocated for {n_bytes}");
            let outcome = match outcome {
                Err(error) => kind(&error),
                Ok(Err(error)) => kind(&error),
                Ok(Ok(snapshot)) if *snapshot.parts() == parts => "equal".to_owned(),
                Ok(Ok(snapshot)) if is_without_optional_parts(snapshot.parts(), &parts) => {
                    assert!(mended, "damage lost a part");
                    "less".to_owned()
                }
                Ok(Ok(snapshot)) => {
                    assert!(mended, "damage gave another snapshot");
                    assert_eq!(&decoded(encoded(snapshot.parts())).unwrap(), snapshot.parts());
                    "another".to_owned()
                }
            };
            assert!(!is_intact || outcome == "equal", "{outcome} without a mutation");
            *outcomes.entry(outcome).or_insert(0) += 1;
        }
        outcomes
    });
    let reached: Vec<&str> = outcomes.keys().map(String::as_str).collect();
    let all = "Catalog Checksum ContainerVersion Duplicate Ended Exchanged Field Json Length Magic Missing PartVersion \
               Shape Sparse Surplus Value another equal less";
    assert_eq!(
        reached.join(" "),
        all,
        "a mutation is missing, or an outcome new: {outcomes:?}"
    );
}

/// Whether `parts` are those of `full`, without some of the optional ones.
fn is_without_optional_parts(parts: &SnapshotParts, full: &SnapshotParts) -> bool {
    let parts = parts.clone();
    let is_less = parts.item_weights.get().is_err()
        || parts.orders.get().is_err()
        || parts.fitted_settings.get().is_err()
        || parts.significant_item_neighbors.get().is_err()
        || parts.merchant_orders.get().is_err()
        || parts.demand.get().is_err()
        || matches!(parts.propensity, Propensity::NotFitted { .. });
    is_less
        && *full
            == SnapshotParts {
                item_weights: full.item_weights.clone(),
                orders: full.orders.clone(),
                fitted_settings: full.fitted_settings.clone(),
                significant_item_neighbors: full.significant_item_neighbors.clone(),
                merchant_orders: full.merchant_orders.clone(),
                propensity: full.propensity.clone(),
                demand: full.demand.clone(),
                ..parts
            }
}

/// Lists without neighbors take much memory for each byte.
#[test]
fn empty_lists_allocate_in_proportion() {
    const N_LISTS: usize = 100_000;
    let no_lists = |to: &mut Writer| {
        to.u64(N_LISTS as u64);
        to.lengths(&[0; N_LISTS + 1]);
        to.integers(std::iter::empty());
        to.floats(&[]);
    };
    let mut writer = Writer::new(Vec::new());
    no_lists(&mut writer);
    let mut stored = encoded(&rich_parts());
    stored[7] = part_of(USER_NEIGHBORS, &writer.into_bytes());
    let n_bytes: usize = stored.iter().map(|(_, bytes)| bytes.len()).sum();
    let (parts, allocated) = on_one_thread(|| allocations::allocated_by(|| decoded(stored).unwrap()));
    assert_eq!(parts.user_neighbors.n_rows(), N_LISTS);
    assert!(
        allocated <= ALLOCATED_PER_BYTE * n_bytes as u64,
        "{allocated} bytes allocated for {n_bytes}"
    );
}

/// Returns the name of an error's variant.
fn kind(error: &impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn mutate(intact: &Stored, other: &Stored, mended: bool, random: &mut Random) -> Stored {
    let mut parts = intact.clone();
    let (at, from) = (random.below(parts.len()), random.below(parts.len()));
    match random.below(20) {
        0 => drop(parts.remove(at)),
        1 => {
            let (name, bytes) = parts[from].clone();
            let suffix = ["", "_old"][random.below(2)];
            parts.push((name + suffix, bytes));
            mend_if(mended, parts.last_mut());
        }
        2 => {
            parts[at].0.push('x');
            mend_if(mended, parts.get_mut(at));
        }
        3 => {
            let name = parts[at].0.clone();
            parts[at].0 = std::mem::replace(&mut parts[from].0, name);
            if mended {
                for at in [at, from] {
                    parts[at] = part_of(&parts[at].0, contents(&parts[at].1));
                }
            }
        }
        4 if at < other.len() => parts[at] = other[at].clone(),
        5 if mended => {
            let (name, bytes) = &parts[at];
            parts[at] = part_of_version(1 + random.below(9) as u16, name, contents(bytes));
        }
        _ if mended => {
            let mut inner = contents(&parts[at].1).to_vec();
            mutate_bytes(&mut inner, random);
            parts[at] = part_of(&parts[at].0, &inner);
        }
        _ => mutate_bytes(&mut parts[at].1, random),
    }
    parts
}

fn mend_if(mended: bool, part: Option<&mut (String, Vec<u8>)>) {
    if let Some(part) = part.filter(|_| mended) {
        *part = part_of(&part.0, contents(&part.1));
    }
}

fn mutate_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    let start = random.below(bytes.len());
    let end = start + 1 + random.below(bytes.len() - start);
    match random.below(8) {
        0..3 => {
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
        }
        3 => bytes.truncate(start),
        4 => bytes.extend_from_within(start..end),
        5 => {
            let range = bytes[start..end].to_vec();
            bytes.splice(end..end, range);
        }
        6 => drop(bytes.drain(start..end)),
        _ => {
            let edges = [
                0,
                1,
                255,
                65_536,
                1 << 31,
                u64::from(u32::MAX),
                1 << 40,
                1 << 62,
                u64::MAX,
            ];
            let count = match random.below(2) {
                0 => edges[random.below(edges.len())],
                _ => random.below(40) as u64,
            };
            // Most counts stand at the beginning.
            let start = if random.below(2) == 0 { 0 } else { start };
            let places = bytes[start..].iter_mut();
            places.zip(count.to_le_bytes()).for_each(|(byte, new)| *byte = new);
        }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % limit as u64) as usize
    }
}
