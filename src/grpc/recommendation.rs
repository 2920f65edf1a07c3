//! RecommendationService: answers from memory.

mod convert;

use std::cell::RefCell;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::live::Live;
use crate::model::view::View;
use crate::recommend::predict::Predictor;
use crate::recommend::rank::{self, Scratch};
use crate::recommend::similar::similar_items;
use crate::domain::rating::RatingScale;

use self::convert::{PredictRequest, RankRequest, SimilarRequest};
use super::proto::v1::recommendation_service_server::RecommendationService;
use super::proto::v1::{
    ListSimilarItemsRequest, ListSimilarItemsResponse, PredictRatingsRequest, PredictRatingsResponse,
    RecommendRequest, RecommendResponse,
};
use super::status;

/// Multiply-adds above which a request leaves the async worker: about 100 µs.
const HEAVY_WORK: usize = 200_000;

thread_local! {
    /// Accumulators of this worker thread; requests that follow one another on it share them.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

pub struct RecommendationHandler {
    pub live: Live,
    pub scale: RatingScale,
}

impl RecommendationHandler {
    fn view(&self) -> Result<Arc<View>, Status> {
        self.live.view().ok_or_else(status::no_snapshot)
    }
}

#[tonic::async_trait]
impl RecommendationService for RecommendationHandler {
    async fn predict_ratings(
        &self,
        request: Request<PredictRatingsRequest>,
    ) -> Result<Response<PredictRatingsResponse>, Status> {
        let predict = PredictRequest::try_from(request.into_inner())?;
        let view = self.view()?;
        let predictor = Predictor::new(&view, &predict.user);
        let predictions = predict.items.iter().map(|item| match view.item(item) {
            Some(found) => convert::prediction(&view, item, predictor.predict(&found, &predict.options)),
            None => convert::unknown_item(item),
        });
        Ok(Response::new(PredictRatingsResponse {
            snapshot_version: view.version,
            predictions: predictions.collect(),
        }))
    }

    async fn recommend(&self, request: Request<RecommendRequest>) -> Result<Response<RecommendResponse>, Status> {
        let rank = RankRequest::new(request.into_inner(), &self.scale)?;
        let view = self.view()?;
        let subject = rank.subject(&view);
        let is_heavy = rank::estimated_work(&view, &subject.borrow(), rank.options.basis) > HEAVY_WORK;
        let answer = move || {
            let recommend = |scratch: &RefCell<Scratch>| {
                rank::recommend(&view, &subject.borrow(), &rank.options, &mut scratch.borrow_mut())
            };
            convert::recommendations(&view, SCRATCH.with(recommend))
        };
        let answer = if is_heavy {
            tokio::task::spawn_blocking(answer).await.map_err(|_| status::internal())?
        } else {
            answer()
        };
        Ok(Response::new(answer))
    }

    async fn list_similar_items(
        &self,
        request: Request<ListSimilarItemsRequest>,
    ) -> Result<Response<ListSimilarItemsResponse>, Status> {
        let similar = SimilarRequest::try_from(request.into_inner())?;
        let view = self.view()?;
        let items = match convert::existing_item(&view, &similar.item)? {
            Some(item) => similar_items(&view, item, similar.limit, &similar.filter),
            // Newer than the snapshot: no neighbours yet.
            None => Vec::new(),
        };
        Ok(Response::new(convert::similar(&view, items)))
    }
}
