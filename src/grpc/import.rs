//! ImportService.

mod convert;
mod upload;

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::admission::concurrency_limit::{ConcurrencyLimit, Permit};
use crate::app::import::settings::ImportSettings;
use crate::app::import::{ImportError, ImportOptions, ImportSummary, import};
use crate::live::Live;
use crate::store::imports::{self, ImportRecord};
use crate::store::postgres::pool::Pool;
use domain::rating::RatingScale;
use tabular::input::Input;

use self::upload::Upload;
use super::caller::caller;
use super::page::{self, NewestFirst};
use super::proto::v1::import_service_server::ImportService;
use super::proto::v1::{
    GetImportRequest, GetImportResponse, ListImportsRequest, ListImportsResponse, StartImportRequest,
    StartImportResponse, UndoImportRequest, UndoImportResponse,
};
use super::status;

pub struct ImportHandler {
    pub pool: Pool,
    pub live: Live,
    pub scale: RatingScale,
    pub settings: ImportSettings,
    pub slots: Arc<ConcurrencyLimit>,
    /// Interrupts the imports that are running.
    pub shutdown: CancellationToken,
}

impl ImportHandler {
    /// Imports in a task of its own, which also records the end of an import whose client has gone away. What was stored is
    /// served when it ends.
    fn spawn(
        &self,
        input: Input,
        options: ImportOptions,
        slot: Permit,
    ) -> JoinHandle<Result<ImportSummary, ImportError>> {
        let (pool, live, shutdown) = (self.pool.clone(), self.live.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            let imported = import(&pool, input, &options, &shutdown, |_| {}).await;
            if !options.dry_run {
                publish(&live).await;
            }
            drop(slot);
            imported
        })
    }

    async fn record(&self, id: i64) -> Result<ImportRecord, Status> {
        let found = imports::get(&self.pool, id).await?;
        found.ok_or_else(|| status::not_found("IMPORT_NOT_FOUND", format!("there is no import {id}")))
    }
}

/// Serves what an import has written or what undoing it has changed.
async fn publish(live: &Live) {
    // Each waits for as long as a database that does not answer may take.
    tokio::join!(live.refresh(), live.publish_offer_catalog(), live.publish_inventory());
}

#[tonic::async_trait]
impl ImportService for ImportHandler {
    async fn start_import(
        &self,
        request: Request<Streaming<StartImportRequest>>,
    ) -> Result<Response<StartImportResponse>, Status> {
        let caller = caller(&request)?;
        let mut upload = Upload::new(request, &self.settings)?;
        let (requested, first) = upload.first().await?;
        let (source, mut options) = convert::options(requested, self.scale)?;
        options.undo_days = self.settings.undo_days;
        options.read.max_spooled_bytes = Some(self.settings.max_upload_bytes);
        options.actor = caller.name.to_string();
        let slot = self.slots.take().ok_or_else(status::too_many_imports)?;
        // An import waits for a database that goes away meanwhile. One that is away already is told at once.
        self.pool.probe().await?;
        let (feed, input) = upload::pipe(source);
        let mut importing = self.spawn(input, options, slot);
        let (sent, imported) = tokio::select! {
            imported = &mut importing => (Ok(()), imported),
            sent = upload.feed(feed, first) => (sent, (&mut importing).await),
        };
        // The import itself knows only that its input broke off.
        sent?;
        let imported = imported.map_err(|error| status::background_task_failed(&error))?;
        let (summary, problem) = convert::outcome(imported)?;
        let import = match summary.import_id {
            Some(id) => Some(self.record(id).await?.into()),
            None => None,
        };
        Ok(Response::new(StartImportResponse {
            import,
            summary: Some(summary.into()),
            problem,
        }))
    }

    async fn get_import(&self, request: Request<GetImportRequest>) -> Result<Response<GetImportResponse>, Status> {
        let id = convert::import_id(request.into_inner().import_id)?;
        let import = self.record(id).await?;
        Ok(Response::new(GetImportResponse {
            import: Some(import.into()),
        }))
    }

    async fn list_imports(
        &self,
        request: Request<ListImportsRequest>,
    ) -> Result<Response<ListImportsResponse>, Status> {
        let request = request.into_inner();
        let list = NewestFirst::new(&convert::LIST_KEY, request.page_size, &request.page_token)?;
        let rows = imports::list(&self.pool, list.before, list.page_size + 1).await?;
        let (imports, next_page_token) = page::cut(rows, list.page_size, &convert::LIST_KEY, |row| row.id);
        Ok(Response::new(ListImportsResponse {
            imports,
            next_page_token,
        }))
    }

    async fn undo_import(&self, request: Request<UndoImportRequest>) -> Result<Response<UndoImportResponse>, Status> {
        let caller = caller(&request)?;
        let id = convert::import_id(request.into_inner().import_id)?;
        let (pool, live) = (self.pool.clone(), self.live.clone());
        // Undoing a large import takes longer than a call may, and goes on without it.
        let undoing = tokio::spawn(async move {
            let undone = imports::undo(&pool, id, &caller.name).await?;
            publish(&live).await;
            Ok::<_, imports::UndoError>(undone)
        });
        let undone = undoing
            .await
            .map_err(|error| status::background_task_failed(&error))??;
        let import = self.record(id).await?;
        Ok(Response::new(convert::undone(undone, import)))
    }
}
