//! Keys and their roles decide which RPCs a caller may use, and how often.

use likemind::grpc::proto::v1::IngestRatingsRequest;
use likemind::grpc::proto::v1::rating_service_client::RatingServiceClient;
use serde_json::Value;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_types::StatusExt;

use super::merchants::KeyedClients;
use crate::rpc::bad_input::cases::{valid_call, valid_requests};
use crate::rpc::bad_input::dynamic::{DynamicClient, method_name, methods};
use crate::support::answers::assert_status;
use crate::support::api_keys::{WithKey, bearer, create_key, id_of, secret_of};
use crate::support::caller::a_rating;
use crate::support::postgres::number;
use crate::support::program::{Server, run, succeed};
use crate::support::shop;
use crate::support::waiting::eventually;

const ROLES: [&str; 5] = ["service", "ingest", "marketer", "operator", "admin"];

/// Returns the roles that may call an RPC besides admin.
fn allowed(method: &str) -> &'static [&'static str] {
    match method {
        "CatalogService/UpsertMerchants" | "CatalogService/UpsertItems" => &["ingest"],
        "CatalogService/GetItem" | "CatalogService/ListItems" | "CatalogService/ListCategories" => {
            &["service", "ingest", "marketer", "operator"]
        }
        "RatingService/UpsertRatings"
        | "RatingService/IngestRatings"
        | "RatingService/DeleteRating"
        | "PurchaseService/RecordOrders"
        | "PurchaseService/RecordPurchases"
        | "PurchaseService/DeletePurchases"
        | "PurchaseService/IngestPurchases" => &["service", "ingest"],
        "RatingService/ListRatings"
        | "PurchaseService/ListPurchases"
        | "RecommendationService/PredictRatings"
        | "RecommendationService/Recommend"
        | "ModelService/GetServingStatus" => &["service", "operator"],
        "RecommendationService/ListSimilarItems" => &["service", "marketer", "operator"],
        "DemandService/ForecastDemand" => &["service", "marketer", "operator"],
        "CouponService/CheckEligibility"
        | "CouponService/ListUserCoupons"
        | "CouponService/GetReservation"
        | "CouponService/ListReservations"
        | "CouponService/GetRedemption"
        | "CouponService/ListRedemptions" => &["service", "marketer", "operator"],
        "CouponService/ReserveCoupon"
        | "CouponService/ConfirmRedemption"
        | "CouponService/ReleaseReservation"
        | "CouponService/RollbackRedemption" => &["service"],
        "PrivacyService/SetConsent"
        | "PrivacyService/GetConsent"
        | "PrivacyService/ListConsents"
        | "PrivacyService/StreamConsentChanges"
        | "PrivacyService/UpsertSuppressions"
        | "PrivacyService/ListSuppressions"
        | "CatalogService/ListUserAttributes" => &["service", "operator"],
        "PrivacyService/DeleteSuppressions" | "PrivacyService/ExportUserData" | "PrivacyService/RectifyUser" => {
            &["operator"]
        }
        "PrivacyService/EraseUser" | "PrivacyService/GetErasure" | "PrivacyService/ListErasures" => &["operator"],
        "CatalogService/UpsertUserAttributes" | "CatalogService/DeleteUserAttributes" => {
            &["service", "ingest", "operator"]
        }
        "CampaignService/UpsertAssignments" | "CampaignService/DeleteAssignments" => {
            &["ingest", "marketer", "operator"]
        }
        "CouponService/StreamCouponTargets"
        | "RecommendationService/ListItemAudience"
        | "RecommendationService/StreamAudience" => &["marketer", "operator"],
        "InventoryService/ListReplenishment" => &["marketer", "operator"],
        "InventoryService/SimulateReplenishment" => &["operator"],
        inventory if inventory.starts_with("InventoryService/") => &["ingest", "operator"],
        "CampaignService/AllowSensitiveAttribute" => &["operator"],
        imports if imports.starts_with("ImportService/") => &["operator"],
        campaign if campaign.starts_with("CampaignService/") => &["marketer", "operator"],
        "RecommendationService/ListSimilarUsers"
        | "DemandService/BacktestDemand"
        | "ModelService/ListSnapshots"
        | "ModelService/GetSnapshot"
        | "ModelService/GetBiasReport"
        | "ModelService/ActivateSnapshot"
        | "ModelService/RollbackSnapshot" => &["operator"],
        _ => panic!("nobody has said who may call {method}"),
    }
}

#[tokio::test]
async fn each_role_may_call_exactly_its_rpcs() {
    let database = shop::open().await;
    let keys = ROLES.map(|role| create_key(&database, &["--role", role]));
    let server = Server::start(&database);
    let nobody = DynamicClient::new(server.channel().await);
    for method in methods() {
        let name = method_name(&method);
        let request = &valid_requests(&name, &method.input())[0];
        for (role, key) in ROLES.iter().zip(&keys) {
            let answer = nobody.authorized(bearer(key)).call(&method, request).await;
            let code = answer.as_ref().err().map(Status::code);
            match allowed(&name).contains(role) || *role == "admin" {
                true => assert!(
                    ![Some(Code::PermissionDenied), Some(Code::Unauthenticated)].contains(&code),
                    "{name} as {role}: {answer:?}"
                ),
                false => assert_status(&answer.unwrap_err(), Code::PermissionDenied, "ROLE_NOT_ALLOWED"),
            }
        }
        let answer = nobody.call(&method, request).await;
        assert_status(&answer.unwrap_err(), Code::Unauthenticated, "API_KEY_MISSING");
    }
    assert_eq!(server.health("").await, Some(ServingStatus::Serving), "without a key");
}

#[tokio::test]
async fn malformed_unknown_expired_and_revoked_keys_are_refused() {
    let database = shop::open().await;
    let key = create_key(&database, &["--role", "operator"]);
    let expired = create_key(&database, &["--role", "operator", "--expires", "1d"]);
    let revoked = create_key(&database, &["--role", "operator"]);
    succeed(&database, &["keys", "revoke", id_of(&revoked)]);
    sqlx::query("UPDATE api_keys SET expires_at = clock_timestamp() WHERE id = $1")
        .bind(id_of(&expired))
        .execute(&mut database.connect().await)
        .await
        .unwrap();
    let server = Server::start(&database);
    let nobody = DynamicClient::new(server.channel().await);
    let (method, request) = &valid_call("ModelService/GetServingStatus");
    let call = async |authorization: String| nobody.authorized(authorization).call(method, request).await;

    for good in [bearer(&key), format!("bearer {key}"), format!("BEARER  {key}")] {
        call(good).await.unwrap();
    }
    let other_secret = format!("lm_{}_{}", id_of(&key), secret_of(&expired));
    let other_id = format!("lm_000000000000_{}", secret_of(&key));
    for (authorization, reason) in [
        (String::new(), "API_KEY_MALFORMED"),
        ("Bearer".to_owned(), "API_KEY_MALFORMED"),
        (key.clone(), "API_KEY_MALFORMED"),
        (format!("Basic {key}"), "API_KEY_MALFORMED"),
        (bearer(&key[..key.len() - 1]), "API_KEY_MALFORMED"),
        (bearer(&"x".repeat(4_000)), "API_KEY_MALFORMED"),
        (bearer(&other_secret), "API_KEY_UNKNOWN"),
        (bearer(&other_id), "API_KEY_UNKNOWN"),
        (bearer(&expired), "API_KEY_EXPIRED"),
        (bearer(&revoked), "API_KEY_REVOKED"),
    ] {
        let status = call(authorization.clone()).await.unwrap_err();
        assert_status(&status, Code::Unauthenticated, reason);
    }
}

#[tokio::test]
async fn creating_and_revoking_keys_takes_effect_on_running_servers() {
    let database = shop::open().await;
    let settings = [("live.refresh_interval_ms", "100")];
    let servers = [Server::with(&database, &settings), Server::with(&database, &settings)];
    let (method, request) = &valid_call("RecommendationService/Recommend");
    for server in &servers {
        let anyone = DynamicClient::new(server.channel().await).call(method, request).await;
        anyone.expect("without keys everybody may call a server on loopback");
    }
    let key = create_key(&database, &["--role", "service"]);
    for server in &servers {
        let nobody = DynamicClient::new(server.channel().await);
        let look = async || nobody.call(method, request).await;
        let is_refused = |answer: &Result<_, Status>| {
            answer
                .as_ref()
                .is_err_and(|status| status.code() == Code::Unauthenticated)
        };
        eventually("callers without a key are refused", look, is_refused)
            .await
            .unwrap_err();
        nobody.authorized(bearer(&key)).call(method, request).await.unwrap();
    }
    succeed(&database, &["keys", "revoke", id_of(&key)]);
    for server in &servers {
        let caller = DynamicClient::new(server.channel().await).authorized(bearer(&key));
        let look = async || caller.call(method, request).await;
        let refused = eventually("the revoked key is refused", look, Result::is_err).await;
        assert_status(&refused.unwrap_err(), Code::Unauthenticated, "API_KEY_REVOKED");
        let nobody = DynamicClient::new(server.channel().await).call(method, request).await;
        assert_status(&nobody.unwrap_err(), Code::Unauthenticated, "API_KEY_MISSING");
    }
}

#[tokio::test]
async fn revoking_a_key_ends_its_streams() {
    let database = shop::open().await;
    let key = create_key(&database, &["--role", "ingest"]);
    let server = Server::with(&database, &[("live.refresh_interval_ms", "100")]);
    let authorization = WithKey::new(Some(&key));
    let mut client = RatingServiceClient::with_interceptor(server.channel().await, authorization);
    let (sender, messages) = tokio::sync::mpsc::unbounded_channel();
    let stream = tokio_stream::wrappers::UnboundedReceiverStream::new(messages);
    let ingest = tokio::spawn(async move { client.ingest_ratings(stream).await });
    let send = |number: usize| {
        // A stream that has ended takes no more messages.
        let _ = sender.send(IngestRatingsRequest {
            ratings: vec![a_rating("streamer", &shop::item(number), 3.0)],
        });
    };
    send(0);
    let mut connection = database.connect().await;
    let stored = "SELECT count(*) FROM users WHERE external_id = 'streamer'";
    let look = async || number(&mut connection, stored).await;
    eventually("the first message is stored", look, |&users| users == 1).await;
    succeed(&database, &["keys", "revoke", id_of(&key)]);
    // The server notices it with the next message.
    let look = async || {
        send(1);
        ingest.is_finished()
    };
    eventually("the stream ends", look, |&is_finished| is_finished).await;
    assert_status(
        &ingest.await.unwrap().unwrap_err(),
        Code::Unauthenticated,
        "API_KEY_REVOKED",
    );
}

#[tokio::test]
async fn an_open_server_takes_calls_without_a_key_and_refuses_wrong_keys() {
    let database = shop::open().await;
    let key = create_key(&database, &["--role", "ingest"]);
    let server = Server::with(&database, &[("server.allow_unauthenticated", "true")]);
    let nobody = DynamicClient::new(server.channel().await);
    let (method, request) = &valid_call("RecommendationService/Recommend");
    nobody.call(method, request).await.unwrap();
    let denied = nobody.authorized(bearer(&key)).call(method, request).await;
    assert_status(&denied.unwrap_err(), Code::PermissionDenied, "ROLE_NOT_ALLOWED");
    let malformed = nobody.authorized("Bearer lm").call(method, request).await;
    assert_status(&malformed.unwrap_err(), Code::Unauthenticated, "API_KEY_MALFORMED");
}

#[tokio::test]
async fn a_key_beyond_its_rate_limit_is_told_when_to_retry() {
    let database = shop::open().await;
    let [greedy, other] = [(); 2].map(|()| create_key(&database, &["--role", "marketer"]));
    // At this rate the burst is not refilled during the test.
    let settings = [("access.requests_per_second", "1"), ("access.burst", "600")];
    let server = Server::with(&database, &settings);
    let (greedy, other) = (
        KeyedClients::with_key(&server, &greedy).await,
        KeyedClients::with_key(&server, &other).await,
    );
    let mut refused = None;
    for _ in 0..2_000 {
        if let Err(status) = greedy.similar("i02", None).await {
            refused = Some(status);
            break;
        }
    }
    let status = refused.expect("no request was refused");
    assert_status(&status, Code::ResourceExhausted, "RATE_LIMITED");
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(retry.is_some_and(|delay| !delay.is_zero()), "{status:?}");
    other.similar("i02", None).await.unwrap();
}

#[tokio::test]
async fn a_key_is_listed_with_its_role_merchant_and_state() {
    let database = shop::open().await;
    let key = create_key(
        &database,
        &[
            "--role",
            "marketer",
            "--merchant",
            "m1",
            "--expires",
            "30d",
            "--note",
            "spring",
        ],
    );
    let listed: Value = serde_json::from_str(&succeed(&database, &["keys", "list", "--json"])).unwrap();
    let listed = &listed[0];
    assert_eq!(
        (
            &listed["id"],
            &listed["role"],
            &listed["merchant_id"],
            &listed["note"],
            &listed["state"]
        ),
        (
            &id_of(&key).into(),
            &"marketer".into(),
            &"m1".into(),
            &"spring".into(),
            &"good".into()
        )
    );
    succeed(&database, &["keys", "revoke", id_of(&key)]);
    succeed(&database, &["keys", "revoke", id_of(&key)]);
    assert!(succeed(&database, &["keys", "list"]).contains("revoked"));
}

#[tokio::test]
async fn bad_arguments_of_the_keys_commands_are_named() {
    let database = shop::open().await;
    let check = |args: &[&str], code: i32, part: &str| {
        let (found, _, error) = run(&database, args);
        assert_eq!(found, code, "{args:?}: {error}");
        assert!(error.contains(part), "{args:?}: {error}");
    };
    check(&["keys", "create", "--role", "root"], 2, "must be one of service");
    check(
        &["keys", "create", "--role", "service", "--merchant", "m1"],
        2,
        "needs the role marketer",
    );
    check(
        &["keys", "create", "--role", "marketer", "--merchant", "m9"],
        1,
        "there is no merchant m9",
    );
    check(
        &["keys", "create", "--role", "admin", "--expires", "2020-01-01T00:00:00Z"],
        2,
        "future",
    );
    check(&["keys", "revoke", "ffffffffffff"], 1, "there is no key ffffffffffff");
}

#[tokio::test]
async fn the_secret_of_a_key_is_not_stored() {
    let database = shop::open().await;
    let key = create_key(&database, &["--role", "service"]);
    succeed(&database, &["keys", "revoke", id_of(&key)]);
    let secret = secret_of(&key);
    let mut connection = database.connect().await;
    for table in ["api_keys", "audit"] {
        let rows = format!("SELECT string_agg({table}::text, ' ') FROM {table}");
        let text: String = sqlx::query_scalar(sqlx::AssertSqlSafe(rows))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert!(!text.contains(secret), "{text}");
    }
}
