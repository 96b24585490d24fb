//! Transfers and redirections among peers that want credentials of us (RFC 3261 §22.2, RFC 3515, RFC 3891):
//! whoever does not challenge notices nothing.

use crate::challenged::{MD5, number, origin};
use crate::joining::naming;
use crate::proof::*;
use crate::transfer::{TARGET_IP, Talk, call_in};
use crate::world::*;

/// A call from the carrier to the PBX; each has an account of ours.
fn talk() -> Talk {
    let mut config = config();
    for peer in &mut config.peers[..2] {
        peer.account = Some(account());
    }
    Talk::of(World::with(config))
}

/// Refuses an INVITE with a challenge; its ACK is taken.
#[track_caller]
fn challenge(world: &mut World, at: &str, invite: &Msg) {
    world.send(at, invite.answer("401 Unauthorized", "challenger", &origin(MD5), ""));
    assert_eq!(world.expect(at, "ACK ").get("Via"), invite.get("Via"));
}

/// The INVITE that comes after a challenge of this one.
#[track_caller]
fn proven(world: &mut World, at: &str, bare: &Msg) -> Msg {
    assert!(!bare.headers().contains("Authorization"), "nothing is sent unasked");
    challenge(world, at, bare);
    let proven = world.expect(at, "INVITE ");
    for same in ["Call-ID", "From", "To", "Contact"] {
        assert_eq!(proven.get(same), bare.get(same), "{same}");
    }
    assert_eq!((number(&proven), proven.body()), (number(bare) + 1, bare.body()));
    assert_good(proven.get("Authorization"), "INVITE", &proven.request().uri);
    proven
}

#[track_caller]
fn assert_of(ack: &Msg, invite: &Msg) {
    assert_eq!(number(ack), number(invite));
    assert_eq!(ack.get("Authorization"), invite.get("Authorization"), "§22.1");
}

#[test]
fn whom_a_transfer_calls_may_challenge() {
    let mut talk = talk();
    talk.referred("<sip:7355@10.1.0.10>");
    let bare = talk.world.expect(PBX, "INVITE sip:7355@10.1.0.10 ");
    let invite = proven(&mut talk.world, PBX, &bare);
    assert_eq!(invite.get("Referred-By"), bare.get("Referred-By"));
    talk.world.expect_nothing(PBX);
    talk.world.expect_nothing(CARRIER);
    let t = Ua::callee(PBX, &invite, "targets-tag");
    let offer = sdp(TARGET_IP, 4400, "");
    talk.world.send(PBX, invite.answer("200 OK", "targets-tag", &t.contact(), &offer));
    let (reinvite, ack) = talk.joined();
    assert!(!reinvite.headers().contains("Authorization"), "one peer's credentials are not the other's");
    assert_of(&ack, &invite);
    talk.notified("SIP/2.0 200 OK", "terminated");
    talk.left();
    talk.hang_up();
}

#[test]
fn a_target_that_refuses_our_credentials_ends_the_transfer_and_not_the_call() {
    let mut talk = talk();
    talk.referred("<sip:7355@10.1.0.10>");
    let bare = talk.world.expect(PBX, "INVITE ");
    let invite = proven(&mut talk.world, PBX, &bare);
    challenge(&mut talk.world, PBX, &invite);
    talk.notified("SIP/2.0 502 Bad Gateway", "terminated");
    talk.world.expect_nothing(PBX);
    talk.hang_up();
}

#[test]
fn a_target_that_is_silent_after_its_challenge_is_given_up() {
    let mut talk = talk();
    talk.referred("<sip:7355@10.1.0.10>");
    let bare = talk.world.expect(PBX, "INVITE ");
    proven(&mut talk.world, PBX, &bare);
    talk.world.advance(32_000);
    let sent = talk.world.take_all(PBX);
    let last = sent.iter().rfind(|message| message.text().starts_with("NOTIFY")).unwrap();
    assert_eq!(last.body(), "SIP/2.0 408 Request Timeout\r\n");
    assert_eq!(talk.world.ended().len(), 0);
}

#[test]
fn who_stays_may_challenge() {
    let mut talk = talk();
    talk.referred("<sip:7355@10.1.0.10>");
    talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
    let bare = talk.world.expect(CARRIER, "INVITE ");
    let reinvite = proven(&mut talk.world, CARRIER, &bare);
    talk.world.expect_nothing(PBX);
    let ok = reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, ""));
    talk.world.send(CARRIER, ok);
    assert_of(&talk.world.expect(CARRIER, "ACK "), &reinvite);
    assert!(!talk.world.expect(PBX, "ACK ").headers().contains("Authorization"));
    talk.notified("SIP/2.0 200 OK", "terminated");
    talk.left();
    talk.hang_up();
}

#[test]
fn a_far_end_that_is_lent_may_challenge_and_keeps_its_numbers_when_it_is_given_back() {
    let mut talk = talk();
    let (q, mut x) = call_in(&mut talk.world, "18607427310", "second");
    talk.referred(&naming(&x));
    let bare = talk.world.expect(CARRIER, "INVITE ");
    assert_eq!(bare.get("Call-ID"), "second@10.2.0.20");
    let asked = proven(&mut talk.world, CARRIER, &bare);
    talk.world.send(CARRIER, asked.answer("200 OK", "", &q.contact(), &sdp(ANSWER_IP, 5200, "")));
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    assert_eq!(reinvite.get("Call-ID"), "first@10.2.0.20");
    assert_eq!(param(reinvite.get("Authorization"), "nc"), "00000002");
    talk.world.send(CARRIER, reinvite.answer("488 No", "", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    assert_of(&talk.world.expect(CARRIER, "ACK "), &asked);
    talk.notified("SIP/2.0 488 No", "terminated");
    x.cseq += 1;
    talk.world.send(PBX, x.request("INFO", "", "x"));
    let info = talk.world.expect(CARRIER, "INFO ");
    assert_eq!((info.get("Call-ID"), number(&info)), ("second@10.2.0.20", number(&asked) + 1));
    assert_eq!(talk.world.ended().len(), 0);
}

#[test]
fn a_refused_lent_far_end_keeps_its_numbers_too() {
    let mut talk = talk();
    let (_, mut x) = call_in(&mut talk.world, "18607427310", "second");
    talk.referred(&naming(&x));
    let bare = talk.world.expect(CARRIER, "INVITE ");
    let asked = proven(&mut talk.world, CARRIER, &bare);
    challenge(&mut talk.world, CARRIER, &asked);
    talk.notified("SIP/2.0 502 Bad Gateway", "terminated");
    x.cseq += 1;
    talk.world.send(PBX, x.request("INFO", "", "x"));
    assert_eq!(number(&talk.world.expect(CARRIER, "INFO ")), number(&asked) + 1);
}

/// RFC 3261 §9.1: a CANCEL is of the request that was sent last.
#[test]
fn a_join_that_is_given_up_is_cancelled_and_not_begun_again() {
    for heard in [true, false] {
        let mut talk = talk();
        talk.referred("<sip:7355@10.1.0.10>");
        let (_, mut t) = talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
        let bare = talk.world.expect(CARRIER, "INVITE ");
        let last = if heard { proven(&mut talk.world, CARRIER, &bare) } else { bare };
        if heard {
            talk.world.send(CARRIER, last.answer("100 Trying", "", "", ""));
        }
        talk.world.send(PBX, t.request("BYE", "", ""));
        if heard {
            let cancel = talk.world.expect(CARRIER, "CANCEL ");
            assert_eq!((cancel.get("Via"), number(&cancel)), (last.get("Via"), number(&last)));
            assert!(!cancel.headers().contains("Authorization"));
        } else {
            challenge(&mut talk.world, CARRIER, &last);
        }
        talk.world.expect_nothing(CARRIER);
        assert_eq!(talk.newcomers(), []);
        assert_eq!(talk.world.ended().len(), 0);
    }
}

/// RFC 3261 §8.1.3.4.
#[test]
fn whom_a_redirection_names_may_challenge() {
    let mut config = config();
    config.peers[0].account = Some(account());
    let mut world = World::with(config);
    let mut caller = Ua::caller(CARRIER, "7310");
    world.send(CARRIER, caller.invite("", &sdp(ANSWER_IP, 5000, "")));
    world.expect(CARRIER, "SIP/2.0 100 ");
    let first = world.expect(PBX, "INVITE sip:7310@10.1.0.10 ");
    world.send(PBX, first.answer("302 Moved", "t", "Contact: <sip:7399@10.1.0.10>\r\n", ""));
    world.expect(PBX, "ACK ");
    let bare = world.expect(PBX, "INVITE sip:7399@10.1.0.10 ");
    let invite = proven(&mut world, PBX, &bare);
    assert_eq!(invite.get("Diversion"), bare.get("Diversion"));
    let callee = Ua::callee(PBX, &invite, "c");
    world.send(PBX, invite.answer("200 OK", "c", &callee.contact(), &sdp(OFFER_IP, 4000, "")));
    caller.learn(&world.expect(CARRIER, "SIP/2.0 200 "));
    world.send(CARRIER, caller.request("ACK", "", ""));
    assert_of(&world.expect(PBX, "ACK "), &invite);
    world.expect_nothing(CARRIER);
}
