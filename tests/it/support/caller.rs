//! Short ways to call a server, and arithmetic with its scores.

use std::collections::BTreeMap;

use likemind::grpc::proto::v1::campaign_service_client::CampaignServiceClient;
use likemind::grpc::proto::v1::catalog_service_client::CatalogServiceClient;
use likemind::grpc::proto::v1::coupon_service_client::CouponServiceClient;
use likemind::grpc::proto::v1::demand_service_client::DemandServiceClient;
use likemind::grpc::proto::v1::import_service_client::ImportServiceClient;
use likemind::grpc::proto::v1::inventory_service_client::InventoryServiceClient;
use likemind::grpc::proto::v1::model_service_client::ModelServiceClient;
use likemind::grpc::proto::v1::privacy_service_client::PrivacyServiceClient;
use likemind::grpc::proto::v1::purchase_service_client::PurchaseServiceClient;
use likemind::grpc::proto::v1::rating_service_client::RatingServiceClient;
use likemind::grpc::proto::v1::recommendation_service_client::RecommendationServiceClient;
use likemind::grpc::proto::v1::{
    ActivateSnapshotRequest, Basis, DeleteRatingRequest, EntryOutcome, EntryResult, GetServingStatusRequest,
    GetServingStatusResponse, Item, ListSimilarItemsRequest, Money, PurchaseLine, Rating, RecommendRequest,
    RecommendResponse, RecordPurchasesRequest, UpsertItemsRequest, UpsertRatingsRequest, recommend_request,
};
use tonic::transport::Channel;

use super::program::Server;
use super::waiting::soon;

/// The clients of all services of one server, over one connection.
#[derive(Clone)]
pub struct Caller {
    pub catalog: CatalogServiceClient<Channel>,
    pub ratings: RatingServiceClient<Channel>,
    pub purchases: PurchaseServiceClient<Channel>,
    pub recommendations: RecommendationServiceClient<Channel>,
    pub models: ModelServiceClient<Channel>,
    pub demand: DemandServiceClient<Channel>,
    pub inventory: InventoryServiceClient<Channel>,
    pub imports: ImportServiceClient<Channel>,
    pub campaigns: CampaignServiceClient<Channel>,
    pub coupons: CouponServiceClient<Channel>,
    pub privacy: PrivacyServiceClient<Channel>,
}

impl Caller {
    pub async fn of(server: &Server) -> Self {
        Self::over(server.channel().await)
    }

    pub fn over(channel: Channel) -> Self {
        Self {
            catalog: CatalogServiceClient::new(channel.clone()),
            ratings: RatingServiceClient::new(channel.clone()),
            purchases: PurchaseServiceClient::new(channel.clone()),
            recommendations: RecommendationServiceClient::new(channel.clone()),
            models: ModelServiceClient::new(channel.clone()),
            demand: DemandServiceClient::new(channel.clone()),
            inventory: InventoryServiceClient::new(channel.clone()),
            imports: ImportServiceClient::new(channel.clone()),
            campaigns: CampaignServiceClient::new(channel.clone()),
            coupons: CouponServiceClient::new(channel.clone()),
            privacy: PrivacyServiceClient::new(channel),
        }
    }

    pub async fn rate(&self, user: &str, item: &str, value: f32) {
        let request = UpsertRatingsRequest {
            ratings: vec![a_rating(user, item, value)],
        };
        let answer = self.ratings.clone().upsert_ratings(request).await.unwrap();
        assert_stored(&answer.into_inner().results);
    }

    pub async fn delete_rating(&self, user: &str, item: &str) {
        let request = DeleteRatingRequest {
            user_id: user.to_owned(),
            item_id: item.to_owned(),
            deleted_at: None,
        };
        let answer = self.ratings.clone().delete_rating(request).await.unwrap();
        assert!(answer.into_inner().deleted, "no rating of {item} by {user}");
    }

    pub async fn buy(&self, order: &str, line_number: i32, user: &str, item: &str, quantity: i32) {
        let line = PurchaseLine {
            coupon_discount_minor: 0,
            order_id: order.to_owned(),
            line_number,
            user_id: user.to_owned(),
            item_id: item.to_owned(),
            quantity,
            line_total: Some(pounds(i64::from(quantity) * 100)),
            purchased_at: None,
        };
        let request = RecordPurchasesRequest { lines: vec![line] };
        let answer = self.purchases.clone().record_purchases(request).await.unwrap();
        assert_stored(&answer.into_inner().results);
    }

    pub async fn put(&self, item: Item) {
        let request = UpsertItemsRequest { items: vec![item] };
        let answer = self.catalog.clone().upsert_items(request).await.unwrap();
        assert_stored(&answer.into_inner().results);
    }

    pub async fn recommend(&self, request: RecommendRequest) -> RecommendResponse {
        self.recommendations
            .clone()
            .recommend(request)
            .await
            .unwrap()
            .into_inner()
    }

    /// Ranks all items for `user`, item-based.
    pub async fn ranked(&self, user: &str) -> RecommendResponse {
        self.recommend(for_user(user)).await
    }

    /// Returns the item-based scores of all items for `user`.
    pub async fn scores(&self, user: &str) -> Scores {
        scores_of(self.ranked(user).await)
    }

    /// Returns the similarities of all items to `item`.
    pub async fn similar(&self, item: &str) -> Scores {
        let request = ListSimilarItemsRequest {
            item_id: item.to_owned(),
            limit: 1_000,
            filter: None,
        };
        let answer = self
            .recommendations
            .clone()
            .list_similar_items(request)
            .await
            .unwrap()
            .into_inner();
        answer
            .items
            .into_iter()
            .map(|similar| (similar.item_id, similar.score))
            .collect()
    }

    pub async fn status(&self) -> GetServingStatusResponse {
        let answer = self.models.clone().get_serving_status(GetServingStatusRequest {}).await;
        answer.unwrap().into_inner()
    }

    /// Activates `version` and waits until this server serves it.
    pub async fn switch_to(&self, version: i64) {
        let request = ActivateSnapshotRequest {
            version,
            reason: String::new(),
        };
        self.models.clone().activate_snapshot(request).await.unwrap();
        self.wait_until_serves(version).await;
    }

    pub async fn wait_until_serves(&self, version: i64) -> GetServingStatusResponse {
        soon(
            &format!("snapshot {version} is served"),
            async || self.status().await,
            |status| status.snapshot_version == Some(version),
        )
        .await
    }

    /// Waits until the server reports whether its database is available.
    pub async fn wait_until_database_is(&self, is_available: bool) -> GetServingStatusResponse {
        soon(
            &format!("the status says database_available = {is_available}"),
            async || self.status().await,
            |status| status.database_available == is_available,
        )
        .await
    }
}

#[track_caller]
fn assert_stored(results: &[EntryResult]) {
    for result in results {
        assert_eq!(result.outcome(), EntryOutcome::Stored, "{result:?}");
    }
}

pub fn a_rating(user: &str, item: &str, value: f32) -> Rating {
    Rating {
        user_id: user.to_owned(),
        item_id: item.to_owned(),
        value,
        rated_at: None,
    }
}

pub fn pounds(amount_minor: i64) -> Money {
    Money {
        amount_minor,
        currency_code: "GBP".to_owned(),
    }
}

/// Returns a request for all items for `user`, item-based.
pub fn for_user(user: &str) -> RecommendRequest {
    RecommendRequest {
        subject: Some(recommend_request::Subject::UserId(user.to_owned())),
        limit: 1_000,
        basis: Basis::ItemBased.into(),
        ..RecommendRequest::default()
    }
}

pub fn scores_of(answer: RecommendResponse) -> Scores {
    answer
        .items
        .into_iter()
        .map(|item| (item.item_id, item.score))
        .collect()
}

/// Scores or similarities by item id.
pub type Scores = BTreeMap<String, f64>;

/// Returns `a + factor * b`, without the scores that cancel out.
pub fn plus(a: &Scores, factor: f64, b: &Scores) -> Scores {
    let mut sum = a.clone();
    for (item, score) in b {
        *sum.entry(item.clone()).or_default() += factor * score;
    }
    sum.retain(|_, score| score.abs() > 1e-4);
    sum
}

/// Whether `a` and `b` are equal, apart from rounding in sums of another order.
pub fn equal(a: &Scores, b: &Scores) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-3)
}

#[track_caller]
pub fn assert_equal(found: &Scores, expected: &Scores, what: &str) {
    assert!(equal(found, expected), "{what}: found {found:?}\nexpected {expected:?}");
}
