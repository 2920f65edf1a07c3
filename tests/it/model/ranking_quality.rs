//! The quality of recommendations on the shipped samples: as `evaluate` measures it, as a server's answers have it, and how much
//! each term of the scores adds.

use std::collections::{BTreeMap, BTreeSet};

use likemind::config::Config;
use likemind::grpc::proto::v1::{Basis, RecommendRequest};
use likemind::store::postgres::options::DatabaseOptions;
use likemind::store::postgres::pool::Pool;
use likemind::store::snapshots::training;
use recommender::evaluation::evaluate::{Evaluated, Fitted, evaluate};
use recommender::evaluation::held_out::HeldOutParts;
use recommender::evaluation::options::EvaluationOptions;
use recommender::evaluation::report::{ItemScope, ParametersOf};
use recommender::evaluation::split::Cut;
use recommender::snapshot::parameters::TrainingParameters;
use recommender::snapshot::settings::FittedSettings;
use recommender::training::input::TrainingInput;
use serde_json::Value;
use sqlx::{PgConnection, Row};

use crate::support::caller::{Caller, for_user};
use crate::support::databases;
use crate::support::postgres::{TestDatabase, execute, scratch};
use crate::support::program::{Server, succeed};

/// The first day of the test part of Online Retail.
const CUT: &str = "2011-08-15";
/// The least NDCG@10 on new items and on all items after [`CUT`].
const LEAST_NEW: f64 = 0.132;
const LEAST_ALL: f64 = 0.395;

/// Items by user.
type ItemsOf = BTreeMap<String, BTreeSet<String>>;

/// Returns the items that users bought, where `condition` holds of the line.
async fn bought(connection: &mut PgConnection, condition: &str) -> ItemsOf {
    let query = format!(
        "SELECT DISTINCT u.external_id, i.external_id FROM purchases p JOIN users u ON u.id = p.user_id \
         JOIN items i ON i.id = p.item_id WHERE {condition}"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(query))
        .fetch_all(connection)
        .await
        .unwrap();
    let mut found = ItemsOf::new();
    for row in rows {
        found.entry(row.get(0)).or_default().insert(row.get(1));
    }
    found
}

/// Returns NDCG@10 of the server's answers for users with `relevant` items: the mean over users.
async fn ndcg_of_answers(caller: &Caller, relevant: &ItemsOf, exclude_history: bool) -> f64 {
    let gain = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
    let mut sum = 0.0;
    for (user, relevant) in relevant {
        let request = RecommendRequest {
            basis: Basis::Unspecified.into(),
            limit: 10,
            exclude_history,
            ..for_user(user)
        };
        let answer = caller.recommend(request).await;
        let hits = answer.items.iter().enumerate();
        let hits = hits.filter(|(_, item)| relevant.contains(&item.item_id));
        let gained: f64 = hits.map(|(rank, _)| gain(rank)).sum();
        sum += gained / (0..relevant.len().min(10)).map(gain).sum::<f64>();
    }
    sum / relevant.len() as f64
}

fn evaluated(database: &TestDatabase) -> Value {
    let figures = succeed(database, &["evaluate", "--split-at", CUT, "--json"]);
    serde_json::from_str(&figures).unwrap()
}

/// Returns NDCG@10 of a ranker.
fn ndcg(figures: &Value, ranker: &str, items: &str) -> f64 {
    let mut rows = figures["ranking"].as_array().unwrap().iter();
    let row = rows.find(|row| row["ranker"] == ranker && row["items"] == items);
    row.unwrap_or_else(|| panic!("no {ranker}, {items} in {figures:#}"))["ndcg_at_10"]
        .as_f64()
        .unwrap()
}

#[tokio::test]
async fn a_server_answers_as_well_as_evaluate_says() {
    let database = databases::online_retail().await;
    let figures = evaluated(&database);
    let [new, all] = ["new", "all"].map(|items| ndcg(&figures, "blended", items));
    assert!(new >= LEAST_NEW && all >= LEAST_ALL, "new {new}, all {all}");

    let part = TestPart::read(&database).await;
    let mut connection = database.connect().await;
    let before = bought(&mut connection, &format!("p.purchased_at < '{CUT}'")).await;
    let mut relevant = bought(&mut connection, &format!("p.purchased_at >= '{CUT}'")).await;
    relevant.retain(|user, _| before.contains_key(user));
    let mut relevant_new = relevant.clone();
    for (user, items) in &mut relevant_new {
        items.retain(|item| !before[user].contains(item));
    }
    relevant_new.retain(|_, items| !items.is_empty());

    execute(
        &mut connection,
        &format!("DELETE FROM purchases WHERE purchased_at >= '{CUT}'"),
    )
    .await;
    drop(connection);
    let trained = succeed(&database, &["train", "--tune", "--json"]);
    let trained: Value = serde_json::from_str(&trained).unwrap();
    let server = Server::start(&database);
    let caller = Caller::of(&server).await;
    let answered = [
        ndcg_of_answers(&caller, &relevant_new, true).await,
        ndcg_of_answers(&caller, &relevant, false).await,
    ];
    assert!(answered[0] >= LEAST_NEW && answered[1] >= LEAST_ALL, "{answered:?}");

    // A server has the settings that were fitted when it was trained; `evaluate` fits them on the weeks just before the cut.
    let of = |name: &str| trained["evaluation"][name].clone();
    let fitted = Fitted {
        weights: serde_json::from_value(of("weights")).unwrap(),
        settings: serde_json::from_value(of("settings")).unwrap(),
    };
    let same_settings = blended(&part.evaluate(Some(&fitted)));
    for (answered, evaluated) in answered.iter().zip(same_settings) {
        assert!(
            (answered - evaluated).abs() < 1e-9,
            "answers {answered}, evaluate {evaluated}"
        );
    }
}

/// Online Retail, split at [`CUT`].
struct TestPart {
    input: TrainingInput,
    held_out: HeldOutParts,
    parameters: TrainingParameters,
}

impl TestPart {
    async fn read(database: &TestDatabase) -> Self {
        let config = Config::default();
        // A job has no timeouts.
        let pool = Pool::connect(database.url(), &DatabaseOptions::default().for_jobs())
            .await
            .unwrap();
        let input = training::read(&pool, &config.privacy.consent()).await.unwrap().input;
        let parameters = config.training_parameters();
        let at = format!("{CUT}T00:00:00Z").parse().unwrap();
        Self {
            held_out: HeldOutParts::new(&input, &parameters, &Cut::At { at }, &EvaluationOptions::default()).unwrap(),
            input,
            parameters,
        }
    }

    /// `given`: the settings; `None` to fit them before the cut.
    fn evaluate(&self, given: Option<&Fitted>) -> Evaluated {
        evaluate(
            &self.input,
            &self.held_out,
            &self.parameters,
            given,
            ParametersOf::Candidate,
        )
        .unwrap()
    }
}

/// Returns NDCG@10 of the blend on new items and on all items.
fn blended(evaluated: &Evaluated) -> [f64; 2] {
    let ranker = evaluated.ranker(ItemScope::New);
    assert_eq!(ranker.name, "blended");
    [ItemScope::New, ItemScope::All].map(|items| evaluated.ranking(ranker, items).unwrap().ndcg_at_10)
}

#[tokio::test]
async fn every_term_of_the_scores_adds_to_their_quality() {
    let database = databases::online_retail().await;
    let part = TestPart::read(&database).await;
    let whole = part.evaluate(None);
    let [new, all] = blended(&whole);
    let with = |change: fn(&mut FittedSettings)| {
        let mut fitted = whole.fitted.clone();
        change(&mut fitted.settings);
        blended(&part.evaluate(Some(&fitted)))
    };
    let without_trend = with(|settings| {
        settings.new_items.trend_exponent = 0.0;
        settings.all_items.trend_exponent = 0.0;
    });
    let without_habits = with(|settings| settings.all_items.habit_weight = 0.0);
    let without_significance = with(|settings| settings.significance = 0.0);
    let items_alone = with(|settings| {
        settings.new_items.item_weight = 1.0;
        settings.all_items.item_weight = 1.0;
    });
    println!(
        "new, all: {new:.4} {all:.4}; without trend {without_trend:.4?}, without habits {without_habits:.4?}, without \
         significance {without_significance:.4?}, items alone {items_alone:.4?}"
    );
    assert!(
        new - without_trend[0] > 0.015 && all - without_trend[1] > 0.004,
        "{without_trend:?}"
    );
    assert!(all - without_habits[1] > 0.08, "{without_habits:?}");
    assert_eq!(without_habits[0], new);
    assert!(new - without_significance[0] > 0.001, "{without_significance:?}");
    assert!(
        new - items_alone[0] > 0.001 && all - items_alone[1] > 0.001,
        "{items_alone:?}"
    );
}

#[tokio::test]
async fn a_grocers_households_are_not_served_worse_than_by_popularity() {
    let database = TestDatabase::create().await;
    let folder = scratch();
    let rejects = folder.path().join("rejects.csv");
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/data/complete_journey/transactions.csv.zst"
    );
    let columns = "order_id=basket_id,user_id=household_id,item_id=product_id,line_total=sales_value,\
                   coupon_discount=coupon_disc,purchased_at=transaction_timestamp";
    let set = ["--set", "currency=USD", "--rejects", rejects.to_str().unwrap()];
    succeed(
        &database,
        &[&["import", "purchases", file, "--map", columns][..], &set].concat(),
    );
    let figures: Value = serde_json::from_str(&succeed(&database, &["evaluate", "--json"])).unwrap();
    let popularity = ndcg(&figures, "popularity", "new");
    // A cosine of one common buyer would be 1 without shrinking; the ranking by such lists has .05 of this.
    let item_based = ndcg(&figures, "item_based", "new");
    assert!(item_based >= 0.85 * popularity, "{item_based}, popularity {popularity}");
    let chosen = figures["choice"]["ranker"].as_str().unwrap();
    assert!(ndcg(&figures, chosen, "new") >= popularity, "{chosen}: {figures:#}");
}
