//! One asking: the same question to both legs at the same time, each with its own clock.
//!
//! Bounded: each leg hears the question at most `attempts` times, each time for at most
//! [`QUESTION_LIMIT_MS`], and is given `answer_timeout_ms` after each.

use crate::{Epoch, Leg, Mono};

/// The longest a question may take to play, in ms, before its missing end counts as a failure: two
/// languages in a district's own wording take some 40 s.
const QUESTION_LIMIT_MS: u64 = 60_000;

#[derive(Debug)]
pub(super) struct Asking {
    /// The epoch whose parties are asked.
    pub(super) epoch: Epoch,
    since: Mono,
    legs: [Question; 2],
}

#[derive(Clone, Copy, Debug)]
enum Question {
    /// It plays for the n-th time.
    Playing { since: Mono, attempt: u32 },
    /// It was heard to its end; the answer is awaited.
    Awaiting { since: Mono, deadline: Mono, attempt: u32 },
    /// It was answered with yes.
    Agreed,
}

/// What fell due on a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nobody reported the question's end.
    NoEnd,
    /// No answer in time; the question is to be put for the n-th time.
    Repeat { attempt: u32 },
    /// No answer in time, and no attempt is left.
    Silent,
}

/// How far a yes came after the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    /// Milliseconds since the question began.
    pub(super) after_ms: u64,
    /// Whether the question still played and must be stopped.
    pub(super) playing: bool,
}

impl Asking {
    pub(super) const fn new(epoch: Epoch, now: Mono) -> Self {
        Self { epoch, since: now, legs: [Question::Playing { since: now, attempt: 1 }; 2] }
    }

    /// Whether a key pressed at `at` in `epoch` can be an answer: not one pressed before the question, or
    /// by whoever was there in another epoch, however late it is reported.
    pub(super) fn admits(&self, epoch: Epoch, at: Mono) -> bool {
        epoch == self.epoch && at >= self.since
    }

    /// Takes a yes. `None` if the leg has said it before.
    pub(super) fn agree(&mut self, leg: Leg, now: Mono) -> Option<Agreement> {
        let question = &mut self.legs[leg.index()];
        let agreement = match *question {
            Question::Playing { since, .. } => {
                Agreement { after_ms: now.since_us(since) / 1_000, playing: true }
            }
            Question::Awaiting { since, .. } => {
                Agreement { after_ms: now.since_us(since) / 1_000, playing: false }
            }
            Question::Agreed => return None,
        };
        *question = Question::Agreed;
        Some(agreement)
    }

    pub(super) fn all_agreed(&self) -> bool {
        self.legs.iter().all(|question| matches!(question, Question::Agreed))
    }

    /// Whether nobody is still to hear the end of a question.
    pub(super) fn is_heard_by_all(&self) -> bool {
        self.legs.iter().all(|question| !matches!(question, Question::Playing { .. }))
    }

    pub(super) fn is_playing(&self, leg: Leg) -> bool {
        matches!(self.legs[leg.index()], Question::Playing { .. })
    }

    /// The question was heard to its end: the answer timeout starts. False if none was playing.
    pub(super) fn heard(&mut self, leg: Leg, now: Mono, answer_timeout_ms: u64) -> bool {
        let question = &mut self.legs[leg.index()];
        let Question::Playing { since, attempt } = *question else { return false };
        *question = Question::Awaiting { since, deadline: now.plus_ms(answer_timeout_ms), attempt };
        true
    }

    /// What is due on a leg at `now`, at most one thing; a repeat starts the question's clock anew.
    pub(super) fn due(&mut self, leg: Leg, now: Mono, attempts: u32) -> Option<Due> {
        let question = &mut self.legs[leg.index()];
        if question.deadline().is_none_or(|deadline| deadline > now) {
            return None;
        }
        let Question::Awaiting { attempt, .. } = *question else { return Some(Due::NoEnd) };
        if attempt >= attempts {
            return Some(Due::Silent);
        }
        let attempt = attempt + 1;
        *question = Question::Playing { since: now, attempt };
        Some(Due::Repeat { attempt })
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.legs.iter().filter_map(Question::deadline).min()
    }
}

impl Question {
    const fn deadline(&self) -> Option<Mono> {
        match self {
            Self::Playing { since, .. } => Some(since.plus_ms(QUESTION_LIMIT_MS)),
            Self::Awaiting { deadline, .. } => Some(*deadline),
            Self::Agreed => None,
        }
    }
}
