//! Imports a file of ratings, purchases, items, campaigns and other records into the store.
//!
//! A thread reads and checks lines ahead of the task that stores them. Batches are stored one after the other, each over
//! several connections at once, and lines that concern the same row in the order of the file. All writes are idempotent:
//! whatever ends an import early, importing the file again from its beginning ends as one whole import would have ended.

pub mod columns;
mod conclusion;
mod coupon_scopes;
pub mod findings;
mod heartbeat;
mod ids;
mod kinds;
pub mod numbers;
mod order_lines;
mod other_problems;
mod reader;
pub mod rejects;
mod run;
pub mod settings;
pub mod times;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::store::error::StoreError;
use crate::store::imports::LineCounts;
use crate::store::postgres::pool::Pool;
use domain::rating::RatingScale;
use tabular::cells::{CellRules, RuleError};
use tabular::input::Input;
use tabular::open::ReadOptions;
use tabular::option_names::OptionNames;

use self::columns::{ColumnError, ColumnMap};
use self::findings::Contents;
use self::kinds::Written;
use self::kinds::{
    Assignments, Attributes, Campaigns, Consents, CouponItems, Coupons, Inventory, Items, Merchants, Orders, Policies,
    Purchases, Ratings, RecordKind, Redemptions, Suppressions,
};
use self::numbers::NumberFormat;
use self::rejects::{Reject, RejectsTo};
use self::run::run;
use self::settings::ImportSettings;
use self::times::TimeFormats;

/// The kind of record that a file holds, one on each line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportKind {
    Ratings,
    Purchases,
    /// Whole orders, of which the newest version is kept.
    Orders,
    Items,
    Merchants,
    Campaigns,
    Coupons,
    /// The items that coupons cover.
    CouponItems,
    /// The users that campaigns are assigned to.
    Assignments,
    /// Redemptions that another system has recorded.
    Redemptions,
    /// Attributes of users.
    Attributes,
    Consents,
    /// Users who are never offered anything.
    Suppressions,
    /// Counts of stock.
    Inventory,
    /// Policies by which items are ordered.
    Policies,
}

impl ImportKind {
    pub const ALL: [Self; 15] = [
        Self::Ratings,
        Self::Purchases,
        Self::Orders,
        Self::Items,
        Self::Merchants,
        Self::Campaigns,
        Self::Coupons,
        Self::CouponItems,
        Self::Assignments,
        Self::Redemptions,
        Self::Attributes,
        Self::Consents,
        Self::Suppressions,
        Self::Inventory,
        Self::Policies,
    ];

    /// Returns the kind with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Returns the name of the kind, as the command has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ratings => "ratings",
            Self::Purchases => "purchases",
            Self::Orders => "orders",
            Self::Items => "items",
            Self::Merchants => "merchants",
            Self::Campaigns => "campaigns",
            Self::Coupons => "coupons",
            Self::CouponItems => "coupon-items",
            Self::Assignments => "assignments",
            Self::Redemptions => "redemptions",
            Self::Attributes => "attributes",
            Self::Consents => "consents",
            Self::Suppressions => "suppressions",
            Self::Inventory => "inventory",
            Self::Policies => "policies",
        }
    }

    /// Returns the names of its fields, which a [`ColumnMap`] uses.
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Ratings => Ratings::FIELDS,
            Self::Purchases => Purchases::FIELDS,
            Self::Orders => Orders::FIELDS,
            Self::Items => Items::FIELDS,
            Self::Merchants => Merchants::FIELDS,
            Self::Campaigns => Campaigns::FIELDS,
            Self::Coupons => Coupons::FIELDS,
            Self::CouponItems => CouponItems::FIELDS,
            Self::Assignments => Assignments::FIELDS,
            Self::Redemptions => Redemptions::FIELDS,
            Self::Attributes => Attributes::FIELDS,
            Self::Consents => Consents::FIELDS,
            Self::Suppressions => Suppressions::FIELDS,
            Self::Inventory => Inventory::FIELDS,
            Self::Policies => Policies::FIELDS,
        }
    }
}

/// How a file is read and stored.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    pub kind: ImportKind,
    pub read: ReadOptions,
    pub cells: CellRules,
    pub numbers: NumberFormat,
    pub column_map: ColumnMap,
    pub times: TimeFormats,
    pub scale: RatingScale,
    pub rejects: RejectsTo,
    /// The import stops at the line with which more lines than this are rejected.
    pub max_rejects: Option<u64>,
    /// The import fails when more than this share of the lines is rejected, from 0 to 1. If that is so for the first
    /// [`JUDGED_LINES`], nothing is stored.
    pub max_reject_share: f64,
    /// How many transactions store a batch at the same time. 0 counts as 1.
    pub connections: usize,
    /// The number of lines of a batch for every connection.
    pub transaction_lines: usize,
    /// How long the import waits for a database that is not available.
    pub patience: Duration,
    /// Whether the file is only read, and nothing stored.
    pub dry_run: bool,
    /// Days for which imports can be undone. Copies that are kept for undoing older imports are dropped.
    pub undo_days: u32,
    /// Names who imports, in the audit.
    pub actor: String,
}

impl ImportOptions {
    pub fn new(kind: ImportKind) -> Self {
        Self {
            kind,
            read: ReadOptions::default(),
            cells: CellRules::default(),
            numbers: NumberFormat::default(),
            column_map: ColumnMap::default(),
            times: TimeFormats::default(),
            scale: RatingScale::default(),
            rejects: RejectsTo::Nowhere,
            max_rejects: None,
            max_reject_share: 0.1,
            connections: 4,
            transaction_lines: 10_000,
            patience: Duration::from_secs(60),
            dry_run: false,
            undo_days: ImportSettings::default().undo_days,
            actor: "an import".to_owned(),
        }
    }

    /// Returns how many batches are handed over before the first of them is stored, so that one is prepared while
    /// PostgreSQL stores another. An import that may stop after any batch hands over one at a time.
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

/// How many lines are read before the first is stored, so that a file that does not fit stores nothing.
pub const JUDGED_LINES: u64 = 10_000;

/// The counts of an import, where `read = stored + merged + rejected`.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct ImportSummary {
    /// Names the import for undoing it. Absent when nothing was stored.
    pub import_id: Option<i64>,
    /// The first values as they were understood, in a dry run. In it lines that would be accepted count as merged.
    pub first: Vec<String>,
    /// Lines that are not empty, without the header and those that a filter has left out.
    pub read: u64,
    /// Lines that a filter has left out.
    pub filtered: u64,
    /// Lines that created or changed something.
    pub stored: u64,
    /// Lines without effect: identical to what is stored, older, overwritten by a later line, or of an erased user.
    pub merged: u64,
    /// Merged lines that are older than what is stored.
    pub older: u64,
    /// Merged lines that a later line overwrites.
    pub overwritten: u64,
    /// Merged lines that tell of a time before their user was erased.
    pub dropped: u64,
    pub rejected: u64,
    pub rejects_by_reason: BTreeMap<&'static str, u64>,
    /// The empty name stands for lines that are no records.
    pub rejects_by_field: BTreeMap<String, u64>,
    /// The first rejected line of each reason, as a sentence that names the line and the field.
    pub reject_examples: BTreeMap<&'static str, String>,
    /// The contents of the accepted lines.
    pub contents: Contents,
    /// Optional fields that were read only because a column has their name, with that column.
    pub columns_by_name: BTreeMap<&'static str, String>,
    /// Sentences about what is doubtful in the file.
    pub warnings: Vec<String>,
    /// The file of rejected lines, if one was written.
    pub rejects_file: Option<PathBuf>,
    /// The first rejected lines, if they were to be kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub first_rejects: Vec<Reject>,
    /// The last line of the file that was read.
    pub last_line: u64,
    /// Whether the import was interrupted before the end of the file.
    pub interrupted: bool,
    /// Whether the file was only read, and nothing stored.
    pub dry_run: bool,
    pub seconds: f64,
}

impl ImportSummary {
    pub fn lines_per_second(&self) -> f64 {
        match self.seconds > 0.0 {
            true => self.read as f64 / self.seconds,
            false => 0.0,
        }
    }

    fn lines(&self) -> LineCounts {
        LineCounts {
            read: self.read,
            stored: self.stored,
            merged: self.merged,
            rejected: self.rejected,
        }
    }

    fn add(&mut self, accepted: u64, written: &Written, rejects: &[Reject], last_line: u64) {
        self.read += accepted + rejects.len() as u64;
        self.stored += written.stored;
        self.merged += accepted - written.stored;
        self.older += written.older;
        self.overwritten += written.overwritten;
        self.dropped += written.dropped;
        self.rejected += rejects.len() as u64;
        for reject in rejects {
            *self.rejects_by_reason.entry(reject.reason).or_default() += 1;
            self.reject_examples
                .entry(reject.reason)
                .or_insert_with(|| reject.sentence());
            match self.rejects_by_field.get_mut(&reject.field) {
                Some(count) => *count += 1,
                None => _ = self.rejects_by_field.insert(reject.field.clone(), 1),
            }
        }
        self.last_line = last_line;
    }
}

/// The state of a running import.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    pub summary: &'a ImportSummary,
    /// The number of bytes read from the file, before decompression.
    pub bytes_read: u64,
    /// The size of the file before decompression, if it is known.
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
    Unsuitable { name: String, problem: String },
    #[error(transparent)]
    Columns(#[from] ColumnError),
    #[error(transparent)]
    Rules(RuleError),
    #[error("the rejected lines cannot be written to {}", .path.display())]
    Rejects {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{cause}")]
    Rejected {
        cause: RejectCause,
        summary: Box<ImportSummary>,
    },
    #[error("{}", stopped(.summary))]
    Stopped {
        #[source]
        cause: StopCause,
        summary: Box<ImportSummary>,
    },
}

/// The reason why an import stopped after it had begun.
#[derive(Debug, thiserror::Error)]
pub enum StopCause {
    #[error("the rest of the file cannot be read")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the rejected lines cannot be written")]
    Rejects(#[source] io::Error),
    #[error("the reading thread ended with a panic")]
    Panicked,
}

/// The reason why too much of a file was rejected.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RejectCause {
    #[error("none of the {read} lines was accepted, so nothing was stored")]
    NoneAccepted { read: u64 },
    #[error("none of the {filtered} lines meets the conditions, so nothing was stored")]
    NoneLeft { filtered: u64 },
    #[error(
        "{rejected} of the first {read} lines were rejected, and {max_share} of the lines may be ({}); nothing was stored",
        .names.name(MAX_SHARE)
    )]
    ShareAtFirst {
        rejected: u64,
        read: u64,
        max_share: f64,
        names: OptionNames,
    },
    #[error(
        "{rejected} of {read} lines were rejected, and {max_share} of the lines may be ({}); {}",
        .names.name(MAX_SHARE), others(*.is_dry_run, *.import_id, *.names)
    )]
    Share {
        rejected: u64,
        read: u64,
        max_share: f64,
        is_dry_run: bool,
        import_id: Option<i64>,
        names: OptionNames,
    },
    #[error("the import stopped at line {line}, because more than {max} lines were rejected; {}", stored(*.is_stored))]
    TooMany { max: u64, line: u64, is_stored: bool },
}

/// The option for the greatest share of rejected lines.
const MAX_SHARE: &str = "--max-reject-share";

/// Says what has become of the lines that were not rejected.
fn others(is_dry_run: bool, import_id: Option<i64>, names: OptionNames) -> String {
    let stored = "the other lines are stored";
    match (is_dry_run, import_id, names) {
        (true, ..) => "an import would store the other lines and fail".to_owned(),
        (false, None, _) => stored.to_owned(),
        (false, Some(id), OptionNames::Arguments) => format!("{stored}; likemind import undo {id} takes them back"),
        (false, Some(id), OptionNames::Fields) => format!("{stored}; UndoImport takes import {id} back"),
    }
}

fn stopped(summary: &ImportSummary) -> String {
    match (summary.dry_run, summary.last_line) {
        (true, 0) => "the dry run stopped at the beginning".to_owned(),
        (true, line) => format!("the dry run stopped after line {line}"),
        (false, 0) => "the import stopped before anything was stored".to_owned(),
        (false, line) => format!(
            "the import stopped after line {line}; the lines up to there are stored, and it is safe to import the file again"
        ),
    }
}

fn stored(is_stored: bool) -> &'static str {
    match is_stored {
        true => "the accepted lines before it are stored",
        false => "nothing was stored",
    }
}

/// Imports `input` from its beginning. Ends early, after the current batch, when `interrupt` is cancelled.
///
/// `report` is called after every batch.
///
/// # Errors
/// [`ImportError::Stopped`] and [`ImportError::Rejected`] have the counts until then. With every other error nothing was
/// stored.
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
        ImportKind::Orders => run::<Orders>(pool, input, options, interrupt, report).await,
        ImportKind::Items => run::<Items>(pool, input, options, interrupt, report).await,
        ImportKind::Merchants => run::<Merchants>(pool, input, options, interrupt, report).await,
        ImportKind::Campaigns => run::<Campaigns>(pool, input, options, interrupt, report).await,
        ImportKind::Coupons => run::<Coupons>(pool, input, options, interrupt, report).await,
        ImportKind::CouponItems => run::<CouponItems>(pool, input, options, interrupt, report).await,
        ImportKind::Assignments => run::<Assignments>(pool, input, options, interrupt, report).await,
        ImportKind::Redemptions => run::<Redemptions>(pool, input, options, interrupt, report).await,
        ImportKind::Attributes => run::<Attributes>(pool, input, options, interrupt, report).await,
        ImportKind::Consents => run::<Consents>(pool, input, options, interrupt, report).await,
        ImportKind::Suppressions => run::<Suppressions>(pool, input, options, interrupt, report).await,
        ImportKind::Inventory => run::<Inventory>(pool, input, options, interrupt, report).await,
        ImportKind::Policies => run::<Policies>(pool, input, options, interrupt, report).await,
    }
}
