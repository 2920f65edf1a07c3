//! Batches and streams of entries: each entry is answered for itself.

use tonic::{Request, Status, Streaming};

use crate::store::error::StoreError;
use crate::store::outcome::WriteOutcome;
use domain::error::InvalidField;

use super::access;
use super::proto::v1;
use super::status::invalid_argument;

/// Most entries of one message.
pub const MAX_BATCH: usize = 1_000;
/// Most rejected entries that a stream's summary names.
const MAX_STREAM_ERRORS: usize = 100;

impl From<InvalidField> for v1::EntryError {
    fn from(error: InvalidField) -> Self {
        Self {
            reason: error.reason.to_owned(),
            field: error.field,
            message: error.message,
        }
    }
}

/// # Errors
/// INVALID_ARGUMENT naming `field` unless there are 1 to [`MAX_BATCH`] entries.
pub fn check_size(field: &str, entries: usize) -> Result<(), Status> {
    let message = match entries {
        1..=MAX_BATCH => return Ok(()),
        0 => format!("must have 1 to {MAX_BATCH} entries, is empty"),
        _ => format!("must have 1 to {MAX_BATCH} entries, has {entries}"),
    };
    Err(invalid_argument(vec![InvalidField::new(
        field,
        "BATCH_SIZE_OUT_OF_RANGE",
        message,
    )]))
}

/// Writes the valid entries and answers every one, in the order of the request.
pub async fn write<M, T, W>(
    entries: Vec<M>,
    convert: impl Fn(M) -> Result<T, InvalidField>,
    write: W,
) -> Result<Vec<v1::EntryResult>, Status>
where
    W: AsyncFnOnce(&[T]) -> Result<Vec<WriteOutcome>, StoreError>,
{
    let mut valid = Vec::with_capacity(entries.len());
    let mut errors = Vec::with_capacity(entries.len());
    for entry in entries {
        match convert(entry) {
            Ok(entry) => {
                valid.push(entry);
                errors.push(None);
            }
            Err(error) => errors.push(Some(error)),
        }
    }
    let outcomes = if valid.is_empty() {
        Vec::new()
    } else {
        write(&valid).await?
    };
    let mut outcomes = outcomes.into_iter();
    let result = |error: Option<InvalidField>| match error {
        Some(error) => v1::EntryResult {
            outcome: v1::EntryOutcome::Rejected.into(),
            error: Some(error.into()),
        },
        None => v1::EntryResult {
            outcome: match outcomes.next() {
                Some(WriteOutcome::Stored) => v1::EntryOutcome::Stored.into(),
                Some(WriteOutcome::Merged) | None => v1::EntryOutcome::Merged.into(),
            },
            error: None,
        },
    };
    Ok(errors.into_iter().map(result).collect())
}

/// Writes a client's stream message by message; each is a transaction of its own. It ends when the client's key is not good
/// any more.
///
/// `entries`: the entries of a message.
pub async fn ingest<M, E, W, Written>(
    request: Request<Streaming<M>>,
    field: &str,
    entries: impl Fn(M) -> Vec<E>,
    write_batch: W,
) -> Result<v1::IngestSummary, Status>
where
    W: Fn(Vec<E>) -> Written,
    Written: Future<Output = Result<Vec<v1::EntryResult>, Status>>,
{
    let pass = access::pass(&request)?;
    let mut stream = request.into_inner();
    let mut summary = v1::IngestSummary::default();
    while let Some(message) = stream.message().await? {
        pass.check()?;
        let batch = entries(message);
        if batch.is_empty() {
            continue;
        }
        check_size(field, batch.len())?;
        for result in write_batch(batch).await? {
            let index = summary.read;
            summary.read += 1;
            match result.outcome() {
                v1::EntryOutcome::Stored => summary.stored += 1,
                v1::EntryOutcome::Merged => summary.merged += 1,
                v1::EntryOutcome::Rejected | v1::EntryOutcome::Unspecified => {
                    summary.rejected += 1;
                    if summary.errors.len() < MAX_STREAM_ERRORS {
                        summary.errors.push(v1::IngestError {
                            index,
                            error: result.error,
                        });
                    }
                }
            }
        }
    }
    Ok(summary)
}
