//! grpc.health.v1. Every service is SERVING; the recommendation service needs a snapshot for that.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::live::Live;

use super::campaign::CampaignHandler;
use super::catalog::CatalogHandler;
use super::coupon::CouponHandler;
use super::model::ModelHandler;
use super::privacy::PrivacyHandler;
use super::proto::v1::campaign_service_server::CampaignServiceServer;
use super::proto::v1::catalog_service_server::CatalogServiceServer;
use super::proto::v1::coupon_service_server::CouponServiceServer;
use super::proto::v1::model_service_server::ModelServiceServer;
use super::proto::v1::privacy_service_server::PrivacyServiceServer;
use super::proto::v1::purchase_service_server::PurchaseServiceServer;
use super::proto::v1::rating_service_server::RatingServiceServer;
use super::proto::v1::recommendation_service_server::RecommendationServiceServer;
use super::purchase::PurchaseHandler;
use super::rating::RatingHandler;
use super::recommendation::RecommendationHandler;

/// The server as a whole (the empty name) and the services that need no snapshot.
const ALWAYS: [&str; 8] = [
    "",
    CatalogServiceServer::<CatalogHandler>::NAME,
    RatingServiceServer::<RatingHandler>::NAME,
    PurchaseServiceServer::<PurchaseHandler>::NAME,
    ModelServiceServer::<ModelHandler>::NAME,
    CampaignServiceServer::<CampaignHandler>::NAME,
    CouponServiceServer::<CouponHandler>::NAME,
    PrivacyServiceServer::<PrivacyHandler>::NAME,
];
const WITH_SNAPSHOT: &str = RecommendationServiceServer::<RecommendationHandler>::NAME;

/// How long a draining server still answers NOT_SERVING to Check. Watchers are told at once.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

/// Sets the first status of every service.
pub async fn begin(reporter: &HealthReporter, live: &Live) {
    for name in ALWAYS {
        reporter.set_service_status(name, ServingStatus::Serving).await;
    }
    let status = with_snapshot(*live.version().borrow());
    reporter.set_service_status(WITH_SNAPSHOT, status).await;
}

fn with_snapshot(version: Option<i64>) -> ServingStatus {
    match version {
        Some(_) => ServingStatus::Serving,
        None => ServingStatus::NotServing,
    }
}

/// Keeps the statuses up to date until `shutdown`. Then it sets all of them to NOT_SERVING, so that load balancers send
/// their calls elsewhere, and soon after ends the streams of watchers, which would keep the server from draining.
pub async fn report(mut reporter: HealthReporter, live: Live, shutdown: CancellationToken) {
    let mut version = live.version();
    loop {
        let status = with_snapshot(*version.borrow_and_update());
        reporter.set_service_status(WITH_SNAPSHOT, status).await;
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = version.changed() => if changed.is_err() { break },
        }
    }
    let all = || ALWAYS.into_iter().chain([WITH_SNAPSHOT]);
    for name in all() {
        reporter.set_service_status(name, ServingStatus::NotServing).await;
    }
    tokio::time::sleep(LAST_ANSWERS).await;
    for name in all() {
        reporter.clear_service_status(name).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::transport::{Endpoint, Server};
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;

    use super::*;
    use crate::live::options::LiveOptions;
    use crate::store::postgres::options::DatabaseOptions;
    use crate::store::postgres::pool::Pool;
    use domain::consent::PrivacyOptions;

    /// A live state without a database and without a snapshot.
    async fn live(shutdown: &CancellationToken) -> Live {
        let options = DatabaseOptions {
            acquire_timeout_ms: 10,
            ..Default::default()
        };
        let pool = Pool::lazy("postgres://127.0.0.1:1/none", &options).unwrap();
        Live::start(
            pool,
            LiveOptions::default(),
            PrivacyOptions::default(),
            shutdown.clone(),
        )
        .await
    }

    #[tokio::test]
    async fn statuses_end_when_the_server_drains() {
        let shutdown = CancellationToken::new();
        let (reporter, service) = tonic_health::server::health_reporter();
        let live = live(&shutdown).await;
        begin(&reporter, &live).await;
        tokio::spawn(report(reporter, live, shutdown.clone()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let incoming = TcpListenerStream::new(listener);
        let server = Server::builder().add_service(service);
        let served = tokio::spawn(server.serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned()));

        let mut client = HealthClient::new(Endpoint::from_shared(address).unwrap().connect().await.unwrap());
        let mut check = async |service: &str, expected: ServingStatus| {
            let request = HealthCheckRequest {
                service: service.to_owned(),
            };
            let response = client.check(request.clone()).await.unwrap().into_inner();
            assert_eq!(response.status, expected as i32, "{service}");
            client.watch(request).await.unwrap().into_inner()
        };
        check("likemind.v1.CatalogService", ServingStatus::Serving).await;
        check(WITH_SNAPSHOT, ServingStatus::NotServing).await;
        let mut watched = check("", ServingStatus::Serving).await;

        shutdown.cancel();
        let drained = async {
            let mut statuses = Vec::new();
            while let Some(response) = watched.message().await.unwrap() {
                statuses.push(response.status);
            }
            served.await.unwrap().unwrap();
            statuses
        };
        let statuses = tokio::time::timeout(Duration::from_secs(5), drained).await;
        let statuses = statuses.expect("a watcher keeps the server from draining");
        assert_eq!(
            statuses,
            [ServingStatus::Serving as i32, ServingStatus::NotServing as i32]
        );
    }
}
