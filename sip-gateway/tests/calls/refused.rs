//! After an offer that was refused, or not answered, all is as it was before (RFC 3261 §14.1; RFC 3264 §8; RFC
//! 6337 §2.3; RFC 4028 §7.4): refreshes say what was in force.

use crate::joining::{attended, naming};
use crate::transfer::{TARGET_IP, Talk};
use crate::world::*;

const TIMER: &str = "Supported: timer\r\nSession-Expires: 600;refresher=uac\r\n";

fn a_law(ip: &str, port: u16) -> String {
    sdp(ip, port, "").replace(" 0 101", " 8 101").replace(":0 PCMU", ":8 PCMA")
}

fn version(body: &str) -> u64 {
    let origin = body.lines().find(|line| line.starts_with("o=")).unwrap();
    origin.split(' ').nth(2).unwrap().parse().unwrap()
}

/// `ua` refreshes with what it said before; the answer, which nobody else hears of.
#[track_caller]
pub fn refreshed(world: &mut World, ua: &mut Ua, method: &str, body: &str) -> String {
    let extra = format!("{}{TIMER}", ua.contact());
    world.send(&ua.at.clone(), ua.request(method, &extra, body));
    let ok = world.expect(&ua.at, "SIP/2.0 200 ");
    if method == "INVITE" {
        world.send(&ua.at.clone(), ua.request("ACK", "", ""));
    }
    for at in [PBX, CARRIER] {
        world.expect_nothing(at);
    }
    ok.body()
}

/// Both ends of a call refresh, and are answered with what they had.
#[track_caller]
fn assert_as_before(up: &mut Up) {
    for method in ["INVITE", "UPDATE"] {
        let to_b = refreshed(&mut up.world, &mut up.b, method, &sdp(ANSWER_IP, 5000, ""));
        assert_eq!(to_b, up.invite.body());
        let to_a = refreshed(&mut up.world, &mut up.a, method, &sdp(OFFER_IP, 4000, ""));
        assert_eq!(to_a, up.ok.body());
    }
}

/// The caller, or the callee, offers something else; the other answers with this status and no description.
fn refused(up: &mut Up, caller: bool, method: &str, refusal: &str) {
    let other = if caller { CARRIER } else { PBX };
    let ua = if caller { &mut up.a } else { &mut up.b };
    let contact = ua.contact();
    up.world.send(&ua.at.clone(), ua.request(method, &contact, &a_law("10.7.7.7", 4800)));
    let offered = up.world.expect(other, method);
    assert!(offered.body().contains("RTP/AVP 8 101"));
    let contact = format!("Contact: <sip:line@{other}>\r\n");
    up.world.send(other, offered.answer(refusal, "", &contact, ""));
    let answered = up.world.take_all(&ua.at).pop().unwrap();
    if method == "INVITE" {
        let accepted = answered.response().status < 300;
        let ack = if accepted { ua.request("ACK", "", "") } else { ua.ack_failure(&answered) };
        up.world.send(&ua.at.clone(), ack);
    }
    up.world.take_all(other);
}

#[test]
fn a_refused_offer_leaves_no_trace_in_either_legs_refreshes() {
    for method in ["INVITE", "UPDATE"] {
        // A 2xx without an answer is none.
        for refusal in ["488 Not Acceptable Here", "491 Request Pending", "500 Oops", "200 OK"] {
            for caller in [true, false] {
                let mut up = Up::new();
                refused(&mut up, caller, method, refusal);
                assert_as_before(&mut up);
                up.hang_up();
            }
        }
    }
}

#[test]
fn an_offer_that_is_cancelled_or_never_answered_leaves_no_trace() {
    let mut up = Up::new();
    let contact = up.a.contact();
    up.world.send(PBX, up.a.request("INVITE", &contact, &a_law(OFFER_IP, 4800)));
    let offered = up.world.expect(CARRIER, "INVITE ");
    up.world.send(CARRIER, offered.answer("180 Ringing", "", "", ""));
    up.world.send(PBX, up.a.request("CANCEL", "", ""));
    let cancel = up.world.expect(CARRIER, "CANCEL ");
    up.world.send(CARRIER, cancel.answer("200 OK", "", "", ""));
    up.world.send(CARRIER, offered.answer("487 Request Terminated", "", "", ""));
    let refused = up.world.take_all(PBX).pop().unwrap();
    up.world.send(PBX, up.a.ack_failure(&refused));
    up.world.take_all(CARRIER);
    assert_as_before(&mut up);

    up.world.send(CARRIER, up.b.request("UPDATE", &up.b.contact(), &a_law(ANSWER_IP, 5800)));
    up.world.expect(PBX, "UPDATE ");
    up.world.advance(33_000);
    up.world.take_all(PBX);
    assert_as_before(&mut up);
    up.hang_up();
}

#[test]
fn an_offer_of_the_callees_that_the_ack_does_not_answer_leaves_no_trace() {
    let mut up = Up::new();
    let contact = up.a.contact();
    up.world.send(PBX, up.a.request("INVITE", &contact, ""));
    let asked = up.world.expect(CARRIER, "INVITE ");
    up.world.send(CARRIER, asked.answer("200 OK", "", &up.b.contact(), &a_law(ANSWER_IP, 5800)));
    up.world.take_all(PBX);
    up.world.send(PBX, up.a.request("ACK", "", ""));
    up.world.expect(CARRIER, "ACK ");
    assert_as_before(&mut up);
    up.hang_up();
}

#[test]
fn our_refresh_says_what_was_in_force_before_a_refused_offer() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let invite = world.expect(CARRIER, "INVITE ");
    let b = Ua::callee(CARRIER, &invite, "t");
    let agreed = format!("{}Session-Expires: 600;refresher=uac\r\n", b.contact());
    world.send(CARRIER, invite.answer("200 OK", "t", &agreed, &sdp(ANSWER_IP, 5000, "")));
    let ok = world.expect(PBX, "SIP/2.0 200 ");
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    world.expect(CARRIER, "ACK ");
    let contact = a.contact();
    world.send(PBX, a.request("UPDATE", &contact, &a_law(OFFER_IP, 4800)));
    let offered = world.expect(CARRIER, "UPDATE ");
    world.send(CARRIER, offered.answer("488 Not Acceptable Here", "", "", ""));
    world.expect(PBX, "SIP/2.0 488 ");
    // A callee that takes but what it took before: its session would end at 568 s.
    for _ in 0..3 {
        world.advance(300_000);
        let refresh = world.expect(CARRIER, "INVITE ");
        assert_eq!(refresh.body(), invite.body());
        world.send(CARRIER, refresh.answer("200 OK", "", &agreed, &sdp(ANSWER_IP, 5000, "")));
        world.expect(CARRIER, "ACK ");
    }
    assert_eq!(world.ended().len(), 0);
}

#[test]
fn a_refused_version_stands_for_no_other_description() {
    let mut up = Up::new();
    let contact = up.a.contact();
    let offer = |up: &mut Up, body: &str, status: &str| {
        up.world.send(PBX, up.a.request("UPDATE", &contact, body));
        let offered = up.world.expect(CARRIER, "UPDATE ");
        up.world.send(CARRIER, offered.answer(status, "", "", ""));
        up.world.expect(PBX, &format!("SIP/2.0 {status}"));
        offered.body()
    };
    let first = offer(&mut up, &a_law(OFFER_IP, 4800), "491 Request Pending");
    assert_eq!(offer(&mut up, &a_law(OFFER_IP, 4800), "488 No"), first, "the same again");
    let second = offer(&mut up, &sdp(OFFER_IP, 4000, "a=sendonly\r\n"), "488 No");
    assert_eq!(version(&first), version(&up.invite.body()) + 1);
    assert_eq!(version(&second), version(&first) + 1);
    assert_as_before(&mut up);
    up.hang_up();
}

#[test]
fn a_description_in_the_answer_to_an_update_without_any_begins_no_exchange() {
    let mut up = Up::new();
    let contact = up.a.contact();
    up.world.send(PBX, up.a.request("UPDATE", &contact, ""));
    let update = up.world.expect(CARRIER, "UPDATE ");
    up.world.send(CARRIER, update.answer("200 OK", "", &up.b.contact(), &a_law(ANSWER_IP, 5800)));
    up.world.expect(PBX, "SIP/2.0 200 ");
    assert_as_before(&mut up);
    up.hang_up();
}

/// R's and L's descriptions as each has them.
#[track_caller]
fn both(talk: &mut Talk) -> [String; 2] {
    let r = refreshed(&mut talk.world, &mut talk.r, "INVITE", &sdp(ANSWER_IP, 5000, ""));
    let l = refreshed(&mut talk.world, &mut talk.l, "INVITE", &sdp(OFFER_IP, 4000, ""));
    [r, l]
}

#[test]
fn a_transfer_that_whoever_stays_refuses_leaves_no_trace() {
    for again in [false, true] {
        let mut talk = Talk::new();
        let before = both(&mut talk);
        talk.referred("<sip:7355@10.1.0.10>");
        talk.answered_by_target(&a_law(TARGET_IP, 4400));
        let mut reinvite = talk.world.expect(CARRIER, "INVITE ");
        if again {
            talk.world.send(CARRIER, reinvite.answer("491 Request Pending", "", "", ""));
            talk.world.expect(CARRIER, "ACK ");
            talk.world.advance(4_000);
            let first = reinvite.body();
            reinvite = talk.world.expect(CARRIER, "INVITE ");
            assert_eq!(reinvite.body(), first);
            // It has been repeated meanwhile.
            talk.world.take_all(CARRIER);
        }
        talk.world.send(CARRIER, reinvite.answer("488 No", "", "", ""));
        talk.world.expect(CARRIER, "ACK ");
        talk.world.take_all(PBX);
        assert_eq!(both(&mut talk), before);
    }
}

#[test]
fn who_stays_and_refuses_to_have_the_old_description_back_is_refreshed_with_what_it_has() {
    let mut talk = Talk::new();
    let [_, l] = both(&mut talk);
    talk.referred("<sip:7355@10.1.0.10>");
    talk.answered_by_target(&a_law(TARGET_IP, 4400));
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &talk.r.contact(), ""));
    talk.world.expect(CARRIER, "ACK ");
    let restoring = talk.world.expect(CARRIER, "INVITE ");
    assert_eq!(version(&restoring.body()), version(&reinvite.body()) + 1);
    talk.world.send(CARRIER, restoring.answer("488 No", "", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    talk.world.take_all(PBX);
    assert_eq!(both(&mut talk), [reinvite.body(), l]);
}

#[test]
fn a_newcomer_that_refreshes_is_answered_with_what_it_got() {
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10>");
    let (_, mut t) = talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
    let (reinvite, ack) = talk.joined();
    talk.notified("SIP/2.0 200 OK", "terminated");
    talk.left();
    let to_t = refreshed(&mut talk.world, &mut t, "INVITE", &sdp(TARGET_IP, 4400, ""));
    assert_eq!(to_t, ack.body());
    let to_r = refreshed(&mut talk.world, &mut talk.r, "UPDATE", &sdp(ANSWER_IP, 5000, ""));
    assert_eq!(to_r, reinvite.body());
    talk.hang_up();
}

#[test]
fn who_was_lent_goes_on_from_what_was_said_to_it_meanwhile() {
    let (mut talk, q, mut x) = attended();
    talk.referred(&naming(&x));
    let asked = talk.world.expect(CARRIER, "INVITE ");
    let video = "m=video 5202 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n";
    talk.world.send(CARRIER, asked.answer("200 OK", "", &q.contact(), &sdp(ANSWER_IP, 5200, video)));
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, reinvite.answer("488 No", "", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    let ack = talk.world.expect(CARRIER, "ACK ");
    assert!(ack.body().contains("m=video 0 "), "{}", ack.text());
    talk.world.take_all(PBX);
    // Not fewer streams than Q has offered, and no version twice.
    let contact = x.contact();
    talk.world.send(PBX, x.request("UPDATE", &contact, &sdp(OFFER_IP, 4002, "a=sendonly\r\n")));
    let offered = talk.world.expect(CARRIER, "UPDATE ");
    assert!(offered.body().contains("m=video 0 "), "{}", offered.text());
    assert_eq!(version(&offered.body()), version(&ack.body()) + 1);
}
