//! TCP, IPv6, and the streams themselves (RFC 3261 §18).

use bytes::Bytes;
use consent::Side;
use sip_gateway::{Input, Output, StreamId, Transport};

use crate::world::*;

const OPENED: StreamId = StreamId(2);

fn tcp_world() -> World {
    let mut config = config();
    config.peers[0] = peer("pbx", Side::District, PBX, Transport::Tcp);
    World::with(config)
}

fn open(world: &mut World, from: &str) {
    world.input(Input::StreamOpened { stream: OPENED, listener: TCP, from: addr(from) });
}

fn feed(world: &mut World, bytes: &[u8]) {
    world.input(Input::StreamBytes { stream: OPENED, bytes: Bytes::copy_from_slice(bytes) });
}

pub fn on_stream(world: &mut World, stream: StreamId) -> Vec<Msg> {
    let bytes = world.stream_bytes(stream);
    let text = String::from_utf8(bytes).unwrap();
    let mut messages = Vec::new();
    let mut rest = text.as_str();
    while let Some(end) = rest.find("\r\n\r\n") {
        let head = &rest[..end + 4];
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .map_or(0, |length| length.parse().unwrap());
        messages.push(Msg::new(Bytes::copy_from_slice(&rest.as_bytes()[..end + 4 + length])));
        rest = &rest[end + 4 + length..];
    }
    messages
}

#[test]
fn a_call_over_tcp_byte_by_byte() {
    let mut world = tcp_world();
    open(&mut world, "10.1.0.10:40000");
    let mut a = Ua::caller(PBX, "100");
    let text = a.invite("", &sdp(OFFER_IP, 4000, "")).replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    for byte in text.bytes() {
        feed(&mut world, &[byte]);
    }
    let invite = world.expect(CARRIER, "INVITE ");
    world.send(
        CARRIER,
        invite.answer("200 OK", "t", "Contact: <sip:x@10.2.0.20:5060>\r\n", &sdp(ANSWER_IP, 5000, "")),
    );
    let answers = on_stream(&mut world, OPENED);
    assert_eq!(answers.iter().map(|a| a.response().status).collect::<Vec<_>>(), [100, 200]);
    assert_eq!(answers[1].get("Contact"), "<sip:10.0.0.1:5060;transport=tcp>");
    // The 2xx is repeated on a stream as well (§13.3.1.4), a failure or provisional is not.
    world.advance(500);
    assert_eq!(on_stream(&mut world, OPENED).len(), 1);
    a.learn(&answers[1]);
    // ACK and BYE in one segment.
    let both = format!("{}{}", a.request("ACK", "", ""), a.request("BYE", "", ""));
    feed(&mut world, both.as_bytes());
    world.expect(CARRIER, "ACK ");
    let bye = world.expect(CARRIER, "BYE ");
    world.send(CARRIER, bye.answer("200 OK", "", "", ""));
    assert_eq!(on_stream(&mut world, OPENED)[0].response().status, 200);
    world.assert_clean();
}

#[test]
fn requests_to_a_tcp_peer_open_a_stream_and_share_it() {
    let mut world = tcp_world();
    let mut caller = Ua::caller(CARRIER, "7331");
    world.send(CARRIER, caller.invite("", ""));
    let connect = world.streams.remove(0);
    let Output::Connect { stream, listener, to, .. } = connect else { panic!("{connect:?}") };
    assert_eq!((listener, to), (TCP, addr(PBX)));
    let invite = on_stream(&mut world, stream).remove(0);
    assert!(invite.get("Via").starts_with("SIP/2.0/TCP 10.0.0.1:5060"));
    // No retransmission on a reliable transport.
    world.advance(5_000);
    assert!(on_stream(&mut world, stream).is_empty());
    let busy = invite.answer("486 Busy", "t", "", "");
    world.input(Input::StreamBytes { stream, bytes: busy.into() });
    assert_eq!(on_stream(&mut world, stream)[0].request().method.as_str(), "ACK");
    world.expect(CARRIER, "SIP/2.0 100 ");
    world.expect(CARRIER, "SIP/2.0 486 ");
    let mut other = Ua::caller(CARRIER, "7332");
    other.call_id = "other".to_owned();
    other.branch = 77;
    world.send(CARRIER, other.invite("", ""));
    assert_eq!(on_stream(&mut world, stream).len(), 1, "the same stream, no second Connect");
    assert!(world.streams.is_empty());
}

#[test]
fn a_stream_that_cannot_be_connected_fails_over_or_503() {
    let mut world = tcp_world();
    let mut caller = Ua::caller(CARRIER, "7331");
    world.send(CARRIER, caller.invite("", ""));
    let Output::Connect { stream, .. } = world.streams.remove(0) else { panic!("no Connect") };
    world.expect(CARRIER, "SIP/2.0 100 ");
    world.input(Input::StreamClosed { stream });
    world.expect(CARRIER, "SIP/2.0 503 ");
    world.assert_clean();
}

#[test]
fn a_call_outlives_its_stream() {
    let mut world = tcp_world();
    open(&mut world, "10.1.0.10:40000");
    let mut a = Ua::caller(PBX, "100");
    feed(&mut world, a.invite("", "").as_bytes());
    let invite = world.expect(CARRIER, "INVITE ");
    let mut b = Ua::callee(CARRIER, &invite, "t");
    world.send(CARRIER, invite.answer("200 OK", "t", &b.contact(), ""));
    let ok = on_stream(&mut world, OPENED).remove(1);
    a.learn(&ok);
    feed(&mut world, a.request("ACK", "", "").as_bytes());
    world.expect(CARRIER, "ACK ");
    world.input(Input::StreamClosed { stream: OPENED });
    assert_eq!(world.core.calls(), 1);
    world.send(CARRIER, b.request("BYE", "", ""));
    let connect = world.streams.remove(0);
    let Output::Connect { stream, to, .. } = connect else { panic!("{connect:?}") };
    assert_eq!(to, addr(PBX), "the Contact, not the old source port");
    assert_eq!(on_stream(&mut world, stream)[0].request().method.as_str(), "BYE");
}

#[test]
fn streams_of_strangers_and_beyond_the_limit_are_closed() {
    let mut world = tcp_world();
    open(&mut world, "203.0.113.66:1");
    assert_eq!(world.streams, [Output::CloseStream { stream: OPENED }]);
    world.streams.clear();
    for number in 1..=9 {
        let stream = StreamId(number * 2);
        world.input(Input::StreamOpened { stream, listener: TCP, from: addr("10.1.0.10:40000") });
    }
    assert_eq!(world.streams, [Output::CloseStream { stream: StreamId(18) }]);
}

#[test]
fn a_stream_that_stays_inside_a_message_is_closed_after_half_a_minute() {
    let mut world = tcp_world();
    open(&mut world, "10.1.0.10:40000");
    world.advance(29_000);
    feed(&mut world, b"OPTIONS sip:x SIP/2.0\r\nVia: ");
    world.advance(1_000);
    assert_eq!(world.streams, [Output::CloseStream { stream: OPENED }]);
}

#[test]
fn a_message_that_its_stream_breaks_off_is_counted_and_a_stream_between_messages_is_not() {
    let text = Ua::caller(PBX, "100").invite("", &sdp(OFFER_IP, 4000, ""));
    let head = text.find("\r\n\r\n").unwrap() + 4;
    for (sent, dropped) in [(0, 0), (1, 1), (head - 1, 1), (head, 1), (text.len() - 1, 1), (text.len(), 0)] {
        let mut world = tcp_world();
        open(&mut world, "10.1.0.10:40000");
        feed(&mut world, b"\r\n\r\n\r\n");
        feed(&mut world, &text.as_bytes()[..sent]);
        world.input(Input::StreamClosed { stream: OPENED });
        assert_eq!(world.core.counters().dropped_malformed, dropped, "{sent} octets");
    }
}

#[test]
fn pings_are_answered_and_a_broken_stream_is_closed() {
    let mut world = tcp_world();
    open(&mut world, "10.1.0.10:40000");
    feed(&mut world, b"\r\n\r\n");
    assert_eq!(world.stream_bytes(OPENED), b"\r\n");
    let mut a = Ua::caller(PBX, "100");
    feed(&mut world, a.invite("", "").replace("Content-Length: 0\r\n", "").as_bytes());
    assert_eq!(on_stream(&mut world, OPENED)[0].response().status, 400);
    assert_eq!(world.streams, [Output::CloseStream { stream: OPENED }]);
}

#[test]
fn a_call_over_ipv6() {
    const PBX6: &str = "[2001:db8::10]:5060";
    const CARRIER6: &str = "[2001:db8:1::20]:5070";
    let mut config = config();
    config.peers = vec![
        peer("pbx", Side::District, PBX6, Transport::Udp),
        peer("carrier", Side::Public, CARRIER6, Transport::Udp),
    ];
    let mut world = World::with(config);
    let mut a = Ua::caller(PBX6, "100");
    world.send(PBX6, a.invite("", ""));
    let invite = world.expect(CARRIER6, "INVITE sip:100@[2001:db8:1::20]:5070 ");
    assert!(invite.get("Via").starts_with("SIP/2.0/UDP [2001:db8::1]:5060;"));
    assert_eq!(invite.get("Contact"), "<sip:[2001:db8::1]:5060>");
    assert!(invite.get("From").contains("<sip:7331@[2001:db8::1]>"));
    let mut b = Ua::callee(CARRIER6, &invite, "t");
    world.send(CARRIER6, invite.answer("200 OK", "t", &b.contact(), ""));
    world.expect(PBX6, "SIP/2.0 100 ");
    let ok = world.expect(PBX6, "SIP/2.0 200 ");
    a.learn(&ok);
    world.send(PBX6, a.request("ACK", "", ""));
    world.expect(CARRIER6, "ACK ");
    world.send(CARRIER6, b.request("BYE", "", ""));
    world.expect(CARRIER6, "SIP/2.0 200 ");
    let bye = world.expect(PBX6, "BYE sip:line@[2001:db8::10]:5060 ");
    world.send(PBX6, bye.answer("200 OK", "", "", ""));
    world.assert_clean();
}
