//! CatalogService.

use likemind::grpc::proto::v1::catalog_service_client::CatalogServiceClient;
use likemind::grpc::proto::v1::{
    Category, EntryOutcome, EntryResult, GetItemRequest, Item, ListCategoriesRequest, ListItemsRequest, Merchant,
    Money, PurchaseLine, Rating, RecordPurchasesRequest, UpsertItemsRequest, UpsertMerchantsRequest,
    UpsertRatingsRequest,
};
use tonic::Code;
use tonic::transport::Channel;

use crate::support::answers::{all_pages, assert_outcomes, assert_status};
use crate::support::postgres::{TestDatabase, execute, sessions_waiting_for_a_lock};
use crate::support::program::Server;
use crate::support::times::at;
use crate::support::waiting::eventually;

const STORED: Result<EntryOutcome, (&str, &str)> = Ok(EntryOutcome::Stored);
const MERGED: Result<EntryOutcome, (&str, &str)> = Ok(EntryOutcome::Merged);

type Client = CatalogServiceClient<Channel>;

fn bare(id: &str) -> Item {
    Item {
        item_id: id.to_owned(),
        ..Item::default()
    }
}

fn full(id: &str) -> Item {
    Item {
        item_id: id.to_owned(),
        title: Some("A mug".to_owned()),
        merchant_id: Some("acme".to_owned()),
        category: Some("mugs".to_owned()),
        price: pounds(1_999),
        listed: Some(true),
    }
}

fn pounds(amount_minor: i64) -> Option<Money> {
    Some(Money {
        amount_minor,
        currency_code: "GBP".to_owned(),
    })
}

async fn put(client: &Client, items: Vec<Item>) -> Vec<EntryResult> {
    let answer = client.clone().upsert_items(UpsertItemsRequest { items }).await;
    answer.unwrap().into_inner().results
}

async fn put_merchants(client: &Client, merchants: Vec<Merchant>) -> Vec<EntryResult> {
    let answer = client
        .clone()
        .upsert_merchants(UpsertMerchantsRequest { merchants })
        .await;
    answer.unwrap().into_inner().results
}

async fn get(client: &Client, id: &str) -> Item {
    let request = GetItemRequest { item_id: id.to_owned() };
    client
        .clone()
        .get_item(request)
        .await
        .unwrap()
        .into_inner()
        .item
        .unwrap()
}

async fn list_page(client: &Client, request: ListItemsRequest) -> (Vec<Item>, String) {
    let answer = client.clone().list_items(request).await.unwrap().into_inner();
    (answer.items, answer.next_page_token)
}

#[tokio::test]
async fn an_absent_field_keeps_the_stored_value() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.catalog().await;

    assert_outcomes(&put(&client, vec![bare("x")]).await, &[STORED]);
    let mut stored = Item {
        listed: Some(true),
        ..bare("x")
    };
    assert_eq!(get(&client, "x").await, stored, "a new item is listed");
    assert_outcomes(&put(&client, vec![bare("x")]).await, &[MERGED]);

    assert_outcomes(&put(&client, vec![full("x")]).await, &[STORED]);
    stored = full("x");
    assert_eq!(get(&client, "x").await, stored);
    for same in [bare("x"), full("x")] {
        assert_outcomes(&put(&client, vec![same]).await, &[MERGED]);
        assert_eq!(get(&client, "x").await, stored);
    }

    // Each field can be changed alone.
    let changes: [fn(&mut Item); 6] = [
        |item| item.title = Some("Another mug".to_owned()),
        |item| item.merchant_id = Some("other".to_owned()),
        |item| item.category = Some("cups".to_owned()),
        |item| item.price = pounds(0),
        |item| {
            item.price = Some(Money {
                amount_minor: i64::MAX,
                currency_code: "JPY".to_owned(),
            });
        },
        |item| item.listed = Some(false),
    ];
    for change in changes {
        let mut patch = bare("x");
        change(&mut patch);
        change(&mut stored);
        assert_outcomes(&put(&client, vec![patch.clone()]).await, &[STORED]);
        assert_eq!(get(&client, "x").await, stored);
        assert_outcomes(&put(&client, vec![patch]).await, &[MERGED]);
    }

    let no_title = Item {
        title: Some(String::new()),
        ..bare("x")
    };
    stored.title = None;
    assert_outcomes(&put(&client, vec![no_title.clone()]).await, &[STORED]);
    assert_eq!(get(&client, "x").await, stored, "an empty title removes it");
    assert_outcomes(&put(&client, vec![no_title]).await, &[MERGED]);
}

#[tokio::test]
async fn a_batch_answers_for_each_entry_and_merges_repeated_ids() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.catalog().await;

    let titled = |id: &str, title: &str| Item {
        title: Some(title.to_owned()),
        ..bare(id)
    };
    let negative = Item {
        price: pounds(-1),
        ..bare("z")
    };
    let priced = Item {
        price: pounds(5),
        ..bare("x")
    };
    let items = vec![
        titled("x", "One"),
        negative,
        titled("x", "Two"),
        bare(""),
        titled("y", "Y"),
        priced,
    ];
    let (price, id) = (
        Err(("price.amount_minor", "NEGATIVE_PRICE")),
        Err(("item_id", "EMPTY_ID")),
    );
    assert_outcomes(
        &put(&client, items.clone()).await,
        &[MERGED, price, MERGED, id, STORED, STORED],
    );
    assert_outcomes(&put(&client, items).await, &[MERGED, price, MERGED, id, MERGED, MERGED]);
    // Later entries of one item override the earlier ones, field by field.
    let x = get(&client, "x").await;
    assert_eq!((x.title.as_deref(), x.price), (Some("Two"), pounds(5)));

    let merchant = |id: &str, name: Option<&str>| Merchant {
        merchant_id: id.to_owned(),
        name: name.map(str::to_owned),
    };
    let merchants = vec![
        merchant("acme", None),
        merchant("", None),
        merchant("acme", Some("Acme Ltd")),
        merchant("other", Some("a\tb")),
        merchant("third", None),
    ];
    let (id, name) = (
        Err(("merchant_id", "EMPTY_ID")),
        Err(("name", "TEXT_HAS_CONTROL_CHARACTER")),
    );
    assert_outcomes(
        &put_merchants(&client, merchants.clone()).await,
        &[MERGED, id, STORED, name, STORED],
    );
    assert_outcomes(
        &put_merchants(&client, merchants).await,
        &[MERGED, id, MERGED, name, MERGED],
    );
    assert_outcomes(&put_merchants(&client, vec![merchant("acme", None)]).await, &[MERGED]);
    assert_outcomes(
        &put_merchants(&client, vec![merchant("acme", Some("Acme"))]).await,
        &[STORED],
    );
}

#[tokio::test]
async fn rated_and_bought_items_are_in_the_catalog() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.catalog().await;
    let rating = Rating {
        user_id: "a".to_owned(),
        item_id: "rated".to_owned(),
        value: 3.0,
        rated_at: at(0),
    };
    let request = UpsertRatingsRequest { ratings: vec![rating] };
    server.ratings().await.upsert_ratings(request).await.unwrap();
    let line = PurchaseLine {
        coupon_discount_minor: 0,
        order_id: "o".to_owned(),
        line_number: 1,
        user_id: "a".to_owned(),
        item_id: "bought".to_owned(),
        quantity: 1,
        line_total: pounds(1),
        purchased_at: at(0),
    };
    let request = RecordPurchasesRequest { lines: vec![line] };
    server.purchases().await.record_purchases(request).await.unwrap();

    for id in ["bought", "rated"] {
        let expected = Item {
            listed: Some(true),
            ..bare(id)
        };
        assert_eq!(get(&client, id).await, expected);
    }
    let (items, _) = list_page(&client, ListItemsRequest::default()).await;
    assert_eq!(items.len(), 2);
    let request = GetItemRequest {
        item_id: "unknown".to_owned(),
    };
    let status = client.clone().get_item(request).await.unwrap_err();
    assert_status(&status, Code::NotFound, "ITEM_NOT_FOUND");
}

#[tokio::test]
async fn pages_of_items_hold_every_matching_item_once_in_byte_order() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.catalog().await;
    let (merchants, categories) = (
        [Some("acme"), Some("other"), None],
        [Some("mugs"), Some("cups"), None, Some("m")],
    );
    let mut items: Vec<Item> = ["Z", "a", "é", "\u{10ffff}"]
        .into_iter()
        .map(str::to_owned)
        .chain((0..120).map(|number| format!("n{number}")))
        .enumerate()
        .map(|(number, id)| Item {
            merchant_id: merchants[number % 3].map(str::to_owned),
            category: categories[number % 4].map(str::to_owned),
            listed: Some(number % 5 > 0),
            ..bare(&id)
        })
        .collect();
    let results = put(&client, items.clone()).await;
    assert!(results.iter().all(|result| result.outcome() == EntryOutcome::Stored));
    items.sort_by(|a, b| a.item_id.cmp(&b.item_id));

    for merchant in [None, Some("acme"), Some("nobody")] {
        for category in [None, Some("mugs"), Some("mug")] {
            let is_match = |item: &&Item| {
                merchant.is_none_or(|merchant| item.merchant_id.as_deref() == Some(merchant))
                    && category.is_none_or(|category| item.category.as_deref() == Some(category))
            };
            let expected: Vec<Item> = items.iter().filter(is_match).cloned().collect();
            for page_size in [0, 1, 31, 1_000] {
                let page = |page_token| {
                    let request = ListItemsRequest {
                        page_size,
                        page_token,
                        merchant_id: merchant.map(str::to_owned),
                        category: category.map(str::to_owned),
                    };
                    list_page(&client, request)
                };
                let (found, pages) = all_pages(page).await;
                assert_eq!(found, expected, "{merchant:?} {category:?} by {page_size}");
                let size = if page_size == 0 { 100 } else { page_size as usize };
                assert_eq!(pages, expected.len().div_ceil(size).max(1));
            }
        }
    }
}

#[tokio::test]
async fn pages_of_categories_count_their_items_in_byte_order() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.catalog().await;
    // Item number n is of merchant n % 3 and category n % 5, none for 0, and listed unless n % 7 is 0.
    let (merchants, categories) = (["acme", "other", "none"], ["", "cups", "Z", "é", "m"]);
    let items: Vec<(usize, Item)> = (0..70)
        .map(|number| {
            let item = Item {
                merchant_id: Some(merchants[number % 3].to_owned()),
                category: Some(categories[number % 5].to_owned()).filter(|category| !category.is_empty()),
                listed: Some(number % 7 > 0),
                ..bare(&format!("n{number}"))
            };
            (number, item)
        })
        .collect();
    put(&client, items.iter().map(|(_, item)| item.clone()).collect()).await;
    for merchant in [None, Some("acme"), Some("nobody")] {
        let count = |category: &str| {
            let of = items.iter().filter(|(_, item)| {
                item.category.as_deref() == Some(category)
                    && merchant.is_none_or(|merchant| item.merchant_id.as_deref() == Some(merchant))
            });
            let (all, listed) = of.fold((0, 0), |(all, listed), (number, _)| {
                (all + 1, listed + i64::from(number % 7 > 0))
            });
            Category {
                category: category.to_owned(),
                item_count: all,
                listed_item_count: listed,
            }
        };
        let counts = ["Z", "cups", "m", "é"].map(count).into_iter();
        let expected: Vec<Category> = counts.filter(|category| category.item_count > 0).collect();
        for page_size in [0, 1, 3] {
            let (found, pages) = all_pages(async |page_token| {
                let request = ListCategoriesRequest {
                    page_size,
                    page_token,
                    merchant_id: merchant.map(str::to_owned),
                };
                let answer = client.clone().list_categories(request).await.unwrap().into_inner();
                (answer.categories, answer.next_page_token)
            })
            .await;
            assert_eq!(found, expected, "{merchant:?} by {page_size}");
            let size = if page_size == 0 { 100 } else { page_size as usize };
            assert_eq!(pages, expected.len().div_ceil(size).max(1));
        }
    }
}

#[tokio::test]
async fn concurrent_writes_of_different_fields_of_an_item_are_both_kept() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.catalog().await;
    put(&client, vec![full("mug")]).await;

    let mut other = database.connect().await;
    execute(
        &mut other,
        "BEGIN; UPDATE items SET listed = false WHERE external_id = 'mug'",
    )
    .await;
    let cheaper = Item {
        price: pounds(5),
        ..bare("mug")
    };
    let write = tokio::spawn({
        let client = client.clone();
        async move { put(&client, vec![cheaper]).await }
    });
    let mut observer = database.connect().await;
    let look = async || sessions_waiting_for_a_lock(&mut observer).await;
    eventually("the write waits for the other one", look, |&waiting| waiting > 0).await;
    execute(&mut other, "COMMIT").await;
    assert_outcomes(&write.await.unwrap(), &[STORED]);
    let expected = Item {
        price: pounds(5),
        listed: Some(false),
        ..full("mug")
    };
    assert_eq!(get(&client, "mug").await, expected);
}

#[tokio::test]
async fn parallel_writers_of_the_same_items_and_merchants_do_not_deadlock() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = server.catalog().await;
    let ids: Vec<String> = (0..400).map(|number| format!("item-{:03}", number * 7 % 400)).collect();
    let item = |id: &String, round: i64| Item {
        merchant_id: Some(format!("merchant of {id}")),
        price: pounds(round),
        ..bare(id)
    };
    put(&client, ids.iter().map(|id| item(id, 0)).collect()).await;
    let writers = (1..=6).map(|writer| {
        let (client, ids) = (client.clone(), ids.clone());
        async move {
            for round in 0..5 {
                // Each writer sends other items in another order, so that plans and orders of locks differ.
                let n_items = if writer % 2 == 0 { 40 } else { 400 };
                let items = ids.iter().rev().skip(writer * 7 % 100).take(n_items);
                let items: Vec<Item> = items.map(|id| item(id, (writer * 10 + round) as i64)).collect();
                let merchants = items.iter().map(|item| Merchant {
                    merchant_id: item.merchant_id.clone().unwrap(),
                    name: Some(format!("{writer} {round}")),
                });
                put_merchants(&client, merchants.collect()).await;
                put(&client, items).await;
            }
        }
    });
    futures_util::future::join_all(writers).await;
    let mut observer = database.connect().await;
    let deadlocks = "SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot(), deadlocks
                     FROM pg_stat_database WHERE datname = current_database()";
    let row = sqlx::query(deadlocks).fetch_one(&mut observer).await.unwrap();
    assert_eq!(sqlx::Row::get::<i64, _>(&row, "deadlocks"), 0);
}
