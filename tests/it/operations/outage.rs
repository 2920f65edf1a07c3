//! Servers while PostgreSQL is away or hangs, and when it comes back.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use likemind::grpc::proto::v1::{
    ActivateSnapshotRequest, AllowSensitiveAttributeRequest, AssignmentKey, BacktestDemandRequest, CampaignSpec,
    CampaignState, CheckEligibilityRequest, ConfirmRedemptionRequest, ConsentDecision, CouponSpec,
    CreateCampaignRequest, CreateCouponRequest, DeleteAssignmentsRequest, DeletePurchasesRequest, DeleteRatingRequest,
    DeleteReplenishmentPolicyRequest, DeleteSuppressionsRequest, DeleteUserAttributesRequest, Discount,
    ExportUserDataRequest, ForecastDemandRequest, GetBiasReportRequest, GetCampaignBiasReportRequest,
    GetCampaignRequest, GetConsentRequest, GetCouponRequest, GetImportRequest, GetItemRequest, GetLiftReportRequest,
    GetRedemptionRequest, GetReservationRequest, GetServingStatusRequest, GetSnapshotRequest, ImportKind,
    ImportOptions, IngestPurchasesRequest, IngestRatingsRequest, InventoryPosition, Item, ListAssignmentsRequest,
    ListCampaignsRequest, ListCategoriesRequest, ListConsentsRequest, ListCouponsRequest, ListImportsRequest,
    ListInventoryPositionsRequest, ListItemAudienceRequest, ListItemsRequest, ListPurchasesRequest, ListRatingsRequest,
    ListRedemptionsRequest, ListReplenishmentPoliciesRequest, ListReplenishmentRequest, ListReservationsRequest,
    ListSimilarItemsRequest, ListSimilarUsersRequest, ListSnapshotsRequest, ListSuppressionsRequest,
    ListUserAttributesRequest, ListUserCouponsRequest, Merchant, Order, PolicyScope, PredictRatingsRequest,
    PurchaseLine, PurchaseSelection, Purpose, RecordOrdersRequest, RecordPurchasesRequest, RectifyUserRequest,
    ReleaseReservationRequest, ReplenishmentPolicy, ReserveCouponRequest, RollbackRedemptionRequest,
    RollbackSnapshotRequest, SetCampaignStateRequest, SetConsentRequest, SimulateReplenishmentRequest,
    StartImportRequest, StreamAudienceRequest, StreamConsentChangesRequest, StreamCouponTargetsRequest, SuppressionKey,
    UndoImportRequest, UpdateCampaignRequest, UpdateCouponRequest, UpsertAssignmentsRequest,
    UpsertInventoryPositionsRequest, UpsertItemsRequest, UpsertMerchantsRequest, UpsertRatingsRequest,
    UpsertReplenishmentPoliciesRequest, UpsertSuppressionsRequest, UpsertUserAttributesRequest, UserAttribute,
    UserAttributeKey, UserSuppression, discount, forecast_demand_request, list_purchases_request, list_ratings_request,
    policy_scope, replenishment_policy, stream_audience_request,
};
use likemind::grpc::proto::v1::{EraseUserRequest, GetErasureRequest, ListErasuresRequest};
use private_postgres::{PrivatePostgres, PrivatePostgresOptions};
use sqlx::{Connection, PgConnection};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_types::StatusExt;

use crate::demand::sales;
use crate::rpc::bad_input::dynamic::methods;
use crate::support::answers::assert_status;
use crate::support::caller::{Caller, Scores, a_rating, equal, for_user, plus, pounds};
use crate::support::coupons::{Offer, cart};
use crate::support::erasures::{self, KeyFile};
use crate::support::postgres::{copy_data_dir, database_url, execute, folder, sessions_waiting_for_a_lock};
use crate::support::program::{Program, Server, command, succeed_at};
use crate::support::shop;
use crate::support::shop::{item, user};
use crate::support::times::at;
use crate::support::waiting::{eventually, eventually_blocking, soon};

/// The deadline of the clients in these tests, far more than a server needs to notice an outage.
const DEADLINE: Duration = Duration::from_secs(8);

/// Lets a server notice soon that PostgreSQL is away.
const SETTINGS: [(&str, &str); 1] = [("database.acquire_timeout_ms", "400")];

/// Returns [`SETTINGS`] with the key of erasures.
fn settings() -> Vec<(&'static str, &'static str)> {
    static KEY: LazyLock<KeyFile> = LazyLock::new(|| KeyFile::of(erasures::KEY));
    let mut settings = SETTINGS.to_vec();
    settings.push(KEY.setting());
    settings
}

/// A coupon of the campaign [`CAMPAIGN`].
const COUPON: &str = "tenner";
const CAMPAIGN: &str = "k-tenner";

const RECOMMENDATIONS: &str = "likemind.v1.RecommendationService";
const NEED_THE_DATABASE: [&str; 7] = [
    "likemind.v1.CampaignService",
    "likemind.v1.CatalogService",
    "likemind.v1.CouponService",
    "likemind.v1.InventoryService",
    "likemind.v1.PrivacyService",
    "likemind.v1.PurchaseService",
    "likemind.v1.RatingService",
];

/// A PostgreSQL that a test may stop, because no other test uses it.
pub struct Postgres {
    options: PrivatePostgresOptions,
    running: Option<PrivatePostgres>,
    pub url: String,
}

impl Postgres {
    /// Starts one with the shop, its snapshot and a coupon.
    pub async fn start(name: &str) -> Self {
        let data_dir = folder(name);
        copy_data_dir(Self::template().await, &data_dir);
        let mut postgres = Self::stopped(data_dir);
        postgres.resume().await;
        postgres.url = database_url(postgres.running.as_ref().unwrap(), "likemind").await;
        postgres
    }

    /// Returns a data folder that is made once a run.
    async fn template() -> &'static Path {
        static TEMPLATE: OnceCell<PathBuf> = OnceCell::const_new();
        let make = async || {
            let mut postgres = Self::stopped(folder("outage-template"));
            postgres.resume().await;
            let url = database_url(postgres.running.as_ref().unwrap(), "likemind").await;
            succeed_at(&url, &["migrate"]);
            shop::stock(&url).await;
            let mut connection = PgConnection::connect(&url).await.unwrap();
            sales::stock(&mut connection).await;
            Offer::of(COUPON).create(&mut connection).await;
            connection.close().await.unwrap();
            shop::train(&url);
            postgres.stop().await;
            postgres.options.data_dir
        };
        TEMPLATE.get_or_init(make).await
    }

    fn stopped(data_dir: PathBuf) -> Self {
        Self {
            options: PrivatePostgresOptions {
                durable: false,
                settings: vec![("shared_buffers".to_owned(), "16MB".to_owned())],
                ..PrivatePostgresOptions::new(data_dir)
            },
            running: None,
            url: String::new(),
        }
    }

    async fn stop(&mut self) {
        let running = self.running.take();
        tokio::task::spawn_blocking(|| drop(running)).await.unwrap();
    }

    /// Starts it again at the same place.
    async fn resume(&mut self) {
        let options = self.options.clone();
        let started = tokio::task::spawn_blocking(move || PrivatePostgres::start(&options))
            .await
            .unwrap();
        let running = started.unwrap();
        assert!(self.url.is_empty() || self.url == running.url("likemind"));
        self.running = Some(running);
    }

    /// Ends all its processes at once, as a crash does, and starts it again at the same place.
    pub async fn crash(&mut self) {
        let main = self.main_process();
        signal(main, libc::SIGQUIT);
        let look = async || state_and_parent(main).map(|(state, _)| state);
        eventually("PostgreSQL has ended", look, |state| {
            state.as_deref().is_none_or(|state| state == "Z")
        })
        .await;
        self.stop().await;
        self.resume().await;
    }

    fn main_process(&self) -> libc::pid_t {
        let file = find(&self.options.data_dir, "postmaster.pid").expect("no postmaster.pid");
        let text = fs::read_to_string(file).unwrap();
        text.lines().next().unwrap().parse().unwrap()
    }

    /// Stops all its processes, which keep their connections and answer nothing until the value is dropped.
    fn freeze(&self) -> Frozen {
        let main = self.main_process();
        let mut frozen = Frozen { processes: vec![main] };
        // The main process first, so that it starts no more children than are found.
        halt(main);
        frozen.processes.extend(children(main));
        frozen.processes.iter().for_each(|&pid| halt(pid));
        frozen
    }
}

fn signal(pid: libc::pid_t, signal: libc::c_int) {
    // SAFETY: kill(2) takes numbers only. That the process may have ended just now does no harm.
    unsafe { libc::kill(pid, signal) };
}

/// Stops a process with SIGSTOP, and returns when it has stopped. The process may still start a child after the signal is
/// sent.
fn halt(pid: libc::pid_t) {
    signal(pid, libc::SIGSTOP);
    eventually_blocking(
        &format!("process {pid} is stopped"),
        || state_and_parent(pid),
        |found| {
            found
                .as_ref()
                .is_none_or(|(state, _)| ["T", "t", "Z", "X"].contains(&state.as_str()))
        },
    );
}

/// Returns the state and the parent of a process; `None` where there is no such process.
fn state_and_parent(pid: libc::pid_t) -> Option<(String, libc::pid_t)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The fields begin after the name, which may contain anything.
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

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
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

/// Clients that send requests, one after the other, until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Sends requests that are answered from memory; each must succeed.
    fn from_memory(caller: &Caller) -> Self {
        Self::start(3, caller, |caller, number| async move {
            from_memory(&caller, number).await.unwrap()
        })
    }

    /// Sends requests that need PostgreSQL; each must succeed or be refused because of the outage, or of the many calls.
    fn from_database(caller: &Caller) -> Self {
        Self::start(1, caller, |caller, _| async move {
            for (rpc, outcome) in from_database(&caller).await {
                if !is_refused_in_passing(&outcome, "DATABASE_BUSY")
                    && let Err(status) = outcome
                    && !is_refused_by_what_is_stored(rpc, &status)
                {
                    assert_is_outage(rpc, &status);
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
                }
            })
        };
        let tasks = (0..count).map(task).collect();
        Self { stop, answered, tasks }
    }

    /// Waits until more requests are answered than now.
    async fn wait_for_an_answer(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        let look = async || self.answered.load(Ordering::Relaxed);
        soon("more requests are answered", look, |&answered| answered > before).await;
    }

    /// Stops the clients. Panics if a request has failed.
    async fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// The RPCs that are answered without PostgreSQL; all others need it.
const FROM_MEMORY: [&str; 10] = [
    "BacktestDemand",
    "ForecastDemand",
    "GetServingStatus",
    "ListItemAudience",
    "ListReplenishment",
    "ListSimilarItems",
    "ListSimilarUsers",
    "PredictRatings",
    "Recommend",
    "SimulateReplenishment",
];

/// Calls every RPC of [`FROM_MEMORY`].
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
    let mut demand = caller.demand.clone();
    let request = ForecastDemandRequest {
        of: Some(forecast_demand_request::Of::Category("tea".to_owned())),
        ..ForecastDemandRequest::default()
    };
    demand.forecast_demand(request).await?;
    demand.backtest_demand(BacktestDemandRequest::default()).await?;
    let mut inventory = caller.inventory.clone();
    let mut list = inventory
        .list_replenishment(ListReplenishmentRequest::default())
        .await?
        .into_inner();
    while list.message().await?.is_some() {}
    inventory
        .simulate_replenishment(SimulateReplenishmentRequest::default())
        .await?;
    caller
        .models
        .clone()
        .get_serving_status(GetServingStatusRequest {})
        .await?;
    Ok(())
}

/// The name of an RPC, and its outcome.
type Outcome = (&'static str, Result<(), Status>);

type Calls = Vec<BoxFuture<'static, Outcome>>;

/// Returns the call of an RPC, with a deadline, as a future that is not started yet.
macro_rules! call {
    ($caller:ident.$client:ident.$method:ident($message:expr)) => {{
        let (mut client, mut request) = ($caller.$client.clone(), Request::new($message));
        request.set_timeout(DEADLINE);
        async move { (stringify!($method), client.$method(request).await.map(drop)) }.boxed()
    }};
}

/// Calls every RPC that needs PostgreSQL, all at once.
async fn from_database(caller: &Caller) -> Vec<Outcome> {
    let calls = [
        catalog_calls(caller),
        rating_calls(caller),
        purchase_calls(caller),
        campaign_calls(caller),
        campaign_coupon_calls(caller),
        assignment_calls(caller),
        audience_calls(caller),
        coupon_calls(caller),
        redemption_calls(caller),
        privacy_calls(caller),
        inventory_calls(caller),
        import_calls(caller),
        model_calls(caller),
    ];
    join_all(calls.into_iter().flatten()).await
}

fn catalog_calls(caller: &Caller) -> Calls {
    let merchant = Merchant {
        merchant_id: "m0".to_owned(),
        name: Some("A Merchant".to_owned()),
    };
    let bare = Item {
        item_id: item(0),
        ..Item::default()
    };
    vec![
        call!(caller.catalog.upsert_merchants(UpsertMerchantsRequest {
            merchants: vec![merchant],
        })),
        call!(caller.catalog.upsert_items(UpsertItemsRequest { items: vec![bare] })),
        call!(caller.catalog.get_item(GetItemRequest { item_id: item(0) })),
        call!(caller.catalog.list_items(ListItemsRequest::default())),
        call!(caller.catalog.list_categories(ListCategoriesRequest::default())),
        call!(
            caller
                .catalog
                .list_user_attributes(ListUserAttributesRequest::default())
        ),
        call!(caller.catalog.upsert_user_attributes(UpsertUserAttributesRequest {
            attributes: vec![UserAttribute {
                user_id: user(9),
                name: "town".to_owned(),
                value: "Ely".to_owned(),
            }],
        })),
        call!(caller.catalog.delete_user_attributes(DeleteUserAttributesRequest {
            attributes: vec![UserAttributeKey {
                user_id: user(9),
                name: "no such attribute".to_owned(),
            }],
        })),
    ]
}

fn inventory_calls(caller: &Caller) -> Calls {
    let counted = InventoryPosition {
        item_id: item(0),
        on_hand: 1.0,
        ..InventoryPosition::default()
    };
    let scope = Some(PolicyScope {
        of: Some(policy_scope::Of::ItemId(item(0))),
    });
    let policy = ReplenishmentPolicy {
        scope: scope.clone(),
        goal: Some(replenishment_policy::Goal::FillRate(0.9)),
        ..ReplenishmentPolicy::default()
    };
    vec![
        call!(
            caller
                .inventory
                .upsert_inventory_positions(UpsertInventoryPositionsRequest {
                    positions: vec![counted],
                })
        ),
        call!(
            caller
                .inventory
                .list_inventory_positions(ListInventoryPositionsRequest::default())
        ),
        call!(
            caller
                .inventory
                .upsert_replenishment_policies(UpsertReplenishmentPoliciesRequest { policies: vec![policy] })
        ),
        call!(
            caller
                .inventory
                .list_replenishment_policies(ListReplenishmentPoliciesRequest::default())
        ),
        call!(
            caller
                .inventory
                .delete_replenishment_policy(DeleteReplenishmentPolicyRequest { scope })
        ),
    ]
}

fn rating_calls(caller: &Caller) -> Calls {
    let rating = a_rating(&user(0), &item(0), 3.0);
    let list = ListRatingsRequest {
        of: Some(list_ratings_request::Of::UserId(user(0))),
        ..ListRatingsRequest::default()
    };
    let delete = DeleteRatingRequest {
        user_id: user(0),
        item_id: item(0),
        deleted_at: None,
    };
    vec![
        call!(caller.ratings.upsert_ratings(UpsertRatingsRequest {
            ratings: vec![rating.clone()],
        })),
        call!(
            caller
                .ratings
                .ingest_ratings(tokio_stream::once(IngestRatingsRequest { ratings: vec![rating] }))
        ),
        call!(caller.ratings.list_ratings(list)),
        call!(caller.ratings.delete_rating(delete)),
    ]
}

fn purchase_calls(caller: &Caller) -> Calls {
    let line = PurchaseLine {
        coupon_discount_minor: 0,
        order_id: "order-1".to_owned(),
        line_number: 1,
        user_id: user(0),
        item_id: item(0),
        quantity: 1,
        line_total: Some(pounds(100)),
        purchased_at: None,
    };
    let list = ListPurchasesRequest {
        of: Some(list_purchases_request::Of::UserId(user(0))),
        ..ListPurchasesRequest::default()
    };
    let order = Order {
        order_id: "order-2".to_owned(),
        updated_at: at(0),
        ..Order::default()
    };
    let selection = PurchaseSelection {
        order_id: "order-1".to_owned(),
        ..PurchaseSelection::default()
    };
    vec![
        call!(
            caller
                .purchases
                .record_orders(RecordOrdersRequest { orders: vec![order] })
        ),
        call!(caller.purchases.delete_purchases(DeletePurchasesRequest {
            selections: vec![selection],
        })),
        call!(caller.purchases.record_purchases(RecordPurchasesRequest {
            lines: vec![line.clone()],
        })),
        call!(
            caller
                .purchases
                .ingest_purchases(tokio_stream::once(IngestPurchasesRequest { lines: vec![line] }))
        ),
        call!(caller.purchases.list_purchases(list)),
    ]
}

fn campaign_calls(caller: &Caller) -> Calls {
    let campaign_id = CAMPAIGN.to_owned();
    let unchanged = CampaignSpec {
        campaign_id: campaign_id.clone(),
        ..CampaignSpec::default()
    };
    let new = CampaignSpec {
        currency_code: Some("EUR".to_owned()),
        starts_at: Some(prost_types::Timestamp::default()),
        ends_at: Some(prost_types::Timestamp {
            seconds: 3_600,
            nanos: 0,
        }),
        ..unchanged.clone()
    };
    let create = CreateCampaignRequest {
        campaign: Some(new),
        ..CreateCampaignRequest::default()
    };
    let update = UpdateCampaignRequest {
        campaign: Some(unchanged),
        ..UpdateCampaignRequest::default()
    };
    let set_state = SetCampaignStateRequest {
        campaign_id: campaign_id.clone(),
        state: CampaignState::Active.into(),
    };
    let get = GetCampaignRequest {
        campaign_id: campaign_id.clone(),
    };
    vec![
        call!(caller.campaigns.create_campaign(create)),
        call!(caller.campaigns.update_campaign(update)),
        call!(caller.campaigns.get_campaign(get)),
        call!(caller.campaigns.list_campaigns(ListCampaignsRequest::default())),
        call!(caller.campaigns.set_campaign_state(set_state)),
        call!(caller.campaigns.get_lift_report(GetLiftReportRequest {
            campaign_id: campaign_id.clone(),
        })),
        call!(caller.campaigns.get_campaign_bias_report(GetCampaignBiasReportRequest {
            campaign_id: campaign_id.clone(),
        })),
        call!(
            caller
                .campaigns
                .allow_sensitive_attribute(AllowSensitiveAttributeRequest {
                    campaign_id,
                    attribute: "age".to_owned(),
                    reason: "a test".to_owned(),
                })
        ),
    ]
}

/// The RPCs of CampaignService that are about coupons.
fn campaign_coupon_calls(caller: &Caller) -> Calls {
    let unchanged = CouponSpec {
        coupon_id: COUPON.to_owned(),
        ..CouponSpec::default()
    };
    let new = CouponSpec {
        campaign_id: CAMPAIGN.to_owned(),
        discount: Some(Discount {
            kind: Some(discount::Kind::AmountMinor(5)),
        }),
        ..unchanged.clone()
    };
    let update = UpdateCouponRequest {
        coupon: Some(unchanged),
        ..UpdateCouponRequest::default()
    };
    let get = GetCouponRequest {
        coupon_id: COUPON.to_owned(),
    };
    let list = ListCouponsRequest {
        campaign_id: CAMPAIGN.to_owned(),
        ..ListCouponsRequest::default()
    };
    vec![
        call!(
            caller
                .campaigns
                .create_coupon(CreateCouponRequest { coupon: Some(new) })
        ),
        call!(caller.campaigns.update_coupon(update)),
        call!(caller.campaigns.get_coupon(get)),
        call!(caller.campaigns.list_coupons(list)),
    ]
}

fn assignment_calls(caller: &Caller) -> Calls {
    let assignments = || {
        vec![AssignmentKey {
            campaign_id: CAMPAIGN.to_owned(),
            user_id: user(9),
        }]
    };
    let list = ListAssignmentsRequest {
        campaign_id: CAMPAIGN.to_owned(),
        ..ListAssignmentsRequest::default()
    };
    vec![
        call!(caller.campaigns.upsert_assignments(UpsertAssignmentsRequest {
            assignments: assignments(),
        })),
        call!(caller.campaigns.delete_assignments(DeleteAssignmentsRequest {
            assignments: assignments(),
        })),
        call!(caller.campaigns.list_assignments(list)),
    ]
}

fn audience_calls(caller: &Caller) -> Calls {
    let request = StreamAudienceRequest {
        of: Some(stream_audience_request::Of::ItemId(item(1))),
        ..StreamAudienceRequest::default()
    };
    vec![call!(caller.recommendations.stream_audience(request))]
}

fn coupon_calls(caller: &Caller) -> Calls {
    let check = CheckEligibilityRequest {
        user_id: user(0),
        coupon_ids: vec![COUPON.to_owned()],
        cart: None,
    };
    let list = ListUserCouponsRequest {
        user_id: user(0),
        ..ListUserCouponsRequest::default()
    };
    let stream_targets = StreamCouponTargetsRequest {
        coupon_id: COUPON.to_owned(),
        preview: true,
        ..StreamCouponTargetsRequest::default()
    };
    vec![
        call!(caller.coupons.check_eligibility(check)),
        call!(caller.coupons.list_user_coupons(list)),
        call!(caller.coupons.stream_coupon_targets(stream_targets)),
    ]
}

fn redemption_calls(caller: &Caller) -> Calls {
    let reserve = ReserveCouponRequest {
        request_id: "the same again".to_owned(),
        user_id: user(0),
        coupon_id: COUPON.to_owned(),
        cart: Some(cart(&[(1, 5_000)])),
    };
    let confirm = ConfirmRedemptionRequest {
        request_id: "confirm".to_owned(),
        reservation_id: "no such reservation".to_owned(),
        ..ConfirmRedemptionRequest::default()
    };
    let release = ReleaseReservationRequest {
        request_id: "release".to_owned(),
        reservation_id: "no such reservation".to_owned(),
    };
    let roll_back = RollbackRedemptionRequest {
        request_id: "roll back".to_owned(),
        redemption_id: "no such redemption".to_owned(),
        ..RollbackRedemptionRequest::default()
    };
    vec![
        call!(caller.coupons.reserve_coupon(reserve)),
        call!(caller.coupons.confirm_redemption(confirm)),
        call!(caller.coupons.release_reservation(release)),
        call!(caller.coupons.rollback_redemption(roll_back)),
        call!(caller.coupons.get_reservation(GetReservationRequest {
            reservation_id: "no such reservation".to_owned(),
        })),
        call!(caller.coupons.list_reservations(ListReservationsRequest::default())),
        call!(caller.coupons.get_redemption(GetRedemptionRequest {
            redemption_id: "no such redemption".to_owned(),
        })),
        call!(caller.coupons.list_redemptions(ListRedemptionsRequest::default())),
    ]
}

fn privacy_calls(caller: &Caller) -> Calls {
    let set = SetConsentRequest {
        user_id: user(9),
        decisions: vec![ConsentDecision {
            purpose: Purpose::Marketing.into(),
            granted: true,
        }],
        ..SetConsentRequest::default()
    };
    vec![
        call!(caller.privacy.set_consent(set)),
        call!(caller.privacy.upsert_suppressions(UpsertSuppressionsRequest {
            suppressions: vec![UserSuppression {
                user_id: "somebody else".to_owned(),
                reason: String::new(),
            }],
        })),
        call!(caller.privacy.delete_suppressions(DeleteSuppressionsRequest {
            suppressions: vec![SuppressionKey {
                user_id: "nobody".to_owned(),
            }],
        })),
        call!(caller.privacy.list_suppressions(ListSuppressionsRequest::default())),
        call!(caller.privacy.erase_user(EraseUserRequest {
            user_id: "nobody".to_owned(),
            request_id: "erase".to_owned(),
            reason: String::new(),
        })),
        call!(caller.privacy.get_erasure(GetErasureRequest { erasure_id: 1 })),
        call!(caller.privacy.list_erasures(ListErasuresRequest::default())),
        call!(caller.privacy.get_consent(GetConsentRequest { user_id: user(0) })),
        call!(caller.privacy.list_consents(ListConsentsRequest {
            user_id: user(0),
            ..ListConsentsRequest::default()
        })),
        call!(
            caller
                .privacy
                .stream_consent_changes(StreamConsentChangesRequest::default())
        ),
        call!(caller.privacy.export_user_data(ExportUserDataRequest {
            user_id: user(0),
            reason: String::new(),
        })),
        call!(caller.privacy.rectify_user(RectifyUserRequest {
            user_id: user(0),
            remove: vec!["town".to_owned()],
            ..RectifyUserRequest::default()
        })),
    ]
}

fn import_calls(caller: &Caller) -> Calls {
    let upload = StartImportRequest {
        options: Some(ImportOptions {
            kind: ImportKind::Ratings.into(),
            ..ImportOptions::default()
        }),
        bytes: b"user_id,item_id,value,rated_at\nann,tea,3,2020-01-01\n".to_vec(),
    };
    vec![
        call!(caller.imports.start_import(tokio_stream::once(upload))),
        call!(caller.imports.get_import(GetImportRequest { import_id: 1_000_000 })),
        call!(caller.imports.list_imports(ListImportsRequest::default())),
        call!(caller.imports.undo_import(UndoImportRequest { import_id: 1_000_000 })),
    ]
}

fn model_calls(caller: &Caller) -> Calls {
    let activate = ActivateSnapshotRequest {
        version: 1,
        reason: String::new(),
    };
    vec![
        call!(caller.models.list_snapshots(ListSnapshotsRequest::default())),
        call!(caller.models.get_snapshot(GetSnapshotRequest { version: 1 })),
        call!(caller.models.get_bias_report(GetBiasReportRequest { version: 1 })),
        call!(caller.models.activate_snapshot(activate)),
        call!(caller.models.rollback_snapshot(RollbackSnapshotRequest::default())),
    ]
}

/// Asserts that this file calls every RPC there is.
fn assert_all_are_called(outcomes: &[Outcome]) {
    let called = outcomes.iter().map(|(rpc, _)| (*rpc).to_owned());
    let from_memory = FROM_MEMORY.iter().map(|name| snake_case(name));
    let called: BTreeSet<String> = called.chain(from_memory).collect();
    let all: BTreeSet<String> = methods().iter().map(|method| snake_case(method.name())).collect();
    assert_eq!(called, all);
}

/// Returns `list_items` for `ListItems`.
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

/// Asserts that a refusal says that the database is unavailable, and when to try again.
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

/// Whether an RPC was refused because of what is stored, and not because of an outage: there is no snapshot to roll back to,
/// no reservation to confirm or release, no import to look at or undo, no erasure yet, and another campaign and another coupon with
/// the same id.
fn is_refused_by_what_is_stored(rpc: &str, status: &Status) -> bool {
    let expected = match rpc {
        "rollback_snapshot" => Code::FailedPrecondition,
        "create_campaign" | "create_coupon" => Code::AlreadyExists,
        "confirm_redemption"
        | "release_reservation"
        | "rollback_redemption"
        | "get_reservation"
        | "get_redemption"
        | "get_import"
        | "undo_import"
        | "get_erasure"
        | "delete_replenishment_policy" => Code::NotFound,
        _ => return false,
    };
    status.code() == expected
}

async fn assert_unavailable(caller: &Caller) {
    let outcomes = soon(
        "every RPC is refused for the outage",
        async || from_database(caller).await,
        |outcomes| {
            !outcomes
                .iter()
                .any(|(_, outcome)| is_refused_in_passing(outcome, "DATABASE_BUSY"))
        },
    )
    .await;
    assert_all_are_called(&outcomes);
    for (rpc, outcome) in outcomes {
        assert_is_outage(rpc, &outcome.expect_err(rpc));
    }
}

/// Whether an RPC was refused for `reason`, which so many calls at once may be for a moment: the pool is full of calls from
/// before an outage at its beginning, and is still connecting at its end.
fn is_refused_in_passing(outcome: &Result<(), Status>, reason: &str) -> bool {
    matches!(outcome, Err(status) if status.code() == Code::Unavailable && reason_of(status) == reason)
}

async fn assert_recovered(caller: &Caller) {
    caller.wait_until_database_is(true).await;
    let outcomes = soon(
        "every RPC is answered from the database again",
        async || from_database(caller).await,
        |outcomes| {
            !outcomes.iter().any(|(_, outcome)| {
                is_refused_in_passing(outcome, "DATABASE_BUSY")
                    || is_refused_in_passing(outcome, "DATABASE_UNAVAILABLE")
            })
        },
    )
    .await;
    for (rpc, outcome) in outcomes {
        match outcome {
            Ok(()) => assert_ne!(rpc, "rollback_snapshot"),
            Err(status) => assert!(is_refused_by_what_is_stored(rpc, &status), "{rpc}: {status:?}"),
        }
    }
    let similar = caller.similar(&item(5)).await;
    caller.rate("after", &item(5), 4.0).await;
    assert!(equal(
        &caller.scores("after").await,
        &plus(&Scores::new(), 4.0, &similar)
    ));
}

fn reason_of(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

async fn assert_serving(server: &Server, service: &str) {
    assert_eq!(server.health(service).await, Some(ServingStatus::Serving), "{service}");
}

#[tokio::test]
async fn servers_answer_from_memory_while_postgresql_is_away() {
    let mut postgres = Postgres::start("away").await;
    let server = Server::at(&postgres.url, &settings());
    let caller = Caller::of(&server).await;
    caller.rate("before", &item(5), 4.0).await;
    let before = caller.scores("before").await;
    let (load, writes) = (Load::from_memory(&caller), Load::from_database(&caller));
    writes.wait_for_an_answer().await;

    postgres.stop().await;
    assert_unavailable(&caller).await;
    caller.wait_until_database_is(false).await;
    assert_serving(&server, RECOMMENDATIONS).await;
    assert_serving(&server, "").await;
    assert_serving(&server, "likemind.v1.ModelService").await;
    for service in NEED_THE_DATABASE {
        let health = async || server.health(service).await;
        soon(service, health, |status| *status == Some(ServingStatus::NotServing)).await;
    }
    assert!(equal(&caller.scores("before").await, &before));
    load.wait_for_an_answer().await;

    postgres.resume().await;
    assert_recovered(&caller).await;
    for service in NEED_THE_DATABASE {
        let health = async || server.health(service).await;
        soon(service, health, |status| *status == Some(ServingStatus::Serving)).await;
    }
    load.stop().await;
    writes.stop().await;
    let (exit, log) = server.drain().await;
    assert!(exit.success(), "{log}");
    // The outage and its end are logged once each.
    for line in ["fresh data cannot be read", "fresh data is read again"] {
        assert_eq!(log.matches(line).count(), 1, "{log}");
    }
}

#[tokio::test]
async fn a_server_that_starts_during_an_outage_lets_nobody_in_until_it_knows_the_keys() {
    let mut postgres = Postgres::start("away-with-keys").await;
    postgres.stop().await;
    let server = Server::at(&postgres.url, &settings());
    let caller = Caller::of(&server).await;
    let refused = from_memory(&caller, 0).await.unwrap_err();
    assert_status(&refused, Code::Unavailable, "DATABASE_UNAVAILABLE");
    assert!(refused.message().contains("who may call"), "{refused:?}");
    assert!(refused.get_details_retry_info().is_some(), "{refused:?}");

    postgres.resume().await;
    soon(
        "the server knows who may call",
        async || from_memory(&caller, 0).await,
        Result::is_ok,
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn an_open_server_that_starts_during_an_outage_serves_when_it_has_a_snapshot() {
    let mut postgres = Postgres::start("away-and-open").await;
    let earlier = Server::at(&postgres.url, &settings());
    let caller = Caller::of(&earlier).await;
    caller.rate("before", &item(5), 4.0).await;
    let before = caller.scores("before").await;
    postgres.stop().await;

    let open = [settings().as_slice(), &[("server.allow_unauthenticated", "true")]].concat();
    let late = Server::at(&postgres.url, &open);
    let late_caller = Caller::of(&late).await;
    assert_eq!(late.health(RECOMMENDATIONS).await, Some(ServingStatus::NotServing));
    let refused = from_memory(&late_caller, 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert_eq!(reason_of(&refused), "NO_SNAPSHOT");
    assert!(refused.message().contains("database is not available"), "{refused:?}");
    assert!(refused.get_details_retry_info().is_some(), "{refused:?}");
    let status = late_caller.status().await;
    assert_eq!((status.snapshot_version, status.database_available), (None, false));
    assert_unavailable(&late_caller).await;

    postgres.resume().await;
    late_caller.wait_until_serves(1).await;
    assert_serving(&late, RECOMMENDATIONS).await;
    assert!(equal(&late_caller.scores("before").await, &before));
}

#[tokio::test]
async fn servers_answer_from_memory_while_postgresql_hangs() {
    let postgres = Postgres::start("hangs").await;
    let server = Server::at(&postgres.url, &settings());
    let caller = Caller::of(&server).await;
    let load = Load::from_memory(&caller);

    let frozen = postgres.freeze();
    assert_unavailable(&caller).await;
    caller.wait_until_database_is(false).await;
    load.wait_for_an_answer().await;
    from_memory(&caller, 0).await.unwrap();
    drop(frozen);
    assert_recovered(&caller).await;
    load.wait_for_an_answer().await;
    load.stop().await;

    // A PostgreSQL that hangs does not keep a server from stopping either.
    let frozen = postgres.freeze();
    caller.wait_until_database_is(false).await;
    let (exit, log) = server.drain().await;
    assert!(exit.success(), "{log}");
    assert!(!log.contains("cut off"), "{log}");
    drop(frozen);
}

#[tokio::test]
async fn a_burst_of_writes_is_refused_as_busy_and_reported_as_no_outage() {
    let database = shop::open().await;
    let settings = [
        ("database.max_connections", "3"),
        ("database.acquire_timeout_ms", "1000"),
        ("live.refresh_interval_ms", "100"),
    ];
    let server = Server::with(&database, &settings);
    let caller = Caller::of(&server).await;
    // With this lock nobody can write and everybody can read.
    let mut lock = database.connect().await;
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
        assert_eq!(reason_of(&refused), "DATABASE_BUSY");
        assert!(refused.get_details_retry_info().is_some());
    }
    // A change that somebody else writes shows nevertheless.
    let mut other = database.connect().await;
    let rename = "WITH renamed AS (UPDATE items SET title = 'Renamed' WHERE external_id = 'i05' RETURNING id)
        INSERT INTO changes (item_id) SELECT id FROM renamed";
    execute(&mut other, rename).await;
    soon(
        "the renamed item shows",
        async || caller.ranked(&user(0)).await.items,
        |items| items.iter().any(|found| found.title == "Renamed"),
    )
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
async fn a_server_that_is_loading_its_first_snapshot_can_be_stopped() {
    let database = shop::open().await;
    let mut lock = database.connect().await;
    execute(&mut lock, "BEGIN; LOCK TABLE snapshot_chunks").await;
    let program = Program::start(&mut command(&database, &["serve", "--listen=127.0.0.1:0"]));
    let mut observer = database.connect().await;
    eventually(
        "the server waits for the snapshot's bytes",
        async || sessions_waiting_for_a_lock(&mut observer).await,
        |&waiting| waiting > 0,
    )
    .await;
    program.signal(libc::SIGTERM);
    let (exit, log) = tokio::task::spawn_blocking(|| program.wait()).await.unwrap();
    assert!(exit.success(), "{log}");
    assert!(!log.contains("serving snapshot"), "{log}");
}

#[tokio::test]
async fn a_server_takes_writes_and_refuses_recommendations_until_its_first_snapshot_is_loaded() {
    let database = shop::open().await;
    let mut lock = database.connect().await;
    execute(&mut lock, "BEGIN; LOCK TABLE snapshot_chunks").await;
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    for service in ["", RECOMMENDATIONS] {
        assert_eq!(
            server.health(service).await,
            Some(ServingStatus::NotServing),
            "{service}"
        );
    }
    assert_serving(&server, "likemind.v1.RatingService").await;
    let refused = from_memory(&caller, 0).await.unwrap_err();
    assert!(refused.message().contains("is being loaded"), "{refused:?}");
    assert!(refused.get_details_retry_info().is_some(), "{refused:?}");
    caller.rate("early", &item(5), 4.0).await;
    execute(&mut lock, "COMMIT").await;
    caller.wait_until_serves(1).await;
    for service in ["", RECOMMENDATIONS] {
        let health = async || server.health(service).await;
        soon("it serves", health, |status| *status == Some(ServingStatus::Serving)).await;
    }
    let similar = caller.similar(&item(5)).await;
    let expected = plus(&Scores::new(), 4.0, &similar);
    assert!(equal(&caller.scores("early").await, &expected));
}
