//! From octets to a [`Message`]: start line, header fields, and the judgement whether it may be accepted
//! (RFC 3261 §7, §8.1.1, §18.3, §25; RFC 4475 §3.1.2, §3.3).
//!
//! One pass collects every readable field and remembers the first fault, so that a faulty request can be
//! answered with the fields that it does have.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memchr;
use rsip::Header;
use rsip::headers::UntypedHeader as _;

use crate::Limits;

use super::error::{Fault, Malformed, ParseError};
use super::fields::{CSeq, content_length, max_forwards};
use super::grammar::{any_byte, is_control, is_token};
use super::headers::{Headers, name};
use super::message::{Message, Request, Response, reason_phrase};
use super::method::Method;
use super::name_addr::NameAddr;
use super::uri::Uri;
use super::via::Via;

/// Bytes of a header field's name, and of its unfolded value. The longest honest values (Identity, RFC 8224)
/// take about 2,000. Not of both together: a compact name is written out when the message goes on.
const MAX_FIELD_BYTES: usize = 8192;

/// By how much a datagram's Content-Length may exceed its body.
const MISCOUNT_OCTETS: usize = 32;

/// Bytes of a Request-URI; beyond: 414.
const MAX_URI_BYTES: usize = 2048;

/// Reads the message in a datagram. Without Content-Length its body goes to the datagram's end; octets
/// beyond Content-Length are discarded (RFC 3261 §18.3). Line breaks before the start line are skipped
/// (§7.5). A head that ends with the datagram instead of an empty line is accepted if it says
/// `Content-Length: 0`.
///
/// # Errors
/// [`ParseError`] says what is wrong and whether the sender may be told. A datagram over
/// `max_message_bytes` is dropped unread.
pub fn parse_datagram(datagram: &[u8], limits: &Limits) -> Result<Message, ParseError> {
    if datagram.len() > limits.max_message_bytes {
        return Err(ParseError::Drop { fault: Fault::TooLarge });
    }
    let start = datagram.iter().position(|byte| !matches!(byte, b'\r' | b'\n' | 0));
    let octets = start.and_then(|start| datagram.get(start..)).unwrap_or_default();
    if octets.is_empty() {
        return Err(ParseError::Drop { fault: Fault::KeepAlive });
    }
    let head = Head::read(octets, limits);
    let mut message = head.outcome?;
    let length = head.content_length.unwrap_or_default();
    let body = match (head.body_at.and_then(|at| octets.get(at..)), length) {
        (Some(rest), None) => rest,
        (Some(rest), Some(length)) => match rest.get(..length) {
            Some(body) => body,
            None if is_miscounted(rest, length) => rest,
            None => return Err(refusal(&message, Fault::BodyTooShort)),
        },
        (None, Some(0)) => &[],
        (None, _) => return Err(refusal(&message, Fault::Truncated)),
    };
    set_body(&mut message, Bytes::copy_from_slice(body));
    Ok(message)
}

/// Whether a Content-Length over the datagram's end is a sender's miscount rather than a lost tail. A
/// datagram arrives whole or not at all, so a body that ends with a line is whole too; RFC 5118 §4.10's own
/// message says 268 for 251 octets. A stream has no such end to go by, and is not forgiven.
fn is_miscounted(body: &[u8], length: usize) -> bool {
    body.ends_with(b"\r\n") && length - body.len() <= MISCOUNT_OCTETS
}

/// What is known after the head of a message.
pub(super) struct Head {
    /// The message without its body, or why it is not accepted.
    pub(super) outcome: Result<Message, ParseError>,
    /// `Err` if there are several, or it is no number.
    pub(super) content_length: Result<Option<usize>, Malformed>,
    /// Where the body begins; `None` if no empty line ended the head.
    pub(super) body_at: Option<usize>,
}

impl Head {
    /// Reads the head of a message from octets that begin with its start line.
    pub(super) fn read(octets: &[u8], limits: &Limits) -> Self {
        let mut lines = Lines { octets, at: 0, fault: None };
        let start = StartLine::read(&lines.next_line().unwrap_or_default());
        let mut headers = Headers::with_capacity(24);
        let mut body_at = None;
        while let Some(line) = lines.next_line() {
            if line.is_empty() {
                body_at = Some(lines.at);
                break;
            }
            if headers.len() >= limits.max_headers {
                lines.found(Fault::TooManyHeaders);
                break;
            }
            if let Err(fault) = read_field(line, &mut headers) {
                lines.found(fault);
            }
        }
        let content_length = length_of(&headers);
        let outcome = judge(start, lines.fault, headers);
        Self { outcome, content_length, body_at }
    }
}

/// The refusal of a message that was readable so far.
pub(super) fn refusal(message: &Message, fault: Fault) -> ParseError {
    match message {
        Message::Request(request) => refuse(fault, request.method.as_str(), &request.headers),
        Message::Response(_) => ParseError::Drop { fault },
    }
}

pub(super) fn set_body(message: &mut Message, octets: Bytes) {
    match message {
        Message::Request(request) => request.body = octets,
        Message::Response(response) => response.body = octets,
    }
}

/// Logical lines: unfolded, without their CRLF.
struct Lines<'a> {
    octets: &'a [u8],
    at: usize,
    /// The first fault of the message.
    fault: Option<Fault>,
}

impl<'a> Lines<'a> {
    fn found(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }

    fn next_line(&mut self) -> Option<Cow<'a, [u8]>> {
        let first = self.physical()?;
        if first.is_empty() || !self.continues() {
            return Some(Cow::Borrowed(first));
        }
        let mut line = first.to_vec();
        while self.continues() {
            let continuation = self.physical()?;
            while line.last().is_some_and(|byte| is_white(*byte)) {
                line.pop();
            }
            line.push(b' ');
            line.extend_from_slice(continuation.trim_ascii());
        }
        Some(Cow::Owned(line))
    }

    /// Whether the line after the one just read is a fold of it.
    fn continues(&self) -> bool {
        self.octets.get(self.at).is_some_and(|byte| is_white(*byte))
    }

    fn physical(&mut self) -> Option<&'a [u8]> {
        let rest = self.octets.get(self.at..).filter(|rest| !rest.is_empty())?;
        let Some(end) = memchr(b'\n', rest) else {
            self.at = self.octets.len();
            self.found(Fault::Truncated);
            return None;
        };
        self.at += end + 1;
        let line = rest.get(..end)?;
        let line = line.strip_suffix(b"\r").unwrap_or_else(|| {
            self.found(Fault::LineBreak);
            line
        });
        if memchr(b'\r', line).is_some() {
            self.found(Fault::LineBreak);
        }
        Some(line)
    }
}

fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

fn read_field(line: Cow<'_, [u8]>, headers: &mut Headers) -> Result<(), Fault> {
    let colon = memchr(b':', &line).ok_or(Fault::HeaderField)?;
    let name = line.get(..colon).unwrap_or_default().trim_ascii_end();
    let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
    if name.len().max(value.len()) > MAX_FIELD_BYTES {
        return Err(Fault::HeaderTooLong);
    }
    if !is_token(name) {
        return Err(Fault::HeaderField);
    }
    let name = std::str::from_utf8(name).map_err(|_| Fault::HeaderField)?;
    if !controls_are_quoted(value) {
        return Err(Fault::ControlCharacter);
    }
    headers.push_parsed(name, value);
    Ok(())
}

/// Control characters other than HTAB stand only as quoted pairs (RFC 3261 §25.1, RFC 4475 §3.1.1.2).
fn controls_are_quoted(value: &[u8]) -> bool {
    if !any_byte(value, is_control) {
        return true;
    }
    let (mut quoted, mut escaped) = (false, false);
    value.iter().all(|&byte| {
        if std::mem::take(&mut escaped) {
            return !matches!(byte, b'\r' | b'\n');
        }
        match byte {
            b'"' => quoted = !quoted,
            b'\\' => escaped = quoted,
            _ => return !is_control(byte),
        }
        true
    })
}

/// The start line as far as it could be read.
enum StartLine {
    Request {
        method: String,
        uri: String,
        fault: Option<Fault>,
    },
    Response {
        status: u16,
        reason: String,
    },
    /// No answer is possible.
    Unreadable(Fault),
}

impl StartLine {
    fn read(line: &[u8]) -> Self {
        if line.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"SIP/")) {
            return Self::read_status(line);
        }
        let Ok(line) = std::str::from_utf8(line) else { return Self::Unreadable(Fault::NotSip) };
        let Some((method, rest)) = line.split_once([' ', '\t']) else {
            return Self::Unreadable(Fault::NotSip);
        };
        let trimmed = rest.trim_end();
        let (uri, version) = trimmed.rsplit_once([' ', '\t']).unwrap_or(("", trimmed));
        if !version.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("SIP/")) {
            return Self::Unreadable(Fault::NotSip);
        }
        let fault = request_line_fault(method, uri, version, trimmed.len() == rest.len());
        Self::Request { method: method.to_owned(), uri: uri.to_owned(), fault }
    }

    fn read_status(line: &[u8]) -> Self {
        let version = line.get(..7).unwrap_or_default();
        if !version.eq_ignore_ascii_case(b"SIP/2.0") || line.get(7) != Some(&b' ') {
            return Self::Unreadable(Fault::Version);
        }
        let Some(&[hundreds @ b'1'..=b'6', tens @ b'0'..=b'9', ones @ b'0'..=b'9']) = line.get(8..11) else {
            return Self::Unreadable(Fault::StatusLine);
        };
        // RFC 3261 §7.2 has a space before an empty phrase; it is often left out.
        let reason = match line.get(11..).unwrap_or_default() {
            [] => &[],
            [b' ', reason @ ..] => reason,
            _ => return Self::Unreadable(Fault::StatusLine),
        };
        if reason.iter().any(|&byte| is_control(byte)) {
            return Self::Unreadable(Fault::StatusLine);
        }
        let reason = match std::str::from_utf8(reason) {
            Ok(reason) => reason.to_owned(),
            Err(_) => reason.iter().map(|&octet| char::from(octet)).collect(),
        };
        let digit = |digit: u8| u16::from(digit - b'0');
        Self::Response { status: digit(hundreds) * 100 + digit(tens) * 10 + digit(ones), reason }
    }
}

fn request_line_fault(method: &str, uri: &str, version: &str, ends_clean: bool) -> Option<Fault> {
    if !is_token(method.as_bytes()) {
        return Some(Fault::Method);
    }
    if !version.eq_ignore_ascii_case("SIP/2.0") {
        return Some(Fault::Version);
    }
    if !ends_clean || uri.is_empty() || uri.trim() != uri {
        return Some(Fault::StartLine);
    }
    if uri.len() > MAX_URI_BYTES {
        return Some(Fault::RequestUriTooLong);
    }
    match Uri::parse(uri) {
        // Header parameters are not allowed in a Request-URI (RFC 3261 §19.1.1, RFC 4475 §3.1.2.11).
        Ok(Uri::Sip(sip)) if sip.headers.is_some() => Some(Fault::RequestUri),
        Ok(_) => None,
        Err(_) => Some(Fault::RequestUri),
    }
}

fn judge(start: StartLine, fault: Option<Fault>, headers: Headers) -> Result<Message, ParseError> {
    match start {
        StartLine::Unreadable(fault) => Err(ParseError::Drop { fault }),
        StartLine::Response { status, reason } => {
            let checked = fault.map_or(Ok(()), Err).and_then(|()| check(&headers, None));
            checked.map_err(|fault| ParseError::Drop { fault })?;
            Ok(Message::Response(Response { status, reason, headers, body: Bytes::new() }))
        }
        StartLine::Request { method, uri, fault: start_fault } => {
            let checked = start_fault.or(fault).map_or(Ok(()), Err);
            checked
                .and_then(|()| check(&headers, Some(&method)))
                .map_err(|fault| refuse(fault, &method, &headers))?;
            let method = Method::from_token(&method);
            Ok(Message::Request(Request { method, uri, headers, body: Bytes::new() }))
        }
    }
}

/// The answer to a faulty request. ACK is never answered; nor is a request whose first Via does not even
/// name a sender.
fn refuse(fault: Fault, method: &str, headers: &Headers) -> ParseError {
    let via = headers.first(name::VIA).unwrap_or_default();
    if method == "ACK" || Via::sent_by(via).is_err() {
        return ParseError::Drop { fault };
    }
    let mut answer = Response::new(fault.status());
    answer.reason = format!("{} ({fault})", reason_phrase(answer.status));
    answer.headers.copy(headers, name::VIA);
    for wanted in [name::FROM, name::TO, name::CALL_ID, name::CSEQ] {
        if let Some(field) = headers.iter().find(|field| field.name == wanted) {
            answer.headers.push_field(field);
        }
    }
    ParseError::Refuse { fault, answer: Box::new(answer) }
}

/// Fields of which a message has one. Counted in this order.
const SINGLE: [&str; 8] = [
    name::FROM,
    name::TO,
    name::CALL_ID,
    name::CSEQ,
    name::MAX_FORWARDS,
    name::CONTENT_LENGTH,
    name::CONTENT_TYPE,
    name::EXPIRES,
];

/// How many of [`SINGLE`], from its start, every message must have. Max-Forwards is not among them: RFC
/// 2543 clients send none (RFC 4475 §3.4.1).
const MANDATORY: usize = 4;

/// Mandatory and single fields, and the syntax of those that transactions and dialogs stand on. `method` is
/// that of the request line.
fn check(headers: &Headers, method: Option<&str>) -> Result<(), Fault> {
    let mut seen = [false; SINGLE.len()];
    let mut via = false;
    for header in headers.known() {
        let single = match header {
            Header::Via(value) => {
                via = true;
                check_via(value.value())?;
                continue;
            }
            Header::Contact(value) => {
                check_contact(value.value())?;
                continue;
            }
            Header::From(value) => (0, check_address(value.value())),
            Header::To(value) => (1, check_address(value.value())),
            Header::CallId(value) => (2, check_call_id(value.value())),
            Header::CSeq(value) => (3, check_cseq(value.value(), method)?),
            Header::MaxForwards(value) => (4, max_forwards(value.value()).map(drop)),
            Header::ContentLength(value) => (5, content_length(value.value()).map(drop)),
            Header::ContentType(_) => (6, Ok(())),
            Header::Expires(_) => (7, Ok(())),
            _ => continue,
        };
        let (place, checked) = single;
        let (Some(header), Some(seen)) = (SINGLE.get(place).copied(), seen.get_mut(place)) else { continue };
        if std::mem::replace(seen, true) {
            return Err(Fault::Duplicate { header });
        }
        checked.map_err(|source| Fault::Field { header, source })?;
    }
    if !via {
        return Err(Fault::Missing { header: name::VIA });
    }
    match SINGLE.iter().zip(seen).take(MANDATORY).find(|(_, seen)| !seen) {
        Some((header, _)) => Err(Fault::Missing { header }),
        None => Ok(()),
    }
}

fn check_via(value: &str) -> Result<(), Fault> {
    Via::list(value)
        .try_for_each(|via| via.map(drop))
        .map_err(|source| Fault::Field { header: name::VIA, source })
}

fn check_contact(value: &str) -> Result<(), Fault> {
    if value == "*" {
        return Ok(());
    }
    NameAddr::list(value)
        .try_for_each(|contact| contact.map(drop))
        .map_err(|source| Fault::Field { header: name::CONTACT, source })
}

fn check_address(value: &str) -> Result<(), Malformed> {
    NameAddr::parse(value).map(drop)
}

/// `callid` is a word with perhaps an `@`; only white space and emptiness are refused here.
fn check_call_id(value: &str) -> Result<(), Malformed> {
    if value.is_empty() || value.contains([' ', '\t']) { Err(Malformed::Parameter) } else { Ok(()) }
}

fn check_cseq(value: &str, method: Option<&str>) -> Result<Result<(), Malformed>, Fault> {
    match CSeq::parse(value) {
        Ok(cseq) if method.is_some_and(|method| method != cseq.method) => Err(Fault::CSeqMethod),
        Ok(_) => Ok(Ok(())),
        Err(malformed) => Ok(Err(malformed)),
    }
}

fn length_of(headers: &Headers) -> Result<Option<usize>, Malformed> {
    let mut lengths = headers.all(name::CONTENT_LENGTH);
    let length = lengths.next().map(content_length).transpose()?;
    if lengths.next().is_some() { Err(Malformed::Number) } else { Ok(length) }
}
