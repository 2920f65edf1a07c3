//! The metrics of calls. Each is looked up once, because the registry of metrics has locks.

use std::sync::OnceLock;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tonic::Code;

use crate::admission::rpc::Rpc;
use crate::grpc::status::code_name;

/// The number of codes, from OK to UNAUTHENTICATED.
const CODES: usize = 17;

pub struct Instruments {
    pub in_flight: Gauge,
    shed: Counter,
    /// By RPC and code; each is made when it is first needed.
    latencies: [[OnceLock<Histogram>; CODES]; Rpc::COUNT],
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
    pub fn latency(&self, rpc: Rpc, code: Code) -> &Histogram {
        self.latencies[rpc.position()][code as usize]
            .get_or_init(|| histogram!("likemind_rpc_seconds", "method" => rpc.name(), "code" => code_name(code)))
    }

    /// Counts a call that was not admitted.
    pub fn count_refused(&self, rpc: Rpc, code: Code) {
        if code == Code::ResourceExhausted {
            self.shed.increment(1);
        }
        self.latency(rpc, code).record(0.0);
    }
}
