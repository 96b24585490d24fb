//! RTP streams of a capture: those that a description announced, and those that look like RTP for long
//! enough. Their figures are the recorder's own.
//!
//! | datagram | counts for a stream |
//! |---|---|
//! | version 2, no RTCP type, from or to a described address | at once |
//! | version 2, no RTCP type, elsewhere | once [`PROBATION`] in a row had consecutive numbers |
//! | anything else | never |

use std::collections::HashMap;
use std::net::SocketAddr;

use consent::{Mono, Now, Wall};
use recorder::session::{Arrival, Reception, static_encoding};
use rtp_rs::RtpReader;
use sip_gateway::{Format, LegMedia};

/// Streams followed; packets of further ones are counted.
const MAX_STREAMS: usize = 4_096;

/// Addresses remembered from descriptions; later ones are not.
const MAX_DESCRIBED: usize = 20_000;

/// Packets with consecutive numbers that make a stream of what no description announced. Random data passes
/// for four of them once in 2^64.
const PROBATION: u32 = 5;

/// RFC 5761 §4: a second octet in this range is an RTCP packet type.
const RTCP_TYPES: std::ops::RangeInclusive<u8> = 192..=223;

/// RFC 3551 §6: those below are static.
const FIRST_DYNAMIC_TYPE: u8 = 96;

/// The payload of a telephone event (RFC 4733 §2.3), which shares the timestamp of its first packet.
const EVENT_BYTES: usize = 4;

const TELEPHONY_CLOCK_HZ: u32 = 8_000;

/// The streams of a capture.
#[derive(Default)]
pub(super) struct Media {
    streams: Vec<Stream>,
    by_source: HashMap<(SocketAddr, SocketAddr, u32), usize>,
    described: HashMap<SocketAddr, (usize, Vec<Format>)>,
    pub(super) left_out: u64,
}

/// Packets of one source from one address to another.
pub(super) struct Stream {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) ssrc: u32,
    pub(super) reception: Reception,
    pub(super) first: Wall,
    pub(super) last: Wall,
    /// Which dialogue announced it.
    pub(super) dialogue: Option<usize>,
    types: Vec<(u8, Option<String>, u64)>,
    last_sequence: u16,
    in_a_row: u32,
    proven: bool,
}

impl Media {
    /// Takes in a description.
    pub(super) fn describe(&mut self, dialogue: usize, media: &LegMedia) {
        for stream in &media.streams {
            if let Some(rtp) = stream.rtp.filter(|_| self.described.len() < MAX_DESCRIBED) {
                self.described.insert(rtp, (dialogue, stream.formats.clone()));
            }
        }
    }

    /// Takes a datagram, which may be of a stream.
    pub(super) fn take(&mut self, at: Wall, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let is_control = payload.get(1).is_none_or(|kind| RTCP_TYPES.contains(kind));
        let Some(packet) = RtpReader::new(payload).ok().filter(|_| !is_control) else { return };
        let known = [to, from].iter().find_map(|address| self.described.get(address));
        let number = packet.payload_type();
        let format = known.and_then(|(_, formats)| formats.iter().find(|f| f.payload_type == number));
        let encoding = format.map(|format| format.encoding.clone());
        let encoding = encoding.or_else(|| static_encoding(number).map(str::to_owned));
        let clock_rate = format.map_or(TELEPHONY_CLOCK_HZ, |format| format.clock_rate);
        let dialogue = known.map(|(dialogue, _)| *dialogue);
        let Some(stream) = self.stream(at, (from, to, packet.ssrc())) else {
            self.left_out += 1;
            return;
        };
        let event = match &encoding {
            Some(encoding) => encoding.eq_ignore_ascii_case("telephone-event"),
            None => number >= FIRST_DYNAMIC_TYPE && packet.payload().len() == EVENT_BYTES,
        };
        let arrival = Arrival {
            ssrc: packet.ssrc(),
            sequence: packet.sequence_number().into(),
            timestamp: (!event).then_some(packet.timestamp()),
            clock_rate,
        };
        stream.dialogue = stream.dialogue.or(dialogue);
        stream.proven |= dialogue.is_some();
        stream.take(at, arrival, number, encoding.or_else(|| event.then(|| "telephone-event".to_owned())));
    }

    /// The streams, in the order in which they began.
    pub(super) fn streams(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter().filter(|stream| stream.proven)
    }

    fn stream(&mut self, at: Wall, key: (SocketAddr, SocketAddr, u32)) -> Option<&mut Stream> {
        let index = match self.by_source.get(&key) {
            Some(index) => *index,
            None if self.streams.len() >= MAX_STREAMS => return None,
            None => {
                self.by_source.insert(key, self.streams.len());
                self.streams.push(Stream::new(at, key));
                self.streams.len() - 1
            }
        };
        self.streams.get_mut(index)
    }
}

impl Stream {
    fn new(at: Wall, (from, to, ssrc): (SocketAddr, SocketAddr, u32)) -> Self {
        Self {
            from,
            to,
            ssrc,
            reception: Reception::default(),
            first: at,
            last: at,
            dialogue: None,
            types: Vec::new(),
            last_sequence: 0,
            in_a_row: 0,
            proven: false,
        }
    }

    fn take(&mut self, at: Wall, arrival: Arrival, number: u8, encoding: Option<String>) {
        let follows = self.in_a_row > 0 && arrival.sequence == self.last_sequence.wrapping_add(1);
        self.in_a_row = if follows { self.in_a_row + 1 } else { 1 };
        self.last_sequence = arrival.sequence;
        self.proven |= self.in_a_row >= PROBATION;
        self.last = self.last.max(at);
        let mono = Mono(u64::try_from(at.0 - self.first.0).unwrap_or(0));
        self.reception.on_packet(Now { mono, wall: at }, arrival);
        match self.types.iter_mut().find(|(known, ..)| *known == number) {
            Some((_, known, count)) => {
                *known = encoding.or(known.take());
                *count += 1;
            }
            None => self.types.push((number, encoding, 1)),
        }
    }

    /// The encoding that most of its packets had, or its number.
    pub(super) fn codec(&self) -> String {
        let main = self.types.iter().max_by_key(|(.., count)| *count);
        main.map_or_else(String::new, |(number, encoding, _)| {
            encoding.clone().unwrap_or_else(|| format!("type {number}"))
        })
    }

    pub(super) fn duration_s(&self) -> f64 {
        (self.last.0 - self.first.0) as f64 / 1e6
    }
}
