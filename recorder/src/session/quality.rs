//! What a leg's reception was like: loss, jitter, and the opinion score that follows from them.
//!
//! Sequence numbers as in RFC 3550 appendix A.1 without its probation (the latch has one), loss as in
//! A.3, jitter as in §6.4.1 and A.8. The score is the E-model of ITU-T G.107 with default values for all
//! that a relay cannot see:
//!
//! `R = 93.2 - Id - Ie,eff`, `Id = 0.024 d + 0.11 (d - 177.3) H(d - 177.3)`,
//! `Ie,eff = Ie + (95 - Ie) Ppl / (Ppl + Bpl)`; `MOS = 1 + 0.035 R + R (R - 60)(100 - R) 7e-6`.
//!
//! `d` in ms is one packet plus a play-out buffer of twice the jitter; the network's own delay is not
//! known to a relay and is left out. `Ie` and `Bpl` are ITU-T G.113 appendix I's: G.711 with
//! concealment 0 and 25.1, G.729A 11 and 19, every other codec as G.711. Loss is taken as random.

use consent::{Mono, Now, Wall};

/// RFC 3550 A.1: a leap forward of more is a restart, not loss.
pub(super) const MAX_DROPOUT: u16 = 3_000;
/// RFC 3550 A.1: a packet that is later by more is a restart, not reordering.
pub(super) const MAX_MISORDER: u16 = 100;
/// A packet and its framing, in ms: 20 ms packets, as nearly all telephony has.
const PACKET_MS: f64 = 20.0;

/// Counts what arrives of one stream.
#[derive(Debug, Default)]
pub struct Reception {
    packets: u64,
    first_packet_at: Option<Wall>,
    run: Option<Run>,
    lost_before: u64,
    jitter_us: f64,
    last_timed: Option<(Mono, u32)>,
}

/// An unbroken sequence of one SSRC.
#[derive(Clone, Copy, Debug)]
struct Run {
    ssrc: u32,
    base: u16,
    max: u16,
    cycles: u64,
    received: u64,
}

/// The header fields that matter here.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp, if it advances with the media (telephone events' do not).
    pub timestamp: Option<u32>,
    /// Its clock in Hz.
    pub clock_rate: u32,
}

impl Reception {
    /// Counts a packet in.
    pub fn on_packet(&mut self, at: Now, arrival: Arrival) {
        self.packets += 1;
        self.first_packet_at.get_or_insert(at.wall);
        let goes_on = self.run.as_mut().is_some_and(|run| run.take(arrival));
        if !goes_on {
            self.lost_before += self.run.map_or(0, |run| run.lost());
            self.run = Some(Run::begin(arrival));
            self.last_timed = None;
        }
        if let Some(timestamp) = arrival.timestamp {
            self.update_jitter(at.mono, timestamp, arrival.clock_rate);
        }
    }

    /// Packets received, duplicates among them.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Packets expected and not received (RFC 3550 A.3), never negative.
    pub fn lost(&self) -> u64 {
        self.lost_before + self.run.map_or(0, |run| run.lost())
    }

    /// Interarrival jitter in ms.
    pub fn jitter_ms(&self) -> f64 {
        self.jitter_us / 1_000.0
    }

    /// When the first packet arrived.
    pub(super) fn first_packet_at(&self) -> Option<Wall> {
        self.first_packet_at
    }

    /// The extended form (RFC 3550 §6.4.1) of a recent sequence number of `ssrc`; `None` if another
    /// source is being received.
    pub(super) fn extend(&self, ssrc: u32, sequence: u16) -> Option<u32> {
        let run = self.run.filter(|run| run.ssrc == ssrc)?;
        let cycles = if sequence > run.max { run.cycles.saturating_sub(1) } else { run.cycles };
        Some((cycles as u32) << 16 | u32::from(sequence))
    }

    /// Mean opinion score, 1.0 to 4.5; `None` without packets.
    pub fn mean_opinion(&self, encoding: &str) -> Option<f64> {
        let expected = self.packets + self.lost();
        (self.packets > 0).then(|| {
            let loss_percent = 100.0 * self.lost() as f64 / expected as f64;
            opinion(rating(encoding, loss_percent, PACKET_MS + 2.0 * self.jitter_ms()))
        })
    }

    fn update_jitter(&mut self, at: Mono, timestamp: u32, clock_rate: u32) {
        if let Some((last_at, last_timestamp)) = self.last_timed {
            let arrived_us = at.0 as f64 - last_at.0 as f64;
            let ticks = f64::from(timestamp.wrapping_sub(last_timestamp) as i32);
            let meant_us = ticks * 1e6 / f64::from(clock_rate.max(1));
            let deviation_us = (arrived_us - meant_us).abs();
            // A jump of the sender's clock says nothing about the network.
            if deviation_us < 1e6 {
                self.jitter_us += (deviation_us - self.jitter_us) / 16.0;
            }
        }
        self.last_timed = Some((at, timestamp));
    }
}

impl Run {
    fn begin(arrival: Arrival) -> Self {
        let Arrival { ssrc, sequence, .. } = arrival;
        Self { ssrc, base: sequence, max: sequence, cycles: 0, received: 1 }
    }

    /// Counts a packet in; false if it belongs to another run.
    fn take(&mut self, arrival: Arrival) -> bool {
        let ahead = arrival.sequence.wrapping_sub(self.max);
        let late = self.max.wrapping_sub(arrival.sequence) <= MAX_MISORDER;
        if arrival.ssrc != self.ssrc || (ahead >= MAX_DROPOUT && !late) {
            return false;
        }
        if !late {
            self.cycles += u64::from(arrival.sequence < self.max);
            self.max = arrival.sequence;
        }
        self.received += 1;
        true
    }

    fn lost(&self) -> u64 {
        let expected = (self.cycles << 16) + u64::from(self.max) + 1;
        expected.saturating_sub(u64::from(self.base)).saturating_sub(self.received)
    }
}

/// G.107's transmission rating factor.
fn rating(encoding: &str, loss_percent: f64, delay_ms: f64) -> f64 {
    let (impairment, robustness) = if encoding == "G729" { (11.0, 19.0) } else { (0.0, 25.1) };
    let over = (delay_ms - 177.3).max(0.0);
    let delay = 0.024 * delay_ms + 0.11 * over;
    let equipment = impairment + (95.0 - impairment) * loss_percent / (loss_percent + robustness);
    93.2 - delay - equipment
}

/// G.107 annex B: from R to MOS.
fn opinion(r: f64) -> f64 {
    let r = r.clamp(0.0, 100.0);
    (1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).clamp(1.0, 4.5)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn receive(packets: impl IntoIterator<Item = (u64, u32, u16)>) -> Reception {
        let mut reception = Reception::default();
        for (ms, ssrc, sequence) in packets {
            let timestamp = Some(u32::from(sequence) * 160);
            let at = Now { mono: Mono::default().plus_ms(ms), wall: Wall(0) };
            reception.on_packet(at, Arrival { ssrc, sequence, timestamp, clock_rate: 8_000 });
        }
        reception
    }

    #[test]
    fn a_clean_stream_has_no_loss_no_jitter_and_the_best_score_g711_can_have() {
        let clean = receive((0..500).map(|n| (u64::from(n) * 20, 1, n)));
        assert_eq!((clean.packets(), clean.lost()), (500, 0));
        assert!(clean.jitter_ms() < 0.001);
        let score = clean.mean_opinion("PCMU").unwrap();
        assert!((4.35..4.45).contains(&score), "{score}");
    }

    #[test]
    fn every_missing_packet_counts_and_a_late_one_does_not() {
        let lossy = receive((0..100).filter(|n| n % 10 != 5).map(|n| (u64::from(n) * 20, 1, n)));
        assert_eq!(lossy.lost(), 10);
        let reordered = receive([(0, 1, 0), (20, 1, 2), (21, 1, 1), (60, 1, 3)]);
        assert_eq!(reordered.lost(), 0);
    }

    #[test]
    fn wrapping_numbers_are_no_loss() {
        let wrapped = receive((0..100u16).map(|n| (u64::from(n) * 20, 1, n.wrapping_sub(50))));
        assert_eq!(wrapped.lost(), 0);
        assert_eq!(wrapped.extend(1, 49), Some(65_585));
        assert_eq!(wrapped.extend(1, 65_535), Some(65_535));
        assert_eq!(wrapped.extend(2, 49), None);
    }

    #[test]
    fn a_new_source_or_a_leap_is_a_restart() {
        assert_eq!(receive([(0, 1, 10), (20, 2, 40_000), (40, 2, 40_001)]).lost(), 0);
        assert_eq!(receive([(0, 1, 10), (20, 1, 40_000), (40, 1, 40_002)]).lost(), 1);
    }

    #[test]
    fn duplicates_do_not_hide_below_zero() {
        assert_eq!(receive([(0, 1, 1), (0, 1, 1), (0, 1, 1), (20, 1, 3)]).lost(), 0);
    }

    #[test]
    fn jitter_tends_to_the_mean_deviation() {
        let jittered = receive((0..2_000u16).map(|n| (u64::from(n) * 20 + u64::from(n % 2) * 10, 1, n)));
        assert!((jittered.jitter_ms() - 10.0).abs() < 0.5, "{}", jittered.jitter_ms());
    }

    #[test]
    fn the_score_falls_with_loss_and_delay_and_stays_in_its_range() {
        let at = |loss, delay| opinion(rating("PCMU", loss, delay));
        assert!(at(0.0, 20.0) > at(1.0, 20.0) && at(1.0, 20.0) > at(10.0, 20.0));
        assert!(at(0.0, 20.0) > at(0.0, 400.0));
        assert!(opinion(rating("G729", 0.0, 20.0)) < at(0.0, 20.0));
        assert!((opinion(rating("PCMU", 100.0, 5_000.0)) - 1.0).abs() < f64::EPSILON);
        assert_eq!(Reception::default().mean_opinion("PCMU"), None);
    }
}
