//! CampaignService.

mod convert;

use tonic::{Request, Response, Status};

use crate::app::random::random_bytes;
use crate::app::sensitive_attributes::SensitiveAttributes;
use crate::app::{campaign_bias, lift};
use crate::live::Live;
use crate::store::coupons;
use crate::store::coupons::campaigns::{self, Definer};
use crate::store::coupons::{assignments, sensitive, stored};
use crate::store::postgres::pool::Pool;
use domain::access::Caller;

use recommender::evaluation::bias::options::BiasOptions;

use self::convert::assignments::ListAssignments;
use self::convert::{AllowAttribute, ListCampaigns, ListCoupons};
use super::batch::{self, Batch};
use super::caller::caller;
use super::proto::v1::campaign_service_server::CampaignService;
use super::proto::v1::{
    AllowSensitiveAttributeRequest, AllowSensitiveAttributeResponse, CreateCampaignRequest, CreateCampaignResponse,
    CreateCouponRequest, CreateCouponResponse, DeleteAssignmentsRequest, DeleteAssignmentsResponse,
    GetCampaignBiasReportRequest, GetCampaignBiasReportResponse, GetCampaignRequest, GetCampaignResponse,
    GetCouponRequest, GetCouponResponse, GetLiftReportRequest, GetLiftReportResponse, ListAssignmentsRequest,
    ListAssignmentsResponse, ListCampaignsRequest, ListCampaignsResponse, ListCouponsRequest, ListCouponsResponse,
    SetCampaignStateRequest, SetCampaignStateResponse, UpdateCampaignRequest, UpdateCampaignResponse,
    UpdateCouponRequest, UpdateCouponResponse, UpsertAssignmentsRequest, UpsertAssignmentsResponse,
};
use super::{page, status};

pub struct CampaignHandler {
    pub pool: Pool,
    pub live: Live,
    pub sensitive: SensitiveAttributes,
    pub bias: BiasOptions,
}

#[tonic::async_trait]
impl CampaignService for CampaignHandler {
    async fn create_campaign(
        &self,
        request: Request<CreateCampaignRequest>,
    ) -> Result<Response<CreateCampaignResponse>, Status> {
        let caller = caller(&request)?;
        let campaign = convert::new_campaign(request.into_inner(), random_bytes()?, &caller)?;
        let stored = campaigns::create(&self.pool, &campaign, definer(&caller)).await?;
        self.live.publish_offer_catalog().await;
        Ok(Response::new(CreateCampaignResponse {
            campaign: Some(stored.into()),
        }))
    }

    async fn update_campaign(
        &self,
        request: Request<UpdateCampaignRequest>,
    ) -> Result<Response<UpdateCampaignResponse>, Status> {
        let caller = caller(&request)?;
        let patch = convert::campaign_patch(request.into_inner(), &caller)?;
        let stored = campaigns::update(&self.pool, &patch, definer(&caller)).await?;
        self.live.publish_offer_catalog().await;
        Ok(Response::new(UpdateCampaignResponse {
            campaign: Some(stored.into()),
        }))
    }

    async fn get_campaign(
        &self,
        request: Request<GetCampaignRequest>,
    ) -> Result<Response<GetCampaignResponse>, Status> {
        let caller = caller(&request)?;
        let id = convert::campaign_id(request.into_inner().campaign_id)?;
        let stored = campaigns::get(&self.pool, &id, caller.merchant.as_ref()).await?;
        let stored = stored.ok_or_else(|| status::no_campaign(&id))?;
        Ok(Response::new(GetCampaignResponse {
            campaign: Some(stored.into()),
        }))
    }

    async fn list_campaigns(
        &self,
        request: Request<ListCampaignsRequest>,
    ) -> Result<Response<ListCampaignsResponse>, Status> {
        let caller = caller(&request)?;
        let list = ListCampaigns::new(request.into_inner(), &caller)?;
        let rows = campaigns::list(&self.pool, list.merchant.as_ref(), &list.after, list.page_size + 1).await?;
        let (campaigns, next_page_token) =
            page::cut(rows, list.page_size, &list.key(), |row| row.campaign.id.to_string());
        Ok(Response::new(ListCampaignsResponse {
            campaigns,
            next_page_token,
        }))
    }

    async fn set_campaign_state(
        &self,
        request: Request<SetCampaignStateRequest>,
    ) -> Result<Response<SetCampaignStateResponse>, Status> {
        let caller = caller(&request)?;
        let (id, state) = convert::new_state(request.into_inner())?;
        let viewer = caller.merchant.as_ref();
        self.sensitive.check_state(&self.pool, &id, state, viewer).await?;
        let stored = campaigns::set_state(&self.pool, &id, state, caller.merchant.as_ref()).await?;
        self.live.publish_offer_catalog().await;
        Ok(Response::new(SetCampaignStateResponse {
            campaign: Some(stored.into()),
        }))
    }

    async fn create_coupon(
        &self,
        request: Request<CreateCouponRequest>,
    ) -> Result<Response<CreateCouponResponse>, Status> {
        let caller = caller(&request)?;
        let coupon = convert::new_coupon(request.into_inner(), &caller)?;
        let viewer = caller.merchant.as_ref();
        let checked = self
            .sensitive
            .check_rules(&self.pool, &coupon.campaign, &coupon.rules, viewer);
        checked.await?;
        let stored = coupons::create(&self.pool, &coupon, caller.merchant.as_ref()).await?;
        self.live.publish_offer_catalog().await;
        Ok(Response::new(CreateCouponResponse {
            warnings: convert::warnings(&stored),
            coupon: Some(stored.into()),
        }))
    }

    async fn update_coupon(
        &self,
        request: Request<UpdateCouponRequest>,
    ) -> Result<Response<UpdateCouponResponse>, Status> {
        let caller = caller(&request)?;
        let patch = convert::coupon_patch(request.into_inner(), &caller)?;
        self.sensitive
            .check_patch(&self.pool, &patch, caller.merchant.as_ref())
            .await?;
        let stored = coupons::update(&self.pool, &patch, caller.merchant.as_ref()).await?;
        self.live.publish_offer_catalog().await;
        Ok(Response::new(UpdateCouponResponse {
            warnings: convert::warnings(&stored),
            coupon: Some(stored.into()),
        }))
    }

    async fn get_coupon(&self, request: Request<GetCouponRequest>) -> Result<Response<GetCouponResponse>, Status> {
        let caller = caller(&request)?;
        let id = convert::coupon_id(request.into_inner().coupon_id)?;
        let stored = stored::get(&self.pool, &id, caller.merchant.as_ref()).await?;
        let stored = stored.ok_or_else(|| status::no_coupon(&id))?;
        Ok(Response::new(GetCouponResponse {
            warnings: convert::warnings(&stored),
            coupon: Some(stored.into()),
        }))
    }

    async fn list_coupons(
        &self,
        request: Request<ListCouponsRequest>,
    ) -> Result<Response<ListCouponsResponse>, Status> {
        let caller = caller(&request)?;
        let list = ListCoupons::try_from(request.into_inner())?;
        let campaign = campaigns::get(&self.pool, &list.campaign, caller.merchant.as_ref()).await?;
        campaign.ok_or_else(|| status::no_campaign(&list.campaign))?;
        let rows = stored::list(&self.pool, &list.campaign, &list.after, list.page_size + 1).await?;
        let (coupons, next_page_token) = page::cut(rows, list.page_size, &list.key(), |row| row.coupon.id.to_string());
        Ok(Response::new(ListCouponsResponse {
            coupons,
            next_page_token,
        }))
    }

    async fn get_lift_report(
        &self,
        request: Request<GetLiftReportRequest>,
    ) -> Result<Response<GetLiftReportResponse>, Status> {
        let caller = caller(&request)?;
        let id = convert::campaign_id(request.into_inner().campaign_id)?;
        let report = lift::report(&self.pool, &id, caller.merchant.as_ref()).await?;
        let report = report.ok_or_else(|| status::no_campaign(&id))?;
        Ok(Response::new(convert::lift_report(report)))
    }

    async fn upsert_assignments(
        &self,
        request: Request<UpsertAssignmentsRequest>,
    ) -> Result<Response<UpsertAssignmentsResponse>, Status> {
        let caller = caller(&request)?;
        let entries = request.into_inner().assignments;
        batch::check_size("assignments", entries.len())?;
        let results = Batch::convert(entries, convert::assignments::assignment)
            .write(async |entries| {
                assignments::assign(&self.pool, entries, convert::assignments::assigner(&caller)).await
            })
            .await?;
        Ok(Response::new(UpsertAssignmentsResponse { results }))
    }

    async fn delete_assignments(
        &self,
        request: Request<DeleteAssignmentsRequest>,
    ) -> Result<Response<DeleteAssignmentsResponse>, Status> {
        let caller = caller(&request)?;
        let entries = request.into_inner().assignments;
        batch::check_size("assignments", entries.len())?;
        let results = Batch::convert(entries, convert::assignments::assignment)
            .write(async |entries| {
                assignments::unassign(&self.pool, entries, convert::assignments::assigner(&caller)).await
            })
            .await?;
        Ok(Response::new(DeleteAssignmentsResponse { results }))
    }

    async fn list_assignments(
        &self,
        request: Request<ListAssignmentsRequest>,
    ) -> Result<Response<ListAssignmentsResponse>, Status> {
        let caller = caller(&request)?;
        let list = ListAssignments::try_from(request.into_inner())?;
        let campaign = campaigns::get(&self.pool, &list.campaign, caller.merchant.as_ref()).await?;
        campaign.ok_or_else(|| status::no_campaign(&list.campaign))?;
        let (user, limit) = (list.user.as_ref(), list.page_size + 1);
        let rows = assignments::list(&self.pool, &list.campaign, user, &list.after, limit).await?;
        let (assignments, next_page_token) = page::cut(rows, list.page_size, &list.key(), |row| row.user.to_string());
        Ok(Response::new(ListAssignmentsResponse {
            assignments,
            next_page_token,
        }))
    }

    async fn get_campaign_bias_report(
        &self,
        request: Request<GetCampaignBiasReportRequest>,
    ) -> Result<Response<GetCampaignBiasReportResponse>, Status> {
        let caller = caller(&request)?;
        let id = convert::campaign_id(request.into_inner().campaign_id)?;
        let report = campaign_bias::report(&self.pool, &self.live, &self.bias, &id, caller.merchant.as_ref());
        Ok(Response::new(convert::bias_report(report.await?)))
    }

    async fn allow_sensitive_attribute(
        &self,
        request: Request<AllowSensitiveAttributeRequest>,
    ) -> Result<Response<AllowSensitiveAttributeResponse>, Status> {
        let caller = caller(&request)?;
        let allow = AllowAttribute::try_from(request.into_inner())?;
        let AllowAttribute {
            campaign,
            attribute,
            reason,
        } = &allow;
        let is_known = sensitive::allow(&self.pool, campaign, attribute, &caller.name, reason).await?;
        match is_known {
            true => Ok(Response::new(AllowSensitiveAttributeResponse {})),
            false => Err(status::no_campaign(campaign)),
        }
    }
}

fn definer(caller: &Caller) -> Definer<'_> {
    Definer {
        actor: &caller.name,
        viewer: caller.merchant.as_ref(),
    }
}
