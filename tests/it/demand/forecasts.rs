//! DemandService and the commands of forecasts.

use likemind::grpc::proto::v1::demand_service_client::DemandServiceClient;
use likemind::grpc::proto::v1::{
    BacktestDemandRequest, DemandClass, ForecastConfidence, ForecastDemandRequest, ForecastDemandResponse,
    ForecastItems, forecast_demand_request::Of,
};
use serde_json::Value;
use tonic::{Code, Status};

use super::sales::{self, BULK_ITEMS};
use crate::support::answers::assert_status;
use crate::support::api_keys::{WithKey, create_key};
use crate::support::caller::Caller;
use crate::support::postgres::execute;
use crate::support::program::{Server, run, succeed};
use crate::support::shop;
use crate::support::waiting::soon;

fn of_items(items: &[&str]) -> ForecastDemandRequest {
    ForecastDemandRequest {
        of: Some(Of::Items(ForecastItems {
            item_ids: items.iter().map(|item| (*item).to_owned()).collect(),
        })),
        horizon_weeks: 4,
        levels: vec![0.1, 0.5, 0.9],
        ..ForecastDemandRequest::default()
    }
}

async fn forecast(caller: &Caller, request: ForecastDemandRequest) -> ForecastDemandResponse {
    caller
        .demand
        .clone()
        .forecast_demand(request)
        .await
        .unwrap()
        .into_inner()
}

#[track_caller]
fn assert_near(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{found} is not {expected}");
}

#[tokio::test]
async fn forecasts_follow_the_weekly_sales() {
    let database = sales::open().await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    let answer = forecast(&caller, of_items(&["seldom", "steady", "never", "unheard-of"])).await;
    assert_eq!((answer.snapshot_version, answer.left_out_share), (1, 0.0));
    let confidences: Vec<_> = answer.items.iter().map(|item| item.confidence()).collect();
    assert_eq!(
        confidences[1..],
        [
            ForecastConfidence::Normal,
            ForecastConfidence::NoHistory,
            ForecastConfidence::UnknownItem
        ]
    );
    let [seldom, steady, never, _] = &answer.items[..] else {
        panic!("{answer:?}")
    };
    assert_near(steady.expected_units, 40.0, 2.0);
    assert_near(steady.median_units, 40.0, 2.0);
    assert_eq!((steady.demand_class(), steady.history_weeks), (DemandClass::Smooth, 40));
    assert_eq!((steady.weeks_with_sales, steady.weeks.len()), (40, 4));
    assert_near(steady.weeks[0].expected_units, 10.0, 0.5);
    assert_eq!(steady.weeks[3].quantiles, steady.quantiles);
    // 6 in every third week.
    assert_near(seldom.expected_units, 8.0, 3.0);
    assert_eq!(seldom.demand_class(), DemandClass::Intermittent);
    assert!(seldom.quantiles.is_sorted_by(|a, b| a.units <= b.units), "{seldom:?}");
    assert_eq!((never.expected_units, never.quantiles.len()), (0.0, 0));
    let total = answer.total.unwrap();
    assert_eq!(total.items, 2);
    assert_near(
        total.expected_units,
        seldom.expected_units + steady.expected_units,
        1e-9,
    );
    let quality = &answer.quality[0];
    assert_eq!((quality.demand_class, quality.origins), (None, 3));
    assert!(quality.wape < 0.3 && quality.items >= BULK_ITEMS as i64, "{quality:?}");

    // The series tell everything here, so that what users are expected to buy adds nothing.
    let collaborative = &answer.collaborative[0];
    assert_eq!((collaborative.demand_class, collaborative.origins), (None, 2));
    assert_eq!(collaborative.wape_with, collaborative.wape_without);
    assert!(collaborative.wape_alone > collaborative.wape_with, "{collaborative:?}");
    let classes = &answer.collaborative[1..];
    assert!(classes.iter().all(|row| row.weight == Some(0.0)), "{classes:?}");
    assert_eq!((steady.collaborative_weight, seldom.collaborative_weight), (0.0, 0.0));

    let backtest = BacktestDemandRequest {
        origins: 2,
        ..BacktestDemandRequest::default()
    };
    let found = caller
        .demand
        .clone()
        .backtest_demand(backtest)
        .await
        .unwrap()
        .into_inner();
    for method in ["chosen", "naive", "IMAPA"] {
        let rows = found.points.iter();
        let overall = rows.filter(|row| row.method == method && row.demand_class.is_none());
        assert_eq!(overall.count(), 2, "{method}");
    }
    assert_eq!(
        found
            .distributions
            .iter()
            .filter(|row| row.demand_class.is_none())
            .count(),
        2
    );
}

#[tokio::test]
async fn a_category_or_merchant_is_forecast_whole_and_listed_in_part() {
    let database = sales::open().await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    for of in [Of::Category("bulk".to_owned()), Of::MerchantId("big".to_owned())] {
        let request = ForecastDemandRequest {
            of: Some(of),
            limit: 3,
            ..of_items(&[])
        };
        let answer = forecast(&caller, request).await;
        let total = answer.total.unwrap();
        assert_eq!((answer.items.len(), total.items), (3, BULK_ITEMS as i64));
        assert_near(total.expected_units, 5.0 * 4.0 * BULK_ITEMS as f64, 30.0);
        // The group sells the same in every week.
        assert_near(total.quantiles[2].units, total.expected_units, 1.0);
    }
}

#[tokio::test]
async fn what_is_sold_after_the_training_is_forecast_too() {
    let database = sales::open().await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    caller.buy("late", 1, "even", "never", 12).await;
    caller.buy("late", 1, "even", "brand-new", 12).await;
    let answer = soon(
        "new items are forecast",
        async || forecast(&caller, of_items(&["never", "brand-new"])).await,
        |answer| {
            let is_new = |item: &likemind::grpc::proto::v1::ItemForecast| item.confidence() == ForecastConfidence::Low;
            answer.items.iter().all(is_new)
        },
    )
    .await;
    for item in answer.items {
        assert!(item.expected_units > 0.0, "{item:?}");
    }
    // Units that come back were not sold.
    caller.buy("late", 2, "even", "never", -12).await;
    soon(
        "returned units are not forecast",
        async || forecast(&caller, of_items(&["never"])).await,
        |answer| answer.items[0].confidence() == ForecastConfidence::NoHistory,
    )
    .await;
}

#[tokio::test]
async fn sales_of_users_who_refuse_training_are_not_read_but_made_up_for() {
    let database = sales::open().await;
    let refuse = "INSERT INTO consents (user_id, purpose, is_granted, decided_at, source)
                  SELECT id, 'training', false, now(), 'test' FROM users WHERE external_id = 'odd'";
    execute(&mut database.connect().await, refuse).await;
    shop::train(database.url());
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    let answer = forecast(&caller, of_items(&["steady"])).await;
    assert_eq!(answer.snapshot_version, 2);
    assert_near(answer.left_out_share, 0.5, 1e-9);
    assert_near(answer.items[0].expected_units, 40.0, 2.0);
}

#[tokio::test]
async fn a_merchants_key_forecasts_only_its_own_items() {
    let database = sales::open().await;
    let key = create_key(&database, &["--role", "marketer", "--merchant", "small"]);
    let server = Server::start(&database);
    let own = DemandServiceClient::with_interceptor(server.channel().await, WithKey::new(Some(&key)));
    let ask = async |request| -> Result<ForecastDemandResponse, Status> {
        Ok(own.clone().forecast_demand(request).await?.into_inner())
    };
    let answer = ask(of_items(&["steady", "bulk-00", "unheard-of"])).await.unwrap();
    let confidences: Vec<_> = answer.items.iter().map(|item| item.confidence()).collect();
    let unknown = ForecastConfidence::UnknownItem;
    assert_eq!(confidences, [ForecastConfidence::Normal, unknown, unknown]);
    let of = |of: Of| ForecastDemandRequest {
        of: Some(of),
        ..of_items(&[])
    };
    assert_eq!(ask(of(Of::Category("bulk".to_owned()))).await.unwrap().items, []);
    assert_eq!(
        ask(of(Of::MerchantId("small".to_owned()))).await.unwrap().items.len(),
        3
    );
    let refused = ask(of(Of::MerchantId("big".to_owned()))).await.unwrap_err();
    assert_status(&refused, Code::PermissionDenied, "FOREIGN_MERCHANT");
}

#[tokio::test]
async fn a_snapshot_without_sales_is_published_and_says_why_nothing_is_forecast() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    let refused = caller
        .demand
        .clone()
        .forecast_demand(of_items(&["i01"]))
        .await
        .unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "NO_DEMAND_MODEL");
    assert!(refused.message().contains("no sales"), "{refused:?}");
    assert!(!caller.ranked("u001").await.items.is_empty());
    let (exit, _, error) = run(&database, &["forecast", "i01"]);
    assert_eq!(exit, 1);
    assert!(error.contains("there are no sales in a week that is over"), "{error}");
}

#[tokio::test]
async fn commands_forecast_and_evaluate() {
    let database = sales::open().await;
    let csv = succeed(
        &database,
        &[
            "forecast", "steady", "never", "--weeks", "4", "--levels", "0.5,0.9", "--format", "csv",
        ],
    );
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    assert_eq!(
        reader.headers().unwrap(),
        "item_id weeks expected_units point_units q0.5 q0.9 class confidence method history_weeks"
            .split(' ')
            .collect::<Vec<_>>()
    );
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_near(rows[0][2].parse().unwrap(), 40.0, 2.0);
    assert_eq!((&rows[0][6], &rows[1][2], &rows[1][7]), ("smooth", "", "NO_HISTORY"));

    let json = succeed(&database, &["forecast", "--category", "tea", "--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["items"][0]["item_id"], "steady");
    assert_eq!(json["items"].as_array().unwrap().len(), 3);
    assert_eq!(json["total"]["items"], 2);
    let table = succeed(&database, &["forecast", "steady", "seldom"]);
    assert!(table.contains("steady") && table.contains("all 2 items"), "{table}");
    assert_eq!(run(&database, &["forecast"]).0, 2);
    assert_eq!(run(&database, &["forecast", "steady", "--levels", "1.5"]).0, 2);

    let json = succeed(&database, &["evaluate", "demand", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let points = json["points"].as_array().unwrap();
    let chosen = points
        .iter()
        .filter(|row| row["method"] == "chosen" && row["class"].is_null());
    assert_eq!(chosen.count(), 3);
    let table = succeed(
        &database,
        &["evaluate", "demand", "--by", "category", "--min-weeks", "5"],
    );
    assert!(table.contains("2 series"), "{table}");
}
