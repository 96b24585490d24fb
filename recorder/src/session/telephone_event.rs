//! RFC 4733 telephone events: which of a leg's packets is a new key press, and when it began.
//!
//! A press is known by SSRC and timestamp (§2.5.1.2: all packets of one event carry its start), so it is
//! reported once, on whichever of its packets comes first, however many are lost, repeated or late.
//!
//! | packet | means |
//! |---|---|
//! | event over 15 (§3.2: not a key) | nothing |
//! | SSRC and timestamp of one of the last four presses | the same press |
//! | same key, timestamp at the end of an unfinished press at the longest duration | the same press (§2.5.1.3) |
//! | anything else | a new press |
//!
//! A press began before the packet that tells of it, by at least the duration that the packet states
//! (§2.3.5), so that a key held down since before a question is no answer to it:
//!
//! | first packet to arrive | the press began |
//! |---|---|
//! | any without the end bit, whatever was lost before it | its duration before its arrival |
//! | one with the end bit | [`END_REPEATS_US`] earlier still: it may be a repeat of the end (§2.5.1.4) |
//!
//! Not seen: that a press goes on from a segment of which nothing arrived (8 s without one packet).
//!
//! Presses beyond [`BURST`] at once and [`PER_SECOND`] after that are not reported: no person and no
//! dialler makes them. Left out: tones in the audio, and volume.

use consent::{Mono, Now};

/// Presses that may arrive together, after the network has held them back.
const BURST: u64 = 32;
/// Presses a second in the long run; ITU-T Q.24 detectors allow fewer.
const PER_SECOND: u64 = 20;
/// Presses remembered, so that a late repeat of an older one is no new press.
const REMEMBERED: usize = 4;
/// A segment this long may be followed by another of the same press (§2.5.1.3 says 0xFFFF).
const LONG_SEGMENT: u16 = 0xF000;

/// The end is sent three times, at the interval of the other packets (§2.5.1.4): 60 ms at most, the longest
/// packet time that telephones use. Which of the three a packet is does not show.
const END_REPEATS_US: u64 = 2 * 60_000;

/// One packet's payload (§2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventPayload {
    event: u8,
    end: bool,
    /// Length so far, in timestamp units.
    pub(super) duration: u16,
}

impl EventPayload {
    /// The first event of a payload; `None` if it is too short.
    pub(super) fn parse(payload: &[u8]) -> Option<Self> {
        let [event, flags, high, low] = *payload.first_chunk()?;
        Some(Self { event, end: flags & 0x80 != 0, duration: u16::from_be_bytes([high, low]) })
    }

    /// The latest instant at which the press can have begun, by a packet that arrived at `at`.
    pub(super) fn began(self, at: Now, clock_rate: u32) -> Now {
        let lasted_us = u64::from(self.duration) * 1_000_000 / u64::from(clock_rate.max(1));
        at.minus_us(if self.end { lasted_us + END_REPEATS_US } else { lasted_us })
    }

    /// The key, if the event is one.
    pub(super) fn key(self) -> Option<char> {
        char::from_digit(u32::from(self.event), 10).or(match self.event {
            10 => Some('*'),
            11 => Some('#'),
            12..=15 => Some(char::from(b'A' + self.event - 12)),
            _ => None,
        })
    }
}

/// Tells presses of one leg apart.
#[derive(Debug, Default)]
pub(super) struct Keypad {
    presses: [Option<Press>; REMEMBERED],
    next: usize,
    spent: u64,
    spent_at: Mono,
}

#[derive(Clone, Copy, Debug)]
struct Press {
    ssrc: u32,
    timestamp: u32,
    event: u8,
    duration: u16,
    ended: bool,
}

impl Keypad {
    /// Takes in a packet of an event; the key, if it begins a press.
    pub(super) fn on_event(
        &mut self,
        at: Mono,
        ssrc: u32,
        timestamp: u32,
        payload: EventPayload,
    ) -> Option<char> {
        let key = payload.key()?;
        if self.is_known(ssrc, timestamp, payload) {
            return None;
        }
        let continues =
            self.latest().is_some_and(|press| press.is_followed_by(ssrc, timestamp, payload.event));
        let EventPayload { event, duration, end: ended } = payload;
        self.presses[self.next] = Some(Press { ssrc, timestamp, event, duration, ended });
        self.next = (self.next + 1) % REMEMBERED;
        (!continues && self.may_report(at)).then_some(key)
    }

    fn is_known(&mut self, ssrc: u32, timestamp: u32, payload: EventPayload) -> bool {
        let mut presses = self.presses.iter_mut().flatten();
        let Some(press) = presses.find(|press| press.ssrc == ssrc && press.timestamp == timestamp) else {
            return false;
        };
        press.duration = press.duration.max(payload.duration);
        press.ended |= payload.end;
        true
    }

    fn latest(&self) -> Option<Press> {
        self.presses[(self.next + REMEMBERED - 1) % REMEMBERED]
    }

    /// A bucket of [`BURST`] presses that refills at [`PER_SECOND`]; counted in microseconds of refill.
    fn may_report(&mut self, at: Mono) -> bool {
        const COST_US: u64 = 1_000_000 / PER_SECOND;
        self.spent = self.spent.saturating_sub(at.since_us(self.spent_at));
        self.spent_at = at;
        let allowed = self.spent + COST_US <= BURST * COST_US;
        if allowed {
            self.spent += COST_US;
        }
        allowed
    }
}

impl Press {
    fn is_followed_by(&self, ssrc: u32, timestamp: u32, event: u8) -> bool {
        let follows = timestamp.wrapping_sub(self.timestamp.wrapping_add(u32::from(self.duration)));
        let slack = u32::from(u16::MAX - LONG_SEGMENT);
        !self.ended
            && self.duration >= LONG_SEGMENT
            && self.ssrc == ssrc
            && self.event == event
            && follows <= slack
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn event(event: u8, end: bool, duration: u16) -> EventPayload {
        EventPayload { event, end, duration }
    }

    fn press(keypad: &mut Keypad, ms: u64, timestamp: u32, payload: EventPayload) -> Option<char> {
        keypad.on_event(Mono::default().plus_ms(ms), 7, timestamp, payload)
    }

    #[test]
    fn a_payload_is_read_and_a_short_one_is_not() {
        assert_eq!(EventPayload::parse(&[1, 0x8a, 3, 32]), Some(event(1, true, 800)));
        assert_eq!(EventPayload::parse(&[1, 0x8a, 3]), None);
    }

    #[test]
    fn a_press_began_its_duration_before_a_packet_and_before_the_repeats_of_its_end() {
        let at = Now { mono: Mono(1_000_000), wall: consent::Wall(5_000_000) };
        for (end, duration, clock_rate, before_us) in [
            (false, 0, 8_000, 0),
            (false, 160, 8_000, 20_000),
            (false, 800, 8_000, 100_000),
            (false, 800, 16_000, 50_000),
            (true, 800, 8_000, 220_000),
        ] {
            let began = event(1, end, duration).began(at, clock_rate);
            assert_eq!(began.mono, Mono(1_000_000 - before_us), "{end} {duration} {clock_rate}");
            assert_eq!(began.wall, consent::Wall(5_000_000 - before_us as i64));
        }
        assert_eq!(event(1, true, u16::MAX).began(at, 1).mono, Mono(0), "before there was a clock");
    }

    #[test]
    fn every_key_has_its_event_and_no_other_event_is_a_key() {
        let keys: String = (0..=255).filter_map(|code| event(code, false, 0).key()).collect();
        assert_eq!(keys, "0123456789*#ABCD");
    }

    #[test]
    fn one_press_is_one_key_whichever_of_its_packets_come() {
        let mut keypad = Keypad::default();
        let packets = [event(1, false, 160), event(1, false, 320), event(1, true, 800), event(1, true, 800)];
        let keys: Vec<char> =
            packets.iter().filter_map(|packet| press(&mut keypad, 0, 1_600, *packet)).collect();
        assert_eq!(keys, ['1']);
        assert_eq!(press(&mut keypad, 0, 9_600, event(2, true, 800)), Some('2'), "only its end arrived");
        assert_eq!(press(&mut keypad, 0, 1_600, event(1, true, 800)), None, "a late repeat");
    }

    #[test]
    fn the_same_key_twice_is_two_presses() {
        let mut keypad = Keypad::default();
        assert_eq!(press(&mut keypad, 0, 0, event(1, true, 800)), Some('1'));
        assert_eq!(press(&mut keypad, 200, 1_600, event(1, true, 800)), Some('1'));
    }

    #[test]
    fn a_key_held_for_longer_than_an_event_can_say_is_one_press() {
        let mut keypad = Keypad::default();
        assert_eq!(press(&mut keypad, 0, 100, event(5, false, 160)), Some('5'));
        assert_eq!(press(&mut keypad, 8_000, 100, event(5, false, 0xFFFF)), None);
        assert_eq!(press(&mut keypad, 8_020, 100 + 0xFFFF, event(5, false, 160)), None);
    }

    #[test]
    fn a_flood_of_presses_is_bounded_and_ends() {
        let mut keypad = Keypad::default();
        let flood = (0..1_000).filter_map(|n| press(&mut keypad, 0, n, event(1, true, 1))).count();
        assert_eq!(flood, 32);
        assert_eq!(press(&mut keypad, 1_000, 5_000, event(2, true, 1)), Some('2'));
    }
}
