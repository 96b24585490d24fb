//! The header fields of one message: ordered, lossless, looked up by name in any case or compact form
//! (RFC 3261 §7.3).
//!
//! The fields are rsip's `Header` values. A value that is not UTF-8 keeps its octets beside the text: it
//! reads as Latin-1 and goes out as received. rsip's typed headers and its printing are never used.

use bytes::Bytes;
use rsip::Header;
use rsip::headers::UntypedHeader as _;

use super::grammar::{any_byte, is_control, is_token, split_list};

/// Canonical header names.
#[expect(missing_docs, reason = "each constant is the name it spells")]
pub mod name {
    pub const ACCEPT: &str = "Accept";
    pub const ALLOW: &str = "Allow";
    pub const ALLOW_EVENTS: &str = "Allow-Events";
    pub const AUTHORIZATION: &str = "Authorization";
    pub const CALL_ID: &str = "Call-ID";
    pub const CONTACT: &str = "Contact";
    pub const CONTENT_ENCODING: &str = "Content-Encoding";
    pub const CONTENT_LENGTH: &str = "Content-Length";
    pub const CONTENT_TYPE: &str = "Content-Type";
    pub const CSEQ: &str = "CSeq";
    pub const DIVERSION: &str = "Diversion";
    pub const EVENT: &str = "Event";
    pub const EXPIRES: &str = "Expires";
    pub const FROM: &str = "From";
    pub const HISTORY_INFO: &str = "History-Info";
    pub const MAX_FORWARDS: &str = "Max-Forwards";
    pub const MIN_SE: &str = "Min-SE";
    pub const P_ASSERTED_IDENTITY: &str = "P-Asserted-Identity";
    pub const PRIVACY: &str = "Privacy";
    pub const PROXY_AUTHENTICATE: &str = "Proxy-Authenticate";
    pub const PROXY_AUTHORIZATION: &str = "Proxy-Authorization";
    pub const PROXY_REQUIRE: &str = "Proxy-Require";
    pub const RACK: &str = "RAck";
    pub const REASON: &str = "Reason";
    pub const RECORD_ROUTE: &str = "Record-Route";
    pub const REFER_TO: &str = "Refer-To";
    pub const REFERRED_BY: &str = "Referred-By";
    pub const REMOTE_PARTY_ID: &str = "Remote-Party-ID";
    pub const REPLACES: &str = "Replaces";
    pub const REQUIRE: &str = "Require";
    pub const RETRY_AFTER: &str = "Retry-After";
    pub const ROUTE: &str = "Route";
    pub const RSEQ: &str = "RSeq";
    pub const SESSION_EXPIRES: &str = "Session-Expires";
    pub const SUBJECT: &str = "Subject";
    pub const SUPPORTED: &str = "Supported";
    pub const TIMESTAMP: &str = "Timestamp";
    pub const TO: &str = "To";
    pub const UNSUPPORTED: &str = "Unsupported";
    pub const VIA: &str = "Via";
    pub const WARNING: &str = "Warning";
    pub const WWW_AUTHENTICATE: &str = "WWW-Authenticate";

    /// What says of a body what it is.
    pub const OF_A_BODY: [&str; 5] =
        [CONTENT_TYPE, CONTENT_ENCODING, "Content-Disposition", "Content-ID", "MIME-Version"];
}

/// One header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Canonical for names that rsip knows and for compact ones, else as received.
    pub name: &'a str,
    /// Unfolded, without surrounding white space.
    pub value: &'a str,
    /// The octets to send instead of `value`, where they are not UTF-8.
    pub raw: Option<&'a Bytes>,
}

/// The octets of a value that is not UTF-8, by the position of its field.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RawValue {
    index: usize,
    octets: Bytes,
}

/// Header fields in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    fields: rsip::Headers,
    /// In order of `index`; almost always empty.
    raw: Vec<RawValue>,
    len: usize,
}

impl Headers {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn with_capacity(fields: usize) -> Self {
        Self { fields: Vec::with_capacity(fields).into(), raw: Vec::new(), len: 0 }
    }

    /// How many fields.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        let mut raw = self.raw.iter().peekable();
        self.fields.iter().enumerate().map(move |(index, header)| Field {
            name: name_of(header),
            value: value_of(header),
            raw: raw.next_if(|value| value.index == index).map(|value| &value.octets),
        })
    }

    /// The value of the first field of that name.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of all fields of that name, in order, each as received (comma lists whole).
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let name = Name::of(name);
        self.fields.iter().filter(move |header| name.is(header)).map(value_of)
    }

    /// Whether there is a field of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// The elements of all fields of that name, split at commas that are neither quoted nor in angle
    /// brackets. For headers whose grammar is a comma list only (RFC 3261 §7.3.1).
    pub fn list<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.all(name).flat_map(split_list).filter(|element| !element.is_empty())
    }

    /// Whether a list of tokens (Require, Supported, Allow, Privacy after `;`) has this one, in any case.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name)
            .flat_map(|element| element.split(';'))
            .any(|element| element.trim().eq_ignore_ascii_case(token))
    }

    /// Appends a field. Control characters in the value but HTAB become spaces, so that no value can end its
    /// line; a name that is not a token appends nothing.
    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        if let Some(header) = header_for(name, value.into()) {
            self.push_header(header, None);
        }
    }

    /// Puts a field before all others, as a new Via or Record-Route needs; otherwise as [`Self::push`].
    pub fn prepend(&mut self, name: &str, value: impl Into<String>) {
        let Some(header) = header_for(name, value.into()) else { return };
        for value in &mut self.raw {
            value.index += 1;
        }
        self.with_vec(|fields| fields.insert(0, header));
    }

    /// Appends a field of another message, octets as received but for control characters.
    pub fn push_field(&mut self, field: Field<'_>) {
        if let Some(header) = header_for(field.name, field.value.to_owned()) {
            self.push_header(header, field.raw.map(without_controls));
        }
    }

    /// Adds all fields of another.
    pub fn append(&mut self, others: &Self) {
        for field in others.iter() {
            self.push_field(field);
        }
    }

    /// Appends all fields of that name of another message, octets as received.
    pub fn copy(&mut self, from: &Self, name: &str) {
        let name = Name::of(name);
        for field in from.iter().filter(|field| name.matches(field.name)) {
            self.push_field(field);
        }
    }

    /// Replaces the first field of that name in its place and removes its others; appends if there is none.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        let wanted = Name::of(name);
        let Some(place) = self.fields.iter().position(|header| wanted.is(header)) else {
            return self.push(name, value);
        };
        let Some(replacement) = header_for(name, value) else { return };
        self.raw.retain(|value| value.index != place);
        if let Some(header) = self.fields.iter_mut().nth(place) {
            *header = replacement;
        }
        self.retain_indexed(|index, header| index == place || !wanted.is(header));
    }

    /// Removes all fields of that name.
    pub fn remove(&mut self, name: &str) {
        let name = Name::of(name);
        self.retain_indexed(|_, header| !name.is(header));
    }

    /// Removes the first field of that name.
    pub fn remove_first(&mut self, name: &str) {
        let wanted = Name::of(name);
        let place = self.fields.iter().position(|header| wanted.is(header));
        self.retain_indexed(|index, _| Some(index) != place);
    }

    /// Keeps the fields whose (canonical) name the predicate accepts.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.retain_indexed(|_, header| keep(name_of(header)));
    }

    /// Appends a parsed field: `value` has no line break; `raw` is given where it was not UTF-8.
    pub(super) fn push_parsed(&mut self, name: &str, value: &[u8]) {
        match String::from_utf8(value.to_vec()) {
            Ok(text) => self.push_header(build(canonical(name), text), None),
            Err(error) => {
                let octets = error.into_bytes();
                let text = octets.iter().map(|&octet| char::from(octet)).collect();
                self.push_header(build(canonical(name), text), Some(octets.into()));
            }
        }
    }

    pub(super) fn known(&self) -> impl Iterator<Item = &Header> {
        self.fields.iter()
    }

    fn push_header(&mut self, header: Header, raw: Option<Bytes>) {
        if let Some(octets) = raw {
            self.raw.push(RawValue { index: self.len, octets });
        }
        self.fields.push(header);
        self.len += 1;
    }

    fn with_vec(&mut self, edit: impl FnOnce(&mut Vec<Header>)) {
        let mut fields = Vec::from(std::mem::take(&mut self.fields));
        edit(&mut fields);
        self.len = fields.len();
        self.fields = fields.into();
    }

    fn retain_indexed(&mut self, mut keep: impl FnMut(usize, &Header) -> bool) {
        let mut kept = Vec::with_capacity(self.raw.len());
        let mut raw = std::mem::take(&mut self.raw).into_iter().peekable();
        let (mut index, mut place) = (0, 0);
        self.fields.retain(|header| {
            let value = raw.next_if(|value| value.index == index);
            let stays = keep(index, header);
            index += 1;
            if stays {
                kept.extend(value.map(|value| RawValue { index: place, ..value }));
                place += 1;
            }
            stays
        });
        self.raw = kept;
        self.len = place;
    }
}

/// The value's control characters become spaces: what is built here is one field, whatever its parts.
fn header_for(name: &str, mut value: String) -> Option<Header> {
    if !is_token(name.as_bytes()) {
        return None;
    }
    if any_byte(value.as_bytes(), is_control) {
        value = value.replace(|char: char| u8::try_from(char).is_ok_and(is_control), " ");
    }
    Some(build(canonical(name), value))
}

fn without_controls(octets: &Bytes) -> Bytes {
    if !any_byte(octets, is_control) {
        return octets.clone();
    }
    octets.iter().map(|&octet| if is_control(octet) { b' ' } else { octet }).collect()
}

/// A name prepared for comparison.
#[derive(Clone, Copy)]
struct Name {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl Name {
    /// Longer than any header name that is looked up; a longer one matches nothing.
    const MAX: usize = 40;

    fn of(name: &str) -> Self {
        let mut bytes = [0; Self::MAX];
        let name = canonical(name).as_bytes();
        let Some(place) = bytes.get_mut(..name.len()) else { return Self { bytes, len: usize::MAX } };
        place.copy_from_slice(name);
        Self { bytes, len: name.len() }
    }

    fn matches(&self, name: &str) -> bool {
        name.len() == self.len
            && self.bytes.get(..self.len).is_some_and(|own| own.eq_ignore_ascii_case(name.as_bytes()))
    }

    fn is(&self, header: &Header) -> bool {
        self.matches(name_of(header))
    }
}

/// Compact forms: RFC 3261 §7.3.3, RFC 3515, 3841, 3892, 4028, 6665, 8224.
fn canonical(name: &str) -> &str {
    let &[letter] = name.as_bytes() else { return name };
    match letter.to_ascii_lowercase() {
        b'a' => "Accept-Contact",
        b'b' => name::REFERRED_BY,
        b'c' => name::CONTENT_TYPE,
        b'd' => "Request-Disposition",
        b'e' => name::CONTENT_ENCODING,
        b'f' => name::FROM,
        b'i' => name::CALL_ID,
        b'j' => "Reject-Contact",
        b'k' => name::SUPPORTED,
        b'l' => name::CONTENT_LENGTH,
        b'm' => name::CONTACT,
        b'n' => "Identity-Info",
        b'o' => name::EVENT,
        b'r' => name::REFER_TO,
        b's' => name::SUBJECT,
        b't' => name::TO,
        b'u' => name::ALLOW_EVENTS,
        b'v' => name::VIA,
        b'x' => name::SESSION_EXPIRES,
        b'y' => "Identity",
        _ => name,
    }
}

macro_rules! known_headers {
    ($($variant:ident $name:literal),* $(,)?) => {
        fn name_of(header: &Header) -> &str {
            match header {
                $(Header::$variant(_) => $name,)*
                Header::Other(name, _) => name,
            }
        }

        fn value_of(header: &Header) -> &str {
            match header {
                $(Header::$variant(field) => field.value(),)*
                Header::Other(_, value) => value,
            }
        }

        fn build(name: &str, value: String) -> Header {
            $(
                if name.len() == $name.len() && name.eq_ignore_ascii_case($name) {
                    return Header::$variant(rsip::headers::$variant::new(value));
                }
            )*
            Header::Other(name.to_owned(), value)
        }
    };
}

// The commonest first: `build` compares in this order.
known_headers! {
    Via "Via",
    From "From",
    To "To",
    CallId "Call-ID",
    CSeq "CSeq",
    Contact "Contact",
    MaxForwards "Max-Forwards",
    ContentLength "Content-Length",
    ContentType "Content-Type",
    Allow "Allow",
    Supported "Supported",
    UserAgent "User-Agent",
    RecordRoute "Record-Route",
    Route "Route",
    Require "Require",
    Accept "Accept",
    AcceptEncoding "Accept-Encoding",
    AcceptLanguage "Accept-Language",
    AlertInfo "Alert-Info",
    AuthenticationInfo "Authentication-Info",
    Authorization "Authorization",
    CallInfo "Call-Info",
    ContentDisposition "Content-Disposition",
    ContentEncoding "Content-Encoding",
    ContentLanguage "Content-Language",
    Date "Date",
    ErrorInfo "Error-Info",
    Event "Event",
    Expires "Expires",
    InReplyTo "In-Reply-To",
    MimeVersion "MIME-Version",
    MinExpires "Min-Expires",
    Organization "Organization",
    Priority "Priority",
    ProxyAuthenticate "Proxy-Authenticate",
    ProxyAuthorization "Proxy-Authorization",
    ProxyRequire "Proxy-Require",
    ReplyTo "Reply-To",
    RetryAfter "Retry-After",
    Server "Server",
    Subject "Subject",
    SubscriptionState "Subscription-State",
    Timestamp "Timestamp",
    Unsupported "Unsupported",
    Warning "Warning",
    WwwAuthenticate "WWW-Authenticate",
}
