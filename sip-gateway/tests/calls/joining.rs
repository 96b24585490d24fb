//! Far ends that change places between calls: attended transfers, and INVITEs with Replaces (RFC 3891, RFC 5589
//! §7), row by row of the tables in `b2bua/transfer/`.

use consent::Leg;
use sip_gateway::{Change, Event, Identity, Redirects};

use crate::transfer::{TARGET_IP, Talk, call_in, identity};
use crate::world::*;

/// X has two calls: R on the first, Q on the second. X names the second in a REFER on the first.
pub fn attended() -> (Talk, Ua, Ua) {
    let mut talk = Talk::new();
    let (q, x) = call_in(&mut talk.world, "18607427310", "second");
    (talk, q, x)
}

/// The Refer-To that names a dialog of the gateway's with this telephone.
pub fn naming(x: &Ua) -> String {
    let own = x.local.rsplit("tag=").next().unwrap();
    let ours = x.remote.rsplit("tag=").next().unwrap();
    let call_id = x.call_id.replace('@', "%40");
    format!("<sip:10.0.0.1:5060?Replaces={call_id}%3Bto-tag%3D{ours}%3Bfrom-tag%3D{own}>")
}

#[test]
fn an_attended_transfer_joins_the_far_ends_of_two_calls() {
    let (mut talk, mut q, mut x) = attended();
    let calls = talk.world.open_calls();
    talk.referred(&naming(&x));
    // Q, the far end of the second call, is asked for an offer.
    let asked = talk.world.expect(CARRIER, "INVITE ");
    assert_eq!((asked.get("Call-ID"), asked.body().as_str()), ("second@10.2.0.20", ""));
    talk.world.send(CARRIER, asked.answer("200 OK", "", &q.contact(), &sdp(ANSWER_IP, 5200, "")));
    // R takes it.
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    assert_eq!(reinvite.get("Call-ID"), "first@10.2.0.20");
    assert!(reinvite.body().contains("m=audio 20000 "));
    let ok = reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, ""));
    talk.world.send(CARRIER, ok);
    let ack = talk.world.expect(CARRIER, "ACK ");
    assert_eq!(ack.get("Call-ID"), "second@10.2.0.20");
    assert!(ack.body().contains("m=audio 20002 "), "{}", ack.text());
    assert_eq!(talk.world.expect(CARRIER, "ACK ").get("Call-ID"), "first@10.2.0.20");
    assert_eq!(talk.newcomers(), [(Leg::B, Identity { trusted: false, ..identity("8605550100") })]);
    talk.notified("SIP/2.0 200 OK", "terminated");
    // The second call is over; its record is linked.
    let bye = talk.world.expect(PBX, "BYE ");
    assert_eq!(bye.get("Call-ID"), x.call_id);
    talk.world.send(PBX, bye.answer("200 OK", "", "", ""));
    assert_eq!(talk.world.ended().len(), 1);
    talk.world.event(|event| matches!(event, Event::Linked { call, with } if [*call, *with] == calls[..]));
    // Crossing BYEs do no harm.
    talk.world.send(PBX, x.request("BYE", "", ""));
    talk.world.expect(PBX, "SIP/2.0 200 ");
    talk.left();
    // Q hangs up on R.
    q.cseq = 900;
    talk.world.send(CARRIER, q.request("BYE", "", ""));
    talk.world.expect(CARRIER, "SIP/2.0 200 ");
    let bye = talk.world.expect(CARRIER, "BYE ");
    assert_eq!(bye.get("Call-ID"), "first@10.2.0.20");
    talk.world.send(CARRIER, bye.answer("200 OK", "", "", ""));
    assert_eq!(talk.world.ended().len(), 2);
    talk.world.assert_clean();
}

/// To is what a telephone has written, and an assertion may be the PBX's main number.
#[test]
fn who_is_joined_is_whom_the_gateway_has_dialled_and_not_who_stands_in_to() {
    for (asserted, redirected) in
        [("", false), ("P-Asserted-Identity: <sip:1002@10.2.0.20>\r\n", false), ("", true)]
    {
        let mut config = config();
        config.peers[1].redirects = Redirects::Follow;
        let mut talk = Talk::of(World::with(config));
        let mut x = Ua::caller(PBX, "7427310");
        x.call_id = "second@10.1.0.10".to_owned();
        x.remote = "<sip:7427332@10.0.0.1>".to_owned();
        talk.world.send(PBX, x.invite("", &sdp(OFFER_IP, 4200, "")));
        talk.world.expect(PBX, "SIP/2.0 100 ");
        let mut invite = talk.world.expect(CARRIER, "INVITE sip:7427310@");
        if redirected {
            let contact = "Contact: <sip:7427399@10.2.0.20>\r\n";
            talk.world.send(CARRIER, invite.answer("302 Moved Temporarily", "q", contact, ""));
            talk.world.expect(CARRIER, "ACK ");
            invite = talk.world.expect(CARRIER, "INVITE sip:7427399@");
        }
        let q = Ua::callee(CARRIER, &invite, "q");
        let fields = format!("{}{asserted}", q.contact());
        talk.world.send(CARRIER, invite.answer("200 OK", "q", &fields, &sdp(ANSWER_IP, 5200, "")));
        x.learn(&talk.world.expect(PBX, "SIP/2.0 200 OK"));
        talk.world.send(PBX, x.request("ACK", "", ""));
        talk.world.expect(CARRIER, "ACK ");
        talk.referred(&naming(&x));
        let asked = talk.world.expect(CARRIER, "INVITE ");
        talk.world.send(CARRIER, asked.answer("200 OK", "", &q.contact(), &sdp(ANSWER_IP, 5200, "")));
        let reinvite = talk.world.expect(CARRIER, "INVITE ");
        let ok = reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, ""));
        talk.world.send(CARRIER, ok);
        talk.notified("SIP/2.0 200 OK", "terminated");
        let dialled = if redirected { "7427399" } else { "7427310" };
        let joined = talk.world.events.iter().filter_map(|event| match event {
            Event::Changed { change: Change::Replaced { called, identity, .. }, .. } => {
                Some((called.as_deref(), identity.from.as_str()))
            }
            _ => None,
        });
        assert_eq!(joined.collect::<Vec<_>>(), [(Some(dialled), dialled)], "{asserted} {redirected}");
    }
}

#[test]
fn an_attended_transfer_that_fails_gives_the_far_end_back() {
    let (mut talk, mut q, x) = attended();
    talk.referred(&naming(&x));
    let asked = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, asked.answer("200 OK", "", &q.contact(), &sdp(ANSWER_IP, 5200, "")));
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, reinvite.answer("488 No", "", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    let ack = talk.world.expect(CARRIER, "ACK ");
    assert_eq!(ack.get("Call-ID"), "second@10.2.0.20");
    assert!(ack.body().contains("m=audio 20000 "), "what it had before:\n{}", ack.text());
    talk.notified("SIP/2.0 488 No", "terminated");
    // Both calls go on.
    talk.world.send(CARRIER, q.request("INFO", "", ""));
    let info = talk.world.expect(PBX, "INFO ");
    assert_eq!(info.get("Call-ID"), x.call_id);
    talk.world.send(CARRIER, talk.r.request("INFO", "", ""));
    assert_eq!(talk.world.expect(PBX, "INFO ").get("Call-ID"), talk.l.call_id);
    assert_eq!(talk.world.ended().len(), 0);
}

#[test]
fn a_dialog_that_is_not_ours_is_replaced_by_its_owner() {
    let mut talk = Talk::new();
    talk.referred("<sip:7355@10.1.0.10?Replaces=inside%40pbx%3Bto-tag%3D1%3Bfrom-tag%3D2&Require=replaces>");
    let invite = talk.world.expect(PBX, "INVITE sip:7355@10.1.0.10 ");
    assert_eq!(invite.get("Replaces"), "inside@pbx;to-tag=1;from-tag=2");
    assert_eq!(invite.get("Require"), "replaces");
}

#[test]
fn an_invite_replaces_a_far_end() {
    let mut talk = Talk::new();
    let mut t = taker();
    let invite = t.invite(&format!("{}Require: replaces\r\n", replacing(&talk.l)), &sdp(TARGET_IP, 4400, ""));
    talk.world.send(PBX, invite);
    talk.world.expect(PBX, "SIP/2.0 100 ");
    let replacing = talk.world.event(|event| matches!(event, Event::Replacing(_)));
    let Event::Replacing(replacement) = replacing else { unreachable!() };
    assert_eq!((replacement.leg, replacement.caller.from.as_str()), (Leg::B, "7355"));
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    assert!(reinvite.body().contains("m=audio 20000 "));
    let ok = reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, ""));
    talk.world.send(CARRIER, ok);
    assert_eq!(talk.newcomers(), [(Leg::B, identity("7355"))]);
    let ok = talk.world.expect(PBX, "SIP/2.0 200 ");
    assert!(ok.body().contains("m=audio 20002 "));
    t.learn(&ok);
    // L gets its BYE.
    let bye = talk.world.expect(PBX, "BYE ");
    assert_eq!(bye.get("Call-ID"), talk.l.call_id);
    talk.world.send(PBX, bye.answer("200 OK", "", "", ""));
    talk.world.send(PBX, t.request("ACK", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    talk.world.event(|event| matches!(event, Event::ReplacementEnded { status: 200, .. }));
    talk.hang_up();
}

#[test]
fn replacements_that_are_refused() {
    let mut talk = Talk::new();
    let named = replacing(&talk.l).trim_start_matches("Replaces: ").trim_end().to_owned();
    let mut count = 0;
    let mut refused = |talk: &mut Talk, from: &str, field: &str, status: &str| {
        count += 1;
        let mut t = Ua::caller(from, "7310");
        t.call_id = format!("refused-{count}");
        t.local = format!("<sip:7355@10.1.0.10>;tag=ts{count}");
        talk.world.send(from, t.invite(field, &sdp(TARGET_IP, 4400, "")));
        let refusal = talk.world.expect(from, &format!("SIP/2.0 {status} "));
        talk.world.send(from, t.ack_failure(&refusal));
        talk.world.expect_nothing(CARRIER);
    };
    refused(&mut talk, PBX, "Replaces: nobodys;to-tag=1;from-tag=2\r\n", "481");
    refused(&mut talk, PBX, "Replaces: nonsense\r\n", "400");
    refused(&mut talk, PBX, &format!("Replaces: {named}\r\nReplaces: {named}\r\n"), "400");
    refused(&mut talk, PBX, &format!("Replaces: {named};early-only\r\n"), "486");
    refused(&mut talk, CARRIER, &format!("Replaces: {named}\r\n"), "403");
    assert_eq!(talk.world.ended().len(), 0);
    talk.hang_up();
}

/// The Replaces that names a dialog of the gateway's with this telephone.
pub fn replacing(x: &Ua) -> String {
    let tag = |address: &str| address.rsplit("tag=").next().unwrap().to_owned();
    format!("Replaces: {};to-tag={};from-tag={}\r\n", x.call_id, tag(&x.remote), tag(&x.local))
}

/// A telephone of the PBX's that takes a call over.
pub fn taker() -> Ua {
    let mut t = Ua::caller(PBX, "7310");
    t.call_id = "pick-up".to_owned();
    t.local = "<sip:7355@10.1.0.10>;tag=ts".to_owned();
    t
}

#[test]
fn a_call_that_is_busy_lends_its_far_end_later() {
    let (mut talk, mut q, x) = attended();
    // A re-INVITE of Q's is under way.
    let contact = q.contact();
    talk.world.send(CARRIER, q.request("INVITE", &contact, &sdp(ANSWER_IP, 5202, "")));
    talk.world.expect(CARRIER, "SIP/2.0 100 ");
    let reinvite = talk.world.expect(PBX, "INVITE ");
    talk.referred(&naming(&x));
    talk.world.advance(450);
    talk.world.take_all(PBX);
    talk.world.expect_nothing(CARRIER);
    talk.world.send(PBX, reinvite.answer("200 OK", "", &x.contact(), &sdp(OFFER_IP, 4010, "")));
    talk.world.expect(CARRIER, "SIP/2.0 200 ");
    talk.world.send(CARRIER, q.request("ACK", "", ""));
    talk.world.expect(PBX, "ACK ");
    talk.world.advance(250);
    let asked = talk.world.expect(CARRIER, "INVITE ");
    assert_eq!((asked.get("Call-ID"), asked.body().as_str()), ("second@10.2.0.20", ""));
}

#[test]
fn who_hangs_up_both_calls_at_once_has_still_joined_the_others() {
    let (mut talk, q, mut x) = attended();
    talk.referred(&naming(&x));
    let asked = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(PBX, x.request("BYE", "", ""));
    talk.world.expect(PBX, "SIP/2.0 200 ");
    assert_eq!(talk.world.ended().len(), 1);
    talk.left();
    talk.world.expect_nothing(CARRIER);
    talk.world.send(CARRIER, asked.answer("200 OK", "", &q.contact(), &sdp(ANSWER_IP, 5200, "")));
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    let ok = reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, ""));
    talk.world.send(CARRIER, ok);
    talk.world.expect(CARRIER, "ACK ");
    talk.world.expect(CARRIER, "ACK ");
    talk.world.send(CARRIER, talk.r.request("BYE", "", ""));
    talk.world.expect(CARRIER, "SIP/2.0 200 ");
    let bye = talk.world.expect(CARRIER, "BYE ");
    assert_eq!(bye.get("Call-ID"), "second@10.2.0.20");
    talk.world.send(CARRIER, bye.answer("200 OK", "", "", ""));
    talk.world.expect_nothing(PBX);
    assert_eq!(talk.world.ended().len(), 2);
    talk.world.assert_clean();
}

#[test]
fn a_lent_far_end_that_hangs_up_ends_its_own_call_only() {
    let (mut talk, mut q, x) = attended();
    talk.referred(&naming(&x));
    talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, q.request("BYE", "", ""));
    talk.world.expect(CARRIER, "SIP/2.0 200 ");
    talk.notified("SIP/2.0 487 Request Terminated", "terminated");
    let bye = talk.world.expect(PBX, "BYE ");
    assert_eq!(bye.get("Call-ID"), x.call_id);
    assert_eq!(talk.world.ended().len(), 1);
    talk.world.send(CARRIER, talk.r.request("INFO", "", ""));
    assert_eq!(talk.world.expect(PBX, "INFO ").get("Call-ID"), talk.l.call_id);
}

#[test]
fn a_replacing_invite_without_an_offer_gets_the_others() {
    let mut talk = Talk::new();
    let mut t = taker();
    talk.world.send(PBX, t.invite(&replacing(&talk.l), ""));
    talk.world.expect(PBX, "SIP/2.0 100 ");
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    assert_eq!(reinvite.body(), "");
    let offer = sdp(ANSWER_IP, 5000, "");
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &talk.r.contact(), &offer));
    let ok = talk.world.expect(PBX, "SIP/2.0 200 ");
    assert!(ok.body().contains("m=audio 20002 "));
    t.learn(&ok);
    let bye = talk.world.expect(PBX, "BYE ");
    talk.world.send(PBX, bye.answer("200 OK", "", "", ""));
    talk.world.send(PBX, t.request("ACK", "", &sdp(TARGET_IP, 4400, "")));
    let ack = talk.world.expect(CARRIER, "ACK ");
    assert!(ack.body().contains("m=audio 20000 "));
    assert_eq!(talk.newcomers(), [(Leg::B, identity("7355"))]);
    talk.hang_up();
}

#[test]
fn a_replacement_that_does_not_suit_or_is_cancelled_leaves_the_call_as_it_was() {
    let mut talk = Talk::new();
    let mut t = taker();
    talk.world.send(PBX, t.invite(&replacing(&talk.l), &sdp(TARGET_IP, 4400, "")));
    talk.world.expect(PBX, "SIP/2.0 100 ");
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(CARRIER, reinvite.answer("488 No", "", "", ""));
    talk.world.expect(CARRIER, "ACK ");
    let refused = talk.world.expect(PBX, "SIP/2.0 488 ");
    talk.world.send(PBX, t.ack_failure(&refused));
    talk.world.event(|event| matches!(event, Event::ReplacementEnded { status: 488, .. }));

    let mut t = taker();
    t.call_id = "given-up".to_owned();
    t.branch = 70;
    talk.world.send(PBX, t.invite(&replacing(&talk.l), &sdp(TARGET_IP, 4400, "")));
    talk.world.expect(PBX, "SIP/2.0 100 ");
    let reinvite = talk.world.expect(CARRIER, "INVITE ");
    talk.world.send(PBX, t.request("CANCEL", "", ""));
    talk.world.expect(PBX, "SIP/2.0 200 ");
    let refused = talk.world.expect(PBX, "SIP/2.0 487 ");
    talk.world.send(PBX, t.ack_failure(&refused));
    // R has answered meanwhile.
    talk.world.send(CARRIER, reinvite.answer("200 OK", "", &talk.r.contact(), &sdp(ANSWER_IP, 5000, "")));
    talk.world.expect(CARRIER, "ACK ");
    talk.restored();
    assert_eq!(talk.newcomers(), []);
    talk.hang_up();
}

#[test]
fn an_early_dialog_is_not_replaced() {
    let mut world = World::new();
    let mut r = Ua::caller(CARRIER, "7310");
    world.send(CARRIER, r.invite("", &sdp(ANSWER_IP, 5000, "")));
    let invite = world.expect(PBX, "INVITE ");
    let l = Ua::callee(PBX, &invite, "l");
    world.send(PBX, invite.answer("180 Ringing", "l", &l.contact(), ""));
    let mut t = taker();
    world.send(PBX, t.invite(&replacing(&l), &sdp(TARGET_IP, 4400, "")));
    world.expect(PBX, "SIP/2.0 501 ");
}
