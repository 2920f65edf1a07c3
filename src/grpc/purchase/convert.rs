//! Converts the messages of PurchaseService.

use std::collections::BTreeSet;

use tonic::Status;

use crate::store::purchases::deletion::{DeletedLines, LineSelection};
use crate::store::purchases::orders::{OrderOutcome, RecordedOrder};
use crate::store::purchases::{PurchaseCursor, PurchaseOwner};
use domain::error::InvalidField;
use domain::id::{ItemId, OrderId, UserId};
use domain::money::Money;
use domain::order::Order;
use domain::purchase::{PurchaseLine, check_coupon_discount, check_line_number, check_quantity};
use domain::time::{EventTime, Timestamp};

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

/// # Errors
/// The first bad field.
pub fn order(order: v1::Order, now: Timestamp) -> Result<Order, InvalidField> {
    let id = OrderId::new(order.order_id)?;
    let updated_at = event_time("updated_at", Some(required("updated_at", order.updated_at)?), now)?.at();
    let user = match order.user_id.is_empty() && order.lines.is_empty() {
        true => None,
        false => Some(UserId::new(order.user_id)?),
    };
    let placed_at = order.purchased_at.map(|at| event_time("purchased_at", Some(at), now));
    let head = OrderHead {
        id: &id,
        user: user.as_ref(),
        placed_at: placed_at.transpose()?,
        now,
    };
    let lines = order.lines.into_iter().zip(0..);
    let lines = lines.map(|(line, position)| order_line(line, &head, position));
    let lines = lines.collect::<Result<Vec<PurchaseLine>, InvalidField>>()?;
    Order::new(id, updated_at, lines)
}

/// All that the lines of an order have in common.
struct OrderHead<'a> {
    id: &'a OrderId,
    /// `None` only without lines.
    user: Option<&'a UserId>,
    placed_at: Option<EventTime>,
    now: Timestamp,
}

fn order_line(line: v1::OrderLine, head: &OrderHead<'_>, position: usize) -> Result<PurchaseLine, InvalidField> {
    let purchased_at = line
        .purchased_at
        .or_else(|| head.placed_at.map(|placed| timestamp(placed.at())));
    if purchased_at.is_none() {
        let message = "must be given, or every line must have one";
        return Err(InvalidField::new("purchased_at", "MISSING", message));
    }
    let line = v1::PurchaseLine {
        order_id: head.id.to_string(),
        line_number: line.line_number,
        user_id: head.user.map(ToString::to_string).unwrap_or_default(),
        item_id: line.item_id,
        quantity: line.quantity,
        line_total: line.line_total,
        purchased_at,
        coupon_discount_minor: line.coupon_discount_minor,
    };
    purchase_line(line, head.now).map_err(|error| error.within(format!("lines[{position}]")))
}

impl From<Result<RecordedOrder, InvalidField>> for v1::OrderResult {
    fn from(result: Result<RecordedOrder, InvalidField>) -> Self {
        match result {
            Ok(recorded) => Self {
                outcome: match recorded.outcome {
                    OrderOutcome::Stored => v1::OrderOutcome::Stored,
                    OrderOutcome::Identical => v1::OrderOutcome::Identical,
                    OrderOutcome::Superseded => v1::OrderOutcome::Superseded,
                    OrderOutcome::Dropped => v1::OrderOutcome::Dropped,
                }
                .into(),
                error: None,
                kept_updated_at: recorded.kept_updated_at.map(timestamp),
            },
            Err(error) => Self {
                outcome: v1::OrderOutcome::Rejected.into(),
                error: Some(error.into()),
                kept_updated_at: None,
            },
        }
    }
}

/// # Errors
/// The first bad field.
pub fn selection(selection: v1::PurchaseSelection) -> Result<LineSelection, InvalidField> {
    let mut line_numbers = BTreeSet::new();
    for (line_number, position) in selection.line_numbers.into_iter().zip(0..) {
        let line_number = check_line_number(line_number).map_err(|error| InvalidField {
            field: format!("line_numbers[{position}]"),
            ..error
        })?;
        line_numbers.insert(line_number);
    }
    Ok(LineSelection {
        order: OrderId::new(selection.order_id)?,
        line_numbers,
        user: selection.user_id.map(UserId::new).transpose()?,
        item: selection.item_id.map(ItemId::new).transpose()?,
    })
}

impl From<Result<DeletedLines, InvalidField>> for v1::PurchaseDeletion {
    fn from(result: Result<DeletedLines, InvalidField>) -> Self {
        let (outcome, error) = match &result {
            Ok(deleted) if deleted.count > 0 => (v1::DeletionOutcome::Deleted, None),
            Ok(_) => (v1::DeletionOutcome::NotFound, None),
            Err(error) => (v1::DeletionOutcome::Rejected, Some(error.clone().into())),
        };
        let deleted = result.unwrap_or_default();
        Self {
            outcome: outcome.into(),
            error,
            deleted_lines: i32::try_from(deleted.count).unwrap_or(i32::MAX),
            line_numbers_not_found: deleted.not_found.into_iter().collect(),
        }
    }
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
        && UserId::stored(&cursor.user_id).is_ok()
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
            v1::list_purchases_request::Of::UserId(id) => UserId::asked(id).map(PurchaseOwner::User),
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
