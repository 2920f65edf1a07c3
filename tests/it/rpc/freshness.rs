//! A change that is written through one server shows there at once, and on every other one within the refresh interval.

use std::ops::RangeInclusive;
use std::time::Duration;

use likemind::grpc::proto::v1::{
    CheckEligibilityRequest, Fallback, GetItemRequest, IngestRatingsRequest, Item, ItemFilter, Personalization,
    PredictRatingsRequest, PriceRange, PurchaseLine, RecommendRequest, RecordPurchasesRequest, SessionItem,
    SessionItems, Verdict, prediction, recommend_request,
};
use likemind::store::error::StoreError;
use likemind::store::snapshots;
use likemind::store::snapshots::changes::{self, Known};
use sqlx::Connection;

use crate::support::caller::{Caller, Scores, a_rating, assert_equal, equal, for_user, plus, pounds, scores_of};
use crate::support::coupons::{CouponClient, Offer};
use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::Server;
use crate::support::shop;
use crate::support::shop::{item, user};
use crate::support::times::at;
use crate::support::waiting::soon;

/// Two servers on one database. The tests write through the first.
struct Pair {
    _servers: [Server; 2],
    here: Caller,
    elsewhere: Caller,
}

impl Pair {
    /// Starts a pair whose second server polls five times as often as by default, so that the tests take less time.
    async fn start(database: &TestDatabase) -> Self {
        Self::of([
            Server::start(database),
            Server::with(database, &[("live.refresh_interval_ms", "200")]),
        ])
        .await
    }

    /// Starts a pair with the default settings.
    async fn by_default(database: &TestDatabase) -> Self {
        Self::of([Server::start(database), Server::start(database)]).await
    }

    async fn of(servers: [Server; 2]) -> Self {
        let (here, elsewhere) = (Caller::of(&servers[0]).await, Caller::of(&servers[1]).await);
        Self {
            _servers: servers,
            here,
            elsewhere,
        }
    }

    /// Asserts the scores that the first server gives now and the second gives soon.
    async fn assert_scores(&self, user: &str, expected: &Scores, what: &str) {
        assert_equal(&self.here.scores(user).await, expected, what);
        soon_scores(&self.elsewhere, user, expected, &format!("elsewhere: {what}")).await;
    }

    /// Waits until both servers give these scores.
    async fn soon_scores(&self, user: &str, expected: &Scores, what: &str) {
        for caller in [&self.here, &self.elsewhere] {
            soon_scores(caller, user, expected, what).await;
        }
    }

    /// Asserts that the first server recommends what is popular now, and the second soon.
    async fn assert_popular(&self, user: &str, what: &str) {
        assert_eq!(
            personalization(&self.here, user).await,
            Personalization::Popularity,
            "{what}"
        );
        let look = async || personalization(&self.elsewhere, user).await;
        let is_popularity = |found: &Personalization| *found == Personalization::Popularity;
        soon(&format!("elsewhere: {what}"), look, is_popularity).await;
    }
}

async fn soon_scores(caller: &Caller, user: &str, expected: &Scores, what: &str) {
    let look = async || caller.scores(user).await;
    soon(what, look, |scores| equal(scores, expected)).await;
}

async fn personalization(caller: &Caller, user: &str) -> Personalization {
    caller.ranked(user).await.personalization()
}

#[tokio::test]
async fn a_rating_or_its_deletion_moves_the_scores_at_once_here_and_soon_elsewhere() {
    let database = shop::open().await;
    let pair = Pair::start(&database).await;
    let similar = pair.here.similar(&item(5)).await;
    assert_eq!(similar.len(), shop::ITEMS - 1);

    pair.assert_popular("stranger", "nothing is known").await;
    pair.here.rate("stranger", &item(5), 4.0).await;
    let expected = plus(&Scores::new(), 4.0, &similar);
    pair.assert_scores("stranger", &expected, "a first rating").await;
    let answer = pair.here.ranked("stranger").await;
    assert_eq!(answer.personalization(), Personalization::Personalized);

    pair.here.rate("stranger", &item(5), 2.0).await;
    let expected = plus(&Scores::new(), 2.0, &similar);
    pair.assert_scores("stranger", &expected, "another rating of the same item")
        .await;

    pair.here.delete_rating("stranger", &item(5)).await;
    pair.assert_popular("stranger", "the only rating is deleted").await;

    let (known, unrated, rated) = (user(7), shop::item_where(7, false), shop::item_where(7, true));
    let before = pair.here.scores(&known).await;
    pair.here.rate(&known, &item(unrated), 5.0).await;
    let more = plus(&before, 5.0, &pair.here.similar(&item(unrated)).await);
    pair.assert_scores(&known, &more, "a rating more").await;

    pair.here.delete_rating(&known, &item(rated)).await;
    let was = f64::from(shop::rating(7, rated).unwrap());
    let less = plus(&more, -was, &pair.here.similar(&item(rated)).await);
    pair.assert_scores(&known, &less, "a rating of the snapshot is deleted")
        .await;
}

#[tokio::test]
async fn ratings_of_a_stream_move_the_scores_once_it_is_answered() {
    let database = shop::open().await;
    let pair = Pair::by_default(&database).await;
    let messages: Vec<IngestRatingsRequest> = (0..4)
        .map(|number| IngestRatingsRequest {
            ratings: vec![a_rating("streamer", &item(number), 3.0)],
        })
        .collect();
    let summary = pair
        .here
        .ratings
        .clone()
        .ingest_ratings(tokio_stream::iter(messages))
        .await;
    assert_eq!(summary.unwrap().into_inner().summary.unwrap().stored, 4);

    let mut expected = Scores::new();
    for number in 0..4 {
        expected = plus(&expected, 3.0, &pair.here.similar(&item(number)).await);
    }
    pair.assert_scores("streamer", &expected, "four ratings").await;
}

#[tokio::test]
async fn a_purchase_moves_the_scores_until_all_of_it_is_returned() {
    let database = shop::open().await;
    let pair = Pair::start(&database).await;
    let [first, second] = [item(7), item(11)];
    let similar = [pair.here.similar(&first).await, pair.here.similar(&second).await];
    // One order is a rating of 1, two are one of 2.
    let weighted = |weights: [f64; 2]| {
        let sum = plus(&Scores::new(), weights[0], &similar[0]);
        plus(&sum, weights[1], &similar[1])
    };
    let unbought = async |caller: &Caller| -> Scores {
        let request = RecommendRequest {
            exclude_purchased: true,
            ..for_user("buyer")
        };
        scores_of(caller.recommend(request).await)
    };
    let assert_state = async |weights: [f64; 2], what: &str| {
        let all = weighted(weights);
        pair.assert_scores("buyer", &all, what).await;
        let mut expected = all;
        for (item, weight) in [&first, &second].into_iter().zip(weights) {
            if weight > 0.0 {
                expected.remove(item);
            }
        }
        assert_equal(&unbought(&pair.here).await, &expected, what);
        let look = async || unbought(&pair.elsewhere).await;
        soon(what, look, |scores| equal(scores, &expected)).await;
    };

    pair.assert_popular("buyer", "nothing is bought").await;
    pair.here.buy("order-1", 1, "buyer", &first, 2).await;
    pair.here.buy("order-1", 2, "buyer", &second, 1).await;
    assert_state([1.0, 1.0], "an order of two items").await;
    pair.here.buy("order-2", 1, "buyer", &second, 1).await;
    assert_state([1.0, 2.0], "one of them ordered again").await;
    pair.here.buy("order-1", 3, "buyer", &first, -1).await;
    assert_state([1.0, 2.0], "a part is returned").await;
    pair.here.buy("order-1", 4, "buyer", &first, -1).await;
    assert_state([0.0, 2.0], "all of it is returned").await;
}

/// Requests for user 1 whose answers depend on the catalog: all recommendations, the popular items, and those that pass a
/// filter by category, merchant or price.
fn requests_by_filter() -> [RecommendRequest; 8] {
    let filtered = |filter: ItemFilter| RecommendRequest {
        filter: Some(filter),
        ..for_user(&user(1))
    };
    let of_category = |category: &str| {
        filtered(ItemFilter {
            categories: vec![category.to_owned()],
            ..ItemFilter::default()
        })
    };
    let of_merchant = |merchant: &str| {
        filtered(ItemFilter {
            merchant_ids: vec![merchant.to_owned()],
            ..ItemFilter::default()
        })
    };
    let of_price = |range: RangeInclusive<i64>| {
        filtered(ItemFilter {
            price: Some(PriceRange {
                currency_code: "GBP".to_owned(),
                min_minor: Some(*range.start()),
                max_minor: Some(*range.end()),
            }),
            ..ItemFilter::default()
        })
    };
    [
        for_user(&user(1)),
        for_user("stranger"),
        of_category("books"),
        of_category("maps"),
        of_merchant("m0"),
        of_merchant("newcomer"),
        of_price(600..=600),
        of_price(1..=599),
    ]
}

/// Returns the title of item 6 in the answer to each of [`requests_by_filter`], `None` where it is not in the answer,
/// and whether it is similar to item 10.
async fn titles_of_item_6(caller: &Caller) -> (Vec<Option<String>>, bool) {
    let mut titles = Vec::new();
    for request in requests_by_filter() {
        let answer = caller.recommend(request).await;
        let found = answer.items.into_iter().find(|found| found.item_id == item(6));
        titles.push(found.map(|found| found.title));
    }
    (titles, caller.similar(&item(10)).await.contains_key(&item(6)))
}

#[tokio::test]
async fn catalog_changes_move_filters_and_titles_at_once_here_and_soon_elsewhere() {
    let database = shop::open().await;
    let pair = Pair::start(&database).await;
    assert_eq!(shop::category(6), "books");
    let change = Item {
        item_id: item(6),
        ..Item::default()
    };
    let renamed = Item {
        title: Some("An Atlas".to_owned()),
        ..change.clone()
    };
    let moved = Item {
        category: Some("maps".to_owned()),
        ..change.clone()
    };
    let sold_on = Item {
        merchant_id: Some("newcomer".to_owned()),
        ..change.clone()
    };
    let cheaper = Item {
        price: Some(pounds(250)),
        ..change.clone()
    };
    let delisted = Item {
        listed: Some(false),
        ..change.clone()
    };
    let relisted = Item {
        listed: Some(true),
        ..change
    };
    // Whether the item is in the answer to each of `requests_by_filter`, and whether it is similar to item 10.
    #[rustfmt::skip]
    let steps = [
        (renamed, [true, true, true, false, true, false, true, false], true, "a title"),
        (moved, [true, true, false, true, true, false, true, false], true, "a category"),
        (sold_on, [true, true, false, true, false, true, true, false], true, "a merchant"),
        (cheaper, [true, true, false, true, false, true, false, true], true, "a price"),
        (delisted, [false; 8], false, "delisted"),
        (relisted, [true, true, false, true, false, true, false, true], true, "listed again"),
    ];
    for (change, is_in_answer, is_similar, what) in steps {
        pair.here.put(change).await;
        let titles = is_in_answer
            .map(|is_in_answer| is_in_answer.then(|| "An Atlas".to_owned()))
            .to_vec();
        let expected = (titles, is_similar);
        assert_eq!(titles_of_item_6(&pair.here).await, expected, "{what}");
        let look = async || titles_of_item_6(&pair.elsewhere).await;
        soon(&format!("elsewhere: {what}"), look, |found| *found == expected).await;
    }
}

async fn predict_one(caller: &Caller, user: &str, item: &str) -> prediction::Result {
    let request = PredictRatingsRequest {
        user_id: user.to_owned(),
        item_ids: vec![item.to_owned()],
        ..PredictRatingsRequest::default()
    };
    let answer = caller.recommendations.clone().predict_ratings(request).await;
    let mut predictions = answer.unwrap().into_inner().predictions;
    predictions.swap_remove(0).result.unwrap()
}

fn is_unknown_item(result: &prediction::Result) -> bool {
    matches!(result, prediction::Result::Error(error) if error.reason == "ITEM_NOT_FOUND")
}

fn is_user_mean(result: &prediction::Result) -> bool {
    matches!(result, prediction::Result::Rating(rating) if rating.fallback() == Fallback::UserMean)
}

/// Lets the item "novelty" appear in ratings first, then in a purchase, then in the catalog.
async fn write_novelty(caller: &Caller) {
    caller.rate(&user(3), "novelty", 5.0).await;
    caller.rate("stranger", "novelty", 5.0).await;
    caller.buy("order-1", 1, "stranger", "novelty", 1).await;
    caller
        .put(Item {
            item_id: "novelty".to_owned(),
            title: Some("A Novelty".to_owned()),
            category: Some("books".to_owned()),
            ..Item::default()
        })
        .await;
}

#[tokio::test]
async fn an_item_newer_than_the_snapshot_is_predicted_by_means_and_moves_no_score() {
    let database = shop::open().await;
    let pair = Pair::start(&database).await;
    let known = user(3);
    let before = pair.here.scores(&known).await;
    assert!(is_unknown_item(&predict_one(&pair.here, &known, "novelty").await));

    write_novelty(&pair.here).await;
    pair.assert_scores(&known, &before, "a rating of a new item").await;
    pair.assert_popular("stranger", "a new item as the only history").await;
    assert!(is_user_mean(&predict_one(&pair.here, &known, "novelty").await));
    let look = async || predict_one(&pair.elsewhere, &known, "novelty").await;
    soon("elsewhere: a prediction by the user's mean", look, is_user_mean).await;
    assert!(is_unknown_item(&predict_one(&pair.here, &known, "nonesuch").await));
    let request = GetItemRequest {
        item_id: "novelty".to_owned(),
    };
    let found = pair.elsewhere.catalog.clone().get_item(request).await.unwrap();
    assert_eq!(found.into_inner().item.unwrap().title(), "A Novelty");
}

#[tokio::test]
async fn an_item_newer_than_the_snapshot_has_no_neighbors_and_is_not_recommended() {
    let database = shop::open().await;
    let pair = Pair::start(&database).await;
    write_novelty(&pair.here).await;
    let look = async || predict_one(&pair.elsewhere, &user(3), "novelty").await;
    soon("elsewhere: the new item is known", look, |result| {
        !is_unknown_item(result)
    })
    .await;

    let session = |items: &[&str]| {
        let items = items.iter().map(|item| SessionItem {
            item_id: (*item).to_owned(),
            rating: None,
        });
        RecommendRequest {
            subject: Some(recommend_request::Subject::Session(SessionItems {
                items: items.collect(),
            })),
            ..for_user("")
        }
    };
    let only_the_new_item = RecommendRequest {
        filter: Some(ItemFilter {
            candidate_item_ids: vec!["novelty".to_owned()],
            ..ItemFilter::default()
        }),
        exclude_purchased: true,
        ..for_user("stranger")
    };
    for caller in [&pair.here, &pair.elsewhere] {
        assert!(caller.similar("novelty").await.is_empty());
        let with = scores_of(caller.recommend(session(&["novelty", "i05"])).await);
        let without = scores_of(caller.recommend(session(&["i05"])).await);
        assert_equal(&with, &without, "a session with a new item");
        assert!(caller.recommend(only_the_new_item.clone()).await.items.is_empty());
    }
}

#[tokio::test]
async fn a_transaction_that_commits_after_a_later_one_is_not_skipped() {
    let database = shop::open().await;
    let pair = Pair::start(&database).await;
    let similar = [pair.here.similar(&item(1)).await, pair.here.similar(&item(2)).await];
    let shopper = user(0);
    let before = pair.here.scores(&shopper).await;
    let was = [1, 2].map(|number| f64::from(shop::rating(0, number).unwrap_or(0.0)));

    let (mut lower, mut higher) = (database.connect().await, database.connect().await);
    let (mut lower, mut higher) = (lower.begin().await.unwrap(), higher.begin().await.unwrap());
    let lower_id = shop::write_rating(&mut lower, &shopper, &item(1), 5.0).await;
    let higher_id = shop::write_rating(&mut higher, &shopper, &item(2), 5.0).await;
    assert!(lower_id < higher_id);

    higher.commit().await.unwrap();
    let with_higher = plus(&before, 5.0 - was[1], &similar[1]);
    pair.soon_scores(&shopper, &with_higher, "the later transaction shows")
        .await;
    // Both servers read on, past transactions that are later still.
    pair.here.rate("bystander", &item(3), 4.0).await;
    let look = async || personalization(&pair.elsewhere, "bystander").await;
    let is_personalized = |found: &Personalization| *found == Personalization::Personalized;
    soon("elsewhere: a still later transaction shows", look, is_personalized).await;

    lower.commit().await.unwrap();
    let with_both = plus(&with_higher, 5.0 - was[0], &similar[0]);
    pair.soon_scores(&shopper, &with_both, "the earlier transaction shows")
        .await;
}

#[tokio::test]
async fn a_long_transaction_does_not_delay_other_changes_and_is_not_skipped() {
    let database = shop::open().await;
    let pair = Pair::by_default(&database).await;
    let similar = pair.here.similar(&item(5)).await;
    let shopper = user(0);
    let unrated = shop::item_where(0, false);
    let before = pair.here.scores(&shopper).await;

    let mut long = database.connect().await;
    let mut long = long.begin().await.unwrap();
    shop::write_rating(&mut long, &shopper, &item(unrated), 5.0).await;
    for round in 0..3 {
        let visitor = format!("visitor-{round}");
        pair.here.rate(&visitor, &item(5), 2.0).await;
        pair.assert_scores(
            &visitor,
            &plus(&Scores::new(), 2.0, &similar),
            "beside a long transaction",
        )
        .await;
        assert_equal(&pair.here.scores(&shopper).await, &before, "not committed yet");
    }
    // A snapshot that is trained now does not contain the long transaction either.
    shop::train(database.url());
    for caller in [&pair.here, &pair.elsewhere] {
        caller.wait_until_serves(2).await;
    }
    let before = pair.here.scores(&shopper).await;
    let similar = pair.here.similar(&item(unrated)).await;
    long.commit().await.unwrap();
    let after = plus(&before, 5.0, &similar);
    pair.soon_scores(&shopper, &after, "the long transaction shows").await;
}

#[tokio::test]
async fn a_full_overlay_is_reported_until_the_next_snapshot() {
    let database = shop::open().await;
    let server = Server::with(&database, &[("live.max_overlay_entries", "3")]);
    let caller = Caller::of(&server).await;
    let similar = caller.similar(&item(5)).await;
    for number in 0..5 {
        caller.rate(&format!("stranger-{number}"), &item(5), 4.0).await;
    }
    soon_entries(&caller, 3, 2).await;
    let is_known = async |number: usize| {
        personalization(&caller, &format!("stranger-{number}")).await == Personalization::Personalized
    };
    for (number, expected) in [true, true, true, false, false].into_iter().enumerate() {
        assert_eq!(is_known(number).await, expected, "{number}");
    }
    // The entries that the overlay holds can still change.
    caller.rate("stranger-1", &item(5), 2.0).await;
    assert_equal(
        &caller.scores("stranger-1").await,
        &plus(&Scores::new(), 2.0, &similar),
        "a change",
    );
    // The ratings and items of the snapshot can change, too.
    let (shopper, rated) = (user(7), shop::item_where(7, true));
    let was = f64::from(shop::rating(7, rated).unwrap());
    let less = plus(
        &caller.scores(&shopper).await,
        -was,
        &caller.similar(&item(rated)).await,
    );
    caller.delete_rating(&shopper, &item(rated)).await;
    assert_equal(&caller.scores(&shopper).await, &less, "a deletion");
    let delisted = Item {
        item_id: item(6),
        listed: Some(false),
        ..Item::default()
    };
    caller.put(delisted).await;
    assert!(!caller.scores(&user(0)).await.contains_key(&item(6)));
    caller
        .put(Item {
            item_id: "novelty".to_owned(),
            title: Some("Too late".to_owned()),
            ..Item::default()
        })
        .await;
    soon_entries(&caller, 5, 3).await;

    shop::train(database.url());
    caller.wait_until_serves(2).await;
    soon_entries(&caller, 0, 0).await;
    for number in 0..5 {
        assert!(is_known(number).await, "{number}");
    }
    assert!(caller.similar("novelty").await.is_empty());
}

/// Waits until the overlay reports so many entries, and so many that it has dropped.
async fn soon_entries(caller: &Caller, entries: u64, dropped: u64) {
    let look = async || {
        let status = caller.status().await;
        (status.fresh_entries, status.fresh_entries_dropped)
    };
    let state = format!("the overlay has {entries} entries and has dropped {dropped}");
    soon(&state, look, |found| *found == (entries, dropped)).await;
}

/// Returns the changes from which a server that loads the shop's snapshot has to catch up.
async fn trained_on(database: &TestDatabase) -> Known {
    let record = snapshots::get(&database.pool().await, 1).await.unwrap().unwrap();
    Known {
        watermark: record.input_watermark,
        erased_through: record.erased_through,
    }
}

#[tokio::test]
async fn catching_up_may_take_longer_than_the_timeout_while_changes_arrive() {
    const ITEMS: usize = 3_000;
    let database = shop::open().await;
    let known = trained_on(&database).await;
    // This is far more than the buffers between the database and the reader hold.
    let write = format!(
        "WITH added AS (
             INSERT INTO items (external_id, title) SELECT 'new-' || n, repeat('t', 1000)
             FROM generate_series(1, {ITEMS}) AS n RETURNING id
         ) INSERT INTO changes (item_id) SELECT id FROM added"
    );
    execute(&mut database.connect().await, &write).await;

    let pool = database.pool().await;
    let mut read = 0;
    // This is a slow reader, not a wait: all changes together take it three times as long as the timeout.
    let slowly = |_| {
        read += 1;
        std::thread::sleep(Duration::from_millis(1));
    };
    let reached = changes::since(&pool, &known, Duration::from_secs(1), slowly).await;
    assert_ne!(reached.unwrap().known.watermark, known.watermark);
    assert_eq!(read, ITEMS);
}

#[tokio::test]
async fn catching_up_fails_after_the_timeout_when_nothing_arrives() {
    let database = shop::open().await;
    let known = trained_on(&database).await;
    let mut lock = database.connect().await;
    execute(&mut lock, "BEGIN; LOCK TABLE changes").await;
    let pool = database.pool().await;
    let reached = changes::since(&pool, &known, Duration::from_millis(100), |_| {}).await;
    assert!(matches!(reached, Err(StoreError::Unavailable(_))), "{reached:?}");
}

#[tokio::test]
async fn a_returned_order_does_not_count_as_the_last_order() {
    let database = shop::open().await;
    let offer = Offer {
        rules: r#"[{"lapsed_user": {"days": 30}}]"#,
        ..Offer::of("back")
    };
    offer.create(&mut database.connect().await).await;
    let servers = [
        Server::start(&database),
        Server::with(&database, &[("live.refresh_interval_ms", "200")]),
    ];
    let (here, elsewhere) = (CouponClient::of(&servers[0]).await, CouponClient::of(&servers[1]).await);
    let caller = Caller::of(&servers[0]).await;
    let seen = async |client: &CouponClient| {
        let request = CheckEligibilityRequest {
            user_id: user(7),
            coupon_ids: vec!["back".to_owned()],
            cart: None,
        };
        let answer = client.rpc.clone().check_eligibility(request).await.unwrap();
        let found = answer.into_inner().coupons.swap_remove(0);
        assert_eq!(
            found.verdict() == Verdict::Eligible,
            found.reasons.is_empty(),
            "{found:?}"
        );
        found.reasons.first().map(|reason| reason.seen.clone())
    };
    let assert_lapsed = async |expected: bool, what: &str| {
        assert_eq!(seen(&here).await.is_none(), expected, "{what}");
        let look = async || seen(&elsewhere).await;
        soon(&format!("elsewhere: {what}"), look, |seen| seen.is_none() == expected).await;
    };

    assert_lapsed(false, "nothing was ordered yet").await;
    let never = seen(&here).await;
    let old = PurchaseLine {
        order_id: "old".to_owned(),
        line_number: 1,
        user_id: user(7),
        item_id: item(5),
        quantity: 1,
        line_total: Some(pounds(100)),
        purchased_at: at(0),
        coupon_discount_minor: 0,
    };
    let lines = vec![old];
    let request = RecordPurchasesRequest { lines };
    caller.purchases.clone().record_purchases(request).await.unwrap();
    assert_lapsed(true, "an old order").await;
    caller.buy("new", 1, &user(7), &item(5), 2).await;
    assert_lapsed(false, "one of now, of the same item").await;
    assert_ne!(seen(&here).await, never);
    caller.buy("new", 2, &user(7), &item(5), -1).await;
    assert_lapsed(false, "half of it is returned").await;
    caller.buy("new", 3, &user(7), &item(5), -1).await;
    assert_lapsed(true, "all of it is returned").await;
}
