//! Locked memory for audio that nobody may store yet: the consent preamble, and the look-back of consent lines.
//!
//! A [`LockedQueue`] holds frames in pages that the kernel never swaps out (`mlock`), takes them from a
//! [`LockedBudget`] that all calls share, and overwrites them with zeros when a frame is taken out and when
//! the queue is dropped. It is of fixed size: when it is full, [`LockedQueue::push`] refuses. Left out:
//! hibernation, which writes all memory to disk and must be off on the machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use consent::{Epoch, Leg, Mono, Now, Wall};
use zeroize::Zeroize;

use crate::{Codec, Content, Frame, Key, Payload};

/// A record is `length:u16` and this much more before the payload; see [`Record`].
const RECORD_BYTES: usize = 42;
/// Nothing that a frame can hold is longer.
const RECORD_BYTES_MAX: usize = RECORD_BYTES + crate::PAYLOAD_BYTES;

/// How much memory all calls together may lock. Clones share it.
#[derive(Clone, Debug)]
pub struct LockedBudget {
    limit_bytes: usize,
    used_bytes: Arc<AtomicUsize>,
}

/// Why no memory was locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The calls together have used up what they may lock.
    #[error("{wanted_bytes} bytes would exceed the budget of {limit_bytes} bytes of locked memory")]
    Budget {
        /// What was asked for.
        wanted_bytes: usize,
        /// What all calls together may have.
        limit_bytes: usize,
    },
    /// The system refused: usually RLIMIT_MEMLOCK (systemd's `LimitMEMLOCK=`) is below the budget.
    #[error("the system does not lock {wanted_bytes} bytes of memory")]
    System {
        /// What was asked for.
        wanted_bytes: usize,
        /// What it said.
        #[source]
        source: region::Error,
    },
}

/// The queue is full, and the frame was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the locked memory is full")]
pub struct Full;

/// First in, first out, in locked memory.
#[derive(Debug)]
pub struct LockedQueue {
    memory: LockedMemory,
    head: usize,
    used: usize,
    span: Option<(Mono, Mono)>,
}

/// Whole pages, locked, out of the budget. The guard is dropped before the pages are.
struct LockedMemory {
    _guard: region::LockGuard,
    pages: Box<[u8]>,
    from: usize,
    bytes: usize,
    budget: LockedBudget,
}

impl LockedBudget {
    /// Room for `limit_bytes` over all calls.
    #[must_use]
    pub fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, used_bytes: Arc::default() }
    }

    /// What is locked now, in bytes.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Locks the whole budget for a moment, to find out at start whether the system will.
    ///
    /// # Errors
    /// [`LockError`] if it will not.
    pub fn check(&self) -> Result<(), LockError> {
        LockedMemory::lock(self, self.limit_bytes).map(drop)
    }

    fn take(&self, bytes: usize) -> Result<(), LockError> {
        let add = |used: usize| used.checked_add(bytes).filter(|total| *total <= self.limit_bytes);
        let refused = LockError::Budget { wanted_bytes: bytes, limit_bytes: self.limit_bytes };
        self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map(drop).map_err(|_| refused)
    }

    fn give_back(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl LockedMemory {
    /// At least `bytes`, rounded up to whole pages when there is room for them. Pages are never shared with
    /// other memory, because locks do not nest: unlocking one piece would unlock its neighbour's page.
    fn lock(budget: &LockedBudget, bytes: usize) -> Result<Self, LockError> {
        let page = region::page::size();
        let bytes = bytes.max(1).div_ceil(page) * page;
        budget.take(bytes)?;
        let pages = vec![0; bytes + page].into_boxed_slice();
        let from = pages.as_ptr().align_offset(page).min(page);
        match region::lock(pages[from..].as_ptr(), bytes) {
            Ok(guard) => Ok(Self { _guard: guard, pages, from, bytes, budget: budget.clone() }),
            Err(source) => {
                budget.give_back(bytes);
                Err(LockError::System { wanted_bytes: bytes, source })
            }
        }
    }

    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.pages[self.from..self.from + self.bytes]
    }
}

impl Drop for LockedMemory {
    fn drop(&mut self) {
        self.as_mut().zeroize();
        self.budget.give_back(self.bytes);
    }
}

impl std::fmt::Debug for LockedMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LockedMemory({} bytes)", self.bytes)
    }
}

impl LockedQueue {
    /// An empty queue of `bytes`: telephone audio in both directions takes some 20 kB a second.
    ///
    /// # Errors
    /// [`LockError`] if the budget is spent or the system locks no more.
    pub fn lock(budget: &LockedBudget, bytes: usize) -> Result<Self, LockError> {
        Ok(Self { memory: LockedMemory::lock(budget, bytes)?, head: 0, used: 0, span: None })
    }

    /// Keeps a copy of a frame.
    ///
    /// # Errors
    /// [`Full`] if there is no room for it.
    pub fn push(&mut self, frame: &Frame) -> Result<(), Full> {
        let mut record = [0; RECORD_BYTES_MAX];
        let length = Record::write(frame, &mut record);
        if self.used + length > self.memory.bytes {
            record.zeroize();
            return Err(Full);
        }
        let at = (self.head + self.used) % self.memory.bytes;
        let first = length.min(self.memory.bytes - at);
        let memory = self.memory.as_mut();
        memory[at..at + first].copy_from_slice(&record[..first]);
        memory[..length - first].copy_from_slice(&record[first..length]);
        record.zeroize();
        self.used += length;
        let since = self.span.map_or(frame.at.mono, |(since, _)| since);
        self.span = Some((since, frame.at.mono));
        Ok(())
    }

    /// How much memory it holds.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.memory.bytes
    }

    /// When the oldest frame arrived.
    #[must_use]
    pub fn oldest(&self) -> Option<Mono> {
        let mut record = [0; RECORD_BYTES];
        self.copy_out(&mut record).then(|| Record(&record).at().mono)
    }

    /// Takes out the oldest frame, and leaves zeros in its place.
    pub fn pop(&mut self) -> Option<Frame> {
        let mut record = [0; RECORD_BYTES_MAX];
        if !self.copy_out(&mut record) {
            return None;
        }
        let frame = Record(&record).frame();
        let length = RECORD_BYTES + Record(&record).payload_bytes();
        let (at, total) = (self.head, self.memory.bytes);
        let first = length.min(total - at);
        let memory = self.memory.as_mut();
        memory[at..at + first].zeroize();
        memory[..length - first].zeroize();
        self.head = (at + length) % total;
        self.used -= length;
        record.zeroize();
        Some(frame)
    }

    /// How much time the frames ever pushed span, in ms.
    #[must_use]
    pub fn held_ms(&self) -> u32 {
        let span_us = self.span.map_or(0, |(since, until)| until.since_us(since));
        u32::try_from(span_us / 1_000).unwrap_or(u32::MAX)
    }

    /// Copies as much of the oldest record as there is and fits; false if the queue is empty.
    fn copy_out(&self, record: &mut [u8]) -> bool {
        let (at, total) = (self.memory.from + self.head, self.memory.bytes);
        let length = record.len().min(self.used);
        let first = length.min(total - self.head);
        record[..first].copy_from_slice(&self.memory.pages[at..at + first]);
        let start = self.memory.from;
        record[first..length].copy_from_slice(&self.memory.pages[start..start + length - first]);
        self.used > 0
    }
}

/// A frame as bytes: payload length, kind, leg, codec, marker (or whether it is of the question), sequence, epoch, timestamp, ssrc, monotonic and
/// wall time, duration, key, then the payload.
struct Record<'a>(&'a [u8]);

impl Record<'_> {
    fn write(frame: &Frame, record: &mut [u8; RECORD_BYTES_MAX]) -> usize {
        let mut payload: &[u8] = &[];
        let (kind, codec, marker, sequence, timestamp, ssrc, duration, key) = match &frame.content {
            Content::Rtp { codec, marker, sequence, timestamp, ssrc, payload: audio } => {
                payload = audio.as_slice();
                (0, codec_byte(*codec), u8::from(*marker), *sequence, *timestamp, *ssrc, 0, 0)
            }
            Content::Told { codec, timestamp, question, payload: audio } => {
                payload = audio.as_slice();
                (1, codec_byte(*codec), u8::from(*question), 0, *timestamp, 0, 0, 0)
            }
            Content::Digit { ssrc, timestamp, duration, answer } => {
                (2, 0, 0, 0, *timestamp, *ssrc, *duration, answer.map_or(0, |Key(key)| u32::from(key)))
            }
        };
        let length = u16::try_from(payload.len()).unwrap_or_default();
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            record[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&length.to_le_bytes());
        put(&[kind, frame.leg.index() as u8, codec, marker]);
        put(&sequence.to_le_bytes());
        put(&frame.epoch.0.to_le_bytes());
        put(&timestamp.to_le_bytes());
        put(&ssrc.to_le_bytes());
        put(&frame.at.mono.0.to_le_bytes());
        put(&frame.at.wall.0.to_le_bytes());
        put(&duration.to_le_bytes());
        put(&key.to_le_bytes());
        put(payload);
        at
    }

    fn payload_bytes(&self) -> usize {
        usize::from(u16::from_le_bytes(self.bytes(0)))
    }

    fn at(&self) -> Now {
        Now { mono: Mono(u64::from_le_bytes(self.bytes(20))), wall: Wall(i64::from_le_bytes(self.bytes(28))) }
    }

    fn frame(&self) -> Frame {
        let [kind, leg, codec, marker] = self.bytes(2);
        let timestamp = u32::from_le_bytes(self.bytes(12));
        let ssrc = u32::from_le_bytes(self.bytes(16));
        let audio = self.0.get(RECORD_BYTES..RECORD_BYTES + self.payload_bytes()).unwrap_or_default();
        let payload = Payload::copy_of(audio).unwrap_or(Payload::EMPTY);
        let content = match kind {
            0 => Content::Rtp {
                codec: codec_of(codec),
                marker: marker != 0,
                sequence: u16::from_le_bytes(self.bytes(6)),
                timestamp,
                ssrc,
                payload,
            },
            1 => Content::Told { codec: codec_of(codec), timestamp, question: marker != 0, payload },
            _ => Content::Digit {
                ssrc,
                timestamp,
                duration: u16::from_le_bytes(self.bytes(36)),
                answer: char::from_u32(u32::from_le_bytes(self.bytes(38)))
                    .filter(|key| *key != '\0')
                    .map(Key),
            },
        };
        let leg = if leg == 0 { Leg::A } else { Leg::B };
        Frame { leg, epoch: Epoch(u32::from_le_bytes(self.bytes(8))), at: self.at(), content }
    }

    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().unwrap_or([0; N])
    }
}

const fn codec_byte(codec: Codec) -> u8 {
    match codec {
        Codec::Pcmu => 0,
        Codec::Pcma => 1,
        Codec::ComfortNoise => 2,
        Codec::Other => 3,
    }
}

const fn codec_of(byte: u8) -> Codec {
    match byte {
        0 => Codec::Pcmu,
        1 => Codec::Pcma,
        2 => Codec::ComfortNoise,
        _ => Codec::Other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    fn frame(n: u64, bytes: usize) -> Frame {
        Frame {
            leg: if n.is_multiple_of(2) { Leg::A } else { Leg::B },
            epoch: Epoch(3),
            at: Now { mono: Mono(n * 20_000), wall: Wall(-5) },
            content: Content::Rtp {
                codec: Codec::Pcma,
                marker: n == 0,
                sequence: n as u16,
                timestamp: 0xffff_ff00,
                ssrc: 77,
                payload: Payload::copy_of(&vec![0xa5; bytes]).unwrap(),
            },
        }
    }

    fn shown(frame: &Frame) -> String {
        let audio = match &frame.content {
            Content::Rtp { payload, .. } | Content::Told { payload, .. } => payload.as_slice().to_vec(),
            Content::Digit { answer, .. } => answer.map(|Key(key)| key as u8).into_iter().collect(),
        };
        format!("{frame:?} {audio:?}")
    }

    #[test]
    fn frames_come_out_as_they_went_in_round_and_round_the_memory() {
        let budget = LockedBudget::new(1 << 20);
        let mut queue = LockedQueue::lock(&budget, 4_096).unwrap();
        let mut waiting = std::collections::VecDeque::new();
        for n in 0..2_000u64 {
            let next = match n % 7 {
                0 => Frame {
                    content: Content::Digit { ssrc: 1, timestamp: 2, duration: 3, answer: Some(Key('#')) },
                    ..frame(n, 0)
                },
                1 => Frame {
                    content: Content::Told {
                        codec: Codec::Pcmu,
                        timestamp: 9,
                        question: n.is_multiple_of(2),
                        payload: Payload::copy_of(&[1, 2]).unwrap(),
                    },
                    ..frame(n, 0)
                },
                _ => frame(n, (n * 37 % 481) as usize),
            };
            if queue.push(&next).is_ok() {
                waiting.push_back(next);
            }
            if n % 3 != 0 || waiting.len() > 12 {
                assert_eq!(queue.oldest(), waiting.front().map(|frame: &Frame| frame.at.mono));
                let (got, expected) = (queue.pop(), waiting.pop_front());
                assert_eq!(got.as_ref().map(shown), expected.as_ref().map(shown));
            }
        }
    }

    #[test]
    fn a_full_queue_refuses_and_an_emptied_one_holds_only_zeros() {
        let budget = LockedBudget::new(1 << 20);
        let mut queue = LockedQueue::lock(&budget, 4_096).unwrap();
        let mut count = 0;
        while queue.push(&frame(count, 160)).is_ok() {
            count += 1;
        }
        assert_eq!(count, 4_096 / 202);
        assert_eq!(queue.held_ms(), u32::try_from((count - 1) * 20).unwrap());
        while queue.pop().is_some() {}
        assert!(queue.memory.as_mut().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn the_budget_is_shared_and_given_back() {
        let budget = LockedBudget::new(8_192);
        let first = LockedQueue::lock(&budget, 5_000).unwrap();
        assert_eq!(budget.used_bytes(), 8_192);
        assert!(matches!(LockedQueue::lock(&budget.clone(), 1), Err(LockError::Budget { .. })));
        drop(first);
        assert_eq!(budget.used_bytes(), 0);
        budget.check().unwrap();
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn the_memory_is_locked_and_unlocked_again() {
        let locked_kb = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("VmLck:")).unwrap().to_owned();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        let budget = LockedBudget::new(1 << 21);
        let queue = LockedQueue::lock(&budget, 1 << 21).unwrap();
        assert!(locked_kb() >= 2_048);
        drop(queue);
        assert!(locked_kb() < 2_048, "the other tests lock less");
    }
}
