//! Compares the coupons of a file with the catalog, once all of it is stored.

use std::collections::BTreeSet;

use crate::app::coupon_warnings::{self, EMPTY_SCOPE};
use crate::store::coupons::stored;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use domain::id::CouponId;

/// The most coupons that are compared. Looking at one takes about a millisecond.
const MAX_COMPARED: usize = 20_000;
/// The most coupons that one warning names, and the most warnings about single coupons.
const MAX_NAMED: usize = 10;

/// The coupons that the lines of a file define or change.
#[derive(Debug, Default)]
pub(super) struct TouchedCoupons {
    ids: BTreeSet<CouponId>,
    /// Whether there were more.
    is_full: bool,
}

impl TouchedCoupons {
    pub fn add<'a>(&mut self, coupons: impl Iterator<Item = &'a CouponId>) {
        for coupon in coupons {
            match self.ids.len() < MAX_COMPARED {
                true => _ = self.ids.insert(coupon.clone()),
                false => self.is_full |= !self.ids.contains(coupon),
            }
        }
    }

    /// Returns sentences about the coupons that cover nothing, and about names in them that match nothing.
    pub async fn warnings(&self, pool: &Pool) -> Vec<String> {
        match self.compared(pool).await {
            Ok(warnings) => warnings,
            Err(error) => {
                tracing::warn!(%error, "the coupons could not be compared with the catalog");
                Vec::new()
            }
        }
    }

    async fn compared(&self, pool: &Pool) -> Result<Vec<String>, StoreError> {
        let (mut empty, mut unmatched) = (Vec::new(), Vec::new());
        for id in &self.ids {
            // A line that was refused may name a coupon that does not exist.
            let Some(stored) = stored::get(pool, id, None).await? else {
                continue;
            };
            for warning in coupon_warnings::warnings(&stored) {
                match warning.reason == EMPTY_SCOPE {
                    true => empty.push(id.as_str()),
                    false => unmatched.push(format!("coupon {id}, {}: {}", warning.field, warning.message)),
                }
            }
        }
        let mut sentences = Vec::new();
        if !empty.is_empty() {
            sentences.push(empty_scopes(&empty));
        }
        let more = unmatched.len().saturating_sub(MAX_NAMED);
        sentences.extend(unmatched.into_iter().take(MAX_NAMED));
        if more > 0 {
            sentences.push(format!("{more} more parts of coupons match nothing in the catalog"));
        }
        if self.is_full {
            sentences.push(format!(
                "only the first {MAX_COMPARED} coupons were compared with the catalog"
            ));
        }
        Ok(sentences)
    }
}

/// `coupons`: at least one.
fn empty_scopes(coupons: &[&str]) -> String {
    let named = coupons[..coupons.len().min(MAX_NAMED)].join(", ");
    let named = match coupons.len().saturating_sub(MAX_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    };
    match coupons.len() {
        1 => format!("coupon {named} covers no item, so it has no targets"),
        count => {
            format!("{count} coupons cover no item, so they have no targets: {named}")
        }
    }
}
