//! The ladder of a call: what of its messages is told, and what never is.

use sip_gateway::Rung;

use crate::transfer::{TARGET_IP, Talk};
use crate::world::*;

/// The whole ladder of the world's only call, as its parts make it up.
fn whole(world: &World) -> Vec<Rung> {
    let mut whole: Vec<Rung> = Vec::new();
    for rung in world.ladders.iter().flat_map(|ladder| &ladder.rungs) {
        match whole.get_mut(usize::from(rung.position)) {
            Some(known) => *known = rung.clone(),
            None => {
                assert_eq!(usize::from(rung.position), whole.len(), "no rung is passed over");
                whole.push(rung.clone());
            }
        }
    }
    whole
}

fn drawn(rung: &Rung) -> String {
    let arrow = if rung.sent { "to" } else { "from" };
    let sdp = if rung.sdp { " sdp" } else { "" };
    let again = if rung.repeats > 0 { format!(" +{}", rung.repeats) } else { String::new() };
    format!("{:?} {arrow} {}: {} ({}){sdp}{again}", rung.leg, rung.peer, rung.message, rung.method)
}

fn lines(world: &World) -> Vec<String> {
    whole(world).iter().map(drawn).collect()
}

#[test]
fn a_call_has_every_message_of_both_legs_in_order() {
    let mut up = Up::new();
    up.world.advance(65_000);
    assert_eq!(whole(&up.world).len(), 9, "it is told while the call goes on");
    up.world.send(PBX, up.a.request("BYE", "", ""));
    let bye = up.world.expect(CARRIER, "BYE ");
    up.world.advance(7);
    up.world.send(CARRIER, bye.answer("200 OK", "", "", ""));
    up.world.assert_clean();
    assert_eq!(
        lines(&up.world),
        [
            "A from pbx: INVITE sip:<callee> (INVITE) sdp",
            "A to pbx: 100 Trying (INVITE)",
            "B to carrier: INVITE sip:<callee> (INVITE) sdp",
            "B from carrier: 180 Ringing (INVITE)",
            "A to pbx: 180 Ringing (INVITE)",
            "B from carrier: 200 OK (INVITE) sdp",
            "A to pbx: 200 OK (INVITE) sdp",
            "A from pbx: ACK sip:<gateway> (ACK)",
            "B to carrier: ACK sip:<callee> (ACK)",
            "A from pbx: BYE sip:<gateway> (BYE)",
            "A to pbx: 200 OK (BYE)",
            "B to carrier: BYE sip:<callee> (BYE)",
            "B from carrier: 200 OK (BYE)",
        ]
    );
    let times: Vec<u32> = whole(&up.world).iter().map(|rung| rung.after_ms).collect();
    assert_eq!(times, [0, 0, 0, 0, 0, 0, 0, 0, 0, 65_000, 65_000, 65_000, 65_007]);
}

#[test]
fn a_description_is_seen_under_any_type_and_no_other_body_is_taken_for_one() {
    let parts = "--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b--\r\n".to_owned();
    for (kind, body, sdp) in [
        ("", sdp(OFFER_IP, 4000, ""), " sdp"),
        ("application/", sdp(OFFER_IP, 4000, ""), " sdp"),
        ("text/plain", "v=0".to_owned(), ""),
        ("multipart/mixed;boundary=b", parts, ""),
    ] {
        let mut world = World::new();
        let mut a = Ua::caller(PBX, "100");
        let invite = a.invite("", &body).replace("Content-Type: application/sdp\r\n", "");
        world.send(PBX, invite.replace("Content-Length", &format!("Content-Type: {kind}\r\nContent-Length")));
        world.core.tell_ladders();
        world.advance(0);
        world.input(sip_gateway::Input::Undeliverable { to: addr(STRANGER) });
        assert_eq!(
            lines(&world),
            [
                format!("A from pbx: INVITE sip:<callee> (INVITE){sdp}"),
                "A to pbx: 100 Trying (INVITE)".to_owned(),
                format!("B to carrier: INVITE sip:<callee> (INVITE){sdp}"),
            ],
            "{kind}"
        );
    }
}

#[test]
fn the_end_is_told_two_seconds_after_it_and_no_rung_twice_in_vain() {
    let mut up = Up::new();
    up.world.advance(1_999);
    assert_eq!(up.world.ladders, []);
    up.world.advance(1);
    assert_eq!(up.world.ladders.len(), 1);
    up.world.send(PBX, up.a.request("BYE", "", ""));
    let bye = up.world.expect(CARRIER, "BYE ");
    up.world.send(CARRIER, bye.answer("200 OK", "", "", ""));
    up.world.advance(2_000);
    up.world.assert_clean();
    let told: Vec<usize> = up.world.ladders.iter().map(|ladder| ladder.rungs.len()).collect();
    assert_eq!(told, [9, 4]);
}

#[test]
fn a_process_that_ends_tells_what_it_has() {
    let mut up = Up::new();
    up.world.core.tell_ladders();
    up.world.advance(0);
    up.world.input(sip_gateway::Input::Undeliverable { to: addr(STRANGER) });
    assert_eq!(whole(&up.world).len(), 9);
}

#[test]
fn what_is_sent_or_comes_again_is_counted_where_it_stands() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    let invite = a.invite("", &sdp(OFFER_IP, 4000, ""));
    world.send(PBX, &invite);
    world.send(PBX, &invite);
    world.send(PBX, &invite);
    world.advance(600);
    let sent = world.expect(CARRIER, "INVITE ");
    let ringing = sent.answer("180 Ringing", "t", "Contact: <sip:x@10.2.0.20:5060>\r\n", "");
    world.send(CARRIER, &ringing);
    world.send(CARRIER, &ringing);
    world.send(CARRIER, sent.answer("486 Busy Here", "t", "", ""));
    world.take_all(CARRIER);
    let busy = world.take_all(PBX).pop().unwrap();
    world.send(PBX, a.ack_failure(&busy));
    world.assert_clean();
    assert_eq!(
        lines(&world),
        [
            "A from pbx: INVITE sip:<callee> (INVITE) sdp +2",
            "A to pbx: 100 Trying (INVITE) +2",
            "B to carrier: INVITE sip:<callee> (INVITE) sdp +1",
            "B from carrier: 180 Ringing (INVITE) +1",
            "A to pbx: 180 Ringing (INVITE) +1",
            "B from carrier: 486 Busy Here (INVITE)",
            "B to carrier: ACK sip:<callee> (ACK)",
            "A to pbx: 486 Busy Here (INVITE)",
            "A from pbx: ACK sip:<callee> (ACK)",
        ]
    );
}

/// Whatever a peer writes into a first line, none of it is on the ladder but what the RFCs name.
#[test]
fn no_number_name_or_phrase_of_a_peer_is_on_a_ladder() {
    for uri in [
        "sip:18605550100@10.0.0.1;tgrp=5550100",
        "sip:ann.adams:5550100@10.0.0.1",
        "sip:5550100",
        "sip:5550100.example.net",
        "tel:+1-860-555-0100;phone-context=+1860",
        "tel:911",
        "sip:9911@10.0.0.1",
        "urn:service:sos.police",
        "sip:%39%31%31@10.0.0.1",
    ] {
        let mut world = World::new();
        let mut a = Ua::caller(PBX, "x");
        a.uri = uri.to_owned();
        world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
        if let Some(invite) = world.next_is_invite(CARRIER).then(|| world.expect(CARRIER, "INVITE ")) {
            let contact = "Contact: <sip:18605550100@10.2.0.20:5060>\r\n";
            world.send(CARRIER, invite.answer("183 To +18605550100", "t", contact, ""));
            world.send(CARRIER, invite.answer("200 Ann Adams 5550100", "t", contact, ""));
            let mut b = Ua::callee(CARRIER, &invite, "t");
            world.send(CARRIER, b.request("X5550100", "", ""));
            world.send(CARRIER, b.request("ANN.ADAMS", "", ""));
            world.send(CARRIER, b.request("BYE", "", ""));
        }
        world.advance(300_000);
        let lines = lines(&world);
        assert!(lines.len() >= 2, "{uri}: {lines:?}");
        assert!(lines[0].contains(":<callee> ") || lines[0].contains(":<gateway> "), "{uri}: {lines:?}");
        for line in lines {
            let shown = line.to_ascii_lowercase();
            for never in ["555", "0100", "911", "860", "ann", "adams", "sos", "police", "10.0.", "10.2."] {
                assert!(!shown.contains(never), "{uri}: {line}");
            }
        }
    }
}

#[test]
fn a_failover_shows_both_peers_and_an_emergency_call_has_its_ladder() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "9911");
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    let first = world.expect(CARRIER, "INVITE ");
    world.send(CARRIER, first.answer("503 Busy", "t", "", ""));
    let second = world.expect(CARRIER2, "INVITE ");
    world.send(CARRIER2, second.answer("404 Not Found", "t", "", ""));
    world.assert_clean();
    let lines = lines(&world);
    assert_eq!(lines[2], "B to carrier: INVITE sip:<callee> (INVITE) sdp");
    assert!(lines.contains(&"B to carrier2: INVITE sip:<callee> (INVITE) sdp".to_owned()), "{lines:#?}");
    assert!(lines.contains(&"B from carrier2: 404 Not Found (INVITE)".to_owned()), "{lines:#?}");
}

#[test]
fn whom_a_transfer_calls_is_on_the_leg_that_it_will_take() {
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10>");
    talk.answered_by_target(&sdp(TARGET_IP, 6000, ""));
    talk.joined();
    talk.notified("SIP/2.0 200 OK", "terminated");
    talk.left();
    talk.world.send(CARRIER, talk.r.request("BYE", "", ""));
    let bye = talk.world.expect(PBX, "BYE ");
    talk.world.send(PBX, bye.answer("200 OK", "", "", ""));
    talk.world.assert_clean();
    let lines = lines(&talk.world);
    for line in [
        "B from pbx: REFER sip:<gateway> (REFER)",
        "B to pbx: 202 Accepted (REFER)",
        "B to pbx: NOTIFY sip:<callee> (NOTIFY)",
        "B to pbx: INVITE sip:<callee> (INVITE)",
        "A to carrier: INVITE sip:<caller> (INVITE) sdp",
        "A from carrier: BYE sip:<gateway> (BYE)",
        "B to pbx: BYE sip:<callee> (BYE)",
    ] {
        assert!(lines.iter().any(|shown| shown == line), "{line}: {lines:#?}");
    }
}

#[test]
fn a_ladder_has_an_end_and_says_what_it_left_out() {
    let mut up = Up::new();
    for _ in 0..100 {
        up.world.send(PBX, up.a.request("OPTIONS", "", ""));
        up.world.take_all(CARRIER);
        up.world.take_all(PBX);
        up.world.advance(100);
    }
    up.world.send(PBX, up.a.request("BYE", "", ""));
    up.world.advance(300_000);
    let rungs = whole(&up.world).len();
    let left_out = up.world.ladders.last().unwrap().left_out;
    assert_eq!(rungs, 200);
    assert!(left_out > 0);
}

#[test]
fn what_is_no_calls_has_none() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.request("OPTIONS", "", ""));
    world.send(PBX, a.request("BYE", "", ""));
    let mut refused = Ua::caller(PBX, "200");
    refused.uri = "mailto:200@10.0.0.1".to_owned();
    world.send(PBX, refused.invite("", ""));
    world.advance(300_000);
    assert_eq!(world.ladders, []);
}
