//! Compares how groups of users are selected by a campaign: who could be offered its coupons, who was, and who redeemed.

use std::collections::{HashMap, HashSet};

use domain::consent::Purpose;
use domain::id::UserId;
use domain::time::Timestamp;
use recommender::evaluation::bias::attributes::shown_groups;
use recommender::snapshot::view::View;

use super::offer_catalog::Offer;
use super::rules::history::History;
use super::rules::{CompiledRules, Users};

/// The quantile 1 − .05/2 of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// The users of a campaign, by external id.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SelectedUsers {
    /// The users who could be offered a coupon of the campaign: consent, suppression and the rules allow it.
    pub eligible: HashSet<String>,
    /// The users to whom it was offered: assigned, or exposed and not held out.
    pub targeted: HashSet<String>,
    /// The users with a redemption that was not rolled back.
    pub redeemed: HashSet<String>,
}

/// The report of one attribute.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    pub attribute: String,
    /// By value. Groups that are too small to be shown are missing.
    pub groups: Vec<GroupSelection>,
    /// The number of eligible users in the missing groups, and without a value.
    pub hidden_users: u64,
    /// The share of eligible users who were targeted, least ÷ most; `None` with fewer than two groups, or if it is 0 in all.
    pub selection_rate: Option<RateRatio>,
    /// The share of targeted users who redeemed, in the same way.
    pub redemption_rate: Option<RateRatio>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct GroupSelection {
    pub value: String,
    /// The users who are eligible now, or were targeted before.
    pub eligible: u64,
    pub targeted: u64,
    /// The targeted users who redeemed.
    pub redeemed: u64,
}

/// A rate in the group where it is least, divided by that in the group where it is largest.
#[derive(Debug, Clone, PartialEq)]
pub struct RateRatio {
    pub least: String,
    pub most: String,
    /// In [0, 1].
    pub ratio: f64,
    /// The limits of a 95 % interval.
    pub low: f64,
    pub high: f64,
}

/// Returns which of `users` could be offered a coupon of `offers`, as far as it depends on them and not on budgets, dates,
/// assignments or what they have used: they allow marketing, are not suppressed, and meet all rules of at least one coupon; and
/// they allow profiling where a rule needs their history.
///
/// `attributes`: the attributes of users that the rules ask for, ascending by name for each user.
pub fn eligible<'a>(
    users: impl Iterator<Item = &'a str>,
    offers: &[&Offer],
    attributes: &HashMap<String, Vec<(String, String)>>,
    view: &View,
    now: Timestamp,
) -> HashSet<String> {
    // Many coupons of a campaign have the same rules, or none.
    let mut distinct: Vec<&Offer> = Vec::new();
    for offer in offers {
        let same = |other: &&Offer| other.coupon.rules == offer.coupon.rules && is_like(other, offer);
        if !distinct.iter().any(same) {
            distinct.push(offer);
        }
    }
    let rules: Vec<CompiledRules> = distinct
        .iter()
        .map(|offer| CompiledRules::new(offer, Some(view), Users::Many))
        .collect();
    let is_eligible = |id: &&str| {
        // This never fails: ids are checked when they are written.
        let Ok(user) = UserId::stored(*id) else { return false };
        let consents = view.consents(&user);
        if !view.privacy.allows(consents, Purpose::Marketing) || consents.is_suppressed() {
            return false;
        }
        let may_profile = view.privacy.allows(consents, Purpose::Profiling);
        let history = History::of_user(view, &user);
        let own = attributes.get(*id).map_or(&[][..], Vec::as_slice);
        rules.iter().any(|rules| {
            (0..rules.len()).all(|rule| {
                (may_profile || !rules.needs_history(rule)) && rules.check(rule, own, Some(&history), now).is_ok()
            })
        })
    };
    users.filter(is_eligible).map(str::to_owned).collect()
}

/// Tells whether rules mean the same in both offers: minimum affinity is to the items that the offer covers.
fn is_like(one: &Offer, other: &Offer) -> bool {
    use domain::coupon::Rule;
    let rests_on_scope = one
        .coupon
        .rules
        .iter()
        .any(|rule| matches!(rule, Rule::MinAffinity { .. }));
    !rests_on_scope || one.coupon.scope == other.coupon.scope
}

/// Compares the groups that an attribute makes of the eligible and targeted users.
///
/// `value_of`: the users' values of the attribute. `min_group`: groups with fewer eligible users are not shown.
pub fn compare(
    attribute: &str,
    value_of: &HashMap<String, String>,
    users: &SelectedUsers,
    min_group: u64,
) -> Selection {
    let mut all: Vec<&String> = users.eligible.union(&users.targeted).collect();
    all.sort_unstable();
    let values: Vec<Option<&str>> = all.iter().map(|id| value_of.get(*id).map(String::as_str)).collect();
    let shown = shown_groups(&values, min_group);
    let group = |(value, members): &(&str, Vec<usize>)| {
        let targeted = members.iter().filter(|&&at| users.targeted.contains(all[at]));
        let redeemed = targeted.clone().filter(|&&at| users.redeemed.contains(all[at]));
        GroupSelection {
            value: (*value).to_owned(),
            eligible: members.len() as u64,
            targeted: targeted.count() as u64,
            redeemed: redeemed.count() as u64,
        }
    };
    let groups: Vec<GroupSelection> = shown.iter().map(group).collect();
    let shown_users: u64 = groups.iter().map(|group| group.eligible).sum();
    let rates = |of: fn(&GroupSelection) -> (u64, u64)| {
        rate_ratio(groups.iter().filter_map(|group| Rate::new(&group.value, of(group))))
    };
    Selection {
        attribute: attribute.to_owned(),
        hidden_users: all.len() as u64 - shown_users,
        selection_rate: rates(|group| (group.targeted, group.eligible)),
        redemption_rate: rates(|group| (group.redeemed, group.targeted)),
        groups,
    }
}

/// A share of the users of a group.
struct Rate<'a> {
    value: &'a str,
    /// At most `of`.
    count: f64,
    of: f64,
}

impl<'a> Rate<'a> {
    /// `None` without users.
    fn new(value: &'a str, (count, of): (u64, u64)) -> Option<Self> {
        (of > 0).then_some(Self {
            value,
            count: count as f64,
            of: of as f64,
        })
    }

    fn rate(&self) -> f64 {
        self.count / self.of
    }
}

/// Returns the least rate divided by the largest, with the interval of the logarithm of a ratio of two proportions,
/// `ln r ± z·√(1/a − 1/m + 1/b − 1/n)` for a of m and b of n. Where a count is 0, half a user is added to both counts and both
/// groups.
///
/// Sources: Katz, Baptista, Azen & Pike 1978, "Obtaining Confidence Intervals for the Risk Ratio in Cohort Studies"; Pettigrew,
/// Gart & Thomas 1986 for the added half.
fn rate_ratio<'a>(rates: impl Iterator<Item = Rate<'a>>) -> Option<RateRatio> {
    let rates: Vec<Rate> = rates.collect();
    let least = rates.iter().min_by(|a, b| a.rate().total_cmp(&b.rate()))?;
    let most = rates.iter().max_by(|a, b| a.rate().total_cmp(&b.rate()))?;
    if rates.len() < 2 || most.count == 0.0 {
        return None;
    }
    let added = if least.count == 0.0 { 0.5 } else { 0.0 };
    let (a, m, b, n) = (
        least.count + added,
        least.of + added,
        most.count + added,
        most.of + added,
    );
    let ratio = (a / m) / (b / n);
    let spread = Z * (1.0 / a - 1.0 / m + 1.0 / b - 1.0 / n).max(0.0).sqrt();
    Some(RateRatio {
        least: least.value.to_owned(),
        most: most.value.to_owned(),
        ratio: least.rate() / most.rate(),
        low: ratio * (-spread).exp(),
        high: ratio * spread.exp(),
    })
}

#[cfg(test)]
mod tests;
