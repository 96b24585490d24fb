//! The steps of the conformance run: what is done on the telephones, in words, and what it must show.

use clap::ValueEnum;
use serde::Serialize;

/// One thing that people do with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Step {
    /// A call in which nothing happens: what the others are held against.
    Call,
    /// Hold, and taking the call back.
    Hold,
    /// A transfer without a word to whom it goes to.
    BlindTransfer,
    /// A transfer after a word to whom it goes to.
    AttendedTransfer,
    /// Three in one call.
    Conference,
    /// Somebody who listens to a call and is not heard.
    Listen,
    /// Somebody who breaks into a call.
    BreakIn,
    /// A call parked at one telephone and fetched at another.
    Park,
}

/// What must be seen of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    /// Nobody comes and nothing changes.
    Nothing,
    /// A hold and its end, and nobody comes.
    Hold,
    /// Somebody comes while the call goes on.
    Newcomer,
}

impl Step {
    /// All of them, in the order in which they are gone through.
    pub(super) const ALL: [Self; 8] = [
        Self::Call,
        Self::Hold,
        Self::BlindTransfer,
        Self::AttendedTransfer,
        Self::Conference,
        Self::Listen,
        Self::BreakIn,
        Self::Park,
    ];

    /// Whether there are PBXs that cannot do it at all.
    pub(super) const fn may_be_absent(self) -> bool {
        matches!(self, Self::Conference | Self::Listen | Self::BreakIn | Self::Park)
    }

    pub(super) const fn shows(self) -> Shows {
        match self {
            Self::Call => Shows::Nothing,
            Self::Hold => Shows::Hold,
            Self::BlindTransfer
            | Self::AttendedTransfer
            | Self::Conference
            | Self::Listen
            | Self::BreakIn
            | Self::Park => Shows::Newcomer,
        }
    }

    /// What to do, with A for a telephone that is not behind the peer, and B and C for two that are.
    pub(super) const fn instruction(self) -> &'static str {
        match self {
            Self::Call => "Call B from A, answer, talk for ten seconds, hang up.",
            Self::Hold => {
                "Call B from A, answer, talk. At B put the call on hold, wait five seconds, take it back, \
                 talk for five seconds, hang up."
            }
            Self::BlindTransfer => {
                "Call B from A, answer, talk. At B transfer the call to C without calling C first. Answer at \
                 C, talk for ten seconds after C is there, then end the call."
            }
            Self::AttendedTransfer => {
                "Call B from A, answer, talk. At B call C, answer there, and then hand the call over. Talk \
                 for ten seconds after C is there, then end the call."
            }
            Self::Conference => {
                "Call B from A, answer, talk. At B call C, answer there, and then join all three. Talk for \
                 ten seconds after C is there, then hang up everywhere."
            }
            Self::Listen => {
                "Call B from A, answer, talk. Let C listen to the call without being heard. Talk on between A \
                 and B for ten seconds after C is there, then hang up everywhere."
            }
            Self::BreakIn => {
                "Call B from A, answer, talk. Let C break into the call, so that all three hear each other. \
                 Talk for ten seconds after C is there, then hang up everywhere."
            }
            Self::Park => {
                "Call B from A, answer, talk. At B park the call, wait thirty seconds, fetch it at C. Talk for \
                 ten seconds after C is there, then end the call."
            }
        }
    }

    /// What was done, for a sentence that says it was not seen.
    pub(super) const fn done(self) -> &'static str {
        match self {
            Self::Call => "a call was made",
            Self::Hold => "the call was put on hold and taken back",
            Self::BlindTransfer | Self::AttendedTransfer => "the call was transferred",
            Self::Conference => "a third party was joined to the call",
            Self::Listen => "somebody listened to the call",
            Self::BreakIn => "somebody broke into the call",
            Self::Park => "the call was parked and fetched at another telephone",
        }
    }

    /// Its name, as on the command line.
    pub(super) fn name(self) -> String {
        crate::commands::calls::word(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_and_breaking_in_are_each_gone_through_or_stated_to_be_absent() {
        for (step, name) in [(Step::Listen, "listen"), (Step::BreakIn, "break-in")] {
            assert_eq!((step.name().as_str(), Step::from_str(name, false)), (name, Ok(step)));
            assert!(Step::ALL.contains(&step) && step.may_be_absent() && step.shows() == Shows::Newcomer);
        }
        assert!(Step::Listen.instruction().contains("without being heard"));
        assert!(!Step::Listen.instruction().contains("break into"));
    }

    #[test]
    fn wherever_somebody_comes_the_call_goes_on_for_ten_seconds() {
        for step in Step::ALL {
            let talks = step.instruction().contains("ten seconds after C is there");
            assert_eq!(talks, step.shows() == Shows::Newcomer, "{step:?}");
        }
    }
}
