//! Hostile messages: each field of a message crossed with each way to spoil it, the same in every run; and what
//! is wrong with a message that a telephone got.

use std::net::{IpAddr, SocketAddr};

use crate::message::describe;

type Spoil = fn(&[u8]) -> Vec<u8>;

/// What becomes of a field's value.
const SPOILS: [Spoil; 40] = [
    |_| Vec::new(),
    |_| b" \t ".to_vec(),
    |value| [value, value].concat(),
    |value| value[..value.len() / 2].to_vec(),
    |value| value.iter().rev().copied().collect(),
    // Octets that end a line, a string, or a message somewhere else.
    |value| [value, b"\0"].concat(),
    |value| [b"\0\0", value].concat(),
    |value| [b"\"\\\0\" ", value].concat(),
    |value| [value, b"\rX-Injected: 1"].concat(),
    |value| [value, b"\nX-Injected: 1"].concat(),
    |value| [value, b"\n\nX-Injected: 1"].concat(),
    |value| [value, b"%0d%0aX-Injected: 1%00"].concat(),
    |value| [value, b"\r\n ", value, b"\r\n\t\r\n "].concat(),
    |value| [value, &b"\r\n x".repeat(300)].concat(),
    |value| [value, b"\x01\x07\x08\x1b[2J\x7f"].concat(),
    |value| [b"\"\\\x01\\\x07\\\x1b\\\x7f\" ", value].concat(),
    |value| [value, &b"\t".repeat(500)].concat(),
    // What is not UTF-8, or should not be.
    |value| [value, b"\xff\xfe"].concat(),
    |value| [b"\"\xe9\xe8\" ", value].concat(),
    |value| [value, b"\xc0\x80\xed\xa0\x80\xf8\x88\x80\x80\x80"].concat(),
    |value| [b"\xef\xbb\xbf", value].concat(),
    |value| [value, "\u{202e}\u{0}\u{1f4a9}\u{85}\u{2028}".as_bytes()].concat(),
    |value| [value, "\u{e9}\u{202e}\u{1f4a9}\u{fffd}".as_bytes()].concat(),
    // Format strings and what a shell or a logger would run.
    |value| [value, b"%s%n%p%x%99999999d%%%"].concat(),
    |value| [value, b"${jndi:ldap://x/a};$(id)`id`|id&&id"].concat(),
    |value| [value, b"' OR 1=1;--<script>\\u0000</script>"].concat(),
    // Lengths.
    |value| [value, &b"A".repeat(300)].concat(),
    |value| [value, &b"A".repeat(8_100 - value.len().min(8_000))].concat(),
    |value| [value, &b"A".repeat(9_000)].concat(),
    |value| [value, &b";a=b".repeat(500)].concat(),
    |value| [value, &b",".repeat(2_000)].concat(),
    // Nesting and what is not closed.
    |value| [&b"(".repeat(1_000), value, &b")".repeat(1_000)].concat(),
    |value| [&b"<".repeat(500), value, &b">".repeat(500)].concat(),
    |value| [&b"\"".repeat(501), value].concat(),
    |value| [b"\"", value, b"\\"].concat(),
    |value| [b"<", value].concat(),
    // Numbers.
    |_| b"4294967296".to_vec(),
    |_| b"18446744073709551616".to_vec(),
    |_| b"-1".to_vec(),
    |_| b"9".repeat(400),
];

/// Fields beside those that every message has, with a value in order.
const FIELDS: [(&str, &str); 46] = [
    ("Content-Type", "application/sdp"),
    ("Content-Encoding", "identity"),
    ("Content-Disposition", "session;handling=required"),
    ("Content-Length", "0"),
    ("MIME-Version", "1.0"),
    ("Route", "<sip:127.0.0.1;lr>"),
    ("Record-Route", "<sip:127.0.0.1;lr>"),
    ("Allow", "INVITE, ACK, BYE"),
    ("Allow-Events", "presence"),
    ("Supported", "timer"),
    ("Require", "histinfo"),
    ("Proxy-Require", "foo"),
    ("Accept", "application/sdp"),
    ("Expires", "120"),
    ("Min-Expires", "60"),
    ("Session-Expires", "1800;refresher=uac"),
    ("Min-SE", "90"),
    ("P-Asserted-Identity", "\"A\" <sip:+18605550111@a.example>"),
    ("P-Preferred-Identity", "<tel:+18605550111>"),
    ("Remote-Party-ID", "<sip:1@a.example>;party=calling"),
    ("Diversion", "<sip:2@a.example>;reason=no-answer"),
    ("History-Info", "<sip:3@a.example>;index=1"),
    ("Privacy", "none"),
    ("Reason", "Q.850;cause=16;text=\"x\""),
    ("Replaces", "a@b;to-tag=1;from-tag=2"),
    ("Refer-To", "<sip:4@a.example>"),
    ("Referred-By", "<sip:5@a.example>"),
    ("RAck", "1 1 INVITE"),
    ("RSeq", "1"),
    ("Event", "refer"),
    ("Subscription-State", "active;expires=60"),
    ("Authorization", "Digest username=\"a\", realm=\"b\", nonce=\"c\", uri=\"sip:d\", response=\"e\""),
    ("Proxy-Authorization", "Digest username=\"a\", realm=\"b\", nonce=\"c\", uri=\"sip:d\", response=\"e\""),
    ("WWW-Authenticate", "Digest realm=\"a\", nonce=\"b\", qop=\"auth\""),
    ("Identity", "abc;info=<https://a.example/c>;alg=ES256"),
    ("Geolocation", "<cid:a@b>"),
    ("User-Agent", "Phone/1.0 (x)"),
    ("Subject", "x"),
    ("Date", "Sat, 13 Nov 2010 23:29:00 GMT"),
    ("Timestamp", "54"),
    ("Warning", "399 a \"b\""),
    ("Retry-After", "5"),
    ("Alert-Info", "<urn:alert:source:internal>"),
    ("Call-Info", "<https://a.example/x.png>;purpose=icon"),
    ("X-Unknown", "x"),
    ("X-%n", "x"),
];

const COMPACT: [(&str, &str); 19] = [
    ("Accept-Contact", "a"),
    ("Allow-Events", "u"),
    ("Call-ID", "i"),
    ("Contact", "m"),
    ("Content-Encoding", "e"),
    ("Content-Length", "l"),
    ("Content-Type", "c"),
    ("Event", "o"),
    ("From", "f"),
    ("Identity", "y"),
    ("Refer-To", "r"),
    ("Referred-By", "b"),
    ("Reject-Contact", "j"),
    ("Request-Disposition", "d"),
    ("Session-Expires", "x"),
    ("Subject", "s"),
    ("Supported", "k"),
    ("To", "t"),
    ("Via", "v"),
];

/// Parts of the start line and of the description, beside [`MANDATORY`] and [`FIELDS`].
const START: [&str; 3] = ["method", "uri", "version"];
const MANDATORY: [&str; 7] = ["Via", "From", "To", "Call-ID", "CSeq", "Max-Forwards", "Contact"];
const LINES: [&str; 26] = [
    "v=0",
    "o=",
    "s=-",
    "c=",
    "t=0 0",
    "m=audio ",
    "a=rtpmap:0 ",
    "a=ptime:",
    "i=x",
    "u=http://a.example",
    "e=a@b.example",
    "p=+1 860 555 0111",
    "b=AS:64",
    "r=7d 1h 0 25h",
    "z=0 0",
    "k=prompt",
    "a=fmtp:101 ",
    "a=rtcp:9 IN IP4 127.0.0.1",
    "a=candidate:1 1 UDP 1 127.0.0.1 9 typ host",
    "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x",
    "a=altc:1 IP4 127.0.0.1 9",
    "a=ssrc:1 cname:x",
    "a=group:BUNDLE 0",
    "a=recordpref:on",
    "a=x:y",
    "m=video 9 RTP/AVP 96",
];

/// The others than INVITE.
const METHODS: [&str; 14] = [
    "REGISTER",
    "OPTIONS",
    "REFER",
    "SUBSCRIBE",
    "NOTIFY",
    "MESSAGE",
    "PUBLISH",
    "ACK",
    "CANCEL",
    "BYE",
    "PRACK",
    "UPDATE",
    "INFO",
    "BREW",
];

/// Who sends a message, by what, and to whom.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) from: SocketAddr,
    pub(crate) gateway: SocketAddr,
    pub(crate) transport: &'a str,
    /// The user part that it calls.
    pub(crate) to: &'a str,
}

/// A message whose parts may be anything.
#[derive(Clone, Debug, Default)]
pub(crate) struct Draft {
    pub(crate) start: Vec<Vec<u8>>,
    pub(crate) fields: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) lines: Vec<Vec<u8>>,
}

/// A place in a message and what is done there; all of them are counted through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spoiling(pub(crate) usize);

impl Spoiling {
    const PLACES: usize = START.len() + MANDATORY.len() + FIELDS.len() + LINES.len();

    /// How many there are.
    pub(crate) const COUNT: usize = Self::PLACES * SPOILS.len();

    /// One in `step` of those of the fields, which are in every request.
    pub(crate) fn of_fields(step: usize) -> impl Iterator<Item = Self> {
        let described = (START.len() + MANDATORY.len() + FIELDS.len()) * SPOILS.len();
        (START.len() * SPOILS.len()..described).step_by(step).map(Self)
    }

    /// Spoils a message. One in three of them gets an octet more that means something.
    pub(crate) fn spoil(self, draft: &mut Draft) {
        const TELLING: &[u8] = b"\"\\<>;,=:@?/%[]() \t\0\x7f\x80\xc3\xff";
        let spoil = SPOILS[self.0 % SPOILS.len()];
        let value = draft.part(self.0 / SPOILS.len() % Self::PLACES);
        *value = spoil(value);
        if self.0.is_multiple_of(3) {
            let at = self.0.wrapping_mul(7_919) % (value.len() + 1);
            value.insert(at, TELLING[self.0 / 3 % TELLING.len()]);
        }
    }
}

impl Draft {
    /// A request in order, without what [`FIELDS`] adds.
    pub(crate) fn request(method: &str, serial: usize, way: Way<'_>) -> Self {
        let Way { from, gateway, transport, to } = way;
        let start = vec![method.into(), format!("sip:{to}@{gateway}").into(), b"SIP/2.0".to_vec()];
        let fields = [
            ("Via", format!("SIP/2.0/{transport} {from};branch=z9hG4bK-h{serial};rport")),
            ("From", format!("\"H\" <sip:+18605550{:03}@{from}>;tag=h{serial}", serial % 1_000)),
            ("To", format!("<sip:{to}@{gateway}>")),
            ("Call-ID", format!("h{serial}@{}", from.ip())),
            ("CSeq", format!("1 {method}")),
            ("Max-Forwards", "70".to_owned()),
            ("Contact", format!("<sip:h@{from}>")),
        ];
        let mut draft = Self { start, ..Self::default() };
        draft.fields.extend(fields.map(|(name, value)| (name.into(), value.into())));
        if method == "INVITE" {
            draft.describe(from);
        }
        draft
    }

    /// With a session description.
    pub(crate) fn describe(&mut self, at: SocketAddr) {
        let text = describe(SocketAddr::new(at.ip(), 39_998), 1, "sendrecv");
        self.lines = text.lines().map(Into::into).collect();
        self.fields.push((b"Content-Type".to_vec(), b"application/sdp".to_vec()));
    }

    /// With this field, in the place of the one that it has.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        *self.field(name, "") = value.into();
    }

    /// With compact names (RFC 3261 §7.3.3 and others), whatever else they are called.
    pub(crate) fn abbreviate(&mut self) {
        for (name, _) in &mut self.fields {
            let compact = COMPACT.iter().find(|(long, _)| long.as_bytes() == name);
            if let Some((_, compact)) = compact {
                *name = compact.as_bytes().to_vec();
            }
        }
    }

    fn part(&mut self, place: usize) -> &mut Vec<u8> {
        if let Some(place) = place.checked_sub(START.len() + MANDATORY.len() + FIELDS.len()) {
            return self.line(LINES[place]);
        }
        match place.checked_sub(START.len()) {
            None => &mut self.start[place],
            Some(place) => match place.checked_sub(MANDATORY.len()) {
                None => self.field(MANDATORY[place], ""),
                Some(place) => self.field(FIELDS[place].0, FIELDS[place].1),
            },
        }
    }

    fn field(&mut self, name: &str, value: &str) -> &mut Vec<u8> {
        let place = self.fields.iter().position(|(known, _)| known == name.as_bytes());
        let place = place.unwrap_or_else(|| {
            self.fields.push((name.into(), value.into()));
            self.fields.len() - 1
        });
        &mut self.fields[place].1
    }

    fn line(&mut self, start: &str) -> &mut Vec<u8> {
        let place = self.lines.iter().position(|line| line.starts_with(start.as_bytes()));
        let place = place.unwrap_or_else(|| {
            self.lines.push(start.into());
            self.lines.len() - 1
        });
        &mut self.lines[place]
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut octets = self.start.join(&b' ');
        octets.extend_from_slice(b"\r\n");
        let body: Vec<u8> = self.lines.iter().flat_map(|line| [&line[..], b"\r\n"].concat()).collect();
        for (name, value) in &self.fields {
            octets.extend_from_slice(&[name, &b": "[..], value, b"\r\n"].concat());
        }
        if !self.fields.iter().any(|(name, _)| name == b"Content-Length") {
            octets.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        octets.extend_from_slice(b"\r\n");
        octets.extend_from_slice(&body);
        octets
    }
}

/// The requests: one for each spoiling, two in three of them INVITEs, as only they may reach the other leg;
/// where a description is spoilt, all.
pub(crate) fn requests() -> impl Iterator<Item = (&'static str, Spoiling)> {
    let described = (START.len() + MANDATORY.len() + FIELDS.len()) * SPOILS.len();
    // Stride by a prime, so that neighbours have little in common.
    (0..Spoiling::COUNT).map(|at| at * 1_009 % Spoiling::COUNT).map(move |at| {
        let method =
            if at < described && at.is_multiple_of(3) { METHODS[at / 3 % METHODS.len()] } else { "INVITE" };
        (method, Spoiling(at))
    })
}

/// Spoilings for responses: of each place a quarter, another one at the next place, and a status with each.
pub(crate) fn responses() -> impl Iterator<Item = (&'static str, Spoiling)> {
    const STATUSES: [&str; 11] =
        ["183", "200", "180", "302", "401", "183", "407", "422", "200", "491", "603"];
    let spoilings = (0..Spoiling::COUNT).filter(|at| at % 4 == at / SPOILS.len() % 4).map(Spoiling);
    STATUSES.into_iter().cycle().zip(spoilings)
}

/// What is wrong with a message: RFC 3261 §7, §8.1.1, §25.1, and RFC 8866 §5, read as strictly as anybody may;
/// and a description of the gateway's names its own address alone.
pub(crate) fn fault(octets: &[u8], ours: IpAddr) -> Option<String> {
    let Some(end) = octets.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Some("no end of the head".to_owned());
    };
    let Ok(head) = std::str::from_utf8(&octets[..end]) else {
        return Some("no UTF-8 in the head".to_owned());
    };
    let body = &octets[end + 4..];
    let mut lines = head.split("\r\n");
    if let Some(fault) = start_fault(lines.next().unwrap_or_default()) {
        return Some(fault);
    }
    let mut names: Vec<String> = Vec::new();
    for line in lines {
        let Some((name, value)) = line.split_once(": ") else { return Some(format!("no field: {line:?}")) };
        if name.is_empty() || !name.bytes().all(is_token) {
            return Some(format!("no name: {line:?}"));
        }
        if value.contains(|char: char| char.is_ascii_control() && char != '\t') || value.len() > 8_192 {
            return Some(format!("no value: {line:?}"));
        }
        if ["X-Injected", "X-Earmark-Consent", "X-Consent"].contains(&name)
            || name == "Content-Length" && value != body.len().to_string()
        {
            return Some(format!("not ours: {line:?}"));
        }
        names.push(name.to_ascii_lowercase());
    }
    for name in ["from", "to", "call-id", "cseq", "content-length"] {
        if names.iter().filter(|known| *known == name).count() != 1 {
            return Some(format!("not one {name}"));
        }
    }
    if !names.iter().any(|name| name == "via") {
        return Some("no Via".to_owned());
    }
    let kind = head.split_once("Content-Type: application/sdp").map(|(_, rest)| rest);
    // A subtype may go on with other characters than letters (RFC 3261 §25.1).
    let described = kind.is_some_and(|rest| !rest.starts_with(|char| char != ' ' && is_token(char as u8)));
    (described && !body.is_empty()).then(|| description_fault(body, ours)).flatten()
}

fn start_fault(line: &str) -> Option<String> {
    let words: Vec<&str> = line.splitn(3, ' ').collect();
    let fine = match words.as_slice() {
        ["SIP/2.0", status, reason] => {
            status.len() == 3
                && status.bytes().all(|byte| byte.is_ascii_digit())
                && !reason.contains(|char: char| char.is_ascii_control() && char != '\t')
        }
        [method, uri, "SIP/2.0"] => {
            method.bytes().all(is_token)
                && uri.starts_with("sip:")
                && uri.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"".contains(&byte))
        }
        _ => false,
    };
    (!fine).then(|| format!("no start line: {line:?}"))
}

fn description_fault(body: &[u8], ours: IpAddr) -> Option<String> {
    let Ok(text) = std::str::from_utf8(body) else { return Some("no UTF-8 in the description".to_owned()) };
    let Some(text) = text.strip_suffix("\r\n") else { return Some(format!("no last line: {text:?}")) };
    let address = format!("IN IP4 {ours}");
    for (at, line) in text.split("\r\n").enumerate() {
        let fine = line.as_bytes().get(1) == Some(&b'=')
            && (at > 0 || line == "v=0")
            && !line.contains(['\r', '\n', '\0'])
            && (!["o=", "c=", "a=rtcp:"].iter().any(|start| line.starts_with(start))
                || line.ends_with(&address)
                || line == "c=IN IP4 0.0.0.0")
            && !["a=candidate", "a=crypto", "a=altc", "k="].iter().any(|start| line.starts_with(start));
        if !fine {
            return Some(format!("no line of a description: {line:?}"));
        }
    }
    None
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}
