//! Measures how a ranker treats items, merchants and groups of users: the bias report.
//!
//! [`measure`] takes the lists that a ranker shows to the users of the test part, and what these users held before it. It
//! knows no model: the same figures can be computed for any lists.

pub mod attributes;
mod exposure;
mod groups;
mod merchants;
pub mod options;
pub mod report;
pub mod shown;
#[cfg(test)]
mod tests;

use crate::ranking::adjust::calibration::CategoryShares;
use crate::snapshot::catalog::Catalog;
use crate::snapshot::dictionary::ItemIndex;

use self::attributes::{Attribute, Outcomes};
use self::groups::Groups;
use self::options::BiasOptions;
use self::report::{Calibration, Exposure, LongTail, RankerBias};
use super::metrics::{coverage, gini, mean, ndcg};

/// The numbers of first items of a list that are reported.
pub const TOPS: [u32; 2] = [10, 20];

/// The facts on n items as of before the test part.
#[derive(Debug, Clone, Copy)]
pub struct Shop<'a> {
    pub catalog: &'a Catalog,
    /// The number of users with each item, n.
    pub users: &'a [u32],
    /// The number of orders with each item, n; all 0 where there are no orders.
    pub orders: &'a [u64],
}

/// A user of the test part.
#[derive(Debug, Clone, Copy)]
pub struct TestUser<'a> {
    /// The items rated or bought before, ascending; not empty.
    pub history: &'a [ItemIndex],
    /// The list that the ranker shows, best first; at least as long as the largest of [`TOPS`] where there are enough items.
    pub shown: &'a [ItemIndex],
    /// The held-out items, ascending; not empty.
    pub relevant: &'a [ItemIndex],
    /// Whether the list was made for this user, and not of the most popular items for want of anything better.
    pub is_personal: bool,
}

/// Measures the first `top` items of every list of one ranker; `None` without users.
///
/// `attributes`: their values are those of `users`, in the same order. `seed`: of the bootstrap.
///
/// The result is the same for any number of threads.
///
/// Source: docs/formulas.md, "Bias".
pub fn measure(
    ranker: &str,
    top: u32,
    shop: &Shop,
    users: &[TestUser],
    attributes: &[Attribute],
    options: &BiasOptions,
    seed: u64,
) -> Option<RankerBias> {
    if users.is_empty() {
        return None;
    }
    let lists: Vec<&[ItemIndex]> = users.iter().map(|user| first(user.shown, top)).collect();
    let ndcgs: Vec<f64> = users
        .iter()
        .map(|user| ndcg(user.shown, user.relevant, top as usize))
        .collect();
    let outcomes = Outcomes {
        hits: users
            .iter()
            .zip(&lists)
            .map(|(user, list)| hits(list, user.relevant))
            .collect(),
        selected: users.iter().map(|user| f64::from(u8::from(user.is_personal))).collect(),
        ndcgs,
    };
    let groups = Groups::new(shop.users, users, options.min_group);
    let exposures = exposure::counts(&lists, shop.catalog.len());
    Some(RankerBias {
        ranker: ranker.to_owned(),
        top,
        users: users.len() as u64,
        ndcg: mean(outcomes.ndcgs.iter().copied()),
        hit_rate: mean(outcomes.hits.iter().copied()),
        exposure: exposure_of(shop, &exposures),
        popularity_groups: groups.by_popularity(shop.users, &lists, &outcomes.ndcgs),
        activity_quartiles: groups.by_activity(&outcomes.ndcgs),
        calibration: calibration(shop, users, &lists),
        merchants: merchants::exposures(shop, &exposures),
        attributes: attributes
            .iter()
            .map(|attribute| attributes::compare(attribute, &outcomes, options.min_group, seed))
            .collect(),
    })
}

fn exposure_of(shop: &Shop, exposures: &[u64]) -> Exposure {
    let listed = exposures
        .iter()
        .enumerate()
        .filter(|&(item, _)| shop.catalog.listed.get(item));
    let listed: Vec<u64> = listed.map(|(_, &exposure)| exposure).collect();
    let tail = exposure::long_tail(shop.users);
    let shown: u64 = exposures.iter().sum();
    Exposure {
        gini: gini(&listed),
        coverage: coverage(&listed),
        mean_popularity: exposure::total(exposures, |item| f64::from(shop.users[item])) / shown.max(1) as f64,
        long_tail: LongTail {
            items: tail.count_ones() as u64,
            exposure_share: exposure::share(exposures, &tail),
            rating_share: exposure::share_of(shop.users.iter().map(|&users| u64::from(users)), &tail),
        },
    }
}

/// Returns the mean divergence of the lists' categories from the histories'; `None` where no history has a category.
fn calibration(shop: &Shop, users: &[TestUser], lists: &[&[ItemIndex]]) -> Option<Calibration> {
    let category = |item: &ItemIndex| shop.catalog.facts(*item).category;
    let divergences: Vec<f64> = users
        .iter()
        .zip(lists)
        .filter_map(|(user, list)| {
            let shares = CategoryShares::new(user.history.iter().filter_map(category));
            (!shares.is_empty()).then(|| shares.divergence(list.iter().filter_map(category)))
        })
        .collect();
    (!divergences.is_empty()).then(|| Calibration {
        users: divergences.len() as u64,
        divergence: mean(divergences.iter().copied()),
    })
}

fn first(list: &[ItemIndex], top: u32) -> &[ItemIndex] {
    &list[..list.len().min(top as usize)]
}

/// Returns 1 if a relevant item is in `list`, else 0.
fn hits(list: &[ItemIndex], relevant: &[ItemIndex]) -> f64 {
    let is_relevant = |item: &ItemIndex| relevant.binary_search(item).is_ok();
    f64::from(u8::from(list.iter().any(is_relevant)))
}
