//! The clocks of the plane: read here and nowhere else in this crate.

use std::time::{Duration, Instant, SystemTime};

use consent::{Mono, Now, Wall};

/// Reads both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
}

impl Clock {
    /// `started` is the instant that [`Mono`] counts from, the same in every plane.
    pub(super) const fn new(started: Instant) -> Self {
        Self { started }
    }

    pub(super) fn now(self) -> Now {
        let mono = Mono(u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX));
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { mono, wall: Wall(i64::try_from(since.as_micros()).unwrap_or(i64::MAX)) }
    }

    pub(super) fn instant(self, at: Mono) -> Instant {
        self.started + Duration::from_micros(at.0)
    }
}
