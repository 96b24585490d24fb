//! Emergency calls: the static path.

use consent::Side;
use sip_gateway::{Command, Event, Transport};

use crate::joining::{naming, replacing, taker};
use crate::proof::account;
use crate::transfer::{TARGET_IP, Talk, call_in};
use crate::world::*;

fn multipart() -> (String, String) {
    let sdp = sdp(OFFER_IP, 4000, "");
    let body = format!(
        "--b\r\nContent-Type: application/pidf+xml\r\nContent-ID: <loc@x>\r\n\r\n<presence>\u{1}</presence>\r\n\
         --b\r\nContent-Type: application/sdp\r\nContent-ID: <sdp@x>\r\n\r\n{sdp}\r\n\
         --b\r\nContent-Type: application/EmergencyCallData.SubscriberInfo+xml\r\n\r\n<x/>\r\n--b--\r\n"
    );
    ("Content-Type: multipart/mixed;boundary=b\r\n".to_owned(), body)
}

#[test]
fn headers_and_body_parts_pass_byte_for_byte() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "9911");
    let (content_type, body) = multipart();
    let extra = "Geolocation: <cid:loc@x>\r\nGeolocation-Routing: yes\r\nSupported: 100rel, geolocation-sip, timer\r\n\
                 Require: geolocation-sip, martian\r\nAllow: PRACK, INVITE\r\nX-Consent: 1\r\nSession-Expires: 90\r\n\
                 P-Access-Network-Info: IEEE-802.3;eth-location=\"x\"\r\nResource-Priority: esnet.1\r\n";
    world.send(PBX, a.invite(&format!("{extra}{content_type}"), &body));
    let invite = world.expect(CARRIER, "INVITE sip:911@10.2.0.20 ");
    let Event::Offered(offer) = world.event(|e| matches!(e, Event::Offered(_))) else { unreachable!() };
    assert!(offer.emergency && offer.media.is_some());
    for field in extra.lines() {
        let (name, value) = field.split_once(": ").unwrap();
        assert_eq!(invite.get(name), value, "{name}");
    }
    let sent = invite.body();
    assert!(sent.contains("m=audio 20002 ") && !sent.contains(OFFER_IP));
    let parts = |text: &str| -> Vec<String> { text.split("--b").map(str::to_owned).collect() };
    let (before, after) = (parts(&body), parts(&sent));
    assert_eq!(before.len(), after.len());
    for index in [0, 1, 3, 4] {
        assert_eq!(before[index], after[index]);
    }
    assert!(after[2].starts_with("\r\nContent-Type: application/sdp\r\nContent-ID: <sdp@x>\r\n\r\nv=0"));
}

#[test]
fn the_second_trunk_is_tried_at_once_on_any_failure() {
    for failure in ["404 Not Found", "486 Busy", "500 Oops", "603 Decline", "302 Moved"] {
        let mut world = World::new();
        let mut a = Ua::caller(PBX, "911");
        world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
        let first = world.expect(CARRIER, "INVITE ");
        world.send(CARRIER, first.answer("183 Session Progress", "t", "", ""));
        world.send(CARRIER, first.answer(failure, "t", "", ""));
        world.expect(CARRIER2, "INVITE sip:911@10.3.0.30 ");
        assert_eq!(world.core.calls(), 1);
    }
}

/// A call to 911 whose first trunk says nothing, until the second is called as well: the caller and both INVITEs.
fn silent() -> (World, Ua, Msg, Msg) {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "911");
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let first = world.expect(CARRIER, "INVITE ");
    world.advance(1_499);
    world.expect_nothing(CARRIER2);
    world.advance(1);
    let second = world.expect(CARRIER2, "INVITE sip:911@");
    world.take_all(CARRIER);
    (world, a, first, second)
}

/// A call to 911 whose first trunk says 100 and no more, until the second is called as well: the caller and
/// both INVITEs.
fn trying() -> (World, Ua, Msg, Msg) {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "911");
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let first = world.expect(CARRIER, "INVITE ");
    world.advance(100);
    for _ in 0..2 {
        world.send(CARRIER, first.answer("100 Trying", "", "", ""));
        world.advance(4_999);
    }
    world.expect_nothing(CARRIER2);
    world.advance(2);
    let second = world.expect(CARRIER2, "INVITE sip:911@");
    world.expect_nothing(CARRIER);
    (world, a, first, second)
}

fn answer(invite: &Msg, at: &str) -> String {
    let tag = if at == CARRIER { "one" } else { "two" };
    let host = at.trim_end_matches(":5060");
    invite.answer("200 OK", tag, &format!("Contact: <sip:x@{at}>\r\n"), &sdp(host, 5000, ""))
}

/// This trunk's INVITE is given up before it has answered.
fn cancelled(world: &mut World, invite: &Msg, at: &str) {
    let cancel = world.expect(at, "CANCEL ");
    world.send(at, cancel.answer("200 OK", "", "", ""));
    world.send(at, invite.answer("487 Request Terminated", "two", "", ""));
    world.expect(at, "ACK ");
}

/// This trunk's answer comes too late.
fn hung_up(world: &mut World, at: &str) {
    world.expect(at, "ACK ");
    let bye = world.expect(at, "BYE ");
    world.send(at, bye.answer("200 OK", "", "", ""));
}

/// The call is up at this trunk, and ends.
fn talks(mut world: World, mut a: Ua, at: &str) {
    a.learn(&world.expect(PBX, "SIP/2.0 200 "));
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(at, "ACK ");
    world.send(PBX, a.request("BYE", "", ""));
    let bye = world.expect(at, "BYE ");
    world.send(at, bye.answer("200 OK", "", "", ""));
    assert_eq!(world.ended().len(), 1);
    world.assert_clean();
}

/// RFC 3261 §9.1, §13.2.2.4.
#[test]
fn a_silent_trunk_costs_a_second_and_a_half_and_the_first_answer_wins() {
    // The second has answered: the late answer of the first is hung up.
    let (mut world, a, first, second) = silent();
    world.send(CARRIER2, answer(&second, CARRIER2));
    world.send(CARRIER, answer(&first, CARRIER));
    hung_up(&mut world, CARRIER);
    talks(world, a, CARRIER2);

    // The first answers after all, while the second says nothing.
    let (mut world, a, first, second) = silent();
    world.advance(100);
    world.send(CARRIER, answer(&first, CARRIER));
    world.expect_nothing(CARRIER2);
    world.send(CARRIER2, second.answer("180 Ringing", "two", "", ""));
    cancelled(&mut world, &second, CARRIER2);
    talks(world, a, CARRIER);
}

#[test]
fn a_refusal_of_the_second_trunk_ends_nothing_while_the_first_may_yet_speak() {
    for refusal in ["403 Forbidden", "503 No"] {
        let (mut world, a, first, second) = silent();
        world.send(CARRIER2, second.answer(refusal, "two", "", ""));
        world.expect(CARRIER2, "ACK ");
        world.advance(4_999);
        world.expect_nothing(PBX);
        world.take_all(CARRIER);
        world.send(CARRIER, first.answer("100 Trying", "", "", ""));
        world.advance(60_000);
        world.expect_nothing(PBX);
        world.send(CARRIER, answer(&first, CARRIER));
        talks(world, a, CARRIER);
    }
}

#[test]
fn a_trunk_that_never_speaks_holds_up_the_failure_of_the_others_for_six_seconds_and_a_half() {
    // Silence before the refusal, and after it.
    for last_refuses in [true, false] {
        let (mut world, mut a, first, second) = silent();
        let (refused, at, silent, other, left_ms) = match last_refuses {
            true => (second, CARRIER2, first, CARRIER, 5_000),
            false => (first, CARRIER, second, CARRIER2, 6_500),
        };
        world.send(at, refused.answer("403 Forbidden", "t", "", ""));
        world.expect(at, "ACK ");
        world.advance(left_ms - 1);
        world.expect_nothing(PBX);
        world.advance(1);
        let failed = world.expect(PBX, "SIP/2.0 403 ");
        world.send(PBX, a.ack_failure(&failed));
        // Too late.
        world.take_all(other);
        world.send(other, answer(&silent, other));
        hung_up(&mut world, other);
        world.assert_clean();
    }
    // Whoever rang in the meantime has used it up.
    let (mut world, _, _, second) = silent();
    world.send(CARRIER2, second.answer("180 Ringing", "two", "", ""));
    world.expect(PBX, "SIP/2.0 180 ");
    world.advance(10_000);
    world.send(CARRIER2, second.answer("486 Busy", "two", "", ""));
    world.expect(PBX, "SIP/2.0 486 ");
    // Two that say nothing have Timer B: a network may come back.
    let (mut world, a, _, second) = silent();
    world.advance(29_000);
    world.expect_nothing(PBX);
    world.take_all(CARRIER2);
    world.send(CARRIER2, answer(&second, CARRIER2));
    talks(world, a, CARRIER2);
}

/// RFC 3261 §9.1, §13.2.2.4, §16.7.
#[test]
fn a_trunk_that_says_no_more_than_trying_is_not_waited_for_alone() {
    let (mut world, a, first, second) = trying();
    // The second wins; the first is given up, and its answer crosses the CANCEL.
    world.send(CARRIER2, answer(&second, CARRIER2));
    let cancel = world.expect(CARRIER, "CANCEL ");
    world.send(CARRIER, cancel.answer("200 OK", "", "", ""));
    world.send(CARRIER, answer(&first, CARRIER));
    hung_up(&mut world, CARRIER);
    talks(world, a, CARRIER2);

    let (mut world, a, first, second) = trying();
    world.send(CARRIER2, second.answer("183 Session Progress", "two", "", ""));
    world.expect(PBX, "SIP/2.0 183 ");
    world.send(CARRIER, answer(&first, CARRIER));
    cancelled(&mut world, &second, CARRIER2);
    talks(world, a, CARRIER);
}

#[test]
fn what_one_of_two_trunks_says_ends_nothing_while_the_other_may_answer() {
    let (mut world, a, first, second) = trying();
    world.send(CARRIER2, second.answer("503 No", "two", "", ""));
    world.expect(CARRIER2, "ACK ");
    world.advance(60_000);
    world.expect_nothing(PBX);
    world.send(CARRIER, answer(&first, CARRIER));
    talks(world, a, CARRIER);

    let (mut world, mut a, first, second) = trying();
    world.send(CARRIER, first.answer("500 No", "one", "", ""));
    world.send(CARRIER2, second.answer("180 Ringing", "two", "", ""));
    world.expect(PBX, "SIP/2.0 180 ");
    world.send(CARRIER2, second.answer("486 Busy", "two", "", ""));
    let failed = world.expect(PBX, "SIP/2.0 486 ");
    world.send(PBX, a.ack_failure(&failed));
    world.assert_clean();
}

#[test]
fn a_trunk_that_rings_is_waited_for() {
    let (mut world, _, first, second) = trying();
    world.send(CARRIER, first.answer("180 Ringing", "one", "", ""));
    world.expect(PBX, "SIP/2.0 180 ");
    world.advance(20_000);
    assert!(world.take_all(CARRIER2).iter().all(|again| again.bytes == second.bytes), "nobody is given up");
}

#[test]
fn both_trunks_are_given_up_with_the_call() {
    let (mut world, mut a, first, second) = trying();
    world.send(CARRIER2, second.answer("100 Trying", "", "", ""));
    world.send(PBX, a.request("CANCEL", "", ""));
    world.expect(PBX, "SIP/2.0 200 ");
    let failed = world.expect(PBX, "SIP/2.0 487 ");
    world.send(PBX, a.ack_failure(&failed));
    for (at, invite) in [(CARRIER, first), (CARRIER2, second)] {
        let cancel = world.expect(at, "CANCEL ");
        world.send(at, cancel.answer("200 OK", "", "", ""));
        world.send(at, invite.answer("487 Request Terminated", "t", "", ""));
        world.expect(at, "ACK ");
    }
    world.assert_clean();
}

#[test]
fn a_hung_or_refusing_hub_does_not_stop_it() {
    let mut world = World::waiting();
    let mut a = Ua::caller(PBX, "911");
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    world.advance(250);
    let invite = world.expect(CARRIER, "INVITE sip:911@");
    assert!(invite.body().contains(OFFER_IP), "without relay addresses the description passes as it is");

    let mut world = World::waiting();
    world.send(PBX, a.request("INVITE", "", ""));
    let call = world.call();
    world.command(Command::Refuse { call, status: 503, text: "no", retry_after_s: None });
    world.expect(CARRIER, "INVITE sip:911@");
}

#[test]
fn every_form_takes_the_path_and_the_test_number_stays_itself() {
    for (uri, sent) in [
        ("tel:911", "sip:911@10.2.0.20;user=phone"),
        ("sip:+1911@x;user=phone", "sip:911@10.2.0.20;user=phone"),
        ("sip:933@x", "sip:933@10.2.0.20"),
        ("urn:service:sos.fire", "urn:service:sos.fire"),
        ("sips:911@x", "sip:911@10.2.0.20"),
    ] {
        let mut world = World::new();
        let mut a = Ua::caller(PBX, "911");
        a.uri = uri.to_owned();
        world.send(PBX, a.invite("", ""));
        assert_eq!(world.expect(CARRIER, "INVITE ").request().uri, sent);
        assert_eq!(world.core.counters().emergency_calls, 1, "the front desk hears of it");
    }
}

#[test]
fn reliable_provisionals_run_end_to_end() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "911");
    world.send(PBX, a.invite("Supported: 100rel\r\n", &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    let reliable = "Require: 100rel\r\nRSeq: 7\r\nContact: <sip:x@10.2.0.20:5060>\r\n";
    world.send(CARRIER, invite.answer("183 Progress", "t", reliable, &sdp(ANSWER_IP, 5000, "")));
    let progress = world.expect(PBX, "SIP/2.0 183 ");
    assert_eq!((progress.get("RSeq"), progress.get("Require")), ("7", "100rel"));
    a.learn(&progress);
    let rack = format!("RAck: 7 {} INVITE\r\n", a.cseq);
    world.send(PBX, a.request("PRACK", &rack, ""));
    let prack = world.expect(CARRIER, "PRACK ");
    let number = invite.get("CSeq").split(' ').next().unwrap();
    assert_eq!(prack.get("RAck"), format!("7 {number} INVITE"));
    world.send(CARRIER, prack.answer("200 OK", "", "", ""));
    assert!(world.expect(PBX, "SIP/2.0 200 ").get("CSeq").ends_with("PRACK"));
}

/// A second PBX.
const PBX2: &str = "10.4.0.40:5060";

/// RFC 7090 §4. No challenge, no limit, no draining, no hub; the second PBX where the first is silent.
#[test]
fn an_answering_point_that_calls_back_passes_the_same_way() {
    let mut config = config();
    config.limits.max_calls = 0;
    let mut known = account();
    known.challenge = Some("gw1".to_owned());
    config.peers[1].account = Some(known);
    config.peers.push(peer("pbx2", Side::District, PBX2, Transport::Udp));
    let mut world = World::with(config);
    world.hub = Hub::Waits;
    world.command(Command::Drain);
    let mut a = Ua::caller(CARRIER, "7310");
    let (content_type, body) = multipart();
    let extra = "Priority: PSAP-Callback\r\nRequire: martian\r\nSupported: 100rel\r\nProxy-Require: martian\r\n\
                 Allow: PRACK, INVITE\r\nSession-Expires: 600\r\nMin-SE: 90\r\nResource-Priority: esnet.1\r\n";
    // Its mark makes nobody believed who is not, and opens no other field.
    let forged = "X-Consent: 1\r\nP-Asserted-Identity: <sip:7300@district.example>\r\nAttestation-Info: A\r\n\
                  Path: <sip:10.2.0.7;lr>\r\nService-Route: <sip:10.2.0.7;lr>\r\nIn-Reply-To: 1@10.2.0.7\r\n\
                  Target-Dialog: 1@10.2.0.7;local-tag=1;remote-tag=2\r\nSecurity-Client: ipsec-3gpp;x=10.2.0.7\r\n";
    world.send(CARRIER, a.invite(&format!("{extra}{forged}{content_type}"), &body));
    world.expect(CARRIER, "SIP/2.0 100 ");
    world.advance(250);
    let invite = world.expect(PBX, "INVITE sip:7310@10.1.0.10 ");
    for field in extra.lines() {
        let (name, value) = field.split_once(": ").unwrap();
        assert_eq!(invite.get(name), value, "{name}");
    }
    for field in forged.lines() {
        let (name, _) = field.split_once(": ").unwrap();
        assert!(!invite.text().contains(name), "{name}");
    }
    assert_eq!(invite.body(), body);
    world.advance(1_500);
    let second = world.expect(PBX2, "INVITE sip:7310@10.4.0.40 ");
    // What either could have done has an address of the district's.
    for (at, invite) in [(PBX, invite), (PBX2, second)] {
        world.send(at, invite.answer("488 Not Acceptable Here", "t", "", &sdp(OFFER_IP, 4000, "")));
    }
    let refused = world.expect(CARRIER, "SIP/2.0 488 ");
    assert!(refused.body().is_empty() && !refused.headers().contains("Content-Type"), "{}", refused.text());
    world.event(|event| matches!(event, Event::Offered(offer) if offer.emergency));
    assert_eq!(world.core.counters().emergency_calls, 0, "nobody has called for help");
}

/// A dispatch line is recorded whatever its caller says, but neither limit nor draining stops the call.
#[test]
fn a_call_back_is_believed_of_the_public_side_and_silences_no_dispatch_line() {
    for (from, dialled, emergency) in
        [(CARRIER, "7310", true), (CARRIER, DISPATCH, false), (PBX, "100", false)]
    {
        let mut world = World::new();
        if from == CARRIER {
            world.command(Command::Drain);
        }
        let mut a = Ua::caller(from, dialled);
        world.send(from, a.invite("Priority: psap-callback\r\n", &sdp(OFFER_IP, 4000, "")));
        let Event::Offered(offer) = world.event(|e| matches!(e, Event::Offered(_))) else { unreachable!() };
        assert_eq!(offer.emergency, emergency, "{from} {dialled}");
    }
    let mut world = World::new();
    let mut a = Ua::caller(CARRIER, "7310");
    let replaces = "Replaces: x;to-tag=1;from-tag=2\r\n";
    world.send(CARRIER, a.invite(&format!("Priority: psap-callback\r\n{replaces}"), ""));
    world.expect(CARRIER, "SIP/2.0 481 ");
}

#[test]
fn a_call_back_follows_the_telephone_that_it_calls() {
    let mut world = World::new();
    let mut a = Ua::caller(CARRIER, "7310");
    world.send(CARRIER, a.invite("Priority: psap-callback\r\n", &sdp(OFFER_IP, 4000, "")));
    let invite = world.expect(PBX, "INVITE sip:7310@");
    crate::redirect::redirect(&mut world, &invite, "Contact: <sip:7311@10.1.0.10>\r\n");
    let invite = world.expect(PBX, "INVITE sip:7311@10.1.0.10 ");
    assert_eq!(invite.get("Priority"), "psap-callback");
}

/// RFC 7090 §4: the mark alone opens no way past the relay.
#[test]
fn a_description_that_cannot_be_read_crosses_in_the_call_back_of_a_peer_that_is_believed() {
    let broken = sdp(OFFER_IP, 4000, "").replace("v=0", "v=9");
    let unreadable = ("Content-Type: application/sdp\r\n", broken.as_str());
    for believed in [false, true] {
        let calls_back = |(kind, body): (&str, &str)| {
            let mut config = config();
            config.peers[1].trusts_identity = believed;
            let mut world = World::with(config);
            let mut a = Ua::caller(CARRIER, "7310");
            world.send(CARRIER, a.invite(&format!("Priority: psap-callback\r\n{kind}"), body));
            world
        };
        let mut world = calls_back(unreadable);
        match believed {
            false => assert!(world.expect(CARRIER, "SIP/2.0 488 ").headers().contains("Warning")),
            true => assert_eq!(world.expect(PBX, "INVITE ").body(), broken),
        }
        let mut world = calls_back(("", &sdp(ANSWER_IP, 5000, "")));
        world.expect(CARRIER, "SIP/2.0 100 ");
        let invite = world.expect(PBX, "INVITE ");
        let fields = format!("Contact: <sip:l@{PBX}>\r\n{}", unreadable.0);
        world.send(PBX, invite.answer("200 OK", "l", &fields, &broken));
        match believed {
            false => assert_eq!(world.expect(CARRIER, "SIP/2.0 502 ").body(), ""),
            true => assert_eq!(world.expect(CARRIER, "SIP/2.0 200 ").body(), broken),
        }
    }
}

/// A call-back that the PBX's telephone, L, has answered.
pub fn called_back(world: World) -> Talk {
    let mut r = Ua::caller(CARRIER, "7310");
    r.local = "<sip:psap@10.2.0.20>;tag=psap".to_owned();
    Talk::by(world, r, "Priority: psap-callback\r\n")
}

#[test]
fn a_change_of_a_call_back_shows_no_description_before_it_is_answered() {
    let Talk { mut world, mut r, .. } = called_back(World::new());
    let contact = r.contact();
    world.send(CARRIER, r.request("INVITE", &contact, &sdp(ANSWER_IP, 5002, "")));
    world.expect(CARRIER, "SIP/2.0 100 ");
    let reinvite = world.expect(PBX, "INVITE ");
    world.send(PBX, reinvite.answer("183 Session Progress", "", "", &sdp(OFFER_IP, 4002, "")));
    let progress = world.expect(CARRIER, "SIP/2.0 183 ");
    assert!(
        progress.body().is_empty() && !progress.headers().contains("Content-Type"),
        "{}",
        progress.text()
    );
}

/// RFC 7090 §4 says nothing against it: the front desk passes it on to who called for help.
#[test]
fn a_call_back_is_transferred_as_any_call_and_has_no_timer_of_ours() {
    let mut talk = called_back(World::new());
    talk.referred("<sip:7355@10.1.0.10>");
    let (invite, _) = talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
    assert!(!invite.headers().contains("Session-Expires") && !invite.headers().contains("Supported"));
    talk.joined();
    talk.notified("SIP/2.0 200 OK", "terminated");
    talk.left();
    talk.world.advance(7_200_000);
    talk.hang_up();

    // Nobody is believed for being transferred, and whoever is called sees of nobody more than in any call.
    for (refer_to, at) in [("<sip:7355@10.1.0.10>", PBX), ("<sip:8605550199@10.2.0.20;x=10.1.0.10>", CARRIER)]
    {
        let mut r = Ua::caller(CARRIER, "7310");
        r.local = "<sip:8605550100;verstat=TN-Validation-Passed@10.2.0.20>;tag=psap".to_owned();
        let forged = "P-Asserted-Identity: <sip:7300@district.example>\r\nPrivacy: user\r\n";
        let mut talk = Talk::by(World::new(), r, &format!("Priority: psap-callback\r\n{forged}"));
        talk.refer(refer_to, "Referred-By: <sip:7310@10.1.0.10;x=10.1.0.10>\r\n");
        talk.world.expect(PBX, "SIP/2.0 202 ");
        talk.notified("SIP/2.0 100 Trying", "active");
        let invite = talk.world.expect(at, "INVITE ");
        let text = invite.text();
        assert!(!text.contains("P-Asserted-Identity") && !text.contains("verstat"), "{text}");
        if at == CARRIER {
            assert!(invite.get("From").contains("<sip:anonymous@anonymous.invalid>"), "{text}");
            assert_eq!(invite.get("Referred-By"), "<sip:7310@10.0.0.1>");
            assert!(!text.contains("10.1.0."), "{text}");
        }
    }

    // Whoever is busy is called once.
    let mut talk = called_back(World::new());
    talk.referred("<sip:7355@10.1.0.10>");
    let invite = talk.world.expect(PBX, "INVITE ");
    talk.world.send(PBX, invite.answer("486 Busy Here", "t", "", ""));
    talk.world.expect(PBX, "ACK ");
    talk.notified("SIP/2.0 486 Busy Here", "terminated");
    talk.hang_up();
}

/// The word of whoever marked it is not that of whoever takes its place.
#[test]
fn a_call_back_that_changes_hands_is_believed_no_more_than_before() {
    let mut config = config();
    config.peers[1].may_refer = true;
    let Talk { mut world, mut r, mut l } = called_back(World::with(config));
    let fields = format!("{}Refer-To: <sip:7355@10.1.0.10>\r\nRefer-Sub: false\r\n", r.contact());
    world.send(CARRIER, r.request("REFER", &fields, ""));
    world.expect(CARRIER, "SIP/2.0 202 ");
    let invite = world.expect(PBX, "INVITE sip:7355@");
    let mut t = Ua::callee(PBX, &invite, "t");
    world.send(PBX, invite.answer("200 OK", "t", &t.contact(), &sdp(TARGET_IP, 4400, "")));
    let reinvite = world.expect(PBX, "INVITE sip:line@");
    world.send(PBX, reinvite.answer("200 OK", "", &l.contact(), &sdp(OFFER_IP, 4000, "")));
    world.take_all(PBX);
    for (from, forged) in [(&mut t, "X-Consent: 1\r\n"), (&mut l, "X-Earmark-Line: 1\r\n")] {
        world.send(PBX, from.request("INFO", forged, ""));
        let info = world.expect(PBX, "INFO ");
        assert!(!info.text().contains("X-"), "{}", info.text());
        world.send(PBX, info.answer("200 OK", "", "", ""));
        world.expect(PBX, "SIP/2.0 200 ");
    }
}

#[test]
fn a_call_back_is_picked_up_by_replaces_and_lent() {
    let mut talk = called_back(World::new());
    let mut t = taker();
    talk.world.send(PBX, t.invite(&replacing(&talk.l), &sdp(TARGET_IP, 4400, "")));
    talk.world.expect(PBX, "SIP/2.0 100 ");
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, "")));
    t.learn(&talk.world.expect(PBX, "SIP/2.0 200 "));

    // L has a second call, and joins the far ends of the two: in here, or there.
    for here in [true, false] {
        let Talk { mut world, r, l } = called_back(World::new());
        let (q, x) = call_in(&mut world, "18607427310", "second");
        let (asked, named, mut talk) = match here {
            true => (q.call_id.clone(), x, Talk { world, r, l }),
            false => (r.call_id, l, Talk { world, r: q, l: x }),
        };
        talk.referred(&naming(&named));
        let reinvite = talk.world.expect(CARRIER, "INVITE ");
        assert_eq!(reinvite.get("Call-ID"), asked);
        assert_eq!(reinvite.headers().contains("Session-Expires"), !here, "{}", reinvite.text());
    }
}
