//! grpc.health.v1: every service serves, the recommendation service only with a snapshot.

use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::live::Live;

use super::proto::v1::catalog_service_server::CatalogServiceServer;
use super::proto::v1::model_service_server::ModelServiceServer;
use super::proto::v1::purchase_service_server::PurchaseServiceServer;
use super::proto::v1::rating_service_server::RatingServiceServer;
use super::proto::v1::recommendation_service_server::RecommendationServiceServer;
use super::catalog::CatalogHandler;
use super::model::ModelHandler;
use super::purchase::PurchaseHandler;
use super::rating::RatingHandler;
use super::recommendation::RecommendationHandler;

/// Keeps the statuses true until `shutdown`; from then on nothing serves, so that balancers look elsewhere.
pub async fn report(reporter: HealthReporter, live: Live, shutdown: CancellationToken) {
    reporter.set_serving::<CatalogServiceServer<CatalogHandler>>().await;
    reporter.set_serving::<RatingServiceServer<RatingHandler>>().await;
    reporter.set_serving::<PurchaseServiceServer<PurchaseHandler>>().await;
    reporter.set_serving::<ModelServiceServer<ModelHandler>>().await;
    let mut version = live.version();
    loop {
        let has_snapshot = version.borrow_and_update().is_some();
        if has_snapshot {
            reporter.set_serving::<RecommendationServiceServer<RecommendationHandler>>().await;
        } else {
            reporter.set_not_serving::<RecommendationServiceServer<RecommendationHandler>>().await;
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = version.changed() => if changed.is_err() { break },
        }
    }
    reporter.set_service_status("", ServingStatus::NotServing).await;
    reporter.set_not_serving::<CatalogServiceServer<CatalogHandler>>().await;
    reporter.set_not_serving::<RatingServiceServer<RatingHandler>>().await;
    reporter.set_not_serving::<PurchaseServiceServer<PurchaseHandler>>().await;
    reporter.set_not_serving::<ModelServiceServer<ModelHandler>>().await;
    reporter.set_not_serving::<RecommendationServiceServer<RecommendationHandler>>().await;
}
