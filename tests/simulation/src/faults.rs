//! What goes wrong with the machine in one seed, and when.

use crate::clock::{MS, SECOND, Time};
use crate::random::Random;

/// Stretches of time in which something is wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spells(Vec<(Time, Time)>);

impl Spells {
    /// Up to `most` spells of up to `longest` within `horizon`, if at all.
    fn draw(random: &mut Random, per_mille: u64, most: u64, longest: Time, horizon: Time) -> Self {
        if !random.per_mille(per_mille) {
            return Self::default();
        }
        let spell = |random: &mut Random| {
            let from = random.between(0, horizon);
            (from, from + random.between(10 * MS, longest))
        };
        Self((0..random.between(1, most)).map(|_| spell(random)).collect())
    }

    /// When the spell ends that is on at `now`.
    pub(crate) fn until(&self, now: Time) -> Option<Time> {
        let on = self.0.iter().filter(|(from, to)| (*from..*to).contains(&now));
        on.map(|(_, to)| *to).max()
    }

    pub(crate) fn add(&mut self, from: Time, to: Time) {
        self.0.push((from, to));
    }

    /// Whether one is on at any time between the two.
    pub(crate) fn touches(&self, from: Time, to: Time) -> bool {
        self.0.iter().any(|(begin, end)| *begin <= to && *end >= from)
    }

    fn end_before(&mut self, end: Time) {
        self.0.retain(|(from, _)| *from < end);
        self.0.iter_mut().for_each(|(_, to)| *to = (*to).min(end));
    }
}

/// How the process ends without notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// kill -9: what was written stays.
    Killed,
    /// Power cut: what was not synced may go.
    PowerCut,
}

/// All that goes wrong in one seed.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    pub(crate) crashes: Vec<(Time, Crash, Time)>,
    /// The journal's disk refuses to write.
    pub(crate) journal_failing: Spells,
    /// How long an append to the journal takes in a bad spell, and those spells.
    pub(crate) journal_slow: Spells,
    pub(crate) sync_ms: u64,
    pub(crate) spool_failing: Spells,
    pub(crate) store_away: Spells,
    pub(crate) database_away: Spells,
    /// Commands to the media plane come late.
    pub(crate) commands_late: Spells,
    /// The writing thread stands still.
    pub(crate) writer_stalled: Spells,
    /// So many of a thousand calls get no ports.
    pub(crate) bind_fails_per_mille: u64,
    /// A change of parties finds the media plane's commands late, so often in a thousand.
    pub(crate) late_at_change_per_mille: u64,
    /// Locked memory for all calls.
    pub(crate) locked_bytes: usize,
    pub(crate) lookback_ms: u64,
    pub(crate) wall_jump: Option<(Time, i64)>,
    pub(crate) garbage_per_s: u64,
}

impl Faults {
    /// Faults of a run whose calls are over at `horizon`; from then on nothing is wrong any more.
    pub(crate) fn draw(random: &mut Random, horizon: Time) -> Self {
        let mut crashes = Vec::new();
        if random.per_mille(400) {
            let kind = if random.per_mille(300) { Crash::PowerCut } else { Crash::Killed };
            let at = random.between(100 * MS, horizon - SECOND);
            crashes.push((at, kind, at + random.between(50 * MS, 2 * SECOND)));
        }
        let mut spells = |per_mille, most, longest| Spells::draw(random, per_mille, most, longest, horizon);
        let mut faults = Self {
            crashes,
            journal_failing: spells(150, 2, 4 * SECOND),
            journal_slow: spells(150, 3, 3 * SECOND),
            spool_failing: spells(80, 1, 2 * SECOND),
            store_away: spells(150, 2, 5 * SECOND),
            database_away: spells(250, 2, 8 * SECOND),
            commands_late: spells(250, 4, 2 * SECOND),
            writer_stalled: spells(200, 4, SECOND),
            sync_ms: 0,
            bind_fails_per_mille: 0,
            late_at_change_per_mille: 0,
            locked_bytes: 0,
            lookback_ms: 0,
            wall_jump: None,
            garbage_per_s: 0,
        };
        faults.sync_ms = random.between(1, 60);
        faults.bind_fails_per_mille = random.pick(&[0, 0, 0, 100]);
        faults.late_at_change_per_mille = random.pick(&[0, 0, 300, 900]);
        faults.locked_bytes = random.pick(&[6_000_000, 6_000_000, 6_000_000, 6_000_000, 6_000_000, 100_000]);
        faults.lookback_ms = random.pick(&[0, 200, 1000, 1000]);
        let hour = 3_600 * SECOND as i64;
        faults.wall_jump =
            random.per_mille(200).then(|| (random.between(0, horizon), random.pick(&[-hour, hour])));
        faults.garbage_per_s = random.pick(&[0, 0, 5, 50]);
        faults
    }

    /// From `end` on all is well.
    pub(crate) fn end(&mut self, end: Time) {
        let all = [
            &mut self.journal_failing,
            &mut self.journal_slow,
            &mut self.spool_failing,
            &mut self.store_away,
            &mut self.database_away,
            &mut self.commands_late,
            &mut self.writer_stalled,
        ];
        all.into_iter().for_each(|spells| spells.end_before(end));
    }
}
