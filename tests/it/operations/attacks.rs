//! Clients that take more than their share, on purpose or by mistake, and headers and bodies that end in the middle.

use std::io::Write;

use likemind::grpc::proto::v1::{GetItemRequest, GetServingStatusRequest};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::support::answers::assert_status;
use crate::support::http2::{self, RawConnection};
use crate::support::postgres::TestDatabase;
use crate::support::program::Server;
use crate::support::waiting::eventually;

const STATUS: &str = "/likemind.v1.ModelService/GetServingStatus";

async fn status(server: &Server) -> Result<(), Status> {
    let mut client = server.models().await;
    client.get_serving_status(GetServingStatusRequest {}).await.map(drop)
}

/// Begins `calls` calls whose answers the client takes only up to `window` bytes.
fn unread_calls(server: &Server, calls: u32, window: u32) -> RawConnection {
    let mut connection = RawConnection::open_with_window(server, window);
    for number in 0..calls {
        connection.write(&http2::whole_call(1 + 2 * number, STATUS));
    }
    // Until then another call could take the slot of one of these.
    assert!(connection.wait_until_read().is_none());
    connection
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_under_way_until_its_answer_is_taken_and_is_given_up_when_it_is_not() {
    let database = TestDatabase::create().await;
    let settings = [
        ("server.max_concurrent_requests", "4"),
        ("server.send_timeout_ms", "2000"),
    ];
    let mut server = Server::with(&database, &settings);
    // Without a window the answer stays with the call, and with a small one in the connection's own queue.
    for window in [0, 1] {
        let mut unread = unread_calls(&server, 4, window);
        let refused = eventually(
            "unread answers take up all slots",
            async || status(&server).await,
            Result::is_err,
        )
        .await
        .unwrap_err();
        assert_status(&refused, Code::ResourceExhausted, "OVERLOADED");
        assert_eq!(server.health("").await, Some(ServingStatus::NotServing));
        let mut resets = 0;
        while resets < 4 {
            match unread.read() {
                Some(frame) if frame.kind == http2::RST_STREAM => resets += 1,
                Some(_) => {}
                None => break,
            }
        }
        // Only a call whose answer is still with it can be given up alone.
        assert_eq!(resets, if window == 0 { 4 } else { 0 });
        eventually("the slots are free", async || status(&server).await, Result::is_ok)
            .await
            .unwrap();
    }
    server.program.wait_for_log("did not read its answers");
}

#[tokio::test]
async fn a_large_answer_reaches_a_client_that_takes_it_in_small_parts() {
    let database = TestDatabase::create().await;
    let server = Server::with(&database, &[]);
    let endpoint = Endpoint::from_shared(server.address.clone()).unwrap();
    // One frame of HTTP/2 fills this window several times.
    let channel = endpoint.initial_stream_window_size(1_000).connect().await.unwrap();
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            tonic_reflection::pb::v1::server_reflection_request::MessageRequest::FileContainingSymbol(
                "likemind.v1.RecommendationService".to_owned(),
            ),
        ),
    };
    let mut client = tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(channel);
    let mut answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(prost::Message::encoded_len(&answer) > 5_000, "{answer:?}");
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn streams_that_need_no_key_are_few_on_a_connection_and_limited_in_all() {
    let database = TestDatabase::create().await;
    let server = Server::with(&database, &[("server.max_concurrent_requests", "24")]);
    let watch = async |client: &HealthClient<_>| {
        let watched = client.clone().watch(HealthCheckRequest::default()).await;
        watched.map(|watched| watched.into_inner())
    };
    let (first, second) = (
        HealthClient::new(server.channel().await),
        HealthClient::new(server.channel().await),
    );
    let mut watched = Vec::new();
    for _ in 0..16 {
        watched.push(watch(&first).await.unwrap());
    }
    assert_status(&watch(&first).await.unwrap_err(), Code::ResourceExhausted, "OVERLOADED");
    for _ in 0..8 {
        watched.push(watch(&second).await.unwrap());
    }
    assert_status(
        &watch(&second).await.unwrap_err(),
        Code::ResourceExhausted,
        "OVERLOADED",
    );
    // They take nothing from other calls, nor from a single look at the health.
    assert_eq!(server.health("").await, Some(ServingStatus::NotServing));
    status(&server).await.unwrap();
    watched.clear();
    eventually(
        "the streams are over",
        async || watch(&second).await.map(drop),
        Result::is_ok,
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_cancels_many_calls_keeps_its_connection() {
    let database = TestDatabase::create().await;
    let server = Server::with(&database, &[]);
    let mut connection = RawConnection::open(&server);
    // They come at once, so that the server reads them all before it looks at the first.
    let calls: Vec<u8> = (0..500)
        .flat_map(|number| {
            let stream = 1 + 2 * number;
            let call = http2::call(stream, STATUS);
            [call, http2::reset(stream, 8)].concat()
        })
        .collect();
    connection.write(&calls);
    let goaway = connection.wait_until_read();
    assert!(goaway.is_none(), "{goaway:?}");
}

/// Returns a compressed message of a few kilobytes that holds `entries` empty entries of `field`.
fn bomb(field: u8, entries: usize) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&[field << 3 | 2, 0].repeat(entries)).unwrap();
    let compressed = gzip.finish().unwrap();
    [
        &[1],
        &u32::try_from(compressed.len()).unwrap().to_be_bytes()[..],
        &compressed,
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn millions_of_entries_in_a_few_kilobytes_are_refused_before_they_are_decoded() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let before = server.program.peak_kb();
    let paths = [
        // The RPC, the field and its number, and how many entries fit into the largest message.
        ("/likemind.v1.PurchaseService/RecordPurchases", "lines", 1, 500_000),
        ("/likemind.v1.PurchaseService/IngestPurchases", "lines", 1, 500_000),
        ("/likemind.v1.RatingService/UpsertRatings", "ratings", 1, 250_000),
        ("/likemind.v1.CatalogService/UpsertItems", "items", 1, 1_000_000),
        (
            "/likemind.v1.RecommendationService/PredictRatings",
            "item_ids",
            2,
            130_000,
        ),
    ];
    for (path, field, number, fitting) in paths {
        let mut calls = JoinSet::new();
        for _ in 0..4 {
            let (channel, bytes) = (server.channel().await, bomb(number, fitting));
            calls.spawn(raw_call(channel, path, bytes));
        }
        while let Some(ended) = calls.join_next().await {
            let refused = ended.unwrap().unwrap_err();
            assert_status(&refused, Code::InvalidArgument, "BATCH_SIZE_OUT_OF_RANGE");
            assert!(refused.message().contains(field), "{path}: {refused:?}");
        }
        let larger = raw_call(server.channel().await, path, bomb(number, 2_090_000))
            .await
            .unwrap_err();
        assert_status(&larger, Code::InvalidArgument, "REQUEST_TOO_LARGE");
    }
    // Decoded, they would take hundreds of MB.
    let grown = server.program.peak_kb() - before;
    assert!(grown < 64 * 1024, "{grown} kB");
}

/// Calls `path` with the compressed bytes of one message.
async fn raw_call(channel: Channel, path: &'static str, bytes: Vec<u8>) -> Result<(), Status> {
    let request = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("grpc-encoding", "gzip")
        .header("te", "trailers")
        .body(tonic::body::Body::new(http_body_util::Full::new(
            prost::bytes::Bytes::from(bytes),
        )))
        .unwrap();
    let answer = tower::ServiceExt::oneshot(channel, request).await.unwrap();
    match Status::from_header_map(answer.headers()) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(()),
    }
}

#[tokio::test]
async fn headers_that_are_too_large_are_refused_with_a_status() {
    let database = TestDatabase::create().await;
    let server = Server::with(&database, &[]);
    let mut client = server.models().await;
    let mut call = async |bytes: usize| {
        let mut request = Request::new(GetServingStatusRequest {});
        request
            .metadata_mut()
            .insert("x-large", "x".repeat(bytes).parse().unwrap());
        client.get_serving_status(request).await
    };
    call(15_000).await.unwrap();
    for bytes in [16_384, 20_000, 60_000, 200_000, 900_000] {
        let refused = call(bytes).await.unwrap_err();
        assert_status(&refused, Code::InvalidArgument, "HEADERS_TOO_LARGE");
        assert!(refused.message().contains("at most 16384 bytes"), "{refused:?}");
        assert!(refused.get_details_error_info().is_some());
    }
    call(15_000).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_ends_in_the_middle_is_no_error_of_the_server() {
    let database = TestDatabase::create().await;
    let settings = [("telemetry.log_filter", "info,likemind=debug")];
    let server = Server::with(&database, &settings);
    let paths = [
        "/likemind.v1.RecommendationService/Recommend",
        "/likemind.v1.RatingService/UpsertRatings",
        "/likemind.v1.RatingService/IngestRatings",
    ];
    let begun = [&[0, 0, 0, 0, 100][..], &[10; 50]].concat();
    for path in paths {
        // Every code of HTTP/2 and one that does not exist.
        for code in 0..=14 {
            let mut connection = RawConnection::open(&server);
            connection.write(&[http2::call(1, path), http2::data(1, &begun, false)].concat());
            connection.wait_until_read();
            connection.write(&http2::reset(1, code));
            connection.wait_until_read();
        }
        let mut ended = RawConnection::open(&server);
        ended.write(&[http2::call(1, path), http2::data(1, &begun, true)].concat());
        ended.wait_until_read();
        let mut gone = RawConnection::open(&server);
        gone.write(&[http2::call(1, path), http2::data(1, &begun, false)].concat());
        gone.wait_until_read();
    }
    let calls = async || server.program.log().matches("call ended").count();
    // 15 resets, an end and a connection that is gone for each path.
    eventually("every call has ended", calls, |&calls| calls >= 3 * 17).await;
    let mut client = server.catalog().await;
    let request = GetItemRequest {
        item_id: "x".to_owned(),
    };
    assert_eq!(client.get_item(request).await.unwrap_err().code(), Code::NotFound);
    let log = server.program.log();
    assert!(!log.contains("ERROR") && !log.contains(" WARN"), "{log}");
}
