//! The layers around every call, one file each. From the outermost inward:
//!
//! 1. `request_id` gives the call an id and sends it back.
//! 2. `admission` finds out who calls and refuses what may not be called or is too much.
//! 3. `telemetry` counts, times and logs the call, and answers for a handler that panics.
//! 4. `deadline` ends the call when its time has run out.
//! 5. `background` runs calls that wait on the runtime of the process.
//!
//! A layer calls the next one at once and only then returns its future, so that all of them see the call when it arrives.

mod access_log;
mod admission;
mod background;
mod body;
pub(in crate::grpc) mod deadline;
mod instruments;
mod request_id;
mod telemetry;

use std::sync::Arc;

use tokio::runtime::Handle;
use tower::Layer;

use crate::admission::Access;

use self::admission::Admitting;
use self::background::InBackground;
pub use self::body::{Held, IsTranslated};
use self::deadline::Deadlines;
use self::instruments::Instruments;
use self::request_id::RequestIds;
use self::telemetry::Observing;

#[derive(Clone)]
pub struct Layers {
    access: Access,
    instruments: Arc<Instruments>,
    timeout_ms: u64,
    background: Handle,
}

impl Layers {
    /// `timeout_ms`: for calls that are no streams. `background`: the runtime for calls that wait.
    pub fn new(access: Access, timeout_ms: u64, background: Handle) -> Self {
        Self {
            access,
            instruments: Arc::default(),
            timeout_ms,
            background,
        }
    }
}

impl<S> Layer<S> for Layers {
    type Service = RequestIds<Admitting<Observing<Deadlines<InBackground<S>>>>>;

    fn layer(&self, services: S) -> Self::Service {
        let in_background = InBackground::new(services, self.background.clone());
        let deadlines = Deadlines::new(in_background, self.timeout_ms);
        let observing = Observing::new(deadlines, self.instruments.clone());
        let admitting = Admitting::new(observing, self.access.clone(), self.instruments.clone());
        RequestIds::new(admitting)
    }
}

#[cfg(test)]
mod tests;
