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
    /// Health and reflection, which stay reachable when everything else is turned away.
    Protocol,
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
}

/// An RPC that `proto/` declares.
struct Declared {
    name: &'static str,
    work: Work,
    roles: &'static [Role],
}

include!(concat!(env!("OUT_DIR"), "/rpcs.rs"));

/// The RPCs of services that every gRPC server has.
const PROTOCOLS: [&str; 4] = [
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Anyone may call an RPC that does not exist, to be told so.
static UNKNOWN: Rule = protocol("unknown");

const fn protocol(name: &'static str) -> Rule {
    Rule {
        name,
        work: Work::Protocol,
        callers: Callers::Anyone,
    }
}

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let declared = DECLARED.iter().map(|rpc| Rule {
        name: rpc.name,
        work: rpc.work,
        callers: Callers::Only(rpc.roles),
    });
    declared.chain(PROTOCOLS.map(protocol)).collect()
});

static RPCS: LazyLock<HashMap<&str, Rpc>> = LazyLock::new(|| {
    let rpc = |(position, rule): (usize, &'static Rule)| (rule.name, Rpc { position, rule });
    RULES.iter().enumerate().map(rpc).collect()
});

#[cfg(test)]
mod tests;
