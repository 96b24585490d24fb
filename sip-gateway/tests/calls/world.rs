//! A PBX, two carriers and the hub around one core, on virtual time. Wire in, wire out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use consent::{CallId, Mono, Now, Side, Wall};
use sip_gateway::locate::{Place, Plan, Question};
use sip_gateway::wire::{Headers, Message, NameAddr, Request, Response, parse_datagram};
use sip_gateway::{
    Command, Config, Core, Event, Input, Ladder, Limits, Listener, ListenerId, Offer, Output, Peer, PeerId,
    Redirects, Route, Routes, SessionTimer, StreamId, Transport,
};

pub const GATEWAY: &str = "10.0.0.1:5060";
pub const PBX: &str = "10.1.0.10:5060";
pub const CARRIER: &str = "10.2.0.20:5060";
pub const CARRIER2: &str = "10.3.0.30:5060";
pub const STRANGER: &str = "203.0.113.66:5060";

pub const UDP: ListenerId = ListenerId(0);
pub const TCP: ListenerId = ListenerId(1);
pub const UDP6: ListenerId = ListenerId(2);

/// What the hub does with an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hub {
    /// Sends it to the other side, with relay addresses.
    Proceeds,
    /// Nothing; the test commands.
    Waits,
}

pub struct World {
    pub core: Core,
    pub now: Now,
    pub hub: Hub,
    pub events: VecDeque<Event>,
    /// Everything sent to each address and not yet taken.
    inboxes: BTreeMap<SocketAddr, VecDeque<Bytes>>,
    /// Everything ever sent, by address.
    pub sent: Vec<(SocketAddr, Bytes)>,
    pub streams: Vec<Output>,
    /// What DNS is asked, and not yet answered.
    pub questions: VecDeque<(PeerId, Question)>,
    /// Which peers became reachable, or ceased to be.
    pub reachable: Vec<(usize, bool)>,
    /// The plans found.
    pub found: Vec<(PeerId, Plan)>,
    /// Counts messages in both directions; the test may lose the one with this number.
    pub passed: usize,
    pub lose: Option<usize>,
    /// Calls offered and not ended: `Ended` comes once for each, and nothing after it.
    open: BTreeSet<CallId>,
    /// What was told of the calls' messages.
    pub ladders: Vec<Ladder>,
    /// Events and messages in the order in which they came out.
    pub order: Vec<String>,
}

pub fn peer(name: &str, side: Side, address: &str, transport: Transport) -> Peer {
    let address: SocketAddr = address.parse().unwrap();
    let port = Some(address.port()).filter(|port| *port != 5060 || transport == Transport::Tls);
    let bits = if address.is_ipv4() { 32 } else { 128 };
    Peer {
        name: name.to_owned(),
        side,
        place: Place { port, ..Place::at(transport, address) },
        allow: vec![(address.ip(), bits)],
        ping_s: None,
        parties_signalled: side == Side::District,
        preference_trusted: side == Side::District,
        may_refer: side == Side::District,
        trusts_identity: side == Side::District,
        redirects: if side == Side::District { Redirects::Follow } else { Redirects::Refuse },
        certificate: None,
        account: None,
        allowance: sip_gateway::Allowance::default(),
    }
}

pub fn config() -> Config {
    let listener = |transport, address: &str| Listener { transport, address: address.parse().unwrap() };
    Config {
        listeners: vec![
            listener(Transport::Udp, GATEWAY),
            listener(Transport::Tcp, GATEWAY),
            listener(Transport::Udp, "[2001:db8::1]:5060"),
        ],
        peers: vec![
            peer("pbx", Side::District, PBX, Transport::Udp),
            peer("carrier", Side::Public, CARRIER, Transport::Udp),
            peer("carrier2", Side::Public, CARRIER2, Transport::Udp),
        ],
        routes: Routes::default(),
        emergency: vec!["9911".to_owned()],
        limits: Limits {
            max_calls: 100,
            max_message_bytes: 65_535,
            max_headers: 100,
            max_streams: 8,
            requests_per_s: None,
        },
        session_timer: SessionTimer::default(),
    }
}

/// The user part that is a dispatch line's, dialled or calling.
pub const DISPATCH: &str = "7427331";

fn is_dispatch(offer: &Offer) -> bool {
    offer.request_user == DISPATCH || offer.caller.asserted == [DISPATCH]
}

pub fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

impl World {
    pub fn new() -> Self {
        Self::with(config())
    }

    pub fn with(config: Config) -> Self {
        Self {
            core: Core::new(Arc::new(config), [42; 32], is_dispatch),
            now: Now { mono: Mono(1_000_000), wall: Wall(1_700_000_000_000_000) },
            hub: Hub::Proceeds,
            events: VecDeque::new(),
            inboxes: BTreeMap::new(),
            sent: Vec::new(),
            streams: Vec::new(),
            questions: VecDeque::new(),
            reachable: Vec::new(),
            found: Vec::new(),
            passed: 0,
            lose: None,
            open: BTreeSet::new(),
            ladders: Vec::new(),
            order: Vec::new(),
        }
    }

    pub fn waiting() -> Self {
        let mut world = Self::new();
        world.hub = Hub::Waits;
        world
    }

    /// Sends a datagram to the core.
    pub fn send(&mut self, from: &str, text: impl AsRef<[u8]>) {
        if self.loses() {
            return;
        }
        let from = addr(from);
        let listener = if from.is_ipv4() { UDP } else { UDP6 };
        let bytes = Bytes::copy_from_slice(text.as_ref());
        self.core.on_input(self.now, Input::Datagram { listener, from, bytes });
        self.drain();
    }

    pub fn input(&mut self, input: Input) {
        self.core.on_input(self.now, input);
        self.drain();
    }

    pub fn command(&mut self, command: Command) {
        self.core.on_command(self.now, command);
        self.drain();
    }

    /// Lets virtual time pass, stopping at every deadline.
    pub fn advance(&mut self, ms: u64) {
        let end = self.now.mono.plus_ms(ms);
        while let Some(due) = self.core.poll_timeout().filter(|due| *due <= end) {
            self.jump(due.max(self.now.mono));
            self.core.on_timeout(self.now);
            self.drain();
        }
        self.jump(end);
    }

    fn jump(&mut self, to: Mono) {
        let passed_us = to.since_us(self.now.mono);
        self.now = Now { mono: to, wall: Wall(self.now.wall.0 + i64::try_from(passed_us).unwrap()) };
    }

    fn loses(&mut self) -> bool {
        let number = self.passed;
        self.passed += 1;
        self.lose == Some(number)
    }

    fn drain(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Event(event) => self.on_event(event),
                Output::Datagram { to, bytes, .. } => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    self.order.push(format!("{to} {}", text.lines().next().unwrap_or_default()));
                    self.sent.push((to, bytes.clone()));
                    if !self.loses() {
                        self.inboxes.entry(to).or_default().push_back(bytes);
                    }
                }
                Output::Resolve { peer, question } => self.questions.push_back((peer, question)),
                Output::Reachable { peer, up } => self.reachable.push((peer.0, up)),
                Output::Found { peer, plan } => self.found.push((peer, plan)),
                Output::Ladder(ladder) => self.ladders.push(*ladder),
                stream => self.streams.push(stream),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        let text = format!("{event:?}");
        let end = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
        self.order.push(format!("event {}", &text[..end]));
        match &event {
            Event::Offered(offer) => assert!(self.open.insert(offer.call)),
            Event::Ended { call, .. } => assert!(self.open.remove(call), "ended twice"),
            other => assert!(self.open.contains(&other.call()), "after the end: {other:?}"),
        }
        if let (Event::Offered(offer), Hub::Proceeds) = (&event, self.hub) {
            let (call, side) = (offer.call, offer.side);
            self.events.push_back(event);
            return self.proceed(call, if side == Side::District { Side::Public } else { Side::District });
        }
        if let (Event::Diverted { call, target, .. }, Hub::Proceeds) = (&event, self.hub) {
            let other = if target.from == Side::District { Side::Public } else { Side::District };
            let route = Route { side: target.side.unwrap_or(other), user: None };
            let call = *call;
            self.events.push_back(event);
            return self.command(Command::Divert { call, route });
        }
        if let (Event::Replacing(replacement), Hub::Proceeds) = (&event, self.hub) {
            let (call, record) = (replacement.call, replacement.record);
            self.events.push_back(event);
            return self.command(Command::Replace { call, record });
        }
        self.events.push_back(event);
    }

    pub fn proceed(&mut self, call: CallId, side: Side) {
        self.command(Command::Proceed { call, route: Route { side, user: None }, media: relay() });
    }

    /// The next message at an address.
    pub fn next(&mut self, at: &str) -> Option<Msg> {
        let bytes = self.inboxes.get_mut(&addr(at))?.pop_front()?;
        Some(Msg::new(bytes))
    }

    /// Whether an INVITE is the next message at an address.
    pub fn next_is_invite(&self, at: &str) -> bool {
        let next = self.inboxes.get(&addr(at)).and_then(VecDeque::front);
        next.is_some_and(|bytes| bytes.starts_with(b"INVITE "))
    }

    /// The next message at an address, which starts so.
    #[track_caller]
    pub fn expect(&mut self, at: &str, start: &str) -> Msg {
        let Some(message) = self.next(at) else { panic!("nothing at {at}, wanted {start}") };
        assert!(message.text().starts_with(start), "wanted {start}, got:\n{}", message.text());
        message
    }

    #[track_caller]
    pub fn expect_nothing(&mut self, at: &str) {
        if let Some(message) = self.next(at) {
            panic!("unexpected at {at}:\n{}", message.text());
        }
    }

    /// All messages at an address, by start line.
    pub fn take_all(&mut self, at: &str) -> Vec<Msg> {
        std::iter::from_fn(|| self.next(at)).collect()
    }

    /// The same, but without refusals that echo fields which could not be read.
    pub fn take_readable(&mut self, at: &str) -> Vec<Msg> {
        if let Some(inbox) = self.inboxes.get_mut(&addr(at)) {
            let readable = |bytes: &Bytes| parse_datagram(bytes, &config().limits).is_ok();
            inbox.retain(|bytes| {
                readable(bytes) || !matches!(bytes.get(..9), Some(b"SIP/2.0 4" | b"SIP/2.0 5"))
            });
        }
        self.take_all(at)
    }

    #[track_caller]
    pub fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        let found = self.events.iter().position(wanted);
        let Some(index) = found else { panic!("no such event among {:#?}", self.events) };
        self.events.remove(index).unwrap()
    }

    pub fn call(&self) -> CallId {
        let offered = self.events.iter().find_map(|event| match event {
            Event::Offered(offer) => Some(offer.call),
            _ => None,
        });
        offered.unwrap()
    }

    pub fn ended(&self) -> Vec<sip_gateway::End> {
        let ends = self.events.iter().filter_map(|event| match event {
            Event::Ended { end, .. } => Some(end.clone()),
            _ => None,
        });
        ends.collect()
    }

    pub fn open_calls(&self) -> Vec<CallId> {
        self.open.iter().copied().collect()
    }

    /// Runs everything out and checks that nothing is left behind.
    #[track_caller]
    pub fn assert_clean(&mut self) {
        self.advance(300_000);
        let counters = self.core.counters();
        assert_eq!(self.core.calls(), 0);
        assert_eq!(
            (counters.transactions, counters.dialogs, counters.timers, counters.calls_lingering),
            (0, 0, 0, 0)
        );
        assert_eq!(self.core.poll_timeout(), None);
    }

    /// Stream bytes sent on a stream so far.
    pub fn stream_bytes(&mut self, wanted: StreamId) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.streams.retain(|output| match output {
            Output::Stream { stream, bytes: more } if *stream == wanted => {
                bytes.extend_from_slice(more);
                false
            }
            _ => true,
        });
        bytes
    }
}

pub fn relay() -> Vec<[SocketAddr; 2]> {
    vec![[addr("10.0.0.1:20000"), addr("10.0.0.1:20002")], [addr("10.0.0.1:20004"), addr("10.0.0.1:20006")]]
}

/// A message as a peer got it.
#[derive(Clone, Debug)]
pub struct Msg {
    pub bytes: Bytes,
    pub message: Message,
}

impl Msg {
    pub fn new(bytes: Bytes) -> Self {
        let message =
            parse_datagram(&bytes, &config().limits).expect("the gateway sends well-formed messages");
        Self { bytes, message }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub fn headers(&self) -> &Headers {
        self.message.headers()
    }

    #[track_caller]
    pub fn get(&self, name: &str) -> &str {
        self.headers().first(name).unwrap_or_else(|| panic!("no {name} in\n{}", self.text()))
    }

    pub fn body(&self) -> String {
        String::from_utf8_lossy(self.message.body()).into_owned()
    }

    #[track_caller]
    pub fn request(&self) -> &Request {
        let Message::Request(request) = &self.message else { panic!("no request:\n{}", self.text()) };
        request
    }

    #[track_caller]
    pub fn response(&self) -> &Response {
        let Message::Response(response) = &self.message else { panic!("no response:\n{}", self.text()) };
        response
    }

    pub fn tag(&self, field: &str) -> Option<String> {
        NameAddr::parse(self.get(field)).unwrap().tag().map(str::to_owned)
    }

    /// What a UAS answers to this request.
    pub fn answer(&self, status: &str, tag: &str, extra: &str, body: &str) -> String {
        let mut text = format!("SIP/2.0 {status}\r\n");
        for name in ["Via", "From"] {
            for value in self.headers().all(name) {
                text += &format!("{name}: {value}\r\n");
            }
        }
        let to = self.get("To");
        let tagged =
            if to.contains(";tag=") || tag.is_empty() { to.to_owned() } else { format!("{to};tag={tag}") };
        text +=
            &format!("To: {tagged}\r\nCall-ID: {}\r\nCSeq: {}\r\n", self.get("Call-ID"), self.get("CSeq"));
        text += extra;
        text + &content(body)
    }
}

pub fn content(body: &str) -> String {
    let content_type = if body.starts_with("v=0") { "Content-Type: application/sdp\r\n" } else { "" };
    format!("{content_type}Content-Length: {}\r\n\r\n{body}", body.len())
}

pub fn sdp(ip: &str, port: u16, more: &str) -> String {
    format!(
        "v=0\r\no=user 77 1 IN IP4 {ip}\r\ns=call\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n{more}"
    )
}

/// One end of a dialog with the gateway.
#[derive(Clone, Debug)]
pub struct Ua {
    pub at: String,
    pub uri: String,
    pub call_id: String,
    pub local: String,
    pub remote: String,
    pub cseq: u32,
    pub branch: u32,
    pub extra: String,
    pub target: String,
}

impl Ua {
    /// A caller at this address.
    pub fn caller(at: &str, dialled: &str) -> Self {
        let host = at.rsplit_once(':').unwrap().0;
        Self {
            at: at.to_owned(),
            uri: format!("sip:{dialled}@10.0.0.1"),
            call_id: format!("calls-secret-id-{}@{host}", at.len()),
            local: format!("\"Ann\" <sip:7331@{host}>;tag=callers-tag"),
            remote: format!("<sip:{dialled}@10.0.0.1>"),
            cseq: 100,
            branch: 0,
            extra: String::new(),
            target: format!("sip:{dialled}@10.0.0.1"),
        }
    }

    /// The callee of this INVITE.
    pub fn callee(at: &str, invite: &Msg, tag: &str) -> Self {
        let contact = invite.get("Contact").trim_matches(['<', '>']).to_owned();
        let to = invite.get("To");
        Self {
            at: at.to_owned(),
            uri: contact.clone(),
            call_id: invite.get("Call-ID").to_owned(),
            local: format!("{to};tag={tag}"),
            remote: invite.get("From").to_owned(),
            cseq: 500,
            branch: 5000,
            extra: String::new(),
            target: contact,
        }
    }

    pub fn contact(&self) -> String {
        format!("Contact: <sip:line@{}>\r\n", self.at)
    }

    pub fn request(&mut self, method: &str, extra: &str, body: &str) -> String {
        if !matches!(method, "ACK" | "CANCEL") {
            self.cseq += 1;
        }
        if method != "CANCEL" {
            self.branch += 1;
        }
        self.message(method, extra, body)
    }

    /// The INVITE that opens a call.
    pub fn invite(&mut self, extra: &str, body: &str) -> String {
        let extra = format!("{}{extra}", self.contact());
        self.request("INVITE", &extra, body)
    }

    /// The ACK of a failure: on the INVITE's branch, with the To of the response.
    pub fn ack_failure(&mut self, response: &Msg) -> String {
        self.remote = response.get("To").to_owned();
        self.message("ACK", "", "")
    }

    /// Takes the To tag and Contact of a response.
    pub fn learn(&mut self, response: &Msg) {
        self.remote = response.get("To").to_owned();
        if let Some(contact) = response.headers().first("Contact") {
            self.target = contact.trim_matches(['<', '>']).to_owned();
        }
    }

    fn message(&self, method: &str, extra: &str, body: &str) -> String {
        let uri = if self.remote.contains(";tag=") { &self.target } else { &self.uri };
        let tag = self.local.rsplit("tag=").next().unwrap();
        format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {at};branch=z9hG4bK-{tag}-{branch}\r\n\
             Max-Forwards: 70\r\nFrom: {from}\r\nTo: {to}\r\nCall-ID: {call_id}\r\nCSeq: {cseq} {method}\r\n{own}{extra}{content}",
            at = self.at,
            branch = self.branch,
            from = self.local,
            to = self.remote,
            call_id = self.call_id,
            cseq = self.cseq,
            own = self.extra,
            content = content(body),
        )
    }
}

/// A call that is up: PBX to carrier.
pub struct Up {
    pub world: World,
    pub a: Ua,
    pub b: Ua,
    pub invite: Msg,
    pub ok: Msg,
}

pub const OFFER_IP: &str = "10.1.0.99";
pub const ANSWER_IP: &str = "10.2.0.99";

impl Up {
    pub fn new() -> Self {
        Self::of(World::new())
    }

    pub fn of(mut world: World) -> Self {
        let mut a = Ua::caller(PBX, "18605550100");
        world.send(PBX, a.invite("", &sdp(OFFER_IP, 4000, "")));
        world.expect(PBX, "SIP/2.0 100 ");
        let invite = world.expect(CARRIER, "INVITE ");
        let mut b = Ua::callee(CARRIER, &invite, "callees-tag");
        world.send(CARRIER, invite.answer("180 Ringing", "callees-tag", &b.contact(), ""));
        world.expect(PBX, "SIP/2.0 180 Ringing");
        world.send(CARRIER, invite.answer("200 OK", "callees-tag", &b.contact(), &sdp(ANSWER_IP, 5000, "")));
        let ok = world.expect(PBX, "SIP/2.0 200 OK");
        a.learn(&ok);
        world.send(PBX, a.request("ACK", "", ""));
        world.expect(CARRIER, "ACK ");
        b.cseq = 500;
        world.expect_nothing(PBX);
        world.expect_nothing(CARRIER);
        Self { world, a, b, invite, ok }
    }

    /// A hangs up, and nothing is left.
    #[track_caller]
    pub fn hang_up(mut self) {
        self.world.send(PBX, self.a.request("BYE", "", ""));
        self.world.expect(PBX, "SIP/2.0 200 OK");
        let bye = self.world.expect(CARRIER, "BYE ");
        self.world.send(CARRIER, bye.answer("200 OK", "", "", ""));
        assert_eq!(self.world.ended().len(), 1);
        self.world.assert_clean();
        assert_eq!(self.world.ended().len(), 1);
    }
}
