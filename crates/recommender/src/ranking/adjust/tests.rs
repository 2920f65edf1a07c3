use std::collections::HashMap;

use proptest::prelude::*;

use super::super::testing::{any_parts, near};
use super::*;
use crate::ranking::Basis;
use crate::ranking::rank::{RankOptions, Recipient, Recommendations, Scratch, recommend};
use crate::snapshot::SnapshotParts;
use crate::snapshot::dictionary::UserIndex;
use crate::snapshot::fixture::{catalog, snapshot_parts, view};
use domain::id::{Category, MerchantId};
use domain::item::ItemFacts;

fn scored(scores: &[(u32, f64)]) -> impl Fn(usize) -> Vec<Scored> {
    let all: Vec<Scored> = scores
        .iter()
        .map(|&(item, score)| Scored {
            score,
            item: ItemIndex(item),
        })
        .collect();
    move |limit| all.iter().copied().take(limit).collect()
}

fn adjusted(view: &View, scores: &[(u32, f64)], history: &[u32], adjustments: Adjustments) -> Vec<(u32, f64)> {
    let history = history.iter().copied().map(ItemIndex);
    let adjusted = adjust(view, scored(scores), history, 3, &adjustments);
    for found in &adjusted {
        let &(_, score) = scores.iter().find(|(item, _)| *item == found.item.0).unwrap();
        near(score + found.terms.sum(), found.score, 1e-12);
    }
    adjusted.iter().map(|found| (found.item.0, found.score)).collect()
}

#[track_caller]
fn check(found: &[(u32, f64)], expected: &[(u32, f64)]) {
    let items = |list: &[(u32, f64)]| list.iter().map(|&(item, _)| item).collect::<Vec<_>>();
    assert_eq!(items(found), items(expected), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        near(found.1, expected.1, 1e-7);
    }
}

/// Items 0 and 1 are rated alike by three users, item 2 by one of them, item 3 by another user alone.
fn shop(facts: [(&str, &str); 4]) -> View {
    let parts = snapshot_parts(&[
        &[4.0, 4.0, 4.0, 0.0],
        &[4.0, 4.0, 0.0, 0.0],
        &[4.0, 4.0, 0.0, 0.0],
        &[0.0, 0.0, 0.0, 4.0],
    ]);
    let facts = facts.map(|(category, merchant)| ItemFacts {
        category: (!category.is_empty()).then(|| Category::new(category).unwrap()),
        merchant: (!merchant.is_empty()).then(|| MerchantId::new(merchant).unwrap()),
        ..ItemFacts::default()
    });
    view(SnapshotParts {
        catalog: catalog(&facts),
        ..parts
    })
}

const BARE: [(&str, &str); 4] = [("", ""); 4];

#[test]
fn diversity_sets_similar_items_back() {
    let view = shop(BARE);
    let scores = [(0, 1.0), (1, 0.9), (2, 0.6), (3, 0.4)];
    let diverse = |diversity| {
        let adjustments = Adjustments {
            diversity,
            ..Adjustments::default()
        };
        adjusted(&view, &scores, &[], adjustments)
    };
    check(&diverse(0.0), &scores[..3]);
    // cos(0, 1) = 1 and cos(0, 2) = cos(1, 2) = 1/√3; item 3 is like no other.
    let near_two = 1.0 / 3f64.sqrt();
    check(&diverse(0.5), &[(0, 0.5), (3, 0.2), (2, 0.5 * 0.6 - 0.5 * near_two)]);
    // The first is the one with the best score, where nothing has been chosen before.
    check(&diverse(1.0), &[(0, 0.0), (3, 0.0), (2, -near_two)]);
}

#[test]
fn the_popularity_penalty_equals_its_formula() {
    let view = shop(BARE);
    // Users: 3, 3, 1, 1; the median is 2.
    let adjustments = Adjustments {
        popularity_penalty: 1.0,
        ..Adjustments::default()
    };
    let (popular, rare) = ((2.0_f64 / 3.0).sqrt(), 2f64.sqrt());
    check(
        &adjusted(&view, &[(0, 1.0), (1, 0.9), (2, 0.6), (3, 0.4)], &[], adjustments),
        &[(2, 0.6 * rare), (0, popular), (1, 0.9 * popular)],
    );
}

#[test]
fn at_most_so_many_items_of_a_merchant_and_a_category() {
    let view = shop([("tea", "a"), ("tea", "b"), ("cups", "a"), ("", "")]);
    let scores = [(0, 1.0), (1, 0.9), (2, 0.6), (3, 0.4)];
    let capped = |merchants, categories| {
        let adjustments = Adjustments {
            max_per_merchant: NonZeroU32::new(merchants),
            max_per_category: NonZeroU32::new(categories),
            ..Adjustments::default()
        };
        let found = adjusted(&view, &scores, &[], adjustments);
        found.into_iter().map(|(item, _)| item).collect::<Vec<_>>()
    };
    assert_eq!(capped(0, 0), [0, 1, 2]);
    assert_eq!(capped(1, 0), [0, 1, 3]);
    assert_eq!(capped(0, 1), [0, 2, 3]);
    assert_eq!(capped(1, 1), [0, 3]);
}

#[test]
fn calibration_brings_the_categories_of_the_history() {
    let view = shop([("tea", ""), ("tea", ""), ("cups", ""), ("", "")]);
    let scores = [(0, 1.0), (1, 0.9), (2, 0.1), (3, 0.05)];
    let calibrated = |calibration| {
        let adjustments = Adjustments {
            calibration,
            ..Adjustments::default()
        };
        adjusted(&view, &scores, &[0, 2, 3], adjustments)
    };
    check(&calibrated(0.0), &scores[..3]);
    // The history has half tea, half cups. Steck's objective is the sum of the scores, weighted 1 − λ, less λ times C_KL.
    let divergence = |tea: f64, cups: f64| {
        let n: f64 = (tea + cups).max(1.0);
        let term = |count: f64| 0.5 * (0.5 / (0.99 * count / n + 0.01 * 0.5)).ln();
        term(tea) + term(cups)
    };
    let value = |score: f64, before: f64, after: f64| 0.5 * score + 0.5 * (before - after);
    check(
        &calibrated(0.5),
        &[
            (0, value(1.0, divergence(0.0, 0.0), divergence(1.0, 0.0))),
            (2, value(0.1, divergence(1.0, 0.0), divergence(1.0, 1.0))),
            (1, value(0.9, divergence(1.0, 1.0), divergence(2.0, 1.0))),
        ],
    );
}

#[test]
fn a_calibrated_list_diverges_by_its_formula() {
    let shares = CategoryShares::new(["tea", "tea", "cups", "cups"].into_iter());
    near(shares.divergence(["tea", "cups"].into_iter()), 0.0, 1e-12);
    let all_tea = 0.5 * (0.5 / (0.99 + 0.005_f64)).ln() + 0.5 * 100f64.ln();
    near(shares.divergence(["tea"; 3].into_iter()), all_tea, 1e-12);
    near(shares.divergence(std::iter::empty()), 100f64.ln(), 1e-12);
    assert!(CategoryShares::new(std::iter::empty()).is_empty());
}

/// Ranks by the formulas alone, over all items at once.
fn plain(
    view: &View,
    scores: &[Scored],
    history: &[ItemIndex],
    limit: usize,
    adjustments: &Adjustments,
) -> Vec<ItemIndex> {
    let popularity = view.snapshot.popularity();
    let mut users: Vec<u32> = popularity.items().iter().map(|&item| popularity.raters(item)).collect();
    users.retain(|&users| users > 0);
    users.sort_unstable();
    let median = match users.len() {
        0 => 1.0,
        n => f64::from(users[(n - 1) / 2] + users[n / 2]) / 2.0,
    };
    let penalized = |scored: &Scored| {
        let n = f64::from(popularity.raters(scored.item).max(1));
        scored.score * (median / n).powf(adjustments.popularity_penalty / 2.0)
    };
    let mut pool: Vec<(ItemIndex, f64)> = scores.iter().map(|scored| (scored.item, penalized(scored))).collect();
    pool.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let largest = pool.first().map_or(0.0, |first| first.1);
    let cosine = |a: ItemIndex, b: ItemIndex| {
        let listed = |of: ItemIndex, other: ItemIndex| {
            let (items, values) = view.snapshot.item_neighbors().row(of.at());
            items
                .iter()
                .position(|&item| item == other.0)
                .map(|at| f64::from(values[at]))
        };
        listed(a, b).or(listed(b, a)).unwrap_or(0.0)
    };
    let category = |item: &ItemIndex| view.facts(*item).category;
    let shares = CategoryShares::new(history.iter().filter_map(category));
    let mut chosen: Vec<ItemIndex> = Vec::new();
    while chosen.len() < limit {
        let mut counts: HashMap<(bool, &str), u32> = HashMap::new();
        for &item in &chosen {
            let facts = view.facts(item);
            facts
                .category
                .into_iter()
                .for_each(|name| *counts.entry((true, name)).or_default() += 1);
            facts
                .merchant
                .into_iter()
                .for_each(|name| *counts.entry((false, name)).or_default() += 1);
        }
        let is_free = |is_category, name: Option<&str>, cap: Option<NonZeroU32>| match name.zip(cap) {
            Some((name, cap)) => counts.get(&(is_category, name)).copied().unwrap_or(0) < cap.get(),
            None => true,
        };
        let divergence = |with: Option<ItemIndex>| {
            shares.divergence(chosen.iter().copied().chain(with).filter_map(|item| category(&item)))
        };
        let value = |&(item, score): &(ItemIndex, f64)| {
            let similarity = chosen.iter().map(|&other| cosine(item, other)).fold(0.0, f64::max);
            let varied = (1.0 - adjustments.diversity) * score - adjustments.diversity * largest * similarity;
            let gain = divergence(None) - divergence(Some(item));
            match adjustments.calibration > 0.0 {
                true => (1.0 - adjustments.calibration) * varied + adjustments.calibration * largest * gain,
                false => varied,
            }
        };
        let mut best: Option<(ItemIndex, f64)> = None;
        for entry in &pool {
            let facts = view.facts(entry.0);
            let may_follow = !chosen.contains(&entry.0)
                && is_free(true, facts.category, adjustments.max_per_category)
                && is_free(false, facts.merchant, adjustments.max_per_merchant);
            // Equal values may differ in their last digits.
            if may_follow && best.is_none_or(|best| value(entry) > best.1 + 1e-12) {
                best = Some((entry.0, value(entry)));
            }
        }
        match best {
            Some((item, _)) => chosen.push(item),
            None => break,
        }
    }
    chosen
}

fn any_adjustments() -> impl Strategy<Value = Adjustments> {
    let share = || prop_oneof![2 => Just(0.0), 2 => 0.01..0.99f64, 1 => Just(1.0)];
    (share(), share(), share(), 0u32..3, 0u32..3).prop_map(
        |(diversity, popularity_penalty, calibration, merchants, categories)| Adjustments {
            diversity,
            popularity_penalty,
            calibration,
            max_per_merchant: NonZeroU32::new(merchants),
            max_per_category: NonZeroU32::new(categories),
        },
    )
}

fn with_facts(mut parts: SnapshotParts, names: &[(u8, u8)]) -> View {
    let facts = (0..parts.items.len()).map(|item| ItemFacts {
        category: (names[item].0 > 0).then(|| Category::new(format!("c{}", names[item].0)).unwrap()),
        merchant: (names[item].1 > 0).then(|| MerchantId::new(format!("m{}", names[item].1)).unwrap()),
        listed: parts.catalog.listed.get(item),
        ..ItemFacts::default()
    });
    parts.catalog = catalog(&facts.collect::<Vec<_>>());
    view(parts)
}

fn recommended(view: &View, limit: usize, adjustments: Option<Adjustments>) -> Recommendations {
    let options = RankOptions {
        limit,
        basis: Some(Basis::Blended),
        explain: true,
        adjustments,
        ..RankOptions::default()
    };
    recommend(
        view,
        &Recipient::UserIndex(UserIndex(0)),
        &options,
        &mut Scratch::default(),
    )
}

proptest! {
    #[test]
    fn adjusted_rankings_agree_with_the_definition(
        parts in any_parts(),
        names in prop::collection::vec((0u8..4, 0u8..4), 8),
        adjustments in any_adjustments(),
        limit in 1usize..9,
    ) {
        let view = with_facts(parts, &names);
        let plainly = recommended(&view, 9, None);
        let scores: Vec<Scored> = plainly.items.iter()
            .map(|found| Scored { score: found.score, item: found.item })
            .collect();
        let history: Vec<ItemIndex> = view.stored_history(UserIndex(0)).map(|entry| entry.item).collect();
        let expected = plain(&view, &scores, &history, limit, &adjustments);
        let found = recommended(&view, limit, Some(adjustments));
        prop_assert_eq!(found.personalization, plainly.personalization);
        let items: Vec<ItemIndex> = found.items.iter().map(|found| found.item).collect();
        prop_assert_eq!(items, expected);
    }

    #[test]
    fn explanations_of_adjusted_scores_sum_to_them(
        parts in any_parts(),
        names in prop::collection::vec((0u8..4, 0u8..4), 8),
        adjustments in any_adjustments(),
    ) {
        let view = with_facts(parts, &names);
        for found in recommended(&view, 9, Some(adjustments)).items {
            if let Some(explanation) = found.explanation {
                let items: f64 = explanation.items.iter().map(|item| item.contribution).sum();
                let users = explanation.similar_users.map_or(0.0, |similar| similar.contribution);
                let trend = explanation.popular_lately.map_or(0.0, |trend| trend.contribution);
                let habit = explanation.own_habit.map_or(0.0, |habit| habit.contribution);
                near(items + users + trend + habit + explanation.adjustments.sum(), found.score, 1e-9);
            }
        }
    }

    #[test]
    fn a_small_pool_gives_the_items_that_a_pool_of_all_gives(
        users in prop::collection::vec(1u32..60, 1..300),
        gamma in 0.0..1.0f64,
        wanted in 1usize..20,
    ) {
        let popularity = crate::snapshot::popularity::Popularity::new(&users);
        let mut all: Vec<Scored> = (0..users.len() as u32)
            .map(|item| Scored { score: f64::from(users[item as usize] * (item % 7 + 1)), item: ItemIndex(item) })
            .collect();
        all.sort();
        let few = penalty::best(&popularity, &|limit| all.iter().copied().take(limit).collect(), wanted, gamma);
        let every = penalty::best(&popularity, &|_| all.clone(), all.len() + 1, gamma);
        let items = |list: &[penalty::Penalized]| list.iter().take(wanted).map(|found| found.scored.item).collect::<Vec<_>>();
        prop_assert_eq!(items(&few), items(&every));
    }
}
