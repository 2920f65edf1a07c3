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
    /// The same snapshot once more, without what has changed since.
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
    let ask = (subject, 1i32..4, any::<bool>(), any::<bool>());
    let ask = ask.prop_map(|(subject, limit, explain, exclude_history)| v1::RecommendRequest {
        subject: Some(subject),
        limit,
        explain,
        exclude_history,
        ..v1::RecommendRequest::default()
    });
    let items = prop::collection::btree_set((0usize..9).prop_map(|item| format!("i{item}")), 1..4);
    let predict = (user(), items, 0i32..3, 0i32..4, any::<bool>());
    let predict = predict.prop_map(
        |(user_id, items, estimator, basis, explain)| v1::PredictRatingsRequest {
            user_id,
            item_ids: items.into_iter().collect(),
            estimator,
            basis,
            explain,
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
    may_be_remembered: bool,
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
                    may_be_remembered: convert::are_all_rated(&answer),
                }
            }
            Self::Recommend(message) => {
                let rank = RankRequest::new(message, &RatingScale::default()).unwrap();
                let ranked = rank::recommend(view, &rank.recipient(view), &rank.options, &mut rank::Scratch::default());
                Computed {
                    answer: convert::recommendations(view, ranked).encode_to_vec().into(),
                    user: rank.user().cloned(),
                    may_be_remembered: true,
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn what_is_remembered_is_what_would_be_computed(
        parts in any_parts(),
        steps in prop::collection::vec(any_step(), 1..80),
        max_bytes in prop_oneof![Just(0), Just(SHARDS * 1_500), Just(1 << 20)],
    ) {
        let mut view = view(parts);
        let [predictions, recommendations] = ["PredictRatings", "Recommend"].map(|method| Answers::new(method, max_bytes));
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
                    let answers = match message {
                        Message::Predict(_) => &predictions,
                        Message::Recommend(_) => &recommendations,
                    };
                    match answers.get(&view, &request) {
                        Some(remembered) => prop_assert_eq!(remembered, computed.answer),
                        None if computed.may_be_remembered => {
                            answers.put(&view, &request, computed.user.as_ref(), computed.answer);
                        }
                        None => {}
                    }
                }
            }
        }
    }
}

fn bytes_of(answers: &Answers) -> usize {
    let of_shard = |shard: &Mutex<Shard>| -> usize {
        let shard = shard.lock().unwrap();
        let bytes = |generation: &HashTable<Entry>| generation.iter().map(Entry::bytes).sum::<usize>();
        assert_eq!(bytes(&shard.young), shard.young_bytes);
        bytes(&shard.young) + bytes(&shard.old)
    };
    answers.shards.iter().map(of_shard).sum()
}

#[test]
fn no_more_is_remembered_than_there_is_room_for_and_what_is_asked_for_stays() {
    let view = view(snapshot_parts(&EXAMPLE));
    let max_bytes = SHARDS * 20_000;
    let answers = Answers::new("Recommend", max_bytes);
    let answer = Bytes::from(vec![7; 500]);
    answers.put(&view, b"favorite", None, answer.clone());
    for n in 0..10_000u32 {
        answers.put(&view, &n.to_be_bytes(), None, answer.clone());
        assert_eq!(
            answers.get(&view, b"favorite"),
            Some(answer.clone()),
            "forgotten after {n}"
        );
    }
    let bytes = bytes_of(&answers);
    assert!((max_bytes / 4..=max_bytes).contains(&bytes), "{bytes}");
    assert!(answers.get(&view, &0u32.to_be_bytes()).is_none());
    // Again, and what is too long for any room.
    answers.put(&view, b"favorite", None, answer.clone());
    answers.put(&view, b"long", None, vec![7; 20_000].into());
    answers.put(&view, &[7; MAX_REQUEST_BYTES + 1], None, answer);
    assert!(bytes_of(&answers) <= max_bytes);
    for request in [&b"long"[..], &[7; MAX_REQUEST_BYTES + 1]] {
        assert!(answers.get(&view, request).is_none());
    }
}
