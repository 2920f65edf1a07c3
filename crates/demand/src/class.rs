//! The classes of demand: how often an item sells, and how much its weeks differ.

/// Mean interval between weeks with sales from which demand is intermittent.
const INTERMITTENT_INTERVAL: f64 = 1.32;
/// Squared coefficient of variation of the weeks with sales from which their size is erratic.
const ERRATIC_VARIATION: f64 = 0.49;

/// A class of demand.
///
/// Source: Syntetos, Boylan & Croston 2005, "On the categorization of demand patterns".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DemandClass {
    /// Sells in most weeks, always about as much.
    Smooth,
    /// Sells in most weeks, in amounts that differ.
    Erratic,
    /// Sells now and then, always about as much.
    Intermittent,
    /// Sells now and then, in amounts that differ.
    Lumpy,
}

impl DemandClass {
    pub const ALL: [Self; 4] = [Self::Smooth, Self::Erratic, Self::Intermittent, Self::Lumpy];

    /// Classifies the units of consecutive weeks, from the first sale on.
    pub fn of(units: &[f64]) -> Self {
        let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for &unit in units.iter().filter(|&&unit| unit > 0.0) {
            n += 1.0;
            sum += unit;
            squares += unit * unit;
        }
        let interval = units.len() as f64 / f64::max(n, 1.0);
        let mean = sum / f64::max(n, 1.0);
        let variation = match n > 0.0 {
            true => (squares / n / (mean * mean) - 1.0).max(0.0),
            false => 0.0,
        };
        match (interval < INTERMITTENT_INTERVAL, variation < ERRATIC_VARIATION) {
            (true, true) => Self::Smooth,
            (true, false) => Self::Erratic,
            (false, true) => Self::Intermittent,
            (false, false) => Self::Lumpy,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Smooth => "smooth",
            Self::Erratic => "erratic",
            Self::Intermittent => "intermittent",
            Self::Lumpy => "lumpy",
        }
    }

    /// The position in [`ALL`](Self::ALL).
    pub fn at(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_interval_and_variation() {
        let check = |units: &[f64], expected| assert_eq!(DemandClass::of(units), expected, "{units:?}");
        check(&[5.0, 4.0, 6.0, 5.0], DemandClass::Smooth);
        check(&[1.0, 9.0, 1.0, 20.0], DemandClass::Erratic);
        check(&[5.0, 0.0, 5.0, 0.0], DemandClass::Intermittent);
        check(&[1.0, 0.0, 20.0, 0.0], DemandClass::Lumpy);
        check(&[0.0; 4], DemandClass::Intermittent);
        check(&[5e9], DemandClass::Smooth);
    }
}
