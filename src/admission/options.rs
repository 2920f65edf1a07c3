//! Configuration of the limits of API keys.

use domain::error::InvalidField;

/// Section `access`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessOptions {
    /// Requests a second that each key may send to each server, on average; 0 means no limit.
    pub requests_per_second: u32,
    /// Requests that a key may send at once before the average counts.
    pub burst: u32,
    /// Requests that each key may have under way on each server at a time; 0 means no limit.
    pub max_concurrent_requests: usize,
}

impl Default for AccessOptions {
    fn default() -> Self {
        Self {
            requests_per_second: 0,
            burst: 1_000,
            max_concurrent_requests: 512,
        }
    }
}

impl AccessOptions {
    /// # Errors
    /// Names the configuration key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        if self.burst == 0 {
            return Err(InvalidField::new(
                "access.burst",
                "OUT_OF_RANGE",
                "must be 1 or more, is 0",
            ));
        }
        Ok(())
    }
}
