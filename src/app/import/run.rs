//! Runs an import: takes batches from the reading thread, hands them to the writer, and keeps the counts.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::time::Instant;

use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;

use crate::store::postgres::pool::Pool;
use domain::error::InvalidField;

use super::input::Input;
use super::kinds::{RecordKind, Written};
use super::reader::{Batch, FromReader, Origin, read_ahead, unreadable};
use super::rejects::{Reject, RejectsFile};
use super::writer::{Pending, Writer};
use super::{ImportError, ImportOptions, ImportSummary, Progress, StopCause};

pub(super) async fn run<K: RecordKind>(
    pool: &Pool,
    input: Input,
    options: &ImportOptions,
    interrupt: &CancellationToken,
    mut report: impl FnMut(Progress<'_>),
) -> Result<ImportSummary, ImportError> {
    let started = Instant::now();
    let (name, bytes) = (input.name.clone(), input.bytes);
    let mut batches = read_ahead::<K>(input, options);
    if !open(&mut batches, name, interrupt).await? {
        return Ok(ImportSummary {
            interrupted: true,
            ..ImportSummary::default()
        });
    }
    let rejects = RejectsFile::new(&options.rejects).map_err(|(path, source)| ImportError::Rejects { path, source })?;
    let mut run = Run {
        options,
        interrupt,
        batches,
        writer: Writer::<K>::new(pool, options, interrupt),
        pending: VecDeque::new(),
        last: None,
        rejects,
        summary: ImportSummary::default(),
        started,
    };
    let end = run.store_batches(bytes, &mut report).await;
    run.finish(end)
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

/// How the batches ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Interrupted,
}

struct Run<'a, K: RecordKind> {
    options: &'a ImportOptions,
    interrupt: &'a CancellationToken,
    batches: Receiver<FromReader<K::Value>>,
    writer: Writer<K>,
    /// Batches that have been handed to the writer, oldest first.
    pending: VecDeque<(Pending, Batch<K::Value>)>,
    /// Why no further batch is handed over.
    last: Option<Result<End, StopCause>>,
    rejects: Option<RejectsFile>,
    summary: ImportSummary,
    started: Instant,
}

impl<K: RecordKind> Run<'_, K> {
    async fn store_batches(
        &mut self,
        bytes: Option<u64>,
        report: &mut impl FnMut(Progress<'_>),
    ) -> Result<End, StopCause> {
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
                return Err(StopCause::TooManyRejects { max });
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
    async fn hand_over(&mut self) -> ControlFlow<Result<End, StopCause>, (Pending, Batch<K::Value>)> {
        let next = tokio::select! {
            biased;
            () = self.interrupt.cancelled() => return ControlFlow::Break(Ok(End::Interrupted)),
            next = self.batches.recv() => next,
        };
        let mut batch = match next {
            Some(FromReader::Batch(batch)) => batch,
            Some(FromReader::End) => return ControlFlow::Break(Ok(End::Complete)),
            Some(FromReader::Broken(error)) => return ControlFlow::Break(Err(StopCause::Read(error))),
            Some(FromReader::Opened | FromReader::Refused(_)) | None => {
                return ControlFlow::Break(Err(StopCause::Panicked));
            }
        };
        match self.writer.store(std::mem::take(&mut batch.values)).await {
            Ok(Some(pending)) => ControlFlow::Continue((pending, batch)),
            Ok(None) => ControlFlow::Break(Ok(End::Interrupted)),
            Err(error) => ControlFlow::Break(Err(error.into())),
        }
    }

    /// Adds a stored batch to the counts and writes its rejected lines.
    fn count(&mut self, batch: Batch<K::Value>, written: Written) -> Result<(), StopCause> {
        let accepted = batch.n_values as u64 - written.refused.len() as u64;
        let rejected = merged(batch.rejects, batch.origins, written.refused);
        self.summary.add(accepted, written.stored, &rejected, batch.last_line);
        self.summary.seconds = self.started.elapsed().as_secs_f64();
        match &mut self.rejects {
            Some(rejects) => rejects.write(&rejected).map_err(StopCause::Rejects),
            None => Ok(()),
        }
    }

    fn finish(self, end: Result<End, StopCause>) -> Result<ImportSummary, ImportError> {
        let mut summary = self.summary;
        summary.seconds = self.started.elapsed().as_secs_f64();
        summary.rejects_file = self.rejects.and_then(RejectsFile::written);
        match end {
            Ok(end) => {
                summary.interrupted = end == End::Interrupted;
                Ok(summary)
            }
            Err(cause) => Err(ImportError::Stopped {
                cause,
                summary: Box::new(summary),
            }),
        }
    }
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
