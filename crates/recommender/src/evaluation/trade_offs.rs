//! Measures what adjusted rankings cost and bring: accuracy against how evenly items are shown.

use rayon::prelude::*;

use crate::ranking::adjust::Adjustments;
use crate::ranking::rank::{Personalization, RankOptions, Recipient, Scratch, recommend};
use crate::snapshot::dictionary::ItemIndex;
use crate::snapshot::parameters::TrainingParameters;
use crate::snapshot::view::View;
use crate::training::input::TrainingInput;

use super::bias::options::BiasOptions;
use super::bias::report::RankerBias;
use super::bias::{Shop, TestUser, measure};
use super::error::EvaluationError;
use super::evaluate::{Evaluated, model_before};
use super::held_out::{EvaluationCase, HeldOutParts};
use super::report::ItemScope;

/// The length of the lists.
const LIMIT: usize = 20;
/// The least users that a scratch serves, because it is as long as the catalog.
const MIN_USERS_PER_SCRATCH: usize = 64;

/// The figures of the chosen ranker with some adjustments, on new items of the test part.
#[derive(Debug, Clone, PartialEq)]
pub struct TradeOff {
    pub adjustments: Adjustments,
    pub users: u64,
    pub ndcg_at_10: f64,
    /// The share of the listed items that are in any user's first 20.
    pub coverage_at_20: f64,
    /// The Gini index of how often each listed item is in a first 20.
    pub gini: f64,
    /// The mean number of users of the items in the first 20.
    pub mean_popularity: f64,
    /// The share of the places that the items with the last 20 % of all ratings have.
    pub long_tail_share: f64,
    /// The mean divergence of the categories of the first 20 from those of the history; `None` without categories.
    pub divergence: Option<f64>,
}

/// Measures each of `settings`. Recommendations are made as for a request that excludes the history and names no basis.
///
/// `evaluated`: from the same `input`, `held_out` and `parameters`. Returns one entry for each setting, in order; none without
/// users. Runs on the current rayon pool; the result is the same for any number of threads.
///
/// # Errors
/// None if `evaluated` was made of the same data.
pub fn trade_offs(
    input: &TrainingInput,
    held_out: &HeldOutParts,
    parameters: &TrainingParameters,
    evaluated: &Evaluated,
    settings: &[Adjustments],
) -> Result<Vec<TradeOff>, EvaluationError> {
    let fitted = &evaluated.fitted;
    let parameters = parameters.resolved(&fitted.settings);
    let view = model_before(&held_out.test, input, held_out, &parameters, fitted)?;
    let cases = held_out.test.cases.iter().filter(|case| !case.relevant_new.is_empty());
    let cases: Vec<&EvaluationCase> = cases.collect();
    let popularity = view.snapshot.popularity();
    let users: Vec<u32> = (0..popularity.len() as u32)
        .map(|item| popularity.raters(ItemIndex(item)))
        .collect();
    let shop = Shop {
        catalog: &input.catalog,
        users: &users,
        orders: &vec![0; users.len()],
    };
    let measured = settings.iter().filter_map(|adjustments| {
        let lists = adjusted_lists(&view, input, &cases, adjustments);
        let users: Vec<TestUser> = cases
            .iter()
            .zip(&lists)
            .map(|(case, (items, is_personal))| TestUser {
                history: &case.history,
                shown: items,
                relevant: &case.relevant_new,
                is_personal: *is_personal,
            })
            .collect();
        let top = |top| {
            measure(
                evaluated.ranker(ItemScope::New).name,
                top,
                &shop,
                &users,
                &[],
                &BiasOptions::default(),
                0,
            )
        };
        Some(trade_off(*adjustments, &top(10)?, &top(20)?))
    });
    Ok(measured.collect())
}

fn trade_off(adjustments: Adjustments, ten: &RankerBias, twenty: &RankerBias) -> TradeOff {
    TradeOff {
        adjustments,
        users: ten.users,
        ndcg_at_10: ten.ndcg,
        coverage_at_20: twenty.exposure.coverage,
        gini: twenty.exposure.gini,
        mean_popularity: twenty.exposure.mean_popularity,
        long_tail_share: twenty.exposure.long_tail.exposure_share,
        divergence: twenty.calibration.as_ref().map(|calibration| calibration.divergence),
    }
}

/// Returns the list of each case, and whether it is personal.
fn adjusted_lists(
    view: &View,
    input: &TrainingInput,
    cases: &[&EvaluationCase],
    adjustments: &Adjustments,
) -> Vec<(Vec<ItemIndex>, bool)> {
    let options = RankOptions {
        limit: LIMIT,
        exclude_history: true,
        adjustments: (!adjustments.is_none()).then_some(*adjustments),
        ..RankOptions::default()
    };
    let list = |scratch: &mut Scratch, case: &&EvaluationCase| {
        // The users of the cases have a history before the test part, so that the model knows them.
        let Some(user) = view.snapshot.users().find(input.users.id(case.user)) else {
            return (Vec::new(), false);
        };
        let answer = recommend(view, &Recipient::UserIndex(user), &options, scratch);
        let is_personal = answer.personalization == Personalization::Personalized;
        (answer.items.into_iter().map(|found| found.item).collect(), is_personal)
    };
    cases
        .par_iter()
        .with_min_len(MIN_USERS_PER_SCRATCH)
        .map_init(Scratch::default, list)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::evaluate::evaluate;
    use crate::evaluation::options::EvaluationOptions;
    use crate::evaluation::report::ParametersOf;
    use crate::evaluation::split::Cut;
    use crate::evaluation::testing::tastes;
    use crate::training::testing::at;

    #[test]
    fn without_adjustments_the_figures_are_those_of_the_evaluation() {
        let (input, parameters) = (tastes(), TrainingParameters::default());
        let cut = Cut::At { at: at(90) };
        let held_out = HeldOutParts::new(&input, &parameters, &cut, &EvaluationOptions::default()).unwrap();
        let evaluated = evaluate(&input, &held_out, &parameters, None, ParametersOf::Candidate).unwrap();
        let diverse = |diversity| Adjustments {
            diversity,
            ..Adjustments::default()
        };
        let settings = [diverse(0.0), diverse(0.9)];
        let found = trade_offs(&input, &held_out, &parameters, &evaluated, &settings).unwrap();
        let metrics = evaluated
            .ranking(evaluated.ranker(ItemScope::New), ItemScope::New)
            .unwrap();
        let [plain, diverse] = &found[..] else {
            panic!("{found:?}")
        };
        assert_eq!(
            (
                plain.users,
                plain.ndcg_at_10,
                plain.coverage_at_20,
                plain.gini,
                plain.mean_popularity
            ),
            (
                metrics.users,
                metrics.ndcg_at_10,
                metrics.coverage_at_20,
                metrics.gini,
                metrics.mean_popularity
            )
        );
        assert_eq!((plain.divergence, diverse.adjustments), (None, settings[1]));
        // Users like the items of their taste, which are alike, so that variety costs accuracy.
        assert!(diverse.ndcg_at_10 < plain.ndcg_at_10, "{found:?}");
    }
}
