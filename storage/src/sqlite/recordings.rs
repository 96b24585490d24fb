//! Recordings: entering them, and questions about them.

use consent::{CallId, RecordingId, RetentionTag, Wall};
use sqlx::SqliteConnection;

use super::calls::{rule_version, utc};
use super::place::{Placed, REFUSED};
use super::rows::{RecordingDetails, RecordingFilter, RecordingListed};
use super::{Store, StoreError, json, signed, to_json, unsigned, value, word};
use crate::entry::RecordingRow;

struct Stored {
    id: String,
    call_id: String,
    state: String,
    line: Option<String>,
    started_at: i64,
    ended_at: Option<i64>,
    duration_s: Option<f64>,
    basis: String,
    rule_version: Option<i64>,
    channels: String,
    codec: Option<String>,
    bytes: Option<i64>,
    sha256: Option<String>,
    retention: String,
    object: Option<String>,
    wrapped_key: Option<Vec<u8>>,
    intervals: String,
    gaps: String,
    quarantine: String,
    failed_at: Option<i64>,
}

impl Store {
    /// Recordings, the latest first.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn recordings(&self, filter: &RecordingFilter) -> Result<Vec<RecordingListed>, StoreError> {
        let (limit, before) = (i64::from(filter.limit), filter.before.map(|recording| recording.to_string()));
        let (since, until) = (filter.since.map(|at| at.0), filter.until.map(|at| at.0));
        let call = filter.call.map(|call| call.to_string());
        let rows = sqlx::query_as!(
            Stored,
            r#"SELECT r.id, r.call_id, r.state, r.line, r.started_at, r.ended_at, r.duration_s, r.basis,
                      r.rule_version, r.channels, r.codec, r.bytes, r.sha256, r.retention, r.object, r.wrapped_key,
                      r.intervals, r.gaps, r.quarantine, r.failed_at
               FROM recording r
               WHERE ($1 IS NULL OR r.line = $1)
                 AND ($2 IS NULL OR r.started_at >= $2)
                 AND ($3 IS NULL OR r.started_at < $3)
                 AND ($4 IS NULL OR r.call_id = $4)
                 AND ($5 IS NULL OR (r.started_at, r.id) < (SELECT p.started_at, p.id FROM recording p WHERE p.id = $5))
               ORDER BY r.started_at DESC, r.id DESC LIMIT $6"#,
            filter.line,
            since,
            until,
            call,
            before,
            limit
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(|row| details(row).map(|details| details.recording)).collect()
    }

    /// One recording; `None` if there is none.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn recording(&self, recording: RecordingId) -> Result<Option<RecordingDetails>, StoreError> {
        let id = recording.to_string();
        let row = sqlx::query_as!(
            Stored,
            "SELECT id, call_id, state, line, started_at, ended_at, duration_s, basis, rule_version, channels, codec,
                    bytes, sha256, retention, object, wrapped_key, intervals, gaps, quarantine, failed_at
             FROM recording WHERE id = $1",
            id
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(details).transpose()
    }
}

fn details(row: Stored) -> Result<RecordingDetails, StoreError> {
    let recording = RecordingListed {
        id: value("id", row.id)?,
        call_id: value("id", row.call_id)?,
        line: row.line,
        started_at: utc(row.started_at),
        ended_at: row.ended_at.map(utc),
        duration_s: row.duration_s,
        basis: value("basis", row.basis)?,
        rule_version: row.rule_version.map(rule_version),
        channels: json("channel", &row.channels)?,
        codec: row.codec,
        bytes: row.bytes.map(unsigned),
        sha256: row.sha256,
        retention: value("retention tag", row.retention)?,
        retain_until: None,
        holds: Vec::new(),
        state: value("state of a recording", row.state)?,
        quarantine: json("reason", &row.quarantine)?,
        intervals: json("interval", &row.intervals)?,
        gaps: json("gap", &row.gaps)?,
        failed_at: row.failed_at.map(utc),
    };
    Ok(RecordingDetails { recording, object: row.object, wrapped_key: row.wrapped_key.unwrap_or_default() })
}

/// A recording has begun. Its rules are those of the call's last decision.
pub(super) async fn begin(
    connection: &mut SqliteConnection,
    call: CallId,
    recording: RecordingId,
    basis: &str,
    retention: &RetentionTag,
    at: Wall,
) -> Result<Placed, StoreError> {
    let (call, id, retention) = (call.to_string(), recording.to_string(), retention.as_str());
    sqlx::query!(
        "INSERT INTO recording (id, call_id, state, line, started_at, basis, rule_version, retention)
         SELECT $1, $2, 'open', (SELECT line FROM call WHERE id = $2), $3, $4,
                (SELECT rule_version FROM decision WHERE call_id = $2 ORDER BY id DESC LIMIT 1), $5
         WHERE true
         ON CONFLICT (id) DO NOTHING",
        id,
        call,
        at.0,
        basis,
        retention
    )
    .execute(connection)
    .await?;
    Ok(Placed::Yes)
}

/// A recording is sealed and its object stored. The first seal holds.
pub(super) async fn seal(
    connection: &mut SqliteConnection,
    row: &RecordingRow,
) -> Result<Placed, StoreError> {
    let (id, call) = (row.id.to_string(), row.call.to_string());
    let (line, basis, retention) =
        (row.line.as_ref().map(|line| line.as_str()), word(&row.basis)?, row.retention.as_str());
    let (channels, quarantine) = (to_json("channel", &row.channels)?, to_json("reason", &row.quarantine)?);
    let (intervals, gaps) = (to_json("interval", &row.intervals)?, to_json("gap", &row.gaps)?);
    let bytes = signed(row.bytes);
    // Not hexadecimal: NULL, which a sealed row refuses.
    let wrapped_key = hex::decode(&row.wrapped_key).ok();
    let stored = sqlx::query!(
        "INSERT INTO recording (id, call_id, state, line, started_at, ended_at, duration_s, basis, rule_version,
                                channels, codec, bytes, sha256, retention, object, wrapped_key, intervals, gaps,
                                quarantine)
         SELECT $1, $2, 'sealed', coalesce($3, (SELECT line FROM call WHERE id = $2)), $4, $5, $6, $7, $8, $9, $10,
                $11, $12, $13, $14, $15, $16, $17, $18
         WHERE true
         ON CONFLICT (id) DO UPDATE SET
             state = 'sealed', line = coalesce(excluded.line, recording.line), started_at = excluded.started_at,
             ended_at = excluded.ended_at, duration_s = excluded.duration_s, basis = excluded.basis,
             rule_version = excluded.rule_version, channels = excluded.channels, codec = excluded.codec,
             bytes = excluded.bytes, sha256 = excluded.sha256, retention = excluded.retention,
             object = excluded.object, wrapped_key = excluded.wrapped_key, intervals = excluded.intervals,
             gaps = excluded.gaps, quarantine = excluded.quarantine
         WHERE recording.state = 'open'",
        id,
        call,
        line,
        row.started_at.0,
        row.ended_at.0,
        row.duration_s,
        basis,
        row.rule_version.0,
        channels,
        row.codec,
        bytes,
        row.sha256,
        retention,
        row.object,
        wrapped_key,
        intervals,
        gaps,
        quarantine
    )
    .execute(&mut *connection)
    .await?;
    if stored.rows_affected() > 0 {
        return Ok(Placed::Yes);
    }
    // Sealed before. The same again is what a crash between storing and clearing the spool leaves.
    let sha256 =
        sqlx::query_scalar!("SELECT sha256 FROM recording WHERE id = $1", id).fetch_one(connection).await?;
    Ok(if sha256.as_deref() == Some(row.sha256.as_str()) { Placed::Yes } else { REFUSED })
}

/// A recording cannot go on.
pub(super) async fn fail(
    connection: &mut SqliteConnection,
    recording: Option<RecordingId>,
    at: Wall,
) -> Result<Placed, StoreError> {
    let Some(id) = recording.map(|recording| recording.to_string()) else { return Ok(Placed::Yes) };
    sqlx::query!("UPDATE recording SET failed_at = coalesce(failed_at, $2) WHERE id = $1", id, at.0)
        .execute(connection)
        .await?;
    Ok(Placed::Yes)
}
