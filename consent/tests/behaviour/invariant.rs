//! I1 against a reference model: under any order of events, a live permit covers an epoch only if everybody
//! who was on the line in it agreed to that very company, nobody held, and nobody has withdrawn.
//!
//! The model knows the truth of every epoch (who was there, who held, whether the call had left its line) and
//! what each person was asked and answered; it knows nothing of the machine's states. Signalling reaches the machine at once, as in the
//! gateway; the relay's word (keys, doubts, answers to commands) waits in a queue, in order, for as long
//! as the test likes. A doubt is the worst case: always another person.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};

use consent::{
    Action, Basis, Call, CallFacts, CallId, Direction, Epoch, EpochCounter, Event, GateState, Leg, Mono,
    Notice, Now, Permit, PermitId, Preference, Reason, RecordingOutcome, RuleSet, SignalSource, Wall,
};
use proptest::prelude::*;

use crate::stage::{DISPATCH, OFFICE, ON_REQUEST, SIGNALLED, STRANGER, UNION_NUMBER, facts, inbound, rules};

const TRUSTED: Preference = Preference::Recording { trusted: true };
const UNTRUSTED: Preference = Preference::Recording { trusted: false };

static RULES: LazyLock<Arc<RuleSet>> = LazyLock::new(rules);

/// Somebody at the far end of a leg: 0 and 1 at first, then newcomers.
type Person = u32;
/// Everybody on the line at once.
type Company = [Person; 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Answer,
    PartyChanges(Leg),
    /// Somebody comes with whom nothing may be stored.
    BarredComes(Leg),
    Hold(Leg),
    Resume(Leg),
    LeaveLine,
    /// Somebody comes who is no reason to be off the line.
    ComesToLine(Leg),
    /// The relay meets an unannounced source and reports it.
    SourceChanges(Leg),
    /// The same, and the report is lost.
    SourceChangesUnseen(Leg),
    Press(Leg, char),
    /// The whole withdrawal code; as telephone events the relay raises the epoch, as INFO nobody does.
    Withdraw(Leg, SignalSource),
    Request(Leg),
    /// A telephone says what it wants, and whether it is trusted with a yes.
    Prefers(Leg, Preference),
    /// The recorder's next word, or the n next ones, arrive.
    Deliver(usize),
    NoMemory,
    QuestionEnds(Leg, bool),
    RecorderFails,
    Wait(u64),
    End,
}

/// One epoch as it truly was.
#[derive(Clone, Copy, Debug)]
struct Truth {
    company: Company,
    held: bool,
    left_line: bool,
}

struct World {
    call: Call,
    id: CallId,
    basis: Basis,
    now: Now,
    answered: bool,
    counter: EpochCounter,
    epochs: BTreeMap<Epoch, Truth>,
    holding: [bool; 2],
    left_line: bool,
    /// Because of whom, by leg.
    off: [bool; 2],
    newcomers: Person,
    relay: VecDeque<(Now, Event)>,
    /// To whom the question was put, in which company.
    asked: BTreeSet<(Person, Company)>,
    agreed: BTreeSet<(Person, Company)>,
    /// Whether a withdrawal reached the machine before the call's end.
    over: bool,
    ended: bool,
    live: BTreeMap<PermitId, Permit>,
    latest: Option<PermitId>,
    opened: usize,
}

impl World {
    fn new(facts: &CallFacts<'_>, basis: Basis) -> Self {
        let now = Now { mono: Mono(0), wall: Wall(1_790_000_000_000_000) };
        let (id, mut out) = (CallId(3), Vec::new());
        let mut world = Self {
            call: Call::new(id, Arc::clone(&RULES), facts, now, Epoch(0), &mut out),
            id,
            basis,
            now,
            answered: false,
            counter: EpochCounter::default(),
            epochs: [(Epoch(0), Truth { company: [0, 1], held: false, left_line: false })].into(),
            holding: [false; 2],
            left_line: false,
            off: [false, false],
            newcomers: 2,
            relay: VecDeque::new(),
            asked: BTreeSet::new(),
            agreed: BTreeSet::new(),
            over: false,
            ended: false,
            live: BTreeMap::new(),
            latest: None,
            opened: 0,
        };
        world.obey(out);
        world
    }

    fn step(&mut self, step: Step) {
        self.now.mono = self.now.mono.plus_ms(1);
        match step {
            Step::Answer if self.answered => {}
            Step::Answer => {
                self.answered = true;
                let epoch = self.raise();
                self.tell(Event::Answered { epoch });
            }
            Step::PartyChanges(leg) => {
                self.off[leg.index()] = false;
                let epoch = self.replace(leg);
                self.tell(Event::PartyChanged { leg, epoch });
            }
            Step::ComesToLine(leg) => self.come_to_line(leg),
            Step::BarredComes(leg) => {
                self.left_line = true;
                self.off[leg.index()] = true;
                let epoch = self.counter.leave_line();
                self.enter(epoch);
                self.seat(leg, epoch);
                self.over |= !self.ended;
                self.tell(Event::Barred { leg, epoch, reason: Reason::Union });
            }
            Step::Hold(leg) => {
                self.holding[leg.index()] = true;
                let epoch = self.raise();
                self.tell(Event::Held { leg, epoch });
            }
            Step::Resume(leg) => {
                self.holding[leg.index()] = false;
                let epoch = self.raise();
                self.tell(Event::Resumed { leg, epoch });
            }
            Step::LeaveLine => {
                self.left_line = true;
                self.off[Leg::B.index()] = true;
                let epoch = self.counter.leave_line();
                self.enter(epoch);
                self.tell(Event::LeftLine { epoch });
            }
            Step::SourceChanges(leg) => {
                let epoch = self.replace(leg);
                self.report(Event::Doubt { leg, epoch });
            }
            Step::SourceChangesUnseen(leg) => {
                self.replace(leg);
            }
            Step::Press(leg, digit) => self.press(leg, digit),
            Step::Withdraw(leg, source) => self.withdraw(leg, source),
            Step::Prefers(leg, preference) => self.prefer(leg, preference),
            Step::Request(leg) => "*81".chars().for_each(|digit| self.queue_key(leg, digit)),
            Step::Deliver(count) => (0..count).for_each(|_| self.deliver()),
            Step::NoMemory => self.report(Event::PreambleUnavailable),
            Step::QuestionEnds(leg, complete) => {
                self.report(Event::Played { leg, notice: Notice::Question, complete });
            }
            Step::RecorderFails => {
                if let Some(permit) = self.latest {
                    self.report(Event::RecorderFailed { permit });
                }
            }
            Step::Wait(ms) => self.wait(ms),
            Step::End => {
                self.ended = true;
                self.tell(Event::Ended);
            }
        }
        self.check();
    }

    fn company(&self) -> Company {
        self.epochs.values().next_back().unwrap().company
    }

    fn epoch(&self) -> Epoch {
        self.counter.current()
    }

    fn raise(&mut self) -> Epoch {
        let epoch = self.counter.raise();
        self.enter(epoch);
        epoch
    }

    fn enter(&mut self, epoch: Epoch) {
        let held = self.holding.contains(&true);
        let truth = Truth { company: self.company(), held, left_line: self.left_line };
        assert!(self.epochs.insert(epoch, truth).is_none(), "an epoch comes once");
    }

    fn replace(&mut self, leg: Leg) -> Epoch {
        let epoch = self.raise();
        self.seat(leg, epoch);
        epoch
    }

    fn come_to_line(&mut self, leg: Leg) {
        self.off[leg.index()] = false;
        if !self.left_line || self.off.contains(&true) || self.ended {
            let epoch = self.replace(leg);
            return self.tell(Event::PartyChanged { leg, epoch });
        }
        self.left_line = false;
        let epoch = self.counter.return_to_line();
        self.enter(epoch);
        self.seat(leg, epoch);
        self.tell(Event::OnLine { leg, epoch });
    }

    /// Somebody new sits at a leg from this epoch on.
    fn seat(&mut self, leg: Leg, epoch: Epoch) {
        self.epochs.get_mut(&epoch).unwrap().company[leg.index()] = self.newcomers;
        self.newcomers += 1;
    }

    /// A yes counts for whoever pressed it while, as far as that person heard, a question was put to it.
    fn press(&mut self, leg: Leg, digit: char) {
        let company = self.company();
        let asked = (company[leg.index()], company);
        if digit == '1' && self.asked.contains(&asked) {
            self.agreed.insert(asked);
        }
        self.queue_key(leg, digit);
    }

    /// A telephone's yes counts for its party and those who are there, if it is trusted; a no of any counts at once.
    fn prefer(&mut self, leg: Leg, preference: Preference) {
        let epoch = match preference {
            Preference::NoRecording => self.raise(),
            Preference::Recording { .. } | Preference::None => self.epoch(),
        };
        if preference == TRUSTED {
            let company = self.company();
            self.agreed.insert((company[leg.index()], company));
        }
        self.over |= preference == Preference::NoRecording && !self.ended;
        self.tell(Event::Preferred { leg, preference, epoch });
    }

    fn queue_key(&mut self, leg: Leg, digit: char) {
        let (source, epoch) = (SignalSource::TelephoneEvent, self.epoch());
        self.report(Event::Digit { leg, digit, source, epoch });
    }

    /// The relay says something, and when it happened.
    fn report(&mut self, event: Event) {
        self.relay.push_back((self.now, event));
    }

    fn withdraw(&mut self, leg: Leg, source: SignalSource) {
        for digit in "*80".chars() {
            if digit == '0' && source == SignalSource::TelephoneEvent {
                self.raise();
            }
            let event = Event::Digit { leg, digit, source, epoch: self.epoch() };
            match source {
                SignalSource::Info => self.tell(event),
                _ => self.report(event),
            }
        }
        self.over |= source == SignalSource::Info && !self.ended;
    }

    fn deliver(&mut self) {
        match self.relay.pop_front() {
            Some((at, event @ Event::Digit { digit, .. })) => {
                self.tell_at(at, event);
                // The code's last key follows `*8` from the same leg at once.
                self.over |= digit == '0' && !self.ended;
            }
            Some((_, event)) => self.tell(event),
            None => {}
        }
    }

    fn wait(&mut self, ms: u64) {
        let until = self.now.mono.plus_ms(ms);
        while let Some(due) = self.call.poll_timeout().filter(|&due| due <= until) {
            self.now.mono = self.now.mono.max(due);
            let mut out = Vec::new();
            self.call.on_timeout(self.now, &mut out);
            self.obey(out);
            assert!(self.call.poll_timeout().is_none_or(|next| next > due), "a deadline that never passes");
        }
        self.now.mono = until;
    }

    fn tell(&mut self, event: Event) {
        self.tell_at(self.now, event);
    }

    fn tell_at(&mut self, at: Now, event: Event) {
        let mut out = Vec::new();
        self.call.on_event(at, event, &mut out);
        self.obey(out);
    }

    fn obey(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::StartPreamble(epoch) => self.report(Event::PreambleStarted { epoch }),
                Action::Play { leg, notice: Notice::Question } => {
                    let company = self.company();
                    self.asked.insert((company[leg.index()], company));
                    self.report(Event::Playing { leg, notice: Notice::Question, epoch: self.epoch() });
                }
                Action::StopPlaying(leg) => {
                    let notice = Notice::Question;
                    self.report(Event::Played { leg, notice, complete: false });
                }
                Action::Open { permit, continues } => {
                    if let Some(earlier) = continues {
                        assert!(self.live.contains_key(&earlier), "continues a revoked recording");
                    }
                    self.opened += 1;
                    self.latest = Some(permit.id());
                    assert!(self.live.insert(permit.id(), permit).is_none(), "one id twice");
                }
                Action::Revoke { permit, .. } => {
                    // The recording is the permit's and all that it continued.
                    assert!(self.live.contains_key(&permit), "revokes what is not live");
                    self.live.clear();
                }
                Action::Suspend { permit } | Action::Close { permit } => {
                    assert!(self.live.contains_key(&permit), "closes what is not live");
                }
                Action::Decided(decision) => {
                    assert_eq!(decision.gate == GateState::Open, decision.basis.is_some());
                }
                _ => {}
            }
        }
    }

    fn check(&self) {
        if self.basis == Basis::DispatchLine {
            for (&epoch, truth) in &self.epochs {
                let covered = self.live.values().any(|permit| permit.covers(self.id, epoch));
                assert_eq!(covered, !truth.left_line, "{epoch:?}");
            }
        }
        for permit in self.live.values() {
            assert_eq!(permit.basis(), self.basis, "the basis of the line and no other");
            assert!(!permit.covers(CallId(4), permit.first()), "nor another call");
            if permit.basis() == Basis::DispatchLine {
                continue;
            }
            assert!(!self.over, "{:?} lives on after a withdrawal", permit.id());
            for (&epoch, truth) in &self.epochs {
                let all_agreed = truth.company.iter().all(|&p| self.agreed.contains(&(p, truth.company)));
                assert!(
                    !permit.covers(self.id, epoch) || (all_agreed && !truth.held),
                    "{:?} covers {epoch:?}: {truth:?}, agreed: {:?}",
                    permit.id(),
                    self.agreed
                );
            }
            assert!(!permit.covers(self.id, Epoch(self.epoch().0 + 1)), "nobody knows the next epoch");
        }
    }
}

fn leg() -> impl Strategy<Value = Leg> {
    prop_oneof![Just(Leg::A), Just(Leg::B)]
}

fn preference() -> impl Strategy<Value = Preference> {
    prop_oneof![6 => Just(TRUSTED), 2 => Just(UNTRUSTED), 1 => Just(Preference::NoRecording), 1 => Just(Preference::None)]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Answer),
        3 => leg().prop_map(Step::PartyChanges),
        1 => leg().prop_map(Step::BarredComes),
        4 => leg().prop_map(Step::Hold),
        5 => leg().prop_map(Step::Resume),
        1 => Just(Step::LeaveLine),
        2 => leg().prop_map(Step::ComesToLine),
        3 => leg().prop_map(Step::SourceChanges),
        1 => leg().prop_map(Step::SourceChangesUnseen),
        18 => leg().prop_map(|leg| Step::Press(leg, '1')),
        1 => (leg(), prop_oneof![Just('2'), Just('5'), Just('*')]).prop_map(|(leg, key)| Step::Press(leg, key)),
        1 => (leg(), prop_oneof![Just(SignalSource::TelephoneEvent), Just(SignalSource::Info)])
            .prop_map(|(leg, source)| Step::Withdraw(leg, source)),
        2 => leg().prop_map(Step::Request),
        4 => (leg(), preference()).prop_map(|(leg, preference)| Step::Prefers(leg, preference)),
        14 => (1..4_usize).prop_map(Step::Deliver),
        1 => Just(Step::NoMemory),
        4 => leg().prop_map(|leg| Step::QuestionEnds(leg, true)),
        1 => leg().prop_map(|leg| Step::QuestionEnds(leg, false)),
        1 => Just(Step::RecorderFails),
        2 => prop_oneof![Just(100), Just(3_001), Just(10_000), Just(60_000)].prop_map(Step::Wait),
        1 => Just(Step::End),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i1_holds_on_consent_lines(
        steps in prop::collection::vec(step(), 1..60),
        line in prop_oneof![Just(OFFICE), Just(ON_REQUEST), Just(SIGNALLED)],
        outbound in any::<bool>(),
    ) {
        let facts = if outbound { facts(Direction::Outbound, &[STRANGER], &[line]) } else { inbound(line) };
        let mut world = World::new(&facts, Basis::AllPartyConsent);
        steps.into_iter().for_each(|step| world.step(step));
    }

    #[test]
    fn i1_holds_on_calls_that_are_being_recorded(steps in prop::collection::vec(step(), 1..30)) {
        let mut world = World::new(&inbound(OFFICE), Basis::AllPartyConsent);
        beginning(true).into_iter().chain(steps).for_each(|step| world.step(step));
        prop_assert!(world.opened > 0);
    }

    #[test]
    fn i1_holds_on_dispatch_lines(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new(&inbound(DISPATCH), Basis::DispatchLine);
        steps.into_iter().for_each(|step| world.step(step));
        prop_assert!(world.opened > 0);
    }

    #[test]
    fn nothing_opens_where_nothing_may(steps in prop::collection::vec(step(), 1..40), union in any::<bool>()) {
        let facts = if union { facts(Direction::Outbound, &[UNION_NUMBER], &[OFFICE]) } else { inbound(STRANGER) };
        let mut world = World::new(&facts, Basis::AllPartyConsent);
        steps.into_iter().for_each(|step| world.step(step));
        prop_assert_eq!(world.opened, 0);
        prop_assert_eq!(world.call.basis(), None);
    }

    #[test]
    fn any_event_in_any_epoch_is_survived(
        events in prop::collection::vec((0..16_u8, leg(), any::<char>(), 0..6_u32, any::<u64>()), 0..60),
    ) {
        let mut world = World::new(&inbound(OFFICE), Basis::AllPartyConsent);
        for (kind, leg, digit, epoch, us) in events {
            world.now.mono = Mono(us);
            let epoch = Epoch(if epoch == 5 { u32::MAX } else { epoch });
            let mut out = Vec::new();
            world.call.on_event(world.now, raw_event(kind, leg, digit, epoch), &mut out);
        }
    }
}

fn raw_event(kind: u8, leg: Leg, digit: char, epoch: Epoch) -> Event {
    let notice = Notice::Question;
    match kind {
        0 => Event::Answered { epoch },
        1 => Event::PartyChanged { leg, epoch },
        2 => Event::Doubt { leg, epoch },
        3 => Event::Held { leg, epoch },
        4 => Event::Resumed { leg, epoch },
        5 => Event::LeftLine { epoch },
        6 => Event::Digit { leg, digit, source: SignalSource::InBand, epoch },
        7 => Event::Digit { leg, digit: '1', source: SignalSource::Info, epoch },
        8 => Event::PreambleStarted { epoch },
        9 => Event::Played { leg, notice, complete: epoch.0 > 0 },
        12 => Event::Barred { leg, epoch, reason: Reason::NeverLine },
        10 => Event::RecorderFailed { permit: PermitId(epoch.0) },
        11 => Event::Playing { leg, notice, epoch },
        13 => Event::Preferred { leg, preference: TRUSTED, epoch },
        14 => Event::Preferred { leg, preference: Preference::NoRecording, epoch },
        15 => Event::Preferred { leg, preference: Preference::None, epoch },
        _ => Event::CannotAsk { leg },
    }
}

/// From the answer until both parties are asked, or until both have agreed.
fn beginning(recorded: bool) -> Vec<Step> {
    let agree = [Step::Press(Leg::A, '1'), Step::Press(Leg::B, '1'), Step::Deliver(4)];
    let asking = [Step::Answer, Step::Deliver(3)];
    if recorded { [&asking[..], &agree].concat() } else { asking.to_vec() }
}

/// What the exhaustive exploration chooses from. The relay's word arrives at once or, after
/// `SourceChanges`, when something delivers it.
const ALPHABET: [Step; 20] = [
    Step::Press(Leg::A, '1'),
    Step::Press(Leg::B, '1'),
    Step::Press(Leg::B, '2'),
    Step::Deliver(1),
    Step::Deliver(3),
    Step::PartyChanges(Leg::B),
    Step::SourceChanges(Leg::A),
    Step::SourceChangesUnseen(Leg::B),
    Step::Hold(Leg::A),
    Step::Resume(Leg::A),
    Step::Withdraw(Leg::A, SignalSource::TelephoneEvent),
    Step::Withdraw(Leg::B, SignalSource::Info),
    Step::Wait(60_000),
    // From here on only where telephones speak of it.
    Step::Prefers(Leg::A, TRUSTED),
    Step::Prefers(Leg::B, TRUSTED),
    Step::Prefers(Leg::A, UNTRUSTED),
    Step::Prefers(Leg::B, Preference::NoRecording),
    // From here on only where the call is recorded already.
    Step::Hold(Leg::B),
    Step::Resume(Leg::B),
    Step::BarredComes(Leg::B),
];

/// Every order of five steps while the parties are asked, and of four while the call is recorded or held.
#[test]
fn i1_holds_in_every_order_of_steps() {
    let asking = beginning(false);
    let recording = beginning(true);
    let held = [&recording[..], &[Step::Hold(Leg::A)]].concat();
    let wanted = [&[Step::Prefers(Leg::A, TRUSTED)], &asking[..]].concat();
    let mut opened = 0;
    let mut outcomes = Vec::new();
    for (beginning, letters, depth) in
        [(&asking, 13, 5), (&wanted, 17, 4), (&recording, 20, 4), (&held, 20, 4)]
    {
        for order in 0..usize::pow(letters, depth) {
            let mut world = World::new(&inbound(OFFICE), Basis::AllPartyConsent);
            beginning.iter().for_each(|&step| world.step(step));
            let mut rest = order;
            for _ in 0..depth {
                world.step(ALPHABET[rest % letters]);
                rest /= letters;
            }
            opened += usize::from(depth == 5 && world.opened > 0);
            let outcome = world.call.recording_outcome();
            if !outcomes.contains(&outcome) {
                outcomes.push(outcome);
            }
        }
    }
    // Not vacuous: calls were recorded, and in every way in which a call can fare here.
    assert!(opened > 500, "{opened}");
    for outcome in [
        RecordingOutcome::Recorded,
        RecordingOutcome::PartlyRecorded,
        RecordingOutcome::Refused,
        RecordingOutcome::Withdrawn,
        RecordingOutcome::PromptIncomplete,
        RecordingOutcome::NotAsked,
    ] {
        assert!(outcomes.contains(&outcome), "{outcome:?} was never reached: {outcomes:?}");
    }
}

/// The model itself must object to what it is there to forbid.
#[test]
#[should_panic(expected = "covers Epoch(1)")]
fn the_model_objects_to_a_permit_that_a_party_did_not_agree_to() {
    let mut world = World::new(&inbound(OFFICE), Basis::AllPartyConsent);
    for step in [Step::Answer, Step::Deliver(3), Step::Press(Leg::A, '1'), Step::Press(Leg::B, '1')] {
        world.step(step);
    }
    world.agreed.pop_last();
    world.step(Step::Deliver(4));
}
