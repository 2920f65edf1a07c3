//! Many shoppers at a time: limits hold, nothing leaks, and every request is carried out once, also when a server is
//! killed.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use likemind::grpc::proto::v1::{Redemption, Reservation};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{assert_refused, serve, used};
use crate::support::coupons::{CouponClient, Offer, assert_balanced, usage};
use crate::support::postgres::{execute, number, sessions_waiting_for_a_lock};
use crate::support::program::Server;
use crate::support::shop::user;
use crate::support::waiting::{Wait, eventually};

pub(super) const SHOPPERS: usize = 64;

/// A call that a shopper sends.
#[derive(Debug, Clone)]
enum Call {
    Reserve {
        user: String,
        total_minor: i64,
    },
    Confirm {
        reservation: String,
        amount_minor: Option<i64>,
    },
    Release {
        reservation: String,
    },
    RollBack {
        redemption: String,
        amount_minor: Option<i64>,
        restore_cap: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Answer {
    Reserved(Reservation),
    Redeemed(Redemption),
    Released(bool),
}

impl Call {
    async fn send(&self, client: &CouponClient, id: &str) -> Result<Answer, Status> {
        match self {
            Self::Reserve { user, total_minor } => {
                let reserved = client.reserve(id, user, "c", *total_minor).await;
                reserved.map(Answer::Reserved)
            }
            Self::Confirm {
                reservation,
                amount_minor,
            } => {
                let redeemed = client.confirm(id, reservation, *amount_minor).await;
                redeemed.map(Answer::Redeemed)
            }
            Self::Release { reservation } => client.release(id, reservation).await.map(Answer::Released),
            Self::RollBack {
                redemption,
                amount_minor,
                restore_cap,
            } => {
                let rolled = client.roll_back(id, redemption, *amount_minor, *restore_cap).await;
                rolled.map(Answer::Redeemed)
            }
        }
    }
}

/// Whether an answer is final. Otherwise the call must be sent again: it was not carried out, or it is unknown whether it
/// was.
fn is_final<T>(answer: &Result<T, Status>) -> bool {
    let Err(status) = answer else { return true };
    match status.code() {
        Code::Unavailable | Code::Aborted | Code::ResourceExhausted | Code::DeadlineExceeded => false,
        // Without details it is the client's library that says so: the connection broke.
        Code::Unknown | Code::Cancelled => status.get_details_error_info().is_some(),
        _ => true,
    }
}

/// Lets 64 shoppers reserve `coupon` at once, each with a cart of 20 pounds, and returns how the calls end.
async fn reserve_in_parallel(
    client: &CouponClient,
    coupon: &'static str,
    id: &str,
    user_of: fn(usize) -> String,
) -> Vec<Result<Reservation, Status>> {
    let asked = (0..SHOPPERS).map(|number| {
        let (client, id, user) = (client.clone(), format!("{id}-{number}"), user_of(number));
        tokio::spawn(async move {
            let wait = Wait::begin("the reservation is answered");
            loop {
                let answer = client.reserve(&id, &user, coupon, 2_000).await;
                if is_final(&answer) {
                    return answer;
                }
                wait.pause(&answer).await;
            }
        })
    });
    join_all(asked).await.into_iter().map(Result::unwrap).collect()
}

pub(super) struct Shopper {
    number: usize,
    /// Clients of several servers, of which the first is used until it does not answer.
    clients: Vec<CouponClient>,
    /// The state of the random numbers, which are the same in every run.
    random: u64,
    sent: usize,
    /// The calls that were made, of which several may be attempts at one.
    pub attempts: u64,
    answered: Vec<(String, Call, Answer)>,
    held: Vec<Reservation>,
    /// Each redemption, and the amount that is not rolled back yet.
    redeemed: Vec<(Redemption, i64)>,
    /// The reasons of the refusals.
    refused: Vec<String>,
    restored: i64,
}

impl Shopper {
    pub fn new(number: usize, clients: Vec<CouponClient>) -> Self {
        Self {
            number,
            clients,
            random: 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64 + 1),
            sent: 0,
            attempts: 0,
            answered: Vec::new(),
            held: Vec::new(),
            redeemed: Vec::new(),
            refused: Vec::new(),
            restored: 0,
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) as usize % end
    }

    /// Sends `call` until its answer is final; `None` if it is refused. One answer in four counts as lost, so that the call is
    /// sent again and must be answered the same.
    async fn ask(&mut self, call: Call) -> Option<Answer> {
        self.sent += 1;
        let id = format!("{}-{}", self.number, self.sent);
        match self.send_until_final(&id, &call).await {
            Ok(answer) => {
                if self.below(4) == 0 {
                    assert_eq!(self.send_again(&id, &call).await, answer, "{id}: {call:?}");
                }
                self.answered.push((id, call, answer.clone()));
                Some(answer)
            }
            Err(status) => {
                let info = status.get_details_error_info().unwrap_or_else(|| panic!("{status:?}"));
                self.refused.push(info.reason);
                None
            }
        }
    }

    /// Sends `call` until its answer is final, each time to the next of the clients.
    async fn send_until_final(&mut self, id: &str, call: &Call) -> Result<Answer, Status> {
        let wait = Wait::begin("the call is answered");
        loop {
            self.attempts += 1;
            let answer = call.send(&self.clients[0], id).await;
            if is_final(&answer) {
                return answer;
            }
            self.clients.rotate_left(1);
            wait.pause(&answer).await;
        }
    }

    /// Sends a call again that was carried out.
    async fn send_again(&mut self, id: &str, call: &Call) -> Answer {
        let answer = self.send_until_final(id, call).await;
        answer.unwrap_or_else(|status| panic!("{id}: {call:?}: {status:?}"))
    }

    /// Does one thing, chosen at random.
    pub async fn step(&mut self) {
        let (held, redeemed) = (!self.held.is_empty(), !self.redeemed.is_empty());
        match self.below(10) {
            0..=3 if held => self.confirm().await,
            4 if held => {
                let reservation = self.held.remove(0).reservation_id;
                self.ask(Call::Release { reservation }).await;
            }
            // This reservation is left to expire.
            5 if held => drop(self.held.remove(0)),
            6 | 7 if redeemed => self.roll_back().await,
            _ => self.reserve().await,
        }
    }

    async fn reserve(&mut self) {
        let call = Call::Reserve {
            user: user(self.below(20)),
            total_minor: 1 + self.below(400) as i64,
        };
        if let Some(Answer::Reserved(reservation)) = self.ask(call).await {
            self.held.push(reservation);
        }
    }

    async fn confirm(&mut self) {
        let reservation = self.held.remove(0);
        let reserved_minor = reservation.amount.as_ref().unwrap().amount_minor;
        let part = self.below(reserved_minor as usize + 1) as i64;
        let call = Call::Confirm {
            reservation: reservation.reservation_id,
            amount_minor: (self.below(2) == 0).then_some(part),
        };
        if let Some(Answer::Redeemed(redemption)) = self.ask(call).await {
            let left = redemption.amount.as_ref().unwrap().amount_minor;
            self.redeemed.push((redemption, left));
        }
    }

    async fn roll_back(&mut self) {
        let (redemption, left) = self.redeemed.remove(0);
        let part = 1 + self.below(left.max(1) as usize) as i64;
        let all = left == 0 || self.below(2) == 0;
        let call = Call::RollBack {
            redemption: redemption.redemption_id,
            amount_minor: (!all).then_some(part),
            restore_cap: all,
        };
        match self.ask(call).await {
            Some(Answer::Redeemed(rolled)) if all => {
                assert!(rolled.cap_restored);
                self.restored += 1;
            }
            Some(Answer::Redeemed(rolled)) => self.redeemed.push((rolled, left - part)),
            other => panic!("{other:?}: {:?}", self.refused.last()),
        }
    }
}

/// Runs 64 shoppers with these clients, each for `steps` random steps, and returns them.
async fn shop_in_parallel(
    clients: &[Vec<CouponClient>],
    steps: usize,
    after_step: impl Fn() + Clone + Send + 'static,
) -> Vec<Shopper> {
    let shoppers = (0..SHOPPERS).map(|number| {
        let mut shopper = Shopper::new(number, clients[number % clients.len()].clone());
        let after_step = after_step.clone();
        tokio::spawn(async move {
            for _ in 0..steps {
                shopper.step().await;
                after_step();
            }
            shopper
        })
    });
    join_all(shoppers).await.into_iter().map(Result::unwrap).collect()
}

/// Asserts that the counters say what the shoppers were told.
pub(super) async fn assert_accounted(connection: &mut sqlx::PgConnection, shoppers: &[Shopper]) {
    let expected_minor: i64 = shoppers
        .iter()
        .flat_map(|shopper| &shopper.redeemed)
        .map(|(_, left)| left)
        .sum();
    let confirmed = shoppers.iter().flat_map(|shopper| &shopper.answered);
    let confirmed = confirmed
        .filter(|(_, call, _)| matches!(call, Call::Confirm { .. }))
        .count() as i64;
    let restored: i64 = shoppers.iter().map(|shopper| shopper.restored).sum();
    // The reservations that were left to expire give back what they held.
    let look = async || usage(connection, "c").await;
    let found = eventually("nothing is reserved any more", look, |usage| usage.reserved == 0).await;
    assert_eq!(found, used(0, 0, confirmed - restored, expected_minor));
    assert_balanced(connection).await;
    let mut refused: Vec<&String> = shoppers.iter().flat_map(|shopper| &shopper.refused).collect();
    refused.sort();
    refused.dedup();
    let known = [
        "BUDGET_EXHAUSTED",
        "RESERVATION_EXPIRED",
        "TOTAL_CAP_REACHED",
        "USER_CAP_REACHED",
    ];
    assert!(
        refused.iter().all(|reason| known.contains(&reason.as_str())),
        "{refused:?}"
    );
    // Without a refusal for lack of budget the test would show nothing.
    assert!(
        refused.iter().any(|reason| *reason == "BUDGET_EXHAUSTED"),
        "{refused:?}"
    );
    assert!(confirmed > 5 && restored > 0, "{confirmed} {restored}");
}

fn contested() -> Offer {
    Offer {
        limit_minor: Some(3_000),
        total_cap: Some(60),
        per_user_cap: Some(5),
        ttl_seconds: 3,
        ..Offer::of("c")
    }
}

/// The test holds a row that every reservation needs, until many shoppers have been found eligible and wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_one_of_64_parallel_reservations_gets_the_last_coupon() {
    let offers = [
        Offer {
            total_cap: Some(1),
            ..Offer::of("capped")
        },
        Offer {
            limit_minor: Some(1_999),
            ..Offer::of("budgeted")
        },
    ];
    let (database, mut connection, server) = serve(&offers, &[]).await;
    let client = CouponClient::of(&server).await;
    let mut holder = database.connect().await;
    for (coupon, hot_rows, refusal) in [
        ("capped", "coupon_counters", "TOTAL_CAP_REACHED"),
        ("budgeted", "campaign_states", "BUDGET_EXHAUSTED"),
    ] {
        // In the second round the coupon has been given back.
        for round in 0..2 {
            execute(&mut holder, &format!("BEGIN; SELECT FROM {hot_rows} FOR UPDATE")).await;
            let reserving = tokio::spawn({
                let client = client.clone();
                async move { reserve_in_parallel(&client, coupon, &format!("{coupon}-{round}"), user).await }
            });
            eventually(
                "many requests wait for the row",
                async || sessions_waiting_for_a_lock(&mut connection).await,
                |&waiting| waiting >= 8,
            )
            .await;
            execute(&mut holder, "COMMIT").await;
            let (got, refused): (Vec<_>, Vec<_>) = reserving.await.unwrap().into_iter().partition(Result::is_ok);
            assert_eq!(got.len(), 1);
            for refused in refused {
                assert_refused(&refused.unwrap_err(), refusal);
            }
            let reservation = got.into_iter().next().unwrap().unwrap().reservation_id;
            let id = format!("{coupon}-{round}-back");
            assert!(client.release(&id, &reservation).await.unwrap());
        }
        assert_eq!(usage(&mut connection, coupon).await, used(0, 0, 0, 0));
    }
    let reserved = "SELECT count(*) FROM coupon_ledger WHERE entry = 'reserve'";
    assert_eq!(number(&mut connection, reserved).await, 4);
    assert_balanced(&mut connection).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_reservations_of_one_user_do_not_exceed_the_cap_per_user() {
    let offers = [
        Offer {
            per_user_cap: Some(3),
            ..Offer::of("c")
        },
        Offer {
            is_assigned: true,
            per_user_cap: Some(3),
            ..Offer::of("assigned")
        },
    ];
    let (_database, mut connection, server) = serve(&offers, &[]).await;
    let assign = "INSERT INTO assignments (campaign_id, user_id)
                  SELECT campaigns.id, users.id FROM campaigns, users
                  WHERE campaigns.external_id = 'k-assigned' AND users.external_id = 'u001'";
    execute(&mut connection, assign).await;
    let client = CouponClient::of(&server).await;
    // An assignment allows one redemption, whatever the cap says.
    for (coupon, share) in [("c", 3), ("assigned", 1)] {
        let answers = reserve_in_parallel(&client, coupon, coupon, |_| user(1)).await;
        let (got, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!(got.len(), share, "{coupon}");
        for refused in refused {
            assert_refused(&refused.unwrap_err(), "USER_CAP_REACHED");
        }
        for (number, reservation) in got.into_iter().enumerate() {
            let id = reservation.unwrap().reservation_id;
            client.confirm(&format!("{coupon}-c{number}"), &id, None).await.unwrap();
        }
        let status = client.reserve(coupon, &user(1), coupon, 2_000).await.unwrap_err();
        assert_refused(
            &status,
            ["ALREADY_REDEEMED", "USER_CAP_REACHED"][usize::from(share > 1)],
        );
    }
    assert_balanced(&mut connection).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_shoppers_do_not_exceed_the_budget_and_the_ledger_balances() {
    let (database, mut connection, one) = serve(&[contested()], &[("coupons.sweep_interval_ms", "100")]).await;
    let two = Server::with(&database, &[("coupons.sweep_interval_ms", "100")]);
    let clients = [vec![CouponClient::of(&one).await], vec![CouponClient::of(&two).await]];
    let shoppers = shop_in_parallel(&clients, 12, || {}).await;
    assert_accounted(&mut connection, &shoppers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_shoppers_continue_on_another_server_when_theirs_is_killed() {
    let (database, mut connection, doomed) = serve(&[contested()], &[("coupons.sweep_interval_ms", "100")]).await;
    let other = Server::with(&database, &[("coupons.sweep_interval_ms", "100")]);
    let (first, second) = (CouponClient::of(&doomed).await, CouponClient::of(&other).await);
    // All shoppers begin with the server that is killed in the middle.
    static STEPS: AtomicUsize = AtomicUsize::new(0);
    let shopping = tokio::spawn(async move {
        shop_in_parallel(&[vec![first, second]], 12, || {
            STEPS.fetch_add(1, Ordering::Relaxed);
        })
        .await
    });
    let look = async || STEPS.load(Ordering::Relaxed);
    eventually("a quarter of the steps is done", look, |&steps| steps > SHOPPERS * 3).await;
    doomed.program.kill();
    assert!(STEPS.load(Ordering::Relaxed) < SHOPPERS * 11, "it was killed too late");
    let mut shoppers = shopping.await.unwrap();
    assert_accounted(&mut connection, &shoppers).await;
    // The other server repeats every answer of the killed one.
    let before = usage(&mut connection, "c").await;
    let again = shoppers.iter_mut().map(async |shopper| {
        for (id, call, answer) in std::mem::take(&mut shopper.answered) {
            assert_eq!(shopper.send_again(&id, &call).await, answer, "{id}: {call:?}");
        }
    });
    join_all(again).await;
    assert_eq!(usage(&mut connection, "c").await, before);
    assert_balanced(&mut connection).await;
}
