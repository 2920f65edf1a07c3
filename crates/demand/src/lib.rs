//! Forecasts how much of an item will sell, how sure that is, and how much to order.
//!
//! [`history`] keeps the sales of every item by week. [`smoothing`] forecasts one series, [`point`] chooses the method
//! of each [`class`] of series by backtest, [`collaborative`] adds what users are expected to buy, and [`distribution`] turns levels into quantiles of demand over any number of
//! weeks. [`launch`] does so for new items. [`model`] is everything that is fitted
//! together, [`quality`] its measured quality, and [`forecast`] the demand that it forecasts of one item.
//! [`replenishment`] decides from those quantiles; [`simulation`] replays past weeks with such decisions, and
//! [`backtest`] measures forecasts over rolling origins, and [`comparison`] the stock that such rules need. [`inventory`] holds
//! stock and policies as callers give them.
//!
//! An *origin* is the first week that a forecast does not know: a forecast made at origin T rests on the weeks 0 to
//! T − 1.

pub mod backtest;
pub mod class;
pub mod collaborative;
pub mod comparison;
pub mod distribution;
pub mod forecast;
pub mod history;
pub mod inventory;
pub mod launch;
pub mod model;
pub mod point;
pub mod quality;
pub mod replenishment;
pub mod returns;
pub mod simulation;
pub mod smoothing;
mod statistics;

#[cfg(test)]
mod testing;
