//! What the media plane tells the hub.

use std::net::SocketAddr;
use std::path::PathBuf;

use consent::{
    CallId, Epoch, Gap, Interval, Leg, Notice, Now, PermitId, Reason, RecordingId, RetentionTag, Wall,
};
use serde::{Deserialize, Serialize};

/// Something happened in a call's media.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Ports are bound; our RTP addresses towards A and towards B, per stream.
    Bound {
        /// Which call.
        call: CallId,
        /// Per stream, towards A and towards B.
        addresses: Vec<[SocketAddr; 2]>,
    },
    /// No ports could be bound.
    BindFailed {
        /// Which call.
        call: CallId,
    },
    /// A party pressed a key (each press once, however often its packets are repeated).
    Digit {
        /// Which call.
        call: CallId,
        /// Whose.
        leg: Leg,
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
        /// The epoch in force, already raised if the digit completed the withdrawal code.
        epoch: Epoch,
        /// When the press began, at the latest: before its first packet arrived.
        at: Now,
    },
    /// A source or SSRC that nothing announced is heard on a leg; the epoch has been raised.
    UnannouncedSource {
        /// Which call.
        call: CallId,
        /// Where.
        leg: Leg,
        /// The epoch that began with it.
        epoch: Epoch,
    },
    /// The first packet of a notice left for a leg.
    Playing {
        /// Which call.
        call: CallId,
        /// To whom.
        leg: Leg,
        /// Which.
        notice: Notice,
        /// The epoch in force.
        epoch: Epoch,
        /// When it left.
        at: Now,
    },
    /// A notice ended on a leg.
    Played {
        /// Which call.
        call: CallId,
        /// To whom.
        leg: Leg,
        /// Which.
        notice: Notice,
        /// Sent to its last sample, while the leg was heard from.
        complete: bool,
    },
    /// No codec of the leg can carry a notice.
    CannotPlay {
        /// Which call.
        call: CallId,
        /// Where.
        leg: Leg,
    },
    /// The preamble's memory is ready.
    PreambleStarted {
        /// Which call.
        call: CallId,
        /// Of this epoch, from the question on.
        epoch: Epoch,
    },
    /// No memory could be locked, or the budget is spent.
    PreambleUnavailable {
        /// Which call.
        call: CallId,
    },
    /// The preamble was zeroised.
    PreambleWiped {
        /// Which call.
        call: CallId,
        /// How much audio it held, in ms.
        held_ms: u32,
        /// Why.
        reason: Reason,
    },
    /// The first frame of a recording was written.
    RecordingStarted {
        /// Which call.
        call: CallId,
        /// Under which permit.
        permit: PermitId,
        /// The recording.
        recording: RecordingId,
        /// The instant of its first sample.
        at: Wall,
    },
    /// A recording is sealed in the spool.
    RecordingSealed(Box<Sealed>),
    /// A recording could not be written any further; what was written is kept and will be sealed.
    RecordingFailed {
        /// Which call.
        call: CallId,
        /// Under which permit.
        permit: PermitId,
        /// The recording, if one was begun.
        recording: Option<RecordingId>,
    },
    /// One of the two copies of a dispatch recording can no longer be written; the other goes on. An alarm.
    CopyFailed {
        /// Which call.
        call: CallId,
        /// The recording.
        recording: RecordingId,
        /// Whether it was the second writer's copy.
        second: bool,
    },
    /// A defect stopped the relay of this call; its epoch has been raised. Other calls are untouched, and the
    /// call itself still has to be ended.
    MediaFailed {
        /// Which call.
        call: CallId,
    },
    /// The media of an ended call, summed up.
    Statistics {
        /// Which call.
        call: CallId,
        /// Leg A's and leg B's received media.
        legs: [LegStatistics; 2],
    },
}

impl Event {
    /// On which call.
    #[must_use]
    pub fn call(&self) -> CallId {
        match self {
            Self::Bound { call, .. }
            | Self::BindFailed { call, .. }
            | Self::Digit { call, .. }
            | Self::UnannouncedSource { call, .. }
            | Self::Playing { call, .. }
            | Self::Played { call, .. }
            | Self::CannotPlay { call, .. }
            | Self::PreambleStarted { call, .. }
            | Self::PreambleUnavailable { call, .. }
            | Self::PreambleWiped { call, .. }
            | Self::RecordingStarted { call, .. }
            | Self::RecordingFailed { call, .. }
            | Self::CopyFailed { call, .. }
            | Self::MediaFailed { call, .. }
            | Self::Statistics { call, .. } => *call,
            Self::RecordingSealed(sealed) => sealed.call,
        }
    }
}

/// A sealed recording, as the spool's file states it and storage keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sealed {
    /// The recording.
    pub recording: RecordingId,
    /// Its call.
    pub call: CallId,
    /// The sealed file in the spool.
    pub file: PathBuf,
    /// The instant of its first sample.
    pub started_at: Wall,
    /// The instant after its last sample.
    pub ended_at: Wall,
    /// Length in seconds.
    pub duration_s: f64,
    /// Names of the channels, in order.
    pub channels: Vec<String>,
    /// What the plaintext is: `opus` (Ogg, 8 kHz, one channel a party).
    pub codec: String,
    /// Size of the sealed file.
    pub bytes: u64,
    /// SHA-256 of the sealed file, hexadecimal.
    pub sha256: String,
    /// The retention tag, from the permit.
    pub retention: RetentionTag,
    /// Which parts were stored on which basis.
    pub intervals: Vec<Interval>,
    /// Which parts are missing and why.
    pub gaps: Vec<Gap>,
    /// Whether it was sealed after a crash.
    pub recovered: bool,
    /// The wrapped key.
    pub wrapped_key: Vec<u8>,
}

/// What was received on a leg.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LegStatistics {
    /// Encoding most packets had.
    pub codec: Option<String>,
    /// RTP packets received.
    pub packets: u64,
    /// Packets that never came (RFC 3550 appendix A.3).
    pub lost: u64,
    /// Interarrival jitter in ms (RFC 3550 §6.4.1).
    pub jitter_ms: f64,
    /// Mean opinion score estimated by the E-model (ITU-T G.107), 1.0 to 4.5; `None` without media.
    pub mos: Option<f64>,
    /// When the first packet arrived.
    pub first_packet_at: Option<Wall>,
    /// Packets refused: wrong source, malformed, not RTP.
    pub refused: u64,
}
