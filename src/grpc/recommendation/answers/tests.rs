use proptest::prelude::*;
use prost::Message as _;
use std::sync::Arc;

use super::super::convert::{self, PredictRequest, RankRequest};
use super::*;
use crate::grpc::proto::v1;
use domain::consent::{Consents, Purpose};
use domain::item::ItemFacts;
use domain::rating::RatingScale;
use recommender::prediction;
use recommender::ranking::rank;
use recommender::ranking::testing::any_parts;
use recommender::snapshot::fixture::{EXAMPLE, item_id, snapshot_parts, user_id, view};
use recommender::snapshot::overlay::{FreshChange, Overlay};

#[derive(Debug, Clone)]
enum Step {
    Change(FreshChange),
    /// Loads the same snapshot again, without the changes since.
    Reload,
    Ask(Message),
}

#[derive(Debug, Clone)]
enum Message {
    Predict(v1::PredictRatingsRequest),
    Recommend(v1::RecommendRequest),
}

fn any_step() -> impl Strategy<Value = Step> {
    let user = || (0usize..4).prop_map(|user| format!("u{user}"));
    let item = || (0usize..9).prop_map(|item| format!("i{item}"));
    let interaction = (user(), item(), prop::option::of(1u8..=5), 0u32..3);
    let interaction = interaction.prop_map(|(user, item, rating, orders)| FreshChange::Interaction {
        user: user_id(&user),
        item: item_id(&item),
        rating: rating.map(f32::from),
        orders,
        last_order_at: 0,
        ordered_at: vec![0; orders as usize],
    });
    let facts = (item(), any::<bool>(), 0u8..3).prop_map(|(item, listed, title)| FreshChange::Item {
        item: item_id(&item),
        facts: ItemFacts {
            listed,
            title: Some(format!("title {title}")),
            ..ItemFacts::default()
        },
    });
    let consents = (user(), any::<bool>()).prop_map(|(user, is_granted)| FreshChange::Consents {
        user: user_id(&user),
        consents: Consents::default().with(Purpose::Profiling, Some(is_granted)),
    });
    let subject = prop_oneof![
        3 => user().prop_map(v1::recommend_request::Subject::UserId),
        1 => item().prop_map(|item_id| {
            let item = v1::SessionItem { item_id, rating: None };
            v1::recommend_request::Subject::Session(v1::SessionItems { items: vec![item] })
        }),
    ];
    let adjusted = || prop_oneof![Just(0.0), Just(0.5)];
    let ask = (subject, 1i32..4, any::<bool>(), any::<bool>(), adjusted(), adjusted());
    let ask = ask.prop_map(
        |(subject, limit, explain, exclude_history, diversity, popularity_penalty)| v1::RecommendRequest {
            subject: Some(subject),
            limit,
            explain,
            exclude_history,
            diversity,
            popularity_penalty,
            ..v1::RecommendRequest::default()
        },
    );
    let items = prop::collection::btree_set((0usize..9).prop_map(|item| format!("i{item}")), 1..4);
    let predict = (user(), items, 0i32..3, 0i32..4, any::<bool>());
    let predict = predict.prop_map(
        |(user_id, items, estimator, basis, explain)| v1::PredictRatingsRequest {
            user_id,
            item_ids: items.into_iter().collect(),
            estimator,
            basis,
            explain,
            ..v1::PredictRatingsRequest::default()
        },
    );
    prop_oneof![
        2 => interaction.prop_map(Step::Change),
        1 => facts.prop_map(Step::Change),
        1 => consents.prop_map(Step::Change),
        1 => Just(Step::Reload),
        6 => predict.prop_map(Message::Predict).prop_map(Step::Ask),
        12 => ask.prop_map(Message::Recommend).prop_map(Step::Ask),
    ]
}

struct Computed {
    answer: Bytes,
    user: Option<UserId>,
    may_be_cached: bool,
}

impl Message {
    fn encoded(&self) -> Vec<u8> {
        match self {
            Self::Predict(message) => message.encode_to_vec(),
            Self::Recommend(message) => message.encode_to_vec(),
        }
    }

    fn compute(&self, view: &View) -> Computed {
        match self.clone() {
            Self::Predict(message) => {
                let predict = PredictRequest::try_from(message).unwrap();
                let user = predict.user.clone();
                let answer = convert::predictions(view, predict, &mut prediction::Scratch::default());
                Computed {
                    answer: answer.encode_to_vec().into(),
                    user: Some(user),
                    may_be_cached: convert::are_all_rated(&answer),
                }
            }
            Self::Recommend(message) => {
                let rank = RankRequest::new(message, &RatingScale::default()).unwrap();
                let ranked = rank::recommend(
                    view,
                    &rank.recipient(view),
                    &rank.options,
                    &mut rank::Scratch::default(),
                );
                Computed {
                    answer: convert::recommendations(
                        view,
                        ranked,
                        rank.max_explanation_items,
                        rank.options.adjustments.as_ref(),
                    )
                    .encode_to_vec()
                    .into(),
                    user: rank.user().cloned(),
                    may_be_cached: true,
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn a_cached_answer_is_the_one_that_would_be_computed(
        parts in any_parts(),
        steps in prop::collection::vec(any_step(), 1..80),
        max_bytes in prop_oneof![Just(0), Just(96_000), Just(1 << 20)],
    ) {
        let mut view = view(parts);
        let [predictions, recommendations] =
            [("PredictRatings", StampedState::User), ("Recommend", StampedState::UserAndOrders)]
                .map(|(method, state)| AnswerCache::new(method, state, max_bytes));
        for step in steps {
            match step {
                Step::Change(change) => {
                    let mut overlay = Overlay::clone(&view.overlay);
                    overlay.apply(&view.snapshot, change, usize::MAX);
                    view.overlay = Arc::new(overlay);
                }
                Step::Reload => {
                    view.overlay = Arc::new(Overlay::default());
                    view.epoch += 1;
                }
                Step::Ask(message) => {
                    let computed = message.compute(&view);
                    let request = message.encoded();
                    let cache = match message {
                        Message::Predict(_) => &predictions,
                        Message::Recommend(_) => &recommendations,
                    };
                    match cache.get(&view, &request) {
                        Some(cached) => prop_assert_eq!(cached, computed.answer),
                        None if computed.may_be_cached => {
                            cache.put(&view, &request, computed.user.as_ref(), computed.answer);
                        }
                        None => {}
                    }
                }
            }
        }
    }
}

#[test]
fn the_cache_stays_within_its_bytes_and_keeps_what_is_requested_often() {
    let view = view(snapshot_parts(&EXAMPLE));
    let max_bytes = 64 * 20_000;
    let cache = AnswerCache::new("Recommend", StampedState::UserAndOrders, max_bytes);
    let bytes = || cache.entries.as_ref().unwrap().weight() as usize;
    let answer = Bytes::from(vec![7; 500]);
    cache.put(&view, b"favorite", None, answer.clone());
    for n in 0..10_000u32 {
        cache.put(&view, &n.to_be_bytes(), None, answer.clone());
        assert_eq!(cache.get(&view, b"favorite"), Some(answer.clone()), "evicted after {n}");
    }
    assert!((max_bytes / 4..=max_bytes).contains(&bytes()), "{}", bytes());
    let is_cached = |n: &u32| cache.get(&view, &n.to_be_bytes()).is_some();
    assert!((0..10_000).filter(is_cached).count() < 2_000);
    // An answer that is cached already, one that is too long for the cache, and one to a request that is too long.
    cache.put(&view, b"favorite", None, answer.clone());
    cache.put(&view, b"long", None, vec![7; max_bytes].into());
    cache.put(&view, &[7; MAX_REQUEST_BYTES + 1], None, answer);
    assert!(bytes() <= max_bytes);
    for request in [&b"long"[..], &[7; MAX_REQUEST_BYTES + 1]] {
        assert!(cache.get(&view, request).is_none());
    }
}

#[test]
fn a_new_answer_replaces_the_one_with_an_outdated_stamp() {
    let before = view(snapshot_parts(&EXAMPLE));
    let after = View {
        epoch: before.epoch + 1,
        ..before.clone()
    };
    let cache = AnswerCache::new("Recommend", StampedState::UserAndOrders, 1 << 20);
    let n_entries = || cache.entries.as_ref().unwrap().len();
    cache.put(&before, b"request", None, Bytes::from_static(b"before"));
    assert!(cache.get(&after, b"request").is_none());
    cache.put(&after, b"request", None, Bytes::from_static(b"after"));
    assert_eq!(cache.get(&after, b"request"), Some(Bytes::from_static(b"after")));
    assert!(cache.get(&before, b"request").is_none());
    assert_eq!(n_entries(), 1);
}

#[test]
fn a_cache_of_no_bytes_caches_nothing() {
    let view = view(snapshot_parts(&EXAMPLE));
    let cache = AnswerCache::new("Recommend", StampedState::UserAndOrders, 0);
    cache.put(&view, b"request", None, Bytes::from_static(b"answer"));
    assert!(cache.get(&view, b"request").is_none());
}
