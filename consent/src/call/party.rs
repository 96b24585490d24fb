//! One leg's far end: who is there by count, what it agreed to, whether it holds, which codes it is dialling.

use crate::{CodeMatcher, Epoch, Leg, Mono, PartyConsent, PartyState, Settings, SignalSource, Wall};

/// How many ways there are for a key to arrive; each has its own matchers, because some telephones send
/// every key twice, as a telephone event and in an INFO.
const SOURCES: usize = 4;

#[derive(Debug)]
pub(super) struct Party {
    /// Which of the leg's parties this is; `None` before the first has come.
    ordinal: Option<u32>,
    pub(super) consent: PartyConsent,
    /// Since when its telephone has asked for a recording of those who are on the line now.
    pub(super) preferred_at: Option<Wall>,
    hold: Hold,
    dialling: [Dialling; SOURCES],
}

/// The newest word on hold, by epoch.
#[derive(Debug, Default)]
struct Hold {
    on: bool,
    since: Epoch,
}

#[derive(Clone, Debug)]
struct Dialling {
    request: CodeMatcher,
    withdraw: CodeMatcher,
}

/// What a key press amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// It completes the withdrawal code.
    Withdraw,
    /// It completes the request code.
    Request,
    /// It stands within a code, and so means nothing by itself.
    Midway,
    /// It stands by itself.
    Lone,
}

impl Party {
    pub(super) fn new(settings: &Settings) -> Self {
        let dialling = Dialling {
            request: CodeMatcher::new(&settings.request),
            withdraw: CodeMatcher::new(&settings.withdraw),
        };
        Self {
            ordinal: None,
            consent: PartyConsent::NotAsked,
            preferred_at: None,
            hold: Hold::default(),
            dialling: std::array::from_fn(|_| dialling.clone()),
        }
    }

    /// Somebody comes, who has agreed to nothing.
    pub(super) fn join(&mut self) -> u32 {
        let ordinal = self.ordinal.map_or(0, |last| last.saturating_add(1));
        self.ordinal = Some(ordinal);
        self.forget();
        ordinal
    }

    pub(super) const fn present(&self) -> Option<u32> {
        self.ordinal
    }

    pub(super) fn state(&self, leg: Leg) -> PartyState {
        PartyState { leg, ordinal: self.ordinal.unwrap_or(0), consent: self.consent }
    }

    /// Nothing that it agreed to holds any more.
    pub(super) const fn forget(&mut self) {
        self.consent = PartyConsent::NotAsked;
        self.preferred_at = None;
    }

    /// What it has agreed to before it is asked.
    pub(super) const fn begin(&mut self) {
        self.consent = if self.preferred_at.is_some() { PartyConsent::Given } else { PartyConsent::NotAsked };
    }

    pub(super) const fn holds(&self) -> bool {
        self.hold.on
    }

    /// Takes in a hold. False if newer word on hold is known already.
    pub(super) fn hold(&mut self, epoch: Epoch) -> bool {
        let in_order = epoch >= self.hold.since;
        if in_order {
            self.hold = Hold { on: true, since: epoch };
        }
        in_order
    }

    /// Takes in a resume. False, and nothing changes, if it follows no hold.
    pub(super) fn resume(&mut self, epoch: Epoch) -> bool {
        let in_order = self.hold.on && epoch > self.hold.since;
        if in_order {
            self.hold = Hold { on: false, since: epoch };
        }
        in_order
    }

    pub(super) fn press(&mut self, digit: char, source: SignalSource, at: Mono) -> Key {
        let Dialling { request, withdraw } = &mut self.dialling[source_index(source)];
        let midway = request.is_midway(at) || withdraw.is_midway(at);
        let (requested, withdrawn) = (request.push(digit, at), withdraw.push(digit, at));
        match (withdrawn, requested, midway) {
            (true, _, _) => Key::Withdraw,
            (false, true, _) => Key::Request,
            (false, false, true) => Key::Midway,
            (false, false, false) => Key::Lone,
        }
    }
}

const fn source_index(source: SignalSource) -> usize {
    match source {
        SignalSource::TelephoneEvent => 0,
        SignalSource::Info => 1,
        SignalSource::InBand => 2,
        SignalSource::RecordPreference => 3,
    }
}
