//! One seed: the gateway, its peers, the people, the network and the faults, step by step.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use consent::Leg;
use recorder::prompt::PromptSet;
use storage::Objects;

use crate::check::{Checks, Violation};
use crate::clock::{MS, Queue, SECOND, Time, WallClock};
use crate::faults::{Crash, Faults};
use crate::gateway::{Machine, Process, Setup};
use crate::media::{Sent, is_media_port};
use crate::message::{Message, described, parameter};
use crate::network::{CARRIER, GATEWAY, Network, PBX, STRANGER};
use crate::phone::{Phone, State};
use crate::random::Random;
use crate::script::{self, Plan};
use crate::sound;

/// From when on nothing goes wrong any more.
const HORIZON: Time = 20 * SECOND;
/// By when every transaction's timers have run out and all is delivered.
const END: Time = 140 * SECOND;
static PROMPTS: LazyLock<Result<Arc<PromptSet>, String>> =
    LazyLock::new(|| prompts().map_err(|e| e.to_string()));

/// Short notices of one tone each.
fn prompts() -> Result<Arc<PromptSet>, Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    for (name, hz, ms) in [
        ("question", sound::QUESTION_HZ, 600),
        ("recording", sound::NOTICE_HZ, 200),
        ("not-recording", sound::NOTICE_HZ, 200),
        ("stopped", sound::NOTICE_HZ, 200),
    ] {
        fs::write(folder.path().join(format!("{name}.en.wav")), sound::wav(hz, ms))?;
    }
    Ok(Arc::new(PromptSet::load(Some(folder.path()), &["en".to_owned()])?))
}

/// What a seed went through, so that it can be seen that something happened.
#[derive(Clone, Debug, Default)]
pub struct Counts(pub BTreeMap<&'static str, u64>);

impl Counts {
    pub(crate) fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

/// A seed that broke an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which seed.
    pub seed: u64,
    /// At which step.
    pub step: u64,
    /// `I1` to `I6`.
    pub invariant: &'static str,
    /// What was found.
    pub what: String,
    /// The last events.
    pub trace: Vec<String>,
}

enum Happens {
    Arrives { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    Crashes(Crash, Time),
    Starts,
    Garbage,
}

struct World {
    now: Time,
    step: u64,
    queue: Queue<Happens>,
    network: Network,
    machine: Machine,
    process: Option<Process>,
    setup: Setup,
    phones: Vec<Vec<Phone>>,
    checks: Checks,
    random: Random,
    trace: VecDeque<String>,
    lines: usize,
}

/// Runs one seed; of a failing one, the last `lines` events are kept.
///
/// # Errors
/// The first invariant that it breaks.
pub fn run(seed: u64, lines: usize) -> Result<Counts, Box<Failure>> {
    let broken =
        |what: String| Box::new(Failure { seed, step: 0, invariant: "setup", what, trace: Vec::new() });
    let shared = Path::new("/dev/shm");
    let base = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(base).map_err(|e| broken(e.to_string()))?;
    let mut world = World::new(seed, lines, folder.path()).map_err(|error| broken(error.to_string()))?;
    let outcome = world.run();
    outcome.map_err(|violation| {
        let trace = world.trace.iter().cloned().collect();
        Box::new(Failure {
            seed,
            step: world.step,
            invariant: violation.invariant,
            what: violation.what,
            trace,
        })
    })?;
    Ok(world.checks.counts)
}

impl World {
    fn new(seed: u64, lines: usize, folder: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let mut random = Random::new(seed);
        let network = Network::draw(&mut random);
        let mut faults = Faults::draw(&mut random, HORIZON);
        faults.end(HORIZON);
        let signalled = [random.per_mille(900), random.per_mille(900)];
        let count = random.between(1, 3) as usize;
        let mut apart = random.apart();
        let trusted = [apart.per_mille(800), apart.per_mille(500)];
        let plans: Vec<Plan> =
            (0..count).map(|index| script::draw(&mut random, index, signalled, trusted)).collect();
        let spool = folder.join("spool");
        fs::create_dir(&spool)?;
        let objects = Objects::open(&folder.join("audio"))?;
        let wall = WallClock::new(faults.wall_jump);
        let mut queue = Queue::new();
        for (at, kind, back) in faults.crashes.clone() {
            queue.push(at, Happens::Crashes(kind, back));
        }
        queue.push(0, Happens::Starts);
        if faults.garbage_per_s > 0 {
            queue.push(0, Happens::Garbage);
        }
        let checks = Checks::new(&plans, &faults, &network);
        let machine = Machine::new(wall, faults, spool, objects, random.split());
        let prompts = PROMPTS.clone()?;
        let setup =
            Setup { config: Arc::new(script::config(signalled, trusted)), rules: script::rules()?, prompts };
        let phones = plans.into_iter().map(|plan| plan.phones).collect();
        let trace = VecDeque::new();
        Ok(Self {
            now: 0,
            step: 0,
            queue,
            network,
            machine,
            process: None,
            setup,
            phones,
            checks,
            random,
            trace,
            lines,
        })
    }

    fn run(&mut self) -> Result<(), Violation> {
        let mut restarted = false;
        while let Some(at) = self.next_due() {
            self.now = self.now.max(at);
            self.step += 1;
            if self.now > END {
                break;
            }
            self.happen();
            self.transmit();
            self.checks.see(&mut self.machine, self.now)?;
            // The last restart: what the one before could not store or end is done now.
            if !restarted && self.now > HORIZON + 70 * SECOND {
                restarted = true;
                self.crash(Crash::Killed, self.now + 10 * MS);
            }
            if restarted && self.is_over() {
                break;
            }
        }
        self.checks.finish(&self.machine, &self.phones)
    }

    fn is_over(&self) -> bool {
        let quiet = self.phones.iter().flatten().all(|phone| phone.next_due().is_none());
        quiet && self.process.as_ref().is_some_and(|process| process.is_at_rest(&self.machine))
    }

    fn next_due(&self) -> Option<Time> {
        let phones = self.phones.iter().flatten().filter_map(Phone::next_due);
        let process = self.process.as_ref().and_then(Process::next_due);
        phones.chain(process).chain(self.queue.next_at()).min()
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if self.trace.len() == self.lines {
            self.trace.pop_front();
        }
        let line = format!("{:>12.3} ms  {}", self.now as f64 / 1_000.0, line());
        self.trace.push_back(line);
    }

    fn happen(&mut self) {
        if let Some(event) = self.queue.pop_due(self.now) {
            return self.on_event(event);
        }
        if let Some(process) =
            self.process.as_mut().filter(|p| p.next_due().is_some_and(|due| due <= self.now))
        {
            return process.on_time(&mut self.machine, self.now);
        }
        for call in &mut self.phones {
            let free = !call.iter().any(Phone::is_offering);
            for phone in call {
                if phone.next_due().is_some_and(|due| due <= self.now) {
                    phone.on_time(self.now, free);
                    return;
                }
            }
        }
    }

    fn on_event(&mut self, event: Happens) {
        match event {
            Happens::Arrives { from, to, bytes } => self.arrive(from, to, &bytes),
            Happens::Crashes(kind, back) => self.crash(kind, back),
            Happens::Starts => {
                self.process = Process::start(&mut self.machine, &self.setup, self.now);
                let started = self.process.is_some();
                self.note(|| format!("the gateway starts: {started}"));
                if !started {
                    self.queue.push(self.now + 500 * MS, Happens::Starts);
                }
            }
            Happens::Garbage => {
                self.garbage();
                let pause = SECOND / self.machine.faults.garbage_per_s.max(1);
                if self.now < HORIZON {
                    self.queue.push(self.now + pause, Happens::Garbage);
                }
            }
        }
    }

    fn crash(&mut self, kind: Crash, back: Time) {
        self.note(|| format!("{kind:?}"));
        if self.process.take().is_some() {
            self.machine.crash(kind);
            self.checks.crashed(self.now, kind);
            self.queue.push(back, Happens::Starts);
        }
    }

    /// Datagrams that mean nothing, or come from where they should not.
    fn garbage(&mut self) {
        let length = self.random.between(1, 300) as usize;
        let bytes = self.random.bytes(length);
        let call = self.random.next() as usize % self.phones.len();
        let phone = &self.phones[call][self.random.between(0, 1) as usize];
        let media = phone.remote_media;
        let (from, to, bytes) = match (self.random.between(0, 3), media) {
            (0, _) | (_, None) => (self.random.pick(&[PBX, CARRIER, STRANGER]), GATEWAY, bytes),
            (1, Some(media)) => (STRANGER, media, bytes),
            (2, Some(media)) => {
                // Of no version of RTP: noise that looks like speech would be speech.
                let mut bytes = bytes;
                bytes[0] &= 0x3F;
                (phone.speaker().media, media, bytes)
            }
            (_, Some(media)) => {
                let mut rtp = vec![0x80, 0];
                rtp.extend(self.random.bytes(6));
                rtp.extend([9, 9, 9, 9]);
                rtp.extend(sound::tone(sound::STRANGER_HZ));
                (STRANGER, media, rtp)
            }
        };
        self.queue.push(self.now, Happens::Arrives { from, to, bytes });
    }

    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if to.ip() == GATEWAY.ip() {
            if self.process.is_none() {
                return;
            }
            if to == GATEWAY && Message::parse(bytes).is_some() {
                self.note(|| format!("{from} -> gateway: {}", first_line(bytes)));
            }
            self.checks.arrives(&mut self.machine, &self.phones, self.now, from, to, bytes);
            if let Some(process) = &mut self.process {
                process.on_datagram(&mut self.machine, self.now, from, to, bytes);
            }
            return;
        }
        let Some(message) = Message::parse(bytes) else { return };
        if let Some(phone) = addressee(&mut self.phones, to, &message) {
            phone.on_message(self.now, &message);
        }
    }

    /// What gateway and telephones have sent goes on its way.
    fn transmit(&mut self) {
        let mut sent: Vec<Sent> = Vec::new();
        if let Some(process) = &mut self.process {
            sent.append(&mut process.sent);
        }
        for datagram in &sent {
            self.checks.leaves(&self.phones, self.now, datagram);
            if datagram.from == GATEWAY {
                self.note(|| format!("gateway -> {}: {}", datagram.to, first_line(&datagram.bytes)));
            }
        }
        for phone in self.phones.iter_mut().flatten() {
            sent.append(&mut phone.sent);
        }
        for Sent { from, to, bytes } in sent {
            // Nobody listens to what a telephone hears: the gateway's edge has seen it.
            if is_media_port(from) {
                continue;
            }
            for at in self.network.arrivals(self.now) {
                self.queue.push(at, Happens::Arrives { from, to, bytes: bytes.clone() });
            }
        }
    }
}

fn first_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line: String = text.lines().next().unwrap_or("").chars().take(60).collect();
    let cseq = text.lines().find(|line| line.starts_with("CSeq")).unwrap_or("");
    let body = described(&text).map_or(String::new(), |(media, flow)| format!(" {media} {flow}"));
    format!("{line} {cseq}{body}")
}

/// The end of a call that a message of the gateway's is for.
fn addressee<'a>(phones: &'a mut [Vec<Phone>], to: SocketAddr, message: &Message) -> Option<&'a mut Phone> {
    let call_id = message.first("Call-ID");
    let known = phones.iter().flatten().any(|phone| phone.call_id == call_id);
    if known {
        return phones.iter_mut().flatten().find(|phone| phone.call_id == call_id);
    }
    let (place, plan) = match message.first("X-Plan") {
        // Whom a REFER names: the plan is in the address.
        "" => (2, parameter(message.start.split(' ').nth(1)?, "plan")),
        plan => (Leg::B.index(), plan),
    };
    let index: usize = plan.parse().ok()?;
    let callee = phones.get_mut(index)?.get_mut(place)?;
    (callee.peer == to && callee.state == State::Idle).then_some(callee)
}
