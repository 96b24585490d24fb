//! From the caller's INVITE to the first INVITE of ours (RFC 3261 §13.3.1, §8.1.1).

use std::net::IpAddr;

use consent::{CallId, Side};

use super::hunt::Hunt;
use super::identity::{FarEnd, diverted_from, identity, subscriber_of, verdict};
use super::session::{self, Session};
use super::{Call, CallTimer, Owner, Phase, RelayAddresses, Role, decision_ms, forward, session_timer, sips};
use crate::core::{Environment, Origin, Path};
use crate::emergency::Urgency;
use crate::transaction::{Class, TxId};
use crate::wire::{Method, NameAddr, Request, Response, SipUri, Uri, before_params, max_forwards, name};
use crate::{EndedBy, Event, Offer, PeerId, Route, Transport};

/// RFC 3261 §8.1.1.6.
const MAX_FORWARDS: u8 = 70;

/// The way to an emergency service that the hub says nothing of.
pub(super) const STATIC_ROUTE: Route = Route { side: Side::Public, user: None };

/// That of an answering point's call-back.
const STATIC_ROUTE_BACK: Route = Route { side: Side::District, user: None };

/// An initial INVITE that is offered.
pub(crate) struct Incoming {
    pub(crate) origin: Origin,
    pub(crate) server: TxId,
    pub(crate) invite: Request,
    pub(crate) class: Class,
    pub(crate) urgency: Urgency,
    /// The marks of [`Environment::passes`].
    pub(crate) passes: String,
}

impl Call {
    /// What media an initial INVITE offers; one that crosses whole may offer what cannot be read.
    ///
    /// # Errors
    /// The response that refuses it: its session description cannot be read.
    pub(crate) fn offered_media(
        invite: &Request,
        origin: Origin,
        crosses_whole: bool,
    ) -> Result<Option<crate::LegMedia>, Response> {
        match session::find(&invite.headers, &invite.body) {
            Ok(found) => Ok(found.map(|found| found.media(origin.source.ip()))),
            Err(_) if crosses_whole => Ok(None),
            Err(error) => Err(refusal_of_description(invite, &error)),
        }
    }

    /// Takes an initial INVITE and tells the hub of it, with its [`Self::describe_offer`] and
    /// [`Self::offered_media`].
    pub(crate) fn offer(env: &mut Environment, incoming: Incoming, offer: Offer) -> Self {
        let Incoming { origin, server, class, .. } = incoming;
        let mut call = Self::new(env, &offer, incoming);
        let (headers, back) = (std::mem::take(&mut call.invite.headers), call.back);
        call.learn(env, consent::Leg::A, &headers, origin.source.ip());
        call.invite.headers = headers;
        call.learn_peer(env, consent::Leg::A, &back);
        if let Some(media) = offer.media.clone() {
            call.learn_media(env, consent::Leg::A, &media);
            let told = call.session.describe(consent::Leg::A, media, false);
            call.tell(env, told);
        }
        env.transactions.set_owner(server, Owner::Call(call.id, Role::Invite));
        env.live_calls += 1;
        env.counters().calls_offered += 1;
        call.arm(env, CallTimer::Decision, decision_ms(offer.emergency));
        tracing::debug!(call = %call.id, ?class, excess = ?offer.excess, "offered");
        env.emit(Event::Offered(Box::new(offer)));
        call.heed_caller(env);
        call
    }

    fn new(env: &mut Environment, offer: &Offer, incoming: Incoming) -> Self {
        let Incoming { origin, server, invite, class, urgency, passes } = incoming;
        let from = invite.headers.first(name::FROM).unwrap_or_default();
        let far_end = FarEnd::calling(&invite.headers, from);
        let session_ids = [env.generator.session(), env.generator.session()];
        let admitted = env.admission.begin(&env.config, env.now.mono, class, offer);
        Self {
            id: offer.call,
            class,
            admitted,
            passes,
            phase: Phase::Waiting,
            server,
            peer: origin.peer,
            back: env.path_back(origin),
            tag: env.generator.tag(),
            heard_from: [origin.source.ip(), IpAddr::from([0, 0, 0, 0])],
            hosts: Default::default(),
            session: Session::new(session_ids),
            told: [None, None],
            timings: Default::default(),
            awareness: super::awareness::Awareness::default(),
            calls_for_help: urgency == Urgency::Service,
            mark_believed: urgency == Urgency::CallBack && env.trusts_identity(origin.peer),
            hunt: Hunt::default(),
            attempts: Vec::new(),
            forks: Vec::new(),
            answered: None,
            held_answer: None,
            acceptance: None,
            acked: std::collections::VecDeque::new(),
            relays: Vec::new(),
            relays_begun: 0,
            far_ends: [far_end, FarEnd::default()],
            swallow: [false, false],
            transfer: None,
            transfers_begun: 0,
            leaving: None,
            arriving: None,
            undoing: None,
            lent: false,
            over: [false, false],
            bye_after_ack: None,
            orphans: Vec::new(),
            timers: Vec::new(),
            done: false,
            invite,
        }
    }

    /// What an initial INVITE offers, under this id; without its media, and not as an emergency call.
    pub(crate) fn describe_offer(env: &Environment, call: CallId, origin: Origin, invite: &Request) -> Offer {
        let headers = &invite.headers;
        let peer = env.config.peers.get(origin.peer.0);
        let side = peer.map_or(Side::Public, |peer| peer.side);
        let trusted = env.trusts_identity(origin.peer);
        Offer {
            call,
            peer: origin.peer,
            side,
            parties_signalled: peer.is_some_and(|peer| peer.parties_signalled),
            emergency: false,
            excess: None,
            request_user: called_subscriber(env, origin.peer, invite),
            to_user: headers.first(name::TO).map_or_else(String::new, subscriber_of),
            diverted_from: diverted_from(headers),
            caller: identity(headers, trusted),
            verdict: if trusted { verdict(headers) } else { None },
            sip_call_id: headers.first(name::CALL_ID).unwrap_or_default().to_owned(),
            media: None,
        }
    }

    /// The hub has decided: the INVITE goes on.
    pub(crate) fn proceed(&mut self, env: &mut Environment, route: &Route, media: RelayAddresses) {
        if self.phase != Phase::Waiting {
            return;
        }
        self.disarm(env, CallTimer::Decision);
        if let Some(refusal) = self.refused_destination(env, route, &self.invite.uri) {
            return self.fail(env, EndedBy::Gateway, &refusal);
        }
        self.phase = Phase::Calling;
        self.session.set_relay(media);
        let emergency = self.is_emergency();
        let ways = env.ways(route.side, emergency);
        self.hunt_on(env, route, ways, emergency);
    }

    /// The hub has decided otherwise.
    pub(crate) fn refuse(
        &mut self,
        env: &mut Environment,
        status: u16,
        text: &'static str,
        retry_after_s: Option<u32>,
    ) {
        if self.phase != Phase::Waiting {
            return;
        }
        if self.is_emergency() {
            // Nothing refuses an emergency call.
            return self.on_no_decision(env);
        }
        let mut response = Response::new(status.clamp(400, 699));
        response.headers.push(name::WARNING, format!("399 earmark \"{text}\""));
        if let Some(seconds) = retry_after_s {
            response.headers.push(name::RETRY_AFTER, seconds.to_string());
        }
        self.fail(env, EndedBy::Gateway, &response);
    }

    pub(super) fn on_no_decision(&mut self, env: &mut Environment) {
        if self.phase != Phase::Waiting {
            return;
        }
        if self.is_emergency() {
            tracing::warn!(call = %self.id, "emergency call goes on without the hub");
            let route = if self.calls_for_help { STATIC_ROUTE } else { STATIC_ROUTE_BACK };
            return self.proceed(env, &route, Vec::new());
        }
        self.fail(env, EndedBy::Gateway, &Response::new(500));
    }

    /// Says that an INVITE of ours is about to go out; its answer will be on this leg.
    pub(super) fn emit_routed(
        &self,
        env: &mut Environment,
        leg: consent::Leg,
        peer: PeerId,
        invite: &Request,
    ) {
        let sip_call_id = invite.headers.first(name::CALL_ID).unwrap_or_default().to_owned();
        env.transport.ladders.put(self.id, leg, peer, &sip_call_id);
        let known = env.config.peers.get(peer.0);
        env.emit(Event::Routed {
            call: self.id,
            peer,
            side: known.map_or(Side::Public, |peer| peer.side),
            sip_call_id,
            parties_signalled: known.is_some_and(|peer| peer.parties_signalled),
        });
    }

    pub(super) fn invite_for(&mut self, env: &mut Environment, peer: PeerId, path: &Path) -> Request {
        let host = env.config.host_of(peer);
        let user = self.dialled_user(env);
        let secure = path.transport == Transport::Tls;
        let theirs = Place { host: &host, secure };
        let diverted = self.hunt.diversions.current.as_ref().map(|target| target.uri.clone());
        let border = self.border(env, (consent::Leg::A, self.peer), &self.invite.headers, path);
        let uri = uri_at(diverted.as_deref().unwrap_or(&self.invite.uri), theirs, user.as_deref());
        let uri = border.cleared_uri(uri);
        let own_host = env.host(path.listener);
        let mut invite = Request::new(Method::INVITE, uri);
        let headers = &mut invite.headers;
        headers.push(name::MAX_FORWARDS, hops_left(&self.invite).to_string());
        let from = self.invite.headers.first(name::FROM).unwrap_or_default();
        headers.push(name::FROM, border.from(from, &env.generator.tag()));
        let to = self.invite.headers.first(name::TO).unwrap_or_default();
        let called = called_subscriber(env, self.peer, &self.invite);
        let called = before_params(&called);
        let is_called = || before_params(&subscriber_of(to)) == called;
        let to_user = user.as_deref().filter(|_| self.is_emergency() || is_called());
        headers.push(name::TO, border.cleared(address_at(to, theirs, to_user, None)));
        headers.push(name::CALL_ID, env.generator.call_id());
        headers.push(name::CSEQ, format!("{} INVITE", env.generator.sequence()));
        headers.push(name::CONTACT, env.contact(path, sips::is_sips(&invite.uri)));
        if diverted.is_some() {
            // RFC 5806 §5.1: the newest comes first.
            headers.push(name::DIVERSION, format!("<sip:{}@{own_host}>;reason=deflection", escaped(called)));
        }
        forward::copy_end_to_end(&self.invite.headers, headers, &border);
        forward::offer_refer(headers, !self.is_emergency() && env.may_refer(peer));
        if !self.is_emergency() {
            self.offer_reliability(headers);
            session_timer::ask(env.config.session_timer, headers);
            super::awareness::offer(headers);
        }
        invite.body = self.offered_body(own_ip(env, path));
        invite
    }

    /// The user part to dial, where it is not the one received.
    fn dialled_user(&self, env: &Environment) -> Option<String> {
        let routed = self.hunt.route.as_ref().and_then(|route| route.user.clone());
        let diverted = self.hunt.diversions.current.as_ref().map(|target| target.uri.as_str());
        routed.or_else(|| match diverted {
            Some(uri) => env.emergency_number(uri),
            None if env.is_emergency(&self.invite.uri) => env.emergency_number(&self.invite.uri),
            None => {
                let called = called_subscriber(env, self.peer, &self.invite);
                (called != request_subscriber(&self.invite.uri)).then_some(called)
            }
        })
    }

    /// Whom a URI calls that is this call's own, or that a 3xx or REFER has named.
    pub(super) fn subscriber_called(&self, env: &Environment, uri: &str) -> String {
        if uri == self.invite.uri {
            called_subscriber(env, self.peer, &self.invite)
        } else {
            request_subscriber(uri)
        }
    }

    fn offered_body(&mut self, host: IpAddr) -> bytes::Bytes {
        let body = self.invite.body.clone();
        match session::find(&self.invite.headers, &body) {
            Ok(Some(found)) => {
                let hidden = std::sync::Arc::clone(&self.hosts[consent::Leg::A.index()]);
                let sent = self.session.rewrite(consent::Leg::A, &found, &body, (host, &*hidden));
                let on = found.replaced(&body, &sent);
                let source = self.heard_from[consent::Leg::A.index()];
                // Told with the call.
                self.session.pass(consent::Leg::A, found.passed_as(&body, sent, source), false);
                on
            }
            Ok(None) | Err(_) => body,
        }
    }
}

/// 488 with a Warning (RFC 3261 §21.4.26, §20.43: 305 incompatible media format).
fn refusal_of_description(invite: &Request, error: &crate::sdp::SdpError) -> Response {
    let mut response = Response::to(&invite.headers, 488);
    response.headers.push(name::WARNING, format!("399 earmark \"{error}\""));
    response
}

/// Our own IP address on a path's listener.
pub(super) fn own_ip(env: &Environment, path: &Path) -> IpAddr {
    let listener = env.config.listeners.get(path.listener.0);
    listener.map_or(IpAddr::from([0, 0, 0, 0]), |listener| listener.address.ip())
}

/// Max-Forwards of a request passed on: one less, or the usual where there was none (RFC 3261 §16.6).
pub(super) fn hops_left(request: &Request) -> u8 {
    match request.headers.first(name::MAX_FORWARDS).map(max_forwards) {
        Some(Ok(hops)) => hops.saturating_sub(1),
        Some(Err(_)) | None => MAX_FORWARDS,
    }
}

/// The user part that an INVITE calls, with its parameters: the Request-URI's, or To's where that is only the
/// name under which we are registered with the peer (a registrar puts our Contact into the Request-URI, RFC 3261
/// §16.5).
pub(crate) fn called_subscriber(env: &Environment, peer: PeerId, invite: &Request) -> String {
    let user = request_subscriber(&invite.uri);
    let account = env.config.peers.get(peer.0).and_then(|peer| peer.account.as_ref());
    let ours =
        account.is_some_and(|known| known.register_s.is_some() && known.username == before_params(&user));
    let to = invite.headers.first(name::TO).map(subscriber_of).filter(|to| ours && !to.is_empty());
    to.unwrap_or(user)
}

/// User part of a Request-URI, or telephone-subscriber, with its parameters.
pub(super) fn request_subscriber(uri: &str) -> String {
    match Uri::parse(uri) {
        Ok(uri) => uri.subscriber().unwrap_or_default().into_owned(),
        Err(_) => String::new(),
    }
}

/// Where an address is moved to.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) host: &'a str,
    /// Whether a `sips:` may stay one there.
    pub(crate) secure: bool,
}

/// The same user and parameters at another host; another user where one is given. A `tel:` becomes the
/// `sip:` of RFC 3261 §19.1.6. What is not ASCII is percent-encoded, as every URI must have it.
pub(crate) fn uri_at(uri: &str, place: Place<'_>, user: Option<&str>) -> String {
    let scheme = if place.secure && sips::is_sips(uri) { "sips" } else { "sip" };
    let host = place.host;
    let at = |user: &str, params: &str| format!("{scheme}:{user}@{host}{params}");
    let moved = match (Uri::parse(uri), user) {
        (Ok(Uri::Sip(uri)), None) => match uri.user {
            Some(user) => at(user, &end_to_end_params(&uri)),
            None => format!("{scheme}:{host}{}", end_to_end_params(&uri)),
        },
        (Ok(Uri::Sip(uri)), Some(user)) => at(&escaped(user), &end_to_end_params(&uri)),
        (Ok(Uri::Tel(tel)), None) => {
            let subscriber = format!("{}{}", tel.number, tel.params.as_str());
            at(&percent_encoded(&subscriber, |byte| byte == b'%' || stands_in_user(byte)), ";user=phone")
        }
        (Ok(Uri::Tel(_)), Some(user)) => at(&escaped(user), ";user=phone"),
        (_, Some(user)) => at(&escaped(user), ""),
        (_, None) => uri.to_owned(),
    };
    ascii(&moved)
}

/// URI parameters as received, without those that say how to reach the host that we replace.
fn end_to_end_params(uri: &SipUri<'_>) -> String {
    let mut params = String::new();
    for param in uri.params.iter() {
        if ["transport", "maddr", "ttl"].iter().any(|name| param.name.eq_ignore_ascii_case(name)) {
            continue;
        }
        params.push(';');
        params.push_str(param.name);
        if let Some(value) = param.value {
            params.push('=');
            params.push_str(value);
        }
    }
    params
}

/// A From or To with its display name and user at another host, and with this tag. An address without a
/// host, or one that names nobody (RFC 3323 §4.1.1.3), stays.
pub(crate) fn address_at(address: &str, place: Place<'_>, user: Option<&str>, tag: Option<&str>) -> String {
    let Ok(parsed) = NameAddr::parse(address) else { return address.to_owned() };
    let uri = match Uri::parse(parsed.uri) {
        Ok(Uri::Sip(uri)) if uri.host.to_ascii_lowercase().ends_with(".invalid") => parsed.uri.to_owned(),
        Ok(Uri::Sip(_)) => uri_at(parsed.uri, place, user),
        _ if user.is_some() => uri_at(parsed.uri, place, user),
        _ => parsed.uri.to_owned(),
    };
    parsed.rebuilt(&ascii(&uri), tag)
}

/// A user part with what may not stand in one percent-encoded (RFC 3261 §25.1).
pub(crate) fn escaped(user: &str) -> String {
    percent_encoded(user, stands_in_user)
}

fn stands_in_user(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,;?/".contains(&byte)
}

fn ascii(uri: &str) -> String {
    percent_encoded(uri, |byte| byte.is_ascii())
}

fn percent_encoded(text: &str, stays: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if stays(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_uri_keeps_user_and_parameters() {
        let cases = [
            ("sip:+1860@gw:5060;user=phone", None, "sip:+1860@pbx;user=phone"),
            ("sip:a%20b;x=1:secret@gw", None, "sip:a%20b;x=1@pbx"),
            ("sip:gw;lr", None, "sip:pbx;lr"),
            ("sip:1@gw;transport=tcp;maddr=10.9.9.9;cpc=x", None, "sip:1@pbx;cpc=x"),
            ("tel:+1860;ext=5", None, "sip:+1860;ext=5@pbx;user=phone"),
            ("tel:*67#5;x=a:b%20", None, "sip:*67%235;x=a%3Ab%20@pbx;user=phone"),
            ("tel:911@elsewhere;x=y?z", None, "sip:911%40elsewhere;x=y?z@pbx;user=phone"),
            ("sip:mü@gw;p=é", None, "sip:m%C3%BC@pbx;p=%C3%A9"),
            ("sip:9911@gw;user=phone", Some("911"), "sip:911@pbx;user=phone"),
            ("urn:service:sos.fire", Some("911"), "sip:911@pbx"),
            ("sip:x@gw", Some("a#b"), "sip:a%23b@pbx"),
        ];
        for (received, user, sent) in cases {
            assert_eq!(uri_at(received, Place { host: "pbx", secure: true }, user), sent);
        }
        for (secure, sent) in [(true, "sips:1@pbx;cpc=x"), (false, "sip:1@pbx;cpc=x")] {
            assert_eq!(uri_at("sips:1@gw;transport=tls;cpc=x", Place { host: "pbx", secure }, None), sent);
        }
    }

    #[test]
    fn an_address_moves_to_our_host_and_anonymous_stays_nowhere() {
        let cases = [
            ("\"A, B\" <sip:7331@10.0.0.1:5070;x=y>;tag=1;z=2", "\"A, B\" <sip:7331@gw;x=y>;z=2;tag=t"),
            ("sip:7331@10.0.0.1;tag=1", "<sip:7331@gw>;tag=t"),
            ("<sip:anonymous@anonymous.invalid>;tag=1", "<sip:anonymous@anonymous.invalid>;tag=t"),
            ("<tel:+1860>;tag=1", "<tel:+1860>;tag=t"),
        ];
        for (received, sent) in cases {
            assert_eq!(address_at(received, Place { host: "gw", secure: false }, None, Some("t")), sent);
        }
    }
}
