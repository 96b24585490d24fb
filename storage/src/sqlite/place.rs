//! Delivery: puts the journal's entries where they belong, each batch in one transaction with the
//! position that it brings the journal to. Whatever happens in between, an entry is placed once.
//!
//! Entries are written as many together as go together ([`Batch`]): what a statement costs is mostly its way to
//! the database's thread and back. What is refused is tried again in halves, down to the entry that it is
//! refused for.
//!
//! An entry that fits nowhere (its call's start was lost, a later version wrote it, the schema refuses
//! it) is kept as it stands in `unplaced`: delivery neither stops nor loses anything for it. A second
//! start or end of a call is such an entry; the first holds (I3).

use consent::{CallId, Wall};
use sqlx::{Acquire, SqliteConnection};

use super::batch::Batch;
use super::{Store, StoreError, signed, to_json, unsigned, write};
use crate::Stamped;
use crate::audit::AuditHead;
use crate::journal::{Found, JournalId, JournalPosition};

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

/// Whether entries went where they belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Yes,
    /// Not; why, as a code.
    No(&'static str),
}

pub(super) const CALL_UNKNOWN: Placed = Placed::No("call-unknown");
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
        let new = batch.partition_point(|found| found.position().seq <= done);
        delivered.repeated += new as u64;
        let are_entries = |found: &Found| matches!(found, Found::Entry { .. });
        for run in batch[new..].chunk_by(|one, next| are_entries(one) && are_entries(next)) {
            place(&mut transaction, run, now, &mut delivered, &mut head).await?;
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

/// Places entries, or one other find.
async fn place(
    connection: &mut SqliteConnection,
    run: &[Found],
    now: Wall,
    delivered: &mut Delivered,
    head: &mut Option<AuditHead>,
) -> Result<(), StoreError> {
    match run {
        [Found::Unreadable { position, payload }] => {
            delivered.unplaced += 1;
            set_aside(connection, *position, None, payload, ENTRY_UNKNOWN).await
        }
        [Found::Lost { from_seq, to_seq, file, .. }] => {
            delivered.lost += to_seq - from_seq + 1;
            let detail = format!("entries {from_seq} to {to_seq}, before or in file {file}");
            *head = Some(
                super::audit::append(connection, "gateway", "journal.lost", None, Some(&detail), now).await?,
            );
            Ok(())
        }
        entries => {
            let numbered = entries.iter().filter_map(|found| match found {
                Found::Entry { position, stamped } => Some((*position, stamped)),
                Found::Unreadable { .. } | Found::Lost { .. } => None,
            });
            place_entries(connection, &numbered.collect::<Vec<_>>(), delivered, head).await
        }
    }
}

async fn place_entries(
    connection: &mut SqliteConnection,
    entries: &[(JournalPosition, &Stamped)],
    delivered: &mut Delivered,
    head: &mut Option<AuditHead>,
) -> Result<(), StoreError> {
    let mut waiting = vec![entries];
    while let Some(entries) = waiting.pop() {
        let (batch, taken) = Batch::take(entries);
        let (together, rest) = entries.split_at(taken);
        if !rest.is_empty() {
            waiting.push(rest);
        }
        match (place_batch(connection, &batch, head).await?, together) {
            (Placed::Yes, _) => delivered.placed += taken as u64,
            (Placed::No(why), [(position, stamped)]) => {
                delivered.unplaced += 1;
                let entry = to_json("entry", stamped)?;
                set_aside(connection, *position, stamped.entry.call(), &entry, why).await?;
            }
            (Placed::No(_), _) => {
                let (first, second) = together.split_at(taken / 2);
                waiting.extend([second, first]);
            }
        }
    }
    Ok(())
}

/// Within a savepoint: a batch is placed whole or not at all.
async fn place_batch(
    connection: &mut SqliteConnection,
    batch: &Batch<'_>,
    head: &mut Option<AuditHead>,
) -> Result<Placed, StoreError> {
    let mut savepoint = connection.begin().await?;
    let mut newer = None;
    let placed = match write::write(&mut savepoint, batch, &mut newer).await {
        Err(error) if error.is_refusal() => REFUSED,
        other => other?,
    };
    match placed {
        Placed::Yes => {
            savepoint.commit().await?;
            *head = newer.or(head.take());
        }
        Placed::No(_) => savepoint.rollback().await?,
    }
    Ok(placed)
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
