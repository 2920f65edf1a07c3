//! The part `users`: texts: the ids of all users, strictly ascending byte by byte. The position of an id is the user's
//! index.

use super::{Part, Reader, Redact, SnapshotParts, UserIds, Writer};
use crate::snapshot::codec::CodecError;
use crate::snapshot::dictionary::{Dictionary, UserIndex};

pub(in crate::snapshot) struct UsersPart;

impl Part for UsersPart {
    const NAME: &'static str = "users";

    type Contents = Dictionary<UserIndex>;

    const REDACT: Option<Redact<Self::Contents>> = Some(|users, erased| {
        let Some(blanked) = Dictionary::new(erased.blank(users.texts())) else {
            unreachable!("blank ids stand between their neighbors");
        };
        *users = blanked;
    });
    const USER_IDS: Option<UserIds<Self::Contents>> = Some(|users| users.texts());

    fn encode(parts: &SnapshotParts, to: &mut Writer) {
        to.texts(parts.users.texts());
    }

    fn decode(_version: u16, from: &mut Reader<'_>) -> Result<Self::Contents, CodecError> {
        from.dictionary("ids")
    }
}
