//! How often merchants are shown against what they offer and sell.

use super::Shop;
use super::report::{MerchantExposure, Merchants};
use crate::snapshot::catalog::NONE;

/// The most merchants that are reported.
const MAX_MERCHANTS: usize = 50;

/// Returns the shares of the merchants with a listed item. Items without a merchant count in no share.
pub(super) fn exposures(shop: &Shop, exposures: &[u64]) -> Merchants {
    let n_merchants = shop.catalog.merchants.len();
    let (mut shown, mut offered, mut sold) = (vec![0; n_merchants], vec![0; n_merchants], vec![0; n_merchants]);
    for (item, &merchant) in shop.catalog.merchant_of.iter().enumerate() {
        if merchant == NONE {
            continue;
        }
        let merchant = merchant as usize;
        shown[merchant] += exposures[item];
        offered[merchant] += u64::from(shop.catalog.listed.get(item));
        sold[merchant] += shop.orders[item];
    }
    let share = |counts: &[u64], merchant: usize| {
        let total: u64 = counts.iter().sum();
        (total > 0).then(|| counts[merchant] as f64 / total as f64)
    };
    let mut by_size: Vec<usize> = (0..n_merchants).filter(|&merchant| offered[merchant] > 0).collect();
    // Merchants stand in order of their ids, and the sort keeps equals in that order.
    by_size.sort_by_key(|&merchant| std::cmp::Reverse(offered[merchant]));
    let exposure = |&merchant: &usize| {
        let exposure_share = share(&shown, merchant).unwrap_or(0.0);
        let catalog_share = share(&offered, merchant).unwrap_or(0.0);
        let sales_share = share(&sold, merchant);
        MerchantExposure {
            merchant_id: shop.catalog.merchants.get(merchant).to_owned(),
            exposure_share,
            catalog_share,
            sales_share,
            exposure_per_catalog_share: exposure_share / catalog_share,
            exposure_per_sales_share: sales_share
                .filter(|&sales| sales > 0.0)
                .map(|sales| exposure_share / sales),
        }
    };
    Merchants {
        merchants: by_size.len() as u64,
        largest: by_size.iter().take(MAX_MERCHANTS).map(exposure).collect(),
    }
}
