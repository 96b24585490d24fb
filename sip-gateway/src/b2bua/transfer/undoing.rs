//! A re-INVITE to R that its transfer did not outlive: if R has taken T's description all the same, it gets
//! L's again (RFC 3261 §9.1, §14.1; RFC 3264 §8).
//!
//! | state | input of R | effect | next |
//! |---|---|---|---|
//! | Withdrawn | first 1xx | CANCEL, unless it went out already | Withdrawn |
//! | Withdrawn | 2xx, T's offer had gone out | ACK; re-INVITE with the description before it | Restoring |
//! | Withdrawn | 2xx with an offer, T had made none | ACK with the description before it; Media | none |
//! | Restoring | 2xx | ACK, Media | none |
//! | Restoring | 491 | again after a while | Restoring |
//! | both | 408, 481, nothing (§12.2.1.2) | the call ends | ended |
//! | both | other failure; 64*T1 over | R keeps what it has | none |
//! | both | the call ends | its 2xx gets an ACK | none |
//!
//! Meanwhile neither leg may begin an exchange: L's is refused as its own, R's as glare.

use bytes::Bytes;
use consent::Leg;

use super::super::session::{self, Numbered};
use super::super::{Call, CallTimer, EndedBy, Role};
use super::Reinvite;
use crate::End;
use crate::core::{Again, Environment};
use crate::transaction::{T1_64_MS, TxId};
use crate::wire::{Method, Response, name};

/// What is being undone.
pub(in super::super) struct Undoing {
    /// R.
    pub(in super::super) leg: Leg,
    reinvite: Reinvite,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Withdrawn,
    Restoring,
    /// R has answered 491.
    Waiting,
}

impl Call {
    /// The transfer is given up while R has yet to answer.
    pub(super) fn undo(&mut self, env: &mut Environment, leg: Leg, mut reinvite: Reinvite) {
        reinvite.asked.cancel(env);
        self.undoing = Some(Undoing { leg, reinvite, state: State::Withdrawn });
        self.arm(env, CallTimer::Undoing, T1_64_MS);
    }

    /// R has accepted, in vain.
    pub(super) fn undo_accepted(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        reinvite: Reinvite,
        response: &Response,
    ) {
        self.undoing = Some(Undoing { leg, reinvite, state: State::Withdrawn });
        self.on_undoing_response(env, response);
    }

    pub(super) fn undoes(&self, client: TxId) -> bool {
        self.undoing.as_ref().is_some_and(|undoing| undoing.reinvite.asked.is(client))
    }

    /// Whether the re-INVITE that restores what was waits for an answer.
    pub(super) fn awaits_restoration(&self, client: TxId) -> bool {
        self.undoes(client) && self.undoing.as_ref().is_some_and(|undoing| undoing.state == State::Restoring)
    }

    /// That re-INVITE was challenged and has been sent again.
    pub(super) fn restores_again(&mut self, again: Again) {
        if let Some(undoing) = &mut self.undoing {
            undoing.reinvite.asked.sent_again(again);
        }
    }

    pub(super) fn on_undoing_response(&mut self, env: &mut Environment, response: &Response) {
        let Some(undoing) = &mut self.undoing else { return };
        match (response.status, undoing.state) {
            (100..=199, State::Withdrawn) => {
                if undoing.reinvite.asked.hear() {
                    undoing.reinvite.asked.cancel(env);
                }
            }
            (100..=199, _) => {}
            (200..=299, state) => self.on_undoing_accepted(env, state, response),
            (491, State::Restoring) => {
                undoing.state = State::Waiting;
                let leg = undoing.leg;
                let wait_ms = self.glare_wait_ms(env, leg);
                self.arm(env, CallTimer::Undoing, wait_ms);
            }
            (408 | 481, _) => {
                let by = EndedBy::of(undoing.leg);
                self.finish(env, End::by(by), None, None);
            }
            _ => self.forget_undoing(env),
        }
    }

    fn on_undoing_accepted(&mut self, env: &mut Environment, state: State, response: &Response) {
        let Some(Undoing { leg, reinvite, .. }) = self.undoing.take() else { return };
        self.disarm(env, CallTimer::Undoing);
        let Some(fork) = self.answered else { return };
        if let Some(dialog) = self.dialog(fork, leg) {
            dialog.refresh_target(env, &response.headers);
        }
        let found = session::find(&response.headers, &response.body).ok().flatten();
        let answer = if reinvite.offer.is_none() && !response.body.is_empty() {
            self.session.answer_again(leg, found.as_ref())
        } else {
            Bytes::new()
        };
        self.acknowledge_reinvite(env, (fork, leg), &reinvite, answer);
        self.take_timer(env, leg, &response.headers);
        if let Some(offer) = reinvite.offer {
            let former = self.session.take(leg, offer);
            if state == State::Withdrawn {
                return self.restore(env, leg, &former);
            }
        }
        if let Some(found) = found {
            let media = found.media(self.heard_from[leg.index()]);
            let told = self.session.reassert(leg, media);
            self.tell(env, told);
        }
    }

    /// Gives R the description again that it had before.
    fn restore(&mut self, env: &mut Environment, leg: Leg, former: &Numbered) {
        let Some(dialog) = self.answered.and_then(|fork| self.dialog(fork, leg)) else { return };
        let (mut sent, path) = Self::request_in(env, dialog, Method::INVITE);
        self.keep_timer(env, leg, &mut sent);
        sent.headers.push(name::CONTENT_TYPE, "application/sdp");
        let offer = self.session.again(leg, former);
        sent.body = offer.octets().clone();
        let reinvite = Reinvite { asked: self.ask(env, path, sent, Role::Join), offer: Some(offer) };
        self.undoing = Some(Undoing { leg, reinvite, state: State::Restoring });
        self.arm(env, CallTimer::Undoing, T1_64_MS);
    }

    pub(in super::super) fn on_undoing_timer(&mut self, env: &mut Environment) {
        let Some(undoing) = self.undoing.take() else { return };
        if let (State::Waiting, Some(former)) = (undoing.state, &undoing.reinvite.offer) {
            return self.restore(env, undoing.leg, former);
        }
        // §9.1: given up for good; it would wait for ever.
        let (transactions, mut ports) = env.split();
        transactions.abandon(&mut ports, undoing.reinvite.asked.client());
    }

    fn forget_undoing(&mut self, env: &mut Environment) {
        self.undoing = None;
        self.disarm(env, CallTimer::Undoing);
    }

    /// The call ends.
    pub(in super::super) fn abandon_undoing(&mut self, env: &mut Environment) {
        self.disarm(env, CallTimer::Undoing);
        if let Some(undoing) = self.undoing.take() {
            self.orphans.push(undoing.reinvite.asked.client());
        }
    }
}
