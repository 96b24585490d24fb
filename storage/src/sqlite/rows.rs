//! Records as the commands print them: field names and words are those of the contract's "JSON fields".
//! Instants are RFC 3339 in UTC with milliseconds, durations seconds.

use consent::{
    Basis, CallId, Direction, Gap, GateState, Interval, Leg, LineClass, PartyConsent, Reason, RecordingId,
    RecordingOutcome, RetentionTag, RuleVersion, SignalSource, Wall,
};
use serde::Serialize;

use crate::{ElsewhereState, EndCause, IdentityVerdict, Outcome};

/// Which calls.
#[derive(Clone, Debug)]
pub struct CallFilter {
    /// At most so many; all by default.
    pub limit: u32,
    /// Only calls that began before this one: for turning pages.
    pub before: Option<CallId>,
    /// Only on this line.
    pub line: Option<String>,
    /// Only calls that began at or after.
    pub since: Option<Wall>,
    /// Only calls that began before.
    pub until: Option<Wall>,
}

/// Which recordings.
#[derive(Clone, Debug)]
pub struct RecordingFilter {
    /// At most so many; all by default.
    pub limit: u32,
    /// Only recordings that began before this one: for turning pages.
    pub before: Option<RecordingId>,
    /// Only of this call.
    pub call: Option<CallId>,
    /// Only on this line.
    pub line: Option<String>,
    /// Only those that began at or after.
    pub since: Option<Wall>,
    /// Only those that began before.
    pub until: Option<Wall>,
}

impl Default for CallFilter {
    fn default() -> Self {
        Self { limit: u32::MAX, before: None, line: None, since: None, until: None }
    }
}

impl Default for RecordingFilter {
    fn default() -> Self {
        Self { limit: u32::MAX, before: None, call: None, line: None, since: None, until: None }
    }
}

/// A call record.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the contract's fields")]
pub struct CallRow {
    pub id: CallId,
    pub node: String,
    pub line: Option<String>,
    pub line_class: LineClass,
    pub direction: Direction,
    pub from: Option<String>,
    pub to: Option<String>,
    pub started_at: String,
    pub ringing_at: Option<String>,
    pub answered_at: Option<String>,
    pub ended_at: Option<String>,
    pub outcome: Outcome,
    pub final_status: Option<u16>,
    pub ended_by: Option<String>,
    /// Why, where the gateway ended it by itself.
    pub end_cause: Option<EndCause>,
    pub emergency: bool,
    /// What a verification service found of the caller's number, if a trusted peer said so.
    pub identity_verdict: Option<IdentityVerdict>,
    /// Whether an outbound call showed a number that is none of the district's.
    pub foreign_caller_id: bool,
    /// How often another party took a party's place.
    pub transfers: u64,
    pub media: MediaRow,
    /// `None` while the call goes on.
    pub recording_outcome: Option<RecordingOutcome>,
    pub basis: Option<Basis>,
    pub parties: Vec<PartyRow>,
    pub recordings: Vec<RecordingId>,
    pub linked_calls: Vec<CallId>,
    /// What the far ends said of recordings of their own, in order.
    pub recorded_elsewhere: Vec<ElsewhereRow>,
    pub privacy: bool,
    pub sip_call_ids: Vec<String>,
    pub retention: RetentionTag,
}

/// What was received on both legs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the contract's fields")]
pub struct MediaRow {
    pub a: LegMediaRow,
    pub b: LegMediaRow,
}

/// What was received on a leg.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the contract's fields")]
pub struct LegMediaRow {
    pub codec: Option<String>,
    pub packets: u64,
    pub lost: u64,
    pub jitter_ms: f64,
    pub mos: Option<f64>,
}

/// What a far end said of its own recording.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the contract's fields")]
pub struct ElsewhereRow {
    pub role: Role,
    pub state: ElsewhereState,
    pub at: String,
}

/// In whose place a party is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the contract's words")]
pub enum Role {
    Caller,
    Callee,
}

impl Role {
    /// Of a party at the far end of `leg`.
    #[must_use]
    pub const fn of(leg: Leg) -> Self {
        match leg {
            Leg::A => Self::Caller,
            Leg::B => Self::Callee,
        }
    }
}

/// A party of a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the contract's fields")]
pub struct PartyRow {
    pub role: Role,
    /// 0 for the leg's first party, 1 for the one after a transfer.
    pub ordinal: u32,
    pub identity: Option<String>,
    pub joined_at: String,
    pub left_at: Option<String>,
    pub consent: ConsentRow,
}

/// What a party said to being recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the contract's fields")]
pub struct ConsentRow {
    pub state: PartyConsent,
    pub method: Option<SignalSource>,
    pub at: Option<String>,
}

/// Why a call was, or was not, recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the contract's fields")]
pub struct Explanation {
    pub call_id: CallId,
    pub decisions: Vec<DecisionRow>,
    /// When the gate was open, on which basis.
    pub intervals: Vec<GateInterval>,
    /// When a consent preamble was wiped.
    pub wiped: Vec<PreambleWiped>,
}

/// A decision about the gate.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the contract's fields")]
pub struct DecisionRow {
    pub at: String,
    pub gate: GateState,
    pub basis: Option<Basis>,
    pub clause: String,
    pub rule_version: RuleVersion,
    pub reason: Reason,
    /// The reason in plain English.
    pub sentence: &'static str,
    pub parties: Vec<PartyDecided>,
    pub evidence: Vec<EvidenceRow>,
    pub otherwise: String,
}

/// A party as it stood at a decision.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the contract's fields")]
pub struct PartyDecided {
    pub role: Role,
    pub leg: Leg,
    pub ordinal: u32,
    pub consent: PartyConsent,
}

/// What a decision rests on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the contract's fields")]
pub struct EvidenceRow {
    pub at: String,
    pub leg: Option<Leg>,
    pub what: String,
}

/// A stretch of time during which the gate was open.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "they say what they are")]
pub struct GateInterval {
    pub opened_at: String,
    pub shut_at: Option<String>,
    pub basis: Basis,
    pub clause: String,
    pub rule_version: RuleVersion,
}

/// A preamble that was wiped.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "they say what they are")]
pub struct PreambleWiped {
    pub at: String,
    pub held_ms: u32,
    pub reason: Reason,
}

/// What has become of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the contract's words")]
pub enum RecordingState {
    Open,
    Sealed,
    Disposed,
}

/// A recording, as lists show it. What is known only at the seal is null before.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the contract's fields")]
pub struct RecordingListed {
    pub id: RecordingId,
    pub call_id: CallId,
    pub line: Option<String>,
    pub started_at: String,
    pub ended_at: Option<String>,
    pub duration_s: Option<f64>,
    pub basis: Basis,
    pub rule_version: Option<RuleVersion>,
    pub channels: Vec<String>,
    pub codec: Option<String>,
    pub bytes: Option<u64>,
    pub sha256: Option<String>,
    pub retention: RetentionTag,
    /// Null: no series of the schedule is verified yet, so nothing ever expires.
    pub retain_until: Option<String>,
    /// None can be placed yet.
    pub holds: Vec<String>,
    pub state: RecordingState,
    pub quarantine: Vec<String>,
    pub intervals: Vec<Interval>,
    pub gaps: Vec<Gap>,
    /// When the recorder reported that it could not go on with it.
    pub failed_at: Option<String>,
}

/// A recording with what is needed to open it. Not for printing.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordingDetails {
    /// What may be shown.
    pub recording: RecordingListed,
    /// The object in the audio store, once it is sealed.
    pub object: Option<String>,
    /// Its wrapped key; empty until it is sealed.
    pub wrapped_key: Vec<u8>,
}
