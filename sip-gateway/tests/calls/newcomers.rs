//! Who is a party of a transfer when: a newcomer before it has joined, whoever has left after it (RFC 3261
//! §12.2.1.2, §13.2.1, §13.3.1.4, §14.2, §15; RFC 3891 §3).

use consent::Leg;
use sip_gateway::{Change, Command, EndedBy, Event};

use crate::joining::{replacing, taker};
use crate::transfer::{TARGET_IP, Talk};
use crate::world::*;

/// What was told of the legs, in a word each.
fn told(talk: &Talk) -> Vec<String> {
    let word = |event: &Event| match event {
        Event::Vacated { leg, .. } => Some(format!("{leg:?} vacated")),
        Event::Changed { leg, change, .. } => {
            let change = match change {
                Change::Held => "held",
                Change::Resumed => "resumed",
                Change::Replaced { .. } => "replaced",
                Change::NewParty { .. } => "new party",
                Change::NewOrigin => "new origin",
            };
            Some(format!("{leg:?} {change}"))
        }
        Event::Media { leg, media, .. } => Some(format!("{leg:?} at {}", media.streams[0].rtp?)),
        Event::Digit { leg, digit, .. } => Some(format!("{leg:?} pressed {digit}")),
        _ => None,
    };
    talk.world.events.iter().filter_map(word).collect()
}

/// T's INVITE without an offer, which R and we have accepted; L is gone.
fn accepted_without_offer(talk: &mut Talk) -> Ua {
    let mut t = taker();
    talk.world.send(PBX, t.invite(&replacing(&talk.l), ""));
    talk.world.expect(PBX, "SIP/2.0 100 ");
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    let offer = sdp(ANSWER_IP, 5000, "");
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &talk.r.contact(), &offer));
    let ok = talk.world.expect(PBX, "SIP/2.0 200 ");
    t.learn(&ok);
    let bye = talk.world.expect(PBX, "BYE ");
    talk.world.send(PBX, bye.answer("200 OK", "", "", ""));
    t
}

#[test]
fn a_newcomer_without_an_offer_is_there_with_its_ack_and_nobody_before_it() {
    let mut talk = Talk::new();
    talk.world.events.clear();
    let mut t = accepted_without_offer(&mut talk);
    assert_eq!(told(&talk), ["B held", "B vacated"]);
    let ack = t.request("ACK", "", &sdp(TARGET_IP, 4400, ""));
    // A key that overtakes its ACK is nobody's.
    let key = t.request("INFO", "Content-Type: application/dtmf-relay\r\n", "Signal=1\r\nDuration=160\r\n");
    talk.world.send(PBX, key);
    let refused = talk.world.expect(PBX, "SIP/2.0 500 ");
    assert!(refused.headers().contains("Retry-After"));
    assert_eq!(told(&talk), ["B held", "B vacated"]);
    talk.world.events.clear();
    talk.world.send(PBX, ack);
    talk.world.expect(CARRIER, "ACK ");
    assert_eq!(told(&talk), ["B replaced", "B at 10.1.0.55:4400", "B resumed"]);
    talk.hang_up();
}

#[test]
fn a_newcomer_that_never_says_where_it_is_ends_the_call_as_nobody() {
    let mut talk = Talk::new();
    accepted_without_offer(&mut talk);
    talk.world.advance(33_000);
    assert_eq!(talk.newcomers(), []);
    assert_eq!(talk.world.ended().len(), 1);
    talk.world.assert_clean();
}

#[test]
fn what_who_has_left_answers_late_is_not_the_newcomers() {
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10>");
    talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, talk.r.request("INFO", "", ""));
    let info = talk.world.expect(PBX, "INFO ");
    assert_eq!(info.get("Call-ID"), talk.l.call_id);
    // Our re-INVITE is an offer under way: another one would cross it.
    let contact = talk.r.contact();
    talk.world.send(CARRIER, talk.r.request("UPDATE", &contact, &sdp(ANSWER_IP, 5002, "")));
    talk.world.expect(CARRIER, "SIP/2.0 491 ");
    let ok = reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, ""));
    talk.world.send(CARRIER, ok);
    let refused = talk.world.expect(CARRIER, "SIP/2.0 500 ");
    assert!(refused.get("CSeq").ends_with("INFO"));
    talk.world.expect(CARRIER, "ACK ");
    talk.world.expect(PBX, "ACK ");
    talk.notified("SIP/2.0 200 OK", "terminated");
    talk.world.events.clear();
    let late = "P-Asserted-Identity: <sip:7310@pbx>\r\nContact: <sip:somebody@10.1.0.10>\r\n";
    talk.world.send(PBX, info.answer("200 OK", "", late, &sdp(OFFER_IP, 4000, "")));
    assert_eq!(told(&talk), [""; 0]);
    talk.world.expect_nothing(CARRIER);
    talk.left();
    talk.hang_up();
}

#[test]
fn what_a_newcomer_asks_before_it_has_joined_does_not_end_its_dialog() {
    for leaver_stays in [true, false] {
        let mut talk = Talk::new();
        talk.referred("<sip:7355@10.1.0.10>");
        let (_, mut t) = talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
        if !leaver_stays {
            talk.left();
        }
        let contact = t.contact();
        for (method, status) in [("OPTIONS", "200"), ("INVITE", "491"), ("UPDATE", "491"), ("INFO", "500")] {
            talk.world.send(PBX, t.request(method, &contact, ""));
            let answer = talk.world.expect(PBX, &format!("SIP/2.0 {status} "));
            assert_eq!(answer.headers().contains("Retry-After"), status == "500");
            if method == "INVITE" {
                talk.world.send(PBX, t.ack_failure(&answer));
            }
        }
        talk.joined();
        if leaver_stays {
            talk.notified("SIP/2.0 200 OK", "terminated");
            talk.left();
        }
        talk.hang_up();
    }
}

#[test]
fn a_newcomer_whose_200_is_lost_gets_it_again_before_its_bye() {
    let mut talk = Talk::new();
    let mut t = taker();
    talk.world.send(PBX, t.invite(&replacing(&talk.l), &sdp(TARGET_IP, 4400, "")));
    talk.world.expect(PBX, "SIP/2.0 100 ");
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, "")));
    talk.world.expect(PBX, "SIP/2.0 200 ");
    let bye = talk.world.expect(PBX, "BYE ");
    talk.world.send(PBX, bye.answer("200 OK", "", "", ""));
    talk.world.send(CARRIER, talk.r.request("BYE", "", ""));
    talk.world.expect(CARRIER, "SIP/2.0 200 ");
    talk.world.expect_nothing(PBX);
    talk.world.advance(600);
    let again = talk.world.expect(PBX, "SIP/2.0 200 ");
    t.learn(&again);
    talk.world.expect_nothing(PBX);
    talk.world.send(PBX, t.request("ACK", "", ""));
    let bye = talk.world.expect(PBX, "BYE ");
    assert_eq!(bye.get("Call-ID"), "pick-up");
    talk.world.send(PBX, bye.answer("200 OK", "", "", ""));
    assert_eq!(talk.world.ended().len(), 1);
    talk.world.assert_clean();
}

#[test]
fn who_stays_and_is_not_there_ends_the_call() {
    for status in [Some("481 No Dialog"), Some("408 Timeout"), None] {
        let mut talk = Talk::new();
        talk.referred("<sip:7355@10.1.0.10>");
        talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
        let reinvite = talk.world.expect(CARRIER, "INVITE ");
        match status {
            Some(status) => talk.world.send(CARRIER, reinvite.answer(status, "", "", "")),
            None => talk.world.advance(33_000),
        }
        let [end] = &talk.world.ended()[..] else { panic!("{status:?}") };
        assert_eq!((end.by, end.final_status), (Some(EndedBy::Caller), Some(200)), "{status:?}");
        let hung_up: Vec<String> = talk
            .world
            .take_all(PBX)
            .iter()
            .filter(|message| message.text().starts_with("BYE "))
            .map(|message| message.get("Call-ID").to_owned())
            .collect();
        assert!(hung_up.len() >= 2 && hung_up.contains(&talk.l.call_id), "{status:?} {hung_up:?}");
        talk.world.assert_clean();
    }
}

#[test]
fn an_ack_of_who_has_left_is_not_the_newcomers() {
    let mut talk = Talk::new();
    let contact = talk.l.contact();
    talk.world.send(PBX, talk.l.request("INVITE", &contact, &sdp(OFFER_IP, 4000, "a=sendonly\r\n")));
    talk.world.expect(PBX, "SIP/2.0 100 ");
    let held = talk.world.expect(CARRIER, "INVITE ");
    let answer = held.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, "a=recvonly\r\n"));
    talk.world.send(CARRIER, &answer);
    talk.world.expect(PBX, "SIP/2.0 200 ");
    let ack = talk.l.request("ACK", "", "");
    talk.world.send(PBX, &ack);
    let acked = talk.world.expect(CARRIER, "ACK ");
    let mut t = taker();
    t.cseq = talk.l.cseq - 1;
    talk.world.send(PBX, t.invite(&replacing(&talk.l), &sdp(TARGET_IP, 4400, "")));
    talk.world.expect(PBX, "SIP/2.0 100 ");
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, "")));
    let ok = talk.world.expect(PBX, "SIP/2.0 200 ");
    let bye = talk.world.expect(PBX, "BYE ");
    talk.world.send(PBX, bye.answer("200 OK", "", "", ""));
    // L's ACK comes again, with the sequence number of T's INVITE.
    talk.world.send(PBX, &ack);
    talk.world.expect_nothing(CARRIER);
    talk.world.advance(600);
    talk.world.expect(PBX, "SIP/2.0 200 ");
    t.learn(&ok);
    talk.world.send(PBX, t.request("ACK", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    // R repeats its answer to L's hold: it has not had that ACK.
    talk.world.send(CARRIER, &answer);
    assert_eq!(talk.world.expect(CARRIER, "ACK ").bytes, acked.bytes);
    talk.hang_up();
}

#[test]
fn a_replacing_invite_waits_for_its_record() {
    let mut talk = Talk::new();
    talk.world.hub = Hub::Waits;
    let mut t = taker();
    talk.world.send(PBX, t.invite(&replacing(&talk.l), &sdp(TARGET_IP, 4400, "")));
    talk.world.expect(PBX, "SIP/2.0 100 ");
    talk.world.expect_nothing(CARRIER);
    let Event::Replacing(replacement) = talk.world.event(|event| matches!(event, Event::Replacing(_))) else {
        unreachable!()
    };
    let (call, record) = (replacement.call, replacement.record);
    talk.world.command(Command::Replace { call, record: call });
    talk.world.expect_nothing(CARRIER);
    talk.world.command(Command::Replace { call, record });
    talk.world.expect(CARRIER, "INVITE ");
}

#[test]
fn a_replacing_invite_that_waits_may_be_cancelled_and_does_not_wait_for_ever() {
    for cancels in [true, false] {
        let mut talk = Talk::new();
        talk.world.hub = Hub::Waits;
        let mut t = taker();
        talk.world.send(PBX, t.invite(&replacing(&talk.l), &sdp(TARGET_IP, 4400, "")));
        talk.world.expect(PBX, "SIP/2.0 100 ");
        let status = if cancels {
            talk.world.send(PBX, t.request("CANCEL", "", ""));
            talk.world.expect(PBX, "SIP/2.0 200 ");
            487
        } else {
            talk.world.advance(10_100);
            500
        };
        let refused = talk.world.expect(PBX, &format!("SIP/2.0 {status} "));
        talk.world.send(PBX, t.ack_failure(&refused));
        talk.world
            .event(|event| matches!(event, Event::ReplacementEnded { status: told, .. } if *told == status));
        talk.world.expect_nothing(CARRIER);
        talk.hang_up();
    }
}

#[test]
fn a_call_is_replaced_in_only_so_often() {
    let mut talk = Talk::new();
    for _ in 0..32 {
        talk.referred("<sip:7355@10.1.0.10>");
        let invite = talk.world.expect(PBX, "INVITE ");
        talk.world.send(PBX, invite.answer("486 Busy Here", "t", "", ""));
        talk.world.expect(PBX, "ACK ");
        talk.notified("SIP/2.0 486 Busy Here", "terminated");
    }
    let mut t = taker();
    talk.world.send(PBX, t.invite(&replacing(&talk.l), &sdp(TARGET_IP, 4400, "")));
    let refused = talk.world.expect(PBX, "SIP/2.0 403 ");
    assert!(refused.tag("To").is_some());
    talk.world.send(PBX, t.ack_failure(&refused));
    talk.hang_up();
}

#[test]
fn a_newcomer_for_whose_dialog_there_is_no_place_is_declined() {
    let mut world = World::new();
    let mut r = Ua::caller(CARRIER, "18607427310");
    world.send(CARRIER, r.invite("", &sdp(ANSWER_IP, 5000, "")));
    let invite = world.expect(PBX, "INVITE ");
    let l = Ua::callee(PBX, &invite, "fork-0");
    for fork in 0..64 {
        let ok = invite.answer("200 OK", &format!("fork-{fork}"), &l.contact(), &sdp(OFFER_IP, 4000, ""));
        world.send(PBX, ok);
    }
    world.expect(CARRIER, "SIP/2.0 100 ");
    r.learn(&world.expect(CARRIER, "SIP/2.0 200 "));
    world.send(CARRIER, r.request("ACK", "", ""));
    world.take_all(PBX);
    let mut talk = Talk { world, r, l };
    talk.referred("<sip:7355@10.1.0.10>");
    let (invite, _) = talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
    for method in ["ACK ", "BYE "] {
        assert_eq!(talk.world.expect(PBX, method).get("Call-ID"), invite.get("Call-ID"));
    }
    talk.notified("SIP/2.0 503 Service Unavailable", "terminated");
    assert_eq!(talk.newcomers(), []);
}

#[test]
fn a_newcomers_leg_is_the_one_that_it_replaces() {
    let mut up = Up::new();
    let mut t = taker();
    up.world.send(PBX, t.invite(&replacing(&up.a), &sdp(TARGET_IP, 4400, "")));
    up.world.expect(PBX, "SIP/2.0 100 ");
    let reinvite = up.world.expect(CARRIER, "INVITE ");
    up.world.send(CARRIER, reinvite.answer("481 No Dialog", "", "", ""));
    let [end] = &up.world.ended()[..] else { panic!() };
    assert_eq!(end.by, Some(EndedBy::Callee));
    up.world.event(|event| matches!(event, Event::Replacing(replacement) if replacement.leg == Leg::A));
}
