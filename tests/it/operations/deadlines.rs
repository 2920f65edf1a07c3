//! Deadlines of requests.

use std::sync::mpsc;
use std::time::Duration;

use likemind::grpc::proto::v1::coupon_service_client::CouponServiceClient;
use likemind::grpc::proto::v1::recommendation_service_client::RecommendationServiceClient;
use likemind::grpc::proto::v1::stream_audience_request::Of;
use likemind::grpc::proto::v1::{StreamAudienceRequest, StreamCouponTargetsRequest, UpsertRatingsRequest};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::support::answers::assert_status;
use crate::support::caller::Caller;
use crate::support::coupons::Offer;
use crate::support::held_rating::{HeldRating, stored_rating};
use crate::support::postgres::{execute, number};
use crate::support::program::Server;
use crate::support::shop;
use crate::support::waiting::eventually;

#[tokio::test]
async fn deadlines_of_server_and_database_hold_while_postgresql_is_slow() {
    let database = shop::open().await;
    let held = HeldRating::hold(&database).await;
    let (user_id, item_id) = (held.user_id.clone(), held.item_id.clone());
    let write = async |settings: &[(&str, &str)], deadline: Option<Duration>| {
        let server = Server::with(&database, settings);
        let mut request = held.request();
        if let Some(deadline) = deadline {
            request.set_timeout(deadline);
        }
        server.ratings().await.upsert_ratings(request).await.unwrap_err()
    };
    let own = [("server.request_timeout_ms", "500")];
    let refused = write(&own, None).await;
    assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused:?}");
    // A client's longer deadline does not lengthen it.
    let refused = write(&own, Some(Duration::from_secs(3_600))).await;
    assert_eq!(refused.code(), Code::DeadlineExceeded, "{refused:?}");
    // By default the deadline of PostgreSQL comes first.
    let refused = write(&[("database.statement_timeout_ms", "500")], None).await;
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert_eq!(refused.get_details_error_info().unwrap().reason, "DATABASE_SLOW");
    assert!(refused.get_details_retry_info().unwrap().retry_delay.is_some());

    // A request that was given up is not carried out later.
    held.release().await;
    let mut connection = database.connect().await;
    let busy = "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'";
    let look = async || number(&mut connection, busy).await;
    eventually("no session is busy any more", look, |&busy| busy == 0).await;
    let rating = shop::rating(0, shop::item_where(0, true));
    assert_eq!(stored_rating(&database, &user_id, &item_id).await, rating);
}

#[tokio::test]
async fn the_deadline_of_a_client_holds_to_the_end_of_a_list_of_targets() {
    let database = shop::open().await;
    Offer::of("c").create(&mut database.connect().await).await;
    // Without the deadline the list would end as DATABASE_SLOW.
    let server = Server::with(&database, &[("database.statement_timeout_ms", "60000")]);
    let mut client = CouponServiceClient::new(server.channel().await);
    let mut list = async || {
        let mut request = Request::new(StreamCouponTargetsRequest {
            coupon_id: "c".to_owned(),
            ..StreamCouponTargetsRequest::default()
        });
        request.set_timeout(Duration::from_secs(3));
        let mut stream = client.stream_coupon_targets(request).await?.into_inner();
        let mut messages = 0;
        while stream.message().await?.is_some() {
            messages += 1;
        }
        Ok::<usize, Status>(messages)
    };
    // The header leaves, and no row: who is offered the coupon cannot be noted.
    let mut holder = database.connect().await;
    execute(&mut holder, "BEGIN; LOCK TABLE exposures IN ACCESS EXCLUSIVE MODE").await;
    let status = list().await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    execute(&mut holder, "COMMIT").await;
    assert_eq!(list().await.unwrap(), 1 + shop::USERS);
}

#[tokio::test]
async fn the_deadline_of_a_client_holds_to_the_end_of_an_audience() {
    let database = shop::open().await;
    let server = Server::with(&database, &[("database.statement_timeout_ms", "60000")]);
    let mut client = RecommendationServiceClient::new(server.channel().await);
    let mut list = async || {
        let mut request = Request::new(StreamAudienceRequest {
            of: Some(Of::ItemId(shop::item(0))),
            ..StreamAudienceRequest::default()
        });
        request.set_timeout(Duration::from_secs(3));
        let mut stream = client.stream_audience(request).await?.into_inner();
        let mut messages = 0;
        while stream.message().await?.is_some() {
            messages += 1;
        }
        Ok::<usize, Status>(messages)
    };
    // The header leaves, and no row: whether users still agree cannot be read.
    let mut holder = database.connect().await;
    execute(&mut holder, "BEGIN; LOCK TABLE suppressions IN ACCESS EXCLUSIVE MODE").await;
    let status = list().await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    execute(&mut holder, "COMMIT").await;
    assert!(list().await.unwrap() > 1);
}

#[tokio::test]
async fn a_deadline_holds_when_the_client_is_cut_off() {
    let database = shop::open().await;
    let settings = [
        ("server.request_timeout_ms", "600000"),
        ("telemetry.log_filter", "debug,h2=off,hyper=off"),
    ];
    let mut server = Server::with(&database, &settings);
    let mut held = HeldRating::hold(&database).await;
    let mut request = held.request();
    request.set_timeout(Duration::from_secs(2));
    request
        .metadata_mut()
        .insert("x-request-id", "cut-off".parse().unwrap());

    let (address, (stop, stopped)) = (server.address.clone(), mpsc::channel());
    let client = std::thread::spawn(move || send_and_fall_silent(address, request, &stopped));
    held.until_a_request_waits().await;
    stop.send(()).unwrap();
    let line = server.program.wait_for_log("DEADLINE_EXCEEDED");
    assert!(line.contains("cut-off"), "{line}");
    drop(stop);
    client.join().unwrap();
}

/// Sends a request on a runtime that runs until `stopped` has a message, and is then blocked until the sender is dropped.
/// Such a client does not give up, not even at its own deadline.
fn send_and_fall_silent(address: String, request: Request<UpsertRatingsRequest>, stopped: &mpsc::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.spawn(async move {
        let channel = Endpoint::from_shared(address).unwrap().connect().await.unwrap();
        Caller::over(channel).ratings.upsert_ratings(request).await
    });
    let look = async || stopped.try_recv();
    runtime
        .block_on(eventually("the test stops the client", look, Result::is_ok))
        .unwrap();
    // Blocks the only thread of the runtime.
    let _ = stopped.recv();
    runtime.shutdown_background();
}
