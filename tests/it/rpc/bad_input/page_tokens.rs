//! Page tokens: those of another request, and those that somebody has changed.

use std::fmt::Debug;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use likemind::grpc::proto::v1::{
    ListCampaignsRequest, ListCategoriesRequest, ListCouponsRequest, ListItemsRequest, ListPurchasesRequest,
    ListRatingsRequest, ListRedemptionsRequest, ListReservationsRequest, ListSnapshotsRequest,
    ListUserAttributesRequest, list_purchases_request, list_ratings_request,
};
use serde_json::{Value, json};
use tonic::Status;

use super::cases::{Tokens, valid_call};
use super::coupons::{
    a_list_of_assignments, a_list_of_attributes, a_list_of_consents, a_list_of_redemptions, a_list_of_reservations,
    a_list_of_suppressions,
};
use super::dynamic::DynamicClient;
use super::erasures::a_list_of_erasures;
use super::{assert_serves, serve};
use crate::support::answers::assert_invalid;
use crate::support::caller::Caller;
use crate::support::coupons::CouponClient;
use crate::support::program::Server;

async fn ratings_token(server: &Server, of: list_ratings_request::Of) -> String {
    let request = ListRatingsRequest {
        of: Some(of),
        page_size: 1,
        ..ListRatingsRequest::default()
    };
    let answer = server.ratings().await.list_ratings(request).await;
    answer.unwrap().into_inner().next_page_token
}

async fn purchases_token(server: &Server, of: list_purchases_request::Of) -> String {
    let request = ListPurchasesRequest {
        of: Some(of),
        page_size: 1,
        ..ListPurchasesRequest::default()
    };
    let answer = server.purchases().await.list_purchases(request).await;
    answer.unwrap().into_inner().next_page_token
}

async fn items_token(server: &Server, merchant_id: Option<&str>, category: Option<&str>) -> String {
    let request = ListItemsRequest {
        page_size: 1,
        merchant_id: merchant_id.map(str::to_owned),
        category: category.map(str::to_owned),
        ..ListItemsRequest::default()
    };
    let answer = server.catalog().await.list_items(request).await;
    answer.unwrap().into_inner().next_page_token
}

async fn categories_token(server: &Server, merchant_id: Option<&str>) -> String {
    let request = ListCategoriesRequest {
        page_size: 1,
        merchant_id: merchant_id.map(str::to_owned),
        ..ListCategoriesRequest::default()
    };
    let answer = server.catalog().await.list_categories(request).await;
    answer.unwrap().into_inner().next_page_token
}

async fn reservations_token(server: &Server, request: ListReservationsRequest) -> String {
    let client = CouponClient::of(server).await;
    let answer = client.rpc.clone().list_reservations(request).await;
    answer.unwrap().into_inner().next_page_token
}

async fn redemptions_token(server: &Server, request: ListRedemptionsRequest) -> String {
    let client = CouponClient::of(server).await;
    let answer = client.rpc.clone().list_redemptions(request).await;
    answer.unwrap().into_inner().next_page_token
}

async fn attributes_token(server: &Server, request: ListUserAttributesRequest) -> String {
    let answer = server.catalog().await.list_user_attributes(request).await;
    answer.unwrap().into_inner().next_page_token
}

async fn assignments_token(server: &Server, campaign: &str) -> String {
    let request = a_list_of_assignments(campaign);
    let answer = server.campaigns().await.list_assignments(request).await;
    answer.unwrap().into_inner().next_page_token
}

async fn suppressions_token(server: &Server) -> String {
    let mut client = Caller::of(server).await.privacy;
    let answer = client.list_suppressions(a_list_of_suppressions()).await;
    answer.unwrap().into_inner().next_page_token
}

async fn consents_token(server: &Server) -> String {
    let mut client = Caller::of(server).await.privacy;
    let answer = client.list_consents(a_list_of_consents()).await;
    answer.unwrap().into_inner().next_page_token
}

async fn erasures_token(server: &Server) -> String {
    let mut client = Caller::of(server).await.privacy;
    let answer = client.list_erasures(a_list_of_erasures()).await;
    answer.unwrap().into_inner().next_page_token
}

async fn snapshots_token(server: &Server) -> String {
    let request = ListSnapshotsRequest {
        page_size: 1,
        ..ListSnapshotsRequest::default()
    };
    let answer = server.models().await.list_snapshots(request).await;
    answer.unwrap().into_inner().next_page_token
}

async fn campaigns_token(server: &Server, merchant_id: Option<&str>) -> String {
    let request = ListCampaignsRequest {
        merchant_id: merchant_id.map(str::to_owned),
        page_size: 1,
        ..ListCampaignsRequest::default()
    };
    let answer = server.campaigns().await.list_campaigns(request).await;
    answer.unwrap().into_inner().next_page_token
}

async fn coupons_token(server: &Server, campaign: &str) -> String {
    let request = ListCouponsRequest {
        campaign_id: campaign.to_owned(),
        page_size: 1,
        ..ListCouponsRequest::default()
    };
    let answer = server.campaigns().await.list_coupons(request).await;
    answer.unwrap().into_inner().next_page_token
}

/// Returns the token of the second page of a list, for its valid request.
async fn token_of(server: &Server, rpc: &str) -> String {
    let (method, request) = valid_call(rpc);
    let answer = DynamicClient::new(server.channel().await)
        .call(&method, &request)
        .await
        .unwrap();
    let token = answer.get_field_by_name("next_page_token").unwrap();
    token.as_str().unwrap().to_owned()
}

/// Returns the token of the second page of every list of [`serve`].
pub async fn tokens(server: &Server) -> Tokens {
    let (a, b) = ("a".to_owned(), "b".to_owned());
    let tokens = Tokens {
        campaigns: vec![
            campaigns_token(server, Some("acme")).await,
            campaigns_token(server, None).await,
        ],
        coupons: vec![coupons_token(server, "k").await, coupons_token(server, "l").await],
        ratings: vec![
            ratings_token(server, list_ratings_request::Of::UserId(a.clone())).await,
            ratings_token(server, list_ratings_request::Of::UserId(b.clone())).await,
            ratings_token(server, list_ratings_request::Of::ItemId("x".to_owned())).await,
        ],
        purchases: vec![
            purchases_token(server, list_purchases_request::Of::UserId(a.clone())).await,
            purchases_token(server, list_purchases_request::Of::UserId(b)).await,
            purchases_token(server, list_purchases_request::Of::OrderId(a)).await,
        ],
        items: vec![
            items_token(server, None, None).await,
            items_token(server, Some("acme"), None).await,
            items_token(server, None, Some("mugs")).await,
            items_token(server, Some("acme"), Some("mugs")).await,
        ],
        categories: vec![
            categories_token(server, Some("acme")).await,
            categories_token(server, None).await,
        ],
        reservations: vec![
            reservations_token(server, a_list_of_reservations()).await,
            reservations_token(
                server,
                ListReservationsRequest {
                    page_size: 1,
                    ..ListReservationsRequest::default()
                },
            )
            .await,
        ],
        redemptions: vec![
            redemptions_token(server, a_list_of_redemptions()).await,
            redemptions_token(
                server,
                ListRedemptionsRequest {
                    page_size: 1,
                    ..ListRedemptionsRequest::default()
                },
            )
            .await,
        ],
        attributes: vec![
            attributes_token(server, a_list_of_attributes()).await,
            attributes_token(
                server,
                ListUserAttributesRequest {
                    page_size: 1,
                    ..ListUserAttributesRequest::default()
                },
            )
            .await,
        ],
        assignments: vec![
            assignments_token(server, "k").await,
            assignments_token(server, "l").await,
        ],
        suppressions: vec![suppressions_token(server).await],
        consents: vec![consents_token(server).await],
        erasures: vec![erasures_token(server).await],
        snapshots: vec![snapshots_token(server).await],
        positions: vec![token_of(server, "InventoryService/ListInventoryPositions").await],
        policies: vec![token_of(server, "InventoryService/ListReplenishmentPolicies").await],
        imports: vec![token_of(server, "ImportService/ListImports").await],
    };
    assert!(tokens.all().all(|token| !token.is_empty()), "{tokens:?}");
    tokens
}

/// Returns `token` with another cursor.
fn with_cursor(token: &str, cursor: Value) -> String {
    let decoded = BASE64_URL_SAFE_NO_PAD.decode(token).unwrap();
    let mut token: Value = serde_json::from_slice(&decoded).unwrap();
    let known = ["request", "cursor"];
    let keys = token.as_object().unwrap().keys();
    assert!(keys.into_iter().all(|key| known.contains(&key.as_str())), "{token}");
    token["cursor"] = cursor;
    BASE64_URL_SAFE_NO_PAD.encode(token.to_string())
}

fn bad_cursors() -> Vec<Value> {
    let purchase = |order: &str, number: i64| json!({"order_id": order, "user_id": "\u{0}", "item_id": "x", "line_number": number});
    vec![
        json!("\u{0}"),
        json!("a\u{0}b"),
        json!("\u{1}\n"),
        json!("'; DROP TABLE ratings; --"),
        json!("x".repeat(30_000)),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e300),
        json!(null),
        json!([[[["x"]]]]),
        purchase("a", 1),
        purchase("\u{0}", 1),
        purchase("a", i64::MAX),
        purchase(&"x".repeat(30_000), -1),
    ]
}

fn texts<T: Debug>(rows: &[T]) -> Vec<String> {
    rows.iter().map(|row| format!("{row:?}")).collect()
}

/// Lists the ratings and purchases of user a, the items and the snapshots with these page tokens, in this order. Returns the
/// rows as text.
async fn list_four(server: &Server, tokens: [String; 4]) -> [Result<Vec<String>, Status>; 4] {
    let [of_ratings, of_purchases, of_items, of_snapshots] = tokens;
    let request = ListRatingsRequest {
        of: Some(list_ratings_request::Of::UserId("a".to_owned())),
        page_size: 0,
        page_token: of_ratings,
    };
    let ratings = server.ratings().await.list_ratings(request).await;
    let request = ListPurchasesRequest {
        of: Some(list_purchases_request::Of::UserId("a".to_owned())),
        page_size: 0,
        page_token: of_purchases,
    };
    let purchases = server.purchases().await.list_purchases(request).await;
    let request = ListItemsRequest {
        page_token: of_items,
        ..ListItemsRequest::default()
    };
    let items = server.catalog().await.list_items(request).await;
    let request = ListSnapshotsRequest {
        page_token: of_snapshots,
        ..ListSnapshotsRequest::default()
    };
    let snapshots = server.models().await.list_snapshots(request).await;
    [
        ratings.map(|answer| texts(&answer.get_ref().ratings)),
        purchases.map(|answer| texts(&answer.get_ref().lines)),
        items.map(|answer| texts(&answer.get_ref().items)),
        snapshots.map(|answer| texts(&answer.get_ref().snapshots)),
    ]
}

/// A changed token is refused, or leads to another place in the same list.
#[tokio::test]
async fn a_page_token_with_a_changed_cursor_reveals_nothing_beyond_its_list() {
    let (_database, server) = serve().await;
    let tokens = tokens(&server).await;
    let valid = [&tokens.ratings, &tokens.purchases, &tokens.items, &tokens.snapshots].map(|tokens| &tokens[0]);
    let all = list_four(&server, Default::default()).await.map(Result::unwrap);
    let second_pages = list_four(&server, valid.map(Clone::clone)).await.map(Result::unwrap);
    for (all, second_page) in all.iter().zip(&second_pages) {
        assert_eq!(second_page, &all[1..]);
    }
    for cursor in bad_cursors() {
        let answers = list_four(&server, valid.map(|token| with_cursor(token, cursor.clone()))).await;
        let refused = answers.iter().filter(|answer| answer.is_err()).count();
        assert!(refused >= 2, "{cursor}: {answers:?}");
        for (answer, all) in answers.iter().zip(&all) {
            match answer {
                Ok(rows) => assert!(all.ends_with(rows), "{cursor}: {rows:?} of {all:?}"),
                Err(status) => assert_invalid(status, "INVALID_PAGE_TOKEN", &["page_token"]),
            }
        }
    }
    assert_serves(&server).await;
}

#[tokio::test]
async fn a_page_token_of_another_rpc_is_refused_even_if_the_fields_match() {
    let (_database, server) = serve().await;
    let tokens = tokens(&server).await;
    let request = ListItemsRequest {
        page_token: tokens.ratings[0].clone(),
        merchant_id: Some("user_id".to_owned()),
        category: Some("a".to_owned()),
        ..ListItemsRequest::default()
    };
    let status = server.catalog().await.list_items(request).await.unwrap_err();
    assert_invalid(&status, "INVALID_PAGE_TOKEN", &["page_token"]);
}
