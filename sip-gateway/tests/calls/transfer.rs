//! Transfers, row by row of the table in `b2bua/transfer.rs` (RFC 3515, RFC 3891, RFC 3892, RFC 4488,
//! RFC 5589). The PBX's telephone is L unless a test says otherwise; the carrier's caller or callee stays.

use consent::Leg;
use sip_gateway::{Change, Event, Identity};

use crate::world::*;

/// The district's telephone that a call is transferred to.
pub const TARGET_IP: &str = "10.1.0.55";

/// A call from the carrier that the PBX has answered.
pub struct Talk {
    pub world: World,
    /// The carrier's caller: R.
    pub r: Ua,
    /// The PBX's telephone: L.
    pub l: Ua,
}

impl Talk {
    pub fn new() -> Self {
        Self::of(World::new())
    }

    pub fn of(mut world: World) -> Self {
        let (r, l) = call_in(&mut world, "18607427310", "first");
        Self { world, r, l }
    }

    /// Of this caller, whose INVITE has these fields.
    pub fn by(mut world: World, r: Ua, fields: &str) -> Self {
        let (r, l) = call_by(&mut world, r, fields, ("l", ""));
        Self { world, r, l }
    }

    pub fn refer(&mut self, refer_to: &str, extra: &str) {
        let contact = self.l.contact();
        let refer = self.l.request("REFER", &format!("{contact}Refer-To: {refer_to}\r\n{extra}"), "");
        self.world.send(PBX, refer);
    }

    /// Refers R to `refer_to` and takes the 202 and the first NOTIFY.
    #[track_caller]
    pub fn referred(&mut self, refer_to: &str) {
        self.refer(refer_to, "");
        self.world.expect(PBX, "SIP/2.0 202 Accepted");
        self.notified("SIP/2.0 100 Trying", "active");
    }

    #[track_caller]
    pub fn notified(&mut self, status: &str, state: &str) -> Msg {
        let notify = self.world.expect(PBX, "NOTIFY sip:line@10.1.0.10:5060 ");
        assert_eq!(notify.body(), format!("{status}\r\n"));
        assert!(notify.get("Subscription-State").starts_with(state), "{}", notify.text());
        assert_eq!(notify.get("Content-Type"), "message/sipfrag;version=2.0");
        assert_eq!(notify.get("Call-ID"), self.l.call_id);
        self.world.send(PBX, notify.answer("200 OK", "", "", ""));
        notify
    }

    /// T's INVITE; it answers with this offer.
    #[track_caller]
    pub fn answered_by_target(&mut self, offer: &str) -> (Msg, Ua) {
        let invite = self.world.expect(PBX, "INVITE ");
        assert_eq!(invite.body(), "");
        let t = Ua::callee(PBX, &invite, "targets-tag");
        self.world.send(PBX, invite.answer("200 OK", "targets-tag", &t.contact(), offer));
        (invite, t)
    }

    /// R takes the re-INVITE; T has its ACK, R too, and L its NOTIFY.
    #[track_caller]
    pub fn joined(&mut self) -> (Msg, Msg) {
        let reinvite = self.world.expect(CARRIER, "INVITE sip:line@10.2.0.20:5060 ");
        let ok = reinvite.answer("200 OK", "", &self.r.contact(), &sdp(ANSWER_IP, 5000, ""));
        self.world.send(CARRIER, ok);
        self.world.expect(CARRIER, "ACK ");
        let ack = self.world.expect(PBX, "ACK ");
        (reinvite, ack)
    }

    /// R gets L's description again, and takes it.
    #[track_caller]
    pub fn restored(&mut self) -> Msg {
        let reinvite = self.world.expect(CARRIER, "INVITE sip:line@10.2.0.20:5060 ");
        let ok = reinvite.answer("200 OK", "", &self.r.contact(), &sdp(ANSWER_IP, 5000, ""));
        self.world.send(CARRIER, ok);
        self.world.expect(CARRIER, "ACK ");
        reinvite
    }

    #[track_caller]
    pub fn left(&mut self) {
        self.world.send(PBX, self.l.request("BYE", "", ""));
        self.world.expect(PBX, "SIP/2.0 200 OK");
    }

    /// R hangs up on T, and nothing is left.
    #[track_caller]
    pub fn hang_up(mut self) {
        self.world.send(CARRIER, self.r.request("BYE", "", ""));
        self.world.expect(CARRIER, "SIP/2.0 200 OK");
        let bye = self.world.expect(PBX, "BYE ");
        self.world.send(PBX, bye.answer("200 OK", "", "", ""));
        self.world.expect_nothing(PBX);
        assert_eq!(self.world.ended().len(), 1);
        self.world.assert_clean();
    }

    pub fn newcomers(&self) -> Vec<(Leg, Identity)> {
        let changes = self.world.events.iter().filter_map(|event| match event {
            Event::Changed { leg, change: Change::Replaced { identity, .. }, .. } => {
                Some((*leg, identity.clone()))
            }
            _ => None,
        });
        changes.collect()
    }
}

/// A call from the carrier to the PBX, up: the caller and the callee.
#[track_caller]
pub fn call_in(world: &mut World, dialled: &str, name: &str) -> (Ua, Ua) {
    call_in_with(world, dialled, name, "")
}

/// The same, with `more` in both descriptions.
#[track_caller]
pub fn call_in_with(world: &mut World, dialled: &str, name: &str, more: &str) -> (Ua, Ua) {
    let mut r = Ua::caller(CARRIER, dialled);
    r.call_id = format!("{name}@10.2.0.20");
    r.local = format!("<sip:8605550100@10.2.0.20>;tag={name}-r");
    call_by(world, r, "", (&format!("{name}-l"), more))
}

/// The same of this caller, whose INVITE has these fields; `tag` is the callee's.
#[track_caller]
pub fn call_by(world: &mut World, mut r: Ua, fields: &str, (tag, more): (&str, &str)) -> (Ua, Ua) {
    world.send(CARRIER, r.invite(fields, &sdp(ANSWER_IP, 5000, more)));
    world.expect(CARRIER, "SIP/2.0 100 ");
    let invite = world.expect(PBX, "INVITE ");
    let l = Ua::callee(PBX, &invite, tag);
    world.send(PBX, invite.answer("200 OK", tag, &l.contact(), &sdp(OFFER_IP, 4000, more)));
    r.learn(&world.expect(CARRIER, "SIP/2.0 200 OK"));
    world.send(CARRIER, r.request("ACK", "", ""));
    world.expect(PBX, "ACK ");
    (r, l)
}

pub fn identity(user: &str) -> Identity {
    Identity { asserted: Vec::new(), from: user.to_owned(), trusted: true, privacy: false }
}

#[test]
fn a_blind_transfer() {
    let mut talk = Talk::new();
    talk.world.order.clear();
    talk.refer("<sip:7355@10.1.0.10>", "Referred-By: <sip:7310@pbx.secret>\r\n");
    let accepted = talk.world.expect(PBX, "SIP/2.0 202 Accepted");
    assert!(accepted.headers().contains("Contact"));
    talk.notified("SIP/2.0 100 Trying", "active;expires=");
    let (invite, _) = {
        let invite = talk.world.expect(PBX, "INVITE sip:7355@10.1.0.10 ");
        assert_eq!(invite.get("Referred-By"), "<sip:7310@10.0.0.1>");
        assert!(invite.get("From").starts_with("<sip:8605550100@10.0.0.1>;tag="), "{}", invite.text());
        talk.world.send(PBX, invite.answer("180 Ringing", "targets-tag", "", ""));
        talk.notified("SIP/2.0 180 Ringing", "active");
        assert_eq!(talk.newcomers(), []);
        let t = Ua::callee(PBX, &invite, "targets-tag");
        let offer = sdp(TARGET_IP, 4400, "a=ptime:20\r\n");
        talk.world.send(PBX, invite.answer("200 OK", "targets-tag", &t.contact(), &offer));
        (invite, t)
    };
    talk.world.order.clear();
    let (reinvite, ack) = talk.joined();
    // R gets T's description with our address towards R, T gets R's with ours towards T.
    assert!(reinvite.body().contains("m=audio 20000 ") && reinvite.body().contains("a=ptime:20"));
    assert!(!reinvite.body().contains(TARGET_IP));
    assert!(ack.body().contains("m=audio 20002 ") && !ack.body().contains(ANSWER_IP));
    assert_eq!(ack.get("Call-ID"), invite.get("Call-ID"));
    assert_eq!(talk.newcomers(), [(Leg::B, identity("7355"))]);
    let order = &talk.world.order;
    let at = |what: &str| order.iter().position(|done| done.contains(what)).unwrap();
    assert!(at("event Changed") < at("event Media") && at("event Media") < at("ACK"), "{order:?}");
    talk.notified("SIP/2.0 200 OK", "terminated;reason=noresource");
    talk.left();
    talk.hang_up();
}

#[test]
fn who_transfers_and_does_not_hang_up_is_hung_up_on() {
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10>");
    talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
    talk.joined();
    talk.notified("SIP/2.0 200 OK", "terminated");
    talk.world.advance(1_900);
    talk.world.expect_nothing(PBX);
    talk.world.advance(200);
    let bye = talk.world.expect(PBX, "BYE sip:line@10.1.0.10:5060 ");
    assert_eq!(bye.get("Call-ID"), talk.l.call_id);
    talk.world.send(PBX, bye.answer("200 OK", "", "", ""));
    talk.hang_up();
}

#[test]
fn a_transfer_whose_author_has_hung_up_goes_on() {
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10>");
    let invite = talk.world.expect(PBX, "INVITE ");
    talk.left();
    talk.world.expect_nothing(CARRIER);
    // R has nobody to talk to meanwhile.
    talk.world.send(CARRIER, talk.r.request("INFO", "", ""));
    talk.world.expect(CARRIER, "SIP/2.0 491 ");
    let t = Ua::callee(PBX, &invite, "targets-tag");
    talk.world.send(PBX, invite.answer("200 OK", "targets-tag", &t.contact(), &sdp(TARGET_IP, 4400, "")));
    talk.joined();
    talk.world.expect_nothing(PBX);
    talk.hang_up();
}

#[test]
fn a_transfer_that_fails_leaves_the_call_as_it_was() {
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10>");
    let invite = talk.world.expect(PBX, "INVITE ");
    talk.world.send(PBX, invite.answer("486 Busy Here", "t", "", ""));
    talk.world.expect(PBX, "ACK ");
    talk.notified("SIP/2.0 486 Busy Here", "terminated");
    assert_eq!(talk.newcomers(), []);
    talk.world.send(CARRIER, talk.r.request("INFO", "", ""));
    let info = talk.world.expect(PBX, "INFO sip:line@");
    talk.world.send(PBX, info.answer("200 OK", "", "", ""));
    talk.world.expect(CARRIER, "SIP/2.0 200 ");
    // And the next one may succeed.
    talk.referred("<sip:7355@10.1.0.10>");
    talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
    talk.joined();
    talk.notified("SIP/2.0 200 OK", "terminated");
    talk.left();
    talk.hang_up();
}

#[test]
fn a_transfer_that_fails_after_its_author_left_ends_the_call() {
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10>");
    let invite = talk.world.expect(PBX, "INVITE ");
    talk.left();
    talk.world.send(PBX, invite.answer("486 Busy Here", "t", "", ""));
    talk.world.expect(PBX, "ACK ");
    let bye = talk.world.expect(CARRIER, "BYE ");
    talk.world.send(CARRIER, bye.answer("200 OK", "", "", ""));
    talk.world.expect_nothing(PBX);
    assert_eq!(talk.world.ended().len(), 1);
    talk.world.assert_clean();
}

#[test]
fn whom_the_target_does_not_suit_keeps_the_author() {
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10>");
    talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, reinvite.answer("488 Not Acceptable Here", "", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    talk.world.expect(PBX, "ACK ");
    let bye = talk.world.expect(PBX, "BYE ");
    talk.world.send(PBX, bye.answer("200 OK", "", "", ""));
    talk.notified("SIP/2.0 488 Not Acceptable Here", "terminated");
    assert_eq!(talk.newcomers(), []);
    talk.world.send(CARRIER, talk.r.request("INFO", "", ""));
    talk.world.expect(PBX, "INFO sip:line@");
    talk.hang_up();
}

#[test]
fn glare_with_whom_stays_is_tried_again() {
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10>");
    talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, reinvite.answer("491 Request Pending", "", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    // RFC 3261 §14.1: 0 to 2 s, as the carrier made the Call-ID.
    talk.world.expect_nothing(CARRIER);
    let mut waited_ms = 0;
    while !talk.world.next_is_invite(CARRIER) {
        talk.world.advance(10);
        waited_ms += 10;
        assert!(waited_ms <= 2_000);
    }
    talk.world.take_all(PBX);
    talk.world.take_all(PBX);
    talk.joined();
    talk.notified("SIP/2.0 200 OK", "terminated");
    talk.left();
    talk.hang_up();
}

#[test]
fn without_a_subscription_nothing_is_told() {
    let mut talk = Talk::new();
    talk.refer("<sip:7355@10.1.0.10>", "Require: norefersub\r\nRefer-Sub: false\r\n");
    let accepted = talk.world.expect(PBX, "SIP/2.0 202 Accepted");
    assert_eq!(accepted.get("Refer-Sub"), "false");
    talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
    talk.joined();
    let bye = talk.world.expect(PBX, "BYE ");
    assert_eq!(bye.get("Call-ID"), talk.l.call_id);
    talk.world.send(PBX, bye.answer("200 OK", "", "", ""));
    talk.hang_up();
}

#[test]
fn refers_that_are_refused() {
    let mut talk = Talk::new();
    for (refer_to, extra, status) in [
        ("<sip:7355@10.1.0.10>", "Refer-To: <sip:7356@10.1.0.10>\r\n", "400"),
        ("<sip:7355@10.1.0.10;method=BYE>", "", "501"),
        ("<mailto:a@b.example>", "", "416"),
        ("<sip:7355@10.1.0.10?Replaces=nothing>", "", "400"),
        ("<sip:7355@10.1.0.10>", "Require: tdialog\r\n", "420"),
    ] {
        talk.refer(refer_to, extra);
        talk.world.expect(PBX, &format!("SIP/2.0 {status} "));
    }
    // A public peer may not, unless it is told that it may.
    let refer = talk.r.request("REFER", "Refer-To: <sip:7355@10.1.0.10>\r\n", "");
    talk.world.send(CARRIER, refer);
    talk.world.expect(CARRIER, "SIP/2.0 403 ");
    // One at a time.
    talk.referred("<sip:7355@10.1.0.10>");
    talk.world.expect(PBX, "INVITE ");
    talk.refer("<sip:7356@10.1.0.10>", "");
    talk.world.expect(PBX, "SIP/2.0 491 ");
    // Outside any call.
    let mut stranger = Ua::caller(PBX, "7355");
    stranger.call_id = "no-call".to_owned();
    talk.world.send(PBX, stranger.request("REFER", "Refer-To: <sip:7355@10.1.0.10>\r\n", ""));
    talk.world.expect(PBX, "SIP/2.0 403 ");
}

#[test]
fn a_public_peer_that_may_refer_transfers_to_the_district() {
    let mut config = config();
    config.peers[1].may_refer = true;
    let mut talk = Talk::of(World::with(config));
    talk.world.send(CARRIER, talk.r.request("REFER", "Refer-To: <sip:7355@10.0.0.1>\r\n", ""));
    talk.world.expect(CARRIER, "SIP/2.0 202 ");
    talk.world.expect(CARRIER, "NOTIFY ");
    talk.world.expect(PBX, "INVITE sip:7355@10.1.0.10 ");
}

#[test]
fn who_stays_and_hangs_up_ends_the_transfer() {
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10>");
    let invite = talk.world.expect(PBX, "INVITE ");
    talk.world.send(PBX, invite.answer("180 Ringing", "targets-tag", "", ""));
    talk.notified("SIP/2.0 180 Ringing", "active");
    talk.world.send(CARRIER, talk.r.request("BYE", "", ""));
    talk.world.expect(CARRIER, "SIP/2.0 200 ");
    talk.notified("SIP/2.0 487 Request Terminated", "terminated");
    let sent: Vec<String> =
        talk.world.take_all(PBX).iter().map(|message| message.text()[..6].to_owned()).collect();
    assert_eq!(sent, ["CANCEL", "BYE si"]);
    assert_eq!(talk.world.ended().len(), 1);
}

#[test]
fn a_newcomer_who_hangs_up_at_once_is_no_party() {
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10>");
    let (_, mut t) = talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(PBX, t.request("BYE", "", ""));
    let sent: Vec<String> =
        talk.world.take_all(PBX).iter().map(|message| message.text()[..11].to_owned()).collect();
    assert!(sent.iter().any(|start| start.starts_with("SIP/2.0 200")), "{sent:?}");
    assert!(sent.iter().any(|start| start.starts_with("NOTIFY")), "{sent:?}");
    assert_eq!(talk.newcomers(), []);
    // R's answer comes all the same and is acknowledged.
    talk.world.take_all(CARRIER);
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, "")));
    talk.world.expect(CARRIER, "ACK ");
}

#[test]
fn a_silent_target_is_given_up() {
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10>");
    talk.world.advance(33_000);
    let sent = talk.world.take_all(PBX);
    let last = sent.iter().rfind(|message| message.text().starts_with("NOTIFY")).unwrap();
    assert_eq!(last.body(), "SIP/2.0 408 Request Timeout\r\n");
    assert_eq!(talk.world.ended().len(), 0);
}

#[test]
fn a_hold_before_the_transfer_is_over_with_it() {
    let mut talk = Talk::new();
    let contact = talk.l.contact();
    let hold = talk.l.request("INVITE", &contact, &sdp(OFFER_IP, 4000, "a=sendonly\r\n"));
    talk.world.send(PBX, hold);
    talk.world.expect(PBX, "SIP/2.0 100 ");
    let held = talk.world.expect(CARRIER, "INVITE ");
    let answer = sdp(ANSWER_IP, 5000, "a=recvonly\r\n");
    talk.world.send(CARRIER, held.answer("200 OK", "", &talk.r.contact(), &answer));
    talk.world.expect(PBX, "SIP/2.0 200 ");
    talk.world.events.clear();
    let ack = talk.l.request("ACK", "", "");
    // The hold is not acknowledged yet: the re-INVITE of the transfer has to wait for it.
    talk.referred("<sip:7355@10.1.0.10>");
    talk.answered_by_target(&sdp(TARGET_IP, 4400, ""));
    talk.world.expect_nothing(CARRIER);
    talk.world.send(PBX, ack);
    talk.world.expect(CARRIER, "ACK ");
    talk.world.advance(250);
    talk.world.take_all(PBX);
    talk.joined();
    talk.notified("SIP/2.0 200 OK", "terminated");
    let changes: Vec<&Event> =
        talk.world.events.iter().filter(|event| matches!(event, Event::Changed { .. })).collect();
    assert!(
        matches!(
            changes[..],
            [
                Event::Changed { leg: Leg::B, change: Change::Replaced { .. }, .. },
                Event::Changed { leg: Leg::B, change: Change::Resumed, .. }
            ]
        ),
        "{changes:?}"
    );
    talk.left();
    talk.hang_up();
}

#[test]
fn the_caller_may_transfer_too_and_codecs_are_the_newcomers() {
    let mut up = Up::new();
    let contact = up.a.contact();
    let refer = up.a.request("REFER", &format!("{contact}Refer-To: <sip:7355@10.1.0.10>\r\n"), "");
    up.world.send(PBX, refer);
    up.world.expect(PBX, "SIP/2.0 202 ");
    let notify = up.world.expect(PBX, "NOTIFY ");
    up.world.send(PBX, notify.answer("200 OK", "", "", ""));
    let invite = up.world.expect(PBX, "INVITE sip:7355@");
    let t = Ua::callee(PBX, &invite, "targets-tag");
    let a_law = sdp(TARGET_IP, 4400, "").replace(" 0 101", " 8 96").replace(":0 PCMU", ":8 PCMA");
    let a_law = a_law.replace("rtpmap:101", "rtpmap:96");
    up.world.send(PBX, invite.answer("200 OK", "targets-tag", &t.contact(), &a_law));
    let reinvite = up.world.expect(CARRIER, "INVITE sip:line@10.2.0.20:5060 ");
    assert!(reinvite.body().contains("m=audio 20002 RTP/AVP 8 96\r\n"), "{}", reinvite.text());
    assert!(!reinvite.body().contains("PCMU"));
    let answer = a_law.replace(TARGET_IP, ANSWER_IP).replace("4400", "5000");
    up.world.send(CARRIER, reinvite.answer("200 OK", "", &up.b.contact(), &answer));
    up.world.expect(CARRIER, "ACK ");
    let ack = up.world.expect(PBX, "ACK ");
    assert!(ack.body().contains("m=audio 20000 RTP/AVP 8 96\r\n"), "{}", ack.text());
    let changed = up.world.event(|event| matches!(event, Event::Changed { .. }));
    assert!(matches!(changed, Event::Changed { leg: Leg::A, change: Change::Replaced { .. }, .. }));
    up.world.expect(PBX, "NOTIFY ");
    // What comes from the carrier goes to the newcomer now.
    up.world.send(CARRIER, up.b.request("INFO", "", "x"));
    let info = up.world.expect(PBX, "INFO ");
    assert_eq!(info.get("Call-ID"), invite.get("Call-ID"));
}
