//! A carrier that wants credentials of us (RFC 3261 §22.2, §22.3): the caller notices nothing.

use consent::Side;
use sip_gateway::{Algorithm, Event, Transport};

use crate::failover::{dns, named, resolve};
use crate::proof::*;
use crate::transports::on_stream;
use crate::world::*;

pub const MD5: &str = "Digest realm=\"carrier\", nonce=\"n1\", algorithm=MD5, qop=\"auth\"";

/// A world whose carrier has an account of ours.
fn trunk() -> World {
    let mut config = config();
    config.peers[1].account = Some(account());
    World::with(config)
}

fn proxy(challenge: &str) -> String {
    format!("Proxy-Authenticate: {challenge}\r\n")
}

pub fn origin(challenge: &str) -> String {
    format!("WWW-Authenticate: {challenge}\r\n")
}

/// The carrier refuses a request with a challenge; an INVITE's refusal gets its ACK.
#[track_caller]
fn challenge(world: &mut World, request: &Msg, status: &str, fields: &str) {
    world.send(CARRIER, request.answer(status, "challenger", fields, ""));
    if request.request().method.as_str() == "INVITE" {
        let ack = world.expect(CARRIER, "ACK ");
        assert_eq!((ack.get("Via"), ack.get("CSeq")), (request.get("Via"), ack_of(request).as_str()));
        assert!(!ack.headers().contains("Proxy-Authorization"), "the ACK of a failure is its transaction's");
    }
}

fn ack_of(invite: &Msg) -> String {
    invite.get("CSeq").replace("INVITE", "ACK")
}

pub fn number(message: &Msg) -> u32 {
    message.get("CSeq").split(' ').next().unwrap().parse().unwrap()
}

/// Sends a call and answers the carrier's 407 to it.
fn challenged_call(world: &mut World) -> (Ua, Msg, Msg) {
    let mut a = Ua::caller(PBX, "18605550100");
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let bare = world.expect(CARRIER, "INVITE ");
    assert!(!bare.headers().contains("Proxy-Authorization"), "nothing is sent unasked");
    challenge(world, &bare, "407 Proxy Authentication Required", &proxy(MD5));
    let proven = world.expect(CARRIER, "INVITE ");
    (a, bare, proven)
}

/// The same, answered.
fn up() -> Up {
    let mut world = trunk();
    let (mut a, _, invite) = challenged_call(&mut world);
    let mut b = Ua::callee(CARRIER, &invite, "callees-tag");
    world.send(CARRIER, invite.answer("200 OK", "callees-tag", &b.contact(), &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 OK");
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    let ack = world.expect(CARRIER, "ACK ");
    assert_eq!(ack.get("Proxy-Authorization"), invite.get("Proxy-Authorization"), "§22.1");
    assert_eq!(ack.get("CSeq"), ack_of(&invite));
    b.cseq = 500;
    Up { world, a, b, invite, ok }
}

#[test]
fn an_invite_is_sent_again_with_credentials_and_the_caller_hears_nothing_of_it() {
    let mut world = trunk();
    let (_, bare, proven) = challenged_call(&mut world);
    world.expect_nothing(PBX);
    for same in ["Call-ID", "From", "To", "Contact", "Max-Forwards"] {
        assert_eq!(proven.get(same), bare.get(same), "{same}");
    }
    assert_eq!((proven.request().uri.as_str(), proven.body()), (bare.request().uri.as_str(), bare.body()));
    assert_eq!(number(&proven), number(&bare) + 1);
    assert_ne!(proven.get("Via"), bare.get("Via"));
    let field = proven.get("Proxy-Authorization");
    assert_good(field, "INVITE", &proven.request().uri);
    assert_eq!(
        (param(field, "nc"), param(field, "qop"), param(field, "realm")),
        ("00000001", "auth", "carrier")
    );
    assert!(!proven.headers().contains("Authorization"));
    assert_eq!(world.events.iter().filter(|event| matches!(event, Event::Routed { .. })).count(), 1);
    world.send(CARRIER, proven.answer("486 Busy Here", "t", "", ""));
    world.expect(PBX, "SIP/2.0 486 ");
}

#[test]
fn a_challenged_call_ends_and_leaves_nothing() {
    up().hang_up();
}

#[test]
fn the_strongest_of_several_challenges_is_answered() {
    for (offered, taken) in [
        (["MD5", "SHA-256", "SHA-512-256"], "SHA-512-256"),
        (["SHA-256", "MD5", "SHA-9"], "SHA-256"),
        (["SHA-9", "MD5-sess", "MD5"], "MD5"),
    ] {
        let mut world = trunk();
        let mut a = Ua::caller(PBX, "100");
        world.send(PBX, a.invite("", ""));
        let bare = world.expect(CARRIER, "INVITE ");
        let fields = offered.map(|algorithm| {
            origin(&format!("Digest realm=\"carrier\", nonce=\"n\", algorithm={algorithm}, qop=\"auth\""))
        });
        challenge(&mut world, &bare, "401 Unauthorized", &fields.concat());
        let proven = world.expect(CARRIER, "INVITE ");
        assert_eq!(proven.headers().all("Authorization").count(), 1);
        let field = proven.get("Authorization");
        assert_eq!(param(field, "algorithm"), taken);
        assert_good(field, "INVITE", &proven.request().uri);
    }
}

#[test]
fn a_server_of_rfc_2069_is_answered_without_a_count() {
    let mut world = trunk();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", ""));
    let bare = world.expect(CARRIER, "INVITE ");
    challenge(&mut world, &bare, "401 Unauthorized", &origin("Digest realm=\"r\", nonce=\"n\", opaque=\"\""));
    let proven = world.expect(CARRIER, "INVITE ");
    let field = proven.get("Authorization");
    assert!(
        find(field, "qop").is_none() && find(field, "algorithm").is_none() && find(field, "nc").is_none()
    );
    assert_eq!(param(field, "opaque"), "");
    assert_good(field, "INVITE", &proven.request().uri);
}

#[test]
fn a_proxy_and_then_the_far_end_are_both_satisfied() {
    let mut world = trunk();
    let (_, _, once) = challenged_call(&mut world);
    let far = origin("Digest realm=\"far\", nonce=\"f\", algorithm=SHA-256, qop=\"auth\"");
    challenge_proven(&mut world, &once, "401 Unauthorized", &far);
    let twice = world.expect(CARRIER, "INVITE ");
    assert_eq!(number(&twice), number(&once) + 1);
    assert_good(twice.get("Authorization"), "INVITE", &twice.request().uri);
    assert_good(twice.get("Proxy-Authorization"), "INVITE", &twice.request().uri);
    assert_eq!(param(twice.get("Proxy-Authorization"), "nc"), "00000002");
}

/// As [`challenge`], for a request that had credentials already.
#[track_caller]
fn challenge_proven(world: &mut World, request: &Msg, status: &str, fields: &str) {
    world.send(CARRIER, request.answer(status, "challenger", fields, ""));
    if request.request().method.as_str() == "INVITE" {
        world.expect(CARRIER, "ACK ");
    }
}

#[test]
fn a_wrong_password_ends_in_the_failure_after_one_answer() {
    let mut world = trunk();
    let (_, _, proven) = challenged_call(&mut world);
    let again = MD5.replace("n1", "n2");
    challenge_proven(&mut world, &proven, "407 Proxy Authentication Required", &proxy(&again));
    world.expect_nothing(CARRIER);
    let failure = world.expect(PBX, "SIP/2.0 502 ");
    assert!(failure.get("Reason").contains("cause=407"));
    assert!(!failure.text().contains("Authenticate"));
    // The next call starts without what was refused.
    let mut other = Ua::caller(PBX, "200");
    (other.call_id, other.branch) = ("other".to_owned(), 70);
    world.send(PBX, other.invite("", ""));
    assert!(!world.expect(CARRIER, "INVITE ").headers().contains("Proxy-Authorization"));
}

#[test]
fn a_stale_nonce_is_answered_once_more_and_no_more() {
    let mut world = trunk();
    let (_, _, once) = challenged_call(&mut world);
    let stale = proxy(&format!("{}, stale=true", MD5.replace("n1", "n2")));
    challenge_proven(&mut world, &once, "407 Proxy Authentication Required", &stale);
    let twice = world.expect(CARRIER, "INVITE ");
    let field = twice.get("Proxy-Authorization");
    assert_eq!((param(field, "nonce"), param(field, "nc")), ("n2", "00000001"));
    assert_eq!(twice.headers().all("Proxy-Authorization").count(), 1);
    challenge_proven(&mut world, &twice, "407 Proxy Authentication Required", &stale.replace("n2", "n3"));
    world.expect_nothing(CARRIER);
    world.expect(PBX, "SIP/2.0 502 ");
}

#[test]
fn a_nonce_serves_the_whole_call_and_the_next() {
    let mut up = up();
    up.world.send(PBX, up.a.request("INFO", "", "x"));
    let info = up.world.expect(CARRIER, "INFO ");
    let field = info.get("Proxy-Authorization").to_owned();
    assert_eq!((param(&field, "nonce"), param(&field, "nc")), ("n1", "00000002"));
    assert_good(&field, "INFO", &info.request().uri);
    up.world.send(CARRIER, info.answer("200 OK", "", "", ""));
    up.world.expect(PBX, "SIP/2.0 200 ");
    up.world.send(PBX, up.a.request("BYE", "", ""));
    up.world.expect(PBX, "SIP/2.0 200 ");
    let bye = up.world.expect(CARRIER, "BYE ");
    assert_eq!(param(bye.get("Proxy-Authorization"), "nc"), "00000003");
    let mut other = Ua::caller(PBX, "200");
    (other.call_id, other.branch) = ("other".to_owned(), 70);
    up.world.send(PBX, other.invite("", ""));
    let invite = up.world.expect(CARRIER, "INVITE ");
    assert_eq!(param(invite.get("Proxy-Authorization"), "nc"), "00000004");
    assert_good(invite.get("Proxy-Authorization"), "INVITE", &invite.request().uri);
}

#[test]
fn requests_inside_are_sent_again_with_the_dialogs_next_number() {
    for (method, body) in [
        ("INVITE", sdp(OFFER_IP, 4000, "a=sendonly\r\n")),
        ("UPDATE", sdp(OFFER_IP, 4000, "a=sendonly\r\n")),
        ("INFO", "x".to_owned()),
        ("MESSAGE", "hello".to_owned()),
    ] {
        let mut up = up();
        let contact = up.a.contact();
        up.world.send(PBX, up.a.request(method, &contact, &body));
        up.world.take_all(PBX);
        let stale = up.world.expect(CARRIER, method);
        // Another request has gone out meanwhile.
        up.world.send(PBX, up.a.request("INFO", "", "y"));
        let between = up.world.expect(CARRIER, "INFO ");
        let anew = proxy(&MD5.replace("n1", "n2"));
        challenge_proven(&mut up.world, &stale, "407 Proxy Authentication Required", &anew);
        let proven = up.world.expect(CARRIER, method);
        assert_eq!(number(&proven), number(&between) + 1, "{method}");
        assert_eq!((proven.get("To"), proven.body()), (stale.get("To"), stale.body()));
        assert_good(proven.get("Proxy-Authorization"), method, &proven.request().uri);
        assert_eq!(param(proven.get("Proxy-Authorization"), "nonce"), "n2");
        up.world.expect_nothing(PBX);
        let answer =
            if body.starts_with("v=0") { sdp(ANSWER_IP, 5000, "a=recvonly\r\n") } else { String::new() };
        let contact = up.b.contact();
        up.world.send(CARRIER, proven.answer("200 OK", "", &contact, &answer));
        up.world.send(CARRIER, between.answer("200 OK", "", "", ""));
        let ok = up.world.take_all(PBX);
        assert_eq!(ok.iter().map(|ok| ok.response().status).collect::<Vec<_>>(), [200, 200]);
        if method == "INVITE" {
            let mut ack = up.a.clone();
            ack.cseq -= 1;
            up.world.send(PBX, ack.request("ACK", "", ""));
            let ack = up.world.expect(CARRIER, "ACK ");
            assert_eq!(ack.get("Proxy-Authorization"), proven.get("Proxy-Authorization"));
            assert_eq!(number(&ack), number(&proven));
            up.a.branch += 1;
        }
        up.hang_up();
    }
}

#[test]
fn a_bye_is_sent_again_even_after_the_call_is_forgotten() {
    for ms in [0, 20_000] {
        let mut up = up();
        up.world.send(PBX, up.a.request("BYE", "", ""));
        up.world.expect(PBX, "SIP/2.0 200 ");
        let bye = up.world.expect(CARRIER, "BYE ");
        up.world.advance(ms);
        up.world.take_all(CARRIER);
        challenge_proven(&mut up.world, &bye, "401 Unauthorized", &origin(&MD5.replace("n1", "n2")));
        let proven = up.world.expect(CARRIER, "BYE ");
        assert_eq!(number(&proven), number(&bye) + 1);
        assert_good(proven.get("Authorization"), "BYE", &proven.request().uri);
        up.world.send(CARRIER, proven.answer("200 OK", "", "", ""));
        up.world.assert_clean();
    }
}

#[test]
fn requests_to_the_caller_are_proven_too() {
    let mut config = config();
    config.peers[0].account = Some(account());
    let mut up = Up::of(World::with(config));
    up.world.send(CARRIER, up.b.request("INFO", "", "x"));
    let bare = up.world.expect(PBX, "INFO ");
    up.world.send(PBX, bare.answer("401 Unauthorized", "", &origin(MD5), ""));
    let proven = up.world.expect(PBX, "INFO ");
    assert_eq!(number(&proven), number(&bare) + 1);
    assert_good(proven.get("Authorization"), "INFO", &proven.request().uri);
    up.world.expect_nothing(CARRIER);
    up.world.send(PBX, proven.answer("200 OK", "", "", ""));
    up.world.expect(CARRIER, "SIP/2.0 200 ");
}

#[test]
fn without_an_account_no_challenge_gets_an_answer() {
    let mut up = Up::new();
    up.world.send(PBX, up.a.request("INFO", "", "x"));
    let info = up.world.expect(CARRIER, "INFO ");
    up.world.send(CARRIER, info.answer("401 Unauthorized", "", &origin(MD5), ""));
    up.world.expect(PBX, "SIP/2.0 502 ");
    up.world.send(PBX, up.a.request("BYE", "", ""));
    up.world.expect(PBX, "SIP/2.0 200 ");
    let bye = up.world.expect(CARRIER, "BYE ");
    up.world.send(CARRIER, bye.answer("407 Proxy Authentication Required", "", &proxy(MD5), ""));
    up.world.expect_nothing(CARRIER);
    up.world.assert_clean();
    assert!(up.world.sent.iter().all(|(_, bytes)| !String::from_utf8_lossy(bytes).contains("uthorization:")));
}

#[test]
fn a_challenge_that_the_account_excludes_gets_no_answer() {
    let mut config = config();
    let mut modern = account();
    modern.algorithms = vec![Algorithm::Sha512_256, Algorithm::Sha256];
    modern.realm = Some("carrier".to_owned());
    config.peers[1].account = Some(modern);
    let sha = MD5.replace("MD5", "SHA-256");
    for challenge in [MD5.to_owned(), sha.replace("carrier", "elsewhere")] {
        let mut world = World::with(config.clone());
        let mut a = Ua::caller(PBX, "100");
        world.send(PBX, a.invite("", ""));
        let bare = world.expect(CARRIER, "INVITE ");
        world.send(CARRIER, bare.answer("401 Unauthorized", "t", &origin(&challenge), ""));
        world.expect(CARRIER, "ACK ");
        world.expect_nothing(CARRIER);
        world.expect(PBX, "SIP/2.0 100 ");
        world.expect(PBX, "SIP/2.0 502 ");
    }
}

#[test]
fn a_caller_that_gives_up_is_not_called_for_again() {
    let mut world = trunk();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", ""));
    let bare = world.expect(CARRIER, "INVITE ");
    world.send(PBX, a.request("CANCEL", "", ""));
    challenge(&mut world, &bare, "407 Proxy Authentication Required", &proxy(MD5));
    world.expect_nothing(CARRIER);
    assert_eq!(world.ended().len(), 1);
    world.assert_clean();
}

#[test]
fn a_cancel_names_the_invite_that_was_sent_last_and_waits_for_its_provisional() {
    let mut world = trunk();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", ""));
    let bare = world.expect(CARRIER, "INVITE ");
    world.send(CARRIER, bare.answer("100 Trying", "", "", ""));
    challenge(&mut world, &bare, "407 Proxy Authentication Required", &proxy(MD5));
    let proven = world.expect(CARRIER, "INVITE ");
    world.send(PBX, a.request("CANCEL", "", ""));
    world.expect_nothing(CARRIER);
    world.send(CARRIER, proven.answer("180 Ringing", "t", "", ""));
    let cancel = world.expect(CARRIER, "CANCEL ");
    assert_eq!(cancel.get("Via"), proven.get("Via"));
    assert_eq!(number(&cancel), number(&proven));
    assert!(!cancel.headers().contains("Proxy-Authorization"));
    // A challenge of the CANCEL itself is let be (§22.1).
    world.send(CARRIER, cancel.answer("401 Unauthorized", "", &origin(MD5), ""));
    world.expect_nothing(CARRIER);
    world.send(CARRIER, proven.answer("487 Request Terminated", "t", "", ""));
    world.expect(CARRIER, "ACK ");
    world.assert_clean();
}

#[test]
fn an_early_dialog_before_the_challenge_keeps_its_numbers_apart() {
    let mut world = trunk();
    let mut a = Ua::caller(PBX, "911");
    world.send(PBX, a.invite("Supported: 100rel\r\n", &sdp(OFFER_IP, 4000, "")));
    let bare = world.expect(CARRIER, "INVITE ");
    let reliable = "Require: 100rel\r\nRSeq: 7\r\nContact: <sip:x@10.2.0.20:5060>\r\n";
    world.send(CARRIER, bare.answer("183 Progress", "t", reliable, ""));
    challenge(&mut world, &bare, "407 Proxy Authentication Required", &proxy(MD5));
    let proven = world.expect(CARRIER, "INVITE ");
    world.send(CARRIER, proven.answer("183 Progress", "t", reliable, ""));
    world.expect(PBX, "SIP/2.0 100 ");
    world.expect(PBX, "SIP/2.0 183 ");
    a.learn(&world.expect(PBX, "SIP/2.0 183 "));
    world.send(PBX, a.request("PRACK", &format!("RAck: 7 {} INVITE\r\n", a.cseq), ""));
    let prack = world.expect(CARRIER, "PRACK ");
    assert_eq!(prack.get("RAck"), format!("7 {} INVITE", number(&proven)));
    assert_eq!(number(&prack), number(&proven) + 1);
}

#[test]
fn an_emergency_call_proves_itself_and_shows_nobody_elses_credentials() {
    let mut world = trunk();
    let mut a = Ua::caller(PBX, "9911");
    let theirs = "Authorization: Digest username=\"pbx\"\r\nProxy-Authorization: Digest username=\"pbx\"\r\n";
    world.send(PBX, a.invite(theirs, ""));
    let bare = world.expect(CARRIER, "INVITE sip:911@");
    assert!(!bare.text().contains("uthorization:"));
    world.advance(1_000);
    world.take_all(CARRIER);
    challenge(&mut world, &bare, "407 Proxy Authentication Required", &proxy(MD5));
    let proven = world.expect(CARRIER, "INVITE sip:911@");
    assert_good(proven.get("Proxy-Authorization"), "INVITE", &proven.request().uri);
    // The trunk has its whole time again; then the next is tried.
    world.advance(1_499);
    world.expect_nothing(CARRIER2);
    world.advance(1);
    world.expect(CARRIER2, "INVITE sip:911@");
}

#[test]
fn an_emergency_call_whose_credentials_are_refused_takes_the_next_trunk() {
    let mut world = trunk();
    let mut a = Ua::caller(PBX, "911");
    world.send(PBX, a.invite("", ""));
    let bare = world.expect(CARRIER, "INVITE ");
    challenge(&mut world, &bare, "407 Proxy Authentication Required", &proxy(MD5));
    let proven = world.expect(CARRIER, "INVITE ");
    challenge_proven(&mut world, &proven, "407 Proxy Authentication Required", &proxy(MD5));
    let second = world.expect(CARRIER2, "INVITE sip:911@");
    assert!(!second.text().contains("uthorization:"), "credentials are one peer's");
}

#[test]
fn one_sides_credentials_are_never_the_others() {
    let mut world = trunk();
    let mut a = Ua::caller(PBX, "100");
    let theirs = "Proxy-Authorization: Digest username=\"pbx\", realm=\"carrier\", nonce=\"n1\", uri=\"x\", response=\"y\"\r\n";
    world.send(PBX, a.invite(theirs, ""));
    let bare = world.expect(CARRIER, "INVITE ");
    assert!(!bare.headers().contains("Proxy-Authorization"));
    challenge(&mut world, &bare, "407 Proxy Authentication Required", &proxy(MD5));
    let proven = world.expect(CARRIER, "INVITE ");
    assert_eq!(proven.headers().all("Proxy-Authorization").count(), 1);
    assert!(!proven.text().contains("username=\"pbx\""));
    let info = "Proxy-Authentication-Info: nextnonce=\"x\"\r\n";
    world.send(CARRIER, proven.answer("180 Ringing", "t", info, ""));
    let seen = world.take_all(PBX);
    assert!(seen.iter().all(|message| !message.text().contains("uthentica")));
}

#[test]
fn a_repeated_2xx_gets_the_same_ack_with_its_credentials() {
    let mut up = up();
    let contact = up.b.contact();
    let again = up.invite.answer("200 OK", "callees-tag", &contact, &sdp(ANSWER_IP, 5000, ""));
    up.world.send(CARRIER, again);
    let ack = up.world.expect(CARRIER, "ACK ");
    assert_eq!(ack.get("Proxy-Authorization"), up.invite.get("Proxy-Authorization"));
    // A 2xx of another fork is acknowledged with them, and hung up.
    let other = up.invite.answer("200 OK", "other-fork", &contact, &sdp(ANSWER_IP, 6000, ""));
    up.world.send(CARRIER, other);
    let ack = up.world.expect(CARRIER, "ACK ");
    assert_eq!(ack.get("Proxy-Authorization"), up.invite.get("Proxy-Authorization"));
    let bye = up.world.expect(CARRIER, "BYE ");
    assert_good(bye.get("Proxy-Authorization"), "BYE", &bye.request().uri);
}

#[test]
fn a_challenge_on_a_stream_is_answered_on_it() {
    use sip_gateway::{Input, Output};
    let mut config = config();
    config.peers[1] = peer("carrier", Side::Public, CARRIER, Transport::Tcp);
    config.peers[1].account = Some(account());
    let mut world = World::with(config);
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", ""));
    let Output::Connect { stream, .. } = world.streams.remove(0) else { panic!("no Connect") };
    let bare = Msg::new(world.stream_bytes(stream).into());
    let refusal = bare.answer("407 Proxy Authentication Required", "t", &proxy(MD5), "");
    world.input(Input::StreamBytes { stream, bytes: refusal.into() });
    let both = String::from_utf8(world.stream_bytes(stream)).unwrap();
    let (ack, invite) = both.split_once("\r\n\r\n").unwrap();
    assert!(ack.starts_with("ACK ") && invite.starts_with("INVITE "), "{both}");
    assert_good(Msg::new(invite.to_owned().into()).get("Proxy-Authorization"), "INVITE", "sip:100@10.2.0.20");
    assert!(world.streams.is_empty(), "no second stream");
}

#[test]
fn a_challenged_ping_is_answered_and_the_peer_stays_up() {
    let mut config = config();
    config.peers[1].account = Some(account());
    config.peers[1].ping_s = Some(30);
    let mut world = World::with(config);
    world.advance(0);
    let ping = world.expect(CARRIER, "OPTIONS ");
    world.send(CARRIER, ping.answer("401 Unauthorized", "t", &origin(MD5), ""));
    let proven = world.expect(CARRIER, "OPTIONS ");
    assert_eq!((proven.get("Call-ID"), number(&proven)), (ping.get("Call-ID"), number(&ping) + 1));
    assert_good(proven.get("Authorization"), "OPTIONS", &proven.request().uri);
    world.send(CARRIER, proven.answer("200 OK", "t", "", ""));
    // The next has the next count, and no ping is taken for silent meanwhile.
    world.advance(30_000);
    assert_eq!(param(world.expect(CARRIER, "OPTIONS ").get("Authorization"), "nc"), "00000002");
    assert!(world.core.is_up(sip_gateway::PeerId(1)));
}

/// Two servers of one carrier, each of a realm of its own.
#[test]
fn what_one_address_asked_for_is_not_shown_to_another() {
    let mut config = named();
    config.peers[1].account = Some(account());
    let mut world = World::with(config);
    world.advance(0);
    resolve(&mut world, |question| Ok(dns(question)));
    let call = |world: &mut World, name: &str, branch: u32| {
        let mut a = Ua::caller(PBX, "100");
        (a.call_id, a.branch) = (name.to_owned(), branch);
        world.send(PBX, a.invite("", ""));
        world.take_all(PBX);
    };
    call(&mut world, "first", 0);
    let bare = world.expect(CARRIER, "INVITE ");
    challenge(&mut world, &bare, "407 Proxy Authentication Required", &proxy(MD5));
    let proven = world.expect(CARRIER, "INVITE ");
    world.send(CARRIER, proven.answer("503 Busy", "t", "Retry-After: 1\r\n", ""));
    world.expect(CARRIER, "ACK ");
    let other = world.expect(CARRIER2, "INVITE ");
    assert!(!other.text().contains("uthorization"), "{}", other.text());
    let realm = proxy(&MD5.replace("\"carrier\"", "\"other\""));
    world.send(CARRIER2, other.answer("407 Proxy Authentication Required", "t", &realm, ""));
    world.expect(CARRIER2, "ACK ");
    let proven = world.expect(CARRIER2, "INVITE ");
    let fields: Vec<&str> = proven.headers().all("Proxy-Authorization").collect();
    assert_eq!(fields.iter().map(|field| param(field, "realm")).collect::<Vec<_>>(), ["other"]);
    // Each address keeps its own.
    world.advance(1_000);
    call(&mut world, "second", 70);
    let unasked = world.expect(CARRIER, "INVITE ");
    let fields: Vec<&str> = unasked.headers().all("Proxy-Authorization").collect();
    assert_eq!(fields.iter().map(|field| param(field, "realm")).collect::<Vec<_>>(), ["carrier"]);
    assert_eq!(param(fields[0], "nc"), "00000002");
}

/// §18.1.1: a stream stands in for the datagram, whoever challenges on it.
#[test]
fn a_large_invite_is_proven_on_the_stream_that_stands_in_and_its_dialog_is_by_udp() {
    use sip_gateway::{Input, Output};
    let mut world = trunk();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite(&format!("X-Large: {}\r\n", "x".repeat(1_300)), ""));
    world.expect(PBX, "SIP/2.0 100 ");
    let Output::Connect { stream, .. } = world.streams.remove(0) else { panic!("no Connect") };
    world.input(Input::StreamReady { stream, certified: Vec::new() });
    let bare = on_stream(&mut world, stream).remove(0);
    let refusal = bare.answer("407 Proxy Authentication Required", "t", &proxy(MD5), "");
    world.input(Input::StreamBytes { stream, bytes: refusal.into() });
    let sent = on_stream(&mut world, stream);
    assert!(sent[0].text().starts_with("ACK ") && world.streams.is_empty());
    let proven = &sent[1];
    assert!(proven.get("Via").starts_with("SIP/2.0/TCP "));
    assert_good(proven.get("Proxy-Authorization"), "INVITE", &proven.request().uri);
    let b = Ua::callee(CARRIER, proven, "c");
    let ok = proven.answer("200 OK", "c", &b.contact(), "");
    world.input(Input::StreamBytes { stream, bytes: ok.into() });
    a.learn(&world.expect(PBX, "SIP/2.0 200 "));
    world.send(PBX, a.request("ACK", "", ""));
    let ack = world.expect(CARRIER, "ACK ");
    assert!(ack.get("Via").starts_with("SIP/2.0/UDP "));
    assert_eq!(ack.get("Proxy-Authorization"), proven.get("Proxy-Authorization"));
}
