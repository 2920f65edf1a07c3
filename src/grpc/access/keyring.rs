//! The keys in memory, looked up anew once an interval, so that no call waits for the database.

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

use super::limits::{Limits, Usage};
use super::options::AccessOptions;

/// Longest look.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// Cheap to share.
#[derive(Clone)]
pub struct Keyring {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    limits: Limits,
    anonymous: Arc<Caller>,
    /// `None` until the database has told: then nobody is let in by mistake.
    keys: ArcSwapOption<HashMap<KeyId, Arc<Key>>>,
}

/// What is known of a key.
#[derive(Debug)]
pub struct Key {
    pub caller: Arc<Caller>,
    /// Kept from look to look.
    pub usage: Arc<Usage>,
    secret_hash: SecretHash,
    expires_at: Option<Timestamp>,
    is_revoked: bool,
}

impl Key {
    /// `now` is asked only of a key that expires.
    fn state(self: &Arc<Self>, now: impl FnOnce() -> Timestamp) -> KeyState {
        if self.is_revoked {
            KeyState::Revoked
        } else if self.expires_at.is_some_and(|expires_at| expires_at <= now()) {
            KeyState::Expired
        } else {
            KeyState::Good(self.clone())
        }
    }
}

/// What a key is good for. Only to whoever has its secret is it anything but unknown.
#[derive(Debug)]
pub enum KeyState {
    Good(Arc<Key>),
    Expired,
    Revoked,
    Unknown,
}

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the database has not answered for {} s", LOOK_LIMIT.as_secs())]
    Slow,
}

impl Keyring {
    /// Looks once, and then once an `interval` until `shutdown`.
    pub async fn start(pool: Pool, options: &AccessOptions, interval: Duration, shutdown: CancellationToken) -> Self {
        let keyring = Self::new(pool.dedicated(1), options);
        let mut is_available = true;
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = keyring.look_and_report(&mut is_available) => {}
        }
        let looking = keyring.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(interval) => {}
                }
                looking.look_and_report(&mut is_available).await;
            }
        });
        keyring
    }

    /// Without any knowledge of keys.
    pub(in crate::grpc) fn new(pool: Pool, options: &AccessOptions) -> Self {
        Self {
            shared: Arc::new(Shared {
                pool,
                limits: Limits::new(options),
                anonymous: Arc::new(Caller::anonymous()),
                keys: ArcSwapOption::empty(),
            }),
        }
    }

    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    pub fn anonymous(&self) -> Arc<Caller> {
        self.shared.anonymous.clone()
    }

    /// Whether nobody has ever made a key; `None` while that is not known.
    pub fn is_empty(&self) -> Option<bool> {
        self.shared.keys.load().as_ref().map(|keys| keys.is_empty())
    }

    /// What `key` is good for; `None` while that is not known.
    pub fn find(&self, key: &ApiKey, now: impl FnOnce() -> Timestamp) -> Option<KeyState> {
        let keys = self.shared.keys.load();
        let keys = keys.as_ref()?;
        let Some(known) = keys.get(&key.id) else {
            // As much work as with a key that is known.
            std::hint::black_box(SecretHash([0; 32]).is_of(key));
            return Some(KeyState::Unknown);
        };
        Some(match known.secret_hash.is_of(key) {
            true => known.state(now),
            false => KeyState::Unknown,
        })
    }

    /// What the key is good for whose secret has been seen before; `None` while that is not known.
    pub fn state(&self, key: &KeyId, now: impl FnOnce() -> Timestamp) -> Option<KeyState> {
        let keys = self.shared.keys.load();
        let known = keys.as_ref()?.get(key);
        Some(known.map_or(KeyState::Unknown, |known| known.state(now)))
    }

    async fn look_and_report(&self, was_available: &mut bool) {
        match self.look().await {
            Ok(()) => *was_available = true,
            Err(error) => {
                if *was_available {
                    tracing::warn!(error = %chain(&error), "keys cannot be looked up; those that are known stay good");
                }
                *was_available = false;
            }
        }
    }

    async fn look(&self) -> Result<(), LookError> {
        let records = tokio::time::timeout(LOOK_LIMIT, keys::list(&self.shared.pool)).await;
        let records = records.map_err(|_| LookError::Slow)??;
        let known = self.shared.keys.load();
        let key = |record: KeyRecord| {
            let known = known.as_ref().and_then(|known| known.get(&record.id));
            let usage = known.map_or_else(
                || Arc::new(Usage::new(&self.shared.limits)),
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
