//! What a session description says about a leg's media, as the other planes need it.

use std::net::{IpAddr, SocketAddr};

/// What one leg's session description in force says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegMedia {
    /// The `o=` line without its version: who made the description.
    pub origin: String,
    /// The source of the message that held it. A leg behind NAT names an address that does not exist here;
    /// this is then the only other one from which its media can be expected.
    pub signalled_from: IpAddr,
    /// One per `m=` line, in order.
    pub streams: Vec<StreamMedia>,
}

/// One `m=` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamMedia {
    /// Audio or something else; only audio is ever recorded.
    pub kind: MediaKind,
    /// Where the leg wants its media; `None` if the stream is refused (port 0).
    pub rtp: Option<SocketAddr>,
    /// Where it wants RTCP (`a=rtcp`, else the next port).
    pub rtcp: Option<SocketAddr>,
    /// The direction as the leg sees it. `c=0.0.0.0` reads as `SendOnly` (RFC 3264 §8.4).
    pub flow: Flow,
    /// Payload types, in the leg's order of preference.
    pub formats: Vec<Format>,
    /// `a=ptime` in ms.
    pub ptime_ms: Option<u32>,
}

/// The kind of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// `m=audio` over RTP.
    Audio,
    /// Anything else (T.38, text, video): relayed as it comes.
    Other,
}

/// RFC 3264 direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "RFC 3264's words")]
pub enum Flow {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

/// One payload type of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// The RTP payload type number.
    pub payload_type: u8,
    /// The encoding name in upper case (`PCMU`, `TELEPHONE-EVENT`); static types are named too.
    pub encoding: String,
    /// Clock rate in Hz.
    pub clock_rate: u32,
    /// Channels.
    pub channels: u8,
}
