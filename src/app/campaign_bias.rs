//! Reports how groups of users were selected by a campaign.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::Utc;

use crate::live::{Live, ServingStatus};
use crate::store::coupons::{attributes, campaigns, selection};
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use coupons::offer_catalog::Offer;
use coupons::selection::{SelectedUsers, Selection, compare, eligible};
use domain::coupon::Rule;
use domain::id::{CampaignId, MerchantId};
use recommender::evaluation::bias::options::BiasOptions;

#[derive(Debug, Clone, PartialEq)]
pub struct CampaignBias {
    /// The users who are eligible now, or were targeted before.
    pub eligible: u64,
    pub targeted: u64,
    pub redeemed: u64,
    /// One for each attribute of the configuration.
    pub attributes: Vec<Selection>,
}

#[derive(Debug, thiserror::Error)]
pub enum CampaignBiasError {
    #[error("there is no campaign {0}")]
    UnknownCampaign(CampaignId),
    #[error("no snapshot is loaded")]
    NoSnapshot(Arc<ServingStatus>),
    #[error("comparing the users ended with a panic")]
    Panicked,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// `viewer`: the only merchant whose campaigns are visible; `None` shows all.
pub async fn report(
    pool: &Pool,
    live: &Live,
    options: &BiasOptions,
    campaign: &CampaignId,
    viewer: Option<&MerchantId>,
) -> Result<CampaignBias, CampaignBiasError> {
    if campaigns::get(pool, campaign, viewer).await?.is_none() {
        return Err(CampaignBiasError::UnknownCampaign(campaign.clone()));
    }
    live.refresh_offer_catalog().await?;
    live.refresh().await;
    let view = live
        .view()
        .ok_or_else(|| CampaignBiasError::NoSnapshot(live.status()))?;
    let offer_catalog = live.offer_catalog();
    let offers = offer_catalog.offers().filter(|offer| offer.campaign.id == *campaign);
    let offers: Vec<Arc<Offer>> = offers.cloned().collect();

    let users = selection::users(pool, campaign).await?;
    let rule_attributes = by_user(attributes::values(pool, &named_attributes(&offers)).await?);
    let compared = values_by_attribute(attributes::values(pool, &options.attributes).await?);
    let (names, min_group) = (options.attributes.clone(), options.min_group);
    let compute = move || {
        let offers: Vec<&Offer> = offers.iter().map(Arc::as_ref).collect();
        let all = users.all.iter().map(String::as_str);
        let selected = SelectedUsers {
            eligible: eligible(all, &offers, &rule_attributes, &view, Utc::now()),
            targeted: users.targeted,
            redeemed: users.redeemed,
        };
        let nobody = HashMap::new();
        let attribute = |name: &String| compare(name, compared.get(name).unwrap_or(&nobody), &selected, min_group);
        CampaignBias {
            eligible: selected.eligible.union(&selected.targeted).count() as u64,
            targeted: selected.targeted.len() as u64,
            redeemed: selected.redeemed.len() as u64,
            attributes: names.iter().map(attribute).collect(),
        }
    };
    let computed = tokio::task::spawn_blocking(compute).await;
    computed.map_err(|_| CampaignBiasError::Panicked)
}

/// Returns the attributes that rules of `offers` ask for, each once.
fn named_attributes(offers: &[Arc<Offer>]) -> Vec<String> {
    let rules = offers.iter().flat_map(|offer| &offer.coupon.rules);
    let names = rules.filter_map(|rule| match rule {
        Rule::Attribute { name, .. } => Some(name.clone()),
        _ => None,
    });
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Returns names and values by user, ascending by name.
fn by_user(rows: Vec<attributes::AttributeValue>) -> HashMap<String, Vec<(String, String)>> {
    let mut by_user: HashMap<String, Vec<(String, String)>> = HashMap::new();
    for row in rows {
        by_user.entry(row.user).or_default().push((row.name, row.value));
    }
    by_user.values_mut().for_each(|own| own.sort_unstable());
    by_user
}

/// Returns the users' values by attribute and user.
fn values_by_attribute(rows: Vec<attributes::AttributeValue>) -> HashMap<String, HashMap<String, String>> {
    let mut values: HashMap<String, HashMap<String, String>> = HashMap::new();
    for row in rows {
        values.entry(row.name).or_default().insert(row.user, row.value);
    }
    values
}
