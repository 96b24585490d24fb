//! The peers, how each is found, and in which order calls try them.

use std::net::{IpAddr, SocketAddr};

use consent::{NumberBlock, NumberError, Side};
use sip_gateway::locate::{Host, Place};
use sip_gateway::{Allowance, Peer, PeerId, Redirects, Routes, Transport};

use super::judge::{Fault, fault, side_name};
use super::raw;

/// How often a peer is pinged where there is another way to go, unless `options_ping_s` says otherwise:
/// often enough that most calls meet no dead peer, rarely enough to be no load. Where there is no other
/// way, nothing would follow from a ping.
const PING_S: u32 = 30;
/// Beyond this a ping tells nothing about now.
const MAX_PING_S: u64 = 3_600;
const DNS_PORT: u16 = 53;

/// Judges all of them; `asked`: whoever comes by TLS is asked for a certificate.
pub(super) fn judge(raw: &[raw::Peer], asked: bool) -> Result<Vec<Peer>, Fault> {
    let peers = raw.iter().enumerate().map(|(index, raw)| peer(&format!("peers[{index}]"), raw, asked));
    let mut peers = peers.collect::<Result<Vec<_>, _>>()?;
    check(&peers)?;
    for (index, raw) in raw.iter().enumerate() {
        let default = has_choice(&peers, index).then_some(PING_S);
        let ping_s = ping(&format!("peers[{index}].options_ping_s"), raw.options_ping_s, default)?;
        if let Some(peer) = peers.get_mut(index) {
            peer.ping_s = ping_s;
        }
    }
    Ok(peers)
}

/// Marks the peers whose `a=recordpref:on` is their party's consent.
pub(super) fn trust(names: &[String], peers: &mut [Peer], remarks: &mut Vec<String>) -> Result<(), Fault> {
    for (index, name) in names.iter().enumerate() {
        let key = format!("consent.trust_recordpref[{index}]");
        let Some(peer) = peers.iter_mut().find(|peer| peer.name == *name) else {
            return fault(key, format!("no peer is named \"{name}\""), "give the name of one of [[peers]]");
        };
        peer.preference_trusted = true;
        if !peer.parties_signalled {
            remarks.push(format!(
                "{key}: {name} has party_signals = \"none\", so no consent recording is made through it"
            ));
        }
    }
    Ok(())
}

/// Whether a call could go elsewhere than to this peer's one address.
fn has_choice(peers: &[Peer], index: usize) -> bool {
    let Some(peer) = peers.get(index) else { return false };
    peer.place.target().is_none() || peers.iter().filter(|other| other.side == peer.side).count() > 1
}

fn ping(key: &str, seconds: Option<u64>, default: Option<u32>) -> Result<Option<u32>, Fault> {
    match seconds {
        None => Ok(default),
        Some(0) => Ok(None),
        Some(seconds @ 1..=MAX_PING_S) => Ok(u32::try_from(seconds).ok()),
        Some(seconds) => {
            fault(key, format!("{seconds} is too much"), format!("give at most {MAX_PING_S}, or 0 for none"))
        }
    }
}

fn peer(key: &str, raw: &raw::Peer, asked: bool) -> Result<Peer, Fault> {
    if raw.name.is_empty() || !raw.name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    {
        return fault(format!("{key}.name"), "not a name", "use letters, digits, - and _");
    }
    let side = match raw.side.as_str() {
        "district" => Side::District,
        "public" => Side::Public,
        other => {
            return fault(
                format!("{key}.side"),
                format!("unknown side \"{other}\""),
                "use district or public",
            );
        }
    };
    let parties_signalled = match raw.party_signals.as_deref() {
        Some("verified") => true,
        Some("none") | None => false,
        Some(other) => {
            return fault(
                format!("{key}.party_signals"),
                format!("unknown value \"{other}\""),
                "use verified (after the conformance check) or none",
            );
        }
    };
    let redirects = match raw.redirects.as_deref() {
        Some("follow") => Redirects::Follow,
        Some("pass") => Redirects::Pass,
        Some("refuse") => Redirects::Refuse,
        None if side == Side::District => Redirects::Follow,
        None => Redirects::Refuse,
        Some(other) => {
            return fault(
                format!("{key}.redirects"),
                format!("unknown value \"{other}\""),
                "use follow, pass or refuse",
            );
        }
    };
    let place = peer_uri(&format!("{key}.uri"), &raw.uri)?;
    let allow = match &raw.allow {
        None => place.target().map(|target| only(target.address.ip())).into_iter().collect(),
        Some(networks) if networks.is_empty() => {
            return fault(
                format!("{key}.allow"),
                "nobody could talk as this peer",
                "give its networks, or leave the key out for the addresses of its uri",
            );
        }
        Some(networks) => networks
            .iter()
            .enumerate()
            .map(|(index, text)| network(&format!("{key}.allow[{index}]"), text))
            .collect::<Result<_, _>>()?,
    };
    check_secure(key, raw, place.transport)?;
    // Where nobody is asked for a certificate, the name is for the streams that we open.
    let certificate = raw.certificate_name.clone().filter(|_| asked);
    Ok(Peer {
        name: raw.name.clone(),
        side,
        place,
        allow,
        ping_s: None,
        parties_signalled,
        preference_trusted: false,
        may_refer: raw.allow_refer.unwrap_or(side == Side::District),
        trusts_identity: raw.trust_identity.unwrap_or(side == Side::District),
        redirects,
        certificate,
        account: None,
        allowance: Allowance::default(),
    })
}

/// What belongs to a peer by TLS only.
fn check_secure(key: &str, raw: &raw::Peer, transport: Option<Transport>) -> Result<(), Fault> {
    let keys = [("ca_file", raw.ca_file.is_some()), ("certificate_name", raw.certificate_name.is_some())];
    match keys.iter().find(|(_, present)| *present && transport != Some(Transport::Tls)) {
        Some((name, _)) => fault(
            format!("{key}.{name}"),
            "its uri is not by TLS",
            "write the uri as \"sip:192.0.2.10:5061;transport=tls\", or remove the key",
        ),
        None => Ok(()),
    }
}

const fn only(ip: IpAddr) -> (IpAddr, u8) {
    (ip, if ip.is_ipv4() { 32 } else { 128 })
}

fn peer_uri(key: &str, uri: &str) -> Result<Place, Fault> {
    let mend = "write it as \"sip:192.0.2.10:5060;transport=udp\" or \"sip:trunk.example.net\"";
    let (rest, secure) = match (uri.strip_prefix("sip:"), uri.strip_prefix("sips:")) {
        (Some(rest), _) => (rest, false),
        (None, Some(rest)) => (rest, true),
        (None, None) => return fault(key, format!("\"{uri}\" is not a sip: or sips: URI"), mend),
    };
    let (host, parameters) = rest.split_once(';').unwrap_or((rest, ""));
    let transport = match parameters {
        "" => secure.then_some(Transport::Tls),
        "transport=tls" => Some(Transport::Tls),
        "transport=udp" if !secure => Some(Transport::Udp),
        "transport=tcp" if !secure => Some(Transport::Tcp),
        other => return fault(key, format!("unsupported parameter or transport \"{other}\""), mend),
    };
    match host_and_port(host) {
        Some((host, port)) => Ok(Place { host, port, transport }),
        None => fault(key, format!("\"{host}\" is neither an address nor a name"), mend),
    }
}

fn host_and_port(text: &str) -> Option<(Host, Option<u16>)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return (address.port() > 0).then_some((Host::Address(address.ip()), Some(address.port())));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Some((Host::Address(ip), None));
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port.parse::<u16>().ok().filter(|port| *port > 0)?)),
        None => (text, None),
    };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    is_name(&name).then_some((Host::Name(name), port))
}

/// Whether it is a host name (RFC 3261 §25.1: the last label begins with a letter, so that no mistyped address
/// is one).
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let top = text.rsplit('.').next().unwrap_or_default();
    text.len() <= 253 && text.split('.').all(label) && top.starts_with(|c: char| c.is_ascii_alphabetic())
}

/// The DNS servers of `sip.dns`.
pub(super) fn dns(servers: &[String]) -> Result<Vec<SocketAddr>, Fault> {
    let server = |(index, text): (usize, &String)| {
        let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, DNS_PORT));
        alone.or_else(|_| text.parse()).or_else(|_| {
            fault(
                format!("sip.dns[{index}]"),
                format!("\"{text}\" is not an address"),
                "write it as 192.0.2.53 or 127.0.0.1:5353",
            )
        })
    };
    servers.iter().enumerate().map(server).collect()
}

/// The numbers of `peers.numbers`, all together.
pub(super) fn own_numbers(raw: &[raw::Peer]) -> Result<Vec<NumberBlock>, Fault> {
    let mut numbers = Vec::new();
    for (index, peer) in raw.iter().enumerate() {
        let key = format!("peers[{index}].numbers");
        if peer.side != "district" && !peer.numbers.is_empty() {
            return fault(
                key,
                "they are the district's numbers",
                "give them at a peer with side = \"district\"",
            );
        }
        for (place, text) in peer.numbers.iter().enumerate() {
            numbers.push(text.parse().or_else(|error: NumberError| {
                let mend =
                    "write a full number, as in +18607427331, or all that begin alike, as in +1860742*";
                fault(format!("{key}[{place}]"), format!("\"{text}\": {error}"), mend)
            })?);
        }
    }
    Ok(numbers)
}

/// The orders of `sip.routes`.
pub(super) fn routes(raw: &raw::Routes, peers: &[Peer]) -> Result<Routes, Fault> {
    let route = |name: &str, side: Side, listed: &[String]| -> Result<Vec<PeerId>, Fault> {
        let one = |(index, peer): (usize, &String)| {
            let found = peers.iter().position(|known| known.name == *peer && known.side == side);
            found.map(PeerId).map_or_else(
                || {
                    fault(
                        format!("sip.routes.{name}[{index}]"),
                        format!("\"{peer}\" is no peer with side = \"{}\"", side_name(side)),
                        "give the name of one",
                    )
                },
                Ok,
            )
        };
        listed.iter().enumerate().map(one).collect()
    };
    Ok(Routes {
        district: route("district", Side::District, &raw.district)?,
        public: route("public", Side::Public, &raw.public)?,
        emergency: route("emergency", Side::Public, &raw.emergency)?,
    })
}

fn network(key: &str, text: &str) -> Result<(IpAddr, u8), Fault> {
    let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, prefix)| (ip, Some(prefix)));
    let mend = "write it as 192.0.2.0/24 or 2001:db8::/64";
    let Ok(ip) = ip.parse::<IpAddr>() else {
        return fault(key, format!("\"{text}\" is not a network"), mend);
    };
    let most = if ip.is_ipv4() { 32 } else { 128 };
    match prefix.map_or(Ok(most), str::parse) {
        Ok(length) if length <= most => Ok((ip, length)),
        _ => fault(key, format!("\"{text}\" has no valid prefix length"), mend),
    }
}

/// Two peers whose networks overlap must be told apart by certificate, or by the source port of their URIs. Where
/// a name leads is not known here; an answer that would make two peers one is nobody's (`sip-gateway/src/core/peers.rs`).
fn check(peers: &[Peer]) -> Result<(), Fault> {
    for (index, peer) in peers.iter().enumerate() {
        for other in &peers[..index] {
            let key = format!("peers[{index}]");
            if peer.name == other.name {
                return fault(
                    format!("{key}.name"),
                    format!("\"{}\" is used twice", peer.name),
                    "rename one",
                );
            }
            let overlap = peer.allow.iter().any(|a| other.allow.iter().any(|b| networks_overlap(*a, *b)));
            if overlap && peer.certificate == other.certificate && port(peer) == port(other) {
                return fault(
                    format!("{key}.allow"),
                    format!("overlaps that of peer \"{}\", and their ports are the same", other.name),
                    "give them distinct networks, distinct ports in their uri, or by mutual TLS distinct certificate_name",
                );
            }
        }
    }
    Ok(())
}

/// The port at which a peer takes calls, as far as its URI tells.
fn port(peer: &Peer) -> u16 {
    let target = peer.place.target().map(|target| target.address.port());
    let usual = if peer.place.transport == Some(Transport::Tls) { 5061 } else { 5060 };
    target.or(peer.place.port).unwrap_or(usual)
}

fn networks_overlap(a: (IpAddr, u8), b: (IpAddr, u8)) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let shorter = u32::from(a.1.min(b.1));
    a.0.is_ipv4() == b.0.is_ipv4()
        && (shorter == 0 || bits(a.0) >> (128 - shorter) == bits(b.0) >> (128 - shorter))
}
