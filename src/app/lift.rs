//! Reports the lift of a campaign: offered users against held-out users.

use crate::store::coupons::campaigns;
use crate::store::coupons::lift::{ArmOutcome, outcomes};
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use coupons::lift::{Arm, LiftReport, Trial, lift};
use domain::id::{CampaignId, MerchantId};
use domain::money::Currency;

#[derive(Debug, Clone)]
pub struct CampaignLift {
    pub report: LiftReport,
    pub offered: ArmOutcome,
    pub held_out: ArmOutcome,
    pub currency: Currency,
}

/// Returns `None` for an unknown campaign. `viewer`: the only merchant whose campaigns are visible; `None` shows all.
pub async fn report(
    pool: &Pool,
    campaign: &CampaignId,
    viewer: Option<&MerchantId>,
) -> Result<Option<CampaignLift>, StoreError> {
    let Some(stored) = campaigns::get(pool, campaign, viewer).await? else {
        return Ok(None);
    };
    let (offered, held_out) = outcomes(pool, campaign).await?;
    let trial = Trial {
        treated: arm(&offered),
        held_out: arm(&held_out),
        holdout_basis_points: stored.campaign.holdout.basis_points,
    };
    Ok(Some(CampaignLift {
        report: lift(&trial),
        offered,
        held_out,
        currency: stored.campaign.currency,
    }))
}

fn arm(outcome: &ArmOutcome) -> Arm {
    Arm {
        users: outcome.users,
        converters: outcome.converters,
        revenue_minor: outcome.revenue_minor,
        revenue_minor_squared: outcome.revenue_minor_squared,
    }
}
