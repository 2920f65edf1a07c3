//! The definitions of all campaigns and coupons, by id.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use domain::campaign::Campaign;
use domain::coupon::Coupon;
use domain::id::{CampaignId, CouponId, MerchantId};

/// A coupon and its campaign.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    pub coupon: Coupon,
    pub campaign: Arc<Campaign>,
}

impl Offer {
    /// Returns the merchant who gives the coupon; `None` for the platform.
    pub fn merchant(&self) -> Option<&str> {
        self.campaign.merchant.as_ref().map(MerchantId::as_str)
    }
}

/// The definitions of campaigns and coupons that a server holds in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OfferCatalog {
    campaigns: HashMap<CampaignId, Arc<Campaign>>,
    offers: BTreeMap<CouponId, Arc<Offer>>,
}

impl OfferCatalog {
    /// Makes a catalog. Coupons of a campaign that is not among `campaigns` are left out.
    pub fn new(campaigns: Vec<Campaign>, coupons: Vec<Coupon>) -> Self {
        let campaigns: HashMap<_, _> = campaigns
            .into_iter()
            .map(|campaign| (campaign.id.clone(), Arc::new(campaign)))
            .collect();
        let offer = |coupon: Coupon| {
            let campaign = campaigns.get(&coupon.campaign)?.clone();
            Some((coupon.id.clone(), Arc::new(Offer { coupon, campaign })))
        };
        let offers = coupons.into_iter().filter_map(offer).collect();
        Self { campaigns, offers }
    }

    /// Returns all campaigns in no particular order.
    pub fn campaigns(&self) -> impl Iterator<Item = &Arc<Campaign>> {
        self.campaigns.values()
    }

    pub fn campaign(&self, id: &CampaignId) -> Option<&Arc<Campaign>> {
        self.campaigns.get(id)
    }

    pub fn offer(&self, id: &CouponId) -> Option<&Arc<Offer>> {
        self.offers.get(id)
    }

    /// Returns all offers in the order of the coupons' ids.
    pub fn offers(&self) -> impl Iterator<Item = &Arc<Offer>> {
        self.offers.values()
    }
}
