//! CouponService.

mod targets;

use tonic::{Request, Response, Status};

use crate::app::targets::Targets;
use crate::coupon::eligibility::Policy;
use crate::live::Live;
use crate::store::pool::Pool;

use self::targets::TargetsStream;
use super::access::{caller, pass};
use super::proto::v1::coupon_service_server::CouponService;
use super::proto::v1::{
    CheckEligibilityRequest, CheckEligibilityResponse, ConfirmRedemptionRequest, ConfirmRedemptionResponse,
    ListUserCouponsRequest, ListUserCouponsResponse, ReleaseReservationRequest, ReleaseReservationResponse,
    ReserveCouponRequest, ReserveCouponResponse, RollbackRedemptionRequest, RollbackRedemptionResponse,
    StreamCouponTargetsRequest,
};

pub struct CouponHandler {
    pub pool: Pool,
    pub live: Live,
    pub policy: Policy,
}

#[tonic::async_trait]
impl CouponService for CouponHandler {
    type StreamCouponTargetsStream = TargetsStream;

    async fn stream_coupon_targets(
        &self,
        request: Request<StreamCouponTargetsRequest>,
    ) -> Result<Response<TargetsStream>, Status> {
        let (caller, pass) = (caller(&request)?, pass(&request)?);
        let (request, rows) = targets::convert::request(request.into_inner(), caller)?;
        let targets = Targets::open(&self.pool, &self.live, self.policy, request).await?;
        let rows = rows.of(targets.header());
        Ok(Response::new(targets::stream(targets, rows, pass)))
    }

    async fn check_eligibility(
        &self,
        _request: Request<CheckEligibilityRequest>,
    ) -> Result<Response<CheckEligibilityResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_user_coupons(
        &self,
        _request: Request<ListUserCouponsRequest>,
    ) -> Result<Response<ListUserCouponsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn reserve_coupon(
        &self,
        _request: Request<ReserveCouponRequest>,
    ) -> Result<Response<ReserveCouponResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn confirm_redemption(
        &self,
        _request: Request<ConfirmRedemptionRequest>,
    ) -> Result<Response<ConfirmRedemptionResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn release_reservation(
        &self,
        _request: Request<ReleaseReservationRequest>,
    ) -> Result<Response<ReleaseReservationResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn rollback_redemption(
        &self,
        _request: Request<RollbackRedemptionRequest>,
    ) -> Result<Response<RollbackRedemptionResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
