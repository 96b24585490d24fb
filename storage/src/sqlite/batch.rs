//! What a run of entries does to the records of their calls, taken together, so that each table is written once
//! for all of them. Pure.
//!
//! Entries of different calls do not depend on each other; those of one call are taken in their order. Where one
//! must be written before another of the same call can be, the batch ends between them:
//!
//! | an entry | begins another batch behind |
//! |---|---|
//! | start | any other of the call, or of another that names it |
//! | a part of a ladder | another part of it |
//! | answer, a party joins or leaves, decision, end | the end |
//! | a party joins | what has changed about it, if it joined earlier or never did |
//! | signal, decision: a party's consent changes | another change of it |
//! | decision, end: the gate opens or shuts | another change of it |
//! | decision | the start of a recording, which has the rules of the decision before it |

use std::collections::{BTreeMap, BTreeSet};

use consent::{
    CallId, Decision, GateState, Leg, PartyConsent, Reason, Signal, SignalMeaning, SignalSource, Wall,
};

use crate::journal::JournalPosition;
use crate::{CallEnded, CallStarted, ElsewhereState, Entry, LadderPart, Stamped};

/// Entries taken together.
#[derive(Debug, Default)]
pub(super) struct Batch<'a> {
    /// What happens to each call.
    pub(super) calls: BTreeMap<CallId, Change<'a>>,
    /// What is new of each ladder.
    pub(super) ladders: BTreeMap<CallId, &'a LadderPart>,
    /// Entries about recordings and for the audit log, in order.
    pub(super) others: Vec<&'a Stamped>,
    recording_begun: BTreeSet<CallId>,
    /// Named by entries for which it matters whether the call is known.
    named: BTreeSet<CallId>,
}

/// What happens to one call.
#[derive(Debug, Default)]
pub(super) struct Change<'a> {
    pub(super) started: Option<(Wall, &'a CallStarted)>,
    pub(super) ringing_at: Option<Wall>,
    pub(super) answered_at: Option<Wall>,
    pub(super) ended: Option<(Wall, &'a CallEnded)>,
    pub(super) sip_call_ids: Vec<&'a str>,
    /// Calls that it came to belong together with.
    pub(super) linked: Vec<CallId>,
    pub(super) parties: BTreeMap<(Leg, u32), PartyChange<'a>>,
    pub(super) elsewhere: Vec<(Wall, Leg, ElsewhereState)>,
    pub(super) signals: Vec<&'a Signal>,
    pub(super) decisions: Vec<&'a Decision>,
    pub(super) gate: Option<GateChange<'a>>,
    pub(super) wiped: Vec<(Wall, u32, Reason)>,
    begun: bool,
}

/// What happens to a party.
#[derive(Debug, Default)]
pub(super) struct PartyChange<'a> {
    pub(super) joined: Option<(Wall, Identity<'a>)>,
    pub(super) left_at: Option<Wall>,
    pub(super) consent: Option<ConsentChange>,
}

/// Who a party is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity<'a> {
    /// Who it says it is; `None` where withheld.
    Stated(Option<&'a str>),
    /// Whom the call's record names as the callee, if the party is not known otherwise.
    Callee,
}

/// What a party's consent becomes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConsentChange {
    pub(super) state: PartyConsent,
    /// How the party signalled it. `None`: a decision found it so, and changes nothing if it was so before.
    pub(super) method: Option<SignalSource>,
    pub(super) at: Wall,
}

/// The gate opens by this decision, or shuts.
#[derive(Clone, Copy, Debug)]
pub(super) struct GateChange<'a> {
    pub(super) at: Wall,
    pub(super) opened_by: Option<&'a Decision>,
}

/// The entry begins another batch.
struct Another;

impl<'a> Batch<'a> {
    /// Takes entries in order, as many as go together; how many these are (one at least).
    pub(super) fn take(entries: &[(JournalPosition, &'a Stamped)]) -> (Self, usize) {
        let mut batch = Self::default();
        let taken = entries.iter().take_while(|(_, stamped)| batch.add(stamped).is_ok()).count();
        (batch, taken)
    }

    fn add(&mut self, stamped: &'a Stamped) -> Result<(), Another> {
        match &stamped.entry {
            Entry::CallLadder(part) if self.ladders.contains_key(&part.call) => return Err(Another),
            Entry::CallLadder(part) => {
                self.named.insert(part.call);
                self.ladders.insert(part.call, part);
                return Ok(());
            }
            Entry::CallStarted(started) if self.named.contains(&started.call) => return Err(Another),
            Entry::RecordingStarted { call, .. } => {
                self.recording_begun.insert(*call);
            }
            Entry::RecordingFound { .. }
            | Entry::RecordingStored(_)
            | Entry::RecordingFailed { .. }
            | Entry::Audit { .. } => {}
            Entry::Decided { call, .. } if self.recording_begun.contains(call) => return Err(Another),
            of_call => {
                let Some(call) = of_call.call() else { return Ok(()) };
                if let Entry::CallsLinked { with, .. } = of_call {
                    self.named.insert(*with);
                }
                return self.calls.entry(call).or_default().add(stamped);
            }
        }
        self.others.push(stamped);
        Ok(())
    }
}

impl<'a> Change<'a> {
    /// Takes an entry in, or leaves everything as it was.
    fn add(&mut self, stamped: &'a Stamped) -> Result<(), Another> {
        let at = stamped.at;
        match &stamped.entry {
            Entry::CallStarted(started) => self.start(at, started)?,
            Entry::CallRouted { sip_call_id, .. } => self.add_leg(sip_call_id),
            Entry::CallRinging { .. } => {
                self.ringing_at.get_or_insert(at);
            }
            Entry::CallAnswered { .. } => {
                self.join(Leg::B, 0, at, Identity::Callee)?;
                self.answered_at.get_or_insert(at);
            }
            Entry::PartyJoined { leg, ordinal, identity, .. } => {
                self.join(*leg, *ordinal, at, Identity::Stated(identity.as_deref()))?;
            }
            Entry::PartyLeft { leg, ordinal, .. } => {
                self.before_end()?;
                self.parties.entry((*leg, *ordinal)).or_default().left_at.get_or_insert(at);
            }
            Entry::CallsLinked { with, .. } => self.linked.push(*with),
            Entry::RecordedElsewhere { leg, state, .. } => self.elsewhere.push((at, *leg, *state)),
            Entry::Signalled { signal, .. } => self.hear(signal)?,
            Entry::Decided { decision, .. } => self.decide(decision)?,
            Entry::PreambleWiped { held_ms, reason, .. } => self.wiped.push((at, *held_ms, *reason)),
            Entry::CallEnded(ended) => {
                self.before_end()?;
                self.turn_gate(at, None)?;
                self.ended = Some((at, ended));
            }
            // Not of a call's own tables: see `Batch::add`.
            Entry::RecordingStarted { .. }
            | Entry::RecordingFound { .. }
            | Entry::RecordingStored(_)
            | Entry::RecordingFailed { .. }
            | Entry::CallLadder(_)
            | Entry::Audit { .. } => {}
        }
        self.begun = true;
        Ok(())
    }

    fn start(&mut self, at: Wall, started: &'a CallStarted) -> Result<(), Another> {
        if self.begun {
            return Err(Another);
        }
        self.started = Some((at, started));
        self.add_leg(&started.sip_call_id);
        self.join(Leg::A, 0, at, Identity::Stated(started.from.as_deref()))
    }

    fn add_leg(&mut self, sip_call_id: &'a str) {
        if !self.sip_call_ids.contains(&sip_call_id) {
            self.sip_call_ids.push(sip_call_id);
        }
    }

    fn join(&mut self, leg: Leg, ordinal: u32, at: Wall, identity: Identity<'a>) -> Result<(), Another> {
        self.before_end()?;
        let known = self.parties.contains_key(&(leg, ordinal));
        let party = self.parties.entry((leg, ordinal)).or_default();
        match &mut party.joined {
            None if known => return Err(Another),
            None => party.joined = Some((at, identity)),
            Some((_, stated)) if identity != Identity::Callee => *stated = identity,
            Some(_) => {}
        }
        Ok(())
    }

    fn hear(&mut self, signal: &'a Signal) -> Result<(), Another> {
        let state = match signal.meaning {
            SignalMeaning::Accept => Some(PartyConsent::Given),
            SignalMeaning::Decline => Some(PartyConsent::Declined),
            SignalMeaning::Withdraw => Some(PartyConsent::Withdrawn),
            SignalMeaning::Request => None,
        };
        if let Some(state) = state.filter(|_| signal.effective) {
            let party = self.parties.entry((signal.leg, signal.ordinal)).or_default();
            if party.consent.is_some() {
                return Err(Another);
            }
            party.consent = Some(ConsentChange { state, method: Some(signal.source), at: signal.at });
        }
        self.signals.push(signal);
        Ok(())
    }

    fn decide(&mut self, decision: &'a Decision) -> Result<(), Another> {
        self.before_end()?;
        let contradicts = |consent: ConsentChange, found| consent.state != found;
        let changed_twice = decision.parties.iter().any(|found| {
            let party = self.parties.get(&(found.leg, found.ordinal));
            party.and_then(|party| party.consent).is_some_and(|consent| contradicts(consent, found.consent))
        });
        if changed_twice {
            return Err(Another);
        }
        let opened_by = (decision.gate == GateState::Open && decision.basis.is_some()).then_some(decision);
        self.turn_gate(decision.at, opened_by)?;
        let begins_here = self.started.is_some();
        for found in &decision.parties {
            let party = self.parties.entry((found.leg, found.ordinal)).or_default();
            // Whoever joins a call that begins here has not been asked before.
            let as_it_was = begins_here && party.joined.is_some() && found.consent == PartyConsent::NotAsked;
            if party.consent.is_none() && !as_it_was {
                let change = ConsentChange { state: found.consent, method: None, at: decision.at };
                party.consent = Some(change);
            }
        }
        self.decisions.push(decision);
        Ok(())
    }

    fn turn_gate(&mut self, at: Wall, opened_by: Option<&'a Decision>) -> Result<(), Another> {
        match (&self.gate, opened_by) {
            // There is no interval to shut yet.
            (None, None) if self.started.is_some() => {}
            (None, _) => self.gate = Some(GateChange { at, opened_by }),
            (Some(GateChange { opened_by: None, .. }), None) => {}
            (Some(_), _) => return Err(Another),
        }
        Ok(())
    }

    const fn before_end(&self) -> Result<(), Another> {
        if self.ended.is_some() { Err(Another) } else { Ok(()) }
    }
}
