//! The hunt for a callee: whom the caller dialled, or whom a transfer or a redirection names, is called way by
//! way until somebody answers (RFC 3261 §8.1.2, §16.7; RFC 3263 §4.3).
//!
//! | of the INVITE sent last | effect |
//! |---|---|
//! | nothing within [`SILENCE_MS`], another way left | given up, CANCEL if it is heard after all (§9.1); INVITE on the next way |
//! | 503, 408, transport failure before any 18x | INVITE on the next way |
//! | any other failure; no way left | the next Contact of a 3xx ([`redirect`](super::redirect)); none left: its failure |
//! | a challenge that our account answers | the INVITE again (`again`) |
//!
//! An emergency call's, however it came to be one:
//!
//! | of an INVITE | effect |
//! |---|---|
//! | nothing within [`EMERGENCY_SILENCE_MS`], another way left | INVITE on the next way beside it |
//! | 100, and no more within [`EMERGENCY_TRYING_MS`], another way left | INVITE on the next way beside it |
//! | 18x | no further way as long as it rings |
//! | 4xx but 408, it had no offer | INVITE on the same way with one |
//! | any other failure | INVITE on the next way, unless another rings or has its time yet |
//! | any failure, no way left, nothing but silence of the others | once it has lasted [`EMERGENCY_LATE_MS`]: given up, its failure |
//! | the first 2xx | the others are given up |
//!
//! Ways stand as [`standing`](crate::standing) says. A call sends [`MAX_ATTEMPTS`] INVITEs, its transfers'
//! included; an emergency call's own are bounded by the ways there are.

use consent::{Leg, Mono};

use super::redirect::Diversions;
use super::session::Ours;
use super::{Attempt, Call, CallTimer, EndedBy, Owner, Phase, Role, TIMER_C_MS, sips};
use crate::core::{Environment, Path, Way};
use crate::standing::Sign;
use crate::transaction::TxId;
use crate::wire::{Request, Response, name};
use crate::{PeerId, Route, Transport};

/// How long an address may say nothing at all before the next one is tried. A server answers 100 within
/// 200 ms (RFC 3261 §17.2.1); three transmissions (0, 0.5 and 1.5 s) have gone out by then, and two dead
/// addresses cost a caller under 5 s.
const SILENCE_MS: u64 = 2_000;

/// The same for an emergency call: two dead trunks cost it under 4 s.
const EMERGENCY_SILENCE_MS: u64 = 1_500;

/// How long a trunk that has said nothing at all may hold up the failure of the others.
const EMERGENCY_LATE_MS: u64 = EMERGENCY_SILENCE_MS + 5_000;

/// How long a trunk may say no more than 100 to an emergency call before the next one is called as well. A
/// network sets an emergency call up within a few seconds; what is behind this trunk may be dead.
const EMERGENCY_TRYING_MS: u64 = 10_000;

/// INVITEs of ours in one call; beyond: the hunt fails as if no way were left. That is four times the ways that
/// one hunt may take; a call that goes from desk to desk needs one or two each time.
const MAX_ATTEMPTS: usize = 128;

/// Whom we look for, and where.
#[derive(Default)]
pub(super) struct Hunt {
    pub(super) route: Option<Route>,
    ways_left: Vec<Way>,
    /// The first of the attempts to reach whom those lead to.
    first_attempt: usize,
    /// Whether those lead to an emergency service.
    emergency: bool,
    last_failure: Option<Response>,
    pub(super) diversions: Diversions,
}

impl Hunt {
    /// Keeps a failure, in case that nobody has a better one.
    pub(super) fn note(&mut self, failure: Response) {
        self.last_failure = Some(failure);
    }
}

impl Attempt {
    fn new(leg: Leg, path: Path, client: TxId, branch: String, invite: Request, sent_at: Mono) -> Self {
        Self {
            leg,
            path,
            client,
            branch,
            invite,
            sent_at,
            offered: None,
            heard: false,
            ringing: false,
            finished: false,
            unwanted: false,
            cancelled: false,
            reason: None,
            raised: 0,
        }
    }

    /// Whether it may still be answered.
    const fn is_live(&self) -> bool {
        !self.finished && !self.unwanted
    }
}

impl Call {
    /// Whom to call is known: the first INVITE goes out on the best of the ways there.
    pub(super) fn hunt_on(&mut self, env: &mut Environment, route: &Route, ways: Vec<Way>, emergency: bool) {
        self.hunt.ways_left = ways;
        self.hunt.first_attempt = self.attempts.len();
        self.hunt.emergency = emergency;
        self.hunt.route = Some(route.clone());
        if env.is_emergency(&self.dialled_now()) {
            env.counters().emergency_calls += 1;
            tracing::warn!(call = %self.id, "an emergency service is called");
        }
        self.try_next_way(env);
    }

    /// Whether an INVITE is one of those that may still find whom we look for.
    pub(super) fn hunts(&self, index: usize) -> bool {
        let wanted = self.attempts.get(index).is_some_and(|attempt| !attempt.unwanted);
        wanted && index >= self.hunt.first_attempt && self.is_hunting()
    }

    pub(super) fn is_hunting(&self) -> bool {
        self.phase == Phase::Calling || self.waits_for_target()
    }

    /// Sends the INVITE on the best way that is left. Without any, and without another that is out, the hunt
    /// goes on to whom else a 3xx has named, or fails.
    fn try_next_way(&mut self, env: &mut Environment) {
        if let Some((peer, path)) = self.next_path(env) {
            return self.invite_by(env, peer, path, None);
        }
        if self.calls_somebody() && !self.gives_up_silence(env) {
            return;
        }
        let secure = self.asks_for_tls();
        let nowhere = || if secure { sips::refusal() } else { Response::new(503) };
        let failure = self.hunt.last_failure.take().unwrap_or_else(nowhere);
        self.end_hunt(env, EndedBy::Callee, &failure);
    }

    /// Whom else a 3xx has named is called; without any the call, or its transfer, fails.
    pub(super) fn end_hunt(&mut self, env: &mut Environment, by: EndedBy, failure: &Response) {
        if self.try_next_diversion(env, failure) {
            return;
        }
        if self.phase == Phase::Calling {
            self.fail(env, by, failure);
        } else {
            self.fail_transfer(env, failure);
        }
    }

    /// Whether an INVITE of this hunt may still be answered.
    fn calls_somebody(&self) -> bool {
        self.hunted().any(Attempt::is_live)
    }

    /// Gives up what an emergency call's trunks have left without any response for long enough, or sees to it
    /// that this will happen; `false` as long as one may still be answered.
    fn gives_up_silence(&mut self, env: &mut Environment) -> bool {
        if !self.hunt.emergency || self.hunted().any(|attempt| attempt.is_live() && attempt.heard) {
            return false;
        }
        let latest = self.hunted().filter(|attempt| attempt.is_live()).map(|attempt| attempt.sent_at).max();
        let silent_ms = latest.map_or(EMERGENCY_LATE_MS, |sent_at| env.now.mono.since_us(sent_at) / 1_000);
        if silent_ms < EMERGENCY_LATE_MS {
            self.arm(env, CallTimer::Silence, EMERGENCY_LATE_MS - silent_ms);
            return false;
        }
        self.give_up_hunt(env, None);
        true
    }

    fn hunted(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().skip(self.hunt.first_attempt)
    }

    /// A `sips:` asks for TLS, but for an emergency call any way is better than none.
    fn asks_for_tls(&self) -> bool {
        !self.hunt.emergency && sips::is_sips(&self.dialled_now())
    }

    /// The best way that is left.
    fn next_path(&mut self, env: &Environment) -> Option<(PeerId, Path)> {
        let (secure, emergency) = (self.asks_for_tls(), self.hunt.emergency);
        if self.attempts.len() >= MAX_ATTEMPTS && !emergency {
            return None;
        }
        while let Some(way) = env.take_best(&mut self.hunt.ways_left, emergency) {
            let path = env.path_to(way).filter(|path| !secure || path.transport == Transport::Tls);
            if let Some(path) = path {
                return Some((way.peer, path));
            }
        }
        None
    }

    /// Sends the INVITE to a peer; to whom a transfer names with this offer, if there is one.
    fn invite_by(&mut self, env: &mut Environment, peer: PeerId, mut path: Path, offered: Option<Ours>) {
        let transferred = self.phase != Phase::Calling;
        let built = if transferred {
            self.invite_of_target(env, peer, &path, offered.as_ref())
        } else {
            Some((Leg::B, self.invite_for(env, peer, &path)))
        };
        let Some((leg, mut invite)) = built else { return };
        self.introduce(env, &mut path, &mut invite);
        let passes = if transferred { "" } else { self.passes.as_str() };
        let branch = env.stamp_via_after(&path, &mut invite, passes);
        let index = self.attempts.len();
        self.emit_routed(env, leg, peer, &invite);
        self.learn_peer(env, leg, &path);
        let owner = Owner::Call(self.id, Role::Attempt(index));
        let client = env.request_with_branch(path, &invite, branch.clone(), owner);
        if transferred {
            self.await_target();
            self.arm(env, CallTimer::Transfer, TIMER_C_MS);
        } else {
            self.heard_from[leg.index()] = path.to.ip();
        }
        let attempt = Attempt::new(leg, path, client, branch, invite, env.now.mono);
        self.attempts.push(Attempt { offered, ..attempt });
        self.await_sign(env, index);
    }

    /// Gives an INVITE that opens a dialog what the peer's registrar and its challenges have asked for, and
    /// sends it to the first hop of the route if nobody of that peer has been called before.
    fn introduce(&mut self, env: &mut Environment, path: &mut Path, invite: &mut Request) {
        let first = self.hunted().all(|attempt| attempt.path.peer != path.peer);
        let way = Way::of(path);
        if env.take_service_route(path, invite, first) {
            invite.headers.set(name::CONTACT, env.contact(path, sips::is_sent_to(invite)));
        }
        if Way::of(path) != way {
            self.hunt.ways_left.insert(0, way);
        }
        env.authorize(path, invite);
    }

    /// Starts the time that the last INVITE has to draw any response.
    pub(super) fn await_sign(&mut self, env: &mut Environment, index: usize) {
        if self.is_last(index) {
            let ms = if self.hunt.emergency { EMERGENCY_SILENCE_MS } else { SILENCE_MS };
            self.arm(env, CallTimer::Silence, ms);
        }
    }

    fn is_last(&self, index: usize) -> bool {
        index + 1 == self.attempts.len()
    }

    /// A provisional response of the hunt's; `first` if nothing was heard of its INVITE before.
    pub(super) fn on_sign(&mut self, env: &mut Environment, index: usize, status: u16, first: bool) {
        if status > 100 {
            if let Some(attempt) = self.attempts.get_mut(index) {
                attempt.ringing = true;
            }
            return self.disarm(env, CallTimer::Silence);
        }
        if !self.is_last(index) {
            return;
        }
        match (self.hunt.emergency, first) {
            (false, _) => self.disarm(env, CallTimer::Silence),
            (true, true) => self.arm(env, CallTimer::Silence, EMERGENCY_TRYING_MS),
            (true, false) => {}
        }
    }

    /// The last INVITE has had its time, or those before it have: the next way is tried, if there is one.
    pub(super) fn on_silence(&mut self, env: &mut Environment) {
        let index = self.attempts.len().saturating_sub(1);
        let Some(attempt) = self.attempts.get(index).filter(|attempt| attempt.is_live()) else {
            if self.hunt.emergency && self.is_hunting() {
                self.try_next_way(env);
            }
            return;
        };
        if !attempt.heard {
            env.judge(Way::of(&attempt.path), Sign::Silent);
            env.pass_over(attempt.client);
            self.try_another_way(env, index);
        } else if self.hunts(index)
            && let Some((peer, path)) = self.next_path(env)
        {
            tracing::warn!(call = %self.id, "a trunk says no more than trying; another is called as well");
            self.invite_by(env, peer, path, None);
        }
    }

    /// A way is known to be dead: whoever waits for it waits no longer.
    pub(crate) fn on_unreachable(&mut self, env: &mut Environment, way: Way) {
        let waits = |attempt: &&Attempt| !attempt.heard && Way::of(&attempt.path) == way;
        if self.attempts.last().filter(waits).is_some() {
            self.try_another_way(env, self.attempts.len() - 1);
        }
    }

    fn try_another_way(&mut self, env: &mut Environment, silent: usize) {
        if !self.hunts(silent) {
            return;
        }
        if let Some((peer, path)) = self.next_path(env) {
            // Of an emergency call's whoever answers first is talked to, however late.
            if !self.hunt.emergency {
                self.give_up_attempt(env, silent);
            }
            self.invite_by(env, peer, path, None);
        } else if self.hunted().any(|attempt| attempt.finished) {
            self.try_next_way(env);
        }
    }

    /// An INVITE of the hunt has failed; `failover` if another way may do better.
    pub(super) fn lose_attempt(&mut self, env: &mut Environment, failure: &Response, failover: bool) {
        if !self.attempts.last().is_some_and(Attempt::is_live) {
            self.disarm(env, CallTimer::Silence);
        }
        if !self.calls_somebody() {
            self.disarm(env, CallTimer::Ringing);
        }
        if !failover && !self.hunt.emergency {
            return self.end_hunt(env, EndedBy::Callee, failure);
        }
        self.hunt.note(failure.clone());
        if !self.has_hope() {
            self.try_next_way(env);
        }
    }

    /// Whether an INVITE rings, or the last one has its time yet.
    fn has_hope(&self) -> bool {
        let timed = self.timers.iter().any(|(timer, _)| *timer == CallTimer::Silence);
        timed || self.hunted().any(|attempt| attempt.is_live() && attempt.ringing)
    }

    /// Calls whoever refused an INVITE without an offer again with one; `false` if there is nothing to offer, or
    /// it is no emergency.
    pub(super) fn offer_instead(&mut self, env: &mut Environment, refused: usize, status: u16) -> bool {
        let may = self.hunt.emergency && (400..500).contains(&status) && status != 408;
        let Some(attempt) = self.attempts.get(refused).filter(|attempt| may && attempt.offered.is_none())
        else {
            return false;
        };
        let way = Way::of(&attempt.path);
        let Some((offer, path)) = self.offer_to_target().zip(env.path_to(way)) else { return false };
        self.invite_by(env, way.peer, path, Some(offer));
        true
    }

    /// Gives up every INVITE of the hunt but one.
    pub(super) fn give_up_hunt(&mut self, env: &mut Environment, except: Option<usize>) {
        for index in self.hunt.first_attempt..self.attempts.len() {
            if Some(index) != except {
                self.give_up_attempt(env, index);
            }
        }
    }
}
