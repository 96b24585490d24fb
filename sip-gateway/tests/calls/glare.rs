//! Requests that cross (RFC 3261 §14.1, §14.2; RFC 3311 §5.2).

use crate::world::*;

const REFRESHED_BY_US: &str = "Session-Expires: 600;refresher=uac\r\n";

/// A call whose session we refresh: on the callee's leg by re-INVITE, or on the caller's.
fn refreshing(caller: bool) -> (Up, Msg) {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    let asked = if caller { "Supported: timer\r\nSession-Expires: 600;refresher=uas\r\n" } else { "" };
    world.send(PBX, a.invite(asked, &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    let mut b = Ua::callee(CARRIER, &invite, "callees-tag");
    let agreed = if caller { "" } else { REFRESHED_BY_US };
    let extra = format!("{}{agreed}", b.contact());
    world.send(CARRIER, invite.answer("200 OK", "callees-tag", &extra, &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 OK");
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(CARRIER, "ACK ");
    b.cseq = 500;
    world.advance(300_000);
    let reinvite = world.expect(if caller { PBX } else { CARRIER }, "INVITE ");
    (Up { world, a, b, invite, ok }, reinvite)
}

fn retry_after(message: &Msg) -> u32 {
    message.get("Retry-After").parse().unwrap()
}

#[test]
fn a_491_goes_back_to_whoever_began() {
    let mut up = Up::new();
    let own = up.a.contact();
    for (method, ack) in [("INVITE", true), ("UPDATE", false)] {
        up.world.send(PBX, up.a.request(method, &own, &sdp(OFFER_IP, 4002, "")));
        up.world.take_all(PBX);
        let passed = up.world.expect(CARRIER, method);
        up.world.send(CARRIER, passed.answer("491 Request Pending", "", "", ""));
        let pending = up.world.expect(PBX, "SIP/2.0 491 Request Pending");
        if ack {
            up.world.expect(CARRIER, "ACK ");
            up.world.send(PBX, up.a.ack_failure(&pending));
        }
        // It is theirs to try again.
        up.world.advance(10_000);
        up.world.expect_nothing(CARRIER);
        up.world.send(PBX, up.a.request(method, &own, &sdp(OFFER_IP, 4002, "")));
        let again = up.world.expect(CARRIER, method);
        up.world.send(CARRIER, again.answer("488 No", "", "", ""));
        if ack {
            up.world.expect(CARRIER, "ACK ");
            let refused = up.world.take_all(PBX).pop().unwrap();
            up.world.send(PBX, up.a.ack_failure(&refused));
        }
        up.world.take_all(PBX);
    }
    up.hang_up();
}

#[test]
fn a_second_invite_or_update_of_the_same_leg_may_come_later() {
    let mut waits = std::collections::BTreeSet::new();
    for first in ["INVITE", "UPDATE"] {
        let mut up = Up::new();
        let own = up.a.contact();
        let body = if first == "INVITE" { sdp(OFFER_IP, 4002, "") } else { String::new() };
        up.world.send(PBX, up.a.request(first, &own, &body));
        up.world.expect(CARRIER, first);
        up.world.take_all(PBX);
        for _ in 0..20 {
            up.world.send(PBX, up.a.request(first, &own, &sdp(OFFER_IP, 4004, "")));
            let later = up.world.expect(PBX, "SIP/2.0 500 ");
            assert!(retry_after(&later) <= 10);
            waits.insert(retry_after(&later));
        }
        up.world.expect_nothing(CARRIER);
    }
    assert!(waits.len() > 4, "drawn, not fixed: {waits:?}");
}

#[test]
fn while_we_refresh_by_reinvite_both_legs_get_491() {
    let (mut up, reinvite) = refreshing(false);
    let own = up.a.contact();
    for method in ["INVITE", "UPDATE"] {
        up.world.send(CARRIER, up.b.request(method, &up.b.contact(), &sdp(ANSWER_IP, 5002, "")));
        up.world.expect(CARRIER, "SIP/2.0 491 ");
        up.world.send(PBX, up.a.request(method, &own, &sdp(OFFER_IP, 4002, "")));
        up.world.expect(PBX, "SIP/2.0 491 ");
    }
    let extra = format!("{}{REFRESHED_BY_US}", up.b.contact());
    up.world.send(CARRIER, reinvite.answer("200 OK", "", &extra, &sdp(ANSWER_IP, 5000, "")));
    up.world.expect(CARRIER, "ACK ");
    up.world.send(PBX, up.a.request("UPDATE", &own, &sdp(OFFER_IP, 4002, "")));
    up.world.expect(CARRIER, "UPDATE ");
}

#[test]
fn our_refresh_waits_while_somebody_elses_invite_is_under_way() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    let contact = "Contact: <sip:line@10.2.0.20:5060>\r\n";
    let extra = format!("{contact}{REFRESHED_BY_US}");
    world.send(CARRIER, invite.answer("200 OK", "t", &extra, &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 OK");
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(CARRIER, "ACK ");
    world.advance(295_000);
    let own = a.contact();
    world.send(PBX, a.request("INVITE", &own, &sdp(OFFER_IP, 4002, "")));
    let passed = world.expect(CARRIER, "INVITE ");
    world.send(CARRIER, passed.answer("100 Trying", "", "", ""));
    world.advance(10_000);
    world.expect_nothing(CARRIER);
    // Accepted, it is a refresh itself (RFC 4028 §3).
    world.send(CARRIER, passed.answer("200 OK", "", &extra, &sdp(ANSWER_IP, 5000, "")));
    world.take_all(PBX);
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(CARRIER, "ACK ");
    world.advance(299_999);
    world.expect_nothing(CARRIER);
    world.advance(1);
    world.expect(CARRIER, "INVITE ");
}

#[test]
fn after_a_491_we_come_again_when_it_is_our_turn() {
    // Towards the callee the Call-ID is ours: 2.1 to 4 s. Towards the caller it is theirs: 0 to 2 s.
    for (caller, at, least_ms, most_ms) in [(false, CARRIER, 2_100, 4_000), (true, PBX, 0, 2_000)] {
        let mut waits = std::collections::BTreeSet::new();
        let (mut up, mut reinvite) = refreshing(caller);
        for _ in 0..12 {
            up.world.send(at, reinvite.answer("491 Request Pending", "", "", ""));
            up.world.expect(at, "ACK ");
            let mut waited_ms = 0;
            up.world.advance(0);
            while !up.world.next_is_invite(at) {
                up.world.advance(10);
                waited_ms += 10;
                assert!(waited_ms <= most_ms, "{waited_ms} ms");
            }
            assert!(waited_ms >= least_ms, "{waited_ms} ms");
            waits.insert(waited_ms);
            reinvite = up.world.expect(at, "INVITE ");
            assert_eq!(reinvite.body(), if caller { up.ok.body() } else { up.invite.body() });
        }
        assert!(waits.len() > 6, "{waits:?}");
        assert_eq!(up.world.core.calls(), 1);
    }
}
