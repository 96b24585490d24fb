//! Streams of our own: those that stand in for a datagram that would be too large (RFC 3261 §18.1.1).
//!
//! And how all of them are kept alive, and which of several at one host is taken.

use bytes::Bytes;
use consent::Side;
use sip_gateway::locate::{Answer, Host, Place, Question, Records, Srv};
use sip_gateway::{Input, Output, PeerId, StreamId, Transport};

use crate::failover::resolve;
use crate::requests::options;
use crate::transports::on_stream;
use crate::world::*;

/// A field that makes any request larger than 1300 bytes.
fn large() -> String {
    format!("X-Large: {}\r\n", "x".repeat(1_300))
}

fn connect(world: &mut World) -> StreamId {
    match world.streams.remove(0) {
        Output::Connect { stream, to, .. } => {
            assert_eq!(to, addr(CARRIER));
            stream
        }
        other => panic!("{other:?}"),
    }
}

fn ready(world: &mut World, stream: StreamId) {
    world.input(Input::StreamReady { stream, certified: Vec::new() });
}

fn feed(world: &mut World, stream: StreamId, text: &str) {
    world.input(Input::StreamBytes { stream, bytes: Bytes::copy_from_slice(text.as_bytes()) });
}

/// A call whose INVITE is too large for the carrier's datagram.
fn large_call(world: &mut World) -> Ua {
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite(&large(), ""));
    world.expect(PBX, "SIP/2.0 100 ");
    a
}

#[test]
fn a_large_invite_goes_by_tcp_and_its_dialog_by_udp() {
    let mut world = World::new();
    let mut a = large_call(&mut world);
    let stream = connect(&mut world);
    ready(&mut world, stream);
    world.expect_nothing(CARRIER);
    let invite = on_stream(&mut world, stream).remove(0);
    assert!(invite.get("Via").starts_with("SIP/2.0/TCP 10.0.0.1:5060;"), "{}", invite.get("Via"));
    assert_eq!(invite.get("Contact"), "<sip:10.0.0.1:5060>", "the dialog's own requests may come by UDP");
    feed(&mut world, stream, &invite.answer("100 Trying", "", "", ""));
    world.advance(10_000);
    assert!(on_stream(&mut world, stream).is_empty(), "nothing is sent again on a stream");
    let b = Ua::callee(CARRIER, &invite, "t");
    feed(&mut world, stream, &invite.answer("200 OK", "t", &b.contact(), ""));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    assert!(world.expect(CARRIER, "ACK ").get("Via").starts_with("SIP/2.0/UDP "));
    // The end of the stream is nothing to the call.
    world.send(PBX, a.request("BYE", "", ""));
    let bye = world.expect(CARRIER, "BYE ");
    world.input(Input::StreamClosed { stream });
    world.expect(PBX, "SIP/2.0 200 ");
    world.send(CARRIER, bye.answer("200 OK", "", "", ""));
    world.assert_clean();
}

#[test]
fn a_request_of_1300_bytes_stays_in_its_datagram() {
    let size = |extra: &str| {
        let mut world = World::new();
        let mut a = Ua::caller(PBX, "100");
        world.send(PBX, a.invite(extra, ""));
        world.next(CARRIER).map(|invite| invite.bytes.len())
    };
    let bare = size("X-Large: \r\n").expect("a datagram");
    let filled = |bytes: usize| format!("X-Large: {}\r\n", "x".repeat(bytes - bare));
    assert_eq!(size(&filled(1_300)), Some(1_300));
    assert_eq!(size(&filled(1_301)), None);
}

#[test]
fn where_tcp_is_refused_the_request_goes_by_udp_and_the_next_ones_at_once() {
    let mut world = World::new();
    let mut a = large_call(&mut world);
    let stream = connect(&mut world);
    let by_tcp = on_stream(&mut world, stream).remove(0);
    world.input(Input::StreamClosed { stream });
    let invite = world.expect(CARRIER, "INVITE ");
    assert!(invite.get("Via").starts_with("SIP/2.0/UDP "));
    assert_eq!(invite.text().replace("/UDP ", "/TCP "), by_tcp.text(), "the same request in all else");
    world.advance(500);
    assert_eq!(world.expect(CARRIER, "INVITE ").bytes, invite.bytes, "repeated as datagrams are");
    // The failure's ACK and a CANCEL go the same way.
    world.send(CARRIER, invite.answer("180 Ringing", "t", "Contact: <sip:x@10.2.0.20:5060>\r\n", ""));
    world.expect(PBX, "SIP/2.0 180 ");
    world.send(PBX, a.request("CANCEL", "", ""));
    let cancel = world.expect(CARRIER, "CANCEL ");
    assert_eq!(cancel.get("Via"), invite.get("Via"));
    world.send(CARRIER, cancel.answer("200 OK", "", "", ""));
    world.send(CARRIER, invite.answer("487 Request Terminated", "t", "", ""));
    assert_eq!(world.expect(CARRIER, "ACK ").get("Via"), invite.get("Via"));
    assert!(world.streams.is_empty());
    world.assert_clean();

    world.take_all(PBX);
    let again = |world: &mut World, number: u32| {
        let mut a = Ua::caller(PBX, "100");
        (a.call_id, a.branch) = (format!("again-{number}"), number * 1_000);
        world.send(PBX, a.invite(&large(), ""));
    };
    again(&mut world, 1);
    let invite = world.expect(CARRIER, "INVITE ");
    world.send(CARRIER, invite.answer("486 Busy", "t", "", ""));
    assert!(world.streams.is_empty(), "TCP is not tried again so soon");
    world.advance(600_000);
    again(&mut world, 2);
    connect(&mut world);
}

#[test]
fn where_tcp_hangs_udp_takes_over_after_a_second() {
    let mut world = World::new();
    large_call(&mut world);
    let stream = connect(&mut world);
    world.advance(999);
    world.expect_nothing(CARRIER);
    world.advance(1);
    world.expect(CARRIER, "INVITE ");
    assert_eq!(world.streams.pop(), Some(Output::CloseStream { stream }));
    // What the shell says of it later changes nothing.
    ready(&mut world, stream);
    world.input(Input::StreamClosed { stream });
    world.expect_nothing(CARRIER);
    assert_eq!(world.core.calls(), 1);
}

#[test]
fn a_stream_that_breaks_after_it_stood_fails_the_request() {
    let mut world = World::new();
    large_call(&mut world);
    let stream = connect(&mut world);
    ready(&mut world, stream);
    world.input(Input::StreamClosed { stream });
    // On to the next carrier: the first may have taken the call.
    world.expect_nothing(CARRIER);
    let next = world.streams.iter().find_map(|output| match output {
        Output::Connect { to, .. } => Some(*to),
        _ => None,
    });
    assert_eq!(next, Some(addr(CARRIER2)));
}

#[test]
fn a_large_request_inside_a_dialog_and_its_cancel_go_by_tcp() {
    let mut up = Up::new();
    let reinvite = up.a.request("INVITE", &format!("Contact: <sip:line@{PBX}>\r\n{}", large()), "");
    up.world.send(PBX, reinvite);
    let stream = connect(&mut up.world);
    ready(&mut up.world, stream);
    let invite = on_stream(&mut up.world, stream).remove(0);
    feed(&mut up.world, stream, &invite.answer("100 Trying", "", "", ""));
    up.world.send(PBX, up.a.request("CANCEL", "", ""));
    let cancel = on_stream(&mut up.world, stream).remove(0);
    assert_eq!((cancel.request().method.as_str(), cancel.get("Via")), ("CANCEL", invite.get("Via")));
    // A request of the peer's comes by TCP in turn, and leaves the dialog on UDP.
    let info = up.b.request("INFO", "", "").replace("SIP/2.0/UDP", "SIP/2.0/TCP");
    feed(&mut up.world, stream, &info);
    up.world.expect(PBX, "SIP/2.0 100 ");
    up.world.expect(PBX, "SIP/2.0 200 ");
    let info = up.world.expect(PBX, "INFO ");
    up.world.send(PBX, info.answer("200 OK", "", "", ""));
    up.world.send(PBX, up.a.request("BYE", "", ""));
    assert!(up.world.expect(CARRIER, "BYE ").get("Via").starts_with("SIP/2.0/UDP "));
}

#[test]
fn without_a_tcp_listener_at_the_address_every_size_goes_by_udp() {
    let mut config = config();
    config.listeners[1].address = addr("10.0.0.2:5060");
    let mut world = World::with(config);
    large_call(&mut world);
    world.expect(CARRIER, "INVITE ");
    assert!(world.streams.is_empty());
}

/// A stream of ours to a TCP peer.
fn stream_of_ours() -> (World, StreamId) {
    let mut config = config();
    config.peers[1] = peer("carrier", Side::Public, CARRIER, Transport::Tcp);
    let mut world = World::with(config);
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", ""));
    let stream = connect(&mut world);
    ready(&mut world, stream);
    let invite = on_stream(&mut world, stream).remove(0);
    feed(&mut world, stream, &invite.answer("486 Busy", "t", "", ""));
    world.streams.clear();
    (world, stream)
}

/// How long until the next ping.
fn until_ping(world: &mut World, stream: StreamId) -> u64 {
    let mut waited_ms = 0;
    while world.streams.is_empty() {
        assert!(waited_ms <= 120_000, "no ping");
        world.advance(100);
        waited_ms += 100;
    }
    assert_eq!(world.streams, [Output::Stream { stream, bytes: Bytes::from_static(b"\r\n\r\n") }]);
    world.streams.clear();
    waited_ms
}

/// RFC 5626 §4.4.1.
#[test]
fn our_stream_is_pinged_and_lives_while_it_is_answered() {
    let (mut world, stream) = stream_of_ours();
    let mut waits = Vec::new();
    for _ in 0..20 {
        waits.push(until_ping(&mut world, stream));
        world.advance(9_000);
        feed(&mut world, stream, "\r\n");
        assert!(world.streams.is_empty(), "a pong asks for nothing");
    }
    assert!(waits.iter().all(|wait| (95_000..=120_100).contains(wait)), "{waits:?}");
    assert!(waits.iter().max() > waits.iter().min(), "not all at once: {waits:?}");
}

/// RFC 5626 §4.4.1.
#[test]
fn our_stream_is_closed_when_a_pong_is_missing() {
    let (mut world, stream) = stream_of_ours();
    until_ping(&mut world, stream);
    feed(&mut world, stream, "\r\n");
    until_ping(&mut world, stream);
    world.advance(9_800);
    assert!(world.streams.is_empty());
    world.advance(200);
    assert_eq!(world.streams, [Output::CloseStream { stream }]);
    world.streams.clear();
    // What comes next takes a new stream.
    let mut a = Ua::caller(PBX, "200");
    a.call_id = "next".to_owned();
    a.branch = 50;
    world.send(PBX, a.invite("", ""));
    assert_ne!(connect(&mut world), stream);
}

/// RFC 5626 §3.5.1.
#[test]
fn a_peer_that_has_never_answered_a_ping_keeps_its_stream() {
    let (mut world, stream) = stream_of_ours();
    for _ in 0..5 {
        until_ping(&mut world, stream);
        world.advance(10_000);
        assert!(world.streams.is_empty());
    }
    // A message is life, and no pong.
    until_ping(&mut world, stream);
    feed(&mut world, stream, &Ua::caller(CARRIER, "7331").request("OPTIONS", "", ""));
    assert_eq!(on_stream(&mut world, stream)[0].response().status, 200);
    until_ping(&mut world, stream);
    world.advance(10_000);
    assert!(!world.streams.contains(&Output::CloseStream { stream }));
}

/// RFC 5626 §4.4.1.
#[test]
fn a_ping_of_the_peers_is_answered_on_our_stream_too() {
    let (mut world, stream) = stream_of_ours();
    feed(&mut world, stream, "\r\n\r\n");
    assert_eq!(world.stream_bytes(stream), b"\r\n");
    until_ping(&mut world, stream);
    // Their ping while ours is open is life, and is answered.
    feed(&mut world, stream, "\r\n\r\n");
    assert_eq!(world.stream_bytes(stream), b"\r\n");
}

/// RFC 5626 §4.4.1.
#[test]
fn a_line_break_inside_a_message_is_no_pong() {
    let (mut world, stream) = stream_of_ours();
    let mut b = Ua::caller(CARRIER, "7331");
    let text = b.request("OPTIONS", "Content-Type: text/plain\r\n", "").replace("Length: 0", "Length: 4");
    feed(&mut world, stream, &text);
    world.advance(29_000);
    feed(&mut world, stream, "\r\n");
    assert!(world.stream_bytes(stream).is_empty());
    feed(&mut world, stream, "\r\n");
    assert_eq!(on_stream(&mut world, stream)[0].response().status, 200);
}

/// RFC 3261 §18.3.
#[test]
fn the_rest_of_a_message_is_waited_for_half_a_minute_behind_another_one_too() {
    let (mut world, stream) = stream_of_ours();
    let mut b = Ua::caller(CARRIER, "7331");
    let whole = b.request("OPTIONS", "", "");
    feed(&mut world, stream, &format!("{whole}OPTIONS sip:x SIP/2.0\r\n"));
    assert_eq!(on_stream(&mut world, stream)[0].response().status, 200);
    world.advance(29_999);
    assert!(world.streams.is_empty());
    world.advance(1);
    assert_eq!(world.streams, [Output::CloseStream { stream }]);
}

/// A carrier by TCP with two servers on one host.
fn two_servers() -> World {
    let mut config = config();
    config.peers.truncate(2);
    let host = Host::Name("trunk.example".to_owned());
    config.peers[1].place = Place { host, port: None, transport: Some(Transport::Tcp) };
    config.peers[1].allow = vec![("10.2.0.0".parse().unwrap(), 16)];
    let mut world = World::with(config);
    world.advance(0);
    resolve(&mut world, |question| {
        let srv = |priority, port| Srv { priority, weight: 1, port, target: "a.example".to_owned() };
        let records = match question {
            Question::Srv(_) => Records::Srv(vec![srv(1, 5060), srv(2, 5080)]),
            Question::Addresses(_) => Records::Addresses(vec!["10.2.0.20".parse().unwrap()]),
            Question::Naptr(_) => Records::Naptr(vec![]),
        };
        Ok(Answer { records, ttl_s: 600 })
    });
    assert_eq!(world.found[0].0, PeerId(1));
    world
}

#[track_caller]
fn connects_to(world: &mut World, to: &str) -> StreamId {
    let connects = world.streams.iter().position(|output| matches!(output, Output::Connect { .. }));
    let Output::Connect { stream, to: there, .. } = world.streams.remove(connects.expect("a connection"))
    else {
        unreachable!()
    };
    assert_eq!(there, addr(to));
    ready(world, stream);
    stream
}

fn dial(world: &mut World, number: u32) {
    let mut a = Ua::caller(PBX, "100");
    (a.call_id, a.branch) = (format!("call-{number}"), number * 100);
    world.send(PBX, a.invite("", ""));
}

/// RFC 3263 §4.3.
#[test]
fn a_second_server_on_one_host_has_a_stream_of_its_own() {
    let mut world = two_servers();
    dial(&mut world, 1);
    let hung = connects_to(&mut world, "10.2.0.20:5060");
    assert!(on_stream(&mut world, hung)[0].text().starts_with("INVITE "));
    world.advance(2_000);
    let second = connects_to(&mut world, "10.2.0.20:5080");
    assert!(on_stream(&mut world, second)[0].text().starts_with("INVITE "));
    assert!(on_stream(&mut world, hung).is_empty());
    // The next call begins with the second, which is not suspected, on the stream that stands.
    dial(&mut world, 2);
    assert_eq!(on_stream(&mut world, second).len(), 1);
    assert!(on_stream(&mut world, hung).is_empty() && world.streams.is_empty());
}

/// RFC 3263 §4.3.
#[test]
fn a_stream_of_the_peers_own_that_hangs_is_passed_over_until_it_is_heard_again() {
    let mut world = two_servers();
    let theirs = StreamId(2);
    world.input(Input::StreamOpened { stream: theirs, listener: TCP, from: addr("10.2.0.20:40000") });
    let alive =
        |branch: &str| options("sip:10.0.0.1", "").replace("z9hG4bKo", branch).replace("/UDP", "/TCP");
    feed(&mut world, theirs, &alive("z9hG4bKone"));
    assert!(on_stream(&mut world, theirs)[0].text().starts_with("SIP/2.0 200 "));
    dial(&mut world, 1);
    assert!(on_stream(&mut world, theirs)[0].text().starts_with("INVITE "));
    world.advance(2_000);
    let second = connects_to(&mut world, "10.2.0.20:5080");
    assert!(on_stream(&mut world, second)[0].text().starts_with("INVITE "));
    assert!(on_stream(&mut world, theirs).is_empty());
    feed(&mut world, theirs, &alive("z9hG4bKtwo"));
    on_stream(&mut world, theirs);
    dial(&mut world, 2);
    assert!(on_stream(&mut world, theirs)[0].text().starts_with("INVITE "));
}
