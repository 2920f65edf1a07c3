//! Limits of concurrency and size.

use likemind::grpc::proto::v1::{GetItemRequest, UpsertRatingsRequest};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_types::StatusExt;

use crate::support::caller::{Caller, a_rating};
use crate::support::held_rating::{HeldRating, stored_rating};
use crate::support::program::Server;
use crate::support::shop::{self, item, user};
use crate::support::waiting::soon;

#[tokio::test]
async fn requests_beyond_the_concurrency_limit_are_refused_until_a_slot_is_free() {
    let database = shop::open().await;
    let settings = [
        ("server.max_concurrent_requests", "1"),
        ("live.refresh_interval_ms", "100"),
    ];
    let server = Server::with(&database, &settings);
    let caller = Caller::of(&server).await;
    let mut held = HeldRating::hold(&database).await;
    let first = held.send_waiting_request(&caller).await;

    let calls: Vec<_> = (0..8)
        .map(|_| {
            let mut catalog = caller.catalog.clone();
            tokio::spawn(async move { catalog.get_item(GetItemRequest { item_id: item(1) }).await })
        })
        .collect();
    for call in calls {
        let refused = call.await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        assert_eq!(refused.get_details_error_info().unwrap().reason, "OVERLOADED");
        let delay = refused.get_details_retry_info().unwrap().retry_delay;
        assert!(delay.is_some_and(|delay| !delay.is_zero()), "{delay:?}");
    }
    // Requests that do not need PostgreSQL are not refused because of one that waits for it.
    assert_eq!(server.health("").await, Some(ServingStatus::Serving));
    assert_eq!(caller.status().await.snapshot_version, Some(1));
    assert!(!caller.scores(&user(1)).await.is_empty());

    held.release().await;
    first.await.unwrap().unwrap();
    let get = async || {
        caller
            .catalog
            .clone()
            .get_item(GetItemRequest { item_id: item(1) })
            .await
    };
    get().await.unwrap();

    // A client that goes away frees its slot.
    let mut held = HeldRating::hold(&database).await;
    let abandoned = held.send_waiting_request(&caller).await;
    abandoned.abort();
    soon("the slot is free", get, Result::is_ok).await.unwrap();
    held.release().await;
}

#[tokio::test]
async fn messages_and_batches_beyond_their_limits_are_refused_whole() {
    let database = shop::open().await;
    let server = Server::with(&database, &[("server.max_message_bytes", "20000")]);
    let caller = Caller::of(&server).await;
    let upsert = async |count: usize, id: &str| {
        let ratings = (0..count)
            .map(|number| a_rating(&format!("{id}{number}"), "i01", 3.0))
            .collect();
        caller
            .ratings
            .clone()
            .upsert_ratings(UpsertRatingsRequest { ratings })
            .await
    };
    let too_large = upsert(900, &"x".repeat(100)).await.unwrap_err();
    assert_eq!(too_large.code(), Code::InvalidArgument, "{too_large:?}");
    assert_eq!(too_large.get_details_error_info().unwrap().reason, "REQUEST_TOO_LARGE");
    for part in ["server.max_message_bytes", "20000"] {
        assert!(too_large.message().contains(part), "{too_large:?}");
    }
    for count in [0, 1_001] {
        let refused = upsert(count, "x").await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        let violations = refused.get_details_bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "ratings");
        assert_eq!(
            refused.get_details_error_info().unwrap().reason,
            "BATCH_SIZE_OUT_OF_RANGE"
        );
    }
    assert_eq!(stored_rating(&database, "x0", "i01").await, None);
    assert_eq!(upsert(500, "x").await.unwrap().into_inner().results.len(), 500);
    assert_eq!(stored_rating(&database, "x499", "i01").await, Some(3.0));
}
