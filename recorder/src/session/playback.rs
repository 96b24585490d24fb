//! A notice on its way to a leg, packet by packet.
//!
//! It is complete when its last packet has been sent and the leg was heard from, by RTP or RTCP, while it
//! ran: a notice into a dead path told nobody anything. Nor is it complete if any of it went to a source
//! that the description does not explain: who knows whom it told.

use std::sync::Arc;

use consent::{Mono, Notice};

use super::payload_type::Kind;
use crate::frame::PAYLOAD_BYTES;
use crate::g711;
use crate::prompt::Prompt;

/// Octets in a millisecond of G.711.
const OCTETS_PER_MS: usize = 8;
/// After a stall longer than this the rest is sent from now on, not in a burst to catch up.
const MAX_CATCH_UP_US: u64 = 100_000;

/// A notice being played.
#[derive(Debug)]
pub(super) struct Playback {
    notice: Notice,
    prompt: Arc<Prompt>,
    law: Kind,
    payload_type: u8,
    packet_octets: usize,
    position: usize,
    next_at: Mono,
    heard: bool,
    strayed: bool,
}

/// One packet of it, padded with silence to full length.
#[derive(Debug)]
pub(super) struct Spoken {
    /// The audio.
    pub(super) audio: [u8; PAYLOAD_BYTES],
    /// How much of it counts.
    pub(super) length: usize,
    /// Whether it is the notice's first.
    pub(super) first: bool,
}

impl Playback {
    /// Begins at `at`, in packets of `ptime_ms` (bounded to 10 to 60 ms).
    pub(super) fn new(
        at: Mono,
        notice: Notice,
        prompt: Arc<Prompt>,
        format: (u8, Kind),
        ptime_ms: u32,
    ) -> Self {
        let (payload_type, law) = format;
        let packet_octets = ptime_ms.clamp(10, 60) as usize * OCTETS_PER_MS;
        Self {
            notice,
            prompt,
            law,
            payload_type,
            packet_octets,
            position: 0,
            next_at: at,
            heard: false,
            strayed: false,
        }
    }

    /// Which notice.
    pub(super) fn notice(&self) -> Notice {
        self.notice
    }

    /// In which law, and under which number.
    pub(super) fn format(&self) -> (u8, Kind) {
        (self.payload_type, self.law)
    }

    /// The leg was heard from.
    pub(super) fn on_heard(&mut self) {
        self.heard = true;
    }

    /// A packet of it goes to a source that the description does not explain.
    pub(super) fn on_strayed(&mut self) {
        self.strayed = true;
    }

    /// When the next packet, or the end, is due.
    pub(super) fn due(&self) -> Mono {
        self.next_at
    }

    /// Whether all was sent, and where it is described, while the leg was heard from.
    pub(super) fn is_complete(&self) -> bool {
        self.heard && !self.strayed && self.position >= self.audio().len()
    }

    /// The packet due at `at`; `None` after the last, one packet time after it.
    pub(super) fn next(&mut self, at: Mono) -> Option<Spoken> {
        let rest = self.audio().get(self.position..).filter(|rest| !rest.is_empty())?;
        let taken = rest.len().min(self.packet_octets);
        let silence = if self.law == Kind::Pcma { g711::ALAW_SILENCE } else { g711::ULAW_SILENCE };
        let mut audio = [silence; PAYLOAD_BYTES];
        audio[..taken].copy_from_slice(&rest[..taken]);
        let first = self.position == 0;
        self.position += taken;
        let stalled = at.since_us(self.next_at) > MAX_CATCH_UP_US;
        let from = if stalled { at } else { self.next_at };
        self.next_at = from.plus_ms((self.packet_octets / OCTETS_PER_MS) as u64);
        Some(Spoken { audio, length: self.packet_octets, first })
    }

    fn audio(&self) -> &[u8] {
        if self.law == Kind::Pcma { self.prompt.alaw() } else { self.prompt.ulaw() }
    }
}
