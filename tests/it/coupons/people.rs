//! Attributes, assignments and suppressions of users, as callers set, delete and list them.

use likemind::grpc::proto::v1::campaign_service_client::CampaignServiceClient;
use likemind::grpc::proto::v1::catalog_service_client::CatalogServiceClient;
use likemind::grpc::proto::v1::coupon_service_client::CouponServiceClient;
use likemind::grpc::proto::v1::privacy_service_client::PrivacyServiceClient;
use likemind::grpc::proto::v1::{
    AssignmentKey, CheckEligibilityRequest, DeleteAssignmentsRequest, DeleteSuppressionsRequest,
    DeleteUserAttributesRequest, EntryOutcome, EntryResult, ListAssignmentsRequest, ListSuppressionsRequest,
    ListUserAttributesRequest, ReasonCode, StreamCouponTargetsRequest, SuppressionKey, UpsertAssignmentsRequest,
    UpsertSuppressionsRequest, UpsertUserAttributesRequest, UserAttribute, UserAttributeKey, UserSuppression,
    stream_coupon_targets_response::Message,
};
use sqlx::PgConnection;
use tonic::{Code, Status};

use crate::support::answers::{all_pages, assert_outcomes, assert_status};
use crate::support::api_keys::{KeyedChannel, WithKey, create_key, id_of};
use crate::support::coupons::Offer;
use crate::support::postgres::TestDatabase;
use crate::support::program::Server;
use crate::support::shop::{self, USERS, user};

const STORED: Result<EntryOutcome, (&str, &str)> = Ok(EntryOutcome::Stored);
const MERGED: Result<EntryOutcome, (&str, &str)> = Ok(EntryOutcome::Merged);

struct Clients {
    catalog: CatalogServiceClient<KeyedChannel>,
    campaigns: CampaignServiceClient<KeyedChannel>,
    coupons: CouponServiceClient<KeyedChannel>,
    privacy: PrivacyServiceClient<KeyedChannel>,
}

impl Clients {
    async fn with_key(server: &Server, key: Option<&str>) -> Self {
        let channel = server.channel().await;
        let key = || WithKey::new(key);
        Self {
            catalog: CatalogServiceClient::with_interceptor(channel.clone(), key()),
            campaigns: CampaignServiceClient::with_interceptor(channel.clone(), key()),
            coupons: CouponServiceClient::with_interceptor(channel.clone(), key()),
            privacy: PrivacyServiceClient::with_interceptor(channel, key()),
        }
    }

    async fn set_attributes(&self, entries: &[(&str, &str, &str)]) -> Vec<EntryResult> {
        let attributes = entries.iter().map(|(user, name, value)| attribute(user, name, value));
        let request = UpsertUserAttributesRequest {
            attributes: attributes.collect(),
        };
        let answer = self.catalog.clone().upsert_user_attributes(request).await.unwrap();
        answer.into_inner().results
    }

    async fn delete_attributes(&self, entries: &[(&str, &str)]) -> Vec<EntryResult> {
        let key = |&(user, name): &(&str, &str)| UserAttributeKey {
            user_id: user.to_owned(),
            name: name.to_owned(),
        };
        let request = DeleteUserAttributesRequest {
            attributes: entries.iter().map(key).collect(),
        };
        let answer = self.catalog.clone().delete_user_attributes(request).await.unwrap();
        answer.into_inner().results
    }

    async fn list_attributes(&self, request: ListUserAttributesRequest) -> (Vec<UserAttribute>, String) {
        let answer = self
            .catalog
            .clone()
            .list_user_attributes(request)
            .await
            .unwrap()
            .into_inner();
        (answer.attributes, answer.next_page_token)
    }

    async fn assign(&self, entries: &[(&str, &str)]) -> Vec<EntryResult> {
        let assignments = keys(entries);
        let request = UpsertAssignmentsRequest { assignments };
        let answer = self.campaigns.clone().upsert_assignments(request).await.unwrap();
        answer.into_inner().results
    }

    async fn unassign(&self, entries: &[(&str, &str)]) -> Vec<EntryResult> {
        let assignments = keys(entries);
        let request = DeleteAssignmentsRequest { assignments };
        let answer = self.campaigns.clone().delete_assignments(request).await.unwrap();
        answer.into_inner().results
    }

    async fn assigned(&self, request: ListAssignmentsRequest) -> Result<(Vec<String>, String), Status> {
        let answer = self.campaigns.clone().list_assignments(request).await?.into_inner();
        assert!(answer.assignments.iter().all(|one| one.assigned_at.is_some()));
        let users = answer.assignments.into_iter().map(|one| one.user_id);
        Ok((users.collect(), answer.next_page_token))
    }

    async fn suppress(&self, entries: &[(&str, &str)]) -> Vec<EntryResult> {
        let suppression = |&(user, reason): &(&str, &str)| UserSuppression {
            user_id: user.to_owned(),
            reason: reason.to_owned(),
        };
        let request = UpsertSuppressionsRequest {
            suppressions: entries.iter().map(suppression).collect(),
        };
        let answer = self.privacy.clone().upsert_suppressions(request).await.unwrap();
        answer.into_inner().results
    }

    async fn lift(&self, users: &[&str]) -> Vec<EntryResult> {
        let key = |user: &&str| SuppressionKey {
            user_id: (*user).to_owned(),
        };
        let request = DeleteSuppressionsRequest {
            suppressions: users.iter().map(key).collect(),
        };
        let answer = self.privacy.clone().delete_suppressions(request).await.unwrap();
        answer.into_inner().results
    }

    /// Returns the users and reasons of a page of suppressions.
    async fn suppressed(&self, request: ListSuppressionsRequest) -> (Vec<(String, String)>, String) {
        let answer = self
            .privacy
            .clone()
            .list_suppressions(request)
            .await
            .unwrap()
            .into_inner();
        assert!(answer.suppressions.iter().all(|one| one.suppressed_at.is_some()));
        let rows = answer.suppressions.into_iter().map(|one| (one.user_id, one.reason));
        (rows.collect(), answer.next_page_token)
    }

    /// Returns the reasons why the user cannot have coupon c.
    async fn reasons(&self, user: &str) -> Vec<ReasonCode> {
        let request = CheckEligibilityRequest {
            user_id: user.to_owned(),
            coupon_ids: vec!["c".to_owned()],
            cart: None,
        };
        let answer = self
            .coupons
            .clone()
            .check_eligibility(request)
            .await
            .unwrap()
            .into_inner();
        answer.coupons[0].reasons.iter().map(|reason| reason.code()).collect()
    }

    /// Returns the number of targets of coupon c.
    async fn eligible(&self) -> i64 {
        let request = StreamCouponTargetsRequest {
            coupon_id: "c".to_owned(),
            preview: true,
            ..StreamCouponTargetsRequest::default()
        };
        let mut stream = self
            .coupons
            .clone()
            .stream_coupon_targets(request)
            .await
            .unwrap()
            .into_inner();
        match stream.message().await.unwrap().unwrap().message {
            Some(Message::Header(header)) => header.eligible_count,
            other => panic!("not a header: {other:?}"),
        }
    }
}

fn attribute(user: &str, name: &str, value: &str) -> UserAttribute {
    UserAttribute {
        user_id: user.to_owned(),
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn keys(entries: &[(&str, &str)]) -> Vec<AssignmentKey> {
    let key = |&(campaign, user): &(&str, &str)| AssignmentKey {
        campaign_id: campaign.to_owned(),
        user_id: user.to_owned(),
    };
    entries.iter().map(key).collect()
}

/// Starts a server of the shop with these offers. The caller is anonymous, as no key exists.
async fn serve(offers: &[Offer]) -> (TestDatabase, PgConnection, Server, Clients) {
    let database = shop::open().await;
    let mut connection = database.connect().await;
    for offer in offers {
        offer.create(&mut connection).await;
    }
    let server = Server::start(&database);
    let clients = Clients::with_key(&server, None).await;
    (database, connection, server, clients)
}

/// Returns the action, subject, note and number of rows of each audit row about users.
async fn audited(connection: &mut PgConnection) -> Vec<(String, String, String, i64)> {
    sqlx::query_as(
        "SELECT action, subject, note, row_count FROM audit
         WHERE action LIKE 'ATTRIBUTES%' OR action LIKE 'USERS%' OR action LIKE 'SUPPRESSIONS%' ORDER BY id",
    )
    .fetch_all(connection)
    .await
    .unwrap()
}

fn row(action: &str, subject: &str, note: &str, rows: i64) -> (String, String, String, i64) {
    (action.to_owned(), subject.to_owned(), note.to_owned(), rows)
}

#[tokio::test]
async fn attributes_are_set_deleted_and_listed_and_rules_see_them_at_once() {
    let offer = Offer {
        rules: r#"[{"attribute": {"name": "age", "values": ["65+"]}}]"#,
        ..Offer::of("c")
    };
    let (_database, mut connection, _server, clients) = serve(&[offer]).await;
    assert_eq!(clients.eligible().await, 0);
    let results = clients
        .set_attributes(&[
            ("u001", "age", "19-24"),
            ("u002", "age", "65+"),
            ("u001", "age", "65+"),
            ("", "age", "65+"),
            ("u003", "", "65+"),
            ("u003", "age", ""),
            ("newcomer", "town", "Ely"),
        ])
        .await;
    let refused = [
        Err(("user_id", "EMPTY_ID")),
        Err(("name", "MISSING")),
        Err(("value", "MISSING")),
    ];
    assert_outcomes(
        &results,
        &[MERGED, STORED, STORED, refused[0], refused[1], refused[2], STORED],
    );
    assert_eq!((clients.eligible().await, clients.reasons("u001").await), (2, vec![]));
    assert_eq!(clients.reasons("u003").await, [ReasonCode::RuleFailed]);
    assert_outcomes(&clients.set_attributes(&[("u001", "age", "65+")]).await, &[MERGED]);

    let all = [
        attribute("newcomer", "town", "Ely"),
        attribute("u001", "age", "65+"),
        attribute("u002", "age", "65+"),
    ];
    let list = ListUserAttributesRequest::default;
    for page_size in [1, 2, 3] {
        let page = async |page_token| {
            let request = ListUserAttributesRequest {
                page_size,
                page_token,
                ..list()
            };
            clients.list_attributes(request).await
        };
        let (found, pages) = all_pages(page).await;
        assert_eq!((found, pages), (all.to_vec(), 3_usize.div_ceil(page_size as usize)));
    }
    let of_user = ListUserAttributesRequest {
        user_id: Some("u002".to_owned()),
        ..list()
    };
    assert_eq!(clients.list_attributes(of_user).await.0, all[2..]);
    let named = ListUserAttributesRequest {
        name: Some("town".to_owned()),
        ..list()
    };
    assert_eq!(clients.list_attributes(named).await.0, all[..1]);
    let valued = ListUserAttributesRequest {
        value: Some("65+".to_owned()),
        ..list()
    };
    assert_eq!(clients.list_attributes(valued).await.0, all[1..]);

    let results = clients
        .delete_attributes(&[
            ("u001", "age"),
            ("u001", "age"),
            ("u002", "town"),
            ("unheard-of", "age"),
            ("", "age"),
        ])
        .await;
    assert_outcomes(
        &results,
        &[STORED, MERGED, MERGED, MERGED, Err(("user_id", "EMPTY_ID"))],
    );
    assert_eq!(
        (clients.eligible().await, clients.reasons("u001").await),
        (1, vec![ReasonCode::RuleFailed])
    );
    assert_eq!(
        audited(&mut connection).await,
        [
            row("ATTRIBUTES_SET", "user attributes", "age, town", 3),
            row("ATTRIBUTES_DELETED", "user attributes", "age", 1),
        ]
    );
}

#[tokio::test]
async fn assignments_are_made_taken_back_and_listed_and_count_at_once() {
    let offer = Offer {
        is_assigned: true,
        ..Offer::of("c")
    };
    let (_database, mut connection, _server, clients) = serve(&[offer]).await;
    assert_eq!(clients.reasons(&user(1)).await, [ReasonCode::NotAssigned]);
    let results = clients
        .assign(&[
            ("k-c", "u001"),
            ("k-c", "u002"),
            ("no", "u001"),
            ("k-c", "u001"),
            ("k-c", "new"),
            ("k-c", ""),
        ])
        .await;
    let no_campaign = Err(("campaign_id", "CAMPAIGN_NOT_FOUND"));
    let no_id = Err(("user_id", "EMPTY_ID"));
    assert_outcomes(&results, &[STORED, STORED, no_campaign, MERGED, STORED, no_id]);
    assert_eq!((clients.eligible().await, clients.reasons(&user(1)).await), (3, vec![]));
    let list = || ListAssignmentsRequest {
        campaign_id: "k-c".to_owned(),
        ..ListAssignmentsRequest::default()
    };
    let page = async |page_token| {
        let request = ListAssignmentsRequest {
            page_size: 2,
            page_token,
            ..list()
        };
        clients.assigned(request).await.unwrap()
    };
    let (found, pages) = all_pages(page).await;
    assert_eq!((found, pages), (["new", "u001", "u002"].map(str::to_owned).to_vec(), 2));
    let only = ListAssignmentsRequest {
        user_id: Some("u002".to_owned()),
        ..list()
    };
    assert_eq!(clients.assigned(only).await.unwrap().0, ["u002"]);
    let of_nothing = ListAssignmentsRequest {
        campaign_id: "no".to_owned(),
        ..list()
    };
    assert_status(
        &clients.assigned(of_nothing).await.unwrap_err(),
        Code::NotFound,
        "CAMPAIGN_NOT_FOUND",
    );
    let results = clients
        .unassign(&[("k-c", "u001"), ("k-c", "u001"), ("k-c", "u003"), ("no", "u002")])
        .await;
    assert_outcomes(&results, &[STORED, MERGED, MERGED, no_campaign]);
    assert_eq!(clients.reasons(&user(1)).await, [ReasonCode::NotAssigned]);
    assert_eq!(
        audited(&mut connection).await,
        [
            row("USERS_ASSIGNED", "k-c", "", 3),
            row("USERS_UNASSIGNED", "k-c", "", 1)
        ]
    );
}

#[tokio::test]
async fn a_merchants_key_assigns_known_users_to_its_own_campaigns_alone() {
    let of = |id, merchant| Offer {
        merchant,
        is_assigned: true,
        ..Offer::of(id)
    };
    let (database, mut connection, server, clients) = serve(&[of("c", Some("m0")), of("d", Some("m1"))]).await;
    assert_outcomes(&clients.assign(&[("k-d", "u005")]).await, &[STORED]);
    let key = create_key(&database, &["--role", "marketer", "--merchant", "m0"]);
    server.drain().await;
    let server = Server::start(&database);
    let own = Clients::with_key(&server, Some(&key)).await;
    let no_campaign = Err(("campaign_id", "CAMPAIGN_NOT_FOUND"));
    let no_user = Err(("user_id", "USER_NOT_FOUND"));
    let results = own
        .assign(&[("k-c", "u001"), ("k-d", "u001"), ("no", "u001"), ("k-c", "new")])
        .await;
    assert_outcomes(&results, &[STORED, no_campaign, no_campaign, no_user]);
    assert_outcomes(
        &own.unassign(&[("k-d", "u005"), ("no", "u005")]).await,
        &[no_campaign, no_campaign],
    );
    let list = |campaign: &str| ListAssignmentsRequest {
        campaign_id: campaign.to_owned(),
        ..ListAssignmentsRequest::default()
    };
    assert_eq!(own.assigned(list("k-c")).await.unwrap().0, ["u001"]);
    let foreign = own.assigned(list("k-d")).await.unwrap_err();
    assert_status(&foreign, Code::NotFound, "CAMPAIGN_NOT_FOUND");
    let actors: Vec<String> = sqlx::query_scalar("SELECT actor FROM audit WHERE action = 'USERS_ASSIGNED' ORDER BY id")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert_eq!(actors, ["anonymous".to_owned(), format!("key:{}", id_of(&key))]);
}

#[tokio::test]
async fn suppressions_hold_at_once_and_can_be_listed_and_lifted() {
    let (_database, mut connection, _server, clients) = serve(&[Offer::of("c")]).await;
    let everybody = USERS as i64;
    assert_eq!(clients.eligible().await, everybody);
    let results = clients
        .suppress(&[
            ("u001", "asked by phone"),
            ("u002", ""),
            ("u001", "again"),
            ("new", "a test"),
            ("", "x"),
        ])
        .await;
    assert_outcomes(
        &results,
        &[MERGED, STORED, STORED, STORED, Err(("user_id", "EMPTY_ID"))],
    );
    assert_eq!(
        (clients.eligible().await, clients.reasons("u001").await),
        (everybody - 2, vec![ReasonCode::Suppressed])
    );
    let list = ListSuppressionsRequest::default;
    let page = async |page_token| {
        let request = ListSuppressionsRequest {
            page_size: 2,
            page_token,
            ..list()
        };
        clients.suppressed(request).await
    };
    let pair = |user: &str, reason: &str| (user.to_owned(), reason.to_owned());
    let (found, pages) = all_pages(page).await;
    assert_eq!(
        (found, pages),
        (vec![pair("new", "a test"), pair("u001", "again"), pair("u002", "")], 2)
    );
    let only = ListSuppressionsRequest {
        user_id: Some("u002".to_owned()),
        ..list()
    };
    assert_eq!(clients.suppressed(only).await.0, [pair("u002", "")]);
    let results = clients.lift(&["u001", "u001", "u005", "unheard-of", ""]).await;
    assert_outcomes(
        &results,
        &[STORED, MERGED, MERGED, MERGED, Err(("user_id", "EMPTY_ID"))],
    );
    assert_eq!(
        (clients.eligible().await, clients.reasons("u001").await),
        (everybody - 1, vec![])
    );
    assert_eq!(
        audited(&mut connection).await,
        [
            row("USERS_SUPPRESSED", "suppressions", "", 3),
            row("SUPPRESSIONS_LIFTED", "suppressions", "", 1),
        ]
    );
}
