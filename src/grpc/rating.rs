//! RatingService.

mod convert;

use chrono::Utc;
use tonic::{Request, Response, Status, Streaming};

use crate::live::Live;
use crate::store::postgres::pool::Pool;
use crate::store::ratings;

use self::convert::{Deletion, ListRatings, Owner};
use super::batch::{self, Batch, Ingest};
use super::page;
use super::proto::v1::rating_service_server::RatingService;
use super::proto::v1::{
    DeleteRatingRequest, DeleteRatingResponse, EntryResult, IngestRatingsRequest, IngestRatingsResponse,
    ListRatingsRequest, ListRatingsResponse, Rating, UpsertRatingsRequest, UpsertRatingsResponse,
};
use domain::rating::RatingScale;

pub struct RatingHandler {
    pub pool: Pool,
    pub live: Live,
    pub scale: RatingScale,
}

impl RatingHandler {
    async fn upsert(&self, ratings: Vec<Rating>) -> Result<Vec<EntryResult>, Status> {
        let now = Utc::now();
        Batch::convert(ratings, |rating| convert::rating(rating, &self.scale, now))
            .write(async |ratings| ratings::upsert(&self.pool, ratings).await)
            .await
    }
}

#[tonic::async_trait]
impl RatingService for RatingHandler {
    async fn upsert_ratings(
        &self,
        request: Request<UpsertRatingsRequest>,
    ) -> Result<Response<UpsertRatingsResponse>, Status> {
        let ratings = request.into_inner().ratings;
        batch::check_size("ratings", ratings.len())?;
        let results = self.upsert(ratings).await?;
        self.live.refresh().await;
        Ok(Response::new(UpsertRatingsResponse { results }))
    }

    async fn ingest_ratings(
        &self,
        request: Request<Streaming<IngestRatingsRequest>>,
    ) -> Result<Response<IngestRatingsResponse>, Status> {
        let mut ingest = Ingest::new(request, "ratings", |message| message.ratings)?;
        while let Some(ratings) = ingest.next_batch().await? {
            ingest.record(self.upsert(ratings).await?);
        }
        self.live.refresh().await;
        Ok(Response::new(IngestRatingsResponse {
            summary: Some(ingest.into_summary()),
        }))
    }

    async fn list_ratings(
        &self,
        request: Request<ListRatingsRequest>,
    ) -> Result<Response<ListRatingsResponse>, Status> {
        let list = ListRatings::try_from(request.into_inner())?;
        let (rows, after_id): (_, fn(&domain::rating::Rating) -> String) = match &list.owner {
            Owner::User(user) => (
                ratings::list_by_user(&self.pool, user, &list.after, list.page_size + 1).await?,
                |rating| rating.item.to_string(),
            ),
            Owner::Item(item) => (
                ratings::list_by_item(&self.pool, item, &list.after, list.page_size + 1).await?,
                |rating| rating.user.to_string(),
            ),
        };
        let (ratings, next_page_token) = page::cut(rows, list.page_size, &list.owner.key(), after_id);
        Ok(Response::new(ListRatingsResponse {
            ratings,
            next_page_token,
        }))
    }

    async fn delete_rating(
        &self,
        request: Request<DeleteRatingRequest>,
    ) -> Result<Response<DeleteRatingResponse>, Status> {
        let deletion = Deletion::new(request.into_inner(), Utc::now())?;
        let deleted = ratings::delete(&self.pool, &deletion.user, &deletion.item, deletion.deleted_at).await?;
        self.live.refresh().await;
        Ok(Response::new(DeleteRatingResponse { deleted }))
    }
}
