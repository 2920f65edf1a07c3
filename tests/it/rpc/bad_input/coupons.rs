//! Bad and good values of each field of the RPCs about campaigns, coupons, consents and audiences.

use likemind::grpc::proto::v1::{
    AllowSensitiveAttributeRequest, AssignmentKey, AttributeRule, AttributeValue, CampaignSpec, Cart, CartLine,
    CategoryAffinity, CheckEligibilityRequest, ConfirmRedemptionRequest, ConsentDecision, CouponSpec,
    CreateCampaignRequest, CreateCouponRequest, DeleteAssignmentsRequest, DeleteSuppressionsRequest,
    DeleteUserAttributesRequest, Discount, ExportUserDataRequest, GetCampaignBiasReportRequest, GetCampaignRequest,
    GetConsentRequest, GetCouponRequest, GetLiftReportRequest, GetRedemptionRequest, GetReservationRequest, ItemSet,
    ListAssignmentsRequest, ListCampaignsRequest, ListConsentsRequest, ListCouponsRequest, ListItemAudienceRequest,
    ListRedemptionsRequest, ListReservationsRequest, ListSuppressionsRequest, ListUserAttributesRequest,
    ListUserCouponsRequest, Purpose, RectifyUserRequest, ReleaseReservationRequest, ReserveCouponRequest,
    RollbackRedemptionRequest, Rule, Rules, Scope, SetCampaignStateRequest, SetConsentRequest, StreamAudienceRequest,
    StreamConsentChangesRequest, StreamCouponTargetsRequest, SuppressionKey, UpdateCampaignRequest,
    UpdateCouponRequest, UpsertAssignmentsRequest, UpsertSuppressionsRequest, UpsertUserAttributesRequest,
    UserAttribute, UserAttributeKey, UserSuppression, discount, rule, scope, stream_audience_request,
    stream_consent_changes_request,
};
use prost_reflect::Value;

use super::cases::{
    Case, Change, Tokens, currency, encoded, entries, enumeration, f64s, free_text, i32s, i64s, id, limit, names,
    optional_id, required, text, texts, time,
};

use crate::support::times::at;

/// Returns the cases of an RPC; `None` for an RPC that is not about campaigns, coupons, consents or audiences.
pub fn cases(method: &str, tokens: &Tokens) -> Option<Vec<Case>> {
    campaign_cases(method, tokens)
        .or_else(|| coupon_cases(method))
        .or_else(|| record_cases(method, tokens))
        .or_else(|| people_cases(method, tokens))
        .or_else(|| privacy_cases(method, tokens))
        .or_else(|| match method {
            "RecommendationService/ListItemAudience" => Some(vec![id("item_id"), limit()]),
            "RecommendationService/StreamAudience" => Some(vec![
                required("of"),
                id("item_id"),
                id("category"),
                Case::free("limit")
                    .bad("LIMIT_OUT_OF_RANGE", i64s([-1, i64::MIN]))
                    .good(i64s([0, 1, i64::MAX])),
                Case::free("min_score")
                    .bad("OUT_OF_RANGE", f64s([f64::NAN, f64::INFINITY, f64::NEG_INFINITY]))
                    .good(f64s([0.0, 0.5, -1.0, f64::MAX]))
                    .or_absent(),
                Case::free("page_token")
                    .bad("INVALID_PAGE_TOKEN", ["x", "!!", "bnVsbA", "e30", " ", "\0"].map(text))
                    .good([text("")]),
                free_text("note"),
            ]),
            _ => None,
        })
}

fn campaign_cases(method: &str, tokens: &Tokens) -> Option<Vec<Case>> {
    Some(match method {
        "CampaignService/CreateCampaign" => {
            let number = |number| Change::To(Value::EnumNumber(number));
            let mut cases = campaign(true);
            cases.push(
                Case::free("state")
                    .bad("NOT_A_FIRST_STATE", [4, 5].map(number))
                    .bad("UNKNOWN_ENUM_VALUE", [6, -1, i32::MIN, i32::MAX].map(number))
                    .good((0..=3).map(number)),
            );
            cases
        }
        "CampaignService/UpdateCampaign" => campaign(false),
        "CampaignService/GetCampaign" | "CampaignService/GetLiftReport" | "CampaignService/GetCampaignBiasReport" => {
            vec![id("campaign_id")]
        }
        "CampaignService/AllowSensitiveAttribute" => {
            vec![
                id("campaign_id"),
                free_text("attribute").without(&text("")).bad("MISSING", [text("")]),
                free_text("reason"),
            ]
        }
        "CampaignService/ListCampaigns" => {
            let mut cases = tokens.page(&tokens.campaigns[0]);
            cases.push(id("merchant_id").or_absent());
            cases
        }
        "CampaignService/SetCampaignState" => vec![id("campaign_id"), state()],
        "CampaignService/CreateCoupon" => coupon(true),
        "CampaignService/UpdateCoupon" => coupon(false),
        "CampaignService/GetCoupon" => vec![id("coupon_id")],
        "CampaignService/ListCoupons" => {
            let mut cases = tokens.page(&tokens.coupons[0]);
            cases.push(id("campaign_id"));
            cases
        }
        _ => return None,
    })
}

fn coupon_cases(method: &str) -> Option<Vec<Case>> {
    Some(match method {
        "CouponService/CheckEligibility" => {
            let mut cases = cart(false);
            cases.extend([id("user_id"), distinct_coupons("coupon_ids", 1_000), id("coupon_ids[]")]);
            cases
        }
        "CouponService/ListUserCoupons" => {
            let mut cases = cart(false);
            cases.extend([id("user_id"), limit()]);
            cases
        }
        "CouponService/StreamCouponTargets" => vec![
            id("coupon_id"),
            Case::free("limit")
                .bad("LIMIT_OUT_OF_RANGE", i64s([-1, i64::MIN]))
                .good(i64s([0, 1, i64::MAX])),
            Case::free("min_score")
                .bad("OUT_OF_RANGE", f64s([f64::NAN, f64::INFINITY, f64::NEG_INFINITY]))
                .good(f64s([0.0, 0.5, -1.0, f64::MAX]))
                .or_absent(),
            enumeration("by", 2),
            Case::free("page_token")
                .bad("INVALID_PAGE_TOKEN", ["x", "!!", "bnVsbA", "e30", " ", "\0"].map(text))
                .good([text("")]),
        ],
        "CouponService/ReserveCoupon" => {
            let mut cases = cart(true);
            cases.extend([id("request_id"), id("user_id"), id("coupon_id")]);
            cases
        }
        "CouponService/ConfirmRedemption" => vec![
            id("request_id"),
            id("reservation_id"),
            number("amount_minor", 0).or_absent(),
            id("order_id").or_absent(),
        ],
        "CouponService/ReleaseReservation" => vec![id("request_id"), id("reservation_id")],
        "CouponService/RollbackRedemption" => {
            vec![
                id("request_id"),
                id("redemption_id"),
                number("amount_minor", 1).or_absent(),
            ]
        }
        _ => return None,
    })
}

fn record_cases(method: &str, tokens: &Tokens) -> Option<Vec<Case>> {
    Some(match method {
        "CouponService/GetReservation" => vec![id("reservation_id")],
        "CouponService/GetRedemption" => vec![id("redemption_id")],
        "CouponService/ListReservations" => {
            let mut cases = records("reserved", "states", 4);
            cases.extend(tokens.page(&tokens.reservations[0]));
            cases
        }
        "CouponService/ListRedemptions" => {
            let mut cases = records("redeemed", "statuses", 3);
            cases.push(id("order_id").or_absent());
            cases.extend(tokens.page(&tokens.redemptions[0]));
            cases
        }
        _ => return None,
    })
}

/// The fields that the lists of reservations and of redemptions share.
fn records(event: &str, states: &str, last: i32) -> Vec<Case> {
    let number = |number| Change::To(Value::EnumNumber(number));
    let mut cases = vec![
        id("campaign_id").or_absent(),
        id("coupon_id").or_absent(),
        id("user_id").or_absent(),
        Case::free(states).good([0, 1, 1_000].map(Change::Times)),
        Case::free(&format!("{states}[]"))
            .bad("UNKNOWN_ENUM_VALUE", [0, last + 1, -1, i32::MIN, i32::MAX].map(number))
            .good((1..=last).map(number)),
    ];
    let (from, before) = (format!("{event}_from"), format!("{event}_before"));
    for field in [&from, &before] {
        cases.push(Case::free(field).or_absent());
        cases.push(
            Case::free(&format!("{field}.seconds"))
                .bad("INVALID_TIMESTAMP", i64s([i64::MIN, i64::MAX]))
                .bad("TIME_OUT_OF_RANGE", i64s([-100_000_000_000, 300_000_000_000]))
                .said_of(field),
        );
        cases.push(
            Case::free(&format!("{field}.nanos"))
                .bad("INVALID_TIMESTAMP", i32s([-1, i32::MIN, 1_000_000_000, i32::MAX]))
                .good(i32s([0, 999_999_999]))
                .said_of(field),
        );
    }
    cases
}

fn people_cases(method: &str, tokens: &Tokens) -> Option<Vec<Case>> {
    let given = |field: &str| free_text(field).without(&text("")).bad("MISSING", [text("")]);
    Some(match method {
        "CatalogService/UpsertUserAttributes" => vec![
            entries("attributes", false),
            id("attributes[].user_id"),
            given("attributes[].name"),
            given("attributes[].value"),
        ],
        "CatalogService/DeleteUserAttributes" => vec![
            entries("attributes", false),
            id("attributes[].user_id"),
            given("attributes[].name"),
        ],
        "CatalogService/ListUserAttributes" => {
            let mut cases = tokens.page(&tokens.attributes[0]);
            cases.extend([
                id("user_id").or_absent(),
                given("name").or_absent(),
                given("value").or_absent(),
            ]);
            cases
        }
        "CampaignService/UpsertAssignments" | "CampaignService/DeleteAssignments" => vec![
            entries("assignments", false),
            malformed_id("assignments[].campaign_id").good([text("k"), text("l")]),
            id("assignments[].user_id"),
        ],
        "CampaignService/ListAssignments" => {
            let mut cases = tokens.page(&tokens.assignments[0]);
            cases.extend([id("campaign_id"), id("user_id").or_absent()]);
            cases
        }
        "PrivacyService/UpsertSuppressions" => vec![
            entries("suppressions", false),
            id("suppressions[].user_id"),
            free_text("suppressions[].reason"),
        ],
        "PrivacyService/DeleteSuppressions" => vec![entries("suppressions", false), id("suppressions[].user_id")],
        "PrivacyService/ListSuppressions" => {
            let mut cases = tokens.page(&tokens.suppressions[0]);
            cases.push(id("user_id").or_absent());
            cases
        }
        _ => return None,
    })
}

/// An id of something that must exist: well-formed ids of what does not exist are neither good nor malformed.
fn malformed_id(field: &str) -> Case {
    let mut case = id(field);
    case.good.clear();
    case
}

fn privacy_cases(method: &str, tokens: &Tokens) -> Option<Vec<Case>> {
    Some(match method {
        "PrivacyService/SetConsent" => {
            let mut cases = time("decided_at");
            cases.extend([
                id("user_id"),
                Case::free("decisions")
                    .bad("BATCH_SIZE_OUT_OF_RANGE", [0, 4].map(Change::Times))
                    .good([Change::Times(1)]),
                Case::free("decisions[].purpose")
                    .bad("MISSING", [Change::To(Value::EnumNumber(0))])
                    .bad(
                        "UNKNOWN_ENUM_VALUE",
                        [4, -1, i32::MAX].map(|purpose| Change::To(Value::EnumNumber(purpose))),
                    )
                    .good([1, 2, 3].map(|purpose| Change::To(Value::EnumNumber(purpose)))),
                free_text("source"),
            ]);
            cases
        }
        "PrivacyService/GetConsent" => vec![id("user_id")],
        "PrivacyService/ListConsents" => {
            let mut cases = tokens.page(&tokens.consents[0]);
            cases.push(id("user_id"));
            cases
        }
        "PrivacyService/StreamConsentChanges" => vec![
            Case::free("limit")
                .bad("LIMIT_OUT_OF_RANGE", i64s([-1, i64::MIN]))
                .good(i64s([0, 1, i64::MAX])),
            Case::free("position").bad(
                "INVALID_POSITION",
                ["", "x", "!!", "bnVsbA", "e30", " ", "\0"].map(text),
            ),
            Case::free("since").or_absent(),
            Case::free("since.nanos")
                .bad("INVALID_TIMESTAMP", i32s([-1, i32::MIN, 1_000_000_000, i32::MAX]))
                .good(i32s([0, 999_999_999]))
                .said_of("since"),
            Case::free("since.seconds")
                .bad("INVALID_TIMESTAMP", i64s([i64::MIN, i64::MAX]))
                .bad("TIME_OUT_OF_RANGE", i64s([-100_000_000_000, 300_000_000_000]))
                .said_of("since"),
            Case::free("start").or_absent(),
        ],
        "PrivacyService/ExportUserData" => vec![free_text("reason"), id("user_id")],
        "PrivacyService/RectifyUser" => {
            let given = |field: &str| free_text(field).without(&text("")).bad("MISSING", [text("")]);
            vec![
                free_text("reason"),
                // One attribute is set.
                names("remove", 0, 999),
                given("remove[]"),
                Case::free("set")
                    .bad("BATCH_SIZE_OUT_OF_RANGE", [Change::Times(1_001)])
                    .good([Change::Times(1)]),
                given("set[].name"),
                given("set[].value"),
                id("user_id"),
            ]
        }
        _ => return None,
    })
}

/// A count or an amount of 64 bits, at least `least`.
fn number(field: &str, least: i64) -> Case {
    Case::free(field)
        .bad("OUT_OF_RANGE", i64s([least - 1, i64::MIN]))
        .good(i64s([least, 1_000, i64::MAX]))
}

fn basis_points(field: &str, least: i32) -> Case {
    Case::free(field)
        .bad("OUT_OF_RANGE", i32s([least - 1, 10_001, i32::MIN, i32::MAX]))
        .good(i32s([least, 10_000]))
}

fn state() -> Case {
    let number = |number| Change::To(Value::EnumNumber(number));
    Case::free("state")
        .bad("MISSING", [number(0)])
        .bad("UNKNOWN_ENUM_VALUE", [6, -1, i32::MIN, i32::MAX].map(number))
        .good((1..=5).map(number))
}

fn campaign(is_new: bool) -> Vec<Case> {
    let (starts_at, ends_at) = ("campaign.starts_at", "campaign.ends_at");
    let mut cases = vec![
        required("campaign"),
        id("campaign.campaign_id"),
        free_text("campaign.name").or_absent(),
        number("campaign.budget_limit_minor", 0).or_absent(),
        Case::free("campaign.priority")
            .good(i32s([0, i32::MIN, i32::MAX]))
            .or_absent(),
        enumeration("campaign.audience", 2).or_absent(),
        basis_points("campaign.holdout_basis_points", 0).or_absent(),
        enumeration("campaign.history_scope", 2).or_absent(),
    ];
    for field in [starts_at, ends_at] {
        let case = Case::free(field);
        cases.push(match is_new {
            true => case.bad("MISSING", [Change::Absent]),
            false => case.or_absent(),
        });
        cases.push(
            Case::free(&format!("{field}.seconds"))
                .bad("INVALID_TIMESTAMP", i64s([i64::MIN, i64::MAX]))
                .bad("TIME_OUT_OF_RANGE", i64s([-100_000_000_000, 300_000_000_000]))
                .said_of(field),
        );
        cases.push(
            Case::free(&format!("{field}.nanos"))
                .bad("INVALID_TIMESTAMP", i32s([-1, i32::MIN, 1_000_000_000, i32::MAX]))
                .good(i32s([0, 999_999_999]))
                .said_of(field),
        );
    }
    if is_new {
        cases.push(id("campaign.merchant_id").or_absent());
        cases.push(currency("campaign.currency_code").bad("MISSING", [Change::Absent]));
    } else {
        // These two fields of a stored campaign cannot change.
        let fixed = |field: &str, value: &str| Case::free(field).bad("CANNOT_CHANGE", [text(value)]).or_absent();
        cases.push(fixed("campaign.merchant_id", "acme"));
        cases.push(fixed("campaign.currency_code", "GBP"));
    }
    cases
}

fn coupon(is_new: bool) -> Vec<Case> {
    let mut cases = vec![
        required("coupon"),
        id("coupon.coupon_id"),
        free_text("coupon.title").or_absent(),
        required("coupon.discount.kind"),
        basis_points("coupon.discount.percent_basis_points", 1),
        number("coupon.discount.amount_minor", 1),
        number("coupon.max_discount_minor", 1).or_absent(),
        number("coupon.min_cart_minor", 0).or_absent(),
        enumeration("coupon.min_cart_basis", 2).or_absent(),
        Case::free("coupon.scope").or_absent(),
        required("coupon.scope.of"),
        Case::free("coupon.per_user_cap")
            .bad("OUT_OF_RANGE", i32s([0, -1, i32::MIN]))
            .good(i32s([1, i32::MAX]))
            .or_absent(),
        number("coupon.total_cap", 0).or_absent(),
        Case::free("coupon.reservation_ttl_seconds")
            .bad("OUT_OF_RANGE", i32s([0, -1, 86_401, i32::MIN, i32::MAX]))
            .good(i32s([1, 86_400]))
            .or_absent(),
        Case::free("coupon.rules").or_absent(),
        Case::free("coupon.rules.rules")
            .bad("BATCH_SIZE_OUT_OF_RANGE", [Change::Times(17)])
            .good([0, 1, 16].map(Change::Times)),
        required("coupon.rules.rules[].kind"),
        Case::free("coupon.rules.rules[].category_affinity"),
        id("coupon.rules.rules[].category_affinity.category"),
        Case::free("coupon.rules.rules[].category_affinity.min_share")
            .bad("OUT_OF_RANGE", f64s([-0.1, 1.1, f64::NAN, f64::INFINITY]))
            .good(f64s([0.0, 0.5, 1.0])),
        Case::free("coupon.rules.rules[].min_affinity")
            .bad("OUT_OF_RANGE", f64s([-0.1, f64::NAN, f64::INFINITY]))
            .good(f64s([0.0, 1e300])),
        Case::free("coupon.rules.rules[].lapsed_days")
            .bad("OUT_OF_RANGE", i32s([0, -1, 36_501, i32::MIN, i32::MAX]))
            .good(i32s([1, 36_500])),
        Case::free("coupon.rules.rules[].attribute"),
        free_text("coupon.rules.rules[].attribute.name")
            .without(&text(""))
            .bad("MISSING", [text("")]),
        values("coupon.rules.rules[].attribute.values"),
        free_text("coupon.rules.rules[].attribute.values[]"),
    ];
    cases.extend(item_set("coupon.scope.items"));
    for rule in ["bought", "not_bought"] {
        cases.extend(item_set(&format!("coupon.rules.rules[].{rule}")));
    }
    if is_new {
        cases.push(id("coupon.campaign_id"));
        cases.push(required("coupon.discount"));
    } else {
        let fixed = Case::free("coupon.campaign_id").bad("CANNOT_CHANGE", [text("other")]);
        cases.push(fixed.good([text("")]));
        cases.push(Case::free("coupon.discount").or_absent());
    }
    cases
}

fn values(field: &str) -> Case {
    let count = |count: usize| texts((0..count).map(|number| format!("n{number}")));
    Case::free(field)
        .bad("OUT_OF_RANGE", [count(0)])
        .bad("BATCH_SIZE_OUT_OF_RANGE", [count(1_001)])
        .good([count(1), count(1_000)])
}

/// A set of items. The valid request fills all its lists, so that each of them may be empty.
fn item_set(field: &str) -> Vec<Case> {
    let mut cases = vec![Case::free(field)];
    for list in ["item_ids", "categories", "merchant_ids"] {
        let list = format!("{field}.{list}");
        cases.push(id(&format!("{list}[]")));
        cases.push(names(&list, 0, 1_000));
    }
    cases
}

fn distinct_coupons(field: &str, most: usize) -> Case {
    let repeated = texts(["p", "q", "p"].map(str::to_owned));
    let mut case = names(field, 0, most);
    case.bad.extend(
        Case::free(&format!("{field}[2]"))
            .bad("REPEATED_COUPON", [repeated])
            .bad,
    );
    case
}

fn cart(is_required: bool) -> Vec<Case> {
    let cart = match is_required {
        true => required("cart"),
        false => Case::free("cart").or_absent(),
    };
    vec![
        cart,
        currency("cart.currency_code"),
        Case::free("cart.lines")
            .bad("BATCH_SIZE_OUT_OF_RANGE", [0, 1_001].map(Change::Times))
            .good([1, 1_000].map(Change::Times)),
        id("cart.lines[].item_id"),
        Case::free("cart.lines[].quantity")
            .bad("OUT_OF_RANGE", i32s([0, -1, i32::MIN]))
            .good(i32s([1, i32::MAX])),
        number("cart.lines[].total_minor", 0),
        number("cart.shipping_minor", 0),
        distinct_coupons("cart.applied_coupon_ids", 100),
        id("cart.applied_coupon_ids[]"),
        optional_id("cart.cart_id"),
    ]
}

/// Returns valid requests of an RPC; `None` for an RPC that is not about campaigns, coupons, consents or audiences.
pub fn valid_requests(method: &str) -> Option<Vec<Vec<u8>>> {
    campaign_requests(method)
        .or_else(|| coupon_requests(method))
        .or_else(|| privacy_requests(method))
        .or_else(|| audience_requests(method))
        .or_else(|| people_requests(method))
}

fn campaign_requests(method: &str) -> Option<Vec<Vec<u8>>> {
    Some(match method {
        "CampaignService/CreateCampaign" => vec![encoded(CreateCampaignRequest {
            campaign: Some(campaign_spec("new", true)),
            state: 0,
        })],
        "CampaignService/UpdateCampaign" => vec![encoded(UpdateCampaignRequest {
            campaign: Some(campaign_spec("k", false)),
            clear_budget_limit: false,
        })],
        "CampaignService/GetCampaign" => vec![encoded(GetCampaignRequest {
            campaign_id: "k".to_owned(),
        })],
        "CampaignService/GetLiftReport" => vec![encoded(GetLiftReportRequest {
            campaign_id: "k".to_owned(),
        })],
        "CampaignService/GetCampaignBiasReport" => vec![encoded(GetCampaignBiasReportRequest {
            campaign_id: "k".to_owned(),
        })],
        "CampaignService/AllowSensitiveAttribute" => vec![encoded(AllowSensitiveAttributeRequest {
            campaign_id: "k".to_owned(),
            attribute: "age".to_owned(),
            reason: "because".to_owned(),
        })],
        "CampaignService/ListCampaigns" => vec![encoded(ListCampaignsRequest {
            merchant_id: Some("acme".to_owned()),
            page_size: 1,
            page_token: String::new(),
        })],
        "CampaignService/SetCampaignState" => vec![encoded(SetCampaignStateRequest {
            campaign_id: "k".to_owned(),
            state: 3,
        })],
        "CampaignService/CreateCoupon" => coupon_specs("new", "k")
            .map(|coupon| encoded(CreateCouponRequest { coupon: Some(coupon) }))
            .collect(),
        "CampaignService/UpdateCoupon" => coupon_specs("c", "")
            .map(|coupon| {
                encoded(UpdateCouponRequest {
                    coupon: Some(coupon),
                    ..UpdateCouponRequest::default()
                })
            })
            .collect(),
        "CampaignService/GetCoupon" => vec![encoded(GetCouponRequest {
            coupon_id: "c".to_owned(),
        })],
        "CampaignService/ListCoupons" => vec![encoded(ListCouponsRequest {
            campaign_id: "k".to_owned(),
            page_size: 1,
            page_token: String::new(),
        })],
        _ => return None,
    })
}

fn coupon_requests(method: &str) -> Option<Vec<Vec<u8>>> {
    Some(match method {
        "CouponService/CheckEligibility" => vec![encoded(CheckEligibilityRequest {
            user_id: "a".to_owned(),
            coupon_ids: vec!["c".to_owned(), "d".to_owned()],
            cart: a_cart(),
        })],
        "CouponService/ListUserCoupons" => vec![encoded(ListUserCouponsRequest {
            user_id: "a".to_owned(),
            cart: a_cart(),
            limit: 5,
            personalized: Some(true),
            preview: false,
        })],
        "CouponService/StreamCouponTargets" => vec![encoded(StreamCouponTargetsRequest {
            coupon_id: "c".to_owned(),
            limit: 5,
            min_score: Some(0.0),
            by: 1,
            page_token: String::new(),
            explain: true,
            preview: true,
        })],
        "CouponService/ReserveCoupon" => vec![encoded(ReserveCouponRequest {
            request_id: "r".to_owned(),
            user_id: "a".to_owned(),
            coupon_id: "c".to_owned(),
            cart: a_cart(),
        })],
        "CouponService/ConfirmRedemption" => vec![encoded(ConfirmRedemptionRequest {
            request_id: "r".to_owned(),
            reservation_id: "x".to_owned(),
            amount_minor: Some(1),
            order_id: Some("o".to_owned()),
        })],
        "CouponService/ReleaseReservation" => vec![encoded(ReleaseReservationRequest {
            request_id: "r".to_owned(),
            reservation_id: "x".to_owned(),
        })],
        "CouponService/RollbackRedemption" => vec![encoded(RollbackRedemptionRequest {
            request_id: "r".to_owned(),
            redemption_id: "x".to_owned(),
            amount_minor: Some(1),
            restore_cap: true,
        })],
        "CouponService/GetReservation" => vec![encoded(GetReservationRequest {
            reservation_id: "x".to_owned(),
        })],
        "CouponService/GetRedemption" => vec![encoded(GetRedemptionRequest {
            redemption_id: "x".to_owned(),
        })],
        "CouponService/ListReservations" => vec![encoded(a_list_of_reservations())],
        "CouponService/ListRedemptions" => vec![encoded(a_list_of_redemptions())],
        _ => return None,
    })
}

fn privacy_requests(method: &str) -> Option<Vec<Vec<u8>>> {
    Some(match method {
        "PrivacyService/SetConsent" => vec![encoded(SetConsentRequest {
            user_id: "b".to_owned(),
            decisions: vec![ConsentDecision {
                purpose: Purpose::Marketing.into(),
                granted: true,
            }],
            decided_at: at(0),
            source: "a form".to_owned(),
        })],
        "PrivacyService/GetConsent" => vec![encoded(GetConsentRequest {
            user_id: "a".to_owned(),
        })],
        "PrivacyService/ListConsents" => vec![encoded(a_list_of_consents())],
        "PrivacyService/StreamConsentChanges" => vec![encoded(StreamConsentChangesRequest {
            start: at(0).map(stream_consent_changes_request::Start::Since),
            limit: 10,
        })],
        "PrivacyService/ExportUserData" => vec![encoded(ExportUserDataRequest {
            user_id: "a".to_owned(),
            reason: "a request of the user".to_owned(),
        })],
        "PrivacyService/RectifyUser" => vec![encoded(RectifyUserRequest {
            user_id: "a".to_owned(),
            set: vec![AttributeValue {
                name: "birthplace".to_owned(),
                value: "Bath".to_owned(),
            }],
            remove: vec!["shoe size".to_owned()],
            reason: "a request of the user".to_owned(),
        })],
        _ => return None,
    })
}

fn people_requests(method: &str) -> Option<Vec<Vec<u8>>> {
    let attribute = |user: &str| UserAttribute {
        user_id: user.to_owned(),
        name: "town".to_owned(),
        value: "Ely".to_owned(),
    };
    let attribute_key = |user: &str| UserAttributeKey {
        user_id: user.to_owned(),
        name: "no such attribute".to_owned(),
    };
    let assignment = |user: &str| AssignmentKey {
        campaign_id: "k".to_owned(),
        user_id: user.to_owned(),
    };
    Some(match method {
        "CatalogService/UpsertUserAttributes" => vec![encoded(UpsertUserAttributesRequest {
            attributes: ["a", "b"].map(attribute).to_vec(),
        })],
        "CatalogService/DeleteUserAttributes" => vec![encoded(DeleteUserAttributesRequest {
            attributes: ["a", "b"].map(attribute_key).to_vec(),
        })],
        "CatalogService/ListUserAttributes" => vec![encoded(a_list_of_attributes())],
        "CampaignService/UpsertAssignments" => vec![encoded(UpsertAssignmentsRequest {
            assignments: ["a", "b"].map(assignment).to_vec(),
        })],
        "CampaignService/DeleteAssignments" => vec![encoded(DeleteAssignmentsRequest {
            assignments: ["nobody", "no one"].map(assignment).to_vec(),
        })],
        "CampaignService/ListAssignments" => vec![encoded(a_list_of_assignments("k"))],
        "PrivacyService/UpsertSuppressions" => vec![encoded(UpsertSuppressionsRequest {
            suppressions: ["suppressed 1", "suppressed 2"]
                .map(|user| UserSuppression {
                    user_id: user.to_owned(),
                    reason: "a form".to_owned(),
                })
                .to_vec(),
        })],
        "PrivacyService/DeleteSuppressions" => vec![encoded(DeleteSuppressionsRequest {
            suppressions: ["nobody", "no one"]
                .map(|user| SuppressionKey {
                    user_id: user.to_owned(),
                })
                .to_vec(),
        })],
        "PrivacyService/ListSuppressions" => vec![encoded(a_list_of_suppressions())],
        _ => return None,
    })
}

/// Lists the decisions of user a, one a page.
pub fn a_list_of_consents() -> ListConsentsRequest {
    ListConsentsRequest {
        user_id: "a".to_owned(),
        page_size: 1,
        page_token: String::new(),
    }
}

/// Lists the attributes of user a, one a page.
pub fn a_list_of_attributes() -> ListUserAttributesRequest {
    ListUserAttributesRequest {
        user_id: Some("a".to_owned()),
        name: None,
        value: Some("Ely".to_owned()),
        page_size: 1,
        page_token: String::new(),
    }
}

/// Lists the users who are assigned to `campaign`, one a page.
pub fn a_list_of_assignments(campaign: &str) -> ListAssignmentsRequest {
    ListAssignmentsRequest {
        campaign_id: campaign.to_owned(),
        user_id: None,
        page_size: 1,
        page_token: String::new(),
    }
}

/// Lists the suppressed users, one a page.
pub fn a_list_of_suppressions() -> ListSuppressionsRequest {
    ListSuppressionsRequest {
        user_id: None,
        page_size: 1,
        page_token: String::new(),
    }
}

fn audience_requests(method: &str) -> Option<Vec<Vec<u8>>> {
    let audience = |of: stream_audience_request::Of| {
        encoded(StreamAudienceRequest {
            of: Some(of),
            limit: 5,
            min_score: Some(0.0),
            exclude_purchased: true,
            page_token: String::new(),
            note: "a banner".to_owned(),
        })
    };
    Some(match method {
        "RecommendationService/StreamAudience" => vec![
            audience(stream_audience_request::Of::ItemId("x".to_owned())),
            audience(stream_audience_request::Of::Category("mugs".to_owned())),
        ],
        "RecommendationService/ListItemAudience" => vec![encoded(ListItemAudienceRequest {
            item_id: "x".to_owned(),
            limit: 5,
            exclude_purchased: true,
        })],
        _ => return None,
    })
}

/// Returns a campaign; if `is_new`, with the fields that cannot change afterwards.
pub fn campaign_spec(id: &str, is_new: bool) -> CampaignSpec {
    CampaignSpec {
        campaign_id: id.to_owned(),
        merchant_id: is_new.then(|| "acme".to_owned()),
        name: Some("A name".to_owned()),
        starts_at: at(0),
        // The year 2099.
        ends_at: at(75 * 365 * 86_400),
        currency_code: is_new.then(|| "GBP".to_owned()),
        budget_limit_minor: Some(1_000_000),
        priority: Some(1),
        exclusive: Some(false),
        audience: Some(1),
        holdout_basis_points: Some(0),
        history_scope: Some(1),
    }
}

/// Returns coupons that between them have every alternative.
fn coupon_specs(id: &str, campaign_id: &str) -> impl Iterator<Item = CouponSpec> {
    let set = || ItemSet {
        item_ids: vec!["x".to_owned()],
        categories: vec!["mugs".to_owned()],
        merchant_ids: vec!["acme".to_owned()],
    };
    let rules = [
        rule::Kind::Bought(set()),
        rule::Kind::NotBought(set()),
        rule::Kind::CategoryAffinity(CategoryAffinity {
            category: "mugs".to_owned(),
            min_share: 0.5,
        }),
        rule::Kind::MinAffinity(0.5),
        rule::Kind::LapsedDays(30),
        rule::Kind::Attribute(AttributeRule {
            name: "age".to_owned(),
            values: vec!["65+".to_owned()],
        }),
    ];
    let (id, campaign_id) = (id.to_owned(), campaign_id.to_owned());
    rules.into_iter().enumerate().map(move |(number, kind)| CouponSpec {
        coupon_id: format!("{id}{}", if number == 0 { String::new() } else { number.to_string() }),
        campaign_id: campaign_id.clone(),
        title: Some("A title".to_owned()),
        discount: Some(Discount {
            kind: Some(match number % 2 {
                0 => discount::Kind::PercentBasisPoints(1_000),
                _ => discount::Kind::AmountMinor(100),
            }),
        }),
        max_discount_minor: Some(500),
        min_cart_minor: Some(0),
        min_cart_basis: Some(0),
        scope: Some(Scope {
            of: Some(scope::Of::Items(set())),
        }),
        per_user_cap: Some(1_000_000),
        total_cap: Some(1_000_000),
        reservation_ttl_seconds: Some(60),
        rules: Some(Rules {
            rules: vec![Rule { kind: Some(kind) }],
        }),
    })
}

/// Lists the reservations of coupon c by user a, one a page.
pub fn a_list_of_reservations() -> ListReservationsRequest {
    ListReservationsRequest {
        campaign_id: Some("k".to_owned()),
        coupon_id: Some("c".to_owned()),
        user_id: Some("a".to_owned()),
        reserved_from: at(0),
        reserved_before: at(75 * 365 * 86_400),
        states: vec![1, 2],
        page_size: 1,
        page_token: String::new(),
    }
}

/// Lists the redemptions of coupon c by user a, one a page.
pub fn a_list_of_redemptions() -> ListRedemptionsRequest {
    ListRedemptionsRequest {
        campaign_id: Some("k".to_owned()),
        coupon_id: Some("c".to_owned()),
        user_id: Some("a".to_owned()),
        redeemed_from: at(0),
        redeemed_before: at(75 * 365 * 86_400),
        statuses: vec![1],
        order_id: Some("o".to_owned()),
        page_size: 1,
        page_token: String::new(),
    }
}

fn a_cart() -> Option<Cart> {
    Some(Cart {
        currency_code: "GBP".to_owned(),
        lines: vec![CartLine {
            item_id: "x".to_owned(),
            quantity: 1,
            total_minor: 1_000,
        }],
        shipping_minor: 100,
        applied_coupon_ids: vec!["d".to_owned()],
        cart_id: "cart".to_owned(),
    })
}
