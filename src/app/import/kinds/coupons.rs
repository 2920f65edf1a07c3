//! Coupons and the items that they cover.

use super::super::columns::{ColumnError, Columns, Field, missing};
use super::super::findings::Findings;
use super::super::numbers::NumberFormat;
use super::values::{Amount, Unit, at_least, boolean, currency, optional, shown, text_line};
use super::{RecordKind, Rules, Written};
use crate::store::catalog;
use crate::store::catalog::key_cache::KeyCache;
use crate::store::coupons::loads::{self, CouponItemLoad, CouponLoad};
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use domain::coupon::{Discount, MAX_BASIS_POINTS, MinCartBasis};
use domain::error::InvalidField;
use domain::id::{CampaignId, CouponId, ItemId};
use domain::money::{Currency, Money};
use tabular::record::Record;

pub(in super::super) struct Coupons {
    coupon: Field<CouponId>,
    campaign: Field<CampaignId>,
    title: Option<Field<String>>,
    discount: DiscountFields,
    currency: Field<Currency>,
    max_discount_minor: Option<Field<i64>>,
    min_cart_minor: Option<Field<i64>>,
    min_cart_basis: Option<Field<MinCartBasis>>,
    covers_all: Option<Field<bool>>,
    per_user_cap: Option<Field<i32>>,
    total_cap: Option<Field<i64>>,
}

/// The field that says how much a coupon takes off.
enum DiscountFields {
    Percent(Field<u16>),
    Amount(Amount),
    FreeShipping(Field<bool>),
}

/// Reads a percentage with at most two decimals.
fn basis_points(numbers: NumberFormat, text: &str) -> Result<u16, InvalidField> {
    const FIELD: &str = "percent";
    let percent = numbers.decimal(FIELD, text.strip_suffix('%').unwrap_or(text))?;
    if !percent.has_decimals_within(2) {
        let message = format!("must have at most two decimals, is {text:?}");
        return Err(InvalidField::new(FIELD, "TOO_MANY_DECIMALS", message));
    }
    match percent.scaled(2).map(u16::try_from) {
        Some(Ok(points @ 1..=MAX_BASIS_POINTS)) => Ok(points),
        _ => {
            let message = format!("must lie between 0.01 and 100, is {text:?}");
            Err(InvalidField::new(FIELD, "OUT_OF_RANGE", message))
        }
    }
}

fn covers_all(text: &str) -> Result<bool, InvalidField> {
    match text {
        "all" => Ok(true),
        "items" => Ok(false),
        other => {
            let message = format!("must be all or items, is {other}");
            Err(InvalidField::new("covers", "UNKNOWN_SCOPE", message))
        }
    }
}

impl RecordKind for Coupons {
    type Value = CouponLoad;

    const FIELDS: &'static [&'static str] = &[
        "coupon_id",
        "campaign_id",
        "title",
        "percent",
        "amount",
        "amount_minor",
        "free_shipping",
        "currency",
        "max_discount_minor",
        "min_cart_minor",
        "min_cart_basis",
        "covers",
        "per_user_cap",
        "total_cap",
    ];

    const MAY_BE_REFUSED: bool = true;

    fn new(columns: &mut Columns, rules: &Rules) -> Result<Self, ColumnError> {
        let numbers = rules.numbers;
        const DISCOUNTS: [&str; 4] = ["percent", "amount", "amount_minor", "free_shipping"];
        let discount = match columns.one_of(&DISCOUNTS)? {
            Some("percent") => {
                DiscountFields::Percent(columns.required("percent", move |text| basis_points(numbers, text))?)
            }
            Some("free_shipping") => {
                let is_free = |text: &str| boolean("free_shipping", text);
                DiscountFields::FreeShipping(columns.required("free_shipping", is_free)?)
            }
            _ => {
                let amount = Amount::new(
                    columns,
                    numbers,
                    &[("amount_minor", Unit::Minor), ("amount", Unit::Major)],
                )?;
                let amount = amount.ok_or_else(|| columns.missing(&DISCOUNTS))?;
                columns.mark_required(amount.name);
                DiscountFields::Amount(amount)
            }
        };
        Ok(Self {
            coupon: columns.required("coupon_id", |id| CouponId::new(id))?,
            campaign: columns.required("campaign_id", |id| CampaignId::new(id))?,
            title: columns.optional("title", |text| text_line("title", text))?,
            discount,
            currency: columns.required("currency", currency)?,
            max_discount_minor: columns.optional("max_discount_minor", at_least(numbers, "max_discount_minor", 1))?,
            min_cart_minor: columns.optional("min_cart_minor", at_least(numbers, "min_cart_minor", 0))?,
            min_cart_basis: columns.optional("min_cart_basis", |text| text.trim_ascii().parse())?,
            covers_all: columns.optional("covers", covers_all)?,
            per_user_cap: columns.optional("per_user_cap", at_least(numbers, "per_user_cap", 1))?,
            total_cap: columns.optional("total_cap", at_least(numbers, "total_cap", 0))?,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<CouponLoad, InvalidField> {
        let id = self.coupon.require(record)?;
        let campaign = self.campaign.require(record)?;
        let currency = self.currency.require(record)?;
        Ok(CouponLoad {
            id,
            campaign,
            title: optional(&self.title, record)?,
            discount: self.discount.read(record, currency)?,
            currency,
            max_discount_minor: optional(&self.max_discount_minor, record)?,
            min_cart_minor: optional(&self.min_cart_minor, record)?,
            min_cart_basis: optional(&self.min_cart_basis, record)?,
            covers_all: optional(&self.covers_all, record)?,
            per_user_cap: optional(&self.per_user_cap, record)?,
            total_cap: optional(&self.total_cap, record)?,
        })
    }

    fn describe(value: &CouponLoad) -> String {
        let discount = match value.discount {
            Discount::Percent { basis_points } => format!("{} %", f64::from(basis_points) / 100.0),
            Discount::Amount { amount_minor } => Money {
                amount_minor,
                currency: value.currency,
            }
            .to_string(),
            Discount::FreeShipping => "free shipping".to_owned(),
        };
        format!(
            "coupon_id={} campaign_id={} title={} discount={discount} per_user_cap={} total_cap={}",
            value.id,
            value.campaign,
            shown(&value.title),
            shown(&value.per_user_cap),
            shown(&value.total_cap)
        )
    }

    fn observe(_: &CouponLoad, _: &mut Findings) {}

    fn owner(value: &CouponLoad) -> &str {
        value.id.as_str()
    }

    fn coupon(value: &CouponLoad) -> Option<&CouponId> {
        Some(&value.id)
    }

    async fn write(pool: &Pool, _: &KeyCache, values: &[CouponLoad]) -> Result<Written, StoreError> {
        Ok(Written::of(
            loads::upsert_coupons(pool, values).await?,
            values.iter().map(|value| value.id.as_str()),
        ))
    }
}

impl DiscountFields {
    fn read(&self, record: &Record<'_>, currency: Currency) -> Result<Discount, InvalidField> {
        let out_of_range = |field: &str, message: String| Err(InvalidField::new(field, "OUT_OF_RANGE", message));
        match self {
            Self::Percent(basis_points) => Ok(Discount::Percent {
                basis_points: basis_points.require(record)?,
            }),
            Self::FreeShipping(is_free) => match is_free.require(record)? {
                true => Ok(Discount::FreeShipping),
                false => out_of_range("free_shipping", "must be true".to_owned()),
            },
            Self::Amount(amount) => {
                let money = amount.get(record, || Ok(currency), 1)?;
                match money.ok_or_else(|| missing(amount.name))?.amount_minor {
                    amount_minor @ 1.. => Ok(Discount::Amount { amount_minor }),
                    other => out_of_range(amount.name, format!("must be 1 minor unit or more, is {other}")),
                }
            }
        }
    }
}

pub(in super::super) struct CouponItems {
    coupon: Field<CouponId>,
    item: Field<ItemId>,
}

impl RecordKind for CouponItems {
    type Value = CouponItemLoad;

    const FIELDS: &'static [&'static str] = &["coupon_id", "item_id"];

    const MAY_BE_REFUSED: bool = true;

    fn new(columns: &mut Columns, _: &Rules) -> Result<Self, ColumnError> {
        Ok(Self {
            coupon: columns.required("coupon_id", |id| CouponId::new(id))?,
            item: columns.required("item_id", |id| ItemId::new(id))?,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<CouponItemLoad, InvalidField> {
        Ok(CouponItemLoad {
            coupon: self.coupon.require(record)?,
            item: self.item.require(record)?,
        })
    }

    fn describe(value: &CouponItemLoad) -> String {
        format!("coupon_id={} item_id={}", value.coupon, value.item)
    }

    fn observe(value: &CouponItemLoad, findings: &mut Findings) {
        findings.items.add(value.item.as_str());
    }

    fn owner(value: &CouponItemLoad) -> &str {
        value.coupon.as_str()
    }

    fn coupon(value: &CouponItemLoad) -> Option<&CouponId> {
        Some(&value.coupon)
    }

    fn shared(value: &CouponItemLoad) -> Option<&str> {
        Some(value.item.as_str())
    }

    async fn create_shared(pool: &Pool, values: &[&CouponItemLoad]) -> Result<(), StoreError> {
        let items: Vec<&ItemId> = values.iter().map(|value| &value.item).collect();
        catalog::create_items(pool, &items).await
    }

    async fn write(pool: &Pool, _: &KeyCache, values: &[CouponItemLoad]) -> Result<Written, StoreError> {
        Ok(Written::of(
            loads::add_coupon_items(pool, values).await?,
            values.iter().map(|value| (value.coupon.as_str(), value.item.as_str())),
        ))
    }
}
