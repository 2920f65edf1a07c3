//! Lists what to reorder, and what is overstocked, from memory.

use rayon::prelude::*;

use crate::live::inventory::Inventory;
use crate::store::inventory::CountedStock;
use demand::distribution::{MAX_WEEKS, Quantiles, Scratch};
use demand::forecast::{Basis, ItemDemand};
use demand::inventory::{Position, ScopedPolicy};
use demand::replenishment::{
    BudgetLine, OVERSTOCK_LEVEL, Quantity, QuantityReason, ServiceGoal, Stock, StockLevels, StockRisks,
    allocate_budget, order_quantity, stock_levels, stock_risks,
};
use domain::access::Caller;
use domain::id::{Category, ItemId, MerchantId};
use domain::money::Money;
use domain::time::Timestamp;

use recommender::snapshot::view::View;

use super::forecast::{Sales, facts_of};

/// A count is old after a day where the position is watched all the time.
const CONTINUOUS_REVIEW_DAYS: f64 = 1.0;

/// The items to list, and the budget of their orders.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReplenishmentRequest {
    /// None means all.
    pub items: Vec<ItemId>,
    pub category: Option<Category>,
    pub merchant: Option<MerchantId>,
    /// Only items with an alert.
    pub only_alerts: bool,
    /// The money that orders may cost together.
    pub budget: Option<Money>,
}

/// Something that a merchandiser should look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alert {
    /// The stock is likelier to run out within the lead time than the policy allows.
    StockOut,
    /// An order should have arrived.
    LateOrder,
    /// There is more than will be sold within the longest cover, but for one case in ten.
    Overstock,
    /// There is stock and was no sale in 13 weeks.
    DeadStock,
    /// The count is older than a review period.
    StaleCount,
}

/// One item of the list.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub item: ItemId,
    pub stock: Stock,
    pub counted_at: Timestamp,
    pub policy: ScopedPolicy,
    pub levels: StockLevels,
    pub quantity: Quantity,
    pub risks: StockRisks,
    pub alerts: Vec<Alert>,
    /// The units to order within the budget; `None` without a budget, or for items that cannot be bought from it.
    pub budget_units: Option<f64>,
    /// Whether enough is known for the forecast.
    pub is_certain: bool,
    /// Units expected to be sold within lead time and review period.
    pub expected_units: f64,
    /// The reasons for the quantity and the alerts, in sentences with numbers.
    pub reasons: Vec<String>,
    /// Kept for the budget.
    demand: Quantiles,
}

impl Row {
    /// Returns what `units` cost by the policy; `None` where it has no cost.
    pub fn cost_of(&self, units: f64) -> Option<Money> {
        let cost = self.policy.unit_cost?;
        Some(Money {
            amount_minor: (cost.amount_minor as f64 * units).round() as i64,
            ..cost
        })
    }
}

/// Returns the review period of an item, in days, where a count is older than that.
pub fn is_old_count(view: Option<&View>, inventory: &Inventory, position: &Position, now: Timestamp) -> Option<f64> {
    let facts = view.and_then(|view| Some(facts_of(view, &view.item(&position.item)?)));
    let (category, merchant) = facts.map_or((None, None), |facts| (facts.category, facts.merchant));
    let policy = inventory.policies().find(position.item.as_str(), category, merchant)?;
    let review_days = policy.policy.review_period_days.max(CONTINUOUS_REVIEW_DAYS);
    (position.age_days(now) > review_days).then_some(review_days)
}

/// The list and what is not in it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Replenishment {
    /// Most urgent first.
    pub rows: Vec<Row>,
    /// Items that were counted and have no policy.
    pub without_policy: Vec<ItemId>,
    /// Items with an order to place that a budget cannot buy, for they have no cost in its currency.
    pub without_cost: Vec<ItemId>,
    /// The cost of all orders within the budget together.
    pub budget_spent_minor: i64,
}

/// Lists what `caller` may see.
pub fn list(
    sales: &Sales<'_>,
    inventory: &Inventory,
    request: &ReplenishmentRequest,
    now: Timestamp,
    caller: &Caller,
) -> Replenishment {
    let mut counted: Vec<(&str, &CountedStock)> = inventory.stock().collect();
    counted.sort_unstable_by_key(|(item, _)| *item);
    if !request.items.is_empty() {
        let mut wanted: Vec<&str> = request.items.iter().map(ItemId::as_str).collect();
        wanted.sort_unstable();
        counted.retain(|(item, _)| wanted.binary_search(item).is_ok());
    }
    let found: Vec<Found> = counted
        .par_iter()
        .map_init(Scratch::default, |scratch, (_, counted)| {
            find(sales, inventory, request, counted, now, caller, scratch)
        })
        .collect();
    let mut list = Replenishment::default();
    for found in found {
        match found {
            Found::Row(row) => list.rows.push(*row),
            Found::NoPolicy(item) => list.without_policy.push(item),
            Found::NotAsked => {}
        }
    }
    if let Some(budget) = request.budget {
        spend(&mut list, budget);
    }
    if request.only_alerts {
        list.rows.retain(|row| !row.alerts.is_empty());
    }
    list.rows.sort_by(|a, b| {
        let urgency = |row: &Row| row.risks.stock_out_probability;
        let days = |row: &Row| row.risks.stock_out_in_days.unwrap_or(u32::MAX);
        urgency(b)
            .total_cmp(&urgency(a))
            .then(days(a).cmp(&days(b)))
            .then(b.quantity.units.total_cmp(&a.quantity.units))
            .then_with(|| a.item.cmp(&b.item))
    });
    list
}

enum Found {
    Row(Box<Row>),
    NoPolicy(ItemId),
    /// The item is not asked for, or the caller may not see it.
    NotAsked,
}

fn find(
    sales: &Sales<'_>,
    inventory: &Inventory,
    request: &ReplenishmentRequest,
    counted: &CountedStock,
    now: Timestamp,
    caller: &Caller,
    scratch: &mut Scratch,
) -> Found {
    let item = &counted.position.item;
    let Some(found) = sales.view.item(item) else {
        return Found::NotAsked;
    };
    let facts = facts_of(sales.view, &found);
    let is_category = |category: &Category| facts.category == Some(category.as_str());
    let is_merchant = |merchant: &MerchantId| facts.merchant == Some(merchant.as_str());
    if !caller.sees(facts.merchant)
        || !request.category.as_ref().is_none_or(is_category)
        || !request.merchant.as_ref().is_none_or(is_merchant)
    {
        return Found::NotAsked;
    }
    let Some(policy) = inventory.policies().find(item.as_str(), facts.category, facts.merchant) else {
        return Found::NoPolicy(item.clone());
    };
    let demand = sales.demand_of(&found, MAX_WEEKS, scratch);
    Found::Row(Box::new(row(counted, policy, demand.as_ref(), now)))
}

fn row(counted: &CountedStock, scoped: &ScopedPolicy, demand: Option<&ItemDemand>, now: Timestamp) -> Row {
    let policy = &scoped.policy;
    let stock = counted.position.stock(counted.sold_units, now);
    let of_days = |days: f64| demand.map_or(Quantiles::NONE, |demand| demand.of_days(days));
    let levels = stock_levels(policy, of_days);
    let covered = of_days(policy.lead_time_days + policy.review_period_days);
    let cover_units = of_days(policy.max_cover_days).mean();
    let quantity = order_quantity(policy, &levels, stock.position(), cover_units);
    let weeks_since_sale = demand.map(|demand| demand.weeks_since_sale);
    let risks = stock_risks(policy, &stock, weeks_since_sale, of_days);
    let age_days = counted.position.age_days(now);
    let allowed_risk = match policy.goal {
        ServiceGoal::CycleServiceLevel(level) | ServiceGoal::FillRate(level) => 1.0 - level,
    };
    let alerts = [
        (Alert::StockOut, risks.stock_out_probability > allowed_risk),
        (Alert::LateOrder, risks.late_units > 0.0),
        (Alert::Overstock, risks.overstock_units > 0.0),
        (Alert::DeadStock, risks.is_dead),
        (
            Alert::StaleCount,
            age_days > policy.review_period_days.max(CONTINUOUS_REVIEW_DAYS),
        ),
    ];
    let mut row = Row {
        item: counted.position.item.clone(),
        stock,
        counted_at: counted.position.counted_at,
        policy: scoped.clone(),
        levels,
        quantity,
        risks,
        alerts: alerts
            .into_iter()
            .filter(|(_, holds)| *holds)
            .map(|(alert, _)| alert)
            .collect(),
        budget_units: None,
        is_certain: demand.is_some_and(|demand| demand.is_certain(MAX_WEEKS.min(8))),
        expected_units: covered.mean(),
        reasons: Vec::new(),
        demand: covered,
    };
    row.reasons = reasons(&row, counted, demand, cover_units, age_days);
    row
}

/// Says in sentences what led to the quantity and to each alert.
fn reasons(
    row: &Row,
    counted: &CountedStock,
    demand: Option<&ItemDemand>,
    cover_units: f64,
    age_days: f64,
) -> Vec<String> {
    let (policy, levels, stock, risks) = (&row.policy.policy, &row.levels, &row.stock, &row.risks);
    let on_order = stock.on_order();
    let mut reasons = vec![format!(
        "The position is {:.1}: {:.1} on hand after {:.1} sold since the count, {on_order:.1} on order, {:.1} backordered.",
        stock.position(),
        stock.on_hand,
        counted.sold_units,
        stock.backordered
    )];
    let days = policy.lead_time_days + policy.review_period_days;
    reasons.push(match demand.map(|demand| demand.basis) {
        None => "The item has never been sold, so that no demand is expected.".to_owned(),
        Some(basis) => format!(
            "{:.1} units are expected to be sold in the {} of lead time and review period{}; the order-up-to level is {:.1}, \
             the reorder point {:.1}.",
            row.expected_units,
            in_days(days),
            match basis {
                Basis::History => "",
                Basis::Launch => ", by past launches, as the item is new",
                Basis::FewSales => ", with little to go by, as the item hardly sells",
            },
            levels.order_up_to,
            levels.reorder_point
        ),
    });
    reasons.push(quantity_reason(row, cover_units));
    for alert in &row.alerts {
        reasons.push(match alert {
            Alert::StockOut => format!(
                "The probability of a stock-out within the {} of lead time is {:.0} %{}.",
                in_days(policy.lead_time_days),
                risks.stock_out_probability * 100.0,
                match risks.stock_out_in_days {
                    Some(0) => ", and nothing is left now".to_owned(),
                    Some(days) => format!(
                        "; the expected demand uses the stock up in {}",
                        in_days(f64::from(days))
                    ),
                    None => String::new(),
                }
            ),
            Alert::LateOrder => format!("{:.1} units on order should have arrived.", risks.late_units),
            Alert::Overstock => format!(
                "{:.1} units are more than what sells within {} with a probability of {:.0} %.",
                risks.overstock_units,
                in_days(policy.max_cover_days),
                OVERSTOCK_LEVEL * 100.0
            ),
            Alert::DeadStock => match demand {
                Some(demand) => format!(
                    "{:.1} units are on hand, and the last sale was {} weeks ago.",
                    stock.on_hand, demand.weeks_since_sale
                ),
                None => format!("{:.1} units are on hand, and none was ever sold.", stock.on_hand),
            },
            Alert::StaleCount => format!(
                "The stock was counted {} ago, longer than the review period of {}.",
                in_days(age_days.round()),
                in_days(policy.review_period_days)
            ),
        });
    }
    reasons
}

/// Returns "1 day" or "7 days".
fn in_days(days: f64) -> String {
    match days == 1.0 {
        true => "1 day".to_owned(),
        false => format!("{days} days"),
    }
}

fn quantity_reason(row: &Row, cover_units: f64) -> String {
    let (policy, levels, quantity) = (&row.policy.policy, &row.levels, row.quantity);
    let position = row.stock.position();
    let missing = (levels.order_up_to - position).max(0.0);
    match quantity.reason {
        QuantityReason::NotDue => format!(
            "No order is due: the position of {position:.1} is not below the reorder point of {:.1}.",
            levels.reorder_point
        ),
        QuantityReason::Missing => format!(
            "Order {:.1}, which the position lacks of the order-up-to level.",
            quantity.units
        ),
        QuantityReason::RaisedToMinimum => format!(
            "Order {:.1}: {missing:.1} are missing, and the smallest order is {}.",
            quantity.units, policy.min_order_quantity
        ),
        QuantityReason::RoundedToMultiple => format!(
            "Order {:.1}: {missing:.1} are missing, rounded up to a multiple of {}.",
            quantity.units, policy.order_multiple
        ),
        QuantityReason::ReducedToCover => format!(
            "Order {:.1}, fewer than the {missing:.1} missing: more would last longer than {}, in which {cover_units:.1} are expected to \
             be sold.",
            quantity.units,
            in_days(policy.max_cover_days)
        ),
        QuantityReason::MinimumExceedsCover => format!(
            "Order nothing, although {missing:.1} are missing: the smallest order would last longer than {}, in which {cover_units:.1} \
             are expected to be sold.",
            in_days(policy.max_cover_days)
        ),
    }
}

/// Spreads `budget` over the orders, where it adds most expected units sold per unit of money.
fn spend(list: &mut Replenishment, budget: Money) {
    let cost_of = |row: &Row| {
        let cost = row.policy.unit_cost.filter(|cost| cost.currency == budget.currency)?;
        Some(cost.amount_minor as f64)
    };
    let mut bought = Vec::new();
    let mut lines = Vec::new();
    for (at, row) in list.rows.iter().enumerate().filter(|(_, row)| row.quantity.units > 0.0) {
        match cost_of(row) {
            Some(unit_cost_minor) => {
                bought.push(at);
                lines.push(BudgetLine {
                    position: row.stock.position(),
                    wanted_units: row.quantity.units,
                    min_order_quantity: row.policy.policy.min_order_quantity,
                    order_multiple: row.policy.policy.order_multiple,
                    unit_cost_minor,
                    demand: row.demand.clone(),
                });
            }
            None => list.without_cost.push(row.item.clone()),
        }
    }
    let units = allocate_budget(&lines, budget.amount_minor as f64);
    let mut spent = 0.0;
    for ((at, line), units) in bought.into_iter().zip(&lines).zip(units) {
        spent += units * line.unit_cost_minor;
        list.rows[at].budget_units = Some(units);
    }
    list.budget_spent_minor = spent.round() as i64;
}
