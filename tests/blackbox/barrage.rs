//! Thousands of hostile messages while a call is up: nothing gives way, nobody waits, nothing of them reaches
//! the other leg raw, and what they cost is given back.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::dispatch_line::talk;
use crate::gateway::{CITIZEN, DISPATCH, Gateway, Site, eventually, number, text};
use crate::message::Message;
use crate::phone::{Call, Door, Phone};
use crate::sound::{self, LADDER_A_HZ, LADDER_B_HZ};
use crate::spoilt::{Draft, HARMLESS, Spoiling, Way, fault, requests, responses};

/// On no line, so that nothing of these calls is recorded.
const UNLISTED: &str = "+18605550199";

/// Messages between two rests, and how long one is: 260 a second.
const BURST: usize = 8;
const REST: Duration = Duration::from_millis(30);

/// A probe is answered before so many further messages are sent.
const PROMPT: usize = 200;

/// What an answer to a probe may take, of a hundred all but one, unless the machine has kept the gateway waiting
/// for a core for more than this share of the time: then it is not the gateway that is measured.
const QUICK: Duration = Duration::from_millis(100);
const STARVED: f64 = 0.02;

/// Streams that a hostile peer leaves open.
const LEFT_OPEN: usize = 64;

/// What may be resident beyond what was before (bytes): at the worst moment, and when all is over.
const WORST_GROWTH: u64 = 64 << 20;
const LAST_GROWTH: u64 = 32 << 20;

/// Everything that a hostile request began has ended: 64*T1, T4, and as much again as a busy machine may need.
const OVER: Duration = Duration::from_secs(60);

/// What telephones got that they should not have.
type Faults = Arc<Mutex<Vec<String>>>;

#[derive(Clone, Copy, Debug)]
struct Probe {
    took: Duration,
    /// Hostile messages sent meanwhile.
    passed: usize,
}

/// OPTIONS from a peer's socket, one after the other.
struct Probes {
    sent: Arc<AtomicUsize>,
    closing: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Probe>>,
}

impl Probes {
    fn begin(site: &Site, sent: &Arc<AtomicUsize>) -> Self {
        let (sent, closing) = (Arc::clone(sent), Arc::new(AtomicBool::new(false)));
        let way = Way { from: at(site.carrier(), 5_071), ..way(site, site.carrier(), "ping") };
        let thread = std::thread::spawn({
            let (sent, closing) = (Arc::clone(&sent), Arc::clone(&closing));
            move || {
                let socket = peer_socket(way.from);
                let mut probes = Vec::new();
                while !closing.load(Ordering::Relaxed) {
                    probes.push(probe(&socket, way, probes.len(), &sent));
                    std::thread::sleep(Duration::from_millis(25));
                }
                probes
            }
        });
        Self { sent, closing, thread }
    }

    /// Of a hundred the slowest but one, after nobody was kept waiting.
    fn end(self) -> Duration {
        self.closing.store(true, Ordering::Relaxed);
        let mut probes = self.thread.join().expect("the probes' thread");
        let late = probes.iter().filter(|probe| probe.passed > PROMPT).count();
        assert_eq!(late, 0, "of {} probes, {} messages", probes.len(), self.sent.load(Ordering::Relaxed));
        probes.sort_by_key(|probe| probe.took);
        probes[probes.len() * 99 / 100].took
    }
}

fn probe(socket: &UdpSocket, way: Way<'_>, serial: usize, sent: &AtomicUsize) -> Probe {
    let octets = Draft::request("OPTIONS", serial, way).to_bytes();
    let (before, began) = (sent.load(Ordering::Relaxed), Instant::now());
    socket.send_to(&octets, way.gateway).expect("a datagram leaves");
    let call_id = format!("h{serial}@");
    let mut buffer = [0; 4_096];
    loop {
        let length = socket.recv(&mut buffer).expect("an answer to a probe");
        let answer = Message::parse(&buffer[..length]).expect("an answer");
        if answer.call_id().starts_with(&call_id) {
            assert_eq!(answer.status(), Some(200), "{answer:?}");
            return Probe { took: began.elapsed(), passed: sent.load(Ordering::Relaxed) - before };
        }
    }
}

fn at(address: SocketAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), port)
}

fn way<'a>(site: &Site, from: SocketAddr, to: &'a str) -> Way<'a> {
    Way { from, gateway: site.gateway(), transport: "UDP", to }
}

fn peer_socket(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(address).expect("a free port");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a read timeout");
    socket
}

/// Stands before a telephone: looks at every message, and refuses every call but the one that is up. A call
/// that says which response it wants spoilt gets that one first.
fn door(faults: &Faults, own: &Call) -> Door {
    let (faults, own) = (Arc::clone(faults), own.invite().call_id().to_owned());
    Box::new(move |octets| {
        if let Some(fault) = fault(octets) {
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
    let wanted = invite.header("X-Spoil").and_then(|index| index.parse().ok()).map(Spoiling);
    let spoilt = wanted.map(|spoiling| {
        let mut draft = response(invite, "183", "Session Progress");
        draft.describe(([127, 0, 0, 1], 39_998).into());
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

/// Hostile requests by every way: datagrams of both peers and of a stranger, and streams.
fn bombard(site: &Site, sent: &AtomicUsize, mut between: impl FnMut()) {
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
        let octets = draft.to_bytes();
        if by_stream {
            streams.extend(stream(way, &octets));
            streams.drain(..streams.len().saturating_sub(LEFT_OPEN));
        } else {
            socket.send_to(&octets, way.gateway).expect("a datagram leaves");
        }
        if serial % 8 == 0 {
            stranger.send_to(&octets, way.gateway).expect("a datagram leaves");
        }
        sent.fetch_add(1, Ordering::Relaxed);
        if serial % BURST == 0 {
            std::thread::sleep(REST);
        }
        if serial % PROMPT == 0 {
            between();
        }
    }
    stranger.set_nonblocking(true).expect("a socket");
    assert!(stranger.recv(&mut [0; 64]).is_err(), "a stranger gets nothing");
}

/// A message on a stream of its own, if the gateway takes it.
fn stream(way: Way<'_>, octets: &[u8]) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&at(way.from, 0).into()).expect("a peer's address");
    socket.connect(&way.gateway.into()).ok()?;
    let mut stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    // The gateway may close the stream before it has read all.
    stream.write_all(octets).ok()?;
    Some(stream)
}

/// Requests within the call that is up, spoilt where it does not make them others.
fn disturb(site: &Site, call: &Call, sent: &AtomicUsize) {
    let from = at(site.carrier(), 5_073);
    let socket = peer_socket(from);
    let spoilings = HARMLESS.into_iter().flat_map(Spoiling::of_field);
    for (serial, spoiling) in spoilings.enumerate() {
        let request = call.next_request("INFO");
        let mut draft =
            Draft { start: request.start.split(' ').map(Into::into).collect(), ..Draft::default() };
        for (name, value) in &request.headers {
            let value = match name.as_str() {
                "Via" => format!("SIP/2.0/UDP {from};branch=z9hG4bK-i{serial};rport"),
                // No number is used up: that of the telephone's own next request is higher.
                "CSeq" => "1 INFO".to_owned(),
                _ => value.clone(),
            };
            draft.fields.push((name.as_bytes().to_vec(), value.into_bytes()));
        }
        spoiling.spoil(&mut draft);
        socket.send_to(&draft.to_bytes(), site.gateway()).expect("a datagram leaves");
        sent.fetch_add(1, Ordering::Relaxed);
        if serial % BURST == 0 {
            std::thread::sleep(REST);
        }
    }
}

/// Calls in order whose callee answers with spoilt responses.
fn be_answered_badly(site: &Site, sent: &AtomicUsize, faults: &Faults) {
    let way = way(site, at(site.carrier(), 5_072), UNLISTED);
    let socket = peer_socket(way.from);
    let mut buffer = vec![0; 65_536];
    for (serial, Spoiling(index)) in responses().enumerate() {
        let mut invite = Draft::request("INVITE", 1_000_000 + serial, way);
        invite.fields.push((b"X-Spoil".to_vec(), index.to_string().into_bytes()));
        socket.send_to(&invite.to_bytes(), way.gateway).expect("a datagram leaves");
        sent.fetch_add(1, Ordering::Relaxed);
        let call_id = format!("h{}@{}", 1_000_000 + serial, way.from.ip());
        loop {
            let length = socket.recv(&mut buffer).expect("a final response");
            if let Some(fault) = fault(&buffer[..length]) {
                faults
                    .lock()
                    .expect("no panic")
                    .push(format!("{fault} in {}", buffer[..length].escape_ascii()));
            }
            let Some(answer) = Message::parse(&buffer[..length]) else { continue };
            if answer.call_id() == call_id && answer.status() >= Some(300) {
                let mut ack = invite;
                ack.start[0] = b"ACK".to_vec();
                ack.lines.clear();
                ack.fields.retain(|(name, _)| {
                    !["To", "CSeq", "Content-Type"].iter().any(|it| name == it.as_bytes())
                });
                ack.fields.push((b"To".to_vec(), answer.header("To").unwrap_or_default().into()));
                ack.fields.push((b"CSeq".to_vec(), b"1 ACK".to_vec()));
                socket.send_to(&ack.to_bytes(), way.gateway).expect("a datagram leaves");
                break;
            }
        }
    }
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
        assert!(heard.breaks == 0 && heard.off <= 2 && heard.seconds() > 30.0, "{heard:?}");
        assert_eq!(call.media().strange_packets(), 0);
    }
    outgoing.bye();
    incoming.ended();
    let lasted = incoming.media().first_sent().elapsed().as_secs_f64();
    let own = outgoing.invite().call_id().to_owned();
    let is_own = |call: &serde_json::Value| {
        call["sip_call_ids"].as_array().is_some_and(|ids| ids.iter().any(|id| id == own.as_str()))
    };
    let call = eventually("the call's one closed record", Duration::from_secs(60), || {
        let mut own = site.calls().into_iter().filter(is_own);
        let call = own.next()?;
        assert!(own.next().is_none(), "one record a call");
        (!call["ended_at"].is_null()).then_some(call)
    });
    assert_eq!((text(&call["from"]), text(&call["to"]), text(&call["line"])), (CITIZEN, DISPATCH, DISPATCH));
    assert_eq!((text(&call["outcome"]), text(&call["ended_by"])), ("answered", "caller"), "{call}");
    assert_eq!((&call["final_status"], &call["transfers"]), (&200.into(), &0.into()), "{call}");
    for leg in ["a", "b"] {
        assert_eq!((&call["media"][leg]["codec"], &call["media"][leg]["lost"]), (&"PCMU".into(), &0.into()));
    }
    let recording = site.sealed_recording(&call);
    assert!((number(&recording["duration_s"]) - lasted).abs() < 0.3, "{recording} of {lasted} s");
    assert!(site.run(["recordings", "verify"]).status.success());
}

/// The doors keep what they would not let in.
fn guard(phones: [(&Phone, &Call); 2], faults: &Faults) {
    for (phone, own) in phones {
        phone.set_door(door(faults, own));
    }
}

#[test]
fn thousands_of_spoilt_messages_disturb_no_call_and_reach_nobody_raw() {
    let site = Site::new();
    let mut gateway = site.start();
    let (carrier, pbx) = (site.carrier_phone(), site.pbx_phone());
    let (outgoing, incoming) = talk(&carrier, &pbx, DISPATCH, CITIZEN);
    let faults = Faults::default();
    guard([(&carrier, &outgoing), (&pbx, &incoming)], &faults);

    let sent = Arc::new(AtomicUsize::new(0));
    let (before, alive_before) = (gateway.resident_bytes(), alive(&gateway));

    let (began, starved) = (Instant::now(), gateway.starved());
    let probes = Probes::begin(&site, &sent);
    let mut most = before;
    bombard(&site, &sent, || most = most.max(gateway.resident_bytes()));
    disturb(&site, &outgoing, &sent);
    be_answered_badly(&site, &sent, &faults);
    most = most.max(gateway.resident_bytes());
    let slowest = probes.end();
    assert!(sent.load(Ordering::Relaxed) >= 4_000, "{sent:?}");
    let starved = (gateway.starved() - starved).as_secs_f64() / began.elapsed().as_secs_f64();
    assert!(slowest < QUICK || starved > STARVED, "{slowest:?}, and {starved:.3} of the time without a core");
    gateway.lives();

    eventually("an end of all that they began", OVER, || (alive(&gateway) == alive_before).then_some(()));
    let last = gateway.resident_bytes();
    println!(
        "{sent:?} messages; probes {slowest:?}, starved {starved:.3}; resident {before}, {most}, {last}"
    );
    assert!(most - before < WORST_GROWTH, "{before} bytes, then {most}");
    assert!(last.saturating_sub(before) < LAST_GROWTH, "{before} bytes, then {most}, at last {last}");

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
    assert!(!site.log().contains("panicked"), "{}", site.log());
    gateway.lives();
}
