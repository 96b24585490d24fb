//! Reads a journal in order, while it is being written or after a crash.
//!
//! | stands at the reader's offset | it is | the reader |
//! |---|---|---|
//! | the expected record | an entry | gives it out |
//! | a record with a lower sequence number | a copy (a file was given up after a failed sync and rewritten) | passes over it |
//! | a record with a higher one | a loss | reports the numbers in between, then gives it out |
//! | damage, a whole record after it in the file | a stretch that cannot be read | goes on there; the sequence numbers show what is lost |
//! | damage or a cut, no whole record after it, a later file | the end of a file that was given up | goes on in the next file; as above |
//! | damage or a cut, no whole record after it, no later file | what is just being written | waits |
//!
//! Nothing is passed over without the sequence numbers proving that nothing is missing, or a
//! [`Found::Lost`] that says what is.

use std::collections::VecDeque;
use std::io;

use super::disk::Disk;
use super::record::{
    self, FILE_HEADER_BYTES, FileHeader, JournalId, JournalPosition, MAX_PAYLOAD_BYTES, Parsed,
};
use super::writer::ROTATE_BYTES;
use crate::Stamped;

/// How much of a file is read at once.
const READ_BYTES: usize = 512 * 1024;

/// Read instead where no record ends within [`READ_BYTES`]: above what a file can grow to.
const WHOLE_FILE_BYTES: usize = 2 * ROTATE_BYTES as usize + MAX_PAYLOAD_BYTES;

/// Where a reader is. Small: it holds no bytes of the journal.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    journal: Option<JournalId>,
    file: Option<Place>,
    next_seq: u64,
    torn_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    number: u64,
    offset: u64,
}

/// What a reader comes across.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// An entry.
    Entry {
        /// Where.
        position: JournalPosition,
        /// What.
        stamped: Stamped,
    },
    /// A whole record whose payload is no entry that this version knows.
    Unreadable {
        /// Where.
        position: JournalPosition,
        /// Its payload as it stands.
        payload: String,
    },
    /// Records that were written and cannot be read any more.
    Lost {
        /// Of which journal.
        journal: JournalId,
        /// The first missing sequence number.
        from_seq: u64,
        /// The last missing one.
        to_seq: u64,
        /// The file after whose reading the loss showed.
        file: u64,
    },
}

impl Found {
    /// The position up to which the journal is dealt with when this is.
    #[must_use]
    pub fn position(&self) -> JournalPosition {
        match self {
            Self::Entry { position, .. } | Self::Unreadable { position, .. } => *position,
            Self::Lost { journal, to_seq, .. } => JournalPosition { journal: *journal, seq: *to_seq },
        }
    }
}

impl Reader {
    /// A reader at the journal's beginning.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The sequence number that comes next; 0 before the first file was read.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Bytes at the ends of files that were no records and by which nothing is missing.
    #[must_use]
    pub fn torn_bytes(&self) -> u64 {
        self.torn_bytes
    }

    /// Reads on, up to `max` finds, not beyond sequence number `up_to` (what is synced: what is not may
    /// be gone after a power cut, and its number given to something else). Empty: there is no more yet.
    ///
    /// # Errors
    /// What the file system says; the reader stays where it was and may be asked again.
    pub fn read<D: Disk>(&mut self, disk: &D, up_to: u64, max: usize) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        loop {
            // Listed before the bytes are read: if a later file is there now, this one has ended.
            let files = disk.list()?;
            let Some(place) = self.place(disk, &files)? else { break };
            let next_file = files.iter().copied().find(|&number| number > place.number);
            let mut bytes = disk.read(place.number, place.offset, READ_BYTES)?;
            let (mut used, mut held) = self.take(place.number, &bytes, up_to, max, &mut found);
            if used == 0 && !held && bytes.len() == READ_BYTES {
                bytes = disk.read(place.number, place.offset, WHOLE_FILE_BYTES)?;
                (used, held) = self.take(place.number, &bytes, up_to, max, &mut found);
            }
            self.file = Some(Place { number: place.number, offset: place.offset + used as u64 });
            match next_file {
                _ if held => break,
                _ if used > 0 => {}
                Some(next) => {
                    self.torn_bytes += bytes.len() as u64;
                    self.enter(disk, next)?;
                }
                None => break,
            }
        }
        Ok(found)
    }

    /// The current place; the journal's first file if there is none yet.
    fn place<D: Disk>(&mut self, disk: &D, files: &[u64]) -> io::Result<Option<Place>> {
        let Some(&first) = files.first() else { return Ok(None) };
        match self.file {
            // Removed under us: what it held was dealt with, or the sequence numbers will tell.
            Some(place) if files.contains(&place.number) => Ok(Some(place)),
            Some(place) => match files.iter().copied().find(|&number| number > place.number) {
                Some(number) => self.enter(disk, number).map(Some),
                None => Ok(None),
            },
            None => {
                let headers =
                    files.iter().map(|&number| header(disk, number)).collect::<io::Result<Vec<_>>>()?;
                // Without one readable header nothing is known; the head of the only file may be on its way.
                let Some(header) = headers.into_iter().flatten().next() else { return Ok(None) };
                self.journal = Some(header.journal);
                // Files before it, with unreadable heads: what they held shows as lost from 1 on.
                self.next_seq = if header.number == first { header.first_seq } else { 1 };
                self.enter(disk, header.number).map(Some)
            }
        }
    }

    fn enter<D: Disk>(&mut self, disk: &D, number: u64) -> io::Result<Place> {
        let place = match header(disk, number)? {
            Some(header) => {
                if self.journal != Some(header.journal) {
                    self.journal = Some(header.journal);
                    self.next_seq = header.first_seq;
                }
                Place { number, offset: FILE_HEADER_BYTES as u64 }
            }
            // A head that was cut short or damaged: its records, if any, speak for themselves.
            None => Place { number, offset: 0 },
        };
        self.file = Some(place);
        Ok(place)
    }

    /// Takes what it can from `bytes`; how much was used, and whether it stopped at `up_to` or `max`.
    fn take(
        &mut self,
        file: u64,
        bytes: &[u8],
        up_to: u64,
        max: usize,
        found: &mut Vec<Found>,
    ) -> (usize, bool) {
        let Some(journal) = self.journal else { return (0, true) };
        let mut used = 0;
        while found.len() < max {
            match record::parse(&bytes[used..]) {
                Parsed::Record { seq, .. } if seq > up_to => return (used, true),
                Parsed::Record { seq, payload, bytes } => {
                    if seq > self.next_seq {
                        found.push(Found::Lost { journal, from_seq: self.next_seq, to_seq: seq - 1, file });
                    }
                    if seq >= self.next_seq {
                        found.push(entry_of(JournalPosition { journal, seq }, payload));
                        self.next_seq = seq + 1;
                    }
                    used += bytes;
                }
                Parsed::Short | Parsed::Damaged => match record::resync(&bytes[used..], self.next_seq) {
                    Some(skip) => used += skip,
                    None => return (used, false),
                },
            }
        }
        (used, true)
    }
}

/// What [`survey`] learnt of a journal before it is written to again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The journal's id; `None` if no file has a readable head.
    pub journal: Option<JournalId>,
    /// The last whole record; 0 if there is none.
    pub last_seq: u64,
    /// The last file, and the offset after its last whole record.
    pub end: Option<(u64, u64)>,
    /// Bytes after that: a torn tail.
    pub torn_bytes: u64,
    /// Whether the last file's head is readable.
    pub appendable: bool,
    /// Sequence numbers that are missing between whole records, as ranges.
    pub lost: Vec<(u64, u64)>,
}

/// Reads the whole journal, handing each find to `each`, and says where its end is.
///
/// # Errors
/// What the file system says.
pub fn survey<D: Disk>(disk: &D, mut each: impl FnMut(Found)) -> io::Result<Survey> {
    let mut reader = Reader::new();
    let mut lost = Vec::new();
    loop {
        let batch = VecDeque::from(reader.read(disk, u64::MAX, 1024)?);
        if batch.is_empty() {
            break;
        }
        for found in batch {
            if let Found::Lost { from_seq, to_seq, .. } = found {
                lost.push((from_seq, to_seq));
            }
            each(found);
        }
    }
    let mut survey = Survey {
        journal: reader.journal,
        lost,
        last_seq: reader.next_seq.saturating_sub(1),
        ..Survey::default()
    };
    let Some(number) = disk.list()?.pop() else { return Ok(survey) };
    survey.appendable = header(disk, number)?.is_some();
    let offset = reader.file.filter(|place| place.number == number).map_or(0, |place| place.offset);
    survey.end = Some((number, offset));
    survey.torn_bytes = length_after(disk, number, offset)?;
    Ok(survey)
}

fn length_after<D: Disk>(disk: &D, number: u64, offset: u64) -> io::Result<u64> {
    let mut length = 0;
    loop {
        let read = disk.read(number, offset + length, READ_BYTES)?.len();
        length += read as u64;
        if read < READ_BYTES {
            return Ok(length);
        }
    }
}

fn header<D: Disk>(disk: &D, number: u64) -> io::Result<Option<FileHeader>> {
    Ok(FileHeader::decode(&disk.read(number, 0, FILE_HEADER_BYTES)?))
}

fn entry_of(position: JournalPosition, payload: &[u8]) -> Found {
    match record::entry(payload) {
        Ok(stamped) => Found::Entry { position, stamped },
        Err(_) => Found::Unreadable { position, payload: String::from_utf8_lossy(payload).into_owned() },
    }
}
