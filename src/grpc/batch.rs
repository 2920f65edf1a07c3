//! Batches and streams of entries. Each entry has a result of its own; a bad one never fails the others.

use tonic::{Request, Status, Streaming};

use crate::admission::StreamAuthorization;
use crate::store::error::StoreError;
use crate::store::outcome::LoadOutcome;
use domain::error::InvalidField;

use super::caller::stream_authorization;
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

/// Most parts of all entries of one message, such as the lines of its orders.
const MAX_PARTS: usize = 10_000;

/// Checks the number of parts that all entries have together.
///
/// `field`: the list of entries; `part`: the list of parts in an entry; `counts`: how many parts each entry has.
///
/// # Errors
/// INVALID_ARGUMENT naming the parts of the first entry beyond [`MAX_PARTS`].
pub fn check_parts(field: &str, part: &str, counts: impl Iterator<Item = usize>) -> Result<(), Status> {
    let mut parts = 0;
    for (position, count) in counts.enumerate() {
        parts += count;
        if parts > MAX_PARTS {
            let message = format!("must be at most {MAX_PARTS} in all {field} together, are {parts} up to here");
            return Err(invalid_argument(vec![InvalidField::new(
                format!("{field}[{position}].{part}"),
                "BATCH_SIZE_OUT_OF_RANGE",
                message,
            )]));
        }
    }
    Ok(())
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

/// The converted entries of one message.
pub struct Batch<T> {
    valid: Vec<T>,
    /// One for each entry of the message; `None` for a valid one.
    errors: Vec<Option<InvalidField>>,
}

impl<T> Batch<T> {
    pub fn convert<M>(entries: Vec<M>, convert: impl Fn(M) -> Result<T, InvalidField>) -> Self {
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
        Self { valid, errors }
    }

    /// Hands the valid entries to `write`, unless there are none. Returns one result for each entry of the message, in its
    /// order.
    pub async fn write<W, O>(self, write: W) -> Result<Vec<v1::EntryResult>, Status>
    where
        W: AsyncFnOnce(&[T]) -> Result<Vec<O>, StoreError>,
        O: Into<LoadOutcome>,
    {
        let results = self.answer(write).await?;
        let result = |result: Result<O, InvalidField>| {
            let outcome = result.map_or_else(LoadOutcome::Refused, Into::into);
            let (outcome, error) = match outcome {
                LoadOutcome::Stored => (v1::EntryOutcome::Stored, None),
                LoadOutcome::Merged | LoadOutcome::Dropped => (v1::EntryOutcome::Merged, None),
                LoadOutcome::Refused(error) => (v1::EntryOutcome::Rejected, Some(error.into())),
            };
            v1::EntryResult {
                outcome: outcome.into(),
                error,
            }
        };
        Ok(results.into_iter().map(result).collect())
    }

    /// Hands the valid entries to `write`, unless there are none. Returns for each entry of the message, in its order, what
    /// `write` returned for it, or why it is not valid.
    pub async fn answer<W, O>(self, write: W) -> Result<Vec<Result<O, InvalidField>>, Status>
    where
        W: AsyncFnOnce(&[T]) -> Result<Vec<O>, StoreError>,
    {
        let written = match self.valid.as_slice() {
            [] => Vec::new(),
            valid => write(valid).await?,
        };
        let mut written = written.into_iter();
        let results = self.errors.into_iter().filter_map(|error| match error {
            Some(error) => Some(Err(error)),
            None => written.next().map(Ok),
        });
        Ok(results.collect())
    }
}

/// A client's stream of batches, with the summary of what has been written of it.
pub struct Ingest<M, E> {
    authorization: StreamAuthorization,
    stream: Streaming<M>,
    field: &'static str,
    entries: fn(M) -> Vec<E>,
    summary: v1::IngestSummary,
}

impl<M, E> Ingest<M, E> {
    /// `entries`: takes the entries, which stand in `field`, out of a message.
    ///
    /// # Errors
    /// INTERNAL for a call that has not come through admission.
    pub fn new(request: Request<Streaming<M>>, field: &'static str, entries: fn(M) -> Vec<E>) -> Result<Self, Status> {
        Ok(Self {
            authorization: stream_authorization(&request)?,
            stream: request.into_inner(),
            field,
            entries,
            summary: v1::IngestSummary::default(),
        })
    }

    /// Returns the entries of the next message that has any; `None` at the end of the stream.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a message of more than [`MAX_BATCH`] entries; UNAUTHENTICATED when the client's key is no
    /// longer valid; an error of the stream.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<E>>, Status> {
        while let Some(message) = self.stream.message().await? {
            self.authorization.check()?;
            let entries = (self.entries)(message);
            if !entries.is_empty() {
                check_size(self.field, entries.len())?;
                return Ok(Some(entries));
            }
        }
        Ok(None)
    }

    /// Adds the results of a batch to the summary.
    pub fn record(&mut self, results: Vec<v1::EntryResult>) {
        let summary = &mut self.summary;
        for result in results {
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

    pub fn into_summary(self) -> v1::IngestSummary {
        self.summary
    }
}
