//! What becomes of a request (RFC 3261 §8.2, §9.2, §12.2.2, §17.2.3).
//!
//! | request | answer |
//! |---|---|
//! | repeated | absorbed by its transaction, or, answered without one, answered the same again |
//! | ACK of a failure | absorbed; of a 2xx: to its call; else dropped and counted |
//! | CANCEL | 200 and on to the INVITE's call, or 481 |
//! | outside dialogs, beyond its source's rate | 503 with Retry-After, calls of emergency and dispatch excepted |
//! | from a peer that has to prove itself, and has not | 401 with a challenge (`challenge`) |
//! | with a To tag | to its call, or 481; beyond its leg's room 500 with Retry-After |
//! | BYE, INFO, UPDATE, PRACK, NOTIFY without one | 481 |
//! | REFER without one | 403 |
//! | INVITE, merged, or come back on the way it went | 482 |
//! | INVITE of an emergency form, or an answering point's call-back without Replaces | offered, whatever the checks below would say |
//! | INVITE or OPTIONS for a scheme but `sip:`, `tel:` and, by TLS, `sips:` | 416 |
//! | INVITE with Max-Forwards 0 | 483 |
//! | INVITE or OPTIONS requiring an extension that cannot pass through us | 420 with Unsupported |
//! | INVITE that asks for too short a session | 422 with Min-SE |
//! | INVITE of an ordinary call that is sure to be refused, or beyond the hard cap | 503 with Retry-After |
//! | INVITE whose description cannot be read, also a call-back's of a peer that is not trusted with identities | 488 with Warning |
//! | INVITE with Replaces | to the call whose far end it replaces, or refused as `b2bua::transfer` says |
//! | INVITE | offered |
//! | OPTIONS | 200 with Allow, Accept, Supported |
//! | anything else | 405 with Allow |
//!
//! What is answered here takes no transaction (§8.2.7): neither a request outside calls nor a flood of them
//! can take a call's place. One exception: the refusal of an INVITE is repeated until its ACK, as long as
//! the room kept for refusals lasts.

mod challenge;

use consent::CallId;

use super::{Core, Origin, Path, Refusal};
use crate::b2bua::{
    ALLOW, Call, Incoming, Loan, NotLent, NotReplaced, Owner, Role, called_subscriber, is_answered_option,
    judge_replaces, passes_option, refuse_privacy, refuse_session, supported,
};
use crate::dialog::{DialogId, add_tag, tag_of};
use crate::emergency::Urgency;
use crate::transaction::{Class, Full, MergeKey, Report, Room, ServerKey, TxId, Within};
use crate::wire::{Method, Request, Response, Uri, Via, max_forwards, name, stamp_source};
use crate::{Excess, Offer, Transport};

/// Retry-After of our own 500 and 503 (RFC 3261 §20.33).
const RETRY_AFTER_S: u32 = 5;

/// Calls beyond twice the limit, so that a small limit leaves the hub time to refuse.
const CALLS_BESIDE: usize = 64;

/// A well-formed request on its way in.
pub(super) struct Arrival {
    origin: Origin,
    request: Request,
    /// Where its responses go.
    path: Path,
    key: ServerKey,
}

impl Arrival {
    pub(super) fn new(origin: Origin, mut request: Request) -> Option<Self> {
        let top = request.headers.first(name::VIA)?.to_owned();
        let via = Via::first(&top).ok()?;
        let path = origin.reply_path(&via);
        let key = ServerKey::new(origin.peer, &request.headers, &via, &request.method);
        request.headers.remove_first(name::VIA);
        request.headers.prepend(name::VIA, stamp_source(&top, origin.source));
        Some(Self { origin, request, path, key })
    }

    fn key_of_invite(&self) -> Option<ServerKey> {
        let via = Via::first(self.request.headers.first(name::VIA)?).ok()?;
        Some(ServerKey::new(self.origin.peer, &self.request.headers, &via, &Method::INVITE))
    }

    fn has_to_tag(&self) -> bool {
        tag_of(&self.request.headers, name::TO).is_some()
    }

    /// `sips:` asks for TLS on every hop, so it is not known where it came without (RFC 5630 §3.1).
    fn has_known_scheme(&self) -> bool {
        match Uri::parse(&self.request.uri) {
            Ok(Uri::Sip(uri)) => !uri.secure || self.origin.transport == Transport::Tls,
            Ok(Uri::Tel(_)) => true,
            Ok(Uri::Other { .. }) | Err(_) => false,
        }
    }
}

impl Core {
    pub(super) fn on_arrival(&mut self, arrival: Arrival) {
        let is_ack = arrival.request.method == Method::ACK;
        if let Some(id) = self.env.transactions.find_server(&arrival.key) {
            self.env.counters().absorbed_requests += 1;
            let (transactions, mut ports) = self.env.split();
            if transactions.on_request(&mut ports, id, is_ack) {
                self.on_ack(&arrival);
            }
            return;
        }
        if self.floods(&arrival) || self.challenged(&arrival) {
            return;
        }
        match &arrival.request.method {
            &Method::ACK => self.on_ack(&arrival),
            &Method::CANCEL => self.on_cancel(&arrival),
            _ if arrival.has_to_tag() => self.on_dialog_request(arrival),
            &Method::INVITE => self.on_invite(arrival),
            &Method::OPTIONS => self.on_options(&arrival),
            &Method::BYE | &Method::INFO | &Method::UPDATE | &Method::PRACK | &Method::NOTIFY => {
                self.answer(&arrival, 481);
            }
            &Method::REFER => self.answer(&arrival, 403),
            _ => self.answer(&arrival, 405),
        }
    }

    /// Runs `act` on a call, if it lives, and forgets it when it is done.
    pub(super) fn with_call(&mut self, id: CallId, act: impl FnOnce(&mut Call, &mut super::Environment)) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        act(call, &mut self.env);
        if call.is_done() {
            call.release(&mut self.env);
            self.calls.remove(&id);
        }
        while let Some(loan) = self.env.loans.pop_front() {
            self.carry(loan);
        }
    }

    /// Carries what one call wants of another there, and the answer back.
    fn carry(&mut self, loan: Loan) {
        match loan {
            Loan::Asked { by, place } => {
                let mut lent = Err(NotLent::Gone);
                self.with_call(place.call, |call, env| lent = call.lend(env, place));
                self.with_call(by, |call, env| call.on_loan(env, lent));
            }
            Loan::Kept { of } => self.with_call(of, Call::end_lent),
            Loan::Back { mut lent, pending } => {
                if self.calls.contains_key(&lent.of) {
                    return self.with_call(lent.of, |call, env| call.take_back(env, lent, pending));
                }
                lent.hang_up(&mut self.env);
                if let Some(client) = pending {
                    let (transactions, mut ports) = self.env.split();
                    transactions.abandon(&mut ports, client);
                }
            }
        }
    }

    /// Hands what a transaction has to say to its owner.
    pub(super) fn report(
        &mut self,
        owner: Owner,
        act: impl FnOnce(&mut Call, &mut super::Environment, Role),
    ) {
        if let Owner::Call(id, role) = owner {
            self.with_call(id, |call, env| act(call, env, role));
        }
    }

    fn on_ack(&mut self, arrival: &Arrival) {
        let place = DialogId::of_request(&arrival.request.headers)
            .and_then(|id| self.env.dialogs.get(&id).copied())
            .filter(|place| place.peer == arrival.origin.peer);
        match place {
            Some(place) => {
                self.with_call(place.call, |call, env| {
                    call.on_ack(env, place, arrival.origin, &arrival.request)
                });
            }
            None => self.env.counters().dropped_stray_ack += 1,
        }
    }

    fn on_cancel(&mut self, arrival: &Arrival) {
        let invite = arrival.key_of_invite().and_then(|key| self.env.transactions.find_server(&key));
        let Some(invite) = invite else { return self.answer(arrival, 481) };
        let mut response = Response::to(&arrival.request.headers, 200);
        let owner = self.env.transactions.owner(invite);
        if let Some(Owner::Call(call, _)) = owner {
            // The same To tag as the INVITE's own responses (§9.2).
            if let Some(tag) = self.calls.get(&call).and_then(Call::tag) {
                add_tag(&mut response.headers, tag);
            }
        }
        self.send(arrival, response);
        self.report(owner.unwrap_or(Owner::Nobody), |call, env, role| {
            call.on_cancel(env, role, invite, &arrival.request);
        });
    }

    fn on_dialog_request(&mut self, arrival: Arrival) {
        let place = DialogId::of_request(&arrival.request.headers)
            .and_then(|id| self.env.dialogs.get(&id).copied())
            .filter(|place| place.peer == arrival.origin.peer && self.calls.contains_key(&place.call));
        let Some(place) = place else { return self.answer(&arrival, 481) };
        let within = Within { class: place.class, call: place.call, leg: place.leg };
        let bye = arrival.request.method == Method::BYE;
        let room = if bye { Room::Bye(within) } else { Room::InCall(within) };
        let Ok(server) = self.take_place(&arrival, room, None) else {
            self.env.counters().shed_transactions += 1;
            return self.refuse_for_now(&arrival, 500);
        };
        let Arrival { origin, request, .. } = arrival;
        self.with_call(place.call, |call, env| call.on_request(env, place, server, origin, request));
    }

    fn on_invite(&mut self, arrival: Arrival) {
        let urgency = self.env.urgency(arrival.origin.peer, &arrival.request);
        let merge = MergeKey::new(&arrival.request.headers);
        if self.env.transactions.is_merged(&merge) {
            return self.answer(&arrival, 482);
        }
        // An emergency call too, which then takes its next way (RFC 3261 §16.3 item 4).
        let called = called_subscriber(&self.env, arrival.origin.peer, &arrival.request);
        let Ok(passes) = self.env.passes(arrival.origin.peer, &called, &arrival.request) else {
            self.env.admission.refused(arrival.origin.peer, Refusal::Loop);
            return self.answer(&arrival, 482);
        };
        if self.refused_by_fields(&arrival, urgency) {
            return;
        }
        if urgency != Urgency::Service && arrival.request.headers.contains(name::REPLACES) {
            return match Call::offered_media(&arrival.request, arrival.origin, false) {
                Ok(_) => self.on_replacing(arrival, merge),
                Err(response) => self.finish(&arrival, response),
            };
        }
        self.on_new_call(arrival, merge, passes, urgency);
    }

    fn on_new_call(&mut self, arrival: Arrival, merge: MergeKey, passes: String, urgency: Urgency) {
        let call = self.env.generator.call(self.env.now.wall);
        let mut offer = Call::describe_offer(&self.env, call, arrival.origin, &arrival.request);
        offer.emergency = match urgency {
            Urgency::None => false,
            // What a dispatch line hears is recorded, whatever its caller says of itself.
            Urgency::CallBack => !(self.is_dispatch)(&offer),
            Urgency::Service => true,
        };
        let class = self.class_of(&offer);
        offer.excess = self.excess(class, &offer);
        if self.sheds(class, offer.excess) && urgency == Urgency::None {
            self.env.counters().shed_calls += 1;
            let why = offer.excess.map_or(Refusal::Capacity, Refusal::from);
            self.env.admission.refused(offer.peer, why);
            return self.refuse_for_now(&arrival, 503);
        }
        let crosses_whole = match urgency {
            Urgency::None => false,
            Urgency::CallBack => self.env.trusts_identity(offer.peer),
            Urgency::Service => true,
        };
        match Call::offered_media(&arrival.request, arrival.origin, crosses_whole) {
            Ok(media) => offer.media = media,
            Err(response) => return self.finish(&arrival, response),
        }
        let Ok(server) = self.take_place(&arrival, Room::New(class), Some(merge)) else {
            self.env.counters().shed_transactions += 1;
            return self.refuse_for_now(&arrival, 503);
        };
        let Arrival { origin, request: invite, .. } = arrival;
        match offer.excess {
            Some(excess) => self.env.admission.refused(origin.peer, excess.into()),
            None => self.env.transport.ladders.begin(offer.call, origin.peer, &invite),
        }
        self.env.respond(server, &Response::to(&invite.headers, 100));
        let incoming = Incoming { origin, server, invite, class, urgency, passes };
        let call = Call::offer(&mut self.env, incoming, offer);
        self.calls.insert(call.id(), call);
    }

    fn class_of(&self, offer: &Offer) -> Class {
        if offer.emergency {
            Class::Emergency
        } else if (self.is_dispatch)(offer) {
            Class::Dispatch
        } else {
            Class::Ordinary
        }
    }

    /// Whether a request is one too many of its source's, and has been refused.
    fn floods(&mut self, arrival: &Arrival) -> bool {
        if arrival.has_to_tag() || matches!(arrival.request.method, Method::ACK | Method::CANCEL) {
            return false;
        }
        let Err(wait_s) = self.env.take_request(arrival.origin) else { return false };
        if arrival.request.method == Method::INVITE && self.class_of_invite(arrival) != Class::Ordinary {
            return false;
        }
        self.env.admission.refused(arrival.origin.peer, Refusal::Flood);
        self.refuse_until(arrival, 503, wait_s);
        true
    }

    fn class_of_invite(&self, arrival: &Arrival) -> Class {
        let Arrival { origin, request, .. } = arrival;
        if self.env.urgency(origin.peer, request) != Urgency::None {
            return Class::Emergency;
        }
        match judge_replaces(&self.env, *origin, &request.headers) {
            Ok((place, _)) => place.class,
            // As yet it is no call.
            Err(_) => self.class_of(&Call::describe_offer(&self.env, CallId(0), *origin, request)),
        }
    }

    /// Which limit an ordinary call would exceed.
    fn excess(&self, class: Class, offer: &Offer) -> Option<Excess> {
        if class != Class::Ordinary {
            return None;
        }
        if self.env.live_calls >= self.env.config.limits.max_calls {
            return Some(Excess::Capacity);
        }
        self.env.admission.excess(&self.env.config, self.env.now.mono, offer)
    }

    /// Whether a call is refused before anybody hears of it. Over a limit the hub refuses ordinary calls
    /// itself, with a record each; what it could not refuse properly for want of room is not offered.
    fn sheds(&self, class: Class, excess: Option<Excess>) -> bool {
        let hard_cap = self.env.config.limits.max_calls.saturating_mul(2).saturating_add(CALLS_BESIDE);
        match class {
            Class::Emergency => false,
            Class::Dispatch => self.draining,
            Class::Ordinary => {
                self.draining
                    || self.overloaded
                    || self.env.live_calls >= hard_cap
                    || (excess.is_some() && !self.env.transactions.has_room(Room::Refusal))
            }
        }
    }

    /// An INVITE that replaces the far end of one of our legs (RFC 3891 §3).
    fn on_replacing(&mut self, arrival: Arrival, merge: MergeKey) {
        let judged = judge_replaces(&self.env, arrival.origin, &arrival.request.headers);
        let place = judged.and_then(|(place, early_only)| match self.calls.get(&place.call) {
            Some(call) => call.judge_replaced(place, early_only).map(|()| place),
            None => Err(NotReplaced::NoDialog),
        });
        let place = match place {
            Ok(place) => place,
            Err(refusal) => return self.answer(&arrival, refusal.status()),
        };
        let within = Within { class: place.class, call: place.call, leg: place.leg };
        let Ok(server) = self.take_place(&arrival, Room::InCall(within), Some(merge)) else {
            self.env.counters().shed_transactions += 1;
            return self.refuse_for_now(&arrival, 500);
        };
        let Arrival { origin, request, .. } = arrival;
        self.env.transport.ladders.join(place.call, place.leg, origin.peer, &request);
        self.env.respond(server, &Response::to(&request.headers, 100));
        self.with_call(place.call, |call, env| call.take_over(env, place, origin, server, request));
    }

    /// The checks that an emergency call is spared, and those that it is not.
    fn refused_by_fields(&mut self, arrival: &Arrival, urgency: Urgency) -> bool {
        let emergency = urgency != Urgency::None;
        if !emergency && !arrival.has_known_scheme() {
            self.answer(arrival, 416);
            return true;
        }
        let hops = arrival.request.headers.first(name::MAX_FORWARDS).map(max_forwards);
        if hops == Some(Ok(0)) {
            self.answer(arrival, 483);
            return true;
        }
        !emergency
            && (self.refused_by_require(arrival)
                || self.refused_by_session(arrival)
                || self.refused_by_privacy(arrival))
    }

    fn refused_by_require(&mut self, arrival: &Arrival) -> bool {
        let unsupported: Vec<&str> =
            arrival.request.headers.list(name::REQUIRE).filter(|option| !knows(option)).collect();
        if unsupported.is_empty() {
            return false;
        }
        let mut response = Response::to(&arrival.request.headers, 420);
        response.headers.push(name::UNSUPPORTED, unsupported.join(", "));
        self.finish(arrival, response);
        true
    }

    fn refused_by_session(&mut self, arrival: &Arrival) -> bool {
        let Some(refusal) = refuse_session(self.env.config.session_timer, &arrival.request) else {
            return false;
        };
        let mut response = Response::to(&arrival.request.headers, refusal.status);
        response.headers.copy(&refusal.headers, name::MIN_SE);
        self.finish(arrival, response);
        true
    }

    fn refused_by_privacy(&mut self, arrival: &Arrival) -> bool {
        let Some(refusal) = refuse_privacy(&arrival.request.headers) else { return false };
        let mut response = Response::to(&arrival.request.headers, refusal.status);
        response.headers.copy(&refusal.headers, name::WARNING);
        self.finish(arrival, response);
        true
    }

    fn on_options(&mut self, arrival: &Arrival) {
        if !arrival.has_known_scheme() {
            return self.answer(arrival, 416);
        }
        if self.refused_by_require(arrival) {
            return;
        }
        let mut response = Response::to(&arrival.request.headers, 200);
        response.headers.push(name::ALLOW, ALLOW);
        response.headers.push(name::ACCEPT, "application/sdp");
        response.headers.push(name::SUPPORTED, supported());
        self.finish(arrival, response);
    }

    fn refuse_for_now(&mut self, arrival: &Arrival, status: u16) {
        self.refuse_until(arrival, status, RETRY_AFTER_S);
    }

    /// Refuses a request without spending a transaction on it: its repeats get the same answer.
    fn refuse_until(&mut self, arrival: &Arrival, status: u16, retry_after_s: u32) {
        let mut response = Response::to(&arrival.request.headers, status);
        response.headers.push(name::RETRY_AFTER, retry_after_s.to_string());
        self.send(arrival, response);
    }

    fn answer(&mut self, arrival: &Arrival, status: u16) {
        let mut response = Response::to(&arrival.request.headers, status);
        if status == 405 {
            response.headers.push(name::ALLOW, ALLOW);
        }
        self.finish(arrival, response);
    }

    /// Answers a request that goes no further: an INVITE in a transaction that nobody follows, if there is
    /// room for it.
    fn finish(&mut self, arrival: &Arrival, mut response: Response) {
        if arrival.request.method != Method::INVITE {
            return self.send(arrival, response);
        }
        let Ok(server) = self.take_place(arrival, Room::Refusal, None) else {
            return self.send(arrival, response);
        };
        self.env.add_to_tag(&mut response.headers);
        self.env.respond(server, &response);
    }

    /// Answers without a transaction (RFC 3261 §8.2.7).
    fn send(&mut self, arrival: &Arrival, mut response: Response) {
        self.env.add_to_tag(&mut response.headers);
        let mut path = arrival.path;
        self.env.transport.send(&mut path, response.to_bytes());
    }

    fn take_place(&mut self, arrival: &Arrival, room: Room, merge: Option<MergeKey>) -> Result<TxId, Full> {
        let invite = arrival.request.method == Method::INVITE;
        let key = (arrival.key.clone(), merge);
        self.env.transactions.open_server(key, invite, arrival.path, room, Owner::Nobody)
    }
}

fn knows(option: &str) -> bool {
    passes_option(option) || is_answered_option(option)
}

impl Report {
    /// The status that stands for it towards the other leg (RFC 3261 §8.1.3.1, §16.9).
    pub(crate) const fn status(self) -> u16 {
        match self {
            Self::TimedOut => 408,
            Self::Unreachable => 503,
        }
    }
}
