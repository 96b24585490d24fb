//! Everything that can happen to a record, in the order in which it happened: what the journal holds
//! and the database is projected from.

use consent::{
    Basis, CallId, Decision, Direction, E164, Gap, Interval, Leg, LineClass, RecordingId, RecordingOutcome,
    RetentionTag, Signal, Wall,
};
use serde::{Deserialize, Deserializer, Serialize};

/// An entry with its instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// When.
    pub at: Wall,
    /// What.
    pub entry: Entry,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Entry {
    /// An initial INVITE was accepted from a peer.
    CallStarted(Box<CallStarted>),
    /// The INVITE went out; our Call-ID on the callee's leg.
    CallRouted {
        /// Which call.
        call: CallId,
        /// Its Call-ID there.
        sip_call_id: String,
    },
    /// It rings.
    CallRinging {
        /// Which call.
        call: CallId,
    },
    /// It was answered.
    CallAnswered {
        /// Which call.
        call: CallId,
    },
    /// A party came to a leg's far end.
    PartyJoined {
        /// Which call.
        call: CallId,
        /// Where.
        leg: Leg,
        /// The n-th party of the leg.
        ordinal: u32,
        /// Who it says it is (user part); `None` where privacy or a union line withholds it.
        identity: Option<String>,
    },
    /// A party left.
    PartyLeft {
        /// Which call.
        call: CallId,
        /// Where.
        leg: Leg,
        /// Which.
        ordinal: u32,
    },
    /// Two calls belong together: one took over a far end of the other, or replaces one.
    CallsLinked {
        /// Which call.
        call: CallId,
        /// The other.
        with: CallId,
    },
    /// The far end of a leg said that it records the call, or does no more (RFC 7866).
    RecordedElsewhere {
        /// Which call.
        call: CallId,
        /// At whose far end.
        leg: Leg,
        /// What it does.
        state: ElsewhereState,
    },
    /// A row of the consent ledger.
    Signalled {
        /// Which call.
        call: CallId,
        /// What was signalled.
        signal: Signal,
    },
    /// A decision about the gate.
    Decided {
        /// Which call.
        call: CallId,
        /// The decision.
        decision: Decision,
    },
    /// The preamble was wiped.
    PreambleWiped {
        /// Which call.
        call: CallId,
        /// How much it held, ms.
        held_ms: u32,
        /// Why, in a code.
        reason: consent::Reason,
    },
    /// A recording began.
    RecordingStarted {
        /// Which call.
        call: CallId,
        /// Which recording.
        recording: RecordingId,
        /// The basis of its first interval.
        basis: Basis,
        /// Its tag.
        retention: RetentionTag,
    },
    /// A recording that an earlier process left is sealed, and on its way to the store.
    RecordingFound {
        /// Which call.
        call: CallId,
        /// Which recording.
        recording: RecordingId,
        /// The basis of its first interval.
        basis: Basis,
        /// After its last sample.
        ended_at: Wall,
    },
    /// A recording was sealed and its object is in the store.
    RecordingStored(Box<RecordingRow>),
    /// A recording failed.
    RecordingFailed {
        /// Which call.
        call: CallId,
        /// Which, if one was begun.
        recording: Option<RecordingId>,
    },
    /// The call is over.
    CallEnded(Box<CallEnded>),
    /// What is new of the call's SIP messages. Shed before anything else is.
    CallLadder(Box<LadderPart>),
    /// Somebody did something that must be in the audit log.
    Audit {
        /// Who (`console`, a name, `gateway`).
        actor: String,
        /// What, as a code (`recording.export`).
        action: String,
        /// On what (an id), if on one thing.
        object: Option<String>,
        /// Further facts; no digit, number or name.
        detail: Option<String>,
    },
}

/// What somebody else's recording of a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "RFC 7866's words")]
pub enum ElsewhereState {
    Off,
    Paused,
    On,
}

/// The start of a call's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallStarted {
    /// The call.
    pub call: CallId,
    /// The gateway's name.
    pub node: String,
    /// The district line, if one matched.
    pub line: Option<E164>,
    /// Its class; `never` where no line matched.
    pub line_class: LineClass,
    /// Its retention tag for the call record itself.
    pub retention: RetentionTag,
    /// Between which sides.
    pub direction: Direction,
    /// Who calls, as recorded: E.164 where it is a number; `None` where withheld.
    pub from: Option<String>,
    /// Who is called; `None` where withheld.
    pub to: Option<String>,
    /// Whether the caller asked for privacy.
    pub privacy: bool,
    /// Whether it is an emergency call.
    pub emergency: bool,
    /// What a verification service found of the caller's number, if a trusted peer said so.
    #[serde(default)]
    pub identity_verdict: Option<IdentityVerdict>,
    /// Whether an outbound call showed a number that is none of the district's.
    #[serde(default)]
    pub foreign_caller_id: bool,
    /// Call-ID of the caller's leg.
    pub sip_call_id: String,
    /// An earlier call it belongs to.
    pub linked_calls: Vec<CallId>,
}

/// The end of a call's record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallEnded {
    /// The call.
    pub call: CallId,
    /// How it came out.
    pub outcome: Outcome,
    /// The caller's final status.
    pub final_status: Option<u16>,
    /// `caller`, `callee`, `gateway`.
    pub ended_by: Option<String>,
    /// Why, where the gateway ended it by itself.
    #[serde(default)]
    pub end_cause: Option<EndCause>,
    /// How it fared as to recording.
    pub recording_outcome: RecordingOutcome,
    /// The basis on which anything was stored.
    pub basis: Option<Basis>,
    /// Media of leg A and leg B.
    pub media: [LegMediaRecord; 2],
}

/// What a verification service found of a caller's number (RFC 8224).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdentityVerdict {
    /// Whether the number was proved.
    pub verstat: Verstat,
    /// How far the network that signed vouches for it, if that was said.
    pub attestation: Option<Attestation>,
}

/// Whether a number was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Verstat {
    Passed,
    Failed,
    NotDone,
}

/// How far a network vouches for a number (RFC 8588 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Attestation {
    /// It knows the caller, and that the number is his.
    A,
    /// It knows the caller only.
    B,
    /// It knows only where the call came in.
    C,
}

/// Why the gateway ended a call by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndCause {
    /// One end showed no sign of life within its session (RFC 4028).
    SessionExpired,
}

/// Messages of a call, some of which may have been told before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LadderPart {
    /// The call.
    pub call: CallId,
    /// Messages, in order.
    pub rungs: Vec<Rung>,
    /// How many messages were too many to keep, so far.
    pub left_out: u32,
}

/// One SIP message between the gateway and a peer; no number, name or body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// The n-th of its call, from 0.
    pub position: u16,
    /// Since the INVITE that began the call.
    pub after_ms: u32,
    /// On which leg.
    pub leg: Leg,
    /// The name of the peer at its far end.
    pub peer: String,
    /// Whether the gateway sent it; else it was received.
    pub sent: bool,
    /// The first line, with a role in place of the address.
    pub message: String,
    /// The method of its CSeq.
    pub method: String,
    /// Whether it carries a session description.
    pub sdp: bool,
    /// How often the same message came or went again.
    pub repeats: u32,
}

/// How a call came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the contract's words")]
pub enum Outcome {
    InProgress,
    Answered,
    Cancelled,
    Busy,
    NoAnswer,
    Rejected,
    Failed,
}

/// What was received on a leg.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LegMediaRecord {
    /// Encoding.
    pub codec: Option<String>,
    /// RTP packets.
    pub packets: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Interarrival jitter, ms. Not finite: written as null, read as 0.
    #[serde(deserialize_with = "finite")]
    pub jitter_ms: f64,
    /// Estimated mean opinion score.
    pub mos: Option<f64>,
}

/// A sealed recording, stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordingRow {
    /// Its id.
    pub id: RecordingId,
    /// Its call.
    pub call: CallId,
    /// The line.
    pub line: Option<E164>,
    /// First sample.
    pub started_at: Wall,
    /// After the last sample.
    pub ended_at: Wall,
    /// Seconds. Not finite: written as null, read as 0.
    #[serde(deserialize_with = "finite")]
    pub duration_s: f64,
    /// The basis of its first interval.
    pub basis: Basis,
    /// Version of the rules.
    pub rule_version: consent::RuleVersion,
    /// Channel names in order.
    pub channels: Vec<String>,
    /// `opus`.
    pub codec: String,
    /// Size of the sealed object.
    pub bytes: u64,
    /// SHA-256 of the sealed object.
    pub sha256: String,
    /// Its tag.
    pub retention: RetentionTag,
    /// Where the object is, relative to the audio store.
    pub object: String,
    /// The wrapped key, hexadecimal.
    pub wrapped_key: String,
    /// Which parts were stored on which basis.
    pub intervals: Vec<Interval>,
    /// Which parts are missing and why.
    pub gaps: Vec<Gap>,
    /// Reasons to keep it from play and release.
    pub quarantine: Vec<String>,
}

impl Entry {
    /// The call that it belongs to; `None` for the audit log's.
    #[must_use]
    pub fn call(&self) -> Option<CallId> {
        match self {
            Self::CallStarted(started) => Some(started.call),
            Self::RecordingStored(row) => Some(row.call),
            Self::CallEnded(ended) => Some(ended.call),
            Self::CallLadder(part) => Some(part.call),
            Self::CallRouted { call, .. }
            | Self::CallRinging { call }
            | Self::CallAnswered { call }
            | Self::PartyJoined { call, .. }
            | Self::PartyLeft { call, .. }
            | Self::CallsLinked { call, .. }
            | Self::RecordedElsewhere { call, .. }
            | Self::Signalled { call, .. }
            | Self::Decided { call, .. }
            | Self::PreambleWiped { call, .. }
            | Self::RecordingStarted { call, .. }
            | Self::RecordingFound { call, .. }
            | Self::RecordingFailed { call, .. } => Some(*call),
            Self::Audit { .. } => None,
        }
    }

    /// Whether it is there for convenience only: no record is incomplete without it.
    #[must_use]
    pub const fn may_be_shed(&self) -> bool {
        matches!(self, Self::CallLadder(_))
    }
}

/// JSON has no NaN: the serializer writes null for it, and a record must come back from the journal
/// whatever the meters of a call said.
fn finite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(0.0))
}
