//! The RPCs by name: what a call takes up, and who may call. For our own RPCs both stand in `proto/`, in the option
//! `access` of each. `build.rs` makes the table from it.

use std::collections::HashMap;
use std::sync::LazyLock;

use domain::access::Role;

/// An RPC of the server, or the one value for every name that the server does not have. Names come from outside and every
/// metric label is kept, so that unknown names must not become labels.
#[derive(Debug, Clone, Copy)]
pub struct Rpc {
    /// In [`RPCS`]; its length stands for all unknown names.
    position: usize,
    rule: &'static Rule,
}

#[derive(Debug)]
struct Rule {
    name: &'static str,
    work: Work,
    callers: Callers,
    max_request_bytes: usize,
}

/// Which resource a call takes up while it is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Answers from memory.
    Memory,
    /// Waits for the database.
    Database,
    /// Reads a stream of writes, for as long as the client likes.
    Ingest,
    /// Answers row by row, as fast as the client takes them.
    Stream,
    /// Health, which stays reachable when everything else is turned away, and RPCs that do not exist.
    Protocol,
    /// The streams of health and reflection.
    ProtocolStream,
}

impl Work {
    /// Whether the answer may come in parts, with pauses of any length between them.
    pub fn answers_with_stream(self) -> bool {
        match self {
            Self::Stream | Self::ProtocolStream => true,
            Self::Memory | Self::Database | Self::Ingest | Self::Protocol => false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callers {
    /// Everybody, also without a key.
    Anyone,
    Only(&'static [Role]),
}

impl Callers {
    pub fn include(self, role: Role) -> bool {
        match self {
            Self::Anyone => true,
            Self::Only(roles) => roles.contains(&role),
        }
    }
}

impl Rpc {
    /// The number of values that [`Self::position`] can have.
    pub const COUNT: usize = DECLARED.len() + PROTOCOLS.len() + 1;

    /// `path`: `/package.Service/Method`.
    pub fn at(path: &str) -> Self {
        let name = path.strip_prefix('/').unwrap_or(path);
        RPCS.get(name).copied().unwrap_or(Self {
            position: Self::COUNT - 1,
            rule: &UNKNOWN,
        })
    }

    pub fn position(self) -> usize {
        self.position
    }

    /// `package.Service/Method`.
    pub fn name(self) -> &'static str {
        self.rule.name
    }

    pub fn work(self) -> Work {
        self.rule.work
    }

    pub fn callers(self) -> Callers {
        self.rule.callers
    }

    /// Returns the size of the largest request message, after decompression.
    pub fn max_request_bytes(self) -> usize {
        self.rule.max_request_bytes
    }
}

/// An RPC that `proto/` declares.
struct Declared {
    name: &'static str,
    work: Work,
    roles: &'static [Role],
    max_request_bytes: usize,
}

include!(concat!(env!("OUT_DIR"), "/rpcs.rs"));

/// The RPCs of services that every gRPC server has.
const PROTOCOLS: [(&str, Work); 4] = [
    ("grpc.health.v1.Health/Check", Work::Protocol),
    ("grpc.health.v1.Health/Watch", Work::ProtocolStream),
    (
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Work::ProtocolStream,
    ),
    (
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Work::ProtocolStream,
    ),
];

/// Anyone may call an RPC that does not exist, to be told so.
static UNKNOWN: Rule = protocol(("unknown", Work::Protocol));

const fn protocol((name, work): (&'static str, Work)) -> Rule {
    Rule {
        name,
        work,
        callers: Callers::Anyone,
        max_request_bytes: 64 * 1024,
    }
}

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let declared = DECLARED.iter().map(|rpc| Rule {
        name: rpc.name,
        work: rpc.work,
        callers: Callers::Only(rpc.roles),
        max_request_bytes: rpc.max_request_bytes,
    });
    declared.chain(PROTOCOLS.map(protocol)).collect()
});

static RPCS: LazyLock<HashMap<&str, Rpc>> = LazyLock::new(|| {
    let rpc = |(position, rule): (usize, &'static Rule)| (rule.name, Rpc { position, rule });
    RULES.iter().enumerate().map(rpc).collect()
});

#[cfg(test)]
mod tests;
