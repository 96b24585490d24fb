//! The transport layer (RFC 3261 §18): which way a message goes, and the streams that are open.
//!
//! A response goes to the address that its request came from, at the source port where `rport` was asked
//! for, else at the port of Via's sent-by (RFC 3581 §4); `maddr` is ignored, so that no peer can aim us at
//! a third address. What belongs to a dialog takes the stream on which the dialog was last heard. What else
//! goes to a peer by a stream takes:
//!
//! | transport | stream |
//! |---|---|
//! | TCP | that which we opened to that address and port, or which the peer opened from that address, whichever was heard last; or a new one |
//! | TLS | the same, of the peer's own only one on which it showed its certificate and which it offered with `alias` in a Via (RFC 5923 §5) |
//!
//! One of the peer's own on which an INVITE drew nothing is passed over until it is heard again.
//!
//! A request of more than 1300 bytes to a peer by UDP goes by TCP (§18.1.1), where we listen for TCP at the
//! same address; if TCP cannot be connected within a second, by UDP after all, and so do the next ones for
//! ten minutes. Its dialog stays on UDP. Accepted TLS streams are nobody's until they have shaken hands.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use consent::Mono;

use super::keep_alive::{self, Due, KeepAlive};
use super::ladder::Ladders;
use super::timers::{TimerKey, Timers};
use super::{Counters, Deadline, Output, StreamId};
use crate::wire::{Frame, Framer, Via};
use crate::{Config, ListenerId, PeerId, Transport};

/// How long a stream may stay inside a message, or say nothing at first. Half a minute is thousands of
/// times what an honest peer needs.
const STREAM_IDLE_MS: u64 = 30_000;

/// The largest request that goes in a datagram where the path's MTU is not known (RFC 3261 §18.1.1).
const MAX_DATAGRAM_REQUEST_BYTES: usize = 1_300;

/// The share of all streams that may shake hands at once from one source: a quarter, which is 128 in service,
/// where a handshake takes milliseconds.
const SHAKING_SHARE: usize = 4;

/// How long a connection that only stands in for a datagram may take to come about: the call waits for it.
/// One SYN, and an honest answer from anywhere.
const INSTEAD_MS: u64 = 1_000;

/// How long a peer that takes no connection is spared the next attempt.
const NO_TCP_MS: u64 = 600_000;

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) peer: PeerId,
    pub(crate) listener: ListenerId,
    pub(crate) transport: Transport,
    pub(crate) to: SocketAddr,
    /// The stream last used, unless by UDP.
    pub(crate) stream: Option<StreamId>,
}

impl Path {
    pub(crate) const fn is_reliable(&self) -> bool {
        self.transport.is_reliable()
    }

    /// Takes the stream on which the far end was heard, unless that only stood in for a datagram.
    pub(crate) fn follow(&mut self, origin: Origin) {
        if self.transport == origin.transport && origin.stream.is_some() {
            self.stream = origin.stream;
        }
    }
}

/// Where a message came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) peer: PeerId,
    pub(crate) listener: ListenerId,
    pub(crate) source: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) stream: Option<StreamId>,
}

impl Origin {
    /// Where the response to a request with this top Via goes (RFC 3261 §18.2.2, RFC 3581 §4).
    pub(crate) fn reply_path(&self, via: &Via<'_>) -> Path {
        let port = if self.stream.is_none() && via.params.contains("rport") {
            self.source.port()
        } else {
            via.port.unwrap_or(self.transport.usual_port())
        };
        let mut to = self.source;
        to.set_port(port);
        self.path(to)
    }

    /// The way back to the source itself.
    pub(crate) fn path(&self, to: SocketAddr) -> Path {
        let Self { peer, listener, transport, stream, .. } = *self;
        Path { peer, listener, transport, to, stream }
    }
}

/// What a transaction needs of its surroundings for one step.
pub(crate) struct Ports<'a> {
    pub(crate) now: Mono,
    pub(crate) timers: &'a mut Timers<Deadline>,
    pub(crate) transport: &'a mut TransportLayer,
}

struct Stream {
    peer: PeerId,
    listener: ListenerId,
    remote: SocketAddr,
    transport: Transport,
    framer: Framer,
    /// Until when what it has begun, a first message to begin with, must be complete.
    idle: Option<TimerKey>,
    side: Opened,
}

/// Which end opened a stream.
enum Opened {
    /// The peer; whether it has shown a certificate.
    There { certified: bool },
    /// We.
    Here {
        connected: bool,
        keep_alive: KeepAlive,
        /// The next step of the keep-alive.
        next: Option<TimerKey>,
        /// Until when it must be connected to stand in for a datagram.
        instead: Option<TimerKey>,
    },
}

/// A stream that leads to a host.
struct Leading {
    /// To which port alone; `None`: to any, because the peer has opened it.
    port: Option<u16>,
    stream: StreamId,
}

/// Everything on its way out, and the streams. Inbound streams are bounded by `limits.max_streams`; the
/// core opens at most one per peer, transport and address.
pub(crate) struct TransportLayer {
    config: Arc<Config>,
    outbox: VecDeque<Output>,
    streams: HashMap<StreamId, Stream>,
    /// Accepted TLS streams that have not shaken hands yet; the shell bounds how long that takes.
    shaking: HashMap<StreamId, (ListenerId, SocketAddr)>,
    /// The streams for what goes to a host, the one last heard at the end: one of the peer's own, and one of ours
    /// for each port there.
    by_host: HashMap<(PeerId, Transport, IpAddr), Vec<Leading>>,
    connected: u64,
    /// Peers that have answered a ping.
    answer_pings: HashSet<PeerId>,
    /// Until when a peer by UDP is not tried by TCP.
    no_tcp: HashMap<PeerId, Mono>,
    pub(crate) counters: Counters,
    pub(crate) ladders: Ladders,
}

impl TransportLayer {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            outbox: VecDeque::new(),
            streams: HashMap::new(),
            shaking: HashMap::new(),
            by_host: HashMap::new(),
            connected: 0,
            answer_pings: HashSet::new(),
            no_tcp: HashMap::new(),
            counters: Counters::default(),
            ladders: Ladders::default(),
        }
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.outbox.push_back(output);
    }

    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.outbox.pop_front()
    }

    /// Sends one whole message.
    pub(crate) fn send(&mut self, path: &mut Path, bytes: Bytes) {
        self.counters.messages_out += 1;
        self.ladders.sent(path.peer, &bytes);
        if path.transport == Transport::Udp {
            self.push(Output::Datagram { listener: path.listener, to: path.to, bytes });
            return;
        }
        let stream = self.stream_for(path);
        path.stream = Some(stream);
        self.push(Output::Stream { stream, bytes });
    }

    /// The way of a request of so many bytes that is too large for the datagram that it should be: by a
    /// stream, if there may be one. (§18.1.1)
    pub(crate) fn instead_of_datagram(
        &mut self,
        path: &Path,
        bytes: usize,
        now: Mono,
        timers: &mut Timers<Deadline>,
    ) -> Option<Path> {
        let mut path = self.over_tcp(path, bytes)?;
        if self.no_tcp.get(&path.peer).is_some_and(|until| now < *until) {
            return None;
        }
        let stream = self.stream_for(&path);
        path.stream = Some(stream);
        if let Some(Stream { side: Opened::Here { connected: false, instead, .. }, .. }) =
            self.streams.get_mut(&stream)
            && instead.is_none()
        {
            *instead = Some(timers.arm(now.plus_ms(INSTEAD_MS), Deadline::StreamInstead(stream)));
        }
        Some(path)
    }

    /// The same for a message that nobody answers: only by a stream that stands.
    pub(crate) fn instead_of_last_datagram(&self, path: &Path, bytes: usize) -> Option<Path> {
        let path = self.over_tcp(path, bytes)?;
        let stream = self.stream_to(&path)?;
        let stands = match self.streams.get(&stream)?.side {
            Opened::There { .. } => true,
            Opened::Here { connected, .. } => connected,
        };
        stands.then_some(Path { stream: Some(stream), ..path })
    }

    fn over_tcp(&self, path: &Path, bytes: usize) -> Option<Path> {
        if path.transport != Transport::Udp || bytes <= MAX_DATAGRAM_REQUEST_BYTES {
            return None;
        }
        let own = self.config.listeners.get(path.listener.0)?.address.ip();
        let tcp =
            |listener: &crate::Listener| listener.transport == Transport::Tcp && listener.address.ip() == own;
        let listener = ListenerId(self.config.listeners.iter().position(tcp)?);
        Some(Path { listener, transport: Transport::Tcp, stream: None, ..*path })
    }

    /// Lets an accepted TLS stream shake hands, unless there are too many, or too many of its source are
    /// about to: whoever stalls his handshakes keeps nobody else from shaking hands.
    pub(crate) fn shake(&mut self, stream: StreamId, listener: ListenerId, source: SocketAddr) {
        let of_source = self.shaking.values().filter(|(_, other)| other.ip() == source.ip()).count();
        if of_source >= self.config.limits.max_streams.div_ceil(SHAKING_SHARE) {
            self.turn_away(stream);
        } else if self.has_room(stream) {
            self.shaking.insert(stream, (listener, source));
            self.push(Output::Secure { stream });
        }
    }

    /// Listener and source of an accepted stream that has shaken hands.
    pub(crate) fn shaken(&mut self, stream: StreamId) -> Option<(ListenerId, SocketAddr)> {
        self.shaking.remove(&stream)
    }

    /// Takes an accepted stream, unless there are too many.
    pub(crate) fn open(
        &mut self,
        stream: StreamId,
        origin: Origin,
        certified: bool,
        now: Mono,
        timers: &mut Timers<Deadline>,
    ) {
        if !self.has_room(stream) {
            return;
        }
        self.insert(stream, origin.path(origin.source), Opened::There { certified });
        self.watch(stream, now, timers);
    }

    /// A stream of ours is connected.
    pub(crate) fn connected(
        &mut self,
        stream: StreamId,
        interval_ms: u64,
        now: Mono,
        timers: &mut Timers<Deadline>,
    ) {
        let Some(open) = self.streams.get_mut(&stream) else { return };
        let Opened::Here { connected, instead, .. } = &mut open.side else { return };
        *connected = true;
        if let Some(key) = instead.take() {
            timers.disarm(key);
        }
        open.keep_alive_in(stream, interval_ms, now, timers);
    }

    /// The next step of a stream's keep-alive. `false` if it is at its end and to be closed.
    pub(crate) fn keep_alive(
        &mut self,
        stream: StreamId,
        interval_ms: u64,
        now: Mono,
        timers: &mut Timers<Deadline>,
    ) -> bool {
        let Some(open) = self.streams.get_mut(&stream) else { return true };
        let peer_answers = self.answer_pings.contains(&open.peer);
        let Opened::Here { keep_alive, .. } = &mut open.side else { return true };
        match keep_alive.on_time(peer_answers) {
            Due::Ping(pong_ms) => {
                open.keep_alive_in(stream, pong_ms, now, timers);
                self.push(Output::Stream { stream, bytes: Bytes::from_static(keep_alive::PING) });
            }
            Due::Wait => open.keep_alive_in(stream, interval_ms, now, timers),
            Due::Close => return false,
        }
        true
    }

    /// Feeds a stream; one that is not known was closed by us, and what still comes on it is lost. Whether
    /// that ends the wait for a pong, so that the keep-alive is to be put off.
    pub(crate) fn feed(&mut self, stream: StreamId, bytes: &[u8]) -> bool {
        let Some(open) = self.streams.get_mut(&stream) else { return false };
        let waited = match &mut open.side {
            Opened::Here { keep_alive, .. } => keep_alive.on_bytes(),
            Opened::There { .. } => false,
        };
        if waited && bytes == keep_alive::PONG && open.framer.is_between_messages() {
            self.answer_pings.insert(open.peer);
            return true;
        }
        open.framer.feed(bytes);
        waited
    }

    /// Begins a stream's keep-alive interval anew.
    pub(crate) fn put_off_keep_alive(
        &mut self,
        stream: StreamId,
        interval_ms: u64,
        now: Mono,
        timers: &mut Timers<Deadline>,
    ) {
        if let Some(open) = self.streams.get_mut(&stream) {
            open.keep_alive_in(stream, interval_ms, now, timers);
        }
    }

    /// The next frame of a stream and where it comes from.
    pub(crate) fn next_frame(
        &mut self,
        stream: StreamId,
        now: Mono,
        timers: &mut Timers<Deadline>,
    ) -> Option<(Origin, Frame)> {
        let open = self.streams.get_mut(&stream)?;
        let Some(frame) = open.framer.next_frame() else {
            if !open.framer.is_between_messages() {
                self.watch(stream, now, timers);
            }
            return None;
        };
        if let Some(key) = open.idle.take() {
            timers.disarm(key);
        }
        let origin = open.origin(stream);
        if open.transport == Transport::Tcp || matches!(open.side, Opened::Here { .. }) {
            self.reuse(stream);
        }
        Some((origin, frame))
    }

    /// Whether a stream has begun a message and not finished it.
    pub(crate) fn is_inside(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|open| open.framer.is_inside())
    }

    /// The far end offers its stream for our own requests (RFC 5923 §5). Taken if we know by its certificate
    /// who it is.
    pub(crate) fn alias(&mut self, stream: StreamId) {
        let open = self.streams.get(&stream);
        if open.is_some_and(|open| matches!(open.side, Opened::There { certified: true })) {
            self.reuse(stream);
        }
    }

    /// What else goes to the stream's far end goes on it.
    fn reuse(&mut self, stream: StreamId) {
        let Some(open) = self.streams.get(&stream) else { return };
        let port = match open.side {
            Opened::There { .. } => None,
            Opened::Here { .. } => Some(open.remote.port()),
        };
        let heard = self.by_host.entry((open.peer, open.transport, open.remote.ip())).or_default();
        heard.retain(|other| other.port != port);
        heard.push(Leading { port, stream });
    }

    /// A request drew nothing on a stream. One of ours stays: it would only be opened again.
    pub(crate) fn pass_over(&mut self, stream: StreamId) {
        if self.streams.get(&stream).is_some_and(|open| matches!(open.side, Opened::There { .. })) {
            self.forget_way(stream);
        }
    }

    fn forget_way(&mut self, stream: StreamId) {
        self.by_host.retain(|_, heard| {
            heard.retain(|leading| leading.stream != stream);
            !heard.is_empty()
        });
    }

    /// The stream for what else goes to an address.
    fn stream_to(&self, path: &Path) -> Option<StreamId> {
        let heard = self.by_host.get(&(path.peer, path.transport, path.to.ip()))?;
        let leads = |leading: &&Leading| leading.port.is_none_or(|port| port == path.to.port());
        heard.iter().rev().find(leads).map(|leading| leading.stream)
    }

    /// Closes a stream of our own accord.
    pub(crate) fn close(&mut self, stream: StreamId, now: Mono, timers: &mut Timers<Deadline>) -> Lost {
        let lost = self.forget(stream, now, timers);
        if lost != Lost::Unknown {
            self.counters.closed_streams += 1;
            self.push(Output::CloseStream { stream });
        }
        lost
    }

    /// Forgets a stream.
    pub(crate) fn forget(&mut self, stream: StreamId, now: Mono, timers: &mut Timers<Deadline>) -> Lost {
        self.shaking.remove(&stream);
        let Some(gone) = self.streams.remove(&stream) else { return Lost::Unknown };
        self.forget_way(stream);
        let mut lost = Lost::Open;
        let mut armed = vec![gone.idle];
        if let Opened::Here { connected, next, instead, .. } = gone.side {
            armed.extend([next, instead]);
            if !connected {
                lost = Lost::NeverConnected;
            }
            if !connected && instead.is_some() {
                self.no_tcp.insert(gone.peer, now.plus_ms(NO_TCP_MS));
            }
        }
        for key in armed.into_iter().flatten() {
            timers.disarm(key);
        }
        lost
    }

    fn has_room(&mut self, stream: StreamId) -> bool {
        let room = self.streams.len() + self.shaking.len() < self.config.limits.max_streams;
        if !room {
            self.turn_away(stream);
        }
        room
    }

    fn turn_away(&mut self, stream: StreamId) {
        self.counters.closed_streams += 1;
        self.push(Output::CloseStream { stream });
    }

    fn stream_for(&mut self, path: &Path) -> StreamId {
        if let Some(stream) = path.stream.filter(|stream| self.streams.contains_key(stream)) {
            return stream;
        }
        if let Some(stream) = self.stream_to(path) {
            return stream;
        }
        self.connected += 1;
        let stream = StreamId(self.connected * 2 - 1);
        let keep_alive = KeepAlive::default();
        self.insert(stream, *path, Opened::Here { connected: false, keep_alive, next: None, instead: None });
        self.reuse(stream);
        self.push(Output::Connect { stream, listener: path.listener, to: path.to, peer: path.peer });
        stream
    }

    fn insert(&mut self, stream: StreamId, path: Path, side: Opened) {
        let Path { peer, listener, transport, to: remote, .. } = path;
        let framer = Framer::new(&self.config.limits);
        let open = Stream { peer, listener, remote, transport, framer, idle: None, side };
        self.streams.insert(stream, open);
    }

    /// Starts the clock for what a stream has begun and not finished.
    fn watch(&mut self, stream: StreamId, now: Mono, timers: &mut Timers<Deadline>) {
        if let Some(open) = self.streams.get_mut(&stream)
            && open.idle.is_none()
        {
            open.idle = Some(timers.arm(now.plus_ms(STREAM_IDLE_MS), Deadline::StreamIdle(stream)));
        }
    }
}

/// What a stream was that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// None that carried anything.
    Unknown,
    /// One that we asked for in vain: nothing that was sent on it has arrived.
    NeverConnected,
    /// One that stood.
    Open,
}

impl Stream {
    fn origin(&self, stream: StreamId) -> Origin {
        let Self { peer, listener, remote: source, transport, .. } = *self;
        Origin { peer, listener, source, transport, stream: Some(stream) }
    }

    /// When the keep-alive's time is up next.
    fn keep_alive_in(&mut self, stream: StreamId, ms: u64, now: Mono, timers: &mut Timers<Deadline>) {
        let Opened::Here { next, .. } = &mut self.side else { return };
        if let Some(key) = next.replace(timers.arm(now.plus_ms(ms), Deadline::KeepAlive(stream))) {
            timers.disarm(key);
        }
    }
}
