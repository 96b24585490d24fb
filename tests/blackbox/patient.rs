//! Telephones for a network that loses, doubles and reorders: any number of calls, each message repeated until it is
//! answered (RFC 3261 §17, §13.3.1.4; RFC 3262 §3), each repetition answered the same again.
//!
//! Every call is the same: a reliable 183 with the answer, PRACK, 2xx, a re-INVITE by the caller, BYE.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::message::{Message, describe};

const T1: Duration = Duration::from_millis(500);
const T2: Duration = Duration::from_secs(4);
const T1_64: Duration = Duration::from_secs(32);
/// Between an answer and what the caller does next.
const PAUSE: Duration = Duration::from_millis(400);
/// Beyond what the owner of a Call-ID waits after a 491 (RFC 3261 §14.1).
const AFTER_GLARE: Duration = Duration::from_millis(2_500);
const RTP_PORT: u16 = 40_000;

/// A message sent again and again until something answers it.
struct Repeated {
    bytes: Vec<u8>,
    interval: Duration,
    next: Instant,
    until: Instant,
}

impl Repeated {
    fn new(line: &Line, bytes: Vec<u8>) -> Self {
        line.send(&bytes);
        let now = Instant::now();
        Self { bytes, interval: T1, next: now + T1, until: now + T1_64 }
    }

    /// Sends it again if that is due; `false` once nobody has answered for 64*T1.
    fn again(&mut self, line: &Line) -> bool {
        let now = Instant::now();
        if now >= self.next {
            line.send(&self.bytes);
            self.interval = (self.interval * 2).min(T2);
            self.next = now + self.interval;
        }
        now < self.until
    }
}

/// A socket, and who is at the other end of everything.
struct Line {
    socket: UdpSocket,
    own: SocketAddr,
    to: Option<SocketAddr>,
}

impl Line {
    fn new(own: SocketAddr, to: Option<SocketAddr>) -> Self {
        let socket = UdpSocket::bind(own).expect("the telephone's address");
        socket.set_read_timeout(Some(Duration::from_millis(2))).expect("a read timeout");
        Self { socket, own, to }
    }

    fn send(&self, bytes: &[u8]) {
        let to = self.to.expect("somebody has been heard");
        self.socket.send_to(bytes, to).expect("a datagram leaves");
    }

    fn receive(&mut self) -> Option<Message> {
        let mut buffer = [0; 8_192];
        let (length, from) = self.socket.recv_from(&mut buffer).ok()?;
        self.to.get_or_insert(from);
        Some(Message::parse(&buffer[..length]).expect("a SIP message"))
    }

    fn described(&self, message: Message, version: u32) -> Message {
        let rtp = SocketAddr::new(self.own.ip(), RTP_PORT);
        let mut message = message.with("Content-Type", "application/sdp");
        message.body = describe(rtp, version, "sendrecv").into_bytes();
        message
    }

    fn contact(&self) -> String {
        format!("<sip:phone@{}>", self.own)
    }
}

/// Places calls.
pub(crate) struct Caller {
    line: Line,
    calls: BTreeMap<String, Outgoing>,
    failures: Vec<String>,
}

struct Outgoing {
    id: String,
    from: String,
    to: String,
    target: String,
    cseq: u32,
    /// Requests without a final answer, by CSeq number.
    open: BTreeMap<u32, Repeated>,
    /// ACKs of answered INVITEs, by CSeq number.
    acks: BTreeMap<u32, Vec<u8>>,
    /// RSeq numbers acknowledged, and PRACKs answered.
    acknowledged: Vec<u32>,
    pracks: usize,
    next: Option<(Instant, Next)>,
    until: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Reinvite,
    Bye,
}

impl Caller {
    /// At `own`; everything goes to `to`.
    pub(crate) fn new(own: SocketAddr, to: SocketAddr) -> Self {
        Self { line: Line::new(own, Some(to)), calls: BTreeMap::new(), failures: Vec::new() }
    }

    /// Places `count` calls to the first number from the second; what went wrong with those that failed.
    pub(crate) fn calls(mut self, numbers: (&str, &str), count: usize, a_second: u32) -> Vec<String> {
        let began = Instant::now();
        let mut placed = 0;
        while placed < count || !self.calls.is_empty() {
            let due = (began.elapsed().as_secs_f64() * f64::from(a_second)) as usize + 1;
            while placed < due.min(count) {
                placed += 1;
                self.place(placed, numbers);
            }
            while let Some(message) = self.line.receive() {
                self.on_message(&message);
            }
            self.on_time();
        }
        self.failures
    }

    fn place(&mut self, number: usize, (to, from): (&str, &str)) {
        let own = self.line.own;
        let id = format!("patient-{number}");
        let target = format!("sip:{to}@{}", self.line.to.expect("the gateway"));
        let mut call = Outgoing {
            from: format!("<sip:{from}@{own}>;tag=c{number}"),
            to: format!("<{target}>"),
            target,
            id: id.clone(),
            cseq: 0,
            open: BTreeMap::new(),
            acks: BTreeMap::new(),
            acknowledged: Vec::new(),
            pracks: 0,
            next: None,
            until: Instant::now() + 2 * T1_64,
        };
        call.invite(&self.line);
        self.calls.insert(id, call);
    }

    fn on_message(&mut self, message: &Message) {
        let Some(call) = self.calls.get_mut(message.call_id()) else { return };
        let ended = match message.status() {
            Some(status) => call.on_response(&self.line, status, message),
            None => Some(Err(format!("an unexpected {}", message.method()))),
        };
        self.settle(message.call_id(), ended);
    }

    fn on_time(&mut self) {
        let ids: Vec<String> = self.calls.keys().cloned().collect();
        for id in ids {
            let ended = self.calls.get_mut(&id).and_then(|call| call.on_time(&self.line));
            self.settle(&id, ended);
        }
    }

    fn settle(&mut self, id: &str, ended: Option<Result<(), String>>) {
        let Some(outcome) = ended else { return };
        self.calls.remove(id);
        if let Err(why) = outcome {
            self.failures.push(format!("{id}: {why}"));
        }
    }
}

impl Outgoing {
    fn request(&self, line: &Line, method: &str, cseq: u32) -> Message {
        let branch = format!("z9hG4bK-{}-{cseq}-{method}", self.id);
        Message { start: format!("{method} {} SIP/2.0", self.target), ..Message::default() }
            .with("Via", format!("SIP/2.0/UDP {};branch={branch}", line.own))
            .with("Max-Forwards", "70")
            .with("From", &*self.from)
            .with("To", &*self.to)
            .with("Call-ID", &*self.id)
            .with("CSeq", format!("{cseq} {method}"))
    }

    fn open(&mut self, line: &Line, cseq: u32, request: &Message) {
        self.open.insert(cseq, Repeated::new(line, request.to_bytes()));
    }

    fn invite(&mut self, line: &Line) {
        self.cseq += 1;
        let invite = self
            .request(line, "INVITE", self.cseq)
            .with("Contact", line.contact())
            .with("Supported", "100rel")
            .with("Allow", "INVITE, ACK, CANCEL, BYE, PRACK");
        self.open(line, self.cseq, &line.described(invite, self.cseq));
    }

    fn learn(&mut self, response: &Message) {
        self.to = response.header("To").expect("a To").to_owned();
        if let Some(contact) = response.contact() {
            self.target = contact;
        }
    }

    /// `Some` once the call is over.
    fn on_response(&mut self, line: &Line, status: u16, response: &Message) -> Option<Result<(), String>> {
        let (cseq, method) = response.cseq();
        match (method, status) {
            ("INVITE", 100..=199) => self.on_provisional(line, cseq, response),
            ("INVITE", 200) => self.on_answer(line, cseq, response),
            ("INVITE", 491 | 500) if self.acks.contains_key(&1) => {
                self.open.remove(&cseq);
                // On the INVITE's own branch (RFC 3261 §17.1.1.3).
                let ack = self.request(line, "ACK", cseq).to_bytes();
                let ack = String::from_utf8(ack).expect("text").replace("-ACK\r\n", "-INVITE\r\n");
                line.send(ack.as_bytes());
                self.next = Some((Instant::now() + AFTER_GLARE, Next::Reinvite));
            }
            ("PRACK", 200) => self.pracks += usize::from(self.open.remove(&cseq).is_some()),
            ("BYE", 200) if self.pracks == 0 => return Some(Err("no PRACK was answered".to_owned())),
            ("BYE", 200) if self.acks.len() < 2 => return Some(Err("no re-INVITE was answered".to_owned())),
            ("BYE", 200) => return Some(Ok(())),
            _ => return Some(Err(format!("{status} to {cseq} {method}"))),
        }
        None
    }

    fn on_provisional(&mut self, line: &Line, cseq: u32, response: &Message) {
        self.open.remove(&cseq);
        let rseq: Option<u32> = response.header("RSeq").and_then(|number| number.parse().ok());
        // One that comes late, behind the answer, wants no PRACK any more.
        let Some(rseq) = rseq.filter(|rseq| !self.acknowledged.contains(rseq) && self.acks.is_empty()) else {
            return;
        };
        self.learn(response);
        self.acknowledged.push(rseq);
        self.cseq += 1;
        let prack = self.request(line, "PRACK", self.cseq).with("RAck", format!("{rseq} {cseq} INVITE"));
        self.open(line, self.cseq, &prack);
    }

    fn on_answer(&mut self, line: &Line, cseq: u32, response: &Message) {
        self.open.remove(&cseq);
        if let Some(ack) = self.acks.get(&cseq) {
            return line.send(ack);
        }
        self.learn(response);
        let ack = self.request(line, "ACK", cseq).to_bytes();
        line.send(&ack);
        self.acks.insert(cseq, ack);
        let next = if self.acks.len() == 1 { Next::Reinvite } else { Next::Bye };
        self.next = Some((Instant::now() + PAUSE, next));
    }

    fn on_time(&mut self, line: &Line) -> Option<Result<(), String>> {
        for (cseq, request) in &mut self.open {
            if !request.again(line) {
                return Some(Err(format!("no answer to request {cseq}")));
            }
        }
        if Instant::now() > self.until {
            return Some(Err(format!("not over after {} requests", self.cseq)));
        }
        // A BYE would end a PRACK that is still under way (RFC 3261 §15.1.2).
        let may_leave = self.open.is_empty();
        let is_due = |(at, next): &mut (Instant, Next)| {
            *at <= Instant::now() && (may_leave || *next == Next::Reinvite)
        };
        let (_, next) = self.next.take_if(is_due)?;
        match next {
            Next::Reinvite => self.invite(line),
            Next::Bye => {
                self.cseq += 1;
                let bye = self.request(line, "BYE", self.cseq);
                self.open(line, self.cseq, &bye);
            }
        }
        None
    }
}

/// Answers calls.
pub(crate) struct Callee {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

#[derive(Default)]
struct Incoming {
    /// The 183 until its PRACK, then the 2xx until its ACK.
    provisional: Option<Repeated>,
    answer: Option<Repeated>,
    /// The INVITE until it is answered.
    invite: Option<Message>,
    /// The latest response to each request, by branch and method.
    replies: BTreeMap<(String, String), Vec<u8>>,
    changed: bool,
    over: bool,
}

impl Callee {
    /// Listens at `own`.
    pub(crate) fn start(own: SocketAddr) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let mut line = Line::new(own, None);
        let thread = std::thread::spawn({
            let ended = Arc::clone(&ended);
            move || {
                let mut calls: BTreeMap<String, Incoming> = BTreeMap::new();
                let mut failures = Vec::new();
                while !ended.load(Ordering::Relaxed) {
                    while let Some(message) = line.receive() {
                        let id = message.call_id().to_owned();
                        calls.entry(id).or_default().on_request(&line, &message, &mut failures);
                    }
                    calls.values_mut().for_each(|call| call.on_time(&line, &mut failures));
                }
                (calls.values().filter(|call| call.over && call.changed).count(), failures)
            }
        });
        Self { ended, thread }
    }

    /// How many calls came to their end with a re-INVITE, and what went wrong.
    pub(crate) fn stop(self) -> (usize, Vec<String>) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("the callee's thread")
    }
}

impl Incoming {
    fn on_request(&mut self, line: &Line, request: &Message, failures: &mut Vec<String>) {
        let key = (branch(request), request.method().to_owned());
        if let Some(reply) = self.replies.get(&key) {
            return line.send(reply);
        }
        match request.method() {
            "INVITE" if self.invite.is_none() && !self.over => {
                let first = self.replies.is_empty();
                let reply = if first { self.ring(line, request) } else { self.agree(line, request) };
                self.replies.insert(key, reply);
            }
            "PRACK" => {
                let ok = reply(request, "200 OK").to_bytes();
                line.send(&ok);
                self.replies.insert(key, ok);
                self.pick_up(line);
            }
            "ACK" => self.answer = None,
            "BYE" => {
                let ok = reply(request, "200 OK").to_bytes();
                line.send(&ok);
                self.replies.insert(key, ok);
                (self.provisional, self.answer, self.over) = (None, None, true);
            }
            other => failures.push(format!("an unexpected {other}")),
        }
    }

    fn ring(&mut self, line: &Line, invite: &Message) -> Vec<u8> {
        let progress = reply(invite, "183 Session Progress")
            .with("Contact", line.contact())
            .with("Require", "100rel")
            .with("RSeq", "1");
        let progress = line.described(progress, 1).to_bytes();
        self.provisional = Some(Repeated::new(line, progress.clone()));
        self.invite = Some(invite.clone());
        progress
    }

    /// The answer was in the 183.
    fn pick_up(&mut self, line: &Line) {
        self.provisional = None;
        let Some(invite) = self.invite.take() else { return };
        let ok = reply(&invite, "200 OK").with("Contact", line.contact()).to_bytes();
        self.replies.insert((branch(&invite), "INVITE".to_owned()), ok.clone());
        self.answer = Some(Repeated::new(line, ok));
    }

    fn agree(&mut self, line: &Line, invite: &Message) -> Vec<u8> {
        self.changed = true;
        let ok = line.described(reply(invite, "200 OK").with("Contact", line.contact()), 2).to_bytes();
        self.answer = Some(Repeated::new(line, ok.clone()));
        ok
    }

    fn on_time(&mut self, line: &Line, failures: &mut Vec<String>) {
        for (waits_for, repeated) in [("PRACK", &mut self.provisional), ("ACK", &mut self.answer)] {
            if repeated.as_mut().is_some_and(|repeated| !repeated.again(line)) {
                *repeated = None;
                failures.push(format!("no {waits_for}"));
            }
        }
    }
}

fn branch(request: &Message) -> String {
    let via = request.header("Via").unwrap_or_default();
    via.split("branch=").nth(1).and_then(|rest| rest.split(';').next()).unwrap_or_default().to_owned()
}

fn reply(request: &Message, status: &str) -> Message {
    let mut reply = Message { start: format!("SIP/2.0 {status}"), ..Message::default() };
    for name in ["Via", "From", "Call-ID", "CSeq"] {
        reply.headers.extend(request.all(name).map(|value| (name.to_owned(), value.to_owned())));
    }
    let to = request.header("To").unwrap_or_default();
    let tag = if to.contains(";tag=") { "" } else { ";tag=patient" };
    reply.with("To", format!("{to}{tag}"))
}
