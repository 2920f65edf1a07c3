//! What concerns users: who is assigned to a campaign, and what they are like.

use super::super::columns::{ColumnError, Columns, Field};
use super::super::records::Record;
use super::{Rules, Subject};
use crate::domain::error::InvalidField;
use crate::domain::id::{CampaignId, UserId};
use crate::domain::item::check_text;
use crate::store::coupon_loads::{self, AssignmentLoad, AttributeLoad};
use crate::store::error::StoreError;
use crate::store::outcome::LoadOutcome;
use crate::store::pool::Pool;

pub(in super::super) struct Assignments {
    campaign: Field<CampaignId>,
    user: Field<UserId>,
}

impl Subject for Assignments {
    type Value = AssignmentLoad;

    const FIELDS: &'static [&'static str] = &["campaign_id", "user_id"];

    const MAY_BE_REFUSED: bool = true;

    fn new(columns: &Columns, _: &Rules) -> Result<Self, ColumnError> {
        Ok(Self {
            campaign: columns.required("campaign_id", |id| CampaignId::new(id))?,
            user: columns.required("user_id", |id| UserId::new(id))?,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<AssignmentLoad, InvalidField> {
        Ok(AssignmentLoad {
            campaign: self.campaign.require(record)?,
            user: self.user.require(record)?,
        })
    }

    fn owner(value: &AssignmentLoad) -> &str {
        value.user.as_str()
    }

    async fn write(pool: &Pool, values: &[AssignmentLoad]) -> Result<Vec<LoadOutcome>, StoreError> {
        coupon_loads::assign(pool, values).await
    }
}

pub(in super::super) struct Attributes {
    user: Field<UserId>,
    name: Field<String>,
    value: Field<String>,
}

impl Subject for Attributes {
    type Value = AttributeLoad;

    const FIELDS: &'static [&'static str] = &["user_id", "name", "value"];

    fn new(columns: &Columns, _: &Rules) -> Result<Self, ColumnError> {
        let text = |field: &'static str| move |text: &str| check_text(field, text.trim_ascii().to_owned());
        Ok(Self {
            user: columns.required("user_id", |id| UserId::new(id))?,
            name: columns.required("name", text("name"))?,
            value: columns.required("value", text("value"))?,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<AttributeLoad, InvalidField> {
        Ok(AttributeLoad {
            user: self.user.require(record)?,
            name: self.name.require(record)?,
            value: self.value.require(record)?,
        })
    }

    fn owner(value: &AttributeLoad) -> &str {
        value.user.as_str()
    }

    async fn write(pool: &Pool, values: &[AttributeLoad]) -> Result<Vec<LoadOutcome>, StoreError> {
        coupon_loads::set_attributes(pool, values).await
    }
}
