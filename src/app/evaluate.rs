//! Evaluates parameters on past data without training a snapshot.

use crate::store::postgres::pool::Pool;
use coupons::backtest::{Backtest, BacktestOptions, backtest};
use domain::consent::PrivacyOptions;
use domain::time::Timestamp;
use recommender::evaluation::error::EvaluationError;
use recommender::evaluation::evaluate::{self, Evaluated};
use recommender::evaluation::held_out::HeldOutParts;
use recommender::evaluation::options::EvaluationOptions;
use recommender::evaluation::report::ParametersOf;
use recommender::evaluation::split::Cut;
use recommender::evaluation::trade_offs::{TradeOff, trade_offs};
use recommender::ranking::adjust::Adjustments;
use recommender::snapshot::parameters::TrainingParameters;

use super::train::{TrainError, compute};
use super::training_input;

/// Fits `parameters` on the data before a cut in time and measures on the data after it, also the chosen ranker with each of
/// `settings`.
///
/// `split_at`: the date of the cut; if absent, the last weeks are held out as in training. `privacy`: whose
/// data may be used.
pub async fn evaluate(
    pool: &Pool,
    parameters: TrainingParameters,
    split_at: Option<Timestamp>,
    options: EvaluationOptions,
    privacy: &PrivacyOptions,
    settings: Vec<Adjustments>,
) -> Result<(Evaluated, Vec<TradeOff>), TrainError> {
    let input = training_input::read(pool, privacy).await?.input;
    let cut = split_at.map_or(Cut::Latest, |at| Cut::At { at });
    let evaluated = compute(move || {
        let held_out = HeldOutParts::new(&input, &parameters, &cut, &options)?;
        let evaluated = evaluate::evaluate(&input, &held_out, &parameters, None, ParametersOf::Candidate)?;
        let measured = match settings.is_empty() {
            true => Vec::new(),
            false => trade_offs(&input, &held_out, &parameters, &evaluated, &settings)?,
        };
        Ok::<_, EvaluationError>((evaluated, measured))
    });
    Ok(evaluated.await??)
}

/// Ranks and predicts the redeemers of past campaigns, each by the data from before it started.
pub async fn evaluate_coupons(
    pool: &Pool,
    parameters: TrainingParameters,
    options: BacktestOptions,
    privacy: &PrivacyOptions,
) -> Result<Backtest, TrainError> {
    let input = training_input::read(pool, privacy).await?.input;
    let backtest = compute(move || backtest(&input, &parameters, &options));
    Ok(backtest.await??)
}
