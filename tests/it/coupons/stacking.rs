//! Coupons that are used together on one cart.

use likemind::grpc::proto::v1::{
    Cart, CheckEligibilityRequest, Eligibility, ListUserCouponsRequest, ReasonCode, Reservation, ReserveCouponRequest,
    Verdict,
};
use sqlx::PgConnection;
use tonic::{Code, Status};

use crate::support::answers::assert_status;
use crate::support::coupons::{CouponClient, Offer, assert_balanced, cart};
use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::Server;
use crate::support::shop;
use crate::support::shop::user;

const PERCENT_60: &str = "discount = 'percent', percent_basis_points = 6000, amount_minor = NULL";
const FREE_SHIPPING: &str = "discount = 'free_shipping', amount_minor = NULL";

/// Starts a server of the shop with these coupons, each in a campaign of its own with a budget of 10,000. `coupons`: ids, and the
/// columns that are particular.
async fn serve(coupons: &[(&'static str, &str)]) -> (TestDatabase, PgConnection, Server, CouponClient) {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    for (id, columns) in coupons {
        let offer = Offer {
            limit_minor: Some(10_000),
            ..Offer::of(id)
        };
        offer.create(&mut connection).await;
        let change = format!("UPDATE coupons SET {columns} WHERE external_id = '{id}'");
        execute(&mut connection, &change).await;
    }
    let server = Server::start(&database);
    let client = CouponClient::of(&server).await;
    (database, connection, server, client)
}

/// Returns a cart of two items, 700 and 300, with a shipping of 400.
fn basket(cart_id: &str, applied: &[&str]) -> Cart {
    Cart {
        shipping_minor: 400,
        cart_id: cart_id.to_owned(),
        applied_coupon_ids: applied.iter().map(|&id| id.to_owned()).collect(),
        ..cart(&[(1, 700), (2, 300)])
    }
}

async fn reserve(client: &CouponClient, request_id: &str, coupon: &str, cart: Cart) -> Result<Reservation, Status> {
    let request = ReserveCouponRequest {
        request_id: request_id.to_owned(),
        user_id: user(1),
        coupon_id: coupon.to_owned(),
        cart: Some(cart),
    };
    let answer = client.rpc.clone().reserve_coupon(request).await?;
    Ok(answer.into_inner().reservation.unwrap())
}

async fn reserved_minor(client: &CouponClient, request_id: &str, coupon: &str, cart: Cart) -> (String, i64) {
    let reservation = reserve(client, request_id, coupon, cart).await.unwrap();
    (reservation.reservation_id, reservation.amount.unwrap().amount_minor)
}

async fn check(client: &CouponClient, coupon: &str, cart: Cart) -> Eligibility {
    let request = CheckEligibilityRequest {
        user_id: user(1),
        coupon_ids: vec![coupon.to_owned()],
        cart: Some(cart),
    };
    let answer = client.rpc.clone().check_eligibility(request).await.unwrap();
    answer.into_inner().coupons.remove(0)
}

#[tokio::test]
async fn percentages_are_taken_off_what_the_others_leave() {
    let (_database, mut connection, _server, client) =
        serve(&[("a", PERCENT_60), ("b", PERCENT_60), ("c", PERCENT_60)]).await;
    // Without reservations the named coupons are computed.
    let found = check(&client, "c", basket("", &["b", "a"])).await;
    assert_eq!((found.verdict(), found.discount_minor), (Verdict::Eligible, Some(96)));
    let list = ListUserCouponsRequest {
        user_id: user(1),
        cart: Some(basket("", &["a"])),
        preview: true,
        ..ListUserCouponsRequest::default()
    };
    let listed = client.rpc.clone().list_user_coupons(list).await.unwrap().into_inner();
    let listed: Vec<_> = listed
        .coupons
        .iter()
        .map(|listed| {
            (
                listed.coupon.as_ref().unwrap().coupon_id.as_str(),
                listed.discount_minor,
            )
        })
        .collect();
    assert_eq!(listed, [("b", Some(240)), ("c", Some(240))]);

    assert_eq!(reserved_minor(&client, "r1", "a", basket("x", &[])).await.1, 600);
    // It counts as applied, named or not.
    assert_eq!(check(&client, "c", basket("x", &[])).await.discount_minor, Some(240));
    assert_eq!(
        check(&client, "c", basket("another", &[])).await.discount_minor,
        Some(600)
    );
    assert_eq!(reserved_minor(&client, "r2", "b", basket("x", &["a"])).await.1, 240);
    assert_eq!(reserved_minor(&client, "r3", "c", basket("x", &[])).await.1, 96);
    // A retry gets the same answer.
    assert_eq!(reserved_minor(&client, "r2", "b", basket("x", &["a"])).await.1, 240);
    assert_balanced(&mut connection).await;
}

#[tokio::test]
async fn shipping_is_free_once() {
    let (_database, _connection, _server, client) = serve(&[("a", FREE_SHIPPING), ("b", FREE_SHIPPING)]).await;
    assert_eq!(check(&client, "b", basket("", &["a"])).await.discount_minor, Some(0));
    assert_eq!(reserved_minor(&client, "r1", "a", basket("x", &[])).await.1, 400);
    assert_eq!(reserved_minor(&client, "r2", "b", basket("x", &[])).await.1, 0);
}

#[tokio::test]
async fn a_coupon_that_is_applied_already_is_refused() {
    let (_database, _connection, _server, client) = serve(&[("a", PERCENT_60)]).await;
    let found = check(&client, "a", basket("", &["a"])).await;
    assert_eq!(found.reasons[0].code(), ReasonCode::AlreadyApplied);
    let status = reserve(&client, "r1", "a", basket("", &["a"])).await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "ALREADY_APPLIED");
    reserve(&client, "r2", "a", basket("x", &[])).await.unwrap();
    let status = reserve(&client, "r3", "a", basket("x", &[])).await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "ALREADY_APPLIED");
}

#[tokio::test]
async fn applied_coupons_must_be_reserved_for_the_same_cart() {
    let (_database, _connection, _server, client) = serve(&[("a", PERCENT_60), ("b", PERCENT_60)]).await;
    let status = reserve(&client, "r1", "b", basket("", &["a"])).await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "CART_ID_MISSING");
    let status = reserve(&client, "r1", "b", basket("x", &["a"])).await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "COUPON_NOT_APPLIED");
    reserve(&client, "r2", "a", basket("y", &[])).await.unwrap();
    let status = reserve(&client, "r1", "b", basket("x", &["a"])).await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "COUPON_NOT_APPLIED");
    assert!(status.message().contains("coupon a"), "{status:?}");
    assert_eq!(reserved_minor(&client, "r1", "b", basket("y", &["a"])).await.1, 240);
}

#[tokio::test]
async fn a_minimum_is_compared_before_or_after_other_discounts() {
    let before = "amount_minor = 100, min_cart_minor = 500";
    let after = "amount_minor = 100, min_cart_minor = 401, min_cart_basis = 'after_discounts'";
    let (_database, _connection, _server, client) =
        serve(&[("a", PERCENT_60), ("before", before), ("after", after)]).await;
    assert_eq!(
        check(&client, "after", basket("", &[])).await.verdict(),
        Verdict::Eligible
    );
    reserve(&client, "r1", "a", basket("x", &[])).await.unwrap();
    assert_eq!(
        check(&client, "before", basket("x", &[])).await.verdict(),
        Verdict::Eligible
    );
    let found = check(&client, "after", basket("x", &[])).await;
    assert_eq!(found.reasons[0].code(), ReasonCode::MinCartNotMet);
    assert_eq!(found.reasons[0].seen, "4.00 GBP");
}

#[tokio::test]
async fn redeemed_coupons_keep_their_amounts_until_they_are_given_back() {
    let (_database, mut connection, _server, client) =
        serve(&[("a", PERCENT_60), ("b", PERCENT_60), ("c", "amount_minor = 5000")]).await;
    let (first, _) = reserved_minor(&client, "r1", "a", basket("x", &[])).await;
    let (second, _) = reserved_minor(&client, "r2", "b", basket("x", &[])).await;
    let redemption = client.confirm("f1", &first, None).await.unwrap();
    assert_eq!(
        check(&client, "c", basket("x", &["a", "b"])).await.discount_minor,
        Some(160)
    );
    assert!(client.release("f2", &second).await.unwrap());
    assert_eq!(check(&client, "c", basket("x", &[])).await.discount_minor, Some(400));
    assert_eq!(check(&client, "b", basket("x", &[])).await.discount_minor, Some(240));
    client
        .roll_back("f3", &redemption.redemption_id, Some(100), false)
        .await
        .unwrap();
    assert_eq!(reserved_minor(&client, "r3", "c", basket("x", &[])).await.1, 500);
    client
        .roll_back("f4", &redemption.redemption_id, None, false)
        .await
        .unwrap();
    // The cart has 500 left.
    assert_eq!(reserved_minor(&client, "r4", "a", basket("x", &["c"])).await.1, 300);
    assert_balanced(&mut connection).await;
}
