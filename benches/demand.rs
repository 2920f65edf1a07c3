//! Measures how long the demand of many items takes to fit, in which memory, and what a forecast of one item costs.
//!
//! `cargo bench -p demand -- [ITEMS]...`. Items sell by Zipf's law over two years, ten order lines each on average, and most of them
//! hardly ever.

use std::time::Instant;

use demand::distribution::Scratch;
use demand::forecast::{ItemDemand, ItemSales};
use demand::history::{Sale, SalesHistory};
use demand::model::DemandModel;

const WEEKS: usize = 104;
const LINES_PER_ITEM: usize = 10;
/// The weeks that are forecast.
const HORIZON_WEEKS: usize = 8;
/// The items whose forecasts are timed.
const FORECAST_ITEMS: usize = 2_000;

/// A generator of numbers that repeat for a seed: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// Returns a number in [0, 1).
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn sales(n_items: usize) -> Vec<Sale> {
    let mut random = Random(1);
    let line = |_| Sale {
        // The rank of an item under Zipf's law with exponent 1.
        item: ((n_items as f64).powf(random.share()) as usize - 1).min(n_items - 1) as u32,
        week: (random.share() * WEEKS as f64) as u16,
        quantity: (1.0 - random.share().ln() * 3.0).floor() as f32,
    };
    (0..n_items * LINES_PER_ITEM).map(line).collect()
}

/// Returns a field of /proc/self/status in MB: VmRSS is the memory now, VmHWM its peak.
fn memory_mb(field: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    kb.unwrap_or(f64::NAN) / 1024.0
}

/// Returns the CPU seconds of this process, on all its threads.
fn cpu_seconds() -> f64 {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields behind the name: user time is the 12th, system time the 13th.
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

fn measure(n_items: usize) {
    let sales = sales(n_items);
    let history = SalesHistory::new(n_items, WEEKS, &sales, &[], Vec::new());
    drop(sales);
    let Ok(history) = history else {
        eprintln!("the sales of {n_items} items make no history");
        return;
    };
    let (before_mb, before_cpu, began) = (memory_mb("VmRSS"), cpu_seconds(), Instant::now());
    let Ok(model) = DemandModel::fit(history, 0, WEEKS, 0.0) else {
        eprintln!("the sales of {n_items} items fit nothing");
        return;
    };
    let (cpu, wall) = (cpu_seconds() - before_cpu, began.elapsed().as_secs_f64());

    let mut scratch = Scratch::default();
    let began = cpu_seconds();
    let mut n_forecast = 0;
    for nth in 0..FORECAST_ITEMS {
        let item = nth * n_items / FORECAST_ITEMS;
        let sales = ItemSales {
            history: &model.history,
            item,
            known_item: Some(item),
        };
        let found = ItemDemand::forecast(&model, sales, WEEKS, HORIZON_WEEKS, &mut scratch);
        n_forecast += usize::from(std::hint::black_box(found).is_some());
    }
    let forecast_us = (cpu_seconds() - began) * 1e6 / n_forecast.max(1) as f64;
    println!(
        "| {n_items} | {} | {cpu:.1} | {wall:.1} | {before_mb:.0} | {:.0} | {forecast_us:.0} |",
        n_items * LINES_PER_ITEM,
        memory_mb("VmHWM")
    );
}

fn main() {
    let asked: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    println!("| Items | Order lines | Fitting, CPU s | s | Sales, MB | Peak, MB | Forecast of an item, µs |");
    println!("|---|---|---|---|---|---|---|");
    for n_items in if asked.is_empty() {
        vec![10_000, 100_000, 1_000_000]
    } else {
        asked
    } {
        measure(n_items);
    }
}
