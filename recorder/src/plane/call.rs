//! One call on a media thread: its session, its sockets, its timers, its ring to the tap.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use consent::{CallId, EpochCounter, Mono};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio::task::coop::consume_budget;

use super::media_thread::{DATAGRAM_BYTES, Shared};
use super::ring::{RingReader, RingWriter, ring};
use super::socket::CallSockets;
use crate::session::{Outlet, Path, Session};
use crate::{CaptureCommand, Command, Event, Frame};

/// A socket that fails to receive is tried again after this long.
const RECEIVE_RETRY: Duration = Duration::from_millis(10);

/// A call's media. Its tasks and its thread share it; none holds a borrow across an await.
pub(super) struct CallMedia {
    pub(super) call: CallId,
    epoch: EpochCounter,
    session: RefCell<Session>,
    sockets: CallSockets,
    ring: RefCell<Option<RingWriter>>,
    due: Cell<Option<Mono>>,
    rearm: Notify,
    shared: Rc<Shared>,
    end: Cell<Option<oneshot::Sender<()>>>,
    failed: Cell<bool>,
    capturing: Cell<Capturing>,
}

/// What the writer knows of a call. Most calls are never recorded, and it is not woken for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Capturing {
    /// Nothing yet, and whether it is answered.
    No {
        answered: bool,
    },
    Yes,
}

/// The system does not lock the ring's memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotLocked;

/// Where the session's outputs go.
struct Wire<'a>(&'a CallMedia);

/// How a call's tasks came to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    Asked,
    Panicked,
}

impl CallMedia {
    /// Starts relaying on `sockets`.
    pub(super) fn start(
        call: CallId,
        epoch: EpochCounter,
        session: Session,
        sockets: CallSockets,
        shared: Rc<Shared>,
    ) -> Rc<Self> {
        let (end, ended) = oneshot::channel();
        let media = Rc::new(Self {
            call,
            epoch,
            session: RefCell::new(session),
            sockets,
            ring: RefCell::new(None),
            due: Cell::new(None),
            rearm: Notify::new(),
            shared,
            end: Cell::new(Some(end)),
            failed: Cell::new(false),
            capturing: Cell::new(Capturing::No { answered: false }),
        });
        tokio::task::spawn_local(media.clone().run(ended));
        media
    }

    /// Takes in an instruction for the session.
    pub(super) fn on_command(&self, command: &Command) {
        let now = self.shared.now();
        let applied = catch_unwind(AssertUnwindSafe(|| {
            self.session.borrow_mut().on_command(now, command, &mut Wire(self));
        }));
        if applied.is_err() {
            self.on_panic();
        }
        self.rearm_timer();
    }

    /// Frames are wanted from now on; the other end of a new ring, unless there is one that is read. With
    /// `only_locked` a ring in memory that may be swapped out is refused.
    pub(super) fn open_ring(&self, only_locked: bool) -> Result<Option<RingReader>, NotLocked> {
        let mut current = self.ring.borrow_mut();
        if let Some(ring) = current.as_mut().filter(|ring| ring.is_read()) {
            if only_locked && !ring.is_locked() {
                return Err(NotLocked);
            }
            ring.open();
            return Ok(None);
        }
        let (writer, reader) = ring();
        if only_locked && !writer.is_locked() {
            return Err(NotLocked);
        }
        *current = Some(writer);
        Ok(Some(reader))
    }

    /// How many frames have gone into the ring so far.
    pub(super) fn frames_pushed(&self) -> u64 {
        self.ring.borrow().as_ref().map_or(0, RingWriter::pushed)
    }

    /// What the writer is to be told: `command`, and what went before it; nothing as long as there is nothing
    /// to capture.
    pub(super) fn for_capture(&self, command: CaptureCommand) -> impl Iterator<Item = CaptureCommand> {
        let (before, command) = match (self.capturing.get(), command) {
            (Capturing::Yes, command) => (None, Some(command)),
            (Capturing::No { .. }, CaptureCommand::Answered) => {
                self.capturing.set(Capturing::No { answered: true });
                (None, None)
            }
            (Capturing::No { .. }, CaptureCommand::End) => (None, None),
            (Capturing::No { answered }, command) => {
                self.capturing.set(Capturing::Yes);
                (answered.then_some(CaptureCommand::Answered), Some(command))
            }
        };
        before.into_iter().chain(command)
    }

    /// Whether a defect has stopped it.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Stops relaying; the ports rest and then serve other calls.
    pub(super) fn stop(&self) {
        if let Some(end) = self.end.take() {
            // The tasks may have stopped already.
            end.send(()).ok();
        }
    }

    async fn run(self: Rc<Self>, ended: oneshot::Receiver<()>) {
        let receive = |path| -> LocalTask { Box::pin(self.clone().receive(path)) };
        let timers: LocalTask = Box::pin(self.clone().run_timers());
        let tasks = self.sockets.paths().map(receive).chain([timers]).collect();
        if supervise(tasks, ended).await == Stopped::Panicked {
            self.on_panic();
        }
        self.sockets.release(&self.shared.ports, self.shared.now().mono);
    }

    /// This call's media is over, and nothing of it is certain any more: the epoch rises, so that no
    /// permit covers what follows. Other calls are untouched.
    fn on_panic(&self) {
        tracing::error!(call = %self.call, "a defect stopped the media of a call");
        self.shared.counters.failed_calls.fetch_add(1, Ordering::Relaxed);
        self.failed.set(true);
        *self.ring.borrow_mut() = None;
        self.stop();
        self.epoch.raise();
        self.shared.report(Event::MediaFailed { call: self.call });
    }

    async fn receive(self: Rc<Self>, path: Path) {
        let Some(socket) = self.sockets.socket(path) else { return };
        loop {
            // A socket that is always readable never waits: its flood would keep the thread from other calls.
            consume_budget().await;
            let received = match socket.readable().await {
                Ok(()) => self.take_packet(path, socket),
                Err(error) => Err(error),
            };
            if let Err(error) = received {
                tracing::debug!(call = %self.call, %error, "a media socket failed to receive");
                tokio::time::sleep(RECEIVE_RETRY).await;
            }
        }
    }

    fn take_packet(&self, path: Path, socket: &UdpSocket) -> io::Result<()> {
        let mut buffer = self.shared.datagram.borrow_mut();
        match socket.try_recv_from(buffer.as_mut()) {
            // A full buffer may have cut the datagram short.
            Ok((length, source)) if length < DATAGRAM_BYTES => {
                self.on_packet(path, source, &mut buffer[..length]);
            }
            Ok(_) => {
                self.shared.counters.oversized_packets.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn on_packet(&self, path: Path, source: SocketAddr, packet: &mut [u8]) {
        let now = self.shared.now();
        self.session.borrow_mut().on_packet(now, path, source, packet, &mut Wire(self));
        self.rearm_timer();
    }

    async fn run_timers(self: Rc<Self>) {
        loop {
            let due = self.session.borrow().poll_timeout();
            self.due.set(due);
            match due {
                None => self.rearm.notified().await,
                Some(due) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(self.shared.instant(due)) => {
                            let now = self.shared.now();
                            self.session.borrow_mut().on_timeout(now, &mut Wire(&self));
                        }
                        () = self.rearm.notified() => {}
                    }
                }
            }
        }
    }

    /// Wakes the timer task if something is due before what it waits for.
    fn rearm_timer(&self) {
        let next = self.session.try_borrow().ok().and_then(|session| session.poll_timeout());
        if let Some(next) = next
            && self.due.get().is_none_or(|due| next < due)
        {
            self.due.set(Some(next));
            self.rearm.notify_one();
        }
    }
}

impl Outlet for Wire<'_> {
    fn send(&mut self, path: Path, to: SocketAddr, datagram: &[u8]) {
        let sent = self.0.sockets.socket(path).map(|socket| socket.try_send_to(datagram, to));
        if !matches!(sent, Some(Ok(_))) {
            self.0.shared.counters.unsent_packets.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn wants_frames(&self) -> bool {
        self.0.ring.borrow().as_ref().is_some_and(RingWriter::is_wanted)
    }

    fn tap(&mut self, frame: Frame) {
        if let Some(ring) = self.0.ring.borrow_mut().as_mut()
            && !ring.push(frame)
        {
            self.0.shared.counters.overrun_frames.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn report(&mut self, event: Event) {
        self.0.shared.report(event);
    }
}

type LocalTask = Pin<Box<dyn Future<Output = ()>>>;

/// Runs tasks until told to end or one of them panics; then none of them runs any more.
async fn supervise(tasks: VecDeque<LocalTask>, ended: oneshot::Receiver<()>) -> Stopped {
    let mut running = JoinSet::new();
    for task in tasks {
        running.spawn_local(task);
    }
    let panicked = async {
        while let Some(finished) = running.join_next().await {
            if finished.is_err_and(|error| error.is_panic()) {
                return;
            }
        }
        std::future::pending().await
    };
    let stopped = tokio::select! {
        _ = ended => Stopped::Asked,
        () = panicked => Stopped::Panicked,
    };
    running.shutdown().await;
    stopped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn local<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, future)
    }

    #[test]
    fn a_panic_in_one_task_ends_its_calls_tasks_and_nothing_else() {
        let stopped = local(async {
            let (_end, ended) = oneshot::channel();
            let idle: LocalTask = Box::pin(std::future::pending());
            let failing: LocalTask = Box::pin(async { panic!("a defect") });
            supervise([idle, failing].into(), ended).await
        });
        assert_eq!(stopped, Stopped::Panicked);
    }

    #[test]
    fn tasks_end_when_the_call_does() {
        let stopped = local(async {
            let (end, ended) = oneshot::channel();
            let ending: LocalTask = Box::pin(async { end.send(()).unwrap() });
            let idle: LocalTask = Box::pin(std::future::pending());
            supervise([ending, idle].into(), ended).await
        });
        assert_eq!(stopped, Stopped::Asked);
    }
}
