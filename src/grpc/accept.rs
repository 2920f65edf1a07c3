//! Accepting connections.

use std::io::{self, ErrorKind};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::net::{TcpListener, TcpStream};

/// Until accepting is tried again when nothing can be accepted: as a rule the process has no file left.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections of `listener` as they come; ends never.
///
/// tonic by itself would ask again at once, and so do nothing else, for as long as there is no file left.
pub fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    unfold((listener, true), async |(listener, mut is_accepting)| {
        loop {
            match listener.accept().await {
                Ok((connection, _)) => {
                    if !is_accepting {
                        tracing::info!("connections are accepted again");
                    }
                    // Without it an answer of more than one segment waits for the client's delayed acknowledgement,
                    // 40 ms. tonic sets it only for a listener of its own. Of a connection that is gone already
                    // whoever reads it learns that.
                    let _ = connection.set_nodelay(true);
                    return Some((Ok(connection), (listener, true)));
                }
                // Gone before we came to it.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    if is_accepting {
                        tracing::warn!(%error, "connections cannot be accepted (is the limit on open files reached?)");
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
