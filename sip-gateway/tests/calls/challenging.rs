//! A PBX that has to prove itself to us (RFC 3261 §22.1, RFC 8760 §2.3).

use sip_gateway::{Algorithm, Event};

use crate::proof::*;
use crate::world::*;

const REALM: &str = "gw1";

fn strict() -> World {
    let mut config = config();
    let mut known = account();
    known.challenge = Some(REALM.to_owned());
    config.peers[0].account = Some(known);
    World::with(config)
}

/// The challenges of the 401 that a request gets.
#[track_caller]
fn challenges(world: &mut World, request: String) -> Vec<String> {
    world.send(PBX, request);
    let refusal = world.expect(PBX, "SIP/2.0 401 Unauthorized");
    assert!(refusal.tag("To").is_some());
    refusal.headers().all("WWW-Authenticate").map(str::to_owned).collect()
}

/// A caller that has got its challenge.
fn challenged(world: &mut World, dialled: &str) -> (Ua, Prover) {
    let mut a = Ua::caller(PBX, dialled);
    let offered = challenges(world, a.invite("", &sdp(OFFER_IP, 4000, "")));
    (a, Prover::new(&offered[0]))
}

/// A proven call that is up.
fn up() -> (Up, Prover) {
    let mut world = strict();
    let (mut a, mut prover) = challenged(&mut world, "18605550100");
    let field = prover.field("INVITE", &a.uri);
    world.send(PBX, a.invite(&field, &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    let b = Ua::callee(CARRIER, &invite, "callees-tag");
    world.send(CARRIER, invite.answer("200 OK", "callees-tag", &b.contact(), &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 OK");
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(CARRIER, "ACK ");
    (Up { world, a, b, invite, ok }, prover)
}

#[test]
fn an_invite_is_challenged_with_three_algorithms_and_nothing_is_kept_of_it() {
    let mut world = strict();
    let mut a = Ua::caller(PBX, "100");
    let offered = challenges(&mut world, a.invite("", ""));
    let algorithms: Vec<_> = offered.iter().map(|field| param(field, "algorithm")).collect();
    assert_eq!(algorithms, ["SHA-512-256", "SHA-256", "MD5"]);
    for field in &offered {
        assert_eq!((param(field, "realm"), param(field, "qop")), (REALM, "auth"));
        assert_eq!(find(field, "stale"), None);
        assert_eq!(param(field, "nonce"), param(&offered[0], "nonce"));
    }
    assert!(world.events.is_empty(), "no call is offered");
    world.expect_nothing(CARRIER);
    let counters = world.core.counters();
    assert_eq!((counters.transactions, counters.timers, counters.challenged), (0, 0, 1));
    // The ACK of the 401 belongs to nobody, and is dropped.
    let refusal = Msg::new(world.sent[0].1.clone());
    world.send(PBX, a.ack_failure(&refusal));
    world.expect_nothing(PBX);
}

#[test]
fn the_district_may_offer_fewer_algorithms() {
    let mut config = config();
    let mut known = account();
    known.challenge = Some(REALM.to_owned());
    known.algorithms = vec![Algorithm::Sha256];
    config.peers[0].account = Some(known);
    let mut world = World::with(config);
    let mut a = Ua::caller(PBX, "100");
    let offered = challenges(&mut world, a.invite("", ""));
    assert_eq!(offered.len(), 1);
    let downgraded = offered[0].replace("SHA-256", "MD5");
    let field = Prover::new(&downgraded).field("INVITE", &a.uri);
    assert_eq!(challenges(&mut world, a.invite(&field, "")).len(), 1);
}

#[test]
fn each_algorithm_lets_the_call_through_and_its_credentials_go_no_further() {
    for index in 0..3 {
        let mut world = strict();
        let mut a = Ua::caller(PBX, "100");
        let offered = challenges(&mut world, a.invite("", ""));
        let field = Prover::new(&offered[index]).field("INVITE", &a.uri);
        world.send(PBX, a.invite(&field, ""));
        world.expect(PBX, "SIP/2.0 100 ");
        let invite = world.expect(CARRIER, "INVITE ");
        assert!(!invite.text().contains("uthorization") && !invite.text().contains(USER));
        world.event(|event| matches!(event, Event::Offered(_)));
    }
}

#[test]
fn a_proven_call_goes_its_way_and_ends_without_another_challenge() {
    up().0.hang_up();
}

#[test]
fn a_wrong_password_or_name_is_challenged_again_without_stale() {
    let mut world = strict();
    let (mut a, mut prover) = challenged(&mut world, "100");
    prover.password = "wrong".to_owned();
    let field = prover.field("INVITE", &a.uri);
    let again = challenges(&mut world, a.invite(&field, ""));
    assert_eq!(find(&again[0], "stale"), None);
    prover.password = PASSWORD.to_owned();
    let field = prover.field("INVITE", &a.uri).replace(USER, "somebody");
    challenges(&mut world, a.invite(&field, ""));
    let counters = world.core.counters();
    assert_eq!((counters.challenged, counters.refused_credentials), (3, 2));
    assert!(world.events.is_empty());
}

#[test]
fn an_expired_nonce_is_stale_and_the_next_one_good() {
    let mut world = strict();
    let (mut a, mut prover) = challenged(&mut world, "100");
    world.advance(300_001);
    let field = prover.field("INVITE", &a.uri);
    let offered = challenges(&mut world, a.invite(&field, ""));
    assert!(offered.iter().all(|field| find(field, "stale") == Some("true")));
    let field = Prover::new(&offered[1]).field("INVITE", &a.uri);
    world.send(PBX, a.invite(&field, ""));
    world.expect(CARRIER, "INVITE ");
}

#[test]
fn credentials_overheard_are_worth_nothing() {
    let mut world = strict();
    let (mut a, mut prover) = challenged(&mut world, "100");
    let field = prover.field("INVITE", &a.uri);
    world.send(PBX, a.invite(&field, ""));
    world.take_all(PBX);
    let mut thief = Ua::caller(PBX, "100");
    (thief.call_id, thief.branch) = ("thief".to_owned(), 900);
    let offered = challenges(&mut world, thief.invite(&field, ""));
    assert_eq!(find(&offered[0], "stale"), Some("true"), "the count was used");
    let mut elsewhere = Ua::caller(PBX, "900555");
    (elsewhere.call_id, elsewhere.branch) = ("elsewhere".to_owned(), 950);
    let other = prover.field("INVITE", &a.uri);
    assert_eq!(find(&challenges(&mut world, elsewhere.invite(&other, ""))[0], "stale"), None);
    // The PBX itself goes on with the same nonce.
    let mut second = Ua::caller(PBX, "200");
    (second.call_id, second.branch) = ("second".to_owned(), 990);
    let field = prover.field("INVITE", &second.uri);
    world.send(PBX, second.invite(&field, ""));
    world.expect(PBX, "SIP/2.0 100 ");
}

#[test]
fn a_repeated_proven_invite_is_absorbed_not_challenged() {
    let mut world = strict();
    let (mut a, mut prover) = challenged(&mut world, "100");
    let field = prover.field("INVITE", &a.uri);
    let text = a.invite(&field, "");
    world.send(PBX, &text);
    world.send(PBX, &text);
    let answers = world.take_all(PBX);
    assert!(answers.iter().all(|answer| answer.response().status == 100), "{answers:?}");
}

#[test]
fn requests_inside_that_could_change_the_call_are_challenged() {
    let offer = sdp(OFFER_IP, 4000, "a=sendonly\r\n");
    for (method, body, then) in [("INVITE", offer.as_str(), 100), ("UPDATE", &offer, 0), ("REFER", "", 400)] {
        let (mut up, mut prover) = up();
        let contact = up.a.contact();
        let offered = challenges(&mut up.world, up.a.request(method, &contact, body));
        assert_eq!(offered.len(), 3, "{method}");
        up.world.expect_nothing(CARRIER);
        let field = prover.field(method, &up.a.target);
        up.world.send(PBX, up.a.request(method, &format!("{contact}{field}"), body));
        match then {
            0 => up.world.expect_nothing(PBX),
            status => {
                up.world.expect(PBX, &format!("SIP/2.0 {status} "));
            }
        }
        if then != 400 {
            assert!(!up.world.expect(CARRIER, method).text().contains("uthorization"));
        }
    }
}

#[test]
fn what_must_not_or_need_not_be_challenged_is_not() {
    let (mut up, _) = up();
    up.world.send(PBX, up.a.request("INFO", "", "x"));
    let info = up.world.expect(CARRIER, "INFO ");
    up.world.send(CARRIER, info.answer("200 OK", "", "", ""));
    up.world.expect(PBX, "SIP/2.0 200 ");
    up.world.send(PBX, up.a.request("OPTIONS", "", ""));
    up.world.expect(PBX, "SIP/2.0 200 ");
    up.hang_up();

    let mut world = strict();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.request("OPTIONS", "", ""));
    world.expect(PBX, "SIP/2.0 200 ");
    world.send(PBX, a.request("ACK", "", ""));
    world.expect_nothing(PBX);
    world.send(PBX, a.request("CANCEL", "", ""));
    world.expect(PBX, "SIP/2.0 481 ");
    world.send(PBX, a.request("BYE", "", ""));
    world.expect(PBX, "SIP/2.0 481 ");
    // A request in no dialog of ours learns nothing either.
    a.remote.push_str(";tag=unknown");
    world.send(PBX, a.request("BYE", "", ""));
    world.expect(PBX, "SIP/2.0 481 ");
}

#[test]
fn new_requests_of_every_other_kind_are_challenged() {
    let methods = ["REGISTER", "SUBSCRIBE", "MESSAGE", "PUBLISH", "FROBNICATE"].map(|method| (method, 405));
    for (method, refused) in methods.into_iter().chain([("REFER", 403)]) {
        let mut world = strict();
        let mut a = Ua::caller(PBX, "100");
        let offered = challenges(&mut world, a.request(method, "", ""));
        let field = Prover::new(&offered[0]).field(method, &a.uri);
        world.send(PBX, a.request(method, &field, ""));
        world.expect(PBX, &format!("SIP/2.0 {refused} "));
    }
}

#[test]
fn the_proven_caller_may_cancel() {
    let mut world = strict();
    let (mut a, mut prover) = challenged(&mut world, "100");
    let field = prover.field("INVITE", &a.uri);
    world.send(PBX, a.invite(&field, ""));
    world.expect(PBX, "SIP/2.0 100 ");
    world.send(PBX, a.request("CANCEL", "", ""));
    world.expect(PBX, "SIP/2.0 200 ");
    world.expect(PBX, "SIP/2.0 487 ");
}

#[test]
fn an_emergency_call_is_never_challenged_nor_is_anything_inside_it() {
    for dialled in ["911", "9911", "933", "+1911"] {
        let mut world = strict();
        let mut a = Ua::caller(PBX, dialled);
        world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
        world.expect(PBX, "SIP/2.0 100 ");
        let invite = world.expect(CARRIER, "INVITE ");
        let contact = "Contact: <sip:x@10.2.0.20:5060>\r\n";
        world.send(CARRIER, invite.answer("200 OK", "t", contact, &sdp(ANSWER_IP, 5000, "")));
        a.learn(&world.expect(PBX, "SIP/2.0 200 "));
        world.send(PBX, a.request("ACK", "", ""));
        world.expect(CARRIER, "ACK ");
        let contact = a.contact();
        world.send(PBX, a.request("INVITE", &contact, &sdp(OFFER_IP, 4000, "a=sendonly\r\n")));
        world.expect(PBX, "SIP/2.0 100 ");
        world.expect(CARRIER, "INVITE ");
        assert_eq!(world.core.counters().challenged, 0);
    }
}

/// Its INVITE, and what changes its call; not what calls somebody else or takes another's place, as anybody who writes
/// the mark could.
#[test]
fn a_call_back_is_challenged_where_it_reaches_for_more() {
    let mut config = config();
    let known = sip_gateway::Account { challenge: Some(REALM.to_owned()), ..account() };
    config.peers[1].account = Some(known);
    config.peers[1].may_refer = true;
    let crate::transfer::Talk { mut world, mut r, .. } = crate::emergency::called_back(World::with(config));
    let contact = r.contact();
    world.send(CARRIER, r.request("INVITE", &contact, &sdp(ANSWER_IP, 5000, "a=sendonly\r\n")));
    world.expect(CARRIER, "SIP/2.0 100 ");
    let reinvite = world.expect(PBX, "INVITE ");
    world.send(PBX, reinvite.answer("488 Not Acceptable Here", "", "", ""));
    let refused = world.expect(CARRIER, "SIP/2.0 488 ");
    world.send(CARRIER, r.ack_failure(&refused));
    assert_eq!(world.core.counters().challenged, 0);
    let fields = format!("{contact}Refer-To: <sip:+33123456789@10.2.0.20>\r\n");
    world.send(CARRIER, r.request("REFER", &fields, ""));
    world.expect(CARRIER, "SIP/2.0 401 ");
    let mut other = Ua::caller(CARRIER, "7310");
    other.call_id = "other".to_owned();
    let replaces = crate::joining::replacing(&r);
    world.send(CARRIER, other.invite(&format!("Priority: psap-callback\r\n{replaces}"), ""));
    world.expect(CARRIER, "SIP/2.0 401 ");
}

#[test]
fn another_peer_is_not_challenged() {
    let mut world = strict();
    let mut a = Ua::caller(CARRIER, "7331");
    world.send(CARRIER, a.invite("", ""));
    world.expect(CARRIER, "SIP/2.0 100 ");
}
