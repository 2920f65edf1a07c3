//! Prints figures and progress for people, and snapshots as JSON.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::store::snapshots::SnapshotRecord;
use recommender::evaluation::report::{
    ItemScope, RankerChoice, RankingMetrics, RatingMetrics, SettingRow, SettingsTable, four_digits,
};
use recommender::snapshot::parameters::BlendWeights;
use recommender::snapshot::propensity::PropensityQuality;
use recommender::snapshot::settings::{FittedSettings, ScoreSettings};

/// Shows the current phase: as a bar or spinner on a terminal, otherwise in log lines.
pub(super) struct PhaseReport {
    current: Mutex<Option<Current>>,
    is_terminal: bool,
}

struct Current {
    phase: &'static str,
    bar: ProgressBar,
    began: Instant,
    last_log: Instant,
}

impl PhaseReport {
    const LOG_INTERVAL: Duration = Duration::from_secs(5);

    pub fn new() -> Self {
        Self {
            current: Mutex::new(None),
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    pub fn begin(&self, phase: &'static str) {
        self.update(phase, 0, 0);
    }

    /// Shows the progress of `phase`. A new phase ends the one before. `total` is 0 if it is not known.
    pub fn update(&self, phase: &'static str, done: u64, total: u64) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|current| current.phase != phase) {
            if let Some(before) = current.take() {
                before.end();
            }
            if !self.is_terminal {
                tracing::info!(phase, "{phase}");
            }
        }
        let current = current.get_or_insert_with(|| Current::begin(phase, self.is_terminal));
        if total > 0 && current.bar.length() != Some(total) {
            current.bar.set_length(total);
            current
                .bar
                .set_style(style("{bar:30} {percent:>3} %  {msg}  {elapsed} (about {eta} left)"));
        }
        current.bar.set_position(done);
        if !self.is_terminal && total > 0 && current.last_log.elapsed() >= Self::LOG_INTERVAL {
            current.last_log = Instant::now();
            let percent = done.saturating_mul(100) / total;
            let elapsed_s = current.began.elapsed().as_secs();
            tracing::info!(phase, percent, elapsed_s, "{phase}: {percent} % after {elapsed_s} s");
        }
    }

    pub fn end(&self) {
        if let Some(current) = self.current.lock().unwrap_or_else(PoisonError::into_inner).take() {
            current.end();
        }
    }
}

impl Current {
    fn begin(phase: &'static str, is_terminal: bool) -> Self {
        let bar = match is_terminal {
            true => ProgressBar::new_spinner().with_style(style("{spinner} {msg} {elapsed}")),
            false => ProgressBar::hidden(),
        };
        bar.set_message(phase);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self {
            phase,
            bar,
            began: Instant::now(),
            last_log: Instant::now(),
        }
    }

    fn end(self) {
        self.bar.finish_and_clear();
        let (phase, took_ms) = (self.phase, self.began.elapsed().as_millis() as u64);
        tracing::info!(phase, took_ms, "{phase} took {took_ms} ms");
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Returns the name of an enum without fields, as in JSON.
pub(super) fn name(value: &impl serde::Serialize) -> String {
    match json!(value) {
        Value::String(name) => name,
        other => other.to_string(),
    }
}

pub(super) fn print_ranking(metrics: &[RankingMetrics]) {
    if metrics.is_empty() {
        return;
    }
    println!(
        "{:<10} {:<11} {:<5} {:>7} {:>9} {:>17} {:>9} {:>11} {:>9} {:>11}",
        "parameters",
        "ranker",
        "items",
        "users",
        "NDCG@10",
        "95 % interval",
        "Recall@20",
        "coverage@20",
        "Gini",
        "popularity"
    );
    for row in metrics {
        println!(
            "{:<10} {:<11} {:<5} {:>7} {:>9} {:>17} {:>9} {:>11} {:>9} {:>11}",
            name(&row.parameters),
            name(&row.ranker),
            name(&row.items),
            row.users,
            four_digits(row.ndcg_at_10),
            row.ndcg_interval.map_or_else(String::new, |[low, high]| {
                format!("{} to {}", four_digits(low), four_digits(high))
            }),
            four_digits(row.recall_at_20),
            four_digits(row.coverage_at_20),
            four_digits(row.gini),
            four_digits(row.mean_popularity)
        );
    }
}

pub(super) fn print_rating(metrics: &[RatingMetrics]) {
    if metrics.is_empty() {
        return;
    }
    println!(
        "{:<10} {:<11} {:>13} {:>8} {:>8}",
        "parameters", "predictor", "ratings", "RMSE", "MAE"
    );
    for row in metrics {
        println!(
            "{:<10} {:<11} {:>13} {:>8} {:>8}",
            name(&row.parameters),
            name(&row.predictor),
            row.ratings,
            four_digits(row.rmse),
            four_digits(row.mae)
        );
    }
}

/// Prints the settings of ranking scores, as far as the evaluation has them, and those that were tried. Of these, settings far
/// below the best are only counted: JSON has all.
pub(super) fn print_settings(settings: Option<&FittedSettings>, tables: &[SettingsTable]) {
    if let Some(settings) = settings {
        print_score("new items", &settings.new_items);
        print_score("all items", &settings.all_items);
        println!(
            "half-life {} days, popularity with trend^{}, similarities shrunk by {} co-raters, baseline by {}",
            settings.half_life_days,
            settings.popularity_trend_exponent,
            settings.significance,
            settings.baseline_shrinkage
        );
    }
    for table in tables {
        print_table(table);
    }
}

fn print_score(of: &str, score: &ScoreSettings) {
    println!(
        "{of}: {}; blend of {} items and {} users, trend^{}, own habits {}",
        name(&score.ranker),
        four_digits(score.item_weight),
        four_digits(1.0 - score.item_weight),
        score.trend_exponent,
        score.habit_weight
    );
}

fn print_table(table: &SettingsTable) {
    let items = match table.items {
        ItemScope::New => "new",
        ItemScope::All => "all",
    };
    println!(
        "tried on {items} items of {} users of the validation part, the simplest first; * is chosen:",
        table.users
    );
    println!(
        "  {:<11} {:>6} {:>9} {:>6} {:>7} {:>9} {:>11} {:>14}",
        "ranker", "items", "half-life", "trend", "habits", "NDCG@10", "below best", "standard error"
    );
    let is_near = |row: &&SettingRow| row.is_chosen || row.below_best <= 2.0 * row.standard_error;
    for row in table.rows.iter().filter(is_near) {
        println!(
            "{} {:<11} {:>6.1} {:>9} {:>6} {:>7} {:>9} {:>11} {:>14}",
            if row.is_chosen { '*' } else { ' ' },
            row.ranker,
            row.item_weight,
            row.half_life_days,
            row.trend_exponent,
            row.habit_weight,
            four_digits(row.ndcg_at_10),
            four_digits(row.below_best),
            four_digits(row.standard_error)
        );
    }
    let n_far = table.rows.len() - table.rows.iter().filter(is_near).count();
    if n_far > 0 {
        println!("  {n_far} others lie more than two standard errors below the best");
    }
}

/// Prints what was fitted on the validation part, as far as the evaluation has it.
pub(super) fn print_choices(weights: Option<&BlendWeights>, choice: Option<&RankerChoice>) {
    if let Some(weights) = weights {
        println!(
            "blend weights of the item-based side: ranking {}, baseline {}, weighted mean {}, weighted sum {}",
            four_digits(weights.ranking),
            four_digits(weights.baseline),
            four_digits(weights.weighted_mean),
            four_digits(weights.weighted_sum)
        );
    }
    if let Some(choice) = choice {
        println!("{}", choice.sentence());
    }
}

pub(super) fn print_propensity(quality: &PropensityQuality) {
    println!(
        "Propensity: ROC-AUC {:.3}, lift@10% {:.2}, Brier {:.4} (overall rate: {:.4}), log loss {:.4}",
        quality.roc_auc, quality.lift_at_10_percent, quality.brier, quality.brier_of_rate, quality.log_loss
    );
    println!(
        "{:<12} {:>10} {:>8} {:>9} {:>15} {:>7} {:>8} {:>22}",
        "campaign", "recipients", "redeemed", "predicted", "95% interval", "ROC-AUC", "lift@10%", "fitted on"
    );
    for campaign in &quality.campaigns {
        let interval = format!("{:.0} to {:.0}", campaign.predicted_low, campaign.predicted_high);
        let mark = if campaign.observed_share < 1.0 { "*" } else { "" };
        println!(
            "{:<12} {:>10} {:>8} {:>9.1} {:>15} {:>7.3} {:>8.2} {:>22}",
            format!("{}{mark}", campaign.campaign_id),
            campaign.recipients,
            campaign.observed,
            campaign.predicted,
            interval,
            campaign.roc_auc,
            campaign.lift_at_10_percent,
            format!(
                "{} redemptions in {}",
                campaign.evidence.redemptions, campaign.evidence.campaigns
            )
        );
    }
    let (predicted, observed) = quality
        .campaigns
        .iter()
        .fold((0.0, 0), |(predicted, observed), campaign| {
            (predicted + campaign.predicted, observed + campaign.observed)
        });
    println!("{:<12} {:>10} {observed:>8} {predicted:>9.1}", "all", "");
    if quality.campaigns.iter().any(|campaign| campaign.observed_share < 1.0) {
        println!("* The data end before the window of this campaign; the prediction covers the time up to there.");
    }
    println!("Reliability, by fifths of the recipients in order of predicted probability:");
    println!("{:>10} {:>9} {:>9}", "recipients", "predicted", "redeemed");
    for bin in &quality.reliability {
        println!("{:>10} {:>9.4} {:>9.4}", bin.recipients, bin.predicted, bin.observed);
    }
}

pub(super) fn print_snapshots(records: &[SnapshotRecord]) {
    println!(
        "{:>7} {:<9} {:<20} {:>9} {:>8} {:>10} {:>10}",
        "version", "state", "created", "users", "items", "ratings", "bytes"
    );
    for record in records {
        let counts = record.counts;
        println!(
            "{:>7} {:<9} {:<20} {:>9} {:>8} {:>10} {:>10}",
            record.version,
            record.state.as_str(),
            record.created_at.format("%Y-%m-%dT%H:%M:%SZ"),
            counts.map_or(0, |counts| counts.users),
            counts.map_or(0, |counts| counts.items),
            counts.map_or(0, |counts| counts.ratings),
            record.size_bytes
        );
    }
}

pub(super) fn print_snapshot(record: &SnapshotRecord) {
    print_snapshots(std::slice::from_ref(record));
    println!("parameters: {}", json!(record.parameters));
    if !record.note.is_empty() {
        println!("note: {}", record.note);
    }
    if let Some(evaluation) = &record.evaluation {
        println!("verdict: {}", name(&evaluation.verdict));
        for reason in &evaluation.reasons {
            println!("  {reason}");
        }
        print_ranking(&evaluation.ranking);
        print_rating(&evaluation.rating);
        print_settings(evaluation.settings.as_ref(), &evaluation.tables);
        print_choices(evaluation.weights.as_ref(), evaluation.choice.as_ref());
        if let Some(quality) = &evaluation.propensity {
            print_propensity(quality);
        }
    }
}

pub(super) fn snapshot_json(record: &SnapshotRecord) -> Value {
    json!({
        "version": record.version,
        "state": record.state.as_str(),
        "created_at": record.created_at,
        "activated_at": record.activated_at,
        "parameters": record.parameters,
        "evaluation": record.evaluation,
        "counts": record.counts,
        "size_bytes": record.size_bytes,
        "note": record.note,
    })
}
