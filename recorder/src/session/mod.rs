//! The media of one call between its two legs: pure, told packets, commands and time.
//!
//! Follows RFC 3550 (as a translator with its own identity towards each leg, §7), RFC 4733 (keys),
//! RFC 7983 and RFC 5761 (what else may arrive on an RTP port), and the table of who is heard in
//! `latch`. Leaves out SRTP, tones in the audio, and every decision on consent: it raises the call's
//! epoch on what it sees in the media, stamps what it hands to the tap, and reports.
//!
//! | input | output |
//! |---|---|
//! | RTP of the latched source (`latch`) | rewritten to the other leg; to the tap, stamped |
//! | telephone event | as RTP, unless swallowed; one [`Event::Digit`] a press; to the tap as a span to cut |
//! | the last key of the withdrawal code | epoch raised, then the digit reported |
//! | key from a source that the description does not explain | as a key, but reported only as part of the withdrawal code |
//! | such a source, or another fit, after the answer | epoch raised, [`Event::UnannouncedSource`], then as RTP |
//! | another speaker than announced, after the answer | epoch raised, [`Event::UnannouncedSource`], then as RTP |
//! | RTCP | translated to the other leg |
//! | datagram of a stream that is not audio, or of an emergency call | as it is to the other leg |
//! | anything else, or from elsewhere | refused and counted |
//! | `Play` | packets at the leg's packet time, the other party muted to it; `Playing` with the first, `Played` at the end |
//!
//! No allocation, lock or log for an RTP packet. An emergency call has no tap, no notice, no digits, and
//! its packets are not rewritten.

mod identity;
mod latch;
mod numbering;
mod payload_type;
mod playback;
mod quality;
mod relay;
mod rtcp;
mod telephone_event;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use consent::{CallId, CodeMatcher, Epoch, EpochCounter, Leg, Mono, Notice, Now};

pub use self::quality::{Arrival, Reception};
pub use self::relay::static_encoding;

use self::payload_type::speech_format;
use self::playback::Playback;
use self::relay::Stream;
use self::telephone_event::Keypad;
use crate::prompt::PromptSet;
use crate::{Command, Event, Frame, LegStatistics, RemoteMedia, SourceChange};

/// `m=` lines of a call that are relayed; more are refused by signalling.
pub const MAX_STREAMS: u8 = 4;
/// A leg's unannounced sources are reported at most this often; the epoch rises with each.
const DOUBT_INTERVAL_MS: u64 = 500;

/// A socket of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Index of the `m=` line.
    pub stream: u8,
    /// Towards which leg.
    pub leg: Leg,
    /// Which of the pair.
    pub port: Port,
}

/// Which port of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    /// The even one.
    Rtp,
    /// The odd one.
    Rtcp,
}

/// Where a session's outputs go. None of these may block.
pub trait Outlet {
    /// Sends a datagram from the socket of `path`; one that cannot be sent is lost, like any datagram.
    fn send(&mut self, path: Path, to: SocketAddr, datagram: &[u8]);
    /// Whether anybody wants frames: while not, none are made.
    fn wants_frames(&self) -> bool;
    /// Hands a frame to the tap.
    fn tap(&mut self, frame: Frame);
    /// Reports an event to the hub.
    fn report(&mut self, event: Event);
}

/// One call's relay.
#[derive(Debug)]
pub struct Session {
    facts: Facts,
    streams: Vec<Stream>,
    parties: [Party; 2],
    prompts: Arc<PromptSet>,
    audio_stream: Option<usize>,
}

/// What every part of a session needs to know of its call.
#[derive(Debug)]
struct Facts {
    call: CallId,
    epoch: EpochCounter,
    emergency: bool,
    answered: bool,
    cname: String,
}

/// What is kept of the party at one leg.
#[derive(Debug)]
struct Party {
    keypad: Keypad,
    withdrawal: CodeMatcher,
    code: String,
    withheld: bool,
    swallow: bool,
    refused: u64,
    doubt_reported_at: Option<Mono>,
    doubt_to_report: Option<Epoch>,
}

impl Session {
    /// A call's relay with nothing described yet. `streams` is bounded to [`MAX_STREAMS`]; `withdraw`
    /// is the withdrawal code; `seed` should be random, SSRCs and first numbers come from it.
    #[must_use]
    pub fn new(
        call: CallId,
        epoch: EpochCounter,
        streams: u8,
        emergency: bool,
        withdraw: &str,
        prompts: Arc<PromptSet>,
        seed: u64,
    ) -> Self {
        let mut random = SplitMix(seed);
        let cname = format!("{:016x}{:08x}", random.next(), random.next() as u32);
        Self {
            facts: Facts { call, epoch, emergency, answered: false, cname },
            streams: (0..streams.min(MAX_STREAMS)).map(|_| Stream::new(&mut random)).collect(),
            parties: [Party::new(withdraw), Party::new(withdraw)],
            prompts,
            audio_stream: None,
        }
    }

    /// Takes in a datagram that arrived at `at`; it may be rewritten in place.
    pub fn on_packet(
        &mut self,
        at: Now,
        path: Path,
        source: SocketAddr,
        packet: &mut [u8],
        out: &mut impl Outlet,
    ) {
        let index = usize::from(path.stream);
        let Some(stream) = self.streams.get_mut(index) else { return };
        let tapped = self.audio_stream == Some(index);
        let party = &mut self.parties[path.leg.index()];
        stream.on_packet(&self.facts, party, tapped, at, path, source, packet, out);
    }

    /// Takes in an instruction. Those for the tap, and for other calls, are ignored.
    pub fn on_command(&mut self, now: Now, command: &Command, out: &mut impl Outlet) {
        match command {
            Command::Describe { leg, signalled_from, streams, change, .. } => {
                self.describe(*leg, *signalled_from, streams, *change);
            }
            Command::Play { leg, notice, .. } => self.play(now, *leg, *notice, out),
            Command::StopPlaying { leg, .. } => self.stop_playing(*leg, out),
            Command::SwallowDigits { leg, swallow, .. } => self.parties[leg.index()].swallow = *swallow,
            Command::Answered { .. } => self.answered(),
            Command::End { call } => out.report(Event::Statistics { call: *call, legs: self.statistics() }),
            _ => {}
        }
    }

    /// When [`on_timeout`](Self::on_timeout) is next due, if at all.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        let playing = self.streams.iter().flat_map(Stream::playbacks).map(Playback::due);
        let doubts = self.parties.iter().filter_map(Party::doubt_due);
        playing.chain(doubts).min()
    }

    /// Sends what is due of notices, and reports what was held back.
    pub fn on_timeout(&mut self, now: Now, out: &mut impl Outlet) {
        for leg in Leg::BOTH {
            if let Some(stream) = self.audio_stream
                && let Some(notice_end) =
                    self.streams[stream].play_on(&self.facts, now, path_to(stream, leg), out)
            {
                out.report(notice_end.event(self.facts.call, leg));
            }
            self.parties[leg.index()].report_due_doubt(self.facts.call, leg, now.mono, out);
        }
    }

    fn describe(
        &mut self,
        leg: Leg,
        signalled_from: IpAddr,
        descriptions: &[Option<RemoteMedia>],
        change: SourceChange,
    ) {
        for (index, stream) in self.streams.iter_mut().enumerate() {
            let description = descriptions.get(index).cloned().flatten();
            if change == SourceChange::Replaced {
                stream.bar_former(leg);
            }
            stream.describe(leg, signalled_from, description, change != SourceChange::Same);
        }
        // The first that both legs take; while only one is described, its first.
        let conversation = |stream: &Stream| stream.is_audio() && stream.is_shared();
        let shared = self.streams.iter().position(conversation);
        self.audio_stream = shared.or_else(|| self.streams.iter().position(Stream::is_audio));
    }

    fn answered(&mut self) {
        self.facts.answered = true;
        for stream in &mut self.streams {
            stream.expect_change_of_speakers();
        }
    }

    fn play(&mut self, now: Now, leg: Leg, notice: Notice, out: &mut impl Outlet) {
        self.stop_playing(leg, out);
        let call = self.facts.call;
        let prompt = self.prompts.prompt(notice).clone();
        let stream = self.audio_stream.filter(|_| !self.facts.emergency);
        let started = stream.and_then(|index| {
            let stream = &mut self.streams[index];
            let (to, other) = (stream.description(leg)?, stream.description(leg.other()));
            let (format, ptime_ms) = (speech_format(to, other)?, to.ptime_ms);
            stream.set_playback(leg, Some(Playback::new(now.mono, notice, prompt, format, ptime_ms)));
            Some(())
        });
        match started {
            Some(()) => self.on_timeout(now, out),
            None => out.report(Event::CannotPlay { call, leg }),
        }
    }

    fn stop_playing(&mut self, leg: Leg, out: &mut impl Outlet) {
        let call = self.facts.call;
        for stream in &mut self.streams {
            if let Some(playback) = stream.set_playback(leg, None) {
                out.report(Event::Played { call, leg, notice: playback.notice(), complete: false });
            }
        }
    }

    fn statistics(&self) -> [LegStatistics; 2] {
        Leg::BOTH.map(|leg| {
            let refused = self.parties[leg.index()].refused;
            let stream = self.audio_stream.and_then(|index| self.streams.get(index));
            let heard = stream.map(|stream| stream.statistics(leg)).unwrap_or_default();
            LegStatistics { refused, ..heard }
        })
    }
}

/// How a notice ended on a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NoticeEnd {
    notice: Notice,
    complete: bool,
}

impl NoticeEnd {
    fn event(self, call: CallId, leg: Leg) -> Event {
        let Self { notice, complete } = self;
        Event::Played { call, leg, notice, complete }
    }
}

impl Party {
    fn new(withdraw: &str) -> Self {
        Self {
            keypad: Keypad::default(),
            withdrawal: CodeMatcher::new(withdraw),
            code: withdraw.to_owned(),
            withheld: false,
            swallow: false,
            refused: 0,
            doubt_reported_at: None,
            doubt_to_report: None,
        }
    }

    /// Reports a key pressed at `at`, unless nobody vouches for its source. A withdrawal is honoured from anybody; where
    /// some of its keys may have been withheld, the whole code is reported with its last.
    fn press(
        &mut self,
        facts: &Facts,
        leg: Leg,
        at: Now,
        digit: char,
        is_evidence: bool,
        out: &mut impl Outlet,
    ) {
        let Facts { call, epoch, .. } = facts;
        let mut report = |digit, epoch| out.report(Event::Digit { call: *call, leg, digit, epoch, at });
        self.withheld |= !is_evidence;
        if self.withdrawal.push(digit, at.mono) {
            if std::mem::take(&mut self.withheld) {
                let before = self.code.chars().count().saturating_sub(1);
                self.code.chars().take(before).for_each(|digit| report(digit, epoch.current()));
            }
            report(digit, epoch.raise());
        } else if is_evidence {
            report(digit, epoch.current());
        }
    }

    /// Reports an unannounced source, or keeps its epoch for when the next report is due: a source that
    /// changes with every packet must not fill the hub's queue. Only the latest epoch matters.
    fn doubt(&mut self, call: CallId, leg: Leg, at: Mono, epoch: Epoch, out: &mut impl Outlet) {
        self.doubt_to_report = Some(epoch);
        self.report_due_doubt(call, leg, at, out);
    }

    fn doubt_due(&self) -> Option<Mono> {
        let last = self.doubt_reported_at.unwrap_or_default();
        self.doubt_to_report.map(|_| last.plus_ms(DOUBT_INTERVAL_MS))
    }

    fn report_due_doubt(&mut self, call: CallId, leg: Leg, at: Mono, out: &mut impl Outlet) {
        let due = self.doubt_reported_at.is_none_or(|last| at >= last.plus_ms(DOUBT_INTERVAL_MS));
        if let Some(epoch) = self.doubt_to_report.take_if(|_| due) {
            self.doubt_reported_at = Some(at);
            out.report(Event::UnannouncedSource { call, leg, epoch });
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): spreads one seed over a call's few random numbers.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }
}

fn path_to(stream: usize, leg: Leg) -> Path {
    Path { stream: u8::try_from(stream).unwrap_or(u8::MAX), leg, port: Port::Rtp }
}
