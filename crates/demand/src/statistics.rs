//! Order statistics of small samples.

/// Returns the quantile `tau` of `sorted` by linear interpolation between order statistics (type 7).
///
/// `sorted`: ascending, finite, not empty. `tau`: in [0, 1].
///
/// Source: Hyndman & Fan 1996, "Sample Quantiles in Statistical Packages".
pub fn quantile(sorted: &[f64], tau: f64) -> f64 {
    let position = tau * (sorted.len() - 1) as f64;
    let below = position.floor();
    let (low, high) = (sorted[below as usize], sorted[position.ceil() as usize]);
    low + (position - below) * (high - low)
}

/// Returns the median of `values`, which it sorts; 0 for none.
pub fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    values.sort_unstable_by(f64::total_cmp);
    quantile(values, 0.5)
}

/// Returns the mean of `values`; 0 for none.
pub fn mean(values: &[f64]) -> f64 {
    match values.len() {
        0 => 0.0,
        n => values.iter().sum::<f64>() / n as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let check = |sorted: &[f64], tau: f64, expected: f64| {
            assert!((quantile(sorted, tau) - expected).abs() < 1e-12, "{sorted:?} at {tau}");
        };
        check(&[3.0], 0.9, 3.0);
        check(&[1.0, 2.0, 4.0], 0.5, 2.0);
        check(&[1.0, 2.0, 4.0], 0.75, 3.0);
        check(&[1.0, 2.0, 4.0, 8.0], 0.95, 7.4);
        check(&[1.0, 2.0], 1.0, 2.0);
    }
}
