//! Our own refreshes of a leg's session (RFC 4028 §10, §7.3, §7.4).
//!
//! | § | state | input | effect |
//! |---|---|---|---|
//! | 10 | we refresh | half the interval | UPDATE where the far end takes it, else a re-INVITE with what was said last |
//! | 7.4 | refreshing | 2xx | agreed anew |
//! | 10 | refreshing | 408, 481, no answer | the call ends |
//! | 3261 14.1 | refreshing | 491 | again as [`glare`](super::super::glare) says |
//! | 7.3 | refreshing | 422 | again with its Min-SE |
//! | 10 | refreshing | another failure of UPDATE | again at once, as a re-INVITE |
//! | 10 | refreshing | another failure | again after [`RETRY_MS`] |
//! | 3261 9.1 | refreshing by re-INVITE | given up, as [`asking`](super::super::asking) says | again after [`RETRY_MS`] |

use consent::Leg;

use super::super::asking::Asked;
use super::super::{Call, CallTimer, Phase, Role, session};
use super::{RETRY_MS, least_of};
use crate::core::Environment;
use crate::transaction::{Report, TxId};
use crate::wire::{Method, Response, name};

impl Call {
    /// Whether a re-INVITE of ours refreshes a leg's session just now, or an offer tells one of recording.
    pub(in super::super) fn offers_itself(&self) -> bool {
        self.indicating().is_some()
            || self.timings.iter().any(|timing| timing.refresh.as_ref().is_some_and(Asked::invites))
    }

    pub(in super::super) fn refreshing(&self, leg: Leg) -> Option<&Asked> {
        self.timings[leg.index()].refresh.as_ref()
    }

    pub(in super::super) fn refreshing_mut(&mut self, leg: Leg) -> Option<&mut Asked> {
        self.timings[leg.index()].refresh.as_mut()
    }

    /// Our refresh is due.
    pub(in super::super) fn refresh(&mut self, env: &mut Environment, leg: Leg) {
        let timing = &self.timings[leg.index()];
        let Some(fork) = self.answered.filter(|_| self.phase == Phase::Answered) else { return };
        if timing.refresh.is_some() || self.over[leg.index()] {
            return;
        }
        let offer = self.session.ours(leg).sent().clone();
        let method = if timing.takes_update || offer.is_empty() { Method::UPDATE } else { Method::INVITE };
        if self.is_indicating(leg) || (method == Method::INVITE && self.invite_pending().is_some()) {
            return self.arm(env, CallTimer::Refresh(leg), RETRY_MS);
        }
        let Some(dialog) = self.dialog(fork, leg) else { return };
        let (mut sent, path) = Self::request_in(env, dialog, method.clone());
        self.keep_timer(env, leg, &mut sent);
        if method == Method::INVITE {
            sent.headers.push(name::CONTENT_TYPE, "application/sdp");
            sent.body = offer;
            self.session.offer_again(leg);
        }
        let refresh = self.ask(env, path, sent, Role::Refresh(leg));
        self.timings[leg.index()].refresh = Some(refresh);
    }

    /// The far end's answer to our refresh.
    pub(in super::super) fn on_refresh_response(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        client: TxId,
        response: &Response,
    ) {
        if response.status < 200 {
            return self.on_asked_provisional(env, leg, client);
        }
        let Some(refresh) = self.take_refresh(env, leg, client) else {
            self.orphans.retain(|orphan| *orphan != client);
            // A 2xx again: our ACK was lost.
            self.acknowledge_again(env, client);
            return;
        };
        if response.status < 300 {
            return self.on_refreshed(env, leg, &refresh, response);
        }
        self.forget_offer(env, &refresh);
        self.on_refresh_refused(env, leg, &refresh, response);
    }

    fn on_refreshed(&mut self, env: &mut Environment, leg: Leg, refresh: &Asked, response: &Response) {
        let Some(fork) = self.answered else { return };
        self.heed_accepted(env, fork, leg, &response.headers);
        if refresh.invites() {
            if let Ok(Some(found)) = session::find(&response.headers, &response.body) {
                let told = self.session.describe(leg, found.media(self.heard_from[leg.index()]), false);
                self.tell(env, told);
            }
            self.forget_offer(env, refresh);
            self.acknowledge_asked(env, fork, leg, refresh);
        }
        self.take_timer(env, leg, &response.headers);
    }

    fn on_refresh_refused(&mut self, env: &mut Environment, leg: Leg, refresh: &Asked, failure: &Response) {
        let wait_ms = match failure.status {
            408 | 481 => return self.expire(env, leg),
            491 => self.glare_wait_ms(env, leg),
            422 => {
                let timing = &mut self.timings[leg.index()];
                let least_s = least_of(&failure.headers);
                let longer = timing.agreed.as_mut().filter(|agreed| agreed.interval_s < least_s);
                let longer = longer.map(|agreed| agreed.interval_s = least_s).is_some();
                timing.least_s = timing.least_s.max(least_s);
                if longer { 0 } else { RETRY_MS }
            }
            _ if !refresh.invites() && self.timings[leg.index()].takes_update => {
                self.timings[leg.index()].takes_update = false;
                0
            }
            _ => RETRY_MS,
        };
        self.arm(env, CallTimer::Refresh(leg), wait_ms);
    }

    /// No answer to our refresh.
    pub(in super::super) fn on_refresh_failed(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        client: TxId,
        report: Report,
    ) {
        let Some(refresh) = self.take_refresh(env, leg, client) else { return };
        self.forget_offer(env, &refresh);
        self.on_refresh_refused(env, leg, &refresh, &Response::new(report.status()));
    }

    fn take_refresh(&mut self, env: &mut Environment, leg: Leg, client: TxId) -> Option<Asked> {
        let taken = self.timings[leg.index()].refresh.take_if(|refresh| refresh.is(client))?;
        self.disarm(env, CallTimer::Patience(leg));
        Some(taken)
    }

    /// It was neither accepted nor refused.
    pub(in super::super) fn give_up_refresh(&mut self, env: &mut Environment, leg: Leg) {
        let Some(refresh) = self.timings[leg.index()].refresh.take() else { return };
        self.forget_offer(env, &refresh);
        self.arm(env, CallTimer::Refresh(leg), RETRY_MS);
    }

    fn forget_offer(&mut self, env: &mut Environment, refresh: &Asked) {
        if refresh.invites() {
            let told = self.session.refuse();
            self.tell(env, told);
        }
    }

    /// No refresh of ours goes to a leg any more; a re-INVITE may be left without an answer.
    pub(super) fn stop_refreshing(&mut self, env: &mut Environment, leg: Leg) -> Option<Asked> {
        self.disarm(env, CallTimer::Refresh(leg));
        let refresh = self.timings[leg.index()].refresh.take()?;
        self.disarm(env, CallTimer::Patience(leg));
        self.orphans.extend(refresh.orphan());
        Some(refresh)
    }
}
