//! gRPC-Web, by which pages call the server from a browser, and CORS, by which a browser lets them. Both are off unless the
//! configuration turns them on.

mod origins;

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, CONTENT_TYPE, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use tonic::body::Body;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service};

use super::layers::{Held, IsTranslated};
use super::routes::Answer;

pub use self::origins::Origins;

/// How long a browser may remember the answer to a preflight request, in seconds.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("3600");
/// The headers of answers that pages may read.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin, grpc-encoding, x-request-id");
/// The headers of a request that its answer depends on, for caches.
const VARYING: HeaderValue = HeaderValue::from_static("origin, access-control-request-headers");

/// Serves gRPC, and gRPC-Web if it is on.
#[derive(Clone)]
pub struct Web<S> {
    grpc: S,
    /// `None` when gRPC-Web is off.
    translated: Option<(GrpcWebService<S>, Arc<Origins>)>,
}

impl<S: Clone> Web<S> {
    /// `origins`: whose pages may call from a browser; `None` turns gRPC-Web off.
    pub fn new(grpc: S, origins: Option<Origins>) -> Self {
        let translated = origins.map(|origins| (GrpcWebLayer::new().layer(grpc.clone()), Arc::new(origins)));
        Self { grpc, translated }
    }
}

impl<S> Service<Request<Body>> for Web<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future = Answer>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.grpc.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer {
        let Some((translated, origins)) = &mut self.translated else {
            return self.grpc.call(request);
        };
        if is_grpc(request.headers()) {
            return self.grpc.call(request);
        }
        let origin = request.headers().get(ORIGIN).and_then(|origin| origins.allowed(origin));
        if is_preflight(&request) {
            return Box::pin(ready(Ok(preflight_answer(request.headers(), origin))));
        }
        request.extensions_mut().insert(IsTranslated);
        let answer = translated.call(request);
        Box::pin(async move {
            let Ok(mut answer) = answer.await;
            let headers = answer.headers_mut();
            headers.insert(VARY, VARYING);
            if let Some(origin) = origin {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            }
            Ok(match answer.extensions_mut().remove::<Arc<Held>>() {
                Some(held) => held.until_sent(answer),
                None => answer,
            })
        })
    }
}

/// Whether it is a call of gRPC itself, which needs no translation.
fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = kind.and_then(|kind| kind.strip_prefix(GRPC));
    rest.is_some_and(|rest| !rest.starts_with(b"-web"))
}

/// Source: Fetch Standard, "CORS-preflight request".
fn is_preflight(request: &Request<Body>) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// `origin`: `None` for one whose pages may not call, which the browser learns from the absence of these headers.
fn preflight_answer(asked: &HeaderMap, origin: Option<HeaderValue>) -> Response<Body> {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    headers.insert(VARY, VARYING);
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS);
        // Any header may be metadata of a call.
        if let Some(asked) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
    }
    answer
}
