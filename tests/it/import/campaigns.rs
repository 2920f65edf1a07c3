//! Imports of campaigns, coupons, assignments, attributes, consents, suppressions and redemptions, by the command.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::support::postgres::{TestDatabase, scratch};
use crate::support::program::{run, succeed};

const CAMPAIGNS: &str = "campaign_id,name,starts_at,ends_on,currency,audience,budget\n\
                         k,Tea,2024-01-01,2024-01-31,USD,assigned,5\n\
                         l,Mugs,2024-02-01,2099-02-28,USD,,\n";
const COUPONS: &str = "coupon_id,campaign_id,amount,currency,per_user_cap,total_cap\n\
                       k1,k,1.50,USD,,2\n\
                       k2,k,2,USD,1,\n\
                       l1,l,0.99,USD,,\n";

struct Files {
    folder: tempfile::TempDir,
    database: TestDatabase,
}

impl Files {
    async fn new() -> Self {
        Self {
            folder: scratch(),
            database: TestDatabase::create().await,
        }
    }

    /// Imports both campaigns and their coupons.
    async fn with_coupons() -> Self {
        let files = Self::new().await;
        files.import("campaigns", CAMPAIGNS, &[]);
        files.import("coupons", COUPONS, &[]);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Imports `text` as a file of `what`. Returns the summary, and the rejects as line, field and reason.
    fn import(&self, what: &str, text: &str, args: &[&str]) -> (Value, Vec<[String; 3]>) {
        let file = self.path("file.csv");
        std::fs::write(&file, text).unwrap();
        let path = self.path("file.csv.rejects.csv");
        let mut all = vec!["import", what, file.to_str().unwrap(), "--json", "--max-reject-share=1"];
        all.extend(["--rejects", path.to_str().unwrap()]);
        all.extend(args);
        let (code, output, errors) = run(&self.database, &all);
        // 6 where no line was accepted.
        assert!([0, 6].contains(&code), "{output}{errors}");
        let summary: Value = serde_json::from_str(&output).unwrap();
        let count = |key: &str| summary[key].as_u64().unwrap();
        assert_eq!(
            count("read"),
            count("stored") + count("merged") + count("rejected"),
            "{summary}"
        );
        let rejects = rejects(&path);
        assert_eq!(rejects.len() as u64, count("rejected"), "{summary}");
        (summary, rejects)
    }

    /// Imports `text` and asserts how many lines are stored, merged and rejected, and the rejects.
    #[track_caller]
    fn check(&self, what: &str, text: &str, counts: [u64; 3], rejected: &[[&str; 3]]) {
        let (summary, rejects) = self.import(what, text, &[]);
        let found = ["stored", "merged", "rejected"].map(|key| summary[key].as_u64().unwrap());
        assert_eq!(found, counts, "{what}: {rejects:?}");
        let rejected: Vec<[String; 3]> = rejected.iter().map(|reject| reject.map(str::to_owned)).collect();
        assert_eq!(rejects, rejected, "{what}");
    }

    async fn number(&self, query: &'static str) -> i64 {
        number(&mut self.database.connect().await, query).await
    }
}

async fn number(connection: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(connection).await.unwrap()
}

fn rejects(path: &Path) -> Vec<[String; 3]> {
    let Ok(mut reader) = csv::Reader::from_path(path) else {
        return Vec::new();
    };
    let records = reader.records().map(Result::unwrap);
    records
        .map(|record| [&record[0], &record[1], &record[2]].map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn campaigns_are_stored_and_changed_but_not_their_currency_or_arms() {
    let files = Files::new().await;
    files.check("campaigns", CAMPAIGNS, [2, 0, 0], &[]);
    files.check("campaigns", CAMPAIGNS, [0, 2, 0], &[]);
    let mut connection = files.database.connect().await;
    let state = |id: &'static str| {
        let query =
            "SELECT jsonb_build_object('state', state, 'ends', ends_at, 'limit', limit_minor, 'audience', audience)
                     FROM campaigns JOIN campaign_states ON campaign_id = id WHERE external_id = $1";
        sqlx::query_scalar::<_, Value>(query).bind(id)
    };
    let over = state("k").fetch_one(&mut connection).await.unwrap();
    assert_eq!(over["state"], "ended", "its window is over");
    // The window includes its last day.
    assert!(
        over["ends"].as_str().unwrap().starts_with("2024-02-01T00:00:00"),
        "{over}"
    );
    assert_eq!((&over["limit"], &over["audience"]), (&json!(500), &json!("assigned")));
    assert_eq!(state("l").fetch_one(&mut connection).await.unwrap()["state"], "draft");

    let changed = "campaign_id,name,starts_at,ends_at,currency,state\n\
                   l,Cups,2024-02-01,2099-03-01,USD,active\n\
                   k,,2024-01-01,2024-02-01,EUR,\n\
                   m,,2024-01-01,2023-01-01,USD,\n\
                   n,,2024-01-01,2025-01-01,USD,begun\n\
                   ,,2024-01-01,2025-01-01,USD,\n";
    let rejected = [
        ["3", "currency", "CURRENCY_CANNOT_CHANGE"],
        ["4", "ends_at", "WINDOW_EMPTY"],
        ["5", "state", "UNKNOWN_STATE"],
        ["6", "campaign_id", "MISSING"],
    ];
    files.check("campaigns", changed, [1, 0, 4], &rejected);
    assert_eq!(state("l").fetch_one(&mut connection).await.unwrap()["state"], "active");

    // The arms must not change once somebody may have been offered a coupon.
    let rearranged = "campaign_id,starts_at,ends_at,currency,audience,holdout_basis_points\n\
                      k,2024-01-01,2024-02-01,USD,all,\n\
                      k,2024-01-01,2024-02-01,USD,assigned,500\n\
                      k,2024-01-01,2024-02-01,USD,assigned,0\n";
    let rejected = [
        ["2", "audience", "CAMPAIGN_NOT_DRAFT"],
        ["3", "holdout_basis_points", "CAMPAIGN_NOT_DRAFT"],
    ];
    files.check("campaigns", rearranged, [0, 1, 2], &rejected);
}

#[tokio::test]
async fn coupons_and_their_items_are_stored_and_bad_ones_rejected() {
    let files = Files::new().await;
    files.import("campaigns", CAMPAIGNS, &[]);
    let before = files.number("SELECT revision FROM coupon_book").await;
    files.check("coupons", COUPONS, [3, 0, 0], &[]);
    files.check("coupons", COUPONS, [0, 3, 0], &[]);
    assert!(
        files.number("SELECT revision FROM coupon_book").await > before,
        "servers are told"
    );
    assert_eq!(
        files
            .number("SELECT amount_minor FROM coupons WHERE external_id = 'k1'")
            .await,
        150
    );
    let others = "coupon_id,campaign_id,percent,currency,covers,total_cap\n\
                  p1,nobody,10,USD,,\n\
                  p2,l,0,USD,,\n\
                  p3,l,12.5,EUR,,\n\
                  k1,l,12.5,USD,,\n\
                  p4,l,12.5,USD,all,\n\
                  p4,l,12.5,USD,all,7\n\
                  p5,l,100.01,USD,some,\n";
    let rejected = [
        ["2", "campaign_id", "CAMPAIGN_NOT_FOUND"],
        ["3", "percent", "OUT_OF_RANGE"],
        ["4", "currency", "CURRENCY_MISMATCH"],
        ["5", "campaign_id", "CAMPAIGN_CANNOT_CHANGE"],
        ["8", "percent", "OUT_OF_RANGE"],
    ];
    files.check("coupons", others, [1, 1, 5], &rejected);
    assert_eq!(
        files
            .number("SELECT total_cap FROM coupon_counters JOIN coupons ON id = coupon_id WHERE external_id = 'p4'")
            .await,
        7
    );

    let bases = "coupon_id,campaign_id,percent,currency,min_cart_minor,min_cart_basis\n\
                 b1,l,10,USD,500,after_discounts\n\
                 b2,l,10,USD,500,\n\
                 b3,l,10,USD,500,sometimes\n";
    let rejected = [["4", "min_cart_basis", "UNKNOWN_MIN_CART_BASIS"]];
    files.check("coupons", bases, [2, 0, 1], &rejected);
    // An empty cell keeps what is stored.
    let again = "coupon_id,campaign_id,percent,currency,min_cart_basis\nb1,l,10,USD,\nb2,l,10,USD,before_discounts\n";
    files.check("coupons", again, [0, 2, 0], &[]);
    let after = "SELECT count(*) FROM coupons WHERE min_cart_basis = 'after_discounts' AND external_id = 'b1'";
    assert_eq!(files.number(after).await, 1);
    let after = "SELECT count(*) FROM coupons WHERE min_cart_basis = 'after_discounts'";
    assert_eq!(files.number(after).await, 1);

    let items = "coupon_id,item_id\nk1,green\nk1,black\nnone,black\nk1,green\nl1,green\n";
    files.check(
        "coupon-items",
        items,
        [3, 1, 1],
        &[["4", "coupon_id", "COUPON_NOT_FOUND"]],
    );
    files.check(
        "coupon-items",
        items,
        [0, 4, 1],
        &[["4", "coupon_id", "COUPON_NOT_FOUND"]],
    );
    assert_eq!(files.number("SELECT count(*) FROM coupon_items").await, 3);
}

#[tokio::test]
async fn assignments_attributes_consents_and_suppressions_are_stored() {
    let files = Files::with_coupons().await;
    let assignments = "campaign_id,user_id\nk,ann\nk,bob\nx,bob\nk,ann\n";
    files.check(
        "assignments",
        assignments,
        [2, 1, 1],
        &[["4", "campaign_id", "CAMPAIGN_NOT_FOUND"]],
    );
    let attributes = "user_id,name,value\nann,age,65+\nann,age,19-24\nann,town,Ely\nbob,town,\n";
    files.check("attributes", attributes, [2, 1, 1], &[["5", "value", "MISSING"]]);
    assert_eq!(
        files
            .number("SELECT count(*) FROM user_attributes WHERE value = '19-24'")
            .await,
        1
    );
    let consents = "user_id,purpose,granted,decided_at\n\
                    ann,marketing,yes,2024-01-01\n\
                    ann,marketing,no,2024-01-02\n\
                    ann,selling,no,2024-01-02\n\
                    bob,profiling,perhaps,2024-01-02\n";
    let rejected = [["4", "purpose", "UNKNOWN_PURPOSE"], ["5", "granted", "INVALID_BOOLEAN"]];
    let (summary, rejects) = files.import("consents", consents, &[]);
    assert_eq!(summary["rejected"], 2, "{rejects:?}");
    assert_eq!(rejects, rejected.map(|reject| reject.map(str::to_owned)));
    let refusals = "SELECT count(*) FROM consents WHERE purpose = 'marketing' AND NOT is_granted";
    assert_eq!(files.number(refusals).await, 1);
    let suppressions = "user_id,reason\nann,asked by phone\ncid,\n";
    files.check("suppressions", suppressions, [2, 0, 0], &[]);
    assert_eq!(files.number("SELECT count(*) FROM suppressions").await, 2);
}

/// Asserts that the counters equal the sums of the ledger.
async fn assert_ledger(files: &Files) {
    let differences = "SELECT count(*) FROM (
            SELECT coupon_id, reserved, redeemed FROM coupon_counters WHERE reserved + redeemed > 0
            EXCEPT SELECT coupon_id, sum(reserved), sum(redeemed) FROM coupon_ledger GROUP BY coupon_id
        ) AS of_coupons";
    assert_eq!(files.number(differences).await, 0);
    let differences = "SELECT count(*) FROM (
            SELECT campaign_id, reserved_minor, spent_minor FROM campaign_states WHERE reserved_minor + spent_minor > 0
            EXCEPT SELECT campaign_id, sum(reserved_minor), sum(spent_minor) FROM coupon_ledger GROUP BY campaign_id
        ) AS of_campaigns";
    assert_eq!(files.number(differences).await, 0);
    let differences = "SELECT count(*) FROM (
            SELECT user_id, coupon_id, reserved, redeemed FROM user_coupon_counters WHERE reserved + redeemed > 0
            EXCEPT SELECT user_id, coupon_id, sum(reserved), sum(redeemed) FROM coupon_ledger GROUP BY user_id, coupon_id
        ) AS of_users";
    assert_eq!(files.number(differences).await, 0);
}

#[tokio::test]
async fn imported_redemptions_count_and_never_exceed_a_limit() {
    let files = Files::with_coupons().await;
    let redemptions = "coupon_id,user_id,redeemed_at,amount_minor\n\
                       k1,ann,2024-01-05,150\n\
                       k1,ann,2024-01-05,150\n\
                       x1,ann,2024-01-05,150\n\
                       k2,ann,2024-01-06,200\n\
                       k2,ann,2024-01-07,200\n\
                       k2,ann,2024-01-08,-1\n\
                       l1,bob,2024-01-08,\n";
    let rejected = [
        ["4", "coupon_id", "COUPON_NOT_FOUND"],
        ["6", "amount_minor", "BUDGET_EXHAUSTED"],
        ["7", "amount_minor", "OUT_OF_RANGE"],
    ];
    files.check("redemptions", redemptions, [3, 1, 3], &rejected);
    assert_ledger(&files).await;
    assert_eq!(
        files
            .number("SELECT spent_minor FROM campaign_states ORDER BY spent_minor DESC LIMIT 1")
            .await,
        350
    );
    files.check("redemptions", redemptions, [0, 4, 3], &rejected);
    let last = "redemption_id,coupon_id,user_id,redeemed_at\nr1,k1,bob,2024-01-05\n";
    files.check("redemptions", last, [1, 0, 0], &[]);
    let more = "redemption_id,coupon_id,user_id,redeemed_at\nr2,k1,cid,2024-01-05\n";
    let too_many = [["2", "coupon_id", "TOTAL_CAP_REACHED"]];
    files.check("redemptions", more, [0, 0, 1], &too_many);
    assert_ledger(&files).await;
    // A cap cannot be lowered below the number of redemptions.
    let lower = "coupon_id,campaign_id,amount,currency,total_cap\nk1,k,1.50,USD,1\n";
    files.check("coupons", lower, [0, 0, 1], &[["2", "total_cap", "LIMIT_BELOW_USE"]]);
}

#[tokio::test]
async fn a_file_without_a_required_column_is_refused_before_it_is_read() {
    let files = Files::new().await;
    let check = |what: &str, header: &str, expected: &str| {
        let file = files.path("header.csv");
        std::fs::write(&file, format!("{header}\n")).unwrap();
        let (code, _, stderr) = run(&files.database, &["import", what, file.to_str().unwrap()]);
        assert_eq!(code, 2, "{what}: {stderr}");
        assert!(stderr.contains(expected), "{what}: {stderr}");
    };
    check(
        "campaigns",
        "campaign_id,starts_at,currency",
        "ends_at or ends_on is missing",
    );
    check(
        "coupons",
        "coupon_id,campaign_id,currency",
        "percent or amount or amount_minor or free_shipping is missing",
    );
    check(
        "coupons",
        "coupon_id,campaign_id,currency,percent,amount",
        "only one of percent, amount can be used",
    );
    check("redemptions", "coupon_id,user_id", "redeemed_at is missing");
}

/// The counts are those of data/README.md.
#[tokio::test]
async fn all_campaigns_of_the_complete_journey_are_imported() {
    let files = Files::new().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/complete_journey");
    let import = |what: &str, file: &str, args: &[&str]| {
        let path = folder.join(file);
        let rejects = files.path("rejects.csv");
        let mut all = vec![
            "import",
            what,
            path.to_str().unwrap(),
            "--json",
            "--rejects",
            rejects.to_str().unwrap(),
        ];
        all.extend(args);
        let summary: Value = serde_json::from_str(&succeed(&files.database, &all)).unwrap();
        ["read", "stored", "rejected"].map(|key| summary[key].as_u64().unwrap())
    };
    let id = "coupon_id={campaign_id}:{coupon_upc}";
    let campaigns = [
        "--map",
        "starts_at=start_date,ends_on=end_date",
        "--set",
        "currency=USD,audience=assigned",
    ];
    assert_eq!(
        import("campaigns", "campaign_descriptions.csv.zst", &campaigns),
        [17, 17, 0]
    );
    let coupons = ["--map", id, "--set", "amount=1.00,currency=USD"];
    assert_eq!(import("coupons", "coupons.csv.zst", &coupons), [66_818, 838, 0]);
    assert_eq!(
        import(
            "coupon-items",
            "coupons.csv.zst",
            &["--map", &format!("{id},item_id=product_id")]
        ),
        [66_818, 66_818, 0]
    );
    assert_eq!(
        import("assignments", "campaigns.csv.zst", &["--map", "user_id=household_id"]),
        [3_927, 3_927, 0]
    );
    let redemptions = [
        "--map",
        &format!("{id},user_id=household_id,redeemed_at=redemption_date"),
    ];
    assert_eq!(
        import("redemptions", "coupon_redemptions.csv.zst", &redemptions),
        [1_009, 1_009, 0]
    );
    let ages = ["--map", "user_id=household_id,value=age", "--set", "name=age"];
    assert_eq!(import("attributes", "demographics.csv.zst", &ages), [801, 801, 0]);
    assert_ledger(&files).await;
}

#[tokio::test]
async fn coupons_that_cover_nothing_and_names_that_match_nothing_are_pointed_out() {
    let files = Files::new().await;
    files.import("campaigns", CAMPAIGNS, &[]);
    files.import("items", "item_id,category\nmug,MUGS\n", &[]);
    let warnings = |summary: &Value| summary["warnings"].clone();
    let coupons =
        "coupon_id,campaign_id,amount,currency,covers\nk1,k,1.50,USD,items\nk2,k,2,USD,all\nk3,k,2,USD,items\n";
    let (summary, _) = files.import("coupons", coupons, &[]);
    assert_eq!(
        warnings(&summary),
        json!(["2 coupons cover no item, so they have no targets: k1, k3"])
    );
    let (summary, _) = files.import("coupons", coupons, &["--dry-run"]);
    assert_eq!(
        warnings(&summary),
        json!([]),
        "nothing is stored that could be compared"
    );

    // The other coupons of the campaign are not the file's business.
    let (summary, _) = files.import("coupon-items", "coupon_id,item_id\nk1,mug\n", &[]);
    assert_eq!(warnings(&summary), json!([]));
    let scope = "UPDATE coupons SET categories = ARRAY['CUPS'] WHERE external_id = 'k1'";
    sqlx::query(scope)
        .execute(&mut files.database.connect().await)
        .await
        .unwrap();
    let one = "coupon_id,campaign_id,amount,currency,covers\nk1,k,1.75,USD,items\nk3,k,2,USD,items\n";
    let (summary, _) = files.import("coupons", one, &[]);
    assert_eq!(
        warnings(&summary),
        json!([
            "coupon k3 covers no item, so it has no targets",
            "coupon k1, coupon.scope.items.categories: no item of the catalog is in the category CUPS"
        ])
    );
    // People read them too.
    let file = files.path("file.csv");
    let printed = succeed(&files.database, &["import", "coupons", file.to_str().unwrap()]);
    assert!(
        printed.contains("warning: coupon k3 covers no item, so it has no targets"),
        "{printed}"
    );
}
