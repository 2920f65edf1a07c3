//! PrivacyService.

mod consent_changes;
mod convert;
mod user_export;

use chrono::Utc;
use tokio::sync::OnceCell;
use tonic::{Request, Response, Status};

use crate::app::user_export::{HoldingRules, UserExport};
use crate::live::Live;
use crate::store::outcome::WriteOutcome;
use crate::store::postgres::pool::Pool;
use crate::store::privacy::consent_history::FeedPosition;
use crate::store::privacy::rectification::Correction;
use crate::store::privacy::{consent_history, consents, erasures, rectification, suppressions};
use crate::store::token_key::{self, KEY_BYTES};
use domain::id::UserId;

use self::consent_changes::{ConsentChanges, Feed};
use self::convert::ConsentStatement;
use self::convert::erasures::{EraseUser, list_key};
use self::convert::history::{FeedStart, ListConsents, feed_start};
use self::convert::suppressions::ListSuppressions;
use self::convert::user_data::unknown_user;
use self::user_export::UserDataStream;
use super::batch::{self, Batch};
use super::caller::{caller, ends, stream_authorization};
use super::page::{self, NewestFirst};
use super::proto::v1::privacy_service_server::PrivacyService;
use super::proto::v1::{
    Consent, DeleteSuppressionsRequest, DeleteSuppressionsResponse, EraseUserRequest, EraseUserResponse,
    ExportUserDataRequest, GetConsentRequest, GetConsentResponse, GetErasureRequest, GetErasureResponse,
    ListConsentsRequest, ListConsentsResponse, ListErasuresRequest, ListErasuresResponse, ListSuppressionsRequest,
    ListSuppressionsResponse, RectifyUserRequest, RectifyUserResponse, SetConsentRequest, SetConsentResponse,
    StreamConsentChangesRequest, UpsertSuppressionsRequest, UpsertSuppressionsResponse,
};
use super::status::erasure_key_missing;

pub struct PrivacyHandler {
    pub pool: Pool,
    pub live: Live,
    pub rules: HoldingRules,
    /// Authenticates the positions of streams. Read at the first use, as a server starts without a database too.
    pub token_secret: OnceCell<[u8; KEY_BYTES]>,
}

impl PrivacyHandler {
    async fn in_force(&self, user: &UserId) -> Result<Vec<Consent>, Status> {
        let found = consents::get(&self.pool, user).await?;
        convert::consents(user, found, &self.rules.privacy)
    }
}

#[tonic::async_trait]
impl PrivacyService for PrivacyHandler {
    type StreamConsentChangesStream = ConsentChanges;
    type ExportUserDataStream = UserDataStream;

    async fn set_consent(&self, request: Request<SetConsentRequest>) -> Result<Response<SetConsentResponse>, Status> {
        let statement = ConsentStatement::new(request.into_inner(), Utc::now())?;
        let outcomes = consents::set(&self.pool, &statement.decisions).await?;
        self.live.refresh().await;
        let mut found = consents::get(&self.pool, &statement.user).await?;
        if outcomes.contains(&WriteOutcome::Dropped) {
            // The user was erased since, and has not come back unless found.
            found.get_or_insert_default();
        }
        let consents = convert::consents(&statement.user, found, &self.rules.privacy)?;
        Ok(Response::new(SetConsentResponse { consents }))
    }

    async fn get_consent(&self, request: Request<GetConsentRequest>) -> Result<Response<GetConsentResponse>, Status> {
        let user = convert::user_of(request.into_inner())?;
        let consents = self.in_force(&user).await?;
        Ok(Response::new(GetConsentResponse { consents }))
    }

    async fn list_consents(
        &self,
        request: Request<ListConsentsRequest>,
    ) -> Result<Response<ListConsentsResponse>, Status> {
        let list = ListConsents::try_from(request.into_inner())?;
        let found = consent_history::of_user(&self.pool, &list.user, list.before, list.page_size + 1).await?;
        let rows = found.ok_or_else(|| unknown_user(&list.user))?;
        let (events, next_page_token) = page::cut(rows, list.page_size, &list.key(), |row| row.id);
        Ok(Response::new(ListConsentsResponse {
            events,
            next_page_token,
        }))
    }

    async fn stream_consent_changes(
        &self,
        request: Request<StreamConsentChangesRequest>,
    ) -> Result<Response<ConsentChanges>, Status> {
        let (authorization, ends) = (stream_authorization(&request)?, ends(&request));
        let secret = self
            .token_secret
            .get_or_try_init(|| token_key::read(&self.pool))
            .await?;
        let (start, limit) = feed_start(request.into_inner(), secret)?;
        let position = match start {
            FeedStart::At(position) => position.continued(&self.pool).await?,
            FeedStart::Since(since) => FeedPosition::beginning(&self.pool, since).await?,
        };
        let feed = Feed {
            pool: self.pool.clone(),
            position,
            limit,
            secret: *secret,
        };
        Ok(Response::new(consent_changes::stream(feed, authorization, ends)))
    }

    async fn export_user_data(
        &self,
        request: Request<ExportUserDataRequest>,
    ) -> Result<Response<UserDataStream>, Status> {
        let (caller, authorization) = (caller(&request)?, stream_authorization(&request)?);
        let ends = ends(&request);
        let request = convert::user_data::export(request.into_inner(), &caller)?;
        let user = request.user.clone();
        let opened = UserExport::open(&self.pool, self.live.view(), self.rules, request).await?;
        let export = opened.ok_or_else(|| unknown_user(&user))?;
        Ok(Response::new(user_export::stream(export, authorization, ends)))
    }

    async fn rectify_user(
        &self,
        request: Request<RectifyUserRequest>,
    ) -> Result<Response<RectifyUserResponse>, Status> {
        let caller = caller(&request)?;
        let correction: Correction = request.into_inner().try_into()?;
        let corrected = rectification::rectify(&self.pool, &correction, &caller.name).await?;
        let corrected = corrected.ok_or_else(|| unknown_user(&correction.user))?;
        Ok(Response::new(RectifyUserResponse {
            attributes: corrected.into_iter().map(Into::into).collect(),
        }))
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
    async fn erase_user(&self, request: Request<EraseUserRequest>) -> Result<Response<EraseUserResponse>, Status> {
        let caller = caller(&request)?;
        let EraseUser {
            user,
            request_id,
            reason,
        } = request.into_inner().try_into()?;
        let key = self.pool.erasure_key().ok_or_else(erasure_key_missing)?;
        let request = erasures::Request {
            users: std::slice::from_ref(&user),
            request_id: Some(&request_id),
            reason: &reason,
            actor: &caller.name,
        };
        let received = erasures::receive(&self.pool, key, &request).await?;
        self.live.refresh().await;
        let erasure_id = received.first().map_or(0, |received| received.erasure_id);
        let erasure = erasures::get(&self.pool, erasure_id).await?;
        Ok(Response::new(EraseUserResponse {
            erasure: erasure.map(Into::into),
        }))
    }

    async fn get_erasure(&self, request: Request<GetErasureRequest>) -> Result<Response<GetErasureResponse>, Status> {
        let id = convert::erasures::erasure_id(request.into_inner().erasure_id)?;
        let found = erasures::get(&self.pool, id).await?;
        Ok(Response::new(GetErasureResponse {
            erasure: Some(found.ok_or_else(|| convert::erasures::no_erasure(id))?.into()),
        }))
    }

    async fn list_erasures(
        &self,
        request: Request<ListErasuresRequest>,
    ) -> Result<Response<ListErasuresResponse>, Status> {
        let request = request.into_inner();
        let key = list_key(request.only_open);
        let list = NewestFirst::new(&key, request.page_size, &request.page_token)?;
        let rows = erasures::list(&self.pool, list.before, request.only_open, list.page_size + 1).await?;
        let (erasures, next_page_token) = page::cut(rows, list.page_size, &key, |row| row.id);
        Ok(Response::new(ListErasuresResponse {
            erasures,
            next_page_token,
        }))
    }
}
