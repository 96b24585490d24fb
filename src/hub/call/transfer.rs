//! Whoever comes in somebody's place, by a transfer, a redirection, or an INVITE with Replaces: told to
//! `consent`, which says what it means ([`consent::Arrival`]), and written down.
//!
//! | whom a REFER or 3xx names | is called on |
//! |---|---|
//! | an emergency service | the public side |
//! | somebody at a peer's host | that peer's side |
//! | a listed line, or anybody whom a public peer names | the district's side |
//! | anybody else | the public side, without the outside prefix |

use std::collections::VecDeque;

use consent::{Arrival, CallId, Direction, Leg, Newcomer, Now, Reason, RecordingOutcome, Side};
use sip_gateway::{End, EndedBy, Identity, Replacement, Route, Target};
use storage::{CallStarted, Entry};

use super::super::{Output, record};
use super::{Call, caller_user, names, outside};

impl Call {
    /// Somebody else is at a leg, who goes by these names.
    pub(super) fn on_newcomer(
        &mut self,
        now: Now,
        leg: Leg,
        identity: &Identity,
        (names, emergency): (&[&str], bool),
        out: &mut VecDeque<Output>,
    ) {
        let side = self.sides[leg.index()];
        let arrival = self.machine.arrival(leg, &Newcomer { side, names, emergency });
        let event = arrival.begin(leg, &self.epoch);
        let withheld = self.withholds(leg, arrival);
        self.leave(now, leg, out);
        self.join(now, leg, caller_user(identity), identity.privacy || withheld, out);
        self.tell(now, event, out);
    }

    /// Whether who comes must not be shown, before the machine has heard of it.
    fn withholds(&self, leg: Leg, arrival: Arrival) -> bool {
        arrival == Arrival::Barred(Reason::Union) && leg != self.machine.line_leg()
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
        if !self.answered {
            self.callee.clone_from(&target.user);
            self.sides[leg.index()] = side;
            let newcomer = Newcomer { side, names: &[&target.user], emergency: target.emergency };
            // The called leg has no party yet, so nobody changes; but the line may be left or come back.
            let arrival = self.machine.arrival(leg, &newcomer);
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
        let names: Vec<&str> = names(caller).collect();
        let newcomer = Newcomer { side: replacement.side, names: &names, emergency: false };
        let withheld = self.withholds(leg, self.machine.arrival(leg, &newcomer));
        let started = CallStarted {
            call: replacement.record,
            node: self.node.clone(),
            line: self.machine.line().map(|line| line.number.clone()),
            line_class: self.machine.class(),
            retention: record::call_tag(false),
            direction: Direction::Internal,
            from: self.shown(leg, caller_user(caller), caller.privacy || withheld),
            to: self.shown(leg, &replacement.request_user, withheld),
            privacy: caller.privacy,
            emergency: false,
            sip_call_id: replacement.sip_call_id.clone(),
            linked_calls: Vec::new(),
        };
        self.write(now, Entry::CallStarted(Box::new(started)), out);
        self.write(now, Entry::CallsLinked { call: self.id, with: replacement.record }, out);
    }

    /// Such an INVITE has had its answer, which ends its record.
    pub(super) fn on_replaced(&mut self, now: Now, record: CallId, status: u16, out: &mut VecDeque<Output>) {
        let answered = status < 300;
        if answered {
            self.write(now, Entry::CallAnswered { call: record }, out);
        }
        let end = End { by: Some(EndedBy::Gateway), final_status: Some(status), cancelled: status == 487 };
        let ended = record::ended(record, &end, answered, RecordingOutcome::NotAsked, None, None);
        self.write(now, Entry::CallEnded(Box::new(ended)), out);
    }
}
