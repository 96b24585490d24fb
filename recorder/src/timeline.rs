//! The clock of a recording: both parties' channels side by side, emitted in order 240 ms after the fact.
//!
//! Time 0 is the arrival of the first admitted frame of either leg (less the jitter it had, where later
//! packets show it). Time runs with the monotonic clock, not with what arrives: a leg that sends nothing is
//! silent, a flood changes nothing. [`Channel`] says where samples belong; this says when they are due.

use consent::{Leg, Mono};

use crate::channel::{Channel, Missing, Packet, Press};
use crate::ogg_opus::{CHANNELS, PACKET_SAMPLES, SAMPLE_RATE, StereoPacket};
use crate::{Admitted, Content, Gap, GapCause, Key};

/// How long samples wait for packets that come late or out of order: 240 ms.
const JITTER: i64 = 1_920;
/// Packets emitted at one go: 100 ms. More would delay writing, fewer would wake the writer more often.
const BATCH: i64 = 5;
const PACKET: i64 = PACKET_SAMPLES as i64;
/// Gaps listed in a recording. When there are more, the last one of the leg is prolonged to cover the new one.
const GAPS_MAX: usize = 10_000;

/// The timeline of one recording.
#[derive(Debug)]
pub(crate) struct Timeline {
    start: Option<Mono>,
    /// Position of the first sample emitted, once one is.
    origin: Option<i64>,
    next: i64,
    /// After the last sample that can have arrived: bounds the end.
    arrived: i64,
    channels: [Channel; 2],
    gaps: Vec<Gap>,
    noted: usize,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        Self {
            start: None,
            origin: None,
            next: 0,
            arrived: i64::MIN,
            channels: [Channel::new(Leg::A), Channel::new(Leg::B)],
            gaps: Vec::new(),
            noted: 0,
        }
    }

    /// Places a frame. All that was due before its arrival has been emitted. An answer's tone is kept if
    /// `keep_answer`, and taken out like any other key if not.
    pub(crate) fn place(&mut self, admitted: &Admitted<'_>, keep_answer: bool) {
        let frame = admitted.frame();
        self.start.get_or_insert(frame.at.mono);
        let arrival = self.position(frame.at.mono);
        let floor = self.origin.map(|_| self.next);
        let channel = &mut self.channels[frame.leg.index()];
        let samples = match &frame.content {
            Content::Rtp { codec, marker: _, sequence, timestamp, ssrc, payload } => {
                let audio = payload.as_slice();
                let packet =
                    Packet { codec: *codec, sequence: *sequence, timestamp: *timestamp, ssrc: *ssrc, audio };
                channel.place(arrival, floor, packet);
                audio.len() as i64
            }
            Content::Told { codec, timestamp, payload } => {
                channel.tell(arrival, floor, *codec, *timestamp, payload.as_slice());
                payload.as_slice().len() as i64
            }
            Content::Digit { ssrc, timestamp, duration, answer } => {
                let answer = answer.filter(|_| keep_answer).map(|Key(key)| key);
                let press = Press { ssrc: *ssrc, timestamp: *timestamp, duration: *duration, answer };
                channel.press(arrival, floor, press);
                0
            }
        };
        self.arrived = self.arrived.max(arrival + samples.max(PACKET));
    }

    /// Frames of a leg were lost on the way here.
    pub(crate) fn overrun(&mut self, leg: Leg) {
        self.channels[leg.index()].overrun();
    }

    /// The next 20 ms of both channels, if they are due at `now`.
    pub(crate) fn next_packet(&mut self, now: Mono, pcm: &mut StereoPacket) -> bool {
        let due = self.begin().is_some_and(|begin| begin + PACKET + JITTER <= self.position(now));
        if due {
            self.emit(pcm);
        }
        due
    }

    /// When the next batch of packets is due.
    pub(crate) fn due(&self) -> Option<Mono> {
        let (start, begin) = (self.start?, self.begin()?);
        let samples = u64::try_from(begin + BATCH * PACKET + JITTER).unwrap_or_default();
        Some(Mono(start.0.saturating_add(samples * 1_000_000 / u64::from(SAMPLE_RATE))))
    }

    /// The next 20 ms of what has been placed, due or not; false when nothing is left.
    pub(crate) fn drain_packet(&mut self, pcm: &mut StereoPacket) -> bool {
        let left = self.begin().is_some_and(|begin| begin < self.end());
        if left {
            self.emit(pcm);
        }
        left
    }

    /// Samples from the start to the end of what has been placed and can be true.
    pub(crate) fn length(&self) -> u64 {
        u64::try_from(self.begin().map_or(0, |_| self.end() - self.zero())).unwrap_or_default()
    }

    /// Samples from the start to what will be emitted next.
    pub(crate) fn emitted(&self) -> u64 {
        u64::try_from(self.origin.map_or(0, |origin| self.next - origin)).unwrap_or_default()
    }

    /// The recording stops here, for good or for a hold: gaps that were open are closed.
    pub(crate) fn close(&mut self, length: u64) {
        let end = self.zero() + i64::try_from(length).unwrap_or(i64::MAX);
        for index in 0..self.channels.len() {
            let mut missing = None;
            self.channels[index].close(end, &mut |found| missing = Some(found));
            self.list(missing);
        }
    }

    /// Goes on after a hold with a frame that arrives at `at`: the silent packets to be inserted.
    pub(crate) fn resume(&mut self, at: Mono) -> u64 {
        let Some(origin) = self.origin else { return 0 };
        let packets = ((self.position(at) - self.next) / PACKET).max(0);
        let from = self.next;
        self.next += packets * PACKET;
        self.channels.iter_mut().for_each(Channel::part);
        if packets > 0 {
            let (from_s, to_s) = (seconds(from - origin), seconds(self.next - origin));
            self.gaps.push(Gap { from_s, to_s, cause: GapCause::Hold, leg: None });
        }
        u64::try_from(packets).unwrap_or_default()
    }

    /// Seconds from the start of the recording to the instant `at`, not less than 0.
    pub(crate) fn seconds_at(&self, at: Mono) -> f64 {
        if self.start.is_none() { 0.0 } else { seconds((self.position(at) - self.zero()).max(0)) }
    }

    /// By how many microseconds the first sample is before (negative) or after the arrival of the first frame.
    pub(crate) fn origin_us(&self) -> i64 {
        self.zero() * 1_000_000 / i64::from(SAMPLE_RATE)
    }

    /// Gaps listed since the last time.
    pub(crate) fn new_gaps(&mut self) -> &[Gap] {
        let from = std::mem::replace(&mut self.noted, self.gaps.len());
        &self.gaps[from.min(self.gaps.len())..]
    }

    /// All gaps, in order of their start.
    pub(crate) fn into_gaps(self) -> Vec<Gap> {
        let mut gaps = self.gaps;
        gaps.sort_by(|a, b| a.from_s.total_cmp(&b.from_s));
        gaps
    }

    fn emit(&mut self, pcm: &mut StereoPacket) {
        if self.origin.is_none() {
            self.next = self.begin().unwrap_or_default();
            self.origin = Some(self.next);
        }
        for frame in pcm.chunks_exact_mut(CHANNELS) {
            let mut found = [None; CHANNELS];
            for ((channel, sample), missing) in self.channels.iter_mut().zip(frame).zip(&mut found) {
                *sample = channel.emit(self.next, &mut |what| *missing = Some(what));
            }
            found.into_iter().for_each(|missing| self.list(missing));
            self.next += 1;
        }
    }

    fn list(&mut self, missing: Option<Missing>) {
        let (Some(missing), Some(origin)) = (missing, self.origin) else { return };
        let (from_s, to_s) = (seconds(missing.from - origin), seconds(missing.to - origin));
        let gap = Gap { from_s, to_s, cause: missing.cause, leg: Some(missing.leg) };
        if self.gaps.len() < GAPS_MAX {
            self.gaps.push(gap);
        } else if let Some(last) = self.gaps.iter_mut().rfind(|last| last.leg == gap.leg) {
            last.to_s = gap.to_s;
        }
    }

    /// Where the next sample to be emitted stands.
    fn begin(&self) -> Option<i64> {
        let first = self.channels.iter().filter_map(Channel::first).min();
        if self.origin.is_some() { Some(self.next) } else { first }
    }

    fn zero(&self) -> i64 {
        self.origin.or_else(|| self.begin()).unwrap_or_default()
    }

    fn end(&self) -> i64 {
        let placed = self.channels.iter().filter_map(Channel::end).max().unwrap_or(i64::MIN);
        placed.min(self.arrived).max(if self.origin.is_some() { self.next } else { i64::MIN })
    }

    fn position(&self, at: Mono) -> i64 {
        let start = self.start.unwrap_or(at);
        let samples = |us: u64| i64::try_from(us.saturating_mul(u64::from(SAMPLE_RATE)) / 1_000_000);
        samples(at.since_us(start)).unwrap_or(i64::MAX) - samples(start.since_us(at)).unwrap_or(i64::MAX)
    }
}

fn seconds(samples: i64) -> f64 {
    samples as f64 / f64::from(SAMPLE_RATE)
}
