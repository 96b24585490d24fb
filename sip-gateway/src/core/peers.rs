//! Who is talking: the source check that precedes everything else.

use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};

use consent::Mono;

use super::Reach;
use crate::{Config, PeerId};

/// A peer that a source address may be.
struct Candidate {
    peer: PeerId,
    /// Whether a certificate names it.
    named: bool,
    prefix_len: u8,
    port_matches: bool,
}

/// Finds the peer of a source address, where a certificate of these names has been shown.
///
/// A peer whose certificate is asked for must have been named by it, and then comes before all others. Next
/// the longest prefix wins. Among equally long ones the peer whose own address has the source's port wins;
/// if none has, and they are all of one side, the first listed; otherwise nobody, because guessing could
/// make a public source a district one. Addresses found by name count only where nobody's networks are: no
/// answer of DNS can take a source away from its peer.
pub(crate) fn peer_of(
    config: &Config,
    reach: &Reach,
    now: Mono,
    source: SocketAddr,
    certified: &[String],
) -> Option<PeerId> {
    let source = SocketAddr::new(source.ip().to_canonical(), source.port());
    let possible = possible(config, reach, now, source.ip());
    let candidates = possible.into_iter().filter_map(|(peer, prefix_len)| {
        let certificate = config.peers.get(peer.0)?.certificate.as_deref();
        let shown = |name: &str| certified.iter().any(|shown| shown.eq_ignore_ascii_case(name));
        let port_matches = reach.has_port(peer, source);
        let candidate = Candidate { peer, named: certificate.is_some(), prefix_len, port_matches };
        certificate.is_none_or(shown).then_some(candidate)
    });
    choose(config, candidates)
}

/// Whether a source could be any peer's, before its certificate is known.
pub(crate) fn is_possible(config: &Config, reach: &Reach, now: Mono, source: SocketAddr) -> bool {
    !possible(config, reach, now, source.ip().to_canonical()).is_empty()
}

/// The peers in whose networks an address is, with the longest prefix of each; without any, those found there.
fn possible(config: &Config, reach: &Reach, now: Mono, ip: IpAddr) -> Vec<(PeerId, u8)> {
    let peers = || config.peers.iter().enumerate().map(|(index, peer)| (PeerId(index), peer));
    let configured = peers().filter_map(|(id, peer)| {
        let covering = peer.allow.iter().filter(|(net, len)| covers(*net, *len, ip));
        Some((id, covering.map(|(_, len)| *len).max()?))
    });
    let configured: Vec<_> = configured.collect();
    if !configured.is_empty() {
        return configured;
    }
    let found = peers().filter(|(id, peer)| peer.allow.is_empty() && reach.is_source(*id, now, ip));
    found.map(|(id, _)| (id, u8::MAX)).collect()
}

fn choose(config: &Config, candidates: impl IntoIterator<Item = Candidate>) -> Option<PeerId> {
    let side = |id: PeerId| config.peers.get(id.0).map(|peer| peer.side);
    let mut best: Option<Candidate> = None;
    let mut ambiguous = false;
    for candidate in candidates {
        let Some(first) = &best else {
            best = Some(candidate);
            continue;
        };
        match candidate.rank().cmp(&first.rank()) {
            Ordering::Greater => (best, ambiguous) = (Some(candidate), false),
            Ordering::Equal => ambiguous |= side(candidate.peer) != side(first.peer),
            Ordering::Less => {}
        }
    }
    best.filter(|_| !ambiguous).map(|found| found.peer)
}

impl Candidate {
    const fn rank(&self) -> (bool, u8, bool) {
        (self.named, self.prefix_len, self.port_matches)
    }
}

fn covers(net: IpAddr, prefix_len: u8, ip: IpAddr) -> bool {
    match (net.to_canonical(), ip) {
        (IpAddr::V4(net), IpAddr::V4(ip)) => {
            prefix_len <= 32 && shift_equal(net.to_bits().into(), ip.to_bits().into(), 32 - prefix_len)
        }
        (IpAddr::V6(net), IpAddr::V6(ip)) => {
            prefix_len <= 128 && shift_equal(net.to_bits(), ip.to_bits(), 128 - prefix_len)
        }
        _ => false,
    }
}

fn shift_equal(a: u128, b: u128, host_bits: u8) -> bool {
    (a ^ b).checked_shr(host_bits.into()).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use consent::Side;

    use super::*;
    use crate::locate::Place;
    use crate::{Limits, Peer, Routes, Transport};

    fn config(peers: &[(&str, Side, &str)]) -> Config {
        let peer = |(address, side, allow): &(&str, Side, &str)| {
            let (net, len) = allow.split_once('/').unwrap();
            Peer {
                name: (*address).to_owned(),
                side: *side,
                place: Place::at(Transport::Udp, address.parse().unwrap()),
                allow: vec![(net.parse().unwrap(), len.parse().unwrap())],
                ping_s: None,
                parties_signalled: false,
                preference_trusted: false,
                may_refer: false,
                trusts_identity: false,
                redirects: crate::Redirects::Refuse,
                certificate: None,
                account: None,
                allowance: crate::Allowance::default(),
            }
        };
        Config {
            listeners: vec![],
            peers: peers.iter().map(peer).collect(),
            routes: Routes::default(),
            emergency: vec![],
            limits: Limits {
                max_calls: 1,
                max_message_bytes: 1,
                max_headers: 1,
                max_streams: 1,
                requests_per_s: None,
            },
            session_timer: crate::SessionTimer::default(),
        }
    }

    fn find(config: &Config, source: &str) -> Option<usize> {
        let reach = Reach::new(config);
        peer_of(config, &reach, Mono(0), source.parse().unwrap(), &[]).map(|id| id.0)
    }

    #[test]
    fn the_longest_prefix_wins() {
        let config = config(&[
            ("10.0.0.1:5060", Side::Public, "10.0.0.0/8"),
            ("10.1.0.1:5060", Side::District, "10.1.0.0/16"),
            ("[2001:db8::1]:5060", Side::Public, "2001:db8::/32"),
        ]);
        assert_eq!(find(&config, "10.2.3.4:5060"), Some(0));
        assert_eq!(find(&config, "10.1.3.4:9"), Some(1));
        assert_eq!(find(&config, "[::ffff:10.1.3.4]:9"), Some(1));
        assert_eq!(find(&config, "[2001:db8:9::1]:9"), Some(2));
        assert_eq!(find(&config, "[2001:db9::1]:9"), None);
        assert_eq!(find(&config, "11.0.0.1:5060"), None);
    }

    #[test]
    fn overlapping_peers_are_told_apart_by_source_port() {
        let config = config(&[
            ("127.0.0.1:5070", Side::District, "127.0.0.1/32"),
            ("127.0.0.1:5080", Side::Public, "127.0.0.1/32"),
            ("127.0.0.1:5090", Side::Public, "127.0.0.1/32"),
        ]);
        assert_eq!(find(&config, "127.0.0.1:5070"), Some(0));
        assert_eq!(find(&config, "127.0.0.1:5080"), Some(1));
        assert_eq!(find(&config, "127.0.0.1:5090"), Some(2));
    }

    #[test]
    fn a_source_that_could_be_of_either_side_is_nobody() {
        let either = config(&[
            ("127.0.0.1:5070", Side::District, "127.0.0.1/32"),
            ("127.0.0.1:5080", Side::Public, "127.0.0.1/32"),
        ]);
        assert_eq!(find(&either, "127.0.0.1:6000"), None);
        let one_side = config(&[
            ("127.0.0.1:5070", Side::Public, "127.0.0.1/32"),
            ("127.0.0.1:5080", Side::Public, "127.0.0.1/32"),
        ]);
        assert_eq!(find(&one_side, "127.0.0.1:6000"), Some(0));
    }

    #[test]
    fn overlapping_peers_are_told_apart_by_certificate() {
        let mut config = config(&[
            ("127.0.0.1:5061", Side::District, "127.0.0.1/32"),
            ("127.0.0.1:5061", Side::Public, "127.0.0.0/8"),
            ("127.0.0.1:5060", Side::Public, "127.0.0.1/32"),
        ]);
        config.peers[0].certificate = Some("pbx.example.org".to_owned());
        config.peers[1].certificate = Some("sbc.example.net".to_owned());
        let reach = Reach::new(&config);
        let shown = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let source = "127.0.0.1:40000".parse().unwrap();
            peer_of(&config, &reach, Mono(0), source, &names).map(|id| id.0)
        };
        assert_eq!(shown(&["PBX.example.org"]), Some(0));
        assert_eq!(shown(&["other", "sbc.example.net"]), Some(1), "the name before the longer prefix");
        assert_eq!(shown(&["sbc.example.net.evil"]), Some(2));
        assert_eq!(shown(&[]), Some(2));
        assert_eq!(find(&config, "127.0.0.2:5061"), None, "a named peer shows its certificate");
        let possible = |source: &str| is_possible(&config, &reach, Mono(0), source.parse().unwrap());
        assert!(possible("127.0.0.2:1"));
        assert!(!possible("128.0.0.2:1"));
    }

    #[test]
    fn the_whole_internet_is_a_prefix_too() {
        let config = config(&[("10.0.0.1:5060", Side::Public, "0.0.0.0/0")]);
        assert_eq!(find(&config, "203.0.113.9:1"), Some(0));
        assert_eq!(find(&config, "[2001:db8::1]:1"), None);
    }
}
