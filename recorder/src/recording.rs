//! One recording in progress: from frames at the tap to the bytes of a sealed file.
//!
//! | state | input | what happens |
//! |---|---|---|
//! | open | frame covered by the permit | look-back (consent lines), then timeline, encoder, chunk |
//! | open | any other frame | not stored, not kept |
//! | open | suspend | what is covered is drained and written; held |
//! | open | finish | the same, then sealed |
//! | open | revoke | look-back wiped, timeline and unwritten packets dropped, sealed at what was written |
//! | held | frame of the next permit | the hold becomes silence and a gap; open |
//! | held | finish, revoke | sealed |
//!
//! A file is created with the first frame stored. A page is written for every 400 ms, so that with the 240 ms
//! of the timeline and the 100 ms between two looks at the clock less than a second is ever unwritten
//! (on consent lines the look-back more).

use std::collections::VecDeque;
use std::path::PathBuf;

use consent::{Basis, CallId, Interval, Leg, Mono, Permit, PermitId, Phase, RuleVersion, Wall};

use crate::capture::Output;
use crate::ogg_opus::{CHANNELS, EncodeError, Encoder, PACKET_SAMPLES, SAMPLE_RATE, StereoPacket};
use crate::preamble::{LockedBudget, LockedQueue};
use crate::sealed::{ChunkKind, Header, Note, Sealer, Summary};
use crate::timeline::Timeline;
use crate::{Event, Frame, NewRecording, Sealed, Tap};

/// 400 ms of audio in an Ogg page and a chunk.
const PAGE_PACKETS: usize = 20;
/// The file is synced after every second of audio.
const SYNC_SAMPLES: u64 = SAMPLE_RATE as u64;
/// Frames released from the look-back at one go: a long preamble is encoded in turns of some 20 ms each.
const TURN_FRAMES: usize = 200;
/// Packets of silence written at one go: two and a half minutes of hold in some 100 kB.
const SILENCE_PACKETS: u64 = 7_500;

/// A recording that has a permit, or had one and may get the next.
pub(crate) struct Recording {
    call: CallId,
    target: NewRecording,
    lookback_ms: u64,
    budget: LockedBudget,
    tap: Option<Tap>,
    first_permit: PermitId,
    permit: PermitId,
    grant: Grant,
    waiting: Option<LockedQueue>,
    /// The instant of agreement, if the audio begins with the preamble: up to here answers stay in.
    agreed_at: Option<Mono>,
    phase: Phase,
    timeline: Timeline,
    file: Option<OpenFile>,
    intervals: Vec<Interval>,
    notes: Vec<Note>,
    held: bool,
}

/// Why a recording cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The encoder failed.
    #[error("audio cannot be encoded")]
    Encode(#[from] EncodeError),
    /// What the recording says of itself cannot be written.
    #[error("the recording's notes cannot be written")]
    Note(#[from] serde_json::Error),
}

/// On what audio is stored.
struct Grant {
    basis: Basis,
    clause: &'static str,
    rule_version: RuleVersion,
    retention: consent::RetentionTag,
}

struct OpenFile {
    encoder: Encoder,
    sealer: Sealer,
    opened_at: Wall,
    announced: bool,
    synced: u64,
}

/// What is left of an open file once its stream has ended.
struct Ending {
    sealer: Sealer,
    opened_at: Wall,
    announced: bool,
    length: u64,
}

type Outputs = VecDeque<Output>;

impl Grant {
    fn of(permit: &Permit) -> Self {
        Self {
            basis: permit.basis(),
            clause: permit.clause(),
            rule_version: permit.rule_version(),
            retention: permit.retention().clone(),
        }
    }
}

impl Recording {
    /// A recording under `permit`. `waiting` is the preamble or an empty look-back; without it frames are
    /// stored as they come.
    pub(crate) fn new(
        call: CallId,
        permit: Permit,
        target: NewRecording,
        phase: Phase,
        waiting: Option<(LockedQueue, u64)>,
        budget: LockedBudget,
    ) -> Self {
        let (waiting, lookback_ms) = waiting.map_or((None, 0), |(queue, ms)| (Some(queue), ms));
        Self {
            call,
            target,
            lookback_ms,
            budget,
            first_permit: permit.id(),
            permit: permit.id(),
            grant: Grant::of(&permit),
            tap: Some(Tap::open(call, permit)),
            waiting,
            agreed_at: None,
            phase,
            timeline: Timeline::new(),
            file: None,
            intervals: Vec::new(),
            notes: Vec::new(),
            held: false,
        }
    }

    /// The audio begins with the preamble, which ended at `at`.
    pub(crate) const fn agreed(&mut self, at: Mono) {
        self.agreed_at = Some(at);
    }

    /// Its id.
    pub(crate) const fn id(&self) -> consent::RecordingId {
        self.target.id
    }

    /// The permit under which it stores, or last did.
    pub(crate) const fn permit(&self) -> PermitId {
        self.permit
    }

    /// Whether it is, or was earlier, stored under this permit. A call numbers its permits upwards.
    pub(crate) fn was_under(&self, permit: PermitId) -> bool {
        (self.first_permit..=self.permit).contains(&permit)
    }

    /// Bytes of the look-back: both legs and what each is told, at 10 ms a packet, with a second to spare.
    pub(crate) fn lookback_bytes(lookback_ms: u64) -> usize {
        usize::try_from((lookback_ms + 1_000) * 4 * 13).unwrap_or(usize::MAX)
    }

    /// Goes on under the next permit.
    pub(crate) fn reopen(&mut self, permit: Permit, phase: Phase) {
        (self.permit, self.grant, self.phase) = (permit.id(), Grant::of(&permit), phase);
        self.tap = Some(Tap::open(self.call, permit));
    }

    /// Stores a frame if the permit covers it.
    pub(crate) fn on_frame(&mut self, frame: &Frame, out: &mut Outputs) -> Result<(), StoreError> {
        let Some(waiting) = &mut self.waiting else { return self.store(frame, out) };
        let covered = self.tap.as_ref().is_some_and(|tap| tap.admit(frame).is_some());
        if covered && waiting.push(frame).is_err() {
            self.timeline.overrun(frame.leg);
        }
        self.release(frame.at.mono, out)
    }

    /// Frames of a leg were lost on the way here.
    pub(crate) fn overrun(&mut self, leg: Leg) {
        self.timeline.overrun(leg);
    }

    /// Time has passed.
    pub(crate) fn on_timeout(&mut self, now: Mono, out: &mut Outputs) -> Result<(), StoreError> {
        self.release(now, out)?;
        let now = Mono(now.0.saturating_sub(self.lookback_ms * 1_000));
        let behind = self.oldest_waiting().is_some_and(|oldest| oldest < now);
        if !behind && !self.held { self.advance(now, out) } else { Ok(()) }
    }

    /// When [`Self::on_timeout`] is next due.
    pub(crate) fn poll_timeout(&self) -> Option<Mono> {
        let emission = self.timeline.due().filter(|_| !self.held);
        let next = [self.oldest_waiting(), emission].into_iter().flatten().min();
        next.map(|at| at.plus_ms(self.lookback_ms))
    }

    /// The call was answered.
    pub(crate) fn answered(&mut self, now: Mono) {
        if self.phase == Phase::EarlyMedia {
            self.phase = Phase::Answered;
            if self.file.is_some() {
                self.begin_interval(self.timeline.seconds_at(now));
            }
        }
    }

    /// Stores what is covered, and waits for the next permit.
    pub(crate) fn suspend(&mut self, out: &mut Outputs) -> Result<(), StoreError> {
        self.drain(out)?;
        self.tap = None;
        if self.file.is_none() || self.held {
            return Ok(());
        }
        self.drain_timeline(out)?;
        self.timeline.close(self.timeline.emitted());
        let to_s = seconds(self.timeline.emitted());
        self.notes.push(Note::Ended { to_s });
        if let Some(interval) = self.intervals.last_mut() {
            interval.to_s = to_s;
        }
        self.write_page(out)?;
        out.push_back(Output::Sync { recording: self.id() });
        self.held = true;
        Ok(())
    }

    /// Stores what is covered, and seals.
    pub(crate) fn finish(mut self, out: &mut Outputs) -> Result<(), StoreError> {
        self.drain(out)?;
        self.tap = None;
        self.seal_all(out)
    }

    /// Throws away what is not yet written, and seals what is.
    pub(crate) fn revoke(mut self, out: &mut Outputs) -> Result<(), StoreError> {
        (self.tap, self.waiting) = (None, None);
        if self.held {
            return self.seal_all(out);
        }
        let Some(file) = self.file.take() else { return Ok(()) };
        let mut ogg = Vec::new();
        let length = file.encoder.abandon(&mut ogg);
        self.timeline.close(length);
        self.seal(
            Ending { sealer: file.sealer, opened_at: file.opened_at, announced: file.announced, length },
            &ogg,
            out,
        )
    }

    fn seal_all(mut self, out: &mut Outputs) -> Result<(), StoreError> {
        if self.file.is_none() {
            return Ok(());
        }
        let length = self.timeline.length();
        self.drain_timeline(out)?;
        self.timeline.close(length);
        let Some(file) = self.file.take() else { return Ok(()) };
        let mut ogg = Vec::new();
        file.encoder.finish(length, &mut ogg)?;
        self.seal(
            Ending { sealer: file.sealer, opened_at: file.opened_at, announced: file.announced, length },
            &ogg,
            out,
        )
    }

    /// Writes the end of the stream and the final chunk. A recording without a sample leaves no file.
    fn seal(mut self, ending: Ending, ogg: &[u8], out: &mut Outputs) -> Result<(), StoreError> {
        let Ending { mut sealer, opened_at, announced, length } = ending;
        let recording = self.target.id;
        if length == 0 {
            out.push_back(Output::Discard { recording });
            return Ok(());
        }
        let duration_s = seconds(length);
        let started_at = Wall(opened_at.0 + self.timeline.origin_us());
        let mut gaps = self.timeline.into_gaps();
        gaps.retain(|gap| gap.from_s < duration_s);
        gaps.iter_mut().for_each(|gap| gap.to_s = gap.to_s.min(duration_s));
        if let Some(interval) = self.intervals.last_mut().filter(|_| !self.held) {
            interval.to_s = duration_s;
        }
        let mut intervals = self.intervals;
        intervals.retain(|interval| interval.from_s < duration_s);
        intervals.iter_mut().for_each(|interval| interval.to_s = interval.to_s.min(duration_s));
        let summary = Summary { started_at, duration_s, intervals, gaps, recovered: false };
        let mut bytes = Vec::new();
        sealer.seal(ChunkKind::Audio, ogg, &mut bytes);
        sealer.seal(ChunkKind::Final, &serde_json::to_vec(&summary)?, &mut bytes);
        out.push_back(Output::Append { recording, bytes });
        if !announced {
            let (call, permit) = (self.call, self.permit);
            let started = Event::RecordingStarted { call, permit, recording, at: started_at };
            out.push_back(Output::Event(started));
        }
        let (sha256, bytes) = sealer.digest();
        let header = header(self.call, &self.target, &self.grant, opened_at);
        let sealed = Box::new(Sealed::new(header, summary, bytes, sha256));
        out.push_back(Output::Finish { recording, sealed });
        Ok(())
    }

    /// Releases what has waited for the look-back, a turn at a time.
    fn release(&mut self, now: Mono, out: &mut Outputs) -> Result<(), StoreError> {
        for _ in 0..TURN_FRAMES {
            let Some(waiting) = &mut self.waiting else { return Ok(()) };
            if waiting.oldest().is_none_or(|oldest| oldest.plus_ms(self.lookback_ms) > now) {
                self.shrink();
                return Ok(());
            }
            if let Some(frame) = waiting.pop() {
                self.store(&frame, out)?;
            }
        }
        Ok(())
    }

    /// Gives the preamble's memory back once no more than the look-back waits in it.
    fn shrink(&mut self) {
        let bytes = Self::lookback_bytes(self.lookback_ms);
        let Some(large) = self.waiting.as_mut().filter(|queue| queue.bytes() > 2 * bytes) else { return };
        // No memory for it just now: what there is does as well, and the next frame tries again.
        let Ok(mut small) = LockedQueue::lock(&self.budget, bytes) else { return };
        while let Some(frame) = large.pop() {
            if small.push(&frame).is_err() {
                self.timeline.overrun(frame.leg);
            }
        }
        self.waiting = Some(small);
    }

    fn oldest_waiting(&self) -> Option<Mono> {
        self.waiting.as_ref().and_then(LockedQueue::oldest)
    }

    /// Stores at once all that waits and is covered.
    fn drain(&mut self, out: &mut Outputs) -> Result<(), StoreError> {
        while let Some(frame) = self.waiting.as_mut().and_then(LockedQueue::pop) {
            self.store(&frame, out)?;
        }
        Ok(())
    }

    /// The frame's way into the file: through the tap, or not at all.
    fn store(&mut self, frame: &Frame, out: &mut Outputs) -> Result<(), StoreError> {
        let Some(admitted) = self.tap.as_ref().and_then(|tap| tap.admit(frame)) else { return Ok(()) };
        if self.file.is_none() {
            self.create(frame.at.wall, out)?;
        }
        if self.held {
            self.resume(frame.at.mono, out)?;
        }
        self.advance(frame.at.mono, out)?;
        let in_preamble = self.agreed_at.is_some_and(|agreed_at| frame.at.mono <= agreed_at);
        self.timeline.place(&admitted, in_preamble);
        if !in_preamble && self.phase == Phase::Preamble {
            self.phase = Phase::Answered;
            let agreed_at = self.agreed_at.unwrap_or(frame.at.mono);
            self.begin_interval(self.timeline.seconds_at(agreed_at));
        }
        Ok(())
    }

    fn create(&mut self, opened_at: Wall, out: &mut Outputs) -> Result<(), StoreError> {
        let recording = self.id();
        let header = header(self.call, &self.target, &self.grant, opened_at);
        let (mut sealer, mut bytes) = Sealer::begin(&header, &self.target.key.secret)?;
        // Any number does: there is one stream in the file.
        let serial = recording.0 as u32;
        let (encoder, pages) = Encoder::new(serial, &recording.to_string())?;
        self.begin_interval(0.0);
        sealer.seal(ChunkKind::Audio, &pages, &mut bytes);
        sealer.seal(ChunkKind::Note, &serde_json::to_vec(&std::mem::take(&mut self.notes))?, &mut bytes);
        let twice = self.grant.basis == Basis::DispatchLine;
        out.push_back(Output::Create { recording, call: self.call, twice, bytes });
        self.file = Some(OpenFile { encoder, sealer, opened_at, announced: false, synced: 0 });
        Ok(())
    }

    fn resume(&mut self, at: Mono, out: &mut Outputs) -> Result<(), StoreError> {
        self.held = false;
        let mut packets = self.timeline.resume(at);
        while packets > 0 {
            let count = packets.min(SILENCE_PACKETS);
            let Some(file) = &mut self.file else { return Ok(()) };
            let mut ogg = Vec::new();
            file.encoder.silence(count, &mut ogg)?;
            self.write(&ogg, out)?;
            packets -= count;
        }
        self.begin_interval(self.timeline.seconds_at(at));
        Ok(())
    }

    fn begin_interval(&mut self, from_s: f64) {
        if let Some(last) = self.intervals.last_mut().filter(|last| last.to_s <= last.from_s) {
            last.to_s = from_s;
        }
        self.intervals.retain(|interval| interval.to_s > interval.from_s);
        let interval = Interval {
            from_s,
            to_s: from_s,
            basis: self.grant.basis,
            clause: self.grant.clause.to_owned(),
            rule_version: self.grant.rule_version,
            phase: self.phase,
        };
        self.notes.push(Note::Begun(interval.clone()));
        self.intervals.push(interval);
    }

    fn advance(&mut self, now: Mono, out: &mut Outputs) -> Result<(), StoreError> {
        let mut pcm: StereoPacket = [0; PACKET_SAMPLES * CHANNELS];
        while self.timeline.next_packet(now, &mut pcm) {
            self.encode(&pcm, out)?;
        }
        Ok(())
    }

    fn drain_timeline(&mut self, out: &mut Outputs) -> Result<(), StoreError> {
        let mut pcm: StereoPacket = [0; PACKET_SAMPLES * CHANNELS];
        while self.timeline.drain_packet(&mut pcm) {
            self.encode(&pcm, out)?;
        }
        Ok(())
    }

    fn encode(&mut self, pcm: &StereoPacket, out: &mut Outputs) -> Result<(), StoreError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.encoder.push(pcm)?;
        if file.encoder.waiting() >= PAGE_PACKETS { self.write_page(out) } else { Ok(()) }
    }

    fn write_page(&mut self, out: &mut Outputs) -> Result<(), StoreError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut ogg = Vec::with_capacity(2_048);
        file.encoder.flush(&mut ogg);
        self.write(&ogg, out)
    }

    fn write(&mut self, ogg: &[u8], out: &mut Outputs) -> Result<(), StoreError> {
        let recording = self.target.id;
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut bytes = Vec::with_capacity(ogg.len() + 512);
        file.sealer.seal_if_any(ChunkKind::Audio, ogg, &mut bytes);
        let at = Wall(file.opened_at.0 + self.timeline.origin_us());
        let announce = !std::mem::replace(&mut file.announced, true);
        if announce {
            self.notes.push(Note::Started(at));
        }
        self.notes.extend(self.timeline.new_gaps().iter().cloned().map(Note::Missing));
        if !self.notes.is_empty() {
            file.sealer.seal(
                ChunkKind::Note,
                &serde_json::to_vec(&std::mem::take(&mut self.notes))?,
                &mut bytes,
            );
        }
        out.push_back(Output::Append { recording, bytes });
        if self.timeline.emitted() >= file.synced + SYNC_SAMPLES {
            file.synced = self.timeline.emitted();
            out.push_back(Output::Sync { recording });
        }
        if announce {
            let started = Event::RecordingStarted { call: self.call, permit: self.permit, recording, at };
            out.push_back(Output::Event(started));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Recording {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recording").field("id", &self.id()).field("held", &self.held).finish_non_exhaustive()
    }
}

impl Sealed {
    /// What a complete file states. The path is relative to the spool until the spool fills it in.
    pub(crate) fn new(header: Header, summary: Summary, bytes: u64, sha256: String) -> Self {
        let duration_us = (summary.duration_s * 1e6).round() as i64;
        Self {
            recording: header.recording,
            call: header.call,
            file: PathBuf::from(format!("{}.sealed", header.recording)),
            started_at: summary.started_at,
            ended_at: Wall(summary.started_at.0 + duration_us),
            duration_s: summary.duration_s,
            channels: header.channels,
            codec: header.codec,
            bytes,
            sha256,
            retention: header.retention,
            intervals: summary.intervals,
            gaps: summary.gaps,
            recovered: summary.recovered,
            wrapped_key: header.wrapped_key,
        }
    }
}

fn header(call: CallId, target: &NewRecording, grant: &Grant, opened_at: Wall) -> Header {
    Header {
        recording: target.id,
        call,
        wrapped_key: target.key.wrapped.clone(),
        retention: grant.retention.clone(),
        channels: target.channels.to_vec(),
        codec: "opus".to_owned(),
        opened_at,
        look_back: target.look_back,
    }
}

fn seconds(samples: u64) -> f64 {
    samples as f64 / f64::from(SAMPLE_RATE)
}
