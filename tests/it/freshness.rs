//! What is written through one server shows there at once, and on every other one within the refresh interval.

use std::time::Duration;

use likemind::grpc::proto::v1::{
    CheckEligibilityRequest, Fallback, GetItemRequest, IngestRatingsRequest, Item, ItemFilter, Personalization,
    PredictRatingsRequest, PriceRange, PurchaseLine, RecommendRequest, RecordPurchasesRequest, SessionItem,
    SessionItems, Verdict, prediction, recommend_request,
};
use likemind::store::error::StoreError;
use likemind::store::snapshots;
use likemind::store::snapshots::changes::{self, Watermark};
use sqlx::Connection;

use crate::hold::execute;
use crate::offers::{Offer, Till};
use crate::postgres::TestDatabase;
use crate::program::Server;
use crate::rpc::at;
use crate::shop::{self, Caller, Scores, a_rating, assert_equal, equal, for_user, item, plus, pounds, soon, user};

/// Two servers on one database; what is written goes through the first.
struct Pair {
    _servers: [Server; 2],
    here: Caller,
    there: Caller,
}

impl Pair {
    /// The second server looks five times as often as by default, so that a test need not wait so long.
    async fn start(database: &TestDatabase) -> Self {
        Self::of([
            Server::start(database),
            Server::with(database, &[("live.refresh_interval_ms", "200")]),
        ])
        .await
    }

    async fn by_default(database: &TestDatabase) -> Self {
        Self::of([Server::start(database), Server::start(database)]).await
    }

    async fn of(servers: [Server; 2]) -> Self {
        let (here, there) = (Caller::of(&servers[0]).await, Caller::of(&servers[1]).await);
        Self {
            _servers: servers,
            here,
            there,
        }
    }

    async fn assert_scores(&self, user: &str, expected: &Scores, what: &str) {
        assert_equal(&self.here.scores(user).await, expected, what);
        soon(&format!("elsewhere: {what}"), || async {
            equal(&self.there.scores(user).await, expected)
        })
        .await;
    }

    async fn assert_popular(&self, user: &str, what: &str) {
        let is_popularity =
            async |caller: &Caller| caller.ranked(user).await.personalization() == Personalization::Popularity;
        assert!(is_popularity(&self.here).await, "{what}");
        soon(&format!("elsewhere: {what}"), || is_popularity(&self.there)).await;
    }
}

#[tokio::test]
async fn ratings_move_the_scores() {
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
async fn a_stream_shows_when_it_is_answered() {
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
async fn purchases_count_until_they_are_returned() {
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
        shop::scores_of(caller.recommend(request).await)
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
        soon(what, || async { equal(&unbought(&pair.there).await, &expected) }).await;
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

#[tokio::test]
async fn catalog_changes_move_filters_and_titles() {
    let database = shop::open().await;
    let pair = Pair::start(&database).await;
    let changed = item(6);
    assert_eq!(shop::category(6), "books");
    let shopper = user(1);

    // Where the item shows: in all recommendations, the popular ones, similar items, and those that pass a filter.
    let filtered = |filter: ItemFilter| RecommendRequest {
        filter: Some(filter),
        ..for_user(&shopper)
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
    let of_price = |range: std::ops::RangeInclusive<i64>| {
        filtered(ItemFilter {
            price: Some(PriceRange {
                currency_code: "GBP".to_owned(),
                min_minor: Some(*range.start()),
                max_minor: Some(*range.end()),
            }),
            ..ItemFilter::default()
        })
    };
    let requests = [
        for_user(&shopper),
        for_user("stranger"),
        of_category("books"),
        of_category("maps"),
        of_merchant("m0"),
        of_merchant("newcomer"),
        of_price(600..=600),
        of_price(1..=599),
    ];
    let shows = async |caller: &Caller| -> Vec<Option<String>> {
        let mut titles = Vec::new();
        for request in requests.clone() {
            let answer = caller.recommend(request).await;
            let found = answer.items.into_iter().find(|found| found.item_id == changed);
            titles.push(found.map(|found| found.title));
        }
        let is_similar = caller.similar(&item(10)).await.contains_key(&changed);
        titles.push(is_similar.then(String::new));
        titles
    };
    let check = async |change: Item, title: &str, expected: [bool; 9], what: &str| {
        pair.here.put(change).await;
        let title = |shown: bool| shown.then(|| title.to_owned());
        let mut expected: Vec<Option<String>> = expected.map(title).to_vec();
        expected[8] = expected[8].take().map(|_| String::new());
        assert_eq!(shows(&pair.here).await, expected, "{what}");
        soon(what, || async { shows(&pair.there).await == expected }).await;
    };
    let change = Item {
        item_id: changed.clone(),
        ..Item::default()
    };

    let renamed = Item {
        title: Some("An Atlas".to_owned()),
        ..change.clone()
    };
    check(
        renamed,
        "An Atlas",
        [true, true, true, false, true, false, true, false, true],
        "a title",
    )
    .await;
    let moved = Item {
        category: Some("maps".to_owned()),
        ..change.clone()
    };
    check(
        moved,
        "An Atlas",
        [true, true, false, true, true, false, true, false, true],
        "a category",
    )
    .await;
    let sold_on = Item {
        merchant_id: Some("newcomer".to_owned()),
        ..change.clone()
    };
    check(
        sold_on,
        "An Atlas",
        [true, true, false, true, false, true, true, false, true],
        "a merchant",
    )
    .await;
    let cheaper = Item {
        price: Some(pounds(250)),
        ..change.clone()
    };
    check(
        cheaper,
        "An Atlas",
        [true, true, false, true, false, true, false, true, true],
        "a price",
    )
    .await;
    let delisted = Item {
        listed: Some(false),
        ..change.clone()
    };
    check(delisted, "An Atlas", [false; 9], "delisted").await;
    let relisted = Item {
        listed: Some(true),
        ..change.clone()
    };
    check(
        relisted,
        "An Atlas",
        [true, true, false, true, false, true, false, true, true],
        "listed again",
    )
    .await;
}

#[tokio::test]
async fn items_newer_than_the_snapshot_do_no_harm() {
    let database = shop::open().await;
    let pair = Pair::start(&database).await;
    let known = user(3);
    let before = pair.here.scores(&known).await;

    let predict = async |caller: &Caller, item: &str| {
        let request = PredictRatingsRequest {
            user_id: known.clone(),
            item_ids: vec![item.to_owned()],
            ..PredictRatingsRequest::default()
        };
        let answer = caller
            .recommendations
            .clone()
            .predict_ratings(request)
            .await
            .unwrap()
            .into_inner();
        answer.predictions[0].result.clone().unwrap()
    };
    let is_unknown = |result: &prediction::Result| match result {
        prediction::Result::Error(error) => error.reason == "ITEM_NOT_FOUND",
        prediction::Result::Rating(_) => false,
    };
    let is_user_mean = |result: &prediction::Result| match result {
        prediction::Result::Error(_) => false,
        prediction::Result::Rating(rating) => rating.fallback() == Fallback::UserMean,
    };
    assert!(is_unknown(&predict(&pair.here, "novelty").await));

    // Seen first in a rating, then in a purchase, then in the catalog.
    pair.here.rate(&known, "novelty", 5.0).await;
    pair.here.rate("stranger", "novelty", 5.0).await;
    pair.here.buy("order-1", 1, "stranger", "novelty", 1).await;
    pair.here
        .put(Item {
            item_id: "novelty".to_owned(),
            title: Some("A Novelty".to_owned()),
            category: Some("books".to_owned()),
            ..Item::default()
        })
        .await;

    pair.assert_scores(&known, &before, "a rating of a new item").await;
    pair.assert_popular("stranger", "a new item as the only history").await;
    assert!(is_user_mean(&predict(&pair.here, "novelty").await));
    soon("a prediction elsewhere", || async {
        is_user_mean(&predict(&pair.there, "novelty").await)
    })
    .await;
    assert!(is_unknown(&predict(&pair.here, "nonesuch").await));

    for caller in [&pair.here, &pair.there] {
        assert!(caller.similar("novelty").await.is_empty());
        let session = |items: &[&str]| RecommendRequest {
            subject: Some(recommend_request::Subject::Session(SessionItems {
                items: items
                    .iter()
                    .map(|item| SessionItem {
                        item_id: (*item).to_owned(),
                        rating: None,
                    })
                    .collect(),
            })),
            ..for_user("")
        };
        let with = shop::scores_of(caller.recommend(session(&["novelty", "i05"])).await);
        let without = shop::scores_of(caller.recommend(session(&["i05"])).await);
        assert_equal(&with, &without, "a session with a new item");
        let only = RecommendRequest {
            filter: Some(ItemFilter {
                candidate_item_ids: vec!["novelty".to_owned()],
                ..ItemFilter::default()
            }),
            exclude_purchased: true,
            ..for_user("stranger")
        };
        assert!(caller.recommend(only).await.items.is_empty());
    }
    let request = GetItemRequest {
        item_id: "novelty".to_owned(),
    };
    let found = pair.there.catalog.clone().get_item(request).await.unwrap().into_inner();
    assert_eq!(found.item.unwrap().title(), "A Novelty");
}

#[tokio::test]
async fn nothing_is_skipped_when_transactions_commit_out_of_order() {
    let database = shop::open().await;
    let pair = Pair::start(&database).await;
    let similar = [pair.here.similar(&item(1)).await, pair.here.similar(&item(2)).await];
    let shopper = user(0);
    let before = pair.here.scores(&shopper).await;
    let was = [1, 2].map(|number| f64::from(shop::rating(0, number).unwrap_or(0.0)));

    let (mut lower, mut higher) = (shop::connect(&database).await, shop::connect(&database).await);
    let (mut lower, mut higher) = (lower.begin().await.unwrap(), higher.begin().await.unwrap());
    let lower_id = shop::write_rating(&mut lower, &shopper, &item(1), 5.0).await;
    let higher_id = shop::write_rating(&mut higher, &shopper, &item(2), 5.0).await;
    assert!(lower_id < higher_id);

    higher.commit().await.unwrap();
    let with_higher = plus(&before, 5.0 - was[1], &similar[1]);
    for caller in [&pair.here, &pair.there] {
        soon("the later transaction", || async {
            equal(&caller.scores(&shopper).await, &with_higher)
        })
        .await;
    }
    // Both have moved on, past transactions that are later still.
    pair.here.rate("bystander", &item(3), 4.0).await;
    soon("the bystander", || async {
        pair.there.ranked("bystander").await.personalization() == Personalization::Personalized
    })
    .await;

    lower.commit().await.unwrap();
    let with_both = plus(&with_higher, 5.0 - was[0], &similar[0]);
    for caller in [&pair.here, &pair.there] {
        soon("the earlier transaction", || async {
            equal(&caller.scores(&shopper).await, &with_both)
        })
        .await;
    }
}

#[tokio::test]
async fn a_long_transaction_delays_nobody() {
    let database = shop::open().await;
    let pair = Pair::by_default(&database).await;
    let similar = pair.here.similar(&item(5)).await;
    let shopper = user(0);
    let unrated = shop::item_where(0, false);
    let before = pair.here.scores(&shopper).await;

    let mut long = shop::connect(&database).await;
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
    // A snapshot that is trained now has not seen it either.
    shop::train(database.url());
    for caller in [&pair.here, &pair.there] {
        caller.serves(2).await;
    }
    let before = pair.here.scores(&shopper).await;
    let similar = pair.here.similar(&item(unrated)).await;
    long.commit().await.unwrap();
    let after = plus(&before, 5.0, &similar);
    for caller in [&pair.here, &pair.there] {
        soon("the long transaction", || async {
            equal(&caller.scores(&shopper).await, &after)
        })
        .await;
    }
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
    soon("the count", || async {
        let status = caller.status().await;
        (status.fresh_entries, status.fresh_entries_dropped) == (3, 2)
    })
    .await;
    let is_known = async |number: usize| {
        caller.ranked(&format!("stranger-{number}")).await.personalization() == Personalization::Personalized
    };
    for (number, expected) in [true, true, true, false, false].into_iter().enumerate() {
        assert_eq!(is_known(number).await, expected, "{number}");
    }
    // What is held still follows.
    caller.rate("stranger-1", &item(5), 2.0).await;
    assert_equal(
        &caller.scores("stranger-1").await,
        &plus(&Scores::new(), 2.0, &similar),
        "a change",
    );
    // So does what the snapshot holds.
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
    soon("a third drop", || async {
        let status = caller.status().await;
        (status.fresh_entries, status.fresh_entries_dropped) == (5, 3)
    })
    .await;

    shop::train(database.url());
    caller.serves(2).await;
    soon("an empty overlay", || async {
        let status = caller.status().await;
        (status.fresh_entries, status.fresh_entries_dropped) == (0, 0)
    })
    .await;
    for number in 0..5 {
        assert!(is_known(number).await, "{number}");
    }
    assert!(caller.similar("novelty").await.is_empty());
}

/// From where the shop's snapshot has to catch up.
async fn input_watermark(database: &TestDatabase) -> Watermark {
    let record = snapshots::get(&database.pool().await, 1).await.unwrap();
    record.unwrap().input_watermark
}

#[tokio::test]
async fn catching_up_takes_as_long_as_there_is_much_to_read() {
    const ITEMS: usize = 3_000;
    let database = shop::open().await;
    let watermark = input_watermark(&database).await;
    // Far more than the buffers between here and there hold.
    let write = format!(
        "WITH added AS (
             INSERT INTO items (external_id, title) SELECT 'new-' || n, repeat('t', 1000)
             FROM generate_series(1, {ITEMS}) AS n RETURNING id
         ) INSERT INTO changes (item_id) SELECT id FROM added"
    );
    execute(&mut shop::connect(&database).await, &write).await;

    let pool = database.pool().await;
    let mut read = 0;
    let slowly = |_| {
        read += 1;
        std::thread::sleep(Duration::from_millis(1));
    };
    // All of it takes three times that long.
    let reached = changes::since(&pool, &watermark, Duration::from_secs(1), slowly).await;
    assert_ne!(reached.unwrap(), watermark);
    assert_eq!(read, ITEMS);
}

#[tokio::test]
async fn catching_up_ends_when_nothing_comes() {
    let database = shop::open().await;
    let watermark = input_watermark(&database).await;
    let mut lock = shop::connect(&database).await;
    execute(&mut lock, "BEGIN; LOCK TABLE changes").await;
    let pool = database.pool().await;
    let reached = changes::since(&pool, &watermark, Duration::from_millis(100), |_| {}).await;
    assert!(matches!(reached, Err(StoreError::Unavailable(_))), "{reached:?}");
}

#[tokio::test]
async fn the_last_order_is_the_last_one_that_was_kept() {
    let database = shop::open().await;
    let offer = Offer {
        rules: r#"[{"lapsed_user": {"days": 30}}]"#,
        ..Offer::of("back")
    };
    offer.create(&mut shop::connect(&database).await).await;
    let servers = [
        Server::start(&database),
        Server::with(&database, &[("live.refresh_interval_ms", "200")]),
    ];
    let (here, there) = (Till::of(&servers[0]).await, Till::of(&servers[1]).await);
    let caller = Caller::of(&servers[0]).await;
    let seen = async |till: &Till| {
        let request = CheckEligibilityRequest {
            user_id: user(7),
            coupon_ids: vec!["back".to_owned()],
            cart: None,
        };
        let answer = till.coupons.clone().check_eligibility(request).await.unwrap();
        let found = answer.into_inner().coupons.swap_remove(0);
        assert_eq!(
            found.verdict() == Verdict::Eligible,
            found.reasons.is_empty(),
            "{found:?}"
        );
        found.reasons.first().map(|reason| reason.seen.clone())
    };
    let is_lapsed = async |expected: bool, what: &str| {
        assert_eq!(seen(&here).await.is_none(), expected, "{what}");
        soon(&format!("elsewhere: {what}"), async || {
            seen(&there).await.is_none() == expected
        })
        .await;
    };

    is_lapsed(false, "nothing was ordered yet").await;
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
    is_lapsed(true, "an old order").await;
    caller.buy("new", 1, &user(7), &item(5), 2).await;
    is_lapsed(false, "one of now, of the same item").await;
    assert_ne!(seen(&here).await, never);
    caller.buy("new", 2, &user(7), &item(5), -1).await;
    is_lapsed(false, "half of it is returned").await;
    caller.buy("new", 3, &user(7), &item(5), -1).await;
    is_lapsed(true, "all of it is returned").await;
}
