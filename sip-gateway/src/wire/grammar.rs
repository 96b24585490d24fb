//! The pieces of RFC 3261 §25.1 that every field shares: tokens, quoted strings, comma lists, parameters.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::Malformed;

/// Parameters of one field or URI; more are refused. The longest seen in the field are a dozen.
const MAX_PARAMETERS: usize = 64;

/// Which octets a `token` has.
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut octet: u8 = 0;
    while octet < 0x7f {
        table[octet as usize] = octet.is_ascii_alphanumeric()
            || matches!(octet, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
        octet += 1;
    }
    table
};

/// RFC 3261 `token`.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| TOKEN[usize::from(byte)])
}

/// The token that `text` starts with; empty if there is none.
pub(crate) fn leading_token(text: &str) -> &str {
    let end = text.bytes().position(|byte| !TOKEN[usize::from(byte)]);
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

/// A control character but HTAB. None stands in a field but as a quoted pair (RFC 3261 §25.1).
pub(super) fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

/// SP and HTAB are all the white space that is left after unfolding.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_ascii()
}

/// Whether any octet is of a kind. Without a way out in the middle, which lets the compiler test many at once.
pub(crate) fn any_byte(text: &[u8], kind: impl Fn(u8) -> bool) -> bool {
    text.iter().fold(false, |found, &byte| found | kind(byte))
}

/// The end (exclusive) of the quoted string that `text` starts with, or `None` if it does not end.
pub(crate) fn quoted_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// A quoted string's content with its escapes resolved; any other text as it is.
pub(crate) fn unquoted(text: &str) -> Cow<'_, str> {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else {
        return Cow::Borrowed(text);
    };
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        plain.extend(if char == '\\' { chars.next() } else { Some(char) });
    }
    Cow::Owned(plain)
}

/// Elements between commas that are neither quoted nor in angle brackets, trimmed; empty ones included.
pub(crate) fn split_list(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = find_outside(text, b',').unwrap_or(text.len());
        rest = text.get(end + 1..);
        text.get(..end).map(trim)
    })
}

/// Where `wanted` stands outside quoted strings and angle brackets.
pub(crate) fn find_outside(text: &str, wanted: u8) -> Option<usize> {
    let found = memchr(wanted, text.as_bytes())?;
    if memchr2(b'"', b'<', text.as_bytes().get(..found).unwrap_or_default()).is_none() {
        return Some(found);
    }
    let (mut quoted, mut escaped, mut in_brackets) = (false, false, false);
    text.bytes().position(|byte| {
        if escaped {
            escaped = false;
            return false;
        }
        match byte {
            b'\\' if quoted => escaped = true,
            b'"' if !in_brackets => quoted = !quoted,
            _ if quoted => {}
            b'<' => in_brackets = true,
            b'>' => in_brackets = false,
            _ => return byte == wanted && !in_brackets,
        }
        false
    })
}

/// Parameters as received, from their first `;` on; read lazily.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Params<'a>(&'a str);

/// One parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param<'a> {
    /// Its name as received.
    pub name: &'a str,
    /// Its value as received, quotes included; `None` for a flag.
    pub value: Option<&'a str>,
}

impl<'a> Params<'a> {
    /// Parameters of a header field: every one a token with an optional token, host or quoted string.
    pub(super) fn parse(text: &'a str) -> Result<Self, Malformed> {
        let params = Self::unchecked(text)?;
        for (count, param) in params.iter().enumerate() {
            if count >= MAX_PARAMETERS || !is_token(param.name.as_bytes()) {
                return Err(Malformed::Parameter);
            }
            if !param.value.is_none_or(is_header_value) {
                return Err(Malformed::Parameter);
            }
        }
        Ok(params)
    }

    /// Parameters of a URI, whose characters the caller has checked.
    pub(super) fn parse_uri(text: &'a str) -> Result<Self, Malformed> {
        let params = Self::unchecked(text)?;
        match params
            .iter()
            .take(MAX_PARAMETERS + 1)
            .enumerate()
            .find(|(count, param)| *count >= MAX_PARAMETERS || param.name.is_empty())
        {
            Some(_) => Err(Malformed::Parameter),
            None => Ok(params),
        }
    }

    fn unchecked(text: &'a str) -> Result<Self, Malformed> {
        let text = trim(text);
        if text.is_empty() || text.starts_with(';') { Ok(Self(text)) } else { Err(Malformed::Parameter) }
    }

    /// The text, from the first `;` on.
    pub fn as_str(&self) -> &'a str {
        self.0
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = Param<'a>> + use<'a> {
        let mut rest = self.0.strip_prefix(';');
        std::iter::from_fn(move || {
            let text = rest?;
            let end = find_outside(text, b';').unwrap_or(text.len());
            rest = text.get(end + 1..);
            let (name, value) = match text[..end].split_once('=') {
                Some((name, value)) => (name, Some(trim(value))),
                None => (&text[..end], None),
            };
            Some(Param { name: trim(name), value })
        })
    }

    /// The value of the first parameter of that name, in any case, as received; empty for a flag.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let param = self.iter().find(|param| param.name.eq_ignore_ascii_case(name))?;
        Some(param.value.unwrap_or_default())
    }

    /// Whether there is a parameter of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }
}

/// Token, host (IPv6 with or without brackets, RFC 5118 §4.5) or a whole quoted string. More characters
/// than the grammar has are let through where they cannot be mistaken for a separator.
fn is_header_value(value: &str) -> bool {
    if value.starts_with('"') {
        return quoted_end(value) == Some(value.len());
    }
    !value.is_empty()
        && !value.bytes().any(|byte| byte <= b' ' || matches!(byte, b'"' | b',' | b';' | b'<' | b'>' | 0x7f))
}
