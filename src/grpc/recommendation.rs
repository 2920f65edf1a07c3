//! RecommendationService, which answers from memory.

mod answers;
mod audience;
mod convert;
mod work;

use std::cell::Cell;
use std::sync::Arc;

use prost::Message;
use tonic::{Request, Response, Status};

use crate::app::audience::Audience;
use crate::live::Live;
use crate::store::postgres::pool::Pool;
use domain::consent::PrivacyOptions;
use domain::rating::RatingScale;
use recommender::prediction;
use recommender::ranking::audience::item_audience;
use recommender::ranking::rank;
use recommender::ranking::similar::{similar_items, similar_users};
use recommender::snapshot::view::{StampedState, View};

use self::answers::AnswerCache;
use self::audience::AudienceStream;
use self::convert::{AudienceRequest, PredictRequest, RankRequest, SimilarRequest, SimilarUsersRequest};
use super::caller::{caller, ends, stream_authorization};
use super::encoded_rpc::Encoded;
use super::proto::v1::recommendation_service_server::RecommendationService;
use super::proto::v1::{
    ListItemAudienceRequest, ListItemAudienceResponse, ListSimilarItemsRequest, ListSimilarItemsResponse,
    ListSimilarUsersRequest, ListSimilarUsersResponse, PredictRatingsRequest, PredictRatingsResponse, RecommendRequest,
    RecommendResponse, StreamAudienceRequest,
};
use super::request_limits::Bounded;
use super::{cpu_pool, message_size, status};

/// The buffers of ranking and prediction, which grow to the size of the snapshot.
#[derive(Debug, Default)]
struct Scratch {
    predict: prediction::Scratch,
    rank: rank::Scratch,
}

thread_local! {
    /// The buffers of this thread, which its requests share one after the other. They are boxed since they are taken out for
    /// every request, and some are long arrays.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

pub struct RecommendationHandler {
    pool: Pool,
    privacy: PrivacyOptions,
    live: Live,
    scale: RatingScale,
    predictions: AnswerCache,
    recommendations: AnswerCache,
}

impl RecommendationHandler {
    /// `answer_cache_bytes`: the bound of both caches together. Predictions get a quarter of it: they cost less, and there are
    /// so many of them that in one cache they would evict recommendations before these are requested again.
    pub fn new(pool: Pool, live: Live, scale: RatingScale, privacy: PrivacyOptions, answer_cache_bytes: usize) -> Self {
        Self {
            pool,
            privacy,
            live,
            scale,
            predictions: AnswerCache::new(
                "likemind.v1.RecommendationService/PredictRatings",
                StampedState::User,
                answer_cache_bytes / 4,
            ),
            recommendations: AnswerCache::new(
                "likemind.v1.RecommendationService/Recommend",
                StampedState::UserAndOrders,
                answer_cache_bytes - answer_cache_bytes / 4,
            ),
        }
    }

    async fn predict(&self, view: Arc<View>, predict: PredictRequest) -> Result<PredictRatingsResponse, Status> {
        let work = work::of_predictions(&view, &predict);
        let predict = move || with_scratch(|scratch| convert::predictions(&view, predict, &mut scratch.predict));
        cpu_pool::run(work, predict).await
    }

    async fn rank(&self, view: Arc<View>, rank: RankRequest) -> Result<RecommendResponse, Status> {
        let work = work::of_ranking(&view, &rank);
        let recommend = move || {
            let recipient = rank.recipient(&view);
            let ranked = with_scratch(|scratch| rank::recommend(&view, &recipient, &rank.options, &mut scratch.rank));
            convert::recommendations(
                &view,
                ranked,
                rank.max_explanation_items,
                rank.options.adjustments.as_ref(),
            )
        };
        cpu_pool::run(work, recommend).await
    }

    fn view(&self) -> Result<Arc<View>, Status> {
        let none = || status::no_snapshot(&self.live.status());
        self.live.view().ok_or_else(none)
    }
}

/// Decodes and converts a request, on another thread if it is large.
///
/// # Errors
/// INVALID_ARGUMENT for a request that cannot be decoded, or that `convert` refuses.
async fn converted<M, T>(
    request: &Encoded<M>,
    convert: impl FnOnce(M) -> Result<T, Status> + Send + 'static,
) -> Result<T, Status>
where
    M: Message + Default + Bounded + Clone + 'static,
    T: Send + 'static,
{
    /// An id of ten bytes takes about 50 ns to decode and 50 ns to check.
    const MULTIPLY_ADDS_PER_BYTE: usize = 10;
    let request = request.clone();
    let work = request.bytes().len() * MULTIPLY_ADDS_PER_BYTE;
    cpu_pool::run(work, move || convert(request.decode()?)).await?
}

/// Runs `work` with the buffers of this thread. They are taken out of their cell meanwhile, so that a panic, which may leave
/// something in them, drops them.
fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    let mut scratch = SCRATCH.take().unwrap_or_default();
    let answer = work(&mut scratch);
    SCRATCH.set(Some(scratch));
    answer
}

#[tonic::async_trait]
impl RecommendationService for RecommendationHandler {
    type StreamAudienceStream = AudienceStream;

    async fn stream_audience(
        &self,
        request: Request<StreamAudienceRequest>,
    ) -> Result<Response<AudienceStream>, Status> {
        let (caller, authorization) = (caller(&request)?, stream_authorization(&request)?);
        let ends = ends(&request);
        let (request, rows) = audience::convert::request(request.into_inner(), caller)?;
        let audience = Audience::open(&self.pool, &self.live, self.privacy, request).await?;
        let rows = rows.build(audience.header());
        Ok(Response::new(audience::stream(audience, rows, authorization, ends)))
    }

    async fn predict_ratings(
        &self,
        request: Request<Encoded<PredictRatingsRequest>>,
    ) -> Result<Response<Encoded<PredictRatingsResponse>>, Status> {
        let request = request.into_inner();
        let view = self.view();
        let remembered = view
            .as_ref()
            .ok()
            .and_then(|view| self.predictions.get(view, request.bytes()));
        if let Some(answer) = remembered {
            return Ok(Response::new(Encoded::from_bytes(answer)));
        }
        let predict = converted(&request, PredictRequest::try_from).await?;
        let (view, user) = (view?, predict.user.clone());
        let answer = self.predict(view.clone(), predict).await?;
        let encoded = Encoded::new(&answer);
        message_size::check(encoded.bytes().len(), "item_ids")?;
        // An unknown item may be added at any time, which would change the answer.
        if convert::are_all_rated(&answer) {
            let bytes = encoded.bytes().clone();
            self.predictions.put(&view, request.bytes(), Some(&user), bytes);
        }
        Ok(Response::new(encoded))
    }

    async fn recommend(
        &self,
        request: Request<Encoded<RecommendRequest>>,
    ) -> Result<Response<Encoded<RecommendResponse>>, Status> {
        let request = request.into_inner();
        let view = self.view();
        let remembered = view
            .as_ref()
            .ok()
            .and_then(|view| self.recommendations.get(view, request.bytes()));
        if let Some(answer) = remembered {
            return Ok(Response::new(Encoded::from_bytes(answer)));
        }
        let scale = self.scale;
        let rank = converted(&request, move |request| RankRequest::new(request, &scale)).await?;
        let (view, user) = (view?, rank.user().cloned());
        let answer = Encoded::new(&self.rank(view.clone(), rank).await?);
        message_size::check(answer.bytes().len(), "limit")?;
        let bytes = answer.bytes().clone();
        self.recommendations.put(&view, request.bytes(), user.as_ref(), bytes);
        Ok(Response::new(answer))
    }

    async fn list_similar_items(
        &self,
        request: Request<Encoded<ListSimilarItemsRequest>>,
    ) -> Result<Response<ListSimilarItemsResponse>, Status> {
        let caller = caller(&request)?;
        let for_caller = caller.clone();
        let convert = move |request| SimilarRequest::new(request, &for_caller);
        let similar = converted(&request.into_inner(), convert).await?;
        let view = self.view()?;
        // An item that is newer than the snapshot has no neighbors yet.
        let item = convert::existing_item(&view, &similar.item, &caller)?;
        let answer = cpu_pool::run(work::of_similar(&similar), move || {
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
        let answer = cpu_pool::run(work::of_audience(&view), move || {
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
