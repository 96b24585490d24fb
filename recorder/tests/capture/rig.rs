//! A call with its consent machine, its capture and a disk in memory, driven by the test.

use std::collections::BTreeMap;
use std::sync::Arc;

use consent::{
    Action, Ask, Call, CallFacts, CallId, Direction, Epoch, EpochCounter, Gap, GapCause, Leg, Line,
    LineClass, Mono, Name, Now, Numbering, Permit, Preamble, RecordingId, RetentionTag, RuleSet, RuleVersion,
    Settings, SignalSource, Tone, Wall,
};
use recorder::preamble::LockedBudget;
use recorder::sealed::{Opened, SealedReader};
use recorder::{
    Capture, CaptureCommand, CaptureSettings, Codec, Content, Event, Frame, Key, NewRecording, Output,
    Payload, RecordingKey, Sealed, g711,
};

pub(crate) const CALL: CallId = CallId(42);
pub(crate) const KEY: [u8; 32] = [9; 32];
pub(crate) const DISPATCH: &str = "+18607427331";
pub(crate) const CONSENT: &str = "+18607427310";
/// 2026-11-22T18:00:00Z.
const START: Wall = Wall(1_795_370_400_000_000);

pub(crate) struct Rig {
    pub(crate) call: Call,
    pub(crate) capture: Capture,
    pub(crate) outputs: Vec<Output>,
    pub(crate) events: Vec<Event>,
    pub(crate) files: BTreeMap<RecordingId, Vec<u8>>,
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) epoch: EpochCounter,
    pub(crate) ms: u64,
    /// The signalling lags behind the media: actions wait here while it is set.
    pub(crate) pending: Option<Vec<Action>>,
    pub(crate) voices: [Voice; 2],
    recordings: u128,
}

/// What a party sends.
#[derive(Clone, Copy)]
pub(crate) struct Voice {
    pub(crate) hz: f64,
    pub(crate) sends: bool,
    n: u32,
}

pub(crate) fn rules() -> Arc<RuleSet> {
    let line = |number: &str, class| Line {
        number: number.parse().unwrap(),
        name: number.to_owned(),
        class,
        ask: Ask::EveryCall,
        retention: RetentionTag::try_from("RT-TEST".to_owned()).unwrap(),
        aliases: Vec::new(),
        tone: None,
    };
    let settings = Settings {
        accept: '1',
        decline: '2',
        request: "*81".to_owned(),
        withdraw: "*80".to_owned(),
        answer_timeout_ms: 10_000,
        attempts: 1,
        preamble: Preamble::Memory,
        tone: Tone::Off,
    };
    let lines = vec![line(DISPATCH, LineClass::Dispatch), line(CONSENT, LineClass::Consent)];
    let numbering = Numbering::new("1", "860", "9").unwrap();
    Arc::new(RuleSet::new(RuleVersion(1), numbering, lines, Vec::new(), settings).unwrap())
}

pub(crate) fn settings() -> CaptureSettings {
    CaptureSettings { lookback_ms: 1_000, preamble_bytes: 1 << 20, budget: LockedBudget::new(1 << 24) }
}

pub(crate) fn now(ms: u64) -> Now {
    Now { mono: Mono(5_000_000 + ms * 1_000), wall: Wall(START.0 + ms as i64 * 1_000) }
}

pub(crate) fn wall(ms: u64) -> Wall {
    now(ms).wall
}

pub(crate) fn new_recording(id: u128, look_back: bool) -> NewRecording {
    NewRecording {
        id: RecordingId(id),
        key: RecordingKey { secret: zeroize::Zeroizing::new(KEY), wrapped: b"wrapped".to_vec() },
        channels: ["caller".to_owned(), "callee".to_owned()],
        look_back,
    }
}

/// A dispatch permit, which covers every epoch on the line.
pub(crate) fn dispatch_permit() -> Permit {
    let (_, actions) = open_call(DISPATCH);
    let open = actions.into_iter().find_map(|action| match action {
        Action::Open { permit, .. } => Some(permit),
        _ => None,
    });
    open.unwrap()
}

fn open_call(line: &str) -> (Call, Vec<Action>) {
    let facts = CallFacts {
        direction: Direction::Inbound,
        called: vec![Name::known(line)],
        calling: vec![Name::known("+18605550100")],
        emergency: false,
        parties_signalled: true,
    };
    let mut actions = Vec::new();
    let mut call = Call::new(CALL, rules(), &facts, now(0), Epoch(0), &mut actions);
    call.set_parties_signalled(consent::Leg::B, true);
    (call, actions)
}

impl Rig {
    pub(crate) fn on(line: &str) -> Self {
        Self::with(line, settings())
    }

    pub(crate) fn with(line: &str, settings: CaptureSettings) -> Self {
        let (call, actions) = open_call(line);
        let mut rig = Self {
            call,
            capture: Capture::new(CALL, settings),
            outputs: Vec::new(),
            events: Vec::new(),
            files: BTreeMap::new(),
            sealed: Vec::new(),
            epoch: EpochCounter::default(),
            ms: 0,
            pending: None,
            voices: [Voice { hz: 440.0, sends: true, n: 0 }, Voice { hz: 1_000.0, sends: true, n: 7_000 }],
            recordings: 0,
        };
        rig.perform(actions);
        rig
    }

    /// A consent line on which both have agreed; the conversation begins now.
    pub(crate) fn agreed() -> Self {
        let mut rig = Self::on(CONSENT);
        rig.talk(200);
        rig.answer();
        rig.ask(1_000);
        rig.digit(Leg::A, '1');
        rig.talk(200);
        rig.digit(Leg::B, '1');
        rig
    }

    /// Time passes; both parties talk, and the clock is looked at every 20 ms.
    pub(crate) fn talk(&mut self, ms: u64) {
        for _ in 0..ms / 20 {
            for leg in Leg::BOTH {
                if self.voices[leg.index()].sends {
                    let frame = self.spoken(leg);
                    self.frame(&frame);
                }
            }
            self.pass(20);
        }
    }

    /// Time passes in silence.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.ms += ms;
        if self.capture.poll_timeout().is_some_and(|due| due <= now(self.ms).mono) {
            self.capture.on_timeout(now(self.ms));
        }
        self.settle();
    }

    pub(crate) fn frame(&mut self, frame: &Frame) {
        self.capture.on_frame(frame);
        self.settle();
    }

    /// The next 20 ms of a party's voice: a tone.
    pub(crate) fn spoken(&mut self, leg: Leg) -> Frame {
        let voice = &mut self.voices[leg.index()];
        let n = voice.n;
        voice.n += 1;
        let content = Content::Rtp {
            codec: Codec::Pcmu,
            marker: false,
            sequence: n as u16,
            timestamp: n * 160,
            ssrc: 1 + leg.index() as u32,
            payload: tone(voice.hz, n * 160),
        };
        Frame { leg, epoch: self.epoch.current(), at: now(self.ms), content }
    }

    /// Both parties are asked for `ms`.
    pub(crate) fn ask(&mut self, ms: u64) {
        for leg in Leg::BOTH {
            let notice = consent::Notice::Question;
            self.signal(consent::Event::Playing { leg, notice, epoch: self.epoch.current() });
        }
        for n in 0..ms as u32 / 20 {
            for leg in Leg::BOTH {
                let payload = tone(2_000.0, n * 160);
                let content =
                    Content::Told { codec: Codec::Pcmu, timestamp: n * 160, question: true, payload };
                let frame = Frame { leg, epoch: self.epoch.current(), at: now(self.ms), content };
                self.frame(&frame);
            }
            self.talk(20);
        }
        for leg in Leg::BOTH {
            self.signal(consent::Event::Played { leg, notice: consent::Notice::Question, complete: true });
        }
    }

    pub(crate) fn answer(&mut self) {
        let epoch = self.epoch.raise();
        self.capture.on_command(now(self.ms), CaptureCommand::Answered);
        self.signal(consent::Event::Answered { epoch });
    }

    /// A new epoch begins, which signalling is told of.
    pub(crate) fn change(&mut self, event: impl FnOnce(Epoch) -> consent::Event) {
        let epoch = self.epoch.raise();
        self.signal(event(epoch));
    }

    /// The dispatch line's end of the call is somebody else's now.
    pub(crate) fn leave_line(&mut self) {
        let epoch = self.epoch.leave_line();
        self.signal(consent::Event::LeftLine { epoch });
    }

    /// A key press of 100 ms by telephone events, then the consent machine hears of it.
    pub(crate) fn digit(&mut self, leg: Leg, digit: char) {
        let timestamp = self.voices[leg.index()].n * 160;
        self.signal_digit(leg, digit);
        for duration in [160, 320, 480, 640, 800, 800, 800] {
            let answer = Some(Key(digit));
            let content = Content::Digit { ssrc: 1 + leg.index() as u32, timestamp, duration, answer };
            let frame = Frame { leg, epoch: self.epoch.current(), at: now(self.ms), content };
            self.frame(&frame);
            if duration < 800 {
                self.voices[leg.index()].n += 1;
                let other = self.spoken(leg.other());
                self.frame(&other);
                self.pass(20);
            }
        }
    }

    pub(crate) fn signal_digit(&mut self, leg: Leg, digit: char) {
        let source = SignalSource::TelephoneEvent;
        self.signal(consent::Event::Digit { leg, digit, source, epoch: self.epoch.current() });
    }

    /// `*80`; the relay raises the epoch with the last key.
    pub(crate) fn withdraw(&mut self, leg: Leg) {
        self.signal_digit(leg, '*');
        self.signal_digit(leg, '8');
        self.epoch.raise();
        self.signal_digit(leg, '0');
    }

    pub(crate) fn signal(&mut self, event: consent::Event) {
        let mut actions = Vec::new();
        self.call.on_event(now(self.ms), event, &mut actions);
        match &mut self.pending {
            Some(pending) => pending.extend(actions),
            None => self.perform(actions),
        }
    }

    /// What signalling decided reaches the media plane at last.
    pub(crate) fn catch_up(&mut self) {
        let actions = self.pending.take().unwrap_or_default();
        self.perform(actions);
    }

    pub(crate) fn end(&mut self) {
        self.signal(consent::Event::Ended);
        self.command(CaptureCommand::End);
    }

    pub(crate) fn command(&mut self, command: CaptureCommand) {
        self.capture.on_command(now(self.ms), command);
        self.settle();
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            let command = match action {
                Action::StartPreamble(epoch) => CaptureCommand::StartPreamble { epoch },
                Action::WipePreamble(reason) => CaptureCommand::WipePreamble { reason },
                Action::Open { permit, continues: Some(earlier) } => {
                    CaptureCommand::OpenTap { permit, target: Err(earlier) }
                }
                Action::Open { permit, continues: None } => {
                    self.recordings += 1;
                    let look_back = permit.basis() == consent::Basis::AllPartyConsent;
                    let target = Ok(new_recording(self.recordings, look_back));
                    CaptureCommand::OpenTap { permit, target }
                }
                Action::Revoke { permit, .. } => CaptureCommand::Revoke { permit },
                Action::Suspend { permit } => CaptureCommand::Suspend { permit },
                Action::Close { permit } => CaptureCommand::CloseTap { permit },
                _ => continue,
            };
            self.command(command);
        }
    }

    fn settle(&mut self) {
        while let Some(output) = self.capture.poll_output() {
            self.outputs.push(output.clone());
            match output {
                Output::Create { recording, bytes, .. } => {
                    assert!(self.files.insert(recording, bytes).is_none(), "created twice");
                }
                Output::Append { recording, bytes } => {
                    self.files.get_mut(&recording).expect("created").extend(bytes);
                }
                Output::Sync { .. } => {}
                Output::Finish { sealed, .. } => self.sealed.push(*sealed),
                Output::Discard { recording } => drop(self.files.remove(&recording).expect("created")),
                Output::Event(event) => {
                    self.events.push(event.clone());
                    match event {
                        Event::PreambleStarted { epoch, .. } => {
                            self.signal(consent::Event::PreambleStarted { epoch });
                        }
                        Event::PreambleUnavailable { .. } => self.signal(consent::Event::PreambleUnavailable),
                        _ => {}
                    }
                }
            }
        }
    }

    /// The one recording there is, opened.
    pub(crate) fn recorded(&self) -> (Sealed, Recorded) {
        let [sealed] = &self.sealed[..] else { panic!("{} recordings", self.sealed.len()) };
        let recorded = Recorded::open(&self.files[&sealed.recording]);
        assert_eq!(recorded.opened.summary.duration_s, sealed.duration_s);
        assert_eq!(recorded.opened.summary.gaps, sealed.gaps);
        assert_eq!(recorded.opened.summary.intervals, sealed.intervals);
        assert_eq!(sealed.bytes, self.files[&sealed.recording].len() as u64);
        (sealed.clone(), recorded)
    }
}

/// A sealed file in clear.
pub(crate) struct Recorded {
    pub(crate) opened: Opened,
    pub(crate) channels: Vec<Vec<i16>>,
}

impl Recorded {
    pub(crate) fn open(file: &[u8]) -> Self {
        let opened = SealedReader::open(file, &KEY).unwrap().read_to_end().unwrap();
        let (count, channels) = recorder::ogg_opus::decode_pcm(&opened.ogg).unwrap();
        assert_eq!(count, 2);
        let samples = (opened.summary.duration_s * 8_000.0).round() as usize;
        assert!(channels.iter().all(|channel| channel.len() == samples), "length as stated");
        Self { opened, channels }
    }

    /// How strong a tone is in a stretch of a channel, in dB below full scale.
    pub(crate) fn level(&self, leg: Leg, hz: f64, from_ms: u64, to_ms: u64) -> f64 {
        let channel = &self.channels[leg.index()];
        let range = &channel[from_ms as usize * 8..(to_ms as usize * 8).min(channel.len())];
        let (mut re, mut im) = (0.0, 0.0);
        for (n, sample) in range.iter().enumerate() {
            let phase = std::f64::consts::TAU * hz * n as f64 / 8_000.0;
            re += f64::from(*sample) * phase.cos();
            im += f64::from(*sample) * phase.sin();
        }
        20.0 * (2.0 * re.hypot(im) / range.len() as f64 / 32_768.0 + 1e-9).log10()
    }

    pub(crate) fn hears(&self, leg: Leg, hz: f64, from_ms: u64, to_ms: u64) -> bool {
        self.level(leg, hz, from_ms, to_ms) > -30.0
    }

    pub(crate) fn duration_ms(&self) -> u64 {
        (self.opened.summary.duration_s * 1_000.0).round() as u64
    }
}

pub(crate) fn tone(hz: f64, from: u32) -> Payload {
    let sample = |n: u32| (std::f64::consts::TAU * hz * f64::from(n) / 8_000.0).sin() * 8_000.0;
    let audio: Vec<u8> = (from..from + 160).map(|n| g711::to_ulaw(sample(n) as i16)).collect();
    Payload::copy_of(&audio).unwrap()
}

pub(crate) fn causes(gaps: &[Gap]) -> Vec<GapCause> {
    gaps.iter().map(|gap| gap.cause).collect()
}
