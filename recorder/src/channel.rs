//! One party's channel of a recording: where each packet's samples belong in time, and what is missing.
//!
//! A packet belongs where its RTP timestamp says, as long as the time of its arrival bears that out; the
//! count of packets decides nothing. Positions are in samples at 8 kHz since the recording's first frame
//! arrived, and may be negative until the first sample is emitted.
//!
//! | packet of a source | becomes |
//! |---|---|
//! | first of a source (SSRC) | its timestamp is taken to stand for its arrival, or for the end of what the leg sent last, if that was within [`SNAP`]; packets that then come earlier than this allows move it back, until the first of its samples is emitted |
//! | next in sequence, timestamp within [`AHEAD`] after and [`BEHIND`] before its arrival | placed |
//! | earlier in sequence | placed if there is a hole for it and it is not yet emitted, else dropped (duplicate, late) |
//! | next in sequence, too late to be emitted | dropped; if that goes on for [`LATE_FOR`], the source is anchored anew |
//! | next in sequence, timestamp somewhere else | the source is anchored anew |
//! | any that would stand further than [`AHEAD`] after its arrival | dropped: a flood cannot lengthen a recording |
//!
//! A hole before a packet is *loss* if sequence numbers are missing, silence if comfort noise was announced
//! (RFC 3389), and *unsent* otherwise. The sender's clock is compared with ours over windows of a second by
//! the least delay seen (so that jitter does not count), and drift over [`DRIFT`] is taken out by at most
//! 2 ms a second, by dropping or repeating samples. Left out: concealment of loss.

use consent::{GapCause, Leg};

use crate::{Codec, g711};

/// Samples of the ring: the delay of emission, the span of positions accepted and a reserve.
const WINDOW: usize = 8_192;
/// How long after a packet's arrival its samples may begin: the jitter of the packet that anchored its source.
const AHEAD: i64 = 1_200;
/// How long before a packet's arrival its samples may begin without it being late for certain.
const BEHIND: i64 = 4_000;
/// A new source that begins this close to the end of the old one goes on from there without a break.
const SNAP: i64 = 480;
/// For how long all packets must be late before the delay of the path has evidently changed.
const LATE_FOR: i64 = 4_000;
/// Sequence numbers this far back are not reordering: the source began anew.
const RESTART: i16 = -100;
/// Longest packet time in use, 200 ms: bounds by how much a timestamp may grow with each sequence number.
const PACKET_MAX: i64 = 1_600;
/// A hole this short is filled by repeating the last sample; it comes from taking out drift.
const REPEAT: i64 = 16;
/// Drift beyond which it is taken out, and below which that stops.
const DRIFT: i64 = 160;
const DRIFT_SETTLED: i64 = 40;
/// Over which the least delay is taken.
const DRIFT_WINDOW: i64 = 8_000;
/// After a key press its end is sent three times instead of audio (RFC 4733 §2.5.1.4).
const DIGIT_TAIL: i64 = 800;
/// What is not decoded is taken to last this long, and to go on if more follows within 200 ms.
const OPAQUE: i64 = 160;

/// Loss from 10 ms on is listed; a packet lost is 20 ms or 10 ms.
const LISTED_LOSS: i64 = 80;
/// Unsent stretches over 20 ms are listed.
const LISTED_UNSENT: i64 = 161;
/// At the start and the end of a recording the legs differ by more than that; from 200 ms on it is listed.
const LISTED_EDGE: i64 = 1_600;

/// One channel.
#[derive(Debug)]
pub(crate) struct Channel {
    leg: Leg,
    cells: Box<[Cell]>,
    source: Option<Source>,
    /// Where the first sample of the leg stands.
    first: Option<i64>,
    /// After the last sample placed.
    end: Option<i64>,
    before: Before,
    told: Option<Told>,
    /// The press whose tone is kept: its later packets belong to it, whatever they are marked as.
    kept: Option<(u32, u32, char)>,
    run: Option<Run>,
    /// Comfort noise is in force where samples are emitted.
    comfort: bool,
    heard: bool,
}

/// Something missing: positions, and the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) cause: GapCause,
    pub(crate) leg: Leg,
}

/// An audio packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) codec: Codec,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    pub(crate) audio: &'a [u8],
}

/// A key press so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Press {
    pub(crate) ssrc: u32,
    pub(crate) timestamp: u32,
    pub(crate) duration: u16,
    /// The key whose tone is to be heard, where the press is an answer that belongs in the recording.
    pub(crate) answer: Option<char>,
}

#[derive(Clone, Copy, Debug)]
struct Cell {
    own: i16,
    told: i16,
    mark: Mark,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Empty,
    Audio,
    Comfort,
    Missing(GapCause),
}

/// A stretch without audio that has been emitted and goes on. `Empty`: it is not yet known why.
#[derive(Clone, Copy, Debug)]
struct Run {
    from: i64,
    mark: Mark,
    edge: bool,
}

/// What was learnt since the last packet that was placed.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    missing: u32,
    presses: u32,
    overrun: bool,
    comfort: bool,
    digit: bool,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    timestamp: u32,
    position: i64,
    end: i64,
}

/// The mapping of one source's timestamps to positions: the newest packet's.
#[derive(Clone, Copy, Debug)]
struct Source {
    ssrc: u32,
    sequence: Option<u16>,
    timestamp: u32,
    position: i64,
    /// Where its first sample stands, and the earliest that it may be moved to.
    first: i64,
    after: i64,
    late_since: Option<i64>,
    drift: Drift,
}

#[derive(Clone, Copy, Debug)]
struct Drift {
    since: i64,
    least: i64,
    correcting: bool,
}

impl Channel {
    pub(crate) fn new(leg: Leg) -> Self {
        Self {
            leg,
            cells: vec![Cell::EMPTY; WINDOW].into_boxed_slice(),
            source: None,
            first: None,
            end: None,
            before: Before::default(),
            told: None,
            kept: None,
            run: None,
            comfort: false,
            heard: false,
        }
    }

    /// Where the leg's first sample stands.
    pub(crate) const fn first(&self) -> Option<i64> {
        self.first
    }

    /// After the last sample, spoken or told.
    pub(crate) fn end(&self) -> Option<i64> {
        self.end.max(self.told.map(|told| told.end))
    }

    /// Places an audio packet that arrived at `arrival`. Samples before `floor` have been emitted.
    pub(crate) fn place(&mut self, arrival: i64, floor: Option<i64>, packet: Packet<'_>) {
        let samples = match packet.codec {
            Codec::Other => return self.place_opaque(arrival, floor),
            Codec::ComfortNoise => 0,
            Codec::Pcmu | Codec::Pcma => packet.audio.len() as i64,
        };
        let Some(position) = self.locate(arrival, floor, &packet, samples) else { return };
        self.open_up(position, floor);
        let limit = floor.unwrap_or(i64::MIN);
        match packet.codec {
            Codec::ComfortNoise => {
                self.mark(position.max(limit)..position + OPAQUE, Mark::Comfort);
                self.before.comfort = true;
            }
            _ => {
                for (offset, octet) in packet.audio.iter().enumerate() {
                    let at = position + offset as i64;
                    if at >= limit {
                        self.cell(at).speak(decode(packet.codec, *octet));
                    }
                }
            }
        }
        // It was overtaken by the source's first packet: what lies between them has yet to come, or never will.
        if let Some(first) = self.source.map(|source| source.first) {
            self.mark((position + samples).max(limit)..first, Mark::Missing(GapCause::Loss));
        }
        self.reach(position, position + samples);
    }

    /// Places what the gateway told the party, as it left.
    pub(crate) fn tell(&mut self, left: i64, floor: Option<i64>, codec: Codec, timestamp: u32, audio: &[u8]) {
        let follows = self.told.map(|told| (told.position + difference(timestamp, told.timestamp), told.end));
        let position = follows.map_or(left, |(position, end)| {
            let near = (position - left).abs() <= SNAP && position >= end;
            if near { position } else { left.max(end.min(left + AHEAD)) }
        });
        let limit = floor.unwrap_or(i64::MIN);
        for (offset, octet) in audio.iter().enumerate() {
            let at = position + offset as i64;
            if at >= limit {
                self.cell(at).told = decode(codec, *octet);
            }
        }
        self.told = Some(Told { timestamp, position, end: position + audio.len() as i64 });
        self.first = Some(self.first.map_or(position, |first| first.min(position)));
    }

    /// Takes a key press out, or puts its tone in.
    pub(crate) fn press(&mut self, arrival: i64, floor: Option<i64>, mut press: Press) {
        match (press.answer, self.kept) {
            (Some(key), _) => self.kept = Some((press.ssrc, press.timestamp, key)),
            (None, Some((ssrc, timestamp, key))) if (ssrc, timestamp) == (press.ssrc, press.timestamp) => {
                press.answer = Some(key);
            }
            (None, _) => {}
        }
        let duration = i64::from(press.duration);
        let mapped = self.source.filter(|source| source.ssrc == press.ssrc);
        let mapped = mapped.map(|source| source.position + difference(press.timestamp, source.timestamp));
        let plausible = |at: &i64| (arrival - BEHIND..=arrival + AHEAD).contains(&(at + duration));
        let position = match mapped.filter(plausible) {
            Some(position) => position,
            None => {
                let at = (arrival - duration).max(self.end.unwrap_or(i64::MIN)).min(arrival);
                self.source = Some(Source::anchored(press.ssrc, None, press.timestamp, at, self.end));
                at
            }
        };
        // What is before the first frame is before the recording, however long the key has been down.
        let position = position.max(arrival - BEHIND).max(0);
        if self.end.is_none_or(|end| end <= position) {
            self.open_up(position, floor);
        }
        let to = (position + duration).min(arrival + OPAQUE);
        for at in position.max(floor.unwrap_or(i64::MIN))..to {
            let cell = self.cell(at);
            match press.answer {
                Some(key) => {
                    if cell.mark != Mark::Audio {
                        cell.speak(tone(key, at - position));
                    }
                }
                None => (cell.own, cell.mark) = (0, Mark::Missing(GapCause::Digit)),
            }
        }
        self.reach(position, to);
        self.before.presses = self.before.presses.saturating_add(1);
        self.before.digit = press.answer.is_none();
    }

    /// Frames of the leg were lost between the relay and here: the next hole is the recorder's doing.
    pub(crate) const fn overrun(&mut self) {
        self.before.overrun = true;
    }

    /// Emits the sample at `position`, and reports what turned out to be missing before it.
    pub(crate) fn emit(&mut self, position: i64, report: &mut impl FnMut(Missing)) -> i16 {
        let cell = std::mem::replace(self.cell(position), Cell::EMPTY);
        match cell.mark {
            Mark::Audio => {
                (self.comfort, self.heard) = (false, true);
                self.close_run(position, report);
            }
            Mark::Comfort => {
                self.comfort = true;
                self.close_run(position, report);
            }
            Mark::Empty if self.comfort => {}
            mark => {
                self.comfort = false;
                if self.run.is_some_and(|run| run.mark != mark) {
                    self.close_run(position, report);
                }
                if self.run.is_none() {
                    self.run = Some(Run { from: position, mark, edge: !self.heard });
                }
            }
        }
        cell.own.saturating_add(cell.told)
    }

    /// Ends the stretch without audio that reaches up to `position`, at the end of the recording or a hold.
    pub(crate) fn close(&mut self, position: i64, report: &mut impl FnMut(Missing)) {
        if let Some(run) = &mut self.run {
            run.edge |= run.mark == Mark::Empty;
        }
        self.close_run(position, report);
    }

    /// Forgets the sources: what comes next has nothing to do with what was before.
    pub(crate) fn part(&mut self) {
        self.cells.fill(Cell::EMPTY);
        (self.source, self.end, self.told, self.run) = (None, None, None, None);
        (self.before, self.comfort, self.heard) = (Before::default(), false, false);
    }

    /// Where the packet's samples belong, or `None` if they are not to be kept.
    fn locate(&mut self, arrival: i64, floor: Option<i64>, packet: &Packet<'_>, samples: i64) -> Option<i64> {
        let Some(mut source) = self.source.filter(|source| source.ssrc == packet.ssrc) else {
            return self.anchor(arrival, floor, packet, 0);
        };
        let step = source.sequence.map_or(1, |last| packet.sequence.wrapping_sub(last) as i16);
        let grown = difference(packet.timestamp, source.timestamp);
        let mut position = source.position + grown;
        let emitted = floor.is_some_and(|floor| position + samples.max(1) <= floor);
        if step <= 0 && step > RESTART {
            let in_window = position >= arrival - BEHIND && position <= arrival + AHEAD;
            return (in_window && !emitted).then_some(position);
        }
        let missing = u32::try_from(step - 1).unwrap_or_default().saturating_sub(self.before.presses);
        let steady = grown > 0 && grown <= i64::from(step) * PACKET_MAX;
        let behind = position < arrival - BEHIND;
        if step <= 0 || position > arrival + AHEAD || (behind && !steady) {
            return self.anchor(arrival, floor, packet, missing);
        }
        if emitted || behind {
            let since = *source.late_since.get_or_insert(arrival);
            if arrival - since >= LATE_FOR {
                return self.anchor(arrival, floor, packet, missing);
            }
            source.advance(packet, position);
            self.source = Some(source);
            self.before.missing = self.before.missing.saturating_add(missing + 1);
            self.before.presses = 0;
            return None;
        }
        source.late_since = None;
        if position > arrival {
            position -= self.move_back(&mut source, position - arrival, floor);
        }
        position += source.drift.correct(arrival, arrival - position);
        source.advance(packet, position);
        self.source = Some(source);
        self.before.missing = self.before.missing.saturating_add(missing);
        Some(position)
    }

    /// Takes the packet's timestamp to stand for its arrival.
    fn anchor(&mut self, arrival: i64, floor: Option<i64>, packet: &Packet<'_>, missing: u32) -> Option<i64> {
        let position = match self.end {
            Some(end) if end > arrival + AHEAD => return None,
            Some(end) if end >= arrival - SNAP => end,
            _ => arrival,
        };
        let position = floor.map_or(position, |floor| position.max(floor));
        self.source =
            Some(Source::anchored(packet.ssrc, Some(packet.sequence), packet.timestamp, position, self.end));
        self.before.missing = self.before.missing.saturating_add(missing);
        Some(position)
    }

    /// A packet came `early` before its anchor allows: the anchor had been late. Moves what is placed of the
    /// source back, as far as nothing of it is emitted and nothing stands there. Returns by how much.
    fn move_back(&mut self, source: &mut Source, early: i64, floor: Option<i64>) -> i64 {
        let lowest = floor.unwrap_or(i64::MIN).max(source.after);
        let by = early.min(source.first.saturating_sub(lowest));
        let (Some(end), true) = (self.end, by > 0) else { return 0 };
        for at in source.first..end {
            let Cell { own, mark, .. } = *self.cell(at);
            let earlier = self.cell(at - by);
            (earlier.own, earlier.mark) = (own, mark);
        }
        for at in (end - by).max(source.first)..end {
            let cell = self.cell(at);
            (cell.own, cell.mark) = (0, Mark::Empty);
        }
        self.end = Some(end - by);
        if self.first == Some(source.first) {
            self.first = Some(source.first - by);
        }
        source.first -= by;
        by
    }

    /// What stands before `position` and after all that was placed is a hole; says why.
    fn open_up(&mut self, position: i64, floor: Option<i64>) {
        let Some(end) = self.end else {
            let unsent = Mark::Missing(GapCause::Unsent);
            if let Some(run) = self.run.as_mut().filter(|run| run.mark == Mark::Empty) {
                run.mark = unsent;
            }
            if let Some(floor) = floor {
                self.mark(floor..position, unsent);
            }
            self.before = Before::default();
            return;
        };
        if position < end {
            return;
        }
        let hole = position - end;
        let before = std::mem::take(&mut self.before);
        let mark = match before {
            _ if hole == 0 => return,
            Before { overrun: true, .. } => Mark::Missing(GapCause::Overrun),
            Before { missing: 1.., .. } => Mark::Missing(GapCause::Loss),
            Before { comfort: true, .. } => Mark::Comfort,
            Before { digit: true, .. } if hole <= DIGIT_TAIL => Mark::Missing(GapCause::Digit),
            _ => Mark::Missing(GapCause::Unsent),
        };
        let from = floor.map_or(end, |floor| floor.max(end));
        if hole <= REPEAT && from == end && before.missing == 0 {
            let last = self.cell(end - 1).own;
            (end..position).for_each(|at| self.cell(at).speak(last));
            return;
        }
        if let Some(run) = self.run.as_mut().filter(|run| run.mark == Mark::Empty) {
            run.mark = mark;
        }
        self.mark(from..position, mark);
    }

    fn place_opaque(&mut self, arrival: i64, floor: Option<i64>) {
        let from = match self.end {
            Some(end) if end >= arrival - PACKET_MAX => end,
            _ => arrival,
        };
        self.before = Before::default();
        let to = (arrival + OPAQUE).max(from);
        self.open_up(from, floor);
        self.mark(floor.map_or(from, |floor| from.max(floor))..to, Mark::Missing(GapCause::Codec));
        self.source = None;
        self.reach(from, to);
    }

    fn reach(&mut self, from: i64, to: i64) {
        self.first = Some(self.first.map_or(from, |first| first.min(from)));
        self.end = Some(self.end.map_or(to, |end| end.max(to)));
        if let Some(source) = &mut self.source {
            source.first = source.first.min(from);
        }
    }

    fn mark(&mut self, range: std::ops::Range<i64>, mark: Mark) {
        for at in range {
            let cell = self.cell(at);
            if cell.mark == Mark::Empty {
                cell.mark = mark;
            }
        }
    }

    fn close_run(&mut self, position: i64, report: &mut impl FnMut(Missing)) {
        let Some(run) = self.run.take() else { return };
        let cause = match run.mark {
            Mark::Missing(cause) => cause,
            Mark::Empty => GapCause::Unsent,
            Mark::Audio | Mark::Comfort => return,
        };
        let listed = match cause {
            GapCause::Unsent if run.edge => LISTED_EDGE,
            GapCause::Unsent => LISTED_UNSENT,
            GapCause::Loss | GapCause::Overrun => LISTED_LOSS,
            _ => 1,
        };
        if position - run.from >= listed {
            report(Missing { from: run.from, to: position, cause, leg: self.leg });
        }
    }

    fn cell(&mut self, position: i64) -> &mut Cell {
        &mut self.cells[position.rem_euclid(WINDOW as i64) as usize]
    }
}

impl Cell {
    const EMPTY: Self = Self { own: 0, told: 0, mark: Mark::Empty };

    /// What stands is never replaced, and what was taken out does not come back.
    fn speak(&mut self, sample: i16) {
        if !matches!(self.mark, Mark::Audio | Mark::Missing(GapCause::Digit)) {
            (self.own, self.mark) = (sample, Mark::Audio);
        }
    }
}

impl Source {
    fn anchored(ssrc: u32, sequence: Option<u16>, timestamp: u32, position: i64, end: Option<i64>) -> Self {
        Self {
            ssrc,
            sequence,
            timestamp,
            position,
            first: position,
            after: end.unwrap_or(i64::MIN).max(position - AHEAD),
            late_since: None,
            drift: Drift { since: position, least: i64::MAX, correcting: false },
        }
    }

    const fn advance(&mut self, packet: &Packet<'_>, position: i64) {
        self.sequence = Some(packet.sequence);
        self.timestamp = packet.timestamp;
        self.position = position;
    }
}

impl Drift {
    /// Takes note of a packet's delay against its anchor; by how much its position is to be corrected.
    fn correct(&mut self, arrival: i64, delay: i64) -> i64 {
        self.least = self.least.min(delay);
        if arrival - self.since < DRIFT_WINDOW {
            return 0;
        }
        let drift = self.least;
        (self.since, self.least) = (arrival, i64::MAX);
        self.correcting = drift.abs() > if self.correcting { DRIFT_SETTLED } else { DRIFT };
        if self.correcting { drift.clamp(-REPEAT, REPEAT) } else { 0 }
    }
}

/// RFC 3550 §5.1: timestamps wrap.
fn difference(later: u32, earlier: u32) -> i64 {
    i64::from(later.wrapping_sub(earlier) as i32)
}

fn decode(codec: Codec, octet: u8) -> i16 {
    match codec {
        Codec::Pcma => g711::from_alaw(octet),
        _ => g711::from_ulaw(octet),
    }
}

/// A DTMF tone (ITU-T Q.23) at -10 dBm0 or so: the `n`-th sample at 8 kHz.
fn tone(key: char, n: i64) -> i16 {
    const LOW: [f64; 4] = [697.0, 770.0, 852.0, 941.0];
    const HIGH: [f64; 4] = [1209.0, 1336.0, 1477.0, 1633.0];
    let Some(at) = "123A456B789C*0#D".find(key) else { return 0 };
    let time = n as f64 / 8_000.0 * std::f64::consts::TAU;
    ((LOW[at / 4] * time).sin() * 4_000.0 + (HIGH[at % 4] * time).sin() * 5_000.0) as i16
}
