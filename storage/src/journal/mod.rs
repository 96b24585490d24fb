//! The journal: every entry is appended to a file on local disk before anything slow is touched.
//!
//! `record` is the layout, [`Writer`] and [`Reader`] the rules of writing and reading, on a small
//! [`Disk`] that the simulator replaces by one with crashes; [`Journal`] is the thread around them.
//!
//! What survives what: an entry whose [`Receipt`] has resolved survives the end of the process, at once;
//! it survives the end of the machine when it is synced, within [`SYNC_AFTER`] and the time that the
//! disk takes. While the disk refuses to write, up to [`MAX_QUEUED`] entries wait in memory and are
//! tried again every [`RETRY_AFTER`]; they would be lost with the process.

mod disk;
mod reader;
mod record;
mod thread;
mod writer;

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use consent::Wall;
use tokio::sync::{oneshot, watch};

pub use disk::{Disk, Folder};
pub use reader::{Found, Reader, Survey, survey};
pub use record::{
    FILE_HEADER_BYTES, FileHeader, JournalId, JournalPosition, MAX_PAYLOAD_BYTES, Parsed, PayloadError,
    RECORD_HEADER_BYTES, encode, entry, parse, payload, resync,
};
pub use writer::{ROTATE_BYTES, SyncTicket, Writer};

use crate::fold::Calls;
use crate::{Entry, Stamped};

/// How many entries may wait to be written; beyond, [`Journal::append`] refuses and counts. At some 500
/// bytes each this is 50 MB, and hours of a district's calls on a full disk.
pub const MAX_QUEUED: usize = 100_000;

/// How many entries may wait before the ladders of calls are no longer taken: a queue that grows at all is a
/// disk in trouble, and what room there is belongs to records.
pub const MAX_QUEUED_BESIDE_LADDERS: usize = 1_000;

/// How long an entry that nobody waits for may wait for others to be written with: to wake the thread for each
/// would cost more than to write it.
pub const WRITE_AFTER: Duration = Duration::from_millis(10);

/// How long a written entry waits for others before all are synced together.
pub const SYNC_AFTER: Duration = Duration::from_millis(50);

/// How long a disk that failed is left alone.
pub const RETRY_AFTER: Duration = Duration::from_millis(100);

/// The running journal of one gateway.
pub struct Journal {
    shared: Arc<Shared>,
    opened: Survey,
    unfinished: Mutex<Calls>,
    last_at: Wall,
    folder: PathBuf,
}

/// Resolves when its entry is written (not: synced). May be dropped; the entry is written all the same.
#[derive(Debug)]
pub struct Receipt(Promise);

#[derive(Debug)]
enum Promise {
    Pending(oneshot::Receiver<JournalPosition>),
    Refused(Option<AppendError>),
}

/// Why an entry was not taken or not written.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// [`MAX_QUEUED`] entries are waiting for the disk.
    #[error("the journal's queue of {MAX_QUEUED} entries is full: its disk does not write")]
    Full,
    /// Others wait for the disk, and nothing is lost without this one ([`Entry::may_be_shed`]).
    #[error("the journal's disk is behind, and a ladder was let go")]
    Shed,
    /// The entry cannot be written as a record.
    #[error("the entry cannot be a journal record")]
    Payload {
        /// Why.
        source: PayloadError,
    },
    /// The journal was closed before it was written.
    #[error("the journal is closed")]
    Closed,
}

/// Why the journal could not be started or closed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The folder cannot be used.
    #[error("cannot open the journal in {}", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// Another process writes this journal.
    #[error("the journal in {} is in use by another process; end that one, or use another folder", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The system's source of randomness failed.
    #[error("no random numbers for the journal's id")]
    Random {
        /// What the system says.
        source: getrandom::Error,
    },
    /// Closed with entries that the disk would not take.
    #[error("{entries} entries were not written or not synced before the journal was closed")]
    Unwritten {
        /// How many.
        entries: usize,
    },
}

/// How the journal is, for readiness and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalHealth {
    /// Entries waiting to be written.
    pub queued: usize,
    /// Entries refused because the queue was full or they were too long, since start.
    pub refused: u64,
    /// Entries that are written, but whose memory was let go before a slow disk synced them: should that sync
    /// fail, they are lost.
    pub unguarded: u64,
    /// Sequence number of the last written entry.
    pub written: u64,
    /// Sequence number of the last synced entry.
    pub synced: u64,
    /// Failed writes since start.
    pub write_failures: u64,
    /// Failed syncs since start.
    pub sync_failures: u64,
    /// Whether the last write or sync failed.
    pub failing: bool,
    /// Bytes of torn tail cut at start.
    pub torn_bytes: u64,
    /// Entries found missing at start.
    pub lost: u64,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    synced: watch::Sender<u64>,
    journal: JournalId,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    /// Entries that the thread has taken and not yet written.
    in_hand: usize,
    sync_result: Option<(SyncTicket, io::Result<()>)>,
    prune_to: Option<u64>,
    /// Until when the thread sleeps; `None` while it is awake, and looks here before it sleeps again.
    asleep_until: Option<Instant>,
    closing: bool,
    ended: bool,
    health: JournalHealth,
}

struct Queued {
    payload: Vec<u8>,
    done: oneshot::Sender<JournalPosition>,
}

impl Journal {
    /// Opens the journal in `folder` (made if it is not there) and starts its threads. Reads it from its
    /// beginning: see [`recover`](Self::recover) and [`opened`](Self::opened).
    ///
    /// # Errors
    /// If the folder cannot be read, or another process holds it. A full disk is no error.
    pub fn start(folder: &Path) -> Result<Self, JournalError> {
        let failed = |source| JournalError::Open { path: folder.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(folder.join("lock"))
            .map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => JournalError::InUse { path: folder.to_owned() },
            fs::TryLockError::Error(source) => failed(source),
        })?;
        let mut unfinished = Calls::default();
        let mut last_at = Wall::default();
        let disk = Folder::open(folder).map_err(failed)?;
        let (writer, opened) = Writer::open(disk, fresh_id()?, |found| {
            if let Found::Entry { stamped, .. } = found {
                last_at = last_at.max(stamped.at);
                // What is irregular here was found so when it was delivered; only open calls matter.
                let _irregular = unfinished.apply(&stamped);
                if let Entry::CallEnded(ended) = &stamped.entry {
                    unfinished.remove(ended.call);
                }
            }
        })
        .map_err(failed)?;
        report(&opened);
        let shared = Arc::new(Shared::new(&writer, &opened));
        thread::start(writer, lock, &shared).map_err(failed)?;
        let unfinished = Mutex::new(unfinished);
        Ok(Self { shared, opened, unfinished, last_at, folder: folder.to_owned() })
    }

    /// Queues an entry, to be written at once. Never blocks: the writing is done by a thread.
    pub fn append(&self, stamped: &Stamped) -> Receipt {
        let payload = record::payload(stamped);
        let mut state = self.shared.lock();
        let receipt = state.take(&stamped.entry, payload);
        state.wake(&self.shared.wake, Duration::ZERO);
        receipt
    }

    /// Queues entries in order; a receipt for each. They are written at once if somebody `waits` for one of
    /// them, else within [`WRITE_AFTER`].
    pub fn append_all<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a Stamped>,
        waits: bool,
    ) -> Vec<Receipt> {
        let payloads: Vec<_> =
            entries.into_iter().map(|stamped| (&stamped.entry, record::payload(stamped))).collect();
        if payloads.is_empty() {
            return Vec::new();
        }
        let mut state = self.shared.lock();
        let receipts = payloads.into_iter().map(|(entry, payload)| state.take(entry, payload)).collect();
        state.wake(&self.shared.wake, if waits { Duration::ZERO } else { WRITE_AFTER });
        receipts
    }

    /// Ends the records of the calls that an earlier process left open, each by one `CallEnded`.
    /// `recovered` are the entries for what was found in the spool (`RecordingFound`); they are
    /// appended first, so that the calls' outcomes take them into account. To be called once, before
    /// the first new call; later calls of it append only what they are given.
    ///
    /// A call's end is the last sign of life there is: of the process in the journal, or the end of the
    /// call's recording. `now` stamps the audit entries.
    pub fn recover(&self, now: Wall, recovered: &[Stamped]) -> Vec<Receipt> {
        let mut calls = std::mem::take(&mut *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner));
        let mut receipts = Vec::new();
        for stamped in recovered {
            // A recording of a call that had ended in good order is no irregularity.
            let _irregular = calls.apply(stamped);
            receipts.push(self.append(stamped));
        }
        for stamped in calls.closings(self.last_at, now) {
            receipts.push(self.append(&stamped));
        }
        receipts
    }

    /// What was found at start.
    #[must_use]
    pub fn opened(&self) -> &Survey {
        &self.opened
    }

    /// The journal's id.
    #[must_use]
    pub fn id(&self) -> JournalId {
        self.shared.journal
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The sequence number of the last synced entry, as it grows.
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<u64> {
        self.shared.synced.subscribe()
    }

    /// How it is.
    #[must_use]
    pub fn health(&self) -> JournalHealth {
        let state = self.shared.lock();
        JournalHealth { queued: state.queue.len() + state.in_hand, ..state.health }
    }

    /// Lets the files go that hold nothing from `seq` on.
    pub fn prune(&self, seq: u64) {
        self.shared.lock().prune_to = Some(seq);
        self.shared.wake.notify_one();
    }

    /// Takes no more entries and waits, at most for `patience`, until all are synced. Blocks.
    ///
    /// # Errors
    /// If entries are left that the disk would not take.
    pub fn close(&self, patience: Duration) -> Result<(), JournalError> {
        let deadline = Instant::now() + patience;
        self.shared.close();
        let mut state = self.shared.lock();
        while !state.ended {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let unsynced = state.health.written.saturating_sub(state.health.synced) as usize;
                return Err(JournalError::Unwritten {
                    entries: state.queue.len() + state.in_hand + unsynced,
                });
            }
            state = self.shared.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}

/// Without the entries: they hold numbers and names.
impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("id", &self.id())
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Future for Receipt {
    type Output = Result<JournalPosition, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Promise::Pending(receiver) => {
                Pin::new(receiver).poll(context).map(|written| written.map_err(|_| AppendError::Closed))
            }
            Promise::Refused(error) => Poll::Ready(Err(error.take().unwrap_or(AppendError::Closed))),
        }
    }
}

impl Receipt {
    /// Why the entry was not even taken; `None` if it waits for the disk or is written.
    #[must_use]
    pub fn refusal(&self) -> Option<&AppendError> {
        match &self.0 {
            Promise::Pending(_) => None,
            Promise::Refused(error) => error.as_ref(),
        }
    }
}

impl State {
    /// Takes an entry's payload into the queue, or says why not.
    fn take(&mut self, entry: &Entry, payload: Result<Vec<u8>, PayloadError>) -> Receipt {
        let waiting = self.queue.len() + self.in_hand;
        let refusal = match payload {
            Err(source) => AppendError::Payload { source },
            Ok(_) if self.closing => AppendError::Closed,
            Ok(_) if waiting >= MAX_QUEUED => AppendError::Full,
            Ok(_) if entry.may_be_shed() && (waiting >= MAX_QUEUED_BESIDE_LADDERS || self.health.failing) => {
                return Receipt(Promise::Refused(Some(AppendError::Shed)));
            }
            Ok(payload) => {
                let (done, receipt) = oneshot::channel();
                self.queue.push_back(Queued { payload, done });
                return Receipt(Promise::Pending(receipt));
            }
        };
        self.health.refused += 1;
        Receipt(Promise::Refused(Some(refusal)))
    }

    /// Wakes the thread unless it is awake within `patience` of itself.
    fn wake(&mut self, thread: &Condvar, patience: Duration) {
        if self.asleep_until.is_some_and(|until| until > Instant::now() + patience) {
            self.asleep_until = None;
            thread.notify_all();
        }
    }
}

impl Shared {
    fn new(writer: &Writer<Folder>, opened: &Survey) -> Self {
        let lost = opened.lost.iter().map(|(from, to)| to - from + 1).sum();
        let health = JournalHealth {
            written: writer.written(),
            synced: writer.synced(),
            torn_bytes: opened.torn_bytes,
            lost,
            ..JournalHealth::default()
        };
        Self {
            state: Mutex::new(State { health, ..State::default() }),
            wake: Condvar::new(),
            synced: watch::Sender::new(writer.synced()),
            journal: writer.journal(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
    }
}

fn fresh_id() -> Result<JournalId, JournalError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|source| JournalError::Random { source })?;
    Ok(JournalId(u128::from_le_bytes(bytes)))
}

fn report(opened: &Survey) {
    if opened.torn_bytes > 0 {
        tracing::warn!(bytes = opened.torn_bytes, "the journal's torn tail was cut");
    }
    for (from_seq, to_seq) in &opened.lost {
        tracing::error!(from_seq, to_seq, "entries of the journal cannot be read any more");
    }
}

#[cfg(test)]
mod tests;
