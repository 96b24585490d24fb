//! Emergency services that somebody else names: by a transfer (RFC 3515) or a redirection (RFC 3261 §8.1.3.4).
//! They are called as if they had been dialled.

use sip_gateway::{Event, PeerId, Routes};

use crate::redirect::{redirect, ringing};
use crate::transfer::Talk;
use crate::world::*;

/// Emergency calls go to the second carrier first; the first may transfer calls.
fn ordered() -> World {
    let mut config = config();
    config.peers[1].may_refer = true;
    config.routes = Routes { emergency: vec![PeerId(2)], ..Routes::default() };
    World::with(config)
}

/// The next message at an address that starts so; what came before is lost.
#[track_caller]
fn find(world: &mut World, at: &str, start: &str) -> Msg {
    let found = world.take_all(at).into_iter().find(|message| message.text().starts_with(start));
    found.unwrap_or_else(|| panic!("no {start} at {at}"))
}

/// Every form, and a host that would name a peer of the other side.
#[test]
fn a_transfer_takes_the_trunks_of_emergency_calls() {
    for (refer_to, uri) in [
        ("<sip:911@10.1.0.10>", "sip:911@10.3.0.30"),
        ("<sip:9911@10.2.0.20>", "sip:911@10.3.0.30"),
        ("<sips:911@10.0.0.1>", "sip:911@10.3.0.30"),
        ("<tel:911>", "sip:911@10.3.0.30;user=phone"),
        ("<urn:service:sos.police>", "urn:service:sos.police"),
        ("<sip:911@10.1.0.10?Replaces=other%3Bto-tag%3D1%3Bfrom-tag%3D2>", "sip:911@10.3.0.30"),
    ] {
        let mut talk = Talk::of(ordered());
        talk.referred(refer_to);
        let invite = talk.world.expect(CARRIER2, "INVITE ");
        assert_eq!(invite.request().uri, uri, "{refer_to}");
        assert!(!invite.headers().contains("Require"));
        for ordinary in ["Session-Expires", "Min-SE", "record-aware"] {
            assert!(!invite.text().contains(ordinary), "{ordinary}");
        }
        talk.world.expect_nothing(CARRIER);
        assert_eq!(talk.world.core.counters().emergency_calls, 1, "the front desk hears of it");
    }
}

#[test]
fn a_transfer_goes_to_the_next_trunk_on_any_failure_and_on_silence() {
    for failure in ["302 Moved", "486 Busy", "500 Oops", "603 Decline"] {
        let mut talk = Talk::of(ordered());
        talk.referred("<sip:911@10.1.0.10>");
        let first = talk.world.expect(CARRIER2, "INVITE ");
        talk.world.send(CARRIER2, first.answer("180 Ringing", "t", "", ""));
        talk.notified("SIP/2.0 180 Ringing", "active");
        talk.world.send(CARRIER2, first.answer(failure, "t", "Contact: <sip:1@10.3.0.30>\r\n", ""));
        if failure.starts_with('4') {
            // Once more, with an offer.
            let again = find(&mut talk.world, CARRIER2, "INVITE ");
            talk.world.send(CARRIER2, again.answer(failure, "t", "", ""));
        }
        talk.world.expect(CARRIER, "INVITE sip:911@10.2.0.20 ");
        talk.world.expect_nothing(PBX);
    }
    let mut talk = Talk::of(ordered());
    talk.referred("<sip:911@10.1.0.10>");
    talk.world.expect(CARRIER2, "INVITE ");
    talk.world.advance(1_499);
    talk.world.expect_nothing(CARRIER);
    talk.world.advance(1);
    talk.world.expect(CARRIER, "INVITE sip:911@10.2.0.20 ");
}

/// The call is an ordinary one again, which the hub may end with the rest.
#[test]
fn the_hub_hears_of_a_transfer_that_did_not_reach_the_emergency_service_or_whomever() {
    let told = |talk: &Talk| {
        let events = talk.world.events.iter();
        events.filter(|event| matches!(event, Event::TransferFailed { leg: consent::Leg::B, .. })).count()
    };
    let refuse = |talk: &mut Talk| {
        for trunk in [CARRIER2, CARRIER] {
            let invite = find(&mut talk.world, trunk, "INVITE ");
            assert_eq!(told(talk), 0, "another trunk may yet answer");
            talk.world.send(trunk, invite.answer("603 Decline", "t", "", ""));
        }
    };
    let mut talk = Talk::of(ordered());
    talk.referred("<sip:911@10.1.0.10>");
    refuse(&mut talk);
    assert_eq!(told(&talk), 1);
    // With nobody left in it the call ends, and nothing comes after that (`World::on_event`).
    let mut talk = Talk::of(ordered());
    talk.referred("<sip:911@10.1.0.10>");
    talk.left();
    refuse(&mut talk);
    assert_eq!((told(&talk), talk.world.ended().len()), (1, 1));
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10>");
    let invite = talk.world.expect(PBX, "INVITE ");
    talk.world.send(PBX, invite.answer("486 Busy Here", "t", "", ""));
    talk.world.expect(PBX, "ACK ");
    talk.notified("SIP/2.0 486 Busy Here", "terminated");
    assert_eq!(told(&talk), 1, "of any other too");
}

#[test]
fn a_hub_that_hangs_costs_a_transfer_a_quarter_of_a_second() {
    let mut talk = Talk::of(ordered());
    talk.world.hub = Hub::Waits;
    talk.referred("<sip:911@10.1.0.10>");
    talk.world.advance(249);
    talk.world.expect_nothing(CARRIER2);
    talk.world.advance(1);
    talk.world.expect(CARRIER2, "INVITE sip:911@10.3.0.30 ");
}

/// RFC 3725 §4.1: some trunks take no INVITE without an offer. L holds R while it transfers.
#[test]
fn a_trunk_that_wants_an_offer_gets_one() {
    let mut talk = Talk::of(ordered());
    let contact = talk.l.contact();
    let hold = talk.l.request("INVITE", &contact, &sdp(OFFER_IP, 4000, "a=sendonly\r\n"));
    talk.world.send(PBX, hold);
    let hold = find(&mut talk.world, CARRIER, "INVITE ");
    let held = hold.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, "a=recvonly\r\n"));
    talk.world.send(CARRIER, held);
    let ok = find(&mut talk.world, PBX, "SIP/2.0 200 ");
    assert!(ok.body().contains("a=recvonly"));
    let ack = talk.l.request("ACK", "", "");
    talk.world.send(PBX, ack);
    talk.world.expect(CARRIER, "ACK ");

    talk.referred("<sip:911@10.1.0.10>");
    let bare = talk.world.expect(CARRIER2, "INVITE ");
    assert_eq!(bare.body(), "");
    talk.world.send(CARRIER2, bare.answer("488 Not Acceptable Here", "t", "", ""));
    talk.world.expect(CARRIER2, "ACK ");
    let invite = talk.world.expect(CARRIER2, "INVITE sip:911@10.3.0.30 ");
    assert_ne!(invite.get("Call-ID"), bare.get("Call-ID"));
    assert_eq!(invite.get("Content-Type"), "application/sdp");
    assert!(invite.body().contains("m=audio 20002 RTP/AVP 0 101") && !invite.body().contains("recvonly"));
    assert_eq!(invite.body(), ok.body().replace("a=recvonly\r\n", ""));

    let t = Ua::callee(CARRIER2, &invite, "targets-tag");
    let answer = sdp("10.3.0.99", 5500, "");
    talk.world.send(CARRIER2, invite.answer("200 OK", "targets-tag", &t.contact(), &answer));
    let reinvite = talk.world.expect(CARRIER, "INVITE sip:line@10.2.0.20:5060 ");
    assert!(reinvite.body().contains("m=audio 20000 ") && !reinvite.body().contains("10.3.0.99"));
    let ok = reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, ""));
    talk.world.send(CARRIER, ok);
    talk.world.expect(CARRIER, "ACK ");
    assert_eq!(talk.world.expect(CARRIER2, "ACK ").body(), "", "it has answered already");
    talk.notified("SIP/2.0 200 OK", "terminated");

    // What T is told later is of the same session.
    let hold = talk.r.request("INVITE", "", &sdp(ANSWER_IP, 5000, "a=inactive\r\n"));
    talk.world.send(CARRIER, hold);
    let hold = talk.world.expect(CARRIER2, "INVITE ");
    let origin = |message: &Msg| -> Vec<String> {
        let body = message.body();
        let line = body.lines().find(|line| line.starts_with("o=")).unwrap();
        line.split(' ').map(str::to_owned).collect()
    };
    let (before, after) = (origin(&invite), origin(&hold));
    assert_eq!(before[1], after[1]);
    assert_eq!(after[2].parse::<u64>().unwrap(), before[2].parse::<u64>().unwrap() + 1);
}

#[test]
fn a_transfer_calls_a_second_trunk_beside_one_that_says_no_more_than_trying() {
    for winner in [CARRIER, CARRIER2] {
        let mut talk = Talk::of(ordered());
        talk.referred("<sip:911@10.1.0.10>");
        let first = talk.world.expect(CARRIER2, "INVITE ");
        talk.world.send(CARRIER2, first.answer("100 Trying", "", "", ""));
        talk.world.advance(10_000);
        let second = talk.world.expect(CARRIER, "INVITE sip:911@10.2.0.20 ");
        talk.world.send(CARRIER, second.answer("100 Trying", "", "", ""));
        let (won, lost, loser) =
            if winner == CARRIER { (second, first, CARRIER2) } else { (first, second, CARRIER) };
        let contact = format!("Contact: <sip:x@{winner}>\r\n");
        let late = lost.answer("200 OK", "t", &format!("Contact: <sip:x@{loser}>\r\n"), "");
        talk.world.send(winner, won.answer("200 OK", "t", &contact, &sdp("10.9.0.9", 5500, "")));
        talk.world.take_all(PBX);
        let reinvite = if winner == CARRIER2 {
            talk.world.expect(CARRIER, "CANCEL ");
            talk.world.expect(CARRIER, "INVITE sip:line@")
        } else {
            talk.world.expect(CARRIER2, "CANCEL ");
            talk.world.expect(CARRIER, "INVITE sip:line@")
        };
        talk.world.send(loser, late);
        talk.world.expect(loser, "ACK ");
        talk.world.expect(loser, "BYE ");
        let ok = reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, ""));
        talk.world.send(CARRIER, ok);
        let ack = find(&mut talk.world, winner, &format!("ACK sip:x@{winner} "));
        assert!(ack.body().contains("m=audio "));
        talk.notified("SIP/2.0 200 OK", "terminated");
        // Nobody takes an emergency service away any more.
        let contact = talk.r.contact();
        talk.world.send(CARRIER, talk.r.request("REFER", &format!("{contact}Refer-To: <sip:1@x>\r\n"), ""));
        assert_eq!(find(&mut talk.world, CARRIER, "SIP/2.0 ").response().status, 403);
    }
}

#[test]
fn a_transfers_first_trunk_that_was_silent_may_answer_after_all() {
    let mut talk = Talk::of(ordered());
    talk.referred("<sip:911@10.1.0.10>");
    let first = talk.world.expect(CARRIER2, "INVITE ");
    talk.world.advance(1_500);
    let second = talk.world.expect(CARRIER, "INVITE sip:911@10.2.0.20 ");
    talk.world.send(CARRIER, second.answer("503 No", "t", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    talk.world.advance(1_000);
    talk.world.expect_nothing(PBX);
    let contact = format!("Contact: <sip:x@{CARRIER2}>\r\n");
    talk.world.send(CARRIER2, first.answer("200 OK", "t", &contact, &sdp("10.9.0.9", 5500, "")));
    let reinvite = talk.world.expect(CARRIER, "INVITE sip:line@");
    let ok = reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, ""));
    talk.world.send(CARRIER, ok);
    find(&mut talk.world, CARRIER2, &format!("ACK sip:x@{CARRIER2} "));
    talk.notified("SIP/2.0 200 OK", "terminated");

    let mut talk = Talk::of(ordered());
    talk.referred("<sip:911@10.1.0.10>");
    talk.world.expect(CARRIER2, "INVITE ");
    talk.world.advance(1_500);
    let second = talk.world.expect(CARRIER, "INVITE sip:911@10.2.0.20 ");
    talk.world.send(CARRIER, second.answer("503 No", "t", "", ""));
    talk.world.advance(4_999);
    talk.world.expect_nothing(PBX);
    talk.world.advance(1);
    talk.notified("SIP/2.0 503 No", "terminated");
}

/// RFC 3262 §3: the caller has not acknowledged what it got before.
#[test]
fn an_emergency_call_does_not_wait_for_an_acknowledgement_of_what_was_said_before_it() {
    let mut world = ordered();
    let mut caller = Ua::caller(CARRIER, "7310");
    world.send(CARRIER, caller.invite("Supported: 100rel\r\n", &sdp(ANSWER_IP, 5000, "")));
    world.expect(CARRIER, "SIP/2.0 100 ");
    let invite = world.expect(PBX, "INVITE ");
    let reliable = "Require: 100rel\r\nRSeq: 1\r\nContact: <sip:x@10.1.0.10:5060>\r\n";
    world.send(PBX, invite.answer("183 Session Progress", "p", reliable, ""));
    let early = world.expect(CARRIER, "SIP/2.0 183 ");
    redirect(&mut world, &invite, "Contact: <sip:911@10.1.0.10>\r\n");
    let first = world.expect(CARRIER2, "INVITE ");
    world.send(CARRIER2, first.answer("180 Ringing", "t", "", ""));
    world.expect(CARRIER, "SIP/2.0 180 ");
    world.advance(40_000);
    world.expect_nothing(CARRIER);
    caller.learn(&early);
    let rack = format!("RAck: {} {}\r\n", early.get("RSeq"), early.get("CSeq"));
    world.send(CARRIER, caller.request("PRACK", &rack, ""));
    let prack = world.expect(PBX, "PRACK ");
    assert_eq!(prack.get("RAck").split(' ').next(), Some("1"));
}

#[test]
fn whom_a_redirection_names_is_called_as_an_emergency_call() {
    for (contact, uri) in [
        ("<sip:911@10.1.0.10:5060>", "sip:911@10.3.0.30"),
        ("<urn:service:sos>;q=0.9, <sip:7399@10.1.0.10>;q=0.2", "urn:service:sos"),
    ] {
        let mut world = ordered();
        let (mut caller, invite) = ringing(&mut world);
        redirect(&mut world, &invite, &format!("Contact: {contact}\r\n"));
        let first = world.expect(CARRIER2, "INVITE ");
        assert_eq!(first.request().uri, uri);
        world.send(CARRIER2, first.answer("183 Session Progress", "t", "", ""));
        world.expect(CARRIER, "SIP/2.0 183 ");
        world.send(CARRIER2, first.answer("404 Not Found", "t", "", ""));
        let second = world.expect(CARRIER, "INVITE ");
        world.send(
            CARRIER,
            second.answer("200 OK", "t", "Contact: <sip:x@10.2.0.20>\r\n", &sdp(OFFER_IP, 5, "")),
        );
        caller.learn(&world.expect(CARRIER, "SIP/2.0 200 "));
        world.send(CARRIER, caller.request("ACK", "", ""));
        world.expect(CARRIER, "ACK ");
        world.send(CARRIER, caller.request("BYE", "", ""));
        world.assert_clean();
        assert_eq!(world.core.counters().emergency_calls, 1);
    }
}

#[test]
fn a_hub_that_hangs_costs_a_redirection_a_quarter_of_a_second() {
    let mut world = ordered();
    let (_, invite) = ringing(&mut world);
    world.hub = Hub::Waits;
    redirect(&mut world, &invite, "Contact: <sip:911@10.1.0.10>, <sip:7399@10.1.0.10>;q=0.5\r\n");
    world.advance(249);
    world.expect_nothing(CARRIER2);
    world.advance(1);
    world.expect(CARRIER2, "INVITE sip:911@10.3.0.30 ");
    world.event(|event| matches!(event, Event::Diverted { target, .. } if target.emergency));
}
