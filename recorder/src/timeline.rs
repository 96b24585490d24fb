//! The clock of a recording: both parties' channels side by side, emitted in order 240 ms after the fact.
//!
//! Time 0 is the arrival of the first admitted frame of either leg (less the jitter it had, where later
//! packets show it). Time runs with the monotonic clock, not with what arrives: a leg that sends nothing is
//! silent, a flood changes nothing. [`Channel`] says where samples belong; this says when they are due.

use consent::{Gap, GapCause, Leg, Mono};

use crate::channel::{Channel, Missing, Packet, Press};
use crate::ogg_opus::{CHANNELS, PACKET_SAMPLES, SAMPLE_RATE, StereoPacket};
use crate::{Admitted, Content, Key};

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
    /// `keep_answer` when it begins, and taken out like any other key if not.
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
            Content::Told { codec, timestamp, question: _, payload } => {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use consent::{CallId, Epoch, Now, Wall};
    use proptest::prelude::*;

    use super::*;
    use crate::{Codec, Frame, Payload, Tap, fixture, g711};

    const CALL: CallId = CallId(1);

    /// What a party says: a sweep, so that each stretch of it is like no other. Never quite silent.
    fn speech(leg: Leg, n: i64) -> u8 {
        let time = n.rem_euclid(8_000 * 60) as f64 / 8_000.0;
        let (low, span) = if leg == Leg::A { (300.0, 97.0) } else { (500.0, 131.0) };
        let phase = std::f64::consts::TAU * (low * time + span * time * time / 2.0);
        let sample = (phase.sin() * 9_000.0) as i16;
        g711::to_ulaw(if sample.abs() < 300 { 300 } else { sample })
    }

    fn heard(leg: Leg, n: i64) -> i16 {
        g711::from_ulaw(speech(leg, n))
    }

    /// A packet of a telephone: which 20 ms of speech it carries, and what the network did to it.
    #[derive(Clone, Debug)]
    struct Sent {
        leg: Leg,
        n: i64,
        arrival_us: u64,
        sequence: u16,
        timestamp: u32,
        ssrc: u32,
        content: Option<Content>,
    }

    const FIRST_US: u64 = 1_000_000;

    fn sent(leg: Leg, n: i64) -> Sent {
        Sent {
            leg,
            n,
            arrival_us: FIRST_US + n as u64 * 20_000,
            sequence: 65_500u16.wrapping_add(n as u16),
            timestamp: 0xffff_f000u32.wrapping_add(n as u32 * 160),
            ssrc: 5,
            content: None,
        }
    }

    fn stream(leg: Leg, packets: std::ops::Range<i64>) -> Vec<Sent> {
        packets.map(|n| sent(leg, n)).collect()
    }

    fn frame(sent: &Sent) -> Frame {
        let audio: Vec<u8> = (0..160).map(|i| speech(sent.leg, sent.n * 160 + i)).collect();
        let content = sent.content.clone().unwrap_or(Content::Rtp {
            codec: Codec::Pcmu,
            marker: false,
            sequence: sent.sequence,
            timestamp: sent.timestamp,
            ssrc: sent.ssrc,
            payload: Payload::copy_of(&audio).unwrap(),
        });
        let at = Now { mono: Mono(sent.arrival_us), wall: Wall(0) };
        Frame { leg: sent.leg, epoch: Epoch(0), at, content }
    }

    struct Recorded {
        channels: [Vec<i16>; 2],
        gaps: Vec<Gap>,
        length: u64,
    }

    impl Recorded {
        fn gaps_of(&self, leg: Leg) -> Vec<(i64, i64, GapCause)> {
            let samples = |s: f64| (s * 8_000.0).round() as i64;
            let of_leg = self.gaps.iter().filter(|gap| gap.leg == Some(leg));
            of_leg.map(|gap| (samples(gap.from_s), samples(gap.to_s), gap.cause)).collect()
        }

        /// How far from its place the speech is that stands at `at`, if it is speech at all.
        fn offset(&self, leg: Leg, at: i64) -> Option<i64> {
            let channel = &self.channels[leg.index()];
            let window = channel.get(at as usize..at as usize + 60)?;
            let fits = |offset: &i64| (0..60).all(|i| window[i as usize] == heard(leg, at + i - offset));
            (0..6_000).flat_map(|by| [by, -by]).find(fits)
        }

        fn silent(&self, leg: Leg, range: std::ops::Range<i64>) -> bool {
            self.channels[leg.index()][range.start as usize..range.end as usize].iter().all(|s| *s == 0)
        }
    }

    fn record(mut packets: Vec<Sent>) -> Recorded {
        packets.sort_by_key(|sent| sent.arrival_us);
        let tap = Tap::open(CALL, fixture::dispatch_permit(CALL));
        let mut timeline = Timeline::new();
        let mut channels = [Vec::new(), Vec::new()];
        let mut pcm = [0; PACKET_SAMPLES * CHANNELS];
        let keep = |pcm: &StereoPacket, channels: &mut [Vec<i16>; 2]| {
            for frame in pcm.chunks_exact(2) {
                channels[0].push(frame[0]);
                channels[1].push(frame[1]);
            }
        };
        for sent in &packets {
            let frame = frame(sent);
            while timeline.next_packet(frame.at.mono, &mut pcm) {
                keep(&pcm, &mut channels);
            }
            timeline.place(&tap.admit(&frame).unwrap(), false);
        }
        let length = timeline.length();
        while timeline.drain_packet(&mut pcm) {
            keep(&pcm, &mut channels);
        }
        timeline.close(length);
        channels.iter_mut().for_each(|channel| channel.truncate(length as usize));
        Recorded { channels, gaps: timeline.into_gaps(), length }
    }

    fn assert_whole(recorded: &Recorded, leg: Leg, samples: i64) {
        assert_eq!(recorded.length as i64, samples);
        assert_eq!(recorded.gaps_of(leg), []);
        let expected: Vec<i16> = (0..samples).map(|n| heard(leg, n)).collect();
        assert!(recorded.channels[leg.index()] == expected, "not sample for sample");
    }

    #[test]
    fn an_undisturbed_stream_is_kept_sample_for_sample() {
        assert_whole(&record(stream(Leg::A, 0..500)), Leg::A, 80_000);
    }

    #[test]
    fn sequence_and_timestamp_wrap_unseen() {
        // `sent` begins 36 packets before the sequence's wrap and 26 before the timestamp's.
        assert_whole(&record(stream(Leg::B, 0..100)), Leg::B, 16_000);
    }

    #[test]
    fn both_legs_share_one_clock() {
        let mut packets = stream(Leg::A, 0..200);
        packets.extend(stream(Leg::B, 0..200).into_iter().map(|mut sent| {
            sent.arrival_us += 37_000;
            sent
        }));
        let recorded = record(packets);
        assert_eq!(recorded.offset(Leg::A, 8_000), Some(0));
        assert_eq!(recorded.offset(Leg::B, 8_000), Some(37 * 8));
        assert_eq!(recorded.length, 32_000 + 37 * 8);
        assert_eq!(recorded.gaps, []);
    }

    #[test]
    fn each_lost_packet_is_silence_in_its_place_and_listed() {
        let lost = [7, 100, 101, 102, 350];
        let packets = stream(Leg::A, 0..500).into_iter().filter(|sent| !lost.contains(&sent.n)).collect();
        let recorded = record(packets);
        assert_eq!(recorded.length, 80_000);
        let expected = [(7, 8), (100, 103), (350, 351)].map(|(a, b)| (a * 160, b * 160, GapCause::Loss));
        assert_eq!(recorded.gaps_of(Leg::A), expected);
        assert!(recorded.silent(Leg::A, 16_000..16_480));
        assert_eq!(recorded.offset(Leg::A, 16_480), Some(0));
        assert_eq!(recorded.offset(Leg::A, 70_000), Some(0));
    }

    #[test]
    fn a_burst_of_loss_of_400_ms_is_a_gap_of_400_ms() {
        let packets =
            stream(Leg::A, 0..500).into_iter().filter(|sent| !(200..220).contains(&sent.n)).collect();
        let recorded = record(packets);
        assert_eq!(recorded.length, 80_000);
        assert_eq!(recorded.gaps_of(Leg::A), [(32_000, 35_200, GapCause::Loss)]);
    }

    #[test]
    fn reordering_up_to_100_ms_is_undone() {
        let mut packets = stream(Leg::A, 0..500);
        for sent in packets.iter_mut().filter(|sent| sent.n % 17 == 3) {
            sent.arrival_us += 100_500;
        }
        assert_whole(&record(packets), Leg::A, 80_000);
    }

    #[test]
    fn duplicates_leave_no_trace() {
        let mut packets = stream(Leg::A, 0..300);
        packets.extend(stream(Leg::A, 0..300).into_iter().filter(|sent| sent.n % 3 == 0).map(|mut sent| {
            sent.arrival_us += 45_000;
            sent
        }));
        assert_whole(&record(packets), Leg::A, 48_000);
    }

    #[test]
    fn a_packet_that_comes_after_its_time_is_lost_and_listed() {
        let mut packets = stream(Leg::A, 0..200);
        packets[50].arrival_us += 400_000;
        let recorded = record(packets);
        assert_eq!(recorded.gaps_of(Leg::A), [(8_000, 8_160, GapCause::Loss)]);
        assert_eq!(recorded.length, 32_000);
    }

    #[test]
    fn a_new_source_on_the_same_clock_goes_on_without_a_break() {
        let mut packets = stream(Leg::A, 0..300);
        for sent in &mut packets[150..] {
            (sent.ssrc, sent.sequence, sent.timestamp) =
                (9, sent.sequence.wrapping_add(5_000), sent.timestamp.wrapping_mul(3).wrapping_add(77));
            sent.timestamp = 1_000_000u32.wrapping_add(sent.n as u32 * 160);
        }
        assert_whole(&record(packets), Leg::A, 48_000);
    }

    #[test]
    fn a_timestamp_jump_makes_no_hour_of_silence() {
        for jump in [28_800_000u32, 28_800_000u32.wrapping_neg(), 4_000, 20_000] {
            let mut packets = stream(Leg::A, 0..300);
            packets[150..].iter_mut().for_each(|sent| sent.timestamp = sent.timestamp.wrapping_add(jump));
            assert_whole(&record(packets), Leg::A, 48_000);
        }
    }

    #[test]
    fn the_codec_may_change_from_packet_to_packet() {
        let mut packets = stream(Leg::A, 0..20);
        for sent in packets.iter_mut().filter(|sent| sent.n % 2 == 1) {
            let audio: Vec<u8> = (0..160).map(|i| g711::to_alaw(heard(Leg::A, sent.n * 160 + i))).collect();
            sent.content = Some(Content::Rtp {
                codec: Codec::Pcma,
                marker: false,
                sequence: sent.sequence,
                timestamp: sent.timestamp,
                ssrc: sent.ssrc,
                payload: Payload::copy_of(&audio).unwrap(),
            });
        }
        let recorded = record(packets);
        let near = |(n, sample): (usize, &i16)| {
            (i32::from(*sample) - i32::from(heard(Leg::A, n as i64))).abs() < 600
        };
        assert!(recorded.channels[0].iter().enumerate().all(near));
        assert_eq!((recorded.length, recorded.gaps_of(Leg::A)), (3_200, vec![]));
    }

    fn comfort_noise(sent: &mut Sent) {
        sent.content = Some(Content::Rtp {
            codec: Codec::ComfortNoise,
            marker: false,
            sequence: sent.sequence,
            timestamp: sent.timestamp,
            ssrc: sent.ssrc,
            payload: Payload::EMPTY,
        });
    }

    #[test]
    fn announced_silence_is_no_gap_and_unannounced_silence_is() {
        let pause = |announced: bool| {
            let mut packets = stream(Leg::A, 0..400);
            packets.drain(101..200);
            if announced {
                comfort_noise(&mut packets[100]);
            } else {
                packets.remove(100);
            }
            for sent in packets.iter_mut().filter(|sent| sent.n >= 200) {
                sent.sequence = sent.sequence.wrapping_sub(if announced { 99 } else { 100 });
            }
            record(packets)
        };
        let (announced, unannounced) = (pause(true), pause(false));
        assert_eq!(announced.gaps_of(Leg::A), []);
        assert_eq!(unannounced.gaps_of(Leg::A), [(16_000, 32_000, GapCause::Unsent)]);
        for recorded in [announced, unannounced] {
            assert_eq!(recorded.length, 64_000);
            assert!(recorded.silent(Leg::A, 16_000..32_000));
            assert_eq!(recorded.offset(Leg::A, 32_000), Some(0));
        }
    }

    #[test]
    fn a_party_that_comes_late_stands_where_it_came() {
        let mut packets = stream(Leg::A, 0..1_000);
        packets.extend(stream(Leg::B, 750..1_000));
        let recorded = record(packets);
        assert_eq!(recorded.gaps_of(Leg::B), [(0, 120_000, GapCause::Unsent)]);
        assert_eq!(recorded.offset(Leg::B, 120_000), Some(0));
        assert_eq!(recorded.length, 160_000);
    }

    #[test]
    fn a_flood_does_not_lengthen_a_recording() {
        for (ssrc, next) in [(5, true), (5, false), (66, true)] {
            let mut packets = stream(Leg::A, 0..500);
            packets.extend((0..10_000).map(|k: i64| {
                let mut forged = sent(Leg::A, 200 + if next { k } else { k * 7_919 % 60_000 });
                forged.arrival_us = FIRST_US + 4_000_000 + k as u64 * 200;
                forged.ssrc = ssrc;
                forged
            }));
            let recorded = record(packets);
            assert!(recorded.length.abs_diff(80_000) <= 160, "{ssrc} {next}: {}", recorded.length);
            assert_eq!(recorded.offset(Leg::A, 20_000), Some(0));
        }
    }

    #[test]
    fn a_fast_start_does_not_date_a_recording_back() {
        let mut packets = stream(Leg::A, 0..50);
        packets.iter_mut().for_each(|sent| sent.arrival_us = FIRST_US);
        let recorded = record(packets);
        assert!(recorded.length <= 1_200 + 160, "{}", recorded.length);
    }

    #[test]
    fn packets_held_up_in_the_network_are_put_back() {
        let mut packets = stream(Leg::A, 0..200);
        packets[60..70].iter_mut().for_each(|sent| sent.arrival_us = FIRST_US + 70 * 20_000);
        assert_whole(&record(packets), Leg::A, 32_000);
        let mut packets = stream(Leg::A, 0..200);
        packets[60..95].iter_mut().for_each(|sent| sent.arrival_us = FIRST_US + 95 * 20_000);
        let recorded = record(packets);
        assert_eq!(recorded.length, 32_000);
        assert_eq!(recorded.offset(Leg::A, 20_000), Some(0));
        let [(9_600, to, GapCause::Loss)] = recorded.gaps_of(Leg::A)[..] else {
            panic!("{:?}", recorded.gaps)
        };
        assert!((12_800..=13_600).contains(&to), "what is within the jitter buffer is kept: {to}");
    }

    #[test]
    fn a_longer_path_is_followed() {
        let mut packets = stream(Leg::A, 0..400);
        packets[100..].iter_mut().for_each(|sent| sent.arrival_us += 600_000);
        let recorded = record(packets);
        assert!(recorded.length.abs_diff(64_000 + 4_800) <= 160, "{}", recorded.length);
        assert!(recorded.offset(Leg::A, 40_000).unwrap().abs_diff(4_800) <= 160);
        assert!(recorded.gaps_of(Leg::A).iter().all(|(from, to, _)| *from >= 16_000 && *to <= 26_000));
    }

    #[test]
    fn a_clock_that_runs_fast_or_slow_is_followed() {
        for ppm in [-1_000i64, -100, 100, 1_000] {
            let mut packets = stream(Leg::A, 0..3_000);
            for sent in &mut packets {
                sent.arrival_us = (FIRST_US as i64 + sent.n * (20_000 - 20_000 * ppm / 1_000_000)) as u64;
            }
            let last = packets[2_999].arrival_us;
            let recorded = record(packets);
            let truth = (last - FIRST_US) * 8 / 1_000 + 160;
            assert!(recorded.length.abs_diff(truth) <= 160, "{ppm}: {} for {truth}", recorded.length);
            let early = recorded.offset(Leg::A, 470_000).or_else(|| recorded.offset(Leg::A, 470_100));
            let drift = 470_000 - 470_000 * 1_000_000 / (1_000_000 + ppm);
            assert!((early.unwrap() + drift).abs() <= 480, "{ppm}: {early:?}, drift {drift}");
            assert_eq!(recorded.gaps_of(Leg::A), []);
        }
    }

    fn press(n: i64, duration: u16, answer: Option<char>) -> Sent {
        let mut press = sent(Leg::A, n);
        press.content = Some(Content::Digit {
            ssrc: press.ssrc,
            timestamp: sent(Leg::A, 100).timestamp,
            duration,
            answer: answer.map(Key),
        });
        press
    }

    #[test]
    fn a_digit_is_cut_out_exactly_where_it_was_pressed() {
        // The telephone goes on sending audio, with the tone in it, and numbers both in one sequence.
        let mut packets = stream(Leg::A, 0..300);
        packets.extend((101..=108).map(|n| press(n, ((n - 100) * 160) as u16, None)));
        packets.extend([press(108, 1_280, None), press(108, 1_280, None)]);
        let recorded = record(packets);
        assert_eq!(recorded.gaps_of(Leg::A), [(16_000, 17_280, GapCause::Digit)]);
        assert!(recorded.silent(Leg::A, 16_000..17_280));
        assert_eq!(recorded.offset(Leg::A, 17_280), Some(0));
        assert_eq!(recorded.length, 48_000);
    }

    #[test]
    fn events_instead_of_audio_are_no_loss() {
        let mut packets = stream(Leg::A, 0..300);
        packets.drain(100..108);
        packets.extend((100..108).map(|n| press(n, ((n - 99) * 160) as u16, None)));
        let recorded = record(packets);
        assert_eq!(recorded.gaps_of(Leg::A), [(16_000, 17_280, GapCause::Digit)]);
    }

    #[test]
    fn what_cannot_be_decoded_is_a_gap_and_no_noise() {
        let mut packets = stream(Leg::A, 0..200);
        for sent in &mut packets[50..100] {
            sent.content = Some(Content::Rtp {
                codec: Codec::Other,
                marker: false,
                sequence: sent.sequence,
                timestamp: sent.timestamp,
                ssrc: sent.ssrc,
                payload: Payload::EMPTY,
            });
        }
        let recorded = record(packets);
        assert_eq!(recorded.gaps_of(Leg::A), [(8_000, 16_000, GapCause::Codec)]);
        assert!(recorded.silent(Leg::A, 8_000..16_000));
        assert_eq!(recorded.length, 32_000);
    }

    #[test]
    fn a_key_held_down_since_before_the_recording_does_not_begin_it() {
        let mut held = sent(Leg::B, 0);
        held.content = Some(Content::Digit { ssrc: 5, timestamp: 0, duration: 3_200, answer: None });
        let mut packets = stream(Leg::A, 0..100);
        packets.push(held);
        assert_eq!(record(packets).length, 16_000);
    }

    #[test]
    fn what_a_party_is_told_is_in_its_channel() {
        let mut packets = stream(Leg::A, 0..100);
        packets.extend((20..40).map(|n| {
            let mut told = sent(Leg::B, n);
            let audio: Vec<u8> = (0..160).map(|i| speech(Leg::B, n * 160 + i)).collect();
            told.arrival_us += (n as u64 % 3) * 4_000;
            told.content = Some(Content::Told {
                codec: Codec::Pcmu,
                timestamp: 99u32.wrapping_add(n as u32 * 160),
                question: true,
                payload: Payload::copy_of(&audio).unwrap(),
            });
            told
        }));
        let recorded = record(packets);
        let start = recorded.channels[1].iter().position(|sample| *sample != 0).unwrap() as i64;
        assert!(start.abs_diff(3_200) <= 64, "{start}");
        let told: Vec<i16> = (3_200..6_400).map(|n| heard(Leg::B, n)).collect();
        assert!(recorded.channels[1][start as usize..start as usize + 3_200] == told, "without a break");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever the network does within the jitter buffer, what arrives stands within 40 ms of where it was
        /// said, what does not is listed, and the length is that of the call. A drift of 20 ms is let be, and a
        /// second in which no packet came without delay looks like one.
        #[test]
        fn loss_reordering_duplication_and_jitter_do_not_falsify(
            fates in prop::collection::vec((0u8..100, 0u64..118_000, 0u8..100), 250),
            loss_percent in 0u8..35,
            jitter_percent in 0u64..=100,
            copies_percent in 0u8..10,
        ) {
            let mut packets = Vec::new();
            for (n, (lost, jitter_us, copied)) in fates.iter().enumerate() {
                let mut packet = sent(Leg::A, n as i64);
                packet.arrival_us += jitter_us * jitter_percent / 100;
                if *copied < copies_percent {
                    packets.push(Sent { arrival_us: packet.arrival_us + 30_000, ..packet.clone() });
                }
                if *lost >= loss_percent || n == 0 || n == 249 {
                    packets.push(packet);
                }
            }
            let arrived: std::collections::BTreeSet<i64> = packets.iter().map(|sent| sent.n).collect();
            let recorded = record(packets);
            prop_assert!(recorded.length.abs_diff(40_000) <= 320, "{}", recorded.length);
            let mut listed = vec![false; recorded.length as usize];
            for (from, to, cause) in recorded.gaps_of(Leg::A) {
                prop_assert_eq!(cause, GapCause::Loss);
                prop_assert!(recorded.silent(Leg::A, from..to));
                listed[from as usize..to as usize].fill(true);
            }
            // Taking out drift next to a packet out of order can leave two milliseconds of silence.
            let unlisted = recorded.channels[0].iter().zip(&listed).map(|(sample, listed)| *sample == 0 && !listed);
            let longest = unlisted.fold((0, 0), |(run, longest), silent| {
                let run = if silent { run + 1 } else { 0 };
                (run, run.max(longest))
            });
            prop_assert!(longest.1 <= 32, "{} samples of silence are not listed", longest.1);
            for n in arrived {
                let at = n * 160 + 160;
                if at + 320 < recorded.length as i64 && !listed[at as usize..at as usize + 60].contains(&true) {
                    let offset = recorded.offset(Leg::A, at);
                    prop_assert!(offset.is_none_or(|offset| offset.abs() <= 320), "{:?}", offset);
                }
            }
        }
    }
}
