//! Exports of everything that is held on a user.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use domain::id::UserId;
use likemind::app::user_export::{ExportError, ExportRequest, UserExport};
use likemind::config::Config;
use likemind::grpc::proto::DESCRIPTORS;
use likemind::grpc::proto::v1::privacy_service_client::PrivacyServiceClient;
use likemind::grpc::proto::v1::{
    ConsentDecision, ExportUserDataRequest, Purpose, RectifyUserRequest, SetConsentRequest, UpsertSuppressionsRequest,
    UserSuppression,
};
use likemind::store::privacy::erasure_key::ErasureKey;
use likemind::store::privacy::erasures;
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};
use tonic::{Code, Request, Status};

use crate::support::answers::assert_status;
use crate::support::api_keys::{WithKey, create_key, id_of};
use crate::support::caller::Caller;
use crate::support::coupons::{CouponClient, Offer, assert_balanced};
use crate::support::erasures::KEY;
use crate::support::postgres::{TestDatabase, execute, number, scratch};
use crate::support::program::{Server, run, succeed};
use crate::support::shop::{self, item, user};
use crate::support::times::at;
use crate::support::waiting::soon;

/// Exports a user with `key`. Returns the document and the sizes of its parts.
async fn export(server: &Server, key: Option<&str>, user: &str) -> Result<(String, Vec<usize>), Status> {
    let mut client = PrivacyServiceClient::with_interceptor(server.channel().await, WithKey::new(key));
    let request = ExportUserDataRequest {
        user_id: user.to_owned(),
        reason: "a request of the user".to_owned(),
    };
    let mut stream = client.export_user_data(request).await?.into_inner();
    let (mut bytes, mut sizes) = (Vec::new(), Vec::new());
    while let Some(part) = stream.message().await? {
        sizes.push(part.json.len());
        bytes.extend(part.json);
    }
    Ok((String::from_utf8(bytes).unwrap(), sizes))
}

async fn exported(server: &Server, user: &str) -> Value {
    let (document, _) = export(server, None, user).await.unwrap();
    serde_json::from_str(&document).unwrap_or_else(|error| panic!("{error}: {document}"))
}

fn list<'a>(document: &'a Value, name: &str) -> &'a Vec<Value> {
    document[name]
        .as_array()
        .unwrap_or_else(|| panic!("no list {name} in {document}"))
}

/// Does with user 0 of the shop all that leaves something behind.
async fn live_a_life(database: &TestDatabase, server: &Server) {
    let mut connection = database.connect().await;
    Offer {
        per_user_cap: Some(5),
        ..Offer::of("c")
    }
    .create(&mut connection)
    .await;
    Offer {
        is_assigned: true,
        ..Offer::of("d")
    }
    .create(&mut connection)
    .await;
    let caller = Caller::of(server).await;
    let unrated = item(shop::item_where(0, false));
    caller.rate(&user(0), &unrated, 4.0).await;
    caller.delete_rating(&user(0), &item(shop::item_where(0, true))).await;
    caller.buy("order 1", 1, &user(0), &item(1), 2).await;
    caller.buy("order 2", 1, &user(0), &item(1), -1).await;
    for granted in [true, false] {
        let request = SetConsentRequest {
            user_id: user(0),
            decisions: vec![ConsentDecision {
                purpose: Purpose::Training.into(),
                granted,
            }],
            decided_at: at(if granted { 10 } else { 20 }),
            source: "settings page".to_owned(),
        };
        caller.privacy.clone().set_consent(request).await.unwrap();
    }
    execute(
        &mut connection,
        "INSERT INTO user_attributes SELECT id, 'town', 'Ely' FROM users WHERE external_id = 'u000';
         INSERT INTO assignments (campaign_id, user_id)
         SELECT campaigns.id, users.id FROM campaigns, users WHERE campaigns.external_id = 'k-d' AND users.external_id = 'u000';
         INSERT INTO exposures (coupon_id, user_id, campaign_id, is_held_out, snapshot_version)
         SELECT coupons.id, users.id, campaign_id, true, 1 FROM coupons, users
         WHERE coupons.external_id = 'd' AND users.external_id = 'u000'",
    )
    .await;
    let coupons = CouponClient::of(server).await;
    let reservation = coupons.reserve("r1", &user(0), "c", 5_000).await.unwrap();
    let redemption = coupons
        .confirm("r2", &reservation.reservation_id, Some(900))
        .await
        .unwrap();
    coupons
        .roll_back("r3", &redemption.redemption_id, Some(100), false)
        .await
        .unwrap();
    coupons.reserve("r4", &user(0), "c", 5_000).await.unwrap();
    let suppress = UpsertSuppressionsRequest {
        suppressions: vec![UserSuppression {
            user_id: user(0),
            reason: "a letter".to_owned(),
        }],
    };
    caller.privacy.clone().upsert_suppressions(suppress).await.unwrap();
}

#[tokio::test]
async fn everything_that_is_held_on_a_user_is_exported() {
    let database = shop::open().await;
    let server = Server::with(&database, &[("privacy.retention_days.exposures", "400")]);
    live_a_life(&database, &server).await;
    let document = exported(&server, &user(0)).await;
    assert_eq!(document["user_id"], "u000");
    assert!(
        document["created_at"].as_str() < document["exported_at"].as_str(),
        "{document}"
    );
    assert_eq!(document["attributes"], json!([{"name": "town", "value": "Ely"}]));

    let rated = (0..shop::ITEMS)
        .filter(|&number| shop::rating(0, number).is_some())
        .count();
    let ratings = list(&document, "ratings");
    assert_eq!(ratings.len(), rated + 1);
    let deleted: Vec<&Value> = ratings.iter().filter(|rating| rating.get("value").is_none()).collect();
    assert_eq!(deleted.len(), 1);
    assert_eq!(deleted[0]["item_id"], item(shop::item_where(0, true)));
    assert!(deleted[0]["deleted_at"].is_string());
    let unrated = item(shop::item_where(0, false));
    assert!(
        ratings
            .iter()
            .any(|rating| rating["item_id"] == *unrated && rating["value"] == 4.0)
    );

    let purchases = list(&document, "purchases");
    let quantities: Vec<_> = purchases
        .iter()
        .map(|line| (&line["order_id"], &line["quantity"]))
        .collect();
    assert_eq!(
        quantities,
        [(&json!("order 1"), &json!(2)), (&json!("order 2"), &json!(-1))]
    );
    assert_eq!(
        purchases[1]["line_total"],
        json!({"amount_minor": -100, "currency_code": "GBP"})
    );

    let decisions = list(&document, "consent_history").iter().map(|event| &event["granted"]);
    assert_eq!(decisions.collect::<Vec<_>>(), [&json!(true), &json!(false)]);
    let training = &list(&document, "consents")[2];
    assert_eq!(
        [&training["purpose"], &training["granted"], &training["basis"]],
        [
            &json!("PURPOSE_TRAINING"),
            &json!(false),
            &json!("decision of the user")
        ]
    );
    assert_eq!(document["consents"][0]["granted"], true, "by default");
    assert_eq!(document["suppression"]["reason"], "a letter");

    assert_eq!(document["assignments"][0]["campaign_id"], "k-d");
    let exposures = list(&document, "exposures");
    assert!(
        exposures
            .iter()
            .any(|one| one["coupon_id"] == "d" && one["held_out"] == true),
        "{exposures:?}"
    );
    let states: Vec<&Value> = list(&document, "reservations")
        .iter()
        .map(|one| &one["state"])
        .collect();
    assert_eq!(
        states,
        [
            &json!("RESERVATION_STATE_CONFIRMED"),
            &json!("RESERVATION_STATE_RESERVED")
        ]
    );
    let redemption = &document["redemptions"][0];
    assert_eq!(
        (&redemption["amount"]["amount_minor"], &redemption["rolled_back_minor"]),
        (&json!(900), &json!(100))
    );
    assert_eq!(
        redemption["reservation_id"],
        document["reservations"][0]["reservation_id"]
    );
    let uses = &document["coupon_uses"][0];
    assert_eq!(
        [&uses["per_user_cap"], &uses["reserved"], &uses["redeemed"]],
        [&json!(5), &json!(1), &json!(1)]
    );
    let entries: Vec<&Value> = list(&document, "coupon_ledger")
        .iter()
        .map(|entry| &entry["entry"])
        .collect();
    assert_eq!(
        entries,
        [
            &json!("reserve"),
            &json!("confirm"),
            &json!("rollback"),
            &json!("reserve")
        ]
    );
    assert_eq!(
        document["copies"]["request_log"], 2,
        "the answers of confirming and rolling back"
    );
    let days: Vec<_> = list(&document, "retention")
        .iter()
        .map(|one| (&one["records"], &one["days"]))
        .collect();
    assert_eq!(days[0], (&json!("purchases"), &Value::Null));
    assert_eq!(days[1], (&json!("exposures"), &json!(400)));

    // Nothing of others: the ids in it are those of the user, of items, orders, coupons and campaigns.
    let others: Vec<String> = (1..shop::USERS)
        .map(user)
        .filter(|id| document.to_string().contains(id))
        .collect();
    assert_eq!(others, Vec::<String>::new());
    assert_balanced(&mut database.connect().await).await;
}

#[tokio::test]
async fn an_export_counts_what_the_model_holds() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    let model = exported(&server, &user(0)).await["model"].clone();
    let rated = (0..shop::ITEMS)
        .filter(|&number| shop::rating(0, number).is_some())
        .count();
    assert_eq!(model["snapshot_version"], 1);
    assert_eq!(
        [&model["ratings"], &model["purchased"], &model["fresh_interactions"]],
        [&json!(rated), &json!(0), &json!(0)]
    );
    // A list holds the 50 most similar of 199 users.
    assert_eq!(model["similar_users"], 50);
    assert!(model["listed_as_similar_to"].as_u64().unwrap() > 0, "{model}");
    caller.rate("new", &item(0), 4.0).await;
    let look = async || exported(&server, "new").await["model"].clone();
    let fresh = soon("the rating is in memory", look, |model| {
        model["fresh_interactions"] == 1
    })
    .await;
    assert_eq!(
        (&fresh["is_in_snapshot"], &fresh["ratings"]),
        (&json!(false), &json!(0))
    );
}

/// Records have the names of the API: each key of a list is a field of a message that the API has for it.
#[tokio::test]
async fn exported_records_have_the_field_names_of_the_api() {
    let database = shop::open().await;
    let server = Server::start(&database);
    live_a_life(&database, &server).await;
    let document = exported(&server, &user(0)).await;
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let fields = |messages: &[&str]| -> BTreeSet<String> {
        let fields = messages.iter().flat_map(|message| {
            let message = pool.get_message_by_name(&format!("likemind.v1.{message}")).unwrap();
            message
                .fields()
                .map(|field| field.name().to_owned())
                .collect::<Vec<_>>()
        });
        fields.collect()
    };
    let of_api: [(&str, &[&str]); 9] = [
        ("attributes", &["AttributeValue"]),
        ("ratings", &["Rating", "DeleteRatingRequest"]),
        ("purchases", &["PurchaseLine"]),
        ("consent_history", &["ConsentEvent"]),
        ("assignments", &["Assignment", "AssignmentKey"]),
        ("redemptions", &["Redemption"]),
        ("audit", &["AuditEntry"]),
        ("reservations", &["Reservation"]),
        ("coupon_uses", &["CouponSpec"]),
    ];
    // The API has no message for what only the export tells.
    let own = ["lines", "reserved", "redeemed"];
    for (name, messages) in of_api.into_iter().filter(|(name, _)| *name != "audit") {
        let known = fields(messages);
        for record in list(&document, name) {
            for key in record
                .as_object()
                .unwrap()
                .keys()
                .filter(|key| !own.contains(&key.as_str()))
            {
                assert!(known.contains(key), "{name}.{key} is not in {messages:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_export_of_many_records_is_whole_and_takes_little_memory() {
    let database = TestDatabase::create().await;
    let mut connection = database.connect().await;
    // 1,000 is a multiple of the rows that are read at once, and 30,000 are more than a message can hold.
    execute(
        &mut connection,
        "INSERT INTO users (external_id) VALUES ('heavy'), ('even');
         INSERT INTO items (external_id) SELECT 'item ' || n FROM generate_series(1, 30000) AS n;
         INSERT INTO ratings (user_id, item_id, value, rated_at)
         SELECT users.id, items.id, 3, now() FROM users, items WHERE users.external_id = 'heavy' OR items.id <= 1000;
         INSERT INTO purchases (order_id, user_id, item_id, line_number, quantity, line_total_minor, currency_code, purchased_at)
         SELECT 'o' || items.id, users.id, items.id, 1, 1, 100, 'GBP', now() FROM users, items WHERE users.external_id = 'heavy'",
    )
    .await;
    let server = Server::start(&database);
    let (even, _) = export(&server, None, "even").await.unwrap();
    let even: Value = serde_json::from_str(&even).unwrap();
    assert_eq!(list(&even, "ratings").len(), 1_000);
    let before_kb = server.program.peak_kb();
    let (document, sizes) = export(&server, None, "heavy").await.unwrap();
    let grown_kb = server.program.peak_kb() - before_kb;
    let heavy: Value = serde_json::from_str(&document).unwrap();
    let items: BTreeSet<&str> = list(&heavy, "ratings")
        .iter()
        .map(|one| one["item_id"].as_str().unwrap())
        .collect();
    assert_eq!((items.len(), list(&heavy, "purchases").len()), (30_000, 30_000));
    assert!(document.len() > 4 * 1_024 * 1_024, "{} bytes", document.len());
    assert!(sizes.iter().all(|&bytes| bytes <= 64 * 1_024), "{sizes:?}");
    assert!(
        grown_kb < 8 * 1_024,
        "{grown_kb} KiB for a document of {} bytes",
        document.len()
    );
}

#[tokio::test]
async fn exports_are_audited_and_refused_to_all_but_operators() {
    let database = shop::open().await;
    let key = |role: &str| create_key(&database, &["--role", role]);
    let (operator, service) = (key("operator"), key("service"));
    let marketer = create_key(&database, &["--role", "marketer", "--merchant", "m0"]);
    let server = Server::start(&database);
    for refused in [&service, &marketer] {
        let status = export(&server, Some(refused), &user(0)).await.unwrap_err();
        assert_status(&status, Code::PermissionDenied, "ROLE_NOT_ALLOWED");
        let mut client = PrivacyServiceClient::with_interceptor(server.channel().await, WithKey::new(Some(refused)));
        let status = client.rectify_user(RectifyUserRequest::default()).await.unwrap_err();
        assert_status(&status, Code::PermissionDenied, "ROLE_NOT_ALLOWED");
    }
    let unknown = export(&server, Some(&operator), "nobody").await.unwrap_err();
    assert_status(&unknown, Code::NotFound, "USER_NOT_FOUND");
    let (document, _) = export(&server, Some(&operator), &user(0)).await.unwrap();
    let document: Value = serde_json::from_str(&document).unwrap();
    let records: usize = ["attributes", "ratings", "purchases", "exposures"]
        .map(|name| list(&document, name).len())
        .iter()
        .sum();

    let mut connection = database.connect().await;
    let audited: Vec<(String, String, String, i64, String)> = sqlx::query_as(
        "SELECT actor, action, subject, row_count, note FROM audit WHERE action LIKE 'USER_EXPORT%' ORDER BY id",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let number = number(&mut connection, "SELECT id FROM users WHERE external_id = 'u000'").await;
    let row = |action: &str, rows: usize| {
        let actor = format!("key:{}", id_of(&operator));
        (
            actor,
            action.to_owned(),
            format!("user {number}"),
            rows as i64,
            "a request of the user".to_owned(),
        )
    };
    assert_eq!(audited, [row("USER_EXPORT_OPENED", 0), row("USER_EXPORTED", records)]);
    // The next export tells the user of this one.
    let (document, _) = export(&server, Some(&operator), &user(0)).await.unwrap();
    let document: Value = serde_json::from_str(&document).unwrap();
    let actions: Vec<&Value> = list(&document, "audit").iter().map(|entry| &entry["action"]).collect();
    assert_eq!(actions, [&json!("USER_EXPORT_OPENED"), &json!("USER_EXPORTED")]);
}

#[tokio::test]
async fn the_deadline_of_a_client_holds_to_the_end_of_an_export() {
    let database = shop::open().await;
    let server = Server::with(&database, &[("database.statement_timeout_ms", "60000")]);
    let mut client = Caller::of(&server).await.privacy;
    let mut export = async || {
        let mut request = Request::new(ExportUserDataRequest {
            user_id: user(0),
            reason: String::new(),
        });
        request.set_timeout(Duration::from_secs(3));
        let mut stream = client.export_user_data(request).await?.into_inner();
        let mut parts = 0;
        while stream.message().await?.is_some() {
            parts += 1;
        }
        Ok::<usize, Status>(parts)
    };
    let mut holder = database.connect().await;
    execute(&mut holder, "BEGIN; LOCK TABLE coupon_ledger IN ACCESS EXCLUSIVE MODE").await;
    let status = export().await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    execute(&mut holder, "COMMIT").await;
    assert!(export().await.unwrap() > 3);
}

#[tokio::test]
async fn the_command_writes_a_file_that_only_its_owner_may_read() {
    let database = shop::open().await;
    let folder = scratch();
    let path = folder.path().join("user.json");
    let file = path.to_str().unwrap();
    let printed = succeed(&database, &["export-user", "u000"]);
    assert_eq!(
        succeed(
            &database,
            &["export-user", "u000", "--output", file, "--reason", "a letter"]
        ),
        ""
    );
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let parsed = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    let (printed, written) = (parsed(&printed), parsed(&std::fs::read_to_string(&path).unwrap()));
    for name in ["user_id", "ratings", "model", "consents", "retention"] {
        assert_eq!(printed[name], written[name], "{name}");
    }
    assert_eq!(list(&written, "audit").len(), 2, "the first export");

    let (code, _, errors) = run(&database, &["export-user", "u000", "--output", file]);
    assert!(code == 1 && errors.contains("user.json cannot be created"), "{errors}");
    let (code, printed, errors) = run(&database, &["export-user", "nobody"]);
    assert_eq!((code, printed.as_str()), (1, ""));
    assert!(errors.contains("there is no user nobody"), "{errors}");
    let (code, _, errors) = run(&database, &["export-user", "a\nb"]);
    assert!(code == 2 && errors.contains("control characters"), "{errors}");
    let (code, _, errors) = run(&database, &["export-user", "nobody", "--output", "/no/such/folder/f"]);
    assert!(code == 1 && errors.contains("there is no user nobody"), "{errors}");
}

#[tokio::test]
async fn an_export_ends_when_the_user_is_erased() {
    let database = shop::open().await;
    let pool = database.pool().await;
    let request = ExportRequest {
        user: UserId::new(user(0)).unwrap(),
        reason: String::new(),
        actor: "test".to_owned(),
    };
    let rules = Config::default().holding_rules();
    let mut export = UserExport::open(&pool, None, rules, request).await.unwrap().unwrap();
    for _ in 0..2 {
        assert!(export.next().await.unwrap().is_some());
    }
    let users = [UserId::new(user(0)).unwrap()];
    let erasure = erasures::Request {
        users: &users,
        request_id: None,
        reason: "",
        actor: "test",
    };
    erasures::receive(&pool, &ErasureKey::new(KEY).unwrap(), &erasure)
        .await
        .unwrap();
    // The transaction of the export still sees the user.
    let error = export.next().await.unwrap_err();
    assert!(matches!(error, ExportError::Erased), "{error}");
    assert_status(&error.into(), Code::NotFound, "USER_ERASED");
    export.close().await.unwrap();
    let audited = "SELECT count(*) FROM audit WHERE action = 'USER_EXPORTED'";
    assert_eq!(number(&mut database.connect().await, audited).await, 1);
}
