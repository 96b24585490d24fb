//! Strangers, forgers and noise: nothing is answered, nothing leaks, no call notices.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::dispatch_line::talk;
use crate::gateway::{CITIZEN, DISPATCH, Gateway, NEVER, Site, number};
use crate::media;
use crate::phone::{Call, Invite};
use crate::sound::{self, LADDER_A_HZ, LADDER_B_HZ, LADDER_S};

/// Messages that could not be read and were not answered, and those that were.
const MALFORMED: &str = "earmark_sip_dropped_total{reason=\"malformed\"}";
const REFUSED: &str = "earmark_sip_malformed_refused_total";

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

/// A peer's socket beside its telephone's: its networks are allowed, whatever the port.
fn beside(phone: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((phone.ip(), 5070)).expect("a port");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a read timeout");
    socket
}

fn status_of(answer: &str) -> Option<u16> {
    answer.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
}

/// The status of the next answer on this branch; answers that are repeated on others are passed over.
fn status_on(socket: &UdpSocket, branch: &str) -> Option<u16> {
    loop {
        let answer = answer_to(socket)?;
        if answer.contains(branch) {
            return status_of(&answer);
        }
    }
}

/// Octets without sense, the same in every run.
fn garbage(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let octet = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    std::iter::repeat_with(octet).take(length).collect()
}

/// Both parties have heard each other all the time; the call ends in good order, with one whole record and one
/// whole recording; nothing in the daemon gave way.
fn was_undisturbed(site: &Site, gateway: &mut Gateway<'_>, (outgoing, incoming): (&Call, &Call)) {
    assert!(!outgoing.is_ended() && !incoming.is_ended());
    std::thread::sleep(Duration::from_secs(2));
    for (call, base) in [(incoming, LADDER_A_HZ), (outgoing, LADDER_B_HZ)] {
        let heard = sound::find_ladder(&call.media().heard(None), base);
        assert!(heard.breaks == 0 && heard.off <= 2 && heard.seconds() > 1.0, "{heard:?}");
        assert_eq!(call.media().strange_packets(), 0);
    }
    outgoing.bye();
    incoming.ended();
    let lasted = incoming.media().first_sent().elapsed().as_secs_f64();
    let call = site.closed_call();
    assert_eq!((&call["outcome"], &call["ended_by"]), (&"answered".into(), &"caller".into()), "{call}");
    assert_eq!((&call["final_status"], &call["line"]), (&200.into(), &DISPATCH.into()), "{call}");
    for leg in ["a", "b"] {
        assert_eq!((&call["media"][leg]["codec"], &call["media"][leg]["lost"]), (&"PCMU".into(), &0.into()));
    }
    let recording = site.sealed_recording(&call);
    assert!((number(&recording["duration_s"]) - lasted).abs() < 0.3, "{recording} of {lasted} s");
    for (channel, base) in site.export(&recording).iter().zip([LADDER_A_HZ, LADDER_B_HZ]) {
        let found = sound::find_ladder(channel, base);
        assert!(found.breaks == 0 && found.off <= 2, "the recording is whole too: {found:?}");
    }
    assert!(site.run(["recordings", "verify"]).status.success());
    assert_eq!(gateway.figure("earmark_sip_listener_restarts_total"), 0);
    assert_eq!(gateway.figure("earmark_media_failed_calls_total"), 0);
    gateway.lives();
}

#[test]
fn noise_from_a_peer_is_counted_or_refused_and_calls_go_on() {
    let site = Site::new();
    let mut gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);

    let socket = beside(site.carrier());
    let lengths = [0, 1, 3, 200, 1_500, 65_000];
    for length in lengths {
        socket.send_to(&garbage(length, 1), site.gateway()).expect("a datagram leaves");
    }
    gateway.counted(MALFORMED, lengths.len() as u64);
    let address = socket.local_addr().expect("an address");
    let invite = options_from(address, site.gateway(), "1 OPTIONS").replace("OPTIONS", "INVITE");
    let length = |length: &str| invite.replace("Content-Length: 0", &format!("Content-Length: {length}"));
    // With all else that is in it, the most that a datagram carries.
    let oversized = |line: &str, lines: usize| {
        invite.replace("Max-Forwards", &format!("{}Max-Forwards", line.repeat(lines)))
    };
    let hostile = [
        ("CSeq of another method", 400, invite.replace("CSeq: 1 INVITE", "CSeq: 1 BYE")),
        ("no number in CSeq", 400, invite.replace("CSeq: 1 ", "CSeq: one ")),
        ("no Call-ID", 400, invite.replace("Call-ID", "X-Call-ID")),
        ("a huge Content-Length", 400, length("18446744073709551615")),
        ("a Content-Length beyond any number", 400, length("18446744073709551616")),
        ("a negative Content-Length", 400, length("-1")),
        ("a body that is not there", 400, length("500")),
        ("two different Content-Lengths", 400, length("0\r\nl: 9")),
        ("a field of 64,000 octets", 400, oversized(&format!("X-Filler: {}\r\n", "x".repeat(64_000)), 1)),
        ("16,000 fields", 400, oversized("X:\r\n", 16_000)),
        ("truncated", 400, invite[..invite.len() / 2].to_owned()),
        ("another version", 505, invite.replace("SIP/2.0\r\nVia", "SIP/7.0\r\nVia")),
    ];
    for (what, status, request) in &hostile {
        socket.send_to(request.as_bytes(), site.gateway()).expect("a datagram leaves");
        assert_eq!(answer_to(&socket).as_deref().and_then(status_of), Some(*status), "{what}");
        gateway.lives();
    }
    gateway.counted(REFUSED, hostile.len() as u64);
    gateway.counted(MALFORMED, lengths.len() as u64);
    assert!(pbx.is_idle(), "no broken INVITE went through");
    assert_eq!(pbx.options(), 200);
    was_undisturbed(&site, &mut gateway, (&outgoing, &incoming));
}

/// A stream from a peer: what it is answered until the gateway closes it.
fn stream_from(site: &Site, octets: &[u8], then_end: bool) -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::new(site.carrier().ip(), 0).into()).expect("the carrier's address");
    socket.connect(&site.gateway().into()).expect("TCP");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a read timeout");
    // The gateway may close the stream before it has read all.
    let _ = stream.write_all(octets);
    if then_end {
        stream.shutdown(Shutdown::Write).expect("an end");
    }
    let mut answer = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the stream is not closed: {error}"),
        }
    }
    String::from_utf8(answer).expect("text")
}

/// RFC 3261 §18.3.
#[test]
fn a_stream_whose_messages_have_no_clear_end_is_answered_and_closed_and_calls_go_on() {
    let site = Site::new();
    let mut gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);

    let options = options_from(site.carrier(), site.gateway(), "1 OPTIONS").replace("/UDP", "/TCP");
    let invite = options.replace("OPTIONS", "INVITE");
    let length = |text: &str, length: &str| text.replace("Content-Length: 0", length);
    // One octet more than a message may have, and no end of its head.
    let endless = invite.replace("Content-Length: 0\r\n\r\n", "X-Filler: ");
    let endless = format!("{endless}{}", "x".repeat(65_536 - endless.len()));
    let followed = format!("{}four and what is no message\r\n\r\n", length(&options, "Content-Length: 4"));
    let hostile = [
        ("no end of the head", Some(513), endless),
        ("a body too large", Some(513), length(&invite, "Content-Length: 70000")),
        ("no Content-Length", Some(400), length(&invite, "X: 0")),
        ("a negative Content-Length", Some(400), length(&invite, "Content-Length: -1")),
        ("two Content-Lengths", Some(400), length(&invite, "l: 9\r\nl: 0")),
        ("a Content-Length too small", Some(200), followed),
        ("a Content-Length too large", None, format!("{}half", length(&invite, "Content-Length: 8"))),
        ("half a message", None, invite[..invite.len() / 2].to_owned()),
        ("garbage in lines", None, "what\r\nis\r\nthis\r\n\r\n".to_owned()),
    ];
    for (what, status, text) in &hostile {
        let answer = stream_from(&site, text.as_bytes(), status.is_none());
        assert_eq!(status_of(&answer), *status, "{what}: {answer}");
        assert!(answer.matches("SIP/2.0 ").count() <= 1, "{what}: {answer}");
        gateway.lives();
    }
    assert_eq!(stream_from(&site, &garbage(100_000, 2), true), "");
    // What followed the message whose length was too small, three of the above, and the garbage.
    gateway.counted(MALFORMED, 5);
    gateway.counted(REFUSED, 5);
    gateway.counted("earmark_sip_streams_opened_total{by=\"peer\"}", hostile.len() as u64 + 1);
    assert!(pbx.is_idle(), "no broken INVITE went through");
    assert_eq!(pbx.options(), 200);
    was_undisturbed(&site, &mut gateway, (&outgoing, &incoming));
}

/// RFC 3261 §12.2.2.
#[test]
fn a_request_with_wrong_numbers_or_tags_is_refused_and_its_call_goes_on() {
    type Spoil = fn(String) -> String;
    let site = Site::new();
    let mut gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);
    let socket = beside(site.carrier());
    let address = socket.local_addr().expect("an address").to_string();
    let ask = |method: &str, spoil: Spoil| {
        let request = outgoing.next_request(method);
        let branch = request.header("Via").and_then(|via| via.split("branch=").nth(1)).expect("a branch");
        let branch = branch.split(';').next().expect("a branch").to_owned();
        let text = String::from_utf8(request.to_bytes()).expect("text");
        let text = text.replacen(&format!("/UDP {}", site.carrier()), &format!("/UDP {address}"), 1);
        let spoilt = spoil(text.clone());
        assert_ne!(spoilt, text);
        socket.send_to(spoilt.as_bytes(), site.gateway()).expect("a datagram leaves");
        status_on(&socket, &branch)
    };
    let refusals: [(&str, u16, Spoil); 10] = [
        ("another From tag", 481, |text| text.replacen(";tag=t", ";tag=x", 1)),
        ("no From tag", 481, |text| text.replacen(";tag=t", ";not=t", 1)),
        ("another To tag", 481, |text| with_to_tag(&text, ";tag=guessed")),
        ("another Call-ID", 481, |text| text.replacen("Call-ID: ", "Call-ID: x", 1)),
        ("a number below the last", 500, |text| text.replacen("CSeq: 2 ", "CSeq: 0 ", 1)),
        ("a number beyond all", 400, |text| text.replacen("CSeq: 2 ", "CSeq: 2147483648 ", 1)),
        ("another method's number", 400, |text| text.replacen("CSeq: 2 ", "CSeq: 2 X", 1)),
        ("a body that is not there", 400, |text| text.replacen("Length: 0", "Length: 400", 1)),
        ("no end", 400, |text| text.trim_end().replacen("Length: 0", "Length: 1", 1)),
        ("cut in the middle", 400, |text| text[..text.len() * 3 / 4].to_owned()),
    ];
    for method in ["BYE", "INFO", "INVITE", "UPDATE"] {
        for (what, status, spoil) in refusals {
            assert_eq!(ask(method, spoil), Some(status), "{method}: {what}");
        }
        gateway.lives();
    }
    assert!(pbx.is_idle());
    was_undisturbed(&site, &mut gateway, (&outgoing, &incoming));
}

/// Puts `tag` in the place of the To field's tag.
fn with_to_tag(text: &str, tag: &str) -> String {
    let (head, rest) = text.split_once("\r\nTo: ").expect("a To");
    let (to, rest) = rest.split_once("\r\n").expect("a line");
    let address = to.split(";tag=").next().expect("an address");
    format!("{head}\r\nTo: {address}{tag}\r\n{rest}")
}

/// No RTP (RFC 3550 §5.1) that anybody described, and no RTCP (§6) either.
fn media_garbage() -> Vec<Vec<u8>> {
    let voice = media::rtp(0, false, 7, 1_120, 0xBAD, &[0x2A; 160]);
    let begun = |octet: u8| {
        let mut packet = voice.clone();
        packet[0] = octet;
        packet
    };
    let mut padded = begun(0xA0);
    padded.truncate(20);
    padded[19] = 0xFF;
    let mut extended = begun(0x90);
    extended[14..16].copy_from_slice(&[0xFF, 0xFF]);
    let mut noise = garbage(300, 3);
    noise[0] &= 0x3F;
    let mut sourced = begun(0x8F);
    sourced.truncate(40);
    vec![
        Vec::new(),
        vec![0x80],
        voice[..11].to_vec(),
        begun(0x00),
        begun(0x40),
        begun(0xC0),
        padded,
        extended,
        sourced,
        media::rtp(77, false, 8, 1_280, 0xBAD, &[0x2A; 160]),
        b"\x00\x01\x00\x00\x21\x12\xa4\x42 no STUN here".to_vec(),
        noise,
    ]
}

/// RTCP that cannot be read, on a port of its own or among RTP (RFC 5761).
fn report_garbage() -> Vec<Vec<u8>> {
    let receiver_report = [0x80, 201, 0, 1, 0, 0, 0, 9];
    vec![
        vec![0x80, 200, 0, 6],
        vec![0x81, 201, 0xFF, 0xFF, 0, 0, 0, 9],
        vec![0x9F, 200, 0, 6, 0, 0, 0, 9],
        [&receiver_report[..], &[0x80]].concat(),
        [&receiver_report[..], &[0x00, 201, 0, 1, 0, 0, 0, 9]].concat(),
        [&[0x81, 202, 0, 40][..], &garbage(20, 4)].concat(),
    ]
}

/// RTCP that can be read and means harm: a farewell in the party's own name, and what applications say.
fn false_reports(ssrc: u32) -> Vec<Vec<u8>> {
    let own = ssrc.to_be_bytes();
    vec![
        [&[0x81, 203, 0, 1][..], &own].concat(),
        [&[0x80, 204, 0, 2][..], &own, b"EVIL"].concat(),
        [&[0x81, 206, 0, 2][..], &own, &[0xFF; 4]].concat(),
    ]
}

/// RFC 3550 §5.1, §6.
#[test]
fn garbage_at_the_media_ports_of_a_call_is_counted_and_changes_nothing() {
    let site = Site::new();
    let mut gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);
    std::thread::sleep(Duration::from_millis(500));

    // From the parties' own addresses, so that nothing but its content speaks against it.
    let mut refused = 0;
    for call in [&outgoing, &incoming] {
        let (own, towards) = (call.media().address(), call.media().remote());
        let reports = UdpSocket::bind((own.ip(), own.port() + 1)).expect("the RTCP port");
        let report_to = SocketAddr::new(towards.ip(), towards.port() + 1);
        let report = |octets: &[u8]| {
            reports.send_to(octets, report_to).expect("a datagram leaves");
            std::thread::sleep(Duration::from_millis(5));
        };
        for octets in media_garbage().iter().chain(&report_garbage()) {
            call.media().send_raw(octets);
            refused += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        for octets in report_garbage() {
            report(&octets);
            refused += 1;
        }
        let ssrc = u32::from(own.port()) << 16 | 0x5EED;
        false_reports(ssrc).iter().for_each(|octets| report(octets));
        for length in [2_048, 60_000] {
            call.media().send_raw(&garbage(length, 5));
            report(&garbage(length, 6));
        }
    }
    gateway.counted("earmark_media_oversized_packets_total", 8);
    was_undisturbed(&site, &mut gateway, (&outgoing, &incoming));
    gateway.counted("earmark_rtp_refused_total", refused);
}

#[test]
fn a_stolen_telephone_calls_nobody_abroad_and_not_at_will() {
    let keys = "refuse_destinations = [\"international\"]\nmax_calls = 1\nallow = [";
    let site = Site::with(|_, text| text.replace("allow = [", keys));
    let gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    assert_eq!(pbx.call("011442071838750", NEVER).final_status(), 403);
    assert!(carrier.is_idle());
    let outgoing = pbx.call(CITIZEN, NEVER);
    let incoming = carrier.incoming();
    incoming.answer();
    outgoing.answered();
    assert_eq!(pbx.call(CITIZEN, NEVER).final_status(), 503);
    let emergency = pbx.call("911", NEVER);
    carrier.incoming().reject(486, "Busy Here");
    assert_eq!(emergency.final_status(), 486);
    outgoing.bye();
    incoming.ended();
    let mut statuses: Vec<u64> =
        site.closed_calls(4).iter().filter_map(|call| call["final_status"].as_u64()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 403, 486, 503], "each has its record");
    for (reason, count) in [("destination", 1), ("calls", 1), ("flood", 0)] {
        gateway.counted(&format!("earmark_sip_refused_total{{peer=\"pbx\",reason=\"{reason}\"}}"), count);
    }
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
    let socket = beside(site.carrier());
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

/// The session description of a telephone that knows only its address inside, where nobody here is. It
/// wants no media, so that none are sent there, beyond loopback.
fn inside(sdp: &str) -> (String, Vec<u8>) {
    named(&sdp.replace("a=sendrecv", "a=sendonly"), "10.66.0.5")
}

/// The same, with an address of this host at which nobody is.
fn elsewhere(sdp: &str) -> (String, Vec<u8>) {
    named(sdp, "127.255.66.5")
}

fn named(sdp: &str, address: &str) -> (String, Vec<u8>) {
    let line = sdp.lines().find(|line| line.starts_with("c=")).expect("a connection line");
    ("application/sdp".to_owned(), sdp.replace(line, &format!("c=IN IP4 {address}")).into_bytes())
}

#[test]
fn media_of_a_leg_behind_nat_come_from_where_it_signals_and_from_no_stranger() {
    for (description, wants_media) in [(inside as fn(&str) -> _, false), (elsewhere, true)] {
        let site = Site::new();
        let _gateway = site.start();
        let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
        let outgoing = carrier.invite(&Invite::new(DISPATCH, CITIZEN).body(description));
        outgoing.media().mute(true);
        let incoming = pbx.incoming();
        incoming.media().say(&sound::ladder(LADDER_B_HZ, LADDER_S));
        incoming.answer();
        outgoing.answered();

        // The stranger knows the port, and nobody else speaks.
        let socket = stranger(&site, 33_333);
        let poison = vec![0x2A; 160];
        for round in 0..50_u16 {
            let packet = media::rtp(0, false, round, u32::from(round) * 160, 0xBAD, &poison);
            socket.send_to(&packet, outgoing.media().remote()).expect("a datagram leaves");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(answer_to(&socket), None, "not a packet bled");

        outgoing.media().say(&sound::ladder(LADDER_A_HZ, LADDER_S));
        outgoing.media().mute(false);
        std::thread::sleep(Duration::from_secs(3));
        assert!(incoming.media().received().iter().all(|packet| packet.payload != poison));
        let heard = sound::find_ladder(&incoming.media().heard(None), LADDER_A_HZ);
        assert!(heard.seconds() > 2.0, "the leg behind NAT is heard: {heard:?}");
        let heard = sound::find_ladder(&outgoing.media().heard(None), LADDER_B_HZ);
        assert_eq!(heard.seconds() > 2.0, wants_media, "and spoken to: {heard:?}");
        outgoing.bye();
        incoming.ended();
    }
}
