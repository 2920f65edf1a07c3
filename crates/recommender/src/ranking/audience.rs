//! Finds the users with the highest ranking score of an item.

use rayon::prelude::*;

use crate::snapshot::bits::Bits;
use crate::snapshot::dictionary::{ItemIndex, UserIndex};
use crate::snapshot::view::View;
use domain::consent::{Consents, Purpose};
use domain::id::UserId;

use super::shopper::Shopper;

/// The number of users that one thread scores at a time.
const CHUNK: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudienceOptions {
    pub limit: usize,
    /// Leaves out users who have bought the item.
    pub exclude_purchased: bool,
}

/// Returns the `limit` users with the highest item-based ranking score of `item`, highest first, ties by user id.
///
/// The score is that of [`recommend`](super::rank::recommend), Σ sim(item, j)·R[u, j] over the j of the present history that
/// stand in the item's own list, and must be above 0. Users who may not be marketed to or profiled, or who are suppressed, are
/// left out.
pub fn item_audience<'a>(view: &'a View, item: ItemIndex, options: AudienceOptions) -> Vec<(&'a str, f64)> {
    let mut similarities = vec![0.0; view.snapshot.items().len()];
    let (neighbors, values) = view.snapshot.ranking_item_neighbors().row(item.at());
    for (&neighbor, &similarity) in neighbors.iter().zip(values) {
        similarities[neighbor as usize] = f64::from(similarity);
    }
    let score = |shopper: &Shopper| {
        let is_left_out = options.exclude_purchased && shopper.has_purchased(item);
        let terms = shopper
            .ratings()
            .map(|(item, rating)| f64::from(rating) * similarities[item.at()]);
        Some(terms.sum::<f64>()).filter(|&score| score > 0.0 && !is_left_out)
    };

    let mut changed = Bits::zeros(view.snapshot.users().len());
    let changed_users: Vec<&UserId> = view.overlay.users().collect();
    for user in &changed_users {
        if let Some(index) = view.user(user) {
            changed.set(index.at(), true);
        }
    }
    let as_trained = |user: UserIndex| {
        let is_counted =
            !changed.get(user.at()) && !view.is_erased(user) && may_be_shown(view, view.user_consents(user));
        let score = is_counted.then(|| score(&Shopper::of_index(view, user))).flatten()?;
        Some((view.snapshot.users().id(user), score))
    };
    let since = |user: &&'a UserId| {
        let score = may_be_shown(view, view.consents(user)).then(|| score(&Shopper::of_user(view, user)));
        Some((user.as_str(), score.flatten()?))
    };
    let n_users = view.snapshot.users().len();
    let chunks = (0..n_users.div_ceil(CHUNK)).into_par_iter().map(|chunk| {
        let users = chunk * CHUNK..n_users.min((chunk + 1) * CHUNK);
        let scored = users.filter_map(|user| as_trained(UserIndex(user as u32)));
        best(scored.collect(), options.limit)
    });
    let trained = chunks.reduce(Vec::new, |mut a, b| {
        a.extend(b);
        best(a, options.limit)
    });
    let fresh = changed_users.iter().filter_map(since);
    best(trained.into_iter().chain(fresh).collect(), options.limit)
}

fn may_be_shown(view: &View, consents: Consents) -> bool {
    !consents.is_suppressed()
        && [Purpose::Marketing, Purpose::Profiling]
            .iter()
            .all(|&purpose| view.privacy.allows(consents, purpose))
}

fn best(mut scored: Vec<(&str, f64)>, limit: usize) -> Vec<(&str, f64)> {
    scored.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(b.0)));
    scored.truncate(limit);
    scored
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Basis;
    use super::super::rank::{RankOptions, Recipient, Scratch, recommend};
    use super::super::testing::{any_parts, changed, interaction};
    use super::*;
    use crate::snapshot::SnapshotParts;
    use crate::snapshot::fixture::{EXAMPLE, snapshot_parts, user_id, view};
    use crate::snapshot::overlay::FreshChange;

    const ALL: AudienceOptions = AudienceOptions {
        limit: usize::MAX,
        exclude_purchased: false,
    };

    /// Computes the audience from what Recommend answers each user.
    fn reference(view: &View, item: ItemIndex, users: &[UserId], exclude_purchased: bool) -> Vec<(String, f64)> {
        let rank = RankOptions {
            limit: usize::MAX,
            basis: Some(Basis::ItemBased),
            exclude_purchased,
            ..RankOptions::default()
        };
        let score = |user: &UserId| {
            let recommended = recommend(view, &Recipient::User(user), &rank, &mut Scratch::default());
            let is_personal = recommended.personalization == super::super::rank::Personalization::Personalized;
            let found = recommended.items.into_iter().find(|found| found.item == item);
            found.filter(|_| is_personal).map(|found| found.score)
        };
        let scored = users.iter().filter_map(|user| Some((user.to_string(), score(user)?)));
        let mut scored: Vec<_> = scored.collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        scored
    }

    fn found(view: &View, item: ItemIndex, options: AudienceOptions) -> Vec<(String, f64)> {
        let audience = item_audience(view, item, options);
        audience
            .into_iter()
            .map(|(user, score)| (user.to_owned(), score))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn the_score_of_a_user_is_that_of_recommend(
            parts in any_parts().prop_filter("an item to ask about", |parts: &SnapshotParts| !parts.items.is_empty()),
            fresh in prop::collection::vec((0usize..8, 0usize..8, prop::option::of(1u8..=5), 0u32..3), 0..6),
            item in any::<prop::sample::Index>(), limit in 0usize..9, exclude_purchased: bool,
        ) {
            // Recommend shows only what is listed.
            let mut parts = parts;
            parts.catalog.listed = std::iter::repeat_n(true, parts.items.len()).collect();
            let trained = view(parts);
            let (n_users, n_items) = (trained.snapshot.users().len(), trained.snapshot.items().len());
            // The last two are not in the snapshot.
            let mut users: Vec<UserId> = trained.snapshot.users().texts().iter().map(user_id).collect();
            users.extend([user_id("new"), user_id("newer")]);
            let changes = fresh.into_iter().map(|(user, item, rating, orders)| {
                let item = trained.item_id(ItemIndex((item % n_items) as u32));
                interaction(users[user % (n_users + 2)].as_str(), item, rating.map(f32::from), orders)
            });
            let view = changed(trained.clone(), changes.collect::<Vec<_>>());
            let item = ItemIndex(item.index(n_items) as u32);
            let mut expected = reference(&view, item, &users, exclude_purchased);
            expected.truncate(limit);
            prop_assert_eq!(found(&view, item, AudienceOptions { limit, exclude_purchased }), expected);
        }
    }

    #[test]
    fn users_who_object_are_left_out() {
        let trained = view(snapshot_parts(&EXAMPLE));
        let item = ItemIndex(3);
        let users = |view: &View| {
            found(view, item, ALL)
                .into_iter()
                .map(|(user, _)| user)
                .collect::<Vec<_>>()
        };
        assert_eq!(users(&trained), ["u0", "u2", "u1"]);
        let refused = |purpose| Consents::default().with(purpose, Some(false));
        let check = |consents: Consents, is_shown: bool| {
            let user = user_id("u2");
            let view = changed(trained.clone(), [FreshChange::Consents { user, consents }]);
            assert_eq!(users(&view).contains(&"u2".to_owned()), is_shown, "{consents:?}");
        };
        check(Consents::default(), true);
        check(refused(Purpose::Marketing), false);
        check(refused(Purpose::Profiling), false);
        check(refused(Purpose::Training), true);
        check(Consents::default().suppressed(true), false);
    }
}
