//! Numbers the lines of orders in files without line numbers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use domain::error::InvalidField;
use domain::id::{ItemId, OrderId, UserId};

/// Counts lines within (order, user, item), in the order of the file, in bounded memory.
///
/// The counts of the latest orders are exact. Older orders are closed and only their hash is kept, so that a further line
/// of theirs is refused instead of taking the number of an earlier line and overwriting it.
pub(super) struct LineNumbers {
    limits: Limits,
    /// The count for each hash of order, user and item.
    counts: HashMap<u128, i32, AlreadyHashed>,
    /// The keys of `counts` with the hash of their order, oldest first.
    queue: VecDeque<(u64, u128)>,
    /// Orders that accept further lines.
    open: HashSet<u64, AlreadyHashed>,
    /// Orders whose counts have been dropped, at least in part.
    closed: HashSet<u64, AlreadyHashed>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    counts: usize,
    closed_orders: usize,
}

impl Default for LineNumbers {
    /// Uses at most about 30 MB for counts, and 300 MB for closed orders in files of more than 14 million orders.
    fn default() -> Self {
        Self::new(Limits {
            counts: 1 << 18,
            closed_orders: (1 << 25) / 8 * 7,
        })
    }
}

impl LineNumbers {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            counts: HashMap::default(),
            queue: VecDeque::new(),
            open: HashSet::default(),
            closed: HashSet::default(),
        }
    }

    /// Returns the number of the next line of `item` that `user` has bought in `order`, from 1.
    ///
    /// # Errors
    /// `ORDER_LINES_APART` when the order is closed, or when so many are closed that no new order can be opened.
    pub fn next(&mut self, order: &OrderId, user: &UserId, item: &ItemId) -> Result<i32, InvalidField> {
        let order_hash = xxh3_64(order.as_str().as_bytes());
        if self.closed.contains(&order_hash) {
            return Err(apart(
                "the lines of this order are too far apart in the file to be numbered",
            ));
        }
        let key = hash_of([order.as_str(), user.as_str(), item.as_str()]);
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
            return Ok(*count);
        }
        if !self.open.contains(&order_hash) {
            if self.closed.len() >= self.limits.closed_orders {
                return Err(apart("the file has too many orders to number their lines"));
            }
            self.open.insert(order_hash);
        }
        self.counts.insert(key, 1);
        self.queue.push_back((order_hash, key));
        while self.counts.len() > self.limits.counts {
            self.forget_oldest();
        }
        Ok(1)
    }

    fn forget_oldest(&mut self) {
        let Some((order, key)) = self.queue.pop_front() else {
            return;
        };
        self.counts.remove(&key);
        if self.open.remove(&order) {
            self.closed.insert(order);
        }
    }
}

fn apart(problem: &str) -> InvalidField {
    let message = format!("{problem}; sort the file by order, or add a line_number to every line");
    InvalidField::new("line_number", "ORDER_LINES_APART", message)
}

/// Hashes the parts with their lengths, so that different lists of parts never have the same bytes.
fn hash_of(parts: [&str; 3]) -> u128 {
    let mut bytes = Vec::with_capacity(64);
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    xxh3_128(&bytes)
}

/// Leaves keys as they are, because they are hashes already.
pub(super) type AlreadyHashed = BuildHasherDefault<Identity>;

#[derive(Debug, Clone, Default)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 and u128 are hashed")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(numbers: &mut LineNumbers, line: &str) -> Result<i32, &'static str> {
        let parts: Vec<&str> = line.split('/').collect();
        let order = OrderId::new(parts[0]).unwrap();
        let (user, item) = (UserId::new(parts[1]).unwrap(), ItemId::new(parts[2]).unwrap());
        numbers.next(&order, &user, &item).map_err(|error| error.reason)
    }

    fn check(limits: Limits, lines: &[(&str, Result<i32, &'static str>)]) {
        let mut numbers = LineNumbers::new(limits);
        for (position, (line, want)) in lines.iter().enumerate() {
            assert_eq!(number(&mut numbers, line), *want, "{line}, line {position}");
        }
    }

    const APART: Result<i32, &str> = Err("ORDER_LINES_APART");

    #[test]
    fn lines_are_counted_within_order_user_and_item() {
        let limits = Limits {
            counts: 100,
            closed_orders: 100,
        };
        check(
            limits,
            &[
                ("1/ann/tea", Ok(1)),
                ("1/ann/tea", Ok(2)),
                ("1/ann/pot", Ok(1)),
                ("1/bob/tea", Ok(1)),
                ("2/ann/tea", Ok(1)),
                ("1/ann/tea", Ok(3)),
                ("1/annt/ea", Ok(1)),
                ("1/ann/pot", Ok(2)),
            ],
        );
    }

    #[test]
    fn a_closed_order_takes_no_more_lines() {
        let limits = Limits {
            counts: 3,
            closed_orders: 100,
        };
        check(
            limits,
            &[
                ("1/ann/tea", Ok(1)),
                ("1/ann/pot", Ok(1)),
                ("2/ann/tea", Ok(1)),
                // Order 1 is still open.
                ("1/ann/tea", Ok(2)),
                // This line closes order 1.
                ("3/ann/tea", Ok(1)),
                ("1/ann/tea", APART),
                ("1/ann/new", APART),
                ("2/ann/tea", Ok(2)),
                ("3/ann/pot", Ok(1)),
                ("4/ann/tea", Ok(1)),
                ("2/ann/tea", APART),
                // An order with more lines than counts are kept is closed while it is read.
                ("5/ann/1", Ok(1)),
                ("5/ann/2", Ok(1)),
                ("5/ann/3", Ok(1)),
                ("5/ann/4", Ok(1)),
                ("5/ann/5", APART),
                ("6/ann/1", Ok(1)),
            ],
        );
    }

    #[test]
    fn no_order_is_opened_when_too_many_are_closed() {
        let limits = Limits {
            counts: 1,
            closed_orders: 2,
        };
        check(
            limits,
            &[
                ("1/ann/tea", Ok(1)),
                ("2/ann/tea", Ok(1)),
                ("3/ann/tea", Ok(1)),
                ("3/ann/tea", Ok(2)),
                ("4/ann/tea", APART),
                ("3/ann/tea", Ok(3)),
            ],
        );
    }

    #[test]
    fn memory_is_bounded() {
        let limits = Limits {
            counts: 10,
            closed_orders: 20,
        };
        let mut numbers = LineNumbers::new(limits);
        for order in 0..1000 {
            let _ = number(&mut numbers, &format!("{order}/ann/tea"));
            assert!(numbers.counts.len() <= 10 && numbers.queue.len() <= 10 && numbers.open.len() <= 10);
            assert!(numbers.closed.len() <= 21);
        }
    }
}
