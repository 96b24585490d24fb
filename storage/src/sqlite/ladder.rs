//! The ladders of calls. A ladder comes in parts; a rung that comes again has been repeated on the wire.

use std::collections::BTreeMap;

use consent::CallId;
use serde::Serialize;
use sqlx::SqliteConnection;

use super::{Store, StoreError, json, to_json};
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
        let parts = sqlx::query_scalar!("SELECT rungs FROM ladder_part WHERE call_id = $1 ORDER BY part", id)
            .fetch_all(&self.pool)
            .await?;
        let mut rungs = BTreeMap::new();
        for part in parts {
            for rung in json::<Vec<Rung>>("ladder", &part)? {
                let kept = rungs.entry(rung.position).or_insert_with(|| rung.clone());
                kept.repeats = kept.repeats.max(rung.repeats);
            }
        }
        let rungs = rungs.into_values().collect();
        Ok(Some(LadderRow { call_id: call, rungs, left_out: count(left_out) }))
    }
}

/// Places parts of ladders, one a call; nothing of one whose call is not known.
pub(super) async fn place(
    connection: &mut SqliteConnection,
    parts: &BTreeMap<CallId, &LadderPart>,
) -> Result<(), StoreError> {
    if parts.is_empty() {
        return Ok(());
    }
    let json = to_json("ladder", &parts.values().collect::<Vec<_>>())?;
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
        "INSERT INTO ladder_part (call_id, part, rungs)
         SELECT call_id, (SELECT count(*) FROM ladder_part WHERE call_id = ladder.call_id), value -> 'rungs'
         FROM jsonb_each($1) CROSS JOIN ladder ON call_id = value ->> 'call'",
        json
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn count(count: i64) -> u32 {
    u32::try_from(count).unwrap_or(0)
}
