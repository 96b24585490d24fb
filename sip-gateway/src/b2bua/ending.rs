//! How a call ends (RFC 3261 §9.2, §13.3.1.4, §15; RFC 3326).

use std::sync::Arc;

use consent::Leg;

use super::border::Border;
use super::{Call, CallTimer, EndedBy, LINGER_MS, Phase};
use crate::core::Environment;
use crate::transaction::{T4_MS, TxId};
use crate::wire::{Headers, Method, Request, Response, name};
use crate::{End, Event};

use super::forward::map_failure;
use super::{Owner, Role};

impl Call {
    /// The caller's CANCEL, which has been answered 200. It means something only before a final answer.
    pub(crate) fn on_cancel(&mut self, env: &mut Environment, role: Role, server: TxId, cancel: &Request) {
        match role {
            Role::Invite if matches!(self.phase, Phase::Waiting | Phase::Calling) => {
                let terminated = Response::new(487);
                let end =
                    End { by: Some(EndedBy::Caller), final_status: Some(487), cancelled: true, cause: None };
                let reason = self.reason_of(Leg::A, &cancel.headers);
                self.finish(env, end, Some(&terminated), reason.as_deref());
            }
            Role::Relay(number) => self.cancel_relay(env, number, server, &cancel.headers),
            Role::Replacing => self.cancel_replacing(env, server),
            Role::Invite
            | Role::Attempt(_)
            | Role::Join
            | Role::Lent
            | Role::Refresh(_)
            | Role::Indication(_) => {}
        }
    }

    /// Why a leg ends something, as the other may know it.
    pub(super) fn reason_of(&self, leg: Leg, headers: &Headers) -> Option<String> {
        let reason = headers.first(name::REASON)?;
        let border = Border { hosts: Arc::clone(&self.hosts[leg.index()]), ..Border::none() };
        border.reason(reason).map(std::borrow::Cow::into_owned)
    }

    /// The hub ends the call.
    pub(crate) fn end(&mut self, env: &mut Environment, text: &'static str) {
        let answered = self.phase == Phase::Answered;
        let reason = format!("SIP;cause=480;text=\"{text}\"");
        let mut response = Response::new(480);
        response.headers.push(name::REASON, reason.clone());
        let end = End {
            by: Some(EndedBy::Gateway),
            final_status: Some(if answered { 200 } else { 480 }),
            cancelled: false,
            cause: None,
        };
        self.finish(env, end, Some(&response), Some(&reason));
    }

    /// The call fails before an answer.
    pub(super) fn fail(&mut self, env: &mut Environment, by: EndedBy, failure: &Response) {
        self.fail_with(env, by, &map_failure(failure));
    }

    /// The same, with exactly this response.
    pub(super) fn fail_with(&mut self, env: &mut Environment, by: EndedBy, failure: &Response) {
        let end = End { by: Some(by), final_status: Some(failure.status), cancelled: false, cause: None };
        self.finish(env, end, Some(failure), None);
    }

    /// A BYE of a leg, not answered yet.
    pub(super) fn on_bye(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        fork: usize,
        server: TxId,
        bye: &Request,
    ) {
        let tag = self.tag.clone();
        let path = self.back;
        let done = self.reply(env, bye, &path, &tag, &Response::new(200), None);
        let early = self.answered.is_none();
        if early && leg == Leg::B {
            // A callee may not end an early dialog so (§15).
            let refusal = self.reply(env, bye, &path, &tag, &Response::new(481), None);
            return env.respond(server, &refusal);
        }
        env.respond(server, &done);
        if !early && self.answered != Some(fork) {
            return;
        }
        let reason = self.reason_of(leg, &bye.headers);
        let by = EndedBy::of(leg);
        if early {
            let terminated = Response::new(487);
            let end = End { by: Some(by), final_status: Some(487), cancelled: true, cause: None };
            return self.finish(env, end, Some(&terminated), reason.as_deref());
        }
        self.over[leg.index()] = true;
        self.drop_acceptance_of(env, leg);
        self.finish(env, End::by(by), None, reason.as_deref());
    }

    /// A 2xx of ours has not been acknowledged for 64*T1 (§13.3.1.4).
    pub(super) fn on_no_ack(&mut self, env: &mut Environment) {
        let Some(acceptance) = self.acceptance.take() else { return };
        self.disarm(env, CallTimer::RepeatAnswer);
        if !acceptance.settled && !self.over[acceptance.from.other().index()] {
            self.pass_ack(env, &acceptance, None);
        }
        if let Some((leg, reason)) = self.bye_after_ack.take() {
            return self.send_bye(env, leg, reason.as_deref());
        }
        self.finish(env, End::by(EndedBy::Gateway), None, Some("SIP;cause=408;text=\"no ACK\""));
    }

    /// A leg that has hung up sends no ACK any more; the other still needs its own.
    pub(super) fn drop_acceptance_of(&mut self, env: &mut Environment, leg: Leg) {
        let Some(acceptance) = self.acceptance.take_if(|acceptance| acceptance.from == leg) else { return };
        self.disarm(env, CallTimer::RepeatAnswer);
        self.disarm(env, CallTimer::GiveUpAnswer);
        if !acceptance.settled && !self.over[leg.other().index()] {
            self.pass_ack(env, &acceptance, None);
        }
    }

    /// Ends the call on both legs, whichever way each needs, and says so once.
    pub(super) fn finish(
        &mut self,
        env: &mut Environment,
        end: End,
        final_response: Option<&Response>,
        reason: Option<&str>,
    ) {
        if self.phase == Phase::Ended {
            return;
        }
        let answered = self.phase == Phase::Answered;
        self.phase = Phase::Ended;
        env.live_calls = env.live_calls.saturating_sub(1);
        env.admission.end(&mut self.admitted);
        for timer in [CallTimer::Decision, CallTimer::Ringing, CallTimer::Silence] {
            self.disarm(env, timer);
        }
        tracing::debug!(call = %self.id, answered, "ended");
        self.abandon_transfer(env);
        self.abandon_undoing(env);
        env.emit(Event::Ended { call: self.id, end });
        self.stop_repeating(env);
        self.stop_sessions(env);
        self.stop_indications(env);
        self.end_relays(env, &Response::new(487), |_| true);
        if let Some(held) = self.held_answer.take() {
            self.decline_answer(env, held.attempt, Some(held.fork), &held.response);
        }
        if answered {
            self.hang_up(env, reason);
        } else if let Some(response) = final_response {
            self.fail_invite(env, response);
        }
        self.cancel_attempts(env, None, reason);
        self.invite.body = bytes::Bytes::new();
        self.linger(env);
    }

    /// Answers the caller's INVITE with a failure. Where nothing went on, that is all that is left of the
    /// call; an emergency call keeps the place that it has.
    fn fail_invite(&mut self, env: &mut Environment, failure: &Response) {
        let unsent = self.is_unsent();
        let tag = if unsent { env.tag_for(&self.invite.headers) } else { self.tag.clone() };
        let by = self.far_peer(Leg::B).map(|peer| (Leg::B, peer));
        let reply = self.reply(env, &self.invite, &self.back, &tag, failure, by);
        if unsent && !self.is_emergency() {
            env.refuse(self.server, &reply);
        } else {
            env.respond(self.server, &reply);
        }
        self.over = [true, true];
    }

    /// Keeps an ended call for as long as something may still come of it: not at all if nothing went on.
    pub(super) fn linger(&mut self, env: &mut Environment) {
        if self.phase != Phase::Ended {
            return;
        }
        self.done |= self.is_unsent();
        let settled = self.acceptance.is_none()
            && self.orphans.is_empty()
            && self.forks.len() <= 1
            && self.attempts.iter().all(|attempt| attempt.finished);
        self.arm(env, CallTimer::Linger, if settled { T4_MS } else { LINGER_MS });
    }

    fn hang_up(&mut self, env: &mut Environment, reason: Option<&str>) {
        // Whoever has been accepted gets no BYE before it has sent its ACK (§15): a 2xx that was lost would
        // leave it without a final response. The other side of the exchange is settled now.
        let acceptance = self.acceptance.take().filter(|acceptance| !self.over[acceptance.from.index()]);
        if let Some(mut acceptance) = acceptance {
            let waits = acceptance.from;
            if !acceptance.settled && !self.over[waits.other().index()] {
                self.pass_ack(env, &acceptance, None);
            }
            acceptance.settled = true;
            self.acceptance = Some(acceptance);
            self.bye_after_ack = Some((waits, reason.map(str::to_owned)));
            self.over[waits.index()] = true;
        }
        for leg in Leg::BOTH {
            if !self.over[leg.index()] {
                self.send_bye(env, leg, reason);
            }
        }
    }

    pub(super) fn send_bye(&mut self, env: &mut Environment, leg: Leg, reason: Option<&str>) {
        self.over[leg.index()] = true;
        let Some(fork) = self.answered else { return };
        let Some(dialog) = self.dialog(fork, leg) else { return };
        let (mut bye, path) = (dialog.request(Method::BYE), dialog.path);
        bye.headers.push(name::MAX_FORWARDS, "70");
        if let Some(reason) = reason {
            bye.headers.push(name::REASON, reason);
        }
        env.request(path, bye, Owner::Nobody);
    }
}
