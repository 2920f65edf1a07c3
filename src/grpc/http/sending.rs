//! Resets a call whose answer the client does not take.
//!
//! hyper drives a call with a future that first waits for the handler, and then asks the answer's body for its next bytes
//! whenever the client has room. While it has none the body is not asked, so that no timer of the body runs. The future is
//! therefore wrapped in [`SentInTime`], which the body tells what it has done by a variable of the thread.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::{Sleep, sleep};

/// The last thing that the body of an answer has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sending {
    /// It waits for its handler.
    Waiting,
    /// It has handed over some of its bytes.
    Answer,
    /// It has handed over some of its bytes, and is a stream: a client has the whole time for each of them.
    Row,
}

thread_local! {
    /// The last [`Sending`] that was noted since the future of a call was last polled.
    static NOTED: Cell<Option<Sending>> = const { Cell::new(None) };
}

/// Notes what the body of the present call has done.
pub fn note(sending: Sending) {
    NOTED.set(Some(sending));
}

/// Runs the calls of HTTP/2 connections, and resets those whose answer is not taken in time.
#[derive(Debug, Clone, Copy)]
pub struct SentInTime {
    /// Longest time for the client to take an answer, or a row of a stream.
    pub timeout: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for SentInTime {
    fn execute(&self, call: F) {
        let timeout = self.timeout;
        tokio::spawn(async move {
            let mut call = pin!(call);
            let mut timer: Option<Pin<Box<Sleep>>> = None;
            poll_fn(|context| {
                NOTED.set(None);
                if call.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                match NOTED.take() {
                    Some(Sending::Waiting) => timer = None,
                    Some(Sending::Row) => timer = Some(Box::pin(sleep(timeout))),
                    Some(Sending::Answer) => {
                        timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
                    }
                    None => {}
                }
                // Dropping the call resets its stream.
                timer
                    .as_mut()
                    .map_or(Poll::Pending, |timer| timer.as_mut().poll(context))
            })
            .await;
        });
    }
}
