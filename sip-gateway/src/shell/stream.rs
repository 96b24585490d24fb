//! Streams: accepted, connected, secured, read, written and closed. One task each; when it ends, for
//! whatever reason, exactly one [`Input::StreamClosed`] says so.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector, server};

use super::counters::Counters;
use super::tls::{Dialling, TlsInForce, reason};
use super::{Patience, certificate};
use crate::{Input, ListenerId, StreamId};

/// Messages waiting for a peer that reads slowly; beyond: the stream is closed.
const WRITE_QUEUE: usize = 64;

/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;

/// After an error of accepting (no file descriptor is left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Silence after which the kernel probes whether the peer is still there, how often, and how many probes
/// may go unanswered: a host that is gone is noticed within two minutes.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 5;

/// The near end of a stream. Dropping it closes the stream after what was sent on it.
#[derive(Debug)]
struct Writer {
    queue: mpsc::Sender<Bytes>,
    abort: Arc<Notify>,
    admitted: watch::Sender<bool>,
}

impl Writer {
    fn new() -> (Self, Queue) {
        let (queue, waiting) = mpsc::channel(WRITE_QUEUE);
        let abort = Arc::new(Notify::new());
        let (admitted, admission) = watch::channel(false);
        (Self { queue, abort: Arc::clone(&abort), admitted }, Queue { waiting, abort, admission })
    }

    /// Whether there was room; if not, the stream is closed at once.
    fn send(&self, bytes: Bytes) -> bool {
        match self.queue.try_send(bytes) {
            Ok(()) => true,
            Err(_) => {
                self.abort.notify_one();
                false
            }
        }
    }
}

/// The far end of a [`Writer`].
struct Queue {
    waiting: mpsc::Receiver<Bytes>,
    abort: Arc<Notify>,
    /// Whether the core lets the stream in.
    admission: watch::Receiver<bool>,
}

impl Queue {
    /// What comes of `begin`, unless the stream is closed first.
    async fn unless_closed<T>(&mut self, begin: impl Future<Output = T>) -> Option<T> {
        let closed = async { while self.admission.changed().await.is_ok() {} };
        tokio::select! {
            begun = begin => Some(begun),
            () = closed => None,
        }
    }

    /// Waits until the core lets the stream in. `false` if it closes it.
    async fn admitted(&mut self) -> bool {
        self.admission.wait_for(|admitted| *admitted).await.is_ok()
    }
}

/// How a stream that we open is secured.
pub(super) enum Security {
    None,
    /// By TLS; without anything known of the peer it cannot be.
    Tls(Option<Arc<Dialling>>),
}

/// The near ends of all open streams. Shared, because a stream begins and ends in tasks of its own; locked
/// only for one step in the map, never while anything waits.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams(Arc<Mutex<HashMap<StreamId, Writer>>>);

impl Streams {
    /// Whether the stream is open and had room. One that had none is closed at once.
    pub(super) fn send(&self, stream: StreamId, bytes: Bytes) -> bool {
        self.lock().get(&stream).is_some_and(|writer| writer.send(bytes))
    }

    /// Lets a stream shake hands.
    pub(super) fn admit(&self, stream: StreamId) {
        if let Some(writer) = self.lock().get(&stream) {
            writer.admitted.send_replace(true);
        }
    }

    /// Closes a stream after what was sent on it.
    pub(super) fn close(&self, stream: StreamId) {
        self.lock().remove(&stream);
    }

    pub(super) fn close_all(&self) {
        self.lock().clear();
    }

    fn open(&self, stream: StreamId) -> Queue {
        let (writer, queue) = Writer::new();
        self.lock().insert(stream, writer);
        queue
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamId, Writer>> {
        // Every step in the map is whole, so a panic elsewhere leaves it usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What every stream's task needs.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) streams: Streams,
    pub(super) tls: TlsInForce,
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) counters: Arc<Counters>,
    pub(super) patience: Patience,
}

/// Accepts streams, at most as many at once as `room` has permits.
#[derive(Clone, Debug)]
pub(super) struct Acceptor {
    pub(super) link: Link,
    pub(super) room: Arc<Semaphore>,
    /// The next name: even, as [`StreamId`] says.
    pub(super) next: Arc<AtomicU64>,
}

impl Acceptor {
    /// Accepts until nobody takes the inputs any more.
    pub(super) async fn run(self, listener: ListenerId, secure: bool, socket: Arc<TcpListener>) {
        loop {
            match socket.accept().await {
                Ok((stream, from)) => {
                    if self.take(listener, secure, stream, from).await.is_none() {
                        return;
                    }
                }
                Err(error) => {
                    self.link.counters.listener_errors.add();
                    tracing::warn!(listener = listener.0, %error, "accepting failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn take(&self, listener: ListenerId, secure: bool, tcp: TcpStream, from: SocketAddr) -> Option<()> {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            self.link.counters.streams_refused.add();
            return Some(());
        };
        self.link.counters.streams_accepted.add();
        let stream = StreamId(self.next.fetch_add(2, Ordering::Relaxed));
        let queue = self.link.streams.open(stream);
        self.link.inputs.send(Input::StreamOpened { stream, listener, from }).await.ok()?;
        self.link.clone().spawn(stream, Some(room), move |link| async move {
            tune(&tcp);
            if secure {
                link.secure(stream, listener, tcp, queue).await;
            } else {
                link.carry(stream, tcp, queue).await;
            }
        });
        Some(())
    }
}

impl Link {
    /// Starts to connect; what is sent meanwhile waits.
    pub(super) fn connect(self, stream: StreamId, from: Option<IpAddr>, to: SocketAddr, security: Security) {
        self.counters.streams_connected.add();
        let mut queue = self.streams.open(stream);
        self.spawn(stream, None, move |link| async move {
            let begin = timeout(link.patience.connect, dial_securely(from, to, security));
            match queue.unless_closed(begin).await {
                Some(Ok(Ok(Dialled::Plain(tcp)))) => link.begin(stream, Vec::new(), tcp, queue).await,
                Some(Ok(Ok(Dialled::Secure(tls)))) => link.begin(stream, Vec::new(), *tls, queue).await,
                Some(Ok(Err(_)) | Err(_)) | None => link.counters.connects_failed.add(),
            }
        });
    }

    /// Shakes hands on an accepted stream, once the core lets it in.
    async fn secure(&self, stream: StreamId, listener: ListenerId, tcp: TcpStream, mut queue: Queue) {
        if !queue.admitted().await {
            return;
        }
        let shake = timeout(self.patience.handshake, shake_hands(&self.tls, tcp));
        let failure = match queue.unless_closed(shake).await {
            None => return,
            Some(Ok(Ok(tls))) => {
                let shown = tls.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                let certified = shown.map_or_else(Vec::new, |certificate| certificate::names(certificate));
                return self.begin(stream, certified, tls, queue).await;
            }
            Some(Ok(Err(error))) => reason(&error),
            Some(Err(_)) => "it took too long",
        };
        self.counters.handshakes_failed.add();
        tracing::warn!(listener = listener.0, failure, "no TLS with one who came");
    }

    /// Tells the core that a stream is ready, and carries it.
    async fn begin<S>(&self, stream: StreamId, certified: Vec<String>, carrier: S, queue: Queue)
    where
        S: AsyncRead + AsyncWrite + Send,
    {
        // Fails only when the core's task has ended.
        let _ = self.inputs.send(Input::StreamReady { stream, certified }).await;
        self.carry(stream, carrier, queue).await;
    }

    /// Runs a stream, and says when it has ended, even by a panic.
    fn spawn<F>(self, stream: StreamId, room: Option<OwnedSemaphorePermit>, run: impl FnOnce(Self) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (inputs, streams) = (self.inputs.clone(), self.streams.clone());
        let mut task = JoinSet::new();
        task.spawn(run(self));
        tokio::spawn(async move {
            task.join_next().await;
            drop(room);
            streams.close(stream);
            // Fails only when the core's task has ended.
            let _ = inputs.send(Input::StreamClosed { stream }).await;
        });
    }

    /// Carries bytes both ways until one side closes, an error, or silence.
    async fn carry(&self, stream: StreamId, carrier: impl AsyncRead + AsyncWrite + Send, queue: Queue) {
        let (reader, writer) = tokio::io::split(carrier);
        let Queue { waiting, abort, admission: _ } = queue;
        let activity = Activity::new();
        tokio::select! {
            () = self.read(stream, reader, &activity) => {}
            () = self.write(writer, waiting, &activity) => {}
            () = abort.notified() => self.counters.streams_overflowed.add(),
            () = activity.silence(self.patience.idle) => self.counters.streams_idle.add(),
        }
    }

    async fn read(&self, stream: StreamId, mut reader: impl AsyncRead + Unpin, activity: &Activity) {
        let mut buffer = vec![0; READ_BYTES];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            activity.now();
            let bytes = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
            if self.inputs.send(Input::StreamBytes { stream, bytes }).await.is_err() {
                return;
            }
        }
    }

    async fn write(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        mut waiting: mpsc::Receiver<Bytes>,
        activity: &Activity,
    ) {
        while let Some(bytes) = waiting.recv().await {
            // TLS keeps what it has sealed until it is told that no more follows.
            let write = async {
                writer.write_all(&bytes).await?;
                writer.flush().await
            };
            match timeout(self.patience.write, write).await {
                Ok(Ok(())) => activity.now(),
                Ok(Err(_)) => return,
                Err(_) => return self.counters.streams_overflowed.add(),
            }
        }
        // The stream is closed either way.
        let _ = timeout(self.patience.write, writer.shutdown()).await;
    }
}

/// A stream that we have opened.
enum Dialled {
    Plain(TcpStream),
    Secure(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn dial_securely(from: Option<IpAddr>, to: SocketAddr, security: Security) -> io::Result<Dialled> {
    let dialling = match security {
        Security::None => return dial(from, to).await.map(Dialled::Plain),
        Security::Tls(dialling) => dialling.ok_or(io::ErrorKind::NotConnected)?,
    };
    let tcp = dial(from, to).await?;
    let connector = TlsConnector::from(Arc::clone(&dialling.client));
    let secured = connector.connect(dialling.server_name.clone(), tcp).await;
    if let Err(error) = &secured {
        let failure = reason(error);
        tracing::warn!(peer = %dialling.peer, failure, "no TLS with a peer");
    }
    secured.map(|tls| Dialled::Secure(Box::new(tls)))
}

async fn shake_hands(tls: &TlsInForce, tcp: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
    let tls = tls.current().ok_or(io::ErrorKind::NotConnected)?;
    TlsAcceptor::from(Arc::clone(&tls.server)).accept(tcp).await
}

/// Only tunes the connection: a failure is no reason to go without it.
fn tune(tcp: &TcpStream) {
    let _ = tcp.set_nodelay(true);
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(PROBES);
    let _ = SockRef::from(tcp).set_tcp_keepalive(&probes);
}

async fn dial(from: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from.filter(|from| !from.is_unspecified()) {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let tcp = socket.connect(to).await?;
    tune(&tcp);
    Ok(tcp)
}

/// When bytes last went either way, in ms since the stream began.
struct Activity {
    began: Instant,
    last_ms: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { began: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    fn now(&self) {
        let elapsed_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed_ms, Ordering::Relaxed);
    }

    /// Ends when nothing went either way for so long.
    async fn silence(&self, limit: Duration) {
        loop {
            let until = self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed)) + limit;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    }
}
