//! What a call acts through: time, identifiers, timers, transactions, dialogs, the way out.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use consent::{CallId, Leg, Now, Side};

use super::admission::Admission;
use super::authentication::Authentication;
use super::generator::Generator;
use super::ladder::TOLD_AFTER_MS;
use super::loops::{self, Looped};
use super::peers::{is_possible, peer_of};
use super::reach::{Reach, Way};
use super::{Counters, Origin, Output, Path, Ports, TimerKey, Timers, TransportLayer};
use crate::b2bua::{CallTimer, Loan, Owner};
use crate::dialog::{DialogId, add_tag, sequence_of, tag_of};
use crate::emergency::{Matcher, Urgency, is_callback};
use crate::locate::{Host, Target, listener_for};
use crate::transaction::{Class, NewClient, Room, Transactions, TxId, TxTimer};
use crate::wire::{Headers, Request, Response, Via, name};
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
    /// A call's ladder is to be told.
    Ladder(CallId),
    /// A stream has stayed inside a message for too long.
    StreamIdle(StreamId),
    /// A stream that stands in for a datagram has not been connected in time.
    StreamInstead(StreamId),
    /// The next step of a stream's keep-alive.
    KeepAlive(StreamId),
    /// DNS is to be asked about a peer.
    Find(PeerId),
    /// A ping is due, or silent for too long.
    Ping(Way),
    /// Our registration with a peer has something to do.
    Registration(PeerId),
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
    pub(crate) admission: Admission,
    /// What calls want of each other, until the core has carried it there.
    pub(crate) loans: VecDeque<Loan>,
    pub(crate) authentication: Authentication,
    /// The routes that registrars gave us for what we send (RFC 3608 §6.1), by peer.
    pub(crate) service_routes: HashMap<PeerId, Vec<String>>,
    emergency: Matcher,
}

impl Environment {
    pub(crate) fn new(config: Arc<Config>, seed: [u8; 32]) -> Self {
        let room = config.limits.max_calls.saturating_mul(TRANSACTIONS_PER_CALL);
        let generator = Generator::new(seed);
        let mut environment = Self {
            now: Now::default(),
            authentication: Authentication::new(&config, &generator.key("nonces")),
            generator,
            timers: Timers::new(),
            transactions: Transactions::new(room.saturating_add(TRANSACTIONS_BESIDE)),
            dialogs: HashMap::new(),
            transport: TransportLayer::new(Arc::clone(&config)),
            reach: Reach::new(&config),
            live_calls: 0,
            admission: Admission::new(&config),
            loans: VecDeque::new(),
            service_routes: HashMap::new(),
            emergency: Matcher::new(&config.emergency),
            config,
        };
        environment.reach_out();
        environment
    }

    /// Whose source address it is, where a certificate of these names has been shown.
    pub(crate) fn peer_of(&self, source: SocketAddr, certified: &[String]) -> Option<PeerId> {
        peer_of(&self.config, &self.reach, self.now.mono, source, certified)
    }

    /// Whether it could be anybody's, before a certificate is shown.
    pub(crate) fn may_be_a_peers(&self, source: SocketAddr) -> bool {
        is_possible(&self.config, &self.reach, self.now.mono, source)
    }

    /// Whether an address is a peer's, as long as it shows the certificate that it should.
    pub(crate) fn is_of(&self, peer: PeerId, address: SocketAddr) -> bool {
        let certified = self.config.peers.get(peer.0).map_or(&[][..], |peer| peer.certificate.as_slice());
        self.peer_of(address, certified) == Some(peer)
    }

    pub(crate) fn split(&mut self) -> (&mut Transactions<Owner>, Ports<'_>) {
        let ports = Ports { now: self.now.mono, timers: &mut self.timers, transport: &mut self.transport };
        (&mut self.transactions, ports)
    }

    pub(crate) fn counters(&mut self) -> &mut Counters {
        &mut self.transport.counters
    }

    pub(crate) fn set_now(&mut self, now: Now) {
        self.now = now;
        self.transport.ladders.set_now(now.mono);
    }

    pub(crate) fn emit(&mut self, event: Event) {
        if let Event::Answered { call } | Event::Ended { call, .. } = event {
            let key = self.timers.arm(self.now.mono.plus_ms(TOLD_AFTER_MS), Deadline::Ladder(call));
            self.schedule_ladder(call, Some(key));
        }
        self.transport.push(Output::Event(event));
    }

    /// Tells what is new of a call's ladder.
    pub(crate) fn tell_ladder(&mut self, call: CallId) {
        self.schedule_ladder(call, None);
        if let Some(ladder) = self.transport.ladders.tell(call, &self.config) {
            self.transport.push(Output::Ladder(Box::new(ladder)));
        }
    }

    /// Tells what is left of a call's ladder and forgets it.
    pub(crate) fn forget_ladder(&mut self, call: CallId) {
        self.tell_ladder(call);
        self.transport.ladders.forget(call);
    }

    fn schedule_ladder(&mut self, call: CallId, key: Option<TimerKey>) {
        if let Some(former) = self.transport.ladders.tells_at(call, key) {
            self.timers.disarm(former);
        }
    }

    /// Takes a request outside dialogs.
    ///
    /// # Errors
    /// Seconds after which its source may send another.
    pub(crate) fn take_request(&mut self, origin: Origin) -> Result<(), u32> {
        self.admission.take_request(&self.config, self.now.mono, origin.source.ip())
    }

    /// Makes a dialog known.
    pub(crate) fn add_dialog(&mut self, id: DialogId, place: DialogPlace) {
        self.transport.ladders.put(place.call, place.leg, place.peer, &id.call_id);
        self.dialogs.insert(id, place);
    }

    /// Whether a Request-URI is an emergency call's.
    pub(crate) fn is_emergency(&self, uri: &str) -> bool {
        self.emergency.matches(uri).is_some()
    }

    /// How urgent a peer's INVITE is. The mark of a call-back is believed of the public side alone, where answering
    /// points are; it takes away questions and recording, and leads nowhere but to the district. Whoever takes a
    /// party's place in another call calls nobody back.
    pub(crate) fn urgency(&self, peer: PeerId, invite: &Request) -> Urgency {
        if self.is_emergency(&invite.uri) {
            return Urgency::Service;
        }
        let replaces = invite.headers.contains(name::REPLACES);
        let calls_back = self.side(peer) == Side::Public && is_callback(&invite.headers) && !replaces;
        if calls_back { Urgency::CallBack } else { Urgency::None }
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

    /// Sends a request in a new transaction. Its fields are whole but for Via and credentials, which are put
    /// on here.
    pub(crate) fn request(&mut self, path: Path, mut request: Request, owner: Owner) -> TxId {
        self.authorize(&path, &mut request);
        let branch = self.stamp_via(&path, &mut request);
        self.request_with_branch(path, &request, branch, owner)
    }

    /// Sends a request that has its Via, with this branch.
    pub(crate) fn request_with_branch(
        &mut self,
        path: Path,
        request: &Request,
        branch: String,
        owner: Owner,
    ) -> TxId {
        self.open_client(path, request, branch, owner, 0)
    }

    /// The same; `answers` is how many requests before it were challenged.
    pub(super) fn open_client(
        &mut self,
        path: Path,
        request: &Request,
        branch: String,
        owner: Owner,
        answers: u8,
    ) -> TxId {
        let mut new = NewClient::new(path, request, branch.clone(), owner, answers);
        let (now, bytes) = (self.now.mono, new.bytes.len());
        if let Some(stream) = self.transport.instead_of_datagram(&path, bytes, now, &mut self.timers) {
            let mut request = request.clone();
            request.headers.set(name::VIA, self.via(&stream, &branch));
            new = NewClient::new(stream, &request, branch, owner, answers).or_else(new);
        }
        let (transactions, mut ports) = self.split();
        transactions.open_client(&mut ports, new)
    }

    /// Sends the CANCEL of a request of ours, for which only Via is still wanting: the same way, with the
    /// same Via (RFC 3261 §9.1).
    pub(crate) fn cancel(&mut self, client: TxId, path: Path, mut cancel: Request, branch: String) {
        let path = self.transactions.path(client).unwrap_or(path);
        cancel.headers.prepend(name::VIA, self.via(&path, &branch));
        self.request_with_branch(path, &cancel, branch, Owner::Nobody);
    }

    /// A request of ours has drawn nothing: what else goes there may need another stream.
    pub(crate) fn pass_over(&mut self, client: TxId) {
        if let Some(stream) = self.transactions.path(client).and_then(|path| path.stream) {
            self.transport.pass_over(stream);
        }
    }

    /// Sends the ACK of a 2xx, for which only Via is still wanting, and returns it for its repetition.
    pub(crate) fn acknowledge(&mut self, path: &mut Path, mut ack: Request) -> Bytes {
        let branch = self.stamp_via(path, &mut ack);
        let mut bytes = ack.to_bytes();
        if let Some(stream) = self.transport.instead_of_last_datagram(path, bytes.len()) {
            *path = stream;
            ack.headers.set(name::VIA, self.via(path, &branch));
            bytes = ack.to_bytes();
        }
        self.transport.send(path, bytes.clone());
        bytes
    }

    /// Puts our Via on a request and returns its branch.
    pub(crate) fn stamp_via(&mut self, path: &Path, request: &mut Request) -> String {
        self.stamp_via_after(path, request, "")
    }

    /// The same with the marks of [`Self::passes`].
    pub(crate) fn stamp_via_after(&mut self, path: &Path, request: &mut Request, passes: &str) -> String {
        let branch = self.generator.branch() + passes;
        request.headers.prepend(name::VIA, self.via(path, &branch));
        branch
    }

    /// Puts another Via of ours in the place of the first, for a request that is sent again, and returns its branch.
    pub(crate) fn stamp_via_again(&mut self, path: &Path, request: &mut Request) -> String {
        let former = request.headers.first(name::VIA).and_then(|via| Via::first(via).ok()?.branch());
        let marks = former.and_then(loops::marks).unwrap_or_default().to_owned();
        request.headers.remove_first(name::VIA);
        self.stamp_via_after(path, request, &marks)
    }

    /// The marks that our branch of a call's INVITE carries: where it has passed through us so far, this time
    /// included.
    ///
    /// # Errors
    /// [`Looped`]: it has passed just so before.
    pub(crate) fn passes(&self, peer: PeerId, called: &str, invite: &Request) -> Result<String, Looped> {
        let side = match self.side(peer) {
            Side::District => "district",
            Side::Public => "public",
        };
        let passed: Vec<&str> = std::iter::once(side).chain(loops::whom(called)).collect();
        let mark = self.generator.mark_of_pass(&passed);
        loops::passes(&self.config.listeners, &mark, invite)
    }

    /// Our Via. By TLS it offers the stream for the peer's own requests (RFC 5923 §4).
    fn via(&self, path: &Path, branch: &str) -> String {
        let (transport, alias) = match path.transport {
            Transport::Udp => ("UDP", ""),
            Transport::Tcp => ("TCP", ""),
            Transport::Tls => ("TLS", ";alias"),
        };
        format!("SIP/2.0/{transport} {};branch={branch};rport{alias}", self.sent_by(path.listener))
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

    /// Our Contact towards a path (RFC 3261 §8.1.1.8), `sips:` where the message asks for it and the path is
    /// secure. It has no user: whom we stand for is in From and P-Asserted-Identity, and a user of the other
    /// side would be topology.
    pub(crate) fn contact(&self, path: &Path, secure: bool) -> String {
        self.contact_of("", path, secure)
    }

    /// The same with something before the host: the user and `@` under which we register.
    pub(crate) fn contact_of(&self, userinfo: &str, path: &Path, secure: bool) -> String {
        let own = self.sent_by(path.listener);
        match path.transport {
            Transport::Udp => format!("<sip:{userinfo}{own}>"),
            Transport::Tcp => format!("<sip:{userinfo}{own};transport=tcp>"),
            Transport::Tls if secure => format!("<sips:{userinfo}{own}>"),
            Transport::Tls => format!("<sip:{userinfo}{own};transport=tls>"),
        }
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
    /// peer's, and TLS is what goes there; otherwise the way stays as it is. Names are not resolved, and no
    /// peer's Contact or Record-Route can aim us at anybody else.
    pub(crate) fn aim(&self, path: &mut Path, next_hop: &str) {
        let Some((address, secure)) = next_hop_address(next_hop) else { return };
        if address.is_ipv4() == path.to.is_ipv4()
            && secure == (path.transport == Transport::Tls)
            && self.is_of(path.peer, address)
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

    /// The name of the host that a peer is configured at, if it is not an address.
    pub(crate) fn name_of(&self, peer: PeerId) -> Option<&str> {
        match &self.config.peers.get(peer.0)?.place.host {
            Host::Name(name) => Some(name),
            Host::Address(_) => None,
        }
    }

    /// Whether a peer is trusted with identities (RFC 3325 §2.4).
    pub(crate) fn trusts_identity(&self, peer: PeerId) -> bool {
        self.config.peers.get(peer.0).is_some_and(|peer| peer.trusts_identity)
    }

    /// Whether a host is one of our own addresses.
    pub(crate) fn is_own(&self, host: &str) -> bool {
        let ip = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        ip.is_ok_and(|ip| self.config.listeners.iter().any(|own| own.address.ip() == ip.to_canonical()))
    }

    /// Whether a peer may transfer calls.
    pub(crate) fn may_refer(&self, peer: PeerId) -> bool {
        self.config.peers.get(peer.0).is_some_and(|peer| peer.may_refer)
    }

    /// The peer that a URI's host names, by its configured host or address.
    pub(crate) fn peer_at(&self, host: &str, port: Option<u16>) -> Option<PeerId> {
        let with_port = format!("{host}:{}", port.unwrap_or(5060));
        let by_name = |peer: &crate::Peer| {
            let own = peer.place.host_port();
            own.eq_ignore_ascii_case(host) || own.eq_ignore_ascii_case(&with_port)
        };
        let named = self.config.peers.iter().position(by_name).map(PeerId);
        named.or_else(|| {
            let ip = host.trim_matches(['[', ']']).parse().ok()?;
            let address = SocketAddr::new(ip, port.unwrap_or(5060));
            (0..self.config.peers.len()).map(PeerId).find(|peer| self.is_of(*peer, address))
        })
    }

    /// The ways to whom somebody names: those to a side, in its order, and only the named peer's, if it is of
    /// that side. For an emergency service those of any emergency call, whoever was named.
    pub(crate) fn ways_for(&mut self, side: Side, named: Option<PeerId>, emergency: bool) -> Vec<Way> {
        if emergency {
            return self.ways(Side::Public, true);
        }
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
    /// takes calls at that address by that transport, or to the usual port, because a stream's source port
    /// takes none.
    pub(crate) fn path_back(&self, origin: Origin) -> Path {
        let mut to = origin.source;
        if origin.stream.is_some() {
            let takes_calls = self.reach.target_at(origin.peer, origin.source.ip(), origin.transport);
            to.set_port(takes_calls.map_or(origin.transport.usual_port(), |address| address.port()));
        }
        origin.path(to)
    }
}

/// The address that a URI names, and whether it asks for TLS.
fn next_hop_address(uri: &str) -> Option<(std::net::SocketAddr, bool)> {
    let crate::wire::Uri::Sip(uri) = crate::wire::Uri::parse(uri).ok()? else { return None };
    let ip: std::net::IpAddr = uri.host.trim_matches(['[', ']']).parse().ok()?;
    Some((std::net::SocketAddr::new(ip, uri.port_or_usual()), uri.is_by_tls()))
}
