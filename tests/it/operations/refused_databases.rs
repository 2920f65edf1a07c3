//! Messages about a database that refuses, or is no PostgreSQL. None shows the password.

use crate::support::metrics::free_port;
use crate::support::program::{Program, command_at, output};

#[test]
fn a_refused_connection_is_named_and_its_password_is_not() {
    let port = free_port().port();
    let url = format!("postgres://me:s3cret@127.0.0.1:{port}/x");
    let quick = "--set-config=database.acquire_timeout_ms=100";
    let shown = format!("postgres://me:[redacted]@127.0.0.1:{port}/x");
    for args in [&["migrate"][..], &["train"], &["keys", "list"]] {
        let args = [args, &[quick]].concat();
        let output = output(&mut command_at(&url, &args));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains("Connection refused") && error.contains(&shown),
            "{error}"
        );
        assert!(
            !error.contains("s3cret") && !error.contains("pool timed out"),
            "{error}"
        );
        assert_eq!(error.matches("Connection refused").count(), 1, "{error}");
    }
    let mut server = Program::start(&mut command_at(&url, &["serve", "--listen=127.0.0.1:0", quick]));
    let warning = server.wait_for_log("when the database is available");
    assert!(
        warning.contains("WARN") && warning.contains("Connection refused"),
        "{warning}"
    );
    assert!(!server.log().contains("s3cret"), "{}", server.log());
}

#[test]
fn another_kind_of_database_is_refused_by_name() {
    for (url, part) in [
        ("mysql://me:s3cret@db/x", "mysql://"),
        ("me:s3cret@db/x", "postgres://user:password@host:port/database"),
    ] {
        let output = output(&mut command_at(url, &["migrate"]));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("database.url") && error.contains(part), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn arguments_that_are_refused_are_quoted_without_their_password() {
    let url = "postgres://me:s3cret@db/x";
    for args in [
        ["migrate", url],
        ["migrate", &format!("--database-urls={url}")],
        ["--set-config", url],
    ] {
        let output = output(&mut command_at("postgres://unused/x", &args));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains("error:") && !error.contains("s3cret"), "{error}");
    }
}
