//! Grids of adjustments, and what each setting costs and brings.

use std::io::Write;
use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};

use recommender::evaluation::report::four_digits;
use recommender::evaluation::trade_offs::TradeOff;
use recommender::ranking::adjust::Adjustments;

const WEIGHTS: &str = "0.1,0.2,0.3,0.5,0.7,0.9";
const CAPS: &str = "1,2,3,5";

/// The settings to measure: each flag is a grid of one adjustment, without the others.
#[derive(Debug, clap::Args)]
pub(super) struct Grids {
    /// Also measure the chosen ranker with these diversities, 0 to 1
    #[arg(long, value_name = "WEIGHTS", num_args = 0..=1, default_missing_value = WEIGHTS, value_delimiter = ',', value_parser = weight)]
    diversity: Vec<f64>,
    /// Also measure it with these popularity penalties, 0 to 1
    #[arg(long, value_name = "WEIGHTS", num_args = 0..=1, default_missing_value = WEIGHTS, value_delimiter = ',', value_parser = weight)]
    popularity_penalty: Vec<f64>,
    /// Also measure it calibrated to the categories of the history with these weights, 0 to 1
    #[arg(long, value_name = "WEIGHTS", num_args = 0..=1, default_missing_value = WEIGHTS, value_delimiter = ',', value_parser = weight)]
    calibrate: Vec<f64>,
    /// Also measure it with at most so many items of one merchant
    #[arg(long, value_name = "CAPS", num_args = 0..=1, default_missing_value = CAPS, value_delimiter = ',')]
    max_per_merchant: Vec<NonZeroU32>,
    /// Also measure it with at most so many items of one category
    #[arg(long, value_name = "CAPS", num_args = 0..=1, default_missing_value = CAPS, value_delimiter = ',')]
    max_per_category: Vec<NonZeroU32>,
    /// Also write the table of adjustments as CSV to this file
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

fn weight(text: &str) -> Result<f64, String> {
    let weight = text.parse().ok().filter(|weight| (0.0..=1.0).contains(weight));
    weight.ok_or_else(|| "must be a number between 0 and 1".to_owned())
}

impl Grids {
    /// Returns no adjustment, and then every value of every grid; nothing without a grid.
    pub fn settings(&self) -> Vec<Adjustments> {
        let none = Adjustments::default();
        let diversity = self
            .diversity
            .iter()
            .map(|&diversity| Adjustments { diversity, ..none });
        let penalties = self.popularity_penalty.iter();
        let penalties = penalties.map(|&popularity_penalty| Adjustments {
            popularity_penalty,
            ..none
        });
        let calibration = self
            .calibrate
            .iter()
            .map(|&calibration| Adjustments { calibration, ..none });
        let per_merchant = self.max_per_merchant.iter().map(|&cap| Adjustments {
            max_per_merchant: Some(cap),
            ..none
        });
        let per_category = self.max_per_category.iter().map(|&cap| Adjustments {
            max_per_category: Some(cap),
            ..none
        });
        let grids: Vec<Adjustments> = diversity
            .chain(penalties)
            .chain(calibration)
            .chain(per_merchant)
            .chain(per_category)
            .filter(|adjustments| !adjustments.is_none())
            .collect();
        match grids.is_empty() {
            true => grids,
            false => [vec![none], grids].concat(),
        }
    }

    /// Writes the file that was asked for, if any.
    pub fn write_csv(&self, measured: &[TradeOff]) -> anyhow::Result<()> {
        let Some(path) = &self.csv else { return Ok(()) };
        let write = || -> std::io::Result<()> {
            let mut file = std::fs::File::create(path)?;
            writeln!(file, "{}", COLUMNS.join(","))?;
            for row in measured {
                let (adjustment, value) = setting(&row.adjustments);
                let figures = figures(row).map(|figure| figure.map_or(String::new(), |figure| figure.to_string()));
                writeln!(file, "{adjustment},{value},{},{}", row.users, figures.join(","))?;
            }
            Ok(())
        };
        write().with_context(|| format!("{} cannot be written", path.display()))
    }
}

const COLUMNS: [&str; 9] = [
    "adjustment",
    "value",
    "users",
    "ndcg_at_10",
    "coverage_at_20",
    "gini",
    "mean_popularity",
    "long_tail_share",
    "divergence",
];

fn figures(row: &TradeOff) -> [Option<f64>; 6] {
    [
        Some(row.ndcg_at_10),
        Some(row.coverage_at_20),
        Some(row.gini),
        Some(row.mean_popularity),
        Some(row.long_tail_share),
        row.divergence,
    ]
}

/// Returns the name and the value of the one adjustment that is set.
fn setting(adjustments: &Adjustments) -> (&'static str, f64) {
    let cap = |cap: Option<NonZeroU32>| cap.map_or(0.0, |cap| f64::from(cap.get()));
    let all = [
        ("diversity", adjustments.diversity),
        ("popularity_penalty", adjustments.popularity_penalty),
        ("calibrate", adjustments.calibration),
        ("max_per_merchant", cap(adjustments.max_per_merchant)),
        ("max_per_category", cap(adjustments.max_per_category)),
    ];
    let set = all.into_iter().find(|&(_, value)| value > 0.0);
    set.unwrap_or(("none", 0.0))
}

pub(super) fn to_json(measured: &[TradeOff]) -> Value {
    let row = |row: &TradeOff| {
        let (adjustment, value) = setting(&row.adjustments);
        json!({
            "adjustment": adjustment,
            "value": value,
            "users": row.users,
            "ndcg_at_10": row.ndcg_at_10,
            "coverage_at_20": row.coverage_at_20,
            "gini": row.gini,
            "mean_popularity": row.mean_popularity,
            "long_tail_share": row.long_tail_share,
            "divergence": row.divergence,
        })
    };
    measured.iter().map(row).collect()
}

pub(super) fn print(ranker: &str, measured: &[TradeOff]) {
    let Some(first) = measured.first() else { return };
    println!(
        "adjusted recommendations of new items by {ranker}, {} users",
        first.users
    );
    println!(
        "{:<18} {:>5} {:>9} {:>11} {:>9} {:>11} {:>10} {:>11}",
        "adjustment", "value", "NDCG@10", "coverage@20", "Gini", "popularity", "long tail", "divergence"
    );
    for row in measured {
        let (adjustment, value) = setting(&row.adjustments);
        let [ndcg, coverage, gini, popularity, tail, divergence] =
            figures(row).map(|figure| figure.map_or("-".to_owned(), four_digits));
        println!(
            "{adjustment:<18} {value:>5} {ndcg:>9} {coverage:>11} {gini:>9} {popularity:>11} {tail:>10} {divergence:>11}"
        );
    }
}
