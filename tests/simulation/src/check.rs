//! The invariants, checked after every step on what was seen at the gateway's edge and on its disks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use consent::{CallId, Leg, RecordingId};
use earmark::demo::mu_law;
use recorder::Sealed;
use recorder::sealed::SealedReader;
use sha2::{Digest, Sha256};
use storage::{Entry, Stamped};

use crate::clock::{MS, SECOND, Time};
use crate::faults::{Crash, Faults};
use crate::gateway::{Machine, Seen, unwrap};
use crate::media::{Sent, is_media_port};
use crate::message::{Message, described};
use crate::network::{GATEWAY, Network};
use crate::phone::{Party, Phone, State};
use crate::reference::{Ground, Press, Span, Truth};
use crate::script::Plan;
use crate::sound;
use crate::told::Told;
use crate::world::Counts;

/// 40 ms at 8 kHz.
const WINDOW: usize = 320;
/// I3: how long a call waits for its journal entry.
const JOURNAL_WAIT: Time = 20 * MS;
/// I2: how long it waits for ports that do not come.
const BIND_WAIT: Time = 100 * MS;

/// An invariant does not hold.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
}

pub(crate) fn violation(invariant: &'static str, what: String) -> Violation {
    Violation { invariant, what }
}

/// A call as planned and as seen.
struct Watched {
    truth: Truth,
    emergency: bool,
    line_leg: Leg,
    answers: Option<u16>,
    cancels: bool,
    what: &'static str,
    /// By process: when its INVITE first arrived, and when it first went on or got a final answer.
    arrived: BTreeMap<u32, Time>,
    forwarded: BTreeMap<u32, Time>,
    answered: BTreeMap<u32, Time>,
    /// The highest CSeq of the requests inside each dialog, by Call-ID: what comes below it is refused (RFC
    /// 3261 §12.2.2) and changes nothing.
    sequences: BTreeMap<String, u32>,
    /// The gateway's own re-INVITEs to whom a transfer leaves: Call-ID, CSeq and the leg that changes.
    joining: Vec<(String, String, Leg)>,
    /// Call-ID and CSeq of what the gateway offers by itself to tell of recording: what crosses it is refused.
    indicating: Vec<(String, String)>,
}

pub(crate) struct Checks {
    watched: Vec<Watched>,
    crashes: Vec<(u32, Time, Crash)>,
    boot: u32,
    calls: BTreeMap<CallId, String>,
    plans: BTreeMap<String, usize>,
    pressed: BTreeSet<(u32, u32)>,
    sealed: BTreeMap<RecordingId, (String, Option<String>)>,
    tolerance: Time,
    /// The longest that a datagram is on its way.
    transit: Time,
    faults: Faults,
    clean: bool,
    late: Option<Violation>,
    told: Told,
    pub(crate) counts: Counts,
}

impl Checks {
    pub(crate) fn new(plans: &[Plan], faults: &Faults, network: &Network) -> Self {
        let watch = |plan: &Plan| Watched {
            truth: Truth::new(plan.ground),
            emergency: plan.emergency,
            line_leg: plan.line_leg,
            answers: plan.answers,
            cancels: plan.cancels,
            what: plan.what,
            arrived: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            answered: BTreeMap::new(),
            sequences: BTreeMap::new(),
            joining: Vec::new(),
            indicating: Vec::new(),
        };
        let plan_of = |(index, plan): (usize, &Plan)| (plan.phones[0].call_id.clone(), index);
        let mut counts = Counts::default();
        plans.iter().for_each(|plan| counts.add(plan.what));
        Self {
            watched: plans.iter().map(watch).collect(),
            crashes: Vec::new(),
            boot: 0,
            calls: BTreeMap::new(),
            plans: plans.iter().enumerate().map(plan_of).collect(),
            pressed: BTreeSet::new(),
            sealed: BTreeMap::new(),
            tolerance: (80 + network.jitter_ms) * MS,
            transit: (network.delay_ms + network.jitter_ms) * MS,
            faults: faults.clone(),
            clean: network.is_clean(),
            late: None,
            told: Told::default(),
            counts,
        }
    }

    pub(crate) fn crashed(&mut self, now: Time, kind: Crash) {
        self.counts.add(match kind {
            Crash::Killed if now > 60 * SECOND => "last restarts",
            Crash::Killed => "kill -9",
            Crash::PowerCut => "power cut",
        });
        self.crashes.push((self.boot, now, kind));
    }

    /// A datagram reaches the gateway.
    pub(crate) fn arrives(
        &mut self,
        machine: &mut Machine,
        phones: &[Vec<Phone>],
        now: Time,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) {
        self.boot = machine.boots;
        if is_media_port(to) {
            self.media_arrives(machine, phones, now, from, bytes);
        } else if let Some(message) = Message::parse(bytes) {
            self.message_arrives(machine, phones, now, &message);
        }
    }

    fn message_arrives(
        &mut self,
        machine: &mut Machine,
        phones: &[Vec<Phone>],
        now: Time,
        message: &Message,
    ) {
        let call_id = message.first("Call-ID");
        let Some(phone) = phones.iter().flatten().find(|phone| phone.call_id == call_id) else { return };
        let watched = &mut self.watched[phone.call];
        let is_next = watched.is_next(message);
        if let Some(wish) = watched.wishes(phone, now, message, is_next) {
            self.counts.add(wish);
        }
        let answers =
            |(call_id, cseq): &(String, String)| *call_id == phone.call_id && cseq == message.first("CSeq");
        if message.status().is_some_and(|status| status >= 200) {
            watched.indicating.retain(|offered| !answers(offered));
        }
        if message.method() != "INVITE" {
            return;
        }
        if message.status() == Some(200) {
            let joined = |(call_id, cseq, _): &(String, String, Leg)| {
                *call_id == phone.call_id && cseq == message.first("CSeq")
            };
            if let Some((_, _, leg)) = watched.joining.iter().find(|joining| joined(joining)).cloned() {
                self.counts.add("transferred by REFER");
                if let Some((_, end @ None)) = watched.truth.holds.last_mut() {
                    *end = Some(now);
                }
                watched.comes(now, leg, 1);
            }
        }
        match message.status() {
            Some(200) if phone.leg == Leg::B && !phone.is_newcomer => {
                watched.truth.answered.get_or_insert(now);
            }
            None if !message.first("To").contains(";tag=") => {
                watched.arrived.entry(self.boot).or_insert(now);
            }
            None if is_next && watched.arrived.contains_key(&self.boot) && watched.indicating.is_empty() => {
                self.counts.add("re-INVITEs");
                let late = self.faults.late_at_change_per_mille;
                if machine.random.per_mille(late) {
                    let to = now + machine.random.between(50, 2_000) * MS;
                    machine.faults.commands_late.add(now, to);
                    self.faults.commands_late.add(now, to);
                }
                watched.reinvited(phone, now, message);
            }
            _ => {}
        }
    }

    fn media_arrives(
        &mut self,
        machine: &mut Machine,
        phones: &[Vec<Phone>],
        now: Time,
        from: SocketAddr,
        bytes: &[u8],
    ) {
        let Some((header, payload)) = bytes.split_at_checked(12).filter(|(h, _)| h[0] == 0x80) else {
            return;
        };
        let word =
            |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (timestamp, ssrc) = (word(4), word(8));
        let speaks =
            |phone: &&Phone| phone.parties.iter().any(|party| party.ssrc == ssrc && party.media == from);
        let Some(phone) = phones.iter().flatten().find(speaks) else { return };
        let truth = &mut self.watched[phone.call].truth;
        let party = phone.parties.iter().position(|party| party.ssrc == ssrc).unwrap_or(0);
        let same_address = phone.parties[0].media == phone.parties[1].media;
        if party > 0 && same_address && !truth.arrivals.iter().any(|(_, leg, _)| *leg == phone.leg) {
            self.counts.add("taken over unannounced");
            truth.arrivals.push((now, phone.leg, party));
            if machine.random.per_mille(self.faults.late_at_change_per_mille) {
                let to = now + machine.random.between(50, 2_000) * MS;
                machine.faults.commands_late.add(now, to);
                self.faults.commands_late.add(now, to);
            }
        }
        // Until signalling says that a newcomer is there, and the media plane is told where, nobody hears it:
        // neither its voice nor its keys.
        let came = truth.arrivals.iter().rfind(|(_, leg, who)| (*leg, *who) == (phone.leg, party));
        let told = |at: Time| self.faults.commands_late.until(at).is_none_or(|told| now > told);
        if party > 0 && !same_address && !came.is_some_and(|(at, ..)| told(*at)) {
            return;
        }
        if header[1] & 0x7F == 101 && payload.len() >= 4 && self.pressed.insert((ssrc, timestamp)) {
            let key = match payload[0] {
                10 => '*',
                11 => '#',
                digit => char::from(b'0' + digit),
            };
            // Whom a transfer called presses at a telephone of its own.
            let mut presses = phones.iter().flatten().map(|phone| &phone.presses);
            let began = presses.find_map(|presses| presses.get(&(ssrc, timestamp)));
            let began = began.map_or(0, |began| began + self.transit);
            truth.keys.push(Press { arrived: now, began, leg: phone.leg, key });
        }
    }

    /// A datagram leaves the gateway.
    pub(crate) fn leaves(&mut self, phones: &[Vec<Phone>], now: Time, sent: &Sent) {
        if is_media_port(sent.from) {
            if sent.bytes.len() == 172 && sent.bytes[1] & 0x7F == 0 {
                self.asked(phones, now, sent);
            }
        } else if sent.from == GATEWAY
            && let Some(message) = Message::parse(&sent.bytes)
        {
            self.message_leaves(phones, now, &message);
        }
    }

    fn asked(&mut self, phones: &[Vec<Phone>], now: Time, sent: &Sent) {
        let is_to = |phone: &&Phone| phone.parties.iter().any(|party| party.media == sent.to);
        let Some(phone) = phones.iter().flatten().find(is_to) else { return };
        let samples: Vec<i16> = sent.bytes[12..].iter().map(|octet| mu_law::to_linear(*octet)).collect();
        if sound::is_heard(&samples, sound::QUESTION_HZ) {
            self.watched[phone.call].truth.asked.push((now, phone.leg));
        }
    }

    fn message_leaves(&mut self, phones: &[Vec<Phone>], now: Time, message: &Message) {
        if self.indicates(phones, message) {
            return;
        }
        if message.method() != "INVITE" {
            return;
        }
        if let Some(status) = message.status() {
            let initial = message.first("CSeq").starts_with("1 ");
            if let Some(index) = self.plans.get(message.first("Call-ID")).filter(|_| initial && status >= 200)
            {
                self.watched[*index].answered.entry(self.boot).or_insert(now);
            }
            return;
        }
        // What a telephone asked for carries its plan; what the gateway asks for a transfer does not.
        if message.first("X-Plan").is_empty() && message.first("To").contains(";tag=") {
            let (call_id, cseq) = (message.first("Call-ID").to_owned(), message.first("CSeq").to_owned());
            if let Some(phone) = phones.iter().flatten().find(|phone| phone.call_id == call_id) {
                self.watched[phone.call].joining.push((call_id, cseq, phone.leg.other()));
            }
            return;
        }
        let Ok(index) = message.first("X-Plan").parse::<usize>() else { return };
        if message.first("To").contains(";tag=") {
            return;
        }
        let watched = &mut self.watched[index];
        let first = watched.forwarded.insert(self.boot, now).is_none();
        let Some(arrived) = watched.arrived.get(&self.boot).filter(|_| first) else { return };
        let ports_late =
            self.faults.bind_fails_per_mille > 0 || self.faults.commands_late.touches(*arrived, now);
        let limit = if ports_late && !watched.emergency { BIND_WAIT } else { JOURNAL_WAIT };
        if now - arrived > limit + MS {
            let waited = (now - arrived) as f64 / 1_000.0;
            self.late = Some(violation(
                "I2",
                format!("a {} call waited {waited} ms before its INVITE went on", watched.what),
            ));
        }
    }

    /// Whether the gateway tells a telephone of recording.
    fn indicates(&mut self, phones: &[Vec<Phone>], message: &Message) -> bool {
        let own = message.status().is_none() && message.first("X-Plan").is_empty();
        if !own || !message.all("Supported").any(|option| option == "record-aware") {
            return false;
        }
        let (call_id, cseq) = (message.first("Call-ID").to_owned(), message.first("CSeq").to_owned());
        let Some(phone) = phones.iter().flatten().find(|phone| phone.call_id == call_id) else {
            return false;
        };
        let indicating = &mut self.watched[phone.call].indicating;
        if !indicating.contains(&(call_id.clone(), cseq.clone())) {
            indicating.push((call_id, cseq));
            self.counts.add("told of recording");
        }
        true
    }

    /// What the step has shown.
    pub(crate) fn see(&mut self, machine: &mut Machine, _now: Time) -> Result<(), Violation> {
        self.boot = machine.boots;
        if let Some(late) = self.late.take() {
            return Err(late);
        }
        for seen in std::mem::take(&mut machine.seen) {
            match seen {
                Seen::Offered(call, sip_call_id) => drop(self.calls.insert(call, sip_call_id)),
                Seen::Created(call, recording) => self.created(call, recording)?,
                Seen::Sealed(sealed) => self.sealed(machine, &sealed)?,
                Seen::Removed => self.counts.add("removed by recovery"),
                Seen::Stored(sealed, object) => {
                    self.counts.add("stored");
                    self.sealed.entry(sealed.recording).or_insert_with(|| (sealed.sha256.clone(), None)).1 =
                        Some(object);
                }
                Seen::Disorder(what) => self.disorder(what)?,
                Seen::Entry(stamped) => {
                    self.count(&stamped);
                    let whole = !self.faults.journal_failing.touches(0, Time::MAX);
                    self.told.see(&stamped.entry, whole)?;
                }
            }
        }
        Ok(())
    }

    fn disorder(&self, what: String) -> Result<(), Violation> {
        let cut = self.crashes.iter().any(|(_, _, kind)| *kind == Crash::PowerCut);
        if cut && what.contains("NeverStarted") {
            return Ok(());
        }
        Err(violation(if what.starts_with("I3") { "I3" } else { "I5" }, what))
    }

    fn plan_of(&self, call: CallId) -> Option<&Watched> {
        self.plans.get(self.calls.get(&call)?).map(|index| &self.watched[*index])
    }

    fn created(&mut self, call: CallId, recording: RecordingId) -> Result<(), Violation> {
        self.counts.add("recordings begun");
        let Some(watched) = self.plan_of(call) else {
            return Err(violation("I1", format!("recording {recording} is of no call")));
        };
        if watched.truth.spans().is_empty() {
            let (what, mut truth) = (watched.what, watched.truth.clone());
            truth.asked.dedup_by_key(|(_, leg)| *leg);
            let found = format!("a file is in the spool for a {what} call that nothing allows: {truth:?}");
            return Err(violation("I1", found));
        }
        Ok(())
    }

    fn sealed(&mut self, machine: &Machine, sealed: &Sealed) -> Result<(), Violation> {
        let id = sealed.recording;
        if let Some((sha256, _)) = self.sealed.get(&id) {
            return if *sha256 == sealed.sha256 {
                Ok(())
            } else {
                Err(violation("I5", format!("recording {id} was sealed and has changed")))
            };
        }
        self.counts.add(if sealed.recovered { "sealed by recovery" } else { "sealed" });
        let bytes = std::fs::read(&sealed.file)
            .map_err(|e| violation("I5", format!("recording {id} is gone: {e}")))?;
        if hex::encode(Sha256::digest(&bytes)) != sealed.sha256 {
            return Err(violation("I5", format!("recording {id} is not the file that was sealed")));
        }
        let key = unwrap(&sealed.wrapped_key)
            .ok_or_else(|| violation("I5", format!("recording {id} has no key")))?;
        let opened = SealedReader::open(bytes.as_slice(), &key).and_then(SealedReader::read_to_end);
        let opened = opened.map_err(|e| violation("I5", format!("recording {id} does not open: {e}")))?;
        self.sealed.insert(id, (sealed.sha256.clone(), None));
        if sealed.intervals.is_empty() {
            return Err(violation("I1", format!("recording {id} is on no basis")));
        }
        self.listen(machine, sealed, &opened.ogg)
    }

    /// I1: whose voice is in the recording, and when.
    fn listen(&mut self, machine: &Machine, sealed: &Sealed, ogg: &[u8]) -> Result<(), Violation> {
        let id = sealed.recording;
        let Some(index) = self.calls.get(&sealed.call).and_then(|call| self.plans.get(call)).copied() else {
            return Err(violation("I1", format!("recording {id} is of no call")));
        };
        let (_, channels) = recorder::ogg_opus::decode_pcm(ogg)
            .map_err(|error| violation("I5", format!("recording {id} does not play: {error}")))?;
        let began = machine.wall.when(sealed.started_at);
        let began = began.ok_or_else(|| violation("I5", format!("recording {id} began at no time")))?;
        let spans = self.watched[index].truth.spans();
        for (channel, samples) in channels.iter().enumerate() {
            let mut before = Vec::new();
            for (n, window) in samples.chunks_exact(WINDOW).enumerate() {
                if !sound::is_steady(window) {
                    continue;
                }
                let at = began + (n * 40 + 20) as Time * MS;
                let voices = sound::voices(window);
                // Heard for 80 ms: a key's beginning or a packet's loss is no voice.
                let lasting = voices.iter().copied().filter(|hz| before.contains(hz)).collect::<Vec<u32>>();
                before = voices;
                for hz in lasting {
                    self.counts.add("voices heard in recordings");
                    let speaker = voice(index, hz);
                    let allowed = speaker.is_some_and(|(leg, party)| {
                        let near = |span: &Span| {
                            let to = span.to.saturating_add(self.tolerance);
                            at + self.tolerance >= span.from && at <= to
                        };
                        spans.iter().any(|span| span.parties[leg.index()] == party && near(span))
                    });
                    if !allowed {
                        let ms = at as f64 / 1_000.0;
                        let shown: Vec<_> =
                            spans.iter().map(|s| (s.from / MS, s.to / MS, s.parties)).collect();
                        return Err(violation(
                            "I1",
                            format!(
                                "a {} call: voice of {hz} Hz ({speaker:?}) in channel {channel} at {ms} ms is in recording {id}, allowed (ms): {shown:?}",
                                self.watched[index].what
                            ),
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    fn count(&mut self, stamped: &Stamped) {
        match &stamped.entry {
            Entry::CallEnded(ended) => {
                let outcome = serde_name(&format!("{:?}", ended.recording_outcome));
                self.counts.add(outcome);
                self.counts.add("calls ended");
            }
            Entry::PreambleWiped { .. } => self.counts.add("preambles wiped"),
            Entry::RecordingFailed { .. } => self.counts.add("recordings failed"),
            Entry::RecordingStarted { basis, .. } => {
                self.counts.add(if *basis == consent::Basis::DispatchLine {
                    "basis dispatch-line"
                } else {
                    "basis all-party-consent"
                });
            }
            _ => {}
        }
    }

    /// What must hold at the end, when all has come to rest.
    pub(crate) fn finish(&mut self, machine: &Machine, phones: &[Vec<Phone>]) -> Result<(), Violation> {
        for (id, (sha256, object)) in &self.sealed {
            let Some(object) = object else {
                return Err(violation("I5", format!("recording {id} was sealed and never stored")));
            };
            machine
                .objects
                .verify(object, sha256)
                .map_err(|e| violation("I5", format!("recording {id}: {e}")))?;
            let rows =
                machine.database.iter().filter_map(|record| record.recordings.get(id)?.stored.as_ref());
            let stated: Vec<&str> = rows.map(|row| row.sha256.as_str()).collect();
            if stated != [sha256.as_str()] && !self.has_power_cut() {
                let count = stated.len();
                return Err(violation(
                    "I5",
                    format!("recording {id} is in the store, and {count} records have it"),
                ));
            }
        }
        let left = std::fs::read_dir(&machine.spool).into_iter().flatten().flatten();
        if let Some(file) = left.map(|entry| entry.path()).next() {
            return Err(violation("I5", format!("{} was left in the spool", file.display())));
        }
        for (index, call) in phones.iter().enumerate() {
            self.completed(index, call)?;
            self.recorded_once(machine, index, &call[0].call_id)?;
        }
        Ok(())
    }

    fn has_power_cut(&self) -> bool {
        self.crashes.iter().any(|(_, _, kind)| *kind == Crash::PowerCut)
    }

    /// I2: without a crash every call comes out as the callee wanted.
    fn completed(&mut self, index: usize, call: &[Phone]) -> Result<(), Violation> {
        let watched = &self.watched[index];
        let [caller, callee, newcomer @ ..] = call else { return Ok(()) };
        let crashed = self.crashes.iter().any(|(_, at, _)| *at < 60 * SECOND);
        if crashed {
            return Ok(());
        }
        if !watched.cancels && caller.final_status != watched.answers {
            return Err(violation(
                "I2",
                format!(
                    "a {} call came out with {:?}, its callee wanted {:?}",
                    watched.what, caller.final_status, watched.answers
                ),
            ));
        }
        let is_over = |phone: &Phone| matches!(phone.state, State::Ended | State::Idle);
        // A callee is never called where the cancellation came before the INVITE went on.
        let uncalled = caller.final_status == Some(487) && watched.forwarded.is_empty();
        let callee_is_over = if uncalled { is_over(callee) } else { callee.state == State::Ended };
        if caller.state != State::Ended || !callee_is_over || !newcomer.iter().all(is_over) {
            let states: Vec<State> = call.iter().map(|phone| phone.state).collect();
            return Err(violation(
                "I2",
                format!("a {} call never ended: {states:?}, clean network: {}", watched.what, self.clean),
            ));
        }
        self.counts.add("completed without a crash");
        Ok(())
    }

    /// I3: one record for each INVITE that went on or got a final answer, none twice, all ended.
    fn recorded_once(&mut self, machine: &Machine, index: usize, call_id: &String) -> Result<(), Violation> {
        let watched = &self.watched[index];
        let records: Vec<_> =
            machine.database.iter().filter(|record| record.sip_call_ids.contains(call_id)).collect();
        if let Some(open) = records.iter().find(|record| record.ended.is_none()) {
            return Err(violation("I3", format!("the record of call {} never ended", open.started.call)));
        }
        if records.len() > watched.arrived.len() {
            return Err(violation(
                "I3",
                format!(
                    "{} records for {} INVITEs of a {} call",
                    records.len(),
                    watched.arrived.len(),
                    watched.what
                ),
            ));
        }
        let went_on = watched.forwarded.iter().chain(&watched.answered);
        let went_on: BTreeMap<u32, Time> = went_on.map(|(boot, at)| (*boot, *at)).rev().collect();
        let must =
            went_on.iter().filter(|(boot, at)| !self.may_be_lost(**boot, **at, watched.emergency)).count();
        if records.len() < must {
            return Err(violation(
                "I3",
                format!(
                    "{} records for {must} INVITEs of a {} call that went on",
                    records.len(),
                    watched.what
                ),
            ));
        }
        self.counts.add("calls recorded in the database");
        Ok(())
    }

    /// What the design says may be lost: what was not written, or not synced, when the process or the power went.
    fn may_be_lost(&self, boot: u32, at: Time, emergency: bool) -> bool {
        let Some((_, crash, kind)) = self.crashes.iter().find(|(b, _, _)| *b == boot) else { return false };
        let unwritten = self.faults.journal_failing.touches(at.saturating_sub(SECOND), *crash)
            || self.faults.journal_slow.touches(at.saturating_sub(SECOND), *crash);
        let unsynced = *kind == Crash::PowerCut && crash - at < (60 + 2 * self.faults.sync_ms + 60) * MS;
        unwritten || unsynced || (emergency && crash - at < 150 * MS)
    }
}

impl Watched {
    /// Takes in what a telephone says of being recorded, as the gateway must at the latest.
    fn wishes(&mut self, phone: &Phone, now: Time, message: &Message, is_next: bool) -> Option<&'static str> {
        let wish = message.body.lines().find_map(|line| line.strip_prefix("a=recordpref:"))?.trim_end();
        let shown = |party: &Party| message.first("Contact").contains(&format!("sip:{}@", party.number));
        let party = phone.parties.iter().rposition(shown).unwrap_or(0);
        let replaced = self.truth.arrivals.iter().any(|(_, leg, _)| *leg == phone.leg);
        let initial = message.first("CSeq").starts_with("1 ") || message.status() == Some(200);
        let heard = is_next || initial;
        match wish {
            "on" if phone.is_trusted => self.truth.wishes.push((now, phone.leg, party)),
            "off" | "pause" if heard && !replaced => drop(self.truth.refused.get_or_insert(now)),
            _ => return None,
        }
        Some(if wish == "on" { "telephones that wanted a recording" } else { "telephones that refused one" })
    }

    /// Whether this is a request inside a dialog that was neither seen before nor overtaken by a later one.
    fn is_next(&mut self, message: &Message) -> bool {
        let outside = !message.first("To").contains(";tag=");
        if message.status().is_some() || outside || matches!(message.method(), "ACK" | "CANCEL") {
            return false;
        }
        let last = self.sequences.entry(message.first("Call-ID").to_owned()).or_default();
        let before = std::mem::replace(last, message.sequence().max(*last));
        *last > before
    }

    fn reinvited(&mut self, phone: &Phone, now: Time, message: &Message) {
        let flow = described(&message.body).map_or("sendrecv", |(_, flow)| flow);
        let held = self.truth.holds.last().is_some_and(|(_, to)| to.is_none());
        match (flow, held) {
            ("sendonly" | "inactive", false) => self.truth.holds.push((now, None)),
            ("sendrecv", true) => {
                if let Some(last) = self.truth.holds.last_mut() {
                    last.1 = Some(now);
                }
            }
            _ => {}
        }
        let present = phone
            .parties
            .iter()
            .rposition(|party| message.first("Contact").contains(&format!("sip:{}@", party.number)));
        if let Some(party) = present.filter(|party| *party > 0) {
            self.comes(now, phone.leg, party);
        }
    }

    fn comes(&mut self, now: Time, leg: Leg, party: usize) {
        if self.truth.arrivals.iter().any(|(_, known, _)| *known == leg) {
            return;
        }
        self.truth.arrivals.push((now, leg, party));
        if self.truth.ground == Ground::Dispatch && leg == self.line_leg {
            self.truth.left_line.get_or_insert(now);
        }
    }
}

/// Which party of the call sounds like that, if one does.
fn voice(call: usize, hz: u32) -> Option<(Leg, usize)> {
    let of = |leg: Leg, n: usize| sound::VOICES[(call * 4 + leg.index() * 2 + n) % sound::VOICES.len()];
    Leg::BOTH.into_iter().flat_map(|leg| [(leg, 0), (leg, 1)]).find(|(leg, n)| of(*leg, *n) == hz)
}

fn serde_name(outcome: &str) -> &'static str {
    const NAMES: [&str; 11] = [
        "Recorded",
        "PartlyRecorded",
        "NotPermitted",
        "Refused",
        "Withdrawn",
        "PromptIncomplete",
        "NotAsked",
        "NeverLine",
        "UnionLine",
        "Emergency",
        "Failed",
    ];
    NAMES.into_iter().find(|name| *name == outcome).unwrap_or("?")
}
