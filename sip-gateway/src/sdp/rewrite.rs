//! The description that the gateway sends instead of the one it received.

use std::net::{IpAddr, SocketAddr};

use sdp_types::{Attribute, Connection, Media, Origin, Session};

use super::{Description, RecordLine, leg, record};
use crate::topology::Hosts;

/// What is ours in a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OurSide<'a> {
    /// The session id of the `o=` line: one per leg, never changed.
    pub session_id: u64,
    /// Its version: one more with every description that differs from the one sent before (RFC 3264 §8).
    pub version: u64,
    /// The address of the `o=` line, and of the session's `c=` if no stream is ours.
    pub address: IpAddr,
    /// Our RTP address towards this leg for each `m=` line, by position; RTCP is on the next port. An `m=`
    /// line beyond them is refused with port 0.
    pub media: &'a [SocketAddr],
    /// What becomes of its `a=record` and `a=recordpref`.
    pub record: RecordLine,
    /// What names one of these of the sender's side is left out.
    pub hidden: &'a Hosts,
}

/// Attributes that end at the gateway: ICE (RFC 8839) and other addresses to choose from (RFC 6947, RFC 7006),
/// keys and their transports (RFC 4568, 8122, 8842, 6189, 4567), and whatever could negotiate them past us
/// (RFC 5939, RFC 7006), multiplexing of RTCP (RFC 5761, RFC 8858), and claims about sources that a relay with its
/// own SSRC and address would make false (RFC 5576, RFC 4570, RFC 9143).
const ENDED: [&str; 24] = [
    "candidate",
    "remote-candidates",
    "end-of-candidates",
    "altc",
    "ccap",
    "acap",
    "tcap",
    "pcfg",
    "lcfg",
    "acfg",
    "rtcp-mux",
    "rtcp-mux-only",
    "crypto",
    "fingerprint",
    "setup",
    "tls-id",
    "dtls-id",
    "zrtp-hash",
    "key-mgmt",
    "identity",
    "ssrc",
    "ssrc-group",
    "source-filter",
    "bundle-only",
];

/// Writes the description with our origin, addresses and ports; all else as received, in its order. An
/// address of 0.0.0.0 or :: stays, because it means hold (RFC 3264 §8.4).
pub fn rewrite(received: &Description, ours: &OurSide<'_>) -> Vec<u8> {
    let mut session = received.session.clone();
    session.origin = Origin::with_ip_addr(ours.session_id, ours.version, ours.address);
    session.key = None;
    // RFC 3605 §2.1 has `a=rtcp` at a stream alone; elsewhere it would name the address received.
    session.attributes.retain(|attribute| goes_on(attribute) && !is_rtcp(attribute));
    hide(&mut session, ours.hidden);
    record::put(&mut session, ours.record);
    let address = ours.media.first().map_or(ours.address, SocketAddr::ip);
    if let Some(connection) = &mut session.connection {
        redirect(connection, address);
    }
    let session_address = session.connection.as_ref().map(|_| address);
    for (place, media) in session.medias.iter_mut().enumerate() {
        media.attributes.retain(|attribute| !names(attribute, ours.hidden));
        media.media_title.take_if(|title| ours.hidden.appear_in(title));
        rewrite_stream(media, ours.media.get(place).copied(), session_address, ours.address);
    }
    let mut octets = Vec::with_capacity(1024);
    // Writing to a Vec cannot fail.
    let _ = session.write(&mut octets);
    octets
}

/// Takes away what names the sender's side in what is not written anew.
fn hide(session: &mut Session, hidden: &Hosts) {
    let shows = |text: &str| hidden.appear_in(text);
    if shows(&session.session_name) {
        // RFC 8866 §5.3.
        "-".clone_into(&mut session.session_name);
    }
    session.session_description.take_if(|text| shows(text));
    session.uri.take_if(|text| shows(text));
    session.emails.retain(|text| !shows(text));
    session.phones.retain(|text| !shows(text));
    session.attributes.retain(|attribute| !names(attribute, hidden));
}

/// Whether an attribute names the sender's side, other than where it is written anew.
fn names(attribute: &Attribute, hidden: &Hosts) -> bool {
    !attribute.attribute.eq_ignore_ascii_case("rtcp")
        && attribute.value.as_deref().is_some_and(|value| hidden.appear_in(value))
}

fn rewrite_stream(
    media: &mut Media,
    rtp: Option<SocketAddr>,
    session_address: Option<IpAddr>,
    fallback: IpAddr,
) {
    media.key = None;
    media.num_ports = None;
    media.attributes.retain(goes_on);
    let refused = media.port == 0;
    let (ip, port) = match rtp {
        Some(rtp) if !refused => (rtp.ip(), rtp.port()),
        Some(rtp) => (rtp.ip(), 0),
        None => (session_address.unwrap_or(fallback), 0),
    };
    media.port = port;
    media.connections.truncate(1);
    match media.connections.first_mut() {
        Some(connection) => redirect(connection, ip),
        None if session_address != Some(ip) => media.connections.push(Connection::from_ip_addr(ip)),
        None => {}
    }
    rewrite_rtcp(&mut media.attributes, ip, port);
}

fn rewrite_rtcp(attributes: &mut Vec<Attribute>, ip: IpAddr, port: u16) {
    let Some(rtcp_port) = port.checked_add(1).filter(|_| port != 0) else {
        return attributes.retain(|attribute| !is_rtcp(attribute));
    };
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    for attribute in attributes.iter_mut().filter(|attribute| is_rtcp(attribute)) {
        attribute.value = Some(format!("{rtcp_port} IN {family} {ip}"));
    }
}

fn redirect(connection: &mut Connection, ip: IpAddr) {
    let held = leg::address(connection).filter(|address| address.is_unspecified());
    *connection = Connection::from_ip_addr(held.unwrap_or(ip));
}

fn is_rtcp(attribute: &Attribute) -> bool {
    attribute.attribute.eq_ignore_ascii_case("rtcp")
}

fn goes_on(attribute: &Attribute) -> bool {
    let name = attribute.attribute.as_str();
    let is_ice = name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("ice-"));
    let is_bundle = name.eq_ignore_ascii_case("group")
        && attribute.value.as_deref().is_some_and(|value| value.trim_start().starts_with("BUNDLE"));
    !is_ice && !is_bundle && !ENDED.iter().any(|ended| name.eq_ignore_ascii_case(ended))
}
