//! The bias report of a snapshot, the limits of the gate on it, and what adjusted recommendations cost and bring.

use likemind::grpc::proto::v1::model_service_client::ModelServiceClient;
use likemind::grpc::proto::v1::{GetBiasReportRequest, GetBiasReportResponse, RankerBias};
use serde_json::Value;
use tonic::{Code, Status};

use crate::support::answers::assert_status;
use crate::support::api_keys::{WithKey, create_key};
use crate::support::databases::{self, FEWER_USERS};
use crate::support::postgres::{TestDatabase, execute, scratch};
use crate::support::program::{Server, run, succeed};

const ATTRIBUTES: &str = "--set-config=bias.attributes=half,rare";

/// Online Retail, where every user has one of two halves, and three users have a rare value.
async fn with_attributes() -> TestDatabase {
    let database = databases::online_retail().await;
    execute(
        &mut database.connect().await,
        "INSERT INTO user_attributes
         SELECT id, 'half', CASE id % 2 WHEN 0 THEN 'even' ELSE 'odd' END FROM users
         UNION ALL SELECT id, 'rare', 'yes' FROM (SELECT id FROM users ORDER BY id LIMIT 3) AS few",
    )
    .await;
    database
}

async fn report(server: &Server, key: Option<&str>, version: i64) -> Result<GetBiasReportResponse, Status> {
    let mut client = ModelServiceClient::with_interceptor(server.channel().await, WithKey::new(key));
    Ok(client
        .get_bias_report(GetBiasReportRequest { version })
        .await?
        .into_inner())
}

fn row<'a>(report: &'a GetBiasReportResponse, ranker: &str, top: u32) -> &'a RankerBias {
    let mut rows = report.rankers.iter();
    rows.find(|row| row.ranker == ranker && row.top == top).unwrap()
}

#[tokio::test]
async fn every_snapshot_has_a_bias_report() {
    let database = with_attributes().await;
    succeed(&database, &["train", FEWER_USERS, ATTRIBUTES]);
    let server = Server::start(&database);
    let found = report(&server, None, 0).await.unwrap();
    assert_eq!(found, report(&server, None, 1).await.unwrap());
    assert_eq!(found.snapshot_version, 1);
    let unknown = report(&server, None, 2).await.unwrap_err();
    assert_status(&unknown, Code::NotFound, "SNAPSHOT_NOT_FOUND");

    let (popular, personal) = (row(&found, "popularity", 10), row(&found, "item_based", 10));
    // Everybody is shown the same popular items, and the long tail never.
    assert!(popular.gini > 0.9 && personal.gini < popular.gini, "{personal:?}");
    assert!(personal.coverage > 5.0 * popular.coverage, "{personal:?}");
    assert_eq!(popular.long_tail.as_ref().unwrap().exposure_share, 0.0);
    assert!(personal.long_tail.as_ref().unwrap().exposure_share > 0.0);
    // Niche users get lists far more popular than their history, mainstream users less so.
    let lifts = |bias: &RankerBias| {
        bias.popularity_groups
            .iter()
            .map(|group| group.popularity_lift)
            .collect::<Vec<_>>()
    };
    let [niche, mixed, mainstream] = lifts(popular)[..] else {
        panic!("{popular:?}")
    };
    assert!(niche > mixed && mixed > mainstream && mainstream > 0.0, "{popular:?}");
    assert_eq!(personal.activity_quartiles.len(), 4);

    let [half, rare] = &personal.attributes[..] else {
        panic!("{personal:?}")
    };
    let values: Vec<&str> = half.groups.iter().map(|group| &*group.value).collect();
    assert_eq!(
        (&*half.attribute, values, half.hidden_users),
        ("half", vec!["even", "odd"], 0)
    );
    let ratio = half.ndcg_ratio.as_ref().unwrap();
    assert!(ratio.low <= ratio.ratio && ratio.ratio <= ratio.high, "{ratio:?}");
    // Three users are too few to be shown.
    assert_eq!(
        (rare.groups.len(), rare.hidden_users, rare.ndcg_ratio.is_none()),
        (0, personal.users, true)
    );

    // The command shows the same figures.
    let json: Value = serde_json::from_str(&succeed(&database, &["bias", "--json"])).unwrap();
    assert_eq!(json["chosen_ranker"], found.chosen_ranker);
    let rows = json["rankers"].as_array().unwrap();
    let shown = rows
        .iter()
        .find(|row| row["ranker"] == "item_based" && row["top"] == 10)
        .unwrap();
    assert_eq!(shown["exposure"]["gini"].as_f64().unwrap(), personal.gini);
    let text = succeed(&database, &["bias", "1"]);
    assert!(
        text.contains("niche") && text.contains("NDCG of ") && text.contains("95 % interval"),
        "{text}"
    );
    let (code, _, error) = run(&database, &["bias", "7"]);
    assert!(code == 1 && error.contains("there is no snapshot 7"), "{code} {error}");
}

#[tokio::test]
async fn only_operators_see_the_bias_report() {
    let database = databases::example().await;
    execute(
        &mut database.connect().await,
        "INSERT INTO merchants (external_id) VALUES ('m')",
    )
    .await;
    let key = |role: &str| create_key(&database, &["--role", role]);
    let operator = key("operator");
    let others = [
        key("service"),
        key("ingest"),
        key("marketer"),
        create_key(&database, &["--role", "marketer", "--merchant", "m"]),
    ];
    let server = Server::start(&database);
    // Three users are too few to measure.
    assert!(report(&server, Some(&operator), 0).await.unwrap().rankers.is_empty());
    for other in &others {
        let refused = report(&server, Some(other), 0).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    }
}

#[tokio::test]
async fn the_gate_holds_limits_on_unevenness_where_they_are_set() {
    let database = with_attributes().await;
    let train = |settings: &[&str]| {
        let (code, output, error) = run(
            &database,
            &[&["train", "--json", FEWER_USERS, ATTRIBUTES], settings].concat(),
        );
        let trained: Value = serde_json::from_str(&output).unwrap_or_else(|_| panic!("{error}"));
        (code, trained["evaluation"]["reasons"].to_string())
    };
    assert_eq!(
        train(&["--set-config=gate.max_gini=1", "--set-config=gate.min_group_ratio=0"]).0,
        0
    );
    let (code, reasons) = train(&["--set-config=gate.max_gini=0.1"]);
    assert!(
        code == 3 && reasons.contains("gate.max_gini allows 0.1"),
        "{code} {reasons}"
    );
    let (code, reasons) = train(&["--set-config=gate.min_coverage=0.99"]);
    assert!(
        code == 3 && reasons.contains("gate.min_coverage demands 0.99"),
        "{code} {reasons}"
    );
    let (code, reasons) = train(&["--set-config=gate.min_group_ratio=1"]);
    assert!(code == 3 && reasons.contains("users whose half is"), "{code} {reasons}");
}

#[tokio::test]
async fn a_grid_of_adjustments_is_printed_and_written_as_csv() {
    let database = databases::online_retail().await;
    let folder = scratch();
    let file = folder.path().join("grid.csv");
    let csv = file.to_str().unwrap();
    let args = [
        "evaluate",
        FEWER_USERS,
        "--diversity",
        "0.3,0.9",
        "--popularity-penalty",
        "1",
        "--csv",
        csv,
        "--json",
    ];
    let output: Value = serde_json::from_str(&succeed(&database, &args)).unwrap();
    let rows = output["trade_offs"].as_array().unwrap();
    let settings: Vec<(&str, f64)> = rows
        .iter()
        .map(|row| (row["adjustment"].as_str().unwrap(), row["value"].as_f64().unwrap()))
        .collect();
    let expected = [
        ("none", 0.0),
        ("diversity", 0.3),
        ("diversity", 0.9),
        ("popularity_penalty", 1.0),
    ];
    assert_eq!(settings, expected);
    // Without an adjustment the figures are those of the chosen ranker.
    let figure = |row: &Value, name: &str| row[name].as_f64().unwrap();
    let chosen = output["choice"]["ranker"].as_str().unwrap();
    let mut ranking = output["ranking"].as_array().unwrap().iter();
    let evaluated = ranking
        .find(|row| row["ranker"] == chosen && row["items"] == "new")
        .unwrap();
    for name in ["ndcg_at_10", "coverage_at_20", "gini"] {
        assert_eq!(figure(&rows[0], name), figure(evaluated, name));
    }
    // A penalty on popularity spreads what is shown, and costs accuracy.
    let (plain, penalized) = (&rows[0], &rows[3]);
    assert!(
        figure(penalized, "coverage_at_20") > figure(plain, "coverage_at_20"),
        "{rows:#?}"
    );
    assert!(
        figure(penalized, "long_tail_share") > figure(plain, "long_tail_share"),
        "{rows:#?}"
    );
    assert!(
        figure(penalized, "mean_popularity") < figure(plain, "mean_popularity"),
        "{rows:#?}"
    );
    let lines = std::fs::read_to_string(&file).unwrap();
    assert_eq!(lines.lines().count(), 5);
    assert!(lines.starts_with("adjustment,value,users,ndcg_at_10,"), "{lines}");
    let (code, _, error) = run(&database, &["evaluate", "--diversity", "2"]);
    assert!(
        code == 2 && error.contains("must be a number between 0 and 1"),
        "{code} {error}"
    );
}
