//! `likemind config`: defaults, sources of settings, and refusals.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::postgres::scratch;

fn config(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_likemind"));
    command.arg("config").args(args).current_dir(folder).env_clear();
    command
}

fn json(command: &mut Command) -> Value {
    let output = command.arg("--json").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_printed_defaults_load_as_a_configuration_file() {
    let folder = scratch();
    let output = config(folder.path(), &[]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "[training]",
        "neighbors = 50",
        "[live]",
        "refresh_interval_ms = 1000",
        "# data_dir is not set",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let defaults = json(&mut config(folder.path(), &[]));
    std::fs::write(folder.path().join("mine.toml"), text).unwrap();
    assert_eq!(json(&mut config(folder.path(), &["--config", "mine.toml"])), defaults);
}

#[test]
fn flags_override_the_environment_and_the_environment_overrides_the_file() {
    let folder = scratch();
    let file = "[training]\nneighbors = 10\nseed = 11\n[gate]\nmin_users = 12\n[live]\nkeep_previous = 0\n";
    std::fs::write(folder.path().join("likemind.toml"), file).unwrap();
    let flags = [
        "--set-config=training.neighbors=30",
        "--data-dir=/flag",
        "--database-url=postgres://flag/x",
    ];
    let found = json(
        config(folder.path(), &flags)
            .env("LIKEMIND__TRAINING__NEIGHBORS", "20")
            .env("LIKEMIND__TRAINING__SEED", "21")
            .env("LIKEMIND__DATA_DIR", "/environment")
            .env("LIKEMIND__DATABASE__URL", "postgres://environment/x")
            .env("LIKEMIND__TELEMETRY__METRICS", "false"),
    );
    let check = |pointer: &str, expected: Value| assert_eq!(found.pointer(pointer), Some(&expected), "{pointer}");
    check("/training/neighbors", json!(30));
    check("/data_dir", json!("/flag"));
    check("/database/url", json!("postgres://flag/x"));
    check("/training/seed", json!(21));
    check("/telemetry/metrics", json!(false));
    check("/gate/min_users", json!(12));
    check("/live/keep_previous", json!(0));
    check("/trainer/keep_snapshots", json!(5));
}

#[test]
fn secrets_are_printed_as_redacted() {
    let folder = scratch();
    for args in [&[][..], &["--json"]] {
        let mut command = config(folder.path(), args);
        command.env("LIKEMIND__DATABASE__URL", "postgres://me:s3cret@db/x");
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("postgres://me:[redacted]@db/x"), "{text}");
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn unknown_and_invalid_settings_are_named() {
    let folder = scratch();
    std::fs::write(folder.path().join("wrong.toml"), "[server]\nlisten_on = '127.0.0.1:1'").unwrap();
    let check = |args: &[&str], environment: &[(&str, &str)], name: &str| {
        let output = config(folder.path(), args)
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?} {environment:?}: {error}");
        assert!(error.contains(name), "no {name:?} in {error}");
        assert!(output.stdout.is_empty());
    };
    check(&["--config=wrong.toml"], &[], "listen_on");
    check(&["--config=missing.toml"], &[], "missing.toml");
    check(&[], &[("LIKEMIND__TRAINING__NEIGHBOURS", "9")], "neighbors");
    check(&["--set-config=trainings.neighbors=9"], &[], "trainings");
    check(&["--set-config=training.neighbors=0"], &[], "training.neighbors");
    check(&["--set-config=training.neighbors=many"], &[], "training.neighbors");
    check(&["--set-config=training.neighbors"], &[], "KEY=VALUE");
    check(&["--no-such-flag"], &[], "--no-such-flag");
}
