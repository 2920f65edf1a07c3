//! Applies `crate::admission` to calls: refuses them with a status, or tells the handler who calls.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;

use crate::admission::capacity::Overloaded;
use crate::admission::concurrency_limit::Permit;
use crate::admission::rpc::{Rpc, Work};
use crate::admission::{Access, StreamAuthorization};
use crate::grpc::peer::Peer;
use crate::grpc::routes::Answer;
use crate::grpc::status;

use super::access_log::{self, AccessLine};
use super::body::{Held, IsTranslated};
use super::instruments::Instruments;
use super::request_id::RequestId;

/// Most bytes of the headers of a call, counted as HTTP/2 counts them.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Puts into the request's extensions the [`Rpc`], the `Arc<Caller>` and, for a stream, its [`StreamAuthorization`].
#[derive(Clone)]
pub struct Admitting<S> {
    inner: S,
    access: Access,
    instruments: Arc<Instruments>,
}

impl<S> Admitting<S> {
    pub fn new(inner: S, access: Access, instruments: Arc<Instruments>) -> Self {
        Self {
            inner,
            access,
            instruments,
        }
    }
}

impl<S> Admitting<S> {
    fn refuse(&self, request: &Request<Body>, rpc: Rpc, status: Status) -> Answer {
        self.instruments.count_refused(rpc, status.code());
        if access_log::is_logged(status.code()) {
            self.log_refused(request, rpc, status.code(), status.message());
        }
        Box::pin(ready(Ok(status.into_http())))
    }

    fn log_refused(&self, request: &Request<Body>, rpc: Rpc, code: Code, reason: &str) {
        let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let caller = authorization.and_then(|authorization| self.access.known_caller(authorization));
        let extensions = request.extensions();
        let line = AccessLine {
            method: rpc.name(),
            code,
            caller: caller.as_ref().map(|caller| &*caller.name),
            client: extensions.get::<Arc<Peer>>().map(|peer| peer.address()),
            request_id: extensions.get().and_then(RequestId::text),
            // It is refused at once.
            took: Duration::ZERO,
            refusal: Some(reason),
        };
        line.log();
    }
}

impl<S> Service<Request<Body>> for Admitting<S>
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
        let rpc = Rpc::at(request.uri().path());
        let header_bytes = header_bytes(request.headers());
        if header_bytes > MAX_HEADER_BYTES {
            return self.refuse(&request, rpc, status::headers_too_large(header_bytes, MAX_HEADER_BYTES));
        }
        let peer = request.extensions().get::<Arc<Peer>>();
        let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let admission = match open_permit(peer, rpc.work()) {
            Ok(permit) => self
                .access
                .admit(rpc, authorization)
                .map(|admission| (admission, permit)),
            Err(refusal) => Err(refusal.into()),
        };
        let (admission, permit) = match admission {
            Ok(admission) => admission,
            Err(refusal) => return self.refuse(&request, rpc, refusal.into()),
        };
        let under_way = peer.map(Peer::begin);
        let extensions = request.extensions_mut();
        extensions.insert(rpc);
        if let Some(caller) = &admission.caller {
            if matches!(rpc.work(), Work::Ingest | Work::Stream) {
                extensions.insert(StreamAuthorization::new(&self.access, caller));
            }
            extensions.insert(caller.clone());
        }
        let is_translated = extensions.get::<IsTranslated>().is_some();
        let held = Held::new((admission, permit), under_way, rpc.work().answers_with_stream());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Ok(mut response) = answer.await;
            let held = Arc::new(held);
            if is_translated {
                response.extensions_mut().insert(held);
                return Ok(response);
            }
            // Slots are taken until the client has taken the answer, or else answers that nobody reads would have no limit.
            Ok(held.until_sent(response))
        })
    }
}

/// Takes the permit of the connection for a call that needs no key.
fn open_permit(peer: Option<&Arc<Peer>>, work: Work) -> Result<Option<Permit>, Overloaded> {
    let limit = match (peer, work) {
        (Some(peer), Work::Protocol) => &peer.open_calls,
        (Some(peer), Work::ProtocolStream) => &peer.open_streams,
        _ => return Ok(None),
    };
    limit.take().map(Some).ok_or(Overloaded)
}

/// Source: RFC 9113, 6.5.2, SETTINGS_MAX_HEADER_LIST_SIZE.
fn header_bytes(headers: &HeaderMap) -> usize {
    const EACH: usize = 32;
    let bytes = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + EACH;
    headers.iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use http_body::{Body as HttpBody, Frame};
    use tonic::codegen::Bytes;
    use tower::service_fn;

    use super::super::tests::access;
    use super::*;
    use crate::grpc::options::ServerOptions;

    /// A stream that ends without a row, which shows only when it is read.
    struct NoRows;

    impl HttpBody for NoRows {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(None)
        }
    }

    #[tokio::test]
    async fn a_stream_is_under_way_until_its_end() {
        let options = ServerOptions {
            max_concurrent_requests: 1,
            ..ServerOptions::default()
        };
        let access = access(&options);
        let rows = service_fn(|_| -> Answer { Box::pin(ready(Ok(Response::new(Body::new(NoRows))))) });
        let mut admitting = Admitting::new(rows, access.clone(), Arc::default());
        let mut begin = async || {
            let mut request = Request::new(Body::empty());
            *request.uri_mut() = "/likemind.v1.CouponService/StreamCouponTargets".parse().unwrap();
            let Ok(response) = admitting.call(request).await;
            assert!(
                Status::from_header_map(response.headers()).is_none(),
                "the permit has not come back"
            );
            assert!(access.capacity.take(Work::Stream).is_err());
            response.into_body()
        };
        let mut read_to_its_end = begin().await;
        let frame = std::future::poll_fn(|context| Pin::new(&mut read_to_its_end).poll_frame(context)).await;
        assert!(frame.is_none());
        drop(begin().await);
        begin().await;
    }
}
