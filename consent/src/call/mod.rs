//! The machine of one call: parties over time, what each has agreed to, and what the gate does about it.
//!
//! Inputs are facts with the epoch they belong to; outputs are actions for the media plane and rows for
//! the record. Nothing here knows a socket, a file or a clock. C.G.S. § 52-570d(a)(1) (consent of all, part
//! of and at the start of the recording) and policy clause 8 govern; docs/POLICY.md, "Which rule wins", and
//! "One call, in order", steps 7 to 12, say how.
//!
//! # Which machine a call gets
//!
//! | the call | state | said at once |
//! |---|---|---|
//! | emergency | `Final` | shut, `emergency` |
//! | on a union line | `Final` | shut, `union` |
//! | on a dispatch line, whatever else it is | `Dispatch` | `Open`, from the first epoch on; open, `dispatch-line` |
//! | with a union number | `Final` | shut, `union` |
//! | on a never line; on no listed line | `Final` | shut, `never-line`; shut, `unlisted-line` |
//! | on a consent line with a privileged or a student's number | `Final` | shut, `privileged`, `student` |
//! | on a consent line | `Idle` | nothing |
//!
//! # The consent line
//!
//! *Begin* means: if a party is on hold, `Paused`; if a peer hides its parties, shut with `parties-hidden`;
//! else, where every party's telephone has asked for a recording, `Open` without a question; else, on a
//! `signalled-only` line, `Idle`, with "stopped" to both if anything was stored; else `StartPreamble` with the
//! epoch in force, then `Buffering`. *Interrupt* means: the parties concerned
//! have agreed to nothing, shut with the reason, begin again (at most 5 times in a call, then `Shut` and
//! `not-permitted`). *Refuse* means: wipe, stop the questions, let digits pass, say "not recorded" to both,
//! shut with the reason, `Shut`.
//!
//! | state | input | output | next |
//! |---|---|---|---|
//! | `Idle` | answered, `every-call`; every telephone has asked for a recording | begin; shut, `asking` (the first time) | `Buffering` |
//! | `Idle` | answered, `on-request`, `signalled-only` | shut, `not-requested` | `Idle` |
//! | `Idle` | request code of the district party, after the answer | begin | `Buffering` |
//! | `Idle`, `Paused` | withdrawal code | "not recorded" to both, shut, `withdrawn` | `Shut` |
//! | `Paused` | nobody holds any more | begin | `Buffering` |
//! | `Buffering` | preamble started, its epoch | swallow digits, question to all who have not agreed | `Asking` |
//! | any | what a telephone says of recording | as [`preference`] says | |
//! | `Buffering`, `Asking` | preamble unavailable; none within 2 s | refuse, `no-preamble-memory` | `Shut` |
//! | `Asking` | question began to play, in its epoch | keys of that leg are answers from then on | `Asking` |
//! | `Asking` | accept, pressed since the leg's question began, in its epoch | agreed; its question stops | `Asking` |
//! | `Asking` | the last accept | `Open` for exactly this epoch, digits pass, "recording" to both | `Open` |
//! | `Asking` | decline or withdrawal code | refuse, `declined` | `Shut` |
//! | `Asking` | question played to its end | answer timeout of that leg starts | `Asking` |
//! | `Asking` | answer timeout, attempts left | question to that leg again | `Asking` |
//! | `Asking` | answer timeout, no attempt left | refuse, `no-answer` | `Shut` |
//! | `Asking` | question cut short; no end of it within 60 s | refuse, `prompt-incomplete` | `Shut` |
//! | `Buffering`, `Asking` | cannot ask | refuse, `cannot-ask` (said to the other leg only) | `Shut` |
//! | `Buffering`, `Asking` | party changed, doubt | wipe, interrupt | `Buffering`, `Paused` |
//! | `Buffering`, `Asking` | held | wipe, interrupt | `Paused` |
//! | `Open` | held | `Suspend`; shut, `held` | `Suspended` |
//! | `Suspended` | nobody holds any more, nothing else changed | `Open` for the new epoch, continuing | `Open` |
//! | `Open`, `Suspended` | party changed, doubt | `Revoke`, interrupt | `Buffering`, `Paused` |
//! | `Open`, `Suspended` | withdrawal code | `Revoke`, "stopped" to both; shut, `withdrawn` | `Shut` |
//! | `Open`, `Suspended` | recorder failed | `Revoke`; shut, `recorder-failed` | `Shut` |
//! | `Open`, `Suspended` | ended | `Close`; shut, `ended` | `Final` |
//! | `Buffering`, `Asking` | ended | wipe; shut, `ended` or `prompt-incomplete` | `Final` |
//! | `Idle`, `Paused` | ended, nothing said yet | shut, `ended` | `Final` |
//! | any but `Final`, `Shut` | barred: a union, never, privileged or student's newcomer, or an emergency call | wipe or `Revoke`, "stopped" or "not recorded" to both (not into an emergency call); shut with the reason | `Shut` |
//! | any that asks or records | an epoch that no event explained, or that was skipped | as doubt | |
//! | `Shut` | anything | at most a ledger row | `Shut` |
//!
//! # The dispatch line
//!
//! | state | input | output | next |
//! |---|---|---|---|
//! | `Dispatch` | left its line | `Close` (no epoch off the line is covered); shut, `left-line` | `OffLine` |
//! | `Dispatch` | barred: the newcomer is on a union or never line | the same; shut with the reason | `OffLine` |
//! | `Dispatch` | recorder failed | shut, `recorder-failed` (the permit lives on: a second writer may serve it) | `Dispatch` |
//! | `Dispatch` | ended | `Close`; shut, `ended` | `Final` |
//! | `OffLine` | on a dispatch line again, and nobody on the call is barred | `Open` from its epoch on; open, `dispatch-line` | `Dispatch` |
//! | `OffLine` | ended | nothing | `Final` |
//! | either | anything else | nothing, a withdrawal code at most a ledger row | |
//!
//! # Decided here, where the sources leave a choice
//!
//! - A key pressed while one's own question plays is an answer and ends it: the party heard as much as it
//!   wanted. "Cut short" is what a failure does. The evidence says how far into the question it was.
//! - Silence is a refusal (`refused`), and so is hanging up instead of answering; hanging up while a
//!   question still plays is `prompt-incomplete`.
//! - Whoever agreed, or whose telephone did, may still decline until all have agreed.
//! - A refusal, silence or failure ends the asking for the rest of the call: nobody is pestered.
//! - A key that goes on with a code (`*81`) is part of that code and no answer.
//! - A resume that follows no hold, or comes out of order, is doubt.
//! - A dispatch call that leaves its line is `partly-recorded`: the call went on without the recording. One
//!   that was back before anybody answered lost nothing but ringing, and is `recorded`.
//!
//! Left out: written consents, asking a newcomer alone, the recording tone
//! ([`Settings::tone`](crate::Settings) is only carried).

use std::sync::Arc;

use crate::{
    Basis, CallFacts, CallId, Decision, Direction, Epoch, Evidence, GateState, Leg, Line, LineClass, Mono,
    Now, NumberClass, PermitId, Reason, RuleSet,
};

mod asking;
mod code;
mod consented;
mod event;
mod newcomer;
mod party;
mod preference;
mod words;

use asking::Asking;
use party::Party;

pub use code::CodeMatcher;
pub use event::{Action, Event, Notice, RecordingOutcome, Signal, SignalMeaning, SignalSource};
pub use newcomer::{Arrival, Joined, Newcomer};
pub use preference::Preference;

/// How often the parties may be asked again after an interruption, so that a flapping leg cannot keep a
/// call in prompts.
const MOST_REPEATS: u32 = 5;

/// How long the recorder may take to lock the preamble's memory, in ms. Nobody hears anything meanwhile;
/// a question that comes later than this would break into the conversation.
const PREAMBLE_WAIT_MS: u64 = 2_000;

/// Ledger rows without effect that one call may cause; further ones are left out, so that a party leaning
/// on a key cannot fill the ledger. Rows with effect are bounded by the machine itself.
const MOST_IDLE_SIGNALS: u32 = 64;

/// What one asking can leave as evidence: two legs, ten attempts, three entries each, and the answers.
/// Beyond, nothing is added.
const MOST_EVIDENCE: usize = 80;

/// One call, from its INVITE to its end.
///
/// The shell must hand in an event for every epoch that signalling begins, at once; the relay's own (a
/// doubt, a withdrawal) may be late. An epoch that comes out of order or is skipped counts as doubt.
#[derive(Debug)]
pub struct Call {
    id: CallId,
    rules: Arc<RuleSet>,
    line: Option<Line>,
    line_leg: Leg,
    /// A union line or number is or was on it: who is not at the line's leg is not shown.
    with_union: bool,
    direction: Direction,
    /// Whether the peers of leg A and leg B signal their parties.
    signalled: [bool; 2],
    parties: [Party; 2],
    answered: bool,
    /// The newest epoch heard of. `Buffering`, `Asking` and `Open` hold for this one and no other.
    epoch: Epoch,
    state: State,
    askings: u32,
    permits: u32,
    record: Record,
}

/// What has been said about the call so far, and what is still to be said.
#[derive(Debug)]
struct Record {
    /// The current asking and what led to it: the ground of a consent.
    asking: Vec<Evidence>,
    /// What brought about the next decision.
    occasion: Vec<Evidence>,
    decided: bool,
    idle_signals: u32,
    outcome: RecordingOutcome,
    basis: Option<Basis>,
    /// The recorder has written something.
    started: bool,
    /// Something was stored, and then stopped before the call's end.
    broken: bool,
}

#[derive(Debug)]
enum State {
    /// Nothing that happens has any effect any more.
    Final,
    /// A consent line on which nothing is stored for the rest of the call.
    Shut,
    Dispatch {
        permit: PermitId,
        failed: bool,
    },
    /// A dispatch call that is not on its line; `off` says because of which legs.
    OffLine {
        off: [bool; 2],
    },
    /// Not asked: not answered yet, or nobody wants a recording.
    Idle,
    /// To be asked as soon as nobody holds.
    Paused,
    /// The preamble is being set up.
    Buffering {
        deadline: Mono,
    },
    Asking(Asking),
    /// `first` is the permit with which the recording began.
    Open {
        permit: PermitId,
        first: PermitId,
    },
    /// On hold, under the permit that was live before.
    Suspended {
        permit: PermitId,
        first: PermitId,
    },
}

impl Call {
    /// Finds the line and what may be done, and says at once what to do (on a dispatch line: open, so that
    /// early media is stored). `epoch` is the call's first.
    #[must_use]
    pub fn new(
        id: CallId,
        rules: Arc<RuleSet>,
        facts: &CallFacts<'_>,
        now: Now,
        epoch: Epoch,
        out: &mut Vec<Action>,
    ) -> Self {
        let line = rules.line_of(facts).cloned();
        let class = line.as_ref().map(|line| line.class);
        let number = rules.number_class_of(facts);
        let mut call = Self {
            id,
            with_union: class == Some(LineClass::Union) || number == Some(NumberClass::Union),
            direction: facts.direction,
            signalled: [facts.parties_signalled, true],
            parties: Leg::BOTH.map(|_| Party::new(rules.settings())),
            answered: false,
            epoch,
            state: State::Final,
            askings: 0,
            permits: 0,
            record: Record::new(),
            line,
            line_leg: newcomer::line_leg(facts, &rules),
            rules,
        };
        match bar(facts.emergency, class, number) {
            Some((reason, outcome)) => {
                call.record.outcome = outcome;
                call.note(now, None, words::ground(reason));
                call.decide(now, GateState::Shut, reason, out);
            }
            None if class == Some(LineClass::Dispatch) => call.open_dispatch(now, out),
            None => call.state = State::Idle,
        }
        call
    }

    /// The district's line, if the call is on a listed one.
    #[must_use]
    pub const fn line(&self) -> Option<&Line> {
        self.line.as_ref()
    }

    /// The leg at whose far end the line is.
    #[must_use]
    pub const fn line_leg(&self) -> Leg {
        self.line_leg
    }

    /// The class of its line; `Never` where none is listed.
    #[must_use]
    pub fn class(&self) -> LineClass {
        self.line.as_ref().map_or(LineClass::Never, |line| line.class)
    }

    /// Tells whether the peer behind a leg signals its parties. The last word before an asking counts (a
    /// failover or a transfer may change it); an open recording is not touched.
    pub const fn set_parties_signalled(&mut self, leg: Leg, signalled: bool) {
        self.signalled[leg.index()] = signalled;
    }

    /// Takes in what happened. `now` is the instant at which it happened where that is known: for a key,
    /// when the press began, so that one that began before the question is never taken for an answer, and so
    /// that codes are timed as the relay times them; for the question, when its first sample left. What fell due before is done first, so that an
    /// answer after its deadline is late however busy the shell was.
    pub fn on_event(&mut self, now: Now, event: Event, out: &mut Vec<Action>) {
        self.on_timeout(now, out);
        match event {
            Event::Answered { epoch } => self.on_answered(now, epoch, out),
            Event::PartyChanged { leg, epoch } => self.on_party_changed(now, leg, epoch, out),
            Event::Barred { leg, epoch, reason } => self.on_barred(now, leg, epoch, reason, out),
            Event::Doubt { leg, epoch } => self.on_doubt(now, leg, epoch, out),
            Event::Held { leg, epoch } => self.on_held(now, leg, epoch, out),
            Event::Resumed { leg, epoch } => self.on_resumed(now, leg, epoch, out),
            Event::LeftLine { epoch } => self.on_left_line(now, epoch, out),
            Event::OnLine { leg, epoch } => self.on_line_again(now, leg, epoch, out),
            Event::Digit { leg, digit, source, epoch } => self.on_digit(now, leg, digit, source, epoch, out),
            Event::Preferred { leg, preference, epoch } => {
                self.on_preference(now, leg, preference, epoch, out);
            }
            Event::PreambleStarted { epoch } => self.on_preamble_started(now, epoch, out),
            Event::PreambleUnavailable => self.on_preamble_unavailable(now, out),
            Event::CannotAsk { leg } => self.on_cannot_ask(now, leg, out),
            Event::Playing { leg, notice: Notice::Question, epoch } => {
                self.on_question_playing(now, leg, epoch);
            }
            Event::Played { leg, notice: Notice::Question, complete } => {
                self.on_question_played(now, leg, complete, out);
            }
            Event::Playing { .. } | Event::Played { .. } => {}
            Event::RecordingStarted { permit } => self.record.started |= permit.0 < self.permits,
            Event::RecorderFailed { permit } => self.on_recorder_failed(now, permit, out),
            Event::Ended => self.on_ended(now, out),
        }
    }

    /// When [`Self::on_timeout`] is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        match &self.state {
            State::Buffering { deadline } => Some(*deadline),
            State::Asking(asking) => asking.deadline(),
            _ => None,
        }
    }

    /// How the call fared so far as to recording.
    #[must_use]
    pub const fn recording_outcome(&self) -> RecordingOutcome {
        self.record.outcome
    }

    /// The basis on which anything was stored (or, without media, might have been).
    #[must_use]
    pub const fn basis(&self) -> Option<Basis> {
        self.record.basis
    }

    fn on_left_line(&mut self, now: Now, epoch: Epoch, out: &mut Vec<Action>) {
        if matches!(self.state, State::Dispatch { .. } | State::OffLine { .. }) {
            self.leave_line(now, self.line_leg, epoch, Reason::LeftLine, out);
        } else {
            self.on_unexplained(now, epoch, out);
        }
    }

    fn on_barred(&mut self, now: Now, leg: Leg, epoch: Epoch, reason: Reason, out: &mut Vec<Action>) {
        if matches!(self.state, State::Dispatch { .. } | State::OffLine { .. }) {
            self.leave_line(now, leg, epoch, reason, out);
        } else {
            self.on_barred_party(now, leg, epoch, reason, out);
        }
    }

    /// Ends what a dispatch call stores, because of whoever is at `leg` now.
    fn leave_line(&mut self, now: Now, leg: Leg, epoch: Epoch, reason: Reason, out: &mut Vec<Action>) {
        self.epoch = self.epoch.max(epoch);
        let mut off = [false; 2];
        if let State::OffLine { off: before } = self.state {
            off = before;
        }
        off[leg.index()] = true;
        if let State::Dispatch { permit, failed } = std::mem::replace(&mut self.state, State::OffLine { off })
        {
            out.push(Action::Close { permit });
            if !failed {
                self.record.outcome = RecordingOutcome::PartlyRecorded;
                self.note(now, Some(leg), words::ground(reason));
                self.decide(now, GateState::Shut, reason, out);
            }
        }
    }

    fn on_line_again(&mut self, now: Now, leg: Leg, epoch: Epoch, out: &mut Vec<Action>) {
        self.on_party_changed(now, leg, epoch, out);
        if matches!(self.state, State::OffLine { off: [false, false] }) && epoch.is_on_line() {
            let outcome = if self.answered { self.record.outcome } else { RecordingOutcome::Recorded };
            self.open_dispatch(now, out);
            self.record.outcome = outcome;
        }
    }

    fn on_recorder_failed(&mut self, now: Now, failed_permit: PermitId, out: &mut Vec<Action>) {
        match &mut self.state {
            State::Dispatch { permit, failed } if *permit == failed_permit && !*failed => *failed = true,
            State::Open { permit, first } | State::Suspended { permit, first }
                if (*first..=*permit).contains(&failed_permit) =>
            {
                out.push(Action::Revoke { permit: *permit, reason: Reason::RecorderFailed });
                self.state = State::Shut;
            }
            _ => return,
        }
        self.record.outcome = if self.record.started || self.record.broken {
            RecordingOutcome::PartlyRecorded
        } else {
            RecordingOutcome::Failed
        };
        self.note(now, None, "the recorder reported a failure");
        self.decide(now, GateState::Shut, Reason::RecorderFailed, out);
    }

    fn on_ended(&mut self, now: Now, out: &mut Vec<Action>) {
        let state = std::mem::replace(&mut self.state, State::Final);
        let mut reason = Reason::Ended;
        let mut says = true;
        match state {
            State::Final | State::Shut | State::OffLine { .. } => says = false,
            State::Idle | State::Paused => says = !self.record.decided,
            State::Dispatch { permit, failed } => {
                out.push(Action::Close { permit });
                says = !failed;
            }
            State::Open { permit, .. } | State::Suspended { permit, .. } => {
                out.push(Action::Close { permit });
            }
            State::Buffering { .. } => out.push(Action::WipePreamble(reason)),
            State::Asking(asking) => {
                let heard = asking.is_heard_by_all();
                if !heard {
                    reason = Reason::PromptIncomplete;
                }
                self.settle(words::outcome(if heard { Reason::NoAnswer } else { reason }));
                out.push(Action::WipePreamble(reason));
            }
        }
        if says {
            self.note(now, None, "the call ended");
            self.decide(now, GateState::Shut, reason, out);
        }
    }

    fn open_dispatch(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(permit) = self.permit(Basis::DispatchLine, self.epoch.last_of_stint()) else { return };
        self.state = State::Dispatch { permit: permit.id(), failed: false };
        self.record.outcome = RecordingOutcome::Recorded;
        out.push(Action::Open { permit, continues: None });
        self.note(now, None, words::ground(Reason::DispatchLine));
        self.decide(now, GateState::Open, Reason::DispatchLine, out);
    }

    /// Issues the next permit, from the epoch in force on. Only a line can give one: its retention tag is
    /// part of it.
    fn permit(&mut self, basis: Basis, last: Epoch) -> Option<crate::Permit> {
        let retention = self.line.as_ref()?.retention.clone();
        let id = PermitId(self.permits);
        self.permits += 1;
        self.record.basis = Some(basis);
        Some(crate::Permit::issue(self.id, id, basis, self.rules.version(), retention, self.epoch, last))
    }

    /// States a decision, with the evidence of the asking and of what brought it about.
    fn decide(&mut self, now: Now, gate: GateState, reason: Reason, out: &mut Vec<Action>) {
        let basis = match gate {
            GateState::Open => self.record.basis,
            GateState::Shut => None,
        };
        let on_line = Leg::BOTH.iter().filter(|&&leg| leg == Leg::A || self.answered);
        let parties: Vec<_> = on_line.map(|&leg| self.parties[leg.index()].state(leg)).collect();
        let mut evidence = self.record.asking.clone();
        evidence.append(&mut self.record.occasion);
        self.record.decided = true;
        out.push(Action::Decided(Decision {
            at: now.wall,
            gate,
            basis,
            clause: words::clause(reason, self.class()).to_owned(),
            rule_version: self.rules.version(),
            reason,
            otherwise: words::otherwise(reason, &parties),
            parties,
            evidence,
        }));
    }

    /// Notes what brings about the next decision.
    fn note(&mut self, now: Now, leg: Option<Leg>, what: &str) {
        if self.record.occasion.len() < MOST_EVIDENCE {
            self.record.occasion.push(Evidence { at: now.wall, leg, what: what.to_owned() });
        }
    }

    /// An outcome that holds only where nothing has been stored before.
    fn settle(&mut self, outcome: RecordingOutcome) {
        self.record.outcome = if self.record.broken { RecordingOutcome::PartlyRecorded } else { outcome };
    }
}

impl Record {
    const fn new() -> Self {
        Self {
            asking: Vec::new(),
            occasion: Vec::new(),
            decided: false,
            idle_signals: 0,
            outcome: RecordingOutcome::NotAsked,
            basis: None,
            started: false,
            broken: false,
        }
    }
}

/// Whether anything bars the call from being stored whatever its parties say (docs/POLICY.md, "Which rule
/// wins"): above the dispatch line, an emergency and the line's own class; below it, the numbers.
fn bar(
    emergency: bool,
    class: Option<LineClass>,
    number: Option<NumberClass>,
) -> Option<(Reason, RecordingOutcome)> {
    let reason = match (class, number) {
        _ if emergency => Reason::Emergency,
        (Some(LineClass::Union), _) => Reason::Union,
        (Some(LineClass::Dispatch), _) => return None,
        (_, Some(NumberClass::Union)) => Reason::Union,
        (Some(LineClass::Never), _) => Reason::NeverLine,
        (None, _) => Reason::UnlistedLine,
        (Some(LineClass::Consent), Some(NumberClass::Privileged)) => Reason::Privileged,
        (Some(LineClass::Consent), Some(NumberClass::Student)) => Reason::Student,
        (Some(LineClass::Consent), None) => return None,
    };
    Some((reason, words::outcome(reason)))
}
