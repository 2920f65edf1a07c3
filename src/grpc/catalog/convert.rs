//! Converts the messages of CatalogService.

pub mod attributes;

use tonic::Status;

use crate::store::catalog::ItemSelection;
use crate::store::catalog::categories::CategoryCount;
use domain::access::Caller;
use domain::error::InvalidField;
use domain::id::{Category, ItemId, MerchantId};
use domain::item::{Item, ItemPatch, MerchantPatch, check_text};
use domain::money::Money;

use crate::admission;
use crate::grpc::page;
use crate::grpc::proto::v1;
use crate::grpc::status::{Violations, invalid_argument};

/// # Errors
/// The first bad field.
pub fn merchant_patch(merchant: v1::Merchant) -> Result<MerchantPatch, InvalidField> {
    Ok(MerchantPatch {
        id: MerchantId::new(merchant.merchant_id)?,
        name: merchant.name.map(|name| check_text("name", name)).transpose()?,
    })
}

/// # Errors
/// The first bad field.
pub fn item_patch(item: v1::Item) -> Result<ItemPatch, InvalidField> {
    let price = |price| Money::try_from(price).and_then(Money::require_not_negative);
    Ok(ItemPatch {
        id: ItemId::new(item.item_id)?,
        title: item.title.map(|title| check_text("title", title)).transpose()?,
        merchant: item.merchant_id.map(MerchantId::new).transpose()?,
        category: item.category.map(Category::new).transpose()?,
        price: item
            .price
            .map(price)
            .transpose()
            .map_err(|error| error.within("price"))?,
        listed: item.listed,
    })
}

impl From<Item> for v1::Item {
    fn from(item: Item) -> Self {
        Self {
            item_id: item.id.to_string(),
            title: item.facts.title,
            merchant_id: item.facts.merchant.map(|merchant| merchant.to_string()),
            category: item.facts.category.map(|category| category.to_string()),
            price: item.facts.price.map(Into::into),
            listed: Some(item.facts.listed),
        }
    }
}

pub fn item_id(id: String) -> Result<ItemId, Status> {
    ItemId::new(id).map_err(|error| invalid_argument(vec![error]))
}

/// Returns what a page token is bound to.
pub fn selection_key(selection: &ItemSelection) -> (&'static str, Option<&str>, Option<&str>) {
    (
        "ListItems",
        selection.merchant.as_ref().map(|merchant| merchant.as_str()),
        selection.category.as_ref().map(|category| category.as_str()),
    )
}

pub struct ListItems {
    pub selection: ItemSelection,
    pub after: String,
    pub page_size: i64,
}

impl ListItems {
    /// Selects no items that `caller` may not see.
    pub fn new(request: v1::ListItemsRequest, caller: &Caller) -> Result<Self, Status> {
        let named = request.merchant_id.iter().map(String::as_str);
        admission::check_merchants(caller, "merchant_id", named)?;
        let mut violations = Violations::default();
        let merchant = request.merchant_id.map(MerchantId::new).transpose();
        let merchant = violations.check(merchant.map(|merchant| merchant.or_else(|| caller.merchant.clone())));
        let category = violations.check(request.category.map(Category::new).transpose());
        let page_size = violations.check(page::page_size(request.page_size));
        let selection = merchant
            .zip(category)
            .map(|(merchant, category)| ItemSelection { merchant, category });
        let after = selection.as_ref().and_then(|selection| {
            let is_id = |id: &String| ItemId::new(id).is_ok();
            violations.check(page::cursor(&selection_key(selection), &request.page_token, is_id))
        });
        let list = selection
            .zip(page_size)
            .zip(after)
            .map(|((selection, page_size), after)| Self {
                selection,
                after: after.unwrap_or_default(),
                page_size,
            });
        violations.finish(list)
    }
}

pub struct ListCategories {
    /// The merchant whose items count; `None` for all.
    pub merchant: Option<MerchantId>,
    pub after: String,
    pub page_size: i64,
}

impl ListCategories {
    /// Counts no items that `caller` may not see.
    pub fn new(request: v1::ListCategoriesRequest, caller: &Caller) -> Result<Self, Status> {
        let named = request.merchant_id.iter().map(String::as_str);
        admission::check_merchants(caller, "merchant_id", named)?;
        let mut violations = Violations::default();
        let merchant = violations.check(request.merchant_id.map(MerchantId::new).transpose());
        let page_size = violations.check(page::page_size(request.page_size));
        let Some((merchant, page_size)) = merchant.zip(page_size) else {
            return violations.finish(None);
        };
        let mut list = Self {
            merchant: merchant.or_else(|| caller.merchant.clone()),
            after: String::new(),
            page_size,
        };
        let is_category = |name: &String| Category::new(name).is_ok();
        let after = violations.check(page::cursor(&list.key(), &request.page_token, is_category));
        list.after = after.flatten().unwrap_or_default();
        violations.finish(Some(list))
    }

    /// Returns what a page token is bound to.
    pub fn key(&self) -> (&'static str, Option<&str>) {
        ("ListCategories", self.merchant.as_ref().map(MerchantId::as_str))
    }
}

impl From<CategoryCount> for v1::Category {
    fn from(count: CategoryCount) -> Self {
        Self {
            category: count.category.to_string(),
            item_count: count.items,
            listed_item_count: count.listed_items,
        }
    }
}
