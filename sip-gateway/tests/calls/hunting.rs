//! The hunt for a callee, row by row of the table in `b2bua/hunt.rs`, where a call and its transfers could differ
//! (RFC 3261 §8.1.3.4, §16.7; RFC 3263 §4.3).

use std::collections::BTreeSet;

use sip_gateway::locate::{Answer, Records};
use sip_gateway::{Config, Redirects};

use crate::failover::{named, resolve};
use crate::transfer::{Talk, call_in};
use crate::world::*;

const TWO: &str = "Contact: <tel:+18605550111>;q=0.9, <tel:+18605550122>;q=0.5\r\n";

/// Carriers that may redirect.
fn redirecting() -> Config {
    let mut config = config();
    for carrier in &mut config.peers[1..] {
        carrier.redirects = Redirects::Follow;
    }
    config
}

/// The next INVITE there, and its failure.
#[track_caller]
fn fails(world: &mut World, at: &str, start: &str, failure: &str, extra: &str) {
    let waiting = world.take_all(at);
    let invite = waiting.iter().find(|message| message.text().starts_with(&format!("INVITE {start}")));
    let invite = invite.unwrap_or_else(|| panic!("no INVITE {start} at {at}"));
    world.send(at, invite.answer(failure, "t", extra, ""));
}

/// The first address of whom a 3xx names fails: its other addresses come before the next one named.
#[track_caller]
fn hunts_in_order(world: &mut World) {
    fails(world, CARRIER, "sip:", "302 Moved", TWO);
    fails(world, CARRIER, "sip:+18605550111@10.2.0.20;user=phone ", "503 No", "");
    fails(world, CARRIER2, "sip:+18605550111@10.3.0.30;user=phone ", "503 No", "");
    fails(world, CARRIER, "sip:+18605550122@10.2.0.20;user=phone ", "486 Busy Here", "");
}

#[test]
fn a_call_tries_the_next_way_before_the_next_contact() {
    let mut world = World::with(redirecting());
    let mut a = Ua::caller(PBX, "18605550100");
    world.send(PBX, a.invite("", ""));
    world.expect(PBX, "SIP/2.0 100 ");
    hunts_in_order(&mut world);
    world.expect(PBX, "SIP/2.0 486 ");
}

#[test]
fn so_does_a_transfer() {
    let mut talk = Talk::of(World::with(redirecting()));
    talk.referred("<tel:+18605550100>");
    hunts_in_order(&mut talk.world);
    talk.notified("SIP/2.0 486 Busy Here", "terminated");
    talk.world.take_all(CARRIER);
    talk.hang_up();
}

/// The caller's hunt met a 408 before it was answered; the transfer's finds no way at all.
#[test]
fn what_a_call_met_before_it_was_answered_is_no_answer_to_its_transfer() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "18605550100");
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    fails(&mut world, CARRIER, "sip:", "408 Timeout", "");
    let invite = world.expect(CARRIER2, "INVITE ");
    let contact = "Contact: <sip:x@10.3.0.30:5060>\r\n";
    world.send(CARRIER2, invite.answer("200 OK", "t", contact, &sdp(ANSWER_IP, 5000, "")));
    a.learn(&world.expect(PBX, "SIP/2.0 200 "));
    world.send(PBX, a.request("ACK", "", ""));
    let contact = a.contact();
    // Nobody there takes calls by TLS.
    world.send(PBX, a.request("REFER", &format!("{contact}Refer-To: <sips:7355@10.1.0.10>\r\n"), ""));
    let last = world.take_all(PBX).pop().unwrap();
    assert!(last.body().starts_with("SIP/2.0 480 "), "{}", last.text());
}

/// A carrier at a name with this many addresses.
fn vast(addresses: u8) -> World {
    let mut config = named();
    config.peers[1].allow = vec![("10.2.0.0".parse().unwrap(), 16)];
    let mut world = World::with(config);
    world.advance(0);
    resolve(&mut world, |question| {
        let mut answer: Answer = crate::failover::dns(question);
        match &mut answer.records {
            Records::Srv(records) => records.truncate(1),
            Records::Addresses(ips) => *ips = (0..addresses).map(|n| [10, 2, 0, 20 + n].into()).collect(),
            Records::Naptr(_) => {}
        }
        Ok(answer)
    });
    world
}

/// How many INVITEs without an offer have gone out in all.
fn invited(world: &World) -> usize {
    let ids = world.sent.iter().filter(|(_, bytes)| bytes.starts_with(b"INVITE "));
    let ids = ids.map(|(_, bytes)| Msg::new(bytes.clone())).filter(|invite| invite.body().is_empty());
    ids.map(|invite| invite.get("Call-ID").to_owned()).collect::<BTreeSet<_>>().len()
}

/// Every INVITE is refused, wherever it goes.
fn refuse_all(world: &mut World) {
    for number in 20..36 {
        let at = format!("10.2.0.{number}:5060");
        for message in world.take_all(&at) {
            if message.text().starts_with("INVITE sip:") && message.body().is_empty() {
                world.send(&at, message.answer("503 No", "t", "", ""));
            }
        }
    }
}

#[test]
fn the_invites_of_a_call_are_bounded_but_not_those_to_911() {
    let mut world = vast(16);
    let (r, mut l) = call_in(&mut world, "18607427310", "first");
    assert_eq!(r.at, CARRIER);
    let mut refer = |world: &mut World, to: &str| {
        let before = invited(world);
        let contact = l.contact();
        world.send(PBX, l.request("REFER", &format!("{contact}Refer-To: <{to}>\r\n"), ""));
        for _ in 0..64 {
            refuse_all(world);
        }
        for notify in world.take_all(PBX).iter().filter(|message| message.text().starts_with("NOTIFY ")) {
            world.send(PBX, notify.answer("200 OK", "", "", ""));
        }
        invited(world) - before
    };
    // One INVITE was the caller's.
    let sent = [(); 9].map(|()| refer(&mut world, "tel:+18605550100"));
    assert_eq!(sent, [16, 16, 16, 16, 16, 16, 16, 15, 0]);
    assert_eq!(refer(&mut world, "sip:911@10.1.0.10"), 16);
}
