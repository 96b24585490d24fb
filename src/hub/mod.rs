//! The hub: routes what one plane says to the others, and says what only the whole knows: the direction of a
//! call, on which leg its line is, whether it has left the line, and whose number the record withholds.
//!
//! Pure: events and time in, outputs out, in order; the shell (`serve`) performs them, the simulator
//! performs them on virtual time. It holds one `call::Call` per call in progress. Bounded by the
//! gateway's own limit on calls.

mod call;
mod record;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use consent::{CallId, E164, Mono, Now, NumberBlock, Permit, RuleSet};
use recorder::Sealed;
use storage::Stamped;

use call::{Call, District};

/// What the shell is to do, in order.
#[derive(Debug)]
pub enum Output {
    /// Tell the SIP core.
    Gateway(sip_gateway::Command),
    /// Tell the media plane.
    Media(recorder::Command),
    /// Make an id and a key, and open the tap with them (`recorder::Command::OpenTap`).
    BeginRecording {
        /// The permit.
        permit: Permit,
        /// What the channels are called, caller's leg first.
        channels: [String; 2],
        /// Whether audio is held back for the look-back.
        look_back: bool,
    },
    /// Write an entry to the journal.
    Journal {
        /// The entry.
        stamped: Stamped,
        /// Call [`Hub::on_journalled`] for this record once it is written.
        awaited_by: Option<CallId>,
    },
    /// Move a sealed recording to its store, then call [`Hub::on_stored`].
    Store {
        /// The recording.
        sealed: Box<Sealed>,
        /// The district line it was made on.
        line: Option<E164>,
    },
}

/// Routes events between the planes.
#[derive(Debug)]
pub struct Hub {
    node: String,
    rules: Arc<RuleSet>,
    calls: BTreeMap<CallId, Call>,
    deadlines: BTreeSet<(Mono, CallId)>,
    outputs: VecDeque<Output>,
    dispatch_failures: u64,
    /// The district's numbers that are no lines.
    own_numbers: Arc<[NumberBlock]>,
    foreign_caller_ids: u64,
}

impl Hub {
    /// A hub with no calls. `node` is the gateway's name in records.
    #[must_use]
    pub fn new(node: String, rules: Arc<RuleSet>) -> Self {
        Self {
            node,
            rules,
            calls: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            outputs: VecDeque::new(),
            dispatch_failures: 0,
            own_numbers: Arc::new([]),
            foreign_caller_ids: 0,
        }
    }

    /// The same, for a district that has these numbers beside its lines.
    #[must_use]
    pub fn with_own_numbers(self, own_numbers: Arc<[NumberBlock]>) -> Self {
        Self { own_numbers, ..self }
    }

    /// Takes in what the SIP core says.
    pub fn on_gateway(&mut self, now: Now, event: sip_gateway::Event) {
        use sip_gateway::Event;
        if let Event::Offered(offer) = &event {
            let foreign = call::shows_foreign_number(offer, &self.rules, &self.own_numbers);
            self.foreign_caller_ids += u64::from(foreign);
            let district = District { node: &self.node, rules: &self.rules, foreign_caller_id: foreign };
            let (id, call) = Call::begin(now, offer, &district, &mut self.outputs);
            self.calls.insert(id, call);
            self.settle(now, id);
            return;
        }
        let id = event.call();
        if let Some(call) = self.calls.get_mut(&id) {
            call.on_gateway(now, event, &mut self.outputs);
            self.settle(now, id);
        }
    }

    /// Takes in what the SIP core says of a call's messages, the call's record closed or not.
    pub fn on_ladder(&mut self, now: Now, ladder: sip_gateway::Ladder) {
        let entry = record::ladder(ladder);
        self.outputs
            .push_back(Output::Journal { stamped: Stamped { at: now.wall, entry }, awaited_by: None });
    }

    /// Takes in what the media plane says.
    pub fn on_media(&mut self, now: Now, event: recorder::Event) {
        use recorder::Event;
        let id = event.call();
        let Some(call) = self.calls.get_mut(&id) else {
            // The call's record is closed already; its recording must not be lost for that.
            if let Event::RecordingSealed(sealed) = event {
                self.outputs.push_back(Output::Store { sealed, line: None });
            }
            return;
        };
        if matches!(
            event,
            Event::RecordingFailed { .. } | Event::CopyFailed { .. } | Event::MediaFailed { .. }
        ) && call.is_dispatch()
        {
            self.dispatch_failures += 1;
        }
        call.on_media(now, event, &mut self.outputs);
        self.settle(now, id);
    }

    /// The entry that opens this record is written (or refused: nobody waits for a full journal).
    pub fn on_journalled(&mut self, now: Now, record: CallId) {
        // A call's own, or that of an INVITE which replaces a party of some call.
        let waits = |(_, call): &(&CallId, &Call)| call.awaits(record);
        let Some(id) = self.calls.get_key_value(&record).or_else(|| self.calls.iter().find(waits)) else {
            return;
        };
        let id = *id.0;
        if let Some(call) = self.calls.get_mut(&id) {
            call.on_journalled(now, record, &mut self.outputs);
            self.settle(now, id);
        }
    }

    /// The sealed recording is in its store as `object`.
    pub fn on_stored(&mut self, now: Now, sealed: &Sealed, line: Option<E164>, object: String) {
        let entry = record::stored(sealed, line, object);
        self.outputs
            .push_back(Output::Journal { stamped: Stamped { at: now.wall, entry }, awaited_by: None });
    }

    /// When [`Self::on_timeout`] is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Does what is due.
    pub fn on_timeout(&mut self, now: Now) {
        while let Some(&(at, id)) = self.deadlines.first() {
            if at > now.mono {
                return;
            }
            self.deadlines.pop_first();
            if let Some(call) = self.calls.get_mut(&id) {
                call.on_timeout(now, &mut self.outputs);
                self.settle(now, id);
            }
        }
    }

    /// Ends every call but emergency calls and those being transferred to an emergency service, with this text as
    /// the reason (RFC 3326).
    pub fn end_all(&mut self, text: &'static str) {
        for (&call, _) in self.calls.iter().filter(|(_, call)| !call.is_emergency()) {
            self.outputs.push_back(Output::Gateway(sip_gateway::Command::End { call, text }));
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Calls whose record is not closed yet.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Whether an emergency call is among them, or one being transferred to an emergency service.
    #[must_use]
    pub fn has_emergency_call(&self) -> bool {
        self.calls.values().any(Call::is_emergency)
    }

    /// Recordings being made.
    #[must_use]
    pub fn recordings(&self) -> usize {
        self.calls.values().map(Call::recordings).sum()
    }

    /// Failures of recordings, or of one of their two copies, on dispatch lines since the start: an alarm.
    #[must_use]
    pub const fn dispatch_failures(&self) -> u64 {
        self.dispatch_failures
    }

    /// Calls to the outside since the start that showed a number which is none of the district's.
    #[must_use]
    pub const fn foreign_caller_ids(&self) -> u64 {
        self.foreign_caller_ids
    }

    /// Keeps the call's one place among the deadlines true, and forgets the call once its record is closed.
    fn settle(&mut self, now: Now, id: CallId) {
        let Some(call) = self.calls.get_mut(&id) else { return };
        if let Some(at) = call.scheduled.take() {
            self.deadlines.remove(&(at, id));
        }
        if call.is_closed() {
            self.calls.remove(&id);
            return;
        }
        if let Some(at) = call.poll_timeout() {
            // Never in the past, so that a deadline that does nothing cannot spin.
            let at = at.max(Mono(now.mono.0 + 1));
            call.scheduled = Some(at);
            self.deadlines.insert((at, id));
        }
    }
}

/// Whether an offered call's line is a dispatch line, as the hub will find: what the SIP core is to be told
/// (`sip_gateway::Core::new`), so that it never refuses one at its own limits.
#[must_use]
pub fn is_dispatch(offer: &sip_gateway::Offer, rules: &RuleSet) -> bool {
    call::is_dispatch(offer, rules)
}

/// The entry for a recording that an earlier process left; `None` if not one sample of it has a basis.
#[must_use]
pub fn found(sealed: &Sealed) -> Option<storage::Entry> {
    record::found(sealed)
}

#[cfg(test)]
mod tests;
