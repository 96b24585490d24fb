//! What passes from one side to the other, and what must not.

use std::collections::BTreeSet;

use crate::world::*;

const PASSED: [&str; 9] = [
    "Identity: eyJhbGciOiJFUzI1NiJ9..sig;info=<https://cert.example/a.crt>",
    "User-Agent: Phone/1.0 (odd; \"thing\")",
    "Alert-Info: <urn:alert:source:internal>",
    "Call-Info: <https://pic.example/a.png>;purpose=icon",
    "X-Custom:   spaced\tvalue",
    "Subject: re",
    "Geolocation: <cid:loc@district.example>",
    "Recv-Info: dtmf",
    "Date: Sat, 13 Nov 2010 23:29:00 GMT",
];

#[test]
fn unknown_and_signed_headers_pass_byte_for_byte_in_both_directions() {
    let fields: String = PASSED.iter().map(|field| format!("{field}\r\n")).collect();
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite(&fields, ""));
    let invite = world.expect(CARRIER, "INVITE ");
    world.send(CARRIER, invite.answer("183 Somehow\u{e9}", "t", &fields, ""));
    world.expect(PBX, "SIP/2.0 100 ");
    let progress = world.expect(PBX, "SIP/2.0 183 Somehow\u{e9}\r\n");
    for message in [invite, progress] {
        for field in PASSED {
            let (name, value) = field.split_once(':').unwrap();
            assert_eq!(message.get(name), value.trim(), "{name}");
        }
    }
}

/// Content-IDs are written like addresses (RFC 2392), and a body is nothing without its type.
#[test]
fn a_body_keeps_its_type_whatever_host_that_names() {
    let host = PBX.split(':').next().unwrap();
    let kind = format!("multipart/related;boundary=b;start=\"<sdp@{host}>\"");
    let body = format!("--b\r\nContent-Type: application/sdp\r\n\r\n{}--b--\r\n", sdp(OFFER_IP, 4000, ""));
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite(&format!("Content-Type: {kind}\r\n"), &body));
    let invite = world.expect(CARRIER, "INVITE ");
    assert_eq!(invite.get("Content-Type"), kind);
    assert!(invite.body().contains("application/sdp") && !invite.body().contains(OFFER_IP));
}

/// Whatever a lenient reader takes for a description has our addresses.
#[test]
fn a_description_under_a_spoilt_type_is_one() {
    let spoilt = [
        "application/sdp;",
        "application/sdp,,",
        "Application / SDP ;;=",
        "application/sdp x",
        "",
        "sdp",
        "application/",
        "/sdp",
        "text/ ;x",
    ];
    for spoilt in spoilt {
        let mut world = World::new();
        let mut a = Ua::caller(PBX, "100");
        let offer = a.invite("", &sdp(OFFER_IP, 4000, ""));
        let typed = offer.replace("application/sdp", spoilt);
        assert_ne!(typed, offer);
        world.send(PBX, typed);
        let invite = world.expect(CARRIER, "INVITE ");
        assert!(!invite.body().contains(OFFER_IP) && invite.body().starts_with("v=0"), "{}", invite.text());
    }
}

/// RFC 3261 §13.3.1.3 lets a refusal say what would have been possible.
#[test]
fn a_refusal_does_not_describe_the_other_legs_media() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
    let invite = world.expect(CARRIER, "INVITE ");
    world.send(CARRIER, invite.answer("488 Not so", "t", "X-Why: codecs\r\n", &sdp(ANSWER_IP, 5000, "")));
    world.expect(PBX, "SIP/2.0 100 ");
    let refusal = world.expect(PBX, "SIP/2.0 488 Not so");
    assert_eq!((refusal.body().as_str(), refusal.get("X-Why")), ("", "codecs"));
    assert!(!refusal.text().contains("Content-Type"), "{}", refusal.text());
}

#[test]
fn octets_that_are_not_utf_8_pass_as_the_latin_1_that_they_are() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    let text = a.invite("X-Latin: caf#\r\n", "");
    let octets: Vec<u8> = text.bytes().map(|b| if b == b'#' { 0xe9 } else { b }).collect();
    world.send(PBX, octets);
    let invite = world.expect(CARRIER, "INVITE ");
    assert_eq!(invite.get("X-Latin"), "caf\u{e9}");
    assert!(std::str::from_utf8(&invite.bytes).is_ok());

    let mut world = World::new();
    let mut a = Ua::caller(PBX, "911");
    let octets = a.invite("X-Latin: \"caf#\\\0\"\r\n", "").into_bytes();
    let octets: Vec<u8> = octets.into_iter().map(|b| if b == b'#' { 0xe9 } else { b }).collect();
    world.send(PBX, octets);
    let invite = world.expect(CARRIER, "INVITE sip:911@");
    let passed = b" \"caf\xe9\\ \"\r";
    assert!(invite.bytes.windows(passed.len()).any(|w| w == passed), "{}", invite.text());
}

/// RFC 3261 §19.1.2.
#[test]
fn what_is_not_ascii_in_an_address_goes_on_percent_encoded() {
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    let text = a.invite("", "").replacen("INVITE sip:100@", "INVITE sip:1\u{fc}0;x=\u{e9}@", 1);
    world.send(PBX, text.replacen("From: \"Ann\" <sip:", "From: \"M\u{fc}ller\" <sip:\u{fc}", 1));
    let invite = world.expect(CARRIER, "INVITE sip:1%C3%BC0;x=%C3%A9@");
    assert!(invite.get("From").starts_with("\"M\u{fc}ller\" <sip:%C3%BC"), "{}", invite.text());
}

#[test]
fn what_binds_to_one_leg_stays_on_it() {
    let own = "Supported: 100rel, timer, replaces, histinfo, path\r\nAllow: INVITE, PRACK, REFER, INFO, FOO\r\n\
               Proxy-Authorization: Digest username=\"a\"\r\nAuthorization: Digest username=\"a\"\r\n\
               Session-Expires: 600\r\nMin-SE: 500\r\nRoute: <sip:10.0.0.1;lr>\r\n\
               Proxy-Require: foo\r\nX-Consent: yes\r\nX-Earmark-Basis: dispatch-line\r\nTimestamp: 5\r\n";
    let mut world = World::new();
    let mut a = Ua::caller(PBX, "100");
    world.send(PBX, a.invite(own, ""));
    assert_eq!(world.expect(PBX, "SIP/2.0 100 ").get("Timestamp"), "5");
    let invite = world.expect(CARRIER, "INVITE ");
    // 100rel, timer and record-aware are offered in our own name.
    let supported: Vec<&str> = invite.headers().all("Supported").collect();
    assert_eq!(supported, ["histinfo", "100rel", "timer", "record-aware"]);
    assert_eq!(invite.get("Allow"), "INVITE, INFO, FOO, PRACK");
    assert_eq!((invite.get("Session-Expires"), invite.get("Min-SE")), ("1800", "90"));
    for name in [
        "Proxy-Authorization",
        "Authorization",
        "Route",
        "Proxy-Require",
        "X-Consent",
        "X-Earmark-Basis",
        "Timestamp",
    ] {
        assert!(!invite.headers().contains(name), "{name}");
    }
}

/// Everything that names a side: addresses, Call-IDs, tags, branches.
fn names(messages: &[String]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for text in messages {
        for line in text.lines() {
            let Some((name, value)) = line.split_once(": ") else { continue };
            if name == "Call-ID" {
                names.insert(value.to_owned());
            }
            for key in ["tag=", "branch="] {
                names.extend(value.split(key).skip(1).map(|rest| {
                    rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').next().unwrap().to_owned()
                }));
            }
        }
    }
    names.remove("");
    names
}

#[test]
fn nothing_of_one_sides_topology_reaches_the_other() {
    let mut up = Up::new();
    up.world.send(PBX, up.a.request("INFO", "", "x"));
    let info = up.world.expect(CARRIER, "INFO ");
    up.world.send(CARRIER, info.answer("200 OK", "", "", ""));
    up.world.expect(PBX, "SIP/2.0 200 ");
    let contact = up.b.contact();
    up.world.send(CARRIER, up.b.request("INVITE", &contact, &sdp(ANSWER_IP, 5000, "a=sendonly\r\n")));
    let again = up.world.expect(PBX, "INVITE ");
    up.world.send(PBX, again.answer("200 OK", "", &up.a.contact(), &sdp(OFFER_IP, 4000, "a=recvonly\r\n")));
    up.world.take_all(CARRIER);
    up.world.send(CARRIER, up.b.request("ACK", "", ""));
    up.world.send(PBX, up.a.request("BYE", "", ""));
    let to = |at: &str| -> Vec<String> {
        let sent = up.world.sent.iter().filter(|(to, _)| *to == addr(at));
        sent.map(|(_, bytes)| String::from_utf8_lossy(bytes).into_owned()).collect()
    };
    let (pbx, carrier) = (to(PBX), to(CARRIER));
    assert!(pbx.len() > 6 && carrier.len() > 4);
    assert!(pbx.iter().all(|text| !text.contains("10.2.0.")), "{pbx:#?}");
    assert!(carrier.iter().all(|text| !text.contains("10.1.0.")), "{carrier:#?}");
    let shared: Vec<String> = names(&pbx).intersection(&names(&carrier)).cloned().collect();
    assert_eq!(shared, Vec::<String>::new());
}

#[test]
fn the_request_uri_and_the_addresses_name_the_next_hop() {
    let mut world = World::new();
    let mut a = Ua::caller(CARRIER, "7331");
    a.uri = "sip:+18607427331;npdi@gw.example:5060;user=phone;transport=udp".to_owned();
    a.local = "\"Caller, Odd\" <sip:+18605550100@carrier.example;user=phone>;tag=z".to_owned();
    a.remote = "<sip:+18607427331@gw.example>".to_owned();
    world.send(CARRIER, a.invite("", ""));
    let invite = world.expect(PBX, "INVITE ");
    assert_eq!(invite.request().uri, "sip:+18607427331;npdi@10.1.0.10;user=phone");
    assert!(invite.get("From").starts_with("\"Caller, Odd\" <sip:+18605550100@10.0.0.1;user=phone>;tag="));
    assert_eq!(invite.get("To"), "<sip:+18607427331@10.1.0.10>");
    assert_eq!(invite.get("Contact"), "<sip:10.0.0.1:5060>");
    assert!(invite.get("Via").starts_with("SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK"));
    assert!(!invite.get("Call-ID").contains('@'));
}
