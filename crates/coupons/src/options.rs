//! The configuration of coupons.

use domain::error::InvalidField;

/// Section `coupons` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CouponOptions {
    /// The most coupons that a user is offered within `exposure_window_days`; 0 for no limit.
    pub max_exposures: u32,
    /// The length of the exposure window; at least 1.
    pub exposure_window_days: u32,
    /// The interval at which expired reservations give back their amounts; at least 1.
    pub sweep_interval_ms: u64,
    /// The least redemptions of past campaigns from which the propensity is fitted; at least 1.
    pub min_redemptions: u32,
}

impl Default for CouponOptions {
    fn default() -> Self {
        Self {
            max_exposures: 0,
            exposure_window_days: 7,
            sweep_interval_ms: 1_000,
            min_redemptions: 50,
        }
    }
}

impl CouponOptions {
    /// Checks the values.
    ///
    /// # Errors
    /// `OUT_OF_RANGE`, naming the key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        for (key, value) in [
            ("coupons.exposure_window_days", u64::from(self.exposure_window_days)),
            ("coupons.sweep_interval_ms", self.sweep_interval_ms),
            ("coupons.min_redemptions", u64::from(self.min_redemptions)),
        ] {
            if value == 0 {
                return Err(InvalidField::new(key, "OUT_OF_RANGE", "must be 1 or more, is 0"));
            }
        }
        Ok(())
    }
}
