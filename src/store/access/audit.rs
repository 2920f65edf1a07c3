//! Records who did what, in rows that are never changed. Each row is written in the transaction of its action.

use crate::store::error::StoreError;
use crate::store::postgres::pool::Connection;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Action {
    KeyCreated,
    KeyRevoked,
    SnapshotActivated,
    /// Activated against the verdict of the gate.
    SnapshotForced,
    SnapshotRolledBack,
    /// Its bytes could not be read any more, so that erased users could not be removed from them.
    SnapshotDiscarded,
    /// A campaign's rules see the history of all merchants from now on.
    PlatformHistoryGranted,
    PlatformHistoryWithdrawn,
    /// Written before the first row of a list of targets leaves, with the most rows that may.
    TargetsOpened,
    /// Written at the end of the list, with the rows that did.
    TargetsListed,
    /// Written before the first row leaves.
    AudienceOpened,
    AudienceListed,
    AttributesSet,
    AttributesDeleted,
    UsersAssigned,
    UsersUnassigned,
    UsersSuppressed,
    SuppressionsLifted,
    SensitiveAttributeAllowed,
    /// Written when an erasure is recorded; the function that erases rows writes USERS_ERASED.
    ErasureRequested,
    ImportStarted,
    /// Written with the lines that were stored.
    ImportEnded,
    ImportUndone,
    /// Written before the first part of a user's data leaves.
    UserExportOpened,
    /// Written at its end, with the records that have left.
    UserExported,
    UserRectified,
    ErasuresVerified,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::KeyCreated => "KEY_CREATED",
            Self::KeyRevoked => "KEY_REVOKED",
            Self::SnapshotActivated => "SNAPSHOT_ACTIVATED",
            Self::SnapshotForced => "SNAPSHOT_FORCED",
            Self::SnapshotRolledBack => "SNAPSHOT_ROLLED_BACK",
            Self::SnapshotDiscarded => "SNAPSHOT_DISCARDED",
            Self::PlatformHistoryGranted => "PLATFORM_HISTORY_GRANTED",
            Self::PlatformHistoryWithdrawn => "PLATFORM_HISTORY_WITHDRAWN",
            Self::TargetsOpened => "TARGETS_OPENED",
            Self::TargetsListed => "TARGETS_LISTED",
            Self::AudienceOpened => "AUDIENCE_OPENED",
            Self::AudienceListed => "AUDIENCE_LISTED",
            Self::AttributesSet => "ATTRIBUTES_SET",
            Self::AttributesDeleted => "ATTRIBUTES_DELETED",
            Self::UsersAssigned => "USERS_ASSIGNED",
            Self::UsersUnassigned => "USERS_UNASSIGNED",
            Self::UsersSuppressed => "USERS_SUPPRESSED",
            Self::SuppressionsLifted => "SUPPRESSIONS_LIFTED",
            Self::SensitiveAttributeAllowed => "SENSITIVE_ATTRIBUTE_ALLOWED",
            Self::ErasureRequested => "ERASURE_REQUESTED",
            Self::ImportStarted => "IMPORT_STARTED",
            Self::ImportEnded => "IMPORT_ENDED",
            Self::ImportUndone => "IMPORT_UNDONE",
            Self::UserExportOpened => "USER_EXPORT_OPENED",
            Self::UserExported => "USER_EXPORTED",
            Self::UserRectified => "USER_RECTIFIED",
            Self::ErasuresVerified => "ERASURES_VERIFIED",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(in crate::store) struct Entry<'a> {
    /// `key:<id>` for an RPC, the process for a command.
    pub actor: &'a str,
    pub action: Action,
    /// The thing that the action changed or read.
    pub subject: &'a str,
    pub note: &'a str,
    pub row_count: i64,
    pub snapshot_version: Option<i64>,
}

/// Returns the subject of an entry about one user. It names the user by their number, because the audit is never changed and
/// must not keep the external id of a user who was erased.
pub(in crate::store) fn user_subject(user_id: i64) -> String {
    format!("user {user_id}")
}

pub(in crate::store) async fn record(connection: &mut Connection, entry: Entry<'_>) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO audit (actor, action, subject, note, row_count, snapshot_version) VALUES ($1, $2, $3, $4, $5, $6)",
        entry.actor,
        entry.action.as_str(),
        entry.subject,
        entry.note,
        entry.row_count,
        entry.snapshot_version,
    )
    .execute(connection)
    .await?;
    Ok(())
}
