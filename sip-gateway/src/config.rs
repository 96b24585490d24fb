//! What the core is told at start: where it listens, who may talk to it, and its limits.

use std::net::{IpAddr, SocketAddr};

use consent::Side;

/// How messages travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
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
    pub address: SocketAddr,
    /// By which transport.
    pub transport: Transport,
    /// The host part of the Request-URI sent to it (`host` or `host:port`, IPv6 in brackets).
    pub host: String,
    /// Source networks (address, prefix length) from which it may talk. Longest prefix wins; where two
    /// peers' overlap, the source port of `address` tells them apart.
    pub allow: Vec<(IpAddr, u8)>,
    /// Whether it signals changes of who is on the line; handed through in events, not used here.
    pub parties_signalled: bool,
}

/// Bounds; beyond each, what happens is stated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls at once; beyond: 503 with Retry-After. Emergency calls are never refused.
    pub max_calls: usize,
    /// Bytes of one message; beyond: 513 on a stream where a header was readable, else dropped and counted.
    pub max_message_bytes: usize,
    /// Header fields of one message; beyond: 400.
    pub max_headers: usize,
    /// Streams open at once; beyond: the new one is closed.
    pub max_streams: usize,
}

/// All that the core is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Local addresses.
    pub listeners: Vec<Listener>,
    /// Peers; the public ones in order of preference.
    pub peers: Vec<Peer>,
    /// Dialled forms of emergency calls besides the built-in ones (`911`, `933`, `urn:service:sos`, …).
    pub emergency: Vec<String>,
    /// Bounds.
    pub limits: Limits,
}
