//! Campaigns and coupons: made, changed, listed, kept apart, and what they brought.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use likemind::grpc::proto::v1::campaign_service_client::CampaignServiceClient;
use likemind::grpc::proto::v1::coupon_service_client::CouponServiceClient;
use likemind::grpc::proto::v1::{
    AttributeRule, Audience, Campaign, CampaignSpec, CampaignState, CategoryAffinity, CheckEligibilityRequest, Coupon,
    CouponSpec, CreateCampaignRequest, CreateCouponRequest, Discount, GetCampaignRequest, GetCouponRequest,
    GetLiftReportRequest, GetLiftReportResponse, ItemSet, LiftVerdict, ListCampaignsRequest, ListCouponsRequest,
    PurchaseLine, ReasonCode, RecordPurchasesRequest, Rule, Rules, Scope, SetCampaignStateRequest,
    UpdateCampaignRequest, UpdateCouponRequest, Usage, discount, rule, scope,
};
use prost_types::Timestamp;
use sqlx::{AssertSqlSafe, PgConnection};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::postgres::TestDatabase;
use crate::program::{Server, succeed};
use crate::rpc::{all_pages, assert_invalid, assert_status, at, seconds_now};
use crate::shop::{self, item, pounds, soon, user};

/// In seconds.
const DAY: i64 = 86_400;

/// Calls with a key, or without one.
#[derive(Clone)]
struct WithKey(Option<MetadataValue<Ascii>>);

impl tonic::service::Interceptor for WithKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        Ok(request)
    }
}

/// Short ways to call the service.
#[derive(Clone)]
struct Client(CampaignServiceClient<InterceptedService<Channel, WithKey>>);

impl Client {
    async fn of(server: &Server) -> Self {
        Self(CampaignServiceClient::with_interceptor(
            server.channel().await,
            WithKey(None),
        ))
    }

    async fn with(server: &Server, key: &str) -> Self {
        let key = WithKey(Some(format!("Bearer {key}").parse().unwrap()));
        Self(CampaignServiceClient::with_interceptor(server.channel().await, key))
    }

    async fn create(&self, campaign: CampaignSpec, state: CampaignState) -> Result<Campaign, Status> {
        let request = CreateCampaignRequest {
            campaign: Some(campaign),
            state: state.into(),
        };
        let answer = self.0.clone().create_campaign(request).await?;
        Ok(answer.into_inner().campaign.unwrap())
    }

    async fn update(&self, campaign: CampaignSpec) -> Result<Campaign, Status> {
        let request = UpdateCampaignRequest {
            campaign: Some(campaign),
            clear_budget_limit: false,
        };
        let answer = self.0.clone().update_campaign(request).await?;
        Ok(answer.into_inner().campaign.unwrap())
    }

    async fn get(&self, id: &str) -> Result<Campaign, Status> {
        let campaign_id = id.to_owned();
        let answer = self.0.clone().get_campaign(GetCampaignRequest { campaign_id }).await?;
        Ok(answer.into_inner().campaign.unwrap())
    }

    async fn list(
        &self,
        merchant: Option<&str>,
        page_size: i32,
        page_token: String,
    ) -> Result<(Vec<String>, String), Status> {
        let request = ListCampaignsRequest {
            merchant_id: merchant.map(str::to_owned),
            page_size,
            page_token,
        };
        let answer = self.0.clone().list_campaigns(request).await?.into_inner();
        let ids = answer.campaigns.into_iter().map(|campaign| campaign.campaign_id);
        Ok((ids.collect(), answer.next_page_token))
    }

    async fn set_state(&self, id: &str, state: CampaignState) -> Result<Campaign, Status> {
        let request = SetCampaignStateRequest {
            campaign_id: id.to_owned(),
            state: state.into(),
        };
        let answer = self.0.clone().set_campaign_state(request).await?;
        Ok(answer.into_inner().campaign.unwrap())
    }

    async fn create_coupon(&self, coupon: CouponSpec) -> Result<Coupon, Status> {
        let request = CreateCouponRequest { coupon: Some(coupon) };
        let answer = self.0.clone().create_coupon(request).await?;
        Ok(answer.into_inner().coupon.unwrap())
    }

    async fn update_coupon(&self, coupon: CouponSpec) -> Result<Coupon, Status> {
        let request = UpdateCouponRequest {
            coupon: Some(coupon),
            ..UpdateCouponRequest::default()
        };
        let answer = self.0.clone().update_coupon(request).await?;
        Ok(answer.into_inner().coupon.unwrap())
    }

    async fn get_coupon(&self, id: &str) -> Result<Coupon, Status> {
        let coupon_id = id.to_owned();
        let answer = self.0.clone().get_coupon(GetCouponRequest { coupon_id }).await?;
        Ok(answer.into_inner().coupon.unwrap())
    }

    async fn list_coupons(
        &self,
        campaign: &str,
        page_size: i32,
        page_token: String,
    ) -> Result<(Vec<Coupon>, String), Status> {
        let request = ListCouponsRequest {
            campaign_id: campaign.to_owned(),
            page_size,
            page_token,
        };
        let answer = self.0.clone().list_coupons(request).await?.into_inner();
        Ok((answer.coupons, answer.next_page_token))
    }

    async fn lift(&self, campaign: &str) -> Result<GetLiftReportResponse, Status> {
        let campaign_id = campaign.to_owned();
        let answer = self
            .0
            .clone()
            .get_lift_report(GetLiftReportRequest { campaign_id })
            .await?;
        Ok(answer.into_inner())
    }
}

async fn execute(connection: &mut PgConnection, statements: &str) {
    let statements = AssertSqlSafe(statements.to_owned());
    sqlx::raw_sql(statements).execute(connection).await.unwrap();
}

/// From a day ago until in a day; the same in all calls, so that what is sent again is the same.
fn a_campaign(id: &str) -> CampaignSpec {
    static STARTED: LazyLock<i64> = LazyLock::new(seconds_now);
    let from_now = |seconds| {
        Some(Timestamp {
            seconds: *STARTED + seconds,
            nanos: 0,
        })
    };
    CampaignSpec {
        campaign_id: id.to_owned(),
        starts_at: from_now(-DAY),
        ends_at: from_now(DAY),
        currency_code: Some("GBP".to_owned()),
        ..CampaignSpec::default()
    }
}

/// From in a day until in two.
fn tomorrows_campaign(id: &str) -> CampaignSpec {
    let campaign = a_campaign(id);
    let end = campaign.ends_at.unwrap();
    CampaignSpec {
        starts_at: Some(end),
        ends_at: Some(Timestamp {
            seconds: end.seconds + DAY,
            ..end
        }),
        ..campaign
    }
}

/// Changes nothing by itself.
fn campaign_change(id: &str) -> CampaignSpec {
    CampaignSpec {
        campaign_id: id.to_owned(),
        ..CampaignSpec::default()
    }
}

fn a_coupon(id: &str, campaign: &str) -> CouponSpec {
    CouponSpec {
        coupon_id: id.to_owned(),
        campaign_id: campaign.to_owned(),
        discount: off(discount::Kind::AmountMinor(100)),
        ..CouponSpec::default()
    }
}

/// Changes nothing by itself.
fn coupon_change(id: &str) -> CouponSpec {
    CouponSpec {
        coupon_id: id.to_owned(),
        ..CouponSpec::default()
    }
}

fn off(kind: discount::Kind) -> Option<Discount> {
    Some(Discount { kind: Some(kind) })
}

fn everything() -> Option<Scope> {
    Some(Scope {
        of: Some(scope::Of::Everything(true)),
    })
}

fn a_set(items: &[&str], categories: &[&str], merchants: &[&str]) -> ItemSet {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    ItemSet {
        item_ids: owned(items),
        categories: owned(categories),
        merchant_ids: owned(merchants),
    }
}

fn covering(set: ItemSet) -> Option<Scope> {
    Some(Scope {
        of: Some(scope::Of::Items(set)),
    })
}

fn rules(kinds: impl IntoIterator<Item = rule::Kind>) -> Option<Rules> {
    let rules = kinds.into_iter().map(|kind| Rule { kind: Some(kind) });
    Some(Rules { rules: rules.collect() })
}

#[tokio::test]
async fn a_campaign_is_made_once_and_read_back() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = Client::of(&server).await;
    let bare = client
        .create(a_campaign("bare"), CampaignState::Unspecified)
        .await
        .unwrap();
    let spec = a_campaign("bare");
    let budget = bare.budget.clone().unwrap();
    assert_eq!((bare.starts_at, bare.ends_at), (spec.starts_at, spec.ends_at));
    assert_eq!(
        (bare.state(), bare.audience()),
        (CampaignState::Draft, Audience::Everybody)
    );
    assert_eq!((bare.name.as_str(), bare.priority, bare.exclusive), ("", 0, false));
    assert_eq!((bare.merchant_id.as_deref(), bare.holdout_basis_points), (None, 0));
    assert_eq!((budget.currency_code.as_str(), budget.limit_minor), ("GBP", None));
    assert!(bare.created_at.is_some());

    let full = CampaignSpec {
        merchant_id: Some("m0".to_owned()),
        name: Some("Tea time".to_owned()),
        budget_limit_minor: Some(0),
        priority: Some(-7),
        exclusive: Some(true),
        audience: Some(Audience::Assigned.into()),
        holdout_basis_points: Some(10_000),
        ..a_campaign("full")
    };
    let made = client.create(full.clone(), CampaignState::Active).await.unwrap();
    assert_eq!(made.state(), CampaignState::Active);
    assert_eq!(
        (made.name.as_str(), made.priority, made.exclusive),
        ("Tea time", -7, true)
    );
    assert_eq!(
        (made.merchant_id.as_deref(), made.audience(), made.holdout_basis_points),
        (Some("m0"), Audience::Assigned, 10_000)
    );
    assert_eq!(made.budget.as_ref().unwrap().limit_minor, Some(0));
    assert_eq!(client.get("full").await.unwrap(), made);

    // Again, and from two at once.
    assert_eq!(client.create(full.clone(), CampaignState::Active).await.unwrap(), made);
    let twice = || client.create(a_campaign("twice"), CampaignState::Draft);
    let (one, other) = tokio::join!(twice(), twice());
    assert_eq!(one.unwrap(), other.unwrap());
    let others = [
        (CampaignState::Draft, full.clone()),
        (
            CampaignState::Active,
            CampaignSpec {
                name: None,
                ..full.clone()
            },
        ),
        (
            CampaignState::Active,
            CampaignSpec {
                holdout_basis_points: None,
                ..full.clone()
            },
        ),
    ];
    for (state, other) in others {
        let status = client.create(other, state).await.unwrap_err();
        assert_status(&status, Code::AlreadyExists, "CAMPAIGN_EXISTS");
    }
    let nobodys = CampaignSpec {
        merchant_id: Some("m9".to_owned()),
        ..a_campaign("nobodys")
    };
    let status = client.create(nobodys, CampaignState::Draft).await.unwrap_err();
    assert_status(&status, Code::NotFound, "MERCHANT_NOT_FOUND");

    // Every campaign has a salt of its own.
    let salts: BTreeSet<Vec<u8>> = sqlx::query_scalar("SELECT holdout_salt FROM campaigns")
        .fetch_all(&mut shop::connect(&database).await)
        .await
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(salts.len(), 3);
    assert!(salts.iter().all(|salt| salt.len() == 16 && *salt != [0; 16]));
}

#[tokio::test]
async fn all_that_is_wrong_with_a_new_campaign_or_coupon_is_named() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = Client::of(&server).await;
    let wrong = CampaignSpec {
        campaign_id: String::new(),
        starts_at: None,
        currency_code: Some("pounds".to_owned()),
        budget_limit_minor: Some(-1),
        audience: Some(9),
        holdout_basis_points: Some(10_001),
        ..a_campaign("")
    };
    let status = client.create(wrong, CampaignState::Paused).await.unwrap_err();
    let fields = [
        "state",
        "campaign.campaign_id",
        "campaign.starts_at",
        "campaign.currency_code",
        "campaign.budget_limit_minor",
        "campaign.audience",
        "campaign.holdout_basis_points",
    ];
    assert_invalid(&status, "NOT_A_FIRST_STATE", &fields);
    let empty = CampaignSpec {
        ends_at: a_campaign("k").starts_at,
        starts_at: a_campaign("k").starts_at,
        ..a_campaign("k")
    };
    let status = client.create(empty, CampaignState::Draft).await.unwrap_err();
    assert_invalid(&status, "WINDOW_EMPTY", &["campaign.ends_at"]);

    client.create(a_campaign("k"), CampaignState::Draft).await.unwrap();
    let wrong = CouponSpec {
        discount: off(discount::Kind::PercentBasisPoints(0)),
        max_discount_minor: Some(0),
        min_cart_minor: Some(-1),
        scope: covering(a_set(&["i1", ""], &[], &[])),
        per_user_cap: Some(0),
        total_cap: Some(-1),
        reservation_ttl_seconds: Some(86_401),
        rules: rules([
            rule::Kind::NewUser(false),
            rule::Kind::LapsedDays(36_501),
            rule::Kind::Bought(a_set(&[], &[], &[])),
            rule::Kind::MinAffinity(f64::NAN),
            rule::Kind::CategoryAffinity(CategoryAffinity {
                category: "tea".to_owned(),
                min_share: 1.5,
            }),
            rule::Kind::Attribute(AttributeRule {
                name: "age".to_owned(),
                values: Vec::new(),
            }),
        ]),
        ..a_coupon("c", "k")
    };
    let status = client.create_coupon(wrong).await.unwrap_err();
    let fields = [
        "coupon.discount.percent_basis_points",
        "coupon.max_discount_minor",
        "coupon.min_cart_minor",
        "coupon.scope.items.item_ids[1]",
        "coupon.per_user_cap",
        "coupon.total_cap",
        "coupon.reservation_ttl_seconds",
        "coupon.rules.rules[0].new_user",
        "coupon.rules.rules[1].lapsed_days",
        "coupon.rules.rules[2].bought.items",
        "coupon.rules.rules[3].min_affinity",
        "coupon.rules.rules[4].category_affinity.min_share",
        "coupon.rules.rules[5].attribute.values",
    ];
    assert_invalid(&status, "OUT_OF_RANGE", &fields);
    let check = async |coupon: CouponSpec, reason: &str, field: &str| {
        assert_invalid(&client.create_coupon(coupon).await.unwrap_err(), reason, &[field]);
    };
    let without_discount = CouponSpec {
        discount: None,
        ..a_coupon("c", "k")
    };
    check(without_discount, "MISSING", "coupon.discount").await;
    let of_no_kind = CouponSpec {
        discount: Some(Discount { kind: None }),
        ..a_coupon("c", "k")
    };
    check(of_no_kind, "MISSING", "coupon.discount.kind").await;
    let of_no_scope = CouponSpec {
        scope: Some(Scope { of: None }),
        ..a_coupon("c", "k")
    };
    check(of_no_scope, "MISSING", "coupon.scope.of").await;
    let too_many_rules = CouponSpec {
        rules: rules(vec![rule::Kind::NewUser(true); 17]),
        ..a_coupon("c", "k")
    };
    check(too_many_rules, "BATCH_SIZE_OUT_OF_RANGE", "coupon.rules.rules").await;
    check(a_coupon("c", ""), "EMPTY_ID", "coupon.campaign_id").await;
}

#[tokio::test]
async fn a_change_of_a_campaign_keeps_what_it_does_not_name() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = Client::of(&server).await;
    let spec = CampaignSpec {
        name: Some("Tea".to_owned()),
        budget_limit_minor: Some(500),
        ..a_campaign("k")
    };
    let made = client.create(spec, CampaignState::Draft).await.unwrap();
    assert_eq!(client.update(campaign_change("k")).await.unwrap(), made);

    let later = Some(Timestamp {
        seconds: made.ends_at.unwrap().seconds + 60,
        nanos: 0,
    });
    let change = CampaignSpec {
        name: Some("Coffee".to_owned()),
        ends_at: later,
        priority: Some(3),
        exclusive: Some(true),
        audience: Some(Audience::Assigned.into()),
        holdout_basis_points: Some(1_000),
        ..campaign_change("k")
    };
    let mut expected = Campaign {
        name: "Coffee".to_owned(),
        ends_at: later,
        priority: 3,
        exclusive: true,
        audience: Audience::Assigned.into(),
        holdout_basis_points: 1_000,
        ..made
    };
    assert_eq!(client.update(change).await.unwrap(), expected);
    assert_eq!(client.get("k").await.unwrap(), expected);
    let cleared = UpdateCampaignRequest {
        campaign: Some(campaign_change("k")),
        clear_budget_limit: true,
    };
    let answer = client.0.clone().update_campaign(cleared.clone()).await.unwrap();
    expected.budget.as_mut().unwrap().limit_minor = None;
    assert_eq!(answer.into_inner().campaign.unwrap(), expected);

    // Both at once.
    let contradiction = UpdateCampaignRequest {
        campaign: Some(CampaignSpec {
            budget_limit_minor: Some(1),
            ..campaign_change("k")
        }),
        ..cleared
    };
    let status = client.0.clone().update_campaign(contradiction).await.unwrap_err();
    assert_invalid(&status, "CONTRADICTION", &["campaign.budget_limit_minor"]);

    // Against the window that is stored.
    let change = CampaignSpec {
        starts_at: later,
        ..campaign_change("k")
    };
    let status = client.update(change).await.unwrap_err();
    assert_invalid(&status, "WINDOW_EMPTY", &["campaign.ends_at"]);
    let change = CampaignSpec {
        merchant_id: Some("m1".to_owned()),
        currency_code: Some("EUR".to_owned()),
        ..campaign_change("k")
    };
    let status = client.update(change).await.unwrap_err();
    let fields = ["campaign.merchant_id", "campaign.currency_code"];
    assert_invalid(&status, "CANNOT_CHANGE", &fields);
    let status = client.update(campaign_change("no")).await.unwrap_err();
    assert_status(&status, Code::NotFound, "CAMPAIGN_NOT_FOUND");

    // Who is in which arm stays, once the campaign is no draft any more.
    client.set_state("k", CampaignState::Scheduled).await.unwrap();
    let audience = |audience: Audience| CampaignSpec {
        audience: Some(audience.into()),
        ..campaign_change("k")
    };
    let holdout = |share: i32| CampaignSpec {
        holdout_basis_points: Some(share),
        ..campaign_change("k")
    };
    for change in [audience(Audience::Everybody), holdout(999)] {
        let status = client.update(change).await.unwrap_err();
        assert_status(&status, Code::FailedPrecondition, "CAMPAIGN_NOT_DRAFT");
    }
    for change in [audience(Audience::Assigned), holdout(1_000)] {
        client.update(change).await.unwrap();
    }
}

#[tokio::test]
async fn a_campaign_goes_through_its_states() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = Client::of(&server).await;
    use CampaignState::{Active, Draft, Ended, Paused, Scheduled};
    let states = [Draft, Scheduled, Active, Paused, Ended];
    let allowed = |from, to| match from {
        Draft => [Scheduled, Active, Ended].contains(&to),
        Scheduled => [Draft, Active, Paused, Ended].contains(&to),
        Active => [Paused, Ended].contains(&to),
        Paused => [Active, Ended].contains(&to),
        _ => false,
    };
    for from in states {
        for to in states {
            let id = format!("{from:?} to {to:?}");
            client.create(tomorrows_campaign(&id), Draft).await.unwrap();
            let way: &[CampaignState] = if from == Paused { &[Active, Paused] } else { &[from] };
            for &state in way {
                client.set_state(&id, state).await.unwrap();
            }
            let answer = client.set_state(&id, to).await;
            // What it is already it may be told again.
            let expected = if from == to || allowed(from, to) { to } else { from };
            match answer {
                Ok(campaign) => assert_eq!((campaign.state(), expected), (to, to), "{id}"),
                Err(status) => {
                    assert_ne!(expected, to, "{id}: {status:?}");
                    assert_status(&status, Code::FailedPrecondition, "INVALID_TRANSITION");
                    for state in [from, to] {
                        let name = format!("{state:?}").to_lowercase();
                        assert!(status.message().contains(&name), "{status:?}");
                    }
                }
            }
            assert_eq!(client.get(&id).await.unwrap().state(), expected, "{id}");
        }
    }
    // Once it has begun, users may have been offered something.
    client.create(a_campaign("begun"), Scheduled).await.unwrap();
    let status = client.set_state("begun", Draft).await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "INVALID_TRANSITION");
    assert!(status.message().contains("has begun"), "{status:?}");
    assert_eq!(client.get("begun").await.unwrap().state(), Scheduled);
    client.set_state("begun", Paused).await.unwrap();
    let status = client.set_state("no", Active).await.unwrap_err();
    assert_status(&status, Code::NotFound, "CAMPAIGN_NOT_FOUND");
    let status = client.set_state("k", CampaignState::Unspecified).await.unwrap_err();
    assert_invalid(&status, "MISSING", &["state"]);
}

#[tokio::test]
async fn a_coupon_is_made_once_changed_and_read_back() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = Client::of(&server).await;
    client.create(a_campaign("k"), CampaignState::Draft).await.unwrap();
    let bare = client.create_coupon(a_coupon("bare", "k")).await.unwrap();
    let expected = Coupon {
        coupon_id: "bare".to_owned(),
        campaign_id: "k".to_owned(),
        discount: off(discount::Kind::AmountMinor(100)),
        scope: everything(),
        reservation_ttl_seconds: 900,
        rules: rules([]),
        usage: Some(Usage::default()),
        ..Coupon::default()
    };
    assert_eq!(bare, expected);

    let all_rules = || {
        rules([
            rule::Kind::Bought(a_set(&["i01", "i00"], &["books"], &["m0", "m1"])),
            rule::Kind::NotBought(a_set(&["unheard-of"], &[], &[])),
            rule::Kind::CategoryAffinity(CategoryAffinity {
                category: "books".to_owned(),
                min_share: 0.25,
            }),
            rule::Kind::MinAffinity(0.5),
            rule::Kind::NewUser(true),
            rule::Kind::LapsedDays(36_500),
            rule::Kind::Attribute(AttributeRule {
                name: "age".to_owned(),
                values: vec!["65+".to_owned(), "45-54".to_owned()],
            }),
        ])
    };
    let full = CouponSpec {
        title: Some("Half the price".to_owned()),
        discount: off(discount::Kind::PercentBasisPoints(5_000)),
        max_discount_minor: Some(1_000),
        min_cart_minor: Some(500),
        // In any order, also more than once; the last one nobody has heard of.
        scope: covering(a_set(
            &["new one", "i01", "i00", "i01"],
            &["games", "books"],
            &["m1", "m0"],
        )),
        per_user_cap: Some(2),
        total_cap: Some(0),
        reservation_ttl_seconds: Some(86_400),
        rules: all_rules(),
        ..a_coupon("full", "k")
    };
    let made = client.create_coupon(full.clone()).await.unwrap();
    let scope = covering(a_set(&["i00", "i01", "new one"], &["books", "games"], &["m0", "m1"]));
    assert_eq!((made.scope.clone(), made.scope_item_count), (scope, 3));
    assert_eq!(
        (made.title.as_str(), made.max_discount_minor),
        ("Half the price", Some(1_000))
    );
    assert_eq!((made.min_cart_minor, made.per_user_cap), (500, Some(2)));
    assert_eq!((made.reservation_ttl_seconds, made.discount), (86_400, full.discount));
    assert_eq!(made.usage.unwrap().total_cap, Some(0));
    assert_eq!(made.rules.as_ref().unwrap().rules[1..], all_rules().unwrap().rules[1..]);
    assert_eq!(client.get_coupon("full").await.unwrap(), made);
    shop::Caller::of(&server)
        .await
        .catalog
        .get_item(likemind::grpc::proto::v1::GetItemRequest {
            item_id: "new one".to_owned(),
        })
        .await
        .expect("made bare");

    let again = CouponSpec {
        scope: covering(a_set(&["i00", "new one", "i01"], &["books", "games"], &["m0", "m1"])),
        ..full.clone()
    };
    assert_eq!(client.create_coupon(again).await.unwrap(), made);
    let other = CouponSpec {
        scope: covering(a_set(&["i00", "i01"], &["books", "games"], &["m0", "m1"])),
        ..full
    };
    let status = client.create_coupon(other).await.unwrap_err();
    assert_status(&status, Code::AlreadyExists, "COUPON_EXISTS");
    let status = client.create_coupon(a_coupon("c", "no")).await.unwrap_err();
    assert_status(&status, Code::NotFound, "CAMPAIGN_NOT_FOUND");

    assert_eq!(client.update_coupon(coupon_change("full")).await.unwrap(), made);
    let change = CouponSpec {
        title: Some(String::new()),
        discount: off(discount::Kind::FreeShipping(true)),
        scope: covering(a_set(&["i02", "i00"], &[], &[])),
        rules: rules([rule::Kind::NewUser(true)]),
        ..coupon_change("full")
    };
    let changed = Coupon {
        title: String::new(),
        discount: off(discount::Kind::FreeShipping(true)),
        scope: covering(a_set(&["i00", "i02"], &[], &[])),
        scope_item_count: 2,
        rules: rules([rule::Kind::NewUser(true)]),
        ..made
    };
    assert_eq!(client.update_coupon(change).await.unwrap(), changed);
    let change = UpdateCouponRequest {
        coupon: Some(CouponSpec {
            scope: everything(),
            rules: rules([]),
            ..coupon_change("full")
        }),
        clear_max_discount: true,
        clear_per_user_cap: true,
        clear_total_cap: true,
    };
    let answer = client.0.clone().update_coupon(change.clone()).await.unwrap();
    let cleared = Coupon {
        scope: everything(),
        scope_item_count: 0,
        rules: rules([]),
        max_discount_minor: None,
        per_user_cap: None,
        usage: Some(Usage::default()),
        ..changed
    };
    assert_eq!(answer.into_inner().coupon.unwrap(), cleared);
    assert_eq!(client.get_coupon("full").await.unwrap(), cleared);
    let contradiction = UpdateCouponRequest {
        coupon: Some(CouponSpec {
            total_cap: Some(1),
            ..coupon_change("full")
        }),
        ..change
    };
    let status = client.0.clone().update_coupon(contradiction).await.unwrap_err();
    assert_invalid(&status, "CONTRADICTION", &["coupon.total_cap"]);
    let status = client.update_coupon(coupon_change("no")).await.unwrap_err();
    assert_status(&status, Code::NotFound, "COUPON_NOT_FOUND");
    let status = client.get_coupon("no").await.unwrap_err();
    assert_status(&status, Code::NotFound, "COUPON_NOT_FOUND");
}

#[tokio::test]
async fn merchants_that_are_named_are_there_and_cover_their_own() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = Client::of(&server).await;
    let of_m0 = CampaignSpec {
        merchant_id: Some("m0".to_owned()),
        ..a_campaign("of m0")
    };
    client.create(of_m0, CampaignState::Draft).await.unwrap();
    client.create(a_campaign("of all"), CampaignState::Draft).await.unwrap();
    let covers = |campaign: &str, merchants: &[&str]| CouponSpec {
        scope: covering(a_set(&[], &[], merchants)),
        ..a_coupon("c", campaign)
    };
    let judges = |campaign: &str, merchants: &[&str]| CouponSpec {
        rules: rules([rule::Kind::Bought(a_set(&[], &[], merchants))]),
        ..a_coupon("c", campaign)
    };
    for unknown in [covers("of all", &["m1", "m9"]), judges("of all", &["m9"])] {
        let status = client.create_coupon(unknown).await.unwrap_err();
        assert_status(&status, Code::NotFound, "MERCHANT_NOT_FOUND");
        assert!(status.message().contains("m9"), "{status:?}");
    }
    for foreign in [covers("of m0", &["m0", "m1"]), judges("of m0", &["m0", "m1"])] {
        let status = client.create_coupon(foreign).await.unwrap_err();
        assert_status(&status, Code::FailedPrecondition, "FOREIGN_MERCHANT");
    }
    client.create_coupon(covers("of m0", &["m0"])).await.unwrap();
    let change = |merchants: &[&str]| CouponSpec {
        scope: covering(a_set(&[], &[], merchants)),
        ..coupon_change("c")
    };
    let status = client.update_coupon(change(&["m1"])).await.unwrap_err();
    assert_status(&status, Code::FailedPrecondition, "FOREIGN_MERCHANT");
    assert_eq!(
        client.get_coupon("c").await.unwrap().scope,
        covering(a_set(&[], &[], &["m0"]))
    );
}

#[tokio::test]
async fn limits_are_never_lowered_below_what_is_used() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = Client::of(&server).await;
    client.create(a_campaign("k"), CampaignState::Active).await.unwrap();
    client.create_coupon(a_coupon("c", "k")).await.unwrap();
    execute(
        &mut shop::connect(&database).await,
        "UPDATE campaign_states SET reserved_minor = 30, spent_minor = 70;
         UPDATE coupon_counters SET reserved = 2, redeemed = 3;
         INSERT INTO user_coupon_counters (user_id, coupon_id, reserved, redeemed)
         SELECT users.id, coupons.id, 1, 1 FROM users, coupons WHERE users.external_id = 'u000';
         INSERT INTO user_coupon_counters (user_id, coupon_id, reserved, redeemed)
         SELECT users.id, coupons.id, 1, 2 FROM users, coupons WHERE users.external_id = 'u001'",
    )
    .await;
    let refused = |status: &Status, numbers: &[&str]| {
        assert_status(status, Code::FailedPrecondition, "LIMIT_BELOW_USE");
        for number in numbers {
            assert!(status.message().contains(number), "{status:?}");
        }
    };
    let budget = |limit: i64| CampaignSpec {
        budget_limit_minor: Some(limit),
        ..campaign_change("k")
    };
    refused(&client.update(budget(99)).await.unwrap_err(), &["99", "100"]);
    let changed = client.update(budget(100)).await.unwrap().budget.unwrap();
    assert_eq!(
        (changed.limit_minor, changed.reserved_minor, changed.spent_minor),
        (Some(100), 30, 70)
    );
    let total = |cap: i64| CouponSpec {
        total_cap: Some(cap),
        ..coupon_change("c")
    };
    refused(&client.update_coupon(total(4)).await.unwrap_err(), &["4", "5"]);
    let usage = client.update_coupon(total(5)).await.unwrap().usage.unwrap();
    assert_eq!((usage.total_cap, usage.reserved, usage.redeemed), (Some(5), 2, 3));
    let per_user = |cap: i32| CouponSpec {
        per_user_cap: Some(cap),
        ..coupon_change("c")
    };
    refused(&client.update_coupon(per_user(2)).await.unwrap_err(), &["2", "3"]);
    assert_eq!(client.update_coupon(per_user(3)).await.unwrap().per_user_cap, Some(3));
}

#[tokio::test]
async fn pages_hold_every_row_once() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = Client::of(&server).await;
    // Byte by byte: capitals come first.
    let ids = ["Z", "a", "b", "c", "d", "é"];
    for id in ids {
        let merchant = ["b", "d"].contains(&id).then(|| "m0".to_owned());
        let spec = CampaignSpec {
            merchant_id: merchant,
            ..a_campaign(id)
        };
        client.create(spec, CampaignState::Draft).await.unwrap();
    }
    let pages = async |merchant: Option<&str>, size: i32| {
        all_pages(async |token| client.list(merchant, size, token).await.unwrap()).await
    };
    assert_eq!(pages(None, 0).await, (ids.map(str::to_owned).to_vec(), 1));
    assert_eq!(pages(None, 2).await, (ids.map(str::to_owned).to_vec(), 3));
    assert_eq!(pages(Some("m0"), 1).await, (vec!["b".to_owned(), "d".to_owned()], 2));
    assert_eq!(pages(Some("m9"), 1).await, (Vec::new(), 1));
    let (_, token) = client.list(None, 2, String::new()).await.unwrap();
    let status = client.list(Some("m0"), 2, token.clone()).await.unwrap_err();
    assert_invalid(&status, "INVALID_PAGE_TOKEN", &["page_token"]);
    let status = client.list(None, 1_001, String::new()).await.unwrap_err();
    assert_invalid(&status, "PAGE_SIZE_OUT_OF_RANGE", &["page_size"]);

    let items: Vec<String> = (0..12).map(item).collect();
    for (number, id) in ids.iter().enumerate() {
        let named: Vec<&str> = items.iter().take(number * 2).map(String::as_str).collect();
        let spec = CouponSpec {
            scope: covering(a_set(&named, &["books"], &[])),
            ..a_coupon(id, "a")
        };
        client.create_coupon(spec).await.unwrap();
    }
    client.create_coupon(a_coupon("of b", "b")).await.unwrap();
    let more: Vec<&str> = items.iter().map(String::as_str).collect();
    let change = CouponSpec {
        scope: covering(a_set(&more, &[], &[])),
        ..coupon_change("Z")
    };
    client.update_coupon(change).await.unwrap();
    let (coupons, pages) = all_pages(async |token| client.list_coupons("a", 4, token).await.unwrap()).await;
    let found: Vec<&str> = coupons.iter().map(|coupon| coupon.coupon_id.as_str()).collect();
    assert_eq!((found, pages), (ids.to_vec(), 2));
    let counts: Vec<i64> = coupons.iter().map(|coupon| coupon.scope_item_count).collect();
    assert_eq!(counts, [12, 2, 4, 6, 8, 10]);
    let first: Vec<&str> = more[..10].to_vec();
    assert_eq!(coupons[0].scope, covering(a_set(&first, &[], &[])));
    assert_eq!(
        client.get_coupon("Z").await.unwrap().scope,
        covering(a_set(&more, &[], &[]))
    );
    assert_eq!(client.get_coupon(ids[5]).await.unwrap(), coupons[5]);
    let (_, of_a) = client.list_coupons("a", 4, String::new()).await.unwrap();
    for token in [token, of_a] {
        let status = client.list_coupons("b", 4, token).await.unwrap_err();
        assert_invalid(&status, "INVALID_PAGE_TOKEN", &["page_token"]);
    }
    let status = client.list_coupons("no", 4, String::new()).await.unwrap_err();
    assert_status(&status, Code::NotFound, "CAMPAIGN_NOT_FOUND");
}

/// What a caller can tell an answer by, with the id taken out.
fn told(status: &Status, id: &str) -> (Code, String, Option<String>) {
    let reason = status.get_details_error_info().map(|info| info.reason);
    (status.code(), status.message().replace(id, "ID"), reason)
}

#[tokio::test]
async fn a_merchants_key_sees_and_makes_its_own_alone() {
    let database = shop::open().await;
    let key = |args: &[&str]| {
        let mut all = vec!["keys", "create", "--role", "marketer"];
        all.extend(args);
        succeed(&database, &all).trim().to_owned()
    };
    let (all, own) = (key(&[]), key(&["--merchant", "m0"]));
    let server = Server::start(&database);
    let (all, own) = (Client::with(&server, &all).await, Client::with(&server, &own).await);
    let of = |merchant: Option<&str>, id: &str| CampaignSpec {
        merchant_id: merchant.map(str::to_owned),
        ..a_campaign(id)
    };
    let foreign = [("m1's", Some("m1")), ("the platform's", None)];
    for (id, merchant) in foreign {
        all.create(of(merchant, id), CampaignState::Draft).await.unwrap();
        all.create_coupon(a_coupon(id, id)).await.unwrap();
    }
    // Without saying whose it is, and saying it.
    let made = own.create(of(None, "own"), CampaignState::Draft).await.unwrap();
    assert_eq!(made.merchant_id.as_deref(), Some("m0"));
    assert_eq!(
        own.create(of(Some("m0"), "own"), CampaignState::Draft).await.unwrap(),
        made
    );
    own.create_coupon(a_coupon("own", "own")).await.unwrap();
    own.get_coupon("own").await.unwrap();
    assert_eq!(own.list(None, 0, String::new()).await.unwrap().0, ["own"]);
    assert_eq!(all.list(None, 0, String::new()).await.unwrap().0.len(), 3);
    assert_eq!(own.list_coupons("own", 0, String::new()).await.unwrap().0.len(), 1);
    let change = CampaignSpec {
        name: Some("Ours".to_owned()),
        ..campaign_change("own")
    };
    assert_eq!(own.update(change).await.unwrap().name, "Ours");

    let refused = async |id: &str| {
        [
            told(&own.get(id).await.unwrap_err(), id),
            told(&own.update(campaign_change(id)).await.unwrap_err(), id),
            told(&own.set_state(id, CampaignState::Active).await.unwrap_err(), id),
            told(&own.list_coupons(id, 0, String::new()).await.unwrap_err(), id),
            told(&own.lift(id).await.unwrap_err(), id),
            told(&own.create_coupon(a_coupon("another", id)).await.unwrap_err(), id),
            told(&own.get_coupon(id).await.unwrap_err(), id),
            told(&own.update_coupon(coupon_change(id)).await.unwrap_err(), id),
        ]
    };
    let unknown = refused("unheard-of").await;
    assert!(unknown.iter().all(|told| told.0 == Code::NotFound), "{unknown:?}");
    for (id, _) in foreign {
        assert_eq!(refused(id).await, unknown, "{id}");
        assert_eq!(all.get(id).await.unwrap().state(), CampaignState::Draft);
        // That an id is taken cannot be hidden, but whose it is can.
        let status = own.create(of(None, id), CampaignState::Draft).await.unwrap_err();
        assert_status(&status, Code::AlreadyExists, "CAMPAIGN_EXISTS");
        let status = own.create_coupon(a_coupon(id, "own")).await.unwrap_err();
        assert_status(&status, Code::AlreadyExists, "COUPON_EXISTS");
    }

    // To name another merchant is refused before anything is looked up, whether there is such a one or not.
    for other in ["m1", "m9"] {
        let set = || a_set(&[], &[], &["m0", other]);
        let covers = CouponSpec {
            scope: covering(set()),
            ..a_coupon("c", "own")
        };
        let judges = CouponSpec {
            rules: rules([rule::Kind::NotBought(set())]),
            ..coupon_change("own")
        };
        for status in [
            own.create(of(Some(other), "c"), CampaignState::Draft)
                .await
                .unwrap_err(),
            own.list(Some(other), 0, String::new()).await.unwrap_err(),
            own.create_coupon(covers).await.unwrap_err(),
            own.update_coupon(judges).await.unwrap_err(),
        ] {
            assert_status(&status, Code::PermissionDenied, "FOREIGN_MERCHANT");
        }
    }
    // A token of what all merchants have is no good for one.
    let (_, token) = all.list(None, 1, String::new()).await.unwrap();
    let status = own.list(None, 1, token).await.unwrap_err();
    assert_invalid(&status, "INVALID_PAGE_TOKEN", &["page_token"]);
}

/// The reasons why the user cannot have the coupon, in a server's own eyes.
async fn reasons(client: &CouponServiceClient<Channel>, coupon: &str) -> Vec<ReasonCode> {
    let request = CheckEligibilityRequest {
        user_id: user(0),
        coupon_ids: vec![coupon.to_owned()],
        ..CheckEligibilityRequest::default()
    };
    let answer = client.clone().check_eligibility(request).await.unwrap().into_inner();
    answer.coupons[0].reasons.iter().map(|reason| reason.code()).collect()
}

#[tokio::test]
async fn every_change_shows_here_at_once_and_elsewhere_soon() {
    let database = shop::open().await;
    // Here nothing but the write itself can tell, for all of this test.
    let here = Server::with(&database, &[("live.refresh_interval_ms", "3600000")]);
    let there = Server::start(&database);
    let client = Client::of(&here).await;
    let here = CouponServiceClient::new(here.channel().await);
    let there = CouponServiceClient::new(there.channel().await);
    let sees = async |what: &str, rule_fails: bool| {
        let expected = match rule_fails {
            true => vec![ReasonCode::RuleFailed],
            false => Vec::new(),
        };
        assert_eq!(reasons(&here, "c").await, expected, "{what}, here");
        soon(what, || async { reasons(&there, "c").await == expected }).await;
    };
    assert_eq!(reasons(&there, "c").await, [ReasonCode::CouponUnknown]);
    client.create(a_campaign("k"), CampaignState::Active).await.unwrap();
    client.create_coupon(a_coupon("c", "k")).await.unwrap();
    sees("a new coupon", false).await;
    let change = |kind: Option<rule::Kind>| CouponSpec {
        rules: rules(kind),
        ..coupon_change("c")
    };
    let attribute = AttributeRule {
        name: "age".to_owned(),
        values: vec!["65+".to_owned()],
    };
    let kind = Some(rule::Kind::Attribute(attribute));
    client.update_coupon(change(kind)).await.unwrap();
    sees("a rule", true).await;
    client.update_coupon(change(None)).await.unwrap();
    sees("no rule", false).await;

    // Of a campaign: what is held out depends on the definition alone.
    let all_held_out = CampaignSpec {
        holdout_basis_points: Some(10_000),
        ..a_campaign("held out")
    };
    client.create(all_held_out, CampaignState::Draft).await.unwrap();
    let coupon = CouponSpec {
        scope: everything(),
        ..a_coupon("d", "held out")
    };
    client.create_coupon(coupon).await.unwrap();
    let draft_only = [ReasonCode::CampaignDraft];
    let held_out = |client: &CouponServiceClient<Channel>| {
        let client = client.clone();
        async move { reasons(&client, "d").await.contains(&ReasonCode::HeldOut) }
    };
    assert!(held_out(&here).await);
    soon("the holdout", || held_out(&there)).await;
    let nobody = CampaignSpec {
        holdout_basis_points: Some(0),
        ..campaign_change("held out")
    };
    client.update(nobody).await.unwrap();
    assert_eq!(reasons(&here, "d").await, draft_only);
    soon("no holdout", || async { reasons(&there, "d").await == draft_only }).await;
    client.set_state("held out", CampaignState::Active).await.unwrap();
    assert_eq!(reasons(&here, "d").await, []);
}

/// A made-up world of six users, the days of a window, and what they bought in it.
struct World {
    database: TestDatabase,
    server: Server,
    client: Client,
}

impl World {
    /// Exposures of `campaign`: user, coupon, seconds and arm.
    async fn expose(&self, exposures: &[(usize, &str, i64, bool)]) {
        let mut connection = shop::connect(&self.database).await;
        for (number, coupon, seconds, is_held_out) in exposures {
            execute(
                &mut connection,
                &format!(
                    "INSERT INTO exposures (coupon_id, user_id, campaign_id, is_held_out, snapshot_version, exposed_at)
                     SELECT coupons.id, users.id, campaign_id, {is_held_out}, 1, to_timestamp({})
                     FROM coupons, users WHERE coupons.external_id = '{coupon}' AND users.external_id = '{}'",
                    at(*seconds).unwrap().seconds,
                    user(*number)
                ),
            )
            .await;
        }
    }

    /// Purchases: order, user, item, quantity, pence and seconds; in GBP, or in EUR where the order says so.
    async fn buy(&self, purchases: &[(&str, usize, usize, i32, i64, i64)]) {
        let line = |(number, purchase): (usize, &(&str, usize, usize, i32, i64, i64))| {
            let &(order, buyer, bought, quantity, pence, seconds) = purchase;
            let mut total = pounds(pence);
            if order.starts_with("EUR") {
                total.currency_code = "EUR".to_owned();
            }
            PurchaseLine {
                order_id: order.to_owned(),
                line_number: number as i32 + 1,
                user_id: user(buyer),
                item_id: item(bought),
                quantity,
                line_total: Some(total),
                purchased_at: at(seconds),
                coupon_discount_minor: 0,
            }
        };
        let lines = purchases.iter().enumerate().map(line).collect();
        let mut client = self.server.purchases().await;
        client.record_purchases(RecordPurchasesRequest { lines }).await.unwrap();
    }
}

async fn a_world() -> World {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = Client::of(&server).await;
    World {
        database,
        server,
        client,
    }
}

/// Of days 0 to 10; the holdout is a half.
fn a_trial(id: &str, merchant: Option<&str>) -> CampaignSpec {
    CampaignSpec {
        merchant_id: merchant.map(str::to_owned),
        starts_at: at(0),
        ends_at: at(10 * DAY),
        holdout_basis_points: Some(5_000),
        ..a_campaign(id)
    }
}

#[tokio::test]
async fn a_lift_report_counts_by_intention_to_treat() {
    let world = a_world().await;
    let client = &world.client;
    client.create(a_trial("k", None), CampaignState::Active).await.unwrap();
    // Covered: item 0, all games (the odd ones), nothing else.
    let by_item = CouponSpec {
        scope: covering(a_set(&[&item(0)], &[], &[])),
        ..a_coupon("by item", "k")
    };
    let by_category = CouponSpec {
        scope: covering(a_set(&[], &["games"], &[])),
        ..a_coupon("by category", "k")
    };
    client.create_coupon(by_item).await.unwrap();
    client.create_coupon(by_category).await.unwrap();
    let empty = client.lift("k").await.unwrap();
    assert_eq!(empty.verdict(), LiftVerdict::Inconclusive);
    assert_eq!((empty.sample_ratio, empty.conversion_rate), (None, None));
    assert_eq!((empty.offered.unwrap().users, empty.currency_code.as_str()), (0, "GBP"));

    // Users 0 to 3 are offered, 4 to 6 held out; user 0 twice, first on day 1, and user 6 in both arms.
    world
        .expose(&[
            (0, "by category", 3 * DAY, false),
            (0, "by item", DAY, false),
            (1, "by item", 2 * DAY, false),
            (2, "by item", 2 * DAY, false),
            (3, "by item", 2 * DAY, false),
            (4, "by item", 2 * DAY, true),
            (5, "by category", 2 * DAY, true),
            (6, "by item", 2 * DAY, true),
            (6, "by category", 4 * DAY, false),
        ])
        .await;
    world
        .buy(&[
            // From the first exposure on, of what any of the coupons covers: 1,000 + 500.
            ("a", 0, 0, 1, 1_000, DAY),
            ("b", 0, 3, 1, 500, 9 * DAY),
            // Too early, not covered, too late.
            ("c", 1, 0, 1, 7_000, 2 * DAY - 1),
            ("d", 1, 2, 1, 7_000, 3 * DAY),
            ("e", 1, 0, 1, 7_000, 10 * DAY),
            // The last second of the window, and a refund of a part: 300 - 100.
            ("f", 2, 1, 3, 300, 10 * DAY - 1),
            ("f", 2, 1, -1, -100, 10 * DAY - 1),
            // All of it given back: no conversion, no revenue.
            ("g", 3, 1, 1, 800, 3 * DAY),
            ("g", 3, 1, -1, -800, 4 * DAY),
            // A conversion, but no revenue in the campaign's currency.
            ("EUR h", 4, 0, 1, 900, 3 * DAY),
            // Nobody has offered anything to user 9.
            ("i", 9, 0, 1, 7_000, 3 * DAY),
        ])
        .await;
    let report = client.lift("k").await.unwrap();
    let arms = [report.offered.unwrap(), report.held_out.unwrap()];
    let counted = arms.map(|arm| (arm.users, arm.converters, arm.revenue_minor, arm.conversion_rate));
    assert_eq!(counted, [(4, 2, 1_700, 0.5), (3, 1, 0, 1.0 / 3.0)]);
    let rate = report.conversion_rate.unwrap();
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
    near(rate.value, 1.0 / 6.0);
    // Newcombe, with Wilson's intervals (0.150039, 0.849961) of 2 in 4 and (0.061490, 0.792340) of 1 in 3.
    near(
        rate.low,
        1.0 / 6.0 - (0.349961_f64.powi(2) + 0.459007_f64.powi(2)).sqrt(),
    );
    near(
        rate.high,
        1.0 / 6.0 + (0.349961_f64.powi(2) + 0.271843_f64.powi(2)).sqrt(),
    );
    // Welch, revenues (1500, 0, 200, 0) against (0, 0, 0): mean 425, variance 522,500, 3 degrees of freedom, t 3.182446.
    let revenue = report.revenue_per_user_minor.unwrap();
    let margin = 3.182_446 * (522_500.0_f64 / 4.0).sqrt();
    near(revenue.value, 425.0);
    assert!((revenue.low - (425.0 - margin)).abs() < 0.01, "{revenue:?}, {margin}");
    assert!((revenue.high - (425.0 + margin)).abs() < 0.01, "{revenue:?}, {margin}");
    // 3 of 7 where a half is expected: chi-square 1/7.
    let ratio = report.sample_ratio.unwrap();
    near(ratio.expected_held_out_share, 0.5);
    near(ratio.held_out_share, 3.0 / 7.0);
    near(ratio.p_value, 0.705_457);
    assert!(!ratio.mismatch);
    assert_eq!(report.verdict(), LiftVerdict::Inconclusive);

    // What is covered is what the coupons cover now.
    let change = CouponSpec {
        scope: covering(a_set(&[&item(2)], &[], &["m1"])),
        ..coupon_change("by category")
    };
    client.update_coupon(change).await.unwrap();
    let report = client.lift("k").await.unwrap();
    let offered = report.offered.unwrap();
    assert_eq!(
        (offered.users, offered.converters, offered.revenue_minor),
        (4, 3, 8_700)
    );
    let status = client.lift("no").await.unwrap_err();
    assert_status(&status, Code::NotFound, "CAMPAIGN_NOT_FOUND");
}

#[tokio::test]
async fn a_merchants_lift_is_of_what_it_sells_whatever_was_recorded() {
    let world = a_world().await;
    let client = &world.client;
    for (id, merchant) in [("of m1", Some("m1")), ("of all", None)] {
        client
            .create(a_trial(id, merchant), CampaignState::Active)
            .await
            .unwrap();
        client.create_coupon(a_coupon(id, id)).await.unwrap();
        world.expose(&[(0, id, DAY, false), (1, id, DAY, true)]).await;
    }
    world
        .buy(&[("a", 0, 0, 1, 1_000, 2 * DAY), ("b", 0, 1, 1, 30, 2 * DAY)])
        .await;
    let revenue = async |id: &str| client.lift(id).await.unwrap().offered.unwrap().revenue_minor;
    assert_eq!(revenue("of m1").await, 30);
    assert_eq!(revenue("of all").await, 1_030);
    // More than 64 bits hold.
    world
        .buy(&[("c", 0, 0, 1, i64::MAX, 2 * DAY), ("d", 0, 0, 1, i64::MAX, 2 * DAY)])
        .await;
    assert_eq!(revenue("of all").await, i64::MAX);
    assert_eq!(revenue("of m1").await, 30);
}

#[tokio::test]
async fn ledgers_are_only_added_to() {
    let world = a_world().await;
    world
        .client
        .create(a_trial("k", None), CampaignState::Active)
        .await
        .unwrap();
    world.client.create_coupon(a_coupon("c", "k")).await.unwrap();
    world.expose(&[(0, "c", DAY, false)]).await;
    let mut connection = shop::connect(&world.database).await;
    execute(
        &mut connection,
        "INSERT INTO coupon_ledger
             (entry, campaign_id, coupon_id, user_id, reserved_minor, spent_minor, reserved, redeemed)
         VALUES ('import', 1, 1, 1, 0, 5, 0, 1);
         INSERT INTO consent_events (user_id, purpose, is_granted, decided_at) VALUES (1, 'marketing', true, now())",
    )
    .await;
    for (table, column) in [
        ("coupon_ledger", "spent_minor = 0"),
        ("exposures", "is_held_out = true"),
        ("consent_events", "is_granted = false"),
    ] {
        for statement in [
            format!("UPDATE {table} SET {column}"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
        ] {
            let refused = sqlx::query(AssertSqlSafe(statement.clone()))
                .execute(&mut connection)
                .await
                .unwrap_err();
            let expected = format!("rows of {table} are never changed");
            assert!(refused.to_string().contains(&expected), "{statement}: {refused}");
        }
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(rows, 1, "{table}");
    }
}
