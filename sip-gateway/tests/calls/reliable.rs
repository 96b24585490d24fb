//! Reliable provisional responses on either or both legs (RFC 3262), with UPDATE before the answer (RFC 3311
//! §5), and several early dialogs of one call, each with its own.

use consent::Leg;
use sip_gateway::{EndedBy, Event};

use crate::world::*;

const TAKES_PART: &str = "Supported: 100rel\r\nAllow: INVITE, ACK, BYE, CANCEL, PRACK, UPDATE\r\n";
const INSISTS: &str = "Require: 100rel\r\n";

/// A call on its way, whose INVITE had these fields and this body.
fn calling(extra: &str, body: &str) -> (World, Ua, Msg) {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite(extra, body));
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    (world, a, invite)
}

fn with_offer(extra: &str) -> (World, Ua, Msg) {
    calling(extra, &sdp(OFFER_IP, 4000, ""))
}

fn contact(tag: &str) -> String {
    format!("Contact: <sip:{tag}@10.2.0.20:5060>\r\n")
}

/// A provisional response that B wants a PRACK for.
fn reliable(invite: &Msg, status: &str, tag: &str, rseq: u32, body: &str) -> String {
    let extra = format!("{}Require: 100rel\r\nRSeq: {rseq}\r\n", contact(tag));
    invite.answer(status, tag, &extra, body)
}

/// The PRACK of a response that A got.
fn prack(a: &mut Ua, progress: &Msg, body: &str) -> String {
    a.learn(progress);
    let invite = progress.get("CSeq").to_owned();
    a.request("PRACK", &format!("RAck: {} {invite}\r\n", progress.get("RSeq")), body)
}

/// The ACK of the call's 2xx: under the number of its INVITE.
fn ack(a: &Ua) -> String {
    let mut ack = a.clone();
    (ack.cseq, ack.branch) = (101, 5_000);
    ack.request("ACK", "", "")
}

fn number(message: &Msg) -> &str {
    message.get("CSeq").split(' ').next().unwrap()
}

fn media_port(world: &mut World, wanted: Leg) -> Option<u16> {
    let told = world.events.iter().rev().find_map(|event| match event {
        Event::Media { leg, media, .. } if *leg == wanted => media.streams[0].rtp,
        _ => None,
    });
    told.map(|address| address.port())
}

/// A 183 with B's answer that A has acknowledged, and B has had its PRACK answered.
fn acknowledged(extra: &str) -> (World, Ua, Msg) {
    let (mut world, mut a, invite) = with_offer(extra);
    world.send(CARRIER, reliable(&invite, "183 Progress", "t", 7, &sdp(ANSWER_IP, 5000, "")));
    let progress = world.expect(PBX, "SIP/2.0 183 ");
    world.send(PBX, prack(&mut a, &progress, ""));
    let prack = world.expect(CARRIER, "PRACK ");
    world.send(CARRIER, prack.answer("200 OK", "", "", ""));
    world.expect(PBX, "SIP/2.0 200 ");
    (world, a, invite)
}

#[test]
fn both_legs_have_their_own_rseq_and_rack() {
    let (mut world, mut a, invite) = with_offer(TAKES_PART);
    assert!(invite.headers().has_token("Supported", "100rel"));
    assert!(invite.headers().has_token("Allow", "PRACK"));
    world.send(CARRIER, reliable(&invite, "183 Progress", "t", 70_000, &sdp(ANSWER_IP, 5000, "")));
    let progress = world.expect(PBX, "SIP/2.0 183 ");
    assert_eq!(progress.get("Require"), "100rel");
    assert_ne!(progress.get("RSeq"), "70000");
    assert!(progress.body().contains("m=audio 20000 "));
    assert_eq!(media_port(&mut world, Leg::B), Some(5000));
    world.expect_nothing(CARRIER);
    world.send(PBX, prack(&mut a, &progress, ""));
    let prack = world.expect(CARRIER, "PRACK sip:t@10.2.0.20:5060 ");
    assert_eq!(prack.get("RAck"), format!("70000 {} INVITE", number(&invite)));
    assert_eq!(number(&prack).parse::<u32>().unwrap(), number(&invite).parse::<u32>().unwrap() + 1);
    world.send(CARRIER, prack.answer("200 OK", "", "", ""));
    assert!(world.expect(PBX, "SIP/2.0 200 ").get("CSeq").ends_with("PRACK"));
    // The answer was certain: it is not said again, whether B does so or not.
    world.send(CARRIER, invite.answer("200 OK", "t", &contact("t"), &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    assert_eq!((ok.body().as_str(), ok.headers().contains("RSeq")), ("", false));
    a.learn(&ok);
    world.send(PBX, ack(&a));
    world.expect(CARRIER, "ACK ");
    world.send(PBX, a.request("BYE", "", ""));
    world.assert_clean();
}

/// RFC 6337 §2.2.
#[test]
fn an_answer_that_was_certain_is_not_said_again_under_any_type() {
    for kind in ["application/sdp", "application/sdp;;", ""] {
        let (mut world, _, invite) = acknowledged(TAKES_PART);
        let ok = invite.answer("200 OK", "t", &contact("t"), &sdp(ANSWER_IP, 5000, ""));
        world.send(CARRIER, ok.replace("application/sdp", kind));
        let ok = world.expect(PBX, "SIP/2.0 200 ");
        assert!(ok.body().is_empty() && !ok.headers().contains("Content-Type"), "{}", ok.text());
    }
}

#[test]
fn it_is_repeated_with_doubling_intervals_until_its_prack() {
    let (mut world, mut a, invite) = with_offer(TAKES_PART);
    world.send(CARRIER, reliable(&invite, "180 Ringing", "t", 1, ""));
    let ringing = world.expect(PBX, "SIP/2.0 180 ");
    for wait_ms in [500, 1_000, 2_000, 4_000, 8_000] {
        world.advance(wait_ms - 1);
        world.expect_nothing(PBX);
        world.advance(1);
        assert_eq!(world.expect(PBX, "SIP/2.0 180 ").bytes, ringing.bytes);
    }
    world.send(PBX, prack(&mut a, &ringing, ""));
    world.expect(CARRIER, "PRACK ");
    world.advance(60_000);
    world.expect_nothing(PBX);
    assert_eq!(world.core.calls(), 1);
}

#[test]
fn without_a_prack_for_64_t1_the_call_ends_with_504() {
    let (mut world, _, invite) = with_offer(TAKES_PART);
    world.send(CARRIER, reliable(&invite, "180 Ringing", "t", 1, ""));
    world.advance(31_999);
    assert_eq!(world.take_all(PBX).len(), 7);
    assert!(world.ended().is_empty());
    world.advance(1);
    world.expect(PBX, "SIP/2.0 504 ");
    world.expect(CARRIER, "CANCEL ");
    let end = world.ended().remove(0);
    assert_eq!((end.by, end.final_status), (Some(EndedBy::Gateway), Some(504)));
    world.assert_clean();
}

#[test]
fn for_a_caller_without_100rel_the_prack_is_ours_and_the_answer_comes_with_the_2xx() {
    let (mut world, mut a, invite) = with_offer("");
    assert!(invite.headers().has_token("Supported", "100rel"));
    world.send(CARRIER, reliable(&invite, "183 Progress", "t", 7, &sdp(ANSWER_IP, 5000, "")));
    let progress = world.expect(PBX, "SIP/2.0 183 ");
    assert!(!progress.headers().contains("RSeq") && !progress.headers().contains("Require"));
    let prack = world.expect(CARRIER, "PRACK ");
    assert_eq!(prack.get("RAck"), format!("7 {} INVITE", number(&invite)));
    // Repeated, because our PRACK is late: that is repeated by itself.
    world.send(CARRIER, reliable(&invite, "183 Progress", "t", 7, &sdp(ANSWER_IP, 5000, "")));
    world.expect_nothing(CARRIER);
    world.expect_nothing(PBX);
    world.send(CARRIER, prack.answer("200 OK", "", "", ""));
    world.expect_nothing(PBX);
    world.send(CARRIER, invite.answer("200 OK", "t", &contact("t"), ""));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    assert_eq!((ok.get("Content-Type"), ok.body()), ("application/sdp", progress.body()));
    a.learn(&ok);
    world.send(PBX, ack(&a));
    assert_eq!(world.expect(CARRIER, "ACK ").body(), "");
    world.send(PBX, a.request("BYE", "", ""));
    world.assert_clean();
}

#[test]
fn a_caller_that_insists_gets_every_ringing_reliably_and_the_callee_need_not_know() {
    let (mut world, mut a, invite) = with_offer(INSISTS);
    assert!(!invite.headers().contains("Require"));
    world.send(CARRIER, invite.answer("180 Ringing", "t", &contact("t"), ""));
    let ringing = world.expect(PBX, "SIP/2.0 180 ");
    world.send(CARRIER, invite.answer("183 Progress", "t", &contact("t"), &sdp(ANSWER_IP, 5000, "")));
    // One at a time.
    world.expect_nothing(PBX);
    world.send(PBX, prack(&mut a, &ringing, ""));
    assert!(world.expect(PBX, "SIP/2.0 200 ").get("CSeq").ends_with("PRACK"));
    let progress = world.expect(PBX, "SIP/2.0 183 ");
    let rseq = |message: &Msg| message.get("RSeq").parse::<u32>().unwrap();
    assert_eq!(rseq(&progress), rseq(&ringing) + 1);
    // An offer in the PRACK could only go on in one.
    let offering = prack(&mut a, &progress, &sdp(OFFER_IP, 4002, ""));
    world.send(PBX, offering);
    world.expect(PBX, "SIP/2.0 488 ");
    world.expect_nothing(CARRIER);
    world.send(CARRIER, invite.answer("200 OK", "t", &contact("t"), &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    assert_eq!(ok.body(), "");
    a.learn(&ok);
    world.send(PBX, ack(&a));
    world.expect(CARRIER, "ACK ");
    world.send(PBX, a.request("BYE", "", ""));
    world.assert_clean();
}

#[test]
fn what_comes_again_or_before_its_time_is_dropped_and_comes_again() {
    let (mut world, mut a, invite) = with_offer(TAKES_PART);
    world.send(CARRIER, reliable(&invite, "180 Ringing", "t", 7, ""));
    let ringing = world.expect(PBX, "SIP/2.0 180 ");
    world.send(CARRIER, reliable(&invite, "180 Ringing", "t", 7, ""));
    world.send(CARRIER, reliable(&invite, "183 Later", "t", 9, ""));
    world.send(CARRIER, reliable(&invite, "183 Next", "t", 8, ""));
    world.send(CARRIER, reliable(&invite, "183 Later", "t", 9, ""));
    world.expect_nothing(PBX);
    world.expect_nothing(CARRIER);
    let mut racks = Vec::new();
    let mut last = ringing;
    for next in ["SIP/2.0 183 Next", "SIP/2.0 183 Later"] {
        world.send(PBX, prack(&mut a, &last, ""));
        racks.push(world.expect(CARRIER, "PRACK ").get("RAck").to_owned());
        last = world.expect(PBX, next);
    }
    let own = number(&invite);
    assert_eq!(racks, [format!("7 {own} INVITE"), format!("8 {own} INVITE")]);
    // Beyond what waits, B has to say it again.
    for rseq in 10..40 {
        world.send(CARRIER, reliable(&invite, "180 Ringing", "t", rseq, ""));
    }
    world.expect_nothing(PBX);
    let mut passed = 0;
    while passed < 40 {
        let text = prack(&mut a, &last, "");
        world.send(PBX, text);
        world.expect(CARRIER, "PRACK ");
        match world.next(PBX) {
            Some(next) => last = next,
            None => break,
        }
        passed += 1;
    }
    assert_eq!(passed, 8);
    world.send(CARRIER, reliable(&invite, "180 Ringing", "t", 18, ""));
    world.expect(PBX, "SIP/2.0 180 ");
}

#[test]
fn a_prack_that_matches_nothing_is_481() {
    let (mut world, mut a, invite) = with_offer(TAKES_PART);
    world.send(CARRIER, invite.answer("180 Ringing", "t", &contact("t"), ""));
    let plain = world.expect(PBX, "SIP/2.0 180 ");
    assert!(!plain.headers().contains("RSeq"));
    a.learn(&plain);
    world.send(PBX, a.request("PRACK", "RAck: 1 101 INVITE\r\n", ""));
    world.expect(PBX, "SIP/2.0 481 ");
    world.send(CARRIER, reliable(&invite, "180 Ringing", "t", 7, ""));
    let ringing = world.expect(PBX, "SIP/2.0 180 ");
    let rseq = ringing.get("RSeq").to_owned();
    for rack in ["", &format!("{rseq} 100 INVITE"), &format!("{rseq} 101 UPDATE"), "7 101 INVITE", "x"] {
        world.send(PBX, a.request("PRACK", &format!("RAck: {rack}\r\n"), ""));
        world.expect(PBX, "SIP/2.0 481 ");
    }
    world.expect_nothing(CARRIER);
    let good = prack(&mut a, &ringing, "");
    world.send(PBX, &good);
    let passed = world.expect(CARRIER, "PRACK ");
    world.send(CARRIER, passed.answer("200 OK", "", "", ""));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    world.send(PBX, &good);
    assert_eq!(world.expect(PBX, "SIP/2.0 200 ").bytes, ok.bytes);
    let again = prack(&mut a, &ringing, "");
    world.send(PBX, again);
    world.expect(PBX, "SIP/2.0 481 ");
    // The callee's side has nothing of ours to acknowledge.
    let mut b = Ua::callee(CARRIER, &invite, "t");
    world.send(CARRIER, b.request("PRACK", &format!("RAck: {rseq} 101 INVITE\r\n"), ""));
    world.expect(CARRIER, "SIP/2.0 481 ");
}

#[test]
fn an_offer_in_the_provisional_is_answered_in_the_prack() {
    let (mut world, mut a, invite) = calling(TAKES_PART, "");
    world.send(CARRIER, reliable(&invite, "183 Progress", "t", 7, &sdp(ANSWER_IP, 5000, "")));
    let progress = world.expect(PBX, "SIP/2.0 183 ");
    assert!(progress.body().contains("m=audio 20000 "));
    assert_eq!(media_port(&mut world, Leg::A), None);
    world.send(PBX, prack(&mut a, &progress, &sdp(OFFER_IP, 4000, "")));
    let passed = world.expect(CARRIER, "PRACK ");
    assert!(passed.body().contains("m=audio 20002 "));
    assert_eq!(media_port(&mut world, Leg::A), Some(4000));
    assert_eq!(media_port(&mut world, Leg::B), Some(5000));
    world.send(CARRIER, passed.answer("200 OK", "", "", ""));
    world.expect(PBX, "SIP/2.0 200 ");
    world.send(CARRIER, invite.answer("200 OK", "t", &contact("t"), ""));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    assert_eq!(ok.body(), "");
    a.learn(&ok);
    world.send(PBX, ack(&a));
    assert_eq!(world.expect(CARRIER, "ACK ").body(), "");
    // The session is whole: either may change it.
    let contact = a.contact();
    world.send(PBX, a.request("INVITE", &contact, &sdp(OFFER_IP, 4002, "")));
    world.expect(CARRIER, "INVITE ");
}

#[test]
fn without_an_offer_a_caller_that_knows_no_prack_makes_none_necessary() {
    let (mut world, _, invite) = calling("", "");
    assert!(!invite.headers().has_token("Supported", "100rel"));
    // A callee that does it all the same is not encouraged.
    world.send(CARRIER, reliable(&invite, "183 Progress", "t", 7, &sdp(ANSWER_IP, 5000, "")));
    assert!(!world.expect(PBX, "SIP/2.0 183 ").headers().contains("RSeq"));
    world.expect_nothing(CARRIER);
}

#[test]
fn an_offer_in_the_prack_is_answered_in_its_200_and_updates_pass_before_the_answer() {
    let (mut world, mut a, invite) = with_offer(TAKES_PART);
    world.send(CARRIER, reliable(&invite, "183 Progress", "t", 7, &sdp(ANSWER_IP, 5000, "")));
    let progress = world.expect(PBX, "SIP/2.0 183 ");
    world.send(PBX, prack(&mut a, &progress, &sdp(OFFER_IP, 4002, "")));
    let passed = world.expect(CARRIER, "PRACK ");
    assert!(passed.body().contains("m=audio 20002 "));
    // It is not answered yet, and the other side may not offer now.
    let mut b = Ua::callee(CARRIER, &invite, "t");
    world.send(CARRIER, b.request("UPDATE", &contact("t"), &sdp(ANSWER_IP, 5004, "")));
    world.expect(CARRIER, "SIP/2.0 491 ");
    world.send(CARRIER, passed.answer("200 OK", "", "", &sdp(ANSWER_IP, 5002, "")));
    assert!(world.expect(PBX, "SIP/2.0 200 ").body().contains("m=audio 20000 "));
    assert_eq!((media_port(&mut world, Leg::A), media_port(&mut world, Leg::B)), (Some(4002), Some(5002)));

    let own = a.contact();
    world.send(PBX, a.request("UPDATE", &own, &sdp(OFFER_IP, 4004, "a=inactive\r\n")));
    let update = world.expect(CARRIER, "UPDATE ");
    assert!(update.body().contains("a=inactive"));
    world.send(CARRIER, update.answer("200 OK", "", &contact("t"), &sdp(ANSWER_IP, 5002, "a=inactive\r\n")));
    assert!(world.expect(PBX, "SIP/2.0 200 ").get("CSeq").ends_with("UPDATE"));
    // Nobody holds anybody before there is a call; at the answer it is told.
    assert!(!world.events.iter().any(|event| matches!(event, Event::Changed { .. })));
    world.send(CARRIER, b.request("UPDATE", &contact("t"), &sdp(ANSWER_IP, 5004, "a=inactive\r\n")));
    let update = world.expect(PBX, "UPDATE ");
    world.send(PBX, update.answer("200 OK", "", &own, &sdp(OFFER_IP, 4004, "a=inactive\r\n")));
    world.expect(CARRIER, "SIP/2.0 200 ");
    world.order.clear();
    world.send(CARRIER, invite.answer("200 OK", "t", &contact("t"), ""));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    let told: Vec<&str> = world.order.iter().map(String::as_str).take(2).collect();
    assert_eq!(told, ["event Changed", "event Answered"]);
    a.learn(&ok);
    world.send(PBX, ack(&a));
    world.expect(CARRIER, "ACK ");
    world.send(PBX, a.request("BYE", "", ""));
    world.assert_clean();
}

#[test]
fn an_update_offer_that_cannot_be_answered_yet_is_refused_for_now() {
    // Only A's leg is settled: B's own answer is not certain.
    let (mut world, mut a, invite) = with_offer(INSISTS);
    world.send(CARRIER, invite.answer("183 Progress", "t", &contact("t"), &sdp(ANSWER_IP, 5000, "")));
    let progress = world.expect(PBX, "SIP/2.0 183 ");
    world.send(PBX, prack(&mut a, &progress, ""));
    world.expect(PBX, "SIP/2.0 200 ");
    let own = a.contact();
    world.send(PBX, a.request("UPDATE", &own, &sdp(OFFER_IP, 4004, "")));
    assert!(world.expect(PBX, "SIP/2.0 500 ").headers().contains("Retry-After"));
    world.expect_nothing(CARRIER);
}

#[test]
fn a_2xx_waits_for_the_prack_of_the_answer_before_it() {
    let (mut world, mut a, invite) = with_offer(TAKES_PART);
    world.send(CARRIER, reliable(&invite, "183 Progress", "t", 7, &sdp(ANSWER_IP, 5000, "")));
    let progress = world.expect(PBX, "SIP/2.0 183 ");
    let answer = invite.answer("200 OK", "t", &contact("t"), "");
    world.send(CARRIER, &answer);
    world.send(CARRIER, &answer);
    world.expect_nothing(PBX);
    world.expect_nothing(CARRIER);
    world.send(PBX, prack(&mut a, &progress, ""));
    world.expect(CARRIER, "PRACK ");
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    assert!(ok.get("CSeq").ends_with("INVITE"));
    a.learn(&ok);
    world.send(PBX, ack(&a));
    world.expect(CARRIER, "ACK ");
    world.send(PBX, a.request("BYE", "", ""));
    world.assert_clean();
}

#[test]
fn a_caller_may_give_up_while_the_2xx_waits_and_the_callee_is_hung_up() {
    let held = || {
        let (mut world, a, invite) = with_offer(TAKES_PART);
        world.send(CARRIER, reliable(&invite, "183 Progress", "t", 7, &sdp(ANSWER_IP, 5000, "")));
        world.expect(PBX, "SIP/2.0 183 ");
        world.send(CARRIER, invite.answer("200 OK", "t", &contact("t"), ""));
        (world, a)
    };
    let (mut world, mut a) = held();
    world.send(PBX, a.request("CANCEL", "", ""));
    assert!(world.expect(PBX, "SIP/2.0 200 ").get("CSeq").ends_with("CANCEL"));
    world.expect(PBX, "SIP/2.0 487 ");
    world.expect(CARRIER, "ACK ");
    world.expect(CARRIER, "BYE ");
    assert!(world.ended()[0].cancelled);
    world.assert_clean();

    let (mut world, _) = held();
    world.advance(32_000);
    assert_eq!(world.take_all(PBX).pop().unwrap().response().status, 504);
    world.expect(CARRIER, "ACK ");
    world.expect(CARRIER, "BYE ");
    world.assert_clean();
}

#[test]
fn a_2xx_does_not_wait_for_a_bare_ringing_whose_late_prack_is_still_answered() {
    let (mut world, mut a, invite) = with_offer(TAKES_PART);
    world.send(CARRIER, reliable(&invite, "180 Ringing", "t", 7, ""));
    let ringing = world.expect(PBX, "SIP/2.0 180 ");
    world.send(CARRIER, invite.answer("200 OK", "t", &contact("t"), &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    assert!(ok.body().contains("m=audio 20000 "));
    world.send(PBX, prack(&mut a, &ringing, ""));
    let late = world.expect(CARRIER, "PRACK ");
    world.send(CARRIER, late.answer("200 OK", "", "", ""));
    assert!(world.expect(PBX, "SIP/2.0 200 ").get("CSeq").ends_with("PRACK"));
    a.learn(&ok);
    world.send(PBX, ack(&a));
    world.expect(CARRIER, "ACK ");
    assert_eq!(media_port(&mut world, Leg::B), Some(5000));
    world.send(PBX, a.request("BYE", "", ""));
    world.assert_clean();
}

#[test]
fn after_a_failure_a_late_prack_is_answered_here() {
    let (mut world, mut a, invite) = with_offer(TAKES_PART);
    world.send(CARRIER, reliable(&invite, "180 Ringing", "t", 7, ""));
    let ringing = world.expect(PBX, "SIP/2.0 180 ");
    world.send(CARRIER, invite.answer("486 Busy", "t", "", ""));
    world.expect(PBX, "SIP/2.0 486 ");
    world.expect(CARRIER, "ACK ");
    world.send(PBX, prack(&mut a, &ringing, ""));
    world.expect(PBX, "SIP/2.0 200 ");
    world.expect_nothing(CARRIER);
    world.assert_clean();
}

#[test]
fn a_call_can_end_at_any_time_of_it() {
    let (mut world, mut a, _) = acknowledged(TAKES_PART);
    world.send(PBX, a.request("CANCEL", "", ""));
    world.expect(PBX, "SIP/2.0 481 ");
    let mut invite = a.clone();
    (invite.cseq, invite.branch, invite.remote) = (101, 1, "<sip:100@10.0.0.1>".to_owned());
    world.send(PBX, invite.request("CANCEL", "", ""));
    world.expect(PBX, "SIP/2.0 200 ");
    world.expect(PBX, "SIP/2.0 487 ");
    world.expect(CARRIER, "CANCEL ");
    world.assert_clean();
}

#[test]
fn each_early_dialog_has_its_own_pracks_and_its_own_media() {
    let (mut world, a, invite) = with_offer(TAKES_PART);
    world.send(CARRIER, reliable(&invite, "183 Progress", "one", 7, &sdp(ANSWER_IP, 5000, "")));
    let one = world.expect(PBX, "SIP/2.0 183 ");
    assert_eq!(media_port(&mut world, Leg::B), Some(5000));
    // RFC 3960 §3.1: what was said last is heard.
    world.send(CARRIER, reliable(&invite, "183 Progress", "two", 3, &sdp("10.2.0.98", 6000, "")));
    let two = world.expect(PBX, "SIP/2.0 183 ");
    assert_eq!(media_port(&mut world, Leg::B), Some(6000));
    assert_ne!(one.tag("To"), two.tag("To"));
    let origin = |message: &Msg| {
        let body = message.body();
        body.lines().find(|line| line.starts_with("o=")).unwrap().split(' ').nth(1).unwrap().to_owned()
    };
    assert_ne!(origin(&one), origin(&two));
    let (mut at_one, mut at_two) = (a.clone(), a.clone());
    (at_one.branch, at_two.branch) = (100, 200);
    world.send(PBX, prack(&mut at_two, &two, ""));
    let passed = world.expect(CARRIER, "PRACK sip:two@");
    assert_eq!((passed.get("RAck").split(' ').next(), passed.tag("To").as_deref()), (Some("3"), Some("two")));
    world.send(CARRIER, passed.answer("200 OK", "", "", ""));
    world.expect(PBX, "SIP/2.0 200 ");
    // One dialog's RSeq acknowledges nothing in the other.
    let mut crossed = at_two.clone();
    let rack = format!("RAck: {} 101 INVITE\r\n", one.get("RSeq"));
    world.send(PBX, crossed.request("PRACK", &rack, ""));
    world.expect(PBX, "SIP/2.0 481 ");
    at_two.branch = crossed.branch;
    world.send(PBX, prack(&mut at_one, &one, ""));
    let passed = world.expect(CARRIER, "PRACK sip:one@");
    world.send(CARRIER, passed.answer("200 OK", "", "", ""));
    world.expect(PBX, "SIP/2.0 200 ");
    // An offer in one of them is nothing to the other.
    let own = at_two.contact();
    at_two.cseq += 10;
    world.send(PBX, at_two.request("UPDATE", &own, &sdp(OFFER_IP, 4002, "")));
    let update = world.expect(CARRIER, "UPDATE sip:two@");
    let mut callee_one = Ua::callee(CARRIER, &invite, "one");
    world.send(CARRIER, callee_one.request("UPDATE", &contact("one"), &sdp(ANSWER_IP, 5002, "")));
    let other = world.expect(PBX, "UPDATE ");
    assert_eq!(other.tag("From"), one.tag("To"));
    world.send(PBX, other.answer("200 OK", "", &own, &sdp(OFFER_IP, 4000, "")));
    world.expect(CARRIER, "SIP/2.0 200 ");
    assert_eq!(media_port(&mut world, Leg::B), Some(5002));

    // The first one answers: its media are heard again, and what waits in the other is over.
    world.send(CARRIER, update.answer("200 OK", "", &contact("two"), &sdp("10.2.0.98", 6000, "")));
    world.expect(PBX, "SIP/2.0 200 ");
    assert_eq!((media_port(&mut world, Leg::A), media_port(&mut world, Leg::B)), (Some(4002), Some(6000)));
    at_two.cseq += 1;
    world.send(PBX, at_two.request("INFO", "", "x"));
    world.expect(CARRIER, "INFO sip:two@");
    world.send(CARRIER, invite.answer("200 OK", "one", &contact("one"), ""));
    let pending = world.expect(PBX, "SIP/2.0 487 ");
    assert!(pending.get("CSeq").ends_with("INFO"));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    assert_eq!(ok.tag("To"), one.tag("To"));
    assert_eq!((media_port(&mut world, Leg::A), media_port(&mut world, Leg::B)), (Some(4000), Some(5002)));
    world.send(PBX, ack(&at_one));
    world.expect(CARRIER, "ACK sip:one@");
    // And the other one all the same: it is acknowledged and hung up.
    world.send(CARRIER, invite.answer("200 OK", "two", &contact("two"), ""));
    world.expect(CARRIER, "ACK sip:two@");
    assert_eq!(world.expect(CARRIER, "BYE sip:two@").tag("To").as_deref(), Some("two"));
    world.send(PBX, at_two.request("UPDATE", "", ""));
    world.expect(PBX, "SIP/2.0 481 ");
    assert_eq!((media_port(&mut world, Leg::A), media_port(&mut world, Leg::B)), (Some(4000), Some(5002)));
    world.send(PBX, at_one.request("BYE", "", ""));
    world.assert_clean();
}
