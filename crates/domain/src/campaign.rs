//! Campaigns: the times in which a merchant or the platform gives coupons, and to whom.

use std::fmt;
use std::str::FromStr;

use super::error::InvalidField;
use super::id::{CampaignId, MerchantId};
use super::money::Currency;
use super::time::Timestamp;

/// The definition of a campaign. What is reserved and spent of its budget is counted elsewhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Campaign {
    pub id: CampaignId,
    /// `None` for a campaign of the platform.
    pub merchant: Option<MerchantId>,
    pub name: String,
    pub state: CampaignState,
    pub window: Window,
    /// The currency of the budget, of the coupons' amounts and of the carts that they are used in.
    pub currency: Currency,
    /// `None` for no limit.
    pub budget_limit_minor: Option<i64>,
    /// Coupons of campaigns with a higher priority come first.
    pub priority: i32,
    /// Whether its coupons cannot be used together with coupons of other campaigns.
    pub is_exclusive: bool,
    pub audience: Audience,
    pub holdout: Holdout,
    /// The part of a user's history that the rules of its coupons see.
    pub history_scope: HistoryScope,
}

/// The state of a campaign: `DRAFT → SCHEDULED → ACTIVE ⇄ PAUSED → ENDED`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CampaignState {
    /// It is being made, and no user sees it.
    Draft,
    /// It becomes active by itself when its window begins.
    Scheduled,
    Active,
    Paused,
    /// It has ended for good.
    Ended,
}

impl CampaignState {
    pub const ALL: [Self; 5] = [Self::Draft, Self::Scheduled, Self::Active, Self::Paused, Self::Ended];

    /// Returns the name in storage and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Scheduled => "scheduled",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Ended => "ended",
        }
    }

    /// Returns whether a campaign in this state may be put into `next`.
    pub fn may_become(self, next: Self) -> bool {
        match (self, next) {
            (Self::Draft, Self::Scheduled | Self::Active) => true,
            (Self::Scheduled, Self::Draft | Self::Active | Self::Paused) => true,
            (Self::Active, Self::Paused) | (Self::Paused, Self::Active) => true,
            (Self::Ended, _) => false,
            (_, Self::Ended) => true,
            (from, to) => from == to,
        }
    }
}

impl fmt::Display for CampaignState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for CampaignState {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| {
                let states = Self::ALL.map(Self::as_str).join(", ");
                InvalidField::new("state", "UNKNOWN_STATE", format!("must be one of {states}, is {text}"))
            })
    }
}

/// The users whom a campaign is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Audience {
    Everybody,
    /// Users who were assigned to the campaign. Each of them may use each of its coupons once.
    Assigned,
}

impl Audience {
    /// Returns the name in storage and files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Everybody => "all",
            Self::Assigned => "assigned",
        }
    }
}

impl FromStr for Audience {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        match text {
            "all" => Ok(Self::Everybody),
            "assigned" => Ok(Self::Assigned),
            _ => Err(InvalidField::new(
                "audience",
                "UNKNOWN_AUDIENCE",
                format!("must be all or assigned, is {text}"),
            )),
        }
    }
}

/// The part of a user's history that the rules of a campaign's coupons see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HistoryScope {
    /// Ratings and orders of the items of the campaign's merchant. In a campaign of the platform, of all items.
    #[default]
    OwnMerchant,
    /// Ratings and orders of all items. Only an operator grants this to a merchant's campaign.
    Platform,
}

impl HistoryScope {
    /// Returns the name in storage.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OwnMerchant => "own",
            Self::Platform => "platform",
        }
    }
}

impl FromStr for HistoryScope {
    type Err = InvalidField;

    fn from_str(text: &str) -> Result<Self, InvalidField> {
        match text {
            "own" => Ok(Self::OwnMerchant),
            "platform" => Ok(Self::Platform),
            _ => Err(InvalidField::new(
                "history_scope",
                "UNKNOWN_HISTORY_SCOPE",
                format!("must be own or platform, is {text}"),
            )),
        }
    }
}

/// The time of a campaign: from `starts_at` until just before `ends_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub starts_at: Timestamp,
    pub ends_at: Timestamp,
}

impl Window {
    /// Makes a window that is not empty.
    ///
    /// # Errors
    /// `WINDOW_EMPTY`, naming `ends_at`.
    pub fn new(starts_at: Timestamp, ends_at: Timestamp) -> Result<Self, InvalidField> {
        if starts_at >= ends_at {
            return Err(InvalidField::new(
                "ends_at",
                "WINDOW_EMPTY",
                format!("must be after starts_at ({starts_at}), is {ends_at}"),
            ));
        }
        Ok(Self { starts_at, ends_at })
    }
}

/// The control group of a campaign: users of its audience who never get its coupons, so that its effect can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdout {
    /// The share of the audience in the control group, 0 to 10 000.
    pub basis_points: u16,
    /// Makes the control groups of different campaigns independent of each other.
    pub salt: [u8; 16],
}

/// A change of a campaign. A field that is `None` keeps what is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct CampaignPatch {
    pub id: CampaignId,
    pub name: Option<String>,
    pub starts_at: Option<Timestamp>,
    pub ends_at: Option<Timestamp>,
    /// `Some(None)` removes the limit.
    pub budget_limit_minor: Option<Option<i64>>,
    pub priority: Option<i32>,
    pub is_exclusive: Option<bool>,
    /// Can be changed in a draft only.
    pub audience: Option<Audience>,
    /// Can be changed in a draft only.
    pub holdout_basis_points: Option<u16>,
    pub history_scope: Option<HistoryScope>,
}

impl CampaignPatch {
    /// Returns `campaign` with the changes.
    ///
    /// # Errors
    /// `WINDOW_EMPTY`, naming `ends_at`, if the changed window is empty.
    pub fn apply(&self, campaign: &Campaign) -> Result<Campaign, InvalidField> {
        let window = &campaign.window;
        Ok(Campaign {
            name: self.name.clone().unwrap_or_else(|| campaign.name.clone()),
            window: Window::new(
                self.starts_at.unwrap_or(window.starts_at),
                self.ends_at.unwrap_or(window.ends_at),
            )?,
            budget_limit_minor: self.budget_limit_minor.unwrap_or(campaign.budget_limit_minor),
            priority: self.priority.unwrap_or(campaign.priority),
            is_exclusive: self.is_exclusive.unwrap_or(campaign.is_exclusive),
            audience: self.audience.unwrap_or(campaign.audience),
            holdout: Holdout {
                basis_points: self.holdout_basis_points.unwrap_or(campaign.holdout.basis_points),
                ..campaign.holdout
            },
            history_scope: self.history_scope.unwrap_or(campaign.history_scope),
            ..campaign.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allowed_state_changes_pass() {
        use CampaignState::{Active, Draft, Ended, Paused, Scheduled};
        let allowed = [
            (Draft, Scheduled),
            (Draft, Active),
            (Draft, Ended),
            (Scheduled, Draft),
            (Scheduled, Active),
            (Scheduled, Paused),
            (Scheduled, Ended),
            (Active, Paused),
            (Active, Ended),
            (Paused, Active),
            (Paused, Ended),
        ];
        for from in CampaignState::ALL {
            for to in CampaignState::ALL {
                let expected = allowed.contains(&(from, to)) || (from == to && from != Ended);
                assert_eq!(from.may_become(to), expected, "{from} to {to}");
                assert_eq!(from.as_str().parse(), Ok(from));
            }
        }
    }
}
