//! DemandService, which answers from memory.

mod convert;

use std::sync::Arc;

use chrono::Utc;
use tonic::{Request, Response, Status};

use crate::app::demand::backtest;
use crate::app::demand::forecast::{Sales, forecast};
use crate::live::Live;
use recommender::snapshot::view::View;

use super::caller::caller;
use super::proto::v1::demand_service_server::DemandService;
use super::proto::v1::{BacktestDemandRequest, BacktestDemandResponse, ForecastDemandRequest, ForecastDemandResponse};
use super::{cpu_pool, message_size, status};

pub struct DemandHandler {
    pub live: Live,
}

impl DemandHandler {
    fn view(&self) -> Result<Arc<View>, Status> {
        self.live.view().ok_or_else(|| status::no_snapshot(&self.live.status()))
    }
}

#[tonic::async_trait]
impl DemandService for DemandHandler {
    async fn forecast_demand(
        &self,
        request: Request<ForecastDemandRequest>,
    ) -> Result<Response<ForecastDemandResponse>, Status> {
        let caller = caller(&request)?;
        let wanted = convert::forecast_request(request.into_inner(), &caller)?;
        let (view, fresh) = (self.view()?, self.live.fresh_sales());
        let work = convert::estimated_work(&view, &wanted.request);
        let answer = cpu_pool::run(work, move || {
            let model = view.snapshot.demand().map_err(status::no_demand_model)?;
            let sales = Sales::new(&view, model, &fresh, Utc::now());
            let forecasts = forecast(&sales, &wanted.request, &caller);
            Ok::<_, Status>(convert::forecasts(&view, model, &wanted, forecasts))
        });
        let answer = answer.await??;
        message_size::check(prost::Message::encoded_len(&answer), "limit")?;
        Ok(Response::new(answer))
    }

    async fn backtest_demand(
        &self,
        request: Request<BacktestDemandRequest>,
    ) -> Result<Response<BacktestDemandResponse>, Status> {
        let options = convert::backtest_options(&request.into_inner())?;
        let view = self.view()?;
        let answer = cpu_pool::run(usize::MAX, move || {
            let model = view.snapshot.demand().map_err(status::no_demand_model)?;
            let found = backtest::backtest(&model.history, model.origin, &options);
            Ok::<_, Status>(convert::backtest(&view, model, found))
        });
        Ok(Response::new(answer.await??))
    }
}
