//! External ids: strings of 1 to 128 bytes without control characters, ordered byte by byte.
//!
//! Characters that control the direction of text or are never seen are refused too: they make two ids look alike, or an id
//! look like another one, in logs and on pages.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::error::InvalidField;

/// The length of the longest external id, in bytes of UTF-8.
pub const MAX_ID_BYTES: usize = 128;

/// Checks an external id that comes from outside.
///
/// # Errors
/// `EMPTY_ID`, `ID_TOO_LONG` or `ID_HAS_CONTROL_CHARACTER`, naming `field`.
#[inline]
fn check_id(field: &str, id: &str) -> Result<(), InvalidField> {
    if is_plain(id) {
        return Ok(());
    }
    check_stored_id(field, id)?;
    let hidden = |(position, c)| Some((position, c, hidden_effect(c)?));
    if let Some((position, c, effect)) = id.chars().enumerate().find_map(hidden) {
        let message = format!(
            "must not contain control characters, has U+{:04X}, which {effect}, at character {position}",
            u32::from(c)
        );
        return Err(InvalidField::new(field, "ID_HAS_CONTROL_CHARACTER", message));
    }
    Ok(())
}

/// Tells whether `id` has a valid length and is printable ASCII, as nearly all ids are: then nothing has to be decoded.
#[inline]
fn is_plain(id: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Returns what a character does that is not seen itself; `None` for others. The joiners U+200C and U+200D, and variation
/// selectors, make a difference that is seen, as in emoji and in Persian.
///
/// Source: Unicode Standard Annex #9, property `Bidi_Control`; Unicode Character Database, `Default_Ignorable_Code_Point` and
/// the line separators.
fn hidden_effect(c: char) -> Option<&'static str> {
    match c {
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Some("controls the direction of text")
        }
        '\u{2028}' | '\u{2029}' => Some("breaks the line"),
        '\u{ad}'
        | '\u{34f}'
        | '\u{180e}'
        | '\u{200b}'
        | '\u{2060}'..='\u{2064}'
        | '\u{206a}'..='\u{206f}'
        | '\u{feff}' => Some("is invisible"),
        _ => None,
    }
}

/// Checks an external id by the rules that every version of this program has had.
///
/// # Errors
/// The same as [`check_id`].
fn check_stored_id(field: &str, id: &str) -> Result<(), InvalidField> {
    if is_plain(id) {
        return Ok(());
    }
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
    if let Some(position) = id.chars().position(char::is_control) {
        return Err(InvalidField::new(
            field,
            "ID_HAS_CONTROL_CHARACTER",
            format!("must not contain control characters, has one at character {position}"),
        ));
    }
    Ok(())
}

/// Refuses ids of the form of pseudonyms, which new_pseudonym() of the schema makes: whoever wrote under one would add to what is
/// kept of an erased user.
///
/// # Errors
/// `ID_IS_PSEUDONYM`, naming `field`.
#[inline]
fn refuse_pseudonym(field: &str, id: &str) -> Result<(), InvalidField> {
    match is_pseudonym(id) {
        false => Ok(()),
        true => Err(InvalidField::new(
            field,
            "ID_IS_PSEUDONYM",
            "must be the id of a user, is a pseudonym, under which data of an erased user are kept: nothing is written under \
             ids of the form `erased-` and 32 hexadecimal digits",
        )),
    }
}

#[inline]
fn is_pseudonym(id: &str) -> bool {
    let digits = id.strip_prefix("erased-").map(str::as_bytes);
    digits
        .is_some_and(|digits| digits.len() == 32 && digits.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
}

macro_rules! external_id {
    ($(#[$doc:meta])* $name:ident, $field:literal $(, $refuse:path)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name of its field on the wire and in files.
            pub const FIELD: &'static str = $field;

            /// Makes an id of a valid string.
            ///
            /// # Errors
            /// [`InvalidField`] as of [`Self::check`].
            pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidField> {
                let id = id.as_ref();
                Self::check(id)?;
                Ok(Self(id.into()))
            }

            /// Makes an id of one that was accepted before, perhaps by an older version, which refused less.
            ///
            /// # Errors
            /// [`InvalidField`] if no version would have accepted it.
            pub fn stored(id: impl AsRef<str>) -> Result<Self, InvalidField> {
                let id = id.as_ref();
                check_stored_id($field, id)?;
                Ok(Self(id.into()))
            }

            /// Checks whether `id` is valid, without making one.
            ///
            /// # Errors
            /// [`InvalidField`] if the id is empty, longer than [`MAX_ID_BYTES`], holds a control character, or is one of a
            /// user under which nothing may be written.
            #[inline]
            pub fn check(id: &str) -> Result<(), InvalidField> {
                check_id($field, id)?;
                $($refuse($field, id)?;)?
                Ok(())
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
    "user_id",
    refuse_pseudonym
);

impl UserId {
    /// Makes an id of a string that only asks for a user: a pseudonym is answered like an id that nobody has.
    ///
    /// # Errors
    /// [`InvalidField`] if the id is empty, longer than [`MAX_ID_BYTES`] or holds a control character.
    pub fn asked(id: impl AsRef<str>) -> Result<Self, InvalidField> {
        let id = id.as_ref();
        check_id(Self::FIELD, id)?;
        Ok(Self(id.into()))
    }
}

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

    #[test]
    fn nothing_is_written_under_a_pseudonym() {
        let check = |id: &str, is_pseudonym: bool| {
            let reason = UserId::new(id).map_err(|error| error.reason).err();
            assert_eq!(reason, is_pseudonym.then_some("ID_IS_PSEUDONYM"), "{id}");
            assert_eq!(UserId::asked(id).unwrap().as_str(), id);
            assert!(RedemptionId::new(id).is_ok(), "{id}");
        };
        check("erased-0123456789abcdef0123456789abcdef", true);
        check("erased-0123456789abcdef0123456789abcde", false);
        check("erased-0123456789abcdef0123456789abcdef0", false);
        check("erased-0123456789ABCDEF0123456789abcdef", false);
        check("Erased-0123456789abcdef0123456789abcdef", false);
        check("erased-", false);
    }

    #[test]
    fn characters_that_are_not_seen_are_refused_in_new_ids_only() {
        let controls =
            "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";
        assert_eq!(controls.chars().count(), 12);
        let invisible = "\u{ad}\u{200b}\u{2028}\u{2029}\u{2060}\u{2064}\u{206a}\u{feff}";
        for control in controls.chars().chain(invisible.chars()) {
            let id = format!("user{control}1");
            let error = ItemId::new(&id).unwrap_err();
            assert_eq!(error.reason, "ID_HAS_CONTROL_CHARACTER", "{id:?}");
            let code = format!("U+{:04X}", u32::from(control));
            assert!(
                error.message.contains(&code) && error.message.contains("character 4"),
                "{error}"
            );
            assert_eq!(ItemId::stored(&id).unwrap().as_str(), id);
        }
        // Text that runs from right to left is no control character, nor are its neighbors in Unicode.
        for id in [
            "\u{5d0}\u{5d1}",
            "\u{634}\u{627}",
            "a\u{200d}b",
            "\u{200c}",
            "\u{1f469}\u{200d}\u{1f680}\u{fe0f}",
            "\u{2065}",
        ] {
            assert!(ItemId::new(id).is_ok(), "{id:?}");
        }
        assert!(ItemId::stored("a\n").is_err());
    }
}
