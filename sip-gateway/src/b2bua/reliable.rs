//! Reliable provisional responses (RFC 3262), on each leg for itself.
//!
//! We offer `100rel` to B where A takes part in it, or where A's INVITE holds an offer: an offer of B's in a
//! reliable response could not be answered for an A that knows no PRACK.
//!
//! | A | B's 18x | to A | PRACK to B |
//! |---|---|---|---|
//! | does not take part | reliable | as it is | ours, at once |
//! | supports | plain | plain | |
//! | supports, requires | reliable | reliably, under an RSeq of ours | A's, with its offer or answer |
//! | requires | plain | reliably | none: A's PRACK gets 200 |
//!
//! Each early dialog has its own state on both legs:
//!
//! | § | input | effect |
//! |---|---|---|
//! | 3 | 18x to be passed on reliably, none unacknowledged | sent, repeated after T1, 2*T1, 4*T1 … |
//! | 3 | the same, one unacknowledged | waits, up to [`MAX_WAITING`] |
//! | 3 | PRACK of A that matches | answered or passed on; the next one is sent |
//! | 3 | PRACK of A that matches nothing | 481 |
//! | 3 | no PRACK for 64*T1 | 504 to A, CANCEL (or ACK and BYE) to B |
//! | 3 | 2xx of B, a description unacknowledged | held back until its PRACK |
//! | 3 | 2xx of B otherwise, final failure | sent; nothing is repeated, a late PRACK still gets its answer |
//! | 4 | B's RSeq is the first, or one more than the last | taken |
//! | 4 | B's RSeq is any other, or too many wait | dropped without PRACK: B sends it again |
//!
//! Left out: reliable provisional responses to re-INVITEs (none is sent, which satisfies a Require), and an
//! offer in a PRACK where B's own response was not reliable (488).

use std::collections::VecDeque;

use consent::Leg;

use super::session::has_description;
use super::{Call, CallTimer, EndedBy, Owner, Phase};
use crate::core::{DialogPlace, Environment};
use crate::dialog::sequence_of;
use crate::transaction::{T1_64_MS, T1_MS, TxId};
use crate::wire::{Headers, Method, Request, Response, name};

/// The option tag.
pub(super) const OPTION: &str = "100rel";

/// Provisional responses of one early dialog that wait for a PRACK before them.
const MAX_WAITING: usize = 8;

/// What has been said reliably in one early dialog.
#[derive(Default)]
pub(super) struct Reliability {
    /// The last RSeq of B's that was taken, and of ours to A.
    heard: Option<u32>,
    said: Option<u32>,
    unacknowledged: Option<Unacknowledged>,
    waiting: VecDeque<Provisional>,
}

struct Provisional {
    reply: Response,
    /// The RSeq of B's for whose PRACK A's stands.
    theirs: Option<u32>,
}

struct Unacknowledged {
    rseq: u32,
    provisional: Provisional,
    interval_ms: u64,
    waited_ms: u64,
}

/// A 2xx that waits for the PRACK of the description before it.
pub(super) struct Held {
    pub(super) attempt: usize,
    pub(super) fork: usize,
    pub(super) response: Response,
}

impl Provisional {
    fn describes(&self) -> bool {
        !self.reply.body.is_empty()
    }
}

impl Reliability {
    /// Whether A would get a 2xx before a description that belongs before it.
    pub(super) fn holds_back(&self) -> bool {
        let sent = self.unacknowledged.iter().map(|sent| &sent.provisional);
        sent.chain(&self.waiting).any(Provisional::describes)
    }

    /// Whether A has been given a description reliably, or will be.
    fn has_said(&self) -> bool {
        self.said.is_some()
    }
}

/// What B's RSeq says of its provisional response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is not reliable.
    Plain,
    /// It is, and the next one.
    Next(u32),
    /// It has come before, or before its time.
    OutOfOrder,
}

impl Call {
    /// Whether A takes part in reliability, and whether it insists on it.
    pub(super) fn caller_takes_pracks(&self) -> bool {
        self.invite.headers.has_token(name::SUPPORTED, OPTION) || self.caller_wants_pracks()
    }

    fn caller_wants_pracks(&self) -> bool {
        self.invite.headers.has_token(name::REQUIRE, OPTION)
    }

    /// Whether what A acknowledges in this early dialog is ours. In an emergency call that is so only where it
    /// was none yet.
    pub(super) fn takes_pracks(&self, fork: usize) -> bool {
        !self.is_emergency() || self.forks.get(fork).is_some_and(|fork| fork.reliability.has_said())
    }

    /// Says to B that we know PRACK, where we could use it.
    pub(super) fn offer_reliability(&self, headers: &mut Headers) {
        if !self.caller_takes_pracks() && !has_description(&self.invite.headers, &self.invite.body) {
            return;
        }
        headers.push(name::SUPPORTED, OPTION);
        if let Some(allow) = headers.first(name::ALLOW).filter(|allow| !allow.contains("PRACK")) {
            let with = format!("{allow}, PRACK");
            headers.set(name::ALLOW, with);
        }
    }

    /// Takes in the RSeq of a provisional response of B's. One that we have not offered to take is plain.
    pub(super) fn hear(&mut self, attempt: usize, fork: usize, response: &Headers) -> Heard {
        let offered = self
            .attempts
            .get(attempt)
            .is_some_and(|attempt| attempt.invite.headers.has_token(name::SUPPORTED, OPTION));
        let rseq = response.first(name::RSEQ).and_then(|rseq| rseq.trim().parse::<u32>().ok());
        let reliable = offered && !self.is_emergency() && response.has_token(name::REQUIRE, OPTION);
        let (Some(rseq), Some(fork), true) = (rseq, self.forks.get_mut(fork), reliable) else {
            return Heard::Plain;
        };
        let state = &mut fork.reliability;
        let in_order = state.heard.is_none_or(|last| last.checked_add(1) == Some(rseq));
        if !in_order || state.waiting.len() >= MAX_WAITING {
            return Heard::OutOfOrder;
        }
        state.heard = Some(rseq);
        Heard::Next(rseq)
    }

    /// Whether an exchange of descriptions in B's provisional response is final on both legs.
    pub(super) fn settles_early(&self, heard: Heard, response: &Headers) -> bool {
        if self.is_emergency() {
            return response.contains(name::RSEQ) && response.has_token(name::REQUIRE, OPTION);
        }
        matches!(heard, Heard::Next(_)) && self.caller_takes_pracks()
    }

    /// Passes a provisional response of B's on to A, and acknowledges it where A will not.
    pub(super) fn pass_provisional(
        &mut self,
        env: &mut Environment,
        fork: usize,
        response: &Response,
        heard: Heard,
    ) {
        let Some(tag) = self.forks.get(fork).map(|fork| fork.id(Leg::A).local_tag.clone()) else { return };
        let reply = self.reply(env, &self.invite, &self.back, &tag, response, self.end_in(fork, Leg::B));
        let theirs = match heard {
            Heard::Next(rseq) => Some(rseq),
            Heard::Plain | Heard::OutOfOrder => None,
        };
        let takes_part = !self.is_emergency() && self.caller_takes_pracks();
        if !takes_part || (theirs.is_none() && !self.caller_wants_pracks()) {
            env.respond(self.server, &reply);
            if let Some(rseq) = theirs {
                self.acknowledge_provisional(env, fork, rseq);
            }
            return;
        }
        let Some(state) = self.forks.get_mut(fork).map(|fork| &mut fork.reliability) else { return };
        let provisional = Provisional { reply, theirs };
        if state.unacknowledged.is_some() {
            if state.waiting.len() < MAX_WAITING {
                state.waiting.push_back(provisional);
            }
            return;
        }
        self.say_reliably(env, fork, provisional);
    }

    fn say_reliably(&mut self, env: &mut Environment, fork: usize, mut provisional: Provisional) {
        let first = env.generator.sequence();
        let Some(state) = self.forks.get_mut(fork).map(|fork| &mut fork.reliability) else { return };
        let rseq = state.said.map_or(first, |last| last.saturating_add(1));
        state.said = Some(rseq);
        provisional.reply.headers.push(name::REQUIRE, OPTION);
        provisional.reply.headers.push(name::RSEQ, rseq.to_string());
        env.respond(self.server, &provisional.reply);
        state.unacknowledged = Some(Unacknowledged { rseq, provisional, interval_ms: T1_MS, waited_ms: 0 });
        self.arm(env, CallTimer::Provisional(fork), T1_MS);
    }

    /// Our own PRACK to B (§4).
    fn acknowledge_provisional(&mut self, env: &mut Environment, fork: usize, rseq: u32) {
        let Some(sequence) = self.invite_sequence(fork, Leg::B) else { return };
        let Some(dialog) = self.dialog(fork, Leg::B) else { return };
        let (mut prack, path) = (dialog.request(Method::PRACK), dialog.path);
        prack.headers.push(name::MAX_FORWARDS, "70");
        prack.headers.push(name::RACK, format!("{rseq} {sequence} INVITE"));
        env.request(path, prack, Owner::Nobody);
    }

    /// The next repetition of a reliable response is due, or its time is over.
    pub(super) fn repeat_provisional(&mut self, env: &mut Environment, fork: usize) {
        let server = self.server;
        let state = self.forks.get_mut(fork).map(|fork| &mut fork.reliability);
        let Some(sent) = state.and_then(|state| state.unacknowledged.as_mut()) else { return };
        sent.waited_ms += sent.interval_ms;
        if sent.waited_ms >= T1_64_MS {
            return self.fail(env, EndedBy::Gateway, &Response::new(504));
        }
        env.respond(server, &sent.provisional.reply);
        sent.interval_ms = (sent.interval_ms * 2).min(T1_64_MS - sent.waited_ms);
        // The wait that only fills up the 64*T1 sends nothing at its end.
        let wait_ms = sent.interval_ms;
        self.arm(env, CallTimer::Provisional(fork), wait_ms);
    }

    /// A PRACK of A's, which has passed the checks of every request.
    pub(super) fn on_prack(
        &mut self,
        env: &mut Environment,
        place: DialogPlace,
        server: TxId,
        prack: Request,
    ) {
        let Some(provisional) = self.take_acknowledged(place, &prack.headers) else {
            return self.answer(env, server, &prack, Response::new(481));
        };
        self.disarm(env, CallTimer::Provisional(place.fork));
        match provisional.theirs {
            Some(rseq) => {
                let sequence = self.invite_sequence(place.fork, Leg::B).unwrap_or_default();
                let rack = format!("{rseq} {sequence} INVITE");
                self.relay(env, place, server, prack, Some(rack));
            }
            None => {
                let status = if has_description(&prack.headers, &prack.body) { 488 } else { 200 };
                self.answer(env, server, &prack, Response::new(status));
            }
        }
        self.go_on_after_prack(env, place.fork);
    }

    /// A PRACK after the call's end, for what was not acknowledged before (§3).
    pub(super) fn takes_late_prack(&mut self, place: DialogPlace, prack: &Request) -> bool {
        prack.method == Method::PRACK && self.take_acknowledged(place, &prack.headers).is_some()
    }

    fn take_acknowledged(&mut self, place: DialogPlace, prack: &Headers) -> Option<Provisional> {
        let rack = prack.first(name::RACK)?;
        let mut words = rack.split_ascii_whitespace();
        let named = (words.next()?.parse().ok()?, words.next()?.parse().ok(), words.next()?);
        let invite = sequence_of(&self.invite.headers);
        if place.leg != Leg::A || named.1 != invite || named.2 != "INVITE" || words.next().is_some() {
            return None;
        }
        let state = &mut self.forks.get_mut(place.fork)?.reliability;
        state.unacknowledged.take_if(|sent| sent.rseq == named.0).map(|sent| sent.provisional)
    }

    fn go_on_after_prack(&mut self, env: &mut Environment, fork: usize) {
        if self.phase != Phase::Calling {
            return;
        }
        let state = self.forks.get_mut(fork).map(|fork| &mut fork.reliability);
        if let Some(next) = state.and_then(|state| state.waiting.pop_front()) {
            self.say_reliably(env, fork, next);
        }
        let free = self.forks.get(fork).is_some_and(|fork| !fork.reliability.holds_back());
        if let Some(held) = self.held_answer.take_if(|held| held.fork == fork && free) {
            self.win(env, held.attempt, held.fork, held.response);
        }
    }

    /// Nothing is repeated any more: a final response is on its way.
    pub(super) fn stop_repeating(&mut self, env: &mut Environment) {
        for fork in 0..self.forks.len() {
            self.disarm(env, CallTimer::Provisional(fork));
        }
        for fork in &mut self.forks {
            fork.reliability.waiting.clear();
        }
    }

    /// Whether A got the answer to its offer reliably in this early dialog, so that it may not come again.
    pub(super) fn was_answered_reliably(&self, fork: usize, answer: &[u8]) -> bool {
        let Some(fork) = self.forks.get(fork) else { return false };
        let same = fork.early_answer.as_ref().is_some_and(|early| early.body == answer);
        same && fork.reliability.has_said() && self.caller_wants_pracks()
    }
}
