//! The gateway's shell on virtual time, as `earmark::serve` is on real: it owns core and hub, performs what
//! they want, and answers late. What outlives the process is the [`Machine`]: disks, store and database.
//! The one thing of the product's that is not used is the master key, which takes the system's randomness.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use consent::{CallId, E164, Now, Permit, PermitId, RecordingId, RuleSet, Wall};
use earmark::hub::{self, Hub};
use recorder::preamble::LockedBudget;
use recorder::prompt::PromptSet;
use recorder::{
    CaptureSettings, Command, Event, NewRecording, RecordingKey, RecoveryError, Sealed, Unreadable,
};
use sip_gateway::{Core, Input, ListenerId};
use storage::fold::Calls;
use storage::journal::{Disk, Found, JournalId, Reader, SyncTicket, Writer, payload};
use storage::{Entry, Objects, Stamped};
use zeroize::Zeroizing;

use crate::clock::{MS, Queue, Time, WallClock};
use crate::disk::SimulatedDisk;
use crate::faults::{Crash, Faults};
use crate::media::{Media, Outcome, Sent};
use crate::random::Random;

/// As in `storage::journal`.
const SYNC_AFTER: Time = 50 * MS;
const RETRY_AFTER: Time = 100 * MS;
const BATCH: usize = 256;
/// As in `recorder::plane`.
const WRITER_TURN: Time = 10 * MS;
/// Enough for the longest asking of a script, and little enough for the limit on locked memory.
const PREAMBLE_BYTES: usize = 25 * 32_000;
const DATABASE_TURN: Time = 100 * MS;

/// What a step showed to those who check.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// A file was made in the spool.
    Created(CallId, RecordingId),
    /// The hub was told that a recording is sealed; or recovery reports one.
    Sealed(Box<Sealed>),
    /// Recovery removed a file without audio.
    Removed,
    /// The recording was put into the store.
    Stored(Box<Sealed>, String),
    /// The journal or its projection found something that cannot be.
    Disorder(String),
    /// The core took a call: its id and its Call-ID.
    Offered(CallId, String),
    /// An entry that was counted on disk.
    Entry(Stamped),
}

/// What outlives the process.
pub(crate) struct Machine {
    pub(crate) wall: WallClock,
    pub(crate) faults: Faults,
    pub(crate) disk: SimulatedDisk,
    pub(crate) spool: PathBuf,
    pub(crate) objects: Objects,
    pub(crate) database: Calls,
    pub(crate) delivered: u64,
    /// Bytes of each unfinished spool file that are on the medium.
    synced: BTreeMap<RecordingId, u64>,
    pub(crate) random: Random,
    first_port: u16,
    pub(crate) seen: Vec<Seen>,
    pub(crate) boots: u32,
}

/// What the process does later.
enum Later {
    Command(Command),
    Event(Event),
    Journalled(CallId),
    Append,
    BeginSync,
    EndSync(SyncTicket),
    Write,
    SpoolSynced(RecordingId, u64),
    SpoolFinished(RecordingId, Box<Sealed>),
    Put(Box<Sealed>, Option<E164>),
    Deliver,
}

/// A running process.
pub(crate) struct Process {
    boot: Time,
    core: Core,
    hub: Hub,
    media: Media,
    journal: Writer<SimulatedDisk>,
    queue: VecDeque<(Vec<u8>, Option<CallId>, Option<PathBuf>)>,
    /// Spool files to be removed once the journal has synced so far.
    clearing: Vec<(u64, PathBuf)>,
    append_waits: bool,
    sync_waits: bool,
    reader: Reader,
    open: BTreeMap<RecordingId, (CallId, PermitId, u64)>,
    later: Queue<Later>,
    /// Recordings on their way to the store.
    storing: usize,
    commands_until: Time,
    events_until: Time,
    random: Random,
    pub(crate) sent: Vec<Sent>,
}

pub(crate) struct Setup {
    pub(crate) config: Arc<sip_gateway::Config>,
    pub(crate) rules: Arc<RuleSet>,
    pub(crate) prompts: Arc<PromptSet>,
}

impl Machine {
    pub(crate) fn new(
        wall: WallClock,
        faults: Faults,
        spool: PathBuf,
        objects: Objects,
        random: Random,
    ) -> Self {
        Self {
            wall,
            faults,
            disk: SimulatedDisk::default(),
            spool,
            objects,
            database: Calls::default(),
            delivered: 0,
            synced: BTreeMap::new(),
            random,
            first_port: 10_000,
            seen: Vec::new(),
            boots: 0,
        }
    }

    /// What is left of the disks when the process has ended so.
    pub(crate) fn crash(&mut self, kind: Crash) {
        if kind == Crash::Killed {
            return;
        }
        self.disk.cut_power(&mut self.random);
        for (recording, synced) in std::mem::take(&mut self.synced) {
            let path = self.spool.join(format!("{recording}.part"));
            let Ok(file) = fs::OpenOptions::new().write(true).open(&path) else { continue };
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            let kept = self.random.between(synced.min(length), length);
            if let Err(error) = file.set_len(kept) {
                self.seen.push(Seen::Disorder(format!("the simulation's spool: {error}")));
            }
        }
    }

    fn stored_now(&self, now: Time) -> bool {
        self.faults.store_away.until(now).is_none()
    }
}

/// Stands in for the master key.
fn wrap(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte ^ 0xA5).collect()
}

/// The key of a wrapped one.
pub(crate) fn unwrap(wrapped: &[u8]) -> Option<[u8; 32]> {
    wrap(wrapped).try_into().ok()
}

impl Process {
    /// Starts a process on what the last one left, as `earmark serve` does. `None` if the journal's disk does
    /// not let it.
    pub(crate) fn start(machine: &mut Machine, setup: &Setup, now: Time) -> Option<Self> {
        machine.disk.set_failing(machine.faults.journal_failing.until(now).is_some());
        let mut unfinished = Calls::default();
        let mut last_at = Wall::default();
        let opened = Writer::open(machine.disk.clone(), JournalId(7), |found| {
            if let Found::Entry { stamped, .. } = found {
                last_at = last_at.max(stamped.at);
                // What is irregular shows when it is delivered.
                let _irregular = unfinished.apply(&stamped);
                if let Entry::CallEnded(ended) = &stamped.entry {
                    unfinished.remove(ended.call);
                }
            }
        });
        let (journal, _) = opened.ok()?;
        machine.boots += 1;
        let mut random = machine.random.split();
        let mut seed = [0; 32];
        seed.copy_from_slice(&random.bytes(32));
        let settings = CaptureSettings {
            lookback_ms: machine.faults.lookback_ms,
            preamble_bytes: PREAMBLE_BYTES,
            budget: LockedBudget::new(machine.faults.locked_bytes),
        };
        let rules = Arc::clone(&setup.rules);
        let is_dispatch = move |offer: &_| hub::is_dispatch(offer, &rules);
        let mut process = Self {
            boot: now,
            core: Core::new(Arc::clone(&setup.config), seed, is_dispatch),
            hub: Hub::new("gw1".to_owned(), Arc::clone(&setup.rules)),
            media: Media::new(settings, Arc::clone(&setup.prompts), machine.first_port),
            journal,
            queue: VecDeque::new(),
            clearing: Vec::new(),
            append_waits: false,
            sync_waits: false,
            reader: Reader::new(),
            open: BTreeMap::new(),
            later: Queue::new(),
            storing: 0,
            commands_until: now,
            events_until: now,
            random,
            sent: Vec::new(),
        };
        process.recover(machine, now, unfinished, last_at);
        process.later.push(now + WRITER_TURN, Later::Write);
        process.later.push(now + DATABASE_TURN, Later::Deliver);
        Some(process)
    }

    /// As `serve::recover` and `Journal::recover`.
    fn recover(&mut self, machine: &mut Machine, now: Time, mut unfinished: Calls, last_at: Wall) {
        let wall = machine.wall.at(now);
        machine.synced.clear();
        let key = |_, wrapped: &[u8]| unwrap(wrapped).map(Zeroizing::new);
        let seen = &mut machine.seen;
        let found = recorder::spool::recover_with(&machine.spool, &key, &mut |Unreadable { file, cause }| {
            seen.push(match cause {
                RecoveryError::NoAudio if !file.exists() => Seen::Removed,
                cause => Seen::Disorder(format!("{cause:?}")),
            });
        });
        for sealed in found {
            if let Some(entry) = hub::found(&sealed) {
                let stamped = Stamped { at: wall, entry };
                // A recording of a call that had ended in good order is no irregularity.
                let _irregular = unfinished.apply(&stamped);
                self.write(now, stamped, None, None);
            }
            machine.seen.push(Seen::Sealed(Box::new(sealed.clone())));
            let at = now + self.random.between(5, 300) * MS;
            self.storing += 1;
            self.later.push(at, Later::Put(Box::new(sealed), None));
        }
        for stamped in unfinished.closings(last_at, wall) {
            self.write(now, stamped, None, None);
        }
    }

    fn now(&self, machine: &Machine, now: Time) -> Now {
        machine.wall.now(now, self.boot)
    }

    /// When something is due.
    pub(crate) fn next_due(&self) -> Option<Time> {
        let machines = [self.core.poll_timeout(), self.hub.poll_timeout(), self.media.next_due()];
        let earliest = machines.into_iter().flatten().min().map(|mono| mono.0 + self.boot);
        earliest.into_iter().chain(self.later.next_at()).min()
    }

    /// A datagram has arrived.
    pub(crate) fn on_datagram(
        &mut self,
        machine: &mut Machine,
        now: Time,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) {
        let at = self.now(machine, now);
        if crate::media::is_media_port(to) {
            let outcome = self.media.on_datagram(at, from, to, bytes);
            self.take(machine, now, outcome);
        } else {
            let bytes = bytes::Bytes::copy_from_slice(bytes);
            self.core.on_input(at, Input::Datagram { listener: ListenerId(0), from, bytes });
        }
        self.perform(machine, now);
    }

    /// Does what is due.
    pub(crate) fn on_time(&mut self, machine: &mut Machine, now: Time) {
        let at = self.now(machine, now);
        if self.core.poll_timeout().is_some_and(|due| due <= at.mono) {
            self.core.on_timeout(at);
        }
        if self.hub.poll_timeout().is_some_and(|due| due <= at.mono) {
            self.hub.on_timeout(at);
        }
        if self.media.next_due().is_some_and(|due| due <= at.mono) {
            let outcome = self.media.on_timeout(at);
            self.take(machine, now, outcome);
        }
        self.perform(machine, now);
        while let Some(later) = self.later.pop_due(now) {
            self.do_later(machine, now, later);
            self.perform(machine, now);
        }
    }

    fn do_later(&mut self, machine: &mut Machine, now: Time, later: Later) {
        let at = self.now(machine, now);
        match later {
            Later::Command(command) => {
                let (seed, no_ports) =
                    (self.random.next(), self.random.per_mille(machine.faults.bind_fails_per_mille));
                let outcome = self.media.on_command(at, command, seed, no_ports);
                machine.first_port = self.media.next_port();
                self.take(machine, now, outcome);
            }
            Later::Event(event) => {
                if let Event::RecordingSealed(sealed) = &event {
                    machine.seen.push(Seen::Sealed(sealed.clone()));
                }
                self.hub.on_media(at, event);
            }
            Later::Journalled(call) => self.hub.on_journalled(at, call),
            Later::Append => self.append(machine, now),
            Later::BeginSync => self.begin_sync(machine, now),
            Later::EndSync(ticket) => self.end_sync(machine, now, ticket),
            Later::Write => self.writer_turn(machine, now),
            Later::SpoolSynced(recording, bytes) => drop(machine.synced.insert(recording, bytes)),
            Later::SpoolFinished(recording, sealed) => self.spool_finished(machine, now, recording, sealed),
            Later::Put(sealed, line) => self.put(machine, now, sealed, line),
            Later::Deliver => self.deliver(machine, now),
        }
    }

    /// As `serve::signalling`: events before what follows them is sent.
    fn perform(&mut self, machine: &mut Machine, now: Time) {
        loop {
            let at = self.now(machine, now);
            if let Some(output) = self.core.poll_output() {
                match output {
                    sip_gateway::Output::Event(event) => {
                        if let sip_gateway::Event::Offered(offer) = &event {
                            machine.seen.push(Seen::Offered(offer.call, offer.sip_call_id.clone()));
                        }
                        self.hub.on_gateway(at, event);
                    }
                    sip_gateway::Output::Datagram { to, bytes, .. } => {
                        self.sent.push(Sent { from: crate::network::GATEWAY, to, bytes: bytes.to_vec() });
                    }
                    // The peers are at addresses, so nothing is looked up; what is told of them is for people.
                    sip_gateway::Output::Reachable { .. } | sip_gateway::Output::Ladder(_) => {}
                    other => machine.seen.push(Seen::Disorder(format!("no streams here: {other:?}"))),
                }
            } else if let Some(output) = self.hub.poll_output() {
                self.perform_hub(machine, now, output);
            } else {
                return;
            }
        }
    }

    fn perform_hub(&mut self, machine: &mut Machine, now: Time, output: hub::Output) {
        match output {
            hub::Output::Gateway(command) => self.core.on_command(self.now(machine, now), command),
            hub::Output::Media(command) => self.command(machine, now, command),
            hub::Output::BeginRecording { permit, channels, look_back } => {
                let command = self.begin_recording(machine.wall.at(now), permit, channels, look_back);
                self.command(machine, now, command);
            }
            hub::Output::Journal { stamped, awaited_by } => self.write(now, stamped, awaited_by, None),
            hub::Output::Store { sealed, line } => {
                let at = now + self.random.between(5, 300) * MS;
                self.storing += 1;
                self.later.push(at, Later::Put(sealed, line));
            }
        }
    }

    fn begin_recording(
        &mut self,
        wall: Wall,
        permit: Permit,
        channels: [String; 2],
        look_back: bool,
    ) -> Command {
        let random = u128::from(self.random.next()) << 64 | u128::from(self.random.next());
        let id = RecordingId::v7(wall, random);
        let mut secret = [0; 32];
        secret.copy_from_slice(&self.random.bytes(32));
        let key = RecordingKey { secret: Zeroizing::new(secret), wrapped: wrap(&secret) };
        Command::OpenTap { permit, target: Ok(NewRecording { id, key, channels, look_back }) }
    }

    fn command(&mut self, machine: &mut Machine, now: Time, command: Command) {
        let late = machine.faults.commands_late.until(now).unwrap_or(now);
        let at = late.max(now + self.random.between(0, 2 * MS));
        // In order, and each in an instant of its own.
        self.commands_until = at.max(self.commands_until + 1);
        self.later.push(self.commands_until, Later::Command(command));
    }

    fn take(&mut self, machine: &mut Machine, now: Time, outcome: Outcome) {
        self.sent.extend(outcome.sent);
        for event in outcome.events {
            self.event(machine, now, event);
        }
    }

    fn event(&mut self, machine: &Machine, now: Time, event: Event) {
        let late = machine.faults.commands_late.until(now).filter(|_| self.random.per_mille(300));
        let at = late.unwrap_or(now).max(now + self.random.between(0, 3 * MS));
        self.events_until = at.max(self.events_until + 1);
        self.later.push(self.events_until, Later::Event(event));
    }

    fn write(&mut self, now: Time, stamped: Stamped, awaited_by: Option<CallId>, clear: Option<PathBuf>) {
        let Ok(payload) = payload(&stamped) else { return };
        self.queue.push_back((payload, awaited_by, clear));
        if !self.append_waits {
            self.append_waits = true;
            self.later.push(now + self.random.between(0, MS), Later::Append);
        }
    }

    fn append(&mut self, machine: &mut Machine, now: Time) {
        if let Some(until) = machine.faults.journal_slow.until(now).filter(|_| self.random.per_mille(700)) {
            let at = until.min(now + self.random.between(5, 400) * MS);
            return self.later.push(at, Later::Append);
        }
        machine.disk.set_failing(machine.faults.journal_failing.until(now).is_some());
        let count = self.queue.len().min(BATCH);
        let payloads = self.queue.iter().take(count).map(|(payload, ..)| payload.as_slice());
        let Ok(numbers) = self.journal.append(payloads) else {
            return self.later.push(now + RETRY_AFTER, Later::Append);
        };
        for (seq, (_, awaited_by, clear)) in numbers.zip(self.queue.drain(..count)) {
            self.clearing.extend(clear.map(|file| (seq, file)));
            if let Some(call) = awaited_by {
                self.later.push(now + self.random.between(0, MS), Later::Journalled(call));
            }
        }
        self.append_waits = !self.queue.is_empty();
        if self.append_waits {
            self.later.push(now, Later::Append);
        }
        if !self.sync_waits {
            self.sync_waits = true;
            self.later.push(now + SYNC_AFTER, Later::BeginSync);
        }
    }

    fn begin_sync(&mut self, machine: &Machine, now: Time) {
        match self.journal.begin_sync() {
            Some(ticket) => self.later.push(now + machine.faults.sync_ms * MS, Later::EndSync(ticket)),
            None if self.journal.synced() < self.journal.written() => {
                self.later.push(now + RETRY_AFTER, Later::BeginSync);
            }
            None => self.sync_waits = false,
        }
    }

    fn end_sync(&mut self, machine: &mut Machine, now: Time, ticket: SyncTicket) {
        machine.disk.set_failing(machine.faults.journal_failing.until(now).is_some());
        let result = machine.disk.sync(ticket.file);
        self.journal.end_sync(ticket, &result);
        let wait = if result.is_ok() { SYNC_AFTER } else { RETRY_AFTER };
        self.later.push(now + wait, Later::BeginSync);
        let synced = self.journal.synced();
        for (_, file) in self.clearing.extract_if(.., |(seq, _)| *seq <= synced) {
            if let Err(error) = fs::remove_file(&file) {
                machine.seen.push(Seen::Disorder(format!("a stored recording's spool file: {error}")));
            }
        }
    }

    fn writer_turn(&mut self, machine: &mut Machine, now: Time) {
        if let Some(until) = machine.faults.writer_stalled.until(now) {
            return self.later.push(until, Later::Write);
        }
        self.later.push(now + WRITER_TURN, Later::Write);
        for (call, output) in self.media.write(self.now(machine, now)) {
            self.spool(machine, now, call, output);
        }
    }

    fn spool(&mut self, machine: &mut Machine, now: Time, call: CallId, output: recorder::Output) {
        use recorder::Output;
        match output {
            Output::Create { recording, call, bytes, .. } => {
                machine.seen.push(Seen::Created(call, recording));
                self.open.insert(recording, (call, PermitId(0), 0));
                self.append_to_spool(machine, now, recording, &bytes);
            }
            Output::Append { recording, bytes } => self.append_to_spool(machine, now, recording, &bytes),
            Output::Sync { recording } => {
                let Some((_, _, bytes)) = self.open.get(&recording) else { return };
                self.later.push(now + machine.faults.sync_ms * MS, Later::SpoolSynced(recording, *bytes));
            }
            Output::Finish { recording, sealed } => {
                self.later.push(now + machine.faults.sync_ms * MS, Later::SpoolFinished(recording, sealed));
            }
            Output::Discard { recording } => {
                self.open.remove(&recording);
                if let Err(error) = fs::remove_file(machine.spool.join(format!("{recording}.part"))) {
                    machine.seen.push(Seen::Disorder(format!("an empty recording: {error}")));
                }
            }
            Output::Event(event) => self.event(machine, now, event),
        }
        let _ = call;
    }

    fn append_to_spool(&mut self, machine: &mut Machine, now: Time, recording: RecordingId, bytes: &[u8]) {
        let Some((call, _, length)) = self.open.get_mut(&recording) else { return };
        let call = *call;
        let path = machine.spool.join(format!("{recording}.part"));
        let failing = machine.faults.spool_failing.until(now).is_some();
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        let written = file.and_then(|mut file| {
            // A full disk takes a part of the bytes.
            let taken = if failing { bytes.len() / 2 } else { bytes.len() };
            file.write_all(&bytes[..taken])
        });
        if written.is_ok() && !failing {
            *length += bytes.len() as u64;
            return;
        }
        self.open.remove(&recording);
        for output in self.media.on_write_failed(self.now(machine, now), call, recording) {
            self.spool(machine, now, call, output);
        }
    }

    fn spool_finished(
        &mut self,
        machine: &mut Machine,
        now: Time,
        recording: RecordingId,
        mut sealed: Box<Sealed>,
    ) {
        if self.open.remove(&recording).is_none() {
            return;
        }
        let part = machine.spool.join(format!("{recording}.part"));
        sealed.file = part.with_extension("sealed");
        match fs::rename(&part, &sealed.file) {
            Ok(()) => {
                machine.synced.remove(&recording);
                self.event(machine, now, Event::RecordingSealed(sealed));
            }
            Err(error) => machine.seen.push(Seen::Disorder(format!("the simulation's spool: {error}"))),
        }
    }

    /// As `serve::shelf`.
    fn put(&mut self, machine: &mut Machine, now: Time, sealed: Box<Sealed>, line: Option<E164>) {
        if !machine.stored_now(now) {
            return self.later.push(now + 200 * MS, Later::Put(sealed, line));
        }
        let put = machine.objects.put(sealed.recording, sealed.started_at, &sealed.file, &sealed.sha256);
        let object = match put {
            Ok(object) => object,
            Err(error) => return machine.seen.push(Seen::Disorder(format!("{error:?}"))),
        };
        self.storing -= 1;
        machine.seen.push(Seen::Stored(sealed.clone(), object.clone()));
        self.hub.on_stored(self.now(machine, now), &sealed, line, object);
        while let Some(output) = self.hub.poll_output() {
            match output {
                hub::Output::Journal { stamped, awaited_by } => {
                    self.write(now, stamped, awaited_by, Some(sealed.file.clone()));
                }
                other => self.perform_hub(machine, now, other),
            }
        }
    }

    /// What is synced goes to the database, unless it is away.
    fn deliver(&mut self, machine: &mut Machine, now: Time) {
        self.later.push(now + DATABASE_TURN, Later::Deliver);
        if machine.faults.database_away.until(now).is_some() {
            return;
        }
        let Ok(found) = self.reader.read(&machine.disk, self.journal.synced(), 10_000) else { return };
        for found in found {
            let seq = found.position().seq;
            if seq <= machine.delivered {
                continue;
            }
            machine.delivered = seq;
            match found {
                Found::Entry { stamped, .. } => {
                    if let Err(irregular) = machine.database.apply(&stamped) {
                        machine.seen.push(Seen::Disorder(format!("I3 {irregular:?}")));
                    }
                    machine.seen.push(Seen::Entry(stamped));
                }
                other => machine.seen.push(Seen::Disorder(format!("I3 {other:?}"))),
            }
        }
    }

    /// Whether nothing is on its way any more.
    pub(crate) fn is_at_rest(&self, machine: &Machine) -> bool {
        self.queue.is_empty()
            && self.hub.calls() == 0
            && self.storing == 0
            && self.journal.synced() == self.journal.written()
            && machine.delivered == self.journal.written()
    }
}
