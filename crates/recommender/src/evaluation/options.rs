//! The configuration of evaluations.

use domain::error::InvalidField;

/// Section `evaluation` of the configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationOptions {
    /// The last weeks, for all users, that are held out for the figures, but at most a quarter of the data's time. As long a
    /// time before them serves to fit on. 1 to 520.
    pub test_weeks: u32,
    /// The share of a user's ratings that is held out for the figures where their times say nothing; above 0, at most 0.5.
    pub test_share: f64,
    /// The share of a user's ratings that the weights are fitted on where their times say nothing; above 0, at most 0.5.
    pub validation_share: f64,
    /// The most users that a model is asked about, drawn by `training.seed`; 0 for all. With fewer than `gate.min_users` no
    /// run can be judged.
    pub max_users: usize,
}

/// Ten years.
const MAX_TEST_WEEKS: u32 = 520;

impl Default for EvaluationOptions {
    fn default() -> Self {
        Self {
            test_weeks: 8,
            test_share: 0.2,
            validation_share: 0.1,
            max_users: 10_000,
        }
    }
}

impl EvaluationOptions {
    /// Checks the values.
    ///
    /// # Errors
    /// `OUT_OF_RANGE`, naming the key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        if !(1..=MAX_TEST_WEEKS).contains(&self.test_weeks) {
            let message = format!("must lie between 1 and {MAX_TEST_WEEKS}, is {}", self.test_weeks);
            return Err(InvalidField::new("evaluation.test_weeks", "OUT_OF_RANGE", message));
        }
        for (key, share) in [
            ("evaluation.test_share", self.test_share),
            ("evaluation.validation_share", self.validation_share),
        ] {
            if !(share > 0.0 && share <= 0.5) {
                let message = format!("must be above 0 and at most 0.5, is {share}");
                return Err(InvalidField::new(key, "OUT_OF_RANGE", message));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_must_be_weeks_to_test_on() {
        let check = |test_weeks, is_valid: bool| {
            let options = EvaluationOptions {
                test_weeks,
                ..EvaluationOptions::default()
            };
            let found = options.validate().err().map(|error| error.field);
            let expected = (!is_valid).then_some("evaluation.test_weeks");
            assert_eq!(found.as_deref(), expected, "{test_weeks}");
        };
        check(1, true);
        check(520, true);
        check(0, false);
        check(521, false);
    }

    #[test]
    fn shares_must_leave_something_to_fit_on() {
        let check = |test_share, validation_share, field: Option<&str>| {
            let options = EvaluationOptions {
                test_share,
                validation_share,
                ..EvaluationOptions::default()
            };
            let found = options.validate().err().map(|error| error.field);
            assert_eq!(found.as_deref(), field, "{test_share} {validation_share}");
        };
        check(0.2, 0.1, None);
        check(0.5, 0.5, None);
        for bad in [0.0, -0.1, 0.51, f64::NAN, f64::INFINITY] {
            check(bad, 0.1, Some("evaluation.test_share"));
            check(0.2, bad, Some("evaluation.validation_share"));
        }
    }
}
