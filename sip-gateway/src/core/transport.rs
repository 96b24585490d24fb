//! The transport layer (RFC 3261 §18): which way a message goes, and the streams that are open.
//!
//! A response goes to the address that its request came from, at the source port where `rport` was asked
//! for, else at the port of Via's sent-by (RFC 3581 §4); `maddr` is ignored, so that no peer can aim us at
//! a third address. What goes to a TCP peer takes the stream on which the peer was last heard, or opens
//! one. Left out: the change to TCP for requests near the path MTU (§18.1.1); peers are configured with
//! their transport.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use consent::Mono;

use super::timers::{TimerKey, Timers};
use super::{Counters, Deadline, Output, StreamId};
use crate::wire::{Frame, Framer, Via};
use crate::{Config, ListenerId, PeerId, Transport};

/// How long a stream may stay inside a message, or say nothing at first. Half a minute is thousands of
/// times what an honest peer needs.
const STREAM_IDLE_MS: u64 = 30_000;

/// Where a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) peer: PeerId,
    pub(crate) listener: ListenerId,
    pub(crate) transport: Transport,
    pub(crate) to: SocketAddr,
    /// The stream last used, for TCP.
    pub(crate) stream: Option<StreamId>,
}

impl Path {
    pub(crate) fn is_reliable(&self) -> bool {
        self.transport == Transport::Tcp
    }
}

/// Where a message came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) peer: PeerId,
    pub(crate) listener: ListenerId,
    pub(crate) source: SocketAddr,
    pub(crate) stream: Option<StreamId>,
}

impl Origin {
    /// Where the response to a request with this top Via goes (RFC 3261 §18.2.2, RFC 3581 §4).
    pub(crate) fn reply_path(&self, via: &Via<'_>) -> Path {
        let port = if self.stream.is_none() && via.params.contains("rport") {
            self.source.port()
        } else {
            via.port.unwrap_or(5060)
        };
        let mut to = self.source;
        to.set_port(port);
        self.path(to)
    }

    /// The way back to the source itself.
    pub(crate) fn path(&self, to: SocketAddr) -> Path {
        let transport = if self.stream.is_some() { Transport::Tcp } else { Transport::Udp };
        Path { peer: self.peer, listener: self.listener, transport, to, stream: self.stream }
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
    framer: Framer,
    /// Whether bytes came that have completed no frame yet.
    inside: bool,
    idle: Option<TimerKey>,
}

/// Everything on its way out, and the streams. Inbound streams are bounded by `limits.max_streams`; the
/// core opens at most one per peer and host.
pub(crate) struct TransportLayer {
    config: Arc<Config>,
    outbox: VecDeque<Output>,
    streams: HashMap<StreamId, Stream>,
    by_host: HashMap<(PeerId, IpAddr), StreamId>,
    connected: u64,
    pub(crate) counters: Counters,
}

impl TransportLayer {
    pub(crate) fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            outbox: VecDeque::new(),
            streams: HashMap::new(),
            by_host: HashMap::new(),
            connected: 0,
            counters: Counters::default(),
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
        if path.transport == Transport::Udp {
            self.push(Output::Datagram { listener: path.listener, to: path.to, bytes });
            return;
        }
        let stream = self.stream_for(path);
        path.stream = Some(stream);
        self.push(Output::Stream { stream, bytes });
    }

    /// Takes an accepted stream, unless there are too many.
    pub(crate) fn open(
        &mut self,
        stream: StreamId,
        origin: Origin,
        now: Mono,
        timers: &mut Timers<Deadline>,
    ) {
        if self.streams.len() >= self.config.limits.max_streams {
            self.counters.closed_streams += 1;
            self.push(Output::CloseStream { stream });
            return;
        }
        self.insert(stream, origin.peer, origin.listener, origin.source);
        if let Some(open) = self.streams.get_mut(&stream) {
            open.inside = true;
        }
        self.watch(stream, now, timers);
    }

    /// Feeds a stream; one that is not known was closed by us, and what still comes on it is lost.
    pub(crate) fn feed(&mut self, stream: StreamId, bytes: &[u8]) {
        if let Some(open) = self.streams.get_mut(&stream) {
            open.framer.feed(bytes);
            open.inside |= bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n'));
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
            self.watch(stream, now, timers);
            return None;
        };
        open.inside = false;
        if let Some(key) = open.idle.take() {
            timers.disarm(key);
        }
        let origin =
            Origin { peer: open.peer, listener: open.listener, source: open.remote, stream: Some(stream) };
        self.by_host.insert((open.peer, open.remote.ip()), stream);
        Some((origin, frame))
    }

    /// Whether a stream has begun a message and not finished it.
    pub(crate) fn is_inside(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|open| open.framer.is_inside())
    }

    /// Closes a stream of our own accord.
    pub(crate) fn close(&mut self, stream: StreamId, timers: &mut Timers<Deadline>) {
        if self.forget(stream, timers) {
            self.counters.closed_streams += 1;
            self.push(Output::CloseStream { stream });
        }
    }

    /// Forgets a stream. `false` if it was not known.
    pub(crate) fn forget(&mut self, stream: StreamId, timers: &mut Timers<Deadline>) -> bool {
        let Some(gone) = self.streams.remove(&stream) else { return false };
        if let Some(key) = gone.idle {
            timers.disarm(key);
        }
        self.by_host.retain(|_, open| *open != stream);
        true
    }

    fn stream_for(&mut self, path: &Path) -> StreamId {
        if let Some(stream) = path.stream.filter(|stream| self.streams.contains_key(stream)) {
            return stream;
        }
        if let Some(stream) = self.by_host.get(&(path.peer, path.to.ip())) {
            return *stream;
        }
        self.connected += 1;
        let stream = StreamId(self.connected * 2 - 1);
        self.insert(stream, path.peer, path.listener, path.to);
        self.by_host.insert((path.peer, path.to.ip()), stream);
        self.push(Output::Connect { stream, listener: path.listener, to: path.to });
        stream
    }

    fn insert(&mut self, stream: StreamId, peer: PeerId, listener: ListenerId, remote: SocketAddr) {
        let framer = Framer::new(&self.config.limits);
        self.streams.insert(stream, Stream { peer, listener, remote, framer, inside: false, idle: None });
    }

    /// Starts the clock for what a stream has begun and not finished.
    fn watch(&mut self, stream: StreamId, now: Mono, timers: &mut Timers<Deadline>) {
        if let Some(open) = self.streams.get_mut(&stream)
            && open.inside
            && open.idle.is_none()
        {
            open.idle = Some(timers.arm(now.plus_ms(STREAM_IDLE_MS), Deadline::StreamIdle(stream)));
        }
    }
}
