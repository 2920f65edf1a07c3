//! Reads orders and returns.

use futures_util::TryStreamExt;

use domain::returns::{Purchase, Return, settle, share};
use domain::time::Timestamp;
use recommender::snapshot::dictionary::{ItemIndex, UserIndex};
use recommender::training::input::{OrderEvent, ReturnEvent};

use super::Keyed;
use crate::store::error::StoreError;
use crate::store::postgres::pool::Connection;

/// The purchases of users, in any order.
#[derive(Debug, Default)]
pub(super) struct Purchases {
    pub orders: Vec<OrderEvent>,
    pub returns: Vec<ReturnEvent>,
}

/// Reads the purchases of the users who allow training.
///
/// `by_default`: whether users who have said nothing about training allow it.
pub(super) async fn read(
    connection: &mut Connection,
    by_default: bool,
    users: &Keyed<UserIndex>,
    items: &Keyed<ItemIndex>,
) -> Result<Purchases, StoreError> {
    let mut purchases = Purchases::default();
    // The times, quantities and totals of returns are in one order.
    let mut rows = sqlx::query_as!(
        Row,
        r#"SELECT purchases.user_id, item_id,
                  min(purchased_at) FILTER (WHERE quantity > 0) AS ordered_at,
                  COALESCE(sum(quantity) FILTER (WHERE quantity > 0), 0) AS "quantity!",
                  -- Within 64 bits, whatever was recorded.
                  GREATEST(LEAST(COALESCE(sum(line_total_minor) FILTER (WHERE quantity > 0), 0), 9223372036854775807),
                           -9223372036854775808)::bigint AS "total_minor!",
                  count(*) FILTER (WHERE quantity > 0 AND coupon_discount_minor > 0) AS "discounted_lines!",
                  array_agg(purchased_at ORDER BY purchased_at, line_number) FILTER (WHERE quantity < 0) AS returned_at,
                  array_agg(quantity ORDER BY purchased_at, line_number) FILTER (WHERE quantity < 0) AS returned,
                  array_agg(line_total_minor ORDER BY purchased_at, line_number) FILTER (WHERE quantity < 0)
                      AS refunds_minor
           FROM purchases LEFT JOIN consents ON consents.user_id = purchases.user_id AND purpose = 'training'
           WHERE COALESCE(is_granted, $1)
           GROUP BY order_id, purchases.user_id, item_id"#,
        by_default
    )
    .fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let user = users.index("purchases", row.user_id)?;
        let item = items.index("purchases", row.item_id)?;
        purchases.add(user, item, row);
    }
    Ok(purchases)
}

/// All lines of one order with one user and one item.
struct Row {
    user_id: i64,
    item_id: i64,
    /// `None` without a line that buys something.
    ordered_at: Option<Timestamp>,
    quantity: i64,
    total_minor: i64,
    discounted_lines: i64,
    /// The lines that return something; `None` without any.
    returned_at: Option<Vec<Timestamp>>,
    /// Below 0.
    returned: Option<Vec<i32>>,
    refunds_minor: Option<Vec<i64>>,
}

impl Purchases {
    fn add(&mut self, user: UserIndex, item: ItemIndex, row: Row) {
        let quantities = row.returned.unwrap_or_default();
        let lines = row.returned_at.unwrap_or_default().into_iter().zip(quantities);
        let lines = lines.zip(row.refunds_minor.unwrap_or_default());
        let mut returns: Vec<ReturnEvent> = lines
            .map(|((returned_at, quantity), total_minor)| ReturnEvent {
                user,
                item,
                returned_at,
                quantity: -i64::from(quantity),
                total_minor,
                order: None,
            })
            .collect();
        if let Some(ordered_at) = row.ordered_at {
            let order = OrderEvent {
                user,
                item,
                ordered_at,
                quantity: row.quantity,
                total_minor: row.total_minor,
                discounted_lines: u32::try_from(row.discounted_lines).unwrap_or(u32::MAX),
            };
            self.add_order(order, &mut returns);
        }
        self.returns.extend(returns);
    }

    /// Adds an order, unless `returns`, the returns in the same document, have taken it back from its beginning. Leaves of
    /// `returns` those that still have to be counted.
    fn add_order(&mut self, mut order: OrderEvent, returns: &mut Vec<ReturnEvent>) {
        let of_the_beginning = |event: &ReturnEvent| event.returned_at <= order.ordered_at;
        let purchase = Purchase {
            at: order.ordered_at,
            quantity: order.quantity,
        };
        let at_once: Vec<Return> = returns
            .iter()
            .filter(|event| of_the_beginning(event))
            .map(|event| Return {
                at: event.returned_at,
                quantity: event.quantity,
                purchase: Some(0),
            })
            .collect();
        let settled = settle(&[purchase], &at_once);
        let (at_once, later): (Vec<_>, Vec<_>) = returns.drain(..).partition(of_the_beginning);
        for (mut event, taken) in at_once.into_iter().zip(settled.taken) {
            let refund_minor = share(event.total_minor.into(), taken, event.quantity);
            // A share of an amount is within its range.
            let refund_minor = i64::try_from(refund_minor).unwrap_or(event.total_minor);
            order.total_minor = order.total_minor.saturating_add(refund_minor);
            event.quantity -= taken;
            event.total_minor -= refund_minor;
            if event.quantity > 0 {
                returns.push(event);
            }
        }
        order.quantity = settled.left[0];
        let is_left = order.quantity > 0;
        let own = u32::try_from(self.orders.len()).ok().filter(|_| is_left);
        returns.extend(later.into_iter().map(|event| ReturnEvent { order: own, ..event }));
        if is_left {
            self.orders.push(order);
        }
    }
}
