//! Appends to a journal and knows what of it is safe. Pure but for its [`Disk`]: the thread that owns it
//! is in [`super::Journal`], the simulator drives it on a disk of its own.
//!
//! | event | the writer |
//! |---|---|
//! | append succeeds | the records survive the process; they stay in memory until synced |
//! | append fails | cuts the file back to its last whole record; the same records are to be appended again |
//! | the cut fails too | gives the file up: the next append begins another file |
//! | sync succeeds | the records survive the machine; they are let go |
//! | sync fails | gives the file up (a second sync of it would succeed and prove nothing): writes the records that were not synced into another file, under their own numbers |
//! | a file is over [`ROTATE_BYTES`] | begins another file; if that fails, goes on in the old one |

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;

use super::disk::Disk;
use super::reader::{self, Found, Survey};
use super::record::{self, FILE_HEADER_BYTES, FileHeader, JournalId};

/// At which size of a file another is begun.
pub const ROTATE_BYTES: u64 = 16 * 1024 * 1024;

/// How many bytes of records that are written but not synced are kept for a second writing. Beyond
/// (a sync that hangs), the oldest are let go: they are in the file, but a failure of that sync would
/// be their end; [`Writer::unguarded`] counts them.
const GUARDED_BYTES: usize = 64 * 1024 * 1024;

/// The one writer of a journal.
pub struct Writer<D> {
    disk: D,
    journal: JournalId,
    file: Option<Open>,
    next_number: u64,
    next_seq: u64,
    synced: u64,
    unsynced: VecDeque<Unsynced>,
    unsynced_bytes: usize,
    unguarded: u64,
    /// Unsynced records whose file was given up: to be written again before anything else.
    rewrite: bool,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    number: u64,
    bytes: u64,
}

struct Unsynced {
    file: u64,
    seq: u64,
    record: Vec<u8>,
}

/// A sync to be done: of which file, and what it makes safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncTicket {
    /// The file to sync.
    pub file: u64,
    /// The last record that is safe then.
    pub up_to: u64,
}

impl<D: Disk> Writer<D> {
    /// Opens the journal on `disk`, cuts its torn tail and syncs what is left; each find goes to `each`.
    /// `fresh` becomes the journal's id if it has none yet.
    ///
    /// # Errors
    /// If the disk cannot be read or its torn tail not be cut. A disk too full for a first file is no
    /// error here but at [`append`](Self::append).
    pub fn open(mut disk: D, fresh: JournalId, each: impl FnMut(Found)) -> io::Result<(Self, Survey)> {
        let survey = reader::survey(&disk, each)?;
        let mut file = None;
        if let Some((number, end)) = survey.end.filter(|_| survey.appendable) {
            if survey.torn_bytes > 0 {
                disk.truncate(number, end)?;
            }
            file = Some(Open { number, bytes: end });
        }
        for number in disk.list()? {
            disk.sync(number)?;
        }
        let writer = Self {
            disk,
            journal: survey.journal.unwrap_or(fresh),
            file,
            next_number: survey.end.map_or(1, |(number, _)| number + 1),
            next_seq: survey.last_seq + 1,
            synced: survey.last_seq,
            unsynced: VecDeque::new(),
            unsynced_bytes: 0,
            unguarded: 0,
            rewrite: false,
        };
        Ok((writer, survey))
    }

    /// Appends payloads, all or none, in one write; their sequence numbers. After an error the same
    /// payloads are to be given again: they will get the same numbers.
    ///
    /// # Errors
    /// What the file system says.
    pub fn append<'a>(&mut self, payloads: impl IntoIterator<Item = &'a [u8]>) -> io::Result<Range<u64>> {
        self.write_again()?;
        let mut records = Vec::new();
        let first = self.next_seq;
        for (seq, payload) in (first..).zip(payloads) {
            let mut record = Vec::with_capacity(record::RECORD_HEADER_BYTES + payload.len());
            record::encode(seq, payload, &mut record);
            records.push(record);
        }
        let file = self.write(first, &records.concat())?;
        for record in records {
            self.unsynced_bytes += record.len();
            self.unsynced.push_back(Unsynced { file, seq: self.next_seq, record });
            self.next_seq += 1;
        }
        self.let_go_of_the_oldest();
        Ok(first..self.next_seq)
    }

    /// The sync to be done next, if anything is unsynced. The caller does it (elsewhere, if it may take
    /// long) and reports by [`end_sync`](Self::end_sync).
    pub fn begin_sync(&mut self) -> Option<SyncTicket> {
        if self.rewrite {
            // An error here shows again at the next append; until then nothing more is called safe.
            self.write_again().ok()?;
        }
        let file = self.unsynced.front()?.file;
        let up_to = self.unsynced.iter().take_while(|unsynced| unsynced.file == file).last()?.seq;
        Some(SyncTicket { file, up_to })
    }

    /// What came of a sync.
    pub fn end_sync(&mut self, ticket: SyncTicket, result: &io::Result<()>) {
        if result.is_err() {
            self.rewrite = true;
            self.file = None;
            return;
        }
        while let Some(front) = self.unsynced.front() {
            // Rewritten meanwhile into another file: this sync says nothing about it.
            if front.file != ticket.file || front.seq > ticket.up_to {
                break;
            }
            self.synced = front.seq;
            self.unsynced_bytes -= front.record.len();
            self.unsynced.pop_front();
        }
    }

    /// Syncs all that is written, here and now.
    ///
    /// # Errors
    /// What the file system says; what was not synced is then written again at the next append.
    pub fn sync(&mut self) -> io::Result<()> {
        self.write_again()?;
        while let Some(ticket) = self.begin_sync() {
            let result = self.disk.sync(ticket.file);
            self.end_sync(ticket, &result);
            result?;
        }
        Ok(())
    }

    /// Removes files that hold nothing from `seq` on (what is delivered and no open call needs); how many.
    ///
    /// # Errors
    /// What the file system says.
    pub fn prune(&mut self, seq: u64) -> io::Result<usize> {
        let files = self.disk.list()?;
        let mut removed = 0;
        for pair in files.windows(2) {
            let &[old, next] = pair else { break };
            let header = FileHeader::decode(&self.disk.read(next, 0, FILE_HEADER_BYTES)?);
            let unsynced = self.unsynced.front().is_some_and(|unsynced| unsynced.file <= old);
            if unsynced || header.is_none_or(|next| next.first_seq > seq) {
                break;
            }
            self.disk.remove(old)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// The journal's id.
    pub fn journal(&self) -> JournalId {
        self.journal
    }

    /// The last record that is on the medium.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// The last record that is written.
    pub fn written(&self) -> u64 {
        self.next_seq - 1
    }

    /// Records let go before they were synced, because the sync took too long.
    pub fn unguarded(&self) -> u64 {
        self.unguarded
    }

    /// The disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// The disk, to be given faults by a simulation.
    pub fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Writes into another file what a failed sync has put in doubt.
    fn write_again(&mut self) -> io::Result<()> {
        if !self.rewrite {
            return Ok(());
        }
        if let Some(first) = self.unsynced.front().map(|unsynced| unsynced.seq) {
            let records: Vec<u8> =
                self.unsynced.iter().flat_map(|unsynced| unsynced.record.iter().copied()).collect();
            let file = self.write(first, &records)?;
            for unsynced in &mut self.unsynced {
                unsynced.file = file;
            }
        }
        self.rewrite = false;
        Ok(())
    }

    /// Writes records into the open file, or the next one; which.
    fn write(&mut self, first_seq: u64, bytes: &[u8]) -> io::Result<u64> {
        let mut open = match self.file {
            Some(open) if open.bytes < ROTATE_BYTES => open,
            Some(full) => self.begin_file(first_seq).unwrap_or(full),
            None => self.begin_file(first_seq)?,
        };
        if let Err(error) = self.disk.append(open.number, bytes) {
            if self.disk.truncate(open.number, open.bytes).is_err() {
                self.file = None;
            }
            return Err(error);
        }
        open.bytes += bytes.len() as u64;
        self.file = Some(open);
        Ok(open.number)
    }

    fn begin_file(&mut self, first_seq: u64) -> io::Result<Open> {
        let number = self.next_number;
        // Never used again, even if it fails: what is left of it must not be taken for the next one's.
        self.next_number += 1;
        let header = FileHeader { journal: self.journal, number, first_seq };
        if let Err(error) = self.disk.create(number, &header.encode()) {
            // Best effort: a file without a whole head is passed over by every reader.
            if self.disk.remove(number).is_err() {
                tracing::debug!(number, "a journal file that could not be made could not be removed either");
            }
            return Err(error);
        }
        let open = Open { number, bytes: FILE_HEADER_BYTES as u64 };
        self.file = Some(open);
        Ok(open)
    }

    fn let_go_of_the_oldest(&mut self) {
        while self.unsynced_bytes > GUARDED_BYTES && self.unsynced.len() > 1 {
            if let Some(oldest) = self.unsynced.pop_front() {
                self.unsynced_bytes -= oldest.record.len();
                self.unguarded += 1;
            }
        }
    }
}

/// Without the records: they hold numbers and names.
impl<D> fmt::Debug for Writer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("journal", &self.journal)
            .field("file", &self.file)
            .field("next_seq", &self.next_seq)
            .field("synced", &self.synced)
            .finish_non_exhaustive()
    }
}
