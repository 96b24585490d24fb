//! Requests that cross (RFC 3261 §14.1, §14.2; RFC 3311 §5.2).
//!
//! | § | a leg's request | while pending | answer |
//! |---|---|---|---|
//! | 3261 14.2 | INVITE, UPDATE with an offer | an INVITE or offer of the same leg | 500 with Retry-After of 0 to 10 s |
//! | 3261 14.2 | INVITE, UPDATE with an offer | one of the other leg's, or of ours on either leg | 491 |
//! | 3311 5.2 | UPDATE | an UPDATE of the same leg | 500 with Retry-After of 0 to 10 s |
//!
//! | § | 491 to | effect |
//! |---|---|---|
//! | 3261 14.1 | a request passed on | passed back: whoever began it waits, and tries again |
//! | 3261 14.1 | a re-INVITE of ours, the Call-ID is ours | again after 2.1 to 4 s, in steps of 10 ms |
//! | 3261 14.1 | a re-INVITE of ours, the Call-ID is theirs | again after 0 to 2 s, in steps of 10 ms |

use consent::Leg;

use super::Call;
use super::session::has_description;
use crate::core::{DialogPlace, Environment};
use crate::wire::{Method, Request, Response, name};

/// The longest Retry-After.
const RETRY_AFTER_S: u32 = 10;

/// After a 491 the owner of the Call-ID waits this long at least.
const OWNER_MS: u64 = 2_100;

/// Steps beyond that, and of whoever does not own it; each of [`STEP_MS`].
const OWNER_STEPS: u32 = 190;
const OTHER_STEPS: u32 = 200;
const STEP_MS: u64 = 10;

impl Call {
    /// The refusal of a request that crosses another.
    pub(super) fn judge_glare(
        &self,
        env: &mut Environment,
        place: DialogPlace,
        request: &Request,
    ) -> Option<Response> {
        let updating = |relay: &super::Relay| {
            relay.request.method == Method::UPDATE && (relay.from, relay.fork) == (place.leg, place.fork)
        };
        let pending = match request.method {
            Method::UPDATE if self.relays.iter().any(updating) => Some(place.leg),
            Method::INVITE => self.invite_pending(),
            Method::UPDATE if has_description(&request.headers, &request.body) => {
                self.exchange_of_ours().or(self.indicating()).or(self.session_of(place.fork).offerer())
            }
            _ => None,
        };
        match pending {
            Some(_) if self.offers_itself() => Some(Response::new(491)),
            Some(offerer) if offerer == place.leg => Some(retry_later(env)),
            Some(_) => Some(Response::new(491)),
            None => None,
        }
    }

    /// How long a re-INVITE of ours to this leg waits after a 491.
    pub(super) fn glare_wait_ms(&mut self, env: &mut Environment, leg: Leg) -> u64 {
        let dialog = self.answered.and_then(|fork| self.dialog(fork, leg));
        let owns_call_id = dialog.is_some_and(|dialog| dialog.owns_call_id);
        wait_ms(env, owns_call_id)
    }

    /// Whose INVITE, or offer in an UPDATE, is not through yet.
    pub(super) fn invite_pending(&self) -> Option<Leg> {
        self.indicating().or_else(|| self.exchange_pending())
    }

    /// The same, but for what tells a leg of recording.
    pub(super) fn exchange_pending(&self) -> Option<Leg> {
        if self.answered.is_none() {
            return Some(Leg::A);
        }
        if let Some(leg) = self.exchange_of_ours() {
            return Some(leg);
        }
        let unacknowledged = self.acceptance.as_ref().map(|acceptance| acceptance.from);
        let relayed = self.relays.iter().find(|relay| relay.request.method == Method::INVITE);
        unacknowledged.or(relayed.map(|relay| relay.from)).or(self.session.offerer())
    }
}

/// 500 to a request whose sender has another one pending.
pub(super) fn retry_later(env: &mut Environment) -> Response {
    let mut response = Response::new(500);
    response.headers.push(name::RETRY_AFTER, env.generator.up_to(RETRY_AFTER_S).to_string());
    response
}

/// How long to wait after a 491.
fn wait_ms(env: &mut Environment, owns_call_id: bool) -> u64 {
    if owns_call_id {
        OWNER_MS + STEP_MS * u64::from(env.generator.up_to(OWNER_STEPS))
    } else {
        STEP_MS * u64::from(env.generator.up_to(OTHER_STEPS))
    }
}
