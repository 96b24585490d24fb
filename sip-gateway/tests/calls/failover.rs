//! Which of several addresses a call goes to, and what happens when they are dead. Peers at names, pings and
//! the routes' orders.

use std::net::IpAddr;

use consent::Side;
use sip_gateway::locate::{Answer, Host, Naptr, Place, Question, Records, Srv, Unanswered};
use sip_gateway::{Command, Config, Event, Input, Output, PeerId, Routes, StreamId, Transport};

use crate::world::*;

const CARRIER3: &str = "10.4.0.40:5060";

fn three() -> Config {
    let mut config = config();
    config.peers.push(peer("carrier3", Side::Public, CARRIER3, Transport::Udp));
    config
}

fn pinged(ping_s: u32) -> World {
    let mut config = three();
    for peer in config.peers.iter_mut().filter(|peer| peer.side == Side::Public) {
        peer.ping_s = Some(ping_s);
    }
    let mut world = World::with(config);
    world.advance(0);
    world
}

fn dial(world: &mut World, number: &str) -> Ua {
    let mut a = Ua::caller(PBX, number);
    a.call_id = format!("{}-{}", world.sent.len(), a.call_id);
    a.local = format!("<sip:7331@10.1.0.10>;tag=t{}", world.sent.len());
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    a
}

/// The call is answered at this address and hung up again.
#[track_caller]
fn completes(world: &mut World, a: &mut Ua, at: &str) {
    let invite = world.expect(at, "INVITE ");
    let contact = format!("Contact: <sip:x@{at}>\r\n");
    world.send(at, invite.answer("200 OK", "t", &contact, &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(at, "ACK ");
    world.send(PBX, a.request("BYE", "", ""));
    world.expect(PBX, "SIP/2.0 200 ");
    let bye = world.expect(at, "BYE ");
    world.send(at, bye.answer("200 OK", "", "", ""));
}

/// Answers the ping that is waiting there.
#[track_caller]
fn pongs(world: &mut World, at: &str, status: &str, extra: &str) {
    let ping = world.expect(at, "OPTIONS ");
    world.send(at, ping.answer(status, "p", extra, ""));
}

/// RFC 3263 §4.3.
#[test]
fn two_dead_addresses_cost_a_call_four_seconds_and_the_next_call_nothing() {
    let mut world = World::with(three());
    let mut a = dial(&mut world, "18605550100");
    world.expect(CARRIER, "INVITE ");
    world.advance(1_999);
    world.expect_nothing(CARRIER2);
    world.advance(1);
    world.expect(CARRIER2, "INVITE ");
    world.advance(2_000);
    completes(&mut world, &mut a, CARRIER3);
    assert_eq!(world.reachable, [(1, false), (2, false)]);

    world.take_all(CARRIER);
    world.take_all(CARRIER2);
    let mut a = dial(&mut world, "18605550101");
    completes(&mut world, &mut a, CARRIER3);
    world.advance(30_000);
    // Half a minute later the first one gets its chance again, at the price of another two seconds.
    world.take_all(CARRIER);
    let mut a = dial(&mut world, "18605550102");
    completes(&mut world, &mut a, CARRIER);
    assert_eq!(world.reachable.last(), Some(&(1, true)));
}

/// RFC 3263 §4.3.
#[test]
fn a_503_goes_on_at_once_and_a_dead_first_one_costs_two_seconds() {
    let mut world = World::with(three());
    let mut a = dial(&mut world, "18605550100");
    world.advance(2_000);
    let second = world.expect(CARRIER2, "INVITE ");
    world.send(CARRIER2, second.answer("503 Overloaded", "t", "", ""));
    world.expect(CARRIER2, "ACK ");
    completes(&mut world, &mut a, CARRIER3);
}

/// RFC 3263 §4.3.
#[test]
fn an_emergency_call_is_with_the_third_trunk_within_four_seconds() {
    let mut world = World::with(three());
    let mut a = dial(&mut world, "911");
    world.expect(CARRIER, "INVITE sip:911@");
    world.advance(1_500);
    world.expect(CARRIER2, "INVITE sip:911@");
    world.advance(1_500);
    completes(&mut world, &mut a, CARRIER3);
}

/// RFC 3261 §9.1, §13.2.2.4.
#[test]
fn what_was_given_up_is_cancelled_when_it_is_heard_and_its_late_answer_hung_up() {
    let mut world = World::with(three());
    let mut a = dial(&mut world, "18605550100");
    let first = world.expect(CARRIER, "INVITE ");
    world.advance(2_000);
    world.take_all(CARRIER);
    world.send(CARRIER, first.answer("180 Ringing", "late", "Contact: <sip:x@10.2.0.20>\r\n", ""));
    let cancel = world.expect(CARRIER, "CANCEL ");
    assert_eq!(cancel.get("Via"), first.get("Via"));
    world.expect_nothing(PBX);
    // The answer crosses the CANCEL.
    world.send(CARRIER, first.answer("200 OK", "late", "Contact: <sip:x@10.2.0.20>\r\n", ""));
    world.expect(CARRIER, "ACK ");
    world.expect(CARRIER, "BYE ");
    completes(&mut world, &mut a, CARRIER2);
    assert_eq!(world.reachable, [(1, false), (1, true)], "it lives after all");
}

#[test]
fn whoever_says_trying_is_waited_for() {
    let mut world = World::with(three());
    dial(&mut world, "18605550100");
    let first = world.expect(CARRIER, "INVITE ");
    world.send(CARRIER, first.answer("100 Trying", "", "", ""));
    world.advance(60_000);
    world.expect_nothing(CARRIER2);
}

/// RFC 3261 §17.1.1.2.
#[test]
fn the_last_address_is_waited_for_until_timer_b() {
    let mut world = World::new();
    dial(&mut world, "18605550100");
    world.advance(2_000 + 31_999);
    world.expect_nothing(PBX);
    world.advance(1);
    world.expect(PBX, "SIP/2.0 408 ");
    world.assert_clean();
}

/// RFC 3261 §20.33, §21.5.4.
#[test]
fn retry_after_is_honoured_for_its_time_and_no_longer_than_five_minutes() {
    for (header, silent_s) in [("120 (in maintenance);duration=60", 120), ("7200", 300), ("soon", 30)] {
        let mut world = World::with(three());
        let mut a = dial(&mut world, "18605550100");
        let first = world.expect(CARRIER, "INVITE ");
        let extra = format!("Retry-After: {header}\r\n");
        world.send(CARRIER, first.answer("503 Busy", "t", &extra, ""));
        world.expect(CARRIER, "ACK ");
        completes(&mut world, &mut a, CARRIER2);
        world.advance(silent_s * 1_000 - 1);
        let mut a = dial(&mut world, "18605550101");
        completes(&mut world, &mut a, CARRIER2);
        world.expect_nothing(CARRIER);
        world.advance(1);
        let mut a = dial(&mut world, "18605550102");
        completes(&mut world, &mut a, CARRIER);
    }
}

#[test]
fn a_call_is_never_refused_on_suspicion_and_an_emergency_call_goes_to_whoever_was_heard() {
    let mut world = World::with(three());
    let mut a = dial(&mut world, "18605550100");
    let first = world.expect(CARRIER, "INVITE ");
    world.send(CARRIER, first.answer("503 Busy", "t", "Retry-After: 60\r\n", ""));
    world.take_all(CARRIER);
    world.expect(CARRIER2, "INVITE ");
    world.advance(2_000);
    world.take_all(CARRIER2);
    world.expect(CARRIER3, "INVITE ");
    world.advance(2_000);
    world.send(PBX, a.request("CANCEL", "", ""));
    // Now one is closed and two are silent. It may be that only one far callee was busy.
    for (number, order) in
        [("911", [CARRIER, CARRIER2, CARRIER3]), ("18605550101", [CARRIER2, CARRIER3, CARRIER])]
    {
        for at in [PBX, CARRIER, CARRIER2, CARRIER3] {
            world.take_all(at);
        }
        world.order.clear();
        dial(&mut world, number);
        world.advance(4_000);
        let tried: Vec<_> = world
            .order
            .iter()
            .filter(|line| line.contains(&format!("INVITE sip:{number}@")))
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect();
        let mut firsts = tried.clone();
        firsts.dedup();
        let mut seen = Vec::new();
        firsts.retain(|at| {
            !seen.contains(at) && {
                seen.push(at.clone());
                true
            }
        });
        assert_eq!(firsts, order, "{number}");
    }
}

/// RFC 3261 §11.
#[test]
fn pings_find_the_dead_before_a_call_does_and_see_them_return() {
    let mut world = pinged(30);
    let ping = world.expect(CARRIER, "OPTIONS sip:10.2.0.20 SIP/2.0");
    assert_eq!(ping.get("Max-Forwards"), "70");
    assert!(ping.get("From").starts_with("<sip:10.0.0.1>;tag="));
    world.expect(CARRIER2, "OPTIONS ");
    pongs(&mut world, CARRIER3, "200 OK", "");
    world.expect_nothing(PBX);
    world.advance(3_999);
    assert_eq!(world.reachable, []);
    world.send(CARRIER2, ping.answer("200 OK", "x", "", ""));
    world.advance(1);
    assert_eq!(world.reachable, [(1, false), (2, false)], "nobody answers for another");
    world.take_all(CARRIER);
    world.take_all(CARRIER2);

    let mut a = dial(&mut world, "18605550100");
    completes(&mut world, &mut a, CARRIER3);
    world.expect_nothing(CARRIER);

    world.advance(5_000);
    pongs(&mut world, CARRIER, "404 Not Found", "");
    assert_eq!(world.reachable.last(), Some(&(1, true)), "whatever it answers, it lives");
    let mut a = dial(&mut world, "18605550101");
    completes(&mut world, &mut a, CARRIER);
}

#[test]
fn an_address_that_is_up_is_pinged_at_its_interval_and_a_dead_one_each_five_seconds() {
    let mut world = pinged(30);
    pongs(&mut world, CARRIER, "200 OK", "");
    world.advance(29_999);
    world.expect_nothing(CARRIER);
    world.advance(1);
    pongs(&mut world, CARRIER, "200 OK", "");
    let pings = |world: &World| {
        let to = |(at, bytes): &&(_, bytes::Bytes)| *at == addr(CARRIER2) && bytes.starts_with(b"OPTIONS");
        let mut ids: Vec<_> = world
            .sent
            .iter()
            .filter(to)
            .map(|(_, bytes)| Msg::new(bytes.clone()).get("Call-ID").to_owned())
            .collect();
        ids.dedup();
        ids.len()
    };
    let before = pings(&world);
    world.advance(90_000);
    assert_eq!(pings(&world) - before, 10, "each 4 s of silence and 5 s of rest");
    assert!(world.core.counters().transactions < 10);
    world.expect_nothing(PBX);
}

/// RFC 3261 §11, §21.5.4.
#[test]
fn a_ping_answered_503_closes_and_nobody_is_pinged_before_its_time() {
    let mut world = pinged(2);
    pongs(&mut world, CARRIER, "503 Busy", "Retry-After: 60\r\n");
    assert_eq!(world.reachable, [(1, false)]);
    world.advance(59_999);
    world.expect_nothing(CARRIER);
    world.advance(1);
    pongs(&mut world, CARRIER, "200 OK", "");
    assert_eq!(world.reachable.last(), Some(&(1, true)));
    world.advance(2_000);
    world.expect(CARRIER, "OPTIONS ");
}

/// RFC 3261 §18.4; RFC 3263 §4.3.
#[test]
fn a_datagram_that_cannot_leave_sends_waiting_calls_on_at_once() {
    let mut world = World::with(three());
    let mut a = dial(&mut world, "18605550100");
    world.expect(CARRIER, "INVITE ");
    world.input(Input::Undeliverable { to: addr(CARRIER) });
    completes(&mut world, &mut a, CARRIER2);
    assert_eq!(world.reachable, [(1, false)]);
    let mut a = dial(&mut world, "18605550101");
    completes(&mut world, &mut a, CARRIER2);
    world.input(Input::Undeliverable { to: addr(STRANGER) });
    // The only way there is: nothing ends because of a moment without a route.
    let mut back = Ua::caller(CARRIER2, "7331");
    world.send(CARRIER2, back.invite("", ""));
    world.input(Input::Undeliverable { to: addr(PBX) });
    world.expect(PBX, "INVITE ");
    world.advance(500);
    world.expect(PBX, "INVITE ");
}

/// RFC 3261 §18.4; RFC 3263 §4.3.
#[test]
fn a_stream_that_cannot_be_connected_is_passed_over_next_time() {
    let mut config = three();
    config.peers[1] = peer("carrier", Side::Public, CARRIER, Transport::Tcp);
    let mut world = World::with(config);
    let mut a = dial(&mut world, "18605550100");
    assert!(world.streams.iter().any(|output| matches!(output, Output::Connect { .. })));
    world.input(Input::StreamClosed { stream: StreamId(1) });
    completes(&mut world, &mut a, CARRIER2);
    world.streams.clear();
    let mut a = dial(&mut world, "18605550101");
    completes(&mut world, &mut a, CARRIER2);
    assert_eq!(world.streams, []);
}

#[test]
fn a_stream_that_is_connected_to_nobody_costs_two_seconds() {
    let mut config = three();
    config.peers[1] = peer("carrier", Side::Public, CARRIER, Transport::Tcp);
    let mut world = World::with(config);
    let mut a = dial(&mut world, "18605550100");
    world.advance(2_000);
    completes(&mut world, &mut a, CARRIER2);
}

#[test]
fn each_route_has_its_own_order_and_forgets_nobody() {
    let mut config = three();
    config.routes = Routes {
        public: vec![PeerId(2)],
        emergency: vec![PeerId(3), PeerId(2), PeerId(0)],
        district: vec![],
    };
    let mut world = World::with(config);
    for (number, order) in
        [("18605550100", [CARRIER2, CARRIER, CARRIER3]), ("911", [CARRIER3, CARRIER2, CARRIER])]
    {
        let mut a = dial(&mut world, number);
        for at in order {
            let invite = world.expect(at, "INVITE ");
            world.send(at, invite.answer("503 No", "t", "", ""));
            world.take_all(at);
        }
        let refused = world.expect(PBX, "SIP/2.0 503 No");
        world.send(PBX, a.ack_failure(&refused));
        world.advance(30_000);
    }
}

// Peers at names.

pub fn named() -> Config {
    let mut config = config();
    config.peers.truncate(2);
    let carrier = &mut config.peers[1];
    carrier.place = Place { host: Host::Name("trunk.example".to_owned()), port: None, transport: None };
    carrier.allow = vec![];
    config
}

/// DNS as it answers here; what is not listed has no records.
pub fn dns(question: &Question) -> Answer {
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    let naptr = |order, service: &str, replacement: &str| Naptr {
        order,
        preference: 0,
        flags: "s".to_owned(),
        service: service.to_owned(),
        replacement: replacement.to_owned(),
    };
    let srv = |priority, target: &str| Srv { priority, weight: 10, port: 5060, target: target.to_owned() };
    let records = match question {
        Question::Naptr(name) if name == "trunk.example" => Records::Naptr(vec![
            naptr(20, "SIP+D2T", "_sip._tcp.trunk.example"),
            naptr(10, "SIP+D2U", "_sip._udp.trunk.example"),
        ]),
        Question::Naptr(_) => Records::Naptr(vec![]),
        Question::Srv(name) if name == "_sip._udp.trunk.example" => {
            Records::Srv(vec![srv(30, "c.example"), srv(10, "a.example"), srv(20, "b.example")])
        }
        Question::Srv(_) => Records::Srv(vec![]),
        Question::Addresses(name) => Records::Addresses(match name.as_str() {
            "a.example" => vec![ip("10.2.0.20")],
            "b.example" => vec![ip("10.3.0.30")],
            "c.example" => vec![ip("10.4.0.40")],
            _ => vec![],
        }),
    };
    Answer { records, ttl_s: 600 }
}

pub fn resolve(world: &mut World, answer: impl Fn(&Question) -> Result<Answer, Unanswered>) {
    while let Some((peer, question)) = world.questions.pop_front() {
        let answer = answer(&question);
        world.input(Input::Resolved { peer, question, answer });
    }
}

fn found() -> World {
    let mut world = World::with(named());
    world.advance(0);
    resolve(&mut world, |question| Ok(dns(question)));
    assert_eq!(world.reachable, [(1, true)]);
    world
}

/// RFC 3263 §4.1, §4.2, §4.3.
#[test]
fn a_peer_at_a_name_is_found_before_any_call_and_called_in_the_order_of_its_srv() {
    let mut world = found();
    let steps: Vec<_> = world.found[0].1.steps().iter().map(ToString::to_string).collect();
    assert_eq!(steps, ["0 10 udp:10.2.0.20:5060", "1 10 udp:10.3.0.30:5060", "2 10 udp:10.4.0.40:5060"]);
    let mut a = dial(&mut world, "18605550100");
    let first = world.expect(CARRIER, "INVITE sip:18605550100@trunk.example SIP/2.0");
    world.send(CARRIER, first.answer("503 Busy", "t", "", ""));
    world.expect(CARRIER, "ACK ");
    world.expect(CARRIER2, "INVITE ");
    world.advance(2_000);
    completes(&mut world, &mut a, CARRIER3);
    assert_eq!(world.reachable, [(1, true)], "one of its addresses answers");
}

#[test]
fn who_talks_from_an_address_that_was_found_is_that_peer() {
    let mut world = World::with(named());
    let mut b = Ua::caller(CARRIER2, "7331");
    let invite = b.invite("", &sdp(ANSWER_IP, 5000, ""));
    world.send(CARRIER2, &invite);
    world.expect_nothing(CARRIER2);
    world.advance(0);
    resolve(&mut world, |question| Ok(dns(question)));
    world.send(CARRIER2, &invite);
    world.expect(CARRIER2, "SIP/2.0 100 ");
    let Event::Offered(offer) = world.event(|e| matches!(e, Event::Offered(_))) else { unreachable!() };
    assert_eq!((offer.peer, offer.side), (PeerId(1), Side::Public));
    world.send(STRANGER, b.invite("", ""));
    world.expect_nothing(STRANGER);
}

/// RFC 8767 §4.
#[test]
fn with_dns_away_the_addresses_found_stay_in_use_and_nothing_waits() {
    let mut world = found();
    for _ in 0..50 {
        world.advance(30_000);
        resolve(&mut world, |_| Err(Unanswered));
    }
    for number in ["18605550100", "911"] {
        let mut a = dial(&mut world, number);
        completes(&mut world, &mut a, CARRIER);
    }
    // A question that is open holds nothing up either.
    world.advance(600_000);
    assert!(!world.questions.is_empty());
    let mut a = dial(&mut world, "911");
    completes(&mut world, &mut a, CARRIER);
}

#[test]
fn a_start_without_dns_goes_on_with_what_was_found_before() {
    let mut before = found();
    let (peer, plan) = before.found.remove(0);
    let mut world = World::with(named());
    world.core.recall(world.now, peer, plan);
    world.advance(0);
    resolve(&mut world, |_| Err(Unanswered));
    let mut a = dial(&mut world, "911");
    completes(&mut world, &mut a, CARRIER);
}

#[test]
fn a_lying_dns_takes_nobodys_calls_away() {
    // It says that the carrier is at the PBX's address, at the gateway's, and nowhere.
    let mut world = World::with(named());
    world.advance(0);
    resolve(&mut world, |question| {
        let mut answer = dns(question);
        if let Records::Addresses(ips) = &mut answer.records {
            *ips = ["10.1.0.10", "10.0.0.1", "0.0.0.0"].map(|ip| ip.parse().unwrap()).to_vec();
        }
        Ok(answer)
    });
    dial(&mut world, "18605550100");
    let Event::Offered(offer) = world.event(|e| matches!(e, Event::Offered(_))) else { unreachable!() };
    assert_eq!(offer.side, Side::District, "the PBX is still the PBX");
    world.expect(PBX, "SIP/2.0 503 ");
    world.expect_nothing(GATEWAY);
}

#[test]
fn networks_that_are_given_bound_where_a_name_may_lead() {
    let mut config = named();
    config.peers[1].allow = vec![("10.3.0.0".parse().unwrap(), 16)];
    let mut world = World::with(config);
    world.advance(0);
    resolve(&mut world, |question| Ok(dns(question)));
    let mut a = dial(&mut world, "18605550100");
    completes(&mut world, &mut a, CARRIER2);
    world.expect_nothing(CARRIER);
    let mut b = Ua::caller(CARRIER, "7331");
    world.send(CARRIER, b.invite("", ""));
    world.expect_nothing(CARRIER);
}

#[test]
fn a_call_goes_on_while_its_address_leaves_dns() {
    let mut world = found();
    let mut a = dial(&mut world, "18605550100");
    let invite = world.expect(CARRIER, "INVITE ");
    let mut b = Ua::callee(CARRIER, &invite, "t");
    world.send(CARRIER, invite.answer("200 OK", "t", &b.contact(), &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(CARRIER, "ACK ");
    world.advance(300_000);
    resolve(&mut world, |question| {
        let mut answer = dns(question);
        if let Records::Srv(records) = &mut answer.records {
            records.retain(|srv| srv.target != "a.example");
        }
        Ok(answer)
    });
    assert_eq!(world.found.len(), 2);
    world.send(CARRIER, b.request("BYE", "", ""));
    world.expect(CARRIER, "SIP/2.0 200 ");
    world.expect(PBX, "BYE ");
    let mut a = dial(&mut world, "18605550101");
    completes(&mut world, &mut a, CARRIER2);
}

#[test]
fn pings_follow_the_addresses() {
    let mut config = named();
    config.peers[1].ping_s = Some(30);
    let mut world = World::with(config);
    world.advance(0);
    world.expect_nothing(CARRIER);
    resolve(&mut world, |question| Ok(dns(question)));
    world.advance(0);
    for at in [CARRIER, CARRIER2, CARRIER3] {
        pongs(&mut world, at, "200 OK", "");
    }
    world.advance(300_000 - 30_000);
    for at in [CARRIER, CARRIER2, CARRIER3] {
        world.take_all(at);
    }
    world.advance(30_000);
    resolve(&mut world, |question| match question {
        Question::Addresses(name) if name == "c.example" => {
            Ok(Answer { records: Records::Addresses(vec!["10.2.0.20".parse().unwrap()]), ttl_s: 600 })
        }
        question => Ok(dns(question)),
    });
    world.take_all(CARRIER3);
    world.advance(60_000);
    world.expect_nothing(CARRIER3);
    world.expect(CARRIER2, "OPTIONS ");
}

#[test]
fn without_any_way_at_all_a_call_is_answered_503() {
    let mut world = World::with(named());
    world.advance(0);
    assert!(!world.core.is_up(PeerId(1)) && world.core.is_up(PeerId(0)));
    dial(&mut world, "18605550100");
    world.expect(PBX, "SIP/2.0 503 ");
    world.command(Command::Drain);
}

/// RFC 2782.
#[test]
fn the_same_seed_draws_the_same_order_and_calls_are_shared_by_weight() {
    let weighted = |question: &Question| match question {
        Question::Srv(name) if name == "_sip._udp.trunk.example" => {
            let srv =
                |weight, target: &str| Srv { priority: 1, weight, port: 5060, target: target.to_owned() };
            Ok(Answer { records: Records::Srv(vec![srv(3, "a.example"), srv(1, "b.example")]), ttl_s: 600 })
        }
        question => Ok(dns(question)),
    };
    let firsts = || {
        let mut world = World::with(named());
        world.advance(0);
        resolve(&mut world, weighted);
        let mut firsts = String::new();
        for number in 0..80 {
            let mut a = dial(&mut world, &format!("186055501{number:02}"));
            let at = if world.next_is_invite(CARRIER) { CARRIER } else { CARRIER2 };
            firsts.push(if at == CARRIER { 'a' } else { 'b' });
            completes(&mut world, &mut a, at);
        }
        firsts
    };
    let drawn = firsts();
    assert_eq!(drawn, firsts());
    let a = drawn.matches('a').count();
    assert!((45..=75).contains(&a), "{a} of 80 for a weight of 3 of 4");
}
