//! What a leg's description says about its media.

use std::net::{IpAddr, SocketAddr};

use sdp_types::{Attribute, Connection, Media, Session};

use crate::{Flow, Format, LegMedia, MediaKind, StreamMedia};

use super::{Description, is_rtp, packet_time_ms, payload_type};

impl Description {
    /// What the other planes need of it. A `c=` that is a name instead of an address gives no place to send
    /// to, as port 0 does; `c=0.0.0.0` gives that address, with the flow that it means (RFC 3264 §8.4).
    /// `signalled_from` is the source of the message that holds the description.
    pub fn leg_media(&self, signalled_from: IpAddr) -> LegMedia {
        let session = &self.session;
        LegMedia {
            origin: self.origin(),
            signalled_from,
            streams: session.medias.iter().map(|media| stream(session, media)).collect(),
        }
    }

    /// The `o=` line without its version: who made the description.
    pub fn origin(&self) -> String {
        let origin = &self.session.origin;
        format!(
            "{} {} {} {} {}",
            origin.username.as_deref().unwrap_or("-"),
            origin.sess_id,
            origin.nettype.as_str(),
            origin.addrtype.as_str(),
            origin.unicast_address
        )
    }
}

fn stream(session: &Session, media: &Media) -> StreamMedia {
    let address = media.connections.first().or(session.connection.as_ref()).and_then(address);
    let rtp = address.filter(|_| media.port != 0).map(|ip| SocketAddr::new(ip, media.port));
    let rtp_audio = media.media.eq_ignore_ascii_case("audio") && is_rtp(media);
    StreamMedia {
        kind: if rtp_audio { MediaKind::Audio } else { MediaKind::Other },
        rtp,
        rtcp: rtp.and_then(|rtp| rtcp(rtp, media)),
        flow: flow(session, media, address),
        formats: if is_rtp(media) { formats(media) } else { Vec::new() },
        ptime_ms: value(&media.attributes, "ptime").and_then(packet_time_ms),
    }
}

pub(super) fn address(connection: &Connection) -> Option<IpAddr> {
    connection.connection_address.split('/').next()?.parse().ok()
}

/// `a=rtcp:port [IN IP4 address]` (RFC 3605), else the next port.
fn rtcp(rtp: SocketAddr, media: &Media) -> Option<SocketAddr> {
    let Some(text) = value(&media.attributes, "rtcp") else {
        return rtp.port().checked_add(1).map(|port| SocketAddr::new(rtp.ip(), port));
    };
    let mut words = text.split_ascii_whitespace();
    let port = words.next()?.parse().ok().filter(|&port: &u16| port != 0)?;
    let ip = words.nth(2).map_or(Some(rtp.ip()), |address| address.parse().ok())?;
    Some(SocketAddr::new(ip, port))
}

fn flow(session: &Session, media: &Media, address: Option<IpAddr>) -> Flow {
    let said = direction(&media.attributes).or_else(|| direction(&session.attributes));
    let said = said.unwrap_or(Flow::SendRecv);
    match said {
        Flow::SendRecv if address.is_some_and(|ip| ip.is_unspecified()) => Flow::SendOnly,
        Flow::RecvOnly if address.is_some_and(|ip| ip.is_unspecified()) => Flow::Inactive,
        _ => said,
    }
}

fn direction(attributes: &[Attribute]) -> Option<Flow> {
    attributes.iter().find_map(|attribute| match attribute.attribute.as_str() {
        "sendrecv" => Some(Flow::SendRecv),
        "sendonly" => Some(Flow::SendOnly),
        "recvonly" => Some(Flow::RecvOnly),
        "inactive" => Some(Flow::Inactive),
        _ => None,
    })
}

fn value<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    attributes.iter().find(|attribute| attribute.attribute.eq_ignore_ascii_case(name))?.value.as_deref()
}

fn formats(media: &Media) -> Vec<Format> {
    let maps = media.attributes.iter().filter(|attribute| attribute.attribute.eq_ignore_ascii_case("rtpmap"));
    // At most 128 different ones are kept, so looking each up is cheap.
    let mut mapped: Vec<Format> = Vec::new();
    for format in maps.filter_map(|attribute| attribute.value.as_deref()).filter_map(rtpmap) {
        if !mapped.iter().any(|known| known.payload_type == format.payload_type) {
            mapped.push(format);
        }
    }
    let types = media.fmt.split_ascii_whitespace().filter_map(payload_type);
    types
        .filter_map(|payload_type| {
            let known = mapped.iter().find(|format| format.payload_type == payload_type);
            known.cloned().or_else(|| static_format(payload_type))
        })
        .collect()
}

/// `<payload type> <encoding>/<clock rate>[/<channels>]` (RFC 8866 §6.6).
fn rtpmap(text: &str) -> Option<Format> {
    let (number, encoding) = text.trim().split_once([' ', '\t'])?;
    let mut parts = encoding.trim().split('/');
    Some(Format {
        payload_type: payload_type(number)?,
        encoding: parts.next()?.to_ascii_uppercase(),
        clock_rate: parts.next()?.parse().ok().filter(|&rate| rate != 0)?,
        channels: parts.next().map_or(Some(1), |channels| channels.parse().ok())?,
    })
}

/// Static payload types of RFC 3551 §6 that need no `a=rtpmap`.
fn static_format(payload_type: u8) -> Option<Format> {
    let encoding = match payload_type {
        0 => "PCMU",
        3 => "GSM",
        4 => "G723",
        8 => "PCMA",
        9 => "G722",
        13 => "CN",
        18 => "G729",
        _ => return None,
    };
    // G722 too: its clock rate is 8000 by an old error (RFC 3551 §4.5.2).
    Some(Format { payload_type, encoding: encoding.to_owned(), clock_rate: 8000, channels: 1 })
}
