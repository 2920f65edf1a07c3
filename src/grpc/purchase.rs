//! PurchaseService.

mod convert;

use chrono::Utc;
use tonic::{Request, Response, Status, Streaming};

use crate::live::Live;
use crate::store::postgres::pool::Pool;
use crate::store::purchases::{self, PurchaseCursor};
use domain::purchase;

use self::convert::ListRequest;
use super::proto::v1::purchase_service_server::PurchaseService;
use super::proto::v1::{
    EntryResult, IngestPurchasesRequest, IngestPurchasesResponse, ListPurchasesRequest, ListPurchasesResponse,
    PurchaseLine, RecordPurchasesRequest, RecordPurchasesResponse,
};
use super::{batch, page};

pub struct PurchaseHandler {
    pub pool: Pool,
    pub live: Live,
}

impl PurchaseHandler {
    async fn record(&self, lines: Vec<PurchaseLine>) -> Result<Vec<EntryResult>, Status> {
        let now = Utc::now();
        let convert = |line| convert::purchase_line(line, now);
        batch::write(lines, convert, async |lines| purchases::record(&self.pool, lines).await).await
    }
}

#[tonic::async_trait]
impl PurchaseService for PurchaseHandler {
    async fn record_purchases(
        &self,
        request: Request<RecordPurchasesRequest>,
    ) -> Result<Response<RecordPurchasesResponse>, Status> {
        let lines = request.into_inner().lines;
        batch::check_size("lines", lines.len())?;
        let results = self.record(lines).await?;
        self.live.refresh().await;
        Ok(Response::new(RecordPurchasesResponse { results }))
    }

    async fn ingest_purchases(
        &self,
        request: Request<Streaming<IngestPurchasesRequest>>,
    ) -> Result<Response<IngestPurchasesResponse>, Status> {
        let entries = |message: IngestPurchasesRequest| message.lines;
        let write = |lines| self.record(lines);
        let summary = batch::ingest(request, "lines", entries, write).await?;
        self.live.refresh().await;
        Ok(Response::new(IngestPurchasesResponse { summary: Some(summary) }))
    }

    async fn list_purchases(
        &self,
        request: Request<ListPurchasesRequest>,
    ) -> Result<Response<ListPurchasesResponse>, Status> {
        let list = ListRequest::try_from(request.into_inner())?;
        let rows = purchases::list(&self.pool, &list.owner, &list.cursor, list.page_size + 1).await?;
        let cursor = |line: &purchase::PurchaseLine| PurchaseCursor {
            order_id: line.order.to_string(),
            user_id: line.user.to_string(),
            item_id: line.item.to_string(),
            line_number: line.line_number,
        };
        let (rows, next_page_token) = page::cut(rows, list.page_size, &convert::owner_key(&list.owner), cursor);
        Ok(Response::new(ListPurchasesResponse {
            lines: rows.into_iter().map(PurchaseLine::from).collect(),
            next_page_token,
        }))
    }
}
