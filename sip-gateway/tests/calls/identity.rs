//! Whose word on identities counts, who learns of them, and what was verified of a number (RFC 3325, RFC 3323,
//! RFC 8224).

use sip_gateway::{Attestation, Event, Offer, Validation, Verdict};

use crate::world::*;

const ASSERTED: &str = "P-Asserted-Identity: <sip:7399@10.1.0.10>\r\n";

/// A world in which the peers of the district and the public ones are trusted like this.
fn trusting(district: bool, public: bool) -> World {
    let mut config = config();
    for peer in &mut config.peers {
        peer.trusts_identity = if peer.side == consent::Side::District { district } else { public };
    }
    World::with(config)
}

/// What the callee gets of an INVITE with these fields, and what the hub is told.
fn offered(mut world: World, from: &str, fields: &str) -> (Msg, Offer) {
    let mut a = Ua::caller(from, "18605550100");
    world.send(from, a.invite(fields, &sdp("10.1.0.99", 4000, "")));
    let invite = world.expect(if from == PBX { CARRIER } else { PBX }, "INVITE ");
    let Event::Offered(offer) = world.event(|event| matches!(event, Event::Offered(_))) else {
        unreachable!()
    };
    (invite, *offer)
}

/// RFC 3325 §5, §7.
#[test]
fn an_assertion_counts_and_goes_on_as_its_peer_is_trusted() {
    for (from, district, public, counts) in [
        (PBX, true, false, true),
        (PBX, false, false, false),
        (CARRIER, true, false, false),
        (CARRIER, true, true, true),
    ] {
        let (invite, offer) = offered(trusting(district, public), from, ASSERTED);
        let sent = invite.headers().first("P-Asserted-Identity");
        assert_eq!(sent, counts.then_some("<sip:7399@10.0.0.1>"), "{from} {district} {public}");
        assert_eq!(offer.caller.asserted, Vec::from_iter(counts.then_some("7399")));
        assert_eq!((offer.caller.from.as_str(), offer.caller.trusted), ("7331", counts));
    }
    // §9.1: one by name and one by number.
    let both = "P-Asserted-Identity: <sip:desk1@pbx>, <tel:+18607427331>\r\n";
    let (_, offer) = offered(trusting(true, false), PBX, both);
    assert_eq!(offer.caller.asserted, ["desk1", "+18607427331"]);
}

/// RFC 3325 §5, §7.
#[test]
fn who_answers_is_shown_by_the_same_rule() {
    for trusted in [false, true] {
        let mut world = trusting(true, trusted);
        let mut a = Ua::caller(PBX, "100");
        world.send(PBX, a.invite("", ""));
        let invite = world.expect(CARRIER, "INVITE ");
        world.send(
            CARRIER,
            invite.answer("180 Ringing", "t", "P-Asserted-Identity: <sip:1@10.2.0.20>\r\n", ""),
        );
        world.expect(PBX, "SIP/2.0 100 ");
        let ringing = world.expect(PBX, "SIP/2.0 180 ");
        let shown = ringing.headers().first("P-Asserted-Identity");
        assert_eq!(shown, trusted.then_some("<sip:1@10.0.0.1>"));
    }
}

/// RFC 3323 §5; RFC 3325 §7.
#[test]
fn what_is_withheld_reaches_only_whom_is_trusted() {
    for (privacy, trusted, asserted, named, left) in [
        ("id", false, false, true, Some("id")),
        ("id", true, true, true, Some("id")),
        ("user;id;critical", false, false, false, Some("id;critical")),
        ("user;id;critical", true, true, true, Some("user;id;critical")),
        ("header;session", false, true, true, None),
        ("none", false, true, true, Some("none")),
    ] {
        let fields = format!("{ASSERTED}Privacy: {privacy}\r\nSubject: mine\r\n");
        let (invite, offer) = offered(trusting(true, trusted), PBX, &fields);
        let headers = invite.headers();
        assert_eq!(headers.contains("P-Asserted-Identity"), asserted, "{privacy} {trusted}");
        let from = invite.get("From");
        assert_eq!(from.contains("7331"), named, "{from}");
        assert_eq!(from.contains("anonymous@anonymous.invalid"), !named, "{from}");
        assert_eq!(headers.contains("Subject"), named);
        assert_eq!(headers.first("Privacy"), left, "{privacy} {trusted}");
        assert_eq!(offer.caller.privacy, privacy.contains("id") || privacy.contains("user"), "{privacy}");
    }
}

/// RFC 3323 §4.1.1.3; RFC 3261 §12.2.1.1.
#[test]
fn an_anonymous_from_stays_that_of_its_dialog() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "18605550100");
    world.send(PBX, a.invite("Privacy: user\r\n", &sdp(OFFER_IP, 4000, "")));
    let invite = world.expect(CARRIER, "INVITE ");
    let b = Ua::callee(CARRIER, &invite, "t");
    world.send(CARRIER, invite.answer("200 OK", "t", &b.contact(), &sdp(ANSWER_IP, 5000, "")));
    let ok = world.take_all(PBX).pop().unwrap();
    assert!(ok.get("From").contains("7331"), "the caller's own dialog has its own From");
    a.learn(&ok);
    world.send(PBX, a.request("ACK", "", ""));
    assert_eq!(world.expect(CARRIER, "ACK ").get("From"), invite.get("From"));
    world.send(PBX, a.request("BYE", "", ""));
    assert_eq!(world.expect(CARRIER, "BYE ").get("From"), invite.get("From"));
}

/// RFC 3323 §5.
#[test]
fn privacy_that_nobody_here_knows_is_refused_only_if_it_is_critical() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("Privacy: x-new;critical\r\n", ""));
    let refused = world.expect(PBX, "SIP/2.0 500 ");
    assert!(refused.get("Warning").starts_with("399 earmark "));
    world.expect_nothing(CARRIER);
    let (invite, _) = offered(World::new(), PBX, "Privacy: x-new\r\n");
    assert_eq!(invite.get("Privacy"), "x-new");
    let mut emergency = World::new();
    emergency.send(PBX, Ua::caller(PBX, "911").invite("Privacy: x-new;critical\r\n", ""));
    assert_eq!(emergency.expect(CARRIER, "INVITE ").get("Privacy"), "x-new;critical");
}

/// RFC 8224 §4.
#[test]
fn what_is_signed_and_what_it_signs_pass_unchanged() {
    let identity =
        "eyJhbGciOiJFUzI1NiJ9.eyJhdHRlc3QiOiJBIn0.sig;info=<https://cert.example/a.pem>;alg=ES256;ppt=shaken";
    let second = "x.y.z;info=<https://10.2.0.20/b.pem>;ppt=div";
    let date = "Sun, 29 Nov 2026 07:00:00 GMT";
    for (from, to) in [(CARRIER, PBX), (PBX, CARRIER)] {
        let mut world = World::new();
        let mut a = Ua::caller(from, "+18607427310");
        a.local = "<sip:+18605550123@x.example;user=phone>;tag=a".to_owned();
        a.remote = "<sip:+18607427310@10.0.0.1;user=phone>".to_owned();
        let fields = format!("Date: {date}\r\nIdentity: {identity}\r\nIdentity: {second}\r\n");
        world.send(from, a.invite(&fields, ""));
        let invite = world.expect(to, "INVITE sip:+18607427310@");
        let signatures: Vec<&str> = invite.headers().all("Identity").collect();
        assert_eq!((signatures, invite.get("Date")), (vec![identity, second], date));
        assert!(invite.get("From").starts_with("<sip:+18605550123@10.0.0.1;user=phone>;tag="));
        assert!(invite.get("To").starts_with("<sip:+18607427310@"));
    }
}

/// RFC 8224 §6.2.
#[test]
fn a_verdict_is_told_and_passed_on_from_a_trusted_peer_only() {
    let passed = "P-Asserted-Identity: <sip:+18605550123;verstat=TN-Validation-Passed@x;user=phone>\r\n";
    let verdict = |validation, attestation| Some(Verdict { validation, attestation });
    let by_field = format!("{passed}Attestation-Info: B\r\n");
    let lettered = passed.replace("Passed@", "Passed-A@");
    for (fields, told) in [
        (passed, verdict(Validation::Passed, None)),
        (by_field.as_str(), verdict(Validation::Passed, Some(Attestation::Partial))),
        (lettered.as_str(), verdict(Validation::Passed, Some(Attestation::Full))),
        ("P-Asserted-Identity: <tel:+1;verstat=TN-Validation-Failed>\r\n", verdict(Validation::Failed, None)),
        ("P-Asserted-Identity: <sip:+1@x;verstat=No-TN-Validation>\r\n", verdict(Validation::NotDone, None)),
        ("P-Asserted-Identity: <sip:+1@x;verstat=Surely>\r\nAttestation-Info: A\r\n", None),
        ("", None),
    ] {
        let (invite, offer) = offered(trusting(true, true), CARRIER, fields);
        assert_eq!(offer.verdict, told, "{fields}");
        assert_eq!(invite.text().contains("verstat"), fields.contains("verstat"));
        let (invite, offer) = offered(trusting(true, false), CARRIER, fields);
        assert_eq!(offer.verdict, None);
        assert!(
            !invite.text().contains("verstat") && !invite.text().contains("Attestation"),
            "{}",
            invite.text()
        );
    }
    let mut world = trusting(true, false);
    let mut a = Ua::caller(CARRIER, "7310");
    a.local = "<sip:+18605550123;verstat=TN-Validation-Passed@x;user=phone>;tag=a".to_owned();
    world.send(CARRIER, a.invite("", ""));
    assert!(
        world.expect(PBX, "INVITE ").get("From").starts_with("<sip:+18605550123@10.0.0.1;user=phone>;tag=")
    );
}
