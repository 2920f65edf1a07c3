//! Converts the messages about stored reservations and redemptions.

use chrono::Datelike;
use tonic::Status;

use crate::grpc::convert::{instant, timestamp};
use crate::grpc::page;
use crate::grpc::proto::v1;
use crate::grpc::status::{Violations, invalid_argument};
use crate::store::redemptions::records::{RecordCursor, RecordFilter, ReservationRecord};
use domain::access::Caller;
use domain::error::InvalidField;
use domain::id::{CampaignId, CouponId, OrderId, RedemptionId, ReservationId, UserId};
use domain::redemption::{Redemption, RedemptionStatus, Reservation, ReservationState};
use domain::time::Timestamp;

pub fn reservation_id(id: String) -> Result<ReservationId, Status> {
    ReservationId::new(id).map_err(|error| invalid_argument(vec![error]))
}

pub fn redemption_id(id: String) -> Result<RedemptionId, Status> {
    RedemptionId::new(id).map_err(|error| invalid_argument(vec![error]))
}

/// The fields of a list that reservations and redemptions share.
struct Common {
    campaign_id: Option<String>,
    coupon_id: Option<String>,
    user_id: Option<String>,
    from: (&'static str, Option<prost_types::Timestamp>),
    before: (&'static str, Option<prost_types::Timestamp>),
}

fn filter(violations: &mut Violations, common: Common, caller: &Caller) -> Option<RecordFilter> {
    let campaign = violations.check(common.campaign_id.map(CampaignId::new).transpose());
    let coupon = violations.check(common.coupon_id.map(CouponId::new).transpose());
    let user = violations.check(common.user_id.map(UserId::asked).transpose());
    let mut time = |(field, at): (&str, Option<prost_types::Timestamp>)| {
        violations.check(at.map(|at| instant(field, at)).transpose())
    };
    let (from, before) = (time(common.from), time(common.before));
    if let (Some(Some(from)), Some(Some(before))) = (from, before)
        && from >= before
    {
        let message = format!("must be later than {}", common.from.0);
        violations.add(InvalidField::new(common.before.0, "EMPTY_TIME_RANGE", message));
    }
    let names = campaign.zip(coupon).zip(user);
    names
        .zip(from.zip(before))
        .map(|(((campaign, coupon), user), (from, before))| RecordFilter {
            campaign,
            coupon,
            user,
            from,
            before,
            viewer: caller.merchant.clone(),
        })
}

/// Everything of a list that a page token is bound to.
#[derive(serde::Serialize)]
struct TokenKey<'a> {
    rpc: &'static str,
    campaign: Option<&'a str>,
    coupon: Option<&'a str>,
    user: Option<&'a str>,
    order: Option<&'a str>,
    from: Option<Timestamp>,
    before: Option<Timestamp>,
    states: Vec<&'static str>,
    viewer: Option<&'a str>,
}

impl<'a> TokenKey<'a> {
    fn new(rpc: &'static str, filter: &'a RecordFilter, order: Option<&'a OrderId>, states: Vec<&'static str>) -> Self {
        Self {
            rpc,
            campaign: filter.campaign.as_ref().map(CampaignId::as_str),
            coupon: filter.coupon.as_ref().map(CouponId::as_str),
            user: filter.user.as_ref().map(UserId::as_str),
            order: order.map(OrderId::as_str),
            from: filter.from,
            before: filter.before,
            states,
            viewer: filter.viewer.as_ref().map(|merchant| merchant.as_str()),
        }
    }
}

fn is_possible(cursor: &RecordCursor) -> bool {
    // PostgreSQL has fewer years than a token can name.
    (1900..=9998).contains(&cursor.at.year()) && ReservationId::new(&cursor.id).is_ok()
}

/// Converts enum values, and names the bad ones.
fn states<T: Ord>(
    violations: &mut Violations,
    field: &str,
    values: Vec<i32>,
    convert: impl Fn(i32) -> Option<T>,
) -> Vec<T> {
    let mut states = Vec::with_capacity(values.len());
    for (position, value) in values.into_iter().enumerate() {
        match convert(value) {
            Some(state) => states.push(state),
            None => violations.add(InvalidField::new(
                format!("{field}[{position}]"),
                "UNKNOWN_ENUM_VALUE",
                format!("must be a value of its enum other than 0, is {value}"),
            )),
        }
    }
    states.sort_unstable();
    states.dedup();
    states
}

pub struct ListReservations {
    pub filter: RecordFilter,
    pub states: Vec<ReservationState>,
    pub cursor: Option<RecordCursor>,
    pub page_size: i64,
}

impl ListReservations {
    pub fn new(request: v1::ListReservationsRequest, caller: &Caller) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let common = Common {
            campaign_id: request.campaign_id,
            coupon_id: request.coupon_id,
            user_id: request.user_id,
            from: ("reserved_from", request.reserved_from),
            before: ("reserved_before", request.reserved_before),
        };
        let filter = filter(&mut violations, common, caller);
        let states = states(&mut violations, "states", request.states, reservation_state);
        let page_size = violations.check(page::page_size(request.page_size));
        let Some((filter, page_size)) = filter.zip(page_size) else {
            return violations.finish(None);
        };
        let mut list = Self {
            filter,
            states,
            cursor: None,
            page_size,
        };
        let cursor = violations.check(page::cursor(&list.key(), &request.page_token, is_possible));
        list.cursor = cursor.flatten();
        violations.finish(Some(list))
    }

    /// Returns what a page token is bound to.
    pub fn key(&self) -> impl serde::Serialize {
        let states = self.states.iter().map(|state| state.as_str()).collect();
        TokenKey::new("ListReservations", &self.filter, None, states)
    }
}

pub struct ListRedemptions {
    pub filter: RecordFilter,
    pub order: Option<OrderId>,
    pub statuses: Vec<RedemptionStatus>,
    pub cursor: Option<RecordCursor>,
    pub page_size: i64,
}

impl ListRedemptions {
    pub fn new(request: v1::ListRedemptionsRequest, caller: &Caller) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let common = Common {
            campaign_id: request.campaign_id,
            coupon_id: request.coupon_id,
            user_id: request.user_id,
            from: ("redeemed_from", request.redeemed_from),
            before: ("redeemed_before", request.redeemed_before),
        };
        let filter = filter(&mut violations, common, caller);
        let order = violations.check(request.order_id.map(OrderId::new).transpose());
        let statuses = states(&mut violations, "statuses", request.statuses, redemption_status);
        let page_size = violations.check(page::page_size(request.page_size));
        let Some(((filter, order), page_size)) = filter.zip(order).zip(page_size) else {
            return violations.finish(None);
        };
        let mut list = Self {
            filter,
            order,
            statuses,
            cursor: None,
            page_size,
        };
        let cursor = violations.check(page::cursor(&list.key(), &request.page_token, is_possible));
        list.cursor = cursor.flatten();
        violations.finish(Some(list))
    }

    /// Returns what a page token is bound to.
    pub fn key(&self) -> impl serde::Serialize {
        let statuses = self.statuses.iter().map(|status| status.as_str()).collect();
        TokenKey::new("ListRedemptions", &self.filter, self.order.as_ref(), statuses)
    }
}

fn reservation_state(state: i32) -> Option<ReservationState> {
    match v1::ReservationState::try_from(state) {
        Ok(v1::ReservationState::Reserved) => Some(ReservationState::Reserved),
        Ok(v1::ReservationState::Confirmed) => Some(ReservationState::Confirmed),
        Ok(v1::ReservationState::Released) => Some(ReservationState::Released),
        Ok(v1::ReservationState::Expired) => Some(ReservationState::Expired),
        Ok(v1::ReservationState::Unspecified) | Err(_) => None,
    }
}

impl From<ReservationState> for v1::ReservationState {
    fn from(state: ReservationState) -> Self {
        match state {
            ReservationState::Reserved => Self::Reserved,
            ReservationState::Confirmed => Self::Confirmed,
            ReservationState::Released => Self::Released,
            ReservationState::Expired => Self::Expired,
        }
    }
}

fn redemption_status(status: i32) -> Option<RedemptionStatus> {
    match v1::RedemptionStatus::try_from(status) {
        Ok(v1::RedemptionStatus::Redeemed) => Some(RedemptionStatus::Redeemed),
        Ok(v1::RedemptionStatus::PartlyRolledBack) => Some(RedemptionStatus::PartlyRolledBack),
        Ok(v1::RedemptionStatus::RolledBack) => Some(RedemptionStatus::RolledBack),
        Ok(v1::RedemptionStatus::Unspecified) | Err(_) => None,
    }
}

impl From<RedemptionStatus> for v1::RedemptionStatus {
    fn from(status: RedemptionStatus) -> Self {
        match status {
            RedemptionStatus::Redeemed => Self::Redeemed,
            RedemptionStatus::PartlyRolledBack => Self::PartlyRolledBack,
            RedemptionStatus::RolledBack => Self::RolledBack,
        }
    }
}

/// A reservation that was just made, or was when the same request came first.
impl From<Reservation> for v1::Reservation {
    fn from(reservation: Reservation) -> Self {
        Self {
            reservation_id: reservation.id.to_string(),
            user_id: reservation.user.to_string(),
            coupon_id: reservation.coupon.to_string(),
            amount: Some(v1::Money {
                amount_minor: reservation.amount_minor,
                currency_code: reservation.currency.to_string(),
            }),
            reserved_at: Some(timestamp(reservation.reserved_at)),
            expires_at: Some(timestamp(reservation.expires_at)),
            campaign_id: reservation.campaign.to_string(),
            cart_id: reservation.cart.map(|cart| cart.to_string()).unwrap_or_default(),
            state: v1::ReservationState::Reserved.into(),
            closed_at: None,
            redemption_id: String::new(),
        }
    }
}

impl From<ReservationRecord> for v1::Reservation {
    fn from(record: ReservationRecord) -> Self {
        Self {
            state: v1::ReservationState::from(record.state).into(),
            closed_at: record.closed_at.map(timestamp),
            redemption_id: record.redemption.map(|id| id.to_string()).unwrap_or_default(),
            ..record.reservation.into()
        }
    }
}

impl From<Redemption> for v1::Redemption {
    fn from(redemption: Redemption) -> Self {
        Self {
            status: v1::RedemptionStatus::from(redemption.status()).into(),
            redemption_id: redemption.id.to_string(),
            reservation_id: redemption.reservation.map(|id| id.to_string()).unwrap_or_default(),
            user_id: redemption.user.to_string(),
            coupon_id: redemption.coupon.to_string(),
            amount: Some(v1::Money {
                amount_minor: redemption.amount_minor,
                currency_code: redemption.currency.to_string(),
            }),
            rolled_back_minor: redemption.rolled_back_minor,
            cap_restored: redemption.is_cap_restored,
            order_id: redemption.order.map(|order| order.to_string()),
            redeemed_at: Some(timestamp(redemption.redeemed_at)),
            campaign_id: redemption.campaign.map(|id| id.to_string()).unwrap_or_default(),
            cart_id: redemption.cart.map(|cart| cart.to_string()).unwrap_or_default(),
        }
    }
}
