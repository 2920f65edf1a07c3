//! Campaigns: created, changed, listed, and kept apart by merchant.

use std::collections::BTreeSet;

use likemind::grpc::proto::v1::coupon_service_client::CouponServiceClient;
use likemind::grpc::proto::v1::{
    AttributeRule, Audience, Campaign, CampaignSpec, CampaignState, CheckEligibilityRequest, CouponSpec, ReasonCode,
    UpdateCampaignRequest, rule,
};
use prost_types::Timestamp;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::answers::{all_pages, assert_invalid, assert_status, distinguishable};
use crate::support::api_keys::create_key;
use crate::support::campaigns::{
    CampaignClient, a_campaign, a_coupon, a_set, campaign_change, coupon_change, covering, everything, rules,
    tomorrows_campaign,
};
use crate::support::postgres::TestDatabase;
use crate::support::program::Server;
use crate::support::shop::{self, user};
use crate::support::waiting::soon;

/// Starts a server of the shop.
async fn serve() -> (TestDatabase, Server, CampaignClient) {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = CampaignClient::of(&server).await;
    (database, server, client)
}

#[tokio::test]
async fn a_campaign_has_defaults_for_every_field_that_is_not_given() {
    let (_database, _server, client) = serve().await;
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
}

/// Returns a campaign of merchant m0 with every field given.
fn a_full_campaign() -> CampaignSpec {
    CampaignSpec {
        merchant_id: Some("m0".to_owned()),
        name: Some("Tea time".to_owned()),
        budget_limit_minor: Some(0),
        priority: Some(-7),
        exclusive: Some(true),
        audience: Some(Audience::Assigned.into()),
        holdout_basis_points: Some(10_000),
        ..a_campaign("full")
    }
}

#[tokio::test]
async fn a_campaign_reads_back_as_created() {
    let (_database, _server, client) = serve().await;
    let created = client.create(a_full_campaign(), CampaignState::Active).await.unwrap();
    assert_eq!(created.state(), CampaignState::Active);
    assert_eq!(
        (created.name.as_str(), created.priority, created.exclusive),
        ("Tea time", -7, true)
    );
    assert_eq!(
        (
            created.merchant_id.as_deref(),
            created.audience(),
            created.holdout_basis_points
        ),
        (Some("m0"), Audience::Assigned, 10_000)
    );
    assert_eq!(created.budget.as_ref().unwrap().limit_minor, Some(0));
    assert_eq!(client.get("full").await.unwrap(), created);
}

#[tokio::test]
async fn creating_a_campaign_again_returns_it_and_another_one_with_its_id_is_refused() {
    let (_database, _server, client) = serve().await;
    let full = a_full_campaign();
    let created = client.create(full.clone(), CampaignState::Active).await.unwrap();
    assert_eq!(
        client.create(full.clone(), CampaignState::Active).await.unwrap(),
        created
    );
    let twice = || client.create(a_campaign("twice"), CampaignState::Draft);
    let (one, other) = tokio::join!(twice(), twice());
    assert_eq!(one.unwrap(), other.unwrap());
    let without_name = CampaignSpec {
        name: None,
        ..full.clone()
    };
    let without_holdout = CampaignSpec {
        holdout_basis_points: None,
        ..full.clone()
    };
    for (state, other) in [
        (CampaignState::Draft, full),
        (CampaignState::Active, without_name),
        (CampaignState::Active, without_holdout),
    ] {
        let status = client.create(other, state).await.unwrap_err();
        assert_status(&status, Code::AlreadyExists, "CAMPAIGN_EXISTS");
    }
    let of_nobody = CampaignSpec {
        merchant_id: Some("m9".to_owned()),
        ..a_campaign("of nobody")
    };
    let status = client.create(of_nobody, CampaignState::Draft).await.unwrap_err();
    assert_status(&status, Code::NotFound, "MERCHANT_NOT_FOUND");
}

#[tokio::test]
async fn every_campaign_has_a_random_holdout_salt_of_its_own() {
    let (database, _server, client) = serve().await;
    for id in ["k", "l", "m"] {
        client.create(a_campaign(id), CampaignState::Draft).await.unwrap();
    }
    let salts: Vec<Vec<u8>> = sqlx::query_scalar("SELECT holdout_salt FROM campaigns")
        .fetch_all(&mut database.connect().await)
        .await
        .unwrap();
    assert!(salts.iter().all(|salt| salt.len() == 16 && *salt != [0; 16]));
    assert_eq!(salts.into_iter().collect::<BTreeSet<_>>().len(), 3);
}

#[tokio::test]
async fn every_bad_field_of_a_new_campaign_is_named() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = CampaignClient::of(&server).await;
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
}

/// Creates the draft campaign k, with a name and a budget.
async fn create_draft(client: &CampaignClient) -> Campaign {
    let spec = CampaignSpec {
        name: Some("Tea".to_owned()),
        budget_limit_minor: Some(500),
        ..a_campaign("k")
    };
    client.create(spec, CampaignState::Draft).await.unwrap()
}

fn a_minute_after(time: Option<Timestamp>) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: time.unwrap().seconds + 60,
        nanos: 0,
    })
}

#[tokio::test]
async fn a_change_of_a_campaign_keeps_the_fields_that_it_does_not_name() {
    let (_database, _server, client) = serve().await;
    let created = create_draft(&client).await;
    assert_eq!(client.update(campaign_change("k")).await.unwrap(), created);
    let later = a_minute_after(created.ends_at);
    let change = CampaignSpec {
        name: Some("Coffee".to_owned()),
        ends_at: later,
        priority: Some(3),
        exclusive: Some(true),
        audience: Some(Audience::Assigned.into()),
        holdout_basis_points: Some(1_000),
        ..campaign_change("k")
    };
    let expected = Campaign {
        name: "Coffee".to_owned(),
        ends_at: later,
        priority: 3,
        exclusive: true,
        audience: Audience::Assigned.into(),
        holdout_basis_points: 1_000,
        ..created
    };
    assert_eq!(client.update(change).await.unwrap(), expected);
    assert_eq!(client.get("k").await.unwrap(), expected);
}

#[tokio::test]
async fn a_budget_limit_can_be_cleared_but_not_cleared_and_set_at_once() {
    let (_database, _server, client) = serve().await;
    let mut expected = create_draft(&client).await;
    let clear = UpdateCampaignRequest {
        campaign: Some(campaign_change("k")),
        clear_budget_limit: true,
    };
    let answer = client.rpc.clone().update_campaign(clear.clone()).await.unwrap();
    expected.budget.as_mut().unwrap().limit_minor = None;
    assert_eq!(answer.into_inner().campaign.unwrap(), expected);
    let contradiction = UpdateCampaignRequest {
        campaign: Some(CampaignSpec {
            budget_limit_minor: Some(1),
            ..campaign_change("k")
        }),
        ..clear
    };
    let status = client.rpc.clone().update_campaign(contradiction).await.unwrap_err();
    assert_invalid(&status, "CONTRADICTION", &["campaign.budget_limit_minor"]);
}

#[tokio::test]
async fn the_merchant_and_currency_of_a_campaign_cannot_change_and_its_window_cannot_be_empty() {
    let (_database, _server, client) = serve().await;
    let created = create_draft(&client).await;
    let change = CampaignSpec {
        starts_at: a_minute_after(created.ends_at),
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
}

/// The arm of each user must stay the same once somebody may have been offered the campaign's coupons.
#[tokio::test]
async fn audience_and_holdout_cannot_change_once_a_campaign_is_no_draft() {
    let (_database, _server, client) = serve().await;
    create_draft(&client).await;
    let audience = |audience: Audience| CampaignSpec {
        audience: Some(audience.into()),
        ..campaign_change("k")
    };
    let holdout = |basis_points: i32| CampaignSpec {
        holdout_basis_points: Some(basis_points),
        ..campaign_change("k")
    };
    client.update(audience(Audience::Assigned)).await.unwrap();
    client.update(holdout(1_000)).await.unwrap();
    client.set_state("k", CampaignState::Scheduled).await.unwrap();
    for change in [audience(Audience::Everybody), holdout(999)] {
        let status = client.update(change).await.unwrap_err();
        assert_status(&status, Code::FailedPrecondition, "CAMPAIGN_NOT_DRAFT");
    }
    // The values that are stored already can be given again.
    for change in [audience(Audience::Assigned), holdout(1_000)] {
        client.update(change).await.unwrap();
    }
}

#[tokio::test]
async fn a_campaign_changes_its_state_only_by_allowed_transitions() {
    let (_database, _server, client) = serve().await;
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
            let path: &[CampaignState] = if from == Paused { &[Active, Paused] } else { &[from] };
            for &state in path {
                client.set_state(&id, state).await.unwrap();
            }
            let answer = client.set_state(&id, to).await;
            // The state that a campaign is already in can be set again.
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
}

/// Once a campaign has begun, users may have been offered its coupons.
#[tokio::test]
async fn a_scheduled_campaign_that_has_begun_cannot_become_a_draft() {
    use CampaignState::{Active, Draft, Paused, Scheduled};
    let (_database, _server, client) = serve().await;
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
async fn pages_of_campaigns_hold_every_campaign_once_in_byte_order() {
    let (_database, _server, client) = serve().await;
    // In byte order capitals come first.
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
    let status = client.list(Some("m0"), 2, token).await.unwrap_err();
    assert_invalid(&status, "INVALID_PAGE_TOKEN", &["page_token"]);
    let status = client.list(None, 1_001, String::new()).await.unwrap_err();
    assert_invalid(&status, "PAGE_SIZE_OUT_OF_RANGE", &["page_size"]);
}

/// Campaigns of another merchant and of the platform, as pairs of id and merchant. Each has a coupon with the same id.
const FOREIGN: [(&str, Option<&str>); 2] = [("m1's", Some("m1")), ("the platform's", None)];

fn a_campaign_of(merchant: Option<&str>, id: &str) -> CampaignSpec {
    CampaignSpec {
        merchant_id: merchant.map(str::to_owned),
        ..a_campaign(id)
    }
}

/// The clients of a marketer of all merchants and of one of merchant m0 on one server. The first has created [`FOREIGN`], the
/// second the campaign and the coupon "own".
struct Marketers {
    _database: TestDatabase,
    _server: Server,
    all: CampaignClient,
    own: CampaignClient,
}

impl Marketers {
    async fn start() -> Self {
        let database = shop::open().await;
        let all = create_key(&database, &["--role", "marketer"]);
        let own = create_key(&database, &["--role", "marketer", "--merchant", "m0"]);
        let server = Server::start(&database);
        let all = CampaignClient::with_key(&server, Some(&all)).await;
        let own = CampaignClient::with_key(&server, Some(&own)).await;
        for (id, merchant) in FOREIGN {
            all.create(a_campaign_of(merchant, id), CampaignState::Draft)
                .await
                .unwrap();
            all.create_coupon(a_coupon(id, id)).await.unwrap();
        }
        own.create(a_campaign("own"), CampaignState::Draft).await.unwrap();
        own.create_coupon(a_coupon("own", "own")).await.unwrap();
        Self {
            _database: database,
            _server: server,
            all,
            own,
        }
    }
}

#[tokio::test]
async fn a_merchants_key_creates_and_sees_that_merchants_campaigns() {
    let Marketers { all, own, .. } = &Marketers::start().await;
    let created = own.get("own").await.unwrap();
    assert_eq!(created.merchant_id.as_deref(), Some("m0"));
    // The merchant may be named, too.
    let again = a_campaign_of(Some("m0"), "own");
    assert_eq!(own.create(again, CampaignState::Draft).await.unwrap(), created);
    own.get_coupon("own").await.unwrap();
    assert_eq!(own.list(None, 0, String::new()).await.unwrap().0, ["own"]);
    assert_eq!(all.list(None, 0, String::new()).await.unwrap().0.len(), 3);
    assert_eq!(own.list_coupons("own", 0, String::new()).await.unwrap().0.len(), 1);
    let change = CampaignSpec {
        name: Some("Ours".to_owned()),
        ..campaign_change("own")
    };
    assert_eq!(own.update(change).await.unwrap().name, "Ours");
}

#[tokio::test]
async fn a_merchants_key_cannot_distinguish_foreign_campaigns_from_unknown_ones() {
    let Marketers { all, own, .. } = &Marketers::start().await;
    let refused = async |id: &str| {
        [
            distinguishable(&own.get(id).await.unwrap_err(), id),
            distinguishable(&own.update(campaign_change(id)).await.unwrap_err(), id),
            distinguishable(&own.set_state(id, CampaignState::Active).await.unwrap_err(), id),
            distinguishable(&own.list_coupons(id, 0, String::new()).await.unwrap_err(), id),
            distinguishable(&own.lift(id).await.unwrap_err(), id),
            distinguishable(&own.create_coupon(a_coupon("another", id)).await.unwrap_err(), id),
            distinguishable(&own.get_coupon(id).await.unwrap_err(), id),
            distinguishable(&own.update_coupon(coupon_change(id)).await.unwrap_err(), id),
        ]
    };
    let unknown = refused("unheard-of").await;
    assert!(unknown.iter().all(|(code, ..)| *code == Code::NotFound), "{unknown:?}");
    for (id, _) in FOREIGN {
        assert_eq!(refused(id).await, unknown, "{id}");
        assert_eq!(all.get(id).await.unwrap().state(), CampaignState::Draft);
        // An id cannot be used twice, so the answer cannot hide that it is taken. It says nothing else.
        let status = own
            .create(a_campaign_of(None, id), CampaignState::Draft)
            .await
            .unwrap_err();
        assert_status(&status, Code::FailedPrecondition, "ID_NOT_AVAILABLE");
        let status = own.create_coupon(a_coupon(id, "own")).await.unwrap_err();
        assert_status(&status, Code::FailedPrecondition, "ID_NOT_AVAILABLE");
    }
    // A page token of all merchants' campaigns is not valid for one merchant.
    let (_, token) = all.list(None, 1, String::new()).await.unwrap();
    let status = own.list(None, 1, token).await.unwrap_err();
    assert_invalid(&status, "INVALID_PAGE_TOKEN", &["page_token"]);
}

/// The refusal comes before anything is looked up, so it is the same whether or not the other merchant exists.
#[tokio::test]
async fn a_merchants_key_cannot_name_another_merchant() {
    let Marketers { own, .. } = &Marketers::start().await;
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
            own.create(a_campaign_of(Some(other), "c"), CampaignState::Draft)
                .await
                .unwrap_err(),
            own.list(Some(other), 0, String::new()).await.unwrap_err(),
            own.create_coupon(covers).await.unwrap_err(),
            own.update_coupon(judges).await.unwrap_err(),
        ] {
            assert_status(&status, Code::PermissionDenied, "FOREIGN_MERCHANT");
        }
    }
}

/// Returns the reasons why user 0 cannot have the coupon, according to one server.
async fn reasons(client: &CouponServiceClient<Channel>, coupon: &str) -> Vec<ReasonCode> {
    let request = CheckEligibilityRequest {
        user_id: user(0),
        coupon_ids: vec![coupon.to_owned()],
        ..CheckEligibilityRequest::default()
    };
    let answer = client.clone().check_eligibility(request).await.unwrap().into_inner();
    answer.coupons[0].reasons.iter().map(|reason| reason.code()).collect()
}

/// Two servers on one database. The first never polls for changes during a test, so that it learns only of its own.
struct Pair {
    _database: TestDatabase,
    _servers: [Server; 2],
    client: CampaignClient,
    here: CouponServiceClient<Channel>,
    elsewhere: CouponServiceClient<Channel>,
}

impl Pair {
    async fn start() -> Self {
        let database = shop::open().await;
        let here = Server::with(&database, &[("live.refresh_interval_ms", "3600000")]);
        let elsewhere = Server::start(&database);
        Self {
            client: CampaignClient::of(&here).await,
            here: CouponServiceClient::new(here.channel().await),
            elsewhere: CouponServiceClient::new(elsewhere.channel().await),
            _database: database,
            _servers: [here, elsewhere],
        }
    }

    async fn assert_reasons(&self, coupon: &str, expected: &[ReasonCode], what: &str) {
        assert_eq!(reasons(&self.here, coupon).await, expected, "{what}, here");
        let look = async || reasons(&self.elsewhere, coupon).await;
        soon(&format!("{what}, elsewhere"), look, |found| found == expected).await;
    }
}

#[tokio::test]
async fn a_changed_coupon_holds_at_once_here_and_soon_elsewhere() {
    let pair = Pair::start().await;
    let client = &pair.client;
    assert_eq!(reasons(&pair.elsewhere, "c").await, [ReasonCode::CouponUnknown]);
    client.create(a_campaign("k"), CampaignState::Active).await.unwrap();
    client.create_coupon(a_coupon("c", "k")).await.unwrap();
    pair.assert_reasons("c", &[], "a new coupon").await;
    let change = |kind: Option<rule::Kind>| CouponSpec {
        rules: rules(kind),
        ..coupon_change("c")
    };
    let attribute = AttributeRule {
        name: "age".to_owned(),
        values: vec!["65+".to_owned()],
    };
    client
        .update_coupon(change(Some(rule::Kind::Attribute(attribute))))
        .await
        .unwrap();
    pair.assert_reasons("c", &[ReasonCode::RuleFailed], "a rule").await;
    client.update_coupon(change(None)).await.unwrap();
    pair.assert_reasons("c", &[], "no rule").await;
}

/// Whether a user is held out depends on the definition of the campaign alone, so it shows a change of that.
#[tokio::test]
async fn a_changed_campaign_holds_at_once_here_and_soon_elsewhere() {
    let pair = Pair::start().await;
    let client = &pair.client;
    let all_held_out = CampaignSpec {
        holdout_basis_points: Some(10_000),
        ..a_campaign("k")
    };
    client.create(all_held_out, CampaignState::Draft).await.unwrap();
    let coupon = CouponSpec {
        scope: everything(),
        ..a_coupon("c", "k")
    };
    client.create_coupon(coupon).await.unwrap();
    let is_held_out = |reasons: &Vec<ReasonCode>| reasons.contains(&ReasonCode::HeldOut);
    assert!(is_held_out(&reasons(&pair.here, "c").await));
    let look = async || reasons(&pair.elsewhere, "c").await;
    soon("the user is held out elsewhere", look, is_held_out).await;
    let nobody_held_out = CampaignSpec {
        holdout_basis_points: Some(0),
        ..campaign_change("k")
    };
    client.update(nobody_held_out).await.unwrap();
    pair.assert_reasons("c", &[ReasonCode::CampaignDraft], "no holdout")
        .await;
    client.set_state("k", CampaignState::Active).await.unwrap();
    assert_eq!(reasons(&pair.here, "c").await, []);
}
