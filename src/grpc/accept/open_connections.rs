//! How many connections are open, in all and from each address, and which one makes room when there are too many.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Most connections that have not begun to speak HTTP. A client that means to call needs a moment for it.
const MAX_SILENT: usize = 512;
/// Most connections that are being closed to make room, beyond those that may be open.
const MAX_CLOSING: usize = 32;
/// Shortest time between two log lines about refused connections.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Limits on open connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    pub max: usize,
    /// For each address; an IPv6 address counts as its network of 64 bits, which one client has for itself.
    pub max_per_address: usize,
}

impl ConnectionLimits {
    /// Returns the limits for a process that has room for `max` connections. One address leaves room for others, unless it
    /// has no limit.
    pub fn within(self, max: usize) -> Self {
        if max >= self.max {
            return self;
        }
        let max_per_address = match self.max_per_address {
            usize::MAX => usize::MAX,
            limit => limit.min((max - max / 8).max(1)),
        };
        Self { max, max_per_address }
    }
}

/// Counts the open connections. A clone counts the same ones.
#[derive(Clone)]
pub struct OpenConnections {
    shared: Arc<Shared>,
}

struct Shared {
    limits: ConnectionLimits,
    open: Mutex<Open>,
    has_closed: Notify,
    refused: Counter,
    number: Gauge,
}

#[derive(Default)]
struct Open {
    next_id: u64,
    addresses: HashMap<u64, IpAddr>,
    number_by_address: HashMap<IpAddr, usize>,
    /// Those that have not begun to speak HTTP, from the oldest on.
    silent: BTreeMap<u64, CancellationToken>,
    /// Those whose sockets are open, also those that are being closed to make room.
    sockets: usize,
    logged: Option<Instant>,
}

/// The place of an open connection. Dropping it makes room for another one.
pub struct Place {
    id: u64,
    closed: CancellationToken,
    connections: OpenConnections,
}

impl OpenConnections {
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            shared: Arc::new(Shared {
                limits,
                open: Mutex::default(),
                has_closed: Notify::new(),
                refused: counter!("likemind_connections_refused_total"),
                number: gauge!("likemind_connections"),
            }),
        }
    }

    /// Returns when the socket of one more connection may be opened. Until then it waits in the listener's queue.
    pub async fn has_room(&self) {
        loop {
            let mut has_closed = pin!(self.shared.has_closed.notified());
            has_closed.as_mut().enable();
            if self.open().sockets < self.shared.limits.max.saturating_add(MAX_CLOSING) {
                return;
            }
            has_closed.await;
        }
    }

    /// Makes room for a connection from `address`. Where a limit is reached, the oldest connection that has not begun to
    /// speak HTTP is closed instead. Returns `None` if there is no such connection.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        let (address, limits) = (network(address), self.shared.limits);
        let mut open = self.open();
        if open.silent.len() >= MAX_SILENT.min(limits.max) {
            open.close_silent(|_| true);
        }
        let from_address = |open: &Open| open.number_by_address.get(&address).copied().unwrap_or(0);
        if from_address(&open) >= limits.max_per_address {
            open.close_silent(|other| other == address);
        }
        if open.addresses.len() >= limits.max {
            open.close_silent(|_| true);
        }
        if from_address(&open) >= limits.max_per_address || open.addresses.len() >= limits.max {
            self.shared.refused.increment(1);
            open.log_refused(address, limits);
            return None;
        }
        let id = open.next_id;
        open.next_id += 1;
        open.sockets += 1;
        let closed = CancellationToken::new();
        open.addresses.insert(id, address);
        open.silent.insert(id, closed.clone());
        *open.number_by_address.entry(address).or_default() += 1;
        self.shared.number.set(open.addresses.len() as f64);
        Some(Place {
            id,
            closed,
            connections: self.clone(),
        })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Every change of the numbers is whole.
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Closes the oldest silent connection from an address that `is_chosen`.
    fn close_silent(&mut self, is_chosen: impl Fn(IpAddr) -> bool) {
        let address = |id: &u64| self.addresses.get(id).copied();
        let oldest = self
            .silent
            .keys()
            .copied()
            .find(|id| address(id).is_some_and(&is_chosen));
        if let Some(id) = oldest {
            if let Some(closed) = self.silent.remove(&id) {
                closed.cancel();
            }
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u64) {
        self.silent.remove(&id);
        // It is gone already if it was closed to make room.
        let Some(address) = self.addresses.remove(&id) else {
            return;
        };
        if let Some(number) = self.number_by_address.get_mut(&address) {
            *number -= 1;
            if *number == 0 {
                self.number_by_address.remove(&address);
            }
        }
    }

    fn log_refused(&mut self, address: IpAddr, limits: ConnectionLimits) {
        if self.logged.is_some_and(|logged| logged.elapsed() < LOG_INTERVAL) {
            return;
        }
        self.logged = Some(Instant::now());
        tracing::warn!(
            %address,
            open = self.addresses.len(),
            max_connections = limits.max,
            max_connections_per_address = limits.max_per_address,
            "connections are refused because a limit is reached"
        );
    }
}

impl Place {
    /// Notes that the client speaks HTTP, so that the connection no longer makes room for others.
    pub fn has_begun(&self) {
        self.connections.open().silent.remove(&self.id);
    }

    /// Returns when the connection is to be closed to make room.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        open.sockets -= 1;
        open.remove(self.id);
        self.connections.shared.number.set(open.addresses.len() as f64);
        drop(open);
        self.connections.shared.has_closed.notify_one();
    }
}

/// Returns what counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(max: usize, max_per_address: usize) -> OpenConnections {
        OpenConnections::new(ConnectionLimits { max, max_per_address })
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_silent_connection_makes_room_and_one_that_has_begun_does_not() {
        let connections = connections(2, 2);
        let silent = connections.enter(address(1)).unwrap();
        let begun = connections.enter(address(2)).unwrap();
        begun.has_begun();
        let third = connections.enter(address(3)).unwrap();
        assert!(silent.closed.is_cancelled() && !begun.closed.is_cancelled());
        third.has_begun();
        assert!(connections.enter(address(4)).is_none());
        // The closed one has made room already, and makes none again when it ends.
        drop(silent);
        assert!(connections.enter(address(4)).is_none());
        drop(begun);
        assert!(connections.enter(address(4)).is_some());
    }

    #[test]
    fn one_address_does_not_take_the_room_of_others() {
        let connections = connections(10, 2);
        let mut others = Vec::new();
        let silent = connections.enter(address(2)).unwrap();
        for _ in 0..2 {
            let place = connections.enter(address(1)).unwrap();
            place.has_begun();
            others.push(place);
        }
        assert!(connections.enter(address(1)).is_none());
        assert!(!silent.closed.is_cancelled());
        assert!(connections.enter(address(3)).is_some());
        others.pop();
        assert!(connections.enter(address(1)).is_some());
    }

    #[test]
    fn the_oldest_of_too_many_silent_connections_is_closed() {
        let connections = connections(10_000, 10_000);
        let places: Vec<Place> = (0..=MAX_SILENT)
            .map(|_| connections.enter(address(1)).unwrap())
            .collect();
        let closed: Vec<usize> = (0..places.len())
            .filter(|&at| places[at].closed.is_cancelled())
            .collect();
        assert_eq!(closed, [0]);
        drop(places);
        let open = connections.open();
        assert!(open.addresses.is_empty() && open.number_by_address.is_empty() && open.silent.is_empty());
    }

    #[test]
    fn where_there_is_less_room_one_address_still_leaves_some() {
        let check = |limits: [usize; 2], max, expected: [usize; 2]| {
            let [max_connections, max_per_address] = limits;
            let limits = ConnectionLimits {
                max: max_connections,
                max_per_address,
            };
            let limits = limits.within(max);
            assert_eq!([limits.max, limits.max_per_address], expected);
        };
        check([4_096, 1_024], 5_000, [4_096, 1_024]);
        check([4_096, 1_024], 2_000, [2_000, 1_024]);
        check([4_096, 1_024], 800, [800, 700]);
        check([4_096, usize::MAX], 800, [800, usize::MAX]);
        check([4_096, 1_024], 1, [1, 1]);
    }

    #[test]
    fn an_ipv6_address_counts_as_its_network() {
        let check = |a: &str, b: &str, are_one: bool| {
            let [a, b] = [a, b].map(|address| network(address.parse().unwrap()));
            assert_eq!(a == b, are_one, "{a} {b}");
        };
        check("2001:db8::1", "2001:db8::ffff:1", true);
        check("2001:db8::1", "2001:db8:0:1::1", false);
        check("::ffff:10.0.0.1", "10.0.0.1", true);
        check("10.0.0.1", "10.0.0.2", false);
    }
}
