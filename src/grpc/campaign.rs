//! CampaignService.

use tonic::{Request, Response, Status};

use crate::live::Live;
use crate::store::pool::Pool;

use super::proto::v1::campaign_service_server::CampaignService;
use super::proto::v1::{
    CreateCampaignRequest, CreateCampaignResponse, CreateCouponRequest, CreateCouponResponse, GetCampaignRequest,
    GetCampaignResponse, GetCouponRequest, GetCouponResponse, GetLiftReportRequest, GetLiftReportResponse,
    ListCampaignsRequest, ListCampaignsResponse, ListCouponsRequest, ListCouponsResponse, SetCampaignStateRequest,
    SetCampaignStateResponse, UpdateCampaignRequest, UpdateCampaignResponse, UpdateCouponRequest, UpdateCouponResponse,
};

pub struct CampaignHandler {
    pub pool: Pool,
    pub live: Live,
}

#[tonic::async_trait]
impl CampaignService for CampaignHandler {
    async fn create_campaign(
        &self,
        _request: Request<CreateCampaignRequest>,
    ) -> Result<Response<CreateCampaignResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn update_campaign(
        &self,
        _request: Request<UpdateCampaignRequest>,
    ) -> Result<Response<UpdateCampaignResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_campaign(
        &self,
        _request: Request<GetCampaignRequest>,
    ) -> Result<Response<GetCampaignResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_campaigns(
        &self,
        _request: Request<ListCampaignsRequest>,
    ) -> Result<Response<ListCampaignsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn set_campaign_state(
        &self,
        _request: Request<SetCampaignStateRequest>,
    ) -> Result<Response<SetCampaignStateResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn create_coupon(
        &self,
        _request: Request<CreateCouponRequest>,
    ) -> Result<Response<CreateCouponResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn update_coupon(
        &self,
        _request: Request<UpdateCouponRequest>,
    ) -> Result<Response<UpdateCouponResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_coupon(&self, _request: Request<GetCouponRequest>) -> Result<Response<GetCouponResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_coupons(
        &self,
        _request: Request<ListCouponsRequest>,
    ) -> Result<Response<ListCouponsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_lift_report(
        &self,
        _request: Request<GetLiftReportRequest>,
    ) -> Result<Response<GetLiftReportResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
