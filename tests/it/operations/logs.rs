//! The log of requests.

use likemind::grpc::proto::v1::model_service_client::ModelServiceClient;
use likemind::grpc::proto::v1::{GetItemRequest, GetServingStatusRequest};
use tonic::{Request, Status};

use crate::support::api_keys::{WithKey, create_key, id_of, secret_of};
use crate::support::program::Server;
use crate::support::shop::{self, item};

#[tokio::test]
async fn every_request_is_logged_as_json_with_its_id_and_outcome() {
    let database = shop::open().await;
    let settings = [
        ("telemetry.log_format", "json"),
        ("telemetry.log_filter", "info,likemind=debug"),
    ];
    let mut server = Server::with(&database, &settings);
    let mut client = server.catalog().await;
    let mut get = async |id: Option<&str>| {
        let mut request = Request::new(GetItemRequest { item_id: item(1) });
        if let Some(id) = id {
            request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        }
        let answer = client.get_item(request).await.unwrap();
        answer
            .metadata()
            .get("x-request-id")
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(get(Some("order-service/42")).await, "order-service/42");
    let generated = [get(None).await, get(None).await, get(Some(&"x".repeat(129))).await];
    assert!(
        !generated[0].is_empty()
            && generated[0] != generated[1]
            && generated[1] != generated[2]
            && generated[2].len() < 129,
        "{generated:?}"
    );

    let mut client = server.catalog().await;
    let mut unknown = Request::new(GetItemRequest {
        item_id: "nonesuch".to_owned(),
    });
    unknown
        .metadata_mut()
        .insert("x-request-id", "failing".parse().unwrap());
    let missing = client.get_item(unknown).await.unwrap_err();
    assert_eq!(missing.metadata().get("x-request-id").unwrap(), "failing");

    for (id, code) in [
        ("order-service/42", "OK"),
        ("failing", "NOT_FOUND"),
        (&generated[0], "OK"),
    ] {
        let line = server.program.wait_for_log(&format!("\"{id}\""));
        assert!(line.contains("CatalogService/GetItem") && line.contains(code), "{line}");
    }
    let (_, log) = server.drain().await;
    for line in log.lines() {
        let parsed: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["timestamp", "level", "message"] {
            assert!(parsed[key].is_string(), "{key}: {line}");
        }
    }
}

/// Calls GetServingStatus with a key, or without one.
async fn ask(server: &Server, key: Option<&str>) -> Result<(), Status> {
    let mut client = ModelServiceClient::with_interceptor(server.channel().await, WithKey::new(key));
    client.get_serving_status(GetServingStatusRequest {}).await.map(drop)
}

#[tokio::test]
async fn refused_callers_are_logged_by_default_and_other_calls_at_debug_without_secrets() {
    let database = shop::open().await;
    let ingest = create_key(&database, &["--role", "ingest"]);
    let service = create_key(&database, &["--role", "service"]);
    let log = async |settings: &[(&str, &str)]| {
        let server = Server::with(&database, settings);
        ask(&server, Some(&service)).await.unwrap();
        ask(&server, Some(&ingest)).await.unwrap_err();
        ask(&server, None).await.unwrap_err();
        let malformed = &ingest[..ingest.len() - 1];
        ask(&server, Some(malformed)).await.unwrap_err();
        let (_, log) = server.drain().await;
        for key in [malformed, &service] {
            assert!(!log.contains(secret_of(key)), "{log}");
        }
        let lines = log.lines().filter(|line| line.contains("call ended"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let check = |line: &str, parts: &[&str]| {
        assert!(line.contains("likemind.v1.ModelService/GetServingStatus"), "{line}");
        assert!(line.contains("client=127.0.0.1"), "{line}");
        for part in parts {
            assert_eq!(line.matches(part).count(), 1, "{part}: {line}");
        }
    };
    let (of_ingest, of_service) = (
        format!("caller=\"key:{}\"", id_of(&ingest)),
        format!("caller=\"key:{}\"", id_of(&service)),
    );
    let refused = [
        ["INFO", "PERMISSION_DENIED", "took_us=", &of_ingest],
        ["INFO", "UNAUTHENTICATED", "took_us=", "an API key is required"],
        ["INFO", "UNAUTHENTICATED", "took_us=", "must be `Bearer <key>`"],
    ];
    let lines = log(&[]).await;
    assert_eq!(lines.len(), refused.len(), "{lines:#?}");
    lines.iter().zip(&refused).for_each(|(line, parts)| check(line, parts));

    let lines = log(&[("telemetry.log_filter", "info,likemind::grpc=debug")]).await;
    assert_eq!(lines.len(), 1 + refused.len(), "{lines:#?}");
    check(&lines[0], &["DEBUG", "code=\"OK\"", "took_us=", &of_service]);
    lines[1..]
        .iter()
        .zip(&refused)
        .for_each(|(line, parts)| check(line, parts));
}
