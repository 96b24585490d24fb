//! REFER (RFC 3515, RFC 3892, RFC 4488), and the INVITE to whom it names.

use consent::{Leg, Side};

use super::super::border::Border;
use super::super::forward::passes_option;
use super::super::hunt::Hunt;
use super::super::identity::subscriber_of;
use super::super::offering::{Place, STATIC_ROUTE, address_at, uri_at};
use super::super::session::Ours;
use super::super::{Call, CallTimer, DECISION_MS, Event, decision_ms};
use super::super::{awareness, reliable, session_timer, sips};
use super::{Invited, MAX_TRANSFERS, Stage, Subscription, Target, Transfer};
use crate::core::{DialogPlace, Environment, Path};
use crate::dialog::sequence_of;
use crate::transaction::{Class, TxId};
use crate::wire::{Headers, Method, NameAddr, Request, Response, name};
use crate::{PeerId, Route, Transport};

impl Call {
    /// A REFER within one of our dialogs.
    pub(in super::super) fn on_refer(
        &mut self,
        env: &mut Environment,
        place: DialogPlace,
        server: TxId,
        refer: &Request,
    ) {
        let target = match self.judge_refer(env, place, refer) {
            Ok(target) => target,
            Err(refusal) => return self.answer(env, server, refer, refusal),
        };
        let wants_no_report = refer.headers.first("Refer-Sub").is_some_and(|value| value.trim() == "false");
        let path = self.way_to(place.leg).unwrap_or(self.back);
        let mut accepted = Response::new(202);
        accepted.headers.push(name::CONTACT, env.contact(&path, sips::is_asked_by(refer)));
        if wants_no_report {
            accepted.headers.push("Refer-Sub", "false");
        }
        let subscription = Subscription { id: sequence_of(&refer.headers).unwrap_or_default(), rang: false };
        let replaces = target.replaces.clone().filter(|replaces| env.dialogs.contains_key(&replaces.dialog));
        self.transfers_begun += 1;
        self.hunt = Hunt::default();
        let stage = replaces.map_or(Stage::Deciding, |replaces| Stage::Borrowing { replaces });
        let give_up_at = env.now.mono.plus_ms(DECISION_MS);
        self.transfer = Some(Box::new(Transfer {
            subscription: Some(subscription).filter(|_| !wants_no_report),
            referred_by: refer.headers.first(name::REFERRED_BY).map(str::to_owned),
            target: Some(target),
            ..Transfer::new(place.leg, place.fork, give_up_at, stage)
        }));
        self.answer_refer(env, server, refer, &accepted);
        self.report(env, &Response::new(100));
        tracing::debug!(call = %self.id, "transfer begins");
        if self.transfer.as_ref().is_some_and(|transfer| matches!(transfer.stage, Stage::Borrowing { .. })) {
            return self.borrow(env);
        }
        self.ask_for_target(env);
    }

    /// Asks the hub where whom L named is.
    pub(super) fn ask_for_target(&mut self, env: &mut Environment) {
        let Some(transfer) = &self.transfer else { return };
        let Some(target) = &transfer.target else { return };
        let (leg, emergency) = (transfer.leg, target.emergency);
        let target = target.told(env, env.side(self.leavers_peer(transfer)));
        self.arm(env, CallTimer::Transfer, decision_ms(emergency));
        env.emit(Event::Diverted { call: self.id, leg, target });
    }

    fn judge_refer(
        &self,
        env: &Environment,
        place: DialogPlace,
        refer: &Request,
    ) -> Result<Target, Response> {
        let refusal = |status| Err(Response::new(status));
        if self.calls_for_help || !env.may_refer(place.peer) || self.transfers_begun >= MAX_TRANSFERS {
            return refusal(403);
        }
        if self.answered != Some(place.fork) && self.answered.is_some() {
            return refusal(481);
        }
        if !self.may_transfer() {
            return refusal(491);
        }
        let unknown: Vec<&str> = refer
            .headers
            .list(name::REQUIRE)
            .filter(|option| !passes_option(option) && !is_answered_option(option))
            .collect();
        if !unknown.is_empty() {
            let mut refusal = Response::new(420);
            refusal.headers.push(name::UNSUPPORTED, unknown.join(", "));
            return Err(refusal);
        }
        let mut addresses = refer.headers.all(name::REFER_TO);
        let (Some(address), None) = (addresses.next(), addresses.next()) else { return refusal(400) };
        Target::parse(env, address).map_err(Response::new)
    }

    fn answer_refer(&self, env: &mut Environment, server: TxId, refer: &Request, response: &Response) {
        let mut reply = Response::to(&refer.headers, response.status);
        for field in [name::CONTACT, "Refer-Sub"] {
            reply.headers.copy(&response.headers, field);
        }
        env.respond(server, &reply);
    }

    /// The hub says where whom L named is.
    pub(in super::super) fn proceed_to_target(&mut self, env: &mut Environment, route: &Route) {
        let Some(transfer) =
            self.transfer.as_ref().filter(|transfer| matches!(transfer.stage, Stage::Deciding))
        else {
            return;
        };
        let leaver = self.leavers_peer(transfer);
        let Some(target) = transfer.target.clone() else { return };
        if !self.admits_transfer(env, leaver, route, &target) {
            return self.fail_transfer(env, &Response::new(503));
        }
        self.hunt_for(env, route, &target);
    }

    /// Takes a call of the minute of whoever transfers, if there is one: for a call to the public side, unless it is
    /// an emergency or dispatch call or becomes one.
    fn admits_transfer(&self, env: &mut Environment, leaver: PeerId, route: &Route, target: &Target) -> bool {
        let counts = self.class == Class::Ordinary && route.side == Side::Public && !target.emergency;
        !counts || env.admission.take_call(&env.config, env.now.mono, leaver)
    }

    /// The hub does not say.
    pub(super) fn on_no_route(&mut self, env: &mut Environment) {
        let target = self.transfer.as_ref().and_then(|transfer| transfer.target.as_ref());
        if target.is_some_and(|target| target.emergency) {
            tracing::warn!(call = %self.id, "a transfer to an emergency service goes on without the hub");
            return self.proceed_to_target(env, &STATIC_ROUTE);
        }
        self.fail_transfer(env, &Response::new(500));
    }

    /// An INVITE to T is on its way.
    pub(in super::super) fn await_target(&mut self) {
        if let Some(transfer) = &mut self.transfer {
            transfer.stage = Stage::Inviting(Invited::Called);
        }
    }

    /// What T may be offered, before it has said anything: R's description as L was last told it.
    pub(in super::super) fn offer_to_target(&self) -> Option<Ours> {
        self.transfer.as_ref().and_then(|transfer| self.session.offer_anew(transfer.leg))
    }

    /// The INVITE to T, and the leg that T is to take: without an offer (RFC 3725 §4.1), because T's is for R,
    /// unless T would take none.
    pub(in super::super) fn invite_of_target(
        &mut self,
        env: &mut Environment,
        peer: PeerId,
        path: &Path,
        offered: Option<&Ours>,
    ) -> Option<(Leg, Request)> {
        let (leg, target, referred_by) = {
            let transfer = self.transfer.as_ref()?;
            (transfer.leg, transfer.target.clone()?, transfer.referred_by.clone())
        };
        let host = env.config.host_of(peer);
        let own_host = env.host(path.listener);
        let secure = path.transport == Transport::Tls;
        let (theirs, ours) = (Place { host: &host, secure }, Place { host: &own_host, secure });
        let user = self.hunt.route.as_ref().and_then(|route| route.user.clone());
        let user = user.or_else(|| env.emergency_number(&target.uri));
        let border = |leg| {
            let border = self.border_to_target(env, leg, path)?;
            Some(Border { whole: border.whole || target.emergency, ..border })
        };
        let (named, shown) = (border(leg)?, border(leg.other())?);
        let uri = named.cleared_uri(uri_at(&target.uri, theirs, user.as_deref()));
        let stays = self.answered.and_then(|fork| self.dialog(fork, leg.other()))?.remote.clone();
        let leaves = self.answered.and_then(|fork| self.dialog(fork, leg))?.remote.clone();
        let mut invite = Request::new(Method::INVITE, uri.clone());
        let headers = &mut invite.headers;
        headers.push(name::MAX_FORWARDS, "70");
        headers.push(name::FROM, shown.from(&untagged(&stays), &env.generator.tag()));
        headers.push(name::TO, format!("<{uri}>"));
        headers.push(name::CALL_ID, env.generator.call_id());
        headers.push(name::CSEQ, format!("{} INVITE", env.generator.sequence()));
        headers.push(name::CONTACT, env.contact(path, sips::is_sips(&uri)));
        headers.push(name::ALLOW, super::super::ALLOW);
        if !target.emergency && !self.is_emergency() {
            session_timer::ask(env.config.session_timer, headers);
            awareness::offer(headers);
        }
        if leg == Leg::B {
            for field in [name::P_ASSERTED_IDENTITY, name::PRIVACY] {
                shown.cross_all(&self.invite.headers, field, headers);
            }
        }
        if !named.hides_user() {
            headers.push(name::REFERRED_BY, named.cleared(referrer(referred_by.as_deref(), &leaves, ours)));
        }
        if let Some(replaces) = target.replaces.as_ref().filter(|_| !target.emergency) {
            headers.push(name::REPLACES, replaces.text());
            headers.push(name::REQUIRE, "replaces");
        }
        if let Some(offered) = offered {
            headers.push(name::CONTENT_TYPE, "application/sdp");
            invite.body = offered.sent().clone();
        }
        Some((leg, invite))
    }

    /// What lies between a party and T, whom this path leads to. What the caller asked to be withheld stays so.
    fn border_to_target(&self, env: &Environment, leg: Leg, path: &Path) -> Option<Border> {
        let nothing = Headers::new();
        let asked = if leg == Leg::A { &self.invite.headers } else { &nothing };
        Some(self.border(env, self.end_in(self.answered?, leg)?, asked, path))
    }
}

/// Options that we answer ourselves and that go no further.
pub(crate) fn is_answered_option(option: &str) -> bool {
    ["replaces", "norefersub", reliable::OPTION, session_timer::OPTION, awareness::OPTION]
        .iter()
        .any(|own| option.eq_ignore_ascii_case(own))
}

fn untagged(address: &str) -> String {
    NameAddr::parse(address).map_or_else(|_| address.to_owned(), |address| address.with_tag(None))
}

/// Referred-By (RFC 3892 §2.1) at our host, as the REFER says or else whoever sent it. The token that a
/// `cid` would point to is left out: our host makes its signature void.
fn referrer(said: Option<&str>, leaves: &str, ours: Place<'_>) -> String {
    let address = said.unwrap_or(leaves);
    let Ok(parsed) = NameAddr::parse(address) else {
        return format!("<sip:{}@{}>", subscriber_of(leaves), ours.host);
    };
    let moved = address_at(&format!("{} <{}>", parsed.display, parsed.uri), ours, None, None);
    moved.trim().to_owned()
}
