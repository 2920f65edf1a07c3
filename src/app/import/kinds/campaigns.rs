//! Campaigns.

use std::sync::Arc;

use super::super::columns::{ColumnError, Columns, Field};
use super::super::findings::Findings;
use super::super::numbers::NumberFormat;
use super::super::times::TimeFormats;
use super::values::{Amount, Unit, boolean, currency, instant, integer, optional, shown, text_line};
use super::{RecordKind, Rules, Written};
use crate::store::catalog;
use crate::store::catalog::key_cache::KeyCache;
use crate::store::coupons::loads::{self, CampaignLoad};
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use domain::campaign::{Audience, CampaignState, Window};
use domain::coupon::MAX_BASIS_POINTS;
use domain::error::InvalidField;
use domain::id::{CampaignId, MerchantId};
use domain::money::{Currency, Money};
use domain::time::Timestamp;
use tabular::record::Record;

pub(in super::super) struct Campaigns {
    campaign: Field<CampaignId>,
    merchant: Option<Field<MerchantId>>,
    name: Option<Field<String>>,
    state: Option<Field<CampaignState>>,
    starts_at: Field<Timestamp>,
    end: End,
    currency: Field<Currency>,
    budget: Option<Amount>,
    priority: Option<Field<i32>>,
    exclusive: Option<Field<bool>>,
    audience: Option<Field<Audience>>,
    holdout_basis_points: Option<Field<u16>>,
    now: Timestamp,
}

/// The field that says when a campaign ends.
enum End {
    /// The first instant after the campaign.
    At(Field<Timestamp>),
    /// The last day of the campaign, in the time zone of the file.
    On(Field<Timestamp>, Arc<TimeFormats>),
}

impl End {
    fn read(&self, record: &Record<'_>) -> Result<Timestamp, InvalidField> {
        match self {
            Self::At(at) => at.require(record),
            Self::On(day, times) => Ok(times.day_after(day.require(record)?)),
        }
    }
}

fn holdout_basis_points(numbers: NumberFormat, text: &str) -> Result<u16, InvalidField> {
    const FIELD: &str = "holdout_basis_points";
    match u16::try_from(integer(numbers, FIELD, text)?) {
        Ok(points @ 0..=MAX_BASIS_POINTS) => Ok(points),
        _ => {
            let message = format!("must lie between 0 and {MAX_BASIS_POINTS}, is {text:?}");
            Err(InvalidField::new(FIELD, "OUT_OF_RANGE", message))
        }
    }
}

impl RecordKind for Campaigns {
    type Value = CampaignLoad;

    const FIELDS: &'static [&'static str] = &[
        "campaign_id",
        "merchant_id",
        "name",
        "state",
        "starts_at",
        "ends_at",
        "ends_on",
        "currency",
        "budget",
        "budget_minor",
        "priority",
        "exclusive",
        "audience",
        "holdout_basis_points",
    ];

    const MAY_BE_REFUSED: bool = true;

    fn new(columns: &mut Columns, rules: &Rules) -> Result<Self, ColumnError> {
        const ENDS: [&str; 2] = ["ends_at", "ends_on"];
        let numbers = rules.numbers;
        let end = match columns.one_of(&ENDS)? {
            Some("ends_on") => {
                let day = columns.required("ends_on", instant("ends_on", rules))?;
                End::On(day, rules.times.clone())
            }
            Some(_) => End::At(columns.required("ends_at", instant("ends_at", rules))?),
            None => return Err(columns.missing(&ENDS)),
        };
        Ok(Self {
            campaign: columns.required("campaign_id", |id| CampaignId::new(id))?,
            merchant: columns.optional("merchant_id", |id| MerchantId::new(id))?,
            name: columns.optional("name", |text| text_line("name", text))?,
            state: columns.optional("state", |text| text.parse())?,
            starts_at: columns.required("starts_at", instant("starts_at", rules))?,
            end,
            currency: columns.required("currency", currency)?,
            budget: Amount::new(
                columns,
                numbers,
                &[("budget_minor", Unit::Minor), ("budget", Unit::Major)],
            )?,
            priority: columns.optional("priority", move |text| integer(numbers, "priority", text))?,
            exclusive: columns.optional("exclusive", |text| boolean("exclusive", text))?,
            audience: columns.optional("audience", |text| text.parse())?,
            holdout_basis_points: columns
                .optional("holdout_basis_points", move |text| holdout_basis_points(numbers, text))?,
            now: rules.now,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<CampaignLoad, InvalidField> {
        let id = self.campaign.require(record)?;
        let window = Window::new(self.starts_at.require(record)?, self.end.read(record)?)?;
        let currency = self.currency.require(record)?;
        Ok(CampaignLoad {
            id,
            merchant: optional(&self.merchant, record)?,
            name: optional(&self.name, record)?,
            state: optional(&self.state, record)?,
            default_state: match window.ends_at <= self.now {
                true => CampaignState::Ended,
                false => CampaignState::Draft,
            },
            window,
            currency,
            budget_limit_minor: self.budget_limit_minor(record, currency)?,
            priority: optional(&self.priority, record)?,
            is_exclusive: optional(&self.exclusive, record)?,
            audience: optional(&self.audience, record)?,
            holdout_basis_points: optional(&self.holdout_basis_points, record)?,
        })
    }

    fn describe(value: &CampaignLoad) -> String {
        format!(
            "campaign_id={} merchant_id={} name={} state={} starts_at={} ends_at={} currency={} budget_minor={}",
            value.id,
            shown(&value.merchant),
            shown(&value.name),
            value.state.unwrap_or(value.default_state).as_str(),
            value.window.starts_at,
            value.window.ends_at,
            value.currency,
            shown(&value.budget_limit_minor)
        )
    }

    fn observe(value: &CampaignLoad, findings: &mut Findings) {
        findings.time(value.window.starts_at);
        findings.time(value.window.ends_at);
    }

    fn owner(value: &CampaignLoad) -> &str {
        value.id.as_str()
    }

    fn shared(value: &CampaignLoad) -> Option<&str> {
        value.merchant.as_ref().map(MerchantId::as_str)
    }

    async fn create_shared(pool: &Pool, values: &[&CampaignLoad]) -> Result<(), StoreError> {
        let merchants: Vec<&MerchantId> = values.iter().filter_map(|value| value.merchant.as_ref()).collect();
        catalog::create_merchants(pool, &merchants).await
    }

    async fn write(pool: &Pool, _: &KeyCache, values: &[CampaignLoad]) -> Result<Written, StoreError> {
        Ok(Written::of(
            loads::upsert_campaigns(pool, values).await?,
            values.iter().map(|value| value.id.as_str()),
        ))
    }
}

impl Campaigns {
    fn budget_limit_minor(&self, record: &Record<'_>, currency: Currency) -> Result<Option<i64>, InvalidField> {
        let Some(budget) = &self.budget else { return Ok(None) };
        let limit = budget.get(record, || Ok(currency), 1)?;
        let limit = limit.map(Money::require_not_negative).transpose();
        let limit = limit.map_err(|error| InvalidField {
            field: budget.name.to_owned(),
            ..error
        })?;
        Ok(limit.map(|limit| limit.amount_minor))
    }
}
