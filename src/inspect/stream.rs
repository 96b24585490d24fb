//! SIP out of TCP: segments put in order, and messages cut out of them by the gateway's own framer.
//!
//! | state | segment | does |
//! |---|---|---|
//! | no place | with SYN | its place is known |
//! | no place | begins as a SIP message does | its place is known |
//! | place | the next | to the framer, and what waited behind it |
//! | place | an old one | what is new of it |
//! | place | a later one | waits |
//! | place | more than [`MAX_WAITING_BYTES`] wait, or the capture ends | a gap: goes on behind it, at the next message |
//! | place | the framer has lost its way | goes on at the next segment that begins as a message does |

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use sip_gateway::Limits;
use sip_gateway::wire::{Frame, Framer, Message};

use super::packet::Segment;
use super::signalling::begins_as_sip;

/// What may wait for a missing segment, in each direction of a connection.
const MAX_WAITING_BYTES: usize = 256 * 1024;

/// Directions of connections followed at once.
const MAX_FLOWS: usize = 4_096;

/// All connections of a capture.
#[derive(Default)]
pub(super) struct Streams {
    flows: HashMap<(SocketAddr, SocketAddr), Flow>,
    /// Connections beyond the bound.
    pub(super) left_out: u64,
    /// Gaps in connections that carry SIP.
    pub(super) gaps: u64,
}

struct Flow {
    next: Option<u32>,
    /// Whether the framer stands where a message may begin, or in one.
    in_step: bool,
    /// Whether it has ever carried SIP.
    sip: bool,
    framer: Framer,
    waiting: BTreeMap<u32, Vec<u8>>,
    waiting_bytes: usize,
}

impl Streams {
    /// Takes the next segment; the messages that it completes go to `each`.
    pub(super) fn take(&mut self, segment: &Segment<'_>, limits: &Limits, mut each: impl FnMut(Message)) {
        let key = (segment.from, segment.to);
        if !self.flows.contains_key(&key) && self.flows.len() >= MAX_FLOWS {
            self.left_out += 1;
            return;
        }
        let flow = self.flows.entry(key).or_insert_with(|| Flow::new(limits));
        if segment.syn {
            *flow = Flow::new(limits);
            flow.next = Some(segment.sequence.wrapping_add(1));
            return;
        }
        if segment.payload.is_empty() {
            return;
        }
        if flow.next.is_none() && begins_as_sip(segment.payload) {
            flow.next = Some(segment.sequence);
        }
        let Some(next) = flow.next else { return };
        flow.insert(segment.sequence, next, segment.payload);
        flow.advance(limits, &mut each);
        if flow.waiting_bytes > MAX_WAITING_BYTES {
            self.gaps += u64::from(flow.skip(limits));
            flow.advance(limits, &mut each);
        }
    }

    /// The capture is over: what still waits is read behind its gaps, each from its sender to its receiver.
    pub(super) fn finish(&mut self, limits: &Limits, mut each: impl FnMut(SocketAddr, SocketAddr, Message)) {
        for ((from, to), flow) in &mut self.flows {
            while !flow.waiting.is_empty() {
                self.gaps += u64::from(flow.skip(limits));
                flow.advance(limits, &mut |message| each(*from, *to, message));
            }
        }
    }
}

impl Flow {
    fn new(limits: &Limits) -> Self {
        Self {
            next: None,
            in_step: false,
            sip: false,
            framer: Framer::new(limits),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
        }
    }

    fn insert(&mut self, sequence: u32, next: u32, payload: &[u8]) {
        let behind = next.wrapping_sub(sequence);
        let (sequence, payload) = if behind < 1 << 31 {
            (next, payload.get(behind as usize..).unwrap_or_default())
        } else {
            (sequence, payload)
        };
        let known = self.waiting.get(&sequence).map_or(0, Vec::len);
        if payload.len() > known {
            self.waiting_bytes += payload.len() - known;
            self.waiting.insert(sequence, payload.to_vec());
        }
    }

    /// Feeds what is next, as far as nothing is missing.
    fn advance(&mut self, limits: &Limits, each: &mut impl FnMut(Message)) {
        while let Some((next, sequence)) = self.next.zip(self.next_waiting()) {
            let behind = next.wrapping_sub(sequence);
            if behind >= 1 << 31 {
                return;
            }
            let Some(bytes) = self.waiting.remove(&sequence) else { return };
            self.waiting_bytes -= bytes.len();
            let fresh = bytes.get(behind as usize..).unwrap_or_default();
            self.next = Some(next.wrapping_add(u32::try_from(fresh.len()).unwrap_or_default()));
            self.feed(fresh, limits, each);
        }
    }

    /// The waiting segment that comes first, in the order of TCP's numbers.
    fn next_waiting(&self) -> Option<u32> {
        let next = self.next?;
        self.waiting.keys().copied().min_by_key(|sequence| sequence.wrapping_sub(next) as i32)
    }

    fn feed(&mut self, bytes: &[u8], limits: &Limits, each: &mut impl FnMut(Message)) {
        if !self.in_step {
            if !begins_as_sip(bytes) {
                return;
            }
            self.framer = Framer::new(limits);
            (self.in_step, self.sip) = (true, true);
        }
        self.framer.feed(bytes);
        while let Some(frame) = self.framer.next_frame() {
            match frame {
                Frame::Message(message) => each(message),
                Frame::Ping | Frame::Refused(_) => {}
                Frame::Broken(_) => self.in_step = false,
            }
        }
    }

    /// Leaves out what is missing; whether SIP may have been lost with it.
    fn skip(&mut self, limits: &Limits) -> bool {
        self.next = self.next_waiting().or(self.next);
        self.framer = Framer::new(limits);
        self.in_step = false;
        self.sip
    }
}
