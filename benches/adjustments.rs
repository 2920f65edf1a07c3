//! Times adjusted recommendations against plain ones, on synthetic ratings with the shape of MovieLens-1M. See README.md beside
//! this file.
//!
//!     cargo bench -p recommender --bench adjustments

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use domain::consent::PrivacyOptions;
use domain::time::Timestamp;
use recommender::evaluation::synthetic::{Shape, SyntheticRatings};
use recommender::ranking::adjust::Adjustments;
use recommender::ranking::rank::{RankOptions, Recipient, Scratch, recommend};
use recommender::snapshot::Snapshot;
use recommender::snapshot::catalog::{Catalog, NONE};
use recommender::snapshot::consents::ConsentRecords;
use recommender::snapshot::dictionary::{DenseIndex, Dictionary, ItemIndex, Texts, UserIndex};
use recommender::snapshot::overlay::Overlay;
use recommender::snapshot::parameters::TrainingParameters;
use recommender::snapshot::view::View;
use recommender::training::fit::{ModelOptions, fit};
use recommender::training::input::{RatingEvent, TrainingInput};
use recommender::training::matrix::effective_ratings;

/// The users whose recommendations are timed, and how often.
const USERS: u32 = 1_000;
const ROUNDS: usize = 15;
const LIMIT: usize = 20;
/// Categories and merchants of the items.
const KINDS: u32 = 40;

fn main() {
    let view = trained();
    let diverse = Adjustments {
        diversity: 0.3,
        ..Adjustments::default()
    };
    let none = Adjustments::default();
    let kinds = [
        ("plain", None),
        ("diversity", Some(diverse)),
        (
            "popularity_penalty",
            Some(Adjustments {
                popularity_penalty: 0.5,
                ..none
            }),
        ),
        (
            "calibrate",
            Some(Adjustments {
                calibration: 0.5,
                ..none
            }),
        ),
        (
            "max_per_category",
            Some(Adjustments {
                max_per_category: NonZeroU32::new(2),
                ..none
            }),
        ),
    ];
    // The kinds take turns, so that what else the machine does falls on all of them.
    let mut nanos = vec![Vec::new(); kinds.len()];
    for _ in 0..ROUNDS {
        for ((_, adjustments), nanos) in kinds.iter().zip(&mut nanos) {
            nanos.push(time(&view, *adjustments));
        }
    }
    println!(
        "top {LIMIT} of {} candidates, median of {ROUNDS} rounds of {USERS} users",
        Adjustments::pool(LIMIT)
    );
    let median = |times: &[f64]| {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let plain = nanos[0].clone();
    for ((name, _), nanos) in kinds.iter().zip(&nanos) {
        let ratios: Vec<f64> = nanos.iter().zip(&plain).map(|(nanos, plain)| nanos / plain).collect();
        println!(
            "{name:<20} {:>8.1} µs  {:>5.2} × plain",
            median(nanos) / 1_000.0,
            median(&ratios)
        );
    }
}

/// Returns the mean time of a recommendation in nanoseconds.
fn time(view: &View, adjustments: Option<Adjustments>) -> f64 {
    let options = RankOptions {
        limit: LIMIT,
        exclude_history: true,
        adjustments,
        ..RankOptions::default()
    };
    let mut scratch = Scratch::default();
    let began = Instant::now();
    let mut shown = 0;
    for user in 0..USERS {
        shown += recommend(view, &Recipient::UserIndex(UserIndex(user)), &options, &mut scratch)
            .items
            .len();
    }
    assert_eq!(shown, USERS as usize * LIMIT);
    began.elapsed().as_nanos() as f64 / f64::from(USERS)
}

fn trained() -> View {
    let ratings = SyntheticRatings::new(Shape::movielens_1m(), 1);
    let (n_users, n_items) = (ratings.n_users(), ratings.n_items());
    let at = Timestamp::UNIX_EPOCH;
    let event = |user: u32| {
        move |(item, value): (u32, f32)| RatingEvent {
            user: UserIndex(user),
            item: ItemIndex(item),
            value,
            rated_at: at,
        }
    };
    let input = TrainingInput {
        users: ids(n_users),
        items: ids(n_items),
        catalog: catalog(n_items),
        ratings: (0..)
            .zip(ratings.users())
            .flat_map(|(user, rated)| rated.into_iter().map(event(user)))
            .collect(),
        orders: Vec::new(),
        coupon_uses: Vec::new(),
        returns: Vec::new(),
        consents: ConsentRecords::default(),
        campaigns: Vec::new(),
        as_of: at,
    };
    let parameters = TrainingParameters::default();
    let effective = effective_ratings(&input, &parameters, |_, _, _| true).expect("the ratings are finite");
    let options = ModelOptions::plain(&parameters);
    let parts = fit(&input, effective, &options, &|_| {}).expect("the ratings can be fitted");
    View {
        version: 1,
        redaction: 0,
        snapshot: Arc::new(Snapshot::new(parts).expect("a fitted model is consistent")),
        overlay: Arc::new(Overlay::default()),
        epoch: 0,
        privacy: PrivacyOptions::default(),
    }
}

fn ids<I: DenseIndex>(n: usize) -> Dictionary<I> {
    let ids: Texts = (0..n).map(|index| format!("{index:06}")).collect();
    Dictionary::new(ids).expect("padded numbers ascend")
}

fn catalog(n: usize) -> Catalog {
    let kinds = || (0..KINDS).map(|kind| format!("{kind:02}")).collect::<Texts>();
    let kind_of = || {
        (0..n as u32)
            .map(|item| item.wrapping_mul(2_654_435_761) >> 16)
            .map(|mixed| mixed % KINDS)
    };
    Catalog {
        titles: (0..n).map(|_| "").collect(),
        categories: kinds(),
        merchants: kinds(),
        category_of: kind_of().collect(),
        merchant_of: kind_of().collect(),
        price_minor: vec![0; n],
        currency_of: vec![NONE; n],
        currencies: Vec::new(),
        listed: (0..n).map(|_| true).collect(),
    }
}
