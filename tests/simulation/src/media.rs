//! The media plane on virtual time: the recorder's own machines, driven as `recorder::plane` drives them.
//! Commands reach the media thread late and in order, frames and commands reach the writing thread in its own
//! time, a revocation overtakes, and the ring between the two is bounded.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use consent::{CallId, EpochCounter, Leg, Now};
use recorder::prompt::PromptSet;
use recorder::session::{Outlet, Path, Port, Session};
use recorder::{Capture, CaptureCommand, CaptureSettings, Command, Event, Frame};

use crate::network::{GATEWAY, address};

/// As in `recorder::plane`'s ring.
const RING_FRAMES: usize = 768;

/// A datagram that left the gateway.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// One call's media.
pub(crate) struct CallMedia {
    session: Option<Session>,
    base_port: u16,
    ring: Ring,
    capture: Capture,
    messages: VecDeque<(u64, CaptureCommand)>,
    commands: VecDeque<(u64, CaptureCommand)>,
    finished: bool,
}

#[derive(Default)]
struct Ring {
    frames: VecDeque<Frame>,
    pushed: u64,
    popped: u64,
    openings: u64,
    openings_read: u64,
    idle_after: u64,
    overrun: Vec<Leg>,
}

/// What came of a step.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) sent: Vec<Sent>,
    pub(crate) events: Vec<Event>,
}

struct Wire<'a> {
    base_port: u16,
    ring: &'a mut Ring,
    out: &'a mut Outcome,
}

impl Outlet for Wire<'_> {
    fn send(&mut self, path: Path, to: SocketAddr, datagram: &[u8]) {
        let from = port_of(self.base_port, path);
        self.out.sent.push(Sent { from, to, bytes: datagram.to_vec() });
    }

    fn wants_frames(&self) -> bool {
        self.ring.openings > self.ring.idle_after
    }

    fn tap(&mut self, frame: Frame) {
        if self.ring.openings == 0 {
            return;
        }
        if self.ring.frames.len() < RING_FRAMES {
            self.ring.frames.push_back(frame);
            self.ring.pushed += 1;
        } else if !self.ring.overrun.contains(&frame.leg) {
            self.ring.overrun.push(frame.leg);
        }
    }

    fn report(&mut self, event: Event) {
        self.out.events.push(event);
    }
}

fn port_of(base: u16, path: Path) -> SocketAddr {
    let leg = if path.leg == Leg::A { 0 } else { 2 };
    let port = u16::from(path.port == Port::Rtcp);
    SocketAddr::new(GATEWAY.ip(), base + u16::from(path.stream) * 4 + leg + port)
}

/// All calls' media.
pub(crate) struct Media {
    pub(crate) calls: BTreeMap<CallId, CallMedia>,
    settings: CaptureSettings,
    prompts: Arc<PromptSet>,
    next_port: u16,
}

impl Media {
    pub(crate) const fn new(settings: CaptureSettings, prompts: Arc<PromptSet>, first_port: u16) -> Self {
        Self { calls: BTreeMap::new(), settings, prompts, next_port: first_port }
    }

    pub(crate) const fn next_port(&self) -> u16 {
        self.next_port
    }

    fn call(&mut self, call: CallId) -> &mut CallMedia {
        let settings = self.settings.clone();
        self.calls.entry(call).or_insert_with(|| CallMedia {
            session: None,
            base_port: 0,
            ring: Ring::default(),
            capture: Capture::new(call, settings),
            messages: VecDeque::new(),
            commands: VecDeque::new(),
            finished: false,
        })
    }

    /// A command arrives at the media thread; `seed` and `no_ports` matter for `Bind` alone.
    pub(crate) fn on_command(&mut self, now: Now, command: Command, seed: u64, no_ports: bool) -> Outcome {
        let mut out = Outcome::default();
        match command {
            Command::Bind { call, .. } if no_ports => out.events.push(Event::BindFailed { call }),
            Command::Bind { call, epoch, streams, emergency, withdraw } => {
                self.bind((call, epoch, streams, emergency, &withdraw), seed, &mut out);
            }
            Command::OpenTap { ref permit, .. } => {
                let (call, permit) = (permit.call(), permit.id());
                self.open(call, command, Event::RecordingFailed { call, permit, recording: None }, &mut out);
            }
            Command::StartPreamble { call, .. } => {
                self.open(call, command, Event::PreambleUnavailable { call }, &mut out);
            }
            command => {
                if let Some(media) = call_of(&command).and_then(|call| self.calls.get_mut(&call)) {
                    media.on_session_command(now, &command, &mut out);
                    media.tell_capture(command);
                }
            }
        }
        out
    }

    fn bind(
        &mut self,
        (call, epoch, streams, emergency, withdraw): (CallId, EpochCounter, u8, bool, &str),
        seed: u64,
        out: &mut Outcome,
    ) {
        let base = self.next_port;
        self.next_port += 4 * u16::from(streams);
        let prompts = self.prompts.clone();
        let media = self.call(call);
        media.base_port = base;
        media.session = Some(Session::new(call, epoch, streams, emergency, withdraw, prompts, seed));
        let pair = |stream| Leg::BOTH.map(|leg| port_of(base, Path { stream, leg, port: Port::Rtp }));
        out.events.push(Event::Bound { call, addresses: (0..streams).map(pair).collect() });
    }

    fn open(&mut self, call: CallId, command: Command, refusal: Event, out: &mut Outcome) {
        match self.calls.get_mut(&call).filter(|media| media.session.is_some()) {
            Some(media) => {
                media.ring.openings += 1;
                media.tell_capture(command);
            }
            None => out.events.push(refusal),
        }
    }

    /// A datagram arrives on one of the media ports.
    pub(crate) fn on_datagram(
        &mut self,
        now: Now,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Outcome {
        let mut out = Outcome::default();
        let mut bytes = bytes.to_vec();
        for media in self.calls.values_mut() {
            let Some(offset) = to.port().checked_sub(media.base_port).filter(|offset| *offset < 4) else {
                continue;
            };
            let leg = if offset < 2 { Leg::A } else { Leg::B };
            let port = if offset % 2 == 0 { Port::Rtp } else { Port::Rtcp };
            let Some(session) = &mut media.session else { continue };
            let mut wire = Wire { base_port: media.base_port, ring: &mut media.ring, out: &mut out };
            session.on_packet(now, Path { stream: 0, leg, port }, from, &mut bytes, &mut wire);
            break;
        }
        out
    }

    /// When a session is next due, on the process's clock.
    pub(crate) fn next_due(&self) -> Option<consent::Mono> {
        self.calls.values().filter_map(|media| media.session.as_ref()?.poll_timeout()).min()
    }

    pub(crate) fn on_timeout(&mut self, now: Now) -> Outcome {
        let mut out = Outcome::default();
        for media in self.calls.values_mut() {
            let Some(session) = &mut media.session else { continue };
            if session.poll_timeout().is_some_and(|due| due <= now.mono) {
                let mut wire = Wire { base_port: media.base_port, ring: &mut media.ring, out: &mut out };
                session.on_timeout(now, &mut wire);
            }
        }
        out
    }

    /// The writing thread's turn: every call's capture takes what has come in. Outputs in order.
    pub(crate) fn write(&mut self, now: Now) -> Vec<(CallId, recorder::Output)> {
        let mut outputs = Vec::new();
        for (call, media) in &mut self.calls {
            media.write(now);
            outputs.extend(std::iter::from_fn(|| media.capture.poll_output()).map(|output| (*call, output)));
        }
        self.calls.retain(|_, media| !media.finished);
        outputs
    }

    /// The spool could not write: the capture is told, and says what follows.
    pub(crate) fn on_write_failed(
        &mut self,
        now: Now,
        call: CallId,
        recording: consent::RecordingId,
    ) -> Vec<recorder::Output> {
        let Some(media) = self.calls.get_mut(&call) else { return Vec::new() };
        media.capture.on_command(now, CaptureCommand::WriteFailed { recording });
        std::iter::from_fn(|| media.capture.poll_output()).collect()
    }
}

impl CallMedia {
    fn on_session_command(&mut self, now: Now, command: &Command, out: &mut Outcome) {
        let Some(session) = &mut self.session else { return };
        let mut wire = Wire { base_port: self.base_port, ring: &mut self.ring, out };
        session.on_command(now, command, &mut wire);
        if matches!(command, Command::End { .. }) {
            self.session = None;
        }
    }

    fn tell_capture(&mut self, command: Command) {
        if let Ok((_, command)) = CaptureCommand::from_command(command) {
            self.messages.push_back((self.ring.pushed, command));
        }
    }

    /// As `recorder::plane`'s writer: messages (a revocation may overtake), then frames and commands in order.
    fn write(&mut self, now: Now) {
        while let Some((after, command)) = self.messages.pop_front() {
            let opening = self.commands.iter().any(|(_, c)| matches!(c, CaptureCommand::OpenTap { .. }));
            if matches!(command, CaptureCommand::Revoke { .. }) && !opening {
                self.capture.on_command(now, command);
            } else {
                self.commands.push_back((after, command));
            }
        }
        while let Some((after, command)) = self.commands.pop_front() {
            self.read_ring(after);
            match command {
                CaptureCommand::OpenTap { .. } | CaptureCommand::StartPreamble { .. } => {
                    self.ring.openings_read += 1
                }
                CaptureCommand::End => self.finished = true,
                _ => {}
            }
            self.capture.on_command(now, command);
        }
        self.read_ring(u64::MAX);
        for leg in std::mem::take(&mut self.ring.overrun) {
            self.capture.on_command(now, CaptureCommand::Overrun { leg });
        }
        if self.capture.poll_timeout().is_some_and(|due| due <= now.mono) {
            self.capture.on_timeout(now);
        }
        if !self.capture.wants_frames() {
            self.ring.idle_after = self.ring.openings_read;
        }
    }

    fn read_ring(&mut self, until: u64) {
        while self.ring.popped < until
            && let Some(frame) = self.ring.frames.pop_front()
        {
            self.ring.popped += 1;
            self.capture.on_frame(&frame);
        }
    }
}

fn call_of(command: &Command) -> Option<CallId> {
    match command {
        Command::Describe { call, .. }
        | Command::Play { call, .. }
        | Command::StopPlaying { call, .. }
        | Command::SwallowDigits { call, .. }
        | Command::WipePreamble { call, .. }
        | Command::Revoke { call, .. }
        | Command::Suspend { call, .. }
        | Command::CloseTap { call, .. }
        | Command::Answered { call }
        | Command::End { call } => Some(*call),
        _ => None,
    }
}

/// Whether a datagram is from or to a media port of the gateway's.
pub(crate) fn is_media_port(at: SocketAddr) -> bool {
    at.ip() == address([10, 0, 0, 1], 0).ip() && at.port() >= 10_000
}
