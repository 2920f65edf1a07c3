//! The metrics of a server.

use std::ops::RangeInclusive;

use likemind::grpc::proto::v1::GetItemRequest;
use tonic::Code;

use crate::support::caller::Caller;
use crate::support::held_rating::HeldRating;
use crate::support::metrics::{get, scrape, server_with_metrics, value};
use crate::support::postgres::{TestDatabase, execute};
use crate::support::shop::{self, item};
use crate::support::snapshot_damage::{LOSE, activate_unseen, damaged_copy, parts};
use crate::support::waiting::soon;

const SHED: &str = "likemind_rpc_shed_total";
const LOAD_FAILURES: &str = "likemind_snapshot_load_failures_total";

/// Returns the name of a series of the histogram of RPCs, `rest` being further labels.
fn rpc(suffix: &str, method: &str, code: &str, rest: &str) -> String {
    format!(r#"likemind_rpc_seconds_{suffix}{{method="likemind.v1.{method}",code="{code}"{rest}}}"#)
}

fn get_item(id: &str) -> GetItemRequest {
    GetItemRequest { item_id: id.to_owned() }
}

#[tokio::test]
async fn metrics_count_requests_and_measure_snapshot_overlay_and_pool() {
    let database = shop::open().await;
    let a_day_older = "UPDATE snapshots SET created_at = created_at - interval '1 day'";
    execute(&mut database.connect().await, a_day_older).await;
    let (server, address) = server_with_metrics(&database, &[("live.refresh_interval_ms", "100")]);
    let caller = Caller::of(&server).await;
    caller.rate("stranger", &item(1), 4.0).await;
    caller.scores("stranger").await;
    caller.catalog.clone().get_item(get_item("nonesuch")).await.unwrap_err();

    let has_gauges = |text: &String| value(text, "likemind_fresh_entries") == Some(1.0);
    let text = soon("the gauges are set", async || scrape(address).await, has_gauges).await;
    let check = |name: &str, expected: RangeInclusive<f64>| {
        let found = value(&text, name).unwrap_or_else(|| panic!("no {name} in\n{text}"));
        assert!(expected.contains(&found), "{name}: {found}");
    };
    for (method, code) in [
        ("RatingService/UpsertRatings", "OK"),
        ("RecommendationService/Recommend", "OK"),
        ("CatalogService/GetItem", "NOT_FOUND"),
    ] {
        check(&rpc("count", method, code, ""), 1.0..=1.0);
        check(&rpc("bucket", method, code, r#",le="+Inf""#), 1.0..=1.0);
        check(&rpc("bucket", method, code, r#",le="0.00005""#), 0.0..=1.0);
    }
    check("likemind_snapshot_version", 1.0..=1.0);
    check("likemind_snapshot_age_seconds", 86_400.0..=2.0 * 86_400.0);
    check("likemind_fresh_lag_seconds", 0.0..=60.0);
    check("likemind_fresh_dropped_total", 0.0..=0.0);
    check(r#"likemind_pool_connections{state="busy"}"#, 0.0..=16.0);
    check(r#"likemind_pool_connections{state="idle"}"#, 1.0..=16.0);
    for counter in [SHED, LOAD_FAILURES] {
        assert!(value(&text, counter).is_none_or(|count| count == 0.0), "{text}");
    }
}

#[tokio::test]
async fn every_metric_has_a_help_line_and_the_process_has_metrics() {
    let database = shop::open().await;
    let (server, address) = server_with_metrics(&database, &[("live.refresh_interval_ms", "100")]);
    let caller = Caller::of(&server).await;
    caller.scores("stranger").await;
    let has_gauges = |text: &String| value(text, "likemind_snapshot_version") == Some(1.0);
    let text = soon("the gauges are set", async || scrape(address).await, has_gauges).await;
    let typed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    assert!(typed.len() > 15, "{text}");
    for name in typed.iter().map(|line| line.split(' ').next().unwrap()) {
        assert!(
            text.contains(&format!("# HELP {name} ")),
            "{name} has no help in\n{text}"
        );
    }
    let process = |name: &str| value(&text, name).unwrap_or_else(|| panic!("no {name} in\n{text}"));
    assert!(process("process_cpu_seconds_total") > 0.0, "{text}");
    assert!(process("process_resident_memory_bytes") > 1e6, "{text}");
    assert!(process("process_open_fds") > 3.0 && process("process_open_fds") <= process("process_max_fds"));
    assert!(process("process_threads") > 1.0, "{text}");
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    let age = now - process("process_start_time_seconds");
    assert!((-5.0..600.0).contains(&age), "{age}");
}

#[tokio::test]
async fn probes_say_whether_the_server_lives_and_should_get_calls() {
    let database = shop::open().await;
    let (_server, address) = server_with_metrics(&database, &[]);
    assert_eq!(get(address, "/livez").await.0, 200);
    assert_eq!(get(address, "/readyz").await.0, 200);
    for path in ["/", "/metric", "/metrics/x", "/health"] {
        let (status, answer) = get(address, path).await;
        assert_eq!(status, 404, "{path}: {answer}");
    }

    let empty = TestDatabase::create().await;
    let (_server, address) = server_with_metrics(&empty, &[]);
    assert_eq!(get(address, "/livez").await.0, 200);
    let (status, answer) = get(address, "/readyz").await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("no snapshot is loaded"), "{answer}");
}

#[tokio::test]
async fn metrics_count_refused_and_abandoned_requests() {
    let database = shop::open().await;
    let settings = [
        ("server.max_concurrent_requests", "1"),
        ("live.refresh_interval_ms", "100"),
    ];
    let (server, address) = server_with_metrics(&database, &settings);
    let caller = Caller::of(&server).await;
    let in_flight = |text: &String| value(text, "likemind_rpc_in_flight");
    let look = async || scrape(address).await;

    let mut held = HeldRating::hold(&database).await;
    let abandoned = held.send_waiting_request(&caller).await;
    soon("one request is in flight", look, |text| in_flight(text) == Some(1.0)).await;
    let busy = |text: &String| value(text, r#"likemind_pool_connections{state="busy"}"#) >= Some(1.0);
    soon("a connection is busy", look, busy).await;
    for count in 1..=2 {
        let refused = caller.catalog.clone().get_item(get_item("i01")).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
        let text = scrape(address).await;
        assert_eq!(value(&text, SHED), Some(f64::from(count)), "{text}");
        let refused = rpc("count", "CatalogService/GetItem", "RESOURCE_EXHAUSTED", "");
        assert_eq!(value(&text, &refused), Some(f64::from(count)), "{text}");
    }
    abandoned.abort();
    soon("no request is in flight", look, |text| in_flight(text) == Some(0.0)).await;
    let cancelled = rpc("count", "RatingService/UpsertRatings", "CANCELLED", "");
    let is_counted = |text: &String| value(text, &cancelled) == Some(1.0);
    soon("the abandoned request is counted", look, is_counted).await;
    held.release().await;
}

#[tokio::test]
async fn metrics_count_snapshots_that_cannot_be_loaded_and_follow_the_next_good_one() {
    let database = shop::open().await;
    let a_day_older = "UPDATE snapshots SET created_at = created_at - interval '1 day'";
    execute(&mut database.connect().await, a_day_older).await;
    let (server, address) = server_with_metrics(&database, &[("live.refresh_interval_ms", "100")]);
    let caller = Caller::of(&server).await;
    let look = async || scrape(address).await;

    let part = &parts(&database).await[0];
    activate_unseen(&database, damaged_copy(&database, LOSE, part).await).await;
    let is_counted = |text: &String| value(text, LOAD_FAILURES) == Some(1.0);
    soon("the failure is counted", look, is_counted).await;
    caller.switch_to(1).await;
    shop::train(database.url());
    let is_next = |text: &String| value(text, "likemind_snapshot_version") == Some(3.0);
    let text = soon("the gauge shows the next version", look, is_next).await;
    assert_eq!(value(&text, LOAD_FAILURES), Some(1.0), "{text}");
    let age = value(&text, "likemind_snapshot_age_seconds").unwrap();
    assert!(age < 86_400.0, "{age}");
}
