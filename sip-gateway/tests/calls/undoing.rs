//! Transfers that come to nothing when whoever stays, or whoever was lent, has already been asked: what was
//! said before is said again (RFC 3261 §9.1, §13.2.2.4, §14.1; RFC 3264 §6, §8; RFC 5589 §7.6).

use sip_gateway::Event;

use crate::joining::{attended, naming, replacing, taker};
use crate::transfer::{TARGET_IP, Talk, call_in_with};
use crate::world::*;

fn a_law(ip: &str, port: u16) -> String {
    sdp(ip, port, "").replace(" 0 101", " 8 101").replace(":0 PCMU", ":8 PCMA")
}

fn version(body: &str) -> u64 {
    let origin = body.lines().find(|line| line.starts_with("o=")).unwrap();
    origin.split(' ').nth(2).unwrap().parse().unwrap()
}

/// T's replacing INVITE, given up once R was asked.
fn given_up(talk: &mut Talk, body: &str) -> Msg {
    let mut t = taker();
    talk.world.send(PBX, t.invite(&replacing(&talk.l), body));
    talk.world.expect(PBX, "SIP/2.0 100 ");
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(PBX, t.request("CANCEL", "", ""));
    talk.world.expect(PBX, "SIP/2.0 200 ");
    let refused = talk.world.expect(PBX, "SIP/2.0 487 ");
    talk.world.send(PBX, t.ack_failure(&refused));
    reinvite
}

#[test]
fn who_has_taken_a_newcomer_that_gave_up_gets_the_old_description_again() {
    let mut talk = Talk::new();
    let reinvite = given_up(&mut talk, &a_law(TARGET_IP, 4400));
    assert!(reinvite.body().contains("RTP/AVP 8 101"));
    // Our first heard sign of it is followed by its CANCEL.
    talk.world.send(CARRIER, reinvite.answer("100 Trying", "", "", ""));
    let cancel = talk.world.expect(CARRIER, "CANCEL ");
    assert_eq!(cancel.get("Via"), reinvite.get("Via"));
    talk.world.send(CARRIER, cancel.answer("200 OK", "", "", ""));
    // Neither side may begin anything meanwhile.
    let contact = talk.r.contact();
    talk.world.send(CARRIER, talk.r.request("INVITE", &contact, &sdp(ANSWER_IP, 5000, "")));
    let refused = talk.world.expect(CARRIER, "SIP/2.0 491 ");
    talk.world.send(CARRIER, talk.r.ack_failure(&refused));
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &contact, &a_law(ANSWER_IP, 5000)));
    talk.world.expect(CARRIER, "ACK ");
    let again = talk.world.expect(CARRIER, "INVITE ");
    assert!(again.body().contains("m=audio 20000 RTP/AVP 0 101\r\n"), "{}", again.text());
    assert!(version(&again.body()) > version(&reinvite.body()));
    // Glare: once more.
    talk.world.send(CARRIER, again.answer("491 Request Pending", "", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    let mut waited_ms = 0;
    while !talk.world.next_is_invite(CARRIER) {
        talk.world.advance(10);
        waited_ms += 10;
        assert!(waited_ms <= 2_000, "the carrier made the Call-ID");
    }
    let restored = talk.restored();
    assert_eq!(restored.body(), again.body());
    talk.hang_up();
}

#[test]
fn who_has_offered_to_a_newcomer_that_gave_up_gets_the_old_description_as_its_answer() {
    let mut talk = Talk::new();
    let reinvite = given_up(&mut talk, "");
    assert_eq!(reinvite.body(), "");
    let offer = sdp(ANSWER_IP, 5000, "m=video 5002 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n");
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &talk.r.contact(), &offer));
    let ack = talk.world.expect(CARRIER, "ACK ");
    assert!(ack.body().contains("m=audio 20000 RTP/AVP 0 101\r\n"), "{}", ack.text());
    assert!(ack.body().contains("m=video 0 RTP/AVP 96\r\n"), "{}", ack.text());
    talk.world.expect_nothing(CARRIER);
    talk.hang_up();
}

#[test]
fn who_refuses_a_newcomer_that_gave_up_keeps_what_it_had() {
    let mut talk = Talk::new();
    let reinvite = given_up(&mut talk, &a_law(TARGET_IP, 4400));
    talk.world.send(CARRIER, reinvite.answer("487 Request Terminated", "", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    talk.world.expect_nothing(CARRIER);
    let contact = talk.r.contact();
    talk.world.send(CARRIER, talk.r.request("INVITE", &contact, &sdp(ANSWER_IP, 5000, "")));
    talk.world.expect(CARRIER, "SIP/2.0 100 ");
    talk.world.expect(PBX, "INVITE ");
}

#[test]
fn an_answer_that_says_nothing_is_taken_back() {
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10>");
    talk.answered_by_target(&a_law(TARGET_IP, 4400));
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &talk.r.contact(), ""));
    talk.world.expect(CARRIER, "ACK ");
    let restored = talk.restored();
    assert!(restored.body().contains("RTP/AVP 0 101\r\n"), "{}", restored.text());
    talk.world.expect(PBX, "ACK ");
    let bye = talk.world.expect(PBX, "BYE ");
    talk.world.send(PBX, bye.answer("200 OK", "", "", ""));
    talk.notified("SIP/2.0 488 Not Acceptable Here", "terminated");
    talk.hang_up();
}

#[test]
fn glare_does_not_outlast_the_newcomers_patience() {
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10>");
    let (invite, _) = talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
    let mut waited_ms = 0;
    let bye = loop {
        if let Some(reinvite) =
            talk.world.next(CARRIER).filter(|message| message.text().starts_with("INVITE "))
        {
            talk.world.send(CARRIER, reinvite.answer("491 Request Pending", "", "", ""));
        }
        if let Some(message) = talk.world.next(PBX).filter(|message| message.text().starts_with("BYE ")) {
            break message;
        }
        talk.world.advance(100);
        waited_ms += 100;
        assert!(waited_ms < 60_000, "never let go");
    };
    assert_eq!(bye.get("Call-ID"), invite.get("Call-ID"));
    // T gives up by itself after 64*T1; one last wait may begin just before.
    assert!((25_000..36_000).contains(&waited_ms), "{waited_ms}");
}

#[test]
fn who_is_lent_and_repeats_its_answer_is_acknowledged_with_one() {
    let (mut talk, q, x) = attended();
    talk.referred(&naming(&x));
    let asked = talk.world.expect(CARRIER, "INVITE ");
    let ok = asked.answer("200 OK", "", &q.contact(), &sdp(ANSWER_IP, 5200, ""));
    talk.world.send(CARRIER, &ok);
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, &ok);
    talk.world.send(CARRIER, &ok);
    talk.world.expect_nothing(CARRIER);
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, "")));
    let ack = talk.world.expect(CARRIER, "ACK ");
    assert_eq!(ack.get("Call-ID"), "second@10.2.0.20");
    assert!(ack.body().contains("m=audio 20002 "), "{}", ack.text());
}

#[test]
fn who_is_lent_and_answers_after_it_has_come_back_gets_what_it_had() {
    let (mut talk, mut q, x) = attended();
    talk.referred(&naming(&x));
    let asked = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, asked.answer("100 Trying", "", "", ""));
    // R hangs up: Q is X's again.
    talk.world.send(CARRIER, talk.r.request("BYE", "", ""));
    talk.world.expect(CARRIER, "SIP/2.0 200 ");
    let cancel = talk.world.expect(CARRIER, "CANCEL ");
    assert_eq!(cancel.get("Call-ID"), "second@10.2.0.20");
    talk.world.advance(33_000);
    talk.world.take_all(PBX);
    talk.world.take_all(CARRIER);
    let ok = asked.answer("200 OK", "", &q.contact(), &sdp(ANSWER_IP, 5200, ""));
    for _ in 0..2 {
        talk.world.send(CARRIER, &ok);
        let ack = talk.world.expect(CARRIER, "ACK ");
        assert_eq!(ack.get("Call-ID"), "second@10.2.0.20");
        assert!(ack.body().contains("m=audio 20000 "), "{}", ack.text());
    }
    talk.world.send(CARRIER, q.request("INFO", "", ""));
    assert_eq!(talk.world.expect(PBX, "INFO ").get("Call-ID"), x.call_id);
    talk.world.send(CARRIER, q.request("BYE", "", ""));
    talk.world.take_all(CARRIER);
    talk.world.take_all(PBX);
    talk.world.assert_clean();
}

#[test]
fn a_transfer_to_who_still_rings_is_a_call_to_whom_was_dialled() {
    let mut talk = Talk::new();
    let mut x = Ua::caller(PBX, "18605550177");
    talk.world.send(PBX, x.invite("", &sdp(OFFER_IP, 4100, "")));
    talk.world.expect(PBX, "SIP/2.0 100 ");
    let ringing = talk.world.expect(CARRIER, "INVITE sip:18605550177@10.2.0.20 ");
    let q = Ua::callee(CARRIER, &ringing, "q");
    talk.world.send(CARRIER, ringing.answer("180 Ringing", "q", &q.contact(), ""));
    x.learn(&talk.world.expect(PBX, "SIP/2.0 180 "));
    let calls = talk.world.open_calls();
    talk.referred(&naming(&x));
    let over = talk.world.expect(PBX, "SIP/2.0 487 ");
    talk.world.send(PBX, x.ack_failure(&over));
    let cancel = talk.world.expect(CARRIER, "CANCEL ");
    assert_eq!(cancel.get("Call-ID"), ringing.get("Call-ID"));
    talk.world.send(CARRIER, cancel.answer("200 OK", "", "", ""));
    let invite = talk.world.expect(CARRIER, "INVITE sip:18605550177@10.2.0.20 ");
    assert!(!invite.headers().contains("Replaces"));
    talk.world.send(CARRIER, ringing.answer("487 Request Terminated", "q", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    talk.world.event(|event| matches!(event, Event::Linked { call, with } if [*call, *with] == calls[..]));
    assert_eq!(talk.world.ended().len(), 1);
    // L is gone, and R is not alone.
    talk.left();
    let t = Ua::callee(CARRIER, &invite, "t");
    let offer = sdp(ANSWER_IP, 5200, "");
    talk.world.send(CARRIER, invite.answer("200 OK", "t", &t.contact(), &offer));
    let reinvite = talk.world.expect(CARRIER, "INVITE sip:line@10.2.0.20:5060 ");
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, "")));
    talk.world.expect(CARRIER, "ACK ");
    talk.world.expect(CARRIER, "ACK ");
    talk.world.send(CARRIER, talk.r.request("BYE", "", ""));
    talk.world.expect(CARRIER, "SIP/2.0 200 ");
    let bye = talk.world.expect(CARRIER, "BYE ");
    assert_eq!(bye.get("Call-ID"), invite.get("Call-ID"));
    talk.world.send(CARRIER, bye.answer("200 OK", "", "", ""));
    assert_eq!(talk.world.ended().len(), 2);
    talk.world.assert_clean();
}

#[test]
fn who_stays_keeps_its_number_of_streams_and_the_newcomer_its_own() {
    let mut world = World::new();
    let video = "m=video 6000 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n";
    let (r, l) = call_in_with(&mut world, "18607427310", "first", video);
    let mut talk = Talk { world, r, l };
    talk.referred("<sip:7355@10.1.0.10>");
    let (_, mut t) = talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    let refused = "m=video 0 RTP/AVP 96\r\n";
    assert!(reinvite.body().contains(refused), "{}", reinvite.text());
    let answer = sdp(ANSWER_IP, 5000, refused);
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &talk.r.contact(), &answer));
    talk.world.expect(CARRIER, "ACK ");
    let ack = talk.world.expect(PBX, "ACK ");
    assert!(!ack.body().contains("m=video"), "{}", ack.text());
    talk.notified("SIP/2.0 200 OK", "terminated");
    talk.left();
    // And so in the exchanges after it, whoever begins them.
    let contact = t.contact();
    talk.world.send(PBX, t.request("INVITE", &contact, &sdp(TARGET_IP, 4402, "")));
    talk.world.expect(PBX, "SIP/2.0 100 ");
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    assert!(reinvite.body().contains(refused), "{}", reinvite.text());
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &talk.r.contact(), &answer));
    let ok = talk.world.expect(PBX, "SIP/2.0 200 ");
    assert!(!ok.body().contains("m=video"), "{}", ok.text());
    talk.world.send(PBX, t.request("ACK", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    talk.hang_up();
}
