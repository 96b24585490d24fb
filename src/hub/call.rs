//! One call at the hub, from its INVITE to the end of its record.
//!
//! | stage | input | does |
//! |---|---|---|
//! | preparing | ports bound, journal written (or waited for long enough) | INVITE goes on → running |
//! | preparing | over a limit, neither emergency nor dispatch | refused (503; 482), then its end → closing |
//! | preparing, running | gateway events | epoch raised first where parties change, then `consent`, media, record |
//! | preparing, running | ended | recorder closes → closing |
//! | closing | statistics in and recordings sealed, or waited for long enough | record closed |

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use consent::{
    Action, Basis, CallFacts, CallId, CodeMatcher, Direction, E164, EpochCounter, Event, Joined, Leg,
    LineClass, Mono, Name, Newcomer, Now, NumberBlock, Permit, PermitId, PhoneContext, Preference,
    RecordingId, RecordingOutcome, RuleSet, Side, SignalSource,
};
use recorder::{LegStatistics, SourceChange};
use sip_gateway::sdp::Recording;
use sip_gateway::wire::{before_params, user_params};
use sip_gateway::{Change, End, Identity, LegMedia, Offer, Route};
use storage::{CallStarted, Entry, Stamped};

use super::{Output, record};

mod awareness;
mod transfer;

/// I3: the INVITE waits this long for the journal, no longer.
const JOURNAL_WAIT_MS: u64 = 20;
/// I2: and this long for media ports, which a healthy recorder binds in under one; then the call goes on
/// without media through us.
const BIND_WAIT_MS: u64 = 100;
/// The same for an emergency call.
const EMERGENCY_BIND_WAIT_MS: u64 = 20;
/// How long an ended call's record stays open for its statistics and recordings.
const CLOSE_WAIT_MS: u64 = 5_000;
/// The most media streams relayed in one call; further `m=` lines are refused.
const MAX_STREAMS: usize = 4;

/// What is known of the district when a call begins.
pub(super) struct District<'a> {
    /// The gateway's name in records.
    pub(super) node: &'a str,
    pub(super) rules: &'a Arc<RuleSet>,
    /// Whether the call shows the outside a number that is none of the district's.
    pub(super) foreign_caller_id: bool,
}

#[derive(Debug)]
pub(super) struct Call {
    id: CallId,
    node: String,
    machine: consent::Call,
    rules: Arc<RuleSet>,
    epoch: EpochCounter,
    emergency: bool,
    /// The leg at which an emergency service has been called in somebody's place, and has not come yet.
    calls_emergency: Option<Leg>,
    route: Route,
    /// On which side the far end of each leg is.
    sides: [Side; 2],
    stage: Stage,
    offered_media: Option<LegMedia>,
    rtp: [Vec<Option<SocketAddr>>; 2],
    /// Whether somebody else has come to a leg and not been described yet.
    replaced: [bool; 2],
    /// The INVITE that is to replace a party, and until when it waits for its record.
    replacing: Option<(CallId, Mono)>,
    /// Whether media runs through our ports; without it nothing can be stored.
    anchored: bool,
    answered: bool,
    ringing: bool,
    /// The user dialled: the identity of the callee until a change says otherwise.
    callee: String,
    withdraw_by_info: [CodeMatcher; 2],
    /// What the legs that understand it are told of recording.
    indicated: Recording,
    /// What the callee's telephone said of it when it answered.
    answered_with: Option<Preference>,
    /// How often a far end has spoken of a recording of its own.
    recorded_elsewhere: usize,
    /// The last permit. All of a call's are of the same basis and retention, its line's.
    permit: Option<PermitId>,
    unsealed: BTreeSet<RecordingId>,
    sealed: usize,
    statistics: Option<Box<[LegStatistics; 2]>>,
    pub(super) scheduled: Option<Mono>,
}

#[derive(Debug)]
enum Stage {
    Preparing { journalled: bool, journal_by: Mono, bound: Option<Vec<[SocketAddr; 2]>>, bound_by: Mono },
    Refused,
    Running,
    Closing { end: End, by: Mono },
    Closed,
}

impl Call {
    /// Takes in an offered call: finds its line, opens its record, and asks for ports.
    pub(super) fn begin(
        now: Now,
        offer: &Offer,
        district: &District<'_>,
        out: &mut VecDeque<Output>,
    ) -> (CallId, Self) {
        let rules = district.rules;
        let direction = direction(offer, rules);
        let facts = facts(offer, direction);
        let epoch = EpochCounter::default();
        let mut actions = Vec::new();
        let machine =
            consent::Call::new(offer.call, Arc::clone(rules), &facts, now, epoch.current(), &mut actions);
        let withdraw = &rules.settings().withdraw;
        let side = if direction == Direction::Outbound { Side::Public } else { Side::District };
        let user = if offer.emergency { None } else { dialled(rules, &offer.request_user, side) };
        let mut call = Self {
            id: offer.call,
            node: district.node.to_owned(),
            machine,
            rules: Arc::clone(rules),
            epoch,
            emergency: offer.emergency,
            calls_emergency: None,
            route: Route { side, user },
            sides: [offer.side, side],
            stage: Stage::Preparing {
                journalled: offer.emergency,
                journal_by: now.mono.plus_ms(JOURNAL_WAIT_MS),
                bound: None,
                bound_by: now.mono.plus_ms(if offer.emergency {
                    EMERGENCY_BIND_WAIT_MS
                } else {
                    BIND_WAIT_MS
                }),
            },
            offered_media: offer.media.clone(),
            rtp: [Vec::new(), Vec::new()],
            replaced: [false, false],
            replacing: None,
            anchored: false,
            answered: false,
            ringing: false,
            callee: offer.request_user.clone(),
            withdraw_by_info: [CodeMatcher::new(withdraw), CodeMatcher::new(withdraw)],
            indicated: Recording::Off,
            answered_with: None,
            recorded_elsewhere: 0,
            permit: None,
            unsealed: BTreeSet::new(),
            sealed: 0,
            statistics: None,
            scheduled: None,
        };
        call.open_record(now, offer, district, direction, out);
        let refusable = !offer.emergency && call.machine.class() != LineClass::Dispatch;
        if let Some(excess) = offer.excess.filter(|_| refusable) {
            call.stage = Stage::Refused;
            out.push_back(Output::Gateway(excess.refuse(offer.call)));
            actions.retain(|action| matches!(action, Action::Decided(_)));
            call.perform(now, actions, out);
            return (offer.call, call);
        }
        out.push_back(Output::Media(recorder::Command::Bind {
            call: offer.call,
            epoch: call.epoch.clone(),
            streams: offer.media.as_ref().map_or(1, |media| media.streams.len().clamp(1, MAX_STREAMS)) as u8,
            emergency: offer.emergency,
            withdraw: withdraw.clone(),
        }));
        call.perform(now, actions, out);
        (offer.call, call)
    }

    /// Whether it is an emergency call, has become one, or would by a transfer under way.
    pub(super) const fn is_emergency(&self) -> bool {
        self.emergency || self.calls_emergency.is_some()
    }

    /// Nobody, or somebody else, is called in this leg's place.
    fn emergency_no_longer_called(&mut self, leg: Leg) {
        self.calls_emergency.take_if(|called| *called == leg);
    }

    pub(super) fn on_gateway(&mut self, now: Now, event: sip_gateway::Event, out: &mut VecDeque<Output>) {
        use sip_gateway::Event as Sip;
        match event {
            Sip::Offered(_) => {}
            Sip::Routed { parties_signalled, sip_call_id, .. } => {
                // Whom a transfer calls is no party yet; its peer counts once it is (`Change::Replaced`).
                if !self.answered {
                    self.machine.set_parties_signalled(Leg::B, parties_signalled);
                }
                self.write(now, Entry::CallRouted { call: self.id, sip_call_id }, out);
            }
            Sip::Progress { .. } if !self.ringing => {
                self.ringing = true;
                self.write(now, Entry::CallRinging { call: self.id }, out);
            }
            Sip::Progress { .. } => {}
            Sip::Media { leg, media, .. } => self.describe(leg, &media, out),
            Sip::Answered { .. } => self.on_answered(now, out),
            Sip::Diverted { leg, target, .. } => self.on_diverted(now, leg, &target, out),
            Sip::TransferFailed { leg, .. } => self.emergency_no_longer_called(leg),
            Sip::Replacing(replacement) => self.on_replacing(now, &replacement, out),
            Sip::ReplacementEnded { record, status, .. } => self.on_replaced(now, record, status, out),
            Sip::Vacated { leg, identity, side, .. } => {
                self.on_vacated(now, leg, (&identity, side), out);
            }
            Sip::Linked { with, .. } => self.write(now, Entry::CallsLinked { call: self.id, with }, out),
            Sip::Changed { leg, change, .. } => self.on_changed(now, leg, change, out),
            Sip::Digit { leg, digit, .. } => {
                if self.withdraw_by_info[leg.index()].push(digit, now.mono) {
                    self.epoch.raise();
                }
                let epoch = self.epoch.current();
                self.tell(now, Event::Digit { leg, digit, source: SignalSource::Info, epoch }, out);
            }
            Sip::Preference { leg, preference, trusted, .. } => {
                self.on_preference(now, leg, awareness::preference(preference, trusted), out);
            }
            Sip::Records { leg, recording, .. } => self.on_recorded_elsewhere(now, leg, recording, out),
            Sip::Ended { end, .. } => self.on_ended(now, end, out),
        }
    }

    pub(super) fn on_media(&mut self, now: Now, event: recorder::Event, out: &mut VecDeque<Output>) {
        use recorder::Event as Media;
        match event {
            Media::Bound { addresses, .. } => self.on_bound(now, addresses, out),
            Media::BindFailed { .. } => self.on_bound(now, Vec::new(), out),
            Media::Digit { leg, digit, epoch, at, .. } => {
                self.tell(at, Event::Digit { leg, digit, source: SignalSource::TelephoneEvent, epoch }, out);
            }
            Media::UnannouncedSource { leg, epoch, .. } => self.tell(now, Event::Doubt { leg, epoch }, out),
            Media::Playing { leg, notice, epoch, at, .. } => {
                self.tell(at, Event::Playing { leg, notice, epoch }, out);
            }
            Media::Played { leg, notice, complete, .. } => {
                self.tell(now, Event::Played { leg, notice, complete }, out);
            }
            Media::CannotPlay { leg, .. } => self.tell(now, Event::CannotAsk { leg }, out),
            Media::PreambleStarted { epoch, .. } => self.tell(now, Event::PreambleStarted { epoch }, out),
            Media::PreambleUnavailable { .. } => self.tell(now, Event::PreambleUnavailable, out),
            Media::PreambleWiped { held_ms, reason, .. } => {
                self.write(now, Entry::PreambleWiped { call: self.id, held_ms, reason }, out);
            }
            Media::RecordingStarted { permit, recording, .. } => {
                self.unsealed.insert(recording);
                self.tell(now, Event::RecordingStarted { permit }, out);
                if let Some(entry) = self.recording_started(permit, recording) {
                    self.write(now, entry, out);
                }
            }
            Media::RecordingSealed(sealed) => {
                self.unsealed.remove(&sealed.recording);
                self.sealed += 1;
                let line = self.machine.line().map(|line| line.number.clone());
                out.push_back(Output::Store { sealed, line });
            }
            Media::RecordingFailed { permit, recording, .. } => {
                self.write(now, Entry::RecordingFailed { call: self.id, recording }, out);
                self.tell(now, Event::RecorderFailed { permit }, out);
            }
            Media::MediaFailed { .. } => {
                if let Some(permit) = self.permit {
                    self.tell(now, Event::RecorderFailed { permit }, out);
                }
            }
            Media::CopyFailed { recording, second, .. } => {
                let entry = Entry::Audit {
                    actor: "gateway".to_owned(),
                    action: "recording.copy-failed".to_owned(),
                    object: Some(recording.to_string()),
                    detail: Some(if second { "second copy" } else { "first copy" }.to_owned()),
                };
                self.write(now, entry, out);
            }
            Media::Statistics { legs, .. } => self.statistics = Some(Box::new(legs)),
        }
        self.close_if_complete(now, out);
    }

    pub(super) fn on_journalled(&mut self, now: Now, record: CallId, out: &mut VecDeque<Output>) {
        if record != self.id {
            return self.replace(out);
        }
        if let Stage::Preparing { journalled, .. } = &mut self.stage {
            *journalled = true;
            self.proceed_if_ready(now, out);
        }
    }

    pub(super) fn on_timeout(&mut self, now: Now, out: &mut VecDeque<Output>) {
        self.proceed_if_ready(now, out);
        if self.replacing.is_some_and(|(_, by)| by <= now.mono) {
            self.replace(out);
        }
        if self.machine.poll_timeout().is_some_and(|at| at <= now.mono) {
            let mut actions = Vec::new();
            self.machine.on_timeout(now, &mut actions);
            self.perform(now, actions, out);
        }
        self.close_if_complete(now, out);
    }

    pub(super) fn poll_timeout(&self) -> Option<Mono> {
        let own = match &self.stage {
            Stage::Preparing { journalled, journal_by, bound, bound_by } => {
                let journal = (!journalled).then_some(*journal_by);
                let bind = bound.is_none().then_some(*bound_by);
                journal.into_iter().chain(bind).min()
            }
            Stage::Closing { by, .. } => Some(*by),
            Stage::Running | Stage::Refused | Stage::Closed => None,
        };
        let replacing = self.replacing.map(|(_, by)| by);
        own.into_iter().chain(replacing).chain(self.machine.poll_timeout()).min()
    }

    pub(super) const fn is_closed(&self) -> bool {
        matches!(self.stage, Stage::Closed)
    }

    pub(super) fn is_dispatch(&self) -> bool {
        self.machine.class() == LineClass::Dispatch
    }

    pub(super) fn recordings(&self) -> usize {
        self.unsealed.len()
    }

    fn open_record(
        &mut self,
        now: Now,
        offer: &Offer,
        district: &District<'_>,
        direction: Direction,
        out: &mut VecDeque<Output>,
    ) {
        let (calling, called) = (|| names(&offer.caller).map(|name| name.user), offer.request_user.as_str());
        let started = CallStarted {
            call: self.id,
            node: district.node.to_owned(),
            line: self.machine.line().map(|line| line.number.clone()),
            line_class: self.machine.class(),
            retention: record::call_tag(offer.emergency),
            direction,
            from: self.shown_party(&offer.caller, self.machine.withholds(Leg::A, calling())),
            to: self.shown(called, self.machine.withholds(Leg::B, [called])),
            privacy: offer.caller.privacy,
            emergency: offer.emergency,
            identity_verdict: offer.verdict.map(record::verdict),
            foreign_caller_id: district.foreign_caller_id,
            sip_call_id: offer.sip_call_id.clone(),
            linked_calls: Vec::new(),
        };
        let stamped = Stamped { at: now.wall, entry: Entry::CallStarted(Box::new(started)) };
        out.push_back(Output::Journal { stamped, awaited_by: (!offer.emergency).then_some(self.id) });
        self.join(now, Leg::A, &offer.caller, &calling().collect::<Vec<_>>(), out);
    }

    fn on_bound(&mut self, now: Now, addresses: Vec<[SocketAddr; 2]>, out: &mut VecDeque<Output>) {
        if let Stage::Preparing { bound, .. } = &mut self.stage {
            self.anchored = !addresses.is_empty();
            *bound = Some(addresses);
            self.proceed_if_ready(now, out);
        }
    }

    fn proceed_if_ready(&mut self, now: Now, out: &mut VecDeque<Output>) {
        let Stage::Preparing { journalled, journal_by, bound, bound_by } = &mut self.stage else { return };
        let journal_done = *journalled || *journal_by <= now.mono;
        let bind_done = bound.is_some() || *bound_by <= now.mono;
        if !journal_done || !bind_done {
            return;
        }
        let media = bound.take().unwrap_or_default();
        self.stage = Stage::Running;
        if let Some(offered) = self.offered_media.take() {
            self.describe(Leg::A, &offered, out);
        }
        out.push_back(Output::Gateway(sip_gateway::Command::Proceed {
            call: self.id,
            route: self.route.clone(),
            media,
        }));
    }

    fn describe(&mut self, leg: Leg, media: &LegMedia, out: &mut VecDeque<Output>) {
        let rtp: Vec<_> = media.streams.iter().map(|stream| stream.rtp).collect();
        let known = &mut self.rtp[leg.index()];
        let change = match std::mem::take(&mut self.replaced[leg.index()]) {
            true => SourceChange::Replaced,
            false if *known == rtp => SourceChange::Same,
            false => SourceChange::Announced,
        };
        *known = rtp;
        out.push_back(Output::Media(recorder::Command::Describe {
            call: self.id,
            leg,
            signalled_from: media.signalled_from,
            streams: media.streams.iter().take(MAX_STREAMS).map(record::remote_media).collect(),
            change,
        }));
    }

    fn on_answered(&mut self, now: Now, out: &mut VecDeque<Output>) {
        if self.answered {
            return;
        }
        self.answered = true;
        self.write(now, Entry::CallAnswered { call: self.id }, out);
        let callee = Identity { from: self.callee.clone(), ..Identity::default() };
        self.join(now, Leg::B, &callee, &[&callee.from], out);
        out.push_back(Output::Media(recorder::Command::Answered { call: self.id }));
        self.take_wish(now, out);
        let epoch = self.epoch.raise();
        self.tell(now, Event::Answered { epoch }, out);
        self.take_refusal(now, out);
        if !self.anchored && !self.emergency {
            for leg in Leg::BOTH {
                self.tell(now, Event::CannotAsk { leg }, out);
            }
        }
    }

    fn on_changed(&mut self, now: Now, leg: Leg, change: Change, out: &mut VecDeque<Output>) {
        // The epoch first: what the relay stamps from here on belongs to the change.
        match change {
            Change::Held => {
                let epoch = self.epoch.raise();
                self.tell(now, Event::Held { leg, epoch }, out);
            }
            Change::Resumed => {
                let epoch = self.epoch.raise();
                self.tell(now, Event::Resumed { leg, epoch }, out);
            }
            Change::NewOrigin => {
                let epoch = self.epoch.raise();
                self.tell(now, Event::Doubt { leg, epoch }, out);
            }
            Change::NewParty { identity, called } => {
                // Where a trusted peer asserts nobody, From is known though it may be what it was when the dialog
                // began (RFC 3261 §12.2.1.1): within a dialog no name brings a call to a dispatch line.
                let names = names_at(called.as_deref(), &identity);
                let side = self.sides[leg.index()];
                let newcomer = Newcomer { side, names: &names, emergency: false, same_dialog: true };
                self.on_newcomer(now, leg, &identity, &newcomer, out);
            }
            Change::Replaced { identity, called, side, emergency, parties_signalled } => {
                self.machine.set_parties_signalled(leg, parties_signalled);
                self.replaced[leg.index()] = true;
                self.sides[leg.index()] = side;
                self.emergency |= emergency;
                self.emergency_no_longer_called(leg);
                let names = names_at(called.as_deref(), &identity);
                let newcomer = Newcomer { side, names: &names, emergency, same_dialog: false };
                self.on_newcomer(now, leg, &identity, &newcomer, out);
            }
        }
    }

    fn on_ended(&mut self, now: Now, end: End, out: &mut VecDeque<Output>) {
        if matches!(self.stage, Stage::Closing { .. } | Stage::Closed) {
            return;
        }
        self.tell(now, Event::Ended, out);
        for leg in Leg::BOTH {
            self.leave(now, leg, out);
        }
        let refused = matches!(self.stage, Stage::Refused);
        self.stage = Stage::Closing { end, by: now.mono.plus_ms(if refused { 0 } else { CLOSE_WAIT_MS }) };
        if !refused {
            out.push_back(Output::Media(recorder::Command::End { call: self.id }));
        }
        self.close_if_complete(now, out);
    }

    fn close_if_complete(&mut self, now: Now, out: &mut VecDeque<Output>) {
        let Stage::Closing { end, by } = &self.stage else { return };
        let complete = self.statistics.is_some() && self.unsealed.is_empty();
        if !complete && now.mono < *by {
            return;
        }
        let ended = record::ended(
            self.id,
            end,
            self.answered,
            self.recording_outcome(),
            self.machine.basis().filter(|_| self.sealed + self.unsealed.len() > 0),
            self.statistics.as_deref(),
        );
        self.write(now, Entry::CallEnded(Box::new(ended)), out);
        self.stage = Stage::Closed;
    }

    /// The machine knows what was permitted; only a recording that exists makes a call "recorded".
    fn recording_outcome(&self) -> RecordingOutcome {
        let outcome = self.machine.recording_outcome();
        let claims_audio = matches!(outcome, RecordingOutcome::Recorded | RecordingOutcome::PartlyRecorded);
        match (claims_audio && self.sealed + self.unsealed.len() == 0, self.answered) {
            (false, _) => outcome,
            (true, true) => RecordingOutcome::Failed,
            (true, false) => RecordingOutcome::NotAsked,
        }
    }

    fn tell(&mut self, now: Now, event: Event, out: &mut VecDeque<Output>) {
        if matches!(self.stage, Stage::Closing { .. } | Stage::Closed) {
            return;
        }
        let mut actions = Vec::new();
        self.machine.on_event(now, event, &mut actions);
        self.perform(now, actions, out);
    }

    fn perform(&mut self, now: Now, actions: Vec<Action>, out: &mut VecDeque<Output>) {
        use recorder::Command as Media;
        let call = self.id;
        for action in actions {
            let command = match action {
                Action::StartPreamble(epoch) => Media::StartPreamble { call, epoch },
                Action::WipePreamble(reason) => Media::WipePreamble { call, reason },
                Action::Play { leg, notice } => Media::Play { call, leg, notice },
                Action::StopPlaying(leg) => Media::StopPlaying { call, leg },
                Action::SwallowDigits { leg, swallow } => {
                    out.push_back(Output::Gateway(sip_gateway::Command::SwallowInfoDigits {
                        call,
                        leg,
                        swallow,
                    }));
                    Media::SwallowDigits { call, leg, swallow }
                }
                Action::Open { permit, continues } => {
                    self.open(permit, continues, out);
                    continue;
                }
                Action::Revoke { permit, reason } => Media::Revoke { call, permit, reason },
                Action::Suspend { permit } => Media::Suspend { call, permit },
                Action::Close { permit } => Media::CloseTap { call, permit },
                Action::Heard(signal) => {
                    self.write(now, Entry::Signalled { call, signal }, out);
                    continue;
                }
                Action::Decided(decision) => {
                    self.indicate(&decision, out);
                    self.write(now, Entry::Decided { call, decision }, out);
                    continue;
                }
            };
            out.push_back(Output::Media(command));
        }
    }

    /// What a recording that began is entered as; nothing, if no permit of this call is behind it.
    fn recording_started(&self, permit: PermitId, recording: RecordingId) -> Option<Entry> {
        self.permit.filter(|last| permit <= *last)?;
        let (basis, retention) = (self.machine.basis()?, self.machine.line()?.retention.clone());
        Some(Entry::RecordingStarted { call: self.id, recording, basis, retention })
    }

    fn open(&mut self, permit: Permit, continues: Option<PermitId>, out: &mut VecDeque<Output>) {
        self.permit = Some(permit.id());
        out.push_back(match continues {
            Some(earlier) => Output::Media(recorder::Command::OpenTap { permit, target: Err(earlier) }),
            None => Output::BeginRecording {
                look_back: permit.basis() == Basis::AllPartyConsent,
                channels: record::channels(self.machine.line_leg()),
                permit,
            },
        });
    }

    /// Enters who is at a leg from now on; before the machine is told what that means.
    fn join(&mut self, now: Now, leg: Leg, who: &Identity, users: &[&str], out: &mut VecDeque<Output>) {
        let Joined { ordinal, withheld } = self.machine.join(leg, users.iter().copied());
        let identity = self.shown_party(who, withheld);
        self.write(now, Entry::PartyJoined { call: self.id, leg, ordinal, identity }, out);
    }

    fn leave(&mut self, now: Now, leg: Leg, out: &mut VecDeque<Output>) {
        if let Some(ordinal) = self.machine.present(leg) {
            self.write(now, Entry::PartyLeft { call: self.id, leg, ordinal }, out);
        }
    }

    fn write(&self, now: Now, entry: Entry, out: &mut VecDeque<Output>) {
        out.push_back(Output::Journal { stamped: Stamped { at: now.wall, entry }, awaited_by: None });
    }

    /// How a user is shown in records, if it may be: in full form where it is a number, else without parameters.
    fn shown(&self, user: &str, withheld: bool) -> Option<String> {
        (!withheld).then(|| {
            self.full(user)
                .map_or_else(|| before_params(user).to_owned(), |number| number.as_str().to_owned())
        })
    }

    /// The same of a far end that may have several names: the first number that is asserted, or whatever there is.
    fn shown_party(&self, who: &Identity, withheld: bool) -> Option<String> {
        let mut numbers = who.asserted.iter().filter(|user| self.full(user).is_some());
        let user = numbers.next().or(who.asserted.first()).unwrap_or(&who.from);
        self.shown(user, who.privacy || withheld)
    }

    fn full(&self, user: &str) -> Option<E164> {
        self.rules.numbering().normalise(user).number().cloned()
    }
}

/// Whether an offered call's line is a dispatch line.
pub(super) fn is_dispatch(offer: &Offer, rules: &RuleSet) -> bool {
    let line = rules.line_of(&facts(offer, direction(offer, rules)));
    line.is_some_and(|line| line.class == LineClass::Dispatch)
}

/// Whether a call to the outside, other than an emergency call, shows a full number that is none of the
/// district's: neither a line or its alias, nor one of these.
pub(super) fn shows_foreign_number(offer: &Offer, rules: &RuleSet, own: &[NumberBlock]) -> bool {
    if offer.emergency || direction(offer, rules) != Direction::Outbound {
        return false;
    }
    let shown = names(&offer.caller).map(|name| name.user).filter(|user| !rules.is_line(user));
    let mut numbers = shown.filter_map(|user| rules.numbering().normalise(user).number().cloned());
    numbers.any(|number| !own.iter().any(|block| block.contains(&number)))
}

fn direction(offer: &Offer, rules: &RuleSet) -> Direction {
    match offer.side {
        Side::Public => Direction::Inbound,
        Side::District if !offer.emergency && rules.is_line(&offer.request_user) => Direction::Internal,
        Side::District => Direction::Outbound,
    }
}

/// Every name that a far end goes by, the most trustworthy first. Whoever is asserted to be somebody may write
/// anybody into From.
fn names(identity: &Identity) -> impl Iterator<Item = Name<'_>> {
    let from = match identity.asserted.is_empty() {
        true => vouched(identity, &identity.from),
        false => Name::said(&identity.from),
    };
    identity.asserted.iter().map(|user| vouched(identity, user)).chain([from])
}

/// The names of a far end, before all the one that we called to reach it, if it may still be there.
fn names_at<'a>(called: Option<&'a str>, identity: &'a Identity) -> Vec<Name<'a>> {
    called.map(Name::known).into_iter().chain(names(identity)).collect()
}

/// A name by the word of this far end's peer.
fn vouched<'a>(identity: &Identity, user: &'a str) -> Name<'a> {
    if identity.trusted { Name::known(user) } else { Name::said(user) }
}

/// The called side's known name is the one that the call is routed by ([`Offer::request_user`]), and whom a trusted
/// PBX says that it has diverted from; To is the telephone's own word.
fn facts(offer: &Offer, direction: Direction) -> CallFacts<'_> {
    let mut called = vec![Name::known(&offer.request_user), Name::said(&offer.to_user)];
    called.extend(offer.diverted_from.iter().map(|user| vouched(&offer.caller, user)));
    let calling = names(&offer.caller).collect();
    CallFacts {
        direction,
        called,
        calling,
        emergency: offer.emergency,
        parties_signalled: offer.parties_signalled,
    }
}

/// The user to dial on a side, where it is not the one received: the number itself for one that only its
/// `phone-context` completes, because whoever leaves that out rings another than was judged; and towards the public
/// side without the outside prefix, which is for the PBX.
fn dialled(rules: &RuleSet, user: &str, side: Side) -> Option<String> {
    let numbering = rules.numbering();
    if PhoneContext::of(user) == PhoneContext::Global {
        let number = numbering.normalise(user).number().cloned()?;
        let params = user_params(user).filter(|(name, _)| !name.eq_ignore_ascii_case("phone-context"));
        return Some(params.fold(number.into(), |user: String, (name, value)| match value {
            Some(value) => format!("{user};{name}={value}"),
            None => format!("{user};{name}"),
        }));
    }
    if side != Side::Public {
        return None;
    }
    let prefix = numbering.outside_prefix();
    let rest = before_params(user).strip_prefix(prefix).filter(|_| !prefix.is_empty())?;
    let with = numbering.normalise(user).number().cloned()?;
    let without = numbering.normalise(rest).number().cloned()?;
    (with == without).then(|| rest.to_owned())
}
