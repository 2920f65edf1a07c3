//! Refusals and warnings of a server that starts.

use crate::support::program::{Program, Server, command, run};
use crate::support::shop;

/// The settings that permit a server without keys or without TLS on the network.
const PERMISSIONS: [&str; 2] = ["server.allow_unauthenticated", "server.allow_plaintext"];

#[tokio::test]
async fn a_server_that_cannot_start_names_the_setting_and_the_reason() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let taken = server.address.trim_start_matches("http://").to_owned();
    let check = |args: &[&str], expected: i32, parts: &[&str]| {
        let (code, _, errors) = run(&database, args);
        assert_eq!(code, expected, "{args:?}: {errors}");
        for part in parts {
            assert!(errors.contains(part), "{args:?}: no {part} in {errors}");
        }
    };
    check(&["serve", "--listen", &taken], 1, &["server.listen", &taken, "in use"]);
    let free = "--listen=127.0.0.1:0";
    let metrics = format!("--set-config=telemetry.metrics_listen={taken}");
    let metrics = ["serve", free, "--set-config=telemetry.metrics=true", &metrics];
    check(&metrics, 1, &["telemetry.metrics_listen", &taken, "in use"]);
    for args in [
        ["serve", "--listen=0.0.0.0:0"],
        ["serve", "--set-config=server.listen=0.0.0.0:0"],
    ] {
        check(
            &args,
            2,
            &["server.listen", "tls.certificate_file", PERMISSIONS[0], PERMISSIONS[1]],
        );
    }
}

#[tokio::test]
async fn a_server_that_is_open_to_the_network_on_purpose_starts_with_a_warning() {
    let database = shop::open().await;
    for permission in PERMISSIONS {
        let loopback = Server::with(&database, &[(permission, "true")]);
        let log = loopback.program.log();
        assert!(!log.contains(permission), "a warning without a reason: {log}");
        let setting = format!("--set-config={permission}=true");
        let mut program = Program::start(&mut command(&database, &["serve", "--listen=0.0.0.0:0", &setting]));
        let warning = program.wait_for_log(permission);
        assert!(warning.contains("WARN"), "{warning}");
        program.wait_for_log("serving on 0.0.0.0:");
    }
}
