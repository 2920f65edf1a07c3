//! The origins whose pages may call from a browser.

use http::{HeaderValue, Uri};

use domain::error::InvalidField;

/// Origins such as `https://shop.example.com`, or all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    Any,
    Only(Vec<String>),
}

impl Origins {
    /// Reads a list with commas; `*` stands for every origin, and an empty list for none.
    ///
    /// # Errors
    /// `INVALID_ORIGIN` naming `field`.
    pub fn parse(field: &str, list: &str) -> Result<Self, InvalidField> {
        let origins = list.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        let origins: Vec<String> = origins.map(str::to_owned).collect();
        if origins == ["*"] {
            return Ok(Self::Any);
        }
        match origins.iter().find(|origin| !is_origin(origin)) {
            None => Ok(Self::Only(origins)),
            Some(origin) => Err(InvalidField::new(
                field,
                "INVALID_ORIGIN",
                format!(
                    "must be a list with commas of origins such as https://shop.example.com or http://localhost:8080, or only *, \
                     has {origin}"
                ),
            )),
        }
    }

    /// Returns the value of `access-control-allow-origin` for pages of `origin`; `None` if they may not call.
    pub fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match self {
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::Only(origins) => origins.iter().any(|allowed| allowed == origin).then(|| origin.clone()),
        }
    }
}

/// Browsers send an origin as scheme, host in lower case, and port unless it is the scheme's own.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    ["http", "https"].contains(&scheme)
        && text == format!("{scheme}://{authority}")
        && !authority.as_str().contains('@')
        && !text.bytes().any(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_listed_with_commas() {
        let check =
            |list: &str, expected: Result<Origins, &str>| match (Origins::parse("server.cors_origins", list), expected)
            {
                (Err(error), Err(part)) => {
                    assert_eq!(error.field, "server.cors_origins");
                    assert!(error.message.ends_with(&format!("has {part}")), "{error}");
                }
                (parsed, expected) => assert_eq!(
                    parsed.map_err(|error| error.to_string()),
                    expected.map_err(str::to_owned)
                ),
            };
        let only = |origins: &[&str]| Ok(Origins::Only(origins.iter().map(|origin| origin.to_string()).collect()));
        check("", only(&[]));
        check("*", Ok(Origins::Any));
        check(
            "https://shop.example.com, http://localhost:8080",
            only(&["https://shop.example.com", "http://localhost:8080"]),
        );
        for bad in [
            "shop.example.com",
            "https://shop.example.com/",
            "https://shop.example.com/page",
            "https://Shop.example.com",
            "ftp://shop.example.com",
            "https://me@shop.example.com",
            "null",
        ] {
            check(bad, Err(bad));
            check(&format!("https://a, {bad}"), Err(bad));
        }
        check("https://a,*", Err("*"));
    }

    #[test]
    fn only_a_listed_origin_is_allowed() {
        let check = |list: &str, origin: &'static str, expected: Option<&str>| {
            let allowed = Origins::parse("x", list)
                .unwrap()
                .allowed(&HeaderValue::from_static(origin));
            assert_eq!(allowed.as_ref().map(|allowed| allowed.to_str().unwrap()), expected);
        };
        check("https://a", "https://a", Some("https://a"));
        check("https://a", "https://a.b", None);
        check("https://a", "http://a", None);
        check("", "https://a", None);
        check("*", "null", Some("*"));
    }
}
