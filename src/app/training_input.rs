//! Reads what a model is trained on.

use std::sync::Arc;

use crate::store::coupons::attributes;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::changes::Watermark;
use crate::store::snapshots::training::sales::Sales;
use crate::store::snapshots::training::{self, PastCampaign};
use coupons::affinity::covered_by_any;
use coupons::offer_catalog::Offer;
use domain::consent::PrivacyOptions;
use recommender::evaluation::bias::shown::UserAttribute;
use recommender::training::input::{CampaignHistory, TrainingInput};

/// The data that a model is trained on, as of one moment.
pub struct Read {
    pub input: TrainingInput,
    pub sales: Sales,
    pub watermark: Watermark,
    /// The last erasure before that moment; 0 without any.
    pub erased_through: i64,
}

/// Reads everything as of one moment, and works out which items past campaigns covered, by the facts that the catalog has
/// of the items.
///
/// # Errors
/// [`StoreError`] when the database cannot be read.
pub async fn read(pool: &Pool, privacy: &PrivacyOptions) -> Result<Read, StoreError> {
    let data = training::read(pool, privacy).await?;
    let mut input = data.input;
    let histories = data.campaigns.into_iter().map(|past| history(past, &input));
    input.campaigns = histories.collect();
    Ok(Read {
        input,
        sales: data.sales,
        watermark: data.watermark,
        erased_through: data.erased_through,
    })
}

/// Reads the values of `names` that the users of `input` have now.
///
/// # Errors
/// [`StoreError`] when the database cannot be read.
pub async fn attributes(
    pool: &Pool,
    input: &TrainingInput,
    names: &[String],
) -> Result<Vec<UserAttribute>, StoreError> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let rows = attributes::values(pool, names).await?;
    let attribute = |name: &String| {
        let values = rows.iter().filter(|row| row.name == *name);
        UserAttribute {
            name: name.clone(),
            values: values
                .filter_map(|row| Some((input.users.find(&row.user)?, row.value.clone())))
                .collect(),
        }
    };
    Ok(names.iter().map(attribute).collect())
}

fn history(past: PastCampaign, input: &TrainingInput) -> CampaignHistory {
    let campaign = Arc::new(past.campaign);
    let offer = |coupon| Offer {
        coupon,
        campaign: campaign.clone(),
    };
    let offers: Vec<Offer> = past.coupons.into_iter().map(offer).collect();
    CampaignHistory {
        id: campaign.id.clone(),
        window: campaign.window,
        items: covered_by_any(&input.items, &input.catalog, &offers),
        recipients: past.recipients,
        redemptions: past.redemptions,
    }
}
