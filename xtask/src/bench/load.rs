//! The load: a telephone that calls, one that answers, and the packets between them. Loopback loses nothing,
//! so nothing is sent twice; a call that does not get through is counted as failed.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::steps::Failure;

const PATIENCE: Duration = Duration::from_secs(15);
/// Where a telephone at any address wants its RTP.
const RTP_PORT: u16 = 40_000;
/// A packet's time is cut into this many parts, so that calls do not all speak at the same instant.
const PARTS: u32 = 4;
const PACKET_TIME: Duration = Duration::from_millis(20);
const FRAME: usize = 160;

/// Answers every call at once.
pub(super) struct Callee {
    address: SocketAddr,
    media: Arc<Mutex<BTreeMap<String, SocketAddr>>>,
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Callee {
    /// Listens at `address`.
    pub(super) fn start(address: SocketAddr) -> Result<Self, Failure> {
        let socket = bind(address)?;
        let media = Arc::new(Mutex::new(BTreeMap::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (media, ended) = (Arc::clone(&media), Arc::clone(&ended));
            move || answer_calls(&socket, address, &media, &ended)
        });
        Ok(Self { address, media, ended, thread })
    }

    /// Our address, and the gateway's for each call.
    pub(super) fn media(&self) -> (SocketAddr, Vec<SocketAddr>) {
        let media = self.media.lock().unwrap_or_else(PoisonError::into_inner);
        (SocketAddr::new(self.address.ip(), RTP_PORT), media.values().copied().collect())
    }

    /// Ends its thread.
    pub(super) fn stop(self) {
        self.ended.store(true, Ordering::Relaxed);
        // A panic in it has already been printed.
        let _ = self.thread.join();
    }
}

fn answer_calls(
    socket: &UdpSocket,
    address: SocketAddr,
    media: &Mutex<BTreeMap<String, SocketAddr>>,
    ended: &AtomicBool,
) {
    let mut buffer = vec![0; 65_536];
    while !ended.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let request = String::from_utf8_lossy(&buffer[..length]);
        let responses = match request.split(' ').next() {
            Some("INVITE") => {
                if let (Some(id), Some(rtp)) = (field(&request, "Call-ID"), rtp_address(&request)) {
                    media.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), rtp);
                }
                vec![
                    response(&request, "180 Ringing", address, ""),
                    response(&request, "200 OK", address, &description(address)),
                ]
            }
            Some("ACK") | None => Vec::new(),
            Some(_) => vec![response(&request, "200 OK", address, "")],
        };
        for response in responses {
            // What is lost shows as a call that does not get through.
            let _ = socket.send_to(response.as_bytes(), from);
        }
    }
}

/// Places calls.
pub(super) struct Caller {
    socket: UdpSocket,
    address: SocketAddr,
    gateway: SocketAddr,
    /// Tells the calls of this telephone from those of others at the same address.
    session: u128,
    placed: u32,
    calls: BTreeMap<String, Dialog>,
    completed: u32,
    failed: u32,
}

struct Dialog {
    target: String,
    to: String,
    rtp: Option<SocketAddr>,
    answered_at: Option<Instant>,
    leaving: bool,
}

impl Caller {
    /// Listens at `address`, calls through `gateway`.
    pub(super) fn new(address: SocketAddr, gateway: SocketAddr) -> Result<Self, Failure> {
        let socket = bind(address)?;
        let session = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros());
        Ok(Self {
            socket,
            address,
            gateway,
            session,
            placed: 0,
            calls: BTreeMap::new(),
            completed: 0,
            failed: 0,
        })
    }

    /// Places `count` calls at `rate` a second, each ended `hold` after its answer; how many were completed.
    pub(super) fn calls(
        &mut self,
        line: &str,
        count: u32,
        rate: u32,
        hold: Duration,
    ) -> Result<u32, Failure> {
        let began = Instant::now();
        let mut deadline = began + PATIENCE;
        while self.completed + self.failed < count && Instant::now() < deadline {
            if self.place_due(line, count, rate, began)? {
                deadline = Instant::now() + PATIENCE;
            }
            self.leave_after(hold)?;
            self.listen()?;
        }
        Ok(self.completed)
    }

    /// Places `count` calls at `rate` a second and keeps them.
    pub(super) fn establish(&mut self, line: &str, count: u32, rate: u32) -> Result<(), Failure> {
        let began = Instant::now();
        let deadline = began + PATIENCE;
        while self.answered() < count as usize {
            if Instant::now() > deadline {
                return Err(Failure::check(format!("{} of {count} calls were answered", self.answered())));
            }
            self.place_due(line, count, rate, began)?;
            self.listen()?;
        }
        Ok(())
    }

    /// Ends all calls.
    pub(super) fn hang_up(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        let all = self.placed;
        while self.completed < all && Instant::now() < deadline {
            self.leave_after(Duration::ZERO)?;
            self.listen()?;
        }
        if self.completed == all { Ok(()) } else { Err(Failure::check("calls could not be ended")) }
    }

    /// Our RTP address, and the gateway's for each call.
    pub(super) fn media(&self) -> (SocketAddr, Vec<SocketAddr>) {
        let gateway = self.calls.values().filter_map(|dialog| dialog.rtp).collect();
        (SocketAddr::new(self.address.ip(), RTP_PORT), gateway)
    }

    fn answered(&self) -> usize {
        self.calls.values().filter(|dialog| dialog.answered_at.is_some()).count()
    }

    /// Places the calls that are due; whether there were any.
    fn place_due(&mut self, line: &str, count: u32, rate: u32, began: Instant) -> Result<bool, Failure> {
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u32 + 1;
        let before = self.placed;
        while self.placed < due.min(count) {
            self.placed += 1;
            let id = format!("{}-{}", self.placed, self.session);
            let target = format!("sip:{line}@{}", self.gateway);
            let dialog =
                Dialog { to: format!("<{target}>"), target, rtp: None, answered_at: None, leaving: false };
            let invite = self.request("INVITE", 1, &id, &dialog, &description(self.address));
            self.send(&invite)?;
            self.calls.insert(id, dialog);
        }
        Ok(self.placed > before)
    }

    fn leave_after(&mut self, hold: Duration) -> Result<(), Failure> {
        let due: Vec<String> = self
            .calls
            .iter()
            .filter(|(_, dialog)| {
                !dialog.leaving && dialog.answered_at.is_some_and(|at| at.elapsed() >= hold)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            if let Some(dialog) = self.calls.get_mut(&id) {
                dialog.leaving = true;
            }
            if let Some(dialog) = self.calls.get(&id) {
                self.send(&self.request("BYE", 2, &id, dialog, ""))?;
            }
        }
        Ok(())
    }

    fn listen(&mut self) -> Result<(), Failure> {
        let mut buffer = vec![0; 65_536];
        let Ok((length, _)) = self.socket.recv_from(&mut buffer) else { return Ok(()) };
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let Some(status) = message.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)) else {
            // A request within the call, an UPDATE for example.
            return self.send(&response(&message, "200 OK", self.address, ""));
        };
        let id = field(&message, "Call-ID").unwrap_or_default().to_owned();
        let method = field(&message, "CSeq").and_then(|cseq| cseq.split(' ').nth(1)).unwrap_or_default();
        match (method, status.as_bytes().first()) {
            (_, Some(b'1') | None) => {}
            ("INVITE", Some(b'2')) => self.on_answer(&id, &message)?,
            ("BYE", _) => {
                self.completed += u32::from(self.calls.remove(&id).is_some());
            }
            _ => self.failed += u32::from(self.calls.remove(&id).is_some()),
        }
        Ok(())
    }

    fn on_answer(&mut self, id: &str, message: &str) -> Result<(), Failure> {
        let Some(dialog) = self.calls.get_mut(id) else { return Ok(()) };
        let contact = field(message, "Contact").unwrap_or_default();
        let uri = contact.split_once('<').map_or(contact, |(_, rest)| rest);
        dialog.target = uri.split('>').next().unwrap_or(uri).to_owned();
        dialog.to = field(message, "To").unwrap_or_default().to_owned();
        dialog.rtp = rtp_address(message);
        dialog.answered_at.get_or_insert_with(Instant::now);
        let dialog = &self.calls[id];
        self.send(&self.request("ACK", 1, id, dialog, ""))
    }

    fn request(&self, method: &str, cseq: u32, id: &str, dialog: &Dialog, body: &str) -> String {
        let address = self.address;
        let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK-{id}-{method};rport\r\n\
             From: <sip:+18605550123@{address}>;tag={id}\r\nTo: {}\r\nCall-ID: {id}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:bench@{address}>\r\nMax-Forwards: 70\r\n\
             {content}Content-Length: {}\r\n\r\n{body}",
            dialog.target,
            dialog.to,
            body.len()
        )
    }

    fn send(&self, message: &str) -> Result<(), Failure> {
        self.socket
            .send_to(message.as_bytes(), self.gateway)
            .map(drop)
            .map_err(|error| Failure::check(format!("cannot send: {error}")))
    }
}

/// RTP both ways in all calls until stopped.
pub(super) struct Packets {
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Packets {
    /// Each side: its own RTP address, and where it sends to.
    pub(super) fn start(
        caller: &(SocketAddr, Vec<SocketAddr>),
        callee: &(SocketAddr, Vec<SocketAddr>),
    ) -> Result<Self, Failure> {
        let [sent, received] = [0, 0].map(|zero| Arc::new(AtomicU64::new(zero)));
        let ended = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        let mut sides = Vec::new();
        for (own, targets) in [caller, callee] {
            let socket = Arc::new(bind(*own)?);
            sides.push((Arc::clone(&socket), targets.clone()));
            let (received, ended) = (Arc::clone(&received), Arc::clone(&ended));
            threads.push(std::thread::spawn(move || count(&socket, &received, &ended)));
        }
        let (counter, stop) = (Arc::clone(&sent), Arc::clone(&ended));
        threads.push(std::thread::spawn(move || speak(&sides, &counter, &stop)));
        Ok(Self { sent, received, ended, threads })
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn stop(self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads {
            // A panic in it has already been printed.
            let _ = thread.join();
        }
    }
}

fn count(socket: &UdpSocket, received: &AtomicU64, ended: &AtomicBool) {
    let mut buffer = [0; 2_048];
    while !ended.load(Ordering::Relaxed) {
        if socket.recv_from(&mut buffer).is_ok() {
            received.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn speak(sides: &[(Arc<UdpSocket>, Vec<SocketAddr>)], sent: &AtomicU64, ended: &AtomicBool) {
    let voice = voice();
    let mut due = Instant::now();
    let mut tick = 0_u32;
    while !ended.load(Ordering::Relaxed) {
        due += PACKET_TIME / PARTS;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let sequence = tick / PARTS;
        let start = sequence as usize * FRAME % voice.len();
        for (socket, targets) in sides {
            for (call, target) in (0_u32..).zip(targets).filter(|(call, _)| call % PARTS == tick % PARTS) {
                let packet = rtp(sequence, call, &voice[start..start + FRAME]);
                sent.fetch_add(u64::from(socket.send_to(&packet, target).is_ok()), Ordering::Relaxed);
            }
        }
        tick += 1;
    }
}

/// A packet of RFC 3550 §5.1 with µ-law.
fn rtp(sequence: u32, call: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&(sequence as u16).to_be_bytes());
    packet.extend_from_slice(&sequence.wrapping_mul(FRAME as u32).to_be_bytes());
    packet.extend_from_slice(&(0xBE00_0000 | call).to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// A second of something like a vowel, louder and softer four times, so that the encoder has work to do.
fn voice() -> Vec<u8> {
    let sample = |at: u32| {
        let time = f64::from(at) / 8_000.0;
        let tone = |hz: f64| (std::f64::consts::TAU * hz * time).sin();
        let vowel: f64 =
            (1..16).map(|harmonic| tone(140.0 * f64::from(harmonic)) / f64::from(harmonic)).sum();
        (vowel * (1.2 + tone(4.0)) * 3_000.0) as i16
    };
    (0..8_000).map(|at| ulaw(sample(at))).collect()
}

/// µ-law of ITU-T G.711.
fn ulaw(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = (i32::from(sample).abs() + 0x84).min(0x7FFF);
    let exponent = 7 - magnitude.leading_zeros().saturating_sub(17).min(7);
    let mantissa = (magnitude >> (exponent + 3)) & 0x0F;
    !(sign | (exponent << 4) as u8 | mantissa as u8)
}

fn bind(address: SocketAddr) -> Result<UdpSocket, Failure> {
    let socket = UdpSocket::bind(address)
        .map_err(|error| Failure::check(format!("cannot listen at {address}: {error}")))?;
    socket
        .set_read_timeout(Some(Duration::from_millis(2)))
        .map_err(|error| Failure::check(format!("cannot set a timeout at {address}: {error}")))?;
    Ok(socket)
}

fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.lines().take_while(|line| !line.is_empty()).find_map(|line| {
        let (present, value) = line.split_once(':')?;
        present.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn response(request: &str, status: &str, address: SocketAddr, body: &str) -> String {
    let mut text = format!("SIP/2.0 {status}\r\n");
    for line in request.lines().take_while(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default();
        if ["Via", "From", "Call-ID", "CSeq"].iter().any(|copied| name.eq_ignore_ascii_case(copied)) {
            text.push_str(&format!("{line}\r\n"));
        }
    }
    let to = field(request, "To").unwrap_or_default();
    let tag = if to.contains(";tag=") { "" } else { ";tag=bench" };
    let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    text.push_str(&format!(
        "To: {to}{tag}\r\nContact: <sip:bench@{address}>\r\n{content}Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    text
}

fn description(address: SocketAddr) -> String {
    let host = address.ip();
    format!(
        "v=0\r\no=bench 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n\
         m=audio {RTP_PORT} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=ptime:20\r\n"
    )
}

/// Where a message's session description wants audio.
fn rtp_address(message: &str) -> Option<SocketAddr> {
    let host = message.lines().find_map(|line| line.strip_prefix("c=IN IP4 "))?;
    let port = message.lines().find_map(|line| line.strip_prefix("m=audio "))?.split(' ').next()?;
    Some(SocketAddr::new(host.trim().parse().ok()?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a gateway between them: the load itself loses no call and no packet.
    #[test]
    fn the_telephones_understand_each_other() -> Result<(), Failure> {
        let network = (std::process::id() % 250) as u8;
        let address = |host| SocketAddr::from(([127, 76, network, host], 5060));
        let callee = Callee::start(address(2))?;
        let mut caller = Caller::new(address(3), address(2))?;
        assert_eq!(caller.calls("+18607427399", 20, 100, Duration::from_millis(10))?, 20);
        let mut caller = Caller::new(address(4), address(2))?;
        caller.establish("+18607427399", 5, 100)?;
        let packets = Packets::start(&caller.media(), &callee.media())?;
        std::thread::sleep(Duration::from_millis(500));
        packets.ended.store(true, Ordering::Relaxed);
        assert!(packets.sent() > 100, "{}", packets.sent());
        packets.stop();
        caller.hang_up()?;
        callee.stop();
        Ok(())
    }
}
