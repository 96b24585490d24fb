//! The transactions alive: their messages, timers and matching (RFC 3261 §17.1.3, §17.2.3).

use std::collections::HashMap;

use bytes::Bytes;
use consent::Mono;

use super::client::{ClientInvite, ClientRequest};
use super::room::{Full, Room, Rooms};
use super::server::{ServerInvite, ServerRequest};
use super::{ClientInput, Effect, ServerInput, Timer};
use crate::core::{Deadline, Lost, MAGIC_COOKIE, Path, Ports, TimerKey};
use crate::wire::{Headers, Method, NameAddr, Request, Via, name};
use crate::{PeerId, StreamId};

/// Names a transaction; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TxId(u64);

/// A timer of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TxTimer {
    pub(crate) id: TxId,
    pub(crate) timer: Timer,
}

/// What the user agent core learns of a transaction besides its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// Timer B, F or H.
    TimedOut,
    /// The transport failed.
    Unreachable,
}

/// Which of the four machines it is.
#[derive(Debug)]
pub(crate) enum Machine {
    ClientInvite(ClientInvite),
    ClientRequest(ClientRequest),
    ServerInvite(ServerInvite),
    ServerRequest(ServerRequest),
}

impl Machine {
    /// Whether a response of this status would still go out.
    fn accepts(&self, status: u16) -> bool {
        match self {
            Self::ServerInvite(machine) => machine.accepts(status),
            Self::ServerRequest(machine) => machine.is_open(),
            Self::ClientInvite(_) | Self::ClientRequest(_) => false,
        }
    }
}

/// What a request is matched by, within the peer that sent it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ServerKey {
    peer: PeerId,
    text: String,
}

impl ServerKey {
    /// The transaction that `method` of these fields belongs to: an ACK to its INVITE, a CANCEL (with
    /// `method` INVITE) to what it cancels.
    pub(crate) fn new(peer: PeerId, headers: &Headers, via: &Via<'_>, method: &Method) -> Self {
        let method = if *method == Method::ACK { Method::INVITE } else { method.clone() };
        let port = via.port.unwrap_or(5060);
        let text = match via.branch() {
            Some(branch) if branch.get(..7).is_some_and(|c| c.eq_ignore_ascii_case(MAGIC_COOKIE)) => {
                format!("{}|{}:{port}|{}", branch, via.host.to_ascii_lowercase(), method.as_str())
            }
            // RFC 2543: Call-ID, From tag, CSeq number and the top Via, as §17.2.3 has it; the
            // Request-URI and the To tag add nothing that tells honest requests apart.
            _ => format!(
                "{}|{}|{}|{}|{}",
                headers.first(name::CALL_ID).unwrap_or_default(),
                headers.first(name::FROM).unwrap_or_default(),
                headers.first(name::CSEQ).and_then(|c| c.split_whitespace().next()).unwrap_or_default(),
                headers.first(name::VIA).unwrap_or_default(),
                method.as_str(),
            ),
        };
        Self { peer, text }
    }
}

/// From tag, Call-ID and CSeq of a request outside dialogs: one that has them all but another branch came
/// by another path (RFC 3261 §8.2.2.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MergeKey(String);

impl MergeKey {
    pub(crate) fn new(headers: &Headers) -> Self {
        let from = headers.first(name::FROM).and_then(|from| NameAddr::parse(from).ok());
        Self(format!(
            "{}|{}|{}",
            from.and_then(|from| from.tag()).unwrap_or_default(),
            headers.first(name::CALL_ID).unwrap_or_default(),
            headers.first(name::CSEQ).unwrap_or_default(),
        ))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ClientKey {
    peer: PeerId,
    branch: String,
    method: String,
}

#[derive(Debug)]
enum Key {
    Server(ServerKey, Option<MergeKey>, Room),
    Client(ClientKey),
}

/// A transaction alive.
#[derive(Debug)]
struct Live<O> {
    machine: Machine,
    key: Key,
    path: Path,
    /// The request of a client, the last response of a server; empty until there is one.
    last: Bytes,
    /// The ACK of a failure without its To, and the whole of it once that is known.
    ack: Ack,
    owner: O,
    /// How many requests before it were sent for the same purpose, each challenged.
    answers: u8,
    armed: Vec<(Timer, TimerKey)>,
    /// What a client sends if its stream is never connected.
    fallback: Option<Box<NewClient<O>>>,
}

#[derive(Debug)]
enum Ack {
    None,
    Head(String),
    Whole(Bytes),
}

/// A request to be sent in a new client transaction.
#[derive(Debug)]
pub(crate) struct NewClient<O> {
    method: Method,
    branch: String,
    pub(crate) bytes: Bytes,
    /// For INVITE, the ACK of its failure up to and without To.
    ack_head: Option<String>,
    path: Path,
    owner: O,
    /// How many requests before it were sent for the same purpose, each challenged (§22.2).
    answers: u8,
    /// The same request for another way, if this one cannot be connected.
    fallback: Option<Box<Self>>,
}

/// A response that belongs to a transaction.
pub(crate) struct Heard<O> {
    pub(crate) id: TxId,
    pub(crate) owner: O,
    /// Whether it is news to the core.
    pub(crate) news: bool,
    /// The way that was meant: a datagram's, even if a stream stood in for it.
    pub(crate) path: Path,
    /// The request as sent; empty if it has been answered before.
    pub(crate) request: Bytes,
    pub(crate) answers: u8,
}

impl<O> NewClient<O> {
    /// A request that has its Via, with this branch.
    pub(crate) fn new(path: Path, request: &Request, branch: String, owner: O, answers: u8) -> Self {
        let ack_head = (request.method == Method::INVITE).then(|| ack_head(request));
        let (method, bytes) = (request.method.clone(), request.to_bytes());
        Self { method, branch, bytes, ack_head, path, owner, answers, fallback: None }
    }

    /// With another way for it, if its stream cannot be connected.
    pub(crate) fn or_else(mut self, fallback: Self) -> Self {
        self.fallback = Some(Box::new(fallback));
        self
    }

    fn machine(&self) -> Machine {
        let reliable = self.path.is_reliable();
        if self.method == Method::INVITE {
            Machine::ClientInvite(ClientInvite::new(reliable))
        } else {
            Machine::ClientRequest(ClientRequest::new(reliable))
        }
    }
}

/// All transactions. [`Self::open_server`] is bounded by [`Rooms`]; those that the core opens itself belong to
/// calls, which are bounded, and always find room.
pub(crate) struct Transactions<O> {
    live: HashMap<TxId, Live<O>>,
    servers: HashMap<ServerKey, TxId>,
    merges: HashMap<MergeKey, TxId>,
    clients: HashMap<ClientKey, TxId>,
    opened: u64,
    rooms: Rooms,
    effects: Vec<Effect>,
}

impl<O: Clone> Transactions<O> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            live: HashMap::new(),
            servers: HashMap::new(),
            merges: HashMap::new(),
            clients: HashMap::new(),
            opened: 0,
            rooms: Rooms::new(limit),
            effects: Vec::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    /// The server transaction that a request belongs to.
    pub(crate) fn find_server(&self, key: &ServerKey) -> Option<TxId> {
        self.servers.get(key).copied()
    }

    /// Whether a request of another transaction with the same From tag, Call-ID and CSeq is being served.
    pub(crate) fn is_merged(&self, key: &MergeKey) -> bool {
        self.merges.contains_key(key)
    }

    /// Whose transaction it is.
    pub(crate) fn owner(&self, id: TxId) -> Option<O> {
        self.live.get(&id).map(|live| live.owner.clone())
    }

    /// Opens a server transaction for a new request.
    ///
    /// # Errors
    /// [`Full`] if its room is.
    pub(crate) fn open_server(
        &mut self,
        key: (ServerKey, Option<MergeKey>),
        invite: bool,
        path: Path,
        room: Room,
        owner: O,
    ) -> Result<TxId, Full> {
        self.rooms.take(room)?;
        let reliable = path.is_reliable();
        let machine = if invite {
            Machine::ServerInvite(ServerInvite::new(reliable))
        } else {
            Machine::ServerRequest(ServerRequest::new(reliable))
        };
        let id = self.next_id();
        let (key, merge) = key;
        self.servers.insert(key.clone(), id);
        if let Some(merge) = &merge {
            self.merges.insert(merge.clone(), id);
        }
        self.insert(id, machine, Key::Server(key, merge, room), path, owner);
        Ok(id)
    }

    /// Whether a request would find a place in its room.
    pub(crate) fn has_room(&self, room: Room) -> bool {
        self.rooms.has(room)
    }

    /// Moves a server transaction to another room.
    ///
    /// # Errors
    /// [`Full`] if that room is; the transaction stays where it was.
    pub(crate) fn move_to(&mut self, id: TxId, room: Room) -> Result<(), Full> {
        if let Some(Live { key: Key::Server(_, _, current), .. }) = self.live.get_mut(&id) {
            self.rooms.take(room)?;
            self.rooms.leave(std::mem::replace(current, room));
        }
        Ok(())
    }

    /// The way that a transaction's messages go.
    pub(crate) fn path(&self, id: TxId) -> Option<Path> {
        self.live.get(&id).map(|live| live.path)
    }

    /// Gives a server transaction to somebody else.
    pub(crate) fn set_owner(&mut self, id: TxId, owner: O) {
        if let Some(live) = self.live.get_mut(&id) {
            live.owner = owner;
        }
    }

    /// A request came again. `Some` if the transaction wants its ACK delivered.
    pub(crate) fn on_request(&mut self, ports: &mut Ports<'_>, id: TxId, ack: bool) -> bool {
        let input = if ack { ServerInput::Ack } else { ServerInput::Request };
        self.serve(ports, id, input).0
    }

    /// Sends a response through its transaction.
    pub(crate) fn respond(&mut self, ports: &mut Ports<'_>, id: TxId, status: u16, bytes: Bytes) {
        if let Some(live) = self.live.get_mut(&id)
            && live.machine.accepts(status)
        {
            live.last = bytes;
            self.serve(ports, id, ServerInput::Respond(status));
            self.with(id, Live::forget_accepted);
        }
    }

    /// Forgets a server transaction without an answer.
    pub(crate) fn abandon(&mut self, ports: &mut Ports<'_>, id: TxId) {
        self.effects.push(Effect::Terminate);
        self.apply(ports, id, None);
    }

    /// Sends a request in a new client transaction.
    pub(crate) fn open_client(&mut self, ports: &mut Ports<'_>, new: NewClient<O>) -> TxId {
        let machine = new.machine();
        let id = self.next_id();
        let key =
            ClientKey { peer: new.path.peer, branch: new.branch, method: new.method.as_str().to_owned() };
        self.clients.insert(key.clone(), id);
        self.insert(id, machine, Key::Client(key), new.path, new.owner);
        if let Some(live) = self.live.get_mut(&id) {
            live.last = new.bytes;
            live.answers = new.answers;
            live.ack = new.ack_head.map_or(Ack::None, Ack::Head);
            live.fallback = new.fallback;
        }
        self.drive(ports, id, ClientInput::Start, None);
        id
    }

    /// A response came from a peer: whose it is, if anybody's, and whether it is news to the core.
    pub(crate) fn on_response(
        &mut self,
        ports: &mut Ports<'_>,
        peer: PeerId,
        status: u16,
        headers: &Headers,
    ) -> Option<Heard<O>> {
        let via = Via::first(headers.first(name::VIA)?).ok()?;
        let method = headers.first(name::CSEQ)?.split_whitespace().nth(1)?;
        let key = ClientKey { peer, branch: via.branch()?.to_owned(), method: method.to_owned() };
        let id = *self.clients.get(&key)?;
        let live = self.live.get(&id)?;
        let path = live.fallback.as_ref().map_or(live.path, |meant| meant.path);
        let (owner, request, answers) = (live.owner.clone(), live.last.clone(), live.answers);
        let (news, _) = self.drive(ports, id, ClientInput::Response(status), headers.first(name::TO));
        if status >= 200 {
            self.with(id, |live| live.last = Bytes::new());
        }
        Some(Heard { id, owner, news, path, request, answers })
    }

    /// A timer of a transaction fired.
    pub(crate) fn on_timer(&mut self, ports: &mut Ports<'_>, fired: TxTimer) -> Option<(TxId, O, Report)> {
        let live = self.live.get_mut(&fired.id)?;
        live.armed.retain(|(timer, _)| *timer != fired.timer);
        let owner = live.owner.clone();
        let client = matches!(live.machine, Machine::ClientInvite(_) | Machine::ClientRequest(_));
        let (_, report) = if client {
            self.drive(ports, fired.id, ClientInput::Fired(fired.timer), None)
        } else {
            self.serve(ports, fired.id, ServerInput::Fired(fired.timer))
        };
        report.map(|report| (fired.id, owner, report))
    }

    /// A stream is gone: every client transaction on it has failed, unless the stream never stood and there
    /// is another way (RFC 3261 §18.1.1). Server transactions go on (RFC 6026 §7.1) and find another stream
    /// when they next send.
    pub(crate) fn on_stream_closed(
        &mut self,
        ports: &mut Ports<'_>,
        stream: StreamId,
        lost: Lost,
    ) -> Vec<(TxId, O, Report)> {
        let mut hit: Vec<TxId> = self
            .live
            .iter()
            .filter(|(_, live)| live.path.stream == Some(stream))
            .map(|(id, _)| *id)
            .collect();
        hit.sort_unstable();
        let mut reports = Vec::new();
        for id in hit {
            let Some(live) = self.live.get_mut(&id) else { continue };
            if let Some(fallback) = live.fallback.take().filter(|_| lost == Lost::NeverConnected) {
                self.restart(ports, id, *fallback);
                continue;
            }
            let owner = live.owner.clone();
            let (_, report) = match live.key {
                Key::Client(_) => self.drive(ports, id, ClientInput::TransportError, None),
                Key::Server(..) => self.serve(ports, id, ServerInput::TransportError),
            };
            if let Some(report) = report {
                reports.push((id, owner, report));
            }
        }
        reports
    }

    /// Begins a client transaction anew, another way.
    fn restart(&mut self, ports: &mut Ports<'_>, id: TxId, new: NewClient<O>) {
        let Some(live) = self.live.get_mut(&id) else { return };
        for (_, key) in live.armed.drain(..) {
            ports.timers.disarm(key);
        }
        live.machine = new.machine();
        live.path = new.path;
        live.last = new.bytes;
        live.ack = new.ack_head.map_or(Ack::None, Ack::Head);
        self.drive(ports, id, ClientInput::Start, None);
    }

    fn next_id(&mut self) -> TxId {
        self.opened = self.opened.wrapping_add(1);
        TxId(self.opened)
    }

    fn insert(&mut self, id: TxId, machine: Machine, key: Key, path: Path, owner: O) {
        let (last, ack, armed) = (Bytes::new(), Ack::None, Vec::new());
        let live = Live { machine, key, path, last, ack, owner, answers: 0, armed, fallback: None };
        self.live.insert(id, live);
    }

    fn drive(
        &mut self,
        ports: &mut Ports<'_>,
        id: TxId,
        input: ClientInput,
        to: Option<&str>,
    ) -> (bool, Option<Report>) {
        let Some(live) = self.live.get_mut(&id) else { return (false, None) };
        match &mut live.machine {
            Machine::ClientInvite(machine) => machine.on(input, &mut self.effects),
            Machine::ClientRequest(machine) => machine.on(input, &mut self.effects),
            Machine::ServerInvite(_) | Machine::ServerRequest(_) => {}
        }
        self.apply(ports, id, to)
    }

    fn serve(&mut self, ports: &mut Ports<'_>, id: TxId, input: ServerInput) -> (bool, Option<Report>) {
        let Some(live) = self.live.get_mut(&id) else { return (false, None) };
        match &mut live.machine {
            Machine::ServerInvite(machine) => machine.on(input, &mut self.effects),
            Machine::ServerRequest(machine) => machine.on(input, &mut self.effects),
            Machine::ClientInvite(_) | Machine::ClientRequest(_) => {}
        }
        self.apply(ports, id, None)
    }

    fn apply(&mut self, ports: &mut Ports<'_>, id: TxId, to: Option<&str>) -> (bool, Option<Report>) {
        let mut effects = std::mem::take(&mut self.effects);
        let (mut deliver, mut report) = (false, None);
        for effect in effects.drain(..) {
            match effect {
                Effect::Deliver => deliver = true,
                Effect::TimedOut => report = Some(Report::TimedOut),
                Effect::Unreachable => report = Some(Report::Unreachable),
                Effect::Terminate => self.terminate(ports, id),
                Effect::Transmit => self.with(id, |live| live.transmit(ports)),
                Effect::Acknowledge => self.with(id, |live| live.acknowledge(ports, to)),
                Effect::Arm(timer, ms) => self.with(id, |live| live.arm(ports, id, timer, ms)),
                Effect::Disarm(timer) => self.with(id, |live| live.disarm(ports, timer)),
            }
        }
        self.effects = effects;
        (deliver, report)
    }

    fn with(&mut self, id: TxId, act: impl FnOnce(&mut Live<O>)) {
        if let Some(live) = self.live.get_mut(&id) {
            act(live);
        }
    }

    fn terminate(&mut self, ports: &mut Ports<'_>, id: TxId) {
        let Some(live) = self.live.remove(&id) else { return };
        for (_, key) in live.armed {
            ports.timers.disarm(key);
        }
        match live.key {
            Key::Server(key, merge, room) => {
                self.rooms.leave(room);
                self.servers.remove(&key);
                if let Some(merge) = merge {
                    self.merges.remove(&merge);
                }
            }
            Key::Client(key) => {
                self.clients.remove(&key);
            }
        }
    }
}

impl<O> Live<O> {
    /// A 2xx is repeated by the core, not from here (RFC 6026 §7.1), so its bytes need not be kept.
    fn forget_accepted(&mut self) {
        if let Machine::ServerInvite(machine) = &self.machine
            && machine.is_accepted()
        {
            self.last = Bytes::new();
        }
    }

    fn transmit(&mut self, ports: &mut Ports<'_>) {
        if !self.last.is_empty() {
            ports.transport.send(&mut self.path, self.last.clone());
        }
    }

    fn acknowledge(&mut self, ports: &mut Ports<'_>, to: Option<&str>) {
        if let (Ack::Head(head), Some(to)) = (&self.ack, to) {
            let whole = format!("{head}To: {to}\r\nContent-Length: 0\r\n\r\n");
            self.ack = Ack::Whole(whole.into());
        }
        if let Ack::Whole(ack) = &self.ack {
            ports.transport.send(&mut self.path, ack.clone());
        }
    }

    fn arm(&mut self, ports: &mut Ports<'_>, id: TxId, timer: Timer, ms: u64) {
        self.disarm(ports, timer);
        let at: Mono = ports.now.plus_ms(ms);
        let key = ports.timers.arm(at, Deadline::Transaction(TxTimer { id, timer }));
        self.armed.push((timer, key));
    }

    fn disarm(&mut self, ports: &mut Ports<'_>, timer: Timer) {
        self.armed.retain(|(armed, key)| {
            if *armed == timer {
                ports.timers.disarm(*key);
            }
            *armed != timer
        });
    }
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
