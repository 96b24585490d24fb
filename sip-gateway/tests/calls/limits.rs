//! What is refused when there is too much of it, and what never is (RFC 3261 §8.2.7, §20.33, §21.5.1, §21.5.4).

use consent::CallId;
use sip_gateway::{Command, Event, Excess};

use crate::requests::options;
use crate::world::*;

/// A caller whose INVITE resembles no other number's.
fn numbered(number: u32, user: &str) -> Ua {
    let mut a = Ua::caller(PBX, user);
    a.call_id = format!("flood-{number}");
    a.branch = 1_000_000 + number;
    a
}

fn offered(world: &World) -> Option<CallId> {
    world.events.iter().find_map(|event| match event {
        Event::Offered(offer) => Some(offer.call),
        _ => None,
    })
}

/// Well-formed INVITEs, each refused by the hub and never acknowledged. Returns how many were offered.
fn flood_of_refused_calls(world: &mut World, count: u32) -> usize {
    world.hub = Hub::Waits;
    let mut calls = 0;
    for number in 0..count {
        world.send(PBX, numbered(number, "100").invite("", ""));
        if let Some(call) = offered(world) {
            calls += 1;
            world.command(Command::Refuse { call, status: 404, text: "no such line", retry_after_s: None });
        }
        world.events.clear();
    }
    world.hub = Hub::Proceeds;
    calls
}

/// INVITEs that go on and find the callee busy, which the caller never acknowledges: each keeps its place
/// for 32 s. Returns how many went on.
fn flood_of_busy_calls(world: &mut World, count: u32, user: &str) -> usize {
    let mut calls = 0;
    for number in 0..count {
        world.send(PBX, numbered(number, user).invite("", ""));
        if let Some(invite) = world.next(CARRIER) {
            calls += 1;
            world.send(CARRIER, invite.answer("486 Busy Here", "t", "", ""));
            world.expect(CARRIER, "ACK ");
        }
        world.events.clear();
    }
    world.take_all(PBX);
    calls
}

/// A call that is up: its two ends.
fn talk(world: &mut World, number: u32, user: &str) -> (Ua, Ua) {
    let mut a = numbered(1_000 * number, user);
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    let invite = world.expect(CARRIER, "INVITE ");
    let mut b = Ua::callee(CARRIER, &invite, "callees-tag");
    b.branch = 1_000_000 * (number + 1);
    world.send(CARRIER, invite.answer("200 OK", "callees-tag", &b.contact(), &sdp(ANSWER_IP, 5000, "")));
    a.learn(&world.take_all(PBX).pop().unwrap());
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(CARRIER, "ACK ");
    (a, b)
}

/// The answers to OPTIONS with ever new CSeq inside one dialog.
fn flood_inside(world: &mut World, from: &mut Ua, count: usize) -> Vec<u16> {
    let at = from.at.clone();
    let answered = |_| {
        world.send(&at, from.request("OPTIONS", "", ""));
        world.expect(&at, "SIP/2.0 ").response().status
    };
    (0..count).map(answered).collect()
}

/// A limit of no calls: 64 are offered all the same, and the rooms are the smallest there are.
fn small() -> World {
    let mut config = config();
    config.limits.max_calls = 0;
    World::with(config)
}

#[track_caller]
fn assert_a_new_call_gets_through(world: &mut World) {
    world.take_all(PBX);
    world.take_all(CARRIER);
    world.send(PBX, numbered(900_000, "100").invite("", ""));
    world.expect(PBX, "SIP/2.0 100 ");
    world.expect(CARRIER, "INVITE sip:100@");
}

#[test]
fn the_hub_is_told_of_the_limit_and_the_core_sheds_beyond_twice_of_it() {
    let mut config = config();
    config.limits.max_calls = 2;
    let mut world = World::with(config);
    world.hub = Hub::Waits;
    let mut invite = |number: usize, user: &str| {
        let mut a = Ua::caller(PBX, user);
        a.call_id = format!("flood-{number}");
        a.branch = u32::try_from(number).unwrap();
        world.send(PBX, a.invite("", ""));
        let answer = world.next(PBX).unwrap().response().status;
        (answer, world.events.pop_back())
    };
    for number in 0..68 {
        let (answer, event) = invite(number, "100");
        let Some(Event::Offered(offer)) = event else { panic!("not offered") };
        assert_eq!((answer, offer.excess), (100, (number >= 2).then_some(Excess::Capacity)));
    }
    assert_eq!(invite(68, "100"), (503, None));
    for (number, user) in [(69, "911"), (70, DISPATCH)] {
        let (answer, event) = invite(number, user);
        let Some(Event::Offered(offer)) = event else { panic!("not offered") };
        assert_eq!((answer, offer.request_user.as_str()), (100, user));
    }
    assert_eq!(world.core.counters().shed_calls, 1);
}

#[test]
fn a_call_from_a_dispatch_line_is_known_by_what_its_pbx_asserts_and_by_nobody_elses_word() {
    let mut config = config();
    config.limits.max_calls = 0;
    let mut world = World::with(config);
    world.hub = Hub::Waits;
    for number in 0..64 {
        world.send(PBX, numbered(number, "100").invite("", ""));
    }
    let asserted = format!("P-Asserted-Identity: <sip:{DISPATCH}@10.0.0.1>\r\n");
    for (from, status) in [(PBX, 100), (CARRIER, 503)] {
        world.take_all(PBX);
        let mut a = Ua::caller(from, "100");
        a.call_id = format!("asserted-{status}");
        a.branch = 5_000;
        world.send(from, a.invite(&asserted, ""));
        assert_eq!(world.next(from).unwrap().response().status, status, "{from}");
    }
}

#[test]
fn draining_refuses_all_but_emergency_calls() {
    let mut up = Up::new();
    up.world.command(Command::Drain);
    let mut other = Ua::caller(PBX, "200");
    other.call_id = "other".to_owned();
    other.branch = 700;
    up.world.send(PBX, other.invite("", ""));
    assert!(up.world.expect(PBX, "SIP/2.0 503 ").headers().contains("Retry-After"));
    up.world.send(PBX, numbered(1, DISPATCH).invite("", ""));
    up.world.expect(PBX, "SIP/2.0 503 ");
    let mut emergency = Ua::caller(PBX, "911");
    emergency.call_id = "emergency".to_owned();
    emergency.branch = 800;
    up.world.send(PBX, emergency.invite("", ""));
    up.world.expect(PBX, "SIP/2.0 100 ");
    up.world.expect(CARRIER, "INVITE sip:911@");
    assert_eq!(up.world.core.calls(), 2);
}

#[test]
fn a_full_room_for_new_calls_sheds_them_and_lives_on() {
    let mut world = small();
    assert_eq!(flood_of_busy_calls(&mut world, 5_000, "100"), 4_096);
    assert_eq!(world.core.counters().shed_transactions, 904);
    world.send(PBX, options("sip:10.0.0.1", ""));
    world.expect(PBX, "SIP/2.0 200 ");
    world.advance(33_000);
    assert_a_new_call_gets_through(&mut world);
}

#[test]
fn a_flood_of_ordinary_calls_costs_no_dispatch_or_emergency_call() {
    let mut world = small();
    flood_of_busy_calls(&mut world, 5_000, "100");
    assert!(world.core.counters().shed_transactions > 0);
    for (number, user) in [(6_000, DISPATCH), (6_001, "911")] {
        world.send(PBX, numbered(number, user).invite("", ""));
        world.expect(PBX, "SIP/2.0 100 ");
        world.expect(CARRIER, &format!("INVITE sip:{user}@"));
    }
}

#[test]
fn a_flood_of_dispatch_calls_has_a_bound_and_costs_no_other_call() {
    let mut world = small();
    assert_eq!(flood_of_busy_calls(&mut world, 8_500, DISPATCH), 2 * 4_096);
    assert_eq!(world.core.counters().shed_transactions, 308);
    world.send(PBX, numbered(9_000, "911").invite("", ""));
    world.expect(PBX, "SIP/2.0 100 ");
    world.expect(CARRIER, "INVITE sip:911@");
    assert_a_new_call_gets_through(&mut world);
}

#[test]
fn ten_thousand_refused_invites_leave_room_for_a_good_one() {
    let mut world = World::new();
    assert_eq!(flood_of_refused_calls(&mut world, 10_000), 10_000);
    let answers = world.take_all(PBX);
    let refused: Vec<&Msg> = answers.iter().filter(|answer| answer.response().status == 404).collect();
    assert_eq!(refused.len(), 10_000);
    // A quarter of 16 for each of 100 calls and 4096 beside: until their ACK. Of the calls nothing is left.
    let room = (100 * 16 + 4_096) / 4;
    let counters = world.core.counters();
    assert_eq!((counters.transactions, counters.calls_lingering, counters.shed_transactions), (room, 0, 0));

    world.advance(500);
    assert_eq!(world.take_all(PBX).len(), room, "only what has a transaction is repeated");
    for (number, strays) in [(0, 0), (9_999, 1)] {
        let mut a = numbered(number, "100");
        a.invite("", "");
        world.send(PBX, a.ack_failure(refused[usize::try_from(number).unwrap()]));
        assert_eq!(world.core.counters().dropped_stray_ack, strays);
    }
    assert_a_new_call_gets_through(&mut world);
    world.assert_clean();
}

#[test]
fn over_the_limit_a_call_that_could_not_be_refused_properly_is_not_offered() {
    let mut world = small();
    assert_eq!(flood_of_refused_calls(&mut world, 2_000), 1_024);
    let counters = world.core.counters();
    assert_eq!((counters.transactions, counters.shed_calls, counters.shed_transactions), (1_024, 976, 0));
    let statuses: Vec<u16> = world.take_all(PBX).iter().map(|answer| answer.response().status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 503).count(), 976);
    world.hub = Hub::Waits;
    world.send(PBX, numbered(3_000, DISPATCH).invite("", ""));
    assert!(offered(&world).is_some());
}

#[test]
fn a_cancel_that_crosses_the_hubs_refusal_is_answered_under_its_tag() {
    let mut world = World::waiting();
    let mut a = numbered(1, "100");
    world.send(PBX, a.invite("", ""));
    world.expect(PBX, "SIP/2.0 100 ");
    let call = world.call();
    world.command(Command::Refuse { call, status: 404, text: "no such line", retry_after_s: None });
    let refused = world.expect(PBX, "SIP/2.0 404 ");
    let cancel = a.request("CANCEL", "", "");
    for _ in 0..2 {
        world.send(PBX, &cancel);
        assert_eq!(world.expect(PBX, "SIP/2.0 200 ").tag("To"), refused.tag("To"));
    }
    world.expect_nothing(PBX);
    assert_eq!(world.ended().len(), 1);
    world.assert_clean();
}

#[test]
fn requests_outside_calls_take_no_transaction_and_are_answered_the_same_again() {
    let mut up = Up::new();
    let before = up.world.core.counters().transactions;
    for number in 0..40_000u32 {
        let text = options("sip:10.0.0.1", "").replace("z9hG4bKo", &format!("z9hG4bK{number}x"));
        up.world.send(PBX, text);
        up.world.advance(u64::from(number % 2));
    }
    assert_eq!(up.world.take_all(PBX).len(), 40_000);
    let mut stranger_to_calls = numbered(0, "100");
    for method in ["OPTIONS", "REGISTER", "BYE", "CANCEL", "NOTIFY", "FROBNICATE"] {
        for edit in ["", "Require: martian\r\n", "CSeq: 5 ODD\r\n"] {
            let text = stranger_to_calls.request(method, edit, "");
            up.world.send(PBX, &text);
            up.world.advance(700);
            up.world.send(PBX, &text);
            let (first, again) = (up.world.expect(PBX, "SIP/2.0 "), up.world.expect(PBX, "SIP/2.0 "));
            assert_eq!(first.bytes, again.bytes);
            assert!(first.tag("To").is_some());
        }
    }
    let counters = up.world.core.counters();
    assert!(counters.transactions <= before);
    assert_eq!(counters.shed_transactions, 0);
    assert_a_new_call_gets_through(&mut up.world);
}

#[test]
fn a_flood_of_bad_invites_leaves_room_for_good_ones() {
    let mut world = World::new();
    let bad = |number: u32| {
        let mut a = numbered(number, "100");
        match number % 7 {
            0 => a.invite("", "").replacen("sip:100@10.0.0.1", "mailto:x@y", 1),
            1 => a.invite("", "").replace("Max-Forwards: 70", "Max-Forwards: 0"),
            2 => a.invite("Require: martian\r\n", ""),
            3 => {
                a.invite("Content-Type: application/sdp\r\n", &sdp(OFFER_IP, 4000, "").replace("v=0", "v=9"))
            }
            4 => a.invite("", "").replace("<sip:100@10.0.0.1>", "<sip:100@10.0.0.1>;tag=nobodys"),
            5 => a.invite("", "").replace("CSeq: 101 INVITE", "CSeq: 101 BYE"),
            _ => a.request("invite", "", ""),
        }
    };
    for number in 0..20_000 {
        world.send(PBX, bad(number));
    }
    let answers = world.take_all(PBX);
    assert_eq!(answers.len(), 20_000);
    for (answer, status) in answers.iter().zip([416, 483, 420, 488, 481, 400, 405]) {
        assert_eq!(answer.response().status, status);
    }
    // A quarter of 16 for each of 100 calls and 4096 beside.
    let room = (100 * 16 + 4_096) / 4;
    assert_eq!(world.core.counters().transactions, room);

    // With a transaction or without: a repetition gets the same answer, and the ACK none.
    for (number, answer) in
        (0..20_000).zip(&answers).filter(|(number, _)| [0, 4, 19_999, 19_997].contains(number))
    {
        world.send(PBX, bad(number));
        assert_eq!(world.expect(PBX, "SIP/2.0 4").bytes, answer.bytes);
    }
    let strays = world.core.counters().dropped_stray_ack;
    for (number, stray) in [(1, 0), (19_993, 1)] {
        let mut a = numbered(number, "100");
        a.invite("", "");
        world.send(PBX, a.ack_failure(&answers[usize::try_from(number).unwrap()]));
        world.expect_nothing(PBX);
        assert_eq!(world.core.counters().dropped_stray_ack, strays + stray);
    }
    assert_a_new_call_gets_through(&mut world);
    assert_eq!(world.core.counters().shed_transactions, 0);
}

#[test]
fn a_flood_inside_one_call_leaves_room_for_other_calls_and_for_its_own_end() {
    let mut up = Up::of(small());
    let (mut other, _) = talk(&mut up.world, 1, "200");
    let statuses = flood_inside(&mut up.world, &mut up.a, 9_000);
    assert!(statuses.iter().enumerate().all(|(n, status)| *status == if n < 64 { 200 } else { 500 }));
    up.world.send(PBX, up.a.request("INFO", "", ""));
    assert!(up.world.expect(PBX, "SIP/2.0 500 ").headers().contains("Retry-After"));
    up.world.expect_nothing(CARRIER);

    up.world.send(CARRIER, up.b.request("INFO", "", ""));
    let info = up.world.expect(PBX, "INFO ");
    up.world.send(PBX, info.answer("200 OK", "", "", ""));
    up.world.expect(CARRIER, "SIP/2.0 200 ");
    up.world.send(PBX, other.request("INFO", "", ""));
    up.world.expect(CARRIER, "INFO ");
    assert_a_new_call_gets_through(&mut up.world);

    up.world.send(PBX, up.a.request("BYE", "", ""));
    up.world.expect(PBX, "SIP/2.0 200 ");
    up.world.expect(CARRIER, "BYE ");
    assert_eq!(up.world.ended().len(), 1);
}

#[test]
fn a_leg_that_sent_too_much_is_heard_again_when_its_transactions_have_run_out() {
    let mut up = Up::new();
    let statuses = flood_inside(&mut up.world, &mut up.a, 65);
    assert_eq!(statuses[63..], [200, 500]);
    up.world.advance(32_000);
    assert_eq!(flood_inside(&mut up.world, &mut up.a, 1), [200]);
    up.hang_up();
}

#[test]
fn a_full_room_for_requests_of_ordinary_calls_takes_byes_and_costs_no_dispatch_call() {
    let mut world = small();
    // As many calls as there may be. Each leg sends as much as it may, the last one less.
    let mut calls: Vec<(Ua, Ua)> = (0..64).map(|number| talk(&mut world, number, "100")).collect();
    let (mut dispatcher, _) = talk(&mut world, 64, DISPATCH);
    let legs = calls.iter_mut().flat_map(|(a, b)| [a, b]);
    for (number, leg) in (1..).zip(legs) {
        let count = if number == 128 { 63 } else { 64 };
        assert_eq!(flood_inside(&mut world, leg, count), vec![200; count]);
    }
    let (mut first, _) = calls.remove(0);
    world.send(PBX, first.request("BYE", "", ""));
    world.expect(PBX, "SIP/2.0 200 ");
    world.expect(CARRIER, "BYE ");
    let (_, mut last) = calls.remove(62);
    // The BYE has taken no other request's place.
    assert_eq!(flood_inside(&mut world, &mut last, 2), [200, 500]);
    assert_eq!(flood_inside(&mut world, &mut dispatcher, 64), [200; 64]);
    world.send(CARRIER, last.request("BYE", "", ""));
    world.expect(CARRIER, "SIP/2.0 200 ");
    world.expect(PBX, "BYE ");
}

#[test]
fn full_rooms_still_serve_the_calls_that_exist() {
    let mut up = Up::of(small());
    flood_of_busy_calls(&mut up.world, 5_000, "100");
    assert!(up.world.core.counters().shed_transactions > 0);
    up.world.send(PBX, up.a.request("BYE", "", ""));
    up.world.expect(PBX, "SIP/2.0 200 ");
    up.world.expect(CARRIER, "BYE ");
}
