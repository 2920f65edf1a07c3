//! Replays past weeks with weekly orders up to a level: how much stock a rule needs for the share of demand it fills.

/// A replay of weeks `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    pub first: usize,
    pub last: usize,
    /// Weeks at the beginning that are not counted.
    pub warm_up_weeks: usize,
    /// Weeks between an order and its arrival.
    pub lead_time_weeks: usize,
}

/// The outcome of a replay, over all items.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Outcome {
    pub demanded_units: f64,
    pub sold_units: f64,
    /// Mean units on the shelf, at half of each week's sales.
    pub stock_units: f64,
    pub demanded_value: f64,
    pub sold_value: f64,
    pub stock_value: f64,
}

impl Outcome {
    /// Returns the share of the demanded units that was sold; 1 where nothing was demanded.
    pub fn fill_rate(&self) -> f64 {
        match self.demanded_units > 0.0 {
            true => self.sold_units / self.demanded_units,
            false => 1.0,
        }
    }

    pub fn add(&mut self, other: Self) {
        self.demanded_units += other.demanded_units;
        self.sold_units += other.sold_units;
        self.stock_units += other.stock_units;
        self.demanded_value += other.demanded_value;
        self.sold_value += other.sold_value;
        self.stock_value += other.stock_value;
    }
}

/// Replays one item: orders at the beginning of each week arrive `lead_time_weeks` later, and what is not in stock is not sold.
///
/// `order_up_to`: the level of each week from `first` to `last`; the stock begins at that of the first. `demand`: the units of
/// every week. `unit_value`: of one unit on the shelf.
pub fn replay(replay: Replay, order_up_to: &[f64], demand: &[f64], unit_value: f64) -> Outcome {
    let mut on_hand = order_up_to[0];
    let mut on_order = vec![0.0; replay.lead_time_weeks];
    let mut outcome = Outcome::default();
    let mut n_counted = 0.0;
    for (at, &wanted) in demand[replay.first..=replay.last].iter().enumerate() {
        if replay.lead_time_weeks > 0 {
            on_hand += on_order.remove(0);
        }
        let position = on_hand + on_order.iter().sum::<f64>();
        let ordered = (order_up_to[at] - position).max(0.0);
        match replay.lead_time_weeks {
            0 => on_hand += ordered,
            _ => on_order.push(ordered),
        }
        let sold = wanted.min(on_hand);
        if at >= replay.warm_up_weeks {
            outcome.demanded_units += wanted;
            outcome.sold_units += sold;
            outcome.stock_units += on_hand - sold / 2.0;
            n_counted += 1.0;
        }
        on_hand -= sold;
    }
    outcome.stock_units /= f64::max(n_counted, 1.0);
    outcome.demanded_value = outcome.demanded_units * unit_value;
    outcome.sold_value = outcome.sold_units * unit_value;
    outcome.stock_value = outcome.stock_units * unit_value;
    outcome
}

/// Returns the stock at `fill_rate`, interpolated between `points` of (fill rate, stock); `None` outside of them.
pub fn stock_at(fill_rate: f64, points: &[(f64, f64)]) -> Option<f64> {
    let mut sorted = points.to_vec();
    sorted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let above = sorted.partition_point(|point| point.0 < fill_rate);
    let high = sorted.get(above)?;
    if high.0 == fill_rate {
        return Some(high.1);
    }
    let low = sorted.get(above.checked_sub(1)?)?;
    Some(low.1 + (fill_rate - low.0) / (high.0 - low.0) * (high.1 - low.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_near;

    #[test]
    fn orders_arrive_after_the_lead_time_and_lost_sales_stay_lost() {
        let replayed = |lead_time_weeks, order_up_to: &[f64], demand: &[f64]| {
            let replayed = Replay {
                first: 0,
                last: demand.len() - 1,
                warm_up_weeks: 1,
                lead_time_weeks,
            };
            replay(replayed, order_up_to, demand, 2.0)
        };
        // Week 0 sells 5 of 5, week 1 finds nothing, and week 2 the five ordered in week 1.
        let found = replayed(1, &[5.0; 3], &[5.0, 4.0, 4.0]);
        assert_near(found.sold_units, 4.0, 1e-12);
        assert_near(found.fill_rate(), 0.5, 1e-12);
        assert_near(found.stock_units, (0.0 + 3.0) / 2.0, 1e-12);
        assert_near(found.stock_value, 3.0, 1e-12);
        // Without a lead time every week begins full.
        assert_near(replayed(0, &[5.0; 3], &[5.0, 4.0, 4.0]).fill_rate(), 1.0, 1e-12);
    }

    #[test]
    fn stock_is_interpolated_at_equal_fill() {
        let points = [(0.9, 20.0), (0.8, 10.0)];
        assert_eq!(stock_at(0.85, &points).map(f64::round), Some(15.0));
        assert_eq!(stock_at(0.9, &points), Some(20.0));
        assert_eq!(stock_at(0.95, &points), None);
        assert_eq!(stock_at(0.7, &points), None);
    }
}
