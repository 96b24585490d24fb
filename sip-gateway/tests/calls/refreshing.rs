//! Sessions while something is in the way of their refreshes (RFC 4028 §7.4, §10; RFC 3261 §9.1, §14.2): no call
//! whose far ends live is ended by its timer.

use sip_gateway::Cause;

use crate::joining::{attended, naming};
use crate::refused::refreshed;
use crate::transfer::{TARGET_IP, Talk};
use crate::world::*;

pub const THEIRS: &str = "Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n";
const OURS: &str = "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\n";

/// A call from the carrier whose caller, R, has asked for this session. It ends after 60 s.
pub fn timed(asked: &str) -> Talk {
    Talk::by(World::new(), Ua::caller(CARRIER, "18607427310"), asked)
}

/// A transfer whose re-INVITE has gone to R at this time after the answer.
fn asked_at(talk: &mut Talk, ms: u64) -> Msg {
    talk.world.advance(ms);
    talk.world.take_all(CARRIER);
    talk.referred("<sip:7355@10.1.0.10>");
    talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, reinvite.answer("100 Trying", "", "", ""));
    reinvite
}

#[test]
fn who_stays_refreshes_its_session_while_the_target_rings_and_nobody_else_is_there() {
    for gone in [false, true] {
        let mut talk = timed(THEIRS);
        talk.referred("<sip:7355@10.1.0.10>");
        let invite = talk.world.expect(PBX, "INVITE ");
        talk.world.send(PBX, invite.answer("180 Ringing", "t", "", ""));
        talk.notified("SIP/2.0 180 Ringing", "active");
        if gone {
            talk.left();
        }
        for method in ["INVITE", "UPDATE", "INVITE"] {
            talk.world.advance(45_000);
            let body = if method == "INVITE" { sdp(ANSWER_IP, 5000, "") } else { String::new() };
            refreshed(&mut talk.world, &mut talk.r, method, &body);
        }
        // Anything else still finds nobody.
        if gone {
            let contact = talk.r.contact();
            talk.world.send(CARRIER, talk.r.request("UPDATE", &contact, &sdp(ANSWER_IP, 5002, "")));
            talk.world.expect(CARRIER, "SIP/2.0 491 ");
        }
        assert_eq!(talk.world.ended().len(), 0);
    }
}

#[test]
fn who_has_lent_its_far_end_refreshes_its_session() {
    let (mut talk, _, mut x) = attended();
    talk.referred(&naming(&x));
    talk.world.expect(CARRIER, "INVITE ");
    refreshed(&mut talk.world, &mut x, "UPDATE", "");
    refreshed(&mut talk.world, &mut x, "INVITE", &sdp(OFFER_IP, 4000, ""));
}

#[test]
fn a_refresh_that_crosses_a_transfer_shows_that_its_sender_lives() {
    let mut talk = timed(THEIRS);
    let reinvite = asked_at(&mut talk, 40_000);
    talk.world.advance(5_000);
    let contact = format!("{}{THEIRS}", talk.r.contact());
    talk.world.send(CARRIER, talk.r.request("INVITE", &contact, &sdp(ANSWER_IP, 5000, "")));
    let refused = talk.world.expect(CARRIER, "SIP/2.0 491 ");
    talk.world.send(CARRIER, talk.r.ack_failure(&refused));
    // R refuses whom it was to talk to, and takes its time for the next refresh.
    talk.world.advance(10_000);
    talk.world.send(CARRIER, reinvite.answer("603 Decline", "", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    talk.world.take_all(PBX);
    talk.world.advance(45_000);
    talk.world.take_all(PBX);
    refreshed(&mut talk.world, &mut talk.r, "INVITE", &sdp(ANSWER_IP, 5000, ""));
    // But whoever says nothing any more is gone.
    talk.world.advance(567_999);
    assert_eq!(talk.world.ended().len(), 0);
    talk.world.advance(1);
    assert_eq!(talk.world.ended()[0].cause, Some(Cause::SessionExpired));
}

#[test]
fn a_session_does_not_end_while_a_transfers_reinvite_is_under_way() {
    for (asked, status) in
        [(THEIRS, "200 OK"), (OURS, "200 OK"), (THEIRS, "603 Decline"), (OURS, "603 Decline")]
    {
        // The refresh that would be due at 45 s finds the re-INVITE before it.
        let mut talk = timed(asked);
        let reinvite = asked_at(&mut talk, 44_000);
        talk.world.advance(28_000);
        assert_eq!(talk.world.ended().len(), 0, "72 s, {asked}");
        let terms = format!("{}Session-Expires: {}\r\n", talk.r.contact(), reinvite.get("Session-Expires"));
        let body = if status == "200 OK" { sdp(ANSWER_IP, 5000, "") } else { String::new() };
        talk.world.send(CARRIER, reinvite.answer(status, "", &terms, &body));
        talk.world.expect(CARRIER, "ACK ");
        if asked == OURS {
            // It was tried again at 55 s and 65 s, and is at 75 s.
            let due_ms = if status == "200 OK" { 45_000 } else { 3_000 };
            talk.world.advance(due_ms);
            let refresh = talk.world.expect(CARRIER, "INVITE ");
            talk.world.send(CARRIER, refresh.answer("200 OK", "", &terms, &sdp(ANSWER_IP, 5000, "")));
            talk.world.expect(CARRIER, "ACK ");
        }
        talk.world.advance(59_000);
        assert_eq!(talk.world.ended().len(), 0, "{asked}");
    }
}

#[test]
fn who_stays_and_answers_nothing_in_a_transfer_ends_the_call() {
    let mut talk = timed(THEIRS);
    asked_at(&mut talk, 44_000);
    talk.world.advance(80_000);
    assert_eq!(talk.world.ended()[0].cause, Some(Cause::SessionExpired));
}

#[test]
fn the_reinvite_that_takes_a_newcomer_back_keeps_the_session() {
    let mut talk = timed(THEIRS);
    let reinvite = asked_at(&mut talk, 40_000);
    assert_eq!(reinvite.get("Session-Expires"), "90;refresher=uas");
    let terms = format!("{}Session-Expires: 90;refresher=uas\r\n", talk.r.contact());
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &terms, ""));
    talk.world.expect(CARRIER, "ACK ");
    let restoring = talk.world.expect(CARRIER, "INVITE ");
    assert_eq!(restoring.get("Session-Expires"), "90;refresher=uas");
    talk.world.send(CARRIER, restoring.answer("200 OK", "", &terms, &sdp(ANSWER_IP, 5000, "")));
    talk.world.expect(CARRIER, "ACK ");
    // Each of the two was a refresh (RFC 4028 §3).
    talk.world.advance(59_000);
    assert_eq!(talk.world.ended().len(), 0);
    talk.world.advance(1_000);
    assert_eq!(talk.world.ended()[0].cause, Some(Cause::SessionExpired));
}

/// A call whose caller's session of 600 s we refresh by re-INVITE; the first has drawn 180 until its CANCEL.
fn dallying() -> (Talk, Msg) {
    let mut talk = timed("Supported: timer\r\nSession-Expires: 600;refresher=uas\r\n");
    talk.world.advance(300_000);
    let refresh = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, refresh.answer("180 Ringing", "", "", ""));
    talk.world.advance(31_999);
    talk.world.send(CARRIER, refresh.answer("180 Ringing", "", "", ""));
    talk.world.expect_nothing(CARRIER);
    talk.world.advance(1);
    let cancel = talk.world.expect(CARRIER, "CANCEL ");
    assert_eq!(cancel.get("Via"), refresh.get("Via"));
    talk.world.send(CARRIER, cancel.answer("200 OK", "", "", ""));
    (talk, refresh)
}

/// Neither leg is told that something is in its way.
#[track_caller]
fn assert_free(talk: &mut Talk) {
    let contact = talk.l.contact();
    talk.world.send(PBX, talk.l.request("INVITE", &contact, &sdp(OFFER_IP, 4002, "")));
    talk.world.expect(PBX, "SIP/2.0 100 ");
    let passed = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, passed.answer("488 No", "", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    let refused = talk.world.expect(PBX, "SIP/2.0 488 ");
    talk.world.send(PBX, talk.l.ack_failure(&refused));
}

#[test]
fn a_refresh_that_draws_only_provisional_responses_is_cancelled_and_tried_again() {
    let (mut talk, mut refresh) = dallying();
    talk.world.send(CARRIER, refresh.answer("487 Request Terminated", "", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    assert_free(&mut talk);
    // 332 s; again and again until 568.
    for _ in 0..5 {
        talk.world.advance(10_000);
        refresh = talk.world.expect(CARRIER, "INVITE ");
        talk.world.send(CARRIER, refresh.answer("180 Ringing", "", "", ""));
        talk.world.advance(32_000);
        let cancel = talk.world.expect(CARRIER, "CANCEL ");
        talk.world.send(CARRIER, cancel.answer("200 OK", "", "", ""));
        talk.world.send(CARRIER, refresh.answer("487 Request Terminated", "", "", ""));
        talk.world.expect(CARRIER, "ACK ");
    }
    // 542 s.
    talk.world.advance(25_999);
    assert_eq!(talk.world.ended().len(), 0);
    talk.world.advance(1);
    assert_eq!(talk.world.ended()[0].cause, Some(Cause::SessionExpired));
    talk.world.take_all(CARRIER);
    talk.world.take_all(PBX);
    talk.world.assert_clean();
}

#[test]
fn a_cancelled_refresh_that_still_draws_no_answer_is_given_up() {
    let (mut talk, _) = dallying();
    talk.world.advance(31_999);
    talk.world.send(PBX, talk.l.request("UPDATE", "", &sdp(OFFER_IP, 4002, "")));
    talk.world.expect(PBX, "SIP/2.0 491 ");
    talk.world.advance(1);
    assert_free(&mut talk);
    talk.world.advance(10_000);
    let refresh = talk.world.expect(CARRIER, "INVITE ");
    let terms = format!("{}Session-Expires: 600;refresher=uac\r\n", talk.r.contact());
    talk.world.send(CARRIER, refresh.answer("200 OK", "", &terms, &sdp(ANSWER_IP, 5000, "")));
    talk.world.expect(CARRIER, "ACK ");
    talk.hang_up();
}

#[test]
fn a_refresh_that_is_accepted_as_it_is_cancelled_counts() {
    let (mut talk, refresh) = dallying();
    let terms = format!("{}Session-Expires: 600;refresher=uac\r\n", talk.r.contact());
    talk.world.send(CARRIER, refresh.answer("200 OK", "", &terms, &sdp(ANSWER_IP, 5000, "")));
    talk.world.expect(CARRIER, "ACK ");
    talk.world.advance(299_999);
    talk.world.expect_nothing(CARRIER);
    talk.world.advance(1);
    talk.world.expect(CARRIER, "INVITE ");
}
