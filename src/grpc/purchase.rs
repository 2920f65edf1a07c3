//! PurchaseService.

mod convert;

use chrono::Utc;
use tonic::{Request, Response, Status, Streaming};

use crate::live::Live;
use crate::store::postgres::pool::Pool;
use crate::store::purchases::{self, PurchaseCursor, deletion, orders};
use domain::purchase;

use self::convert::ListPurchases;
use super::batch::{self, Batch, Ingest};
use super::page;
use super::proto::v1::purchase_service_server::PurchaseService;
use super::proto::v1::{
    DeletePurchasesRequest, DeletePurchasesResponse, EntryResult, IngestPurchasesRequest, IngestPurchasesResponse,
    ListPurchasesRequest, ListPurchasesResponse, OrderResult, PurchaseDeletion, PurchaseLine, RecordOrdersRequest,
    RecordOrdersResponse, RecordPurchasesRequest, RecordPurchasesResponse,
};

pub struct PurchaseHandler {
    pub pool: Pool,
    pub live: Live,
}

impl PurchaseHandler {
    async fn record(&self, lines: Vec<PurchaseLine>) -> Result<Vec<EntryResult>, Status> {
        let now = Utc::now();
        Batch::convert(lines, |line| convert::purchase_line(line, now))
            .write(async |lines| purchases::record(&self.pool, lines).await)
            .await
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

    async fn record_orders(
        &self,
        request: Request<RecordOrdersRequest>,
    ) -> Result<Response<RecordOrdersResponse>, Status> {
        let orders = request.into_inner().orders;
        batch::check_size("orders", orders.len())?;
        batch::check_parts("orders", "lines", orders.iter().map(|order| order.lines.len()))?;
        let now = Utc::now();
        let results = Batch::convert(orders, |order| convert::order(order, now))
            .answer(async |orders| orders::record(&self.pool, orders).await)
            .await?;
        self.live.refresh().await;
        let results = results.into_iter().map(OrderResult::from).collect();
        Ok(Response::new(RecordOrdersResponse { results }))
    }

    async fn ingest_purchases(
        &self,
        request: Request<Streaming<IngestPurchasesRequest>>,
    ) -> Result<Response<IngestPurchasesResponse>, Status> {
        let mut ingest = Ingest::new(request, "lines", |message| message.lines)?;
        while let Some(lines) = ingest.next_batch().await? {
            ingest.record(self.record(lines).await?);
        }
        self.live.refresh().await;
        Ok(Response::new(IngestPurchasesResponse {
            summary: Some(ingest.into_summary()),
        }))
    }

    async fn delete_purchases(
        &self,
        request: Request<DeletePurchasesRequest>,
    ) -> Result<Response<DeletePurchasesResponse>, Status> {
        let selections = request.into_inner().selections;
        batch::check_size("selections", selections.len())?;
        let line_numbers = selections.iter().map(|selection| selection.line_numbers.len());
        batch::check_parts("selections", "line_numbers", line_numbers)?;
        let results = Batch::convert(selections, convert::selection)
            .answer(async |selections| deletion::delete(&self.pool, selections).await)
            .await?;
        self.live.refresh().await;
        let results = results.into_iter().map(PurchaseDeletion::from).collect();
        Ok(Response::new(DeletePurchasesResponse { results }))
    }

    async fn list_purchases(
        &self,
        request: Request<ListPurchasesRequest>,
    ) -> Result<Response<ListPurchasesResponse>, Status> {
        let list = ListPurchases::try_from(request.into_inner())?;
        let rows = purchases::list(&self.pool, &list.owner, &list.cursor, list.page_size + 1).await?;
        let cursor = |line: &purchase::PurchaseLine| PurchaseCursor {
            order_id: line.order.to_string(),
            user_id: line.user.to_string(),
            item_id: line.item.to_string(),
            line_number: line.line_number,
        };
        let (lines, next_page_token) = page::cut(rows, list.page_size, &convert::owner_key(&list.owner), cursor);
        Ok(Response::new(ListPurchasesResponse { lines, next_page_token }))
    }
}
