//! Ends a call with DEADLINE_EXCEEDED when its time has run out: the client's own deadline, or
//! `server.request_timeout_ms`, whichever comes first.

use std::convert::Infallible;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderMap, Request, Response};
use tonic::body::Body;
use tower::Service;

use crate::admission::rpc::{Rpc, Work};
use crate::grpc::routes::Answer;
use crate::grpc::status;

/// The header with the client's deadline: up to eight digits and a unit.
const GRPC_TIMEOUT: &str = "grpc-timeout";

/// The moment at which the time of a call runs out, for handlers whose answer is a stream: this layer ends only the time until
/// its beginning.
#[derive(Debug, Clone, Copy)]
pub struct Ends(pub Instant);

#[derive(Clone)]
pub struct Deadlines<S> {
    inner: S,
    timeout: Duration,
}

impl<S> Deadlines<S> {
    /// `timeout_ms`: for calls that are no streams.
    pub fn new(inner: S, timeout_ms: u64) -> Self {
        Self {
            inner,
            timeout: Duration::from_millis(timeout_ms),
        }
    }

    fn timeout(&self, work: Work) -> Option<Duration> {
        match work {
            Work::Memory | Work::Database | Work::Protocol => Some(self.timeout),
            Work::Ingest | Work::Stream | Work::ProtocolStream => None,
        }
    }
}

impl<S> Service<Request<Body>> for Deadlines<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answer>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        let work = request
            .extensions()
            .get::<Rpc>()
            .map_or(Work::Protocol, |rpc| rpc.work());
        let timeouts = self.timeout(work).into_iter().chain(client_timeout(request.headers()));
        // The time counts from now. tonic has a timer of its own for the client's deadline, which begins later and answers
        // CANCELLED where our contract says DEADLINE_EXCEEDED. tonic asks first whether the call has ended.
        let ends = timeouts.min().and_then(|timeout| Instant::now().checked_add(timeout));
        if let Some(ends) = ends {
            request.extensions_mut().insert(Ends(ends));
        }
        let answer = self.inner.call(request);
        match ends {
            None => answer,
            Some(ends) => Box::pin(async move {
                let in_time = tokio::time::timeout_at(ends.into(), answer).await;
                in_time.unwrap_or_else(|_| Ok(status::deadline_exceeded().into_http()))
            }),
        }
    }
}

/// Returns the time that the client gives the call.
pub fn client_timeout(headers: &HeaderMap) -> Option<Duration> {
    parse_timeout(headers.get(GRPC_TIMEOUT)?.to_str().ok()?)
}

/// Source: gRPC over HTTP/2, "Timeout".
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3_600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_says() {
        let check = |text, expected| assert_eq!(parse_timeout(text), expected, "{text}");
        check("5S", Some(Duration::from_secs(5)));
        check("250m", Some(Duration::from_millis(250)));
        check("99999999H", Some(Duration::from_secs(99_999_999 * 3_600)));
        for bad in ["", "S", "5", "5s", "-5S", "123456789S", "5é"] {
            check(bad, None);
        }
    }
}
