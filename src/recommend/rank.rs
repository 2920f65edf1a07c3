//! Ranked items: the similarity-weighted sum, served from transposed lists.

use crate::domain::id::UserId;
use crate::model::dictionary::{ItemIndex, UserIndex};
use crate::model::floats::{Distinct, FloatSlice, MAX_DISTINCT};
use crate::model::popularity::Popularity;
use crate::model::ratings::{RankSlice, Rated};
use crate::model::snapshot::Snapshot;
use crate::model::view::{History, View};

use super::Basis;
use super::explain::{ItemContribution, SimilarUsers, item_contributions, similar_users};
use super::filter::{CompiledFilter, ItemFilter};
use super::popular::most_popular;
use super::prefetch::{AHEAD, prefetch_beginning, prefetch_ranks_beginning, prefetch_rated};
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
    let popularity = view.snapshot.popularity();
    let factors = scratch.factors(options.basis, view.snapshot.weights().ranking, popularity, passes);
    let ranked = scratch.top(options.limit, factors, popularity, passes);
    scratch.clear();

    if ranked.is_empty() {
        return Recommendations {
            personalization: Personalization::Popularity,
            items: most_popular(&view.snapshot, options.limit, filter.candidates(), passes)
                .into_iter()
                .map(|item| Recommended {
                    item,
                    score: f64::from(view.snapshot.popularity().raters(item)),
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
        let popularity = view.snapshot.popularity();
        let factors = scratch.factors(ranking.basis, ranking.weight, popularity, passes);
        let ranked = scratch.top(ranking.limit, factors, popularity, passes);
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
        let followers = |(item, _): (ItemIndex, f32)| snapshot.item_followers().row_range(item).len();
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
/// Items stand by their rank by popularity, so that most of what the ratings of neighbors add goes to few places.
///
/// What has been added to is noted by runs of `RUN` neighboring items. All sums are then gone through once, for the largest
/// of every run: in order, many compared at once, and hardly a branch that cannot be foreseen, which a list of the items
/// would be full of. Whatever is looked for after that is looked for among the runs, of which few hold any of it.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Item-based sums, one a rank, up to a whole number of groups and for every rank of two bytes.
    items: Vec<f64>,
    /// User-based sums.
    users: Vec<f64>,
    /// One a run: whether anything has been added to it.
    touched: Vec<bool>,
    /// The runs that were added to, ascending.
    runs: Vec<Run>,
    products: Products,
}

/// What one neighbor's ratings are worth, by their position among the distinct ones.
#[derive(Debug)]
struct Products([f64; MAX_DISTINCT]);

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
    /// Sums in a fixed order: that of the history, and neighbors best first.
    fn add_all(&mut self, view: &View, shopper: &Shopper, basis: Basis) {
        let snapshot = &*view.snapshot;
        let n_runs = snapshot.items().len().div_ceil(RUN * GROUP) * GROUP;
        if self.touched.len() < n_runs {
            self.touched.resize(n_runs, false);
            let n_sums = (n_runs * RUN).max(N_NARROW);
            // Made anew, not grown: what no item needs of them is then never touched, and takes no memory.
            self.items = vec![0.0; n_sums];
            self.users = vec![0.0; n_sums];
        }
        // With so many terms it takes longer to note the run with each than to go through some that nothing is added to.
        match n_terms(snapshot, shopper, basis) > snapshot.items().len() / 2 {
            true => {
                self.touched[..n_runs].fill(true);
                self.add_sides(snapshot, shopper, basis, |_, _| {});
            }
            false => self.add_sides(snapshot, shopper, basis, |touched, rank| {
                touched[rank as usize / RUN] = true;
            }),
        }
    }

    /// `note`: that something is added to the sums of an item, by its rank.
    fn add_sides(
        &mut self,
        snapshot: &Snapshot,
        shopper: &Shopper,
        basis: Basis,
        note: impl Fn(&mut [bool], u32) + Copy,
    ) {
        if basis.has_items() {
            let followers = |(item, _): (ItemIndex, f32)| snapshot.item_followers().row(item);
            let mut ahead = shopper.ratings().skip(AHEAD).map(followers);
            for (item, rating) in shopper.ratings() {
                ahead.next().into_iter().for_each(prefetch_row);
                let (followers, similarities) = snapshot.item_followers().row(item);
                let rating = f64::from(rating);
                let product = |similarity| rating * f64::from(similarity);
                let note = |rank| note(&mut self.touched, rank);
                add(&mut self.items, followers, similarities, product, note);
            }
        }
        if basis.has_users() {
            let rated = |(user, _): (UserIndex, f32)| snapshot.ratings().row(user.at());
            let mut ahead = shopper.neighbors().skip(AHEAD).map(rated);
            for (user, similarity) in shopper.neighbors() {
                ahead.next().into_iter().for_each(prefetch_rated);
                let Rated { ranks, values, .. } = snapshot.ratings().row(user.at());
                let similarity = f64::from(similarity);
                let product = |rating| similarity * f64::from(rating);
                let note = |rank| note(&mut self.touched, rank);
                let sums = &mut self.users;
                match values {
                    FloatSlice::Coded(distinct, positions) if distinct.values().len() <= positions.len() => {
                        let products = self.products.of(distinct, product);
                        add(sums, ranks, positions, |at| products[usize::from(at)], note);
                    }
                    FloatSlice::Coded(distinct, positions) => {
                        add(sums, ranks, positions, |at| product(distinct.value(at)), note);
                    }
                    FloatSlice::Plain(values) => add(sums, ranks, values, product, note),
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
    fn factors(
        &self,
        basis: Basis,
        weight: f64,
        popularity: &Popularity,
        passes: impl Fn(ItemIndex) -> bool,
    ) -> Factors {
        let (items, users) = match basis {
            Basis::ItemBased => return Factors { items: 1.0, users: 0.0 },
            Basis::UserBased => return Factors { items: 0.0, users: 1.0 },
            Basis::Blended => self.maxima(popularity, passes),
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
    fn maxima(&self, popularity: &Popularity, passes: impl Fn(ItemIndex) -> bool) -> (f64, f64) {
        let (mut items, mut users) = (0.0, 0.0);
        for run in &self.runs {
            if run.items <= items && run.users <= users {
                continue;
            }
            for (rank, by_items, by_users) in self.sums(run) {
                if (by_items > items || by_users > users) && passes(popularity.item(rank)) {
                    items = by_items.max(items);
                    users = by_users.max(users);
                }
            }
        }
        (items, users)
    }

    /// The best that pass; only items whose score is high enough are checked.
    fn top(
        &self,
        limit: usize,
        factors: Factors,
        popularity: &Popularity,
        passes: impl Fn(ItemIndex) -> bool,
    ) -> Vec<Scored> {
        let mut top = Top::new(limit, popularity.len());
        for run in &self.runs {
            // No score of the run is above that of its largest sums, for rounding keeps order.
            if factors.score(run.items, run.users) < top.least() {
                continue;
            }
            for (rank, by_items, by_users) in self.sums(run) {
                let score = factors.score(by_items, by_users);
                if score > 0.0 && score >= top.least() {
                    let item = popularity.item(rank);
                    let scored = Scored { score, item };
                    if top.admits(scored) && passes(item) {
                        top.insert(scored);
                    }
                }
            }
        }
        top.into_ranked()
    }

    /// The items of a run by rank, and both sums of each.
    fn sums(&self, run: &Run) -> impl Iterator<Item = (u32, f64, f64)> {
        let ranks = run.at * RUN..(run.at + 1) * RUN;
        let sums = self.items[ranks.clone()].iter().zip(&self.users[ranks.clone()]);
        // The snapshot's items are fewer than 2³².
        ranks
            .zip(sums)
            .map(|(rank, (&by_items, &by_users))| (rank as u32, by_items, by_users))
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

impl Default for Products {
    fn default() -> Self {
        Self([0.0; MAX_DISTINCT])
    }
}

impl Products {
    /// `product` of every distinct value. Behind them stands anything.
    fn of(&mut self, distinct: &Distinct, product: impl Fn(f32) -> f64) -> &[f64; MAX_DISTINCT] {
        for (of_value, &value) in self.0.iter_mut().zip(distinct.values()) {
            *of_value = product(value);
        }
        &self.0
    }
}

/// Ranks of two bytes: of so many sums each has one, and that need not be checked.
const N_NARROW: usize = 1 << 16;

/// Adds `product` of each of the `codes` to the sum of its rank; `note`: the rank. There are at least [`N_NARROW`] sums.
#[inline]
fn add<C: Copy>(
    sums: &mut [f64],
    ranks: RankSlice,
    codes: &[C],
    product: impl Fn(C) -> f64,
    mut note: impl FnMut(u32),
) {
    match ranks {
        RankSlice::Narrow(ranks) => {
            let Some(sums) = sums.first_chunk_mut::<N_NARROW>() else {
                unreachable!("there are as many");
            };
            add_products(ranks, codes, product, |rank, product| {
                sums[usize::from(rank)] += product;
                note(u32::from(rank));
            });
        }
        RankSlice::Wide(ranks) => add_products(ranks, codes, product, |rank, product| {
            sums[rank as usize] += product;
            note(rank);
        }),
    }
}

/// The products several at once, the sums one by one.
#[inline]
fn add_products<R: Copy, C: Copy>(ranks: &[R], codes: &[C], product: impl Fn(C) -> f64, mut add: impl FnMut(R, f64)) {
    const TOGETHER: usize = 8;
    let (ranks, last_ranks) = ranks.as_chunks::<TOGETHER>();
    let (codes, last_codes) = codes.as_chunks::<TOGETHER>();
    for (ranks, codes) in ranks.iter().zip(codes) {
        let mut products = [0.0; TOGETHER];
        for (of_code, &code) in products.iter_mut().zip(codes) {
            *of_code = product(code);
        }
        for (&rank, product) in ranks.iter().zip(products) {
            add(rank, product);
        }
    }
    for (&rank, &code) in last_ranks.iter().zip(last_codes) {
        add(rank, product(code));
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

fn prefetch_row((ranks, similarities): (RankSlice, &[f32])) {
    prefetch_ranks_beginning(ranks);
    prefetch_beginning(similarities);
}
