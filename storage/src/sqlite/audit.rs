//! The audit log in the database: one chain for all that append to it.

use std::fmt;

use consent::Wall;
use serde::Serialize;
use sqlx::SqliteConnection;

use super::{Store, StoreError, signed, unsigned};
use crate::Utc;
use crate::audit::{AuditEntry, AuditHead, AuditReport, GENESIS, Hash, Verification};

/// How many rows are verified at once.
const PAGE: i64 = 1_000;

/// Which rows of the audit log.
#[derive(Clone, Debug)]
pub struct AuditFilter {
    /// At most so many, the latest; all by default.
    pub limit: u32,
    /// Only what was done on or after.
    pub since: Option<Wall>,
    /// Only this action.
    pub action: Option<String>,
    /// Only what was done on this object.
    pub object: Option<String>,
}

impl Default for AuditFilter {
    fn default() -> Self {
        Self { limit: u32::MAX, since: None, action: None, object: None }
    }
}

/// A row of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "they say what they are")]
pub struct AuditRow {
    pub seq: u64,
    pub at: String,
    pub actor: String,
    pub action: String,
    pub object: Option<String>,
    pub detail: Option<String>,
    pub hash: Hash,
}

impl Store {
    /// Appends to the audit log; the new head. Waits for another process that is appending.
    ///
    /// # Errors
    /// If the database is locked for longer than it waits, or away.
    pub async fn audit_append(
        &self,
        actor: &str,
        action: &str,
        object: Option<String>,
        detail: Option<String>,
        at: Wall,
    ) -> Result<AuditHead, StoreError> {
        let mut transaction = self.begin().await?;
        let head = append(&mut transaction, actor, action, object.as_deref(), detail.as_deref(), at).await?;
        transaction.commit().await?;
        self.note_head(&head).await;
        Ok(head)
    }

    /// Rows of the audit log, oldest first.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditRow>, StoreError> {
        let (limit, since) = (i64::from(filter.limit), filter.since.map(|since| since.0));
        let mut rows = sqlx::query!(
            "SELECT seq, at, actor, action, object, detail, hash FROM audit
             WHERE ($1 IS NULL OR at >= $1) AND ($2 IS NULL OR action = $2) AND ($3 IS NULL OR object = $3)
             ORDER BY seq DESC LIMIT $4",
            since,
            filter.action,
            filter.object,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        rows.reverse();
        let rows = rows.into_iter().map(|row| AuditRow {
            seq: unsigned(row.seq),
            at: Utc(Wall(row.at)).to_string(),
            actor: row.actor,
            action: row.action,
            object: row.object,
            detail: row.detail,
            hash: stored_hash(&row.hash),
        });
        Ok(rows.collect())
    }

    /// Walks the whole chain.
    ///
    /// # Errors
    /// If the database or the head file cannot be read. A chain that is broken is no error: see
    /// [`AuditReport::fault`].
    pub async fn audit_verify(&self) -> Result<AuditReport, StoreError> {
        // Read before the rows: what another process appends meanwhile is beyond it, not missing.
        let mut verification = Verification::new(self.head.read()?);
        let mut after = i64::MIN;
        loop {
            let rows = sqlx::query!(
                r#"SELECT seq, at, actor, action, object, detail, previous, hash FROM audit
                   WHERE seq > $1 ORDER BY seq LIMIT $2"#,
                after,
                PAGE
            )
            .fetch_all(&self.pool)
            .await?;
            let Some(last) = rows.last() else { break };
            after = last.seq;
            for row in rows {
                let (previous, hash) = (stored_hash(&row.previous), stored_hash(&row.hash));
                let entry = AuditEntry {
                    seq: unsigned(row.seq),
                    at: Wall(row.at),
                    actor: row.actor,
                    action: row.action,
                    object: row.object,
                    detail: row.detail,
                };
                if !verification.row(&entry, &previous, &hash) {
                    return Ok(verification.end());
                }
            }
        }
        Ok(verification.end())
    }

    /// Names the head outside the database, unless what is named there is no longer in the log: then the
    /// file stays as it is, as the witness that [`audit_verify`](Self::audit_verify) needs. A failure is
    /// logged: the row is in the log, and the next append names a later one.
    pub(super) async fn note_head(&self, head: &AuditHead) {
        match self.continues(head).await {
            Ok(true) => {
                if let Err(error) = self.head.write(head) {
                    tracing::error!(%error, "the audit log's head file was not written");
                }
            }
            Ok(false) => tracing::error!(
                row = head.count,
                "the audit log does not hold what its head file names, or the file is gone: verify it"
            ),
            Err(error) => tracing::error!(%error, "the audit log's head file was not compared with the log"),
        }
    }

    async fn continues(&self, head: &AuditHead) -> Result<bool, StoreError> {
        let Some(named) = self.head.read()? else { return Ok(head.count <= 1) };
        if named.count == 0 {
            return Ok(true);
        }
        let seq = signed(named.count);
        let row = sqlx::query_scalar!("SELECT hash FROM audit WHERE seq = $1", seq)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.is_some_and(|hash| stored_hash(&hash) == named.hash))
    }

    /// Makes the head file of a log without rows, so that its absence means something later.
    pub(super) async fn begin_head(&self) -> Result<(), StoreError> {
        let rows = sqlx::query_scalar!("SELECT count(*) FROM (SELECT 1 FROM audit LIMIT 1)")
            .fetch_one(&self.pool)
            .await?;
        if rows == 0 {
            self.head.write(&AuditHead { count: 0, hash: GENESIS })?;
        }
        Ok(())
    }
}

/// Appends within a transaction that began `IMMEDIATE`: nobody else can append in between.
pub(super) async fn append(
    connection: &mut SqliteConnection,
    actor: &str,
    action: &str,
    object: Option<&str>,
    detail: Option<&str>,
    at: Wall,
) -> Result<AuditHead, StoreError> {
    let last = sqlx::query!("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
        .fetch_optional(&mut *connection)
        .await?;
    let (count, previous) = last.map_or((0, GENESIS), |row| (unsigned(row.seq), stored_hash(&row.hash)));
    let entry = AuditEntry {
        seq: count + 1,
        at,
        actor: actor.to_owned(),
        action: action.to_owned(),
        object: object.map(str::to_owned),
        detail: detail.map(str::to_owned),
    };
    let hash = entry.hash(&previous);
    let (seq, before, after) = (signed(entry.seq), previous.0.to_vec(), hash.0.to_vec());
    sqlx::query!(
        "INSERT INTO audit (seq, at, actor, action, object, detail, previous, hash)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        seq,
        at.0,
        actor,
        action,
        object,
        detail,
        before,
        after
    )
    .execute(connection)
    .await?;
    Ok(AuditHead { count: entry.seq, hash })
}

impl AuditReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn intact(&self) -> bool {
        self.fault.is_none()
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fault {
            None => write!(f, "the audit log is whole: {} rows, head {}", self.count, self.head),
            Some(fault) => write!(
                f,
                "the audit log was tampered with or damaged: {fault}; {} rows before are whole",
                self.count
            ),
        }
    }
}

/// A stored hash; one of another length is none, and no row's.
fn stored_hash(bytes: &[u8]) -> Hash {
    Hash(bytes.try_into().unwrap_or([0xff; 32]))
}
