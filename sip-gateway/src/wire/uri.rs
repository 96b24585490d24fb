//! URIs (RFC 3261 §19.1, RFC 3966, RFC 5031), read from the text as received and never re-encoded.
//!
//! Left out: comparison (§19.1.4), which a back-to-back user agent with configured peers does not need.

use std::borrow::Cow;

use super::Malformed;
use super::grammar::{Params, any_byte, trim};
use crate::Transport;

/// A URI; every part as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uri<'a> {
    /// `sip:` or `sips:`.
    Sip(SipUri<'a>),
    /// `tel:`.
    Tel(TelUri<'a>),
    /// Any other scheme, `urn:` among them.
    Other {
        /// Before the first colon.
        scheme: &'a str,
        /// After it.
        opaque: &'a str,
    },
}

/// `sip:user:password@host:port;params?headers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SipUri<'a> {
    /// Whether the scheme is `sips`.
    pub secure: bool,
    /// Before the `@` and its password, with its own `;` parameters.
    pub user: Option<&'a str>,
    /// Deprecated by RFC 3261 §19.1.1, but seen.
    pub password: Option<&'a str>,
    /// Name or address; an IPv6 literal with its brackets.
    pub host: &'a str,
    /// Explicit port.
    pub port: Option<u16>,
    /// URI parameters.
    pub params: Params<'a>,
    /// After `?`.
    pub headers: Option<&'a str>,
}

/// `tel:number;params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelUri<'a> {
    /// With its visual separators.
    pub number: &'a str,
    /// `phone-context`, `isub`, `ext` and others.
    pub params: Params<'a>,
}

impl<'a> Uri<'a> {
    /// Reads one. Linear; nothing is copied.
    ///
    /// # Errors
    /// [`Malformed::Uri`] if there is no scheme, a forbidden character, or a `sip:` without a host.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let is_forbidden = |byte| byte <= b' ' || matches!(byte, b'<' | b'>' | b'"' | 0x7f);
        if any_byte(text.as_bytes(), is_forbidden) {
            return Err(Malformed::Uri);
        }
        let (scheme, opaque) = text.split_once(':').ok_or(Malformed::Uri)?;
        if !is_scheme(scheme) || opaque.is_empty() {
            return Err(Malformed::Uri);
        }
        if scheme.eq_ignore_ascii_case("sip") {
            return SipUri::parse(opaque, false).map(Self::Sip);
        }
        if scheme.eq_ignore_ascii_case("sips") {
            return SipUri::parse(opaque, true).map(Self::Sip);
        }
        if scheme.eq_ignore_ascii_case("tel") {
            return TelUri::parse(opaque).map(Self::Tel);
        }
        Ok(Self::Other { scheme, opaque })
    }

    /// The user part, or the number of a `tel:`: percent-decoded, without parameters. Tells users apart; what
    /// number it is may hang on them ([`Self::subscriber`]).
    pub fn user(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Sip(uri) => uri.user.map(|user| decoded(before_params(user))),
            Self::Tel(uri) => Some(decoded(uri.number)),
            Self::Other { .. } => None,
        }
    }

    /// The user part, or the telephone-subscriber of a `tel:`: percent-decoded, with its parameters, among them
    /// the `phone-context` of a local number (RFC 3966 §5.1.5).
    pub fn subscriber(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Sip(uri) => uri.user.map(decoded),
            Self::Tel(uri) => {
                let whole = format!("{}{}", uri.number, uri.params.as_str());
                Some(Cow::Owned(decoded(&whole).into_owned()))
            }
            Self::Other { .. } => None,
        }
    }
}

impl<'a> SipUri<'a> {
    /// Whether it leads there by TLS.
    pub(crate) fn is_by_tls(&self) -> bool {
        self.secure || self.params.get("transport").is_some_and(|value| value.eq_ignore_ascii_case("tls"))
    }

    /// Its port, or the usual one (RFC 3261 §19.1.2).
    pub(crate) fn port_or_usual(&self) -> u16 {
        let usual = if self.is_by_tls() { Transport::Tls } else { Transport::Udp };
        self.port.unwrap_or(usual.usual_port())
    }

    fn parse(text: &'a str, secure: bool) -> Result<Self, Malformed> {
        // `@` is escaped in every other part (§25.1), so the last one ends the userinfo and is the only one.
        let (userinfo, rest) = match text.rsplit_once('@') {
            Some((userinfo, rest)) => (Some(userinfo), rest),
            None => (None, text),
        };
        if userinfo.is_some_and(|userinfo| userinfo.contains('@')) {
            return Err(Malformed::Uri);
        }
        let (user, password) = match userinfo.and_then(|userinfo| userinfo.split_once(':')) {
            Some((user, password)) => (Some(user), Some(password)),
            None => (userinfo, None),
        };
        let (rest, headers) = match rest.split_once('?') {
            Some((rest, headers)) => (rest, Some(headers)),
            None => (rest, None),
        };
        let (hostport, params) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
        let (host, port) = host_port(hostport)?;
        Ok(Self { secure, user, password, host, port, params: Params::parse_uri(params)?, headers })
    }
}

impl<'a> TelUri<'a> {
    fn parse(text: &'a str) -> Result<Self, Malformed> {
        let (number, params) = text.split_at(text.find(';').unwrap_or(text.len()));
        if number.is_empty() {
            return Err(Malformed::Uri);
        }
        Ok(Self { number, params: Params::parse_uri(params)? })
    }
}

/// `host[:port]` (white space around the colon is allowed in a Via, so it is trimmed here).
pub(super) fn host_port(text: &str) -> Result<(&str, Option<u16>), Malformed> {
    let text = trim(text);
    let end = match text.strip_prefix('[') {
        Some(inner) => inner.find(']').ok_or(Malformed::Uri)? + 2,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(end);
    let host = trim(host);
    if !is_host(host) {
        return Err(Malformed::Uri);
    }
    let port = trim(port);
    if port.is_empty() {
        return Ok((host, None));
    }
    let digits = trim(port.strip_prefix(':').ok_or(Malformed::Uri)?);
    Ok((host, Some(decimal(digits).ok_or(Malformed::Uri)?)))
}

/// Digits only: no sign, no white space, no overflow.
pub(super) fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Names are wider than the grammar (underscores are seen); IPv6 literals are judged by their characters,
/// because RFC 5118 §4.10 asks to accept three colons in a row.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(literal) => {
            literal.contains(':')
                && literal.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'))
        }
        None => {
            !host.is_empty()
                && !any_byte(host.as_bytes(), |byte| {
                    !byte.is_ascii_alphanumeric() && !matches!(byte, b'-' | b'.' | b'_')
                })
        }
    }
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// A user part without its parameters.
pub fn before_params(user: &str) -> &str {
    user.split_once(';').map_or(user, |(user, _)| user)
}

/// The parameters of a user part or telephone-subscriber, each with its value (RFC 3966 §3).
pub fn user_params(user: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    user.split(';').skip(1).filter(|param| !param.trim().is_empty()).map(|param| {
        let (name, value) = param.split_once('=').map_or((param, None), |(name, value)| (name, Some(value)));
        (name.trim(), value.map(str::trim))
    })
}

/// Percent-decoded for reading; a `%` without two hex digits stays, octets that are not UTF-8 read as `U+FFFD`.
pub fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                octets.push(hex(*high) << 4 | hex(*low));
                rest = after;
            }
            _ => octets.push(*first),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&octets).into_owned())
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20).wrapping_sub(b'a') + 10,
    }
}
