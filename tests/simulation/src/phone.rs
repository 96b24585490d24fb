//! One end of a call as PBX or carrier present it: SIP with its own timers (RFC 3261 §17), and the people who
//! speak there, one after the other. It does what its script says and knows nothing of the gateway's rules.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use consent::Leg;

use crate::clock::{MS, Queue, SECOND, Time};
use crate::media::Sent;
use crate::message::{Message, described, description, finish, parameter, uri};
use crate::network::GATEWAY;
use crate::random::Random;
use crate::sound;

const T1: Time = 500 * MS;
const T2: Time = 4 * SECOND;
const PACKET: Time = 20 * MS;

/// Somebody who may speak at an end of a call.
#[derive(Clone, Debug)]
pub(crate) struct Party {
    pub(crate) number: String,
    pub(crate) media: SocketAddr,
    pub(crate) ssrc: u32,
    pub(crate) hz: u32,
}

/// What the script has it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Dial,
    Ring,
    Answer,
    Reject(u16),
    Cancel,
    HangUp,
    Press(char),
    Hold,
    Resume,
    /// The next party takes over, and the PBX says so. Whether it speaks before the answer to that.
    Transfer(bool),
    /// The next party takes over on the same address, and nobody says so.
    Takeover,
    /// The same party's description comes from another instrument.
    NewOrigin,
    /// The next party is called instead, by the gateway (RFC 3515), on a telephone of its own.
    Refer,
    /// It says whether it wants to be recorded (RFC 7866).
    Wish(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Idle,
    Dialling,
    Ringing,
    Talking,
    Ended,
}

#[derive(Debug)]
struct Client {
    method: &'static str,
    branch: String,
    cseq: u32,
    bytes: Vec<u8>,
    next_at: Time,
    interval: Time,
    until: Time,
    act: Option<Act>,
}

#[derive(Debug)]
struct Resend {
    bytes: Vec<u8>,
    next_at: Time,
    interval: Time,
    until: Time,
}

/// One end of one call.
pub(crate) struct Phone {
    pub(crate) leg: Leg,
    pub(crate) peer: SocketAddr,
    pub(crate) call: usize,
    pub(crate) parties: Vec<Party>,
    pub(crate) present: usize,
    pub(crate) state: State,
    /// Whether it is one that a transfer calls.
    pub(crate) is_newcomer: bool,
    /// Whether it understands `a=record`, whether it takes UPDATE, its `a=recordpref`, and whether the gateway
    /// is to take that for its party's word.
    pub(crate) is_aware: bool,
    pub(crate) takes_update: bool,
    pub(crate) wish: Option<&'static str>,
    pub(crate) is_trusted: bool,
    /// Whether it tries again what has crossed something.
    pub(crate) tries_again: bool,
    /// What it was told last of recording.
    pub(crate) told: Option<String>,
    pub(crate) final_status: Option<u16>,
    pub(crate) answered_at: Option<Time>,
    pub(crate) call_id: String,
    /// Re-INVITEs that took effect or failed, by CSeq.
    pub(crate) outcomes: BTreeMap<u32, bool>,
    local: String,
    remote: String,
    target: String,
    tag: String,
    cseq: u32,
    invite_cseq: u32,
    session: u64,
    version: u64,
    clients: Vec<Client>,
    replies: Vec<(String, Vec<u8>)>,
    unacknowledged: Option<Resend>,
    acks: BTreeMap<u32, Vec<u8>>,
    invite: Option<Message>,
    provisional: bool,
    cancel: bool,
    pub(crate) remote_media: Option<SocketAddr>,
    holding: bool,
    held: bool,
    talks_on_hold: bool,
    keys: VecDeque<char>,
    key: Option<(char, u32, u32)>,
    /// When each press began, by SSRC and RTP timestamp.
    pub(crate) presses: BTreeMap<(u32, u32), Time>,
    quiet: u32,
    packets: u32,
    first_timestamp: u32,
    next_packet: Option<Time>,
    script: Queue<Act>,
    /// What it does once the call is up, counted from then.
    later: Vec<(Time, Act)>,
    /// The same, once its INVITE has come.
    once_invited: Vec<(Time, Act)>,
    random: Random,
    pub(crate) sent: Vec<Sent>,
}

impl Phone {
    pub(crate) fn new(
        leg: Leg,
        peer: SocketAddr,
        call: usize,
        parties: Vec<Party>,
        dialled: &str,
        random: Random,
    ) -> Self {
        let mut random = random;
        let tag = format!("{:x}", random.next());
        let local = format!("<sip:{}@{}>;tag={tag}", parties[0].number, peer.ip());
        Self {
            leg,
            peer,
            call,
            parties,
            present: 0,
            state: State::Idle,
            is_newcomer: false,
            is_aware: false,
            takes_update: false,
            wish: None,
            is_trusted: false,
            tries_again: false,
            told: None,
            final_status: None,
            answered_at: None,
            call_id: format!("{:016x}@{}", random.next(), peer.ip()),
            outcomes: BTreeMap::new(),
            local,
            remote: format!("<sip:{dialled}@{}>", GATEWAY.ip()),
            target: format!("sip:{dialled}@{GATEWAY}"),
            tag,
            cseq: 1,
            invite_cseq: 1,
            session: random.next() >> 32,
            version: 1,
            clients: Vec::new(),
            replies: Vec::new(),
            unacknowledged: None,
            acks: BTreeMap::new(),
            invite: None,
            provisional: false,
            cancel: false,
            remote_media: None,
            holding: false,
            held: false,
            talks_on_hold: random.per_mille(500),
            keys: VecDeque::new(),
            key: None,
            presses: BTreeMap::new(),
            quiet: 0,
            packets: 0,
            first_timestamp: random.next() as u32,
            next_packet: None,
            script: Queue::new(),
            later: Vec::new(),
            once_invited: Vec::new(),
            random,
            sent: Vec::new(),
        }
    }

    /// The telephone of the second of these parties, to which a transfer may lead.
    pub(crate) fn newcomer(
        leg: Leg,
        peer: SocketAddr,
        call: usize,
        parties: Vec<Party>,
        random: Random,
    ) -> Self {
        Self { is_newcomer: true, present: 1, ..Self::new(leg, peer, call, parties, "", random) }
    }

    pub(crate) fn at(&mut self, at: Time, act: Act) {
        self.script.push(at, act);
    }

    pub(crate) fn once_talking(&mut self, after: Time, act: Act) {
        self.later.push((after, act));
    }

    pub(crate) fn once_invited(&mut self, after: Time, act: Act) {
        self.once_invited.push((after, act));
    }

    pub(crate) fn speaker(&self) -> &Party {
        &self.parties[self.present]
    }

    /// Whether an INVITE of its own waits for its answer.
    pub(crate) fn is_offering(&self) -> bool {
        self.unacknowledged.is_some() || self.clients.iter().any(|client| client.method == "INVITE")
    }

    pub(crate) fn next_due(&self) -> Option<Time> {
        let clients = self.clients.iter().map(|client| client.next_at.min(client.until));
        let resend = self.unacknowledged.iter().map(|resend| resend.next_at.min(resend.until));
        clients.chain(resend).chain(self.next_packet).chain(self.script.next_at()).min()
    }

    /// Does what is due; `free` says that no re-INVITE is on its way on the whole call.
    pub(crate) fn on_time(&mut self, now: Time, free: bool) {
        while let Some(act) = self.script.pop_due(now) {
            self.act(now, act, free);
        }
        self.retransmit(now);
        while let Some(at) = self.next_packet.filter(|at| *at <= now) {
            self.next_packet = Some(at + PACKET);
            self.speak(at);
        }
    }

    fn act(&mut self, now: Time, act: Act, free: bool) {
        let reinvite =
            matches!(act, Act::Hold | Act::Resume | Act::Transfer(_) | Act::NewOrigin | Act::Wish(_));
        if reinvite && self.state == State::Talking && !free {
            return self.script.push(now + 150 * MS, act);
        }
        match act {
            Act::Dial => self.dial(now),
            Act::Ring => self.respond_to_invite(now, 180),
            Act::Answer => self.respond_to_invite(now, 200),
            Act::Reject(status) => self.respond_to_invite(now, status),
            Act::Cancel if self.state == State::Talking => self.hang_up(now),
            Act::Cancel => {
                self.cancel = true;
                self.cancel_if_possible(now);
            }
            Act::HangUp => self.hang_up(now),
            _ if self.state != State::Talking => {}
            Act::Press(key) => self.keys.push_back(key),
            Act::Hold => {
                self.holding = true;
                self.reinvite(now, act);
            }
            Act::Resume => {
                self.holding = false;
                self.reinvite(now, act);
            }
            Act::NewOrigin => {
                self.session += 1;
                self.reinvite(now, act);
            }
            Act::Transfer(speaks) => {
                self.next_party(now);
                self.session += 1;
                if !speaks {
                    self.next_packet = None;
                }
                self.reinvite(now, act);
            }
            Act::Wish(wish) => {
                self.wish = Some(wish);
                self.reinvite(now, act);
            }
            Act::Refer => self.refer(now),
            Act::Takeover => {
                let media = self.speaker().media;
                self.next_party(now);
                let present = self.present;
                self.parties[present].media = media;
            }
        }
    }

    fn next_party(&mut self, now: Time) {
        if self.present + 1 < self.parties.len() {
            self.present += 1;
        }
        self.keys.clear();
        self.key = None;
        self.packets = 0;
        self.first_timestamp = self.random.next() as u32;
        self.next_packet = Some(now);
    }

    fn sdp(&self) -> String {
        let flow = match (self.holding, self.held) {
            (true, true) => "inactive",
            (true, false) => "sendonly",
            (false, true) => "recvonly",
            (false, false) => "sendrecv",
        };
        let wish = self.wish.map(|wish| format!("a=recordpref:{wish}\r\n")).unwrap_or_default();
        description(self.session, self.version, self.speaker().media, flow) + &wish
    }

    /// What it says that it understands.
    fn abilities(&self) -> &'static str {
        match (self.is_aware, self.takes_update) {
            (false, _) => "",
            (true, false) => "Supported: record-aware\r\nAllow: INVITE, ACK, BYE, CANCEL\r\n",
            (true, true) => "Supported: record-aware\r\nAllow: INVITE, ACK, BYE, CANCEL, UPDATE\r\n",
        }
    }

    fn contact(&self) -> String {
        format!("Contact: <sip:{}@{}>\r\n", self.speaker().number, self.peer)
    }

    fn branch(&mut self) -> String {
        format!("z9hG4bK{:016x}", self.random.next())
    }

    fn request(&self, method: &str, branch: &str, cseq: u32, more: &str, body: &str) -> Vec<u8> {
        let head = format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {};branch={branch}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\n\
             Call-ID: {}\r\nCSeq: {cseq} {method}\r\nX-Plan: {}\r\n",
            self.target, self.peer, self.local, self.remote, self.call_id, self.call
        );
        finish(head, more, body)
    }

    fn start_client(
        &mut self,
        now: Time,
        method: &'static str,
        branch: String,
        cseq: u32,
        bytes: Vec<u8>,
        act: Option<Act>,
    ) {
        self.send(bytes.clone());
        let (next_at, until) = (now + T1, now + 64 * T1);
        self.clients.push(Client { method, branch, cseq, bytes, next_at, interval: T1, until, act });
    }

    fn send(&mut self, bytes: Vec<u8>) {
        self.sent.push(Sent { from: self.peer, to: GATEWAY, bytes });
    }

    fn identity(&self) -> String {
        format!("P-Asserted-Identity: <sip:{}@{}>\r\n", self.speaker().number, self.peer.ip())
    }

    fn dial(&mut self, now: Time) {
        self.state = State::Dialling;
        let branch = self.branch();
        let more = format!("{}{}{}", self.contact(), self.identity(), self.abilities());
        let bytes = self.request("INVITE", &branch, 1, &more, &self.sdp());
        self.start_client(now, "INVITE", branch, 1, bytes, None);
    }

    fn reinvite(&mut self, now: Time, act: Act) {
        self.cseq += 1;
        self.version += 1;
        let branch = self.branch();
        let more = format!("{}{}", self.contact(), self.identity());
        let bytes = self.request("INVITE", &branch, self.cseq, &more, &self.sdp());
        self.start_client(now, "INVITE", branch, self.cseq, bytes, Some(act));
    }

    fn refer(&mut self, now: Time) {
        let Some(next) = self.parties.get(1) else { return };
        let to = format!("<sip:{}@{};plan={}>", next.number, self.peer, self.call);
        self.cseq += 1;
        let branch = self.branch();
        let more = format!("{}Refer-To: {to}\r\n", self.contact());
        let bytes = self.request("REFER", &branch, self.cseq, &more, "");
        self.start_client(now, "REFER", branch, self.cseq, bytes, None);
    }

    fn cancel_if_possible(&mut self, now: Time) {
        if !self.cancel || !self.provisional || self.state != State::Dialling {
            return;
        }
        let Some(invite) = self.clients.iter().find(|client| client.method == "INVITE") else { return };
        let branch = invite.branch.clone();
        if self.clients.iter().any(|client| client.method == "CANCEL") {
            return;
        }
        let bytes = self.request("CANCEL", &branch, 1, "", "");
        self.start_client(now, "CANCEL", branch, 1, bytes, None);
    }

    fn hang_up(&mut self, now: Time) {
        if self.state != State::Talking {
            return;
        }
        self.end();
        self.cseq += 1;
        let branch = self.branch();
        let bytes = self.request("BYE", &branch, self.cseq, "", "");
        self.start_client(now, "BYE", branch, self.cseq, bytes, None);
    }

    fn end(&mut self) {
        self.state = State::Ended;
        self.next_packet = None;
    }

    fn retransmit(&mut self, now: Time) {
        let mut due = Vec::new();
        for client in &mut self.clients {
            if client.next_at <= now && now < client.until {
                due.push(client.bytes.clone());
                let invite = client.method == "INVITE";
                client.interval = if invite { client.interval * 2 } else { (client.interval * 2).min(T2) };
                client.next_at = now + client.interval;
            }
        }
        let timed_out: Vec<Client> = self.clients.extract_if(.., |client| client.until <= now).collect();
        for client in timed_out {
            if client.method == "INVITE" {
                self.outcomes.insert(client.cseq, false);
                self.final_status = self.final_status.or(Some(408));
                self.end();
            }
        }
        if let Some(resend) = &mut self.unacknowledged {
            if resend.until <= now {
                self.unacknowledged = None;
                if self.state == State::Talking {
                    self.hang_up(now);
                }
            } else if resend.next_at <= now {
                due.push(resend.bytes.clone());
                resend.interval = (resend.interval * 2).min(T2);
                resend.next_at = now + resend.interval;
            }
        }
        due.into_iter().for_each(|bytes| self.send(bytes));
    }

    fn speak(&mut self, now: Time) {
        let Some(to) = self.remote_media else { return };
        let packets = self.packets;
        self.packets += 1;
        let party = &self.parties[self.present];
        let timestamp = self.first_timestamp.wrapping_add(packets * 160);
        let mut rtp = |kind: u8, timestamp: u32, payload: &[u8]| {
            let mut bytes = vec![0x80, kind];
            bytes.extend(((packets + 1) as u16).to_be_bytes());
            bytes.extend(timestamp.to_be_bytes());
            bytes.extend(party.ssrc.to_be_bytes());
            bytes.extend(payload);
            self.sent.push(Sent { from: party.media, to, bytes });
        };
        if let Some((key, began, sent)) = self.key {
            let end = sent >= 5;
            let duration = 160 * (sent + 1).min(5);
            let event = sound::event_of(key);
            let flags = if end { 0x8A } else { 0x0A };
            rtp(101, began, &[event, flags, (duration >> 8) as u8, duration as u8]);
            self.key = (sent < 7).then_some((key, began, sent + 1));
            self.quiet = 4;
            return;
        }
        if self.quiet > 0 {
            self.quiet -= 1;
        } else if let Some(key) = self.keys.pop_front() {
            self.key = Some((key, timestamp, 0));
            self.presses.insert((party.ssrc, timestamp), now);
        }
        if (!self.held || self.talks_on_hold) && !self.holding {
            rtp(0, timestamp, &sound::tone(party.hz));
        }
    }

    fn respond_to_invite(&mut self, now: Time, status: u16) {
        let Some(invite) = self.invite.clone() else { return };
        if !matches!(self.state, State::Dialling | State::Ringing) {
            return;
        }
        let body = if status == 200 { self.sdp() } else { String::new() };
        let more = self.contact() + self.abilities();
        let bytes = invite.response(status, &self.tag, &more, &body);
        self.reply(&invite, bytes.clone());
        if status < 200 {
            self.state = State::Ringing;
            return;
        }
        self.final_status = Some(status);
        self.resend(now, bytes);
        if status == 200 {
            self.talk(now);
        } else {
            self.end();
        }
    }

    fn resend(&mut self, now: Time, bytes: Vec<u8>) {
        self.unacknowledged = Some(Resend { bytes, next_at: now + T1, interval: T1, until: now + 64 * T1 });
    }

    fn talk(&mut self, now: Time) {
        self.state = State::Talking;
        self.answered_at = Some(now);
        self.next_packet = Some(now);
        for (after, act) in std::mem::take(&mut self.later) {
            self.script.push(now + after, act);
        }
    }

    fn reply(&mut self, request: &Message, bytes: Vec<u8>) {
        let key = format!("{}{}", request.branch(), request.method());
        self.replies.retain(|(known, _)| *known != key);
        self.replies.push((key, bytes.clone()));
        self.send(bytes);
    }

    /// Takes in a message of the gateway's for this end.
    pub(crate) fn on_message(&mut self, now: Time, message: &Message) {
        match message.status() {
            Some(status) => self.on_response(now, status, message),
            None => self.on_request(now, message),
        }
    }

    fn on_request(&mut self, now: Time, message: &Message) {
        let key = format!("{}{}", message.branch(), message.method());
        if let Some((_, bytes)) = self.replies.iter().find(|(known, _)| *known == key) {
            return self.send(bytes.clone());
        }
        match message.method() {
            "ACK" => {
                self.unacknowledged = None;
                self.take_description(message);
            }
            "NOTIFY" => {
                self.reply(message, message.response(200, &self.tag, "", ""));
                if message.body.starts_with("SIP/2.0 2") {
                    self.hang_up(now);
                }
            }
            "INVITE" if self.invite.is_none() && (self.leg == Leg::B || self.is_newcomer) => {
                self.on_first_invite(now, message)
            }
            "INVITE" => self.on_reinvite(now, message),
            "UPDATE" if described(&message.body).is_some() => self.on_update(message),
            "CANCEL" => {
                self.reply(message, message.response(200, &self.tag, "", ""));
                self.respond_to_invite(now, 487);
            }
            "BYE" => {
                self.end();
                self.reply(message, message.response(200, &self.tag, "", ""));
            }
            _ => self.reply(message, message.response(200, &self.tag, "", "")),
        }
    }

    fn on_first_invite(&mut self, now: Time, message: &Message) {
        for (after, act) in std::mem::take(&mut self.once_invited) {
            self.script.push(now + after, act);
        }
        self.state = State::Dialling;
        self.call_id = message.first("Call-ID").to_owned();
        self.local = format!("{};tag={}", message.first("To"), self.tag);
        self.remote = message.first("From").to_owned();
        self.target = uri(message.first("Contact")).to_owned();
        self.remote_media = described(&message.body).map(|(media, _)| media);
        self.invite = Some(message.clone());
        self.reply(message, message.response(100, "", "", ""));
    }

    fn on_reinvite(&mut self, now: Time, message: &Message) {
        let busy = self.is_offering() || self.state != State::Talking;
        if busy {
            let status = if self.state == State::Talking { 491 } else { 481 };
            let bytes = message.response(status, &self.tag, "", "");
            return self.reply(message, bytes);
        }
        self.take_description(message);
        self.version += 1;
        let bytes = message.response(200, &self.tag, &self.contact(), &self.sdp());
        self.reply(message, bytes.clone());
        self.resend(now, bytes);
    }

    fn on_update(&mut self, message: &Message) {
        let status = match (self.state, self.is_offering()) {
            (State::Talking, false) => 200,
            (State::Talking, true) => 491,
            _ => 481,
        };
        let mut body = String::new();
        if status == 200 {
            self.take_description(message);
            self.version += 1;
            body = self.sdp();
        }
        let bytes = message.response(status, &self.tag, &self.contact(), &body);
        self.reply(message, bytes);
    }

    fn take_description(&mut self, message: &Message) {
        let told = message.body.lines().find_map(|line| line.strip_prefix("a=record:"));
        self.told = told.map(|told| told.trim_end().to_owned()).or(self.told.take());
        if let Some((media, flow)) = described(&message.body) {
            self.remote_media = Some(media);
            self.held = matches!(flow, "sendonly" | "inactive");
        }
    }

    fn on_response(&mut self, now: Time, status: u16, message: &Message) {
        let cseq = message.sequence();
        let invite = message.method() == "INVITE";
        if status >= 200
            && invite
            && let Some(ack) = self.acks.get(&cseq).cloned()
        {
            return self.send(ack);
        }
        let Some(index) =
            self.clients.iter().position(|c| c.branch == message.branch() && c.method == message.method())
        else {
            return;
        };
        if status < 200 {
            let client = &mut self.clients[index];
            client.next_at = if invite { client.until } else { client.next_at };
            if invite && client.act.is_none() {
                client.until = client.until.max(now + 180 * SECOND);
                client.next_at = client.until;
                self.provisional = true;
                self.cancel_if_possible(now);
            }
            return;
        }
        let client = self.clients.remove(index);
        if invite {
            self.on_final(now, status, message, client);
        }
    }

    fn on_final(&mut self, now: Time, status: u16, message: &Message, client: Client) {
        let first = client.act.is_none();
        if first {
            self.final_status = Some(status);
        }
        self.outcomes.insert(client.cseq, status < 300);
        if status >= 300 {
            let to = message.first("To").to_owned();
            let remote = std::mem::replace(&mut self.remote, to);
            let ack = self.request("ACK", &client.branch, client.cseq, "", "");
            self.remote = remote;
            self.acks.insert(client.cseq, ack.clone());
            self.send(ack);
            if first {
                self.end();
            } else if let Some(act) =
                client.act.filter(|_| self.tries_again && status == 491 && self.state == State::Talking)
            {
                self.script.push(now + self.random.between(200, 1_000) * MS, act);
            } else if self.state == State::Talking {
                self.hang_up(now);
            }
            return;
        }
        if first {
            self.remote = message.first("To").to_owned();
            self.target = uri(message.first("Contact")).to_owned();
            debug_assert!(!parameter(&self.remote, "tag").is_empty());
        }
        let held = self.held;
        self.take_description(message);
        if matches!(client.act, Some(Act::Hold | Act::Resume)) {
            self.held = held;
        }
        let branch = self.branch();
        let ack = self.request("ACK", &branch, client.cseq, "", "");
        self.acks.insert(client.cseq, ack.clone());
        self.send(ack);
        if first {
            self.invite_cseq = client.cseq;
            self.talk(now);
            if self.cancel {
                self.hang_up(now);
            }
        } else if self.state == State::Talking && self.next_packet.is_none() {
            self.next_packet = Some(now);
        }
    }
}
