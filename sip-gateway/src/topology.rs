//! Where one side is: its hosts as its messages show them, and whether a text names one of them.
//!
//! Learnt of a leg: the sources of its messages, the host of its peer, sent-by of Via, Contact, Record-Route,
//! what follows the `@` of its Call-ID, and the addresses of its session descriptions. A name without a dot
//! is nobody's alone and is not looked for; such a name goes only where a host is written anew anyway.

use std::fmt;
use std::net::IpAddr;

use crate::LegMedia;
use crate::wire::{Headers, NameAddr, Uri, Via, decoded, name};

/// Hosts known of one leg; more are not learnt. A call that is transferred back and forth has a dozen.
const MAX_HOSTS: usize = 24;

/// The longest name of a host (RFC 1035 §2.3.4).
const LONGEST_HOST: usize = 253;

/// Hosts of one side, lower case and without brackets. `Debug` does not show them (I4).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hosts({})", self.0.len())
    }
}

impl Hosts {
    /// Takes in a host, with or without brackets.
    pub fn learn(&mut self, host: &str) {
        let host = host.trim_matches(['[', ']']).trim_end_matches('.');
        let address = host.parse::<IpAddr>().ok();
        let looked_for = match address {
            Some(ip) => !ip.is_unspecified(),
            None => host.contains('.') && !is_nowhere(host),
        };
        if !looked_for || host.len() > LONGEST_HOST {
            return;
        }
        self.add(host.to_ascii_lowercase());
        if let Some(ip) = address {
            self.add(ip.to_canonical().to_string());
        }
    }

    /// Takes in what a message of theirs shows, but for `own` hosts of ours.
    pub(crate) fn learn_from(&mut self, headers: &Headers, own: impl Fn(&str) -> bool) {
        let mut learn = |host: &str| {
            if !own(host) {
                self.learn(host);
            }
        };
        for via in headers.all(name::VIA).flat_map(Via::list).flatten() {
            learn(via.host);
        }
        for field in [name::CONTACT, name::RECORD_ROUTE] {
            for address in headers.list(field).filter_map(|address| NameAddr::parse(address).ok()) {
                if let Ok(Uri::Sip(uri)) = address.parsed_uri() {
                    learn(uri.host);
                }
            }
        }
        if let Some((_, host)) = headers.first(name::CALL_ID).and_then(|call_id| call_id.rsplit_once('@')) {
            learn(host.split(':').next().filter(|_| !host.starts_with('[')).unwrap_or(host));
        }
    }

    /// Takes in the addresses of a session description of theirs.
    pub(crate) fn learn_media(&mut self, media: &LegMedia, own: impl Fn(&str) -> bool) {
        if let Some(origin) = media.origin.rsplit(' ').next().filter(|origin| !own(origin)) {
            self.learn(origin);
        }
        for address in media.streams.iter().flat_map(|stream| [stream.rtp, stream.rtcp]).flatten() {
            self.learn_source(address.ip(), &own);
        }
    }

    /// Takes in an address of theirs.
    pub(crate) fn learn_source(&mut self, ip: IpAddr, own: impl Fn(&str) -> bool) {
        let host = ip.to_canonical().to_string();
        if !own(&host) {
            self.learn(&host);
        }
    }

    /// All but these; `None` if none of these is among them.
    pub(crate) fn without<'a>(&self, known: impl Iterator<Item = &'a String> + Clone) -> Option<Self> {
        let is_known = |host: &String| known.clone().any(|known| known.eq_ignore_ascii_case(host));
        let fewer = || self.0.iter().filter(|host| !is_known(host)).cloned().collect();
        self.0.iter().any(is_known).then(|| Self(fewer()))
    }

    /// Whether a text names one of them, percent-encoded or not.
    #[must_use]
    pub fn appear_in(&self, text: &str) -> bool {
        if self.0.is_empty() || memchr::memchr3(b'.', b':', b'%', text.as_bytes()).is_none() {
            return false;
        }
        let plain = text.to_ascii_lowercase();
        self.find_in(&plain) || (plain.contains('%') && self.find_in(&decoded(&plain).to_ascii_lowercase()))
    }

    fn find_in(&self, text: &str) -> bool {
        self.0.iter().any(|host| {
            memchr::memmem::find_iter(text.as_bytes(), host.as_bytes())
                .any(|at| is_whole(text.as_bytes(), at, at + host.len()))
        })
    }

    fn add(&mut self, host: String) {
        if self.0.len() < MAX_HOSTS && !self.0.contains(&host) {
            self.0.push(host);
        }
    }
}

/// RFC 2606 §2: `.invalid` is no host.
pub(crate) fn is_nowhere(host: &str) -> bool {
    host.rsplit('.').next().is_some_and(|top| top.eq_ignore_ascii_case("invalid"))
}

/// Whether what stands between is no part of a longer name or address. A name below a known one is theirs too.
fn is_whole(text: &[u8], start: usize, end: usize) -> bool {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let before = start.checked_sub(1).and_then(|at| text.get(at));
    let after = text.get(end);
    let goes_on = after == Some(&b'.') && text.get(end + 1).is_some_and(part);
    !before.is_some_and(part) && !after.is_some_and(part) && !goes_on
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(known: &[&str]) -> Hosts {
        let mut hosts = Hosts::default();
        for host in known {
            hosts.learn(host);
        }
        hosts
    }

    #[test]
    fn a_host_is_found_whole_in_any_case_and_encoding_only() {
        let known = hosts(&["10.1.0.10", "PBX.example.org", "[2001:DB8::a]"]);
        for text in [
            "10.1.0.10",
            "<sip:7331@10.1.0.10:5070>",
            "seen at 10.1.0.10.",
            "::ffff:10.1.0.10",
            "http://pbx.Example.org/ring.wav",
            "voice.pbx.example.org",
            "sip:a@[2001:db8::a]:5060",
            "<sip:x@y?Reason=text%3D%2210%2E1.0.10%22>",
        ] {
            assert!(known.appear_in(text), "{text}");
        }
        for text in
            ["110.1.0.10", "10.1.0.101", "10.1.0.10.5", "mypbx.example.org", "pbx.example.org.uk", "pbx"]
        {
            assert!(!known.appear_in(text), "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_not_looked_for() {
        let none = hosts(&["0.0.0.0", "::", "pbx", "anonymous.invalid", ""]);
        assert_eq!(none, Hosts::default());
        assert!(!none.appear_in("0.0.0.0 pbx anonymous.invalid"));
    }

    #[test]
    fn no_more_hosts_are_learnt_than_there_is_room_for() {
        let mut many = Hosts::default();
        for octet in 0..=255 {
            many.learn(&format!("10.0.0.{octet}"));
        }
        assert_eq!(many.0.len(), MAX_HOSTS);
    }
}
