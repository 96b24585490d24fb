//! The sans-IO core: one entry each for bytes, commands and time, one queue of what to do.
//!
//! A message takes this way (RFC 3261 §18.1.2, §18.2.1, §17, §8.2, §12.2): source check, codec,
//! transaction, dialog, and then the back-to-back user agent. Nothing is shared and nothing waits; the
//! same seed and the same inputs give the same outputs.

mod admission;
mod authentication;
mod counters;
mod environment;
mod generator;
mod inbound;
mod io;
mod keep_alive;
mod ladder;
mod loops;
mod peers;
mod reach;
mod registrations;
mod timers;
mod transport;

pub use admission::{Excess, Refusal};
pub use counters::Counters;
pub use io::{Input, Output, StreamId};

pub(crate) use admission::Admitted;
pub(crate) use authentication::Again;
pub(crate) use environment::{Deadline, DialogPlace, Environment};
#[cfg(test)]
pub(crate) use generator::Generator;
pub(crate) use generator::MAGIC_COOKIE;
pub(crate) use reach::{Reach, Way, sign_of};
pub(crate) use timers::{TimerKey, Timers};
pub(crate) use transport::{Lost, Origin, Path, Ports, TransportLayer};

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use consent::{CallId, Mono, Now};

use crate::b2bua::{Call, Owner};
use crate::locate::Plan;
use crate::standing::Sign;
use crate::transaction::{Heard, Report, TxId};
use crate::wire::{Frame, Message, ParseError, Request, Response, Via, name, parse_datagram, stamp_source};
use crate::{Command, Config, ListenerId, Offer, PeerId, Transport};
use registrations::Registrations;

/// Tells the calls of dispatch lines from others by what is offered.
type IsDispatch = Box<dyn Fn(&Offer) -> bool + Send>;

/// The back-to-back user agent and all below it, without I/O and clock.
pub struct Core {
    calls: HashMap<CallId, Call>,
    env: Environment,
    is_dispatch: IsDispatch,
    registrations: Registrations,
    draining: bool,
    overloaded: bool,
}

impl Core {
    /// A core with no calls. All identifiers come from `seed`, which must be unpredictable in service.
    /// `is_dispatch` knows the calls that no limit refuses; it is asked of each that is no emergency call,
    /// before its media are read and any room is taken.
    pub fn new(
        config: Arc<Config>,
        seed: [u8; 32],
        is_dispatch: impl Fn(&Offer) -> bool + Send + 'static,
    ) -> Self {
        let mut env = Environment::new(config, seed);
        let registrations = Registrations::begin(&mut env);
        Self {
            calls: HashMap::new(),
            env,
            is_dispatch: Box::new(is_dispatch),
            registrations,
            draining: false,
            overloaded: false,
        }
    }

    /// Takes what came from the network.
    pub fn on_input(&mut self, now: Now, input: Input) {
        self.env.set_now(now);
        match input {
            Input::Datagram { listener, from, bytes } => self.on_datagram(listener, from, &bytes),
            Input::StreamOpened { stream, listener, from } => self.on_stream_opened(stream, listener, from),
            Input::StreamReady { stream, certified } => self.on_stream_ready(stream, &certified),
            Input::StreamBytes { stream, bytes } => self.on_stream_bytes(stream, &bytes),
            Input::StreamClosed { stream } => self.on_stream_closed(stream),
            Input::Undeliverable { to } => self.on_undeliverable(to),
            Input::Resolved { peer, question, answer } => {
                self.env.on_resolved(peer, &question, answer);
                self.on_registrar_found(peer);
            }
        }
    }

    /// Takes an instruction of the hub.
    pub fn on_command(&mut self, now: Now, command: Command) {
        self.env.set_now(now);
        match command {
            Command::Proceed { call, route, media } => {
                self.with_call(call, |call, env| call.proceed(env, &route, media));
            }
            Command::Divert { call, route } => {
                self.with_call(call, |call, env| call.proceed_diverted(env, &route));
            }
            Command::Replace { call, record } => {
                self.with_call(call, |call, env| call.proceed_replacing(env, record));
            }
            Command::Refuse { call, status, text, retry_after_s } => {
                self.with_call(call, |call, env| call.refuse(env, status, text, retry_after_s));
            }
            Command::End { call, text } => self.with_call(call, |call, env| call.end(env, text)),
            Command::SwallowInfoDigits { call, leg, swallow } => {
                self.with_call(call, |call, _| call.swallow_info_digits(leg, swallow));
            }
            Command::Indicate { call, recording } => {
                self.with_call(call, |call, env| call.indicate(env, recording));
            }
            Command::Drain => self.draining = true,
            Command::Leave => self.unregister(),
        }
    }

    /// Says whether more waits to be taken than can be: then ordinary calls get 503 with Retry-After.
    pub const fn set_overloaded(&mut self, overloaded: bool) {
        self.overloaded = overloaded;
    }

    /// Lets time pass: everything due at `now` happens.
    pub fn on_timeout(&mut self, now: Now) {
        self.env.set_now(now);
        while let Some(deadline) = self.env.timers.pop_due(now.mono) {
            match deadline {
                Deadline::Transaction(fired) => {
                    let (transactions, mut ports) = self.env.split();
                    if let Some((id, owner, report)) = transactions.on_timer(&mut ports, fired) {
                        self.on_report(owner, id, report);
                    }
                }
                Deadline::Find(peer) => self.env.find(peer),
                Deadline::Ladder(call) => self.env.tell_ladder(call),
                Deadline::Ping(way) => self.env.on_ping_timer(way),
                Deadline::Call(call, timer) => self.with_call(call, |call, env| call.on_timer(env, timer)),
                Deadline::StreamIdle(stream) | Deadline::StreamInstead(stream) => self.close_stream(stream),
                Deadline::KeepAlive(stream) => self.on_keep_alive(stream),
                Deadline::Registration(peer) => self.on_registration_due(peer),
            }
        }
    }

    /// When [`Self::on_timeout`] is next due.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.env.timers.next()
    }

    /// What to do next, in order. Poll until `None` after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.env.transport.pop()
    }

    /// Takes what [`Output::Found`] told an earlier process, until DNS has been heard: so a start does not
    /// need DNS either.
    pub fn recall(&mut self, now: Now, peer: PeerId, plan: Plan) {
        self.env.set_now(now);
        self.env.recall(peer, plan);
    }

    /// Tells what is new of every call's ladder: the process is about to end.
    pub fn tell_ladders(&mut self) {
        for call in self.env.transport.ladders.calls() {
            self.env.tell_ladder(call);
        }
    }

    /// Whether it is known of every peer where it is.
    pub fn has_found_peers(&self) -> bool {
        self.env.reach.has_found_all()
    }

    /// Whether calls can be expected to reach a peer: it has been found, and one of its addresses at least
    /// has shown nothing bad since it last answered.
    pub fn is_up(&self, peer: PeerId) -> bool {
        self.env.reach.is_up(peer)
    }

    /// Calls that have not ended.
    pub fn calls(&self) -> usize {
        self.env.live_calls
    }

    /// What has been counted.
    pub fn counters(&self) -> Counters {
        Counters {
            transactions: self.env.transactions.len(),
            dialogs: self.env.dialogs.len(),
            timers: self.env.timers.len(),
            calls_lingering: self.calls.len().saturating_sub(self.env.live_calls),
            ..self.env.transport.counters
        }
    }

    /// How much has been refused to each peer, and why.
    pub fn refusals(&self) -> impl Iterator<Item = (PeerId, Refusal, u64)> {
        self.env.admission.refusals()
    }

    fn on_datagram(&mut self, listener: ListenerId, from: SocketAddr, bytes: &Bytes) {
        let Some(peer) = self.env.peer_of(from, &[]) else {
            self.env.counters().dropped_unknown_source += 1;
            return;
        };
        let origin = Origin { peer, listener, source: from, transport: Transport::Udp, stream: None };
        match parse_datagram(bytes, &self.env.config.limits) {
            Ok(message) => self.on_message(origin, message),
            Err(error) => self.on_parse_error(origin, error),
        }
    }

    fn on_stream_opened(&mut self, stream: StreamId, listener: ListenerId, from: SocketAddr) {
        let secure =
            self.env.config.listeners.get(listener.0).is_some_and(|own| own.transport == Transport::Tls);
        if !secure {
            return self.take_stream(stream, listener, from, Transport::Tcp, &[]);
        }
        if self.env.may_be_a_peers(from) {
            self.env.transport.shake(stream, listener, from);
        } else {
            self.refuse_stream(stream);
        }
    }

    fn on_stream_ready(&mut self, stream: StreamId, certified: &[String]) {
        if let Some((listener, from)) = self.env.transport.shaken(stream) {
            return self.take_stream(stream, listener, from, Transport::Tls, certified);
        }
        let interval_ms = self.keep_alive_interval_ms();
        self.env.transport.connected(stream, interval_ms, self.env.now.mono, &mut self.env.timers);
    }

    /// An accepted stream becomes its peer's.
    fn take_stream(
        &mut self,
        stream: StreamId,
        listener: ListenerId,
        source: SocketAddr,
        transport: Transport,
        certified: &[String],
    ) {
        let Some(peer) = self.env.peer_of(source, certified) else {
            return self.refuse_stream(stream);
        };
        let origin = Origin { peer, listener, source, transport, stream: Some(stream) };
        let (now, timers) = (self.env.now.mono, &mut self.env.timers);
        self.env.transport.open(stream, origin, !certified.is_empty(), now, timers);
    }

    fn refuse_stream(&mut self, stream: StreamId) {
        self.env.counters().dropped_unknown_source += 1;
        self.env.counters().closed_streams += 1;
        self.env.transport.push(Output::CloseStream { stream });
    }

    fn on_keep_alive(&mut self, stream: StreamId) {
        let interval_ms = self.keep_alive_interval_ms();
        let (now, timers) = (self.env.now.mono, &mut self.env.timers);
        if !self.env.transport.keep_alive(stream, interval_ms, now, timers) {
            self.close_stream(stream);
        }
    }

    fn keep_alive_interval_ms(&mut self) -> u64 {
        keep_alive::INTERVAL_MS + u64::from(self.env.generator.up_to(keep_alive::SPREAD_MS))
    }

    fn on_stream_bytes(&mut self, stream: StreamId, bytes: &Bytes) {
        let now = self.env.now.mono;
        if self.env.transport.feed(stream, bytes) {
            let interval_ms = self.keep_alive_interval_ms();
            self.env.transport.put_off_keep_alive(stream, interval_ms, now, &mut self.env.timers);
        }
        while let Some((origin, frame)) = self.env.transport.next_frame(stream, now, &mut self.env.timers) {
            match frame {
                Frame::Message(message) => self.on_message(origin, message),
                Frame::Ping => {
                    let bytes = Bytes::from_static(keep_alive::PONG);
                    self.env.transport.push(Output::Stream { stream, bytes });
                }
                Frame::Refused(error) => self.on_parse_error(origin, error),
                Frame::Broken(error) => {
                    self.on_parse_error(origin, error);
                    self.close_stream(stream);
                }
            }
        }
    }

    fn close_stream(&mut self, stream: StreamId) {
        let lost = self.env.transport.close(stream, self.env.now.mono, &mut self.env.timers);
        self.on_stream_lost(stream, lost);
    }

    fn on_stream_closed(&mut self, stream: StreamId) {
        if self.env.transport.is_inside(stream) {
            self.env.counters().dropped_malformed += 1;
        }
        let lost = self.env.transport.forget(stream, self.env.now.mono, &mut self.env.timers);
        self.on_stream_lost(stream, lost);
    }

    fn on_stream_lost(&mut self, stream: StreamId, lost: Lost) {
        if lost == Lost::Unknown {
            return;
        }
        let (transactions, mut ports) = self.env.split();
        for (id, owner, report) in transactions.on_stream_closed(&mut ports, stream, lost) {
            self.on_report(owner, id, report);
        }
        self.on_registrars_stream_lost(stream);
    }

    /// A transaction has failed.
    fn on_report(&mut self, owner: Owner, id: TxId, report: Report) {
        match owner {
            Owner::Ping(way) => self.env.on_ping_failed(way, id),
            Owner::Registration(peer) => self.on_registrar_silent(peer, report),
            Owner::Nobody | Owner::Call(..) => {
                self.report(owner, |call, env, role| call.on_report(env, role, id, report));
            }
        }
    }

    /// A datagram had no way to this address: calls that wait for it to answer need not wait.
    fn on_undeliverable(&mut self, to: SocketAddr) {
        for way in self.env.on_undeliverable(to) {
            let mut calls: Vec<CallId> = self.calls.keys().copied().collect();
            calls.sort_unstable();
            for call in calls {
                self.with_call(call, |call, env| call.on_unreachable(env, way));
            }
        }
    }

    /// RFC 3261 §8.2 and §16.3 leave it to us; what cannot be answered is counted.
    fn on_parse_error(&mut self, origin: Origin, error: ParseError) {
        let ParseError::Refuse { answer, .. } = error else {
            self.env.counters().dropped_malformed += 1;
            return;
        };
        if self.env.take_request(origin).is_err() {
            self.env.counters().dropped_malformed += 1;
            return self.env.admission.refused(origin.peer, Refusal::Flood);
        }
        self.env.counters().refused_malformed += 1;
        let mut answer: Response = *answer;
        let Some(via) = answer.headers.first(name::VIA).map(str::to_owned) else { return };
        let Ok(sender) = Via::first(&via).or_else(|_| Via::sent_by(&via)) else { return };
        let mut path = origin.reply_path(&sender);
        answer.headers.remove_first(name::VIA);
        answer.headers.prepend(name::VIA, stamp_source(&via, origin.source));
        self.env.add_to_tag(&mut answer.headers);
        self.env.transport.send(&mut path, answer.to_bytes());
    }

    fn on_message(&mut self, origin: Origin, message: Message) {
        self.env.transport.ladders.received(origin.peer, &message);
        match message {
            Message::Request(request) => {
                self.env.counters().requests_in += 1;
                self.on_request(origin, request);
            }
            Message::Response(response) => {
                self.env.counters().responses_in += 1;
                self.on_response(origin, response);
            }
        }
    }

    fn on_response(&mut self, origin: Origin, response: Response) {
        let (transactions, mut ports) = self.env.split();
        let found = transactions.on_response(&mut ports, origin.peer, response.status, &response.headers);
        match found {
            Some(heard) if heard.news => self.on_news(origin, heard, response),
            Some(_) => self.env.counters().absorbed_responses += 1,
            None => self.env.counters().dropped_stray_response += 1,
        }
    }

    fn on_news(&mut self, origin: Origin, heard: Heard<Owner>, response: Response) {
        if matches!(response.status, 401 | 407) && self.answer_challenge(origin, &heard, &response.headers) {
            return self.env.judge(Way::of(&heard.path), Sign::Answered);
        }
        let Heard { id, owner, .. } = heard;
        match owner {
            Owner::Ping(way) => self.env.on_ping_answer(way, id, &response),
            Owner::Registration(peer) => self.on_registrar(peer, id, origin, &response),
            Owner::Nobody | Owner::Call(..) => {
                self.report(owner, |call, env, role| call.on_response(env, role, id, origin, response));
            }
        }
    }

    fn on_request(&mut self, origin: Origin, request: Request) {
        let offered = origin.stream.filter(|_| offers_stream(&request));
        let Some(arrival) = inbound::Arrival::new(origin, request) else {
            self.env.counters().dropped_malformed += 1;
            return;
        };
        if let Some(stream) = offered {
            self.env.transport.alias(stream);
        }
        self.on_arrival(arrival);
    }
}

/// Whether a request's sender takes requests on the stream on which it came (RFC 5923 §5).
fn offers_stream(request: &Request) -> bool {
    let via = request.headers.first(name::VIA).and_then(|via| Via::first(via).ok());
    via.is_some_and(|via| via.params.contains("alias"))
}
