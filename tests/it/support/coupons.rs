//! Campaigns with one coupon each, a client that redeems coupons, and checks of the counters and ledgers.

use likemind::grpc::proto::v1::coupon_service_client::CouponServiceClient;
use likemind::grpc::proto::v1::{
    Cart, CartLine, ConfirmRedemptionRequest, Redemption, ReleaseReservationRequest, Reservation, ReserveCouponRequest,
    RollbackRedemptionRequest,
};
use sqlx::PgConnection;
use tonic::Status;

use super::api_keys::{KeyedChannel, WithKey};
use super::postgres::execute;
use super::program::Server;
use super::shop::item;

/// The coupon `id` of the campaign `k-id`. By default it takes 10 pounds off anything, for everybody, without a limit.
#[derive(Clone)]
pub struct Offer {
    pub id: &'static str,
    pub merchant: Option<&'static str>,
    pub state: &'static str,
    /// An interval from now, as `ends_in`.
    pub starts_in: &'static str,
    pub ends_in: &'static str,
    pub limit_minor: Option<i64>,
    pub priority: i32,
    pub is_exclusive: bool,
    pub is_assigned: bool,
    pub holdout_basis_points: i32,
    pub amount_minor: i64,
    pub min_cart_minor: i64,
    /// The items that the coupon covers; `None` covers everything.
    pub covers: Option<&'static [usize]>,
    pub per_user_cap: Option<i32>,
    pub total_cap: Option<i64>,
    pub ttl_seconds: i32,
    /// The rules as the database stores them.
    pub rules: &'static str,
}

impl Offer {
    pub fn of(id: &'static str) -> Self {
        Self {
            id,
            merchant: None,
            state: "active",
            starts_in: "-1 day",
            ends_in: "1 day",
            limit_minor: None,
            priority: 0,
            is_exclusive: false,
            is_assigned: false,
            holdout_basis_points: 0,
            amount_minor: 1_000,
            min_cart_minor: 0,
            covers: None,
            per_user_cap: None,
            total_cap: None,
            ttl_seconds: 900,
            rules: "[]",
        }
    }

    pub async fn create(&self, connection: &mut PgConnection) {
        let audience = if self.is_assigned { "assigned" } else { "all" };
        sqlx::query(
            "WITH campaign AS (
                 INSERT INTO campaigns (external_id, merchant_id, currency_code, priority, is_exclusive, audience,
                                        holdout_basis_points, holdout_salt)
                 VALUES ('k-' || $1, (SELECT id FROM merchants WHERE external_id = $2), 'GBP', $3, $4, $5, $6,
                         decode(md5($1), 'hex'))
                 RETURNING id
             ), state AS (
                 INSERT INTO campaign_states (campaign_id, state, starts_at, ends_at, limit_minor)
                 SELECT id, $7, date_trunc('minute', now()) + $8::interval, date_trunc('minute', now()) + $9::interval, $10
                 FROM campaign
             ), coupon AS (
                 INSERT INTO coupons (external_id, campaign_id, discount, amount_minor, min_cart_minor, covers_all,
                                      per_user_cap, reservation_ttl_seconds, rules)
                 SELECT $1, id, 'amount', $11, $12, $13, $14, $15, $16::jsonb FROM campaign RETURNING id
             ), covered AS (
                 INSERT INTO coupon_items
                 SELECT coupon.id, items.id FROM coupon, items WHERE items.external_id = ANY($17::text[])
             )
             INSERT INTO coupon_counters (coupon_id, total_cap) SELECT id, $18 FROM coupon",
        )
        .bind(self.id)
        .bind(self.merchant)
        .bind(self.priority)
        .bind(self.is_exclusive)
        .bind(audience)
        .bind(self.holdout_basis_points)
        .bind(self.state)
        .bind(self.starts_in)
        .bind(self.ends_in)
        .bind(self.limit_minor)
        .bind(self.amount_minor)
        .bind(self.min_cart_minor)
        .bind(self.covers.is_none())
        .bind(self.per_user_cap)
        .bind(self.ttl_seconds)
        .bind(self.rules)
        .bind(
            self.covers
                .unwrap_or_default()
                .iter()
                .map(|&number| item(number))
                .collect::<Vec<_>>(),
        )
        .bind(self.total_cap)
        .execute(&mut *connection)
        .await
        .unwrap();
        execute(connection, "UPDATE coupon_book SET revision = revision + 1").await;
    }
}

/// Returns a cart in pounds without shipping. `lines`: the number of each item, and what its line costs.
pub fn cart(lines: &[(usize, i64)]) -> Cart {
    let line = |&(number, total_minor): &(usize, i64)| CartLine {
        item_id: item(number),
        quantity: 1,
        total_minor,
    };
    Cart {
        currency_code: "GBP".to_owned(),
        lines: lines.iter().map(line).collect(),
        shipping_minor: 0,
        applied_coupon_ids: Vec::new(),
        cart_id: String::new(),
    }
}

/// A caller that checks coupons and redeems them.
#[derive(Clone)]
pub struct CouponClient {
    pub rpc: CouponServiceClient<KeyedChannel>,
}

impl CouponClient {
    pub async fn of(server: &Server) -> Self {
        Self::with_key(server, None).await
    }

    pub async fn with_key(server: &Server, key: Option<&str>) -> Self {
        Self {
            rpc: CouponServiceClient::with_interceptor(server.channel().await, WithKey::new(key)),
        }
    }

    /// Reserves `coupon` for a cart of one line that costs `total_minor`.
    pub async fn reserve(
        &self,
        request_id: &str,
        user: &str,
        coupon: &str,
        total_minor: i64,
    ) -> Result<Reservation, Status> {
        let request = ReserveCouponRequest {
            request_id: request_id.to_owned(),
            user_id: user.to_owned(),
            coupon_id: coupon.to_owned(),
            cart: Some(cart(&[(1, total_minor)])),
        };
        let answer = self.rpc.clone().reserve_coupon(request).await?;
        Ok(answer.into_inner().reservation.unwrap())
    }

    pub async fn confirm(
        &self,
        request_id: &str,
        reservation: &str,
        amount_minor: Option<i64>,
    ) -> Result<Redemption, Status> {
        let request = ConfirmRedemptionRequest {
            request_id: request_id.to_owned(),
            reservation_id: reservation.to_owned(),
            amount_minor,
            order_id: Some("an order".to_owned()),
        };
        let answer = self.rpc.clone().confirm_redemption(request).await?;
        Ok(answer.into_inner().redemption.unwrap())
    }

    pub async fn release(&self, request_id: &str, reservation: &str) -> Result<bool, Status> {
        let request = ReleaseReservationRequest {
            request_id: request_id.to_owned(),
            reservation_id: reservation.to_owned(),
        };
        let answer = self.rpc.clone().release_reservation(request).await?;
        Ok(answer.into_inner().released)
    }

    pub async fn roll_back(
        &self,
        request_id: &str,
        redemption: &str,
        amount_minor: Option<i64>,
        restore_cap: bool,
    ) -> Result<Redemption, Status> {
        let request = RollbackRedemptionRequest {
            request_id: request_id.to_owned(),
            redemption_id: redemption.to_owned(),
            amount_minor,
            restore_cap,
        };
        let answer = self.rpc.clone().rollback_redemption(request).await?;
        Ok(answer.into_inner().redemption.unwrap())
    }
}

/// The counters of a coupon and of its campaign's budget.
#[derive(Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Usage {
    pub reserved: i64,
    pub redeemed: i64,
    pub reserved_minor: i64,
    pub spent_minor: i64,
}

pub async fn usage(connection: &mut PgConnection, coupon: &str) -> Usage {
    sqlx::query_as(
        "SELECT reserved, redeemed, reserved_minor, spent_minor
         FROM coupons JOIN coupon_counters ON coupon_id = coupons.id JOIN campaign_states USING (campaign_id)
         WHERE external_id = $1",
    )
    .bind(coupon)
    .fetch_one(connection)
    .await
    .unwrap()
}

/// Asserts that the counters equal the sums of the ledger and the open reservations and redemptions, and that no limit is
/// exceeded.
pub async fn assert_balanced(connection: &mut PgConnection) {
    let found: Vec<String> = sqlx::query_scalar(include_str!("../../faults/redemption_invariants.sql"))
        .fetch_all(connection)
        .await
        .unwrap();
    assert!(found.is_empty(), "{found:#?}");
}
