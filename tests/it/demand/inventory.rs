//! InventoryService and the commands of replenishment.

use chrono::{DateTime, Duration, Utc};
use likemind::grpc::proto::v1::inventory_service_client::InventoryServiceClient;
use likemind::grpc::proto::v1::list_replenishment_response::Message;
use likemind::grpc::proto::v1::replenishment_policy::Goal;
use likemind::grpc::proto::v1::{
    DeleteReplenishmentPolicyRequest, EntryOutcome, InventoryPosition, ListInventoryPositionsRequest,
    ListReplenishmentPoliciesRequest, ListReplenishmentRequest, ListReplenishmentResponse, OnOrder, PolicyScope,
    QuantityReason, ReplenishmentHeader, ReplenishmentPolicy, ReplenishmentRow, SimulateReplenishmentRequest,
    StockAlert, UpsertInventoryPositionsRequest, UpsertInventoryPositionsResponse, UpsertReplenishmentPoliciesRequest,
    policy_scope::Of,
};
use tonic::{Code, Response, Status, Streaming};

use super::sales;
use crate::support::answers::{all_pages, assert_outcomes, assert_status};
use crate::support::api_keys::{WithKey, create_key};
use crate::support::caller::{Caller, pounds};
use crate::support::postgres::{TestDatabase, scratch};
use crate::support::program::{Server, run, succeed};
use crate::support::waiting::soon;

const STORED: Result<EntryOutcome, (&str, &str)> = Ok(EntryOutcome::Stored);
const MERGED: Result<EntryOutcome, (&str, &str)> = Ok(EntryOutcome::Merged);

fn at(time: DateTime<Utc>) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: time.timestamp(),
        nanos: 0,
    })
}

fn count(item: &str, on_hand: f64) -> InventoryPosition {
    InventoryPosition {
        item_id: item.to_owned(),
        on_hand,
        on_order: Vec::new(),
        backordered: 0.0,
        counted_at: at(Utc::now()),
    }
}

fn scope(of: Of) -> Option<PolicyScope> {
    Some(PolicyScope { of: Some(of) })
}

fn policy(of: Of, lead_time_days: f64) -> ReplenishmentPolicy {
    ReplenishmentPolicy {
        scope: scope(of),
        lead_time_days,
        review_period_days: 7.0,
        goal: Some(Goal::CycleServiceLevel(0.9)),
        ..ReplenishmentPolicy::default()
    }
}

async fn put_counts(caller: &Caller, positions: Vec<InventoryPosition>) -> UpsertInventoryPositionsResponse {
    let request = UpsertInventoryPositionsRequest { positions };
    caller
        .inventory
        .clone()
        .upsert_inventory_positions(request)
        .await
        .unwrap()
        .into_inner()
}

async fn put_policies(caller: &Caller, policies: Vec<ReplenishmentPolicy>) {
    let request = UpsertReplenishmentPoliciesRequest { policies };
    let answer = caller
        .inventory
        .clone()
        .upsert_replenishment_policies(request)
        .await
        .unwrap()
        .into_inner();
    for result in answer.results {
        assert_ne!(result.outcome(), EntryOutcome::Rejected, "{result:?}");
    }
}

type Listed = Result<(ReplenishmentHeader, Vec<ReplenishmentRow>), Status>;

/// Returns the header and the rows of a stream.
async fn collect(answer: Result<Response<Streaming<ListReplenishmentResponse>>, Status>) -> Listed {
    let mut stream = answer?.into_inner();
    let (mut header, mut rows) = (None, Vec::new());
    while let Some(message) = stream.message().await? {
        match message.message.unwrap() {
            Message::Header(found) => header = Some(found),
            Message::Row(row) => rows.push(row),
        }
    }
    Ok((header.unwrap(), rows))
}

async fn replenishment(caller: &Caller, request: ListReplenishmentRequest) -> Listed {
    collect(caller.inventory.clone().list_replenishment(request).await).await
}

#[tokio::test]
async fn the_latest_count_is_in_force_and_every_count_is_kept() {
    let database = sales::open().await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    let now = Utc::now();
    let first = InventoryPosition {
        counted_at: at(now - Duration::days(2)),
        on_order: vec![OnOrder {
            quantity: 12.0,
            expected_at: at(now + Duration::days(3)),
        }],
        ..count("steady", 40.0)
    };
    let answer = put_counts(&caller, vec![first.clone(), count("brand-new", 1.0)]).await;
    assert_outcomes(&answer.results, &[STORED, STORED]);
    let later = count("steady", 30.0);
    let answer = put_counts(&caller, vec![first.clone(), later.clone()]).await;
    assert_outcomes(&answer.results, &[MERGED, STORED]);
    // An older count is kept and changes nothing.
    let oldest = InventoryPosition {
        counted_at: at(now - Duration::days(9)),
        ..count("steady", 7.0)
    };
    let bad = InventoryPosition {
        on_hand: f64::NAN,
        ..count("steady", 0.0)
    };
    let answer = put_counts(&caller, vec![oldest.clone(), bad]).await;
    assert_outcomes(&answer.results, &[STORED, Err(("on_hand", "QUANTITY_OUT_OF_RANGE"))]);

    let list = |item_id: Option<&str>, page_token: String| ListInventoryPositionsRequest {
        item_id: item_id.map(str::to_owned),
        page_size: 1,
        page_token,
    };
    let pages = |item: Option<&'static str>| {
        let caller = caller.clone();
        all_pages(move |token| {
            let mut inventory = caller.inventory.clone();
            let request = list(item, token);
            async move {
                let answer = inventory.list_inventory_positions(request).await.unwrap().into_inner();
                (answer.positions, answer.next_page_token)
            }
        })
    };
    assert_eq!(pages(Some("steady")).await.0, [later.clone(), first, oldest]);
    let latest = pages(None).await.0;
    assert_eq!(
        latest.iter().map(|found| found.item_id.as_str()).collect::<Vec<_>>(),
        ["brand-new", "steady"]
    );
    assert_eq!(latest[1], later);
}

#[tokio::test]
async fn a_list_says_what_to_order_and_why() {
    let database = sales::open().await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    let now = Utc::now();
    let late = OnOrder {
        quantity: 4.0,
        expected_at: at(now - Duration::days(1)),
    };
    let nothing_left = InventoryPosition {
        on_order: vec![late],
        backordered: 2.0,
        ..count("steady", 1.0)
    };
    let counts = vec![
        nothing_left,
        count("bulk-00", 5_000.0),
        count("never", 3.0),
        count("seldom", 40.0),
    ];
    put_counts(&caller, counts).await;
    // Nothing is listed without a policy, and its absence is told.
    let (header, rows) = replenishment(&caller, ListReplenishmentRequest::default())
        .await
        .unwrap();
    assert_eq!((header.items_without_policy, rows.len()), (4, 0));

    let tea = ReplenishmentPolicy {
        order_multiple: Some(6.0),
        unit_cost: Some(pounds(250)),
        ..policy(Of::Category("tea".to_owned()), 14.0)
    };
    put_policies(&caller, vec![policy(Of::AllItems(true), 7.0), tea]).await;
    let (header, rows) = replenishment(&caller, ListReplenishmentRequest::default())
        .await
        .unwrap();
    assert_eq!(
        (header.snapshot_version, header.rows, header.items_without_policy),
        (1, 4, 0)
    );
    let steady = &rows[0];
    assert_eq!((steady.item_id.as_str(), steady.rank), ("steady", 1));
    assert_eq!((steady.position, steady.on_order, steady.late_units), (3.0, 4.0, 4.0));
    // 10 a week in three weeks, less 3, as a multiple of 6.
    assert_eq!(
        (steady.recommended_units, steady.quantity_reason()),
        (30.0, QuantityReason::RoundedToMultiple)
    );
    assert_eq!(steady.recommended_cost, Some(pounds(7_500)));
    assert!((29.0..=32.0).contains(&steady.order_up_to), "{steady:?}");
    assert!(steady.stock_out_probability > 0.95, "{steady:?}");
    let alerts: Vec<StockAlert> = steady.alerts().collect();
    assert_eq!(alerts, [StockAlert::StockOut, StockAlert::LateOrder]);
    assert!(
        steady.reasons.iter().any(|reason| reason.contains("position is 3.0")),
        "{steady:?}"
    );

    let of = |item: &str| rows.iter().find(|row| row.item_id == item).unwrap();
    let bulk = of("bulk-00");
    assert_eq!(
        (bulk.recommended_units, bulk.quantity_reason()),
        (0.0, QuantityReason::NotDue)
    );
    // At most 5 a week are sold in 26 weeks.
    assert!((4_800.0..=4_900.0).contains(&bulk.overstock_units), "{bulk:?}");
    assert_eq!(bulk.alerts().collect::<Vec<_>>(), [StockAlert::Overstock]);
    assert!(of("never").alerts().any(|alert| alert == StockAlert::DeadStock));

    let only_alerts = ListReplenishmentRequest {
        only_alerts: true,
        category: Some("tea".to_owned()),
        ..ListReplenishmentRequest::default()
    };
    let (_, rows) = replenishment(&caller, only_alerts).await.unwrap();
    assert!(
        rows.iter()
            .all(|row| !row.alerts.is_empty() && !row.item_id.starts_with("bulk")),
        "{rows:?}"
    );
}

#[tokio::test]
async fn sales_since_the_count_are_taken_off_and_a_longer_lead_time_orders_more() {
    let database = sales::open().await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    let counted = InventoryPosition {
        counted_at: at(Utc::now() - Duration::hours(1)),
        ..count("steady", 50.0)
    };
    put_counts(&caller, vec![counted]).await;
    put_policies(&caller, vec![policy(Of::AllItems(true), 7.0)]).await;
    let list = async || {
        replenishment(&caller, ListReplenishmentRequest::default())
            .await
            .unwrap()
            .1
            .remove(0)
    };
    assert_eq!((list().await.position, list().await.recommended_units), (50.0, 0.0));
    caller.buy("fresh", 1, "even", "steady", 45).await;
    let row = soon("sales are taken off", list, |row| row.position == 5.0).await;
    assert!((14.0..=16.0).contains(&row.recommended_units), "{row:?}");

    put_policies(&caller, vec![policy(Of::ItemId("steady".to_owned()), 28.0)]).await;
    let row = list().await;
    assert_eq!(row.policy_scope, scope(Of::ItemId("steady".to_owned())));
    assert!((44.0..=47.0).contains(&row.recommended_units), "{row:?}");

    let delete = DeleteReplenishmentPolicyRequest {
        scope: scope(Of::ItemId("steady".to_owned())),
    };
    caller
        .inventory
        .clone()
        .delete_replenishment_policy(delete.clone())
        .await
        .unwrap();
    assert!((14.0..=16.0).contains(&list().await.recommended_units));
    let gone = caller
        .inventory
        .clone()
        .delete_replenishment_policy(delete)
        .await
        .unwrap_err();
    assert_status(&gone, Code::NotFound, "POLICY_NOT_FOUND");
}

#[tokio::test]
async fn a_budget_is_spent_where_it_sells_most() {
    let database = sales::open().await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    put_counts(
        &caller,
        vec![count("steady", 0.0), count("bulk-00", 0.0), count("bulk-01", 0.0)],
    )
    .await;
    let costing = |of: Of, amount_minor: i64| ReplenishmentPolicy {
        unit_cost: Some(pounds(amount_minor)),
        ..policy(of, 7.0)
    };
    let free = policy(Of::ItemId("bulk-01".to_owned()), 7.0);
    put_policies(
        &caller,
        vec![
            costing(Of::AllItems(true), 1_000),
            costing(Of::ItemId("steady".to_owned()), 100),
            free,
        ],
    )
    .await;
    let request = ListReplenishmentRequest {
        budget: Some(pounds(2_500)),
        ..ListReplenishmentRequest::default()
    };
    let (header, rows) = replenishment(&caller, request).await.unwrap();
    assert_eq!(header.item_ids_without_cost, ["bulk-01"]);
    let units = |item: &str| rows.iter().find(|row| row.item_id == item).unwrap().budget_units;
    // The cheap item first, and what is left buys whole units of the other.
    assert!((18.0..=21.0).contains(&units("steady").unwrap()), "{rows:?}");
    assert_eq!((units("bulk-00"), units("bulk-01")), (Some(0.0), None));
    let spent = header.budget_spent.unwrap();
    assert!(spent.amount_minor <= 2_500 && spent.amount_minor >= 1_800, "{spent:?}");
}

#[tokio::test]
async fn an_old_count_is_stored_with_a_warning() {
    let database = sales::open().await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    put_policies(&caller, vec![policy(Of::AllItems(true), 7.0)]).await;
    let old = InventoryPosition {
        counted_at: at(Utc::now() - Duration::days(8)),
        ..count("steady", 5.0)
    };
    let refused = InventoryPosition {
        backordered: -1.0,
        ..old.clone()
    };
    let answer = put_counts(&caller, vec![count("seldom", 5.0), old, refused]).await;
    assert_outcomes(
        &answer.results,
        &[STORED, STORED, Err(("backordered", "QUANTITY_OUT_OF_RANGE"))],
    );
    let warned: Vec<_> = answer
        .warnings
        .iter()
        .map(|warning| (warning.index, warning.reason.as_str()))
        .collect();
    assert_eq!(warned, [(1, "COUNT_IS_OLD")]);
    assert!(
        answer.warnings[0].message.contains("review period of 7 days"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_merchants_key_lists_only_its_own_items() {
    let database = sales::open().await;
    let key = create_key(&database, &["--role", "marketer", "--merchant", "small"]);
    let admin = create_key(&database, &["--role", "admin"]);
    let server = Server::start(&database);
    let channel = server.channel().await;
    let own = InventoryServiceClient::with_interceptor(channel.clone(), WithKey::new(Some(&key)));
    let admin = InventoryServiceClient::with_interceptor(channel, WithKey::new(Some(&admin)));
    let positions = vec![count("steady", 1.0), count("bulk-00", 1.0)];
    admin
        .clone()
        .upsert_inventory_positions(UpsertInventoryPositionsRequest { positions })
        .await
        .unwrap();
    let policies = vec![policy(Of::AllItems(true), 7.0)];
    admin
        .clone()
        .upsert_replenishment_policies(UpsertReplenishmentPoliciesRequest { policies })
        .await
        .unwrap();
    let (header, rows) = collect(
        own.clone()
            .list_replenishment(ListReplenishmentRequest::default())
            .await,
    )
    .await
    .unwrap();
    assert_eq!((header.rows, rows[0].item_id.as_str()), (1, "steady"));
    let foreign = ListReplenishmentRequest {
        merchant_id: Some("big".to_owned()),
        ..ListReplenishmentRequest::default()
    };
    let refused = collect(own.clone().list_replenishment(foreign).await)
        .await
        .unwrap_err();
    assert_status(&refused, Code::PermissionDenied, "FOREIGN_MERCHANT");
}

#[tokio::test]
async fn weeks_without_stock_are_left_out_of_the_series() {
    let database = sales::open().await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    // In two of three weeks `seldom` could not be bought, as far as the counts say.
    let weeks = (1..=40).filter(|week| week % 3 != 2);
    let counts = weeks.map(|week| InventoryPosition {
        counted_at: at(Utc::now() - Duration::weeks(week)),
        ..count("seldom", 0.0)
    });
    put_counts(&caller, counts.collect()).await;
    let forecast = async || {
        let csv = succeed(&database, &["forecast", "seldom", "--weeks", "4", "--format", "csv"]);
        csv.lines()
            .nth(1)
            .unwrap()
            .split(',')
            .nth(2)
            .unwrap()
            .parse::<f64>()
            .unwrap()
    };
    let before = forecast().await;
    succeed(&database, &["train", "--set-config=gate.min_users=1000000"]);
    let after = forecast().await;
    assert!(before < 12.0 && after > 20.0, "{before} and {after}");
}

#[tokio::test]
async fn commands_list_and_evaluate_replenishment() {
    let database = sales::open().await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    put_counts(&caller, vec![count("steady", 1.0), count("bulk-00", 900.0)]).await;
    let costing = ReplenishmentPolicy {
        unit_cost: Some(pounds(100)),
        ..policy(Of::AllItems(true), 7.0)
    };
    put_policies(&caller, vec![costing]).await;
    let policies = caller
        .inventory
        .clone()
        .list_replenishment_policies(ListReplenishmentPoliciesRequest::default())
        .await
        .unwrap()
        .into_inner()
        .policies;
    assert_eq!(
        (policies.len(), policies[0].order_multiple, policies[0].max_cover_days),
        (1, Some(1.0), Some(182.0))
    );

    let csv = succeed(&database, &["replenish", "--budget", "5 GBP"]);
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let columns: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let field =
        |row: &csv::StringRecord, name: &str| row[columns.iter().position(|column| column == name).unwrap()].to_owned();
    assert_eq!(
        (field(&rows[0], "item_id"), field(&rows[0], "budget_units")),
        ("steady".to_owned(), "5".to_owned())
    );
    assert_eq!(field(&rows[1], "alerts"), "OVERSTOCK");
    assert!(field(&rows[0], "why").contains("The position is 1.0"), "{csv}");
    assert_eq!(run(&database, &["replenish", "--budget", "5"]).0, 2);
    assert_eq!(
        succeed(&database, &["replenish", "bulk-00", "--format", "jsonl"])
            .lines()
            .count(),
        1
    );

    let table = succeed(&database, &["evaluate", "replenishment", "--lead-times", "1,2"]);
    assert!(table.contains("Lead time 2 weeks, 32 items"), "{table}");
    let simulated = caller
        .inventory
        .clone()
        .simulate_replenishment(SimulateReplenishmentRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!((simulated.items, simulated.realized.len()), (32, 3));
    for row in simulated.realized {
        assert!(row.realized >= row.target - 0.02, "{row:?}");
    }
}

/// Imports a file with these lines.
fn import(database: &TestDatabase, kind: &str, lines: &str) -> (i32, String, String) {
    let folder = scratch();
    let file = folder.path().join("lines.csv");
    std::fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();
    run(database, &["import", kind, file, "--json", "--max-reject-share=1"])
}

#[tokio::test]
async fn a_merchandiser_works_with_files_alone() {
    let database = sales::open().await;
    let stock = "item_id,on_hand,on_order,expected_at\nsteady,4,2,2036-01-01\nseldom,1,,\nbulk-00,-1,,\nbulk-01,5,3,\nbulk-02,many,,\n";
    let (_, summary, _) = import(&database, "inventory", stock);
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(
        (&summary["stored"], &summary["rejected"]),
        (&2.into(), &3.into()),
        "{summary}"
    );
    let policies = |lead_time_days: u32| {
        format!(
            "scope,id,lead_time_days,review_period_days,fill_rate,order_multiple,unit_cost,currency\n\
             default,,{lead_time_days},7,0.95,1,2.50,GBP\nitem,steady,{lead_time_days},7,0.95,12,2.50,GBP\n\
             shelf,x,7,7,0.95,1,,\nitem,seldom,7,7,1.5,1,,\n"
        )
    };
    let (_, summary, _) = import(&database, "policies", &policies(7));
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(
        (&summary["stored"], &summary["rejected"]),
        (&2.into(), &2.into()),
        "{summary}"
    );
    let ordered = || {
        let csv = succeed(&database, &["replenish"]);
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        let rows = reader.records().map(Result::unwrap);
        let row = rows.into_iter().find(|row| &row[1] == "steady");
        row.unwrap()[2].parse::<f64>().unwrap()
    };
    // 20 in two weeks, less a position of 6, in dozens.
    assert_eq!(ordered(), 24.0);
    import(&database, "policies", &policies(28));
    assert_eq!(ordered(), 48.0);
}

#[tokio::test]
async fn imports_of_stock_and_policies_are_undone_on_every_server() {
    let database = sales::open().await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    let imported = |kind: &str, lines: &str| {
        let (code, summary, error) = import(&database, kind, lines);
        assert_eq!(code, 0, "{error}");
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        summary["import_id"].to_string()
    };
    let listed = async || {
        let (_, rows) = replenishment(&caller, ListReplenishmentRequest::default())
            .await
            .unwrap();
        let row = rows.into_iter().find(|row| row.item_id == "steady");
        row.map(|row| (row.on_hand, row.order_up_to))
    };
    let undo = |id: &str| succeed(&database, &["import", "undo", id]);

    let policies = |lead_time_days: u32| {
        format!("scope,lead_time_days,review_period_days,fill_rate\ndefault,{lead_time_days},7,0.95\n")
    };
    imported("policies", &policies(7));
    imported("inventory", "item_id,on_hand\nsteady,4\n");
    let right = soon("the item is listed", &listed, Option::is_some).await.unwrap();
    let wrong_policies = imported("policies", &policies(28));
    let longer = |row: &Option<(f64, f64)>| row.is_some_and(|row| row.0 == right.0 && row.1 > right.1);
    let long = soon("the longer lead time counts", &listed, longer).await.unwrap();
    let wrong_stock = imported("inventory", "item_id,on_hand\nsteady,400\n");
    let counted = |row: &Option<(f64, f64)>| *row == Some((400.0, long.1));
    soon("the new count is in force", &listed, counted).await;
    undo(&wrong_stock);
    soon("the count before is in force", &listed, |row| *row == Some(long)).await;
    undo(&wrong_policies);
    soon("the lead time before counts", &listed, |row| *row == Some(right)).await;
}
