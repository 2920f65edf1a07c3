//! PrivacyService.

mod convert;

use chrono::Utc;
use tonic::{Request, Response, Status};

use crate::live::Live;
use crate::store::postgres::pool::Pool;
use crate::store::privacy::{consents, suppressions};
use domain::consent::PrivacyOptions;
use domain::id::UserId;

use self::convert::ConsentStatement;
use self::convert::suppressions::ListSuppressions;
use super::batch::{self, Batch};
use super::caller::caller;
use super::page;
use super::proto::v1::privacy_service_server::PrivacyService;
use super::proto::v1::{
    Consent, DeleteSuppressionsRequest, DeleteSuppressionsResponse, GetConsentRequest, GetConsentResponse,
    ListSuppressionsRequest, ListSuppressionsResponse, SetConsentRequest, SetConsentResponse,
    UpsertSuppressionsRequest, UpsertSuppressionsResponse,
};

pub struct PrivacyHandler {
    pub pool: Pool,
    pub live: Live,
    pub privacy: PrivacyOptions,
}

impl PrivacyHandler {
    async fn in_force(&self, user: &UserId) -> Result<Vec<Consent>, Status> {
        let found = consents::get(&self.pool, user).await?;
        convert::consents(user, found, &self.privacy)
    }
}

#[tonic::async_trait]
impl PrivacyService for PrivacyHandler {
    async fn set_consent(&self, request: Request<SetConsentRequest>) -> Result<Response<SetConsentResponse>, Status> {
        let statement = ConsentStatement::new(request.into_inner(), Utc::now())?;
        consents::set(&self.pool, &statement.decisions).await?;
        self.live.refresh().await;
        let consents = self.in_force(&statement.user).await?;
        Ok(Response::new(SetConsentResponse { consents }))
    }

    async fn get_consent(&self, request: Request<GetConsentRequest>) -> Result<Response<GetConsentResponse>, Status> {
        let user = convert::user_of(request.into_inner())?;
        let consents = self.in_force(&user).await?;
        Ok(Response::new(GetConsentResponse { consents }))
    }

    async fn upsert_suppressions(
        &self,
        request: Request<UpsertSuppressionsRequest>,
    ) -> Result<Response<UpsertSuppressionsResponse>, Status> {
        let caller = caller(&request)?;
        let entries = request.into_inner().suppressions;
        batch::check_size("suppressions", entries.len())?;
        let results = Batch::convert(entries, convert::suppressions::suppression)
            .write(async |entries| suppressions::set(&self.pool, entries, &caller.name).await)
            .await?;
        self.live.refresh().await;
        Ok(Response::new(UpsertSuppressionsResponse { results }))
    }

    async fn delete_suppressions(
        &self,
        request: Request<DeleteSuppressionsRequest>,
    ) -> Result<Response<DeleteSuppressionsResponse>, Status> {
        let caller = caller(&request)?;
        let entries = request.into_inner().suppressions;
        batch::check_size("suppressions", entries.len())?;
        let results = Batch::convert(entries, |key| UserId::new(key.user_id))
            .write(async |users| suppressions::lift(&self.pool, users, &caller.name).await)
            .await?;
        self.live.refresh().await;
        Ok(Response::new(DeleteSuppressionsResponse { results }))
    }

    async fn list_suppressions(
        &self,
        request: Request<ListSuppressionsRequest>,
    ) -> Result<Response<ListSuppressionsResponse>, Status> {
        let list = ListSuppressions::try_from(request.into_inner())?;
        let rows = suppressions::list(&self.pool, list.user.as_ref(), &list.after, list.page_size + 1).await?;
        let (suppressions, next_page_token) = page::cut(rows, list.page_size, &list.key(), |row| row.user.to_string());
        Ok(Response::new(ListSuppressionsResponse {
            suppressions,
            next_page_token,
        }))
    }
}
