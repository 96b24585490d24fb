//! The tokio shell: owns the sockets, carries bytes between them and the [`Core`](crate::Core), and knows
//! no SIP (RFC 3261 §18 is the core's).
//!
//! What comes in goes into one bounded queue of [`Input`] towards the task that owns the core; that task
//! stamps it with the time when it takes it. While the queue is full nothing more is read: datagrams wait,
//! and at last are lost, in the kernel's buffer, streams in their peers. What goes out never waits: a
//! datagram that the kernel does not take is lost and counted, as on any network; a stream whose queue is
//! full is closed. Every reader is supervised: whatever happens in it, it starts again.
//!
//! An accepted TLS stream says and hears nothing until the core has judged its source; then its handshake is
//! bounded in time.

mod certificate;
mod counters;
mod datagram;
mod resolver;
mod stream;
mod supervise;
#[cfg(test)]
mod tests;
pub mod tls;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::task::coop::unconstrained;

use crate::{Input, Limits, Listener, ListenerId, PeerId, StreamId, Transport};

pub use counters::ShellCounters;
pub use resolver::Resolver;

use counters::Counters;
use stream::{Acceptor, Link, Security, Streams};
use tls::TlsInForce;

/// Inputs waiting for the core. A second of an INVITE flood at what one core can read.
const INPUT_QUEUE: usize = 4096;

/// Bytes asked of the kernel for each UDP socket's receive buffer: about 3,000 INVITEs, so that a burst
/// waits instead of being lost. The kernel may grant less (net.core.rmem_max).
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Likewise for sending.
const SEND_BUFFER_BYTES: usize = 1 << 20;

/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 512;

/// How long streams may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// To be connected, and secure. Shorter than Timer B (32 s), so that another peer can still be tried.
    connect: Duration,
    /// To shake hands, where accepted.
    handshake: Duration,
    /// For the peer to read one message.
    write: Duration,
    /// Without a byte in either direction. The core closes sooner what stays inside a message.
    idle: Duration,
}

const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(4),
    handshake: Duration::from_secs(5),
    write: Duration::from_secs(10),
    idle: Duration::from_secs(600),
};

/// A listener that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("{transport:?} {address}")]
pub struct BindError {
    /// Its transport.
    pub transport: Transport,
    /// Its address as configured.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// All sockets. Dropping it stops the listeners, and closes the streams after what was sent on them.
#[derive(Debug)]
pub struct Sockets {
    /// By [`ListenerId`].
    bound: Vec<Bound>,
    streams: Streams,
    tls: TlsInForce,
    inputs: mpsc::Sender<Input>,
    counters: Arc<Counters>,
    patience: Patience,
    readers: JoinSet<()>,
    streams_on: Handle,
}

/// What is kept of a listener: where datagrams are sent from, and where streams are connected from.
#[derive(Debug)]
struct Bound {
    transport: Transport,
    address: SocketAddr,
    datagrams: Option<UdpSocket>,
}

impl Sockets {
    /// Binds all listeners and starts to read: datagrams on the runtime `datagrams`, which is best that of the
    /// task that takes the inputs; streams, whose handshakes take time, on the current one. Returns them with
    /// the addresses that were in fact bound (port 0 in `listeners` asks for any), and what comes in. TLS
    /// listeners and streams also need [`Self::tls`] to be set.
    ///
    /// # Errors
    /// [`BindError`] inside an [`io::Error`] of the same kind; nothing is bound then.
    pub fn bind(
        listeners: &[Listener],
        limits: &Limits,
        datagrams: &Handle,
    ) -> io::Result<(Self, Vec<Listener>, mpsc::Receiver<Input>)> {
        Self::bind_with(listeners, limits, datagrams, PATIENCE)
    }

    fn bind_with(
        listeners: &[Listener],
        limits: &Limits,
        datagrams: &Handle,
        patience: Patience,
    ) -> io::Result<(Self, Vec<Listener>, mpsc::Receiver<Input>)> {
        let (inputs, received) = mpsc::channel(INPUT_QUEUE);
        let mut sockets = Self {
            bound: Vec::with_capacity(listeners.len()),
            streams: Streams::default(),
            tls: TlsInForce::default(),
            inputs,
            counters: Arc::default(),
            patience,
            readers: JoinSet::new(),
            streams_on: Handle::current(),
        };
        let acceptor = Acceptor {
            link: sockets.link(),
            room: Arc::new(Semaphore::new(limits.max_streams.min(Semaphore::MAX_PERMITS))),
            next: Arc::new(AtomicU64::new(2)),
        };
        let mut actual = Vec::with_capacity(listeners.len());
        for (index, listener) in listeners.iter().enumerate() {
            let id = ListenerId(index);
            let address = sockets.listen(id, listener, &acceptor, datagrams).map_err(|source| {
                let Listener { transport, address } = *listener;
                io::Error::new(source.kind(), BindError { transport, address, source })
            })?;
            actual.push(Listener { transport: listener.transport, address });
        }
        Ok((sockets, actual, received))
    }

    fn listen(
        &mut self,
        id: ListenerId,
        listener: &Listener,
        acceptor: &Acceptor,
        datagrams_on: &Handle,
    ) -> io::Result<SocketAddr> {
        let address;
        let mut datagrams = None;
        match listener.transport {
            Transport::Udp => {
                let socket = udp_socket(listener.address)?;
                address = socket.local_addr()?;
                datagrams = Some(socket.try_clone()?);
                let _there = datagrams_on.enter();
                let socket = Arc::new(tokio::net::UdpSocket::from_std(socket)?);
                let (inputs, counters) = (self.inputs.clone(), Arc::clone(&self.counters));
                // What waits is to be seen in the queue, which bounds each turn: one that takes the inputs on the
                // same thread would otherwise keep up with the reader, and the system's buffer overflow unseen.
                let read = move || {
                    unconstrained(datagram::read(
                        id,
                        Arc::clone(&socket),
                        inputs.clone(),
                        Arc::clone(&counters),
                    ))
                };
                self.readers.spawn(supervise::supervise(id, Arc::clone(&self.counters), read));
            }
            Transport::Tcp | Transport::Tls => {
                let socket = Arc::new(tcp_listener(listener.address)?);
                address = socket.local_addr()?;
                let acceptor = acceptor.clone();
                let secure = listener.transport == Transport::Tls;
                let accept = move || acceptor.clone().run(id, secure, Arc::clone(&socket));
                self.readers.spawn(supervise::supervise(id, Arc::clone(&self.counters), accept));
            }
        }
        self.bound.push(Bound { transport: listener.transport, address, datagrams });
        Ok(address)
    }

    fn link(&self) -> Link {
        Link {
            streams: self.streams.clone(),
            tls: self.tls.clone(),
            inputs: self.inputs.clone(),
            counters: Arc::clone(&self.counters),
            patience: self.patience,
        }
    }

    /// What TLS handshakes go by, to be replaced from wherever it is read.
    pub fn tls(&self) -> TlsInForce {
        self.tls.clone()
    }

    /// Asks DNS of these servers, or of the system's where none is given; the answers come among the inputs.
    pub fn resolver(&self, servers: Vec<SocketAddr>) -> Resolver {
        Resolver::new(servers, self.inputs.clone())
    }

    /// Sends a datagram at once, or loses and counts it. `false` if the system knows no way there, which
    /// is to be told in [`Input::Undeliverable`].
    pub fn send_datagram(&mut self, listener: ListenerId, to: SocketAddr, bytes: Bytes) -> bool {
        let socket = self.bound.get(listener.0).and_then(|bound| bound.datagrams.as_ref());
        match socket.map(|socket| socket.send_to(&bytes, to)) {
            Some(Ok(_)) => {
                self.counters.datagrams_out.add();
                true
            }
            Some(Err(error)) => {
                self.counters.datagrams_lost.add();
                !matches!(error.kind(), io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable)
            }
            None => {
                self.counters.datagrams_lost.add();
                false
            }
        }
    }

    /// Sends a message on a stream after what was sent before. If its queue is full, the stream is closed
    /// at once; on one that has ended the message is lost. Both end in [`Input::StreamClosed`].
    pub fn send_stream(&mut self, stream: StreamId, bytes: Bytes) {
        if self.streams.send(stream, bytes) {
            self.counters.stream_messages_out.add();
        } else {
            self.counters.stream_messages_lost.add();
        }
    }

    /// Opens a stream to a peer from a listener's address (any port), by that listener's transport. What is
    /// sent on it meanwhile waits. If it cannot be connected, and by TLS be secured, within 4 s,
    /// [`Input::StreamClosed`] says so.
    pub fn connect(&mut self, stream: StreamId, listener: ListenerId, peer: PeerId, to: SocketAddr) {
        let bound = self.bound.get(listener.0);
        let security = match bound.map(|bound| bound.transport) {
            Some(Transport::Tls) => Security::Tls(self.tls.current().and_then(|tls| tls.dialling(peer))),
            _ => Security::None,
        };
        let _there = self.streams_on.enter();
        self.link().connect(stream, bound.map(|bound| bound.address.ip()), to, security);
    }

    /// Lets an accepted TLS stream shake hands. Ends in [`Input::StreamReady`], or within 5 s in
    /// [`Input::StreamClosed`].
    pub fn secure(&mut self, stream: StreamId) {
        self.streams.admit(stream);
    }

    /// Closes a stream after what was sent on it; one that is not ready, at once.
    pub fn close_stream(&mut self, stream: StreamId) {
        self.streams.close(stream);
    }

    /// What has been counted since the start.
    pub fn counters(&self) -> ShellCounters {
        self.counters.snapshot()
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.streams.close_all();
    }
}

/// Without SO_REUSEADDR: on UDP it would let another program share the port and take our datagrams.
fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // As much as the kernel grants; a smaller buffer is no error.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SEND_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// With SO_REUSEADDR, so that a restart need not wait for old connections to be forgotten.
fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
