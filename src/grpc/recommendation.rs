//! RecommendationService: answers from memory.

mod convert;
mod work;

use std::cell::Cell;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use crate::domain::rating::RatingScale;
use crate::live::Live;
use crate::model::view::View;
use crate::recommend::audience::item_audience;
use crate::recommend::rank::{self, Scratch};
use crate::recommend::similar::{similar_items, similar_users};

use self::convert::{AudienceRequest, PredictRequest, RankRequest, SimilarRequest, SimilarUsersRequest};
use super::access::caller;
use super::proto::v1::recommendation_service_server::RecommendationService;
use super::proto::v1::{
    ListItemAudienceRequest, ListItemAudienceResponse, ListSimilarItemsRequest, ListSimilarItemsResponse,
    ListSimilarUsersRequest, ListSimilarUsersResponse, PredictRatingsRequest, PredictRatingsResponse, RecommendRequest,
    RecommendResponse,
};
use super::{heavy, status};

thread_local! {
    /// Accumulators of this thread; requests that follow one another on it share them.
    static SCRATCH: Cell<Scratch> = Cell::default();
}

pub struct RecommendationHandler {
    pub live: Live,
    pub scale: RatingScale,
}

impl RecommendationHandler {
    fn view(&self) -> Result<Arc<View>, Status> {
        let none = || status::no_snapshot(&self.live.status());
        self.live.view().ok_or_else(none)
    }
}

/// What `work` does with the accumulators. They are taken out for it, so that a panic, which would leave them half
/// filled, loses them.
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
        let view = self.view()?;
        let work = work::of_predictions(&view, &predict);
        let answer = heavy::run(work, move || convert::predictions(&view, &predict));
        Ok(Response::new(answer.await?))
    }

    async fn recommend(&self, request: Request<RecommendRequest>) -> Result<Response<RecommendResponse>, Status> {
        let rank = RankRequest::new(request.into_inner(), &self.scale)?;
        let view = self.view()?;
        let work = work::of_ranking(&view, &rank);
        let answer = heavy::run(work, move || {
            let ranked = with_scratch(|scratch| rank::recommend(&view, &rank.subject(&view), &rank.options, scratch));
            convert::recommendations(&view, ranked)
        });
        Ok(Response::new(answer.await?))
    }

    async fn list_similar_items(
        &self,
        request: Request<ListSimilarItemsRequest>,
    ) -> Result<Response<ListSimilarItemsResponse>, Status> {
        let caller = caller(&request)?;
        let similar = SimilarRequest::new(request.into_inner(), &caller)?;
        let view = self.view()?;
        // An item that is newer than the snapshot has no neighbours yet.
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
        // An item that is newer than the snapshot is like no other yet.
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
    use crate::domain::id::UserId;
    use crate::model::fixture;
    use crate::recommend::rank::{RankOptions, Subject};

    #[test]
    fn accumulators_are_kept_unless_a_panic_may_have_left_something_in_them() {
        let view = fixture::view(fixture::snapshot_parts(&fixture::EXAMPLE));
        let user = UserId::new("u0").unwrap();
        let options = RankOptions {
            limit: 3,
            ..Default::default()
        };
        let rank = |scratch: &mut Scratch| rank::recommend(&view, &Subject::User(&user), &options, scratch);
        let fresh = format!("{:?}", Scratch::default());
        let left = || with_scratch(|scratch| format!("{scratch:?}"));

        with_scratch(rank);
        assert_ne!(left(), fresh);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            with_scratch(|scratch| {
                rank(scratch);
                panic!("as asked");
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(left(), fresh);
    }
}
