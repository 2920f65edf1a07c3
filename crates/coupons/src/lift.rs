//! What a campaign brought: users it could reach against users held out, by intention to treat.
//!
//! Everyone dealt to an arm counts in it, whether or not they were shown or used a coupon: only so are the arms alike but
//! for chance. Intervals are of 95 % confidence. What the data does not define is `None`; no figure is NaN or infinite.

use statrs::function::beta::beta_reg;
use statrs::function::erf::erfc;

/// Probability that an interval misses what it is of.
const ALPHA: f64 = 0.05;
/// Quantile 1 − [`ALPHA`]/2 of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;
/// Arms that chance would deal so unevenly less often than this were not dealt by chance.
const SAMPLE_RATIO_ALPHA: f64 = 0.001;

/// A campaign at one moment, as it was counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    pub treated: Arm,
    pub held_out: Arm,
    /// Share of the users that was to be held out; more than 10 000 count as 10 000.
    pub holdout_basis_points: u16,
}

/// The users of one arm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arm {
    /// All that were dealt to it.
    pub users: u64,
    /// Those of them who converted; more than `users` count as `users`.
    pub converters: u64,
    /// `Σ x` of the revenue x of each user, minor units, net of returns; 0 for a user who bought nothing.
    pub revenue_minor: i64,
    /// `Σ x²` of the same.
    pub revenue_minor_squared: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LiftReport {
    pub treated: ArmSummary,
    pub held_out: ArmSummary,
    /// `None` when an arm is empty.
    pub rate_difference: Option<RateDifference>,
    /// `None` when an arm has fewer than two users, when nobody's revenue differs from that of their arm, or when the
    /// sums are out of all range.
    pub revenue_difference: Option<RevenueDifference>,
    /// `None` without users.
    pub sample_ratio: Option<SampleRatio>,
    pub verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ArmSummary {
    pub users: u64,
    pub converters: u64,
    /// Share of the users who converted, in [0, 1]; `None` without users.
    pub rate: Option<f64>,
    /// Mean, minor units; `None` without users.
    pub revenue_per_user_minor: Option<f64>,
}

/// Treated less held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateDifference {
    /// In [−1, 1].
    pub difference: f64,
    /// Newcombe's, within [−1, 1].
    pub interval: Interval,
    /// `difference` as a share of the held-out rate, at least −1; `None` when nobody held out converted.
    pub relative: Option<f64>,
}

/// Treated less held out, by Welch's t test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RevenueDifference {
    /// Minor units per user.
    pub difference_minor: f64,
    /// Minor units per user.
    pub interval_minor: Interval,
    /// `difference_minor` in standard errors.
    pub t: f64,
    /// Welch and Satterthwaite's, from 1 to users − 2.
    pub degrees_of_freedom: f64,
    /// Two-sided: below 0.05 where the interval leaves 0 out.
    pub p_value: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// Whether the arms have the sizes that they were to have. If not, users were lost or counted in one arm more than in the
/// other, and no other figure can be trusted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleRatio {
    /// In [0, 1].
    pub expected_held_out_share: f64,
    /// In [0, 1].
    pub held_out_share: f64,
    /// With one degree of freedom; `None` where the expected share leaves one arm empty.
    pub chi_square: Option<f64>,
    /// Of so uneven a deal, or one more uneven, by chance.
    pub p_value: f64,
    /// `p_value` is below 0.001.
    pub is_mismatch: bool,
}

/// Whether the campaign moved the conversion rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The interval of the difference in rates lies above 0.
    Positive,
    /// It lies below 0.
    Negative,
    /// It holds 0, or there is none, or the sample ratio is a mismatch.
    Inconclusive,
}

/// The lift of a campaign.
///
/// Source: ARCHITECTURE.md, "Holdout and lift"; the methods name theirs.
pub fn lift(trial: &Trial) -> LiftReport {
    let Trial { treated, held_out, .. } = trial;
    let rate_difference = rate_difference(treated, held_out);
    let sample_ratio = sample_ratio(trial);
    let verdict = match rate_difference {
        Some(difference) if sample_ratio.is_some_and(|ratio| !ratio.is_mismatch) => difference.interval.verdict(),
        _ => Verdict::Inconclusive,
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

    /// Unbiased: `(n·Σx² − (Σx)²) / (n·(n − 1))`. The products are nearly equal when revenues are, so what rounding took
    /// from each goes into the difference.
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
    fn verdict(self) -> Verdict {
        match self {
            Self { low, .. } if low > 0.0 => Verdict::Positive,
            Self { high, .. } if high < 0.0 => Verdict::Negative,
            _ => Verdict::Inconclusive,
        }
    }
}

/// Newcombe's interval of p₁ − p₂, from Wilson's intervals (l₁, u₁) and (l₂, u₂) of the rates:
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
        // Within [−1, 1] but for rounding.
        interval: Interval {
            low: interval.low.max(-1.0),
            high: interval.high.min(1.0),
        },
        relative: (p2 > 0.0).then(|| difference / p2),
    })
}

/// Wilson's score interval of a `rate` among `users`, without continuity correction:
/// `(2np + z² ± z·√(z² + 4np(1 − p))) / (2(n + z²))`. Holds `rate`, within [0, 1] but for rounding.
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

/// Welch's t test: with s² the unbiased variances and v = s²/n, `t = (x̄₁ − x̄₂) / √(v₁ + v₂)` with
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
    // As shares of the sum, which cannot underflow together.
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

/// Pearson's goodness of fit with one degree of freedom: `χ² = (h − n·q)² / (n·q·(1 − q))` for h of n users held out,
/// where the share q was to be; `p = erfc(√(χ²/2))`.
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
        // All in one arm, and nobody in the other: certain or impossible.
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

/// From here on Student's t distribution is taken as the one with this many degrees of freedom, whose quantile is above
/// that of the normal distribution by 1.2 parts in a million. With more of them `beta_reg` loses digits.
const MOST_DEGREES_OF_FREEDOM: f64 = 1e6;

/// Probability that Student's t lies as far from 0 as `t`, or farther: `I_{ν/(ν + t²)}(ν/2, 1/2)` with ν
/// `degrees_of_freedom`, above 0. To about nine digits.
///
/// Source: Abramowitz & Stegun 1964, 26.7.1.
fn student_two_sided(t: f64, degrees_of_freedom: f64) -> f64 {
    let freedom = degrees_of_freedom.min(MOST_DEGREES_OF_FREEDOM);
    beta_reg(freedom / 2.0, 0.5, freedom / (freedom + t * t))
}

/// The t that Student's t exceeds either way with probability [`ALPHA`]; `degrees_of_freedom` at least 1.
///
/// By bisection: the quantile of statrs 0.19 is off by 7 % at 10⁷ degrees of freedom and does not return at 10⁸.
fn student_quantile(degrees_of_freedom: f64) -> f64 {
    // From the normal distribution to one degree of freedom, which has 12.71.
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
