//! Runs calls that wait for the database or for their client on the runtime of the process. What they wait for must not
//! depend on how busy a serving thread is, nor end with that thread. Calls that answer from memory stay on the thread of
//! their connection, which costs no wake-up of another one, unless their request is compressed.

use std::convert::Infallible;
use std::panic::resume_unwind;
use std::task::{Context, Poll};

use http::{HeaderMap, Request, Response};
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tower::Service;
use tracing::Instrument;

use crate::admission::rpc::{Rpc, Work};
use crate::grpc::routes::Answer;
use crate::grpc::status;

/// Decompressing a few bytes may take milliseconds.
fn is_compressed(headers: &HeaderMap) -> bool {
    const ENCODING: &str = "grpc-encoding";
    headers.get(ENCODING).is_some_and(|encoding| encoding != "identity")
}

#[derive(Clone)]
pub struct InBackground<S> {
    inner: S,
    runtime: Handle,
}

impl<S> InBackground<S> {
    pub fn new(inner: S, runtime: Handle) -> Self {
        Self { inner, runtime }
    }
}

impl<S> Service<Request<Body>> for InBackground<S>
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
        let work = request
            .extensions()
            .get::<Rpc>()
            .map_or(Work::Protocol, |rpc| rpc.work());
        let is_compressed = is_compressed(request.headers());
        let answer = self.inner.call(request);
        match work {
            Work::Memory | Work::Protocol | Work::ProtocolStream if !is_compressed => answer,
            Work::Memory | Work::Protocol | Work::ProtocolStream | Work::Database | Work::Ingest | Work::Stream => {
                let task = AbortOnDropHandle::new(self.runtime.spawn(answer.in_current_span()));
                Box::pin(async move {
                    match task.await {
                        Ok(answer) => answer,
                        Err(error) => match error.try_into_panic() {
                            Ok(panic) => resume_unwind(panic),
                            // The process is ending.
                            Err(_) => Ok(status::internal().into_http()),
                        },
                    }
                })
            }
        }
    }
}
