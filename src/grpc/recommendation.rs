//! RecommendationService: answers from memory.

mod answers;
mod convert;
mod work;

use std::cell::Cell;
use std::sync::Arc;

use prost::Message;
use prost::bytes::Bytes;
use tonic::{Request, Response, Status};

use crate::live::Live;
use domain::rating::RatingScale;
use recommender::prediction;
use recommender::ranking::audience::item_audience;
use recommender::ranking::rank;
use recommender::ranking::similar::{similar_items, similar_users};
use recommender::snapshot::view::View;

use self::answers::AnswerCache;
use self::convert::{AudienceRequest, PredictRequest, RankRequest, SimilarRequest, SimilarUsersRequest};
use super::access::caller;
use super::proto::v1::recommendation_service_server::RecommendationService;
use super::proto::v1::{
    ListItemAudienceRequest, ListItemAudienceResponse, ListSimilarItemsRequest, ListSimilarItemsResponse,
    ListSimilarUsersRequest, ListSimilarUsersResponse, PredictRatingsRequest, PredictRatingsResponse, RecommendRequest,
    RecommendResponse,
};
use super::{heavy, status};

/// The buffers of ranking and prediction, which grow to the size of the snapshot.
#[derive(Debug, Default)]
struct Scratch {
    predict: prediction::Scratch,
    rank: rank::Scratch,
}

thread_local! {
    /// The buffers of this thread, which its requests share one after the other.
    static SCRATCH: Cell<Scratch> = Cell::default();
}

pub struct RecommendationHandler {
    live: Live,
    scale: RatingScale,
    predictions: AnswerCache,
    recommendations: AnswerCache,
}

impl RecommendationHandler {
    /// `answer_cache_bytes`: the bound of both caches together. Predictions get a quarter of it: they cost less, and there are
    /// so many of them that in one cache they would evict recommendations before these are requested again.
    pub fn new(live: Live, scale: RatingScale, answer_cache_bytes: usize) -> Self {
        Self {
            live,
            scale,
            predictions: AnswerCache::new(
                "likemind.v1.RecommendationService/PredictRatings",
                answer_cache_bytes / 4,
            ),
            recommendations: AnswerCache::new(
                "likemind.v1.RecommendationService/Recommend",
                answer_cache_bytes - answer_cache_bytes / 4,
            ),
        }
    }

    /// Answers [`RecommendationService::predict_ratings`] with encoded messages, from the cache where possible.
    ///
    /// # Errors
    /// Those of that method, and INTERNAL for bytes that are not such a message, as tonic has it.
    pub async fn predict_ratings_encoded(&self, request: Bytes) -> Result<Bytes, Status> {
        let view = self.view();
        let cached = view.as_ref().ok().and_then(|view| self.predictions.get(view, &request));
        if let Some(answer) = cached {
            return Ok(answer);
        }
        let message = PredictRatingsRequest::decode(request.clone()).map_err(status::undecodable)?;
        let predict = PredictRequest::try_from(message)?;
        let (view, user) = (view?, predict.user.clone());
        let answer = self.predict(view.clone(), predict).await?;
        let encoded = Bytes::from(answer.encode_to_vec());
        // The stamp does not change when an unknown item is added.
        if convert::are_all_rated(&answer) {
            self.predictions.put(&view, &request, Some(&user), encoded.clone());
        }
        Ok(encoded)
    }

    /// Answers [`RecommendationService::recommend`] with encoded messages, from the cache where possible.
    ///
    /// # Errors
    /// Those of [`Self::predict_ratings_encoded`].
    pub async fn recommend_encoded(&self, request: Bytes) -> Result<Bytes, Status> {
        let view = self.view();
        let cached = view
            .as_ref()
            .ok()
            .and_then(|view| self.recommendations.get(view, &request));
        if let Some(answer) = cached {
            return Ok(answer);
        }
        let message = RecommendRequest::decode(request.clone()).map_err(status::undecodable)?;
        let rank = RankRequest::new(message, &self.scale)?;
        let (view, user) = (view?, rank.user().cloned());
        let answer = Bytes::from(self.rank(view.clone(), rank).await?.encode_to_vec());
        self.recommendations.put(&view, &request, user.as_ref(), answer.clone());
        Ok(answer)
    }

    async fn predict(&self, view: Arc<View>, predict: PredictRequest) -> Result<PredictRatingsResponse, Status> {
        let work = work::of_predictions(&view, &predict);
        let predict = move || with_scratch(|scratch| convert::predictions(&view, predict, &mut scratch.predict));
        heavy::run(work, predict).await
    }

    async fn rank(&self, view: Arc<View>, rank: RankRequest) -> Result<RecommendResponse, Status> {
        let work = work::of_ranking(&view, &rank);
        let recommend = move || {
            let recipient = rank.recipient(&view);
            let ranked = with_scratch(|scratch| rank::recommend(&view, &recipient, &rank.options, &mut scratch.rank));
            convert::recommendations(&view, ranked)
        };
        heavy::run(work, recommend).await
    }

    fn view(&self) -> Result<Arc<View>, Status> {
        let none = || status::no_snapshot(&self.live.status());
        self.live.view().ok_or_else(none)
    }
}

/// Runs `work` with the buffers of this thread. They are taken out of their cell meanwhile, so that a panic, which may leave
/// something in them, drops them.
fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    let mut scratch = SCRATCH.take();
    let answer = work(&mut scratch);
    SCRATCH.set(scratch);
    answer
}

#[tonic::async_trait]
impl RecommendationService for RecommendationHandler {
    async fn predict_ratings(
        &self,
        request: Request<PredictRatingsRequest>,
    ) -> Result<Response<PredictRatingsResponse>, Status> {
        let predict = PredictRequest::try_from(request.into_inner())?;
        Ok(Response::new(self.predict(self.view()?, predict).await?))
    }

    async fn recommend(&self, request: Request<RecommendRequest>) -> Result<Response<RecommendResponse>, Status> {
        let rank = RankRequest::new(request.into_inner(), &self.scale)?;
        Ok(Response::new(self.rank(self.view()?, rank).await?))
    }

    async fn list_similar_items(
        &self,
        request: Request<ListSimilarItemsRequest>,
    ) -> Result<Response<ListSimilarItemsResponse>, Status> {
        let caller = caller(&request)?;
        let similar = SimilarRequest::new(request.into_inner(), &caller)?;
        let view = self.view()?;
        // An item that is newer than the snapshot has no neighbors yet.
        let item = convert::existing_item(&view, &similar.item, &caller)?;
        let answer = heavy::run(work::of_similar(&similar), move || {
            let items = item.map(|item| similar_items(&view, item, similar.limit, &similar.filter));
            convert::similar(&view, items.unwrap_or_default())
        });
        Ok(Response::new(answer.await?))
    }

    async fn list_item_audience(
        &self,
        request: Request<ListItemAudienceRequest>,
    ) -> Result<Response<ListItemAudienceResponse>, Status> {
        let caller = caller(&request)?;
        let audience = AudienceRequest::try_from(request.into_inner())?;
        let view = self.view()?;
        // An item that is newer than the snapshot is similar to no other yet.
        let item = convert::existing_item(&view, &audience.item, &caller)?;
        let answer = heavy::run(work::of_audience(&view), move || {
            let users = item.map(|item| item_audience(&view, item, audience.options));
            convert::audience(&view, users.unwrap_or_default())
        });
        Ok(Response::new(answer.await?))
    }

    async fn list_similar_users(
        &self,
        request: Request<ListSimilarUsersRequest>,
    ) -> Result<Response<ListSimilarUsersResponse>, Status> {
        let similar = SimilarUsersRequest::try_from(request.into_inner())?;
        let view = self.view()?;
        let user = convert::existing_user(&view, &similar.user)?;
        let users = user.map(|user| similar_users(&view, user, similar.limit));
        Ok(Response::new(convert::users(&view, users.unwrap_or_default())))
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use domain::id::UserId;
    use recommender::ranking::rank::{RankOptions, Recipient};
    use recommender::snapshot::fixture;

    #[test]
    fn buffers_are_kept_unless_a_panic_may_have_left_something_in_them() {
        let view = fixture::view(fixture::snapshot_parts(&fixture::EXAMPLE));
        let user = UserId::new("u0").unwrap();
        let options = RankOptions {
            limit: 3,
            ..Default::default()
        };
        let rank = |scratch: &mut Scratch| rank::recommend(&view, &Recipient::User(&user), &options, &mut scratch.rank);
        let fresh = format!("{:?}", Scratch::default());
        let left = || with_scratch(|scratch| format!("{scratch:?}"));

        with_scratch(rank);
        assert_ne!(left(), fresh);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            with_scratch(|scratch| {
                rank(scratch);
                panic!("on purpose");
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(left(), fresh);
    }
}
