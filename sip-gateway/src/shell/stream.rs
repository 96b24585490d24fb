//! Streams: accepted, connected, read, written and closed. One task each; when it ends, for whatever
//! reason, exactly one [`Input::StreamClosed`] says so.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Patience;
use super::counters::Counters;
use crate::{Input, ListenerId, StreamId};

/// Messages waiting for a peer that reads slowly; beyond: the stream is closed.
const WRITE_QUEUE: usize = 64;

/// Bytes read at once.
const READ_BYTES: usize = 16 << 10;

/// After an error of accepting (no file descriptor is left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Silence after which the kernel probes whether the peer is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// The near end of a stream. Dropping it closes the stream after what was sent on it.
#[derive(Debug)]
struct Writer {
    queue: mpsc::Sender<Bytes>,
    abort: Arc<Notify>,
}

impl Writer {
    fn new() -> (Self, Queue) {
        let (queue, waiting) = mpsc::channel(WRITE_QUEUE);
        let abort = Arc::new(Notify::new());
        (Self { queue, abort: Arc::clone(&abort) }, Queue { waiting, abort })
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
    pub(super) async fn run(self, listener: ListenerId, socket: Arc<TcpListener>) {
        loop {
            match socket.accept().await {
                Ok((stream, from)) => {
                    if self.admit(listener, stream, from).await.is_none() {
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

    async fn admit(&self, listener: ListenerId, tcp: TcpStream, from: SocketAddr) -> Option<()> {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            self.link.counters.streams_refused.add();
            return Some(());
        };
        self.link.counters.streams_accepted.add();
        let stream = StreamId(self.next.fetch_add(2, Ordering::Relaxed));
        let queue = self.link.streams.open(stream);
        self.link.inputs.send(Input::StreamOpened { stream, listener, from }).await.ok()?;
        self.link
            .clone()
            .spawn(stream, Some(room), move |link| async move { link.carry(stream, tcp, queue).await });
        Some(())
    }
}

impl Link {
    /// Starts to connect; what is sent meanwhile waits.
    pub(super) fn connect(self, stream: StreamId, from: Option<IpAddr>, to: SocketAddr) {
        self.counters.streams_connected.add();
        let queue = self.streams.open(stream);
        self.spawn(stream, None, move |link| async move {
            match timeout(link.patience.connect, dial(from, to)).await {
                Ok(Ok(tcp)) => link.carry(stream, tcp, queue).await,
                Ok(Err(_)) | Err(_) => link.counters.connects_failed.add(),
            }
        });
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
    async fn carry(&self, stream: StreamId, tcp: TcpStream, queue: Queue) {
        // Both only tune the connection.
        let _ = tcp.set_nodelay(true);
        let _ = SockRef::from(&tcp).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER));
        let (reader, writer) = tcp.into_split();
        let Queue { waiting, abort } = queue;
        let activity = Activity::new();
        tokio::select! {
            () = self.read(stream, reader, &activity) => {}
            () = self.write(writer, waiting, &activity) => {}
            () = abort.notified() => self.counters.streams_overflowed.add(),
            () = activity.silence(self.patience.idle) => self.counters.streams_idle.add(),
        }
    }

    async fn read(&self, stream: StreamId, mut reader: OwnedReadHalf, activity: &Activity) {
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
        mut writer: OwnedWriteHalf,
        mut waiting: mpsc::Receiver<Bytes>,
        activity: &Activity,
    ) {
        while let Some(bytes) = waiting.recv().await {
            match timeout(self.patience.write, writer.write_all(&bytes)).await {
                Ok(Ok(())) => activity.now(),
                Ok(Err(_)) => return,
                Err(_) => return self.counters.streams_overflowed.add(),
            }
        }
        // The stream is closed either way.
        let _ = writer.shutdown().await;
    }
}

async fn dial(from: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(from) = from.filter(|from| !from.is_unspecified()) {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    socket.connect(to).await
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
