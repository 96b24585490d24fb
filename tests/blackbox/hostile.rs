//! Strangers, forgers and noise: nothing is answered, nothing leaks, no call notices.

use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::dispatch_line::talk;
use crate::gateway::{CITIZEN, DISPATCH, Site, number};
use crate::media;
use crate::sound::{self, LADDER_A_HZ, LADDER_B_HZ};

/// A request that would be welcome from a peer.
fn options_from(address: SocketAddr, gateway: SocketAddr, cseq: &str) -> String {
    format!(
        "OPTIONS sip:ping@{gateway} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK-x{};rport\r\n\
         From: <sip:x@{address}>;tag=1\r\nTo: <sip:ping@{gateway}>\r\nCall-ID: x{}@{address}\r\n\
         CSeq: {cseq}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
        cseq.len(),
        cseq.len()
    )
}

fn answer_to(socket: &UdpSocket) -> Option<String> {
    let mut buffer = [0; 4_096];
    let length = socket.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

fn stranger(site: &Site, port: u16) -> UdpSocket {
    let socket = UdpSocket::bind((site.stranger().ip(), port)).expect("the stranger's address");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a read timeout");
    socket
}

#[test]
fn a_stranger_gets_nothing() {
    let site = Site::new();
    let mut gateway = site.start();
    let socket = stranger(&site, 5060);
    let options = options_from(site.stranger(), site.gateway(), "1 OPTIONS");
    for request in [
        options.clone(),
        options.replace("OPTIONS", "INVITE"),
        options.replace("OPTIONS", "REGISTER"),
        options.replace("OPTIONS", "BREW"),
        "\r\n\r\n".to_owned(),
    ] {
        socket.send_to(request.as_bytes(), site.gateway()).expect("a datagram leaves");
    }
    assert_eq!(answer_to(&socket), None, "not a byte");
    assert!(site.calls().is_empty());
    let pbx = site.pbx_phone();
    assert_eq!(pbx.options(), 200, "a peer is answered");
    gateway.lives();
}

#[test]
fn noise_from_a_peer_is_dropped_or_refused_and_calls_go_on() {
    let site = Site::new();
    let mut gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);

    // The carrier's own address, another port: the peer's networks are allowed, not its port.
    let socket = UdpSocket::bind((site.carrier().ip(), 5070)).expect("a port");
    socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a read timeout");
    let address = socket.local_addr().expect("an address");
    let options = options_from(address, site.gateway(), "1 OPTIONS");
    let mut seed = 1_u64;
    let mut garbage = |length: usize| -> Vec<u8> {
        std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as u8
        })
        .take(length)
        .collect()
    };
    for length in [0, 1, 3, 200, 1_500, 65_000] {
        socket.send_to(&garbage(length), site.gateway()).expect("a datagram leaves");
    }
    let invite = options.replace("OPTIONS", "INVITE");
    let oversized =
        invite.replace("Max-Forwards", &format!("X-Filler: {}\r\nMax-Forwards", "x".repeat(64_000)));
    let hostile = [
        ("CSeq of another method", invite.replace("CSeq: 1 INVITE", "CSeq: 1 BYE")),
        ("no number in CSeq", invite.replace("CSeq: 1 ", "CSeq: one ")),
        ("no Call-ID", invite.replace("Call-ID", "X-Call-ID")),
        (
            "a huge Content-Length",
            invite.replace("Content-Length: 0", "Content-Length: 18446744073709551615"),
        ),
        ("a negative Content-Length", invite.replace("Content-Length: 0", "Content-Length: -1")),
        ("a body that is not there", invite.replace("Content-Length: 0", "Content-Length: 500")),
        ("two different Content-Lengths", invite.replace("Content-Length: 0", "Content-Length: 0\r\nl: 9")),
        ("oversized", oversized),
        ("truncated", invite[..invite.len() / 2].to_owned()),
        ("another version", invite.replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia")),
    ];
    for (what, request) in &hostile {
        socket.send_to(request.as_bytes(), site.gateway()).expect("a datagram leaves");
        if let Some(answer) = answer_to(&socket) {
            let status = answer.get(8..11).and_then(|code| code.parse::<u16>().ok()).unwrap_or(0);
            assert!((400..700).contains(&status), "{what}: {answer}");
        }
        gateway.lives();
    }
    let mut stream = TcpStream::connect(site.gateway()).expect("TCP");
    // The gateway may close the stream at the first wrong byte.
    let _ = stream.write_all(&garbage(100_000));
    drop(stream);

    assert!(pbx.is_idle(), "no broken INVITE went through");
    std::thread::sleep(Duration::from_secs(1));
    let heard = sound::find_ladder(&incoming.media().heard(None), LADDER_A_HZ);
    assert!(heard.breaks == 0 && heard.off <= 2, "the call went on: {heard:?}");
    assert_eq!(pbx.options(), 200);
    outgoing.bye();
    incoming.ended();
    let lasted = incoming.media().first_sent().elapsed().as_secs_f64();
    let recording = site.sealed_recording(&site.closed_call());
    assert!((number(&recording["duration_s"]) - lasted).abs() < 0.3, "{recording} of {lasted} s");
    gateway.lives();
}

#[test]
fn nobody_but_its_parties_can_end_a_call() {
    let site = Site::new();
    let _gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);
    let forged = |method: &str| {
        let mut forged = outgoing.invite();
        forged.start = forged.start.replace("INVITE", method);
        forged.body.clear();
        forged.headers.retain(|(name, _)| !["CSeq", "Via", "To", "Content-Type"].contains(&name.as_str()));
        forged
            .with("CSeq", format!("2 {method}"))
            .with("Via", "SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK-forged;rport")
            .with("To", "<sip:x@example.org>;tag=guessed")
    };
    // A stranger gets nothing, a peer that guesses at tags is told that there is no such call.
    let socket = stranger(&site, 5060);
    for method in ["BYE", "CANCEL"] {
        socket.send_to(&forged(method).to_bytes(), site.gateway()).expect("a datagram leaves");
    }
    assert_eq!(answer_to(&socket), None);
    let socket = UdpSocket::bind((site.carrier().ip(), 5070)).expect("a port");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a read timeout");
    for method in ["BYE", "CANCEL", "INVITE", "UPDATE"] {
        socket.send_to(&forged(method).to_bytes(), site.gateway()).expect("a datagram leaves");
        let answer = answer_to(&socket).expect("an answer");
        assert!(answer.starts_with("SIP/2.0 481 "), "{method}: {answer}");
    }
    assert!(!outgoing.is_ended() && !incoming.is_ended());
    outgoing.bye();
    incoming.ended();
}

#[test]
fn rtpbleed_and_injection_get_nothing_and_change_nothing() {
    let site = Site::new();
    let _gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);
    std::thread::sleep(Duration::from_secs(1));

    // The stranger knows both ports (the worst case) and also sprays the neighbourhood.
    let socket = stranger(&site, 33_333);
    let poison = vec![0x2A; 160];
    let ports = [outgoing.media().remote(), incoming.media().remote()];
    for round in 0..100_u16 {
        let packet = media::rtp(0, false, round, u32::from(round) * 160, 0xBAD, &poison);
        for port in ports {
            socket.send_to(&packet, port).expect("a datagram leaves");
            socket.send_to(b"\x00\x01\x00\x00stun?", port).expect("a datagram leaves");
        }
        let neighbour = SocketAddr::new(site.gateway().ip(), 20_000 + round);
        socket.send_to(&packet, neighbour).expect("a datagram leaves");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(answer_to(&socket), None, "not a packet bled");

    for (call, base) in [(&incoming, LADDER_A_HZ), (&outgoing, LADDER_B_HZ)] {
        let received = call.media().received();
        assert!(received.iter().all(|packet| packet.payload != poison), "nothing was injected");
        assert_eq!(call.media().strange_packets(), 0);
        let heard = sound::find_ladder(&call.media().heard(None), base);
        assert!(heard.breaks == 0 && heard.off <= 2 && heard.seconds() > 2.5, "{heard:?}");
    }
    outgoing.bye();
    incoming.ended();
    let recording = site.sealed_recording(&site.closed_call());
    let found = sound::find_ladder(&site.export(&recording)[0], LADDER_A_HZ);
    assert!(found.breaks == 0 && found.off <= 2, "the recording is whole too: {found:?}");
}
