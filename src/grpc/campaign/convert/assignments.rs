//! Converts the messages about assignments.

use tonic::Status;

use crate::grpc::convert::timestamp;
use crate::grpc::page;
use crate::grpc::proto::v1;
use crate::grpc::status::Violations;
use crate::store::coupons::assignments::{AssignedUser, Assigner, UnknownUsers};
use crate::store::coupons::loads::AssignmentLoad;
use domain::access::{Caller, Role};
use domain::error::InvalidField;
use domain::id::{CampaignId, UserId};

/// # Errors
/// The first bad field.
pub fn assignment(key: v1::AssignmentKey) -> Result<AssignmentLoad, InvalidField> {
    Ok(AssignmentLoad {
        campaign: CampaignId::new(key.campaign_id)?,
        user: UserId::new(key.user_id)?,
    })
}

/// Returns what `caller` may do with assignments. A marketer must not create users for all merchants.
pub fn assigner(caller: &Caller) -> Assigner<'_> {
    Assigner {
        actor: &caller.name,
        viewer: caller.merchant.as_ref(),
        unknown_users: match caller.role {
            Role::Marketer => UnknownUsers::Refuse,
            Role::Service | Role::Ingest | Role::Operator | Role::Admin => UnknownUsers::Create,
        },
    }
}

pub struct ListAssignments {
    pub campaign: CampaignId,
    pub user: Option<UserId>,
    pub after: String,
    pub page_size: i64,
}

impl ListAssignments {
    /// Returns what a page token is bound to.
    pub fn key(&self) -> (&'static str, &str, Option<&str>) {
        let user = self.user.as_ref().map(UserId::as_str);
        ("ListAssignments", self.campaign.as_str(), user)
    }
}

impl TryFrom<v1::ListAssignmentsRequest> for ListAssignments {
    type Error = Status;

    fn try_from(request: v1::ListAssignmentsRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let campaign = violations.check(CampaignId::new(request.campaign_id));
        let user = violations.check(request.user_id.map(UserId::asked).transpose());
        let page_size = violations.check(page::page_size(request.page_size));
        let Some(((campaign, user), page_size)) = campaign.zip(user).zip(page_size) else {
            return violations.finish(None);
        };
        let mut list = Self {
            campaign,
            user,
            after: String::new(),
            page_size,
        };
        let is_user = |id: &String| UserId::stored(id).is_ok();
        let after = violations.check(page::cursor(&list.key(), &request.page_token, is_user));
        list.after = after.flatten().unwrap_or_default();
        violations.finish(Some(list))
    }
}

impl From<AssignedUser> for v1::Assignment {
    fn from(assigned: AssignedUser) -> Self {
        Self {
            user_id: assigned.user.to_string(),
            assigned_at: Some(timestamp(assigned.assigned_at)),
        }
    }
}
