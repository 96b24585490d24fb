//! What a peer may not do: too many calls, too many requests, calls where it may not call, calls that go round.
//! Emergency and dispatch calls may.

use std::num::NonZeroU32;

use consent::Numbering;
use sip_gateway::{Allowance, Config, Destinations, Event, Excess, Offer, Redirects, Refusal};

use crate::requests::options;
use crate::transfer::Talk;
use crate::world::*;

/// What the PBX may do, all else as usual.
fn allowing(allowance: Allowance) -> World {
    let mut config = config();
    config.peers[0].allowance = allowance;
    World::with(config)
}

fn a_minute(calls: u32) -> Allowance {
    Allowance { calls_per_minute: NonZeroU32::new(calls), ..Allowance::default() }
}

/// Nothing abroad but Britain.
fn no_calls_abroad() -> Allowance {
    let patterns = |text: &str| vec![text.parse().unwrap()];
    let numbering = Numbering::new("1", "860", "9").unwrap();
    let refused = Destinations::new(numbering, patterns("international"), patterns("+44"));
    Allowance { refused: Some(refused), ..Allowance::default() }
}

fn numbered(at: &str, number: u32, user: &str) -> Ua {
    let mut a = Ua::caller(at, user);
    a.call_id = format!("defence-{number}");
    a.branch = 1_000 * number;
    a
}

/// Sends an INVITE; the hub, if it hears of it, does as Excess says.
#[track_caller]
fn call(world: &mut World, at: &str, number: u32, user: &str) -> (Ua, Result<Msg, (Msg, bool)>) {
    let mut a = numbered(at, number, user);
    world.hub = Hub::Waits;
    world.send(at, a.invite("", &sdp(OFFER_IP, 4000, "")));
    world.hub = Hub::Proceeds;
    let offered = world.events.iter().find_map(|event| match event {
        Event::Offered(offer) => Some((**offer).clone()),
        _ => None,
    });
    let heard = offered.is_some();
    if let Some(Offer { call, excess, side, .. }) = offered {
        world.expect(at, "SIP/2.0 100 ");
        match excess {
            Some(excess) => world.command(excess.refuse(call)),
            None => world.proceed(call, if side == consent::Side::District { PUBLIC } else { DISTRICT }),
        }
    }
    world.events.retain(|event| !matches!(event, Event::Offered(_)));
    let there = if at == PBX { CARRIER } else { PBX };
    let outcome = match world.next(there) {
        Some(invite) => Ok(invite),
        None => Err((world.next(at).unwrap(), heard)),
    };
    (a, outcome)
}

const PUBLIC: consent::Side = consent::Side::Public;
const DISTRICT: consent::Side = consent::Side::District;

#[track_caller]
fn assert_goes_on(world: &mut World, at: &str, number: u32, user: &str) -> (Ua, Msg) {
    let (a, outcome) = call(world, at, number, user);
    (a, outcome.unwrap_or_else(|(answer, _)| panic!("{}", answer.text())))
}

/// An ordinary call is refused with this status, and with a record.
#[track_caller]
fn assert_refused(world: &mut World, at: &str, number: u32, user: &str, status: u16) -> Msg {
    let (mut a, outcome) = call(world, at, number, user);
    let (answer, heard) = outcome.expect_err("it went on");
    assert!(heard, "it has a record");
    assert_eq!(answer.response().status, status);
    world.send(at, a.ack_failure(&answer));
    assert_eq!(world.ended().pop().unwrap().final_status, Some(status));
    answer
}

/// The callee is busy, so that the call ends.
#[track_caller]
fn end(world: &mut World, at: &str, mut a: Ua, invite: &Msg) {
    let there = if at == PBX { CARRIER } else { PBX };
    world.send(there, invite.answer("486 Busy Here", "t", "", ""));
    world.expect(there, "ACK ");
    let answer = world.expect(at, "SIP/2.0 486 ");
    world.send(at, a.ack_failure(&answer));
}

fn refused(world: &World, peer: usize, why: Refusal) -> u64 {
    let found = world.core.refusals().find(|(id, reason, _)| (id.0, *reason) == (peer, why));
    found.unwrap().2
}

#[test]
fn a_peer_has_so_many_calls_at_once_and_no_other_peer_pays_for_it() {
    let mut world = allowing(Allowance { max_calls: Some(2), ..Allowance::default() });
    let (a, first) = assert_goes_on(&mut world, PBX, 1, "200");
    assert_goes_on(&mut world, PBX, 2, "200");
    let answer = assert_refused(&mut world, PBX, 3, "200", 503);
    assert_eq!(answer.get("Retry-After"), "10");
    assert!(answer.get("Warning").contains("All lines of this peer are in use"));
    end(&mut world, PBX, a, &first);
    assert_goes_on(&mut world, PBX, 4, "200");
    assert_refused(&mut world, PBX, 5, "200", 503);
    assert_goes_on(&mut world, PBX, 6, DISPATCH);
    assert_goes_on(&mut world, PBX, 7, "911");
    assert_goes_on(&mut world, CARRIER, 8, "7310");
    assert_eq!(refused(&world, 0, Refusal::Calls), 2);
    assert_eq!(refused(&world, 1, Refusal::Calls), 0);
}

#[test]
fn a_peer_has_so_many_calls_a_minute_and_is_told_when_the_next_one_may_come() {
    let mut world = allowing(a_minute(2));
    for number in 1..=2 {
        let (a, invite) = assert_goes_on(&mut world, PBX, number, "200");
        end(&mut world, PBX, a, &invite);
    }
    assert_eq!(assert_refused(&mut world, PBX, 3, "200", 503).get("Retry-After"), "30");
    assert_goes_on(&mut world, PBX, 4, DISPATCH);
    assert_goes_on(&mut world, PBX, 5, "911");
    assert_goes_on(&mut world, CARRIER, 6, "7310");
    world.take_all(CARRIER);
    world.take_all(PBX);
    assert_eq!(refused(&world, 0, Refusal::Rate), 1);
}

#[test]
fn what_is_refused_and_what_needs_no_leave_take_nothing_of_the_next_minute() {
    let mut world = allowing(a_minute(2));
    for number in 1..=2 {
        let (a, invite) = assert_goes_on(&mut world, PBX, number, "200");
        end(&mut world, PBX, a, &invite);
    }
    assert_refused(&mut world, PBX, 3, "200", 503);
    for number in 4..=20 {
        let (a, invite) = assert_goes_on(&mut world, PBX, number, DISPATCH);
        end(&mut world, PBX, a, &invite);
    }
    world.advance(30_000);
    assert_goes_on(&mut world, PBX, 21, "200");
}

#[test]
fn a_transfer_is_a_call_of_its_peers_minute() {
    let mut talk = Talk::of(allowing(a_minute(1)));
    talk.referred("<sip:200@10.9.9.9>");
    let invite = talk.world.expect(CARRIER, "INVITE sip:200@");
    talk.world.send(CARRIER, invite.answer("486 Busy Here", "t", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    talk.notified("SIP/2.0 486 Busy Here", "terminated");
    talk.referred("<sip:200@10.9.9.9>");
    talk.notified("SIP/2.0 503 Service Unavailable", "terminated");
    talk.world.expect_nothing(CARRIER);
    assert_eq!(refused(&talk.world, 0, Refusal::Rate), 1);
    talk.referred("<sip:911@10.9.9.9>");
    talk.world.expect(CARRIER, "INVITE sip:911@");
}

#[test]
fn a_transfer_within_the_district_is_no_call_of_a_minute() {
    let mut talk = Talk::of(allowing(a_minute(1)));
    for _ in 0..2 {
        talk.referred("<sip:7312@10.1.0.10>");
        let invite = talk.world.expect(PBX, "INVITE sip:7312@");
        talk.world.send(PBX, invite.answer("486 Busy Here", "t", "", ""));
        talk.world.expect(PBX, "ACK ");
        talk.notified("SIP/2.0 486 Busy Here", "terminated");
    }
    assert_eq!(refused(&talk.world, 0, Refusal::Rate), 0);
}

#[test]
fn what_a_peer_may_not_dial_is_refused_with_a_reason_and_a_record() {
    let mut world = allowing(no_calls_abroad());
    for (number, user) in [(1, "+33123456789"), (2, "901133123456789"), (3, "18765550123")] {
        let answer = assert_refused(&mut world, PBX, number, user, 403);
        assert!(answer.get("Warning").contains("Calls to this destination are not allowed"));
        world.expect_nothing(CARRIER);
    }
    assert_goes_on(&mut world, PBX, 4, "+442071838750");
    assert_goes_on(&mut world, PBX, 5, "8605550100");
    assert_goes_on(&mut world, PBX, 6, "911");
    assert_goes_on(&mut world, CARRIER, 7, "+33123456789");
    assert_eq!(refused(&world, 0, Refusal::Destination), 3);
}

/// RFC 3966 §5.1.5: a number is local to its context, and goes on with it.
#[test]
fn a_number_is_judged_with_its_parameters() {
    let mut world = allowing(no_calls_abroad());
    for (number, uri) in [
        "sip:8605550123;phone-context=+33@10.0.0.1",
        "sip:8605550123;ext=5;Phone-Context=%2B33@10.0.0.1;user=phone",
        "tel:8605550123;phone-context=+33",
    ]
    .into_iter()
    .enumerate()
    {
        let mut a = numbered(PBX, 1 + u32::try_from(number).unwrap(), "200");
        world.send(PBX, a.invite("", "").replace("INVITE sip:200@10.0.0.1", &format!("INVITE {uri}")));
        world.expect(PBX, "SIP/2.0 100 ");
        world.expect(PBX, "SIP/2.0 403 ");
        world.expect_nothing(CARRIER);
    }
    world.events.clear();
    let (_, invite) = assert_goes_on(&mut world, PBX, 11, "8605550123;phone-context=+44");
    assert!(invite.text().starts_with("INVITE sip:8605550123;phone-context=+44@"), "{}", invite.text());
    assert_goes_on(&mut world, PBX, 12, "8605550123;phone-context=+1");
    assert_goes_on(&mut world, PBX, 13, "8605550123;phone-context=pbx.example.com");
    assert_goes_on(&mut world, PBX, 14, "911;phone-context=+33");
    assert_eq!(refused(&world, 0, Refusal::Destination), 3);

    let mut talk = Talk::of(allowing(no_calls_abroad()));
    talk.referred("<tel:8605550123;phone-context=+33>");
    talk.notified("SIP/2.0 403 Forbidden", "terminated");
    talk.world.expect_nothing(CARRIER);

    let mut world = allowing(no_calls_abroad());
    let (_, invite) = assert_goes_on(&mut world, CARRIER, 1, "7310");
    let contact = "Contact: <sip:8605550123;phone-context=+33@10.2.0.20>\r\n";
    world.send(PBX, invite.answer("302 Moved Temporarily", "t", contact, ""));
    world.expect(PBX, "ACK ");
    world.expect(CARRIER, "SIP/2.0 403 ");
}

/// RFC 4694 §5.1, and numbers that cannot be read.
#[test]
fn what_only_the_carrier_knows_the_way_of_is_refused() {
    let mut world = allowing(no_calls_abroad());
    let users = [
        "8605550123;npdi;rn=+338605550123@10.0.0.1",
        "8605550123;cic=+10288@10.0.0.1",
        "8605550123@10.0.0.1;user=phone;rn=+338605550123",
        "8605550123@10.0.0.1;phone-context=+33",
        "8765550123@10.0.0.1;phone-context=+44",
        "8750;phone-context=+101144207183@10.0.0.1",
        "8605550123;phone-context=+44x@10.0.0.1",
        "011331234567,89@10.0.0.1",
        "%2B1%20876~5550123@10.0.0.1",
        "0%3B11331234567@10.0.0.1",
        "+101133123456@10.0.0.1",
    ];
    for (number, user) in users.iter().enumerate() {
        let mut a = numbered(PBX, 1 + u32::try_from(number).unwrap(), "200");
        world.send(PBX, a.invite("", "").replace("INVITE sip:200@10.0.0.1", &format!("INVITE sip:{user}")));
        world.expect(PBX, "SIP/2.0 100 ");
        world.expect(PBX, "SIP/2.0 403 ");
        world.expect_nothing(CARRIER);
    }
    assert_eq!(refused(&world, 0, Refusal::Destination), users.len() as u64);
    world.events.clear();
    assert_goes_on(&mut world, PBX, 20, "911;rn=+338605550123");
    assert_goes_on(&mut world, CARRIER, 21, "8605550123;rn=+338605550123");
}

/// Invariant I4: what withholds numbers must hear the whole number.
#[test]
fn the_hub_hears_every_number_with_its_context() {
    let mut world = World::waiting();
    let mut a = numbered(PBX, 1, "2345678;phone-context=+1203");
    a.local = "<sip:2345679;phone-context=+1203@10.1.0.10>;tag=x".to_owned();
    let fields = "P-Asserted-Identity: <tel:2345680;phone-context=+1203>\r\nDiversion: <tel:2345681;phone-context=+1203>\r\n";
    world.send(PBX, a.invite(fields, ""));
    let Event::Offered(offer) = world.event(|event| matches!(event, Event::Offered(_))) else {
        unreachable!()
    };
    let heard = [&offer.request_user, &offer.to_user, &offer.caller.from, &offer.diverted_from[0]];
    assert_eq!(
        heard.map(String::as_str),
        [
            "2345678;phone-context=+1203",
            "2345678;phone-context=+1203",
            "2345679;phone-context=+1203",
            "2345681;phone-context=+1203",
        ]
    );
    assert_eq!(offer.caller.asserted, ["2345680;phone-context=+1203"]);

    let mut talk = Talk::of(World::new());
    talk.referred("<tel:2345678;phone-context=+1203>");
    let Event::Diverted { target, .. } = talk.world.event(|event| matches!(event, Event::Diverted { .. }))
    else {
        unreachable!()
    };
    assert_eq!(target.user, "2345678;phone-context=+1203");
}

/// RFC 3261 §16.3.
#[test]
fn parameters_of_a_number_do_not_hide_a_loop() {
    let mut world = World::new();
    let (_, out) = assert_goes_on(&mut world, PBX, 1, "8605550100");
    world.send(PBX, sent_on(&out, PBX, "8605550100;verstat=No-TN-Validation"));
    world.expect(PBX, "SIP/2.0 482 ");
    for number in 0..31 {
        assert_goes_on(&mut world, PBX, 10 + number, &format!("8605550100;x={number}"));
    }
    assert_refused(&mut world, PBX, 50, "8605550100;x=y", 482);
}

#[test]
fn a_dispatch_line_may_dial_whom_it_wants() {
    let mut world = allowing(no_calls_abroad());
    let mut a = numbered(PBX, 1, "+33123456789");
    world.send(PBX, a.invite(&format!("P-Asserted-Identity: <sip:{DISPATCH}@10.1.0.10>\r\n"), ""));
    world.expect(PBX, "SIP/2.0 100 ");
    world.expect(CARRIER, "INVITE sip:+33123456789@");
}

#[test]
fn whom_a_peer_may_not_dial_it_reaches_by_no_transfer_either() {
    let mut talk = Talk::of(allowing(no_calls_abroad()));
    talk.referred("<sip:+33123456789@10.9.9.9>");
    talk.notified("SIP/2.0 403 Forbidden", "terminated");
    talk.world.expect_nothing(CARRIER);
    talk.referred("<sip:911@10.9.9.9>");
    talk.world.expect(CARRIER, "INVITE sip:911@");
    assert_eq!(refused(&talk.world, 0, Refusal::Destination), 1);
}

#[test]
fn whom_a_peer_may_not_dial_it_reaches_by_no_redirection_either() {
    let mut world = allowing(no_calls_abroad());
    let mut caller = Ua::caller(CARRIER, "7310");
    world.send(CARRIER, caller.invite("", ""));
    world.expect(CARRIER, "SIP/2.0 100 ");
    let invite = world.expect(PBX, "INVITE ");
    let contacts = "Contact: <sip:+33123456789@10.2.0.20>;q=0.9, <sip:7399@10.1.0.10>;q=0.5, <sip:+33999999999@10.2.0.20>\r\n";
    world.send(PBX, invite.answer("302 Moved Temporarily", "t", contacts, ""));
    world.expect(PBX, "ACK ");
    world.expect_nothing(CARRIER);
    let second = world.expect(PBX, "INVITE sip:7399@");
    world.send(PBX, second.answer("302 Moved Temporarily", "t2", "Contact: <tel:+33111111111>\r\n", ""));
    world.expect(PBX, "ACK ");
    let answer = world.expect(CARRIER, "SIP/2.0 403 ");
    world.send(CARRIER, caller.ack_failure(&answer));
    assert_eq!(world.ended().len(), 1);
    assert_eq!(refused(&world, 0, Refusal::Destination), 3);
    world.assert_clean();
}

#[test]
fn nor_does_a_carriers_redirection_lead_where_the_caller_may_not_dial() {
    let mut config = config();
    config.peers[0].allowance = no_calls_abroad();
    config.peers[1].redirects = Redirects::Follow;
    let mut world = World::with(config);
    let (mut a, invite) = assert_goes_on(&mut world, PBX, 1, "8605550100");
    let contacts = "Contact: <sip:+33123456789@10.2.0.20>\r\n";
    world.send(CARRIER, invite.answer("302 Moved Temporarily", "t", contacts, ""));
    world.expect(CARRIER, "ACK ");
    let answer = world.expect(PBX, "SIP/2.0 403 ");
    world.send(PBX, a.ack_failure(&answer));
    world.assert_clean();
}

/// An INVITE as a far proxy sends it on, to us.
fn sent_on(invite: &Msg, from: &str, user: &str) -> String {
    let text = invite.text();
    let (_, rest) = text.split_once("\r\n").unwrap();
    let branch = format!("z9hG4bK-proxy-{}", invite.get("Call-ID"));
    format!("INVITE sip:{user}@10.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch={branch}\r\n{rest}")
}

/// RFC 3261 §16.3.
#[test]
fn a_call_that_comes_back_as_it_went_is_a_loop() {
    let mut world = World::new();
    for (number, user) in [(1, "8605550100"), (2, "911")] {
        let (mut a, out) = assert_goes_on(&mut world, PBX, number, user);
        world.send(PBX, sent_on(&out, PBX, user));
        world.expect(PBX, "SIP/2.0 482 ");
        world.expect_nothing(CARRIER);
        world.send(PBX, a.request("CANCEL", "", ""));
        world.take_all(PBX);
        world.take_all(CARRIER);
    }
    assert_eq!(refused(&world, 0, Refusal::Loop), 2);
}

/// RFC 3261 §16.3.
#[test]
fn a_call_that_comes_back_for_somebody_else_spirals_and_does_so_once() {
    let mut world = World::new();
    let (_, out) = assert_goes_on(&mut world, CARRIER, 1, "7310");
    world.send(PBX, sent_on(&out, PBX, "8605550100"));
    world.expect(PBX, "SIP/2.0 100 ");
    let forwarded = world.expect(CARRIER, "INVITE sip:8605550100@");
    // The carrier's number leads back to the line that was called first.
    world.send(CARRIER, sent_on(&forwarded, CARRIER, "7310"));
    world.expect(CARRIER, "SIP/2.0 482 ");
    world.expect_nothing(PBX);

    // One number, and another desk behind it.
    for (first, second) in
        [("+18607427300;ext=310", "+18607427300;ext=399"), ("310", "310;phone-context=+1860742")]
    {
        let mut world = World::new();
        let (_, out) = assert_goes_on(&mut world, CARRIER, 1, first);
        world.send(CARRIER, sent_on(&out, CARRIER, second));
        world.expect(CARRIER, "SIP/2.0 100 ");
        let spiralled = world.expect(PBX, &format!("INVITE sip:{second}@"));
        world.send(CARRIER, sent_on(&spiralled, CARRIER, first));
        world.expect(CARRIER, "SIP/2.0 482 ");
    }
}

/// RFC 3261 §16.3.
#[test]
fn a_branch_of_ours_that_another_gateway_made_is_no_loop() {
    let mut world = World::new();
    let (_, out) = assert_goes_on(&mut world, PBX, 1, "8605550100");
    let marked = out.get("Via").split("branch=").nth(1).unwrap().split(';').next().unwrap().to_owned();
    let (own, mark) = marked.split_once('.').unwrap();
    for (number, via) in [
        format!("SIP/2.0/UDP 10.0.0.1:5060;branch={own}.{}", "a".repeat(mark.len())),
        format!("SIP/2.0/UDP 10.0.0.7:5060;branch={marked}"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut a = numbered(PBX, 10 + u32::try_from(number).unwrap(), "8605550100");
        world.send(PBX, a.invite(&format!("Via: {via}\r\n"), ""));
        world.expect(PBX, "SIP/2.0 100 ");
        world.expect(CARRIER, "INVITE ");
    }
    // What is no mark is not carried on.
    let mut a = numbered(PBX, 20, "8605550100");
    let via = format!("SIP/2.0/UDP 10.0.0.1:5060;branch={own}.{}", "a".repeat(4_000));
    world.send(PBX, a.invite(&format!("Via: {via}\r\n"), ""));
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    assert_eq!(invite.get("Via").len(), out.get("Via").len());
}

/// RFC 3261 §16.3.
#[test]
fn a_call_that_is_sent_again_keeps_its_marks() {
    let mut world = World::new();
    let (_, first) = assert_goes_on(&mut world, PBX, 1, "8605550100");
    let refusal = first.answer("422 Session Interval Too Small", "t", "Min-SE: 3600\r\n", "");
    world.send(CARRIER, refusal);
    world.expect(CARRIER, "ACK ");
    let again = world.expect(CARRIER, "INVITE ");
    assert_ne!(again.get("Via"), first.get("Via"));
    world.send(PBX, sent_on(&again, PBX, "8605550100"));
    world.expect(PBX, "SIP/2.0 482 ");
}

/// RFC 3261 §16.3.
#[test]
fn each_pass_costs_a_hop() {
    let mut world = World::new();
    for (number, user, hops, left) in [(1, "200", "5", "4"), (2, "911", "1", "0")] {
        let mut a = numbered(PBX, number, user);
        world.send(PBX, a.invite("", "").replace("Max-Forwards: 70", &format!("Max-Forwards: {hops}")));
        world.expect(PBX, "SIP/2.0 100 ");
        assert_eq!(world.expect(CARRIER, "INVITE ").get("Max-Forwards"), left);
        let mut a = numbered(PBX, 10 + number, user);
        world.send(PBX, a.invite("", "").replace("Max-Forwards: 70", "Max-Forwards: 0"));
        world.expect(PBX, "SIP/2.0 483 ");
    }
}

#[test]
fn a_loop_whose_vias_are_gone_ends_by_the_number_of_calls_alike() {
    let mut world = World::new();
    let mut calls = Vec::new();
    for number in 0..32 {
        calls.push(assert_goes_on(&mut world, PBX, number, "8605550100"));
    }
    let answer = assert_refused(&mut world, PBX, 32, "8605550100", 482);
    assert!(answer.get("Warning").contains("goes round"));
    assert_eq!(refused(&world, 0, Refusal::Loop), 1);
    assert_goes_on(&mut world, PBX, 33, "8605550101");
    for number in 34..80 {
        assert_goes_on(&mut world, PBX, number, DISPATCH);
    }
    // Whoever has answered is nobody's loop.
    let (_, invite) = calls.pop().unwrap();
    let b = Ua::callee(CARRIER, &invite, "b");
    world.send(CARRIER, invite.answer("200 OK", "b", &b.contact(), &sdp(ANSWER_IP, 5000, "")));
    world.take_all(PBX);
    assert_goes_on(&mut world, PBX, 80, "8605550100");
}

#[test]
fn callers_without_a_name_are_not_one_caller() {
    let mut world = World::new();
    for number in 0..40 {
        let mut a = numbered(CARRIER, number, "7310");
        a.local = "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=x".to_owned();
        world.send(CARRIER, a.invite("", ""));
        let Event::Offered(offer) = world.event(|event| matches!(event, Event::Offered(_))) else {
            unreachable!()
        };
        assert_eq!(offer.excess, None);
    }
}

fn ten_a_second() -> Config {
    let mut config = config();
    config.limits.requests_per_s = NonZeroU32::new(10);
    config
}

/// Takes all that the PBX's address may send in a second.
fn exhaust(world: &mut World) {
    for number in 0..10 {
        world.send(PBX, options("sip:10.0.0.1", "").replace("z9hG4bKo", &format!("z9hG4bK{number}")));
        world.expect(PBX, "SIP/2.0 200 ");
    }
}

#[test]
fn a_source_sends_so_many_requests_a_second() {
    let mut world = World::with(ten_a_second());
    exhaust(&mut world);
    let answered = |world: &mut World, text: String| {
        world.send(PBX, text);
        world.expect(PBX, "SIP/2.0 503 ").get("Retry-After").to_owned()
    };
    assert_eq!(answered(&mut world, options("sip:10.0.0.1", "")), "1");
    assert_eq!(answered(&mut world, numbered(PBX, 1, "200").invite("", "")), "1");
    assert!(world.events.is_empty(), "it has no record");
    assert_eq!(refused(&world, 0, Refusal::Flood), 2);
    world.send(PBX, numbered(PBX, 2, "200").invite("", "").replace("CSeq: 101 INVITE", "CSeq: 101 BYE"));
    world.expect_nothing(PBX);
    assert_eq!(refused(&world, 0, Refusal::Flood), 3);

    assert_goes_on(&mut world, PBX, 3, DISPATCH);
    assert_goes_on(&mut world, PBX, 4, "911");
    assert_goes_on(&mut world, CARRIER, 5, "7310");
    world.take_all(PBX);
    world.advance(100);
    assert_goes_on(&mut world, PBX, 6, "200");
    assert_eq!(answered(&mut world, options("sip:10.0.0.1", "")), "1");
}

/// Whoever takes a party's place calls nobody back, whatever its mark.
#[test]
fn a_call_back_with_replaces_is_a_request_like_any_other() {
    let mut config = config();
    config.limits.requests_per_s = NonZeroU32::new(1);
    let mut world = World::with(config);
    for (number, status) in [(1, 481), (2, 503)] {
        let marked = "Priority: psap-callback\r\nReplaces: x;to-tag=1;from-tag=2\r\n";
        world.send(CARRIER, numbered(CARRIER, number, "7310").invite(marked, ""));
        world.expect(CARRIER, &format!("SIP/2.0 {status} "));
    }
    assert_eq!(refused(&world, 1, Refusal::Flood), 1);
}

#[test]
fn whoever_has_sent_too_much_still_ends_its_calls() {
    let mut up = Up::of(World::with(ten_a_second()));
    up.world.advance(1_000);
    exhaust(&mut up.world);
    up.world.send(PBX, numbered(PBX, 9, "200").invite("", ""));
    up.world.expect(PBX, "SIP/2.0 503 ");
    up.hang_up();
}

#[test]
fn repetitions_are_no_flood() {
    let mut world = World::with(ten_a_second());
    let mut a = numbered(PBX, 1, "200");
    let invite = a.invite("", "");
    for _ in 0..30 {
        world.send(PBX, &invite);
        world.expect(PBX, "SIP/2.0 100 ");
    }
    assert_eq!(refused(&world, 0, Refusal::Flood), 0);
}

#[test]
fn when_more_waits_than_can_be_done_ordinary_calls_wait_longer() {
    let mut world = World::new();
    world.core.set_overloaded(true);
    let (_, outcome) = call(&mut world, PBX, 1, "200");
    let (answer, heard) = outcome.unwrap_err();
    assert_eq!((answer.response().status, answer.get("Retry-After"), heard), (503, "5", false));
    assert_eq!(refused(&world, 0, Refusal::Capacity), 1);
    assert_goes_on(&mut world, PBX, 2, DISPATCH);
    assert_goes_on(&mut world, PBX, 3, "911");
    world.core.set_overloaded(false);
    assert_goes_on(&mut world, PBX, 4, "200");
}

#[test]
fn the_gateways_own_limit_is_told_before_a_peers() {
    let mut config = config();
    config.limits.max_calls = 0;
    config.peers[0].allowance.max_calls = Some(1);
    let mut world = World::with(config);
    world.hub = Hub::Waits;
    world.send(PBX, numbered(PBX, 1, "200").invite("", ""));
    let Event::Offered(offer) = world.event(|event| matches!(event, Event::Offered(_))) else {
        unreachable!()
    };
    assert_eq!(offer.excess, Some(Excess::Capacity));
    assert_eq!(refused(&world, 0, Refusal::Capacity), 1);
}

/// What each limit of this file is, and what brings an ordinary call of the PBX beyond it.
type Beyond = (&'static str, fn(&mut Config), fn(&mut World));

const LIMITS: [Beyond; 7] = [
    ("the gateway's calls", |config| config.limits.max_calls = 0, |_| {}),
    (
        "a peer's calls",
        |config| everybody(config, &Allowance { max_calls: Some(1), ..Allowance::default() }),
        call_each_way,
    ),
    ("a peer's calls a minute", |config| everybody(config, &a_minute(1)), call_each_way),
    ("destinations", |config| everybody(config, &no_calls_at_all()), |_| {}),
    ("requests a second", |config| config.limits.requests_per_s = NonZeroU32::new(1), call_each_way),
    ("overload", |_| {}, |world| world.core.set_overloaded(true)),
    (
        "calls alike",
        |_| {},
        |world| {
            for number in 900..932 {
                assert_goes_on(world, PBX, number, "8605550100");
                assert_goes_on(world, CARRIER, 100 + number, "7310");
            }
        },
    ),
];

fn everybody(config: &mut Config, allowance: &Allowance) {
    config.peers.iter_mut().for_each(|peer| peer.allowance = allowance.clone());
}

fn no_calls_at_all() -> Allowance {
    let numbering = Numbering::new("1", "860", "9").unwrap();
    let refused = Destinations::new(numbering, vec!["all".parse().unwrap()], Vec::new());
    Allowance { refused: Some(refused), ..Allowance::default() }
}

fn call_each_way(world: &mut World) {
    assert_goes_on(world, PBX, 900, "8605550199");
    assert_goes_on(world, CARRIER, 901, "7399");
}

/// Invariant I2.
#[test]
fn no_limit_holds_for_emergency_calls_and_call_backs_and_no_destination_rule_for_the_former() {
    for (name, set, exceed) in LIMITS {
        let mut config = config();
        set(&mut config);
        let mut world = World::with(config);
        exceed(&mut world);
        world.events.clear();
        assert!(call(&mut world, PBX, 1, "8605550100").1.is_err(), "{name} stops an ordinary call");
        for number in 0..40 {
            let dialled = ["911", "9911", "933"][number as usize % 3];
            assert_goes_on(&mut world, PBX, 10 + number, dialled);
            let mut back = numbered(CARRIER, 100 + number, "7310");
            world.send(CARRIER, back.invite("Priority: psap-callback\r\n", &sdp(OFFER_IP, 4000, "")));
            world.expect(CARRIER, "SIP/2.0 100 ");
            let invite = world.expect(PBX, "INVITE sip:7310@");
            // Wherever its telephone sends it.
            crate::redirect::redirect(&mut world, &invite, "Contact: <sip:+33123456789@10.2.0.20>\r\n");
            match name {
                "destinations" => world.expect(CARRIER, "SIP/2.0 403 "),
                _ => world.expect(CARRIER, "INVITE sip:+33123456789@"),
            };
            world.events.clear();
        }
    }
}

/// Nothing but one call, which has been made.
fn beyond_all() -> World {
    let allowance = Allowance { max_calls: Some(1), ..a_minute(1) };
    let mut config = config();
    everybody(&mut config, &Allowance { refused: no_calls_at_all().refused, ..allowance });
    World::with(config)
}

/// Invariant I2.
#[test]
fn an_ordinary_call_that_is_sent_to_an_emergency_service_gets_there() {
    let mut world = beyond_all();
    let (_, invite) = assert_goes_on(&mut world, CARRIER, 1, "7310");
    crate::redirect::redirect(&mut world, &invite, "Contact: <tel:911>\r\n");
    world.expect(CARRIER, "INVITE ");
}

/// Anybody's INVITE may have the mark.
#[test]
fn a_call_back_opens_no_destination() {
    let mut talk = crate::emergency::called_back(allowing(no_calls_abroad()));
    talk.referred("<sip:901133123456789@10.9.9.9>");
    talk.notified("SIP/2.0 403 Forbidden", "terminated");
    talk.world.expect_nothing(CARRIER);
    assert_eq!(refused(&talk.world, 0, Refusal::Destination), 1);
    // Where it may go, it goes on one trunk after the other, as any call.
    talk.referred("<sip:200@10.9.9.9>");
    talk.world.expect(CARRIER, "INVITE sip:200@");
    talk.world.advance(1_900);
    talk.world.expect_nothing(CARRIER2);
    // 911 may be called by everybody.
    let mut talk = crate::emergency::called_back(beyond_all());
    talk.referred("<sip:911@10.9.9.9>");
    talk.world.expect(CARRIER, "INVITE sip:911@");

    let mut world = allowing(no_calls_abroad());
    let mut back = numbered(CARRIER, 1, "7310");
    world.send(CARRIER, back.invite("Priority: psap-callback\r\n", ""));
    world.expect(CARRIER, "SIP/2.0 100 ");
    let invite = world.expect(PBX, "INVITE sip:7310@");
    let contacts = "Contact: <sip:+33123456789@10.2.0.20>;q=0.9, <sip:200@10.2.0.20>;q=0.1\r\n";
    crate::redirect::redirect(&mut world, &invite, contacts);
    world.expect(CARRIER, "INVITE sip:200@");
    world.advance(1_900);
    world.expect_nothing(CARRIER2);
}

/// Invariant I2.
#[test]
fn an_answering_point_that_has_called_back_is_transferred_without_limit() {
    let mut config = config();
    everybody(&mut config, &Allowance { max_calls: Some(1), ..a_minute(1) });
    let mut talk = crate::emergency::called_back(World::with(config));
    for _ in 0..2 {
        talk.referred("<sip:+33123456789@10.9.9.9>");
        let invite = talk.world.expect(CARRIER, "INVITE sip:+33123456789@");
        talk.world.send(CARRIER, invite.answer("486 Busy Here", "t", "", ""));
        talk.world.expect(CARRIER, "ACK ");
        talk.notified("SIP/2.0 486 Busy Here", "terminated");
    }
}
