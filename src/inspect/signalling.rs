//! SIP messages of a capture, by Call-ID.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use bytes::Bytes;
use consent::Wall;
use sip_gateway::wire::{CSeq, Message, Method, NameAddr, name};
use sip_gateway::{LegMedia, masked, sdp};

/// Call-IDs followed; the messages of further ones are counted.
const MAX_DIALOGUES: usize = 10_000;

/// Messages kept of one Call-ID, as the gateway keeps of one call.
const MAX_RUNGS: usize = 200;

/// Everything that was said under the Call-IDs of a capture.
#[derive(Default)]
pub(super) struct Signalling {
    pub(super) dialogues: Vec<Dialogue>,
    by_call_id: HashMap<String, usize>,
    /// Messages of Call-IDs beyond the bound.
    pub(super) left_out: u64,
    /// Whether lines are shown without what may be a number or a name.
    pub(super) masked: bool,
}

/// What was said under one Call-ID.
pub(super) struct Dialogue {
    pub(super) call_id: String,
    pub(super) began: Wall,
    pub(super) rungs: Vec<Rung>,
    pub(super) left_out: u32,
    /// The INVITE that it began with, and who sent it.
    pub(super) invite: Option<(SocketAddr, Bytes)>,
    /// The tag of whoever called.
    caller: Option<String>,
}

/// One message.
pub(super) struct Rung {
    mark: u64,
    pub(super) at: Wall,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) message: String,
    pub(super) method: String,
    pub(super) sdp: bool,
    pub(super) repeats: u32,
}

impl Signalling {
    /// Takes the next message; the description in it and which dialogue it belongs to.
    pub(super) fn take(
        &mut self,
        at: Wall,
        (from, to): (SocketAddr, SocketAddr),
        message: &Message,
    ) -> Option<(usize, LegMedia)> {
        let call_id = message.headers().first(name::CALL_ID)?;
        let index = match self.by_call_id.get(call_id) {
            Some(index) => *index,
            None if self.dialogues.len() >= MAX_DIALOGUES => {
                self.left_out += 1;
                return None;
            }
            None => self.begin(at, from, call_id, message),
        };
        let media = media(message, from);
        let dialogue = self.dialogues.get_mut(index)?;
        dialogue.take(at, (from, to), message, media.is_some(), self.masked);
        media.map(|media| (index, media))
    }

    /// How many Call-IDs without an INVITE there were, by the method that they began with.
    pub(super) fn others(&self) -> BTreeMap<String, u64> {
        let mut others = BTreeMap::new();
        for dialogue in self.dialogues.iter().filter(|dialogue| !dialogue.is_call()) {
            let method = dialogue.rungs.first().map_or_else(String::new, |first| first.method.clone());
            *others.entry(method).or_default() += 1;
        }
        others
    }

    fn begin(&mut self, at: Wall, from: SocketAddr, call_id: &str, message: &Message) -> usize {
        let invite = match message {
            Message::Request(request) if request.method == Method::INVITE => Some((from, message.to_bytes())),
            Message::Request(_) | Message::Response(_) => None,
        };
        let index = self.dialogues.len();
        self.by_call_id.insert(call_id.to_owned(), index);
        self.dialogues.push(Dialogue {
            call_id: call_id.to_owned(),
            began: at,
            rungs: Vec::new(),
            left_out: 0,
            invite,
            caller: None,
        });
        index
    }
}

impl Dialogue {
    /// Whether somebody is called in it.
    pub(super) fn is_call(&self) -> bool {
        self.caller.is_some()
    }

    fn take(
        &mut self,
        at: Wall,
        (from, to): (SocketAddr, SocketAddr),
        message: &Message,
        sdp: bool,
        mask: bool,
    ) {
        let bytes = message.to_bytes();
        let mut mark = DefaultHasher::new();
        (from, to, &bytes).hash(&mut mark);
        let mark = mark.finish();
        if let Some(rung) = self.rungs.iter_mut().find(|rung| rung.mark == mark) {
            rung.repeats = rung.repeats.saturating_add(1);
            return;
        }
        if self.rungs.len() >= MAX_RUNGS {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        let cseq = message.headers().first(name::CSEQ).and_then(|cseq| CSeq::parse(cseq).ok());
        let method = Method::from_token(cseq.map_or("", |cseq| cseq.method));
        let sender = message.headers().first(name::FROM).and_then(|from| NameAddr::parse(from).ok());
        let sender = sender.and_then(|from| from.tag()).unwrap_or_default();
        if method == Method::INVITE && self.caller.is_none() {
            self.caller = Some(sender.to_owned());
        }
        // By tag: on its way a request passes hosts that are neither's.
        let target = if self.caller.as_deref() == Some(sender) { "<callee>" } else { "<caller>" };
        let message_line = if mask { masked(message, target) } else { first_line(&bytes) };
        self.rungs.push(Rung {
            mark,
            at,
            from,
            to,
            message: message_line,
            method: match method {
                Method::Known(_) => method.as_str().to_owned(),
                Method::Extension(_) => "(other)".to_owned(),
            },
            sdp,
            repeats: 0,
        });
    }
}

/// Whether a SIP message may begin so (RFC 3261 §7).
pub(super) fn begins_as_sip(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let method = line.iter().take_while(|byte| byte.is_ascii_graphic()).count();
    line.starts_with(b"SIP/2.0 ") || (method > 0 && line.ends_with(b" SIP/2.0"))
}

/// The first line without its version; of a request without what the ladder shows anyway.
fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let line = line.strip_prefix("SIP/2.0 ").unwrap_or(&line);
    // A terminal obeys control characters.
    line.strip_suffix(" SIP/2.0").unwrap_or(line).chars().filter(|shown| !shown.is_control()).collect()
}

/// The description in a message.
fn media(message: &Message, from: SocketAddr) -> Option<LegMedia> {
    let content_type = message.headers().first(name::CONTENT_TYPE)?;
    let body = message.body();
    let place = sdp::locate(content_type, body).ok().flatten()?;
    let description = sdp::Description::parse(body.get(place)?).ok()?;
    Some(description.leg_media(from.ip()))
}
