//! Limits on the calls of one key: how many are under way at a time, and how many come in a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::concurrency_limit::{ConcurrencyLimit, Permit};
use super::options::AccessOptions;

/// The limits, which are the same for every key.
#[derive(Debug, Clone)]
pub struct KeyLimits {
    began: Instant,
    /// Time between two requests at the permitted rate; 0 means no limit.
    interval_ns: u64,
    /// How far requests may run ahead of the permitted rate.
    tolerance_ns: u64,
    max_concurrent_requests: usize,
}

impl KeyLimits {
    pub fn new(options: &AccessOptions) -> Self {
        let interval_ns = match options.requests_per_second {
            0 => 0,
            rate => 1_000_000_000 / u64::from(rate),
        };
        Self {
            began: Instant::now(),
            interval_ns,
            tolerance_ns: interval_ns.saturating_mul(u64::from(options.burst)),
            max_concurrent_requests: match options.max_concurrent_requests {
                0 => usize::MAX,
                limit => limit,
            },
        }
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The limit that a key has reached. The call that is refused does not count against the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Overuse {
    #[error("the API key has sent more requests than access.requests_per_second; try again")]
    Rate {
        /// Until the next request is due.
        retry_after: Duration,
    },
    #[error("the API key has as many requests under way as access.max_concurrent_requests; try again")]
    Concurrency,
}

/// Counts what one key has under way and has sent lately. It has no lock, so that calls of one key do not wait for one another.
#[derive(Debug)]
pub struct KeyUsage {
    /// When the next request would be due at the permitted rate, in ns since the limits began.
    due_ns: AtomicU64,
    under_way: Arc<ConcurrencyLimit>,
}

impl KeyUsage {
    pub fn new(limits: &KeyLimits) -> Self {
        Self {
            due_ns: AtomicU64::new(0),
            under_way: ConcurrencyLimit::new(limits.max_concurrent_requests),
        }
    }

    /// Admits one more call, which is under way until the permit is dropped.
    ///
    /// # Errors
    /// [`Overuse`] when a limit is reached.
    pub fn take(&self, limits: &KeyLimits) -> Result<Permit, Overuse> {
        let permit = self.under_way.take().ok_or(Overuse::Concurrency)?;
        if limits.interval_ns > 0 {
            self.take_at(limits, limits.now_ns())?;
        }
        Ok(permit)
    }

    /// Source: the generic cell rate algorithm, ITU-T I.371, annex A.
    fn take_at(&self, limits: &KeyLimits, now_ns: u64) -> Result<(), Overuse> {
        let mut due_ns = self.due_ns.load(Ordering::Relaxed);
        loop {
            let next_ns = due_ns.max(now_ns) + limits.interval_ns;
            let ahead_ns = next_ns - now_ns;
            if ahead_ns > limits.tolerance_ns {
                return Err(Overuse::Rate {
                    retry_after: Duration::from_nanos(ahead_ns - limits.tolerance_ns),
                });
            }
            match self
                .due_ns
                .compare_exchange_weak(due_ns, next_ns, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Ok(()),
                Err(changed) => due_ns = changed,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(requests_per_second: u32, burst: u32, max_concurrent_requests: usize) -> KeyLimits {
        KeyLimits::new(&AccessOptions {
            requests_per_second,
            burst,
            max_concurrent_requests,
        })
    }

    #[test]
    fn a_burst_is_admitted_and_then_the_rate() {
        let limits = limits(10, 3, 0);
        let usage = KeyUsage::new(&limits);
        let ms = |ms: u64| ms * 1_000_000;
        let take = |at_ms: u64| usage.take_at(&limits, ms(at_ms));
        let refused = |retry_ms: u64| {
            Err(Overuse::Rate {
                retry_after: Duration::from_millis(retry_ms),
            })
        };
        assert_eq!([take(0), take(0), take(0)], [Ok(()); 3]);
        assert_eq!(take(0), refused(100));
        assert_eq!(take(60), refused(40));
        assert_eq!(take(100), Ok(()));
        assert_eq!(take(100), refused(100));
        // After a pause a whole burst is admitted again, and no more.
        assert_eq!([take(5_000), take(5_000), take(5_000)], [Ok(()); 3]);
        assert_eq!(take(5_000), refused(100));
    }

    #[test]
    fn a_call_that_ends_makes_room_for_another() {
        let limits = limits(0, 1, 2);
        let usage = KeyUsage::new(&limits);
        let (first, second) = (usage.take(&limits), usage.take(&limits));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(usage.take(&limits).unwrap_err(), Overuse::Concurrency);
        drop(first);
        assert!(usage.take(&limits).is_ok());
    }
}
