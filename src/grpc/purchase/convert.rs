//! Converts the messages of PurchaseService.

use tonic::Status;

use crate::store::purchases::{PurchaseCursor, PurchaseOwner};
use domain::error::InvalidField;
use domain::id::{ItemId, OrderId, UserId};
use domain::money::Money;
use domain::purchase::{PurchaseLine, check_coupon_discount, check_line_number, check_quantity};
use domain::time::Timestamp;

use crate::grpc::convert::{event_time, required, timestamp};
use crate::grpc::page;
use crate::grpc::proto::v1;
use crate::grpc::status::Violations;

/// # Errors
/// The first bad field.
pub fn purchase_line(line: v1::PurchaseLine, now: Timestamp) -> Result<PurchaseLine, InvalidField> {
    Ok(PurchaseLine {
        order: OrderId::new(line.order_id)?,
        line_number: check_line_number(line.line_number)?,
        user: UserId::new(line.user_id)?,
        item: ItemId::new(line.item_id)?,
        quantity: check_quantity(line.quantity)?,
        line_total: required("line_total", line.line_total)
            .and_then(|total| Money::try_from(total).map_err(|error| error.within("line_total")))?,
        purchased_at: event_time("purchased_at", line.purchased_at, now)?,
        coupon_discount_minor: check_coupon_discount("coupon_discount_minor", line.coupon_discount_minor)?,
    })
}

impl From<PurchaseLine> for v1::PurchaseLine {
    fn from(line: PurchaseLine) -> Self {
        Self {
            order_id: line.order.to_string(),
            line_number: line.line_number,
            user_id: line.user.to_string(),
            item_id: line.item.to_string(),
            quantity: line.quantity,
            line_total: Some(line.line_total.into()),
            purchased_at: Some(timestamp(line.purchased_at.at())),
            coupon_discount_minor: line.coupon_discount_minor,
        }
    }
}

/// Returns what a page token is bound to.
pub fn owner_key(owner: &PurchaseOwner) -> (&'static str, &'static str, &str) {
    let (field, id) = match owner {
        PurchaseOwner::User(user) => (UserId::FIELD, user.as_str()),
        PurchaseOwner::Order(order) => (OrderId::FIELD, order.as_str()),
    };
    ("ListPurchases", field, id)
}

fn is_possible(cursor: &PurchaseCursor) -> bool {
    OrderId::new(&cursor.order_id).is_ok()
        && UserId::new(&cursor.user_id).is_ok()
        && ItemId::new(&cursor.item_id).is_ok()
}

pub struct ListPurchases {
    pub owner: PurchaseOwner,
    pub cursor: PurchaseCursor,
    pub page_size: i64,
}

impl TryFrom<v1::ListPurchasesRequest> for ListPurchases {
    type Error = Status;

    fn try_from(request: v1::ListPurchasesRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let owner = violations.check(required("of", request.of).and_then(|of| match of {
            v1::list_purchases_request::Of::UserId(id) => UserId::new(id).map(PurchaseOwner::User),
            v1::list_purchases_request::Of::OrderId(id) => OrderId::new(id).map(PurchaseOwner::Order),
        }));
        let page_size = violations.check(page::page_size(request.page_size));
        let cursor = owner
            .as_ref()
            .and_then(|owner| violations.check(page::cursor(&owner_key(owner), &request.page_token, is_possible)));
        let list = owner
            .zip(page_size)
            .zip(cursor)
            .map(|((owner, page_size), cursor)| Self {
                owner,
                cursor: cursor.unwrap_or_default(),
                page_size,
            });
        violations.finish(list)
    }
}
