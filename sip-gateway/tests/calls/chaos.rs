//! Seeded chaos: both ends, the hub and the network do anything at any time. Whatever happens, nothing
//! panics, what goes out is well-formed, each call ends exactly once (the world checks it at every event),
//! and nothing is left behind.

use std::collections::BTreeMap;

use consent::Side;
use sip_gateway::wire::{Message, Method};
use sip_gateway::{Command, Event};

use crate::world::*;

/// xorshift64*: plenty for choosing.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.roll(from.len())]
    }
}

const STATUSES: [&str; 13] = [
    "100 Trying",
    "180 Ringing",
    "183 Progress",
    "200 OK",
    "200 OK",
    "200 OK",
    "302 Moved",
    "404 No",
    "407 Proxy",
    "422 Too Small",
    "487 Terminated",
    "491 Pending",
    "503 Unavailable",
];
const METHODS: [&str; 12] =
    ["ACK", "ACK", "ACK", "BYE", "CANCEL", "INVITE", "UPDATE", "INFO", "REFER", "PRACK", "OPTIONS", "FOO"];

/// What callers ask for, and callees answer with, `#` an RSeq.
const CALLERS_TERMS: [&str; 4] = [
    "",
    "Supported: 100rel, timer\r\nAllow: UPDATE, PRACK\r\n",
    "Require: 100rel\r\n",
    "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\n",
];
const CALLEES_TERMS: [&str; 4] = [
    "",
    "Require: 100rel\r\nRSeq: #\r\n",
    "Session-Expires: 90;refresher=uac\r\n",
    "Allow: UPDATE\r\nSession-Expires: 120;refresher=uas\r\nMin-SE: 120\r\n",
];

struct Chaos {
    world: World,
    dice: Dice,
    callers: Vec<Ua>,
    callees: Vec<Ua>,
    /// Requests that each address got.
    got: Vec<(String, Msg)>,
    branch: u32,
    /// The last RSeq that came to each call.
    rseqs: BTreeMap<String, u32>,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let mut world = World::new();
        if seed.is_multiple_of(3) {
            world.hub = Hub::Waits;
        }
        let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        Self {
            world,
            dice,
            callers: Vec::new(),
            callees: Vec::new(),
            got: Vec::new(),
            branch: 0,
            rseqs: BTreeMap::new(),
        }
    }

    fn description(&mut self, ip: &str) -> String {
        match self.dice.roll(6) {
            0 => String::new(),
            1 => sdp(ip, 4000, "a=sendonly\r\n"),
            2 => sdp(ip, 4000, "a=inactive\r\n"),
            3 => sdp(ip, 4002, "").replace("o=user 77", "o=user 78"),
            4 => "v=0 broken".to_owned(),
            _ => sdp(ip, 4000, ""),
        }
    }

    fn step(&mut self) {
        if self.dice.roll(8) == 0 {
            self.world.lose = Some(self.world.passed + self.dice.roll(3));
        }
        match self.dice.roll(20) {
            0 | 1 => self.new_call(),
            2..=7 => self.answer(),
            8..=11 => self.caller_request(),
            12..=14 => self.callee_request(),
            15 => self.hub(),
            _ => {
                let ms = *self.dice.pick(&[1, 100, 500, 1_000, 4_000, 32_000]);
                self.world.advance(ms);
            }
        }
        self.collect();
    }

    fn new_call(&mut self) {
        let user = *self.dice.pick(&["100", "100", "911", "7331"]);
        let at = *self.dice.pick(&[PBX, PBX, CARRIER]);
        let mut a = Ua::caller(at, user);
        let number = self.callers.len();
        a.call_id = format!("chaos-{number}");
        a.local = format!("<sip:ann@x>;tag=a{number}");
        let body = self.description(OFFER_IP);
        self.fresh(&mut a);
        let extra = *self.dice.pick(&CALLERS_TERMS);
        let text = a.invite(extra, &body);
        self.world.send(at, text);
        self.callers.push(a);
    }

    fn fresh(&mut self, ua: &mut Ua) {
        self.branch += 10;
        ua.branch = self.branch;
    }

    fn answer(&mut self) {
        if self.got.is_empty() {
            return;
        }
        let index = self.dice.roll(self.got.len());
        let (at, request) = self.got[index].clone();
        let tag = *self.dice.pick(&["one", "one", "one", "two", "three", ""]);
        let status = *self.dice.pick(&STATUSES);
        let rseq = self.dice.roll(4) + 1;
        let terms = self.dice.pick(&CALLEES_TERMS).replace('#', &rseq.to_string());
        let contact = format!("Contact: <sip:line{tag}@{at}>\r\n{terms}");
        if request.request().method == Method::INVITE {
            self.callees.push(Ua::callee(&at, &request, tag));
        }
        let body = self.description(ANSWER_IP);
        let text = request.answer(status, tag, &contact, &body);
        self.world.send(&at, text);
    }

    fn caller_request(&mut self) {
        let Some(index) = (!self.callers.is_empty()).then(|| self.dice.roll(self.callers.len())) else {
            return;
        };
        let mut a = self.callers[index].clone();
        self.request(&mut a);
        self.callers[index] = a;
    }

    fn callee_request(&mut self) {
        let Some(index) = (!self.callees.is_empty()).then(|| self.dice.roll(self.callees.len())) else {
            return;
        };
        let mut b = self.callees[index].clone();
        self.request(&mut b);
        self.callees[index] = b;
    }

    fn request(&mut self, ua: &mut Ua) {
        let method = *self.dice.pick(&METHODS);
        if method != "CANCEL" {
            self.fresh(ua);
        }
        let body = self.description(OFFER_IP);
        let rack = self.rseqs.get(&ua.call_id).copied().unwrap_or(1);
        let rack = format!("RAck: {rack} 101 INVITE\r\n");
        let terms = *self.dice.pick(&["", "", "Supported: timer\r\nSession-Expires: 90\r\n"]);
        let contact = format!("{}{}{terms}", ua.contact(), if method == "PRACK" { &rack } else { "" });
        let text = ua.request(method, &contact, &body);
        self.world.send(&ua.at.clone(), text);
    }

    fn hub(&mut self) {
        let open = self.world.open_calls();
        if open.is_empty() {
            return;
        }
        let call = *self.dice.pick(&open);
        match self.dice.roll(4) {
            0 => self.world.command(Command::End { call, text: "chaos" }),
            1 => {
                self.world.command(Command::Refuse { call, status: 503, text: "chaos", retry_after_s: None })
            }
            _ => self.world.proceed(call, *self.dice.pick(&[Side::Public, Side::District])),
        }
    }

    /// Reads everything that came: callers learn tags, requests wait for an answer.
    fn collect(&mut self) {
        for at in [PBX, CARRIER, CARRIER2] {
            for message in self.world.take_readable(at) {
                match &message.message {
                    Message::Request(_) => {
                        self.got.push((at.to_owned(), message));
                        if self.got.len() > 12 {
                            self.got.remove(0);
                        }
                    }
                    Message::Response(_) => self.learn(&message),
                }
            }
        }
    }

    fn learn(&mut self, message: &Msg) {
        let call_id = message.get("Call-ID").to_owned();
        if let Some(rseq) = message.headers().first("RSeq").and_then(|rseq| rseq.parse().ok()) {
            self.rseqs.insert(call_id.clone(), rseq);
        }
        if message.tag("To").is_some()
            && let Some(a) = self.callers.iter_mut().find(|a| a.call_id == call_id)
        {
            a.learn(message);
        }
    }

    fn finish(mut self) -> (usize, usize) {
        for call in self.world.open_calls() {
            self.world.command(Command::End { call, text: "over" });
        }
        assert_eq!(self.world.open_calls(), []);
        self.world.assert_clean();
        let answered = self.world.events.iter().filter(|e| matches!(e, Event::Answered { .. })).count();
        (self.world.ended().len(), answered)
    }
}

#[test]
fn whatever_happens_each_call_ends_once_and_nothing_is_left() {
    let (mut ended, mut answered) = (0, 0);
    for seed in 0..80 {
        let mut chaos = Chaos::new(seed);
        for _ in 0..150 {
            chaos.step();
        }
        let (some_ended, some_answered) = chaos.finish();
        ended += some_ended;
        answered += some_answered;
    }
    assert!(ended > 600 && answered > 100, "{ended} ended, {answered} answered: too tame to mean anything");
}

#[test]
fn hostile_octets_end_no_call_and_panic_nowhere() {
    let mut dice = Dice(7);
    let mut up = Up::new();
    let samples: Vec<Vec<u8>> = vec![
        up.a.clone().request("INFO", "Content-Type: application/dtmf-relay\r\n", "Signal=5").into_bytes(),
        up.a.clone().request("INVITE", &up.a.contact(), &sdp(OFFER_IP, 4000, "")).into_bytes(),
        up.b.clone().request("UPDATE", &up.b.contact(), &sdp(ANSWER_IP, 5000, "")).into_bytes(),
        up.invite.answer("200 OK", "callees-tag", &up.b.contact(), &sdp(ANSWER_IP, 5000, "")).into_bytes(),
        Ua::caller(PBX, "911").invite("Geolocation: <cid:x>\r\n", &sdp(OFFER_IP, 1, "")).into_bytes(),
    ];
    for round in 0..5_000 {
        let mut octets = dice.pick(&samples).clone();
        for _ in 0..=dice.roll(6) {
            if octets.is_empty() {
                break;
            }
            let at = dice.roll(octets.len());
            match dice.roll(5) {
                0 => octets[at] = u8::try_from(dice.roll(256)).unwrap(),
                1 => drop(octets.remove(at)),
                2 => octets.insert(at, *dice.pick(b"\r\n\0;,:<>\"@%= \xff")),
                3 => octets.truncate(at + 1),
                _ => {
                    let end = (at + dice.roll(40)).min(octets.len());
                    let copy = octets[at..end].to_vec();
                    octets.splice(at..at, copy);
                }
            }
        }
        let from = *dice.pick(&[PBX, CARRIER, CARRIER2, STRANGER]);
        up.world.send(from, octets);
        if round % 50 == 0 {
            up.world.advance(200);
        }
        for at in [PBX, CARRIER, CARRIER2] {
            up.world.take_readable(at);
        }
        up.world.expect_nothing(STRANGER);
    }
    for call in up.world.open_calls() {
        up.world.command(Command::End { call, text: "over" });
    }
    up.world.assert_clean();
}
