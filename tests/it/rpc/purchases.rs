//! PurchaseService.

use likemind::grpc::proto::v1::purchase_service_client::PurchaseServiceClient;
use likemind::grpc::proto::v1::{
    EntryOutcome, EntryResult, IngestPurchasesRequest, IngestSummary, ListPurchasesRequest, Money, PurchaseLine,
    RecordPurchasesRequest, list_purchases_request::Of,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

use crate::support::answers::{all_pages, assert_invalid, assert_outcomes};
use crate::support::postgres::TestDatabase;
use crate::support::program::Server;
use crate::support::times::{at, seconds_now};
use crate::support::waiting::eventually;

const STORED: Result<EntryOutcome, (&str, &str)> = Ok(EntryOutcome::Stored);
const MERGED: Result<EntryOutcome, (&str, &str)> = Ok(EntryOutcome::Merged);

type Client = PurchaseServiceClient<Channel>;

/// Returns a purchase line of one `item` for 10.00 GBP.
fn line(order: &str, line_number: i32, user: &str, item: &str) -> PurchaseLine {
    PurchaseLine {
        coupon_discount_minor: 0,
        order_id: order.to_owned(),
        line_number,
        user_id: user.to_owned(),
        item_id: item.to_owned(),
        quantity: 1,
        line_total: money(1_000, "GBP"),
        purchased_at: at(0),
    }
}

fn money(amount_minor: i64, currency: &str) -> Option<Money> {
    Some(Money {
        amount_minor,
        currency_code: currency.to_owned(),
    })
}

async fn record(client: &Client, lines: Vec<PurchaseLine>) -> Vec<EntryResult> {
    let answer = client.clone().record_purchases(RecordPurchasesRequest { lines }).await;
    answer.unwrap().into_inner().results
}

async fn list_page(client: &Client, of: Of, page_size: i32, page_token: String) -> (Vec<PurchaseLine>, String) {
    let request = ListPurchasesRequest {
        of: Some(of),
        page_size,
        page_token,
    };
    let answer = client.clone().list_purchases(request).await.unwrap().into_inner();
    (answer.lines, answer.next_page_token)
}

async fn list(client: &Client, of: Of) -> Vec<PurchaseLine> {
    list_page(client, of, 1_000, String::new()).await.0
}

fn user(id: &str) -> Of {
    Of::UserId(id.to_owned())
}

fn order(id: &str) -> Of {
    Of::OrderId(id.to_owned())
}

#[tokio::test]
async fn a_repeated_line_is_merged_and_a_different_one_replaces_it() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.purchases().await;
    let original = line("o", 1, "a", "x");

    let no_total = PurchaseLine {
        coupon_discount_minor: 0,
        line_total: None,
        ..original.clone()
    };
    let mixed = vec![
        original.clone(),
        PurchaseLine {
            coupon_discount_minor: 0,
            quantity: 0,
            ..original.clone()
        },
        line("o", 0, "a", "x"),
        no_total,
        line("o", 2, "a", "x"),
        line("o", 1, "b", "x"),
        line("o", 1, "a", "y"),
    ];
    let expected = [
        STORED,
        Err(("quantity", "ZERO_QUANTITY")),
        Err(("line_number", "LINE_NUMBER_OUT_OF_RANGE")),
        Err(("line_total", "MISSING")),
        STORED,
        STORED,
        STORED,
    ];
    assert_outcomes(&record(&client, mixed).await, &expected);
    assert_outcomes(&record(&client, vec![original.clone()]).await, &[MERGED]);

    let replacements = [
        PurchaseLine {
            coupon_discount_minor: 0,
            quantity: -2,
            ..original.clone()
        },
        PurchaseLine {
            coupon_discount_minor: 0,
            line_total: money(-1_000, "GBP"),
            ..original.clone()
        },
        PurchaseLine {
            coupon_discount_minor: 0,
            line_total: money(1_000, "EUR"),
            ..original.clone()
        },
        // Unlike a rating, a line is replaced by one that arrives later, whatever its time.
        PurchaseLine {
            coupon_discount_minor: 0,
            purchased_at: at(-1_000),
            ..original.clone()
        },
    ];
    for replacement in replacements {
        assert_outcomes(&record(&client, vec![replacement.clone()]).await, &[STORED]);
        assert_eq!(list(&client, order("o")).await[0], replacement);
    }

    // Within a batch the last line is kept.
    let several = vec![original.clone(), line("p", 1, "a", "x"), original.clone()];
    assert_outcomes(&record(&client, several).await, &[MERGED, STORED, STORED]);
    assert_eq!(list(&client, order("o")).await[0], original);
}

#[tokio::test]
async fn a_line_without_a_time_gets_the_present_time() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.purchases().await;
    let before = seconds_now();
    let now = PurchaseLine {
        coupon_discount_minor: 0,
        purchased_at: None,
        ..line("o", 1, "a", "x")
    };
    assert_outcomes(&record(&client, vec![now]).await, &[STORED]);
    let purchased_at = list(&client, user("a")).await[0].purchased_at.unwrap().seconds;
    assert!((before..=seconds_now()).contains(&purchased_at), "{purchased_at}");
}

#[tokio::test]
async fn quantities_and_amounts_at_their_limits_read_back_as_written() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.purchases().await;
    let limits = [(i32::MIN, i64::MIN), (i32::MAX, i64::MAX), (-1, 0), (1, -1)];
    let lines: Vec<PurchaseLine> = limits
        .iter()
        .zip([1, 2, 3, i32::MAX])
        .map(|(&(quantity, total), number)| PurchaseLine {
            coupon_discount_minor: 0,
            quantity,
            line_total: money(total, "GBP"),
            ..line("o", number, "a", "x")
        })
        .collect();
    assert_outcomes(&record(&client, lines.clone()).await, &[STORED; 4]);
    assert_eq!(list(&client, user("a")).await, lines);
}

#[tokio::test]
async fn pages_of_purchases_hold_every_line_once_in_byte_order() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.purchases().await;

    let mut lines = Vec::new();
    for order in ["O", "o", "ö"] {
        for user in ["a", "b"] {
            for item in ["x", "Y"] {
                for number in [1, 2, 10] {
                    lines.push(line(order, number, user, item));
                }
            }
        }
    }
    let results = record(&client, lines.clone()).await;
    assert!(results.iter().all(|result| result.outcome() == EntryOutcome::Stored));

    lines.sort_by_key(|line| {
        (
            line.order_id.clone(),
            line.user_id.clone(),
            line.item_id.clone(),
            line.line_number,
        )
    });
    let of_user = lines
        .iter()
        .filter(|line| line.user_id == "a")
        .cloned()
        .collect::<Vec<_>>();
    let of_order = lines
        .iter()
        .filter(|line| line.order_id == "o")
        .cloned()
        .collect::<Vec<_>>();
    for (of, expected, sizes) in [
        (user("a"), of_user, [(1, 18), (5, 4), (18, 1), (0, 1)]),
        (order("o"), of_order, [(1, 12), (5, 3), (12, 1), (0, 1)]),
    ] {
        for (page_size, pages) in sizes {
            let page = |token| list_page(&client, of.clone(), page_size, token);
            assert_eq!(
                all_pages(page).await,
                (expected.clone(), pages),
                "{of:?} by {page_size}"
            );
        }
    }
    assert_eq!(list(&client, user("nobody")).await, []);
    assert_eq!(list(&client, order("none")).await, []);
}

async fn ingest(client: &Client, messages: Vec<Vec<PurchaseLine>>) -> Result<IngestSummary, tonic::Status> {
    let messages = messages.into_iter().map(|lines| IngestPurchasesRequest { lines });
    let answer = client.clone().ingest_purchases(tokio_stream::iter(messages)).await?;
    Ok(answer.into_inner().summary.unwrap())
}

#[tokio::test]
async fn a_stream_is_summarized_and_a_broken_one_keeps_the_lines_that_were_stored() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.purchases().await;
    assert_eq!(ingest(&client, Vec::new()).await.unwrap(), IngestSummary::default());

    let lines = |from: i32, to: i32| (from..to).map(|number| line("o", number, "a", "x")).collect();
    let bad = (0..101).map(|number| line("o", -number, "a", "x")).collect();
    let found = ingest(&client, vec![lines(1, 1_001), Vec::new(), bad, lines(1, 3)])
        .await
        .unwrap();
    assert_eq!(
        (found.read, found.stored, found.merged, found.rejected),
        (1_103, 1_000, 2, 101)
    );
    let places: Vec<u64> = found.errors.iter().map(|error| error.index).collect();
    assert_eq!(places, (1_000..1_100).collect::<Vec<u64>>());
    let first = found.errors[0].error.clone().unwrap();
    assert_eq!(
        (first.field.as_str(), first.reason.as_str()),
        ("line_number", "LINE_NUMBER_OUT_OF_RANGE")
    );

    let one = |user: &str| vec![line("p", 1, user, "x")];
    let status = ingest(&client, vec![one("a"), lines(1, 1_002), one("b")])
        .await
        .unwrap_err();
    assert_invalid(&status, "BATCH_SIZE_OUT_OF_RANGE", &["lines"]);
    assert_eq!(list(&client, order("p")).await, one("a"));

    let (sender, receiver) = mpsc::unbounded_channel();
    let mut ingesting = server.purchases().await;
    let stream = tokio::spawn(async move { ingesting.ingest_purchases(UnboundedReceiverStream::new(receiver)).await });
    sender.send(IngestPurchasesRequest { lines: one("c") }).unwrap();
    let look = async || list(&client, order("p")).await.len();
    eventually("the message is stored", look, |&lines| lines == 2).await;
    stream.abort();
    assert!(stream.await.unwrap_err().is_cancelled());
    let found = ingest(&client, vec![one("a"), one("b"), one("c")]).await.unwrap();
    assert_eq!((found.stored, found.merged), (1, 2));
}

#[tokio::test]
async fn a_repeated_line_without_a_time_keeps_its_stored_time() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.purchases().await;
    let untimed = PurchaseLine {
        coupon_discount_minor: 0,
        purchased_at: None,
        ..line("o", 1, "a", "x")
    };
    assert_outcomes(&record(&client, vec![untimed.clone()]).await, &[STORED]);
    let first = list(&client, user("a")).await;
    let unknown = line("o", 2, "a", "x");
    let again = vec![untimed.clone(), unknown.clone(), untimed.clone()];
    assert_outcomes(&record(&client, again).await, &[MERGED, STORED, MERGED]);
    assert_eq!(list(&client, user("a")).await[..1], first);

    // A changed line without a time keeps the stored time, too.
    let untold = PurchaseLine {
        coupon_discount_minor: 0,
        quantity: 7,
        purchased_at: None,
        ..unknown.clone()
    };
    assert_outcomes(&record(&client, vec![untold]).await, &[STORED]);
    let expected = PurchaseLine { quantity: 7, ..unknown };
    assert_eq!(list(&client, user("a")).await[1..], [expected]);
}

#[tokio::test]
async fn requests_compressed_with_gzip_or_zstd_are_accepted() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    for (encoding, order) in [(CompressionEncoding::Gzip, "g"), (CompressionEncoding::Zstd, "z")] {
        let client = server.purchases().await.send_compressed(encoding);
        assert_outcomes(&record(&client, vec![line(order, 1, "a", "x")]).await, &[STORED]);
    }
}
