//! Answers, forks, failures and failover (RFC 3261 §13, §16.7).

use consent::{Leg, Side};
use sip_gateway::{Command, EndedBy, Event};

use crate::world::*;

fn calling() -> (World, Ua, Msg) {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    (world, a, invite)
}

fn contact(n: u8) -> String {
    format!("Contact: <sip:phone{n}@10.2.0.20:5060>\r\n")
}

#[test]
fn the_2xx_is_repeated_until_the_ack_and_the_ack_passed_on_once() {
    let (mut world, mut a, invite) = calling();
    world.send(CARRIER, invite.answer("200 OK", "t", &contact(1), &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    for wait_ms in [500, 1000, 2000, 4000, 4000] {
        world.advance(wait_ms - 1);
        world.expect_nothing(PBX);
        world.advance(1);
        assert_eq!(world.expect(PBX, "SIP/2.0 200 ").bytes, ok.bytes);
    }
    world.expect_nothing(CARRIER);
    a.learn(&ok);
    let ack = a.request("ACK", "", "");
    world.send(PBX, &ack);
    world.send(PBX, &ack);
    world.expect(CARRIER, "ACK ");
    world.expect_nothing(CARRIER);
    world.advance(10_000);
    world.expect_nothing(PBX);
}

#[test]
fn a_repeated_2xx_of_the_callee_gets_the_same_ack_again() {
    let mut up = Up::new();
    let ok = up.invite.answer("200 OK", "callees-tag", &up.b.contact(), &sdp(ANSWER_IP, 5000, ""));
    up.world.send(CARRIER, &ok);
    let first = up.world.expect(CARRIER, "ACK ");
    up.world.send(CARRIER, &ok);
    assert_eq!(up.world.expect(CARRIER, "ACK ").bytes, first.bytes);
    up.world.expect_nothing(PBX);
    up.hang_up();
}

#[test]
fn without_an_ack_both_legs_get_a_bye_after_64_t1() {
    let (mut world, _, invite) = calling();
    world.send(CARRIER, invite.answer("200 OK", "t", &contact(1), &sdp(ANSWER_IP, 5000, "")));
    world.advance(31_999);
    world.take_all(PBX);
    world.expect_nothing(CARRIER);
    world.advance(1);
    world.expect(PBX, "BYE ");
    world.expect(CARRIER, "ACK ");
    world.expect(CARRIER, "BYE ");
    let end = world.ended().remove(0);
    assert_eq!((end.by, end.final_status), (Some(EndedBy::Gateway), Some(200)));
    world.assert_clean();
}

#[test]
fn every_fork_rings_under_a_tag_of_its_own_and_the_first_2xx_wins() {
    let (mut world, mut a, invite) = calling();
    world.send(CARRIER, invite.answer("180 Ringing", "one", &contact(1), ""));
    world.send(CARRIER, invite.answer("183 Session Progress", "two", &contact(2), &sdp(ANSWER_IP, 5000, "")));
    let one = world.expect(PBX, "SIP/2.0 180 ").tag("To").unwrap();
    let two = world.expect(PBX, "SIP/2.0 183 ").tag("To").unwrap();
    assert_ne!(one, two);
    world.send(CARRIER, invite.answer("200 OK", "two", &contact(2), &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    assert_eq!(ok.tag("To"), Some(two));
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(CARRIER, "ACK sip:phone2@");
    // The other fork answers as well.
    let late = invite.answer("200 OK", "one", &contact(1), &sdp(ANSWER_IP, 6000, ""));
    world.send(CARRIER, &late);
    world.expect(CARRIER, "ACK sip:phone1@");
    let bye = world.expect(CARRIER, "BYE sip:phone1@");
    assert_eq!(bye.tag("To").as_deref(), Some("one"));
    world.send(CARRIER, &late);
    world.expect(CARRIER, "ACK sip:phone1@");
    // And one that never rang.
    world.send(CARRIER, invite.answer("200 OK", "three", &contact(3), ""));
    world.expect(CARRIER, "ACK sip:phone3@");
    world.expect(CARRIER, "BYE sip:phone3@");
    world.expect_nothing(PBX);
    assert_eq!(world.core.calls(), 1);
    world.send(PBX, a.request("BYE", "", ""));
    world.assert_clean();
}

#[test]
fn a_failure_passes_with_status_reason_phrase_and_explanations() {
    let (mut world, mut a, invite) = calling();
    let extra = "Reason: Q.850;cause=17\r\nWarning: 399 x \"busy\"\r\nRetry-After: 9\r\nX-Odd: 1\r\n";
    world.send(CARRIER, invite.answer("486 Occupied", "t", extra, ""));
    let ack = world.expect(CARRIER, "ACK ");
    assert_eq!((ack.get("Via"), ack.tag("To").as_deref()), (invite.get("Via"), Some("t")));
    let busy = world.expect(PBX, "SIP/2.0 486 Occupied");
    assert_eq!(busy.get("Reason"), "Q.850;cause=17");
    assert_eq!(busy.get("Warning"), "399 x \"busy\"");
    assert_eq!((busy.get("Retry-After"), busy.get("X-Odd")), ("9", "1"));
    // The failure is acknowledged again when repeated, and ours repeated until acknowledged.
    world.send(CARRIER, invite.answer("486 Occupied", "t", extra, ""));
    world.expect(CARRIER, "ACK ");
    world.advance(500);
    world.expect(PBX, "SIP/2.0 486 ");
    world.send(PBX, a.ack_failure(&busy));
    let end = world.ended().remove(0);
    assert_eq!((end.by, end.final_status, end.cancelled), (Some(EndedBy::Callee), Some(486), false));
    world.expect_nothing(CARRIER2);
    world.assert_clean();
}

#[test]
fn redirections_and_challenges_stop_at_the_gateway() {
    for (status, mapped) in [("302 Moved", "480"), ("401 Unauthorized", "502"), ("407 Proxy", "502")] {
        let (mut world, _, invite) = calling();
        let extra = "Contact: <sip:900555@10.2.0.66>\r\nWWW-Authenticate: Digest realm=\"x\", nonce=\"y\"\r\n\
                     Proxy-Authenticate: Digest realm=\"x\", nonce=\"y\"\r\n";
        world.send(CARRIER, invite.answer(status, "t", extra, ""));
        let failure = world.expect(PBX, &format!("SIP/2.0 {mapped} "));
        assert_eq!(failure.get("Reason"), format!("SIP;cause={}", &status[..3]));
        let text = failure.text();
        assert!(!text.contains("900555") && !text.contains("Authenticate"), "{text}");
        world.take_all(CARRIER);
        assert!(
            world.sent.iter().all(|(_, bytes)| !String::from_utf8_lossy(bytes).contains("Authorization"))
        );
    }
}

#[test]
fn the_next_peer_is_tried_after_503_408_and_silence_before_any_ringing() {
    for failure in [Some("503 Service Unavailable"), Some("408 Request Timeout"), None] {
        let (mut world, mut a, invite) = calling();
        match failure {
            Some(status) => world.send(CARRIER, invite.answer(status, "t", "", "")),
            None => world.advance(2_000),
        }
        let second = world.expect(CARRIER2, "INVITE sip:100@10.3.0.30 ");
        assert_ne!(second.get("Via"), invite.get("Via"));
        assert_ne!(second.get("Call-ID"), invite.get("Call-ID"));
        assert_eq!(second.body(), invite.body());
        world.expect_nothing(PBX);
        world.send(CARRIER2, second.answer("200 OK", "t", "Contact: <sip:x@10.3.0.30>\r\n", ""));
        let ok = world.expect(PBX, "SIP/2.0 200 ");
        a.learn(&ok);
        world.send(PBX, a.request("ACK", "", ""));
        world.expect(CARRIER2, "ACK ");
        let routed = world.events.iter().filter(|e| matches!(e, Event::Routed { .. })).count();
        assert_eq!(routed, 2);
        world.send(PBX, a.request("BYE", "", ""));
        world.assert_clean();
    }
}

#[test]
fn after_ringing_a_503_is_final_and_the_last_failure_is_passed_on() {
    let (mut world, _, invite) = calling();
    world.send(CARRIER, invite.answer("180 Ringing", "t", "", ""));
    world.send(CARRIER, invite.answer("503 Overloaded", "t", "", ""));
    world.expect(PBX, "SIP/2.0 180 ");
    world.expect(PBX, "SIP/2.0 503 Overloaded");
    world.expect_nothing(CARRIER2);

    let (mut world, _, invite) = calling();
    world.send(CARRIER, invite.answer("503 One", "t", "", ""));
    let second = world.expect(CARRIER2, "INVITE ");
    world.send(CARRIER2, second.answer("503 Two", "t", "", ""));
    world.expect(PBX, "SIP/2.0 503 Two");
    world.assert_clean();
}

#[test]
fn nobody_answering_is_408_at_32_s_after_repeats_at_half_1_and_a_half_and_so_on() {
    let mut world = World::new();
    let mut a = Ua::caller(CARRIER, "7331");
    world.send(CARRIER, a.invite("", ""));
    world.expect(CARRIER, "SIP/2.0 100 ");
    let invite = world.expect(PBX, "INVITE ");
    for wait_ms in [500, 1000, 2000, 4000, 8000, 16_000] {
        world.advance(wait_ms - 1);
        world.expect_nothing(PBX);
        world.advance(1);
        assert_eq!(world.expect(PBX, "INVITE ").bytes, invite.bytes);
    }
    world.advance(499);
    world.expect_nothing(CARRIER);
    world.advance(1);
    world.expect(CARRIER, "SIP/2.0 408 ");
    world.expect_nothing(PBX);
    world.assert_clean();
}

#[test]
fn a_callee_that_rings_and_dies_is_given_up_by_timer_c() {
    let (mut world, _, invite) = calling();
    world.send(CARRIER, invite.answer("180 Ringing", "t", "", ""));
    world.expect(PBX, "SIP/2.0 180 ");
    world.advance(150_000);
    world.send(CARRIER, invite.answer("180 Ringing", "t", "", ""));
    world.expect(PBX, "SIP/2.0 180 ");
    world.advance(199_999);
    world.expect_nothing(PBX);
    world.advance(1);
    world.expect(PBX, "SIP/2.0 408 ");
    world.expect(CARRIER, "CANCEL ");
    world.assert_clean();
}

#[test]
fn the_hub_refuses_with_status_warning_and_retry_after() {
    let mut world = World::waiting();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", ""));
    world.expect(PBX, "SIP/2.0 100 ");
    let call = world.call();
    world.command(Command::Refuse { call, status: 503, text: "too many calls", retry_after_s: Some(5) });
    let refused = world.expect(PBX, "SIP/2.0 503 Service Unavailable");
    assert_eq!(refused.get("Warning"), "399 earmark \"too many calls\"");
    assert_eq!(refused.get("Retry-After"), "5");
    assert_eq!(world.ended()[0].by, Some(EndedBy::Gateway));
    world.assert_clean();
}

#[test]
fn a_hung_hub_costs_the_caller_ten_seconds_and_no_more() {
    let mut world = World::waiting();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", ""));
    world.expect(PBX, "SIP/2.0 100 ");
    world.advance(10_000);
    world.expect(PBX, "SIP/2.0 500 ");
    let call = world.call();
    world.proceed(call, Side::Public);
    world.expect_nothing(CARRIER);
    world.assert_clean();
}

#[test]
fn the_hub_ends_a_call_at_any_stage() {
    let mut up = Up::new();
    let call = up.world.call();
    up.world.command(Command::End { call, text: "shutting down" });
    let reason = "SIP;cause=480;text=\"shutting down\"";
    assert_eq!(up.world.expect(PBX, "BYE ").get("Reason"), reason);
    assert_eq!(up.world.expect(CARRIER, "BYE ").get("Reason"), reason);
    up.world.assert_clean();

    let (mut world, _, invite) = calling();
    world.send(CARRIER, invite.answer("180 Ringing", "t", "", ""));
    world.expect(PBX, "SIP/2.0 180 ");
    let call = world.call();
    world.command(Command::End { call, text: "shutting down" });
    world.expect(PBX, "SIP/2.0 480 ");
    world.expect(CARRIER, "CANCEL ");
    world.assert_clean();
}

#[test]
fn a_delayed_offer_is_answered_in_the_ack() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", ""));
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    assert_eq!(invite.body(), "");
    world.send(CARRIER, invite.answer("200 OK", "t", &contact(1), &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    assert!(ok.body().contains("m=audio 20000 "));
    assert!(!world.events.iter().any(|e| matches!(e, Event::Media { .. })));
    a.learn(&ok);
    world.order.clear();
    world.send(PBX, a.request("ACK", "", &sdp(OFFER_IP, 4000, "")));
    let ack = world.expect(CARRIER, "ACK ");
    assert!(ack.body().contains("m=audio 20002 "));
    assert_eq!(&world.order[..2], ["event Media", "event Media"]);
}

#[test]
fn a_session_without_descriptions_works() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("Content-Type: text/plain\r\n", "hello"));
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    assert_eq!((invite.get("Content-Type"), invite.body().as_str()), ("text/plain", "hello"));
    world.send(CARRIER, invite.answer("200 OK", "t", &contact(1), ""));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(CARRIER, "ACK ");
}

#[test]
fn each_description_is_told_with_the_address_that_its_message_came_from() {
    let mut config = config();
    config.peers[0].allow = vec![("10.1.0.0".parse().unwrap(), 24)];
    let mut world = World::with(config);
    let mut a = Ua::caller(PBX, "100");
    let from = |world: &mut World, leg: Leg| {
        let told = |event: &Event| matches!(event, Event::Media { leg: of, .. } if *of == leg);
        let Event::Media { media, .. } = world.event(told) else { unreachable!() };
        media.signalled_from
    };
    world.send(PBX, a.invite("", ""));
    let refused = world.expect(CARRIER, "INVITE ").answer("503 No", "t", "", "");
    world.send(CARRIER, refused);
    let invite = world.expect(CARRIER2, "INVITE ");
    let mut b = Ua::callee(CARRIER2, &invite, "t");
    world.send(CARRIER2, invite.answer("200 OK", "t", &b.contact(), &sdp(ANSWER_IP, 5000, "")));
    a.learn(&world.take_all(PBX).pop().unwrap());
    // A proxy of the PBX's sends the ACK, which holds the answer, and another one the answer to a re-INVITE.
    world.send("10.1.0.11:5060", a.request("ACK", "", &sdp(OFFER_IP, 4000, "")));
    world.expect(CARRIER2, "ACK ");
    assert_eq!(from(&mut world, Leg::A), addr("10.1.0.11:1").ip());
    assert_eq!(from(&mut world, Leg::B), addr(CARRIER2).ip());

    world.send(CARRIER2, b.request("INVITE", &b.contact(), &sdp(ANSWER_IP, 5002, "")));
    let again = world.expect(PBX, "INVITE ");
    world.send("10.1.0.12:5060", again.answer("200 OK", "", &a.contact(), &sdp(OFFER_IP, 4000, "")));
    assert_eq!(from(&mut world, Leg::A), addr("10.1.0.12:1").ip());
    assert_eq!(from(&mut world, Leg::B), addr(CARRIER2).ip());
}
