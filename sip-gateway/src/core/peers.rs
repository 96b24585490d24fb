//! Who is talking: the source check that precedes everything else.

use std::cmp::Ordering;
use std::net::{IpAddr, SocketAddr};

use consent::Mono;

use super::Reach;
use crate::{Config, PeerId};

/// A peer that a source address may be.
struct Candidate {
    peer: PeerId,
    prefix_len: u8,
    port_matches: bool,
}

/// Finds the peer of a source address.
///
/// The longest prefix wins. Among equally long ones the peer whose own address has the source's port wins;
/// if none has, and they are all of one side, the first listed; otherwise nobody, because guessing could
/// make a public source a district one. Addresses found by name count only where nobody's networks are: no
/// answer of DNS can take a source away from its peer.
pub(crate) fn peer_of(config: &Config, reach: &Reach, now: Mono, source: SocketAddr) -> Option<PeerId> {
    let source = SocketAddr::new(source.ip().to_canonical(), source.port());
    let configured = config.peers.iter().enumerate().filter_map(|(index, peer)| {
        let covering = peer.allow.iter().filter(|(net, len)| covers(*net, *len, source.ip()));
        let prefix_len = covering.map(|(_, len)| *len).max()?;
        Some(Candidate {
            peer: PeerId(index),
            prefix_len,
            port_matches: reach.has_port(PeerId(index), source),
        })
    });
    let mut configured = configured.peekable();
    if configured.peek().is_some() {
        return choose(config, configured);
    }
    let named =
        config.peers.iter().enumerate().filter(|(index, peer)| {
            peer.allow.is_empty() && reach.is_source(PeerId(*index), now, source.ip())
        });
    let named = named.map(|(index, _)| PeerId(index)).map(|peer| Candidate {
        peer,
        prefix_len: u8::MAX,
        port_matches: reach.has_port(peer, source),
    });
    choose(config, named)
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
        let order =
            (candidate.prefix_len, candidate.port_matches).cmp(&(first.prefix_len, first.port_matches));
        match order {
            Ordering::Greater => (best, ambiguous) = (Some(candidate), false),
            Ordering::Equal => ambiguous |= side(candidate.peer) != side(first.peer),
            Ordering::Less => {}
        }
    }
    best.filter(|_| !ambiguous).map(|found| found.peer)
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
                host: (*address).to_owned(),
                allow: vec![(net.parse().unwrap(), len.parse().unwrap())],
                ping_s: None,
                parties_signalled: false,
                may_refer: false,
                redirects: crate::Redirects::Refuse,
            }
        };
        Config {
            listeners: vec![],
            peers: peers.iter().map(peer).collect(),
            routes: Routes::default(),
            emergency: vec![],
            limits: Limits { max_calls: 1, max_message_bytes: 1, max_headers: 1, max_streams: 1 },
        }
    }

    fn find(config: &Config, source: &str) -> Option<usize> {
        let reach = Reach::new(config);
        peer_of(config, &reach, Mono(0), source.parse().unwrap()).map(|id| id.0)
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
    fn the_whole_internet_is_a_prefix_too() {
        let config = config(&[("10.0.0.1:5060", Side::Public, "0.0.0.0/0")]);
        assert_eq!(find(&config, "203.0.113.9:1"), Some(0));
        assert_eq!(find(&config, "[2001:db8::1]:1"), None);
    }
}
