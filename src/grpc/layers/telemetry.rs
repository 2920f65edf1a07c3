//! Counts, times and logs every call that is admitted, and answers INTERNAL for a handler that panics.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::FutureExt;
use http::{Request, Response};
use tonic::Code;
use tonic::body::Body;
use tower::Service;
use tracing::{Instrument, Level, Span};

use crate::admission::rpc::{Rpc, Work};
use crate::grpc::peer::Peer;
use crate::grpc::routes::Answer;
use crate::grpc::status;
use domain::access::Caller;

use super::access_log::{self, AccessLine};
use super::body::{WithEnd, with_details};
use super::deadline::client_timeout;
use super::instruments::Instruments;
use super::request_id::RequestId;

#[derive(Clone)]
pub struct Observing<S> {
    inner: S,
    instruments: Arc<Instruments>,
}

impl<S> Observing<S> {
    pub fn new(inner: S, instruments: Arc<Instruments>) -> Self {
        Self { inner, instruments }
    }
}

impl<S> Service<Request<Body>> for Observing<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answer>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        let call = Call::begin(self.instruments.clone(), &request);
        // A span costs as much as a short answer. Calls that answer from memory log nothing, unless they panic.
        let span = match call.rpc.work() {
            Work::Memory if !tracing::enabled!(Level::DEBUG) => Span::none(),
            _ => call.span(),
        };
        let answer = span.in_scope(|| self.inner.call(request));
        Box::pin(observed(answer, call).instrument(span))
    }
}

async fn observed(answer: Answer, mut call: Call) -> Result<Response<Body>, Infallible> {
    // The data that handlers share is intact after a panic because they only ever replace it as a whole.
    let response = match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(Ok(response)) => response,
        Err(panic) => {
            let span = Some(Span::current()).filter(|span| !span.is_none());
            span.unwrap_or_else(|| call.span())
                .in_scope(|| tracing::error!(panic = panic_message(&*panic), "a request ended with a panic"));
            status::internal().into_http()
        }
    };
    let (response, code) = status::with_details_and_code(response);
    // Answers from memory are checked by their handlers, so that these bodies stay as they are.
    let response = match call.rpc.work() {
        Work::Memory => response,
        _ => response.map(with_details),
    };
    Ok(match call.rpc.work() {
        Work::Stream if code == Code::Ok => {
            // It counts as CANCELLED unless it comes to its end.
            call.code = Some(Code::Cancelled);
            response.map(|rows| Body::new(WithEnd::new(rows, move |code| call.end(code))))
        }
        _ => {
            call.code = Some(code);
            response
        }
    })
}

/// A call under way. One that answers with a stream is under way until the stream ends. It is counted when it is dropped,
/// however it ends.
struct Call {
    instruments: Arc<Instruments>,
    rpc: Rpc,
    id: Option<RequestId>,
    caller: Option<Arc<Caller>>,
    client: Option<SocketAddr>,
    started: Instant,
    /// The client's own deadline.
    client_deadline: Option<Instant>,
    /// `None` until it is answered.
    code: Option<Code>,
}

impl Call {
    fn begin(instruments: Arc<Instruments>, request: &Request<Body>) -> Self {
        let (extensions, started) = (request.extensions(), Instant::now());
        instruments.in_flight.increment(1.0);
        Self {
            instruments,
            rpc: extensions
                .get()
                .copied()
                .unwrap_or_else(|| Rpc::at(request.uri().path())),
            id: extensions.get().cloned(),
            caller: extensions.get().cloned(),
            client: extensions.get::<Arc<Peer>>().map(|peer| peer.address()),
            started,
            client_deadline: client_timeout(request.headers()).and_then(|timeout| started.checked_add(timeout)),
            code: None,
        }
    }

    fn end(mut self, code: Code) {
        self.code = Some(code);
    }

    /// Returns the span of the call's log lines.
    fn span(&self) -> Span {
        tracing::info_span!(
            "rpc",
            method = self.rpc.name(),
            request_id = self.id.as_ref().and_then(RequestId::text).unwrap_or(""),
            caller = self.caller.as_ref().map(|caller| &*caller.name)
        )
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        // Without an answer the client has gone away: it gives up when its deadline passes, or sooner.
        let code = self.code.unwrap_or_else(|| {
            let is_late = self.client_deadline.is_some_and(|deadline| deadline <= Instant::now());
            match is_late {
                true => Code::DeadlineExceeded,
                false => Code::Cancelled,
            }
        });
        self.instruments.in_flight.decrement(1.0);
        self.instruments.latency(self.rpc, code).record(took.as_secs_f64());
        if access_log::is_logged(code) {
            let line = AccessLine {
                method: self.rpc.name(),
                code,
                caller: self.caller.as_ref().map(|caller| &*caller.name),
                client: self.client,
                request_id: self.id.as_ref().and_then(RequestId::text),
                took,
                refusal: None,
            };
            line.log();
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
