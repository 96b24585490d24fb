//! The ladder of each call: which SIP messages came and went, when, and to and from whom.
//!
//! | of | is kept | never |
//! |---|---|---|
//! | a request | method, scheme, whose address it is (`<caller>`, `<callee>`, `<gateway>`) | user part, host, parameters; a method that is not of letters alone |
//! | a response | status, the RFC's phrase for it | the phrase as received |
//! | both | instant, leg, peer, direction, CSeq's method, whether there is a description | any other field, any body |
//!
//! A message belongs to the call that last had a dialog, or an INVITE on its way, of its Call-ID with its
//! peer. The same message again is counted on its first rung. A ladder is told [`TOLD_AFTER_MS`] after the
//! answer and after the end, when acknowledgements are in, and when its call is forgotten; each time what is
//! new. Bounded by [`MAX_RUNGS`] a call.
//!
//! Left out: what belongs to no call, as the INVITE that was answered with a challenge, or what comes after
//! its call is forgotten; calls beyond the limit, of which there may be a flood.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use consent::{CallId, Leg, Mono};
use memchr::memmem;

use super::TimerKey;
use crate::ladder::{request_line, scheme_of, shown, status_line};
use crate::sdp::holds_description;
use crate::wire::{CSeq, Headers, Message, Method, Request, Via, name};
use crate::{Config, Ladder, PeerId, Rung};

/// How long after answer and end the ladder is told: a BYE that is lost twice is answered by then.
pub(super) const TOLD_AFTER_MS: u64 = 2_000;

/// Messages kept of one call; beyond they are counted. An ordinary call has 16, one with transfers 60.
const MAX_RUNGS: usize = 200;

/// The ladders of all calls that are not forgotten.
#[derive(Debug, Default)]
pub(crate) struct Ladders {
    now: Mono,
    calls: HashMap<CallId, Kept>,
    places: HashMap<String, Vec<Place>>,
}

/// Whose a Call-ID is with a peer.
#[derive(Clone, Copy, Debug)]
struct Place {
    peer: PeerId,
    call: CallId,
    leg: Leg,
}

/// One call's.
#[derive(Debug)]
struct Kept {
    began: Mono,
    messages: Vec<Seen>,
    left_out: u32,
    /// How many were left out when it was last told.
    told_left_out: u32,
    call_ids: Vec<String>,
    telling: Option<TimerKey>,
}

/// A message kept.
#[derive(Debug)]
struct Seen {
    /// Tells it from every other of its call.
    mark: u64,
    after_ms: u32,
    leg: Leg,
    peer: PeerId,
    sent: bool,
    line: Line,
    method: Method,
    sdp: bool,
    repeats: u32,
    told: bool,
}

/// The first line, masked.
#[derive(Clone, Copy, Debug)]
enum Line {
    Request { scheme: &'static str, target: &'static str },
    Response { status: u16 },
}

/// What of a message on its way out is needed here.
struct Sent<'a> {
    start: &'a str,
    call_id: &'a str,
    method: &'a str,
    sdp: bool,
}

impl Ladders {
    pub(crate) fn set_now(&mut self, now: Mono) {
        self.now = now;
    }

    /// Begins a call's ladder with the INVITE that it began with.
    pub(crate) fn begin(&mut self, call: CallId, peer: PeerId, invite: &Request) {
        let kept = Kept {
            began: self.now,
            messages: Vec::new(),
            left_out: 0,
            told_left_out: 0,
            call_ids: Vec::new(),
            telling: None,
        };
        self.calls.insert(call, kept);
        self.join(call, Leg::A, peer, invite);
    }

    /// A request that opens another dialog of a call came in.
    pub(crate) fn join(&mut self, call: CallId, leg: Leg, peer: PeerId, request: &Request) {
        self.put(call, leg, peer, request.headers.first(name::CALL_ID).unwrap_or_default());
        self.on_request(peer, request);
    }

    /// From now on the messages of this Call-ID with this peer are the call's, on this leg.
    pub(crate) fn put(&mut self, call: CallId, leg: Leg, peer: PeerId, call_id: &str) {
        self.place(call_id, Place { peer, call, leg });
    }

    /// A message came.
    pub(crate) fn received(&mut self, peer: PeerId, message: &Message) {
        match message {
            Message::Request(request) => self.on_request(peer, request),
            Message::Response(response) => {
                let Some(place) = self.find(peer, &response.headers) else { return };
                let mark = mark_of(response.status, &response.headers, &response.body);
                let line = Line::Response { status: response.status };
                let sdp = has_description(&response.headers, &response.body);
                self.see(place, mark, false, line, method_of(&response.headers), sdp);
            }
        }
    }

    /// A message of ours goes out.
    pub(crate) fn sent(&mut self, peer: PeerId, bytes: &Bytes) {
        let Some(sent) = Sent::read(bytes) else { return };
        let Some(place) = self.find_by(peer, sent.call_id) else { return };
        let line = match sent.start.strip_prefix("SIP/2.0 ") {
            Some(rest) => {
                Line::Response { status: rest.get(..3).and_then(|s| s.parse().ok()).unwrap_or_default() }
            }
            None => {
                let uri = sent.start.split(' ').nth(1).unwrap_or_default();
                Line::Request { scheme: scheme_of(uri).0, target: role(place.leg) }
            }
        };
        let mut mark = DefaultHasher::new();
        mark.write(bytes);
        self.see(place, mark.finish(), true, line, Method::from_token(sent.method), sent.sdp);
    }

    /// What of a call's ladder is new; `None` if nothing is.
    pub(crate) fn tell(&mut self, call: CallId, config: &Config) -> Option<Ladder> {
        let kept = self.calls.get_mut(&call)?;
        let told_left_out = std::mem::replace(&mut kept.told_left_out, kept.left_out);
        let untold = kept.messages.iter_mut().zip(0..).filter(|(seen, _)| !seen.told);
        let rungs: Vec<Rung> = untold.map(|(seen, position)| seen.tell(position, config)).collect();
        (!rungs.is_empty() || told_left_out != kept.left_out).then_some(Ladder {
            call,
            rungs,
            left_out: kept.left_out,
        })
    }

    /// The calls that have a ladder.
    pub(crate) fn calls(&self) -> Vec<CallId> {
        let mut calls: Vec<_> = self.calls.keys().copied().collect();
        calls.sort_unstable();
        calls
    }

    /// Notes when it is told next; the timer that this takes the place of.
    pub(crate) fn tells_at(&mut self, call: CallId, key: Option<TimerKey>) -> Option<TimerKey> {
        let kept = self.calls.get_mut(&call);
        kept.map_or(key, |kept| std::mem::replace(&mut kept.telling, key))
    }

    /// Forgets a call.
    pub(crate) fn forget(&mut self, call: CallId) {
        let Some(kept) = self.calls.remove(&call) else { return };
        for call_id in kept.call_ids {
            if let Some(places) = self.places.get_mut(&call_id) {
                places.retain(|place| place.call != call);
                if places.is_empty() {
                    self.places.remove(&call_id);
                }
            }
        }
    }

    fn on_request(&mut self, peer: PeerId, request: &Request) {
        let Some(place) = self.find(peer, &request.headers) else { return };
        let (scheme, user) = scheme_of(&request.uri);
        let line = Line::Request { scheme, target: if user { role(place.leg.other()) } else { "<gateway>" } };
        let mark = mark_of((request.method.as_str(), &request.uri), &request.headers, &request.body);
        let sdp = has_description(&request.headers, &request.body);
        self.see(place, mark, false, line, request.method.clone(), sdp);
    }

    fn find(&self, peer: PeerId, headers: &Headers) -> Option<Place> {
        self.find_by(peer, headers.first(name::CALL_ID)?)
    }

    fn find_by(&self, peer: PeerId, call_id: &str) -> Option<Place> {
        self.places.get(call_id)?.iter().rev().find(|place| place.peer == peer).copied()
    }

    fn place(&mut self, call_id: &str, place: Place) {
        let Some(kept) = self.calls.get_mut(&place.call) else { return };
        if !kept.call_ids.iter().any(|known| known == call_id) {
            kept.call_ids.push(call_id.to_owned());
        }
        let places = self.places.entry(call_id.to_owned()).or_default();
        places.retain(|other| (other.peer, other.call) != (place.peer, place.call));
        places.push(place);
    }

    fn see(&mut self, place: Place, mark: u64, sent: bool, line: Line, method: Method, sdp: bool) {
        let Some(kept) = self.calls.get_mut(&place.call) else { return };
        let again = kept.messages.iter_mut().find(|seen| (seen.mark, seen.sent) == (mark, sent));
        if let Some(seen) = again {
            seen.repeats = seen.repeats.saturating_add(1);
            seen.told = false;
            return;
        }
        if kept.messages.len() >= MAX_RUNGS {
            kept.left_out = kept.left_out.saturating_add(1);
            return;
        }
        let after_ms = u32::try_from(self.now.since_us(kept.began) / 1_000).unwrap_or(u32::MAX);
        let Place { peer, leg, .. } = place;
        let (repeats, told) = (0, false);
        kept.messages.push(Seen { mark, after_ms, leg, peer, sent, line, method, sdp, repeats, told });
    }
}

impl Seen {
    fn tell(&mut self, position: u16, config: &Config) -> Rung {
        self.told = true;
        let message = match self.line {
            Line::Request { scheme, target } => request_line(&self.method, scheme, target),
            Line::Response { status } => status_line(status),
        };
        Rung {
            position,
            after_ms: self.after_ms,
            leg: self.leg,
            peer: config.peers.get(self.peer.0).map_or_else(String::new, |peer| peer.name.clone()),
            sent: self.sent,
            message,
            method: shown(&self.method).to_owned(),
            sdp: self.sdp,
            repeats: self.repeats,
        }
    }
}

impl<'a> Sent<'a> {
    /// Reads what the codec has written: no folding, no compact names.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, body) = bytes.split_at_checked(memmem::find(bytes, b"\r\n\r\n")?)?;
        let mut content_type = "";
        let mut lines = head.split(|byte| *byte == b'\n');
        let start = std::str::from_utf8(lines.next()?).ok()?.trim_end();
        let mut sent = Self { start, call_id: "", method: "", sdp: false };
        for line in lines {
            if let Some(value) = field(line, name::CALL_ID) {
                sent.call_id = value;
            } else if let Some(value) = field(line, name::CSEQ) {
                sent.method = value.split(' ').nth(1).unwrap_or_default();
            } else if let Some(value) = field(line, name::CONTENT_TYPE) {
                content_type = value;
            }
        }
        sent.sdp = holds_description(content_type, body.get(4..).unwrap_or_default());
        Some(sent)
    }
}

/// The value of a line, if it is this field's.
fn field<'a>(line: &'a [u8], name: &str) -> Option<&'a str> {
    let value = line.strip_prefix(name.as_bytes())?.strip_prefix(b": ")?;
    std::str::from_utf8(value).ok().map(str::trim_end)
}

/// What a repetition has in common with the message that it repeats, and no other message with it: not the
/// top Via's parameters, to which we add.
fn mark_of(start: impl Hash, headers: &Headers, body: &Bytes) -> u64 {
    let mut mark = DefaultHasher::new();
    start.hash(&mut mark);
    let via = headers.first(name::VIA).and_then(|via| Via::first(via).ok());
    via.as_ref().and_then(Via::branch).hash(&mut mark);
    [headers.first(name::CALL_ID), headers.first(name::CSEQ), headers.first(name::TO)].hash(&mut mark);
    body.hash(&mut mark);
    mark.finish()
}

fn method_of(headers: &Headers) -> Method {
    let cseq = headers.first(name::CSEQ).and_then(|cseq| CSeq::parse(cseq).ok());
    Method::from_token(cseq.map_or("", |cseq| cseq.method))
}

fn has_description(headers: &Headers, body: &Bytes) -> bool {
    holds_description(headers.first(name::CONTENT_TYPE).unwrap_or_default(), body)
}

const fn role(leg: Leg) -> &'static str {
    match leg {
        Leg::A => "<caller>",
        Leg::B => "<callee>",
    }
}
