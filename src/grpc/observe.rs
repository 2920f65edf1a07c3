//! Around every call: request id, span, time, metrics; the limit on concurrent requests and the time limit.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, Response};
use metrics::{counter, gauge, histogram};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument;

use super::status;

/// Given by the client or made here; sent back, and part of every log line of the request.
const REQUEST_ID: &str = "x-request-id";
/// The client's deadline: up to eight digits and a unit.
const GRPC_TIMEOUT: &str = "grpc-timeout";
/// Longest request id that is taken from a client.
const MAX_REQUEST_ID_BYTES: usize = 128;

#[derive(Clone)]
pub struct Observe {
    slots: Arc<Semaphore>,
    timeout: Duration,
}

impl Observe {
    pub fn new(max_concurrent_requests: usize, timeout: Duration) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(max_concurrent_requests.min(Semaphore::MAX_PERMITS))),
            timeout,
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
        let method = Method::of(request.uri().path());
        let id = request_id(&request);
        // Taken from the request: tonic would answer CANCELLED where the contract says DEADLINE_EXCEEDED.
        let deadline = request.headers_mut().remove(GRPC_TIMEOUT).and_then(|timeout| parse_timeout(timeout.to_str().ok()?));
        let permit = match method.is_shed() {
            true => self.observe.slots.clone().try_acquire_owned().ok(),
            false => None,
        };
        if method.is_shed() && permit.is_none() {
            counter!("likemind_rpc_shed_total").increment(1);
            record(&method, Code::ResourceExhausted, Duration::ZERO);
            return Box::pin(std::future::ready(Ok(with_id(status::overloaded().into_http(), id))));
        }
        // The clone that was polled ready serves this request; the new one serves the next.
        let ready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, ready);
        let span = tracing::info_span!("rpc", method = method.name(), request_id = id.to_str().unwrap_or(""));
        let own = (!method.is_stream()).then_some(self.observe.timeout);
        let timeout = own.into_iter().chain(deadline).min();
        Box::pin(observed(inner, request, method, id, timeout, permit).instrument(span))
    }
}

async fn observed<S>(
    mut inner: S,
    request: Request<Body>,
    method: Method,
    id: HeaderValue,
    timeout: Option<Duration>,
    permit: Option<OwnedSemaphorePermit>,
) -> Result<Response<Body>, Infallible>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    let started = Instant::now();
    let in_flight = gauge!("likemind_rpc_in_flight");
    in_flight.increment(1.0);
    let call = inner.call(request);
    let result = match timeout {
        Some(timeout) => match tokio::time::timeout(timeout, call).await {
            Ok(result) => result,
            Err(_) => Ok(Status::deadline_exceeded("the request took longer than its deadline").into_http()),
        },
        None => call.await,
    };
    in_flight.decrement(1.0);
    drop(permit);
    let Ok(response) = result;
    let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
    let took = started.elapsed();
    record(&method, code, took);
    let took_us = took.as_micros() as u64;
    match code {
        Code::Internal | Code::Unknown | Code::DataLoss => tracing::error!(?code, took_us, "request failed"),
        _ => tracing::debug!(?code, took_us, "request answered"),
    }
    Ok(with_id(response, id))
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

fn record(method: &Method, code: Code, took: Duration) {
    histogram!("likemind_rpc_seconds", "method" => method.name(), "code" => code_name(code)).record(took.as_secs_f64());
}

fn with_id(mut response: Response<Body>, id: HeaderValue) -> Response<Body> {
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn request_id(request: &Request<Body>) -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let given = request.headers().get(REQUEST_ID).filter(|id| {
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        let sequence = NEXT.fetch_add(1, Ordering::Relaxed);
        let text = format!("{:08x}-{sequence:x}", std::process::id());
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("-"))
    })
}

/// An RPC that we have, or the one name for all that we do not have: paths come from outside, and every label is kept.
enum Method {
    Known(&'static str),
    Unknown,
}

impl Method {
    fn of(path: &str) -> Self {
        let known = METHODS.iter().find(|known| **known == path.trim_start_matches('/'));
        known.map_or(Self::Unknown, |known| Self::Known(known))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Known(name) => name,
            Self::Unknown => "unknown",
        }
    }

    /// Health and reflection stay reachable when everything else is turned away.
    fn is_shed(&self) -> bool {
        matches!(self, Self::Known(name) if name.starts_with("likemind."))
    }

    fn is_stream(&self) -> bool {
        matches!(self, Self::Known(name) if name.contains("/Ingest") || !name.starts_with("likemind."))
    }
}

const METHODS: [&str; 22] = [
    "likemind.v1.CatalogService/UpsertMerchants",
    "likemind.v1.CatalogService/UpsertItems",
    "likemind.v1.CatalogService/GetItem",
    "likemind.v1.CatalogService/ListItems",
    "likemind.v1.RatingService/UpsertRatings",
    "likemind.v1.RatingService/IngestRatings",
    "likemind.v1.RatingService/ListRatings",
    "likemind.v1.RatingService/DeleteRating",
    "likemind.v1.PurchaseService/RecordPurchases",
    "likemind.v1.PurchaseService/IngestPurchases",
    "likemind.v1.PurchaseService/ListPurchases",
    "likemind.v1.RecommendationService/PredictRatings",
    "likemind.v1.RecommendationService/Recommend",
    "likemind.v1.RecommendationService/ListSimilarItems",
    "likemind.v1.ModelService/ListSnapshots",
    "likemind.v1.ModelService/GetSnapshot",
    "likemind.v1.ModelService/ActivateSnapshot",
    "likemind.v1.ModelService/RollbackSnapshot",
    "likemind.v1.ModelService/GetServingStatus",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
];

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
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

    #[test]
    fn every_rpc_has_a_name_of_its_own() {
        let pool = prost_reflect::DescriptorPool::decode(crate::grpc::proto::DESCRIPTORS).unwrap();
        for service in pool.services() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                assert!(matches!(Method::of(&path), Method::Known(_)), "{path} is missing in METHODS");
                assert_eq!(Method::of(&path).is_stream(), method.is_client_streaming(), "{path}");
            }
        }
        assert!(matches!(Method::of("/likemind.v1.RatingService/Other"), Method::Unknown));
    }
}
