//! Drives erasures of users through their stages, until nothing is found of them. docs/privacy.md describes the stages.
//!
//! The stage of an erasure stands in the database, so that another process goes on where a killed one has stopped. Any
//! number of processes may drive: each stage is reached in one transaction, under a lock.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::store::error::StoreError;
use crate::store::postgres::leases::{self, Lease};
use crate::store::postgres::pool::Pool;
use crate::store::privacy::erasures::{self, Findings, Finished, KeyState, Search};
use crate::store::servers;
use crate::store::snapshots::redaction as stored_redaction;
use domain::error::chain;

use super::redaction::{self, CleanError, RewriteError};
use super::train::keep_alive;

/// The most erasures whose rows are deleted in one transaction.
const ROWS_BATCH: i64 = 1_000;

/// How long after a search that has found an id the next one begins.
const SEARCH_AGAIN: Duration = Duration::from_secs(600);

/// How long the lease of a process that has died keeps others from verifying.
const LEASE_TIME: Duration = Duration::from_secs(30);

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
    /// How long after an erasure the stored snapshots are rewritten, together for all that were received until then.
    pub settle: Duration,
    /// The process, for the audit.
    pub actor: String,
}

impl Eraser {
    /// Takes every erasure as far as it can get now. Returns false when another process was verifying, so that nothing was
    /// searched for here.
    ///
    /// `again`: also searches for ids that the last search has found.
    ///
    /// # Errors
    /// [`EraseError`]. What was reached before stays reached.
    pub async fn step(&self, again: bool) -> Result<bool, EraseError> {
        if !erasures::is_any_open(&self.pool).await? {
            return Ok(true);
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
        let cleaned = match erasures::are_settled(&self.pool, self.settle).await? {
            true => redaction::clean(&self.pool, &self.actor).await,
            false => Ok(()),
        };
        stored_redaction::set_clean(&self.pool).await?;
        let has_searched = self.verify(again).await?;
        cleaned?;
        Ok(has_searched)
    }

    /// Searches for the ids of the erasures that are clean, and ends those that are found nowhere. Returns false, and does nothing,
    /// while another process is at it.
    async fn verify(&self, again: bool) -> Result<bool, EraseError> {
        if erasures::wanted(&self.pool, 0, again).await?.is_empty() {
            return Ok(true);
        }
        let taken = leases::acquire(&self.pool, erasures::VERIFICATION_LEASE, &self.actor, LEASE_TIME).await?;
        let Ok(lease) = taken else { return Ok(false) };
        let verified = tokio::select! {
            verified = self.verify_under(&lease, again) => verified,
            () = keep_alive(&self.pool, &lease) => Ok(false),
        };
        leases::release(&self.pool, &lease).await?;
        verified
    }

    async fn verify_under(&self, lease: &Lease, again: bool) -> Result<bool, EraseError> {
        let mut after = 0;
        loop {
            let wanted = erasures::wanted(&self.pool, after, again).await?;
            let Some(&last) = wanted.keys().next_back() else {
                return Ok(true);
            };
            after = last;
            let all = wanted.len();
            let ids: HashMap<String, i64> = wanted.iter().map(|(id, user)| (user.to_string(), *id)).collect();
            let mut search = Search {
                findings: erasures::search(&self.pool, &wanted).await?,
                wanted,
                snapshots: HashSet::new(),
            };
            let verified = loop {
                for held in redaction::find(&self.pool, &ids, &mut search.snapshots).await? {
                    let place = format!("part {} of snapshot {}", held.part, held.version);
                    search.findings.places.entry(ids[&held.user]).or_default().push(place);
                }
                match erasures::finish(&self.pool, lease, &search, &self.actor).await? {
                    Finished::Verified(verified) => break verified,
                    // Those that were published or rewritten meanwhile are searched too.
                    Finished::NotSearched => {}
                    Finished::LeaseLost => return Ok(false),
                }
            };
            report_found(&search.findings);
            tracing::info!(verified, "{verified} of {all} erasures are verified");
        }
    }
}

/// Logs where erased ids were found. The ids themselves are not logged.
fn report_found(findings: &Findings) {
    for (erasure_id, places) in &findings.places {
        let places = places.join(", ");
        tracing::error!(
            erasure_id,
            places,
            "erasure {erasure_id} cannot be verified: the id of the user is still in {places}"
        );
    }
    for (erasure_id, columns) in &findings.notes {
        let columns = columns.join(", ");
        tracing::warn!(
            erasure_id,
            columns,
            "the id of the user of erasure {erasure_id} is also a text in {columns}: if it means the user there, remove it"
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
            let has_searched = eraser.step(again).await?;
            if proof_is_due {
                erasures::drop_consent_proof(&eraser.pool, eraser.consent_proof_days, &eraser.actor).await?;
            }
            Ok::<bool, EraseError>(has_searched)
        };
        let result = result.await;
        match &result {
            Ok(has_searched) => {
                if again && *has_searched {
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
