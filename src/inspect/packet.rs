//! From a captured frame to what UDP or TCP carries: Ethernet with VLAN tags, Linux "cooked" v1 and v2, raw
//! IP and loopback; IPv4 and IPv6.
//!
//! Left out: tunnels, and fragments of IP, which are reported and not put together.

use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use pcap_parser::Linktype;

/// What a frame holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    Udp {
        from: SocketAddr,
        to: SocketAddr,
        payload: &'a [u8],
    },
    Tcp(Segment<'a>),
    /// Part of an IP packet.
    Fragment,
    /// Cut off by the capture before its end.
    CutShort,
    /// Another protocol.
    Other,
    /// A link layer that is not known here.
    UnknownLink,
}

/// A TCP segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
    pub(super) syn: bool,
    pub(super) payload: &'a [u8],
}

/// Octets of the headers that stand before the IP packet.
const COOKED_V1_BYTES: usize = 16;
const COOKED_V2_BYTES: usize = 20;
const LOOPBACK_BYTES: usize = 4;

/// Raw IP as BSDs number it in files that were not written by libpcap.
const RAW_OF_BSD: [Linktype; 2] = [Linktype(12), Linktype(14)];

/// Reads a frame. Linear; nothing is copied.
pub(super) fn read(link: Linktype, frame: &[u8]) -> Packet<'_> {
    let sliced = match link {
        Linktype::ETHERNET => LaxSlicedPacket::from_ethernet(frame).ok(),
        Linktype::LINUX_SLL => cooked(frame, COOKED_V1_BYTES - 2, COOKED_V1_BYTES),
        Linktype::LINUX_SLL2 => cooked(frame, 0, COOKED_V2_BYTES),
        Linktype::NULL | Linktype::LOOP => frame.get(LOOPBACK_BYTES..).and_then(ip),
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => ip(frame),
        other if RAW_OF_BSD.contains(&other) => ip(frame),
        _ => return Packet::UnknownLink,
    };
    sliced.map_or(Packet::Other, |sliced| content(&sliced))
}

fn ip(packet: &[u8]) -> Option<LaxSlicedPacket<'_>> {
    LaxSlicedPacket::from_ip(packet).ok()
}

/// The EtherType stands at `type_at`, the packet at `packet_at`.
fn cooked(frame: &[u8], type_at: usize, packet_at: usize) -> Option<LaxSlicedPacket<'_>> {
    let kind = frame.get(type_at..type_at + 2)?;
    let kind = EtherType(u16::from_be_bytes(kind.try_into().ok()?));
    Some(LaxSlicedPacket::from_ether_type(kind, frame.get(packet_at..)?))
}

fn content<'a>(sliced: &LaxSlicedPacket<'a>) -> Packet<'a> {
    let (from, to, payload): (IpAddr, IpAddr, _) = match &sliced.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into(), ip.payload())
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into(), ip.payload())
        }
        Some(LaxNetSlice::Arp(_)) | None => return Packet::Other,
    };
    if payload.fragmented {
        return Packet::Fragment;
    }
    match &sliced.transport {
        _ if payload.incomplete => Packet::CutShort,
        Some(TransportSlice::Udp(udp)) => Packet::Udp {
            from: SocketAddr::new(from, udp.source_port()),
            to: SocketAddr::new(to, udp.destination_port()),
            payload: udp.payload(),
        },
        Some(TransportSlice::Tcp(tcp)) => Packet::Tcp(Segment {
            from: SocketAddr::new(from, tcp.source_port()),
            to: SocketAddr::new(to, tcp.destination_port()),
            sequence: tcp.sequence_number(),
            syn: tcp.syn(),
            payload: tcp.payload(),
        }),
        _ => Packet::Other,
    }
}
