//! Recording as the legs speak of it (RFC 7866): what they are told, what their telephones want, and what they say
//! of recordings of their own.

use std::collections::VecDeque;

use consent::{Decision, Event, GateState, Leg, Now, Preference, Reason};
use sip_gateway::sdp::{RecordPreference, Recording};
use storage::{ElsewhereState, Entry};

use super::super::Output;
use super::Call;

/// How often the far ends of a call may change what they say of recordings of their own; further ones are told
/// to the other leg, but not entered.
const MOST_RECORDED_ELSEWHERE: usize = 64;

/// What `a=recordpref` means to `consent`.
pub(super) const fn preference(said: RecordPreference, trusted: bool) -> Preference {
    match said {
        RecordPreference::On => Preference::Recording { trusted },
        RecordPreference::Off | RecordPreference::Pause => Preference::NoRecording,
        RecordPreference::None => Preference::None,
    }
}

impl Call {
    /// The callee is a party from its answer on.
    pub(super) fn on_preference(
        &mut self,
        now: Now,
        leg: Leg,
        preference: Preference,
        out: &mut VecDeque<Output>,
    ) {
        if leg == Leg::B && !self.answered {
            self.answered_with = Some(preference);
            return;
        }
        // The epoch first: what the relay stamps from here on is not to be stored.
        let refuses = preference == Preference::NoRecording;
        let epoch = if refuses { self.epoch.raise() } else { self.epoch.current() };
        self.tell(now, Event::Preferred { leg, preference, epoch }, out);
    }

    /// What the callee's telephone said counts before the answer, so that nobody is asked who need not be; a
    /// refusal after it, when there is a party that refuses.
    pub(super) fn take_wish(&mut self, now: Now, out: &mut VecDeque<Output>) {
        if let Some(wish) = self.answered_with.take_if(|wish| *wish != Preference::NoRecording) {
            self.on_preference(now, Leg::B, wish, out);
        }
    }

    pub(super) fn take_refusal(&mut self, now: Now, out: &mut VecDeque<Output>) {
        if let Some(refusal) = self.answered_with.take() {
            self.on_preference(now, Leg::B, refusal, out);
        }
    }

    /// Has the legs told of a change of the gate.
    pub(super) fn indicate(&mut self, decision: &Decision, out: &mut VecDeque<Output>) {
        let recording = match (decision.gate, decision.reason) {
            (GateState::Open, _) => Recording::On,
            (GateState::Shut, Reason::Held) if self.indicated != Recording::Off => Recording::Paused,
            // A second writer may still serve a dispatch line's permit.
            (GateState::Shut, Reason::RecorderFailed) if self.is_dispatch() => return,
            // Nobody is left to be told.
            (GateState::Shut, Reason::Ended) => return,
            (GateState::Shut, _) => Recording::Off,
        };
        if std::mem::replace(&mut self.indicated, recording) != recording {
            let command = sip_gateway::Command::Indicate { call: self.id, recording };
            out.push_back(Output::Gateway(command));
        }
    }

    pub(super) fn on_recorded_elsewhere(
        &mut self,
        now: Now,
        leg: Leg,
        recording: Recording,
        out: &mut VecDeque<Output>,
    ) {
        if self.recorded_elsewhere >= MOST_RECORDED_ELSEWHERE {
            return;
        }
        self.recorded_elsewhere += 1;
        let state = match recording {
            Recording::Off => ElsewhereState::Off,
            Recording::Paused => ElsewhereState::Paused,
            Recording::On => ElsewhereState::On,
        };
        self.write(now, Entry::RecordedElsewhere { call: self.id, leg, state }, out);
    }
}
