//! What a call acts through: time, identifiers, timers, transactions, dialogs, the way out.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use consent::{CallId, Leg, Now, Side};

use super::generator::Generator;
use super::peers::peer_of;
use super::reach::{Reach, Way};
use super::{Counters, Origin, Output, Path, Ports, Timers, TransportLayer};
use crate::b2bua::{CallTimer, Loan, Owner};
use crate::dialog::{DialogId, add_tag, sequence_of, tag_of};
use crate::emergency::Matcher;
use crate::locate::{Target, listener_for};
use crate::transaction::{Class, NewClient, Room, Transactions, TxId, TxTimer};
use crate::wire::{Headers, Method, Request, Response, Via, name};
use crate::{Config, Event, ListenerId, PeerId, StreamId, Transport};

/// Transactions per permitted call: two INVITEs and two BYEs are alive at once in a short call, each for
/// 32 s after its work is done; the rest is for retried and in-dialog requests.
const TRANSACTIONS_PER_CALL: usize = 16;

/// Room for short calls beyond that: offered, refused, and not yet forgotten.
const TRANSACTIONS_BESIDE: usize = 4_096;

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    Transaction(TxTimer),
    Call(CallId, CallTimer),
    /// A stream has stayed inside a message for too long.
    StreamIdle(StreamId),
    /// DNS is to be asked about a peer.
    Find(PeerId),
    /// A ping is due, or silent for too long.
    Ping(Way),
}

/// Which leg, and which of its early dialogs, a dialog id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DialogPlace {
    pub(crate) call: CallId,
    pub(crate) leg: Leg,
    pub(crate) fork: usize,
    pub(crate) peer: PeerId,
    /// The class of the call.
    pub(crate) class: Class,
}

/// Everything beside the calls themselves.
pub(crate) struct Environment {
    pub(crate) config: Arc<Config>,
    pub(crate) now: Now,
    pub(crate) generator: Generator,
    pub(crate) timers: Timers<Deadline>,
    pub(crate) transactions: Transactions<Owner>,
    pub(crate) dialogs: HashMap<DialogId, DialogPlace>,
    pub(crate) transport: TransportLayer,
    pub(crate) reach: Reach,
    pub(crate) live_calls: usize,
    /// What calls want of each other, until the core has carried it there.
    pub(crate) loans: VecDeque<Loan>,
    emergency: Matcher,
}

impl Environment {
    pub(crate) fn new(config: Arc<Config>, seed: [u8; 32]) -> Self {
        let room = config.limits.max_calls.saturating_mul(TRANSACTIONS_PER_CALL);
        let mut environment = Self {
            now: Now::default(),
            generator: Generator::new(seed),
            timers: Timers::new(),
            transactions: Transactions::new(room.saturating_add(TRANSACTIONS_BESIDE)),
            dialogs: HashMap::new(),
            transport: TransportLayer::new(Arc::clone(&config)),
            reach: Reach::new(&config),
            live_calls: 0,
            loans: VecDeque::new(),
            emergency: Matcher::new(&config.emergency),
            config,
        };
        environment.reach_out();
        environment
    }

    /// Whose source address it is.
    pub(crate) fn peer_of(&self, source: SocketAddr) -> Option<PeerId> {
        peer_of(&self.config, &self.reach, self.now.mono, source)
    }

    pub(crate) fn split(&mut self) -> (&mut Transactions<Owner>, Ports<'_>) {
        let ports = Ports { now: self.now.mono, timers: &mut self.timers, transport: &mut self.transport };
        (&mut self.transactions, ports)
    }

    pub(crate) fn counters(&mut self) -> &mut Counters {
        &mut self.transport.counters
    }

    pub(crate) fn emit(&mut self, event: Event) {
        self.transport.push(Output::Event(event));
    }

    /// Whether a Request-URI is an emergency call's.
    pub(crate) fn is_emergency(&self, uri: &str) -> bool {
        self.emergency.matches(uri).is_some()
    }

    /// The user part that an emergency call goes on with, where it is not the one received.
    pub(crate) fn emergency_number(&self, uri: &str) -> Option<String> {
        self.emergency.matches(uri)?.user().map(str::to_owned)
    }

    /// Sends a response through its transaction.
    pub(crate) fn respond(&mut self, id: TxId, response: &Response) {
        let bytes = response.to_bytes();
        let (transactions, mut ports) = self.split();
        transactions.respond(&mut ports, id, response.status, bytes);
    }

    /// Refuses an INVITE of which nothing went on: its transaction waits for the ACK among the refusals and
    /// leaves its place to another call. Without room there the answer goes out once (RFC 3261 §8.2.7).
    pub(crate) fn refuse(&mut self, id: TxId, response: &Response) {
        let moved = self.transactions.move_to(id, Room::Refusal);
        self.respond(id, response);
        if moved.is_err() {
            let (transactions, mut ports) = self.split();
            transactions.abandon(&mut ports, id);
        }
    }

    /// Sends a request in a new transaction. Its fields are whole but for Via, which is put on here.
    pub(crate) fn request(&mut self, path: Path, mut request: Request, owner: Owner) -> TxId {
        let branch = self.stamp_via(&path, &mut request);
        self.request_with_branch(path, &request, branch, owner)
    }

    /// Sends a request that has its Via: a CANCEL carries that of its INVITE (RFC 3261 §9.1).
    pub(crate) fn request_with_branch(
        &mut self,
        path: Path,
        request: &Request,
        branch: String,
        owner: Owner,
    ) -> TxId {
        let ack_head = (request.method == Method::INVITE).then(|| ack_head(request));
        let new = NewClient {
            method: request.method.clone(),
            branch,
            bytes: request.to_bytes(),
            ack_head,
            path,
            owner,
        };
        let (transactions, mut ports) = self.split();
        transactions.open_client(&mut ports, new)
    }

    /// Puts our Via on a request and returns its branch.
    pub(crate) fn stamp_via(&mut self, path: &Path, request: &mut Request) -> String {
        let branch = self.generator.branch();
        let transport = match path.transport {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
        };
        let sent_by = self.sent_by(path.listener);
        request.headers.prepend(name::VIA, format!("SIP/2.0/{transport} {sent_by};branch={branch};rport"));
        branch
    }

    /// Our `host:port` on a listener.
    pub(crate) fn sent_by(&self, listener: ListenerId) -> String {
        self.config.listeners.get(listener.0).map_or_else(String::new, |own| own.address.to_string())
    }

    /// Our host on a listener, an IPv6 address in brackets.
    pub(crate) fn host(&self, listener: ListenerId) -> String {
        self.config.listeners.get(listener.0).map_or_else(String::new, |own| match own.address.ip() {
            std::net::IpAddr::V4(ip) => ip.to_string(),
            std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        })
    }

    /// Our Contact towards a path (RFC 3261 §8.1.1.8). It has no user: whom we stand for is in From and
    /// P-Asserted-Identity, and a user of the other side would be topology.
    pub(crate) fn contact(&self, path: &Path) -> String {
        let transport = if path.is_reliable() { ";transport=tcp" } else { "" };
        format!("<sip:{}{transport}>", self.sent_by(path.listener))
    }

    /// Gives the To of a response a tag, if it has none (RFC 3261 §8.2.6.2): the same one whenever the
    /// same request is answered, and for a CANCEL the same as for its INVITE.
    pub(crate) fn add_to_tag(&self, headers: &mut Headers) {
        let tag = self.tag_for(headers);
        add_tag(headers, &tag);
    }

    /// That tag, of a request or its response.
    pub(crate) fn tag_for(&self, headers: &Headers) -> String {
        let via = headers.first(name::VIA).and_then(|via| Via::first(via).ok());
        self.generator.tag_for(&[
            via.as_ref().and_then(Via::branch).unwrap_or_default(),
            headers.first(name::CALL_ID).unwrap_or_default(),
            &tag_of(headers, name::FROM).unwrap_or_default(),
            &sequence_of(headers).unwrap_or_default().to_string(),
        ])
    }

    /// Where a request inside a dialog goes: to the address that its next hop names, if that is the same
    /// peer's; otherwise the way stays as it is. Names are not resolved, and no peer's Contact or
    /// Record-Route can aim us at anybody else.
    pub(crate) fn aim(&self, path: &mut Path, next_hop: &str) {
        let address = next_hop_address(next_hop);
        if let Some(address) = address
            && address.is_ipv4() == path.to.is_ipv4()
            && self.peer_of(address) == Some(path.peer)
        {
            path.to = address;
        }
    }

    /// The side of a peer; of an unknown one, the less trusted.
    pub(crate) fn side(&self, peer: PeerId) -> Side {
        self.config.peers.get(peer.0).map_or(Side::Public, |peer| peer.side)
    }

    /// Whether a dialog of one peer's may be named by the other: by the same peer, or within the district.
    pub(crate) fn same_side(&self, one: PeerId, other: PeerId) -> bool {
        one == other || [one, other].iter().all(|peer| self.side(*peer) == Side::District)
    }

    /// Whether a peer may transfer calls.
    pub(crate) fn may_refer(&self, peer: PeerId) -> bool {
        self.config.peers.get(peer.0).is_some_and(|peer| peer.may_refer)
    }

    /// The peer that a URI's host names, by its configured host or address.
    pub(crate) fn peer_at(&self, host: &str, port: Option<u16>) -> Option<PeerId> {
        let with_port = format!("{host}:{}", port.unwrap_or(5060));
        let by_name = |peer: &crate::Peer| {
            peer.host.eq_ignore_ascii_case(host) || peer.host.eq_ignore_ascii_case(&with_port)
        };
        let named = self.config.peers.iter().position(by_name).map(PeerId);
        named.or_else(|| {
            let ip = host.trim_matches(['[', ']']).parse().ok()?;
            self.peer_of(SocketAddr::new(ip, port.unwrap_or(5060)))
        })
    }

    /// The ways to a side, in its order; only the named peer's, if it is of that side.
    pub(crate) fn ways_for(&mut self, side: Side, named: Option<PeerId>) -> Vec<Way> {
        let mut ways = self.ways(side, false);
        if let Some(named) = named.filter(|peer| self.side(*peer) == side) {
            ways.retain(|way| way.peer == named);
        }
        ways
    }

    /// The path of a way, if we have a listener for it.
    pub(crate) fn path_to(&self, way: Way) -> Option<Path> {
        let Target { transport, address } = way.target;
        let listener = listener_for(&self.config.listeners, &way.target).map(ListenerId)?;
        Some(Path { peer: way.peer, listener, transport, to: address, stream: None })
    }

    /// The way back to where a message came from: on a stream as long as it lasts, then to where the peer
    /// takes calls at that address, because a stream's source port takes none.
    pub(crate) fn path_back(&self, origin: Origin) -> Path {
        let takes_calls = self.reach.target_at(origin.peer, origin.source.ip());
        origin.path(takes_calls.filter(|_| origin.stream.is_some()).unwrap_or(origin.source))
    }
}

fn next_hop_address(uri: &str) -> Option<std::net::SocketAddr> {
    let crate::wire::Uri::Sip(uri) = crate::wire::Uri::parse(uri).ok()? else { return None };
    let ip: std::net::IpAddr = uri.host.trim_matches(['[', ']']).parse().ok()?;
    Some(std::net::SocketAddr::new(ip, uri.port.unwrap_or(5060)))
}

/// The ACK of an INVITE's failure, without To (RFC 3261 §17.1.1.3).
fn ack_head(invite: &Request) -> String {
    let mut head = format!("ACK {} SIP/2.0\r\n", invite.uri);
    let mut put = |name: &str, value: &str| {
        for part in [name, ": ", value, "\r\n"] {
            head.push_str(part);
        }
    };
    for field in [name::VIA, name::ROUTE, name::FROM, name::CALL_ID] {
        for value in invite.headers.all(field) {
            put(field, value);
        }
    }
    let sequence = invite.headers.first(name::CSEQ).and_then(|cseq| cseq.split(' ').next());
    put(name::CSEQ, &format!("{} ACK", sequence.unwrap_or_default()));
    put(name::MAX_FORWARDS, "70");
    head
}
