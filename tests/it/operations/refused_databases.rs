//! Messages about a database that refuses, or is no PostgreSQL. None shows the password.

use crate::support::metrics::free_port;
use crate::support::postgres::{TestDatabase, execute};
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

#[tokio::test]
async fn what_the_database_refuses_is_said_once_and_in_its_words() {
    let database = TestDatabase::create().await;
    let create_role = "CREATE ROLE without_rights LOGIN PASSWORD 's3cret'";
    execute(&mut database.connect().await, create_role).await;
    let (user, location) = database.url().rsplit_once('@').unwrap();
    let (server, _) = location.rsplit_once('/').unwrap();
    for (url, part) in [
        (
            format!("postgres://without_rights:s3cret@{location}"),
            "permission denied for table _sqlx_migrations (SQLSTATE 42501)",
        ),
        (
            format!("{user}@{server}/none"),
            "database \"none\" does not exist (SQLSTATE 3D000)",
        ),
        (
            format!("{user}@{location}?sslmode=always"),
            "sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full, is always",
        ),
    ] {
        let output = output(&mut command_at(&url, &["snapshots", "list"]));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_ne!(output.status.code(), Some(0), "{error}");
        assert!(error.contains(part) && error.contains("database.url"), "{error}");
        for foreign in ["s3cret", "error returned", "error with", "at line", "migrated"] {
            assert!(!error.contains(foreign), "{foreign}: {error}");
        }
    }
    let drop_role = "DROP ROLE without_rights";
    execute(&mut database.connect().await, drop_role).await;
}

#[test]
fn an_address_of_ipv6_is_no_name_to_look_up() {
    let port = free_port().port();
    let quick = "--set-config=database.acquire_timeout_ms=100";
    let url = format!("postgres://me@[::1]:{port}/x");
    let error = String::from_utf8(output(&mut command_at(&url, &["migrate", quick])).stderr).unwrap();
    assert!(
        error.contains("the database is not available") && !error.contains("lookup"),
        "{error}"
    );
}
