//! The demand of items: fits it on what was sold, and forecasts it from the served snapshot.

pub mod backtest;
pub mod evaluate;
pub mod fit;
pub mod forecast;
pub mod replenishment;
pub mod simulate;
