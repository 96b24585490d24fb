//! Redirections, row by row of the table in `b2bua/redirect.rs` (RFC 3261 §8.1.3.4, §21.3).

use consent::{Leg, Side};
use sip_gateway::{Event, Redirects};

use crate::world::*;

/// A call from the carrier that rings at the PBX: the caller and the INVITE.
pub fn ringing(world: &mut World) -> (Ua, Msg) {
    let mut caller = Ua::caller(CARRIER, "7310");
    world.send(CARRIER, caller.invite("", &sdp(ANSWER_IP, 5000, "")));
    world.expect(CARRIER, "SIP/2.0 100 ");
    (caller, world.expect(PBX, "INVITE sip:7310@10.1.0.10 "))
}

#[track_caller]
pub fn redirect(world: &mut World, invite: &Msg, contacts: &str) {
    world.send(PBX, invite.answer("302 Moved Temporarily", "t", contacts, ""));
    world.expect(PBX, "ACK ");
}

fn pbx_that(redirects: Redirects) -> World {
    let mut config = config();
    config.peers[0].redirects = redirects;
    World::with(config)
}

#[test]
fn whom_the_callee_names_is_called_instead() {
    let mut world = World::new();
    let (mut caller, invite) = ringing(&mut world);
    redirect(&mut world, &invite, "Contact: <sip:7399@10.1.0.10:5060>\r\n");
    let Event::Diverted { leg, target, .. } = world.event(|event| matches!(event, Event::Diverted { .. }))
    else {
        unreachable!()
    };
    assert_eq!((leg, target.user.as_str(), target.side), (Leg::B, "7399", Some(Side::District)));
    let second = world.expect(PBX, "INVITE sip:7399@10.1.0.10 ");
    assert_eq!(second.get("Diversion"), "<sip:7310@10.0.0.1>;reason=deflection");
    assert!(second.body().contains("m=audio 20002 "));
    let callee = Ua::callee(PBX, &second, "second");
    world.send(PBX, second.answer("200 OK", "second", &callee.contact(), &sdp(OFFER_IP, 4000, "")));
    caller.learn(&world.expect(CARRIER, "SIP/2.0 200 "));
    world.send(CARRIER, caller.request("ACK", "", ""));
    world.expect(PBX, "ACK ");
    world.send(CARRIER, caller.request("BYE", "", ""));
    world.expect(CARRIER, "SIP/2.0 200 ");
    let bye = world.expect(PBX, "BYE ");
    world.send(PBX, bye.answer("200 OK", "", "", ""));
    world.assert_clean();
}

#[test]
fn the_best_contact_first_and_only_those_that_can_be_called() {
    let mut world = World::new();
    let (_, invite) = ringing(&mut world);
    let contacts = "Contact: <sip:1@10.1.0.10>;q=0.2, <mailto:a@b.example>, <sip:2@10.1.0.10>;q=0.7\r\n\
                    Contact: <tel:+18607427399>;q=0.5\r\n";
    redirect(&mut world, &invite, contacts);
    let second = world.expect(PBX, "INVITE sip:2@10.1.0.10 ");
    world.send(PBX, second.answer("486 Busy Here", "t2", "", ""));
    world.expect(PBX, "ACK ");
    let third = world.expect(CARRIER, "INVITE sip:+18607427399@10.2.0.20;user=phone ");
    world.send(CARRIER, third.answer("404 Not Found", "t3", "", ""));
    world.expect(CARRIER, "ACK ");
    let fourth = world.expect(PBX, "INVITE sip:1@10.1.0.10 ");
    world.send(PBX, fourth.answer("600 Busy Everywhere", "t4", "", ""));
    world.expect(PBX, "ACK ");
    world.expect(CARRIER, "SIP/2.0 600 ");
    world.expect_nothing(PBX);
}

#[test]
fn a_loop_is_seen_and_recursion_is_bounded() {
    let mut world = World::new();
    let (_, first) = ringing(&mut world);
    redirect(&mut world, &first, "Contact: <sip:2@10.1.0.10>\r\n");
    let second = world.expect(PBX, "INVITE sip:2@");
    redirect(&mut world, &second, "Contact: <sip:2@10.1.0.10>\r\n");
    world.expect(CARRIER, "SIP/2.0 480 ");

    let mut world = World::new();
    let (_, mut invite) = ringing(&mut world);
    for number in 0..5 {
        redirect(&mut world, &invite, &format!("Contact: <sip:90{number}@10.1.0.10>\r\n"));
        invite = world.expect(PBX, &format!("INVITE sip:90{number}@"));
    }
    redirect(&mut world, &invite, "Contact: <sip:999@10.1.0.10>\r\n");
    world.expect_nothing(PBX);
    world.expect(CARRIER, "SIP/2.0 480 ");
}

#[test]
fn a_redirection_that_is_passed_on_names_our_host() {
    let mut world = pbx_that(Redirects::Pass);
    let (mut caller, invite) = ringing(&mut world);
    redirect(
        &mut world,
        &invite,
        "Contact: \"Bob\" <sip:7399@10.1.0.10:5070;x=y>;q=0.5, <mailto:a@b.example>\r\n",
    );
    let moved = world.expect(CARRIER, "SIP/2.0 302 Moved Temporarily");
    assert_eq!(moved.get("Contact"), "\"Bob\" <sip:7399@10.0.0.1;x=y>;q=0.5");
    world.send(CARRIER, caller.ack_failure(&moved));
    world.assert_clean();
}

#[test]
fn a_redirection_that_is_refused_says_nothing() {
    let mut world = pbx_that(Redirects::Refuse);
    let (_, invite) = ringing(&mut world);
    redirect(&mut world, &invite, "Contact: <sip:7399@10.1.0.10>\r\n");
    let refused = world.expect(CARRIER, "SIP/2.0 480 ");
    assert!(!refused.headers().contains("Contact"));
    world.expect_nothing(PBX);
}

#[test]
fn the_caller_may_give_up_while_it_is_redirected() {
    let mut world = World::new();
    let (mut caller, invite) = ringing(&mut world);
    redirect(&mut world, &invite, "Contact: <sip:7399@10.1.0.10>\r\n");
    let second = world.expect(PBX, "INVITE sip:7399@");
    world.send(PBX, second.answer("180 Ringing", "t", "", ""));
    world.expect(CARRIER, "SIP/2.0 180 ");
    world.send(CARRIER, caller.request("CANCEL", "", ""));
    world.expect(CARRIER, "SIP/2.0 200 ");
    world.expect(CARRIER, "SIP/2.0 487 ");
    let cancel = world.expect(PBX, "CANCEL sip:7399@");
    world.send(PBX, cancel.answer("200 OK", "", "", ""));
    world.send(PBX, second.answer("487 Request Terminated", "t", "", ""));
    assert_eq!(world.ended().len(), 1);
    world.assert_clean();
}

#[test]
fn whom_a_transfer_calls_may_redirect_too() {
    let mut up = Up::new();
    let contact = up.a.contact();
    let refer = up.a.request("REFER", &format!("{contact}Refer-To: <sip:7355@10.1.0.10>\r\n"), "");
    up.world.send(PBX, refer);
    up.world.expect(PBX, "SIP/2.0 202 ");
    let notify = up.world.expect(PBX, "NOTIFY ");
    up.world.send(PBX, notify.answer("200 OK", "", "", ""));
    let invite = up.world.expect(PBX, "INVITE sip:7355@");
    redirect(&mut up.world, &invite, "Contact: <sip:7399@10.1.0.10>\r\n");
    let second = up.world.expect(PBX, "INVITE sip:7399@");
    assert!(second.headers().contains("Referred-By"));
    redirect(&mut up.world, &second, "Contact: <sip:7355@10.1.0.10>\r\n");
    let notify = up.world.expect(PBX, "NOTIFY ");
    assert!(notify.body().starts_with("SIP/2.0 480 "), "{}", notify.text());
}
