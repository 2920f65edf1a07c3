//! The gate: decides whether a candidate may replace the active snapshot.

use crate::snapshot::SnapshotParts;
use domain::error::InvalidField;

use super::bias::report::RankerBias;
use super::evaluate::Evaluated;
use super::held_out::Reach;
use super::report::{GateVerdict, ItemScope, four_digits};

/// Section `gate` of the configuration.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GateOptions {
    /// How far NDCG@10 may fall below that of the active parameters, as a share of it, 0 to 1.
    pub tolerance: f64,
    /// The share of the active snapshot's users, items or ratings that may be missing, 0 to 1.
    pub max_shrink: f64,
    /// The least evaluated users; with fewer, the figures mean too little to judge by. At least 1.
    pub min_users: u64,
    /// The largest Gini index of how often listed items are recommended among the first 20, 0 to 1; `None` for no limit.
    pub max_gini: Option<f64>,
    /// The least share of the listed items that are among anybody's first 20, 0 to 1; `None` for no limit.
    pub min_coverage: Option<f64>,
    /// The least ratio of NDCG@10 of the least favored group of users to that of the most favored, for every attribute of
    /// `bias.attributes`, 0 to 1; `None` for no limit.
    pub min_group_ratio: Option<f64>,
}

impl Default for GateOptions {
    fn default() -> Self {
        Self {
            tolerance: 0.05,
            max_shrink: 0.2,
            min_users: 100,
            max_gini: None,
            min_coverage: None,
            min_group_ratio: None,
        }
    }
}

impl GateOptions {
    /// Checks the values.
    ///
    /// # Errors
    /// `OUT_OF_RANGE`, naming the key.
    pub fn validate(&self) -> Result<(), InvalidField> {
        let limits = [
            ("gate.max_gini", self.max_gini),
            ("gate.min_coverage", self.min_coverage),
            ("gate.min_group_ratio", self.min_group_ratio),
        ];
        let limits = limits.into_iter().filter_map(|(key, limit)| Some((key, limit?)));
        let shares = [("gate.tolerance", self.tolerance), ("gate.max_shrink", self.max_shrink)];
        for (key, share) in shares.into_iter().chain(limits) {
            if !(0.0..=1.0).contains(&share) {
                let message = format!("must lie between 0 and 1, is {share}");
                return Err(InvalidField::new(key, "OUT_OF_RANGE", message));
            }
        }
        if self.min_users == 0 {
            return Err(InvalidField::new(
                "gate.min_users",
                "OUT_OF_RANGE",
                "must be 1 or more, is 0",
            ));
        }
        Ok(())
    }
}

/// The size of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SnapshotCounts {
    pub users: u64,
    pub items: u64,
    /// The entries of the matrix of effective ratings.
    pub ratings: u64,
}

impl SnapshotCounts {
    pub fn of(parts: &SnapshotParts) -> Self {
        Self {
            users: parts.users.len() as u64,
            items: parts.items.len() as u64,
            ratings: parts.ratings.nnz() as u64,
        }
    }

    /// Whether there is nothing to recommend, nobody to recommend it to, or nothing to recommend by.
    pub fn is_empty(self) -> bool {
        self.users == 0 || self.items == 0 || self.ratings == 0
    }
}

/// The input of [`judge`]: the figures of a candidate and of the active snapshot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence<'a> {
    /// The candidate's parameters, fitted on the earlier part.
    pub candidate: &'a Evaluated,
    /// The active snapshot's parameters, fitted on the same part; `None` without an active snapshot.
    pub active: Option<&'a Evaluated>,
    /// The bias report of the candidate.
    pub bias: &'a [RankerBias],
    /// The size of the candidate, the model fitted on everything.
    pub counts: SnapshotCounts,
    /// The size of the active snapshot.
    pub active_counts: Option<SnapshotCounts>,
}

/// The result of [`judge`].
#[derive(Debug, Clone, PartialEq)]
pub struct GateDecision {
    pub verdict: GateVerdict,
    /// Why the candidate was rejected or could not be judged, each reason with its numbers.
    pub reasons: Vec<String>,
}

/// Judges a candidate by the NDCG@10 of its chosen rankers' recommendations, of new items and, where users have orders, of all
/// items, and by its size.
///
/// The candidate is a valid [`Snapshot`](crate::snapshot::Snapshot), and so finite. It is rejected if it
///
/// - is empty,
/// - ranks worse than the active parameters by more than the tolerance,
/// - has lost more than the allowed share of users, items or ratings, or
/// - is beyond a limit on how evenly it recommends items or serves groups of users, where such limits are set.
///
/// Popularity is one of the rankers from which the chosen one comes, so that a shop that has data always gets its first snapshot.
///
/// With fewer than `min_users` evaluated users, its ranking is not judged. Its size is then judged only if the active snapshot
/// has at least `min_users` users: a loss of data must not pass because it leaves too few users to evaluate.
///
/// Source: docs/formulas.md, "Gate".
pub fn judge(evidence: &Evidence, options: &GateOptions) -> GateDecision {
    let is_evaluated = evidence.candidate.users >= options.min_users;
    let was_large = evidence
        .active_counts
        .is_some_and(|counts| counts.users >= options.min_users);

    let mut reasons = unusable(evidence);
    if is_evaluated || was_large {
        reasons.extend(shrunk(evidence, options));
    }
    if is_evaluated {
        reasons.extend(ranks_worse(evidence, options));
        reasons.extend(beyond_limits(evidence, options));
    }
    let verdict = if !reasons.is_empty() {
        GateVerdict::Rejected
    } else if is_evaluated {
        GateVerdict::Passed
    } else {
        GateVerdict::InsufficientEvaluation
    };
    if !is_evaluated {
        let Evaluated { users, reach, .. } = evidence.candidate;
        reasons.push(format!(
            "too few users could be evaluated to judge the ranking, {users} where gate.min_users = {} are needed: {}",
            options.min_users,
            why_few(*users, *reach)
        ));
    }
    GateDecision { verdict, reasons }
}

/// Returns why so few users could be asked about the held-out part.
fn why_few(users: u64, reach: Reach) -> String {
    let Reach { before, within, both } = reach;
    if within == 0 {
        return "no user has ratings or purchases to hold out; it takes 5 or more of a user that are not all of one instant"
            .to_owned();
    }
    let of_both = format!(
        "users with ratings or purchases before the held-out part: {before}, in it: {within}, both before and in it: {both}"
    );
    if users == both {
        return of_both;
    }
    format!(
        "{of_both}; {users} of the last bought an item in it that was new to them, or rated one at least the middle of the scale"
    )
}

/// Returns the reason why an empty model is rejected.
fn unusable(evidence: &Evidence) -> Vec<String> {
    let SnapshotCounts { users, items, ratings } = evidence.counts;
    let mut reasons = Vec::new();
    if evidence.counts.is_empty() {
        reasons.push(format!(
            "the model has {users} users, {items} items and {ratings} ratings, and each must be 1 or more: import ratings, or \
             purchases that were not all returned, which count as ratings unless training.implicit is off"
        ));
    }
    reasons
}

/// Returns the reasons why a model that has lost too much is rejected.
fn shrunk(evidence: &Evidence, options: &GateOptions) -> Vec<String> {
    let (counts, Some(active)) = (evidence.counts, evidence.active_counts) else {
        return Vec::new();
    };
    let kinds = [
        ("users", counts.users, active.users),
        ("items", counts.items, active.items),
        ("ratings", counts.ratings, active.ratings),
    ];
    let has_shrunk = |&(_, now, before): &(&str, u64, u64)| (now as f64) < before as f64 * (1.0 - options.max_shrink);
    let reason = |(kind, now, before): (&str, u64, u64)| {
        let loss = 1.0 - now as f64 / before as f64;
        format!(
            "the model has {now} {kind}, {:.1} % fewer than the active snapshot's {before}; \
             gate.max_shrink = {} allows {:.1} %",
            100.0 * loss,
            options.max_shrink,
            100.0 * options.max_shrink
        )
    };
    kinds.into_iter().filter(has_shrunk).map(reason).collect()
}

/// Returns the reasons why a model that ranks too badly is rejected.
fn ranks_worse(evidence: &Evidence, options: &GateOptions) -> Vec<String> {
    let Some(active) = evidence.active else {
        return Vec::new();
    };
    let ndcg = |evaluated: &Evaluated, items| {
        let metrics = evaluated.ranking(evaluated.ranker(items), items);
        metrics.map_or(0.0, |metrics| metrics.ndcg_at_10)
    };
    let has_habits = evidence.candidate.has_habits && active.has_habits;
    let scopes = [(ItemScope::New, "new"), (ItemScope::All, "all")];
    let judged = scopes
        .into_iter()
        .filter(|(items, _)| *items == ItemScope::New || has_habits);
    let reason = |(items, name)| {
        let (candidate, active) = (ndcg(evidence.candidate, items), ndcg(active, items));
        let least = active * (1.0 - options.tolerance);
        (candidate < least).then(|| {
            format!(
                "NDCG@10 on {name} items is {}; it must be at least {}, that of the active parameters ({}) less \
                 gate.tolerance = {}",
                four_digits(candidate),
                four_digits(least),
                four_digits(active),
                options.tolerance
            )
        })
    };
    judged.filter_map(reason).collect()
}

/// Returns the reasons why a model whose recommendations are too uneven is rejected.
fn beyond_limits(evidence: &Evidence, options: &GateOptions) -> Vec<String> {
    let ranker = evidence.candidate.ranker(ItemScope::New);
    let mut reasons = Vec::new();
    if let Some(metrics) = evidence.candidate.ranking(ranker, ItemScope::New) {
        if let Some(max) = options.max_gini.filter(|&max| metrics.gini > max) {
            reasons.push(format!(
                "the Gini index of recommended new items is {}; gate.max_gini allows {max}",
                four_digits(metrics.gini)
            ));
        }
        if let Some(min) = options.min_coverage.filter(|&min| metrics.coverage_at_20 < min) {
            reasons.push(format!(
                "recommendations of new items cover {} of the listed items; gate.min_coverage demands {min}",
                four_digits(metrics.coverage_at_20)
            ));
        }
    }
    let judged = |bias: &&RankerBias| bias.ranker == ranker.name && bias.top == 10;
    let attributes = evidence.bias.iter().filter(judged).flat_map(|bias| &bias.attributes);
    for (attribute, ratio) in attributes.filter_map(|bias| Some((&bias.attribute, bias.ndcg_ratio.as_ref()?))) {
        if let Some(min) = options.min_group_ratio.filter(|&min| ratio.ratio < min) {
            reasons.push(format!(
                "NDCG@10 of users whose {attribute} is {} is {} of that of users whose {attribute} is {} (95 % interval: {} \
                 to {}); gate.min_group_ratio demands {min}",
                ratio.least_favored,
                four_digits(ratio.ratio),
                ratio.most_favored,
                four_digits(ratio.low),
                four_digits(ratio.high)
            ));
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::super::bias::report::{AttributeBias, Exposure, GroupRatio, LongTail, Merchants};
    use super::super::bias::shown::ShownLists;
    use super::super::evaluate::Fitted;
    use super::super::report::{ParametersOf, RankerChoice, RankingMetrics};
    use super::*;
    use crate::ranking::rankers::{BLENDED, POPULARITY, Ranker};
    use crate::snapshot::parameters::{BlendWeights, DefaultRanker};
    use crate::snapshot::settings::FittedSettings;

    /// Returns an evaluation with these NDCG@10 on new items. Those on all items are inverted, as the gate must ignore them without
    /// orders.
    fn evaluated(users: u64, popularity: f64, blended: f64) -> Evaluated {
        let row = |ranker: Ranker, items, ndcg_at_10| RankingMetrics {
            parameters: ParametersOf::Candidate,
            ranker: ranker.name.to_owned(),
            items,
            users,
            ndcg_at_10,
            ndcg_interval: None,
            recall_at_20: 0.0,
            coverage_at_20: 0.0,
            gini: 0.0,
            mean_popularity: 0.0,
        };
        let ranking = vec![
            row(POPULARITY, ItemScope::All, 1.0 - popularity),
            row(BLENDED, ItemScope::All, 1.0 - blended),
            row(POPULARITY, ItemScope::New, popularity),
            row(BLENDED, ItemScope::New, blended),
        ];
        Evaluated {
            fitted: Fitted {
                weights: BlendWeights::default(),
                settings: FittedSettings::default(),
            },
            tables: Vec::new(),
            has_habits: false,
            choice: RankerChoice {
                ranker: BLENDED.name.to_owned(),
                users,
                figures: Vec::new(),
            },
            users,
            reach: Reach {
                before: users,
                within: users,
                both: users,
            },
            ranking: if users > 0 { ranking } else { Vec::new() },
            rating: Vec::new(),
            shown: ShownLists::default(),
        }
    }

    /// Returns the reason for so many evaluated users with ratings both before the held-out part and in it.
    fn too_few(users: u64) -> String {
        let why = match users {
            0 => "no user has ratings or purchases to hold out; it takes 5 or more of a user that are not all of one instant"
                .to_owned(),
            _ => format!(
                "users with ratings or purchases before the held-out part: {users}, in it: {users}, both before and in it: {users}"
            ),
        };
        format!(
            "too few users could be evaluated to judge the ranking, {users} where gate.min_users = 100 are needed: {why}"
        )
    }

    #[test]
    fn the_reason_says_why_few_users_could_be_asked() {
        let check = |[before, within, both]: [u64; 3], users, part: &str| {
            let candidate = Evaluated {
                reach: Reach { before, within, both },
                ..evaluated(users, 0.1, 0.1)
            };
            let evidence = Evidence {
                candidate: &candidate,
                active: None,
                bias: &[],
                counts: counts(1, 1, 1),
                active_counts: None,
            };
            let reasons = judge(&evidence, &GateOptions::default()).reasons;
            assert!(reasons[0].contains(part), "{reasons:?}");
        };
        check([900, 0, 0], 0, "no user has ratings or purchases to hold out");
        check(
            [900, 40, 3],
            3,
            "before the held-out part: 900, in it: 40, both before and in it: 3",
        );
        check(
            [900, 40, 3],
            2,
            "both before and in it: 3; 2 of the last bought an item in it that was new to them",
        );
        check([900, 500, 400], 7, "both before and in it: 400; 7 of the last bought");
    }

    fn counts(users: u64, items: u64, ratings: u64) -> SnapshotCounts {
        SnapshotCounts { users, items, ratings }
    }

    #[track_caller]
    fn check(evidence: &Evidence, verdict: GateVerdict, reasons: &[&str]) {
        let found = judge(evidence, &GateOptions::default());
        assert_eq!(found.verdict, verdict, "{found:?}");
        assert_eq!(found.reasons, reasons);
    }

    #[test]
    fn a_candidate_must_rank_no_worse_than_the_active_parameters() {
        let check = |candidate: Evaluated, active: Option<f64>, reasons: &[&str]| {
            let active = active.map(|blended| evaluated(100, 0.0, blended));
            let evidence = Evidence {
                candidate: &candidate,
                active: active.as_ref(),
                bias: &[],
                counts: counts(500, 50, 5_000),
                active_counts: active.as_ref().map(|_| counts(500, 50, 5_000)),
            };
            let verdict = if reasons.is_empty() {
                GateVerdict::Passed
            } else {
                GateVerdict::Rejected
            };
            check(&evidence, verdict, reasons);
        };
        check(evaluated(100, 0.04, 0.1), None, &[]);
        check(evaluated(100, 0.04, 0.04), None, &[]);
        // A first snapshot passes even if its choice does worse than popularity on the test part.
        check(evaluated(100, 0.04, 0.039), None, &[]);
        check(evaluated(100, 0.04, 0.0), None, &[]);
        check(evaluated(100, 0.04, 0.1), Some(0.1), &[]);
        check(evaluated(100, 0.04, 0.0951), Some(0.1), &[]);
        let below_active = "NDCG@10 on new items is 0.09490; it must be at least 0.09500, that of the active parameters \
                            (0.1000) less gate.tolerance = 0.05";
        check(evaluated(100, 0.04, 0.0949), Some(0.1), &[below_active]);
        let mut by_popularity = evaluated(100, 0.0951, 0.0949);
        by_popularity.fitted.settings.new_items.ranker = DefaultRanker::Popularity;
        check(by_popularity, Some(0.1), &[]);
    }

    #[test]
    fn all_items_count_where_users_have_orders() {
        // On all items the blend has 0.8 with the candidate and 0.9 with the active parameters.
        let (candidate, active) = (evaluated(100, 0.0, 0.2), evaluated(100, 0.0, 0.1));
        let with_habits = |evaluated: &Evaluated| Evaluated {
            has_habits: true,
            ..evaluated.clone()
        };
        let check = |candidate: &Evaluated, active: &Evaluated, verdict, reasons: &[&str]| {
            let evidence = Evidence {
                candidate,
                active: Some(active),
                counts: counts(500, 50, 5_000),
                active_counts: None,
                bias: &[],
            };
            check(&evidence, verdict, reasons);
        };
        check(&candidate, &active, GateVerdict::Passed, &[]);
        let below = "NDCG@10 on all items is 0.8000; it must be at least 0.8550, that of the active parameters (0.9000) less \
                     gate.tolerance = 0.05";
        let (candidate, active) = (with_habits(&candidate), with_habits(&active));
        check(&candidate, &active, GateVerdict::Rejected, &[below]);
    }

    #[test]
    fn a_candidate_must_not_have_lost_much() {
        let check = |now, reasons: &[&str]| {
            let good = evaluated(100, 0.04, 0.1);
            let evidence = Evidence {
                candidate: &good,
                active: Some(&good),
                bias: &[],
                counts: now,
                active_counts: Some(counts(1_000, 100, 10_000)),
            };
            let verdict = if reasons.is_empty() {
                GateVerdict::Passed
            } else {
                GateVerdict::Rejected
            };
            check(&evidence, verdict, reasons);
        };
        check(counts(1_000, 100, 10_000), &[]);
        check(counts(5_000, 500, 50_000), &[]);
        check(counts(800, 80, 8_000), &[]);
        let users = "the model has 799 users, 20.1 % fewer than the active snapshot's 1000; \
                     gate.max_shrink = 0.2 allows 20.0 %";
        let items = "the model has 70 items, 30.0 % fewer than the active snapshot's 100; \
                     gate.max_shrink = 0.2 allows 20.0 %";
        let ratings = "the model has 5000 ratings, 50.0 % fewer than the active snapshot's 10000; \
                       gate.max_shrink = 0.2 allows 20.0 %";
        check(counts(799, 100, 10_000), &[users]);
        check(counts(1_000, 70, 10_000), &[items]);
        check(counts(1_000, 100, 5_000), &[ratings]);
        check(counts(799, 70, 5_000), &[users, items, ratings]);
    }

    #[test]
    fn an_empty_model_is_rejected_whatever_the_number_of_users() {
        for users in [0, 99, 100] {
            let candidate = evaluated(users, 0.04, 0.1);
            let too_few = too_few(users);
            let check = |counts, reason: &str| {
                let evidence = Evidence {
                    candidate: &candidate,
                    active: None,
                    bias: &[],
                    counts,
                    active_counts: None,
                };
                let reasons = [reason, &too_few];
                let shown = if users < 100 { 2 } else { 1 };
                check(&evidence, GateVerdict::Rejected, &reasons[..shown]);
            };
            check(
                counts(0, 5, 0),
                "the model has 0 users, 5 items and 0 ratings, and each must be 1 or more: import ratings, or purchases that were \
                 not all returned, which count as ratings unless training.implicit is off",
            );
        }
    }

    #[test]
    fn too_few_users_are_not_judged_by_rank_but_a_large_loss_is_seen() {
        let check = |users, now, active_counts, verdict, reasons: &[&str]| {
            // The candidate ranks worse than the active parameters.
            let candidate = evaluated(users, 0.9, 0.1);
            let active = evaluated(users, 0.0, 0.9);
            let evidence = Evidence {
                candidate: &candidate,
                active: Some(&active),
                bias: &[],
                counts: now,
                active_counts,
            };
            check(&evidence, verdict, reasons);
        };
        let (small, large) = (counts(10, 10, 10), counts(100, 10, 10));
        let (nobody, some) = (&*too_few(0), &*too_few(99));
        let insufficient = GateVerdict::InsufficientEvaluation;
        check(0, small, None, insufficient, &[nobody]);
        check(99, small, None, insufficient, &[some]);
        // The active snapshot was as small, so the model may shrink.
        check(0, counts(1, 1, 1), Some(counts(99, 10, 10)), insufficient, &[nobody]);
        // The active snapshot was large, so this is a loss.
        check(0, large, Some(large), insufficient, &[nobody]);
        let loss = "the model has 10 users, 90.0 % fewer than the active snapshot's 100; \
                    gate.max_shrink = 0.2 allows 20.0 %";
        check(0, small, Some(large), GateVerdict::Rejected, &[loss, nobody]);
    }

    #[test]
    fn options_out_of_range_are_named() {
        let check = |tolerance, max_shrink, min_users, field: Option<&str>| {
            let options = GateOptions {
                tolerance,
                max_shrink,
                min_users,
                ..GateOptions::default()
            };
            assert_eq!(options.validate().err().map(|error| error.field).as_deref(), field);
        };
        check(0.05, 0.2, 100, None);
        check(0.0, 1.0, 1, None);
        for bad in [-0.1, 1.1, f64::NAN] {
            check(bad, 0.2, 100, Some("gate.tolerance"));
            check(0.05, bad, 100, Some("gate.max_shrink"));
        }
        check(0.05, 0.2, 0, Some("gate.min_users"));
        let check = |options: GateOptions, field: Option<&str>| {
            assert_eq!(options.validate().err().map(|error| error.field).as_deref(), field);
        };
        for (limit, is_bad) in [(0.0, false), (1.0, false), (-0.1, true), (1.1, true), (f64::NAN, true)] {
            let limit = Some(limit);
            let field = |key| is_bad.then_some(key);
            let options = GateOptions::default;
            check(
                GateOptions {
                    max_gini: limit,
                    ..options()
                },
                field("gate.max_gini"),
            );
            check(
                GateOptions {
                    min_coverage: limit,
                    ..options()
                },
                field("gate.min_coverage"),
            );
            check(
                GateOptions {
                    min_group_ratio: limit,
                    ..options()
                },
                field("gate.min_group_ratio"),
            );
        }
    }

    /// Returns a bias report in which the groups of "age" have this ratio of NDCG.
    fn age_bias(ranker: Ranker, top: u32, ratio: f64) -> RankerBias {
        let ratio = GroupRatio {
            least_favored: "25-34".to_owned(),
            most_favored: "65+".to_owned(),
            ratio,
            low: ratio / 2.0,
            high: ratio * 2.0,
        };
        RankerBias {
            ranker: ranker.name.to_owned(),
            top,
            users: 100,
            ndcg: 0.1,
            hit_rate: 0.2,
            exposure: Exposure {
                gini: 0.0,
                coverage: 0.0,
                mean_popularity: 0.0,
                long_tail: LongTail {
                    items: 0,
                    exposure_share: 0.0,
                    rating_share: 0.0,
                },
            },
            popularity_groups: Vec::new(),
            activity_quartiles: Vec::new(),
            calibration: None,
            merchants: Merchants::default(),
            attributes: vec![AttributeBias {
                attribute: "age".to_owned(),
                groups: Vec::new(),
                hidden_users: 0,
                ndcg_ratio: Some(ratio),
                hit_rate_ratio: None,
                selection_rate_ratio: None,
            }],
        }
    }

    #[test]
    fn limits_on_unevenness_hold_only_where_they_are_set() {
        let mut candidate = evaluated(100, 0.04, 0.1);
        for row in &mut candidate.ranking {
            // Only the chosen ranker's new items count.
            let is_judged = row.ranker == BLENDED.name && row.items == ItemScope::New;
            (row.gini, row.coverage_at_20) = if is_judged { (0.7, 0.3) } else { (0.99, 0.01) };
        }
        let bias = [
            age_bias(BLENDED, 10, 0.8),
            age_bias(BLENDED, 20, 0.1),
            age_bias(POPULARITY, 10, 0.1),
        ];
        let check = |options: GateOptions, expected: &[&str]| {
            let evidence = Evidence {
                candidate: &candidate,
                active: None,
                bias: &bias,
                counts: counts(500, 50, 5_000),
                active_counts: None,
            };
            assert_eq!(judge(&evidence, &options).reasons, expected);
        };
        let options = |max_gini, min_coverage, min_group_ratio| GateOptions {
            max_gini,
            min_coverage,
            min_group_ratio,
            ..GateOptions::default()
        };
        check(GateOptions::default(), &[]);
        check(options(Some(0.7), Some(0.3), Some(0.8)), &[]);
        let gini = "the Gini index of recommended new items is 0.7000; gate.max_gini allows 0.69";
        check(options(Some(0.69), None, None), &[gini]);
        let coverage = "recommendations of new items cover 0.3000 of the listed items; gate.min_coverage demands 0.31";
        check(options(None, Some(0.31), None), &[coverage]);
        let ratio = "NDCG@10 of users whose age is 25-34 is 0.8000 of that of users whose age is 65+ (95 % interval: 0.4000 to \
                     1.600); gate.min_group_ratio demands 0.81";
        check(options(None, None, Some(0.81)), &[ratio]);
        check(options(Some(0.69), Some(0.31), Some(0.81)), &[gini, coverage, ratio]);
    }
}
