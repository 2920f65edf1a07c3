//! Bad and good values of each field of each RPC.

use std::fmt;

use likemind::grpc::proto::v1::{
    ActivateSnapshotRequest, DeletePurchasesRequest, DeleteRatingRequest, GetBiasReportRequest, GetItemRequest,
    GetServingStatusRequest, GetSnapshotRequest, IngestPurchasesRequest, IngestRatingsRequest, Item, ItemFilter,
    ListCategoriesRequest, ListItemsRequest, ListPurchasesRequest, ListRatingsRequest, ListSimilarItemsRequest,
    ListSimilarUsersRequest, ListSnapshotsRequest, Merchant, Money, Order, OrderLine, PredictRatingsRequest,
    PriceRange, PurchaseLine, PurchaseSelection, Rating, RecommendRequest, RecordOrdersRequest, RecordPurchasesRequest,
    RollbackSnapshotRequest, SessionItem, SessionItems, UpsertItemsRequest, UpsertMerchantsRequest,
    UpsertRatingsRequest, list_purchases_request, list_ratings_request, recommend_request::Subject,
};
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor, MethodDescriptor, Value};

use super::coupons;
use super::demand;
use super::dynamic::{method_name, methods};
use super::erasures;
use super::imports;
use super::inventory;

use crate::support::times::{at, seconds_now};

/// The bad and good values of one field, with all other fields of the request valid.
pub struct Case {
    pub field: String,
    pub bad: Vec<Bad>,
    pub good: Vec<Change>,
}

pub struct Bad {
    pub change: Change,
    pub reason: &'static str,
    /// The field that the refusal names.
    pub named: String,
}

#[derive(Clone)]
pub enum Change {
    /// The field, or every field of the oneof, is absent.
    Absent,
    To(Value),
    /// The first entry of the list, so many times.
    Times(usize),
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(formatter, "absent"),
            Self::To(value) => {
                let text = format!("{value:?}");
                write!(formatter, "{}", text.chars().take(120).collect::<String>())
            }
            Self::Times(count) => write!(formatter, "{count} times"),
        }
    }
}

impl Case {
    /// Creates a case of a field without bad values.
    pub(super) fn free(field: &str) -> Self {
        Self {
            field: field.to_owned(),
            bad: Vec::new(),
            good: Vec::new(),
        }
    }

    pub(super) fn bad(mut self, reason: &'static str, changes: impl IntoIterator<Item = Change>) -> Self {
        let bad = |change| Bad {
            change,
            reason,
            named: self.field.clone(),
        };
        self.bad.extend(changes.into_iter().map(bad).collect::<Vec<_>>());
        self
    }

    pub(super) fn good(mut self, changes: impl IntoIterator<Item = Change>) -> Self {
        self.good.extend(changes);
        self
    }

    pub(super) fn or_absent(self) -> Self {
        self.good([Change::Absent])
    }

    /// Removes `change` from the good values.
    pub(super) fn without(mut self, change: &Change) -> Self {
        let is_same = |other: &Change| matches!((other, change), (Change::To(a), Change::To(b)) if a == b);
        self.good.retain(|good| !is_same(good));
        self
    }

    /// Lets refusals name another field.
    pub(super) fn said_of(mut self, field: &str) -> Self {
        self.bad.iter_mut().for_each(|bad| bad.named = field.to_owned());
        self
    }

    /// Whether the field is within an entry of a batch. Entries are refused one by one.
    pub fn is_in_batch(&self) -> bool {
        let of_the_whole_batch = ["orders[].lines", "selections[].line_numbers"];
        let entries = [
            "merchants[].",
            "items[].",
            "ratings[].",
            "lines[].",
            "attributes[].",
            "assignments[].",
            "suppressions[].",
            "positions[].",
            "policies[].",
            "orders[].",
            "selections[].",
        ];
        !of_the_whole_batch.contains(&self.field.as_str()) && entries.iter().any(|entry| self.field.starts_with(entry))
    }
}

pub(super) fn text(text: &str) -> Change {
    Change::To(Value::String(text.to_owned()))
}

pub(super) fn texts(texts: impl IntoIterator<Item = String>) -> Change {
    Change::To(Value::List(texts.into_iter().map(Value::String).collect()))
}

pub(super) fn i32s<const N: usize>(values: [i32; N]) -> [Change; N] {
    values.map(|value| Change::To(Value::I32(value)))
}

pub(super) fn i64s<const N: usize>(values: [i64; N]) -> [Change; N] {
    values.map(|value| Change::To(Value::I64(value)))
}

pub(super) fn f64s<const N: usize>(values: [f64; N]) -> [Change; N] {
    values.map(|value| Change::To(Value::F64(value)))
}

fn f32s<const N: usize>(values: [f32; N]) -> [Change; N] {
    values.map(|value| Change::To(Value::F32(value)))
}

/// Strings that are unusual but valid.
const ODD: [&str; 16] = [
    " leading and trailing ",
    "\u{1f469}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{200d}\u{1f466}",
    "e\u{301}",
    "\u{5d0}\u{5d1} right to left",
    "\u{200d}\u{fffd}\u{ffff}\u{10ffff}",
    "\u{2027}\u{3000}",
    "İıſßﬃ",
    "'; DROP TABLE users; --",
    "\\x00 \\u0000 \\0",
    "%s %00 %n",
    "{\"json\": null}",
    "$1 :name ?",
    "../../etc/passwd",
    "NULL",
    "<script>alert(1)</script>",
    "\u{a0}",
];

pub(super) fn id(field: &str) -> Case {
    Case::free(field)
        .bad("EMPTY_ID", [text("")])
        .bad(
            "ID_TOO_LONG",
            [text(&"x".repeat(129)), text(&"é".repeat(65)), text(&"x".repeat(50_000))],
        )
        .bad(
            "ID_HAS_CONTROL_CHARACTER",
            [
                "\0",
                "a\nb",
                "\u{7f}",
                "\u{85}",
                "a\u{1b}[31m",
                "a\u{202e}b",
                "a\u{2066}b",
                "a\u{200f}b",
            ]
            .map(text),
        )
        .good([
            text("x"),
            text(&"x".repeat(128)),
            text(&"é".repeat(64)),
            text(&"\u{10ffff}".repeat(32)),
        ])
        .good(ODD.map(text))
}

/// An id that may be empty.
pub(super) fn optional_id(field: &str) -> Case {
    let mut case = id(field);
    case.bad.retain(|bad| bad.reason != "EMPTY_ID");
    case.good([text("")])
}

pub(super) fn free_text(field: &str) -> Case {
    Case::free(field)
        .bad("TEXT_TOO_LONG", [text(&"x".repeat(1_025)), text(&"é".repeat(513))])
        .bad("TEXT_HAS_CONTROL_CHARACTER", ["\0", "a\nb", "\t", "\u{9f}"].map(text))
        .good([text(""), text(&"x".repeat(1_024)), text(&"é".repeat(512))])
        .good(ODD.map(text))
}

/// A list whose entries are names.
pub(super) fn names(field: &str, least: usize, most: usize) -> Case {
    let count = |count: usize| texts((0..count).map(|number| format!("n{number}")));
    let case = Case::free(field)
        .bad("BATCH_SIZE_OUT_OF_RANGE", [count(most + 1)])
        .good([count(1), count(most)]);
    match least {
        0 => case.good([count(0)]),
        _ => case.bad("BATCH_SIZE_OUT_OF_RANGE", [count(least - 1)]),
    }
}

/// The entries of a batch. A message of a stream may have none.
pub(super) fn entries(field: &str, is_stream: bool) -> Case {
    let case = Case::free(field)
        .bad("BATCH_SIZE_OUT_OF_RANGE", [Change::Times(1_001)])
        .good([1, 1_000].map(Change::Times));
    match is_stream {
        true => case.good([Change::Times(0)]),
        false => case.bad("BATCH_SIZE_OUT_OF_RANGE", [Change::Times(0)]),
    }
}

pub(super) fn required(field: &str) -> Case {
    Case::free(field).bad("MISSING", [Change::Absent])
}

fn rating_value(field: &str) -> Case {
    let not_numbers = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    Case::free(field)
        .bad("RATING_OUT_OF_RANGE", f32s(not_numbers))
        .bad(
            "RATING_OUT_OF_RANGE",
            f32s([
                0.0,
                -0.0,
                -1.0,
                0.999_999_9,
                5.000_001,
                f32::MIN,
                f32::MAX,
                f32::MIN_POSITIVE,
            ]),
        )
        .good(f32s([1.0, 5.0, 3.3, 1.000_000_1, 4.999_999_5]))
}

/// A time, and its seconds and nanoseconds.
pub(super) fn time(field: &str) -> Vec<Case> {
    const FIRST: i64 = -2_208_988_800; // 1900-01-01
    let (year_1, year_9999, now) = (-62_135_596_800, 253_402_300_799, seconds_now());
    vec![
        Case::free(field).or_absent(),
        Case::free(&format!("{field}.seconds"))
            .bad("INVALID_TIMESTAMP", i64s([i64::MIN, i64::MAX]))
            .bad(
                "TIME_OUT_OF_RANGE",
                i64s([
                    year_1 - 1,
                    year_1,
                    FIRST - 1,
                    now + 2 * 86_400,
                    year_9999,
                    year_9999 + 1,
                ]),
            )
            .good(i64s([FIRST, -1, 0, now, now + 86_000]))
            .said_of(field),
        Case::free(&format!("{field}.nanos"))
            .bad(
                "INVALID_TIMESTAMP",
                i32s([-1, i32::MIN, 1_000_000_000, 1_999_999_999, 2_000_000_000, i32::MAX]),
            )
            .good(i32s([0, 1, 999_999_999]))
            .said_of(field),
    ]
}

pub(super) fn currency(field: &str) -> Case {
    Case::free(field)
        .bad(
            "INVALID_CURRENCY",
            ["", "gbp", "GB", "GBPX", "G1P", "€", "GB\0", " GBP", "ＧＢＰ"].map(text),
        )
        .good([text("EUR"), text("XXX")])
}

pub(super) fn enumeration(field: &str, last: i32) -> Case {
    let number = |number| Change::To(Value::EnumNumber(number));
    Case::free(field)
        .bad("UNKNOWN_ENUM_VALUE", [last + 1, -1, i32::MIN, i32::MAX].map(number))
        .good((0..=last).map(number))
}

pub(super) fn limit() -> Case {
    up_to_1_000("limit")
}

/// A number that has a default.
pub(super) fn up_to_1_000(field: &str) -> Case {
    Case::free(field)
        .bad("LIMIT_OUT_OF_RANGE", i32s([-1, 1_001, i32::MIN, i32::MAX]))
        .good(i32s([0, 1, 1_000]))
}

/// A weight between 0 and 1.
fn share(field: &str) -> Case {
    Case::free(field)
        .bad("OUT_OF_RANGE", f64s([-0.1, 1.1, f64::NAN, f64::INFINITY, f64::MIN]))
        .good(f64s([0.0, -0.0, 0.5, 1.0]))
}

/// A cap where 0 means none.
fn cap(field: &str) -> Case {
    Case::free(field)
        .bad("LIMIT_OUT_OF_RANGE", i32s([-1, i32::MIN]))
        .good(i32s([0, 1, i32::MAX]))
}

fn version() -> Case {
    Case::free("version")
        .bad("VERSION_OUT_OF_RANGE", i64s([0, -1, i64::MIN]))
        .good(i64s([1, 2, i64::MAX]))
}

fn filter() -> Vec<Case> {
    let limit = |field: &str| {
        Case::free(field)
            .bad("NEGATIVE_PRICE", i64s([-1, i64::MIN]))
            .good(i64s([0, 1_000]))
            .or_absent()
    };
    let (min, max) = ("filter.price.min_minor", "filter.price.max_minor");
    let mut min_case = limit(min);
    // These are above the upper limit in the valid request.
    min_case
        .bad
        .extend(Case::free(max).bad("EMPTY_RANGE", i64s([1_001, i64::MAX])).bad);
    vec![
        Case::free("filter").or_absent(),
        names("filter.categories", 0, 1_000),
        id("filter.categories[]"),
        names("filter.merchant_ids", 0, 1_000),
        id("filter.merchant_ids[]"),
        names("filter.candidate_item_ids", 0, 10_000),
        id("filter.candidate_item_ids[]"),
        names("filter.exclude_item_ids", 0, 10_000),
        id("filter.exclude_item_ids[]"),
        Case::free("filter.price").or_absent(),
        currency("filter.price.currency_code"),
        min_case,
        limit(max).good(i64s([i64::MAX])),
    ]
}

/// Page tokens, by the list that they belong to.
#[derive(Debug)]
pub struct Tokens {
    /// The tokens of user a, user b and item x.
    pub ratings: Vec<String>,
    /// The tokens of user a, user b and order a.
    pub purchases: Vec<String>,
    /// The tokens of all items, of a merchant, of a category, and of both.
    pub items: Vec<String>,
    /// The tokens of merchant acme and of all merchants.
    pub categories: Vec<String>,
    pub snapshots: Vec<String>,
    /// The tokens of merchant acme and of all merchants.
    pub campaigns: Vec<String>,
    /// The tokens of user a, and of all.
    pub attributes: Vec<String>,
    /// The tokens of campaigns k and l.
    pub assignments: Vec<String>,
    /// The token of all.
    pub suppressions: Vec<String>,
    /// The token of the decisions of user a.
    pub consents: Vec<String>,
    pub erasures: Vec<String>,
    /// The tokens of campaigns k and l.
    pub coupons: Vec<String>,
    /// The tokens of the valid request, and of all.
    pub reservations: Vec<String>,
    /// The same.
    pub redemptions: Vec<String>,
    pub positions: Vec<String>,
    pub policies: Vec<String>,
    pub imports: Vec<String>,
}

impl Tokens {
    pub fn all(&self) -> impl Iterator<Item = &String> {
        let lists = [
            &self.ratings,
            &self.purchases,
            &self.items,
            &self.categories,
            &self.snapshots,
            &self.campaigns,
            &self.coupons,
            &self.attributes,
            &self.assignments,
            &self.suppressions,
            &self.consents,
            &self.erasures,
            &self.reservations,
            &self.redemptions,
            &self.positions,
            &self.policies,
        ];
        lists.into_iter().flatten()
    }

    /// Returns the cases of `page_size` and `page_token` for the list whose valid request gave the token `own`.
    pub(super) fn page(&self, own: &String) -> Vec<Case> {
        let foreign = self.all().filter(|&token| token != own).map(|token| text(token));
        let cut = &own[..own.len() - 1];
        let junk = [
            "x",
            "!!",
            "bnVsbA",
            "e30",
            "AAAA",
            " ",
            "\0",
            cut,
            &format!("{own}A"),
            &"A".repeat(60_000),
        ];
        vec![
            Case::free("page_size")
                .bad("PAGE_SIZE_OUT_OF_RANGE", i32s([-1, 1_001, i32::MIN, i32::MAX]))
                .good(i32s([0, 1, 1_000])),
            Case::free("page_token")
                .bad("INVALID_PAGE_TOKEN", foreign)
                .bad("INVALID_PAGE_TOKEN", junk.map(text))
                .good([text(""), text(own)]),
        ]
    }
}

/// Returns the cases of an RPC such as `RatingService/ListRatings`, ascending by field.
pub fn cases(method: &str, tokens: &Tokens) -> Vec<Case> {
    let cases = catalog_cases(method, tokens)
        .or_else(|| rating_cases(method, tokens))
        .or_else(|| purchase_cases(method, tokens))
        .or_else(|| recommendation_cases(method))
        .or_else(|| model_cases(method, tokens))
        .or_else(|| demand::cases(method))
        .or_else(|| inventory::cases(method, tokens))
        .or_else(|| imports::cases(method, tokens))
        .or_else(|| erasures::cases(method, tokens))
        .or_else(|| coupons::cases(method, tokens));
    let mut cases = cases.unwrap_or_else(|| panic!("{method} has no cases"));
    cases.sort_by(|a, b| a.field.cmp(&b.field));
    cases
}

/// Whether the RPC takes a stream of batches.
fn is_stream(method: &str) -> bool {
    method.contains("/Ingest")
}

fn catalog_cases(method: &str, tokens: &Tokens) -> Option<Vec<Case>> {
    Some(match method {
        "CatalogService/UpsertMerchants" => vec![
            entries("merchants", is_stream(method)),
            id("merchants[].merchant_id"),
            free_text("merchants[].name").or_absent(),
        ],
        "CatalogService/UpsertItems" => vec![
            entries("items", is_stream(method)),
            id("items[].item_id"),
            free_text("items[].title").or_absent(),
            id("items[].merchant_id").or_absent(),
            id("items[].category").or_absent(),
            Case::free("items[].price").or_absent(),
            currency("items[].price.currency_code"),
            Case::free("items[].price.amount_minor")
                .bad("NEGATIVE_PRICE", i64s([-1, i64::MIN]))
                .good(i64s([0, i64::MAX])),
        ],
        "CatalogService/GetItem" => vec![id("item_id")],
        "CatalogService/ListItems" => {
            let mut cases = tokens.page(&tokens.items[3]);
            cases.extend([id("merchant_id").or_absent(), id("category").or_absent()]);
            cases
        }
        "CatalogService/ListCategories" => {
            let mut cases = tokens.page(&tokens.categories[0]);
            cases.push(id("merchant_id").or_absent());
            cases
        }
        _ => return None,
    })
}

fn rating_cases(method: &str, tokens: &Tokens) -> Option<Vec<Case>> {
    Some(match method {
        "RatingService/UpsertRatings" | "RatingService/IngestRatings" => {
            let mut cases = time("ratings[].rated_at");
            cases.extend([
                entries("ratings", is_stream(method)),
                id("ratings[].user_id"),
                id("ratings[].item_id"),
                rating_value("ratings[].value"),
            ]);
            cases
        }
        "RatingService/ListRatings" => {
            let mut cases = tokens.page(&tokens.ratings[0]);
            cases.extend([required("of"), id("user_id"), id("item_id")]);
            cases
        }
        "RatingService/DeleteRating" => {
            let mut cases = time("deleted_at");
            cases.extend([id("user_id"), id("item_id")]);
            cases
        }
        _ => return None,
    })
}

fn purchase_cases(method: &str, tokens: &Tokens) -> Option<Vec<Case>> {
    Some(match method {
        "PurchaseService/RecordPurchases" | "PurchaseService/IngestPurchases" => {
            let mut cases = time("lines[].purchased_at");
            cases.extend([
                entries("lines", is_stream(method)),
                id("lines[].order_id"),
                Case::free("lines[].line_number")
                    .bad("LINE_NUMBER_OUT_OF_RANGE", i32s([0, -1, i32::MIN]))
                    .good(i32s([1, i32::MAX])),
                id("lines[].user_id"),
                id("lines[].item_id"),
                Case::free("lines[].quantity")
                    .bad("ZERO_QUANTITY", i32s([0]))
                    .good(i32s([1, -1, i32::MIN, i32::MAX])),
                required("lines[].line_total"),
                Case::free("lines[].line_total.amount_minor").good(i64s([0, -1, i64::MIN, i64::MAX])),
                currency("lines[].line_total.currency_code"),
                Case::free("lines[].coupon_discount_minor")
                    .bad("NEGATIVE_DISCOUNT", i64s([-1, i64::MIN]))
                    .good(i64s([0, 1, i64::MAX])),
            ]);
            cases
        }
        "PurchaseService/RecordOrders" => {
            let mut cases = time("orders[].updated_at");
            cases[0] = required("orders[].updated_at");
            cases.extend(time("orders[].purchased_at"));
            cases.extend(time("orders[].lines[].purchased_at"));
            cases.extend([
                entries("orders", false),
                id("orders[].order_id"),
                id("orders[].user_id"),
                Case::free("orders[].lines")
                    .bad("BATCH_SIZE_OUT_OF_RANGE", [Change::Times(10_001)])
                    .good([0, 1].map(Change::Times)),
                Case::free("orders[].lines[].line_number")
                    .bad("LINE_NUMBER_OUT_OF_RANGE", i32s([0, -1, i32::MIN]))
                    .good(i32s([1, i32::MAX])),
                id("orders[].lines[].item_id"),
                Case::free("orders[].lines[].quantity")
                    .bad("ZERO_QUANTITY", i32s([0]))
                    .good(i32s([1, -1, i32::MIN, i32::MAX])),
                required("orders[].lines[].line_total"),
                Case::free("orders[].lines[].line_total.amount_minor").good(i64s([0, -1, i64::MIN, i64::MAX])),
                currency("orders[].lines[].line_total.currency_code"),
                Case::free("orders[].lines[].coupon_discount_minor")
                    .bad("NEGATIVE_DISCOUNT", i64s([-1, i64::MIN]))
                    .good(i64s([0, 1, i64::MAX])),
            ]);
            cases
        }
        "PurchaseService/DeletePurchases" => vec![
            entries("selections", false),
            id("selections[].order_id"),
            Case::free("selections[].line_numbers")
                .bad("BATCH_SIZE_OUT_OF_RANGE", [Change::Times(10_001)])
                .good([0, 1, 9_000].map(Change::Times)),
            Case::free("selections[].line_numbers[]")
                .bad("LINE_NUMBER_OUT_OF_RANGE", i32s([0, -1, i32::MIN]))
                .good(i32s([1, i32::MAX])),
            id("selections[].user_id").or_absent(),
            id("selections[].item_id").or_absent(),
        ],
        "PurchaseService/ListPurchases" => {
            let mut cases = tokens.page(&tokens.purchases[0]);
            cases.extend([required("of"), id("user_id"), id("order_id")]);
            cases
        }
        _ => return None,
    })
}

fn recommendation_cases(method: &str) -> Option<Vec<Case>> {
    Some(match method {
        "RecommendationService/PredictRatings" => {
            let repeated = texts(["p", "q", "p"].map(str::to_owned));
            let mut items = names("item_ids", 1, 1_000);
            items
                .bad
                .extend(Case::free("item_ids[2]").bad("REPEATED_ITEM", [repeated]).bad);
            vec![
                id("user_id"),
                items,
                id("item_ids[]"),
                enumeration("estimator", 3),
                enumeration("basis", 3),
                up_to_1_000("max_explanation_items"),
            ]
        }
        "RecommendationService/Recommend" => {
            let mut cases = filter();
            cases.extend([
                required("subject"),
                id("user_id"),
                Case::free("session"),
                Case::free("session.items")
                    .bad("BATCH_SIZE_OUT_OF_RANGE", [0, 1_001].map(Change::Times))
                    .good([1, 1_000].map(Change::Times)),
                id("session.items[].item_id"),
                rating_value("session.items[].rating").or_absent(),
                limit(),
                up_to_1_000("max_explanation_items"),
                enumeration("basis", 3),
                share("diversity"),
                share("popularity_penalty"),
                share("calibrate"),
                cap("max_per_merchant"),
                cap("max_per_category"),
            ]);
            cases
        }
        "RecommendationService/ListSimilarItems" => {
            let mut cases = filter();
            cases.extend([id("item_id"), limit()]);
            cases
        }
        "RecommendationService/ListSimilarUsers" => vec![limit(), id("user_id")],
        _ => return None,
    })
}

fn model_cases(method: &str, tokens: &Tokens) -> Option<Vec<Case>> {
    Some(match method {
        "ModelService/ListSnapshots" => tokens.page(&tokens.snapshots[0]),
        "ModelService/GetSnapshot" => vec![version()],
        "ModelService/GetBiasReport" => vec![
            Case::free("version")
                .bad("VERSION_OUT_OF_RANGE", i64s([-1, i64::MIN]))
                .good(i64s([0, 1, 2, i64::MAX])),
        ],
        "ModelService/ActivateSnapshot" => vec![version(), free_text("reason")],
        "ModelService/RollbackSnapshot" => vec![free_text("reason")],
        "ModelService/GetServingStatus" => Vec::new(),
        _ => return None,
    })
}

/// Returns the descriptor of an RPC and its first valid request.
pub fn valid_call(name: &str) -> (MethodDescriptor, DynamicMessage) {
    let method = methods()
        .into_iter()
        .find(|method| method_name(method) == name)
        .unwrap();
    let request = valid_requests(name, &method.input()).swap_remove(0);
    (method, request)
}

/// Returns requests of an RPC with every field given, one for each of several alternatives.
pub fn valid_requests(method: &str, input: &MessageDescriptor) -> Vec<DynamicMessage> {
    let requests = catalog_requests(method)
        .or_else(|| rating_requests(method))
        .or_else(|| purchase_requests(method))
        .or_else(|| recommendation_requests(method))
        .or_else(|| model_requests(method))
        .or_else(|| demand::valid_requests(method))
        .or_else(|| inventory::valid_requests(method))
        .or_else(|| imports::valid_requests(method))
        .or_else(|| erasures::valid_requests(method))
        .or_else(|| coupons::valid_requests(method));
    let requests = requests.unwrap_or_else(|| panic!("{method} has no valid request"));
    let dynamic = |bytes: Vec<u8>| DynamicMessage::decode(input.clone(), bytes.as_slice()).unwrap();
    requests.into_iter().map(dynamic).collect()
}

fn catalog_requests(method: &str) -> Option<Vec<Vec<u8>>> {
    Some(match method {
        "CatalogService/UpsertMerchants" => vec![encoded(UpsertMerchantsRequest {
            merchants: vec![merchant("m"), merchant("n")],
        })],
        "CatalogService/UpsertItems" => vec![encoded(UpsertItemsRequest {
            items: vec![item("x"), item("y")],
        })],
        "CatalogService/GetItem" => vec![encoded(GetItemRequest {
            item_id: "x".to_owned(),
        })],
        "CatalogService/ListItems" => vec![encoded(ListItemsRequest {
            page_size: 1,
            page_token: String::new(),
            merchant_id: Some("acme".to_owned()),
            category: Some("mugs".to_owned()),
        })],
        "CatalogService/ListCategories" => vec![encoded(ListCategoriesRequest {
            page_size: 1,
            page_token: String::new(),
            merchant_id: Some("acme".to_owned()),
        })],
        _ => return None,
    })
}

fn rating_requests(method: &str) -> Option<Vec<Vec<u8>>> {
    Some(match method {
        "RatingService/UpsertRatings" => vec![encoded(UpsertRatingsRequest {
            ratings: vec![rating("a"), rating("b")],
        })],
        "RatingService/IngestRatings" => vec![encoded(IngestRatingsRequest {
            ratings: vec![rating("a"), rating("b")],
        })],
        "RatingService/ListRatings" => vec![encoded(ListRatingsRequest {
            of: Some(list_ratings_request::Of::UserId("a".to_owned())),
            page_size: 1,
            page_token: String::new(),
        })],
        "RatingService/DeleteRating" => vec![encoded(DeleteRatingRequest {
            user_id: "nobody".to_owned(),
            item_id: "x".to_owned(),
            deleted_at: at(0),
        })],
        _ => return None,
    })
}

fn purchase_requests(method: &str) -> Option<Vec<Vec<u8>>> {
    Some(match method {
        "PurchaseService/RecordPurchases" => vec![encoded(RecordPurchasesRequest {
            lines: vec![line("a"), line("b")],
        })],
        "PurchaseService/IngestPurchases" => vec![encoded(IngestPurchasesRequest {
            lines: vec![line("a"), line("b")],
        })],
        "PurchaseService/RecordOrders" => vec![encoded(RecordOrdersRequest {
            orders: ["whole-a", "whole-b"].map(order).to_vec(),
        })],
        "PurchaseService/DeletePurchases" => {
            let selection = |order_id: &str| PurchaseSelection {
                order_id: order_id.to_owned(),
                line_numbers: vec![1],
                user_id: Some("nobody".to_owned()),
                item_id: Some("x".to_owned()),
            };
            vec![encoded(DeletePurchasesRequest {
                selections: ["no-a", "no-b"].map(selection).to_vec(),
            })]
        }
        "PurchaseService/ListPurchases" => vec![encoded(ListPurchasesRequest {
            of: Some(list_purchases_request::Of::UserId("a".to_owned())),
            page_size: 1,
            page_token: String::new(),
        })],
        _ => return None,
    })
}

fn recommendation_requests(method: &str) -> Option<Vec<Vec<u8>>> {
    Some(match method {
        "RecommendationService/PredictRatings" => vec![encoded(PredictRatingsRequest {
            user_id: "a".to_owned(),
            item_ids: vec!["x".to_owned(), "y".to_owned()],
            explain: true,
            ..PredictRatingsRequest::default()
        })],
        "RecommendationService/Recommend" => {
            let request = |subject| {
                encoded(RecommendRequest {
                    subject: Some(subject),
                    limit: 5,
                    filter: Some(item_filter()),
                    exclude_purchased: true,
                    exclude_history: true,
                    explain: true,
                    ..RecommendRequest::default()
                })
            };
            let item = SessionItem {
                item_id: "x".to_owned(),
                rating: Some(3.0),
            };
            let session = SessionItems { items: vec![item] };
            vec![
                request(Subject::UserId("a".to_owned())),
                request(Subject::Session(session)),
            ]
        }
        "RecommendationService/ListSimilarItems" => vec![encoded(ListSimilarItemsRequest {
            item_id: "x".to_owned(),
            limit: 5,
            filter: Some(item_filter()),
        })],
        "RecommendationService/ListSimilarUsers" => vec![encoded(ListSimilarUsersRequest {
            user_id: "a".to_owned(),
            limit: 5,
        })],
        _ => return None,
    })
}

fn model_requests(method: &str) -> Option<Vec<Vec<u8>>> {
    Some(match method {
        "ModelService/ListSnapshots" => vec![encoded(ListSnapshotsRequest {
            page_size: 1,
            page_token: String::new(),
        })],
        "ModelService/GetSnapshot" => vec![encoded(GetSnapshotRequest { version: 1 })],
        "ModelService/GetBiasReport" => vec![encoded(GetBiasReportRequest { version: 1 })],
        "ModelService/ActivateSnapshot" => vec![encoded(ActivateSnapshotRequest {
            version: 1,
            reason: "because".to_owned(),
        })],
        "ModelService/RollbackSnapshot" => vec![encoded(RollbackSnapshotRequest {
            reason: "because".to_owned(),
        })],
        "ModelService/GetServingStatus" => vec![encoded(GetServingStatusRequest {})],
        _ => return None,
    })
}

pub(super) fn encoded(message: impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

fn merchant(id: &str) -> Merchant {
    Merchant {
        merchant_id: id.to_owned(),
        name: Some("A name".to_owned()),
    }
}

fn item(id: &str) -> Item {
    Item {
        item_id: id.to_owned(),
        title: Some("A title".to_owned()),
        merchant_id: Some("acme".to_owned()),
        category: Some("mugs".to_owned()),
        price: pounds(100),
        listed: Some(true),
    }
}

fn rating(user: &str) -> Rating {
    Rating {
        user_id: user.to_owned(),
        item_id: "x".to_owned(),
        value: 3.0,
        rated_at: at(0),
    }
}

fn line(user: &str) -> PurchaseLine {
    PurchaseLine {
        coupon_discount_minor: 0,
        order_id: "a".to_owned(),
        line_number: 1,
        user_id: user.to_owned(),
        item_id: "x".to_owned(),
        quantity: 1,
        line_total: pounds(100),
        purchased_at: at(0),
    }
}

fn order(id: &str) -> Order {
    Order {
        order_id: id.to_owned(),
        updated_at: at(0),
        user_id: "a".to_owned(),
        purchased_at: at(0),
        lines: vec![OrderLine {
            line_number: 1,
            item_id: "x".to_owned(),
            quantity: 1,
            line_total: pounds(100),
            purchased_at: at(0),
            coupon_discount_minor: 0,
        }],
    }
}

fn pounds(amount_minor: i64) -> Option<Money> {
    Some(Money {
        amount_minor,
        currency_code: "GBP".to_owned(),
    })
}

fn item_filter() -> ItemFilter {
    ItemFilter {
        categories: vec!["mugs".to_owned()],
        merchant_ids: vec!["acme".to_owned()],
        candidate_item_ids: vec!["x".to_owned()],
        exclude_item_ids: vec!["y".to_owned()],
        price: Some(PriceRange {
            currency_code: "GBP".to_owned(),
            min_minor: Some(0),
            max_minor: Some(1_000),
        }),
    }
}
