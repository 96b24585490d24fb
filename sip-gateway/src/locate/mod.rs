//! Finding a peer: from its URI and what DNS says of it to the addresses that a request may go to, in order
//! (RFC 3263 §4.1 and §4.2, with RFC 2782 for SRV and RFC 3403 for NAPTR).
//!
//! | URI | asked | transport | port |
//! |---|---|---|---|
//! | an address | nothing | its own, else UDP | its own, else the transport's |
//! | a name with a port | addresses of the name | its own, else UDP | its own |
//! | a name with a transport | SRV of that transport | its own | SRV's |
//! | a bare name | NAPTR, then SRV of what the best of them names | NAPTR's | SRV's |
//! | the same, NAPTR none that we speak | SRV of every transport that we have | the SRV's | SRV's |
//! | no SRV at all | addresses of the name | as chosen so far, else UDP | the transport's |
//!
//! Of the NAPTR records only those of the lowest order with a service that we speak count (RFC 3403 §4.1), so
//! that the failure of a better protocol never leads to a worse one. SRV records go by priority, and
//! within one by weight, drawn anew for each call. A target `.` means that there is no such service.
//!
//! `search` is a function of the answers at hand: where one is missing it names the question. `Directory`
//! keeps the answers of one peer, asks again at half of their time, and goes on with what it last found while
//! DNS is away, or knows nothing any more (RFC 8767).
//!
//! Left out: the location of the server for a response (§5), because responses go where the request came from
//! (`core::transport`).

mod directory;
mod plan;
mod search;

use std::net::{IpAddr, SocketAddr};

pub(crate) use directory::Directory;
pub use plan::{Plan, PlanError, Step};

use crate::{Listener, Transport};

/// Where a peer's URI says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its host.
    pub host: Host,
    /// The port, if the URI gives one.
    pub port: Option<u16>,
    /// The transport, if the URI gives one.
    pub transport: Option<Transport>,
}

impl Place {
    /// At an address, by a transport.
    #[must_use]
    pub const fn at(transport: Transport, address: SocketAddr) -> Self {
        Self { host: Host::Address(address.ip()), port: Some(address.port()), transport: Some(transport) }
    }

    /// The address, if the URI names one: nothing needs to be looked up.
    #[must_use]
    pub fn target(&self) -> Option<Target> {
        let Host::Address(ip) = self.host else { return None };
        Some(self.target_at(ip))
    }

    /// `host` or `host:port`, as in a URI: an IPv6 address in brackets.
    #[must_use]
    pub fn host_port(&self) -> String {
        let host = match &self.host {
            Host::Address(IpAddr::V4(ip)) => ip.to_string(),
            Host::Address(IpAddr::V6(ip)) => format!("[{ip}]"),
            Host::Name(name) => name.clone(),
        };
        self.port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
    }

    fn target_at(&self, ip: IpAddr) -> Target {
        let transport = self.transport.unwrap_or(Transport::Udp);
        let port = self.port.unwrap_or(transport.usual_port());
        Target { transport, address: SocketAddr::new(ip, port) }
    }
}

/// The host of a URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A domain name, to be looked up.
    Name(String),
}

/// Where a request may go, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// By which transport.
    pub transport: Transport,
    /// To which address.
    pub address: SocketAddr,
}

/// What is to be asked of DNS. Names are absolute, in lower case, without the final dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Question {
    /// The NAPTR records of a name.
    Naptr(String),
    /// Its SRV records.
    Srv(String),
    /// Its A and AAAA records.
    Addresses(String),
}

/// What DNS says. No records of the kind asked for, or no such name, is an answer too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The records.
    pub records: Records,
    /// For how long they may be kept, in seconds.
    pub ttl_s: u32,
}

/// Records of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// Answers [`Question::Naptr`].
    Naptr(Vec<Naptr>),
    /// Answers [`Question::Srv`].
    Srv(Vec<Srv>),
    /// Answers [`Question::Addresses`].
    Addresses(Vec<IpAddr>),
}

/// A NAPTR record (RFC 3403 §4.1), without its regular expression: one that has any is not for SIP servers
/// (RFC 3263 §4.1) and is left out by whoever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naptr {
    /// Lower ones first; higher ones not at all, once one fits.
    pub order: u16,
    /// Among those of one order, lower ones first.
    pub preference: u16,
    /// `s` for what leads to SRV.
    pub flags: String,
    /// `SIP+D2U`, …
    pub service: String,
    /// The name whose SRV records are meant.
    pub replacement: String,
}

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// Lower ones first.
    pub priority: u16,
    /// The share among those of one priority.
    pub weight: u16,
    /// The port of the service.
    pub port: u16,
    /// The host; empty if there is no such service (`.`).
    pub target: String,
}

/// DNS gave no answer: servers away, or in trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("DNS gives no answer")]
pub struct Unanswered;

/// How a transport is named in DNS (RFC 3263 §4.1).
struct Service {
    naptr: &'static str,
    srv: &'static str,
}

impl Service {
    const fn of(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self { naptr: "SIP+D2U", srv: "_sip._udp" },
            Transport::Tcp => Self { naptr: "SIP+D2T", srv: "_sip._tcp" },
            Transport::Tls => Self { naptr: "SIPS+D2T", srv: "_sips._tcp" },
        }
    }
}

/// Our transports, in the order of our listeners: RFC 3263 §4.1 leaves the choice to the client.
fn transports(listeners: &[Listener]) -> Vec<Transport> {
    let mut transports = Vec::new();
    for listener in listeners {
        if !transports.contains(&listener.transport) {
            transports.push(listener.transport);
        }
    }
    transports
}

/// The listener from which a target is called: the first of its transport and address family.
pub(crate) fn listener_for(listeners: &[Listener], target: &Target) -> Option<usize> {
    listeners.iter().position(|own| {
        own.transport == target.transport && own.address.is_ipv4() == target.address.is_ipv4()
    })
}
