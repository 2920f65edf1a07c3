//! Whole orders: all lines of an order at one moment.

use sha2::{Digest, Sha256};

use super::error::InvalidField;
use super::id::OrderId;
use super::purchase::PurchaseLine;
use super::time::Timestamp;

/// One version of an order. The newest replaces all lines of the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    id: OrderId,
    updated_at: Timestamp,
    lines: Vec<PurchaseLine>,
}

/// The version of an order. The greater one of two versions is kept.
///
/// The version with the later `updated_at` is greater. Where two of the same instant have other lines, a cancellation is
/// greater; where neither is one, the version with the greater hash is. Nobody can know which one is right, but the choice is
/// the same whatever order they arrive in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderVersion {
    pub updated_at: Timestamp,
    is_cancelled: bool,
    content_hash: [u8; 32],
}

impl OrderVersion {
    /// `content_hash`: as [`content_hash`](Self::content_hash) returns it.
    pub fn new(updated_at: Timestamp, content_hash: [u8; 32]) -> Self {
        Self {
            updated_at,
            is_cancelled: content_hash == hash(&[]),
            content_hash,
        }
    }

    /// Returns a SHA-256 of all that the lines say.
    pub fn content_hash(&self) -> [u8; 32] {
        self.content_hash
    }
}

impl Order {
    /// Makes a version of the order `id`. Without `lines` it cancels the order.
    ///
    /// `lines`: of this order, each with the time that its source gave.
    ///
    /// # Errors
    /// `DUPLICATE_LINE_NUMBER`, naming the second of two lines with one number.
    pub fn new(id: OrderId, updated_at: Timestamp, mut lines: Vec<PurchaseLine>) -> Result<Self, InvalidField> {
        let mut numbers: Vec<(i32, usize)> = lines.iter().map(|line| line.line_number).zip(0..).collect();
        numbers.sort_unstable();
        if let Some(pair) = numbers.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let (number, second) = pair[1];
            return Err(InvalidField::new(
                format!("lines[{second}].line_number"),
                "DUPLICATE_LINE_NUMBER",
                format!(
                    "must be the only one in the order, is {number} as in lines[{}]",
                    pair[0].1
                ),
            ));
        }
        lines.sort_unstable_by_key(|line| line.line_number);
        Ok(Self { id, updated_at, lines })
    }

    pub fn id(&self) -> &OrderId {
        &self.id
    }

    /// Returns the lines, ascending by number.
    pub fn lines(&self) -> &[PurchaseLine] {
        &self.lines
    }

    pub fn version(&self) -> OrderVersion {
        OrderVersion::new(self.updated_at, hash(&self.lines))
    }
}

/// Hashes every field of `lines`, each behind its length.
fn hash(lines: &[PurchaseLine]) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |field: &[u8]| {
        hash.update((field.len() as u64).to_le_bytes());
        hash.update(field);
    };
    for line in lines {
        add(&line.line_number.to_le_bytes());
        add(line.user.as_str().as_bytes());
        add(line.item.as_str().as_bytes());
        add(&line.quantity.to_le_bytes());
        add(&line.line_total.amount_minor.to_le_bytes());
        add(line.line_total.currency.to_string().as_bytes());
        add(&line.purchased_at.at().timestamp_micros().to_le_bytes());
        add(&line.coupon_discount_minor.to_le_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ItemId, UserId};
    use crate::money::{Currency, Money};
    use crate::time::EventTime;
    use chrono::DateTime;

    fn line(line_number: i32, item: &str) -> PurchaseLine {
        PurchaseLine {
            order: OrderId::new("o").unwrap(),
            line_number,
            user: UserId::new("u").unwrap(),
            item: ItemId::new(item).unwrap(),
            quantity: 1,
            line_total: Money {
                amount_minor: 100,
                currency: Currency::new("GBP").unwrap(),
            },
            purchased_at: EventTime::Given(DateTime::UNIX_EPOCH),
            coupon_discount_minor: 0,
        }
    }

    fn order(second: i64, lines: &[PurchaseLine]) -> Order {
        let updated_at = DateTime::from_timestamp(second, 0).unwrap();
        Order::new(OrderId::new("o").unwrap(), updated_at, lines.to_vec()).unwrap()
    }

    #[test]
    fn a_later_version_is_greater_and_a_cancellation_at_the_same_instant() {
        let [first, second] = [order(1, &[line(1, "a")]), order(1, &[line(1, "b")])].map(|order| order.version());
        assert_ne!(first, second);
        let cancelled = order(1, &[]).version();
        assert!(cancelled > first && cancelled > second);
        for version in [first, second, cancelled] {
            assert!(order(2, &[line(1, "a")]).version() > version);
            assert!(order(2, &[]).version() > version);
            assert_eq!(OrderVersion::new(version.updated_at, version.content_hash()), version);
        }
    }

    #[test]
    fn versions_are_equal_where_all_lines_say_the_same() {
        let both = [line(1, "a"), line(2, "b")];
        let version = order(1, &both).version();
        let swapped = [both[1].clone(), both[0].clone()];
        assert_eq!(order(1, &swapped).version(), version);
        let changes: [fn(&mut PurchaseLine); 8] = [
            |line| line.line_number = 3,
            |line| line.user = UserId::new("v").unwrap(),
            |line| line.item = ItemId::new("c").unwrap(),
            |line| line.quantity = -1,
            |line| line.line_total.amount_minor = 101,
            |line| line.line_total.currency = Currency::new("EUR").unwrap(),
            |line| line.purchased_at = EventTime::Given(DateTime::from_timestamp(1, 0).unwrap()),
            |line| line.coupon_discount_minor = 1,
        ];
        for change in changes {
            let mut lines = both.clone();
            change(&mut lines[1]);
            assert_ne!(order(1, &lines).version(), version, "{lines:?}");
        }
    }

    #[test]
    fn a_line_number_given_twice_is_named() {
        let lines = vec![line(2, "a"), line(1, "b"), line(2, "c")];
        let error = Order::new(OrderId::new("o").unwrap(), DateTime::UNIX_EPOCH, lines).unwrap_err();
        assert_eq!(
            error.to_string(),
            "lines[2].line_number: must be the only one in the order, is 2 as in lines[0]"
        );
    }
}
