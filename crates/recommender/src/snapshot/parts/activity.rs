//! The part `activity`:
//!
//! | column | contents |
//! |---|---|
//! | 8 bytes | when the input was read: seconds since 1970, two's complement |
//! | integers, m | orders |
//! | integers, m | spend in minor units, two's complement in 64 bits |
//! | integers, m | last order: seconds since 1970, two's complement in 64 bits |
//! | integers, m | order lines with a coupon's discount |
//! | integers, m | redemptions |
//! | integers, m | campaigns |

use super::{Part, Reader, Redact, SnapshotParts, Writer, check_length};
use crate::snapshot::SnapshotError;
use crate::snapshot::activity::Activity;
use crate::snapshot::codec::CodecError;

pub(in crate::snapshot) struct ActivityPart;

impl Part for ActivityPart {
    const NAME: &'static str = "activity";

    type Contents = Activity;

    const REDACT: Option<Redact<Self::Contents>> = Some(|activity, erased| {
        erased.reset(&mut activity.orders);
        erased.reset(&mut activity.spend_minor);
        erased.reset(&mut activity.last_order_at);
        erased.reset(&mut activity.discounted_lines);
        erased.reset(&mut activity.redemptions);
        erased.reset(&mut activity.campaigns);
    });

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        let activity = &parts.activity;
        to.u64(activity.as_of as u64);
        to.integers(activity.orders.iter().map(|&orders| u64::from(orders)));
        to.integers(activity.spend_minor.iter().map(|&spend| spend as u64));
        to.integers(activity.last_order_at.iter().map(|&at| at as u64));
        for counts in [&activity.discounted_lines, &activity.redemptions, &activity.campaigns] {
            to.integers(counts.iter().map(|&count| u64::from(count)));
        }
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
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

    fn validate(parts: &SnapshotParts) -> Result<(), SnapshotError> {
        let mut lengths = parts.activity.lengths().into_iter();
        lengths.try_for_each(|actual| check_length(Self::NAME, parts.users.len(), actual))
    }
}
