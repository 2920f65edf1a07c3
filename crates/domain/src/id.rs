//! External ids: strings of 1 to 128 bytes without control characters, ordered byte by byte.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::error::InvalidField;

/// The length of the longest external id, in bytes of UTF-8.
pub const MAX_ID_BYTES: usize = 128;

/// Checks an external id.
///
/// # Errors
/// `EMPTY_ID`, `ID_TOO_LONG` or `ID_HAS_CONTROL_CHARACTER`, naming `field`.
fn check_id(field: &str, id: &str) -> Result<(), InvalidField> {
    if id.is_empty() {
        return Err(InvalidField::new(
            field,
            "EMPTY_ID",
            format!("must be 1 to {MAX_ID_BYTES} bytes long, is empty"),
        ));
    }
    if id.len() > MAX_ID_BYTES {
        return Err(InvalidField::new(
            field,
            "ID_TOO_LONG",
            format!("must be 1 to {MAX_ID_BYTES} bytes long, has {}", id.len()),
        ));
    }
    // Nearly all ids are printable ASCII, which need not be decoded.
    if id.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Ok(());
    }
    if let Some(position) = id.chars().position(char::is_control) {
        return Err(InvalidField::new(
            field,
            "ID_HAS_CONTROL_CHARACTER",
            format!("must not contain control characters, has one at character {position}"),
        ));
    }
    Ok(())
}

macro_rules! external_id {
    ($(#[$doc:meta])* $name:ident, $field:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name of its field on the wire and in files.
            pub const FIELD: &'static str = $field;

            /// Makes an id of a valid string.
            ///
            /// # Errors
            /// [`InvalidField`] if the id is empty, longer than [`MAX_ID_BYTES`] or holds a control character.
            pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidField> {
                let id = id.as_ref();
                Self::check(id)?;
                Ok(Self(id.into()))
            }

            /// Checks whether `id` is valid, without making one.
            ///
            /// # Errors
            /// As [`Self::new`].
            pub fn check(id: &str) -> Result<(), InvalidField> {
                check_id($field, id)
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

external_id!(
    /// The id of a user, a shopper.
    UserId,
    "user_id"
);
external_id!(
    /// The id of an item that is sold.
    ItemId,
    "item_id"
);
external_id!(
    /// The id of a merchant, who sells items.
    MerchantId,
    "merchant_id"
);
external_id!(
    /// The id of an order, a purchase of one or more lines.
    OrderId,
    "order_id"
);
external_id!(
    /// The id of a campaign, in which a merchant or the platform gives coupons.
    CampaignId,
    "campaign_id"
);
external_id!(
    /// The id of a coupon, a discount on some items.
    CouponId,
    "coupon_id"
);
external_id!(
    /// The id of a reservation, a discount that is set aside until the user pays.
    ReservationId,
    "reservation_id"
);
external_id!(
    /// The id of a redemption, the use of a coupon.
    RedemptionId,
    "redemption_id"
);
external_id!(
    /// The id of a mutation, chosen by its sender: the same id sent again has the same effect and answer.
    RequestId,
    "request_id"
);
external_id!(
    /// The id of a cart, chosen by its shop: the coupons of one user's cart are used together.
    CartId,
    "cart_id"
);
external_id!(
    /// The name of a category of items; a category has no other property.
    Category,
    "category"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        let check = |id: &str, reason: Option<&str>| {
            let got = UserId::new(id).map(|_| ()).map_err(|error| error.reason);
            assert_eq!(got.err(), reason, "{id:?}");
        };
        check("a", None);
        check("Ünïcode id with spaces", None);
        check(&"x".repeat(128), None);
        check("", Some("EMPTY_ID"));
        check(&"x".repeat(129), Some("ID_TOO_LONG"));
        check(&"é".repeat(65), Some("ID_TOO_LONG"));
        check("a\nb", Some("ID_HAS_CONTROL_CHARACTER"));
        check("a\u{0}", Some("ID_HAS_CONTROL_CHARACTER"));
        check("a\u{85}", Some("ID_HAS_CONTROL_CHARACTER"));
    }
}
