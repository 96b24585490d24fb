//! Our registrations with peers (RFC 3261 §10.2): one `registration` machine each, its messages and its timer.
//!
//! All REGISTERs to a peer have one Call-ID and From tag and rising sequence numbers (§10.2). What the
//! registrar grants is the way of later calls to it (RFC 3608 §6.1).

use std::sync::Arc;

use consent::Mono;

use super::{Core, Deadline, Environment, Origin, Path, StreamId, TimerKey, Way, sign_of};
use crate::b2bua::{Owner, escaped};
use crate::core::Again;
use crate::dialog::sequence_of;
use crate::registration::{Answer, Effect, Grant, Input, Registration, State};
use crate::standing::Sign;
use crate::transaction::{Report, TxId};
use crate::wire::{Method, NameAddr, Request, Response, Uri, name};
use crate::{Account, PeerId};

/// One peer with which we register.
struct Entry {
    peer: PeerId,
    machine: Registration,
    call_id: String,
    tag: String,
    sequence: u32,
    /// What the last REGISTER asked for, for which Contact, and where it went; `None` where the peer has not
    /// been found, or no listener reaches it.
    asked_s: u32,
    contact: String,
    way: Option<Way>,
    /// Whether that one was not granted.
    failed: bool,
    /// The transaction of the last REGISTER.
    client: Option<TxId>,
    /// The stream on which the registrar was last heard.
    stream: Option<StreamId>,
    timer: Option<TimerKey>,
}

/// All of them.
pub(super) struct Registrations(Vec<Entry>);

impl Registrations {
    /// Every one that the configuration asks for, due at once.
    pub(super) fn begin(env: &mut Environment) -> Self {
        let config = Arc::clone(&env.config);
        let wanted = config.peers.iter().enumerate().filter_map(|(index, peer)| {
            let expires_s = peer.account.as_ref()?.register_s?;
            Some((PeerId(index), expires_s))
        });
        let entry = |(peer, expires_s)| Entry {
            peer,
            machine: Registration::new(expires_s),
            call_id: env.generator.call_id(),
            tag: env.generator.tag(),
            sequence: env.generator.sequence(),
            asked_s: expires_s,
            contact: String::new(),
            way: None,
            failed: false,
            client: None,
            stream: None,
            timer: Some(env.timers.arm(Mono(0), Deadline::Registration(peer))),
        };
        Self(wanted.map(entry).collect())
    }

    fn of(&mut self, peer: PeerId) -> Option<&mut Entry> {
        self.0.iter_mut().find(|entry| entry.peer == peer)
    }
}

impl Core {
    /// The peers with which we are to be registered, and whether we are at this time.
    pub fn registrations(&self, now: Mono) -> impl Iterator<Item = (PeerId, bool)> {
        self.registrations.0.iter().map(move |entry| (entry.peer, entry.machine.grant(now).is_some()))
    }

    /// Whether a registrar has yet to answer that we are gone.
    pub fn is_unregistering(&self) -> bool {
        self.registrations
            .0
            .iter()
            .any(|entry| !matches!(entry.machine.state(), State::Idle | State::Waiting | State::Registered))
    }

    pub(super) fn unregister(&mut self) {
        let peers: Vec<PeerId> = self.registrations.0.iter().map(|entry| entry.peer).collect();
        for peer in peers {
            self.on_registration(peer, Input::Leave);
        }
    }

    pub(super) fn on_registrars_stream_lost(&mut self, stream: StreamId) {
        let hit = |entry: &mut Entry| entry.stream.take_if(|last| *last == stream).map(|_| entry.peer);
        let peers: Vec<PeerId> = self.registrations.0.iter_mut().filter_map(hit).collect();
        for peer in peers {
            self.on_registration(peer, Input::StreamLost);
        }
    }

    /// A response to a REGISTER.
    pub(super) fn on_registrar(&mut self, peer: PeerId, client: TxId, origin: Origin, response: &Response) {
        let Some(entry) = self.registrations.of(peer) else { return };
        if response.status < 200 || entry.client != Some(client) {
            return;
        }
        // One that only stood in for a datagram does not carry the registration.
        let meant = entry.way.is_some_and(|way| way.target.transport == origin.transport);
        entry.stream = origin.stream.filter(|_| meant);
        let uri = NameAddr::parse(&entry.contact).map_or("", |contact| contact.uri);
        let answer = Answer::read(response, uri, entry.asked_s);
        if let Some(way) = entry.way {
            self.env.judge(way, sign_of(response));
        }
        self.on_registration(peer, Input::Answered(answer));
    }

    /// A REGISTER drew no answer.
    pub(super) fn on_registrar_silent(&mut self, peer: PeerId, report: Report) {
        let sign = match report {
            Report::TimedOut => Sign::Silent,
            Report::Unreachable => Sign::Unreachable,
        };
        if let Some(way) = self.registrations.of(peer).and_then(|entry| entry.way) {
            self.env.judge(way, sign);
        }
        self.on_registration(peer, Input::Unanswered);
    }

    /// DNS has said something of a peer: one that waits only to be found waits no longer.
    pub(super) fn on_registrar_found(&mut self, peer: PeerId) {
        let lost = |entry: &&mut Entry| entry.way.is_none();
        if self.registrations.of(peer).filter(lost).is_some()
            && self.env.next_way(peer, None, false).is_some()
        {
            self.on_registration(peer, Input::Due);
        }
    }

    /// The first REGISTER to a peer, or the wait for it to be found.
    pub(super) fn on_registration_due(&mut self, peer: PeerId) {
        let found = self.env.next_way(peer, None, false).is_some();
        let Some(entry) = self.registrations.of(peer) else { return };
        if found || entry.machine.state() != State::Idle {
            return self.on_registration(peer, Input::Due);
        }
        entry.timer = None;
        let name = self.env.config.peers.get(peer.0).map_or("", |peer| peer.name.as_str());
        tracing::warn!(peer = name, "not registered: the peer is not found yet, or no listener reaches it");
    }

    /// A REGISTER was challenged and has been sent again.
    pub(super) fn registered_again(&mut self, peer: PeerId, again: &Again) {
        let Some(entry) = self.registrations.of(peer) else { return };
        entry.client = Some(again.client);
        entry.sequence = sequence_of(&again.request.headers).unwrap_or(entry.sequence);
    }

    pub(super) fn on_registration(&mut self, peer: PeerId, input: Input) {
        let Self { registrations, env, .. } = self;
        let Some(entry) = registrations.of(peer) else { return };
        let status = match &input {
            Input::Answered(answer) => Some(answer.status),
            _ => None,
        };
        let was = entry.machine.grant(env.now.mono).is_some();
        let answered = matches!(input, Input::Answered(_) | Input::Unanswered);
        let draw = env.generator.draw();
        let Some(effect) = entry.machine.on(env.now.mono, draw, input) else { return };
        if answered {
            entry.failed = entry.machine.state() == State::Waiting;
        }
        entry.report(env, was, status, effect);
        if !entry.perform(env, effect) {
            return self.on_registration(peer, Input::Unanswered);
        }
        let grant = entry.machine.grant(env.now.mono);
        match grant.map(|grant| grant.service_route.clone()).filter(|routes| !routes.is_empty()) {
            Some(routes) => env.service_routes.insert(peer, routes),
            None => env.service_routes.remove(&peer),
        };
    }
}

impl Entry {
    /// `false` if there is no way to the registrar.
    fn perform(&mut self, env: &mut Environment, effect: Effect) -> bool {
        if let Some(timer) = self.timer.take() {
            env.timers.disarm(timer);
        }
        match effect {
            Effect::Register { expires_s } => return self.register(env, expires_s),
            Effect::Wait { ms } => self.wake(env, ms),
            Effect::Rest => {}
        }
        true
    }

    fn wake(&mut self, env: &mut Environment, ms: u64) {
        let at = env.now.mono.plus_ms(ms);
        self.timer = Some(env.timers.arm(at, Deadline::Registration(self.peer)));
    }

    fn register(&mut self, env: &mut Environment, expires_s: u32) -> bool {
        self.asked_s = expires_s;
        self.sequence = self.sequence.saturating_add(1);
        self.way = env.next_way(self.peer, self.way, self.failed);
        let Some(path) = self.way.and_then(|way| env.path_to(way)) else { return false };
        let Some(request) = self.request(env, &path) else { return false };
        self.client = Some(env.request(path, request, Owner::Registration(self.peer)));
        true
    }

    /// RFC 3261 §10.2.
    fn request(&mut self, env: &Environment, path: &Path) -> Option<Request> {
        let peer = env.config.peers.get(self.peer.0)?;
        let account = peer.account.as_ref()?;
        self.contact = env.contact_of(&format!("{}@", escaped(&account.username)), path, false);
        let host = peer.place.host_port();
        let record = address_of_record(account, &host);
        let mut request = Request::new(Method::REGISTER, format!("sip:{host}"));
        let headers = &mut request.headers;
        headers.push(name::MAX_FORWARDS, "70");
        headers.push(name::FROM, format!("{record};tag={}", self.tag));
        headers.push(name::TO, record);
        headers.push(name::CALL_ID, self.call_id.clone());
        headers.push(name::CSEQ, format!("{} REGISTER", self.sequence));
        headers.push(name::CONTACT, self.contact.clone());
        headers.push(name::EXPIRES, self.asked_s.to_string());
        headers.push(name::SUPPORTED, "path");
        Some(request)
    }

    /// Says what an operator wants to know: who is registered, and when one is not.
    fn report(&self, env: &Environment, was: bool, status: Option<u16>, effect: Effect) {
        let peer = env.config.peers.get(self.peer.0).map_or("", |peer| peer.name.as_str());
        match (self.machine.state(), effect) {
            (State::Registered, _) => {
                let Some(Grant { expires_s, service_route, path }) = self.machine.grant(env.now.mono) else {
                    return;
                };
                let (routes, paths) = (service_route.len(), path.len());
                if was {
                    tracing::debug!(peer, expires_s, routes, paths, "registration refreshed");
                } else {
                    tracing::info!(peer, expires_s, routes, paths, "registered");
                }
            }
            (State::Waiting, Effect::Wait { ms }) => {
                tracing::warn!(peer, status, wait_s = ms / 1_000, "not registered; tried again later");
            }
            (State::Idle, _) if was => tracing::info!(peer, status, "registration ended"),
            _ => {}
        }
    }
}

impl Environment {
    /// Sends the first request of a dialog the way that the peer's registrar asked for (RFC 3608 §6.1), and
    /// `there` at once: to its first hop, if the peer talks from that address. A call to which that hop has
    /// not answered tries the peer's other addresses.
    /// Whether there is such a way.
    pub(crate) fn take_service_route(&self, path: &mut Path, request: &mut Request, there: bool) -> bool {
        let Some(routes) = self.service_routes.get(&path.peer) else { return false };
        for route in routes {
            request.headers.push(name::ROUTE, route.clone());
        }
        if let Some(Ok(first)) = routes.first().map(|route| NameAddr::parse(route)).filter(|_| there) {
            self.aim(path, first.uri);
        }
        true
    }
}

/// `<sip:user@host>`, without port (RFC 3261 §10.2: a canonical form).
fn address_of_record(account: &Account, host: &str) -> String {
    let uri = format!("sip:{}@{host}", escaped(&account.username));
    match Uri::parse(&uri) {
        Ok(Uri::Sip(parsed)) => format!("<sip:{}@{}>", escaped(&account.username), parsed.host),
        _ => format!("<{uri}>"),
    }
}
