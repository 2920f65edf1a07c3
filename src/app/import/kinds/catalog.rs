//! Items and merchants.

use super::super::columns::{ColumnError, Columns, Field};
use super::super::findings::Findings;
use super::values::{Amount, Unit, boolean, currency, optional, shown, text_line};
use super::{RecordKind, Rules, Written};
use crate::store::catalog;
use crate::store::catalog::key_cache::KeyCache;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use domain::error::InvalidField;
use domain::id::{Category, ItemId, MerchantId};
use domain::item::{ItemPatch, MerchantPatch};
use domain::money::{Currency, Money};
use tabular::record::Record;

pub(in super::super) struct Items {
    item: Field<ItemId>,
    title: Option<Field<String>>,
    merchant: Option<Field<MerchantId>>,
    category: Option<Field<Category>>,
    price: Option<(Amount, Field<Currency>)>,
    listed: Option<Field<bool>>,
}

impl RecordKind for Items {
    type Value = ItemPatch;

    const FIELDS: &'static [&'static str] = &[
        "item_id",
        "title",
        "merchant_id",
        "category",
        "price",
        "price_minor",
        "currency",
        "listed",
    ];

    fn new(columns: &mut Columns, rules: &Rules) -> Result<Self, ColumnError> {
        let price = match Amount::new(
            columns,
            rules.numbers,
            &[("price_minor", Unit::Minor), ("price", Unit::Major)],
        )? {
            Some(amount) => Some((amount, columns.required("currency", currency)?)),
            None => None,
        };
        Ok(Self {
            item: columns.required("item_id", |id| ItemId::new(id))?,
            title: columns.optional("title", |text| text_line("title", text))?,
            merchant: columns.optional("merchant_id", |id| MerchantId::new(id))?,
            category: columns.optional("category", |name| Category::new(name))?,
            price,
            listed: columns.optional("listed", |text| boolean("listed", text))?,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<ItemPatch, InvalidField> {
        Ok(ItemPatch {
            id: self.item.require(record)?,
            title: optional(&self.title, record)?,
            merchant: optional(&self.merchant, record)?,
            category: optional(&self.category, record)?,
            price: self.price(record)?,
            listed: optional(&self.listed, record)?,
        })
    }

    fn describe(value: &ItemPatch) -> String {
        format!(
            "item_id={} title={} merchant_id={} category={} price={} listed={}",
            value.id,
            shown(&value.title),
            shown(&value.merchant),
            shown(&value.category),
            shown(&value.price),
            shown(&value.listed)
        )
    }

    fn observe(value: &ItemPatch, findings: &mut Findings) {
        findings.items.add(value.id.as_str());
        if let Some(price) = value.price {
            findings.amount(price);
        }
    }

    fn owner(value: &ItemPatch) -> &str {
        value.id.as_str()
    }

    fn shared(value: &ItemPatch) -> Option<&str> {
        value.merchant.as_ref().map(|merchant| merchant.as_str())
    }

    async fn create_shared(pool: &Pool, values: &[&ItemPatch]) -> Result<(), StoreError> {
        let merchants: Vec<&MerchantId> = values.iter().filter_map(|item| item.merchant.as_ref()).collect();
        catalog::create_merchants(pool, &merchants).await
    }

    async fn write(pool: &Pool, _: &KeyCache, values: &[ItemPatch]) -> Result<Written, StoreError> {
        Ok(Written::of(
            catalog::upsert_items(pool, values).await?,
            values.iter().map(|value| value.id.as_str()),
        ))
    }
}

impl Items {
    fn price(&self, record: &Record<'_>) -> Result<Option<Money>, InvalidField> {
        let Some((amount, currency)) = &self.price else {
            return Ok(None);
        };
        let price = amount.get(record, || currency.require(record), 1)?;
        price
            .map(Money::require_not_negative)
            .transpose()
            .map_err(|error| InvalidField {
                field: amount.name.to_owned(),
                ..error
            })
    }
}

pub(in super::super) struct Merchants {
    merchant: Field<MerchantId>,
    name: Option<Field<String>>,
}

impl RecordKind for Merchants {
    type Value = MerchantPatch;

    const FIELDS: &'static [&'static str] = &["merchant_id", "name"];

    fn new(columns: &mut Columns, _: &Rules) -> Result<Self, ColumnError> {
        Ok(Self {
            merchant: columns.required("merchant_id", |id| MerchantId::new(id))?,
            name: columns.optional("name", |text| text_line("name", text))?,
        })
    }

    fn read(&mut self, record: &Record<'_>) -> Result<MerchantPatch, InvalidField> {
        Ok(MerchantPatch {
            id: self.merchant.require(record)?,
            name: optional(&self.name, record)?,
        })
    }

    fn describe(value: &MerchantPatch) -> String {
        format!("merchant_id={} name={}", value.id, shown(&value.name))
    }

    fn observe(_: &MerchantPatch, _: &mut Findings) {}

    fn owner(value: &MerchantPatch) -> &str {
        value.id.as_str()
    }

    async fn write(pool: &Pool, _: &KeyCache, values: &[MerchantPatch]) -> Result<Written, StoreError> {
        Ok(Written::of(
            catalog::upsert_merchants(pool, values).await?,
            values.iter().map(|value| value.id.as_str()),
        ))
    }
}
