//! Many at a time: limits hold, nothing leaks, and every request is done once, also when a server is killed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use likemind::grpc::proto::v1::{Redemption, Reservation};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{assert_refused, serve, used};
use crate::offers::{Offer, Till, assert_balanced, execute, usage};
use crate::program::{Server, eventually};
use crate::shop::{self, user};

const CLIENTS: usize = 64;
/// Before what was not answered is sent again.
const PAUSE: Duration = Duration::from_millis(5);

/// What a client asks for.
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
    async fn send(&self, till: &Till, id: &str) -> Result<Answer, Status> {
        match self {
            Self::Reserve { user, total_minor } => {
                let reserved = till.reserve(id, user, "c", *total_minor).await;
                reserved.map(Answer::Reserved)
            }
            Self::Confirm {
                reservation,
                amount_minor,
            } => {
                let redeemed = till.confirm(id, reservation, *amount_minor).await;
                redeemed.map(Answer::Redeemed)
            }
            Self::Release { reservation } => till.release(id, reservation).await.map(Answer::Released),
            Self::RollBack {
                redemption,
                amount_minor,
                restore_cap,
            } => {
                let rolled = till.roll_back(id, redemption, *amount_minor, *restore_cap).await;
                rolled.map(Answer::Redeemed)
            }
        }
    }
}

/// Nothing is known of what became of the call, or nothing became of it: it is to be sent again.
fn is_passing(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Aborted | Code::ResourceExhausted | Code::DeadlineExceeded => true,
        // The connection broke.
        Code::Unknown | Code::Cancelled => status.get_details_error_info().is_none(),
        _ => false,
    }
}

/// 64 who want `coupon` at once, each with a cart of 20 pounds; how the calls end.
async fn want(
    till: &Till,
    coupon: &'static str,
    id: &str,
    user_of: fn(usize) -> String,
) -> Vec<Result<Reservation, Status>> {
    let asked = (0..CLIENTS).map(|number| {
        let (till, id, user) = (till.clone(), format!("{id}-{number}"), user_of(number));
        tokio::spawn(async move {
            loop {
                match till.reserve(&id, &user, coupon, 2_000).await {
                    // The machine may have more to do than this.
                    Err(status) if is_passing(&status) => tokio::time::sleep(PAUSE).await,
                    answer => return answer,
                }
            }
        })
    });
    join_all(asked).await.into_iter().map(Result::unwrap).collect()
}

struct Client {
    number: usize,
    /// The first that works is used.
    tills: Vec<Till>,
    /// The same in every run.
    random: u64,
    sent: usize,
    answered: Vec<(String, Call, Answer)>,
    held: Vec<Reservation>,
    /// And what is left of each.
    redeemed: Vec<(Redemption, i64)>,
    /// By reason.
    refused: Vec<String>,
    restored: i64,
}

impl Client {
    fn new(number: usize, tills: Vec<Till>) -> Self {
        Self {
            number,
            tills,
            random: 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(number as u64 + 1),
            sent: 0,
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

    /// Until somebody says what became of it; one answer in four is lost on its way, as it were.
    async fn ask(&mut self, call: Call) -> Option<Answer> {
        self.sent += 1;
        let id = format!("{}-{}", self.number, self.sent);
        let answer = loop {
            match call.send(&self.tills[0], &id).await {
                Err(status) if is_passing(&status) => {
                    if self.tills.len() > 1 {
                        self.tills.rotate_left(1);
                    }
                    tokio::time::sleep(PAUSE).await;
                }
                answer => break answer,
            }
        };
        match answer {
            Ok(answer) => {
                if self.below(4) == 0 {
                    assert_eq!(self.again(&id, &call).await, answer, "{id}: {call:?}");
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

    async fn again(&mut self, id: &str, call: &Call) -> Answer {
        loop {
            match call.send(&self.tills[0], id).await {
                Ok(answer) => return answer,
                Err(status) if is_passing(&status) => {
                    self.tills.rotate_left(1);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(status) => panic!("{id}: {call:?}: {status:?}"),
            }
        }
    }

    async fn step(&mut self) {
        let (held, redeemed) = (!self.held.is_empty(), !self.redeemed.is_empty());
        match self.below(10) {
            0..=3 if held => {
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
            4 if held => {
                let reservation = self.held.remove(0).reservation_id;
                self.ask(Call::Release { reservation }).await;
            }
            // Left to expire.
            5 if held => drop(self.held.remove(0)),
            6 | 7 if redeemed => {
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
            _ => {
                let call = Call::Reserve {
                    user: user(self.below(20)),
                    total_minor: 1 + self.below(400) as i64,
                };
                if let Some(Answer::Reserved(reservation)) = self.ask(call).await {
                    self.held.push(reservation);
                }
            }
        }
    }
}

/// 64 clients with these tills, who come and go at random; the clients afterwards.
async fn crowd(tills: &[Vec<Till>], steps: usize, after_step: impl Fn() + Clone + Send + 'static) -> Vec<Client> {
    let clients = (0..CLIENTS).map(|number| {
        let mut client = Client::new(number, tills[number % tills.len()].clone());
        let after_step = after_step.clone();
        tokio::spawn(async move {
            for _ in 0..steps {
                client.step().await;
                after_step();
            }
            client
        })
    });
    join_all(clients).await.into_iter().map(Result::unwrap).collect()
}

/// That what the clients were told is what has become of the coupon.
async fn assert_accounted(connection: &mut sqlx::PgConnection, clients: &[Client]) {
    let expected_minor: i64 = clients
        .iter()
        .flat_map(|client| &client.redeemed)
        .map(|(_, left)| left)
        .sum();
    let confirmed = clients.iter().flat_map(|client| &client.answered);
    let confirmed = confirmed
        .filter(|(_, call, _)| matches!(call, Call::Confirm { .. }))
        .count() as i64;
    let restored: i64 = clients.iter().map(|client| client.restored).sum();
    // What was left to expire is given back.
    eventually("nothing is reserved any more", async || {
        (usage(connection, "c").await.reserved == 0).then_some(())
    })
    .await;
    assert_eq!(
        usage(connection, "c").await,
        used(0, 0, confirmed - restored, expected_minor)
    );
    assert_balanced(connection).await;
    let mut refused: Vec<&String> = clients.iter().flat_map(|client| &client.refused).collect();
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
    // Otherwise it would show nothing.
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

/// A row that everybody wants is held until many have been found eligible and wait for it: all that they were told is that
/// there is one left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_who_want_the_last_one_one_gets_it() {
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
    let till = Till::of(&server).await;
    let mut holder = shop::connect(&database).await;
    for (coupon, hot_rows, refusal) in [
        ("capped", "coupon_counters", "TOTAL_CAP_REACHED"),
        ("budgeted", "campaign_states", "BUDGET_EXHAUSTED"),
    ] {
        // It is given back, and they all want it again.
        for round in 0..2 {
            execute(&mut holder, &format!("BEGIN; SELECT FROM {hot_rows} FOR UPDATE")).await;
            let wanting = tokio::spawn({
                let till = till.clone();
                async move { want(&till, coupon, &format!("{coupon}-{round}"), user).await }
            });
            eventually("many wait", async || {
                let waiting: i64 = sqlx::query_scalar(
                    "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock'",
                )
                .fetch_one(&mut connection)
                .await
                .unwrap();
                (waiting >= 8).then_some(())
            })
            .await;
            execute(&mut holder, "COMMIT").await;
            let (got, refused): (Vec<_>, Vec<_>) = wanting.await.unwrap().into_iter().partition(Result::is_ok);
            assert_eq!(got.len(), 1);
            for refused in refused {
                assert_refused(&refused.unwrap_err(), refusal);
            }
            let reservation = got.into_iter().next().unwrap().unwrap().reservation_id;
            let id = format!("{coupon}-{round}-back");
            assert!(till.release(&id, &reservation).await.unwrap());
        }
        assert_eq!(usage(&mut connection, coupon).await, used(0, 0, 0, 0));
    }
    let ledger: i64 = sqlx::query_scalar("SELECT count(*) FROM coupon_ledger WHERE entry = 'reserve'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(ledger, 4);
    assert_balanced(&mut connection).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_gets_no_more_than_their_share_from_64_at_once() {
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
    let till = Till::of(&server).await;
    // An assignment is good for one, whatever the cap says.
    for (coupon, share) in [("c", 3), ("assigned", 1)] {
        let answers = want(&till, coupon, coupon, |_| user(1)).await;
        let (got, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert_eq!(got.len(), share, "{coupon}");
        for refused in refused {
            assert_refused(&refused.unwrap_err(), "USER_CAP_REACHED");
        }
        for (number, reservation) in got.into_iter().enumerate() {
            let id = reservation.unwrap().reservation_id;
            till.confirm(&format!("{coupon}-c{number}"), &id, None).await.unwrap();
        }
        let status = till.reserve(coupon, &user(1), coupon, 2_000).await.unwrap_err();
        assert_refused(
            &status,
            ["ALREADY_REDEEMED", "USER_CAP_REACHED"][usize::from(share > 1)],
        );
    }
    assert_balanced(&mut connection).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_spends_no_more_than_the_budget_and_the_ledger_knows_all() {
    let (database, mut connection, one) = serve(&[contested()], &[("coupons.sweep_interval_ms", "100")]).await;
    let two = Server::with(&database, &[("coupons.sweep_interval_ms", "100")]);
    let tills = [vec![Till::of(&one).await], vec![Till::of(&two).await]];
    let clients = crowd(&tills, 12, || {}).await;
    assert_accounted(&mut connection, &clients).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_goes_on_when_a_server_is_killed() {
    let (database, mut connection, doomed) = serve(&[contested()], &[("coupons.sweep_interval_ms", "100")]).await;
    let other = Server::with(&database, &[("coupons.sweep_interval_ms", "100")]);
    let (first, second) = (Till::of(&doomed).await, Till::of(&other).await);
    // All begin with the one that is killed in the middle.
    static STEPS: AtomicUsize = AtomicUsize::new(0);
    let crowd = tokio::spawn(async move {
        crowd(&[vec![first, second]], 12, || {
            STEPS.fetch_add(1, Ordering::Relaxed);
        })
        .await
    });
    eventually("they are in the middle of it", async || {
        (STEPS.load(Ordering::Relaxed) > CLIENTS * 3).then_some(())
    })
    .await;
    doomed.program.kill();
    assert!(STEPS.load(Ordering::Relaxed) < CLIENTS * 11, "it was killed too late");
    let mut clients = crowd.await.unwrap();
    assert_accounted(&mut connection, &clients).await;
    // What the one has answered, the other answers.
    let before = usage(&mut connection, "c").await;
    let again = clients.iter_mut().map(async |client| {
        for (id, call, answer) in std::mem::take(&mut client.answered) {
            assert_eq!(client.again(&id, &call).await, answer, "{id}: {call:?}");
        }
    });
    join_all(again).await;
    assert_eq!(usage(&mut connection, "c").await, before);
    assert_balanced(&mut connection).await;
}
