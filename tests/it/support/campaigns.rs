//! A client of CampaignService, and definitions of campaigns and coupons.

use std::sync::LazyLock;

use likemind::grpc::proto::v1::campaign_service_client::CampaignServiceClient;
use likemind::grpc::proto::v1::{
    Campaign, CampaignSpec, CampaignState, Coupon, CouponSpec, CreateCampaignRequest, CreateCouponRequest, Discount,
    GetCampaignRequest, GetCouponRequest, GetLiftReportRequest, GetLiftReportResponse, ItemSet, ListCampaignsRequest,
    ListCouponsRequest, Rule, Rules, Scope, SetCampaignStateRequest, UpdateCampaignRequest, UpdateCouponRequest,
    discount, rule, scope,
};
use prost_types::Timestamp;
use tonic::Status;

use super::api_keys::{KeyedChannel, WithKey};
use super::program::Server;
use super::times::seconds_now;

/// In seconds.
pub const DAY: i64 = 86_400;

/// Calls CampaignService.
#[derive(Clone)]
pub struct CampaignClient {
    pub rpc: CampaignServiceClient<KeyedChannel>,
}

impl CampaignClient {
    pub async fn of(server: &Server) -> Self {
        Self::with_key(server, None).await
    }

    pub async fn with_key(server: &Server, key: Option<&str>) -> Self {
        Self {
            rpc: CampaignServiceClient::with_interceptor(server.channel().await, WithKey::new(key)),
        }
    }

    pub async fn create(&self, campaign: CampaignSpec, state: CampaignState) -> Result<Campaign, Status> {
        let request = CreateCampaignRequest {
            campaign: Some(campaign),
            state: state.into(),
        };
        let answer = self.rpc.clone().create_campaign(request).await?;
        Ok(answer.into_inner().campaign.unwrap())
    }

    pub async fn update(&self, campaign: CampaignSpec) -> Result<Campaign, Status> {
        let request = UpdateCampaignRequest {
            campaign: Some(campaign),
            clear_budget_limit: false,
        };
        let answer = self.rpc.clone().update_campaign(request).await?;
        Ok(answer.into_inner().campaign.unwrap())
    }

    pub async fn get(&self, id: &str) -> Result<Campaign, Status> {
        let campaign_id = id.to_owned();
        let answer = self
            .rpc
            .clone()
            .get_campaign(GetCampaignRequest { campaign_id })
            .await?;
        Ok(answer.into_inner().campaign.unwrap())
    }

    pub async fn list(
        &self,
        merchant: Option<&str>,
        page_size: i32,
        page_token: String,
    ) -> Result<(Vec<String>, String), Status> {
        let request = ListCampaignsRequest {
            merchant_id: merchant.map(str::to_owned),
            page_size,
            page_token,
        };
        let answer = self.rpc.clone().list_campaigns(request).await?.into_inner();
        let ids = answer.campaigns.into_iter().map(|campaign| campaign.campaign_id);
        Ok((ids.collect(), answer.next_page_token))
    }

    pub async fn set_state(&self, id: &str, state: CampaignState) -> Result<Campaign, Status> {
        let request = SetCampaignStateRequest {
            campaign_id: id.to_owned(),
            state: state.into(),
        };
        let answer = self.rpc.clone().set_campaign_state(request).await?;
        Ok(answer.into_inner().campaign.unwrap())
    }

    pub async fn create_coupon(&self, coupon: CouponSpec) -> Result<Coupon, Status> {
        let request = CreateCouponRequest { coupon: Some(coupon) };
        let answer = self.rpc.clone().create_coupon(request).await?;
        Ok(answer.into_inner().coupon.unwrap())
    }

    pub async fn update_coupon(&self, coupon: CouponSpec) -> Result<Coupon, Status> {
        let request = UpdateCouponRequest {
            coupon: Some(coupon),
            ..UpdateCouponRequest::default()
        };
        let answer = self.rpc.clone().update_coupon(request).await?;
        Ok(answer.into_inner().coupon.unwrap())
    }

    pub async fn get_coupon(&self, id: &str) -> Result<Coupon, Status> {
        let coupon_id = id.to_owned();
        let answer = self.rpc.clone().get_coupon(GetCouponRequest { coupon_id }).await?;
        Ok(answer.into_inner().coupon.unwrap())
    }

    pub async fn list_coupons(
        &self,
        campaign: &str,
        page_size: i32,
        page_token: String,
    ) -> Result<(Vec<Coupon>, String), Status> {
        let request = ListCouponsRequest {
            campaign_id: campaign.to_owned(),
            page_size,
            page_token,
        };
        let answer = self.rpc.clone().list_coupons(request).await?.into_inner();
        Ok((answer.coupons, answer.next_page_token))
    }

    pub async fn lift(&self, campaign: &str) -> Result<GetLiftReportResponse, Status> {
        let campaign_id = campaign.to_owned();
        let answer = self
            .rpc
            .clone()
            .get_lift_report(GetLiftReportRequest { campaign_id })
            .await?;
        Ok(answer.into_inner())
    }
}

/// Returns a campaign from a day ago until a day from now. Every call of a run returns the same times, so that a repeated
/// request is the same.
pub fn a_campaign(id: &str) -> CampaignSpec {
    static STARTED: LazyLock<i64> = LazyLock::new(seconds_now);
    let from_now = |seconds| {
        Some(Timestamp {
            seconds: *STARTED + seconds,
            nanos: 0,
        })
    };
    CampaignSpec {
        campaign_id: id.to_owned(),
        starts_at: from_now(-DAY),
        ends_at: from_now(DAY),
        currency_code: Some("GBP".to_owned()),
        ..CampaignSpec::default()
    }
}

/// Returns a campaign from a day from now until two days from now.
pub fn tomorrows_campaign(id: &str) -> CampaignSpec {
    let campaign = a_campaign(id);
    let end = campaign.ends_at.unwrap();
    CampaignSpec {
        starts_at: Some(end),
        ends_at: Some(Timestamp {
            seconds: end.seconds + DAY,
            ..end
        }),
        ..campaign
    }
}

/// Returns a change of a campaign that changes nothing by itself.
pub fn campaign_change(id: &str) -> CampaignSpec {
    CampaignSpec {
        campaign_id: id.to_owned(),
        ..CampaignSpec::default()
    }
}

pub fn a_coupon(id: &str, campaign: &str) -> CouponSpec {
    CouponSpec {
        coupon_id: id.to_owned(),
        campaign_id: campaign.to_owned(),
        discount: off(discount::Kind::AmountMinor(100)),
        ..CouponSpec::default()
    }
}

/// Returns a change of a coupon that changes nothing by itself.
pub fn coupon_change(id: &str) -> CouponSpec {
    CouponSpec {
        coupon_id: id.to_owned(),
        ..CouponSpec::default()
    }
}

pub fn off(kind: discount::Kind) -> Option<Discount> {
    Some(Discount { kind: Some(kind) })
}

pub fn everything() -> Option<Scope> {
    Some(Scope {
        of: Some(scope::Of::Everything(true)),
    })
}

pub fn a_set(items: &[&str], categories: &[&str], merchants: &[&str]) -> ItemSet {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    ItemSet {
        item_ids: owned(items),
        categories: owned(categories),
        merchant_ids: owned(merchants),
    }
}

pub fn covering(set: ItemSet) -> Option<Scope> {
    Some(Scope {
        of: Some(scope::Of::Items(set)),
    })
}

pub fn rules(kinds: impl IntoIterator<Item = rule::Kind>) -> Option<Rules> {
    let rules = kinds.into_iter().map(|kind| Rule { kind: Some(kind) });
    Some(Rules { rules: rules.collect() })
}
