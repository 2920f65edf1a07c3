//! Reservations and redemptions as they are read and listed.

use likemind::grpc::proto::v1::{
    Cart, GetRedemptionRequest, GetReservationRequest, ListRedemptionsRequest, ListReservationsRequest, Redemption,
    RedemptionStatus, Reservation, ReservationState, ReserveCouponRequest,
};
use prost_types::Timestamp;
use tonic::{Code, Status};

use crate::support::answers::{all_pages, assert_invalid, assert_status, distinguishable};
use crate::support::api_keys::create_key;
use crate::support::coupons::{CouponClient, Offer, cart};
use crate::support::postgres::TestDatabase;
use crate::support::program::Server;
use crate::support::shop::{self, user};
use crate::support::waiting::eventually;

/// Reservations and redemptions of three coupons: p of the platform, a of merchant m0 and b of merchant m1.
struct Records {
    database: TestDatabase,
    server: Server,
    client: CouponClient,
    /// In the order in which they were made.
    reservations: Vec<Reservation>,
    /// The redemptions of reservations 1, 2 and 4: one partly rolled back, one rolled back, and one whole.
    redemptions: Vec<Redemption>,
}

impl Records {
    async fn make() -> Self {
        let database = shop::open().await;
        let mut connection = database.connect().await;
        let of = |id, merchant| Offer {
            merchant,
            ..Offer::of(id)
        };
        for offer in [of("p", None), of("a", Some("m0")), of("b", Some("m1"))] {
            offer.create(&mut connection).await;
        }
        let server = Server::start(&database);
        let client = CouponClient::of(&server).await;
        let mut reservations = Vec::new();
        // Item 2 is of m0, item 1 of m1.
        for (number, (who, coupon, item)) in [(1, "p", 1), (1, "a", 2), (2, "a", 2), (2, "b", 1), (1, "b", 1)]
            .into_iter()
            .enumerate()
        {
            let cart = Cart {
                cart_id: format!("cart {number}"),
                ..cart(&[(item, 2_000)])
            };
            let request = ReserveCouponRequest {
                request_id: format!("r{number}"),
                user_id: user(who),
                coupon_id: coupon.to_owned(),
                cart: Some(cart),
            };
            let answer = client.rpc.clone().reserve_coupon(request).await.unwrap();
            reservations.push(answer.into_inner().reservation.unwrap());
        }
        let mut redemptions = Vec::new();
        for position in [1, 2, 4] {
            let id = &reservations[position].reservation_id;
            redemptions.push(client.confirm(&format!("c{position}"), id, Some(700)).await.unwrap());
        }
        let id = |position: usize| redemptions[position].redemption_id.clone();
        let partly = client.roll_back("u1", &id(0), Some(200), false).await.unwrap();
        let whole = client.roll_back("u2", &id(1), None, true).await.unwrap();
        client.release("x3", &reservations[3].reservation_id).await.unwrap();
        (redemptions[0], redemptions[1]) = (partly, whole);
        Self {
            database,
            server,
            client,
            reservations,
            redemptions,
        }
    }
}

async fn get_reservation(client: &CouponClient, id: &str) -> Result<Reservation, Status> {
    let reservation_id = id.to_owned();
    let answer = client
        .rpc
        .clone()
        .get_reservation(GetReservationRequest { reservation_id })
        .await?;
    Ok(answer.into_inner().reservation.unwrap())
}

async fn get_redemption(client: &CouponClient, id: &str) -> Result<Redemption, Status> {
    let redemption_id = id.to_owned();
    let answer = client
        .rpc
        .clone()
        .get_redemption(GetRedemptionRequest { redemption_id })
        .await?;
    Ok(answer.into_inner().redemption.unwrap())
}

async fn list_reservations(client: &CouponClient, request: ListReservationsRequest) -> Vec<Reservation> {
    let answer = client.rpc.clone().list_reservations(request).await.unwrap();
    answer.into_inner().reservations
}

async fn list_redemptions(client: &CouponClient, request: ListRedemptionsRequest) -> Vec<Redemption> {
    let answer = client.rpc.clone().list_redemptions(request).await.unwrap();
    answer.into_inner().redemptions
}

#[tokio::test]
async fn a_reservation_and_a_redemption_read_back_as_they_are_now() {
    let Records {
        client,
        reservations,
        redemptions,
        ..
    } = &Records::make().await;
    let first = &reservations[0];
    assert_eq!(
        (first.campaign_id.as_str(), first.cart_id.as_str(), first.state()),
        ("k-p", "cart 0", ReservationState::Reserved)
    );
    let states = [
        ReservationState::Reserved,
        ReservationState::Confirmed,
        ReservationState::Confirmed,
        ReservationState::Released,
        ReservationState::Confirmed,
    ];
    for (made, state) in reservations.iter().zip(states) {
        let found = get_reservation(client, &made.reservation_id).await.unwrap();
        let is_open = state == ReservationState::Reserved;
        assert_eq!((found.state(), found.closed_at.is_none()), (state, is_open));
        let redeemed = redemptions.iter().find(|one| one.reservation_id == made.reservation_id);
        assert_eq!(
            found.redemption_id,
            redeemed.map(|one| one.redemption_id.clone()).unwrap_or_default()
        );
        let as_made = Reservation {
            state: made.state,
            closed_at: None,
            redemption_id: String::new(),
            ..found
        };
        assert_eq!(&as_made, made);
    }
    let statuses = [
        (RedemptionStatus::PartlyRolledBack, 200),
        (RedemptionStatus::RolledBack, 700),
        (RedemptionStatus::Redeemed, 0),
    ];
    for ((made, position), (status, rolled_back_minor)) in redemptions.iter().zip([1, 2, 4]).zip(statuses) {
        let found = get_redemption(client, &made.redemption_id).await.unwrap();
        assert_eq!(&found, made);
        assert_eq!((found.status(), found.rolled_back_minor), (status, rolled_back_minor));
        let reservation = &reservations[position];
        assert_eq!(
            (&found.campaign_id, &found.cart_id, &found.reservation_id),
            (
                &reservation.campaign_id,
                &reservation.cart_id,
                &reservation.reservation_id
            )
        );
    }
    let status = get_reservation(client, "unheard-of").await.unwrap_err();
    assert_status(&status, Code::NotFound, "RESERVATION_NOT_FOUND");
    let status = get_redemption(client, "unheard-of").await.unwrap_err();
    assert_status(&status, Code::NotFound, "REDEMPTION_NOT_FOUND");
}

#[tokio::test]
async fn an_expired_reservation_is_shown_as_expired_before_it_is_swept() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    let offer = Offer {
        ttl_seconds: 1,
        ..Offer::of("c")
    };
    offer.create(&mut connection).await;
    let server = Server::with(&database, &[("coupons.sweep_interval_ms", "3600000")]);
    let client = CouponClient::of(&server).await;
    let made = client.reserve("r", &user(1), "c", 2_000).await.unwrap();
    let look = async || get_reservation(&client, &made.reservation_id).await.unwrap();
    let found = eventually("it expires", look, |found| found.state() != ReservationState::Reserved).await;
    assert_eq!((found.state(), found.closed_at), (ReservationState::Expired, None));
    let of = |state: ReservationState| ListReservationsRequest {
        states: vec![state.into()],
        ..ListReservationsRequest::default()
    };
    assert_eq!(list_reservations(&client, of(ReservationState::Expired)).await, [found]);
    assert_eq!(list_reservations(&client, of(ReservationState::Reserved)).await, []);
}

#[tokio::test]
async fn redemptions_are_listed_latest_first_by_every_filter() {
    let Records {
        client, redemptions, ..
    } = &Records::make().await;
    let all = || ListRedemptionsRequest::default();
    let check = async |request: ListRedemptionsRequest, expected: &[usize]| {
        let expected: Vec<&Redemption> = expected.iter().map(|&position| &redemptions[position]).collect();
        let found = list_redemptions(client, request.clone()).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{request:?}");
    };
    check(all(), &[2, 1, 0]).await;
    let text = |text: &str| Some(text.to_owned());
    check(
        ListRedemptionsRequest {
            campaign_id: text("k-a"),
            ..all()
        },
        &[1, 0],
    )
    .await;
    check(
        ListRedemptionsRequest {
            campaign_id: text("no"),
            ..all()
        },
        &[],
    )
    .await;
    check(
        ListRedemptionsRequest {
            coupon_id: text("b"),
            ..all()
        },
        &[2],
    )
    .await;
    check(
        ListRedemptionsRequest {
            user_id: Some(user(1)),
            ..all()
        },
        &[2, 0],
    )
    .await;
    check(
        ListRedemptionsRequest {
            user_id: Some(user(2)),
            coupon_id: text("b"),
            ..all()
        },
        &[],
    )
    .await;
    check(
        ListRedemptionsRequest {
            order_id: text("an order"),
            ..all()
        },
        &[2, 1, 0],
    )
    .await;
    check(
        ListRedemptionsRequest {
            order_id: text("another"),
            ..all()
        },
        &[],
    )
    .await;
    let with = |statuses: &[RedemptionStatus]| ListRedemptionsRequest {
        statuses: statuses.iter().map(|&status| status.into()).collect(),
        ..all()
    };
    check(with(&[RedemptionStatus::Redeemed]), &[2]).await;
    check(
        with(&[RedemptionStatus::RolledBack, RedemptionStatus::PartlyRolledBack]),
        &[1, 0],
    )
    .await;
    // The beginning of the time is part of it, and its end is not.
    let (first, last) = (redemptions[0].redeemed_at, redemptions[2].redeemed_at);
    check(
        ListRedemptionsRequest {
            redeemed_from: first,
            redeemed_before: last,
            ..all()
        },
        &[1, 0],
    )
    .await;
    check(
        ListRedemptionsRequest {
            redeemed_from: last,
            ..all()
        },
        &[2],
    )
    .await;
    check(
        ListRedemptionsRequest {
            redeemed_before: first,
            ..all()
        },
        &[],
    )
    .await;
    for page_size in [1, 2, 3] {
        let (found, pages) = all_pages(async |page_token| {
            let request = ListRedemptionsRequest {
                page_size,
                page_token,
                ..all()
            };
            let answer = client.rpc.clone().list_redemptions(request).await.unwrap().into_inner();
            (answer.redemptions, answer.next_page_token)
        })
        .await;
        let expected: Vec<Redemption> = redemptions.iter().rev().cloned().collect();
        assert_eq!((found, pages), (expected, 3_usize.div_ceil(page_size as usize)));
    }
}

#[tokio::test]
async fn reservations_are_listed_latest_first_by_every_filter() {
    let Records {
        client, reservations, ..
    } = &Records::make().await;
    let all = || ListReservationsRequest::default();
    let check = async |request: ListReservationsRequest, expected: &[usize]| {
        let expected: Vec<&str> = expected
            .iter()
            .map(|&position| reservations[position].reservation_id.as_str())
            .collect();
        let found = list_reservations(client, request.clone()).await;
        let found: Vec<&str> = found.iter().map(|one| one.reservation_id.as_str()).collect();
        assert_eq!(found, expected, "{request:?}");
    };
    check(all(), &[4, 3, 2, 1, 0]).await;
    let text = |text: &str| Some(text.to_owned());
    check(
        ListReservationsRequest {
            campaign_id: text("k-b"),
            ..all()
        },
        &[4, 3],
    )
    .await;
    check(
        ListReservationsRequest {
            coupon_id: text("a"),
            ..all()
        },
        &[2, 1],
    )
    .await;
    check(
        ListReservationsRequest {
            user_id: Some(user(2)),
            ..all()
        },
        &[3, 2],
    )
    .await;
    let with = |states: &[ReservationState]| ListReservationsRequest {
        states: states.iter().map(|&state| state.into()).collect(),
        ..all()
    };
    check(with(&[ReservationState::Reserved, ReservationState::Released]), &[3, 0]).await;
    check(with(&[ReservationState::Confirmed]), &[4, 2, 1]).await;
    check(with(&[ReservationState::Expired]), &[]).await;
    let (second, last) = (reservations[1].reserved_at, reservations[4].reserved_at);
    check(
        ListReservationsRequest {
            reserved_from: second,
            reserved_before: last,
            ..all()
        },
        &[3, 2, 1],
    )
    .await;
    let (found, pages) = all_pages(async |page_token| {
        let request = ListReservationsRequest {
            page_size: 2,
            page_token,
            ..all()
        };
        let answer = client
            .rpc
            .clone()
            .list_reservations(request)
            .await
            .unwrap()
            .into_inner();
        (answer.reservations, answer.next_page_token)
    })
    .await;
    assert_eq!((found, pages), (list_reservations(client, all()).await, 3));
}

#[tokio::test]
async fn bad_times_states_and_tokens_of_a_list_are_refused_by_name() {
    let Records { client, .. } = &Records::make().await;
    let refused =
        async |request: ListRedemptionsRequest| client.rpc.clone().list_redemptions(request).await.unwrap_err();
    let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
    let same = ListRedemptionsRequest {
        redeemed_from: at(5),
        redeemed_before: at(5),
        ..ListRedemptionsRequest::default()
    };
    assert_invalid(&refused(same).await, "EMPTY_TIME_RANGE", &["redeemed_before"]);
    let unknown = ListRedemptionsRequest {
        statuses: vec![1, 0],
        ..ListRedemptionsRequest::default()
    };
    assert_invalid(&refused(unknown).await, "UNKNOWN_ENUM_VALUE", &["statuses[1]"]);
    let list = ListReservationsRequest {
        page_size: 1,
        ..ListReservationsRequest::default()
    };
    let foreign = client.rpc.clone().list_reservations(list).await.unwrap().into_inner();
    let of_another_rpc = ListRedemptionsRequest {
        page_token: foreign.next_page_token,
        ..ListRedemptionsRequest::default()
    };
    assert_invalid(&refused(of_another_rpc).await, "INVALID_PAGE_TOKEN", &["page_token"]);
}

#[tokio::test]
async fn a_merchants_key_sees_the_reservations_and_redemptions_of_its_own_campaigns_alone() {
    let Records {
        database,
        server,
        reservations,
        redemptions,
        ..
    } = Records::make().await;
    let key = create_key(&database, &["--role", "marketer", "--merchant", "m0"]);
    server.drain().await;
    let server = Server::start(&database);
    let own = CouponClient::with_key(&server, Some(&key)).await;
    let unknown = distinguishable(&get_reservation(&own, "unheard-of").await.unwrap_err(), "unheard-of");
    for (position, made) in reservations.iter().enumerate() {
        let found = get_reservation(&own, &made.reservation_id).await;
        match [1, 2].contains(&position) {
            true => assert_eq!(found.unwrap().reservation_id, made.reservation_id),
            false => assert_eq!(distinguishable(&found.unwrap_err(), &made.reservation_id), unknown),
        }
    }
    let unknown = distinguishable(&get_redemption(&own, "unheard-of").await.unwrap_err(), "unheard-of");
    let foreign = get_redemption(&own, &redemptions[2].redemption_id).await.unwrap_err();
    assert_eq!(distinguishable(&foreign, &redemptions[2].redemption_id), unknown);
    let listed = list_redemptions(&own, ListRedemptionsRequest::default()).await;
    assert_eq!(listed, [redemptions[1].clone(), redemptions[0].clone()]);
    let listed = list_reservations(&own, ListReservationsRequest::default()).await;
    assert_eq!(listed.len(), 2);
    let of_foreign = ListReservationsRequest {
        campaign_id: Some("k-b".to_owned()),
        ..ListReservationsRequest::default()
    };
    assert_eq!(list_reservations(&own, of_foreign).await, []);
}
