use std::fmt::Write;
use std::path::Path;

use super::*;

#[test]
fn every_rpc_has_a_position_of_its_own() {
    let mut positions: Vec<usize> = RPCS.values().map(|rpc| rpc.position()).collect();
    positions.push(Rpc::at("/likemind.v1.RatingService/Other").position());
    positions.sort_unstable();
    assert!(positions.into_iter().eq(0..Rpc::COUNT));
    assert_eq!(Rpc::at("/likemind.v1.RatingService/Other").name(), "unknown");
    assert_eq!(Rpc::at("").name(), "unknown");
    let known = Rpc::at("/likemind.v1.RatingService/ListRatings");
    assert_eq!(known.name(), "likemind.v1.RatingService/ListRatings");
    assert_eq!(known.work(), Work::Database);
}

#[test]
fn an_admin_may_call_every_rpc() {
    for rpc in RPCS.values() {
        assert!(rpc.callers().include(Role::Admin), "{}", rpc.name());
    }
}

#[test]
fn only_protocols_are_for_anyone() {
    for rpc in RPCS.values() {
        let is_protocol = PROTOCOLS.iter().any(|&(name, _)| name == rpc.name());
        assert_eq!(rpc.callers() == Callers::Anyone, is_protocol, "{}", rpc.name());
        let takes_protocol = matches!(rpc.work(), Work::Protocol | Work::ProtocolStream);
        assert_eq!(takes_protocol, is_protocol, "{}", rpc.name());
    }
}

/// Set to 1, the environment's variable of this name writes the page instead of comparing it.
const UPDATE: &str = "LIKEMIND_UPDATE_DOCS";

const INTRODUCTION: &str = "\
# RPC roles

Every API key has one role. The tables below say which roles may call an RPC; to all others it answers PERMISSION_DENIED
(ROLE_NOT_ALLOWED). A call without a key is answered UNAUTHENTICATED, unless the server admits it as an admin: with
`server.allow_unauthenticated`, or on a loopback address until the first key is made. A key of one merchant sees only that
merchant's campaigns and items.

*Takes up* says which limit on requests under way applies. `server.max_concurrent_requests` limits each kind on its own, and
`server.max_concurrent_database_requests` further limits RPCs that take up the database. While the database is away, RPCs
that take up memory go on; all others answer UNAVAILABLE.

This page is generated from `proto/likemind/v1/`, where the option `access` of each RPC names the roles and the source of
the answer. The server reads them from there too. After a change write the page anew:

```
LIKEMIND_UPDATE_DOCS=1 cargo test --lib the_page_of_roles_follows_the_protos
```
";

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut service = "";
    for rpc in &DECLARED {
        let (of, name) = rpc.name.split_once('/').unwrap();
        let of = of.strip_prefix("likemind.v1.").unwrap();
        if of != service {
            service = of;
            let roles = Role::ALL.map(Role::as_str).join(" | ");
            let columns = "|---".repeat(Role::ALL.len() + 2);
            writeln!(page, "\n## {service}\n\n| RPC | takes up | {roles} |\n{columns}|").unwrap();
        }
        let work = match rpc.work {
            Work::Memory => "memory",
            Work::Database => "database",
            Work::Ingest => "a stream of writes",
            Work::Stream => "a stream of answers",
            Work::Protocol | Work::ProtocolStream => unreachable!("{} is declared", rpc.name),
        };
        write!(page, "| {name} | {work} |").unwrap();
        for role in Role::ALL {
            let mark = if rpc.roles.contains(&role) { "yes" } else { "" };
            write!(page, " {mark} |").unwrap();
        }
        page.push('\n');
    }
    page
}

#[test]
fn the_page_of_roles_follows_the_protos() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rpc-roles.md");
    if std::env::var_os(UPDATE).is_some_and(|value| value == "1") {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page(),
        "docs/rpc-roles.md does not say what the protos say; run \
         `{UPDATE}=1 cargo test --lib the_page_of_roles_follows_the_protos` and commit it"
    );
}
