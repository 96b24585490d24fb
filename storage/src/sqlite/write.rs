//! Writes what a batch of entries does, each table in one statement, or two where rows begin and change. The rows
//! go as one JSON document, so that a statement's text is the same for any number of them.

use std::collections::BTreeMap;

use consent::{CallId, Decision, Leg, PartyConsent, Signal, SignalSource, Wall};
use serde::Serialize;
use sqlx::SqliteConnection;

use super::batch::{Batch, Change, Identity, PartyChange};
use super::place::{CALL_UNKNOWN, Placed, REFUSED};
use super::{StoreError, ladder, recordings, to_json, word};
use crate::audit::AuditHead;
use crate::{CallEnded, CallStarted, Entry, Stamped};

/// The tag of the consent ledger: written evidence outlives the recording it stands for.
const LEDGER_TAG: &str = "RT-CONSENT-EVID";

type Changes<'a> = BTreeMap<CallId, Change<'a>>;

/// Writes a batch; what it enters in the audit log makes `head` anew. Where the answer is no, some of it may be
/// written all the same: the caller takes it back.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    batch: &Batch<'_>,
    head: &mut Option<AuditHead>,
) -> Result<Placed, StoreError> {
    let calls = &batch.calls;
    if !are_known(connection, calls).await? {
        return Ok(CALL_UNKNOWN);
    }
    if !begin_calls(connection, calls).await? || !change_calls(connection, calls).await? {
        return Ok(REFUSED);
    }
    add_legs(connection, calls).await?;
    link_calls(connection, calls).await?;
    join_callees(connection, calls).await?;
    join_parties(connection, calls).await?;
    change_parties(connection, calls).await?;
    enter_decisions(connection, calls).await?;
    turn_gates(connection, calls).await?;
    enter_ledger(connection, calls).await?;
    end_calls(connection, calls).await?;
    ladder::place(connection, &batch.ladders).await?;
    for stamped in &batch.others {
        if let Placed::No(why) = enter_other(connection, stamped, head).await? {
            return Ok(Placed::No(why));
        }
    }
    Ok(Placed::Yes)
}

/// Whether the calls that do not begin here are in the database.
async fn are_known(connection: &mut SqliteConnection, calls: &Changes<'_>) -> Result<bool, StoreError> {
    let older: Vec<CallId> =
        calls.iter().filter(|(_, change)| change.started.is_none()).map(|(call, _)| *call).collect();
    if older.is_empty() {
        return Ok(true);
    }
    let ids = to_json("id", &older)?;
    let known = sqlx::query_scalar!(
        "SELECT count(*) FROM jsonb_each($1) AS older CROSS JOIN call ON call.id = older.value",
        ids
    )
    .fetch_one(connection)
    .await?;
    Ok(usize::try_from(known) == Ok(older.len()))
}

/// A call as far as a batch tells of it.
#[derive(Serialize)]
struct CallRow<'a> {
    id: CallId,
    started_at: Option<Wall>,
    started: Option<&'a CallStarted>,
    ringing_at: Option<Wall>,
    answered_at: Option<Wall>,
    ended_at: Option<Wall>,
    ended: Option<&'a CallEnded>,
}

impl<'a> CallRow<'a> {
    fn of((id, change): (&CallId, &Change<'a>)) -> Self {
        Self {
            id: *id,
            started_at: change.started.map(|(at, _)| at),
            started: change.started.map(|(_, started)| started),
            ringing_at: change.ringing_at,
            answered_at: change.answered_at,
            ended_at: change.ended.map(|(at, _)| at),
            ended: change.ended.map(|(_, ended)| ended),
        }
    }

    /// Whether a row that is there already would change.
    const fn changes(&self) -> bool {
        self.started.is_none()
            && (self.ringing_at.is_some() || self.answered_at.is_some() || self.ended.is_some())
    }
}

/// Whether all could begin: each once.
async fn begin_calls(connection: &mut SqliteConnection, calls: &Changes<'_>) -> Result<bool, StoreError> {
    let rows: Vec<_> = calls.iter().map(CallRow::of).filter(|row| row.started.is_some()).collect();
    if rows.is_empty() {
        return Ok(true);
    }
    let json = to_json("call", &rows)?;
    let begun = sqlx::query!(
        "INSERT INTO call (id, node, line, line_class, retention, direction, caller, callee, privacy, emergency,
                           verstat, attestation, foreign_caller_id, started_at, ringing_at, answered_at, ended_at,
                           outcome, final_status, ended_by, recording_outcome, basis, end_cause)
         SELECT value ->> 'id', value ->> '$.started.node', value ->> '$.started.line',
                value ->> '$.started.line_class', value ->> '$.started.retention', value ->> '$.started.direction',
                value ->> '$.started.from', value ->> '$.started.to', value ->> '$.started.privacy',
                value ->> '$.started.emergency', value ->> '$.started.identity_verdict.verstat',
                value ->> '$.started.identity_verdict.attestation', value ->> '$.started.foreign_caller_id',
                value ->> 'started_at', value ->> 'ringing_at',
                value ->> 'answered_at', value ->> 'ended_at', coalesce(value ->> '$.ended.outcome', 'in-progress'),
                value ->> '$.ended.final_status', value ->> '$.ended.ended_by',
                value ->> '$.ended.recording_outcome', value ->> '$.ended.basis',
                value ->> '$.ended.end_cause'
         FROM jsonb_each($1)
         WHERE true
         ON CONFLICT (id) DO NOTHING",
        json
    )
    .execute(connection)
    .await?;
    Ok(begun.rows_affected() == rows.len() as u64)
}

/// Whether all could change: what has ended does not end again.
async fn change_calls(connection: &mut SqliteConnection, calls: &Changes<'_>) -> Result<bool, StoreError> {
    let rows: Vec<_> = calls.iter().map(CallRow::of).filter(CallRow::changes).collect();
    if rows.is_empty() {
        return Ok(true);
    }
    let json = to_json("call", &rows)?;
    let changed = sqlx::query!(
        "UPDATE call SET
             ringing_at = coalesce(ringing_at, new.value ->> 'ringing_at'),
             answered_at = coalesce(answered_at, new.value ->> 'answered_at'),
             ended_at = coalesce(ended_at, new.value ->> 'ended_at'),
             outcome = coalesce(new.value ->> '$.ended.outcome', outcome),
             final_status = coalesce(final_status, new.value ->> '$.ended.final_status'),
             ended_by = coalesce(ended_by, new.value ->> '$.ended.ended_by'),
             recording_outcome = coalesce(recording_outcome, new.value ->> '$.ended.recording_outcome'),
             basis = coalesce(basis, new.value ->> '$.ended.basis'),
             end_cause = coalesce(end_cause, new.value ->> '$.ended.end_cause')
         FROM jsonb_each($1) AS new
         WHERE call.id = new.value ->> 'id' AND (ended_at IS NULL OR new.value ->> 'ended_at' IS NULL)",
        json
    )
    .execute(connection)
    .await?;
    Ok(changed.rows_affected() == rows.len() as u64)
}

async fn add_legs(connection: &mut SqliteConnection, calls: &Changes<'_>) -> Result<(), StoreError> {
    #[derive(Serialize)]
    struct Row<'a> {
        call: CallId,
        behind: usize,
        sip_call_id: &'a str,
    }
    let rows: Vec<_> = calls
        .iter()
        .flat_map(|(call, change)| {
            let legs = change.sip_call_ids.iter().enumerate();
            legs.map(|(behind, sip_call_id)| Row { call: *call, behind, sip_call_id })
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let json = to_json("leg", &rows)?;
    sqlx::query!(
        "INSERT INTO call_leg (call_id, position, sip_call_id)
         SELECT value ->> 'call',
                (SELECT count(*) FROM call_leg WHERE call_id = new.value ->> 'call') + (value ->> 'behind'),
                value ->> 'sip_call_id'
         FROM jsonb_each($1) AS new
         WHERE true
         ON CONFLICT DO NOTHING",
        json
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Seldom, so one by one. What comes to belong together later is told on both sides, where both are known.
async fn link_calls(connection: &mut SqliteConnection, calls: &Changes<'_>) -> Result<(), StoreError> {
    for (call, change) in calls {
        let earlier = change.started.map_or(&[][..], |(_, started)| &started.linked_calls);
        for linked in earlier.iter().chain(&change.linked) {
            link(connection, *call, *linked).await?;
        }
        for linked in &change.linked {
            link(connection, *linked, *call).await?;
        }
    }
    Ok(())
}

async fn link(connection: &mut SqliteConnection, call: CallId, linked: CallId) -> Result<(), StoreError> {
    let (call, linked) = (call.to_string(), linked.to_string());
    sqlx::query!(
        "INSERT INTO call_link (call_id, linked) SELECT id, $2 FROM call WHERE id = $1 ON CONFLICT DO NOTHING",
        call,
        linked
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A party as far as a batch tells of it.
#[derive(Serialize)]
struct PartyRow<'a> {
    call: CallId,
    leg: Leg,
    ordinal: u32,
    identity: Option<&'a str>,
    joined_at: Option<Wall>,
    left_at: Option<Wall>,
    consent: Option<PartyConsent>,
    method: Option<SignalSource>,
    at: Option<Wall>,
}

/// The parties of which `pick` finds something to write.
fn parties<'a>(
    calls: &Changes<'a>,
    pick: impl Fn(&PartyChange<'a>) -> bool,
) -> Result<Option<String>, StoreError> {
    let rows: Vec<_> = calls
        .iter()
        .flat_map(|(call, change)| change.parties.iter().map(move |(place, party)| (*call, *place, party)))
        .filter(|(_, _, party)| pick(party))
        .map(|(call, (leg, ordinal), party)| PartyRow {
            call,
            leg,
            ordinal,
            identity: party.joined.and_then(|(_, identity)| match identity {
                Identity::Stated(identity) => identity,
                Identity::Callee => None,
            }),
            joined_at: party.joined.map(|(at, _)| at),
            left_at: party.left_at,
            consent: party.consent.map(|consent| consent.state),
            method: party.consent.and_then(|consent| consent.method),
            at: party.consent.map(|consent| consent.at),
        })
        .collect();
    if rows.is_empty() { Ok(None) } else { to_json("party", &rows).map(Some) }
}

/// Callees of whom nothing but the answer is known.
async fn join_callees(connection: &mut SqliteConnection, calls: &Changes<'_>) -> Result<(), StoreError> {
    let pick = |party: &PartyChange<'_>| matches!(party.joined, Some((_, Identity::Callee)));
    let Some(json) = parties(calls, pick)? else { return Ok(()) };
    sqlx::query!(
        "INSERT INTO party (call_id, leg, ordinal, identity, joined_at, left_at, consent)
         SELECT call.id, value ->> 'leg', value ->> 'ordinal', call.callee, value ->> 'joined_at',
                value ->> 'left_at', 'not-asked'
         FROM jsonb_each($1) AS new CROSS JOIN call ON call.id = value ->> 'call'
         WHERE true
         ON CONFLICT (call_id, leg, ordinal) DO UPDATE SET left_at = coalesce(left_at, excluded.left_at)",
        json
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn join_parties(connection: &mut SqliteConnection, calls: &Changes<'_>) -> Result<(), StoreError> {
    let pick = |party: &PartyChange<'_>| matches!(party.joined, Some((_, Identity::Stated(_))));
    let Some(json) = parties(calls, pick)? else { return Ok(()) };
    sqlx::query!(
        "INSERT INTO party (call_id, leg, ordinal, identity, joined_at, left_at, consent)
         SELECT value ->> 'call', value ->> 'leg', value ->> 'ordinal', value ->> 'identity',
                value ->> 'joined_at', value ->> 'left_at', 'not-asked'
         FROM jsonb_each($1)
         WHERE true
         ON CONFLICT (call_id, leg, ordinal) DO UPDATE SET
             identity = excluded.identity, left_at = coalesce(left_at, excluded.left_at)",
        json
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What a party signalled always holds; what a decision finds is written where it is new.
async fn change_parties(connection: &mut SqliteConnection, calls: &Changes<'_>) -> Result<(), StoreError> {
    let pick = |party: &PartyChange<'_>| {
        party.consent.is_some() || (party.joined.is_none() && party.left_at.is_some())
    };
    let Some(json) = parties(calls, pick)? else { return Ok(()) };
    sqlx::query!(
        "UPDATE party SET
             left_at = coalesce(left_at, new.value ->> 'left_at'),
             consent = coalesce(new.value ->> 'consent', consent),
             consent_method = iif(new.value ->> 'method' IS NOT NULL OR consent <> new.value ->> 'consent',
                                  new.value ->> 'method', consent_method),
             consent_at = iif(new.value ->> 'method' IS NOT NULL OR consent <> new.value ->> 'consent',
                              new.value ->> 'at', consent_at)
         FROM jsonb_each($1) AS new
         WHERE call_id = new.value ->> 'call' AND leg = new.value ->> 'leg' AND ordinal = new.value ->> 'ordinal'
           AND (new.value ->> 'method' IS NOT NULL OR consent <> new.value ->> 'consent'
                OR (left_at IS NULL AND new.value ->> 'left_at' IS NOT NULL))",
        json
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn enter_decisions(connection: &mut SqliteConnection, calls: &Changes<'_>) -> Result<(), StoreError> {
    #[derive(Serialize)]
    struct Row<'a> {
        call: CallId,
        decision: &'a Decision,
    }
    let rows: Vec<_> = calls
        .iter()
        .flat_map(|(call, change)| change.decisions.iter().map(|decision| Row { call: *call, decision }))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let json = to_json("decision", &rows)?;
    sqlx::query!(
        "INSERT INTO decision (call_id, at, gate, basis, clause, rule_version, reason, parties, evidence, otherwise,
                               retention)
         SELECT call.id, value ->> '$.decision.at', value ->> '$.decision.gate', value ->> '$.decision.basis',
                value ->> '$.decision.clause', value ->> '$.decision.rule_version', value ->> '$.decision.reason',
                value -> '$.decision.parties', value -> '$.decision.evidence', value ->> '$.decision.otherwise',
                call.retention
         FROM jsonb_each($1) CROSS JOIN call ON call.id = value ->> 'call'",
        json
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Opens or shuts gate intervals. An open gate opened again on the same basis, clause and rules stays one
/// interval.
async fn turn_gates(connection: &mut SqliteConnection, calls: &Changes<'_>) -> Result<(), StoreError> {
    #[derive(Serialize)]
    struct Row<'a> {
        call: CallId,
        at: Wall,
        opened_by: Option<&'a Decision>,
    }
    let rows: Vec<_> = calls
        .iter()
        .filter_map(|(call, change)| {
            change.gate.map(|gate| Row { call: *call, at: gate.at, opened_by: gate.opened_by })
        })
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let json = to_json("gate", &rows)?;
    sqlx::query!(
        "UPDATE gate_interval SET shut_at = new.value ->> 'at'
         FROM jsonb_each($1) AS new
         WHERE call_id = new.value ->> 'call' AND shut_at IS NULL
           AND (new.value ->> 'opened_by' IS NULL OR basis <> new.value ->> '$.opened_by.basis'
                OR clause <> new.value ->> '$.opened_by.clause'
                OR rule_version <> new.value ->> '$.opened_by.rule_version')",
        json
    )
    .execute(&mut *connection)
    .await?;
    if rows.iter().all(|row| row.opened_by.is_none()) {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO gate_interval (call_id, opened_at, basis, clause, rule_version, retention)
         SELECT call.id, value ->> 'at', value ->> '$.opened_by.basis', value ->> '$.opened_by.clause',
                value ->> '$.opened_by.rule_version', call.retention
         FROM jsonb_each($1) CROSS JOIN call ON call.id = value ->> 'call'
         WHERE value ->> 'opened_by' IS NOT NULL
         ON CONFLICT DO NOTHING",
        json
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The consent ledger, preambles wiped, and what far ends said of recordings of their own: seldom, so one by one.
async fn enter_ledger(connection: &mut SqliteConnection, calls: &Changes<'_>) -> Result<(), StoreError> {
    for (call, change) in calls {
        let call = call.to_string();
        for signal in &change.signals {
            enter_signal(connection, &call, signal).await?;
        }
        for (at, held_ms, reason) in &change.wiped {
            let reason = word(reason)?;
            sqlx::query!(
                "INSERT INTO preamble_wiped (call_id, at, held_ms, reason, retention)
                 SELECT id, $2, $3, $4, retention FROM call WHERE id = $1",
                call,
                at.0,
                held_ms,
                reason
            )
            .execute(&mut *connection)
            .await?;
        }
        for (at, leg, state) in &change.elsewhere {
            let (leg, state) = (word(leg)?, word(state)?);
            sqlx::query!(
                "INSERT INTO recorded_elsewhere (call_id, at, leg, state) VALUES ($1, $2, $3, $4)",
                call,
                at.0,
                leg,
                state
            )
            .execute(&mut *connection)
            .await?;
        }
    }
    Ok(())
}

async fn enter_signal(
    connection: &mut SqliteConnection,
    call: &str,
    signal: &Signal,
) -> Result<(), StoreError> {
    let (leg, meaning, source) = (word(&signal.leg)?, word(&signal.meaning)?, word(&signal.source)?);
    sqlx::query!(
        "INSERT INTO consent_signal (call_id, at, leg, ordinal, meaning, source, effective, retention)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        call,
        signal.at.0,
        leg,
        signal.ordinal,
        meaning,
        source,
        signal.effective,
        LEDGER_TAG
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What was heard on each leg, and that everybody has left.
async fn end_calls(connection: &mut SqliteConnection, calls: &Changes<'_>) -> Result<(), StoreError> {
    let rows: Vec<_> = calls.iter().map(CallRow::of).filter(|row| row.ended.is_some()).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let json = to_json("end", &rows)?;
    sqlx::query!(
        "INSERT INTO call_media (call_id, leg, codec, packets, lost, jitter_ms, mos)
         SELECT ended.value ->> 'id', leg.column2, media.value ->> 'codec', media.value ->> 'packets',
                media.value ->> 'lost', media.value ->> 'jitter_ms', media.value ->> 'mos'
         FROM jsonb_each($1) AS ended CROSS JOIN jsonb_each(ended.value, '$.ended.media') AS media
             CROSS JOIN (VALUES (0, 'a'), (1, 'b')) AS leg ON leg.column1 = media.key",
        json
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "UPDATE party SET left_at = ended.value ->> 'ended_at'
         FROM jsonb_each($1) AS ended
         WHERE call_id = ended.value ->> 'id' AND left_at IS NULL",
        json
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn enter_other(
    connection: &mut SqliteConnection,
    stamped: &Stamped,
    head: &mut Option<AuditHead>,
) -> Result<Placed, StoreError> {
    let at = stamped.at;
    match &stamped.entry {
        Entry::RecordingStarted { call, recording, basis, retention } => {
            recordings::begin(connection, *call, *recording, &word(basis)?, retention, at).await
        }
        Entry::RecordingStored(row) => recordings::seal(connection, row).await,
        Entry::RecordingFailed { recording, .. } => recordings::fail(connection, *recording, at).await,
        Entry::Audit { actor, action, object, detail } => {
            let (object, detail) = (object.as_deref(), detail.as_deref());
            *head = Some(super::audit::append(connection, actor, action, object, detail, at).await?);
            Ok(Placed::Yes)
        }
        // It tells the journal's fold; the table has it once it is stored. The others are their calls'.
        Entry::RecordingFound { .. }
        | Entry::CallStarted(_)
        | Entry::CallRouted { .. }
        | Entry::CallRinging { .. }
        | Entry::CallAnswered { .. }
        | Entry::PartyJoined { .. }
        | Entry::PartyLeft { .. }
        | Entry::CallsLinked { .. }
        | Entry::CallLadder(_)
        | Entry::RecordedElsewhere { .. }
        | Entry::Signalled { .. }
        | Entry::Decided { .. }
        | Entry::PreambleWiped { .. }
        | Entry::CallEnded(_) => Ok(Placed::Yes),
    }
}
