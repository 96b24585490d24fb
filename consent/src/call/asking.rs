//! One asking: the same question at the same time to each leg that has not agreed, each with its own clock.
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
    legs: [Question; 2],
    /// Since when each leg has been asked: the first sample of its first question.
    asked_since: [Option<Mono>; 2],
}

#[derive(Clone, Copy, Debug)]
enum Question {
    /// It plays for the n-th time, or is about to.
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
    /// No answer in time; the question is to be put once more.
    Repeat,
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
    /// `agreed`: which legs have agreed before, and are not asked.
    pub(super) fn new(epoch: Epoch, now: Mono, agreed: [bool; 2]) -> Self {
        let legs = agreed.map(|agreed| match agreed {
            true => Question::Agreed,
            false => Question::Playing { since: now, attempt: 1 },
        });
        Self { epoch, legs, asked_since: [None; 2] }
    }

    /// The question began to play on a leg. The attempt; `None` if none was to, or to another epoch's parties.
    pub(super) fn begins(&mut self, leg: Leg, epoch: Epoch, now: Mono) -> Option<u32> {
        let Question::Playing { since, attempt } = &mut self.legs[leg.index()] else { return None };
        if epoch != self.epoch {
            return None;
        }
        *since = now;
        self.asked_since[leg.index()].get_or_insert(now);
        Some(*attempt)
    }

    /// Whether a key that `leg` pressed at `at` in `epoch` can be an answer: not one pressed before the leg's
    /// question began, or by whoever was there in another epoch, however late it is reported.
    pub(super) fn admits(&self, leg: Leg, epoch: Epoch, at: Mono) -> bool {
        self.is_of(epoch) && self.asked_since[leg.index()].is_some_and(|since| at >= since)
    }

    /// Whether it is asked of the parties of that epoch.
    pub(super) fn is_of(&self, epoch: Epoch) -> bool {
        epoch == self.epoch
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
        *question = Question::Playing { since: now, attempt: attempt + 1 };
        Some(Due::Repeat)
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
