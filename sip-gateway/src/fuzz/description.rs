//! Session descriptions and the bodies that hold them (RFC 8866, RFC 2046 §5.1).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;

use crate::sdp::{Description, OurSide, RecordLine, locate, rewrite, splice};
use crate::topology::Hosts;

const OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 77, 0, 1));

/// Where the sender is, which no description may say.
const HIDDEN: &str = "10.0.0.1";

/// Attributes that end here: those that name an address of who wrote them, and what it says of recording.
const ENDED: [&str; 8] = [
    "a=record",
    "a=candidate",
    "a=remote-candidates",
    "a=altc",
    "a=ccap",
    "a=source-filter",
    "a=crypto",
    "a=fingerprint",
];

/// A description, or a line with a Content-Type and then a body.
pub fn description(octets: &[u8]) {
    if let Some(ours) = rewritten(octets) {
        assert_eq!(rewritten(&ours).map(printable), Some(printable(ours)), "ours stays as it is");
    }
    let mut halves = octets.splitn(2, |&octet| octet == b'\n');
    if let (Some(Ok(content_type)), Some(body)) = (halves.next().map(str::from_utf8), halves.next()) {
        in_a_body(content_type.trim_ascii(), &Bytes::copy_from_slice(body));
    }
}

/// What goes out in place of a description that can be read.
fn rewritten(octets: &[u8]) -> Option<Vec<u8>> {
    let description = Description::parse(octets).ok()?;
    let streams = description.leg_media(OURS).streams;
    let media: Vec<SocketAddr> =
        (0_u16..).zip(&streams).map(|(place, _)| (OURS, 20_000 + 2 * place).into()).collect();
    let mut hidden = Hosts::default();
    hidden.learn(HIDDEN);
    let ours = OurSide {
        session_id: 7,
        version: 8,
        address: OURS,
        media: &media,
        record: RecordLine::Removed,
        hidden: &hidden,
    };
    let octets = rewrite(&description, &ours);
    let text = std::str::from_utf8(&octets).unwrap_or_default();
    assert!(text.ends_with("\r\n") && !text.contains('\0'), "{}", octets.escape_ascii());
    let lines = || text.trim_end_matches("\r\n").split("\r\n");
    assert_eq!(lines().filter(|line| line.starts_with("m=")).count(), streams.len(), "{text}");
    lines().for_each(is_ours);
    assert!(!hidden.appear_in(text), "{text}");
    Some(octets)
}

fn is_ours(line: &str) {
    assert!(line.as_bytes().get(1) == Some(&b'=') && !line.contains(['\r', '\n']), "{line}");
    let held = ["c=IN IP4 0.0.0.0", "c=IN IP6 ::"];
    let fine = match line.get(..2) {
        Some("o=") => line == format!("o=- 7 8 IN IP4 {OURS}"),
        Some("c=") => line == format!("c=IN IP4 {OURS}") || held.contains(&line),
        Some("k=") => false,
        Some("a=") => {
            let lower = line.to_ascii_lowercase();
            let (name, value) = lower.split_once(':').unwrap_or((&lower, ""));
            !ENDED.contains(&name) && (name != "a=rtcp" || value.ends_with(&format!(" in ip4 {OURS}")))
        }
        _ => true,
    };
    assert!(fine, "{line} is not ours");
}

/// Nothing but the description is replaced, and ours is found in its place.
fn in_a_body(content_type: &str, body: &Bytes) {
    let Ok(Some(place)) = locate(content_type, body) else { return };
    let found = body.get(place.clone()).unwrap_or_default();
    let Some(ours) = rewritten(found) else { return };
    let spliced = splice(body, place.clone(), &ours);
    assert_eq!(spliced.get(..place.start), body.get(..place.start));
    assert!(spliced.ends_with(body.get(place.end..).unwrap_or_default()));
    let again = locate(content_type, &spliced);
    let there = place.start..place.start + ours.len();
    assert_eq!(again.ok().flatten(), Some(there), "{}", spliced.escape_ascii());
}

fn printable(octets: Vec<u8>) -> String {
    octets.escape_ascii().to_string()
}
