//! The lift of a campaign: users it could reach compared with users held out, by intention to treat.
//!
//! Everyone assigned to an arm counts in it, whether or not they saw or used a coupon. Only then do the arms differ by chance
//! alone. Intervals have 95 % confidence. A figure that the data does not define is `None`; no figure is NaN or infinite.

use statrs::function::beta::beta_reg;
use statrs::function::erf::erfc;

/// The probability that an interval misses the true value.
const ALPHA: f64 = 0.05;
/// The quantile 1 − [`ALPHA`]/2 of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;
/// A sample ratio with a p-value below this is a mismatch.
const SAMPLE_RATIO_ALPHA: f64 = 0.001;

/// The counts of a campaign at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    pub treated: Arm,
    pub held_out: Arm,
    /// The intended share of users held out; more than 10 000 counts as 10 000.
    pub holdout_basis_points: u16,
}

/// The users of one arm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arm {
    /// All users who were assigned to the arm.
    pub users: u64,
    /// The users who converted; more than `users` count as `users`.
    pub converters: u64,
    /// `Σ x` over the users' revenues x in minor units, net of returns; 0 for a user who bought nothing.
    pub revenue_minor: i64,
    /// `Σ x²` over the same revenues.
    pub revenue_minor_squared: f64,
}

/// The result of [`lift`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LiftReport {
    pub treated: ArmSummary,
    pub held_out: ArmSummary,
    /// `None` if an arm is empty.
    pub rate_difference: Option<RateDifference>,
    /// `None` if an arm has fewer than two users, if the revenues within each arm are all equal, or if the sums overflow.
    pub revenue_difference: Option<RevenueDifference>,
    /// `None` without users.
    pub sample_ratio: Option<SampleRatio>,
    pub verdict: LiftVerdict,
}

/// The figures of one arm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ArmSummary {
    pub users: u64,
    pub converters: u64,
    /// The share of users who converted, in [0, 1]; `None` without users.
    pub rate: Option<f64>,
    /// The mean revenue per user in minor units; `None` without users.
    pub revenue_per_user_minor: Option<f64>,
}

/// The conversion rate of the treated arm minus that of the held-out arm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateDifference {
    /// In [−1, 1].
    pub difference: f64,
    /// Newcombe's interval, within [−1, 1].
    pub interval: Interval,
    /// `difference` as a share of the held-out rate, at least −1; `None` if nobody held out converted.
    pub relative: Option<f64>,
}

/// The revenue per user of the treated arm minus that of the held-out arm, by Welch's t test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RevenueDifference {
    /// In minor units per user.
    pub difference_minor: f64,
    /// In minor units per user.
    pub interval_minor: Interval,
    /// `difference_minor` in standard errors.
    pub t: f64,
    /// The degrees of freedom of Welch and Satterthwaite, from 1 to users − 2.
    pub degrees_of_freedom: f64,
    /// The two-sided p-value, below 0.05 if the interval excludes 0.
    pub p_value: f64,
}

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// The sizes of the arms compared with the intended ones.
///
/// If they differ, users were lost or counted in one arm more than in the other, and no other figure can be trusted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleRatio {
    /// In [0, 1].
    pub expected_held_out_share: f64,
    /// In [0, 1].
    pub held_out_share: f64,
    /// χ² with one degree of freedom; `None` if the expected share leaves one arm empty.
    pub chi_square: Option<f64>,
    /// The probability of arms at least this uneven by chance.
    pub p_value: f64,
    /// Whether `p_value` is below 0.001.
    pub is_mismatch: bool,
}

/// The effect of the campaign on the conversion rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiftVerdict {
    /// The interval of the difference in rates lies above 0.
    Positive,
    /// The interval lies below 0.
    Negative,
    /// The interval holds 0, or there is none, or the sample ratio is a mismatch.
    Inconclusive,
}

/// Computes the lift of a campaign.
///
/// Source: docs/formulas.md, "Holdout and lift"; the private functions name the sources of the methods.
pub fn lift(trial: &Trial) -> LiftReport {
    let Trial { treated, held_out, .. } = trial;
    let rate_difference = rate_difference(treated, held_out);
    let sample_ratio = sample_ratio(trial);
    let verdict = match rate_difference {
        Some(difference) if sample_ratio.is_some_and(|ratio| !ratio.is_mismatch) => difference.interval.verdict(),
        _ => LiftVerdict::Inconclusive,
    };
    LiftReport {
        treated: treated.summary(),
        held_out: held_out.summary(),
        rate_difference,
        revenue_difference: revenue_difference(treated, held_out),
        sample_ratio,
        verdict,
    }
}

impl Arm {
    fn summary(&self) -> ArmSummary {
        ArmSummary {
            users: self.users,
            converters: self.converters,
            rate: self.rate(),
            revenue_per_user_minor: self.revenue_mean(),
        }
    }

    fn rate(&self) -> Option<f64> {
        let converters = self.converters.min(self.users);
        (self.users > 0).then(|| converters as f64 / self.users as f64)
    }

    fn revenue_mean(&self) -> Option<f64> {
        (self.users > 0).then(|| self.revenue_minor as f64 / self.users as f64)
    }

    /// Returns the unbiased variance `(n·Σx² − (Σx)²) / (n·(n − 1))`.
    ///
    /// The two products are nearly equal if the revenues are, so the difference includes their rounding errors.
    fn revenue_variance(&self) -> Option<f64> {
        if self.users < 2 {
            return None;
        }
        let (n, sum, squares) = (self.users as f64, self.revenue_minor as f64, self.revenue_minor_squared);
        let (product, square) = (n * squares, sum * sum);
        let rounded_off = n.mul_add(squares, -product) - sum.mul_add(sum, -square);
        let variance = (product - square + rounded_off) / (n * (n - 1.0));
        variance.is_finite().then_some(variance.max(0.0))
    }
}

impl Interval {
    fn verdict(self) -> LiftVerdict {
        match self {
            Self { low, .. } if low > 0.0 => LiftVerdict::Positive,
            Self { high, .. } if high < 0.0 => LiftVerdict::Negative,
            _ => LiftVerdict::Inconclusive,
        }
    }
}

/// Returns p₁ − p₂ with Newcombe's interval, from Wilson's intervals (l₁, u₁) and (l₂, u₂) of the rates:
/// `p₁ − p₂ − √((p₁ − l₁)² + (u₂ − p₂)²)` to `p₁ − p₂ + √((u₁ − p₁)² + (p₂ − l₂)²)`.
///
/// Source: Newcombe 1998, "Interval estimation for the difference between independent proportions: comparison of eleven
/// methods", Statistics in Medicine 17, method 10.
fn rate_difference(treated: &Arm, held_out: &Arm) -> Option<RateDifference> {
    let (p1, p2) = (treated.rate()?, held_out.rate()?);
    let (wilson1, wilson2) = (wilson(p1, treated.users), wilson(p2, held_out.users));
    let difference = p1 - p2;
    let interval = Interval {
        low: difference - (p1 - wilson1.low).hypot(wilson2.high - p2),
        high: difference + (wilson1.high - p1).hypot(p2 - wilson2.low),
    };
    Some(RateDifference {
        difference,
        // Only rounding can exceed [−1, 1].
        interval: Interval {
            low: interval.low.max(-1.0),
            high: interval.high.min(1.0),
        },
        relative: (p2 > 0.0).then(|| difference / p2),
    })
}

/// Returns Wilson's score interval of a `rate` among `users`, without continuity correction:
/// `(2np + z² ± z·√(z² + 4np(1 − p))) / (2(n + z²))`. It holds `rate` and lies within [0, 1] apart from rounding.
///
/// Source: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
fn wilson(rate: f64, users: u64) -> Interval {
    let n = users as f64;
    let center = 2.0 * n * rate + Z * Z;
    let margin = Z * (Z * Z + 4.0 * n * rate * (1.0 - rate)).sqrt();
    let scale = 2.0 * (n + Z * Z);
    Interval {
        low: (center - margin) / scale,
        high: (center + margin) / scale,
    }
}

/// Computes Welch's t test: with s² the unbiased variances and v = s²/n, `t = (x̄₁ − x̄₂) / √(v₁ + v₂)` with
/// `(v₁ + v₂)² / (v₁²/(n₁ − 1) + v₂²/(n₂ − 1))` degrees of freedom.
///
/// Source: Welch 1947, "The generalization of 'Student's' problem when several different population variances are
/// involved"; Satterthwaite 1946, "An approximate distribution of estimates of variance components".
fn revenue_difference(treated: &Arm, held_out: &Arm) -> Option<RevenueDifference> {
    let (n1, n2) = (treated.users as f64, held_out.users as f64);
    let (v1, v2) = (treated.revenue_variance()? / n1, held_out.revenue_variance()? / n2);
    let standard_error = (v1 + v2).sqrt();
    if standard_error == 0.0 {
        return None;
    }
    let difference = treated.revenue_mean()? - held_out.revenue_mean()?;
    let t = difference / standard_error;
    // Shares of the sum cannot both underflow.
    let (share1, share2) = (v1 / (v1 + v2), v2 / (v1 + v2));
    let degrees_of_freedom = 1.0 / (share1 * share1 / (n1 - 1.0) + share2 * share2 / (n2 - 1.0));
    let margin = student_quantile(degrees_of_freedom) * standard_error;
    Some(RevenueDifference {
        difference_minor: difference,
        interval_minor: Interval {
            low: difference - margin,
            high: difference + margin,
        },
        t,
        degrees_of_freedom,
        p_value: student_two_sided(t, degrees_of_freedom),
    })
}

/// Computes Pearson's goodness of fit with one degree of freedom: `χ² = (h − n·q)² / (n·q·(1 − q))` for h of n users held
/// out and the intended share q; `p = erfc(√(χ²/2))`.
///
/// Source: Kohavi, Tang & Xu 2020, "Trustworthy Online Controlled Experiments", chapter 21.
fn sample_ratio(trial: &Trial) -> Option<SampleRatio> {
    let share = (f64::from(trial.holdout_basis_points) / 10_000.0).min(1.0);
    let (treated, held_out) = (trial.treated.users as f64, trial.held_out.users as f64);
    let users = treated + held_out;
    if users == 0.0 {
        return None;
    }
    let variance = users * share * (1.0 - share);
    let chi_square = (variance > 0.0).then(|| (held_out - users * share).powi(2) / variance);
    let held_out_share = held_out / users;
    let p_value = match chi_square {
        Some(chi_square) => erfc((chi_square / 2.0).sqrt()),
        // All users were to be in one arm: what was found is certain or impossible.
        None if held_out_share == share => 1.0,
        None => 0.0,
    };
    Some(SampleRatio {
        expected_held_out_share: share,
        held_out_share,
        chi_square,
        p_value,
        is_mismatch: p_value < SAMPLE_RATIO_ALPHA,
    })
}

/// The most degrees of freedom that Student's t distribution is computed with.
///
/// At this number its quantile is above that of the normal distribution by 1.2 parts in a million. With more, `beta_reg`
/// loses digits.
const MOST_DEGREES_OF_FREEDOM: f64 = 1e6;

/// Returns the probability that Student's t lies at least as far from 0 as `t`: `I_{ν/(ν + t²)}(ν/2, 1/2)` with ν
/// `degrees_of_freedom`, above 0. It is exact to about nine digits.
///
/// Source: Abramowitz & Stegun 1964, 26.7.1.
fn student_two_sided(t: f64, degrees_of_freedom: f64) -> f64 {
    let freedom = degrees_of_freedom.min(MOST_DEGREES_OF_FREEDOM);
    beta_reg(freedom / 2.0, 0.5, freedom / (freedom + t * t))
}

/// Returns the t that |Student's t| exceeds with probability [`ALPHA`]. `degrees_of_freedom`: at least 1.
///
/// It bisects, because the quantile of statrs 0.19 is off by 7 % at 10⁷ degrees of freedom and does not return at 10⁸.
fn student_quantile(degrees_of_freedom: f64) -> f64 {
    // The quantile lies between that of the normal distribution, 1.96, and that of one degree of freedom, 12.71.
    let (mut low, mut high) = (1.9, 13.0);
    for _ in 0..f64::MANTISSA_DIGITS {
        let middle = f64::midpoint(low, high);
        match student_two_sided(middle, degrees_of_freedom) > ALPHA {
            true => low = middle,
            false => high = middle,
        }
    }
    high
}

#[cfg(test)]
mod tests;
