//! First lines without what a peer may have put a number or a name into, and what is told of a call's
//! messages: see `core::ladder` for what is kept.

use consent::{CallId, Leg};

use crate::wire::{Message, Method, Uri, reason_phrase};

/// The longest method that is shown.
const MAX_METHOD_BYTES: usize = 16;

/// The messages of a call that have not been told yet, or were repeated since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ladder {
    /// Which call.
    pub call: CallId,
    /// In order of position.
    pub rungs: Vec<Rung>,
    /// How many messages of the call were left out so far, because it had too many.
    pub left_out: u32,
}

/// One message between the gateway and a peer. It holds no number, name or address of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rung {
    /// The n-th of its call, from 0.
    pub position: u16,
    /// Since the INVITE that began the call.
    pub after_ms: u32,
    /// On which leg.
    pub leg: Leg,
    /// The name of the peer at its far end.
    pub peer: String,
    /// Whether the gateway sent it; else it was received.
    pub sent: bool,
    /// `INVITE sip:<callee>`, `180 Ringing`: the first line without the user part, whose place the role takes.
    pub message: String,
    /// The method of its CSeq.
    pub method: String,
    /// Whether it carries a session description.
    pub sdp: bool,
    /// How often the same message came or went again.
    pub repeats: u32,
}

/// A message's first line, masked: of a request method, scheme and, in place of the address, `target`; of a
/// response the status and the RFC's phrase for it.
#[must_use]
pub fn masked(message: &Message, target: &str) -> String {
    match message {
        Message::Request(request) => request_line(&request.method, scheme_of(&request.uri).0, target),
        Message::Response(response) => status_line(response.status),
    }
}

pub(crate) fn request_line(method: &Method, scheme: &str, target: &str) -> String {
    format!("{} {scheme}:{target}", shown(method))
}

pub(crate) fn status_line(status: u16) -> String {
    format!("{status} {}", reason_phrase(status))
}

/// A method; a peer may call one what it likes, a number for one.
pub(crate) fn shown(method: &Method) -> &str {
    let text = method.as_str();
    let plain = text.len() <= MAX_METHOD_BYTES && text.bytes().all(|byte| byte.is_ascii_uppercase());
    if plain && !text.is_empty() { text } else { "(other)" }
}

/// A URI's scheme, if it is one of telephony, and whether the URI names somebody.
pub(crate) fn scheme_of(uri: &str) -> (&'static str, bool) {
    match Uri::parse(uri) {
        Ok(Uri::Sip(uri)) => (if uri.secure { "sips" } else { "sip" }, uri.user.is_some()),
        Ok(Uri::Tel(_)) => ("tel", true),
        Ok(Uri::Other { scheme, .. }) if scheme.eq_ignore_ascii_case("urn") => ("urn", true),
        Ok(Uri::Other { .. }) | Err(_) => ("?", true),
    }
}
