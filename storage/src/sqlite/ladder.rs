//! The ladders of calls. A ladder comes in parts; a rung that comes again has been repeated on the wire.

use consent::CallId;
use serde::Serialize;
use sqlx::SqliteConnection;

use super::{Store, StoreError, to_json, value};
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

/// Places parts of ladders; nothing of one whose call is not known.
pub(super) async fn place(
    connection: &mut SqliteConnection,
    parts: &[&LadderPart],
) -> Result<(), StoreError> {
    if parts.is_empty() {
        return Ok(());
    }
    let json = to_json("ladder", &parts)?;
    sqlx::query!(
        "INSERT INTO ladder (call_id, left_out, retention)
         SELECT call.id, value ->> 'left_out', retention
         FROM jsonb_each($1) CROSS JOIN call ON call.id = value ->> 'call'
         WHERE true
         ON CONFLICT (call_id) DO UPDATE SET left_out = max(left_out, excluded.left_out)",
        json
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "INSERT INTO rung (call_id, position, after_ms, leg, peer, sent, message, method, sdp, repeats)
         SELECT call_id, rung.value ->> 'position', rung.value ->> 'after_ms', rung.value ->> 'leg',
                rung.value ->> 'peer', rung.value ->> 'sent', rung.value ->> 'message', rung.value ->> 'method',
                rung.value ->> 'sdp', rung.value ->> 'repeats'
         FROM jsonb_each($1) AS part CROSS JOIN ladder ON call_id = part.value ->> 'call'
             CROSS JOIN jsonb_each(part.value, '$.rungs') AS rung
         WHERE true
         ON CONFLICT (call_id, position) DO UPDATE SET repeats = max(repeats, excluded.repeats)",
        json
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn count(count: i64) -> u32 {
    u32::try_from(count).unwrap_or(0)
}
