//! CouponService.

mod convert;
mod targets;

use tonic::{Request, Response, Status};

use crate::app::eligibility::EligibilityService;
use crate::app::redemption::new_redemption_id;
use crate::app::targets::Targets;
use crate::live::Live;
use crate::store::postgres::pool::Pool;
use crate::store::redemptions;
use coupons::eligibility::Policy;

use self::targets::TargetsStream;
use super::caller::{caller, stream_authorization};
use super::proto::v1::coupon_service_server::CouponService;
use super::proto::v1::{
    CheckEligibilityRequest, CheckEligibilityResponse, ConfirmRedemptionRequest, ConfirmRedemptionResponse,
    ListUserCouponsRequest, ListUserCouponsResponse, ReleaseReservationRequest, ReleaseReservationResponse,
    ReserveCouponRequest, ReserveCouponResponse, RollbackRedemptionRequest, RollbackRedemptionResponse,
    StreamCouponTargetsRequest,
};
use super::{cpu_pool, status};

pub struct CouponHandler {
    pub pool: Pool,
    pub live: Live,
    pub policy: Policy,
    pub eligibility: EligibilityService,
}

#[tonic::async_trait]
impl CouponService for CouponHandler {
    type StreamCouponTargetsStream = TargetsStream;

    async fn stream_coupon_targets(
        &self,
        request: Request<StreamCouponTargetsRequest>,
    ) -> Result<Response<TargetsStream>, Status> {
        let (caller, authorization) = (caller(&request)?, stream_authorization(&request)?);
        let (request, rows) = targets::convert::request(request.into_inner(), caller)?;
        let targets = Targets::open(&self.pool, &self.live, self.policy, request).await?;
        let rows = rows.build(targets.header());
        Ok(Response::new(targets::stream(targets, rows, authorization)))
    }

    async fn check_eligibility(
        &self,
        request: Request<CheckEligibilityRequest>,
    ) -> Result<Response<CheckEligibilityResponse>, Status> {
        let caller = caller(&request)?;
        let check = convert::check(request.into_inner(), caller)?;
        let case = self.eligibility.gather(&check).await?;
        let checked = cpu_pool::run(case.work(), move || case.check()).await?;
        Ok(Response::new(convert::checked(checked)))
    }

    async fn list_user_coupons(
        &self,
        request: Request<ListUserCouponsRequest>,
    ) -> Result<Response<ListUserCouponsResponse>, Status> {
        let caller = caller(&request)?;
        let list = convert::list(request.into_inner(), caller)?;
        let case = self.eligibility.gather(&list.check).await?;
        let listed = cpu_pool::run(case.work(), move || case.list(&list)).await?;
        self.eligibility.log_exposures(&listed).await?;
        Ok(Response::new(convert::listed(listed)))
    }

    async fn reserve_coupon(
        &self,
        request: Request<ReserveCouponRequest>,
    ) -> Result<Response<ReserveCouponResponse>, Status> {
        let caller = caller(&request)?;
        let reserve = convert::reserve(request.into_inner(), caller)?;
        let reservation = status::answer(self.eligibility.reserve(&reserve).await?)?;
        Ok(Response::new(ReserveCouponResponse {
            reservation: Some(convert::reservation(reservation)),
        }))
    }

    async fn confirm_redemption(
        &self,
        request: Request<ConfirmRedemptionRequest>,
    ) -> Result<Response<ConfirmRedemptionResponse>, Status> {
        let caller = caller(&request)?;
        let (request, confirmation) = convert::confirm(request.into_inner(), new_redemption_id()?, &caller)?;
        let redemption = redemptions::confirm(&self.pool, &request, &confirmation).await?;
        Ok(Response::new(ConfirmRedemptionResponse {
            redemption: Some(convert::redemption(status::answer(redemption)?)),
        }))
    }

    async fn release_reservation(
        &self,
        request: Request<ReleaseReservationRequest>,
    ) -> Result<Response<ReleaseReservationResponse>, Status> {
        let caller = caller(&request)?;
        let (request, reservation) = convert::release(request.into_inner(), &caller)?;
        let released = redemptions::release(&self.pool, &request, &reservation).await?;
        Ok(Response::new(ReleaseReservationResponse {
            released: status::answer(released)?,
        }))
    }

    async fn rollback_redemption(
        &self,
        request: Request<RollbackRedemptionRequest>,
    ) -> Result<Response<RollbackRedemptionResponse>, Status> {
        let caller = caller(&request)?;
        let (request, rollback) = convert::rollback(request.into_inner(), &caller)?;
        let redemption = redemptions::rollback(&self.pool, &request, &rollback).await?;
        Ok(Response::new(RollbackRedemptionResponse {
            redemption: Some(convert::redemption(status::answer(redemption)?)),
        }))
    }
}
