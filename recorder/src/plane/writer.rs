//! The thread that runs captures and writes their files.
//!
//! It puts each call's frames and commands back into the order in which the media thread gave them (a command
//! carries the number of frames before it), with one exception: a `Revoke` is taken in as soon as it is here,
//! unless an `OpenTap` still waits before it. A defect in one call's capture ends that capture; the thread and
//! every other call go on. Nothing here is waited for by the relay.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError};
use std::time::Duration;

use consent::{CallId, Now, PermitId, RecordingId};

use super::clock::Clock;
use super::report::Reporter;
use super::ring::RingReader;
use crate::{Capture, CaptureCommand, CaptureSettings, Event, SpoolReport, SpoolWriter};

/// Messages between a media thread and its writer; more wait in the media thread (see [`WriterLink`]).
pub(super) const LINK_MESSAGES: usize = 1_024;
/// Messages that wait in a media thread before recordings are refused. Everything that closes is kept
/// beyond it: there is at most a handful for each recording that was opened.
const WAITING_MESSAGES: usize = 4_096;
/// How often rings are read: well under the 5 s that they hold, and short against the spool's second.
const READ_INTERVAL: Duration = Duration::from_millis(10);
/// Messages taken in between two readings of the rings.
const MESSAGES_AT_ONCE: usize = 256;

/// What a media thread tells its writer.
#[derive(Debug)]
pub(super) enum ToWriter {
    /// The call's frames come by this ring from now on.
    Ring(CallId, RingReader),
    /// An instruction, given after so many frames of the present ring.
    Command { call: CallId, after: u64, command: CaptureCommand },
}

/// A media thread's end of the channel to its writer. It never waits.
#[derive(Debug)]
pub(super) struct WriterLink {
    messages: SyncSender<ToWriter>,
    waiting: VecDeque<ToWriter>,
}

/// The writer is gone, or too far behind to begin anything.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unavailable;

impl WriterLink {
    pub(super) fn new(messages: SyncSender<ToWriter>) -> Self {
        Self { messages, waiting: VecDeque::new() }
    }

    /// Whether something may be begun.
    pub(super) fn may_open(&self) -> bool {
        self.waiting.len() < WAITING_MESSAGES
    }

    /// Sends a message behind those that wait.
    pub(super) fn send(&mut self, message: ToWriter) -> Result<(), Unavailable> {
        self.waiting.push_back(message);
        self.flush()
    }

    /// Sends what waits, as far as there is room.
    pub(super) fn flush(&mut self) -> Result<(), Unavailable> {
        while let Some(message) = self.waiting.pop_front() {
            match self.messages.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(message)) => {
                    self.waiting.push_front(message);
                    break;
                }
                Err(TrySendError::Disconnected(_)) => {
                    self.waiting.clear();
                    return Err(Unavailable);
                }
            }
        }
        Ok(())
    }

    /// Whether messages wait.
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Waits until everything is sent: at the end of the plane only.
    pub(super) fn drain(&mut self) {
        for message in self.waiting.drain(..) {
            if self.messages.send(message).is_err() {
                return;
            }
        }
    }
}

/// The writing thread's state.
#[derive(Debug)]
pub(super) struct Writer {
    clock: Clock,
    messages: Receiver<ToWriter>,
    calls: HashMap<CallId, CallCapture>,
    spool: SpoolWriter,
    settings: CaptureSettings,
    outbox: Outbox,
}

/// What goes to the hub, and what is known of open recordings for when they fail.
#[derive(Debug)]
struct Outbox {
    reporter: Reporter,
    open: HashMap<RecordingId, Open>,
}

/// A recording whose tap was opened.
#[derive(Debug)]
struct Open {
    call: CallId,
    permit: PermitId,
    /// Whether a sample of it is in a file: one without, at the end of its call, has not failed.
    begun: bool,
}

#[derive(Debug)]
struct CallCapture {
    call: CallId,
    capture: Capture,
    ring: Option<RingReader>,
    commands: VecDeque<(u64, CaptureCommand)>,
    failed: bool,
    ended: bool,
}

impl Writer {
    pub(super) fn new(
        clock: Clock,
        messages: Receiver<ToWriter>,
        spool: SpoolWriter,
        settings: CaptureSettings,
        reporter: Reporter,
    ) -> Self {
        let outbox = Outbox { reporter, open: HashMap::new() };
        Self { clock, messages, calls: HashMap::new(), spool, settings, outbox }
    }

    /// Runs until the media thread is gone, then seals what is open.
    pub(super) fn run(mut self) {
        let mut connected = true;
        while connected {
            connected = self.take_messages();
            self.process_calls();
            self.take_spool_reports();
            self.outbox.reporter.flush();
        }
        let now = self.clock.now();
        for call in self.calls.values_mut() {
            call.commands.push_back((u64::MAX, CaptureCommand::End));
            call.process_guarded(now, &mut self.spool, &mut self.outbox);
        }
        for report in self.spool.close() {
            if let SpoolReport::Event(event) = report {
                self.outbox.report(event);
            }
        }
        for call in self.calls.keys() {
            self.outbox.forget_empty(*call);
        }
        self.outbox.fail_all();
        self.outbox.reporter.drain();
    }

    /// False once the media thread is gone.
    fn take_messages(&mut self) -> bool {
        match self.messages.recv_timeout(READ_INTERVAL) {
            Ok(message) => self.take(message),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        for _ in 0..MESSAGES_AT_ONCE {
            match self.messages.try_recv() {
                Ok(message) => self.take(message),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    fn take(&mut self, message: ToWriter) {
        let (ToWriter::Ring(id, _) | ToWriter::Command { call: id, .. }) = &message;
        let (id, settings) = (*id, &self.settings);
        let call = self.calls.entry(id).or_insert_with(|| CallCapture::new(id, settings.clone()));
        match message {
            ToWriter::Ring(_, ring) => call.ring = Some(ring),
            ToWriter::Command { command: command @ CaptureCommand::Revoke { .. }, .. }
                if call.may_revoke() =>
            {
                call.guarded(&mut self.outbox, |call, outbox| {
                    call.capture.on_command(self.clock.now(), command);
                    call.take_outputs(&mut self.spool, outbox);
                });
            }
            ToWriter::Command { after, command, .. } => call.commands.push_back((after, command)),
        }
    }

    fn process_calls(&mut self) {
        for call in self.calls.values_mut() {
            call.process_guarded(self.clock.now(), &mut self.spool, &mut self.outbox);
        }
        for call in self.calls.extract_if(|_, call| call.ended) {
            self.outbox.forget_empty(call.0);
        }
    }

    fn take_spool_reports(&mut self) {
        while let Some(report) = self.spool.poll_report() {
            match report {
                SpoolReport::Event(event) => self.outbox.report(event),
                SpoolReport::Failed { call: id, recording } => {
                    let now = self.clock.now();
                    if let Some(call) = self.calls.get_mut(&id) {
                        call.guarded(&mut self.outbox, |call, outbox| {
                            call.capture.on_command(now, CaptureCommand::WriteFailed { recording });
                            call.take_outputs(&mut self.spool, outbox);
                        });
                    }
                    self.outbox.fail(recording);
                }
            }
        }
    }
}

impl Outbox {
    fn report(&mut self, event: Event) {
        match &event {
            Event::RecordingStarted { recording, .. } => {
                if let Some(open) = self.open.get_mut(recording) {
                    open.begun = true;
                }
            }
            Event::RecordingSealed(sealed) => drop(self.open.remove(&sealed.recording)),
            Event::RecordingFailed { recording: Some(recording), .. } => drop(self.open.remove(recording)),
            _ => {}
        }
        self.reporter.report(event);
    }

    /// The recording failed; said only if it has not been said.
    fn fail(&mut self, recording: RecordingId) {
        if let Some(Open { call, permit, .. }) = self.open.remove(&recording) {
            self.reporter.report(Event::RecordingFailed { call, permit, recording: Some(recording) });
        }
    }

    fn fail_call(&mut self, call: CallId) {
        let open = self.open.iter().filter(|(_, open)| open.call == call);
        let recordings: Vec<RecordingId> = open.map(|(recording, _)| *recording).collect();
        recordings.into_iter().for_each(|recording| self.fail(recording));
    }

    /// The call's capture has ended: what never had a sample is over without having failed.
    fn forget_empty(&mut self, call: CallId) {
        self.open.retain(|_, open| open.call != call || open.begun);
    }

    fn fail_all(&mut self) {
        let recordings: Vec<RecordingId> = self.open.keys().copied().collect();
        recordings.into_iter().for_each(|recording| self.fail(recording));
    }
}

impl CallCapture {
    fn new(call: CallId, settings: CaptureSettings) -> Self {
        let capture = Capture::new(call, settings);
        Self { call, capture, ring: None, commands: VecDeque::new(), failed: false, ended: false }
    }

    /// A revocation need not wait for its turn, unless what it revokes does.
    fn may_revoke(&self) -> bool {
        !self.failed
            && !self.commands.iter().any(|(_, command)| matches!(command, CaptureCommand::OpenTap { .. }))
    }

    fn process_guarded(&mut self, now: Now, spool: &mut SpoolWriter, outbox: &mut Outbox) {
        let call = self.call;
        self.guarded(outbox, |this, outbox| this.process(now, spool, outbox));
        if self.failed {
            self.refuse_commands(call, outbox);
        }
    }

    /// Runs `act`; a panic in it ends this call's capture for good.
    fn guarded(&mut self, outbox: &mut Outbox, act: impl FnOnce(&mut Self, &mut Outbox)) {
        if self.failed {
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| act(self, outbox))).is_err() {
            tracing::error!(call = %self.call, "a defect stopped the recording of a call");
            self.failed = true;
            self.ring = None;
            outbox.fail_call(self.call);
        }
    }

    /// Frames up to each command, the command, the rest of the frames, then time.
    fn process(&mut self, now: Now, spool: &mut SpoolWriter, outbox: &mut Outbox) {
        while let Some((after, command)) = self.commands.pop_front() {
            self.read_ring(after, spool, outbox);
            self.on_command(now, command, outbox);
            self.take_outputs(spool, outbox);
        }
        self.read_ring(u64::MAX, spool, outbox);
        while let Some(leg) = self.ring.as_mut().and_then(RingReader::overrun) {
            self.capture.on_command(now, CaptureCommand::Overrun { leg });
        }
        if self.capture.poll_timeout().is_some_and(|due| due <= now.mono) {
            self.capture.on_timeout(now);
        }
        self.take_outputs(spool, outbox);
        if let Some(ring) = self.ring.as_ref().filter(|_| !self.capture.wants_frames()) {
            ring.set_idle();
        }
    }

    fn on_command(&mut self, now: Now, command: CaptureCommand, outbox: &mut Outbox) {
        match &command {
            CaptureCommand::OpenTap { permit, target } => {
                self.on_opening();
                if let Ok(new) = target {
                    outbox
                        .open
                        .insert(new.id, Open { call: permit.call(), permit: permit.id(), begun: false });
                }
            }
            CaptureCommand::StartPreamble { .. } => self.on_opening(),
            CaptureCommand::End => self.ended = true,
            _ => {}
        }
        self.capture.on_command(now, command);
    }

    fn on_opening(&mut self) {
        if let Some(ring) = &mut self.ring {
            ring.on_opening();
        }
    }

    fn read_ring(&mut self, until: u64, spool: &mut SpoolWriter, outbox: &mut Outbox) {
        let Some(mut ring) = self.ring.take() else { return };
        ring.read(until, |frame| {
            self.capture.on_frame(frame);
            self.take_outputs(spool, outbox);
        });
        self.ring = Some(ring);
    }

    fn take_outputs(&mut self, spool: &mut SpoolWriter, outbox: &mut Outbox) {
        while let Some(output) = self.capture.poll_output() {
            match output {
                crate::Output::Event(event) => outbox.report(event),
                output => spool.apply(output),
            }
        }
    }

    /// After a defect: what would begin something is refused, what would end something has nothing to end.
    fn refuse_commands(&mut self, call: CallId, outbox: &mut Outbox) {
        for (_, command) in self.commands.drain(..) {
            match command {
                CaptureCommand::StartPreamble { .. } => outbox.report(Event::PreambleUnavailable { call }),
                CaptureCommand::OpenTap { permit, .. } => {
                    let permit = permit.id();
                    outbox.report(Event::RecordingFailed { call, permit, recording: None });
                }
                CaptureCommand::End => self.ended = true,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::sync::Arc;

    use consent::{Epoch, Reason};
    use tokio::sync::mpsc::{Receiver, channel};
    use zeroize::Zeroizing;

    use super::*;
    use crate::fixture::dispatch_permit;
    use crate::plane::report::Counters;
    use crate::preamble::LockedBudget;
    use crate::{NewRecording, RecordingKey};

    const CALL: CallId = CallId(3);

    struct Bench {
        call: CallCapture,
        spool: SpoolWriter,
        outbox: Outbox,
        events: Receiver<Event>,
        _folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (sender, events) = channel(64);
            let budget = LockedBudget::new(1 << 20);
            let settings = CaptureSettings { lookback_ms: 0, preamble_bytes: 4_096, budget };
            Self {
                call: CallCapture::new(CALL, settings),
                spool: SpoolWriter::new(folder.path(), None).unwrap(),
                outbox: Outbox {
                    reporter: Reporter::new(sender, Arc::new(Counters::default())),
                    open: HashMap::new(),
                },
                events,
                _folder: folder,
            }
        }

        fn command(&mut self, command: CaptureCommand) {
            self.call.commands.push_back((0, command));
        }

        fn process(&mut self) -> Vec<Event> {
            self.call.process_guarded(Now::default(), &mut self.spool, &mut self.outbox);
            std::iter::from_fn(|| self.events.try_recv().ok()).collect()
        }
    }

    fn open_tap() -> CaptureCommand {
        let key = RecordingKey { secret: Zeroizing::new([7; 32]), wrapped: Vec::new() };
        let channels = ["caller".to_owned(), "callee".to_owned()];
        let target = Ok(NewRecording { id: RecordingId(9), key, channels, look_back: false });
        CaptureCommand::OpenTap { permit: dispatch_permit(CALL), target }
    }

    #[test]
    fn a_defect_fails_the_calls_recordings_and_refuses_new_ones() {
        let mut bench = Bench::new();
        bench.command(open_tap());
        bench.process();
        bench.call.guarded(&mut bench.outbox, |_, _| panic!("a defect"));
        let permit = dispatch_permit(CALL).id();
        let failed = |recording| Event::RecordingFailed { call: CALL, permit, recording };
        assert_eq!(bench.process(), [failed(Some(RecordingId(9)))]);
        bench.command(open_tap());
        bench.command(CaptureCommand::StartPreamble { epoch: Epoch(1) });
        bench.command(CaptureCommand::WipePreamble { reason: Reason::Ended });
        assert_eq!(bench.process(), [failed(None), Event::PreambleUnavailable { call: CALL }]);
        bench.command(CaptureCommand::End);
        bench.process();
        assert!(bench.call.ended);
    }

    #[test]
    fn a_revocation_waits_only_for_the_opening_that_it_revokes() {
        let mut bench = Bench::new();
        assert!(bench.call.may_revoke());
        bench.command(open_tap());
        assert!(!bench.call.may_revoke());
        bench.process();
        assert!(bench.call.may_revoke());
    }

    #[test]
    fn a_link_keeps_what_there_is_no_room_for_and_notices_when_the_writer_is_gone() {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let mut link = WriterLink::new(sender);
        let answered = || ToWriter::Command { call: CALL, after: 0, command: CaptureCommand::Answered };
        assert_eq!((link.send(answered()), link.send(answered())), (Ok(()), Ok(())));
        assert!(link.is_behind() && link.may_open());
        receiver.recv().unwrap();
        assert_eq!(link.flush(), Ok(()));
        assert!(!link.is_behind());
        drop(receiver);
        assert_eq!(link.send(answered()), Err(Unavailable));
    }
}
