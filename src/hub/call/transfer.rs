//! Whoever comes in somebody's place, by a transfer, a redirection, or an INVITE with Replaces: told to
//! `consent`, which says what it means ([`consent::Arrival`]), and written down. Whoever has not said yet where it
//! is, is told only as far as it bars; for the rest it is doubt who is there.
//!
//! | whom a REFER or 3xx names | is called on |
//! |---|---|
//! | an emergency service | the public side |
//! | somebody at a peer's host | that peer's side |
//! | a listed line, or anybody whom a public peer names | the district's side |
//! | anybody else | the public side |

use std::collections::VecDeque;
use std::net::IpAddr;

use consent::{Arrival, CallId, Direction, Event, Leg, Name, Newcomer, Now, RecordingOutcome, Side};
use recorder::SourceChange;
use sip_gateway::{End, EndedBy, Identity, Replacement, Route, Target};
use storage::{CallStarted, Entry, Stamped};

use super::super::{Output, record};
use super::{Call, JOURNAL_WAIT_MS, dialled, names};

impl Call {
    /// Somebody else is at a leg.
    pub(super) fn on_newcomer(
        &mut self,
        now: Now,
        leg: Leg,
        identity: &Identity,
        newcomer: &Newcomer<'_>,
        out: &mut VecDeque<Output>,
    ) {
        let arrival = self.machine.arrival(leg, newcomer);
        if arrival == Arrival::OnLine {
            // Whoever was there is heard no more before anything may be stored again.
            self.vacate(leg, out);
        }
        let event = arrival.begin(leg, &self.epoch);
        self.leave(now, leg, out);
        let users: Vec<&str> = newcomer.names.iter().map(|name| name.user).collect();
        self.join(now, leg, identity, &users, out);
        self.tell(now, event, out);
    }

    /// Whoever was at a leg has gone, and who comes there from this side has not said where it is: nobody is
    /// heard there, and nothing is sent there.
    pub(super) fn on_vacated(
        &mut self,
        now: Now,
        leg: Leg,
        (identity, side): (&Identity, Side),
        out: &mut VecDeque<Output>,
    ) {
        let names: Vec<Name<'_>> = names(identity).collect();
        let newcomer = Newcomer { side, names: &names, emergency: false, same_dialog: false };
        let event = match self.machine.arrival(leg, &newcomer) {
            Arrival::Change | Arrival::OnLine | Arrival::Doubt => {
                Event::Doubt { leg, epoch: self.epoch.raise() }
            }
            barred => barred.begin(leg, &self.epoch),
        };
        self.vacate(leg, out);
        self.tell(now, event, out);
    }

    fn vacate(&mut self, leg: Leg, out: &mut VecDeque<Output>) {
        self.rtp[leg.index()].clear();
        self.replaced[leg.index()] = true;
        out.push_back(Output::Media(recorder::Command::Describe {
            call: self.id,
            leg,
            signalled_from: IpAddr::from([0, 0, 0, 0]),
            streams: Vec::new(),
            change: SourceChange::Replaced,
        }));
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
        let user = if target.emergency { None } else { dialled(&self.rules, &target.user, side) };
        if target.emergency {
            self.calls_emergency = Some(leg);
        } else {
            self.emergency_no_longer_called(leg);
        }
        if !self.answered {
            self.callee.clone_from(&target.user);
            self.sides[leg.index()] = side;
            self.emergency |= target.emergency;
            let newcomer = Newcomer {
                side,
                names: &[Name::known(&target.user)],
                emergency: target.emergency,
                same_dialog: false,
            };
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

    /// An INVITE that replaces a far end has a record of its own (I3), for which it waits as a call does, linked
    /// to this call's; its media and what is recorded of it are this call's.
    pub(super) fn on_replacing(&mut self, now: Now, replacement: &Replacement, out: &mut VecDeque<Output>) {
        let (leg, caller) = (replacement.leg, &replacement.caller);
        let withheld = self.machine.withholds(leg, names(caller).map(|name| name.user));
        // Whom it dials may be the end that stays.
        let called = replacement.request_user.as_str();
        let called_withheld = withheld || self.machine.withholds(leg.other(), [called]);
        let started = CallStarted {
            call: replacement.record,
            node: self.node.clone(),
            line: self.machine.line().map(|line| line.number.clone()),
            line_class: self.machine.class(),
            retention: record::call_tag(false),
            direction: Direction::Internal,
            from: self.shown_party(caller, withheld),
            to: self.shown(called, called_withheld),
            privacy: caller.privacy,
            emergency: false,
            identity_verdict: None,
            foreign_caller_id: false,
            sip_call_id: replacement.sip_call_id.clone(),
            linked_calls: Vec::new(),
        };
        let stamped = Stamped { at: now.wall, entry: Entry::CallStarted(Box::new(started)) };
        out.push_back(Output::Journal { stamped, awaited_by: Some(replacement.record) });
        self.replacing = Some((replacement.record, now.mono.plus_ms(JOURNAL_WAIT_MS)));
        self.write(now, Entry::CallsLinked { call: self.id, with: replacement.record }, out);
    }

    /// Whether an INVITE waits for this record.
    pub(in super::super) fn awaits(&self, record: CallId) -> bool {
        self.replacing.is_some_and(|(awaited, _)| awaited == record)
    }

    /// The INVITE that replaces a party goes on.
    pub(super) fn replace(&mut self, out: &mut VecDeque<Output>) {
        if let Some((record, _)) = self.replacing.take() {
            out.push_back(Output::Gateway(sip_gateway::Command::Replace { call: self.id, record }));
        }
    }

    /// Such an INVITE has had its answer, which ends its record.
    pub(super) fn on_replaced(&mut self, now: Now, record: CallId, status: u16, out: &mut VecDeque<Output>) {
        self.replacing.take_if(|(awaited, _)| *awaited == record);
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
