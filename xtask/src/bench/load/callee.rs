//! The telephone that answers.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Agenda, CallName, RTP_PORT, T1, T2, bind, description, response, rtp_address};
use crate::steps::Failure;

/// Rings at once, and answers every call after a time of its own.
pub(in crate::bench) struct Callee {
    address: SocketAddr,
    calls: Arc<Mutex<BTreeMap<CallName, Incoming>>>,
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// When a call came, and when its 200 was first sent.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) invited: Instant,
    pub(super) answered: Option<Instant>,
}

struct Incoming {
    times: Times,
    rtp: Option<SocketAddr>,
    answer: String,
    back: SocketAddr,
    acknowledged: bool,
}

/// A 200 that is due, at first or again.
struct Due {
    call: CallName,
    wait: Duration,
}

struct Answering {
    socket: UdpSocket,
    address: SocketAddr,
    answer_after: Duration,
    calls: Arc<Mutex<BTreeMap<CallName, Incoming>>>,
    answers: Agenda<Due>,
}

impl Callee {
    /// Listens at `address`; answers `answer_after` it began to ring.
    pub(in crate::bench) fn start(address: SocketAddr, answer_after: Duration) -> Result<Self, Failure> {
        let calls = Arc::new(Mutex::new(BTreeMap::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let mut answering = Answering {
            socket: bind(address)?,
            address,
            answer_after,
            calls: Arc::clone(&calls),
            answers: Agenda::new(),
        };
        let stop = Arc::clone(&ended);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stop.load(Ordering::Relaxed) {
                answering.turn(&mut buffer);
            }
        });
        Ok(Self { address, calls, ended, thread })
    }

    /// Our address, and the gateway's for each call.
    pub(in crate::bench) fn media(&self) -> (SocketAddr, Vec<SocketAddr>) {
        let gateway = lock(&self.calls).values().filter_map(|call| call.rtp).collect();
        (SocketAddr::new(self.address.ip(), RTP_PORT), gateway)
    }

    /// When a call came and was answered; `None` if it never came.
    pub(super) fn times(&self, call: CallName) -> Option<Times> {
        lock(&self.calls).get(&call).map(|incoming| incoming.times)
    }

    /// Ends its thread.
    pub(in crate::bench) fn stop(self) {
        self.ended.store(true, Ordering::Relaxed);
        // A panic in it has already been printed.
        let _ = self.thread.join();
    }
}

impl Answering {
    fn turn(&mut self, buffer: &mut [u8]) {
        self.answer_due();
        let Ok((length, from)) = self.socket.recv_from(buffer) else { return };
        let now = Instant::now();
        let request = String::from_utf8_lossy(&buffer[..length]);
        match request.split(' ').next() {
            Some("INVITE") => self.on_invite(now, &request, from),
            Some("ACK") => {
                let mut calls = lock(&self.calls);
                if let Some(call) = CallName::of(&request).and_then(|call| calls.get_mut(&call)) {
                    call.acknowledged = true;
                }
            }
            Some("SIP/2.0") | None => {}
            Some(_) => self.send(&response(&request, "200 OK", self.address, ""), from),
        }
    }

    fn on_invite(&mut self, now: Instant, invite: &str, back: SocketAddr) {
        let Some(call) = CallName::of(invite) else { return };
        self.send(&response(invite, "180 Ringing", self.address, ""), back);
        let mut calls = lock(&self.calls);
        if calls.contains_key(&call) {
            return;
        }
        let answer = response(invite, "200 OK", self.address, &description(self.address));
        let times = Times { invited: now, answered: None };
        let incoming = Incoming { times, rtp: rtp_address(invite), answer, back, acknowledged: false };
        calls.insert(call, incoming);
        self.answers.enter(now + self.answer_after, Due { call, wait: T1 });
    }

    fn answer_due(&mut self) {
        while let Some(due) = self.answers.take_due() {
            let mut calls = lock(&self.calls);
            let Some(call) = calls.get_mut(&due.call).filter(|call| !call.acknowledged) else { continue };
            let now = Instant::now();
            call.times.answered.get_or_insert(now);
            // What is lost shows as a call that does not get through.
            let _ = self.socket.send_to(call.answer.as_bytes(), call.back);
            self.answers.enter(now + due.wait, Due { wait: (due.wait * 2).min(T2), ..due });
        }
    }

    fn send(&self, message: &str, to: SocketAddr) {
        // As above.
        let _ = self.socket.send_to(message.as_bytes(), to);
    }
}

fn lock(calls: &Mutex<BTreeMap<CallName, Incoming>>) -> MutexGuard<'_, BTreeMap<CallName, Incoming>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}
