//! Reads everything that is stored about one user, at one moment, in pages of bounded size.
//!
//! The rows serialize with the field names of the API, see `rows`.

mod rows;

use domain::consent::ConsentInForce;
use domain::id::UserId;
use domain::time::Timestamp;

use crate::store::access::audit::{self, Action};
use crate::store::error::StoreError;
use crate::store::postgres::pool::{Pool, Tx, without_timeouts};

use self::rows::{
    Assignment, Attribute, AuditEntry, ConsentEvent, Copies, CouponUse, DiscountedLine, Exposure, LedgerEntry, Money,
    PurchaseLine, Rating, Redemption, Reservation, Suppression,
};

/// The most rows of a page.
const PAGE_ROWS: i64 = 500;

/// Reads what is stored about one user. It holds a transaction that only reads, so that all pages are of one moment.
#[derive(Debug)]
pub struct UserReader {
    transaction: Tx,
    user_id: i64,
}

/// A page of rows, and where the next one begins; `None` after the last one.
#[derive(Debug)]
pub struct Page<T> {
    pub rows: Vec<T>,
    pub next: Option<Cursor>,
}

/// The last row of a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    number: i64,
    text: String,
    line_number: i32,
}

impl<T> Page<T> {
    fn new<R>(rows: Vec<R>, cursor: impl Fn(&R) -> Cursor, row: impl Fn(R) -> T) -> Self {
        let next = rows.last().filter(|_| rows.len() as i64 == PAGE_ROWS).map(cursor);
        Self {
            rows: rows.into_iter().map(row).collect(),
            next,
        }
    }
}

fn at(number: i64) -> Cursor {
    Cursor {
        number,
        ..Cursor::default()
    }
}

/// Begins to read what is stored about `user`, and returns since when it is stored; `None` if the user is unknown.
pub async fn open(pool: &Pool, user: &UserId) -> Result<Option<(UserReader, Timestamp)>, StoreError> {
    let mut transaction = pool.begin_snapshot().await?;
    without_timeouts(&mut transaction).await?;
    let found = sqlx::query!(
        "SELECT id, created_at FROM users WHERE external_id = $1 AND NOT is_pseudonym",
        user.as_str()
    )
    .fetch_optional(&mut *transaction)
    .await?;
    Ok(found.map(|found| {
        let user_id = found.id;
        (UserReader { transaction, user_id }, found.created_at)
    }))
}

/// Returns whether the user with the key `user_id` was erased, as of now.
pub async fn is_erased(pool: &Pool, user_id: i64) -> Result<bool, StoreError> {
    let is_erased = sqlx::query_scalar!(
        r#"SELECT NOT EXISTS (SELECT FROM users WHERE id = $1 AND NOT is_pseudonym) AS "is_erased!""#,
        user_id
    );
    Ok(is_erased.fetch_one(&mut *pool.acquire().await?).await?)
}

/// The number of records of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportedRecords {
    /// None has left yet.
    Opened,
    /// These have left.
    Sent(u64),
}

/// Records in the audit that the data of the user with the key `user_id` is exported.
pub async fn log(
    pool: &Pool,
    user_id: i64,
    actor: &str,
    reason: &str,
    records: ExportedRecords,
) -> Result<(), StoreError> {
    let (action, row_count) = match records {
        ExportedRecords::Opened => (Action::UserExportOpened, 0),
        ExportedRecords::Sent(records) => (Action::UserExported, i64::try_from(records).unwrap_or(i64::MAX)),
    };
    let entry = audit::Entry {
        actor,
        action,
        subject: &audit::user_subject(user_id),
        note: reason,
        row_count,
        snapshot_version: None,
    };
    audit::record(&mut *pool.acquire().await?, entry).await
}

impl UserReader {
    /// Returns the number by which the tables and the audit name the user.
    pub fn user_id(&self) -> i64 {
        self.user_id
    }

    pub async fn attributes(&mut self, after: &Cursor) -> Result<Page<Attribute>, StoreError> {
        let rows = sqlx::query_as!(
            Attribute,
            "SELECT name, value FROM user_attributes WHERE user_id = $1 AND name > $2 ORDER BY name LIMIT $3",
            self.user_id,
            after.text,
            PAGE_ROWS,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        let cursor = |row: &Attribute| Cursor {
            text: row.name.clone(),
            ..Cursor::default()
        };
        Ok(Page::new(rows, cursor, |row| row))
    }

    pub async fn ratings(&mut self, after: &Cursor) -> Result<Page<Rating>, StoreError> {
        let rows = sqlx::query!(
            "SELECT items.id, items.external_id, value, rated_at
             FROM ratings JOIN items ON items.id = item_id
             WHERE user_id = $1 AND item_id > $2 ORDER BY item_id LIMIT $3",
            self.user_id,
            after.number,
            PAGE_ROWS,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(Page::new(
            rows,
            |row| at(row.id),
            |row| Rating {
                item_id: row.external_id,
                rated_at: row.value.map(|_| row.rated_at),
                deleted_at: row.value.is_none().then_some(row.rated_at),
                value: row.value,
            },
        ))
    }

    pub async fn purchases(&mut self, after: &Cursor) -> Result<Page<PurchaseLine>, StoreError> {
        let rows = sqlx::query!(
            "SELECT items.id, order_id, line_number, items.external_id, quantity, line_total_minor,
                    purchases.currency_code, coupon_discount_minor, purchased_at
             FROM purchases JOIN items ON items.id = item_id
             WHERE user_id = $1 AND item_id >= $2 AND (item_id, order_id, line_number) > ($2, $3, $4)
             ORDER BY item_id, order_id, line_number LIMIT $5",
            self.user_id,
            after.number,
            after.text,
            after.line_number,
            PAGE_ROWS,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(Page::new(
            rows,
            |row| Cursor {
                number: row.id,
                text: row.order_id.clone(),
                line_number: row.line_number,
            },
            |row| PurchaseLine {
                order_id: row.order_id,
                line_number: row.line_number,
                item_id: row.external_id,
                quantity: row.quantity,
                line_total: Money {
                    amount_minor: row.line_total_minor,
                    currency_code: row.currency_code,
                },
                coupon_discount_minor: row.coupon_discount_minor,
                purchased_at: row.purchased_at,
            },
        ))
    }

    pub async fn consent_history(&mut self, after: &Cursor) -> Result<Page<ConsentEvent>, StoreError> {
        let rows = sqlx::query!(
            "SELECT id, purpose, is_granted, decided_at, source, recorded_at FROM consent_events
             WHERE user_id = $1 AND id > $2 ORDER BY id LIMIT $3",
            self.user_id,
            after.number,
            PAGE_ROWS,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(Page::new(
            rows,
            |row| at(row.id),
            |row| ConsentEvent {
                purpose: enum_value("PURPOSE", &row.purpose),
                granted: row.is_granted,
                decided_at: row.decided_at,
                source: row.source,
                recorded_at: row.recorded_at,
            },
        ))
    }

    /// Reads the decisions in force.
    pub async fn consents(&mut self) -> Result<Vec<ConsentInForce>, StoreError> {
        let rows = sqlx::query!(
            "SELECT purpose, is_granted, decided_at, source FROM consents WHERE user_id = $1",
            self.user_id,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(ConsentInForce {
                    purpose: row
                        .purpose
                        .parse()
                        .map_err(|error| StoreError::corrupt("consents", error))?,
                    is_granted: row.is_granted,
                    decided_at: row.decided_at,
                    source: row.source,
                })
            })
            .collect()
    }

    pub async fn suppression(&mut self) -> Result<Option<Suppression>, StoreError> {
        let found = sqlx::query_as!(
            Suppression,
            "SELECT reason, suppressed_at FROM suppressions WHERE user_id = $1",
            self.user_id,
        );
        Ok(found.fetch_optional(&mut *self.transaction).await?)
    }

    pub async fn assignments(&mut self, after: &Cursor) -> Result<Page<Assignment>, StoreError> {
        let rows = sqlx::query!(
            "SELECT campaigns.id, external_id, assigned_at
             FROM assignments JOIN campaigns ON campaigns.id = campaign_id
             WHERE user_id = $1 AND campaign_id > $2 ORDER BY campaign_id LIMIT $3",
            self.user_id,
            after.number,
            PAGE_ROWS,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(Page::new(
            rows,
            |row| at(row.id),
            |row| Assignment {
                campaign_id: row.external_id,
                assigned_at: row.assigned_at,
            },
        ))
    }

    pub async fn exposures(&mut self, after: &Cursor) -> Result<Page<Exposure>, StoreError> {
        let rows = sqlx::query!(
            "SELECT coupons.id, coupons.external_id AS coupon, campaigns.external_id AS campaign, is_held_out,
                    snapshot_version, exposed_at
             FROM exposures JOIN coupons ON coupons.id = coupon_id JOIN campaigns ON campaigns.id = exposures.campaign_id
             WHERE user_id = $1 AND coupon_id > $2 ORDER BY coupon_id LIMIT $3",
            self.user_id,
            after.number,
            PAGE_ROWS,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(Page::new(
            rows,
            |row| at(row.id),
            |row| Exposure {
                coupon_id: row.coupon,
                campaign_id: row.campaign,
                held_out: row.is_held_out,
                snapshot_version: row.snapshot_version,
                exposed_at: row.exposed_at,
            },
        ))
    }

    pub async fn reservations(&mut self, after: &Cursor) -> Result<Page<Reservation>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT reservations.id, reservations.external_id, coupons.external_id AS coupon,
                      campaigns.external_id AS campaign, cart_id, reservations.amount_minor, currency_code, share_items,
                      share_minors, reserved_at, expires_at, closed_at,
                      CASE WHEN state = 'reserved' AND expires_at <= now() THEN 'expired' ELSE state END AS "state!"
               FROM reservations JOIN coupons ON coupons.id = coupon_id
               JOIN campaigns ON campaigns.id = reservations.campaign_id
               WHERE user_id = $1 AND reservations.id > $2 ORDER BY reservations.id LIMIT $3"#,
            self.user_id,
            after.number,
            PAGE_ROWS,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(Page::new(
            rows,
            |row| at(row.id),
            |row| Reservation {
                reservation_id: row.external_id,
                coupon_id: row.coupon,
                campaign_id: row.campaign,
                cart_id: row.cart_id,
                amount: Money {
                    amount_minor: row.amount_minor,
                    currency_code: row.currency_code,
                },
                lines: lines(row.share_items, row.share_minors),
                state: enum_value("RESERVATION_STATE", &row.state),
                reserved_at: row.reserved_at,
                expires_at: row.expires_at,
                closed_at: row.closed_at,
            },
        ))
    }

    pub async fn redemptions(&mut self, after: &Cursor) -> Result<Page<Redemption>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT redemptions.id, redemptions.external_id, reservations.external_id AS "reservation?",
                      coupons.external_id AS coupon, campaigns.external_id AS campaign, order_id,
                      redemptions.amount_minor, currency_code, rolled_back_minor, is_cap_restored, redeemed_at
               FROM redemptions JOIN coupons ON coupons.id = redemptions.coupon_id
               JOIN campaigns ON campaigns.id = redemptions.campaign_id
               LEFT JOIN reservations ON reservations.id = reservation_id
               WHERE redemptions.user_id = $1 AND redemptions.id > $2 ORDER BY redemptions.id LIMIT $3"#,
            self.user_id,
            after.number,
            PAGE_ROWS,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(Page::new(
            rows,
            |row| at(row.id),
            |row| Redemption {
                redemption_id: row.external_id,
                reservation_id: row.reservation,
                coupon_id: row.coupon,
                campaign_id: row.campaign,
                order_id: row.order_id,
                amount: Money {
                    amount_minor: row.amount_minor,
                    currency_code: row.currency_code,
                },
                rolled_back_minor: row.rolled_back_minor,
                cap_restored: row.is_cap_restored,
                redeemed_at: row.redeemed_at,
            },
        ))
    }

    pub async fn coupon_uses(&mut self, after: &Cursor) -> Result<Page<CouponUse>, StoreError> {
        let rows = sqlx::query!(
            "SELECT coupons.id, external_id, cap, reserved, redeemed
             FROM user_coupon_counters JOIN coupons ON coupons.id = coupon_id
             WHERE user_id = $1 AND coupon_id > $2 ORDER BY coupon_id LIMIT $3",
            self.user_id,
            after.number,
            PAGE_ROWS,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(Page::new(
            rows,
            |row| at(row.id),
            |row| CouponUse {
                coupon_id: row.external_id,
                per_user_cap: row.cap,
                reserved: row.reserved,
                redeemed: row.redeemed,
            },
        ))
    }

    pub async fn ledger(&mut self, after: &Cursor) -> Result<Page<LedgerEntry>, StoreError> {
        let rows = sqlx::query!(
            r#"SELECT coupon_ledger.id, at, entry, campaigns.external_id AS campaign, coupons.external_id AS coupon,
                      reservations.external_id AS "reservation?", redemptions.external_id AS "redemption?",
                      reserved_minor, spent_minor, reserved, redeemed
               FROM coupon_ledger JOIN coupons ON coupons.id = coupon_ledger.coupon_id
               JOIN campaigns ON campaigns.id = coupon_ledger.campaign_id
               LEFT JOIN reservations ON reservations.id = coupon_ledger.reservation_id
               LEFT JOIN redemptions ON redemptions.id = coupon_ledger.redemption_id
               WHERE coupon_ledger.user_id = $1 AND coupon_ledger.id > $2 ORDER BY coupon_ledger.id LIMIT $3"#,
            self.user_id,
            after.number,
            PAGE_ROWS,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(Page::new(
            rows,
            |row| at(row.id),
            |row| LedgerEntry {
                at: row.at,
                entry: row.entry,
                campaign_id: row.campaign,
                coupon_id: row.coupon,
                reservation_id: row.reservation,
                redemption_id: row.redemption,
                reserved_minor: row.reserved_minor,
                spent_minor: row.spent_minor,
                reserved: row.reserved,
                redeemed: row.redeemed,
            },
        ))
    }

    /// Reads the audit without who did something, which is data of somebody else.
    pub async fn audit(&mut self, after: &Cursor) -> Result<Page<AuditEntry>, StoreError> {
        let rows = sqlx::query!(
            "SELECT id, at, action, note, row_count FROM audit WHERE subject = $1 AND id > $2 ORDER BY id LIMIT $3",
            audit::user_subject(self.user_id),
            after.number,
            PAGE_ROWS,
        )
        .fetch_all(&mut *self.transaction)
        .await?;
        Ok(Page::new(
            rows,
            |row| at(row.id),
            |row| AuditEntry {
                at: row.at,
                action: row.action,
                note: row.note,
                row_count: row.row_count,
            },
        ))
    }

    /// Counts the copies of what the other pages hold.
    pub async fn copies(&mut self) -> Result<Copies, StoreError> {
        let copies = sqlx::query_as!(
            Copies,
            r#"SELECT (SELECT count(*) FROM request_log
                       WHERE response ->> 'user' = (SELECT external_id FROM users WHERE id = $1)) AS "request_log!",
                      (SELECT count(*) FROM import_copies WHERE user_id = $1) AS "import_copies!",
                      (SELECT COALESCE(sum(cardinality(array_positions(user_ids, $1))), 0)::bigint
                       FROM import_overwritten_ratings WHERE $1 = ANY (user_ids)) AS "import_overwritten_ratings!""#,
            self.user_id,
        );
        Ok(copies.fetch_one(&mut *self.transaction).await?)
    }
}

fn lines(items: Vec<String>, discounts_minor: Vec<i64>) -> Vec<DiscountedLine> {
    let line = |(item_id, discount_minor)| DiscountedLine {
        item_id,
        discount_minor,
    };
    items.into_iter().zip(discounts_minor).map(line).collect()
}

/// Returns the name that the API has for a value of an enum, from the name in storage.
pub fn enum_value(prefix: &str, stored: &str) -> String {
    format!("{prefix}_{}", stored.to_ascii_uppercase())
}
