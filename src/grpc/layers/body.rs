//! The rows of an answer that is a stream. The call is under way until they end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

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
