//! The task that owns the SIP core and the hub, and performs what they want done.
//!
//! Nothing in it waits for a disk, a database or the media plane: those are reached through bounded
//! queues, and answer through others.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use consent::{CallId, Direction, E164, Permit, RecordingId};
use recorder::{NewRecording, Plane, RecordingKey, Sealed};
use sip_gateway::{Core, Input, Resolver, Sockets};
use storage::{Entry, Journal, MasterKey, Receipt, Stamped};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot, watch};

use super::clock::Clock;
use super::figures::SignallingHealth;
use super::found::Found;
use super::ops::Ops;
use super::shelf::{self, Item, Stored};
use crate::hub::{Hub, Output};

/// How many inputs are taken before timers and the other queues get their turn.
const INPUTS_AT_ONCE: usize = 64;
/// Calls whose journal entry is written and that are not told yet; beyond it their tasks wait.
const JOURNALLED: usize = 4096;

/// How often it tells how it is.
const HEALTH_EVERY: Duration = Duration::from_secs(1);
/// How long the start waits for DNS to say where the peers are: a first call should find them, but DNS may be
/// away for days.
const FINDING: Duration = Duration::from_secs(1);

/// How long registrars have to answer that the gateway is gone: a challenge and its answer on a slow way.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long the calls that are left have to end after the drain time.
const LAST_CALLS: Duration = Duration::from_secs(3);

/// A thread and a runtime of its own, so that datagrams are read where they are dealt with: from one thread to
/// another, waking up takes longer than all that a message needs.
pub(super) struct OwnThread {
    runtime: Handle,
    work: oneshot::Sender<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl OwnThread {
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (work, given) = oneshot::channel::<Pin<Box<dyn Future<Output = ()> + Send>>>();
        std::thread::Builder::new().name("signalling".to_owned()).spawn(move || {
            runtime.block_on(async {
                // Dropped without work where the start fails.
                if let Ok(work) = given.await {
                    work.await;
                }
            });
        })?;
        Ok(Self { runtime: handle, work })
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Runs `work` there to its end; `None` if it panics.
    pub(super) async fn run<T: Send + 'static>(
        self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (done, result) = oneshot::channel();
        let work = Box::pin(async move {
            // Received below, unless the whole service is being dropped.
            let _ = done.send(work.await);
        });
        self.work.send(work).ok()?;
        result.await.ok()
    }
}

pub(super) struct Signalling {
    pub(super) clock: Clock,
    pub(super) core: Core,
    pub(super) hub: Hub,
    pub(super) sockets: Sockets,
    pub(super) resolver: Resolver,
    pub(super) found: Found,
    pub(super) plane: Plane,
    pub(super) journal: Arc<Journal>,
    pub(super) master: MasterKey,
    pub(super) shelf: mpsc::Sender<Item>,
    /// Where recordings are made, and removed from once they are stored.
    pub(super) spools: Vec<PathBuf>,
    pub(super) ops: Arc<Ops>,
    pub(super) health: watch::Sender<SignallingHealth>,
    /// Runs what takes time.
    pub(super) background: Handle,
    pub(super) under_way: UnderWay,
}

/// What the task itself keeps count of.
pub(super) struct UnderWay {
    /// For the metrics: the direction of each open call.
    directions: HashMap<CallId, Direction>,
    /// Recordings on their way to the store.
    storing: usize,
    /// On their way to the journal, with the calls that wait for them.
    entries: Vec<(Stamped, Option<CallId>)>,
    journalled: mpsc::Sender<CallId>,
    journalled_in: mpsc::Receiver<CallId>,
}

/// Where the other tasks' answers come from.
pub(super) struct Inputs {
    pub(super) network: mpsc::Receiver<Input>,
    pub(super) media: mpsc::Receiver<recorder::Event>,
    pub(super) stored: mpsc::Receiver<Stored>,
}

impl Default for UnderWay {
    fn default() -> Self {
        let (journalled, journalled_in) = mpsc::channel(JOURNALLED);
        Self { directions: HashMap::new(), storing: 0, entries: Vec::new(), journalled, journalled_in }
    }
}

impl Signalling {
    /// Calls `ready` once calls can be taken. Runs until `stop` resolves; then takes no new calls, lets those
    /// in progress go on for `drain`, and ends what is left; emergency calls go on until their ends hang up.
    pub(super) async fn run(
        mut self,
        mut inputs: Inputs,
        ready: impl FnOnce(),
        stop: impl Future<Output = ()>,
        drain: Duration,
    ) -> Self {
        tokio::pin!(stop);
        let mut ready = Some((ready, tokio::time::Instant::now() + FINDING));
        let mut draining: Option<tokio::time::Instant> = None;
        let mut leaving: Option<tokio::time::Instant> = None;
        let mut ended_all = false;
        let mut told = tokio::time::interval(HEALTH_EVERY);
        loop {
            self.perform();
            self.write();
            let is_time = |until: tokio::time::Instant| tokio::time::Instant::now() >= until;
            if let Some((ready, _)) =
                ready.take_if(|(_, until)| self.core.has_found_peers() || is_time(*until))
            {
                ready();
            }
            let farewell = leaving.filter(|until| self.core.is_unregistering() && !is_time(*until));
            if let Some(until) = draining {
                let no_calls = self.hub.calls() == 0;
                let ended = ended_all && !self.hub.has_emergency_call();
                if leaving.is_none() && (no_calls || ended) {
                    leaving = Some(self.leave());
                    continue;
                }
                if no_calls && self.under_way.storing == 0 && farewell.is_none() {
                    return self.concluded();
                }
                if is_time(until) {
                    if ended {
                        return self.concluded();
                    }
                    ended_all = true;
                    draining = Some(until + LAST_CALLS);
                    self.hub.end_all("The gateway is shutting down");
                    continue;
                }
            }
            let wake = self.wake();
            tokio::select! {
                biased;
                () = &mut stop, if draining.is_none() => {
                    let now = self.clock.now();
                    self.core.on_command(now, sip_gateway::Command::Drain);
                    draining = Some(tokio::time::Instant::now() + drain);
                    self.tell(true);
                }
                _ = told.tick() => self.tell(draining.is_some()),
                Some(input) = inputs.network.recv() => {
                    self.core.set_overloaded(inputs.network.len() > inputs.network.max_capacity() / 2);
                    self.on_input(input);
                    for _ in 1..INPUTS_AT_ONCE {
                        let Ok(input) = inputs.network.try_recv() else { break };
                        self.on_input(input);
                    }
                    // The readers' turn on this thread, so that what waits is seen in the queue.
                    if !inputs.network.is_empty() {
                        tokio::task::yield_now().await;
                    }
                }
                Some(event) = inputs.media.recv() => self.on_media(event),
                Some(call) = self.under_way.journalled_in.recv() => self.hub.on_journalled(self.clock.now(), call),
                Some(stored) = inputs.stored.recv() => self.on_stored(stored),
                () = sleep_until(wake) => {}
                () = sleep_until(draining) => {}
                () = sleep_until(ready.as_ref().map(|(_, until)| *until)) => {}
                () = sleep_until(farewell) => {}
            }
            self.on_time();
        }
    }

    fn concluded(mut self) -> Self {
        self.core.tell_ladders();
        self.perform();
        self.write();
        self
    }

    /// Tells the registrars that the gateway is gone: not before the end of the last call, because a carrier may
    /// serve registered trunks only, and emergency calls are taken to the end. Until when they may answer.
    fn leave(&mut self) -> tokio::time::Instant {
        self.core.on_command(self.clock.now(), sip_gateway::Command::Leave);
        tokio::time::Instant::now() + FAREWELL
    }

    fn wake(&self) -> Option<tokio::time::Instant> {
        let at = self.core.poll_timeout().into_iter().chain(self.hub.poll_timeout()).min()?;
        Some(self.clock.instant(at))
    }

    fn on_time(&mut self) {
        let now = self.clock.now();
        if self.core.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.core.on_timeout(now);
        }
        if self.hub.poll_timeout().is_some_and(|at| at <= now.mono) {
            self.hub.on_timeout(now);
        }
    }

    fn on_input(&mut self, input: Input) {
        self.core.on_input(self.clock.now(), input);
        self.perform();
    }

    fn on_media(&mut self, event: recorder::Event) {
        if let recorder::Event::Statistics { legs, .. } = &event {
            self.ops.media_refused.inc_by(legs.iter().map(|leg| leg.refused).sum());
        }
        self.hub.on_media(self.clock.now(), event);
    }

    fn on_stored(&mut self, stored: Stored) {
        let Stored { item, object } = stored;
        self.under_way.storing = self.under_way.storing.saturating_sub(1);
        self.hub.on_stored(self.clock.now(), &item.sealed, item.line, object);
    }

    /// Does all that core and hub want done. Events go to the hub before anything that follows them is
    /// sent, so that an epoch is raised before the message that lets a new party in.
    fn perform(&mut self) {
        loop {
            if let Some(output) = self.core.poll_output() {
                self.perform_core(output);
            } else if let Some(output) = self.hub.poll_output() {
                self.perform_hub(output);
            } else {
                break;
            }
        }
    }

    /// For readiness and metrics.
    fn tell(&self, draining: bool) {
        for (peer, registered) in self.core.registrations(self.clock.now().mono) {
            self.ops.peer_is_registered(peer, registered);
        }
        self.ops.refused(self.core.refusals());
        self.health.send_replace(SignallingHealth {
            draining,
            calls: self.hub.calls(),
            recordings: self.hub.recordings(),
            dispatch_failures: self.hub.dispatch_failures(),
            foreign_caller_ids: self.hub.foreign_caller_ids(),
            sip: self.core.counters(),
            sockets: self.sockets.counters(),
            media: self.plane.metrics(),
        });
    }

    fn perform_core(&mut self, output: sip_gateway::Output) {
        use sip_gateway::Output as Sip;
        match output {
            Sip::Event(event) => self.hub.on_gateway(self.clock.now(), event),
            Sip::Ladder(ladder) => self.hub.on_ladder(self.clock.now(), *ladder),
            Sip::Datagram { listener, to, bytes } => {
                if !self.sockets.send_datagram(listener, to, bytes) {
                    self.core.on_input(self.clock.now(), Input::Undeliverable { to });
                }
            }
            Sip::Stream { stream, bytes } => self.sockets.send_stream(stream, bytes),
            Sip::Connect { stream, listener, to, peer } => self.sockets.connect(stream, listener, peer, to),
            Sip::Secure { stream } => self.sockets.secure(stream),
            Sip::CloseStream { stream } => self.sockets.close_stream(stream),
            Sip::Resolve { peer, question } => self.resolver.resolve(peer, question),
            Sip::Found { peer, plan } => self.found.put(peer, plan),
            Sip::Reachable { peer, up } => self.ops.peer_is_up(peer, up),
        }
    }

    fn perform_hub(&mut self, output: Output) {
        match output {
            Output::Gateway(command) => self.core.on_command(self.clock.now(), command),
            Output::Media(command) => self.plane.send(command),
            Output::BeginRecording { permit, channels, look_back } => {
                self.begin_recording(permit, channels, look_back)
            }
            Output::Journal { stamped, awaited_by } => self.enter(stamped, awaited_by),
            Output::Store { sealed, line } => self.store(sealed, line),
        }
    }

    /// Puts a sealed recording on the way to the store.
    pub(super) fn store(&mut self, sealed: Box<Sealed>, line: Option<E164>) {
        if self.shelf.try_send(Item { sealed, line }).is_ok() {
            self.under_way.storing += 1;
        } else {
            tracing::error!("too many recordings wait for the store; this one waits in the spool");
            self.ops.store_failures.inc();
        }
    }

    fn begin_recording(&mut self, permit: Permit, channels: [String; 2], look_back: bool) {
        match self.recording_key() {
            Ok((id, key)) => {
                let target = Ok(NewRecording { id, key, channels, look_back });
                self.plane.send(recorder::Command::OpenTap { permit, target });
            }
            Err(error) => {
                tracing::error!(call = %permit.call(), %error, "no key for a recording");
                let failed = recorder::Event::RecordingFailed {
                    call: permit.call(),
                    permit: permit.id(),
                    recording: None,
                };
                self.hub.on_media(self.clock.now(), failed);
            }
        }
    }

    fn recording_key(&self) -> Result<(RecordingId, RecordingKey), storage::KeyError> {
        let mut random = [0; 16];
        storage::fill_random(&mut random)?;
        let id = RecordingId::v7(self.clock.now().wall, u128::from_be_bytes(random));
        let secret = storage::fresh_dek()?;
        let wrapped = self.master.wrap(id, &secret)?;
        Ok((id, RecordingKey { secret, wrapped }))
    }

    fn enter(&mut self, stamped: Stamped, awaited_by: Option<CallId>) {
        let direction = match &stamped.entry {
            Entry::CallStarted(started) => self.under_way.directions.insert(started.call, started.direction),
            Entry::CallEnded(ended) => self.under_way.directions.remove(&ended.call),
            _ => None,
        };
        self.ops.count(&stamped, direction);
        self.under_way.entries.push((stamped, awaited_by));
    }

    /// Hands the journal what one turn has brought: waking its thread for each entry would cost more than
    /// writing it.
    fn write(&mut self) {
        let mut entries = std::mem::take(&mut self.under_way.entries);
        // What waits for a database that is away fills the journal's disk, which is for records.
        if entries.iter().any(|(stamped, _)| stamped.entry.may_be_shed()) && self.ops.database_is_behind() {
            let brought = entries.len();
            entries.retain(|(stamped, _)| !stamped.entry.may_be_shed());
            self.ops.ladders_shed.inc_by((brought - entries.len()) as u64);
        }
        let waits = entries.iter().any(|(_, awaited_by)| awaited_by.is_some());
        let receipts = self.journal.append_all(entries.iter().map(|(stamped, _)| stamped), waits);
        for ((stamped, awaited_by), receipt) in entries.drain(..).zip(receipts) {
            self.follow(&stamped, awaited_by, receipt);
        }
        self.under_way.entries = entries;
    }

    fn follow(&self, stamped: &Stamped, awaited_by: Option<CallId>, receipt: Receipt) {
        if let Some(call) = awaited_by {
            tokio::spawn(await_journal(call, receipt, self.under_way.journalled.clone()));
        } else if let Entry::RecordingStored(row) = &stamped.entry {
            let (spools, synced) = (self.spools.clone(), self.journal.synced());
            self.background.spawn(shelf::clear_when_journalled(receipt, synced, spools, row.id));
        } else if stamped.entry.may_be_shed() && receipt.refusal().is_some() {
            self.ops.ladders_shed.inc();
        }
    }
}

async fn await_journal(call: CallId, receipt: Receipt, journalled: mpsc::Sender<CallId>) {
    if let Err(error) = receipt.await {
        let error = &error as &dyn Error;
        tracing::error!(%call, error, "the journal does not take the start of a call; the call goes on");
    }
    // Nobody listens any more once the service has stopped.
    let _ = journalled.send(call).await;
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
