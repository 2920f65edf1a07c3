//! The `likemind` command.

use std::process::ExitCode;

/// Serves 4–9 % more requests than the system's allocator. It asks for no huge pages (`no_thp`), because 16 MB of an idle
/// server's were never used; a snapshot's arrays ask for their own (`recommender::snapshot::codec`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    likemind::cli::run()
}
