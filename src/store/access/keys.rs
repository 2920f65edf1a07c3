//! Stores API keys: a hash of each secret, and what the key allows.

use domain::access::Role;
use domain::api_key::{KeyId, SecretHash};
use domain::id::MerchantId;
use domain::time::Timestamp;

use crate::store::access::audit::{self, Action};
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Pool, Tx};

/// A stored key.
#[derive(Debug, Clone)]
pub struct KeyRecord {
    pub id: KeyId,
    pub secret_hash: SecretHash,
    pub role: Role,
    pub merchant: Option<MerchantId>,
    /// The purpose of the key, in the words of its creator.
    pub note: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub struct NewKey {
    pub id: KeyId,
    pub secret_hash: SecretHash,
    pub role: Role,
    /// Only for [`Role::Marketer`].
    pub merchant: Option<MerchantId>,
    pub note: String,
    pub expires_at: Option<Timestamp>,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("there is no merchant {0}")]
    UnknownMerchant(MerchantId),
    #[error("there is no key {0}")]
    UnknownKey(KeyId),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Stores a key. `actor` is recorded in the audit.
pub async fn create(pool: &Pool, key: &NewKey, actor: &str) -> Result<(), KeyError> {
    let created = pool
        .write(|mut tx| async move {
            let merchant_id = match &key.merchant {
                None => None,
                Some(merchant) => {
                    let id = sqlx::query_scalar!("SELECT id FROM merchants WHERE external_id = $1", merchant.as_str())
                        .fetch_optional(&mut *tx)
                        .await?;
                    match id {
                        None => return Ok(false),
                        id => id,
                    }
                }
            };
            sqlx::query!(
                "INSERT INTO api_keys (id, secret_hash, role, merchant_id, note, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6)",
                key.id.as_str(),
                &key.secret_hash.0[..],
                key.role.as_str(),
                merchant_id,
                key.note,
                key.expires_at,
            )
            .execute(&mut *tx)
            .await?;
            record(&mut tx, Action::KeyCreated, &key.id, key.role.as_str(), actor).await?;
            tx.commit().await?;
            Ok(true)
        })
        .await?;
    match (&key.merchant, created) {
        (Some(merchant), false) => Err(KeyError::UnknownMerchant(merchant.clone())),
        _ => Ok(()),
    }
}

/// Revokes a key. Every server refuses it once it has read the keys again. Changes nothing on a key that is revoked already.
pub async fn revoke(pool: &Pool, id: &KeyId, actor: &str) -> Result<(), KeyError> {
    let is_known = pool
        .write(|mut tx| async move {
            let revoked = sqlx::query!(
                "UPDATE api_keys SET revoked_at = clock_timestamp() WHERE id = $1 AND revoked_at IS NULL",
                id.as_str()
            )
            .execute(&mut *tx)
            .await?;
            if revoked.rows_affected() == 1 {
                record(&mut tx, Action::KeyRevoked, id, "", actor).await?;
                tx.commit().await?;
                return Ok(true);
            }
            let known = sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT FROM api_keys WHERE id = $1) AS "known!""#,
                id.as_str()
            )
            .fetch_one(&mut *tx)
            .await?;
            Ok(known)
        })
        .await?;
    match is_known {
        true => Ok(()),
        false => Err(KeyError::UnknownKey(id.clone())),
    }
}

async fn record(tx: &mut Tx, action: Action, id: &KeyId, note: &str, actor: &str) -> Result<(), StoreError> {
    let entry = audit::Entry {
        actor,
        action,
        subject: id.as_str(),
        note,
        row_count: 1,
        snapshot_version: None,
    };
    audit::record(tx, entry).await
}

/// Lists all keys, expired and revoked ones too, oldest first.
pub async fn list(pool: &Pool) -> Result<Vec<KeyRecord>, StoreError> {
    sqlx::query_as!(
        Row,
        r#"SELECT api_keys.id, secret_hash, role, merchants.external_id AS "merchant_id?", note, created_at, expires_at,
                  revoked_at
           FROM api_keys LEFT JOIN merchants ON merchants.id = merchant_id
           ORDER BY created_at, api_keys.id"#
    )
    .fetch_all(&pool.inner)
    .await?
    .into_iter()
    .map(KeyRecord::try_from)
    .collect()
}

struct Row {
    id: String,
    secret_hash: Vec<u8>,
    role: String,
    merchant_id: Option<String>,
    note: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
}

impl TryFrom<Row> for KeyRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let hash = <[u8; 32]>::try_from(row.secret_hash);
        Ok(Self {
            id: KeyId::new(&row.id),
            secret_hash: SecretHash(hash.map_err(|_| StoreError::corrupt("api_keys", "secret_hash"))?),
            role: row
                .role
                .parse()
                .map_err(|error| StoreError::corrupt("api_keys", error))?,
            merchant: row
                .merchant_id
                .map(MerchantId::stored)
                .transpose()
                .map_err(|error| StoreError::corrupt("merchants", error))?,
            note: row.note,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
        })
    }
}
