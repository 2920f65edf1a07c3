//! Compares the groups of users that an attribute makes.
//!
//! Small groups are not shown. Nor may they be worked out from what is shown: where the hidden groups and the users without a
//! value are fewer than the least group together, the next smallest group is hidden too.

use std::collections::BTreeMap;

use super::report::{AttributeBias, AttributeGroup, GroupRatio};
use crate::evaluation::metrics::mean;
use crate::evaluation::random::SplitMix;

/// The number of samples of a bootstrap interval.
const SAMPLES: usize = 1_000;
/// The share of samples beyond each limit of an interval.
const BEYOND: f64 = 0.025;

/// An attribute and the value of each user, `None` without one.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribute<'a> {
    pub name: &'a str,
    pub values: Vec<Option<&'a str>>,
}

/// The figures of the lists of one ranker, user by user.
pub(super) struct Outcomes {
    pub ndcgs: Vec<f64>,
    /// 1 where a relevant item was shown, else 0.
    pub hits: Vec<f64>,
    /// 1 where the list was made for the user, else 0.
    pub selected: Vec<f64>,
}

/// Returns the figures of the groups of `attribute`, and the ratios of the least to the most favored.
pub(super) fn compare(attribute: &Attribute, outcomes: &Outcomes, min_group: u64, seed: u64) -> AttributeBias {
    let groups = shown_groups(&attribute.values, min_group);
    let shown_users: usize = groups.iter().map(|(_, members)| members.len()).sum();
    let of = |values: &[f64], members: &[usize]| mean(members.iter().map(|&at| values[at]));
    let ratio = |values: &[f64]| {
        let of_group = |(value, members): &(&str, Vec<usize>)| Sample {
            value: (*value).to_owned(),
            figures: members.iter().map(|&at| values[at]).collect(),
        };
        ratio(&groups.iter().map(of_group).collect::<Vec<_>>(), seed)
    };
    AttributeBias {
        attribute: attribute.name.to_owned(),
        hidden_users: (attribute.values.len() - shown_users) as u64,
        ndcg_ratio: ratio(&outcomes.ndcgs),
        hit_rate_ratio: ratio(&outcomes.hits),
        selection_rate_ratio: ratio(&outcomes.selected),
        groups: groups
            .iter()
            .map(|(value, members)| AttributeGroup {
                value: (*value).to_owned(),
                users: members.len() as u64,
                ndcg: of(&outcomes.ndcgs, members),
                hit_rate: of(&outcomes.hits, members),
                selection_rate: of(&outcomes.selected, members),
            })
            .collect(),
    }
}

/// Returns the values whose groups may be shown, ascending, each with the positions of its members.
///
/// `values`: one a user.
pub fn shown_groups<'a>(values: &[Option<&'a str>], min_group: u64) -> Vec<(&'a str, Vec<usize>)> {
    let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, value) in values.iter().enumerate() {
        if let Some(value) = value {
            members.entry(value).or_default().push(at);
        }
    }
    let mut largest_last: Vec<(&str, Vec<usize>)> = members.into_iter().collect();
    largest_last.sort_by_key(|(_, members)| members.len());
    let mut hidden = values.iter().filter(|value| value.is_none()).count() as u64;
    let mut n_hidden = 0;
    for (_, members) in &largest_last {
        let is_small = (members.len() as u64) < min_group;
        let would_tell = n_hidden > 0 && hidden < min_group;
        if !is_small && !would_tell {
            break;
        }
        hidden += members.len() as u64;
        n_hidden += 1;
    }
    let mut shown = largest_last.split_off(n_hidden);
    shown.sort_by_key(|&(value, _)| value);
    shown
}

/// The figures of the members of one group.
pub struct Sample {
    pub value: String,
    pub figures: Vec<f64>,
}

/// Returns the ratio of the least to the largest mean, with the percentile bootstrap interval of the ratio of those two groups:
/// in each of 1,000 samples, as many members of each group are drawn with replacement.
///
/// The interval takes the least and the most favored group as given, so it does not tell how sure it is that they are these.
///
/// `None` with fewer than two groups, or if the largest mean is 0. Among equal groups the first is the least and the last the
/// most favored. `groups`: none empty.
///
/// Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", ch. 13.
pub fn ratio(groups: &[Sample], seed: u64) -> Option<GroupRatio> {
    let mean_of = |sample: &&Sample| mean(sample.figures.iter().copied());
    let least = groups.iter().min_by(|a, b| mean_of(a).total_cmp(&mean_of(b)))?;
    let most = groups.iter().max_by(|a, b| mean_of(a).total_cmp(&mean_of(b)))?;
    if groups.len() < 2 || mean_of(&most) == 0.0 {
        return None;
    }
    let mut random = SplitMix::new(seed);
    let mut drawn = |figures: &[f64]| {
        let drawn = |_| figures[random.below(figures.len() as u64) as usize];
        (0..figures.len()).map(drawn).sum::<f64>() / figures.len() as f64
    };
    let samples = (0..SAMPLES).map(|_| (drawn(&least.figures), drawn(&most.figures)));
    // A sample in which the most favored group has nothing but 0 has no ratio.
    let samples = samples.filter(|&(_, most)| most > 0.0);
    let mut ratios: Vec<f64> = samples.map(|(least, most)| least / most).collect();
    ratios.sort_by(f64::total_cmp);
    let quantile = |share: f64| {
        let at = share * ratios.len().saturating_sub(1) as f64;
        ratios.get(at.round() as usize).copied()
    };
    Some(GroupRatio {
        least_favored: least.value.clone(),
        most_favored: most.value.clone(),
        ratio: mean_of(&least) / mean_of(&most),
        low: quantile(BEYOND)?,
        high: quantile(1.0 - BEYOND)?,
    })
}
