//! What is kept of one call: a pure machine, told frames, commands and time, that says what to write.
//!
//! | held | input | then |
//! |---|---|---|
//! | nothing | frame | forgotten |
//! | nothing | `StartPreamble` | memory is locked: `PreambleStarted`; or not: `PreambleUnavailable` |
//! | preamble | frame of exactly its epoch, from the question's first packet on | waits in locked memory |
//! | preamble | frame of any other epoch, or before the question | forgotten |
//! | preamble | memory full | zeroised: `PreambleWiped`, `PreambleUnavailable` |
//! | preamble | `WipePreamble`, `End` | zeroised: `PreambleWiped` |
//! | any | `OpenTap` for a new recording | a recording begins; the preamble, if any, is its start |
//! | recording | frame, `Suspend`, `Revoke`, `CloseTap`, `End` | see [`recording`](crate::recording) |
//!
//! The shell feeds a call's frames in the order in which they were stamped, and a command after every frame
//! that was stamped before it was given; best through the same queue. It reads the clock, feeds what has
//! come in by then, and only then calls [`Capture::on_timeout`] with that reading: time that runs ahead of
//! frames makes them late. Then it takes outputs until there are none. A `Revoke` may be fed early.
//!
//! Outputs are not bounded here: each input adds a few, and the shell takes them before the next.

use std::collections::VecDeque;

use consent::{CallId, Epoch, Leg, Mono, Now, Permit, PermitId, Phase, Reason, RecordingId};

use crate::preamble::{LockedBudget, LockedQueue};
use crate::recording::{Recording, StoreError};
use crate::{Command, Content, Event, Frame, NewRecording, Sealed};

/// How a call is captured.
#[derive(Clone, Debug)]
pub struct CaptureSettings {
    /// How long audio of consent lines waits in locked memory before it is written, ms.
    pub lookback_ms: u64,
    /// Locked memory for one call's preamble: both legs and the prompts take some 30 kB a second.
    pub preamble_bytes: usize,
    /// What all calls together may lock.
    pub budget: LockedBudget,
}

/// What the hub wants of a call's capture: the part of [`Command`] that concerns it.
#[derive(Debug)]
pub enum CaptureCommand {
    /// See [`Command::StartPreamble`].
    StartPreamble {
        /// The epoch of the asking.
        epoch: Epoch,
    },
    /// See [`Command::WipePreamble`].
    WipePreamble {
        /// Why.
        reason: Reason,
    },
    /// See [`Command::OpenTap`].
    OpenTap {
        /// The permit.
        permit: Permit,
        /// The recording to begin, or the permit whose recording goes on.
        target: Result<NewRecording, PermitId>,
    },
    /// See [`Command::Revoke`].
    Revoke {
        /// Which permit.
        permit: PermitId,
    },
    /// See [`Command::Suspend`].
    Suspend {
        /// Which permit.
        permit: PermitId,
    },
    /// See [`Command::CloseTap`].
    CloseTap {
        /// Which permit.
        permit: PermitId,
    },
    /// The call was answered.
    Answered,
    /// The call is over.
    End,
    /// Frames of a leg were lost between the relay and here (a full queue): the hole is the recorder's.
    Overrun {
        /// Whose.
        leg: Leg,
    },
    /// No copy of the recording's file can be written any further. What is on disk stays for recovery.
    WriteFailed {
        /// Which.
        recording: RecordingId,
    },
}

/// What the shell is to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Create the recording's file in the spool with these bytes.
    Create {
        /// Which.
        recording: RecordingId,
        /// Of which call.
        call: CallId,
        /// Whether to write a second copy, where a second spool is configured (dispatch lines).
        twice: bool,
        /// Its first bytes.
        bytes: Vec<u8>,
    },
    /// Append to it, in one write.
    Append {
        /// Which.
        recording: RecordingId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Have what is written of it on the medium soon.
    Sync {
        /// Which.
        recording: RecordingId,
    },
    /// It is complete: sync, rename, sync the directory, and only then report it sealed.
    Finish {
        /// Which.
        recording: RecordingId,
        /// What to report; `file` is its name in the spool.
        sealed: Box<Sealed>,
    },
    /// It holds no sample: remove it.
    Discard {
        /// Which.
        recording: RecordingId,
    },
    /// Tell the hub.
    Event(Event),
}

/// The capture of one call.
#[derive(Debug)]
pub struct Capture {
    call: CallId,
    settings: CaptureSettings,
    answered: bool,
    preamble: Option<Preamble>,
    recording: Option<Recording>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Preamble {
    epoch: Epoch,
    queue: LockedQueue,
    /// The question has begun, to one party at least.
    begun: bool,
}

impl Preamble {
    /// Whether a frame is part of it: what was said before the question is not.
    fn admits(&mut self, frame: &Frame) -> bool {
        let present = frame.epoch == self.epoch;
        self.begun |= present && matches!(frame.content, Content::Told { question: true, .. });
        present && self.begun
    }
}

impl CaptureCommand {
    /// The call and what it means for the capture.
    ///
    /// # Errors
    /// Gives back a command that does not concern it.
    pub fn from_command(command: Command) -> Result<(CallId, Self), Box<Command>> {
        Ok(match command {
            Command::StartPreamble { call, epoch } => (call, Self::StartPreamble { epoch }),
            Command::WipePreamble { call, reason } => (call, Self::WipePreamble { reason }),
            Command::OpenTap { permit, target } => (permit.call(), Self::OpenTap { permit, target }),
            Command::Revoke { call, permit, reason: _ } => (call, Self::Revoke { permit }),
            Command::Suspend { call, permit } => (call, Self::Suspend { permit }),
            Command::CloseTap { call, permit } => (call, Self::CloseTap { permit }),
            Command::Answered { call } => (call, Self::Answered),
            Command::End { call } => (call, Self::End),
            other => return Err(Box::new(other)),
        })
    }
}

impl Capture {
    /// Nothing is kept until a command says so.
    #[must_use]
    pub const fn new(call: CallId, settings: CaptureSettings) -> Self {
        Self { call, settings, answered: false, preamble: None, recording: None, outputs: VecDeque::new() }
    }

    /// A frame was stamped by the relay.
    pub fn on_frame(&mut self, frame: &Frame) {
        if let Some(preamble) = &mut self.preamble
            && preamble.admits(frame)
            && preamble.queue.push(frame).is_err()
        {
            self.wipe(Reason::NoPreambleMemory);
            self.outputs.push_back(Output::Event(Event::PreambleUnavailable { call: self.call }));
        }
        self.with_recording(|recording, out| recording.on_frame(frame, out));
    }

    /// The hub wants something.
    pub fn on_command(&mut self, now: Now, command: CaptureCommand) {
        match command {
            CaptureCommand::StartPreamble { epoch } => self.start_preamble(epoch),
            CaptureCommand::WipePreamble { reason } => self.wipe(reason),
            CaptureCommand::OpenTap { permit, target: Ok(target) } => self.begin(now, permit, target),
            CaptureCommand::OpenTap { permit, target: Err(earlier) } => self.go_on(permit, earlier),
            CaptureCommand::Revoke { permit } => {
                self.take_and(|recording| recording.was_under(permit), Recording::revoke);
            }
            CaptureCommand::Suspend { permit } => {
                if self.recording.as_ref().is_some_and(|recording| recording.permit() == permit) {
                    self.with_recording(Recording::suspend);
                }
            }
            CaptureCommand::CloseTap { permit } => {
                self.take_and(|recording| recording.permit() == permit, Recording::finish);
            }
            CaptureCommand::Answered => {
                self.answered = true;
                if let Some(recording) = &mut self.recording {
                    recording.answered(now.mono);
                }
            }
            CaptureCommand::End => {
                self.wipe(Reason::Ended);
                self.seal();
            }
            CaptureCommand::Overrun { leg } => {
                if let Some(recording) = &mut self.recording {
                    recording.overrun(leg);
                }
            }
            CaptureCommand::WriteFailed { recording } => {
                if let Some(failed) = self.recording.take_if(|open| open.id() == recording) {
                    self.failed(failed.permit(), Some(recording));
                }
            }
        }
    }

    /// Time has passed; every frame that arrived before `now` has been fed.
    pub fn on_timeout(&mut self, now: Now) {
        self.with_recording(|recording, out| recording.on_timeout(now.mono, out));
    }

    /// When [`Self::on_timeout`] is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.recording.as_ref().and_then(Recording::poll_timeout)
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether frames are of any use: a preamble or a recording is open. Where they are not, the relay need not
    /// copy them.
    #[must_use]
    pub const fn wants_frames(&self) -> bool {
        self.preamble.is_some() || self.recording.is_some()
    }

    fn start_preamble(&mut self, epoch: Epoch) {
        self.wipe(Reason::Asking);
        let call = self.call;
        let event = match LockedQueue::lock(&self.settings.budget, self.settings.preamble_bytes) {
            Ok(queue) => {
                self.preamble = Some(Preamble { epoch, queue, begun: false });
                Event::PreambleStarted { call, epoch }
            }
            Err(error) => {
                tracing::warn!(%call, error = &error as &dyn std::error::Error, "no memory for the preamble");
                Event::PreambleUnavailable { call }
            }
        };
        self.outputs.push_back(Output::Event(event));
    }

    fn wipe(&mut self, reason: Reason) {
        if let Some(preamble) = self.preamble.take() {
            let held_ms = preamble.queue.held_ms();
            self.outputs.push_back(Output::Event(Event::PreambleWiped { call: self.call, held_ms, reason }));
        }
    }

    fn begin(&mut self, now: Now, permit: Permit, target: NewRecording) {
        self.seal();
        if self.preamble.as_ref().is_some_and(|preamble| !permit.covers(self.call, preamble.epoch)) {
            self.wipe(Reason::Doubt);
        }
        let preamble = self.preamble.take();
        let agreed = preamble.is_some();
        let budget = self.settings.budget.clone();
        let waiting = match preamble {
            Some(preamble) => Some((preamble.queue, self.lookback_ms(&target))),
            None if target.look_back => {
                let bytes = Recording::lookback_bytes(self.settings.lookback_ms);
                match LockedQueue::lock(&budget, bytes) {
                    Ok(queue) => Some((queue, self.settings.lookback_ms)),
                    Err(error) => {
                        let (call, error) = (self.call, &error as &dyn std::error::Error);
                        tracing::warn!(%call, error, "no memory for the look-back");
                        return self.failed(permit.id(), None);
                    }
                }
            }
            None => None,
        };
        let phase = if agreed { Phase::Preamble } else { self.phase() };
        let mut recording = Recording::new(self.call, permit, target, phase, waiting, budget);
        if agreed {
            recording.agreed(now.mono);
        }
        self.recording = Some(recording);
    }

    const fn lookback_ms(&self, target: &NewRecording) -> u64 {
        if target.look_back { self.settings.lookback_ms } else { 0 }
    }

    const fn phase(&self) -> Phase {
        if self.answered { Phase::Answered } else { Phase::EarlyMedia }
    }

    fn go_on(&mut self, permit: Permit, earlier: PermitId) {
        let phase = self.phase();
        match self.recording.as_mut().filter(|recording| recording.was_under(earlier)) {
            Some(recording) => recording.reopen(permit, phase),
            None => self.failed(permit.id(), None),
        }
    }

    fn seal(&mut self) {
        if let Some(recording) = self.recording.take() {
            let (permit, id) = (recording.permit(), recording.id());
            if let Err(error) = recording.finish(&mut self.outputs) {
                self.broke(permit, id, &error);
            }
        }
    }

    fn take_and(
        &mut self,
        concerned: impl FnOnce(&Recording) -> bool,
        end: impl FnOnce(Recording, &mut VecDeque<Output>) -> Result<(), StoreError>,
    ) {
        let Some(recording) = self.recording.take_if(|recording| concerned(recording)) else { return };
        let (permit, id) = (recording.permit(), recording.id());
        if let Err(error) = end(recording, &mut self.outputs) {
            self.broke(permit, id, &error);
        }
    }

    fn with_recording(
        &mut self,
        act: impl FnOnce(&mut Recording, &mut VecDeque<Output>) -> Result<(), StoreError>,
    ) {
        let Some(recording) = &mut self.recording else { return };
        let (permit, id) = (recording.permit(), recording.id());
        if let Err(error) = act(recording, &mut self.outputs) {
            self.recording = None;
            self.broke(permit, id, &error);
        }
    }

    fn broke(&mut self, permit: PermitId, recording: RecordingId, error: &StoreError) {
        tracing::error!(call = %self.call, error = error as &dyn std::error::Error, "a recording broke off");
        self.failed(permit, Some(recording));
    }

    fn failed(&mut self, permit: PermitId, recording: Option<RecordingId>) {
        self.outputs.push_back(Output::Event(Event::RecordingFailed { call: self.call, permit, recording }));
    }
}
