//! Challenges and credentials as they stand in header fields (RFC 3261 §20.7, §20.27, §20.28, §20.44,
//! §25.1; RFC 7235 §2.1).
//!
//! Total and bounded: what cannot be read is left out. A field is at most 8 KiB before it comes here.

use std::borrow::Cow;

use crate::Algorithm;
use crate::wire::{quoted_end, split_list, trim, unquoted};

/// Parameters of one challenge or of credentials; one with more is left out. RFC 7616 defines eleven.
const MAX_PARAMS: usize = 32;

/// Bytes of a value that is to be sent back. The longest nonces seen (those that carry tickets) take 500.
const MAX_VALUE_BYTES: usize = 1024;

/// The only scheme that is spoken here.
const SCHEME: &str = "Digest";

/// A challenge that can be answered: Digest, an algorithm that we know, `qop=auth` or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) realm: String,
    pub(crate) nonce: String,
    pub(crate) opaque: Option<String>,
    pub(crate) algorithm: Algorithm,
    /// Whether the algorithm was named: then its name is sent back, else not.
    pub(crate) named: bool,
    /// Whether `qop=auth` is offered; it must be taken then (RFC 3261 §22.4 rule 8).
    pub(crate) counted: bool,
    /// Whether only the nonce was wrong.
    pub(crate) stale: bool,
}

impl Challenge {
    /// The challenges of one field that can be answered, in their order. RFC 3261 §7.3.1 has one in a
    /// field, HTTP allows a list; both are read.
    pub(crate) fn list(field: &str) -> Vec<Self> {
        Params::list(field).iter().filter_map(Self::of).collect()
    }

    fn of(params: &Params<'_>) -> Option<Self> {
        let (algorithm, named) = params.algorithm()?;
        let counted = match params.get("qop") {
            Some(offered) if offered.split(',').any(|qop| trim(qop).eq_ignore_ascii_case("auth")) => true,
            Some(_) => return None,
            None => false,
        };
        let short = |name: &str| match params.get(name) {
            Some(value) if value.len() > MAX_VALUE_BYTES => Err(()),
            value => Ok(value.map(str::to_owned)),
        };
        Some(Self {
            realm: short("realm").ok()??,
            nonce: short("nonce").ok()??,
            opaque: short("opaque").ok()?,
            algorithm,
            named,
            counted,
            stale: params.get("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
        })
    }

    /// The value of a WWW-Authenticate field.
    pub(crate) fn field(&self) -> String {
        let mut out = Writer::new();
        out.quoted("realm", &self.realm);
        out.quoted("nonce", &self.nonce);
        if self.stale {
            out.plain("stale", "true");
        }
        out.plain("algorithm", self.algorithm.token());
        out.quoted("qop", "auth");
        out.0
    }
}

/// The credentials of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials<'a> {
    pub(crate) username: Cow<'a, str>,
    pub(crate) realm: Cow<'a, str>,
    pub(crate) nonce: Cow<'a, str>,
    pub(crate) uri: Cow<'a, str>,
    pub(crate) response: Cow<'a, str>,
    pub(crate) algorithm: Algorithm,
    /// Whether the algorithm is to be named.
    pub(crate) named: bool,
    pub(crate) opaque: Option<Cow<'a, str>>,
    /// Nonce count and client nonce of `qop=auth`; `None` without `qop`.
    pub(crate) count: Option<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Credentials<'a> {
    /// Reads a field's value; `None` if it is no Digest, or one that we cannot check.
    pub(crate) fn parse(field: &'a str) -> Option<Self> {
        let lists = Params::list(field);
        let [params] = lists.as_slice() else { return None };
        let (algorithm, named) = params.algorithm()?;
        let count = match params.get("qop") {
            Some(qop) if qop.eq_ignore_ascii_case("auth") => Some((params.own("nc")?, params.own("cnonce")?)),
            Some(_) => return None,
            None => None,
        };
        Some(Self {
            username: params.own("username")?,
            realm: params.own("realm")?,
            nonce: params.own("nonce")?,
            uri: params.own("uri")?,
            response: params.own("response")?,
            algorithm,
            named,
            opaque: params.own("opaque"),
            count,
        })
    }

    /// The value of an Authorization or Proxy-Authorization field.
    pub(crate) fn field(&self) -> String {
        let mut out = Writer::new();
        out.quoted("username", &self.username);
        out.quoted("realm", &self.realm);
        out.quoted("nonce", &self.nonce);
        out.quoted("uri", &self.uri);
        out.quoted("response", &self.response);
        if self.named {
            out.plain("algorithm", self.algorithm.token());
        }
        if let Some(opaque) = &self.opaque {
            out.quoted("opaque", opaque);
        }
        if let Some((nc, cnonce)) = &self.count {
            out.plain("qop", "auth");
            out.quoted("cnonce", cnonce);
            out.plain("nc", nc);
        }
        out.0
    }
}

/// The parameters of one challenge or of credentials.
struct Params<'a>(Vec<(&'a str, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Those of every Digest in a field. One with a fault is left out whole.
    fn list(field: &'a str) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        // Whether what is read belongs to the last one found.
        let mut ours = false;
        for element in split_list(field).filter(|element| !element.is_empty()) {
            let (scheme, param) = split_scheme(element);
            if let Some(scheme) = scheme {
                ours = scheme.eq_ignore_ascii_case(SCHEME);
                if ours {
                    found.push(Self(Vec::new()));
                }
            }
            if ours && !found.last_mut().is_some_and(|params| params.take(param)) {
                found.pop();
                ours = false;
            }
        }
        found
    }

    /// Takes in `name=value`; `false` if it is none, is there already, or there are too many.
    fn take(&mut self, param: &'a str) -> bool {
        let Some((name, value)) = param.split_once('=') else { return false };
        let (name, value) = (trim(name), trim(value));
        if name.is_empty() || self.get(name).is_some() || self.0.len() >= MAX_PARAMS {
            return false;
        }
        let whole = if value.starts_with('"') {
            quoted_end(value) == Some(value.len())
        } else {
            !value.contains(['"', ' ', '\t'])
        };
        if whole {
            self.0.push((name, unquoted(value)));
        }
        whole
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_ref())
    }

    fn own(&self, name: &str) -> Option<Cow<'a, str>> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    }

    /// The algorithm and whether it was named; MD5 where it was not (RFC 3261 §22.4).
    fn algorithm(&self) -> Option<(Algorithm, bool)> {
        match self.get("algorithm") {
            Some(token) => Algorithm::of_token(token).map(|algorithm| (algorithm, true)),
            None => Some((Algorithm::Md5, false)),
        }
    }
}

/// The scheme with which a list element begins a new challenge, if it does, and the rest of it.
fn split_scheme(element: &str) -> (Option<&str>, &str) {
    let end = element.find([' ', '\t', '=']).unwrap_or(element.len());
    let (first, rest) = element.split_at(end);
    let rest = trim(rest);
    if rest.is_empty() || rest.starts_with('=') { (None, element) } else { (Some(first), rest) }
}

/// Writes a field.
struct Writer(String);

impl Writer {
    fn new() -> Self {
        Self(SCHEME.to_owned())
    }

    fn plain(&mut self, name: &str, value: &str) {
        self.0.push_str(if self.0.len() == SCHEME.len() { " " } else { ", " });
        for part in [name, "=", value] {
            self.0.push_str(part);
        }
    }

    fn quoted(&mut self, name: &str, value: &str) {
        self.plain(name, "\"");
        for char in value.chars() {
            if matches!(char, '"' | '\\') {
                self.0.push('\\');
            }
            self.0.push(char);
        }
        self.0.push('"');
    }
}
