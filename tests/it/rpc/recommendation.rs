//! RecommendationService, compared with the formulas of docs/formulas.md, computed as plain sums over a dense matrix.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use likemind::grpc::proto::v1::recommendation_service_client::RecommendationServiceClient;
use likemind::grpc::proto::v1::{
    Basis, Estimator, Fallback, Item, ItemFilter, ListSimilarItemsRequest, ListSimilarItemsResponse, Money,
    Personalization, PredictRatingsRequest, PredictedRating, Prediction, PriceRange, PurchaseLine, Rating,
    RecommendRequest, RecommendResponse, RecommendedItem, RecordPurchasesRequest, ScoreExplanation, SessionItem,
    SessionItems, UpsertItemsRequest, UpsertRatingsRequest, prediction, recommend_request::Subject,
};
use tokio::sync::OnceCell;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::answers::{assert_invalid, assert_status};
use crate::support::postgres::TestDatabase;
use crate::support::program::{Server, succeed};
use crate::support::times::at;

const USERS: usize = 24;
const ITEMS: usize = 16;
/// An item that nobody has rated or bought.
const BARE: usize = 14;
/// An item that is not listed.
const HIDDEN: usize = 5;

const BASES: [Basis; 3] = [Basis::ItemBased, Basis::UserBased, Basis::Blended];

type Client = RecommendationServiceClient<Channel>;

pub(super) fn user(number: usize) -> String {
    format!("u{number:02}")
}

fn item(number: usize) -> String {
    format!("i{number:02}")
}

pub(super) fn number_of(item_id: &str) -> usize {
    item_id[1..].parse().unwrap()
}

/// Returns a number that is the same in every run.
fn hash(user: usize, item: usize) -> usize {
    let mixed = ((user * ITEMS + item + 1) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as usize
}

/// Returns the rating that `user` has given `item`. User 0 likes everything and user 1 nothing; everybody likes item 0 and
/// nobody item 1.
fn rating(user: usize, item: usize) -> Option<f32> {
    let hash = hash(user, item);
    match (user, item) {
        (_, BARE) => None,
        (0, _) | (_, 0) => (hash % 8 < 7).then_some(5.0),
        (1, _) | (_, 1) => (hash % 8 < 7).then_some(1.0),
        _ => (hash % 100 < 35).then(|| 1.0 + ((hash / 100) % 9) as f32 / 2.0),
    }
}

/// Returns the number of orders in which `user` has bought `item`.
fn orders(user: usize, item: usize) -> usize {
    let hash = hash(user + USERS, item);
    match item {
        BARE => 0,
        _ if hash % 100 < 25 => 1 + hash / 100 % 3,
        _ => 0,
    }
}

fn effective_rating(user: usize, item: usize) -> f64 {
    let implicit = match orders(user, item) {
        0 => 0.0,
        orders => (1.0 + (orders as f64).log2()) as f32,
    };
    f64::from(rating(user, item).unwrap_or(implicit))
}

pub(super) fn facts(number: usize) -> Item {
    let currency = ["GBP", "EUR"][number % 2];
    let price = Money {
        amount_minor: 100 * number as i64,
        currency_code: currency.to_owned(),
    };
    Item {
        item_id: item(number),
        title: (number != 3).then(|| format!("Item {number}")),
        merchant_id: (number % 5 != 4).then(|| format!("m{}", number % 5)),
        category: (number % 4 != 3).then(|| format!("c{}", number % 4)),
        price: (number % 6 != 5).then_some(price),
        listed: Some(number != HIDDEN),
    }
}

/// Returns the shop with a snapshot, for tests that only read.
pub(super) async fn shop() -> &'static TestDatabase {
    static SHOP: OnceCell<TestDatabase> = OnceCell::const_new();
    SHOP.get_or_init(open_shop).await
}

/// Creates a shop of its own for a test, with a snapshot.
async fn open_shop() -> TestDatabase {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let items = (0..ITEMS).map(facts).collect();
    server
        .catalog()
        .await
        .upsert_items(UpsertItemsRequest { items })
        .await
        .unwrap();
    let pairs = || (0..USERS).flat_map(|user| (0..ITEMS).map(move |item| (user, item)));
    let ratings = pairs().filter_map(|(by, of)| {
        Some(Rating {
            user_id: user(by),
            item_id: item(of),
            value: rating(by, of)?,
            rated_at: at((by * 31 + of * 17) as i64),
        })
    });
    let request = UpsertRatingsRequest {
        ratings: ratings.collect(),
    };
    server.ratings().await.upsert_ratings(request).await.unwrap();
    let lines = pairs().flat_map(|(by, of)| (0..orders(by, of)).map(move |order| line(&user(by), &item(of), order, 1)));
    let request = RecordPurchasesRequest { lines: lines.collect() };
    server.purchases().await.record_purchases(request).await.unwrap();
    succeed(&database, &["train"]);
    database
}

/// Returns a purchase line of one of the orders of `user`, which are numbered.
fn line(user: &str, item: &str, order: usize, line_number: i32) -> PurchaseLine {
    PurchaseLine {
        coupon_discount_minor: 0,
        order_id: format!("{user}-{order}"),
        line_number,
        user_id: user.to_owned(),
        item_id: item.to_owned(),
        quantity: 1,
        line_total: Some(Money {
            amount_minor: 100,
            currency_code: "GBP".to_owned(),
        }),
        purchased_at: at(order as i64),
    }
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    match sum_of_products(a, a) * sum_of_products(b, b) {
        0.0 => 0.0,
        lengths => f64::from((sum_of_products(a, b) / lengths.sqrt()) as f32),
    }
}

/// The matrix of ratings and all similarities, dense.
struct Reference {
    rows: Vec<Vec<f64>>,
    columns: Vec<Vec<f64>>,
    users: Vec<Vec<f64>>,
    items: Vec<Vec<f64>>,
}

static REFERENCE: LazyLock<Reference> = LazyLock::new(|| {
    let similarities = |vectors: &[Vec<f64>]| {
        let n = vectors.len();
        let between = |a: usize, b: usize| if a == b { 0.0 } else { cosine(&vectors[a], &vectors[b]) };
        (0..n).map(|a| (0..n).map(|b| between(a, b)).collect()).collect()
    };
    let rows: Vec<Vec<f64>> = (0..USERS)
        .map(|user| (0..ITEMS).map(|item| effective_rating(user, item)).collect())
        .collect();
    let columns: Vec<Vec<f64>> = (0..ITEMS)
        .map(|item| rows.iter().map(|row| row[item]).collect())
        .collect();
    Reference {
        users: similarities(&rows),
        items: similarities(&columns),
        rows,
        columns,
    }
});

fn sum_of_products(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Returns the similarity-weighted sum over the items that a user with these ratings has rated.
fn item_score(ratings: &[f64], item: usize) -> f64 {
    sum_of_products(&REFERENCE.items[item], ratings)
}

/// Returns the similarity-weighted sum over the users that have rated the item.
fn user_score(user: usize, item: usize) -> f64 {
    sum_of_products(&REFERENCE.users[user], &REFERENCE.columns[item])
}

#[track_caller]
fn assert_close(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() <= 1e-5 * expected.abs().max(1.0),
        "{what}: found {found}, expected {expected}"
    );
}

/// Asserts that two sums are equal, apart from rounding.
#[track_caller]
fn assert_sum(found: f64, expected: f64, what: &str) {
    assert!(
        (found - expected).abs() <= 1e-9 * expected.abs().max(1.0),
        "{what}: found {found}, expected {expected}"
    );
}

pub(super) fn for_user(user_id: &str) -> RecommendRequest {
    RecommendRequest {
        subject: Some(Subject::UserId(user_id.to_owned())),
        limit: 1_000,
        basis: Basis::ItemBased.into(),
        ..RecommendRequest::default()
    }
}

/// Sends a request, and asserts what holds for all answers: ranks, titles, listed items, and the order by score and id.
async fn recommend(client: &Client, request: RecommendRequest) -> RecommendResponse {
    let answer = client.clone().recommend(request).await.unwrap().into_inner();
    assert_eq!(answer.snapshot_version, 1);
    for (item, rank) in answer.items.iter().zip(1..) {
        assert_eq!(item.rank, rank);
        let facts = facts(number_of(&item.item_id));
        assert_eq!(item.title, facts.title.unwrap_or_default());
        assert_eq!(facts.listed, Some(true), "{} is hidden", item.item_id);
    }
    for pair in answer.items.windows(2) {
        let by_id = pair[0].score == pair[1].score && pair[0].item_id < pair[1].item_id;
        assert!(pair[0].score > pair[1].score || by_id, "{pair:?}");
    }
    answer
}

fn ids(answer: &RecommendResponse) -> Vec<String> {
    answer.items.iter().map(|item| item.item_id.clone()).collect()
}

#[track_caller]
fn assert_scores(answer: &RecommendResponse, score: impl Fn(usize) -> f64, what: &str) {
    assert_eq!(answer.personalization(), Personalization::Personalized, "{what}");
    let found: BTreeMap<usize, f64> = answer
        .items
        .iter()
        .map(|item| (number_of(&item.item_id), item.score))
        .collect();
    for item in (0..ITEMS).filter(|&item| item != HIDDEN) {
        let expected = score(item);
        assert_eq!(
            found.contains_key(&item),
            expected > 0.0,
            "{what}: item {item} of {expected}"
        );
        if let Some(&found) = found.get(&item) {
            assert_close(found, expected, &format!("{what}: item {item}"));
        }
    }
}

#[tokio::test]
async fn items_are_ranked_by_the_similarity_weighted_sum_and_the_blend_has_one_weight() {
    let server = Server::start(shop().await);
    let client = server.recommendations().await;
    let ask = async |number: usize, basis: Basis| {
        let request = RecommendRequest {
            basis: basis.into(),
            ..for_user(&user(number))
        };
        recommend(&client, request).await
    };
    let mut weights = Vec::new();
    for number in 0..USERS {
        let what = |basis: Basis| format!("{basis:?} for user {number}");
        let item_based = ask(number, Basis::ItemBased).await;
        let ratings = &REFERENCE.rows[number];
        assert_scores(&item_based, |item| item_score(ratings, item), &what(Basis::ItemBased));
        let user_based = ask(number, Basis::UserBased).await;
        assert_scores(&user_based, |item| user_score(number, item), &what(Basis::UserBased));

        // The maxima are those of all items, also of the hidden one.
        let most = |score: &dyn Fn(usize) -> f64| (0..ITEMS).map(score).fold(0.0, f64::max);
        let (most_items, most_users) = (
            most(&|item| item_score(ratings, item)),
            most(&|item| user_score(number, item)),
        );
        let parts = |item: usize| {
            (
                item_score(ratings, item) / most_items,
                user_score(number, item) / most_users,
            )
        };
        let blended = ask(number, Basis::Blended).await;
        // The answer does not contain the fitted weight; it follows from the item on which it has the most effect.
        let difference = |item: &&RecommendedItem| {
            let (items, users) = parts(number_of(&item.item_id));
            (items - users).abs()
        };
        let telling = blended
            .items
            .iter()
            .max_by(|a, b| difference(a).total_cmp(&difference(b)))
            .unwrap();
        let (items, users) = parts(number_of(&telling.item_id));
        let weight = (telling.score - users) / (items - users);
        weights.push(weight);
        let blend = |item: usize| {
            let (items, users) = parts(item);
            weight * items + (1.0 - weight) * users
        };
        assert_scores(&blended, blend, &what(Basis::Blended));
        assert_eq!(ask(number, Basis::Unspecified).await, blended);
    }
    for weight in &weights {
        assert!(
            (-1e-4..=1.0 + 1e-4).contains(weight) && (weight - weights[0]).abs() < 1e-3,
            "{weights:?}"
        );
    }
}

#[track_caller]
fn assert_explains(item: &RecommendedItem, by: usize, basis: Basis) {
    let (of, what) = (
        number_of(&item.item_id),
        format!("{basis:?} for user {by}: {}", item.item_id),
    );
    let ScoreExplanation {
        items,
        similar_users,
        other_items_contribution,
        popular_lately,
        own_habit,
        ..
    } = item.explanation.clone().unwrap();
    let of_users = similar_users.as_ref().map_or(0.0, |similar| similar.contribution);
    let of_orders =
        popular_lately.map_or(0.0, |term| term.contribution) + own_habit.map_or(0.0, |term| term.contribution);
    let sum = items.iter().map(|item| item.contribution).sum::<f64>() + other_items_contribution + of_users + of_orders;
    assert_sum(sum, item.score, &what);

    assert!(
        items
            .windows(2)
            .all(|pair| pair[0].contribution >= pair[1].contribution),
        "{what}: {items:?}"
    );
    let ratio =
        |item: &likemind::grpc::proto::v1::ItemContribution| item.contribution / (item.similarity * item.rating);
    for part in &items {
        let other = number_of(&part.item_id);
        assert_eq!(part.title, facts(other).title.unwrap_or_default());
        assert_close(part.rating, effective_rating(by, other), &what);
        assert_close(part.similarity, REFERENCE.items[of][other], &what);
        assert_sum(ratio(part), ratio(&items[0]), &what);
    }
    if let Some(similar) = similar_users {
        let raters = REFERENCE.users[by].iter().zip(&REFERENCE.columns[of]);
        let raters = raters.filter(|&(&similarity, &rating)| similarity > 0.0 && rating > 0.0);
        assert_eq!(similar.users as usize, raters.count(), "{what}");
    }
    match basis {
        Basis::ItemBased => {
            assert_eq!(similar_users, None, "{what}");
            items.iter().for_each(|part| assert_sum(ratio(part), 1.0, &what));
        }
        Basis::UserBased => assert!(items.is_empty() && similar_users.is_some(), "{what}"),
        Basis::Blended | Basis::Unspecified => assert!(!items.is_empty() && similar_users.is_some(), "{what}"),
    }
}

#[tokio::test]
async fn the_contributions_of_an_explanation_sum_to_the_score() {
    let server = Server::start(shop().await);
    let client = server.recommendations().await;
    for by in 0..USERS {
        for basis in BASES {
            let request = |explain| RecommendRequest {
                basis: basis.into(),
                explain,
                ..for_user(&user(by))
            };
            let mut explained = recommend(&client, request(true)).await;
            for item in &explained.items {
                assert_explains(item, by, basis);
            }
            explained.items.iter_mut().for_each(|item| item.explanation = None);
            assert_eq!(explained, recommend(&client, request(false)).await);
        }
    }
}

#[tokio::test]
async fn an_explanation_names_the_largest_contributions_and_sums_up_the_others() {
    let server = Server::start(shop().await);
    let client = server.recommendations().await;
    let scores = async |max_explanation_items| {
        let request = RecommendRequest {
            explain: true,
            max_explanation_items,
            ..for_user(&user(0))
        };
        let items = recommend(&client, request).await.items;
        items
            .into_iter()
            .map(|item| item.explanation.unwrap())
            .collect::<Vec<_>>()
    };
    let ratings = async |max_explanation_items| {
        let request = PredictRatingsRequest {
            user_id: user(0),
            item_ids: (0..ITEMS).map(item).collect(),
            explain: true,
            max_explanation_items,
            ..PredictRatingsRequest::default()
        };
        let answer = client.clone().predict_ratings(request).await.unwrap().into_inner();
        let explanation = |prediction| rated(prediction).explanation.unwrap();
        answer.predictions.into_iter().map(explanation).collect::<Vec<_>>()
    };
    let (all_of_scores, all_of_ratings) = (scores(1_000).await, ratings(1_000).await);
    let most = all_of_scores.iter().map(|all| all.items.len()).max();
    assert!(most > Some(10), "{most:?}");
    for (max, named) in [(0, 10), (1, 1), (3, 3), (1_000, ITEMS)] {
        let (of_scores, of_ratings) = (scores(max).await, ratings(max).await);
        assert_eq!(of_scores.len(), all_of_scores.len());
        for (found, all) in of_scores.iter().zip(&all_of_scores) {
            let (first, others) = all.items.split_at(named.min(all.items.len()));
            assert_eq!((&*found.items, found.other_items as usize), (first, others.len()));
            let sum = others.iter().map(|item| item.contribution).sum();
            assert_sum(found.other_items_contribution, sum, "score");
        }
        for (found, all) in of_ratings.iter().zip(&all_of_ratings) {
            let (first, others) = all.items.split_at(named.min(all.items.len()));
            assert_eq!((&*found.items, found.other_items as usize), (first, others.len()));
            let sum = others.iter().map(|item| item.contribution).sum();
            assert_sum(found.other_items_contribution, sum, "rating");
        }
    }
    for max_explanation_items in [-1, 1_001] {
        let request = RecommendRequest {
            max_explanation_items,
            ..for_user(&user(0))
        };
        let status = client.clone().recommend(request).await.unwrap_err();
        assert_invalid(&status, "LIMIT_OUT_OF_RANGE", &["max_explanation_items"]);
    }
}

/// Each of three users has rated all of 100 items, whose titles are as long as they may be.
#[tokio::test]
async fn an_answer_above_the_limit_of_clients_is_refused_by_name() {
    const LONG: usize = 100;
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let items = (0..LONG).map(|number| Item {
        item_id: item(number),
        title: Some("x".repeat(1_024)),
        ..Item::default()
    });
    let request = UpsertItemsRequest { items: items.collect() };
    server.catalog().await.upsert_items(request).await.unwrap();
    let pairs = (0..3).flat_map(|by| (0..LONG).map(move |of| (by, of)));
    let ratings = pairs.map(|(by, of)| Rating {
        user_id: user(by),
        item_id: item(of),
        value: 1.0 + ((by + of) % 5) as f32,
        rated_at: at(of as i64),
    });
    let request = UpsertRatingsRequest {
        ratings: ratings.collect(),
    };
    server.ratings().await.upsert_ratings(request).await.unwrap();
    drop(server);
    succeed(&database, &["train", "--force", "a test"]);
    let server = Server::start(&database);
    let mut client = server.recommendations().await;
    let mut ask = async |max_explanation_items| {
        let request = RecommendRequest {
            explain: true,
            max_explanation_items,
            ..for_user(&user(0))
        };
        let recommended = client
            .recommend(request)
            .await
            .map(|answer| answer.into_inner().items.len());
        let request = PredictRatingsRequest {
            user_id: user(0),
            item_ids: (0..LONG).map(item).collect(),
            explain: true,
            max_explanation_items,
            ..PredictRatingsRequest::default()
        };
        let predicted = client.predict_ratings(request).await;
        (
            recommended,
            predicted.map(|answer| answer.into_inner().predictions.len()),
        )
    };
    let (recommended, predicted) = ask(0).await;
    assert_eq!((recommended.unwrap(), predicted.unwrap()), (LONG, LONG));
    let (recommended, predicted) = ask(1_000).await;
    for (answer, field) in [(recommended, "limit"), (predicted, "item_ids")] {
        let status = answer.unwrap_err();
        assert_invalid(&status, "ANSWER_TOO_LARGE", &[field]);
        assert!(status.message().contains("4194304"), "{status:?}");
    }
}

/// Asserts that `filter` keeps exactly the items for which `passes` holds: among recommendations, similar items and popular
/// items.
async fn assert_filter(client: &Client, filter: ItemFilter, passes: &dyn Fn(usize, &Item) -> bool) {
    let does_pass = |id: &str| passes(number_of(id), &facts(number_of(id)));
    let filtered = |by: &str| RecommendRequest {
        filter: Some(filter.clone()),
        ..for_user(by)
    };
    let mut expected = recommend(client, for_user(&user(7))).await.items;
    expected.retain(|item| does_pass(&item.item_id));
    (1..).zip(&mut expected).for_each(|(rank, item)| item.rank = rank);
    let found = recommend(client, filtered(&user(7))).await;
    assert_eq!(found.items, expected, "{filter:?}");

    let ids_of = |answer: ListSimilarItemsResponse| answer.items.into_iter().map(|item| item.item_id);
    let found = similar(client, &item(2), 1_000, Some(filter.clone())).await.unwrap();
    let all = similar(client, &item(2), 1_000, None).await.unwrap();
    let expected: Vec<String> = ids_of(all).filter(|id| does_pass(id)).collect();
    assert_eq!(ids_of(found).collect::<Vec<_>>(), expected, "{filter:?}");

    let mut expected = recommend(client, for_user("nobody")).await;
    expected.items.retain(|item| does_pass(&item.item_id));
    let found = recommend(client, filtered("nobody")).await;
    assert_eq!(ids(&found), ids(&expected), "{filter:?}");
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn is_in_category(item: &Item, categories: &[&str]) -> bool {
    item.category.as_deref().is_some_and(|name| categories.contains(&name))
}

fn is_of_merchant(item: &Item, merchants: &[&str]) -> bool {
    item.merchant_id.as_deref().is_some_and(|id| merchants.contains(&id))
}

fn has_price(item: &Item, currency: &str, min: i64, max: i64) -> bool {
    let in_range = |price: &Money| price.currency_code == currency && (min..=max).contains(&price.amount_minor);
    item.price.as_ref().is_some_and(in_range)
}

fn price(currency: &str, min_minor: Option<i64>, max_minor: Option<i64>) -> Option<PriceRange> {
    Some(PriceRange {
        currency_code: currency.to_owned(),
        min_minor,
        max_minor,
    })
}

#[tokio::test]
async fn filters_by_category_and_merchant_keep_only_matching_items() {
    let server = Server::start(shop().await);
    let client = server.recommendations().await;
    let all = recommend(&client, for_user(&user(7))).await;
    let listed = ITEMS - 1;
    assert_eq!(all.items.len(), listed - 1, "all listed items but the bare one");
    assert_filter(&client, ItemFilter::default(), &|_, _| true).await;
    for categories in [&["c1"][..], &["c0", "c2", "c9"], &["c9"], &["c0", "c0"]] {
        let filter = ItemFilter {
            categories: names(categories),
            ..ItemFilter::default()
        };
        assert_filter(&client, filter, &|_, item| is_in_category(item, categories)).await;
    }
    for merchants in [&["m3"][..], &["m0", "m2", "c0"], &["M0"]] {
        let filter = ItemFilter {
            merchant_ids: names(merchants),
            ..ItemFilter::default()
        };
        assert_filter(&client, filter, &|_, item| is_of_merchant(item, merchants)).await;
    }
}

#[tokio::test]
async fn candidate_and_excluded_items_limit_the_answer() {
    let server = Server::start(shop().await);
    let client = server.recommendations().await;
    for ids in [&["i04"][..], &["i05", "i06", "i06", "i99", "i00"], &["i99"]] {
        let is_named = |number: usize| ids.contains(&item(number).as_str());
        let filter = ItemFilter {
            candidate_item_ids: names(ids),
            ..ItemFilter::default()
        };
        assert_filter(&client, filter, &|number, _| is_named(number)).await;
        let filter = ItemFilter {
            exclude_item_ids: names(ids),
            ..ItemFilter::default()
        };
        assert_filter(&client, filter, &|number, _| !is_named(number)).await;
    }
}

#[tokio::test]
async fn a_price_filter_keeps_items_of_its_currency_within_its_bounds() {
    let server = Server::start(shop().await);
    let client = server.recommendations().await;
    for (currency, min, max) in [
        ("GBP", None, None),
        ("EUR", Some(300), None),
        ("GBP", None, Some(800)),
        ("GBP", Some(800), Some(800)),
        ("GBP", Some(801), Some(999)),
        ("GBP", Some(0), Some(i64::MAX)),
        ("USD", None, None),
    ] {
        let filter = ItemFilter {
            price: price(currency, min, max),
            ..ItemFilter::default()
        };
        let passes = |_, item: &Item| has_price(item, currency, min.unwrap_or(0), max.unwrap_or(i64::MAX));
        assert_filter(&client, filter, &passes).await;
    }
}

#[tokio::test]
async fn an_item_must_pass_every_part_of_a_filter() {
    let server = Server::start(shop().await);
    let client = server.recommendations().await;
    let filter = ItemFilter {
        categories: names(&["c0", "c2"]),
        merchant_ids: names(&["m0", "m1", "m2"]),
        candidate_item_ids: (0..13).map(item).collect(),
        exclude_item_ids: names(&["i06"]),
        price: price("GBP", Some(100), Some(1_200)),
    };
    let passes = |number: usize, item: &Item| {
        is_in_category(item, &["c0", "c2"])
            && is_of_merchant(item, &["m0", "m1", "m2"])
            && number < 13
            && number != 6
            && has_price(item, "GBP", 100, 1_200)
    };
    assert_filter(&client, filter, &passes).await;
}

#[tokio::test]
async fn purchased_and_history_items_are_excluded_on_request() {
    let server = Server::start(shop().await);
    let client = server.recommendations().await;
    for number in 0..USERS {
        for basis in [Basis::ItemBased, Basis::UserBased] {
            let ask = |exclude_purchased, exclude_history| {
                let request = RecommendRequest {
                    basis: basis.into(),
                    exclude_purchased,
                    exclude_history,
                    ..for_user(&user(number))
                };
                recommend(&client, request)
            };
            let all = ask(false, false).await;
            let ids_where = |keep: &dyn Fn(usize) -> bool| -> Vec<String> {
                ids(&all).into_iter().filter(|id| keep(number_of(id))).collect()
            };
            let unbought = ids_where(&|item| orders(number, item) == 0);
            let unknown = ids_where(&|item| effective_rating(number, item) == 0.0);
            assert_eq!(ids(&ask(true, false).await), unbought, "{basis:?} for user {number}");
            if !unknown.is_empty() {
                assert_eq!(ids(&ask(false, true).await), unknown, "{basis:?} for user {number}");
                assert_eq!(ids(&ask(true, true).await), unknown, "{basis:?} for user {number}");
            }
        }
    }
}

#[tokio::test]
async fn the_limit_shortens_the_ranking() {
    let server = Server::start(shop().await);
    let client = server.recommendations().await;
    for by in [user(3), "nobody".to_owned()] {
        let all = recommend(&client, for_user(&by)).await;
        assert!(all.items.len() > 10);
        for (limit, expected) in [(0, 10), (1, 1), (3, 3), (1_000, all.items.len())] {
            let request = RecommendRequest { limit, ..for_user(&by) };
            assert_eq!(
                recommend(&client, request).await.items,
                all.items[..expected],
                "{by}: {limit}"
            );
        }
    }
    let all = similar(&client, &item(2), 1_000, None).await.unwrap();
    for (limit, expected) in [(0, 10), (1, 1), (1_000, all.items.len())] {
        assert_eq!(
            similar(&client, &item(2), limit, None).await.unwrap().items,
            all.items[..expected],
            "{limit}"
        );
    }
}

#[tokio::test]
async fn session_items_are_scored_like_a_history_and_not_recommended() {
    let server = Server::start(shop().await);
    let client = server.recommendations().await;
    let ask = async |items: &[(&str, Option<f32>)], basis: Basis| {
        let session_item = |&(id, rating): &(&str, Option<f32>)| SessionItem {
            item_id: id.to_owned(),
            rating,
        };
        let request = RecommendRequest {
            subject: Some(Subject::Session(SessionItems {
                items: items.iter().map(session_item).collect(),
            })),
            limit: 1_000,
            basis: basis.into(),
            explain: true,
            ..RecommendRequest::default()
        };
        recommend(&client, request).await
    };
    let check = async |items: &[(&str, Option<f32>)], ratings: &[(usize, f64)]| {
        let mut row = vec![0.0; ITEMS];
        ratings.iter().for_each(|&(item, rating)| row[item] = rating);
        let answer = ask(items, Basis::ItemBased).await;
        // Items of the session are not recommended.
        let score = |item: usize| if row[item] > 0.0 { 0.0 } else { item_score(&row, item) };
        assert_scores(&answer, score, &format!("{items:?}"));
        for item in &answer.items {
            let explanation = item.explanation.as_ref().unwrap();
            assert_sum(
                explanation.items.iter().map(|item| item.contribution).sum(),
                item.score,
                &item.item_id,
            );
        }
        // Without similar users the blend is the item-based ranking, up to its scale.
        assert_eq!(ids(&ask(items, Basis::Blended).await), ids(&answer), "{items:?}");
    };
    check(&[("i02", None)], &[(2, 5.0)]).await;
    check(&[("i02", Some(1.0)), ("i07", Some(4.5))], &[(2, 1.0), (7, 4.5)]).await;
    check(&[("i02", Some(1.0)), ("i02", Some(3.0)), ("i99", None)], &[(2, 3.0)]).await;
    check(&[("i05", None)], &[(HIDDEN, 5.0)]).await;

    // Popularity answers sessions of unknown items, and requests for similar users, whom a visitor does not have.
    for (items, basis) in [
        (&[("i99", None)][..], Basis::Blended),
        (&[("i14", None)], Basis::ItemBased),
        (&[("i02", None)], Basis::UserBased),
    ] {
        let answer = ask(items, basis).await;
        assert_eq!(answer.personalization(), Personalization::Popularity, "{items:?}");
        assert!(!ids(&answer).contains(&items[0].0.to_owned()), "{items:?}");
        assert!(answer.items.len() >= ITEMS - 2);
    }
}

#[tokio::test]
async fn an_unknown_user_gets_popular_items_within_the_filter() {
    let server = Server::start(shop().await);
    let client = server.recommendations().await;
    for basis in BASES {
        let request = RecommendRequest {
            basis: basis.into(),
            explain: true,
            ..for_user("nobody")
        };
        let answer = recommend(&client, request).await;
        assert_eq!(answer.personalization(), Personalization::Popularity);
        assert_eq!(
            answer.items.len(),
            ITEMS - 1,
            "popular items include the one that nobody has rated"
        );
        for found in answer.items {
            let column = &REFERENCE.columns[number_of(&found.item_id)];
            let raters = column.iter().filter(|&&rating| rating > 0.0).count();
            assert_eq!(
                (found.score, found.explanation),
                (raters as f64, None),
                "{}",
                found.item_id
            );
        }
    }
    let request = RecommendRequest {
        filter: Some(ItemFilter {
            categories: vec!["c9".to_owned()],
            ..ItemFilter::default()
        }),
        ..for_user("nobody")
    };
    assert_eq!(recommend(&client, request).await.items.len(), 0);
}

async fn similar(
    client: &Client,
    item_id: &str,
    limit: i32,
    filter: Option<ItemFilter>,
) -> Result<ListSimilarItemsResponse, Status> {
    let request = ListSimilarItemsRequest {
        item_id: item_id.to_owned(),
        limit,
        filter,
    };
    let answer = client.clone().list_similar_items(request).await?.into_inner();
    assert_eq!(answer.snapshot_version, 1);
    Ok(answer)
}

#[tokio::test]
async fn similar_items_are_ranked_by_cosine() {
    let server = Server::start(shop().await);
    let client = server.recommendations().await;
    for number in 0..ITEMS {
        let answer = similar(&client, &item(number), 1_000, None).await.unwrap();
        let similarities = &REFERENCE.items[number];
        let expected = (0..ITEMS)
            .filter(|&other| other != HIDDEN && similarities[other] > 0.0)
            .count();
        assert_eq!(answer.items.len(), expected, "item {number}");
        for (found, rank) in answer.items.iter().zip(1..) {
            let other = number_of(&found.item_id);
            assert_eq!(
                (found.rank, &found.title),
                (rank, &facts(other).title.unwrap_or_default())
            );
            assert_close(found.score, similarities[other], &format!("{number} {other}"));
        }
        for pair in answer.items.windows(2) {
            let by_id = pair[0].score == pair[1].score && pair[0].item_id < pair[1].item_id;
            assert!(pair[0].score > pair[1].score || by_id, "{pair:?}");
        }
    }
    let status = similar(&client, "i99", 10, None).await.unwrap_err();
    assert_status(&status, Code::NotFound, "ITEM_NOT_FOUND");
}

fn every_estimator_and_basis() -> impl Iterator<Item = (Estimator, Basis)> {
    let estimators = [Estimator::WeightedSum, Estimator::WeightedMean, Estimator::Baseline];
    estimators
        .into_iter()
        .flat_map(|estimator| BASES.map(|basis| (estimator, basis)))
}

/// Predicts with an explanation, and asserts that the answer without one is the same otherwise.
async fn predict(client: &Client, by: &str, items: &[String], estimator: Estimator, basis: Basis) -> Vec<Prediction> {
    let request = |explain| PredictRatingsRequest {
        user_id: by.to_owned(),
        item_ids: items.to_vec(),
        estimator: estimator.into(),
        basis: basis.into(),
        explain,
        ..PredictRatingsRequest::default()
    };
    let answer = client
        .clone()
        .predict_ratings(request(true))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.snapshot_version, 1);
    let asked: Vec<&String> = answer
        .predictions
        .iter()
        .map(|prediction| &prediction.item_id)
        .collect();
    assert_eq!(asked, items.iter().collect::<Vec<_>>());

    let mut unexplained = answer.clone();
    for prediction in &mut unexplained.predictions {
        if let Some(prediction::Result::Rating(rating)) = &mut prediction.result {
            assert!(rating.explanation.take().is_some(), "{rating:?}");
        }
    }
    assert_eq!(
        client
            .clone()
            .predict_ratings(request(false))
            .await
            .unwrap()
            .into_inner(),
        unexplained
    );
    answer.predictions
}

fn rated(prediction: Prediction) -> PredictedRating {
    match prediction.result {
        Some(prediction::Result::Rating(rating)) => rating,
        other => panic!("{other:?}"),
    }
}

/// Returns the value of an estimator without biases and its number of neighbors; `None` without any.
fn expected_prediction(by: usize, of: usize, estimator: Estimator, basis: Basis) -> Option<(f64, usize)> {
    let (similarities, ratings) = match basis {
        Basis::ItemBased => (&REFERENCE.items[of], &REFERENCE.rows[by]),
        _ => (&REFERENCE.users[by], &REFERENCE.columns[of]),
    };
    let neighbors = similarities.iter().copied().zip(ratings.iter().copied());
    let used = neighbors
        .filter(|&(similarity, rating)| similarity > 0.0 && (estimator == Estimator::WeightedSum || rating > 0.0));
    let used: Vec<(f64, f64)> = used.collect();
    let total: f64 = used.iter().map(|(similarity, _)| similarity).sum();
    let sum: f64 = used.iter().map(|(similarity, rating)| similarity * rating).sum();
    (!used.is_empty()).then(|| (sum / total, used.len()))
}

#[tokio::test]
async fn predictions_follow_the_formulas_and_their_terms_sum_to_the_value() {
    let server = Server::start(shop().await);
    let client = server.recommendations().await;
    let items: Vec<String> = (0..ITEMS).map(item).collect();
    let mut clamped = 0;
    for by in 0..USERS {
        for (estimator, basis) in every_estimator_and_basis() {
            let predictions = predict(&client, &user(by), &items, estimator, basis).await;
            for (of, prediction) in predictions.into_iter().enumerate() {
                let what = format!("{estimator:?} {basis:?}: user {by}, item {of}");
                let rating = rated(prediction);
                assert_terms_sum_up(&rating, &what);
                clamped += usize::from(rating.clamped);
                if basis == Basis::Blended || estimator == Estimator::Baseline {
                    continue;
                }
                let expected = expected_prediction(by, of, estimator, basis);
                assert_eq!(
                    rating.support as usize,
                    expected.map_or(0, |(_, support)| support),
                    "{what}"
                );
                if let Some((value, _)) = expected {
                    assert_close(rating.value, value, &what);
                }
            }
        }
        let unspecified = predict(&client, &user(by), &items, Estimator::Unspecified, Basis::Unspecified).await;
        assert_eq!(
            unspecified,
            predict(&client, &user(by), &items, Estimator::Baseline, Basis::Blended).await
        );
    }
    assert!(clamped > 0, "no prediction was clamped");
}

#[track_caller]
fn assert_terms_sum_up(rating: &PredictedRating, what: &str) {
    let terms = rating.explanation.as_ref().unwrap();
    let of_items: f64 = terms.items.iter().map(|item| item.contribution).sum();
    let of_users = terms.similar_users.as_ref().map_or(0.0, |similar| similar.contribution);
    let base = terms.global_mean + terms.user_bias + terms.item_bias;
    let of_items = of_items + terms.other_items_contribution;
    assert_sum(base + of_items + of_users + terms.clamping, rating.value, what);
    assert_eq!(rating.clamped, terms.clamping != 0.0, "{what}");
    let by_size =
        |pair: &[likemind::grpc::proto::v1::ItemContribution]| pair[0].contribution.abs() >= pair[1].contribution.abs();
    assert!(terms.items.windows(2).all(by_size), "{what}: {:?}", terms.items);
    assert_eq!(
        rating.support > 0,
        rating.fallback() == Fallback::None,
        "{what}: {rating:?}"
    );
    if rating.clamped || rating.fallback() != Fallback::None {
        assert!((1.0..=5.0).contains(&rating.value), "{what}: {rating:?}");
    }
}

/// Creates the item "new", which is newer than the snapshot.
async fn create_new_item(server: &Server) {
    let items = vec![Item {
        item_id: "new".to_owned(),
        ..Item::default()
    }];
    let request = UpsertItemsRequest { items };
    server.catalog().await.upsert_items(request).await.unwrap();
}

/// Asserts the fallback, and that the terms are those of the means that it uses.
#[track_caller]
fn assert_falls_back(rating: &PredictedRating, expected: Fallback, what: &str) {
    assert_eq!(rating.fallback(), expected, "{what}");
    assert_terms_sum_up(rating, what);
    if expected == Fallback::None {
        return;
    }
    let terms = rating.explanation.as_ref().unwrap();
    assert_eq!(terms.user_bias != 0.0, expected == Fallback::UserMean, "{what}");
    assert_eq!(terms.item_bias != 0.0, expected == Fallback::ItemMean, "{what}");
    assert!(terms.global_mean > 1.0 && terms.items.is_empty() && terms.similar_users.is_none());
}

#[tokio::test]
async fn predictions_without_raters_fall_back_to_means_and_unknown_items_are_errors() {
    let database = open_shop().await;
    let server = Server::start(&database);
    let client = server.recommendations().await;
    create_new_item(&server).await;
    let asked = [
        item(2),
        "unknown".to_owned(),
        item(BARE),
        "new".to_owned(),
        item(HIDDEN),
    ];
    use Fallback::{GlobalMean, ItemMean, None as NoFallback, UserMean};
    for (by, expected) in [
        (user(3), [NoFallback, UserMean, UserMean, NoFallback]),
        ("nobody".to_owned(), [ItemMean, GlobalMean, GlobalMean, ItemMean]),
    ] {
        for (estimator, basis) in every_estimator_and_basis() {
            let what = format!("{estimator:?} {basis:?} by {by}");
            let mut predictions = predict(&client, &by, &asked, estimator, basis).await;
            let error = match predictions.remove(1).result {
                Some(prediction::Result::Error(error)) => error,
                other => panic!("{what}: {other:?}"),
            };
            assert_eq!(
                (error.field.as_str(), error.reason.as_str()),
                ("item_ids", "ITEM_NOT_FOUND")
            );
            for (prediction, mut expected) in predictions.into_iter().zip(expected) {
                let id = prediction.item_id.clone();
                // The weighted sum is over all neighbors, also when none of them has rated the item.
                let is_sum_over_users = estimator == Estimator::WeightedSum && basis != Basis::ItemBased;
                if is_sum_over_users && id == item(BARE) && by != "nobody" {
                    expected = NoFallback;
                }
                assert_falls_back(&rated(prediction), expected, &format!("{what}: {id}"));
            }
        }
    }
}

#[tokio::test]
async fn an_item_newer_than_the_snapshot_has_no_similar_items() {
    let database = open_shop().await;
    let server = Server::start(&database);
    create_new_item(&server).await;
    let client = server.recommendations().await;
    assert!(similar(&client, "new", 10, None).await.unwrap().items.is_empty());
}

#[tokio::test]
async fn only_orders_with_a_positive_net_quantity_count_as_purchases() {
    let database = open_shop().await;
    let server = Server::start(&database);
    let client = server.recommendations().await;
    let mut numbers = 1..;
    let mut buy = async |item: &str, order: usize, quantities: &[i32]| {
        let line = |&quantity: &i32| PurchaseLine {
            coupon_discount_minor: 0,
            quantity,
            ..line("buyer", item, order, numbers.next().unwrap())
        };
        let request = RecordPurchasesRequest {
            lines: quantities.iter().map(line).collect(),
        };
        server.purchases().await.record_purchases(request).await.unwrap();
    };
    let check = async |ratings: &[(usize, f64)]| {
        let mut row = vec![0.0; ITEMS];
        ratings.iter().for_each(|&(item, rating)| row[item] = rating);
        let answer = recommend(&client, for_user("buyer")).await;
        assert_scores(&answer, |item| item_score(&row, item), &format!("{ratings:?}"));
    };
    buy("i02", 1, &[i32::MAX, i32::MAX, i32::MAX]).await;
    check(&[(2, 1.0)]).await;
    buy("i02", 2, &[i32::MIN, i32::MIN]).await;
    check(&[(2, 1.0)]).await;
    buy("i02", 2, &[i32::MAX, i32::MAX, 3]).await;
    check(&[(2, 2.0)]).await;
    buy("i02", 2, &[-1]).await;
    check(&[(2, 1.0)]).await;
    buy("i04", 3, &[2, -1]).await;
    check(&[(2, 1.0), (4, 1.0)]).await;
    for order in 4..40 {
        buy("i04", order, &[1]).await;
    }
    check(&[(2, 1.0), (4, 5.0)]).await;
    // A trainer counts the same purchases as the overlay.
    let before = recommend(&client, for_user("buyer")).await.items;
    succeed(&database, &["train"]);
    let retrained = Server::start(&database);
    let request = RecommendRequest {
        exclude_purchased: true,
        ..for_user("buyer")
    };
    let answer = retrained
        .recommendations()
        .await
        .recommend(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.snapshot_version, 2);
    let unbought = before
        .iter()
        .filter(|item| !["i02", "i04"].contains(&item.item_id.as_str()))
        .count();
    assert_eq!(answer.items.len(), unbought);
}

#[tokio::test]
async fn without_a_snapshot_every_request_is_refused_with_a_reason() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let mut client = server.recommendations().await;
    let request = PredictRatingsRequest {
        user_id: user(0),
        item_ids: vec![item(0)],
        ..PredictRatingsRequest::default()
    };
    let predicted = client.predict_ratings(request).await.map(|_| ());
    let recommended = client.recommend(for_user(&user(0))).await.map(|_| ());
    let listed = similar(&client, &item(0), 10, None).await.map(|_| ());
    for answer in [predicted, recommended, listed] {
        assert_status(&answer.unwrap_err(), Code::FailedPrecondition, "NO_SNAPSHOT");
    }
}
