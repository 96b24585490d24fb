//! Text in, text out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use proptest::prelude::*;

use crate::{Flow, MediaKind};

use super::{
    Description, OurSide, RecordLine, RecordPreference, Recording, SdpError, locate, rewrite, splice,
};
use crate::topology::Hosts;

const SIGNALLED_FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn sdp(lines: &str) -> Vec<u8> {
    lines.trim().lines().flat_map(|line| [line.trim(), "\r\n"].concat().into_bytes()).collect()
}

fn parsed(lines: &str) -> Description {
    Description::parse(&sdp(lines)).unwrap()
}

fn rewritten(lines: &str, media: &[&str]) -> String {
    let media: Vec<SocketAddr> = media.iter().map(|address| address.parse().unwrap()).collect();
    recorded(lines, &media, RecordLine::Received)
}

fn recorded(lines: &str, media: &[SocketAddr], record: RecordLine) -> String {
    let address = "192.0.2.99".parse().unwrap();
    let hidden = &Hosts::default();
    let ours = OurSide { session_id: 77, version: 3, address, media, record, hidden };
    String::from_utf8(rewrite(&parsed(lines), &ours)).unwrap()
}

const PHONE: &str = "
    v=0
    o=jdoe 2890844526 2890842807 IN IP4 10.47.16.5
    s=A call
    c=IN IP4 10.47.16.5
    t=0 0
    a=ice-lite
    a=group:BUNDLE 0 1
    a=tool:phone 1.2
    m=audio 49170/2 RTP/AVP 0 8 9 18 101
    a=rtpmap:101 telephone-event/8000
    a=fmtp:101 0-15
    a=rtcp:53020 IN IP4 10.47.16.6
    a=rtcp-mux
    a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj
    a=candidate:1 1 UDP 2130706431 10.47.16.5 49170 typ host
    a=end-of-candidates
    a=fingerprint:sha-256 3A:96:6D
    a=setup:actpass
    a=zrtp-hash:1.10 fe30
    a=recordpref:on
    a=ptime:20
    m=video 51372 RTP/AVP 99
    c=IN IP4 10.47.16.7
    a=rtpmap:99 h263-1998/90000";

#[test]
fn a_rewritten_description_is_ours_and_otherwise_as_received() {
    let expected = "v=0\r\no=- 77 3 IN IP4 192.0.2.99\r\ns=A call\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
        a=tool:phone 1.2\r\nm=audio 20000 RTP/AVP 0 8 9 18 101\r\na=rtpmap:101 telephone-event/8000\r\n\
        a=fmtp:101 0-15\r\na=rtcp:20001 IN IP4 192.0.2.1\r\na=recordpref:on\r\na=ptime:20\r\n\
        m=video 0 RTP/AVP 99\r\nc=IN IP4 192.0.2.1\r\na=rtpmap:99 h263-1998/90000\r\n";
    assert_eq!(rewritten(PHONE, &["192.0.2.1:20000"]), expected);
}

#[test]
fn no_address_of_the_leg_is_left() {
    let text = rewritten(PHONE, &["[2001:db8::1]:20000", "[2001:db8::1]:20002"]);
    assert!(!text.contains("10.47."), "{text}");
    assert!(text.contains("c=IN IP6 2001:db8::1\r\n"));
    assert!(text.contains("a=rtcp:20001 IN IP6 2001:db8::1\r\n"));
    assert!(text.contains("m=video 20002 RTP/AVP 99\r\n"));
}

#[test]
fn nothing_offers_a_way_around_us() {
    let text = rewritten(
        "v=0
         o=- 1 1 IN IP4 10.47.16.5
         s=-
         c=IN IP4 0.0.0.0/10.47.16.5
         t=0 0
         a=rtcp:53020 IN IP4 10.47.16.5
         m=audio 4000 RTP/AVP 0
         a=altc:1 IP4 10.47.16.5 4000
         a=ccap:1 IN IP4 10.47.16.5 4000
         a=tcap:1 RTP/SAVP
         a=acap:1 crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x
         a=pcfg:1 t=1 a=1
         a=ptime:20",
        &["192.0.2.1:20000"],
    );
    let after =
        "s=-\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=audio 20000 RTP/AVP 0\r\nc=IN IP4 192.0.2.1\r\na=ptime:20\r\n";
    assert!(text.ends_with(after) || text.ends_with(&after.replace("c=IN IP4 192.0.2.1\r\n", "")), "{text}");
}

#[test]
fn streams_without_a_session_address_get_their_own() {
    let text = rewritten(
        "v=0
         o=- 1 1 IN IP6 2001:db8::5
         s=-
         t=0 0
         m=audio 4000 RTP/AVP 8
         c=IN IP6 2001:db8::5
         m=audio 0 RTP/AVP 8
         m=image 4004 udptl t38
         c=IN IP6 2001:db8::5",
        &["192.0.2.1:20000", "192.0.2.1:20002", "192.0.2.1:20004"],
    );
    assert!(text.ends_with(
        "m=audio 20000 RTP/AVP 8\r\nc=IN IP4 192.0.2.1\r\nm=audio 0 RTP/AVP 8\r\nc=IN IP4 192.0.2.1\r\n\
         m=image 20004 udptl t38\r\nc=IN IP4 192.0.2.1\r\n"
    ));
}

#[test]
fn hold_by_address_stays_hold() {
    let text = "v=0
        o=- 1 1 IN IP4 10.0.0.1
        s=-
        c=IN IP4 0.0.0.0
        t=0 0
        m=audio 4000 RTP/AVP 8";
    assert!(rewritten(text, &["192.0.2.1:20000"]).contains("c=IN IP4 0.0.0.0\r\n"));
    assert_eq!(parsed(text).leg_media(SIGNALLED_FROM).streams[0].flow, Flow::SendOnly);
    let inactive = parsed(&format!("{text}\na=recvonly"));
    assert_eq!(inactive.leg_media(SIGNALLED_FROM).streams[0].flow, Flow::Inactive);
}

#[test]
fn leg_media_says_who_where_what_and_which_way() {
    let media = parsed(PHONE).leg_media(SIGNALLED_FROM);
    assert_eq!(media.origin, "jdoe 2890844526 IN IP4 10.47.16.5");
    let audio = &media.streams[0];
    assert_eq!(audio.kind, MediaKind::Audio);
    assert_eq!(audio.rtp, Some("10.47.16.5:49170".parse().unwrap()));
    assert_eq!(audio.rtcp, Some("10.47.16.6:53020".parse().unwrap()));
    assert_eq!((audio.flow, audio.ptime_ms), (Flow::SendRecv, Some(20)));
    let formats: Vec<_> = audio
        .formats
        .iter()
        .map(|format| (format.payload_type, format.encoding.as_str(), format.clock_rate, format.channels))
        .collect();
    assert_eq!(
        formats,
        [
            (0, "PCMU", 8000, 1),
            (8, "PCMA", 8000, 1),
            (9, "G722", 8000, 1),
            (18, "G729", 8000, 1),
            (101, "TELEPHONE-EVENT", 8000, 1),
        ]
    );
    let video = &media.streams[1];
    assert_eq!(video.kind, MediaKind::Other);
    assert_eq!(video.rtp, Some("10.47.16.7:51372".parse().unwrap()));
    assert_eq!(video.rtcp, Some("10.47.16.7:51373".parse().unwrap()));
}

#[test]
fn the_version_of_the_origin_is_no_part_of_who_made_it() {
    let later = PHONE.replace("2890842807", "2890842808");
    assert_eq!(
        parsed(PHONE).leg_media(SIGNALLED_FROM).origin,
        parsed(&later).leg_media(SIGNALLED_FROM).origin
    );
}

#[test]
fn direction_is_the_streams_then_the_sessions() {
    let text = "v=0
        o=- 1 1 IN IP4 10.0.0.1
        s=-
        c=IN IP4 10.0.0.1
        t=0 0
        a=sendonly
        m=audio 4000 RTP/AVP 111
        a=rtpmap:111 opus/48000/2
        m=audio 4002 RTP/AVP 0
        a=inactive
        m=audio 0 RTP/AVP 0";
    let streams = parsed(text).leg_media(SIGNALLED_FROM).streams;
    assert_eq!(streams[0].flow, Flow::SendOnly);
    assert_eq!((streams[0].formats[0].clock_rate, streams[0].formats[0].channels), (48_000, 2));
    assert_eq!(streams[1].flow, Flow::Inactive);
    assert_eq!((streams[2].rtp, streams[2].rtcp), (None, None));
}

#[test]
fn numbers_out_of_range_are_refused() {
    let head = "v=0\no=- 1 1 IN IP4 10.0.0.1\ns=-\nc=IN IP4 10.0.0.1\nt=0 0\n";
    for bad in [
        "m=audio 4000 RTP/AVP 65535",
        "m=audio 4000 RTP/AVP 128",
        "m=audio 4000 RTP/AVP -1",
        "m=audio 4000 RTP/AVP 4294967296",
        "m=audio 4000 RTP/AVP 0\na=rtpmap:4294967296 PCMU/8000",
        "m=audio 4000 RTP/AVP 0\na=fmtp:300 x=1",
    ] {
        let outcome = Description::parse(&sdp(&format!("{head}{bad}")));
        assert!(matches!(outcome, Err(SdpError::PayloadType)), "{bad}: {outcome:?}");
    }
    for bad in ["m=audio 70000 RTP/AVP 0", "m=audio -1 RTP/AVP 0", "m=audio", "m=audio 4000"] {
        let outcome = Description::parse(&sdp(&format!("{head}{bad}")));
        assert!(matches!(outcome, Err(SdpError::Syntax { .. })), "{bad}: {outcome:?}");
    }
    for bad in ["999.1.1.1", "10.0.0", "10.0.0.1.1", "/127"] {
        let spoilt = head.replace("c=IN IP4 10.0.0.1", &format!("c=IN IP4 {bad}"));
        let streams = format!("{head}m=audio 4000 RTP/AVP 0\nc=IN IP4 {bad}");
        for text in [spoilt, streams] {
            let outcome = Description::parse(&sdp(&text));
            assert!(matches!(outcome, Err(SdpError::Address)), "{text}: {outcome:?}");
        }
    }
    let odd = format!("{head}m=audio 65535 RTP/AVP 96\na=rtpmap:96 X/99999999999\na=ptime:4294967296");
    let stream = parsed(&odd).leg_media(SIGNALLED_FROM).streams.remove(0);
    assert_eq!((stream.rtcp, stream.ptime_ms, stream.formats.len()), (None, None, 0));
    assert!(!rewritten(&odd, &["192.0.2.1:20000"]).contains("ptime"));
}

#[test]
fn floods_of_lines_are_bounded_or_harmless() {
    let head = "v=0\no=- 1 1 IN IP4 10.0.0.1\ns=-\nc=IN IP4 10.0.0.1\nt=0 0\n";
    let many = head.to_owned() + &"m=audio 4000 RTP/AVP 0\n".repeat(2500);
    assert!(matches!(Description::parse(&sdp(&many)), Err(SdpError::TooManyStreams { count: 2500 })));
    let formats: Vec<String> = (0..65).map(|number| number.to_string()).collect();
    let many = format!("{head}m=audio 4000 RTP/AVP {}", formats.join(" "));
    assert!(matches!(Description::parse(&sdp(&many)), Err(SdpError::TooManyFormats)));
    let crypto = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3\n".repeat(70);
    let text = rewritten(&format!("{head}m=audio 4000 RTP/AVP 0\n{crypto}"), &["192.0.2.1:20000"]);
    assert!(text.ends_with("m=audio 20000 RTP/AVP 0\r\n"), "{text}");
}

#[test]
fn latin_1_is_read_and_sent_as_utf_8() {
    let octets = [&b"v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=Caf\xe9\r\nt=0 0\r\n"[..]].concat();
    let ours = OurSide {
        session_id: 1,
        version: 1,
        address: [192, 0, 2, 1].into(),
        media: &[],
        record: RecordLine::Received,
        hidden: &Hosts::default(),
    };
    let text = String::from_utf8(rewrite(&Description::parse(&octets).unwrap(), &ours)).unwrap();
    assert!(text.contains("s=Café\r\n"));
}

const EMERGENCY: &[u8] =
    b"preamble\r\n--outer\r\nContent-Type: application/sdp\r\n\r\nv=0\r\n\r\n--outer \r\n\
    Content-Type: application/pidf+xml\r\nContent-ID: <target123@atlanta.example.com>\r\n\r\n\
    <?xml version=\"1.0\"?>\xff\x00--outer is not a delimiter\r\n\r\n--outer--\r\nepilogue";

#[test]
fn only_the_description_of_a_multipart_is_replaced() {
    for content_type in [
        "multipart/mixed; boundary=outer",
        "Multipart/Mixed;boundary=\"outer\";x=y",
        " multipart / mixed x;boundary=outer",
    ] {
        let place = locate(content_type, EMERGENCY).unwrap().unwrap();
        assert_eq!(&EMERGENCY[place.clone()], b"v=0\r\n");
        let body = splice(&Bytes::from_static(EMERGENCY), place.clone(), b"v=0\r\ns=ours\r\n");
        assert!(body.starts_with(&EMERGENCY[..place.start]));
        assert!(body.ends_with(&EMERGENCY[place.end..]));
        assert_eq!(body.len(), EMERGENCY.len() + b"s=ours\r\n".len());
    }
}

#[test]
fn bodies_without_a_description_have_none() {
    assert_eq!(locate("text/plain", b"v=0").unwrap(), None);
    assert_eq!(locate("application/sdp;charset=x", b"v=0\r\n").unwrap(), Some(0..5));
    for spoilt in ["application/sdp;", "application/sdp,,", " Application / SDP", "application/sdp x"] {
        assert_eq!(locate(spoilt, b"v=0\r\n").unwrap(), Some(0..5), "{spoilt}");
    }
    assert_eq!(locate("application/sdpx", b"v=0\r\n").unwrap(), None);
    for none in ["", "sdp", ";", "application/", "/sdp", "text/ ;x", "a b/c", "application/;sdp", "/"] {
        assert_eq!(locate(none, b"v=0\r\n").unwrap(), Some(0..5), "{none}: as Sofia-SIP reads it");
        assert_eq!(locate(none, b"hello").unwrap(), None, "{none}");
    }
    assert_eq!(locate("multipart/mixed;boundary=b", b"").unwrap(), None);
    assert_eq!(locate("multipart/mixed;boundary=b", b"--b--").unwrap(), None);
    assert_eq!(locate("multipart/mixed;boundary=b", b"--b\r\n\r\nno type\r\n--b--").unwrap(), None);
    // Without a blank line there is no content, only an unfinished head.
    let headless = b"--b\r\nContent-Type: application/sdp\r\nv=0\r\n--b--";
    let end = headless.len() - "\r\n--b--".len();
    assert_eq!(locate("multipart/mixed;boundary=b", headless).unwrap(), Some(end..end));
    assert_eq!(
        locate("multipart/mixed;boundary=b", b"--b\r\nContent-Type:\r\n application/sdp\r\n\r\nv=0").unwrap(),
        Some(40..43)
    );
}

#[test]
fn multiparts_are_bounded() {
    for unread in ["multipart/mixed", "multipart / mixed", "multipart/mixed;;=;boundary=b"] {
        assert!(matches!(locate(unread, b""), Err(SdpError::Multipart)), "{unread}");
    }
    let flood = "--b\r\n\r\n".repeat(40);
    assert!(matches!(locate("multipart/mixed;boundary=b", flood.as_bytes()), Err(SdpError::Multipart)));
    let nested = (0..500).fold(String::new(), |text, depth| {
        format!("{text}--b{depth}\r\nContent-Type: multipart/mixed;boundary=b{}\r\n\r\n", depth + 1)
    });
    assert!(matches!(locate("multipart/mixed;boundary=b0", nested.as_bytes()), Err(SdpError::Multipart)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is accepted is written so that it is accepted again, with our origin and ports.
    #[test]
    fn mutated_descriptions_never_panic_and_stay_ours(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4_u8, any::<u8>()), 0..10),
    ) {
        let mut octets = sdp(PHONE);
        for (index, kind, byte) in edits {
            let at = index.index(octets.len());
            let telling = b"\r\n\t :/=0129am-\0\xff"[usize::from(byte) % 16];
            match kind {
                0 => octets[at] = byte,
                1 => octets[at] = telling,
                2 => octets.insert(at, telling),
                _ => { octets.remove(at); }
            }
        }
        let Ok(description) = Description::parse(&octets) else { return Ok(()) };
        description.leg_media(SIGNALLED_FROM);
        let media = ["192.0.2.1:20000".parse().unwrap()];
        let ours = OurSide {
            session_id: 77,
            version: 3,
            address: [192, 0, 2, 99].into(),
            media: &media,
            record: RecordLine::Received,
            hidden: &Hosts::default(),
        };
        let again = Description::parse(&rewrite(&description, &ours)).unwrap().leg_media(SIGNALLED_FROM);
        prop_assert_eq!(again.origin, "- 77 IN IP4 192.0.2.99");
        for (place, stream) in again.streams.iter().enumerate() {
            let held = stream.rtp.is_some_and(|rtp| rtp.ip().is_unspecified());
            prop_assert!(stream.rtp.is_none() || held || (place == 0 && stream.rtp == Some(media[0])));
        }
    }
}

const TWO_STREAMS: &str = "
    v=0
    o=- 1 1 IN IP4 192.0.2.7
    s=-
    c=IN IP4 192.0.2.7
    t=0 0
    SESSION
    m=audio 4000 RTP/AVP 0
    FIRST
    m=audio 4002 RTP/AVP 0
    SECOND";

fn two_streams(session: &str, first: &str, second: &str) -> Description {
    let filled = [("SESSION", session), ("FIRST", first), ("SECOND", second)];
    let text = filled.iter().fold(TWO_STREAMS.to_owned(), |text, (mark, line)| text.replace(mark, line));
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    parsed(&lines.join("\n"))
}

/// RFC 7866 §7.1.2: a medium's own value stands above the session's.
#[test]
fn what_a_leg_records_is_read_at_both_levels() {
    let cases = [
        ("", "", "", None),
        ("a=record:off", "", "", Some(Recording::Off)),
        ("a=record:on", "", "", Some(Recording::On)),
        ("a=record:ON ", "a=record:off", "a=record:paused", Some(Recording::Paused)),
        ("a=record:on", "a=record:off", "a=record:off", Some(Recording::Off)),
        ("", "a=record:off", "a=record:on", Some(Recording::On)),
        ("a=record:maybe", "a=record", "", None),
    ];
    for (session, first, second, expected) in cases {
        assert_eq!(two_streams(session, first, second).recording(), expected, "{session} {first} {second}");
    }
}

/// RFC 7866 §7.1.3: who wants no recording of one stream wants none, and who wants one says so of all.
#[test]
fn what_a_leg_wants_recorded_is_read_at_both_levels() {
    let cases = [
        ("", "", "", None),
        ("a=recordpref:on", "", "", Some(RecordPreference::On)),
        ("", "a=recordpref:on", "", None),
        ("", "a=recordpref:on", "a=recordpref:on", Some(RecordPreference::On)),
        ("a=recordpref:on", "a=recordpref:off", "", Some(RecordPreference::Off)),
        ("a=recordpref:off", "a=recordpref:on", "a=recordpref:on", Some(RecordPreference::On)),
        ("a=recordpref:on", "", "a=recordpref:pause", Some(RecordPreference::Pause)),
        ("a=recordpref:nopreference", "", "", Some(RecordPreference::None)),
        ("a=recordpref:on", "a=recordpref:nopreference", "", Some(RecordPreference::None)),
        ("a=recordpref:always", "", "", None),
    ];
    for (session, first, second, expected) in cases {
        assert_eq!(two_streams(session, first, second).preference(), expected, "{session} {first} {second}");
    }
}

/// RFC 7866 §7.1.2
#[test]
fn an_indication_of_ours_takes_the_place_of_theirs_at_both_levels() {
    let lines = PHONE.replace("a=tool:phone 1.2", "a=record:off").replace("a=ptime:20", "a=record:paused");
    let media = ["192.0.2.1:20000".parse().unwrap()];
    let records = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with("a=record:")).map(str::to_owned).collect()
    };
    assert_eq!(records(&recorded(&lines, &media, RecordLine::Received)), ["a=record:off", "a=record:paused"]);
    assert_eq!(records(&recorded(&lines, &media, RecordLine::Removed)), [""; 0]);
    let ours = recorded(&lines, &media, RecordLine::Ours(Recording::On));
    assert_eq!(records(&ours), ["a=record:on"]);
    assert!(ours.contains("a=record:on\r\nm=audio"), "{ours}");
    // Whom a preference was said to has it; nobody else gets it.
    let preference = "a=recordpref:on\r\n";
    assert!(recorded(&lines, &media, RecordLine::Received).contains(preference));
    let lines = lines.replace("s=A call", "s=A call\na=recordpref:on");
    for line in [RecordLine::Removed, RecordLine::Ours(Recording::On)] {
        assert!(!recorded(&lines, &media, line).contains("recordpref"), "{line:?}");
    }
}
