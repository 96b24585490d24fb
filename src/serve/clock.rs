//! The one place where the daemon reads the clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use consent::{Mono, Now, Wall};

/// Both clocks, the monotonic one counted from the start of the process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Where the monotonic clock counts from: the media plane counts from there too.
    pub(super) const fn origin(self) -> Instant {
        self.origin
    }

    pub(super) fn now(self) -> Now {
        let mono = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        Now { mono: Mono(mono), wall: wall() }
    }

    /// When `at` is, for a timer.
    pub(super) fn instant(self, at: Mono) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.origin + std::time::Duration::from_micros(at.0))
    }
}

fn wall() -> Wall {
    let micros = |duration: std::time::Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Wall(match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => -micros(before.duration()),
    })
}
