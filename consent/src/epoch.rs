//! The signalling epoch of a call: which set of parties, in which state of hold, was on the line.
//!
//! A new epoch begins with each change of who is present, with hold and resume, and with a withdrawal;
//! never with a yes. Every media frame is stamped on arrival; a [`Permit`](crate::Permit) names the
//! epochs it covers, so a frame captured before a change can never be kept under a permit that was
//! given for another set of parties, in whatever order frames and signalling reach the recorder.
//!
//! The number also tells whether a dispatch call is on its line. Epochs come in stints of 2^24: the first
//! stint is on the line, the next off it, and so on by turns; the permit of a dispatch line ends with its
//! stint. So a frame stamped after the leaving is refused wherever it is met, however late the command that
//! closes the tap.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

/// The n-th epoch of one call; starts at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u32);

/// How many epochs a stint has.
const STINT: u32 = 1 << 24;

impl Epoch {
    /// Whether a dispatch call is on its line in it.
    pub(crate) const fn is_on_line(self) -> bool {
        (self.0 / STINT).is_multiple_of(2)
    }

    /// The last of its stint.
    pub(crate) const fn last_of_stint(self) -> Self {
        Self(self.0 | (STINT - 1))
    }

    /// The next in the same place. Out of epochs, a call has left its line for good: none comes back to an
    /// epoch that a permit may cover.
    const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(next) if !self.is_on_line() && Self(next).is_on_line() => Self(next.saturating_add(STINT)),
            Some(next) => Self(next),
            None => self,
        }
    }

    const fn next_off_line(self) -> Self {
        if self.is_on_line() { Self(self.last_of_stint().0.saturating_add(1)) } else { self.next() }
    }

    /// In the last stint, which is off the line, that of its place.
    const fn next_on_line(self) -> Self {
        match self.last_of_stint().0.checked_add(1) {
            Some(first) if !self.is_on_line() => Self(first),
            _ => self.next(),
        }
    }
}

/// The current epoch of one call, shared by signalling (which raises it when parties change) and the
/// relay (which raises it on a trigger seen in the media, and stamps frames with it).
#[derive(Clone, Debug, Default)]
pub struct EpochCounter(Arc<AtomicU32>);

impl EpochCounter {
    /// The epoch in force.
    #[must_use]
    pub fn current(&self) -> Epoch {
        Epoch(self.0.load(Ordering::SeqCst))
    }

    /// Begins a new epoch and returns it.
    pub fn raise(&self) -> Epoch {
        self.begin(Epoch::next)
    }

    /// Begins the first epoch of a call that has left its dispatch line, or the next of one that had, and
    /// returns it.
    pub fn leave_line(&self) -> Epoch {
        self.begin(Epoch::next_off_line)
    }

    /// Begins the first epoch of a call that is on a dispatch line again, or the next of one that was, and
    /// returns it.
    pub fn return_to_line(&self) -> Epoch {
        self.begin(Epoch::next_on_line)
    }

    fn begin(&self, next: impl Fn(Epoch) -> Epoch) -> Epoch {
        let before = self.0.update(Ordering::SeqCst, Ordering::SeqCst, |epoch| next(Epoch(epoch)).0);
        next(Epoch(before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(epoch: u32) -> EpochCounter {
        EpochCounter(Arc::new(AtomicU32::new(epoch)))
    }

    #[test]
    fn each_epoch_is_newer_than_all_before() {
        let counter = EpochCounter::default();
        assert_eq!([counter.raise(), counter.return_to_line()], [Epoch(1), Epoch(2)]);
        let off_line = [counter.leave_line(), counter.raise(), counter.leave_line()];
        assert_eq!(off_line, [0, 1, 2].map(|n| Epoch(STINT + n)));
        let back = [counter.return_to_line(), counter.raise()];
        assert_eq!(back, [0, 1].map(|n| Epoch(2 * STINT + n)));
        assert_eq!(counter.current(), back[1]);
    }

    #[test]
    fn a_stint_is_either_on_the_line_or_off_it() {
        let counter = EpochCounter::default();
        for _ in 0..3 {
            assert!(counter.raise().is_on_line() && counter.current().last_of_stint().is_on_line());
            assert!(!counter.leave_line().is_on_line() && !counter.raise().is_on_line());
            assert!(counter.return_to_line().is_on_line());
        }
    }

    #[test]
    fn a_call_that_runs_out_of_epochs_has_left_its_line() {
        assert_eq!(from(STINT - 1).raise(), Epoch(STINT));
        assert_eq!(from(2 * STINT - 1).raise(), Epoch(3 * STINT), "never into a stint on the line");
        for begin in [EpochCounter::raise, EpochCounter::leave_line, EpochCounter::return_to_line] {
            assert_eq!(begin(&from(u32::MAX)), Epoch(u32::MAX));
            assert!(!begin(&from(u32::MAX - 5)).is_on_line());
        }
    }
}
