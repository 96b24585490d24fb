//! The ladders of calls. A ladder comes in parts; a rung that comes again has been repeated on the wire.

use consent::CallId;
use serde::Serialize;
use sqlx::SqliteConnection;

use super::{Store, StoreError, value, word};
use crate::entry::{LadderPart, Rung};

/// What is known of a call's SIP messages.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LadderRow {
    /// The call.
    pub call_id: CallId,
    /// Its messages, in order.
    pub rungs: Vec<Rung>,
    /// How many more there were than are kept.
    pub left_out: u32,
}

impl Store {
    /// The ladder of a call; `None` if none is known, because there is no such call, it has just begun, or
    /// its ladder was shed.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn ladder(&self, call: CallId) -> Result<Option<LadderRow>, StoreError> {
        let id = call.to_string();
        let left_out = sqlx::query_scalar!("SELECT left_out FROM ladder WHERE call_id = $1", id)
            .fetch_optional(&self.pool)
            .await?;
        let Some(left_out) = left_out else { return Ok(None) };
        let rows = sqlx::query!(
            r#"SELECT position, after_ms, leg, peer, sent AS "sent!: bool", message, method, sdp AS "sdp!: bool", repeats
               FROM rung WHERE call_id = $1 ORDER BY position"#,
            id
        )
        .fetch_all(&self.pool)
        .await?;
        let rungs = rows.into_iter().map(|row| {
            Ok(Rung {
                position: u16::try_from(row.position).unwrap_or(u16::MAX),
                after_ms: count(row.after_ms),
                leg: value("leg", row.leg)?,
                peer: row.peer,
                sent: row.sent,
                message: row.message,
                method: row.method,
                sdp: row.sdp,
                repeats: count(row.repeats),
            })
        });
        let rungs = rungs.collect::<Result<_, StoreError>>()?;
        Ok(Some(LadderRow { call_id: call, rungs, left_out: count(left_out) }))
    }
}

/// Places a part of a ladder; nothing of one whose call is not known.
pub(super) async fn place(connection: &mut SqliteConnection, part: &LadderPart) -> Result<(), StoreError> {
    let call = part.call.to_string();
    let known = sqlx::query!(
        "INSERT INTO ladder (call_id, left_out, retention) SELECT id, $2, retention FROM call WHERE id = $1
         ON CONFLICT (call_id) DO UPDATE SET left_out = max(left_out, excluded.left_out)",
        call,
        part.left_out
    )
    .execute(&mut *connection)
    .await?;
    if known.rows_affected() == 0 {
        return Ok(());
    }
    for rung in &part.rungs {
        let leg = word(&rung.leg)?;
        sqlx::query!(
            "INSERT INTO rung (call_id, position, after_ms, leg, peer, sent, message, method, sdp, repeats)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (call_id, position) DO UPDATE SET repeats = max(repeats, excluded.repeats)",
            call,
            rung.position,
            rung.after_ms,
            leg,
            rung.peer,
            rung.sent,
            rung.message,
            rung.method,
            rung.sdp,
            rung.repeats
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

fn count(count: i64) -> u32 {
    u32::try_from(count).unwrap_or(0)
}
