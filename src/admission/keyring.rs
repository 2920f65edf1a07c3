//! Keeps the API keys in memory and reads them anew once an interval, so that no call waits for the database.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio_util::sync::CancellationToken;

use crate::store::access::keys::{self, KeyRecord};
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use domain::access::Caller;
use domain::api_key::{ApiKey, KeyId, SecretHash};
use domain::error::chain;
use domain::time::Timestamp;

use super::key_limits::{KeyLimits, KeyUsage};
use super::options::AccessOptions;

/// Longest time that one reading of the keys may take.
const READ_LIMIT: Duration = Duration::from_secs(2);

/// All keys. A clone shares them.
#[derive(Clone)]
pub struct Keyring {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    limits: KeyLimits,
    anonymous: Arc<Caller>,
    /// `None` until they have been read once. Until then no key is valid, and it is not known whether there are any.
    keys: ArcSwapOption<HashMap<KeyId, Arc<Key>>>,
}

/// A key as the database has it.
#[derive(Debug)]
pub struct Key {
    pub caller: Arc<Caller>,
    /// Stays the same when the keys are read again.
    pub usage: Arc<KeyUsage>,
    secret_hash: SecretHash,
    expires_at: Option<Timestamp>,
    is_revoked: bool,
}

impl Key {
    /// Calls `now` only for a key that expires.
    fn state(self: &Arc<Self>, now: impl FnOnce() -> Timestamp) -> KeyState {
        if self.is_revoked {
            KeyState::Revoked
        } else if self.expires_at.is_some_and(|expires_at| expires_at <= now()) {
            KeyState::Expired
        } else {
            KeyState::Valid(self.clone())
        }
    }
}

/// Whether a key may be used. For a caller without its secret it is [`KeyState::Unknown`], whatever it is for others.
#[derive(Debug)]
pub enum KeyState {
    Valid(Arc<Key>),
    Expired,
    Revoked,
    Unknown,
}

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the database did not answer within {} s", READ_LIMIT.as_secs())]
    Slow,
}

impl Keyring {
    /// Reads the keys, and then again once an `interval` until `shutdown`.
    pub async fn start(pool: Pool, options: &AccessOptions, interval: Duration, shutdown: CancellationToken) -> Self {
        let keyring = Self::new(pool.dedicated(1), options);
        let mut is_available = true;
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = keyring.read_and_report(&mut is_available) => {}
        }
        let reading = keyring.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(interval) => {}
                }
                reading.read_and_report(&mut is_available).await;
            }
        });
        keyring
    }

    /// A keyring whose keys have not been read yet.
    pub(crate) fn new(pool: Pool, options: &AccessOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                pool,
                limits: KeyLimits::new(options),
                anonymous: Arc::new(Caller::anonymous()),
                keys: ArcSwapOption::empty(),
            }),
        }
    }

    pub fn limits(&self) -> &KeyLimits {
        &self.shared.limits
    }

    /// The caller that stands for everybody without a key.
    pub fn anonymous(&self) -> Arc<Caller> {
        self.shared.anonymous.clone()
    }

    /// Whether nobody has ever made a key; `None` while the keys have not been read.
    pub fn is_empty(&self) -> Option<bool> {
        self.shared.keys.load().as_ref().map(|keys| keys.is_empty())
    }

    /// Looks up `key` and checks its secret. Returns `None` while the keys have not been read.
    pub fn find(&self, key: &ApiKey, now: impl FnOnce() -> Timestamp) -> Option<KeyState> {
        let keys = self.shared.keys.load();
        let keys = keys.as_ref()?;
        let Some(known) = keys.get(&key.id) else {
            // Takes as long as for a known key, so that the time does not show which ids exist.
            std::hint::black_box(SecretHash([0; 32]).is_of(key));
            return Some(KeyState::Unknown);
        };
        Some(match known.secret_hash.is_of(key) {
            true => known.state(now),
            false => KeyState::Unknown,
        })
    }

    /// Looks up a key whose secret was checked before. Returns `None` while the keys have not been read.
    pub fn state(&self, key: &KeyId, now: impl FnOnce() -> Timestamp) -> Option<KeyState> {
        let keys = self.shared.keys.load();
        let known = keys.as_ref()?.get(key);
        Some(known.map_or(KeyState::Unknown, |known| known.state(now)))
    }

    async fn read_and_report(&self, was_available: &mut bool) {
        match self.read().await {
            Ok(()) => *was_available = true,
            Err(error) => {
                if *was_available {
                    tracing::warn!(error = %chain(&error), "the API keys cannot be read; those that are known stay valid");
                }
                *was_available = false;
            }
        }
    }

    async fn read(&self) -> Result<(), ReadError> {
        let records = tokio::time::timeout(READ_LIMIT, keys::list(&self.shared.pool)).await;
        let records = records.map_err(|_| ReadError::Slow)??;
        let known = self.shared.keys.load();
        let key = |record: KeyRecord| {
            let known = known.as_ref().and_then(|known| known.get(&record.id));
            let usage = known.map_or_else(
                || Arc::new(KeyUsage::new(&self.shared.limits)),
                |known| known.usage.clone(),
            );
            let caller = Caller {
                key: Some(record.id.clone()),
                name: format!("key:{}", record.id).into(),
                role: record.role,
                merchant: record.merchant,
            };
            let key = Key {
                caller: Arc::new(caller),
                usage,
                secret_hash: record.secret_hash,
                expires_at: record.expires_at,
                is_revoked: record.revoked_at.is_some(),
            };
            (record.id, Arc::new(key))
        };
        let keys = records.into_iter().map(key).collect();
        self.shared.keys.store(Some(Arc::new(keys)));
        Ok(())
    }
}
