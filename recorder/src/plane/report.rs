//! The way of events from a thread of the plane to the hub.
//!
//! The channel is bounded, and the thread never waits for it: events for which there is no room wait in the
//! thread, in order, up to [`BACKLOG`]. Beyond that the newest are dropped and counted. Each event that ends
//! consent (the last key of a withdrawal, an unannounced source) has raised its call's epoch before it is
//! reported, so that losing it stores nothing; an answer that is lost is no consent.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use crate::Event;

/// Events that wait in a thread: keys are bounded per leg, so this is many calls' worth of a hub that stalls.
const BACKLOG: usize = 4_096;

/// What the plane counts, over all threads.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) calls: AtomicU64,
    pub(super) unsent_packets: AtomicU64,
    pub(super) oversized_packets: AtomicU64,
    pub(super) overrun_frames: AtomicU64,
    pub(super) failed_calls: AtomicU64,
    pub(super) shed_events: AtomicU64,
}

/// One thread's end of the event channel.
#[derive(Debug)]
pub(super) struct Reporter {
    events: Sender<Event>,
    waiting: VecDeque<Event>,
    counters: Arc<Counters>,
}

impl Reporter {
    pub(super) fn new(events: Sender<Event>, counters: Arc<Counters>) -> Self {
        Self { events, waiting: VecDeque::new(), counters }
    }

    /// Reports an event behind those that wait.
    pub(super) fn report(&mut self, event: Event) {
        if self.waiting.len() >= BACKLOG {
            self.counters.shed_events.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.waiting.push_back(event);
        self.flush();
    }

    /// Sends what waits, as far as there is room. A hub that is gone needs no events.
    pub(super) fn flush(&mut self) {
        while let Some(event) = self.waiting.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => return self.waiting.push_front(event),
                Err(TrySendError::Closed(_)) => return self.waiting.clear(),
            }
        }
    }

    /// Waits until everything is sent: at the end of a thread, outside any runtime. The hub takes events until
    /// there are no more.
    pub(super) fn drain(&mut self) {
        for event in self.waiting.drain(..) {
            if self.events.blocking_send(event).is_err() {
                return;
            }
        }
    }

    /// Whether events wait.
    pub(super) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use consent::CallId;

    use super::*;

    #[test]
    fn events_wait_in_order_when_the_hub_is_behind_and_the_newest_are_shed_at_last() {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(2);
        let counters = Arc::new(Counters::default());
        let mut reporter = Reporter::new(sender, counters.clone());
        for n in 0..BACKLOG as u128 + 5 {
            reporter.report(Event::BindFailed { call: CallId(n) });
        }
        assert!(reporter.is_behind());
        assert_eq!(counters.shed_events.load(Ordering::Relaxed), 3);
        for n in 0..BACKLOG as u128 + 2 {
            assert_eq!(receiver.try_recv().unwrap(), Event::BindFailed { call: CallId(n) });
            reporter.flush();
        }
        assert!(!reporter.is_behind());
    }
}
