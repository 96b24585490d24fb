//! RFC 4475 and RFC 5118, message by message: which layer judges each, and what the wire layer makes of it.
//!
//! A message that only the transaction user can judge (an unknown scheme, extension, body type or status)
//! must get through the wire layer whole.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use sip_gateway::Limits;
use sip_gateway::sdp::{Description, OurSide, locate, rewrite};
use sip_gateway::wire::{
    CSeq, Fault, Frame, Framer, Malformed, Message, NameAddr, ParseError, Reason, Uri, Via, name,
    parse_datagram, stamp_source,
};

const LIMITS: Limits = Limits {
    max_calls: 1,
    max_message_bytes: 65_535,
    max_headers: 128,
    max_streams: 1,
    requests_per_s: None,
};

const SIGNALLED_FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// What the wire layer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    /// Accepts it; the transaction user judges, as the comment says.
    Accepts,
    /// Refuses it with this status.
    Refuses(u16, Fault),
    /// Drops it: a response, which is never answered.
    Drops(Fault),
}
use Wire::{Accepts, Drops, Refuses};

const fn field(header: &'static str, source: Malformed) -> Fault {
    Fault::Field { header, source }
}

const RFC4475: [(&str, Wire); 49] = [
    // §3.1.1 valid
    ("wsinv", Accepts),
    ("intmeth", Accepts), // 405 or 501
    ("esc01", Accepts),
    ("escnull", Accepts),
    ("esc02", Accepts), // an unknown method, as escapes in methods mean nothing
    ("lwsdisp", Accepts),
    ("longreq", Accepts),
    ("dblreq", Accepts), // the second request is beyond Content-Length and discarded
    ("semiuri", Accepts),
    ("transports", Accepts),
    ("mpart01", Accepts),
    ("unreason", Accepts),
    ("noreason", Accepts),
    // §3.1.2 invalid
    ("badinv01", Refuses(400, field(name::VIA, Malformed::Parameter))),
    ("clerr", Refuses(400, Fault::BodyTooShort)),
    ("ncl", Refuses(400, field(name::CONTENT_LENGTH, Malformed::Number))),
    ("scalar02", Refuses(400, field(name::CSEQ, Malformed::CSeq))),
    ("scalarlg", Drops(field(name::CSEQ, Malformed::CSeq))),
    ("quotbal", Refuses(400, field(name::TO, Malformed::NameAddr))),
    ("ltgtruri", Refuses(400, Fault::RequestUri)),
    ("lwsruri", Refuses(400, Fault::RequestUri)),
    ("lwsstart", Refuses(400, Fault::StartLine)),
    ("trws", Refuses(400, Fault::StartLine)),
    ("escruri", Refuses(400, Fault::RequestUri)),
    ("baddate", Accepts), // Date is not used here; RFC 4475 lets such an element ignore it
    ("regbadct", Refuses(400, field(name::CONTACT, Malformed::NameAddr))),
    ("badaspec", Refuses(400, field(name::TO, Malformed::Uri))),
    ("baddn", Refuses(400, field(name::FROM, Malformed::NameAddr))),
    ("badvers", Refuses(505, Fault::Version)),
    ("mismatch01", Refuses(400, Fault::CSeqMethod)),
    ("mismatch02", Refuses(400, Fault::CSeqMethod)),
    ("bigcode", Drops(Fault::StatusLine)),
    // §3.2 transaction layer
    ("badbranch", Accepts), // a branch that is only the cookie: matched as RFC 2543 does
    // §3.3 application layer
    ("insuf", Refuses(400, Fault::Missing { header: name::FROM })),
    ("unkscm", Accepts),  // 416
    ("novelsc", Accepts), // 416
    ("unksm2", Accepts),  // a registrar's 400
    ("bext01", Accepts),  // 420
    ("invut", Accepts),   // 415, or passed on
    ("regaut01", Accepts),
    ("multi01", Refuses(400, Fault::Duplicate { header: name::CSEQ })),
    ("mcl01", Refuses(400, Fault::Duplicate { header: name::CONTENT_LENGTH })),
    ("bcast", Accepts),  // discarded: it matches no transaction
    ("zeromf", Accepts), // 483, or answered as it is an OPTIONS
    ("cparam01", Accepts),
    ("cparam02", Accepts),
    ("regescrt", Accepts),
    ("sdp01", Accepts), // 406
    // §3.4 backward compatibility
    ("inv2543", Accepts),
];

const RFC5118: [(&str, Wire); 12] = [
    ("ipv6-good", Accepts),
    ("ipv6-bad", Refuses(400, Fault::RequestUri)),
    ("port-ambiguous", Accepts),
    ("port-unambiguous", Accepts),
    ("via-received-param-with-delim", Accepts),
    ("via-received-param-no-delim", Accepts),
    ("ipv6-in-sdp", Accepts),
    ("mult-ip-in-header", Accepts),
    ("mult-ip-in-sdp", Accepts),
    ("ipv4-mapped-ipv6", Accepts),
    ("ipv6-bug-abnf-3-colons", Accepts),
    ("ipv6-correct-abnf-2-colons", Accepts),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture")
}

fn rfc4475(name: &str) -> Vec<u8> {
    std::fs::read(folder().join("rfc4475").join(format!("{name}.dat"))).unwrap()
}

/// With CRLF, as it would be sent, and otherwise as it is: the lengths in the files do not fit.
fn rfc5118(name: &str) -> Vec<u8> {
    std::fs::read_to_string(folder().join("rfc5118").join(name)).unwrap().replace('\n', "\r\n").into_bytes()
}

fn all() -> Vec<(&'static str, Vec<u8>, Wire)> {
    let first = RFC4475.into_iter().map(|(name, wire)| (name, rfc4475(name), wire));
    first.chain(RFC5118.into_iter().map(|(name, wire)| (name, rfc5118(name), wire))).collect()
}

fn parse(octets: &[u8]) -> Result<Message, ParseError> {
    parse_datagram(octets, &LIMITS)
}

fn accepted(name: &str) -> Message {
    parse(&rfc4475(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_message_is_judged_as_the_table_says() {
    let mut wrong = Vec::new();
    for (name, octets, expected) in all() {
        let outcome = match parse(&octets) {
            Ok(_) => Accepts,
            Err(ParseError::Drop { fault }) => Drops(fault),
            Err(ParseError::Refuse { fault, answer }) => Refuses(answer.status, fault),
        };
        if outcome != expected {
            wrong.push(format!("{name}: {outcome:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_tables_name_every_file() {
    for (sub, names) in [
        ("rfc4475", RFC4475.map(|(name, _)| format!("{name}.dat")).to_vec()),
        ("rfc5118", RFC5118.map(|(name, _)| name.to_owned()).to_vec()),
    ] {
        for file in std::fs::read_dir(folder().join(sub)).unwrap() {
            let file = file.unwrap().file_name().into_string().unwrap();
            assert!(names.contains(&file), "{file} is in no table");
        }
    }
}

#[test]
fn accepted_messages_survive_a_round_trip() {
    for (name, octets, _) in all().into_iter().filter(|(_, _, wire)| *wire == Accepts) {
        let message = parse(&octets).unwrap();
        let again = parse(&message.to_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(again.body(), message.body(), "{name}");
        match (&again, &message) {
            (Message::Request(again), Message::Request(message)) => {
                assert_eq!((&again.method, &again.uri), (&message.method, &message.uri), "{name}");
            }
            (Message::Response(again), Message::Response(message)) => {
                assert_eq!((again.status, &again.reason), (message.status, &message.reason), "{name}");
            }
            _ => panic!("{name} changed its kind"),
        }
        let fields = |message: &Message| {
            message
                .headers()
                .iter()
                .filter(|field| field.name != name::CONTENT_LENGTH)
                .map(|field| (field.name.to_owned(), field.value.to_owned()))
                .collect::<Vec<_>>()
        };
        assert_eq!(fields(&again), fields(&message), "{name}");
    }
}

#[test]
fn the_binary_body_of_mpart01_is_untouched() {
    let octets = rfc4475("mpart01");
    let message = parse(&octets).unwrap();
    assert_eq!(message.body().len(), 553);
    assert!(octets.ends_with(message.body()));
    assert!(message.to_bytes().ends_with(message.body()));
}

#[test]
fn an_answer_carries_what_was_readable_and_can_be_parsed() {
    for (name, octets, wire) in all() {
        let Refuses(status, _) = wire else { continue };
        let Err(ParseError::Refuse { answer, .. }) = parse(&octets) else { panic!("{name} was not refused") };
        assert!(answer.headers.contains(name::VIA), "{name}");
        assert_eq!(answer.status, status);
        let octets = answer.to_bytes();
        assert!(octets.starts_with(format!("SIP/2.0 {status} ").as_bytes()), "{name}");
        assert!(octets.ends_with(b"Content-Length: 0\r\n\r\n"), "{name}");
        for field in [name::FROM, name::TO, name::CALL_ID, name::CSEQ] {
            assert!(answer.headers.all(field).count() <= 1, "{name}");
        }
    }
}

#[test]
fn wsinv_reads_through_its_white_space() {
    let message = accepted("wsinv");
    let headers = message.headers();
    let to = NameAddr::parse(headers.first("To").unwrap()).unwrap();
    assert_eq!((to.uri, to.tag()), ("sip:vivekg@chair-dnrc.example.com", Some("1918181833n")));
    let from = NameAddr::parse(headers.first("From").unwrap()).unwrap();
    assert_eq!(from.display_name(), "J Rosenberg \\\"");
    assert_eq!(from.tag(), Some("98asjd8"));
    let vias: Vec<_> = headers.list("Via").map(|via| Via::parse(via).unwrap()).collect();
    let read: Vec<_> = vias.iter().map(|via| (via.transport, via.host, via.branch().unwrap())).collect();
    assert_eq!(
        read,
        [
            ("UDP", "192.0.2.2", "390skdjuw"),
            ("TCP", "spindle.example.com", "z9hG4bK9ikj8"),
            ("UDP", "192.168.255.111", "z9hG4bK30239"),
        ]
    );
    let cseq = CSeq::parse(headers.first("CSeq").unwrap()).unwrap();
    assert_eq!((cseq.number, cseq.method), (9, "INVITE"));
    let contact = NameAddr::parse(headers.first("Contact").unwrap()).unwrap();
    assert_eq!(contact.params.get("newparam"), Some("newvalue"));
    assert_eq!(contact.params.get("q"), Some("0.33"));
}

#[test]
fn odd_characters_stay_where_they_belong() {
    let Message::Request(request) = accepted("intmeth") else { panic!("a request") };
    assert_eq!(request.method.as_str(), "!interesting-Method0123456789_*+`.%indeed'~");
    let Uri::Sip(uri) = Uri::parse(&request.uri).unwrap() else { panic!("a SIP URI") };
    assert_eq!(uri.user, Some("1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"));
    assert_eq!(uri.password, Some("&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"));
    assert_eq!(uri.host, "example.com");
    let to = NameAddr::parse(request.headers.first("To").unwrap()).unwrap();
    assert_eq!(to.display_name(), "BEL:\u{7} NUL:\0 DEL:\u{7f}");

    let Message::Request(request) = accepted("semiuri") else { panic!("a request") };
    let uri = Uri::parse(&request.uri).unwrap();
    assert_eq!(uri.user().unwrap(), "user");
    let Uri::Sip(uri) = uri else { panic!("a SIP URI") };
    assert_eq!((uri.user, uri.host), (Some("user;par=u%40example.net"), "example.com"));

    let Message::Response(response) = accepted("unreason") else { panic!("a response") };
    assert!(response.reason.chars().all(|char| !char.is_ascii_control()));
    assert!(
        response.to_bytes().starts_with(rfc4475("unreason").split(|&byte| byte == b'\r').next().unwrap())
    );
}

#[test]
fn ipv6_addresses_are_read_with_and_without_brackets() {
    for name in ["via-received-param-no-delim", "via-received-param-with-delim"] {
        let message = parse(&rfc5118(name)).unwrap();
        let via = Via::first(message.headers().first("Via").unwrap()).unwrap();
        assert_eq!(via.received().unwrap().to_string(), "2001:db8::9:255", "{name}");
        assert_eq!(via.host, "[2001:db8::9:1]");
    }
    for (name, port) in [("port-ambiguous", None), ("port-unambiguous", Some(5070))] {
        let Message::Request(request) = parse(&rfc5118(name)).unwrap() else { panic!("a request") };
        let Uri::Sip(uri) = Uri::parse(&request.uri).unwrap() else { panic!("a SIP URI") };
        assert_eq!(uri.port, port, "{name}");
    }
}

/// Cut into segments of any size, a stream gives what the datagrams give.
#[test]
fn a_stream_of_all_messages_gives_the_same_in_segments_of_any_size() {
    let mut stream = Vec::new();
    let mut expected = 0;
    for (_, octets, wire) in all() {
        let Ok(message) = parse(&octets) else { continue };
        assert_eq!(wire, Accepts);
        stream.extend_from_slice(b"\r\n");
        stream.extend_from_slice(&message.to_bytes());
        expected += 1;
    }
    let mut whole: Option<Vec<Frame>> = None;
    for size in [1, 2, 7, 1000, stream.len()] {
        let mut framer = Framer::new(&LIMITS);
        let mut frames = Vec::new();
        for segment in stream.chunks(size) {
            framer.feed(segment);
            frames.extend(std::iter::from_fn(|| framer.next_frame()));
        }
        assert_eq!(frames.len(), expected, "segments of {size}");
        assert!(frames.iter().all(|frame| matches!(frame, Frame::Message(_))));
        assert_eq!(whole.get_or_insert_with(|| frames.clone()), &frames, "segments of {size}");
    }
}

fn exercise(octets: &[u8]) {
    if let Ok(description) = Description::parse(octets) {
        description.leg_media(SIGNALLED_FROM);
        let ours = OurSide { session_id: 1, version: 1, address: [127, 0, 0, 1].into(), media: &[] };
        assert!(Description::parse(&rewrite(&description, &ours)).is_ok());
    }
    if let Ok(message) = parse(octets) {
        let headers = message.headers();
        if let Some(Ok(Some(place))) = headers.first(name::CONTENT_TYPE).map(|it| locate(it, message.body()))
        {
            exercise(&message.body()[place]);
        }
        for field in headers.iter() {
            NameAddr::list(field.value).filter_map(Result::ok).for_each(|address| drop(address.user()));
            Via::list(field.value).filter_map(Result::ok).for_each(|via| assert!(!via.host.is_empty()));
            let stamped = stamp_source(field.value, ([127, 0, 0, 9], 5060).into());
            if Via::list(field.value).all(|via| via.is_ok()) {
                let first = Via::first(&stamped)
                    .unwrap_or_else(|error| panic!("{error}: {stamped:?} from {:?}", field.value));
                assert_eq!(first.received().unwrap().to_string(), "127.0.0.9");
                assert_eq!(first.branch(), Via::first(field.value).unwrap().branch());
            }
            Reason::list(field.value).for_each(drop);
        }
        assert!(parse(&message.to_bytes()).is_ok(), "what was accepted is written so that it is accepted");
    }
    let mut framer = Framer::new(&LIMITS);
    for half in octets.chunks(octets.len() / 2 + 1) {
        framer.feed(half);
        while framer.next_frame().is_some() {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Torture messages with octets replaced, removed, inserted and doubled are judged without a panic, and
    /// what is accepted is accepted again after it was written.
    #[test]
    fn mutated_messages_never_panic(
        which in 0..RFC4475.len() + RFC5118.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..5_u8, any::<u8>()), 1..12),
    ) {
        const TELLING: &[u8] = b"\r\n\t ;:,<>\"\\@=?/[]%0-\0\x7f\xff\xc3";
        let mut octets = all().swap_remove(which).1;
        for (index, kind, byte) in edits {
            let at = index.index(octets.len());
            let telling = TELLING.get(usize::from(byte) % TELLING.len()).copied().unwrap_or(byte);
            match kind {
                0 => octets[at] = byte,
                1 => { octets.remove(at); }
                2 => octets.insert(at, telling),
                3 => octets[at] = telling,
                _ => { let tail = octets[at..].to_vec(); octets.extend_from_slice(&tail); octets.truncate(8000); }
            }
            if octets.is_empty() { break; }
        }
        exercise(&octets);
    }
}
