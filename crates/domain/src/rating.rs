//! Explicit ratings.

use super::error::InvalidField;
use super::id::{ItemId, UserId};
use super::time::Timestamp;

/// The range of ratings: finite, with `min` > 0 because an absent rating counts as 0.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RatingScale {
    pub min: f32,
    pub max: f32,
}

impl Default for RatingScale {
    fn default() -> Self {
        Self { min: 1.0, max: 5.0 }
    }
}

impl RatingScale {
    /// Checks that 0 < `min` < `max`, both finite.
    ///
    /// # Errors
    /// `INVALID_RATING_SCALE`, naming `rating.min` or `rating.max`.
    pub fn validate(&self) -> Result<(), InvalidField> {
        if !(self.min.is_finite() && self.min > 0.0) {
            return Err(InvalidField::new(
                "rating.min",
                "INVALID_RATING_SCALE",
                format!("must be finite and above 0, is {}", self.min),
            ));
        }
        if !(self.max.is_finite() && self.max > self.min) {
            return Err(InvalidField::new(
                "rating.max",
                "INVALID_RATING_SCALE",
                format!("must be finite and above rating.min ({}), is {}", self.min, self.max),
            ));
        }
        Ok(())
    }

    /// Checks that `value` lies in the range.
    ///
    /// # Errors
    /// `RATING_OUT_OF_RANGE`, naming `field`, also for NaN and the infinities.
    pub fn check(&self, field: &str, value: f32) -> Result<f32, InvalidField> {
        if value >= self.min && value <= self.max {
            return Ok(value);
        }
        Err(InvalidField::new(
            field,
            "RATING_OUT_OF_RANGE",
            format!("must lie between {} and {}, is {value}", self.min, self.max),
        ))
    }

    /// Returns `value`, moved to the nearer limit if it lies outside the range, and whether it was moved.
    #[inline]
    pub fn clamp(&self, value: f64) -> (f64, bool) {
        let clamped = value.clamp(f64::from(self.min), f64::from(self.max));
        (clamped, clamped != value)
    }
}

/// An explicit rating of an item by a user.
#[derive(Debug, Clone, PartialEq)]
pub struct Rating {
    pub user: UserId,
    pub item: ItemId,
    /// Within the [`RatingScale`].
    pub value: f32,
    /// The latest rating of an item by a user wins.
    pub rated_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratings_outside_the_scale_are_refused() {
        let scale = RatingScale::default();
        for good in [1.0, 4.5, 5.0] {
            assert_eq!(scale.check("value", good), Ok(good));
        }
        for bad in [0.0, 0.999, 5.001, -1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(
                scale.check("value", bad).unwrap_err().reason,
                "RATING_OUT_OF_RANGE",
                "{bad}"
            );
        }
    }

    #[test]
    fn a_scale_must_be_an_interval_above_zero() {
        let check = |min, max, field: Option<&str>| {
            let got = RatingScale { min, max }.validate().err().map(|error| error.field);
            assert_eq!(got.as_deref(), field, "{min} {max}");
        };
        check(1.0, 5.0, None);
        check(0.5, 10.0, None);
        check(0.0, 5.0, Some("rating.min"));
        check(f32::NAN, 5.0, Some("rating.min"));
        check(2.0, 2.0, Some("rating.max"));
        check(1.0, f32::INFINITY, Some("rating.max"));
    }
}
