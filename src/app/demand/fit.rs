//! Fits the demand of items on the sales that were read, and on what users are expected to buy.

use crate::store::snapshots::training::sales::Sales;
use demand::collaborative::UserForecasts;
use demand::model::{DatedHistory, Demand, DemandModel, NoSales};
use domain::time::Timestamp;
use recommender::evaluation::error::EvaluationError;
use recommender::evaluation::user_purchases::expected_weekly_units;
use recommender::snapshot::parameters::TrainingParameters;
use recommender::snapshot::settings::{FittedSettings, ScoreSettings};
use recommender::training::input::TrainingInput;

use super::forecast::monday;

/// The data from which the purchases of users are expected.
pub struct UserModel<'a> {
    pub input: &'a TrainingInput,
    pub parameters: &'a TrainingParameters,
    pub settings: FittedSettings,
}

impl UserModel<'_> {
    /// Expects what users buy from each of `origins` on, by what is known then.
    ///
    /// # Errors
    /// As the fit of a model.
    pub fn forecasts(
        &self,
        origins: impl IntoIterator<Item = usize>,
        first_week: i64,
    ) -> Result<UserForecasts, EvaluationError> {
        let forecast = |origin: usize| {
            let before = monday(first_week + origin as i64);
            expected_weekly_units(self.input, self.parameters, &self.settings, before)
        };
        UserForecasts::new(origins, forecast)
    }
}

/// Returns the settings by which users are expected to buy where none are fitted: own habits count as much as the rest, and
/// similarities of few co-raters little.
pub fn unfitted_settings() -> FittedSettings {
    let plain = FittedSettings::default();
    FittedSettings {
        all_items: ScoreSettings {
            habit_weight: 1.0,
            ..plain.all_items
        },
        significance: 20.0,
        ..plain
    }
}

/// Fits everything, or says why there is nothing to fit on. Takes long, so that it must not run on an async worker.
///
/// Where what users are expected to buy cannot be computed, it has no weight.
pub fn fit(mut sales: Sales, n_items: usize, as_of: Timestamp, users: &UserModel<'_>) -> Demand {
    let fitted = dated(&mut sales, n_items, as_of).and_then(|dated| {
        let DatedHistory {
            first_week,
            origin,
            history,
        } = dated;
        DemandModel::fit(history, first_week, origin, sales.left_out_share)
    });
    let fitted = fitted.map(|model| {
        let origins = UserForecasts::origins(model.origin);
        match users.forecasts(origins, model.first_week) {
            Ok(forecasts) => model.with_users(&forecasts),
            Err(error) => {
                tracing::warn!(%error, "what users will buy is not expected: {error}");
                model
            }
        }
    });
    match fitted {
        Ok(model) => {
            let (lines, weeks) = (model.history.weeks().len(), model.origin);
            tracing::info!(
                lines,
                weeks,
                "fitted the demand of items on {lines} order lines of {weeks} weeks"
            );
            Demand::Fitted(Box::new(model))
        }
        Err(error) => Demand::NotFitted {
            reason: error.to_string(),
        },
    }
}

/// Sorts the recorded lines into weeks.
///
/// # Errors
/// [`NoSales`] without any line.
pub fn dated(sales: &mut Sales, n_items: usize, as_of: Timestamp) -> Result<DatedHistory, NoSales> {
    DatedHistory::new(&mut sales.lines, n_items, &sales.stock_outs, as_of.timestamp())
}
