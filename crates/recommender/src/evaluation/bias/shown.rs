//! The lists that an evaluation has shown to the users of the test part, and the bias report of them.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::training::input::TrainingInput;

use super::attributes::Attribute;
use super::options::BiasOptions;
use super::report::RankerBias;
use super::{Shop, TOPS, TestUser, measure};
use crate::evaluation::held_out::{EvaluationCase, HeldOutParts};
use crate::evaluation::split::Part;

/// The lists of new items that every ranker has shown to the users of the test part.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ShownLists {
    /// The number of users of each item before the test part.
    pub item_users: Vec<u32>,
    pub rankers: Vec<RankerLists>,
}

/// The lists of one ranker.
#[derive(Debug, Clone, PartialEq)]
pub struct RankerLists {
    pub ranker: String,
    /// One for each user with a relevant new item, in the order of the cases.
    pub lists: Vec<ShownList>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ShownList {
    /// Best first.
    pub items: Vec<ItemIndex>,
    /// Whether the list was made for the user, and not of the most popular items.
    pub is_personal: bool,
}

/// The values of an attribute; users without a value are missing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct UserAttribute {
    pub name: String,
    /// By the index of the user in the training input.
    pub values: BTreeMap<UserIndex, String>,
}

/// Returns the figures of every ranker for each of [`TOPS`].
///
/// `shown`: from an evaluation of the same `input` and `held_out`. `seed`: of the bootstrap. Runs on the current rayon pool;
/// the result is the same for any number of threads.
pub fn report(
    shown: &ShownLists,
    input: &TrainingInput,
    held_out: &HeldOutParts,
    attributes: &[UserAttribute],
    options: &BiasOptions,
    seed: u64,
) -> Vec<RankerBias> {
    let orders = orders_before_test(input, held_out);
    let shop = Shop {
        catalog: &input.catalog,
        users: &shown.item_users,
        orders: &orders,
    };
    let cases = held_out.test.cases.iter().filter(|case| !case.relevant_new.is_empty());
    let cases: Vec<&EvaluationCase> = cases.collect();
    let attribute = |attribute: &'_ UserAttribute| -> Vec<Option<String>> {
        let value = |case: &&EvaluationCase| attribute.values.get(&case.user).cloned();
        cases.iter().map(value).collect()
    };
    let values: Vec<Vec<Option<String>>> = attributes.iter().map(attribute).collect();
    let named = attributes.iter().zip(&values).map(|(attribute, values)| Attribute {
        name: &attribute.name,
        values: values.iter().map(Option::as_deref).collect(),
    });
    let named: Vec<Attribute> = named.collect();
    let measured = |(ranker, top): (&RankerLists, u32)| {
        let users = cases.iter().zip(&ranker.lists).map(|(case, list)| TestUser {
            history: &case.history,
            shown: &list.items,
            relevant: &case.relevant_new,
            is_personal: list.is_personal,
        });
        measure(
            &ranker.ranker,
            top,
            &shop,
            &users.collect::<Vec<_>>(),
            &named,
            options,
            seed,
        )
    };
    let each: Vec<(&RankerLists, u32)> = shown
        .rankers
        .iter()
        .flat_map(|ranker| TOPS.map(|top| (ranker, top)))
        .collect();
    each.into_par_iter().filter_map(measured).collect()
}

/// Returns the number of orders of each item before the test part of which something was left then.
fn orders_before_test(input: &TrainingInput, held_out: &HeldOutParts) -> Vec<u64> {
    let mut orders = vec![0; input.items.len()];
    let is_before = |user, item, at| held_out.split.part(user, item, at) < Part::Test;
    let settled = input.settle(is_before);
    for (position, order) in input.orders.iter().enumerate() {
        if settled.stands(position) && is_before(order.user, order.item, order.ordered_at) {
            orders[order.item.at()] += 1;
        }
    }
    orders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::evaluate::evaluate;
    use crate::evaluation::options::EvaluationOptions;
    use crate::evaluation::report::{ItemScope, ParametersOf};
    use crate::evaluation::split::Cut;
    use crate::evaluation::testing::tastes;
    use crate::ranking::rankers::{RANKERS, Ranker};
    use crate::snapshot::parameters::TrainingParameters;
    use crate::training::testing::at;

    #[test]
    fn the_report_of_an_evaluation_agrees_with_its_metrics() {
        let (input, parameters) = (tastes(), TrainingParameters::default());
        let held_out = HeldOutParts::new(
            &input,
            &parameters,
            &Cut::At { at: at(90) },
            &EvaluationOptions::default(),
        )
        .unwrap();
        let evaluated = evaluate(&input, &held_out, &parameters, None, ParametersOf::Candidate).unwrap();
        let taste = UserAttribute {
            name: "taste".to_owned(),
            values: (0..120)
                .map(|user| (UserIndex(user), format!("t{}", user % 4)))
                .collect(),
        };
        let options = BiasOptions::default();
        let found = report(&evaluated.shown, &input, &held_out, &[taste], &options, 1);
        let measured = |ranker: &&Ranker| evaluated.ranking(**ranker, ItemScope::New).is_some();
        let rankers: Vec<&Ranker> = RANKERS.iter().filter(measured).collect();
        assert!(rankers.len() >= 4);
        assert_eq!(found.len(), rankers.len() * TOPS.len());
        for ranker in rankers {
            let metrics = evaluated.ranking(*ranker, ItemScope::New).unwrap();
            let of = |top| {
                found
                    .iter()
                    .find(|bias| bias.ranker == ranker.name && bias.top == top)
                    .unwrap()
            };
            let (ten, twenty) = (of(10), of(20));
            assert_eq!((ten.users, ten.ndcg), (metrics.users, metrics.ndcg_at_10));
            assert_eq!(
                (
                    twenty.exposure.gini,
                    twenty.exposure.coverage,
                    twenty.exposure.mean_popularity
                ),
                (metrics.gini, metrics.coverage_at_20, metrics.mean_popularity)
            );
            let groups = &ten.attributes[0].groups;
            assert_eq!(groups.iter().map(|group| group.users).collect::<Vec<_>>(), [30; 4]);
            let is_popularity = ["popularity", "trending"].contains(&ranker.name);
            let selected = if is_popularity { 0.0 } else { 1.0 };
            assert!(
                groups.iter().all(|group| group.selection_rate == selected),
                "{groups:?}"
            );
        }
    }
}
