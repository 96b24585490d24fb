//! Datagrams (RFC 3261 §18.3), and what of them reaches the other leg.

use crate::Limits;
use crate::b2bua::{Border, Place, address_at, copy_end_to_end, uri_at};
use crate::topology::Hosts;
use crate::wire::{
    Field, Headers, MediaType, Message, Method, NameAddr, ParseError, Reason, Request, Uri, Via, name,
    parse_datagram, stamp_source,
};

const LIMITS: Limits = Limits {
    max_calls: 1,
    max_message_bytes: 65_535,
    max_headers: 128,
    max_streams: 1,
    requests_per_s: None,
};

/// What is written may be more than what was read: a Content-Length is added, names are written out.
const ROOMY: Limits = Limits { max_message_bytes: usize::MAX, max_headers: 129, ..LIMITS };

/// Where the other leg is.
const THERE: Place<'_> = Place { host: "there.example", secure: false };

/// One datagram.
pub fn datagram(octets: &[u8]) {
    match parse_datagram(octets, &LIMITS) {
        Ok(message) => {
            survives(&message);
            passes(&message);
            reads(message.headers());
        }
        Err(ParseError::Refuse { answer, .. }) => {
            has_a_line_for_each_field(&answer.to_bytes(), answer.headers.len());
        }
        Err(ParseError::Drop { .. }) => {}
    }
}

/// What was accepted is written so that it reads the same.
pub(super) fn survives(message: &Message) {
    let written = message.to_bytes();
    match parse_datagram(&written, &ROOMY) {
        Ok(again) => assert_eq!(without_length(again), without_length(message.clone())),
        Err(error) => assert!(written.is_empty(), "{error}: {}", written.escape_ascii()),
    }
}

/// A message that said how long it is and one that need not are the same.
fn without_length(mut message: Message) -> Message {
    match &mut message {
        Message::Request(request) => request.headers.remove(name::CONTENT_LENGTH),
        Message::Response(response) => response.headers.remove(name::CONTENT_LENGTH),
    }
    message
}

/// What goes on to the other leg.
fn passes(message: &Message) {
    let uri = match message {
        Message::Request(request) => uri_at(&request.uri, THERE, None),
        Message::Response(_) => String::from("sip:there.example"),
    };
    match Uri::parse(&uri) {
        Ok(Uri::Sip(parsed)) => assert_eq!(parsed.host, THERE.host, "{uri}"),
        Ok(Uri::Other { .. }) => {}
        Ok(Uri::Tel(_)) | Err(_) => assert!(uri.is_empty(), "{uri} is sent"),
    }
    let mut hosts = Hosts::default();
    hosts.learn_from(message.headers(), |host| host == THERE.host);
    hides(message, &hosts);
    let stranger = Border::of_strangers(message.headers(), hosts, THERE.host);
    for (emergency, border) in [(false, stranger), (true, Border::of_emergency())] {
        let mut sent = Request::new(Method::INVITE, uri.as_str());
        for field in [name::FROM, name::TO] {
            let address = message.headers().first(field).unwrap_or_default();
            sent.headers.push(field, moved(address));
        }
        copy_end_to_end(message.headers(), &mut sent.headers, &border);
        let octets = sent.to_bytes();
        has_a_line_for_each_field(&octets, sent.headers.len());
        assert!(emergency || std::str::from_utf8(&octets).is_ok(), "{}", octets.escape_ascii());
    }
}

/// What crosses names no host of the sender's, but for what is signed and the type by which a body is read.
fn hides(message: &Message, hosts: &Hosts) {
    let border = Border::of_strangers(message.headers(), hosts.clone(), THERE.host);
    let mut crossed = Headers::new();
    copy_end_to_end(message.headers(), &mut crossed, &border);
    let is_type = |field: &Field<'_>| {
        field.name.eq_ignore_ascii_case(name::CONTENT_TYPE) && MediaType::leading(field.value).is_some()
    };
    let is_kept = |field: &Field<'_>| matches!(field.name, "Identity" | "Date") || is_type(field);
    for field in crossed.iter().filter(|field| !is_kept(field)) {
        assert!(!hosts.appear_in(field.value), "{}: {}", field.name, field.value.escape_default());
    }
}

/// A From or To as the other leg has it.
fn moved(address: &str) -> String {
    let moved = address_at(address, THERE, None, Some("ours"));
    let read = NameAddr::parse(&moved).map(|read| (read.tag(), read.uri.is_ascii()));
    assert_eq!(read, Ok((Some("ours"), true)), "{moved} of {address}");
    moved
}

/// A head of a start line, one line for each field, and Content-Length; no control characters in any.
fn has_a_line_for_each_field(octets: &[u8], fields: usize) {
    let text: String = octets.iter().map(|&octet| char::from(octet)).collect();
    let (head, _) = text.split_once("\r\n\r\n").unwrap_or_default();
    assert_eq!(head.split("\r\n").count(), fields + 2, "{}", head.escape_default());
    for line in head.split("\r\n") {
        let is_control = |char: char| char.is_ascii_control() && char != '\t';
        assert!(!line.contains(is_control) && !line.starts_with([' ', '\t']), "{}", line.escape_default());
    }
}

/// Every reader takes every field.
fn reads(headers: &Headers) {
    for field in headers.iter() {
        for address in NameAddr::list(field.value).flatten() {
            let again = address.with_tag(None);
            let read = NameAddr::parse(&again).map(|read| (read.display, read.uri));
            assert_eq!(read, Ok((address.display, address.uri)), "{again}");
            drop((address.user(), address.display_name()));
        }
        let stamped = stamp_source(field.value, ([127, 0, 0, 9], 5060).into());
        if Via::list(field.value).all(|via| via.is_ok()) {
            let read = |value| Via::first(value).map(|via: Via<'_>| (via.branch(), via.host));
            assert_eq!(read(&stamped), read(field.value));
            let received = Via::first(&stamped).ok().and_then(|via| via.received());
            assert_eq!(received.map(|ip| ip.to_string()).as_deref(), Some("127.0.0.9"), "{stamped}");
        }
        Reason::list(field.value).for_each(drop);
        let _judged = MediaType::parse(field.value);
        assert_eq!(field.value.trim_ascii(), field.value);
    }
}
