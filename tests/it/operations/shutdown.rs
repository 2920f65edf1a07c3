//! How a server stops.

use std::net::TcpStream;

use likemind::grpc::proto::v1::{GetServingStatusRequest, IngestRatingsRequest, IngestRatingsResponse};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Response, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::caller::{Caller, a_rating};
use crate::support::held_rating::{HeldRating, stored_rating};
use crate::support::http2::RawConnection;
use crate::support::postgres::TestDatabase;
use crate::support::program::Server;
use crate::support::shop;
use crate::support::waiting::{eventually, soon};

/// A stream of ratings to a server, under way.
struct RatingStream {
    messages: mpsc::Sender<IngestRatingsRequest>,
    call: JoinHandle<Result<Response<IngestRatingsResponse>, Status>>,
}

impl RatingStream {
    /// Returns when the first rating of the stream is stored.
    async fn start(caller: &Caller, database: &TestDatabase) -> Self {
        let (messages, receiver) = mpsc::channel(1);
        let mut client = caller.ratings.clone();
        let call = tokio::spawn(async move { client.ingest_ratings(ReceiverStream::new(receiver)).await });
        let stream = Self { messages, call };
        stream.send("i01").await;
        soon(
            "the first rating of the stream is stored",
            async || stored_rating(database, "streamer", "i01").await,
            |&value| value == Some(3.0),
        )
        .await;
        stream
    }

    async fn send(&self, item: &str) {
        let ratings = vec![a_rating("streamer", item, 3.0)];
        self.messages.send(IngestRatingsRequest { ratings }).await.unwrap();
    }

    /// Ends the stream and returns how many ratings were stored.
    async fn end(self) -> u64 {
        drop(self.messages);
        let answer = self.call.await.unwrap().unwrap();
        answer.into_inner().summary.unwrap().stored
    }
}

async fn watch_health(server: &Server, service: &str) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let mut client = HealthClient::new(server.channel().await);
    client.watch(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_stopping_server_finishes_the_requests_it_has_begun() {
    let database = shop::open().await;
    let mut server = Server::start(&database);
    let caller = Caller::of(&server).await;
    let mut held = HeldRating::hold(&database).await;
    let unary = held.send_waiting_request(&caller).await;
    let stream = RatingStream::start(&caller, &database).await;

    server.program.signal(libc::SIGTERM);
    server.program.wait_for_log("draining");
    let (user_id, item_id) = (held.user_id.clone(), held.item_id.clone());
    held.release().await;
    stream.send("i02").await;
    assert_eq!(unary.await.unwrap().unwrap().into_inner().results.len(), 1);
    assert_eq!(stream.end().await, 2);
    let (exit, log) = server.program.wait();
    assert_eq!(exit.code(), Some(0), "{log}");
    assert!(!log.contains("cut off"), "{log}");
    assert_eq!(stored_rating(&database, "streamer", "i02").await, Some(3.0));
    assert_eq!(stored_rating(&database, &user_id, &item_id).await, Some(2.0));
}

#[tokio::test]
async fn a_stopping_server_refuses_new_connections_and_requests_and_tells_its_health_watchers() {
    let database = shop::open().await;
    let mut server = Server::start(&database);
    let caller = Caller::of(&server).await;
    let mut held = HeldRating::hold(&database).await;
    let unary = held.send_waiting_request(&caller).await;
    let watched = watch_health(&server, "likemind.v1.RatingService").await;

    server.program.signal(libc::SIGTERM);
    server.program.wait_for_log("draining");
    let endpoint = Endpoint::from_shared(server.address.clone()).unwrap();
    eventually(
        "new connections are refused",
        async || endpoint.connect().await,
        Result::is_err,
    )
    .await
    .unwrap_err();
    let call = async || {
        let mut models = caller.models.clone();
        models.get_serving_status(GetServingStatusRequest {}).await
    };
    let refused = eventually("new requests are refused", call, Result::is_err)
        .await
        .unwrap_err();
    // These codes come from the client's library, which finds the connection closed.
    assert!(
        [Code::Unavailable, Code::Cancelled].contains(&refused.code()),
        "{refused:?}"
    );
    // A watcher is told, and then its stream ends.
    let told: Vec<ServingStatus> = watched.map(|answer| answer.unwrap().status()).collect().await;
    assert_eq!(told, [ServingStatus::Serving, ServingStatus::NotServing]);

    held.release().await;
    assert_eq!(unary.await.unwrap().unwrap().into_inner().results.len(), 1);
    let (exit, log) = server.program.wait();
    assert_eq!(exit.code(), Some(0), "{log}");
}

#[tokio::test]
async fn requests_that_outlast_the_drain_timeout_are_cut_off() {
    let database = shop::open().await;
    let settings = [
        ("server.drain_timeout_ms", "300"),
        ("server.request_timeout_ms", "600000"),
    ];
    let server = Server::with(&database, &settings);
    let caller = Caller::of(&server).await;
    let mut held = HeldRating::hold(&database).await;
    let unary = held.send_waiting_request(&caller).await;
    // This client neither sends a message nor ends its stream.
    let mut client = caller.ratings.clone();
    let stream = tokio::spawn(async move { client.ingest_ratings(tokio_stream::pending()).await });

    // Without the drain timeout the requests would take longer than a test waits for the end of a program.
    let (exit, log) = server.drain().await;
    assert_eq!(exit.code(), Some(0), "{log}");
    assert!(log.contains("cut off"), "{log}");
    assert!(unary.await.unwrap().is_err());
    assert!(stream.await.unwrap().is_err());
}

#[tokio::test]
async fn a_stopping_server_does_not_wait_for_connections_without_calls() {
    let database = shop::open().await;
    let server = Server::with(&database, &[("server.drain_timeout_ms", "600000")]);
    let caller = Caller::of(&server).await;
    caller.status().await;
    let silent = TcpStream::connect(server.address.trim_start_matches("http://")).unwrap();
    // This client neither answers nor leaves when it is asked to.
    let idle = RawConnection::open(&server);
    // Without a call under way, the drain timeout would take longer than a test waits for the end of a program.
    let (exit, log) = server.drain().await;
    assert_eq!(exit.code(), Some(0), "{log}");
    assert!(!log.contains("cut off"), "{log}");
    drop((silent, idle));
}
