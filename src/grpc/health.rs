//! grpc.health.v1. The server as a whole and the recommendation service are SERVING when a snapshot is loaded, and the
//! services that need the database while it is available.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::server::NamedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::live::Live;

use super::campaign::CampaignHandler;
use super::catalog::CatalogHandler;
use super::coupon::CouponHandler;
use super::demand::DemandHandler;
use super::import::ImportHandler;
use super::inventory::InventoryHandler;
use super::model::ModelHandler;
use super::privacy::PrivacyHandler;
use super::proto::v1::campaign_service_server::CampaignServiceServer;
use super::proto::v1::catalog_service_server::CatalogServiceServer;
use super::proto::v1::coupon_service_server::CouponServiceServer;
use super::proto::v1::demand_service_server::DemandServiceServer;
use super::proto::v1::import_service_server::ImportServiceServer;
use super::proto::v1::inventory_service_server::InventoryServiceServer;
use super::proto::v1::model_service_server::ModelServiceServer;
use super::proto::v1::privacy_service_server::PrivacyServiceServer;
use super::proto::v1::purchase_service_server::PurchaseServiceServer;
use super::proto::v1::rating_service_server::RatingServiceServer;
use super::proto::v1::recommendation_service_server::RecommendationServiceServer;
use super::purchase::PurchaseHandler;
use super::rating::RatingHandler;
use super::recommendation::RecommendationHandler;

/// The server as a whole, and the services that answer from the snapshot.
const WITH_SNAPSHOT: [&str; 3] = [
    "",
    RecommendationServiceServer::<RecommendationHandler>::NAME,
    DemandServiceServer::<DemandHandler>::NAME,
];
/// The services whose calls need the database.
const WITH_DATABASE: [&str; 8] = [
    ImportServiceServer::<ImportHandler>::NAME,
    InventoryServiceServer::<InventoryHandler>::NAME,
    CatalogServiceServer::<CatalogHandler>::NAME,
    RatingServiceServer::<RatingHandler>::NAME,
    PurchaseServiceServer::<PurchaseHandler>::NAME,
    CampaignServiceServer::<CampaignHandler>::NAME,
    CouponServiceServer::<CouponHandler>::NAME,
    PrivacyServiceServer::<PrivacyHandler>::NAME,
];
/// It says what the server serves, most of all while something is missing.
const ALWAYS: [&str; 1] = [ModelServiceServer::<ModelHandler>::NAME];

/// How long a draining server still answers NOT_SERVING to Check. Watchers are told at once.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

/// Sets the first status of every service.
pub async fn begin(reporter: &HealthReporter, live: &Live) {
    let (has_snapshot, has_database) = (live.version().borrow().is_some(), *live.database_available().borrow());
    set(reporter, &ALWAYS, true).await;
    set(reporter, &WITH_SNAPSHOT, has_snapshot).await;
    set(reporter, &WITH_DATABASE, has_database).await;
}

async fn set(reporter: &HealthReporter, services: &[&str], is_serving: bool) {
    let status = match is_serving {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    };
    for name in services {
        reporter.set_service_status(name, status).await;
    }
}

/// Keeps the statuses up to date until `shutdown`. Then it sets all of them to NOT_SERVING, so that load balancers send
/// their calls elsewhere, and soon after ends the streams of watchers, which would keep the server from draining.
pub async fn report(mut reporter: HealthReporter, live: Live, shutdown: CancellationToken) {
    let (mut version, mut database) = (live.version(), live.database_available());
    loop {
        let (has_snapshot, has_database) = (version.borrow_and_update().is_some(), *database.borrow_and_update());
        set(&reporter, &WITH_SNAPSHOT, has_snapshot).await;
        set(&reporter, &WITH_DATABASE, has_database).await;
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = version.changed() => if changed.is_err() { break },
            changed = database.changed() => if changed.is_err() { break },
        }
    }
    let all = [&WITH_SNAPSHOT[..], &WITH_DATABASE, &ALWAYS].concat();
    set(&reporter, &all, false).await;
    tokio::time::sleep(LAST_ANSWERS).await;
    for name in all {
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
        for name in WITH_SNAPSHOT {
            check(name, ServingStatus::NotServing).await;
        }
        let mut watched = check("likemind.v1.ModelService", ServingStatus::Serving).await;

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
