//! The part `orders`, optional: how often and how lately items were ordered. Without it there are no trends and no own habits.
//!
//! | column | contents |
//! |---|---|
//! | 8 bytes | the time of the newest order: seconds since 1970, two's complement |
//! | doubles, 1 | the half-life in days |
//! | lengths, m | how many items each user has bought |
//! | integers | the number of orders of each item that a user has bought, in the order of the purchased entries of `ratings` |
//! | floats | Σ 2^(−age/half-life) over these orders |
//! | integers, n | orders of each item |
//! | floats, n | Σ 2^(−age/half-life) over them |
//! | integers, n | users with an order of the item |
//! | integers, n | users with at least two |

use super::{Absence, Optional, Part, Reader, Redact, SnapshotParts, Writer, check_length};
use crate::snapshot::SnapshotError;
use crate::snapshot::codec::CodecError;
use crate::snapshot::orders::{ItemOrders, Orders};

pub(in crate::snapshot) struct OrdersPart;

impl Part for OrdersPart {
    const NAME: &'static str = "orders";

    type Contents = Optional<Orders>;

    /// The sums of items stay, as their neighbor lists do.
    const REDACT: Option<Redact<Self::Contents>> = Some(|orders, erased| {
        if let Optional::Present(orders) = orders {
            let columns = (&mut orders.counts, &mut orders.recent);
            orders.offsets = erased.drop_rows(&orders.offsets, columns);
        }
    });

    fn is_present(parts: &SnapshotParts) -> bool {
        parts.orders.get().is_ok()
    }

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        let Ok(orders) = parts.orders.get() else { return };
        to.u64(orders.newest_at as u64);
        to.doubles(&[orders.half_life_days]);
        to.lengths(&orders.offsets);
        to.integers(orders.counts.iter().map(|&count| u64::from(count)));
        to.floats(&orders.recent);
        let items = &orders.items;
        to.integers(items.orders.iter().map(|&count| u64::from(count)));
        to.floats(&items.recent);
        for counts in [&items.buyers, &items.repeat_buyers] {
            to.integers(counts.iter().map(|&count| u64::from(count)));
        }
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        let newest_at = from.u64("newest order")? as i64;
        let [half_life_days] = from.doubles("half-life")?;
        Ok(Optional::Present(Orders {
            newest_at,
            half_life_days,
            offsets: from.offsets("lengths")?,
            counts: from.u32s("orders of users")?,
            recent: from.floats("recent orders of users")?.into_vec(),
            items: ItemOrders {
                orders: from.u32s("orders")?,
                recent: from.floats("recent orders")?.into_vec(),
                buyers: from.u32s("buyers")?,
                repeat_buyers: from.u32s("repeat buyers")?,
            },
        }))
    }

    fn missing(absence: Absence) -> Option<Self::Contents> {
        Some(Optional::Missing(absence))
    }

    fn validate(parts: &SnapshotParts) -> Result<(), SnapshotError> {
        let (n, Ok(orders)) = (parts.items.len(), parts.orders.get()) else {
            return Ok(());
        };
        check_length("orders (rows)", parts.users.len() + 1, orders.offsets.len())?;
        let n_bought = parts.purchased.count_ones();
        check_length("orders of users", n_bought, orders.counts.len())?;
        check_length("recent orders of users", n_bought, orders.recent.len())?;
        let items = &orders.items;
        check_length("orders of items", n, items.orders.len())?;
        check_length("recent orders of items", n, items.recent.len())?;
        check_length("buyers", n, items.buyers.len())?;
        check_length("repeat buyers", n, items.repeat_buyers.len())?;
        for user in 0..parts.users.len() {
            let bought = parts.ratings.row_range(user).filter(|&at| parts.purchased.get(at));
            check_length(
                "orders (purchased entries)",
                bought.count(),
                orders.row_range(user).len(),
            )?;
        }
        let is_sum = |sum: &f32| sum.is_finite() && *sum >= 0.0;
        let sums = orders.recent.iter().chain(&items.recent);
        let half_life = (f64::MIN_POSITIVE..=1e6).contains(&orders.half_life_days);
        match half_life && sums.copied().all(|sum| is_sum(&sum)) && !orders.counts.contains(&0) {
            true => Ok(()),
            false => Err(SnapshotError::Value { part: Self::NAME }),
        }
    }
}
