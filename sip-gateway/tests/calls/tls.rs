//! TLS: who comes by it, what we say of ourselves, and `sips:`.

use bytes::Bytes;
use consent::Side;
use sip_gateway::{Input, Listener, ListenerId, Output, PeerId, StreamId, Transport};

use crate::transports::on_stream;
use crate::world::*;

const TLS: ListenerId = ListenerId(3);
const PBX_TLS: &str = "10.1.0.10:5061";
const ACCEPTED: StreamId = StreamId(2);
const PBX_NAME: &str = "pbx.example.org";

/// A PBX by TLS; `certificate`: what its own streams must show.
fn world(certificate: Option<&str>) -> World {
    let mut config = config();
    config.listeners.push(Listener { transport: Transport::Tls, address: addr("10.0.0.1:5061") });
    config.peers[0] = peer("pbx", Side::District, PBX_TLS, Transport::Tls);
    config.peers[0].certificate = certificate.map(str::to_owned);
    World::with(config)
}

fn open(world: &mut World, stream: StreamId, from: &str) {
    world.input(Input::StreamOpened { stream, listener: TLS, from: addr(from) });
}

fn ready(world: &mut World, stream: StreamId, names: &[&str]) {
    let certified = names.iter().map(|name| (*name).to_owned()).collect();
    world.input(Input::StreamReady { stream, certified });
}

fn accept(world: &mut World, names: &[&str]) {
    open(world, ACCEPTED, "10.1.0.10:40000");
    assert_eq!(world.streams, [Output::Secure { stream: ACCEPTED }]);
    world.streams.clear();
    ready(world, ACCEPTED, names);
}

fn feed(world: &mut World, stream: StreamId, text: &str) {
    world.input(Input::StreamBytes { stream, bytes: Bytes::copy_from_slice(text.as_bytes()) });
}

/// A caller on a TLS stream.
fn caller() -> Ua {
    Ua::caller(PBX_TLS, "100")
}

fn by_tls(text: &str) -> String {
    text.replace("SIP/2.0/UDP", "SIP/2.0/TLS")
        .replace(&format!("@{PBX_TLS}>"), &format!("@{PBX_TLS};transport=tls>"))
}

fn connected(world: &mut World) -> StreamId {
    let found = world.streams.iter().position(|output| matches!(output, Output::Connect { .. }));
    match world.streams.remove(found.expect("a Connect")) {
        Output::Connect { stream, listener: TLS, peer: PeerId(0), to } if to == addr(PBX_TLS) => stream,
        other => panic!("{other:?}"),
    }
}

/// RFC 3261 §12.1.1, §18.2.2: Contact and Via by TLS; nothing of one side reaches the other.
#[test]
fn a_call_from_tls_to_udp_and_back_over_the_same_stream() {
    let mut world = world(None);
    accept(&mut world, &[]);
    let mut a = caller();
    feed(
        &mut world,
        ACCEPTED,
        &by_tls(&a.invite("Record-Route: <sip:10.1.0.10:5061;transport=tls;lr>\r\n", "")),
    );
    let invite = world.expect(CARRIER, "INVITE sip:100@10.2.0.20 ");
    assert_eq!(invite.get("Contact"), "<sip:10.0.0.1:5060>");
    assert!(!invite.text().contains("10.1.0.10") && !invite.text().contains("5061"), "{}", invite.text());
    let mut b = Ua::callee(CARRIER, &invite, "t");
    world.send(CARRIER, invite.answer("200 OK", "t", &b.contact(), ""));
    let answers = on_stream(&mut world, ACCEPTED);
    assert_eq!(answers[1].get("Contact"), "<sip:10.0.0.1:5061;transport=tls>");
    assert_eq!(answers[1].get("Record-Route"), "<sip:10.1.0.10:5061;transport=tls;lr>");
    a.learn(&answers[1]);
    feed(&mut world, ACCEPTED, &by_tls(&a.request("ACK", "", "")));
    world.expect(CARRIER, "ACK ");
    world.send(CARRIER, b.request("BYE", "", ""));
    let bye = on_stream(&mut world, ACCEPTED).remove(0);
    assert!(bye.get("Via").starts_with("SIP/2.0/TLS 10.0.0.1:5061;"), "{}", bye.get("Via"));
    assert!(bye.get("Via").ends_with(";alias"));
    feed(&mut world, ACCEPTED, &bye.answer("200 OK", "", "", ""));
    world.expect(CARRIER, "SIP/2.0 200 ");
    assert!(world.streams.is_empty(), "no stream of our own");
    world.assert_clean();
}

/// An unknown source gets nothing.
#[test]
fn a_stranger_is_not_even_let_shake_hands() {
    let mut world = world(None);
    open(&mut world, ACCEPTED, "203.0.113.66:1");
    assert_eq!(world.streams, [Output::CloseStream { stream: ACCEPTED }]);
}

#[test]
fn bytes_before_the_handshake_are_nobodys() {
    let mut world = world(None);
    open(&mut world, ACCEPTED, "10.1.0.10:40000");
    world.streams.clear();
    feed(&mut world, ACCEPTED, &by_tls(&caller().invite("", "")));
    assert!(world.streams.is_empty() && world.events.is_empty());
}

#[test]
fn one_source_may_have_a_quarter_of_the_streams_shaking_hands() {
    let mut world = world(None);
    let mut number = 0;
    let mut let_in = |world: &mut World, from: &str| {
        number += 2;
        open(world, StreamId(number), from);
        world.streams.pop() == Some(Output::Secure { stream: StreamId(number) })
    };
    // Of eight.
    assert!(let_in(&mut world, "10.1.0.10:40000"));
    assert!(let_in(&mut world, "10.1.0.10:40001"));
    assert!(!let_in(&mut world, "10.1.0.10:40002"));
    assert!(let_in(&mut world, "10.2.0.20:40000"));
    // One has shaken hands, one has failed.
    ready(&mut world, StreamId(2), &[]);
    world.input(Input::StreamClosed { stream: StreamId(4) });
    assert!(let_in(&mut world, "10.1.0.10:40003"));
    assert!(let_in(&mut world, "10.1.0.10:40004"));
    assert!(!let_in(&mut world, "10.1.0.10:40005"));
    // All together are as many as streams may be.
    let mut config = config();
    config.listeners.push(Listener { transport: Transport::Tls, address: addr("10.0.0.1:5061") });
    config.limits.max_streams = 2;
    let mut world = World::with(config);
    assert!(let_in(&mut world, "10.1.0.10:40000"));
    assert!(let_in(&mut world, "10.2.0.20:40000"));
    assert!(!let_in(&mut world, "10.3.0.30:40000"));
}

/// RFC 5922 §7.2.
#[test]
fn a_peer_with_a_certificate_is_nobody_without_it() {
    for names in [&[][..], &["other.example.org"], &["x.pbx.example.org", "example.org"]] {
        let mut world = world(Some(PBX_NAME));
        accept(&mut world, names);
        assert_eq!(world.streams, [Output::CloseStream { stream: ACCEPTED }], "{names:?}");
    }
    let mut world = world(Some(PBX_NAME));
    world.send("10.1.0.10:5060", caller().invite("", ""));
    world.expect_nothing("10.1.0.10:5060");
    assert!(world.events.is_empty(), "a datagram shows no certificate");
    accept(&mut world, &["second.example.org", "PBX.Example.org"]);
    feed(&mut world, ACCEPTED, &by_tls(&caller().invite("", "")));
    world.expect(CARRIER, "INVITE ");
}

/// RFC 5923 §5.
#[test]
fn a_stream_is_reused_only_with_certificate_and_alias() {
    let cases = [(&[PBX_NAME][..], ";alias", true), (&[PBX_NAME], "", false), (&[], ";alias", false)];
    for (names, alias, reused) in cases {
        let mut world = world(None);
        accept(&mut world, names);
        let options =
            by_tls(&caller().request("OPTIONS", "", "")).replacen(";branch", &format!("{alias};branch"), 1);
        feed(&mut world, ACCEPTED, &options);
        assert_eq!(on_stream(&mut world, ACCEPTED)[0].response().status, 200);
        world.send(CARRIER, Ua::caller(CARRIER, "7331").invite("", ""));
        if reused {
            let invite = on_stream(&mut world, ACCEPTED).remove(0);
            assert!(invite.text().starts_with("INVITE "));
            assert!(world.streams.is_empty());
        } else {
            let stream = connected(&mut world);
            let invite = on_stream(&mut world, stream).remove(0);
            assert!(invite.get("Via").contains("/TLS ") && invite.get("Via").ends_with(";alias"));
            assert_eq!(invite.get("Contact"), "<sip:10.0.0.1:5061;transport=tls>");
        }
    }
}

/// RFC 5923 §4.
#[test]
fn our_own_stream_serves_further_calls_and_the_peers_requests() {
    let mut world = world(Some(PBX_NAME));
    world.send(CARRIER, Ua::caller(CARRIER, "7331").invite("", ""));
    let stream = connected(&mut world);
    ready(&mut world, stream, &[]);
    assert_eq!(on_stream(&mut world, stream).len(), 1);
    let mut second = Ua::caller(CARRIER, "7332");
    second.call_id = "second".to_owned();
    second.branch = 77;
    world.send(CARRIER, second.invite("", ""));
    assert_eq!(on_stream(&mut world, stream).len(), 1);
    feed(&mut world, stream, &by_tls(&caller().request("OPTIONS", "", "")));
    assert_eq!(on_stream(&mut world, stream)[0].response().status, 200);
    assert!(world.streams.is_empty());
}

/// RFC 3261 §18.2.2.
#[test]
fn an_answer_whose_stream_is_gone_goes_to_the_port_of_via() {
    let mut world = world(None);
    accept(&mut world, &[]);
    let invite = by_tls(&caller().invite("", "")).replace(&format!("TLS {PBX_TLS}"), "TLS 10.1.0.10");
    feed(&mut world, ACCEPTED, &invite);
    world.input(Input::StreamClosed { stream: ACCEPTED });
    world.streams.clear();
    let invite = world.expect(CARRIER, "INVITE ");
    world.send(CARRIER, invite.answer("486 Busy", "t", "", ""));
    let stream = connected(&mut world);
    assert_eq!(on_stream(&mut world, stream)[0].response().status, 486);
}

/// RFC 5630 §5.3.
#[test]
fn a_sips_call_goes_on_by_tls_only() {
    let sips = |world: &mut World, extra: &str| {
        accept(world, &[]);
        let text = by_tls(&caller().invite(extra, "")).replacen("INVITE sip:", "INVITE sips:", 1);
        feed(world, ACCEPTED, &text);
    };
    let mut nowhere = world(None);
    sips(&mut nowhere, "");
    nowhere.expect_nothing(CARRIER);
    let refused = on_stream(&mut nowhere, ACCEPTED).remove(1);
    assert_eq!(refused.response().status, 480);
    assert_eq!(refused.get("Warning"), "380 earmark \"SIPS Not Allowed\"");
    nowhere.assert_clean();

    let mut config = config();
    config.listeners.push(Listener { transport: Transport::Tls, address: addr("10.0.0.1:5061") });
    config.peers[0] = peer("pbx", Side::District, PBX_TLS, Transport::Tls);
    config.peers[2] = peer("carrier2", Side::Public, "10.3.0.30:5061", Transport::Tls);
    let mut world = World::with(config);
    sips(&mut world, "");
    world.expect_nothing(CARRIER);
    let Output::Connect { stream, peer: PeerId(2), .. } = world.streams.remove(1) else {
        panic!("{:?}", world.streams)
    };
    let invite = on_stream(&mut world, stream).remove(0);
    assert_eq!(invite.request().uri, "sips:100@10.3.0.30:5061");
    assert_eq!(invite.get("Contact"), "<sips:10.0.0.1:5061>");
    let answer = invite.answer("200 OK", "t", "Contact: <sips:x@10.3.0.30:5061>\r\n", "");
    feed(&mut world, stream, &answer);
    let answers = on_stream(&mut world, ACCEPTED);
    assert_eq!(answers[1].get("Contact"), "<sips:10.0.0.1:5061>");
    // The ACK and what follows stay in the dialog's scheme.
    let mut a = caller();
    a.cseq += 1;
    a.learn(&answers[1]);
    feed(&mut world, ACCEPTED, &by_tls(&a.request("ACK", "", "")));
    assert_eq!(on_stream(&mut world, stream)[0].request().uri, "sips:x@10.3.0.30:5061");
}

/// RFC 3261 §8.2.2.1.
#[test]
fn sips_is_an_unknown_scheme_where_it_did_not_come_by_tls() {
    let mut world = world(None);
    let mut a = Ua::caller(CARRIER, "7331");
    for method in ["INVITE", "OPTIONS"] {
        world.send(CARRIER, a.request(method, &a.contact(), "").replacen(" sip:", " sips:", 1));
        world.expect(CARRIER, "SIP/2.0 416 ");
    }
    accept(&mut world, &[]);
    feed(&mut world, ACCEPTED, &by_tls(&caller().request("OPTIONS", "", "")).replacen(" sip:", " sips:", 1));
    assert_eq!(on_stream(&mut world, ACCEPTED)[0].response().status, 200);
}

/// Nothing refuses an emergency call.
#[test]
fn a_sips_emergency_call_goes_on_whichever_way_there_is() {
    let mut world = world(None);
    accept(&mut world, &[]);
    let mut a = Ua::caller(PBX_TLS, "911");
    feed(&mut world, ACCEPTED, &by_tls(&a.invite("", "")).replacen(" sip:", " sips:", 1));
    let invite = world.expect(CARRIER, "INVITE sip:911@10.2.0.20 ");
    assert_eq!(invite.get("Contact"), "<sip:10.0.0.1:5060>");
}

/// RFC 3261 §12.2.1.1.
#[test]
fn a_contact_by_another_transport_does_not_lead_tls_astray() {
    let mut world = world(None);
    world.send(CARRIER, Ua::caller(CARRIER, "7331").invite("", ""));
    let stream = connected(&mut world);
    let invite = on_stream(&mut world, stream).remove(0);
    feed(&mut world, stream, &invite.answer("200 OK", "t", "Contact: <sip:x@10.1.0.10:5060>\r\n", ""));
    world.input(Input::StreamClosed { stream });
    let mut a = Ua::caller(CARRIER, "7331");
    a.cseq += 1;
    let ok = world.take_all(CARRIER).pop().expect("the answer");
    a.learn(&ok);
    world.streams.clear();
    world.send(CARRIER, a.request("ACK", "", ""));
    let again = connected(&mut world);
    assert_eq!(on_stream(&mut world, again)[0].request().uri, "sip:x@10.1.0.10:5060");
}
