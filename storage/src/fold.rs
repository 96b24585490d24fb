//! The record of a call as the fold of its entries: what the database holds, without a database.
//!
//! The journal uses it at start to end what a crash left open; the simulator checks invariant I3 with
//! it (exactly one record for each call). Pure.
//!
//! A party is known from `PartyJoined`; where that did not come, the caller from `CallStarted` and the
//! callee from `CallAnswered`. Whoever has not left when the call ends, left with it.

use std::collections::BTreeMap;

use consent::{
    Basis, CallId, Decision, GateState, Leg, LineClass, PartyConsent, Reason, RecordingId, RecordingOutcome,
    Signal, SignalMeaning, SignalSource, Wall,
};

use crate::entry::RecordingRow;
use crate::{CallEnded, CallStarted, ElsewhereState, Entry, Outcome, Stamped};

/// The calls of a journal, or the open ones among them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calls {
    records: BTreeMap<CallId, CallRecord>,
}

/// One call's record.
#[derive(Clone, Debug, PartialEq)]
pub struct CallRecord {
    /// How it began.
    pub started: CallStarted,
    /// When.
    pub started_at: Wall,
    /// Call-IDs, the caller's leg first.
    pub sip_call_ids: Vec<String>,
    /// When it first rang.
    pub ringing_at: Option<Wall>,
    /// When it was answered.
    pub answered_at: Option<Wall>,
    /// When and how it ended.
    pub ended: Option<(Wall, CallEnded)>,
    /// Who was on the line, in order of joining.
    pub parties: Vec<Party>,
    /// What the far ends said of recordings of their own, in order.
    pub recorded_elsewhere: Vec<(Leg, ElsewhereState, Wall)>,
    /// Decisions, in order.
    pub decisions: Vec<Decision>,
    /// Its recordings.
    pub recordings: BTreeMap<RecordingId, Recording>,
    /// The instant of its last entry.
    pub last_at: Wall,
}

/// A party of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Party {
    /// At which leg's far end.
    pub leg: Leg,
    /// The n-th of that leg.
    pub ordinal: u32,
    /// Who it says it is; `None` where withheld.
    pub identity: Option<String>,
    /// When it came.
    pub joined_at: Wall,
    /// When it left.
    pub left_at: Option<Wall>,
    /// What it said to being recorded.
    pub consent: Consent,
}

/// What a party said to being recorded, how and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consent {
    /// What.
    pub state: PartyConsent,
    /// By which means, if it said anything.
    pub method: Option<SignalSource>,
    /// When the state came about; `None` while it was never asked.
    pub at: Option<Wall>,
}

/// A recording of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// On which basis it began.
    pub basis: Basis,
    /// What was stored, once it was.
    pub stored: Option<RecordingRow>,
    /// The instant after its last sample, once it is known to be sealed.
    pub sealed_until: Option<Wall>,
}

impl Recording {
    const fn begun(basis: Basis) -> Self {
        Self { basis, stored: None, sealed_until: None }
    }
}

/// An entry that does not fit the entries before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Irregular {
    /// A second start of the same call.
    #[error("call {0} was started twice")]
    StartedTwice(CallId),
    /// A second end of the same call.
    #[error("call {0} ended twice")]
    EndedTwice(CallId),
    /// Of a call that was never started.
    #[error("call {0} was never started")]
    NeverStarted(CallId),
}

impl Calls {
    /// Takes the next entry. The first start and the first end of a call hold.
    ///
    /// # Errors
    /// If the entry does not fit; it has then changed nothing.
    pub fn apply(&mut self, stamped: &Stamped) -> Result<(), Irregular> {
        let Some(call) = stamped.entry.call() else { return Ok(()) };
        if let Entry::CallStarted(started) = &stamped.entry {
            if self.records.contains_key(&call) {
                return Err(Irregular::StartedTwice(call));
            }
            self.records.insert(call, CallRecord::new((**started).clone(), stamped.at));
            return Ok(());
        }
        if let Entry::CallsLinked { with, .. } = &stamped.entry
            && self.records.contains_key(&call)
            && let Some(other) = self.records.get_mut(with)
        {
            other.link(call);
        }
        let record = self.records.get_mut(&call).ok_or(Irregular::NeverStarted(call))?;
        record.apply(stamped)
    }

    /// The record of a call.
    #[must_use]
    pub fn get(&self, call: CallId) -> Option<&CallRecord> {
        self.records.get(&call)
    }

    /// All records, in order of id.
    pub fn iter(&self) -> impl Iterator<Item = &CallRecord> {
        self.records.values()
    }

    /// Lets a record go.
    pub fn remove(&mut self, call: CallId) -> Option<CallRecord> {
        self.records.remove(&call)
    }

    /// What ends the open calls after a crash: for each a `CallEnded` stamped with the last sign of life
    /// (`alive_until`, the process's, or the end of its last recording), and an audit entry stamped `now`.
    #[must_use]
    pub fn closings(&self, alive_until: Wall, now: Wall) -> Vec<Stamped> {
        let open = self.records.values().filter(|record| record.ended.is_none());
        open.flat_map(|record| {
            let audit = Entry::Audit {
                actor: "gateway".into(),
                action: "call.recovered".into(),
                object: Some(record.started.call.to_string()),
                detail: Some("open when the gateway stopped without notice".into()),
            };
            let at = record.last_sign_of_life().max(alive_until);
            let ended = Entry::CallEnded(Box::new(record.recovered_end()));
            [Stamped { at, entry: ended }, Stamped { at: now, entry: audit }]
        })
        .collect()
    }
}

impl CallRecord {
    fn new(started: CallStarted, at: Wall) -> Self {
        let caller = Party::new(Leg::A, 0, started.from.clone(), at);
        Self {
            sip_call_ids: vec![started.sip_call_id.clone()],
            started,
            started_at: at,
            ringing_at: None,
            answered_at: None,
            ended: None,
            parties: vec![caller],
            recorded_elsewhere: Vec::new(),
            decisions: Vec::new(),
            recordings: BTreeMap::new(),
            last_at: at,
        }
    }

    fn apply(&mut self, stamped: &Stamped) -> Result<(), Irregular> {
        let at = stamped.at;
        match &stamped.entry {
            Entry::CallRouted { sip_call_id, .. } => {
                if !self.sip_call_ids.contains(sip_call_id) {
                    self.sip_call_ids.push(sip_call_id.clone());
                }
            }
            Entry::CallRinging { .. } => {
                self.ringing_at.get_or_insert(at);
            }
            Entry::CallAnswered { .. } => self.answer(at),
            Entry::PartyJoined { leg, ordinal, identity, .. } => {
                self.join(*leg, *ordinal, identity.clone(), at)
            }
            Entry::PartyLeft { leg, ordinal, .. } => {
                if let Some(party) = self.party(*leg, *ordinal) {
                    party.left_at.get_or_insert(at);
                }
            }
            Entry::CallsLinked { with, .. } => self.link(*with),
            Entry::RecordedElsewhere { leg, state, .. } => self.recorded_elsewhere.push((*leg, *state, at)),
            Entry::Signalled { signal, .. } => self.heard(signal),
            Entry::Decided { decision, .. } => self.decided(decision),
            Entry::RecordingStarted { recording, basis, .. } => {
                self.recordings.entry(*recording).or_insert(Recording::begun(*basis));
            }
            Entry::RecordingStored(row) => {
                let recording = self.recordings.entry(row.id).or_insert(Recording::begun(row.basis));
                recording.stored = Some((**row).clone());
                recording.sealed_until = Some(row.ended_at);
            }
            Entry::RecordingFound { recording, basis, ended_at, .. } => {
                let recording = self.recordings.entry(*recording).or_insert(Recording::begun(*basis));
                recording.sealed_until = Some(*ended_at);
            }
            Entry::CallEnded(ended) => return self.end(ended, at),
            Entry::CallStarted(_)
            | Entry::PreambleWiped { .. }
            | Entry::RecordingFailed { .. }
            | Entry::CallLadder(_)
            | Entry::Audit { .. } => {}
        }
        self.last_at = self.last_at.max(at);
        Ok(())
    }

    fn answer(&mut self, at: Wall) {
        self.answered_at.get_or_insert(at);
        if self.party(Leg::B, 0).is_none() {
            let callee = Party::new(Leg::B, 0, self.started.to.clone(), at);
            self.parties.push(callee);
        }
    }

    fn join(&mut self, leg: Leg, ordinal: u32, identity: Option<String>, at: Wall) {
        match self.party(leg, ordinal) {
            Some(party) => party.identity = identity,
            None => self.parties.push(Party::new(leg, ordinal, identity, at)),
        }
    }

    fn link(&mut self, with: CallId) {
        if !self.started.linked_calls.contains(&with) {
            self.started.linked_calls.push(with);
        }
    }

    fn heard(&mut self, signal: &Signal) {
        let state = match signal.meaning {
            SignalMeaning::Accept => PartyConsent::Given,
            SignalMeaning::Decline => PartyConsent::Declined,
            SignalMeaning::Withdraw => PartyConsent::Withdrawn,
            SignalMeaning::Request => return,
        };
        if let Some(party) = self.party(signal.leg, signal.ordinal).filter(|_| signal.effective) {
            party.consent = Consent { state, method: Some(signal.source), at: Some(signal.at) };
        }
    }

    fn decided(&mut self, decision: &Decision) {
        for stated in &decision.parties {
            if let Some(party) =
                self.party(stated.leg, stated.ordinal).filter(|party| party.consent.state != stated.consent)
            {
                party.consent = Consent { state: stated.consent, method: None, at: Some(decision.at) };
            }
        }
        self.decisions.push(decision.clone());
    }

    fn end(&mut self, ended: &CallEnded, at: Wall) -> Result<(), Irregular> {
        if self.ended.is_some() {
            return Err(Irregular::EndedTwice(self.started.call));
        }
        for party in &mut self.parties {
            party.left_at.get_or_insert(at);
        }
        self.ended = Some((at, ended.clone()));
        self.last_at = self.last_at.max(at);
        Ok(())
    }

    fn party(&mut self, leg: Leg, ordinal: u32) -> Option<&mut Party> {
        self.parties.iter_mut().find(|party| party.leg == leg && party.ordinal == ordinal)
    }

    fn last_sign_of_life(&self) -> Wall {
        let sealed = self.recordings.values().filter_map(|recording| recording.sealed_until);
        sealed.max().map_or(self.last_at, |ended_at| ended_at.max(self.last_at))
    }

    /// The end of a call whose process ended first: as far as the entries show.
    fn recovered_end(&self) -> CallEnded {
        let outcome = if self.answered_at.is_some() { Outcome::Answered } else { Outcome::Failed };
        CallEnded {
            call: self.started.call,
            outcome,
            final_status: self.answered_at.map(|_| 200),
            ended_by: Some("gateway".into()),
            end_cause: None,
            recording_outcome: self.recovered_outcome(),
            basis: self.recordings.values().next().map(|recording| recording.basis),
            media: Default::default(),
        }
    }

    fn recovered_outcome(&self) -> RecordingOutcome {
        let withdrawn = self.decisions.iter().any(|decision| decision.reason == Reason::Withdrawn);
        if !self.recordings.is_empty() {
            let sealed = self.recordings.values().any(|recording| recording.sealed_until.is_some());
            return match (sealed, withdrawn) {
                (_, true) => RecordingOutcome::Withdrawn,
                // What the call said after the process had stopped is missing, whatever was sealed.
                (true, false) => RecordingOutcome::PartlyRecorded,
                (false, false) => RecordingOutcome::Failed,
            };
        }
        let class = self.started.line_class;
        match self.decisions.last() {
            _ if self.started.emergency => RecordingOutcome::Emergency,
            Some(decision) if decision.gate == GateState::Open => RecordingOutcome::Failed,
            Some(decision) => outcome_of(decision.reason),
            None => match class {
                LineClass::Union => RecordingOutcome::UnionLine,
                LineClass::Never => RecordingOutcome::NeverLine,
                LineClass::Dispatch if self.answered_at.is_some() => RecordingOutcome::Failed,
                LineClass::Dispatch | LineClass::Consent => RecordingOutcome::NotAsked,
            },
        }
    }
}

impl Party {
    fn new(leg: Leg, ordinal: u32, identity: Option<String>, joined_at: Wall) -> Self {
        let consent = Consent { state: PartyConsent::NotAsked, method: None, at: None };
        Self { leg, ordinal, identity, joined_at, left_at: None, consent }
    }
}

/// How a call fared that stored nothing and whose last decision shut the gate for `reason`.
fn outcome_of(reason: Reason) -> RecordingOutcome {
    match reason {
        Reason::Emergency => RecordingOutcome::Emergency,
        Reason::Union => RecordingOutcome::UnionLine,
        Reason::NeverLine | Reason::UnlistedLine => RecordingOutcome::NeverLine,
        Reason::Declined | Reason::NoAnswer => RecordingOutcome::Refused,
        Reason::Withdrawn => RecordingOutcome::Withdrawn,
        // The process ended while the question was open.
        Reason::PromptIncomplete | Reason::Asking => RecordingOutcome::PromptIncomplete,
        Reason::NotRequested
        | Reason::NoPreambleMemory
        | Reason::CannotAsk
        | Reason::Held
        | Reason::Ended => RecordingOutcome::NotAsked,
        Reason::LeftLine => RecordingOutcome::PartlyRecorded,
        Reason::RecorderFailed | Reason::DispatchLine | Reason::AllAgreed => RecordingOutcome::Failed,
        Reason::Privileged
        | Reason::Student
        | Reason::PartiesHidden
        | Reason::PartyChanged
        | Reason::Doubt => RecordingOutcome::NotPermitted,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;
    use crate::samples;

    fn fold(entries: &[Stamped]) -> Calls {
        let mut calls = Calls::default();
        for stamped in entries {
            calls.apply(stamped).unwrap();
        }
        calls
    }

    #[test]
    fn a_call_has_one_record_and_its_second_start_or_end_is_refused() {
        let entries = samples::dispatch_call(1);
        let mut calls = fold(&entries);
        let before = calls.clone();
        assert_eq!(calls.apply(&entries[0]), Err(Irregular::StartedTwice(samples::call(1))));
        assert_eq!(calls.apply(entries.last().unwrap()), Err(Irregular::EndedTwice(samples::call(1))));
        assert_eq!(
            calls.apply(&samples::dispatch_call(2)[1]),
            Err(Irregular::NeverStarted(samples::call(2)))
        );
        assert_eq!(calls, before);
        assert!(calls.closings(Wall(0), Wall(9)).is_empty());
    }

    #[test]
    fn a_call_that_a_crash_cut_is_ended_once_at_the_last_sign_of_life() {
        let entries = samples::dispatch_call(1);
        // Every prefix that a crash can leave, but for the end itself.
        for cut in 1..entries.len() - 1 {
            let mut calls = fold(&entries[..cut]);
            let closings =
                calls.closings(Wall(samples::START.0 + 3_000_000), Wall(samples::START.0 + 60_000_000));
            assert_eq!(closings.len(), 2);
            for stamped in &closings {
                calls.apply(stamped).unwrap();
            }
            let record = calls.get(samples::call(1)).unwrap();
            let (at, ended) = record.ended.clone().unwrap();
            assert!(at >= Wall(samples::START.0 + 3_000_000) && at < Wall(samples::START.0 + 60_000_000));
            let answered =
                entries[..cut].iter().any(|stamped| matches!(stamped.entry, Entry::CallAnswered { .. }));
            assert_eq!(ended.outcome, if answered { Outcome::Answered } else { Outcome::Failed });
            assert_eq!(ended.ended_by.as_deref(), Some("gateway"));
            assert!(calls.closings(Wall(0), Wall(9)).is_empty(), "a second recovery ends nothing twice");
        }
    }

    #[test]
    fn a_recovered_recording_makes_it_partly_recorded_and_none_makes_it_failed() {
        let entries = samples::dispatch_call(1);
        let stored =
            entries.iter().position(|stamped| matches!(stamped.entry, Entry::RecordingStored(_))).unwrap();
        let outcome = |calls: &Calls| match &calls.closings(Wall(0), Wall(9))[0].entry {
            Entry::CallEnded(ended) => (ended.recording_outcome, ended.basis),
            other => panic!("{other:?}"),
        };
        let before = fold(&entries[..stored]);
        assert_eq!(outcome(&before), (RecordingOutcome::Failed, Some(Basis::DispatchLine)));
        let Entry::RecordingStored(row) = &entries[stored].entry else { panic!("{stored}") };
        let found = Entry::RecordingFound {
            call: row.call,
            recording: row.id,
            basis: row.basis,
            ended_at: row.ended_at,
        };
        let mut with_found = entries[..stored].to_vec();
        with_found.push(Stamped { at: row.ended_at, entry: found });
        assert_eq!(
            outcome(&fold(&with_found)),
            (RecordingOutcome::PartlyRecorded, Some(Basis::DispatchLine))
        );
        let after = fold(&entries[..=stored]);
        assert_eq!(outcome(&after), (RecordingOutcome::PartlyRecorded, Some(Basis::DispatchLine)));
    }

    #[test]
    fn consent_follows_the_signals_and_only_the_effective_ones() {
        let calls = fold(&samples::consent_call(1));
        let record = calls.get(samples::call(1)).unwrap();
        let consents: Vec<_> = record
            .parties
            .iter()
            .map(|party| (party.leg, party.consent.state, party.consent.method))
            .collect();
        assert_eq!(
            consents,
            [
                (Leg::A, PartyConsent::Given, Some(SignalSource::TelephoneEvent)),
                (Leg::B, PartyConsent::Withdrawn, Some(SignalSource::Info)),
            ]
        );
    }
}
