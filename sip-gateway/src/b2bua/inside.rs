//! Requests inside the dialogs, from one leg to the other (RFC 3261 §12.2, §14; RFC 3311; RFC 6086).
//!
//! | request | answer |
//! |---|---|
//! | CSeq below the last | 500 |
//! | BYE | 200, and the call ends |
//! | anything else of somebody whom a transfer has not joined yet | as [`transfer`](super::transfer) says |
//! | OPTIONS | 200 |
//! | REFER | as [`transfer`](super::transfer) says |
//! | anything but BYE, ACK and a refresh while the other far end has gone, or is another call's, in a transfer | 491 |
//! | SUBSCRIBE, PUBLISH, REGISTER | 405 |
//! | PRACK | as [`reliable`] says |
//! | Max-Forwards 0 | 483 |
//! | requiring an extension that does not pass | 420 |
//! | asking for too short a session; saying nothing new | as [`session_timer`] says |
//! | INVITE or UPDATE that crosses another | as [`glare`](super::glare) says |
//! | INFO with a digit | Digit is told; 200 and no further while digits are swallowed |
//! | INVITE, UPDATE | on, with our own session description |
//! | anything else | on, body and all, byte for byte |
//!
//! The other leg's answer comes back with its status, reason phrase and fields. A request other than
//! INVITE that nobody answers is not answered either: a 408 would come too late (RFC 4320 §4.2).

use bytes::Bytes;
use consent::Leg;

use super::calling::{Passed, from_of, leave_out_body};
use super::digits::digit_of;
use super::forward::{self, ALLOW, map_failure, passes_option};
use super::glare::retry_later;
use super::offering::hops_left;
use super::session::has_description;
use super::transfer::is_answered_option;
use super::{
    Acceptance, Call, Event, MAX_RELAYS, Owner, Phase, Relay, Role, awareness, reliable, session_timer, sips,
};
use crate::core::{DialogPlace, Environment, Origin};
use crate::dialog::sequence_of;
use crate::digest::credentials_of;
use crate::transaction::{Report, T1_MS, TxId};
use crate::wire::{Headers, Method, Request, Response, max_forwards, name};

impl Call {
    /// A request within one of our dialogs, in its new transaction.
    pub(crate) fn on_request(
        &mut self,
        env: &mut Environment,
        place: DialogPlace,
        server: TxId,
        origin: Origin,
        request: Request,
    ) {
        let Some(dialog) = self.dialog(place.fork, place.leg) else { return };
        dialog.path.follow(origin);
        if !dialog.accepts_sequence(&request.headers) {
            return self.answer(env, server, &request, Response::new(500));
        }
        if request.method == Method::BYE && self.takes_leave(env, place.fork, place.leg) {
            return self.answer(env, server, &request, Response::new(200));
        }
        if let Some(refusal) = self.judge_newcomer(env, place, &request) {
            return self.answer(env, server, &request, refusal);
        }
        let present = self.is_present(place.fork);
        if present {
            self.heard_from[place.leg.index()] = origin.source.ip();
            self.learn(env, place.leg, &request.headers, origin.source.ip());
        }
        if (present && self.over[place.leg.index()]) || self.phase == Phase::Ended {
            let bye = request.method == Method::BYE;
            if bye && present {
                self.on_bye_after_end(env, place.leg);
            }
            let status = if bye || self.takes_late_prack(place, &request) { 200 } else { 481 };
            return self.answer(env, server, &request, Response::new(status));
        }
        if present {
            self.heed(env, place.leg, &request.headers, &request.body);
        }
        if request.method == Method::BYE {
            return self.on_bye(env, place.leg, place.fork, server, &request);
        }
        if request.method == Method::REFER {
            return self.on_refer(env, place, server, &request);
        }
        if let Some(refusal) = self.judge(env, place, &request) {
            self.hear_refresh(env, place, &request, &refusal);
            return self.answer(env, server, &request, refusal);
        }
        if request.method == Method::INFO && self.took_digit(env, place.leg, &request) {
            return self.answer(env, server, &request, Response::new(200));
        }
        if request.method == Method::PRACK && self.takes_pracks(place.fork) {
            return self.on_prack(env, place, server, request);
        }
        if !self.absorbs(env, place, server, &request) {
            self.relay(env, place, server, request, None);
        }
    }

    /// What a far end is answered that a transfer has not joined yet: nothing that would end its dialog.
    fn judge_newcomer(
        &self,
        env: &mut Environment,
        place: DialogPlace,
        request: &Request,
    ) -> Option<Response> {
        let arriving = self.is_arriving(place.leg) && self.is_present(place.fork);
        if request.method == Method::BYE || !(arriving || self.is_newcomers(place.fork, place.leg)) {
            return None;
        }
        Some(match request.method {
            Method::OPTIONS => capabilities(),
            Method::INVITE | Method::UPDATE => Response::new(491),
            _ => retry_later(env),
        })
    }

    /// What we answer ourselves.
    fn judge(&self, env: &mut Environment, place: DialogPlace, request: &Request) -> Option<Response> {
        match request.method {
            Method::OPTIONS => Some(capabilities()),
            Method::SUBSCRIBE | Method::PUBLISH | Method::REGISTER => {
                let mut refusal = Response::new(405);
                refusal.headers.push(name::ALLOW, ALLOW);
                Some(refusal)
            }
            _ if self.lacks_far_end() && !self.only_refreshes(place, request) => Some(Response::new(491)),
            _ => self.judge_passing(env, place, request),
        }
    }

    fn judge_passing(
        &self,
        env: &mut Environment,
        place: DialogPlace,
        request: &Request,
    ) -> Option<Response> {
        if !self.is_present(place.fork) {
            return Some(Response::new(481));
        }
        if request.headers.first(name::MAX_FORWARDS).map(max_forwards) == Some(Ok(0)) {
            return Some(Response::new(483));
        }
        let unsupported: Vec<&str> = request
            .headers
            .list(name::REQUIRE)
            .filter(|option| {
                !self.serves_emergency() && !passes_option(option) && !is_answered_option(option)
            })
            .collect();
        if !unsupported.is_empty() {
            let mut refusal = Response::new(420);
            refusal.headers.push(name::UNSUPPORTED, unsupported.join(", "));
            return Some(refusal);
        }
        if self.relays.len() >= MAX_RELAYS {
            return Some(retry_later(env));
        }
        let too_short = || session_timer::refusal(env.config.session_timer, request);
        if let Some(refusal) = (!self.serves_emergency()).then(too_short).flatten() {
            return Some(refusal);
        }
        self.judge_glare(env, place, request)
    }

    /// On whose behalf a re-INVITE of ours is under way.
    pub(super) fn exchange_of_ours(&self) -> Option<Leg> {
        self.joining_leg().or(self.undoing.as_ref().map(|undoing| undoing.leg.other()))
    }

    /// Tells of a digit; `true` if the INFO is to go no further.
    fn took_digit(&self, env: &mut Environment, leg: Leg, request: &Request) -> bool {
        let Some(digit) = digit_of(request) else { return false };
        env.emit(Event::Digit { call: self.id, leg, digit });
        self.swallow[leg.index()]
    }

    /// Passes a request on to the other leg, a PRACK with this RAck.
    pub(super) fn relay(
        &mut self,
        env: &mut Environment,
        place: DialogPlace,
        server: TxId,
        request: Request,
        rack: Option<String>,
    ) {
        let to = place.leg.other();
        let Some(body) = self.relayed_body(env, place, &request) else {
            return self.answer(env, server, &request, Response::new(488));
        };
        self.observe(env, place.leg, &request.headers, from_of(&request.headers));
        if request.method == Method::INVITE {
            env.respond(server, &Response::to(&request.headers, 100));
        }
        let emergency = self.is_emergency();
        let invite_sequence = self.invite_sequence(place.fork, to);
        let Some(dialog) = self.dialog(place.fork, to) else { return };
        let (mut sent, path) = (dialog.request(request.method.clone()), dialog.path);
        sent.headers.push(name::MAX_FORWARDS, hops_left(&request).to_string());
        if matches!(request.method, Method::INVITE | Method::UPDATE)
            || request.headers.contains(name::CONTACT)
        {
            sent.headers.push(name::CONTACT, env.contact(&path, sips::is_sent_to(&sent)));
        }
        if let Some(from) = self.end_in(place.fork, place.leg) {
            let border = self.border(env, from, &request.headers, &path);
            forward::copy_end_to_end(&request.headers, &mut sent.headers, &border);
            sent.body = border.body(&request.headers, &body);
        }
        map_rack(&mut sent, invite_sequence);
        if let Some(rack) = rack {
            sent.headers.set(name::RACK, rack);
        }
        if !emergency {
            if matches!(sent.method, Method::INVITE | Method::UPDATE) {
                awareness::offer(&mut sent.headers);
            }
            self.keep_timer(env, to, &mut sent);
        }
        self.relays_begun = self.relays_begun.wrapping_add(1);
        let number = self.relays_begun;
        env.transactions.set_owner(server, Owner::Call(self.id, Role::Relay(number)));
        let asked = self.ask(env, path, sent, Role::Relay(number));
        let (from, fork) = (place.leg, place.fork);
        self.relays.push(Relay { number, from, fork, server, request, asked, unwanted: false });
    }

    /// The body to send on; `None` if it holds a description that cannot be read.
    fn relayed_body(
        &mut self,
        env: &mut Environment,
        place: DialogPlace,
        request: &Request,
    ) -> Option<Bytes> {
        if !carries_description(&request.method) {
            return Some(request.body.clone());
        }
        match self.pass_body(env, place.fork, place.leg, &request.headers, &request.body) {
            Passed::On(body, Some(found)) => {
                self.describe_in(env, place.fork, place.leg, found, false);
                Some(body)
            }
            Passed::On(body, None) => Some(body),
            Passed::Unreadable => None,
        }
    }

    pub(super) fn on_relay_response(
        &mut self,
        env: &mut Environment,
        number: u32,
        client: TxId,
        response: Response,
    ) {
        let Some(index) = self.relays.iter().position(|relay| relay.number == number) else {
            // A 2xx again: our ACK was lost.
            if (200..300).contains(&response.status) {
                self.acknowledge_again(env, client);
            }
            return;
        };
        if response.status < 200 {
            return self.on_relay_provisional(env, index, &response);
        }
        let relay = self.relays.remove(index);
        if !self.is_present(relay.fork) {
            let reply = self.reply_inside(env, &relay, &Response::new(481));
            env.respond(relay.server, &reply);
        } else if response.status < 300 {
            self.on_relay_accepted(env, &relay, response);
        } else {
            self.refuse_relay(env, &relay, &map_failure(&response));
        }
    }

    fn on_relay_provisional(&mut self, env: &mut Environment, index: usize, response: &Response) {
        let Some(relay) = self.relays.get_mut(index) else { return };
        if relay.asked.hear() && relay.unwanted {
            relay.asked.cancel(env);
        }
        let Some(relay) = self.relays.get(index) else { return };
        let reliably =
            relay.request.headers.has_token(name::REQUIRE, reliable::OPTION) && !self.is_emergency();
        if response.status > 100 && relay.request.method == Method::INVITE && !reliably {
            let mut bare = response.clone();
            if !self.crosses_whole(env) {
                leave_out_body(&mut bare.headers, &mut bare.body);
            }
            let reply = self.reply_inside(env, relay, &bare);
            env.respond(relay.server, &reply);
        }
    }

    fn on_relay_accepted(&mut self, env: &mut Environment, relay: &Relay, mut response: Response) {
        let answerer = relay.from.other();
        self.observe(env, answerer, &response.headers, None);
        if carries_description(&relay.request.method) {
            match self.pass_body(env, relay.fork, answerer, &response.headers, &response.body) {
                Passed::On(body, found) => {
                    // Only an INVITE is answered with an offer (RFC 6337 §2.2).
                    let says = relay.request.method == Method::INVITE
                        || self.session_of(relay.fork).offerer() == Some(relay.from);
                    if let Some(found) = found.filter(|_| says) {
                        self.describe_in(env, relay.fork, answerer, found, false);
                    }
                    response.body = body;
                }
                Passed::Unreadable => leave_out_body(&mut response.headers, &mut response.body),
            }
            self.drop_offer(env, relay);
        }
        if matches!(relay.request.method, Method::INVITE | Method::UPDATE) {
            let fork = relay.fork;
            if let Some(dialog) = self.dialog(fork, answerer) {
                dialog.refresh_target(env, &response.headers);
            }
            if let Some(dialog) = self.dialog(fork, relay.from) {
                dialog.refresh_target(env, &relay.request.headers);
            }
        }
        let mut reply = self.reply_inside(env, relay, &response);
        if self.answered.is_some() && matches!(relay.request.method, Method::INVITE | Method::UPDATE) {
            self.answer_timer(env, relay.from, &relay.request, &mut reply);
            self.take_timer(env, answerer, &response.headers);
        }
        if relay.request.method != Method::INVITE {
            return env.respond(relay.server, &reply);
        }
        let acceptance = Acceptance {
            from: relay.from,
            sequence: sequence_of(&relay.request.headers).unwrap_or_default(),
            other_sequence: sequence_of(&relay.asked.request().headers).unwrap_or_default(),
            server: relay.server,
            client: relay.asked.client(),
            response: reply,
            interval_ms: T1_MS,
            credentials: credentials_of(&relay.asked.request().headers),
            settled: false,
        };
        self.accept(env, acceptance);
    }

    fn refuse_relay(&mut self, env: &mut Environment, relay: &Relay, failure: &Response) {
        self.drop_offer(env, relay);
        let reply = self.reply_inside(env, relay, failure);
        env.respond(relay.server, &reply);
    }

    /// What a request offered was refused, or not answered.
    fn drop_offer(&mut self, env: &mut Environment, relay: &Relay) {
        let offered = carries_description(&relay.request.method)
            && has_description(&relay.request.headers, &relay.request.body);
        if offered && self.session_of(relay.fork).offerer() == Some(relay.from) {
            let told = self.session_in(relay.fork).refuse();
            self.tell(env, told);
        }
    }

    pub(super) fn on_relay_failed(&mut self, env: &mut Environment, number: u32, id: TxId, report: Report) {
        let failed = |relay: &Relay| relay.number == number && relay.asked.is(id);
        let Some(index) = self.relays.iter().position(failed) else { return };
        let relay = self.relays.remove(index);
        if relay.request.method == Method::INVITE || report == Report::Unreachable {
            return self.refuse_relay(env, &relay, &Response::new(report.status()));
        }
        self.drop_offer(env, &relay);
        let (transactions, mut ports) = env.split();
        transactions.abandon(&mut ports, relay.server);
    }

    /// A leg cancels its re-INVITE.
    pub(super) fn cancel_relay(
        &mut self,
        env: &mut Environment,
        number: u32,
        server: TxId,
        cancelled: &Headers,
    ) {
        let wanted = |relay: &&mut Relay| relay.number == number && relay.server == server;
        let Some(relay) = self.relays.iter_mut().find(wanted) else { return };
        relay.unwanted = true;
        let from = relay.from;
        let reason = self.reason_of(from, cancelled);
        if let Some(relay) = self.relays.iter_mut().find(|relay| relay.number == number) {
            relay.asked.cancel_for(env, reason);
        }
    }

    /// Every request that still waits gets its answer when the call ends (§15.1.2), or when the two do not talk
    /// to each other any more.
    pub(super) fn end_relays(
        &mut self,
        env: &mut Environment,
        failure: &Response,
        ends: impl Fn(&Relay) -> bool,
    ) {
        let (ended, others) = std::mem::take(&mut self.relays).into_iter().partition(ends);
        self.relays = others;
        for mut relay in <Vec<Relay>>::into_iter(ended) {
            let reply = self.reply_inside(env, &relay, failure);
            env.respond(relay.server, &reply);
            if relay.asked.invites() {
                // It was not outlived: its transaction waits for no failure any more.
                relay.asked.cancel(env);
                self.orphans.extend(relay.asked.orphan());
            }
        }
    }

    fn on_bye_after_end(&mut self, env: &mut Environment, leg: Leg) {
        if self.bye_after_ack.take_if(|(waits, _)| *waits == leg).is_some() {
            self.acceptance = None;
            self.disarm(env, super::CallTimer::RepeatAnswer);
            self.disarm(env, super::CallTimer::GiveUpAnswer);
        }
    }

    pub(super) fn answer(&self, env: &mut Environment, server: TxId, request: &Request, response: Response) {
        let mut reply = self.reply(env, request, &self.back, &self.tag, &response, None);
        if response.status == 422 {
            reply.headers.copy(&response.headers, name::MIN_SE);
        }
        env.respond(server, &reply);
    }

    fn reply_inside(&self, env: &Environment, relay: &Relay, response: &Response) -> Response {
        let path = self.forks.get(relay.fork).map(|fork| fork.dialogs[relay.from.index()].path);
        let by = self.end_in(relay.fork, relay.from.other());
        self.reply(env, &relay.request, &path.unwrap_or(self.back), &self.tag, response, by)
    }

    /// CSeq number of the INVITE that made a dialog, on this leg.
    pub(super) fn invite_sequence(&self, fork: usize, leg: Leg) -> Option<u32> {
        match leg {
            Leg::A => sequence_of(&self.invite.headers),
            Leg::B => {
                let attempt = self.forks.get(fork).and_then(|fork| self.attempts.get(fork.attempt?))?;
                sequence_of(&attempt.invite.headers)
            }
        }
    }
}

fn capabilities() -> Response {
    let mut response = Response::new(200);
    response.headers.push(name::ALLOW, ALLOW);
    response.headers.push(name::ACCEPT, "application/sdp");
    response.headers.push(name::SUPPORTED, forward::supported());
    response
}

fn carries_description(method: &Method) -> bool {
    matches!(*method, Method::INVITE | Method::UPDATE | Method::PRACK)
}

/// RAck names the INVITE's CSeq (RFC 3262 §7.2), which is another one on the other leg.
fn map_rack(sent: &mut Request, invite_sequence: Option<u32>) {
    let Some(rack) = sent.headers.first(name::RACK) else { return };
    let mut words = rack.split_ascii_whitespace();
    let mapped = match (words.next(), words.next(), words.next(), invite_sequence) {
        (Some(rseq), Some(_), Some(method), Some(sequence)) => format!("{rseq} {sequence} {method}"),
        _ => return,
    };
    sent.headers.set(name::RACK, mapped);
}
