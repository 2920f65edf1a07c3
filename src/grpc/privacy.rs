//! PrivacyService.

mod convert;

use chrono::Utc;
use tonic::{Request, Response, Status};

use crate::live::Live;
use crate::store::postgres::pool::Pool;
use crate::store::privacy::consents;
use domain::consent::PrivacyOptions;
use domain::id::UserId;

use self::convert::ConsentStatement;
use super::proto::v1::privacy_service_server::PrivacyService;
use super::proto::v1::{Consent, GetConsentRequest, GetConsentResponse, SetConsentRequest, SetConsentResponse};

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
}
