//! What a key has under way and has had lately.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Overuse;
use super::options::AccessOptions;
use crate::grpc::slots::{Slot, Slots};

/// The limits of every key.
#[derive(Debug, Clone)]
pub struct Limits {
    began: Instant,
    /// From one request to the next at the permitted rate; 0 is no limit.
    interval_ns: u64,
    /// How far requests may run ahead of that rate.
    tolerance_ns: u64,
    max_concurrent_requests: usize,
}

impl Limits {
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

/// Of one key. No lock: calls of one key do not wait for one another.
#[derive(Debug)]
pub struct Usage {
    /// When the requests admitted so far would have come at the permitted rate, in ns since the limits began.
    due_ns: AtomicU64,
    slots: Arc<Slots>,
}

impl Usage {
    pub fn new(limits: &Limits) -> Self {
        Self {
            due_ns: AtomicU64::new(0),
            slots: Slots::new(limits.max_concurrent_requests),
        }
    }

    /// # Errors
    /// What there is too much of; a request that is turned away does not count.
    pub fn take(&self, limits: &Limits) -> Result<Slot, Overuse> {
        let slot = self.slots.take().ok_or(Overuse::Concurrency)?;
        if limits.interval_ns > 0 {
            self.take_at(limits, limits.now_ns())?;
        }
        Ok(slot)
    }

    /// Source: the generic cell rate algorithm, ITU-T I.371, annex A.
    fn take_at(&self, limits: &Limits, now_ns: u64) -> Result<(), Overuse> {
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

    fn limits(requests_per_second: u32, burst: u32, max_concurrent_requests: usize) -> Limits {
        Limits::new(&AccessOptions {
            requests_per_second,
            burst,
            max_concurrent_requests,
        })
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let limits = limits(10, 3, 0);
        let usage = Usage::new(&limits);
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
        // After a pause there is a whole burst again, and no more.
        assert_eq!([take(5_000), take(5_000), take(5_000)], [Ok(()); 3]);
        assert_eq!(take(5_000), refused(100));
    }

    #[test]
    fn places_are_given_back() {
        let limits = limits(0, 1, 2);
        let usage = Usage::new(&limits);
        let (first, second) = (usage.take(&limits), usage.take(&limits));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(usage.take(&limits).unwrap_err(), Overuse::Concurrency);
        drop(first);
        assert!(usage.take(&limits).is_ok());
    }
}
