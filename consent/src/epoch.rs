//! The signalling epoch of a call: which set of parties, in which state of hold, was on the line.
//!
//! A new epoch begins with each change of who is present, with hold and resume, and with a withdrawal;
//! never with a yes. Every media frame is stamped on arrival; a [`Permit`](crate::Permit) names the
//! epochs it covers, so a frame captured before a change can never be kept under a permit that was
//! given for another set of parties, in whatever order frames and signalling reach the recorder.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

/// The n-th epoch of one call; starts at 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u32);

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
        Epoch(self.0.fetch_add(1, Ordering::SeqCst).wrapping_add(1))
    }
}
