//! Drives erasures of users through their stages, until nothing is found of them. docs/privacy.md describes the stages.
//!
//! The stage of an erasure stands in the database, so that another process goes on where a killed one has stopped. Any
//! number of processes may drive: each stage is reached in one transaction, under a lock.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use crate::store::privacy::erasures::{self, KeyState, Verification};
use crate::store::servers;
use crate::store::snapshots::redaction as stored_redaction;
use domain::error::chain;

use super::redaction::{self, CleanError, RewriteError};

/// The most erasures whose rows are deleted in one transaction.
const ROWS_BATCH: i64 = 1_000;

/// How long after a search that has found an id the next one begins.
const SEARCH_AGAIN: Duration = Duration::from_secs(600);

/// How often the proof of consent is looked through.
const PROOF_INTERVAL: Duration = Duration::from_secs(3_600);

/// The reason why erasures did not get as far as they could.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Clean(#[from] CleanError),
    #[error("the stored snapshots could not be searched")]
    Search(#[from] RewriteError),
}

impl EraseError {
    /// Returns whether trying again soon may help.
    fn is_passing(&self) -> bool {
        let store = match self {
            Self::Store(error) | Self::Clean(CleanError::Store(error)) | Self::Search(RewriteError::Store(error)) => {
                error
            }
            Self::Clean(_) | Self::Search(_) => return false,
        };
        store.retry_after().is_some()
    }
}

/// Drives erasures.
#[derive(Debug, Clone)]
pub struct Eraser {
    pub pool: Pool,
    /// For how long the proof of consent of erased users is kept.
    pub consent_proof_days: u32,
    /// The process, for the audit.
    pub actor: String,
}

impl Eraser {
    /// Takes every erasure as far as it can get now.
    ///
    /// `again`: also searches for ids that the last search has found.
    ///
    /// # Errors
    /// [`EraseError`]. What was reached before stays reached.
    pub async fn step(&self, again: bool) -> Result<(), EraseError> {
        if !erasures::is_any_open(&self.pool).await? {
            return Ok(());
        }
        servers::set_masked(&self.pool).await?;
        loop {
            let masked = erasures::masked(&self.pool, ROWS_BATCH).await?;
            if masked.is_empty() || erasures::delete_rows(&self.pool, &masked, &self.actor).await? == 0 {
                break;
            }
        }
        if self.consent_proof_days == 0 {
            erasures::drop_consent_proof(&self.pool, 0, &self.actor).await?;
        }
        // One snapshot that cannot be cleaned keeps nobody waiting who is not in it.
        let cleaned = redaction::clean(&self.pool, &self.actor).await;
        stored_redaction::set_clean(&self.pool).await?;
        self.verify(again).await?;
        Ok(cleaned?)
    }

    /// Searches for the ids of the erasures that are clean, and ends those that are found nowhere.
    async fn verify(&self, again: bool) -> Result<(), EraseError> {
        while let Some(mut verification) = Verification::begin(&self.pool, again).await? {
            let mut found = verification.search().await?;
            let erasures: HashMap<String, i64> = verification
                .users
                .iter()
                .map(|(id, user)| (user.to_string(), *id))
                .collect();
            for held in redaction::find(&self.pool, &erasures).await? {
                let place = format!("part {} of snapshot {}", held.part, held.version);
                found.entry(erasures[&held.user]).or_default().push(place);
            }
            let all = verification.users.len() as u64;
            report_found(&found);
            let verified = verification.finish(&found, &self.actor).await?;
            tracing::info!(verified, "{verified} of {all} erasures are verified");
            if !found.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

/// Logs where erased ids were found. The ids themselves are not logged.
fn report_found(found: &BTreeMap<i64, Vec<String>>) {
    for (erasure_id, places) in found {
        let places = places.join(", ");
        tracing::error!(
            erasure_id,
            places,
            "erasure {erasure_id} cannot be verified: the id of the user is still in {places}"
        );
    }
}

/// Drives erasures every `interval` until `shutdown`.
pub async fn run(eraser: Eraser, interval: Duration, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_key_checked = false;
    let mut is_well = true;
    let mut searched_again = Instant::now();
    let mut proof_dropped_at: Option<Instant> = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let again = searched_again.elapsed() >= SEARCH_AGAIN;
        let proof_is_due = proof_dropped_at.is_none_or(|at| at.elapsed() >= PROOF_INTERVAL);
        let result = async {
            if !is_key_checked {
                check_key(&eraser.pool).await?;
                is_key_checked = true;
            }
            eraser.step(again).await?;
            if proof_is_due {
                erasures::drop_consent_proof(&eraser.pool, eraser.consent_proof_days, &eraser.actor).await?;
            }
            Ok::<(), EraseError>(())
        };
        let result = result.await;
        match &result {
            Ok(()) => {
                if again {
                    searched_again = Instant::now();
                }
                if proof_is_due {
                    proof_dropped_at = Some(Instant::now());
                }
            }
            // A database that is not available is reported by the loop that reads fresh data.
            Err(error) if error.is_passing() || !is_well => {}
            Err(error) => tracing::error!(error = %chain(error), "erasures could not be driven on"),
        }
        is_well = result.is_ok();
    }
}

/// Logs when new users cannot be told from erased ones.
async fn check_key(pool: &Pool) -> Result<(), StoreError> {
    match erasures::key_state(pool).await? {
        KeyState::Fits => {}
        KeyState::Missing => tracing::error!(
            "users were erased, and privacy.erasure_key_file is not set: writes about new users are refused until it names the \
             file with the key that was used"
        ),
        KeyState::Other => tracing::error!(
            "users were erased under another key than that of privacy.erasure_key_file: writes about new users are refused until \
             it names the file with the key that was used"
        ),
    }
    Ok(())
}
