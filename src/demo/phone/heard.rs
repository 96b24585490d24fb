//! What a telephone heard: RTP packets with their arrival times, as they came.

use std::time::Instant;

use super::sdp::PCMU;
use crate::demo::mu_law;

/// Packets kept: 30 minutes. What comes after is counted, not kept.
const HEARD_LIMIT: usize = 90_000;

/// A timestamp this far from the expected (10 s) is a new stream, not a pause.
const LONGEST_PAUSE_SAMPLES: u32 = 80_000;

/// One RTP packet (RFC 3550 §5.1), without CSRCs, header extension and padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeardPacket {
    /// When it arrived.
    pub at: Instant,
    /// Payload type.
    pub payload_type: u8,
    /// The marker bit.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp, 8 kHz.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// The payload.
    pub payload: Vec<u8>,
}

/// All that was heard, in the order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    packets: Vec<HeardPacket>,
    unkept: u64,
}

impl HeardPacket {
    /// `None` if it is not an RTP packet.
    pub(super) fn parse(datagram: &[u8], at: Instant) -> Option<Self> {
        let (header, rest) = datagram.split_first_chunk::<12>()?;
        let &[flags, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = header;
        if flags >> 6 != 2 {
            return None;
        }
        let mut payload = rest.get(usize::from(flags & 0x0F) * 4..)?;
        if flags & 0x10 != 0 {
            let (extension, _) = payload.split_first_chunk::<4>()?;
            let words = u16::from_be_bytes([extension[2], extension[3]]);
            payload = payload.get(4 + usize::from(words) * 4..)?;
        }
        if flags & 0x20 != 0 {
            let padding = usize::from(*payload.last()?);
            payload = payload.get(..payload.len().checked_sub(padding)?)?;
        }
        Some(Self {
            at,
            payload_type: second & 0x7F,
            marker: second & 0x80 != 0,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            payload: payload.to_vec(),
        })
    }
}

impl Heard {
    /// The packets.
    #[must_use]
    pub fn packets(&self) -> &[HeardPacket] {
        &self.packets
    }

    /// Packets beyond what is kept.
    #[must_use]
    pub const fn unkept(&self) -> u64 {
        self.unkept
    }

    /// The µ-law audio laid out by timestamps, silence where nothing came. A new source, or a leap of the
    /// timestamp by more than 10 s, is put behind what was heard before.
    #[must_use]
    pub fn audio(&self) -> Vec<u8> {
        let mut audio: Vec<u8> = Vec::new();
        // The SSRC, and the timestamp and place of its first packet.
        let mut source: Option<(u32, u32, usize)> = None;
        for packet in self.packets.iter().filter(|packet| packet.payload_type == PCMU) {
            let place = source.and_then(|(ssrc, first, base)| {
                let ahead = usize::try_from(packet.timestamp.wrapping_sub(first)).ok()?.checked_add(base)?;
                let near = ahead.abs_diff(audio.len()) <= LONGEST_PAUSE_SAMPLES as usize;
                (ssrc == packet.ssrc && near).then_some(ahead)
            });
            let place = place.unwrap_or_else(|| {
                source = Some((packet.ssrc, packet.timestamp, audio.len()));
                audio.len()
            });
            let end = place.saturating_add(packet.payload.len());
            if audio.len() < end {
                audio.resize(end, mu_law::SILENCE);
            }
            if let Some(slot) = audio.get_mut(place..end) {
                slot.copy_from_slice(&packet.payload);
            }
        }
        audio
    }

    /// The keys pressed at the far end (RFC 4733): each event once, by its timestamp. The payload type is
    /// any but µ-law's with an event's four bytes.
    #[must_use]
    pub fn digits(&self) -> String {
        let mut digits = String::new();
        let mut last = None;
        for packet in self.packets.iter().filter(|packet| packet.payload_type != PCMU) {
            let &[event, _, _, _] = packet.payload.as_slice() else { continue };
            if last.replace((packet.ssrc, packet.timestamp)) != Some((packet.ssrc, packet.timestamp)) {
                digits.extend("0123456789*#ABCD".chars().nth(usize::from(event)));
            }
        }
        digits
    }

    /// Keeps a packet, or beyond the limit counts it.
    pub(super) fn keep(&mut self, packet: HeardPacket) {
        if self.packets.len() < HEARD_LIMIT {
            self.packets.push(packet);
        } else {
            self.unkept += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn packet(ssrc: u32, timestamp: u32, byte: u8) -> HeardPacket {
        let payload = vec![byte; 2];
        HeardPacket {
            at: Instant::now(),
            payload_type: PCMU,
            marker: false,
            sequence: 0,
            timestamp,
            ssrc,
            payload,
        }
    }

    #[test]
    fn audio_is_laid_out_by_timestamp_across_loss_reordering_and_a_new_source() {
        let mut heard = Heard::default();
        for (ssrc, timestamp, byte) in [(1, u32::MAX - 1, 1), (1, 4, 4), (1, 0, 2), (2, 77, 9)] {
            heard.keep(packet(ssrc, timestamp, byte));
        }
        assert_eq!(heard.audio(), [1, 1, 2, 2, 0xFF, 0xFF, 4, 4, 9, 9]);
    }

    #[test]
    fn padding_extension_and_sources_are_taken_off_and_short_packets_refused() {
        let mut bytes =
            vec![0xB1, 0x80, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 9, 9, 9, 9, 0xBE, 0xDE, 0, 1, 8, 8, 8, 8];
        bytes.extend_from_slice(&[5, 6, 7, 0, 0, 3]);
        let packet = HeardPacket::parse(&bytes, Instant::now()).unwrap();
        assert_eq!((packet.payload, packet.marker, packet.sequence), (vec![5, 6, 7], true, 1));
        for length in 0..20 {
            assert_eq!(HeardPacket::parse(bytes.get(..length).unwrap(), Instant::now()), None, "{length}");
        }
    }
}
