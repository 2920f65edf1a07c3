//! Consents and objections: recorded for good, and honored from the next call on.

use likemind::grpc::proto::v1::privacy_service_client::PrivacyServiceClient;
use likemind::grpc::proto::v1::{
    Basis, Consent, ConsentDecision, Estimator, Fallback, GetConsentRequest, ListItemAudienceRequest,
    ListSimilarUsersRequest, Personalization, PredictRatingsRequest, Prediction, Purpose, RecommendRequest,
    SetConsentRequest, prediction,
};
use sqlx::PgConnection;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::answers::{assert_invalid, assert_status};
use crate::support::caller::{Caller, for_user};
use crate::support::postgres::{TestDatabase, execute, number, scratch};
use crate::support::program::{Server, run, succeed};
use crate::support::shop;
use crate::support::shop::{ITEMS, item, rating, user};
use crate::support::times::{EPOCH_SECONDS, at, seconds_now};
use crate::support::waiting::soon;

const MARKETING: Purpose = Purpose::Marketing;
const PROFILING: Purpose = Purpose::Profiling;
const TRAINING: Purpose = Purpose::Training;

/// Sets consents, and looks at what follows from them.
struct ConsentClient {
    privacy: PrivacyServiceClient<Channel>,
    shop: Caller,
}

impl ConsentClient {
    async fn of(server: &Server) -> Self {
        let channel = server.channel().await;
        Self {
            privacy: PrivacyServiceClient::new(channel.clone()),
            shop: Caller::over(channel),
        }
    }

    async fn set(&self, request: SetConsentRequest) -> Result<Vec<Consent>, Status> {
        let answer = self.privacy.clone().set_consent(request).await?;
        Ok(answer.into_inner().consents)
    }

    /// Sets one decision, which must be in force afterwards.
    async fn decide(&self, user: &str, purpose: Purpose, granted: bool) {
        let consents = self.set(consent_request(user, purpose, granted)).await.unwrap();
        let of_purpose = consents.iter().find(|consent| consent.purpose() == purpose).unwrap();
        assert_eq!(of_purpose.granted, granted, "{consents:?}");
    }

    async fn get(&self, user: &str) -> Result<Vec<Consent>, Status> {
        let request = GetConsentRequest {
            user_id: user.to_owned(),
        };
        let answer = self.privacy.clone().get_consent(request).await?;
        Ok(answer.into_inner().consents)
    }

    async fn is_popularity(&self, user: &str) -> bool {
        self.shop.ranked(user).await.personalization() == Personalization::Popularity
    }

    async fn similar_users(&self, user: &str) -> Vec<String> {
        let request = ListSimilarUsersRequest {
            user_id: user.to_owned(),
            limit: 1_000,
        };
        let answer = self.shop.recommendations.clone().list_similar_users(request).await;
        let users = answer.unwrap().into_inner().users;
        users.into_iter().map(|similar| similar.user_id).collect()
    }

    async fn audience(&self, item: &str) -> Vec<String> {
        let request = ListItemAudienceRequest {
            item_id: item.to_owned(),
            limit: 1_000,
            exclude_purchased: false,
        };
        let answer = self.shop.recommendations.clone().list_item_audience(request).await;
        let users = answer.unwrap().into_inner().users;
        users.into_iter().map(|member| member.user_id).collect()
    }

    async fn predictions(&self, user: &str) -> Vec<Prediction> {
        let request = PredictRatingsRequest {
            user_id: user.to_owned(),
            item_ids: (0..ITEMS).map(item).collect(),
            estimator: Estimator::Baseline.into(),
            basis: Basis::Blended.into(),
            ..PredictRatingsRequest::default()
        };
        let answer = self.shop.recommendations.clone().predict_ratings(request).await;
        answer.unwrap().into_inner().predictions
    }
}

fn consent_request(user: &str, purpose: Purpose, granted: bool) -> SetConsentRequest {
    SetConsentRequest {
        user_id: user.to_owned(),
        decisions: vec![decision(purpose, granted)],
        decided_at: None,
        source: "settings page".to_owned(),
    }
}

fn decision(purpose: Purpose, granted: bool) -> ConsentDecision {
    ConsentDecision {
        purpose: purpose.into(),
        granted,
    }
}

/// Returns, for each purpose in the order of the enum, whether it is granted and whether the user has decided it.
fn granted(consents: &[Consent]) -> Vec<(Purpose, bool, bool)> {
    let one = |consent: &Consent| (consent.purpose(), consent.granted, consent.decided_at.is_some());
    consents.iter().map(one).collect()
}

async fn count(connection: &mut PgConnection, rows: &str) -> i64 {
    number(connection, &format!("SELECT count(*) FROM {rows}")).await
}

/// Returns the number of users in the active snapshot.
async fn users_in_snapshot(database: &TestDatabase) -> i64 {
    let users = "SELECT user_count::bigint FROM snapshots WHERE state = 'active'";
    number(&mut database.connect().await, users).await
}

#[tokio::test]
async fn the_later_decision_is_in_force_and_at_equal_times_the_refusal() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = ConsentClient::of(&server).await;
    let mut connection = database.connect().await;

    assert_status(&client.get("ada").await.unwrap_err(), Code::NotFound, "USER_NOT_FOUND");
    let by_default = [
        (MARKETING, true, false),
        (PROFILING, true, false),
        (TRAINING, true, false),
    ];

    let mut request = consent_request("ada", MARKETING, true);
    request.decided_at = at(10);
    let first = client.set(request.clone()).await.unwrap();
    assert_eq!(granted(&first)[0], (MARKETING, true, true));
    assert_eq!(granted(&first)[1..], by_default[1..]);
    assert_eq!(
        (first[0].decided_at, first[0].source.as_str()),
        (at(10), "settings page")
    );
    assert_eq!(client.get("ada").await.unwrap(), first);

    let mut check = async |seconds: i64, is_granted: bool, in_force: (bool, i64), events: i64| {
        let mut request = consent_request("ada", MARKETING, is_granted);
        request.decided_at = at(seconds);
        let consents = client.set(request).await.unwrap();
        let found = (consents[0].granted, consents[0].decided_at);
        assert_eq!(found, (in_force.0, at(in_force.1)), "{is_granted} at {seconds}");
        let on_record = count(&mut connection, "consent_events").await;
        assert_eq!(on_record, events, "{is_granted} at {seconds}");
    };
    check(10, true, (true, 10), 1).await; // The same decision again.
    check(10, false, (false, 10), 2).await;
    check(10, true, (false, 10), 2).await; // The refusal stays in force.
    check(20, true, (true, 20), 3).await;
    check(15, false, (true, 20), 4).await; // A late decision is recorded, too.
    check(20, false, (false, 20), 5).await;

    // A refusal without a time comes after the decision in force, even if that has a time in the future.
    let ahead = seconds_now() - EPOCH_SECONDS + 3_600;
    check(ahead, true, (true, ahead), 6).await;
    client.decide("ada", MARKETING, false).await;
    assert_eq!(client.get("ada").await.unwrap()[0].decided_at, at(ahead));

    let all = SetConsentRequest {
        decisions: vec![
            decision(TRAINING, false),
            decision(MARKETING, false),
            decision(PROFILING, true),
        ],
        ..consent_request("bob", MARKETING, true)
    };
    let expected = [
        (MARKETING, false, true),
        (PROFILING, true, true),
        (TRAINING, false, true),
    ];
    assert_eq!(granted(&client.set(all).await.unwrap()), expected);
}

#[tokio::test]
async fn a_purpose_without_a_decision_has_the_configured_default() {
    let database = TestDatabase::create().await;
    let settings = [
        ("privacy.marketing_without_record", "false"),
        ("privacy.training_without_record", "false"),
    ];
    let server = Server::with(&database, &settings);
    let client = ConsentClient::of(&server).await;
    let consents = client.set(consent_request("ada", PROFILING, false)).await.unwrap();
    let expected = [
        (MARKETING, false, false),
        (PROFILING, false, true),
        (TRAINING, false, false),
    ];
    assert_eq!(granted(&consents), expected);
}

#[tokio::test]
async fn recorded_consent_events_cannot_be_changed() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    ConsentClient::of(&server).await.decide("ada", TRAINING, false).await;
    let mut connection = database.connect().await;
    for statement in [
        "UPDATE consent_events SET is_granted = true",
        "DELETE FROM consent_events",
        "TRUNCATE consent_events",
    ] {
        let refused = sqlx::raw_sql(statement).execute(&mut connection).await.unwrap_err();
        assert!(refused.to_string().contains("never changed"), "{statement}: {refused}");
    }
    assert_eq!(count(&mut connection, "consent_events WHERE NOT is_granted").await, 1);
}

#[tokio::test]
async fn every_bad_field_of_a_consent_is_named() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let client = ConsentClient::of(&server).await;
    let check = async |change: fn(&mut SetConsentRequest), reason: &str, fields: &[&str]| {
        let mut request = consent_request("ada", MARKETING, true);
        change(&mut request);
        assert_invalid(&client.set(request).await.unwrap_err(), reason, fields);
    };
    check(|request| request.user_id.clear(), "EMPTY_ID", &["user_id"]).await;
    check(
        |request| request.decisions.clear(),
        "BATCH_SIZE_OUT_OF_RANGE",
        &["decisions"],
    )
    .await;
    let four = |request: &mut SetConsentRequest| request.decisions = vec![decision(TRAINING, true); 4];
    check(four, "BATCH_SIZE_OUT_OF_RANGE", &["decisions"]).await;
    let twice = |request: &mut SetConsentRequest| request.decisions.push(decision(MARKETING, false));
    check(twice, "DUPLICATE_PURPOSE", &["decisions[1].purpose"]).await;
    let none = |request: &mut SetConsentRequest| request.decisions[0].purpose = 0;
    check(none, "MISSING", &["decisions[0].purpose"]).await;
    let unknown = |request: &mut SetConsentRequest| request.decisions[0].purpose = 99;
    check(unknown, "UNKNOWN_ENUM_VALUE", &["decisions[0].purpose"]).await;
    let tomorrow = |request: &mut SetConsentRequest| {
        request.decided_at = at(seconds_now() - EPOCH_SECONDS + 2 * 86_400);
        request.source = "x".repeat(1_025);
    };
    check(tomorrow, "TIME_OUT_OF_RANGE", &["decided_at", "source"]).await;
    assert_invalid(&client.get("").await.unwrap_err(), "EMPTY_ID", &["user_id"]);
    assert_eq!(count(&mut database.connect().await, "users").await, 0);
}

#[tokio::test]
async fn an_objection_to_profiling_holds_at_the_next_call_here_and_soon_elsewhere() {
    let database = shop::open().await;
    let here = Server::start(&database);
    let there = Server::with(&database, &[("live.refresh_interval_ms", "200")]);
    let (here, there) = (ConsentClient::of(&here).await, ConsentClient::of(&there).await);
    let ada = user(7);
    let neighbor = here.similar_users(&ada).await.swap_remove(0);
    let liked = item(shop::item_where(7, true));
    assert!(here.audience(&liked).await.contains(&ada));
    let scores = here.shop.scores(&ada).await;
    assert!(!here.is_popularity(&ada).await);
    let popular = here.shop.ranked("stranger").await.items;
    let of_nobody = here.predictions("stranger").await;
    let predicted = here.predictions(&ada).await;
    assert_ne!(predicted, of_nobody);
    here.shop.buy("o1", 1, &ada, &item(5), 1).await;

    here.decide(&ada, PROFILING, false).await;
    let ranked = here.shop.ranked(&ada).await;
    assert_eq!(ranked.personalization(), Personalization::Popularity);
    assert_eq!(ranked.items, popular);
    assert_eq!(here.predictions(&ada).await, of_nobody);
    assert!(of_nobody.iter().all(|one| match &one.result {
        Some(prediction::Result::Rating(rating)) => rating.fallback() == Fallback::ItemMean,
        _ => false,
    }));
    assert_eq!(here.similar_users(&ada).await, [""; 0]);
    assert!(!here.similar_users(&neighbor).await.contains(&ada));
    assert!(!here.audience(&liked).await.contains(&ada));
    // The answer leaves out only what the caller asks to leave out, and has the order that everybody gets.
    let without = RecommendRequest {
        exclude_purchased: true,
        ..for_user(&ada)
    };
    let without = here.shop.recommend(without).await.items;
    let others = popular.iter().filter(|one| one.item_id != item(5));
    let order: Vec<&str> = without.iter().map(|one| one.item_id.as_str()).collect();
    assert_eq!(order, others.map(|one| one.item_id.as_str()).collect::<Vec<_>>());
    let look = async || there.is_popularity(&ada).await;
    soon("elsewhere: the answer is popularity", look, |&is_popularity| {
        is_popularity
    })
    .await;
    assert_eq!(there.similar_users(&ada).await, [""; 0]);

    here.decide(&ada, PROFILING, true).await;
    assert!(!here.is_popularity(&ada).await);
    assert!(here.shop.scores(&ada).await.len() >= scores.len());
    assert!(here.similar_users(&neighbor).await.contains(&ada));
    soon("elsewhere: the answer is personal", look, |&is_popularity| {
        !is_popularity
    })
    .await;
}

#[tokio::test]
async fn a_user_who_refuses_marketing_is_in_no_audience_but_still_gets_recommendations() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = ConsentClient::of(&server).await;
    let (ada, liked) = (user(7), item(shop::item_where(7, true)));
    let before = client.audience(&liked).await;
    client.decide(&ada, MARKETING, false).await;
    let rest: Vec<String> = before.iter().filter(|&one| *one != ada).cloned().collect();
    assert_eq!(client.audience(&liked).await, rest);
    assert_eq!(rest.len() + 1, before.len());
    assert!(!client.is_popularity(&ada).await);
    assert!(!client.similar_users(&ada).await.is_empty());
}

#[tokio::test]
async fn a_user_who_refuses_training_is_absent_from_the_next_snapshot() {
    let database = shop::open().await;
    let (ada, bob) = (user(7), user(11));
    let neighbor = {
        let server = Server::start(&database);
        let client = ConsentClient::of(&server).await;
        let neighbor = client.similar_users(&ada).await.swap_remove(0);
        client.decide(&ada, TRAINING, false).await;
        client.decide(&bob, PROFILING, false).await;
        // The refusal concerns the next snapshot, not this one.
        assert!(client.similar_users(&neighbor).await.contains(&ada));
        neighbor
    };
    shop::train(database.url());
    assert_eq!(users_in_snapshot(&database).await, shop::USERS as i64 - 1);

    let server = Server::start(&database);
    let client = ConsentClient::of(&server).await;
    client.shop.wait_until_serves(2).await;
    // The snapshot has no history and no neighbors of ada, ada is nobody's neighbor, and the items that she has rated have
    // one rater less.
    assert!(client.is_popularity(&ada).await);
    assert_eq!(client.similar_users(&ada).await, [""; 0]);
    assert!(!client.similar_users(&neighbor).await.contains(&ada));
    let popular = client.shop.ranked("stranger").await.items;
    for one in &popular {
        let number = (0..ITEMS).find(|&number| item(number) == one.item_id).unwrap();
        let raters = (0..shop::USERS).filter(|&user| user != 7 && rating(user, number).is_some());
        assert_eq!(one.score, raters.count() as f64, "{}", one.item_id);
    }
    // An earlier objection to profiling survives retraining and a restart.
    assert!(client.is_popularity(&bob).await);
    let consents = client.get(&bob).await.unwrap();
    assert_eq!(granted(&consents)[1], (PROFILING, false, true));
    // After the restart it comes from the snapshot, because the feed is pruned.
    let mut connection = database.connect().await;
    execute(&mut connection, "DELETE FROM changes").await;
    let restarted = Server::start(&database);
    let restarted = ConsentClient::of(&restarted).await;
    restarted.shop.wait_until_serves(2).await;
    assert!(restarted.is_popularity(&bob).await);

    client.decide(&ada, TRAINING, true).await;
    shop::train(database.url());
    client.shop.wait_until_serves(3).await;
    assert!(!client.is_popularity(&ada).await);
    assert!(client.is_popularity(&bob).await);
}

#[tokio::test]
async fn without_training_by_default_only_users_who_agree_are_in_the_snapshot() {
    let database = shop::open().await;
    let server = Server::start(&database);
    let client = ConsentClient::of(&server).await;
    for number in 0..40 {
        client.decide(&user(number), TRAINING, number != 3).await;
    }
    let args = [
        "train",
        "--set-config=gate.min_users=1000000",
        "--set-config=privacy.training_without_record=false",
        "--force=silence forbids it",
    ];
    let (code, output, error) = run(&database, &args);
    assert_eq!(code, 0, "{output}\n{error}");
    assert_eq!(users_in_snapshot(&database).await, 39);
}

#[tokio::test]
async fn a_suppressed_user_is_in_no_audience_despite_consent() {
    let database = shop::open().await;
    let server = Server::with(&database, &[("live.refresh_interval_ms", "200")]);
    let client = ConsentClient::of(&server).await;
    let (ada, liked) = (user(7), item(shop::item_where(7, true)));
    client.decide(&ada, MARKETING, true).await;
    assert!(client.audience(&liked).await.contains(&ada));
    let file = scratch();
    let path = file.path().join("suppressed.csv");
    std::fs::write(&path, format!("user_id,reason\n{ada},asked by letter\nnewcomer,\n")).unwrap();
    succeed(&database, &["import", "suppressions", path.to_str().unwrap()]);
    let look = async || client.audience(&liked).await;
    soon("the user has left the audience", look, |audience| {
        !audience.contains(&ada)
    })
    .await;
    let consents = client.get(&ada).await.unwrap();
    assert_eq!(granted(&consents)[0], (MARKETING, true, true));
    // The suppression has no other effect, and holds with the next snapshot.
    assert!(!client.is_popularity(&ada).await);
    shop::train(database.url());
    client.shop.wait_until_serves(2).await;
    assert!(!client.audience(&liked).await.contains(&ada));
    assert!(!client.is_popularity(&ada).await);
    let reasons = "suppressions WHERE reason IN ('asked by letter', '')";
    assert_eq!(count(&mut database.connect().await, reasons).await, 2);
}
