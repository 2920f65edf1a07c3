//! The serving threads. Each has a runtime of its own, and a call stays on the thread of its connection, so that it costs
//! no lock and wakes up no other thread. Calls that wait for the database, and everything that goes on beside the calls, run
//! on the runtime of the process.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::num::NonZero;
use std::pin::pin;
use std::thread;

use futures_util::future::try_join_all;
use futures_util::{Stream, StreamExt};
use http::{Request, Response};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service;

use super::accept::Accepted;
use super::http::Http;

#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    #[error("a serving thread cannot be started")]
    Start(#[source] io::Error),
    #[error("a serving thread ended with a panic")]
    Panicked,
}

/// Returns `threads`, or for 0 the number of cores.
pub fn number(threads: usize) -> usize {
    match threads {
        0 => thread::available_parallelism().map_or(1, NonZero::get),
        threads => threads,
    }
}

/// Answers calls to `service` on `connections`, which it gives to `n_threads` in turn, until `shutdown` and until the calls
/// under way have ended. Dropping the future cuts them off.
///
/// The kernel could spread the connections (`SO_REUSEPORT`), but it does so by a hash: a few connections, as those of
/// other services are, would leave threads idle.
///
/// # Errors
/// [`ThreadError`]; nothing is answered any more then.
pub async fn serve<S>(
    http: Http,
    service: S,
    n_threads: usize,
    connections: impl Stream<Item = Accepted>,
    shutdown: CancellationToken,
) -> Result<(), ThreadError>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let cut_off = CancellationToken::new();
    let _cut_off_when_dropped = cut_off.clone().drop_guard();
    let (mut threads, mut ended) = (Vec::new(), Vec::new());
    for number in 0..n_threads {
        let (sender, receiver) = mpsc::unbounded_channel();
        let served = serve_connections(http.clone(), service.clone(), receiver, shutdown.clone());
        ended.push(start(number, served, cut_off.clone())?);
        threads.push(sender);
    }
    let ended = try_join_all(
        ended
            .into_iter()
            .map(|ended| async move { ended.await.map_err(|_| ThreadError::Panicked) }),
    );
    let mut ended = pin!(ended);
    let deal = async {
        let mut connections = pin!(connections);
        let mut in_turn = threads.iter().cycle();
        while let (Some(connection), Some(thread)) = (connections.next().await, in_turn.next()) {
            // A thread that has ended shows in `ended`.
            let _ = thread.send(connection);
        }
    };
    tokio::select! {
        result = &mut ended => return result.map(drop),
        () = shutdown.cancelled() => {}
        () = deal => {}
    }
    drop(threads);
    ended.await.map(drop)
}

/// Answers calls on all `connections`, until there are no more, or until `shutdown` and until the calls under way have ended.
async fn serve_connections<S>(
    http: Http,
    service: S,
    mut connections: mpsc::UnboundedReceiver<Accepted>,
    shutdown: CancellationToken,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            connection = connections.recv() => match connection {
                Some(connection) => {
                    open.spawn(http.clone().serve(connection, service.clone(), shutdown.clone()));
                }
                None => break,
            },
            // A panic has been logged, and concerned one connection.
            Some(_) = open.join_next() => {}
        }
    }
    drop(connections);
    while open.join_next().await.is_some() {}
}

/// Runs `served` on a thread and a runtime of its own until it ends or is `cut_off`.
fn start(
    number: usize,
    served: impl Future<Output = ()> + Send + 'static,
    cut_off: CancellationToken,
) -> Result<oneshot::Receiver<()>, ThreadError> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ThreadError::Start)?;
    let (done, ended) = oneshot::channel();
    let run = move || {
        runtime.block_on(async {
            tokio::select! {
                () = served => {}
                () = cut_off.cancelled() => {}
            }
        });
        // Does not wait for computations that were given up.
        runtime.shutdown_background();
        // Nobody waits for a thread that was cut off.
        let _ = done.send(());
    };
    let thread = thread::Builder::new().name(format!("serving-{number}"));
    thread.spawn(run).map_err(ThreadError::Start)?;
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::net::TcpListener;
    use tokio::time::timeout;
    use tonic::transport::{Channel, Endpoint};
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tower::Layer;
    use tower::util::MapRequestLayer;

    use super::super::accept::{self, open_connections::OpenConnections};
    use super::super::options::ServerOptions;
    use super::super::routes::Routes;
    use super::*;

    /// Longer than anything takes; nothing waits for it to pass.
    const PATIENCE: Duration = Duration::from_secs(60);

    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        (listener, address)
    }

    fn connections(listener: TcpListener) -> impl Stream<Item = Accepted> {
        let open = OpenConnections::new(ServerOptions::default().connection_limits());
        accept::connections(listener, None, open, PATIENCE)
    }

    fn http() -> Http {
        Http::new(ServerOptions::default().http())
    }

    async fn connect(address: &str) -> Result<Channel, tonic::transport::Error> {
        Endpoint::from_shared(address.to_owned())?.connect().await
    }

    #[tokio::test]
    async fn connections_go_to_all_threads_in_turn() {
        let threads = Arc::new(Mutex::new(BTreeSet::new()));
        let noted = threads.clone();
        let note = MapRequestLayer::new(move |request: Request<Body>| {
            let thread = thread::current();
            noted.lock().unwrap().insert(thread.name().unwrap().to_owned());
            request
        });
        let (_, health) = tonic_health::server::health_reporter();
        let (listener, address) = listen().await;
        let service = note.layer(Routes::builder().add(health).build());
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(serve(http(), service, 3, connections(listener), shutdown.clone()));
        for _ in 0..6 {
            let mut client = HealthClient::new(connect(&address).await.unwrap());
            client.check(HealthCheckRequest::default()).await.unwrap();
        }
        let threads: Vec<String> = threads.lock().unwrap().iter().cloned().collect();
        assert_eq!(threads, ["serving-0", "serving-1", "serving-2"]);
        shutdown.cancel();
        timeout(PATIENCE, served)
            .await
            .expect("it does not end")
            .unwrap()
            .unwrap();
        assert!(connect(&address).await.is_err());
    }

    #[tokio::test]
    async fn dropping_the_server_cuts_off_calls_under_way() {
        let (_reporter, health) = tonic_health::server::health_reporter();
        let (listener, address) = listen().await;
        let service = Routes::builder().add(health).build();
        let connections = connections(listener);
        let served = tokio::spawn(serve(http(), service, 1, connections, CancellationToken::new()));
        let mut client = HealthClient::new(connect(&address).await.unwrap());
        let mut statuses = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert!(statuses.message().await.unwrap().is_some());
        served.abort();
        let rest = timeout(PATIENCE, statuses.message()).await.expect("it goes on");
        assert!(rest.is_err(), "{rest:?}");
    }
}
