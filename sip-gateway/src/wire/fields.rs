//! Small header fields: CSeq, Max-Forwards, Content-Length, Retry-After, Reason, Content-Type.

use std::borrow::Cow;

use super::Malformed;
use super::grammar::{Params, find_outside, is_token, leading_token, split_list, trim, unquoted};
use super::uri::decimal;

/// CSeq numbers stay below 2^31 (RFC 3261 §8.1.1.5).
const CSEQ_LIMIT: u32 = 1 << 31;

/// CSeq (RFC 3261 §20.16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// The sequence number.
    pub number: u32,
    /// The method as received.
    pub method: &'a str,
}

impl<'a> CSeq<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed::CSeq`] if the number is not a decimal below 2^31 or the method not a token.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let (number, method) = trim(text).split_once([' ', '\t']).ok_or(Malformed::CSeq)?;
        let method = trim(method);
        let number = decimal(number).filter(|&number| number < CSEQ_LIMIT).ok_or(Malformed::CSeq)?;
        if is_token(method.as_bytes()) { Ok(Self { number, method }) } else { Err(Malformed::CSeq) }
    }
}

/// Max-Forwards: 0 to 255 (RFC 3261 §20.22).
///
/// # Errors
/// [`Malformed::Number`].
pub fn max_forwards(text: &str) -> Result<u8, Malformed> {
    decimal(trim(text)).ok_or(Malformed::Number)
}

/// Content-Length in bytes (RFC 3261 §20.14).
///
/// # Errors
/// [`Malformed::Number`] if it is signed, empty or beyond the address space.
pub fn content_length(text: &str) -> Result<usize, Malformed> {
    decimal(trim(text)).ok_or(Malformed::Number)
}

/// The seconds of Retry-After, Expires, Session-Expires or Min-SE, whose comment and parameters are left
/// aside. `None` if they are not a decimal below 2^32.
pub fn delta_seconds(text: &str) -> Option<u32> {
    decimal(trim(text.split(['(', ';']).next().unwrap_or_default()))
}

/// Session-Expires (RFC 4028 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionExpires {
    /// The session interval in seconds.
    pub interval_s: u32,
    /// Whether its refresher is `uac`, or `uas`; `None` if it names neither.
    pub refresher_is_uac: Option<bool>,
}

impl SessionExpires {
    /// Reads one; `None` if its interval is not a decimal below 2^32.
    pub fn parse(text: &str) -> Option<Self> {
        let params = text.split_at(text.find(';').unwrap_or(text.len())).1;
        let refresher = Params::parse(params).ok().and_then(|params| params.get("refresher"));
        let is = |role: &str| refresher.is_some_and(|named| named.eq_ignore_ascii_case(role));
        let refresher_is_uac = if is("uac") { Some(true) } else { is("uas").then_some(false) };
        Some(Self { interval_s: delta_seconds(text)?, refresher_is_uac })
    }
}

/// One element of a Reason header (RFC 3326).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason<'a> {
    /// `SIP`, `Q.850`, …
    pub protocol: &'a str,
    /// Its cause.
    pub cause: Option<u16>,
    /// Its text, unquoted.
    pub text: Option<Cow<'a, str>>,
}

impl<'a> Reason<'a> {
    /// Reads a comma list, leaving out what does not parse.
    pub fn list(text: &'a str) -> impl Iterator<Item = Self> {
        split_list(text).filter_map(|element| {
            let (protocol, params) = element.split_at(find_outside(element, b';').unwrap_or(element.len()));
            let params = Params::parse(params).ok()?;
            let protocol = trim(protocol);
            is_token(protocol.as_bytes()).then(|| Self {
                protocol,
                cause: params.get("cause").and_then(decimal),
                text: params.get("text").map(unquoted),
            })
        })
    }
}

/// Content-Type (RFC 3261 §20.15), also of a body part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaType<'a> {
    /// `application/sdp`, as received without parameters; white space around the slash is not removed.
    pub essence: &'a str,
    /// `boundary` and others.
    pub params: Params<'a>,
}

impl<'a> MediaType<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed::Parameter`].
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let (essence, params) = text.split_at(find_outside(text, b';').unwrap_or(text.len()));
        Ok(Self { essence: trim(essence), params: Params::parse(params)? })
    }

    /// Type and subtype that a Content-Type begins with, as the most lenient reader has them: with white space
    /// around the slash, and whatever comes after. `None` if it begins with none.
    pub fn leading(text: &'a str) -> Option<(&'a str, &'a str)> {
        let (kind, rest) = text.split_once('/')?;
        let (kind, subtype) = (trim(kind), leading_token(trim(rest)));
        (is_token(kind.as_bytes()) && !subtype.is_empty()).then_some((kind, subtype))
    }

    /// Whether it is this type, in any case.
    pub fn is(&self, essence: &str) -> bool {
        self.essence.eq_ignore_ascii_case(essence)
    }
}
