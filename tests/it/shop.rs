//! A small shop with a trained snapshot, and short ways to ask a server about it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use likemind::grpc::proto::v1::campaign_service_client::CampaignServiceClient;
use likemind::grpc::proto::v1::catalog_service_client::CatalogServiceClient;
use likemind::grpc::proto::v1::coupon_service_client::CouponServiceClient;
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
use sqlx::{Connection, PgConnection};
use tokio::sync::OnceCell;
use tonic::transport::Channel;

use crate::postgres::TestDatabase;
use crate::program::{Server, succeed_at};

pub const USERS: usize = 200;
/// Fewer than a neighbor list is long: every list is complete, so that "similar to" is mutual.
pub const ITEMS: usize = 48;

/// What the contract promises within `live.refresh_interval_ms` (1 s) may take ten times as long on a busy machine.
const SOON: Duration = Duration::from_secs(10);

pub fn user(number: usize) -> String {
    format!("u{number:03}")
}

pub fn item(number: usize) -> String {
    format!("i{number:02}")
}

/// Even items are books of merchant m0, odd ones games of m1; the price is 100 times the number.
pub fn category(number: usize) -> &'static str {
    ["books", "games"][number % 2]
}

/// What `user` has given `item`: of the four tastes everybody has one.
pub fn rating(user: usize, item: usize) -> Option<f32> {
    // A multiplicative hash: the same numbers in every run.
    let mixed = ((user * ITEMS + item + 1) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let likes = user % 4 == item % 4;
    let (share, least) = if likes { (60, 3) } else { (15, 1) };
    (mixed % 100 < share).then(|| (least + (mixed / 100) % (6 - least)) as f32)
}

/// Some item that `user` has rated, or has not.
pub fn item_where(user: usize, is_rated: bool) -> usize {
    (0..ITEMS)
        .find(|&item| rating(user, item).is_some() == is_rated)
        .unwrap()
}

/// A database with the shop and its first snapshot, active.
pub async fn open() -> TestDatabase {
    static TRAINED: OnceCell<TestDatabase> = OnceCell::const_new();
    let trained = TRAINED
        .get_or_init(|| async {
            let database = TestDatabase::create().await;
            stock(database.url()).await;
            train(database.url());
            database
        })
        .await;
    trained.copy().await
}

/// Fills an empty database with the shop.
pub async fn stock(url: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let pairs = || (0..USERS).flat_map(|user| (0..ITEMS).map(move |item| (user, item)));
    let rated: Vec<(i64, i64, f32)> = pairs()
        .filter_map(|(user, item)| Some((user as i64, item as i64, rating(user, item)?)))
        .collect();
    let column = |of: fn(&(i64, i64, f32)) -> i64| rated.iter().map(of).collect::<Vec<i64>>();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
        "INSERT INTO users (external_id) SELECT 'u' || lpad(n::text, 3, '0') FROM generate_series(0, {USERS} - 1) AS n;
         INSERT INTO merchants (external_id) VALUES ('m0'), ('m1');
         INSERT INTO items (external_id, title, merchant_id, category, price_minor, currency_code)
         SELECT 'i' || lpad(n::text, 2, '0'), 'Item ' || n, 1 + n % 2, (ARRAY['books', 'games'])[1 + n % 2], n * 100, 'GBP'
         FROM generate_series(0, {ITEMS} - 1) AS n"
    )))
    .execute(&mut connection)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO ratings (user_id, item_id, value, rated_at)
         SELECT 1 + user_number, 1 + item_number, value,
                timestamptz '2025-01-01' + make_interval(hours => (user_number * 31 + item_number * 17 % 97)::integer)
         FROM UNNEST($1::bigint[], $2::bigint[], $3::real[]) AS rated (user_number, item_number, value)",
    )
    .bind(column(|row| row.0))
    .bind(column(|row| row.1))
    .bind(rated.iter().map(|row| row.2).collect::<Vec<f32>>())
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
}

/// Trains and activates a snapshot of what is stored; the gate's verdict is not what these tests are about.
pub fn train(url: &str) {
    succeed_at(url, &["train", "--set-config=gate.min_users=1000000"]);
}

/// Waits for what the contract promises within the refresh interval.
pub async fn soon<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < SOON, "{what}: not after {:?}", started.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Scores or similarities by item id.
pub type Scores = BTreeMap<String, f64>;

/// `a + factor * b`, without what comes to nothing.
pub fn plus(a: &Scores, factor: f64, b: &Scores) -> Scores {
    let mut sum = a.clone();
    for (item, score) in b {
        *sum.entry(item.clone()).or_default() += factor * score;
    }
    sum.retain(|_, score| score.abs() > 1e-4);
    sum
}

/// Equal up to the rounding of sums in another order.
pub fn equal(a: &Scores, b: &Scores) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-3)
}

#[track_caller]
pub fn assert_equal(found: &Scores, expected: &Scores, what: &str) {
    assert!(equal(found, expected), "{what}: {found:?}\nnot {expected:?}");
}

/// The clients of one server over one connection.
#[derive(Clone)]
pub struct Caller {
    pub catalog: CatalogServiceClient<Channel>,
    pub ratings: RatingServiceClient<Channel>,
    pub purchases: PurchaseServiceClient<Channel>,
    pub recommendations: RecommendationServiceClient<Channel>,
    pub models: ModelServiceClient<Channel>,
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
        assert!(
            self.ratings
                .clone()
                .delete_rating(request)
                .await
                .unwrap()
                .into_inner()
                .deleted
        );
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

    /// The item-based scores of all items for `user`, and how they came about.
    pub async fn ranked(&self, user: &str) -> RecommendResponse {
        self.recommend(for_user(user)).await
    }

    pub async fn scores(&self, user: &str) -> Scores {
        scores_of(self.ranked(user).await)
    }

    /// The similarities of all items to `item`.
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
        self.serves(version).await;
    }

    pub async fn serves(&self, version: i64) {
        soon(&format!("serving snapshot {version}"), || async {
            self.status().await.snapshot_version == Some(version)
        })
        .await;
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

/// All items for `user`, item-based.
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

/// A connection of the test's own.
pub async fn connect(database: &TestDatabase) -> PgConnection {
    PgConnection::connect(database.url()).await.unwrap()
}

/// Writes a rating as a server does, in the transaction that is open on `connection`. Returns the transaction's id.
pub async fn write_rating(connection: &mut PgConnection, user: &str, item: &str, value: f32) -> i64 {
    sqlx::query_scalar(
        "WITH stored AS (
             INSERT INTO ratings (user_id, item_id, value, rated_at)
             SELECT users.id, items.id, $3, clock_timestamp() FROM users, items
             WHERE users.external_id = $1 AND items.external_id = $2
             ON CONFLICT (user_id, item_id) DO UPDATE SET value = excluded.value, rated_at = excluded.rated_at
             RETURNING user_id, item_id
         ), logged AS (
             INSERT INTO changes (user_id, item_id) SELECT user_id, item_id FROM stored
         )
         SELECT pg_current_xact_id()::text::bigint FROM stored",
    )
    .bind(user)
    .bind(item)
    .bind(value)
    .fetch_one(connection)
    .await
    .unwrap()
}
