//! GetLiftReport, and the records that it counts.

use likemind::grpc::proto::v1::{
    CampaignSpec, CampaignState, CouponSpec, LiftVerdict, PurchaseLine, RecordPurchasesRequest,
};
use sqlx::AssertSqlSafe;
use tonic::Code;

use crate::support::answers::assert_status;
use crate::support::caller::pounds;
use crate::support::campaigns::{CampaignClient, DAY, a_campaign, a_coupon, a_set, coupon_change, covering};
use crate::support::postgres::{TestDatabase, execute, number};
use crate::support::program::Server;
use crate::support::shop::{self, item, user};
use crate::support::times::at;

/// The shop with users who are exposed to coupons and buy.
struct Trial {
    database: TestDatabase,
    server: Server,
    client: CampaignClient,
}

impl Trial {
    async fn open() -> Self {
        let database = shop::open().await;
        let server = Server::start(&database);
        let client = CampaignClient::of(&server).await;
        Self {
            database,
            server,
            client,
        }
    }

    /// Records exposures: the user, the coupon, the time in seconds, and whether the user is held out.
    async fn expose(&self, exposures: &[(usize, &str, i64, bool)]) {
        let mut connection = self.database.connect().await;
        for (number, coupon, seconds, is_held_out) in exposures {
            execute(
                &mut connection,
                &format!(
                    "INSERT INTO exposures (coupon_id, user_id, campaign_id, is_held_out, snapshot_version, exposed_at)
                     SELECT coupons.id, users.id, campaign_id, {is_held_out}, 1, to_timestamp({})
                     FROM coupons, users WHERE coupons.external_id = '{coupon}' AND users.external_id = '{}'",
                    at(*seconds).unwrap().seconds,
                    user(*number)
                ),
            )
            .await;
        }
    }

    /// Records purchases: order, user, item, quantity, pence and time in seconds. They are in EUR if the order id begins
    /// with EUR, else in GBP.
    async fn buy(&self, purchases: &[(&str, usize, usize, i32, i64, i64)]) {
        let line = |(number, purchase): (usize, &(&str, usize, usize, i32, i64, i64))| {
            let &(order, buyer, bought, quantity, pence, seconds) = purchase;
            let mut total = pounds(pence);
            if order.starts_with("EUR") {
                total.currency_code = "EUR".to_owned();
            }
            PurchaseLine {
                order_id: order.to_owned(),
                line_number: number as i32 + 1,
                user_id: user(buyer),
                item_id: item(bought),
                quantity,
                line_total: Some(total),
                purchased_at: at(seconds),
                coupon_discount_minor: 0,
            }
        };
        let lines = purchases.iter().enumerate().map(line).collect();
        let mut client = self.server.purchases().await;
        client.record_purchases(RecordPurchasesRequest { lines }).await.unwrap();
    }
}

/// Returns a campaign of days 0 to 10 that holds out half of the users.
fn a_trial(id: &str, merchant: Option<&str>) -> CampaignSpec {
    CampaignSpec {
        merchant_id: merchant.map(str::to_owned),
        starts_at: at(0),
        ends_at: at(10 * DAY),
        holdout_basis_points: Some(5_000),
        ..a_campaign(id)
    }
}

/// Creates the campaign k with two coupons. They cover item 0 and all games, the odd items.
async fn create_two_coupons(client: &CampaignClient) {
    client.create(a_trial("k", None), CampaignState::Active).await.unwrap();
    let by_item = CouponSpec {
        scope: covering(a_set(&[&item(0)], &[], &[])),
        ..a_coupon("by item", "k")
    };
    let by_category = CouponSpec {
        scope: covering(a_set(&[], &["games"], &[])),
        ..a_coupon("by category", "k")
    };
    client.create_coupon(by_item).await.unwrap();
    client.create_coupon(by_category).await.unwrap();
}

/// Offers the coupons to users 0 to 3, holds out users 4 to 6, and lets them buy. User 0 is exposed twice, first on day 1,
/// and user 6 in both arms.
async fn expose_and_buy(trial: &Trial) {
    trial
        .expose(&[
            (0, "by category", 3 * DAY, false),
            (0, "by item", DAY, false),
            (1, "by item", 2 * DAY, false),
            (2, "by item", 2 * DAY, false),
            (3, "by item", 2 * DAY, false),
            (4, "by item", 2 * DAY, true),
            (5, "by category", 2 * DAY, true),
            (6, "by item", 2 * DAY, true),
            (6, "by category", 4 * DAY, false),
        ])
        .await;
    trial
        .buy(&[
            // These count: from the first exposure on, items that any of the coupons covers, 1,000 + 500.
            ("a", 0, 0, 1, 1_000, DAY),
            ("b", 0, 3, 1, 500, 9 * DAY),
            // These do not count: too early, not covered, too late.
            ("c", 1, 0, 1, 7_000, 2 * DAY - 1),
            ("d", 1, 2, 1, 7_000, 3 * DAY),
            ("e", 1, 0, 1, 7_000, 10 * DAY),
            // The last second of the window counts, and so does a partial refund: 300 - 100.
            ("f", 2, 1, 3, 300, 10 * DAY - 1),
            ("f", 2, 1, -1, -100, 10 * DAY - 1),
            // A full refund leaves no conversion and no revenue.
            ("g", 3, 1, 1, 800, 3 * DAY),
            ("g", 3, 1, -1, -800, 4 * DAY),
            // So does one under a document of its own, which is no refund of what was bought before the exposure.
            ("C g", 3, 0, -1, -600, 5 * DAY),
            ("j", 3, 3, 2, 400, 5 * DAY),
            ("C j", 3, 3, -2, -400, 6 * DAY),
            // A purchase in another currency is a conversion without revenue.
            ("EUR h", 4, 0, 1, 900, 3 * DAY),
            // User 9 was never exposed.
            ("i", 9, 0, 1, 7_000, 3 * DAY),
        ])
        .await;
}

#[track_caller]
fn assert_near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-4, "{found} is not {expected}");
}

#[tokio::test]
async fn a_lift_report_without_exposures_is_inconclusive_and_an_unknown_campaign_not_found() {
    let trial = Trial::open().await;
    create_two_coupons(&trial.client).await;
    let empty = trial.client.lift("k").await.unwrap();
    assert_eq!(empty.verdict(), LiftVerdict::Inconclusive);
    assert_eq!((empty.sample_ratio, empty.conversion_rate), (None, None));
    assert_eq!((empty.offered.unwrap().users, empty.currency_code.as_str()), (0, "GBP"));
    let status = trial.client.lift("no").await.unwrap_err();
    assert_status(&status, Code::NotFound, "CAMPAIGN_NOT_FOUND");
}

#[tokio::test]
async fn a_lift_report_counts_by_intention_to_treat() {
    let trial = Trial::open().await;
    create_two_coupons(&trial.client).await;
    expose_and_buy(&trial).await;
    let report = trial.client.lift("k").await.unwrap();
    let arms = [report.offered.unwrap(), report.held_out.unwrap()];
    let counted = arms.map(|arm| (arm.users, arm.converters, arm.revenue_minor, arm.conversion_rate));
    assert_eq!(counted, [(4, 2, 1_700, 0.5), (3, 1, 0, 1.0 / 3.0)]);
    // 3 of 7 users are held out where a half is expected: chi-square 1/7.
    let ratio = report.sample_ratio.unwrap();
    assert_near(ratio.expected_held_out_share, 0.5);
    assert_near(ratio.held_out_share, 3.0 / 7.0);
    assert_near(ratio.p_value, 0.705_457);
    assert!(!ratio.mismatch);
    assert_eq!(report.verdict(), LiftVerdict::Inconclusive);
}

#[tokio::test]
async fn lift_intervals_are_newcombes_for_conversion_and_welchs_for_revenue() {
    let trial = Trial::open().await;
    create_two_coupons(&trial.client).await;
    expose_and_buy(&trial).await;
    let report = trial.client.lift("k").await.unwrap();
    let rate = report.conversion_rate.unwrap();
    assert_near(rate.value, 1.0 / 6.0);
    // Newcombe, with Wilson's intervals (0.150039, 0.849961) of 2 in 4 and (0.061490, 0.792340) of 1 in 3.
    let below = (0.349961_f64.powi(2) + 0.459007_f64.powi(2)).sqrt();
    let above = (0.349961_f64.powi(2) + 0.271843_f64.powi(2)).sqrt();
    assert_near(rate.low, 1.0 / 6.0 - below);
    assert_near(rate.high, 1.0 / 6.0 + above);
    // Welch, revenues (1500, 0, 200, 0) against (0, 0, 0): mean 425, variance 522,500, 3 degrees of freedom, t 3.182446.
    let revenue = report.revenue_per_user_minor.unwrap();
    let margin = 3.182_446 * (522_500.0_f64 / 4.0).sqrt();
    assert_near(revenue.value, 425.0);
    assert!((revenue.low - (425.0 - margin)).abs() < 0.01, "{revenue:?}, {margin}");
    assert!((revenue.high - (425.0 + margin)).abs() < 0.01, "{revenue:?}, {margin}");
}

#[tokio::test]
async fn a_lift_report_counts_the_items_that_the_coupons_cover_now() {
    let trial = Trial::open().await;
    create_two_coupons(&trial.client).await;
    expose_and_buy(&trial).await;
    let change = CouponSpec {
        scope: covering(a_set(&[&item(2)], &[], &["m1"])),
        ..coupon_change("by category")
    };
    trial.client.update_coupon(change).await.unwrap();
    let offered = trial.client.lift("k").await.unwrap().offered.unwrap();
    assert_eq!(
        (offered.users, offered.converters, offered.revenue_minor),
        (4, 3, 8_700)
    );
}

#[tokio::test]
async fn the_lift_of_a_merchants_campaign_counts_only_that_merchants_items() {
    let trial = Trial::open().await;
    let client = &trial.client;
    for (id, merchant) in [("of m1", Some("m1")), ("of all", None)] {
        client
            .create(a_trial(id, merchant), CampaignState::Active)
            .await
            .unwrap();
        client.create_coupon(a_coupon(id, id)).await.unwrap();
        trial.expose(&[(0, id, DAY, false), (1, id, DAY, true)]).await;
    }
    trial
        .buy(&[("a", 0, 0, 1, 1_000, 2 * DAY), ("b", 0, 1, 1, 30, 2 * DAY)])
        .await;
    let revenue = async |id: &str| client.lift(id).await.unwrap().offered.unwrap().revenue_minor;
    assert_eq!(revenue("of m1").await, 30);
    assert_eq!(revenue("of all").await, 1_030);
    // A sum beyond 64 bits is capped.
    trial
        .buy(&[("c", 0, 0, 1, i64::MAX, 2 * DAY), ("d", 0, 0, 1, i64::MAX, 2 * DAY)])
        .await;
    assert_eq!(revenue("of all").await, i64::MAX);
    assert_eq!(revenue("of m1").await, 30);
}

#[tokio::test]
async fn rows_of_ledgers_exposures_and_consent_events_cannot_be_changed() {
    let trial = Trial::open().await;
    trial
        .client
        .create(a_trial("k", None), CampaignState::Active)
        .await
        .unwrap();
    trial.client.create_coupon(a_coupon("c", "k")).await.unwrap();
    trial.expose(&[(0, "c", DAY, false)]).await;
    let mut connection = trial.database.connect().await;
    execute(
        &mut connection,
        "INSERT INTO coupon_ledger
             (entry, campaign_id, coupon_id, user_id, reserved_minor, spent_minor, reserved, redeemed)
         VALUES ('import', 1, 1, 1, 0, 5, 0, 1);
         INSERT INTO consent_events (user_id, purpose, is_granted, decided_at) VALUES (1, 'marketing', true, now())",
    )
    .await;
    for (table, column) in [
        ("coupon_ledger", "spent_minor = 0"),
        ("exposures", "is_held_out = true"),
        ("consent_events", "is_granted = false"),
    ] {
        for statement in [
            format!("UPDATE {table} SET {column}"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
        ] {
            let refused = sqlx::query(AssertSqlSafe(statement.clone()))
                .execute(&mut connection)
                .await
                .unwrap_err();
            let expected = format!("rows of {table} are never changed");
            assert!(refused.to_string().contains(&expected), "{statement}: {refused}");
        }
        let rows = number(&mut connection, &format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(rows, 1, "{table}");
    }
}
