//! Accepts connections, plain or with TLS.

mod connection;

use std::future::ready;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt};
use metrics::{Counter, counter};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::tls::Tls;

pub use self::connection::Connection;

/// Longest time for a TLS handshake; a local client needs milliseconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Most handshakes under way at a time; further connections wait in the listener's queue.
const MAX_HANDSHAKES: usize = 1_024;
/// Time between attempts to accept while none succeeds, as a rule because the process has reached its limit of open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Returns the connections of `listener`, each when it is ready for requests. The stream never ends.
///
/// Handshakes run concurrently, so that nobody waits for a slow client.
pub fn connections(listener: TcpListener, tls: Option<Arc<Tls>>) -> impl Stream<Item = Connection> {
    let failures = counter!("likemind_tls_handshake_failures_total");
    accepted(listener)
        .map(move |connection| secured(connection, tls.clone(), failures.clone()))
        .buffer_unordered(MAX_HANDSHAKES)
        .filter_map(ready)
}

/// Returns `None` when the handshake fails. The cause is on the client's side, so that it is logged at the level info.
async fn secured(connection: TcpStream, tls: Option<Arc<Tls>>, failures: Counter) -> Option<Connection> {
    let Some(tls) = tls else {
        return Some(Connection::Plain(connection));
    };
    let client = connection.peer_addr().ok();
    let handshake = timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(connection));
    // It runs as a task of its own because its signature may take a millisecond.
    let error = match AbortOnDropHandle::new(tokio::spawn(handshake)).await {
        Ok(Ok(Ok(connection))) => return Some(Connection::Secured(Box::new(connection))),
        Ok(Ok(Err(error))) => error.to_string(),
        Ok(Err(_)) => format!("it took longer than {HANDSHAKE_TIMEOUT:?}"),
        Err(error) => error.to_string(),
    };
    failures.increment(1);
    tracing::info!(
        client = client.map(tracing::field::display),
        error,
        "a TLS handshake failed"
    );
    None
}

/// Returns the accepted connections. While the process has reached its limit of open files it pauses between attempts;
/// tonic's own loop would try again at once and keep a core busy.
fn accepted(listener: TcpListener) -> impl Stream<Item = TcpStream> {
    unfold((listener, true), async |(listener, mut is_accepting)| {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => {
                    if !is_accepting {
                        tracing::info!("connections are accepted again");
                    }
                    // Without this an answer of more than one segment waits 40 ms for the client's delayed
                    // acknowledgement. tonic sets it only for its own listeners. An error means that the connection
                    // is gone already, which shows when it is read.
                    let _ = connection.set_nodelay(true);
                    return Some((connection, (listener, true)));
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
