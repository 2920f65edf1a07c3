//! gRPC-Web over HTTP/1.1 and CORS, as a page in a browser uses them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use likemind::grpc::proto::v1::{GetItemRequest, GetServingStatusRequest, GetServingStatusResponse};
use prost::Message;

use crate::support::caller::Caller;
use crate::support::http1::{self, Answer};
use crate::support::postgres::TestDatabase;
use crate::support::program::{Server, run};
use crate::support::waiting::soon;

const STATUS: &str = "/likemind.v1.ModelService/GetServingStatus";
const SHOP: &str = "https://shop.example.com";
const ON: [(&str, &str); 2] = [("server.grpc_web", "true"), ("server.cors_origins", SHOP)];

/// A frame of gRPC and of gRPC-Web: a kind, the length and the message.
fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0], &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
}

/// Splits a body into its frames.
fn frames(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while !body.is_empty() {
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize;
        frames.push((body[0], body[5..5 + length].to_vec()));
        body = &body[5 + length..];
    }
    frames
}

fn post(server: &Server, path: &str, kind: &str, origin: &str, body: &[u8]) -> Answer {
    let headers = [
        ("Content-Type", kind),
        ("Accept", kind),
        ("X-Grpc-Web", "1"),
        ("Origin", origin),
    ];
    http1::request(server, "POST", path, &headers, body).expect("no answer")
}

/// Returns the message and the trailers of an answer.
fn parts<M: Message + Default>(body: &[u8]) -> (M, String) {
    let frames = frames(body);
    let [(0, message), (0x80, trailers)] = &frames[..] else {
        panic!("{frames:?}");
    };
    let message = M::decode(message.as_slice()).unwrap();
    (message, String::from_utf8(trailers.clone()).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_calls_over_http_1_in_binary_and_in_text() {
    let database = TestDatabase::create().await;
    let server = Server::with(&database, &ON);
    // gRPC itself is served on the same port. A server answers before it has looked for the database.
    let caller = Caller::of(&server).await;
    let status = async || caller.status().await;
    soon("the server has seen the database", status, |status| {
        status.database_available
    })
    .await;
    let request = framed(&GetServingStatusRequest {});
    let binary = post(&server, STATUS, "application/grpc-web+proto", SHOP, &request);
    assert_eq!(binary.status, 200, "{binary:?}");
    assert_eq!(binary.header("content-type"), Some("application/grpc-web+proto"));
    let text = STANDARD.encode(&request);
    let text = post(&server, STATUS, "application/grpc-web-text", SHOP, text.as_bytes());
    assert_eq!(text.header("content-type"), Some("application/grpc-web-text+proto"));
    // Each frame is a text of its own.
    let decoded: Vec<u8> = String::from_utf8(text.body.clone())
        .unwrap()
        .split_inclusive('=')
        .collect::<String>()
        .as_bytes()
        .chunks(4)
        .flat_map(|four| STANDARD.decode(four).unwrap())
        .collect();
    for body in [binary.body, decoded] {
        let (status, trailers): (GetServingStatusResponse, String) = parts(&body);
        assert!(status.database_available, "{status:?}");
        assert!(trailers.contains("grpc-status:0"), "{trailers}");
    }
    assert_eq!(text.header("access-control-allow-origin"), Some(SHOP));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_reads_the_status_of_a_call_that_fails() {
    let database = TestDatabase::create().await;
    let server = Server::with(&database, &ON);
    let check = |path: &str, body: &[u8], code: &str| {
        let answer = post(&server, path, "application/grpc-web+proto", SHOP, body);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("grpc-status"), Some(code), "{answer:?}");
        assert!(answer.header("grpc-status-details-bin").is_some(), "{answer:?}");
        let exposed = answer.header("access-control-expose-headers").unwrap();
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin", "x-request-id"] {
            assert!(
                exposed.contains(name) && (name == "grpc-message" || answer.header(name).is_some()),
                "{name}: {answer:?}"
            );
        }
    };
    let unknown = framed(&GetItemRequest {
        item_id: "none".to_owned(),
    });
    check("/likemind.v1.CatalogService/GetItem", &unknown, "5");
    check("/likemind.v1.CatalogService/NoSuchMethod", &unknown, "12");
    check(STATUS, b"\0\0\0\0\x09half", "3");
    let text = post(&server, STATUS, "application/grpc-web-text", SHOP, b"no Base64!");
    assert_eq!(text.header("grpc-status"), Some("3"), "{text:?}");
    let log = server.program.log();
    assert!(!log.contains("ERROR"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_is_told_whose_pages_may_call() {
    let database = TestDatabase::create().await;
    let preflight = |server: &Server, origin: &str| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            (
                "Access-Control-Request-Headers",
                "authorization,content-type,x-grpc-web",
            ),
        ];
        http1::request(server, "OPTIONS", STATUS, &headers, b"").expect("no answer")
    };
    let check = |server: &Server, origin: &str, expected: Option<&str>| {
        let asked = preflight(server, origin);
        assert_eq!(asked.status, 204, "{asked:?}");
        assert_eq!(asked.header("access-control-allow-origin"), expected, "{asked:?}");
        assert_eq!(asked.header("access-control-allow-methods"), expected.map(|_| "POST"));
        assert_eq!(
            asked.header("access-control-allow-headers"),
            expected.map(|_| "authorization,content-type,x-grpc-web")
        );
        assert!(asked.header("vary").unwrap().contains("origin"), "{asked:?}");
        let called = post(
            server,
            STATUS,
            "application/grpc-web",
            origin,
            &framed(&GetServingStatusRequest {}),
        );
        assert_eq!(called.header("access-control-allow-origin"), expected, "{called:?}");
    };
    let server = Server::with(&database, &ON);
    check(&server, SHOP, Some(SHOP));
    check(&server, "https://other.example.com", None);
    check(&server, "null", None);
    let open = Server::with(&database, &[ON[0], ("server.cors_origins", "*")]);
    check(&open, "https://other.example.com", Some("*"));
    let by_proxy = Server::with(&database, &[ON[0]]);
    check(&by_proxy, SHOP, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gets_and_other_requests_over_http_1_are_refused() {
    let database = TestDatabase::create().await;
    let server = Server::with(&database, &ON);
    let check = |method: &str, headers: &[(&str, &str)], status: u16| {
        let answer = http1::request(&server, method, STATUS, headers, b"").expect("no answer");
        assert_eq!(answer.status, status, "{answer:?}");
    };
    check("GET", &[], 400);
    check("POST", &[("Content-Type", "application/json")], 400);
    check("PUT", &[("Content-Type", "application/grpc-web")], 405);
    check("OPTIONS", &[], 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_off_unless_the_configuration_turns_it_on() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let request = framed(&GetServingStatusRequest {});
    let headers = [("Content-Type", "application/grpc-web")];
    let answer = http1::request(&server, "POST", STATUS, &headers, &request);
    assert!(answer.is_none(), "{answer:?}");
    for (setting, part) in [
        (format!("server.cors_origins={SHOP}"), "server.grpc_web"),
        ("server.cors_origins=shop".to_owned(), "https://shop.example.com"),
    ] {
        let (code, _, error) = run(&database, &["config", "--set-config", &setting]);
        assert_eq!(code, 2, "{error}");
        assert!(error.contains("server.cors_origins") && error.contains(part), "{error}");
    }
}
