//! The least that a call costs: the same server threads, request and response types, and constant values. No calls are
//! observed, no keys asked for, nothing is computed. Compared with by `benches/serving.py`.
//!
//! Serves until it is ended.

use std::net::SocketAddr;

use likemind::grpc::accept;
use likemind::grpc::proto::v1::recommendation_service_server::{RecommendationService, RecommendationServiceServer};
use likemind::grpc::proto::v1::{
    Fallback, ListItemAudienceRequest, ListItemAudienceResponse, ListSimilarItemsRequest, ListSimilarItemsResponse,
    ListSimilarUsersRequest, ListSimilarUsersResponse, Personalization, PredictRatingsRequest, PredictRatingsResponse,
    PredictedRating, Prediction, RecommendRequest, RecommendResponse, RecommendedItem, prediction,
};
use likemind::grpc::threads;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// As `likemind` has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Texts as long as those of the answers that are compared with.
struct Constant {
    item_id: String,
    title: String,
}

#[tonic::async_trait]
impl RecommendationService for Constant {
    async fn predict_ratings(
        &self,
        request: Request<PredictRatingsRequest>,
    ) -> Result<Response<PredictRatingsResponse>, Status> {
        let rating = PredictedRating {
            value: 3.5,
            support: 7,
            clamped: false,
            fallback: Fallback::None.into(),
            explanation: None,
        };
        let items = request.into_inner().item_ids.into_iter();
        Ok(Response::new(PredictRatingsResponse {
            snapshot_version: 1,
            predictions: items
                .map(|item_id| Prediction {
                    item_id,
                    result: Some(prediction::Result::Rating(rating.clone())),
                })
                .collect(),
        }))
    }

    async fn recommend(&self, request: Request<RecommendRequest>) -> Result<Response<RecommendResponse>, Status> {
        let items = 1..=request.into_inner().limit as u32;
        Ok(Response::new(RecommendResponse {
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
        }))
    }

    async fn list_similar_items(
        &self,
        _: Request<ListSimilarItemsRequest>,
    ) -> Result<Response<ListSimilarItemsResponse>, Status> {
        Err(Status::unimplemented("not compared with"))
    }

    async fn list_similar_users(
        &self,
        _: Request<ListSimilarUsersRequest>,
    ) -> Result<Response<ListSimilarUsersResponse>, Status> {
        Err(Status::unimplemented("not compared with"))
    }

    async fn list_item_audience(
        &self,
        _: Request<ListItemAudienceRequest>,
    ) -> Result<Response<ListItemAudienceResponse>, Status> {
        Err(Status::unimplemented("not compared with"))
    }
}

/// `baseline [ITEM_ID_BYTES TITLE_BYTES]`
#[tokio::main]
async fn main() {
    // cargo adds `--bench`.
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
    let router = Server::builder()
        .max_concurrent_streams(1_024)
        .add_service(RecommendationServiceServer::new(constant));
    eprintln!("serving on {address}");
    threads::serve(
        router,
        threads::number(0),
        accept::connections(listener, None),
        CancellationToken::new(),
    )
    .await
    .expect("the server ended");
}
