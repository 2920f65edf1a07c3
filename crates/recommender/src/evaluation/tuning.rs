//! Fits the settings of ranking scores on the validation part, which the model has not seen and no figure is measured on.
//!
//! The search has a fixed order: the significance of similarities by the item-based ranking; then the weight of the sides and
//! the trend on new items; then the trend of popularity; then trend and own habits on all items. Each step keeps the first of
//! its settings, in order of simplicity, that lies within one standard error of the best and is not below popularity.
//! Popularity stays where nothing beats it by two standard errors.

use std::collections::BTreeMap;

use crate::ranking::rank::Blend;
use crate::ranking::rankers::{BLENDED, ITEM_BASED, POPULARITY, Ranker, TRENDING};
use crate::snapshot::dictionary::{Dictionary, UserIndex};
use crate::snapshot::order_terms::{Factors, repeat_rates};
use crate::snapshot::orders::Orders;
use crate::snapshot::parameters::DefaultRanker;
use crate::snapshot::settings::{FittedSettings, ScoreSettings};
use crate::snapshot::view::View;

use super::choice::{Choice, choose};
use super::held_out::EvaluationCase;
use super::ranking::{Listing, Terms, ndcg_of_users, ranked_lists};
use super::report::{ItemScope, SettingRow, SettingsTable};

/// The least users to fit settings on. With fewer, they stay at their defaults.
pub(super) const MIN_USERS: usize = 50;

/// The values of s that are tried, the simplest first.
pub(super) const SIGNIFICANCES: [f64; 3] = [0.0, 5.0, 20.0];
/// The half-lives that are tried, in days.
pub(super) const HALF_LIVES_DAYS: [f64; 3] = [28.0, 14.0, 7.0];
const EXPONENTS: [f64; 4] = [0.25, 0.5, 0.75, 1.0];
const HABIT_WEIGHTS: [f64; 5] = [0.0, 0.5, 1.0, 2.0, 4.0];

/// The data that the settings are fitted on.
pub(super) struct Tuner<'a> {
    /// A model of the data before the validation part.
    pub view: &'a View,
    /// The dictionary of the users of `cases`.
    pub users: &'a Dictionary<UserIndex>,
    pub cases: &'a [EvaluationCase],
    /// The orders before the validation part for each of [`HALF_LIVES_DAYS`]; none without orders.
    pub orders: &'a [Orders],
    pub seed: u64,
}

/// One setting that is tried.
#[derive(Debug, Clone, Copy)]
struct Setting {
    ranker: Ranker,
    item_weight: f64,
    /// Any where the exponent is 0.
    half_life_days: f64,
    trend_exponent: f64,
    habit_weight: f64,
}

impl Setting {
    fn popularity() -> Self {
        let defaults = FittedSettings::default();
        Self {
            ranker: POPULARITY,
            item_weight: defaults.new_items.item_weight,
            half_life_days: defaults.half_life_days,
            trend_exponent: 0.0,
            habit_weight: 0.0,
        }
    }

    fn blended(item_weight: f64) -> Self {
        Self {
            ranker: BLENDED,
            item_weight,
            ..Self::popularity()
        }
    }

    /// Returns this setting with every trend, the simplest first.
    fn with_trends(self, half_lives_days: &[f64]) -> impl Iterator<Item = Self> {
        let pairs = EXPONENTS
            .iter()
            .flat_map(|&exponent| half_lives_days.iter().map(move |&days| (exponent, days)));
        pairs.map(move |(trend_exponent, half_life_days)| Self {
            ranker: if self.ranker == POPULARITY {
                TRENDING
            } else {
                self.ranker
            },
            trend_exponent,
            half_life_days,
            ..self
        })
    }

    /// Whether the setting needs no other half-life.
    fn fits(&self, half_life_days: f64) -> bool {
        self.trend_exponent == 0.0 || self.half_life_days == half_life_days
    }

    fn is_popularity(&self) -> bool {
        self.ranker != BLENDED
    }
}

/// The result of one step.
struct Step {
    settings: Vec<Setting>,
    /// NDCG@10 of every user, for each setting.
    figures: Vec<Vec<f64>>,
    choice: Choice,
}

impl Step {
    fn chosen(&self) -> Setting {
        self.settings[self.choice.chosen]
    }

    /// Chooses among some of the settings, in the same manner; `None` if there are none.
    fn chosen_among(&self, is_admitted: impl Fn(&Setting) -> bool, seed: u64) -> Option<Setting> {
        let admitted = self.settings.iter().zip(&self.figures);
        let (settings, figures): (Vec<Setting>, Vec<Vec<f64>>) = admitted
            .filter(|(setting, _)| is_admitted(setting))
            .map(|(setting, figures)| (*setting, figures.clone()))
            .unzip();
        (!settings.is_empty()).then(|| settings[choose(&figures, None, seed).chosen])
    }

    /// Returns the mean figure of the best setting of `ranker`; `None` without any.
    fn best_of(&self, ranker: Ranker) -> Option<f64> {
        let compared = self.settings.iter().zip(&self.choice.compared);
        let of_ranker = compared.filter(|(setting, _)| setting.ranker == ranker);
        of_ranker.map(|(_, compared)| compared.mean).reduce(f64::max)
    }

    fn table(&self, items: ItemScope) -> SettingsTable {
        let rows = self.settings.iter().zip(&self.choice.compared).enumerate();
        let rows = rows.map(|(at, (setting, compared))| SettingRow {
            ranker: setting.ranker.name.to_owned(),
            item_weight: setting.item_weight,
            half_life_days: setting.half_life_days,
            trend_exponent: setting.trend_exponent,
            habit_weight: setting.habit_weight,
            ndcg_at_10: compared.mean,
            below_best: compared.below_best,
            standard_error: compared.standard_error,
            is_chosen: at == self.choice.chosen,
        });
        SettingsTable {
            items,
            users: self.figures.first().map_or(0, Vec::len) as u64,
            rows: rows.collect(),
        }
    }
}

/// The result of [`Tuner::tune`].
pub(super) struct Tuned {
    pub settings: FittedSettings,
    /// The best figure of each ranker that competed for new items.
    pub figures: Vec<(Ranker, f64)>,
    /// Every setting that was tried, for new items and for all items.
    pub tables: Vec<SettingsTable>,
    /// NDCG@10 on new items of every user by the chosen settings; empty with too few users.
    pub chosen_figures: Vec<f64>,
}

/// Returns the position of the setting that ranks new items best, by the rule of [`choose`]; the first with too few users.
///
/// `figures`: NDCG@10 of each user for each setting, the simplest first.
pub(super) fn choose_among(figures: &[Vec<f64>], seed: u64) -> usize {
    match figures.first().is_none_or(|figures| figures.len() < MIN_USERS) {
        true => 0,
        false => choose(figures, None, seed).chosen,
    }
}

/// Returns NDCG@10 on new items of the item-based ranking, for each user.
pub(super) fn item_based_figures(view: &View, users: &Dictionary<UserIndex>, cases: &[EvaluationCase]) -> Vec<f64> {
    let listing = Listing {
        ranker: ITEM_BASED,
        items: ItemScope::New,
        terms: Terms::default(),
    };
    let lists = ranked_lists(view, users, cases, &[listing], None);
    lists.iter().flat_map(|lists| ndcg_of_users(lists)).collect()
}

impl Tuner<'_> {
    /// Fits the settings of the view, whose significance is fitted already.
    pub fn tune(&self) -> Tuned {
        let mut settings = FittedSettings {
            significance: self.view.snapshot.settings().significance,
            ..FittedSettings::default()
        };
        if self.n_users(ItemScope::New) < MIN_USERS {
            return Tuned {
                settings,
                figures: Vec::new(),
                tables: Vec::new(),
                chosen_figures: Vec::new(),
            };
        }
        let new = self.step(self.settings_of_new_items(), ItemScope::New);
        self.take_over_new_items(&new, &mut settings);
        let competed = [BLENDED, POPULARITY, TRENDING].into_iter();
        let figures = competed.filter_map(|ranker| Some((ranker, new.best_of(ranker)?)));
        let figures = figures.collect();
        let mut tables = vec![new.table(ItemScope::New)];
        if !self.orders.is_empty() && self.n_users(ItemScope::All) >= MIN_USERS {
            let all = self.step(settings_of_all_items(&settings), ItemScope::All);
            let blend = all.chosen_among(|setting| !setting.is_popularity(), self.seed);
            settings.all_items = score_settings(all.chosen(), blend);
            tables.push(all.table(ItemScope::All));
        }
        Tuned {
            settings,
            figures,
            tables,
            chosen_figures: new.figures[new.choice.chosen].clone(),
        }
    }

    /// Sets what follows from the step of new items. All trends share one half-life: that of the chosen setting, or else of the
    /// best blend, or else of popularity.
    fn take_over_new_items(&self, new: &Step, settings: &mut FittedSettings) {
        let chosen = new.chosen();
        let blend = new.chosen_among(|setting| !setting.is_popularity(), self.seed);
        let popularity = new.chosen_among(Setting::is_popularity, self.seed);
        let candidates = [Some(chosen), blend, popularity].into_iter().flatten();
        let trending = candidates.clone().find(|setting| setting.trend_exponent > 0.0);
        settings.half_life_days = trending.map_or(settings.half_life_days, |setting| setting.half_life_days);
        let days = settings.half_life_days;
        let blend = new.chosen_among(|setting| !setting.is_popularity() && setting.fits(days), self.seed);
        let popularity = match chosen.is_popularity() {
            true => Some(chosen),
            false => new.chosen_among(|setting| setting.is_popularity() && setting.fits(days), self.seed),
        };
        settings.popularity_trend_exponent = popularity.map_or(0.0, |setting| setting.trend_exponent);
        settings.new_items = score_settings(chosen, blend);
        settings.all_items = settings.new_items;
    }

    fn n_users(&self, items: ItemScope) -> usize {
        let asked = self.cases.iter().filter(|case| !case.relevant(items).is_empty());
        asked.count()
    }

    /// Returns the settings that are tried on new items, the simplest first: popularity, then trending popularity, then the
    /// blend without and with a trend.
    fn settings_of_new_items(&self) -> Vec<Setting> {
        let half_lives: Vec<f64> = self.orders.iter().map(|orders| orders.half_life_days).collect();
        let blends: Vec<Setting> = tenths().map(Setting::blended).collect();
        let popularity = Setting::popularity();
        let mut settings = vec![popularity];
        settings.extend(popularity.with_trends(&half_lives));
        settings.extend(&blends);
        for (exponent, days) in EXPONENTS
            .iter()
            .flat_map(|&exponent| half_lives.iter().map(move |&days| (exponent, days)))
        {
            settings.extend(blends.iter().map(|blend| Setting {
                trend_exponent: exponent,
                half_life_days: days,
                ..*blend
            }));
        }
        settings
    }

    /// Measures `settings`, the simplest first, and chooses one of them that is not below popularity.
    fn step(&self, settings: Vec<Setting>, items: ItemScope) -> Step {
        let popularity = self.view.snapshot.popularity();
        let mut factors: BTreeMap<(bool, u64, u64), Factors> = BTreeMap::new();
        let key = |setting: &Setting| {
            let (days, exponent) = (setting.half_life_days, setting.trend_exponent);
            (setting.is_popularity(), days.to_bits(), exponent.to_bits())
        };
        for setting in settings.iter().filter(|setting| setting.trend_exponent > 0.0) {
            let mut orders = self.orders.iter();
            let Some(orders) = orders.find(|orders| orders.half_life_days == setting.half_life_days) else {
                continue;
            };
            factors
                .entry(key(setting))
                .or_insert_with(|| match setting.is_popularity() {
                    true => Factors::of_popularity(orders, popularity, setting.trend_exponent),
                    false => Factors::of_trend(orders, popularity, setting.trend_exponent),
                });
        }
        let listing = |setting: &Setting| {
            let factors = factors.get(&key(setting)).map(Factors::by_rank);
            Listing {
                ranker: setting.ranker,
                items,
                terms: Terms {
                    blend: Blend {
                        item_weight: setting.item_weight,
                        trend: factors.filter(|_| !setting.is_popularity()),
                        habit_weight: setting.habit_weight,
                    },
                    trending: factors.filter(|_| setting.is_popularity()),
                },
            }
        };
        let listings: Vec<Listing> = settings.iter().map(listing).collect();
        let has_habits = settings.iter().any(|setting| setting.habit_weight > 0.0);
        let orders = self.orders.first().filter(|_| has_habits);
        let rates = orders.map(|orders| repeat_rates(orders, popularity));
        let lists = ranked_lists(self.view, self.users, self.cases, &listings, rates.as_deref());
        let figures: Vec<Vec<f64>> = lists.iter().map(|lists| ndcg_of_users(lists)).collect();
        Step {
            // Popularity comes first.
            choice: choose(&figures, Some(0), self.seed),
            settings,
            figures,
        }
    }
}

/// Returns the settings that are tried on all items, the simplest first: popularity as it was fitted on new items, then the
/// blend of new items without and with own habits, each without and with a trend.
fn settings_of_all_items(fitted: &FittedSettings) -> Vec<Setting> {
    let mut popularity = Setting {
        half_life_days: fitted.half_life_days,
        ..Setting::popularity()
    };
    if fitted.popularity_trend_exponent > 0.0 {
        popularity.ranker = TRENDING;
        popularity.trend_exponent = fitted.popularity_trend_exponent;
    }
    let mut settings = vec![popularity];
    for habit_weight in HABIT_WEIGHTS {
        let blend = Setting {
            habit_weight,
            half_life_days: fitted.half_life_days,
            ..Setting::blended(fitted.new_items.item_weight)
        };
        settings.push(blend);
        settings.extend(blend.with_trends(&[fitted.half_life_days]));
    }
    settings
}

/// Returns the settings of scores where `chosen` ranks; `blend` is what a request for the blend gets.
fn score_settings(chosen: Setting, blend: Option<Setting>) -> ScoreSettings {
    let blend = match chosen.is_popularity() {
        true => blend.unwrap_or(Setting::blended(chosen.item_weight)),
        false => chosen,
    };
    ScoreSettings {
        ranker: match chosen.is_popularity() {
            true => DefaultRanker::Popularity,
            false => DefaultRanker::Blended,
        },
        item_weight: blend.item_weight,
        trend_exponent: blend.trend_exponent,
        habit_weight: blend.habit_weight,
    }
}

/// Returns the tenths from 0 to 1, the nearest to one half first, the lower of two first.
fn tenths() -> impl Iterator<Item = f64> {
    let mut tenths: Vec<u8> = (0..=10).collect();
    tenths.sort_by_key(|&tenth| tenth.abs_diff(5));
    tenths.into_iter().map(|tenth| f64::from(tenth) / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenths_begin_in_the_middle() {
        let expected = [0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8, 0.1, 0.9, 0.0, 1.0];
        assert_eq!(tenths().collect::<Vec<_>>(), expected);
    }
}
