//! What crosses the border of a call's machine: facts in, actions and ledger rows out.

use serde::{Deserialize, Serialize};

use crate::{Decision, Epoch, Leg, Permit, PermitId, Preference, Reason, Wall};

/// What happened on the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The callee answered; both parties can hear each other from now on.
    Answered {
        /// The epoch that begins with the answer.
        epoch: Epoch,
    },
    /// Somebody else is now at the far end of `leg` (new identity, Replaces, REFER, 3xx, `isfocus`).
    PartyChanged {
        /// Where.
        leg: Leg,
        /// The epoch that begins with it.
        epoch: Epoch,
    },
    /// Somebody else is now at the far end of `leg`, with whom nothing may be stored
    /// ([`Call::arrival`](crate::Call::arrival)).
    Barred {
        /// Where.
        leg: Leg,
        /// The epoch that begins with it; on a dispatch call by
        /// [`EpochCounter::leave_line`](crate::EpochCounter::leave_line).
        epoch: Epoch,
        /// Why.
        reason: Reason,
    },
    /// It is no longer certain who is at the far end of `leg` (unannounced source, new SDP origin, clock jump).
    Doubt {
        /// Where.
        leg: Leg,
        /// The epoch that begins with it.
        epoch: Epoch,
    },
    /// `leg` put the other party on hold.
    Held {
        /// The holding leg.
        leg: Leg,
        /// The epoch that begins with it.
        epoch: Epoch,
    },
    /// `leg` took the other party off hold, with the same identity and SDP origin.
    Resumed {
        /// The resuming leg.
        leg: Leg,
        /// The epoch that begins with it.
        epoch: Epoch,
    },
    /// The dispatch call left its line (transfer to an extension that is not a dispatch line).
    LeftLine {
        /// The epoch that begins with it, by [`EpochCounter::leave_line`](crate::EpochCounter::leave_line).
        epoch: Epoch,
    },
    /// Somebody else is now at the far end of `leg`, and the call is on a dispatch line again.
    OnLine {
        /// Where.
        leg: Leg,
        /// The epoch that begins with it, by
        /// [`EpochCounter::return_to_line`](crate::EpochCounter::return_to_line).
        epoch: Epoch,
    },
    /// A party began to press a key, at the instant of the call of `on_event`.
    Digit {
        /// Whose key.
        leg: Leg,
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
        /// How it came.
        source: SignalSource,
        /// The epoch in force at its arrival; the relay raises it before reporting the last digit of a
        /// withdrawal code.
        epoch: Epoch,
    },
    /// A party's telephone said whether it wants to be recorded (`a=recordpref`, RFC 7866 §7.1.3).
    Preferred {
        /// Whose telephone.
        leg: Leg,
        /// What it said.
        preference: Preference,
        /// The epoch in force at its arrival; one begun for it where it wants no recording.
        epoch: Epoch,
    },
    /// The preamble's memory is locked; every frame of `epoch` goes into it from the question's first sample on.
    PreambleStarted {
        /// The preamble's epoch.
        epoch: Epoch,
    },
    /// No memory could be locked for the preamble, or its budget is spent.
    PreambleUnavailable,
    /// The question could not be played on `leg` at all (no codec that the gateway can encode).
    CannotAsk {
        /// Where.
        leg: Leg,
    },
    /// The first sample of a notice left for `leg`, at the instant of the call of `on_event`.
    Playing {
        /// Where.
        leg: Leg,
        /// Which.
        notice: Notice,
        /// The epoch in force when it left.
        epoch: Epoch,
    },
    /// A prompt or notice ended on `leg`.
    Played {
        /// Where.
        leg: Leg,
        /// Which.
        notice: Notice,
        /// Whether it was sent to its last sample while the leg went on receiving media.
        complete: bool,
    },
    /// The first frame under the permit was written. Only tells a recording that failed in its course
    /// from one that never began; where nobody reports it, a failure counts as the latter.
    RecordingStarted {
        /// Under which permit.
        permit: PermitId,
    },
    /// The recording of the permit stopped because the recorder failed.
    RecorderFailed {
        /// The permit whose recording failed.
        permit: PermitId,
    },
    /// The call is over.
    Ended,
}

/// What the media plane is to do, and what is to be written down.
#[derive(Debug)]
pub enum Action {
    /// Get locked memory ready for the preamble: the frames of this epoch from the question's first sample on.
    StartPreamble(Epoch),
    /// Wipe the preamble.
    WipePreamble(Reason),
    /// Play a notice to a leg. `Notice::Question` mutes the other party to it while it plays.
    Play {
        /// To whom.
        leg: Leg,
        /// What.
        notice: Notice,
    },
    /// Stop what is playing to a leg.
    StopPlaying(Leg),
    /// From now on answer digits of this leg are swallowed (`true`), or pass on again.
    SwallowDigits {
        /// Whose digits.
        leg: Leg,
        /// Whether they are kept from the other leg.
        swallow: bool,
    },
    /// Open the tap. `continues` names an earlier permit of the same recording (resume after hold);
    /// without one a new recording begins, with the preamble as its first segment if there is one.
    Open {
        /// The permit.
        permit: Permit,
        /// The permit whose recording it continues.
        continues: Option<PermitId>,
    },
    /// Stop at once and discard what is not yet written under the permit.
    Revoke {
        /// Which.
        permit: PermitId,
        /// Why.
        reason: Reason,
    },
    /// No frame of the epochs to come is covered, what came before drains into the file; the recording stays
    /// open for a resume.
    Suspend {
        /// Which.
        permit: PermitId,
    },
    /// The range is closed in good order: drain and seal.
    Close {
        /// Which.
        permit: PermitId,
    },
    /// A signal for the consent ledger.
    Heard(Signal),
    /// A decision for the record.
    Decided(Decision),
}

/// What the gateway says to a party.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// The consent question: press the one key to agree, the other to decline.
    Question,
    /// The call is now being recorded.
    Recording,
    /// The call is not being recorded.
    NotRecording,
    /// Recording has stopped.
    Stopped,
}

/// How a signal reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignalSource {
    /// A telephone event in RTP (RFC 4733).
    TelephoneEvent,
    /// A SIP INFO with a digit.
    Info,
    /// Tones in the audio.
    InBand,
    /// `a=recordpref` (RFC 7866).
    RecordPreference,
}

/// What a party's signal meant. The digit itself is never kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignalMeaning {
    /// Yes to the question.
    Accept,
    /// No to the question.
    Decline,
    /// The district party asks for a recording.
    Request,
    /// Consent is taken back.
    Withdraw,
}

/// A row of the consent ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// When.
    pub at: Wall,
    /// Whose.
    pub leg: Leg,
    /// Which party of that leg (see [`PartyState`](crate::PartyState)).
    pub ordinal: u32,
    /// What it meant.
    pub meaning: SignalMeaning,
    /// How it came.
    pub source: SignalSource,
    /// Whether it changed anything (an answer while no question is open does not).
    pub effective: bool,
}

/// How a call fared as to recording: the `recording_outcome` of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the contract's words, which say what they mean")]
pub enum RecordingOutcome {
    Recorded,
    PartlyRecorded,
    NotPermitted,
    Refused,
    Withdrawn,
    PromptIncomplete,
    NotAsked,
    NeverLine,
    UnionLine,
    Emergency,
    Failed,
}
