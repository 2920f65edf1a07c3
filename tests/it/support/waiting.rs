//! Waiting for a state. Every wait ends as soon as the state is reached; a failure says which state was not reached and
//! what was seen last.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// The longest wait for anything, long enough for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Ten times `live.refresh_interval_ms` (1 s), within which the contract promises that changes show: a busy machine takes
/// longer.
const SOON: Duration = Duration::from_secs(10);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Looks again and again until `is_reached` holds for what `look` returns, and returns that.
///
/// `state` names what is waited for, as a clause: "the new certificate is used".
pub async fn eventually<T: Debug>(state: &str, look: impl AsyncFnMut() -> T, is_reached: impl FnMut(&T) -> bool) -> T {
    wait(PATIENCE, state, look, is_reached).await
}

/// [`eventually`] for a state that the contract promises within the refresh interval.
pub async fn soon<T: Debug>(state: &str, look: impl AsyncFnMut() -> T, is_reached: impl FnMut(&T) -> bool) -> T {
    wait(SOON, state, look, is_reached).await
}

async fn wait<T: Debug>(
    limit: Duration,
    state: &str,
    mut look: impl AsyncFnMut() -> T,
    mut is_reached: impl FnMut(&T) -> bool,
) -> T {
    let wait = Wait::new(limit, state);
    loop {
        let seen = look().await;
        if is_reached(&seen) {
            return seen;
        }
        wait.assert_in_time(&seen);
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// [`eventually`] where nothing is asynchronous.
pub fn eventually_blocking<T: Debug>(
    state: &str,
    mut look: impl FnMut() -> T,
    mut is_reached: impl FnMut(&T) -> bool,
) -> T {
    let wait = Wait::new(PATIENCE, state);
    loop {
        let seen = look();
        if is_reached(&seen) {
            return seen;
        }
        wait.assert_in_time(&seen);
        thread::sleep(POLL_INTERVAL);
    }
}

/// The pauses between the looks of a wait. Tasks that are spawned use it directly, because an async closure in them is not
/// `Send`.
pub struct Wait<'a> {
    state: &'a str,
    started: Instant,
    limit: Duration,
}

impl<'a> Wait<'a> {
    /// Begins a wait like that of [`eventually`].
    pub fn begin(state: &'a str) -> Self {
        Self::new(PATIENCE, state)
    }

    fn new(limit: Duration, state: &'a str) -> Self {
        Self {
            state,
            started: Instant::now(),
            limit,
        }
    }

    /// Pauses until the next look. Panics when the wait has lasted too long.
    pub async fn pause(&self, seen: &(dyn Debug + Sync)) {
        self.assert_in_time(seen);
        tokio::time::sleep(POLL_INTERVAL).await;
    }

    fn assert_in_time(&self, seen: &dyn Debug) {
        let Self { state, limit, .. } = self;
        assert!(
            self.started.elapsed() < *limit,
            "not reached within {limit:?}: {state}; seen last: {seen:?}"
        );
    }
}
