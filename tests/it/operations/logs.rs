//! The log of requests.

use likemind::grpc::proto::v1::GetItemRequest;
use tonic::Request;

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
