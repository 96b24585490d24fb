//! Requests inside the dialogs (RFC 3261 §12.2, §14, §15; RFC 3311; RFC 6086).

use consent::Leg;
use sip_gateway::{Change, Command, EndedBy, Event};

use crate::world::*;

fn reinvite(up: &mut Up, extra: &str, body: &str) -> (Msg, String) {
    let contact = up.a.contact();
    let text = up.a.request("INVITE", &format!("{contact}{extra}"), body);
    up.world.send(PBX, &text);
    up.world.expect(PBX, "SIP/2.0 100 ");
    (up.world.expect(CARRIER, "INVITE "), text)
}

fn version(body: &str) -> u64 {
    let origin = body.lines().find(|line| line.starts_with("o=")).unwrap();
    origin.split(' ').nth(2).unwrap().parse().unwrap()
}

fn changes(up: &Up) -> Vec<(Leg, Change)> {
    let changes = up.world.events.iter().filter_map(|event| match event {
        Event::Changed { leg, change, .. } => Some((*leg, change.clone())),
        _ => None,
    });
    changes.collect()
}

#[test]
fn hold_and_resume() {
    let mut up = Up::new();
    let first = version(&up.invite.body());
    up.world.order.clear();
    let (held, _) = reinvite(&mut up, "", &sdp(OFFER_IP, 4000, "a=sendonly\r\n"));
    assert!(held.body().contains("a=sendonly") && held.body().contains("m=audio 20002 "));
    assert_eq!(version(&held.body()), first + 1);
    assert_eq!(changes(&up), [(Leg::A, Change::Held)]);
    let told = up.world.order.iter().position(|o| o == "event Changed").unwrap();
    let passed = up.world.order.iter().position(|o| o.contains("INVITE sip:")).unwrap();
    assert!(told < passed, "{:?}", up.world.order);
    let answer = sdp(ANSWER_IP, 5000, "a=recvonly\r\n");
    let ok = held.answer("200 OK", "", &up.b.contact(), &answer);
    up.world.send(CARRIER, ok);
    let ok = up.world.expect(PBX, "SIP/2.0 200 ");
    assert!(ok.body().contains("a=recvonly"));
    up.world.send(PBX, up.a.request("ACK", "", ""));
    up.world.expect(CARRIER, "ACK ");

    let (resumed, _) = reinvite(&mut up, "", &sdp(OFFER_IP, 4000, ""));
    assert_eq!(version(&resumed.body()), first + 2);
    assert_eq!(changes(&up).len(), 1);
    up.world.order.clear();
    up.world.send(CARRIER, resumed.answer("200 OK", "", &up.b.contact(), &sdp(ANSWER_IP, 5000, "")));
    assert_eq!(changes(&up).last(), Some(&(Leg::A, Change::Resumed)));
    assert!(up.world.order.last().unwrap().contains("SIP/2.0 200"));
    up.world.expect(PBX, "SIP/2.0 200 ");
    up.world.send(PBX, up.a.request("ACK", "", ""));
    up.world.expect(CARRIER, "ACK ");
    up.hang_up();
}

#[test]
fn a_session_refresh_changes_nothing() {
    let mut up = Up::new();
    let before = up.invite.body();
    up.world.events.clear();
    let (refresh, _) = reinvite(&mut up, "", &sdp(OFFER_IP, 4000, ""));
    assert_eq!(refresh.body(), before);
    up.world.send(CARRIER, refresh.answer("200 OK", "", &up.b.contact(), &sdp(ANSWER_IP, 5000, "")));
    let ok = up.world.expect(PBX, "SIP/2.0 200 ");
    assert_eq!(ok.body(), up.ok.body());
    assert_eq!(up.world.events.len(), 0, "{:?}", up.world.events);
}

#[test]
fn a_refused_hold_is_taken_back() {
    let mut up = Up::new();
    let (held, text) = reinvite(&mut up, "", &sdp(OFFER_IP, 4000, "a=inactive\r\n"));
    up.world.events.clear();
    up.world.send(CARRIER, held.answer("488 Not Here", "", "", ""));
    up.world.expect(CARRIER, "ACK ");
    let refused = up.world.expect(PBX, "SIP/2.0 488 Not Here");
    assert_eq!(changes(&up), [(Leg::A, Change::Resumed)]);
    assert!(!up.world.events.iter().any(|e| matches!(e, Event::Media { .. })));
    assert!(text.contains(refused.get("CSeq")));
    up.world.send(PBX, up.a.ack_failure(&refused));
    up.hang_up();
}

#[test]
fn glare_is_491_for_the_other_side_and_500_for_the_same() {
    let mut up = Up::new();
    let (first, _) = reinvite(&mut up, "", &sdp(OFFER_IP, 4000, ""));
    let other = up.b.request("INVITE", "", &sdp(ANSWER_IP, 5000, ""));
    up.world.send(CARRIER, other);
    let pending = up.world.expect(CARRIER, "SIP/2.0 491 Request Pending");
    up.world.send(CARRIER, up.b.ack_failure(&pending));
    up.b.remote = up.invite.get("From").to_owned();
    up.world.send(CARRIER, up.b.request("UPDATE", "", &sdp(ANSWER_IP, 5000, "")));
    up.world.expect(CARRIER, "SIP/2.0 491 ");
    let mut again = up.a.clone();
    again.branch += 50;
    up.world.send(PBX, again.request("INVITE", "", &sdp(OFFER_IP, 4000, "")));
    let later = up.world.expect(PBX, "SIP/2.0 500 ");
    assert!(later.headers().contains("Retry-After"));
    // The first goes through all the same.
    up.world.send(CARRIER, first.answer("200 OK", "", &up.b.contact(), &sdp(ANSWER_IP, 5000, "")));
    let ok = up.world.expect(PBX, "SIP/2.0 200 ");
    assert_eq!(ok.get("CSeq"), "102 INVITE");
}

#[test]
fn after_the_ack_the_other_side_may_reinvite() {
    let mut up = Up::new();
    let contact = up.b.contact();
    up.world.send(CARRIER, up.b.request("INVITE", &contact, &sdp(ANSWER_IP, 5002, "")));
    up.world.expect(CARRIER, "SIP/2.0 100 ");
    let invite = up.world.expect(PBX, "INVITE sip:line@10.1.0.10:5060 ");
    assert_eq!(invite.tag("From"), up.ok.tag("To"));
    assert_eq!(invite.get("Call-ID"), up.a.call_id);
    // Its port is its own affair: towards A nothing has changed.
    assert_eq!(invite.body(), up.ok.body());
    up.world.send(PBX, invite.answer("200 OK", "", &up.a.contact(), &sdp(OFFER_IP, 4000, "")));
    up.world.expect(CARRIER, "SIP/2.0 200 ");
    up.world.event(|e| {
        matches!(e, Event::Media { leg: Leg::B, media, .. } if media.streams[0].rtp == Some(addr("10.2.0.99:5002")))
    });
    up.world.send(CARRIER, up.b.request("ACK", "", ""));
    up.world.expect(PBX, "ACK ");
    up.hang_up();
}

#[test]
fn a_delayed_reinvite_is_answered_in_its_ack() {
    let mut up = Up::new();
    let (invite, _) = reinvite(&mut up, "", "");
    up.world
        .send(CARRIER, invite.answer("200 OK", "", &up.b.contact(), &sdp(ANSWER_IP, 5000, "a=sendonly\r\n")));
    assert_eq!(changes(&up), [(Leg::B, Change::Held)]);
    up.world.expect(PBX, "SIP/2.0 200 ");
    up.world.send(PBX, up.a.request("ACK", "", &sdp(OFFER_IP, 4000, "a=recvonly\r\n")));
    let ack = up.world.expect(CARRIER, "ACK ");
    assert!(ack.body().contains("a=recvonly") && ack.body().contains("m=audio 20002 "));
    up.hang_up();
}

#[test]
fn update_passes_with_our_description() {
    let mut up = Up::new();
    let contact = up.a.contact();
    up.world.send(PBX, up.a.request("UPDATE", &contact, &sdp(OFFER_IP, 4000, "a=sendonly\r\n")));
    let update = up.world.expect(CARRIER, "UPDATE ");
    assert!(update.body().contains("m=audio 20002 ") && update.body().contains("a=sendonly"));
    up.world
        .send(CARRIER, update.answer("200 OK", "", &up.b.contact(), &sdp(ANSWER_IP, 5000, "a=recvonly\r\n")));
    let ok = up.world.expect(PBX, "SIP/2.0 200 ");
    assert!(ok.body().contains("m=audio 20000 "));
    assert_eq!(changes(&up), [(Leg::A, Change::Held)]);
    up.hang_up();
}

#[test]
fn a_new_party_or_origin_is_told_before_it_is_passed_on() {
    let mut up = Up::new();
    let mut other = sdp(OFFER_IP, 4000, "").replace("o=user 77 1", "o=other 78 1");
    let extra = "P-Asserted-Identity: <sip:7399@10.1.0.10>\r\n";
    up.world.order.clear();
    reinvite(&mut up, extra, &other);
    let told = changes(&up);
    assert_eq!(told[0], (Leg::A, Change::NewOrigin));
    let (Leg::A, Change::NewParty { identity, .. }) = &told[1] else { panic!("{told:?}") };
    assert_eq!(
        (identity.asserted.as_slice(), identity.from.as_str()),
        (["7399".to_owned()].as_slice(), "7331")
    );
    let last = up.world.order.iter().rposition(|o| o == "event Changed").unwrap();
    let passed = up.world.order.iter().position(|o| o.contains("INVITE sip:")).unwrap();
    assert!(last < passed);

    // The callee's side shows a conference's focus in its answer.
    let mut up = Up::new();
    other.clear();
    let (invite, _) = reinvite(&mut up, "", &sdp(OFFER_IP, 4000, ""));
    let focus = format!("Contact: <sip:line@{CARRIER}>;isfocus\r\n");
    up.world.send(CARRIER, invite.answer("200 OK", "", &focus, &sdp(ANSWER_IP, 5000, "")));
    assert!(matches!(&changes(&up)[..], [(Leg::B, Change::NewParty { .. })]), "{:?}", changes(&up));
}

#[test]
fn info_passes_byte_for_byte_and_its_digit_is_told() {
    let mut up = Up::new();
    let body = "Signal=5\r\nDuration=160\r\n\u{1}odd";
    let extra = "Content-Type: application/dtmf-relay\r\nInfo-Package: x\r\n";
    up.world.order.clear();
    up.world.send(PBX, up.a.request("INFO", extra, body));
    let info = up.world.expect(CARRIER, "INFO sip:line@10.2.0.20:5060 ");
    assert_eq!(info.body(), body);
    assert_eq!((info.get("Content-Type"), info.get("Info-Package")), ("application/dtmf-relay", "x"));
    assert_eq!(up.world.order[0], "event Digit");
    up.world.event(|e| matches!(e, Event::Digit { leg: Leg::A, digit: '5', .. }));
    up.world.send(CARRIER, info.answer("469 Bad Info Package", "", "Recv-Info: y\r\n", "why"));
    let bad = up.world.expect(PBX, "SIP/2.0 469 Bad Info Package");
    assert_eq!((bad.get("Recv-Info"), bad.body().as_str()), ("y", "why"));
    up.hang_up();
}

#[test]
fn swallowed_digits_are_told_and_go_no_further() {
    let mut up = Up::new();
    let call = up.world.call();
    up.world.command(Command::SwallowInfoDigits { call, leg: Leg::B, swallow: true });
    let digit = ("Content-Type: application/dtmf\r\n", "1");
    up.world.send(CARRIER, up.b.request("INFO", digit.0, digit.1));
    up.world.expect(CARRIER, "SIP/2.0 200 OK");
    up.world.expect_nothing(PBX);
    up.world.event(|e| matches!(e, Event::Digit { leg: Leg::B, digit: '1', .. }));
    // Other INFO, and the other leg's digits, still pass.
    up.world.send(CARRIER, up.b.request("INFO", "", "text"));
    up.world.expect(PBX, "INFO ");
    up.world.send(PBX, up.a.request("INFO", digit.0, digit.1));
    up.world.expect(CARRIER, "INFO ");
    up.world.command(Command::SwallowInfoDigits { call, leg: Leg::B, swallow: false });
    up.world.send(CARRIER, up.b.request("INFO", digit.0, digit.1));
    up.world.expect(PBX, "INFO ");
}

#[test]
fn methods_that_nobody_knows_pass_and_those_that_end_here_do_not() {
    let mut up = Up::new();
    up.world.send(PBX, up.a.request("FROBNICATE", "X-Odd: \u{e9}\r\n", "body"));
    let odd = up.world.expect(CARRIER, "FROBNICATE ");
    assert_eq!((odd.get("X-Odd"), odd.body().as_str()), ("\u{e9}", "body"));
    up.world.send(CARRIER, odd.answer("501 Never Heard Of It", "", "", ""));
    up.world.expect(PBX, "SIP/2.0 501 Never Heard Of It");
    for (method, status) in [("SUBSCRIBE", "405"), ("PRACK", "481"), ("OPTIONS", "200"), ("PUBLISH", "405")] {
        up.world.send(PBX, up.a.request(method, "Refer-To: <sip:x@10.2.0.20>\r\n", ""));
        up.world.expect(PBX, &format!("SIP/2.0 {status} "));
    }
    up.world.send(CARRIER, up.b.request("REFER", "Refer-To: <sip:x@10.1.0.10>\r\n", ""));
    up.world.expect(CARRIER, "SIP/2.0 403 ");
    up.world.expect_nothing(PBX);
    up.world.expect_nothing(CARRIER);
    up.hang_up();
}

#[test]
fn sequence_hops_extensions_and_dialogs_are_checked() {
    let mut up = Up::new();
    let mut old = up.a.clone();
    old.cseq = 20;
    old.branch = 900;
    up.world.send(PBX, old.request("INFO", "", ""));
    up.world.expect(PBX, "SIP/2.0 500 ");
    let hops = up.a.request("INFO", "", "").replace("Max-Forwards: 70", "Max-Forwards: 0");
    up.world.send(PBX, hops);
    up.world.expect(PBX, "SIP/2.0 483 ");
    up.world.send(PBX, up.a.request("INFO", "Require: histinfo, martian\r\n", ""));
    assert_eq!(up.world.expect(PBX, "SIP/2.0 420 ").get("Unsupported"), "martian");
    let mut forged = up.a.clone();
    forged.branch = 1000;
    forged.remote = forged.remote.replace("tag=", "tag=x");
    for method in ["BYE", "INFO", "INVITE", "UPDATE"] {
        up.world.send(PBX, forged.request(method, "", ""));
        up.world.expect(PBX, "SIP/2.0 481 ");
    }
    // The right dialog, but another peer's mouth.
    forged.remote = up.a.remote.clone();
    up.world.send(CARRIER2, forged.request("BYE", "", ""));
    assert_eq!(up.world.core.calls(), 1);
    up.world.expect_nothing(CARRIER);
    up.hang_up();
}

#[test]
fn an_info_that_nobody_answers_is_not_answered_408() {
    let mut up = Up::new();
    up.world.send(PBX, up.a.request("INFO", "", ""));
    up.world.advance(40_000);
    up.world.expect_nothing(PBX);
    let sent = up.world.take_all(CARRIER);
    assert_eq!(sent.len(), 11, "0, 0.5, 1.5, 3.5 s and then every 4 s up to 32 s");
    assert_eq!(up.world.core.calls(), 1);
    up.hang_up();
}

#[test]
fn a_bye_before_the_ack_ends_both_legs() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    let invite = world.expect(CARRIER, "INVITE ");
    let contact = "Contact: <sip:line@10.2.0.20:5060>\r\n";
    world.send(CARRIER, invite.answer("200 OK", "t", contact, &sdp(ANSWER_IP, 5000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    a.learn(&ok);
    world.send(PBX, a.request("BYE", "", ""));
    world.expect(PBX, "SIP/2.0 200 OK");
    world.expect(CARRIER, "ACK ");
    let bye = world.expect(CARRIER, "BYE ");
    world.send(CARRIER, bye.answer("200 OK", "", "", ""));
    world.advance(20_000);
    world.expect_nothing(PBX);
    assert_eq!(world.ended()[0].by, Some(EndedBy::Caller));
    world.assert_clean();
}

#[test]
fn a_bye_of_the_callee_before_the_callers_ack_waits_for_that_ack() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", ""));
    let invite = world.expect(CARRIER, "INVITE ");
    let mut b = Ua::callee(CARRIER, &invite, "t");
    world.send(CARRIER, invite.answer("200 OK", "t", &b.contact(), ""));
    world.expect(PBX, "SIP/2.0 100 ");
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    world.send(CARRIER, b.request("BYE", "", ""));
    world.expect(CARRIER, "SIP/2.0 200 ");
    world.expect_nothing(PBX);
    world.advance(500);
    world.expect(PBX, "SIP/2.0 200 ");
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    let bye = world.expect(PBX, "BYE ");
    world.send(PBX, bye.answer("200 OK", "", "", ""));
    assert_eq!(world.ended().len(), 1);
    world.expect_nothing(CARRIER);
    world.assert_clean();
}

#[test]
fn byes_that_cross_are_both_answered_and_ended_is_told_once() {
    let mut up = Up::new();
    up.world.send(PBX, up.a.request("BYE", "", ""));
    up.world.expect(PBX, "SIP/2.0 200 ");
    up.world.expect(CARRIER, "BYE ");
    up.world.send(CARRIER, up.b.request("BYE", "", ""));
    up.world.expect(CARRIER, "SIP/2.0 200 ");
    assert_eq!(up.world.ended().len(), 1);
    assert_eq!(up.world.ended()[0].by, Some(EndedBy::Caller));
    up.world.assert_clean();
}

#[test]
fn a_bye_answers_what_is_still_pending_with_487() {
    let mut up = Up::new();
    let (invite, _) = reinvite(&mut up, "", &sdp(OFFER_IP, 4000, ""));
    up.world.send(CARRIER, up.b.request("BYE", "", ""));
    up.world.expect(CARRIER, "SIP/2.0 200 ");
    up.world.expect(PBX, "SIP/2.0 487 ");
    up.world.expect(PBX, "BYE ");
    up.world.send(CARRIER, invite.answer("487 Request Terminated", "", "", ""));
    up.world.expect(CARRIER, "ACK ");
    up.world.assert_clean();
}

#[test]
fn a_reinvite_can_be_cancelled() {
    let mut up = Up::new();
    let (invite, _) = reinvite(&mut up, "", &sdp(OFFER_IP, 4000, ""));
    up.world.send(PBX, up.a.request("CANCEL", "", ""));
    assert!(up.world.expect(PBX, "SIP/2.0 200 ").get("CSeq").ends_with("CANCEL"));
    up.world.expect_nothing(CARRIER);
    up.world.send(CARRIER, invite.answer("100 Trying", "", "", ""));
    up.world.expect(CARRIER, "CANCEL ");
    up.world.send(CARRIER, invite.answer("487 Request Terminated", "", "", ""));
    up.world.expect(CARRIER, "ACK ");
    let terminated = up.world.expect(PBX, "SIP/2.0 487 ");
    up.world.send(PBX, up.a.ack_failure(&terminated));
    assert_eq!(up.world.core.calls(), 1);
    up.hang_up();
}

#[test]
fn a_reinvite_without_ack_ends_the_call() {
    let mut up = Up::new();
    let (invite, _) = reinvite(&mut up, "", &sdp(OFFER_IP, 4000, ""));
    up.world.send(CARRIER, invite.answer("200 OK", "", &up.b.contact(), &sdp(ANSWER_IP, 5000, "")));
    up.world.advance(32_000);
    assert_eq!(up.world.take_all(PBX).last().unwrap().request().method.as_str(), "BYE");
    up.world.expect(CARRIER, "ACK ");
    up.world.expect(CARRIER, "BYE ");
    up.world.assert_clean();
}

#[test]
fn requests_in_dialog_follow_route_set_and_target() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    let routes = "Record-Route: <sip:p2.example;lr>, <sip:p1.example;lr>\r\n";
    world.send(PBX, a.invite(routes, ""));
    let invite = world.expect(CARRIER, "INVITE ");
    assert!(!invite.headers().contains("Record-Route") && !invite.headers().contains("Route"));
    let contact = "Contact: <sip:phone@192.168.9.9:6000>\r\n";
    let record =
        format!("Record-Route: <sip:c1.example;lr>\r\nRecord-Route: <sip:c2.example;lr>\r\n{contact}");
    world.send(CARRIER, invite.answer("200 OK", "t", &record, ""));
    world.expect(PBX, "SIP/2.0 100 ");
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    assert_eq!(ok.get("Record-Route"), "<sip:p2.example;lr>, <sip:p1.example;lr>");
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    let ack = world.expect(CARRIER, "ACK sip:phone@192.168.9.9:6000 ");
    let routes: Vec<&str> = ack.headers().all("Route").collect();
    assert_eq!(routes, ["<sip:c2.example;lr>", "<sip:c1.example;lr>"]);
    let mut b = Ua::callee(CARRIER, &invite, "t");
    world.send(CARRIER, b.request("BYE", "", ""));
    world.expect(CARRIER, "SIP/2.0 200 ");
    let bye = world.expect(PBX, "BYE sip:line@10.1.0.10:5060 ");
    let routes: Vec<&str> = bye.headers().all("Route").collect();
    assert_eq!(routes, ["<sip:p2.example;lr>", "<sip:p1.example;lr>"]);
}
