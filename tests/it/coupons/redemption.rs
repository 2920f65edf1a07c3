//! Reserving, redeeming, releasing and rolling back coupons.

mod hammer;
mod parallel_clients;

use chrono::DateTime;
use futures_util::future::join_all;
use likemind::grpc::proto::v1::{
    Cart, Money, Redemption, RedemptionStatus, Reservation, ReservationState, ReserveCouponRequest,
};
use prost_types::Timestamp;
use sqlx::PgConnection;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::answers::assert_status;
use crate::support::caller::pounds;
use crate::support::coupons::{CouponClient, Offer, Usage, assert_balanced, cart, usage};
use crate::support::postgres::{TestDatabase, execute};
use crate::support::program::{Server, succeed};
use crate::support::shop;
use crate::support::shop::user;
use crate::support::waiting::eventually;

/// Starts a server of the shop with these offers.
async fn serve(offers: &[Offer], settings: &[(&str, &str)]) -> (TestDatabase, PgConnection, Server) {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    for offer in offers {
        offer.create(&mut connection).await;
    }
    let server = Server::with(&database, settings);
    (database, connection, server)
}

/// With this setting the server does not sweep expired reservations; only requests release them.
const NO_SWEEPS: (&str, &str) = ("coupons.sweep_interval_ms", "3600000");

fn used(reserved: i64, reserved_minor: i64, redeemed: i64, spent_minor: i64) -> Usage {
    Usage {
        reserved,
        redeemed,
        reserved_minor,
        spent_minor,
    }
}

fn micros(at: &Option<Timestamp>) -> i64 {
    let at = at.unwrap();
    DateTime::from_timestamp(at.seconds, at.nanos as u32)
        .unwrap()
        .timestamp_micros()
}

/// Asserts that `status` is FAILED_PRECONDITION for these reasons and no others.
#[track_caller]
fn assert_refused(status: &Status, reasons: &str) {
    let first = reasons.split(',').next().unwrap();
    assert_status(status, Code::FailedPrecondition, first);
    let metadata = status.get_details_error_info().unwrap().metadata;
    assert_eq!(metadata.get("reasons").map(String::as_str), Some(reasons), "{status:?}");
    for reason in reasons.split(',') {
        assert!(status.message().contains(reason), "{status:?}");
    }
}

#[tokio::test]
async fn a_confirmed_reservation_spends_its_amount_and_frees_the_rest() {
    let offer = Offer {
        limit_minor: Some(1_500),
        per_user_cap: Some(1),
        ..Offer::of("c")
    };
    let (_database, mut connection, server) = serve(&[offer], &[]).await;
    let client = CouponClient::of(&server).await;
    let reservation = client.reserve("r1", &user(1), "c", 2_000).await.unwrap();
    let Reservation {
        reservation_id,
        reserved_at,
        expires_at,
        ..
    } = &reservation;
    assert_eq!(reservation_id.len(), 32, "{reservation_id}");
    assert_eq!(micros(expires_at) - micros(reserved_at), 900_000_000);
    let expected = Reservation {
        reservation_id: reservation_id.clone(),
        user_id: user(1),
        coupon_id: "c".to_owned(),
        amount: Some(pounds(1_000)),
        reserved_at: *reserved_at,
        expires_at: *expires_at,
        campaign_id: "k-c".to_owned(),
        state: ReservationState::Reserved.into(),
        ..Reservation::default()
    };
    assert_eq!(reservation, expected);
    assert_eq!(usage(&mut connection, "c").await, used(1, 1_000, 0, 0));
    // The reserved amount is not available to other users.
    let status = client.reserve("r2", &user(2), "c", 2_000).await.unwrap_err();
    assert_refused(&status, "BUDGET_EXHAUSTED");
    assert!(status.message().contains("10.00 GBP left of the budget"), "{status:?}");
    assert!(status.message().contains("5.00 GBP left"), "{status:?}");
    let status = client.reserve("r3", &user(1), "c", 400).await.unwrap_err();
    assert_refused(&status, "USER_CAP_REACHED");

    let redemption = client.confirm("r4", reservation_id, Some(700)).await.unwrap();
    let expected = Redemption {
        redemption_id: redemption.redemption_id.clone(),
        reservation_id: reservation_id.clone(),
        user_id: user(1),
        coupon_id: "c".to_owned(),
        amount: Some(Money {
            amount_minor: 700,
            currency_code: "GBP".to_owned(),
        }),
        rolled_back_minor: 0,
        cap_restored: false,
        order_id: Some("an order".to_owned()),
        redeemed_at: redemption.redeemed_at,
        campaign_id: "k-c".to_owned(),
        cart_id: String::new(),
        status: RedemptionStatus::Redeemed.into(),
    };
    assert_eq!(redemption, expected);
    assert_eq!(redemption.redemption_id.len(), 32);
    assert!(micros(&redemption.redeemed_at) > micros(reserved_at));
    assert_eq!(usage(&mut connection, "c").await, used(0, 0, 1, 700));
    // The rest of the reserved amount is available again.
    let reservation = client.reserve("r5", &user(2), "c", 800).await.unwrap();
    assert!(client.release("r6", &reservation.reservation_id).await.unwrap());
    assert_eq!(usage(&mut connection, "c").await, used(0, 0, 1, 700));
    assert_balanced(&mut connection).await;
}

#[tokio::test]
async fn a_refusal_names_every_failing_reason() {
    let offers = [
        Offer::of("c"),
        Offer {
            state: "paused",
            limit_minor: Some(0),
            total_cap: Some(0),
            min_cart_minor: 5_000,
            ..Offer::of("many")
        },
        Offer {
            merchant: Some("m0"),
            ..Offer::of("m0s")
        },
    ];
    let (_database, mut connection, server) = serve(&offers, &[]).await;
    let client = CouponClient::of(&server).await;
    let status = client.reserve("r", "nobody", "many", 2_000).await.unwrap_err();
    assert_refused(
        &status,
        "CAMPAIGN_PAUSED,BUDGET_EXHAUSTED,TOTAL_CAP_REACHED,USER_UNKNOWN,MIN_CART_NOT_MET",
    );
    assert!(
        status.message().contains("at least 50.00 GBP of covered items") && status.message().contains("20.00 GBP"),
        "{status:?}"
    );
    // Item 1 belongs to merchant m1.
    let status = client.reserve("r", &user(1), "m0s", 2_000).await.unwrap_err();
    assert_refused(&status, "NO_QUALIFYING_ITEM");
    let dollars = ReserveCouponRequest {
        request_id: "r".to_owned(),
        user_id: user(1),
        coupon_id: "c".to_owned(),
        cart: Some(Cart {
            currency_code: "USD".to_owned(),
            ..cart(&[(1, 2_000)])
        }),
    };
    let status = client.rpc.clone().reserve_coupon(dollars).await.unwrap_err();
    assert_refused(&status, "CURRENCY_MISMATCH");

    // No refusal has used up the request id.
    client.reserve("r", &user(1), "c", 2_000).await.unwrap();
    assert_eq!(usage(&mut connection, "c").await, used(1, 1_000, 0, 0));
    assert_balanced(&mut connection).await;
}

#[tokio::test]
async fn unknown_coupons_reservations_and_redemptions_are_not_found() {
    let (_database, _, server) = serve(&[], &[]).await;
    let client = CouponClient::of(&server).await;
    let unknown = client.reserve("r", &user(1), "none", 2_000).await.unwrap_err();
    assert_status(&unknown, Code::NotFound, "COUPON_NOT_FOUND");
    for unknown in [
        client.confirm("r", "none", None).await.unwrap_err(),
        client.release("r", "none").await.unwrap_err(),
    ] {
        assert_status(&unknown, Code::NotFound, "RESERVATION_NOT_FOUND");
    }
    let unknown = client.roll_back("r", "none", None, false).await.unwrap_err();
    assert_status(&unknown, Code::NotFound, "REDEMPTION_NOT_FOUND");
}

#[tokio::test]
async fn a_closed_reservation_is_refused_and_amounts_stay_within_what_is_reserved_and_redeemed() {
    let (_database, mut connection, server) = serve(&[Offer::of("c")], &[]).await;
    let client = CouponClient::of(&server).await;
    let failed = |status: Status, reason: &str| assert_status(&status, Code::FailedPrecondition, reason);
    // A request that finds nothing does not use up its id.
    client.confirm("r", "none", None).await.unwrap_err();
    client.release("r", "none").await.unwrap_err();
    client.roll_back("r", "none", None, false).await.unwrap_err();
    let reserved = client.reserve("r", &user(1), "c", 2_000).await.unwrap();
    let id = &reserved.reservation_id;
    failed(
        client.confirm("r1", id, Some(1_001)).await.unwrap_err(),
        "AMOUNT_EXCEEDS_RESERVATION",
    );
    let redemption = client.confirm("r2", id, None).await.unwrap();
    failed(client.confirm("r3", id, None).await.unwrap_err(), "RESERVATION_CLOSED");
    failed(client.release("r4", id).await.unwrap_err(), "RESERVATION_CLOSED");
    let released = client.reserve("r5", &user(1), "c", 2_000).await.unwrap().reservation_id;
    assert!(client.release("r6", &released).await.unwrap());
    failed(client.release("r7", &released).await.unwrap_err(), "RESERVATION_CLOSED");
    failed(
        client.confirm("r8", &released, None).await.unwrap_err(),
        "RESERVATION_CLOSED",
    );

    let id = &redemption.redemption_id;
    failed(
        client.roll_back("r9", id, Some(1_001), false).await.unwrap_err(),
        "AMOUNT_EXCEEDS_REDEMPTION",
    );
    failed(
        client.roll_back("r10", id, Some(999), true).await.unwrap_err(),
        "CAP_NOT_RESTORABLE",
    );
    client.roll_back("r11", id, None, false).await.unwrap();
    failed(
        client.roll_back("r12", id, None, false).await.unwrap_err(),
        "ROLLED_BACK_ALREADY",
    );
    failed(
        client.roll_back("r13", id, Some(1), false).await.unwrap_err(),
        "ROLLED_BACK_ALREADY",
    );
    assert_eq!(usage(&mut connection, "c").await, used(0, 0, 1, 0));
    assert_balanced(&mut connection).await;
}

#[tokio::test]
async fn a_rollback_returns_parts_of_the_amount_and_the_cap_only_on_request() {
    let offer = Offer {
        limit_minor: Some(1_000),
        per_user_cap: Some(1),
        ..Offer::of("c")
    };
    let (_database, mut connection, server) = serve(&[offer], &[]).await;
    let client = CouponClient::of(&server).await;
    let reservation = client.reserve("r1", &user(1), "c", 2_000).await.unwrap();
    let redemption = client.confirm("r2", &reservation.reservation_id, None).await.unwrap();
    let id = &redemption.redemption_id;
    let rolled = client.roll_back("r3", id, Some(300), false).await.unwrap();
    assert_eq!((rolled.rolled_back_minor, rolled.cap_restored), (300, false));
    assert_eq!(usage(&mut connection, "c").await, used(0, 0, 1, 700));
    // The budget has the amount back; the cap of the user is still used up.
    let other = client.reserve("r4", &user(2), "c", 300).await.unwrap();
    assert_refused(
        &client.reserve("r5", &user(1), "c", 300).await.unwrap_err(),
        "BUDGET_EXHAUSTED,USER_CAP_REACHED",
    );
    client.release("r6", &other.reservation_id).await.unwrap();
    let rolled = client.roll_back("r7", id, None, false).await.unwrap();
    assert_eq!((rolled.rolled_back_minor, rolled.cap_restored), (1_000, false));
    assert_refused(
        &client.reserve("r8", &user(1), "c", 300).await.unwrap_err(),
        "USER_CAP_REACHED",
    );
    // The cap can also be restored after all of the amount is rolled back.
    let rolled = client.roll_back("r9", id, None, true).await.unwrap();
    assert_eq!((rolled.rolled_back_minor, rolled.cap_restored), (1_000, true));
    assert_eq!(rolled.amount, redemption.amount);
    assert_eq!(usage(&mut connection, "c").await, used(0, 0, 0, 0));
    client.reserve("r10", &user(1), "c", 300).await.unwrap();
    assert_balanced(&mut connection).await;
}

#[tokio::test]
async fn a_reservation_can_be_confirmed_and_released_after_its_campaign_is_paused_or_ended() {
    let (_database, mut connection, server) = serve(&[Offer::of("c")], &[]).await;
    let client = CouponClient::of(&server).await;
    let mut reserved = Vec::new();
    for number in 0..3 {
        let reservation = client.reserve(&format!("r{number}"), &user(number), "c", 2_000).await;
        reserved.push(reservation.unwrap().reservation_id);
    }
    let redemption = client.confirm("c0", &reserved[0], None).await.unwrap();
    for (number, state) in ["paused", "ended"].into_iter().enumerate() {
        execute(
            &mut connection,
            &format!("UPDATE campaign_states SET state = '{state}'"),
        )
        .await;
        let refused = client.reserve("r9", &user(9), "c", 2_000).await.unwrap_err();
        assert_refused(&refused, ["CAMPAIGN_PAUSED", "CAMPAIGN_ENDED"][number]);
        let amount = Some(100);
        client
            .roll_back(&format!("b{number}"), &redemption.redemption_id, amount, false)
            .await
            .unwrap();
    }
    client.confirm("c1", &reserved[1], None).await.unwrap();
    assert!(client.release("l2", &reserved[2]).await.unwrap());
    assert_eq!(usage(&mut connection, "c").await, used(0, 0, 2, 1_800));
    assert_balanced(&mut connection).await;
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_answer_and_a_reused_id_is_refused() {
    let offer = Offer {
        total_cap: Some(2),
        ..Offer::of("c")
    };
    let (database, mut connection, server) = serve(&[offer], &[NO_SWEEPS]).await;
    let client = CouponClient::of(&server).await;
    let reservation = client.reserve("r", &user(1), "c", 2_000).await.unwrap();
    let reservation_id = &reservation.reservation_id;
    assert_eq!(client.reserve("r", &user(1), "c", 2_000).await.unwrap(), reservation);
    assert_eq!(usage(&mut connection, "c").await, used(1, 1_000, 0, 0));
    let redemption = client.confirm("f", reservation_id, Some(900)).await.unwrap();
    let redemption_id = &redemption.redemption_id;
    let first = client.roll_back("b1", redemption_id, Some(300), false).await.unwrap();
    let second = client.roll_back("b2", redemption_id, None, true).await.unwrap();
    let other = client.reserve("r2", &user(2), "c", 500).await.unwrap().reservation_id;
    assert!(client.release("l", &other).await.unwrap());

    // The answers are the same after later changes, on another server, and when the coupon is no longer available.
    execute(&mut connection, "UPDATE campaign_states SET state = 'ended'").await;
    let before = usage(&mut connection, "c").await;
    assert_eq!(before, used(0, 0, 0, 0));
    let elsewhere = Server::start(&database);
    for client in [client.clone(), CouponClient::of(&elsewhere).await] {
        assert_eq!(client.reserve("r", &user(1), "c", 2_000).await.unwrap(), reservation);
        assert_eq!(
            client.confirm("f", reservation_id, Some(900)).await.unwrap(),
            redemption
        );
        assert_eq!(
            client.roll_back("b1", redemption_id, Some(300), false).await.unwrap(),
            first
        );
        assert_eq!(client.roll_back("b2", redemption_id, None, true).await.unwrap(), second);
        assert!(client.release("l", &other).await.unwrap());
    }
    assert_eq!(usage(&mut connection, "c").await, before);

    // A request with another body, or for another RPC, cannot have the same id.
    for reused in [
        client.reserve("r", &user(1), "c", 2_001).await.unwrap_err(),
        client.reserve("r", &user(2), "c", 2_000).await.unwrap_err(),
        client.reserve("f", &user(1), "c", 2_000).await.unwrap_err(),
        client.confirm("f", reservation_id, None).await.unwrap_err(),
        client.release("f", reservation_id).await.unwrap_err(),
        client
            .roll_back("b1", redemption_id, Some(301), false)
            .await
            .unwrap_err(),
        client.roll_back("b2", redemption_id, None, false).await.unwrap_err(),
    ] {
        assert_status(&reused, Code::FailedPrecondition, "REQUEST_ID_REUSED");
    }
    assert_eq!(usage(&mut connection, "c").await, before);
    assert_balanced(&mut connection).await;
}

#[tokio::test]
async fn request_ids_of_different_callers_are_independent() {
    let (database, mut connection, _) = serve(&[Offer::of("c")], &[]).await;
    let [one, two] = [(); 2].map(|()| succeed(&database, &["keys", "create", "--role", "service"]));
    let server = Server::start(&database);
    let one = CouponClient::with_key(&server, Some(one.trim())).await;
    let two = CouponClient::with_key(&server, Some(two.trim())).await;
    let first = one.reserve("r", &user(1), "c", 2_000).await.unwrap();
    let second = two.reserve("r", &user(2), "c", 300).await.unwrap();
    assert_ne!(first.reservation_id, second.reservation_id);
    assert_eq!(one.reserve("r", &user(1), "c", 2_000).await.unwrap(), first);
    assert_eq!(two.reserve("r", &user(2), "c", 300).await.unwrap(), second);
    assert_eq!(usage(&mut connection, "c").await, used(2, 1_300, 0, 0));
}

#[tokio::test]
async fn a_refused_request_can_be_repeated_with_the_same_id() {
    let offer = Offer {
        total_cap: Some(1),
        ..Offer::of("c")
    };
    let (_database, _, server) = serve(&[offer], &[]).await;
    let client = CouponClient::of(&server).await;
    let held = client.reserve("r1", &user(1), "c", 2_000).await.unwrap();
    assert_refused(
        &client.reserve("r2", &user(2), "c", 2_000).await.unwrap_err(),
        "TOTAL_CAP_REACHED",
    );
    client.release("l", &held.reservation_id).await.unwrap();
    client.reserve("r2", &user(2), "c", 2_000).await.unwrap();
}

#[tokio::test]
async fn request_ids_are_forgotten_after_30_days() {
    let (database, mut connection, server) = serve(&[Offer::of("c")], &[]).await;
    let client = CouponClient::of(&server).await;
    let old = client.reserve("old", &user(1), "c", 2_000).await.unwrap();
    client.reserve("young", &user(1), "c", 2_000).await.unwrap();
    execute(
        &mut connection,
        "UPDATE request_log SET at = at - CASE request_id WHEN 'old' THEN interval '30 days 1 second'
                                                          ELSE interval '29 days 23 hours' END",
    )
    .await;
    let server = Server::start(&database);
    let look = async || -> Vec<String> {
        let ids = sqlx::query_scalar("SELECT request_id FROM request_log");
        ids.fetch_all(&mut connection).await.unwrap()
    };
    eventually("the old request is forgotten", look, |ids| *ids == ["young"]).await;
    let new = CouponClient::of(&server)
        .await
        .reserve("old", &user(1), "c", 2_000)
        .await;
    assert_ne!(new.unwrap().reservation_id, old.reservation_id);
}

#[tokio::test]
async fn an_expired_reservation_is_swept_and_cannot_be_confirmed() {
    let offer = Offer {
        ttl_seconds: 1,
        total_cap: Some(3),
        limit_minor: Some(3_000),
        ..Offer::of("c")
    };
    let (_database, mut connection, server) = serve(&[offer], &[("coupons.sweep_interval_ms", "50")]).await;
    let client = CouponClient::of(&server).await;
    let mut reserved = Vec::new();
    for number in 0..3 {
        // Two of the three belong to one user.
        let reservation = client
            .reserve(&format!("r{number}"), &user(number / 2), "c", 2_000)
            .await;
        reserved.push(reservation.unwrap().reservation_id);
    }
    let look = async || usage(&mut connection, "c").await;
    eventually("all reservations are swept", look, |usage| *usage == used(0, 0, 0, 0)).await;
    let status = client.confirm("c", &reserved[0], None).await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "RESERVATION_EXPIRED");
    assert!(!client.release("l", &reserved[0]).await.unwrap());
    assert!(!client.release("l", &reserved[0]).await.unwrap());
    let entries: Vec<(String, i64)> =
        sqlx::query_as("SELECT entry, count(*) FROM coupon_ledger GROUP BY entry ORDER BY entry")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert_eq!(entries, [("expire".to_owned(), 3), ("reserve".to_owned(), 3)]);
    assert_balanced(&mut connection).await;
}

#[tokio::test]
async fn an_expired_reservation_cannot_be_confirmed_and_blocks_nobody_before_it_is_swept() {
    let offer = Offer {
        total_cap: Some(1),
        ..Offer::of("c")
    };
    let (_database, mut connection, server) = serve(&[offer], &[NO_SWEEPS]).await;
    let client = CouponClient::of(&server).await;
    let expire_all = "UPDATE reservations SET expires_at = clock_timestamp() WHERE state = 'reserved'";
    let first = client.reserve("r1", &user(1), "c", 2_000).await.unwrap().reservation_id;
    assert_refused(
        &client.reserve("r2", &user(2), "c", 2_000).await.unwrap_err(),
        "TOTAL_CAP_REACHED",
    );
    execute(&mut connection, expire_all).await;
    let status = client.confirm("c1", &first, None).await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "RESERVATION_EXPIRED");
    assert_eq!(usage(&mut connection, "c").await, used(1, 1_000, 0, 0));
    // Another user can have the coupon without a sweep.
    let second = client.reserve("r2", &user(2), "c", 2_000).await.unwrap().reservation_id;
    assert_eq!(usage(&mut connection, "c").await, used(1, 1_000, 0, 0));
    execute(&mut connection, expire_all).await;
    // It has expired, and gives back what it held.
    assert!(!client.release("l2", &second).await.unwrap());
    assert_eq!(usage(&mut connection, "c").await, used(0, 0, 0, 0));
    assert_balanced(&mut connection).await;
}

#[tokio::test]
async fn parallel_requests_with_one_id_are_carried_out_once() {
    let (_database, mut connection, server) = serve(&[Offer::of("c")], &[]).await;
    let (client, who) = (CouponClient::of(&server).await, user(1));
    let reservations = join_all((0..16).map(|_| client.reserve("r", &who, "c", 2_000))).await;
    let reservations: Vec<Reservation> = reservations.into_iter().map(Result::unwrap).collect();
    assert!(reservations.iter().all(|reservation| *reservation == reservations[0]));
    let id = &reservations[0].reservation_id;
    let redemptions = join_all((0..16).map(|_| client.confirm("c", id, None))).await;
    let redemptions: Vec<Redemption> = redemptions.into_iter().map(Result::unwrap).collect();
    assert!(redemptions.iter().all(|redemption| *redemption == redemptions[0]));
    assert_eq!(usage(&mut connection, "c").await, used(0, 0, 1, 1_000));
    assert_balanced(&mut connection).await;
}

#[tokio::test]
async fn amounts_whose_sum_overflows_are_refused() {
    let offer = Offer {
        amount_minor: i64::MAX,
        ..Offer::of("c")
    };
    let (_database, mut connection, server) = serve(&[offer], &[]).await;
    let client = CouponClient::of(&server).await;
    client.reserve("r1", &user(1), "c", i64::MAX - 1).await.unwrap();
    let status = client.reserve("r2", &user(2), "c", 2).await.unwrap_err();
    assert_ne!(status.code(), Code::Internal, "{status:?}");
    client.reserve("r3", &user(2), "c", 1).await.unwrap();
    assert_eq!(usage(&mut connection, "c").await, used(2, i64::MAX, 0, 0));
    assert_balanced(&mut connection).await;
}
