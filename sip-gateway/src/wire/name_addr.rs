//! `name-addr` and `addr-spec` with header parameters: From, To, Contact, Route, Record-Route,
//! P-Asserted-Identity, Diversion, Refer-To (RFC 3261 §20.10, §25.1).

use std::borrow::Cow;

use super::Malformed;
use super::grammar::{Params, quoted_end, split_list, trim, unquoted};
use super::uri::Uri;

/// An address in a header field, every part as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// Display name with its quotes; empty if there is none.
    pub display: &'a str,
    /// The URI, without angle brackets.
    pub uri: &'a str,
    /// Header parameters.
    pub params: Params<'a>,
}

impl<'a> NameAddr<'a> {
    /// Reads one, which is not a list.
    ///
    /// # Errors
    /// [`Malformed`]: quotes or brackets not closed, white space in the brackets (RFC 4475 §3.1.2.14), an
    /// unquoted comma in the display name (§3.1.2.15), a bare URI with `?` (§3.1.2.13), a malformed URI.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let text = trim(text);
        let Some(open) = opening_bracket(text)? else { return Self::parse_bare(text) };
        let (display, rest) = text.split_at(open);
        let (uri, params) = rest[1..].split_once('>').ok_or(Malformed::NameAddr)?;
        Uri::parse(uri)?;
        Ok(Self { display: trim(display), uri, params: Params::parse(params)? })
    }

    /// Reads a comma list; elements left empty are errors.
    pub fn list(text: &'a str) -> impl Iterator<Item = Result<Self, Malformed>> {
        split_list(text).map(Self::parse)
    }

    fn parse_bare(text: &'a str) -> Result<Self, Malformed> {
        let (uri, params) = text.split_at(text.find(';').unwrap_or(text.len()));
        let uri = trim(uri);
        if uri.contains(['?', ',']) {
            return Err(Malformed::NameAddr);
        }
        Uri::parse(uri)?;
        Ok(Self { display: "", uri, params: Params::parse(params)? })
    }

    /// The display name for reading, quotes and escapes resolved.
    pub fn display_name(&self) -> Cow<'a, str> {
        unquoted(self.display)
    }

    /// Its URI, read. It parsed when the address did.
    ///
    /// # Errors
    /// As [`Uri::parse`].
    pub fn parsed_uri(&self) -> Result<Uri<'a>, Malformed> {
        Uri::parse(self.uri)
    }

    /// User part of the URI ([`Uri::user`]); empty if it has none.
    pub fn user(&self) -> Cow<'a, str> {
        self.parsed_uri().ok().and_then(|uri| uri.user()).unwrap_or_default()
    }

    /// The same with its parameters ([`Uri::subscriber`]).
    pub fn subscriber(&self) -> Cow<'a, str> {
        self.parsed_uri().ok().and_then(|uri| uri.subscriber()).unwrap_or_default()
    }

    /// The tag.
    pub fn tag(&self) -> Option<&'a str> {
        self.params.get("tag").filter(|tag| !tag.is_empty())
    }

    /// The same address with this tag instead of its own, or without one; all else as received.
    pub fn with_tag(&self, tag: Option<&str>) -> String {
        self.rebuilt(self.uri, tag)
    }

    /// The same display name and parameters with another URI and tag.
    pub fn rebuilt(&self, uri: &str, tag: Option<&str>) -> String {
        let mut value =
            String::with_capacity(self.display.len() + uri.len() + self.params.as_str().len() + 40);
        if !self.display.is_empty() {
            value.push_str(self.display);
            value.push(' ');
        }
        value.push('<');
        value.push_str(uri);
        value.push('>');
        for param in self.params.iter().filter(|param| !param.name.eq_ignore_ascii_case("tag")) {
            value.push(';');
            value.push_str(param.name);
            if let Some(text) = param.value {
                value.push('=');
                value.push_str(text);
            }
        }
        if let Some(tag) = tag {
            value.push_str(";tag=");
            value.push_str(tag);
        }
        value
    }
}

/// Where the URI's bracket opens; `None` for an addr-spec.
fn opening_bracket(text: &str) -> Result<Option<usize>, Malformed> {
    if text.starts_with('"') {
        let end = quoted_end(text).ok_or(Malformed::NameAddr)?;
        let gap = text[end..].find(|char| !matches!(char, ' ' | '\t')).ok_or(Malformed::NameAddr)?;
        return if text[end + gap..].starts_with('<') {
            Ok(Some(end + gap))
        } else {
            Err(Malformed::NameAddr)
        };
    }
    let Some(open) = text.find('<') else { return Ok(None) };
    let display = &text[..open];
    if display.contains(';') {
        // An addr-spec with a bracket in a quoted parameter.
        return Ok(None);
    }
    if display.contains([',', '"', '>']) { Err(Malformed::NameAddr) } else { Ok(Some(open)) }
}
