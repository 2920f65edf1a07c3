//! The item filter of a request.

use crate::domain::error::InvalidField;
use crate::domain::id::{Category, MerchantId};
use crate::domain::money::Currency;
use crate::recommend::filter::{ItemFilter, PriceRange};

use crate::grpc::proto::v1;
use crate::grpc::status::Violations;

const MAX_NAMES: usize = 1_000;
const MAX_ITEMS: usize = 10_000;

/// What is wrong goes to `violations`.
pub fn item_filter(violations: &mut Violations, filter: Option<v1::ItemFilter>) -> ItemFilter {
    let Some(filter) = filter else { return ItemFilter::default() };
    ItemFilter {
        categories: names(violations, "filter.categories", filter.categories, Category::new),
        merchants: names(violations, "filter.merchant_ids", filter.merchant_ids, MerchantId::new),
        candidates: super::item_ids(violations, "filter.candidate_item_ids", filter.candidate_item_ids, 0, MAX_ITEMS),
        excluded: super::item_ids(violations, "filter.exclude_item_ids", filter.exclude_item_ids, 0, MAX_ITEMS),
        price: filter.price.and_then(|price| violations.check(price_range(price))),
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

fn price_range(price: v1::PriceRange) -> Result<PriceRange, InvalidField> {
    let within = |field: &str| format!("filter.price.{field}");
    let currency = Currency::new(&price.currency_code).map_err(|error| error.within("filter.price"))?;
    for (field, limit) in [("min_minor", price.min_minor), ("max_minor", price.max_minor)] {
        if limit.is_some_and(|limit| limit < 0) {
            return Err(InvalidField::new(within(field), "NEGATIVE_PRICE", "must be 0 or more"));
        }
    }
    if let (Some(min), Some(max)) = (price.min_minor, price.max_minor)
        && min > max
    {
        let message = format!("must not be below min_minor ({min}), is {max}");
        return Err(InvalidField::new(within("max_minor"), "EMPTY_RANGE", message));
    }
    Ok(PriceRange {
        currency,
        min_minor: price.min_minor,
        max_minor: price.max_minor,
    })
}
