//! PostgreSQL goes away, hangs, and comes back.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use likemind::grpc::proto::v1::{
    ActivateSnapshotRequest, CampaignSpec, CampaignState, CheckEligibilityRequest, ConfirmRedemptionRequest,
    ConsentDecision, CouponSpec, CreateCampaignRequest, CreateCouponRequest, DeleteRatingRequest, Discount,
    GetCampaignRequest, GetConsentRequest, GetCouponRequest, GetItemRequest, GetLiftReportRequest,
    GetServingStatusRequest, GetSnapshotRequest, IngestPurchasesRequest, IngestRatingsRequest, Item,
    ListCampaignsRequest, ListCouponsRequest, ListItemAudienceRequest, ListItemsRequest, ListPurchasesRequest,
    ListRatingsRequest, ListSimilarItemsRequest, ListSimilarUsersRequest, ListSnapshotsRequest, ListUserCouponsRequest,
    Merchant, PredictRatingsRequest, PurchaseLine, Purpose, RecordPurchasesRequest, ReleaseReservationRequest,
    ReserveCouponRequest, RollbackRedemptionRequest, RollbackSnapshotRequest, SetCampaignStateRequest,
    SetConsentRequest, StreamCouponTargetsRequest, UpdateCampaignRequest, UpdateCouponRequest, UpsertItemsRequest,
    UpsertMerchantsRequest, UpsertRatingsRequest, discount, list_purchases_request, list_ratings_request,
};
use private_postgres::{PrivatePostgres, PrivatePostgresOptions};
use sqlx::{Connection, PgConnection};
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_types::StatusExt;

use crate::bad_input::dynamic::methods;
use crate::hold::execute;
use crate::offers::{Offer, cart};
use crate::postgres::database_url;
use crate::program::{Program, Server, command, eventually, succeed_at};
use crate::rpc::assert_status;
use crate::shop::{self, Caller, Scores, a_rating, equal, for_user, item, plus, pounds, soon, user};

/// A client's patience in these tests, and thus that of the server: far more than it takes to notice an outage.
const DEADLINE: Duration = Duration::from_secs(8);

/// A server notices soon that PostgreSQL is away.
const SETTINGS: [(&str, &str); 1] = [("database.acquire_timeout_ms", "400")];

/// Of the campaign [`CAMPAIGN`].
const COUPON: &str = "tenner";
const CAMPAIGN: &str = "k-tenner";

const RECOMMENDATIONS: &str = "likemind.v1.RecommendationService";

/// A PostgreSQL that a test may stop: nobody else uses it.
struct Postgres {
    options: PrivatePostgresOptions,
    running: Option<PrivatePostgres>,
    url: String,
}

impl Postgres {
    /// With the shop and its snapshot.
    async fn start(name: &str) -> Self {
        let options = PrivatePostgresOptions {
            durable: false,
            settings: vec![("shared_buffers".to_owned(), "16MB".to_owned())],
            ..PrivatePostgresOptions::new(crate::postgres::folder(name))
        };
        let mut postgres = Self {
            options,
            running: None,
            url: String::new(),
        };
        postgres.resume().await;
        let running = postgres.running.as_ref().unwrap();
        postgres.url = database_url(running, "likemind").await;
        succeed_at(&postgres.url, &["migrate"]);
        shop::stock(&postgres.url).await;
        let mut connection = PgConnection::connect(&postgres.url).await.unwrap();
        Offer::of(COUPON).create(&mut connection).await;
        shop::train(&postgres.url);
        postgres
    }

    async fn stop(&mut self) {
        let running = self.running.take();
        tokio::task::spawn_blocking(|| drop(running)).await.unwrap();
    }

    /// At the same place as before.
    async fn resume(&mut self) {
        let options = self.options.clone();
        let started = tokio::task::spawn_blocking(move || PrivatePostgres::start(&options))
            .await
            .unwrap();
        let running = started.unwrap();
        assert!(self.url.is_empty() || self.url == running.url("likemind"));
        self.running = Some(running);
    }

    /// It stays, and says nothing, until the value is dropped.
    fn freeze(&self) -> Frozen {
        let main = find(&self.options.data_dir, "postmaster.pid").expect("no postmaster.pid");
        let main = fs::read_to_string(main)
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let mut frozen = Frozen { processes: vec![main] };
        // It first, so that there are no more children than are found.
        halt(main);
        frozen.processes.extend(children(main));
        frozen.processes.iter().for_each(|&pid| halt(pid));
        frozen
    }
}

fn signal(pid: libc::pid_t, signal: libc::c_int) {
    // Safety: a system call with numbers; a process that has just ended is no loss.
    unsafe { libc::kill(pid, signal) };
}

/// Stops a process, and returns when it stands still: the signal alone lets it end what it is at, as starting a child.
fn halt(pid: libc::pid_t) {
    signal(pid, libc::SIGSTOP);
    let is_halted = || state_and_parent(pid).is_none_or(|(state, _)| ["T", "t", "Z", "X"].contains(&&*state));
    let asked = Instant::now();
    while !is_halted() {
        assert!(asked.elapsed() < DEADLINE, "process {pid} does not stop");
        thread::sleep(Duration::from_millis(1));
    }
}

/// `None` where there is no such process.
fn state_and_parent(pid: libc::pid_t) -> Option<(String, libc::pid_t)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which may contain anything.
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

fn children(parent: libc::pid_t) -> Vec<libc::pid_t> {
    let is_child = |pid: &libc::pid_t| state_and_parent(*pid).is_some_and(|(_, found)| found == parent);
    let all = fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(is_child).collect()
}

struct Frozen {
    processes: Vec<libc::pid_t>,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.processes.iter().for_each(|pid| signal(*pid, libc::SIGCONT));
    }
}

fn find(folder: &std::path::Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    let here = entries.iter().find(|path| path.ends_with(name)).cloned();
    here.or_else(|| {
        entries
            .iter()
            .filter(|path| path.is_dir())
            .find_map(|folder| find(folder, name))
    })
}

/// Requests, one after the other, until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Of what is answered from memory, whatever happens.
    fn from_memory(caller: &Caller) -> Self {
        Self::start(3, caller, |caller, number| async move {
            from_memory(&caller, number).await.unwrap()
        })
    }

    /// Of what is either done or refused because of an outage.
    fn from_database(caller: &Caller) -> Self {
        Self::start(1, caller, |caller, _| async move {
            for (rpc, outcome) in from_database(&caller).await {
                match outcome {
                    Err(status) if !is_refused_by_what_is_stored(rpc, &status) => assert_is_outage(rpc, &status),
                    _ => {}
                }
            }
        })
    }

    fn start<F>(count: usize, caller: &Caller, ask: impl Fn(Caller, usize) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send,
    {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let task = |number: usize| {
            let (caller, stop, answered, ask) = (caller.clone(), stop.clone(), answered.clone(), ask.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    ask(caller.clone(), number).await;
                    answered.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        };
        let tasks = (0..count).map(task).collect();
        Self { stop, answered, tasks }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Not a single request may have failed.
    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// Answered without PostgreSQL; all other RPCs need it.
const FROM_MEMORY: [&str; 6] = [
    "GetServingStatus",
    "ListItemAudience",
    "ListSimilarItems",
    "ListSimilarUsers",
    "PredictRatings",
    "Recommend",
];

/// Every RPC of [`FROM_MEMORY`].
async fn from_memory(caller: &Caller, number: usize) -> Result<(), Status> {
    let mut recommendations = caller.recommendations.clone();
    recommendations.recommend(for_user(&user(number))).await?;
    let request = PredictRatingsRequest {
        user_id: user(number),
        item_ids: vec![item(1), item(2)],
        ..PredictRatingsRequest::default()
    };
    recommendations.predict_ratings(request).await?;
    let request = ListSimilarItemsRequest {
        item_id: item(3),
        ..ListSimilarItemsRequest::default()
    };
    recommendations.list_similar_items(request).await?;
    let request = ListSimilarUsersRequest {
        user_id: user(number),
        limit: 5,
    };
    recommendations.list_similar_users(request).await?;
    let request = ListItemAudienceRequest {
        item_id: item(3),
        limit: 5,
        exclude_purchased: true,
    };
    recommendations.list_item_audience(request).await?;
    caller
        .models
        .clone()
        .get_serving_status(GetServingStatusRequest {})
        .await?;
    Ok(())
}

/// What an RPC answers, by its name.
type Outcome = (&'static str, Result<(), Status>);

/// Every RPC that needs PostgreSQL, all at once.
async fn from_database(caller: &Caller) -> Vec<Outcome> {
    macro_rules! call {
        ($client:ident.$method:ident($message:expr)) => {{
            let (mut client, mut request) = (caller.$client.clone(), Request::new($message));
            request.set_timeout(DEADLINE);
            async move { (stringify!($method), client.$method(request).await.map(drop)) }.boxed()
        }};
    }
    let (user_id, item_id) = (user(0), item(0));
    let merchant = Merchant {
        merchant_id: "m0".to_owned(),
        name: Some("A Merchant".to_owned()),
    };
    let an_item = Item {
        item_id: item_id.clone(),
        ..Item::default()
    };
    let line = PurchaseLine {
        coupon_discount_minor: 0,
        order_id: "order-1".to_owned(),
        line_number: 1,
        user_id: user_id.clone(),
        item_id: item_id.clone(),
        quantity: 1,
        line_total: Some(pounds(100)),
        purchased_at: None,
    };
    let rating = a_rating(&user_id, &item_id, 3.0);

    let upsert_merchants = UpsertMerchantsRequest {
        merchants: vec![merchant],
    };
    let upsert_items = UpsertItemsRequest { items: vec![an_item] };
    let get_item = GetItemRequest {
        item_id: item_id.clone(),
    };
    let upsert_ratings = UpsertRatingsRequest {
        ratings: vec![rating.clone()],
    };
    let ingest_ratings = tokio_stream::once(IngestRatingsRequest { ratings: vec![rating] });
    let list_ratings = ListRatingsRequest {
        of: Some(list_ratings_request::Of::UserId(user_id.clone())),
        ..ListRatingsRequest::default()
    };
    let delete_rating = DeleteRatingRequest {
        user_id: user_id.clone(),
        item_id,
        deleted_at: None,
    };
    let record_purchases = RecordPurchasesRequest {
        lines: vec![line.clone()],
    };
    let ingest_purchases = tokio_stream::once(IngestPurchasesRequest { lines: vec![line] });
    let list_purchases = ListPurchasesRequest {
        of: Some(list_purchases_request::Of::UserId(user_id)),
        ..ListPurchasesRequest::default()
    };
    let activate = ActivateSnapshotRequest {
        version: 1,
        reason: String::new(),
    };
    let (campaign_id, coupon_id) = (CAMPAIGN.to_owned(), COUPON.to_owned());
    let of_campaign = CampaignSpec {
        campaign_id: campaign_id.clone(),
        ..CampaignSpec::default()
    };
    let new_campaign = CampaignSpec {
        currency_code: Some("EUR".to_owned()),
        starts_at: Some(prost_types::Timestamp::default()),
        ends_at: Some(prost_types::Timestamp {
            seconds: 3_600,
            nanos: 0,
        }),
        ..of_campaign.clone()
    };
    let of_coupon = CouponSpec {
        coupon_id: coupon_id.clone(),
        ..CouponSpec::default()
    };
    let new_coupon = CouponSpec {
        campaign_id: campaign_id.clone(),
        discount: Some(Discount {
            kind: Some(discount::Kind::AmountMinor(5)),
        }),
        ..of_coupon.clone()
    };
    let check_eligibility = CheckEligibilityRequest {
        user_id: user(0),
        coupon_ids: vec![coupon_id.clone()],
        cart: None,
    };
    let list_user_coupons = ListUserCouponsRequest {
        user_id: user(0),
        ..ListUserCouponsRequest::default()
    };
    let stream_targets = StreamCouponTargetsRequest {
        coupon_id: coupon_id.clone(),
        preview: true,
        ..StreamCouponTargetsRequest::default()
    };
    let reserve_coupon = ReserveCouponRequest {
        request_id: "the same again".to_owned(),
        user_id: user(0),
        coupon_id: coupon_id.clone(),
        cart: Some(cart(&[(1, 5_000)])),
    };
    let confirm_redemption = ConfirmRedemptionRequest {
        request_id: "confirm".to_owned(),
        reservation_id: "no such reservation".to_owned(),
        ..ConfirmRedemptionRequest::default()
    };
    let release_reservation = ReleaseReservationRequest {
        request_id: "release".to_owned(),
        reservation_id: "no such reservation".to_owned(),
    };
    let rollback_redemption = RollbackRedemptionRequest {
        request_id: "roll back".to_owned(),
        redemption_id: "no such redemption".to_owned(),
        ..RollbackRedemptionRequest::default()
    };
    let set_state = SetCampaignStateRequest {
        campaign_id: campaign_id.clone(),
        state: CampaignState::Active.into(),
    };
    let set_consent = SetConsentRequest {
        user_id: user(9),
        decisions: vec![ConsentDecision {
            purpose: Purpose::Marketing.into(),
            granted: true,
        }],
        ..SetConsentRequest::default()
    };
    let get_campaign = GetCampaignRequest {
        campaign_id: campaign_id.clone(),
    };
    let list_coupons = ListCouponsRequest {
        campaign_id: campaign_id.clone(),
        ..ListCouponsRequest::default()
    };
    let calls: Vec<BoxFuture<'_, Outcome>> = vec![
        call!(campaigns.create_campaign(CreateCampaignRequest {
            campaign: Some(new_campaign),
            ..CreateCampaignRequest::default()
        })),
        call!(campaigns.update_campaign(UpdateCampaignRequest {
            campaign: Some(of_campaign),
            ..UpdateCampaignRequest::default()
        })),
        call!(campaigns.get_campaign(get_campaign)),
        call!(campaigns.list_campaigns(ListCampaignsRequest::default())),
        call!(campaigns.set_campaign_state(set_state)),
        call!(campaigns.create_coupon(CreateCouponRequest {
            coupon: Some(new_coupon)
        })),
        call!(campaigns.update_coupon(UpdateCouponRequest {
            coupon: Some(of_coupon),
            ..UpdateCouponRequest::default()
        })),
        call!(campaigns.get_coupon(GetCouponRequest { coupon_id })),
        call!(campaigns.list_coupons(list_coupons)),
        call!(campaigns.get_lift_report(GetLiftReportRequest { campaign_id })),
        call!(coupons.check_eligibility(check_eligibility)),
        call!(coupons.list_user_coupons(list_user_coupons)),
        call!(coupons.stream_coupon_targets(stream_targets)),
        call!(coupons.reserve_coupon(reserve_coupon)),
        call!(coupons.confirm_redemption(confirm_redemption)),
        call!(coupons.release_reservation(release_reservation)),
        call!(coupons.rollback_redemption(rollback_redemption)),
        call!(privacy.set_consent(set_consent)),
        call!(privacy.get_consent(GetConsentRequest { user_id: user(0) })),
        call!(catalog.upsert_merchants(upsert_merchants)),
        call!(catalog.upsert_items(upsert_items)),
        call!(catalog.get_item(get_item)),
        call!(catalog.list_items(ListItemsRequest::default())),
        call!(ratings.upsert_ratings(upsert_ratings)),
        call!(ratings.list_ratings(list_ratings)),
        call!(ratings.delete_rating(delete_rating)),
        call!(purchases.record_purchases(record_purchases)),
        call!(purchases.list_purchases(list_purchases)),
        call!(models.list_snapshots(ListSnapshotsRequest::default())),
        call!(models.get_snapshot(GetSnapshotRequest { version: 1 })),
        call!(models.activate_snapshot(activate)),
        call!(models.rollback_snapshot(RollbackSnapshotRequest::default())),
        call!(ratings.ingest_ratings(ingest_ratings)),
        call!(purchases.ingest_purchases(ingest_purchases)),
    ];
    join_all(calls).await
}

/// That an RPC is either called in this file or fails this.
fn assert_all_are_called(outcomes: &[Outcome]) {
    let called = outcomes.iter().map(|(rpc, _)| (*rpc).to_owned());
    let from_memory = FROM_MEMORY.iter().map(|name| snake_case(name));
    let called: BTreeSet<String> = called.chain(from_memory).collect();
    let all: BTreeSet<String> = methods().iter().map(|method| snake_case(method.name())).collect();
    assert_eq!(called, all);
}

/// `list_items` of `ListItems`
fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

/// That whoever was refused knows why, and when to try again.
fn assert_is_outage(rpc: &str, status: &Status) {
    assert_status(status, Code::Unavailable, "DATABASE_UNAVAILABLE");
    let retry = status
        .get_details_retry_info()
        .unwrap_or_else(|| panic!("{rpc}: {status:?}"));
    assert!(
        retry.retry_delay.is_some_and(|delay| !delay.is_zero()),
        "{rpc}: {retry:?}"
    );
}

/// What these refuse is refused because of what the database says: there is no snapshot to go back to, nothing to
/// confirm or to give back, and the campaign and the coupon of the same name are others.
fn is_refused_by_what_is_stored(rpc: &str, status: &Status) -> bool {
    let expected = match rpc {
        "rollback_snapshot" => Code::FailedPrecondition,
        "create_campaign" | "create_coupon" => Code::AlreadyExists,
        "confirm_redemption" | "release_reservation" | "rollback_redemption" => Code::NotFound,
        _ => return false,
    };
    status.code() == expected
}

async fn assert_unavailable(caller: &Caller) {
    let outcomes = from_database(caller).await;
    assert_all_are_called(&outcomes);
    for (rpc, outcome) in outcomes {
        assert_is_outage(rpc, &outcome.expect_err(rpc));
    }
}

async fn assert_recovered(caller: &Caller) {
    soon("the database is available", || async {
        caller.status().await.database_available
    })
    .await;
    // All at once they may be too many for a pool that has only just connected again.
    soon("everything is done", || async {
        let outcomes = from_database(caller).await;
        outcomes.iter().all(|(rpc, outcome)| match outcome {
            Ok(()) => *rpc != "rollback_snapshot",
            Err(status) => {
                let info = || status.get_details_error_info();
                let is_busy = || info().is_some_and(|info| info.reason == "DATABASE_BUSY");
                assert!(
                    is_refused_by_what_is_stored(rpc, status) || is_busy(),
                    "{rpc}: {status:?}"
                );
                !is_busy()
            }
        })
    })
    .await;
    let similar = caller.similar(&item(5)).await;
    caller.rate("after", &item(5), 4.0).await;
    assert!(equal(
        &caller.scores("after").await,
        &plus(&Scores::new(), 4.0, &similar)
    ));
}

#[tokio::test]
async fn answers_go_on_while_postgresql_is_gone() {
    let mut postgres = Postgres::start("gone").await;
    let server = Server::at(&postgres.url, &SETTINGS);
    let caller = Caller::of(&server).await;
    caller.rate("before", &item(5), 4.0).await;
    let before = caller.scores("before").await;
    let (load, writes) = (Load::from_memory(&caller), Load::from_database(&caller));
    soon("requests under way", || async { writes.answered() > 0 }).await;

    postgres.stop().await;
    let answered = load.answered();
    assert_unavailable(&caller).await;
    soon("the outage is reported", || async {
        !caller.status().await.database_available
    })
    .await;
    assert_eq!(server.health(RECOMMENDATIONS).await, Some(ServingStatus::Serving));
    assert_eq!(
        server.health("likemind.v1.RatingService").await,
        Some(ServingStatus::Serving)
    );
    assert!(equal(&caller.scores("before").await, &before));
    assert!(load.answered() > answered, "no load during the outage");

    // A server that starts now does not know yet who may call, and so lets nobody in.
    let strict = Server::at(&postgres.url, &SETTINGS);
    let strict_caller = Caller::of(&strict).await;
    let refused = from_memory(&strict_caller, 0).await.unwrap_err();
    assert_status(&refused, Code::Unavailable, "DATABASE_UNAVAILABLE");
    assert!(refused.message().contains("who may call"), "{refused:?}");
    assert!(refused.get_details_retry_info().is_some(), "{refused:?}");

    // One that lets everybody in has nothing to answer from, says so, and begins when it can.
    let open = [SETTINGS.as_slice(), &[("server.allow_unauthenticated", "true")]].concat();
    let late = Server::at(&postgres.url, &open);
    let late_caller = Caller::of(&late).await;
    assert_eq!(late.health(RECOMMENDATIONS).await, Some(ServingStatus::NotServing));
    let refused = from_memory(&late_caller, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert_eq!(refused.get_details_error_info().unwrap().reason, "NO_SNAPSHOT");
    assert!(refused.message().contains("database is not available"), "{refused:?}");
    assert!(refused.get_details_retry_info().is_some(), "{refused:?}");
    let status = late_caller.status().await;
    assert_eq!((status.snapshot_version, status.database_available), (None, false));
    assert_unavailable(&late_caller).await;

    postgres.resume().await;
    assert_recovered(&caller).await;
    late_caller.serves(1).await;
    soon("it is known who may call", || async {
        from_memory(&strict_caller, 0).await.is_ok()
    })
    .await;
    assert_eq!(late.health(RECOMMENDATIONS).await, Some(ServingStatus::Serving));
    assert!(equal(&late_caller.scores("before").await, &before));
    load.stop().await;
    writes.stop().await;

    let (exit, log) = server.drain().await;
    assert!(exit.success(), "{log}");
    // The outage and its end, once each.
    for line in ["fresh data cannot be read", "fresh data is read again"] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
}

#[tokio::test]
async fn answers_go_on_while_postgresql_hangs() {
    let postgres = Postgres::start("hangs").await;
    let server = Server::at(&postgres.url, &SETTINGS);
    let caller = Caller::of(&server).await;
    let load = Load::from_memory(&caller);

    let frozen = postgres.freeze();
    assert_unavailable(&caller).await;
    soon("the outage is reported", || async {
        !caller.status().await.database_available
    })
    .await;
    let answered = load.answered();
    from_memory(&caller, 0).await.unwrap();
    drop(frozen);
    assert_recovered(&caller).await;
    assert!(load.answered() > answered);
    load.stop().await;

    // Nor does it keep a server from stopping.
    let frozen = postgres.freeze();
    soon("the second outage is reported", || async {
        !caller.status().await.database_available
    })
    .await;
    let (exit, log) = server.drain().await;
    assert!(exit.success(), "{log}");
    assert!(!log.contains("cut off"), "{log}");
    drop(frozen);
}

#[tokio::test]
async fn a_burst_of_writes_is_no_outage() {
    let database = shop::open().await;
    let settings = [
        ("database.max_connections", "3"),
        ("database.acquire_timeout_ms", "1000"),
        ("live.refresh_interval_ms", "100"),
    ];
    let server = Server::with(&database, &settings);
    let caller = Caller::of(&server).await;
    // Nobody can write, everybody can read.
    let mut lock = shop::connect(&database).await;
    execute(&mut lock, "BEGIN; LOCK TABLE ratings IN SHARE MODE").await;
    let write = |number: usize| {
        let mut ratings = caller.ratings.clone();
        let request = UpsertRatingsRequest {
            ratings: vec![a_rating(&user(number), &item(number), 3.0)],
        };
        tokio::spawn(async move { ratings.upsert_ratings(request).await })
    };
    let mut writes: FuturesUnordered<_> = (0..12).map(write).collect();
    for _ in 0..9 {
        let refused = writes.next().await.unwrap().unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert_eq!(refused.get_details_error_info().unwrap().reason, "DATABASE_BUSY");
        assert!(refused.get_details_retry_info().is_some());
    }
    // What others write shows all the same.
    let mut other = shop::connect(&database).await;
    let rename = "WITH renamed AS (UPDATE items SET title = 'Renamed' WHERE external_id = 'i05' RETURNING id)
        INSERT INTO changes (item_id) SELECT id FROM renamed";
    execute(&mut other, rename).await;
    soon("a change from elsewhere", || async {
        let items = caller.ranked(&user(0)).await.items;
        items.iter().any(|found| found.title == "Renamed")
    })
    .await;
    assert!(caller.status().await.database_available);

    execute(&mut lock, "COMMIT").await;
    while let Some(written) = writes.next().await {
        written.unwrap().unwrap();
    }
    let (_, log) = server.drain().await;
    assert!(!log.contains("fresh data cannot be read"), "{log}");
}

#[tokio::test]
async fn a_first_load_that_takes_long_keeps_nobody_waiting() {
    let database = shop::open().await;
    let mut lock = shop::connect(&database).await;
    execute(&mut lock, "BEGIN; LOCK TABLE snapshot_chunks").await;
    let is_loading = async || {
        let waits = "SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE NOT granted AND datname = current_database()";
        let mut connection = shop::connect(&database).await;
        sqlx::query(waits).fetch_optional(&mut connection).await.unwrap()
    };

    // It stops when it is asked to.
    let program = Program::start(&mut command(&database, &["serve", "--listen=127.0.0.1:0"]));
    eventually("loading", is_loading).await;
    program.signal(libc::SIGTERM);
    let (exit, log) = tokio::task::spawn_blocking(|| program.wait()).await.unwrap();
    assert!(exit.success(), "{log}");
    assert!(!log.contains("serving snapshot"), "{log}");

    // It says what it can and cannot do.
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    assert_eq!(server.health(RECOMMENDATIONS).await, Some(ServingStatus::NotServing));
    assert_eq!(server.health("").await, Some(ServingStatus::Serving));
    let refused = from_memory(&caller, 0).await.unwrap_err();
    assert!(refused.message().contains("is being loaded"), "{refused:?}");
    assert!(refused.get_details_retry_info().is_some(), "{refused:?}");
    caller.rate("early", &item(5), 4.0).await;
    execute(&mut lock, "COMMIT").await;
    caller.serves(1).await;
    assert_eq!(server.health(RECOMMENDATIONS).await, Some(ServingStatus::Serving));
    let similar = caller.similar(&item(5)).await;
    let expected = plus(&Scores::new(), 4.0, &similar);
    assert!(equal(&caller.scores("early").await, &expected));
}
