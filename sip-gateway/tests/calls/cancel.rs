//! CANCEL at every stage, and its races (RFC 3261 §9).

use sip_gateway::EndedBy;

use crate::world::*;

fn calling() -> (World, Ua, Msg) {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    (world, a, invite)
}

#[track_caller]
fn cancelled(world: &mut World, a: &mut Ua) {
    world.send(PBX, a.request("CANCEL", "", ""));
    let ok = world.expect(PBX, "SIP/2.0 200 OK");
    assert!(ok.get("CSeq").ends_with(" CANCEL"));
    let terminated = world.expect(PBX, "SIP/2.0 487 Request Terminated");
    assert_eq!(ok.tag("To"), terminated.tag("To"));
    world.send(PBX, a.ack_failure(&terminated));
    let end = world.ended().remove(0);
    assert_eq!((end.by, end.final_status, end.cancelled), (Some(EndedBy::Caller), Some(487), true));
    assert_eq!(world.core.calls(), 0);
}

#[test]
fn while_the_hub_decides() {
    let mut world = World::waiting();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", ""));
    world.expect(PBX, "SIP/2.0 100 ");
    cancelled(&mut world, &mut a);
    let call = world.call();
    world.proceed(call, consent::Side::Public);
    world.expect_nothing(CARRIER);
    world.assert_clean();
}

#[test]
fn before_any_provisional_it_is_held_back_and_sent_with_the_first() {
    let (mut world, mut a, invite) = calling();
    cancelled(&mut world, &mut a);
    world.advance(200);
    world.expect_nothing(CARRIER);
    world.send(CARRIER, invite.answer("100 Trying", "", "", ""));
    let cancel = world.expect(CARRIER, "CANCEL ");
    assert_eq!(cancel.request().uri, invite.request().uri);
    assert_eq!(cancel.get("Via"), invite.get("Via"));
    assert_eq!(cancel.get("CSeq"), invite.get("CSeq").replace("INVITE", "CANCEL"));
    assert_eq!(cancel.get("To"), invite.get("To"));
    world.send(CARRIER, cancel.answer("200 OK", "t", "", ""));
    world.send(CARRIER, invite.answer("487 Request Terminated", "t", "", ""));
    world.expect(CARRIER, "ACK ");
    world.expect_nothing(PBX);
    world.assert_clean();
}

#[test]
fn while_ringing_it_goes_on_with_its_reason_and_is_repeated_when_lost() {
    let (mut world, mut a, invite) = calling();
    world.send(CARRIER, invite.answer("180 Ringing", "t", "", ""));
    world.expect(PBX, "SIP/2.0 180 ");
    world.send(PBX, a.request("CANCEL", "Reason: SIP;cause=200;text=\"elsewhere\"\r\n", ""));
    let cancel = world.expect(CARRIER, "CANCEL ");
    assert_eq!(cancel.get("Reason"), "SIP;cause=200;text=\"elsewhere\"");
    world.advance(500);
    world.expect(CARRIER, "CANCEL ");
    world.advance(1000);
    world.expect(CARRIER, "CANCEL ");
    world.send(CARRIER, cancel.answer("200 OK", "t", "", ""));
    world.send(CARRIER, invite.answer("487 Request Terminated", "t", "", ""));
    world.expect(CARRIER, "ACK ");
    world.assert_clean();
}

#[test]
fn the_487_is_repeated_until_its_ack() {
    let (mut world, mut a, _) = calling();
    world.send(PBX, a.request("CANCEL", "", ""));
    world.expect(PBX, "SIP/2.0 200 ");
    let terminated = world.expect(PBX, "SIP/2.0 487 ");
    for wait_ms in [500, 1000, 2000, 4000, 4000] {
        world.advance(wait_ms - 1);
        world.expect_nothing(PBX);
        world.advance(1);
        world.expect(PBX, "SIP/2.0 487 ");
    }
    world.send(PBX, a.ack_failure(&terminated));
    world.advance(10_000);
    world.expect_nothing(PBX);
}

#[test]
fn a_2xx_that_crosses_it_gets_ack_and_bye() {
    let (mut world, mut a, invite) = calling();
    world.send(CARRIER, invite.answer("180 Ringing", "t", "", ""));
    world.expect(PBX, "SIP/2.0 180 ");
    cancelled(&mut world, &mut a);
    world.expect(CARRIER, "CANCEL ");
    let contact = "Contact: <sip:line@10.2.0.20:5060>\r\n";
    let ok = invite.answer("200 OK", "t", contact, &sdp(ANSWER_IP, 5000, ""));
    world.send(CARRIER, &ok);
    let ack = world.expect(CARRIER, "ACK sip:line@10.2.0.20:5060 ");
    let bye = world.expect(CARRIER, "BYE sip:line@10.2.0.20:5060 ");
    assert_eq!(ack.tag("To").as_deref(), Some("t"));
    // The 2xx again means that the ACK was lost; one BYE is enough.
    world.send(CARRIER, &ok);
    world.expect(CARRIER, "ACK ");
    world.expect_nothing(CARRIER);
    world.send(CARRIER, bye.answer("200 OK", "", "", ""));
    world.expect_nothing(PBX);
    assert_eq!(world.ended().len(), 1);
    world.assert_clean();
}

#[test]
fn after_the_answer_it_means_nothing() {
    let (mut world, mut a, invite) = calling();
    let contact = "Contact: <sip:line@10.2.0.20:5060>\r\n";
    world.send(CARRIER, invite.answer("200 OK", "t", contact, &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    world.send(PBX, a.request("CANCEL", "", ""));
    let done = world.expect(PBX, "SIP/2.0 200 ");
    assert!(done.get("CSeq").ends_with(" CANCEL"));
    world.expect_nothing(CARRIER);
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(CARRIER, "ACK ");
    assert_eq!(world.core.calls(), 1);
}

#[test]
fn for_nothing_at_all_it_gets_481() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.request("CANCEL", "", ""));
    world.expect(PBX, "SIP/2.0 481 ");
}

#[test]
fn from_another_peer_it_ends_nothing() {
    let (mut world, mut a, _) = calling();
    world.send(CARRIER2, a.request("CANCEL", "", ""));
    world.expect_nothing(PBX);
    assert_eq!(world.core.calls(), 1);
}

#[test]
fn an_early_bye_of_the_caller_cancels_too() {
    let (mut world, mut a, invite) = calling();
    world.send(CARRIER, invite.answer("180 Ringing", "t", "", ""));
    let ringing = world.expect(PBX, "SIP/2.0 180 ");
    a.learn(&ringing);
    world.send(PBX, a.request("BYE", "", ""));
    world.expect(PBX, "SIP/2.0 200 ");
    world.expect(PBX, "SIP/2.0 487 ");
    world.expect(CARRIER, "CANCEL ");
    assert_eq!(world.ended().len(), 1);
}

/// RFC 3261 §9.1.
#[test]
fn a_change_that_was_cancelled_is_not_cancelled_again_when_the_call_ends() {
    let Up { mut world, mut a, b, .. } = Up::new();
    let contact = a.contact();
    world.send(PBX, a.request("INVITE", &contact, &sdp(OFFER_IP, 4000, "a=sendonly\r\n")));
    world.expect(PBX, "SIP/2.0 100 ");
    let reinvite = world.expect(CARRIER, "INVITE ");
    world.send(CARRIER, reinvite.answer("100 Trying", "", "", ""));
    world.send(PBX, a.request("CANCEL", "Reason: SIP;cause=487\r\n", ""));
    world.expect(PBX, "SIP/2.0 200 ");
    let cancel = world.expect(CARRIER, "CANCEL ");
    assert_eq!(cancel.get("Reason"), "SIP;cause=487");
    world.send(CARRIER, cancel.answer("200 OK", "", "", ""));
    world.send(PBX, a.request("BYE", "", ""));
    let bye = world.expect(CARRIER, "BYE ");
    world.expect_nothing(CARRIER);
    world.send(CARRIER, bye.answer("200 OK", "", "", ""));
    world.send(CARRIER, reinvite.answer("487 Request Terminated", "", &b.contact(), ""));
    world.assert_clean();
}
