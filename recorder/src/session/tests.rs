//! A session from outside: packets, commands and virtual time in; datagrams, frames and events out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod attacks;
mod captures;
mod control;
mod keys;
mod notices;

use std::sync::LazyLock;

use consent::Wall;

use super::*;
use crate::{Content, StreamFormat};

const CALL: CallId = CallId(7);
/// Where leg A and leg B say that they are.
const A: &str = "10.0.0.1:4000";
const B: &str = "10.0.0.2:5000";

/// Everything that a session put out.
#[derive(Default)]
struct Seen {
    sent: Vec<(Path, SocketAddr, Vec<u8>)>,
    frames: Vec<Frame>,
    events: Vec<Event>,
}

impl Outlet for Seen {
    fn send(&mut self, path: Path, to: SocketAddr, datagram: &[u8]) {
        self.sent.push((path, to, datagram.to_vec()));
    }

    fn wants_frames(&self) -> bool {
        true
    }

    fn tap(&mut self, frame: Frame) {
        self.frames.push(frame);
    }

    fn report(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// A call on virtual time.
struct Bench {
    session: Session,
    epoch: EpochCounter,
    seen: Seen,
    ms: u64,
}

impl Bench {
    fn new(emergency: bool) -> Self {
        let epoch = EpochCounter::default();
        let session = Session::new(CALL, epoch.clone(), 2, emergency, "*80", prompts(), 42);
        Self { session, epoch, seen: Seen::default(), ms: 0 }
    }

    /// Both legs described with PCMU, PCMA and telephone-event 101, and answered.
    fn answered() -> Self {
        let mut bench = Self::described();
        bench.command(Command::Answered { call: CALL });
        bench
    }

    fn described() -> Self {
        let mut bench = Self::new(false);
        bench.describe(Leg::A, media(A), SourceChange::Announced);
        bench.describe(Leg::B, media(B), SourceChange::Announced);
        bench
    }

    /// A leg that signals from where it is.
    fn describe(&mut self, leg: Leg, media: RemoteMedia, change: SourceChange) {
        self.describe_from(media.rtp.ip(), leg, media, change);
    }

    fn describe_from(&mut self, signalled_from: IpAddr, leg: Leg, media: RemoteMedia, change: SourceChange) {
        let streams = vec![Some(media)];
        self.command(Command::Describe { call: CALL, leg, signalled_from, streams, change });
    }

    fn now(&self) -> Now {
        Now { mono: Mono::default().plus_ms(self.ms), wall: Wall(self.ms as i64 * 1_000) }
    }

    fn command(&mut self, command: Command) {
        let now = self.now();
        self.session.on_command(now, &command, &mut self.seen);
    }

    /// Lets time pass, timers firing on their way.
    fn wait(&mut self, ms: u64) {
        let end = self.ms + ms;
        while let Some(due) = self.session.poll_timeout().filter(|due| due.0 <= end * 1_000) {
            self.ms = self.ms.max(due.0 / 1_000);
            let now = self.now();
            self.session.on_timeout(now, &mut self.seen);
        }
        self.ms = end;
    }

    fn packet(&mut self, leg: Leg, port: Port, from: &str, packet: &[u8]) {
        let path = Path { stream: 0, leg, port };
        let now = self.now();
        self.session.on_packet(now, path, from.parse().unwrap(), &mut packet.to_vec(), &mut self.seen);
    }

    fn rtp(&mut self, leg: Leg, from: &str, packet: &Rtp) {
        self.packet(leg, Port::Rtp, from, &packet.bytes());
    }

    /// `count` packets of 20 ms speech from a leg's described address.
    fn speech(&mut self, leg: Leg, ssrc: u32, first: u16, count: u16) {
        let from = if leg == Leg::A { A } else { B };
        for n in 0..count {
            self.rtp(leg, from, &Rtp::speech(ssrc, first + n));
            self.wait(20);
        }
    }

    /// What was sent to a leg's RTP port so far, parsed.
    fn heard_by(&self, leg: Leg) -> Vec<Rtp> {
        let path = Path { stream: 0, leg, port: Port::Rtp };
        self.seen.sent.iter().filter(|(on, ..)| *on == path).map(|(.., bytes)| Rtp::parse(bytes)).collect()
    }

    fn end(&mut self) -> [LegStatistics; 2] {
        self.command(Command::End { call: CALL });
        let Some(Event::Statistics { legs, .. }) = self.seen.events.pop() else { panic!("no statistics") };
        legs
    }

    fn digits(&self) -> String {
        let digit = |event: &Event| match event {
            Event::Digit { digit, .. } => Some(*digit),
            _ => None,
        };
        self.seen.events.iter().filter_map(digit).collect()
    }

    fn doubts(&self) -> usize {
        self.seen.events.iter().filter(|event| matches!(event, Event::UnannouncedSource { .. })).count()
    }
}

/// An RTP packet in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rtp {
    marker: bool,
    payload_type: u8,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
    payload: Vec<u8>,
}

impl Rtp {
    /// 20 ms of PCMU whose octets depend on the sequence number.
    fn speech(ssrc: u32, sequence: u16) -> Self {
        let timestamp = u32::from(sequence).wrapping_mul(160);
        let payload = vec![sequence as u8; 160];
        Self { marker: false, payload_type: 0, sequence, timestamp, ssrc, payload }
    }

    /// A packet of a telephone event that began at `timestamp`.
    fn event(ssrc: u32, sequence: u16, timestamp: u32, event: u8, end: bool, duration: u16) -> Self {
        let [high, low] = duration.to_be_bytes();
        let payload = vec![event, if end { 0x8a } else { 0x0a }, high, low];
        Self { marker: false, payload_type: 101, sequence, timestamp, ssrc, payload }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0x80, self.payload_type | u8::from(self.marker) << 7];
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(self.ssrc.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    fn parse(bytes: &[u8]) -> Self {
        let reader = rtp_rs::RtpReader::new(bytes).unwrap();
        Self {
            marker: reader.mark(),
            payload_type: reader.payload_type(),
            sequence: reader.sequence_number().into(),
            timestamp: reader.timestamp(),
            ssrc: reader.ssrc(),
            payload: reader.payload().to_vec(),
        }
    }
}

fn media(rtp: &str) -> RemoteMedia {
    let rtp: SocketAddr = rtp.parse().unwrap();
    let format = |(payload_type, encoding): (u8, &str)| StreamFormat {
        payload_type,
        encoding: encoding.to_owned(),
        clock_rate: 8_000,
    };
    RemoteMedia {
        rtp,
        rtcp: SocketAddr::new(rtp.ip(), rtp.port() + 1),
        audio: true,
        sends: true,
        receives: true,
        formats: [(0, "PCMU"), (8, "PCMA"), (101, "TELEPHONE-EVENT")].map(format).into(),
        ptime_ms: 20,
    }
}

fn prompts() -> Arc<PromptSet> {
    static PROMPTS: LazyLock<Arc<PromptSet>> = LazyLock::new(|| {
        let languages = ["en".to_owned(), "es".to_owned()];
        Arc::new(PromptSet::load(None, &languages).unwrap())
    });
    PROMPTS.clone()
}

/// Asserts one SSRC, numbers without a gap, and timestamps that go with them at 20 ms a packet.
fn assert_unbroken(packets: &[Rtp]) {
    for pair in packets.windows(2) {
        assert_eq!(pair[1].ssrc, pair[0].ssrc);
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(160));
    }
}
