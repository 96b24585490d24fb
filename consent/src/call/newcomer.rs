//! Whoever comes in somebody's place, by a transfer, a redirection, an INVITE with Replaces or another
//! identity: what it means for the call (docs/POLICY.md, "Who is on the line").
//!
//! | who comes where | what it means |
//! |---|---|
//! | on a dispatch call's line: an emergency service, or nobody who is named as a dispatch line on the district's side | the line is left |
//! | elsewhere: an emergency service, on any but a dispatch call | barred, `emergency` |
//! | somebody named as a union or never line; for a consent line's call also by a union, privileged or student's number | barred |
//! | anybody else, shown by another identity only, where a dispatch call is off its line because of that place | doubt: it stays off |
//! | anybody else, where nothing but that place kept a dispatch call off its line | back on the line |
//! | anybody else | a change: a consent line's call asks again |
//!
//! Whether its number may be shown is another question, which [`Call::withholds`] answers: a dispatch line is
//! recorded with a union number, and the number withheld all the same.
//!
//! A PBX often shows its main number in place of an extension, so every name that a newcomer goes by counts:
//! any of them bars, and any of them that is [known](Name::known), from the district's side, is enough to be a
//! dispatch line.

use super::{Call, State};
use crate::{
    CallFacts, Direction, EpochCounter, Event, Leg, LineClass, Name, NumberClass, Reason, RuleSet, Side,
};

/// Somebody who comes to a leg.
#[derive(Clone, Copy)]
pub struct Newcomer<'a> {
    /// On which side of the gateway.
    pub side: Side,
    /// The one dialled to reach it, P-Asserted-Identity of a trusted peer, From.
    pub names: &'a [Name<'a>],
    /// Whether it is an emergency service.
    pub emergency: bool,
    /// Whether only another identity was shown, within the same dialog: it may be the same person.
    pub same_dialog: bool,
}

/// What somebody's coming means for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The dispatch line is left.
    OffLine,
    /// The call is on a dispatch line again.
    OnLine,
    /// Nothing may be stored with it.
    Barred(Reason),
    /// Another party.
    Change,
    /// Perhaps another party, perhaps the one for whose sake a dispatch call is off its line.
    Doubt,
}

/// A party as the record is to have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Counts the parties of its leg: 0 is the first.
    pub ordinal: u32,
    /// Whether its number must not be shown.
    pub withheld: bool,
}

impl Arrival {
    /// Begins the epoch of it, off the line where nothing may be stored any more.
    #[must_use]
    pub fn begin(self, leg: Leg, counter: &EpochCounter) -> Event {
        match self {
            Self::OffLine => Event::LeftLine { epoch: counter.leave_line() },
            Self::OnLine => Event::OnLine { leg, epoch: counter.return_to_line() },
            Self::Barred(reason) => Event::Barred { leg, epoch: counter.leave_line(), reason },
            Self::Change => Event::PartyChanged { leg, epoch: counter.raise() },
            Self::Doubt => Event::Doubt { leg, epoch: counter.raise() },
        }
    }
}

impl Call {
    /// Somebody is at a leg from now on, the first or in another's place. To be told before the event of it:
    /// what the machine says of the party goes by the number given here.
    pub fn join<'a>(&mut self, leg: Leg, users: impl IntoIterator<Item = &'a str> + Clone) -> Joined {
        self.with_union |= self.is_union(users.clone());
        Joined { ordinal: self.parties[leg.index()].join(), withheld: self.withholds(leg, users) }
    }

    /// Which of a leg's parties is there; `None` before the first has come.
    #[must_use]
    pub const fn present(&self, leg: Leg) -> Option<u32> {
        self.parties[leg.index()].present()
    }

    /// Whether the number of somebody who goes by these users, at this leg, must not be shown: a union line's
    /// or a union number, unless it is the call's own line; of a call that one is or was on, whoever is not at
    /// the line's leg.
    #[must_use]
    pub fn withholds<'a>(&self, leg: Leg, users: impl IntoIterator<Item = &'a str>) -> bool {
        self.is_union(users) || (self.with_union && leg != self.line_leg)
    }

    fn is_union<'a>(&self, users: impl IntoIterator<Item = &'a str>) -> bool {
        let is_own = |user: &str| self.line.is_some() && self.rules.line(user) == self.line.as_ref();
        users
            .into_iter()
            .any(|user| self.rules.number_class(user) == Some(NumberClass::Union) && !is_own(user))
    }

    /// What it means that this newcomer is at a leg from now on.
    #[must_use]
    pub fn arrival(&self, leg: Leg, newcomer: &Newcomer<'_>) -> Arrival {
        let dispatch = self.class() == LineClass::Dispatch;
        if dispatch && leg == self.line_leg && !self.is_dispatch_line(newcomer) {
            return Arrival::OffLine;
        }
        if newcomer.emergency && !dispatch {
            return Arrival::Barred(Reason::Emergency);
        }
        let bars = newcomer.names.iter().filter_map(|name| self.bars(name.user));
        if let Some(reason) = bars.min_by_key(|reason| weight(*reason)) {
            return Arrival::Barred(reason);
        }
        match self.state {
            State::OffLine { off } if newcomer.same_dialog && off[leg.index()] => Arrival::Doubt,
            State::OffLine { off } if !off[leg.other().index()] => Arrival::OnLine,
            _ => Arrival::Change,
        }
    }

    fn is_dispatch_line(&self, newcomer: &Newcomer<'_>) -> bool {
        let is_dispatch = |name: &Name<'_>| {
            self.rules.line_named(name).is_some_and(|line| line.class == LineClass::Dispatch)
        };
        newcomer.side == Side::District && !newcomer.emergency && newcomer.names.iter().any(is_dispatch)
    }

    /// Why nothing may be stored with somebody of this name; `None` if nothing speaks against it. On a
    /// dispatch line only another line's class does, as at the start of a call.
    fn bars(&self, name: &str) -> Option<Reason> {
        let class = self.rules.line(name).map(|line| line.class);
        match (class, self.rules.number_class(name)) {
            (Some(LineClass::Union), _) => Some(Reason::Union),
            (Some(LineClass::Never), _) => Some(Reason::NeverLine),
            _ if self.class() == LineClass::Dispatch => None,
            (_, Some(NumberClass::Union)) => Some(Reason::Union),
            (_, Some(NumberClass::Privileged)) => Some(Reason::Privileged),
            (_, Some(NumberClass::Student)) => Some(Reason::Student),
            (_, None) => None,
        }
    }
}

/// Lower counts where several names bar a call.
const fn weight(reason: Reason) -> u8 {
    match reason {
        Reason::Union => 0,
        Reason::NeverLine => 1,
        Reason::Privileged => 2,
        _ => 3,
    }
}

/// The leg at whose far end the district's line is.
pub(super) fn line_leg(facts: &CallFacts<'_>, rules: &RuleSet) -> Leg {
    let line = rules.line_of(facts);
    let is_line = |name: &Name<'_>| line.is_some() && rules.line_named(name) == line;
    match facts.direction {
        Direction::Inbound => Leg::B,
        Direction::Outbound if line.is_none() || facts.calling.iter().any(is_line) => Leg::A,
        Direction::Outbound => Leg::B,
        Direction::Internal if line.is_none() || facts.called.iter().any(is_line) => Leg::B,
        Direction::Internal => Leg::A,
    }
}
