//! Captures made here, and the committed ones, read from files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use consent::{GateState, LineClass, Reason};
use etherparse::{EtherType, PacketBuilder, VlanId};

use super::*;

const PBX: &str = "127.0.0.2:5060";
const CARRIER: &str = "127.0.0.3:5060";
const GATEWAY: &str = "127.0.0.1:5060";

/// 2026-11-23T12:00:00Z.
const START_US: i64 = 1_795_435_200_000_000;

const CONTRACT: &str = include_str!("../../tests/contract.toml");

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A datagram in IP, without a link layer.
fn udp(from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (addr(from), addr(to));
    let mut packet = Vec::new();
    match (from.ip(), to.ip()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => PacketBuilder::ipv4(source.octets(), target.octets(), 64)
            .udp(from.port(), to.port())
            .write(&mut packet, payload),
        (IpAddr::V6(source), IpAddr::V6(target)) => PacketBuilder::ipv6(source.octets(), target.octets(), 64)
            .udp(from.port(), to.port())
            .write(&mut packet, payload),
        mixed => panic!("{mixed:?}"),
    }
    .unwrap();
    packet
}

fn tcp(from: &str, to: &str, sequence: u32, syn: bool, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (addr(from), addr(to));
    let (IpAddr::V4(source), IpAddr::V4(target)) = (from.ip(), to.ip()) else { panic!("IPv4") };
    let segment = PacketBuilder::ipv4(source.octets(), target.octets(), 64).tcp(
        from.port(),
        to.port(),
        sequence,
        65_000,
    );
    let segment = if syn { segment.syn() } else { segment.ack(1) };
    let mut packet = Vec::new();
    segment.write(&mut packet, payload).unwrap();
    packet
}

/// Puts the link layer before an IP packet.
fn framed(link: u32, packet: &[u8]) -> Vec<u8> {
    let kind = if packet[0] >> 4 == 4 { EtherType::IPV4 } else { EtherType::IPV6 }.0.to_be_bytes();
    let head: Vec<u8> = match link {
        1 => [&[2; 12][..], &kind].concat(),
        113 => [&[0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0][..], &kind].concat(),
        276 => [&kind[..], &[0; 18]].concat(),
        0 => 2u32.to_le_bytes().to_vec(),
        108 => 2u32.to_be_bytes().to_vec(),
        101 | 228 => Vec::new(),
        other => panic!("{other}"),
    };
    [&head, packet].concat()
}

fn tagged(packet: &[u8]) -> Vec<u8> {
    let tag = VlanId::try_new(7).unwrap().value().to_be_bytes();
    [&[2; 12][..], &[0x81, 0x00], &tag, &EtherType::IPV4.0.to_be_bytes(), packet].concat()
}

/// A classic capture: offsets in µs, frames.
fn classic(link: u32, frames: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 262_144, link] {
        file.extend_from_slice(&u32::to_le_bytes(word));
    }
    for (after_us, frame) in frames {
        let at = START_US + after_us;
        let length = frame.len() as u32;
        for word in [(at / 1_000_000) as u32, (at % 1_000_000) as u32, length, length] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        file.extend_from_slice(frame);
    }
    file
}

/// The same as pcapng, big endian, with one interface of nanoseconds.
fn next_generation(link: u16, frames: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let length = (12 + body.len() as u32).to_be_bytes();
        [&kind.to_be_bytes()[..], &length, body, &length].concat()
    };
    let section = [&0x1a2b_3c4d_u32.to_be_bytes()[..], &[0, 1, 0, 0], &[0xff; 8]].concat();
    let options = [&[0, 9, 0, 1, 9, 0, 0, 0][..], &[0; 4]].concat();
    let interface = [&link.to_be_bytes()[..], &[0; 6], &options].concat();
    let mut file = [block(0x0a0d_0d0a, &section), block(1, &interface)].concat();
    for (after_us, frame) in frames {
        let ticks = (START_US + after_us) as u64 * 1_000;
        let mut body = 0u32.to_be_bytes().to_vec();
        body.extend_from_slice(&ticks.to_be_bytes());
        body.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        body.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        body.extend_from_slice(frame);
        body.resize(body.len().next_multiple_of(4), 0);
        file.extend_from_slice(&block(6, &body));
    }
    file
}

fn inspected(file: &[u8], config: Option<&Config>, masked: bool) -> Result<Report, InspectError> {
    let mut there = tempfile::NamedTempFile::new().unwrap();
    there.write_all(file).unwrap();
    inspect(there.path(), config, masked)
}

fn read(file: &[u8]) -> Report {
    inspected(file, None, false).unwrap()
}

fn message(start: &str, cseq: &str, body: &str) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "{start}\r\nVia: SIP/2.0/UDP 127.0.0.3:5060;branch=z9hG4bK-{}\r\nFrom: <sip:+18605550123@c>;tag=a\r\n\
         To: <sip:+18607427331@g>\r\nCall-ID: one@c\r\nCSeq: {cseq}\r\nContact: <sip:x@127.0.0.3>\r\n\
         Max-Forwards: 70\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        cseq.replace(' ', "-"),
        body.len()
    )
}

fn description(address: &str) -> String {
    let address = addr(address);
    format!(
        "v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio {1} RTP/AVP 0 101\r\n\
         a=rtpmap:101 telephone-event/8000\r\n",
        address.ip(),
        address.port()
    )
}

fn rtp(ssrc: u32, n: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&n.to_be_bytes());
    packet.extend_from_slice(&(u32::from(n) * 160).to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.resize(172, 0xff);
    packet
}

/// A call from the carrier to the gateway, half a second of speech in it, as IP packets.
fn call() -> Vec<(i64, Vec<u8>)> {
    let (there, here) = ("127.0.0.3:4000", "127.0.0.1:20000");
    let sip = |back: bool, text: String| {
        let (from, to) = if back { (GATEWAY, CARRIER) } else { (CARRIER, GATEWAY) };
        udp(from, to, text.as_bytes())
    };
    let invite = message("INVITE sip:+18607427331@127.0.0.1 SIP/2.0", "1 INVITE", &description(there));
    let mut frames = vec![
        (0, sip(false, invite.clone())),
        (500_000, sip(false, invite)),
        (501_000, sip(true, message("SIP/2.0 100 Trying", "1 INVITE", ""))),
        (502_000, sip(true, message("SIP/2.0 180 Ringing", "1 INVITE", ""))),
        (900_000, sip(true, message("SIP/2.0 200 OK", "1 INVITE", &description(here)))),
        (910_000, sip(false, message("ACK sip:127.0.0.1 SIP/2.0", "1 ACK", ""))),
    ];
    for n in (0..25u16).filter(|n| *n != 7) {
        frames.push((1_000_000 + i64::from(n) * 20_000, udp(there, here, &rtp(0xa, n))));
        frames.push((1_000_500 + i64::from(n) * 20_000, udp(here, there, &rtp(0xb, n))));
    }
    frames.push((2_000_000, sip(false, message("BYE sip:127.0.0.1 SIP/2.0", "2 BYE", ""))));
    frames.push((2_001_000, sip(true, message("SIP/2.0 200 OK", "2 BYE", ""))));
    frames
}

fn on(link: u32, frames: &[(i64, Vec<u8>)]) -> Vec<(i64, Vec<u8>)> {
    frames.iter().map(|(at, packet)| (*at, framed(link, packet))).collect()
}

fn assert_is_the_call(report: &Report) {
    assert_eq!(report.remarks, [""; 0]);
    let [call] = &report.calls[..] else { panic!("{:?}", report.calls) };
    let rungs: Vec<_> = call
        .rungs
        .iter()
        .map(|rung| {
            (rung.after_ms, rung.from.ip() == addr(CARRIER).ip(), rung.message.as_str(), rung.repeats)
        })
        .collect();
    assert_eq!(
        rungs,
        [
            (0, true, "INVITE sip:+18607427331@127.0.0.1", 1),
            (501, false, "100 Trying", 0),
            (502, false, "180 Ringing", 0),
            (900, false, "200 OK", 0),
            (910, true, "ACK sip:127.0.0.1", 0),
            (2_000, true, "BYE sip:127.0.0.1", 0),
            (2_001, false, "200 OK", 0),
        ]
    );
    assert_eq!(call.began_at, "2026-11-23T12:00:00.000Z");
    let streams: Vec<_> =
        report.streams.iter().map(|s| (s.ssrc, s.packets, s.lost, s.codec.as_str(), s.call)).collect();
    assert_eq!(streams, [(0xa, 24, 1, "PCMU", Some(0)), (0xb, 24, 1, "PCMU", Some(0))]);
    assert!(report.streams[0].mos.unwrap() < 4.3 && report.streams[0].jitter_ms < 0.1);
}

#[test]
fn a_call_is_read_from_every_link_layer_and_both_formats() {
    let call = call();
    for link in [1, 113, 276, 0, 108, 101, 228] {
        assert_is_the_call(&read(&classic(link, &on(link, &call))));
        assert_is_the_call(&read(&next_generation(link as u16, &on(link, &call))));
    }
    let in_vlan: Vec<_> = call.iter().map(|(at, packet)| (*at, tagged(packet))).collect();
    assert_is_the_call(&read(&classic(1, &in_vlan)));
}

#[test]
fn ipv6_is_read_and_other_exchanges_are_counted() {
    let options = message("OPTIONS sip:[::1] SIP/2.0", "1 OPTIONS", "");
    let frames = [(0, framed(1, &udp("[2001:db8::1]:5060", "[2001:db8::2]:5060", options.as_bytes())))];
    let report = read(&classic(1, &frames));
    assert_eq!(report.other_exchanges.get("OPTIONS"), Some(&1));
    assert!(report.calls.is_empty());
}

/// An INVITE in three segments of TCP, which come in any order, doubled and overlapping.
#[test]
fn sip_over_tcp_is_put_together_in_order() {
    let (from, to) = ("127.0.0.3:40000", GATEWAY);
    let invite = message("INVITE sip:x@g SIP/2.0", "1 INVITE", &description("127.0.0.3:4000"));
    let whole = invite.as_bytes();
    let first = u32::MAX - 50;
    let part = |begin: usize, end: usize| {
        tcp(from, to, first.wrapping_add(1).wrapping_add(begin as u32), false, &whole[begin..end])
    };
    let syn = tcp(from, to, first, true, b"");
    let orders = [
        vec![syn.clone(), part(0, 100), part(100, 200), part(200, whole.len())],
        vec![syn.clone(), part(200, whole.len()), part(100, 200), part(0, 100)],
        vec![syn.clone(), part(0, 100), part(0, 100), part(50, 200), part(150, whole.len())],
        vec![part(0, 100), part(200, whole.len()), part(100, 250)],
    ];
    for packets in orders {
        let frames: Vec<_> = packets.iter().map(|packet| (0, framed(1, packet))).collect();
        let report = read(&classic(1, &frames));
        assert_eq!(report.remarks, [""; 0]);
        assert_eq!(report.calls[0].rungs[0].message, "INVITE sip:x@g");
        assert!(report.calls[0].rungs[0].sdp);
    }
}

#[test]
fn a_gap_in_tcp_is_said_and_the_next_message_is_read() {
    let (from, to) = ("127.0.0.3:40000", GATEWAY);
    let bye = message("BYE sip:x@g SIP/2.0", "2 BYE", "");
    let invite = message("INVITE sip:x@g SIP/2.0", "1 INVITE", "");
    let after = 1 + (invite.len() + 300) as u32;
    let frames = [
        tcp(from, to, 0, true, b""),
        tcp(from, to, 1, false, invite.as_bytes()),
        tcp(from, to, after, false, bye.as_bytes()),
    ];
    let frames: Vec<_> = frames.iter().map(|packet| (0, framed(1, packet))).collect();
    let report = read(&classic(1, &frames));
    assert_eq!(report.remarks, ["1 gaps in TCP connections that carry SIP"]);
    let messages: Vec<_> = report.calls[0].rungs.iter().map(|rung| rung.message.as_str()).collect();
    assert_eq!(messages, ["INVITE sip:x@g", "BYE sip:x@g"]);
}

#[test]
fn what_cannot_be_read_is_said() {
    let whole = classic(1, &on(1, &call()));
    let report = read(&whole[..whole.len() - 10]);
    assert_eq!(report.remarks, ["the file is cut short; what comes before that is shown"]);
    assert_eq!(report.calls[0].rungs.len(), 6);

    let mut fragment = udp(CARRIER, GATEWAY, b"x");
    fragment[6] = 0x20;
    let snapped = framed(1, &udp(CARRIER, GATEWAY, &[0; 400]))[..200].to_vec();
    let broken = framed(1, &udp(CARRIER, GATEWAY, b"INVITE sip:x SIP/2.0\r\nnonsense\r\n\r\n"));
    let report = read(&classic(1, &[(0, framed(1, &fragment)), (1, snapped), (2, broken)]));
    assert_eq!(
        report.remarks,
        [
            "1 fragments of IP packets were passed over",
            "1 packets were captured only in part and passed over",
            "1 messages that begin as SIP cannot be read",
        ]
    );
    let report = read(&classic(147, &[(0, vec![0; 60])]));
    assert_eq!(report.remarks, ["1 packets are of a link layer that is not known here"]);
}

#[test]
fn what_is_no_capture_is_refused() {
    for (file, why) in [
        (&b"INVITE sip:x@y SIP/2.0\r\n and more of this text"[..], "it is no capture"),
        (&b"\x1f\x8b\x08 a compressed capture, for instance"[..], "it is no capture"),
        (b"", "it is empty"),
    ] {
        let error = inspected(file, None, false).unwrap_err().to_string();
        assert!(error.starts_with(why), "{error}");
    }
    assert!(matches!(inspect(Path::new("/no/such/file"), None, false), Err(InspectError::Open(_))));
}

/// Neither a bit flipped anywhere nor a file cut anywhere ends the program.
#[test]
fn damage_anywhere_is_survived() {
    let whole = classic(1, &on(1, &call()[..8]));
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        drop(inspected(&damaged, None, false));
        if at % 7 == 0 {
            drop(inspected(&whole[..at], None, false));
        }
    }
}

#[test]
fn masked_shows_no_number_and_the_rules_say_what_they_would_have_done() {
    let config = Config::parse(Path::new("/etc/earmark/earmark.toml"), CONTRACT).unwrap();
    let file = classic(1, &on(1, &call()));
    let report = inspected(&file, Some(&config), true).unwrap();
    assert_eq!(report.calls[0].rungs[0].message, "INVITE sip:<callee>");
    let Some(Judgement::Call(finding)) = &report.calls[0].rules else { panic!("{report:?}") };
    assert_eq!((finding.line_class, finding.line.as_deref()), (LineClass::Dispatch, None));
    assert_eq!(finding.line_name.as_deref(), Some("Police dispatch 1"));
    let verdict = finding.decision.as_ref().unwrap();
    assert_eq!((verdict.gate, verdict.reason), (GateState::Open, Reason::DispatchLine));
    let shown = serde_json::to_string(&report).unwrap();
    for number in ["5550123", "7427331", "one@c"] {
        assert!(!shown.contains(number), "{number} in {shown}");
    }
}

/// What a dispatch line hears is recorded, whatever its caller says of itself.
#[test]
fn a_call_back_to_a_dispatch_line_would_have_been_recorded() {
    let config = Config::parse(Path::new("/etc/earmark/earmark.toml"), CONTRACT).unwrap();
    let invite = message("INVITE sip:+18607427331@g SIP/2.0", "1 INVITE", &description("127.0.0.3:4000"));
    let marked = invite.replace("Max-Forwards", "Priority: psap-callback\r\nMax-Forwards");
    let frames = [(0, framed(1, &udp(CARRIER, GATEWAY, marked.as_bytes())))];
    let report = inspected(&classic(1, &frames), Some(&config), false).unwrap();
    let Some(Judgement::Call(finding)) = &report.calls[0].rules else { panic!("{report:?}") };
    assert_eq!((finding.emergency, finding.line_class), (false, LineClass::Dispatch));
    assert_eq!(finding.decision.as_ref().unwrap().gate, GateState::Open);
}

/// A capture that begins in the midst of a call, between two proxies: who calls is known by tag.
#[test]
fn roles_are_known_also_without_the_invite() {
    let frames = [
        (0, framed(1, &udp(GATEWAY, CARRIER, message("SIP/2.0 180 Ringing", "1 INVITE", "").as_bytes()))),
        (1, framed(1, &udp(CARRIER, GATEWAY, message("ACK sip:x@g SIP/2.0", "1 ACK", "").as_bytes()))),
        (2, framed(1, &udp(GATEWAY, PBX, message("ACK sip:x@p SIP/2.0", "1 ACK", "").as_bytes()))),
        (3, {
            let bye = message("BYE sip:y@c SIP/2.0", "9 BYE", "").replace(";tag=a", ";tag=b");
            framed(1, &udp(PBX, GATEWAY, bye.as_bytes()))
        }),
    ];
    let report = inspected(&classic(1, &frames), None, true).unwrap();
    let shown: Vec<_> = report.calls[0].rungs.iter().map(|rung| rung.message.as_str()).collect();
    assert_eq!(shown, ["180 Ringing", "ACK sip:<callee>", "ACK sip:<callee>", "BYE sip:<caller>"]);
    assert!(report.other_exchanges.is_empty() && report.calls[0].rules.is_none());
}

fn judged(from: &str, uri: &str, caller: &str) -> Judgement {
    let config = Config::parse(Path::new("/etc/earmark/earmark.toml"), CONTRACT).unwrap();
    let invite = message(&format!("INVITE {uri} SIP/2.0"), "1 INVITE", &description("127.0.0.3:4000"));
    let invite = invite.replace("+18605550123", caller).replace("<sip:+18607427331@g>", &format!("<{uri}>"));
    let frames = [(0, framed(1, &udp(from, GATEWAY, invite.as_bytes())))];
    let report = inspected(&classic(1, &frames), Some(&config), false).unwrap();
    report.calls.into_iter().next().unwrap().rules.unwrap()
}

#[test]
fn the_rules_are_asked_as_the_gateway_asks_them() {
    let reason = |judgement: &Judgement| match judgement {
        Judgement::Call(finding) => finding.decision.as_ref().map(|verdict| verdict.reason),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&judged(CARRIER, "sip:7427310@g", "+18605550100")), Some(Reason::PartiesHidden));
    assert_eq!(reason(&judged(CARRIER, "sip:7425555@g", "+18605550100")), Some(Reason::UnlistedLine));
    let emergency = judged(PBX, "sip:9911@g", "+18607427310");
    assert_eq!(reason(&emergency), Some(Reason::Emergency));
    let Judgement::Call(finding) = emergency else { panic!("a call") };
    assert!(finding.emergency && finding.peer == "pbx");
    assert!(matches!(judged("127.0.0.9:5060", "sip:7427331@g", "x"), Judgement::Stranger));
    assert!(matches!(judged(CARRIER, "mailto:x@g", "x"), Judgement::Refused { status: 416 }));
}

/// The committed captures: what `pcaps/README.md` says is in them.
#[test]
fn committed_captures_have_the_figures_that_are_known_of_them() {
    let figures = |name: &str| {
        let file = format!("{}/pcaps/{name}.pcap", env!("CARGO_MANIFEST_DIR"));
        let report = inspect(Path::new(&file), None, false).unwrap();
        assert_eq!(report.remarks, [""; 0], "{name}");
        let streams = report.streams.iter().map(|s| (s.packets, s.lost));
        (streams.collect::<Vec<_>>(), report.streams.iter().map(|s| s.jitter_ms).fold(0.0, f64::max))
    };
    for (name, expected) in [
        ("02_loss_05pct", &[(480, 20)][..]),
        ("07_ssrc_change_same_clock", &[(250, 0), (250, 0)]),
        ("09_ts_jump_plus_1h_same_ssrc", &[(500, 0)]),
        ("11_seq_and_ts_wrap", &[(500, 0)]),
        ("14_dtmf_1_rfc4733", &[(503, 0)]),
        ("17_dtmf_1_duplicated", &[(516, 0)]),
        ("23_ext_csrc_padding", &[(400, 0)]),
        ("28_long_hold_gap_70s", &[(200, 0)]),
        ("29_stun_dtls_zrtp_t38_on_rtp_port", &[(500, 0)]),
    ] {
        let (streams, jitter_ms) = figures(name);
        assert_eq!(streams, expected, "{name}");
        assert!(jitter_ms < 1.0, "{name}: {jitter_ms}");
    }
    let (streams, jitter_ms) = figures("25_jitter_0_120ms");
    assert_eq!(streams, [(500, 0)]);
    assert!(jitter_ms > 10.0, "{jitter_ms}");
}
