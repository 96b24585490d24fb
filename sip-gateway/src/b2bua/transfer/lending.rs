//! A far end that goes from one call to another: L's attended transfer between two calls of ours (RFC 5589
//! §7.1). By is the call that wants it, Of the one that has it; T is Of's far end opposite L.
//!
//! | Of | input | effect | next |
//! |---|---|---|---|
//! | its own | By asks, nothing is pending | T's dialog goes to By | lent |
//! | its own | By asks, but an INVITE, a transfer or a loan is under way | 491 | its own |
//! | its own | By asks; not answered, ended, another fork | 481 | its own |
//! | lent | T has joined By | the two are linked; BYE to L | ended |
//! | lent | By gives T back | T's dialog is Of's again | its own |
//! | lent | By gives T back, but T has hung up | BYE to L | ended |
//! | lent | BYE of L | 200; T is By's for good | ended |
//! | ended | By gives T back | BYE to T | ended |
//! | lent | anything else of L's | 491 | lent |

use consent::{CallId, Leg};

use super::super::identity::FarEnd;
use super::super::session::Ours;
use super::super::sips;
use super::super::{Call, CallTimer, EndedBy, Owner, Phase, Role, TIMER_C_MS};
use super::{Invited, Newcomer, RETRY_MS, Said, Stage};
use crate::core::{Again, DialogPlace, Environment};
use crate::dialog::{Dialog, sequence_of};
use crate::digest::credentials_of;
use crate::transaction::TxId;
use crate::wire::{Headers, Method, Request, Response, name};
use crate::{End, PeerId};

/// What one call wants of another; the core carries it there.
pub(crate) enum Loan {
    /// By asks for the far end opposite this dialog.
    Asked { by: CallId, place: DialogPlace },
    /// T has joined By.
    Kept { of: CallId },
    /// By gives T back.
    Back(Box<Lent>),
}

/// T, on its way.
pub(crate) struct Lent {
    pub(crate) of: CallId,
    /// Its leg in Of.
    leg: Leg,
    pub(super) dialog: Dialog,
    pub(super) ours: Ours,
    pub(super) far_end: FarEnd,
    pub(super) hung_up: bool,
    /// In By: where its dialog is, and our re-INVITE to it.
    pub(super) fork: usize,
    pub(super) number: u32,
    pub(super) client: TxId,
    pub(super) sequence: u32,
    credentials: Headers,
}

impl Lent {
    /// Our re-INVITE to it.
    pub(super) fn invited(&self) -> Invited {
        Invited { client: self.client, sequence: self.sequence, credentials: self.credentials.clone() }
    }

    /// Our re-INVITE was challenged and has been sent again.
    pub(super) fn sent_again(&mut self, again: &Again) {
        self.client = again.client;
        self.sequence = sequence_of(&again.request.headers).unwrap_or_default();
        self.credentials = credentials_of(&again.request.headers);
        self.dialog.local_seq = self.dialog.local_seq.max(self.sequence);
    }

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
        let own = self.dialog_peer(transfer.fork, transfer.leg);
        let place = env.dialogs.get(&replaces.dialog).copied();
        let allowed = |place: &DialogPlace| place.call != self.id && env.same_side(place.peer, own);
        match place.filter(allowed) {
            Some(place) => env.loans.push_back(Loan::Asked { by: self.id, place }),
            None => self.fail_transfer(env, &Response::new(481)),
        }
    }

    fn dialog_peer(&self, fork: usize, leg: Leg) -> PeerId {
        self.forks.get(fork).map_or(self.peer, |fork| fork.dialogs[leg.index()].path.peer)
    }

    /// Of's answer.
    pub(crate) fn on_loan(&mut self, env: &mut Environment, lent: Result<Box<Lent>, u16>) {
        let asked =
            self.transfer.as_ref().is_some_and(|transfer| matches!(transfer.stage, Stage::Borrowing { .. }));
        match lent {
            Ok(lent) if asked => self.reinvite_lent(env, lent),
            Ok(lent) => env.loans.push_back(Loan::Back(lent)),
            Err(491) if asked => self.arm(env, CallTimer::Transfer, RETRY_MS),
            Err(status) if asked => self.fail_transfer(env, &Response::new(status)),
            Err(_) => {}
        }
    }

    /// Asks T for an offer.
    fn reinvite_lent(&mut self, env: &mut Environment, mut lent: Box<Lent>) {
        let Some(leg) = self.transfer.as_ref().map(|transfer| transfer.leg) else { return };
        let Some(fork) = self.add_newcomer(env, leg, lent.dialog.clone()) else {
            env.loans.push_back(Loan::Back(lent));
            return self.fail_transfer(env, &Response::new(503));
        };
        let Some(dialog) = self.dialog(fork, leg) else { return };
        let (mut sent, path): (Request, _) = (dialog.request(Method::INVITE), dialog.path);
        lent.dialog.local_seq = dialog.local_seq;
        sent.headers.push(name::MAX_FORWARDS, "70");
        sent.headers.push(name::CONTACT, env.contact(&path, sips::is_sent_to(&sent)));
        self.relays_begun = self.relays_begun.wrapping_add(1);
        lent.number = self.relays_begun;
        lent.fork = fork;
        lent.sequence = sequence_of(&sent.headers).unwrap_or_default();
        env.authorize(&path, &mut sent);
        lent.credentials = credentials_of(&sent.headers);
        let branch = env.stamp_via(&path, &mut sent);
        let owner = Owner::Call(self.id, Role::Join(lent.number));
        lent.client = env.request_with_branch(path, &sent, branch, owner);
        if let Some(transfer) = &mut self.transfer {
            transfer.stage = Stage::Inviting(Newcomer::Lent(lent));
        }
        self.arm(env, CallTimer::Transfer, TIMER_C_MS);
    }

    pub(super) fn lent_mut(&mut self) -> Option<&mut Lent> {
        match &mut self.transfer.as_mut()?.stage {
            Stage::Inviting(Newcomer::Lent(lent)) | Stage::Joining { newcomer: Newcomer::Lent(lent), .. } => {
                Some(lent)
            }
            _ => None,
        }
    }

    pub(super) fn lent_number(&self) -> Option<u32> {
        match &self.transfer.as_ref()?.stage {
            Stage::Inviting(Newcomer::Lent(lent)) => Some(lent.number),
            _ => None,
        }
    }

    /// T's answer to our re-INVITE without an offer.
    pub(super) fn on_lent_response(&mut self, env: &mut Environment, response: Response) {
        match response.status {
            100..=199 => {}
            200..=299 => {
                let Some(transfer) = &mut self.transfer else { return };
                let Stage::Inviting(Newcomer::Lent(mut lent)) =
                    std::mem::replace(&mut transfer.stage, Stage::Deciding)
                else {
                    return;
                };
                let leg = transfer.leg;
                if let Some(dialog) = self.dialog(lent.fork, leg) {
                    dialog.refresh_target(env, &response.headers);
                    lent.dialog = dialog.clone();
                }
                let said = Said { fork: lent.fork, headers: response.headers, body: response.body };
                self.begin_joining(env, Newcomer::Lent(lent), said);
            }
            _ => {
                self.release_newcomer(env, &response);
                self.fail_transfer(env, &response);
            }
        }
    }

    /// Of lends the far end opposite this dialog.
    ///
    /// # Errors
    /// The status that refuses it; 491 if it may work a little later.
    pub(crate) fn lend(&mut self, place: DialogPlace) -> Result<Box<Lent>, u16> {
        if self.is_emergency() {
            return Err(403);
        }
        if self.phase != Phase::Answered || self.answered != Some(place.fork) || self.over[place.leg.index()]
        {
            return Err(481);
        }
        if !self.may_transfer() || self.invite_pending().is_some() {
            return Err(491);
        }
        let leg = place.leg.other();
        let dialog = self.dialog(place.fork, leg).ok_or(481_u16)?.clone();
        self.lent = true;
        self.over[leg.index()] = true;
        Ok(Box::new(Lent {
            of: self.id,
            leg,
            dialog,
            ours: self.session.ours(leg).clone(),
            far_end: self.far_ends[leg.index()].clone(),
            hung_up: false,
            fork: 0,
            number: 0,
            client: self.server,
            sequence: 0,
            credentials: Headers::new(),
        }))
    }

    /// T is By's for good: this call has nobody opposite L any more.
    pub(crate) fn end_lent(&mut self, env: &mut Environment) {
        if !self.lent {
            return;
        }
        let by = if self.over[Leg::A.index()] { EndedBy::Callee } else { EndedBy::Caller };
        let end = End { by: Some(by), final_status: Some(200), cancelled: false };
        self.finish(env, end, None, None);
    }

    /// By gives T back.
    pub(crate) fn take_back(&mut self, env: &mut Environment, mut lent: Box<Lent>) {
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
            let by = if leg == Leg::A { EndedBy::Caller } else { EndedBy::Callee };
            let end = End { by: Some(by), final_status: Some(200), cancelled: false };
            return self.finish(env, end, None, None);
        }
        self.over[leg.index()] = false;
    }
}
