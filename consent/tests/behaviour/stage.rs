//! A call on a stage: the district's lines of the policy, virtual time, and actions in a comparable form.

use std::sync::Arc;

use consent::{
    Action, Ask, Call, CallFacts, CallId, Decision, Direction, E164, Epoch, Event, GateState, Leg, Line,
    LineClass, Mono, Name, Newcomer, Notice, Now, NumberClass, Numbering, PermitId, Reason, RetentionTag,
    RuleSet, RuleVersion, Settings, Side, SignalMeaning, SignalSource, Wall,
};

pub(crate) const DISPATCH: &str = "+18607427331";
pub(crate) const OFFICE: &str = "+18607427310";
pub(crate) const ON_REQUEST: &str = "+18607427311";
pub(crate) const SIGNALLED: &str = "+18607427312";
pub(crate) const NEVER: &str = "+18607427320";
pub(crate) const UNION_LINE: &str = "+18607427325";
pub(crate) const UNION_NUMBER: &str = "+18605550199";
pub(crate) const ATTORNEY: &str = "+18605550198";
pub(crate) const STUDENT: &str = "+18605550197";
pub(crate) const STRANGER: &str = "+12125550100";

pub(crate) fn number(text: &str) -> E164 {
    text.parse().unwrap()
}

pub(crate) fn plan() -> Numbering {
    Numbering::new("1", "860", "9").unwrap()
}

pub(crate) fn line(text: &str, class: LineClass) -> Line {
    Line {
        number: number(text),
        name: format!("line {text}"),
        class,
        ask: Ask::EveryCall,
        retention: RetentionTag::try_from("RT-TEST".to_owned()).unwrap(),
        aliases: Vec::new(),
        tone: None,
    }
}

pub(crate) fn lines() -> Vec<Line> {
    vec![
        line(DISPATCH, LineClass::Dispatch),
        line(OFFICE, LineClass::Consent),
        Line { ask: Ask::OnRequest, ..line(ON_REQUEST, LineClass::Consent) },
        Line { ask: Ask::SignalledOnly, ..line(SIGNALLED, LineClass::Consent) },
        line(NEVER, LineClass::Never),
        line(UNION_LINE, LineClass::Union),
    ]
}

pub(crate) fn numbers() -> Vec<(E164, NumberClass)> {
    vec![
        (number(UNION_NUMBER), NumberClass::Union),
        (number(ATTORNEY), NumberClass::Privileged),
        (number(STUDENT), NumberClass::Student),
    ]
}

pub(crate) fn rules() -> Arc<RuleSet> {
    Arc::new(RuleSet::new(RuleVersion(1), plan(), lines(), numbers(), Settings::default()).unwrap())
}

/// Facts of known names.
pub(crate) fn facts<'a>(direction: Direction, called: &[&'a str], calling: &[&'a str]) -> CallFacts<'a> {
    CallFacts {
        direction,
        called: known(called),
        calling: known(calling),
        emergency: false,
        parties_signalled: true,
    }
}

pub(crate) fn known<'a>(users: &[&'a str]) -> Vec<Name<'a>> {
    users.iter().copied().map(Name::known).collect()
}

pub(crate) fn inbound(called: &str) -> CallFacts<'_> {
    facts(Direction::Inbound, &[called], &[STRANGER])
}

/// Somebody of the district's who goes by these names.
pub(crate) const fn newcomer<'a>(names: &'a [Name<'a>]) -> Newcomer<'a> {
    Newcomer { side: Side::District, names, emergency: false, same_dialog: false }
}

/// An action, comparable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Did {
    StartPreamble(u32),
    Wipe(Reason),
    Play(Leg, Notice),
    StopPlaying(Leg),
    Swallow(Leg, bool),
    /// Permit, first epoch, last epoch (`None`: not among the next hundred), permit continued.
    Open(u32, u32, Option<u32>, Option<u32>),
    Revoke(u32, Reason),
    Suspend(u32),
    Close(u32),
    Heard(Leg, SignalMeaning, bool),
    Decided(GateState, Reason),
}

/// One call with its clock and its epoch.
pub(crate) struct Stage {
    pub(crate) call: Call,
    pub(crate) now: Now,
    pub(crate) epoch: u32,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) did: Vec<Did>,
}

impl Stage {
    pub(crate) fn new(facts: &CallFacts<'_>) -> Self {
        Self::with(rules(), facts)
    }

    pub(crate) fn with(rules: Arc<RuleSet>, facts: &CallFacts<'_>) -> Self {
        let now = Now { mono: Mono(5_000_000), wall: Wall(1_790_000_000_000_000) };
        let mut out = Vec::new();
        let mut call = Call::new(CallId(7), rules, facts, now, Epoch(0), &mut out);
        call.join(Leg::A, []);
        let mut stage = Self { call, now, epoch: 0, decisions: Vec::new(), did: Vec::new() };
        stage.take(out);
        stage
    }

    /// An inbound call to the Superintendent's office.
    pub(crate) fn office() -> Self {
        Self::new(&inbound(OFFICE))
    }

    /// The same, answered, with both parties being asked.
    pub(crate) fn asking() -> Self {
        let mut stage = Self::office();
        stage.answer();
        stage.preamble();
        stage.did.clear();
        stage
    }

    /// The same, with both parties agreed: permit 0, epoch 1.
    pub(crate) fn recording() -> Self {
        let mut stage = Self::asking();
        stage.press(Leg::A, '1');
        stage.press(Leg::B, '1');
        stage.did.clear();
        stage
    }

    /// Hands in an event and says what was done.
    pub(crate) fn event(&mut self, event: Event) -> Vec<Did> {
        let mut out = Vec::new();
        self.call.on_event(self.now, event, &mut out);
        self.take(out)
    }

    pub(crate) fn answer(&mut self) -> Vec<Did> {
        let epoch = self.raise();
        self.arrive(Leg::B);
        self.event(Event::Answered { epoch })
    }

    /// The leg's first party comes, unless it has.
    pub(crate) fn arrive(&mut self, leg: Leg) {
        if self.call.present(leg).is_none() {
            self.call.join(leg, []);
        }
    }

    /// The preamble's memory is ready; if that begins the questions, they begin to play.
    pub(crate) fn preamble(&mut self) -> Vec<Did> {
        let did = self.event(Event::PreambleStarted { epoch: Epoch(self.epoch) });
        for leg in Leg::BOTH {
            if did.contains(&Did::Play(leg, Notice::Question)) {
                assert_eq!(self.playing(leg), []);
            }
        }
        did
    }

    pub(crate) fn playing(&mut self, leg: Leg) -> Vec<Did> {
        self.event(Event::Playing { leg, notice: Notice::Question, epoch: Epoch(self.epoch) })
    }

    pub(crate) fn change(&mut self, leg: Leg) -> Vec<Did> {
        let epoch = self.raise();
        self.call.join(leg, []);
        self.event(Event::PartyChanged { leg, epoch })
    }

    pub(crate) fn doubt(&mut self, leg: Leg) -> Vec<Did> {
        let epoch = self.raise();
        self.event(Event::Doubt { leg, epoch })
    }

    pub(crate) fn hold(&mut self, leg: Leg) -> Vec<Did> {
        let epoch = self.raise();
        self.event(Event::Held { leg, epoch })
    }

    pub(crate) fn resume(&mut self, leg: Leg) -> Vec<Did> {
        let epoch = self.raise();
        self.event(Event::Resumed { leg, epoch })
    }

    pub(crate) fn press(&mut self, leg: Leg, digit: char) -> Vec<Did> {
        let epoch = Epoch(self.epoch);
        self.event(Event::Digit { leg, digit, source: SignalSource::TelephoneEvent, epoch })
    }

    /// Dials the withdrawal code, the epoch raised by the relay before its last key.
    pub(crate) fn withdraw(&mut self, leg: Leg) -> Vec<Did> {
        self.press(leg, '*');
        self.press(leg, '8');
        self.raise();
        self.press(leg, '0')
    }

    pub(crate) fn request(&mut self, leg: Leg) -> Vec<Did> {
        "*81".chars().flat_map(|digit| self.press(leg, digit)).collect()
    }

    pub(crate) fn played(&mut self, leg: Leg, complete: bool) -> Vec<Did> {
        self.event(Event::Played { leg, notice: Notice::Question, complete })
    }

    pub(crate) fn end(&mut self) -> Vec<Did> {
        self.event(Event::Ended)
    }

    pub(crate) fn fail(&mut self, permit: u32) -> Vec<Did> {
        self.event(Event::RecorderFailed { permit: PermitId(permit) })
    }

    /// Lets time pass and does what falls due in it, each thing at its instant.
    pub(crate) fn wait_ms(&mut self, ms: u64) -> Vec<Did> {
        let until = self.now.mono.plus_ms(ms);
        let mut all = Vec::new();
        while let Some(due) = self.call.poll_timeout().filter(|&due| due <= until) {
            self.advance_to(due);
            let mut out = Vec::new();
            self.call.on_timeout(self.now, &mut out);
            all.extend(self.take(out));
            assert!(self.call.poll_timeout() != Some(due), "a deadline that never passes");
        }
        self.advance_to(until);
        all
    }

    pub(crate) fn last(&self) -> &Decision {
        self.decisions.last().expect("a decision")
    }

    pub(crate) fn raise(&mut self) -> Epoch {
        self.epoch += 1;
        Epoch(self.epoch)
    }

    fn advance_to(&mut self, mono: Mono) {
        let us = mono.since_us(self.now.mono);
        self.now.mono = self.now.mono.max(mono);
        self.now.wall.0 += i64::try_from(us).unwrap();
    }

    fn take(&mut self, actions: Vec<Action>) -> Vec<Did> {
        let did: Vec<_> = actions.into_iter().map(|action| self.summary(action)).collect();
        self.did.extend(did.iter().cloned());
        did
    }

    fn summary(&mut self, action: Action) -> Did {
        match action {
            Action::StartPreamble(epoch) => Did::StartPreamble(epoch.0),
            Action::WipePreamble(reason) => Did::Wipe(reason),
            Action::Play { leg, notice } => Did::Play(leg, notice),
            Action::StopPlaying(leg) => Did::StopPlaying(leg),
            Action::SwallowDigits { leg, swallow } => Did::Swallow(leg, swallow),
            Action::Open { permit, continues } => {
                let first = permit.first().0;
                let last = (first..first + 100).find(|&e| !permit.covers(CallId(7), Epoch(e + 1)));
                Did::Open(permit.id().0, first, last, continues.map(|id| id.0))
            }
            Action::Revoke { permit, reason } => Did::Revoke(permit.0, reason),
            Action::Suspend { permit } => Did::Suspend(permit.0),
            Action::Close { permit } => Did::Close(permit.0),
            Action::Heard(signal) => Did::Heard(signal.leg, signal.meaning, signal.effective),
            Action::Decided(decision) => {
                let did = Did::Decided(decision.gate, decision.reason);
                self.decisions.push(decision);
                did
            }
        }
    }
}
