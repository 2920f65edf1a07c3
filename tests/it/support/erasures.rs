//! Erasing users, and looking for what is left of them.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use likemind::app::erasure::Eraser;
use likemind::grpc::proto::v1::privacy_service_client::PrivacyServiceClient;
use likemind::grpc::proto::v1::{EraseUserRequest, Erasure, ErasureStage, GetErasureRequest};
use likemind::store::postgres::pool::Pool;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::Channel;

use super::postgres::scratch;
use super::program::Server;
use super::waiting::eventually;

/// The text of the key that tests erase with.
pub const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A file with a key, removed with this value.
pub struct KeyFile {
    _folder: TempDir,
    path: PathBuf,
}

impl KeyFile {
    pub fn of(text: &str) -> Self {
        let folder = scratch();
        let path = folder.path().join("erasure.key");
        std::fs::write(&path, text).unwrap();
        Self { _folder: folder, path }
    }

    /// Returns the setting that names the file.
    pub fn setting(&self) -> (&'static str, &str) {
        ("privacy.erasure_key_file", self.path.to_str().unwrap())
    }

    /// Returns the setting as an argument of a command.
    pub fn argument(&self) -> String {
        format!("--set-config=privacy.erasure_key_file={}", self.path.display())
    }
}

/// A caller that erases users.
#[derive(Clone)]
pub struct ErasureClient(pub PrivacyServiceClient<Channel>);

impl ErasureClient {
    pub async fn of(server: &Server) -> Self {
        Self(PrivacyServiceClient::new(server.channel().await))
    }

    pub async fn erase(&self, user: &str, request_id: &str) -> Result<Erasure, Status> {
        let request = EraseUserRequest {
            user_id: user.to_owned(),
            request_id: request_id.to_owned(),
            reason: "by letter".to_owned(),
        };
        let answer = self.0.clone().erase_user(request).await?;
        Ok(answer.into_inner().erasure.unwrap())
    }

    pub async fn get(&self, erasure_id: i64) -> Erasure {
        let answer = self.0.clone().get_erasure(GetErasureRequest { erasure_id }).await;
        answer.unwrap().into_inner().erasure.unwrap()
    }

    /// Waits until an erasure is verified.
    pub async fn verified(&self, erasure_id: i64) -> Erasure {
        let look = async || self.get(erasure_id).await;
        eventually("the erasure is verified", look, |erasure| {
            erasure.stage() == ErasureStage::Verified
        })
        .await
    }
}

/// Drives erasures as a server does, in this process.
pub fn eraser(pool: &Pool) -> Eraser {
    Eraser {
        pool: pool.clone(),
        consent_proof_days: 30,
        settle: Duration::ZERO,
        actor: "test".to_owned(),
    }
}

/// Returns the columns of all tables in which `id` stands: as it is, anywhere in a text, an array, JSON or bytes, or as its
/// SHA-256 without a key.
pub async fn traces(connection: &mut PgConnection, id: &str) -> Vec<String> {
    let digest = Sha256::digest(id.as_bytes());
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let texts = [id.to_owned(), hex, BASE64_STANDARD.encode(digest)];
    let columns: Vec<(String, String, bool)> = sqlx::query_as(
        "SELECT relname::text, attname::text, atttypid = 'bytea'::regtype
         FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
         WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    assert!(columns.len() > 100, "{}", columns.len());
    let mut found = Vec::new();
    for (table, column, is_bytes) in columns {
        let condition = match is_bytes {
            true => format!("position(convert_to(wanted, 'UTF8') IN {column}) > 0 OR position($2 IN {column}) > 0"),
            false => format!("position(wanted IN {column}::text) > 0"),
        };
        let query = format!(
            "SELECT EXISTS (SELECT FROM {table}, UNNEST($1::text[]) AS wanted WHERE {condition} AND $2 IS NOT NULL)"
        );
        let is_there: bool = sqlx::query_scalar(AssertSqlSafe(query))
            .bind(&texts[..])
            .bind(&digest[..])
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        if is_there {
            found.push(format!("{table}.{column}"));
        }
    }
    found
}
