//! Ranked items: the similarity-weighted sum, served from transposed lists.

use crate::domain::id::UserId;
use crate::model::dictionary::{ItemIndex, UserIndex};
use crate::model::floats::FloatSlice;
use crate::model::ratings::{ItemSlice, Rated};
use crate::model::snapshot::Snapshot;
use crate::model::view::{History, View};

use super::Basis;
use super::explain::{ItemContribution, SimilarUsers, item_contributions, similar_users};
use super::filter::{CompiledFilter, ItemFilter};
use super::popular::most_popular;
use super::prefetch::{AHEAD, prefetch_beginning, prefetch_rated};
use super::shopper::Shopper;
use super::top::{Scored, Top};

#[cfg(test)]
mod tests;

/// Whom to recommend to.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject<'a> {
    /// As they are now, and as far as they have not objected.
    User(&'a UserId),
    /// As the snapshot knows them, whatever has changed since.
    UserIndex(UserIndex),
    /// An anonymous visitor: what they have looked at or put into the cart. These items are never recommended.
    Session(History),
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct RankOptions {
    pub limit: usize,
    pub basis: Basis,
    pub filter: ItemFilter,
    /// Leaves out what the user has bought.
    pub exclude_purchased: bool,
    /// Leaves out all that the user has rated or bought.
    pub exclude_history: bool,
    pub explain: bool,
}

/// Why these items are in the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Personalization {
    /// Scored by similarity.
    Personalized,
    /// The most popular: nothing is known, or may be used, that could tell more.
    Popularity,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Recommendations {
    pub personalization: Personalization,
    /// Best first.
    pub items: Vec<Recommended>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Recommended {
    pub item: ItemIndex,
    /// Personalized: the ranking score, above 0; by popularity: the number of raters.
    pub score: f64,
    /// Present when asked for and personalized.
    pub explanation: Option<ScoreExplanation>,
}

/// The terms of a ranking score; they sum to it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreExplanation {
    /// Largest contribution first.
    pub items: Vec<ItemContribution>,
    /// `None` when no similar user has rated the item, or they were not asked.
    pub similar_users: Option<SimilarUsers>,
}

/// The best `limit` items for `subject` that pass the filter and the exclusions.
///
/// Item-based: Σ sim(i, j)·R[u, j] over the j of the history that stand in i's own list; user-based:
/// Σ sim(u, v)·R[v, i] over u's neighbors v; blended: each divided by its maximum over the user's candidates, then
/// weighted as fitted. Where only one side has candidates it stands alone, with weight 1. Candidates have a score
/// above 0; without any the answer is the most popular items. Ties by item id.
///
/// Who has objected to profiling gets the most popular items too. The exclusions hold for them all the same: they rank
/// nothing, and nobody wants to be shown again what they have just bought.
///
/// Source: ARCHITECTURE.md, "Ranking".
pub fn recommend(view: &View, subject: &Subject, options: &RankOptions, scratch: &mut Scratch) -> Recommendations {
    let shopper = shopper(view, subject);
    let filter = CompiledFilter::new(&options.filter, view);
    let exclude_history = options.exclude_history || matches!(subject, Subject::Session(_));
    let passes = |item: ItemIndex| {
        filter.passes(item)
            && !(exclude_history && shopper.has_rated(item))
            && !(options.exclude_purchased && shopper.has_purchased(item))
    };

    scratch.add_all(view, &shopper, options.basis);
    scratch.find_runs();
    let factors = scratch.factors(options.basis, view.snapshot.weights().ranking, passes);
    let ranked = scratch.top(options.limit, factors, passes);
    scratch.clear();

    if ranked.is_empty() {
        return Recommendations {
            personalization: Personalization::Popularity,
            items: most_popular(&view.snapshot, options.limit, filter.candidates(), passes)
                .into_iter()
                .map(|item| Recommended {
                    item,
                    score: f64::from(view.snapshot.raters(item)),
                    explanation: None,
                })
                .collect(),
        };
    }
    Recommendations {
        personalization: Personalization::Personalized,
        items: ranked
            .into_iter()
            .map(|Scored { score, item }| Recommended {
                item,
                score,
                explanation: options
                    .explain
                    .then(|| explain(&view.snapshot, &shopper, item, factors)),
            })
            .collect(),
    }
}

/// One of the ways in which [`rank_each`] ranks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranking<'a> {
    pub limit: usize,
    pub basis: Basis,
    /// Of the item-based side of a blend, in [0, 1], whatever the snapshot says.
    pub weight: f64,
    /// Left out; ascending.
    pub excluded: &'a [ItemIndex],
}

/// The best listed items for a user as the snapshot knows them, by each of `rankings`: as [`recommend`] ranks, but the sums,
/// which cost most, are added up once for all. A list is empty where nothing has a score.
pub fn rank_each(view: &View, user: UserIndex, rankings: &[Ranking], scratch: &mut Scratch) -> Vec<Vec<ItemIndex>> {
    let listed = &view.snapshot.catalogue().listed;
    scratch.add_all(view, &Shopper::of_index(view, user), Basis::Blended);
    scratch.find_runs();
    let rank = |ranking: &Ranking| {
        let passes = |item: ItemIndex| listed.get(item.at()) && ranking.excluded.binary_search(&item).is_err();
        let factors = scratch.factors(ranking.basis, ranking.weight, passes);
        let ranked = scratch.top(ranking.limit, factors, passes);
        ranked.into_iter().map(|scored| scored.item).collect()
    };
    let lists = rankings.iter().map(rank).collect();
    scratch.clear();
    lists
}

/// The multiply-adds that [`recommend`] will do before it ranks; far cheaper than doing them.
pub fn estimated_work(view: &View, subject: &Subject, basis: Basis) -> usize {
    n_terms(&view.snapshot, &shopper(view, subject), basis)
}

/// How many terms all sums have together.
fn n_terms(snapshot: &Snapshot, shopper: &Shopper, basis: Basis) -> usize {
    let mut work = 0;
    if basis.has_items() {
        let followers = |(item, _): (ItemIndex, f32)| snapshot.item_followers().row(item.at()).0.len();
        work += shopper.ratings().map(followers).sum::<usize>();
    }
    if basis.has_users() {
        let rated = |(user, _): (UserIndex, f32)| snapshot.ratings().row_range(user.at()).len();
        work += shopper.neighbors().map(rated).sum::<usize>();
    }
    work
}

fn shopper<'a>(view: &'a View, subject: &Subject) -> Shopper<'a> {
    match subject {
        Subject::User(user) => Shopper::of_user(view, user),
        Subject::UserIndex(user) => Shopper::of_index(view, *user),
        Subject::Session(history) => Shopper::of_session(view, history),
    }
}

fn explain(snapshot: &Snapshot, shopper: &Shopper, item: ItemIndex, factors: Factors) -> ScoreExplanation {
    let items = |_, similarity: f64, rating: f64| factors.items * similarity * rating;
    let users = |_, similarity: f64, rating: f64| factors.users * similarity * rating;
    ScoreExplanation {
        items: match factors.items > 0.0 {
            true => item_contributions(snapshot, shopper, item, items),
            false => Vec::new(),
        },
        similar_users: match factors.users > 0.0 {
            true => similar_users(snapshot, shopper, item, users),
            false => None,
        },
    }
}

/// Room for the scores of one request, kept for the next: it grows to the number of items, and between requests every
/// sum is 0.
///
/// What has been added to is noted by runs of `RUN` neighboring items. All sums are then gone through once, for the largest
/// of every run: in order, many compared at once, and hardly a branch that cannot be foreseen, which a list of the items
/// would be full of. Whatever is looked for after that is looked for among the runs, of which few hold any of it.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Item-based sums, one an item, up to a whole number of groups.
    items: Vec<f64>,
    /// User-based sums.
    users: Vec<f64>,
    /// One a run: whether anything has been added to it.
    touched: Vec<bool>,
    /// The runs that were added to, ascending.
    runs: Vec<Run>,
}

/// The largest sums of a run.
#[derive(Debug, Clone, Copy)]
struct Run {
    at: usize,
    items: f64,
    users: f64,
}

/// Items whose sums are gone through together: two lines of the processor's cache for each side. With more of them, runs
/// that hold next to nothing would cost more in a large catalogue.
const RUN: usize = 16;
/// Runs that are passed over at once when none of them is touched.
const GROUP: usize = 16;

/// What the two sums of an item are multiplied by before they are added.
#[derive(Debug, Clone, Copy)]
struct Factors {
    items: f64,
    users: f64,
}

impl Scratch {
    /// Sums in a fixed order: history ascending by item, neighbors best first.
    fn add_all(&mut self, view: &View, shopper: &Shopper, basis: Basis) {
        let snapshot = &*view.snapshot;
        let n_runs = snapshot.items().len().div_ceil(RUN * GROUP) * GROUP;
        if self.touched.len() < n_runs {
            self.touched.resize(n_runs, false);
            self.items.resize(n_runs * RUN, 0.0);
            self.users.resize(n_runs * RUN, 0.0);
        }
        // With so many terms nearly every run is added to: said of all at once, it need not be noted with every term.
        match n_terms(snapshot, shopper, basis) > snapshot.items().len() / 2 {
            true => {
                self.touched[..n_runs].fill(true);
                self.add_sides(snapshot, shopper, basis, |_, _| {});
            }
            false => self.add_sides(snapshot, shopper, basis, |touched, item| {
                touched[item as usize / RUN] = true;
            }),
        }
    }

    /// `note`: that something is added to the sums of an item.
    fn add_sides(
        &mut self,
        snapshot: &Snapshot,
        shopper: &Shopper,
        basis: Basis,
        note: impl Fn(&mut [bool], u32) + Copy,
    ) {
        if basis.has_items() {
            let followers = |(item, _): (ItemIndex, f32)| snapshot.item_followers().row(item.at());
            let mut ahead = shopper.ratings().skip(AHEAD).map(followers);
            for (item, rating) in shopper.ratings() {
                ahead.next().into_iter().for_each(prefetch_row);
                let (followers, similarities) = snapshot.item_followers().row(item.at());
                let note = |item| note(&mut self.touched, item);
                add(&mut self.items, followers, similarities, |value| value, rating, note);
            }
        }
        if basis.has_users() {
            let rated = |(user, _): (UserIndex, f32)| snapshot.ratings().row(user.at());
            let mut ahead = shopper.neighbors().skip(AHEAD).map(rated);
            for (user, similarity) in shopper.neighbors() {
                ahead.next().into_iter().for_each(prefetch_rated);
                let Rated { items, values } = snapshot.ratings().row(user.at());
                let note = |item| note(&mut self.touched, item);
                let sums = &mut self.users;
                match (items, values) {
                    (ItemSlice::Narrow(items), FloatSlice::Coded(distinct, positions)) => {
                        add(sums, items, positions, |at| distinct.value(at), similarity, note);
                    }
                    (ItemSlice::Narrow(items), FloatSlice::Plain(values)) => {
                        add(sums, items, values, |value| value, similarity, note);
                    }
                    (ItemSlice::Wide(items), FloatSlice::Coded(distinct, positions)) => {
                        add(sums, items, positions, |at| distinct.value(at), similarity, note);
                    }
                    (ItemSlice::Wide(items), FloatSlice::Plain(values)) => {
                        add(sums, items, values, |value| value, similarity, note);
                    }
                }
            }
        }
    }

    /// After the last sum has been added to.
    fn find_runs(&mut self) {
        let (all_by_items, _) = self.items.as_chunks::<RUN>();
        let (all_by_users, _) = self.users.as_chunks::<RUN>();
        let (groups, _) = self.touched.as_chunks::<GROUP>();
        self.runs.clear();
        for (group, first) in groups.iter().zip((0..).step_by(GROUP)) {
            if *group == [false; GROUP] {
                continue;
            }
            for (at, &is_touched) in (first..).zip(group) {
                if is_touched {
                    self.runs.push(Run {
                        at,
                        items: largest(&all_by_items[at]),
                        users: largest(&all_by_users[at]),
                    });
                }
            }
        }
    }

    /// `weight`: of the item-based side of a blend.
    fn factors(&self, basis: Basis, weight: f64, passes: impl Fn(ItemIndex) -> bool) -> Factors {
        let (items, users) = match basis {
            Basis::ItemBased => return Factors { items: 1.0, users: 0.0 },
            Basis::UserBased => return Factors { items: 0.0, users: 1.0 },
            Basis::Blended => self.maxima(passes),
        };
        match (items > 0.0, users > 0.0) {
            (true, true) => Factors {
                items: weight / items,
                users: (1.0 - weight) / users,
            },
            (true, false) => Factors {
                items: 1.0 / items,
                users: 0.0,
            },
            (false, true) => Factors {
                items: 0.0,
                users: 1.0 / users,
            },
            (false, false) => Factors { items: 0.0, users: 0.0 },
        }
    }

    /// The largest sums of items that pass. They come before any ranking, for every blended score depends on them; but
    /// only an item that would raise a maximum has to be checked.
    fn maxima(&self, passes: impl Fn(ItemIndex) -> bool) -> (f64, f64) {
        let (mut items, mut users) = (0.0, 0.0);
        for run in &self.runs {
            if run.items <= items && run.users <= users {
                continue;
            }
            for (item, by_items, by_users) in self.sums(run) {
                if (by_items > items || by_users > users) && passes(item) {
                    items = by_items.max(items);
                    users = by_users.max(users);
                }
            }
        }
        (items, users)
    }

    /// The best that pass; only items whose score is high enough are checked.
    fn top(&self, limit: usize, factors: Factors, passes: impl Fn(ItemIndex) -> bool) -> Vec<Scored> {
        let mut top = Top::new(limit, self.items.len());
        for run in &self.runs {
            // No score of the run is above that of its largest sums, for rounding keeps order.
            if factors.score(run.items, run.users) < top.least() {
                continue;
            }
            for (item, by_items, by_users) in self.sums(run) {
                let score = factors.score(by_items, by_users);
                let scored = Scored { score, item };
                if score > 0.0 && top.admits(scored) && passes(item) {
                    top.insert(scored);
                }
            }
        }
        top.into_ranked()
    }

    /// The items of a run, and both sums of each.
    fn sums(&self, run: &Run) -> impl Iterator<Item = (ItemIndex, f64, f64)> {
        let items = run.at * RUN..(run.at + 1) * RUN;
        let sums = self.items[items.clone()].iter().zip(&self.users[items.clone()]);
        // The snapshot's items are fewer than 2³².
        let indices = items.map(|item| ItemIndex(item as u32));
        indices
            .zip(sums)
            .map(|(item, (&by_items, &by_users))| (item, by_items, by_users))
    }

    /// Leaves every sum 0.
    fn clear(&mut self) {
        let (all_by_items, _) = self.items.as_chunks_mut::<RUN>();
        let (all_by_users, _) = self.users.as_chunks_mut::<RUN>();
        for run in &self.runs {
            all_by_items[run.at] = [0.0; RUN];
            all_by_users[run.at] = [0.0; RUN];
            self.touched[run.at] = false;
        }
    }
}

impl Factors {
    fn score(self, by_items: f64, by_users: f64) -> f64 {
        self.items * by_items + self.users * by_users
    }
}

/// Adds `factor` · `value` of `codes` to the `items`' sums. The products several at once, the sums one by one.
#[inline]
fn add<I: Copy + Into<u32>, C: Copy>(
    sums: &mut [f64],
    items: &[I],
    codes: &[C],
    value: impl Fn(C) -> f32,
    factor: f32,
    mut note: impl FnMut(u32),
) {
    const TOGETHER: usize = 8;
    let factor = f64::from(factor);
    let mut add = |item: I, product: f64| {
        let item = item.into();
        sums[item as usize] += product;
        note(item);
    };
    let (items, last_items) = items.as_chunks::<TOGETHER>();
    let (codes, last_codes) = codes.as_chunks::<TOGETHER>();
    for (items, codes) in items.iter().zip(codes) {
        let products = codes.map(|code| factor * f64::from(value(code)));
        for (&item, product) in items.iter().zip(products) {
            add(item, product);
        }
    }
    for (&item, &code) in last_items.iter().zip(last_codes) {
        add(item, factor * f64::from(value(code)));
    }
}

/// None is NaN. By halves, so that the comparisons do not wait for one another.
fn largest(values: &[f64; RUN]) -> f64 {
    let larger = |a: f64, b: f64| if a > b { a } else { b };
    let mut values = *values;
    for half in [8, 4, 2, 1] {
        for at in 0..half {
            values[at] = larger(values[at], values[at + half]);
        }
    }
    values[0]
}

fn prefetch_row((indices, values): (&[u32], &[f32])) {
    prefetch_beginning(indices);
    prefetch_beginning(values);
}
