//! The way of a call's frames from its media thread to the thread that writes.
//!
//! Bounded, one producer, one consumer, no locks. When it is full the frame is dropped and counted, and the
//! reader is told on which leg: the relay never waits. Commands travel beside it, each marked with how many
//! frames came before it, so that the reader can put the two in their order again.
//!
//! Its memory is locked like the preamble's (I4), where the system locks it: a preamble is not begun through a
//! ring that could be swapped out. A slot is overwritten with zeros as soon as it has been read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use consent::Leg;
use rtrb::{Consumer, Producer, RingBuffer};
use zeroize::Zeroize;

use crate::Frame;

/// Some 5 s of a call in both directions with a notice, so that a disk that stalls for that long costs
/// nothing. About 400 kB, and only for calls that are asked or recorded.
const RING_FRAMES: usize = 768;

/// The relay's end.
#[derive(Debug)]
pub(super) struct RingWriter {
    frames: Producer<Frame>,
    shared: Arc<Shared>,
    locked: bool,
    pushed: u64,
    openings: u64,
}

/// The writing thread's end.
#[derive(Debug)]
pub(super) struct RingReader {
    frames: Consumer<Frame>,
    _lock: Option<LockedPages>,
    shared: Arc<Shared>,
    popped: u64,
    openings: u64,
    overrun_told: [u64; 2],
}

#[derive(Debug, Default)]
struct Shared {
    /// Frames dropped, per leg.
    overrun: [AtomicU64; 2],
    /// How many openings the reader had seen when it last wanted no frames.
    idle_after: AtomicU64,
}

/// Keeps the ring's pages locked as long as the reader lives, which overwrites what was not read. The ring is
/// larger than an allocator's threshold for pages of its own, so that unlocking unlocks nothing else.
struct LockedPages(#[expect(dead_code, reason = "held for its drop")] region::LockGuard);

impl std::fmt::Debug for LockedPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LockedPages")
    }
}

/// A ring that has been opened once.
pub(super) fn ring() -> (RingWriter, RingReader) {
    let (mut frames, consumer) = RingBuffer::new(RING_FRAMES);
    let shared = Arc::new(Shared::default());
    let lock = lock(&mut frames);
    let locked = lock.is_some();
    let writer = RingWriter { frames, shared: shared.clone(), locked, pushed: 0, openings: 1 };
    let overrun_told = [0; 2];
    let reader = RingReader { frames: consumer, _lock: lock, shared, popped: 0, openings: 0, overrun_told };
    (writer, reader)
}

fn lock(frames: &mut Producer<Frame>) -> Option<LockedPages> {
    let mut slots = frames.write_chunk_uninit(RING_FRAMES).ok()?;
    let (memory, _) = slots.as_mut_slices();
    match region::lock(memory.as_ptr(), size_of_val(memory)) {
        Ok(guard) => Some(LockedPages(guard)),
        Err(error) => {
            tracing::warn!(%error, "the memory between relay and recorder cannot be locked");
            None
        }
    }
}

impl RingWriter {
    /// Frames are wanted again.
    pub(super) fn open(&mut self) {
        self.openings += 1;
    }

    /// Whether its memory is locked.
    pub(super) fn is_locked(&self) -> bool {
        self.locked
    }

    /// Whether the reader still exists.
    pub(super) fn is_read(&self) -> bool {
        !self.frames.is_abandoned()
    }

    /// Whether frames are wanted: the reader has not found, after the latest opening, that they are not.
    pub(super) fn is_wanted(&self) -> bool {
        self.openings > self.shared.idle_after.load(Ordering::Relaxed) && self.is_read()
    }

    /// How many frames went in so far.
    pub(super) fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Puts a frame in; false if there was no room and it was dropped.
    pub(super) fn push(&mut self, frame: Frame) -> bool {
        match self.frames.push(frame) {
            Ok(()) => {
                self.pushed += 1;
                true
            }
            Err(rtrb::PushError::Full(mut frame)) => {
                self.shared.overrun[frame.leg.index()].fetch_add(1, Ordering::Relaxed);
                frame.zeroize();
                false
            }
        }
    }
}

impl RingReader {
    /// A command that opens the ring was taken in.
    pub(super) fn on_opening(&mut self) {
        self.openings += 1;
    }

    /// Nobody wants frames now; the relay may stop making them until the next opening.
    pub(super) fn set_idle(&self) {
        self.shared.idle_after.store(self.openings, Ordering::Relaxed);
    }

    /// Takes out what has come in, but nothing behind the first `until` frames that ever did. What a frame
    /// held is overwritten in its slot.
    pub(super) fn read(&mut self, until: u64, mut on_frame: impl FnMut(&Frame)) {
        let wanted = until.saturating_sub(self.popped);
        let count = self.frames.slots().min(usize::try_from(wanted).unwrap_or(usize::MAX));
        let Ok(mut chunk) = self.frames.read_chunk(count) else { return };
        let (first, second) = chunk.as_mut_slices();
        for frame in first.iter_mut().chain(second) {
            on_frame(frame);
            frame.zeroize();
        }
        chunk.commit_all();
        self.popped += count as u64;
    }

    /// A leg of which frames were dropped since the last time this was asked.
    pub(super) fn overrun(&mut self) -> Option<Leg> {
        Leg::BOTH.into_iter().find(|leg| {
            let dropped = self.shared.overrun[leg.index()].load(Ordering::Relaxed);
            let told = std::mem::replace(&mut self.overrun_told[leg.index()], dropped);
            dropped > told
        })
    }
}

impl Drop for RingReader {
    /// What was never read is overwritten too.
    fn drop(&mut self) {
        self.read(u64::MAX, |_| {});
    }
}

#[cfg(test)]
mod tests {
    use consent::{Epoch, Now};

    use super::*;
    use crate::{Codec, Content, Payload};

    fn frame(timestamp: u32) -> Frame {
        let content =
            Content::Told { codec: Codec::Pcmu, timestamp, question: false, payload: Payload::EMPTY };
        Frame { leg: Leg::B, epoch: Epoch(0), at: Now::default(), content }
    }

    fn read(reader: &mut RingReader, until: u64) -> usize {
        let mut count = 0;
        reader.read(until, |_| count += 1);
        count
    }

    #[test]
    fn the_memory_between_is_locked() {
        assert!(ring().0.is_locked());
    }

    #[test]
    fn frames_are_read_up_to_a_command_and_no_further() {
        let (mut writer, mut reader) = ring();
        assert!((0..5).all(|n| writer.push(frame(n))));
        let command_after = writer.pushed();
        assert!((5..9).all(|n| writer.push(frame(n))));
        assert_eq!(read(&mut reader, command_after), 5);
        assert_eq!(read(&mut reader, command_after), 0);
        assert_eq!(read(&mut reader, u64::MAX), 4);
    }

    #[test]
    fn a_full_ring_drops_and_says_on_which_leg() {
        let (mut writer, mut reader) = ring();
        let taken = (0..1_000).filter(|n| writer.push(frame(*n))).count();
        assert_eq!(taken, RING_FRAMES);
        assert_eq!((reader.overrun(), reader.overrun()), (Some(Leg::B), None));
        assert_eq!(read(&mut reader, u64::MAX), RING_FRAMES);
        assert!(writer.push(frame(0)));
    }

    #[test]
    fn a_reader_without_use_for_frames_stops_them_until_the_next_opening() {
        let (mut writer, mut reader) = ring();
        reader.on_opening();
        assert!(writer.is_wanted());
        reader.set_idle();
        assert!(!writer.is_wanted());
        writer.open();
        assert!(writer.is_wanted());
        reader.set_idle();
        assert!(writer.is_wanted(), "the reader has not yet seen the second opening");
        drop(reader);
        assert!(!writer.is_wanted());
    }
}
