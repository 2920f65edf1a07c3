//! Serves constant answers, which is the least that a call can cost: the same server threads, request and response types,
//! but no metrics, no keys and nothing to compute. `benches/serving.py` compares the service with it.
//!
//! Serves until it is killed.

use std::net::SocketAddr;

use likemind::grpc::accept;
use likemind::grpc::accept::open_connections::OpenConnections;
use likemind::grpc::encoded_rpc::Encoded;
use likemind::grpc::http::Http;
use likemind::grpc::options::ServerOptions;
use likemind::grpc::proto::v1::recommendation_service_server::{RecommendationService, RecommendationServiceServer};
use likemind::grpc::proto::v1::{
    Fallback, ListItemAudienceRequest, ListItemAudienceResponse, ListSimilarItemsRequest, ListSimilarItemsResponse,
    ListSimilarUsersRequest, ListSimilarUsersResponse, Personalization, PredictRatingsRequest, PredictRatingsResponse,
    PredictedRating, Prediction, RecommendRequest, RecommendResponse, RecommendedItem, StreamAudienceRequest,
    StreamAudienceResponse, prediction,
};
use likemind::grpc::threads;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// The allocator of `likemind`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Answers with texts as long as those of the service that it is compared with.
struct Constant {
    item_id: String,
    title: String,
}

#[tonic::async_trait]
impl RecommendationService for Constant {
    type StreamAudienceStream = tokio_stream::Empty<Result<StreamAudienceResponse, Status>>;

    async fn stream_audience(
        &self,
        _: Request<StreamAudienceRequest>,
    ) -> Result<Response<Self::StreamAudienceStream>, Status> {
        Ok(Response::new(tokio_stream::empty()))
    }

    async fn predict_ratings(
        &self,
        request: Request<Encoded<PredictRatingsRequest>>,
    ) -> Result<Response<Encoded<PredictRatingsResponse>>, Status> {
        let rating = PredictedRating {
            value: 3.5,
            support: 7,
            clamped: false,
            fallback: Fallback::None.into(),
            explanation: None,
        };
        let items = request.into_inner().decode()?.item_ids.into_iter();
        Ok(Response::new(Encoded::new(&PredictRatingsResponse {
            snapshot_version: 1,
            predictions: items
                .map(|item_id| Prediction {
                    item_id,
                    result: Some(prediction::Result::Rating(rating.clone())),
                })
                .collect(),
        })))
    }

    async fn recommend(
        &self,
        request: Request<Encoded<RecommendRequest>>,
    ) -> Result<Response<Encoded<RecommendResponse>>, Status> {
        let items = 1..=request.into_inner().decode()?.limit as u32;
        Ok(Response::new(Encoded::new(&RecommendResponse {
            snapshot_version: 1,
            personalization: Personalization::Personalized.into(),
            items: items
                .map(|rank| RecommendedItem {
                    rank,
                    item_id: self.item_id.clone(),
                    title: self.title.clone(),
                    score: 0.5,
                    explanation: None,
                })
                .collect(),
        })))
    }

    async fn list_similar_items(
        &self,
        _: Request<Encoded<ListSimilarItemsRequest>>,
    ) -> Result<Response<ListSimilarItemsResponse>, Status> {
        Err(Status::unimplemented("this benchmark does not call it"))
    }

    async fn list_similar_users(
        &self,
        _: Request<ListSimilarUsersRequest>,
    ) -> Result<Response<ListSimilarUsersResponse>, Status> {
        Err(Status::unimplemented("this benchmark does not call it"))
    }

    async fn list_item_audience(
        &self,
        _: Request<ListItemAudienceRequest>,
    ) -> Result<Response<ListItemAudienceResponse>, Status> {
        Err(Status::unimplemented("this benchmark does not call it"))
    }
}

/// `baseline [ITEM_ID_BYTES TITLE_BYTES]`
#[tokio::main]
async fn main() {
    // Anything else is `--bench`, which cargo adds.
    let bytes: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    let &[item_id_bytes, title_bytes] = &bytes[..] else {
        eprintln!("baseline ITEM_ID_BYTES TITLE_BYTES: see benches/serving.py");
        return;
    };
    let constant = Constant {
        item_id: "i".repeat(item_id_bytes),
        title: "t".repeat(title_bytes),
    };
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(loopback).await.expect("no port is free");
    let address = listener.local_addr().expect("a bound port has an address");
    let options = ServerOptions::default();
    let open = OpenConnections::new(options.connection_limits());
    eprintln!("serving on {address}");
    threads::serve(
        Http::new(options.http()),
        Routes::new(RecommendationServiceServer::new(constant)).prepare(),
        threads::number(0),
        accept::connections(listener, None, open, options.handshake_timeout()),
        CancellationToken::new(),
    )
    .await
    .expect("the server ended");
}
