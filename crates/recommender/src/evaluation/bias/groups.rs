//! Groups of users by how popular their tastes are, and by how much they have rated or bought.
//!
//! Source: Abdollahpouri, Mansoury, Burke & Mobasher 2019, "The Unfairness of Popularity Bias in Recommendation". Popular items
//! are the fifth of the items with the most users. Users are ordered by the share of popular items in their history; the first
//! fifth are niche, the last fifth mainstream. Group average popularity: the mean over users of the mean popularity of items.

use crate::snapshot::bits::Bits;
use crate::snapshot::dictionary::ItemIndex;

use super::TestUser;
use super::report::{ActivityQuartile, PopularityGroup, PopularityTaste};
use crate::evaluation::metrics::mean;

/// The share of the items that are popular, and of the users who are niche, or mainstream.
const FIFTH: f64 = 0.2;

/// The groups of the users of the test part.
pub(super) struct Groups<'a> {
    users: &'a [TestUser<'a>],
    tastes: Vec<PopularityTaste>,
    /// 1 to 4, one a user.
    quartiles: Vec<u32>,
    min_group: u64,
}

impl<'a> Groups<'a> {
    /// `item_users`: the number of users of each item.
    pub fn new(item_users: &[u32], users: &'a [TestUser<'a>], min_group: u64) -> Self {
        let popular = popular_items(item_users);
        let share = |user: &TestUser| {
            let popular = user.history.iter().filter(|item| popular.get(item.at())).count();
            popular as f64 / user.history.len().max(1) as f64
        };
        let tastes = percentiles(users.iter().map(share))
            .into_iter()
            .map(|percentile| match percentile {
                _ if percentile < FIFTH => PopularityTaste::Niche,
                _ if percentile > 1.0 - FIFTH => PopularityTaste::Mainstream,
                _ => PopularityTaste::Mixed,
            });
        let quartiles = percentiles(users.iter().map(|user| user.history.len() as f64)).into_iter();
        Self {
            users,
            tastes: tastes.collect(),
            // Percentiles are below 1.
            quartiles: quartiles.map(|percentile| (4.0 * percentile) as u32 + 1).collect(),
            min_group,
        }
    }

    /// `lists`, `ndcgs`: one a user.
    pub fn by_popularity(&self, item_users: &[u32], lists: &[&[ItemIndex]], ndcgs: &[f64]) -> Vec<PopularityGroup> {
        let popularity = |items: &[ItemIndex]| mean(items.iter().map(|item| f64::from(item_users[item.at()])));
        let group = |taste: PopularityTaste| {
            let is_shown = |&at: &usize| self.tastes[at] == taste && !lists[at].is_empty();
            let members: Vec<usize> = (0..self.users.len()).filter(is_shown).collect();
            if (members.len() as u64) < self.min_group {
                return None;
            }
            let history_popularity = mean(members.iter().map(|&at| popularity(self.users[at].history)));
            let shown_popularity = mean(members.iter().map(|&at| popularity(lists[at])));
            Some(PopularityGroup {
                group: taste,
                users: members.len() as u64,
                history_popularity,
                shown_popularity,
                popularity_lift: (history_popularity > 0.0).then(|| shown_popularity / history_popularity - 1.0),
                ndcg: mean(members.iter().map(|&at| ndcgs[at])),
            })
        };
        let tastes = [
            PopularityTaste::Niche,
            PopularityTaste::Mixed,
            PopularityTaste::Mainstream,
        ];
        tastes.into_iter().filter_map(group).collect()
    }

    /// `ndcgs`: one a user.
    pub fn by_activity(&self, ndcgs: &[f64]) -> Vec<ActivityQuartile> {
        let quartile = |quartile: u32| {
            let members = self.quartiles.iter().zip(ndcgs).filter(|&(&of, _)| of == quartile);
            let ndcgs: Vec<f64> = members.map(|(_, &ndcg)| ndcg).collect();
            (ndcgs.len() as u64 >= self.min_group).then(|| ActivityQuartile {
                quartile,
                users: ndcgs.len() as u64,
                ndcg: mean(ndcgs.iter().copied()),
            })
        };
        (1..=4).filter_map(quartile).collect()
    }
}

/// Returns the fifth of the items, rounded up, with the most users; of equals those with the lower index.
fn popular_items(users: &[u32]) -> Bits {
    let mut by_popularity: Vec<usize> = (0..users.len()).collect();
    by_popularity.sort_by_key(|&item| std::cmp::Reverse(users[item]));
    let mut popular = Bits::zeros(users.len());
    for &item in &by_popularity[..users.len().div_ceil(5)] {
        popular.set(item, true);
    }
    popular
}

/// Returns for each value the share of smaller values plus half of the share of equal ones, in (0, 1), so that equal values
/// have equal percentiles.
fn percentiles(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let values: Vec<f64> = values.collect();
    let mut ascending = values.clone();
    ascending.sort_by(f64::total_cmp);
    let percentile = |&value: &f64| {
        let smaller = ascending.partition_point(|other| *other < value);
        let not_larger = ascending.partition_point(|other| *other <= value);
        (smaller + not_larger) as f64 / (2 * ascending.len()) as f64
    };
    values.iter().map(percentile).collect()
}
