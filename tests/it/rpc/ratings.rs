//! RatingService.

use likemind::grpc::proto::v1::rating_service_client::RatingServiceClient;
use likemind::grpc::proto::v1::{
    DeleteRatingRequest, EntryOutcome, EntryResult, IngestRatingsRequest, IngestSummary, ListRatingsRequest, Rating,
    UpsertRatingsRequest, list_ratings_request::Of,
};
use prost_types::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::Channel;

use crate::support::answers::{all_pages, assert_invalid, assert_outcomes};
use crate::support::postgres::TestDatabase;
use crate::support::program::Server;
use crate::support::times::{at, seconds_now};
use crate::support::waiting::eventually;

const STORED: Result<EntryOutcome, (&str, &str)> = Ok(EntryOutcome::Stored);
const MERGED: Result<EntryOutcome, (&str, &str)> = Ok(EntryOutcome::Merged);

type Client = RatingServiceClient<Channel>;

fn rating(user: &str, item: &str, value: f32, rated_at: Option<Timestamp>) -> Rating {
    Rating {
        user_id: user.to_owned(),
        item_id: item.to_owned(),
        value,
        rated_at,
    }
}

async fn upsert(client: &Client, ratings: Vec<Rating>) -> Vec<EntryResult> {
    let answer = client.clone().upsert_ratings(UpsertRatingsRequest { ratings }).await;
    answer.unwrap().into_inner().results
}

async fn list_page(client: &Client, of: Of, page_size: i32, page_token: String) -> (Vec<Rating>, String) {
    let request = ListRatingsRequest {
        of: Some(of),
        page_size,
        page_token,
    };
    let answer = client.clone().list_ratings(request).await.unwrap().into_inner();
    (answer.ratings, answer.next_page_token)
}

async fn list(client: &Client, of: Of) -> Vec<Rating> {
    list_page(client, of, 1_000, String::new()).await.0
}

fn user(id: &str) -> Of {
    Of::UserId(id.to_owned())
}

fn item(id: &str) -> Of {
    Of::ItemId(id.to_owned())
}

async fn delete(client: &Client, user: &str, item: &str, deleted_at: Option<Timestamp>) -> bool {
    let request = DeleteRatingRequest {
        user_id: user.to_owned(),
        item_id: item.to_owned(),
        deleted_at,
    };
    client
        .clone()
        .delete_rating(request)
        .await
        .unwrap()
        .into_inner()
        .deleted
}

#[tokio::test]
async fn the_latest_rating_is_kept_and_of_equal_times_the_one_that_came_later() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.ratings().await;

    let mixed = || {
        vec![
            rating("a", "x", 3.0, at(100)),
            rating("a", "y", 9.0, at(100)),
            rating("a", "x", 4.0, at(200)),
            rating("a", "x", 2.0, at(150)),
            rating("", "x", 3.0, at(100)),
            rating("b", "x", 1.0, at(100)),
        ]
    };
    let (range, empty) = (Err(("value", "RATING_OUT_OF_RANGE")), Err(("user_id", "EMPTY_ID")));
    let results = upsert(&client, mixed()).await;
    assert_outcomes(&results, &[MERGED, range, STORED, MERGED, empty, STORED]);
    let results = upsert(&client, mixed()).await;
    assert_outcomes(&results, &[MERGED, range, MERGED, MERGED, empty, MERGED]);
    assert_eq!(list(&client, user("a")).await, [rating("a", "x", 4.0, at(200))]);

    let check = async |value: f32, time: i64, expected, stored: (f32, i64)| {
        let results = upsert(&client, vec![rating("a", "x", value, at(time))]).await;
        assert_outcomes(&results, &[expected]);
        assert_eq!(
            list(&client, user("a")).await,
            [rating("a", "x", stored.0, at(stored.1))]
        );
    };
    check(5.0, 199, MERGED, (4.0, 200)).await;
    check(4.0, 200, MERGED, (4.0, 200)).await;
    check(3.5, 200, STORED, (3.5, 200)).await;
    check(3.5, 201, STORED, (3.5, 201)).await;
    check(1.0, 202, STORED, (1.0, 202)).await;

    // Within a batch, too, the later one of two with equal times is kept.
    let twice = vec![rating("c", "x", 2.0, at(0)), rating("c", "x", 5.0, at(0))];
    assert_outcomes(&upsert(&client, twice).await, &[MERGED, STORED]);
    assert_eq!(list(&client, user("c")).await, [rating("c", "x", 5.0, at(0))]);
}

#[tokio::test]
async fn a_rating_without_a_time_gets_the_present_time_and_times_have_microseconds() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.ratings().await;

    let before = seconds_now();
    assert_outcomes(&upsert(&client, vec![rating("a", "x", 3.0, None)]).await, &[STORED]);
    let rated_at = list(&client, user("a")).await[0].rated_at.unwrap().seconds;
    assert!((before..=seconds_now()).contains(&rated_at), "{rated_at}");

    let micros = Timestamp {
        seconds: rated_at - 1_000,
        nanos: 123_456_789,
    };
    upsert(&client, vec![rating("b", "x", 3.0, Some(micros))]).await;
    // Times are stored to the microsecond, so a rating that is read and written again is the same.
    let stored = list(&client, user("b")).await.remove(0);
    assert_eq!(stored.rated_at.unwrap().nanos, 123_456_000);
    assert_outcomes(&upsert(&client, vec![stored]).await, &[MERGED]);
}

#[tokio::test]
async fn pages_of_ratings_hold_every_rating_once_in_byte_order() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.ratings().await;

    // In byte order capitals precede small letters, ASCII precedes the rest, and a prefix precedes what it begins.
    let mut ids: Vec<String> = ["Z", "a", "a b", "ab", "é", "e\u{301}", "\u{10ffff}", "\\u0000"]
        .map(str::to_owned)
        .to_vec();
    ids.extend((0..17).map(|number| format!("n{number}")));
    let of_user: Vec<Rating> = ids.iter().map(|id| rating("one", id, 2.0, at(1))).collect();
    let of_item: Vec<Rating> = ids.iter().map(|id| rating(id, "only", 2.5, at(2))).collect();
    for ratings in [&of_user, &of_item] {
        let results = upsert(&client, ratings.clone()).await;
        assert!(results.iter().all(|result| result.outcome() == EntryOutcome::Stored));
    }
    ids.sort_unstable();
    let of_user: Vec<Rating> = ids.iter().map(|id| rating("one", id, 2.0, at(1))).collect();
    let of_item: Vec<Rating> = ids.iter().map(|id| rating(id, "only", 2.5, at(2))).collect();

    for (of, expected) in [(user("one"), of_user), (item("only"), of_item)] {
        for (page_size, pages) in [(1, 25), (7, 4), (24, 2), (25, 1), (1_000, 1), (0, 1)] {
            let page = |token| list_page(&client, of.clone(), page_size, token);
            assert_eq!(
                all_pages(page).await,
                (expected.clone(), pages),
                "{of:?} by {page_size}"
            );
        }
        // A page that holds all rows says that it is the last, and so does the last of several.
        assert_eq!(list_page(&client, of.clone(), 25, String::new()).await.1, "");
    }
    assert_eq!(
        list_page(&client, user("nobody"), 0, String::new()).await,
        (Vec::new(), String::new())
    );
}

#[tokio::test]
async fn a_page_token_stays_valid_when_rows_are_added_and_deleted() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.ratings().await;
    let items = ["b", "d", "f", "h"];
    upsert(&client, items.map(|item| rating("a", item, 3.0, at(0))).to_vec()).await;

    let (first, token) = list_page(&client, user("a"), 2, String::new()).await;
    assert_eq!(first.last().unwrap().item_id, "d");
    // One rating is added before the place of the token and one after it, and the rating at the place is deleted.
    upsert(&client, ["a", "e"].map(|item| rating("a", item, 3.0, at(0))).to_vec()).await;
    assert!(delete(&client, "a", "d", None).await);
    let (second, _) = list_page(&client, user("a"), 1_000, token).await;
    let found: Vec<&str> = second.iter().map(|rating| rating.item_id.as_str()).collect();
    assert_eq!(found, ["e", "f", "h"]);
}

#[tokio::test]
async fn a_deletion_spares_later_ratings_and_holds_against_earlier_ones() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.ratings().await;

    assert!(!delete(&client, "a", "x", None).await, "the user does not exist yet");
    upsert(
        &client,
        vec![rating("a", "x", 3.0, at(100)), rating("a", "y", 2.0, at(100))],
    )
    .await;
    assert!(!delete(&client, "a", "x", at(99)).await);
    assert_eq!(list(&client, user("a")).await.len(), 2);
    assert!(delete(&client, "a", "x", at(100)).await);
    assert!(
        !delete(&client, "a", "x", at(101)).await,
        "the rating is deleted already"
    );
    assert_eq!(list(&client, user("a")).await, [rating("a", "y", 2.0, at(100))]);
    assert_eq!(list(&client, item("x")).await, []);

    // A late rating that is older than the deletion does not count; a later one does.
    assert_outcomes(&upsert(&client, vec![rating("a", "x", 5.0, at(99))]).await, &[MERGED]);
    assert_eq!(list(&client, item("x")).await, []);
    assert_outcomes(&upsert(&client, vec![rating("a", "x", 5.0, at(102))]).await, &[STORED]);
    assert_eq!(list(&client, item("x")).await, [rating("a", "x", 5.0, at(102))]);

    assert!(
        delete(&client, "a", "x", None).await,
        "a deletion without a time has the present time"
    );
    assert!(!delete(&client, "a", "unknown", None).await);
    assert!(!delete(&client, "unknown", "x", None).await);
}

#[tokio::test]
async fn a_deletion_holds_against_older_ratings_in_any_order_of_arrival() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.ratings().await;
    let write = async |item: &str, seconds: i64| upsert(&client, vec![rating("a", item, 3.0, at(seconds))]).await;

    // A repeated rating with the time of the deletion does not count.
    assert_outcomes(&write("x", 100).await, &[STORED]);
    assert!(delete(&client, "a", "x", at(100)).await);
    assert_outcomes(&write("x", 100).await, &[MERGED]);
    // A second, later deletion holds against a rating with a time in between.
    assert!(!delete(&client, "a", "x", at(200)).await);
    assert_outcomes(&write("x", 150).await, &[MERGED]);
    // A deletion that arrives before any rating holds, too.
    upsert(&client, vec![rating("b", "y", 3.0, at(0))]).await;
    assert!(!delete(&client, "a", "y", at(200)).await);
    assert_outcomes(&write("y", 150).await, &[MERGED]);
    assert_eq!(list(&client, user("a")).await, []);
    assert_outcomes(&write("y", 201).await, &[STORED]);
}

fn summary(stored: u64, merged: u64, rejected: u64) -> IngestSummary {
    IngestSummary {
        read: stored + merged + rejected,
        stored,
        merged,
        rejected,
        errors: Vec::new(),
    }
}

async fn ingest(client: &Client, messages: Vec<Vec<Rating>>) -> Result<IngestSummary, tonic::Status> {
    let messages = messages.into_iter().map(|ratings| IngestRatingsRequest { ratings });
    let answer = client.clone().ingest_ratings(tokio_stream::iter(messages)).await?;
    Ok(answer.into_inner().summary.unwrap())
}

#[tokio::test]
async fn the_summary_of_a_stream_counts_outcomes_and_names_the_first_100_errors() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.ratings().await;

    assert_eq!(ingest(&client, Vec::new()).await.unwrap(), summary(0, 0, 0));
    assert_eq!(
        ingest(&client, vec![Vec::new(), Vec::new()]).await.unwrap(),
        summary(0, 0, 0)
    );

    let users = |from: usize, to: usize| (from..to).map(|n| rating(&format!("u{n}"), "x", 3.0, at(0))).collect();
    let messages: Vec<Vec<Rating>> = vec![users(0, 1_000), users(500, 1_500), Vec::new(), users(1_500, 1_501)];
    assert_eq!(ingest(&client, messages).await.unwrap(), summary(1_501, 500, 0));

    // Half of the 500 ratings are bad; the first 100 are named by their place in the stream.
    let messages: Vec<Vec<Rating>> = (0..5)
        .map(|message| {
            (0..100)
                .map(|entry| {
                    let n = message * 100 + entry;
                    rating(&format!("v{n}"), "x", if n % 2 == 0 { 3.0 } else { 0.0 }, at(0))
                })
                .collect()
        })
        .collect();
    let found = ingest(&client, messages).await.unwrap();
    assert_eq!(
        (found.read, found.stored, found.merged, found.rejected),
        (500, 250, 0, 250)
    );
    let places: Vec<u64> = found.errors.iter().map(|error| error.index).collect();
    assert_eq!(places, (0..100).map(|n| 2 * n + 1).collect::<Vec<u64>>());
    for error in found.errors {
        let error = error.error.unwrap();
        assert_eq!(
            (error.field.as_str(), error.reason.as_str()),
            ("value", "RATING_OUT_OF_RANGE")
        );
    }
}

#[tokio::test]
async fn a_broken_stream_keeps_the_ratings_that_were_stored() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.ratings().await;
    let good = |user: &str| vec![rating(user, "x", 3.0, at(0))];

    // The third message is too large, and the stream is refused there.
    let messages = vec![
        good("a"),
        good("b"),
        vec![rating("c", "x", 3.0, at(0)); 1_001],
        good("d"),
    ];
    let status = ingest(&client, messages).await.unwrap_err();
    assert_invalid(&status, "BATCH_SIZE_OUT_OF_RANGE", &["ratings"]);
    assert_eq!(list(&client, item("x")).await, [good("a"), good("b")].concat());

    // This client goes away after its second message.
    let (sender, receiver) = mpsc::unbounded_channel();
    let mut ingesting = server.ratings().await;
    let stream = tokio::spawn(async move { ingesting.ingest_ratings(UnboundedReceiverStream::new(receiver)).await });
    sender.send(IngestRatingsRequest { ratings: good("e") }).unwrap();
    sender.send(IngestRatingsRequest { ratings: good("f") }).unwrap();
    let look = async || list(&client, item("x")).await.len();
    eventually("both messages are stored", look, |&ratings| ratings == 4).await;
    stream.abort();
    assert!(stream.await.unwrap_err().is_cancelled());
    assert_eq!(list(&client, item("x")).await.len(), 4);

    let again = vec![good("a"), good("b"), good("e"), good("f"), good("g")];
    assert_eq!(ingest(&client, again).await.unwrap(), summary(1, 4, 0));
}
