//! Decides whether a coupon covers any item of the catalog at all.

use domain::coupon::Scope;
use domain::id::{Category, MerchantId};
use recommender::snapshot::catalog::Facts;
use recommender::snapshot::overlay::ItemRef;
use recommender::snapshot::view::View;

use super::affinity::covers;
use super::offer_catalog::Offer;

/// Returns whether `offer` covers no item, by the present facts about the items.
///
/// An offer of the platform that covers everything is never empty. Takes time O(names + changed items), however large the
/// catalog.
pub fn is_empty(offer: &Offer, view: &View) -> bool {
    if offer.coupon.scope == Scope::All && offer.merchant().is_none() {
        return false;
    }
    // A covered item may be among those that the overlay had no room for.
    view.overlay.dropped() == 0
        && !names_covered_item(offer, view)
        && !covers_unchanged_item(offer, view)
        && !covers_changed_item(offer, view)
}

/// Returns whether one of the named items exists and is covered.
fn names_covered_item(offer: &Offer, view: &View) -> bool {
    let named = offer.coupon.scope.listed().map_or(&[][..], |set| &set.items);
    named.iter().any(|item| match view.item(item) {
        Some(ItemRef::Known(index)) => covers(offer, item.as_str(), Some(&view.facts(index))),
        Some(ItemRef::New(id)) => covers(offer, item.as_str(), view.overlay.new_item(&id).as_ref()),
        None => false,
    })
}

/// Returns whether an item of the snapshot that has not changed since is covered by its category or merchant.
fn covers_unchanged_item(offer: &Offer, view: &View) -> bool {
    let (catalog, counts) = (view.snapshot.catalog(), view.snapshot.item_counts());
    let owner = offer.merchant();
    let has_unchanged = |category: Option<&str>, merchant: Option<&str>| {
        let is_wanted = |facts: &Facts<'_>| {
            category.is_none_or(|category| facts.category == Some(category))
                && merchant.is_none_or(|merchant| facts.merchant == Some(merchant))
        };
        let count = counts.of(catalog, category, merchant);
        let changed = || view.overlay.changed_items().map(|(item, _)| catalog.facts(item));
        // Most often there are more such items than changes at all, and then no change has to be looked at.
        count > view.overlay.n_changed_items() || count > 0 && count > changed().filter(is_wanted).count()
    };
    match &offer.coupon.scope {
        Scope::All => has_unchanged(None, owner),
        Scope::Listed(set) => {
            let mut categories = set.categories.iter().map(Category::as_str);
            let mut merchants = set.merchants.iter().map(MerchantId::as_str);
            categories.any(|category| has_unchanged(Some(category), owner))
                || merchants.any(|own| owner.is_none_or(|owner| owner == own) && has_unchanged(None, Some(own)))
        }
    }
}

/// Returns whether an item that has changed since the snapshot, or is new, is covered.
fn covers_changed_item(offer: &Offer, view: &View) -> bool {
    let mut changed = view.overlay.changed_items();
    let mut new = view.overlay.new_items();
    changed.any(|(item, facts)| covers(offer, view.item_id(item), Some(&facts)))
        || new.any(|(item, facts)| covers(offer, item.as_str(), Some(&facts)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::affinity;
    use crate::testing::{campaign, coupon};
    use domain::coupon::{Coupon, ItemSet};
    use domain::id::ItemId;
    use domain::item::ItemFacts;
    use recommender::snapshot::fixture::{self, EXAMPLE, item_facts, item_id, snapshot_parts};
    use recommender::snapshot::overlay::{FreshChange, Overlay};

    const CATEGORIES: [&str; 3] = ["mugs", "tea", "TEA"];
    const MERCHANTS: [&str; 3] = ["acme", "zenith", "nobody"];

    fn view(facts: &[ItemFacts], changes: Vec<(String, ItemFacts)>, max_entries: usize) -> View {
        let mut parts = snapshot_parts(&EXAMPLE);
        parts.catalog = fixture::catalog(facts);
        let mut view = fixture::view(parts);
        let mut overlay = Overlay::default();
        for (id, facts) in changes {
            let item = item_id(&id);
            overlay.apply(&view.snapshot, FreshChange::Item { item, facts }, max_entries);
        }
        view.overlay = Arc::new(overlay);
        view
    }

    fn offer(merchant: Option<&str>, scope: Scope) -> Offer {
        let mut campaign = campaign("k");
        campaign.merchant = merchant.map(|id| MerchantId::new(id).unwrap());
        Offer {
            coupon: Coupon { scope, ..coupon("c") },
            campaign: Arc::new(campaign),
        }
    }

    fn set(items: &[&str], categories: &[&str], merchants: &[&str]) -> Scope {
        Scope::Listed(ItemSet {
            items: items.iter().map(|id| ItemId::new(*id).unwrap()).collect(),
            categories: categories.iter().map(|id| Category::new(*id).unwrap()).collect(),
            merchants: merchants.iter().map(|id| MerchantId::new(*id).unwrap()).collect(),
        })
    }

    fn any_facts() -> impl Strategy<Value = ItemFacts> {
        let category = prop::option::of(prop::sample::select(&CATEGORIES[..2]));
        let merchant = prop::option::of(prop::sample::select(&MERCHANTS[..2]));
        (category, merchant).prop_map(|(category, merchant)| ItemFacts {
            category: category.map(|id| Category::new(id).unwrap()),
            merchant: merchant.map(|id| MerchantId::new(id).unwrap()),
            ..ItemFacts::default()
        })
    }

    fn any_scope() -> impl Strategy<Value = Scope> {
        let some = |names: &'static [&'static str]| prop::sample::subsequence(names, 0..=names.len().min(2));
        let listed = (some(&["i0", "i7", "i9"]), some(&CATEGORIES), some(&MERCHANTS));
        prop_oneof![
            1 => Just(Scope::All),
            5 => listed.prop_map(|(items, categories, merchants)| set(&items, &categories, &merchants)),
        ]
    }

    proptest! {
        #[test]
        fn a_scope_is_empty_exactly_if_no_item_is_covered(
            facts in prop::collection::vec(any_facts(), 5),
            changes in prop::collection::vec((prop::sample::select(vec!["i0", "i3", "i7", "i8"]), any_facts()), 0..5),
            merchant in prop::option::of(prop::sample::select(&MERCHANTS[..])),
            scope in any_scope(),
        ) {
            let changes: Vec<_> = changes.into_iter().map(|(id, facts)| (id.to_owned(), facts)).collect();
            let (view, offer) = (view(&facts, changes.clone(), usize::MAX), offer(merchant, scope));
            let known = (0..5).map(|number| format!("i{number}"));
            let mut items: Vec<(String, ItemFacts)> = known.zip(facts).collect();
            for (id, facts) in changes {
                items.retain(|(other, _)| *other != id);
                items.push((id, facts));
            }
            let is_covered = |(id, facts): &(String, ItemFacts)| {
                let facts = Facts {
                    title: "",
                    category: facts.category.as_ref().map(Category::as_str),
                    merchant: facts.merchant.as_ref().map(MerchantId::as_str),
                    price: None,
                    listed: true,
                };
                affinity::covers(&offer, id, Some(&facts))
            };
            prop_assert_eq!(is_empty(&offer, &view), !items.iter().any(is_covered));
        }
    }

    #[test]
    fn an_item_that_the_overlay_has_dropped_may_be_covered() {
        let facts = vec![item_facts("t", "mugs", "acme"); 5];
        let offer = offer(None, set(&[], &["tea"], &[]));
        let new = || vec![("i8".to_owned(), item_facts("t", "mugs", "acme"))];
        assert!(is_empty(&offer, &view(&facts, new(), usize::MAX)));
        assert!(!is_empty(&offer, &view(&facts, new(), 0)));
    }
}
