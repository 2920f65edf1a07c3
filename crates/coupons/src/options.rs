//! How coupons are offered and redeemed.

use domain::error::InvalidField;

/// Section `coupons`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CouponOptions {
    /// Most coupons that a user is offered within `exposure_window_days`; 0: no limit.
    pub max_exposures: u32,
    /// At least 1.
    pub exposure_window_days: u32,
    /// How often reservations that have expired are given back; at least 1.
    pub sweep_interval_ms: u64,
    /// Fewest redemptions of past campaigns from which the propensity is fitted.
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
    /// # Errors
    /// Names the key.
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
