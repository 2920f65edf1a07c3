//! Runs an import: takes batches from the reading thread, hands them to the writer, and keeps the counts.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use crate::store::error::StoreError;
use crate::store::imports::{self, ImportState};
use crate::store::postgres::pool::Pool;
use chrono::Utc;
use domain::error::InvalidField;
use tabular::input::Input;

use super::conclusion::Conclusion;
use super::coupon_scopes::TouchedCoupons;
use super::heartbeat::Heartbeat;
use super::kinds::{RecordKind, Written};
use super::reader::{Batch, FromReader, Origin, read_ahead, unreadable};
use super::rejects::{Reject, Rejects};
use super::writer::{Patience, Pending, Writer};
use super::{ImportError, ImportOptions, ImportSummary, JUDGED_LINES, Progress, RejectCause, StopCause};

pub(super) async fn run<K: RecordKind>(
    pool: &Pool,
    input: Input,
    options: &ImportOptions,
    interrupt: &CancellationToken,
    mut report: impl FnMut(Progress<'_>),
) -> Result<ImportSummary, ImportError> {
    let started = Instant::now();
    let (name, bytes) = (input.name.clone(), input.bytes);
    let conclusion = Arc::default();
    let mut batches = read_ahead::<K>(input, options, Arc::clone(&conclusion));
    if !open(&mut batches, name.clone(), interrupt).await? {
        return Ok(ImportSummary {
            interrupted: true,
            ..ImportSummary::default()
        });
    }
    let rejects = Rejects::new(&options.rejects).map_err(|(path, source)| ImportError::Rejects { path, source })?;
    let interrupt = &interrupt.child_token();
    let (import_pool, import_id) = match begin(pool, &name, K::IS_MARKED, options, interrupt).await {
        Ok(begun) => begun,
        Err(error) => {
            let cause = StopCause::Store(error);
            let summary = Box::default();
            return Err(ImportError::Stopped { cause, summary });
        }
    };
    let heartbeat = import_id.map(|id| Heartbeat::start(pool.clone(), id, interrupt.clone()));
    let mut run = Run {
        options,
        interrupt,
        batches,
        heartbeat,
        writer: Writer::<K>::new(&import_pool, options, interrupt),
        pending: VecDeque::new(),
        last: None,
        held: VecDeque::new(),
        rejects,
        summary: ImportSummary {
            import_id,
            dry_run: options.dry_run,
            ..ImportSummary::default()
        },
        conclusion,
        coupons: TouchedCoupons::default(),
        started,
    };
    let end = match run.judge().await {
        Ok(()) if options.dry_run => run.read_batches().await,
        Ok(()) => run.store_batches(bytes, &mut report).await,
        Err(cause) => Err(cause),
    };
    let warnings = run.coupons.warnings(pool).await;
    let result = run.finish(end, warnings);
    let result = record_end(pool, import_id, &options.actor, result).await;
    if import_id.is_some() {
        import_pool.close().await;
    }
    result
}

/// Records the beginning of an import, and drops what is kept of old ones. Returns the pool of the import's own connections.
async fn begin(
    pool: &Pool,
    source: &str,
    is_marked: bool,
    options: &ImportOptions,
    interrupt: &CancellationToken,
) -> Result<(Pool, Option<i64>), StoreError> {
    if options.dry_run {
        return Ok((pool.clone(), None));
    }
    let (kind, actor) = (options.kind.as_str(), &*options.actor);
    let patience = Patience::new(options, interrupt);
    let Some(id) = patience.wait(|| imports::begin(pool, kind, source, actor)).await? else {
        return Ok((pool.clone(), None));
    };
    let before = Utc::now() - chrono::Duration::days(options.undo_days.into());
    if let Err(error) = imports::prune(pool, before).await {
        tracing::warn!(%error, "what is kept for undoing old imports could not be dropped");
    }
    let connections = options.connections.max(1) as u32 + 2;
    Ok((pool.for_import(id, !is_marked, connections), Some(id)))
}

/// Records how an import has ended. One that has stored nothing leaves no record.
async fn record_end(
    pool: &Pool,
    import_id: Option<i64>,
    actor: &str,
    mut result: Result<ImportSummary, ImportError>,
) -> Result<ImportSummary, ImportError> {
    let Some(id) = import_id else { return result };
    let (state, summary) = match &mut result {
        Ok(summary) if summary.interrupted => (ImportState::Interrupted, summary),
        Ok(summary) => (ImportState::Done, summary),
        Err(ImportError::Rejected { summary, .. }) => (ImportState::Rejected, &mut **summary),
        Err(ImportError::Stopped { summary, .. }) => (ImportState::Stopped, &mut **summary),
        Err(_) => return result,
    };
    let lines = summary.lines();
    let recorded = match state == ImportState::Rejected && summary.stored + summary.merged == 0 {
        true => {
            summary.import_id = None;
            imports::discard(pool, id, actor).await
        }
        false => imports::end(pool, id, state, lines, actor).await,
    };
    if let Err(error) = recorded {
        tracing::warn!(%error, import_id = id, "the end of the import could not be recorded");
    }
    result
}

/// Waits until the header has been read and fits. Returns whether nobody has interrupted meanwhile.
async fn open<V>(
    batches: &mut Receiver<FromReader<V>>,
    name: String,
    interrupt: &CancellationToken,
) -> Result<bool, ImportError> {
    tokio::select! {
        opened = batches.recv() => match opened {
            Some(FromReader::Opened) => Ok(true),
            Some(FromReader::Refused(error)) => Err(error),
            _ => Err(unreadable(name, io::Error::other("the reading thread ended with a panic"))),
        },
        () = interrupt.cancelled() => Ok(false),
    }
}

/// How many values a dry run shows.
const FIRST_SHOWN: usize = 5;

/// How the batches ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Interrupted,
}

/// Why an import failed.
enum Failure {
    Stopped(StopCause),
    Rejected(RejectCause),
}

impl From<StopCause> for Failure {
    fn from(cause: StopCause) -> Self {
        Self::Stopped(cause)
    }
}

struct Run<'a, K: RecordKind> {
    options: &'a ImportOptions,
    interrupt: &'a CancellationToken,
    batches: Receiver<FromReader<K::Value>>,
    /// Batches that have been read to be judged, oldest first, and what came after them.
    held: VecDeque<FromReader<K::Value>>,
    writer: Writer<K>,
    /// Batches that have been handed to the writer, oldest first.
    pending: VecDeque<(Pending, Batch<K::Value>)>,
    /// Why no further batch is handed over.
    last: Option<Result<End, Failure>>,
    rejects: Rejects,
    heartbeat: Option<Heartbeat>,
    summary: ImportSummary,
    conclusion: Arc<Mutex<Conclusion>>,
    /// The coupons that the file defines or changes.
    coupons: TouchedCoupons,
    started: Instant,
}

impl<K: RecordKind> Run<'_, K> {
    /// Reads the first lines, and refuses the file when too many of them are rejected.
    async fn judge(&mut self) -> Result<(), Failure> {
        let (mut read, mut rejected, mut last_line) = (0, 0, 0);
        let mut is_whole = false;
        while read < JUDGED_LINES && !is_whole {
            let Some(next) = self.receive().await else {
                return Ok(());
            };
            match &next {
                FromReader::Batch(batch) if batch.n_values + batch.rejects.len() == 0 => {
                    self.summary.filtered += batch.filtered;
                    continue;
                }
                FromReader::Batch(batch) => {
                    rejected += batch.rejects.len() as u64;
                    read += (batch.n_values + batch.rejects.len()) as u64;
                    last_line = batch.last_line;
                }
                FromReader::TooManyRejects { max } => {
                    let (max, line) = (*max, last_line);
                    self.count_rejects_alone()?;
                    return Err(Failure::Rejected(RejectCause::TooMany {
                        max,
                        line,
                        is_stored: false,
                    }));
                }
                _ => is_whole = true,
            }
            self.held.push_back(next);
        }
        let max_share = self.options.max_reject_share;
        let cause = match read {
            0 if self.summary.filtered > 0 && is_whole => RejectCause::NoneLeft {
                filtered: self.summary.filtered,
            },
            1.. if read == rejected => RejectCause::NoneAccepted { read },
            _ if rejected as f64 > max_share * read as f64 => RejectCause::ShareAtFirst {
                rejected,
                read,
                max_share,
                names: self.options.read.names,
            },
            _ => return Ok(()),
        };
        self.count_rejects_alone()?;
        Err(Failure::Rejected(cause))
    }

    /// Counts the rejected lines of the held batches, none of which is stored.
    fn count_rejects_alone(&mut self) -> Result<(), StopCause> {
        for held in std::mem::take(&mut self.held) {
            let FromReader::Batch(batch) = held else { continue };
            self.summary
                .add(0, &Written::default(), &batch.rejects, batch.last_line);
            self.summary.filtered += batch.filtered;
            self.rejects.write(&batch.rejects).map_err(StopCause::Rejects)?;
        }
        Ok(())
    }

    /// Returns what the reading thread sends next, or `None` when the import is interrupted.
    async fn receive(&mut self) -> Option<FromReader<K::Value>> {
        tokio::select! {
            biased;
            () = self.interrupt.cancelled() => None,
            next = self.batches.recv() => Some(next.unwrap_or(FromReader::Broken(io::Error::other(
                "the reading thread ended with a panic",
            )))),
        }
    }

    /// Reads the file to its end and stores nothing.
    async fn read_batches(&mut self) -> Result<End, Failure> {
        loop {
            let next = match self.held.pop_front() {
                Some(held) => held,
                None => match self.receive().await {
                    Some(next) => next,
                    None => return Ok(End::Interrupted),
                },
            };
            match next {
                FromReader::Batch(batch) => {
                    let shown = self.summary.first.len();
                    let first = batch.values.iter().take(FIRST_SHOWN - shown).map(K::describe);
                    self.summary.first.extend(first);
                    let refused = K::refused(&batch.values);
                    let written = Written {
                        refused,
                        ..Written::default()
                    };
                    self.count(batch, written)?;
                }
                FromReader::Broken(error) => return Err(StopCause::Read(error).into()),
                _ => return Ok(End::Complete),
            }
        }
    }

    async fn store_batches(
        &mut self,
        bytes: Option<u64>,
        report: &mut impl FnMut(Progress<'_>),
    ) -> Result<End, Failure> {
        loop {
            self.hand_over_batches().await;
            let Some((pending, batch)) = self.pending.pop_front() else {
                return self.last.take().unwrap_or(Ok(End::Complete));
            };
            let Some(written) = pending.written().await? else {
                return Ok(End::Interrupted);
            };
            let bytes_read = batch.bytes_read;
            self.count(batch, written)?;
            report(Progress {
                summary: &self.summary,
                bytes_read,
                bytes,
            });
            if let Some(max) = self.options.max_rejects
                && self.summary.rejected > max
            {
                return Err(Failure::Rejected(RejectCause::TooMany {
                    max,
                    line: self.summary.last_line,
                    is_stored: true,
                }));
            }
        }
    }

    /// Hands batches to the writer until enough are pending or there are no more.
    async fn hand_over_batches(&mut self) {
        // The first batch is stored alone, so that PostgreSQL counts its rows before it plans for the second.
        let max_pending = if self.summary.read == 0 {
            1
        } else {
            self.options.max_pending()
        };
        while self.last.is_none() && self.pending.len() < max_pending {
            match self.hand_over().await {
                ControlFlow::Continue(handed_over) => self.pending.push_back(handed_over),
                ControlFlow::Break(end) => self.last = Some(end),
            }
        }
    }

    /// Hands the next batch to the writer, unless there is none or the import is interrupted.
    async fn hand_over(&mut self) -> ControlFlow<Result<End, Failure>, (Pending, Batch<K::Value>)> {
        if self.interrupt.is_cancelled() {
            return ControlFlow::Break(Ok(End::Interrupted));
        }
        let next = match self.held.pop_front() {
            Some(held) => held,
            None => match self.receive().await {
                Some(next) => next,
                None => return ControlFlow::Break(Ok(End::Interrupted)),
            },
        };
        let mut batch = match next {
            FromReader::Batch(batch) => batch,
            FromReader::End => return ControlFlow::Break(Ok(End::Complete)),
            FromReader::Broken(error) => return ControlFlow::Break(Err(StopCause::Read(error).into())),
            // Its batches are stored and counted first.
            FromReader::TooManyRejects { .. } => return ControlFlow::Break(Ok(End::Complete)),
            FromReader::Opened | FromReader::Refused(_) => {
                return ControlFlow::Break(Err(StopCause::Panicked.into()));
            }
        };
        self.coupons.add(batch.values.iter().filter_map(K::coupon));
        match self.writer.store(std::mem::take(&mut batch.values)).await {
            Ok(Some(pending)) => ControlFlow::Continue((pending, batch)),
            Ok(None) => ControlFlow::Break(Ok(End::Interrupted)),
            Err(error) => ControlFlow::Break(Err(StopCause::from(error).into())),
        }
    }

    /// Adds a stored batch to the counts and writes its rejected lines.
    fn count(&mut self, batch: Batch<K::Value>, mut written: Written) -> Result<(), StopCause> {
        let accepted = batch.n_values as u64 - written.refused.len() as u64;
        let rejected = merged(batch.rejects, batch.origins, std::mem::take(&mut written.refused));
        self.summary.add(accepted, &written, &rejected, batch.last_line);
        self.summary.filtered += batch.filtered;
        self.summary.seconds = self.started.elapsed().as_secs_f64();
        if let Some(heartbeat) = &self.heartbeat {
            heartbeat.set(self.summary.lines());
        }
        self.rejects.write(&rejected).map_err(StopCause::Rejects)
    }

    /// `warnings`: what is doubtful in what was stored.
    fn finish(self, end: Result<End, Failure>, warnings: Vec<String>) -> Result<ImportSummary, ImportError> {
        let mut summary = self.summary;
        summary.seconds = self.started.elapsed().as_secs_f64();
        (summary.rejects_file, summary.first_rejects) = self.rejects.finish();
        let conclusion = std::mem::take(&mut *self.conclusion.lock().unwrap_or_else(PoisonError::into_inner));
        summary.contents = conclusion.contents;
        summary.columns_by_name = conclusion.columns_by_name;
        summary.warnings = conclusion.warnings;
        summary.warnings.extend(warnings);
        let failure = match end {
            Ok(End::Complete) => match excess(&summary, self.options) {
                Some(cause) => Failure::Rejected(cause),
                None => return Ok(summary),
            },
            Ok(End::Interrupted) => {
                summary.interrupted = true;
                return Ok(summary);
            }
            Err(failure) => failure,
        };
        let summary = Box::new(summary);
        Err(match failure {
            Failure::Stopped(cause) => ImportError::Stopped { cause, summary },
            Failure::Rejected(cause) => ImportError::Rejected { cause, summary },
        })
    }
}

/// Returns why too many lines of a whole file were rejected, if they were.
fn excess(summary: &ImportSummary, options: &ImportOptions) -> Option<RejectCause> {
    let max_share = options.max_reject_share;
    let (rejected, read) = (summary.rejected, summary.read);
    if read > 0 && rejected == read {
        return Some(RejectCause::NoneAccepted { read });
    }
    (rejected as f64 > max_share * read as f64).then_some(RejectCause::Share {
        rejected,
        read,
        max_share,
        is_dry_run: summary.dry_run,
        import_id: summary.import_id,
        names: options.read.names,
    })
}

/// Returns the lines that could not be read and those that the store has refused, in the order of the file.
///
/// `refused`: the position in the batch, ascending, and the reason.
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
