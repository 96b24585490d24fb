//! T is let go: it has hung up, or the transfer has come to nothing (RFC 3261 §9.1, §13.2.2.4).

use bytes::Bytes;
use consent::Leg;

use super::super::{Call, Event, session};
use super::{Invited, Leaving, Loan, Newcomer, Said, Stage, Taker};
use crate::core::Environment;
use crate::sdp::RecordLine;
use crate::wire::{Headers, Response};

impl Call {
    /// T hangs up before it has joined.
    pub(super) fn lose_newcomer(&mut self, env: &mut Environment) {
        if let Some(borrowed) = self.transfer.as_mut().and_then(|transfer| transfer.borrowed()) {
            borrowed.lent.hung_up = true;
        }
        self.fail_transfer(env, &Response::new(487));
    }

    /// Lets T go, whichever way it came.
    pub(super) fn release_newcomer(&mut self, env: &mut Environment, failure: &Response) {
        let Some(transfer) = &mut self.transfer else { return };
        let leg = transfer.leg;
        match std::mem::replace(&mut transfer.stage, Stage::Deciding) {
            Stage::Borrowing { .. } | Stage::Deciding => {}
            Stage::Announced { taker, said } => self.refuse_taker(env, leg, &taker, &said, failure),
            Stage::Inviting(Invited::Called) => self.give_up_hunt(env, None),
            Stage::Inviting(Invited::Lent { mut borrowed, .. }) => {
                borrowed.reinvite.asked.cancel(env);
                let pending = Some(borrowed.reinvite.asked.client());
                env.loans.push_back(Loan::Back { lent: borrowed.lent, pending });
            }
            Stage::Joining { newcomer, said, reinvite } => {
                if let Some(reinvite) = reinvite {
                    self.undo(env, leg.other(), *reinvite);
                }
                self.turn_away(env, leg, newcomer, &said, failure);
            }
        }
    }

    fn turn_away(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        newcomer: Newcomer,
        said: &Said,
        failure: &Response,
    ) {
        match newcomer {
            Newcomer::Called { attempt } => {
                let invited = self.attempts.get(attempt);
                if let Some((client, invite)) =
                    invited.map(|invited| (invited.client, invited.invite.clone()))
                {
                    let (place, nothing) = ((said.fork, leg), Headers::new());
                    self.acknowledge_newcomer(env, place, (client, &invite), &nothing, Bytes::new());
                }
                self.bid_farewell(env, &Leaving { fork: said.fork, leg });
            }
            Newcomer::Calling(taker) => self.refuse_taker(env, leg, &taker, said, failure),
            Newcomer::Lent(mut borrowed) => {
                // What it had before is its answer again.
                let offer = session::find(&said.headers, &said.body).ok().flatten();
                let answer = borrowed.lent.ours.answer_again(offer.as_ref(), RecordLine::Received);
                self.acknowledge_reinvite(env, (said.fork, leg), &borrowed.reinvite, answer);
                env.loans.push_back(Loan::Back { lent: borrowed.lent, pending: None });
            }
        }
    }

    fn refuse_taker(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        taker: &Taker,
        said: &Said,
        failure: &Response,
    ) {
        let status = super::super::forward::map_failure(failure).status;
        env.emit(Event::ReplacementEnded { call: self.id, record: taker.record, status });
        let tag = self.dialog(said.fork, leg).map(|dialog| dialog.id.local_tag.clone());
        let tag = tag.as_deref().unwrap_or(&self.tag);
        let reply = self.reply(env, &taker.invite, &self.back, tag, &Response::new(status), None);
        env.respond(taker.server, &reply);
    }
}
