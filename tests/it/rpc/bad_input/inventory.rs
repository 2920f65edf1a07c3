//! The cases and valid requests of InventoryService.

use likemind::grpc::proto::v1::replenishment_policy::Goal;
use likemind::grpc::proto::v1::{
    DeleteReplenishmentPolicyRequest, InventoryPosition, ListInventoryPositionsRequest,
    ListReplenishmentPoliciesRequest, ListReplenishmentRequest, Money, OnOrder, PolicyScope, ReplenishmentPolicy,
    SimulateReplenishmentRequest, UpsertInventoryPositionsRequest, UpsertReplenishmentPoliciesRequest,
    policy_scope::Of,
};
use prost::Message;

use super::cases::{Case, Change, Tokens, currency, entries, f64s, i32s, i64s, id, names, required, time};
use crate::support::times::at;

const NO_QUANTITIES: [f64; 5] = [-1.0, -1e-9, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

pub fn cases(method: &str, tokens: &Tokens) -> Option<Vec<Case>> {
    Some(match method {
        "InventoryService/UpsertInventoryPositions" => position_cases(),
        "InventoryService/ListInventoryPositions" => {
            let mut cases = tokens.page(&tokens.positions[0]);
            cases.push(id("item_id").or_absent());
            cases
        }
        "InventoryService/UpsertReplenishmentPolicies" => policy_cases(),
        "InventoryService/ListReplenishmentPolicies" => tokens.page(&tokens.policies[0]),
        "InventoryService/DeleteReplenishmentPolicy" => scope_cases("scope"),
        "InventoryService/ListReplenishment" => vec![
            names("item_ids", 0, 1_000),
            id("item_ids[]"),
            id("category").or_absent(),
            id("merchant_id").or_absent(),
            Case::free("budget").or_absent(),
            Case::free("budget.amount_minor")
                .bad("NEGATIVE_PRICE", i64s([-1, i64::MIN]))
                .good(i64s([0, i64::MAX])),
            currency("budget.currency_code"),
            Case::free("limit")
                .bad("LIMIT_OUT_OF_RANGE", i32s([-1, i32::MIN]))
                .good(i32s([0, 1, i32::MAX])),
        ],
        "InventoryService/SimulateReplenishment" => vec![
            range("lead_time_weeks", 1, 12),
            range("weeks", 6, 52),
            range("min_weeks_with_sales", 1, 208),
        ],
        _ => return None,
    })
}

fn range(field: &str, least: i32, most: i32) -> Case {
    Case::free(field)
        .bad("OUT_OF_RANGE", i32s([-1, most + 1, i32::MIN, i32::MAX]))
        .good(i32s([0, least, most]))
}

fn quantity(field: &str) -> Case {
    Case::free(field)
        .bad("QUANTITY_OUT_OF_RANGE", f64s(NO_QUANTITIES))
        .bad("QUANTITY_OUT_OF_RANGE", f64s([1.1e15, f64::MAX]))
        .good(f64s([0.0, 0.5, 1e12, 1e15]))
}

fn position_cases() -> Vec<Case> {
    let mut cases = time("positions[].counted_at");
    let expected_at = "positions[].on_order[].expected_at";
    cases.extend([
        entries("positions", false),
        id("positions[].item_id"),
        quantity("positions[].on_hand"),
        quantity("positions[].backordered"),
        Case::free("positions[].on_order")
            .bad("BATCH_SIZE_OUT_OF_RANGE", [Change::Times(101)])
            .good([1, 100].map(Change::Times)),
        quantity("positions[].on_order[].quantity"),
        required(expected_at),
        Case::free(&format!("{expected_at}.seconds"))
            .bad("INVALID_TIMESTAMP", i64s([i64::MIN, i64::MAX]))
            .good(i64s([0, 4_000_000_000]))
            .said_of(expected_at),
        Case::free(&format!("{expected_at}.nanos"))
            .bad("INVALID_TIMESTAMP", i32s([-1, 1_000_000_000]))
            .good(i32s([0, 999_999_999]))
            .said_of(expected_at),
    ]);
    cases
}

fn scope_cases(field: &str) -> Vec<Case> {
    vec![
        required(field),
        required(&format!("{field}.of")),
        id(&format!("{field}.item_id")),
        id(&format!("{field}.category")),
        id(&format!("{field}.merchant_id")),
    ]
}

fn policy_cases() -> Vec<Case> {
    let level = |field: &str| {
        Case::free(field)
            .bad(
                "LEVEL_OUT_OF_RANGE",
                f64s([0.0, 1.0, -0.5, 1.5, f64::NAN, f64::INFINITY]),
            )
            .good(f64s([1e-6, 0.5, 0.999]))
    };
    let days = |field: &str| {
        Case::free(field)
            .bad("QUANTITY_OUT_OF_RANGE", f64s(NO_QUANTITIES))
            .good(f64s([0.0, 0.5, 100.0]))
    };
    let mut lead = days("policies[].lead_time_days");
    // With a review period of 7 days.
    lead.bad.extend(
        Case::free("policies[].lead_time_days")
            .bad("HORIZON_OUT_OF_RANGE", f64s([175.5]))
            .bad,
    );
    let mut review = days("policies[].review_period_days");
    let too_long = Case::free("policies[].review_period_days").bad("HORIZON_OUT_OF_RANGE", f64s([176.0]));
    review.bad.extend(too_long.said_of("policies[].lead_time_days").bad);
    let mut cover = days("policies[].max_cover_days").or_absent();
    cover.bad.extend(
        Case::free("policies[].max_cover_days")
            .bad("HORIZON_OUT_OF_RANGE", f64s([182.5]))
            .bad,
    );
    let mut cases = scope_cases("policies[].scope");
    cases.extend([
        entries("policies", false),
        lead,
        review,
        cover,
        required("policies[].goal"),
        level("policies[].cycle_service_level"),
        level("policies[].fill_rate"),
        quantity("policies[].min_order_quantity"),
        Case::free("policies[].order_multiple")
            .bad(
                "QUANTITY_OUT_OF_RANGE",
                f64s([0.0, 0.5, -1.0, 1e16, f64::NAN, f64::INFINITY]),
            )
            .good(f64s([1.0, 1.5, 1e9]))
            .or_absent(),
        Case::free("policies[].unit_cost").or_absent(),
        Case::free("policies[].unit_cost.amount_minor")
            .bad("COST_OUT_OF_RANGE", i64s([0, -1, i64::MIN]))
            .good(i64s([1, i64::MAX])),
        currency("policies[].unit_cost.currency_code"),
    ]);
    cases
}

fn position(item: &str) -> InventoryPosition {
    InventoryPosition {
        item_id: item.to_owned(),
        on_hand: 5.0,
        on_order: vec![OnOrder {
            quantity: 2.0,
            expected_at: at(0),
        }],
        backordered: 1.0,
        counted_at: at(0),
    }
}

fn policy(of: Of, goal: Goal) -> ReplenishmentPolicy {
    ReplenishmentPolicy {
        scope: Some(PolicyScope { of: Some(of) }),
        lead_time_days: 7.0,
        review_period_days: 7.0,
        goal: Some(goal),
        min_order_quantity: 1.0,
        order_multiple: Some(2.0),
        max_cover_days: Some(100.0),
        unit_cost: Some(Money {
            amount_minor: 100,
            currency_code: "GBP".to_owned(),
        }),
    }
}

fn scopes() -> [Of; 4] {
    [
        Of::ItemId("x".to_owned()),
        Of::Category("mugs".to_owned()),
        Of::MerchantId("acme".to_owned()),
        Of::AllItems(true),
    ]
}

pub fn valid_requests(method: &str) -> Option<Vec<Vec<u8>>> {
    Some(match method {
        "InventoryService/UpsertInventoryPositions" => vec![
            UpsertInventoryPositionsRequest {
                positions: vec![position("x"), position("y")],
            }
            .encode_to_vec(),
        ],
        "InventoryService/ListInventoryPositions" => vec![
            ListInventoryPositionsRequest {
                page_size: 1,
                ..ListInventoryPositionsRequest::default()
            }
            .encode_to_vec(),
        ],
        "InventoryService/UpsertReplenishmentPolicies" => scopes()
            .into_iter()
            .map(|of| {
                let other = policy(Of::Category("other".to_owned()), Goal::FillRate(0.9));
                let policies = vec![policy(of, Goal::CycleServiceLevel(0.9)), other];
                UpsertReplenishmentPoliciesRequest { policies }.encode_to_vec()
            })
            .collect(),
        "InventoryService/ListReplenishmentPolicies" => vec![
            ListReplenishmentPoliciesRequest {
                page_size: 1,
                ..ListReplenishmentPoliciesRequest::default()
            }
            .encode_to_vec(),
        ],
        "InventoryService/DeleteReplenishmentPolicy" => scopes()
            .into_iter()
            .map(|of| {
                let scope = Some(PolicyScope { of: Some(of) });
                DeleteReplenishmentPolicyRequest { scope }.encode_to_vec()
            })
            .collect(),
        "InventoryService/ListReplenishment" => vec![
            ListReplenishmentRequest {
                item_ids: vec!["x".to_owned(), "y".to_owned()],
                category: Some("mugs".to_owned()),
                merchant_id: Some("acme".to_owned()),
                only_alerts: true,
                budget: Some(Money {
                    amount_minor: 1_000,
                    currency_code: "GBP".to_owned(),
                }),
                limit: 5,
            }
            .encode_to_vec(),
        ],
        "InventoryService/SimulateReplenishment" => vec![
            SimulateReplenishmentRequest {
                lead_time_weeks: 1,
                weeks: 6,
                min_weeks_with_sales: 1,
            }
            .encode_to_vec(),
        ],
        _ => return None,
    })
}
