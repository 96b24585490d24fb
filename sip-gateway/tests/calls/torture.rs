//! RFC 4475 and RFC 5118, message by message: which layer judges each, and what becomes of it.
//!
//! A message that only the transaction user can judge (an unknown scheme, extension, body type or status)
//! must get through the wire layer whole.

use std::path::{Path, PathBuf};

use sip_gateway::Limits;
use sip_gateway::wire::{
    CSeq, Fault, Frame, Framer, Malformed, Message, NameAddr, ParseError, Uri, Via, name, parse_datagram,
};

use crate::world::*;

const LIMITS: Limits = Limits {
    max_calls: 1,
    max_message_bytes: 65_535,
    max_headers: 128,
    max_streams: 1,
    requests_per_s: None,
};

/// Section, name, and what the wire layer does.
type Row = (&'static str, &'static str, Wire);

/// What the wire layer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    /// Accepts it, and so does the transaction user.
    Accepts(Then),
    /// Refuses it with this status.
    Refuses(u16, Fault),
    /// Drops it: a response, which is never answered.
    Drops(Fault),
}
use Wire::{Accepts, Drops, Refuses};

/// What the transaction user does with a message from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Takes it for a call, which goes on to the other side.
    Calls,
    /// Answers it.
    Answers(u16),
    /// Discards it: a response that belongs to nothing.
    Discards,
}
use Then::{Answers, Calls, Discards};

const fn field(header: &'static str, source: Malformed) -> Fault {
    Fault::Field { header, source }
}

const RFC4475: [Row; 49] = [
    ("3.1.1.1", "wsinv", Accepts(Answers(481))), // within a dialog that we do not have
    ("3.1.1.2", "intmeth", Accepts(Answers(405))), // an unknown method
    ("3.1.1.3", "esc01", Accepts(Calls)),
    ("3.1.1.4", "escnull", Accepts(Answers(405))),
    ("3.1.1.5", "esc02", Accepts(Answers(405))), // an unknown method, as escapes in methods mean nothing
    ("3.1.1.6", "lwsdisp", Accepts(Answers(200))),
    ("3.1.1.7", "longreq", Accepts(Calls)),
    ("3.1.1.8", "dblreq", Accepts(Answers(405))), // the second request is beyond Content-Length and discarded
    ("3.1.1.9", "semiuri", Accepts(Answers(200))),
    ("3.1.1.10", "transports", Accepts(Answers(200))),
    ("3.1.1.11", "mpart01", Accepts(Answers(405))),
    ("3.1.1.12", "unreason", Accepts(Discards)),
    ("3.1.1.13", "noreason", Accepts(Discards)),
    ("3.1.2.1", "badinv01", Refuses(400, field(name::VIA, Malformed::Parameter))),
    ("3.1.2.2", "clerr", Refuses(400, Fault::BodyTooShort)),
    ("3.1.2.3", "ncl", Refuses(400, field(name::CONTENT_LENGTH, Malformed::Number))),
    ("3.1.2.4", "scalar02", Refuses(400, field(name::CSEQ, Malformed::CSeq))),
    ("3.1.2.5", "scalarlg", Drops(field(name::CSEQ, Malformed::CSeq))),
    ("3.1.2.6", "quotbal", Refuses(400, field(name::TO, Malformed::NameAddr))),
    ("3.1.2.7", "ltgtruri", Refuses(400, Fault::RequestUri)),
    ("3.1.2.8", "lwsruri", Refuses(400, Fault::RequestUri)),
    ("3.1.2.9", "lwsstart", Refuses(400, Fault::StartLine)),
    ("3.1.2.10", "trws", Refuses(400, Fault::StartLine)),
    ("3.1.2.11", "escruri", Refuses(400, Fault::RequestUri)),
    ("3.1.2.12", "baddate", Accepts(Calls)), // Date is not used here, and RFC 4475 lets such an element ignore it
    ("3.1.2.13", "regbadct", Refuses(400, field(name::CONTACT, Malformed::NameAddr))),
    ("3.1.2.14", "badaspec", Refuses(400, field(name::TO, Malformed::Uri))),
    ("3.1.2.15", "baddn", Refuses(400, field(name::FROM, Malformed::NameAddr))),
    ("3.1.2.16", "badvers", Refuses(505, Fault::Version)),
    ("3.1.2.17", "mismatch01", Refuses(400, Fault::CSeqMethod)),
    ("3.1.2.18", "mismatch02", Refuses(400, Fault::CSeqMethod)),
    ("3.1.2.19", "bigcode", Drops(Fault::StatusLine)),
    ("3.2.1", "badbranch", Accepts(Answers(200))), // a branch that is only the cookie: matched as RFC 2543 does
    ("3.3.1", "insuf", Refuses(400, Fault::Missing { header: name::FROM })),
    ("3.3.2", "unkscm", Accepts(Answers(416))),
    ("3.3.3", "novelsc", Accepts(Answers(416))),
    ("3.3.4", "unksm2", Accepts(Answers(405))), // we are no registrar
    ("3.3.5", "bext01", Accepts(Answers(420))),
    ("3.3.6", "invut", Accepts(Calls)), // the callee judges the body
    ("3.3.7", "regaut01", Accepts(Answers(405))), // an unknown scheme proves nothing
    ("3.3.8", "multi01", Refuses(400, Fault::Duplicate { header: name::CSEQ })),
    ("3.3.9", "mcl01", Refuses(400, Fault::Duplicate { header: name::CONTENT_LENGTH })),
    ("3.3.10", "bcast", Accepts(Discards)),
    ("3.3.11", "zeromf", Accepts(Answers(200))), // for us, however far it came
    ("3.3.12", "cparam01", Accepts(Answers(405))),
    ("3.3.13", "cparam02", Accepts(Answers(405))),
    ("3.3.14", "regescrt", Accepts(Answers(405))),
    ("3.3.15", "sdp01", Accepts(Calls)), // the callee judges what is acceptable
    ("3.4.1", "inv2543", Accepts(Calls)),
];

const RFC5118: [Row; 12] = [
    ("4.1", "ipv6-good", Accepts(Answers(405))),
    ("4.2", "ipv6-bad", Refuses(400, Fault::RequestUri)),
    ("4.3", "port-ambiguous", Accepts(Answers(405))),
    ("4.4", "port-unambiguous", Accepts(Answers(405))),
    ("4.5", "via-received-param-with-delim", Accepts(Answers(481))),
    ("4.5", "via-received-param-no-delim", Accepts(Answers(200))),
    ("4.6", "ipv6-in-sdp", Accepts(Calls)),
    ("4.7", "mult-ip-in-header", Accepts(Answers(481))),
    ("4.8", "mult-ip-in-sdp", Accepts(Calls)),
    ("4.9", "ipv4-mapped-ipv6", Accepts(Calls)),
    ("4.10", "ipv6-bug-abnf-3-colons", Accepts(Answers(200))),
    ("4.10", "ipv6-correct-abnf-2-colons", Accepts(Answers(200))),
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
    let first = RFC4475.into_iter().map(|(_, name, wire)| (name, rfc4475(name), wire));
    first.chain(RFC5118.into_iter().map(|(_, name, wire)| (name, rfc5118(name), wire))).collect()
}

fn parse(octets: &[u8]) -> Result<Message, ParseError> {
    parse_datagram(octets, &LIMITS)
}

fn accepted(name: &str) -> Message {
    parse(&rfc4475(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What becomes of a message that a peer sends.
fn outcome(octets: &[u8]) -> Wire {
    let mut world = World::new();
    world.send(PBX, octets);
    let first = world.sent.iter().find(|(_, bytes)| bytes.starts_with(b"SIP/2.0 "));
    let answer = first.map(|(to, bytes)| {
        assert_eq!(to.ip(), addr(PBX).ip(), "an answer goes where the request came from");
        std::str::from_utf8(&bytes[8..11]).unwrap().parse().unwrap()
    });
    match (parse(octets), answer) {
        (Err(ParseError::Drop { fault }), None) => Drops(fault),
        (Err(ParseError::Refuse { fault, .. }), Some(status)) => Refuses(status, fault),
        (Ok(_), None) => Accepts(Discards),
        (Ok(_), Some(100)) if !world.open_calls().is_empty() => Accepts(Calls),
        (Ok(_), Some(status)) => Accepts(Answers(status)),
        (Err(error), answer) => panic!("{error}, but it is answered {answer:?}"),
    }
}

#[test]
fn every_message_is_judged_as_the_table_says() {
    let mut wrong = Vec::new();
    for (name, octets, expected) in all() {
        let outcome = outcome(&octets);
        if outcome != expected {
            wrong.push(format!("{name}: {outcome:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Those of RFC 4475 §3.1.1, and the ones behind it that break no rule.
#[test]
fn what_must_be_accepted_is() {
    let valid = |section: &str| {
        section.starts_with("3.1.1.") || ["3.3.12", "3.3.13", "3.3.14", "3.4.1"].contains(&section)
    };
    let accepted = |wire: &Wire| matches!(wire, Accepts(_));
    let (must, all): (Vec<_>, Vec<_>) = (
        RFC4475.iter().filter(|(section, ..)| valid(section)).collect(),
        RFC5118.iter().filter(|(section, ..)| *section != "4.2").collect(),
    );
    assert_eq!((must.len(), all.len()), (17, 11));
    assert!(must.iter().chain(&all).all(|(_, _, wire)| accepted(wire)));
}

#[test]
fn the_tables_name_every_file() {
    for (sub, names) in [
        ("rfc4475", RFC4475.map(|(_, name, _)| format!("{name}.dat")).to_vec()),
        ("rfc5118", RFC5118.map(|(_, name, _)| name.to_owned()).to_vec()),
    ] {
        for file in std::fs::read_dir(folder().join(sub)).unwrap() {
            let file = file.unwrap().file_name().into_string().unwrap();
            assert!(names.contains(&file), "{file} is in no table");
        }
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
        assert!(matches!(wire, Accepts(_)));
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
