//! Deadlines on virtual time, in one ordered queue.
//!
//! Every entry belongs to a transaction or a call, both of which are bounded; so is this.

use std::collections::BTreeMap;

use consent::Mono;

/// Names one armed timer, to disarm it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerKey(Mono, u64);

/// A queue of deadlines; equal deadlines fire in the order in which they were armed.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    queue: BTreeMap<TimerKey, T>,
    armed: u64,
}

impl<T> Timers<T> {
    pub(crate) const fn new() -> Self {
        Self { queue: BTreeMap::new(), armed: 0 }
    }

    pub(crate) fn arm(&mut self, at: Mono, target: T) -> TimerKey {
        self.armed = self.armed.wrapping_add(1);
        let key = TimerKey(at, self.armed);
        self.queue.insert(key, target);
        key
    }

    pub(crate) fn disarm(&mut self, key: TimerKey) {
        self.queue.remove(&key);
    }

    pub(crate) fn next(&self) -> Option<Mono> {
        self.queue.first_key_value().map(|(key, _)| key.0)
    }

    pub(crate) fn pop_due(&mut self, now: Mono) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.queue.pop_first().map(|(_, target)| target)
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn deadlines_come_in_order_of_time_then_of_arming() {
        let mut timers = Timers::new();
        timers.arm(Mono(20), "late");
        timers.arm(Mono(10), "first");
        timers.arm(Mono(10), "second");
        let gone = timers.arm(Mono(5), "disarmed");
        timers.disarm(gone);
        assert_eq!(timers.next(), Some(Mono(10)));
        assert_eq!(timers.pop_due(Mono(9)), None);
        assert_eq!(timers.pop_due(Mono(10)), Some("first"));
        assert_eq!(timers.pop_due(Mono(15)), Some("second"));
        assert_eq!(timers.pop_due(Mono(15)), None);
        assert_eq!(timers.pop_due(Mono(20)), Some("late"));
        assert_eq!(timers.len(), 0);
    }
}
