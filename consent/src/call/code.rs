//! Recognising a code of several keys (`*80`) in one party's key presses.

use crate::Mono;

/// The longest pause between two keys of one code, in ms. A person who pauses longer has begun anew.
const INTER_DIGIT_MS: u64 = 3_000;

/// Watches the keys of one party for one code. The relay uses it for the withdrawal code, and the call's
/// machine for both codes, so that the two can never disagree on what was pressed.
///
/// Holds as many keys as the code has, never more.
#[derive(Clone, Debug)]
pub struct CodeMatcher {
    code: Vec<char>,
    matched: usize,
    last_at: Mono,
}

impl CodeMatcher {
    /// A matcher for `code`. An empty code never matches.
    #[must_use]
    pub fn new(code: &str) -> Self {
        Self { code: code.chars().collect(), matched: 0, last_at: Mono::default() }
    }

    /// Takes in a key pressed at `at`; true if it completes the code. After a wrong key the longest
    /// ending that could still begin the code is kept (`**80` completes `*80`).
    pub fn push(&mut self, digit: char, at: Mono) -> bool {
        if at.since_us(self.last_at) > INTER_DIGIT_MS * 1_000 {
            self.matched = 0;
        }
        self.last_at = at;
        while self.matched > 0 && self.code.get(self.matched) != Some(&digit) {
            self.matched = self.longest_border();
        }
        if self.code.get(self.matched) == Some(&digit) {
            self.matched += 1;
        }
        let complete = self.matched == self.code.len() && self.matched > 0;
        if complete {
            self.matched = 0;
        }
        complete
    }

    /// Whether a key pressed at `at` would go on with a code that is partly in.
    pub(crate) fn is_midway(&self, at: Mono) -> bool {
        self.matched > 0 && at.since_us(self.last_at) <= INTER_DIGIT_MS * 1_000
    }

    /// Length of the longest proper prefix of what is matched that is also its ending.
    fn longest_border(&self) -> usize {
        (1..self.matched)
            .rev()
            .find(|&length| self.code.get(..length) == self.code.get(self.matched - length..self.matched))
            .unwrap_or(0)
    }
}
