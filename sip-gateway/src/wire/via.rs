//! Via (RFC 3261 §20.42, RFC 3581, RFC 5118 §4.5).

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::Malformed;
use super::grammar::{Params, find_outside, is_token, split_list, trim};
use super::uri::{decimal, host_port};

/// One Via, every part as received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// `UDP`, `TCP`, `TLS`, …
    pub transport: &'a str,
    /// sent-by host; an IPv6 literal with its brackets.
    pub host: &'a str,
    /// sent-by port.
    pub port: Option<u16>,
    /// `branch`, `received`, `rport` and others.
    pub params: Params<'a>,
}

impl<'a> Via<'a> {
    /// Reads one, which is not a list.
    ///
    /// # Errors
    /// [`Malformed::Via`], or what is wrong with its parameters.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let (version, via) = Self::of_any_version(text)?;
        if version == "2.0" { Ok(via) } else { Err(Malformed::Via) }
    }

    /// Its version, and what it would be if that were ours.
    fn of_any_version(text: &'a str) -> Result<(&'a str, Self), Malformed> {
        let (protocol, rest) = text.split_once('/').ok_or(Malformed::Via)?;
        let (version, rest) = rest.split_once('/').ok_or(Malformed::Via)?;
        if !trim(protocol).eq_ignore_ascii_case("SIP") {
            return Err(Malformed::Via);
        }
        let rest = trim(rest);
        let (transport, rest) = rest.split_once([' ', '\t']).ok_or(Malformed::Via)?;
        if !is_token(transport.as_bytes()) {
            return Err(Malformed::Via);
        }
        let (sent_by, params) = rest.split_at(find_outside(rest, b';').unwrap_or(rest.len()));
        let (host, port) = host_port(sent_by).map_err(|_| Malformed::Via)?;
        Ok((trim(version), Self { transport, host, port, params: Params::parse(params)? }))
    }

    /// Who sent the first of a comma list, whatever its version and its parameters, which are left out: a
    /// refusal must find its way although the Via is what is refused.
    ///
    /// # Errors
    /// [`Malformed::Via`].
    pub fn sent_by(text: &'a str) -> Result<Self, Malformed> {
        let sent_by = text.split([';', ',']).next().unwrap_or_default();
        Self::of_any_version(sent_by).map(|(_, via)| via)
    }

    /// Reads the first of a comma list.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn first(text: &'a str) -> Result<Self, Malformed> {
        split_list(text).next().ok_or(Malformed::Via).and_then(Self::parse)
    }

    /// Reads a comma list.
    pub fn list(text: &'a str) -> impl Iterator<Item = Result<Self, Malformed>> {
        split_list(text).map(Self::parse)
    }

    /// The branch, if there is one.
    pub fn branch(&self) -> Option<&'a str> {
        self.params.get("branch").filter(|branch| !branch.is_empty())
    }

    /// The `received` address, with or without brackets.
    pub fn received(&self) -> Option<IpAddr> {
        self.params.get("received")?.trim_matches(['[', ']']).parse().ok()
    }

    /// The `rport` filled in by the far end.
    pub fn rport(&self) -> Option<u16> {
        self.params.get("rport").and_then(decimal)
    }
}

/// A Via value (perhaps a list) whose first element is told where its request came from: `received` where
/// the source differs from sent-by or `rport` was asked for, `rport` where it was (RFC 3261 §18.2.1, RFC
/// 3581 §4). Everything else stays as received. A value that does not parse is returned as it is.
pub fn stamp_source(value: &str, source: SocketAddr) -> String {
    let end = find_outside(value, b',').unwrap_or(value.len());
    let (first, rest) = value.split_at(end);
    let Ok(via) = Via::parse(trim(first)) else { return value.to_owned() };
    let asked = via.params.contains("rport");
    let same_host = via.host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|ip| ip == source.ip());
    let (sent_by, _) = first.split_at(find_outside(first, b';').unwrap_or(first.len()));
    let mut stamped = trim(sent_by).to_owned();
    for param in via.params.iter() {
        if ["received", "rport"].iter().any(|name| param.name.eq_ignore_ascii_case(name)) {
            continue;
        }
        stamped.push(';');
        stamped.push_str(param.name);
        if let Some(value) = param.value {
            stamped.push('=');
            stamped.push_str(value);
        }
    }
    // Writing to a String cannot fail.
    if asked || !same_host {
        let _ = write!(stamped, ";received={}", source.ip());
    }
    if asked {
        let _ = write!(stamped, ";rport={}", source.port());
    }
    stamped + rest
}
