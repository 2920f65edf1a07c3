//! Makes small valid snapshots for tests, from a dense matrix of ratings.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::sample::select;

use domain::consent::{Consents, PrivacyOptions};
use domain::id::{Category, ItemId, MerchantId, UserId};
use domain::item::ItemFacts;
use domain::money::{Currency, Money};
use domain::rating::RatingScale;
use similarity::cosine::{RowSelection, TopKOptions, top_k};
use similarity::lists::{NeighborLists, WeightLists};
use similarity::significance::SignificantLists;
use similarity::sparse::CsrMatrix;

use super::activity::Activity;
use super::bits::Bits;
use super::catalog::{Catalog, NONE};
use super::consents::ConsentRecords;
use super::dictionary::{Dictionary, ItemIndex, Texts};
use super::merchant_orders::MerchantOrders;
use super::orders::{ItemOrders, Orders};
use super::overlay::Overlay;
use super::parameters::{BlendWeights, DefaultRanker, ImplicitFeedback, TrainingOptions, TrainingParameters};
use super::parts::Optional;
use super::propensity::{Feature, Propensity, PropensityEvidence, PropensityModel, PropensityTerm};
use super::ratings::Ratings;
use super::settings::{FittedSettings, ScoreSettings};
use super::significance::SignificantNeighbors;
use super::view::View;
use crate::snapshot::{Biases, Snapshot, SnapshotParts};

/// The worked example of docs/formulas.md: user similarities 0.06299408 (0,1), 0.81649658 (0,2), 0.15430335 (1,2).
pub const EXAMPLE: [&[f32]; 3] = [
    &[4.0, 0.0, 0.0, 1.0, 1.0],
    &[0.0, 2.0, 3.0, 1.0, 0.0],
    &[2.0, 0.0, 0.0, 2.0, 2.0],
];

/// Makes a snapshot of `ratings`, [users, items], 0 where there is none; at least one row, rows of one length.
///
/// Ids are u0, u1, … and i0, i1, …, zero-padded to one width from the eleventh on, so that row r is user r. Nothing is
/// purchased, every item is listed and bare, parameters and weights are the defaults, the biases are 0; neighbor lists
/// are those of [`top_k`] with the default number of neighbors. A test changes the fields that it is about.
pub fn snapshot_parts(ratings: &[&[f32]]) -> SnapshotParts {
    let (m, n) = (ratings.len(), ratings[0].len());
    let mut triplets = Vec::new();
    for (user, row) in ratings.iter().enumerate() {
        assert_eq!(row.len(), n, "row {user}");
        let rated = row.iter().enumerate().filter(|&(_, &rating)| rating != 0.0);
        triplets.extend(rated.map(|(item, &rating)| (user as u32, item as u32, rating)));
    }
    let ratings = CsrMatrix::from_triplets(m, n, triplets).unwrap();
    let by_item = ratings.transpose();
    SnapshotParts {
        parameters: TrainingParameters::default(),
        weights: BlendWeights::default(),
        users: Dictionary::new(ids("u", m)).unwrap(),
        items: Dictionary::new(ids("i", n)).unwrap(),
        catalog: catalog(&vec![ItemFacts::default(); n]),
        purchased: Bits::zeros(ratings.nnz()),
        biases: Biases {
            global_mean: 0.0,
            users: vec![0.0; m],
            items: vec![0.0; n],
        },
        user_neighbors: neighbors(&ratings, &by_item),
        item_neighbors: neighbors(&by_item, &ratings),
        activity: Activity::none(m, 0),
        consents: ConsentRecords::default(),
        ratings: ratings_of(ratings),
        ..SnapshotParts::default()
    }
}

/// Converts a matrix [users, items], of which nothing is purchased.
fn ratings_of(matrix: CsrMatrix) -> Ratings {
    let purchased = Bits::zeros(matrix.nnz());
    Ratings::of_matrix(matrix, &purchased).0
}

/// Marks `items` as bought by `user`, who has rated all of them.
pub fn buy(parts: &mut SnapshotParts, user: usize, items: &[u32]) {
    for &item in items {
        let position = parts.ratings.row(user).position(ItemIndex(item)).unwrap();
        parts
            .purchased
            .set(parts.ratings.row_range(user).start + position, true);
    }
}

/// Makes the orders behind the purchased entries of `parts`: an entry has the number of orders that `count` gives for its
/// position, at least 1, of which each counts `recent`. The newest order was on the eighth day of 1970, and the half-life is a week.
pub fn orders(parts: &SnapshotParts, count: impl Fn(usize) -> u32, recent: f32) -> Orders {
    let n = parts.items.len();
    let mut orders = Orders {
        newest_at: 7 * 86_400,
        half_life_days: 7.0,
        offsets: vec![0],
        counts: Vec::new(),
        recent: Vec::new(),
        items: ItemOrders {
            orders: vec![0; n],
            recent: vec![0.0; n],
            buyers: vec![0; n],
            repeat_buyers: vec![0; n],
        },
    };
    for user in 0..parts.users.len() {
        for ((item, _), at) in parts.ratings.row(user).iter().zip(parts.ratings.row_range(user)) {
            if parts.purchased.get(at) {
                let count = count(at).max(1);
                orders.counts.push(count);
                orders.recent.push(count as f32 * recent);
                orders.items.orders[item.at()] += count;
                orders.items.recent[item.at()] += count as f32 * recent;
                orders.items.buyers[item.at()] += 1;
                orders.items.repeat_buyers[item.at()] += u32::from(count >= 2);
            }
        }
        orders.offsets.push(orders.counts.len() as u64);
    }
    orders
}

/// Makes the validated snapshot of [`snapshot_parts`].
pub fn snapshot(ratings: &[&[f32]]) -> Snapshot {
    Snapshot::new(snapshot_parts(ratings)).unwrap()
}

/// Makes a view of `parts` as version 1, with nothing changed since.
pub fn view(parts: SnapshotParts) -> View {
    View {
        version: 1,
        redaction: 0,
        snapshot: Arc::new(Snapshot::new(parts).unwrap()),
        overlay: Arc::new(Overlay::default()),
        epoch: 0,
        privacy: PrivacyOptions::default(),
    }
}

/// Makes a catalog of `facts`, item by item.
pub fn catalog(facts: &[ItemFacts]) -> Catalog {
    let categories: BTreeSet<&str> = facts
        .iter()
        .filter_map(|f| f.category.as_ref())
        .map(Category::as_str)
        .collect();
    let merchants: BTreeSet<&str> = facts
        .iter()
        .filter_map(|f| f.merchant.as_ref())
        .map(MerchantId::as_str)
        .collect();
    let currencies: BTreeSet<Currency> = facts
        .iter()
        .filter_map(|f| f.price)
        .map(|price| price.currency)
        .collect();
    let at = |position: Option<usize>| position.map_or(NONE, |position| position as u32);
    let place = |names: &BTreeSet<&str>, name: Option<&str>| {
        at(name.and_then(|name| names.iter().position(|&known| known == name)))
    };
    Catalog {
        titles: facts.iter().map(|f| f.title.as_deref().unwrap_or("")).collect(),
        category_of: facts
            .iter()
            .map(|f| place(&categories, f.category.as_ref().map(Category::as_str)))
            .collect(),
        merchant_of: facts
            .iter()
            .map(|f| place(&merchants, f.merchant.as_ref().map(MerchantId::as_str)))
            .collect(),
        price_minor: facts
            .iter()
            .map(|f| f.price.map_or(0, |price| price.amount_minor))
            .collect(),
        currency_of: facts
            .iter()
            .map(|f| {
                at(f.price
                    .and_then(|price| currencies.iter().position(|&known| known == price.currency)))
            })
            .collect(),
        listed: facts.iter().map(|f| f.listed).collect(),
        categories: categories.into_iter().collect(),
        merchants: merchants.into_iter().collect(),
        currencies: currencies.into_iter().collect(),
    }
}

/// Makes the facts of a listed item at 19.99 GBP.
pub fn item_facts(title: &str, category: &str, merchant: &str) -> ItemFacts {
    ItemFacts {
        title: Some(title.to_owned()),
        merchant: Some(MerchantId::new(merchant).unwrap()),
        category: Some(Category::new(category).unwrap()),
        price: Some(Money {
            amount_minor: 1999,
            currency: Currency::new("GBP").unwrap(),
        }),
        listed: true,
    }
}

pub fn user_id(id: &str) -> UserId {
    UserId::new(id).unwrap()
}

pub fn item_id(id: &str) -> ItemId {
    ItemId::new(id).unwrap()
}

/// Makes any valid parts of up to seven users and items. Lists, biases and weights need not follow from the ratings.
pub fn any_parts() -> impl Strategy<Value = SnapshotParts> {
    let ids = || btree_set("\\PC{1,6}", 0..8);
    (ids(), ids()).prop_flat_map(|(users, items)| {
        let (m, n) = (users.len(), items.len());
        let model = (any_ratings(m, n), any_lists(m), any_lists(n), any_biases(m, n));
        let rest = (any_parameters(), any_weights(), vec(any_facts(), n));
        let coupons = (any_activity(m), any_consents(), any_propensity());
        let default_ranker = select(vec![DefaultRanker::Blended, DefaultRanker::Popularity]);
        let significant = prop::option::of((any_lists(n), 0_u32..300));
        let ordered = prop::option::of((1_u32..300, 0.0_f32..1.0));
        let merchants = prop::option::of(any_merchant_orders(m));
        let added = (prop::option::of(any_settings()), significant, ordered, merchants);
        let rankers = (prop::option::of(any_weight_lists(n)), default_ranker, added);
        (Just((users, items)), model, rest, coupons, rankers).prop_map(
            |(
                (users, items),
                model,
                rest,
                coupons,
                (lists, default_ranker, (settings, significant, order, merchants)),
            )| {
                let ((ratings, purchased), user_neighbors, item_neighbors, biases) = model;
                let (parameters, weights, facts) = rest;
                let (activity, consents, propensity) = coupons;
                let parts = SnapshotParts {
                    parameters,
                    weights,
                    users: Dictionary::new(users.iter().collect()).unwrap(),
                    items: Dictionary::new(items.iter().collect()).unwrap(),
                    catalog: catalog(&facts),
                    ratings,
                    purchased,
                    biases,
                    user_neighbors,
                    item_neighbors,
                    activity,
                    consents,
                    propensity,
                    ..SnapshotParts::default()
                };
                let significant = significant.map(|(lists, co_raters)| SignificantNeighbors {
                    shrinkage: f64::from(co_raters),
                    neighbors: SignificantLists {
                        co_raters: vec![co_raters; lists.len()],
                        lists,
                    },
                });
                let order = order.map(|(count, recent)| orders(&parts, |at| count + at as u32, recent));
                // A merchant that no item names any more may be gone from the catalog.
                let merchant_orders = merchants.map(|orders| {
                    let n_merchants = parts.catalog.merchants.len() as u32;
                    let known = orders.into_iter().filter(|&(_, merchant, _)| merchant < n_merchants);
                    MerchantOrders::new(parts.users.len(), &known.collect::<Vec<_>>())
                });
                SnapshotParts {
                    merchant_orders: merchant_orders.map_or_else(Optional::default, Optional::Present),
                    fitted_settings: settings.map_or_else(Optional::default, Optional::Present),
                    significant_item_neighbors: significant.map_or_else(Optional::default, Optional::Present),
                    orders: order.map_or_else(Optional::default, Optional::Present),
                    item_weights: lists.map_or_else(Optional::default, Optional::Present),
                    default_ranker,
                    ..parts
                }
            },
        )
    })
}

fn any_activity(m: usize) -> impl Strategy<Value = Activity> {
    let counts = || vec(0_u32..300, m);
    let signed = || vec(any::<i64>(), m);
    (any::<i64>(), counts(), signed(), signed(), counts(), counts(), counts()).prop_map(
        |(as_of, orders, spend_minor, last_order_at, discounted_lines, redemptions, campaigns)| Activity {
            as_of,
            orders,
            spend_minor,
            last_order_at,
            discounted_lines,
            redemptions,
            campaigns,
        },
    )
}

fn any_consents() -> impl Strategy<Value = ConsentRecords> {
    btree_map(
        "\\PC{1,6}",
        (0_u8..128).prop_filter_map("no consents", Consents::from_bits),
        0..5,
    )
    .prop_map(|records| {
        let ids = records.keys().collect();
        ConsentRecords::new(ids, records.into_values().collect()).unwrap()
    })
}

fn any_propensity() -> impl Strategy<Value = Propensity> {
    let finite = || -1e9..1e9;
    let term = (select(Feature::ALL.to_vec()), finite(), 1e-9..1e9, finite());
    let term = term.prop_map(|(feature, mean, scale, weight)| PropensityTerm {
        feature,
        mean,
        scale,
        weight,
    });
    let evidence = proptest::array::uniform4(any::<u64>());
    let evidence = evidence.prop_map(|[campaigns, recipients, redeemers, redemptions]| PropensityEvidence {
        campaigns,
        recipients,
        redeemers,
        redemptions,
    });
    let model = (finite(), 0.0..1e9, vec(term, 0..8), evidence);
    let model = model.prop_map(|(intercept, campaign_variance, terms, evidence)| PropensityModel {
        intercept,
        campaign_variance,
        terms,
        evidence,
    });
    prop_oneof![
        "\\PC{0,9}".prop_map(|reason| Propensity::NotFitted { reason }),
        model.prop_map(Propensity::Fitted),
    ]
}

fn any_ratings(m: usize, n: usize) -> impl Strategy<Value = (Ratings, Bits)> {
    let rating = prop_oneof![
        3 => Just(None),
        3 => (1_u8..=10).prop_map(|halves| Some(f32::from(halves) / 2.0)),
        1 => (f32::MIN_POSITIVE..1e30).prop_map(Some),
    ];
    vec((rating, any::<bool>()), m * n).prop_map(move |cells| {
        let rated = cells.iter().enumerate();
        let rated = rated.filter_map(|(at, &(rating, purchased))| Some((at, rating?, purchased)));
        let entries = rated
            .clone()
            .map(|(at, rating, _)| ((at / n) as u32, (at % n) as u32, rating));
        let ratings = CsrMatrix::from_triplets(m, n, entries.collect()).unwrap();
        let purchased: Bits = rated.map(|(_, _, purchased)| purchased).collect();
        Ratings::of_matrix(ratings, &purchased)
    })
}

fn any_lists(n: usize) -> impl Strategy<Value = NeighborLists> {
    let similarity = prop_oneof![
        2 => Just(None),
        2 => (1_u8..=4).prop_map(|quarters| Some(f32::from(quarters) / 4.0)),
        1 => (f32::MIN_POSITIVE..=1.0).prop_map(Some),
    ];
    vec(vec(similarity, n), n).prop_map(move |rows| {
        let (mut offsets, mut neighbors, mut similarities) = (vec![0], Vec::new(), Vec::new());
        for (row, all) in rows.iter().enumerate() {
            let targets = all.iter().enumerate().filter(|&(target, _)| target != row);
            let mut list: Vec<(f32, usize)> = targets.filter_map(|(target, &s)| Some((s?, target))).collect();
            list.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            neighbors.extend(list.iter().map(|&(_, target)| target as u32));
            similarities.extend(list.iter().map(|&(similarity, _)| similarity));
            offsets.push(neighbors.len() as u64);
        }
        NeighborLists::new(n, offsets, neighbors, similarities).unwrap()
    })
}

/// Generates ascending entries of m users and a few merchants.
fn any_merchant_orders(m: usize) -> impl Strategy<Value = Vec<(u32, u32, i64)>> {
    let entry = (0..m.max(1) as u32, 0_u32..4, any::<i64>());
    vec(entry, 0..2 * m + 1).prop_map(move |mut orders| {
        orders.retain(|&(user, _, _)| (user as usize) < m);
        orders.sort_unstable();
        orders.dedup_by_key(|&mut (user, merchant, _)| (user, merchant));
        orders
    })
}

fn any_weight_lists(n: usize) -> impl Strategy<Value = WeightLists> {
    let weight = prop_oneof![
        2 => Just(None),
        2 => select(vec![-0.5_f32, 0.5, 2.0]).prop_map(Some),
        1 => (f32::MIN_POSITIVE..1e9, any::<bool>()).prop_map(|(weight, is_below)| Some(if is_below { -weight } else { weight })),
    ];
    vec(vec(weight, n), n).prop_map(move |rows| {
        let (mut offsets, mut targets, mut weights) = (vec![0], Vec::new(), Vec::new());
        for (row, all) in rows.iter().enumerate() {
            for (target, &weight) in all.iter().enumerate().filter(|&(target, _)| target != row) {
                targets.extend(weight.map(|_| target as u32));
                weights.extend(weight);
            }
            offsets.push(targets.len() as u64);
        }
        WeightLists::new(n, offsets, targets, weights).unwrap()
    })
}

fn any_biases(m: usize, n: usize) -> impl Strategy<Value = Biases> {
    let biases = |len| vec(-4.0_f32..4.0, len);
    (-9.0..9.0, biases(m), biases(n)).prop_map(|(global_mean, users, items)| Biases {
        global_mean,
        users,
        items,
    })
}

/// Makes floats of few digits, as people write them: others may come back from JSON with another last bit.
fn any_parameters() -> impl Strategy<Value = TrainingParameters> {
    use ImplicitFeedback::{Binary, LogOrders, Off};

    let scale = (0.1_f32..5.0, 5.5_f32..100.0).prop_map(|(min, max)| RatingScale { min, max });
    let shrinkage = || (0_u32..100_000).prop_map(|thousandths| f64::from(thousandths) / 1000.0);
    let implicit = select(vec![LogOrders, Binary, Off]);
    let shrinkages = (shrinkage(), shrinkage());
    (scale, implicit, 1..10_000_usize, shrinkages, 1..100_u32, any::<u64>()).prop_map(
        |(scale, implicit, neighbors, (user_bias_shrinkage, item_bias_shrinkage), bias_iterations, seed)| {
            let options = TrainingOptions {
                implicit,
                neighbors,
                user_bias_shrinkage,
                item_bias_shrinkage,
                bias_iterations,
                seed,
            };
            TrainingParameters { scale, options }
        },
    )
}

/// Makes settings of few digits, as JSON keeps them.
fn any_settings() -> impl Strategy<Value = FittedSettings> {
    let quarters = || (0_u8..9).prop_map(|quarters| f64::from(quarters) / 4.0);
    let ranker = || select(vec![DefaultRanker::Blended, DefaultRanker::Popularity]);
    let score = || (ranker(), 0_u8..=10, quarters(), quarters());
    let score = || {
        score().prop_map(|(ranker, tenths, trend_exponent, habit_weight)| ScoreSettings {
            ranker,
            item_weight: f64::from(tenths) / 10.0,
            trend_exponent,
            habit_weight,
        })
    };
    let numbers = (quarters(), 1_u8..60, 0_u8..50, quarters());
    (score(), score(), numbers).prop_map(|(new_items, all_items, (exponent, days, significance, shrinkage))| {
        FittedSettings {
            new_items,
            all_items,
            popularity_trend_exponent: exponent,
            half_life_days: f64::from(days),
            significance: f64::from(significance),
            baseline_shrinkage: shrinkage,
            implicit: ImplicitFeedback::Binary,
        }
    })
}

fn any_weights() -> impl Strategy<Value = BlendWeights> {
    proptest::array::uniform4(0.0..=1.0).prop_map(|[weighted_sum, weighted_mean, baseline, ranking]| BlendWeights {
        weighted_sum,
        weighted_mean,
        baseline,
        ranking,
    })
}

fn any_facts() -> impl Strategy<Value = ItemFacts> {
    let name = || prop::option::of(select(vec!["art", "mugs", "Über"]));
    let price = (any::<i64>(), select(vec!["EUR", "GBP", "JPY"])).prop_map(|(amount_minor, code)| Money {
        amount_minor,
        currency: Currency::new(code).unwrap(),
    });
    let title = prop::option::of("\\PC{0,6}");
    (title, name(), name(), prop::option::of(price), any::<bool>()).prop_map(
        |(title, merchant, category, price, listed)| ItemFacts {
            title,
            merchant: merchant.map(|merchant| MerchantId::new(merchant).unwrap()),
            category: category.map(|category| Category::new(category).unwrap()),
            price,
            listed,
        },
    )
}

fn ids(prefix: &str, count: usize) -> Texts {
    let width = count.saturating_sub(1).to_string().len();
    (0..count).map(|index| format!("{prefix}{index:0width$}")).collect()
}

/// Converts the ratings into the matrix that training has.
pub fn matrix(ratings: &Ratings) -> CsrMatrix {
    let rows = (0..ratings.n_users()).flat_map(|user| ratings.row(user).iter().map(move |entry| (user, entry)));
    let triplets = rows.map(|(user, (item, value))| (user as u32, item.0, value));
    CsrMatrix::from_triplets(ratings.n_users(), ratings.n_items(), triplets.collect()).unwrap()
}

fn neighbors(rows: &CsrMatrix, columns: &CsrMatrix) -> NeighborLists {
    top_k(rows, columns, RowSelection::All, &TopKOptions::default())
        .unwrap()
        .lists
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_has_its_similarities() {
        let parts = snapshot_parts(&EXAMPLE);
        let (neighbors, similarities) = parts.user_neighbors.row(0);
        assert_eq!(neighbors, [2, 1]);
        assert!((similarities[0] - 0.81649658).abs() < 1e-6 && (similarities[1] - 0.06299408).abs() < 1e-6);
        assert_eq!(parts.item_neighbors.n_rows(), 5);
        Snapshot::new(parts).unwrap();
    }

    #[test]
    fn more_than_ten_rows_keep_their_order() {
        let row: &[f32] = &[1.0; 12];
        let view = view(snapshot_parts(&[row; 12]));
        assert_eq!(view.snapshot.users().texts().iter().nth(2), Some("u02"));
        assert_eq!(view.item_id(ItemIndex(11)), "i11");
    }

    #[test]
    fn facts_come_back() {
        let mut facts = [
            item_facts("A", "mugs", "acme"),
            ItemFacts::default(),
            item_facts("B", "art", "acme"),
        ];
        facts[2].listed = false;
        let mut parts = snapshot_parts(&[&[1.0, 2.0, 0.0]]);
        parts.catalog = catalog(&facts);
        let snapshot = Snapshot::new(parts).unwrap();
        let of = |item| snapshot.catalog().facts(ItemIndex(item));
        assert_eq!(
            (of(0).category, of(0).merchant, of(0).price),
            (Some("mugs"), Some("acme"), facts[0].price)
        );
        assert_eq!(
            (of(1).title, of(1).category, of(1).price, of(1).listed),
            ("", None, None, true)
        );
        assert_eq!((of(2).title, of(2).category, of(2).listed), ("B", Some("art"), false));
    }
}
