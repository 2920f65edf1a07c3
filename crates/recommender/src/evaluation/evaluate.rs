//! Evaluates parameters: fits a model on the earlier data and measures its answers about the later data.

use std::sync::Arc;

use crate::ranking::rankers::{BLENDED, POPULARITY, Ranker};
use crate::snapshot::orders::Orders;
use crate::snapshot::overlay::Overlay;
use crate::snapshot::parameters::{BlendWeights, ImplicitFeedback, TrainingParameters};
use crate::snapshot::parts::Optional;
use crate::snapshot::settings::FittedSettings;
use crate::snapshot::significance::SignificantNeighbors;
use crate::snapshot::view::View;
use crate::snapshot::{Snapshot, SnapshotParts};
use crate::training::fit::{ModelOptions, fit_each};
use crate::training::input::TrainingInput;
use crate::training::matrix::effective_ratings;
use crate::training::orders::orders;
use domain::consent::PrivacyOptions;

use super::bias::shown::ShownLists;
use super::error::EvaluationError;
use super::held_out::{HeldOutPart, HeldOutParts, Reach};
use super::ranking::{Listing, Terms};
use super::rating::rated_cases;
use super::report::{
    ItemScope, ParametersOf, RankerChoice, RankerFigure, RankingMetrics, RatingMetrics, RatingPredictor, SettingsTable,
};
use super::tuning::{HALF_LIVES_DAYS, MIN_USERS, SIGNIFICANCES, Tuned, Tuner, choose_among, item_based_figures};
use super::weights::{Ratings, fit_ratings};
use super::{ranking, rating};

/// Everything that is fitted on the validation part.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    pub weights: BlendWeights,
    pub settings: FittedSettings,
}

/// The evaluation of one set of parameters.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluated {
    /// The weights and settings that the figures were measured with.
    pub fitted: Fitted,
    /// The choice of the ranker, as it is stored.
    pub choice: RankerChoice,
    /// The settings that were tried; empty if they were given.
    pub tables: Vec<SettingsTable>,
    /// The number of users with a relevant new item in the test part. The gate needs enough of them.
    pub users: u64,
    /// The users who could have been asked about the test part.
    pub reach: Reach,
    /// The metrics of every ranker in both scopes; a scope without users has none.
    pub ranking: Vec<RankingMetrics>,
    /// The metrics of every predictor; empty without held-out ratings of new items.
    pub rating: Vec<RatingMetrics>,
    /// The lists that were measured, for the bias report.
    pub shown: ShownLists,
    /// Whether users have orders, from which own habits follow.
    pub has_habits: bool,
}

impl Evaluated {
    /// Returns the same figures under another label, for parameters that are equal.
    pub fn relabeled(mut self, of: ParametersOf) -> Self {
        self.ranking.iter_mut().for_each(|metrics| metrics.parameters = of);
        self.rating.iter_mut().for_each(|metrics| metrics.parameters = of);
        self
    }

    /// Returns the metrics of a ranker in a scope; `None` without users.
    pub fn ranking(&self, ranker: Ranker, items: ItemScope) -> Option<&RankingMetrics> {
        let mut ranking = self.ranking.iter();
        ranking.find(|metrics| metrics.ranker == ranker.name && metrics.items == items)
    }

    /// Returns the ranker of requests that name no basis, for lists of `items`.
    pub fn ranker(&self, items: ItemScope) -> Ranker {
        let settings = &self.fitted.settings;
        let default = match items {
            ItemScope::New => settings.new_items.ranker,
            ItemScope::All => settings.all_items.ranker,
        };
        Ranker::of_default(default, settings.popularity_trend_exponent)
    }
}

/// Evaluates `parameters` on the held-out parts of `input`.
///
/// It fits weights and settings on the validation part, with a model of the data before it, and then measures the figures on
/// the test part, with a model of the data before that. No model sees the data that it is asked about.
///
/// `given`: weights and settings that are taken as they are; `None` to fit them. `held_out`: made of this `input`; the same one
/// for all parameters that are compared. Runs on the current rayon pool; the result is the same for any number of threads.
///
/// # Errors
/// None if `held_out` was made of this `input`.
///
/// Source: docs/formulas.md, "Evaluation".
pub fn evaluate(
    input: &TrainingInput,
    held_out: &HeldOutParts,
    parameters: &TrainingParameters,
    given: Option<&Fitted>,
    of: ParametersOf,
) -> Result<Evaluated, EvaluationError> {
    let Choices { fitted, choice, tables } = match given {
        Some(given) => Choices::given(given.clone()),
        None => choices_on_validation(input, held_out, parameters)?,
    };
    let parameters = &parameters.resolved(&fitted.settings);
    let view = model_before(&held_out.test, input, held_out, parameters, &fitted)?;
    let rated = rated_cases(input, held_out, &held_out.test, parameters, &view)?;

    let scopes = [ItemScope::All, ItemScope::New].into_iter();
    let listing = |items, ranker| Listing {
        ranker,
        items,
        terms: Terms::of(&view, items),
    };
    let listings: Vec<Listing> = scopes
        .flat_map(|items| Ranker::available(&view.snapshot).map(move |ranker| listing(items, ranker)))
        .collect();
    let repeat_rates = view.order_terms().and_then(|terms| terms.repeat_rates.as_ref());
    let repeat_rates = repeat_rates.map(|rates| &rates[..]);
    let lists = ranking::ranked_lists(&view, &input.users, &held_out.test.cases, &listings, repeat_rates);
    let shown = ranking::shown_lists(&view, &listings, &lists);
    let seed = parameters.options.seed;
    let ranking = listings.iter().zip(&lists);
    let ranking = ranking.filter_map(|(listing, lists)| ranking::measure(&view, lists, of, listing, seed));
    let ranking = ranking.collect();

    let predictors = [
        RatingPredictor::Mean,
        RatingPredictor::ItemBased,
        RatingPredictor::UserBased,
        RatingPredictor::Blended,
    ];
    let rating = predictors.into_iter();
    let rating = rating.filter_map(|predictor| rating::measure(&view, &rated, of, predictor));
    Ok(Evaluated {
        choice,
        tables,
        users: held_out.users() as u64,
        reach: held_out.test.reach,
        ranking,
        rating: rating.collect(),
        shown,
        has_habits: view.snapshot.orders().is_ok(),
        fitted,
    })
}

/// Returns whether `fitted`, which was chosen on earlier data, still ranks no worse than popularity on the validation part.
///
/// With fewer than 50 users to tell by, it does.
///
/// # Errors
/// As [`evaluate`].
pub fn still_beats_popularity(
    input: &TrainingInput,
    held_out: &HeldOutParts,
    parameters: &TrainingParameters,
    fitted: &Fitted,
) -> Result<bool, EvaluationError> {
    let part = &held_out.validation;
    let settings = &fitted.settings;
    let view = model_before(part, input, held_out, &parameters.resolved(settings), fitted)?;
    let repeat_rates = view.order_terms().and_then(|terms| terms.repeat_rates.as_ref());
    let repeat_rates = repeat_rates.map(|rates| &rates[..]);
    let scopes = [
        (ItemScope::New, settings.new_items.ranker),
        (ItemScope::All, settings.all_items.ranker),
    ];
    let beats = |(items, default)| {
        let chosen = Ranker::of_default(default, settings.popularity_trend_exponent);
        let listing = |ranker| Listing {
            ranker,
            items,
            terms: Terms::of(&view, items),
        };
        let listings = [listing(chosen), listing(POPULARITY)];
        let lists = ranking::ranked_lists(&view, &input.users, &part.cases, &listings, repeat_rates);
        let [chosen, popularity] = [&lists[0], &lists[1]].map(|lists| ranking::mean_ndcg(lists));
        lists[0].len() < MIN_USERS || chosen >= popularity
    };
    Ok(part.cases.is_empty() || scopes.into_iter().all(beats))
}

/// The choices made on the validation part, with the figures behind them.
struct Choices {
    fitted: Fitted,
    choice: RankerChoice,
    tables: Vec<SettingsTable>,
}

impl Choices {
    /// Takes what was chosen before.
    fn given(fitted: Fitted) -> Self {
        let settings = &fitted.settings;
        let ranker = Ranker::of_default(settings.new_items.ranker, settings.popularity_trend_exponent);
        Self {
            choice: RankerChoice {
                ranker: ranker.name.to_owned(),
                users: 0,
                figures: Vec::new(),
            },
            fitted,
            tables: Vec::new(),
        }
    }
}

/// Fits weights and settings, and the rule by which purchases become ratings where that is to be fitted.
fn choices_on_validation(
    input: &TrainingInput,
    held_out: &HeldOutParts,
    parameters: &TrainingParameters,
) -> Result<Choices, EvaluationError> {
    let rules: &[ImplicitFeedback] = match parameters.options.implicit {
        ImplicitFeedback::Fitted if input.orders.is_empty() => &[ImplicitFeedback::LogOrders],
        ImplicitFeedback::Fitted => &[ImplicitFeedback::LogOrders, ImplicitFeedback::Binary],
        ref configured => std::slice::from_ref(configured),
    };
    let (mut all, mut figures) = (Vec::new(), Vec::new());
    for &rule in rules {
        let (mut choices, of_users) = choices_of(input, held_out, &parameters.with_implicit(rule))?;
        choices.fitted.settings.implicit = rule;
        all.push(choices);
        figures.push(of_users);
    }
    let chosen = choose_among(&figures, parameters.options.seed);
    Ok(all.swap_remove(chosen))
}

/// Fits weights and settings with one rule for purchases. Returns NDCG@10 on new items of every user by the chosen settings too.
fn choices_of(
    input: &TrainingInput,
    held_out: &HeldOutParts,
    parameters: &TrainingParameters,
) -> Result<(Choices, Vec<f64>), EvaluationError> {
    let unfitted = Fitted {
        weights: BlendWeights::default(),
        settings: FittedSettings::default(),
    };
    let part = &held_out.validation;
    if part.cases.is_empty() {
        let choice = RankerChoice {
            ranker: BLENDED.name.to_owned(),
            users: 0,
            figures: Vec::new(),
        };
        let choices = Choices {
            choice,
            ..Choices::given(unfitted)
        };
        return Ok((choices, Vec::new()));
    }
    let view = validation_model(input, held_out, parameters)?;
    let rated = rated_cases(input, held_out, part, parameters, &view)?;
    let Ratings { weights, shrinkage } = fit_ratings(&view, &rated);
    let orders = orders_by_half_life(input, held_out, &view);
    let tuner = Tuner {
        view: &view,
        users: &input.users,
        cases: &part.cases,
        orders: &orders,
        seed: parameters.options.seed,
    };
    let Tuned {
        settings,
        figures,
        tables,
        chosen_figures,
    } = tuner.tune();
    let ranker = Ranker::of_default(settings.new_items.ranker, settings.popularity_trend_exponent);
    let asked = part.cases.iter().filter(|case| !case.relevant_new.is_empty());
    let figures = figures.into_iter().map(|(ranker, ndcg_at_10)| RankerFigure {
        ranker: ranker.name.to_owned(),
        ndcg_at_10,
    });
    let choices = Choices {
        choice: RankerChoice {
            ranker: ranker.name.to_owned(),
            users: asked.count() as u64,
            figures: figures.collect(),
        },
        fitted: Fitted {
            weights: BlendWeights {
                ranking: settings.new_items.item_weight,
                ..weights
            },
            settings: FittedSettings {
                baseline_shrinkage: shrinkage,
                ..settings
            },
        },
        tables,
    };
    Ok((choices, chosen_figures))
}

/// Fits a model of the data before the validation part, with the item lists that rank best by themselves.
fn validation_model(
    input: &TrainingInput,
    held_out: &HeldOutParts,
    parameters: &TrainingParameters,
) -> Result<View, EvaluationError> {
    let part = &held_out.validation;
    let settings = FittedSettings::default();
    let (mut parts, all_lists) = parts_before(part, input, held_out, &settings, parameters, &SIGNIFICANCES)?;
    let mut figures = Vec::new();
    for lists in &all_lists {
        parts.significant_item_neighbors = Optional::Present(lists.clone());
        let view = view_of(Snapshot::new(parts)?);
        figures.push(item_based_figures(&view, &input.users, &part.cases));
        parts = match Arc::try_unwrap(view.snapshot) {
            Ok(snapshot) => snapshot.into_parts(),
            Err(shared) => shared.parts().clone(),
        };
    }
    let chosen = choose_among(&figures, parameters.options.seed);
    let lists = all_lists.into_iter().nth(chosen);
    parts.fitted_settings = Optional::Present(FittedSettings {
        significance: SIGNIFICANCES[chosen],
        ..settings
    });
    parts.significant_item_neighbors = lists.map_or_else(Optional::default, Optional::Present);
    // Own habits need the number of orders alone, which does not depend on the half-life.
    let keep = |user, item, at| held_out.split.part(user, item, at) < part.part;
    parts.orders = orders(input, &parts, settings.half_life_days, keep);
    Ok(view_of(Snapshot::new(parts)?))
}

/// Returns the orders before the validation part for each half-life that is tried; none without orders.
fn orders_by_half_life(input: &TrainingInput, held_out: &HeldOutParts, view: &View) -> Vec<Orders> {
    let part = held_out.validation.part;
    let keep = |user, item, at| held_out.split.part(user, item, at) < part;
    let of_half_life = |&days: &f64| match orders(input, view.snapshot.parts(), days, keep) {
        Optional::Present(orders) => Some(orders),
        Optional::Missing(_) => None,
    };
    HALF_LIVES_DAYS.iter().filter_map(of_half_life).collect()
}

/// Fits a model of all data before `part`, with the neighbors of the users whom it is asked about.
pub(super) fn model_before(
    part: &HeldOutPart,
    input: &TrainingInput,
    held_out: &HeldOutParts,
    parameters: &TrainingParameters,
    fitted: &Fitted,
) -> Result<View, EvaluationError> {
    let Fitted { weights, settings } = fitted;
    let (parts, lists) = parts_before(part, input, held_out, settings, parameters, &[settings.significance])?;
    let keep = |user, item, at| held_out.split.part(user, item, at) < part.part;
    let orders = orders(input, &parts, settings.half_life_days, keep);
    let lists = lists.into_iter().next();
    let parts = SnapshotParts {
        weights: *weights,
        significant_item_neighbors: lists.map_or_else(Optional::default, Optional::Present),
        orders,
        ..parts
    };
    Ok(view_of(Snapshot::new(parts)?))
}

/// Fits the parts of a model of all data before `part`, and the item lists for each of `significances`.
fn parts_before(
    part: &HeldOutPart,
    input: &TrainingInput,
    held_out: &HeldOutParts,
    settings: &FittedSettings,
    parameters: &TrainingParameters,
    significances: &[f64],
) -> Result<(SnapshotParts, Vec<SignificantNeighbors>), EvaluationError> {
    let is_before = |user, item, at| held_out.split.part(user, item, at) < part.part;
    let effective = effective_ratings(input, parameters, is_before)?;
    let options = ModelOptions {
        settings: *settings,
        listed_users: Some(&part.asked),
        ..ModelOptions::plain(parameters)
    };
    Ok(fit_each(input, effective, &options, significances, &|_| {})?)
}

/// Returns a view of a snapshot that nothing has been written since.
pub(super) fn view_of(snapshot: Snapshot) -> View {
    View {
        version: 0,
        redaction: 0,
        snapshot: Arc::new(snapshot),
        overlay: Arc::new(Overlay::default()),
        epoch: 0,
        privacy: PrivacyOptions::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::EvaluationOptions;
    use super::super::split::Cut;
    use super::super::testing::{N_ITEMS, N_USERS, tastes, tastes_of_two_shops};
    use super::*;
    use crate::ranking::rankers::{ITEM_BASED, USER_BASED};
    use crate::snapshot::dictionary::ItemIndex;
    use crate::snapshot::parameters::{DefaultRanker, TrainingOptions};
    use crate::training::fit::fit;
    use crate::training::testing::{at, input, order, rating};

    fn evaluated(input: &TrainingInput, parameters: &TrainingParameters, cut: &Cut) -> Evaluated {
        let held_out = HeldOutParts::new(input, parameters, cut, &EvaluationOptions::default()).unwrap();
        evaluate(input, &held_out, parameters, None, ParametersOf::Candidate).unwrap()
    }

    #[track_caller]
    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
    }

    #[test]
    fn ranking_metrics_equal_those_worked_out_by_hand() {
        // Before the split i0 and i4 have 3 raters, i1 has 2, i2 has 1, i3 none. i4 is no longer listed.
        let before = [
            order(0, 0, 0),
            order(0, 1, 1),
            order(0, 4, 1),
            order(1, 0, 0),
            order(1, 1, 1),
            order(1, 4, 1),
            order(2, 0, 0),
            order(2, 2, 1),
            order(2, 4, 1),
        ];
        let after = [order(0, 0, 10), order(0, 2, 10), order(2, 1, 11)];
        let mut input = input(3, 5, &[], &[&before[..], &after[..]].concat());
        input.catalog.listed.set(4, false);
        let found = evaluated(&input, &TrainingParameters::default(), &Cut::At { at: at(10) });
        let check = |ranker, items, ndcg, recall, coverage, gini, popularity| {
            let row = found.ranking(ranker, items).unwrap();
            assert_eq!((row.users, row.parameters), (2, ParametersOf::Candidate));
            near(row.ndcg_at_10, ndcg);
            near(row.recall_at_20, recall);
            near(row.coverage_at_20, coverage);
            near(row.gini, gini);
            near(row.mean_popularity, popularity);
        };
        // Both users are shown [i0, i1, i2, i3]. i0 and i2 are relevant to user 0, i1 to user 2.
        let second = 1.0 / 3f64.log2();
        let ndcg = (1.5 / (1.0 + second) + second) / 2.0;
        check(POPULARITY, ItemScope::All, ndcg, 1.0, 1.0, 0.0, 1.5);
        // The users are shown [i2, i3] and [i1, i3].
        check(POPULARITY, ItemScope::New, 1.0, 1.0, 0.75, 0.5, 0.75);
        // The users are shown [i2] and [i1].
        for ranker in [ITEM_BASED, USER_BASED, BLENDED] {
            check(ranker, ItemScope::New, 1.0, 1.0, 0.5, 2.0 / 3.0, 1.5);
        }
        assert_eq!(found.users, 2);
        assert_eq!(found.ranking.len(), 8);
        assert_eq!(found.fitted.weights, BlendWeights::default());
    }

    #[test]
    fn rating_metrics_come_from_a_model_of_earlier_data() {
        let before = [
            rating(0, 0, 4.0, 0),
            rating(0, 1, 2.0, 1),
            rating(1, 0, 5.0, 0),
            rating(1, 1, 3.5, 1),
            rating(1, 2, 1.0, 1),
            rating(2, 2, 4.0, 0),
        ];
        // User 3 has no history, and user 0 has already rated the item that they order later.
        let after = [
            rating(0, 2, 3.0, 10),
            rating(2, 0, 1.5, 10),
            rating(2, 3, 5.0, 11),
            rating(3, 3, 1.0, 10),
        ];
        let orders = [order(0, 0, 12)];
        let cut = Cut::At { at: at(10) };
        let all = input(4, 4, &[&before[..], &after[..]].concat(), &orders);
        let parameters = TrainingParameters::default();
        let found = evaluated(&all, &parameters, &cut);

        let earlier = input(4, 4, &before, &[]);
        let effective = effective_ratings(&earlier, &parameters, |_, _, _| true).unwrap();
        let options = ModelOptions::plain(&parameters);
        let biases = fit(&earlier, effective, &options, &|_| {}).unwrap().biases;
        let error = |user: usize, item: usize, rating: f64| {
            let expected = biases.global_mean + f64::from(biases.users[user]) + f64::from(biases.items[item]);
            expected - rating
        };
        let errors = [error(0, 2, 3.0), error(2, 0, 1.5), error(2, 3, 5.0)];
        let predictors: Vec<RatingPredictor> = found.rating.iter().map(|row| row.predictor).collect();
        use RatingPredictor::{Blended, ItemBased, Mean, UserBased};
        assert_eq!(predictors, [Mean, ItemBased, UserBased, Blended]);
        assert!(found.rating.iter().all(|row| row.ratings == 3));
        near(
            found.rating[0].mae,
            errors.iter().map(|error| error.abs()).sum::<f64>() / 3.0,
        );
        near(
            found.rating[0].rmse,
            (errors.iter().map(|error| error * error).sum::<f64>() / 3.0).sqrt(),
        );
        assert_ne!(found.rating[1].rmse, found.rating[0].rmse);
        assert_ne!(found.rating[2].rmse, found.rating[1].rmse);
    }

    #[test]
    fn lists_by_taste_beat_popularity() {
        for cut in [Cut::Latest, Cut::At { at: at(90) }] {
            let found = evaluated(&tastes(), &TrainingParameters::default(), &cut);
            assert_eq!(found.users, 120);
            let ndcg = |ranker| found.ranking(ranker, ItemScope::New).unwrap().ndcg_at_10;
            for ranker in [ITEM_BASED, USER_BASED, BLENDED] {
                assert!(ndcg(ranker) > 0.5 && ndcg(ranker) > 3.0 * ndcg(POPULARITY), "{found:?}");
            }
        }
    }

    /// Orders of ten different items by every user, independent of one another; items of low numbers are ordered more often.
    fn without_tastes() -> TrainingInput {
        let mut orders = Vec::new();
        for user in 0..200_u32 {
            for hour in 0..10_u32 {
                let share = (mixed(u64::from(user * 10 + hour)) >> 40) as f64 / f64::from(1 << 24);
                orders.push(order(user, (share * share * 60.0) as u32, 10 * hour + user % 10));
            }
        }
        input(200, 60, &[], &orders)
    }

    /// Source: Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators" (SplitMix64).
    fn mixed(number: u64) -> u64 {
        let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    #[test]
    fn the_chosen_ranker_is_never_below_popularity_on_the_validation_part() {
        let check = |input: &TrainingInput, expected: Ranker| {
            let found = evaluated(input, &TrainingParameters::default(), &Cut::Latest);
            assert_eq!(
                (found.ranker(ItemScope::New), &*found.choice.ranker),
                (expected, expected.name)
            );
            let figure = |name: &str| {
                let mut figures = found.choice.figures.iter();
                figures.find(|figure| figure.ranker == name).unwrap().ndcg_at_10
            };
            assert!(figure(expected.name) >= figure(POPULARITY.name), "{:?}", found.choice);
            assert!(figure(expected.name) >= figure(BLENDED.name), "{:?}", found.choice);
        };
        check(&tastes(), BLENDED);
        check(&without_tastes(), POPULARITY);
    }

    #[test]
    fn held_out_data_does_not_change_the_model() {
        let input = tastes();
        let cut = Cut::At { at: at(90) };
        let found = evaluated(&input, &TrainingParameters::default(), &cut);
        let mut elsewhere = input.clone();
        for event in elsewhere.orders.iter_mut().filter(|event| event.ordered_at >= at(90)) {
            event.item = ItemIndex((event.item.0 + 12) % 48);
        }
        let other = evaluated(&elsewhere, &TrainingParameters::default(), &cut);
        assert_eq!(other.fitted, found.fitted);
        for (other, found) in other.ranking.iter().zip(&found.ranking) {
            // The lists are the same; only the relevant items differ.
            assert_eq!((other.gini, other.mean_popularity), (found.gini, found.mean_popularity));
        }
        let ndcg = |evaluated: &Evaluated| evaluated.ranking(BLENDED, ItemScope::New).unwrap().ndcg_at_10;
        assert!(ndcg(&other) < ndcg(&found));
    }

    /// An item that everybody orders in the test part, and hardly anybody before it, must not help any figure: the cut of each
    /// user's own history would have let the model learn of it.
    #[test]
    fn no_figure_profits_from_what_is_popular_only_after_the_cut() {
        let without = tastes();
        let mut with_leak = input(N_USERS as usize, N_ITEMS as usize + 1, &[], &without.orders);
        let mut without = with_leak.clone();
        without.orders.push(order(0, N_ITEMS, 1));
        with_leak.orders.push(order(0, N_ITEMS, 1));
        with_leak
            .orders
            .extend((0..N_USERS).map(|user| order(user, N_ITEMS, 90 + user % 19)));
        for cut in [Cut::Latest, Cut::At { at: at(90) }] {
            let parameters = TrainingParameters::default();
            let (with_leak, without) = (
                evaluated(&with_leak, &parameters, &cut),
                evaluated(&without, &parameters, &cut),
            );
            assert_eq!(with_leak.fitted, without.fitted);
            assert_eq!(with_leak.ranking.len(), without.ranking.len());
            for (with_leak, without) in with_leak.ranking.iter().zip(&without.ranking) {
                assert!(with_leak.ndcg_at_10 <= without.ndcg_at_10, "{with_leak:?} {without:?}");
                assert_eq!(with_leak.gini, without.gini);
            }
        }
    }

    /// Two shops share a database, and the records of one end years before those of the other. Both are asked about, and neither
    /// learns of what becomes popular in the earlier one after its own date.
    #[test]
    fn every_shop_of_a_database_is_asked_about_and_none_profits_from_later_events() {
        let parameters = TrainingParameters::default();
        let mut without = tastes_of_two_shops();
        // Item 47 is popular only after the date of the earlier shop.
        without.orders.retain(|event| event.item != ItemIndex(47));
        without.orders.push(order(0, 47, 1));
        let mut with_leak = without.clone();
        let late = (0..N_USERS).map(|user| order(user, 47, 95 + user % 14));
        with_leak.orders.extend(late);
        let [with_leak, without] = [with_leak, without].map(|input| {
            let held_out = HeldOutParts::new(&input, &parameters, &Cut::Latest, &EvaluationOptions::default()).unwrap();
            let asked = held_out.test.cases.iter();
            let (earlier, later): (Vec<u32>, Vec<u32>) =
                asked.map(|case| case.user.0).partition(|&user| user < N_USERS);
            assert_eq!((earlier.len(), later.len()), (N_USERS as usize, N_USERS as usize));
            evaluated(&input, &parameters, &Cut::Latest)
        });
        assert_eq!(with_leak.fitted, without.fitted);
        assert_eq!(with_leak.ranker(ItemScope::New), BLENDED, "{:?}", with_leak.choice);
        for (with_leak, without) in with_leak.ranking.iter().zip(&without.ranking) {
            assert!(with_leak.ndcg_at_10 <= without.ndcg_at_10, "{with_leak:?} {without:?}");
            assert_eq!(with_leak.gini, without.gini);
        }
    }

    /// A shop whose users all buy what is new: item w in week w, whatever they bought before.
    fn fashion() -> TrainingInput {
        let mut orders = Vec::new();
        for user in 0..200_u32 {
            for week in 0..40_u32 {
                for nth in 0..2 {
                    let item = (2 * week + (mixed(u64::from(100 * user + week)) % 3) as u32 + nth) % 90;
                    orders.push(order(user, item, 168 * week + user % 100));
                }
            }
        }
        input(200, 90, &[], &orders)
    }

    #[test]
    fn trends_and_habits_are_fitted_where_they_pay() {
        let found = evaluated(&fashion(), &TrainingParameters::default(), &Cut::Latest);
        let settings = &found.fitted.settings;
        assert!(
            settings.popularity_trend_exponent > 0.0 || settings.new_items.trend_exponent > 0.0,
            "{settings:?}"
        );
        let ndcg = |ranker| found.ranking(ranker, ItemScope::New).unwrap().ndcg_at_10;
        let chosen = found.ranker(ItemScope::New);
        assert!(ndcg(chosen) > ndcg(POPULARITY), "{:?}", found.ranking);

        // Everybody orders three items of their own every week, among others that everybody orders once.
        let own =
            |user: u32, week: u32| (0..3).map(move |nth| order(user, 20 + (user * 7 + nth * 13) % 60, 168 * week));
        let once = |user: u32, week: u32| order(user, week % 20, 168 * week + 1);
        let weeks = |user: u32| (0..20).flat_map(move |week| own(user, week).chain([once(user, week)]));
        let orders: Vec<_> = (0..100).flat_map(weeks).collect();
        let found = evaluated(
            &input(100, 80, &[], &orders),
            &TrainingParameters::default(),
            &Cut::Latest,
        );
        assert!(found.has_habits);
        let all = found.tables.iter().find(|table| table.items == ItemScope::All);
        assert!(
            all.is_some_and(|table| table.rows.iter().any(|row| row.habit_weight > 0.0)),
            "{:?}",
            found.tables
        );
        let ndcg = |ranker| found.ranking(ranker, ItemScope::All).unwrap().ndcg_at_10;
        assert!(
            ndcg(BLENDED) > 0.5 && ndcg(BLENDED) > ndcg(POPULARITY),
            "{:?}",
            found.ranking
        );
    }

    #[test]
    fn settings_that_fall_behind_popularity_are_noticed() {
        let input = without_tastes();
        let parameters = TrainingParameters::default();
        let held_out = HeldOutParts::new(&input, &parameters, &Cut::Latest, &EvaluationOptions::default()).unwrap();
        let check = |ranker, expected| {
            let fitted = Fitted {
                weights: BlendWeights::default(),
                settings: FittedSettings::plain(&BlendWeights::default(), ranker),
            };
            let found = still_beats_popularity(&input, &held_out, &parameters, &fitted).unwrap();
            assert_eq!(found, expected, "{ranker:?}");
        };
        check(DefaultRanker::Popularity, true);
        check(DefaultRanker::Blended, false);
    }

    #[test]
    fn the_rule_for_purchases_is_fitted_unless_it_is_configured() {
        let input = tastes();
        let rule = |configured| {
            let parameters = TrainingParameters::default().with_implicit(configured);
            evaluated(&input, &parameters, &Cut::Latest).fitted.settings.implicit
        };
        // Nobody orders anything twice, so that both rules rank alike, and the first is the simpler.
        assert_eq!(rule(ImplicitFeedback::Fitted), ImplicitFeedback::LogOrders);
        assert_eq!(rule(ImplicitFeedback::Binary), ImplicitFeedback::Binary);
    }

    #[test]
    fn given_settings_are_measured_as_they_are() {
        let input = tastes();
        let parameters = TrainingParameters::default();
        let held_out = HeldOutParts::new(&input, &parameters, &Cut::Latest, &EvaluationOptions::default()).unwrap();
        let fitted = evaluate(&input, &held_out, &parameters, None, ParametersOf::Candidate).unwrap();
        let of_given =
            |given: &Fitted| evaluate(&input, &held_out, &parameters, Some(given), ParametersOf::Candidate).unwrap();
        let again = of_given(&fitted.fitted);
        assert_eq!(
            (&again.ranking, &again.rating, &again.fitted),
            (&fitted.ranking, &fitted.rating, &fitted.fitted)
        );
        assert!(again.tables.is_empty() && !fitted.tables.is_empty());
        let mut other = fitted.fitted.clone();
        other.settings.all_items.habit_weight = 4.0;
        other.settings.all_items.trend_exponent = 1.0;
        assert_ne!(of_given(&other).ranking, fitted.ranking);
    }

    #[test]
    fn a_model_without_users_shows_popular_items() {
        let parameters = TrainingParameters {
            options: TrainingOptions {
                implicit: ImplicitFeedback::Off,
                ..TrainingOptions::default()
            },
            ..TrainingParameters::default()
        };
        let found = evaluated(&tastes(), &parameters, &Cut::Latest);
        assert_eq!((found.users, found.ranking.len(), found.rating.len()), (120, 8, 0));
        let figures = |ranker| {
            let row = found.ranking(ranker, ItemScope::New).unwrap();
            (row.ndcg_at_10, row.recall_at_20, row.gini)
        };
        assert_eq!(figures(BLENDED), figures(POPULARITY));
    }

    #[test]
    fn no_users_to_evaluate_is_no_error() {
        let nothing = Evaluated {
            fitted: Fitted {
                weights: BlendWeights::default(),
                settings: FittedSettings::default(),
            },
            tables: Vec::new(),
            has_habits: false,
            choice: RankerChoice {
                ranker: BLENDED.name.to_owned(),
                users: 0,
                figures: Vec::new(),
            },
            users: 0,
            reach: Reach::default(),
            ranking: Vec::new(),
            rating: Vec::new(),
            shown: ShownLists::default(),
        };
        for orders in [&[order(0, 0, 1), order(1, 1, 2)][..], &[]] {
            let input = input(2, 2, &[], orders);
            let found = evaluated(&input, &TrainingParameters::default(), &Cut::Latest);
            assert!(found.shown.rankers.iter().all(|ranker| ranker.lists.is_empty()));
            let expected = Evaluated {
                has_habits: found.has_habits,
                reach: found.reach,
                shown: found.shown.clone(),
                ..nothing.clone()
            };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let input = tastes();
        let with_threads = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| evaluated(&input, &TrainingParameters::default(), &Cut::Latest))
        };
        let one = with_threads(1);
        for threads in [2, 8] {
            assert_eq!(with_threads(threads), one);
        }
    }
}
