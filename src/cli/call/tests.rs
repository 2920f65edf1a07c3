//! Calls to a real server on a port of its own.

use clap::Parser;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::transport::Server;

use super::*;

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    args: CallArgs,
}

/// Returns outcome, standard output and standard error of `likemind call ARGS`.
async fn call_with(args: &[&str], address: &str) -> anyhow::Result<(CallOutcome, String, String)> {
    let command = Command::try_parse_from([&["call"], args].concat())?;
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let outcome = call(command.args, address, &mut out, &mut err).await?;
    Ok((outcome, String::from_utf8(out)?, String::from_utf8(err)?))
}

/// Starts a server that has only the health service. Returns its address.
async fn health_server() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (_, health) = tonic_health::server::health_reporter();
    let server = Server::builder()
        .add_service(health)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    address
}

#[tokio::test]
async fn answers_and_errors_are_printed() {
    let address = health_server().await;
    let check = async |args: &[&str], expected: (CallOutcome, &str, &str)| {
        let (outcome, out, err) = call_with(args, &address).await.unwrap();
        assert_eq!((outcome, out.as_str(), err.as_str()), expected, "{args:?}");
    };
    let serving = "{\n  \"status\": \"SERVING\"\n}\n";
    check(&["Health/Check"], (CallOutcome::Ok, serving, "")).await;
    check(
        &["Check", "{}", "--header", "X-Request-Id: 7"],
        (CallOutcome::Ok, serving, ""),
    )
    .await;
    let not_found = "NOT_FOUND: service not registered\n";
    check(
        &["Check", r#"{"service": "x"}"#],
        (CallOutcome::Status(Code::NotFound), "", not_found),
    )
    .await;
    let unimplemented = CallOutcome::Status(Code::Unimplemented);
    check(
        &["Recommend", r#"{"user_id": "u"}"#],
        (unimplemented, "", "UNIMPLEMENTED\n"),
    )
    .await;
    check(&["IngestRatings", "[{}, {}]"], (unimplemented, "", "UNIMPLEMENTED\n")).await;
    // The only answer must come before the deadline; a loaded machine may need a longer one.
    for timeout_ms in ["200", "2000", "20000"] {
        let (outcome, out, err) = call_with(&["Watch", "--timeout-ms", timeout_ms], &address)
            .await
            .unwrap();
        assert_eq!(outcome, CallOutcome::Status(Code::DeadlineExceeded));
        assert_eq!(
            err,
            format!("DEADLINE_EXCEEDED: the call was not finished within {timeout_ms}ms\n")
        );
        if !out.is_empty() {
            assert_eq!(out, "{\"status\":\"SERVING\"}\n");
            return;
        }
    }
    panic!("nothing was printed before the deadline");
}

#[tokio::test]
async fn the_address_may_be_given() {
    let address = health_server().await;
    let host_and_port = address.strip_prefix("http://").unwrap();
    let nowhere = "http://127.0.0.1:1";
    let (outcome, ..) = call_with(&["Check", "--address", host_and_port], nowhere)
        .await
        .unwrap();
    assert_eq!(outcome, CallOutcome::Ok);
    let error = call_with(&["Check"], nowhere).await.unwrap_err();
    assert_eq!(error.to_string(), "no server answers at http://127.0.0.1:1");
    let check = async |args: &[&str], part: &str| {
        let error = call_with(&[&["Check"], args].concat(), nowhere).await.unwrap_err();
        assert!(format!("{error:#}").contains(part), "{args:?}: {error:#}");
    };
    check(
        &["--address", "ftp://127.0.0.1:1"],
        "must begin with http:// or https://",
    )
    .await;
    check(&["--ca", "ca.pem"], "need https://").await;
    check(
        &["--address", "127.0.0.1:1", "--ca", "/none.pem"],
        "/none.pem (--ca) cannot be read",
    )
    .await;
    check(&["--client-cert", "c.pem"], "--client-key").await;
    check(&["--client-key", "k.pem"], "--client-cert").await;
}

#[tokio::test]
async fn a_typed_call_returns_the_answer() {
    let mut client = Client::connect(&health_server().await, &TlsArgs::default())
        .await
        .unwrap();
    let request = serde_json::json!({"service": ""});
    let response = client.unary("Health/Check", &request).await.unwrap();
    assert_eq!(response, serde_json::json!({"status": "SERVING"}));
    let error = client.unary("GetItem", &serde_json::json!({})).await.unwrap_err();
    assert_eq!(error.to_string(), "UNIMPLEMENTED");
}

#[test]
fn a_command_line_can_be_pasted() {
    let check = |request: serde_json::Value, expected: &str| {
        let line = command_line(
            "likemind",
            "RecommendationService/Recommend",
            &request,
            "http://127.0.0.1:50051",
        );
        let expected =
            format!("likemind call RecommendationService/Recommend {expected} --address http://127.0.0.1:50051");
        assert_eq!(line, expected);
    };
    check(serde_json::json!({}), "'{}'");
    check(
        serde_json::json!({"user_id": "17850", "limit": 5}),
        r#"'{"limit":5,"user_id":"17850"}'"#,
    );
    check(
        serde_json::json!({"user_id": "it's $me"}),
        r#"'{"user_id":"it'\''s $me"}'"#,
    );
    assert_eq!(quoted(""), "''");
    assert_eq!(quoted("a b"), "'a b'");
}
