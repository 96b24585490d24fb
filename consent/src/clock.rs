//! The two clocks, as values. Shells read them; everything else is told.

use serde::{Deserialize, Serialize};

/// Microseconds on the monotonic clock since the process started: orders events and measures durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Mono(pub u64);

/// Microseconds since 1970-01-01T00:00:00Z: what a record states. May jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Wall(pub i64);

/// One instant on both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For deadlines and durations.
    pub mono: Mono,
    /// For records.
    pub wall: Wall,
}

impl Now {
    /// The instant `us` microseconds before this one, saturating.
    #[must_use]
    pub fn minus_us(self, us: u64) -> Self {
        let wall = i64::try_from(us).map_or(i64::MIN, |us| self.wall.0.saturating_sub(us));
        Self { mono: Mono(self.mono.0.saturating_sub(us)), wall: Wall(wall) }
    }
}

impl Mono {
    /// This instant plus `ms` milliseconds, saturating.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000)))
    }

    /// Microseconds from `earlier` to this instant; zero if `earlier` is later.
    #[must_use]
    pub const fn since_us(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
