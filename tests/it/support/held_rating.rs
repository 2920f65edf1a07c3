//! A rating that a test holds locked, so that a request that writes it has to wait.

use likemind::grpc::proto::v1::{UpsertRatingsRequest, UpsertRatingsResponse};
use sqlx::PgConnection;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

use super::caller::{Caller, a_rating};
use super::postgres::{TestDatabase, execute, sessions_waiting_for_a_lock};
use super::shop::{self, item, user};
use super::waiting::eventually;

/// The locked rating of the shop.
pub struct HeldRating {
    connection: PgConnection,
    /// Sees who waits. Within the transaction that holds the lock, `pg_stat_activity` would not change.
    observer: PgConnection,
    pub user_id: String,
    pub item_id: String,
}

impl HeldRating {
    pub async fn hold(database: &TestDatabase) -> Self {
        let mut connection = database.connect().await;
        let (user_id, item_id) = (user(0), item(shop::item_where(0, true)));
        execute(&mut connection, "BEGIN").await;
        let held = sqlx::query(
            "SELECT FROM ratings JOIN users ON users.id = user_id JOIN items ON items.id = item_id
             WHERE users.external_id = $1 AND items.external_id = $2 FOR UPDATE OF ratings",
        )
        .bind(&user_id)
        .bind(&item_id)
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert_eq!(held.len(), 1);
        Self {
            connection,
            observer: database.connect().await,
            user_id,
            item_id,
        }
    }

    /// Returns a request that writes this rating.
    pub fn request(&self) -> Request<UpsertRatingsRequest> {
        Request::new(UpsertRatingsRequest {
            ratings: vec![a_rating(&self.user_id, &self.item_id, 2.0)],
        })
    }

    /// Sends a request that writes this rating; returns as soon as it waits for the lock.
    pub async fn send_waiting_request(
        &mut self,
        caller: &Caller,
    ) -> JoinHandle<Result<Response<UpsertRatingsResponse>, Status>> {
        let (mut client, request) = (caller.ratings.clone(), self.request());
        let mut call = tokio::spawn(async move { client.upsert_ratings(request).await });
        tokio::select! {
            () = self.until_a_request_waits() => {}
            answered = &mut call => panic!("the request was answered instead of waiting: {answered:?}"),
        }
        call
    }

    pub async fn until_a_request_waits(&mut self) {
        let observer = &mut self.observer;
        eventually(
            "a request waits for the lock",
            async || sessions_waiting_for_a_lock(observer).await,
            |&waiting| waiting > 0,
        )
        .await;
    }

    pub async fn release(self) {
        sqlx::Connection::close(self.connection).await.unwrap();
    }
}

/// Returns the value of a stored rating.
pub async fn stored_rating(database: &TestDatabase, user: &str, item: &str) -> Option<f32> {
    sqlx::query_scalar(
        "SELECT value FROM ratings JOIN users ON users.id = user_id JOIN items ON items.id = item_id
         WHERE users.external_id = $1 AND items.external_id = $2",
    )
    .bind(user)
    .bind(item)
    .fetch_optional(&mut database.connect().await)
    .await
    .unwrap()
}
