//! Every call has an id. The client's own is kept if it is printable; else the server makes one. The id is part of every
//! log line of the call, and goes back with the answer.

use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tower::Service;

use crate::grpc::routes::Answer;
use crate::grpc::status::REQUEST_ID;

/// Longest id that is taken from a client.
pub const MAX_REQUEST_ID_BYTES: usize = 128;

/// The id of a call. This layer puts it into the request's extensions.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// Returns the id, which is always text.
    pub fn text(&self) -> Option<&str> {
        self.0.to_str().ok()
    }
}

#[derive(Clone)]
pub struct RequestIds<S> {
    inner: S,
}

impl<S> RequestIds<S> {
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S> Service<Request<Body>> for RequestIds<S>
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
        let mut id = client_id(&request).unwrap_or_else(new_id);
        request.extensions_mut().insert(RequestId(id.clone()));
        // A sensitive header is not remembered by the connection, where it would take the place of headers that come again.
        id.set_sensitive(true);
        let answer = self.inner.call(request);
        Box::pin(answer.map(|answer| {
            answer.map(|mut response| {
                response.headers_mut().insert(REQUEST_ID, id);
                response
            })
        }))
    }
}

fn client_id(request: &Request<Body>) -> Option<HeaderValue> {
    let id = request.headers().get(REQUEST_ID)?;
    let is_printable = (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    is_printable.then(|| id.clone())
}

fn new_id() -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    /// Tells processes apart: in containers they may all have the same process id.
    static PROCESS: LazyLock<String> =
        LazyLock::new(|| format!("{:016x}-", RandomState::new().build_hasher().finish()));
    let mut text = String::with_capacity(PROCESS.len() + 16);
    text.push_str(&PROCESS);
    let mut number = NEXT.fetch_add(1, Ordering::Relaxed);
    // The lowest digit comes first, which is faster, and nobody reads the id as a number.
    loop {
        text.push(char::from(b"0123456789abcdef"[number as usize % 16]));
        number /= 16;
        if number == 0 {
            break;
        }
    }
    HeaderValue::try_from(text).unwrap_or_else(|_| unreachable!("hexadecimal digits are ASCII"))
}
