//! What the gateway would have made of a captured INVITE: its own core and hub are asked, without sockets.
//!
//! Every peer is believed to be who its address says: a capture holds no key to prove it by.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use consent::{CallId, Decision, Direction, GateState, LineClass, Mono, Now, Wall};
use recorder::Command as MediaCommand;
use serde::Serialize;
use sip_gateway::{Command, Core, Event, Input, ListenerId, Output};
use storage::{CallStarted, Entry};

use crate::config::Config;
use crate::hub::{self, Hub};

/// What would have become of a call.
#[derive(Debug, Serialize)]
#[serde(tag = "judged", rename_all = "kebab-case")]
pub(crate) enum Judgement {
    /// Who sends it is no configured peer, and would have got no answer.
    Stranger,
    /// The INVITE would have been refused without a call.
    Refused {
        /// With which status.
        status: u16,
    },
    /// It would have been a call.
    Call(Box<Finding>),
}

/// A call, and what the rules say at its answer.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// The peer that it comes from.
    pub(crate) peer: String,
    pub(crate) direction: Direction,
    pub(crate) emergency: bool,
    pub(crate) line: Option<String>,
    pub(crate) line_name: Option<String>,
    pub(crate) line_class: LineClass,
    /// The decision at the answer.
    pub(crate) decision: Option<Verdict>,
}

/// A decision about the gate.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) gate: GateState,
    pub(crate) basis: Option<consent::Basis>,
    pub(crate) clause: String,
    pub(crate) rule_version: consent::RuleVersion,
    pub(crate) reason: consent::Reason,
    pub(crate) sentence: &'static str,
    pub(crate) otherwise: String,
}

/// Any address will do: nothing is sent.
const RELAY: ([u8; 4], u16) = ([127, 0, 0, 1], 1);

/// Asks the gateway about an INVITE.
pub(super) fn judge(config: &Config, from: SocketAddr, invite: &Bytes, at: Wall) -> Judgement {
    let now = Now { mono: Mono(0), wall: at };
    let mut gateway = config.gateway.clone();
    for peer in &mut gateway.peers {
        (peer.account, peer.certificate, peer.ping_s) = (None, None, None);
    }
    let rules = config.rules.clone();
    let is_dispatch = move |offer: &_| hub::is_dispatch(offer, &rules);
    let mut core = Core::new(Arc::new(gateway), [0; 32], is_dispatch);
    core.on_input(now, Input::Datagram { listener: ListenerId(0), from, bytes: invite.clone() });
    if core.counters().dropped_unknown_source > 0 {
        return Judgement::Stranger;
    }
    let mut status = 0;
    while let Some(output) = core.poll_output() {
        match output {
            Output::Event(Event::Offered(offer)) => {
                let peer = config.gateway.peers.get(offer.peer.0).map(|peer| peer.name.clone());
                return Asked::new(config, now).about(peer.unwrap_or_default(), offer);
            }
            Output::Datagram { bytes, .. } => status = status_of(&bytes).unwrap_or(status),
            _ => {}
        }
    }
    Judgement::Refused { status }
}

/// A hub to be asked.
struct Asked<'a> {
    config: &'a Config,
    now: Now,
    hub: Hub,
    started: Option<CallStarted>,
    decision: Option<Decision>,
}

impl<'a> Asked<'a> {
    fn new(config: &'a Config, now: Now) -> Self {
        let hub = Hub::new(config.node.clone(), Arc::new(config.rules.clone()));
        Self { config, now, hub, started: None, decision: None }
    }

    fn about(mut self, peer: String, offer: Box<sip_gateway::Offer>) -> Judgement {
        let (call, emergency) = (offer.call, offer.emergency);
        self.hub.on_gateway(self.now, Event::Offered(offer));
        self.hub.on_media(self.now, recorder::Event::Bound { call, addresses: vec![[RELAY.into(); 2]] });
        self.hub.on_journalled(self.now, call);
        self.perform(call, emergency);
        self.hub.on_gateway(self.now, Event::Answered { call });
        self.perform(call, emergency);
        let Some(started) = self.started else { return Judgement::Refused { status: 500 } };
        let known = self.config.rules.lines().iter().find(|line| Some(&line.number) == started.line.as_ref());
        Judgement::Call(Box::new(Finding {
            peer,
            direction: started.direction,
            emergency,
            line: started.line.as_ref().map(|line| line.as_str().to_owned()),
            line_name: known.map(|line| line.name.clone()),
            line_class: started.line_class,
            decision: self.decision.map(Verdict::from),
        }))
    }

    /// Plays everybody whom the hub speaks to: the first peer of the other side takes the call.
    fn perform(&mut self, call: CallId, emergency: bool) {
        let mut inputs = VecDeque::new();
        loop {
            while let Some(output) = self.hub.poll_output() {
                match output {
                    hub::Output::Journal { stamped, .. } => match stamped.entry {
                        Entry::CallStarted(started) => self.started = Some(*started),
                        Entry::Decided { decision, .. } => self.decision = Some(decision),
                        _ => {}
                    },
                    hub::Output::Gateway(Command::Proceed { route, .. }) => {
                        let first = self.config.gateway.order(route.side, emergency).first().copied();
                        let peer = first.and_then(|id| Some((id, self.config.gateway.peers.get(id.0)?)));
                        inputs.extend(peer.map(|(id, peer)| {
                            Heard::Gateway(Event::Routed {
                                call,
                                peer: id,
                                side: route.side,
                                sip_call_id: String::new(),
                                parties_signalled: peer.parties_signalled,
                            })
                        }));
                    }
                    hub::Output::Media(MediaCommand::StartPreamble { epoch, .. }) => {
                        inputs.push_back(Heard::Media(recorder::Event::PreambleStarted { call, epoch }));
                    }
                    _ => {}
                }
            }
            match inputs.pop_front() {
                Some(Heard::Gateway(event)) => self.hub.on_gateway(self.now, event),
                Some(Heard::Media(event)) => self.hub.on_media(self.now, event),
                None => return,
            }
        }
    }
}

enum Heard {
    Gateway(Event),
    Media(recorder::Event),
}

impl From<Decision> for Verdict {
    fn from(decision: Decision) -> Self {
        let Decision { gate, basis, clause, rule_version, reason, otherwise, .. } = decision;
        Self { gate, basis, clause, rule_version, reason, sentence: reason.sentence(), otherwise }
    }
}

fn status_of(response: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(response.get(..11)?).ok()?;
    line.strip_prefix("SIP/2.0 ")?.parse().ok()
}
