//! What a party's telephone says about being recorded (`a=recordpref`, RFC 7866 §7.1.3, §7.3.2), at any time.
//!
//! | state | preference | output | next |
//! |---|---|---|---|
//! | any | `on` of a peer that is not trusted with it | a ledger row without effect | the same |
//! | before the answer | trusted `on` | agreed | the same |
//! | `Idle`, `Paused`, `Buffering` | trusted `on` | agreed: this leg is not asked | the same |
//! | `Idle`, after the answer | trusted `on` of the last party | begin | `Open` |
//! | `Asking` | trusted `on` | as an accept, also where the question has not begun | `Asking`, `Open` |
//! | `Open`, `Suspended` | trusted `on` | a ledger row without effect | the same |
//! | `Idle`, `Paused`, `Buffering` | `nopreference` after an `on` | not agreed any more | the same |
//! | any other | `nopreference` | nothing | the same |
//! | `Idle`, `Paused` | `off`, `pause` | shut, `declined`, or `withdrawn` after an `on`; nothing is said | `Shut` |
//! | `Buffering`, `Asking`, `Open`, `Suspended` | `off`, `pause` | as a withdrawal code | `Shut` |
//! | `Dispatch`, `OffLine`, `Shut` | anything | at most a ledger row | the same |
//!
//! To narrow needs no trust. An `on` counts for those who were on the line when it came, as a key does: whatever
//! changes who is there, or makes it doubtful, ends it. The question is in the preamble of those who were asked
//! it; where nobody was, the recording begins with the notice that it has begun, to every party (C.G.S.
//! § 52-570d(a)(2)), and the ledger holds what each telephone said.

use super::{Action, Call, MOST_EVIDENCE, SignalMeaning, SignalSource, State};
use crate::{Epoch, Evidence, Leg, Now, PartyConsent};

/// A preference as it reached the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preference {
    /// `on`.
    Recording {
        /// Whether the peer that says so is trusted to speak for its party here.
        trusted: bool,
    },
    /// `off` or `pause`.
    NoRecording,
    /// `nopreference`.
    None,
}

impl Call {
    pub(super) fn on_preference(
        &mut self,
        now: Now,
        leg: Leg,
        preference: Preference,
        epoch: Epoch,
        out: &mut Vec<Action>,
    ) {
        if preference == Preference::NoRecording {
            // Its epoch was begun for it, so a newer one is explained.
            self.epoch = self.epoch.max(epoch);
            return self.on_withdrawal(now, leg, SignalSource::RecordPreference, out);
        }
        self.on_unexplained(now, epoch, out);
        match preference {
            Preference::Recording { trusted: true } => self.prefer(now, leg, out),
            Preference::Recording { trusted: false } => self.hear_preference(now, leg, false, out),
            Preference::None | Preference::NoRecording => self.prefer_nothing(leg),
        }
    }

    fn hear_preference(&mut self, now: Now, leg: Leg, effective: bool, out: &mut Vec<Action>) {
        self.hear(now, leg, SignalMeaning::Accept, SignalSource::RecordPreference, effective, out);
    }

    fn prefer(&mut self, now: Now, leg: Leg, out: &mut Vec<Action>) {
        let undecided =
            matches!(self.state, State::Idle | State::Paused | State::Buffering { .. } | State::Asking(_));
        if !undecided {
            return self.hear_preference(now, leg, false, out);
        }
        let party = &mut self.parties[leg.index()];
        // Telephones say it in every description.
        if party.preferred_at.is_some() {
            return;
        }
        party.preferred_at = Some(now.wall);
        let news = party.consent != PartyConsent::Given;
        party.consent = PartyConsent::Given;
        self.hear_preference(now, leg, news, out);
        if let State::Asking(asking) = &mut self.state {
            let playing = asking.is_playing(leg);
            asking.agree(leg, now.mono);
            let all_agreed = asking.all_agreed();
            self.note_preference(leg);
            if playing {
                out.push(Action::StopPlaying(leg));
            }
            if all_agreed {
                self.open(now, None, out);
            }
        } else if matches!(self.state, State::Idle) && self.answered && self.all_prefer() {
            self.begin(now, out);
        }
    }

    fn prefer_nothing(&mut self, leg: Leg) {
        let party = &mut self.parties[leg.index()];
        let unused = matches!(self.state, State::Idle | State::Paused | State::Buffering { .. });
        if unused && party.preferred_at.take().is_some() {
            party.consent = PartyConsent::NotAsked;
        }
    }

    /// Notes what a consent by preference rests on.
    pub(super) fn note_preference(&mut self, leg: Leg) {
        let Some(at) = self.parties[leg.index()].preferred_at else { return };
        if self.record.asking.len() < MOST_EVIDENCE {
            let what =
                "its telephone asked for a recording, and is trusted to speak for the party".to_owned();
            self.record.asking.push(Evidence { at, leg: Some(leg), what });
        }
    }

    /// Whether every party's telephone has asked for a recording, since these are the parties.
    pub(super) fn all_prefer(&self) -> bool {
        self.parties.iter().all(|party| party.preferred_at.is_some())
    }
}
