//! Shops in which personal ranking does not pay yet, or whose data say little, get a snapshot all the same.

use std::path::Path;

use likemind::grpc::proto::v1::recommendation_service_client::RecommendationServiceClient;
use likemind::grpc::proto::v1::{
    Basis, Personalization, RecommendRequest, RecommendResponse, recommend_request::Subject,
};
use serde_json::Value;
use tonic::{Code, Status};

use crate::support::answers::assert_status;
use crate::support::databases::FEWER_USERS;
use crate::support::postgres::{TestDatabase, execute, scratch};
use crate::support::program::{Server, run, succeed};
use crate::support::waiting::soon;

fn import_text(database: &TestDatabase, what: &str, text: &str, args: &[&str]) {
    let folder = scratch();
    let file = folder.path().join("file.csv");
    std::fs::write(&file, text).unwrap();
    import(database, what, &file, args);
}

fn import(database: &TestDatabase, what: &str, file: &Path, args: &[&str]) {
    let folder = scratch();
    let rejects = folder.path().join("rejects.csv");
    let fixed = [
        "import",
        what,
        file.to_str().unwrap(),
        "--rejects",
        rejects.to_str().unwrap(),
    ];
    succeed(database, &[&fixed[..], args].concat());
}

/// Returns a number below 2³¹ that is the same in every run.
fn hash(user: u32, nth: u32) -> u64 {
    let mut bits = u64::from(user) << 32 | u64::from(nth);
    for multiplier in [0xbf58_476d_1ce4_e5b9_u64, 0x94d0_49bb_1331_11eb] {
        bits = (bits ^ bits >> 29)
            .wrapping_add(0x9e37_79b9_7f4a_7c15)
            .wrapping_mul(multiplier);
    }
    bits >> 33
}

/// 600 users with 10 purchases each, on ten days, independent of one another; some items are bought more often than others.
fn random_purchases() -> String {
    let mut lines = "order_id,user_id,item_id,quantity,line_total,purchased_at,currency\n".to_owned();
    for user in 0..600 {
        for nth in 0..10 {
            let share = hash(user, nth) as f64 / (1_u64 << 31) as f64;
            let item = (share * share * 300.0) as u32;
            lines += &format!("o{user}-{nth},u{user},i{item},1,2.00,2024-01-{:02},USD\n", 1 + nth);
        }
    }
    lines
}

/// A grocer's 700 members with some five baskets each of one to five items, on days of two years and without amounts. Few items
/// are in most baskets, and members hardly differ in what they like.
fn groceries() -> String {
    let mut lines = "member,date,item,quantity,line_total,currency\n".to_owned();
    for member in 0..700 {
        for basket in 0..2 + hash(member, 1_000) as u32 % 7 {
            let draw = |nth: u32| hash(member, 2_000 + 10 * basket + nth);
            let day = chrono::NaiveDate::from_ymd_opt(2014, 1, 1).unwrap() + chrono::Days::new(draw(0) % 730);
            for nth in 1..=1 + draw(9) as u32 % 5 {
                let share = draw(nth) as f64 / (1_u64 << 31) as f64;
                let item = (share.powi(3) * 167.0) as u32;
                lines += &format!("{member},{day},item {item},1,0,USD\n");
            }
        }
    }
    lines
}

async fn recommend(server: &Server, user: &str, basis: Basis) -> Result<RecommendResponse, Status> {
    let request = RecommendRequest {
        subject: Some(Subject::UserId(user.to_owned())),
        basis: basis.into(),
        limit: 10,
        ..RecommendRequest::default()
    };
    let mut client = RecommendationServiceClient::new(server.channel().await);
    client.recommend(request).await.map(|answer| answer.into_inner())
}

/// Asserts that recommendations without a basis are by popularity, and those with one are personal.
async fn assert_served_by_popularity(database: &TestDatabase, user: &str) {
    let server = Server::start(database);
    for (basis, expected) in [
        (Basis::Unspecified, Personalization::Popularity),
        (Basis::Blended, Personalization::Personalized),
        (Basis::ItemBased, Personalization::Personalized),
        (Basis::UserBased, Personalization::Personalized),
    ] {
        let answer = recommend(&server, user, basis).await.unwrap();
        assert_eq!(answer.personalization(), expected, "{basis:?}: {answer:?}");
        assert!(!answer.items.is_empty(), "{basis:?}");
    }
}

/// Creates the active campaign k, for everybody, and its coupon c for `item`.
async fn offer(database: &TestDatabase, item: &str) {
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        &format!(
            "INSERT INTO campaigns (id, external_id, currency_code, audience, holdout_salt)
             VALUES (1000001, 'k', 'USD', 'all', '\\x00112233445566778899aabbccddeeff');
             INSERT INTO campaign_states (campaign_id, state, starts_at, ends_at)
             VALUES (1000001, 'active', now() - interval '1 day', now() + interval '1 day');
             INSERT INTO coupons (id, external_id, campaign_id, discount, amount_minor, reservation_ttl_seconds)
             VALUES (1000001, 'c', 1000001, 'amount', 100, 900);
             INSERT INTO coupon_items SELECT 1000001, id FROM items WHERE external_id = '{item}';
             INSERT INTO coupon_counters (coupon_id) VALUES (1000001);
             UPDATE coupon_book SET revision = revision + 1"
        ),
    )
    .await;
}

#[tokio::test]
async fn random_purchases_are_served_by_popularity_and_it_is_said_why() {
    let database = TestDatabase::create().await;
    import_text(&database, "purchases", &random_purchases(), &[]);
    let text = succeed(&database, &["train"]);
    assert!(text.contains("snapshot 1: PASSED, active"), "{text}");
    let said = "personal ranking does not pay yet: NDCG@10 on new items is 0.";
    let shown = succeed(&database, &["snapshots", "show", "1"]);
    let evaluated = succeed(&database, &["evaluate"]);
    for text in [&text, &shown, &evaluated] {
        assert!(text.contains(said), "{text}");
        assert!(
            text.contains("blend weights of the item-based side: ranking "),
            "{text}"
        );
    }

    let figures: Value = serde_json::from_str(&succeed(&database, &["evaluate", "--json"])).unwrap();
    assert_eq!(figures["choice"]["ranker"], "popularity");
    let ndcg = |ranker: &str| {
        let mut figures = figures["choice"]["figures"].as_array().unwrap().iter();
        let found = figures.find(|figure| figure["ranker"] == ranker);
        found.unwrap()["ndcg_at_10"].as_f64().unwrap()
    };
    assert!(ndcg("popularity") > ndcg("blended"), "{figures:#}");

    assert_served_by_popularity(&database, "u7").await;
    // There is no past campaign to fit a propensity on, and the refusal says so.
    offer(&database, "i0").await;
    let (code, _, error) = run(&database, &["targets", "c", "--by", "propensity"]);
    assert_eq!(code, 3, "{error}");
    assert!(error.contains("0 redemptions of 0 past campaigns"), "{error}");
    let (code, output, error) = run(&database, &["targets", "c", "--by", "affinity", "--limit", "5"]);
    assert_eq!(code, 0, "{error}");
    assert!(output.contains('u'), "{output}");

    // The second run chooses the same and passes the gate.
    let text = succeed(&database, &["train"]);
    assert!(text.contains("snapshot 2: PASSED, active"), "{text}");
}

#[tokio::test]
async fn purchases_that_are_no_ratings_are_refused_in_words_and_every_figure_is_one() {
    let database = TestDatabase::create().await;
    import_text(&database, "purchases", &random_purchases(), &[]);
    let without_ratings = ["train", "--set-config=training.implicit=off"];
    let (code, output, error) = run(&database, &without_ratings);
    assert_eq!(code, 3, "{error}");
    let missing = "and 0 ratings, and each must be 1 or more: import ratings, or purchases that were not all returned, which \
                   count as ratings unless training.implicit is off";
    assert!(output.contains(missing), "{output}");
    assert!(error.contains("nothing to recommend by"), "{error}");
    // Figures that are no numbers could be stored, but not be read again.
    for args in [&["snapshots", "list"][..], &["snapshots", "show", "1"], &["bias", "1"]] {
        succeed(&database, args);
    }
    let (code, output, _) = run(&database, &without_ratings);
    assert_eq!(code, 3);
    assert!(output.contains("snapshot 2: REJECTED"), "{output}");
}

#[tokio::test]
async fn a_groceries_like_shop_is_trained_and_served() {
    let database = TestDatabase::create().await;
    let columns = ["--map=order_id={member} {date},user_id=member,item_id=item,purchased_at=date"];
    import_text(&database, "purchases", &groceries(), &columns);
    let trained = succeed(&database, &["train"]);
    assert!(trained.contains("snapshot 1: PASSED, active"), "{trained}");
    let is_popular = trained.contains("personal ranking does not pay yet");

    let server = Server::start(&database);
    for (user, is_known) in [("7", true), ("a stranger", false)] {
        let answer = recommend(&server, user, Basis::Unspecified).await.unwrap();
        assert_eq!(answer.items.len(), 10, "{user}");
        let expected = match is_known && !is_popular {
            true => Personalization::Personalized,
            false => Personalization::Popularity,
        };
        assert_eq!(answer.personalization(), expected, "{user}: {trained}");
    }
    let text = succeed(&database, &["train"]);
    assert!(text.contains("snapshot 2: PASSED, active"), "{text}");
}

#[tokio::test]
async fn the_complete_journey_alone_is_served_with_its_propensity() {
    let database = TestDatabase::create().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/complete_journey");
    for (what, file, args) in [
        (
            "purchases",
            "transactions.csv.zst",
            &[
                "--map=order_id=basket_id,user_id=household_id,item_id=product_id,line_total=sales_value,\
                 coupon_discount=coupon_disc,purchased_at=transaction_timestamp",
                "--set=currency=USD",
            ][..],
        ),
        (
            "campaigns",
            "campaign_descriptions.csv.zst",
            &[
                "--map=starts_at=start_date,ends_on=end_date",
                "--set=currency=USD,audience=assigned,state=ended",
            ][..],
        ),
        (
            "coupons",
            "coupons.csv.zst",
            &[
                "--map=coupon_id={campaign_id}:{coupon_upc}",
                "--set=amount=1.00,currency=USD",
            ][..],
        ),
        (
            "coupon-items",
            "coupons.csv.zst",
            &["--map=coupon_id={campaign_id}:{coupon_upc},item_id=product_id"][..],
        ),
        ("assignments", "campaigns.csv.zst", &["--map=user_id=household_id"][..]),
        (
            "redemptions",
            "coupon_redemptions.csv.zst",
            &["--map=coupon_id={campaign_id}:{coupon_upc},user_id=household_id,redeemed_at=redemption_date"][..],
        ),
    ] {
        import(&database, what, &folder.join(file), args);
    }
    let trained = succeed(&database, &["train", FEWER_USERS]);
    assert!(trained.contains("snapshot 1: PASSED, active"), "{trained}");

    let server = Server::start(&database);
    let answer = recommend(&server, "1", Basis::Unspecified).await.unwrap();
    assert_eq!(answer.items.len(), 10);
    let is_popular = trained.contains("personal ranking does not pay yet");
    assert_eq!(
        answer.personalization() == Personalization::Popularity,
        is_popular,
        "{trained}"
    );
    let personal = recommend(&server, "1", Basis::Blended).await.unwrap();
    assert_eq!(personal.personalization(), Personalization::Personalized);

    offer(&database, "1082185").await;
    let (code, output, error) = run(&database, &["targets", "c", "--by", "propensity", "--limit", "5"]);
    assert_eq!(code, 0, "{error}");
    assert!(output.lines().count() >= 5, "{output}");
}

#[tokio::test]
async fn ratings_without_times_are_evaluated_on_a_random_split() {
    let database = TestDatabase::create().await;
    let mut lines = "user_id,item_id,value\n".to_owned();
    for user in 0..200 {
        for nth in 0..10 {
            lines += &format!("u{user},i{},{}\n", 4 * nth + user % 4, 1 + hash(user, nth) % 5);
        }
    }
    import_text(&database, "ratings", &lines, &[]);
    let evaluate = || -> Value { serde_json::from_str(&succeed(&database, &["evaluate", "--json"])).unwrap() };
    let figures = evaluate();
    let users = |row: &Value| row["users"].as_u64().unwrap();
    let rows = figures["ranking"].as_array().unwrap();
    assert!(
        !rows.is_empty() && rows.iter().all(|row| users(row) > 120),
        "{figures:#}"
    );
    assert_eq!(evaluate(), figures);
    let text = succeed(&database, &["train"]);
    assert!(text.contains("snapshot 1: PASSED, active"), "{text}");
}

#[tokio::test]
async fn whoever_asks_without_a_snapshot_is_told_what_is_missing() {
    let database = TestDatabase::create().await;
    let server = Server::start(&database);
    let refused = recommend(&server, "u", Basis::Unspecified).await.unwrap_err();
    assert_status(&refused, Code::FailedPrecondition, "NO_SNAPSHOT");
    assert_eq!(refused.message(), "no snapshot is active yet; run `likemind train`");

    let (code, output, error) = run(&database, &["train"]);
    assert_eq!(code, 3, "{error}");
    assert!(output.contains("snapshot 1: REJECTED"), "{output}");
    for part in [
        "nothing to recommend by: train again when ratings or purchases are imported",
        "--force REASON",
        "`likemind snapshots activate 1 --reason REASON`",
    ] {
        assert!(error.contains(part), "{error}");
    }
    drop(server);
    let server = Server::start(&database);
    let advice = "the gate rejected snapshot 1, and `likemind snapshots show 1` says why; import ratings or \
                  purchases and run `likemind train` again, or activate it with \
                  `likemind snapshots activate 1 --reason REASON`, or train with `likemind train --force REASON`";
    let refused = soon(
        "the server has looked for a snapshot",
        async || recommend(&server, "u", Basis::Unspecified).await.unwrap_err(),
        |refused| !refused.message().starts_with("no snapshot is active yet"),
    )
    .await;
    assert_status(&refused, Code::FailedPrecondition, "NO_SNAPSHOT");
    assert!(refused.message().contains(advice), "{refused:?}");

    succeed(
        &database,
        &["snapshots", "activate", "1", "--reason", "nothing is sold yet"],
    );
    let server = Server::start(&database);
    assert!(recommend(&server, "u", Basis::Unspecified).await.is_ok());
}
