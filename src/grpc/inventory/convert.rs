//! Converts the messages of InventoryService.

use chrono::Days;
use demand::comparison::{Comparison, StockComparison};
use demand::inventory::{OnOrder, PolicyScope, Position, ScopedPolicy};
use demand::replenishment::{MAX_DAYS, Policy, QuantityReason, ServiceGoal};
use domain::access::Caller;
use domain::error::InvalidField;
use domain::id::{Category, ItemId, MerchantId};
use domain::money::Money;
use domain::time::Timestamp;
use recommender::snapshot::view::View;
use tonic::Status;

use crate::admission;
use crate::app::demand::replenishment::{Alert, Replenishment, ReplenishmentRequest, Row, is_old_count};
use crate::app::demand::simulate::{SimulationOptions, WARM_UP_WEEKS};
use crate::grpc::batch::MAX_BATCH;
use crate::grpc::convert::{event_time, instant, required, timestamp};
use crate::grpc::page;
use crate::grpc::proto::v1;
use crate::grpc::status::{Violations, invalid_argument};
use crate::live::Live;

/// Most items of each kind that a header names.
const MAX_NAMED: usize = 1_000;

/// # Errors
/// The first bad field.
pub fn position(position: v1::InventoryPosition, now: Timestamp) -> Result<Position, InvalidField> {
    let item = ItemId::new(position.item_id)?;
    let order = |(at, order): (usize, v1::OnOrder)| {
        let field = format!("on_order[{at}].expected_at");
        Ok(OnOrder {
            quantity: order.quantity,
            expected_at: instant(&field, required(&field, order.expected_at)?)?,
        })
    };
    let on_order = position.on_order.into_iter().enumerate().map(order);
    let position = Position {
        item,
        on_hand: position.on_hand,
        backordered: position.backordered,
        on_order: on_order.collect::<Result<_, InvalidField>>()?,
        counted_at: event_time("counted_at", position.counted_at, now)?.at(),
    };
    position.check()?;
    Ok(position)
}

impl From<Position> for v1::InventoryPosition {
    fn from(position: Position) -> Self {
        let order = |order: OnOrder| v1::OnOrder {
            quantity: order.quantity,
            expected_at: Some(timestamp(order.expected_at)),
        };
        Self {
            item_id: position.item.to_string(),
            on_hand: position.on_hand,
            on_order: position.on_order.into_iter().map(order).collect(),
            backordered: position.backordered,
            counted_at: Some(timestamp(position.counted_at)),
        }
    }
}

/// Returns a warning for every count that is older than the review period of its item.
pub fn warnings(positions: &[v1::InventoryPosition], live: &Live, now: Timestamp) -> Vec<v1::EntryWarning> {
    let (view, inventory) = (live.view(), live.inventory());
    let warning = |(index, entry): (u32, &v1::InventoryPosition)| {
        let position = position(entry.clone(), now).ok()?;
        let review_days = is_old_count(view.as_deref(), &inventory, &position, now)?;
        let age_days = position.age_days(now);
        Some(v1::EntryWarning {
            index,
            reason: "COUNT_IS_OLD".to_owned(),
            message: format!(
                "counted_at is {age_days:.1} days ago, longer than the review period of {review_days} days; count more often, or \
                 raise review_period_days"
            ),
        })
    };
    (0..).zip(positions).filter_map(warning).collect()
}

/// Keeps the warnings of entries that were not rejected.
pub fn of_accepted(warnings: Vec<v1::EntryWarning>, results: &[v1::EntryResult]) -> Vec<v1::EntryWarning> {
    let is_accepted = |warning: &v1::EntryWarning| {
        let result = results.get(warning.index as usize);
        result.is_some_and(|result| result.outcome() != v1::EntryOutcome::Rejected)
    };
    warnings.into_iter().filter(is_accepted).collect()
}

pub struct ListPositions {
    pub item: Option<ItemId>,
    pub after: (String, Timestamp),
    pub page_size: i64,
}

impl ListPositions {
    /// Returns what a page token is bound to.
    pub fn key(&self) -> (&'static str, Option<&str>) {
        positions_key(self.item.as_ref())
    }
}

fn positions_key(item: Option<&ItemId>) -> (&'static str, Option<&str>) {
    ("ListInventoryPositions", item.map(ItemId::as_str))
}

pub fn position_cursor(position: &Position) -> (String, i64) {
    (position.item.to_string(), position.counted_at.timestamp_micros())
}

/// # Errors
/// INVALID_ARGUMENT naming every bad field.
pub fn list_positions(request: v1::ListInventoryPositionsRequest) -> Result<ListPositions, Status> {
    let mut violations = Violations::default();
    let item = violations.check(request.item_id.map(ItemId::new).transpose());
    let page_size = violations.check(page::page_size(request.page_size));
    let after = item.as_ref().and_then(|item| {
        let is_possible = |(id, at): &(String, i64)| ItemId::new(id.as_str()).is_ok() && moment(*at).is_some();
        violations.check(page::cursor(
            &positions_key(item.as_ref()),
            &request.page_token,
            is_possible,
        ))
    });
    let list = item.zip(page_size).zip(after).map(|((item, page_size), after)| {
        let (id, at) = after.unwrap_or_default();
        // The first page comes after no item, and all counts of its first item follow.
        let at = match id.is_empty() {
            true => Timestamp::MAX_UTC,
            false => moment(at).unwrap_or(Timestamp::MAX_UTC),
        };
        ListPositions {
            item,
            after: (id, at),
            page_size,
        }
    });
    violations.finish(list)
}

fn moment(micros: i64) -> Option<Timestamp> {
    Timestamp::from_timestamp_micros(micros)
}

/// # Errors
/// The first bad field.
pub fn policy(policy: v1::ReplenishmentPolicy) -> Result<ScopedPolicy, InvalidField> {
    use v1::replenishment_policy::Goal;
    let scope = scope(policy.scope)?;
    let unit_cost = policy.unit_cost.map(Money::try_from).transpose();
    let scoped = ScopedPolicy {
        scope,
        policy: Policy {
            lead_time_days: policy.lead_time_days,
            review_period_days: policy.review_period_days,
            goal: match policy.goal {
                Some(Goal::CycleServiceLevel(level)) => ServiceGoal::CycleServiceLevel(level),
                Some(Goal::FillRate(rate)) => ServiceGoal::FillRate(rate),
                None => {
                    let message = "must be cycle_service_level or fill_rate";
                    return Err(InvalidField::new("goal", "MISSING", message));
                }
            },
            min_order_quantity: policy.min_order_quantity,
            order_multiple: policy.order_multiple.unwrap_or(1.0),
            max_cover_days: policy.max_cover_days.unwrap_or(MAX_DAYS),
        },
        unit_cost: unit_cost.map_err(|error| error.within("unit_cost"))?,
    };
    scoped.check()?;
    Ok(scoped)
}

fn scope(scope: Option<v1::PolicyScope>) -> Result<PolicyScope, InvalidField> {
    use v1::policy_scope::Of;
    let within = |error: InvalidField| error.within("scope");
    match required("scope", scope)?.of {
        Some(Of::ItemId(id)) => ItemId::new(id).map(PolicyScope::Item).map_err(within),
        Some(Of::Category(category)) => Category::new(category).map(PolicyScope::Category).map_err(within),
        Some(Of::MerchantId(id)) => MerchantId::new(id).map(PolicyScope::Merchant).map_err(within),
        Some(Of::AllItems(true)) => Ok(PolicyScope::All),
        Some(Of::AllItems(false)) | None => {
            let message = "must be item_id, category, merchant_id or all_items = true";
            Err(InvalidField::new("scope.of", "MISSING", message))
        }
    }
}

/// # Errors
/// INVALID_ARGUMENT naming the bad field.
pub fn required_scope(given: Option<v1::PolicyScope>) -> Result<PolicyScope, Status> {
    scope(given).map_err(|error| invalid_argument(vec![error]))
}

impl From<&PolicyScope> for v1::PolicyScope {
    fn from(scope: &PolicyScope) -> Self {
        use v1::policy_scope::Of;
        Self {
            of: Some(match scope {
                PolicyScope::Item(id) => Of::ItemId(id.to_string()),
                PolicyScope::Category(category) => Of::Category(category.to_string()),
                PolicyScope::Merchant(id) => Of::MerchantId(id.to_string()),
                PolicyScope::All => Of::AllItems(true),
            }),
        }
    }
}

impl From<ScopedPolicy> for v1::ReplenishmentPolicy {
    fn from(scoped: ScopedPolicy) -> Self {
        use v1::replenishment_policy::Goal;
        let policy = scoped.policy;
        Self {
            scope: Some((&scoped.scope).into()),
            lead_time_days: policy.lead_time_days,
            review_period_days: policy.review_period_days,
            goal: Some(match policy.goal {
                ServiceGoal::CycleServiceLevel(level) => Goal::CycleServiceLevel(level),
                ServiceGoal::FillRate(rate) => Goal::FillRate(rate),
            }),
            min_order_quantity: policy.min_order_quantity,
            order_multiple: Some(policy.order_multiple),
            max_cover_days: Some(policy.max_cover_days),
            unit_cost: scoped.unit_cost.map(Into::into),
        }
    }
}

pub struct ListPolicies {
    pub after: (String, String),
    pub page_size: i64,
}

/// The key that the page tokens of ListReplenishmentPolicies are bound to.
pub const POLICIES_KEY: &str = "ListReplenishmentPolicies";

pub fn policy_cursor(policy: &ScopedPolicy) -> (String, String) {
    (policy.scope.kind().to_owned(), policy.scope.id().to_owned())
}

/// # Errors
/// INVALID_ARGUMENT naming every bad field.
pub fn list_policies(request: &v1::ListReplenishmentPoliciesRequest) -> Result<ListPolicies, Status> {
    let mut violations = Violations::default();
    let page_size = violations.check(page::page_size(request.page_size));
    let is_possible = |(kind, id): &(String, String)| PolicyScope::new(kind, id).is_ok();
    let after = violations.check(page::cursor(&POLICIES_KEY, &request.page_token, is_possible));
    let list = page_size.zip(after).map(|(page_size, after)| ListPolicies {
        after: after.unwrap_or_default(),
        page_size,
    });
    violations.finish(list)
}

/// A list that is asked for.
pub struct WantedReplenishment {
    pub request: ReplenishmentRequest,
    limit: usize,
}

/// # Errors
/// INVALID_ARGUMENT naming every bad field; PERMISSION_DENIED for another merchant than the caller's.
pub fn replenishment(request: v1::ListReplenishmentRequest, caller: &Caller) -> Result<WantedReplenishment, Status> {
    let named = request.merchant_id.iter().map(String::as_str);
    admission::check_merchants(caller, "merchant_id", named)?;
    let mut violations = Violations::default();
    if request.item_ids.len() > MAX_BATCH {
        let message = format!("must have at most {MAX_BATCH} entries, has {}", request.item_ids.len());
        violations.add(InvalidField::new("item_ids", "BATCH_SIZE_OUT_OF_RANGE", message));
        return violations.finish(None);
    }
    let item = |(at, id): (usize, String)| {
        let id = ItemId::new(id).map_err(|error| InvalidField {
            field: format!("item_ids[{at}]"),
            ..error
        });
        violations.check(id)
    };
    let items = request.item_ids.into_iter().enumerate().filter_map(item).collect();
    let category = violations.check(request.category.map(Category::new).transpose());
    let merchant = violations.check(request.merchant_id.map(MerchantId::new).transpose());
    let budget = request.budget.map(|budget| {
        let budget = Money::try_from(budget).and_then(Money::require_not_negative);
        budget.map_err(|error| error.within("budget"))
    });
    let budget = violations.check(budget.transpose());
    let limit = violations.check(usize::try_from(request.limit).map_err(|_| {
        let message = format!("must be 1 or more, or 0 for all rows, is {}", request.limit);
        InvalidField::new("limit", "LIMIT_OUT_OF_RANGE", message)
    }));
    let wanted = category.zip(merchant).zip(budget).zip(limit);
    violations.finish(
        wanted.map(|(((category, merchant), budget), limit)| WantedReplenishment {
            request: ReplenishmentRequest {
                items,
                category,
                merchant,
                only_alerts: request.only_alerts,
                budget,
            },
            limit: if limit == 0 { usize::MAX } else { limit },
        }),
    )
}

/// Returns the header and the rows.
pub fn messages(
    view: &View,
    list: Replenishment,
    wanted: &WantedReplenishment,
    now: Timestamp,
) -> Vec<v1::ListReplenishmentResponse> {
    use v1::list_replenishment_response::Message;
    let names = |items: &[ItemId]| items.iter().take(MAX_NAMED).map(ItemId::to_string).collect();
    let header = v1::ReplenishmentHeader {
        snapshot_version: view.version,
        rows: list.rows.len().min(wanted.limit) as i64,
        items_without_policy: list.without_policy.len() as i64,
        item_ids_without_policy: names(&list.without_policy),
        items_without_cost: list.without_cost.len() as i64,
        item_ids_without_cost: names(&list.without_cost),
        budget_spent: wanted.request.budget.map(|budget| {
            v1::Money::from(Money {
                amount_minor: list.budget_spent_minor,
                ..budget
            })
        }),
    };
    let rows = list.rows.into_iter().take(wanted.limit).zip(1..);
    let rows = rows.map(|(listed, rank)| Message::Row(row(listed, rank, now)));
    std::iter::once(Message::Header(header))
        .chain(rows)
        .map(|message| v1::ListReplenishmentResponse { message: Some(message) })
        .collect()
}

fn row(row: Row, rank: i64, now: Timestamp) -> v1::ReplenishmentRow {
    let alerts = row.alerts.iter().map(|&alert| v1::StockAlert::from(alert).into());
    let stock_out_at = row
        .risks
        .stock_out_in_days
        .map(|days| timestamp(now + Days::new(u64::from(days))));
    v1::ReplenishmentRow {
        rank,
        item_id: row.item.to_string(),
        on_hand: row.stock.on_hand,
        on_order: row.stock.on_order(),
        backordered: row.stock.backordered,
        position: row.stock.position(),
        counted_at: Some(timestamp(row.counted_at)),
        policy_scope: Some((&row.policy.scope).into()),
        recommended_units: row.quantity.units,
        quantity_reason: v1::QuantityReason::from(row.quantity.reason).into(),
        recommended_cost: row.cost_of(row.quantity.units).map(Into::into),
        budget_units: row.budget_units,
        reorder_point: row.levels.reorder_point,
        order_up_to: row.levels.order_up_to,
        safety_stock: row.levels.safety_stock,
        expected_units: row.expected_units,
        stock_out_probability: row.risks.stock_out_probability,
        stock_out_at,
        late_units: row.risks.late_units,
        overstock_units: row.risks.overstock_units,
        overstock_value: row.cost_of(row.risks.overstock_units).map(Into::into),
        alerts: alerts.collect(),
        is_certain: row.is_certain,
        reasons: row.reasons,
    }
}

impl From<Alert> for v1::StockAlert {
    fn from(alert: Alert) -> Self {
        match alert {
            Alert::StockOut => Self::StockOut,
            Alert::LateOrder => Self::LateOrder,
            Alert::Overstock => Self::Overstock,
            Alert::DeadStock => Self::DeadStock,
            Alert::StaleCount => Self::StaleCount,
        }
    }
}

impl From<QuantityReason> for v1::QuantityReason {
    fn from(reason: QuantityReason) -> Self {
        match reason {
            QuantityReason::NotDue => Self::NotDue,
            QuantityReason::Missing => Self::Missing,
            QuantityReason::RaisedToMinimum => Self::RaisedToMinimum,
            QuantityReason::RoundedToMultiple => Self::RoundedToMultiple,
            QuantityReason::ReducedToCover => Self::ReducedToCover,
            QuantityReason::MinimumExceedsCover => Self::MinimumExceedsCover,
        }
    }
}

/// # Errors
/// INVALID_ARGUMENT naming every bad field.
pub fn simulation_options(request: &v1::SimulateReplenishmentRequest) -> Result<SimulationOptions, Status> {
    let defaults = SimulationOptions::default();
    let mut violations = Violations::default();
    let mut number = |field: &str, value: i32, default: usize, least: usize, most: usize| {
        let value = match usize::try_from(value) {
            Ok(0) => Ok(default),
            Ok(value) if (least..=most).contains(&value) => Ok(value),
            _ => {
                let message = format!("must be {least} to {most}, or 0 for {default}, is {value}");
                Err(InvalidField::new(field, "OUT_OF_RANGE", message))
            }
        };
        violations.check(value)
    };
    let lead_time_weeks = number(
        "lead_time_weeks",
        request.lead_time_weeks,
        defaults.lead_time_weeks,
        1,
        12,
    );
    let weeks = number("weeks", request.weeks, defaults.weeks, WARM_UP_WEEKS + 2, 52);
    let min_weeks_with_sales = number(
        "min_weeks_with_sales",
        request.min_weeks_with_sales,
        defaults.min_weeks_with_sales,
        1,
        208,
    );
    let options = lead_time_weeks.zip(weeks).zip(min_weeks_with_sales);
    violations.finish(
        options.map(|((lead_time_weeks, weeks), min_weeks_with_sales)| SimulationOptions {
            lead_time_weeks,
            weeks,
            min_weeks_with_sales,
        }),
    )
}

pub fn simulation(view: &View, found: Comparison) -> v1::SimulateReplenishmentResponse {
    let comparison = |row: &StockComparison| v1::StockComparison {
        fill_rate: row.fill_rate,
        stock_units: row.stock_units,
        rule_stock_units: row.rule_stock_units,
        saved_units_share: row.saved_units_share(),
        saved_value_share: row.saved_value_share(),
    };
    let realized = found.realized.iter().map(|row| v1::RealizedFillRate {
        target: row.target,
        realized: row.realized,
    });
    v1::SimulateReplenishmentResponse {
        snapshot_version: view.version,
        items: found.n_items as i64,
        comparisons: found.stocks.iter().map(comparison).collect(),
        realized: realized.collect(),
    }
}
