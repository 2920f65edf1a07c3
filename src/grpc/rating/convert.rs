//! Converts the messages of RatingService.

use tonic::Status;

use domain::error::InvalidField;
use domain::id::{ItemId, UserId};
use domain::rating::{Rating, RatingScale};
use domain::time::{EventTime, Timestamp};

use crate::grpc::convert::{event_time, required, timestamp};
use crate::grpc::page;
use crate::grpc::proto::v1;
use crate::grpc::status::Violations;

/// # Errors
/// The first bad field.
pub fn rating(rating: v1::Rating, scale: &RatingScale, now: Timestamp) -> Result<Rating, InvalidField> {
    Ok(Rating {
        user: UserId::new(rating.user_id)?,
        item: ItemId::new(rating.item_id)?,
        value: scale.check("value", rating.value)?,
        rated_at: event_time("rated_at", rating.rated_at, now)?.at(),
    })
}

impl From<Rating> for v1::Rating {
    fn from(rating: Rating) -> Self {
        Self {
            user_id: rating.user.to_string(),
            item_id: rating.item.to_string(),
            value: rating.value,
            rated_at: Some(timestamp(rating.rated_at)),
        }
    }
}

/// The user or the item whose ratings are listed.
pub enum Owner {
    User(UserId),
    Item(ItemId),
}

impl Owner {
    /// Returns what a page token is bound to.
    pub fn key(&self) -> (&'static str, &'static str, &str) {
        let (field, id) = match self {
            Self::User(user) => (UserId::FIELD, user.as_str()),
            Self::Item(item) => (ItemId::FIELD, item.as_str()),
        };
        ("ListRatings", field, id)
    }

    /// Whether a row can have `id`: the rows of a user are ordered by item, those of an item by user.
    fn has_rows_of(&self, id: &str) -> bool {
        match self {
            Self::User(_) => ItemId::new(id).is_ok(),
            Self::Item(_) => UserId::stored(id).is_ok(),
        }
    }
}

pub struct ListRatings {
    pub owner: Owner,
    pub after: String,
    pub page_size: i64,
}

impl TryFrom<v1::ListRatingsRequest> for ListRatings {
    type Error = Status;

    fn try_from(request: v1::ListRatingsRequest) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let owner = violations.check(required("of", request.of).and_then(|of| match of {
            v1::list_ratings_request::Of::UserId(id) => UserId::asked(id).map(Owner::User),
            v1::list_ratings_request::Of::ItemId(id) => ItemId::new(id).map(Owner::Item),
        }));
        let page_size = violations.check(page::page_size(request.page_size));
        let after = owner.as_ref().and_then(|owner| {
            let is_possible = |id: &String| owner.has_rows_of(id);
            violations.check(page::cursor(&owner.key(), &request.page_token, is_possible))
        });
        let list = owner.zip(page_size).zip(after).map(|((owner, page_size), after)| Self {
            owner,
            after: after.unwrap_or_default(),
            page_size,
        });
        violations.finish(list)
    }
}

pub struct Deletion {
    pub user: UserId,
    pub item: ItemId,
    pub deleted_at: Timestamp,
}

impl Deletion {
    pub fn new(request: v1::DeleteRatingRequest, now: Timestamp) -> Result<Self, Status> {
        let mut violations = Violations::default();
        let user = violations.check(UserId::new(request.user_id));
        let item = violations.check(ItemId::new(request.item_id));
        let deleted_at = violations.check(event_time("deleted_at", request.deleted_at, now).map(EventTime::at));
        let deletion = user
            .zip(item)
            .zip(deleted_at)
            .map(|((user, item), deleted_at)| Self { user, item, deleted_at });
        violations.finish(deletion)
    }
}
