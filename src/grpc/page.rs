//! Pages of a list: their sizes, and the tokens of the pages after the first.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::Sha256;
use tonic::Status;
use xxhash_rust::xxh3::xxh3_64;

use crate::store::token_key::KEY_BYTES;
use domain::error::InvalidField;

use super::message_size::MAX_ANSWER_BYTES;
use super::status::Violations;

/// Most bytes of the rows of a page. The rest of an answer is for the token, which holds a few ids.
const MAX_ROW_BYTES: usize = MAX_ANSWER_BYTES - 64 * 1024;
/// Most bytes that a row takes beside its own: the field's number, and its length.
const ROW_PREFIX_BYTES: usize = 6;

pub const DEFAULT_PAGE_SIZE: i64 = 100;
pub const MAX_PAGE_SIZE: i32 = 1_000;

/// # Errors
/// `PAGE_SIZE_OUT_OF_RANGE` naming `page_size`.
pub fn page_size(requested: i32) -> Result<i64, InvalidField> {
    match requested {
        0 => Ok(DEFAULT_PAGE_SIZE),
        1..=MAX_PAGE_SIZE => Ok(i64::from(requested)),
        _ => Err(InvalidField::new(
            "page_size",
            "PAGE_SIZE_OUT_OF_RANGE",
            format!("must lie between 1 and {MAX_PAGE_SIZE} (0 means {DEFAULT_PAGE_SIZE}), is {requested}"),
        )),
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Token<C> {
    /// Fingerprint of everything in the request but the page.
    request: u64,
    cursor: C,
}

/// Returns the token that continues after `cursor` in the answer to `request`.
///
/// `request`: everything that decides which rows there are, so that the token is bound to it.
pub fn token<C: Serialize>(request: &impl Serialize, cursor: &C) -> String {
    let token = Token {
        request: fingerprint(request),
        cursor,
    };
    BASE64_URL_SAFE_NO_PAD.encode(to_json(&token))
}

/// Returns the row to continue after; `None` for the first page.
///
/// `is_possible`: whether such a row can exist. Tokens are not signed, and the cursor goes to the database.
///
/// # Errors
/// `INVALID_PAGE_TOKEN` for a token that the server has not made, or that belongs to another request.
pub fn cursor<C: DeserializeOwned>(
    request: &impl Serialize,
    token: &str,
    is_possible: impl Fn(&C) -> bool,
) -> Result<Option<C>, InvalidField> {
    if token.is_empty() {
        return Ok(None);
    }
    let parsed = BASE64_URL_SAFE_NO_PAD
        .decode(token)
        .ok()
        .and_then(|json| serde_json::from_slice::<Token<C>>(&json).ok())
        .filter(|token| token.request == fingerprint(request) && is_possible(&token.cursor));
    match parsed {
        Some(token) => Ok(Some(token.cursor)),
        None => Err(invalid_token()),
    }
}

/// Returns a token like that of [`token`], which nobody can make without `key`.
pub fn authentic_token<C: Serialize>(key: &[u8; KEY_BYTES], request: &impl Serialize, cursor: &C) -> String {
    let json = to_json(&Token {
        request: fingerprint(request),
        cursor,
    });
    let code = authentication(key, &json).finalize().into_bytes();
    BASE64_URL_SAFE_NO_PAD.encode([&code[..], &json].concat())
}

/// Returns the row to continue after, from an [`authentic_token`]; `None` for the first page.
///
/// # Errors
/// `INVALID_PAGE_TOKEN` for a token that was not made with `key`, or that belongs to another request.
pub fn authentic_cursor<C: DeserializeOwned>(
    key: &[u8; KEY_BYTES],
    request: &impl Serialize,
    token: &str,
    is_possible: impl Fn(&C) -> bool,
) -> Result<Option<C>, InvalidField> {
    let is_authentic = |bytes: &[u8]| {
        let parts = bytes.split_at_checked(CODE_BYTES);
        parts.is_some_and(|(code, json)| authentication(key, json).verify_slice(code).is_ok())
    };
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
    match is_authentic(&decoded) {
        true => cursor(
            request,
            &BASE64_URL_SAFE_NO_PAD.encode(&decoded[CODE_BYTES..]),
            is_possible,
        ),
        false if token.is_empty() => Ok(None),
        false => Err(invalid_token()),
    }
}

/// The size of an HMAC-SHA-256.
const CODE_BYTES: usize = 32;

fn authentication(key: &[u8; KEY_BYTES], json: &[u8]) -> Hmac<Sha256> {
    let mut hmac =
        Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes a key of any length"));
    hmac.update(json);
    hmac
}

fn invalid_token() -> InvalidField {
    InvalidField::new(
        "page_token",
        "INVALID_PAGE_TOKEN",
        "must be empty, or the next_page_token of an answer to the same request",
    )
}

fn fingerprint(request: &impl Serialize) -> u64 {
    xxh3_64(&to_json(request))
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_| unreachable!("strings and numbers always serialize"))
}

/// A page of rows whose numbers descend.
pub struct NewestFirst {
    /// The rows have lower numbers.
    pub before: i64,
    pub page_size: i64,
}

impl NewestFirst {
    /// `key`: what page tokens are bound to.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a page size out of range, or a token of another list.
    pub fn new(key: &impl Serialize, page_size: i32, page_token: &str) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let page_size = violations.check(self::page_size(page_size));
        let before = violations.check(cursor(key, page_token, |_: &i64| true));
        let page = page_size.zip(before).map(|(page_size, before)| Self {
            before: before.unwrap_or(i64::MAX),
            page_size,
        });
        violations.finish(page)
    }
}

/// Converts the rows of one page into messages, and returns these with the token of the next page, which is empty for the last
/// one. A page ends after `page_size` rows, or before the row with which it would be larger than clients accept.
///
/// `rows`: read with one more than the page holds.
pub fn cut<T: Into<M>, M: Message, C: Serialize>(
    rows: Vec<T>,
    page_size: i64,
    request: &impl Serialize,
    cursor_of: impl Fn(&T) -> C,
) -> (Vec<M>, String) {
    let mut messages = Vec::with_capacity(rows.len());
    let (mut bytes, mut last) = (0, None);
    for row in rows {
        let cursor = cursor_of(&row);
        let message: M = row.into();
        bytes += message.encoded_len() + ROW_PREFIX_BYTES;
        // A page without any row would have no token.
        let is_full = messages.len() >= page_size as usize || bytes > MAX_ROW_BYTES;
        if let Some(last) = last.filter(|_| is_full) {
            return (messages, token(request, &last));
        }
        messages.push(message);
        last = Some(cursor);
    }
    (messages, String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_its_request() {
        let request = ("items", "a");
        let (own, impossible) = (token(&request, &"last"), token(&request, &"\0"));
        let check = |request: (&str, &str), token: &str, expected: Result<Option<&str>, &str>| {
            let found = cursor(&request, token, |id: &String| !id.contains('\0')).map_err(|error| error.field);
            let expected = expected.map(|cursor| cursor.map(str::to_owned));
            assert_eq!(found, expected.map_err(str::to_owned), "{token}");
        };
        check(request, &own, Ok(Some("last")));
        check(request, "", Ok(None));
        for token in ["x", "!!", &impossible] {
            check(request, token, Err("page_token"));
        }
        check(("items", "b"), &own, Err("page_token"));
    }

    #[test]
    fn an_authentic_token_cannot_be_made_or_changed_without_the_key() {
        let (key, other) = ([7; KEY_BYTES], [8; KEY_BYTES]);
        let find = |key, request: &str, token: &str| {
            let found = authentic_cursor(key, &request, token, |_: &u64| true);
            found.map_err(|error| error.reason)
        };
        let own = authentic_token(&key, &"a", &7_u64);
        assert_eq!(find(&key, "a", &own), Ok(Some(7)));
        assert_eq!(find(&key, "a", ""), Ok(None));
        let refused = Err("INVALID_PAGE_TOKEN");
        assert_eq!(find(&other, "a", &own), refused);
        assert_eq!(find(&key, "b", &own), refused);
        for token in ["x", "!!", &token(&"a", &7_u64), &authentic_token(&other, &"a", &7_u64)] {
            assert_eq!(find(&key, "a", token), refused, "{token}");
        }
        // Every bit counts, those of the code and those of the cursor.
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&own).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                find(&key, "a", &BASE64_URL_SAFE_NO_PAD.encode(changed)),
                refused,
                "{bit}"
            );
        }
        for end in 0..bytes.len() {
            let cut = BASE64_URL_SAFE_NO_PAD.encode(&bytes[..end]);
            assert!(cut.is_empty() || find(&key, "a", &cut) == refused, "{end}");
        }
    }

    struct Row(usize, String);

    impl From<Row> for String {
        fn from(row: Row) -> Self {
            row.1
        }
    }

    fn rows(n: usize, bytes: usize) -> Vec<Row> {
        (0..n).map(|row| Row(row, "x".repeat(bytes))).collect()
    }

    fn page_of(n: usize, bytes: usize, page_size: i64) -> (Vec<String>, String) {
        cut(rows(n, bytes), page_size, &"request", |row| row.0)
    }

    #[test]
    fn the_last_page_has_no_token() {
        let check = |rows: usize, expected: usize, has_next: bool| {
            let (page, next) = page_of(rows, 1, 3);
            assert_eq!((page.len(), !next.is_empty()), (expected, has_next), "{rows}");
        };
        check(0, 0, false);
        check(3, 3, false);
        check(4, 3, true);
    }

    #[test]
    fn a_page_ends_before_it_is_larger_than_clients_accept() {
        let check = |row_bytes: usize, expected: usize| {
            let (page, next) = page_of(101, row_bytes, 100);
            assert_eq!(page.len(), expected, "{row_bytes}");
            let bytes: usize = page.iter().map(|row| row.encoded_len() + ROW_PREFIX_BYTES).sum();
            assert!(expected == 1 || bytes + next.len() < MAX_ANSWER_BYTES, "{bytes}");
            let last = cursor(&"request", &next, |_: &usize| true).unwrap();
            assert_eq!(last, Some(expected - 1));
        };
        check(1_000, 100);
        check(100_000, 41);
        check(1_000_000, 4);
        // A row that is too large alone must not end the list.
        check(5_000_000, 1);
    }
}
