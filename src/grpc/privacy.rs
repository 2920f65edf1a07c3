//! PrivacyService.

use tonic::{Request, Response, Status};

use crate::live::Live;
use crate::store::pool::Pool;

use super::proto::v1::privacy_service_server::PrivacyService;
use super::proto::v1::{GetConsentRequest, GetConsentResponse, SetConsentRequest, SetConsentResponse};

pub struct PrivacyHandler {
    pub pool: Pool,
    pub live: Live,
}

#[tonic::async_trait]
impl PrivacyService for PrivacyHandler {
    async fn set_consent(&self, _request: Request<SetConsentRequest>) -> Result<Response<SetConsentResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_consent(&self, _request: Request<GetConsentRequest>) -> Result<Response<GetConsentResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
