//! Converts the messages of RecommendationService.

mod adjustments;
mod filter;
mod options;
mod recipient;

use std::collections::HashSet;

use tonic::Status;
use xxhash_rust::xxh3::xxh3_64;

use domain::access::Caller;
use domain::consent::Consents;
use domain::error::InvalidField;
use domain::id::{ItemId, UserId};
use domain::rating::RatingScale;
use recommender::prediction::{self, Fallback, PredictOptions, Prediction, Predictor, RatingExplanation};
use recommender::ranking::adjust::Adjustments;
use recommender::ranking::audience::AudienceOptions;
use recommender::ranking::explain::{ItemContribution, OwnHabit, PopularLately, SimilarUsers};
use recommender::ranking::filter::ItemFilter;
use recommender::ranking::rank::{Personalization, RankOptions, Recipient, Recommendations, ScoreExplanation};
use recommender::ranking::similar::SimilarItem;
use recommender::snapshot::dictionary::{ItemIndex, UserIndex};
use recommender::snapshot::overlay::ItemRef;
use recommender::snapshot::view::View;

use crate::admission;
use crate::grpc::proto::v1;
use crate::grpc::status::{Violations, not_found};

use self::recipient::{RequestedRecipient, recipient};

/// Most items that PredictRatings takes.
const MAX_PREDICTIONS: usize = 1_000;
const DEFAULT_LIMIT: usize = 10;
const MAX_LIMIT: i32 = 1_000;
const DEFAULT_EXPLANATION_ITEMS: usize = 10;
const MAX_EXPLANATION_ITEMS: i32 = 1_000;

pub struct PredictRequest {
    pub user: UserId,
    /// Valid and distinct ids, as texts because the answer returns them.
    pub items: Vec<String>,
    pub options: PredictOptions,
    pub max_explanation_items: usize,
}

impl TryFrom<v1::PredictRatingsRequest> for PredictRequest {
    type Error = Status;

    fn try_from(request: v1::PredictRatingsRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let user = violations.check(UserId::asked(request.user_id));
        if request.item_ids.len() <= MAX_PREDICTIONS {
            check_distinct(&mut violations, "item_ids", &request.item_ids);
        }
        check_item_ids(&mut violations, "item_ids", &request.item_ids, 1, MAX_PREDICTIONS);
        let estimator = violations.check(options::estimator(request.estimator));
        let basis = violations.check(options::basis(request.basis));
        let max_explanation_items = violations.check(max_explanation_items(request.max_explanation_items));
        let fields = user.zip(estimator).zip(basis).zip(max_explanation_items);
        let request = fields.map(|(((user, estimator), basis), max_explanation_items)| Self {
            user,
            items: request.item_ids,
            options: PredictOptions {
                estimator,
                basis: basis.unwrap_or_default(),
                explain: request.explain,
                ..PredictOptions::default()
            },
            max_explanation_items,
        });
        violations.finish(request)
    }
}

fn check_distinct(violations: &mut Violations, field: &str, ids: &[String]) {
    // Equal ids have equal hashes, and nearly always all hashes differ.
    let mut hashes: Vec<u64> = ids.iter().map(|id| xxh3_64(id.as_bytes())).collect();
    hashes.sort_unstable();
    if hashes.is_sorted_by(|a, b| a < b) {
        return;
    }
    let mut seen = HashSet::with_capacity(ids.len());
    for (position, id) in ids.iter().enumerate() {
        // An invalid id is reported as invalid each time, not as repeated.
        if !seen.insert(id) && ItemId::new(id).is_ok() {
            let message = format!("must not name an item twice, {id} is repeated");
            violations.add(InvalidField::new(
                format!("{field}[{position}]"),
                "REPEATED_ITEM",
                message,
            ));
        }
    }
}

/// Adds what is wrong with `ids` to `violations`.
fn check_item_ids(violations: &mut Violations, field: &str, ids: &[String], min: usize, max: usize) {
    if ids.len() < min || ids.len() > max {
        let message = format!("must have {min} to {max} entries, has {}", ids.len());
        violations.add(InvalidField::new(field, "BATCH_SIZE_OUT_OF_RANGE", message));
        return;
    }
    for (position, id) in ids.iter().enumerate() {
        if let Err(error) = ItemId::check(id) {
            violations.add(InvalidField {
                field: format!("{field}[{position}]"),
                ..error
            });
        }
    }
}

/// Returns the valid ones of `ids` and adds what is wrong to `violations`.
fn item_ids(violations: &mut Violations, field: &str, ids: Vec<String>, min: usize, max: usize) -> Vec<ItemId> {
    if ids.len() < min || ids.len() > max {
        let message = format!("must have {min} to {max} entries, has {}", ids.len());
        violations.add(InvalidField::new(field, "BATCH_SIZE_OUT_OF_RANGE", message));
        return Vec::new();
    }
    let item = |(position, id): (usize, String)| {
        let item = ItemId::new(id).map_err(|error| InvalidField {
            field: format!("{field}[{position}]"),
            ..error
        });
        violations.check(item)
    };
    ids.into_iter().enumerate().filter_map(item).collect()
}

fn limit(requested: i32) -> Result<usize, InvalidField> {
    match requested {
        0 => Ok(DEFAULT_LIMIT),
        1..=MAX_LIMIT => Ok(requested as usize),
        _ => Err(InvalidField::new(
            "limit",
            "LIMIT_OUT_OF_RANGE",
            format!("must lie between 1 and {MAX_LIMIT} (0 means {DEFAULT_LIMIT}), is {requested}"),
        )),
    }
}

fn max_explanation_items(requested: i32) -> Result<usize, InvalidField> {
    match requested {
        0 => Ok(DEFAULT_EXPLANATION_ITEMS),
        1..=MAX_EXPLANATION_ITEMS => Ok(requested as usize),
        _ => Err(InvalidField::new(
            "max_explanation_items",
            "LIMIT_OUT_OF_RANGE",
            format!(
                "must lie between 1 and {MAX_EXPLANATION_ITEMS} (0 means {DEFAULT_EXPLANATION_ITEMS}), is {requested}"
            ),
        )),
    }
}

pub struct RankRequest {
    recipient: RequestedRecipient,
    pub options: RankOptions,
    pub max_explanation_items: usize,
}

impl RankRequest {
    pub fn new(request: v1::RecommendRequest, scale: &RatingScale) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let adjustments = adjustments::adjustments(&mut violations, &request);
        let recipient = recipient(&mut violations, request.subject, scale);
        let limit = violations.check(limit(request.limit));
        let basis = violations.check(options::basis(request.basis));
        let filter = filter::item_filter(&mut violations, request.filter);
        let max_explanation_items = violations.check(max_explanation_items(request.max_explanation_items));
        let fields = recipient.zip(limit).zip(basis).zip(max_explanation_items);
        let request = fields.map(|(((recipient, limit), basis), max_explanation_items)| Self {
            recipient,
            max_explanation_items,
            options: RankOptions {
                limit,
                basis,
                filter,
                exclude_purchased: request.exclude_purchased,
                exclude_history: request.exclude_history,
                explain: request.explain,
                adjustments,
            },
        });
        violations.finish(request)
    }

    /// Returns the user whom the answer is about; `None` for an anonymous session.
    pub fn user(&self) -> Option<&UserId> {
        match &self.recipient {
            RequestedRecipient::User(user) => Some(user),
            RequestedRecipient::Session(_) => None,
        }
    }

    /// Returns the number of items in the session; 0 for a user.
    pub fn n_session_items(&self) -> usize {
        match &self.recipient {
            RequestedRecipient::User(_) => 0,
            RequestedRecipient::Session(items) => items.len(),
        }
    }

    /// Resolves the recipient in `view`.
    pub fn recipient(&self, view: &View) -> Recipient<'_> {
        self.recipient.resolve(view)
    }
}

pub struct SimilarRequest {
    pub item: ItemId,
    pub limit: usize,
    pub filter: ItemFilter,
}

impl SimilarRequest {
    /// Filters out items that `caller` may not see.
    pub fn new(request: v1::ListSimilarItemsRequest, caller: &Caller) -> Result<Self, Status> {
        let merchants = request.filter.iter().flat_map(|filter| &filter.merchant_ids);
        admission::check_merchants(caller, "filter.merchant_ids", merchants.map(String::as_str))?;
        let mut violations = Violations::default();
        let item = violations.check(ItemId::new(request.item_id));
        let limit = violations.check(limit(request.limit));
        let filter = filter::item_filter(&mut violations, request.filter);
        let filter = ItemFilter {
            merchants: match &caller.merchant {
                Some(own) => vec![own.clone()],
                None => filter.merchants,
            },
            ..filter
        };
        let request = item.zip(limit).map(|(item, limit)| Self { item, limit, filter });
        violations.finish(request)
    }
}

pub struct SimilarUsersRequest {
    pub user: UserId,
    pub limit: usize,
}

impl TryFrom<v1::ListSimilarUsersRequest> for SimilarUsersRequest {
    type Error = Status;

    fn try_from(request: v1::ListSimilarUsersRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let user = violations.check(UserId::asked(request.user_id));
        let limit = violations.check(limit(request.limit));
        violations.finish(user.zip(limit).map(|(user, limit)| Self { user, limit }))
    }
}

pub struct AudienceRequest {
    pub item: ItemId,
    pub options: AudienceOptions,
}

impl TryFrom<v1::ListItemAudienceRequest> for AudienceRequest {
    type Error = Status;

    fn try_from(request: v1::ListItemAudienceRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let item = violations.check(ItemId::new(request.item_id));
        let limit = violations.check(limit(request.limit));
        let request = item.zip(limit).map(|(item, limit)| Self {
            item,
            options: AudienceOptions {
                limit,
                exclude_purchased: request.exclude_purchased,
            },
        });
        violations.finish(request)
    }
}

/// Returns the index of `user`; `None` for one that is newer than the snapshot.
///
/// # Errors
/// NOT_FOUND for an unknown user.
pub fn existing_user(view: &View, user: &UserId) -> Result<Option<UserIndex>, Status> {
    match view.user(user) {
        Some(index) => Ok(Some(index)),
        None if !view.overlay.interactions(user).is_empty() => Ok(None),
        // A user who objects to training is known by their consents alone.
        None if view.consents(user) != Consents::default() => Ok(None),
        None => Err(not_found("USER_NOT_FOUND", format!("there is no user {user}"))),
    }
}

pub fn users(view: &View, users: Vec<(UserIndex, f64)>) -> v1::ListSimilarUsersResponse {
    let user = |((user, score), rank): ((UserIndex, f64), u32)| v1::SimilarUser {
        rank,
        user_id: view.snapshot.users().id(user).to_owned(),
        score,
    };
    v1::ListSimilarUsersResponse {
        snapshot_version: view.version,
        users: users.into_iter().zip(1..).map(user).collect(),
    }
}

pub fn audience(view: &View, users: Vec<(&str, f64)>) -> v1::ListItemAudienceResponse {
    let member = |((user, score), rank): ((&str, f64), u32)| v1::AudienceMember {
        rank,
        user_id: user.to_owned(),
        score,
    };
    v1::ListItemAudienceResponse {
        snapshot_version: view.version,
        users: users.into_iter().zip(1..).map(member).collect(),
    }
}

/// Returns the index of `item`; `None` for one that is newer than the snapshot.
///
/// # Errors
/// NOT_FOUND for an unknown item, and for one that `caller` may not see.
pub fn existing_item(view: &View, item: &ItemId, caller: &Caller) -> Result<Option<ItemIndex>, Status> {
    let found = view.item(item);
    let owner = match &found {
        Some(ItemRef::Known(index)) => view.facts(*index).merchant,
        Some(ItemRef::New(id)) => view.overlay.new_item(id).and_then(|facts| facts.merchant),
        None => None,
    };
    match found.filter(|_| caller.sees(owner)) {
        Some(ItemRef::Known(index)) => Ok(Some(index)),
        Some(ItemRef::New(_)) => Ok(None),
        None => Err(not_found("ITEM_NOT_FOUND", format!("there is no item {item}"))),
    }
}

/// Predicts the ratings of all items of `predict`.
pub fn predictions(
    view: &View,
    predict: PredictRequest,
    scratch: &mut prediction::Scratch,
) -> v1::PredictRatingsResponse {
    let predictor = Predictor::new(view, &predict.user);
    let known: Vec<_> = predict
        .items
        .iter()
        .map(|item| view.snapshot.items().find(item))
        .collect();
    let predictions = predictor.predict_all(&known, &predict.options, scratch);
    let found = known.into_iter().zip(predictions);
    let prediction = |(item, (known, found)): (String, (Option<ItemIndex>, Prediction))| match known.is_some()
        || view.overlay.has_new_item(&item)
    {
        true => prediction(view, item, found, predict.max_explanation_items),
        false => unknown_item(item),
    };
    v1::PredictRatingsResponse {
        snapshot_version: view.version,
        predictions: predict.items.into_iter().zip(found).map(prediction).collect(),
    }
}

/// Whether every item has a rating, that is, none of them is unknown.
pub fn are_all_rated(answer: &v1::PredictRatingsResponse) -> bool {
    let is_rated = |prediction: &v1::Prediction| matches!(prediction.result, Some(v1::prediction::Result::Rating(_)));
    answer.predictions.iter().all(is_rated)
}

fn unknown_item(item_id: String) -> v1::Prediction {
    let error = InvalidField::new("item_ids", "ITEM_NOT_FOUND", format!("there is no item {item_id}"));
    v1::Prediction {
        item_id,
        result: Some(v1::prediction::Result::Error(error.into())),
    }
}

fn prediction(view: &View, item_id: String, prediction: Prediction, max_explanation_items: usize) -> v1::Prediction {
    let rating = v1::PredictedRating {
        value: prediction.value,
        support: prediction.support,
        clamped: prediction.clamped,
        fallback: match prediction.fallback {
            Fallback::None => v1::Fallback::None,
            Fallback::BaselineOnly => v1::Fallback::BaselineOnly,
            Fallback::ItemMean => v1::Fallback::ItemMean,
            Fallback::UserMean => v1::Fallback::UserMean,
            Fallback::GlobalMean => v1::Fallback::GlobalMean,
        }
        .into(),
        explanation: prediction
            .explanation
            .map(|explanation| rating_explanation(view, explanation, max_explanation_items)),
    };
    v1::Prediction {
        item_id,
        result: Some(v1::prediction::Result::Rating(rating)),
    }
}

fn rating_explanation(view: &View, explanation: RatingExplanation, max_items: usize) -> v1::RatingExplanation {
    let named = NamedItems::new(view, &explanation.items, max_items);
    v1::RatingExplanation {
        global_mean: explanation.global_mean,
        user_bias: explanation.user_bias,
        item_bias: explanation.item_bias,
        items: named.items,
        similar_users: explanation.similar_users.map(similar_users),
        clamping: explanation.clamping,
        other_items_contribution: named.other_items_contribution,
        other_items: named.other_items,
    }
}

/// The items that an explanation names, and the sum of the others.
struct NamedItems {
    items: Vec<v1::ItemContribution>,
    other_items_contribution: f64,
    other_items: u32,
}

impl NamedItems {
    /// Names the first `max_items` of `items`, which are ordered by absolute contribution, the largest first.
    fn new(view: &View, items: &[ItemContribution], max_items: usize) -> Self {
        let (named, others) = items.split_at(max_items.min(items.len()));
        Self {
            items: named.iter().map(|item| contribution(view, item)).collect(),
            // The `sum` of none would be -0.
            other_items_contribution: others.iter().fold(0.0, |sum, item| sum + item.contribution),
            other_items: others.len() as u32,
        }
    }
}

fn contribution(view: &View, contribution: &ItemContribution) -> v1::ItemContribution {
    v1::ItemContribution {
        item_id: view.item_id(contribution.item).to_owned(),
        title: view.facts(contribution.item).title.to_owned(),
        similarity: contribution.similarity,
        rating: contribution.rating,
        contribution: contribution.contribution,
    }
}

fn similar_users(similar: SimilarUsers) -> v1::SimilarUsersContribution {
    v1::SimilarUsersContribution {
        users: similar.users,
        contribution: similar.contribution,
    }
}

fn popular_lately(term: PopularLately) -> v1::PopularLatelyContribution {
    v1::PopularLatelyContribution {
        factor: term.factor,
        contribution: term.contribution,
    }
}

fn own_habit(term: OwnHabit) -> v1::OwnHabitContribution {
    v1::OwnHabitContribution {
        orders: term.orders,
        contribution: term.contribution,
    }
}

/// `max_explanation_items`: the most items that one explanation names. `adjustments`: those of the request.
pub fn recommendations(
    view: &View,
    recommendations: Recommendations,
    max_explanation_items: usize,
    adjustments: Option<&Adjustments>,
) -> v1::RecommendResponse {
    let score_explanation = |explanation: ScoreExplanation| {
        let named = NamedItems::new(view, &explanation.items, max_explanation_items);
        v1::ScoreExplanation {
            items: named.items,
            similar_users: explanation.similar_users.map(similar_users),
            other_items_contribution: named.other_items_contribution,
            other_items: named.other_items,
            popular_lately: explanation.popular_lately.map(popular_lately),
            own_habit: explanation.own_habit.map(own_habit),
            adjustments: adjustments::explained(adjustments, explanation.adjustments),
        }
    };
    let items = recommendations
        .items
        .into_iter()
        .zip(1..)
        .map(|(item, rank)| v1::RecommendedItem {
            rank,
            item_id: view.item_id(item.item).to_owned(),
            title: view.facts(item.item).title.to_owned(),
            score: item.score,
            explanation: item.explanation.map(score_explanation),
        });
    v1::RecommendResponse {
        snapshot_version: view.version,
        items: items.collect(),
        personalization: match recommendations.personalization {
            Personalization::Personalized => v1::Personalization::Personalized,
            Personalization::Popularity => v1::Personalization::Popularity,
        }
        .into(),
    }
}

pub fn similar(view: &View, items: Vec<SimilarItem>) -> v1::ListSimilarItemsResponse {
    let items = items.into_iter().zip(1..).map(|(similar, rank)| v1::SimilarItem {
        rank,
        item_id: view.item_id(similar.item).to_owned(),
        title: view.facts(similar.item).title.to_owned(),
        score: similar.similarity,
        co_raters: similar.co_raters,
    });
    v1::ListSimilarItemsResponse {
        snapshot_version: view.version,
        items: items.collect(),
    }
}
