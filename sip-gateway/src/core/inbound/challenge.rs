//! Peers that have to prove themselves (RFC 3261 §22.1, §22.2).
//!
//! | request | challenged |
//! |---|---|
//! | ACK, CANCEL | never: they cannot be sent again |
//! | BYE, INFO, NOTIFY, OPTIONS, PRACK | never: they add nothing to a call, and a call must be able to end |
//! | REFER | until its credentials are good: it calls somebody else |
//! | of an emergency form, an answering point's call-back, or inside either's call | never |
//! | anything else, inside a dialog or not | until its credentials are good |
//!
//! A challenge takes no transaction (§8.2.7): the client repeats what is lost, and its ACK is dropped.

use super::{Arrival, Core};
use crate::dialog::DialogId;
use crate::digest::Verdict;
use crate::emergency::Urgency;
use crate::wire::{Method, Response, name};

impl Core {
    /// Whether the request was answered with a challenge.
    pub(super) fn challenged(&mut self, arrival: &Arrival) -> bool {
        let peer = arrival.origin.peer;
        if !self.env.challenges(peer) || self.is_exempt(arrival) {
            return false;
        }
        let verdict = self.env.verdict_on(peer, &arrival.request);
        if verdict == Verdict::Proven {
            return false;
        }
        self.env.counters().challenged += 1;
        if verdict == Verdict::Wrong {
            self.env.counters().refused_credentials += 1;
        }
        let mut response = Response::to(&arrival.request.headers, 401);
        for challenge in self.env.challenge(peer, verdict == Verdict::Stale) {
            response.headers.push(name::WWW_AUTHENTICATE, challenge);
        }
        self.send(arrival, response);
        true
    }

    fn is_exempt(&self, arrival: &Arrival) -> bool {
        match arrival.request.method {
            Method::ACK | Method::CANCEL => true,
            Method::BYE | Method::INFO | Method::NOTIFY | Method::OPTIONS | Method::PRACK => true,
            Method::REFER => false,
            _ if arrival.has_to_tag() => self.is_inside_emergency(arrival),
            _ => self.env.urgency(arrival.origin.peer, &arrival.request) != Urgency::None,
        }
    }

    fn is_inside_emergency(&self, arrival: &Arrival) -> bool {
        let place = DialogId::of_request(&arrival.request.headers).and_then(|id| self.env.dialogs.get(&id));
        place.and_then(|place| self.calls.get(&place.call)).is_some_and(|call| call.serves_emergency())
    }
}
