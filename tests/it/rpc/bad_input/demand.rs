//! The cases and valid requests of DemandService.

use likemind::grpc::proto::v1::{
    BacktestDemandRequest, ForecastDemandRequest, ForecastItems, forecast_demand_request::Of,
};
use prost::Message;

use super::cases::{Case, Change, f64s, i32s, id, limit, names, required};

pub fn cases(method: &str) -> Option<Vec<Case>> {
    Some(match method {
        "DemandService/ForecastDemand" => vec![
            required("of"),
            Case::free("items"),
            names("items.item_ids", 1, 1_000),
            id("items.item_ids[]"),
            id("category"),
            id("merchant_id"),
            horizon(),
            Case::free("levels")
                .bad("BATCH_SIZE_OUT_OF_RANGE", [Change::Times(21)])
                .good([1, 20].map(Change::Times)),
            Case::free("levels[]")
                .bad(
                    "OUT_OF_RANGE",
                    f64s([0.0, -0.0, 1.0, -0.5, 1.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]),
                )
                .good(f64s([0.5, 1e-9, 0.999_999])),
            limit(),
        ],
        "DemandService/BacktestDemand" => vec![up_to("origins", 12), horizon(), up_to("min_weeks_with_sales", 208)],
        _ => return None,
    })
}

fn horizon() -> Case {
    up_to("horizon_weeks", 26)
}

/// A number that has a default.
fn up_to(field: &str, most: i32) -> Case {
    Case::free(field)
        .bad("OUT_OF_RANGE", i32s([-1, most + 1, i32::MIN, i32::MAX]))
        .good(i32s([0, 1, most]))
}

pub fn valid_requests(method: &str) -> Option<Vec<Vec<u8>>> {
    let forecast = |of: Of| ForecastDemandRequest {
        of: Some(of),
        horizon_weeks: 4,
        levels: vec![0.9],
        limit: 5,
    };
    let items = ForecastItems {
        item_ids: vec!["x".to_owned(), "y".to_owned()],
    };
    Some(match method {
        "DemandService/ForecastDemand" => [
            Of::Items(items),
            Of::Category("mugs".to_owned()),
            Of::MerchantId("acme".to_owned()),
        ]
        .map(|of| forecast(of).encode_to_vec())
        .to_vec(),
        "DemandService/BacktestDemand" => vec![
            BacktestDemandRequest {
                origins: 1,
                horizon_weeks: 4,
                min_weeks_with_sales: 1,
            }
            .encode_to_vec(),
        ],
        _ => return None,
    })
}
