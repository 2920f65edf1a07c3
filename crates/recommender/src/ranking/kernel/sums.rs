//! The sums of all items by which they are ranked, and the best of them.

use crate::snapshot::Snapshot;
use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::snapshot::floats::{Distinct, FloatSlice, MAX_DISTINCT};
use crate::snapshot::popularity::Popularity;
use crate::snapshot::ratings::{RankSlice, Rated};

use super::prefetch::{AHEAD, prefetch_beginning, prefetch_ranks_beginning, prefetch_rated};
use super::top::{Scored, Top};
use crate::ranking::Basis;
use crate::ranking::shopper::Shopper;

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
/// that hold next to nothing would cost more in a large catalog.
const RUN: usize = 16;
/// Runs that are passed over at once when none of them is touched.
const GROUP: usize = 16;

/// What the two sums of an item are multiplied by before they are added.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Factors {
    pub items: f64,
    pub users: f64,
}

impl Scratch {
    /// Sums in a fixed order: that of the history, and neighbors best first.
    pub(crate) fn add_all(&mut self, snapshot: &Snapshot, shopper: &Shopper, basis: Basis) {
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
            let reverse_neighbors = |(item, _): (ItemIndex, f32)| snapshot.reverse_item_neighbors().row(item);
            let mut ahead = shopper.ratings().skip(AHEAD).map(reverse_neighbors);
            for (item, rating) in shopper.ratings() {
                ahead.next().into_iter().for_each(prefetch_row);
                let (reverse_neighbors, similarities) = snapshot.reverse_item_neighbors().row(item);
                let rating = f64::from(rating);
                let product = |similarity| rating * f64::from(similarity);
                let note = |rank| note(&mut self.touched, rank);
                add(&mut self.items, reverse_neighbors, similarities, product, note);
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
    pub(crate) fn find_runs(&mut self) {
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
    pub(crate) fn factors(
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
    pub(crate) fn top(
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
    pub(crate) fn clear(&mut self) {
        let (all_by_items, _) = self.items.as_chunks_mut::<RUN>();
        let (all_by_users, _) = self.users.as_chunks_mut::<RUN>();
        for run in &self.runs {
            all_by_items[run.at] = [0.0; RUN];
            all_by_users[run.at] = [0.0; RUN];
            self.touched[run.at] = false;
        }
    }

    /// Whether nothing of a request is left.
    #[cfg(test)]
    pub(crate) fn is_clear(&self) -> bool {
        self.items.iter().chain(&self.users).all(|&sum| sum == 0.0) && !self.touched.contains(&true)
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

/// How many terms all sums have together.
pub(crate) fn n_terms(snapshot: &Snapshot, shopper: &Shopper, basis: Basis) -> usize {
    let mut work = 0;
    if basis.has_items() {
        let reverse_neighbors = |(item, _): (ItemIndex, f32)| snapshot.reverse_item_neighbors().row_range(item).len();
        work += shopper.ratings().map(reverse_neighbors).sum::<usize>();
    }
    if basis.has_users() {
        let rated = |(user, _): (UserIndex, f32)| snapshot.ratings().row_range(user.at()).len();
        work += shopper.neighbors().map(rated).sum::<usize>();
    }
    work
}
