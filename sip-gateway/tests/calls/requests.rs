//! What any peer's, or stranger's, request gets (RFC 3261 §8.2, §16.3, §18).

use sip_gateway::Event;

use crate::world::*;

pub fn options(uri: &str, extra: &str) -> String {
    format!(
        "OPTIONS {uri} SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.0.10:5060;branch=z9hG4bKo{}\r\nMax-Forwards: 70\r\n\
         From: <sip:x@10.1.0.10>;tag=o\r\nTo: <sip:gw@10.0.0.1>\r\nCall-ID: o\r\nCSeq: 1 OPTIONS\r\n{extra}\
         Content-Length: 0\r\n\r\n",
        uri.len() + extra.len()
    )
}

#[test]
fn strangers_get_nothing_whatever_they_send() {
    let mut world = World::new();
    let mut a = Ua::caller(STRANGER, "911");
    for method in ["INVITE", "OPTIONS", "REGISTER", "BYE", "CANCEL", "ACK"] {
        world.send(STRANGER, a.request(method, "", ""));
    }
    world.send(STRANGER, "INVITE nonsense\r\n\r\n");
    assert!(world.sent.is_empty() && world.events.is_empty());
    assert_eq!(world.core.counters().dropped_unknown_source, 7);
}

#[test]
fn options_are_answered_with_what_we_do() {
    let mut world = World::new();
    world.send(PBX, options("sip:10.0.0.1", ""));
    let ok = world.expect(PBX, "SIP/2.0 200 OK");
    assert!(ok.get("Allow").contains("INVITE") && ok.get("Accept").contains("application/sdp"));
    assert!(ok.tag("To").is_some());
    world.send(PBX, options("sips:10.0.0.1", ""));
    world.expect(PBX, "SIP/2.0 416 ");
    world.send(PBX, options("sip:10.0.0.1", "Require: martian\r\n"));
    assert_eq!(world.expect(PBX, "SIP/2.0 420 ").get("Unsupported"), "martian");
    // A repetition gets the same answer.
    world.send(PBX, options("sip:10.0.0.1", ""));
    assert_eq!(world.expect(PBX, "SIP/2.0 200 ").bytes, ok.bytes);
}

#[test]
fn what_cannot_be_a_call_is_refused_with_the_right_status() {
    let refused = |edit: &dyn Fn(String) -> String, extra: &str| {
        let mut world = World::new();
        let mut a = Ua::caller(PBX, "100");
        let text = edit(a.invite(extra, ""));
        world.send(PBX, text);
        let answer = world.take_all(PBX).pop().unwrap();
        assert!(world.events.is_empty(), "{:?}", world.events);
        world.expect_nothing(CARRIER);
        answer
    };
    let same = |text: String| text;
    let uri = |to: &'static str| move |text: String| text.replacen("sip:100@10.0.0.1", to, 1);
    assert_eq!(refused(&uri("mailto:x@y"), "").response().status, 416);
    assert_eq!(refused(&uri("sips:100@10.0.0.1"), "").response().status, 416);
    let hops = |text: String| text.replace("Max-Forwards: 70", "Max-Forwards: 0");
    assert_eq!(refused(&hops, "").response().status, 483);
    let bad = refused(&same, "Require: precondition, gruu\r\nRequire: histinfo, 100rel, timer\r\n");
    assert_eq!((bad.response().status, bad.get("Unsupported")), (420, "precondition, gruu"));
    assert_eq!(refused(&same, "CSeq: 5 INVITE\r\n").response().status, 400);
    let broken = sdp(OFFER_IP, 4000, "").replace("v=0", "v=9");
    let described = move |text: String| {
        let head = text.replace("Content-Length: 0\r\n\r\n", "");
        format!("{head}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{broken}", broken.len())
    };
    assert_eq!(refused(&described, "").response().status, 488);
}

#[test]
fn methods_outside_a_dialog() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    for (method, status) in [
        ("REGISTER", 405),
        ("SUBSCRIBE", 405),
        ("MESSAGE", 405),
        ("PUBLISH", 405),
        ("REFER", 403),
        ("FROBNICATE", 405),
        ("invite", 405),
        ("BYE", 481),
        ("INFO", 481),
        ("UPDATE", 481),
        ("PRACK", 481),
        ("NOTIFY", 481),
    ] {
        world.send(PBX, a.request(method, "", ""));
        let answer = world.expect(PBX, &format!("SIP/2.0 {status} "));
        assert_eq!(answer.headers().contains("Allow"), status == 405);
    }
    world.send(PBX, a.request("ACK", "", ""));
    world.expect_nothing(PBX);
    assert_eq!(world.core.counters().dropped_stray_ack, 1);
}

#[test]
fn a_merged_request_is_482() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", ""));
    world.expect(PBX, "SIP/2.0 100 ");
    a.cseq -= 1;
    world.send(PBX, a.invite("", ""));
    world.expect(PBX, "SIP/2.0 482 ");
    assert_eq!(world.events.iter().filter(|e| matches!(e, Event::Offered(_))).count(), 1);
}

#[test]
fn repeated_invites_get_the_last_response_again() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    let text = a.invite("", "");
    world.send(PBX, &text);
    world.send(PBX, &text);
    assert_eq!(world.expect(PBX, "SIP/2.0 100 ").bytes, world.expect(PBX, "SIP/2.0 100 ").bytes);
    let invite = world.expect(CARRIER, "INVITE ");
    world.expect_nothing(CARRIER);
    world.send(CARRIER, invite.answer("180 Ringing", "t", "", ""));
    world.send(PBX, &text);
    assert_eq!(world.expect(PBX, "SIP/2.0 180 ").bytes, world.expect(PBX, "SIP/2.0 180 ").bytes);
    assert_eq!(world.core.counters().absorbed_requests, 2);
}

#[test]
fn a_request_without_max_forwards_goes_on_with_70() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", "").replace("Max-Forwards: 70\r\n", ""));
    assert_eq!(world.expect(CARRIER, "INVITE ").get("Max-Forwards"), "70");
}

#[test]
fn responses_go_back_by_rport_or_sent_by_and_never_elsewhere() {
    let mut world = World::new();
    let text = options("sip:10.0.0.1", "");
    world.send("10.1.0.10:9999", &text);
    let to_sent_by = world.expect(PBX, "SIP/2.0 200 ");
    assert!(!to_sent_by.get("Via").contains("rport"));
    let symmetric = text.replace("branch=z9hG4bKo", "rport;maddr=203.0.113.66;branch=z9hG4bKr");
    world.send("10.1.0.10:9999", symmetric);
    let to_source = world.expect("10.1.0.10:9999", "SIP/2.0 200 ");
    assert!(to_source.get("Via").contains("received=10.1.0.10"));
    assert!(to_source.get("Via").contains("rport=9999"));
    assert!(world.sent.iter().all(|(to, _)| to.ip() == addr(PBX).ip()));
}

#[test]
fn a_2543_request_without_a_branch_is_matched_too() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    let text = a.invite("", "").replace(";branch=z9hG4bK-callers-tag-1", "");
    world.send(PBX, &text);
    world.send(PBX, &text);
    world.expect(PBX, "SIP/2.0 100 ");
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    world.expect_nothing(CARRIER);
    world.send(CARRIER, invite.answer("486 Busy", "t", "", ""));
    let busy = world.expect(PBX, "SIP/2.0 486 ");
    let ack = a.ack_failure(&busy).replace(";branch=z9hG4bK-callers-tag-1", "");
    world.send(PBX, ack);
    world.advance(5_000);
    world.expect_nothing(PBX);
}

#[test]
fn malformed_requests_get_400_and_garbage_nothing() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", "").replace("CSeq: 101 INVITE", "CSeq: 101 BYE"));
    let bad = world.expect(PBX, "SIP/2.0 400 ");
    assert!(bad.tag("To").is_some());
    let short = a.invite("", "").replace("Content-Length: 0", "Content-Length: 50");
    world.send(PBX, short);
    world.expect(PBX, "SIP/2.0 400 ");
    for garbage in ["\0\0\0", "hello\r\n\r\n", "SIP/2.0 200 OK\r\n\r\n", "\r\n\r\n"] {
        world.send(PBX, garbage);
    }
    world.expect_nothing(PBX);
    let counters = world.core.counters();
    assert_eq!((counters.refused_malformed, counters.dropped_malformed), (2, 4));
}

#[test]
fn stray_responses_are_dropped() {
    let mut up = Up::new();
    let stray = up.invite.answer("200 OK", "x", "", "").replace("branch=z9hG4bK", "branch=z9hG4bKx");
    up.world.send(CARRIER, stray);
    // And a right one from the wrong peer.
    up.world.send(CARRIER2, up.invite.answer("200 OK", "x", "", ""));
    up.world.expect_nothing(PBX);
    up.world.expect_nothing(CARRIER);
    assert_eq!(up.world.core.counters().dropped_stray_response, 2);
}

#[test]
fn the_tags_of_two_requests_outside_calls_differ() {
    let mut world = World::new();
    let mut tag = |from: &str, to: &str| {
        world.send(PBX, options("sip:10.0.0.1", "").replace(from, to));
        world.next(PBX).unwrap().tag("To").unwrap()
    };
    let first = tag("", "");
    assert_eq!(first, tag("Max-Forwards: 70", "Max-Forwards: 69"));
    for (from, to) in
        [("z9hG4bKo", "z9hG4bKp"), ("tag=o", "tag=p"), ("Call-ID: o", "Call-ID: p"), ("CSeq: 1", "CSeq: 2")]
    {
        assert_ne!(first, tag(from, to));
    }
}

#[test]
fn a_cancel_of_a_refused_invite_is_answered_under_the_same_tag() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("Require: martian\r\n", ""));
    let refused = world.expect(PBX, "SIP/2.0 420 ");
    world.send(PBX, a.request("CANCEL", "", ""));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    assert_eq!(ok.tag("To"), refused.tag("To"));
    world.send(PBX, a.ack_failure(&refused));
    world.assert_clean();
}
