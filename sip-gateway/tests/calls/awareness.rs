//! Who is told of a recording, and who wants it (RFC 7866 §6.1.2, §7.1.2, §7.1.3, §7.3.1), row by row of the tables
//! in `b2bua/awareness.rs`.

use consent::Leg;
use sip_gateway::sdp::{RecordPreference, Recording};
use sip_gateway::{Change, Command, Event};

use crate::transfer::{TARGET_IP, Talk};
use crate::world::*;

const AWARE: &str = "Supported: record-aware\r\nAllow: INVITE, ACK, BYE, CANCEL, UPDATE\r\n";
const WITHOUT_UPDATE: &str = "Supported: record-aware\r\nAllow: INVITE, ACK, BYE, CANCEL\r\n";

/// The `a=record` lines of a description.
fn told(message: &Msg) -> Vec<String> {
    let lines = message.body();
    lines.lines().filter_map(|line| line.strip_prefix("a=record:")).map(str::to_owned).collect()
}

fn version(message: &Msg) -> u64 {
    let body = message.body();
    let origin = body.lines().find(|line| line.starts_with("o=")).unwrap();
    origin.split(' ').nth(2).unwrap().parse().unwrap()
}

/// The same description, another state and a version later.
#[track_caller]
fn assert_restated(now: &Msg, before: &Msg, state: &str) {
    let others = |message: &Msg| -> Vec<String> {
        let body = message.body();
        let kept = |line: &&str| !line.starts_with("a=record:") && !line.starts_with("o=");
        body.lines().filter(kept).map(str::to_owned).collect()
    };
    assert_eq!((told(now), others(now)), (vec![state.to_owned()], others(before)));
    assert!(version(now) > version(before));
}

/// A call that is up; the INVITE and its 2xx had these fields, and these lines in their descriptions.
struct Legs<'a> {
    asked: &'a str,
    offer: &'a str,
    agreed: &'a str,
    answer: &'a str,
}

const BOTH: Legs<'_> = Legs { asked: AWARE, offer: "", agreed: AWARE, answer: "" };

impl Legs<'_> {
    fn up(&self) -> Up {
        let mut world = World::new();
        let mut a = Ua::caller(PBX, "100");
        world.send(PBX, a.invite(self.asked, &sdp(OFFER_IP, 4000, self.offer)));
        world.expect(PBX, "SIP/2.0 100 ");
        let invite = world.expect(CARRIER, "INVITE ");
        let mut b = Ua::callee(CARRIER, &invite, "callees-tag");
        let extra = format!("{}{}", b.contact(), self.agreed);
        let answer = sdp(ANSWER_IP, 5000, self.answer);
        world.send(CARRIER, invite.answer("200 OK", "callees-tag", &extra, &answer));
        let ok = world.expect(PBX, "SIP/2.0 200 OK");
        a.learn(&ok);
        world.send(PBX, a.request("ACK", "", ""));
        world.expect(CARRIER, "ACK ");
        b.cseq = 500;
        Up { world, a, b, invite, ok }
    }
}

fn gate(up: &mut Up, recording: Recording) {
    let call = up.world.open_calls()[0];
    up.world.command(Command::Indicate { call, recording });
}

/// Answers an UPDATE or re-INVITE that came to this address.
fn agrees(up: &mut Up, at: &str, indication: &Msg) {
    let (ip, port, contact) = match at {
        PBX => (OFFER_IP, 4000, up.a.contact()),
        _ => (ANSWER_IP, 5000, up.b.contact()),
    };
    up.world.send(at, indication.answer("200 OK", "", &contact, &sdp(ip, port, "")));
}

fn preferences(world: &mut World) -> Vec<(Leg, RecordPreference, bool)> {
    let said = world.events.iter().filter_map(|event| match event {
        Event::Preference { leg, preference, trusted, .. } => Some((*leg, *preference, *trusted)),
        _ => None,
    });
    let said = said.collect();
    world.events.retain(|event| !matches!(event, Event::Preference { .. }));
    said
}

/// Nothing that says that somebody else, or another instrument, is there.
fn assert_nobody_new(up: &Up) {
    assert!(!up.world.events.iter().any(|event| matches!(event, Event::Changed { .. })));
}

#[test]
fn everybody_is_offered_record_aware_and_whoever_takes_it_is_told() {
    let mut up = BOTH.up();
    assert!(up.invite.headers().has_token("Supported", "record-aware"));
    assert!(up.ok.headers().has_token("Supported", "record-aware"));
    // Nobody knew before its answer whether the callee takes it.
    assert_eq!((told(&up.ok), told(&up.invite)), (vec!["off".to_owned()], vec![]));
    up.world.advance(5_000);
    up.world.expect_nothing(CARRIER);
    let before = [(PBX, up.ok.clone()), (CARRIER, up.invite.clone())];
    let mut states =
        [(Recording::On, "on"), (Recording::Paused, "paused"), (Recording::Off, "off")].into_iter();
    let mut last = before;
    for (recording, word) in states.by_ref() {
        gate(&mut up, recording);
        for (at, before) in &mut last {
            let update = up.world.expect(at, "UPDATE ");
            assert_restated(&update, before, word);
            agrees(&mut up, at, &update);
            *before = update;
        }
    }
    assert_nobody_new(&up);
    up.hang_up();
}

#[test]
fn a_leg_that_is_not_aware_is_told_nothing() {
    let mut up = Legs { asked: "Allow: UPDATE\r\n", agreed: "Allow: UPDATE\r\n", ..BOTH }.up();
    gate(&mut up, Recording::On);
    up.world.advance(60_000);
    assert!(told(&up.ok).is_empty() && told(&up.invite).is_empty());
    up.hang_up();
}

#[test]
fn a_gate_that_is_open_at_the_answer_is_in_the_answer() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite(AWARE, &sdp(OFFER_IP, 4000, "")));
    let call = world.call();
    world.command(Command::Indicate { call, recording: Recording::On });
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    let b = Ua::callee(CARRIER, &invite, "callees-tag");
    let extra = format!("{}{AWARE}", b.contact());
    world.send(CARRIER, invite.answer("200 OK", "callees-tag", &extra, &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 OK");
    assert_eq!(told(&ok), ["on"]);
    a.learn(&ok);
    // The callee's turn comes with its ACK, and not before.
    world.advance(400);
    world.expect_nothing(CARRIER);
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(CARRIER, "ACK ");
    assert_restated(&world.expect(CARRIER, "UPDATE "), &invite, "on");
    world.expect_nothing(PBX);
}

#[test]
fn without_update_or_after_its_refusal_a_reinvite_tells_it() {
    let mut up = Legs { asked: WITHOUT_UPDATE, agreed: AWARE, ..BOTH }.up();
    gate(&mut up, Recording::On);
    let reinvite = up.world.expect(PBX, "INVITE ");
    assert_restated(&reinvite, &up.ok, "on");
    agrees(&mut up, PBX, &reinvite);
    assert_eq!(
        up.world.expect(PBX, "ACK ").get("CSeq").split(' ').next(),
        reinvite.get("CSeq").split(' ').next()
    );
    let update = up.world.expect(CARRIER, "UPDATE ");
    up.world.send(CARRIER, update.answer("501 Not Implemented", "", "", ""));
    let reinvite = up.world.expect(CARRIER, "INVITE ");
    assert_restated(&reinvite, &up.invite, "on");
    agrees(&mut up, CARRIER, &reinvite);
    up.world.expect(CARRIER, "ACK ");
    up.world.advance(60_000);
    assert_nobody_new(&up);
    up.hang_up();
}

#[test]
fn changes_that_come_meanwhile_are_told_as_one() {
    let mut up = Legs { agreed: "", ..BOTH }.up();
    gate(&mut up, Recording::On);
    let first = up.world.expect(PBX, "UPDATE ");
    for recording in [Recording::Paused, Recording::On, Recording::Paused] {
        gate(&mut up, recording);
    }
    up.world.advance(400);
    up.world.expect_nothing(PBX);
    agrees(&mut up, PBX, &first);
    let second = up.world.expect(PBX, "UPDATE ");
    assert_restated(&second, &first, "paused");
    gate(&mut up, Recording::On);
    gate(&mut up, Recording::Paused);
    agrees(&mut up, PBX, &second);
    up.world.advance(5_000);
    up.world.expect_nothing(PBX);
    up.hang_up();
}

#[test]
fn an_indication_that_is_refused_is_tried_again_within_bounds_and_ends_nothing() {
    for (refusal, extra, least_ms, spread_ms) in [
        ("491 Request Pending", "", 0, 2_010),
        ("500 No", "Retry-After: 3\r\n", 3_000, 10),
        ("503 No", "", 2_000, 10),
    ] {
        let mut up = Legs { agreed: "", ..BOTH }.up();
        gate(&mut up, Recording::On);
        let mut sent = Vec::new();
        for _ in 0..6_000 {
            if let Some(update) = up.world.next(PBX) {
                assert_eq!(told(&update), ["on"]);
                up.world.send(PBX, update.answer(refusal, "", extra, ""));
                sent.push(up.world.now.mono);
            }
            up.world.advance(10);
        }
        let waits: Vec<u64> = sent.windows(2).map(|two| two[1].since_us(two[0]) / 1_000).collect();
        assert_eq!(waits.len(), 4, "{refusal}");
        assert!(
            waits.iter().all(|ms| (least_ms..=least_ms + spread_ms).contains(ms)),
            "{refusal}: {waits:?}"
        );
        // What is due next is told anew.
        gate(&mut up, Recording::Paused);
        assert_eq!(told(&up.world.expect(PBX, "UPDATE ")), ["paused"]);
        assert_eq!(up.world.ended().len(), 0);
    }
    let mut up = Legs { asked: WITHOUT_UPDATE, agreed: "", ..BOTH }.up();
    gate(&mut up, Recording::On);
    let reinvite = up.world.expect(PBX, "INVITE ");
    up.world.send(PBX, reinvite.answer("488 Not Acceptable Here", "", "", ""));
    up.world.expect(PBX, "ACK ");
    up.world.advance(60_000);
    up.world.expect_nothing(PBX);
    up.hang_up();
}

/// RFC 3261 §9.1, §17.1.1.2
#[test]
fn a_reinvite_that_draws_only_provisional_responses_is_given_up_and_no_other_comes() {
    for last in [None, Some("487 Request Terminated"), Some("200 OK")] {
        let mut up = Legs { asked: WITHOUT_UPDATE, agreed: "", ..BOTH }.up();
        gate(&mut up, Recording::On);
        let reinvite = up.world.expect(PBX, "INVITE ");
        up.world.send(PBX, reinvite.answer("180 Ringing", "", "", ""));
        up.world.advance(31_999);
        up.world.send(PBX, reinvite.answer("180 Ringing", "", "", ""));
        let contact = up.b.contact();
        let hold = sdp(ANSWER_IP, 5000, "a=sendonly\r\n");
        up.world.send(CARRIER, up.b.request("UPDATE", &contact, &hold));
        up.world.expect(CARRIER, "SIP/2.0 491 ");
        up.world.expect_nothing(PBX);
        up.world.advance(1);
        let cancel = up.world.expect(PBX, "CANCEL ");
        assert_eq!(cancel.get("Via"), reinvite.get("Via"));
        up.world.send(PBX, cancel.answer("200 OK", "", "", ""));
        match last {
            Some("200 OK") => agrees(&mut up, PBX, &reinvite),
            Some(refusal) => up.world.send(PBX, reinvite.answer(refusal, "", "", "")),
            None => up.world.advance(32_000),
        }
        assert_eq!(up.world.next(PBX).map(|ack| ack.text().starts_with("ACK ")), last.map(|_| true));
        // Nothing is in anybody's way any more, nor will be.
        gate(&mut up, Recording::Paused);
        up.world.advance(60_000);
        up.world.expect_nothing(PBX);
        up.world.send(CARRIER, up.b.request("UPDATE", &contact, &hold));
        let passed = up.world.expect(PBX, "UPDATE ");
        assert_eq!(told(&passed), ["paused"], "what goes there anyhow still says it");
        let held = sdp(OFFER_IP, 4000, "a=recvonly\r\n");
        up.world.send(PBX, passed.answer("200 OK", "", &up.a.contact(), &held));
        up.world.expect(CARRIER, "SIP/2.0 200 OK");
        up.hang_up();
    }
}

#[test]
fn a_leg_that_knows_nothing_of_the_call_ends_it() {
    for status in ["481 Call Does Not Exist", "408 Request Timeout"] {
        let mut up = BOTH.up();
        gate(&mut up, Recording::On);
        let update = up.world.expect(CARRIER, "UPDATE ");
        up.world.send(CARRIER, update.answer(status, "", "", ""));
        up.world.expect(CARRIER, "BYE ");
        assert_eq!(up.world.ended().len(), 1);
    }
    let mut silent = BOTH.up();
    gate(&mut silent, Recording::On);
    silent.world.advance(33_000);
    assert_eq!(silent.world.ended().len(), 1);
    silent.world.assert_clean();
}

#[test]
fn a_call_that_ends_under_an_indication_leaves_nothing() {
    let mut up = Legs { asked: WITHOUT_UPDATE, ..BOTH }.up();
    gate(&mut up, Recording::On);
    let reinvite = up.world.expect(PBX, "INVITE ");
    up.world.send(CARRIER, up.b.request("BYE", "", ""));
    up.world.send(PBX, reinvite.answer("487 Request Terminated", "", "", ""));
    up.world.advance(1_000);
    assert_eq!(up.world.ended().len(), 1);
    up.world.assert_clean();
}

#[test]
fn an_indication_waits_for_a_hold_that_is_under_way_and_a_hold_for_it() {
    let mut up = BOTH.up();
    let contact = up.b.contact();
    up.world.send(CARRIER, up.b.request("INVITE", &contact, &sdp(ANSWER_IP, 5000, "a=sendonly\r\n")));
    up.world.expect(CARRIER, "SIP/2.0 100 ");
    let passed = up.world.expect(PBX, "INVITE ");
    gate(&mut up, Recording::On);
    up.world.advance(400);
    up.world.expect_nothing(CARRIER);
    up.world.send(PBX, passed.answer("200 OK", "", &up.a.contact(), &sdp(OFFER_IP, 4000, "a=recvonly\r\n")));
    // Its own answer tells the one who holds.
    let held = up.world.expect(CARRIER, "SIP/2.0 200 OK");
    assert_eq!(told(&held), ["on"]);
    up.world.send(CARRIER, up.b.request("ACK", "", ""));
    up.world.expect(PBX, "ACK ");
    let update = up.world.expect(PBX, "UPDATE ");
    assert_restated(&update, &passed, "on");
    assert!(update.body().contains("a=sendonly"), "the hold stays: {}", update.body());
    // A resumption that crosses it comes again.
    up.world.send(CARRIER, up.b.request("INVITE", &contact, &sdp(ANSWER_IP, 5000, "")));
    up.world.expect(CARRIER, "SIP/2.0 491 ");
    let answer = sdp(OFFER_IP, 4000, "a=recvonly\r\n");
    let changes = |up: &Up| up.world.events.iter().filter(|e| matches!(e, Event::Changed { .. })).count();
    let before = changes(&up);
    up.world.send(PBX, update.answer("200 OK", "", &up.a.contact(), &answer));
    assert_eq!(changes(&up), before, "the answer to it is no news of anybody");
}

/// RFC 7866 §7.1.3
#[test]
fn a_preference_is_told_in_any_offer_or_answer_whether_or_not_it_is_taken() {
    let on = "a=recordpref:on\r\n";
    let mut up = Legs { offer: on, answer: "a=recordpref:pause\r\n", ..BOTH }.up();
    // The PBX is trusted with it; the carrier is not.
    let at_answer = [(Leg::A, RecordPreference::On, true), (Leg::B, RecordPreference::Pause, false)];
    assert_eq!(preferences(&mut up.world), at_answer);
    // Neither hears it: who repeats what it gets would say it in its own name.
    assert!(!up.invite.body().contains("recordpref") && !up.ok.body().contains("recordpref"));
    let order = |start: &str| up.world.order.iter().position(|line| line.starts_with(start)).unwrap();
    assert!(order("event Preference") < order("event Answered"));
    // By UPDATE of the callee, and in the answer to it.
    let contact = up.b.contact();
    let offer = sdp(ANSWER_IP, 5000, "a=recordpref:on\r\n");
    up.world.send(CARRIER, up.b.request("UPDATE", &contact, &offer));
    let passed = up.world.expect(PBX, "UPDATE ");
    assert!(!passed.body().contains("recordpref"), "it was said to us");
    assert_eq!(preferences(&mut up.world), [(Leg::B, RecordPreference::On, false)], "before it is answered");
    let answer = sdp(OFFER_IP, 4000, "a=recordpref:nopreference\r\n");
    up.world.send(PBX, passed.answer("200 OK", "", &up.a.contact(), &answer));
    up.world.expect(CARRIER, "SIP/2.0 200 OK");
    assert_eq!(preferences(&mut up.world), [(Leg::A, RecordPreference::None, true)]);
    // In a re-INVITE that is refused because it crosses another.
    let reinvite = up.b.request("INVITE", &contact, &offer);
    up.world.send(CARRIER, reinvite);
    up.world.expect(CARRIER, "SIP/2.0 100 ");
    preferences(&mut up.world);
    let own = up.a.contact();
    up.world.send(PBX, up.a.request("INVITE", &own, &sdp(OFFER_IP, 4000, "a=recordpref:off\r\n")));
    up.world.take_all(PBX);
    assert_eq!(preferences(&mut up.world), [(Leg::A, RecordPreference::Off, true)]);
}

/// RFC 6026 §7.2: a 2xx to a re-INVITE of ours comes again because our ACK was lost, or late.
#[test]
fn a_2xx_that_comes_again_is_nobodys_word_of_now() {
    for refreshes in [false, true] {
        let mut talk = Talk::new();
        let call = talk.world.open_calls()[0];
        let timer = if refreshes { "Session-Expires: 600;refresher=uac\r\n" } else { "" };
        let contact = talk.r.contact();
        talk.world.send(CARRIER, talk.r.request("UPDATE", &contact, ""));
        let passed = talk.world.expect(PBX, "UPDATE ");
        let own = format!("{}{WITHOUT_UPDATE}", talk.l.contact());
        talk.world.send(PBX, passed.answer("200 OK", "", &format!("{own}{timer}"), ""));
        talk.world.expect(CARRIER, "SIP/2.0 200 OK");
        if refreshes {
            talk.world.advance(300_000);
        } else {
            talk.world.command(Command::Indicate { call, recording: Recording::On });
        }
        let reinvite = talk.world.expect(PBX, "INVITE ");
        let agreed = reinvite.answer("200 OK", "", &own, &sdp(OFFER_IP, 4000, "a=recordpref:on\r\n"));
        talk.world.send(PBX, &agreed);
        let ack = talk.world.expect(PBX, "ACK ");
        assert_eq!(preferences(&mut talk.world), [(Leg::B, RecordPreference::On, true)]);
        talk.world.send(PBX, &agreed);
        assert_eq!(talk.world.expect(PBX, "ACK ").bytes, ack.bytes);
        assert_eq!(preferences(&mut talk.world), [], "L may have thought better of it");

        talk.referred("<sip:7355@10.1.0.10>");
        talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
        talk.joined();
        talk.notified("SIP/2.0 200 OK", "terminated");
        talk.left();
        talk.world.send(PBX, &agreed);
        assert_eq!(talk.world.expect(PBX, "ACK ").bytes, ack.bytes);
        assert_eq!(preferences(&mut talk.world), [], "T has agreed to nothing");
        talk.world.command(Command::Indicate { call, recording: Recording::Paused });
        talk.world.expect_nothing(PBX);
        talk.hang_up();
    }
}

#[test]
fn what_a_callee_wants_that_does_not_answer_is_not_told() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite(AWARE, &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    let b = Ua::callee(CARRIER, &invite, "one");
    let early = |word: &str| sdp(ANSWER_IP, 5000, &format!("a=recordpref:{word}\r\n"));
    world.send(CARRIER, invite.answer("183 Progress", "one", &b.contact(), &early("off")));
    world.send(CARRIER, invite.answer("183 Progress", "two", &b.contact(), &early("on")));
    world.send(CARRIER, invite.answer("200 OK", "two", &b.contact(), ""));
    let said = world.events.iter().filter_map(|event| match event {
        Event::Preference { preference, .. } => Some(*preference),
        _ => None,
    });
    assert_eq!(said.collect::<Vec<_>>(), [RecordPreference::On], "the early answer of the one that answered");
}

#[test]
fn what_a_callee_can_that_answers_too_late_is_not_the_winners() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    let first = world.expect(CARRIER, "INVITE ");
    world.advance(2_000);
    let second = world.expect(CARRIER2, "INVITE ");
    let contact = |at: &str| format!("Contact: <sip:x@{at}>\r\n");
    let aware = format!("{}{AWARE}", contact(CARRIER));
    world.send(CARRIER, first.answer("200 OK", "one", &aware, &sdp(ANSWER_IP, 5000, "")));
    world.send(CARRIER2, second.answer("200 OK", "two", &contact(CARRIER2), &sdp(ANSWER_IP, 5000, "")));
    world.take_all(CARRIER2);
    a.learn(&world.take_all(PBX).pop().unwrap());
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(CARRIER2, "ACK ");
    let call = world.open_calls()[0];
    world.command(Command::Indicate { call, recording: Recording::On });
    world.expect_nothing(CARRIER2);
}

/// RFC 7866 §7.3.1
#[test]
fn a_recording_of_the_far_sides_is_told_to_the_near_one() {
    let mut up = Legs { answer: "a=record:on\r\n", ..BOTH }.up();
    assert_eq!(told(&up.ok), ["on"], "in the answer itself");
    let call = up.world.open_calls()[0];
    let records = |recording| Event::Records { call, leg: Leg::B, recording };
    up.world.event(|event| *event == records(Recording::On));
    // It is not told of itself, and ours pausing does not hide it.
    up.world.advance(1_000);
    up.world.expect_nothing(CARRIER);
    gate(&mut up, Recording::Paused);
    let update = up.world.expect(CARRIER, "UPDATE ");
    assert_eq!(told(&update), ["paused"]);
    agrees(&mut up, CARRIER, &update);
    up.world.advance(1_000);
    up.world.expect_nothing(PBX);
    // It stops, in an UPDATE of its own; what it says at the medium's level ends here as well.
    let contact = up.b.contact();
    up.world.send(CARRIER, up.b.request("UPDATE", &contact, &sdp(ANSWER_IP, 5000, "a=record:off\r\n")));
    let passed = up.world.expect(PBX, "UPDATE ");
    assert_eq!(told(&passed), ["paused"]);
    up.world.event(|event| *event == records(Recording::Off));
}

#[test]
fn a_recording_of_the_far_sides_is_not_passed_to_whoever_is_not_aware() {
    let up = Legs { asked: "", answer: "a=record:on\r\n", ..BOTH }.up();
    assert_eq!(told(&up.ok), [""; 0]);
    assert!(up.world.events.iter().any(|event| matches!(event, Event::Records { .. })), "it is on record");
    up.hang_up();
}

#[test]
fn an_emergency_call_is_left_alone() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "911");
    let lines = "a=record:on\r\na=recordpref:off\r\n";
    world.send(PBX, a.invite(AWARE, &sdp(OFFER_IP, 4000, lines)));
    let call = world.call();
    world.command(Command::Indicate { call, recording: Recording::On });
    let invite = world.expect(CARRIER, "INVITE ");
    assert!(invite.body().contains(lines), "{}", invite.body());
    assert!(
        !world.events.iter().any(|event| matches!(event, Event::Preference { .. } | Event::Records { .. }))
    );
    world.send(
        CARRIER,
        invite.answer(
            "200 OK",
            "psap",
            &format!("Contact: <sip:psap@{CARRIER}>\r\n{AWARE}"),
            &sdp(ANSWER_IP, 5000, ""),
        ),
    );
    world.advance(1_000);
    let sent: Vec<_> = world.take_all(PBX).iter().map(|message| message.body()).collect();
    assert!(!sent.iter().any(|body| body.contains("a=record:")), "{sent:?}");
}

#[test]
fn whoever_takes_a_place_is_told_and_heard_for_itself() {
    let mut talk = Talk::new();
    let call = talk.world.open_calls()[0];
    // R and L say in mid-call that they are aware.
    let aware = format!("{}{AWARE}", talk.r.contact());
    talk.world.send(CARRIER, talk.r.request("UPDATE", &aware, ""));
    let passed = talk.world.expect(PBX, "UPDATE ");
    let aware = format!("{}{AWARE}", talk.l.contact());
    talk.world.send(PBX, passed.answer("200 OK", "", &aware, ""));
    talk.world.expect(CARRIER, "SIP/2.0 200 OK");
    talk.world.command(Command::Indicate { call, recording: Recording::On });
    for (at, ip, port) in [(CARRIER, ANSWER_IP, 5000), (PBX, OFFER_IP, 4000)] {
        let update = talk.world.expect(at, "UPDATE ");
        let contact = if at == PBX { talk.l.contact() } else { talk.r.contact() };
        talk.world.send(at, update.answer("200 OK", "", &contact, &sdp(ip, port, "")));
    }
    talk.referred("<sip:7355@10.1.0.10>");
    talk.answered_by_target(&sdp(TARGET_IP, 6000, "a=recordpref:on\r\n"));
    let (reinvite, ack) = talk.joined();
    assert_eq!(
        (told(&reinvite), told(&ack)),
        (vec!["on".to_owned()], vec![]),
        "T has not said that it is aware"
    );
    let heard = talk.world.events.iter().filter_map(|event| match event {
        Event::Changed { change: Change::Replaced { .. }, .. } => Some("replaced"),
        Event::Preference { leg: Leg::B, preference: RecordPreference::On, trusted: true, .. } => {
            Some("wish")
        }
        _ => None,
    });
    assert_eq!(heard.collect::<Vec<_>>(), ["replaced", "wish"], "it is T's wish, and not L's");
    talk.notified("SIP/2.0 200 OK", "terminated");
    talk.left();
    talk.world.command(Command::Indicate { call, recording: Recording::Off });
    let update = talk.world.expect(CARRIER, "UPDATE ");
    assert_restated(&update, &reinvite, "off");
    talk.world.send(CARRIER, update.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, "")));
    talk.world.advance(5_000);
    talk.hang_up();
}
