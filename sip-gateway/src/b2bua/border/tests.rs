#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

const CLOSED: &str = "10.1.0.10";

fn border(believed: bool, trusted: bool, privacy: &str) -> Border {
    let mut hosts = Hosts::default();
    hosts.learn(CLOSED);
    hosts.learn("pbx.example.org");
    let mut asked = Headers::new();
    asked.push(name::PRIVACY, privacy);
    Border {
        believed,
        trusted,
        hosts: Arc::new(hosts),
        host: "gw".to_owned(),
        privacy: Privacy::of(&asked),
        ..Border::none()
    }
}

fn crossed(border: &Border, name: &str, value: &str) -> Option<String> {
    let (mut from, mut to) = (Headers::new(), Headers::new());
    from.push(name, value);
    border.cross_all(&from, name, &mut to);
    to.first(name).map(str::to_owned)
}

#[test]
fn an_identity_crosses_from_who_is_believed_to_who_may_know() {
    let asserted = "\"Ann\" <sip:7331@10.1.0.10;x=y>, <tel:+18607427331>";
    let moved = "\"Ann\" <sip:7331@gw;x=y>, <tel:+18607427331>";
    for field in ["P-Asserted-Identity", "p-preferred-identity", "Remote-Party-ID"] {
        for (believed, trusted, privacy, shown) in [
            (true, false, "none", true),
            (true, true, "id", true),
            (true, false, "id", false),
            (true, false, "user", false),
            (true, false, "session", true),
            (false, true, "none", false),
        ] {
            let seen = crossed(&border(believed, trusted, privacy), field, asserted);
            assert_eq!(seen.as_deref(), shown.then_some(moved), "{field} {believed} {trusted} {privacy}");
        }
    }
}

/// RFC 3323 §5.3.
#[test]
fn who_wants_privacy_is_anonymous_to_whom_is_not_trusted() {
    let from = "\"Ann\" <sip:7331@10.1.0.10>;tag=a";
    let nobody = "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=t";
    assert_eq!(border(true, false, "user").from(from, "t"), nobody);
    assert_eq!(border(true, true, "user").from(from, "t"), "\"Ann\" <sip:7331@gw>;tag=t");
    assert_eq!(border(true, false, "id").from(from, "t"), "\"Ann\" <sip:7331@gw>;tag=t");
    for field in ["Subject", "User-Agent", "Organization", "Call-Info", "Server", "Reply-To"] {
        let value = "<sip:x@elsewhere.example>";
        assert_eq!(crossed(&border(true, false, "user"), field, value), None, "{field}");
        assert!(crossed(&border(true, true, "user"), field, value).is_some(), "{field}");
    }
}

#[test]
fn only_whoever_is_believed_says_what_was_verified() {
    for (said, kept) in [
        ("<sip:+1860;verstat=TN-Validation-Passed@x;user=phone>;tag=a", "<sip:+1860@gw;user=phone>;tag=t"),
        ("<sip:+1860@x;Verstat=TN-Validation-Failed;a=b>;tag=a", "<sip:+1860@gw;a=b>;tag=t"),
        ("<tel:+1860;verstat=No-TN-Validation>;tag=a", "<tel:+1860>;tag=t"),
        ("<sip:+1860;verstatx=1@x>;tag=a", "<sip:+1860;verstatx=1@gw>;tag=t"),
        ("<sip:+1860;verstatx=1;verstat=a;VERSTAT@x>;tag=a", "<sip:+1860;verstatx=1@gw>;tag=t"),
    ] {
        assert_eq!(border(false, true, "none").from(said, "t"), kept);
        let believed = border(true, true, "none").from(said, "t");
        assert!(believed.to_ascii_lowercase().contains("verstat"), "{believed}");
    }
    for field in ATTESTED {
        assert_eq!(crossed(&border(false, true, "none"), field, "A"), None);
        assert_eq!(crossed(&border(true, true, "none"), field, "A").as_deref(), Some("A"));
    }
}

#[test]
fn signed_fields_cross_byte_for_byte() {
    let identity = "eyJ.eyJ.sig;info=<https://pbx.example.org/c.pem>;alg=ES256;ppt=shaken";
    assert_eq!(crossed(&border(false, false, "user"), "Identity", identity).as_deref(), Some(identity));
}

/// RFC 7044 §10.1.
#[test]
fn history_keeps_its_order_and_reasons_and_loses_its_hosts() {
    let history = "<sip:7310@10.1.0.10?Reason=SIP%3Bcause%3D302>;index=1, \
                   <sip:7311@pbx.example.org?Reason=SIP%3Bcause%3D302%3Btext%3D%2210.1.0.10%22>;index=1.1;rc=1, \
                   <sip:7312@10.1.0.10?Privacy=history>;index=1.2";
    let open = border(true, true, "none");
    let moved = "<sip:7310@gw?Reason=SIP%3Bcause%3D302>;index=1, <sip:7311@gw>;index=1.1;rc=1, \
                 <sip:7312@gw?Privacy=history>;index=1.2";
    assert_eq!(crossed(&open, "History-Info", history).as_deref(), Some(moved));
    let seen = crossed(&border(true, false, "none"), "History-Info", history).unwrap();
    assert!(seen.ends_with("\"Anonymous\" <sip:anonymous@anonymous.invalid>;index=1.2"), "{seen}");
    for asked in ["history", "header"] {
        let seen = crossed(&border(true, false, asked), "History-Info", history).unwrap();
        assert_eq!((seen.matches("anonymous.invalid").count(), seen.contains("731")), (3, false), "{seen}");
    }
}

/// RFC 5806 §4.
#[test]
fn a_diversion_that_asks_for_privacy_gets_it() {
    let diversion = "<sip:7310@10.1.0.10>;reason=no-answer;privacy=full";
    let hidden = "\"Anonymous\" <sip:anonymous@anonymous.invalid>;reason=no-answer;privacy=full";
    assert_eq!(crossed(&border(true, false, "none"), "Diversion", diversion).as_deref(), Some(hidden));
    let shown = "<sip:7310@gw>;reason=no-answer;privacy=full";
    assert_eq!(crossed(&border(true, true, "none"), "Diversion", diversion).as_deref(), Some(shown));
    let open = "<sip:7310@10.1.0.10>;reason=no-answer;privacy=off";
    assert!(crossed(&border(true, false, "none"), "Diversion", open).unwrap().starts_with("<sip:7310@gw>"));
}

#[test]
fn what_names_the_senders_side_is_left_out_or_said_without_it() {
    let open = border(true, true, "none");
    for (field, said, seen) in [
        ("X-Anything", "route=10.1.0.10:5070", None),
        ("X-Anything", "route=10.1.0.101", Some("route=10.1.0.101")),
        ("Call-Info", "<https://PBX.example.org/a.png>;purpose=icon", None),
        ("Geolocation", "<cid:place@elsewhere.example>", Some("<cid:place@elsewhere.example>")),
        ("P-Charging-Vector", "icid-value=1;orig-ioi=anywhere", None),
        ("Warning", "399 10.1.0.10 \"no codec\"", Some("399 earmark \"no codec\"")),
        ("Warning", "399 x \"from 10.1.0.10\", 370 x \"slow\"", Some("370 x \"slow\"")),
        ("Reason", "Q.850;cause=16;text=\"by 10.1.0.10\"", Some("Q.850;cause=16")),
        ("Reason", "Q.850;cause=16;text=\"done\"", Some("Q.850;cause=16;text=\"done\"")),
        (
            "Referred-By",
            "\"at 10.1.0.10\" <sip:7310@x;y=10.1.0.10>;cid=\"1@pbx.example.org\"",
            Some("<sip:7310@gw>"),
        ),
        (
            "Content-Type",
            "multipart/mixed;boundary=\"10.1.0.10\"",
            Some("multipart/mixed;boundary=\"10.1.0.10\""),
        ),
        ("Content-Type", "1@10.1.0.10>", None),
        ("Content-ID", "<place@10.1.0.10>", None),
        ("Privacy", "id;x=10.1.0.10;y", Some("id;y")),
        ("Privacy", "10.1.0.10", None),
        ("Reply-To", "<sip:10.1.0.10@x>", None),
        ("Reply-To", "<mailto:ann@pbx.example.org>", None),
    ] {
        assert_eq!(crossed(&open, field, said).as_deref(), seen, "{field}: {said}");
    }
    assert_eq!(crossed(&border(true, false, "none"), "Privacy", "user;x=10.1.0.10;y").as_deref(), Some("y"));
    assert_eq!(open.phrase(486, "Busy at 10.1.0.10"), "Busy Here");
    assert_eq!(open.phrase(486, "Busy by choice"), "Busy by choice");
    assert_eq!(
        open.cleared_uri("sip:7310;tgrp=a;trunk-context=10.1.0.10@b:5070;user=phone".to_owned()),
        "sip:7310@b:5070"
    );
    assert_eq!(open.from("\"x 10.1.0.10\" <sip:10.1.0.10@x>;tag=a", "t"), format!("{ANONYMOUS};tag=t"));
}

/// RFC 3420 §2.
#[test]
fn a_fragment_keeps_its_status() {
    let mut headers = Headers::new();
    for kind in ["message/sipfrag;version=2.0", "Message / SipFrag ;;="] {
        headers.set(name::CONTENT_TYPE, kind);
        let body = |text: &'static str| border(true, true, "none").body(&headers, &text.into());
        assert_eq!(
            body("SIP/2.0 486 Busy at 10.1.0.10\r\nContact: <sip:10.1.0.10>\r\n"),
            "SIP/2.0 486 Busy Here\r\n"
        );
        assert_eq!(body("INVITE sip:7310@10.1.0.10 SIP/2.0\r\n"), "");
    }
    headers.set(name::CONTENT_TYPE, "text/plain");
    assert_eq!(border(true, true, "none").body(&headers, &"at 10.1.0.10".into()), "at 10.1.0.10");
}
