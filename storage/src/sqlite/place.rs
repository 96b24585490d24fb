//! Delivery: puts the journal's entries where they belong, each batch in one transaction with the
//! position that it brings the journal to. Whatever happens in between, an entry is placed once.
//!
//! An entry that fits nowhere (its call's start was lost, a later version wrote it, the schema refuses
//! it) is kept as it stands in `unplaced`: delivery neither stops nor loses anything for it. A second
//! start or end of a call is such an entry; the first holds (I3).

use consent::{CallId, Decision, GateState, Leg, PartyConsent, Signal, SignalMeaning, Wall};
use sqlx::{Acquire, SqliteConnection};

use super::{Store, StoreError, ladder, recordings, signed, to_json, unsigned, word, words};
use crate::audit::AuditHead;
use crate::journal::{Found, JournalId, JournalPosition};
use crate::{CallEnded, CallStarted, Entry, Stamped};

/// The tag of the consent ledger: written evidence outlives the recording it stands for.
const LEDGER_TAG: &str = "RT-CONSENT-EVID";

/// The tag of what cannot be placed with its call.
const UNPLACED_TAG: &str = "RT-CDR";

/// What came of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Entries placed.
    pub placed: u64,
    /// Entries that had been placed before.
    pub repeated: u64,
    /// Entries kept in `unplaced`.
    pub unplaced: u64,
    /// Entries that the journal lost.
    pub lost: u64,
}

/// Where an entry went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Yes,
    /// Not; why, as a code.
    No(&'static str),
}

const CALL_UNKNOWN: Placed = Placed::No("call-unknown");
pub(super) const REFUSED: Placed = Placed::No("refused-by-schema");
const ENTRY_UNKNOWN: &str = "entry-unknown";

impl Store {
    /// Places entries of one journal, in order. Those up to the position already delivered are passed over.
    ///
    /// # Errors
    /// If the database is locked, away or full; then nothing of the batch is placed.
    pub async fn deliver(&self, batch: &[(JournalPosition, Stamped)]) -> Result<Delivered, StoreError> {
        let found: Vec<_> = batch
            .iter()
            .map(|(position, stamped)| Found::Entry { position: *position, stamped: stamped.clone() })
            .collect();
        self.deliver_found(&found, batch.last().map_or(Wall(0), |(_, stamped)| stamped.at)).await
    }

    /// Places what a journal's reader found; losses become entries of the audit log, stamped `now`.
    ///
    /// # Errors
    /// If the database is locked, away or full; then nothing of the batch is placed.
    pub async fn deliver_found(&self, batch: &[Found], now: Wall) -> Result<Delivered, StoreError> {
        let Some(last) = batch.last().map(Found::position) else { return Ok(Delivered::default()) };
        let mut delivered = Delivered::default();
        let mut head = None;
        let mut transaction = self.begin().await?;
        let done = position(&mut transaction, last.journal).await?;
        for found in batch {
            if found.position().seq <= done {
                delivered.repeated += 1;
                continue;
            }
            place(&mut transaction, found, now, &mut delivered, &mut head).await?;
        }
        set_position(&mut transaction, last.journal, last.seq.max(done), now).await?;
        transaction.commit().await?;
        if let Some(head) = head {
            self.note_head(&head).await;
        }
        Ok(delivered)
    }

    /// How far `journal` is delivered; 0 if nothing of it is.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn delivered(&self, journal: JournalId) -> Result<u64, StoreError> {
        let mut connection = self.pool.acquire().await?;
        position(&mut connection, journal).await
    }

    /// Takes the position of `journal` back to `seq`, and says so in the audit log: its file has lost
    /// entries that were delivered, and their numbers are given out again.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn rewind(&self, journal: JournalId, seq: u64, now: Wall) -> Result<(), StoreError> {
        let mut transaction = self.begin().await?;
        let done = position(&mut transaction, journal).await?;
        if done <= seq {
            return Ok(());
        }
        set_position(&mut transaction, journal, seq, now).await?;
        let detail = format!("entries {} to {done} are delivered and no longer in the journal", seq + 1);
        let head =
            super::audit::append(&mut transaction, "gateway", "journal.shortened", None, Some(&detail), now)
                .await?;
        transaction.commit().await?;
        self.note_head(&head).await;
        Ok(())
    }

    /// How many entries fit nowhere.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn unplaced(&self) -> Result<u64, StoreError> {
        let count = sqlx::query_scalar!("SELECT count(*) FROM unplaced").fetch_one(&self.pool).await?;
        Ok(unsigned(count))
    }
}

async fn position(connection: &mut SqliteConnection, journal: JournalId) -> Result<u64, StoreError> {
    let journal = journal.to_string();
    let seq = sqlx::query_scalar!("SELECT seq FROM delivery WHERE journal = $1", journal)
        .fetch_optional(connection)
        .await?;
    Ok(seq.map_or(0, unsigned))
}

async fn set_position(
    connection: &mut SqliteConnection,
    journal: JournalId,
    seq: u64,
    now: Wall,
) -> Result<(), StoreError> {
    let (journal, seq) = (journal.to_string(), signed(seq));
    sqlx::query!(
        "INSERT INTO delivery (journal, seq, at) VALUES ($1, $2, $3)
         ON CONFLICT (journal) DO UPDATE SET seq = excluded.seq, at = excluded.at",
        journal,
        seq,
        now.0
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn place(
    connection: &mut SqliteConnection,
    found: &Found,
    now: Wall,
    delivered: &mut Delivered,
    head: &mut Option<AuditHead>,
) -> Result<(), StoreError> {
    match found {
        Found::Entry { position, stamped } => {
            // Within a savepoint: an entry is placed whole or not at all.
            let mut savepoint = connection.begin().await?;
            let placed = match place_entry(&mut savepoint, stamped, head).await {
                Err(error) if error.is_refusal() => REFUSED,
                other => other?,
            };
            let Placed::No(why) = placed else {
                savepoint.commit().await?;
                delivered.placed += 1;
                return Ok(());
            };
            savepoint.rollback().await?;
            let entry = to_json("entry", stamped)?;
            delivered.unplaced += 1;
            set_aside(connection, *position, stamped.entry.call(), &entry, why).await
        }
        Found::Unreadable { position, payload } => {
            delivered.unplaced += 1;
            set_aside(connection, *position, None, payload, ENTRY_UNKNOWN).await
        }
        Found::Lost { from_seq, to_seq, file, .. } => {
            delivered.lost += to_seq - from_seq + 1;
            let detail = format!("entries {from_seq} to {to_seq}, before or in file {file}");
            *head = Some(
                super::audit::append(connection, "gateway", "journal.lost", None, Some(&detail), now).await?,
            );
            Ok(())
        }
    }
}

async fn set_aside(
    connection: &mut SqliteConnection,
    position: JournalPosition,
    call: Option<CallId>,
    entry: &str,
    why: &'static str,
) -> Result<(), StoreError> {
    tracing::error!(seq = position.seq, why, "a journal entry fits nowhere and is kept aside");
    let (journal, seq, call) =
        (position.journal.to_string(), signed(position.seq), call.map(|call| call.to_string()));
    sqlx::query!(
        "INSERT INTO unplaced (journal, seq, call_id, entry, why, retention) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT DO NOTHING",
        journal,
        seq,
        call,
        entry,
        why,
        UNPLACED_TAG
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn place_entry(
    connection: &mut SqliteConnection,
    stamped: &Stamped,
    head: &mut Option<AuditHead>,
) -> Result<Placed, StoreError> {
    let at = stamped.at;
    match &stamped.entry {
        Entry::CallStarted(started) => start(connection, started, at).await,
        Entry::RecordingStarted { call, recording, basis, retention } => {
            recordings::begin(connection, *call, *recording, &word(basis)?, retention, at).await
        }
        Entry::RecordingStored(row) => recordings::seal(connection, row).await,
        Entry::CallLadder(part) => ladder::place(connection, part).await.map(|()| Placed::Yes),
        // It tells the journal's fold; the table has it once it is stored.
        Entry::RecordingFound { .. } => Ok(Placed::Yes),
        Entry::RecordingFailed { recording, .. } => recordings::fail(connection, *recording, at).await,
        Entry::Audit { actor, action, object, detail } => {
            let (object, detail) = (object.as_deref(), detail.as_deref());
            *head = Some(super::audit::append(connection, actor, action, object, detail, at).await?);
            Ok(Placed::Yes)
        }
        other => {
            let Some(call) = other.call() else { return Ok(Placed::No(ENTRY_UNKNOWN)) };
            let id = call.to_string();
            let retention = sqlx::query_scalar!("SELECT retention FROM call WHERE id = $1", id)
                .fetch_optional(&mut *connection)
                .await?;
            let Some(retention) = retention else { return Ok(CALL_UNKNOWN) };
            place_of_call(connection, &id, &retention, other, at).await
        }
    }
}

async fn place_of_call(
    connection: &mut SqliteConnection,
    call: &str,
    retention: &str,
    entry: &Entry,
    at: Wall,
) -> Result<Placed, StoreError> {
    match entry {
        Entry::CallRouted { sip_call_id, .. } => add_leg(connection, call, sip_call_id).await?,
        Entry::CallRinging { .. } => {
            sqlx::query!("UPDATE call SET ringing_at = coalesce(ringing_at, $2) WHERE id = $1", call, at.0)
                .execute(connection)
                .await?;
        }
        Entry::CallAnswered { .. } => answer(connection, call, at).await?,
        Entry::PartyJoined { leg, ordinal, identity, .. } => {
            join(connection, call, *leg, *ordinal, identity.as_deref(), at).await?;
        }
        Entry::PartyLeft { leg, ordinal, .. } => {
            let leg = word(leg)?;
            sqlx::query!(
                "UPDATE party SET left_at = coalesce(left_at, $4) WHERE call_id = $1 AND leg = $2 AND ordinal = $3",
                call,
                leg,
                ordinal,
                at.0
            )
            .execute(connection)
            .await?;
        }
        Entry::CallsLinked { with, .. } => {
            let with = with.to_string();
            link(connection, call, &with).await?;
            let known = sqlx::query_scalar!("SELECT retention FROM call WHERE id = $1", with)
                .fetch_optional(&mut *connection)
                .await?;
            if known.is_some() {
                link(connection, &with, call).await?;
            }
        }
        Entry::RecordedElsewhere { leg, state, .. } => {
            let (leg, state) = (word(leg)?, word(state)?);
            sqlx::query!(
                "INSERT INTO recorded_elsewhere (call_id, at, leg, state) VALUES ($1, $2, $3, $4)",
                call,
                at.0,
                leg,
                state
            )
            .execute(connection)
            .await?;
        }
        Entry::Signalled { signal, .. } => hear(connection, call, signal).await?,
        Entry::Decided { decision, .. } => decide(connection, call, retention, decision).await?,
        Entry::PreambleWiped { held_ms, reason, .. } => {
            let reason = word(reason)?;
            sqlx::query!(
                "INSERT INTO preamble_wiped (call_id, at, held_ms, reason, retention) VALUES ($1, $2, $3, $4, $5)",
                call,
                at.0,
                held_ms,
                reason,
                retention
            )
            .execute(connection)
            .await?;
        }
        Entry::CallEnded(ended) => return end(connection, call, ended, at).await,
        Entry::CallStarted(_)
        | Entry::RecordingStarted { .. }
        | Entry::RecordingFound { .. }
        | Entry::RecordingStored(_)
        | Entry::RecordingFailed { .. }
        | Entry::CallLadder(_)
        | Entry::Audit { .. } => return Ok(Placed::No(ENTRY_UNKNOWN)),
    }
    Ok(Placed::Yes)
}

async fn start(
    connection: &mut SqliteConnection,
    started: &CallStarted,
    at: Wall,
) -> Result<Placed, StoreError> {
    let (call, line) = (started.call.to_string(), started.line.as_ref().map(|line| line.as_str()));
    let (class, direction, retention) =
        (word(&started.line_class)?, word(&started.direction)?, started.retention.as_str());
    let inserted = sqlx::query!(
        "INSERT INTO call (id, node, line, line_class, retention, direction, caller, callee, privacy, emergency,
                           started_at, outcome)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'in-progress')
         ON CONFLICT (id) DO NOTHING",
        call,
        started.node,
        line,
        class,
        retention,
        direction,
        started.from,
        started.to,
        started.privacy,
        started.emergency,
        at.0
    )
    .execute(&mut *connection)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(REFUSED);
    }
    add_leg(connection, &call, &started.sip_call_id).await?;
    for linked in &started.linked_calls {
        link(connection, &call, &linked.to_string()).await?;
    }
    join(connection, &call, Leg::A, 0, started.from.as_deref(), at).await?;
    Ok(Placed::Yes)
}

async fn link(connection: &mut SqliteConnection, call: &str, linked: &str) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO call_link (call_id, linked) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        call,
        linked
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn add_leg(connection: &mut SqliteConnection, call: &str, sip_call_id: &str) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO call_leg (call_id, position, sip_call_id)
         SELECT $1, count(*), $2 FROM call_leg WHERE call_id = $1
         ON CONFLICT DO NOTHING",
        call,
        sip_call_id
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn answer(connection: &mut SqliteConnection, call: &str, at: Wall) -> Result<(), StoreError> {
    sqlx::query!("UPDATE call SET answered_at = coalesce(answered_at, $2) WHERE id = $1", call, at.0)
        .execute(&mut *connection)
        .await?;
    sqlx::query!(
        "INSERT INTO party (call_id, leg, ordinal, identity, joined_at, consent)
         SELECT id, 'b', 0, callee, $2, 'not-asked' FROM call WHERE id = $1
         ON CONFLICT DO NOTHING",
        call,
        at.0
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn join(
    connection: &mut SqliteConnection,
    call: &str,
    leg: Leg,
    ordinal: u32,
    identity: Option<&str>,
    at: Wall,
) -> Result<(), StoreError> {
    let leg = word(&leg)?;
    sqlx::query!(
        "INSERT INTO party (call_id, leg, ordinal, identity, joined_at, consent)
         VALUES ($1, $2, $3, $4, $5, 'not-asked')
         ON CONFLICT (call_id, leg, ordinal) DO UPDATE SET identity = excluded.identity",
        call,
        leg,
        ordinal,
        identity,
        at.0
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn hear(connection: &mut SqliteConnection, call: &str, signal: &Signal) -> Result<(), StoreError> {
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
    .execute(&mut *connection)
    .await?;
    let state = match signal.meaning {
        SignalMeaning::Accept => PartyConsent::Given,
        SignalMeaning::Decline => PartyConsent::Declined,
        SignalMeaning::Withdraw => PartyConsent::Withdrawn,
        SignalMeaning::Request => return Ok(()),
    };
    if !signal.effective {
        return Ok(());
    }
    let state = word(&state)?;
    sqlx::query!(
        "UPDATE party SET consent = $4, consent_method = $5, consent_at = $6
         WHERE call_id = $1 AND leg = $2 AND ordinal = $3",
        call,
        leg,
        signal.ordinal,
        state,
        source,
        signal.at.0
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn decide(
    connection: &mut SqliteConnection,
    call: &str,
    retention: &str,
    decision: &Decision,
) -> Result<(), StoreError> {
    let (gate, basis, reason) =
        (word(&decision.gate)?, words(decision.basis.as_ref())?, word(&decision.reason)?);
    let (parties, evidence) =
        (to_json("party", &decision.parties)?, to_json("evidence", &decision.evidence)?);
    sqlx::query!(
        "INSERT INTO decision (call_id, at, gate, basis, clause, rule_version, reason, parties, evidence, otherwise,
                               retention)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        call,
        decision.at.0,
        gate,
        basis,
        decision.clause,
        decision.rule_version.0,
        reason,
        parties,
        evidence,
        decision.otherwise,
        retention
    )
    .execute(&mut *connection)
    .await?;
    for party in &decision.parties {
        let (leg, consent) = (word(&party.leg)?, word(&party.consent)?);
        sqlx::query!(
            "UPDATE party SET consent = $4, consent_method = NULL, consent_at = $5
             WHERE call_id = $1 AND leg = $2 AND ordinal = $3 AND consent <> $4",
            call,
            leg,
            party.ordinal,
            consent,
            decision.at.0
        )
        .execute(&mut *connection)
        .await?;
    }
    move_gate(connection, call, retention, decision, basis.as_deref()).await
}

/// Opens or shuts the call's gate interval. An open gate opened again on the same basis, clause and
/// rules stays one interval.
async fn move_gate(
    connection: &mut SqliteConnection,
    call: &str,
    retention: &str,
    decision: &Decision,
    basis: Option<&str>,
) -> Result<(), StoreError> {
    let goes_on = basis.filter(|_| decision.gate == GateState::Open);
    sqlx::query!(
        "UPDATE gate_interval SET shut_at = $2
         WHERE call_id = $1 AND shut_at IS NULL
           AND ($3 IS NULL OR basis <> $3 OR clause <> $4 OR rule_version <> $5)",
        call,
        decision.at.0,
        goes_on,
        decision.clause,
        decision.rule_version.0
    )
    .execute(&mut *connection)
    .await?;
    if let Some(basis) = goes_on {
        sqlx::query!(
            "INSERT INTO gate_interval (call_id, opened_at, basis, clause, rule_version, retention)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT DO NOTHING",
            call,
            decision.at.0,
            basis,
            decision.clause,
            decision.rule_version.0,
            retention
        )
        .execute(connection)
        .await?;
    }
    Ok(())
}

async fn end(
    connection: &mut SqliteConnection,
    call: &str,
    ended: &CallEnded,
    at: Wall,
) -> Result<Placed, StoreError> {
    let (outcome, recording_outcome) = (word(&ended.outcome)?, word(&ended.recording_outcome)?);
    let (basis, end_cause) = (words(ended.basis.as_ref())?, words(ended.end_cause.as_ref())?);
    let updated = sqlx::query!(
        "UPDATE call SET ended_at = $2, outcome = $3, final_status = $4, ended_by = $5, recording_outcome = $6,
                         basis = $7, end_cause = $8
         WHERE id = $1 AND ended_at IS NULL",
        call,
        at.0,
        outcome,
        ended.final_status,
        ended.ended_by,
        recording_outcome,
        basis,
        end_cause
    )
    .execute(&mut *connection)
    .await?;
    if updated.rows_affected() == 0 {
        return Ok(REFUSED);
    }
    for (leg, media) in Leg::BOTH.iter().zip(&ended.media) {
        let (leg, packets, lost) = (word(leg)?, signed(media.packets), signed(media.lost));
        sqlx::query!(
            "INSERT INTO call_media (call_id, leg, codec, packets, lost, jitter_ms, mos)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            call,
            leg,
            media.codec,
            packets,
            lost,
            media.jitter_ms,
            media.mos
        )
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query!("UPDATE party SET left_at = coalesce(left_at, $2) WHERE call_id = $1", call, at.0)
        .execute(&mut *connection)
        .await?;
    sqlx::query!("UPDATE gate_interval SET shut_at = $2 WHERE call_id = $1 AND shut_at IS NULL", call, at.0)
        .execute(connection)
        .await?;
    Ok(Placed::Yes)
}
