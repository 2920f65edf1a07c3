//! Compares the figures with those of tests/case.py, an independent implementation.

use serde_json::Value;

use super::attributes::{Sample, ratio, shown_groups};
use super::report::PopularityTaste;
use super::*;
use crate::ranking::testing::near;
use crate::snapshot::fixture::catalog;
use domain::id::{Category, MerchantId};
use domain::item::ItemFacts;

fn numbers(value: &Value) -> Vec<u64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_u64().unwrap())
        .collect()
}

fn items(value: &Value) -> Vec<ItemIndex> {
    numbers(value).into_iter().map(|item| ItemIndex(item as u32)).collect()
}

fn lists(value: &Value) -> Vec<Vec<ItemIndex>> {
    value.as_array().unwrap().iter().map(items).collect()
}

fn booleans(value: &Value) -> Vec<bool> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_bool().unwrap())
        .collect()
}

fn texts(value: &Value) -> Vec<Option<&str>> {
    value.as_array().unwrap().iter().map(Value::as_str).collect()
}

/// Checks a row: its texts and numbers in order.
#[track_caller]
fn check_row(expected: &Value, texts: &[&str], numbers: &[f64]) {
    let expected = expected.as_array().unwrap();
    assert_eq!(expected.iter().filter_map(Value::as_str).collect::<Vec<_>>(), texts);
    let expected: Vec<f64> = expected.iter().filter_map(Value::as_f64).collect();
    assert_eq!(expected.len(), numbers.len());
    for (&expected, &found) in expected.iter().zip(numbers) {
        near(found, expected, 1e-12);
    }
}

fn shop_catalog(shop: &Value) -> Catalog {
    let (categories, merchants) = (texts(&shop["category"]), texts(&shop["merchant"]));
    let facts = booleans(&shop["listed"])
        .into_iter()
        .enumerate()
        .map(|(item, listed)| ItemFacts {
            listed,
            category: categories[item].map(|category| Category::new(category).unwrap()),
            merchant: merchants[item].map(|merchant| MerchantId::new(merchant).unwrap()),
            ..ItemFacts::default()
        });
    catalog(&facts.collect::<Vec<_>>())
}

fn measured(case: &Value) -> RankerBias {
    let shop = &case["shop"];
    let (catalog, orders) = (shop_catalog(shop), numbers(&shop["orders"]));
    let users: Vec<u32> = numbers(&shop["users"]).into_iter().map(|users| users as u32).collect();
    let (histories, shown, relevant) = (
        lists(&shop["histories"]),
        lists(&shop["lists"]),
        lists(&shop["relevant"]),
    );
    let personal = booleans(&shop["personal"]);
    let test_users: Vec<TestUser> = (0..histories.len())
        .map(|at| TestUser {
            history: &histories[at],
            shown: &shown[at],
            relevant: &relevant[at],
            is_personal: personal[at],
        })
        .collect();
    let age = Attribute {
        name: "age",
        values: texts(&shop["age"]),
    };
    let options = BiasOptions {
        min_group: case["min_group"].as_u64().unwrap(),
        ..BiasOptions::default()
    };
    let facts = Shop {
        catalog: &catalog,
        users: &users,
        orders: &orders,
    };
    let top = case["top"].as_u64().unwrap() as u32;
    measure("blended", top, &facts, &test_users, &[age], &options, 1).unwrap()
}

#[test]
fn figures_equal_those_of_an_independent_implementation() {
    let case: Value = serde_json::from_str(include_str!("tests/case.json")).unwrap();
    let (found, expected) = (measured(&case), &case["figures"]);
    let check = |figure: f64, name: &str| near(figure, expected[name].as_f64().unwrap(), 1e-12);
    assert_eq!((&*found.ranker, found.top, found.users), ("blended", 10, 60));
    check(found.ndcg, "ndcg");
    check(found.hit_rate, "hit_rate");
    check(found.exposure.gini, "gini");
    check(found.exposure.coverage, "coverage");
    check(found.exposure.mean_popularity, "mean_popularity");
    let tail = &found.exposure.long_tail;
    check_row(
        &expected["long_tail"],
        &[],
        &[tail.items as f64, tail.exposure_share, tail.rating_share],
    );
    let calibration = found.calibration.as_ref().unwrap();
    check_row(
        &expected["calibration"],
        &[],
        &[calibration.users as f64, calibration.divergence],
    );

    assert_eq!(found.popularity_groups.len(), 3);
    for (group, expected) in found
        .popularity_groups
        .iter()
        .zip(expected["popularity_groups"].as_array().unwrap())
    {
        let name = match group.group {
            PopularityTaste::Niche => "niche",
            PopularityTaste::Mixed => "mixed",
            PopularityTaste::Mainstream => "mainstream",
        };
        let figures = [
            group.users as f64,
            group.history_popularity,
            group.shown_popularity,
            group.popularity_lift.unwrap(),
            group.ndcg,
        ];
        check_row(expected, &[name], &figures);
    }
    assert_eq!(found.activity_quartiles.len(), 4);
    for (row, expected) in found
        .activity_quartiles
        .iter()
        .zip(expected["activity_quartiles"].as_array().unwrap())
    {
        check_row(expected, &[], &[f64::from(row.quartile), row.users as f64, row.ndcg]);
    }
}

#[test]
fn merchants_and_attributes_equal_those_of_an_independent_implementation() {
    let case: Value = serde_json::from_str(include_str!("tests/case.json")).unwrap();
    let (found, expected) = (measured(&case), &case["figures"]);
    let mut merchants = found.merchants.largest.clone();
    merchants.sort_by(|a, b| a.merchant_id.cmp(&b.merchant_id));
    assert_eq!((found.merchants.merchants, merchants.len()), (4, 4));
    for (merchant, expected) in merchants.iter().zip(expected["merchants"].as_array().unwrap()) {
        let figures = [
            merchant.exposure_share,
            merchant.catalog_share,
            merchant.sales_share.unwrap(),
            merchant.exposure_per_catalog_share,
            merchant.exposure_per_sales_share.unwrap(),
        ];
        check_row(expected, &[&*merchant.merchant_id], &figures);
    }

    let [age] = &found.attributes[..] else {
        panic!("{found:?}")
    };
    assert_eq!(
        (&*age.attribute, age.hidden_users),
        ("age", expected["hidden_users"].as_u64().unwrap())
    );
    for (group, expected) in age.groups.iter().zip(expected["age"].as_array().unwrap()) {
        let figures = [group.users as f64, group.ndcg, group.hit_rate, group.selection_rate];
        check_row(expected, &[&*group.value], &figures);
    }
    let ratios = [&age.ndcg_ratio, &age.hit_rate_ratio, &age.selection_rate_ratio];
    for (at, ratio) in ratios.into_iter().enumerate() {
        let ratio = ratio.as_ref().unwrap();
        check_row(
            &expected["ratios"][at],
            &[&*ratio.least_favored, &*ratio.most_favored],
            &[ratio.ratio],
        );
        // The samples are others, so that the limits agree but for chance.
        for (found, side) in [(ratio.low, 0), (ratio.high, 1)] {
            near(found, expected["intervals"][at][side].as_f64().unwrap(), 0.06);
        }
    }
}

#[test]
fn a_small_group_is_hidden_and_cannot_be_worked_out() {
    let check = |sizes: &[(&'static str, usize)], without_value: usize, expected: &[&str]| {
        let values = sizes.iter().flat_map(|&(value, n)| std::iter::repeat_n(Some(value), n));
        let values: Vec<Option<&str>> = values.chain(std::iter::repeat_n(None, without_value)).collect();
        let shown: Vec<&str> = shown_groups(&values, 5).into_iter().map(|(value, _)| value).collect();
        assert_eq!(shown, expected, "{sizes:?} {without_value}");
    };
    check(&[("a", 5), ("b", 9)], 0, &["a", "b"]);
    // Users without a value are no group: that there are few of them tells of nobody's value.
    check(&[("a", 5), ("b", 9)], 1, &["a", "b"]);
    check(&[("a", 4), ("b", 9), ("c", 7)], 0, &["b"]);
    check(&[("a", 4), ("b", 9), ("c", 7)], 1, &["b", "c"]);
    check(&[("a", 4), ("b", 3), ("c", 7)], 0, &["c"]);
    check(&[("a", 4), ("b", 7)], 0, &[]);
    check(&[], 9, &[]);
}

#[test]
fn a_ratio_needs_two_groups_and_a_figure_above_0() {
    let sample = |value: &str, figures: &[f64]| Sample {
        value: value.to_owned(),
        figures: figures.to_vec(),
    };
    assert_eq!(ratio(&[], 1), None);
    assert_eq!(ratio(&[sample("a", &[1.0])], 1), None);
    assert_eq!(ratio(&[sample("a", &[0.0]), sample("b", &[0.0])], 1), None);
    let found = ratio(
        &[sample("a", &[1.0, 1.0]), sample("b", &[0.5, 0.5]), sample("c", &[0.7])],
        1,
    )
    .unwrap();
    assert_eq!((&*found.least_favored, &*found.most_favored), ("b", "a"));
    assert_eq!((found.ratio, found.low, found.high), (0.5, 0.5, 0.5));
    // Equal groups give a ratio of 1 and an interval around it.
    let even = sample("a", &[0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
    let found = ratio(&[even, sample("b", &[1.0, 0.0, 1.0, 0.0, 1.0, 0.0])], 1).unwrap();
    assert!(found.ratio == 1.0 && found.low < 0.7 && found.high > 1.4, "{found:?}");
}

#[test]
fn histories_without_ratings_have_no_lift() {
    let catalog = catalog(&[ItemFacts::default(), ItemFacts::default()]);
    let (history, shown) = ([ItemIndex(0)], [ItemIndex(1)]);
    let bought = TestUser {
        history: &history,
        shown: &shown,
        relevant: &shown,
        is_personal: false,
    };
    let options = BiasOptions {
        min_group: 1,
        ..BiasOptions::default()
    };
    let lift = |users: [u32; 2]| {
        let shop = Shop {
            catalog: &catalog,
            users: &users,
            orders: &[1, 1],
        };
        let found = measure("blended", 10, &shop, &[bought], &[], &options, 1).unwrap();
        found.popularity_groups[0].popularity_lift
    };
    assert_eq!(lift([0, 0]), None);
    assert_eq!(lift([2, 1]), Some(-0.5));
}

#[test]
fn without_users_there_are_no_figures() {
    let catalog = catalog(&[ItemFacts::default()]);
    let shop = Shop {
        catalog: &catalog,
        users: &[0],
        orders: &[0],
    };
    assert_eq!(
        measure("blended", 10, &shop, &[], &[], &BiasOptions::default(), 1),
        None
    );
}
