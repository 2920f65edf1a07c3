//! The calls and the sending that one connection has under way. Its calls, and the task that watches over it, share this.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval_at};

use crate::admission::concurrency_limit::ConcurrencyLimit;

/// Most calls of health and reflection that one connection may have under way, and most of them that are streams. They need
/// no key, and a client needs one of each.
const MAX_OPEN_CALLS: usize = 128;
const MAX_OPEN_STREAMS: usize = 16;
/// Time between two looks at whether a connection is idle.
const IDLE_CHECK: Duration = Duration::from_millis(250);

/// The client's side of a connection.
pub struct Peer {
    address: SocketAddr,
    accepted: Instant,
    /// Calls whose answers have not been sent to their end.
    under_way: AtomicUsize,
    unsent: Unsent,
    /// When a write began to wait for the client, in ms since `accepted`, plus 1; 0 while none waits.
    blocked_at: AtomicU64,
    pub open_calls: Arc<ConcurrencyLimit>,
    pub open_streams: Arc<ConcurrencyLimit>,
}

impl Peer {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            accepted: Instant::now(),
            under_way: AtomicUsize::new(0),
            unsent: Unsent::default(),
            blocked_at: AtomicU64::new(0),
            open_calls: ConcurrencyLimit::new(MAX_OPEN_CALLS),
            open_streams: ConcurrencyLimit::new(MAX_OPEN_STREAMS),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Counts a call as under way until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay { peer: self.clone() }
    }

    /// Notes that a write waits for the client to take what was sent before.
    pub fn note_blocked(&self) {
        if self.blocked_at.load(Ordering::Relaxed) == 0 {
            self.blocked_at.store(self.now_ms() + 1, Ordering::Relaxed);
        }
    }

    /// Notes that the client takes what is sent.
    pub fn note_progress(&self) {
        if self.blocked_at.load(Ordering::Relaxed) != 0 {
            self.blocked_at.store(0, Ordering::Relaxed);
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX - 1)
    }

    fn is_blocked_for(&self, time: Duration) -> bool {
        match self.blocked_at.load(Ordering::Relaxed) {
            0 => false,
            at => self.now_ms().saturating_sub(at - 1) >= time.as_millis() as u64,
        }
    }

    /// Returns when the client has not taken an answer for longer than `send_timeout`. The connection is to be cut off then.
    ///
    /// A single call whose answer is not taken is reset before, unless its last bytes lie in the connection's own queue,
    /// where only this finds them.
    pub async fn does_not_read(&self, send_timeout: Duration) {
        let period = send_timeout + send_timeout / 4;
        let mut periods = interval_at(tokio::time::Instant::now() + period, period);
        periods.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            Interval::tick(&mut periods).await;
            if self.unsent.end_period() || self.is_blocked_for(period) {
                return;
            }
        }
    }

    /// Returns when no call has been under way for a moment.
    pub async fn is_idle(&self) {
        let mut idle_checks = 0;
        while idle_checks < 2 {
            tokio::time::sleep(IDLE_CHECK).await;
            idle_checks = match self.under_way.load(Ordering::Relaxed) {
                0 => idle_checks + 1,
                _ => 0,
            };
        }
    }
}

/// A call under way on a connection.
pub struct UnderWay {
    peer: Arc<Peer>,
}

impl UnderWay {
    /// Counts some bytes of the call's answer as unsent until the guard is dropped.
    pub fn begin_sending(self: &Arc<Self>) -> UnsentBytes {
        UnsentBytes {
            period: self.peer.unsent.begin(),
            call: self.clone(),
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.peer.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of an answer that have been handed over for sending and have not been sent yet.
pub struct UnsentBytes {
    period: usize,
    call: Arc<UnderWay>,
}

impl Drop for UnsentBytes {
    fn drop(&mut self) {
        self.call.peer.unsent.end(self.period);
    }
}

/// Counts what is unsent by the period of time in which its sending began: this one, the one before and the one before that.
/// It is exact enough for a timeout and costs two additions for an answer.
#[derive(Default)]
struct Unsent {
    period: AtomicUsize,
    counts: [AtomicUsize; 3],
}

impl Unsent {
    fn begin(&self) -> usize {
        let period = self.period.load(Ordering::Relaxed) % 3;
        self.counts[period].fetch_add(1, Ordering::Relaxed);
        period
    }

    fn end(&self, period: usize) {
        self.counts[period].fetch_sub(1, Ordering::Relaxed);
    }

    /// Begins a new period. Returns whether something is unsent since before the period that has just ended.
    fn end_period(&self) -> bool {
        let ended = self.period.fetch_add(1, Ordering::Relaxed);
        self.counts[(ended + 2) % 3].load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_overdue_when_they_outlast_a_whole_period() {
        let unsent = Unsent::default();
        let first = unsent.begin();
        assert!(!unsent.end_period(), "they began in the period that has ended");
        let second = unsent.begin();
        assert!(unsent.end_period());
        unsent.end(first);
        assert!(unsent.end_period(), "so have the second ones outlasted a period");
        unsent.end(second);
        for _ in 0..4 {
            let brief = unsent.begin();
            unsent.end(brief);
            assert!(!unsent.end_period());
        }
    }
}
