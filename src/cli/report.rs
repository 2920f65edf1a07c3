//! Figures and progress for people, and the same as JSON.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::evaluation::report::{RankingMetrics, RatingMetrics};
use crate::model::propensity::PropensityQuality;
use crate::store::snapshots::SnapshotRecord;

/// The phase that is under way: a spinner on a terminal, a log line elsewhere.
pub(super) struct PhaseReport {
    current: RefCell<Option<(ProgressBar, &'static str, Instant)>>,
    is_terminal: bool,
}

impl PhaseReport {
    pub fn new() -> Self {
        Self {
            current: RefCell::new(None),
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    pub fn begin(&self, phase: &'static str) {
        self.end();
        let bar = match self.is_terminal {
            true => ProgressBar::new_spinner().with_style(
                ProgressStyle::with_template("{spinner} {msg} {elapsed}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            ),
            false => ProgressBar::hidden(),
        };
        bar.set_message(phase);
        bar.enable_steady_tick(Duration::from_millis(100));
        if !self.is_terminal {
            tracing::info!(phase, "{phase}");
        }
        *self.current.borrow_mut() = Some((bar, phase, Instant::now()));
    }

    pub fn end(&self) {
        if let Some((bar, phase, started)) = self.current.borrow_mut().take() {
            bar.finish_and_clear();
            let took_ms = started.elapsed().as_millis() as u64;
            tracing::info!(phase, took_ms, "{phase} took {took_ms} ms");
        }
    }
}

/// The name that a field-less enum has in JSON.
fn name(value: &impl serde::Serialize) -> String {
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
        "{:<10} {:<11} {:<5} {:>7} {:>8} {:>9} {:>11} {:>6} {:>11}",
        "parameters", "ranker", "items", "users", "NDCG@10", "Recall@20", "coverage@20", "Gini", "popularity"
    );
    for row in metrics {
        println!(
            "{:<10} {:<11} {:<5} {:>7} {:>8.4} {:>9.4} {:>11.4} {:>6.3} {:>11.1}",
            name(&row.parameters),
            name(&row.ranker),
            name(&row.items),
            row.users,
            row.ndcg_at_10,
            row.recall_at_20,
            row.coverage_at_20,
            row.gini,
            row.mean_popularity
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
            "{:<10} {:<11} {:>13} {:>8.4} {:>8.4}",
            name(&row.parameters),
            name(&row.predictor),
            row.ratings,
            row.rmse,
            row.mae
        );
    }
}

pub(super) fn print_propensity(quality: &PropensityQuality) {
    println!(
        "Propensity: ROC-AUC {:.3}, lift@10% {:.2}, Brier {:.4} (of the overall rate {:.4}), log loss {:.4}",
        quality.roc_auc, quality.lift_at_10_percent, quality.brier, quality.brier_of_rate, quality.log_loss
    );
    println!(
        "{:<12} {:>10} {:>8} {:>9} {:>15} {:>7} {:>8} {:>22}",
        "campaign", "recipients", "redeemed", "predicted", "95% of the time", "ROC-AUC", "lift@10%", "fitted on"
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
                "{} redemptions of {}",
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
        println!("* what is known ends before the window does, and so does the prediction");
    }
    println!("Reliability, fifths of the recipients by predicted probability:");
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
