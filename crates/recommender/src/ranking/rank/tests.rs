use proptest::prelude::*;

use super::super::testing::{Change, Person, any_changes, any_parts, changed, ids, interaction, near, ranking_lists};
use super::*;
use crate::snapshot::SnapshotParts;
use crate::snapshot::fixture::{EXAMPLE, buy, item_id, snapshot_parts, user_id, view};
use crate::snapshot::overlay::FreshChange;
use crate::snapshot::view::HistoryEntry;
use domain::consent::{Consents, Purpose};
use similarity::lists::NeighborLists;

const BASES: [Basis; 3] = [Basis::ItemBased, Basis::UserBased, Basis::Blended];

fn options(limit: usize, basis: Basis) -> RankOptions {
    RankOptions {
        limit,
        basis: Some(basis),
        explain: true,
        ..RankOptions::default()
    }
}

fn to_user(view: &View, user: &str, options: &RankOptions) -> Recommendations {
    recommend(view, &Recipient::User(&user_id(user)), options, &mut Scratch::default())
}

fn items<'a>(view: &'a View, recommendations: &Recommendations) -> Vec<&'a str> {
    ids(view, recommendations.items.iter().map(|recommended| recommended.item))
}

#[track_caller]
fn scores_are(recommendations: &Recommendations, expected: &[f64]) {
    let scores: Vec<f64> = recommendations
        .items
        .iter()
        .map(|recommended| recommended.score)
        .collect();
    assert_eq!(scores.len(), expected.len(), "{scores:?}");
    for (score, &expected) in scores.iter().zip(expected) {
        near(*score, expected, 1e-6);
    }
}

#[test]
fn the_default_ranker_answers_requests_without_a_basis_only() {
    let with_default = |default_ranker| {
        view(SnapshotParts {
            default_ranker,
            ..snapshot_parts(&EXAMPLE)
        })
    };
    let (blended, popularity) = (
        with_default(DefaultRanker::Blended),
        with_default(DefaultRanker::Popularity),
    );
    let ask = |view: &View, basis| {
        let options = RankOptions {
            basis,
            exclude_history: true,
            ..options(9, Basis::Blended)
        };
        let work = estimated_work(view, &Recipient::User(&user_id("u0")), &options);
        (to_user(view, "u0", &options), work)
    };
    for basis in BASES {
        assert_eq!(ask(&popularity, Some(basis)), ask(&blended, Some(basis)));
    }
    assert_eq!(ask(&blended, None), ask(&blended, Some(Basis::Blended)));
    assert_eq!(ask(&blended, None).0.personalization, Personalization::Personalized);
    let (by_popularity, work) = ask(&popularity, None);
    assert_eq!((by_popularity.personalization, work), (Personalization::Popularity, 0));
    // The filter and the exclusions hold; items 1 and 2 have one rater each.
    assert_eq!(items(&popularity, &by_popularity), ["i1", "i2"]);
    scores_are(&by_popularity, &[1.0, 1.0]);
}

#[test]
fn gives_the_sums_of_the_worked_example() {
    let view = view(snapshot_parts(&EXAMPLE));
    let check = |basis, exclude_history, order: &[&str], scores: &[f64]| {
        let options = RankOptions {
            exclude_history,
            ..options(10, basis)
        };
        let found = to_user(&view, "u0", &options);
        assert_eq!(found.personalization, Personalization::Personalized);
        assert_eq!(items(&view, &found), order);
        scores_are(&found, scores);
    };
    // Item similarities 0.8 (0,4), 0.73029674 (0,3), 0.91287093 (3,4), 0.40824829 (1,3) and (2,3), 1 (1,2); the
    // ratings are 4 of item 0, 1 of 3 and 1 of 4.
    let by_items = [4.11287093, 3.83405790, 1.53029674, 0.40824829, 0.40824829];
    check(Basis::ItemBased, false, &["i4", "i3", "i0", "i1", "i2"], &by_items);
    check(Basis::ItemBased, true, &["i1", "i2"], &by_items[3..]);
    // User similarities 0.81649658 (0,2) and 0.06299408 (0,1).
    let by_users = [1.69598724, 1.63299316, 1.63299316, 0.18898224, 0.12598816];
    check(Basis::UserBased, false, &["i3", "i0", "i4", "i2", "i1"], &by_users);
    check(Basis::UserBased, true, &["i2", "i1"], &by_users[3..]);
    // Each side divided by its maximum over all items, also those that are not recommended, then half of each.
    let blended = |item: usize, user: usize| 0.5 * by_items[item] / by_items[0] + 0.5 * by_users[user] / by_users[0];
    check(Basis::Blended, true, &["i2", "i1"], &[blended(4, 3), blended(3, 4)]);
}

/// Computes both sums of an item with plain loops.
fn plain_sums(parts: &SnapshotParts, person: &Person, item: usize) -> (f64, f64) {
    let (neighbors, similarities) = ranking_lists(parts).row(item);
    let by_items = neighbors.iter().zip(similarities);
    let by_items = by_items
        .map(|(&j, &similarity)| f64::from(similarity) * person.ratings[j as usize])
        .sum();
    let by_users = person.neighbors.iter();
    let rating = |user: usize| parts.ratings.get(user, ItemIndex(item as u32)).map_or(0.0, f64::from);
    let by_users = by_users.map(|&(user, similarity)| similarity * rating(user)).sum();
    (by_items, by_users)
}

/// The terms that orders add to the scores, item by item, named as in the formulas.
struct PlainTerms {
    /// f_i/φ.
    trends: Vec<f64>,
    /// rep_i.
    repeat_rates: Vec<f64>,
}

impl PlainTerms {
    /// Returns the terms after `changes` of user u0. All orders of a change are at the beginning of 1970.
    fn new(parts: &SnapshotParts, changes: &[Change]) -> Self {
        let n = parts.items.len();
        let orders = parts.orders.get().unwrap();
        let before = Person::new(parts, Some(0), &[]);
        let mut sums: Vec<[f64; 4]> = (0..n)
            .map(|item| {
                let items = &orders.items;
                let counts = [items.orders[item], items.buyers[item], items.repeat_buyers[item]].map(f64::from);
                [counts[0], f64::from(items.recent[item]), counts[1], counts[2]]
            })
            .collect();
        let total = |at: usize| sums.iter().map(|sums| sums[at]).sum::<f64>();
        let share = |part, whole| {
            if total(whole) > 0.0 {
                total(part) / total(whole)
            } else {
                0.0
            }
        };
        let (recent, repeat) = (share(1, 0), share(3, 2));
        let fresh = changes.iter().filter(|change| change.0 < n).map(|change| change.0);
        for item in fresh {
            let of_user = |count: u32, recent: f64| {
                [
                    f64::from(count),
                    f64::from(count) * recent,
                    f64::from(u8::from(count > 0)),
                    f64::from(u8::from(count > 1)),
                ]
            };
            let count = changes.iter().find(|change| change.0 == item).unwrap().2;
            let (before, after) = (of_user(before.orders[item], 0.5), of_user(count, 0.5));
            (0..4).for_each(|at| sums[item][at] += after[at] - before[at]);
        }
        let trend = |sums: &[f64; 4]| match recent > 0.0 {
            true => (sums[1] + 5.0 * recent) / (sums[0] + 5.0) / recent,
            false => 1.0,
        };
        Self {
            trends: sums.iter().map(trend).collect(),
            repeat_rates: sums
                .iter()
                .map(|sums| (sums[3] + 20.0 * repeat) / (sums[2] + 20.0))
                .collect(),
        }
    }
}

/// Returns the score of every item, `None` for those that may not be recommended.
///
/// `with_history`: whether the request allows the history.
fn plain_scores(
    parts: &SnapshotParts,
    person: &Person,
    basis: Basis,
    terms: &PlainTerms,
    with_history: bool,
    may: impl Fn(usize) -> bool,
) -> Vec<Option<f64>> {
    let n = parts.items.len();
    let sums: Vec<(f64, f64)> = (0..n).map(|item| plain_sums(parts, person, item)).collect();
    let max_items = sums.iter().map(|sums| sums.0).fold(0.0, f64::max);
    let max_users = sums.iter().map(|sums| sums.1).fold(0.0, f64::max);
    let weight = match (max_items > 0.0, max_users > 0.0) {
        (true, true) => parts.weights.ranking,
        (true, false) => 1.0,
        _ => 0.0,
    };
    let share = |sum: f64, max: f64| if max > 0.0 { sum / max } else { 0.0 };
    let settings = parts.fitted_settings.get().unwrap();
    let settings = if with_history {
        &settings.all_items
    } else {
        &settings.new_items
    };
    let blend = |item: usize| {
        let (items, users) = sums[item];
        let sides = weight * share(items, max_items) + (1.0 - weight) * share(users, max_users);
        sides * terms.trends[item].powf(settings.trend_exponent)
    };
    let own = |item: usize| match person.has_ratings() {
        true => f64::from(person.orders[item]).sqrt() * terms.repeat_rates[item],
        false => 0.0,
    };
    let largest = |of: &dyn Fn(usize) -> f64| (0..n).map(of).fold(0.0, f64::max);
    let (max_blend, max_own) = (largest(&blend), largest(&own));
    let score = |item: usize| match basis {
        Basis::ItemBased => sums[item].0,
        Basis::UserBased => sums[item].1,
        Basis::Blended if settings.habit_weight > 0.0 => {
            share(blend(item), max_blend) + settings.habit_weight * share(own(item), max_own)
        }
        Basis::Blended => blend(item),
    };
    (0..n).map(|item| may(item).then(|| score(item))).collect()
}

/// Checks that `found` are the `limit` best of `scores` in order, or of the most popular items when no score is above 0.
fn check_list(
    found: &Recommendations,
    scores: &[Option<f64>],
    snapshot: &Snapshot,
    limit: usize,
) -> Result<(), TestCaseError> {
    let scored = scores.iter().flatten().filter(|&&score| score > 0.0).count();
    let is_personal = scored > 0 && limit > 0;
    let expected_kind = match is_personal {
        true => Personalization::Personalized,
        false => Personalization::Popularity,
    };
    prop_assert_eq!(found.personalization, expected_kind);
    if !is_personal {
        let mut popular: Vec<(std::cmp::Reverse<u32>, u32)> = (0..scores.len() as u32)
            .filter(|&item| scores[item as usize].is_some())
            .map(|item| (std::cmp::Reverse(snapshot.popularity().raters(ItemIndex(item))), item))
            .collect();
        popular.sort();
        popular.truncate(limit);
        let shown: Vec<_> = found
            .items
            .iter()
            .map(|shown| (shown.item.0, shown.score as u32))
            .collect();
        let expected: Vec<_> = popular.into_iter().map(|(raters, item)| (item, raters.0)).collect();
        prop_assert_eq!(shown, expected);
        return Ok(());
    }

    prop_assert_eq!(found.items.len(), scored.min(limit));
    let mut left = scores.to_vec();
    for shown in &found.items {
        let expected = left[shown.item.at()].take();
        prop_assert!(
            expected.is_some_and(|expected| (expected - shown.score).abs() < 1e-9),
            "{:?}",
            found
        );
    }
    let in_order = |a: &Recommended, b: &Recommended| a.score > b.score || a.score == b.score && a.item < b.item;
    prop_assert!(found.items.is_sorted_by(in_order), "{:?}", found);
    if let Some(last) = found.items.last() {
        prop_assert!(
            left.iter().flatten().all(|&score| score <= last.score + 1e-9),
            "{:?}",
            found
        );
    }
    Ok(())
}

fn terms_sum_to_the_score(found: &Recommendations) -> Result<(), TestCaseError> {
    for shown in &found.items {
        let Some(explanation) = &shown.explanation else {
            prop_assert_eq!(found.personalization, Personalization::Popularity);
            continue;
        };
        let items: f64 = explanation.items.iter().map(|item| item.contribution).sum();
        let users = explanation.similar_users.map_or(0.0, |users| users.contribution);
        let trend = explanation.popular_lately.map_or(0.0, |trend| trend.contribution);
        let habit = explanation.own_habit.map_or(0.0, |habit| habit.contribution);
        prop_assert!(
            (items + users + trend + habit - shown.score).abs() < 1e-9,
            "{:?}",
            shown
        );
        prop_assert!(explanation.items.is_sorted_by(|a, b| a.contribution >= b.contribution));
    }
    Ok(())
}

proptest! {
    #[test]
    fn agrees_with_the_formulas(
        parts in any_parts(),
        changes in any_changes(),
        limit in prop_oneof![Just(0usize), 1usize..4, Just(20)],
        exclude_history: bool,
        exclude_purchased: bool,
        excluded in prop::collection::vec(0usize..8, 0..2),
        candidates in prop::collection::vec(0usize..8, 0..6),
    ) {
        let change = |&(item, rating, orders): &Change| interaction("u0", &format!("i{item}"), rating, orders);
        let view = changed(view(parts), changes.iter().map(change));
        let snapshot = &view.snapshot;
        let parts = snapshot.parts();
        let named = |items: &[usize]| items.iter().map(|item| item_id(&format!("i{item}"))).collect();
        let session = History::new(changes
            .iter()
            .filter(|change| change.0 < parts.items.len())
            .map(|&(item, rating, _)| HistoryEntry {
                item: ItemIndex(item as u32),
                rating: rating.unwrap_or(0.0),
                purchased: false,
                orders: 0,
            })
            .collect());
        let terms = PlainTerms::new(parts, &changes);
        let viewed: Vec<Change> = changes.iter().map(|&(item, rating, _)| (item, rating, 0)).collect();
        let (u0, nobody) = (user_id("u0"), user_id("nobody"));
        let recipients = [
            (Recipient::User(&u0), Person::new(parts, Some(0), &changes)),
            (Recipient::UserIndex(UserIndex(0)), Person::new(parts, Some(0), &[])),
            (Recipient::User(&nobody), Person::new(parts, None, &[])),
            (Recipient::Session(session), Person::new(parts, None, &viewed)),
        ];
        // All share one scratch: a sum that one request leaves behind shows in the next.
        let mut scratch = Scratch::default();
        for (recipient, person) in &recipients {
            for basis in BASES {
                let options = RankOptions {
                    exclude_history,
                    exclude_purchased,
                    filter: ItemFilter {
                        excluded: named(&excluded),
                        candidates: named(&candidates),
                        ..ItemFilter::default()
                    },
                    ..options(limit, basis)
                };
                let hides_history = exclude_history || matches!(recipient, Recipient::Session(_));
                let may = |item: usize| {
                    parts.catalog.listed.get(item)
                        && !excluded.contains(&item)
                        && (candidates.is_empty() || candidates.contains(&item))
                        && !(hides_history && person.ratings[item] > 0.0)
                        && !(exclude_purchased && person.purchased[item] && person.ratings[item] > 0.0)
                };
                let found = recommend(&view, recipient, &options, &mut scratch);
                let with_history = !hides_history && !exclude_purchased;
                let scores = plain_scores(parts, person, basis, &terms, with_history, may);
                check_list(&found, &scores, snapshot, limit)?;
                terms_sum_to_the_score(&found)?;
                prop_assert!(scratch.is_clear());
            }
        }
    }

    #[test]
    fn leaving_items_out_never_changes_the_order_or_the_scores_of_the_others(
        parts in any_parts(),
        changes in any_changes(),
        excluded in prop::collection::vec(0usize..8, 1..4),
        exclude_history: bool,
    ) {
        let change = |&(item, rating, orders): &Change| interaction("u0", &format!("i{item}"), rating, orders);
        let view = changed(view(parts), changes.iter().map(change));
        // Requests with and without the history have fits of their own.
        let all = RankOptions {
            exclude_history,
            ..RankOptions::default()
        };
        let some = RankOptions {
            exclude_history,
            filter: ItemFilter {
                excluded: excluded.iter().map(|item| item_id(&format!("i{item}"))).collect(),
                ..ItemFilter::default()
            },
            ..RankOptions::default()
        };
        for user in ["u0", "u1"] {
            for basis in BASES {
                let list = |options: &RankOptions| {
                    let found = to_user(&view, user, &RankOptions { limit: 20, basis: Some(basis), ..options.clone() });
                    let is_personal = found.personalization == Personalization::Personalized;
                    let items = found.items.into_iter().map(|shown| (shown.item, shown.score.to_bits()));
                    is_personal.then(|| items.collect::<Vec<_>>())
                };
                let (Some(all), Some(rest)) = (list(&all), list(&some)) else {
                    continue;
                };
                let left: Vec<_> = all.into_iter().filter(|shown| rest.contains(shown)).collect();
                prop_assert_eq!(left, rest);
            }
        }
    }

    #[test]
    fn the_estimated_work_is_the_number_of_multiply_adds(parts in any_parts()) {
        let view = view(parts);
        let parts = view.snapshot.parts();
        for user in 0..parts.users.len() {
            let person = Person::new(parts, Some(user), &[]);
            let by_items = (0..parts.items.len())
                .flat_map(|item| ranking_lists(parts).row(item).0)
                .filter(|&&neighbor| person.ratings[neighbor as usize] > 0.0)
                .count();
            let by_users: usize = person.neighbors.iter().map(|&(user, _)| parts.ratings.row(user).len()).sum();
            let recipient = Recipient::UserIndex(UserIndex(user as u32));
            let work = |basis| estimated_work(&view, &recipient, &options(9, basis));
            prop_assert_eq!(work(Basis::ItemBased), by_items);
            prop_assert_eq!(work(Basis::UserBased), by_users);
            prop_assert_eq!(work(Basis::Blended), by_items + by_users);
        }
    }
}

#[test]
fn equal_scores_are_ordered_by_item_id() {
    // Items 1 to 11 all have the same raters, so that only their ids can decide.
    let alike: &[f32] = &[1.0; 12];
    let mut recipient = [0.0; 12];
    recipient[0] = 3.0;
    let view = view(snapshot_parts(&[alike, alike, &recipient]));
    for basis in BASES {
        for limit in [1, 4, 11] {
            let options = RankOptions {
                exclude_history: true,
                ..options(limit, basis)
            };
            let found = to_user(&view, "u2", &options);
            let expected = [
                "i01", "i02", "i03", "i04", "i05", "i06", "i07", "i08", "i09", "i10", "i11",
            ];
            assert_eq!(items(&view, &found), expected[..limit], "{basis:?}");
        }
    }
    let found = to_user(&view, "nobody", &options(3, Basis::Blended));
    assert_eq!(items(&view, &found), ["i00", "i01", "i02"]);
}

#[test]
fn among_equal_scores_at_the_limit_the_lower_id_wins_over_popularity() {
    // u0 has only item 0, to which all others are equally similar; the last of these are the most popular by far, and the sums of
    // the first stand in another run.
    for n in [3, 40] {
        let mut parts = snapshot_parts(&vec![vec![1.0; n]; 2].iter().map(Vec::as_slice).collect::<Vec<_>>());
        let reverse_neighbors = (1..n as u32).flat_map(|_| [0]).collect();
        let offsets = std::iter::once(0).chain(0..n as u64).collect();
        parts.item_neighbors = NeighborLists::new(n, offsets, reverse_neighbors, vec![0.5; n - 1]).unwrap();
        let raters: Vec<Vec<f32>> = (0..n)
            .map(|user| {
                (0..n)
                    .map(|item| f32::from(u8::from(item == 0 && user == 0 || item >= user && user > 0)))
                    .collect()
            })
            .collect();
        let rated = snapshot_parts(&raters.iter().map(Vec::as_slice).collect::<Vec<_>>());
        parts = SnapshotParts {
            item_neighbors: parts.item_neighbors,
            ..rated
        };
        let view = view(parts);
        let popularity = view.snapshot.popularity();
        assert!(popularity.rank(ItemIndex(1)) > popularity.rank(ItemIndex(n as u32 - 1)));
        for limit in 1..n {
            let options = RankOptions {
                exclude_history: true,
                ..options(limit, Basis::ItemBased)
            };
            let found = to_user(&view, if n == 3 { "u0" } else { "u00" }, &options);
            let shown: Vec<u32> = found.items.iter().map(|shown| shown.item.0).collect();
            assert_eq!(shown, (1..=limit as u32).collect::<Vec<_>>());
        }
    }
}

/// Covers ranks of more than two bytes.
#[test]
fn a_large_catalog_is_ranked_like_a_small_one() {
    const N: usize = 70_000;
    let place = |item: usize| N / 5 * (item + 1) - 1;
    let spread = |row: &&[f32]| {
        let mut wide = vec![0.0; N];
        row.iter()
            .enumerate()
            .for_each(|(item, &rating)| wide[place(item)] = rating);
        wide
    };
    let rows: Vec<Vec<f32>> = EXAMPLE.iter().map(spread).collect();
    let wide = view(snapshot_parts(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>()));
    let small = view(snapshot_parts(&EXAMPLE));
    for basis in BASES {
        let (expected, found) = (
            to_user(&small, "u0", &options(9, basis)),
            to_user(&wide, "u0", &options(9, basis)),
        );
        let of_small = expected.items.iter().map(|shown| (place(shown.item.at()), shown.score));
        let of_wide = found.items.iter().map(|shown| (shown.item.at(), shown.score));
        assert!(of_wide.eq(of_small), "{basis:?}: {found:?}");
    }
}

#[test]
fn unknown_users_get_the_most_popular_items_marked_so() {
    let view = view(snapshot_parts(&EXAMPLE));
    let check = |view: &View, user: &str| {
        for basis in BASES {
            let found = to_user(view, user, &options(4, basis));
            assert_eq!(found.personalization, Personalization::Popularity, "{user}");
            assert_eq!(items(view, &found), ["i3", "i0", "i4", "i1"]);
            scores_are(&found, &[3.0, 2.0, 2.0, 1.0]);
            assert!(found.items.iter().all(|shown| shown.explanation.is_none()));
        }
    };
    check(&view, "nobody");
    // A user who has withdrawn everything is treated as unknown.
    let withdrawn = ["i0", "i3", "i4"].map(|item| interaction("u0", item, None, 0));
    check(&changed(view.clone(), withdrawn), "u0");

    let narrow = RankOptions {
        filter: ItemFilter {
            candidates: vec![item_id("i2"), item_id("i4"), item_id("unheard of")],
            ..ItemFilter::default()
        },
        ..options(4, Basis::Blended)
    };
    assert_eq!(items(&view, &to_user(&view, "nobody", &narrow)), ["i4", "i2"]);
}

#[test]
fn a_fresh_rating_moves_the_item_based_score() {
    let view = view(snapshot_parts(&EXAMPLE));
    let by_items = options(1, Basis::ItemBased);
    let score = |view: &View, item: &str| {
        let options = RankOptions {
            filter: ItemFilter {
                candidates: vec![item_id(item)],
                ..ItemFilter::default()
            },
            ..by_items.clone()
        };
        to_user(view, "u0", &options).items[0].score
    };
    near(score(&view, "i2"), 0.40824829, 1e-6);
    // sim(1, 2) = 1.
    let rated = changed(view.clone(), [interaction("u0", "i1", Some(5.0), 0)]);
    near(score(&rated, "i2"), 5.40824829, 1e-6);
    // A rating of 1 + log2(2) from two orders.
    let bought = changed(view.clone(), [interaction("u0", "i1", None, 2)]);
    near(score(&bought, "i2"), 2.40824829, 1e-6);

    // A user newer than the snapshot has a history, but no neighbors yet.
    let newcomer = changed(view, [interaction("newcomer", "i1", Some(2.0), 0)]);
    let found = to_user(&newcomer, "newcomer", &options(9, Basis::Blended));
    assert_eq!(found.personalization, Personalization::Personalized);
    assert_eq!(items(&newcomer, &found), ["i2", "i3"]);
    scores_are(&found, &[1.0, 0.40824829]);
}

#[test]
fn bought_or_rated_items_can_be_left_out() {
    let mut parts = snapshot_parts(&EXAMPLE);
    // User 0 has bought item 0, and only rated 3 and 4.
    buy(&mut parts, 0, &[0]);
    let view = view(parts);
    let check = |view: &View, exclude_purchased, exclude_history, expected: &[&str]| {
        let options = RankOptions {
            exclude_purchased,
            exclude_history,
            ..options(9, Basis::ItemBased)
        };
        let mut found = items(view, &to_user(view, "u0", &options));
        found.sort();
        assert_eq!(found, expected);
    };
    check(&view, false, false, &["i0", "i1", "i2", "i3", "i4"]);
    check(&view, true, false, &["i1", "i2", "i3", "i4"]);
    check(&view, false, true, &["i1", "i2"]);
    check(&view, true, true, &["i1", "i2"]);
    let bought = changed(view, [interaction("u0", "i4", Some(1.0), 1)]);
    check(&bought, true, false, &["i1", "i2", "i3"]);
}

#[test]
fn a_session_is_never_shown_its_own_items() {
    let view = view(snapshot_parts(&EXAMPLE));
    let session = |items: &[u32]| {
        let entry = |&item| HistoryEntry {
            item: ItemIndex(item),
            rating: 1.0,
            purchased: false,
            orders: 0,
        };
        Recipient::Session(History::new(items.iter().map(entry).collect()))
    };
    let check = |viewed: &[u32], personalization, expected: &[&str]| {
        let found = recommend(
            &view,
            &session(viewed),
            &options(3, Basis::Blended),
            &mut Scratch::default(),
        );
        assert_eq!(found.personalization, personalization);
        assert_eq!(items(&view, &found), expected);
    };
    // sim(1, 2) = 1, sim(1, 3) = 0.408.
    check(&[1], Personalization::Personalized, &["i2", "i3"]);
    check(&[1, 2], Personalization::Personalized, &["i3"]);
    check(&[0, 3], Personalization::Personalized, &["i4", "i1", "i2"]);
    check(&[], Personalization::Popularity, &["i3", "i0", "i4"]);
    check(&[0, 1, 2, 3, 4], Personalization::Popularity, &[]);
}

#[test]
fn an_explanation_names_items_and_counts_users() {
    let view = view(snapshot_parts(&EXAMPLE));
    let found = to_user(&view, "u0", &options(2, Basis::Blended));
    // By items, 4 has the most, 4.113, and 3 has 3.834; by users 3 has the most.
    assert_eq!(items(&view, &found), ["i4", "i3"]);
    let explanation = found.items[1].explanation.as_ref().unwrap();
    assert_eq!(ids(&view, explanation.items.iter().map(|item| item.item)), ["i0", "i4"]);
    near(explanation.items[0].similarity, 0.73029674, 1e-6);
    near(explanation.items[0].rating, 4.0, 0.0);
    near(
        explanation.items[0].contribution,
        0.5 * 0.73029674 * 4.0 / 4.11287093,
        1e-6,
    );
    let users = explanation.similar_users.unwrap();
    assert_eq!(users.users, 2);
    near(users.contribution, 0.5, 1e-12);

    let silent = RankOptions {
        explain: false,
        ..options(1, Basis::Blended)
    };
    assert_eq!(to_user(&view, "u0", &silent).items[0].explanation, None);
    let by_items = to_user(&view, "u0", &options(1, Basis::ItemBased));
    assert_eq!(by_items.items[0].explanation.as_ref().unwrap().similar_users, None);
    let by_users = to_user(&view, "u0", &options(1, Basis::UserBased));
    assert!(by_users.items[0].explanation.as_ref().unwrap().items.is_empty());
}

#[test]
fn a_scratch_serves_views_of_any_size() {
    let small = view(snapshot_parts(&[&[1.0, 2.0], &[2.0, 1.0]]));
    let large = view(snapshot_parts(&EXAMPLE));
    let mut scratch = Scratch::default();
    for view in [&small, &large, &small, &large] {
        let recipient = Recipient::UserIndex(UserIndex(0));
        let found = recommend(view, &recipient, &options(9, Basis::Blended), &mut scratch);
        let alone = recommend(view, &recipient, &options(9, Basis::Blended), &mut Scratch::default());
        assert_eq!(found, alone);
    }
}

#[test]
fn a_user_who_objects_to_profiling_gets_popular_items_without_their_own() {
    let trained = view(snapshot_parts(&EXAMPLE));
    let objects = |user: &str| FreshChange::Consents {
        user: user_id(user),
        consents: Consents::default().with(Purpose::Profiling, Some(false)),
    };
    let bought = interaction("u0", "i3", None, 1);
    let rated = interaction("new", "i0", Some(5.0), 0);
    let view = changed(trained, [objects("u0"), objects("new"), bought, rated]);
    for basis in BASES {
        let check = |user: &str, options: &RankOptions, expected: &[&str]| {
            let found = to_user(&view, user, options);
            assert_eq!(found.personalization, Personalization::Popularity, "{user}");
            assert_eq!(items(&view, &found), expected, "{user}");
            assert_eq!(estimated_work(&view, &Recipient::User(&user_id(user)), options), 0);
        };
        let all = options(9, basis);
        check("u0", &all, &["i3", "i0", "i4", "i1", "i2"]);
        check("new", &all, &["i3", "i0", "i4", "i1", "i2"]);
        let exclude_purchased = RankOptions {
            exclude_purchased: true,
            ..all.clone()
        };
        check("u0", &exclude_purchased, &["i0", "i4", "i1", "i2"]);
        let exclude_history = RankOptions {
            exclude_history: true,
            ..all.clone()
        };
        check("u0", &exclude_history, &["i1", "i2"]);
        check("new", &exclude_history, &["i3", "i4", "i1", "i2"]);
        // Other users are not affected.
        assert_eq!(
            to_user(&view, "u2", &all).personalization,
            Personalization::Personalized
        );
    }
}
