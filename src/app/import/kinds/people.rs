//! Records about users: campaign assignments, attributes, consents and suppressions.

use super::super::columns::{ColumnError, Columns, Field};
use super::super::findings::Findings;
use super::values::{boolean, event_time, optional, text_line};
use super::{RecordKind, Rules, Written};
use crate::store::catalog::key_cache::KeyCache;
use crate::store::coupons::loads::{self, AssignmentLoad, AttributeLoad};
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use crate::store::privacy::{consents, suppressions};
use domain::consent::{ConsentDecision, Purpose};
use domain::error::InvalidField;
use domain::id::{CampaignId, UserId};
use domain::time::{EventTime, Timestamp};
use tabular::record::Record;

pub(in super::super) struct Assignments {
    campaign: Field<CampaignId>,
    user: Field<UserId>,
}

impl RecordKind for Assignments {
    type Value = AssignmentLoad;

    const FIELDS: &'static [&'static str] = &["campaign_id", "user_id"];

    const MAY_BE_REFUSED: bool = true;

    fn new(columns: &mut Columns, _: &Rules) -> Result<Self, ColumnError> {
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

    fn describe(value: &AssignmentLoad) -> String {
        format!("campaign_id={} user_id={}", value.campaign, value.user)
    }

    fn observe(value: &AssignmentLoad, findings: &mut Findings) {
        findings.users.add(value.user.as_str());
    }

    fn owner(value: &AssignmentLoad) -> &str {
        value.user.as_str()
    }

    async fn write(pool: &Pool, _: &KeyCache, values: &[AssignmentLoad]) -> Result<Written, StoreError> {
        Ok(Written::of(
            loads::assign(pool, values).await?,
            values
                .iter()
                .map(|value| (value.campaign.as_str(), value.user.as_str())),
        ))
    }
}

pub(in super::super) struct Attributes {
    user: Field<UserId>,
    name: Field<String>,
    value: Field<String>,
}

impl RecordKind for Attributes {
    type Value = AttributeLoad;

    const FIELDS: &'static [&'static str] = &["user_id", "name", "value"];

    fn new(columns: &mut Columns, _: &Rules) -> Result<Self, ColumnError> {
        let text = |field: &'static str| move |text: &str| text_line(field, text);
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

    fn describe(value: &AttributeLoad) -> String {
        format!("user_id={} name={} value={}", value.user, value.name, value.value)
    }

    fn observe(value: &AttributeLoad, findings: &mut Findings) {
        findings.users.add(value.user.as_str());
    }

    fn owner(value: &AttributeLoad) -> &str {
        value.user.as_str()
    }

    async fn write(pool: &Pool, _: &KeyCache, values: &[AttributeLoad]) -> Result<Written, StoreError> {
        Ok(Written::of(
            loads::set_attributes(pool, values).await?,
            values.iter().map(|value| (value.user.as_str(), value.name.as_str())),
        ))
    }
}

pub(in super::super) struct Consents {
    user: Field<UserId>,
    purpose: Field<Purpose>,
    granted: Field<bool>,
    decided_at: Option<Field<Timestamp>>,
    source: Option<Field<String>>,
    now: Timestamp,
}

impl RecordKind for Consents {
    type Value = ConsentDecision;

    const FIELDS: &'static [&'static str] = &["user_id", "purpose", "granted", "decided_at", "source"];

    fn new(columns: &mut Columns, rules: &Rules) -> Result<Self, ColumnError> {
        Ok(Self {
            user: columns.required("user_id", |id| UserId::new(id))?,
            purpose: columns.required("purpose", |text| text.parse())?,
            granted: columns.required("granted", |text| boolean("granted", text))?,
            decided_at: columns.optional("decided_at", event_time("decided_at", rules))?,
            source: columns.optional("source", |text| text_line("source", text))?,
            now: rules.now,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<ConsentDecision, InvalidField> {
        Ok(ConsentDecision {
            user: self.user.require(record)?,
            purpose: self.purpose.require(record)?,
            is_granted: self.granted.require(record)?,
            decided_at: match optional(&self.decided_at, record)? {
                Some(at) => EventTime::Given(at),
                None => EventTime::Received(self.now),
            },
            source: optional(&self.source, record)?.unwrap_or_default(),
        })
    }

    fn describe(value: &ConsentDecision) -> String {
        format!(
            "user_id={} purpose={} granted={} decided_at={} source={}",
            value.user,
            value.purpose.as_str(),
            value.is_granted,
            value.decided_at.at(),
            value.source
        )
    }

    fn observe(value: &ConsentDecision, findings: &mut Findings) {
        findings.users.add(value.user.as_str());
        findings.time(value.decided_at.at());
    }

    fn owner(value: &ConsentDecision) -> &str {
        value.user.as_str()
    }

    async fn write(pool: &Pool, _: &KeyCache, values: &[ConsentDecision]) -> Result<Written, StoreError> {
        Ok(Written::of(
            consents::set(pool, values).await?,
            values.iter().map(|value| (value.user.as_str(), value.purpose.as_str())),
        ))
    }
}

pub(in super::super) struct Suppressions {
    user: Field<UserId>,
    reason: Option<Field<String>>,
}

impl RecordKind for Suppressions {
    type Value = (UserId, String);

    const FIELDS: &'static [&'static str] = &["user_id", "reason"];

    fn new(columns: &mut Columns, _: &Rules) -> Result<Self, ColumnError> {
        Ok(Self {
            user: columns.required("user_id", |id| UserId::new(id))?,
            reason: columns.optional("reason", |text| text_line("reason", text))?,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<(UserId, String), InvalidField> {
        let user = self.user.require(record)?;
        Ok((user, optional(&self.reason, record)?.unwrap_or_default()))
    }

    fn describe((user, reason): &(UserId, String)) -> String {
        format!("user_id={user} reason={reason}")
    }

    fn observe((user, _): &(UserId, String), findings: &mut Findings) {
        findings.users.add(user.as_str());
    }

    fn owner((user, _): &(UserId, String)) -> &str {
        user.as_str()
    }

    async fn write(pool: &Pool, _: &KeyCache, values: &[(UserId, String)]) -> Result<Written, StoreError> {
        Ok(Written::of(
            suppressions::suppress(pool, values).await?,
            values.iter().map(|(user, _)| user.as_str()),
        ))
    }
}
