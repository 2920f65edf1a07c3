//! Converts the bias report of a campaign, and permissions for sensitive attributes.

use tonic::Status;

use crate::app::campaign_bias::CampaignBias;
use crate::grpc::proto::v1;
use crate::grpc::status::Violations;
use coupons::selection::{GroupSelection, RateRatio, Selection};
use domain::error::InvalidField;
use domain::id::CampaignId;
use domain::item::check_text;

pub struct AllowAttribute {
    pub campaign: CampaignId,
    pub attribute: String,
    pub reason: String,
}

impl TryFrom<v1::AllowSensitiveAttributeRequest> for AllowAttribute {
    type Error = Status;

    fn try_from(request: v1::AllowSensitiveAttributeRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let campaign = violations.check(CampaignId::new(request.campaign_id));
        let attribute = check_text("attribute", request.attribute).and_then(|name| match name.is_empty() {
            true => Err(InvalidField::new("attribute", "MISSING", "must be given")),
            false => Ok(name),
        });
        let attribute = violations.check(attribute);
        let reason = violations.check(check_text("reason", request.reason));
        let fields = campaign.zip(attribute).zip(reason);
        violations.finish(fields.map(|((campaign, attribute), reason)| Self {
            campaign,
            attribute,
            reason,
        }))
    }
}

pub fn bias_report(bias: CampaignBias) -> v1::GetCampaignBiasReportResponse {
    v1::GetCampaignBiasReportResponse {
        eligible: bias.eligible,
        targeted: bias.targeted,
        redeemed: bias.redeemed,
        attributes: bias.attributes.into_iter().map(Into::into).collect(),
    }
}

impl From<Selection> for v1::SelectionByAttribute {
    fn from(selection: Selection) -> Self {
        Self {
            attribute: selection.attribute,
            groups: selection.groups.into_iter().map(Into::into).collect(),
            hidden_users: selection.hidden_users,
            selection_rate: selection.selection_rate.map(Into::into),
            redemption_rate: selection.redemption_rate.map(Into::into),
        }
    }
}

impl From<GroupSelection> for v1::SelectionGroup {
    fn from(group: GroupSelection) -> Self {
        Self {
            value: group.value,
            eligible: group.eligible,
            targeted: group.targeted,
            redeemed: group.redeemed,
        }
    }
}

impl From<RateRatio> for v1::RateRatio {
    fn from(ratio: RateRatio) -> Self {
        Self {
            least: ratio.least,
            most: ratio.most,
            ratio: ratio.ratio,
            low: ratio.low,
            high: ratio.high,
        }
    }
}
