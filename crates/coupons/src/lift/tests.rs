use proptest::prelude::*;

use super::*;

/// Returns an arm whose converters spent 10.00 each.
fn arm(converters: u64, users: u64) -> Arm {
    Arm {
        users,
        converters,
        revenue_minor: 1_000 * converters as i64,
        revenue_minor_squared: 1e6 * converters as f64,
    }
}

/// Returns an arm whose users spent these amounts.
fn spent(revenues: &[i64]) -> Arm {
    Arm {
        users: revenues.len() as u64,
        converters: revenues.iter().filter(|&&revenue| revenue != 0).count() as u64,
        revenue_minor: revenues.iter().sum(),
        revenue_minor_squared: revenues.iter().map(|&revenue| (revenue as f64).powi(2)).sum(),
    }
}

fn half(treated: Arm, held_out: Arm) -> LiftReport {
    lift(&Trial {
        treated,
        held_out,
        holdout_basis_points: 5_000,
    })
}

#[track_caller]
fn near(found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance * expected.abs().max(1.0),
        "{found}, not {expected}"
    );
}

/// The expected values are those of Newcombe 1998 (Statistics in Medicine 17), table II, method 10, to its four places, and
/// the same by statsmodels 0.15, `confint_proportions_2indep(…, method="newcomb")`.
#[test]
fn rate_intervals_agree_with_newcombe() {
    let check = |treated: (u64, u64), held_out: (u64, u64), low: f64, high: f64| {
        let found = half(arm(treated.0, treated.1), arm(held_out.0, held_out.1));
        let Interval { low: l, high: h } = found.rate_difference.unwrap().interval;
        assert!(
            (l - low).abs() <= 5e-5 && (h - high).abs() <= 5e-5,
            "{l} to {h}, not {low} to {high}"
        );
    };
    check((56, 70), (48, 80), 0.0524, 0.3339);
    check((9, 10), (3, 10), 0.1705, 0.8090);
    check((6, 7), (2, 7), 0.0582, 0.8062);
    check((5, 56), (0, 29), -0.0381, 0.1926);
    check((0, 10), (0, 20), -0.1611, 0.2775);
    check((0, 10), (0, 10), -0.2775, 0.2775);
    check((10, 10), (0, 20), 0.6791, 1.0);
    check((10, 10), (0, 10), 0.6075, 1.0);
}

/// The expected values are those of Wikipedia, "Welch's t-test", examples 1 to 3, in tenths, with more digits by SciPy 1.17,
/// `ttest_ind(equal_var=False)`.
#[test]
fn revenue_differences_agree_with_welch() {
    let check =
        |treated: &[i64], held_out: &[i64], difference, low, high, [t, degrees_of_freedom, p_value]: [f64; 3]| {
            let found = half(spent(treated), spent(held_out)).revenue_difference.unwrap();
            near(found.difference_minor, difference, 1e-10);
            near(found.interval_minor.low, low, 1e-10);
            near(found.interval_minor.high, high, 1e-10);
            near(found.t, t, 1e-10);
            near(found.degrees_of_freedom, degrees_of_freedom, 1e-10);
            near(found.p_value, p_value, 1e-10);
        };
    check(
        &[
            275, 210, 190, 236, 170, 179, 169, 201, 219, 226, 231, 196, 190, 217, 214,
        ],
        &[
            271, 220, 208, 234, 234, 235, 258, 220, 248, 202, 219, 221, 229, 205, 244,
        ],
        -65.0 / 3.0,
        -39.840962671409294,
        -3.4923706619240775,
        [-2.4553563982860074, 24.988529290231416, 0.021378001462866916],
    );
    check(
        &[172, 209, 226, 181, 217, 214, 235, 242, 147, 218],
        &[
            215, 228, 210, 230, 216, 236, 225, 207, 234, 218, 207, 217, 215, 225, 236, 215, 225, 235, 215, 218,
        ],
        -15.25,
        -36.98421325375165,
        6.484213253751651,
        [-1.5654335235985049, 9.904741248650828, 0.14884169660532812],
    );
    check(
        &[198, 204, 196, 178, 185, 189, 183, 189, 195, 220],
        &[
            282, 266, 201, 233, 252, 221, 177, 276, 206, 137, 232, 175, 206, 180, 239, 216, 243, 204, 240, 132,
        ],
        -22.2,
        -42.82393535504647,
        -1.576064644953565,
        [-2.2192409158236264, 24.496223124201236, 0.035972271029796624],
    );
}

/// The first case is scenario 1 of Kohavi, Tang & Xu 2020, chapter 21, p = 1.8e-6. All values are by SciPy 1.17, `chisquare`.
#[test]
fn a_sample_ratio_mismatch_is_seen() {
    let check =
        |treated: u64, held_out: u64, holdout_basis_points, chi_square: Option<f64>, p_value: f64, is_mismatch| {
            let found = sample_ratio(&Trial {
                treated: arm(0, treated),
                held_out: arm(0, held_out),
                holdout_basis_points,
            })
            .unwrap();
            assert_eq!(found.held_out_share, held_out as f64 / (treated + held_out) as f64);
            assert_eq!(found.chi_square.is_some(), chi_square.is_some());
            near(found.chi_square.unwrap_or(0.0), chi_square.unwrap_or(0.0), 1e-12);
            assert!((found.p_value - p_value).abs() <= 1e-9 * p_value, "{found:?}");
            assert_eq!(found.is_mismatch, is_mismatch);
        };
    check(
        821_588,
        815_482,
        5_000,
        Some(22.77436884189436),
        1.8217928726191858e-6,
        true,
    );
    check(9_000, 1_000, 1_000, Some(0.0), 1.0, false);
    check(
        8_900,
        1_100,
        1_000,
        Some(11.11111111111111),
        0.0008581206663936758,
        true,
    );
    check(9_520, 480, 500, Some(0.8421052631578948), 0.3587953578869416, false);
    check(100, 0, 500, Some(5.2631578947368425), 0.021781462791119595, false);
    // Nothing was to be held out, or nothing else: one user in the wrong arm is proof.
    check(100, 0, 0, None, 1.0, false);
    check(100, 1, 0, None, 0.0, true);
    check(0, 100, 10_000, None, 1.0, false);
    check(1, 100, u16::MAX, None, 0.0, true);
}

/// The expected values are by SciPy 1.17: `2 * t.sf(abs(t), df)` and `t.ppf(0.975, df)`.
#[test]
fn students_t_agrees_with_scipy() {
    let check = |t, degrees_of_freedom, expected: f64| {
        let found = student_two_sided(t, degrees_of_freedom);
        assert!((found / expected - 1.0).abs() < 2e-9, "{found}, not {expected}");
    };
    check(0.0, 7.0, 1.0);
    check(1.0, 1.0, 0.5);
    check(2.5, 1.5, 0.16980650261469604);
    check(-2.228138851964939, 10.0, 0.05000000000180864);
    check(3.0, 30.0, 0.005389964065651945);
    check(-5.0, 1000.0, 6.767256364648635e-7);
    check(40.0, 12.0, 3.851229580772032e-14);
    check(5.0, 1e6, 5.733997870890745e-7);

    let check = |degrees_of_freedom, expected: f64, tolerance: f64| {
        let found = student_quantile(degrees_of_freedom);
        assert!((found / expected - 1.0).abs() < tolerance, "{found}, not {expected}");
    };
    check(1.0, 12.706204736174694, 1e-12);
    check(1.5, 6.016663104427929, 1e-12);
    check(2.0, 4.302652729749462, 1e-12);
    check(5.0, 2.5705818356363146, 1e-12);
    check(30.0, 2.0422724563012378, 1e-12);
    check(1e3, 1.9623390808264083, 1e-12);
    check(1e5, 1.9599877075346095, 1e-9);
    check(1e6, 1.959966356814107, 1e-9);
    check(1e9, 1.959963986912325, 2e-6);
    check(1e15, Z, 2e-6);
}

#[test]
fn the_verdict_is_that_of_the_interval_unless_the_sample_ratio_is_off() {
    let check = |treated: (u64, u64), held_out: (u64, u64), verdict| {
        let found = lift(&Trial {
            treated: arm(treated.0, treated.1),
            held_out: arm(held_out.0, held_out.1),
            holdout_basis_points: 1_000,
        });
        assert_eq!(found.verdict, verdict, "{found:?}");
    };
    check((900, 9_000), (50, 1_000), LiftVerdict::Positive);
    check((450, 9_000), (100, 1_000), LiftVerdict::Negative);
    check((900, 9_000), (95, 1_000), LiftVerdict::Inconclusive);
    check((900, 9_000), (50, 1_200), LiftVerdict::Inconclusive);
    check((450, 9_000), (100, 800), LiftVerdict::Inconclusive);
    check((10, 20), (0, 0), LiftVerdict::Inconclusive);
    check((0, 0), (0, 0), LiftVerdict::Inconclusive);
}

#[test]
fn a_report_equals_one_worked_out_by_hand() {
    let found = lift(&Trial {
        treated: arm(12, 80),
        held_out: arm(2, 20),
        holdout_basis_points: 2_000,
    });
    assert_eq!(found.treated.rate, Some(0.15));
    assert_eq!(found.treated.revenue_per_user_minor, Some(150.0));
    assert_eq!(found.held_out.rate, Some(0.1));
    assert_eq!(found.held_out.revenue_per_user_minor, Some(100.0));
    let rate = found.rate_difference.unwrap();
    near(rate.difference, 0.05, 1e-12);
    near(rate.relative.unwrap(), 0.5, 1e-12);
    near(found.revenue_difference.unwrap().difference_minor, 50.0, 1e-12);
    assert_eq!(found.sample_ratio.unwrap().expected_held_out_share, 0.2);
    assert_eq!(found.sample_ratio.unwrap().held_out_share, 0.2);
}

#[test]
fn undefined_figures_are_none() {
    let nobody = arm(0, 0);
    let found = half(arm(3, 10), nobody);
    assert_eq!(
        (found.held_out.rate, found.held_out.revenue_per_user_minor),
        (None, None)
    );
    assert_eq!((found.rate_difference, found.revenue_difference), (None, None));
    assert!(found.sample_ratio.is_some());
    assert_eq!(half(nobody, nobody).sample_ratio, None);
    // Nobody held out converted: there is a difference, but nothing to relate it to.
    assert_eq!(half(arm(3, 10), arm(0, 10)).rate_difference.unwrap().relative, None);
    // One user has no variance; users who all spend the same have none either.
    assert_eq!(half(arm(3, 10), arm(1, 1)).revenue_difference, None);
    assert_eq!(half(spent(&[7; 10]), spent(&[9; 10])).revenue_difference, None);
    let one_sided = half(spent(&[7; 10]), spent(&[8, 9, 10])).revenue_difference.unwrap();
    near(one_sided.degrees_of_freedom, 2.0, 1e-12);
    // Sums that are none.
    for revenue_minor_squared in [f64::NAN, f64::INFINITY, f64::MAX] {
        let broken = Arm {
            revenue_minor_squared,
            ..arm(3, 10)
        };
        assert_eq!(half(broken, arm(3, 10)).revenue_difference, None);
    }
    assert_eq!(half(arm(11, 10), arm(0, 10)).treated.rate, Some(1.0));
}

#[test]
fn the_variance_of_nearly_equal_revenues_is_exact() {
    let revenues: Vec<i64> = (0..1_000).map(|user| 1_000_000 + user % 2).collect();
    near(spent(&revenues).revenue_variance().unwrap(), 250.0 / 999.0, 1e-12);
}

fn an_arm() -> impl Strategy<Value = Arm> {
    let users = prop_oneof![0u64..6, 0u64..100_000, any::<u64>()];
    let rate = prop_oneof![Just(0.0), Just(1.0), 0.0..=1.0];
    let revenue = prop_oneof![-1_000i64..1_000_000, any::<i64>()];
    let squares = prop_oneof![0.0..1e12, any::<f64>()];
    (users, rate, revenue, squares).prop_map(|(users, rate, revenue_minor, revenue_minor_squared)| Arm {
        users,
        converters: ((users as f64 * rate) as u64).min(users),
        revenue_minor,
        revenue_minor_squared,
    })
}

fn revenues() -> impl Strategy<Value = Vec<i64>> {
    prop::collection::vec(prop_oneof![Just(0), -500i64..50_000], 2..60)
}

proptest! {
    #[test]
    fn no_figure_is_nan_or_infinite(treated in an_arm(), held_out in an_arm(), holdout_basis_points: u16) {
        let report = format!("{:?}", lift(&Trial { treated, held_out, holdout_basis_points }));
        prop_assert!(!report.contains("NaN") && !report.contains("inf"), "{report}");
    }

    #[test]
    fn the_rate_interval_holds_the_difference_and_stays_in_range(treated in an_arm(), held_out in an_arm()) {
        if let Some(found) = half(treated, held_out).rate_difference {
            let Interval { low, high } = found.interval;
            prop_assert!(-1.0 <= low && low <= found.difference, "{found:?}");
            prop_assert!(found.difference <= high && high <= 1.0, "{found:?}");
        }
    }

    #[test]
    fn swapping_the_arms_turns_every_difference_around(treated in an_arm(), held_out in an_arm()) {
        let (found, swapped) = (half(treated, held_out), half(held_out, treated));
        let turned = |interval: Interval| Interval { low: -interval.high, high: -interval.low };
        prop_assert_eq!(
            found.rate_difference.map(|rate| (rate.difference, rate.interval)),
            swapped.rate_difference.map(|rate| (-rate.difference, turned(rate.interval)))
        );
        let revenue = |found: RevenueDifference| (found.difference_minor, found.interval_minor, found.t, found.p_value);
        prop_assert_eq!(
            found.revenue_difference.map(revenue),
            swapped.revenue_difference.map(revenue).map(|(d, interval, t, p)| (-d, turned(interval), -t, p))
        );
        prop_assert_eq!(found.verdict, match swapped.verdict {
            LiftVerdict::Positive => LiftVerdict::Negative,
            LiftVerdict::Negative => LiftVerdict::Positive,
            LiftVerdict::Inconclusive => LiftVerdict::Inconclusive,
        });
    }

    #[test]
    fn sums_have_the_variance_of_the_values(revenues in revenues(), offset in 0i64..1_000_000) {
        let shifted: Vec<i64> = revenues.iter().map(|revenue| revenue + offset).collect();
        let mean = shifted.iter().sum::<i64>() as f64 / shifted.len() as f64;
        let squares: f64 = shifted.iter().map(|&revenue| (revenue as f64 - mean).powi(2)).sum();
        near(spent(&shifted).revenue_variance().unwrap(), squares / (shifted.len() - 1) as f64, 1e-9);
    }

    #[test]
    fn p_is_below_5_percent_where_the_interval_leaves_0_out(treated in revenues(), held_out in revenues()) {
        if let Some(found) = half(spent(&treated), spent(&held_out)).revenue_difference {
            let Interval { low, high } = found.interval_minor;
            prop_assume!((found.p_value - ALPHA).abs() > 1e-9);
            prop_assert_eq!(found.p_value < ALPHA, low > 0.0 || high < 0.0, "{:?}", found);
        }
    }
}
