//! Options for the freshness of answers and its cost in memory.

use domain::error::InvalidField;

/// Section `live`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LiveOptions {
    /// The longest time until a change made by another process shows here.
    pub refresh_interval_ms: u64,
    /// The number of snapshots that are kept in memory beside the active one for an instant rollback: 0 or 1. The kept one is
    /// freed before another one is loaded, so that there are never three.
    pub keep_previous: u8,
    /// The most ratings, purchases and catalog entries newer than the snapshot that are held in memory: about 200 bytes
    /// each, plus the texts of an item, up to 1,024 bytes for a title. Changes of what the snapshot holds do not count.
    pub max_overlay_entries: usize,
}

impl Default for LiveOptions {
    fn default() -> Self {
        Self {
            refresh_interval_ms: 1_000,
            keep_previous: 1,
            max_overlay_entries: 1_000_000,
        }
    }
}

impl LiveOptions {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Names the key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        if self.refresh_interval_ms == 0 {
            return Err(InvalidField::new(
                "live.refresh_interval_ms",
                "OUT_OF_RANGE",
                "must be 1 or more, is 0",
            ));
        }
        if self.keep_previous > 1 {
            return Err(InvalidField::new(
                "live.keep_previous",
                "OUT_OF_RANGE",
                format!("must be 0 or 1, is {}", self.keep_previous),
            ));
        }
        Ok(())
    }
}
