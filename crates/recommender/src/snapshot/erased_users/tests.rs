use std::collections::BTreeSet;

use proptest::prelude::*;

use domain::consent::{Consents, Purpose};
use domain::id::UserId;

use super::*;
use crate::prediction::{Estimator, PredictOptions, Predictor, Thresholds};
use crate::ranking::Basis;
use crate::ranking::audience::{AudienceOptions, item_audience};
use crate::ranking::rank::{Personalization, RankOptions, Recipient, Scratch, recommend};
use crate::ranking::similar::similar_users;
use crate::ranking::testing::{any_parts as any_model, changed, interaction};
use crate::snapshot::codec::{self, DecodedPart};
use crate::snapshot::consents::ConsentRecords;
use crate::snapshot::dictionary::{Dictionary, ItemIndex, UserIndex};
use crate::snapshot::fixture::{EXAMPLE, any_parts, item_id, snapshot_parts, user_id, view};
use crate::snapshot::overlay::{FreshChange, ItemRef, LastOrders};
use crate::snapshot::parts::Optional;
use crate::snapshot::view::{StampedState, View};
use crate::snapshot::{Snapshot, SnapshotParts};

/// Gives the users ids that occur nowhere else, and some users and strangers a refusal.
fn named(parts: SnapshotParts) -> SnapshotParts {
    let m = parts.users.len();
    let ids: Vec<String> = (0..m).map(|user| format!("person-{user:02}")).collect();
    let refused = Consents::default().with(Purpose::Training, Some(false));
    let recorded: BTreeSet<String> = ids
        .iter()
        .step_by(2)
        .cloned()
        .chain(["stranger-0".to_owned()])
        .collect();
    SnapshotParts {
        consents: ConsentRecords::new(recorded.iter().collect(), vec![refused; recorded.len()]).unwrap(),
        users: Dictionary::new(ids.iter().collect()).unwrap(),
        ..parts
    }
}

fn decoded(parts: &SnapshotParts) -> Vec<DecodedPart> {
    let encoded = codec::encode(parts);
    let part = |part: codec::EncodedPart| {
        let n_bytes = part.bytes.len() as u64;
        codec::decode_part(part.name, n_bytes, std::iter::once(part.bytes)).unwrap()
    };
    encoded.map(part).collect()
}

/// Rewrites the bytes of `parts` as those of a stored snapshot are rewritten.
fn rewritten(parts: &SnapshotParts, ids: &[String]) -> Vec<(String, Vec<u8>)> {
    let stored = decoded(parts);
    let users = codec::encode(parts).position(|part| part.name == "users").unwrap();
    let erased = stored[users].find_users(ids.iter().cloned().collect());
    let rewritten = stored.into_iter().map(|part| part.without_users(&erased).unwrap());
    rewritten.map(|part| (part.name.to_owned(), part.bytes)).collect()
}

fn redacted(parts: &SnapshotParts, ids: &[String]) -> SnapshotParts {
    let stored = rewritten(parts, ids);
    let mut checksum = codec::Checksum::default();
    stored.iter().for_each(|(name, bytes)| checksum.add(name, bytes));
    codec::decode(stored, &checksum.finish()).unwrap()
}

/// Returns the ids of the users at these positions among those of the snapshot, and of a stranger with a refusal.
fn chosen(parts: &SnapshotParts, positions: &[prop::sample::Index]) -> Vec<String> {
    let users = parts.users.texts();
    let of_snapshot = positions.iter().filter(|_| !users.is_empty());
    let ids = of_snapshot.map(|position| users.get(position.index(users.len())).to_owned());
    let ids: BTreeSet<String> = ids.chain(["stranger-0".to_owned()]).collect();
    ids.into_iter().collect()
}

fn positions() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..4)
}

fn erase(view: &View, ids: &[String]) -> View {
    let erased = |id: &String| FreshChange::Erased { user: user_id(id) };
    changed(view.clone(), ids.iter().map(erased))
}

fn predictions(view: &View, user: &UserId, basis: Basis) -> Vec<f64> {
    let predictor = Predictor::new(view, user);
    let items = || (0..view.snapshot.items().len() as u32).map(|item| ItemRef::Known(ItemIndex(item)));
    let estimators = [Estimator::WeightedSum, Estimator::WeightedMean, Estimator::Baseline];
    let value = |estimator| {
        let options = PredictOptions {
            estimator,
            basis,
            explain: false,
            thresholds: Thresholds::default(),
        };
        items()
            .map(|item| predictor.predict(&item, &options).value)
            .collect::<Vec<_>>()
    };
    estimators.into_iter().flat_map(value).collect()
}

/// The personal recommendations of all items, by item.
fn scores(view: &View, user: &UserId, basis: Basis) -> Vec<(ItemIndex, f64)> {
    let options = RankOptions {
        limit: usize::MAX,
        basis: Some(basis),
        ..RankOptions::default()
    };
    let found = recommend(view, &Recipient::User(user), &options, &mut Scratch::default());
    match found.personalization {
        Personalization::Personalized => {
            let mut scores: Vec<_> = found.items.iter().map(|found| (found.item, found.score)).collect();
            scores.sort_unstable_by_key(|&(item, _)| item);
            scores
        }
        _ => Vec::new(),
    }
}

fn is_near(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9)
}

const BASES: [Basis; 3] = [Basis::ItemBased, Basis::UserBased, Basis::Blended];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_part_holds_an_erased_id(parts in any_parts(), erased in positions()) {
        let parts = named(parts);
        let ids = chosen(&parts, &erased);
        for (name, bytes) in rewritten(&parts, &ids) {
            for id in &ids {
                let is_held = bytes.windows(id.len()).any(|window| window == id.as_bytes());
                prop_assert!(!is_held, "part {name} holds {id}");
            }
        }
        let left = redacted(&parts, &ids);
        for part in decoded(&left) {
            prop_assert!(part.user_ids().all(|held| !ids.iter().any(|id| id == held)));
        }
        let snapshot = Snapshot::new(left).unwrap();
        prop_assert_eq!(snapshot.users().len(), parts.users.len());
        for (row, id) in (0..).zip(parts.users.texts().iter()) {
            let is_erased = ids.iter().any(|erased| erased == id);
            prop_assert_eq!(snapshot.users().find(id), (!is_erased).then_some(UserIndex(row)));
            prop_assert!(!is_erased || UserId::stored(snapshot.users().id(UserIndex(row))).is_err());
        }
    }

    #[test]
    fn nothing_is_left_of_erased_users_and_everything_of_the_others(parts in any_parts(), erased in positions()) {
        let parts = named(parts);
        let ids = chosen(&parts, &erased);
        let left = redacted(&parts, &ids);
        for user in 0..parts.users.len() {
            let is_erased = ids.iter().any(|id| id == parts.users.texts().get(user));
            let of = |parts: &SnapshotParts| {
                let ratings: BTreeSet<(u32, u32, bool)> = parts.ratings.row(user).iter().zip(parts.ratings.row_range(user))
                    .map(|((item, value), at)| (item.0, value.to_bits(), parts.purchased.get(at))).collect();
                let activity = &parts.activity;
                let figures = [activity.orders[user], activity.discounted_lines[user], activity.redemptions[user],
                    activity.campaigns[user], parts.biases.users[user].to_bits()];
                let times = [activity.spend_minor[user], activity.last_order_at[user]];
                let merchants = parts.merchant_orders.get().ok().map(|orders| {
                    (0..parts.catalog.merchants.len()).filter_map(|merchant| orders.last_order_at(user, merchant)).collect::<Vec<_>>()
                });
                let orders = parts.orders.get().ok().map(|orders| {
                    let row = orders.row_range(user);
                    // In the order of popularity, which may be another one now.
                    let mut row: Vec<_> = orders.counts[row.clone()].iter().copied().zip(orders.recent[row].iter().map(|sum| sum.to_bits())).collect();
                    row.sort_unstable();
                    row
                });
                (ratings, figures, times, merchants, orders)
            };
            let (before, after) = (of(&parts), of(&left));
            let named: Vec<u32> = parts.user_neighbors.row(user).0.iter().copied()
                .filter(|&other| !is_erased && !ids.iter().any(|id| id == parts.users.texts().get(other as usize))).collect();
            prop_assert_eq!(left.user_neighbors.row(user).0, &named[..]);
            match is_erased {
                true => {
                    prop_assert_eq!((after.0.len(), after.1, after.2), (0, [0; 5], [0; 2]));
                    prop_assert!(after.3.unwrap_or_default().is_empty() && after.4.unwrap_or_default().is_empty());
                }
                false => prop_assert_eq!(before, after),
            }
        }
    }

    #[test]
    fn it_does_not_matter_in_which_order_users_are_erased(parts in any_parts(), first in positions(), second in positions()) {
        let parts = named(parts);
        let (first, second) = (chosen(&parts, &first), chosen(&parts, &second));
        let both: BTreeSet<String> = first.iter().chain(&second).cloned().collect();
        let both: Vec<String> = both.into_iter().collect();
        prop_assert_eq!(rewritten(&redacted(&parts, &first), &second), rewritten(&parts, &both));
    }

    #[test]
    fn answers_for_others_stay_as_they_were_without_the_neighbor(parts in any_model(), erased in positions()) {
        let parts = named(parts);
        let ids = chosen(&parts, &erased);
        let left = redacted(&parts, &ids);
        // Without any rating there is no mean any more.
        prop_assume!(left.ratings.nnz() > 0);
        let users = ErasedUsers::new(ids.iter().cloned().collect(), parts.users.texts());
        let expected = SnapshotParts { user_neighbors: users.leave_lists(&parts.user_neighbors), ..parts.clone() };
        let (expected, left) = (view(expected), view(left));
        for id in parts.users.texts().iter().filter(|id| !ids.iter().any(|erased| erased == id)) {
            let user = user_id(id);
            for basis in BASES {
                let (a, b) = (predictions(&expected, &user, basis), predictions(&left, &user, basis));
                prop_assert!(is_near(&a, &b), "{id} {basis:?}: {a:?} {b:?}");
            }
            let (a, b) = (scores(&expected, &user, Basis::ItemBased), scores(&left, &user, Basis::ItemBased));
            let values = |scores: &[(ItemIndex, f64)]| scores.iter().map(|score| score.1).collect::<Vec<_>>();
            prop_assert!(is_near(&values(&a), &values(&b)), "{id}: {a:?} {b:?}");
        }
    }

    #[test]
    fn a_masked_user_is_as_unknown_as_one_whose_data_are_gone(
        parts in any_model(), erased in positions(), item in any::<prop::sample::Index>(), returns: bool,
    ) {
        let mut parts = named(parts);
        parts.consents = ConsentRecords::new(["stranger-0"].iter().collect(), vec![Consents::default()]).unwrap();
        let ids = chosen(&parts, &erased);
        let item = ItemIndex(item.index(parts.items.len()) as u32);
        let (masked, left) = (erase(&view(parts.clone()), &ids), view(redacted(&parts, &ids)));
        // The customer comes back under the same id, or not.
        let back = |view: View| match returns {
            true => changed(view.clone(), ids.iter().map(|id| interaction(id, view.item_id(item), Some(4.0), 1))),
            false => view,
        };
        let (masked, left) = (back(masked), back(left));
        for id in &ids {
            let user = user_id(id);
            prop_assert_eq!(masked.user(&user), None);
            prop_assert_eq!(masked.history(&user), left.history(&user));
            for basis in [Basis::ItemBased, Basis::UserBased] {
                let (a, b) = (predictions(&masked, &user, basis), predictions(&left, &user, basis));
                // μ is that of the snapshot, which has none without any rating.
                prop_assert!(left.snapshot.ratings().nnz() == 0 || is_near(&a, &b), "{id}: {a:?} {b:?}");
            }
        }
        let lists = |view: &View| -> Vec<Vec<(UserIndex, f64)>> {
            (0..view.snapshot.users().len() as u32).map(|user| similar_users(view, UserIndex(user), 9)).collect()
        };
        prop_assert_eq!(lists(&masked), lists(&left));
        let options = AudienceOptions { limit: usize::MAX, exclude_purchased: false };
        let audience = |view: &View| -> Vec<(String, f64)> {
            item_audience(view, item, options).into_iter().map(|(id, score)| (id.to_owned(), score)).collect()
        };
        let (a, b) = (audience(&masked), audience(&left));
        let names = |audience: &[(String, f64)]| audience.iter().map(|one| one.0.clone()).collect::<BTreeSet<_>>();
        prop_assert_eq!(names(&a), names(&b));
        prop_assert!(returns || !a.iter().any(|(id, _)| ids.contains(id)));
    }
}

#[test]
fn a_customer_who_comes_back_is_a_new_user() {
    let mut parts = snapshot_parts(&EXAMPLE);
    let refused = Consents::default().with(Purpose::Profiling, Some(false));
    parts.consents = ConsentRecords::new(["u0"].iter().collect(), vec![refused]).unwrap();
    let (user, trained) = (user_id("u0"), view(parts));
    let written = changed(
        trained,
        [
            interaction("u0", "i1", Some(3.0), 0),
            FreshChange::LastOrders {
                user: user.clone(),
                last_orders: LastOrders {
                    at: Some(9),
                    by_merchant: Vec::new(),
                },
            },
        ],
    );
    assert_eq!((written.history(&user).entries().len(), written.overlay.len()), (4, 2));
    let masked = erase(&written, &["u0".to_owned()]);
    assert!(masked.history(&user).entries().is_empty());
    assert_eq!((masked.overlay.last_orders(&user), masked.overlay.len()), (None, 0));
    assert!(
        masked.allows(&user, Purpose::Profiling),
        "the refusal was that of the erased user"
    );
    let back = changed(masked.clone(), [interaction("u0", "i2", Some(5.0), 0)]);
    let rated: Vec<u32> = back.history(&user).entries().iter().map(|entry| entry.item.0).collect();
    assert_eq!((rated, back.user(&user)), (vec![2], None));
}

#[test]
fn no_cached_answer_outlives_the_erasure_of_its_user() {
    let trained = view(snapshot_parts(&EXAMPLE));
    let (user, other) = (user_id("u0"), user_id("u1"));
    let stamp = |view: &View, user: &UserId| view.stamp(Some(user), StampedState::User);
    let masked = erase(&trained, &["u0".to_owned()]);
    assert_ne!(stamp(&trained, &user), stamp(&masked, &user));
    assert_eq!(stamp(&trained, &other), stamp(&masked, &other));
    let back = changed(masked.clone(), [interaction("u0", "i2", Some(5.0), 0)]);
    assert_ne!(stamp(&masked, &user), stamp(&back, &user));
}

#[test]
fn orders_of_an_erased_user_leave_the_trend_as_the_snapshot_has_it() {
    let mut parts = snapshot_parts(&EXAMPLE);
    crate::snapshot::fixture::buy(&mut parts, 0, &[3]);
    parts.orders = Optional::Present(crate::snapshot::fixture::orders(&parts, |_| 2, 0.5));
    let mut settings = crate::snapshot::settings::FittedSettings::default();
    settings.new_items.trend_exponent = 1.0;
    parts.fitted_settings = Optional::Present(settings);
    let trained = view(parts);
    // A week after the newest order of the snapshot.
    let ordered_lately = |user: &str, item: &str| FreshChange::Interaction {
        user: user_id(user),
        item: item_id(item),
        rating: None,
        orders: 1,
        last_order_at: 14 * 86_400,
        ordered_at: vec![14 * 86_400],
    };
    let ordered = changed(
        trained.clone(),
        [ordered_lately("u0", "i3"), ordered_lately("new", "i1")],
    );
    let other = changed(trained, [ordered_lately("new", "i1")]);
    let masked = erase(&ordered, &["u0".to_owned()]);
    assert_ne!(ordered.order_terms(), masked.order_terms());
    assert_eq!(masked.order_terms(), other.order_terms());
}

#[test]
fn blank_ids_stand_between_their_neighbors_and_tell_nothing_of_what_they_replace() {
    let users: Texts = ["a", "b", "b1", "c"].iter().collect();
    let check = |ids: &[&str], expected: [&str; 4]| {
        let ids = ids.iter().map(|&id| id.to_owned()).collect();
        let blanked = ErasedUsers::new(ids, &users).blank(&users);
        assert_eq!(blanked.iter().collect::<Vec<_>>(), expected);
        assert!(Dictionary::<UserIndex>::new(blanked).is_some());
    };
    check(&[], ["a", "b", "b1", "c"]);
    check(&["a"], ["\u{1}00000000", "b", "b1", "c"]);
    check(&["b", "c"], ["a", "a\u{1}00000000", "b1", "b1\u{1}00000000"]);
    check(
        &["a", "b", "b1"],
        ["\u{1}00000000", "\u{1}00000001", "\u{1}00000002", "c"],
    );
}
