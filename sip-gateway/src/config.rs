//! What the core is told at start: where it listens, who may talk to it, and its limits.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use consent::Side;

use crate::locate::Place;
use crate::{Account, Destinations};

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
    /// A stream under TLS.
    Tls,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

    /// Its name in URIs and configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// Whether what is sent arrives or the failure is told, so that nothing is sent again (RFC 3261 §17).
    pub(crate) const fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }

    /// The port where none is given (RFC 3261 §19.1.2).
    pub(crate) const fn usual_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
        }
    }
}

/// Index into [`Config::listeners`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub usize);

/// Index into [`Config::peers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub usize);

/// A bound local address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its transport.
    pub transport: Transport,
    /// The address bound, and written into Via and Contact.
    pub address: SocketAddr,
}

/// Who may talk to the gateway. Nobody else gets an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name in configuration, logs and metrics.
    pub name: String,
    /// Its side.
    pub side: Side,
    /// Where requests to it go.
    pub place: Place,
    /// Source networks (address, prefix length) from which it may talk. Longest prefix wins; where two
    /// peers' overlap, the source port of their addresses tells them apart. A name without any may talk from
    /// the addresses found for it, unless they lie in another peer's networks.
    pub allow: Vec<(IpAddr, u8)>,
    /// Seconds between OPTIONS pings of each of its addresses; `None`: none.
    pub ping_s: Option<u32>,
    /// Whether it signals changes of who is on the line; handed through in events, not used here.
    pub parties_signalled: bool,
    /// Whether its `a=recordpref:on` is its party's word; handed through in events, not used here.
    pub preference_trusted: bool,
    /// Whether it may transfer calls (REFER, INVITE with Replaces).
    pub may_refer: bool,
    /// Whether its word on who somebody is counts, and whether it may know who wants not to be named (RFC 3325
    /// §2.4's trust domain).
    pub trusts_identity: bool,
    /// What is done with its 3xx.
    pub redirects: Redirects,
    /// A name that the certificate of every stream from it must carry. Then nothing that comes without it,
    /// a datagram least of all, is taken for this peer's.
    pub certificate: Option<String>,
    /// The account that it and we share, if either is to prove itself to the other.
    pub account: Option<Account>,
    /// What calls it may begin.
    pub allowance: Allowance,
}

/// What calls a peer may begin. Emergency and dispatch calls always may; those of a dispatch line are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// At once; beyond: 503 with Retry-After. `None`: as many as the gateway takes.
    pub max_calls: Option<usize>,
    /// In a minute, its transfers to the public side among them; beyond: 503 with Retry-After. `None`: any number.
    pub calls_per_minute: Option<NonZeroU32>,
    /// To whom not, on the public side, by dialling, transfer or redirection: 403. `None`: to anybody.
    pub refused: Option<Destinations>,
}

/// What is done with a peer's 3xx (RFC 3261 §21.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Redirects {
    /// Whom it names is called instead.
    Follow,
    /// The caller gets it, with the same users at our host.
    Pass,
    /// The caller gets 480.
    Refuse,
}

/// Bounds; beyond each, what happens is stated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls at once; beyond: 503 with Retry-After. Emergency and dispatch calls are never refused for it.
    pub max_calls: usize,
    /// Bytes of one message; beyond: 513 on a stream where a header was readable, else dropped and counted.
    pub max_message_bytes: usize,
    /// Header fields of one message; beyond: 400.
    pub max_headers: usize,
    /// Streams open at once; beyond: the new one is closed.
    pub max_streams: usize,
    /// Requests outside dialogs that one source address may send in a second; beyond: 503 with Retry-After,
    /// emergency and dispatch calls excepted; what cannot be read gets no answer. `None`: any number.
    pub requests_per_s: Option<NonZeroU32>,
}

/// All that the core is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Local addresses.
    pub listeners: Vec<Listener>,
    /// Peers; those of each side in order of preference.
    pub peers: Vec<Peer>,
    /// Other orders than that.
    pub routes: Routes,
    /// Dialled forms of emergency calls besides the built-in ones (`911`, `933`, `urn:service:sos`, …).
    pub emergency: Vec<String>,
    /// Bounds.
    pub limits: Limits,
    /// What is asked of sessions.
    pub session_timer: SessionTimer,
}

/// How long a session may go without a sign of life of its far end (RFC 4028).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTimer {
    /// The interval that we ask for, in seconds, at least [`Self::min_s`]; 0 asks for none, and leaves it to
    /// the peer.
    pub expires_s: u32,
    /// The shortest interval that we agree to, in seconds; at least 90.
    pub min_s: u32,
}

impl Default for SessionTimer {
    fn default() -> Self {
        Self { expires_s: 1_800, min_s: 90 }
    }
}

/// Which peers are tried first. Those of the side that a list does not name follow in their usual order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// For calls to the district side.
    pub district: Vec<PeerId>,
    /// For calls to the public side.
    pub public: Vec<PeerId>,
    /// For emergency calls, which go to the public side.
    pub emergency: Vec<PeerId>,
}

impl Config {
    /// The host part of what is sent to a peer.
    pub(crate) fn host_of(&self, peer: PeerId) -> String {
        self.peers.get(peer.0).map_or_else(String::new, |peer| peer.place.host_port())
    }

    /// The peers of a side in the order in which a call tries them.
    #[must_use]
    pub fn order(&self, side: Side, emergency: bool) -> Vec<PeerId> {
        let first = match side {
            Side::Public if emergency => &self.routes.emergency,
            Side::Public => &self.routes.public,
            Side::District => &self.routes.district,
        };
        let of_side = |id: &PeerId| self.peers.get(id.0).is_some_and(|peer| peer.side == side);
        let rest = (0..self.peers.len()).map(PeerId).filter(|id| !first.contains(id));
        first.iter().copied().chain(rest).filter(of_side).collect()
    }
}
