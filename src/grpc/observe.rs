//! Around every call: request id, span, time, metrics; who calls; the limit on concurrent requests and the time limit.

mod body;
mod instruments;

use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use http::{HeaderValue, Request, Response};
use tokio::runtime::Handle;
use tokio::time::error::Elapsed;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::{Instrument, Level, Span};

use self::body::Counted;
use self::instruments::Instruments;
use super::access::{Access, StreamAuthorization};
use super::method::{Method, Work};
use super::options::ServerOptions;
use super::slots::{Slot, Slots};
use super::status::{self, REQUEST_ID, code_name};
use domain::access::Caller;

/// The client's deadline: up to eight digits and a unit.
const GRPC_TIMEOUT: &str = "grpc-timeout";
/// Longest request id that is taken from a client.
const MAX_REQUEST_ID_BYTES: usize = 128;

#[derive(Clone)]
pub struct Observe {
    shared: Arc<Shared>,
}

struct Shared {
    instruments: Instruments,
    access: Access,
    /// Each kind apart, so that requests waiting for a slow database do not turn away those that need none, nor streams
    /// that wait for their client those that do not.
    from_memory: Arc<Slots>,
    from_database: Arc<Slots>,
    /// Streams of writes, which last as long as their client likes.
    ingest: Arc<Slots>,
    timeout: Duration,
    /// Where calls run that wait: what they wait for must not depend on how busy a serving thread is, nor end with it.
    background: Handle,
}

impl Observe {
    pub fn new(access: Access, options: &ServerOptions, background: Handle) -> Self {
        let limit = options.max_concurrent_requests;
        Self {
            shared: Arc::new(Shared {
                instruments: Instruments::default(),
                access,
                from_memory: Slots::new(limit),
                from_database: Slots::new(limit.min(options.max_concurrent_database_requests)),
                ingest: Slots::new(limit),
                timeout: Duration::from_millis(options.request_timeout_ms),
                background,
            }),
        }
    }
}

impl Shared {
    /// A place for the call, where it needs one; `None` when all are taken.
    fn slot(&self, work: Work) -> Option<Option<Slot>> {
        match work {
            Work::Memory => self.from_memory.take().map(Some),
            Work::Database => self.from_database.take().map(Some),
            Work::Ingest | Work::Stream => self.ingest.take().map(Some),
            Work::Protocol => Some(None),
        }
    }

    /// Our own limit.
    fn timeout(&self, work: Work) -> Option<Duration> {
        match work {
            Work::Memory | Work::Database => Some(self.timeout),
            Work::Ingest | Work::Stream | Work::Protocol => None,
        }
    }
}

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Observed<S> {
        Observed {
            inner,
            observe: self.clone(),
        }
    }
}

#[derive(Clone)]
pub struct Observed<S> {
    inner: S,
    observe: Observe,
}

impl<S> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let shared = &self.observe.shared;
        let method = Method::of(request.uri().path());
        let id = request_id(&request);
        let deadline = request
            .headers()
            .get(GRPC_TIMEOUT)
            .and_then(|timeout| parse_timeout(timeout.to_str().ok()?));
        let admission = match shared.access.admit(method, request.headers()) {
            Ok(admission) => admission,
            Err(status) => {
                shared.instruments.count_refused(method, status.code());
                return Box::pin(std::future::ready(Ok(with_id(status.into_http(), id))));
            }
        };
        let Some(slot) = shared.slot(method.work()) else {
            shared.instruments.count_shed(method);
            return Box::pin(std::future::ready(Ok(with_id(status::overloaded().into_http(), id))));
        };
        let timeout = shared.timeout(method.work()).into_iter().chain(deadline).min();
        // From now: tonic has its own timer for the client's deadline, made after this, which answers CANCELLED where the
        // contract says DEADLINE_EXCEEDED. It asks first whether the call has ended.
        let ends = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        if let Some(caller) = admission.caller.clone() {
            if matches!(method.work(), Work::Ingest | Work::Stream) {
                request
                    .extensions_mut()
                    .insert(StreamAuthorization::new(&shared.access, &caller));
            }
            request.extensions_mut().insert(caller);
        }
        let slots = [slot, admission.slot];
        let call = Call::begin(shared.clone(), method, id.clone(), admission.caller, ends, slots);
        // A span costs as much as a short answer. Of calls from memory nothing is logged, unless they panic.
        let span = match method.work() {
            Work::Memory if !tracing::enabled!(Level::DEBUG) => Span::none(),
            _ => call.span(),
        };
        // The clone that was polled ready serves this request; the new one serves the next.
        let ready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, ready);
        let answer = answer(inner, request, ends, call).instrument(span);
        match method.work() {
            Work::Memory | Work::Protocol => Box::pin(answer.map(|response| Ok(with_id(response, id)))),
            Work::Database | Work::Ingest | Work::Stream => {
                let answer = AbortOnDropHandle::new(shared.background.spawn(answer));
                // Here too: the other runtime's word could come after tonic's.
                Box::pin(until(ends, answer).map(move |answered| {
                    let response = match answered {
                        Ok(Ok(response)) => response,
                        // It has not panicked, so the process is ending.
                        Ok(Err(_)) => status::internal().into_http(),
                        Err(_) => detailed(status::deadline_exceeded().into_http()).0,
                    };
                    Ok(with_id(response, id))
                }))
            }
        }
    }
}

/// `work`, which is given up when it is not done by then.
async fn until<T>(ends: Option<Instant>, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    match ends {
        Some(ends) => tokio::time::timeout_at(ends.into(), work).await,
        None => Ok(work.await),
    }
}

async fn answer<S>(mut inner: S, request: Request<Body>, ends: Option<Instant>, mut call: Call) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    // What handlers share holds also after a panic: they only ever swap it as a whole.
    let handled = AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind();
    let response = match until(ends, handled).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Err(panic)) => {
            let span = Some(Span::current()).filter(|span| !span.is_none());
            span.unwrap_or_else(|| call.span())
                .in_scope(|| tracing::error!(panic = panic_message(&*panic), "a request ended with a panic"));
            status::internal().into_http()
        }
        Err(_) => status::deadline_exceeded().into_http(),
    };
    let (response, code) = detailed(response);
    call.answered(code);
    match call.method.work() {
        Work::Stream if code == Code::Ok => response.map(|rows| Body::new(Counted::new(rows, call))),
        _ => response,
    }
}

/// A call under way; one that answers with a stream is under way until its end. However it ends, it is counted: as
/// CANCELLED when its caller went away, as DEADLINE_EXCEEDED when its time had run out by then.
struct Call {
    shared: Arc<Shared>,
    method: Method,
    id: HeaderValue,
    caller: Option<Arc<Caller>>,
    started: Instant,
    ends: Option<Instant>,
    /// Once it is answered.
    code: Option<Code>,
    /// Of the server and of the caller's key.
    _slots: [Option<Slot>; 2],
}

impl Call {
    fn begin(
        shared: Arc<Shared>,
        method: Method,
        id: HeaderValue,
        caller: Option<Arc<Caller>>,
        ends: Option<Instant>,
        slots: [Option<Slot>; 2],
    ) -> Self {
        shared.instruments.in_flight.increment(1.0);
        Self {
            shared,
            method,
            id,
            caller,
            started: Instant::now(),
            ends,
            code: None,
            _slots: slots,
        }
    }

    /// What its lines in the log carry.
    fn span(&self) -> Span {
        tracing::info_span!(
            "rpc",
            method = self.method.name(),
            request_id = self.id.to_str().unwrap_or(""),
            caller = self.caller.as_ref().map(|caller| &*caller.name)
        )
    }

    fn answered(&mut self, code: Code) {
        self.code = Some(code);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        let is_late = self.ends.is_some_and(|ends| ends <= Instant::now());
        let code = self.code.unwrap_or(match is_late {
            true => Code::DeadlineExceeded,
            false => Code::Cancelled,
        });
        let instruments = &self.shared.instruments;
        instruments.in_flight.decrement(1.0);
        instruments.latency(self.method, code).record(took.as_secs_f64());
        tracing::debug!(
            code = code_name(code),
            took_us = took.as_micros() as u64,
            "request answered"
        );
    }
}

/// The response with the details of our contract, also where tonic made its status; and its code.
fn detailed(response: Response<Body>) -> (Response<Body>, Code) {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return (response, Code::Ok);
    };
    let code = status.code();
    if code == Code::Ok || !status.details().is_empty() {
        return (response, code);
    }
    let metadata = status.metadata().clone();
    let mut status = status::with_details(status);
    *status.metadata_mut() = metadata;
    let code = status.code();
    (status.into_http(), code)
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
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

fn with_id(mut response: Response<Body>, mut id: HeaderValue) -> Response<Body> {
    // Not to be remembered by the connection, where it would take the place of headers that come again.
    id.set_sensitive(true);
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn request_id(request: &Request<Body>) -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    /// Of this process: in containers all have the same process id.
    static PROCESS: LazyLock<String> =
        LazyLock::new(|| format!("{:016x}-", RandomState::new().build_hasher().finish()));
    let given = request
        .headers()
        .get(REQUEST_ID)
        .filter(|id| (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
    given.cloned().unwrap_or_else(|| {
        let mut text = String::with_capacity(PROCESS.len() + 16);
        text.push_str(&PROCESS);
        let mut number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Lowest digit first: nobody reads it as a number.
        loop {
            text.push(char::from(b"0123456789abcdef"[number as usize % 16]));
            number /= 16;
            if number == 0 {
                break;
            }
        }
        HeaderValue::try_from(text).unwrap_or_else(|_| unreachable!("hexadecimal digits are ASCII"))
    })
}

#[cfg(test)]
mod tests;
