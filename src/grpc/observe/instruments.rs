//! The metrics of calls. Each is looked up once, for the registry of metrics has locks.

use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tonic::Code;

use crate::grpc::method::Method;
use crate::grpc::status::code_name;

/// OK to UNAUTHENTICATED.
const CODES: usize = 17;

pub struct Instruments {
    pub in_flight: Gauge,
    shed: Counter,
    /// By method and code, each made when it is first needed.
    latencies: [[OnceLock<Histogram>; CODES]; Method::COUNT],
}

impl Default for Instruments {
    fn default() -> Self {
        Self {
            in_flight: gauge!("likemind_rpc_in_flight"),
            shed: counter!("likemind_rpc_shed_total"),
            latencies: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
        }
    }
}

impl Instruments {
    pub fn latency(&self, method: Method, code: Code) -> &Histogram {
        self.latencies[method.at()][code as usize]
            .get_or_init(|| histogram!("likemind_rpc_seconds", "method" => method.name(), "code" => code_name(code)))
    }

    /// A call that was turned away because there were too many.
    pub fn count_shed(&self, method: Method) {
        self.count_refused(method, Code::ResourceExhausted);
    }

    /// A call that was turned away.
    pub fn count_refused(&self, method: Method, code: Code) {
        if code == Code::ResourceExhausted {
            self.shed.increment(1);
        }
        self.latency(method, code).record(0.0);
    }
}
