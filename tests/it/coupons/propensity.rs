//! Propensities: fitted on past campaigns, evaluated, and stored in snapshots.

use serde_json::Value;

use crate::support::postgres::{TestDatabase, scratch};
use crate::support::program::{run, succeed};

const USERS: u32 = 30;
const CAMPAIGNS: [(&str, &str, &str); 3] = [
    ("k0", "2024-02-01", "2024-02-10"),
    ("k1", "2024-02-20", "2024-02-29"),
    ("k2", "2024-03-10", "2024-03-19"),
];

/// Whether a user redeems a coupon of every campaign the day after it starts. Every third user does, who also buys with
/// coupons, and user 1.
fn redeems(user: u32) -> bool {
    user.is_multiple_of(3) || user == 1
}

/// Creates a database with thirty users and their past. The last ten users are not assigned to k2: five of them were offered
/// it nevertheless, five are held out. Of k2 one redemption was rolled back, and another in part. One user has refused
/// training.
async fn past() -> TestDatabase {
    let (folder, database) = (scratch(), TestDatabase::create().await);
    let import = |what: &str, text: &str, args: &[&str]| {
        let file = folder.path().join("file.csv");
        std::fs::write(&file, text).unwrap();
        let mut all = vec!["import", what, file.to_str().unwrap(), "--json"];
        all.extend(args);
        let summary: Value = serde_json::from_str(&succeed(&database, &all)).unwrap();
        assert_eq!(summary["rejected"], 0, "{what}: {summary}");
    };
    let mut purchases =
        "order_id,user_id,item_id,quantity,line_total,coupon_discount,purchased_at,currency\n".to_owned();
    for user in 0..USERS {
        for week in 0..12 {
            let (item, day) = ((user + week * (1 + user % 2)) % 5, 1 + week * 7);
            let date = chrono::NaiveDate::from_yo_opt(2024, day).unwrap();
            let discount = if user % 3 == 0 { "0.50" } else { "0" };
            purchases += &format!("{user}-{week},u{user},i{item},1,2.00,{discount},{date},USD\n");
        }
    }
    import("purchases", &purchases, &[]);
    let (mut campaigns, mut coupons) = (
        "campaign_id,starts_at,ends_on\n".to_owned(),
        "campaign_id,coupon_id\n".to_owned(),
    );
    let (mut items, mut assignments) = ("coupon_id,item_id\n".to_owned(), "campaign_id,user_id\n".to_owned());
    let mut redemptions = "coupon_id,user_id,redeemed_at\n".to_owned();
    for (campaign, start, end) in CAMPAIGNS {
        campaigns += &format!("{campaign},{start},{end}\n");
        coupons += &format!("{campaign},{campaign}c\n");
        items += &format!("{campaign}c,i1\n{campaign}c,i2\n");
        for user in 0..USERS {
            if campaign != "k2" || user < 20 {
                assignments += &format!("{campaign},u{user}\n");
            }
            if redeems(user) && (campaign != "k2" || user < 25) {
                let day = start.parse::<chrono::NaiveDate>().unwrap() + chrono::Days::new(1);
                redemptions += &format!("{campaign}c,u{user},{day}\n");
            }
        }
    }
    import("campaigns", &campaigns, &["--set", "currency=USD,audience=assigned"]);
    import("coupons", &coupons, &["--set", "amount=1.00,currency=USD"]);
    import("coupon-items", &items, &[]);
    import("assignments", &assignments, &[]);
    import("redemptions", &redemptions, &["--set", "amount_minor=100"]);
    import(
        "consents",
        "user_id,purpose,granted,decided_at\nu9,training,false,2024-01-01\n",
        &[],
    );

    let mut connection = database.connect().await;
    let exposed = "INSERT INTO exposures (coupon_id, user_id, campaign_id, is_held_out, snapshot_version)
                   SELECT coupons.id, users.id, campaign_id, users.external_id IN ('u25', 'u26', 'u27', 'u28', 'u29'), 1
                   FROM coupons, users
                   WHERE coupons.external_id = 'k2c'
                     AND users.external_id IN ('u19', 'u20', 'u21', 'u22', 'u23', 'u24', 'u25', 'u26', 'u27', 'u28', 'u29')";
    let given_back = "UPDATE redemptions SET rolled_back_minor = CASE users.external_id WHEN 'u3' THEN 100 ELSE 40 END
                      FROM users, coupons
                      WHERE users.id = user_id AND coupons.id = coupon_id AND coupons.external_id = 'k2c'
                        AND users.external_id IN ('u3', 'u6')";
    for statement in [exposed, given_back] {
        sqlx::query(statement).execute(&mut connection).await.unwrap();
    }
    database
}

#[tokio::test]
async fn each_past_campaign_is_predicted_from_the_campaigns_before_it() {
    let database = past().await;
    let evaluate = ["evaluate", "coupons", "--set-config=coupons.min_redemptions=10"];
    let json = succeed(&database, &[&evaluate[..], &["--json"]].concat());
    let figures: Value = serde_json::from_str(&json).unwrap();
    let campaigns = figures["propensity"]["campaigns"].as_array().unwrap();
    let count = |campaign: usize, key: &str| campaigns[campaign][key].as_u64().unwrap();
    assert_eq!(campaigns.len(), 2, "{json}");
    assert_eq!(
        (
            campaigns[0]["campaign_id"].as_str(),
            campaigns[1]["campaign_id"].as_str()
        ),
        (Some("k1"), Some("k2"))
    );
    // All users but u9 are recipients; eleven of thirty redeem.
    assert_eq!((count(0, "recipients"), count(0, "observed")), (29, 10));
    // The recipients are 20 assigned and 5 offered users, without u9. The redeemers are 0, 1, 6, 12, 15, 18, 21 and 24, but
    // not 3, whose redemption was rolled back.
    assert_eq!((count(1, "recipients"), count(1, "observed")), (24, 8));
    assert_eq!(campaigns[1]["evidence"]["redemptions"], 20);
    let refused = &figures["left_out"][0];
    assert_eq!(refused["campaign_id"], "k0");
    let reason = refused["because"]["propensity_refused"]["reason"].as_str().unwrap();
    assert_eq!(
        reason,
        "0 redemptions of 0 past campaigns can be used, at least 10 are needed (coupons.min_redemptions); a campaign can be used if recipients had purchased long enough before it"
    );
    let ranker = |name: &str| {
        let rankers = figures["rankers"].as_array().unwrap();
        let row = rankers.iter().find(|row| row["ranker"] == name).unwrap();
        row["roc_auc"].as_f64().unwrap()
    };
    assert!(ranker("propensity") > 0.8 && ranker("discounted_lines") > 0.8, "{json}");

    let text = succeed(&database, &evaluate);
    for part in [
        "affinity (item-based)",
        "the propensity cannot be fitted: 0 redemptions",
        "Reliability",
        "k2",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let since = succeed(
        &database,
        &[&evaluate[..], &["--from=2024-03-01", "--min-redeemers=9"]].concat(),
    );
    assert!(
        since.contains("k2 (2024-03-10): only 8 of 24 recipients redeemed"),
        "{since}"
    );
    assert!(!since.contains("k1"), "{since}");
}

#[tokio::test]
async fn a_snapshot_stores_the_quality_of_its_propensity_or_why_there_is_none() {
    let database = past().await;
    succeed(&database, &["train", "--set-config=coupons.min_redemptions=10"]);
    let shown: Value = serde_json::from_str(&succeed(&database, &["snapshots", "show", "1", "--json"])).unwrap();
    let quality = &shown["evaluation"]["propensity"];
    assert_eq!(quality["campaigns"].as_array().unwrap().len(), 2, "{shown}");
    assert!(quality["brier"].as_f64().unwrap() > 0.0 && quality["reliability"].as_array().unwrap().len() == 5);
    assert!(succeed(&database, &["snapshots", "show", "1"]).contains("Propensity: ROC-AUC"));

    succeed(&database, &["train", "--set-config=coupons.min_redemptions=1000"]);
    let shown: Value = serde_json::from_str(&succeed(&database, &["snapshots", "show", "2", "--json"])).unwrap();
    assert_eq!(shown["evaluation"]["propensity"], Value::Null);
    let (code, _, stderr) = run(&database, &["targets", "k2c", "--by", "propensity"]);
    assert_eq!(code, 3, "{stderr}");
    assert!(
        stderr.contains("28 redemptions of 3 past campaigns can be used, at least 1000 are needed"),
        "{stderr}"
    );
}
