//! Ranks everybody who is likely to want some items, for advertising without a coupon.

use std::sync::Arc;

use rayon::prelude::*;

use domain::consent::{Consents, Purpose};
use domain::id::UserId;
use recommender::snapshot::Snapshot;
use recommender::snapshot::bits::Bits;
use recommender::snapshot::dictionary::UserIndex;
use recommender::snapshot::overlay::ItemRef;
use recommender::snapshot::view::View;

use super::affinity;

/// The number of users that one task judges.
const USERS_PER_TASK: usize = 4_096;

/// The items that are advertised, and to whom not.
#[derive(Debug, Clone, Copy)]
pub struct AudienceInput<'a> {
    /// The snapshot that the scores come from, with n items.
    pub snapshot: &'a Arc<Snapshot>,
    /// The advertised items: one bit for each of n items.
    pub items: &'a Bits,
    /// The present view, for consents and purchases.
    pub view: &'a View,
    /// The advertised items in the snapshot of `view`.
    pub items_now: &'a Bits,
    /// The least score; `None` for no limit.
    pub min_score: Option<f64>,
    /// Leaves out users who have bought one of the items.
    pub exclude_purchased: bool,
}

/// The numbers of users who were considered: each counts once, under the first of these that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AudienceCounts {
    /// All users of the snapshot.
    pub considered: usize,
    /// They are suppressed, do not agree to marketing, or object to profiling.
    pub without_consent: usize,
    /// Nothing in their history is similar to the items.
    pub without_affinity: usize,
    /// They have bought one of the items, and buyers are left out.
    pub bought: usize,
    /// Their score is too low.
    pub below_min_score: usize,
    /// They remain.
    pub audience: usize,
}

impl AudienceCounts {
    fn plus(self, other: Self) -> Self {
        Self {
            considered: self.considered + other.considered,
            without_consent: self.without_consent + other.without_consent,
            without_affinity: self.without_affinity + other.without_affinity,
            bought: self.bought + other.bought,
            below_min_score: self.below_min_score + other.below_min_score,
            audience: self.audience + other.audience,
        }
    }
}

/// The users who are likely to want the items, the highest affinity first, ties by user id.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RankedAudience {
    /// Users of the snapshot with their affinities, which are above 0.
    pub members: Vec<(UserIndex, f64)>,
    pub counts: AudienceCounts,
}

impl RankedAudience {
    /// Judges and ranks all users of the snapshot on all threads of the current rayon pool.
    pub fn new(input: &AudienceInput<'_>) -> Self {
        let scores = affinity::affinities(input.snapshot, input.items);
        let ranked = scores
            .par_chunks(USERS_PER_TASK)
            .enumerate()
            .map(|(chunk, scores)| judge(input, chunk * USERS_PER_TASK, scores))
            .reduce(Self::default, |mut a, b| {
                a.members.extend(b.members);
                a.counts = a.counts.plus(b.counts);
                a
            });
        let mut ranked = ranked;
        ranked
            .members
            .par_sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranked
    }

    /// Returns the first position after a user with this score and index, whether they are still ranked or not.
    ///
    /// `id`: the external id of the user.
    pub fn position_after(&self, snapshot: &Snapshot, score: f64, id: &str) -> usize {
        self.members.partition_point(|&(user, own)| {
            let by_score = score.total_cmp(&own);
            by_score.then_with(|| snapshot.users().id(user).cmp(id)).is_le()
        })
    }
}

/// Judges the users from number `first` on, who have these scores.
fn judge(input: &AudienceInput<'_>, first: usize, scores: &[f64]) -> RankedAudience {
    let mut judged = RankedAudience::default();
    let is_current = Arc::ptr_eq(input.snapshot, &input.view.snapshot);
    for (place, &score) in scores.iter().enumerate() {
        let user = UserIndex((first + place) as u32);
        // An id that was blanked, because its user was erased, is none.
        let Ok(id) = UserId::stored(input.snapshot.users().id(user)) else {
            continue;
        };
        let is_erased = match is_current {
            true => input.view.is_erased(user),
            false => input.view.overlay.has_erased(id.as_str()),
        };
        if is_erased {
            continue;
        }
        let now = if is_current { Some(user) } else { input.view.user(&id) };
        let consents = now.map_or_else(|| input.view.consents(&id), |now| input.view.user_consents(now));
        let counts = &mut judged.counts;
        counts.considered += 1;
        if !may_be_advertised_to(input.view, consents) {
            counts.without_consent += 1;
        } else if score <= 0.0 {
            counts.without_affinity += 1;
        } else if input.exclude_purchased && has_bought(input, now, &id) {
            counts.bought += 1;
        } else if input.min_score.is_some_and(|min_score| score < min_score) {
            counts.below_min_score += 1;
        } else {
            counts.audience += 1;
            judged.members.push((user, score));
        }
    }
    judged
}

/// Returns whether a user with these consents may be advertised to by their history.
pub fn may_be_advertised_to(view: &View, consents: Consents) -> bool {
    let allows = |purpose| view.privacy.allows(consents, purpose);
    !consents.is_suppressed() && allows(Purpose::Marketing) && allows(Purpose::Profiling)
}

/// Returns whether the user has bought one of the items, as far as purchases count as ratings. `now`: their index in the view.
fn has_bought(input: &AudienceInput<'_>, now: Option<UserIndex>, id: &UserId) -> bool {
    let fresh = input.view.overlay.interactions(id);
    let is_changed = |item: ItemRef| fresh.binary_search_by(|entry| entry.item.cmp(&item)).is_ok();
    let fresh_purchase = fresh.iter().any(|entry| match entry.item {
        ItemRef::Known(item) => entry.purchased && input.items_now.get(item.at()),
        ItemRef::New(_) => false,
    });
    let mut stored = now.into_iter().flat_map(|user| input.view.stored_history(user));
    fresh_purchase
        || stored.any(|entry| {
            entry.purchased && input.items_now.get(entry.item.at()) && !is_changed(ItemRef::Known(entry.item))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::consent::PrivacyOptions;
    use recommender::snapshot::fixture::{self, EXAMPLE, item_id, snapshot_parts, user_id};
    use recommender::snapshot::overlay::{FreshChange, Overlay};

    fn bits(items: &[usize]) -> Bits {
        (0..5).map(|item| items.contains(&item)).collect()
    }

    fn ranked(view: &View, items: &[usize], min_score: Option<f64>, exclude_purchased: bool) -> RankedAudience {
        let items = bits(items);
        let ranked = RankedAudience::new(&AudienceInput {
            snapshot: &view.snapshot,
            items: &items,
            view,
            items_now: &items,
            min_score,
            exclude_purchased,
        });
        let counts = ranked.counts;
        let left_out = counts.without_consent + counts.without_affinity + counts.bought + counts.below_min_score;
        assert_eq!(counts.audience + left_out, counts.considered);
        assert_eq!(counts.audience, ranked.members.len());
        ranked
    }

    fn view_of(changes: Vec<FreshChange>) -> View {
        let mut parts = snapshot_parts(&EXAMPLE);
        fixture::buy(&mut parts, 0, &[0]);
        let mut view = fixture::view(parts);
        view.privacy = PrivacyOptions::default();
        let mut overlay = Overlay::default();
        for change in changes {
            overlay.apply(&view.snapshot, change, usize::MAX);
        }
        view.overlay = Arc::new(overlay);
        view
    }

    #[test]
    fn the_users_with_an_affinity_are_ranked_by_it() {
        let view = view_of(Vec::new());
        let ranked = ranked(&view, &[0, 3], None, false);
        let scores = affinity::affinities(&view.snapshot, &bits(&[0, 3]));
        let mut expected: Vec<(UserIndex, f64)> = (0..3).map(|user| (UserIndex(user), scores[user as usize])).collect();
        expected.retain(|(_, score)| *score > 0.0);
        expected.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        assert!(expected.len() >= 2);
        assert_eq!(ranked.members, expected);
        for (position, &(user, score)) in expected.iter().enumerate() {
            let id = view.snapshot.users().id(user);
            assert_eq!(ranked.position_after(&view.snapshot, score, id), position + 1);
        }
    }

    #[test]
    fn users_are_left_out_and_counted_once_each() {
        let said = |consents: Consents| FreshChange::Consents {
            user: user_id("u0"),
            consents,
        };
        let everybody = ranked(&view_of(Vec::new()), &[0, 3], None, false);
        let nothing = Consents::default();
        for consents in [
            nothing.with(Purpose::Marketing, Some(false)),
            nothing.with(Purpose::Profiling, Some(false)),
            nothing.suppressed(true),
        ] {
            let found = ranked(&view_of(vec![said(consents)]), &[0, 3], None, true);
            assert_eq!(found.counts.without_consent, 1, "{consents:?}");
            assert!(found.members.iter().all(|(user, _)| user.0 != 0), "{consents:?}");
        }
        let buyers = ranked(&view_of(Vec::new()), &[0, 3], None, true);
        assert_eq!(
            (buyers.counts.bought, buyers.counts.audience),
            (1, everybody.counts.audience - 1)
        );
        // A purchase since the snapshot counts, and so does a return.
        let purchase = |user: &str, item: &str, orders: u32| FreshChange::Interaction {
            user: user_id(user),
            item: item_id(item),
            rating: Some(3.0),
            orders,
            last_order_at: 0,
            ordered_at: vec![0; orders as usize],
        };
        let changes = vec![purchase("u0", "i0", 0), purchase("u2", "i3", 1)];
        let found = ranked(&view_of(changes), &[0, 3], None, true);
        assert_eq!(found.counts.bought, 1);
        assert!(found.members.iter().any(|(user, _)| user.0 == 0));
        assert!(found.members.iter().all(|(user, _)| user.0 != 2));
        let best = everybody.members[0].1;
        let found = ranked(&view_of(Vec::new()), &[0, 3], Some(best), false);
        assert_eq!(found.members, everybody.members[..1]);
        assert_eq!(
            ranked(&view_of(Vec::new()), &[], None, false).counts.without_affinity,
            3
        );
    }
}
