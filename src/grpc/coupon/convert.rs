//! Converts the messages of CouponService, except those of its stream.

pub mod records;
mod request;

use std::sync::Arc;

use crate::app::eligibility::{Checked, CheckedCoupon, Listed, ListedCoupon};
use crate::grpc::convert::timestamp;
use crate::grpc::proto::v1;
use coupons::eligibility::{Code, Failure, Verdict};
use coupons::offer_catalog::Offer;
use domain::coupon::Discount;
use domain::money::Money;

pub use self::request::{check, confirm, list, release, reserve, rollback};

pub fn checked(checked: Checked) -> v1::CheckEligibilityResponse {
    v1::CheckEligibilityResponse {
        snapshot_version: checked.snapshot_version,
        coupons: checked.coupons.into_iter().map(eligibility).collect(),
        checked_at: Some(timestamp(checked.checked_at)),
    }
}

fn eligibility(checked: CheckedCoupon) -> v1::Eligibility {
    let assessment = checked.assessment;
    let offer = checked.offer.as_deref();
    v1::Eligibility {
        coupon_id: checked.coupon.to_string(),
        verdict: verdict(assessment.verdict).into(),
        reasons: assessment
            .failures
            .iter()
            .map(|failure| reason(failure, offer))
            .collect(),
        discount_minor: assessment.discount_minor,
        missing: match assessment.verdict {
            Verdict::Indeterminate => vec!["cart".to_owned()],
            Verdict::Eligible | Verdict::Ineligible => Vec::new(),
        },
    }
}

fn reason(failure: &Failure, offer: Option<&Offer>) -> v1::Reason {
    v1::Reason {
        code: code(failure.code()).into(),
        required: failure.required(offer),
        seen: failure.seen(),
    }
}

fn verdict(verdict: Verdict) -> v1::Verdict {
    match verdict {
        Verdict::Eligible => v1::Verdict::Eligible,
        Verdict::Ineligible => v1::Verdict::Ineligible,
        Verdict::Indeterminate => v1::Verdict::Indeterminate,
    }
}

pub fn code(code: Code) -> v1::ReasonCode {
    match code {
        Code::CouponUnknown => v1::ReasonCode::CouponUnknown,
        Code::CampaignDraft => v1::ReasonCode::CampaignDraft,
        Code::CampaignNotStarted => v1::ReasonCode::CampaignNotStarted,
        Code::CampaignEnded => v1::ReasonCode::CampaignEnded,
        Code::CampaignPaused => v1::ReasonCode::CampaignPaused,
        Code::BudgetExhausted => v1::ReasonCode::BudgetExhausted,
        Code::TotalCapReached => v1::ReasonCode::TotalCapReached,
        Code::UserCapReached => v1::ReasonCode::UserCapReached,
        Code::AlreadyRedeemed => v1::ReasonCode::AlreadyRedeemed,
        Code::NotAssigned => v1::ReasonCode::NotAssigned,
        Code::UserUnknown => v1::ReasonCode::UserUnknown,
        Code::RuleFailed => v1::ReasonCode::RuleFailed,
        Code::MinCartNotMet => v1::ReasonCode::MinCartNotMet,
        Code::NoQualifyingItem => v1::ReasonCode::NoQualifyingItem,
        Code::CurrencyMismatch => v1::ReasonCode::CurrencyMismatch,
        Code::ExclusiveConflict => v1::ReasonCode::ExclusiveConflict,
        Code::NoMarketingConsent => v1::ReasonCode::NoMarketingConsent,
        Code::ProfilingObjected => v1::ReasonCode::ProfilingObjected,
        Code::Suppressed => v1::ReasonCode::Suppressed,
        Code::FrequencyCapped => v1::ReasonCode::FrequencyCapped,
        Code::HeldOut => v1::ReasonCode::HeldOut,
        Code::AlreadyApplied => v1::ReasonCode::AlreadyApplied,
    }
}

pub fn listed(listed: Listed) -> v1::ListUserCouponsResponse {
    v1::ListUserCouponsResponse {
        snapshot_version: listed.snapshot_version,
        personalized: listed.personalized,
        logged: listed.is_logged,
        coupons: listed.coupons.into_iter().zip(1..).map(user_coupon).collect(),
    }
}

fn user_coupon((listed, rank): (ListedCoupon, u32)) -> v1::UserCoupon {
    let offer: &Arc<Offer> = &listed.offer;
    v1::UserCoupon {
        rank,
        verdict: verdict(listed.verdict).into(),
        score: listed.score,
        discount_minor: listed.discount_minor,
        ends_at: Some(timestamp(offer.campaign.window.ends_at)),
        coupon: Some(v1::user_coupon::Coupon {
            coupon_id: offer.coupon.id.to_string(),
            campaign_id: offer.campaign.id.to_string(),
            title: offer.coupon.title.clone(),
            currency_code: offer.campaign.currency.to_string(),
            offer: offer_text(offer),
            min_cart_minor: offer.coupon.min_cart_minor,
        }),
    }
}

fn offer_text(offer: &Offer) -> String {
    match offer.coupon.discount {
        Discount::Percent { basis_points } => format!("{} % off", f64::from(basis_points) / 100.0),
        Discount::Amount { amount_minor } => {
            let currency = offer.campaign.currency;
            format!("{} off", Money { amount_minor, currency })
        }
        Discount::FreeShipping => "free shipping".to_owned(),
    }
}
