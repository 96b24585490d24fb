//! Virtual time: an event queue in order of time, then of insertion, and a wall clock that may jump.

use std::collections::BTreeMap;

use consent::{Mono, Now, Wall};

/// Virtual microseconds since the world began.
pub(crate) type Time = u64;

pub(crate) const MS: Time = 1_000;
pub(crate) const SECOND: Time = 1_000_000;

/// 2026-11-16T14:00:00Z.
const WALL_AT_START: i64 = 1_794_837_600_000_000;

/// What will happen, in order.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    events: BTreeMap<(Time, u64), T>,
    inserted: u64,
}

impl<T> Queue<T> {
    pub(crate) const fn new() -> Self {
        Self { events: BTreeMap::new(), inserted: 0 }
    }

    pub(crate) fn push(&mut self, at: Time, event: T) {
        self.inserted += 1;
        self.events.insert((at, self.inserted), event);
    }

    pub(crate) fn next_at(&self) -> Option<Time> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next event, if it is due.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<T> {
        let entry = self.events.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}

/// The machine's wall clock: true time plus what somebody set it to.
#[derive(Clone, Debug)]
pub(crate) struct WallClock {
    /// From when on, by how much it is wrong.
    jumps: Vec<(Time, i64)>,
}

impl WallClock {
    /// A clock that jumps once, if at all.
    pub(crate) fn new(jump: Option<(Time, i64)>) -> Self {
        let mut jumps = vec![(0, 0)];
        jumps.extend(jump);
        Self { jumps }
    }

    pub(crate) fn at(&self, time: Time) -> Wall {
        let offset = self.jumps.iter().rev().find(|(from, _)| *from <= time).map_or(0, |(_, offset)| *offset);
        Wall(WALL_AT_START + time as i64 + offset)
    }

    /// Both clocks of a process that started at `boot`.
    pub(crate) fn now(&self, time: Time, boot: Time) -> Now {
        Now { mono: Mono(time - boot), wall: self.at(time) }
    }

    /// When the clock showed `wall`; `None` if it never did.
    pub(crate) fn when(&self, wall: Wall) -> Option<Time> {
        self.jumps.iter().enumerate().find_map(|(index, (from, offset))| {
            let time = Time::try_from(wall.0 - WALL_AT_START - offset).ok()?;
            let until = self.jumps.get(index + 1).map_or(Time::MAX, |(next, _)| *next);
            (time >= *from && time < until).then_some(time)
        })
    }
}
