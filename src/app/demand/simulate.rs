//! Replays past weeks with these rules of replenishment and with the common one.

use demand::comparison::{Comparison, ComparisonOptions, compare};
use demand::history::SalesHistory;
use demand::model::DemandModel;
use demand::simulation::Replay;
use recommender::snapshot::dictionary::{DenseIndex, ItemIndex};
use recommender::snapshot::view::View;

/// Weeks at the beginning of a replay that are not counted.
pub const WARM_UP_WEEKS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimulationOptions {
    pub lead_time_weeks: usize,
    /// The last weeks of the history, more than [`WARM_UP_WEEKS`].
    pub weeks: usize,
    /// The least number of weeks with sales before the replay.
    pub min_weeks_with_sales: usize,
}

impl Default for SimulationOptions {
    fn default() -> Self {
        Self {
            lead_time_weeks: 2,
            weeks: 15,
            min_weeks_with_sales: 8,
        }
    }
}

/// Replays the last weeks before `origin`. `None` where too little history lies before them.
pub fn replay_last_weeks(
    history: &SalesHistory,
    origin: usize,
    unit_values: &[f64],
    options: &SimulationOptions,
) -> Option<Comparison> {
    let first = origin.checked_sub(options.weeks)?;
    let options = ComparisonOptions {
        replay: Replay {
            first,
            last: origin - 1,
            warm_up_weeks: WARM_UP_WEEKS,
            lead_time_weeks: options.lead_time_weeks,
        },
        min_nonzero: options.min_weeks_with_sales,
    };
    compare(history, unit_values, &options)
}

/// Replays the last weeks that the snapshot knows, on one core, at the present prices of the catalog.
pub fn simulate(view: &View, model: &DemandModel, options: &SimulationOptions) -> Option<Comparison> {
    let price = |at: u32| {
        let price = view.facts(ItemIndex::new(at)).price;
        price.map_or(0.0, |price| price.amount_minor as f64)
    };
    let unit_values: Vec<f64> = (0..view.snapshot.items().len() as u32).map(price).collect();
    let replay = || replay_last_weeks(&model.history, model.origin, &unit_values, options);
    match rayon::ThreadPoolBuilder::new().num_threads(1).build() {
        Ok(one_thread) => one_thread.install(replay),
        Err(_) => replay(),
    }
}
