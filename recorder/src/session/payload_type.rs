//! Payload type numbers: what a number means in a packet from one leg, and which number says the same to
//! the other (RFC 3264 §5.1, RFC 3551 table 4).
//!
//! A sender uses the numbers of its *receiver's* description, and the gateway passes the formats of one
//! leg's description on to the other. So a number is looked up first in the other leg's description,
//! and goes through as it is; then in the sender's own, for senders that use their own numbers, or
//! that were described before the other leg changed; there it is mapped by encoding and clock rate.

use crate::{RemoteMedia, StreamFormat};

/// RFC 3551 §6: numbers below are static.
const FIRST_DYNAMIC: u8 = 35;
/// RFC 3551 gives every static audio type but these an 8 kHz RTP clock: (number, Hz).
const OTHER_CLOCKS: [(u8, u32); 6] =
    [(6, 16_000), (10, 44_100), (11, 44_100), (14, 90_000), (16, 11_025), (17, 22_050)];

/// What kind of thing a payload is, as far as the relay cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pcmu,
    Pcma,
    ComfortNoise,
    TelephoneEvent,
    OtherAudio,
}

/// What to make of a payload type number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    /// The number towards the other leg.
    pub(super) onward: u8,
    /// What it is.
    pub(super) kind: Kind,
    /// RTP clock in Hz, never 0.
    pub(super) clock_rate: u32,
}

/// Meanings of all numbers in packets from one leg. `None`: nobody described it, refuse it.
#[derive(Debug)]
pub(super) struct PayloadTypes([Option<Meaning>; 128]);

impl PayloadTypes {
    /// From the sender's description and the other leg's, as far as they are known.
    pub(super) fn new(sender: Option<&RemoteMedia>, receiver: Option<&RemoteMedia>) -> Self {
        let mut meanings = [None; 128];
        for (number, meaning) in (0..128).zip(&mut meanings) {
            *meaning = meaning_of(number, sender, receiver);
        }
        Self(meanings)
    }

    /// The meaning of a number (its high bit, the marker, is ignored).
    pub(super) fn meaning(&self, payload_type: u8) -> Option<Meaning> {
        self.0[usize::from(payload_type & 0x7f)]
    }
}

fn meaning_of(number: u8, sender: Option<&RemoteMedia>, receiver: Option<&RemoteMedia>) -> Option<Meaning> {
    if let Some(format) = receiver.and_then(|media| format_of(media, number)) {
        return Some(Meaning { onward: number, kind: kind_of(format), clock_rate: format.clock_rate.max(1) });
    }
    if let Some(format) = sender.and_then(|media| format_of(media, number)) {
        let same = |other: &&StreamFormat| {
            other.encoding == format.encoding && other.clock_rate == format.clock_rate
        };
        let onward = receiver.and_then(|media| media.formats.iter().find(same));
        let onward = onward.map_or(number, |other| other.payload_type);
        return Some(Meaning { onward, kind: kind_of(format), clock_rate: format.clock_rate.max(1) });
    }
    (number < FIRST_DYNAMIC).then(|| {
        let kind = match number {
            0 => Kind::Pcmu,
            8 => Kind::Pcma,
            13 => Kind::ComfortNoise,
            _ => Kind::OtherAudio,
        };
        let clock = OTHER_CLOCKS.iter().find(|(other, _)| *other == number);
        Meaning { onward: number, kind, clock_rate: clock.map_or(8_000, |(_, hertz)| *hertz) }
    })
}

fn format_of(media: &RemoteMedia, number: u8) -> Option<&StreamFormat> {
    media.formats.iter().find(|format| format.payload_type == number)
}

/// G.711 at another rate than telephony's is nothing that the recorder or the prompts know.
fn kind_of(format: &StreamFormat) -> Kind {
    match (format.encoding.as_str(), format.clock_rate) {
        ("PCMU", 8_000) => Kind::Pcmu,
        ("PCMA", 8_000) => Kind::Pcma,
        ("CN", _) => Kind::ComfortNoise,
        ("TELEPHONE-EVENT", _) => Kind::TelephoneEvent,
        _ => Kind::OtherAudio,
    }
}

/// The G.711 format in which to speak to a leg: its first that the other leg has too, else its first.
/// `None` if it takes neither law. The payload type is the leg's own number.
pub(super) fn speech_format(to: &RemoteMedia, other: Option<&RemoteMedia>) -> Option<(u8, Kind)> {
    let speech = |format: &&StreamFormat| matches!(kind_of(format), Kind::Pcmu | Kind::Pcma);
    let shared = |format: &&StreamFormat| {
        other.is_some_and(|media| media.formats.iter().any(|theirs| kind_of(theirs) == kind_of(format)))
    };
    let candidates = || to.formats.iter().filter(speech);
    let chosen = candidates().find(shared).or_else(|| candidates().next())?;
    Some((chosen.payload_type, kind_of(chosen)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(formats: &[(u8, &str, u32)]) -> RemoteMedia {
        let formats = formats.iter().map(|(payload_type, encoding, clock_rate)| StreamFormat {
            payload_type: *payload_type,
            encoding: (*encoding).to_owned(),
            clock_rate: *clock_rate,
        });
        RemoteMedia {
            rtp: ([127, 0, 0, 1], 4_000).into(),
            rtcp: ([127, 0, 0, 1], 4_001).into(),
            audio: true,
            sends: true,
            receives: true,
            formats: formats.collect(),
            ptime_ms: 20,
        }
    }

    #[test]
    fn numbers_of_the_receiver_go_through_and_the_senders_own_are_mapped() {
        let sender = media(&[(0, "PCMU", 8_000), (96, "TELEPHONE-EVENT", 8_000)]);
        let receiver = media(&[(0, "PCMU", 8_000), (101, "TELEPHONE-EVENT", 8_000)]);
        let numbers = PayloadTypes::new(Some(&sender), Some(&receiver));
        let event = Meaning { onward: 101, kind: Kind::TelephoneEvent, clock_rate: 8_000 };
        assert_eq!(numbers.meaning(101), Some(event));
        assert_eq!(numbers.meaning(96), Some(event));
        assert_eq!(numbers.meaning(0x80).map(|meaning| meaning.kind), Some(Kind::Pcmu));
    }

    #[test]
    fn where_both_use_a_number_the_receivers_meaning_counts() {
        let sender = media(&[(97, "OPUS", 48_000)]);
        let receiver = media(&[(97, "TELEPHONE-EVENT", 8_000)]);
        let numbers = PayloadTypes::new(Some(&sender), Some(&receiver));
        assert_eq!(numbers.meaning(97).map(|meaning| meaning.kind), Some(Kind::TelephoneEvent));
    }

    #[test]
    fn static_numbers_need_no_description_and_dynamic_ones_do() {
        let numbers = PayloadTypes::new(None, None);
        assert_eq!(numbers.meaning(8).map(|meaning| meaning.kind), Some(Kind::Pcma));
        assert_eq!(numbers.meaning(13).map(|meaning| meaning.kind), Some(Kind::ComfortNoise));
        assert_eq!(numbers.meaning(101), None);
    }

    #[test]
    fn a_notice_is_spoken_in_the_law_that_both_have() {
        let both = media(&[(0, "PCMU", 8_000), (8, "PCMA", 8_000)]);
        let a_law = media(&[(8, "PCMA", 8_000)]);
        let neither = media(&[(9, "G722", 8_000)]);
        assert_eq!(speech_format(&both, Some(&a_law)), Some((8, Kind::Pcma)));
        assert_eq!(speech_format(&both, None), Some((0, Kind::Pcmu)));
        assert_eq!(speech_format(&neither, Some(&both)), None);
    }
}
