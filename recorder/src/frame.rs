//! What crosses from the relay to the tap: one packet's worth of a leg's media, stamped at arrival.
//!
//! A frame is a value of fixed size, so that the relay copies it into a ring without touching the heap.
//! It leaves out what nobody can decode: a codec the recorder does not know, or a payload over
//! [`PAYLOAD_BYTES`], arrives without its bytes and is a gap of cause `codec`.

use std::fmt;

use consent::{Epoch, Leg, Now};
use zeroize::Zeroize;

/// Room for 60 ms of G.711 at 8 kHz, the longest packet time that telephones use.
pub const PAYLOAD_BYTES: usize = 480;

/// Media of one leg at the tap.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Whose channel it belongs to: who spoke it, or to whom it was told.
    pub leg: Leg,
    /// The epoch in force when its packet arrived.
    pub epoch: Epoch,
    /// When its packet arrived, or (`Told`) left.
    pub at: Now,
    /// What it is.
    pub content: Content,
}

/// What a frame holds.
#[derive(Clone, Debug)]
pub enum Content {
    /// A packet of the leg's own audio, in the leg's own numbering (as received, never as relayed).
    Rtp {
        /// How the payload is encoded.
        codec: Codec,
        /// RTP marker: the first packet of a talkspurt.
        marker: bool,
        /// RTP sequence number.
        sequence: u16,
        /// RTP timestamp of the first sample, in units of the codec's clock (8 kHz but for `Other`).
        timestamp: u32,
        /// Synchronisation source.
        ssrc: u32,
        /// Encoded audio, without header extension and padding.
        payload: Payload,
    },
    /// A packet of what the gateway tells the leg (prompts).
    Told {
        /// How the payload is encoded: `Pcmu` or `Pcma`.
        codec: Codec,
        /// RTP timestamp that the packet left with, 8 kHz units; it goes on through a notice without a break.
        timestamp: u32,
        /// Whether it is of the consent question, with which a preamble begins.
        question: bool,
        /// Encoded audio.
        payload: Payload,
    },
    /// A packet of an RFC 4733 telephone event. Each packet of a press makes one; those of one press
    /// share `ssrc` and `timestamp`, and `duration` grows.
    Digit {
        /// Synchronisation source, as in `Rtp`.
        ssrc: u32,
        /// RTP timestamp at which the press began, in the numbering of `Rtp`.
        timestamp: u32,
        /// Length so far in timestamp units: `timestamp .. timestamp + duration` is to be cut out.
        duration: u16,
        /// The key, if a question is open on the leg (its digits are swallowed): the answer's tone stays in
        /// the preamble. `None` for every other press.
        answer: Option<Key>,
    },
}

/// How a payload is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// G.711 µ-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// RFC 3389 comfort noise: silence that is meant, not loss. The payload is left out.
    ComfortNoise,
    /// Anything the recorder cannot decode, or that is longer than [`PAYLOAD_BYTES`]. The payload is left out.
    Other,
}

/// A telephone key, `0`-`9`, `*`, `#`, `A`-`D`. Its `Debug` does not say which (I4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub char);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Up to [`PAYLOAD_BYTES`] of encoded audio, stored inline. Its `Debug` gives the length only (I4).
#[derive(Clone)]
pub struct Payload {
    length: u16,
    bytes: [u8; PAYLOAD_BYTES],
}

impl Payload {
    /// No audio.
    pub const EMPTY: Self = Self { length: 0, bytes: [0; PAYLOAD_BYTES] };

    /// A copy of `audio`; `None` if it is longer than [`PAYLOAD_BYTES`].
    #[must_use]
    pub fn copy_of(audio: &[u8]) -> Option<Self> {
        let mut payload = Self::EMPTY;
        payload.bytes.get_mut(..audio.len())?.copy_from_slice(audio);
        payload.length = u16::try_from(audio.len()).ok()?;
        Some(payload)
    }

    /// The audio.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.length)
    }
}

impl Zeroize for Payload {
    fn zeroize(&mut self) {
        self.bytes.zeroize();
        self.length = 0;
    }
}

impl Zeroize for Frame {
    /// Overwrites the audio or key, so that a ring slot keeps nothing of a frame that was read (I4).
    fn zeroize(&mut self) {
        match &mut self.content {
            Content::Rtp { payload, .. } | Content::Told { payload, .. } => payload.zeroize(),
            Content::Digit { answer, .. } => *answer = None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    #[test]
    fn a_payload_keeps_its_bytes_and_refuses_more_than_it_can_hold() {
        assert_eq!(Payload::copy_of(&[1, 2, 3]).unwrap().as_slice(), [1, 2, 3]);
        assert!(Payload::copy_of(&[0; PAYLOAD_BYTES]).is_some());
        assert!(Payload::copy_of(&[0; PAYLOAD_BYTES + 1]).is_none());
    }

    #[test]
    fn debug_output_shows_neither_audio_nor_key() {
        let shown = format!("{:?} {:?}", Payload::copy_of(&[171; 4]).unwrap(), Key('7'));
        assert_eq!(shown, "Payload(4 bytes) Key(..)");
    }

    #[test]
    fn a_zeroised_frame_holds_nothing() {
        let payload = Payload::copy_of(&[171; 4]).unwrap();
        let content = Content::Told { codec: Codec::Pcmu, timestamp: 0, question: true, payload };
        let mut frame = Frame { leg: Leg::A, epoch: Epoch(0), at: Now::default(), content };
        frame.zeroize();
        let Content::Told { payload, .. } = &frame.content else { panic!("content changed") };
        assert!(payload.bytes.iter().all(|byte| *byte == 0));
    }
}
