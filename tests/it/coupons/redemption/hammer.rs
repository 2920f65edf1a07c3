//! Redemptions while servers are killed and PostgreSQL crashes, for as many calls as wanted: `tests/faults/redemptions.sh`.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sqlx::{Connection, PgConnection};
use tonic::transport::Endpoint;

use super::parallel_clients::{SHOPPERS, Shopper, assert_accounted};
use crate::operations::outage::Postgres;
use crate::support::api_keys::WithKey;
use crate::support::coupons::{CouponClient, Offer, assert_balanced};
use crate::support::metrics::free_port;
use crate::support::program::{Program, command_at};
use likemind::grpc::proto::v1::coupon_service_client::CouponServiceClient;

const CALLS: &str = "LIKEMIND_HAMMER_CALLS";

/// The pause between two faults. Every fourth fault is a crash of PostgreSQL.
const BETWEEN_FAULTS: Duration = Duration::from_secs(3);

/// A server that comes back at the same address.
struct Doomed {
    program: Option<Program>,
    address: String,
    url: String,
}

impl Doomed {
    fn start(url: &str) -> Self {
        let mut server = Self {
            program: None,
            address: free_port().to_string(),
            url: url.to_owned(),
        };
        server.run();
        server
    }

    fn run(&mut self) {
        let listen = format!("--listen={}", self.address);
        let args = ["serve", &listen, "--set-config=coupons.sweep_interval_ms=100"];
        let mut program = Program::start(&mut command_at(&self.url, &args));
        program.wait_for_log("serving on 127.0.0.1:");
        self.program = Some(program);
    }

    fn kill_and_run(&mut self) {
        self.program.take().unwrap().kill();
        self.run();
    }

    /// Returns a client that connects again by itself.
    fn client(&self) -> CouponClient {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        CouponClient {
            rpc: CouponServiceClient::with_interceptor(endpoint.connect_lazy(), WithKey::new(None)),
        }
    }
}

#[derive(Default)]
struct Faults {
    kills: u64,
    crashes: u64,
}

/// Causes one fault after the other until `is_over`.
async fn cause_faults(
    mut postgres: Postgres,
    mut servers: Vec<Doomed>,
    is_over: impl Fn() -> bool,
) -> (Postgres, Vec<Doomed>, Faults) {
    let mut faults = Faults::default();
    while !is_over() {
        tokio::time::sleep(BETWEEN_FAULTS).await;
        if (faults.kills + faults.crashes) % 4 == 3 {
            postgres.crash().await;
            faults.crashes += 1;
        } else {
            let mut server = servers.remove(0);
            server = tokio::task::spawn_blocking(move || {
                server.kill_and_run();
                server
            })
            .await
            .unwrap();
            servers.push(server);
            faults.kills += 1;
        }
    }
    (postgres, servers, faults)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes, so tests/faults/redemptions.sh runs it"]
async fn no_fault_breaks_an_invariant_of_redemptions() {
    let wanted: u64 = env::var(CALLS).map_or(2_000, |calls| calls.parse().unwrap());
    let postgres = Postgres::start("hammer").await;
    let mut connection = PgConnection::connect(&postgres.url).await.unwrap();
    let contested = Offer {
        limit_minor: Some(50_000),
        total_cap: Some(1_000),
        per_user_cap: Some(80),
        ttl_seconds: 3,
        ..Offer::of("c")
    };
    contested.create(&mut connection).await;
    connection.close().await.unwrap();
    let url = postgres.url.clone();
    let servers = tokio::task::spawn_blocking({
        let url = url.clone();
        move || vec![Doomed::start(&url), Doomed::start(&url)]
    })
    .await
    .unwrap();
    let clients: Vec<CouponClient> = servers.iter().map(Doomed::client).collect();

    let (started, calls) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let is_over = {
        let calls = calls.clone();
        move || calls.load(Ordering::Relaxed) >= wanted
    };
    let shoppers = (0..SHOPPERS).map(|number| {
        let mut clients = clients.clone();
        clients.rotate_left(number % 2);
        let (mut shopper, calls, is_over) = (Shopper::new(number, clients), calls.clone(), is_over.clone());
        tokio::spawn(async move {
            while !is_over() {
                let before = shopper.attempts;
                shopper.step().await;
                calls.fetch_add(shopper.attempts - before, Ordering::Relaxed);
            }
            shopper
        })
    });
    let faults = cause_faults(postgres, servers, is_over.clone());
    let (shoppers, (_postgres, _servers, faults)) = tokio::join!(join_all(shoppers), faults);
    let shoppers: Vec<Shopper> = shoppers.into_iter().map(Result::unwrap).collect();

    let mut connection = PgConnection::connect(&url).await.unwrap();
    assert_accounted(&mut connection, &shoppers).await;
    assert_balanced(&mut connection).await;
    println!(
        "{} calls in {:?} with {} kills of servers and {} crashes of PostgreSQL: no invariant is broken",
        calls.load(Ordering::Relaxed),
        started.elapsed(),
        faults.kills,
        faults.crashes
    );
}
