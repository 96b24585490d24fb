//! Requests and responses, and how they are written to the wire (RFC 3261 §7).
//!
//! Content-Length is always ours. Nothing that a field holds can end its line: see [`Headers::push`].

use bytes::{BufMut as _, Bytes, BytesMut};

use super::headers::{Headers, name};
use super::method::Method;

/// A SIP message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "RFC 3261's words")]
pub enum Message {
    Request(Request),
    Response(Response),
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// The Request-URI as received.
    pub uri: String,
    /// Its header fields.
    pub headers: Headers,
    /// Its body, byte for byte.
    pub body: Bytes,
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 100 to 699.
    pub status: u16,
    /// The reason phrase as received.
    pub reason: String,
    /// Its header fields.
    pub headers: Headers,
    /// Its body, byte for byte.
    pub body: Bytes,
}

impl Message {
    /// Its header fields.
    pub fn headers(&self) -> &Headers {
        match self {
            Self::Request(request) => &request.headers,
            Self::Response(response) => &response.headers,
        }
    }

    /// Its body.
    pub fn body(&self) -> &Bytes {
        match self {
            Self::Request(request) => &request.body,
            Self::Response(response) => &response.body,
        }
    }

    /// On the wire.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Request(request) => request.to_bytes(),
            Self::Response(response) => response.to_bytes(),
        }
    }
}

impl Request {
    /// A request without fields and body.
    pub fn new(method: Method, uri: impl Into<String>) -> Self {
        Self { method, uri: uri.into(), headers: Headers::new(), body: Bytes::new() }
    }

    /// On the wire.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.uri.len() + size_of(&self.headers, &self.body));
        out.put_slice(self.method.as_str().as_bytes());
        out.put_u8(b' ');
        // White space in a Request-URI would end it; it cannot be meant.
        put_filtered(&mut out, self.uri.as_bytes(), |byte| byte > b' ' && byte != 0x7f);
        out.put_slice(b" SIP/2.0\r\n");
        put_rest(&mut out, &self.headers, &self.body);
        out.freeze()
    }
}

impl Response {
    /// A response with the usual reason phrase, without fields and body.
    pub fn new(status: u16) -> Self {
        Self { status, reason: reason_phrase(status).to_owned(), headers: Headers::new(), body: Bytes::new() }
    }

    /// A response to a request: its Via, From, To, Call-ID and CSeq as received (RFC 3261 §8.2.6.2), and for
    /// a 100 its Timestamp. The To tag and the Via's `received` are the caller's.
    pub fn to(request: &Headers, status: u16) -> Self {
        let mut response = Self::new(status);
        for field in [name::VIA, name::FROM, name::TO, name::CALL_ID, name::CSEQ] {
            response.headers.copy(request, field);
        }
        if status == 100 {
            response.headers.copy(request, name::TIMESTAMP);
        }
        response
    }

    /// On the wire.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.reason.len() + size_of(&self.headers, &self.body));
        out.put_slice(b"SIP/2.0 ");
        out.put_slice(self.status.to_string().as_bytes());
        out.put_u8(b' ');
        put_filtered(&mut out, self.reason.as_bytes(), is_inline);
        out.put_slice(b"\r\n");
        put_rest(&mut out, &self.headers, &self.body);
        out.freeze()
    }
}

fn size_of(headers: &Headers, body: &Bytes) -> usize {
    let fields: usize = headers.iter().map(|field| field.name.len() + field.value.len() + 4).sum();
    fields + body.len() + 64
}

fn put_rest(out: &mut BytesMut, headers: &Headers, body: &Bytes) {
    for field in headers.iter().filter(|field| field.name != name::CONTENT_LENGTH) {
        out.put_slice(field.name.as_bytes());
        out.put_slice(b": ");
        match field.raw {
            Some(octets) => out.put_slice(octets),
            None => out.put_slice(field.value.as_bytes()),
        }
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"Content-Length: ");
    out.put_slice(body.len().to_string().as_bytes());
    out.put_slice(b"\r\n\r\n");
    out.put_slice(body);
}

fn put_filtered(out: &mut BytesMut, text: &[u8], keep: impl Fn(u8) -> bool) {
    if text.iter().all(|&byte| keep(byte)) {
        out.put_slice(text);
    } else {
        out.extend(text.iter().copied().filter(|&byte| keep(byte)));
    }
}

fn is_inline(byte: u8) -> bool {
    !matches!(byte, b'\r' | b'\n' | 0)
}

/// The phrase that goes with a status where no peer gave one (RFC 3261 §21 and its extensions).
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        200 => "OK",
        202 => "Accepted",
        204 => "No Notification",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        417 => "Unknown Resource-Priority",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        424 => "Bad Location Information",
        428 => "Use Identity Header",
        429 => "Provide Referrer Identity",
        433 => "Anonymity Disallowed",
        436 => "Bad Identity Info",
        437 => "Unsupported Credential",
        438 => "Invalid Identity Header",
        469 => "Bad Info Package",
        470 => "Consent Needed",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        580 => "Precondition Failure",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        608 => "Rejected",
        _ => match status / 100 {
            1 => "Progress",
            2 => "OK",
            3 => "Redirection",
            4 => "Request Failure",
            5 => "Server Failure",
            _ => "Global Failure",
        },
    }
}
