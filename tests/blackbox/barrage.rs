//! Thousands of hostile messages while a call is up: nothing gives way, nobody waits, nothing of them reaches
//! the other leg raw, and what they cost is given back.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::crafted;
use crate::dispatch_line::talk;
use crate::gateway::{CITIZEN, DISPATCH, Gateway, Site, eventually, number, text};
use crate::message::Message;
use crate::phone::{Call, Door};
use crate::sound::{self, LADDER_A_HZ, LADDER_B_HZ};
use crate::spoilt::{Draft, Spoiling, Way, fault, requests, responses};

/// On no line, so that nothing of these calls is recorded.
const UNLISTED: &str = "+18605550199";

/// Messages between two rests, few enough for the gateway's socket to hold them, and how long one is.
const BURST: usize = 8;
const REST: Duration = Duration::from_millis(15);

/// What a probe may take before the gateway is taken for dead: a busy machine may keep both of them waiting.
const DEAD: Duration = Duration::from_secs(10);
/// RFC 3261 T1, after which a request is repeated: a busy machine's socket may have been full.
const REPEAT: Duration = Duration::from_millis(500);
/// What it takes where the machine has a core to spare (printed).
const QUICK: Duration = Duration::from_millis(100);

/// Streams that a hostile peer leaves open, and those that it never finishes a message on.
const LEFT_OPEN: usize = 64;
const SLOW: usize = 8;

/// What may be resident beyond what was before (bytes): at the worst moment, and when all is over.
const WORST_GROWTH: u64 = 64 << 20;
const LAST_GROWTH: u64 = 32 << 20;

/// Everything that a hostile request began has ended: 64*T1, T4, and as much again as a busy machine may need.
const OVER: Duration = Duration::from_secs(60);

/// What telephones got that they should not have.
type Faults = Arc<Mutex<Vec<String>>>;

/// Whoever sends hostile messages to the gateway of a site.
struct Attacker<'a> {
    site: &'a Site,
    sent: AtomicUsize,
    faults: Faults,
}

/// OPTIONS from a peer's socket, one after the other.
struct Probes {
    closing: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Probes {
    fn begin(site: &Site) -> Self {
        let closing = Arc::new(AtomicBool::new(false));
        let way = Way { from: at(site.carrier(), 5_071), ..way(site, site.carrier(), "ping") };
        let thread = std::thread::spawn({
            let closing = Arc::clone(&closing);
            move || {
                let socket = peer_socket(way.from);
                socket.set_read_timeout(Some(REPEAT)).expect("a read timeout");
                let mut probes = Vec::new();
                while !closing.load(Ordering::Relaxed) {
                    probes.push(probe(&socket, way, probes.len()));
                    std::thread::sleep(Duration::from_millis(25));
                }
                probes
            }
        });
        Self { closing, thread }
    }

    /// What each took, the quickest first.
    fn end(self) -> Vec<Duration> {
        self.closing.store(true, Ordering::Relaxed);
        let mut probes = self.thread.join().expect("every probe is answered");
        probes.sort();
        probes
    }
}

fn probe(socket: &UdpSocket, way: Way<'_>, serial: usize) -> Duration {
    let octets = Draft::request("OPTIONS", serial, way).to_bytes();
    let call_id = format!("h{serial}@");
    let mut buffer = [0; 4_096];
    let began = Instant::now();
    while began.elapsed() < DEAD {
        socket.send_to(&octets, way.gateway).expect("a datagram leaves");
        while let Ok(length) = socket.recv(&mut buffer) {
            let answer = Message::parse(&buffer[..length]).expect("an answer");
            if answer.call_id().starts_with(&call_id) {
                assert_eq!(answer.status(), Some(200), "{answer:?}");
                return began.elapsed();
            }
        }
    }
    panic!("probe {serial} is not answered");
}

fn at(address: SocketAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), port)
}

fn way<'a>(site: &Site, from: SocketAddr, to: &'a str) -> Way<'a> {
    Way { from, gateway: site.gateway(), transport: "UDP", to }
}

fn peer_socket(address: SocketAddr) -> UdpSocket {
    UdpSocket::bind(address).expect("a free port")
}

/// Stands before a telephone: looks at every message, and refuses every call but the one that is up. A call
/// that says which response it wants spoilt gets that one first.
fn door(faults: &Faults, own: &Call, ours: IpAddr) -> Door {
    let (faults, own) = (Arc::clone(faults), own.invite().call_id().to_owned());
    Box::new(move |octets| {
        if let Some(fault) = fault(octets, ours) {
            faults.lock().expect("no panic").push(format!("{fault} in {}", octets.escape_ascii()));
            return Some(Vec::new());
        }
        let message = Message::parse(octets).expect("it was read more strictly before");
        match message.method() {
            _ if message.call_id() == own || message.status().is_some() => None,
            "INVITE" => Some(refusals(&message)),
            "ACK" => Some(Vec::new()),
            _ => None,
        }
    })
}

fn refusals(invite: &Message) -> Vec<Vec<u8>> {
    let busy = response(invite, "486", "Busy Here");
    let wanted = invite.header("X-Spoil").and_then(|wanted| {
        let (status, index) = wanted.split_once(' ')?;
        Some((status, Spoiling(index.parse().ok()?)))
    });
    let spoilt = wanted.map(|(status, spoiling)| {
        let mut draft = response(invite, status, "Spoilt");
        draft.describe(([127, 0, 0, 1], 39_998).into());
        draft.set("Contact", "<sip:far@127.0.0.250>");
        spoiling.spoil(&mut draft);
        draft.to_bytes()
    });
    spoilt.into_iter().chain([busy.to_bytes()]).collect()
}

fn response(invite: &Message, status: &str, reason: &str) -> Draft {
    let start = vec![b"SIP/2.0".to_vec(), status.into(), reason.into()];
    let mut draft = Draft { start, ..Draft::default() };
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        let tag = if name == "To" { ";tag=far" } else { "" };
        let values = invite.all(name).map(|value| (name.into(), format!("{value}{tag}").into()));
        draft.fields.extend(values);
    }
    draft
}

impl Attacker<'_> {
    /// Sends one datagram, and rests after each burst.
    fn send(&self, socket: &UdpSocket, octets: &[u8]) {
        // Longer than a datagram may be: the machine's own refusal.
        if let Err(error) = socket.send_to(octets, self.site.gateway()) {
            assert!(octets.len() > 60_000, "{error}");
        }
        self.rest();
    }

    fn rest(&self) {
        if self.sent.fetch_add(1, Ordering::Relaxed).is_multiple_of(BURST) {
            std::thread::sleep(REST);
        }
    }

    /// Spoilt requests by every way: datagrams of both peers and of a stranger, and streams.
    fn bombard(&self) {
        let site = self.site;
        let peers = [(site.carrier(), UNLISTED), (site.pbx(), CITIZEN)]
            .map(|(address, to)| (peer_socket(at(address, 5_070)), way(site, at(address, 5_070), to)));
        let stranger = peer_socket(site.stranger());
        let mut streams: VecDeque<TcpStream> = VecDeque::new();
        for (serial, (method, spoiling)) in requests().enumerate() {
            let (socket, way) = &peers[serial % 2];
            let by_stream = serial % 4 == 3;
            let way = Way { transport: if by_stream { "TCP" } else { "UDP" }, ..*way };
            let mut draft = Draft::request(method, serial, way);
            spoiling.spoil(&mut draft);
            if serial % 3 == 1 {
                draft.abbreviate();
            }
            let octets = draft.to_bytes();
            if by_stream {
                streams.extend(self.stream(way, [octets.as_slice()]));
                streams.drain(..streams.len().saturating_sub(LEFT_OPEN));
            } else {
                self.send(socket, &octets);
            }
            if serial.is_multiple_of(8) {
                stranger.send_to(&octets, way.gateway).expect("a datagram leaves");
            }
        }
        stranger.set_nonblocking(true).expect("a socket");
        assert!(stranger.recv(&mut [0; 64]).is_err(), "a stranger gets nothing");
    }

    /// Messages that no spoilt field makes, from both peers whose call is up, while some of one's streams never
    /// come to the end of a message.
    fn cheat(&self, (outgoing, incoming): (&Call, &Call)) {
        let from = at(self.site.carrier(), 5_074);
        let (socket, way) = (peer_socket(from), way(self.site, from, UNLISTED));
        let sinks = [5060, 9].map(|port| peer_socket(SocketAddr::new(crafted::elsewhere(from), port)));
        let mut endless = Draft::request("INVITE", 2_900_000, way).to_bytes();
        endless.truncate(endless.len() - 2);
        let mut slow: Vec<TcpStream> = (0..SLOW).filter_map(|_| self.stream(way, [])).collect();
        let whole = crafted::requests(way, 2_000_000).into_iter().chain(crafted::responses(way, outgoing));
        let within =
            crafted::misses(outgoing, from).into_iter().chain(crafted::refused(outgoing, from, false));
        for (serial, octets) in whole.chain(within).enumerate() {
            self.send(&socket, &octets);
            let piece = endless.get(serial..=serial).unwrap_or_default();
            // The gateway may have lost patience with them.
            slow.retain_mut(|stream| stream.write_all(piece).is_ok());
        }
        let from = at(self.site.pbx(), 5_074);
        let socket = peer_socket(from);
        let within =
            crafted::misses(incoming, from).into_iter().chain(crafted::refused(incoming, from, true));
        within.for_each(|octets| self.send(&socket, &octets));
        let streams = crafted::streams(way, 2_500_000);
        let streams = streams.iter().map(|pieces| self.stream(way, pieces.iter().map(Vec::as_slice)));
        // All are open until the last is written.
        drop(streams.collect::<Vec<_>>());
        for sink in sinks {
            sink.set_nonblocking(true).expect("a socket");
            let got = sink.recv(&mut [0; 64]).map_err(|error| error.kind());
            assert_eq!(got, Err(ErrorKind::WouldBlock), "nothing is led elsewhere");
        }
    }

    /// Pieces on a stream of their own, as far as the gateway takes them.
    fn stream<'b>(&self, way: Way<'_>, pieces: impl IntoIterator<Item = &'b [u8]>) -> Option<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.bind(&at(way.from, 0).into()).expect("a peer's address");
        socket.connect(&way.gateway.into()).ok()?;
        let mut stream = TcpStream::from(socket);
        stream.set_nodelay(true).expect("an option");
        stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        self.rest();
        for piece in pieces {
            // The gateway may close the stream before it has read all.
            stream.write_all(piece).ok()?;
        }
        Some(stream)
    }

    /// Spoilt requests within the call that is up, of methods that say nothing of who is there or of media.
    fn disturb(&self, call: &Call) {
        const METHODS: [&str; 5] = ["INFO", "MESSAGE", "OPTIONS", "NOTIFY", "BREW"];
        let from = at(self.site.carrier(), 5_073);
        let socket = peer_socket(from);
        for (serial, spoiling) in Spoiling::of_fields(4).enumerate() {
            let request = call.take_request(METHODS[serial % METHODS.len()]);
            let start = request.start.split(' ').map(Into::into).collect();
            let mut draft = Draft { start, ..Draft::default() };
            for (name, value) in &request.headers {
                draft.fields.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
            }
            draft.set("Via", &format!("SIP/2.0/UDP {from};branch=z9hG4bK-i{serial};rport"));
            spoiling.spoil(&mut draft);
            self.send(&socket, &draft.to_bytes());
        }
    }

    /// Calls in order whose callee answers with spoilt responses.
    fn be_answered_badly(&self) {
        let way = way(self.site, at(self.site.carrier(), 5_072), UNLISTED);
        let (socket, ours) = (peer_socket(way.from), way.gateway.ip());
        socket.set_read_timeout(Some(REPEAT)).expect("a read timeout");
        let mut buffer = vec![0; 65_536];
        for (serial, (status, Spoiling(index))) in responses().enumerate() {
            let serial = 1_000_000 + serial;
            let mut invite = Draft::request("INVITE", serial, way);
            invite.set("X-Spoil", &format!("{status} {index}"));
            self.send(&socket, &invite.to_bytes());
            let call_id = format!("h{serial}@{}", way.from.ip());
            let began = Instant::now();
            let answer = loop {
                let Ok(length) = socket.recv(&mut buffer) else {
                    assert!(began.elapsed() < DEAD, "{status} spoilt by {index}: no final response");
                    self.send(&socket, &invite.to_bytes());
                    continue;
                };
                let octets = &buffer[..length];
                if let Some(fault) = fault(octets, ours) {
                    let fault = format!("{fault} in {}", octets.escape_ascii());
                    self.faults.lock().expect("no panic").push(fault);
                }
                let Some(answer) = Message::parse(octets) else { continue };
                if answer.call_id() == call_id && answer.cseq().1 == "INVITE" && answer.status() >= Some(200)
                {
                    break answer;
                }
            };
            let to = answer.header("To").unwrap_or_default();
            self.send(&socket, &following(&invite, "1 ACK", to).to_bytes());
            if answer.status() == Some(200) {
                self.send(&socket, &following(&invite, "2 BYE", to).to_bytes());
            }
        }
    }
}

/// A request that follows an INVITE; its Call-ID makes up for a 2xx's ACK being on the same branch.
fn following(invite: &Draft, cseq: &str, to: &str) -> Draft {
    let mut next = invite.clone();
    let method = cseq.split(' ').nth(1).unwrap_or_default();
    next.start[0] = method.into();
    next.lines.clear();
    next.fields.retain(|(name, _)| name != b"Content-Type");
    next.set("CSeq", cseq);
    next.set("To", to);
    next
}

/// What is alive because of somebody's calls.
fn alive(gateway: &Gateway<'_>) -> [u64; 4] {
    ["sip_dialogs", "sip_calls_lingering", "calls_active", "media_calls"]
        .map(|name| gateway.figure(&format!("earmark_{name}")))
}

/// Both have heard each other without a gap; the call's record and recording are what they would have been.
fn went_well(site: &Site, outgoing: &Call, incoming: &Call) {
    assert!(!outgoing.is_ended() && !incoming.is_ended());
    for (call, base) in [(incoming, LADDER_A_HZ), (outgoing, LADDER_B_HZ)] {
        let heard = sound::find_ladder(&call.media().heard(None), base);
        assert!(heard.breaks == 0 && heard.off <= 2 && heard.seconds() > 10.0, "{heard:?}");
        assert_eq!(call.media().strange_packets(), 0);
    }
    outgoing.bye();
    incoming.ended();
    let lasted = incoming.media().first_sent().elapsed().as_secs_f64();
    // Both Call-IDs: a new INVITE with one of them is among the attacks, and another call.
    let own = [outgoing, incoming].map(|call| call.invite().call_id().to_owned());
    let is_own = |call: &serde_json::Value| {
        call["sip_call_ids"]
            .as_array()
            .is_some_and(|ids| own.iter().all(|own| ids.iter().any(|id| id == own)))
    };
    let call = eventually("the call's one closed record", Duration::from_secs(60), || {
        let mut own = site.calls().into_iter().filter(is_own);
        let call = own.next()?;
        assert!(own.next().is_none(), "one record a call");
        (!call["ended_at"].is_null()).then_some(call)
    });
    assert_eq!((text(&call["from"]), text(&call["to"]), text(&call["line"])), (CITIZEN, DISPATCH, DISPATCH));
    assert_eq!((text(&call["outcome"]), text(&call["ended_by"])), ("answered", "caller"), "{call}");
    // Of `transfers` nothing is said: whoever is named by a spoilt From that its peer sent within the call is at its
    // end.
    assert_eq!(call["final_status"], 200, "{call}");
    for leg in ["a", "b"] {
        assert_eq!((&call["media"][leg]["codec"], &call["media"][leg]["lost"]), (&"PCMU".into(), &0.into()));
    }
    let recording = site.sealed_recording(&call);
    assert!((number(&recording["duration_s"]) - lasted).abs() < 0.3, "{recording} of {lasted} s");
    assert!(site.run(["recordings", "verify"]).status.success());
}

#[test]
fn thousands_of_spoilt_messages_disturb_no_call_and_reach_nobody_raw() {
    let site = Site::new();
    let mut gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);
    let faults = Faults::default();
    for (phone, own) in [(&carrier, &outgoing), (&pbx, &incoming)] {
        phone.set_door(door(&faults, own, site.gateway().ip()));
    }

    let attacker = Attacker { site: &site, sent: AtomicUsize::new(0), faults: Arc::clone(&faults) };
    // The figures follow with a moment's delay.
    let alive_before = eventually("the one call's figures", Duration::from_secs(10), || {
        let alive = alive(&gateway);
        (alive == [2, 0, 1, 1]).then_some(alive)
    });
    let before = gateway.resident_bytes();
    let probes = Probes::begin(&site);
    let mut most = before;
    std::thread::scope(|scope| {
        let attacks = [
            scope.spawn(|| attacker.bombard()),
            scope.spawn(|| attacker.be_answered_badly()),
            scope.spawn(|| {
                attacker.cheat((&outgoing, &incoming));
                attacker.disturb(&outgoing);
            }),
        ];
        while attacks.iter().any(|attack| !attack.is_finished()) {
            most = most.max(gateway.resident_bytes());
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let sent = attacker.sent.into_inner();
    assert!(sent >= 5_000, "{sent}");
    gateway.lives();

    eventually("an end of all that they began", OVER, || (alive(&gateway) == alive_before).then_some(()));
    let probes = probes.end();
    // The allocator gives back what was unused for some seconds.
    let last = eventually("the memory back", OVER, || {
        let resident = gateway.resident_bytes();
        (resident.saturating_sub(before) < LAST_GROWTH).then_some(resident)
    });
    let quick = probes.iter().filter(|took| **took < QUICK).count();
    let (half, slowest) = (probes[probes.len() / 2], probes[probes.len() - 1]);
    println!(
        "{sent} messages; {quick} of {} probes within {QUICK:?}, half within {half:?}, the slowest {slowest:?}; \
         resident {before}, {most}, {last}",
        probes.len()
    );
    assert!(most.saturating_sub(before) < WORST_GROWTH, "{before} bytes, then {most}");

    went_well(&site, &outgoing, &incoming);
    let faults = faults.lock().expect("no panic");
    assert!(
        faults.is_empty(),
        "{} messages are not in order: {:#?}",
        faults.len(),
        faults.iter().take(20).collect::<Vec<_>>()
    );
    assert_eq!(gateway.figure("earmark_sip_listener_restarts_total"), 0);
    assert_eq!(gateway.figure("earmark_media_failed_calls_total"), 0);
    // Whatever was sent, and nothing that it says.
    let told = site.log() + &gateway.get("/metrics").1;
    for word in ["panicked", "Injected", "jndi", "%n", "860555", "\u{202e}", "z9hG4bK"] {
        assert!(!told.contains(word), "{word} in {told}");
    }
    gateway.lives();
}
