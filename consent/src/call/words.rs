//! What a reason means for the record: the clause behind it, the call's outcome, and what would have made
//! the other outcome.

use super::RecordingOutcome;
use crate::{Basis, Leg, LineClass, PartyConsent, PartyState, Reason};

/// The clause for all that is not stored for want of a basis.
const NO_BASIS: &str = "DENY-UNKNOWN: C.G.S. § 52-570d(a); policy cl. 8";

/// Statute and policy clause behind a reason, open or shut.
pub(super) const fn clause(reason: Reason, class: LineClass) -> &'static str {
    match reason {
        Reason::DispatchLine => Basis::DispatchLine.clause(),
        Reason::LeftLine => "POL-DISPATCH: policy cl. 8 (the lines at the Police Department, and no others)",
        Reason::Emergency => "DENY-911: an emergency call takes the static path",
        Reason::Union => "DENY-UNION: policy cl. 9",
        Reason::Privileged => "DENY-PRIV: C.G.S. §§ 54-41h, 1-210(b)(10); policy cl. 8",
        Reason::Student => "DENY-STUDENT: C.G.S. § 52-570d(a); policy cl. 8",
        Reason::NeverLine | Reason::UnlistedLine | Reason::PartiesHidden | Reason::NotRequested => NO_BASIS,
        Reason::RecorderFailed | Reason::Ended => match class {
            LineClass::Dispatch => Basis::DispatchLine.clause(),
            _ => Basis::AllPartyConsent.clause(),
        },
        Reason::AllAgreed
        | Reason::Asking
        | Reason::Declined
        | Reason::NoAnswer
        | Reason::PromptIncomplete
        | Reason::NoPreambleMemory
        | Reason::CannotAsk
        | Reason::Withdrawn
        | Reason::PartyChanged
        | Reason::Doubt
        | Reason::Held => Basis::AllPartyConsent.clause(),
    }
}

/// The fact about a call's numbers on which a reason rests that holds from the start; for other reasons
/// their own sentence.
pub(super) const fn ground(reason: Reason) -> &'static str {
    match reason {
        Reason::DispatchLine => "a number of the call is that of a dispatch line",
        Reason::Emergency => "an emergency service was called, or calls back",
        Reason::Union => "a line or number of class union is on the call",
        Reason::Privileged => "a number of class privileged is on the call",
        Reason::Student => "a number of class student is on the call",
        Reason::NeverLine => "the call's line is of class never",
        Reason::UnlistedLine => "no number of the call is on the list of lines",
        other => other.sentence(),
    }
}

/// How a call fares whose gate was never open and that stays shut for this reason.
pub(super) const fn outcome(reason: Reason) -> RecordingOutcome {
    match reason {
        Reason::DispatchLine | Reason::AllAgreed => RecordingOutcome::Recorded,
        Reason::LeftLine => RecordingOutcome::PartlyRecorded,
        Reason::Emergency => RecordingOutcome::Emergency,
        Reason::Union => RecordingOutcome::UnionLine,
        Reason::NeverLine | Reason::UnlistedLine => RecordingOutcome::NeverLine,
        Reason::Privileged
        | Reason::Student
        | Reason::PartiesHidden
        | Reason::PartyChanged
        | Reason::Doubt => RecordingOutcome::NotPermitted,
        Reason::Declined | Reason::NoAnswer => RecordingOutcome::Refused,
        Reason::PromptIncomplete => RecordingOutcome::PromptIncomplete,
        Reason::Withdrawn => RecordingOutcome::Withdrawn,
        Reason::RecorderFailed => RecordingOutcome::Failed,
        Reason::NotRequested
        | Reason::Asking
        | Reason::NoPreambleMemory
        | Reason::CannotAsk
        | Reason::Held
        | Reason::Ended => RecordingOutcome::NotAsked,
    }
}

/// What would have made the other outcome. Names parties by their side of the call only.
pub(super) fn otherwise(reason: Reason, parties: &[PartyState]) -> String {
    let sentence = match reason {
        Reason::DispatchLine => {
            "If no number of the call had been that of a dispatch line, nothing would have been stored without \
             the consent of all."
        }
        Reason::AllAgreed => "If either party had declined or stayed silent, nothing would have been stored.",
        Reason::Emergency => "Nothing: an emergency call is not recorded here on any line.",
        Reason::Union => "Nothing: no consent makes such a call recordable.",
        Reason::Privileged | Reason::Student => {
            "If no number of the call had been of that class, the parties could have been asked."
        }
        Reason::NeverLine => {
            "If the line's class were consent and every party had agreed, it would have been recorded."
        }
        Reason::UnlistedLine => {
            "If the line were listed with class consent and every party had agreed, it would have been recorded."
        }
        Reason::NotRequested => {
            "If a recording had been asked for and every party had agreed, it would have been made."
        }
        Reason::PartiesHidden => {
            "If every peer of the call signalled who is on the line, the parties would have been asked."
        }
        Reason::Asking => "If every party agrees, the recording begins.",
        Reason::Declined | Reason::NoAnswer => return otherwise_unagreed(parties),
        Reason::PromptIncomplete => {
            "If the question had been heard to its end and every party had agreed, the call would have been recorded."
        }
        Reason::NoPreambleMemory => {
            "If locked memory had been free for the request and the answers, the parties would have been asked."
        }
        Reason::CannotAsk => {
            "If the leg had used a codec in which the question can be played, the parties would have been asked."
        }
        Reason::Withdrawn => "If nobody had taken consent back, the recording would have gone on.",
        Reason::PartyChanged => {
            "If nobody had come on the line, the recording would have gone on; it resumes if all who are on it now agree."
        }
        Reason::Doubt => {
            "If it had been certain that the same people were on the line, the recording would have gone on; it \
             resumes if all agree again."
        }
        Reason::Held => {
            "If the call had not been on hold, it would have gone on; it does after the hold if nobody else came."
        }
        Reason::LeftLine => "If the call had stayed on the dispatch line, the recording would have gone on.",
        Reason::RecorderFailed => "If the recorder had not failed, the recording would have gone on.",
        Reason::Ended => "Nothing: the call was over.",
    };
    sentence.to_owned()
}

fn otherwise_unagreed(parties: &[PartyState]) -> String {
    let mut missing = parties.iter().filter(|party| party.consent != PartyConsent::Given);
    match (missing.next(), missing.next()) {
        (Some(party), None) => {
            let side = match party.leg {
                Leg::A => "calling",
                Leg::B => "called",
            };
            format!("If the {side} party had agreed, the call would have been recorded.")
        }
        _ => "If both parties had agreed, the call would have been recorded.".to_owned(),
    }
}
