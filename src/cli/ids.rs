//! Reads ids from arguments.

use domain::id::{Category, ItemId, MerchantId, UserId};

pub(super) fn item(text: &str) -> Result<ItemId, String> {
    ItemId::new(text).map_err(|error| error.message)
}

pub(super) fn user(text: &str) -> Result<UserId, String> {
    UserId::asked(text).map_err(|error| error.message)
}

pub(super) fn category(text: &str) -> Result<Category, String> {
    Category::new(text).map_err(|error| error.message)
}

pub(super) fn merchant(text: &str) -> Result<MerchantId, String> {
    MerchantId::new(text).map_err(|error| error.message)
}
