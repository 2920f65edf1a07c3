# `just` lists the recipes. `.ci/run` is everything that a change has to pass.

_default:
    @{{just_executable()}} --list

# Format, lints and documentation: fast answers while editing
check:
    cargo fmt --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps

# All tests, or those whose names contain FILTER
test FILTER="":
    cargo test {{FILTER}}

# A benchmark suite of benches/, such as `just bench access`, on a release build
bench SUITE *ARGS:
    cargo build --release --bins --benches
    benches/{{SUITE}}.py {{ARGS}}

# Rewrite .sqlx/ after a change of a query or a migration
sqlx:
    tools/with-database cargo sqlx prepare -- --all-targets

# Everything that a change has to pass
ci:
    .ci/run
