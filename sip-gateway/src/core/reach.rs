//! What is known of the peers: where each is ([`locate`](crate::locate)), and how its addresses stand
//! ([`standing`](crate::standing)), by calls and by OPTIONS pings (RFC 3261 §11).
//!
//! | of one address | happens | next |
//! |---|---|---|
//! | found, pings wanted | ping at once | Waiting |
//! | Waiting, any answer | a sign | ping after `ping_s`, if it is up; else after [`PING_DOWN_MS`], or when it is open again |
//! | Waiting, transport failed | a sign | ping after [`PING_DOWN_MS`] |
//! | Waiting, nothing for [`PING_SILENCE_MS`] | a sign; the ping is given up | ping after [`PING_DOWN_MS`] |
//! | no longer found | its ping is given up | – |
//!
//! A call takes the ways that are known when it begins; it waits for no answer, of DNS or of a ping.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use consent::{Mono, Side};

use super::{Deadline, Environment, Output, Path, TimerKey};
use crate::b2bua::Owner;
use crate::locate::{Answer, Directory, Plan, Question, Target, Unanswered};
use crate::standing::{Mute, Rank, Sign, Standing};
use crate::transaction::TxId;
use crate::wire::{Method, Request, Response, delta_seconds, name};
use crate::{Config, PeerId, Transport};

/// After four transmissions (0, 0.5, 1.5 and 3.5 s) without an answer a ping has failed.
const PING_SILENCE_MS: u64 = 4_000;

/// How soon an address that is not up is pinged again: its return is seen within seconds.
const PING_DOWN_MS: u64 = 5_000;

/// Addresses that one call may try; beyond: left out. A caller gives up long before.
const MAX_WAYS: usize = 32;

/// One address of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) peer: PeerId,
    pub(crate) target: Target,
}

impl Way {
    /// Where a path goes.
    pub(crate) const fn of(path: &Path) -> Self {
        Self { peer: path.peer, target: Target { transport: path.transport, address: path.to } }
    }
}

/// Everything known about the peers, by [`PeerId`].
pub(crate) struct Reach {
    peers: Vec<Reached>,
}

struct Reached {
    directory: Directory,
    finding: Option<TimerKey>,
    watched: BTreeMap<Target, Watched>,
    up: bool,
}

#[derive(Default)]
struct Watched {
    standing: Standing,
    mute: Mute,
    /// When the next ping goes out, or has been silent for too long.
    timer: Option<TimerKey>,
    ping: Option<TxId>,
}

impl Reach {
    pub(crate) fn new(config: &Config) -> Self {
        let reached = |peer: &crate::Peer| {
            let directory = Directory::new(peer.place.clone(), &config.listeners);
            let watched: BTreeMap<_, _> =
                directory.plan().targets().map(|target| (target, Watched::default())).collect();
            Reached { up: !watched.is_empty(), directory, finding: None, watched }
        };
        Self { peers: config.peers.iter().map(reached).collect() }
    }

    /// Whether an address was found for a peer's name.
    pub(crate) fn is_source(&self, peer: PeerId, now: Mono, ip: IpAddr) -> bool {
        self.peers.get(peer.0).is_some_and(|reached| reached.directory.is_source(now, ip))
    }

    /// Whether a peer takes calls at the port of this source, on whatever address.
    pub(crate) fn has_port(&self, peer: PeerId, source: SocketAddr) -> bool {
        let Some(reached) = self.peers.get(peer.0) else { return false };
        reached.directory.plan().targets().any(|target| target.address.port() == source.port())
    }

    /// Where a peer takes calls at this address by this transport.
    pub(crate) fn target_at(&self, peer: PeerId, ip: IpAddr, transport: Transport) -> Option<SocketAddr> {
        let mut targets = self.peers.get(peer.0)?.directory.plan().targets();
        let found = targets.find(|target| target.address.ip() == ip && target.transport == transport);
        found.map(|target| target.address)
    }

    pub(crate) fn has_found_all(&self) -> bool {
        self.peers.iter().all(|reached| !reached.directory.plan().is_empty())
    }

    pub(crate) fn is_up(&self, peer: PeerId) -> bool {
        self.peers.get(peer.0).is_some_and(|reached| reached.up)
    }

    fn rank(&self, way: &Way, now: Mono, emergency: bool) -> Rank {
        let watched = self.peers.get(way.peer.0).and_then(|reached| reached.watched.get(&way.target));
        watched.map_or(Rank::Open, |watched| match emergency {
            true => watched.mute.rank(now),
            false => watched.standing.rank(now),
        })
    }

    fn watched(&mut self, way: Way) -> Option<&mut Watched> {
        self.peers.get_mut(way.peer.0)?.watched.get_mut(&way.target)
    }
}

impl Environment {
    /// Begins to look for the peers and to ping them.
    pub(super) fn reach_out(&mut self) {
        for peer in (0..self.config.peers.len()).map(PeerId) {
            self.arm_finding(peer, Mono(0));
            let known = self.reach.peers.get(peer.0).into_iter().flat_map(|reached| reached.watched.keys());
            let targets: Vec<Target> = known.copied().collect();
            for target in targets {
                self.arm_ping(Way { peer, target }, Mono(0));
            }
        }
    }

    /// Takes what an earlier process had found.
    pub(super) fn recall(&mut self, peer: PeerId, plan: Plan) {
        if let Some(reached) = self.reach.peers.get_mut(peer.0) {
            reached.directory.recall(plan);
            self.watch(peer);
        }
    }

    /// Asks DNS whatever is due.
    pub(super) fn find(&mut self, peer: PeerId) {
        let now = self.now.mono;
        let Some(reached) = self.reach.peers.get_mut(peer.0) else { return };
        for question in reached.directory.questions(now) {
            self.transport.push(Output::Resolve { peer, question });
        }
        if let Some(next) = reached.directory.next() {
            self.arm_finding(peer, next);
        }
    }

    /// Takes what DNS says.
    pub(super) fn on_resolved(
        &mut self,
        peer: PeerId,
        question: &Question,
        answer: Result<Answer, Unanswered>,
    ) {
        let now = self.now.mono;
        let Some(reached) = self.reach.peers.get_mut(peer.0) else { return };
        if reached.directory.on_answer(now, question, answer) {
            let plan = reached.directory.plan().clone();
            self.transport.push(Output::Found { peer, plan });
            self.watch(peer);
        }
        self.find(peer);
    }

    fn arm_finding(&mut self, peer: PeerId, at: Mono) {
        let Some(reached) = self.reach.peers.get_mut(peer.0) else { return };
        if let Some(key) = reached.finding.take() {
            self.timers.disarm(key);
        }
        if reached.directory.is_named() {
            reached.finding = Some(self.timers.arm(at, Deadline::Find(peer)));
        }
    }

    /// Watches the addresses that a peer has now, and no others.
    fn watch(&mut self, peer: PeerId) {
        let Some(reached) = self.reach.peers.get_mut(peer.0) else { return };
        let targets: Vec<Target> = reached.directory.plan().targets().collect();
        let gone = reached.watched.extract_if(.., |target, _| !targets.contains(target));
        let gone: Vec<Watched> = gone.map(|(_, watched)| watched).collect();
        let new: Vec<_> =
            targets.into_iter().filter(|target| !reached.watched.contains_key(target)).collect();
        for watched in gone {
            self.unwatch(watched);
        }
        for target in new {
            if let Some(reached) = self.reach.peers.get_mut(peer.0) {
                reached.watched.insert(target, Watched::default());
            }
            self.arm_ping(Way { peer, target }, Mono(0));
        }
        self.tell_reachable(peer);
    }

    fn unwatch(&mut self, watched: Watched) {
        if let Some(key) = watched.timer {
            self.timers.disarm(key);
        }
        if let Some(ping) = watched.ping {
            let (transactions, mut ports) = self.split();
            transactions.abandon(&mut ports, ping);
        }
    }

    fn pings(&self, peer: PeerId) -> Option<u64> {
        Some(u64::from(self.config.peers.get(peer.0)?.ping_s?) * 1_000)
    }

    fn arm_ping(&mut self, way: Way, at: Mono) {
        if self.pings(way.peer).is_none() {
            return;
        }
        let key = self.timers.arm(at, Deadline::Ping(way));
        let before = self.reach.watched(way).and_then(|watched| watched.timer.replace(key));
        if let Some(key) = before {
            self.timers.disarm(key);
        }
    }

    /// The timer of an address: its ping is due, or has drawn no answer.
    pub(super) fn on_ping_timer(&mut self, way: Way) {
        let Some(watched) = self.reach.watched(way) else { return };
        watched.timer = None;
        let Some(silent) = watched.ping.take() else { return self.ping(way) };
        let (transactions, mut ports) = self.split();
        transactions.abandon(&mut ports, silent);
        self.on_ping_sign(way, Sign::Silent);
    }

    fn ping(&mut self, way: Way) {
        let Some(path) = self.path_to(way) else { return };
        let request = self.options(&path);
        let ping = self.request(path, request, Owner::Ping(way));
        if let Some(watched) = self.reach.watched(way) {
            watched.ping = Some(ping);
        }
        self.arm_ping(way, self.now.mono.plus_ms(PING_SILENCE_MS));
    }

    fn options(&mut self, path: &Path) -> Request {
        let host = self.config.host_of(path.peer);
        let mut request = Request::new(Method::OPTIONS, format!("sip:{host}"));
        let headers = &mut request.headers;
        headers.push(name::MAX_FORWARDS, "70");
        headers.push(name::FROM, format!("<sip:{}>;tag={}", self.host(path.listener), self.generator.tag()));
        headers.push(name::TO, format!("<sip:{host}>"));
        headers.push(name::CALL_ID, self.generator.call_id());
        headers.push(name::CSEQ, format!("{} OPTIONS", self.generator.sequence()));
        headers.push(name::CONTACT, self.contact(path, false));
        headers.push(name::ACCEPT, "application/sdp");
        request
    }

    /// A final response to a ping.
    pub(super) fn on_ping_answer(&mut self, way: Way, ping: TxId, response: &Response) {
        if response.status >= 200 && self.ends_ping(way, ping) {
            self.on_ping_sign(way, sign_of(response));
        }
    }

    /// A ping could not be sent.
    pub(super) fn on_ping_failed(&mut self, way: Way, ping: TxId) {
        if self.ends_ping(way, ping) {
            self.on_ping_sign(way, Sign::Unreachable);
        }
    }

    /// Whether a transaction is the ping that an address has yet to answer.
    pub(super) fn is_ping(&self, way: Way, ping: TxId) -> bool {
        let reached = self.reach.peers.get(way.peer.0);
        let watched = reached.and_then(|reached| reached.watched.get(&way.target));
        watched.is_some_and(|watched| watched.ping == Some(ping))
    }

    /// A ping was challenged and has been sent again.
    pub(super) fn pinged_again(&mut self, way: Way, ping: TxId) {
        if let Some(watched) = self.reach.watched(way) {
            watched.ping = Some(ping);
        }
    }

    fn ends_ping(&mut self, way: Way, ping: TxId) -> bool {
        self.reach.watched(way).and_then(|watched| watched.ping.take_if(|id| *id == ping)).is_some()
    }

    fn on_ping_sign(&mut self, way: Way, sign: Sign) {
        self.judge(way, sign);
        let now = self.now.mono;
        let standing = self.reach.watched(way).map(|watched| watched.standing).unwrap_or_default();
        let interval_ms = self.pings(way.peer).unwrap_or(PING_DOWN_MS);
        let soon = now.plus_ms(interval_ms.min(PING_DOWN_MS));
        let next = match standing.closed_until(now) {
            Some(until) => until.max(soon),
            None if standing.is_up() => now.plus_ms(interval_ms),
            None => soon,
        };
        self.arm_ping(way, next);
    }

    /// Takes a sign of an address.
    pub(crate) fn judge(&mut self, way: Way, sign: Sign) {
        let now = self.now.mono;
        if let Some(watched) = self.reach.watched(way) {
            watched.standing.on(now, sign);
            watched.mute.on(now, sign);
            self.tell_reachable(way.peer);
        }
    }

    /// Takes that a datagram had no way to this address. What has just ceased to be up because of it.
    pub(super) fn on_undeliverable(&mut self, to: SocketAddr) -> Vec<Way> {
        let target = Target { transport: Transport::Udp, address: to };
        let ways = (0..self.config.peers.len()).map(|index| Way { peer: PeerId(index), target });
        let good =
            |reach: &mut Reach, way| reach.watched(way).is_some_and(|watched| watched.standing.is_up());
        let fallen: Vec<Way> = ways.filter(|way| good(&mut self.reach, *way)).collect();
        for way in &fallen {
            self.judge(*way, Sign::Unreachable);
        }
        fallen
    }

    fn tell_reachable(&mut self, peer: PeerId) {
        let Some(reached) = self.reach.peers.get_mut(peer.0) else { return };
        let up = reached.watched.values().any(|watched| watched.standing.is_up());
        if up != std::mem::replace(&mut reached.up, up) {
            let name = self.config.peers.get(peer.0).map_or("", |peer| &peer.name);
            tracing::info!(peer = name, up, "a peer changed");
            self.transport.push(Output::Reachable { peer, up });
        }
    }

    /// The ways for a call to a side, in the order of its route. None is left out for how it stands.
    pub(crate) fn ways(&mut self, side: Side, emergency: bool) -> Vec<Way> {
        let mut ways: Vec<Way> = Vec::new();
        for peer in self.config.order(side, emergency) {
            ways.extend(self.ways_to(peer));
        }
        ways.truncate(MAX_WAYS);
        ways
    }

    /// The ways to one peer, in the order of its records.
    fn ways_to(&mut self, peer: PeerId) -> Vec<Way> {
        let Some(reached) = self.reach.peers.get(peer.0) else { return Vec::new() };
        let named = reached.directory.is_named();
        let targets = reached.directory.plan().order(|most| self.generator.up_to(most));
        // Where another peer talks from an address, that peer's answers could not be told from ours.
        let is_its_own = |target: &Target| !named || self.is_of(peer, target.address);
        targets.into_iter().filter(is_its_own).map(|target| Way { peer, target }).collect()
    }

    /// The best way to a peer now; of equals the last one again, or, if that `failed`, the one that follows it.
    pub(super) fn next_way(&mut self, peer: PeerId, last: Option<Way>, failed: bool) -> Option<Way> {
        let mut ways = self.ways_to(peer);
        if let Some(at) = ways.iter().position(|way| Some(*way) == last) {
            ways.rotate_left(at + usize::from(failed));
        }
        self.take_best(&mut ways, false)
    }

    /// Takes the first of the ways that stand best now.
    pub(crate) fn take_best(&self, ways: &mut Vec<Way>, emergency: bool) -> Option<Way> {
        let rank = |way| self.reach.rank(way, self.now.mono, emergency);
        let ranked = ways.iter().enumerate().min_by_key(|(_, way)| rank(way));
        let best = ranked.map(|(index, _)| index)?;
        Some(ways.remove(best))
    }
}

/// What a response says of who sent it.
pub(crate) fn sign_of(response: &Response) -> Sign {
    if response.status != 503 {
        return Sign::Answered;
    }
    let retry_after_s = response.headers.first(name::RETRY_AFTER).and_then(delta_seconds);
    Sign::Busy { retry_after_s }
}
