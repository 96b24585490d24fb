//! The consent line's half of the machine: asking, opening, suspending, revoking.

use super::asking::{Asking, Due};
use super::party::{Key, Party};
use super::{
    Action, Call, MOST_EVIDENCE, MOST_IDLE_SIGNALS, MOST_REPEATS, Notice, PREAMBLE_WAIT_MS, RecordingOutcome,
    Signal, SignalMeaning, SignalSource, State, words,
};
use crate::{Ask, Basis, Direction, Epoch, Evidence, GateState, Leg, Now, PartyConsent, PermitId, Reason};

/// The evidence of `a=recordpref:off` or `pause`.
const REFUSES: &str = "its telephone asked that nothing be recorded";

/// How an event's epoch follows on what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// As it should.
    Next,
    /// An epoch in between was explained by nothing, or not yet: the relay's word may be on its way.
    Skipped,
    /// Not newer than what is known.
    Old,
}

impl Call {
    pub(super) fn on_answered(&mut self, now: Now, epoch: Epoch, out: &mut Vec<Action>) {
        if std::mem::replace(&mut self.answered, true) {
            return self.on_unexplained(now, epoch, out);
        }
        self.arrive(epoch);
        if !matches!(self.state, State::Idle) {
            return;
        }
        match self.ask() {
            Ask::EveryCall => self.begin(now, out),
            Ask::OnRequest | Ask::SignalledOnly if self.all_prefer() => self.begin(now, out),
            Ask::OnRequest | Ask::SignalledOnly => {
                self.decide(now, GateState::Shut, Reason::NotRequested, out);
            }
        }
    }

    pub(super) fn on_party_changed(&mut self, now: Now, leg: Leg, epoch: Epoch, out: &mut Vec<Action>) {
        self.arrive(epoch);
        self.forget_preferences();
        self.parties[leg.index()].forget();
        if let State::OffLine { off } = &mut self.state {
            off[leg.index()] = false;
        }
        self.note(now, Some(leg), "somebody else came on the line");
        self.interrupt(now, Reason::PartyChanged, out);
    }

    /// Somebody came with whom nothing may be stored, for the rest of the call.
    pub(super) fn on_barred_party(
        &mut self,
        now: Now,
        leg: Leg,
        epoch: Epoch,
        reason: Reason,
        out: &mut Vec<Action>,
    ) {
        self.arrive(epoch);
        // Nobody speaks into an emergency call.
        let told: &[Leg] = if reason == Reason::Emergency { &[] } else { &Leg::BOTH };
        self.note(now, Some(leg), words::ground(reason));
        match self.state {
            State::Final | State::Shut | State::Dispatch { .. } | State::OffLine { .. } => {
                return self.record.occasion.clear();
            }
            State::Open { permit, .. } | State::Suspended { permit, .. } => {
                out.push(Action::Revoke { permit, reason });
                self.record.broken = true;
                tell(Notice::Stopped, told, out);
            }
            State::Buffering { .. } | State::Asking(_) => return self.refuse(now, reason, told, out),
            State::Idle | State::Paused => {}
        }
        self.state = State::Shut;
        self.settle(words::outcome(reason));
        self.decide(now, GateState::Shut, reason, out);
    }

    pub(super) fn on_doubt(&mut self, now: Now, leg: Leg, epoch: Epoch, out: &mut Vec<Action>) {
        self.arrive(epoch);
        self.forget_preferences();
        self.parties[leg.index()].forget();
        self.note(now, Some(leg), "it became uncertain who is on the line");
        self.interrupt(now, Reason::Doubt, out);
    }

    /// An epoch was begun that no event explains: whoever agreed may be somebody else by now. The permit
    /// does not cover it anyway; this makes the machine know it.
    pub(super) fn on_unexplained(&mut self, now: Now, epoch: Epoch, out: &mut Vec<Action>) {
        if epoch <= self.epoch {
            return;
        }
        self.epoch = epoch;
        self.forget_consents();
        self.note(now, None, "a change was seen that nothing announced");
        self.interrupt(now, Reason::Doubt, out);
    }

    pub(super) fn on_held(&mut self, now: Now, leg: Leg, epoch: Epoch, out: &mut Vec<Action>) {
        let order = self.arrive(epoch);
        if !self.parties[leg.index()].hold(epoch) {
            return;
        }
        match (&self.state, order) {
            (&State::Open { permit, first }, Order::Next) => {
                out.push(Action::Suspend { permit });
                self.state = State::Suspended { permit, first };
                self.note(now, Some(leg), "the party put the call on hold");
                self.decide(now, GateState::Shut, Reason::Held, out);
            }
            (State::Open { .. } | State::Suspended { .. }, Order::Skipped) => {
                self.note(now, Some(leg), "before the hold, something changed that nothing announced");
                self.interrupt(now, Reason::Doubt, out);
            }
            // An open one here was agreed to while the hold was on its way.
            (State::Open { .. } | State::Buffering { .. } | State::Asking(_), _) => {
                self.note(now, Some(leg), "the party put the call on hold");
                self.interrupt(now, Reason::Held, out);
            }
            _ => {}
        }
    }

    pub(super) fn on_resumed(&mut self, now: Now, leg: Leg, epoch: Epoch, out: &mut Vec<Action>) {
        let order = self.arrive(epoch);
        if !self.parties[leg.index()].resume(epoch) {
            self.note(now, Some(leg), "a resume came that follows no hold");
            return self.interrupt(now, Reason::Doubt, out);
        }
        let held = self.anybody_holds();
        match (&self.state, order) {
            (&State::Suspended { permit, first }, Order::Next) if !held => {
                self.note(now, Some(leg), "the party that had put the call on hold took it back");
                self.open(now, Some((permit, first)), out);
            }
            (State::Suspended { .. }, Order::Next) => {}
            (State::Suspended { .. }, Order::Skipped | Order::Old) => {
                self.note(now, Some(leg), "during the hold, something changed that nothing announced");
                self.interrupt(now, Reason::Doubt, out);
            }
            (State::Paused, _) if !held => self.begin(now, out),
            _ => {}
        }
    }

    pub(super) fn on_digit(
        &mut self,
        now: Now,
        leg: Leg,
        digit: char,
        source: SignalSource,
        epoch: Epoch,
        out: &mut Vec<Action>,
    ) {
        let key = self.parties[leg.index()].press(digit, source, now.mono);
        if key == Key::Withdraw {
            // The relay raises the epoch for this, so a newer one is explained.
            self.epoch = self.epoch.max(epoch);
            return self.on_withdrawal(now, leg, source, out);
        }
        self.on_unexplained(now, epoch, out);
        match key {
            Key::Request => self.on_request(now, leg, source, out),
            Key::Lone => self.on_answer(now, leg, digit, source, epoch, out),
            Key::Withdraw | Key::Midway => {}
        }
    }

    pub(super) fn on_withdrawal(&mut self, now: Now, leg: Leg, source: SignalSource, out: &mut Vec<Action>) {
        let ineffective =
            matches!(self.state, State::Final | State::Shut | State::Dispatch { .. } | State::OffLine { .. });
        let given = self.parties[leg.index()].consent == PartyConsent::Given;
        let by_preference = source == SignalSource::RecordPreference;
        // A telephone that never agreed has nothing to take back.
        let declines = by_preference && !given;
        let meaning = if declines { SignalMeaning::Decline } else { SignalMeaning::Withdraw };
        self.hear(now, leg, meaning, source, !ineffective, out);
        if ineffective {
            return;
        }
        let what = if by_preference { REFUSES } else { "the party dialled the withdrawal code" };
        self.note(now, Some(leg), what);
        let asked = matches!(self.state, State::Buffering { .. } | State::Asking(_));
        self.parties[leg.index()].consent =
            if declines || (asked && !given) { PartyConsent::Declined } else { PartyConsent::Withdrawn };
        if asked {
            return self.refuse(now, Reason::Declined, &Leg::BOTH, out);
        }
        let was_recorded = self.record.basis.is_some();
        if let State::Open { permit, .. } | State::Suspended { permit, .. } = self.state {
            out.push(Action::Revoke { permit, reason: Reason::Withdrawn });
        }
        self.state = State::Shut;
        let reason = if declines { Reason::Declined } else { Reason::Withdrawn };
        if declines {
            self.settle(words::outcome(reason));
        } else {
            self.record.outcome = RecordingOutcome::Withdrawn;
        }
        // A party that dials the code awaits a word; of what a telephone says nobody knows.
        if self.answered && (was_recorded || !by_preference) {
            tell(if was_recorded { Notice::Stopped } else { Notice::NotRecording }, &Leg::BOTH, out);
        }
        self.decide(now, GateState::Shut, reason, out);
    }

    /// Only the district's own party may ask for a recording: a caller's keys never start anything.
    fn on_request(&mut self, now: Now, leg: Leg, source: SignalSource, out: &mut Vec<Action>) {
        if matches!(self.state, State::Final | State::Dispatch { .. } | State::OffLine { .. }) {
            return;
        }
        let district = match self.direction {
            Direction::Inbound => leg == Leg::B,
            Direction::Outbound => leg == Leg::A,
            Direction::Internal => true,
        };
        let open_to_it = self.answered && self.ask() == Ask::OnRequest && matches!(self.state, State::Idle);
        let effective = district && open_to_it;
        self.hear(now, leg, SignalMeaning::Request, source, effective, out);
        if effective {
            self.note(now, Some(leg), "the district party asked for a recording");
            self.begin(now, out);
        }
    }

    /// A key while a question is open. Keys at other times are none of the machine's business and leave
    /// no trace: they belong to the conversation.
    fn on_answer(
        &mut self,
        now: Now,
        leg: Leg,
        digit: char,
        source: SignalSource,
        epoch: Epoch,
        out: &mut Vec<Action>,
    ) {
        let settings = self.rules.settings();
        let meaning = match digit {
            _ if digit == settings.accept => SignalMeaning::Accept,
            _ if digit == settings.decline => SignalMeaning::Decline,
            _ => return,
        };
        let State::Asking(asking) = &mut self.state else { return };
        let current = asking.admits(leg, epoch, now.mono);
        // Whose telephone agreed in its place was not asked, and has heard the others be.
        let preferred = asking.is_of(epoch) && self.parties[leg.index()].preferred_at.is_some();
        if (current || preferred) && meaning == SignalMeaning::Decline {
            self.hear(now, leg, meaning, source, true, out);
            self.parties[leg.index()].consent = PartyConsent::Declined;
            self.note(now, Some(leg), "the party said no");
            return self.refuse(now, Reason::Declined, &Leg::BOTH, out);
        }
        let agreement = if current { asking.agree(leg, now.mono) } else { None };
        let all_agreed = asking.all_agreed();
        self.hear(now, leg, meaning, source, agreement.is_some(), out);
        let Some(agreement) = agreement else { return };
        self.parties[leg.index()].consent = PartyConsent::Given;
        let end = if agreement.playing { "before" } else { "after" };
        let what = format!("agreed {} ms after the question began, {end} its end", agreement.after_ms);
        self.note_asking(now, leg, what);
        if agreement.playing {
            out.push(Action::StopPlaying(leg));
        }
        if all_agreed {
            self.open(now, None, out);
        }
    }

    pub(super) fn on_preamble_started(&mut self, now: Now, epoch: Epoch, out: &mut Vec<Action>) {
        // Another epoch's preamble is one that has been wiped since.
        if !matches!(self.state, State::Buffering { .. }) || epoch != self.epoch {
            return;
        }
        let agreed = Leg::BOTH.map(|leg| self.parties[leg.index()].preferred_at.is_some());
        Leg::BOTH.into_iter().for_each(|leg| self.note_preference(leg));
        self.state = State::Asking(Asking::new(epoch, now.mono, agreed));
        let asked: Vec<Leg> = Leg::BOTH.into_iter().filter(|leg| !agreed[leg.index()]).collect();
        if asked.is_empty() {
            return self.open(now, None, out);
        }
        for &leg in &asked {
            self.parties[leg.index()].consent = PartyConsent::Asked;
            out.push(Action::SwallowDigits { leg, swallow: true });
        }
        tell(Notice::Question, &asked, out);
    }

    pub(super) fn on_preamble_unavailable(&mut self, now: Now, out: &mut Vec<Action>) {
        if matches!(self.state, State::Buffering { .. } | State::Asking(_)) {
            self.note(now, None, "no locked memory was to be had");
            self.refuse(now, Reason::NoPreambleMemory, &Leg::BOTH, out);
        }
    }

    pub(super) fn on_cannot_ask(&mut self, now: Now, leg: Leg, out: &mut Vec<Action>) {
        if matches!(self.state, State::Buffering { .. } | State::Asking(_)) {
            self.note(now, Some(leg), "the question could not be played");
            self.refuse(now, Reason::CannotAsk, &[leg.other()], out);
        }
    }

    pub(super) fn on_question_playing(&mut self, now: Now, leg: Leg, epoch: Epoch) {
        let State::Asking(asking) = &mut self.state else { return };
        if let Some(attempt) = asking.begins(leg, epoch, now.mono) {
            self.note_asking(now, leg, format!("the question began, attempt {attempt}"));
        }
    }

    pub(super) fn on_question_played(&mut self, now: Now, leg: Leg, complete: bool, out: &mut Vec<Action>) {
        let answer_timeout_ms = self.rules.settings().answer_timeout_ms;
        let State::Asking(asking) = &mut self.state else { return };
        if complete {
            if asking.heard(leg, now.mono, answer_timeout_ms) {
                self.note_asking(now, leg, "heard the question to its end".to_owned());
            }
        } else if asking.is_playing(leg) {
            self.note(now, Some(leg), "the question was cut short");
            self.refuse(now, Reason::PromptIncomplete, &Leg::BOTH, out);
        }
    }

    /// Does what is due at `now`; harmless if nothing is.
    pub fn on_timeout(&mut self, now: Now, out: &mut Vec<Action>) {
        if let State::Buffering { deadline } = self.state
            && deadline <= now.mono
        {
            self.note(now, None, "the preamble's memory was not ready in time");
            return self.refuse(now, Reason::NoPreambleMemory, &Leg::BOTH, out);
        }
        let attempts = self.rules.settings().attempts;
        for leg in Leg::BOTH {
            let State::Asking(asking) = &mut self.state else { return };
            match asking.due(leg, now.mono, attempts) {
                None => {}
                Some(Due::Repeat) => tell(Notice::Question, &[leg], out),
                Some(Due::NoEnd) => {
                    self.note(now, Some(leg), "nothing told of the question's end");
                    self.refuse(now, Reason::PromptIncomplete, &Leg::BOTH, out);
                }
                Some(Due::Silent) => {
                    self.parties[leg.index()].consent = PartyConsent::Silent;
                    self.note(now, Some(leg), "no answer in the time and attempts allowed");
                    self.refuse(now, Reason::NoAnswer, &Leg::BOTH, out);
                }
            }
        }
    }

    /// Starts to ask, if it can be asked at all now.
    pub(super) fn begin(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.signalled != [true, true] {
            self.state = State::Shut;
            self.settle(words::outcome(Reason::PartiesHidden));
            if self.record.broken {
                tell(Notice::Stopped, &Leg::BOTH, out);
            }
            self.note(now, None, "a peer of the call is configured as not signalling its parties");
            return self.decide(now, GateState::Shut, Reason::PartiesHidden, out);
        }
        if self.anybody_holds() {
            self.state = State::Paused;
            if !self.record.decided {
                self.decide(now, GateState::Shut, Reason::Held, out);
            }
            return;
        }
        let agreed = self.all_prefer();
        if self.ask() == Ask::SignalledOnly && !agreed {
            self.state = State::Idle;
            if self.record.broken {
                tell(Notice::Stopped, &Leg::BOTH, out);
            }
            return;
        }
        self.askings += 1;
        self.parties.iter_mut().for_each(Party::begin);
        self.record.asking = std::mem::take(&mut self.record.occasion);
        if agreed {
            Leg::BOTH.into_iter().for_each(|leg| self.note_preference(leg));
            return self.open(now, None, out);
        }
        self.state = State::Buffering { deadline: now.mono.plus_ms(PREAMBLE_WAIT_MS) };
        out.push(Action::StartPreamble(self.epoch));
        if !self.record.decided {
            self.decide(now, GateState::Shut, Reason::Asking, out);
        }
    }

    /// What was agreed to no longer holds: stop whatever is going on, and ask again.
    fn interrupt(&mut self, now: Now, reason: Reason, out: &mut Vec<Action>) {
        match self.state {
            State::Open { permit, .. } | State::Suspended { permit, .. } => {
                out.push(Action::Revoke { permit, reason });
                self.record.broken = true;
                self.settle(RecordingOutcome::PartlyRecorded);
            }
            State::Buffering { .. } => self.end_asking(reason, out),
            State::Asking(_) => {
                self.end_asking(reason, out);
                self.settle(RecordingOutcome::PromptIncomplete);
            }
            State::Final
            | State::Shut
            | State::Dispatch { .. }
            | State::OffLine { .. }
            | State::Idle
            | State::Paused => {
                self.record.occasion.clear();
                return;
            }
        }
        let exhausted = self.askings > MOST_REPEATS;
        if exhausted {
            self.note(now, None, "the parties had been asked too often to be asked again");
        }
        self.decide(now, GateState::Shut, reason, out);
        if exhausted {
            self.state = State::Shut;
            self.settle(RecordingOutcome::NotPermitted);
            let notice = if self.record.broken { Notice::Stopped } else { Notice::NotRecording };
            return tell(notice, &Leg::BOTH, out);
        }
        self.begin(now, out);
    }

    /// Ends the asking without consent, for the rest of the call.
    fn refuse(&mut self, now: Now, reason: Reason, told: &[Leg], out: &mut Vec<Action>) {
        let was_asked = matches!(self.state, State::Asking(_));
        self.end_asking(reason, out);
        self.state = State::Shut;
        self.settle(words::outcome(reason));
        // After an interrupted recording the parties still believe that it runs.
        match (was_asked, self.record.broken) {
            (true, _) => tell(Notice::NotRecording, told, out),
            (false, true) => tell(Notice::Stopped, told, out),
            (false, false) => {}
        }
        self.decide(now, GateState::Shut, reason, out);
    }

    /// Wipes the preamble, stops the questions, lets digits pass again.
    fn end_asking(&self, reason: Reason, out: &mut Vec<Action>) {
        out.push(Action::WipePreamble(reason));
        let State::Asking(asking) = &self.state else { return };
        for leg in Leg::BOTH {
            if asking.is_playing(leg) {
                out.push(Action::StopPlaying(leg));
            }
            out.push(Action::SwallowDigits { leg, swallow: false });
        }
    }

    /// Every party of the epoch in force has agreed: opens the gate for this epoch and no other.
    /// `continues` is the last permit and the first of the recording that goes on.
    pub(super) fn open(&mut self, now: Now, continues: Option<(PermitId, PermitId)>, out: &mut Vec<Action>) {
        let Some(permit) = self.permit(Basis::AllPartyConsent, self.epoch) else { return };
        let first = continues.map_or(permit.id(), |(_, first)| first);
        self.state = State::Open { permit: permit.id(), first };
        self.settle(RecordingOutcome::Recorded);
        out.push(Action::Open { permit, continues: continues.map(|(last, _)| last) });
        if continues.is_none() {
            for leg in Leg::BOTH {
                out.push(Action::SwallowDigits { leg, swallow: false });
            }
            tell(Notice::Recording, &Leg::BOTH, out);
        }
        self.decide(now, GateState::Open, Reason::AllAgreed, out);
    }

    /// Adds a row to the ledger; rows without effect up to a bound.
    pub(super) fn hear(
        &mut self,
        now: Now,
        leg: Leg,
        meaning: SignalMeaning,
        source: SignalSource,
        effective: bool,
        out: &mut Vec<Action>,
    ) {
        if matches!(self.state, State::Final) {
            return;
        }
        if !effective {
            if self.record.idle_signals >= MOST_IDLE_SIGNALS {
                return;
            }
            self.record.idle_signals += 1;
        }
        let ordinal = self.parties[leg.index()].state(leg).ordinal;
        out.push(Action::Heard(Signal { at: now.wall, leg, ordinal, meaning, source, effective }));
    }

    /// Notes what a consent will rest on.
    fn note_asking(&mut self, now: Now, leg: Leg, what: String) {
        if self.record.asking.len() < MOST_EVIDENCE {
            self.record.asking.push(Evidence { at: now.wall, leg: Some(leg), what });
        }
    }

    /// Takes in the epoch that an event begins.
    fn arrive(&mut self, epoch: Epoch) -> Order {
        let order = match epoch.0.checked_sub(self.epoch.0) {
            None | Some(0) => return Order::Old,
            Some(1) => Order::Next,
            Some(_) => Order::Skipped,
        };
        self.epoch = epoch;
        if order == Order::Skipped {
            self.forget_consents();
        }
        order
    }

    fn forget_consents(&mut self) {
        self.parties.iter_mut().for_each(Party::forget);
    }

    /// Somebody else may be on the line: what the telephones asked for was not with this company.
    fn forget_preferences(&mut self) {
        for party in self.parties.iter_mut().filter(|party| party.preferred_at.is_some()) {
            party.forget();
        }
    }

    fn anybody_holds(&self) -> bool {
        self.parties.iter().any(Party::holds)
    }

    fn ask(&self) -> Ask {
        self.line.as_ref().map_or(Ask::SignalledOnly, |line| line.ask)
    }
}

fn tell(notice: Notice, legs: &[Leg], out: &mut Vec<Action>) {
    out.extend(legs.iter().map(|&leg| Action::Play { leg, notice }));
}
