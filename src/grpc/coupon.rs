//! CouponService.

mod convert;
mod targets;

use tokio::sync::OnceCell;
use tonic::{Request, Response, Status};

use crate::app::eligibility::EligibilityService;
use crate::app::redemption::new_redemption_id;
use crate::app::targets::Targets;
use crate::live::Live;
use crate::store::postgres::pool::Pool;
use crate::store::redemptions;
use crate::store::redemptions::records::{self, RecordCursor};
use crate::store::token_key::{self, KEY_BYTES};
use coupons::eligibility::Policy;

use self::convert::records::{ListRedemptions, ListReservations};
use self::targets::TargetsStream;
use super::caller::{caller, ends, stream_authorization};
use super::proto::v1::coupon_service_server::CouponService;
use super::proto::v1::{
    CheckEligibilityRequest, CheckEligibilityResponse, ConfirmRedemptionRequest, ConfirmRedemptionResponse,
    GetRedemptionRequest, GetRedemptionResponse, GetReservationRequest, GetReservationResponse, ListRedemptionsRequest,
    ListRedemptionsResponse, ListReservationsRequest, ListReservationsResponse, ListUserCouponsRequest,
    ListUserCouponsResponse, ReleaseReservationRequest, ReleaseReservationResponse, ReserveCouponRequest,
    ReserveCouponResponse, RollbackRedemptionRequest, RollbackRedemptionResponse, StreamCouponTargetsRequest,
};
use super::{cpu_pool, page, status};

pub struct CouponHandler {
    pub pool: Pool,
    pub live: Live,
    pub policy: Policy,
    pub eligibility: EligibilityService,
    /// Authenticates page tokens. Read at the first use, as a server starts without a database too.
    pub token_secret: OnceCell<[u8; KEY_BYTES]>,
}

#[tonic::async_trait]
impl CouponService for CouponHandler {
    type StreamCouponTargetsStream = TargetsStream;

    async fn stream_coupon_targets(
        &self,
        request: Request<StreamCouponTargetsRequest>,
    ) -> Result<Response<TargetsStream>, Status> {
        let (caller, authorization) = (caller(&request)?, stream_authorization(&request)?);
        let ends = ends(&request);
        let secret = self
            .token_secret
            .get_or_try_init(|| token_key::read(&self.pool))
            .await?;
        let (request, rows) = targets::convert::request(request.into_inner(), caller, *secret)?;
        let targets = Targets::open(&self.pool, &self.live, self.policy, request).await?;
        let rows = rows.build(targets.header());
        Ok(Response::new(targets::stream(targets, rows, authorization, ends)))
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
            reservation: Some(reservation.into()),
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
            redemption: Some(status::answer(redemption)?.into()),
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
            redemption: Some(status::answer(redemption)?.into()),
        }))
    }

    async fn get_reservation(
        &self,
        request: Request<GetReservationRequest>,
    ) -> Result<Response<GetReservationResponse>, Status> {
        let caller = caller(&request)?;
        let id = convert::records::reservation_id(request.into_inner().reservation_id)?;
        let found = records::reservation(&self.pool, &id, caller.merchant.as_ref()).await?;
        let unknown = || status::not_found("RESERVATION_NOT_FOUND", format!("there is no reservation {id}"));
        Ok(Response::new(GetReservationResponse {
            reservation: Some(found.ok_or_else(unknown)?.into()),
        }))
    }

    async fn list_reservations(
        &self,
        request: Request<ListReservationsRequest>,
    ) -> Result<Response<ListReservationsResponse>, Status> {
        let caller = caller(&request)?;
        let list = ListReservations::new(request.into_inner(), &caller)?;
        let (cursor, limit) = (list.cursor.as_ref(), list.page_size + 1);
        let rows = records::reservations(&self.pool, &list.filter, &list.states, cursor, limit).await?;
        let (reservations, next_page_token) = page::cut(rows, list.page_size, &list.key(), |row| RecordCursor {
            at: row.reservation.reserved_at,
            id: row.reservation.id.to_string(),
        });
        Ok(Response::new(ListReservationsResponse {
            reservations,
            next_page_token,
        }))
    }

    async fn get_redemption(
        &self,
        request: Request<GetRedemptionRequest>,
    ) -> Result<Response<GetRedemptionResponse>, Status> {
        let caller = caller(&request)?;
        let id = convert::records::redemption_id(request.into_inner().redemption_id)?;
        let found = records::redemption(&self.pool, &id, caller.merchant.as_ref()).await?;
        let unknown = || status::not_found("REDEMPTION_NOT_FOUND", format!("there is no redemption {id}"));
        Ok(Response::new(GetRedemptionResponse {
            redemption: Some(found.ok_or_else(unknown)?.into()),
        }))
    }

    async fn list_redemptions(
        &self,
        request: Request<ListRedemptionsRequest>,
    ) -> Result<Response<ListRedemptionsResponse>, Status> {
        let caller = caller(&request)?;
        let list = ListRedemptions::new(request.into_inner(), &caller)?;
        let rows = records::redemptions(
            &self.pool,
            &list.filter,
            list.order.as_ref(),
            &list.statuses,
            list.cursor.as_ref(),
            list.page_size + 1,
        )
        .await?;
        let (redemptions, next_page_token) = page::cut(rows, list.page_size, &list.key(), |row| RecordCursor {
            at: row.redeemed_at,
            id: row.id.to_string(),
        });
        Ok(Response::new(ListRedemptionsResponse {
            redemptions,
            next_page_token,
        }))
    }
}
