//! Trends and own habits in recommendations: fitted by `train`, explained, and moved by fresh orders at once on every server.

use chrono::{Days, Utc};
use likemind::grpc::proto::v1::{Basis, RecommendRequest, RecommendResponse, ScoreExplanation};

use crate::support::caller::{Caller, for_user};
use crate::support::postgres::{TestDatabase, scratch};
use crate::support::program::{Server, succeed};
use crate::support::waiting::soon;

const USERS: u64 = 120;
const WEEKS: u64 = 40;
/// Items of fashion: two new ones each week, from item 0 on.
const FASHION: u64 = 2 * WEEKS;
/// Items that users order again and again, after those of fashion.
const STAPLES: u64 = 60;

/// Every week each user orders two staples of their own and one item of fashion of the last four weeks.
fn purchases() -> String {
    let mut lines = "order_id,user_id,item_id,quantity,line_total,purchased_at,currency\n".to_owned();
    for week in 0..WEEKS {
        for user in 0..USERS {
            let age = (user * 7 + week * 3) % 8;
            let fashion = (2 * week).saturating_sub(age);
            let staples = [0, 1].map(|nth| FASHION + (user * 11 + nth * 17) % STAPLES);
            let days = 7 * (WEEKS - week) - user % 7;
            let on = (Utc::now() - Days::new(days)).format("%Y-%m-%d");
            for item in [fashion, staples[0], staples[1]] {
                lines += &format!("o{week}-{user},u{user:03},i{item:03},1,2.00,{on},USD\n");
            }
        }
    }
    lines
}

async fn open() -> TestDatabase {
    let database = TestDatabase::create().await;
    let folder = scratch();
    let [file, rejects] = ["file.csv", "rejects.csv"].map(|name| folder.path().join(name));
    std::fs::write(&file, purchases()).unwrap();
    let [file, rejects] = [&file, &rejects].map(|path| path.to_str().unwrap());
    succeed(&database, &["import", "purchases", file, "--rejects", rejects]);
    let text = succeed(&database, &["train", "--tune"]);
    assert!(text.contains("PASSED, active"), "{text}");
    database
}

fn request(user: &str, exclude_history: bool) -> RecommendRequest {
    RecommendRequest {
        basis: Basis::Blended.into(),
        exclude_history,
        explain: true,
        ..for_user(user)
    }
}

async fn explained(caller: &Caller, user: &str, exclude_history: bool, item: &str) -> Option<ScoreExplanation> {
    let answer = caller.recommend(request(user, exclude_history)).await;
    let mut items = answer.items.into_iter();
    items.find(|found| found.item_id == item)?.explanation
}

fn assert_terms_sum(answer: &RecommendResponse) {
    for item in &answer.items {
        let terms = item.explanation.as_ref().unwrap();
        let items: f64 = terms.items.iter().map(|term| term.contribution).sum();
        let sum = items
            + terms.other_items_contribution
            + terms.similar_users.map_or(0.0, |term| term.contribution)
            + terms.popular_lately.map_or(0.0, |term| term.contribution)
            + terms.own_habit.map_or(0.0, |term| term.contribution);
        assert!((sum - item.score).abs() < 1e-9, "{item:?}");
    }
}

#[tokio::test]
async fn fresh_orders_move_trends_and_habits_at_once_here_and_soon_elsewhere() {
    let database = open().await;
    let servers = [
        Server::start(&database),
        Server::with(&database, &[("live.refresh_interval_ms", "200")]),
    ];
    let (here, elsewhere) = (Caller::of(&servers[0]).await, Caller::of(&servers[1]).await);
    for exclude_history in [false, true] {
        let answer = here.recommend(request("u007", exclude_history)).await;
        assert!(!answer.items.is_empty());
        assert_terms_sum(&answer);
        let habits = answer
            .items
            .iter()
            .filter_map(|item| item.explanation.as_ref()?.own_habit);
        // Habits count only where the history is allowed; u007 has two staples.
        assert_eq!(
            habits.filter(|habit| habit.orders == WEEKS as u32).count(),
            if exclude_history { 0 } else { 2 }
        );
    }

    // User 7 orders a staple of theirs once more.
    let staple = format!("i{:03}", FASHION + 7 * 11 % STAPLES);
    let habit = async |caller: &Caller| {
        explained(caller, "u007", false, &staple)
            .await
            .unwrap()
            .own_habit
            .unwrap()
    };
    let before = habit(&here).await;
    here.buy("fresh-1", 1, "u007", &staple, 1).await;
    assert_eq!(habit(&here).await.orders, before.orders + 1);
    let look = async || habit(&elsewhere).await.orders;
    soon("a habit elsewhere", look, |orders| *orders == before.orders + 1).await;

    // Another user's order of an item that was in fashion long ago makes it popular lately for everybody.
    let old = "i010";
    let all = here.recommend(request("u007", true)).await;
    let mut candidates = all.items.iter().filter(|item| item.item_id.as_str() < "i060");
    let old = candidates.next_back().map_or(old, |item| &item.item_id).to_owned();
    let factor = async |caller: &Caller| {
        let terms = explained(caller, "u007", true, &old).await.unwrap();
        terms.popular_lately.unwrap().factor
    };
    let before = factor(&here).await;
    here.buy("fresh-2", 1, "u050", &old, 1).await;
    let after = factor(&here).await;
    assert!(after > before, "{before} {after}");
    let look = async || factor(&elsewhere).await;
    soon("a trend elsewhere", look, |factor| *factor == after).await;
    here.buy("fresh-2", 2, "u050", &old, -1).await;
    assert!(
        (factor(&here).await - before).abs() < 1e-6,
        "a return takes the trend away"
    );
}

#[tokio::test]
async fn settings_are_taken_over_until_a_run_is_asked_to_fit_them() {
    let database = open().await;
    let show = |version: &str| -> serde_json::Value {
        serde_json::from_str(&succeed(&database, &["snapshots", "show", version, "--json"])).unwrap()
    };
    let first = show("1");
    let evaluation = &first["evaluation"];
    assert!(!evaluation["tables"].as_array().unwrap().is_empty(), "{evaluation:#}");
    assert!(
        evaluation["settings"]["all_items"]["habit_weight"].as_f64().unwrap() > 0.0,
        "{evaluation:#}"
    );

    succeed(&database, &["train"]);
    let second = show("2")["evaluation"].clone();
    assert_eq!(second["settings"], evaluation["settings"]);
    assert_eq!(second["tuned"], evaluation["tuned"]);
    assert!(second.get("tables").is_none(), "{second:#}");

    succeed(&database, &["train", "--tune"]);
    let third = show("3")["evaluation"].clone();
    assert_eq!(third["settings"], evaluation["settings"], "the same data");
    assert_ne!(third["tuned"], evaluation["tuned"]);
    assert_eq!(third["tables"], evaluation["tables"]);

    succeed(&database, &["train", "--set-config", "trainer.tune_interval_days=0"]);
    assert_ne!(show("4")["evaluation"]["tuned"], third["tuned"]);
}
