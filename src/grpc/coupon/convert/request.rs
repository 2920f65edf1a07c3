//! Converts requests. An error names every wrong field.

use std::collections::HashSet;
use std::sync::Arc;

use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Status;

use crate::app::eligibility::{CheckRequest, Selection, UserCouponsRequest};
use crate::app::redemption::ReserveRequest;
use crate::grpc::proto::v1;
use crate::grpc::status::Violations;
use crate::store::redemptions::requests::Request;
use crate::store::redemptions::{Confirmation, Rollback};
use domain::access::Caller;
use domain::coupon::{Cart, CartLine};
use domain::error::InvalidField;
use domain::id::{CartId, CouponId, ItemId, OrderId, RedemptionId, RequestId, ReservationId, UserId};
use domain::money::Currency;

/// Most coupons that CheckEligibility takes.
const MAX_COUPONS: usize = 1_000;
/// Most lines that a cart may have.
const MAX_LINES: usize = 1_000;
/// Most coupons that may be applied in a cart.
const MAX_APPLIED: usize = 100;
const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: i32 = 1_000;

pub fn check(request: v1::CheckEligibilityRequest, caller: Arc<Caller>) -> Result<CheckRequest, Status> {
    let mut violations = Violations::default();
    let user = violations.check(UserId::asked(request.user_id));
    let coupons = coupon_ids(&mut violations, "coupon_ids", request.coupon_ids, MAX_COUPONS);
    let cart = request.cart.map(|cart| self::cart(&mut violations, cart));
    let request = user.map(|user| CheckRequest {
        user,
        coupons: match coupons.is_empty() {
            true => Selection::OnOffer,
            false => Selection::Named(coupons),
        },
        cart: cart.flatten(),
        caller,
    });
    violations.finish(request)
}

pub fn list(request: v1::ListUserCouponsRequest, caller: Arc<Caller>) -> Result<UserCouponsRequest, Status> {
    let mut violations = Violations::default();
    let user = violations.check(UserId::asked(request.user_id));
    let cart = request.cart.map(|cart| self::cart(&mut violations, cart));
    let limit = violations.check(limit(request.limit));
    let request = user.zip(limit).map(|(user, limit)| UserCouponsRequest {
        check: CheckRequest {
            user,
            coupons: Selection::OnOffer,
            cart: cart.flatten(),
            caller,
        },
        limit,
        personalized: request.personalized.unwrap_or(true),
        preview: request.preview,
    });
    violations.finish(request)
}

pub fn reserve(request: v1::ReserveCouponRequest, caller: Arc<Caller>) -> Result<ReserveRequest, Status> {
    let mut violations = Violations::default();
    let body_hash = body_hash("ReserveCoupon", &request);
    let id = violations.check(RequestId::new(request.request_id));
    let user = violations.check(UserId::new(request.user_id));
    let coupon = violations.check(CouponId::new(request.coupon_id));
    let cart = match request.cart {
        Some(cart) => self::cart(&mut violations, cart),
        None => {
            violations.add(InvalidField::new("cart", "MISSING", "must be given"));
            None
        }
    };
    let request = id
        .zip(user)
        .zip(coupon)
        .zip(cart)
        .map(|(((id, user), coupon), cart)| ReserveRequest {
            request: self::request(&caller, id, body_hash),
            user,
            coupon,
            cart,
            caller,
        });
    violations.finish(request)
}

/// `redemption`: a new id, for a redemption that is made now.
pub fn confirm(
    request: v1::ConfirmRedemptionRequest,
    redemption: RedemptionId,
    caller: &Caller,
) -> Result<(Request, Confirmation), Status> {
    let mut violations = Violations::default();
    let body_hash = body_hash("ConfirmRedemption", &request);
    let id = violations.check(RequestId::new(request.request_id));
    let reservation = violations.check(ReservationId::new(request.reservation_id));
    let amount_minor = violations.check(at_least("amount_minor", request.amount_minor, 0));
    let order = violations.check(request.order_id.map(OrderId::new).transpose());
    let request = id.zip(reservation).zip(amount_minor).zip(order);
    let request = request.map(|(((id, reservation), amount_minor), order)| {
        let confirmation = Confirmation {
            reservation,
            redemption,
            amount_minor,
            order,
        };
        (self::request(caller, id, body_hash), confirmation)
    });
    violations.finish(request)
}

pub fn release(request: v1::ReleaseReservationRequest, caller: &Caller) -> Result<(Request, ReservationId), Status> {
    let mut violations = Violations::default();
    let body_hash = body_hash("ReleaseReservation", &request);
    let id = violations.check(RequestId::new(request.request_id));
    let reservation = violations.check(ReservationId::new(request.reservation_id));
    let request = id
        .zip(reservation)
        .map(|(id, reservation)| (self::request(caller, id, body_hash), reservation));
    violations.finish(request)
}

pub fn rollback(request: v1::RollbackRedemptionRequest, caller: &Caller) -> Result<(Request, Rollback), Status> {
    let mut violations = Violations::default();
    let body_hash = body_hash("RollbackRedemption", &request);
    let id = violations.check(RequestId::new(request.request_id));
    let redemption = violations.check(RedemptionId::new(request.redemption_id));
    let amount_minor = violations.check(at_least("amount_minor", request.amount_minor, 1));
    let request = id
        .zip(redemption)
        .zip(amount_minor)
        .map(|((id, redemption), amount_minor)| {
            let rollback = Rollback {
                redemption,
                amount_minor,
                restore_cap: request.restore_cap,
            };
            (self::request(caller, id, body_hash), rollback)
        });
    violations.finish(request)
}

fn request(caller: &Caller, id: RequestId, body_hash: [u8; 32]) -> Request {
    Request {
        caller: caller.name.to_string(),
        id,
        body_hash,
    }
}

/// Returns a hash of the RPC's name and of the whole message. A request id may be used again only with the same hash.
fn body_hash(rpc: &str, message: &impl Message) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(rpc.as_bytes());
    hasher.update([0]);
    hasher.update(message.encode_to_vec());
    hasher.finalize().into()
}

fn at_least(field: &str, amount: Option<i64>, least: i64) -> Result<Option<i64>, InvalidField> {
    match amount {
        Some(amount) if amount < least => {
            let message = format!("must be {least} or more, is {amount}");
            Err(InvalidField::new(field, "OUT_OF_RANGE", message))
        }
        amount => Ok(amount),
    }
}

fn limit(requested: i32) -> Result<usize, InvalidField> {
    match requested {
        0 => Ok(DEFAULT_LIMIT),
        1..=MAX_LIMIT => Ok(requested as usize),
        _ => {
            let message = format!("must lie between 1 and {MAX_LIMIT} (0 means {DEFAULT_LIMIT}), is {requested}");
            Err(InvalidField::new("limit", "LIMIT_OUT_OF_RANGE", message))
        }
    }
}

/// Returns the valid ones of `ids` and adds what is wrong to `violations`.
fn coupon_ids(violations: &mut Violations, field: &str, ids: Vec<String>, max: usize) -> Vec<CouponId> {
    if ids.len() > max {
        let message = format!("must have at most {max} entries, has {}", ids.len());
        violations.add(InvalidField::new(field, "BATCH_SIZE_OUT_OF_RANGE", message));
        return Vec::new();
    }
    let mut seen = HashSet::with_capacity(ids.len());
    let mut coupons = Vec::with_capacity(ids.len());
    for (position, id) in ids.into_iter().enumerate() {
        let at = format!("{field}[{position}]");
        let coupon = CouponId::new(id).map_err(|error| InvalidField {
            field: at.clone(),
            ..error
        });
        let Some(coupon) = violations.check(coupon) else {
            continue;
        };
        if seen.insert(coupon.clone()) {
            coupons.push(coupon);
        } else {
            let message = format!("must not name a coupon twice, {coupon} is repeated");
            violations.add(InvalidField::new(at, "REPEATED_COUPON", message));
        }
    }
    coupons
}

/// Returns `None` when the cart cannot be used, after adding what is wrong to `violations`.
fn cart(violations: &mut Violations, cart: v1::Cart) -> Option<Cart> {
    let currency = Currency::new(&cart.currency_code).map_err(|error| error.within("cart"));
    let currency = violations.check(currency);
    if cart.lines.is_empty() || cart.lines.len() > MAX_LINES {
        let message = format!("must have 1 to {MAX_LINES} entries, has {}", cart.lines.len());
        violations.add(InvalidField::new("cart.lines", "BATCH_SIZE_OUT_OF_RANGE", message));
        return None;
    }
    let mut lines = Vec::with_capacity(cart.lines.len());
    for (position, line) in cart.lines.into_iter().enumerate() {
        let at = format!("cart.lines[{position}]");
        let item = violations.check(ItemId::new(line.item_id).map_err(|error| error.within(&at)));
        let quantity = at_least(&format!("{at}.quantity"), Some(line.quantity.into()), 1);
        let total = at_least(&format!("{at}.total_minor"), Some(line.total_minor), 0);
        let checked = (violations.check(quantity), violations.check(total));
        if let (Some(item), (Some(_), Some(_))) = (item, checked) {
            lines.push(CartLine {
                item,
                quantity: line.quantity,
                total_minor: line.total_minor,
            });
        }
    }
    let shipping = at_least("cart.shipping_minor", Some(cart.shipping_minor), 0);
    let shipping = violations.check(shipping);
    let applied = coupon_ids(
        violations,
        "cart.applied_coupon_ids",
        cart.applied_coupon_ids,
        MAX_APPLIED,
    );
    let id = (!cart.cart_id.is_empty()).then(|| CartId::new(&cart.cart_id).map_err(|error| error.within("cart")));
    let id = violations.check(id.transpose());
    currency.zip(shipping).zip(id).map(|((currency, _), id)| Cart {
        id,
        currency,
        lines,
        shipping_minor: cart.shipping_minor,
        applied,
    })
}
