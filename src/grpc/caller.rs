//! The caller of a request, as the layer `admission` has attached it.

use std::sync::Arc;
use std::time::Instant;

use tonic::{Request, Status};

use crate::admission::StreamAuthorization;
use domain::access::Caller;

use super::layers::deadline::Ends;
use super::status;

/// Returns who makes this call.
///
/// # Errors
/// INTERNAL for a call that has not come through admission.
pub fn caller<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
    attached(request)
}

/// Returns what a stream checks its caller's key with.
///
/// # Errors
/// INTERNAL for a call that has not come through admission.
pub fn stream_authorization<T>(request: &Request<T>) -> Result<StreamAuthorization, Status> {
    attached(request)
}

/// Returns when the time of this call runs out, if it is limited.
pub fn ends<T>(request: &Request<T>) -> Option<Instant> {
    request.extensions().get().map(|Ends(ends)| *ends)
}

fn attached<T, A: Clone + Send + Sync + 'static>(request: &Request<T>) -> Result<A, Status> {
    request.extensions().get::<A>().cloned().ok_or_else(|| {
        tracing::error!("a call has reached its handler without admission");
        status::internal()
    })
}
