//! One media thread: a single-threaded runtime that owns the calls given to it, their sockets and timers.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use consent::{CallId, EpochCounter, Mono, Now};
use tokio::sync::mpsc::Receiver;

use super::call::{CallMedia, NotLocked};
use super::clock::Clock;
use super::ports::PortPool;
use super::report::{Counters, Reporter};
use super::socket::{BindError, CallSockets};
use super::writer::{ToWriter, Unavailable, WriterLink};
use crate::prompt::PromptSet;
use crate::session::{MAX_STREAMS, Session};
use crate::{CaptureCommand, Command, Event};

/// How often what waits for room in a channel is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Longer datagrams than any MTU here lets through are refused whole.
pub(super) const DATAGRAM_BYTES: usize = 2_048;

/// What all threads have alike.
pub(super) struct PlaneFacts {
    pub(super) clock: Clock,
    pub(super) bind: IpAddr,
    pub(super) advertised: IpAddr,
    pub(super) prompts: Arc<PromptSet>,
}

/// What the calls of a thread share.
pub(super) struct Shared {
    pub(super) facts: PlaneFacts,
    pub(super) ports: Arc<Mutex<PortPool>>,
    pub(super) counters: Arc<Counters>,
    pub(super) reporter: RefCell<Reporter>,
    pub(super) writer: RefCell<WriterLink>,
    pub(super) writer_gone: Cell<bool>,
    /// Where a datagram is while it is dealt with.
    pub(super) datagram: RefCell<[u8; DATAGRAM_BYTES]>,
}

/// A thread's calls.
pub(super) struct MediaThread {
    shared: Rc<Shared>,
    calls: HashMap<CallId, Rc<CallMedia>>,
}

impl Shared {
    pub(super) fn now(&self) -> Now {
        self.facts.clock.now()
    }

    pub(super) fn instant(&self, at: Mono) -> tokio::time::Instant {
        self.facts.clock.instant(at).into()
    }

    pub(super) fn report(&self, event: Event) {
        self.reporter.borrow_mut().report(event);
    }

    /// Waits until writer and hub have everything: after the runtime's end, so that recordings are sealed and
    /// statistics arrive.
    pub(super) fn close(&self) {
        self.writer.borrow_mut().drain();
        self.reporter.borrow_mut().drain();
    }

    fn is_behind(&self) -> bool {
        self.reporter.borrow().is_behind() || self.writer.borrow().is_behind()
    }

    fn flush(&self) {
        self.reporter.borrow_mut().flush();
        let flushed = self.writer.borrow_mut().flush();
        self.note_writer(flushed);
    }

    fn tell_writer(&self, message: ToWriter) {
        let sent = self.writer.borrow_mut().send(message);
        self.note_writer(sent);
    }

    fn note_writer(&self, sent: Result<(), Unavailable>) {
        if sent.is_err() && !self.writer_gone.replace(true) {
            tracing::error!("a writing thread is gone; its calls go on without recording");
        }
    }
}

impl MediaThread {
    pub(super) fn new(shared: Rc<Shared>) -> Self {
        Self { shared, calls: HashMap::new() }
    }

    /// Runs until nobody can send commands any more, then ends every call. Must be called within a
    /// [`LocalSet`](tokio::task::LocalSet).
    pub(super) async fn run(mut self, mut commands: Receiver<Command>) {
        let mut retry = tokio::time::interval(RETRY_INTERVAL);
        retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                _ = retry.tick(), if self.shared.is_behind() => self.shared.flush(),
            }
        }
        let open: Vec<CallId> = self.calls.keys().copied().collect();
        for call in open {
            self.on_command(Command::End { call });
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Bind { call, epoch, streams, emergency, withdraw } => {
                self.bind(call, epoch, streams, emergency, &withdraw);
            }
            Command::Describe { call, .. }
            | Command::Play { call, .. }
            | Command::StopPlaying { call, .. }
            | Command::SwallowDigits { call, .. } => self.tell_session(call, &command),
            Command::Answered { call } => {
                self.tell_session(call, &command);
                self.tell_capture(command);
            }
            Command::StartPreamble { call, .. } => {
                self.open(call, command, Event::PreambleUnavailable { call });
            }
            Command::OpenTap { ref permit, .. } => {
                let (call, permit) = (permit.call(), permit.id());
                self.open(call, command, Event::RecordingFailed { call, permit, recording: None });
            }
            Command::End { call } => {
                self.tell_session(call, &command);
                self.tell_capture(command);
                self.end(call);
            }
            Command::WipePreamble { .. }
            | Command::Revoke { .. }
            | Command::Suspend { .. }
            | Command::CloseTap { .. } => self.tell_capture(command),
        }
    }

    fn bind(&mut self, call: CallId, epoch: EpochCounter, streams: u8, emergency: bool, withdraw: &str) {
        let shared = &self.shared;
        if self.calls.contains_key(&call) {
            tracing::warn!(%call, "media ports are bound already");
            return;
        }
        let (streams, now) = (streams.min(MAX_STREAMS), shared.now().mono);
        match CallSockets::bind(&shared.ports, shared.facts.bind, streams, now, emergency) {
            Ok(sockets) => {
                let addresses = sockets.addresses(shared.facts.advertised);
                // Keyed by the system's randomness: what an attacker knows of a call foretells no SSRC.
                let seed = RandomState::new().hash_one(call);
                let prompts = shared.facts.prompts.clone();
                let session = Session::new(call, epoch.clone(), streams, emergency, withdraw, prompts, seed);
                self.calls.insert(call, CallMedia::start(call, epoch, session, sockets, shared.clone()));
                shared.counters.calls.fetch_add(1, Ordering::Relaxed);
                shared.report(Event::Bound { call, addresses });
            }
            Err(error) => {
                report_bind_error(call, &error);
                shared.report(Event::BindFailed { call });
            }
        }
    }

    fn tell_session(&self, call: CallId, command: &Command) {
        if let Some(media) = self.calls.get(&call) {
            media.on_command(command);
        }
    }

    /// Passes a command on to the capture, behind the frames that came before it. A call that has no media
    /// has no capture.
    fn tell_capture(&self, command: Command) {
        let Ok((call, command)) = CaptureCommand::from_command(command) else { return };
        let Some(media) = self.calls.get(&call) else { return };
        let after = media.frames_pushed();
        for command in media.for_capture(command) {
            self.shared.tell_writer(ToWriter::Command { call, after, command });
        }
    }

    /// Begins to hand the call's frames to the writer and passes the command on; or says that it cannot be.
    fn open(&self, call: CallId, command: Command, refusal: Event) {
        let possible = self.shared.writer.borrow().may_open() && !self.shared.writer_gone.get();
        let Some(media) = self.calls.get(&call).filter(|media| possible && !media.has_failed()) else {
            return self.shared.report(refusal);
        };
        match media.open_ring(matches!(command, Command::StartPreamble { .. })) {
            Ok(None) => {}
            Ok(Some(ring)) => self.shared.tell_writer(ToWriter::Ring(call, ring)),
            Err(NotLocked) => return self.shared.report(refusal),
        }
        self.tell_capture(command);
    }

    fn end(&mut self, call: CallId) {
        if let Some(media) = self.calls.remove(&call) {
            media.stop();
            self.shared.counters.calls.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn report_bind_error(call: CallId, error: &BindError) {
    let error = error as &dyn std::error::Error;
    tracing::error!(%call, error, "a call has no media ports");
}
