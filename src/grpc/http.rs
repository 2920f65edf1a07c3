//! Answers the calls of one connection, until the client closes it, it is too old or idle at the end, or the client does not
//! read its answers.
//!
//! tonic has a server of its own, but that cannot refuse connections, drop silent ones, or end a call whose answer is not
//! taken.

pub mod sending;

use std::convert::Infallible;
use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service;

use super::accept::{Accepted, Version};
use super::peer::Peer;
use super::status;

use self::sending::SentInTime;

/// Common clients run into refused streams when it is below 256.
const MAX_CONCURRENT_STREAMS: u32 = 1_024;
/// Most streams that a client may have cancelled before they were looked at: each takes about a kilobyte. Clients with short
/// deadlines cancel many while the server is busy, and a client cannot have more open at a time than this.
const MAX_PENDING_RESETS: usize = MAX_CONCURRENT_STREAMS as usize;
/// Largest list of headers that is read at all. A list that is above `MAX_HEADER_BYTES` of the layer `admission` and not above
/// this is refused with a status of gRPC, and one that is above both with HTTP 431, or by closing the connection.
const MAX_READ_HEADER_BYTES: u32 = 1024 * 1024;
/// The same for HTTP/1.1, whose headers are in the buffer that is used for bodies too.
const MAX_HTTP1_BUFFER_BYTES: usize = 64 * 1024;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// How connections are treated.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Longest time until the client has begun to speak HTTP.
    pub handshake_timeout: Duration,
    /// Longest time for the client to take an answer, or a row of a stream.
    pub send_timeout: Duration,
    /// Age at which a client is asked to open a new connection; `None` for never.
    pub max_age: Option<Duration>,
    /// How long the calls on such a connection may still take.
    pub max_age_grace: Duration,
    /// Whether HTTP/1.1 is accepted, besides HTTP/2. gRPC-Web needs it.
    pub has_http1: bool,
}

/// Serves connections. A clone serves them in the same way.
#[derive(Clone)]
pub struct Http {
    options: HttpOptions,
    http2: http2::Builder<SentInTime>,
    http1: http1::Builder,
}

impl Http {
    pub fn new(options: HttpOptions) -> Self {
        let mut http2 = http2::Builder::new(SentInTime {
            timeout: options.send_timeout,
        });
        http2
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_header_list_size(MAX_READ_HEADER_BYTES)
            .keep_alive_interval(KEEPALIVE_INTERVAL);
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(KEEPALIVE_INTERVAL)
            .max_buf_size(MAX_HTTP1_BUFFER_BYTES);
        Self { options, http2, http1 }
    }

    /// Answers the calls of a connection with `service`. After `shutdown` it returns as soon as no call is under way.
    pub async fn serve<S>(self, accepted: Accepted, service: S, shutdown: CancellationToken)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        let mut connection = match accepted.adopted() {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "a connection was closed at once; the limit on open files may be reached");
                return;
            }
        };
        let version = tokio::select! {
            version = timeout(self.options.handshake_timeout, connection.version()) => version,
            () = shutdown.cancelled() => return,
        };
        let peer = connection.peer().clone();
        let service = OfConnection {
            service,
            peer: peer.clone(),
        };
        match version {
            Ok(Some(Version::Http2)) => {
                let calls = self.http2.serve_connection(TokioIo::new(connection), service);
                self.until_end(pin!(calls), &peer, shutdown).await;
            }
            Ok(Some(Version::Http1)) if self.options.has_http1 => {
                let calls = self.http1.serve_connection(TokioIo::new(connection), service);
                self.until_end(pin!(calls), &peer, shutdown).await;
            }
            Ok(Some(Version::Http1)) => {
                tracing::debug!(client = %peer.address(), "a connection does not begin as HTTP/2 does");
            }
            // The client has gone, or it must go.
            Ok(None) | Err(_) => {}
        }
    }

    async fn until_end<C: GracefulConnection>(
        &self,
        mut connection: Pin<&mut C>,
        peer: &Peer,
        shutdown: CancellationToken,
    ) {
        let mut does_not_read = pin!(peer.does_not_read(self.options.send_timeout));
        let is_old = async {
            match self.options.max_age {
                Some(age) => sleep(age).await,
                None => pending().await,
            }
        };
        let is_stopping = tokio::select! {
            // How it ended is known to its calls.
            _ = connection.as_mut() => return,
            () = &mut does_not_read => return log_unread(peer),
            () = is_old => false,
            () = shutdown.cancelled() => true,
        };
        connection.as_mut().graceful_shutdown();
        let end = async {
            if !is_stopping {
                tokio::select! {
                    () = sleep(self.options.max_age_grace) => return,
                    () = shutdown.cancelled() => {}
                }
            }
            peer.is_idle().await;
        };
        tokio::select! {
            _ = connection => {}
            () = does_not_read => log_unread(peer),
            () = end => {}
        }
    }
}

fn log_unread(peer: &Peer) {
    tracing::info!(client = %peer.address(), "a connection was cut off because its client did not read its answers");
}

/// The service for the calls of one connection.
struct OfConnection<S> {
    service: S,
    peer: Arc<Peer>,
}

impl<S> hyper::service::Service<Request<Incoming>> for OfConnection<S>
where
    S: Service<Request<Body>> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    /// Puts the `Arc<Peer>` into the request's extensions. The services and layers of this server are always ready.
    fn call(&self, request: Request<Incoming>) -> S::Future {
        let mut request = request.map(|body| Body::new(body.map_err(|_| status::request_aborted())));
        request.extensions_mut().insert(self.peer.clone());
        self.service.clone().call(request)
    }
}
