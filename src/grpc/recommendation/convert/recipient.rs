//! Converts the recipient of a recommendation: a user or an anonymous session.

use domain::error::InvalidField;
use domain::id::{ItemId, UserId};
use domain::rating::RatingScale;
use recommender::ranking::rank::Recipient;
use recommender::snapshot::view::{History, HistoryEntry, View};

use crate::grpc::convert::required;
use crate::grpc::proto::v1;
use crate::grpc::status::Violations;

/// Most items that a session may have.
const MAX_SESSION_ITEMS: usize = 1_000;

/// The recipient before it is looked up in a snapshot.
pub enum RequestedRecipient {
    User(UserId),
    Session(Vec<(ItemId, f32)>),
}

/// Adds what is wrong to `violations`.
pub fn recipient(
    violations: &mut Violations,
    subject: Option<v1::recommend_request::Subject>,
    scale: &RatingScale,
) -> Option<RequestedRecipient> {
    match violations.check(required("subject", subject))? {
        v1::recommend_request::Subject::UserId(id) => violations.check(UserId::asked(id)).map(RequestedRecipient::User),
        v1::recommend_request::Subject::Session(session) => {
            if session.items.is_empty() || session.items.len() > MAX_SESSION_ITEMS {
                let message = format!(
                    "must have 1 to {MAX_SESSION_ITEMS} entries, has {}",
                    session.items.len()
                );
                violations.add(InvalidField::new("session.items", "BATCH_SIZE_OUT_OF_RANGE", message));
                return None;
            }
            let item = |(position, item): (usize, v1::SessionItem)| {
                let within = |error: InvalidField| error.within(format!("session.items[{position}]"));
                let rating = item
                    .rating
                    .map_or(Ok(scale.max), |rating| scale.check("rating", rating));
                let id = violations.check(ItemId::new(item.item_id).map_err(within));
                id.zip(violations.check(rating.map_err(within)))
            };
            Some(RequestedRecipient::Session(
                session.items.into_iter().enumerate().filter_map(item).collect(),
            ))
        }
    }
}

impl RequestedRecipient {
    /// Resolves the recipient in `view`; session items that are not in the snapshot are ignored.
    pub fn resolve(&self, view: &View) -> Recipient<'_> {
        match self {
            Self::User(user) => Recipient::User(user),
            Self::Session(items) => {
                let entry = |(item, rating): &(ItemId, f32)| {
                    Some(HistoryEntry {
                        item: view.snapshot.items().find(item.as_str())?,
                        rating: *rating,
                        purchased: false,
                        orders: 0,
                    })
                };
                Recipient::Session(History::new(items.iter().filter_map(entry).collect()))
            }
        }
    }
}
