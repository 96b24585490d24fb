//! Pairs of ports for RTP (even) and RTCP (the next, odd; RFC 3550 §11), handed out in turn.
//!
//! A pair that comes back rests for [`QUARANTINE_MS`], so that packets still on their way to an ended
//! call do not reach a new one. When every pair is in use or resting, there is none to be had; an
//! emergency call takes one that rests.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use consent::Mono;

/// Longer than a far end keeps sending after BYE (RFC 3261 Timer F is 32 s only for the BYE itself).
const QUARANTINE_MS: u64 = 10_000;

/// The pairs that are free, the one longest free first.
#[derive(Debug)]
pub(super) struct PortPool {
    free: VecDeque<FreePair>,
}

#[derive(Clone, Copy, Debug)]
struct FreePair {
    rtp: u16,
    usable_at: Mono,
}

impl PortPool {
    /// All whole pairs in `ports`.
    pub(super) fn new(ports: &RangeInclusive<u16>) -> Self {
        let whole = |rtp: &u16| rtp.is_multiple_of(2) && *rtp != 0 && *rtp < *ports.end();
        let pair = |rtp| FreePair { rtp, usable_at: Mono::default() };
        Self { free: ports.clone().filter(|rtp| *rtp < u16::MAX).filter(whole).map(pair).collect() }
    }

    /// How many pairs are free, resting ones among them.
    pub(super) fn len(&self) -> usize {
        self.free.len()
    }

    /// The even port of the next pair.
    pub(super) fn take(&mut self, now: Mono, emergency: bool) -> Option<u16> {
        self.free.pop_front_if(|pair| emergency || pair.usable_at <= now).map(|pair| pair.rtp)
    }

    /// Gives a pair back, after use or because somebody else has one of its ports.
    pub(super) fn give_back(&mut self, now: Mono, rtp: u16) {
        self.free.push_back(FreePair { rtp, usable_at: now.plus_ms(QUARANTINE_MS) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_pairs_are_handed_out_each_once() {
        let mut pool = PortPool::new(&(20_001..=20_006));
        assert_eq!(pool.len(), 2);
        let taken: Vec<_> = (0..3).map(|_| pool.take(Mono(0), false)).collect();
        assert_eq!(taken, [Some(20_002), Some(20_004), None]);
        assert_eq!(PortPool::new(&(65_534..=65_535)).len(), 1);
    }

    #[test]
    fn a_pair_rests_before_it_is_used_again_except_for_an_emergency() {
        let mut pool = PortPool::new(&(20_000..=20_001));
        let pair = pool.take(Mono(0), false);
        assert_eq!(pair, Some(20_000));
        pool.give_back(Mono(0), 20_000);
        assert_eq!(pool.take(Mono(0).plus_ms(9_999), false), None);
        assert_eq!(pool.take(Mono(0).plus_ms(9_999), true), Some(20_000));
        pool.give_back(Mono(0), 20_000);
        assert_eq!(pool.take(Mono(0).plus_ms(10_000), false), Some(20_000));
    }
}
