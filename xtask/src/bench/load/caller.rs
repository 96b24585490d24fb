//! The telephone that calls.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant, UNIX_EPOCH};

use super::{
    Agenda, CALL, CallName, Callee, RTP_PORT, T1, T2, bind, description, field, fields, response,
    rtp_address, uri,
};
use crate::steps::Failure;

/// How long calls have to be answered or ended.
const PATIENCE: Duration = Duration::from_secs(15);
/// 64*T1: after this a request has failed (RFC 3261 §17.1).
const TIMEOUT: Duration = Duration::from_secs(32);

/// Places calls.
pub(in crate::bench) struct Caller {
    socket: UdpSocket,
    address: SocketAddr,
    gateway: SocketAddr,
    /// Tells the calls of this telephone from those of others at the same address.
    session: u128,
    calls: BTreeMap<u32, Dialog>,
    due: Agenda<Due>,
    tally: Tally,
    /// For each answered call, when its INVITE was sent and its 200 came.
    answers: Vec<(u32, Instant, Instant)>,
}

/// What became of the calls placed so far.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::bench) struct Tally {
    pub(in crate::bench) placed: u32,
    pub(in crate::bench) completed: u32,
    /// 503 with Retry-After.
    pub(in crate::bench) shed: u32,
    /// Any other refusal.
    pub(in crate::bench) refused: u32,
    /// Not answered at all within 32 s.
    pub(in crate::bench) unanswered: u32,
    /// Calls that the other side ended.
    pub(in crate::bench) cut: u32,
    /// Requests sent again.
    pub(in crate::bench) repeated: u32,
}

impl Tally {
    /// Calls that did not come to the end that their caller wished.
    pub(in crate::bench) const fn failed(&self) -> u32 {
        self.shed + self.refused + self.unanswered + self.cut
    }
}

/// How long an INVITE and a 200 took from one telephone to the other.
#[derive(Clone, Copy)]
pub(in crate::bench) struct Delay {
    pub(in crate::bench) post_dial: Duration,
    pub(in crate::bench) answer: Duration,
}

struct Dialog {
    target: String,
    to: String,
    routes: String,
    rtp: Option<SocketAddr>,
    hold: Option<Duration>,
    invited: Instant,
    /// Whether anything has come back for the INVITE.
    heard: bool,
    answered: bool,
    leaving: bool,
}

enum Due {
    Leave(u32),
    Repeat { call: u32, method: Method, wait: Duration, until: Instant },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Invite,
    Bye,
}

impl Caller {
    /// Listens at `address`, calls through `gateway`.
    pub(in crate::bench) fn new(address: SocketAddr, gateway: SocketAddr) -> Result<Self, Failure> {
        let socket = bind(address)?;
        let session = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros());
        Ok(Self {
            socket,
            address,
            gateway,
            session,
            calls: BTreeMap::new(),
            due: Agenda::new(),
            tally: Tally::default(),
            answers: Vec::new(),
        })
    }

    /// Places calls at `rate` a second for `time`, each to be ended `hold` after its answer, and returns with
    /// the last of them still in progress.
    pub(in crate::bench) fn place(
        &mut self,
        line: &str,
        rate: u32,
        time: Duration,
        hold: Duration,
    ) -> Result<(), Failure> {
        let (began, count) = (Instant::now(), (time.as_secs_f64() * f64::from(rate)).round() as u32);
        let before = self.tally.placed;
        while began.elapsed() < time || self.tally.placed < before + count {
            self.place_due(line, before, count, rate, began, Some(hold))?;
            self.turn()?;
        }
        Ok(())
    }

    /// Waits until every call placed by [`Self::place`] has come to an end.
    pub(in crate::bench) fn settle(&mut self) -> Result<(), Failure> {
        while self.calls.values().any(|dialog| dialog.hold.is_some()) {
            self.turn()?;
        }
        Ok(())
    }

    /// Places `count` calls at `rate` a second and keeps them.
    pub(in crate::bench) fn establish(&mut self, line: &str, count: u32, rate: u32) -> Result<(), Failure> {
        let began = Instant::now();
        while self.in_progress() < count as usize {
            if began.elapsed() > PATIENCE {
                return Err(Failure::check(format!("{} of {count} calls were answered", self.in_progress())));
            }
            self.place_due(line, 0, count, rate, began, None)?;
            self.turn()?;
        }
        Ok(())
    }

    /// Ends all calls.
    pub(in crate::bench) fn hang_up(&mut self) -> Result<(), Failure> {
        let began = Instant::now();
        let open: Vec<u32> = self.calls.keys().copied().collect();
        for call in open {
            self.leave(call)?;
        }
        while !self.calls.is_empty() && began.elapsed() < PATIENCE {
            self.turn()?;
        }
        if self.calls.is_empty() { Ok(()) } else { Err(Failure::check("calls could not be ended")) }
    }

    /// Takes in what came and does what is due, for a glance.
    pub(in crate::bench) fn turn(&mut self) -> Result<(), Failure> {
        while let Some(due) = self.due.take_due() {
            match due {
                Due::Leave(call) => self.leave(call)?,
                Due::Repeat { call, method, wait, until } => self.repeat(call, method, wait, until)?,
            }
        }
        self.listen()
    }

    /// What became of the calls.
    pub(in crate::bench) const fn tally(&self) -> Tally {
        self.tally
    }

    /// Calls that are answered and not ended.
    pub(in crate::bench) fn in_progress(&self) -> usize {
        self.calls.values().filter(|dialog| dialog.answered).count()
    }

    /// How long INVITE and 200 took, for every call answered so far.
    pub(in crate::bench) fn delays(&self, callee: &Callee) -> Vec<Delay> {
        let of = |(call, invited, answered): &(u32, Instant, Instant)| {
            let times = callee.times(CallName { session: self.session, number: *call })?;
            let post_dial = times.invited.duration_since(*invited);
            Some(Delay { post_dial, answer: answered.duration_since(times.answered?) })
        };
        self.answers.iter().filter_map(of).collect()
    }

    /// Our RTP address, and the gateway's for each call.
    pub(in crate::bench) fn media(&self) -> (SocketAddr, Vec<SocketAddr>) {
        let gateway = self.calls.values().filter_map(|dialog| dialog.rtp).collect();
        (SocketAddr::new(self.address.ip(), RTP_PORT), gateway)
    }

    /// Places the calls that are due.
    fn place_due(
        &mut self,
        line: &str,
        before: u32,
        count: u32,
        rate: u32,
        began: Instant,
        hold: Option<Duration>,
    ) -> Result<(), Failure> {
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u32 + 1;
        while self.tally.placed - before < due.min(count) {
            self.tally.placed += 1;
            let call = self.tally.placed;
            let target = format!("sip:{line}@{}", self.gateway);
            let dialog = Dialog {
                to: format!("<{target}>"),
                target,
                routes: String::new(),
                rtp: None,
                hold,
                invited: Instant::now(),
                heard: false,
                answered: false,
                leaving: false,
            };
            self.send(&self.request("INVITE", 1, call, &dialog, &description(self.address)))?;
            self.calls.insert(call, dialog);
            self.schedule_repeat(call, Method::Invite, T1, Instant::now() + TIMEOUT);
        }
        Ok(())
    }

    fn leave(&mut self, call: u32) -> Result<(), Failure> {
        let Some(dialog) = self.calls.get_mut(&call).filter(|dialog| !dialog.leaving) else { return Ok(()) };
        dialog.leaving = true;
        let dialog = &self.calls[&call];
        self.send(&self.request("BYE", 2, call, dialog, ""))?;
        self.schedule_repeat(call, Method::Bye, T1, Instant::now() + TIMEOUT);
        Ok(())
    }

    fn repeat(&mut self, call: u32, method: Method, wait: Duration, until: Instant) -> Result<(), Failure> {
        let Some(dialog) = self.calls.get(&call) else { return Ok(()) };
        if Instant::now() >= until {
            let done = method == Method::Invite && dialog.answered;
            if !done {
                self.calls.remove(&call);
                self.tally.unanswered += 1;
            }
            return Ok(());
        }
        match method {
            Method::Invite if dialog.heard => {
                // Only the end of our patience is waited for.
                if !dialog.answered {
                    self.due.enter(until, Due::Repeat { call, method, wait, until });
                }
                return Ok(());
            }
            Method::Invite => {
                self.send(&self.request("INVITE", 1, call, dialog, &description(self.address)))?;
            }
            Method::Bye => self.send(&self.request("BYE", 2, call, dialog, ""))?,
        }
        self.tally.repeated += 1;
        let wait = if method == Method::Invite { wait * 2 } else { (wait * 2).min(T2) };
        self.schedule_repeat(call, method, wait, until);
        Ok(())
    }

    fn schedule_repeat(&mut self, call: u32, method: Method, wait: Duration, until: Instant) {
        self.due.enter((Instant::now() + wait).min(until), Due::Repeat { call, method, wait, until });
    }

    fn listen(&mut self) -> Result<(), Failure> {
        let mut buffer = [0; 8_192];
        let Ok((length, _)) = self.socket.recv_from(&mut buffer) else { return Ok(()) };
        let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let Some(status) = message.strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)) else {
            return self.on_request(&message);
        };
        let Some(call) = self.call_of(&message) else { return Ok(()) };
        let method = field(&message, "CSeq").and_then(|cseq| cseq.split(' ').nth(1)).unwrap_or_default();
        match (method, status.as_bytes().first()) {
            ("INVITE", Some(b'1')) => {
                if let Some(dialog) = self.calls.get_mut(&call) {
                    dialog.heard = true;
                }
            }
            ("INVITE", Some(b'2')) => self.on_answer(call, &message)?,
            ("INVITE", _) => self.on_refusal(call, status, &message)?,
            (_, Some(b'1') | None) => {}
            (_, Some(b'2')) => self.tally.completed += u32::from(self.calls.remove(&call).is_some()),
            (_, _) => self.tally.cut += u32::from(self.calls.remove(&call).is_some()),
        }
        Ok(())
    }

    /// Which of our calls a message belongs to: on our leg the Call-ID is ours.
    fn call_of(&self, message: &str) -> Option<u32> {
        let name = CallName::read(field(message, "Call-ID")?)?;
        (name.session == self.session).then_some(name.number)
    }

    /// A request within a call: an UPDATE for example, or its end.
    fn on_request(&mut self, message: &str) -> Result<(), Failure> {
        if message.starts_with("BYE ") {
            let call = self.call_of(message);
            self.tally.cut += u32::from(call.and_then(|call| self.calls.remove(&call)).is_some());
        }
        if message.starts_with("ACK ") {
            return Ok(());
        }
        self.send(&response(message, "200 OK", self.address, ""))
    }

    fn on_answer(&mut self, call: u32, message: &str) -> Result<(), Failure> {
        let now = Instant::now();
        let Some(dialog) = self.calls.get_mut(&call) else { return Ok(()) };
        if !std::mem::replace(&mut dialog.answered, true) {
            dialog.heard = true;
            dialog.target = uri(field(message, "Contact").unwrap_or_default()).to_owned();
            dialog.to = field(message, "To").unwrap_or_default().to_owned();
            dialog.rtp = rtp_address(message);
            let routes: Vec<&str> = fields(message, "Record-Route").collect();
            dialog.routes = routes.iter().rev().map(|route| format!("Route: {route}\r\n")).collect();
            self.answers.push((call, dialog.invited, now));
            if let Some(hold) = dialog.hold {
                self.due.enter(now + hold, Due::Leave(call));
            }
        }
        self.send(&self.request("ACK", 1, call, &self.calls[&call], ""))
    }

    /// The ACK of a failure is of the INVITE's transaction (RFC 3261 §17.1.1.3).
    fn on_refusal(&mut self, call: u32, status: &str, message: &str) -> Result<(), Failure> {
        let Some(mut dialog) = self.calls.remove(&call) else { return Ok(()) };
        match status {
            "503" if field(message, "Retry-After").is_some() => self.tally.shed += 1,
            _ => self.tally.refused += 1,
        }
        dialog.to = field(message, "To").unwrap_or_default().to_owned();
        let ack = self.request("ACK", 1, call, &dialog, "");
        self.send(&ack.replace("-ACK;rport", "-INVITE;rport"))
    }

    fn request(&self, method: &str, cseq: u32, call: u32, dialog: &Dialog, body: &str) -> String {
        let (address, name) = (self.address, CallName { session: self.session, number: call });
        // One caller who calls one number that often would be taken for a loop.
        let caller = call % 10_000;
        let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {address};branch=z9hG4bK-{name}-{method};rport\r\n\
             {}From: <sip:+1860555{caller:04}@{address}>;tag={call}\r\nTo: {}\r\nCall-ID: {name}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:bench@{address}>\r\nMax-Forwards: 70\r\n\
             {CALL}: {name}\r\n{content}Content-Length: {}\r\n\r\n{body}",
            dialog.target,
            dialog.routes,
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
