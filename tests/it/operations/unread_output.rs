//! Commands whose output nobody reads, or cannot be written.

use std::fs::OpenOptions;
use std::io::pipe;
use std::process::Stdio;

use crate::support::databases;
use crate::support::program::{command, output};

/// Returns the writing end of a pipe that nobody reads.
fn closed() -> Stdio {
    pipe().unwrap().1.into()
}

#[tokio::test]
async fn commands_do_their_work_when_nobody_reads_what_they_print() {
    let database = databases::example().await;
    for args in [
        &["snapshots", "list"][..],
        &["snapshots", "list", "--json"],
        &["snapshots", "show", "1"],
        &["migrate"],
        &["train", "--force=a test"],
        &["evaluate"],
        &["keys", "create", "--role=service"],
        &["keys", "list"],
        &["config"],
        &["config", "--json"],
        &["call"],
        &["synth", "--scale=0.001"],
        &["--help"],
    ] {
        let output = output(command(&database, args).stdout(closed()));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {error}");
        assert!(!error.contains("panicked"), "{args:?}: {error}");
        let both = command(&database, args)
            .stdout(closed())
            .stderr(closed())
            .status()
            .unwrap();
        assert_eq!(both.code(), Some(0), "{args:?}, without standard error");
    }
}

#[tokio::test]
async fn output_that_cannot_be_written_is_a_failure() {
    let database = databases::example().await;
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = output(command(&database, &["snapshots", "list"]).stdout(full));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("No space left") && !error.contains("panicked"),
        "{error}"
    );
}
