//! The catalog: merchants and items.

use super::error::InvalidField;
use super::id::{Category, ItemId, MerchantId};
use super::money::Money;

/// The length of the longest title of an item or name of a merchant, in bytes of UTF-8.
pub const MAX_TITLE_BYTES: usize = 1024;

/// A change of a merchant; `None` keeps what is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct MerchantPatch {
    pub id: MerchantId,
    pub name: Option<String>,
}

/// A change of an item; `None` keeps what is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemPatch {
    pub id: ItemId,
    pub title: Option<String>,
    pub merchant: Option<MerchantId>,
    pub category: Option<Category>,
    pub price: Option<Money>,
    pub listed: Option<bool>,
}

/// An item as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub id: ItemId,
    pub facts: ItemFacts,
}

/// The facts about an item that filters and titles need.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemFacts {
    pub title: Option<String>,
    pub merchant: Option<MerchantId>,
    pub category: Option<Category>,
    pub price: Option<Money>,
    /// Whether the item may be recommended.
    pub listed: bool,
}

impl Default for ItemFacts {
    /// Returns the facts of an item that was first seen in a rating or a purchase.
    fn default() -> Self {
        Self {
            title: None,
            merchant: None,
            category: None,
            price: None,
            listed: true,
        }
    }
}

/// Checks a title or a name.
///
/// # Errors
/// `TEXT_TOO_LONG` or `TEXT_HAS_CONTROL_CHARACTER`, naming `field`.
pub fn check_text(field: &str, text: String) -> Result<String, InvalidField> {
    if text.len() > MAX_TITLE_BYTES {
        return Err(InvalidField::new(
            field,
            "TEXT_TOO_LONG",
            format!("must be at most {MAX_TITLE_BYTES} bytes long, has {}", text.len()),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidField::new(
            field,
            "TEXT_HAS_CONTROL_CHARACTER",
            "must not contain control characters",
        ));
    }
    Ok(text)
}
