//! Forecasts the demand of items, and of a category or merchant, from memory.

use chrono::{DateTime, Days};
use rayon::prelude::*;

use crate::live::fresh_sales::FreshSales;
use demand::distribution::{MAX_WEEKS, Quantiles, Scratch};
use demand::forecast::{ItemDemand, ItemSales, group_demand};
use demand::history::{SalesHistory, iso_week, monday_of};
use demand::model::DemandModel;
use domain::access::Caller;
use domain::id::{Category, ItemId, MerchantId};
use domain::time::Timestamp;
use recommender::snapshot::dictionary::{DenseIndex, ItemIndex};
use recommender::snapshot::overlay::ItemRef;
use recommender::snapshot::view::View;

/// The items whose demand is forecast.
#[derive(Debug, Clone, PartialEq)]
pub enum Selection {
    Items(Vec<ItemId>),
    Category(Category),
    Merchant(MerchantId),
}

#[derive(Debug, Clone, PartialEq)]
pub struct ForecastRequest {
    pub selection: Selection,
    /// In 1..=[`MAX_WEEKS`].
    pub horizon_weeks: usize,
    /// The most items that are listed of a category or merchant.
    pub limit: usize,
}

/// One item of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Forecast {
    pub item: String,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Demand(Box<ItemDemand>),
    /// The item was never sold.
    NoHistory,
    /// There is no such item, or it belongs to another merchant.
    Unknown,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Forecasts {
    /// The Monday on which the forecast weeks begin.
    pub begins_at: Timestamp,
    pub items: Vec<Forecast>,
    /// Items with a demand, listed or not.
    pub n_items: usize,
    /// The demand of all items together: the expected units of the first 1, 2, … weeks, with the distribution where enough
    /// weeks are known for one.
    pub total: Vec<(f64, Option<Quantiles>)>,
}

/// Sales as a request sees them: those of the snapshot, and those that were read since.
#[derive(Clone, Copy)]
pub struct Sales<'a> {
    pub view: &'a View,
    pub model: &'a DemandModel,
    pub fresh: &'a FreshSales,
    /// The first week that a forecast does not know.
    pub origin: usize,
}

impl<'a> Sales<'a> {
    pub fn new(view: &'a View, model: &'a DemandModel, fresh: &'a FreshSales, now: Timestamp) -> Self {
        let this_week = iso_week(days_of(now)) - model.first_week;
        let last_fresh = fresh.last_week().map_or(0, |week| week - model.first_week + 1);
        let known = last_fresh.max(model.history.n_weeks() as i64);
        // Not before the fitted origin, should the clock stand wrong.
        let origin = known.min(this_week).max(model.origin as i64);
        Self {
            view,
            model,
            fresh,
            origin: origin as usize,
        }
    }

    /// Returns the Monday on which the first week that is not known begins.
    pub fn begins_at(&self) -> Timestamp {
        monday_at(self.model, self.origin)
    }

    /// Forecasts the demand of `item`; `None` if it was never sold.
    pub fn demand_of(&self, item: &ItemRef, max_weeks: usize, scratch: &mut Scratch) -> Option<ItemDemand> {
        self.with_history(item, |sales| {
            ItemDemand::forecast(self.model, sales, self.origin, max_weeks, scratch)
        })?
    }

    /// Calls `work` with the sales of `item`; `None` if it was never sold.
    fn with_history<T>(&self, item: &ItemRef, work: impl FnOnce(ItemSales<'_>) -> T) -> Option<T> {
        let id = match item {
            ItemRef::Known(index) => self.view.item_id(*index),
            ItemRef::New(id) => id.as_str(),
        };
        let fresh = self.fresh.lines(id).map(|lines| relative(self.model, lines));
        match (item, fresh) {
            (ItemRef::Known(index), None) => Some(work(ItemSales {
                history: &self.model.history,
                item: index.at(),
                known_item: Some(index.at()),
            })),
            (ItemRef::Known(index), Some(fresh)) => {
                let history = self
                    .model
                    .history
                    .with_fresh_lines(index.at(), self.model.origin, &fresh);
                Some(work(ItemSales {
                    history: &history,
                    item: 0,
                    known_item: Some(index.at()),
                }))
            }
            (ItemRef::New(_), Some(fresh)) => {
                let empty = SalesHistory::new(1, self.model.origin, &[], &[], Vec::new()).ok()?;
                let history = empty.with_fresh_lines(0, self.model.origin, &fresh);
                Some(work(ItemSales {
                    history: &history,
                    item: 0,
                    known_item: None,
                }))
            }
            (ItemRef::New(_), None) => None,
        }
    }
}

/// Returns the lines with weeks counted as the model does.
fn relative(model: &DemandModel, lines: &[(i64, f32)]) -> Vec<(u16, f32)> {
    let week = |&(week, units): &(i64, f32)| Some((u16::try_from(week - model.first_week).ok()?, units));
    lines.iter().filter_map(week).collect()
}

/// Returns the Monday on which `week` of the model's history begins.
pub fn monday_at(model: &DemandModel, week: usize) -> Timestamp {
    monday(model.first_week + week as i64)
}

/// Returns the Monday on which an ISO week begins, at midnight.
pub fn monday(week: i64) -> Timestamp {
    DateTime::UNIX_EPOCH + Days::new(monday_of(week).max(0) as u64)
}

fn days_of(at: Timestamp) -> i64 {
    at.timestamp().div_euclid(86_400)
}

/// Forecasts what `caller` may see of the selection.
pub fn forecast(sales: &Sales<'_>, request: &ForecastRequest, caller: &Caller) -> Forecasts {
    let horizon = request.horizon_weeks.clamp(1, MAX_WEEKS);
    let selected = select(sales.view, &request.selection, caller);
    let outcome = |scratch: &mut Scratch, (item, found): &(String, Option<ItemRef>)| {
        let outcome = match found {
            None => Outcome::Unknown,
            Some(found) => match sales.demand_of(found, horizon, scratch) {
                Some(demand) => Outcome::Demand(Box::new(demand)),
                None => Outcome::NoHistory,
            },
        };
        Forecast {
            item: item.clone(),
            outcome,
        }
    };
    let mut items: Vec<Forecast> = match selected.len() {
        0..PARALLEL_ITEMS => {
            let mut scratch = Scratch::default();
            selected.iter().map(|item| outcome(&mut scratch, item)).collect()
        }
        _ => selected.par_iter().map_init(Scratch::default, outcome).collect(),
    };
    let total = total(sales, &selected, &items, horizon);
    let n_items = items.iter().filter(|item| item.demand().is_some()).count();
    if !matches!(request.selection, Selection::Items(_)) {
        let expected = |item: &Forecast| item.demand().map_or(-1.0, |demand| demand.of_weeks(horizon).mean());
        items.sort_by_cached_key(|item| {
            // Expected units are at least 0, so that their bits are in their order.
            (std::cmp::Reverse(expected(item).max(0.0).to_bits()), item.item.clone())
        });
        items.truncate(request.limit);
    }
    Forecasts {
        begins_at: sales.begins_at(),
        items,
        n_items,
        total,
    }
}

/// Fewer items than this are forecast on one thread.
const PARALLEL_ITEMS: usize = 64;

impl Forecast {
    pub fn demand(&self) -> Option<&ItemDemand> {
        match &self.outcome {
            Outcome::Demand(demand) => Some(demand),
            Outcome::NoHistory | Outcome::Unknown => None,
        }
    }
}

/// Returns the items of the selection that `caller` may see, by id; `None` for one that is not there.
fn select(view: &View, selection: &Selection, caller: &Caller) -> Vec<(String, Option<ItemRef>)> {
    if let Selection::Items(ids) = selection {
        let seen = |id: &ItemId| view.item(id).filter(|item| caller.sees(merchant_of(view, item)));
        return ids.iter().map(|id| (id.to_string(), seen(id))).collect();
    }
    let is_selected = |item: &ItemRef| {
        let facts = facts_of(view, item);
        let is_named = match selection {
            Selection::Items(_) => true,
            Selection::Category(category) => facts.category == Some(category.as_str()),
            Selection::Merchant(merchant) => facts.merchant == Some(merchant.as_str()),
        };
        is_named && caller.sees(facts.merchant)
    };
    let known = (0..view.snapshot.items().len() as u32).map(|at| ItemRef::Known(ItemIndex::new(at)));
    let new = view.overlay.new_items().map(|(id, _)| ItemRef::New(id.clone()));
    let mut selected: Vec<(String, Option<ItemRef>)> = known
        .chain(new)
        .filter(is_selected)
        .map(|item| (id_of(view, &item).to_owned(), Some(item)))
        .collect();
    selected.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    selected
}

/// Returns the external id of an item.
pub fn id_of<'a>(view: &'a View, item: &'a ItemRef) -> &'a str {
    match item {
        ItemRef::Known(index) => view.item_id(*index),
        ItemRef::New(id) => id.as_str(),
    }
}

/// Returns the present facts of an item.
pub fn facts_of<'a>(view: &'a View, item: &ItemRef) -> recommender::snapshot::catalog::Facts<'a> {
    match item {
        ItemRef::Known(index) => view.facts(*index),
        ItemRef::New(id) => view.overlay.new_item(id).unwrap_or_default(),
    }
}

fn merchant_of<'a>(view: &'a View, item: &ItemRef) -> Option<&'a str> {
    facts_of(view, item).merchant
}

/// Adds up the demand of all items, each counted once.
fn total(
    sales: &Sales<'_>,
    selected: &[(String, Option<ItemRef>)],
    forecasts: &[Forecast],
    horizon: usize,
) -> Vec<(f64, Option<Quantiles>)> {
    let mut expected = vec![0.0; horizon];
    let mut totals = vec![0.0; sales.origin];
    let mut seen = std::collections::HashSet::new();
    for ((id, found), forecast) in selected.iter().zip(forecasts) {
        let (Some(found), Some(demand)) = (found, forecast.demand()) else {
            continue;
        };
        if !seen.insert(id.as_str()) {
            continue;
        }
        for (week, expected) in expected.iter_mut().enumerate() {
            *expected += demand.of_weeks(week + 1).mean();
        }
        sales.with_history(found, |sales| sales.history.add_totals(sales.item, &mut totals));
    }
    let quantiles = group_demand(&totals, &expected);
    expected.into_iter().zip(quantiles).collect()
}
