//! Seeded chaos: both ends, the hub and the network do anything at any time. Whatever happens, nothing
//! panics, what goes out is well-formed, each call ends exactly once (the world checks it at every event),
//! and nothing is left behind.

use std::collections::BTreeMap;

use consent::Side;
use sip_gateway::wire::{Message, Method};
use sip_gateway::{Command, Event};

use crate::refreshing::{THEIRS, timed};
use crate::transfer::{TARGET_IP, Talk};
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

/// A call whose two ends live, and refresh their sessions of 90 s in time. L transfers R to newcomers that never
/// come in.
struct Living {
    talk: Talk,
    dice: Dice,
    /// What R and L say, and what they have of ours.
    says: [String; 2],
    has: [String; 2],
    /// Since they last tried to refresh.
    idle_ms: u64,
}

const ENDS: [&str; 2] = [CARRIER, PBX];

impl Living {
    fn new(seed: u64) -> Self {
        let talk = timed(THEIRS);
        let says = [sdp(ANSWER_IP, 5000, ""), sdp(OFFER_IP, 4000, "")];
        let has = talk.world.sent.iter().map(|(to, bytes)| (*to, Msg::new(bytes.clone()).body()));
        let has: Vec<_> = has.filter(|(_, body)| !body.is_empty()).collect();
        let of = |at| has.iter().find(|(to, _)| *to == addr(at)).unwrap().1.clone();
        let has = ENDS.map(of);
        Self { talk, dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1), says, has, idle_ms: 0 }
    }

    fn end(&mut self, end: usize) -> &mut Ua {
        if end == 0 { &mut self.talk.r } else { &mut self.talk.l }
    }

    fn request(&mut self, end: usize, method: &str, extra: &str, body: &str) {
        let ua = self.end(end);
        let extra = format!("{}{extra}", ua.contact());
        let text = ua.request(method, &extra, body);
        self.talk.world.send(ENDS[end], text);
    }

    /// What came to an end and starts so, among whatever else came.
    #[track_caller]
    fn came(&mut self, end: usize, start: &str) -> Msg {
        let all = self.talk.world.take_all(ENDS[end]);
        let found = all.iter().rfind(|message| message.text().starts_with(start));
        found
            .unwrap_or_else(|| panic!("no {start}: {:?}", all.iter().map(Msg::text).collect::<Vec<_>>()))
            .clone()
    }

    fn description(&mut self, ip: &str) -> String {
        let port = *self.dice.pick(&[6000, 6002, 6004]);
        let more = *self.dice.pick(&["", "a=ptime:20\r\n", "a=ptime:30\r\n"]);
        let text = sdp(ip, port, more);
        if self.dice.roll(2) == 0 {
            text
        } else {
            text.replace(" 0 101", " 8 101").replace(":0 PCMU", ":8 PCMA")
        }
    }

    /// Time passes, in which each end refreshes its session every 30 s.
    fn wait(&mut self, ms: u64) {
        let mut left_ms = ms;
        while left_ms > 0 {
            let step_ms = left_ms.min(30_000 - self.idle_ms);
            self.talk.world.advance(step_ms);
            (left_ms, self.idle_ms) = (left_ms - step_ms, self.idle_ms + step_ms);
            if self.idle_ms == 30_000 {
                self.idle_ms = 0;
                self.try_to_refresh(0);
                self.try_to_refresh(1);
            }
        }
        assert_eq!(self.talk.world.ended(), [], "both ends live");
    }

    fn try_to_refresh(&mut self, end: usize) {
        let body = self.says[end].clone();
        self.request(end, "INVITE", THEIRS, &body);
        let answer = self.came(end, "SIP/2.0 ");
        if answer.response().status < 300 {
            self.request(end, "ACK", "", "");
        } else {
            let ack = self.end(end).ack_failure(&answer);
            self.talk.world.send(ENDS[end], ack);
        }
    }

    /// One end offers something else, and the other takes it or not.
    fn offer(&mut self) {
        let (from, method) = (self.dice.roll(2), *self.dice.pick(&["INVITE", "UPDATE"]));
        let body = self.description("10.7.7.7");
        if body == self.says[from] {
            // A refresh, which goes no further.
            return;
        }
        self.request(from, method, "", &body);
        let offered = self.came(1 - from, method);
        let waits_ms = u64::try_from(self.dice.roll(20_000)).unwrap();
        if method == "INVITE" {
            self.talk.world.send(ENDS[1 - from], offered.answer("100 Trying", "", "", ""));
        }
        self.talk.world.advance(waits_ms.min(if method == "INVITE" { 20_000 } else { 3_000 }));
        let status = *self.dice.pick(&["200 OK", "488 No", "491 Pending", "500 Oops"]);
        let taken = status == "200 OK" && self.dice.roll(4) > 0;
        let answer = if taken { self.description("10.8.8.8") } else { String::new() };
        let contact = format!("Contact: <sip:line@{}>\r\n", ENDS[1 - from]);
        self.talk.world.send(ENDS[1 - from], offered.answer(status, "", &contact, &answer));
        let reply = self.came(from, "SIP/2.0 ");
        if status == "200 OK" && method == "INVITE" {
            self.request(from, "ACK", "", "");
        } else if method == "INVITE" {
            let ack = self.end(from).ack_failure(&reply);
            self.talk.world.send(ENDS[from], ack);
        }
        if taken {
            (self.says[from], self.says[1 - from]) = (body, answer);
            (self.has[from], self.has[1 - from]) = (reply.body(), offered.body());
        }
    }

    /// L transfers R, which does not take T, or takes it in vain.
    fn transfer(&mut self) {
        self.request(1, "REFER", "Refer-To: <sip:7355@10.1.0.10>\r\n", "");
        let invite = self.came(1, "INVITE sip:7355");
        let offer = self.description(TARGET_IP);
        let target = "Contact: <sip:t@10.1.0.10>\r\n";
        self.talk.world.send(PBX, invite.answer("180 Ringing", "t", target, ""));
        let ms = u64::try_from(self.dice.roll(90_000)).unwrap();
        self.wait(ms);
        self.talk.world.send(PBX, invite.answer("200 OK", "t", target, &offer));
        let mut reinvite = self.came(0, "INVITE ");
        self.talk.world.send(CARRIER, reinvite.answer("100 Trying", "", "", ""));
        let ms = u64::try_from(self.dice.roll(25_000)).unwrap();
        self.wait(ms);
        if self.dice.roll(3) == 0 {
            self.talk.world.send(CARRIER, reinvite.answer("491 Pending", "", "", ""));
            self.talk.world.advance(4_000);
            reinvite = self.came(0, "INVITE ");
        }
        let contact = self.talk.r.contact();
        if self.dice.roll(2) == 0 {
            self.talk.world.send(CARRIER, reinvite.answer("488 No", "", &contact, ""));
        } else {
            let terms = format!("{contact}Session-Expires: {}\r\n", reinvite.get("Session-Expires"));
            self.talk.world.send(CARRIER, reinvite.answer("200 OK", "", &terms, ""));
            let restoring = self.came(0, "INVITE ");
            let status = *self.dice.pick(&["200 OK", "488 No"]);
            let taken = status == "200 OK";
            let answer = if taken { self.says[0].clone() } else { String::new() };
            self.talk.world.send(CARRIER, restoring.answer(status, "", &terms, &answer));
            self.has[0] = if taken { restoring.body() } else { reinvite.body() };
        }
        self.wait(33_000);
    }

    fn check(&mut self) {
        for end in [0, 1] {
            let (method, body) = (*self.dice.pick(&["INVITE", "UPDATE"]), self.says[end].clone());
            self.talk.world.take_all(ENDS[1 - end]);
            self.request(end, method, THEIRS, &body);
            let answer = self.came(end, "SIP/2.0 200 ");
            assert_eq!(answer.body(), self.has[end], "{}", ENDS[end]);
            self.talk.world.expect_nothing(ENDS[1 - end]);
            if method == "INVITE" {
                self.request(end, "ACK", "", "");
            }
        }
    }
}

#[test]
fn whatever_fails_each_end_keeps_what_it_had_and_no_timer_ends_the_call() {
    for seed in 0..60 {
        let mut living = Living::new(seed);
        for _ in 0..10 {
            match living.dice.roll(3) {
                0 => living.transfer(),
                _ => living.offer(),
            }
            living.check();
            let ms = u64::try_from(living.dice.roll(60_000)).unwrap();
            living.wait(ms);
        }
    }
}
