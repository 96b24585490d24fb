//! What the hub tells the media plane to do with a call.

use std::net::{IpAddr, SocketAddr};

use consent::{CallId, Epoch, EpochCounter, Leg, Notice, Permit, PermitId, Reason, RecordingId};
use zeroize::Zeroizing;

/// An instruction for one call. Unknown calls are ignored: they may just have ended.
#[derive(Debug)]
pub enum Command {
    /// Bind an RTP and an RTCP port towards each leg for each stream; answered by
    /// [`Event::Bound`](crate::Event::Bound) or `BindFailed`.
    Bind {
        /// Which call.
        call: CallId,
        /// Its epoch, shared with signalling.
        epoch: EpochCounter,
        /// How many `m=` lines (at most 4).
        streams: u8,
        /// Whether it is an emergency call: no tap, no prompt, no digit detection, whatever follows.
        emergency: bool,
        /// The withdrawal code (`*80`): the relay raises the epoch itself when a party completes it.
        withdraw: String,
    },
    /// What a leg's session description now says.
    Describe {
        /// Which call.
        call: CallId,
        /// Whose description.
        leg: Leg,
        /// From which IP it came. Where it names an address that does not exist here (NAT), the leg's media
        /// may come from this one too.
        signalled_from: IpAddr,
        /// Per `m=` line, what the leg wants; `None` for a refused one.
        streams: Vec<Option<RemoteMedia>>,
        /// Whether signalling announced that the source may change now.
        change: SourceChange,
    },
    /// Play a notice to a leg in all configured languages; the other party is muted to it meanwhile.
    Play {
        /// Which call.
        call: CallId,
        /// To whom.
        leg: Leg,
        /// What.
        notice: Notice,
    },
    /// Stop what plays to a leg.
    StopPlaying {
        /// Which call.
        call: CallId,
        /// To whom.
        leg: Leg,
    },
    /// Keep the leg's digits from the other leg (answers), or let them pass.
    SwallowDigits {
        /// Which call.
        call: CallId,
        /// Whose digits.
        leg: Leg,
        /// Whether to keep them.
        swallow: bool,
    },
    /// Lock memory and keep every frame of `epoch` in it, from the question's first packet on. Answered by `PreambleStarted` or
    /// `PreambleUnavailable`.
    StartPreamble {
        /// Which call.
        call: CallId,
        /// The epoch of the asking.
        epoch: Epoch,
    },
    /// Zeroise the preamble.
    WipePreamble {
        /// Which call.
        call: CallId,
        /// Why.
        reason: Reason,
    },
    /// Open the tap: begin a recording (with the preamble first, if there is one), or go on with one.
    OpenTap {
        /// The permit.
        permit: Permit,
        /// The recording to begin, or the permit whose recording goes on.
        target: Result<NewRecording, PermitId>,
    },
    /// Stop at once; discard what is not yet written under the permit, then seal.
    Revoke {
        /// Which call.
        call: CallId,
        /// Which permit.
        permit: PermitId,
        /// Why.
        reason: Reason,
    },
    /// Drain what is covered; keep the recording open.
    Suspend {
        /// Which call.
        call: CallId,
        /// Which permit.
        permit: PermitId,
    },
    /// Drain what is covered, then seal.
    CloseTap {
        /// Which call.
        call: CallId,
        /// Which permit.
        permit: PermitId,
    },
    /// The call was answered: from here the recording's intervals are of phase `answered`.
    Answered {
        /// Which call.
        call: CallId,
    },
    /// The call is over: close the ports, drain and seal what is open under a live permit, report
    /// statistics.
    End {
        /// Which call.
        call: CallId,
    },
}

impl Command {
    /// For which call.
    #[must_use]
    pub const fn call(&self) -> CallId {
        match self {
            Self::Bind { call, .. }
            | Self::Describe { call, .. }
            | Self::Play { call, .. }
            | Self::StopPlaying { call, .. }
            | Self::SwallowDigits { call, .. }
            | Self::StartPreamble { call, .. }
            | Self::WipePreamble { call, .. }
            | Self::Revoke { call, .. }
            | Self::Suspend { call, .. }
            | Self::CloseTap { call, .. }
            | Self::Answered { call }
            | Self::End { call } => *call,
            Self::OpenTap { permit, .. } => permit.call(),
        }
    }
}

/// Where and how a leg wants one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteMedia {
    /// Its RTP address.
    pub rtp: SocketAddr,
    /// Its RTCP address.
    pub rtcp: SocketAddr,
    /// Whether it is audio over RTP (else it is relayed as opaque datagrams and never tapped).
    pub audio: bool,
    /// Whether the leg will send media (sendrecv or sendonly).
    pub sends: bool,
    /// Whether the leg wants media (sendrecv or recvonly).
    pub receives: bool,
    /// Payload types in order of preference.
    pub formats: Vec<StreamFormat>,
    /// Packet time in ms, 20 if not said.
    pub ptime_ms: u32,
}

/// One payload type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFormat {
    /// RTP payload type number, 0-127.
    pub payload_type: u8,
    /// Encoding name in upper case.
    pub encoding: String,
    /// Clock rate in Hz.
    pub clock_rate: u32,
}

/// Whether a new media source on the leg is expected after this description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceChange {
    /// First description, or one whose media address differs from the last: the leg latches anew.
    Announced,
    /// A refresh: the latched source stays.
    Same,
    /// The first description of somebody else in the leg's place: it latches anew, and whoever was there
    /// before is heard no more.
    Replaced,
}

/// A recording about to begin.
#[derive(Debug)]
pub struct NewRecording {
    /// Its id.
    pub id: RecordingId,
    /// Its own key.
    pub key: RecordingKey,
    /// What each channel is called, caller's leg first.
    pub channels: [String; 2],
    /// Whether it is a consent line's: held back for the look-back, 2 s at risk in a crash.
    pub look_back: bool,
}

/// A key for one recording, with the form in which it may be stored.
pub struct RecordingKey {
    /// 256 bits, fresh.
    pub secret: Zeroizing<[u8; 32]>,
    /// The same, wrapped by the master key (storage knows how).
    pub wrapped: Vec<u8>,
}

impl std::fmt::Debug for RecordingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecordingKey(..)")
    }
}
