//! An old feed that is sent again does not bring an erased user back, and a customer who comes back is somebody new.

use likemind::grpc::proto::v1::{
    ConsentDecision, EntryOutcome, OrderOutcome, PurchaseLine, Purpose, RecordOrdersRequest, RecordPurchasesRequest,
    SetConsentRequest, UpsertRatingsRequest, UpsertSuppressionsRequest, UpsertUserAttributesRequest, UserSuppression,
};
use serde_json::Value;
use sqlx::PgConnection;

use super::{ERASED, attribute, order};
use crate::support::caller::{Caller, a_rating, pounds};
use crate::support::coupons::{Offer, assert_balanced};
use crate::support::erasures::{ErasureClient, KEY, KeyFile, traces};
use crate::support::postgres::{TestDatabase, number, scratch};
use crate::support::program::{Server, succeed};
use crate::support::shop::{self, item};
use crate::support::times::at;

/// A file of each kind that tells of `user` and of another one, who is not erased.
pub(super) fn old_files(user: &str) -> Vec<(&'static str, String)> {
    let (a, b, c) = (item(1), item(2), item(3));
    vec![
        (
            "ratings",
            format!(
                "user_id,item_id,value,rated_at\n{user},{a},4,2024-01-01T00:00:00Z\nu900,{a},4,2024-01-01T00:00:00Z\n\
                 {user},{b},4,2024-01-02T00:00:00Z\n"
            ),
        ),
        (
            "purchases",
            format!(
                "order_id,user_id,item_id,quantity,line_total,currency,purchased_at\n\
                 old-1,{user},{a},1,5.00,GBP,2024-01-01T00:00:00Z\nold-2,u900,{c},1,5.00,GBP,2024-01-01T00:00:00Z\n"
            ),
        ),
        (
            "consents",
            format!(
                "user_id,purpose,granted,decided_at\n{user},marketing,true,2024-01-01T00:00:00Z\n\
                 u900,marketing,true,2024-01-01T00:00:00Z\n"
            ),
        ),
        (
            "redemptions",
            format!(
                "coupon_id,user_id,redeemed_at,amount_minor\nk,{user},2024-01-01T00:00:00Z,100\n\
                 k,u900,2024-01-01T00:00:00Z,100\n"
            ),
        ),
        (
            "attributes",
            format!("user_id,name,value\n{user},city,Bern\nu900,city,Bern\n"),
        ),
        ("assignments", format!("campaign_id,user_id\nk-k,{user}\nk-k,u900\n")),
        ("suppressions", format!("user_id,reason\n{user},asked\nu900,asked\n")),
    ]
}

/// Imports a file, and returns its summary.
fn import(database: &TestDatabase, kind: &str, text: &str, key: &KeyFile) -> Value {
    let folder = scratch();
    let path = folder.path().join(format!("{kind}.csv"));
    std::fs::write(&path, text).unwrap();
    let printed = succeed(
        database,
        &["import", kind, path.to_str().unwrap(), "--json", &key.argument()],
    );
    serde_json::from_str(&printed).unwrap()
}

/// Counts the rows about whoever has the erased id.
async fn rows(connection: &mut PgConnection) -> i64 {
    let mut count = 0;
    for table in [
        "ratings",
        "purchases",
        "consents",
        "consent_events",
        "redemptions",
        "user_attributes",
        "assignments",
        "suppressions",
        "exposures",
    ] {
        let of_user = format!(
            "SELECT count(*) FROM {table} JOIN users ON users.id = user_id WHERE users.external_id = '{ERASED}'"
        );
        count += number(connection, &of_user).await;
    }
    count
}

#[tokio::test]
async fn files_with_old_lines_are_dropped_and_counted_and_later_lines_make_a_new_user() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    Offer::of("k").create(&mut connection).await;
    let key = KeyFile::of(KEY);
    for (kind, text) in old_files(ERASED) {
        let summary = import(&database, kind, &text, &key);
        assert_eq!(
            (&summary["rejected"], &summary["dropped"]),
            (&0.into(), &0.into()),
            "{kind}: {summary}"
        );
    }
    assert_eq!(rows(&mut connection).await, 9);
    succeed(&database, &["erase", ERASED, &key.argument()]);
    assert_eq!(traces(&mut connection, ERASED).await, Vec::<String>::new());
    assert_balanced(&mut connection).await;
    // The id that the import had made of the user's is gone too.
    let derived = "SELECT count(*) FROM redemptions WHERE external_id LIKE 'import-%'";
    assert_eq!(number(&mut connection, derived).await, 1);

    let old_feed_is_dropped = |told: usize| {
        for (kind, text) in old_files(ERASED) {
            let summary = import(&database, kind, &text, &key);
            let lines = text.lines().skip(1).count();
            let of_erased = text.lines().filter(|line| line.contains(ERASED)).count();
            let is_timed = !["attributes", "assignments", "suppressions"].contains(&kind);
            let dropped = if is_timed || told == 0 { of_erased } else { 0 };
            assert_eq!(summary["read"], lines, "{kind}: {summary}");
            assert_eq!(summary["dropped"], dropped, "{kind}: {summary}");
            assert_eq!(summary["rejected"], 0, "{kind}: {summary}");
        }
    };
    old_feed_is_dropped(0);
    assert_eq!(traces(&mut connection, ERASED).await, Vec::<String>::new());

    // The customer comes back.
    let now = chrono::Utc::now().to_rfc3339();
    let text = format!(
        "user_id,item_id,value,rated_at\n{ERASED},{},2,{now}\n{ERASED},{},2,2024-01-02T00:00:00Z\n",
        item(5),
        item(6)
    );
    let summary = import(&database, "ratings", &text, &key);
    assert_eq!(
        (&summary["stored"], &summary["dropped"]),
        (&1.into(), &1.into()),
        "{summary}"
    );
    assert_eq!(rows(&mut connection).await, 1);
    // Events with a time are still recognized as old; those without are taken for the new user's.
    old_feed_is_dropped(1);
    assert_eq!(rows(&mut connection).await, 4);
    assert_balanced(&mut connection).await;

    // The new user can be erased as well.
    succeed(&database, &["erase", ERASED, &key.argument()]);
    assert_eq!(traces(&mut connection, ERASED).await, Vec::<String>::new());
}

#[tokio::test]
async fn calls_with_old_times_are_dropped_and_later_ones_make_a_new_user() {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    let key = KeyFile::of(KEY);
    let server = Server::with(&database, &[key.setting()]);
    let (client, caller) = (ErasureClient::of(&server).await, Caller::of(&server).await);
    let erasure = client.erase(ERASED, "r").await.unwrap();
    client.verified(erasure.erasure_id).await;

    let old_rating = || {
        let mut rating = a_rating(ERASED, &item(1), 4.0);
        rating.rated_at = at(0);
        UpsertRatingsRequest {
            ratings: vec![rating, a_rating("u901", &item(1), 4.0)],
        }
    };
    let answer = caller
        .ratings
        .clone()
        .upsert_ratings(old_rating())
        .await
        .unwrap()
        .into_inner();
    let outcomes: Vec<EntryOutcome> = answer.results.iter().map(|result| result.outcome()).collect();
    assert_eq!(outcomes, [EntryOutcome::Merged, EntryOutcome::Stored]);
    let orders = RecordOrdersRequest {
        orders: vec![order("o", 0)],
    };
    let answer = caller
        .purchases
        .clone()
        .record_orders(orders)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.results[0].outcome(), OrderOutcome::Dropped);
    assert_eq!(answer.results[0].kept_updated_at, None);
    let line = PurchaseLine {
        order_id: "o".to_owned(),
        line_number: 1,
        user_id: ERASED.to_owned(),
        item_id: item(1),
        quantity: 1,
        line_total: Some(pounds(100)),
        purchased_at: at(0),
        coupon_discount_minor: 0,
    };
    let request = RecordPurchasesRequest { lines: vec![line] };
    let answer = caller
        .purchases
        .clone()
        .record_purchases(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.results[0].outcome(), EntryOutcome::Merged);
    let decide = |decided_at| SetConsentRequest {
        user_id: ERASED.to_owned(),
        decisions: vec![ConsentDecision {
            purpose: Purpose::Marketing.into(),
            granted: false,
        }],
        decided_at,
        source: String::new(),
    };
    let answer = caller
        .privacy
        .clone()
        .set_consent(decide(at(0)))
        .await
        .unwrap()
        .into_inner();
    assert!(
        answer.consents.iter().all(|consent| consent.decided_at.is_none()),
        "{answer:?}"
    );
    let request = UpsertUserAttributesRequest {
        attributes: vec![attribute("city", "Bern")],
    };
    let answer = caller
        .catalog
        .clone()
        .upsert_user_attributes(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.results[0].outcome(), EntryOutcome::Merged);
    let request = UpsertSuppressionsRequest {
        suppressions: vec![UserSuppression {
            user_id: ERASED.to_owned(),
            reason: String::new(),
        }],
    };
    let answer = caller
        .privacy
        .clone()
        .upsert_suppressions(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.results[0].outcome(), EntryOutcome::Merged);
    assert_eq!(traces(&mut connection, ERASED).await, Vec::<String>::new());

    // A call without a time is one of now.
    let answer = caller
        .privacy
        .clone()
        .set_consent(decide(None))
        .await
        .unwrap()
        .into_inner();
    assert!(
        answer
            .consents
            .iter()
            .any(|consent| !consent.granted && consent.decided_at.is_some()),
        "{answer:?}"
    );
    assert_eq!(rows(&mut connection).await, 2);
    let answer = caller
        .ratings
        .clone()
        .upsert_ratings(old_rating())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.results[0].outcome(), EntryOutcome::Merged);
    assert_eq!(rows(&mut connection).await, 2);
    caller.rate(ERASED, &item(2), 5.0).await;
    assert_eq!(rows(&mut connection).await, 3);
}
