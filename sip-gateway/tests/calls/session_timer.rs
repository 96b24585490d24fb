//! Session timers (RFC 4028), on each leg for itself.

use consent::Leg;
use sip_gateway::{Cause, Change, EndedBy, Event, SessionTimer};

use crate::world::*;

const TIMER: &str = "Supported: timer\r\nSession-Expires: 600\r\n";
const UPDATES: &str = "Allow: INVITE, ACK, BYE, CANCEL, UPDATE\r\n";

/// A call that is up, whose INVITE and 2xx had these fields.
fn up(asked: &str, agreed: &str) -> Up {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite(asked, &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    let mut b = Ua::callee(CARRIER, &invite, "callees-tag");
    let extra = format!("{}{agreed}", b.contact());
    world.send(CARRIER, invite.answer("200 OK", "callees-tag", &extra, &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 OK");
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(CARRIER, "ACK ");
    b.cseq = 500;
    Up { world, a, b, invite, ok }
}

/// Answers the refresh that has come to the carrier, with the same terms.
fn refreshed(up: &mut Up, refresh: &Msg) {
    let body = if refresh.body().is_empty() { String::new() } else { sdp(ANSWER_IP, 5000, "") };
    let extra = format!("{}Session-Expires: {}\r\n", up.b.contact(), refresh.get("Session-Expires"));
    up.world.send(CARRIER, refresh.answer("200 OK", "", &extra, &body));
    if !body.is_empty() {
        assert_eq!(up.world.expect(CARRIER, "ACK ").body(), "");
    }
}

#[track_caller]
fn assert_expired(world: &mut World) {
    for at in [PBX, CARRIER] {
        let bye = world.expect(at, "BYE ");
        assert_eq!(bye.get("Reason"), "SIP;cause=408;text=\"session expired\"");
    }
    let end = world.ended().remove(0);
    assert_eq!(
        (end.by, end.final_status, end.cause),
        (Some(EndedBy::Gateway), Some(200), Some(Cause::SessionExpired))
    );
    world.assert_clean();
}

#[test]
fn too_short_a_session_is_422_with_our_least() {
    let mut config = config();
    config.session_timer = SessionTimer { expires_s: 1_800, min_s: 300 };
    let mut world = World::with(config);
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("Supported: timer\r\nSession-Expires: 299\r\n", ""));
    let refused = world.expect(PBX, "SIP/2.0 422 ");
    assert_eq!(refused.get("Min-SE"), "300");
    world.send(PBX, a.ack_failure(&refused));
    world.expect_nothing(CARRIER);
    assert!(world.events.is_empty());
    // One that would not understand the refusal gets its call (§9), and so does an emergency call.
    let mut other = Ua::caller(PBX, "101");
    other.call_id = "other".to_owned();
    other.branch = 50;
    world.send(PBX, other.invite("Session-Expires: 100\r\n", ""));
    world.expect(CARRIER, "INVITE ");
    let mut emergency = Ua::caller(PBX, "911");
    emergency.call_id = "emergency".to_owned();
    emergency.branch = 90;
    world.send(PBX, emergency.invite("Supported: timer\r\nSession-Expires: 100\r\n", ""));
    assert_eq!(world.expect(CARRIER, "INVITE ").get("Session-Expires"), "100");
}

#[test]
fn a_refresh_that_asks_for_too_little_is_422_and_the_session_goes_on() {
    let mut up = up(TIMER, "");
    up.world.send(PBX, up.a.request("UPDATE", "Supported: timer\r\nSession-Expires: 60\r\n", ""));
    assert_eq!(up.world.expect(PBX, "SIP/2.0 422 ").get("Min-SE"), "90");
    up.world.expect_nothing(CARRIER);
    up.hang_up();
}

#[test]
fn the_callers_terms_are_answered_and_the_callees_asked_for_apart() {
    for (asked, session, required) in [
        (TIMER, Some("600;refresher=uac"), true),
        ("Supported: timer\r\nSession-Expires: 600;refresher=uas\r\n", Some("600;refresher=uas"), true),
        ("Supported: timer\r\nx: 7200\r\n", Some("1800;refresher=uac"), true),
        ("Supported: timer\r\nSession-Expires: 7200\r\nMin-SE: 3600\r\n", Some("3600;refresher=uac"), true),
        ("Supported: timer\r\n", Some("1800;refresher=uac"), true),
        ("Session-Expires: 600\r\n", Some("600;refresher=uas"), false),
        ("", None, false),
    ] {
        let up = up(asked, "");
        assert_eq!(up.invite.get("Session-Expires"), "1800", "{asked}");
        assert_eq!(up.invite.get("Min-SE"), "90", "{asked}");
        assert!(up.invite.headers().has_token("Supported", "timer"), "{asked}");
        assert_eq!(up.ok.headers().first("Session-Expires"), session, "{asked}");
        assert_eq!(up.ok.headers().has_token("Require", "timer"), required, "{asked}");
        up.hang_up();
    }
}

#[test]
fn a_422_of_the_callee_is_answered_with_a_longer_session() {
    let (mut world, mut a) = (World::new(), Ua::caller(PBX, "100"));
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let first = world.expect(CARRIER, "INVITE ");
    world.send(CARRIER, first.answer("422 Session Interval Too Small", "t", "Min-SE: 3600\r\n", ""));
    world.expect(CARRIER, "ACK ");
    let second = world.expect(CARRIER, "INVITE ");
    assert_eq!((second.get("Session-Expires"), second.get("Min-SE")), ("3600", "3600"));
    for field in ["Call-ID", "From", "To"] {
        assert_eq!(second.get(field), first.get(field), "{field}");
    }
    assert_ne!(second.get("Via"), first.get("Via"));
    let number = |message: &Msg| message.get("CSeq").split(' ').next().unwrap().parse::<u32>().unwrap();
    assert_eq!(number(&second), number(&first) + 1);
    world.expect_nothing(PBX);
    world.expect_nothing(CARRIER2);
    let b = Ua::callee(CARRIER, &second, "t");
    world.send(CARRIER, second.answer("200 OK", "t", &b.contact(), &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    assert_eq!(number(&world.expect(CARRIER, "ACK ")), number(&second));
    world.send(PBX, a.request("BYE", "", ""));
    world.assert_clean();
}

#[test]
fn a_callee_that_wants_ever_more_gives_up_and_the_caller_sees_no_422() {
    let (mut world, mut a) = (World::new(), Ua::caller(PBX, "100"));
    world.send(PBX, a.invite("", ""));
    world.expect(PBX, "SIP/2.0 100 ");
    let mut tries = 0;
    let mut least_s = 3_600;
    while world.next_is_invite(CARRIER) {
        let invite = world.expect(CARRIER, "INVITE ");
        let extra = format!("Min-SE: {least_s}\r\n");
        world.send(CARRIER, invite.answer("422 Session Interval Too Small", "t", &extra, ""));
        world.expect(CARRIER, "ACK ");
        (tries, least_s) = (tries + 1, least_s + 60);
    }
    assert_eq!(tries, 6);
    let failed = world.expect(PBX, "SIP/2.0 500 ");
    assert_eq!(failed.get("Reason"), "SIP;cause=422");
    world.send(PBX, a.ack_failure(&failed));
    world.assert_clean();
}

#[test]
fn a_refresh_of_one_leg_is_answered_there_and_goes_no_further() {
    let mut up = up(TIMER, "Session-Expires: 1800;refresher=uas\r\n");
    let own = up.a.contact();
    for (method, body) in [
        ("UPDATE", String::new()),
        ("UPDATE", sdp(OFFER_IP, 4000, "")),
        ("INVITE", sdp(OFFER_IP, 4000, "")),
        // Some count their descriptions whether they have changed or not.
        ("INVITE", sdp(OFFER_IP, 4000, "").replace("o=user 77 1", "o=user 77 2")),
    ] {
        up.world.events.clear();
        let extra = format!("{own}Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n");
        up.world.send(PBX, up.a.request(method, &extra, &body));
        let ok = up.world.expect(PBX, "SIP/2.0 200 ");
        assert_eq!(ok.get("Session-Expires"), "600;refresher=uac");
        assert_eq!(ok.body(), if body.is_empty() { String::new() } else { up.ok.body() });
        if method == "INVITE" {
            up.world.advance(500);
            up.world.expect(PBX, "SIP/2.0 200 ");
            up.world.send(PBX, up.a.request("ACK", "", ""));
            up.world.advance(10_000);
        }
        up.world.expect_nothing(PBX);
        up.world.expect_nothing(CARRIER);
        assert!(up.world.events.is_empty(), "{:?}", up.world.events);
    }
    // What is refreshed does not expire: the interval counts from the last time.
    for _ in 0..3 {
        up.world.advance(500_000);
        up.world.send(PBX, up.a.request("UPDATE", &format!("{own}{TIMER}"), ""));
        up.world.expect(PBX, "SIP/2.0 200 ");
        up.world.send(
            CARRIER,
            up.b.request("UPDATE", "Session-Expires: 1800;refresher=uac\r\nSupported: timer\r\n", ""),
        );
        up.world.expect(CARRIER, "SIP/2.0 200 ");
    }
    up.world.expect_nothing(CARRIER);
    up.hang_up();
}

#[test]
fn a_refresh_without_ack_ends_the_call() {
    let mut up = up(TIMER, "");
    let extra = format!("{}{TIMER}", up.a.contact());
    up.world.send(PBX, up.a.request("INVITE", &extra, &sdp(OFFER_IP, 4000, "")));
    up.world.advance(32_000);
    assert_eq!(up.world.take_all(PBX).pop().unwrap().request().method.as_str(), "BYE");
    up.world.expect(CARRIER, "BYE ");
    up.world.expect_nothing(CARRIER);
    up.world.assert_clean();
}

#[test]
fn a_call_that_ends_while_its_refresh_waits_for_the_ack_acknowledges_nothing_else() {
    let mut up = up(TIMER, "");
    let extra = format!("{}{TIMER}", up.a.contact());
    up.world.send(PBX, up.a.request("INVITE", &extra, &sdp(OFFER_IP, 4000, "")));
    up.world.expect(PBX, "SIP/2.0 200 ");
    up.world.send(CARRIER, up.b.request("BYE", "", ""));
    up.world.expect(CARRIER, "SIP/2.0 200 ");
    up.world.expect_nothing(CARRIER);
    up.world.send(PBX, up.a.request("ACK", "", ""));
    up.world.expect(PBX, "BYE ");
    up.world.expect_nothing(CARRIER);
    up.world.assert_clean();
}

#[test]
fn what_says_something_new_goes_on_with_each_legs_own_terms() {
    let mut up = up(TIMER, "Session-Expires: 1200;refresher=uas\r\nAllow: UPDATE\r\n");
    let extra = format!("{}Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n", up.a.contact());
    up.world.send(PBX, up.a.request("UPDATE", &extra, &sdp(OFFER_IP, 4000, "a=sendonly\r\n")));
    let update = up.world.expect(CARRIER, "UPDATE ");
    assert_eq!(update.get("Session-Expires"), "1200;refresher=uas");
    let agreed = format!("{}Session-Expires: 900;refresher=uas\r\n", up.b.contact());
    up.world.send(CARRIER, update.answer("200 OK", "", &agreed, &sdp(ANSWER_IP, 5000, "a=recvonly\r\n")));
    let ok = up.world.expect(PBX, "SIP/2.0 200 ");
    assert_eq!(ok.get("Session-Expires"), "600;refresher=uac");
    assert!(ok.body().contains("a=recvonly"));
    // A refused change is none: what was in force before is not taken for a refresh, nor the refused one.
    up.world.send(PBX, up.a.request("UPDATE", &extra, &sdp(OFFER_IP, 4000, "")));
    let update = up.world.expect(CARRIER, "UPDATE ");
    up.world.send(CARRIER, update.answer("488 No", "", "", ""));
    up.world.expect(PBX, "SIP/2.0 488 ");
    up.world.send(PBX, up.a.request("UPDATE", &extra, &sdp(OFFER_IP, 4000, "")));
    let update = up.world.expect(CARRIER, "UPDATE ");
    up.world.send(CARRIER, update.answer("200 OK", "", &agreed, &sdp(ANSWER_IP, 5000, "")));
    up.world.expect(PBX, "SIP/2.0 200 ");
    // Another party is news without any description.
    up.world.events.clear();
    let asserted = format!("{extra}P-Asserted-Identity: <sip:7399@10.1.0.10>\r\n");
    up.world.send(PBX, up.a.request("UPDATE", &asserted, ""));
    up.world.expect(CARRIER, "UPDATE ");
    up.world.event(|e| matches!(e, Event::Changed { leg: Leg::A, change: Change::NewParty { .. }, .. }));
}

#[test]
fn our_refresh_is_an_update_where_the_far_end_takes_it() {
    let mut up = up("", &format!("Session-Expires: 600;refresher=uac\r\n{UPDATES}"));
    for _ in 0..3 {
        up.world.advance(299_999);
        up.world.expect_nothing(CARRIER);
        up.world.advance(1);
        let update = up.world.expect(CARRIER, "UPDATE sip:line@10.2.0.20:5060 ");
        assert_eq!(update.body(), "");
        assert_eq!(update.get("Session-Expires"), "600;refresher=uac");
        assert!(update.headers().has_token("Supported", "timer"));
        refreshed(&mut up, &update);
    }
    up.world.expect_nothing(PBX);
    assert!(!up.world.events.iter().any(|event| matches!(event, Event::Changed { .. })));
    up.hang_up();
}

#[test]
fn our_refresh_is_else_a_reinvite_with_the_same_description() {
    // Of the caller's leg, whose INVITE asked for it and shows no UPDATE.
    let mut up = up("Supported: timer\r\nSession-Expires: 600;refresher=uas\r\n", "");
    up.world.advance(300_000);
    let reinvite = up.world.expect(PBX, "INVITE sip:line@10.1.0.10:5060 ");
    assert_eq!(reinvite.body(), up.ok.body(), "the version of o= too");
    assert_eq!(reinvite.get("Session-Expires"), "600;refresher=uac");
    up.world.events.clear();
    let extra = format!("{}Session-Expires: 600;refresher=uac\r\n", up.a.contact());
    let answer = reinvite.answer("200 OK", "", &extra, &sdp(OFFER_IP, 4000, ""));
    up.world.send(PBX, &answer);
    let ack = up.world.expect(PBX, "ACK ");
    up.world.send(PBX, &answer);
    assert_eq!(up.world.expect(PBX, "ACK ").bytes, ack.bytes);
    up.world.expect_nothing(CARRIER);
    assert!(up.world.events.is_empty(), "{:?}", up.world.events);
    // What the answer changes is told.
    up.world.advance(300_000);
    let reinvite = up.world.expect(PBX, "INVITE ");
    up.world.send(PBX, reinvite.answer("200 OK", "", &extra, &sdp(OFFER_IP, 4008, "")));
    up.world.expect(PBX, "ACK ");
    up.world.event(|e| {
        matches!(e, Event::Media { leg: Leg::A, media, .. } if media.streams[0].rtp.unwrap().port() == 4008)
    });
    up.hang_up();
}

#[test]
fn a_session_that_nobody_refreshes_ends_on_both_legs_with_its_cause() {
    // The callee would refresh, and does not: a third of the interval before its end.
    let mut callee = up("", "Session-Expires: 90;refresher=uas\r\n");
    callee.world.advance(59_999);
    callee.world.expect_nothing(PBX);
    callee.world.expect_nothing(CARRIER);
    callee.world.advance(1);
    assert_expired(&mut callee.world);

    // The caller would: 32 s before it.
    let mut caller = up(TIMER, "");
    caller.world.advance(567_999);
    caller.world.expect_nothing(PBX);
    caller.world.advance(1);
    assert_expired(&mut caller.world);
}

#[test]
fn a_refresh_of_ours_that_finds_nobody_ends_the_call() {
    for failure in [Some("481 Gone"), Some("408 Timeout"), None] {
        let mut up = up("", &format!("Session-Expires: 600;refresher=uac\r\n{UPDATES}"));
        up.world.advance(300_000);
        let update = up.world.expect(CARRIER, "UPDATE ");
        match failure {
            Some(status) => up.world.send(CARRIER, update.answer(status, "", "", "")),
            None => {
                up.world.advance(32_000);
                let again = up.world.take_all(CARRIER);
                let bye = again.iter().find(|message| message.request().method.as_str() == "BYE");
                assert!(bye.is_some());
                up.world.expect(PBX, "BYE ");
                assert_eq!(up.world.ended()[0].cause, Some(Cause::SessionExpired));
                up.world.assert_clean();
                continue;
            }
        }
        assert_expired(&mut up.world);
    }
}

#[test]
fn any_other_failure_of_a_refresh_is_tried_again_until_the_session_ends() {
    let mut up = up("", &format!("Session-Expires: 600;refresher=uac\r\n{UPDATES}"));
    up.world.advance(300_000);
    let update = up.world.expect(CARRIER, "UPDATE ");
    up.world.send(CARRIER, update.answer("405 Method Not Allowed", "", "", ""));
    up.world.advance(0);
    let mut reinvite = up.world.expect(CARRIER, "INVITE ");
    assert_eq!(reinvite.body(), up.invite.body());
    // Every ten seconds, until 568.
    for _ in 0..26 {
        up.world.send(CARRIER, reinvite.answer("500 Oops", "", "", ""));
        up.world.expect(CARRIER, "ACK ");
        up.world.expect_nothing(PBX);
        up.world.advance(10_000);
        reinvite = up.world.expect(CARRIER, "INVITE ");
    }
    up.world.send(CARRIER, reinvite.answer("500 Oops", "", "", ""));
    up.world.expect(CARRIER, "ACK ");
    up.world.advance(8_000);
    assert_expired(&mut up.world);
}

#[test]
fn a_422_to_a_refresh_makes_it_longer() {
    let mut up = up("", &format!("Session-Expires: 600;refresher=uac\r\n{UPDATES}"));
    up.world.advance(300_000);
    let update = up.world.expect(CARRIER, "UPDATE ");
    up.world.send(CARRIER, update.answer("422 Session Interval Too Small", "", "Min-SE: 900\r\n", ""));
    up.world.advance(0);
    let longer = up.world.expect(CARRIER, "UPDATE ");
    assert_eq!((longer.get("Session-Expires"), longer.get("Min-SE")), ("900;refresher=uac", "900"));
    refreshed(&mut up, &longer);
    up.world.advance(449_999);
    up.world.expect_nothing(CARRIER);
    up.world.advance(1);
    let next = up.world.expect(CARRIER, "UPDATE ");
    refreshed(&mut up, &next);
    up.hang_up();
}

#[test]
fn a_callee_without_timers_is_left_alone_for_ever() {
    let mut up = up("", "");
    up.world.advance(86_400_000);
    up.world.expect_nothing(PBX);
    up.world.expect_nothing(CARRIER);
    assert_eq!(up.world.core.calls(), 1);
    up.hang_up();
}

#[test]
fn an_emergency_call_has_its_ends_timers_and_none_of_ours() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "911");
    world.send(PBX, a.invite("Supported: timer\r\nSession-Expires: 90\r\n", &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    assert_eq!((invite.get("Session-Expires"), invite.headers().contains("Min-SE")), ("90", false));
    let mut b = Ua::callee(CARRIER, &invite, "t");
    let agreed = format!("{}Require: timer\r\nSession-Expires: 90;refresher=uas\r\n", b.contact());
    world.send(CARRIER, invite.answer("200 OK", "t", &agreed, &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    assert_eq!((ok.get("Session-Expires"), ok.get("Require")), ("90;refresher=uas", "timer"));
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(CARRIER, "ACK ");
    b.cseq = 500;
    let refresh = "Session-Expires: 90;refresher=uac\r\n";
    world.send(CARRIER, b.request("UPDATE", refresh, ""));
    let update = world.expect(PBX, "UPDATE ");
    assert_eq!(update.get("Session-Expires"), "90;refresher=uac");
    world.send(PBX, update.answer("200 OK", "", refresh, ""));
    world.expect(CARRIER, "SIP/2.0 200 ");
    world.advance(86_400_000);
    world.expect_nothing(PBX);
    world.expect_nothing(CARRIER);
    assert_eq!(world.core.calls(), 1);
    world.send(PBX, a.request("BYE", "", ""));
    world.assert_clean();
}

#[test]
fn no_timer_ends_a_call_that_was_redirected_to_an_emergency_service() {
    let mut config = config();
    config.routes.emergency = vec![sip_gateway::PeerId(2)];
    let mut world = World::with(config);
    let mut a = Ua::caller(CARRIER, "7331");
    world.send(CARRIER, a.invite("Supported: timer\r\nSession-Expires: 90\r\n", &sdp(OFFER_IP, 4000, "")));
    world.expect(CARRIER, "SIP/2.0 100 ");
    let first = world.expect(PBX, "INVITE ");
    world.send(PBX, first.answer("302 Moved", "t", "Contact: <sip:911@10.1.0.10>\r\n", ""));
    world.expect(PBX, "ACK ");
    let second = world.expect(CARRIER2, "INVITE sip:911@");
    assert_eq!(second.get("Session-Expires"), "90", "what its ends agree on passes between them");
    let b = Ua::callee(CARRIER2, &second, "t");
    let agreed = format!("{}Session-Expires: 90;refresher=uas\r\n", b.contact());
    world.send(CARRIER2, second.answer("200 OK", "t", &agreed, &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(CARRIER, "SIP/2.0 200 ");
    assert_eq!(ok.get("Session-Expires"), "90;refresher=uas");
    a.learn(&ok);
    world.send(CARRIER, a.request("ACK", "", ""));
    world.expect(CARRIER2, "ACK ");
    world.advance(86_400_000);
    world.expect_nothing(CARRIER2);
    world.expect_nothing(CARRIER);
    assert_eq!(world.core.calls(), 1);
    world.send(CARRIER, a.request("BYE", "", ""));
    world.assert_clean();
}
