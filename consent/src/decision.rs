//! A decision about the gate, with its reasons (I6).

use serde::{Deserialize, Serialize};

use crate::{Basis, Leg, RuleVersion, Wall};

/// Whether audio may be stored from this instant on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GateState {
    /// Frames of the permit's epochs are stored.
    Open,
    /// Nothing is stored.
    Shut,
}

/// One change of the gate (or the first finding that it stays shut), as `explain` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When, on the wall clock.
    pub at: Wall,
    /// The gate after the decision.
    pub gate: GateState,
    /// The basis, if open.
    pub basis: Option<Basis>,
    /// Statute and policy clause that decided, open or shut.
    pub clause: String,
    /// The version of the rules in force for the call.
    pub rule_version: RuleVersion,
    /// Why, as a code; its sentence is [`Reason::sentence`].
    pub reason: Reason,
    /// Who was on the line as far as the gateway could know, and what each had agreed to.
    pub parties: Vec<PartyState>,
    /// What the decision rests on.
    pub evidence: Vec<Evidence>,
    /// What would have made the other outcome, in words.
    pub otherwise: String,
}

/// A party as it stood when the decision was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartyState {
    /// The leg at whose far end the party is.
    pub leg: Leg,
    /// Counts the parties of that leg: 0 is the first, 1 the one after a transfer.
    pub ordinal: u32,
    /// What the party had agreed to.
    pub consent: PartyConsent,
}

/// What one party has said to being recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartyConsent {
    /// Never asked (and on a dispatch line, never needs to be).
    NotAsked,
    /// The question is open.
    Asked,
    /// Agreed.
    Given,
    /// Said no.
    Declined,
    /// Did not answer in time.
    Silent,
    /// Agreed, then took it back.
    Withdrawn,
}

/// A signal, prompt or fact that a decision rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// When it was seen.
    pub at: Wall,
    /// From which leg, if from one.
    pub leg: Option<Leg>,
    /// What it was, in a few words; never a digit, number or name.
    pub what: String,
}

/// Why the gate was opened or kept shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The call is on a dispatch line.
    DispatchLine,
    /// Every party present has agreed.
    AllAgreed,
    /// An emergency call: never touched.
    Emergency,
    /// A line or number of an employee organisation.
    Union,
    /// A privileged number (attorney, clergy, health).
    Privileged,
    /// A student's number.
    Student,
    /// The line's class is `never`.
    NeverLine,
    /// No line of the district's list matches.
    UnlistedLine,
    /// The line records only on request or signal, and nobody asked.
    NotRequested,
    /// A peer on the way does not signal its parties (`party_signals = "none"`).
    PartiesHidden,
    /// The question is being put.
    Asking,
    /// A party said no.
    Declined,
    /// A party did not answer within the time and attempts.
    NoAnswer,
    /// The prompt was not played to its end.
    PromptIncomplete,
    /// No locked memory for the preamble.
    NoPreambleMemory,
    /// A prompt cannot be played in the leg's codec.
    CannotAsk,
    /// A party took its consent back.
    Withdrawn,
    /// Somebody else is on the line.
    PartyChanged,
    /// It is not certain who is on the line.
    Doubt,
    /// On hold: nothing is stored.
    Held,
    /// The call left the dispatch line.
    LeftLine,
    /// The recorder failed.
    RecorderFailed,
    /// The call ended.
    Ended,
}

impl Reason {
    /// The reason in plain English, as `earmark explain` prints it.
    #[must_use]
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::DispatchLine => "The call is on an emergency dispatch line, the policy's sole exception.",
            Self::AllAgreed => "Every party on the line agreed to be recorded.",
            Self::Emergency => "An emergency call is never recorded here.",
            Self::Union => "A line or number of an employee organisation: never recorded.",
            Self::Privileged => "A privileged number (attorney, clergy or health): never recorded.",
            Self::Student => "A student's number: consent of a student is doubtful, so nothing is recorded.",
            Self::NeverLine => "The line is never recorded.",
            Self::UnlistedLine => "The line is not in the district's list, so it is never recorded.",
            Self::NotRequested => "Nobody asked for a recording.",
            Self::PartiesHidden => {
                "A peer on the way does not signal who is on the line, so consent of all cannot be known."
            }
            Self::Asking => "The parties are being asked.",
            Self::Declined => "A party said no.",
            Self::NoAnswer => "A party did not answer.",
            Self::PromptIncomplete => "The question was not played to its end.",
            Self::NoPreambleMemory => "There was no locked memory for the consent preamble.",
            Self::CannotAsk => "The question could not be played in the call's codec.",
            Self::Withdrawn => "A party withdrew its consent.",
            Self::PartyChanged => "Somebody who has not agreed came on the line.",
            Self::Doubt => "It was not certain who was on the line.",
            Self::Held => "The call was on hold.",
            Self::LeftLine => "The call left the dispatch line.",
            Self::RecorderFailed => "The recorder failed.",
            Self::Ended => "The call ended.",
        }
    }
}
