//! Questions about recordings.

use consent::RecordingId;

use super::calls::{rule_version, utc};
use super::rows::{RecordingDetails, RecordingFilter, RecordingListed};
use super::{Store, StoreError, json, unsigned, value};

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
