//! A limit on how many calls are under way at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts permits. It is no semaphore because nobody waits for a permit, and because giving one back to a semaphore takes
/// the semaphore's lock.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    taken: AtomicUsize,
    limit: usize,
}

/// Gives itself back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    limit: Arc<ConcurrencyLimit>,
}

impl ConcurrencyLimit {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            taken: AtomicUsize::new(0),
            limit,
        })
    }

    /// Returns `None` when all permits are taken.
    pub fn take(self: &Arc<Self>) -> Option<Permit> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        let permit = Permit { limit: self.clone() };
        (taken < self.limit).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.limit.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_permits_than_the_limit_are_taken() {
        let limit = ConcurrencyLimit::new(2);
        let (first, second) = (limit.take(), limit.take());
        assert!(first.is_some() && second.is_some());
        assert!(limit.take().is_none() && limit.take().is_none());
        drop(first);
        assert!(limit.take().is_some());
    }

    #[test]
    fn every_permit_comes_back() {
        let limit = ConcurrencyLimit::new(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1_000).for_each(|_| drop(limit.take())));
            }
        });
        assert_eq!(limit.taken.load(Ordering::Relaxed), 0);
    }
}
