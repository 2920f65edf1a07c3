//! Import: a CSV file of ratings, purchases, items, campaigns, … into the store.
//!
//! A thread reads and checks lines ahead of the task that stores them: batch after batch, each over several connections
//! at once, lines that concern the same row in the order of the file. Whatever ends an import early, importing the file
//! again from its beginning gives what one whole import would have given: all writes are idempotent.

pub mod columns;
pub mod input;
mod order_lines;
mod reader;
mod records;
mod rejects;
mod subject;
pub mod times;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use domain::error::InvalidField;
use domain::rating::RatingScale;

use self::columns::{Assignments, ColumnError};
use self::input::Input;
use self::reader::{Batch, FromReader, Origin, read_ahead, unreadable};
use self::rejects::{Reject, RejectsFile};
use self::subject::{
    Assignments as AssignmentLines, Attributes, Campaigns, Consents, CouponItems, Coupons, Items, Merchants, Purchases,
    Ratings, Redemptions, Subject, Suppressions, Written,
};
use self::times::TimeFormats;
use self::writer::{Pending, Writer};

/// What a file holds, one a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportKind {
    Ratings,
    Purchases,
    Items,
    Merchants,
    Campaigns,
    Coupons,
    /// Items that coupons cover.
    CouponItems,
    /// Users that campaigns are for.
    Assignments,
    /// Of other systems.
    Redemptions,
    /// Of users.
    Attributes,
    Consents,
    /// Users that are never offered anything.
    Suppressions,
}

impl ImportKind {
    /// The names of its fields, as a column map has them.
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Ratings => Ratings::FIELDS,
            Self::Purchases => Purchases::FIELDS,
            Self::Items => Items::FIELDS,
            Self::Merchants => Merchants::FIELDS,
            Self::Campaigns => Campaigns::FIELDS,
            Self::Coupons => Coupons::FIELDS,
            Self::CouponItems => CouponItems::FIELDS,
            Self::Assignments => AssignmentLines::FIELDS,
            Self::Redemptions => Redemptions::FIELDS,
            Self::Attributes => Attributes::FIELDS,
            Self::Consents => Consents::FIELDS,
            Self::Suppressions => Suppressions::FIELDS,
        }
    }
}

/// How a file is to be read.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    pub kind: ImportKind,
    pub assignments: Assignments,
    pub times: TimeFormats,
    pub scale: RatingScale,
    pub delimiter: u8,
    /// Where rejected lines go: the first file that can be written. None: they are only counted.
    pub rejects: Vec<PathBuf>,
    /// The import stops after the batch in which more lines than this have been rejected.
    pub max_rejects: Option<u64>,
    /// How many transactions store a batch at the same time; at least one.
    pub connections: usize,
    /// Lines of a batch for every connection.
    pub transaction_lines: usize,
    /// How long to wait for a database that has gone away.
    pub patience: Duration,
}

impl ImportOptions {
    pub fn new(kind: ImportKind) -> Self {
        Self {
            kind,
            assignments: Assignments::default(),
            times: TimeFormats::default(),
            scale: RatingScale::default(),
            delimiter: b',',
            rejects: Vec::new(),
            max_rejects: None,
            connections: 4,
            transaction_lines: 10_000,
            patience: Duration::from_secs(60),
        }
    }

    /// How many batches are handed over to be stored before the first of them is: while PostgreSQL stores one, the next
    /// is made ready. Where an import may stop after any batch, none is stored beyond it.
    fn max_pending(&self) -> usize {
        match self.max_rejects {
            None => 2,
            Some(_) => 1,
        }
    }

    fn batch_lines(&self) -> usize {
        self.connections.max(1) * self.transaction_lines
    }
}

/// What an import has done; `read = stored + merged + rejected`.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct ImportSummary {
    /// Lines that hold something, without the header.
    pub read: u64,
    /// New, or different from what was stored.
    pub stored: u64,
    /// Of no effect: stored already, older than what is stored, or superseded by a later line.
    pub merged: u64,
    pub rejected: u64,
    pub rejects_by_reason: BTreeMap<&'static str, u64>,
    /// Where the rejected lines are, if there are any and they were to be kept.
    pub rejects_file: Option<PathBuf>,
    /// The last line of the file that `read` counts.
    pub last_line: u64,
    /// Whether the rest of the file was left out on request.
    pub interrupted: bool,
    pub seconds: f64,
}

impl ImportSummary {
    pub fn lines_per_second(&self) -> f64 {
        match self.seconds > 0.0 {
            true => self.read as f64 / self.seconds,
            false => 0.0,
        }
    }

    fn add(&mut self, accepted: u64, stored: u64, rejects: &[Reject], last_line: u64) {
        self.read += accepted + rejects.len() as u64;
        self.stored += stored;
        self.merged += accepted - stored;
        self.rejected += rejects.len() as u64;
        for reject in rejects {
            *self.rejects_by_reason.entry(reject.reason).or_default() += 1;
        }
        self.last_line = last_line;
    }
}

/// Where an import stands.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    pub summary: &'a ImportSummary,
    /// Of the file as it is stored.
    pub bytes_read: u64,
    pub bytes: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    #[error("{name} cannot be read")]
    Unreadable {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("{name} {problem}")]
    NoCsv { name: String, problem: String },
    #[error(transparent)]
    Columns(#[from] ColumnError),
    #[error("{} cannot take the rejected lines", .path.display())]
    Rejects {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the import stopped after line {}; what is stored until there stays, and importing the file again is safe",
        .summary.last_line
    )]
    Stopped {
        #[source]
        cause: StopCause,
        summary: Box<ImportSummary>,
    },
}

/// What ended an import that had begun.
#[derive(Debug, thiserror::Error)]
pub enum StopCause {
    #[error("the file cannot be read on")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the rejected lines cannot be written")]
    Rejects(#[source] io::Error),
    #[error("more than {max} lines were rejected")]
    TooManyRejects { max: u64 },
    #[error("the reading thread ended with a panic")]
    Panicked,
}

/// Imports `input` from its beginning; ends early, after the batch under way, when `interrupt` is cancelled.
///
/// `report` is called after every batch.
///
/// # Errors
/// [`ImportError::Stopped`] holds what was done until then; after every other error nothing is.
pub async fn import(
    pool: &Pool,
    input: Input,
    options: &ImportOptions,
    interrupt: &CancellationToken,
    report: impl FnMut(Progress<'_>),
) -> Result<ImportSummary, ImportError> {
    match options.kind {
        ImportKind::Ratings => run::<Ratings>(pool, input, options, interrupt, report).await,
        ImportKind::Purchases => run::<Purchases>(pool, input, options, interrupt, report).await,
        ImportKind::Items => run::<Items>(pool, input, options, interrupt, report).await,
        ImportKind::Merchants => run::<Merchants>(pool, input, options, interrupt, report).await,
        ImportKind::Campaigns => run::<Campaigns>(pool, input, options, interrupt, report).await,
        ImportKind::Coupons => run::<Coupons>(pool, input, options, interrupt, report).await,
        ImportKind::CouponItems => run::<CouponItems>(pool, input, options, interrupt, report).await,
        ImportKind::Assignments => run::<AssignmentLines>(pool, input, options, interrupt, report).await,
        ImportKind::Redemptions => run::<Redemptions>(pool, input, options, interrupt, report).await,
        ImportKind::Attributes => run::<Attributes>(pool, input, options, interrupt, report).await,
        ImportKind::Consents => run::<Consents>(pool, input, options, interrupt, report).await,
        ImportKind::Suppressions => run::<Suppressions>(pool, input, options, interrupt, report).await,
    }
}

async fn run<S: Subject>(
    pool: &Pool,
    input: Input,
    options: &ImportOptions,
    interrupt: &CancellationToken,
    mut report: impl FnMut(Progress<'_>),
) -> Result<ImportSummary, ImportError> {
    let started = Instant::now();
    let (name, bytes) = (input.name.clone(), input.bytes);
    let mut batches = read_ahead::<S>(input, options);
    tokio::select! {
        opened = batches.recv() => match opened {
            Some(FromReader::Opened) => {}
            Some(FromReader::Refused(error)) => return Err(error),
            _ => return Err(unreadable(name, io::Error::other("the reading thread ended with a panic"))),
        },
        () = interrupt.cancelled() => return Ok(ImportSummary { interrupted: true, ..ImportSummary::default() }),
    };
    let mut rejects =
        RejectsFile::new(&options.rejects).map_err(|(path, source)| ImportError::Rejects { path, source })?;

    let mut writer = Writer::<S>::new(pool, options, interrupt);
    let mut summary = ImportSummary::default();
    let mut pending = VecDeque::new();
    let mut end = None;
    let ended = loop {
        // The first alone: before the second, PostgreSQL looks at how much there is.
        let max_pending = if summary.read == 0 { 1 } else { options.max_pending() };
        while end.is_none() && pending.len() < max_pending {
            match hand_over(&mut batches, &mut writer, interrupt).await {
                ControlFlow::Continue(handed_over) => pending.push_back(handed_over),
                ControlFlow::Break(ended) => end = Some(ended),
            }
        }
        let Some((handed_over, batch)) = pending.pop_front() else {
            break end.unwrap_or(Ok(Ended::Complete));
        };
        let Written { stored, refused } = match handed_over.written().await {
            Ok(Some(written)) => written,
            Ok(None) => break Ok(Ended::Interrupted),
            Err(cause) => break Err(cause),
        };
        let accepted = batch.n_values as u64 - refused.len() as u64;
        let batch_rejects = merged(batch.rejects, batch.origins, refused);
        summary.add(accepted, stored, &batch_rejects, batch.last_line);
        if let Some(rejects) = &mut rejects
            && let Err(error) = rejects.write(&batch_rejects)
        {
            break Err(StopCause::Rejects(error));
        }
        summary.seconds = started.elapsed().as_secs_f64();
        report(Progress {
            summary: &summary,
            bytes_read: batch.bytes_read,
            bytes,
        });
        if let Some(max) = options.max_rejects
            && summary.rejected > max
        {
            break Err(StopCause::TooManyRejects { max });
        }
    };
    summary.seconds = started.elapsed().as_secs_f64();
    summary.rejects_file = rejects.and_then(RejectsFile::written);
    match ended {
        Ok(ended) => {
            summary.interrupted = ended == Ended::Interrupted;
            Ok(summary)
        }
        Err(cause) => Err(ImportError::Stopped {
            cause,
            summary: Box::new(summary),
        }),
    }
}

/// Hands the next batch over to the writer, if there is one and nobody interrupts.
async fn hand_over<S: Subject>(
    batches: &mut Receiver<FromReader<S::Value>>,
    writer: &mut Writer<S>,
    interrupt: &CancellationToken,
) -> ControlFlow<Result<Ended, StopCause>, (Pending, Batch<S::Value>)> {
    let next = tokio::select! {
        biased;
        () = interrupt.cancelled() => return ControlFlow::Break(Ok(Ended::Interrupted)),
        next = batches.recv() => next,
    };
    let mut batch = match next {
        Some(FromReader::Batch(batch)) => batch,
        Some(FromReader::End) => return ControlFlow::Break(Ok(Ended::Complete)),
        Some(FromReader::Broken(error)) => return ControlFlow::Break(Err(StopCause::Read(error))),
        Some(FromReader::Opened | FromReader::Refused(_)) | None => {
            return ControlFlow::Break(Err(StopCause::Panicked));
        }
    };
    match writer.store(std::mem::take(&mut batch.values)).await {
        Ok(Some(pending)) => ControlFlow::Continue((pending, batch)),
        Ok(None) => ControlFlow::Break(Ok(Ended::Interrupted)),
        Err(error) => ControlFlow::Break(Err(error.into())),
    }
}

/// The lines that could not be read and those that the store has refused, in the order of the file.
///
/// `refused`: position in the batch, ascending, and why.
fn merged(mut rejects: Vec<Reject>, origins: Vec<Origin>, refused: Vec<(usize, InvalidField)>) -> Vec<Reject> {
    if refused.is_empty() {
        return rejects;
    }
    let mut refused = refused.into_iter().peekable();
    for (position, origin) in origins.into_iter().enumerate() {
        if let Some((_, error)) = refused.next_if(|(refused, _)| *refused == position) {
            rejects.push(origin.reject(error));
        }
    }
    rejects.sort_by_key(|reject| reject.line);
    rejects
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Complete,
    Interrupted,
}
