//! Session timers (RFC 4028), on each leg for itself: the length of a session, who refreshes it, and its end.
//!
//! Asked of us (we are the UAS; §9, table 2):
//!
//! | §  | INVITE or UPDATE | 2xx of ours |
//! |---|---|---|
//! | 8, 9 | Session-Expires below our Min-SE, `Supported: timer` | 422 with Min-SE instead |
//! | 9 | `timer`, with or without Session-Expires; refresher none or `uac` | refresher `uac`, Require |
//! | 9 | `timer`, refresher `uas` | refresher `uas`, Require |
//! | 9 | no `timer`, but a Session-Expires (a proxy's) | refresher `uas` |
//! | 9 | neither, but we refresh already | refresher `uas` |
//! | 9 | neither | none: the session does not expire |
//!
//! The interval is the one asked for or ours, whichever is shorter, and no shorter than its Min-SE.
//!
//! Asked by us (we are the UAC; §7):
//!
//! | § | input | effect |
//! |---|---|---|
//! | 7.1 | INVITE to B | `Supported: timer`, Session-Expires, Min-SE |
//! | 7.2 | 2xx with Session-Expires | its interval; we refresh unless it says `uas` |
//! | 7.2 | 2xx without | the session does not expire |
//! | 7.3 | 422 to an INVITE, up to [`MAX_RAISES`] times | the same again with its Min-SE |
//! | 7.4 | INVITE or UPDATE inside | Session-Expires as it is, and who refreshes |
//!
//! Afterwards:
//!
//! | § | state | input | effect |
//! |---|---|---|---|
//! | 10 | we refresh | half the interval | as [`refreshing`] says |
//! | 9 | any | INVITE or UPDATE that says nothing new | answered here with what was said last; not passed on |
//! | 10 | any | INVITE or UPDATE that something else is in the way of (491, 500) | the time until the end begins anew |
//! | 10 | any | a failure but 408 and 481 of a transfer's re-INVITE | the same |
//! | 10 | any | no refresh until the interval less a third of it, 32 s at most | BYE to both, `session expired` |
//! | 10 | a transfer's re-INVITE is under way there | the same | its answer is waited for |
//!
//! What puts the end off is our own rule: §10 ends a session whose far end has gone, and one that asks or
//! answers has not.
//!
//! An emergency call has no timer of ours: whatever its ends agree on passes between them, and only they
//! end it. Nor does a timer end a call that has been transferred or redirected to an emergency service.

mod refreshing;

use consent::Leg;

use super::asking::Asked;
use super::calling::from_of;
use super::session;
use super::{Acceptance, Call, CallTimer, EndedBy, Owner, Phase, Role};
use crate::core::{DialogPlace, Environment};
use crate::dialog::sequence_of;
use crate::transaction::{T1_MS, TxId};
use crate::wire::{Headers, Method, Request, Response, SessionExpires, delta_seconds, name};
use crate::{Cause, End, SessionTimer};

/// The option tag.
pub(crate) const OPTION: &str = "timer";

/// The shortest interval there is (§4).
const SHORTEST_S: u32 = 90;

/// The longest that a 422 may make us ask for: a day.
const LONGEST_S: u32 = 86_400;

/// How often a 422 may make us ask again, once for each proxy on the way.
const MAX_RAISES: u8 = 5;

/// What the end of a session comes before its expiry, at most (§10).
const MARGIN_S: u32 = 32;

/// How long a refresh waits for what is in its way, or after its failure.
const RETRY_MS: u64 = 10_000;

/// What two ends have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    interval_s: u32,
    /// Whether the refreshes are ours.
    ours: bool,
}

/// A leg's session.
#[derive(Debug, Default)]
pub(super) struct Timing {
    agreed: Option<Agreed>,
    /// Whether the far end takes UPDATE.
    takes_update: bool,
    /// The longest Min-SE that it has shown.
    least_s: u32,
    refresh: Option<Asked>,
}

impl Timing {
    /// Takes in a 2xx to an INVITE or UPDATE of ours.
    pub(super) fn agree(&mut self, response: &Headers) {
        self.learn_methods(response);
        self.agreed = wanted_by(response).map(|wanted| Agreed {
            interval_s: wanted.interval_s.clamp(SHORTEST_S, LONGEST_S),
            ours: wanted.refresher_is_uac != Some(false),
        });
    }

    /// Whether the far end takes UPDATE.
    pub(super) const fn takes_update(&self) -> bool {
        self.takes_update
    }

    /// Whether a refresh of ours waits for its answer.
    pub(super) const fn is_refreshing(&self) -> bool {
        self.refresh.is_some()
    }

    fn learn_methods(&mut self, headers: &Headers) {
        if headers.contains(name::ALLOW) {
            self.takes_update = headers.has_token(name::ALLOW, "UPDATE");
        }
    }
}

fn wanted_by(headers: &Headers) -> Option<SessionExpires> {
    headers.first(name::SESSION_EXPIRES).and_then(SessionExpires::parse)
}

fn least_of(headers: &Headers) -> u32 {
    headers.first(name::MIN_SE).and_then(delta_seconds).unwrap_or(SHORTEST_S).clamp(SHORTEST_S, LONGEST_S)
}

/// 422, if a request asks for too short a session and understands the answer (§9).
pub(crate) fn refusal(policy: SessionTimer, request: &Request) -> Option<Response> {
    let wanted = wanted_by(&request.headers)?;
    let refuses = matches!(request.method, Method::INVITE | Method::UPDATE)
        && wanted.interval_s < policy.min_s
        && request.headers.has_token(name::SUPPORTED, OPTION);
    refuses.then(|| {
        let mut refusal = Response::new(422);
        refusal.headers.push(name::MIN_SE, policy.min_s.to_string());
        refusal
    })
}

/// Asks for a session timer in a new INVITE of ours.
pub(super) fn ask(policy: SessionTimer, headers: &mut Headers) {
    headers.push(name::SUPPORTED, OPTION);
    if policy.expires_s > 0 {
        headers.push(name::SESSION_EXPIRES, policy.expires_s.to_string());
        headers.push(name::MIN_SE, policy.min_s.to_string());
    }
}

/// What is answered to a request that asks this of us while that is agreed on (§9).
fn negotiate(policy: SessionTimer, request: &Headers, agreed: Option<Agreed>) -> Option<Agreed> {
    let supports = request.has_token(name::SUPPORTED, OPTION);
    let wanted = wanted_by(request);
    let ours = policy.expires_s.max(least_of(request));
    let interval_s = match &wanted {
        Some(wanted) if policy.expires_s == 0 => wanted.interval_s,
        Some(wanted) => wanted.interval_s.min(ours),
        None if supports && policy.expires_s > 0 => ours,
        None => agreed.filter(|agreed| agreed.ours)?.interval_s,
    };
    let theirs = supports && wanted.and_then(|wanted| wanted.refresher_is_uac).unwrap_or(true);
    Some(Agreed { interval_s: interval_s.max(SHORTEST_S), ours: !theirs })
}

/// When a session that is not refreshed ends, in seconds.
const fn expiry_s(interval_s: u32) -> u32 {
    let third = interval_s / 3;
    interval_s - if third < MARGIN_S { third } else { MARGIN_S }
}

impl Call {
    /// Puts the session timer into a 2xx of ours to an INVITE or UPDATE, and starts it.
    pub(super) fn answer_timer(
        &mut self,
        env: &mut Environment,
        leg: Leg,
        request: &Request,
        reply: &mut Response,
    ) {
        if self.is_emergency() || !is_refresh(&request.method) {
            return;
        }
        let timing = &mut self.timings[leg.index()];
        timing.learn_methods(&request.headers);
        timing.least_s = timing.least_s.max(least_of(&request.headers));
        let agreed = negotiate(env.config.session_timer, &request.headers, timing.agreed);
        timing.agreed = agreed;
        if let Some(agreed) = agreed {
            let refresher = if agreed.ours { "uas" } else { "uac" };
            if request.headers.has_token(name::SUPPORTED, OPTION) {
                reply.headers.push(name::REQUIRE, OPTION);
            }
            let value = format!("{};refresher={refresher}", agreed.interval_s);
            reply.headers.push(name::SESSION_EXPIRES, value);
        }
        self.start_session(env, leg);
    }

    /// Takes in the session timer of a 2xx to an INVITE or UPDATE of ours.
    pub(super) fn take_timer(&mut self, env: &mut Environment, leg: Leg, response: &Headers) {
        if self.is_emergency() {
            return;
        }
        self.timings[leg.index()].agree(response);
        self.start_session(env, leg);
    }

    /// Puts the session timer into an INVITE or UPDATE of ours within a dialog.
    pub(super) fn keep_timer(&self, env: &Environment, leg: Leg, request: &mut Request) {
        let timing = &self.timings[leg.index()];
        let Some(agreed) = timing.agreed.filter(|_| is_refresh(&request.method)) else { return };
        let refresher = if agreed.ours { "uac" } else { "uas" };
        let headers = &mut request.headers;
        headers.push(name::SUPPORTED, OPTION);
        headers.push(name::SESSION_EXPIRES, format!("{};refresher={refresher}", agreed.interval_s));
        headers.push(name::MIN_SE, timing.least_s.max(env.config.session_timer.min_s).to_string());
    }

    /// Somebody else is at a leg now.
    pub(super) fn forget_timing(&mut self, env: &mut Environment, leg: Leg) {
        drop(self.lend_timing(env, leg));
    }

    /// A leg's session goes to another call with its far end.
    pub(super) fn lend_timing(&mut self, env: &mut Environment, leg: Leg) -> Timing {
        self.disarm(env, CallTimer::Expiry(leg));
        let refreshing = self.stop_refreshing(env, leg);
        if refreshing.is_some_and(|refresh| refresh.invites()) {
            drop(self.session.refuse());
        }
        std::mem::take(&mut self.timings[leg.index()])
    }

    /// And comes back.
    pub(super) fn take_timing(&mut self, env: &mut Environment, leg: Leg, timing: Timing) {
        self.timings[leg.index()] = timing;
        self.start_session(env, leg);
    }

    /// A session has been refreshed, or has begun.
    fn start_session(&mut self, env: &mut Environment, leg: Leg) {
        self.disarm(env, CallTimer::Refresh(leg));
        self.disarm(env, CallTimer::Expiry(leg));
        let Some(agreed) = self.timings[leg.index()].agreed else { return };
        let interval_ms = u64::from(agreed.interval_s) * 1_000;
        self.arm(env, CallTimer::Expiry(leg), u64::from(expiry_s(agreed.interval_s)) * 1_000);
        if agreed.ours {
            self.arm(env, CallTimer::Refresh(leg), interval_ms / 2);
        }
    }

    /// The call ends under our refreshes.
    pub(super) fn stop_sessions(&mut self, env: &mut Environment) {
        for leg in Leg::BOTH {
            self.disarm(env, CallTimer::Expiry(leg));
            self.stop_refreshing(env, leg);
        }
    }

    /// Nobody has refreshed a leg's session, unless a transfer's re-INVITE does.
    pub(super) fn on_expiry(&mut self, env: &mut Environment, leg: Leg) {
        if self.exchange_of_ours() == Some(leg.other()) {
            return self.arm(env, CallTimer::Expiry(leg), RETRY_MS);
        }
        self.expire(env, leg);
    }

    /// A request that would have refreshed a session is refused because something is in its way.
    pub(super) fn hear_refresh(
        &mut self,
        env: &mut Environment,
        place: DialogPlace,
        request: &Request,
        refusal: &Response,
    ) {
        let crossed = matches!(refusal.status, 491 | 500) && is_refresh(&request.method);
        if crossed && self.answered == Some(place.fork) {
            self.put_off_expiry(env, place.leg);
        }
    }

    /// A far end has shown that it lives.
    pub(super) fn put_off_expiry(&mut self, env: &mut Environment, leg: Leg) {
        let running = self.timers.iter().any(|(timer, _)| *timer == CallTimer::Expiry(leg));
        if let Some(agreed) = self.timings[leg.index()].agreed.filter(|_| running) {
            self.arm(env, CallTimer::Expiry(leg), u64::from(expiry_s(agreed.interval_s)) * 1_000);
        }
    }

    /// Nobody has refreshed a leg's session.
    pub(super) fn expire(&mut self, env: &mut Environment, leg: Leg) {
        if self.phase != Phase::Answered || self.over[leg.index()] || self.calls_for_help {
            return;
        }
        tracing::debug!(call = %self.id, ?leg, "session expired");
        let end = End {
            by: Some(EndedBy::Gateway),
            final_status: Some(200),
            cancelled: false,
            cause: Some(Cause::SessionExpired),
        };
        self.finish(env, end, None, Some("SIP;cause=408;text=\"session expired\""));
    }

    /// Answers a request that only refreshes its leg's session; `false` if it says anything new.
    pub(super) fn absorbs(
        &mut self,
        env: &mut Environment,
        place: DialogPlace,
        server: TxId,
        request: &Request,
    ) -> bool {
        if !self.only_refreshes(place, request) {
            return false;
        }
        if let Some(dialog) = self.dialog(place.fork, place.leg) {
            dialog.refresh_target(env, &request.headers);
        }
        self.observe(env, place.leg, &request.headers, from_of(&request.headers));
        let mut accepted = Response::new(200);
        if !request.body.is_empty() {
            accepted.headers.push(name::CONTENT_TYPE, "application/sdp");
            accepted.body = self.session.ours(place.leg).sent().clone();
        }
        let path = self.way_to(place.leg).unwrap_or(self.back);
        let mut reply = self.reply(env, request, &path, &self.tag, &accepted, None);
        self.answer_timer(env, place.leg, request, &mut reply);
        if request.method == Method::UPDATE {
            env.respond(server, &reply);
            return true;
        }
        let sequence = sequence_of(&request.headers).unwrap_or_default();
        self.accept(
            env,
            Acceptance {
                from: place.leg,
                sequence,
                other_sequence: sequence,
                server,
                client: server,
                response: reply,
                interval_ms: T1_MS,
                credentials: Headers::new(),
                settled: true,
            },
        );
        true
    }

    /// Whether a request asks for nothing but more time: in a session that has a timer or asks for one, the
    /// same party with the same description, or an UPDATE without any.
    pub(super) fn only_refreshes(&self, place: DialogPlace, request: &Request) -> bool {
        let leg = place.leg;
        let timed =
            self.timings[leg.index()].agreed.is_some() || request.headers.contains(name::SESSION_EXPIRES);
        if !timed || self.answered != Some(place.fork) || self.is_emergency() || !is_refresh(&request.method)
        {
            return false;
        }
        let same = match session::find(&request.headers, &request.body) {
            Ok(Some(found)) => {
                found.is_whole(&request.body)
                    && !self.session.ours(leg).sent().is_empty()
                    && self.session.repeats(leg, &found, &request.body)
            }
            Ok(None) => request.method == Method::UPDATE && request.body.is_empty(),
            Err(_) => false,
        };
        same && !self.far_ends[leg.index()].clone().observe(&request.headers, from_of(&request.headers))
    }

    /// Sends an INVITE that was too short of time again, with the Min-SE of its 422 (§7.3).
    pub(super) fn invites_for_longer(
        &mut self,
        env: &mut Environment,
        index: usize,
        failure: &Response,
    ) -> bool {
        if failure.status != 422 || self.is_emergency() {
            return false;
        }
        let wanted = failure.headers.first(name::MIN_SE).and_then(delta_seconds);
        let Some(least_s) = wanted.filter(|least_s| *least_s <= LONGEST_S) else { return false };
        let leg = match self.attempts.get(index) {
            Some(attempt) if attempt.unwanted || attempt.raised >= MAX_RAISES => return false,
            Some(attempt) => {
                let asked = wanted_by(&attempt.invite.headers).map_or(0, |asked| asked.interval_s);
                if asked >= least_s {
                    return false;
                }
                attempt.leg
            }
            None => return false,
        };
        let Some(attempt) = self.attempts.get_mut(index) else { return false };
        let headers = &mut attempt.invite.headers;
        let sequence = sequence_of(headers).unwrap_or_default().saturating_add(1);
        headers.set(name::CSEQ, format!("{sequence} INVITE"));
        headers.set(name::SESSION_EXPIRES, least_s.to_string());
        headers.set(name::MIN_SE, least_s.to_string());
        attempt.raised += 1;
        attempt.heard = false;
        attempt.branch = env.stamp_via_again(&attempt.path, &mut attempt.invite);
        let owner = Owner::Call(self.id, Role::Attempt(index));
        attempt.client =
            env.request_with_branch(attempt.path, &attempt.invite, attempt.branch.clone(), owner);
        for fork in self.forks.iter_mut().filter(|fork| fork.attempt == Some(index)) {
            let dialog = &mut fork.dialogs[leg.index()];
            dialog.local_seq = dialog.local_seq.max(sequence);
        }
        self.await_sign(env, index);
        true
    }
}

/// Whether a request refreshes a session, if it is accepted (§3).
fn is_refresh(method: &Method) -> bool {
    matches!(*method, Method::INVITE | Method::UPDATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: SessionTimer = SessionTimer { expires_s: 1_800, min_s: 90 };

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(name, *value);
        }
        headers
    }

    #[test]
    fn the_rows_of_table_2() {
        let timer = ("Supported", "replaces, timer");
        let ours = |interval_s| Some(Agreed { interval_s, ours: true });
        let theirs = |interval_s| Some(Agreed { interval_s, ours: false });
        type Case<'a> = (&'a [(&'a str, &'a str)], Option<Agreed>, Option<Agreed>);
        let cases: [Case<'_>; 10] = [
            (&[timer, ("Session-Expires", "600")], None, theirs(600)),
            (&[timer, ("x", "600;refresher=uac")], None, theirs(600)),
            (&[timer, ("Session-Expires", "600 ; refresher=UAS")], None, ours(600)),
            (&[timer, ("Session-Expires", "7200")], None, theirs(1_800)),
            (&[timer, ("Session-Expires", "7200"), ("Min-SE", "3600")], None, theirs(3_600)),
            (&[timer], None, theirs(1_800)),
            (&[("Session-Expires", "600")], None, ours(600)),
            (&[("Session-Expires", "600;refresher=uac")], None, ours(600)),
            (&[], ours(500), ours(500)),
            (&[], theirs(500), None),
        ];
        for (fields, before, after) in cases {
            assert_eq!(negotiate(POLICY, &headers(fields), before), after, "{fields:?}");
        }
    }

    #[test]
    fn a_policy_without_a_timer_leaves_it_to_the_peer() {
        let policy = SessionTimer { expires_s: 0, ..POLICY };
        let timer = ("Supported", "timer");
        assert_eq!(negotiate(policy, &headers(&[timer]), None), None);
        let agreed = negotiate(policy, &headers(&[timer, ("Session-Expires", "7200")]), None);
        assert_eq!(agreed, Some(Agreed { interval_s: 7_200, ours: false }));
        let mut asked = Headers::new();
        ask(policy, &mut asked);
        assert_eq!((asked.first("Supported"), asked.first("Session-Expires")), (Some("timer"), None));
    }

    #[test]
    fn a_session_ends_a_third_or_32_s_before_it_expires() {
        for (interval_s, ends_s) in [(90, 60), (96, 64), (100, 68), (1_800, 1_768)] {
            assert_eq!(expiry_s(interval_s), ends_s);
        }
    }
}
