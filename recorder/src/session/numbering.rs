//! Our own SSRC, sequence and timestamp space towards one leg (RFC 3550 §5.1, as a translator that
//! substitutes its identity), so that notices can be put in and sources may change behind it without
//! the leg's decoder noticing.
//!
//! | packet of the source | towards the leg |
//! |---|---|
//! | next, or a gap, or late | same distance: loss and reordering stay visible |
//! | new SSRC, or sequence restart (RFC 3550 A.1) | goes on at the next number; timestamp by elapsed time |
//! | timestamp jump against the clock | sequence as it is, timestamp by elapsed time |
//! | after a notice or a pause | as for a new SSRC |
//! | older than the last of these changes | not passed on: its number is taken |
//! | withheld (swallowed digit) | the numbers close up behind it |

use consent::Mono;

use super::quality::{MAX_DROPOUT, MAX_MISORDER};

/// A sender's timestamps may run this far ahead of the clock before it counts as a jump, in seconds.
const MAX_AHEAD_S: i64 = 3;
/// Or fall this far behind while its sequence goes forward.
const MAX_BEHIND_S: i64 = 1;
/// Samples per packet assumed until seen: 20 ms at 8 kHz.
const FIRST_STEP: u32 = 160;

/// What the leg receives from us.
#[derive(Debug)]
pub(super) struct Numbering {
    ssrc: u32,
    next_sequence: u16,
    last_timestamp: u32,
    last_at: Option<Mono>,
    step: u32,
    feed: Option<Feed>,
    begun: bool,
    packets: u32,
    octets: u32,
}

/// How the present source's numbers become ours.
#[derive(Clone, Copy, Debug)]
struct Feed {
    ssrc: u32,
    sequence_offset: u16,
    timestamp_offset: u32,
    floor: u16,
    highest: u16,
    timed: Option<(u32, Mono)>,
}

/// A packet's numbers as received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// Synchronisation source.
    pub(super) ssrc: u32,
    /// Sequence number.
    pub(super) sequence: u16,
    /// Timestamp.
    pub(super) timestamp: u32,
    /// Clock of the timestamp in Hz.
    pub(super) clock_rate: u32,
    /// Whether the timestamp advances with the media (telephone events' do not).
    pub(super) timed: bool,
}

/// A packet's numbers as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// Our synchronisation source.
    pub(super) ssrc: u32,
    /// Sequence number.
    pub(super) sequence: u16,
    /// Timestamp.
    pub(super) timestamp: u32,
    /// Whether the stream was joined anew here (to be marked as a talkspurt's start).
    pub(super) joined: bool,
}

impl Numbering {
    /// A space beginning at the given numbers, which should be random (RFC 3550 §5.1).
    pub(super) fn new(ssrc: u32, sequence: u16, timestamp: u32) -> Self {
        let (step, feed) = (FIRST_STEP, None);
        let (begun, packets, octets) = (false, 0, 0);
        Self {
            ssrc,
            next_sequence: sequence,
            last_timestamp: timestamp,
            last_at: None,
            step,
            feed,
            begun,
            packets,
            octets,
        }
    }

    /// Our SSRC towards the leg.
    pub(super) fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Packets and payload octets sent, for a sender report.
    pub(super) fn sent(&self) -> (u32, u32) {
        (self.packets, self.octets)
    }

    /// Counts a packet of `octets` payload as sent.
    pub(super) fn count(&mut self, octets: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(octets as u32);
    }

    /// The numbers with which a received packet goes on; `None` if its place is taken.
    pub(super) fn forward(&mut self, at: Mono, received: Received) -> Option<Sent> {
        let joined = !self.feed.is_some_and(|feed| feed.is_followed_by(received));
        if joined {
            self.join(at, received);
        }
        let mut feed = self.feed?;
        if is_before(received.sequence, feed.floor) {
            return None;
        }
        let newest = joined || is_before(feed.highest, received.sequence);
        let jumped = newest && received.timed && feed.jumps(at, received);
        if jumped {
            let goes_on = self.timestamp_at(at, received.clock_rate);
            feed.timestamp_offset = goes_on.wrapping_sub(received.timestamp);
            feed.floor = received.sequence;
        }
        let sequence = received.sequence.wrapping_add(feed.sequence_offset);
        let timestamp = received.timestamp.wrapping_add(feed.timestamp_offset);
        if newest {
            feed.highest = received.sequence;
            self.next_sequence = sequence.wrapping_add(1);
        }
        if newest && received.timed {
            self.learn_step(feed, received, joined || jumped);
            feed.timed = Some((received.timestamp, at));
            self.last_timestamp = timestamp;
            self.last_at = Some(at);
        }
        self.feed = Some(feed);
        self.begun = true;
        Some(Sent { ssrc: self.ssrc, sequence, timestamp, joined: joined || jumped })
    }

    /// The numbers for `samples` of our own audio. The next received packet joins behind it.
    pub(super) fn insert(&mut self, at: Mono, samples: u32, first: bool) -> Sent {
        self.feed = None;
        self.begun = true;
        let timestamp =
            if first { self.timestamp_at(at, 8_000) } else { self.last_timestamp.wrapping_add(samples) };
        let sequence = self.next_sequence;
        self.next_sequence = sequence.wrapping_add(1);
        self.last_timestamp = timestamp;
        self.last_at = Some(at);
        self.step = samples;
        Sent { ssrc: self.ssrc, sequence, timestamp, joined: first }
    }

    /// A received packet is kept from the leg for good: close up behind it.
    pub(super) fn withhold(&mut self, received: Received) {
        let Some(feed) = self.feed.as_mut().filter(|feed| feed.is_followed_by(received)) else { return };
        if is_before(feed.highest, received.sequence) {
            feed.highest = received.sequence;
            feed.sequence_offset = feed.sequence_offset.wrapping_sub(1);
            feed.floor = received.sequence.wrapping_add(1);
        }
    }

    /// The leg receives nothing for a while: what comes next joins anew, and no loss shows.
    pub(super) fn pause(&mut self) {
        self.feed = None;
    }

    /// Our timestamp for one of the source's, for its sender reports.
    pub(super) fn timestamp_of(&self, ssrc: u32, timestamp: u32) -> Option<u32> {
        let feed = self.feed.filter(|feed| feed.ssrc == ssrc)?;
        Some(timestamp.wrapping_add(feed.timestamp_offset))
    }

    /// The source's SSRC and sequence number for one of ours, for the leg's reports on it.
    pub(super) fn source_of(&self, sequence: u16) -> Option<(u32, u16)> {
        let feed = self.feed?;
        Some((feed.ssrc, sequence.wrapping_sub(feed.sequence_offset)))
    }

    fn join(&mut self, at: Mono, received: Received) {
        let goes_on = self.timestamp_at(at, received.clock_rate);
        // Before our first packet every number is free, and the first to arrive may not be the first sent.
        let floor = if self.begun { received.sequence } else { received.sequence.wrapping_sub(MAX_MISORDER) };
        self.feed = Some(Feed {
            ssrc: received.ssrc,
            sequence_offset: self.next_sequence.wrapping_sub(received.sequence),
            timestamp_offset: goes_on.wrapping_sub(received.timestamp),
            floor,
            highest: received.sequence,
            timed: None,
        });
    }

    /// The timestamp due at `at`: the elapsed time, in whole packets so that arrival jitter does not
    /// enter the media clock, and one packet at least.
    fn timestamp_at(&self, at: Mono, clock_rate: u32) -> u32 {
        let Some(last_at) = self.last_at else { return self.last_timestamp };
        let step = u64::from(self.step.max(1));
        let elapsed = at.since_us(last_at).saturating_mul(u64::from(clock_rate)) / 1_000_000;
        let packets = ((elapsed + step / 2) / step).max(1);
        self.last_timestamp.wrapping_add(packets.wrapping_mul(step) as u32)
    }

    fn learn_step(&mut self, feed: Feed, received: Received, joined: bool) {
        let Some((last, _)) = feed.timed.filter(|_| !joined) else { return };
        let step = received.timestamp.wrapping_sub(last);
        // 10 to 120 ms: anything else is a gap or a burst, not the packet time.
        let per_second = received.clock_rate.max(1);
        if (per_second / 100..=per_second / 8).contains(&step) {
            self.step = step;
        }
    }
}

impl Feed {
    fn is_followed_by(&self, received: Received) -> bool {
        let ahead = received.sequence.wrapping_sub(self.highest);
        let behind = self.highest.wrapping_sub(received.sequence);
        received.ssrc == self.ssrc && (ahead < MAX_DROPOUT || behind <= MAX_MISORDER)
    }

    fn jumps(&self, at: Mono, received: Received) -> bool {
        let Some((last, last_at)) = self.timed else { return false };
        let rate = i64::from(received.clock_rate);
        let advance = i64::from(received.timestamp.wrapping_sub(last) as i32);
        let elapsed =
            i64::try_from(at.since_us(last_at)).unwrap_or(i64::MAX).saturating_mul(rate) / 1_000_000;
        advance < -MAX_BEHIND_S * rate || advance.saturating_sub(elapsed) > MAX_AHEAD_S * rate
    }
}

/// Whether `a` precedes `b` in sequence number order (RFC 1982).
fn is_before(a: u16, b: u16) -> bool {
    (a.wrapping_sub(b) as i16) < 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn numbering() -> Numbering {
        Numbering::new(99, 1_000, 50_000)
    }

    fn packet(ssrc: u32, sequence: u16) -> Received {
        let timestamp = u32::from(sequence).wrapping_mul(160);
        Received { ssrc, sequence, timestamp, clock_rate: 8_000, timed: true }
    }

    fn ms(ms: u64) -> Mono {
        Mono::default().plus_ms(ms)
    }

    #[test]
    fn loss_and_reordering_keep_their_distances() {
        let mut ours = numbering();
        let sent: Vec<u16> = [10, 11, 14, 13, 15]
            .iter()
            .enumerate()
            .map(|(n, sequence)| ours.forward(ms(n as u64 * 20), packet(1, *sequence)).unwrap().sequence)
            .collect();
        assert_eq!(sent, [1_000, 1_001, 1_004, 1_003, 1_005]);
    }

    #[test]
    fn numbers_wrap_without_a_join() {
        let mut ours = numbering();
        for n in 0..20u16 {
            let sequence = n.wrapping_sub(10);
            let timestamp = u32::from(n).wrapping_mul(160).wrapping_sub(1_600);
            let received = Received { timestamp, ..packet(1, sequence) };
            let sent = ours.forward(ms(u64::from(n) * 20), received).unwrap();
            assert_eq!((sent.sequence, sent.timestamp), (1_000 + n, 50_000 + u32::from(n) * 160));
            assert_eq!(sent.joined, n == 0);
        }
    }

    #[test]
    fn a_new_source_goes_on_where_the_old_one_stopped() {
        let mut ours = numbering();
        ours.forward(ms(0), packet(1, 10)).unwrap();
        ours.forward(ms(20), packet(1, 11)).unwrap();
        let sent = ours.forward(ms(43), packet(2, 60_000)).unwrap();
        assert_eq!(sent, Sent { ssrc: 99, sequence: 1_002, timestamp: 50_320, joined: true });
    }

    #[test]
    fn a_timestamp_jump_does_not_reach_the_leg() {
        let mut ours = numbering();
        ours.forward(ms(0), packet(1, 10)).unwrap();
        let jump = Received { timestamp: 10 * 160 + 3_600 * 8_000, ..packet(1, 11) };
        let sent = ours.forward(ms(20), jump).unwrap();
        assert_eq!((sent.sequence, sent.timestamp), (1_001, 50_160));
    }

    #[test]
    fn silence_of_the_source_keeps_its_length() {
        let mut ours = numbering();
        ours.forward(ms(0), packet(1, 10)).unwrap();
        let later = Received { timestamp: 10 * 160 + 70 * 8_000, ..packet(1, 11) };
        let sent = ours.forward(ms(70_000), later).unwrap();
        assert_eq!((sent.timestamp, sent.joined), (50_000 + 70 * 8_000, false));
    }

    #[test]
    fn speech_joins_behind_a_notice_and_late_speech_is_not_sent() {
        let mut ours = numbering();
        ours.forward(ms(0), packet(1, 10)).unwrap();
        assert_eq!(ours.insert(ms(20), 160, true).timestamp, 50_160);
        let second = ours.insert(ms(40), 160, false);
        assert_eq!((second.sequence, second.timestamp), (1_002, 50_320));
        let speech = ours.forward(ms(60), packet(1, 13)).unwrap();
        assert_eq!((speech.sequence, speech.timestamp, speech.joined), (1_003, 50_480, true));
        assert_eq!(ours.forward(ms(61), packet(1, 12)), None);
    }

    #[test]
    fn withheld_packets_leave_no_gap_and_repeats_of_them_change_nothing() {
        let mut ours = numbering();
        ours.forward(ms(0), packet(1, 10)).unwrap();
        let event = |sequence| Received { timed: false, ..packet(1, sequence) };
        for sequence in [11, 12, 12, 13, 13] {
            ours.withhold(event(sequence));
        }
        assert_eq!(ours.forward(ms(80), packet(1, 14)).unwrap().sequence, 1_001);
        assert_eq!(ours.forward(ms(100), packet(1, 15)).unwrap().sequence, 1_002);
    }

    #[test]
    fn reports_are_translated_both_ways() {
        let mut ours = numbering();
        ours.forward(ms(0), packet(1, 10)).unwrap();
        assert_eq!(ours.timestamp_of(1, 1_760), Some(50_160));
        assert_eq!(ours.timestamp_of(2, 1_760), None);
        assert_eq!(ours.source_of(1_005), Some((1, 15)));
    }
}
