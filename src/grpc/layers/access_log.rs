//! Writes a line of the log for every call that ends, whoever made it and however it ended.

use std::net::SocketAddr;
use std::time::Duration;

use tonic::Code;
use tracing::Level;

use crate::grpc::status::code_name;

/// The facts of one call that has ended. It holds nothing of the request, and no key.
#[derive(Debug)]
pub struct AccessLine<'a> {
    pub method: &'static str,
    pub code: Code,
    /// The name of the caller's key; `None` while it is not known who calls.
    pub caller: Option<&'a str>,
    pub client: Option<SocketAddr>,
    pub request_id: Option<&'a str>,
    pub took: Duration,
    /// Why the call was not admitted.
    pub refusal: Option<&'a str>,
}

/// Returns whether a call that ends with `code` is logged.
pub fn is_logged(code: Code) -> bool {
    match is_refused_caller(code) {
        true => tracing::enabled!(Level::INFO),
        false => tracing::enabled!(Level::DEBUG),
    }
}

/// A refused caller is logged at the level info, so that attempts show. All other calls are logged at debug: there are many,
/// and most of those that a busy server turns away.
fn is_refused_caller(code: Code) -> bool {
    matches!(code, Code::Unauthenticated | Code::PermissionDenied)
}

impl AccessLine<'_> {
    /// The line stands outside of the call's span, which holds some of the same facts.
    pub fn log(&self) {
        macro_rules! log_call {
            ($level:expr) => {
                tracing::event!(
                    parent: None,
                    $level,
                    method = self.method,
                    code = code_name(self.code),
                    caller = self.caller,
                    client = self.client.map(tracing::field::display),
                    request_id = self.request_id,
                    took_us = self.took.as_micros() as u64,
                    reason = self.refusal,
                    "call ended"
                )
            };
        }
        match is_refused_caller(self.code) {
            true => log_call!(Level::INFO),
            false => log_call!(Level::DEBUG),
        }
    }
}
