//! Converts the item filter of a request.

use domain::error::InvalidField;
use domain::id::{Category, MerchantId};
use domain::money::Currency;
use recommender::ranking::filter::{ItemFilter, PriceRange};

use crate::grpc::proto::v1;
use crate::grpc::status::Violations;

const MAX_NAMES: usize = 1_000;
const MAX_ITEMS: usize = 10_000;

/// Adds what is wrong to `violations`.
pub fn item_filter(violations: &mut Violations, filter: Option<v1::ItemFilter>) -> ItemFilter {
    let Some(filter) = filter else {
        return ItemFilter::default();
    };
    ItemFilter {
        categories: names(violations, "filter.categories", filter.categories, Category::new),
        merchants: names(violations, "filter.merchant_ids", filter.merchant_ids, MerchantId::new),
        candidates: super::item_ids(
            violations,
            "filter.candidate_item_ids",
            filter.candidate_item_ids,
            0,
            MAX_ITEMS,
        ),
        excluded: super::item_ids(
            violations,
            "filter.exclude_item_ids",
            filter.exclude_item_ids,
            0,
            MAX_ITEMS,
        ),
        price: filter.price.and_then(|price| price_range(violations, price)),
    }
}

fn names<T>(
    violations: &mut Violations,
    field: &str,
    names: Vec<String>,
    convert: impl Fn(String) -> Result<T, InvalidField>,
) -> Vec<T> {
    if names.len() > MAX_NAMES {
        let message = format!("must have at most {MAX_NAMES} entries, has {}", names.len());
        violations.add(InvalidField::new(field, "BATCH_SIZE_OUT_OF_RANGE", message));
        return Vec::new();
    }
    let name = |(position, name): (usize, String)| {
        let name = convert(name).map_err(|error| InvalidField {
            field: format!("{field}[{position}]"),
            ..error
        });
        violations.check(name)
    };
    names.into_iter().enumerate().filter_map(name).collect()
}

fn price_range(violations: &mut Violations, price: v1::PriceRange) -> Option<PriceRange> {
    let not_negative = |field: &str, limit: Option<i64>| match limit {
        Some(limit) if limit < 0 => {
            let message = format!("must be 0 or more, is {limit}");
            Err(InvalidField::new(field, "NEGATIVE_PRICE", message))
        }
        _ => Ok(limit),
    };
    let not_below = |max: Option<i64>| match (price.min_minor, max) {
        (Some(min), Some(max)) if min > max => {
            let message = format!("must not be below min_minor ({min}), is {max}");
            Err(InvalidField::new("max_minor", "EMPTY_RANGE", message))
        }
        _ => Ok(max),
    };
    let within = |error: InvalidField| error.within("filter.price");
    let currency = violations.check(Currency::new(&price.currency_code).map_err(within));
    let min_minor = violations.check(not_negative("min_minor", price.min_minor).map_err(within));
    let max_minor = not_negative("max_minor", price.max_minor).and_then(not_below);
    let max_minor = violations.check(max_minor.map_err(within));
    Some(PriceRange {
        currency: currency?,
        min_minor: min_minor?,
        max_minor: max_minor?,
    })
}
