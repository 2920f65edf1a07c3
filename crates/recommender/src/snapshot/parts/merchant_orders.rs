//! The part `merchant_orders`, optional: when each user last bought something from each merchant. Without it, rules of a
//! merchant's campaign about the time of the last order hold for nobody.
//!
//! | column | contents |
//! |---|---|
//! | integers, m | the number of merchants that the user has bought from |
//! | integers, k | positions of merchants in the catalog, strictly ascending for each user |
//! | integers, k | last order: seconds since 1970, two's complement in 64 bits |

use super::{Absence, Optional, Part, Reader, Redact, SnapshotParts, Writer, check_length};
use crate::snapshot::SnapshotError;
use crate::snapshot::codec::CodecError;
use crate::snapshot::merchant_orders::MerchantOrders;

pub(in crate::snapshot) struct MerchantOrdersPart;

impl Part for MerchantOrdersPart {
    const NAME: &'static str = "merchant_orders";

    type Contents = Optional<MerchantOrders>;

    const REDACT: Option<Redact<Self::Contents>> = Some(|orders, erased| {
        if let Optional::Present(orders) = orders {
            let columns = (&mut orders.merchants, &mut orders.last_order_at);
            orders.offsets = erased.drop_rows(&orders.offsets, columns);
        }
    });

    fn is_present(parts: &SnapshotParts) -> bool {
        parts.merchant_orders.get().is_ok()
    }

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        if let Ok(orders) = parts.merchant_orders.get() {
            to.lengths(&orders.offsets);
            to.integers(orders.merchants.iter().map(|&merchant| u64::from(merchant)));
            to.integers(orders.last_order_at.iter().map(|&at| at as u64));
        }
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        let offsets = from.offsets("lengths")?;
        let merchants = from.u32s("merchants")?;
        let last_order_at: Vec<i64> = from.u64s("last order")?.into_iter().map(|at| at as i64).collect();
        Ok(Optional::Present(MerchantOrders {
            offsets,
            merchants,
            last_order_at,
        }))
    }

    fn missing(absence: Absence) -> Option<Self::Contents> {
        Some(Optional::Missing(absence))
    }

    fn validate(parts: &SnapshotParts) -> Result<(), SnapshotError> {
        let Ok(orders) = parts.merchant_orders.get() else {
            return Ok(());
        };
        check_length(
            "merchant orders",
            parts.users.len(),
            orders.offsets.len().saturating_sub(1),
        )?;
        let n_entries = orders.offsets.last().map_or(0, |&end| end as usize);
        check_length("merchant orders (merchants)", n_entries, orders.merchants.len())?;
        check_length("merchant orders (times)", n_entries, orders.last_order_at.len())?;
        let n_merchants = parts.catalog.merchants.len();
        let is_valid = |row: &[u64]| {
            let merchants = &orders.merchants[row[0] as usize..row[1] as usize];
            merchants.is_sorted_by(|a, b| a < b) && merchants.last().is_none_or(|&last| (last as usize) < n_merchants)
        };
        match orders.offsets.windows(2).all(is_valid) {
            true => Ok(()),
            false => Err(SnapshotError::Value {
                part: "merchant orders",
            }),
        }
    }
}
