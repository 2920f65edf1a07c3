//! InventoryService.

mod convert;
mod list;

use std::sync::Arc;

use chrono::Utc;
use tonic::{Request, Response, Status};

use crate::app::demand::forecast::Sales;
use crate::app::demand::replenishment;
use crate::app::demand::simulate::simulate;
use crate::live::Live;
use crate::store::inventory;
use crate::store::postgres::pool::Pool;
use recommender::snapshot::view::View;

use self::list::ReplenishmentStream;
use super::batch::{self, Batch};
use super::caller::{caller, ends, stream_authorization};
use super::proto::v1::inventory_service_server::InventoryService;
use super::proto::v1::{
    DeleteReplenishmentPolicyRequest, DeleteReplenishmentPolicyResponse, ListInventoryPositionsRequest,
    ListInventoryPositionsResponse, ListReplenishmentPoliciesRequest, ListReplenishmentPoliciesResponse,
    ListReplenishmentRequest, SimulateReplenishmentRequest, SimulateReplenishmentResponse,
    UpsertInventoryPositionsRequest, UpsertInventoryPositionsResponse, UpsertReplenishmentPoliciesRequest,
    UpsertReplenishmentPoliciesResponse,
};
use super::{cpu_pool, page, status};

pub struct InventoryHandler {
    pub pool: Pool,
    pub live: Live,
}

impl InventoryHandler {
    fn view(&self) -> Result<Arc<View>, Status> {
        self.live.view().ok_or_else(|| status::no_snapshot(&self.live.status()))
    }
}

#[tonic::async_trait]
impl InventoryService for InventoryHandler {
    type ListReplenishmentStream = ReplenishmentStream;

    async fn upsert_inventory_positions(
        &self,
        request: Request<UpsertInventoryPositionsRequest>,
    ) -> Result<Response<UpsertInventoryPositionsResponse>, Status> {
        let positions = request.into_inner().positions;
        batch::check_size("positions", positions.len())?;
        let now = Utc::now();
        // The policies say which counts are old, so that they should be the present ones.
        self.live.publish_inventory().await;
        let warnings = convert::warnings(&positions, &self.live, now);
        let results = Batch::convert(positions, |position| convert::position(position, now))
            .write(async |positions| inventory::upsert_positions(&self.pool, positions).await)
            .await?;
        self.live.publish_inventory().await;
        let warnings = convert::of_accepted(warnings, &results);
        Ok(Response::new(UpsertInventoryPositionsResponse { results, warnings }))
    }

    async fn list_inventory_positions(
        &self,
        request: Request<ListInventoryPositionsRequest>,
    ) -> Result<Response<ListInventoryPositionsResponse>, Status> {
        let list = convert::list_positions(request.into_inner())?;
        let (item, at) = &list.after;
        let rows = inventory::list_positions(&self.pool, list.item.as_ref(), (item, *at), list.page_size + 1).await?;
        let (positions, next_page_token) = page::cut(rows, list.page_size, &list.key(), convert::position_cursor);
        Ok(Response::new(ListInventoryPositionsResponse {
            positions,
            next_page_token,
        }))
    }

    async fn upsert_replenishment_policies(
        &self,
        request: Request<UpsertReplenishmentPoliciesRequest>,
    ) -> Result<Response<UpsertReplenishmentPoliciesResponse>, Status> {
        let policies = request.into_inner().policies;
        batch::check_size("policies", policies.len())?;
        let results = Batch::convert(policies, convert::policy)
            .write(async |policies| inventory::upsert_policies(&self.pool, policies).await)
            .await?;
        self.live.publish_inventory().await;
        Ok(Response::new(UpsertReplenishmentPoliciesResponse { results }))
    }

    async fn list_replenishment_policies(
        &self,
        request: Request<ListReplenishmentPoliciesRequest>,
    ) -> Result<Response<ListReplenishmentPoliciesResponse>, Status> {
        let list = convert::list_policies(&request.into_inner())?;
        let (scope, id) = &list.after;
        let rows = inventory::list_policies(&self.pool, (scope, id), list.page_size + 1).await?;
        let (policies, next_page_token) =
            page::cut(rows, list.page_size, &convert::POLICIES_KEY, convert::policy_cursor);
        Ok(Response::new(ListReplenishmentPoliciesResponse {
            policies,
            next_page_token,
        }))
    }

    async fn delete_replenishment_policy(
        &self,
        request: Request<DeleteReplenishmentPolicyRequest>,
    ) -> Result<Response<DeleteReplenishmentPolicyResponse>, Status> {
        let scope = convert::required_scope(request.into_inner().scope)?;
        if !inventory::delete_policy(&self.pool, &scope).await? {
            let message = format!("there is no policy of {} {}", scope.kind(), scope.id());
            return Err(status::not_found("POLICY_NOT_FOUND", message.trim_end()));
        }
        self.live.publish_inventory().await;
        Ok(Response::new(DeleteReplenishmentPolicyResponse {}))
    }

    async fn list_replenishment(
        &self,
        request: Request<ListReplenishmentRequest>,
    ) -> Result<Response<ReplenishmentStream>, Status> {
        let (caller, authorization) = (caller(&request)?, stream_authorization(&request)?);
        let ends = ends(&request);
        let wanted = convert::replenishment(request.into_inner(), &caller)?;
        let (view, fresh, inventory) = (self.view()?, self.live.fresh_sales(), self.live.inventory());
        if !inventory.is_loaded() {
            return Err(status::not_loaded());
        }
        let now = Utc::now();
        let listed = cpu_pool::run(usize::MAX, move || {
            let model = view.snapshot.demand().map_err(status::no_demand_model)?;
            let sales = Sales::new(&view, model, &fresh, now);
            let list = replenishment::list(&sales, &inventory, &wanted.request, now, &caller);
            Ok::<_, Status>(convert::messages(&view, list, &wanted, now))
        });
        Ok(Response::new(list::stream(listed.await??, authorization, ends)))
    }

    async fn simulate_replenishment(
        &self,
        request: Request<SimulateReplenishmentRequest>,
    ) -> Result<Response<SimulateReplenishmentResponse>, Status> {
        let options = convert::simulation_options(&request.into_inner())?;
        let view = self.view()?;
        let answer = cpu_pool::run(usize::MAX, move || {
            let model = view.snapshot.demand().map_err(status::no_demand_model)?;
            let found = simulate(&view, model, &options);
            let found = found.ok_or_else(status::history_too_short)?;
            Ok::<_, Status>(convert::simulation(&view, found))
        });
        Ok(Response::new(answer.await??))
    }
}
