//! The two threads of a running journal: one appends, one syncs, so that a sync that takes seconds does
//! not hold up the appends of calls that wait for theirs.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::disk::Folder;
use super::record::JournalPosition;
use super::writer::{SyncTicket, Writer};
use super::{Queued, RETRY_AFTER, SYNC_AFTER, Shared, WRITE_AFTER};

/// How many entries go into one write, at most.
const BATCH: usize = 256;

/// How long the thread sleeps when nothing is to be done.
const IDLE: Duration = Duration::from_secs(60);

struct Appender {
    writer: Writer<Folder>,
    /// Held for as long as anything may be written: two writers would interleave.
    lock: Option<File>,
    shared: Arc<Shared>,
    hand: VecDeque<Queued>,
    syncs: SyncSender<(SyncTicket, File)>,
    /// Since when something is written that is not synced.
    unsynced_since: Option<Instant>,
    sync_running: bool,
    retry_at: Option<Instant>,
}

/// Starts both. They end after [`Shared::close`], when everything is written and synced.
pub(super) fn start(writer: Writer<Folder>, lock: File, shared: &Arc<Shared>) -> io::Result<()> {
    let (syncs, to_sync) = sync_channel(1);
    let for_sync = Arc::clone(shared);
    std::thread::Builder::new().name("journal-sync".into()).spawn(move || sync(&to_sync, &for_sync))?;
    let mut appender = Appender {
        writer,
        lock: Some(lock),
        shared: Arc::clone(shared),
        hand: VecDeque::new(),
        syncs,
        unsynced_since: None,
        sync_running: false,
        retry_at: None,
    };
    std::thread::Builder::new().name("journal".into()).spawn(move || appender.run())?;
    Ok(())
}

fn sync(to_sync: &Receiver<(SyncTicket, File)>, shared: &Shared) {
    while let Ok((ticket, file)) = to_sync.recv() {
        let result = file.sync_data();
        shared.lock().sync_result = Some((ticket, result));
        shared.wake.notify_all();
    }
}

impl Appender {
    fn run(&mut self) {
        while self.collect() {
            self.append();
            self.begin_sync();
        }
        self.lock = None;
        self.shared.lock().ended = true;
        self.shared.wake.notify_all();
    }

    /// Waits for something to do and takes it in hand; `false` when all is done and the journal closed.
    fn collect(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            if let Some((ticket, result)) = state.sync_result.take() {
                self.end_sync(ticket, &result, &mut state);
            }
            if let Some(seq) = state.prune_to.take() {
                drop(state);
                self.prune(seq);
                state = shared.lock();
            }
            let room = BATCH - self.hand.len();
            let taken = room.min(state.queue.len());
            self.hand.extend(state.queue.drain(..taken));
            state.in_hand = self.hand.len();
            let now = Instant::now();
            if self.append_due(now) || self.sync_due(now, state.closing) {
                return true;
            }
            if state.closing && self.hand.is_empty() && self.writer.synced() == self.writer.written() {
                return false;
            }
            let pause = self.pause(now);
            state.asleep_until = Some(now + pause);
            state = shared.wake.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
            state.asleep_until = None;
        }
    }

    fn append_due(&self, now: Instant) -> bool {
        !self.hand.is_empty() && self.retry_at.is_none_or(|at| at <= now)
    }

    fn sync_due(&self, now: Instant, closing: bool) -> bool {
        !self.sync_running
            && self.retry_at.is_none_or(|at| at <= now)
            && self.unsynced_since.is_some_and(|since| closing || now >= since + SYNC_AFTER)
    }

    /// While entries come, no longer than those may wait that come next.
    fn pause(&self, now: Instant) -> Duration {
        let sync_at = self.unsynced_since.filter(|_| !self.sync_running).map(|since| since + SYNC_AFTER);
        let next = match (self.retry_at, sync_at) {
            (Some(retry), _) if !self.hand.is_empty() => Some(retry),
            (Some(retry), Some(sync)) => Some(retry.max(sync)),
            (_, sync) => sync,
        };
        let most = if self.unsynced_since.is_some() { WRITE_AFTER } else { IDLE };
        next.map_or(most, |at| at.saturating_duration_since(now).min(most)).max(Duration::from_millis(1))
    }

    fn append(&mut self) {
        let now = Instant::now();
        if !self.append_due(now) {
            return;
        }
        match self.writer.append(self.hand.iter().map(|queued| queued.payload.as_slice())) {
            Ok(seqs) => {
                let journal = self.writer.journal();
                for (seq, queued) in seqs.zip(self.hand.drain(..)) {
                    // The call may have stopped waiting.
                    let _gone = queued.done.send(JournalPosition { journal, seq });
                }
                self.unsynced_since.get_or_insert(now);
                self.succeeded();
            }
            Err(error) => self.failed("append", &error, now),
        }
    }

    fn begin_sync(&mut self) {
        let now = Instant::now();
        if !self.sync_due(now, self.shared.lock().closing) {
            return;
        }
        let Some(ticket) = self.writer.begin_sync() else {
            // Nothing left to sync, or a rewriting that did not succeed and is due again.
            if self.writer.synced() == self.writer.written() {
                self.unsynced_since = None;
            } else {
                self.retry_at = Some(now + RETRY_AFTER);
            }
            return;
        };
        let handle = self.writer.disk().handle(ticket.file);
        let sent = handle.and_then(|file| self.syncs.try_send((ticket, file)).map_err(io::Error::other));
        match sent {
            Ok(()) => {
                self.sync_running = true;
                self.unsynced_since = Some(now);
            }
            Err(error) => self.failed("begin the sync", &error, now),
        }
    }

    fn end_sync(&mut self, ticket: SyncTicket, result: &io::Result<()>, state: &mut super::State) {
        self.sync_running = false;
        self.writer.end_sync(ticket, result);
        let synced = self.writer.synced();
        state.health.synced = synced;
        self.shared.synced.send_replace(synced);
        if synced == self.writer.written() {
            self.unsynced_since = None;
        }
        if let Err(error) = result {
            state.health.sync_failures += 1;
            state.health.failing = true;
            self.unsynced_since.get_or_insert_with(Instant::now);
            tracing::error!(%error, "the journal's disk does not sync; its entries are written again elsewhere");
            self.retry_at = Some(Instant::now() + RETRY_AFTER);
        } else if self.hand.is_empty() {
            self.retry_at = None;
            state.health.failing = false;
        }
    }

    fn prune(&mut self, seq: u64) {
        if let Err(error) = self.writer.prune(seq) {
            tracing::warn!(%error, "a delivered journal file was not removed");
        }
    }

    fn succeeded(&mut self) {
        self.retry_at = None;
        let mut state = self.shared.lock();
        state.health.written = self.writer.written();
        state.health.unguarded = self.writer.unguarded();
        state.in_hand = 0;
        if std::mem::take(&mut state.health.failing) {
            tracing::warn!("the journal's disk writes again");
        }
    }

    fn failed(&mut self, what: &'static str, error: &io::Error, now: Instant) {
        self.retry_at = Some(now + RETRY_AFTER);
        let mut state = self.shared.lock();
        state.health.write_failures += 1;
        if !std::mem::replace(&mut state.health.failing, true) {
            tracing::error!(%error, what, "the journal's disk does not write; entries wait in memory");
        }
    }
}
