//! Adds up the sums of all items by which they are ranked, and finds the best of them.

use crate::snapshot::Snapshot;
use crate::snapshot::by_rank::{ByRank, GROUP, RUN, n_runs};
use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::snapshot::popularity::Popularity;
use crate::snapshot::ratings::{RankSlice, Rated};

use super::accumulate::{MIN_SUMS, Products, add_ratings, add_values};
use super::prefetch::{AHEAD, prefetch_beginning, prefetch_ranks_beginning, prefetch_rated};
use super::top::{Scored, Top};
use crate::ranking::Basis;
use crate::ranking::shopper::Shopper;

#[cfg(test)]
mod tests;

/// The buffers of one ranking, reused by the next. They grow to the number of items; between rankings every sum is 0.
///
/// Sums stand in the order of the items' ranks by popularity, so that most ratings of neighbors add to few cache lines.
///
/// A run is `RUN` consecutive sums: two cache lines of each side. In a large catalog, longer runs would waste time on sums
/// that are 0. A ranking notes which runs it adds to, then goes through these once and finds the
/// largest sums of each. That pass reads memory in order, compares several sums at once and has hardly a branch that
/// is hard to predict; a list of the touched items would be full of such branches. Every later search skips the runs whose
/// largest sums are too small, which is most of them.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Item-based sums by rank, padded with zeros to a whole number of groups of runs and to [`MIN_SUMS`].
    items: Vec<f64>,
    /// User-based sums, in the same way.
    users: Vec<f64>,
    /// Own habits, in the same way; only those of `habit_ranks` are not 0.
    habits: Vec<f64>,
    /// The largest own habit of each run.
    run_habits: Vec<f64>,
    habit_ranks: Vec<usize>,
    /// For each run, whether anything has been added to it.
    touched: Vec<bool>,
    /// The runs that were added to, ascending, in its first `n_touched` entries.
    runs: Vec<Run>,
    n_touched: usize,
    /// How many runs the items of the snapshot take, in whole groups.
    n_runs: usize,
    products: Products,
}

/// The position of a run and its largest sums.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    at: usize,
    items: f64,
    users: f64,
    habits: f64,
}

/// The sums of one ranking. Dropping them clears the scratch.
pub(crate) struct Sums<'a> {
    scratch: &'a mut Scratch,
    largest: Largest,
    popularity: &'a Popularity,
}

/// The largest sum of each side and the largest own habit, of all items.
#[derive(Debug, Clone, Copy, Default)]
struct Largest {
    items: f64,
    users: f64,
    habits: f64,
}

/// A score is the item-based sum times `items` plus the user-based sum times `users`, both times the trend factor of the item,
/// plus the own habit times `habits`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Factors<'a> {
    pub items: f64,
    pub users: f64,
    /// `None` where every trend factor is 1.
    pub trend: Option<&'a ByRank>,
    pub habits: f64,
}

/// The weights and factors that make a blended score out of the sums.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Blend<'a> {
    /// The share of the item-based side, in [0, 1], where both sides have a sum above 0.
    pub item_weight: f64,
    /// The trend factor of each item; `None` where every one is 1.
    pub trend: Option<&'a ByRank>,
    /// The weight of own habits beside the rest; at least 0, and 0 unless the sums were added up with habits.
    pub habit_weight: f64,
}

impl Scratch {
    /// Adds up the sums of all items for `shopper`, on the sides that `basis` has.
    ///
    /// The order of additions is fixed: the history from the most popular item on, and neighbors best first.
    ///
    /// `repeat_rates`: rep_i by rank, for the own habits √orders · rep_i; `None` for none.
    pub(crate) fn add_up<'a>(
        &'a mut self,
        snapshot: &'a Snapshot,
        shopper: &Shopper,
        basis: Basis,
        repeat_rates: Option<&[f64]>,
    ) -> Sums<'a> {
        self.grow(snapshot.items().len());
        // With this many terms, noting the run of each takes longer than going through runs that nothing is added to.
        if n_terms(snapshot, shopper, basis) > snapshot.items().len() / 2 {
            self.touched[..self.n_runs].fill(true);
            self.add_sides(snapshot, shopper, basis, |_, _| {});
        } else {
            self.add_sides(snapshot, shopper, basis, |touched, rank| touched[rank / RUN] = true);
        }
        if let Some(repeat_rates) = repeat_rates {
            self.add_habits(shopper, repeat_rates);
        }
        Sums {
            largest: self.find_runs(),
            scratch: self,
            popularity: snapshot.popularity(),
        }
    }

    /// Makes room for the sums of `n_items`.
    fn grow(&mut self, n_items: usize) {
        self.n_runs = n_runs(n_items);
        let n_marks = self.n_runs.max(MIN_SUMS / RUN);
        if self.touched.len() < n_marks {
            self.touched.resize(n_marks, false);
            // Allocated anew and not grown: zeroed memory that is never written takes up no memory.
            let n_sums = n_marks * RUN;
            self.items = vec![0.0; n_sums];
            self.users = vec![0.0; n_sums];
            self.habits = vec![0.0; n_sums];
            self.run_habits = vec![0.0; n_marks];
            self.runs.resize(n_marks, Run::default());
        }
    }

    /// Calls `note` with the rank of each item whose sum is added to.
    fn add_sides(
        &mut self,
        snapshot: &Snapshot,
        shopper: &Shopper,
        basis: Basis,
        note: impl Fn(&mut [bool], usize) + Copy,
    ) {
        let touched = &mut self.touched[..];
        // With this known, to mark the run of a rank of two bytes needs no bounds check.
        assert!(touched.len() >= MIN_SUMS / RUN, "a mark for each rank of two bytes");
        if basis.has_items() {
            let reverse_neighbors = |(item, _): (ItemIndex, f32)| snapshot.reverse_ranking_neighbors().row(item);
            let mut ahead = shopper.ratings().skip(AHEAD).map(reverse_neighbors);
            for (item, rating) in shopper.ratings() {
                ahead.next().into_iter().for_each(prefetch_row);
                let (ranks, similarities) = snapshot.reverse_ranking_neighbors().row(item);
                let note = |rank| note(touched, rank);
                add_values(&mut self.items, ranks, similarities, f64::from(rating), note);
            }
        }
        if basis.has_users() {
            let rated = |(user, _): (UserIndex, f32)| snapshot.ratings().row(user.at());
            let mut ahead = shopper.neighbors().skip(AHEAD).map(rated);
            for (user, similarity) in shopper.neighbors() {
                ahead.next().into_iter().for_each(prefetch_rated);
                let Rated { ranks, values, .. } = snapshot.ratings().row(user.at());
                let note = |rank| note(touched, rank);
                let similarity = f64::from(similarity);
                add_ratings(&mut self.users, ranks, values, similarity, &mut self.products, note);
            }
        }
    }

    /// Notes √orders · rep_i of each item that was ordered.
    fn add_habits(&mut self, shopper: &Shopper, repeat_rates: &[f64]) {
        for (rank, orders) in shopper.orders() {
            let rank = rank as usize;
            let habit = f64::from(orders).sqrt() * repeat_rates[rank];
            self.habits[rank] = habit;
            self.habit_ranks.push(rank);
            let of_run = &mut self.run_habits[rank / RUN];
            *of_run = of_run.max(habit);
            self.touched[rank / RUN] = true;
        }
    }

    /// Lists the touched runs with their largest sums, and returns the largest of all.
    ///
    /// Inlined, it would lack registers and take a third more instructions.
    #[inline(never)]
    fn find_runs(&mut self) -> Largest {
        let (groups, _) = self.touched[..self.n_runs].as_chunks::<GROUP>();
        let (items, _) = self.items.as_chunks::<RUN>();
        let (users, _) = self.users.as_chunks::<RUN>();
        let mut most = Largest::default();
        let mut n_touched = 0;
        for (group, first) in groups.iter().zip((0..).step_by(GROUP)) {
            if *group == [false; GROUP] {
                continue;
            }
            for (at, &is_touched) in (first..).zip(group) {
                if is_touched {
                    let run = Run {
                        at,
                        items: largest(&items[at]),
                        users: largest(&users[at]),
                        habits: self.run_habits[at],
                    };
                    most.items = larger(run.items, most.items);
                    most.users = larger(run.users, most.users);
                    most.habits = larger(run.habits, most.habits);
                    self.runs[n_touched] = run;
                    n_touched += 1;
                }
            }
        }
        self.n_touched = n_touched;
        most
    }

    /// Returns the runs that were added to, ascending.
    fn runs(&self) -> &[Run] {
        &self.runs[..self.n_touched]
    }

    /// Sets every sum to 0.
    fn clear(&mut self) {
        let (items, _) = self.items.as_chunks_mut::<RUN>();
        let (users, _) = self.users.as_chunks_mut::<RUN>();
        for run in &self.runs[..self.n_touched] {
            items[run.at] = [0.0; RUN];
            users[run.at] = [0.0; RUN];
            self.touched[run.at] = false;
        }
        for rank in self.habit_ranks.drain(..) {
            self.habits[rank] = 0.0;
            self.run_habits[rank / RUN] = 0.0;
        }
    }

    /// Tells whether nothing of a ranking is left.
    #[cfg(test)]
    pub(crate) fn is_clear(&self) -> bool {
        let sums = self
            .items
            .iter()
            .chain(&self.users)
            .chain(&self.habits)
            .chain(&self.run_habits);
        sums.into_iter().all(|&sum| sum == 0.0) && !self.touched.contains(&true)
    }
}

impl Sums<'_> {
    /// Returns the factors that turn sums into scores: 1 for a basis of one side; for a blend, each side's share divided by
    /// its largest sum, and with own habits all of that divided by its largest value.
    ///
    /// Everything largest is that of all items of the snapshot, whatever may be shown of them, so that the order of two
    /// items never depends on whether a third is filtered out.
    ///
    /// Source: docs/formulas.md, "Ranking".
    pub(crate) fn factors<'a>(&self, basis: Basis, blend: &Blend<'a>) -> Factors<'a> {
        let of_sides = |items, users| Factors {
            items,
            users,
            trend: None,
            habits: 0.0,
        };
        let (items, users) = match basis {
            Basis::ItemBased => return of_sides(1.0, 0.0),
            Basis::UserBased => return of_sides(0.0, 1.0),
            Basis::Blended => (self.largest.items, self.largest.users),
        };
        let weight = blend.item_weight;
        let sides = match (items > 0.0, users > 0.0) {
            (true, true) => of_sides(weight / items, (1.0 - weight) / users),
            (true, false) => of_sides(1.0 / items, 0.0),
            (false, true) => of_sides(0.0, 1.0 / users),
            (false, false) => of_sides(0.0, 0.0),
        };
        let trending = Factors {
            trend: blend.trend,
            ..sides
        };
        match blend.habit_weight > 0.0 {
            true => self.with_habits(trending, blend.habit_weight),
            false => trending,
        }
    }

    /// Divides the blend and the own habits by the largest of each, and adds the habits with their weight.
    fn with_habits<'a>(&self, blend: Factors<'a>, habit_weight: f64) -> Factors<'a> {
        let largest_blend = self.largest_score(blend);
        let inverse = |largest: f64| if largest > 0.0 { 1.0 / largest } else { 0.0 };
        Factors {
            items: blend.items * inverse(largest_blend),
            users: blend.users * inverse(largest_blend),
            trend: blend.trend,
            habits: habit_weight * inverse(self.largest.habits),
        }
    }

    /// Returns the largest score, over all items, without own habits.
    fn largest_score(&self, factors: Factors<'_>) -> f64 {
        let mut most: f64 = 0.0;
        for run in self.scratch.runs() {
            let sides = factors.sides(run.items, run.users);
            if factors.trend.map_or(sides, |trend| sides * trend.maxima()[run.at]) > most {
                most = most.max(largest(&self.blends(run, factors)));
            }
        }
        most
    }

    /// Returns the best `limit` items with a score above 0 that pass. Only an item with a score high enough is checked.
    pub(crate) fn top(&self, limit: usize, factors: Factors, passes: impl Fn(ItemIndex) -> bool) -> Vec<Scored> {
        let sides = |run: &Run| factors.sides(run.items, run.users);
        match (factors.trend.map(ByRank::maxima), factors.habits > 0.0) {
            (None, false) => self.search(limit, factors, passes, sides),
            (Some(largest), false) => self.search(limit, factors, passes, |run| sides(run) * largest[run.at]),
            (None, true) => self.search(limit, factors, passes, |run| sides(run) + factors.habits * run.habits),
            (Some(largest), true) => self.search(limit, factors, passes, |run| {
                sides(run) * largest[run.at] + factors.habits * run.habits
            }),
        }
    }

    /// Does the same as [`top`](Self::top) with a `bound` that no score in a run exceeds: rounding preserves order.
    #[inline]
    fn search(
        &self,
        limit: usize,
        factors: Factors,
        passes: impl Fn(ItemIndex) -> bool,
        bound: impl Fn(&Run) -> f64,
    ) -> Vec<Scored> {
        let mut top = Top::new(limit, self.popularity.len());
        let mut least = top.least();
        for run in self.scratch.runs() {
            if bound(run) < least {
                continue;
            }
            let scores = self.scores(run, factors);
            // The bound is above most scores, and this comparison is cheaper than those of the single scores.
            if largest(&scores) < least {
                continue;
            }
            // A snapshot has fewer than 2³² items, so that the cast loses nothing.
            for (rank, score) in ((run.at * RUN) as u32..).zip(scores) {
                if score > 0.0 && score >= least {
                    let item = self.popularity.item(rank);
                    let scored = Scored { score, item };
                    if top.admits(scored) && passes(item) {
                        top.insert(scored);
                        least = top.least();
                    }
                }
            }
        }
        top.into_ranked()
    }

    /// Returns the scores of a run's items.
    #[inline]
    fn scores(&self, run: &Run, factors: Factors) -> [f64; RUN] {
        let mut scores = self.blends(run, factors);
        // Most runs have no habits.
        if factors.habits * run.habits > 0.0 {
            let (habits, _) = self.scratch.habits.as_chunks::<RUN>();
            for (score, habit) in scores.iter_mut().zip(&habits[run.at]) {
                *score += factors.habits * habit;
            }
        }
        scores
    }

    /// Returns the scores of a run's items without own habits.
    #[inline]
    fn blends(&self, run: &Run, factors: Factors) -> [f64; RUN] {
        let (items, _) = self.scratch.items.as_chunks::<RUN>();
        let (users, _) = self.scratch.users.as_chunks::<RUN>();
        let mut scores = [0.0; RUN];
        for ((score, &by_items), &by_users) in scores.iter_mut().zip(&items[run.at]).zip(&users[run.at]) {
            *score = factors.sides(by_items, by_users);
        }
        if let Some(trend) = factors.trend {
            for (score, factor) in scores.iter_mut().zip(trend.run(run.at)) {
                *score *= factor;
            }
        }
        scores
    }
}

impl Drop for Sums<'_> {
    fn drop(&mut self) {
        self.scratch.clear();
    }
}

impl Factors<'_> {
    /// Returns the weighted sum of both sides.
    #[inline]
    fn sides(&self, by_items: f64, by_users: f64) -> f64 {
        self.items * by_items + self.users * by_users
    }
}

/// Returns the larger of two numbers, none of which is NaN.
#[inline]
fn larger(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

/// Returns the largest of `values`, none of which is NaN. It compares by halves, so that comparisons do not wait for one
/// another.
#[inline]
fn largest(values: &[f64; RUN]) -> f64 {
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

/// Counts the terms of all sums together.
pub(crate) fn n_terms(snapshot: &Snapshot, shopper: &Shopper, basis: Basis) -> usize {
    let mut n_terms = 0;
    if basis.has_items() {
        let reverse_neighbors =
            |(item, _): (ItemIndex, f32)| snapshot.reverse_ranking_neighbors().row_range(item).len();
        n_terms += shopper.ratings().map(reverse_neighbors).sum::<usize>();
    }
    if basis.has_users() {
        let rated = |(user, _): (UserIndex, f32)| snapshot.ratings().row_range(user.at()).len();
        n_terms += shopper.neighbors().map(rated).sum::<usize>();
    }
    n_terms
}
