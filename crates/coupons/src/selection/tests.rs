use super::*;
use crate::testing::{campaign, coupon, noon};
use domain::consent::Consents;
use domain::coupon::Rule;
use recommender::ranking::testing::changed;
use recommender::snapshot::fixture::{EXAMPLE, snapshot_parts, user_id, view};
use recommender::snapshot::overlay::FreshChange;
use std::sync::Arc;

fn ids(users: &[&str]) -> HashSet<String> {
    users.iter().map(|&user| user.to_owned()).collect()
}

fn offer(id: &str, rules: Vec<Rule>) -> Offer {
    Offer {
        coupon: domain::coupon::Coupon { rules, ..coupon(id) },
        campaign: Arc::new(campaign("k")),
    }
}

fn age(values: &[&str]) -> Rule {
    Rule::Attribute {
        name: "age".to_owned(),
        values: values.iter().map(|&value| value.to_owned()).collect(),
    }
}

#[test]
fn users_are_eligible_by_consent_and_by_the_rules_of_one_coupon() {
    let consents = |user: &str, purpose, is_granted| FreshChange::Consents {
        user: user_id(user),
        consents: Consents::default().with(purpose, Some(is_granted)),
    };
    let suppressed = FreshChange::Consents {
        user: user_id("s"),
        consents: Consents::default().suppressed(true),
    };
    let changes = [
        consents("u1", Purpose::Marketing, false),
        consents("u2", Purpose::Profiling, false),
        suppressed,
    ];
    let view = changed(view(snapshot_parts(&EXAMPLE)), changes);
    let attributes: HashMap<String, Vec<(String, String)>> = ["u0", "u1", "u2", "new"]
        .map(|user| (user.to_owned(), vec![("age".to_owned(), "25-34".to_owned())]))
        .into();
    let check = |offers: &[Offer], expected: &[&str]| {
        let offers: Vec<&Offer> = offers.iter().collect();
        let users = ["new", "other", "s", "u0", "u1", "u2"].into_iter();
        assert_eq!(eligible(users, &offers, &attributes, &view, noon(12)), ids(expected));
    };
    check(&[], &[]);
    check(&[offer("a", vec![])], &["new", "other", "u0", "u2"]);
    check(&[offer("a", vec![age(&["25-34"])])], &["new", "u0", "u2"]);
    check(&[offer("a", vec![age(&["65+"])])], &[]);
    // A user who objects to profiling fails every rule about history.
    check(&[offer("a", vec![Rule::NewUser])], &["new", "other", "u0"]);
    check(&[offer("a", vec![Rule::LapsedUser { days: 1 }])], &[]);
    check(
        &[offer("a", vec![age(&["65+"])]), offer("b", vec![Rule::NewUser])],
        &["new", "other", "u0"],
    );
    check(&[offer("a", vec![age(&["25-34"]), Rule::NewUser])], &["new", "u0"]);
}

/// 10 young users of whom 8 were targeted and 2 redeemed, 10 old ones of whom 4 were targeted and 2 redeemed, one of another
/// age, and one without an age.
fn shop() -> (HashMap<String, String>, SelectedUsers) {
    let mut value_of = HashMap::new();
    let mut users = SelectedUsers::default();
    for (value, targeted, redeemed) in [("young", 8, 2), ("old", 4, 2)] {
        for n in 0..10 {
            let id = format!("{value}{n}");
            value_of.insert(id.clone(), value.to_owned());
            // A user who was targeted need not be eligible any more.
            if n > 0 {
                users.eligible.insert(id.clone());
            }
            if n < targeted {
                users.targeted.insert(id.clone());
            }
            if n < redeemed {
                users.redeemed.insert(id);
            }
        }
    }
    value_of.insert("single".to_owned(), "other".to_owned());
    users.eligible.extend(["single", "ageless"].map(str::to_owned));
    (value_of, users)
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
}

#[test]
fn rates_are_compared_between_groups_of_enough_users() {
    let (value_of, users) = shop();
    let found = compare("age", &value_of, &users, 2);
    let groups: Vec<_> = found
        .groups
        .iter()
        .map(|group| (&*group.value, group.eligible, group.targeted, group.redeemed))
        .collect();
    assert_eq!(groups, [("old", 10, 4, 2), ("young", 10, 8, 2)]);
    assert_eq!((&*found.attribute, found.hidden_users), ("age", 2));

    // Worked out by hand: ln(4/8) ± z·√(1/4 − 1/10 + 1/8 − 1/10).
    let selection = found.selection_rate.unwrap();
    assert_eq!((&*selection.least, &*selection.most), ("old", "young"));
    near(selection.ratio, 0.5);
    near(selection.low, 0.5 * (-1.959_964 * 0.175_f64.sqrt()).exp());
    near(selection.high, 0.5 * (1.959_964 * 0.175_f64.sqrt()).exp());
    // 2 of 8 against 2 of 4.
    let redemption = found.redemption_rate.unwrap();
    assert_eq!((&*redemption.least, &*redemption.most), ("young", "old"));
    near(redemption.ratio, 0.5);
    near(redemption.high, 0.5 * (1.959_964 * 0.625_f64.sqrt()).exp());
}

#[test]
fn a_group_that_nobody_is_selected_from_has_an_interval_too() {
    let (value_of, mut users) = shop();
    users.targeted.retain(|id| id.starts_with("young"));
    let found = compare("age", &value_of, &users, 2);
    let selection = found.selection_rate.unwrap();
    assert_eq!((&*selection.least, selection.ratio), ("old", 0.0));
    // 0.5 of 9.5 against 8.5 of 10.5: "old0" is no longer eligible and was not targeted.
    let ratio = (0.5 / 9.5) / (8.5 / 10.5);
    let spread = 1.959_964 * (1.0 / 0.5 - 1.0 / 9.5 + 1.0 / 8.5 - 1.0 / 10.5_f64).sqrt();
    near(selection.low, ratio * (-spread).exp());
    near(selection.high, ratio * spread.exp());
    // Without anybody targeted there is nothing to compare.
    users.targeted.clear();
    let found = compare("age", &value_of, &users, 2);
    assert_eq!((found.selection_rate, found.redemption_rate), (None, None));
}
