//! Writes everything that is held on one user as one JSON document, in parts of bounded size.
//!
//! The audit records the export before the first part leaves, and at its end how many records have left.

use std::sync::Arc;

use chrono::Utc;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::app::retention::{REQUEST_LOG_DAYS, RetentionDays};
use crate::store::error::StoreError;
use crate::store::postgres::pool::Pool;
use crate::store::privacy::export::{self, Cursor, ExportedRecords, Page, UserReader, enum_value};
use crate::store::privacy::retention::RecordKind;
use domain::consent::{ConsentInForce, PrivacyOptions, Purpose};
use domain::id::UserId;
use domain::time::Timestamp;
use recommender::snapshot::view::View;

/// The exports under way at a time. Each holds a connection to the database until its end.
static EXPORTS: Semaphore = Semaphore::const_new(2);

/// The rules under which data is held, which the export states.
#[derive(Debug, Clone, Copy)]
pub struct HoldingRules {
    pub privacy: PrivacyOptions,
    pub retention: RetentionDays,
    pub import_undo_days: u32,
}

#[derive(Debug, Clone)]
pub struct ExportRequest {
    pub user: UserId,
    /// The reason, for the audit.
    pub reason: String,
    /// `key:<id>` for an RPC, the process for a command.
    pub actor: String,
}

/// Numbers of what the loaded model holds of a user: lists of similar users would be data of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ModelHoldings {
    pub snapshot_version: i64,
    pub is_in_snapshot: bool,
    /// The effective ratings of the user, of which `purchased` follow from or are backed by purchases.
    pub ratings: u64,
    pub purchased: u64,
    /// The users whom the model lists as similar to this one.
    pub similar_users: u64,
    /// The users to whom the model lists this one as similar.
    pub listed_as_similar_to: u64,
    /// Ratings and purchases that are newer than the snapshot.
    pub fresh_interactions: u64,
}

impl ModelHoldings {
    /// Looks at all neighbor lists, which takes milliseconds for millions of users.
    pub fn new(view: &View, user: &UserId) -> Self {
        let snapshot = &view.snapshot;
        let nothing = Self {
            snapshot_version: view.version,
            is_in_snapshot: false,
            ratings: 0,
            purchased: 0,
            similar_users: 0,
            listed_as_similar_to: 0,
            fresh_interactions: view.overlay.interactions(user).len() as u64,
        };
        let Some(index) = view.user(user) else {
            return nothing;
        };
        let row = snapshot.ratings().row_range(index.at());
        let neighbors = snapshot.user_neighbors();
        Self {
            is_in_snapshot: true,
            ratings: row.len() as u64,
            purchased: row.filter(|&position| snapshot.is_purchased(position)).count() as u64,
            similar_users: neighbors.row(index.at()).0.len() as u64,
            listed_as_similar_to: neighbors.neighbors().iter().filter(|&&other| other == index.0).count() as u64,
            ..nothing
        }
    }
}

/// The reason why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the user was erased while their data was exported; the document is not whole")]
    Erased,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The lists of the document, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Attributes,
    Ratings,
    Purchases,
    ConsentHistory,
    Assignments,
    Exposures,
    Reservations,
    Redemptions,
    CouponUses,
    Ledger,
    Audit,
}

impl Section {
    const FIRST: Self = Self::Attributes;

    fn name(self) -> &'static str {
        match self {
            Self::Attributes => "attributes",
            Self::Ratings => "ratings",
            Self::Purchases => "purchases",
            Self::ConsentHistory => "consent_history",
            Self::Assignments => "assignments",
            Self::Exposures => "exposures",
            Self::Reservations => "reservations",
            Self::Redemptions => "redemptions",
            Self::CouponUses => "coupon_uses",
            Self::Ledger => "coupon_ledger",
            Self::Audit => "audit",
        }
    }

    fn next(self) -> Option<Self> {
        Some(match self {
            Self::Attributes => Self::Ratings,
            Self::Ratings => Self::Purchases,
            Self::Purchases => Self::ConsentHistory,
            Self::ConsentHistory => Self::Assignments,
            Self::Assignments => Self::Exposures,
            Self::Exposures => Self::Reservations,
            Self::Reservations => Self::Redemptions,
            Self::Redemptions => Self::CouponUses,
            Self::CouponUses => Self::Ledger,
            Self::Ledger => Self::Audit,
            Self::Audit => return None,
        })
    }
}

/// The next part of the document.
#[derive(Debug)]
enum Part {
    /// The facts before the lists.
    Head,
    /// A page of a list; without a cursor, its first.
    Page(Section, Option<Cursor>),
    /// The facts after the lists.
    Tail,
    End,
}

/// A page of a list as JSON, one text for each record.
struct Records {
    texts: Vec<String>,
    next: Option<Cursor>,
}

impl<T: Serialize> From<Page<T>> for Records {
    fn from(page: Page<T>) -> Self {
        Self {
            texts: page.rows.iter().map(to_json).collect(),
            next: page.next,
        }
    }
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| unreachable!("strings, numbers and times always serialize"))
}

/// An export under way. End it with [`UserExport::close`], which logs it.
#[derive(Debug)]
pub struct UserExport {
    pool: Pool,
    request: ExportRequest,
    rules: HoldingRules,
    model: Option<ModelHoldings>,
    reader: UserReader,
    stored_since: Timestamp,
    part: Part,
    records: u64,
    _slot: SemaphorePermit<'static>,
}

impl UserExport {
    /// Begins an export, and records it in the audit; `None` if the user is unknown. `view` is what the server answers from.
    pub async fn open(
        pool: &Pool,
        view: Option<Arc<View>>,
        rules: HoldingRules,
        request: ExportRequest,
    ) -> Result<Option<Self>, StoreError> {
        let Ok(slot) = EXPORTS.acquire().await else {
            unreachable!("the semaphore is never closed")
        };
        let Some((reader, stored_since)) = export::open(pool, &request.user).await? else {
            return Ok(None);
        };
        let records = ExportedRecords::Opened;
        export::log(pool, reader.user_id(), &request.actor, &request.reason, records).await?;
        let model = view.map(|view| {
            let user = request.user.clone();
            tokio::task::spawn_blocking(move || ModelHoldings::new(&view, &user))
        });
        let model = match model {
            // A panic is reported where it happens; the export does without these numbers.
            Some(counting) => counting.await.ok(),
            None => None,
        };
        Ok(Some(Self {
            pool: pool.clone(),
            request,
            rules,
            model,
            reader,
            stored_since,
            part: Part::Head,
            records: 0,
            _slot: slot,
        }))
    }

    /// Returns the next part of the document, or `None` at its end.
    ///
    /// # Errors
    /// [`ExportError::Erased`] once the user is erased, though the transaction that is read still sees their data.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ExportError> {
        if !matches!(self.part, Part::End) && export::is_erased(&self.pool, self.reader.user_id()).await? {
            return Err(ExportError::Erased);
        }
        let text = match std::mem::replace(&mut self.part, Part::End) {
            Part::Head => {
                self.part = Part::Page(Section::FIRST, None);
                self.head()
            }
            Part::Page(section, cursor) => self.page(section, cursor).await?,
            Part::Tail => self.tail().await?,
            Part::End => return Ok(None),
        };
        Ok(Some(text.into_bytes()))
    }

    /// Logs how many records have left.
    pub async fn close(self) -> Result<(), StoreError> {
        let records = ExportedRecords::Sent(self.records);
        let (actor, reason) = (&self.request.actor, &self.request.reason);
        export::log(&self.pool, self.reader.user_id(), actor, reason, records).await?;
        let (user, records) = (&self.request.user, self.records);
        match self.part {
            Part::End => tracing::info!(user_id = %user, records, "everything held on a user was exported"),
            _ => tracing::warn!(user_id = %user, records, "an export of a user's data was cut short"),
        }
        Ok(())
    }

    fn head(&self) -> String {
        format!(
            "{{\n\"user_id\": {},\n\"created_at\": {},\n\"exported_at\": {}",
            to_json(&self.request.user.as_str()),
            to_json(&self.stored_since),
            to_json(&Utc::now())
        )
    }

    /// Returns a page of `section`, and what stands around it.
    async fn page(&mut self, section: Section, cursor: Option<Cursor>) -> Result<String, StoreError> {
        let is_first = cursor.is_none();
        let records = self.read(section, &cursor.unwrap_or_default()).await?;
        self.records += records.texts.len() as u64;
        let mut text = match is_first {
            true => format!(",\n\"{}\": [", section.name()),
            false => ",".to_owned(),
        };
        if !records.texts.is_empty() {
            text.push('\n');
            text.push_str(&records.texts.join(",\n"));
        } else if !is_first {
            // The page before was full and nothing follows it.
            text.clear();
        }
        self.part = match (records.next, section.next()) {
            (Some(next), _) => Part::Page(section, Some(next)),
            (None, Some(next)) => Part::Page(next, None),
            (None, None) => Part::Tail,
        };
        if !matches!(self.part, Part::Page(_, Some(_))) {
            text.push(']');
        }
        Ok(text)
    }

    async fn read(&mut self, section: Section, after: &Cursor) -> Result<Records, StoreError> {
        let reader = &mut self.reader;
        Ok(match section {
            Section::Attributes => reader.attributes(after).await?.into(),
            Section::Ratings => reader.ratings(after).await?.into(),
            Section::Purchases => reader.purchases(after).await?.into(),
            Section::ConsentHistory => reader.consent_history(after).await?.into(),
            Section::Assignments => reader.assignments(after).await?.into(),
            Section::Exposures => reader.exposures(after).await?.into(),
            Section::Reservations => reader.reservations(after).await?.into(),
            Section::Redemptions => reader.redemptions(after).await?.into(),
            Section::CouponUses => reader.coupon_uses(after).await?.into(),
            Section::Ledger => reader.ledger(after).await?.into(),
            Section::Audit => reader.audit(after).await?.into(),
        })
    }

    async fn tail(&mut self) -> Result<String, StoreError> {
        let facts = [
            ("suppression", json!(self.reader.suppression().await?)),
            (
                "consents",
                consents(&self.reader.consents().await?, &self.rules.privacy),
            ),
            ("model", json!(self.model)),
            ("copies", json!(self.reader.copies().await?)),
            ("retention", retention(&self.rules)),
        ];
        let facts = facts.map(|(name, value)| format!(",\n\"{name}\": {value}"));
        Ok(format!("{}\n}}\n", facts.concat()))
    }
}

/// Returns for each purpose whether the data is used for it now, and why.
fn consents(in_force: &[ConsentInForce], privacy: &PrivacyOptions) -> Value {
    let consent = |purpose: Purpose| {
        let said = in_force.iter().find(|said| said.purpose == purpose);
        json!({
            "purpose": enum_value("PURPOSE", purpose.as_str()),
            "description": match purpose {
                Purpose::Marketing => "offering coupons to the user",
                Purpose::Profiling => "ranking items for the user by their history, and showing the user as similar to others",
                Purpose::Training => "using the user's data in the next snapshot",
            },
            "granted": said.map_or(privacy.without_record(purpose), |said| said.is_granted),
            "basis": if said.is_some() { "decision of the user" } else { "default, as the user has not decided" },
            "decided_at": said.map(|said| said.decided_at),
            "source": said.map(|said| &said.source),
        })
    };
    Purpose::ALL.map(consent).into_iter().collect()
}

/// Returns after how many days records are deleted; null stands for when the user is erased.
fn retention(rules: &HoldingRules) -> Value {
    let days = |kind: RecordKind| match (kind, rules.retention.of(kind)) {
        (RecordKind::RequestLog, None) => Some(REQUEST_LOG_DAYS),
        (_, days) => days,
    };
    let kept = RecordKind::ALL.map(|kind| json!({ "records": kind.as_str(), "days": days(kind) }));
    let copies = json!({ "records": "import_copies", "days": rules.import_undo_days });
    kept.into_iter().chain([copies]).collect()
}
