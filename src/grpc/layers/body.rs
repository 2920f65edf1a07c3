//! Bodies of answers: one that tells its end, and one whose call stays under way until its bytes have been sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use prost::bytes::Bytes;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::admission::Admission;
use crate::admission::concurrency_limit::Permit;
use crate::grpc::http::sending::{self, Sending};
use crate::grpc::peer::{UnderWay, UnsentBytes};
use crate::grpc::status;

/// Most bytes that are handed over for sending at a time. The connection takes them as a whole when the client takes one of
/// them, and what the connection has taken can no longer be reset alone.
const MAX_CHUNK_BYTES: usize = 16 * 1024;

/// Marks a call of gRPC-Web. Its answer is translated after the layers, so that only then it is known when its bytes are sent:
/// the layer `admission` leaves the `Arc<Held>` in the answer's extensions.
#[derive(Debug, Clone, Copy)]
pub struct IsTranslated;

/// A body that calls `at_end` with the stream's code at its end. It drops `at_end` without calling it when nobody takes
/// the rows any more.
pub struct WithEnd<F> {
    rows: Body,
    /// `None` after the end.
    at_end: Option<F>,
}

impl<F: FnOnce(Code)> WithEnd<F> {
    pub fn new(rows: Body, at_end: F) -> Self {
        Self {
            rows,
            at_end: Some(at_end),
        }
    }

    fn end(&mut self, code: Code) {
        if let Some(at_end) = self.at_end.take() {
            at_end(code);
        }
    }
}

impl<F: FnOnce(Code) + Unpin> HttpBody for WithEnd<F> {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.rows).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let code = Status::from_header_map(trailers).map_or(Code::Ok, |status| status.code());
                    self.end(code);
                }
            }
            Some(Err(status)) => self.end(status.code()),
            None => self.end(Code::Ok),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rows.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.rows.size_hint()
    }
}

/// Gives `body` the details of its status, where tonic has made that, as for a message that is too large to be sent.
pub fn with_details(body: Body) -> Body {
    Body::new(body.map_frame(|mut frame| {
        if let Some(trailers) = frame.trailers_mut() {
            status::with_details_in_trailers(trailers);
        }
        frame
    }))
}

/// Everything that a call takes up until its answer has been sent.
pub struct Held {
    _permits: (Admission, Option<Permit>),
    /// `None` where the server is not the process's own, as in tests of the layers.
    under_way: Option<Arc<UnderWay>>,
    is_stream: bool,
}

impl Held {
    pub fn new(permits: (Admission, Option<Permit>), under_way: Option<UnderWay>, is_stream: bool) -> Self {
        Self {
            _permits: permits,
            under_way: under_way.map(Arc::new),
            is_stream,
        }
    }

    /// Returns `answer`, whose call is held until its last byte has been sent or it is given up.
    pub fn until_sent(self: Arc<Self>, answer: Response<Body>) -> Response<Body> {
        if answer.body().is_end_stream() {
            return answer;
        }
        answer.map(|body| {
            Body::new(HeldBody {
                body,
                held: Some(self),
                rest: Bytes::new(),
            })
        })
    }
}

/// A body whose bytes hold their call: it ends when the last of them has been sent, not when the connection has taken it.
struct HeldBody {
    body: Body,
    /// `None` after the end of the body.
    held: Option<Arc<Held>>,
    /// Bytes that have not been handed over for sending.
    rest: Bytes,
}

/// Owns bytes while they wait to be sent.
struct HeldBytes {
    bytes: Bytes,
    _held: Arc<Held>,
    _unsent: Option<UnsentBytes>,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HeldBody {
    fn next_chunk(&mut self) -> Frame<Bytes> {
        sending::note(match &self.held {
            Some(held) if held.is_stream => Sending::Row,
            _ => Sending::Answer,
        });
        let bytes = self.rest.len().min(MAX_CHUNK_BYTES);
        Frame::data(self.rest.split_to(bytes))
    }
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.next_chunk())));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            sending::note(Sending::Waiting);
            return Poll::Pending;
        };
        let frame = match frame {
            Some(Ok(frame)) => frame.into_data(),
            end => {
                self.held = None;
                return Poll::Ready(end);
            }
        };
        match (frame, &self.held) {
            (Ok(bytes), Some(held)) => {
                self.rest = Bytes::from_owner(HeldBytes {
                    bytes,
                    _unsent: held.under_way.as_ref().map(UnderWay::begin_sending),
                    _held: held.clone(),
                });
                Poll::Ready(Some(Ok(self.next_chunk())))
            }
            (Ok(bytes), None) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            (Err(trailers), _) => {
                self.held = None;
                Poll::Ready(Some(Ok(trailers)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }
}
