//! How many calls the server has under way at a time.

use std::sync::Arc;

use super::concurrency_limit::{ConcurrencyLimit, Permit};
use super::rpc::Work;

/// A limit for each kind of work, so that calls that wait for a slow database do not turn away those that need none, and
/// streams that wait for their client do not turn away those that do not. The streams of health and reflection, which need no
/// key, take nothing from the others. A clone shares the limits.
#[derive(Debug, Clone)]
pub struct Capacity {
    memory: Arc<ConcurrencyLimit>,
    database: Arc<ConcurrencyLimit>,
    streams: Arc<ConcurrencyLimit>,
    protocol_streams: Arc<ConcurrencyLimit>,
}

/// The server has as many calls of this kind under way as it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server has as many requests under way as it takes; try again")]
pub struct Overloaded;

impl Capacity {
    /// `max_requests`: for each kind of work; `max_database_requests`: for calls to the database, if that is less.
    pub fn new(max_requests: usize, max_database_requests: usize) -> Self {
        Self {
            memory: ConcurrencyLimit::new(max_requests),
            database: ConcurrencyLimit::new(max_requests.min(max_database_requests)),
            streams: ConcurrencyLimit::new(max_requests),
            protocol_streams: ConcurrencyLimit::new(max_requests),
        }
    }

    /// Returns `None` for work without a limit.
    ///
    /// # Errors
    /// [`Overloaded`] when the limit is reached.
    pub fn take(&self, work: Work) -> Result<Option<Permit>, Overloaded> {
        let limit = match work {
            Work::Memory => &self.memory,
            Work::Database => &self.database,
            Work::Ingest | Work::Stream => &self.streams,
            Work::ProtocolStream => &self.protocol_streams,
            // Each is short, and each connection has a limit of its own.
            Work::Protocol => return Ok(None),
        };
        limit.take().map(Some).ok_or(Overloaded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_wait_do_not_turn_away_those_that_do_not() {
        let capacity = Capacity::new(1, 1);
        let taken = [Work::Ingest, Work::Database].map(|work| capacity.take(work));
        assert!(taken.iter().all(|taken| matches!(taken, Ok(Some(_)))));
        assert!(capacity.take(Work::Ingest).is_err() && capacity.take(Work::Database).is_err());
        assert!(capacity.take(Work::Memory).is_ok());
        assert!(capacity.take(Work::Protocol).is_ok());
    }

    #[test]
    fn the_queue_for_the_database_has_a_limit_of_its_own() {
        let check = |max_requests, max_database_requests, database, memory| {
            let capacity = Capacity::new(max_requests, max_database_requests);
            for (work, expected) in [
                (Work::Database, database),
                (Work::Memory, memory),
                (Work::Ingest, memory),
            ] {
                let taken: Vec<_> = std::iter::from_fn(|| capacity.take(work).ok()).collect();
                assert_eq!(
                    taken.len(),
                    expected,
                    "{work:?} of {max_requests} and {max_database_requests}"
                );
            }
        };
        check(5, 2, 2, 5);
        check(2, 5, 2, 2);
    }
}
