//! Redirection: the callee's side names somebody else (RFC 3261 §8.1.3.4, §21.3; RFC 5806).
//!
//! | the peer's `redirects` | 3xx before a 2xx | effect |
//! |---|---|---|
//! | `Follow` | with a Contact not tried yet, fewer than [`MAX_REDIRECTIONS`] followed | Diverted; INVITE to the best one |
//! | `Follow` | otherwise | the next of the Contacts kept; none left: 480 |
//! | `Follow` | the one followed fails | the next of the Contacts kept; none left: its failure |
//! | `Pass` | any | on to the caller, its Contacts at our host; in a transfer: 480 |
//! | `Refuse` | any | 480: the caller sees neither where nor why |
//!
//! Only `sip:` and `tel:` Contacts are followed, the highest `q` first, in the order received where it is
//! the same, one after the other; those of a nested redirection come before what was left. Whoever is
//! called so learns from Diversion who was called before. An emergency service named so, by a URN too, makes
//! the call an emergency call, which waits for the hub no longer than any. In an emergency call nothing is
//! followed: its other trunks are.

use std::collections::VecDeque;

use consent::{Leg, Side};

use super::offering::STATIC_ROUTE;
use super::transfer::Target;
use super::{Call, CallTimer, EndedBy, Phase, decision_ms};
use crate::core::Environment;
use crate::transaction::Class;
use crate::wire::{NameAddr, Response, Uri, name};
use crate::{Event, PeerId, Redirects, Route};

/// 3xx that one INVITE may follow.
const MAX_REDIRECTIONS: usize = 5;

/// Contacts of one 3xx that are looked at.
const MAX_CONTACTS: usize = 8;

/// Where an INVITE has been sent on to, and where it may be.
#[derive(Default)]
pub(super) struct Diversions {
    followed: usize,
    tried: Vec<String>,
    left: VecDeque<Target>,
    /// Who is called now instead of whom the caller dialled.
    pub(super) current: Option<Target>,
    /// Whether the hub is asked where that is.
    asked: bool,
    /// Who has redirected it.
    by: Vec<PeerId>,
}

impl Call {
    /// Follows a 3xx, if it is one and may be followed; `true` if it has.
    pub(super) fn redirects(&mut self, env: &mut Environment, from: PeerId, response: &Response) -> bool {
        let follows = policy(env, from) == Redirects::Follow && !env.is_emergency(&self.dialled_now());
        if !(300..400).contains(&response.status) || !follows {
            return false;
        }
        self.hunt.diversions.by.push(from);
        if self.hunt.diversions.followed < MAX_REDIRECTIONS {
            self.hunt.diversions.followed += 1;
            let known = self.dialled_now();
            self.hunt.diversions.tried.push(known);
            for target in contacts(env, response).into_iter().rev() {
                self.hunt.diversions.left.push_front(target);
            }
        }
        self.try_next_diversion(env, &Response::new(480))
    }

    /// Calls the next of those that a 3xx named; `false` if none is left.
    pub(super) fn try_next_diversion(&mut self, env: &mut Environment, failure: &Response) -> bool {
        while let Some(target) = self.hunt.diversions.left.pop_front() {
            if self.hunt.diversions.tried.contains(&target.uri) {
                continue;
            }
            self.hunt.diversions.tried.push(target.uri.clone());
            self.hunt.note(super::forward::map_failure(failure));
            self.divert(env, target);
            return true;
        }
        false
    }

    fn divert(&mut self, env: &mut Environment, target: Target) {
        let (leg, caller) = match self.divert_transfer(&target) {
            Some(leg) => (leg, None),
            None => (Leg::B, Some(self.peer)),
        };
        // Of whom was called before nothing is waited for.
        self.disarm(env, CallTimer::Silence);
        let timer = if caller.is_some() { CallTimer::Decision } else { CallTimer::Transfer };
        self.arm(env, timer, decision_ms(target.emergency));
        let from = caller.or_else(|| self.far_peer(leg)).unwrap_or(self.peer);
        let by_district = self.redirected_by().any(|peer| env.side(peer) == Side::District);
        let from = if by_district { Side::District } else { env.side(from) };
        let told = target.told(env, from);
        if caller.is_some() {
            if target.emergency {
                self.class = Class::Emergency;
                self.calls_for_help = true;
                // What A has not acknowledged ends no emergency call.
                self.stop_repeating(env);
            }
            self.hunt.diversions.asked = true;
            self.hunt.diversions.current = Some(target);
        }
        env.emit(Event::Diverted { call: self.id, leg, target: told });
    }

    /// The hub says where the one named is.
    pub(crate) fn proceed_diverted(&mut self, env: &mut Environment, route: &Route) {
        if !std::mem::take(&mut self.hunt.diversions.asked) || self.phase != Phase::Calling {
            return self.proceed_to_target(env, route);
        }
        self.disarm(env, CallTimer::Decision);
        if let Some(target) = self.hunt.diversions.current.clone() {
            self.hunt_for(env, route, &target);
        }
    }

    /// The hub does not say.
    pub(super) fn on_no_diversion(&mut self, env: &mut Environment) {
        if !self.hunt.diversions.asked || self.phase != Phase::Calling {
            return;
        }
        if self.hunt.diversions.current.as_ref().is_some_and(|target| target.emergency) {
            return self.proceed_diverted(env, &STATIC_ROUTE);
        }
        self.hunt.diversions.asked = false;
        self.fail(env, EndedBy::Gateway, &Response::new(500));
    }

    /// Calls whom a 3xx or a REFER names.
    pub(super) fn hunt_for(&mut self, env: &mut Environment, route: &Route, target: &Target) {
        if let Some(refusal) = self.refused_destination(env, route, &target.uri) {
            return self.end_hunt(env, EndedBy::Gateway, &refusal);
        }
        let ways = env.ways_for(route.side, target.peer, target.emergency);
        self.hunt_on(
            env,
            route,
            ways,
            target.emergency || (self.calls_for_help && self.phase == Phase::Calling),
        );
    }

    /// Who has redirected the call, or the INVITE of its transfer.
    pub(super) fn redirected_by(&self) -> impl Iterator<Item = PeerId> {
        self.hunt.diversions.by.iter().copied()
    }

    /// Who is called at present.
    pub(super) fn dialled_now(&self) -> String {
        let transferred = self.transfer.as_ref().and_then(|transfer| transfer.target.as_ref());
        let current = transferred.or(self.hunt.diversions.current.as_ref());
        current.map_or_else(|| self.invite.uri.clone(), |target| target.uri.clone())
    }
}

/// What may be done with a peer's 3xx.
pub(super) fn policy(env: &Environment, peer: PeerId) -> Redirects {
    env.config.peers.get(peer.0).map_or(Redirects::Refuse, |peer| peer.redirects)
}

/// A 3xx as it is passed on: to the same users, at our host.
pub(super) fn passed(response: &Response, own_host: &str) -> Response {
    let mut passed = Response::new(response.status);
    passed.reason.clone_from(&response.reason);
    for contact in response.headers.list(name::CONTACT).take(MAX_CONTACTS) {
        let Ok(parsed) = NameAddr::parse(contact) else { continue };
        if matches!(parsed.parsed_uri(), Ok(Uri::Sip(_) | Uri::Tel(_))) {
            passed.headers.push(
                name::CONTACT,
                super::offering::address_at(
                    contact,
                    super::offering::Place { host: own_host, secure: false },
                    None,
                    None,
                ),
            );
        }
    }
    passed
}

/// Whom a 3xx names, the best first.
fn contacts(env: &Environment, response: &Response) -> Vec<Target> {
    let mut found: Vec<(u16, Target)> = response
        .headers
        .list(name::CONTACT)
        .take(MAX_CONTACTS)
        .filter_map(|contact| {
            let quality = NameAddr::parse(contact).ok().map(|address| quality(address.params.get("q")))?;
            let target = Target::parse(env, contact).ok()?;
            Some((quality, Target { replaces: None, ..target }))
        })
        .collect();
    found.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    found.into_iter().map(|(_, target)| target).collect()
}

/// A `q` in thousandths (RFC 3261 §25.1); 1 where it is missing or unreadable.
fn quality(text: Option<&str>) -> u16 {
    let Some((whole, rest)) = text.map(|text| text.trim().split_once('.').unwrap_or((text.trim(), "")))
    else {
        return 1_000;
    };
    let digits = rest.len() <= 3 && rest.bytes().all(|byte| byte.is_ascii_digit());
    match (whole, format!("{rest:0<3}").parse::<u16>()) {
        ("0", Ok(thousandths)) if digits => thousandths,
        _ => 1_000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quality_is_read_in_thousandths() {
        let cases = [
            (None, 1_000),
            (Some("1"), 1_000),
            (Some("1.0"), 1_000),
            (Some("0.5"), 500),
            (Some("0"), 0),
            (Some("0.125"), 125),
            (Some("0.1256"), 1_000),
            (Some("x"), 1_000),
        ];
        for (text, thousandths) in cases {
            assert_eq!(quality(text), thousandths, "{text:?}");
        }
    }
}
