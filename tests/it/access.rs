//! Who may call what, and what a merchant sees.

use std::collections::BTreeMap;
use std::time::Duration;

use likemind::grpc::proto::v1::catalog_service_client::CatalogServiceClient;
use likemind::grpc::proto::v1::rating_service_client::RatingServiceClient;
use likemind::grpc::proto::v1::recommendation_service_client::RecommendationServiceClient;
use likemind::grpc::proto::v1::{
    GetItemRequest, IngestRatingsRequest, ItemFilter, ListItemsRequest, ListItemsResponse, ListSimilarItemsRequest,
    ListSimilarUsersRequest,
};
use serde_json::Value;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_types::StatusExt;

use crate::bad_input::cases::valid_requests;
use crate::bad_input::dynamic::{Caller, method_name, methods};
use crate::postgres::TestDatabase;
use crate::program::{Server, eventually, run, succeed};
use crate::rpc::{assert_invalid, assert_status};
use crate::shop;

const ROLES: [&str; 5] = ["service", "ingest", "marketer", "operator", "admin"];

/// Who may call an RPC, besides admins.
fn allowed(method: &str) -> &'static [&'static str] {
    match method {
        "CatalogService/UpsertMerchants" | "CatalogService/UpsertItems" => &["ingest"],
        "CatalogService/GetItem" | "CatalogService/ListItems" => &["service", "ingest", "marketer", "operator"],
        "RatingService/UpsertRatings"
        | "RatingService/IngestRatings"
        | "RatingService/DeleteRating"
        | "PurchaseService/RecordPurchases"
        | "PurchaseService/IngestPurchases" => &["service", "ingest"],
        "RatingService/ListRatings"
        | "PurchaseService/ListPurchases"
        | "RecommendationService/PredictRatings"
        | "RecommendationService/Recommend"
        | "ModelService/GetServingStatus" => &["service", "operator"],
        "RecommendationService/ListSimilarItems" => &["service", "marketer", "operator"],
        "CouponService/CheckEligibility" | "CouponService/ListUserCoupons" => &["service", "marketer", "operator"],
        "CouponService/ReserveCoupon"
        | "CouponService/ConfirmRedemption"
        | "CouponService/ReleaseReservation"
        | "CouponService/RollbackRedemption" => &["service"],
        "PrivacyService/SetConsent" | "PrivacyService/GetConsent" => &["service", "operator"],
        "CouponService/StreamCouponTargets" | "RecommendationService/ListItemAudience" => &["marketer", "operator"],
        campaign if campaign.starts_with("CampaignService/") => &["marketer", "operator"],
        "RecommendationService/ListSimilarUsers"
        | "ModelService/ListSnapshots"
        | "ModelService/GetSnapshot"
        | "ModelService/ActivateSnapshot"
        | "ModelService/RollbackSnapshot" => &["operator"],
        _ => panic!("nobody has said who may call {method}"),
    }
}

/// Makes a key; the whole of it.
fn create(database: &TestDatabase, args: &[&str]) -> String {
    let mut all = vec!["keys", "create"];
    all.extend(args);
    succeed(database, &all).trim().to_owned()
}

/// The public part.
fn id_of(key: &str) -> &str {
    key.split('_').nth(1).unwrap()
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

#[tokio::test]
async fn every_role_calls_what_it_may_and_nothing_else() {
    let database = shop::open().await;
    let keys = ROLES.map(|role| create(&database, &["--role", role]));
    let server = Server::start(&database);
    let nobody = Caller::new(server.channel().await);
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
async fn only_a_good_key_opens() {
    let database = shop::open().await;
    let key = create(&database, &["--role", "operator"]);
    let expired = create(&database, &["--role", "operator", "--expires", "1d"]);
    let revoked = create(&database, &["--role", "operator"]);
    succeed(&database, &["keys", "revoke", id_of(&revoked)]);
    sqlx::query("UPDATE api_keys SET expires_at = clock_timestamp() WHERE id = $1")
        .bind(id_of(&expired))
        .execute(&mut shop::connect(&database).await)
        .await
        .unwrap();
    let server = Server::start(&database);
    let nobody = Caller::new(server.channel().await);
    let methods = methods();
    let method = methods
        .iter()
        .find(|method| method_name(method) == "ModelService/GetServingStatus")
        .unwrap();
    let request = &valid_requests("ModelService/GetServingStatus", &method.input())[0];
    let call = async |authorization: String| nobody.authorized(authorization).call(method, request).await;

    for good in [bearer(&key), format!("bearer {key}"), format!("BEARER  {key}")] {
        call(good).await.unwrap();
    }
    let other_secret = format!("lm_{}_{}", id_of(&key), expired.splitn(3, '_').nth(2).unwrap());
    let other_id = format!("lm_000000000000_{}", key.splitn(3, '_').nth(2).unwrap());
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
async fn keys_come_into_force_and_out_of_it_on_running_servers() {
    let database = shop::open().await;
    let settings = [("live.refresh_interval_ms", "100")];
    let servers = [Server::with(&database, &settings), Server::with(&database, &settings)];
    let methods = methods();
    let method = methods
        .iter()
        .find(|method| method_name(method) == "RecommendationService/Recommend")
        .unwrap();
    let request = &valid_requests("RecommendationService/Recommend", &method.input())[0];
    for server in &servers {
        let anyone = Caller::new(server.channel().await).call(method, request).await;
        anyone.expect("on loopback and without keys everybody may");
    }
    let key = create(&database, &["--role", "service"]);
    for server in &servers {
        let nobody = Caller::new(server.channel().await);
        eventually("the first key closes the door", async || {
            let refused = nobody.call(method, request).await.err()?;
            (refused.code() == Code::Unauthenticated).then_some(())
        })
        .await;
        nobody.authorized(bearer(&key)).call(method, request).await.unwrap();
    }
    succeed(&database, &["keys", "revoke", id_of(&key)]);
    for server in &servers {
        let caller = Caller::new(server.channel().await).authorized(bearer(&key));
        let status = eventually("the key is out of use", async || {
            caller.call(method, request).await.err()
        })
        .await;
        assert_status(&status, Code::Unauthenticated, "API_KEY_REVOKED");
        let nobody = Caller::new(server.channel().await).call(method, request).await;
        assert_status(&nobody.unwrap_err(), Code::Unauthenticated, "API_KEY_MISSING");
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_key() {
    let database = shop::open().await;
    let key = create(&database, &["--role", "ingest"]);
    let server = Server::with(&database, &[("live.refresh_interval_ms", "100")]);
    let authorization = WithKey(bearer(&key).parse().unwrap());
    let mut client = RatingServiceClient::with_interceptor(server.channel().await, authorization);
    let (sender, messages) = tokio::sync::mpsc::unbounded_channel();
    let stream = tokio_stream::wrappers::UnboundedReceiverStream::new(messages);
    let mut ingest = tokio::spawn(async move { client.ingest_ratings(stream).await });
    let send = |number: usize| {
        // A stream that has ended takes no more.
        let _ = sender.send(IngestRatingsRequest {
            ratings: vec![shop::a_rating("streamer", &shop::item(number), 3.0)],
        });
    };
    send(0);
    let mut connection = shop::connect(&database).await;
    eventually("the first message is stored", async || {
        let stored = "SELECT true FROM users WHERE external_id = 'streamer'";
        sqlx::query_scalar::<_, bool>(stored)
            .fetch_optional(&mut connection)
            .await
            .unwrap()
    })
    .await;
    succeed(&database, &["keys", "revoke", id_of(&key)]);
    let ended = eventually("the stream ends", async || {
        send(1);
        tokio::time::timeout(Duration::from_millis(20), &mut ingest).await.ok()
    })
    .await;
    assert_status(&ended.unwrap().unwrap_err(), Code::Unauthenticated, "API_KEY_REVOKED");
}

#[tokio::test]
async fn a_server_may_be_open_on_purpose_but_not_to_a_wrong_key() {
    let database = shop::open().await;
    let key = create(&database, &["--role", "ingest"]);
    let server = Server::with(&database, &[("server.allow_unauthenticated", "true")]);
    let nobody = Caller::new(server.channel().await);
    let methods = methods();
    let method = methods
        .iter()
        .find(|method| method_name(method) == "RecommendationService/Recommend")
        .unwrap();
    let request = &valid_requests("RecommendationService/Recommend", &method.input())[0];
    nobody.call(method, request).await.unwrap();
    let denied = nobody.authorized(bearer(&key)).call(method, request).await;
    assert_status(&denied.unwrap_err(), Code::PermissionDenied, "ROLE_NOT_ALLOWED");
    let malformed = nobody.authorized("Bearer lm").call(method, request).await;
    assert_status(&malformed.unwrap_err(), Code::Unauthenticated, "API_KEY_MALFORMED");
}

type Authorized = InterceptedService<Channel, WithKey>;

#[derive(Clone)]
struct WithKey(MetadataValue<tonic::metadata::Ascii>);

impl tonic::service::Interceptor for WithKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// One caller's clients.
#[derive(Clone)]
struct Clients {
    catalog: CatalogServiceClient<Authorized>,
    recommendations: RecommendationServiceClient<Authorized>,
}

impl Clients {
    async fn with(server: &Server, key: &str) -> Self {
        let key = WithKey(bearer(key).parse().unwrap());
        let channel = server.channel().await;
        Self {
            catalog: CatalogServiceClient::with_interceptor(channel.clone(), key.clone()),
            recommendations: RecommendationServiceClient::with_interceptor(channel, key),
        }
    }

    async fn get(&self, item: &str) -> Result<(), Status> {
        let request = GetItemRequest {
            item_id: item.to_owned(),
        };
        self.catalog.clone().get_item(request).await.map(drop)
    }

    async fn list(&self, merchant: Option<&str>, page_token: &str) -> Result<ListItemsResponse, Status> {
        let request = ListItemsRequest {
            merchant_id: merchant.map(str::to_owned),
            page_size: 10,
            page_token: page_token.to_owned(),
            ..ListItemsRequest::default()
        };
        Ok(self.catalog.clone().list_items(request).await?.into_inner())
    }

    async fn similar(&self, item: &str, filter: Option<ItemFilter>) -> Result<Vec<String>, Status> {
        let request = ListSimilarItemsRequest {
            item_id: item.to_owned(),
            limit: 50,
            filter,
        };
        let answer = self.recommendations.clone().list_similar_items(request).await?;
        Ok(answer.into_inner().items.into_iter().map(|item| item.item_id).collect())
    }
}

/// What a caller can tell an answer by, with the item's own name taken out.
fn told(status: &Status, item: &str) -> (Code, String, Option<String>) {
    let reason = status.get_details_error_info().map(|info| info.reason);
    (status.code(), status.message().replace(item, "ITEM"), reason)
}

/// Of the shop even items are m0's, odd ones m1's.
#[tokio::test]
async fn a_merchant_neither_sees_nor_names_anything_of_another() {
    let database = shop::open().await;
    sqlx::query("INSERT INTO items (external_id) VALUES ('nobodys')")
        .execute(&mut shop::connect(&database).await)
        .await
        .unwrap();
    let [own, all, admin] = [
        vec!["--role", "marketer", "--merchant", "m0"],
        vec!["--role", "marketer"],
        vec!["--role", "admin"],
    ]
    .map(|args| create(&database, &args));
    let server = Server::start(&database);
    let (own, all) = (Clients::with(&server, &own).await, Clients::with(&server, &all).await);
    let admin = Clients::with(&server, &admin).await;
    let is_own = |id: &String| id[1..].parse::<usize>().is_ok_and(|number| number % 2 == 0);

    own.get("i02").await.unwrap();
    all.get("i03").await.unwrap();
    let unknown = told(&own.get("unheard-of").await.unwrap_err(), "unheard-of");
    assert_eq!(unknown.0, Code::NotFound);
    for foreign in ["i03", "nobodys"] {
        assert_eq!(told(&own.get(foreign).await.unwrap_err(), foreign), unknown);
    }

    let mut seen = Vec::new();
    let mut token = String::new();
    loop {
        let page = own.list(None, &token).await.unwrap();
        seen.extend(page.items.into_iter().map(|item| item.item_id));
        if page.next_page_token.is_empty() {
            break;
        }
        token = page.next_page_token;
    }
    assert_eq!(seen.len(), shop::ITEMS / 2);
    assert!(seen.iter().all(is_own), "{seen:?}");
    assert_eq!(own.list(Some("m0"), "").await.unwrap().items.len(), 10);
    let refused = told(&own.list(Some("m1"), "").await.unwrap_err(), "m1");
    assert_eq!(
        (refused.0, refused.2.as_deref()),
        (Code::PermissionDenied, Some("FOREIGN_MERCHANT"))
    );
    for name in ["nobody-is-called-this", "", &"x".repeat(129)] {
        assert_eq!(
            told(&own.list(Some(name), "").await.unwrap_err(), "ITEM"),
            refused,
            "{name}"
        );
    }
    for (merchant, foreign) in [(Some("m1"), &admin), (None, &admin), (Some("m1"), &all)] {
        let token = foreign.list(merchant, "").await.unwrap().next_page_token;
        assert!(!token.is_empty());
        assert_invalid(
            &own.list(None, &token).await.unwrap_err(),
            "INVALID_PAGE_TOKEN",
            &["page_token"],
        );
    }

    let similar = own.similar("i02", None).await.unwrap();
    assert!(!similar.is_empty() && similar.iter().all(is_own), "{similar:?}");
    assert!(all.similar("i02", None).await.unwrap().len() > similar.len());
    let unknown = told(&own.similar("unheard-of", None).await.unwrap_err(), "unheard-of");
    assert_eq!(told(&own.similar("i03", None).await.unwrap_err(), "i03"), unknown);
    let of_merchants = |ids: &[&str]| ItemFilter {
        merchant_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..ItemFilter::default()
    };
    assert_eq!(own.similar("i02", Some(of_merchants(&["m0"]))).await.unwrap(), similar);
    for foreign in [vec!["m1"], vec!["m0", "m1"], vec!["nobody-is-called-this"]] {
        let status = own.similar("i02", Some(of_merchants(&foreign))).await.unwrap_err();
        assert_status(&status, Code::PermissionDenied, "FOREIGN_MERCHANT");
    }
    let candidates = ItemFilter {
        candidate_item_ids: ["i01", "i03", "nobodys", "unheard-of"].map(str::to_owned).to_vec(),
        ..ItemFilter::default()
    };
    assert_eq!(
        own.similar("i02", Some(candidates)).await.unwrap(),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn similar_users_are_those_of_the_cosine() {
    let database = crate::sample::example().await;
    let server = Server::start(&database);
    let list = async |user: &str, limit: i32| {
        let request = ListSimilarUsersRequest {
            user_id: user.to_owned(),
            limit,
        };
        server.recommendations().await.list_similar_users(request).await
    };
    let answer = list("u0", 0).await.unwrap().into_inner();
    let found: Vec<(u32, &str)> = answer
        .users
        .iter()
        .map(|user| (user.rank, user.user_id.as_str()))
        .collect();
    assert_eq!(found, [(1, "u2"), (2, "u1")]);
    for (user, similarity) in answer.users.iter().zip([0.81649658, 0.06299408]) {
        assert!((user.score - similarity).abs() < 1e-6, "{user:?}");
    }
    assert_eq!(answer.snapshot_version, 1);
    assert_eq!(list("u0", 1).await.unwrap().into_inner().users.len(), 1);
    assert_status(
        &list("unheard-of", 1).await.unwrap_err(),
        Code::NotFound,
        "USER_NOT_FOUND",
    );
}

#[tokio::test]
async fn a_key_that_asks_for_too_much_is_told_when_to_come_again() {
    let database = shop::open().await;
    let [greedy, other] = [(); 2].map(|()| create(&database, &["--role", "marketer"]));
    // Slow enough that none comes free during the test.
    let settings = [("access.requests_per_second", "1"), ("access.burst", "600")];
    let server = Server::with(&database, &settings);
    let (greedy, other) = (
        Clients::with(&server, &greedy).await,
        Clients::with(&server, &other).await,
    );
    let mut refused = None;
    for _ in 0..2_000 {
        if let Err(status) = greedy.similar("i02", None).await {
            refused = Some(status);
            break;
        }
    }
    let status = refused.expect("nothing was refused");
    assert_status(&status, Code::ResourceExhausted, "RATE_LIMITED");
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(retry.is_some_and(|delay| !delay.is_zero()), "{status:?}");
    other.similar("i02", None).await.unwrap();
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked() {
    let database = shop::open().await;
    let key = create(
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

    let check = |args: &[&str], code: i32, part: &str| {
        let (found, _, error) = run(&database, args);
        assert_eq!(found, code, "{args:?}: {error}");
        assert!(error.contains(part), "{args:?}: {error}");
    };
    check(&["keys", "create", "--role", "root"], 2, "must be one of service");
    check(
        &["keys", "create", "--role", "service", "--merchant", "m1"],
        2,
        "only for the role marketer",
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

    // Nobody can read the key out of the database.
    let secret = key.splitn(3, '_').nth(2).unwrap();
    let mut connection = shop::connect(&database).await;
    for table in ["api_keys", "audit"] {
        let rows = format!("SELECT string_agg({table}::text, ' ') FROM {table}");
        let text: String = sqlx::query_scalar(sqlx::AssertSqlSafe(rows))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert!(!text.contains(secret), "{text}");
    }
}

/// Action, subject and actor's kind, in the order they were written.
async fn audited(database: &TestDatabase) -> Vec<(String, String, String)> {
    sqlx::query_as("SELECT action, subject, substring(actor from '^[a-z]+') FROM audit ORDER BY id")
        .fetch_all(&mut shop::connect(database).await)
        .await
        .unwrap()
}

#[tokio::test]
async fn what_matters_leaves_a_row_that_stays() {
    let database = shop::open().await;
    let key = create(&database, &["--role", "operator"]);
    let unused = create(&database, &["--role", "service"]);
    succeed(&database, &["keys", "revoke", id_of(&unused)]);
    shop::train(database.url());
    let server = Server::start(&database);
    let nobody = Caller::new(server.channel().await);
    let methods: BTreeMap<String, _> = methods()
        .into_iter()
        .map(|method| (method_name(&method), method))
        .collect();
    let call = async |name: &str| {
        let method = &methods[name];
        let request = &valid_requests(name, &method.input())[0];
        nobody.authorized(bearer(&key)).call(method, request).await.unwrap();
    };
    call("ModelService/RollbackSnapshot").await;
    call("ModelService/GetServingStatus").await;
    sqlx::query("UPDATE snapshots SET state = 'rejected' WHERE version = 2")
        .execute(&mut shop::connect(&database).await)
        .await
        .unwrap();
    succeed(&database, &["snapshots", "activate", "2", "--reason", "we know better"]);
    let row = |action: &str, subject: &str, actor: &str| (action.to_owned(), subject.to_owned(), actor.to_owned());
    assert_eq!(
        audited(&database).await,
        [
            row("SNAPSHOT_ACTIVATED", "snapshot 1", "process"),
            row("KEY_CREATED", id_of(&key), "process"),
            row("KEY_CREATED", id_of(&unused), "process"),
            row("KEY_REVOKED", id_of(&unused), "process"),
            row("SNAPSHOT_ACTIVATED", "snapshot 2", "process"),
            row("SNAPSHOT_ROLLED_BACK", "snapshot 1", "key"),
            row("SNAPSHOT_FORCED", "snapshot 2", "process"),
        ]
    );
    let mut connection = shop::connect(&database).await;
    for statement in ["UPDATE audit SET note = 'x'", "DELETE FROM audit", "TRUNCATE audit"] {
        let error = sqlx::query(statement).execute(&mut connection).await.unwrap_err();
        assert!(error.to_string().contains("rows of audit are never changed"), "{error}");
    }
    assert_eq!(audited(&database).await.len(), 7);
}

#[tokio::test]
async fn no_secret_comes_into_the_logs() {
    let database = shop::open().await;
    let key = create(&database, &["--role", "admin"]);
    let server = Server::with(&database, &[("telemetry.log_filter", "trace")]);
    let nobody = Caller::new(server.channel().await);
    for method in methods() {
        let request = &valid_requests(&method_name(&method), &method.input())[0];
        let _ = nobody.authorized(bearer(&key)).call(&method, request).await;
        let _ = nobody.authorized(key.clone()).call(&method, request).await;
    }
    let log = server.program.log();
    assert!(log.contains(&format!("key:{}", id_of(&key))), "who calls is logged");
    let secret = key.splitn(3, '_').nth(2).unwrap();
    let leak = log
        .lines()
        .find(|line| line.contains(secret) || line.contains("Bearer"));
    assert_eq!(leak, None);
}
