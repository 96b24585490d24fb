//! Hostile messages that no spoilt field makes: bodies that cheat, Vias and routes that lead elsewhere, responses
//! that nobody waits for, dialogs guessed almost rightly, and streams cut and joined.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::message::{Message, describe};
use crate::phone::Call;
use crate::spoilt::{Draft, Way};

/// Where media and signalling are not to go: an address in the network of the one who asks for it.
pub(crate) fn elsewhere(from: SocketAddr) -> IpAddr {
    match from.ip() {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() | 0xff).into(),
        ip @ IpAddr::V6(_) => ip,
    }
}

/// A description of media there.
fn described_elsewhere(from: SocketAddr) -> String {
    describe(SocketAddr::new(elsewhere(from), 9), 9, "sendrecv")
}

/// A Content-Type and a body.
type Body = (&'static str, Vec<u8>);

fn bodies() -> Vec<Body> {
    const MIXED: &str = "multipart/mixed;boundary=b";
    let text = describe(SocketAddr::new([127, 0, 0, 1].into(), 39_998), 1, "sendrecv");
    let part = |head: &str, body: &str| format!("--b\r\n{head}\r\n\r\n{body}\r\n");
    let sdp = part("Content-Type: application/sdp", &text);
    let nested: String = (0..500)
        .map(|depth| format!("--b{depth}\r\nContent-Type: multipart/mixed;boundary=b{}\r\n\r\n", depth + 1))
        .collect();
    let parts = part("Content-Type: text/plain", "x").repeat(800);
    let bomb: String = (1..20)
        .map(|level| format!("<!ENTITY l{level} \"{}\">", format!("&l{};", level - 1).repeat(10)))
        .collect();
    let more = |lines: String| ("application/sdp", format!("{text}{lines}").into_bytes());
    let instead = |from: &str, to: &str| ("application/sdp", text.replace(from, to).into_bytes());
    let mut bodies: Vec<Body> = vec![
        ("multipart/mixed;boundary=b0", nested.into_bytes()),
        (MIXED, Vec::new()),
        (MIXED, b"--b--\r\n".to_vec()),
        (MIXED, b"--b\r\n--b\r\n--b--\r\n".to_vec()),
        (MIXED, b"--b".to_vec()),
        (MIXED, format!("{sdp}{sdp}--b--\r\n").into_bytes()),
        (MIXED, sdp.replace('\r', "").into_bytes()),
        (MIXED, sdp.clone().into_bytes()),
        (MIXED, format!("{parts}{sdp}--b--\r\n").into_bytes()),
        (MIXED, format!("--b\r\n\0{sdp}").into_bytes()),
        (MIXED, sdp.replace("\r\n\r\n", "\r\nContent-Transfer-Encoding: base64\r\n\r\n").into_bytes()),
        ("multipart/mixed", sdp.clone().into_bytes()),
        ("multipart/mixed;boundary=\"\"", b"--\r\n\r\n--\r\n----".to_vec()),
        ("multipart/mixed;boundary=\"(.*)+[\\\\\"", sdp.clone().into_bytes()),
        ("multipart/mixed;boundary=b;boundary=c", sdp.clone().into_bytes()),
        ("multipart/", sdp.into_bytes()),
        ("application/xml", format!("<!DOCTYPE x [<!ENTITY l0 \"x\">{bomb}]><x>&l19;</x>").into_bytes()),
        (
            "application/pidf+xml",
            b"<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]><x>&e;</x>".to_vec(),
        ),
        ("application/media_control+xml", b"<a>".repeat(3_000)),
        ("message/sipfrag", b"SIP/2.0 200 OK\r\n".repeat(500)),
        ("application/dtmf-relay", b"Signal=99999999999999999999\r\nDuration=-1\r\n".to_vec()),
        ("application/dtmf-relay", b"Signal=\r\n".repeat(2_000)),
        ("application/sdp", text.replace('\r', "").into_bytes()),
        ("application/sdp", text.repeat(20).into_bytes()),
        ("application/sdp", b"\xff\xfe".repeat(4_000)),
        ("application/sdp", b"=\r\n".repeat(4_000)),
        instead("m=audio 39998", "m=audio 65536"),
        instead("m=audio 39998", "m=audio -1"),
        instead("m=audio 39998", "m=audio 39998/2147483648"),
        instead("m=audio 39998", "m=audio 0"),
        instead("RTP/AVP 0", "RTP/AVP 65535 4294967296 -1 256"),
        instead("RTP/AVP 0", "%n%s 0"),
        instead("127.0.0.1", "999.1.1.1"),
        instead("127.0.0.1", "224.0.0.1/127/4294967295"),
        instead("127.0.0.1", "255.255.255.255"),
        instead("IN IP4 127.0.0.1", "IN IP6 ::ffff:127.0.0.1%lo"),
        instead("IN IP4 127.0.0.1", "IN IP4 localhost"),
        more("m=audio 9 RTP/AVP 0\r\n".repeat(2_500)),
        more("m=audio 39998 RTP/AVP 0\r\nc=IN IP4 127.0.0.1\r\n".repeat(40)),
        more("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x|2^99999|1:99\r\n".repeat(70)),
        more("a=candidate:1 1 UDP 4294967296 127.0.0.1 99999 typ host\r\n".repeat(300)),
        more("a=rtpmap:99999999999 X/0/0\r\na=ptime:0\r\na=maxptime:18446744073709551616\r\n".to_owned()),
        more(format!("a=fmtp:101 {}\r\n", "0-16,".repeat(8_000))),
        more(format!("a={}\r\n", "x".repeat(40_000))),
    ];
    // The same lines, and their sender says that they are something else.
    let lies =
        ["application/sdp;", "APPLICATION/SDP ; x=\"\\\"", "application / sdp", "text/plain", "*/*", ";"];
    bodies.extend(lies.map(|content_type| (content_type, text.clone().into_bytes())));
    bodies
}

/// Vias that would have the answer sent elsewhere, or make it another transaction's.
fn vias(way: Way<'_>) -> Vec<String> {
    let Way { from, gateway, transport, .. } = way;
    let own = format!("SIP/2.0/{transport} {from};branch=z9hG4bK-v");
    let by = |sent_by: &str| format!("SIP/2.0/{transport} {sent_by};branch=z9hG4bK-v{}", sent_by.len());
    let with = |params: &str| format!("{own}{}{params}", params.len());
    let elsewhere = elsewhere(from);
    let mut vias: Vec<String> = [
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "[::1]:5060",
        "[::ffff:127.0.0.1]",
        "localhost",
        "a.example:5060",
        "%s%n",
        "255.255.255.255",
        "224.0.1.75",
        "0.0.0.0",
        "..",
        "1.2.3",
    ]
    .map(by)
    .to_vec();
    vias.extend([by(&gateway.to_string()), by(&elsewhere.to_string())]);
    let params = [
        format!(";maddr={elsewhere}"),
        ";maddr=224.0.1.75;ttl=255".to_owned(),
        format!(";received={elsewhere}"),
        format!(";received={elsewhere};rport=5060"),
        ";rport=99999".to_owned(),
        ";rport=-1;rport".to_owned(),
        ";rport;rport;rport".to_owned(),
        ";ttl=4294967296".to_owned(),
        ";branch=z9hG4bK".to_owned(),
        ";branch=".to_owned(),
        ";comp=sigcomp;alias;keep;oc=99999999999;oc-validity=-1;oc-seq=nan".to_owned(),
        format!(";{}", "x;".repeat(900)),
        " (a (comment (in a comment)))".to_owned(),
        format!(" {}", "(".repeat(900)),
    ];
    vias.extend(params.iter().map(|params| with(params)));
    vias.push(format!("{own}, ").repeat(120) + &own);
    vias.extend(
        ["SIP/2.0/SCTP", "SIP/3.0/UDP", "SIP / 2.0 / UDP", "HTTP/1.1/TCP"]
            .map(|sent| format!("{sent} {from};branch=z9hG4bK-p")),
    );
    vias
}

/// Fields that would lead a call or its caller elsewhere.
fn leads(elsewhere: IpAddr) -> Vec<(&'static str, String)> {
    let there = format!("<sip:x@{elsewhere}>");
    let mut leads: Vec<(&str, String)> = [
        "Contact",
        "Route",
        "Record-Route",
        "Path",
        "Refer-To",
        "Referred-By",
        "Reply-To",
        "Alert-Info",
        "Call-Info",
        "Error-Info",
        "Identity-Info",
        "P-Asserted-Identity",
        "Diversion",
        "History-Info",
    ]
    .map(|name| (name, there.clone()))
    .to_vec();
    leads.extend(
        [
            ("Contact", "*"),
            ("Contact", "<sip:x@ELSEWHERE;maddr=ELSEWHERE;transport=sctp>"),
            ("Route", "<sip:ELSEWHERE;lr>, <sip:127.0.0.251>"),
            ("Refer-To", "<sip:911@ELSEWHERE?Replaces=a%3Bto-tag%3D1%3Bfrom-tag%3D2&X-Injected=%0d%0a>"),
            ("Refer-To", "<sip:x@a?body=%00&Subject=x%0d%0aX-Injected:%201>"),
            ("Refer-To", "<cid:x@a>;method=BYE"),
            ("Replaces", "a;to-tag=0;from-tag=0;early-only;early-only"),
            ("Replaces", "%00;to-tag=;from-tag="),
            ("Join", "a;to-tag=1;from-tag=2"),
            ("Target-Dialog", "a;local-tag=1;remote-tag=2"),
            ("X-Earmark-Consent", "yes"),
            ("X-Consent", "all"),
            ("Session-Expires", "0;refresher=uac;refresher=uas"),
            ("Privacy", "id;header;session;user;critical;none;;;"),
            ("Content-Length", "-1"),
            ("Content-Length", "+0"),
            ("Content-Length", "0x10"),
            ("Content-Length", "00000000000000000000000000000000000"),
            ("Content-Length", "18446744073709551615"),
            ("Content-Length", "9223372036854775808"),
            ("Content-Length", "1, 0"),
            ("Content-Encoding", "gzip"),
            ("Max-Forwards", "255"),
            ("Max-Forwards", "256"),
            ("CSeq", "4294967295 INVITE"),
            ("Require", "100rel, timer, replaces, precondition, sec-agree"),
            ("Identity", ";info=<http://127.0.0.1:9090/metrics>"),
        ]
        .map(|(name, value)| (name, value.replace("ELSEWHERE", &elsewhere.to_string()))),
    );
    leads
}

/// Requests outside every call.
pub(crate) fn requests(way: Way<'_>, first: usize) -> Vec<Vec<u8>> {
    let mut drafts: Vec<Draft> = Vec::new();
    let mut with = |method: &str, change: &dyn Fn(&mut Draft)| {
        let mut draft = Draft::request(method, first + drafts.len(), way);
        change(&mut draft);
        drafts.push(draft);
    };
    for (content_type, body) in bodies() {
        for method in ["INVITE", "MESSAGE", "OPTIONS", "NOTIFY"] {
            with(method, &|draft| {
                draft.set("Content-Type", content_type);
                draft.lines = vec![body.clone()];
            });
        }
    }
    for via in vias(way) {
        for method in ["INVITE", "OPTIONS", "BYE", "ACK", "BREW"] {
            with(method, &|draft| draft.set("Via", &via));
        }
    }
    for (name, value) in leads(elsewhere(way.from)) {
        for method in ["INVITE", "REFER", "UPDATE", "SUBSCRIBE", "PUBLISH"] {
            with(method, &|draft| draft.set(name, &value));
        }
    }
    drafts.iter().map(Draft::to_bytes).collect()
}

/// Responses that nobody waits for, and some that are none.
pub(crate) fn responses(way: Way<'_>, live: &Call) -> Vec<Vec<u8>> {
    let invite = live.invite();
    let branch = |text: &str| format!("SIP/2.0/UDP {};branch={text}", way.gateway);
    let vias =
        [branch("z9hG4bK"), branch("z9hG4bK-guessed"), invite.header("Via").unwrap_or_default().to_owned()];
    let starts = [
        "100", "180", "199", "200", "302", "401", "407", "422", "487", "491", "500", "699", "700", "099",
        "1", "2000", "-200", "2x0",
    ];
    let mut all = Vec::new();
    for via in &vias {
        for status in starts {
            for method in ["INVITE", "BYE", "CANCEL", "%n"] {
                let mut response =
                    Message { start: format!("SIP/2.0 {status} \u{202e}%n"), ..Message::default() };
                for name in ["From", "To", "Call-ID"] {
                    response = response.with(name, invite.header(name).unwrap_or_default());
                }
                response = response
                    .with("Via", via.clone())
                    .with("CSeq", format!("1 {method}"))
                    .with("Contact", format!("<sip:x@{}>", elsewhere(way.from)))
                    .with("WWW-Authenticate", "Digest realm=\"a\", nonce=\"b\"")
                    .with("Content-Type", "application/sdp");
                response.body = described_elsewhere(way.from).into_bytes();
                all.push(response.to_bytes());
            }
        }
    }
    all
}

/// A request within a live call is made into one that is not quite.
type Miss = fn(&mut Message);

const MISSES: [Miss; 18] = [
    |it| change(it, "From", |value| format!("{value}x")),
    |it| change(it, "From", |value| value[..value.len() - 1].to_owned()),
    |it| change(it, "From", |value| value.replace(";tag=", ";tag=\0")),
    |it| change(it, "From", |value| value.replace(";tag=", ";tag=%")),
    |it| change(it, "From", |value| value.replace(";tag=", ";gat=")),
    |it| change(it, "From", |value| format!("{}>", value.replace(">;", ";"))),
    |it| change(it, "From", |value| format!("\"{value}\" <sip:x@y>")),
    |it| change(it, "To", |value| format!("{value}x")),
    |it| change(it, "To", |value| value[..value.len() - 1].to_owned()),
    |it| change(it, "To", |value| value.replace(";tag=", ";tag=;tag=")),
    |it| change(it, "To", |value| value.replace(";tag=", ";tag=\"") + "\""),
    |it| change(it, "To", |value| format!("{}>", value.replace(">;", ";"))),
    |it| change(it, "Call-ID", |value| format!("{value}x")),
    |it| change(it, "Call-ID", |value| format!("x{value}")),
    |it| change(it, "Call-ID", |value| value[..value.len() - 1].to_owned()),
    |it| change(it, "CSeq", |value| value.replacen(|char: char| char.is_ascii_digit(), "4294967296", 1)),
    |it| change(it, "CSeq", |value| format!("-{value}")),
    |it| {
        for (name, _) in &mut it.headers {
            *name = match name.as_str() {
                "From" => "To".to_owned(),
                "To" => "From".to_owned(),
                _ => continue,
            };
        }
    },
];

fn change(message: &mut Message, name: &str, to: impl Fn(&str) -> String) {
    for (_, value) in message.headers.iter_mut().filter(|(known, _)| known == name) {
        *value = to(value);
    }
}

/// Requests that name the dialog of a live call almost rightly, and would end or move it.
pub(crate) fn misses(call: &Call, from: SocketAddr) -> Vec<Vec<u8>> {
    let methods = [
        "BYE",
        "CANCEL",
        "INVITE",
        "ACK",
        "UPDATE",
        "INFO",
        "REFER",
        "PRACK",
        "NOTIFY",
        "MESSAGE",
        "SUBSCRIBE",
        "BREW",
    ];
    let (there, described) = (elsewhere(from), described_elsewhere(from));
    let mut all = Vec::new();
    for method in methods {
        for (serial, miss) in MISSES.iter().enumerate() {
            let mut request = call.next_request(method).with("Refer-To", format!("<sip:911@{there}>"));
            change(&mut request, "Via", |_| format!("SIP/2.0/UDP {from};branch=z9hG4bK-m{method}{serial}"));
            change(&mut request, "Contact", |_| format!("<sip:x@{there}>"));
            if ["INVITE", "ACK", "UPDATE"].contains(&method) {
                request = request.with("Content-Type", "application/sdp");
                request.body = described.clone().into_bytes();
            }
            miss(&mut request);
            all.push(request.to_bytes());
        }
    }
    all
}

/// Method, further fields, body.
type Wanted<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str);

/// Requests that do name it rightly, and are to be refused or passed over all the same; a peer that may transfer
/// calls asks for no transfer that could be carried out.
pub(crate) fn refused(call: &Call, from: SocketAddr, may_refer: bool) -> Vec<Vec<u8>> {
    let there = elsewhere(from);
    let described = described_elsewhere(from);
    let unreadable = [
        described.replace("v=0", "v=9"),
        described.replace("m=audio 9", "m=audio 99999999"),
        described.replace(&there.to_string(), "999.1.1.1"),
        "=\r\n".repeat(4_000),
    ];
    let mut wanted: Vec<Wanted<'_>> = Vec::new();
    for body in &unreadable {
        wanted.extend(
            ["INVITE", "UPDATE", "ACK"]
                .map(|method| (method, vec![("Content-Type", "application/sdp")], body.as_str())),
        );
    }
    // Who offered nothing in its 2xx may describe nothing in its ACK.
    wanted.push(("ACK", vec![("Content-Type", "application/sdp")], &described));
    wanted.push((
        "INVITE",
        vec![("Require", "no-such-thing"), ("Content-Type", "application/sdp")],
        &described,
    ));
    wanted.push((
        "INVITE",
        vec![("Session-Expires", "1"), ("Supported", "timer"), ("Content-Type", "application/sdp")],
        &described,
    ));
    wanted.push(("PRACK", vec![("RAck", "4294967295 4294967295 INVITE")], ""));
    wanted.push(("PRACK", vec![("RAck", "\u{202e}")], ""));
    wanted.push(("CANCEL", Vec::new(), ""));
    let whole = [format!("<sip:911@{there}>"), format!("<sip:+18605550111@{there}?Replaces=a>")];
    let broken = [
        "",
        "<%n>",
        "<sip:",
        "<http://a.example/>",
        "<cid:x>",
        "<sip:x@y>;method=BYE",
        "<sip:x@y>, <sip:x@y>",
    ];
    let targets = broken.into_iter().chain(whole.iter().filter(|_| !may_refer).map(String::as_str));
    wanted.extend(targets.map(|target| ("REFER", vec![("Refer-To", target)], "")));
    let requests = wanted.into_iter().enumerate().map(|(serial, (method, fields, body))| {
        let mut request = call.take_request(method);
        change(&mut request, "Via", |_| format!("SIP/2.0/UDP {from};branch=z9hG4bK-w{serial}"));
        if ["ACK", "CANCEL"].contains(&method) {
            change(&mut request, "CSeq", |_| format!("1 {method}"));
        }
        for (name, value) in fields {
            request = request.with(name, value);
        }
        request.body = body.as_bytes().to_vec();
        request.to_bytes()
    });
    requests.collect()
}

/// What is written to a stream, piece by piece.
pub(crate) fn streams(way: Way<'_>, first: usize) -> Vec<Vec<Vec<u8>>> {
    let way = Way { transport: "TCP", ..way };
    let one = |serial: usize| Draft::request("OPTIONS", first + serial, way).to_bytes();
    let many: Vec<u8> = (0..200).flat_map(one).collect();
    let ending = |from: &str, to: &str| {
        let text = String::from_utf8(one(300 + to.len())).expect("text");
        text.replace(from, to).into_bytes()
    };
    let mut all: Vec<Vec<Vec<u8>>> = vec![
        // 200 requests in one piece, in pieces of 7 octets and of 1,000; their answers are never read.
        vec![many.clone()],
        many.chunks(1_000).map(<[u8]>::to_vec).collect(),
        many[..4_000].chunks(7).map(<[u8]>::to_vec).collect(),
        one(250).chunks(1).map(<[u8]>::to_vec).collect(),
        vec![b"\r\n".repeat(50_000)],
        vec![b"\r".repeat(50_000)],
        vec![b"\0".repeat(100_000)],
        vec![b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(50)],
        vec![b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()],
        vec![b"INVITE".to_vec()],
        vec![format!("INVITE sip:x@y SIP/2.0\r\n{}", "X: y\r\n".repeat(20_000)).into_bytes()],
        vec![format!("INVITE sip:{} SIP/2.0\r\n\r\n", "x".repeat(100_000)).into_bytes()],
        Vec::new(),
    ];
    let lengths = [
        "Content-Length: -1",
        "Content-Length: 99999999999999999999",
        "Content-Length: 4294967296",
        "Content-Length: 0\r\nl: 5",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 0 0",
        "Content-Length: 0\0",
        "Content-Length:",
        "X: 0",
        "Content-Length: 65000",
        "Content-Length : 0",
        "Content-Length\r\n : 0",
        "Content-Length: \r\n 0",
        "Content-Length: 4",
    ];
    all.extend(lengths.map(|length| vec![ending("Content-Length: 0", length), b"more".to_vec(), one(290)]));
    all
}
