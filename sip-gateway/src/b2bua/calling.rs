//! Our INVITE and what comes back (RFC 3261 §13.2.2, §16.7, §16.8; RFC 6026 §7.2).

use std::sync::Arc;

use consent::Leg;

use super::offering::own_ip;
use super::redirect::{self, policy};
use super::reliable::{Heard, Held};
use super::session::{self, Described};
use super::{
    Acceptance, Acked, Answer, Call, CallTimer, Event, MAX_ACKED, MAX_FORKS, Owner, Phase, TIMER_C_MS,
    forward,
};
use crate::core::{DialogPlace, Environment, Origin, Way, sign_of};
use crate::dialog::{sequence_of, tag_of};
use crate::digest::credentials_of;
use crate::standing::Sign;
use crate::transaction::{Report, T1_64_MS, T1_MS, T2_MS, TxId};
use crate::wire::{Headers, Method, NameAddr, Request, Response, name};
use crate::{Change, EndedBy, Redirects};

/// What became of a body on its way to the other leg.
pub(super) enum Passed {
    /// It goes on like this, and this description was in it, of which nothing is kept yet.
    On(bytes::Bytes, Option<Described>),
    /// It holds a description that cannot be read.
    Unreadable,
}

impl Call {
    pub(super) fn on_attempt_response(
        &mut self,
        env: &mut Environment,
        index: usize,
        origin: Origin,
        response: Response,
    ) {
        let Some(attempt) = self.attempts.get_mut(index) else { return };
        let first = !std::mem::replace(&mut attempt.heard, true);
        attempt.path.follow(origin);
        env.judge(Way::of(&attempt.path), sign_of(&response));
        if self.invites_for_longer(env, index, &response) {
            return;
        }
        if response.status < 200 && self.hunts(index) {
            self.on_sign(env, index, response.status, first);
        }
        if self.is_target(index) {
            return self.on_target_response(env, index, response);
        }
        match response.status {
            100..=199 => self.on_provisional(env, index, response),
            200..=299 => self.on_answer(env, index, response),
            _ => self.on_failure(env, index, &response),
        }
    }

    fn on_provisional(&mut self, env: &mut Environment, index: usize, mut response: Response) {
        if self.attempts.get(index).is_some_and(|attempt| attempt.unwanted) {
            return self.cancel_attempt(env, index);
        }
        if self.phase != Phase::Calling {
            return;
        }
        self.arm(env, CallTimer::Ringing, TIMER_C_MS);
        if response.status == 100 {
            return;
        }
        // Whoever has been answered hears nothing more of the others.
        if self.held_answer.is_some() {
            return;
        }
        let Some(fork) = self.fork_of(env, index, &response) else { return };
        let heard = self.hear(index, fork, &response.headers);
        if heard == Heard::OutOfOrder {
            return;
        }
        self.meet(env, &response.headers, fork);
        let final_early = self.settles_early(heard, &response.headers);
        self.pass_early_body(env, fork, &mut response, final_early);
        env.emit(Event::Progress { call: self.id, status: response.status });
        self.pass_provisional(env, fork, &response, heard);
    }

    /// Puts our description into a provisional response, whose own is final if it is reliable on both legs.
    fn pass_early_body(
        &mut self,
        env: &mut Environment,
        fork: usize,
        response: &mut Response,
        is_final: bool,
    ) {
        let again = self.session_of(fork).is_established();
        match self.pass_body(env, fork, Leg::B, &response.headers, &response.body) {
            Passed::On(body, Some(_)) if again => {
                response.body = body;
                self.leave_out_description(response);
            }
            Passed::On(body, Some(found)) => {
                self.describe_in(env, fork, Leg::B, found, !is_final);
                response.body = body;
                if !is_final {
                    self.keep_early_answer(fork, response);
                }
            }
            Passed::On(body, None) => response.body = body,
            Passed::Unreadable => leave_out_body(&mut response.headers, &mut response.body),
        }
    }

    /// A description that comes when all is said is no answer to anything (RFC 6337 §2.2).
    fn leave_out_description(&self, response: &mut Response) {
        if !self.is_emergency() && session::is_description(&response.headers, &response.body) {
            leave_out_body(&mut response.headers, &mut response.body);
        }
    }

    fn keep_early_answer(&mut self, fork: usize, response: &Response) {
        let Some(fork) = self.forks.get_mut(fork) else { return };
        let mut headers = Headers::new();
        for field in name::OF_A_BODY {
            headers.copy(&response.headers, field);
        }
        fork.early_answer = Some(Answer { headers, body: response.body.clone() });
    }

    /// The first 2xx wins; any other is acknowledged and hung up (§13.2.2.4).
    fn on_answer(&mut self, env: &mut Environment, index: usize, response: Response) {
        if let Some(attempt) = self.attempts.get_mut(index) {
            attempt.finished = true;
        }
        self.linger(env);
        let tag = tag_of(&response.headers, name::TO).unwrap_or_default();
        let known = self.find_fork(index, &tag);
        if known.is_some() && known == self.answered {
            self.repeat_ack(env, index, known);
            return;
        }
        if let Some(held) = &self.held_answer {
            if known != Some(held.fork) {
                self.decline_answer(env, index, known, &response);
            }
            return;
        }
        let unwanted = self.attempts.get(index).is_none_or(|attempt| attempt.unwanted);
        if self.phase != Phase::Calling || unwanted {
            return self.decline_answer(env, index, known, &response);
        }
        let Some(fork) = known.or_else(|| self.add_fork(env, index, &response)) else { return };
        self.confirm(env, fork, &response.headers);
        self.meet(env, &response.headers, fork);
        self.disarm(env, CallTimer::Ringing);
        self.disarm(env, CallTimer::Silence);
        let waits = self.forks.get(fork).is_some_and(|fork| fork.reliability.holds_back());
        if waits {
            self.held_answer = Some(Held { attempt: index, fork, response });
            return self.cancel_attempts(env, Some(index), None);
        }
        self.win(env, index, fork, response);
    }

    pub(super) fn win(&mut self, env: &mut Environment, index: usize, fork: usize, mut response: Response) {
        let established = self.session_of(fork).is_established();
        let Passed::On(body, found) = self.pass_body(env, fork, Leg::B, &response.headers, &response.body)
        else {
            self.decline_answer(env, index, Some(fork), &response);
            return self.fail(env, EndedBy::Callee, &Response::new(502));
        };
        response.body = body;
        match found {
            Some(_) if established => self.leave_out_description(&mut response),
            Some(found) => {
                self.describe_in(env, fork, Leg::B, found, false);
                if self.was_answered_reliably(fork, &response.body) {
                    self.leave_out_description(&mut response);
                }
            }
            None => {
                self.session_in(fork).settle(Leg::A);
                self.answer_as_early(fork, &mut response);
            }
        }
        self.stop_repeating(env);
        self.phase = Phase::Answered;
        env.admission.answered(&mut self.admitted);
        self.answered = Some(fork);
        self.settle_forks(env, fork);
        env.counters().calls_answered += 1;
        tracing::debug!(call = %self.id, "answered");
        self.heed_callee(env, &response.headers);
        env.emit(Event::Answered { call: self.id });
        let (Some(attempt), Some(passed)) = (self.attempts.get(index), self.forks.get(fork)) else { return };
        let tag = passed.id(Leg::A).local_tag.clone();
        let by = self.end_in(fork, Leg::B);
        let reply = self.reply(env, &self.invite, &self.back, &tag, &response, by);
        let mut acceptance = Acceptance {
            from: Leg::A,
            sequence: sequence_of(&self.invite.headers).unwrap_or_default(),
            other_sequence: sequence_of(&attempt.invite.headers).unwrap_or_default(),
            server: self.server,
            client: attempt.client,
            response: reply,
            interval_ms: T1_MS,
            credentials: credentials_of(&attempt.invite.headers),
            settled: false,
        };
        let asked = Request { headers: self.invite.headers.clone(), ..Request::new(Method::INVITE, "") };
        self.answer_timer(env, Leg::A, &asked, &mut acceptance.response);
        self.take_timer(env, Leg::B, &response.headers);
        self.accept(env, acceptance);
        self.cancel_attempts(env, Some(index), None);
    }

    /// Sends a 2xx and repeats it until its ACK (§13.3.1.4), on every transport.
    pub(super) fn accept(&mut self, env: &mut Environment, acceptance: Acceptance) {
        env.respond(acceptance.server, &acceptance.response);
        self.arm(env, CallTimer::RepeatAnswer, acceptance.interval_ms);
        self.arm(env, CallTimer::GiveUpAnswer, T1_64_MS);
        self.acceptance = Some(acceptance);
    }

    pub(super) fn repeat_answer(&mut self, env: &mut Environment) {
        let Some(acceptance) = &mut self.acceptance else { return };
        env.respond(acceptance.server, &acceptance.response);
        acceptance.interval_ms = (acceptance.interval_ms * 2).min(T2_MS);
        let interval_ms = acceptance.interval_ms;
        self.arm(env, CallTimer::RepeatAnswer, interval_ms);
    }

    /// An ACK that belongs to no failure: that of a 2xx of ours (§13.3.1.4).
    pub(crate) fn on_ack(
        &mut self,
        env: &mut Environment,
        place: DialogPlace,
        origin: Origin,
        ack: &Request,
    ) {
        if self.answered != Some(place.fork) {
            return;
        }
        self.heard_from[place.leg.index()] = origin.source.ip();
        self.learn(env, place.leg, &ack.headers, origin.source.ip());
        let sequence = sequence_of(&ack.headers);
        let expected = self
            .acceptance
            .take_if(|acceptance| acceptance.from == place.leg && Some(acceptance.sequence) == sequence);
        let Some(acceptance) = expected else { return };
        self.disarm(env, CallTimer::RepeatAnswer);
        self.disarm(env, CallTimer::GiveUpAnswer);
        if !acceptance.settled {
            self.arrive(env, place.leg);
            self.heed(env, place.leg, &ack.headers, &ack.body);
            self.pass_ack(env, &acceptance, Some(ack));
        }
        if let Some((leg, reason)) = self.bye_after_ack.take() {
            self.send_bye(env, leg, reason.as_deref());
        }
        Leg::BOTH.into_iter().for_each(|leg| self.inform(env, leg));
    }

    /// Acknowledges the other leg's 2xx, with what the ACK that came carries.
    pub(super) fn pass_ack(&mut self, env: &mut Environment, acceptance: &Acceptance, ack: Option<&Request>) {
        let to = acceptance.from.other();
        let Some(fork) = self.answered else { return };
        let Some(dialog) = self.dialog(fork, to) else { return };
        let (mut sent, path) = (dialog.ack(acceptance.other_sequence), dialog.path);
        sent.headers.push(name::MAX_FORWARDS, ack.map_or(70, super::offering::hops_left).to_string());
        if let Some(ack) = ack {
            if let Some(from) = self.end_in(fork, acceptance.from) {
                let border = self.border(env, from, &ack.headers, &path);
                forward::copy_end_to_end(&ack.headers, &mut sent.headers, &border);
            }
            match self.pass_body(env, fork, acceptance.from, &ack.headers, &ack.body) {
                Passed::On(body, found) => {
                    if let Some(found) = found.filter(|_| self.session.offerer() == Some(to)) {
                        let told = self.session.pass(acceptance.from, found, false);
                        self.tell(env, told);
                    }
                    sent.body = body;
                }
                Passed::Unreadable => leave_out_body(&mut sent.headers, &mut sent.body),
            }
        }
        sent.headers.append(&acceptance.credentials);
        if self.session.offerer() == Some(to) {
            let told = self.session.refuse();
            self.tell(env, told);
        }
        self.acknowledge(env, acceptance.client, fork, path, sent);
    }

    /// Sends an ACK and keeps it for repeated 2xx.
    pub(super) fn acknowledge(
        &mut self,
        env: &mut Environment,
        client: TxId,
        fork: usize,
        mut path: crate::core::Path,
        ack: Request,
    ) {
        let bytes = env.acknowledge(&mut path, ack);
        if self.acked.len() >= MAX_ACKED {
            self.acked.pop_front();
        }
        self.acked.push_back(Acked { client, fork, path, bytes });
    }

    /// Repeats the ACK of one fork of an INVITE; `false` if there is none.
    fn repeat_ack(&mut self, env: &mut Environment, index: usize, fork: Option<usize>) -> bool {
        let client = self.attempts.get(index).map(|attempt| attempt.client);
        self.send_ack(env, |acked| Some(acked.client) == client && Some(acked.fork) == fork)
    }

    /// Repeats the ACK of a re-INVITE, in whichever dialog its leg's far end is now; `false` if there is none.
    pub(super) fn acknowledge_again(&mut self, env: &mut Environment, client: TxId) -> bool {
        self.send_ack(env, |acked| acked.client == client)
    }

    fn send_ack(&mut self, env: &mut Environment, wanted: impl Fn(&Acked) -> bool) -> bool {
        let Some(acked) = self.acked.iter_mut().find(|acked| wanted(acked)) else { return false };
        env.transport.send(&mut acked.path, acked.bytes.clone());
        true
    }

    /// ACK and BYE to a 2xx that comes too late, or from another fork.
    pub(super) fn decline_answer(
        &mut self,
        env: &mut Environment,
        index: usize,
        known: Option<usize>,
        response: &Response,
    ) {
        let Some(attempt) = self.attempts.get(index) else { return };
        let (leg, client) = (attempt.leg, attempt.client);
        let invite_sequence = sequence_of(&attempt.invite.headers).unwrap_or_default();
        let credentials = credentials_of(&attempt.invite.headers);
        if self.repeat_ack(env, index, known) {
            return;
        }
        let Some(fork) = known.or_else(|| self.add_fork(env, index, response)) else { return };
        if let Some(dialog) = self.dialog(fork, leg) {
            dialog.confirm(env, &response.headers);
        }
        let Some(dialog) = self.dialog(fork, leg) else { return };
        let (mut ack, mut bye, path) =
            (dialog.ack(invite_sequence), dialog.request(Method::BYE), dialog.path);
        ack.headers.push(name::MAX_FORWARDS, "70");
        ack.headers.append(&credentials);
        bye.headers.push(name::MAX_FORWARDS, "70");
        self.acknowledge(env, client, fork, path, ack);
        env.request(path, bye, Owner::Nobody);
    }

    pub(super) fn on_failure(&mut self, env: &mut Environment, index: usize, response: &Response) {
        let Some(attempt) = self.attempts.get_mut(index) else { return };
        attempt.finished = true;
        let (ringing, from) = (attempt.ringing, attempt.path.peer);
        self.linger(env);
        if !self.hunts(index)
            || self.redirects(env, from, response)
            || self.offer_instead(env, index, response.status)
        {
            return;
        }
        if (300..400).contains(&response.status)
            && self.phase == Phase::Calling
            && !self.is_emergency()
            && policy(env, from) == Redirects::Pass
        {
            let passed = redirect::passed(response, &env.host(self.back.listener));
            return self.fail_with(env, EndedBy::Callee, &passed);
        }
        self.lose_attempt(env, response, matches!(response.status, 408 | 503) && !ringing);
    }

    /// Timer B, or the transport failed.
    pub(super) fn on_attempt_failed(&mut self, env: &mut Environment, index: usize, report: Report) {
        let Some(attempt) = self.attempts.get_mut(index) else { return };
        attempt.finished = true;
        let (unwanted, ringing) = (attempt.unwanted, attempt.ringing);
        match report {
            // Of one that was given up this was judged long ago.
            Report::TimedOut if unwanted => {}
            Report::TimedOut => env.judge(Way::of(&attempt.path), Sign::Silent),
            Report::Unreachable => env.judge(Way::of(&attempt.path), Sign::Unreachable),
        }
        self.linger(env);
        if self.hunts(index) {
            self.lose_attempt(env, &Response::new(report.status()), !ringing);
        }
    }

    /// Timer C: the callee rings, but has not been heard for long (§16.8).
    pub(super) fn on_ringing_too_long(&mut self, env: &mut Environment) {
        if self.is_hunting() {
            self.give_up_hunt(env, None);
            self.lose_attempt(env, &Response::new(408), false);
        }
    }

    /// Gives up every INVITE but one.
    pub(super) fn cancel_attempts(
        &mut self,
        env: &mut Environment,
        except: Option<usize>,
        reason: Option<&str>,
    ) {
        for index in 0..self.attempts.len() {
            if Some(index) == except {
                continue;
            }
            if let Some(attempt) = self.attempts.get_mut(index) {
                attempt.unwanted = true;
                attempt.reason = reason.map(str::to_owned);
            }
            self.cancel_attempt(env, index);
        }
    }

    /// Gives one INVITE up.
    pub(super) fn give_up_attempt(&mut self, env: &mut Environment, index: usize) {
        if let Some(attempt) = self.attempts.get_mut(index) {
            attempt.unwanted = true;
        }
        self.cancel_attempt(env, index);
    }

    /// CANCEL goes out once, and not before anything was heard (§9.1).
    fn cancel_attempt(&mut self, env: &mut Environment, index: usize) {
        let Some(attempt) = self.attempts.get_mut(index) else { return };
        if !attempt.heard || attempt.finished || attempt.cancelled {
            return;
        }
        attempt.cancelled = true;
        let mut cancel = cancel_of(&attempt.invite);
        if let Some(reason) = &attempt.reason {
            cancel.headers.push(name::REASON, reason.clone());
        }
        env.cancel(attempt.client, attempt.path, cancel, attempt.branch.clone());
        self.linger(env);
    }

    fn fork_of(&mut self, env: &mut Environment, index: usize, response: &Response) -> Option<usize> {
        let tag = tag_of(&response.headers, name::TO).unwrap_or_default();
        if let Some(fork) = self.find_fork(index, &tag) {
            return Some(fork);
        }
        if self.forks.len() >= MAX_FORKS {
            return None;
        }
        self.add_fork(env, index, response)
    }

    fn confirm(&mut self, env: &Environment, fork: usize, response: &Headers) {
        if let Some(dialog) = self.dialog(fork, Leg::B) {
            dialog.confirm(env, response);
        }
    }

    /// Takes in who the callee says it is, until it has answered.
    fn meet(&mut self, env: &Environment, response: &Headers, fork: usize) {
        let address = self.forks.get(fork).map_or("", |fork| &fork.dialogs[Leg::B.index()].remote);
        let called = self.subscriber_called(env, &self.dialled_now());
        self.far_ends[Leg::B.index()] = super::FarEnd::called(response, address, called);
    }

    /// Puts our own description into a body that goes from one leg to the other.
    pub(super) fn pass_body(
        &mut self,
        env: &Environment,
        fork: usize,
        from: Leg,
        headers: &Headers,
        body: &bytes::Bytes,
    ) -> Passed {
        let path = self.way_to(from.other()).unwrap_or(self.back);
        match session::find(headers, body) {
            Ok(Some(found)) => {
                let source = self.heard_from[from.index()];
                self.learn_media(env, from, &found.media(source));
                let hidden = Arc::clone(&self.hosts[from.index()]);
                let sent = self.session_in(fork).rewrite(from, &found, body, (own_ip(env, &path), &*hidden));
                let on = found.replaced(body, &sent);
                Passed::On(on, Some(found.passed_as(body, sent, source)))
            }
            Ok(None) => Passed::On(body.clone(), None),
            Err(_) if self.crosses_whole(env) => Passed::On(body.clone(), None),
            Err(_) => Passed::Unreadable,
        }
    }

    /// What A got in a provisional response belongs into the 2xx, unless it got it for certain: a callee
    /// that was answered by a PRACK of ours need not say it again (RFC 3262 §5).
    fn answer_as_early(&self, fork: usize, response: &mut Response) {
        let early = self.forks.get(fork).and_then(|fork| fork.early_answer.as_ref());
        let missing = response.body.is_empty() && !self.is_emergency();
        let early = early.filter(|early| missing && !self.was_answered_reliably(fork, &early.body));
        let Some(early) = early else { return };
        leave_out_body(&mut response.headers, &mut response.body);
        for field in early.headers.iter() {
            response.headers.push_field(field);
        }
        response.body = early.body.clone();
    }

    /// One early dialog has become the call's; nothing more comes of the others.
    fn settle_forks(&mut self, env: &mut Environment, winner: usize) {
        if let Some(session) = self.forks.get_mut(winner).and_then(|fork| fork.session.take()) {
            self.session = *session;
        }
        for fork in &mut self.forks {
            fork.session = None;
            fork.early_answer = None;
        }
        self.end_relays(env, &Response::new(487), |relay| relay.fork != winner);
        let told = self.session.retold();
        self.tell(env, told);
    }

    /// A new party at a leg, as its message shows.
    pub(super) fn observe(&mut self, env: &mut Environment, leg: Leg, headers: &Headers, from: Option<&str>) {
        if !self.far_ends[leg.index()].observe(headers, from) {
            return;
        }
        let trusted = self.far_peer(leg).is_some_and(|peer| env.trusts_identity(peer));
        let far_end = &self.far_ends[leg.index()];
        let identity = far_end.identity(headers, trusted);
        let change = Change::NewParty { identity, called: far_end.dialled().map(str::to_owned) };
        env.emit(Event::Changed { call: self.id, leg, change });
    }
}

/// A message is to have no body, and nothing that describes one.
pub(super) fn leave_out_body(headers: &mut Headers, body: &mut bytes::Bytes) {
    *body = bytes::Bytes::new();
    for field in name::OF_A_BODY {
        headers.remove(field);
    }
}

/// The CANCEL of a request of ours (§9.1), without its Via.
pub(super) fn cancel_of(sent: &Request) -> Request {
    let mut cancel = Request::new(Method::CANCEL, sent.uri.clone());
    cancel.headers.push(name::MAX_FORWARDS, "70");
    for field in [name::ROUTE, name::FROM, name::TO, name::CALL_ID] {
        cancel.headers.copy(&sent.headers, field);
    }
    let sequence = sequence_of(&sent.headers).unwrap_or_default();
    cancel.headers.push(name::CSEQ, format!("{sequence} CANCEL"));
    cancel
}

/// An address for comparison and display: never logged.
pub(super) fn from_of(headers: &Headers) -> Option<&str> {
    headers.first(name::FROM).filter(|from| NameAddr::parse(from).is_ok())
}
