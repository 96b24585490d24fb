//! The signalling epoch of a call: which set of parties, in which state of hold, was on the line.
//!
//! A new epoch begins with each change of who is present, with hold and resume, and with a withdrawal;
//! never with a yes. Every media frame is stamped on arrival; a [`Permit`](crate::Permit) names the
//! epochs it covers, so a frame captured before a change can never be kept under a permit that was
//! given for another set of parties, in whatever order frames and signalling reach the recorder.
//!
//! The number also tells whether a dispatch call is on its line: the epochs of a call that has left it lie
//! beyond [`Epoch::LAST_ON_LINE`], where the permit of a dispatch line ends. So a frame stamped after the
//! leaving is refused wherever it is met, however late the command that closes the tap.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

/// The n-th epoch of one call; starts at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The last that a call on its dispatch line can have.
    pub(crate) const LAST_ON_LINE: Self = Self(u32::MAX / 2);
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
        self.raise_to(Epoch(0))
    }

    /// Begins the first epoch of a call that has left its dispatch line, or the next of one that had, and
    /// returns it.
    pub fn leave_line(&self) -> Epoch {
        self.raise_to(Epoch(Epoch::LAST_ON_LINE.0 + 1))
    }

    /// Begins the next epoch, at least `least`. It never comes back to the beginning, where permits are.
    fn raise_to(&self, least: Epoch) -> Epoch {
        let next = |epoch: u32| epoch.saturating_add(1).max(least.0);
        Epoch(next(self.0.update(Ordering::SeqCst, Ordering::SeqCst, next)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_is_newer_than_all_before() {
        let counter = EpochCounter::default();
        assert_eq!([counter.raise(), counter.raise()], [Epoch(1), Epoch(2)]);
        let off_line = [counter.leave_line(), counter.raise(), counter.leave_line()];
        assert_eq!(off_line, [1, 2, 3].map(|n| Epoch(Epoch::LAST_ON_LINE.0 + n)));
        assert_eq!(counter.current(), off_line[2]);
    }

    #[test]
    fn a_call_that_runs_out_of_epochs_has_left_its_line() {
        let counter = EpochCounter(Arc::new(AtomicU32::new(Epoch::LAST_ON_LINE.0)));
        assert!(counter.raise() > Epoch::LAST_ON_LINE);
        let last = EpochCounter(Arc::new(AtomicU32::new(u32::MAX)));
        assert_eq!(last.raise(), Epoch(u32::MAX));
    }
}
