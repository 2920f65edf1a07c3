//! Trains a snapshot after users were erased, where the configuration asks for it.
//!
//! Similarities of items and other figures about all users together were computed with the ratings of the erased ones. They stay in
//! a snapshot from which the users themselves were removed, until the next training.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::train::{TrainError, TrainOptions, train};
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::redaction;
use domain::error::{InvalidField, chain};

/// The pause after a training that has failed.
const RETRY: Duration = Duration::from_secs(600);

/// Section `erasure`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ErasureOptions {
    pub retrain: Retrain,
    /// How often a server takes erasures as far as they can get.
    pub interval_ms: u64,
    /// How long after an erasure the stored snapshots are rewritten, once for all erasures that were received until then.
    pub settle_ms: u64,
}

/// The longest that erased users stay in stored snapshots for the sake of a common rewrite.
const MAX_SETTLE_MS: u64 = 3_600_000;

impl Default for ErasureOptions {
    fn default() -> Self {
        Self {
            retrain: Retrain::default(),
            interval_ms: 1_000,
            settle_ms: 5_000,
        }
    }
}

impl ErasureOptions {
    /// # Errors
    /// Names the key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        if self.interval_ms == 0 {
            let message = "must be 1 or more, is 0";
            return Err(InvalidField::new("erasure.interval_ms", "OUT_OF_RANGE", message));
        }
        if self.settle_ms > MAX_SETTLE_MS {
            let message = format!("must be 0 to {MAX_SETTLE_MS}, is {}", self.settle_ms);
            return Err(InvalidField::new("erasure.settle_ms", "OUT_OF_RANGE", message));
        }
        Ok(())
    }
}

/// When a model is trained that was never fitted on the data of an erased user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retrain {
    /// With the next training that somebody starts.
    #[default]
    Next,
    /// At once: a server trains as soon as the stored snapshots are clean.
    Always,
}

/// Trains whenever users were erased who were among the data of the newest snapshot, until `shutdown`. Looks once an `interval`.
/// One of several servers trains.
pub async fn run(pool: Pool, options: TrainOptions, interval: Duration, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed_at: Option<Instant> = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let may_try = failed_at.is_none_or(|at| at.elapsed() >= RETRY);
        // A database that is not available is reported by the loop that reads fresh data.
        if !may_try || !redaction::is_retraining_due(&pool).await.unwrap_or(false) {
            continue;
        }
        failed_at = match train(&pool, &options, &shutdown, Arc::new(|_| {})).await {
            Ok(trained) => {
                let version = trained.snapshot.version;
                tracing::info!(version, "trained snapshot {version} without erased users");
                None
            }
            // The other trainer may have read older data; the next look tells.
            Err(TrainError::AnotherTrainer(_) | TrainError::Interrupted) => None,
            Err(error) => {
                tracing::error!(error = %chain(&error), "no snapshot could be trained without erased users");
                Some(Instant::now())
            }
        };
    }
}
