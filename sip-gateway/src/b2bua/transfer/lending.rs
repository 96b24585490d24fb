//! A far end that goes from one call to another: L's attended transfer between two calls of ours (RFC 5589
//! §7.1). By is the call that wants it, Of the one that has it; T is Of's far end opposite L.
//!
//! | Of | input | effect | next |
//! |---|---|---|---|
//! | its own | By asks, nothing is pending | T's dialog goes to By | lent |
//! | its own | By asks, but an INVITE, a transfer or a loan is under way | 491 | its own |
//! | its own | By asks; T still rings, L calls | CANCEL to T, 487 to L; By calls whom L dialled | ended |
//! | its own | By asks; not answered otherwise, ended, another fork, no description of T's kept | 481 | its own |
//! | lent | T has joined By | the two are linked; BYE to L | ended |
//! | lent | By gives T back | T's dialog is Of's again, and By's re-INVITE if T has not answered it | its own |
//! | its own | 2xx to that re-INVITE | ACK with what T had before | its own |
//! | lent | By gives T back, but T has hung up | BYE to L | ended |
//! | lent | BYE of L | 200; T is By's for good | ended |
//! | ended | By gives T back | BYE to T | ended |
//! | lent | a refresh of L's session | as [`session_timer`] says | lent |
//! | lent | anything else of L's | 491 | lent |

use consent::{CallId, Leg};

use super::super::identity::FarEnd;
use super::super::session::Ours;
use super::super::session_timer::{self, Timing};
use super::super::{Call, CallTimer, EndedBy, Event, Owner, Phase, Role, TIMER_C_MS};
use super::{Borrowed, Invited, Newcomer, RETRY_MS, Reinvite, Said, Stage, Target, Transfer};
use crate::core::{Again, DialogPlace, Environment};
use crate::dialog::{Dialog, sequence_of};
use crate::transaction::TxId;
use crate::wire::{Method, Response, Uri, name};
use crate::{End, PeerId};

/// What one call wants of another; the core carries it there.
pub(crate) enum Loan {
    /// By asks for the far end opposite this dialog.
    Asked { by: CallId, place: DialogPlace },
    /// T has joined By.
    Kept { of: CallId },
    /// By gives T back, with a re-INVITE that T has not answered yet.
    Back { lent: Box<Lent>, pending: Option<TxId> },
}

/// Why a far end is not lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotLent {
    /// It may be a little later.
    Busy,
    /// There is nobody.
    Gone,
    /// Of calls an emergency service.
    Emergency,
    /// It had not answered yet, and is called no more: whom L dialled there.
    Unanswered { of: CallId, uri: String },
}

/// T, on its way.
pub(crate) struct Lent {
    pub(crate) of: CallId,
    /// Its leg in Of.
    leg: Leg,
    pub(super) dialog: Dialog,
    pub(super) ours: Ours,
    pub(super) far_end: FarEnd,
    timing: Timing,
    pub(super) hung_up: bool,
}

impl Lent {
    /// T has nobody left to talk to.
    pub(crate) fn hang_up(&mut self, env: &mut Environment) {
        env.dialogs.remove(&self.dialog.id);
        if self.hung_up {
            return;
        }
        let (mut bye, path) = (self.dialog.request(Method::BYE), self.dialog.path);
        bye.headers.push(name::MAX_FORWARDS, "70");
        env.request(path, bye, Owner::Nobody);
    }
}

impl Call {
    /// By asks for the far end opposite the dialog that L's Replaces names.
    pub(super) fn borrow(&mut self, env: &mut Environment) {
        let Some(transfer) = &self.transfer else { return };
        let Stage::Borrowing { replaces } = &transfer.stage else { return };
        let own = self.leavers_peer(transfer);
        let place = env.dialogs.get(&replaces.dialog).copied();
        let allowed = |place: &DialogPlace| place.call != self.id && env.same_side(place.peer, own);
        match place.filter(allowed) {
            Some(place) => env.loans.push_back(Loan::Asked { by: self.id, place }),
            None => self.fail_transfer(env, &Response::new(481)),
        }
    }

    /// Whose peer L is.
    pub(in super::super) fn leavers_peer(&self, transfer: &Transfer) -> PeerId {
        let fork = self.forks.get(transfer.fork);
        fork.map_or(self.peer, |fork| fork.dialogs[transfer.leg.index()].path.peer)
    }

    /// Of's answer.
    pub(crate) fn on_loan(&mut self, env: &mut Environment, lent: Result<Box<Lent>, NotLent>) {
        let asked =
            self.transfer.as_ref().is_some_and(|transfer| matches!(transfer.stage, Stage::Borrowing { .. }));
        match lent {
            Ok(lent) if asked => self.reinvite_lent(env, lent),
            Ok(lent) => env.loans.push_back(Loan::Back { lent, pending: None }),
            Err(_) if !asked => {}
            Err(NotLent::Busy) => self.arm(env, CallTimer::Transfer, RETRY_MS),
            Err(NotLent::Gone) => self.fail_transfer(env, &Response::new(481)),
            Err(NotLent::Emergency) => self.fail_transfer(env, &Response::new(403)),
            Err(NotLent::Unanswered { of, uri }) => self.call_unanswered(env, of, uri),
        }
    }

    /// Whom L was calling is called from here (RFC 5589 §7.6).
    fn call_unanswered(&mut self, env: &mut Environment, of: CallId, uri: String) {
        env.emit(Event::Linked { call: self.id, with: of });
        let peer = match Uri::parse(&uri) {
            Ok(Uri::Sip(uri)) => env.peer_at(uri.host, uri.port),
            _ => None,
        };
        if let Some(transfer) = &mut self.transfer {
            let emergency = env.is_emergency(&uri);
            transfer.target = Some(Target { uri, replaces: None, peer, emergency });
            transfer.stage = Stage::Deciding;
        }
        self.ask_for_target(env);
    }

    /// Asks T for an offer.
    fn reinvite_lent(&mut self, env: &mut Environment, mut lent: Box<Lent>) {
        let Some(leg) = self.transfer.as_ref().map(|transfer| transfer.leg) else { return };
        let Some(fork) = self.add_newcomer(env, leg, lent.dialog.clone()) else {
            env.loans.push_back(Loan::Back { lent, pending: None });
            return self.fail_transfer(env, &Response::new(503));
        };
        let Some(dialog) = self.dialog(fork, leg) else { return };
        let (mut sent, path) = Self::request_in(env, dialog, Method::INVITE);
        lent.dialog.local_seq = dialog.local_seq;
        if !self.is_emergency() {
            session_timer::ask(env.config.session_timer, &mut sent.headers);
        }
        let reinvite = Reinvite { asked: self.ask(env, path, sent, Role::Lent), offer: None };
        if let Some(transfer) = &mut self.transfer {
            let borrowed = Box::new(Borrowed { lent, reinvite });
            transfer.stage = Stage::Inviting(Invited::Lent { borrowed, fork });
        }
        self.arm(env, CallTimer::Transfer, TIMER_C_MS);
    }

    /// Our re-INVITE to T was challenged and has been sent again.
    pub(in super::super) fn borrows_again(&mut self, again: Again) {
        if let Some(borrowed) = self.transfer.as_mut().and_then(|transfer| transfer.borrowed()) {
            let sequence = sequence_of(&again.request.headers).unwrap_or_default();
            borrowed.lent.dialog.local_seq = borrowed.lent.dialog.local_seq.max(sequence);
            borrowed.reinvite.asked.sent_again(again);
        }
    }

    /// The answer of somebody lent to our re-INVITE without an offer.
    pub(in super::super) fn on_lent_response(
        &mut self,
        env: &mut Environment,
        client: TxId,
        response: Response,
    ) {
        let borrowed = self.transfer.as_mut().and_then(|transfer| transfer.borrowed());
        if borrowed.is_none_or(|borrowed| !borrowed.reinvite.asked.is(client)) {
            return self.on_returned_response(env, client, &response);
        }
        let Some(transfer) = &mut self.transfer else { return };
        let leg = transfer.leg;
        match std::mem::replace(&mut transfer.stage, Stage::Deciding) {
            Stage::Inviting(Invited::Lent { mut borrowed, fork })
                if (200..300).contains(&response.status) =>
            {
                if let Some(dialog) = self.dialog(fork, leg) {
                    dialog.refresh_target(env, &response.headers);
                    borrowed.lent.dialog = dialog.clone();
                }
                borrowed.lent.timing.agree(&response.headers);
                let said = Said { fork, headers: response.headers, body: response.body };
                self.begin_joining(env, Newcomer::Lent(borrowed), said);
            }
            Stage::Inviting(Invited::Lent { mut borrowed, fork }) if response.status < 200 => {
                borrowed.reinvite.asked.hear();
                transfer.stage = Stage::Inviting(Invited::Lent { borrowed, fork });
            }
            Stage::Inviting(Invited::Lent { borrowed, .. }) => {
                env.loans.push_back(Loan::Back { lent: borrowed.lent, pending: None });
                self.fail_transfer(env, &response);
            }
            // The same 2xx again: its ACK waits for R.
            stage => transfer.stage = stage,
        }
    }

    /// A re-INVITE of By's that T answers after it has come back.
    fn on_returned_response(&mut self, env: &mut Environment, client: TxId, response: &Response) {
        if response.status >= 200 {
            self.orphans.retain(|orphan| *orphan != client);
        }
        if !(200..300).contains(&response.status) || self.acknowledge_again(env, client) {
            return;
        }
        let Some(place) = self.place_of(env, &response.headers) else { return };
        let Some(dialog) = self.dialog(place.fork, place.leg) else { return };
        let (mut ack, path) = (dialog.ack(sequence_of(&response.headers).unwrap_or_default()), dialog.path);
        let offer = super::super::session::find(&response.headers, &response.body).ok().flatten();
        ack.headers.push(name::MAX_FORWARDS, "70");
        ack.headers.push(name::CONTENT_TYPE, "application/sdp");
        ack.body = self.session.answer_again(place.leg, offer.as_ref());
        self.acknowledge(env, client, place.fork, path, ack);
        self.take_timer(env, place.leg, &response.headers);
    }

    /// Of lends the far end opposite this dialog.
    ///
    /// # Errors
    /// [`NotLent`] if it does not.
    pub(crate) fn lend(&mut self, env: &mut Environment, place: DialogPlace) -> Result<Box<Lent>, NotLent> {
        if self.calls_for_help {
            return Err(NotLent::Emergency);
        }
        if self.phase == Phase::Calling && place.leg == Leg::A {
            let uri = self.dialled_now();
            let end =
                End { by: Some(EndedBy::Caller), final_status: Some(487), cancelled: true, cause: None };
            self.finish(env, end, Some(&Response::new(487)), None);
            return Err(NotLent::Unanswered { of: self.id, uri });
        }
        let leg = place.leg.other();
        let described = !self.session.ours(leg).sent().is_empty();
        if self.phase != Phase::Answered
            || self.answered != Some(place.fork)
            || self.over[place.leg.index()]
            || !described
        {
            return Err(NotLent::Gone);
        }
        if !self.may_transfer() || self.invite_pending().is_some() || !self.orphans.is_empty() {
            return Err(NotLent::Busy);
        }
        let dialog = self.dialog(place.fork, leg).ok_or(NotLent::Gone)?.clone();
        self.lent = true;
        self.over[leg.index()] = true;
        Ok(Box::new(Lent {
            of: self.id,
            leg,
            dialog,
            ours: self.session.ours(leg).clone(),
            far_end: self.far_ends[leg.index()].clone(),
            timing: self.lend_timing(env, leg),
            hung_up: false,
        }))
    }

    /// T is By's for good: this call has nobody opposite L any more.
    pub(crate) fn end_lent(&mut self, env: &mut Environment) {
        if self.lent {
            let gone = if self.over[Leg::A.index()] { Leg::A } else { Leg::B };
            self.finish(env, End::by(EndedBy::of(gone.other())), None, None);
        }
    }

    /// By gives T back, with a re-INVITE that T has not answered yet.
    pub(crate) fn take_back(&mut self, env: &mut Environment, mut lent: Box<Lent>, pending: Option<TxId>) {
        if let Some(client) = pending {
            env.transactions.set_owner(client, Owner::Call(self.id, Role::Lent));
            self.orphans.push(client);
        }
        if self.phase != Phase::Answered {
            return lent.hang_up(env);
        }
        self.lent = false;
        let (leg, hung_up) = (lent.leg, lent.hung_up);
        let Some(fork) = self.answered else { return };
        let place = DialogPlace { call: self.id, leg, fork, peer: lent.dialog.path.peer, class: self.class };
        env.add_dialog(lent.dialog.id.clone(), place);
        if let Some(dialog) = self.dialog(fork, leg) {
            *dialog = lent.dialog;
        }
        if hung_up {
            return self.finish(env, End::by(EndedBy::of(leg)), None, None);
        }
        self.over[leg.index()] = false;
        self.session.resume(leg, lent.ours);
        self.take_timing(env, leg, lent.timing);
    }
}
