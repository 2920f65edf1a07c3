//! The layers around a real server with handlers that misbehave on demand.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_stream::wrappers::TcpListenerStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt;

use super::*;
use crate::admission::Keyless;
use crate::admission::keyring::Keyring;
use crate::admission::options::AccessOptions;
use crate::grpc::encoded_rpc::Encoded;
use crate::grpc::options::ServerOptions;
use crate::grpc::proto::v1;
use crate::grpc::proto::v1::recommendation_service_client::RecommendationServiceClient;
use crate::grpc::proto::v1::recommendation_service_server::{RecommendationService, RecommendationServiceServer};
use crate::grpc::routes::Routes;
use crate::grpc::status::REQUEST_ID;
use crate::store::postgres::options::DatabaseOptions;
use crate::store::postgres::pool::Pool;

const MAX_MESSAGE_BYTES: usize = 1_000;
/// The server's timeout in tests that no request may run into, however slow the machine is.
const TIMEOUT: Duration = Duration::from_secs(600);
/// Longer than anything takes; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(60);

/// Its `recommend` does what the user's name says.
#[derive(Default)]
struct OnDemand {
    was_slow: Arc<AtomicBool>,
}

#[tonic::async_trait]
impl RecommendationService for OnDemand {
    type StreamAudienceStream = tokio_stream::Empty<Result<v1::StreamAudienceResponse, Status>>;

    async fn stream_audience(
        &self,
        _: tonic::Request<v1::StreamAudienceRequest>,
    ) -> Result<tonic::Response<Self::StreamAudienceStream>, Status> {
        Ok(tonic::Response::new(tokio_stream::empty()))
    }

    async fn recommend(
        &self,
        request: tonic::Request<Encoded<v1::RecommendRequest>>,
    ) -> Result<tonic::Response<Encoded<v1::RecommendResponse>>, Status> {
        let Some(v1::recommend_request::Subject::UserId(user)) = request.into_inner().decode()?.subject else {
            return Err(Status::internal("a handler's slip"));
        };
        match user.as_str() {
            "panic" => panic!("as asked"),
            "slow" => {
                self.was_slow.store(true, Ordering::SeqCst);
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        Ok(tonic::Response::new(Encoded::new(&v1::RecommendResponse::default())))
    }

    async fn predict_ratings(
        &self,
        _: tonic::Request<Encoded<v1::PredictRatingsRequest>>,
    ) -> Result<tonic::Response<Encoded<v1::PredictRatingsResponse>>, Status> {
        Ok(tonic::Response::new(Encoded::new(
            &v1::PredictRatingsResponse::default(),
        )))
    }

    async fn list_similar_items(
        &self,
        _: tonic::Request<Encoded<v1::ListSimilarItemsRequest>>,
    ) -> Result<tonic::Response<v1::ListSimilarItemsResponse>, Status> {
        Ok(tonic::Response::new(v1::ListSimilarItemsResponse::default()))
    }

    async fn list_similar_users(
        &self,
        _: tonic::Request<v1::ListSimilarUsersRequest>,
    ) -> Result<tonic::Response<v1::ListSimilarUsersResponse>, Status> {
        Ok(tonic::Response::new(v1::ListSimilarUsersResponse::default()))
    }

    async fn list_item_audience(
        &self,
        _: tonic::Request<v1::ListItemAudienceRequest>,
    ) -> Result<tonic::Response<v1::ListItemAudienceResponse>, Status> {
        Ok(tonic::Response::new(v1::ListItemAudienceResponse::default()))
    }
}

/// Admits everybody, up to the limits of `options`.
pub fn access(options: &ServerOptions) -> Access {
    let pool = Pool::lazy("postgres://127.0.0.1:1/none", &DatabaseOptions::default()).unwrap();
    Access {
        keyring: Keyring::new(pool, &AccessOptions::default()),
        keyless: Keyless::Allowed,
        capacity: options.capacity(),
    }
}

fn options(max_concurrent_requests: usize, timeout: Duration) -> ServerOptions {
    ServerOptions {
        max_concurrent_requests,
        request_timeout_ms: timeout.as_millis() as u64,
        ..ServerOptions::default()
    }
}

/// A connection to a server that takes `max_concurrent_requests`.
async fn connect(handler: OnDemand, max_concurrent_requests: usize, timeout: Duration) -> Channel {
    let options = options(max_concurrent_requests, timeout);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let service = RecommendationServiceServer::new(handler).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let server = Server::builder().layer(Layers::new(
        access(&options),
        options.request_timeout_ms,
        Handle::current(),
    ));
    let routes = Routes::builder().add(service).build();
    tokio::spawn(server.serve_with_incoming(routes, TcpListenerStream::new(listener)));
    Endpoint::from_shared(address).unwrap().connect().await.unwrap()
}

fn recommend_to(user: &str) -> v1::RecommendRequest {
    v1::RecommendRequest {
        subject: Some(v1::recommend_request::Subject::UserId(user.to_owned())),
        ..Default::default()
    }
}

/// Calls `path` with a message that may not be the right one.
async fn call(channel: &Channel, path: &'static str, request: impl prost::Message + 'static) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<_, v1::RecommendResponse>::default();
    let path = http::uri::PathAndQuery::from_static(path);
    grpc.unary(tonic::Request::new(request), path, codec).await.map(drop)
}

#[tokio::test]
async fn whatever_fails_is_answered_with_details() {
    let channel = connect(OnDemand::default(), 10, TIMEOUT).await;
    let check = |result: Result<(), Status>, code: Code, reason: &str| {
        let status = result.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        let info = status
            .get_details_error_info()
            .unwrap_or_else(|| panic!("no details: {status:?}"));
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            (reason, "likemind"),
            "{status:?}"
        );
        assert!(status.metadata().get(REQUEST_ID).is_some(), "{status:?}");
        status.message().to_owned()
    };
    const RECOMMEND: &str = "/likemind.v1.RecommendationService/Recommend";
    let panicked = call(&channel, RECOMMEND, recommend_to("panic")).await;
    assert!(!check(panicked, Code::Internal, "INTERNAL").contains("as asked"));
    let slipped = call(&channel, RECOMMEND, v1::RecommendRequest::default()).await;
    assert!(!check(slipped, Code::Internal, "INTERNAL").contains("slip"));
    let impatient = connect(OnDemand::default(), 10, Duration::from_millis(100)).await;
    let slow = call(&impatient, RECOMMEND, recommend_to("slow")).await;
    check(slow, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    let large = call(&channel, RECOMMEND, recommend_to(&"x".repeat(MAX_MESSAGE_BYTES))).await;
    assert!(check(large, Code::InvalidArgument, "REQUEST_TOO_LARGE").contains("1000 bytes"));
    let other_message = v1::GetSnapshotRequest { version: 7 };
    let unreadable = call(&channel, RECOMMEND, other_message).await;
    check(unreadable, Code::InvalidArgument, "UNREADABLE_REQUEST");
    for path in ["/likemind.v1.RecommendationService/Other", "/other.Service/Get"] {
        check(
            call(&channel, path, other_message).await,
            Code::Unimplemented,
            "UNKNOWN_RPC",
        );
    }
    // And the connection still serves.
    call(&channel, RECOMMEND, recommend_to("u")).await.unwrap();
}

#[tokio::test]
async fn a_request_id_is_kept_or_made() {
    let mut client = RecommendationServiceClient::new(connect(OnDemand::default(), 10, TIMEOUT).await);
    let mut check = async |given: Option<&str>, is_kept: bool| {
        let mut request = tonic::Request::new(recommend_to("u"));
        if let Some(given) = given {
            request.metadata_mut().insert(REQUEST_ID, given.parse().unwrap());
        }
        let response = client.recommend(request).await.unwrap();
        let id = response
            .metadata()
            .get(REQUEST_ID)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        assert_eq!(Some(id.as_str()) == given, is_kept, "{given:?} became {id}");
        assert!(!id.is_empty());
        id
    };
    check(Some("abc-1"), true).await;
    check(Some("two words"), false).await;
    check(Some(&"x".repeat(request_id::MAX_REQUEST_ID_BYTES + 1)), false).await;
    assert_ne!(check(None, false).await, check(None, false).await);
}

#[tokio::test]
async fn too_many_requests_are_turned_away_until_one_ends() {
    let handler = OnDemand::default();
    let was_slow = handler.was_slow.clone();
    let client = RecommendationServiceClient::new(connect(handler, 1, TIMEOUT).await);
    let slow = {
        let mut client = client.clone();
        tokio::spawn(async move { client.recommend(recommend_to("slow")).await })
    };
    let begun = async {
        while !was_slow.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.expect("it does not begin");
    let status = client.clone().recommend(recommend_to("u")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(
        status
            .get_details_retry_info()
            .is_some_and(|retry| retry.retry_delay.is_some())
    );
    // Its caller goes away.
    slow.abort();
    let served = async {
        while client.clone().recommend(recommend_to("u")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served)
        .await
        .expect("the permit has not come back");
}
