//! Times on the wire.

use chrono::Utc;
use prost_types::Timestamp;

/// 2025-01-01T00:00:00Z.
pub const EPOCH_SECONDS: i64 = 1_735_689_600;

/// The time so many seconds after 2025-01-01, which every test's configuration accepts.
pub fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: EPOCH_SECONDS + seconds,
        nanos: 0,
    })
}

pub fn seconds_now() -> i64 {
    Utc::now().timestamp()
}
