//! ModelService.

mod bias;
mod convert;

use tonic::{Request, Response, Status};

use crate::app::activation;
use crate::live::Live;
use crate::store::postgres::pool::Pool;
use crate::store::snapshots::{self, Activation};

use self::convert::ActivateSnapshot;
use super::caller::caller;
use super::page::{self, NewestFirst};
use super::proto::v1::model_service_server::ModelService;
use super::proto::v1::{
    ActivateSnapshotRequest, ActivateSnapshotResponse, GetBiasReportRequest, GetBiasReportResponse,
    GetServingStatusRequest, GetServingStatusResponse, GetSnapshotRequest, GetSnapshotResponse, ListSnapshotsRequest,
    ListSnapshotsResponse, RollbackSnapshotRequest, RollbackSnapshotResponse,
};
use super::status;

pub struct ModelHandler {
    pub pool: Pool,
    pub live: Live,
}

#[tonic::async_trait]
impl ModelService for ModelHandler {
    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        let request = request.into_inner();
        let list = NewestFirst::new(&convert::LIST_KEY, request.page_size, &request.page_token)?;
        let rows = snapshots::list(&self.pool, list.before, list.page_size + 1).await?;
        let (snapshots, next_page_token) = page::cut(rows, list.page_size, &convert::LIST_KEY, |row| row.version);
        Ok(Response::new(ListSnapshotsResponse {
            snapshots,
            next_page_token,
        }))
    }

    async fn get_snapshot(
        &self,
        request: Request<GetSnapshotRequest>,
    ) -> Result<Response<GetSnapshotResponse>, Status> {
        let version = convert::version(request.into_inner().version)?;
        let found = snapshots::get(&self.pool, version).await?;
        let missing = || status::not_found("SNAPSHOT_NOT_FOUND", format!("there is no snapshot {version}"));
        Ok(Response::new(GetSnapshotResponse {
            snapshot: Some(found.ok_or_else(missing)?.into()),
        }))
    }

    async fn get_bias_report(
        &self,
        request: Request<GetBiasReportRequest>,
    ) -> Result<Response<GetBiasReportResponse>, Status> {
        let version = bias::requested_version(request.into_inner().version)?;
        let found = snapshots::get_or_active(&self.pool, version).await?;
        let record = found.ok_or_else(|| bias::no_snapshot(version))?;
        Ok(Response::new(bias::report(record)))
    }

    async fn activate_snapshot(
        &self,
        request: Request<ActivateSnapshotRequest>,
    ) -> Result<Response<ActivateSnapshotResponse>, Status> {
        let caller = caller(&request)?;
        let ActivateSnapshot { version, reason } = request.into_inner().try_into()?;
        let by = Activation::Operator { actor: &caller.name };
        let record = activation::activate(&self.pool, version, by, &reason).await?;
        tracing::info!(version, reason, "snapshot {version} activated by request");
        Ok(Response::new(ActivateSnapshotResponse {
            snapshot: Some(record.into()),
        }))
    }

    async fn rollback_snapshot(
        &self,
        request: Request<RollbackSnapshotRequest>,
    ) -> Result<Response<RollbackSnapshotResponse>, Status> {
        let caller = caller(&request)?;
        let reason = convert::reason(request.into_inner().reason)?;
        let record = activation::rollback(&self.pool, &caller.name, &reason).await?;
        tracing::info!(
            version = record.version,
            reason,
            "rolled back to snapshot {}",
            record.version
        );
        Ok(Response::new(RollbackSnapshotResponse {
            snapshot: Some(record.into()),
        }))
    }

    async fn get_serving_status(
        &self,
        _request: Request<GetServingStatusRequest>,
    ) -> Result<Response<GetServingStatusResponse>, Status> {
        Ok(Response::new((&*self.live.status()).into()))
    }
}
