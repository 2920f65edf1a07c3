//! Pages of a list: their sizes, and the tokens of the pages after the first.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use domain::error::InvalidField;

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
        None => Err(InvalidField::new(
            "page_token",
            "INVALID_PAGE_TOKEN",
            "must be empty, or the next_page_token of an answer to the same request",
        )),
    }
}

fn fingerprint(request: &impl Serialize) -> u64 {
    xxh3_64(&to_json(request))
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_else(|_| unreachable!("strings and numbers always serialize"))
}

/// Cuts `rows` to the page and returns them with the token of the next page, which is empty for the last one.
///
/// `rows`: read with one more than the page holds.
pub fn cut<T, C: Serialize>(
    mut rows: Vec<T>,
    page_size: i64,
    request: &impl Serialize,
    cursor_of: impl Fn(&T) -> C,
) -> (Vec<T>, String) {
    let size = page_size as usize;
    if rows.len() <= size {
        return (rows, String::new());
    }
    rows.truncate(size);
    let next = rows
        .last()
        .map(|last| token(request, &cursor_of(last)))
        .unwrap_or_default();
    (rows, next)
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
    fn the_last_page_has_no_token() {
        let check = |rows: usize, expected: usize, has_next: bool| {
            let (page, next) = cut((0..rows).collect(), 3, &"request", |row| *row);
            assert_eq!((page.len(), !next.is_empty()), (expected, has_next), "{rows}");
        };
        check(0, 0, false);
        check(3, 3, false);
        check(4, 3, true);
    }
}
