//! Purchases: the lines of orders.

use super::error::InvalidField;
use super::id::{ItemId, OrderId, UserId};
use super::money::Money;
use super::time::EventTime;

/// One line of an order, keyed by (order, user, item, line number).
#[derive(Debug, Clone, PartialEq)]
pub struct PurchaseLine {
    pub order: OrderId,
    /// At least 1.
    pub line_number: i32,
    pub user: UserId,
    pub item: ItemId,
    /// Negative for a return. 0 only with a coupon discount: the line is then no purchase, but tells that a coupon was used.
    pub quantity: i32,
    /// The price of the whole line; negative for a refund.
    pub line_total: Money,
    pub purchased_at: EventTime,
    /// The amount that coupons took off the line, in minor units of its currency; 0 or more.
    pub coupon_discount_minor: i64,
}

/// Checks the quantity of a line.
///
/// # Errors
/// `ZERO_QUANTITY`, naming `quantity`.
pub fn check_quantity(quantity: i32) -> Result<i32, InvalidField> {
    if quantity == 0 {
        return Err(InvalidField::new(
            "quantity",
            "ZERO_QUANTITY",
            "must not be 0; it is negative for a return",
        ));
    }
    Ok(quantity)
}

/// Checks the amount that coupons took off a line.
///
/// # Errors
/// `NEGATIVE_DISCOUNT`, naming `field`.
pub fn check_coupon_discount(field: &str, discount_minor: i64) -> Result<i64, InvalidField> {
    if discount_minor < 0 {
        let message = format!("must be 0 or more, is {discount_minor}");
        return Err(InvalidField::new(field, "NEGATIVE_DISCOUNT", message));
    }
    Ok(discount_minor)
}

/// Checks the number of a line in its order.
///
/// # Errors
/// `LINE_NUMBER_OUT_OF_RANGE`, naming `line_number`, below 1.
pub fn check_line_number(line_number: i32) -> Result<i32, InvalidField> {
    if line_number < 1 {
        return Err(InvalidField::new(
            "line_number",
            "LINE_NUMBER_OUT_OF_RANGE",
            format!("must be 1 or more, is {line_number}"),
        ));
    }
    Ok(line_number)
}
