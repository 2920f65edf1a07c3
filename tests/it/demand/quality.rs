//! The quality of forecasts and of stock on the shipped sample, as `evaluate` measures it.

use serde_json::Value;

use crate::support::databases;
use crate::support::postgres::TestDatabase;
use crate::support::program::{command, output};

/// The first Monday of Online Retail, and the day after the last week that is replayed.
const FROM: &str = "2010-12-06";
const UNTIL: &str = "2011-09-19";

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    assert_eq!(values.len(), 3, "one for each origin");
    values.iter().sum::<f64>() / 3.0
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// Runs `evaluate` on one core, since other tests want the rest, and returns what it prints.
fn evaluate(database: &TestDatabase, args: &[&str]) -> Value {
    let args = [&["evaluate"], args, &["--from", FROM, "--json"]].concat();
    let output = output(command(database, &args).env("RAYON_NUM_THREADS", "1"));
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn rows(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap().iter()
}

#[tokio::test]
async fn forecasts_of_the_sample_are_as_good_as_documented() {
    let database = databases::online_retail().await;
    let found = evaluate(&database, &["demand"]);

    let wape = |method: &str| {
        let points = rows(&found["points"]).filter(|row| row["class"].is_null() && row["method"] == method);
        mean(points.map(|row| number(&row["wape"])))
    };
    let ratio = wape("chosen") / wape("IMAPA");
    assert!(ratio <= 0.90, "WAPE ÷ IMAPA's {ratio}");

    // Weeks, most pinball loss ÷ the normal's, most distance of a coverage from its level.
    for (weeks, most_pinball, most_off) in [(3, 0.9005, 0.05), (8, 0.88, 0.06)] {
        let of_all = || rows(&found["distributions"]).filter(|row| row["class"].is_null() && row["weeks"] == weeks);
        let losses = |of: &str| -> f64 {
            let levels = of_all().flat_map(|row| rows(&row["levels"]));
            levels.map(|level| number(&level[of])).sum()
        };
        let ratio = losses("pinball") / losses("normal_pinball");
        assert!(ratio <= most_pinball, "{weeks} weeks: pinball loss {ratio}");
        for (at, level) in [0.5, 0.8, 0.9, 0.95].into_iter().enumerate() {
            let coverage = mean(of_all().map(|row| number(&row["levels"][at]["coverage"])));
            assert!(
                (coverage - level).abs() <= most_off,
                "{weeks} weeks: {coverage} for {level}"
            );
        }
        let bias = mean(of_all().map(|row| number(&row["bias"])));
        assert!(bias.abs() <= 0.12, "{weeks} weeks: bias {bias}");
    }

    let launches = |of: &str| mean(rows(&found["launches"]).map(|row| number(&row[of])));
    let new = launches("regression_wape");
    assert!(
        new < launches("own_mean_wape") && new < launches("class_mean_wape"),
        "new items {new}"
    );
}

#[tokio::test]
async fn stock_from_forecasts_of_the_sample_is_less_for_the_same_sales() {
    let database = databases::online_retail().await;
    let found = evaluate(&database, &["replenishment", "--until", UNTIL]);
    // The least share of units saved at the fill rates .85, .90 and .95.
    for (weeks, least) in [
        (1, [0.11, 0.12, 0.18]),
        (2, [0.11, 0.13, 0.18]),
        (4, [0.14, 0.16, 0.20]),
    ] {
        let row = rows(&found).find(|row| row["lead_time_weeks"] == weeks).unwrap();
        let found = &row["comparison"];
        for (row, least) in rows(&found["stocks"]).zip(least) {
            let saved = 1.0 - number(&row["stock_units"]) / number(&row["rule_stock_units"]);
            assert!(saved >= least, "{weeks} weeks: {saved} saved, {row}");
        }
        let realized = number(&found["realized"][2]["realized"]);
        assert!(
            (0.93..=0.97).contains(&realized),
            "{weeks} weeks: .95 realizes {realized}"
        );
        for bin in rows(&found["stock_outs"]) {
            let off = number(&bin["observed"]) - number(&bin["predicted"]);
            assert!(off.abs() <= 0.06, "{weeks} weeks: {bin}");
        }
        assert_eq!(rows(&found["stock_outs"]).count(), 5);
    }
}
