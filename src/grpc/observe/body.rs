//! The answers of a stream: the call that they belong to ends with them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

use super::Call;

/// A body that keeps its call under way until it has ended, or until nobody takes it any more.
pub struct Counted {
    rows: Body,
    /// `None` after the end.
    call: Option<Call>,
}

impl Counted {
    /// Until there is a status, the call counts as CANCELLED.
    pub fn new(rows: Body, mut call: Call) -> Self {
        call.answered(Code::Cancelled);
        Self { rows, call: Some(call) }
    }

    fn end(&mut self, code: Code) {
        if let Some(mut call) = self.call.take() {
            call.answered(code);
        }
    }
}

impl HttpBody for Counted {
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
