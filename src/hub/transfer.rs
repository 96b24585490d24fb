//! Whoever comes in somebody's place: by a transfer, a redirection, or an INVITE with Replaces.
//!
//! | who comes where | the machine is told |
//! |---|---|
//! | not a dispatch line, or an emergency service, in the place of a dispatch call's line | left line |
//! | an emergency service, elsewhere | barred, `emergency`; on a dispatch call a change |
//! | a union or never line; for a consent line's call also a union, privileged or student's number | barred |
//! | anybody else | a change: a consent line's call asks again |
//!
//! | whom a REFER or 3xx names | is called on |
//! |---|---|
//! | an emergency service | the public side |
//! | somebody at a peer's host | that peer's side |
//! | a listed line, or anybody whom a public peer names | the district's side |
//! | anybody else | the public side, without the outside prefix |

use std::collections::VecDeque;

use consent::{CallId, Direction, EpochCounter, Event, Leg, Now, Reason, RecordingOutcome, Side};
use sip_gateway::{End, EndedBy, Identity, Replacement, Route, Target};
use storage::{CallStarted, Entry};

use super::call::{Call, caller_user, outside};
use super::{Output, record};

/// What somebody's coming means for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// The dispatch line is left.
    OffLine,
    /// Nothing may be stored from here on.
    Barred(Reason),
    /// Another party.
    Change,
}

impl Arrival {
    /// Begins its epoch, beyond every permit of a dispatch line where nothing may be stored any more.
    fn begin(self, leg: Leg, counter: &EpochCounter) -> Event {
        match self {
            Self::OffLine => Event::LeftLine { epoch: counter.leave_line() },
            Self::Barred(reason) => Event::Barred { leg, epoch: counter.leave_line(), reason },
            Self::Change => Event::PartyChanged { leg, epoch: counter.raise() },
        }
    }
}

impl Call {
    pub(super) fn on_newcomer(
        &mut self,
        now: Now,
        leg: Leg,
        identity: &Identity,
        emergency: bool,
        out: &mut VecDeque<Output>,
    ) {
        let user = caller_user(identity);
        let arrival = self.arrival(leg, user, emergency);
        let event = arrival.begin(leg, &self.epoch);
        let withheld = arrival == Arrival::Barred(Reason::Union) && leg != self.line_leg;
        self.leave(now, leg, out);
        self.join(now, leg, user, identity.privacy || withheld, out);
        self.tell(now, event, out);
    }

    /// What it means that this user is at a leg now.
    fn arrival(&self, leg: Leg, user: &str, emergency: bool) -> Arrival {
        let is_line_leg = self.is_dispatch() && leg == self.line_leg;
        if is_line_leg && (emergency || !self.is_dispatch_line(user)) {
            return Arrival::OffLine;
        }
        if emergency && !self.is_dispatch() {
            return Arrival::Barred(Reason::Emergency);
        }
        self.machine.bars(user).map_or(Arrival::Change, Arrival::Barred)
    }

    /// Somebody else is to be called: where that is, and, before the answer, what it does to the record.
    pub(super) fn on_diverted(&mut self, now: Now, leg: Leg, target: &Target, out: &mut VecDeque<Output>) {
        let outward = target.from == Side::District && !self.rules.is_line(&target.user);
        let side = match target.side {
            _ if target.emergency => Side::Public,
            Some(side) => side,
            None if outward => Side::Public,
            None => Side::District,
        };
        let user = if target.emergency { None } else { outside(&self.rules, &target.user, side) };
        self.calls_emergency = target.emergency;
        if !self.answered {
            self.callee.clone_from(&target.user);
            let emergency = std::mem::take(&mut self.calls_emergency);
            // The called leg has no party yet, so nobody changes; but the line may be left, or barred.
            let arrival = self.arrival(leg, &target.user, emergency);
            if arrival != Arrival::Change {
                let event = arrival.begin(leg, &self.epoch);
                self.tell(now, event, out);
            }
        }
        out.push_back(Output::Gateway(sip_gateway::Command::Divert {
            call: self.id,
            route: Route { side, user },
        }));
    }

    /// An INVITE that replaces a far end has a record of its own (I3), linked to this call's; its media and
    /// what is recorded of it are this call's.
    pub(super) fn on_replacing(&mut self, now: Now, replacement: &Replacement, out: &mut VecDeque<Output>) {
        let (leg, caller) = (replacement.leg, &replacement.caller);
        let started = CallStarted {
            call: replacement.record,
            node: self.node.clone(),
            line: self.machine.line().map(|line| line.number.clone()),
            line_class: self.machine.class(),
            retention: record::call_tag(false),
            direction: Direction::Internal,
            from: self.shown(leg, caller_user(caller), caller.privacy),
            to: self.shown(leg, &replacement.request_user, false),
            privacy: caller.privacy,
            emergency: false,
            sip_call_id: replacement.sip_call_id.clone(),
            linked_calls: Vec::new(),
        };
        self.write(now, Entry::CallStarted(Box::new(started)), out);
        self.write(now, Entry::CallsLinked { call: self.id, with: replacement.record }, out);
    }

    pub(super) fn on_replaced(&mut self, now: Now, record: CallId, status: u16, out: &mut VecDeque<Output>) {
        let answered = status < 300;
        if answered {
            self.write(now, Entry::CallAnswered { call: record }, out);
        }
        let end = End {
            by: Some(EndedBy::Gateway),
            final_status: Some(status),
            cancelled: status == 487,
            cause: None,
        };
        let ended = record::ended(record, &end, answered, RecordingOutcome::NotAsked, None, None);
        self.write(now, Entry::CallEnded(Box::new(ended)), out);
    }
}
