//! What a recording states of itself: which parts were stored on which basis, and which are missing and why.

use serde::{Deserialize, Serialize};

use crate::{Basis, Leg, RuleVersion};

/// A stretch of a recording with its basis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Seconds from the start.
    pub from_s: f64,
    /// Seconds from the start.
    pub to_s: f64,
    /// The legal basis.
    pub basis: Basis,
    /// Statute and policy clause.
    pub clause: String,
    /// Version of the rules.
    pub rule_version: RuleVersion,
    /// What part of the call it is.
    pub phase: Phase,
}

/// What part of a call an interval is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Before the answer (dispatch lines only).
    EarlyMedia,
    /// The question and the answers.
    Preamble,
    /// The conversation.
    Answered,
}

/// A stretch without audio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Seconds from the start.
    pub from_s: f64,
    /// Seconds from the start.
    pub to_s: f64,
    /// Why.
    pub cause: GapCause,
    /// On which channel, if not on all.
    pub leg: Option<Leg>,
}

/// Why audio is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GapCause {
    /// The call was on hold.
    Hold,
    /// Packets did not arrive.
    Loss,
    /// The recorder's queue was full.
    Overrun,
    /// The process ended without notice; what was not yet written is lost.
    Crash,
    /// A digit was taken out.
    Digit,
    /// The party's codec cannot be decoded.
    Codec,
    /// The party's device sent nothing and announced no comfort noise: muted, holding, or one-way.
    Unsent,
}
