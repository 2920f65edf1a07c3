//! RecordOrders and DeletePurchases: which lines are kept.

mod delivery;
mod effects;

use likemind::grpc::proto::v1::purchase_service_client::PurchaseServiceClient;
use likemind::grpc::proto::v1::{
    DeletePurchasesRequest, DeletionOutcome, EntryOutcome, IngestPurchasesRequest, ListPurchasesRequest, Order,
    OrderLine, OrderOutcome, OrderResult, PurchaseDeletion, PurchaseLine, PurchaseSelection, RecordOrdersRequest,
    RecordPurchasesRequest, list_purchases_request::Of,
};
use tonic::transport::Channel;

use crate::support::answers::{assert_invalid, assert_nothing_internal, assert_outcomes};
use crate::support::caller::pounds;
use crate::support::postgres::{TestDatabase, number, scratch};
use crate::support::program::{Server, run};
use crate::support::times::at;

pub type Client = PurchaseServiceClient<Channel>;

use OrderOutcome::{Identical, Stored, Superseded};

/// Returns a line of `quantity` pieces for `pence` each.
pub fn line(line_number: i32, item: &str, quantity: i32, pence: i64) -> OrderLine {
    OrderLine {
        line_number,
        item_id: item.to_owned(),
        quantity,
        line_total: Some(pounds(i64::from(quantity) * pence)),
        purchased_at: None,
        coupon_discount_minor: 0,
    }
}

/// Returns the version of an order as of `second`. The order was placed at second 0.
pub fn order(id: &str, second: i64, user: &str, lines: &[OrderLine]) -> Order {
    Order {
        order_id: id.to_owned(),
        updated_at: at(second),
        user_id: user.to_owned(),
        purchased_at: at(0),
        lines: lines.to_vec(),
    }
}

pub fn cancellation(id: &str, second: i64) -> Order {
    Order {
        order_id: id.to_owned(),
        updated_at: at(second),
        ..Order::default()
    }
}

/// Returns the same lines as RecordPurchases takes them.
pub fn single_lines(order: &Order) -> Vec<PurchaseLine> {
    let line = |line: &OrderLine| PurchaseLine {
        order_id: order.order_id.clone(),
        line_number: line.line_number,
        user_id: order.user_id.clone(),
        item_id: line.item_id.clone(),
        quantity: line.quantity,
        line_total: line.line_total.clone(),
        purchased_at: line.purchased_at.or(order.purchased_at),
        coupon_discount_minor: line.coupon_discount_minor,
    };
    order.lines.iter().map(line).collect()
}

pub async fn record_all(client: &Client, orders: Vec<Order>) -> Vec<OrderResult> {
    let answer = client.clone().record_orders(RecordOrdersRequest { orders }).await;
    answer.unwrap().into_inner().results
}

/// Records the orders and asserts their outcomes, and the second of the version that is kept.
async fn assert_recorded(client: &Client, orders: Vec<Order>, expected: &[(OrderOutcome, i64)]) {
    let results = record_all(client, orders).await;
    let found: Vec<_> = results
        .iter()
        .map(|result| (result.outcome(), result.kept_updated_at))
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|&(outcome, second)| (outcome, at(second)))
        .collect();
    assert_eq!(found, expected);
    assert!(results.iter().all(|result| result.error.is_none()), "{results:?}");
}

async fn list(client: &Client, of: Of) -> Vec<PurchaseLine> {
    let request = ListPurchasesRequest {
        of: Some(of),
        page_size: 1_000,
        page_token: String::new(),
    };
    client.clone().list_purchases(request).await.unwrap().into_inner().lines
}

/// Returns the lines of an order, ascending by line number.
pub async fn lines_of(client: &Client, order: &str) -> Vec<PurchaseLine> {
    let mut lines = list(client, Of::OrderId(order.to_owned())).await;
    lines.sort_by_key(|line| line.line_number);
    lines
}

pub async fn delete(client: &Client, selections: &[PurchaseSelection]) -> Vec<PurchaseDeletion> {
    let request = DeletePurchasesRequest {
        selections: selections.to_vec(),
    };
    client
        .clone()
        .delete_purchases(request)
        .await
        .unwrap()
        .into_inner()
        .results
}

pub fn select(order: &str, line_numbers: &[i32]) -> PurchaseSelection {
    PurchaseSelection {
        order_id: order.to_owned(),
        line_numbers: line_numbers.to_vec(),
        user_id: None,
        item_id: None,
    }
}

#[tokio::test]
async fn the_newest_version_replaces_all_lines_of_the_others() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.purchases().await;
    let (a, b) = (800, 700);
    // Two of A and one of B, 23.00 in all, whose lines are swapped, whose customer is corrected and whose item is replaced.
    let mut versions = vec![
        order("GO3", 1, "ann", &[line(1, "A", 2, a), line(2, "B", 1, b)]),
        order("GO3", 2, "ann", &[line(1, "B", 1, b), line(2, "A", 2, a)]),
        order("GO3", 3, "bob", &[line(1, "B", 1, b), line(2, "A", 2, a)]),
        order("GO3", 4, "bob", &[line(1, "C", 1, b), line(2, "A", 2, a)]),
    ];
    // A line more, one less, and one that came back a day later.
    versions.push(order(
        "GO3",
        5,
        "bob",
        &[line(1, "C", 1, b), line(2, "A", 1, a), line(7, "A", 1, a)],
    ));
    versions.push(order("GO3", 6, "bob", &[line(3, "A", 2, a)]));
    let back = OrderLine {
        purchased_at: at(86_400),
        coupon_discount_minor: 5,
        ..line(4, "A", -1, a)
    };
    versions.push(order("GO3", 7, "bob", &[line(3, "A", 2, a), back]));
    let totals = [2_300, 2_300, 2_300, 2_300, 2_300, 1_600, 800];

    for ((version, total), second) in versions.iter().zip(totals).zip(1..) {
        assert_recorded(&client, vec![version.clone()], &[(Stored, second)]).await;
        let lines = lines_of(&client, "GO3").await;
        assert_eq!(lines, single_lines(version));
        let sum: i64 = lines
            .iter()
            .map(|line| line.line_total.as_ref().unwrap().amount_minor)
            .sum();
        assert_eq!(sum, total);
        assert_recorded(&client, vec![version.clone()], &[(Identical, second)]).await;
    }
    // The history of the first customer is empty again.
    assert_eq!(list(&client, Of::UserId("ann".to_owned())).await, []);
    for older in &versions[..6] {
        assert_recorded(&client, vec![older.clone()], &[(Superseded, 7)]).await;
    }
    assert_eq!(lines_of(&client, "GO3").await, single_lines(&versions[6]));
}

#[tokio::test]
async fn lines_recorded_one_by_one_give_way_to_the_whole_order_and_are_refused_from_then_on() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.purchases().await;
    let single = single_lines(&order("o", 0, "ann", &[line(1, "A", 1, 100), line(2, "B", 1, 100)]));
    let record = async |lines: Vec<PurchaseLine>| {
        let answer = client.clone().record_purchases(RecordPurchasesRequest { lines }).await;
        answer.unwrap().into_inner().results
    };
    assert_outcomes(&record(single.clone()).await, &[Ok(EntryOutcome::Stored); 2]);
    let whole = order("o", 1, "bob", &[line(1, "C", 1, 100)]);
    assert_recorded(&client, vec![whole.clone()], &[(Stored, 1)]).await;
    assert_eq!(lines_of(&client, "o").await, single_lines(&whole));

    let other = single_lines(&order("p", 0, "ann", &[line(1, "A", 1, 100)]));
    let mixed = [single.clone(), other.clone()].concat();
    const REFUSED: Result<EntryOutcome, (&str, &str)> = Err(("order_id", "ORDER_RECORDED_WHOLE"));
    let results = record(mixed.clone()).await;
    assert_outcomes(&results, &[REFUSED, REFUSED, Ok(EntryOutcome::Stored)]);
    let message =
        "must not name an order that was recorded as a whole, as o was; send its next version with RecordOrders";
    assert_eq!(results[0].error.as_ref().unwrap().message, message);
    // A cancelled order does not come back by its lines either.
    assert_recorded(&client, vec![cancellation("o", 2)], &[(Stored, 2)]).await;
    assert_outcomes(
        &record(mixed.clone()).await,
        &[REFUSED, REFUSED, Ok(EntryOutcome::Merged)],
    );
    let stream = tokio_stream::once(IngestPurchasesRequest { lines: mixed });
    let summary = client
        .clone()
        .ingest_purchases(stream)
        .await
        .unwrap()
        .into_inner()
        .summary
        .unwrap();
    assert_eq!((summary.read, summary.merged, summary.rejected), (3, 1, 2));
    assert_eq!(lines_of(&client, "o").await, []);

    let folder = scratch();
    let (file, rejects) = (folder.path().join("lines.csv"), folder.path().join("rejects.csv"));
    let text = "order_id,line_number,user_id,item_id,quantity,line_total,purchased_at,currency\n\
                o,1,ann,A,1,1.00,2025-01-01,GBP\nq,1,ann,A,1,1.00,2025-01-01,GBP\n";
    std::fs::write(&file, text).unwrap();
    let paths = [&file, &rejects].map(|path| path.to_str().unwrap());
    let import = [
        "import",
        "purchases",
        paths[0],
        "--rejects",
        paths[1],
        "--max-reject-share",
        "1",
    ];
    let (code, output, error) = run(&database, &import);
    assert_eq!(code, 0, "{output} {error}");
    let rejected = std::fs::read_to_string(&rejects).unwrap();
    assert!(rejected.contains("2,order_id,ORDER_RECORDED_WHOLE"), "{rejected}");
    assert_eq!(lines_of(&client, "o").await, []);
    assert_eq!(lines_of(&client, "q").await.len(), 1);
}

#[tokio::test]
async fn a_cancelled_order_comes_back_only_by_a_newer_version() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.purchases().await;
    let first = order("o", 1, "ann", &[line(1, "A", 2, 800)]);
    assert_recorded(&client, vec![first.clone()], &[(Stored, 1)]).await;
    assert_recorded(&client, vec![cancellation("o", 2)], &[(Stored, 2)]).await;
    assert_eq!(lines_of(&client, "o").await, []);
    assert_recorded(&client, vec![cancellation("o", 2)], &[(Identical, 2)]).await;
    // A late retry, and a version of the same instant as the cancellation.
    let same_instant = Order {
        updated_at: at(2),
        ..first.clone()
    };
    for late in [first.clone(), same_instant.clone()] {
        assert_recorded(&client, vec![late], &[(Superseded, 2)]).await;
        assert_eq!(lines_of(&client, "o").await, []);
    }
    let newer = Order {
        updated_at: at(3),
        ..first
    };
    assert_recorded(&client, vec![newer.clone()], &[(Stored, 3)]).await;
    assert_eq!(lines_of(&client, "o").await, single_lines(&newer));

    // A cancellation may come first, and cancels a version of its own instant.
    assert_recorded(&client, vec![cancellation("p", 5)], &[(Stored, 5)]).await;
    let p = order("p", 5, "ann", &[line(1, "A", 1, 800)]);
    assert_recorded(&client, vec![p], &[(Superseded, 5)]).await;
    let q = order("q", 5, "ann", &[line(1, "A", 1, 800)]);
    assert_recorded(&client, vec![q], &[(Stored, 5)]).await;
    assert_recorded(&client, vec![cancellation("q", 5)], &[(Stored, 5)]).await;
    assert_eq!(lines_of(&client, "q").await, []);
}

#[tokio::test]
async fn a_batch_may_hold_several_versions_and_bad_orders() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.purchases().await;
    let lines = [line(1, "A", 1, 100), line(2, "B", 1, 100)];
    let newest = order("o", 3, "ann", &lines[..1]);
    let batch = vec![
        order("o", 2, "ann", &lines),
        newest.clone(),
        order("o", 1, "bob", &lines),
        newest.clone(),
        order("p", 1, "ann", &lines),
    ];
    let expected = [
        (Superseded, 3),
        (Stored, 3),
        (Superseded, 3),
        (Identical, 3),
        (Stored, 1),
    ];
    assert_recorded(&client, batch.clone(), &expected).await;
    assert_eq!(lines_of(&client, "o").await, single_lines(&newest));
    let again = [
        (Superseded, 3),
        (Identical, 3),
        (Superseded, 3),
        (Identical, 3),
        (Identical, 1),
    ];
    assert_recorded(&client, batch, &again).await;

    let check = async |order: Order, field: &str, reason: &str, message: &str| {
        let results = record_all(&client, vec![newest.clone(), order]).await;
        assert_eq!(results[0].outcome(), Identical);
        assert_eq!(results[1].outcome(), OrderOutcome::Rejected);
        let error = results[1].error.clone().unwrap();
        assert_nothing_internal(&error.message);
        assert_eq!(
            (&*error.field, &*error.reason, &*error.message),
            (field, reason, message)
        );
    };
    let twice = order(
        "b",
        1,
        "ann",
        &[line(2, "A", 1, 1), line(1, "B", 1, 1), line(2, "C", 1, 1)],
    );
    let message = "must be the only one in the order, is 2 as in lines[0]";
    check(twice, "lines[2].line_number", "DUPLICATE_LINE_NUMBER", message).await;
    let untimed = Order {
        purchased_at: None,
        ..order("b", 1, "ann", &lines)
    };
    let message = "must be given, or every line must have one";
    check(untimed, "purchased_at", "MISSING", message).await;
    let without_version = Order {
        updated_at: None,
        ..order("b", 1, "ann", &lines)
    };
    check(without_version, "updated_at", "MISSING", "must be given").await;
    let message = "must be 1 to 128 bytes long, is empty";
    check(order("b", 1, "", &lines), "user_id", "EMPTY_ID", message).await;
    let empty_lines = order("b", 1, "ann", &[lines[0].clone(), line(2, "B", 0, 1)]);
    let message = "must not be 0; it is negative for a return";
    check(empty_lines, "lines[1].quantity", "ZERO_QUANTITY", message).await;
    assert_eq!(lines_of(&client, "b").await, []);

    let many: Vec<OrderLine> = (1..5_002).map(|number| line(number, "A", 1, 1)).collect();
    let orders = vec![order("m", 1, "ann", &many[..4_999]), order("n", 1, "ann", &many)];
    assert!(
        record_all(&client, orders)
            .await
            .iter()
            .all(|result| result.outcome() == Stored)
    );
    assert_eq!(
        number(
            &mut database.connect().await,
            "SELECT count(*) FROM purchases WHERE order_id IN ('m', 'n')"
        )
        .await,
        10_000
    );
    let orders = vec![order("m", 2, "ann", &many[..5_000]), order("n", 2, "ann", &many)];
    let status = client
        .clone()
        .record_orders(RecordOrdersRequest { orders })
        .await
        .unwrap_err();
    assert_invalid(&status, "BATCH_SIZE_OUT_OF_RANGE", &["orders[1].lines"]);
}

#[tokio::test]
async fn deleted_lines_are_gone_and_what_was_not_found_is_said() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.purchases().await;
    let numbers = async |order: &str| -> Vec<(i32, String)> {
        let lines = lines_of(&client, order).await.into_iter();
        lines.map(|line| (line.line_number, line.user_id)).collect()
    };
    let ann = |number| (number, "ann".to_owned());
    let four = [1, 2, 3, 4].map(|number| line(number, "A", 1, 100));
    let mut lines: Vec<PurchaseLine> = ["o", "p"]
        .iter()
        .flat_map(|id| single_lines(&order(id, 0, "ann", &four)))
        .collect();
    lines.extend(single_lines(&order(
        "o",
        0,
        "bob",
        &[line(1, "A", 1, 100), line(2, "B", 1, 100)],
    )));
    client
        .clone()
        .record_purchases(RecordPurchasesRequest { lines: lines.clone() })
        .await
        .unwrap();

    let check = async |selection: PurchaseSelection, outcome: DeletionOutcome, deleted: i32, not_found: &[i32]| {
        let result = delete(&client, &[selection]).await.remove(0);
        assert_eq!(result.outcome(), outcome);
        assert_eq!(
            (result.deleted_lines, &*result.line_numbers_not_found),
            (deleted, not_found)
        );
    };
    let of_bob = PurchaseSelection {
        user_id: Some("bob".to_owned()),
        ..select("o", &[1])
    };
    check(of_bob.clone(), DeletionOutcome::Deleted, 1, &[]).await;
    check(of_bob, DeletionOutcome::NotFound, 0, &[1]).await;
    let of_item = PurchaseSelection {
        item_id: Some("B".to_owned()),
        ..select("o", &[])
    };
    check(of_item, DeletionOutcome::Deleted, 1, &[]).await;
    assert_eq!(numbers("o").await, [1, 2, 3, 4].map(ann));
    check(select("o", &[9, 2, 7, 2, 3]), DeletionOutcome::Deleted, 2, &[7, 9]).await;
    assert_eq!(numbers("o").await, [1, 4].map(ann));
    check(select("o", &[]), DeletionOutcome::Deleted, 2, &[]).await;
    check(select("o", &[]), DeletionOutcome::NotFound, 0, &[]).await;
    check(select("none", &[1]), DeletionOutcome::NotFound, 0, &[1]).await;

    // In one batch, a line counts for the first selection of it, and a bad selection harms no other.
    let results = delete(&client, &[select("p", &[1]), select("p", &[0]), select("p", &[])]).await;
    let outcomes: Vec<_> = results
        .iter()
        .map(|result| (result.outcome(), result.deleted_lines))
        .collect();
    let expected = [
        (DeletionOutcome::Deleted, 1),
        (DeletionOutcome::Rejected, 0),
        (DeletionOutcome::Deleted, 3),
    ];
    assert_eq!(outcomes, expected);
    let error = results[1].error.as_ref().unwrap();
    assert_eq!(
        (&*error.field, &*error.reason),
        ("line_numbers[0]", "LINE_NUMBER_OUT_OF_RANGE")
    );
    assert_eq!(
        number(&mut database.connect().await, "SELECT count(*) FROM purchases").await,
        0
    );

    // A line has no version: sent again, it is there again.
    client
        .clone()
        .record_purchases(RecordPurchasesRequest { lines })
        .await
        .unwrap();
    assert_eq!(numbers("p").await, [1, 2, 3, 4].map(ann));
}

#[tokio::test]
async fn deleted_lines_of_a_whole_order_come_back_only_by_a_newer_version() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.purchases().await;
    let first = order("o", 1, "ann", &[line(1, "A", 2, 800), line(2, "B", 1, 700)]);
    assert_recorded(&client, vec![first.clone()], &[(Stored, 1)]).await;
    assert_eq!(delete(&client, &[select("o", &[2])]).await[0].deleted_lines, 1);
    assert_eq!(delete(&client, &[select("o", &[])]).await[0].deleted_lines, 1);
    assert_recorded(&client, vec![first.clone()], &[(Identical, 1)]).await;
    assert_eq!(lines_of(&client, "o").await, []);
    let newer = Order {
        updated_at: at(2),
        ..first
    };
    assert_recorded(&client, vec![newer.clone()], &[(Stored, 2)]).await;
    assert_eq!(lines_of(&client, "o").await, single_lines(&newer));
}
