//! Converts lift reports.

use crate::app::lift::CampaignLift;
use crate::grpc::proto::v1;
use crate::store::coupons::lift::ArmOutcome;
use coupons::lift::{Interval, LiftVerdict};

pub fn lift_report(lift: CampaignLift) -> v1::GetLiftReportResponse {
    let report = lift.report;
    v1::GetLiftReportResponse {
        offered: Some(arm(&lift.offered)),
        held_out: Some(arm(&lift.held_out)),
        conversion_rate: report
            .rate_difference
            .map(|rate| difference(rate.difference, rate.interval)),
        revenue_per_user_minor: report
            .revenue_difference
            .map(|revenue| difference(revenue.difference_minor, revenue.interval_minor)),
        sample_ratio: report.sample_ratio.map(|ratio| v1::SampleRatio {
            expected_held_out_share: ratio.expected_held_out_share,
            held_out_share: ratio.held_out_share,
            p_value: ratio.p_value,
            mismatch: ratio.is_mismatch,
        }),
        verdict: match report.verdict {
            LiftVerdict::Positive => v1::LiftVerdict::Positive,
            LiftVerdict::Negative => v1::LiftVerdict::Negative,
            LiftVerdict::Inconclusive => v1::LiftVerdict::Inconclusive,
        }
        .into(),
        currency_code: lift.currency.to_string(),
    }
}

fn arm(outcome: &ArmOutcome) -> v1::LiftArm {
    v1::LiftArm {
        users: outcome.users as i64,
        converters: outcome.converters as i64,
        conversion_rate: match outcome.users {
            0 => 0.0,
            users => outcome.converters as f64 / users as f64,
        },
        revenue_minor: outcome.revenue_minor,
    }
}

fn difference(value: f64, interval: Interval) -> v1::Difference {
    v1::Difference {
        value,
        low: interval.low,
        high: interval.high,
    }
}
