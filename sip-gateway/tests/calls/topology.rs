//! No address of one side reaches the other, whatever field or body of whatever message it stands in
//! (`b2bua/border.rs`).

use proptest::prelude::*;
use sip_gateway::Redirects;

use crate::world::*;

/// One end: where it is, a name of its side, its media address, and what only its side's addresses begin with.
#[derive(Clone, Copy)]
struct Side {
    at: &'static str,
    name: &'static str,
    media: &'static str,
    begins: &'static str,
}

const DISTRICT: Side = Side { at: PBX, name: "pbx.district.example", media: OFFER_IP, begins: "10.1.0." };
const OUTSIDE: Side = Side { at: CARRIER, name: "sbc.carrier.example", media: ANSWER_IP, begins: "10.2.0." };

/// Every field in which PBXs and carriers name themselves; `{h}` is the host.
const FIELDS: [&str; 36] = [
    "Via: SIP/2.0/UDP {h}:5099;branch=z9hG4bK-inner",
    "Record-Route: <sip:{h};lr>",
    "P-Asserted-Identity: \"at {h}\" <sip:7331@{h}:5070;x={h}>, <tel:+18607427331>",
    "P-Preferred-Identity: <sip:7331@{h}>",
    "Remote-Party-ID: <sip:7331@{h}>;party=calling;privacy=off",
    "P-Associated-URI: <sip:7331@{h}>",
    "P-Called-Party-ID: <sip:7331@{h}>",
    "Diversion: \"{h}\" <sip:7300@{h}>;reason=no-answer;via={h}",
    "History-Info: <sip:7300@{h}?Reason=SIP%3Bcause%3D302%3Btext%3D%22{h}%22>;index=1;mp=1",
    "Referred-By: <sip:7300@{h}>;cid=\"1@{h}\"",
    "Refer-To: <sip:7300@{h}?Replaces=a%40{h}%3Bto-tag%3D1%3Bfrom-tag%3D2>",
    "Reply-To: <sip:7300@{h}>",
    "Warning: 399 {h}:5060 \"seen at {h}\"",
    "Reason: Q.850;cause=16;text=\"ended by {h}\"",
    "User-Agent: PBX/1.0 ({h})",
    "Server: PBX/1.0 on {h}",
    "Call-Info: <http://{h}/a.png>;purpose=icon",
    "Alert-Info: <http://{h}/ring.wav>",
    "Error-Info: <sip:announcement@{h}>",
    "Path: <sip:{h};lr>",
    "Service-Route: <sip:{h};lr>",
    "P-Charging-Vector: icid-value=1;icid-generated-at={h};orig-ioi={h}",
    "P-Charging-Function-Addresses: ccf={h}",
    "P-Visited-Network-ID: \"{h}\"",
    "P-Access-Network-Info: IEEE-802.3;x=\"{h}\"",
    "Geolocation: <https://{h}/where>",
    "In-Reply-To: 70710@{h}",
    "Organization: {h}",
    "Subject: from {h}",
    "Authorization: Digest username=\"a\", realm=\"{h}\", nonce=\"n\", uri=\"sip:{h}\", response=\"0\"",
    "Proxy-Authorization: Digest username=\"a\", realm=\"{h}\", nonce=\"n\", uri=\"sip:{h}\", response=\"0\"",
    "Target-Dialog: a@{h};local-tag=1;remote-tag=2",
    "Security-Client: ipsec-3gpp;x={h}",
    "Accept-Contact: *;host=\"{h}\"",
    "X-PBX-Node: {h}/7",
    "X-Encoded: at%20{h}",
];

impl Side {
    /// All fields with its name, and all with its address.
    fn fields(self) -> String {
        let ip = self.at.split(':').next().unwrap();
        [self.name, ip].map(|host| FIELDS.map(|field| field.replace("{h}", host) + "\r\n").concat()).concat()
    }

    /// A description that names it wherever one can.
    fn sdp(self, port: u16, more: &str) -> String {
        let Self { name, media, .. } = self;
        format!(
            "v=0\r\no=ann 77 1 IN IP4 {media}\r\ns=call from {name}\r\ni=at {media}\r\nu=http://{name}/\r\n\
             e=ann@{name}\r\np=+1 860 at {name}\r\nc=IN IP4 {media}\r\nt=0 0\r\na=x-site:{name}\r\n\
             m=audio {port} RTP/AVP 0\r\ni=microphone of {name}\r\nc=IN IP4 {media}\r\n\
             a=rtcp:{} IN IP4 {media}\r\na=candidate:1 1 UDP 1 {media} {port} typ host\r\n\
             a=altc:1 IP4 {media} {port}\r\na=x-port:{media}:{port}\r\n{more}",
            port + 1
        )
    }
}

/// A call from one side to the other, with everything that names a side in every message.
struct Named {
    world: World,
    caller: Side,
    callee: Side,
    a: Ua,
}

impl Named {
    fn new(caller: Side, callee: Side, trusted: bool, redirects: Redirects) -> Self {
        let mut config = config();
        for peer in &mut config.peers {
            peer.trusts_identity = trusted;
            peer.redirects = redirects;
        }
        config.peers.truncate(2);
        // Large requests stay on UDP.
        config.listeners.truncate(1);
        let mut a = Ua::caller(caller.at, "18605550100");
        a.call_id = format!("call-1@{}", caller.name);
        a.local = format!("\"Ann at {}\" <sip:7331@{};site={0}>;x=\"{0}\";tag=a", caller.name, caller.media);
        a.remote = format!("\"Bob at {0}\" <sip:18605550100@10.0.0.1;site={0}>", caller.name);
        a.uri = format!("sip:18605550100;tgrp=a;trunk-context={}@10.0.0.1;user=phone", caller.name);
        Self { world: World::with(config), caller, callee, a }
    }

    fn invite(&mut self) -> Msg {
        let invite = self.a.invite(&self.caller.fields(), &self.caller.sdp(4000, ""));
        self.world.send(self.caller.at, invite);
        self.world.expect(self.caller.at, "SIP/2.0 100 ");
        let invite = self.world.expect(self.callee.at, "INVITE ");
        assert!(!invite.get("Call-ID").contains("call-1") && invite.tag("From").as_deref() != Some("a"));
        let (vias, routes) =
            (invite.headers().all("Via").count(), invite.headers().all("Record-Route").count());
        assert_eq!((vias, routes, invite.get("Contact")), (1, 0, "<sip:10.0.0.1:5060>"));
        invite
    }

    /// The callee answers a request of the gateway's.
    fn answer(&mut self, request: &Msg, status: &str, body: &str) {
        let contact = format!("Contact: \"{0}\" <sip:line@{0}:5070>\r\n", self.callee.name);
        let fields = contact + &self.callee.fields();
        let phrase = format!("{status} at {} {}", self.callee.name, self.callee.at);
        // Vias of one's own are no business of a response's.
        let fields: String =
            fields.split_inclusive("\r\n").filter(|field| !field.starts_with("Via:")).collect();
        self.world.send(self.callee.at, request.answer(&phrase, "b", &fields, body));
    }

    /// That nothing which was sent to one side names the other.
    #[track_caller]
    fn assert_closed(&self) {
        for (to, other) in [(self.caller, self.callee), (self.callee, self.caller)] {
            let mut messages = 0;
            for (_, bytes) in self.world.sent.iter().filter(|(at, _)| *at == addr(to.at)) {
                let text = String::from_utf8_lossy(bytes).to_lowercase();
                assert!(!text.contains(other.begins) && !text.contains(other.name), "to {}:\n{text}", to.at);
                messages += 1;
            }
            assert!(messages > 1, "{messages} to {}", to.at);
        }
    }
}

fn every_way() -> impl Iterator<Item = (Side, Side, bool)> {
    let ways = [(DISTRICT, OUTSIDE), (OUTSIDE, DISTRICT)];
    ways.into_iter().flat_map(|(from, to)| [true, false].map(|trusted| (from, to, trusted)))
}

#[test]
fn no_address_of_one_side_reaches_the_other_in_an_answered_call() {
    for (caller, callee, trusted) in every_way() {
        let mut call = Named::new(caller, callee, trusted, Redirects::Refuse);
        let invite = call.invite();
        call.answer(&invite, "183 Ringing", &callee.sdp(5000, ""));
        call.answer(&invite, "180 Ringing", "");
        call.answer(&invite, "200 OK", &callee.sdp(5000, ""));
        let ok = call.world.take_all(caller.at).pop().unwrap();
        call.a.learn(&ok);
        let fields = caller.fields();
        call.world.send(caller.at, call.a.request("ACK", &fields, ""));
        call.world.expect(callee.at, "ACK ");
        for (method, extra, body) in [
            ("INFO", "Content-Type: text/plain\r\n", "x"),
            ("MESSAGE", "", ""),
            ("UPDATE", "", ""),
            (
                "NOTIFY",
                "Event: refer\r\nContent-Type: message/sipfrag\r\n",
                "SIP/2.0 200 OK at 10.1.0.10 10.2.0.20\r\n\
             Contact: <sip:10.1.0.10>\r\nContact: <sip:10.2.0.20>\r\n",
            ),
            ("INVITE", "", &caller.sdp(4000, "a=sendonly\r\n")),
        ] {
            let extra = format!("{}{extra}{fields}", call.a.contact());
            call.world.send(caller.at, call.a.request(method, &extra, body));
            let request = call.world.expect(callee.at, &format!("{method} "));
            let body = if method == "INVITE" { callee.sdp(5000, "a=recvonly\r\n") } else { String::new() };
            call.answer(&request, "200 OK", &body);
            call.world.take_all(caller.at);
        }
        call.world.send(caller.at, call.a.request("ACK", &fields, ""));
        call.world.expect(callee.at, "ACK ");
        call.world.send(caller.at, call.a.request("BYE", &fields, ""));
        let bye = call.world.expect(callee.at, "BYE ");
        assert_eq!(bye.get("Reason"), "Q.850;cause=16");
        call.assert_closed();
    }
}

#[test]
fn nor_in_one_that_fails_is_redirected_or_is_given_up() {
    for (caller, callee, trusted) in every_way() {
        for redirects in [Redirects::Pass, Redirects::Refuse] {
            for status in ["302 Moved", "404 Not Found", "486 Busy", "488 Not Acceptable Here", "603 Decline"]
            {
                let mut call = Named::new(caller, callee, trusted, redirects);
                let invite = call.invite();
                let body = if status.starts_with("488") { callee.sdp(5000, "") } else { String::new() };
                call.answer(&invite, status, &body);
                let passed = !status.starts_with("302") || redirects == Redirects::Pass;
                let code = if passed { &status[..3] } else { "480" };
                call.world.expect(caller.at, &format!("SIP/2.0 {code} "));
                call.assert_closed();
            }
        }
        let mut call = Named::new(caller, callee, trusted, Redirects::Refuse);
        let invite = call.invite();
        call.answer(&invite, "180 Ringing", "");
        call.world.send(caller.at, call.a.request("CANCEL", &caller.fields(), ""));
        call.world.expect(callee.at, "CANCEL ");
        call.assert_closed();
    }
}

#[test]
fn who_transfers_is_not_told_where_the_new_party_is() {
    let mut talk = crate::transfer::Talk::new();
    talk.referred("<sip:8605550177@10.0.0.1;x=10.1.0.10>");
    let invite = talk.world.expect(CARRIER, "INVITE ");
    assert!(!invite.text().contains("10.1.0."), "{}", invite.text());
    talk.world.send(
        CARRIER,
        invite.answer("486 Busy at 10.2.0.20", "t", &OUTSIDE.fields().replace("Via:", "X:"), ""),
    );
    talk.world.expect(CARRIER, "ACK ");
    talk.notified("SIP/2.0 486 Busy Here", "terminated");
}

#[test]
fn an_emergency_call_passes_with_everything_that_names_its_side() {
    let mut config = config();
    config.listeners.truncate(1);
    let mut world = World::with(config);
    let mut a = Ua::caller(PBX, "911");
    world.send(PBX, a.invite(&DISTRICT.fields(), ""));
    let invite = world.expect(CARRIER, "INVITE ");
    for name in ["P-Asserted-Identity", "Geolocation", "P-Access-Network-Info", "X-PBX-Node", "Call-Info"] {
        assert!(invite.get(name).contains(DISTRICT.name), "{name}");
    }
}

/// A value around a host, which stands by itself in it.
fn around() -> impl Strategy<Value = (String, String)> {
    let edge = "[ -~&&[^0-9A-Za-z._%\\-]]?";
    let text = "[ -~&&[^%]]{0,12}";
    (text, edge, edge, text).prop_map(|(before, left, right, after)| {
        let (left, right) =
            (if left.is_empty() { "@" } else { &left }, if right.is_empty() { ";" } else { &right });
        (format!("a{before}{left}"), format!("{right}{after}z"))
    })
}

proptest! {
    #[test]
    fn a_field_that_nobody_knows_passes_unless_it_names_the_senders_side(
        name in "X-[A-Z][a-z]{0,9}[0-9]",
        (before, after) in around(),
        host in prop::sample::select(vec!["10.1.0.10", "10.1.0.99", "PBX.district.example", "elsewhere.example"]),
    ) {
        let value = format!("{before}{host}{after}");
        let mut world = World::new();
        let mut a = Ua::caller(PBX, "100");
        a.call_id = format!("1@{}", DISTRICT.name);
        world.send(PBX, a.invite(&format!("{name}: {value}\r\n"), &sdp(OFFER_IP, 4000, "")));
        let invite = world.expect(CARRIER, "INVITE ");
        let theirs = host != "elsewhere.example";
        prop_assert_eq!(invite.headers().first(&name), (!theirs).then_some(value.as_str()));
    }
}
