//! Accepts connections, plain or with TLS, within the limits on how many may be open.

mod connection;
pub mod open_connections;
pub mod open_files;

use std::future::ready;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt};
use metrics::{Counter, counter};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use self::connection::Connection;
use self::open_connections::{OpenConnections, Place};
use super::tls::Tls;

pub use self::connection::{Adopted, Version};

/// Most handshakes under way at a time; further connections wait in the listener's queue. It is above the number of
/// connections that may be silent, so that silent clients do not keep others waiting.
const MAX_HANDSHAKES: usize = 1_024;
/// Time between attempts to accept while none succeeds, as a rule because the process has reached its limit of open files.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that is ready for requests.
pub struct Accepted {
    connection: Connection,
    address: SocketAddr,
    place: Place,
}

/// Returns the connections of `listener`, each when it is ready for requests. The stream never ends.
///
/// Handshakes run concurrently, so that nobody waits for a slow client. One that takes longer than `handshake_timeout` is
/// given up.
pub fn connections(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    open: OpenConnections,
    handshake_timeout: Duration,
) -> impl Stream<Item = Accepted> {
    let failures = counter!("likemind_tls_handshake_failures_total");
    accepted(listener, open.clone())
        .filter_map(move |(connection, address)| {
            let place = open.enter(address.ip());
            ready(place.map(|place| (connection, address, place)))
        })
        .map(move |(connection, address, place)| {
            let (tls, failures) = (tls.clone(), failures.clone());
            async move {
                let secured = secured(connection, address, tls, handshake_timeout, failures);
                let connection = tokio::select! {
                    connection = secured => connection?,
                    () = place.closed() => return None,
                };
                Some(Accepted {
                    connection,
                    address,
                    place,
                })
            }
        })
        .buffer_unordered(MAX_HANDSHAKES)
        .filter_map(ready)
}

/// Returns `None` when the handshake fails. The cause is on the client's side, so that it is logged at the level info.
async fn secured(
    connection: TcpStream,
    client: SocketAddr,
    tls: Option<Arc<Tls>>,
    handshake_timeout: Duration,
    failures: Counter,
) -> Option<Connection> {
    let Some(tls) = tls else {
        return Some(Connection::Plain(connection));
    };
    let handshake = timeout(handshake_timeout, tls.acceptor().accept(connection));
    // It runs as a task of its own because its signature may take a millisecond.
    let error = match AbortOnDropHandle::new(tokio::spawn(handshake)).await {
        Ok(Ok(Ok(connection))) => return Some(Connection::Secured(Box::new(connection))),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) => format!("it took longer than {handshake_timeout:?}"),
        Err(error) => error.to_string(),
    };
    failures.increment(1);
    tracing::info!(%client, error, "a TLS handshake failed");
    None
}

/// Returns the accepted connections. While the process has reached its limit of open files it pauses between attempts
/// instead of keeping a core busy.
fn accepted(listener: TcpListener, open: OpenConnections) -> impl Stream<Item = (TcpStream, SocketAddr)> {
    unfold((listener, open, true), async |(listener, open, mut is_accepting)| {
        loop {
            open.has_room().await;
            match listener.accept().await {
                Ok((connection, address)) => {
                    if !is_accepting {
                        tracing::info!("connections are accepted again");
                    }
                    // Without this an answer of more than one segment waits 40 ms for the client's delayed
                    // acknowledgement. An error means that the connection is gone already, which shows when it is read.
                    let _ = connection.set_nodelay(true);
                    return Some(((connection, address), (listener, open, true)));
                }
                // The client has gone before its connection was accepted.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if is_accepting {
                        tracing::warn!(%error, "connections cannot be accepted; the limit on open files may be reached");
                    }
                    is_accepting = false;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    })
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}
