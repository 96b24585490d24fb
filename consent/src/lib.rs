//! Who is on the line, what each has agreed to, and whether audio may be kept.
//!
//! Pure: no I/O, no clock, no async, no randomness. Time, ids and rules are arguments. Every other crate
//! builds on the few nouns defined here, so that a call, a leg, an instant and an epoch mean the same
//! thing in signalling, media, records and rules.

mod call;
mod clock;
mod decision;
mod epoch;
mod id;
mod number;
mod permit;
mod recorded;
mod rules;

pub use call::{
    Action, Arrival, Call, CodeMatcher, Event, Joined, Newcomer, Notice, Preference, RecordingOutcome,
    Signal, SignalMeaning, SignalSource,
};
pub use clock::{Mono, Now, Wall};
pub use decision::{Decision, Evidence, GateState, PartyConsent, PartyState, Reason};
pub use epoch::{Epoch, EpochCounter};
pub use id::{CallId, Leg, RecordingId, Side};
pub use number::{Dialled, E164, NumberBlock, NumberError, Numbering, PhoneContext};
pub use permit::{Basis, Permit, PermitId};
pub use recorded::{Gap, GapCause, Interval, Phase};
pub use rules::{
    Ask, CallFacts, Direction, Line, LineClass, Name, NumberClass, Preamble, RetentionTag, RuleError,
    RuleSet, RuleVersion, Settings, Tone,
};
