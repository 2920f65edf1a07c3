//! Expects what users will buy: each user's own rate of buying, spread over the items that would be recommended to them.
//!
//! It is a component of forecasts of demand. Every backtest of it needs models of the past, so they are fitted on a sample of users.

use std::sync::Arc;

use rayon::prelude::*;

use crate::ranking::Basis;
use crate::ranking::rank::{RankOptions, Recipient, Scratch, recommend};
use crate::snapshot::bits::Bits;
use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::snapshot::parameters::TrainingParameters;
use crate::snapshot::parts::Optional;
use crate::snapshot::settings::FittedSettings;
use crate::snapshot::view::View;
use crate::snapshot::{Snapshot, SnapshotParts};
use crate::training::fit::{ModelOptions, fit_each};
use crate::training::input::{OrderEvent, TrainingInput};
use crate::training::matrix::effective_ratings;
use crate::training::orders::orders;
use demand::collaborative::PurchaseRates;
use domain::time::Timestamp;

use super::error::EvaluationError;
use super::evaluate::view_of;
use super::held_out::sample;

/// The most users that a model is fitted on; those drawn stand for all others.
const MAX_USERS: usize = 5_000;
/// The items that the purchases of a user are spread over, those with the highest scores.
const MAX_ITEMS: usize = 200;
/// The least users that a scratch serves, because it is as long as the catalog.
const MIN_USERS_PER_SCRATCH: usize = 64;
const WEEK_SECONDS: f64 = 7.0 * 86_400.0;

/// The facts about one user that are known before a moment.
#[derive(Debug, Clone, Copy)]
struct Buyer {
    lines: f64,
    /// Weeks since the first order, at least one.
    weeks: f64,
}

/// Returns the units of each item that users are expected to buy in a week, as known `before` a moment.
///
/// `Σ_u λ_u · share(u, i) · units of an order line of i`, where λ_u is the expected number of order lines of user u a week, by
/// [`PurchaseRates`], and the share is that of item i in the scores of the 200 items that rank best for u, history included.
/// With more than 5,000 users it is the sum over as many of them, scaled up.
///
/// `settings`: fitted. Runs on the current rayon pool; the result is the same for any number of threads.
///
/// # Errors
/// [`EvaluationError::Training`] as the fit of a model.
///
/// Source: docs/formulas.md, "Demand".
pub fn expected_weekly_units(
    input: &TrainingInput,
    parameters: &TrainingParameters,
    settings: &FittedSettings,
    before: Timestamp,
) -> Result<Vec<f32>, EvaluationError> {
    let known: Vec<&OrderEvent> = input.orders.iter().filter(|event| event.ordered_at < before).collect();
    let mut eligible = Bits::zeros(input.users.len());
    for event in &known {
        eligible.set(event.user.at(), true);
    }
    let n_users = eligible.count_ones();
    let mut expected = vec![0.0_f64; input.items.len()];
    if n_users > 0 {
        let sampled = sample(&input.users, &eligible, MAX_USERS, parameters.options.seed);
        let view = model_of(input, parameters, settings, before, &sampled)?;
        let scale = n_users as f64 / sampled.count_ones() as f64;
        add_lines(
            &view,
            input,
            &buyers(&known, input.users.len(), before),
            &sampled,
            &mut expected,
        );
        for (lines, units) in expected.iter_mut().zip(units_per_line(&known, input.items.len())) {
            *lines *= scale * units;
        }
    }
    Ok(expected.into_iter().map(|units| units as f32).collect())
}

/// Fits a model on what the `sampled` users did before a moment.
fn model_of(
    input: &TrainingInput,
    parameters: &TrainingParameters,
    settings: &FittedSettings,
    before: Timestamp,
    sampled: &Bits,
) -> Result<View, EvaluationError> {
    let parameters = &parameters.resolved(settings);
    let keep = |user: UserIndex, _: ItemIndex, at: Timestamp| at < before && sampled.get(user.at());
    let effective = effective_ratings(input, parameters, keep)?;
    let options = ModelOptions {
        settings: *settings,
        ..ModelOptions::plain(parameters)
    };
    let (parts, lists) = fit_each(input, effective, &options, &[settings.significance], &|_| {})?;
    let orders = orders(input, &parts, settings.half_life_days, keep);
    let lists = lists.into_iter().next();
    let parts = SnapshotParts {
        significant_item_neighbors: lists.map_or_else(Optional::default, Optional::Present),
        orders,
        ..parts
    };
    Ok(view_of(Snapshot::new(parts)?))
}

/// Returns the order lines of each user, and since when; `None` without any.
fn buyers(known: &[&OrderEvent], n_users: usize, before: Timestamp) -> Vec<Option<Buyer>> {
    let mut buyers: Vec<Option<Buyer>> = vec![None; n_users];
    for event in known {
        let weeks = ((before - event.ordered_at).num_seconds() as f64 / WEEK_SECONDS).max(1.0);
        let buyer = buyers[event.user.at()].get_or_insert(Buyer { lines: 0.0, weeks });
        buyer.lines += 1.0;
        buyer.weeks = buyer.weeks.max(weeks);
    }
    buyers
}

/// Returns the mean units of an order line of each item; 0 for items without one.
fn units_per_line(known: &[&OrderEvent], n_items: usize) -> Vec<f64> {
    let mut sums = vec![(0.0, 0.0); n_items];
    for event in known {
        let (units, lines) = &mut sums[event.item.at()];
        *units += event.quantity as f64;
        *lines += 1.0;
    }
    sums.into_iter()
        .map(|(units, lines)| units / f64::max(lines, 1.0))
        .collect()
}

/// Adds the order lines that the sampled users are expected to have in a week, by item.
fn add_lines(view: &View, input: &TrainingInput, buyers: &[Option<Buyer>], sampled: &Bits, expected: &mut [f64]) {
    let buyers_of = |user: usize| buyers[user].filter(|_| sampled.get(user));
    let histories: Vec<(f64, f64)> = (0..buyers.len())
        .filter_map(buyers_of)
        .map(|buyer| (buyer.lines, buyer.weeks))
        .collect();
    let rates = PurchaseRates::fit(&histories);
    let options = RankOptions {
        limit: MAX_ITEMS,
        basis: Some(Basis::Blended),
        ..RankOptions::default()
    };
    let view = Arc::new(view);
    let n_known = view.snapshot.users().len() as u32;
    let lists: Vec<Vec<(ItemIndex, f64)>> = (0..n_known)
        .into_par_iter()
        .with_min_len(MIN_USERS_PER_SCRATCH)
        .map_init(Scratch::default, |scratch, user| {
            let user = UserIndex(user);
            let found = input.users.find(view.snapshot.users().id(user));
            let Some(buyer) = found.and_then(|user| buyers_of(user.at())) else {
                return Vec::new();
            };
            let ranked = recommend(&view, &Recipient::UserIndex(user), &options, scratch).items;
            let whole: f64 = ranked.iter().map(|item| item.score).sum();
            let lines = rates.expected(buyer.lines, buyer.weeks);
            ranked
                .iter()
                .map(|item| (item.item, lines * item.score / whole))
                .collect()
        })
        .collect();
    // In the order of the users, so that the sums do not depend on the number of threads.
    for (item, lines) in lists.into_iter().flatten() {
        expected[item.at()] += lines;
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{N_USERS, tastes};
    use super::*;
    use crate::training::testing::{at, input, order};

    fn expected(input: &TrainingInput, hour: u32) -> Vec<f32> {
        let parameters = TrainingParameters::default();
        expected_weekly_units(input, &parameters, &FittedSettings::default(), at(hour)).unwrap()
    }

    #[test]
    fn users_are_expected_to_buy_as_often_as_before_and_what_they_are_recommended() {
        let shop = tastes();
        let found = expected(&shop, 60);
        // Everybody has six lines within the last week, and all are alike.
        let lines: f32 = found.iter().sum();
        assert!((lines / N_USERS as f32 - 6.0).abs() < 0.2, "{lines}");
        // An item that nobody knows yet is expected of nobody.
        let unknown = input(N_USERS as usize, 50, &[], &shop.orders);
        assert_eq!(expected(&unknown, 60)[49], 0.0);
        // Lines of ten units count ten.
        let mut tenfold = shop.clone();
        tenfold.orders.iter_mut().for_each(|event| event.quantity = 10);
        for (one, ten) in found.iter().zip(expected(&tenfold, 60)) {
            assert!((10.0 * one - ten).abs() < 1e-3);
        }
    }

    #[test]
    fn nothing_later_than_the_moment_counts() {
        let shop = tastes();
        let mut later = shop.clone();
        later.orders.extend((0..N_USERS).map(|user| order(user, 0, 60)));
        assert_eq!(expected(&shop, 60), expected(&later, 60));
        assert_eq!(expected(&shop, 0), vec![0.0; shop.items.len()]);
    }
}
