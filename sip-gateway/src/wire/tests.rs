//! Octets in, fields out; and octets out again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::time::{Duration, Instant};

use super::*;
use crate::Limits;

const LIMITS: Limits = Limits {
    max_calls: 1,
    max_message_bytes: 65_535,
    max_headers: 128,
    max_streams: 1,
    requests_per_s: None,
};

const HEAD: &str = "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport\r\nFrom: <sip:a@192.0.2.1>;tag=1\r\n\
    To: <sip:b@192.0.2.2>\r\nCall-ID: 1@192.0.2.1\r\n";

/// An INVITE with more header lines (each ended by CRLF) and a body.
fn invite(more: &str, body: &str) -> Vec<u8> {
    format!("INVITE sip:b@192.0.2.2 SIP/2.0\r\n{HEAD}CSeq: 1 INVITE\r\n{more}\r\n{body}").into_bytes()
}

fn parse(octets: impl AsRef<[u8]>) -> Result<Message, ParseError> {
    parse_datagram(octets.as_ref(), &LIMITS)
}

fn fault(octets: impl AsRef<[u8]>) -> Fault {
    parse(octets).expect_err("a fault").fault()
}

fn request(octets: impl AsRef<[u8]>) -> Request {
    match parse(octets) {
        Ok(Message::Request(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn frames(framer: &mut Framer, octets: impl AsRef<[u8]>) -> Vec<Frame> {
    framer.feed(octets.as_ref());
    std::iter::from_fn(|| framer.next_frame()).collect()
}

mod datagrams {
    use super::*;

    #[test]
    fn a_body_goes_to_the_end_without_content_length_and_no_further_than_it() {
        assert_eq!(&request(invite("", "v=0\r\n")).body[..], b"v=0\r\n");
        assert_eq!(&request(invite("Content-Length: 3\r\n", "v=0\r\n")).body[..], b"v=0");
        assert_eq!(&request(invite("l: 0\r\n", "INVITE sip:x SIP/2.0\r\n")).body[..], b"");
        assert_eq!(fault(invite("Content-Length: 6\r\n", "v=0")), Fault::BodyTooShort);
    }

    #[test]
    fn a_whole_body_that_was_miscounted_a_little_is_taken_as_it_is() {
        assert_eq!(&request(invite("Content-Length: 37\r\n", "v=0\r\n")).body[..], b"v=0\r\n");
        assert_eq!(fault(invite("Content-Length: 38\r\n", "v=0\r\n")), Fault::BodyTooShort);
    }

    #[test]
    fn content_length_tricks_are_refused() {
        let number = Fault::Field { header: name::CONTENT_LENGTH, source: Malformed::Number };
        for value in
            ["-1", "+5", "18446744073709551616", "99999999999999999999999", "0x5", "5 5", "", "five", "1,1"]
        {
            assert_eq!(fault(invite(&format!("Content-Length: {value}\r\n"), "v=0\r\n")), number, "{value}");
        }
        assert_eq!(fault(invite("Content-Length: 18446744073709551615\r\n", "v=0\r\n")), Fault::BodyTooShort);
        let duplicate = Fault::Duplicate { header: name::CONTENT_LENGTH };
        assert_eq!(fault(invite("Content-Length: 5\r\nl: 5\r\n", "v=0\r\n")), duplicate);
    }

    #[test]
    fn keep_alives_and_garbage_are_dropped() {
        for octets in [&b""[..], b"\r\n\r\n", b"\0\0\0\0", b"\r\n"] {
            assert_eq!(parse(octets), Err(ParseError::Drop { fault: Fault::KeepAlive }));
        }
        for octets in
            [&b"hello"[..], b"GET / HTTP/1.1\r\n\r\n", b"\xff\xfe\xfd\r\n\r\n", b"\x80\x60\0\0", b" \r\n"]
        {
            assert!(matches!(parse(octets), Err(ParseError::Drop { .. })), "{octets:?}");
        }
        let mut after_breaks = b"\r\n\r\n".to_vec();
        after_breaks.extend(invite("", ""));
        request(after_breaks);
    }

    #[test]
    fn a_refusal_carries_the_fields_that_were_readable() {
        let octets = invite("Max-Forwards: 256\r\n", "");
        let Err(ParseError::Refuse { answer, .. }) = parse(octets) else { panic!("not refused") };
        let text = String::from_utf8(answer.to_bytes().to_vec()).unwrap();
        assert_eq!(
            text,
            format!(
                "SIP/2.0 400 Bad Request (Max-Forwards: number out of range)\r\n{HEAD}CSeq: 1 INVITE\r\n\
                 Content-Length: 0\r\n\r\n"
            )
        );
    }

    #[test]
    fn faulty_acks_and_responses_are_never_answered() {
        let ack = format!("ACK sip:b@192.0.2.2 SIP/2.0\r\n{HEAD}CSeq: x ACK\r\n\r\n");
        let response = format!("SIP/2.0 200 OK\r\n{HEAD}CSeq: x INVITE\r\n\r\n");
        let no_via = "OPTIONS sip:b@192.0.2.2 SIP/2.0\r\nCSeq: 1 OPTIONS\r\n\r\n".to_owned();
        for octets in [ack, response, no_via] {
            assert!(matches!(parse(&octets), Err(ParseError::Drop { .. })), "{octets}");
        }
    }

    #[test]
    fn line_breaks_other_than_crlf_are_refused() {
        for more in ["X: a\nY: b\r\n", "X: a\rY: b\r\n", "X: a\r\r\n", "X: a\n"] {
            assert_eq!(fault(invite(more, "")), Fault::LineBreak, "{more:?}");
        }
        assert_eq!(fault(invite("X: a\0b\r\n", "")), Fault::ControlCharacter);
        assert_eq!(fault(invite("X: a\x0bb\r\n", "")), Fault::ControlCharacter);
        request(invite("X: \"a\\\0b\"\tc\r\n", ""));
    }

    #[test]
    fn names_are_tokens_and_white_space_before_the_colon_belongs_to_none() {
        for more in ["X Y: a\r\n", ": a\r\n", "nothing\r\n", "X\u{e9}: a\r\n", "(X): a\r\n"] {
            assert_eq!(fault(invite(more, "")), Fault::HeaderField, "{more:?}");
        }
        let spaced = request(invite("P-Asserted-Identity : <sip:mallory@example.com>\r\n", ""));
        assert_eq!(spaced.headers.first("p-asserted-identity"), Some("<sip:mallory@example.com>"));
    }

    #[test]
    fn mandatory_fields_are_there_once() {
        for line in HEAD.split_inclusive("\r\n") {
            let without = HEAD.replace(line, "");
            let octets = format!("OPTIONS sip:b@192.0.2.2 SIP/2.0\r\n{without}CSeq: 1 OPTIONS\r\n\r\n");
            assert!(matches!(fault(octets), Fault::Missing { .. }), "{line}");
        }
        for more in
            ["f: <sip:c@192.0.2.3>\r\n", "To: <sip:b@192.0.2.2>\r\n", "i: 2\r\n", "CSeq: 1 INVITE\r\n"]
        {
            assert!(matches!(fault(invite(more, "")), Fault::Duplicate { .. }), "{more}");
        }
    }

    #[test]
    fn limits_hold() {
        let long = |bytes: usize| format!("X: {}\r\n", "x".repeat(bytes));
        request(invite(&long(8000), ""));
        assert_eq!(fault(invite(&long(9000), "")), Fault::HeaderTooLong);
        assert_eq!(fault(invite(&"X: y\r\n".repeat(200), "")), Fault::TooManyHeaders);
        let Err(ParseError::Drop { fault: large }) = parse(invite("", &"x".repeat(65_535))) else { panic!() };
        assert_eq!(large, Fault::TooLarge);
        let uri =
            format!("OPTIONS sip:{}@192.0.2.2 SIP/2.0\r\n{HEAD}CSeq: 1 OPTIONS\r\n\r\n", "b".repeat(4000));
        let Err(ParseError::Refuse { answer, .. }) = parse(uri) else { panic!("not refused") };
        assert_eq!(answer.status, 414);
    }

    #[test]
    fn unfinished_heads_are_refused() {
        let octets = invite("Content-Length: 0\r\n", "");
        request(&octets[..octets.len() - 2]);
        assert_eq!(fault(&octets[..octets.len() - 3]), Fault::Truncated);
        assert_eq!(fault(&invite("", "")[..150]), Fault::Truncated);
    }
}

mod streams {
    use super::*;

    #[test]
    fn pings_and_stray_breaks_stand_between_messages() {
        let mut framer = Framer::new(&LIMITS);
        assert_eq!(frames(&mut framer, "\r\n\r\n"), [Frame::Ping]);
        assert_eq!(frames(&mut framer, "\r"), []);
        assert_eq!(frames(&mut framer, "\n"), []);
        assert_eq!(frames(&mut framer, "\r\n"), [Frame::Ping]);
        assert_eq!(frames(&mut framer, "\r\n"), []);
        let got = frames(&mut framer, invite("Content-Length: 2\r\n", "ab\r\n\r\n"));
        assert!(matches!(&got[..], [Frame::Message(_), Frame::Ping]), "{got:?}");
    }

    #[test]
    fn pipelined_messages_come_out_one_by_one() {
        let mut framer = Framer::new(&LIMITS);
        let many = invite("Content-Length: 5\r\n", "v=0\r\n").repeat(50);
        assert_eq!(frames(&mut framer, many).len(), 50);
    }

    #[test]
    fn a_faulty_message_with_a_clear_end_does_not_end_the_stream() {
        let mut framer = Framer::new(&LIMITS);
        let mut octets = invite("Max-Forwards: x\r\nContent-Length: 5\r\n", "v=0\r\n");
        octets.extend(invite("Content-Length: 0\r\n", ""));
        let got = frames(&mut framer, octets);
        assert!(
            matches!(&got[..], [Frame::Refused(ParseError::Refuse { .. }), Frame::Message(_)]),
            "{got:?}"
        );
    }

    #[test]
    fn nothing_is_read_behind_a_message_whose_end_is_in_doubt() {
        let inner = String::from_utf8(invite("Content-Length: 0\r\n", "")).unwrap();
        for more in [
            "",
            "Content-Length: -1\r\n",
            "Content-Length: 99999999\r\n",
            "Content-Length: 0\r\nContent-Length: 400\r\n",
            "Content-Length: 0\r\nX: a\nY: b\r\n",
            "Content-Length: 0\r\nnothing\r\n",
        ] {
            let mut framer = Framer::new(&LIMITS);
            let got = frames(&mut framer, invite(more, &inner));
            assert!(matches!(&got[..], [Frame::Broken(ParseError::Refuse { .. })]), "{more:?}: {got:?}");
            assert_eq!(frames(&mut framer, &inner), [], "{more:?}");
        }
    }

    #[test]
    fn an_endless_head_is_cut_and_answered_where_it_was_readable() {
        let mut framer = Framer::new(&LIMITS);
        assert_eq!(frames(&mut framer, &invite("", "")[..150]), []);
        let mut broken = None;
        for _ in 0..100 {
            broken = frames(&mut framer, "X: y\r\n".repeat(200)).pop();
            if broken.is_some() {
                break;
            }
        }
        let Some(Frame::Broken(ParseError::Refuse { answer, .. })) = broken else { panic!("{broken:?}") };
        assert!(matches!(answer.status, 400 | 513));
        let mut framer = Framer::new(&LIMITS);
        let got = frames(&mut framer, "x".repeat(70_000));
        assert!(matches!(&got[..], [Frame::Broken(ParseError::Drop { .. })]), "{got:?}");
    }

    #[test]
    fn a_head_beyond_the_limit_is_cut_at_the_same_octet_however_it_comes() {
        let long = invite(&("X: ".to_owned() + &"y".repeat(8_000) + "\r\n").repeat(9), "");
        assert!(long.len() > LIMITS.max_message_bytes && long.ends_with(b"\r\n\r\n"));
        for size in [long.len(), 60_000, 1_000] {
            let mut framer = Framer::new(&LIMITS);
            let got: Vec<_> = long.chunks(size).flat_map(|segment| frames(&mut framer, segment)).collect();
            let [Frame::Broken(ParseError::Refuse { answer, .. })] = &got[..] else { panic!("{got:?}") };
            assert_eq!(answer.status, 513, "segments of {size}");
        }
    }

    #[test]
    fn a_body_beyond_the_limit_is_refused_before_it_is_read() {
        let mut framer = Framer::new(&LIMITS);
        let got = frames(&mut framer, invite("Content-Length: 65500\r\n", ""));
        let [Frame::Broken(ParseError::Refuse { answer, .. })] = &got[..] else { panic!("{got:?}") };
        assert_eq!(answer.status, 513);
    }
}

mod fields {
    use super::*;

    #[test]
    fn the_longest_value_may_stand_behind_a_compact_name() {
        let subject = "y".repeat(8_192);
        let message = request(invite(&format!("s: {subject}\r\n"), ""));
        assert_eq!(request(message.to_bytes()).headers.first("Subject"), Some(subject.as_str()));
    }

    #[test]
    fn a_copied_field_has_no_control_characters() {
        let mut octets = invite("X-Name: \"\\\0\\\u{7}#\"\r\n", "");
        for latin in [false, true] {
            octets.iter_mut().filter(|octet| latin && **octet == b'#').for_each(|octet| *octet = 0xe9);
            let received = request(&octets);
            let mut copy = request(invite("", ""));
            copy.headers.copy(&received.headers, "X-Name");
            let sent = copy.to_bytes();
            let expected: &[u8] = if latin { b"\"\\ \\ \xe9\"\r\n" } else { b"\"\\ \\ #\"\r\n" };
            assert!(sent.windows(expected.len()).any(|window| window == expected), "{}", sent.escape_ascii());
        }
    }

    #[test]
    fn header_operations_keep_order_and_octets() {
        let octets = [&invite("s: caf\u{e9}\r\nX-Name: a\r\n", "")[..]].concat();
        // The same in Latin-1: not UTF-8.
        let latin: Vec<u8> = String::from_utf8(octets).unwrap().chars().map(|char| char as u8).collect();
        let mut message = request(latin);
        assert_eq!(message.headers.first("Subject"), Some("café"));
        let sent = message.to_bytes();
        assert!(sent.windows(17).any(|window| window == b"Subject: caf\xe9\r\nX-"));

        message.headers.prepend("Via", "SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK9");
        message.headers.remove("call-id");
        message.headers.set("x-name", "b");
        let names: Vec<_> = message.headers.iter().map(|field| field.name).collect();
        assert_eq!(names, ["Via", "Via", "From", "To", "CSeq", "Subject", "x-name"]);
        assert!(message.to_bytes().windows(17).any(|window| window == b"Subject: caf\xe9\r\nx-"));
        let mut copy = Headers::new();
        copy.copy(&message.headers, "s");
        assert_eq!(copy.iter().next().unwrap().raw.unwrap()[..], b"caf\xe9"[..]);
        message.headers.set("Subject", "plain");
        assert_eq!(message.headers.iter().find(|field| field.name == "Subject").unwrap().raw, None);
        message.headers.remove_first("v");
        assert_eq!(message.headers.all("Via").count(), 1);
        assert_eq!(message.headers.len(), message.headers.iter().count());
    }

    #[test]
    fn nothing_that_is_pushed_can_end_its_line() {
        let mut message = Request::new(Method::OPTIONS, "sip:a@b SIP/2.0\r\nX: y");
        message.headers.push("Subject", "a\r\nX-Injected: 1\r\n\r\nbody\0");
        message.headers.push("Bad Name:", "x");
        message.headers.push("X\r\nY", "x");
        message.headers.push("Content-Length", "77");
        let text = String::from_utf8(message.to_bytes().to_vec()).unwrap();
        assert_eq!(
            text,
            "OPTIONS sip:a@bSIP/2.0X:y SIP/2.0\r\nSubject: a  X-Injected: 1    body \r\nContent-Length: 0\r\n\r\n"
        );
        let mut response = Response::new(480);
        response.reason = "Gone\r\nX: y".into();
        assert!(response.to_bytes().starts_with(b"SIP/2.0 480 GoneX: y\r\n"));
    }

    #[test]
    fn lists_split_outside_quotes_and_brackets_only() {
        let mut headers = Headers::new();
        headers.push("Contact", r#""a,b\"," <sip:a,b@h;p=1>;q=1, <sip:c@h>"#);
        headers.push("m", "sip:d@h");
        let all: Vec<_> = headers.list("Contact").collect();
        assert_eq!(all, [r#""a,b\"," <sip:a,b@h;p=1>;q=1"#, "<sip:c@h>", "sip:d@h"]);
        headers.push("k", "100rel, Timer");
        headers.push("Privacy", "id;critical");
        assert!(headers.has_token("Supported", "timer") && headers.has_token("Privacy", "ID"));
        assert!(!headers.has_token("Supported", "rel"));
    }

    #[test]
    fn addresses_are_read_as_the_field_writes_them() {
        let read = |text| NameAddr::parse(text).map(|it| (it.display_name().into_owned(), it.uri, it.tag()));
        let ok = |display: &str, uri, tag| Ok((display.to_owned(), uri, tag));
        assert_eq!(read(r#""A <b> \"c\"" <sip:a@h>;tag=1"#), ok(r#"A <b> "c""#, "sip:a@h", Some("1")));
        assert_eq!(read("Alice B <sip:a@h;lr>;x"), ok("Alice B", "sip:a@h;lr", None));
        assert_eq!(read("José<sip:a@h>"), ok("José", "sip:a@h", None));
        assert_eq!(read("sip:a@h ; tag = 9 "), ok("", "sip:a@h", Some("9")));
        assert_eq!(read(r#"sip:a@h;x="<y>""#), ok("", "sip:a@h", None));
        assert_eq!(read("<tel:+1-860-742-7331;ext=1>"), ok("", "tel:+1-860-742-7331;ext=1", None));
        assert_eq!(read("<urn:service:sos>"), ok("", "urn:service:sos", None));
        for bad in
            ["", "<>", "<sip:a@h", "\"a <sip:a@h>", "\"a\" sip:a@h", "a, b <sip:a@h>", "< sip:a@h>", "a@h"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
        for bad in [
            "<sip:a@h>;",
            "<sip:a@h>;;tag=1",
            "<sip:a@h>tag=1",
            "<sip:a@h>;t=\"x",
            "sip:a@h?x=y",
            "<sip:a@h h>",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let contact = NameAddr::parse(r#"<sip:a@h>;+sip.instance="<urn:uuid:1;,>";reg-id=1"#).unwrap();
        assert_eq!(contact.params.get("+SIP.instance"), Some(r#""<urn:uuid:1;,>""#));
        assert_eq!(contact.params.get("reg-id"), Some("1"));
        assert_eq!(contact.with_tag(Some("7")), r#"<sip:a@h>;+sip.instance="<urn:uuid:1;,>";reg-id=1;tag=7"#);
        let from = NameAddr::parse(r#""A" <sip:a@h>;tag=1;x=2"#).unwrap();
        assert_eq!(from.rebuilt("sip:b@g", Some("3")), r#""A" <sip:b@g>;x=2;tag=3"#);
        assert_eq!(from.with_tag(None), r#""A" <sip:a@h>;x=2"#);
    }

    #[test]
    fn uris_are_taken_apart_and_users_decoded() {
        let Ok(Uri::Sip(uri)) = Uri::parse("sips:%2a69%23;x=y:pw@[2001:db8::1]:5061;transport=tls;lr?a=b")
        else {
            panic!("a SIP URI")
        };
        assert!(uri.secure);
        assert_eq!((uri.user, uri.password), (Some("%2a69%23;x=y"), Some("pw")));
        assert_eq!((uri.host, uri.port, uri.headers), ("[2001:db8::1]", Some(5061), Some("a=b")));
        assert_eq!(uri.params.get("transport"), Some("tls"));
        assert!(uri.params.contains("LR"));
        let user = |text| Uri::parse(text).unwrap().user().map(std::borrow::Cow::into_owned);
        assert_eq!(user("sip:%2a69%23;x=y@h"), Some("*69#".into()));
        assert_eq!(user("sip:a%zz%4@h"), Some("a%zz%4".into()));
        assert_eq!(user("sip:%ff@h"), Some("\u{fffd}".into()));
        assert_eq!(user("tel:+1-860;phone-context=x"), Some("+1-860".into()));
        assert_eq!((user("sip:h"), user("urn:service:sos")), (None, None));
        let subscriber = |text| Uri::parse(text).unwrap().subscriber().map(std::borrow::Cow::into_owned);
        assert_eq!(subscriber("sip:%2a69;x=%2b1:pw@h;y=z"), Some("*69;x=+1".into()));
        assert_eq!(subscriber("tel:%2b1-860;phone-context=%2b44"), Some("+1-860;phone-context=+44".into()));
        assert_eq!((subscriber("sip:h"), subscriber("urn:service:sos")), (None, None));
        for bad in [
            "",
            "sip:",
            "sip",
            ":a",
            "1sip:a",
            "sip:a@",
            "sip:a@b@c",
            "sip:a@h:",
            "sip:a@h:x",
            "sip:a@h:70000",
            "sip:a@[::1",
            "sip:a@::1",
            "sip:a@h h",
            "sip:a@h;",
            "sip:a@h;;x",
            "sip:<a@h>",
            "tel:",
            "sip:a@[zz]",
        ] {
            assert!(Uri::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn vias_are_stamped_with_their_source() {
        let stamp = |via, source: &str| stamp_source(via, source.parse().unwrap());
        assert_eq!(
            stamp("SIP/2.0/UDP h.example.com;branch=z9hG4bK1;rport", "192.0.2.7:4000"),
            "SIP/2.0/UDP h.example.com;branch=z9hG4bK1;received=192.0.2.7;rport=4000"
        );
        assert_eq!(
            stamp("SIP / 2.0 / UDP 192.0.2.7 ; branch = z9hG4bK1 , SIP/2.0/UDP x", "192.0.2.7:5060"),
            "SIP / 2.0 / UDP 192.0.2.7;branch=z9hG4bK1, SIP/2.0/UDP x"
        );
        // A forged received does not survive.
        assert_eq!(
            stamp("SIP/2.0/UDP [2001:db8::1];received=192.0.2.66;branch=b", "[2001:db8::2]:5060"),
            "SIP/2.0/UDP [2001:db8::1];branch=b;received=2001:db8::2"
        );
        let via =
            Via::parse("SIP/2.0/TCP [2001:db8::1]:5070;rport=7;received=[2001:db8::9];branch=b").unwrap();
        assert_eq!((via.host, via.port, via.rport()), ("[2001:db8::1]", Some(5070), Some(7)));
        assert_eq!(via.received().unwrap().to_string(), "2001:db8::9");
        for bad in
            ["", "SIP/2.0/UDP", "SIP/2.0/UDP ", "SIP/3.0/UDP h", "SIP/2.0/UDP h;", "SIP/2.0/UDP h;b=\"", "h"]
        {
            assert!(Via::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn small_fields_have_ranges() {
        assert_eq!(CSeq::parse("2147483647 INVITE").unwrap().number, i32::MAX.unsigned_abs());
        for bad in
            ["2147483648 INVITE", "-1 INVITE", "INVITE", "1", "1 ", "x INVITE", "1 IN VITE", "4294967297 BYE"]
        {
            assert!(CSeq::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            (max_forwards("0070"), max_forwards("256").is_err(), max_forwards("-0").is_err()),
            (Ok(70), true, true)
        );
        assert_eq!(delta_seconds("120 (busy);duration=60"), Some(120));
        assert_eq!((delta_seconds("1800;refresher=uac"), delta_seconds("soon")), (Some(1800), None));
        let reasons: Vec<_> =
            Reason::list(r#"Q.850;cause=16;text="Terminated", SIP;cause=200;text="a,b""#).collect();
        assert_eq!((reasons[0].protocol, reasons[0].cause), ("Q.850", Some(16)));
        assert_eq!(reasons[1].text.as_deref(), Some("a,b"));
    }
}

/// 60 kB of what takes quadratic time in a careless parser. Linear work on it takes some milliseconds, even
/// unoptimised; quadratic work would take minutes.
#[test]
fn adversarial_messages_take_linear_time() {
    let fill = |unit: &str, bytes: usize| unit.repeat(bytes / unit.len());
    let mut hostile: Vec<Vec<u8>> = Vec::new();
    for unit in [
        ";a=b",
        "<sip:a@h>,",
        "\"",
        "\\\"",
        ",",
        "<",
        ">",
        ";",
        "=",
        "%41",
        "[",
        "@",
        ":",
        " ",
        "\r\n ",
        "a/",
    ] {
        for field in ["Contact", "Via", "To", "X", "CSeq", "Content-Type"] {
            let line = format!("{field}: {}\r\n", fill(unit, 8000));
            hostile.push(invite(&line.repeat(7), ""));
            hostile.push(invite(&format!("{field}: <sip:a@h>{}\r\n", fill(unit, 60_000)), ""));
        }
        hostile.push(format!("INVITE sip:{}@h SIP/2.0\r\n{HEAD}\r\n", fill(unit, 60_000)).into_bytes());
    }
    hostile.push(invite(&fill("X:y\r\n", 60_000), ""));
    hostile.push(fill("\r\n\r", 60_000).into_bytes());
    let no_limits = Limits { max_headers: usize::MAX, ..LIMITS };
    for octets in hostile {
        let began = Instant::now();
        // The outcome is judged elsewhere; here it only has to come soon.
        let _ = parse_datagram(&octets, &no_limits);
        let mut framer = Framer::new(&no_limits);
        for octet in octets.chunks(64) {
            framer.feed(octet);
            while framer.next_frame().is_some() {}
        }
        let text = String::from_utf8_lossy(&octets);
        NameAddr::list(&text).for_each(drop);
        Via::list(&text).for_each(drop);
        Reason::list(&text).for_each(drop);
        stamp_source(&text, ([127, 0, 0, 1], 5060).into());
        let start: String = text.chars().take(60).collect();
        assert!(began.elapsed() < Duration::from_secs(3), "{start:?} took {:?}", began.elapsed());
    }
}
