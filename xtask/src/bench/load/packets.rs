//! RTP both ways in calls: a packet every 20 ms from each party of each call.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::bind;
use crate::steps::Failure;

/// A packet's time is cut into this many parts, so that calls do not all speak at the same instant.
const PARTS: u32 = 4;
const PACKET_TIME: Duration = Duration::from_millis(20);
const FRAME: usize = 160;
/// What is sent has come by then, or never will.
const IN_FLIGHT: Duration = Duration::from_millis(100);

/// RTP both ways in all calls until stopped.
pub(in crate::bench) struct Packets {
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    /// Ends the one who speaks, and those who count.
    ended: [Arc<AtomicBool>; 2],
    speaking: JoinHandle<()>,
    counting: Vec<JoinHandle<()>>,
}

impl Packets {
    /// Each side: its own RTP address, and where it sends to.
    pub(in crate::bench) fn start(
        caller: &(SocketAddr, Vec<SocketAddr>),
        callee: &(SocketAddr, Vec<SocketAddr>),
    ) -> Result<Self, Failure> {
        let [sent, received] = [0, 0].map(|zero| Arc::new(AtomicU64::new(zero)));
        let ended = [false, false].map(|no| Arc::new(AtomicBool::new(no)));
        let mut counting = Vec::new();
        let mut sides = Vec::new();
        for (own, targets) in [caller, callee] {
            let socket = Arc::new(bind(*own)?);
            sides.push((Arc::clone(&socket), targets.clone()));
            let (received, ended) = (Arc::clone(&received), Arc::clone(&ended[1]));
            counting.push(std::thread::spawn(move || count(&socket, &received, &ended)));
        }
        let (counter, stop) = (Arc::clone(&sent), Arc::clone(&ended[0]));
        let speaking = std::thread::spawn(move || speak(&sides, &counter, &stop));
        Ok(Self { sent, received, ended, speaking, counting })
    }

    pub(in crate::bench) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(in crate::bench) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Stops; how many packets were sent and how many came.
    pub(in crate::bench) fn stop(self) -> (u64, u64) {
        self.ended[0].store(true, Ordering::Relaxed);
        // A panic in a thread has already been printed.
        let _ = self.speaking.join();
        std::thread::sleep(IN_FLIGHT);
        self.ended[1].store(true, Ordering::Relaxed);
        for thread in self.counting {
            let _ = thread.join();
        }
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}

fn count(socket: &UdpSocket, received: &AtomicU64, ended: &AtomicBool) {
    let mut buffer = [0; 2_048];
    while !ended.load(Ordering::Relaxed) {
        if socket.recv_from(&mut buffer).is_ok() {
            received.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn speak(sides: &[(Arc<UdpSocket>, Vec<SocketAddr>)], sent: &AtomicU64, ended: &AtomicBool) {
    let voice = voice();
    let mut due = Instant::now();
    let mut tick = 0_u32;
    while !ended.load(Ordering::Relaxed) {
        due += PACKET_TIME / PARTS;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let sequence = tick / PARTS;
        let start = sequence as usize * FRAME % voice.len();
        for (socket, targets) in sides {
            for (call, target) in (0_u32..).zip(targets).filter(|(call, _)| call % PARTS == tick % PARTS) {
                let packet = rtp(sequence, call, &voice[start..start + FRAME]);
                sent.fetch_add(u64::from(socket.send_to(&packet, target).is_ok()), Ordering::Relaxed);
            }
        }
        tick += 1;
    }
}

/// A packet of RFC 3550 §5.1 with µ-law.
fn rtp(sequence: u32, call: u32, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&(sequence as u16).to_be_bytes());
    packet.extend_from_slice(&sequence.wrapping_mul(FRAME as u32).to_be_bytes());
    packet.extend_from_slice(&(0xBE00_0000 | call).to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// A second of something like a vowel, louder and softer four times, so that the encoder has work to do.
fn voice() -> Vec<u8> {
    let sample = |at: u32| {
        let time = f64::from(at) / 8_000.0;
        let tone = |hz: f64| (std::f64::consts::TAU * hz * time).sin();
        let vowel: f64 =
            (1..16).map(|harmonic| tone(140.0 * f64::from(harmonic)) / f64::from(harmonic)).sum();
        (vowel * (1.2 + tone(4.0)) * 3_000.0) as i16
    };
    (0..8_000).map(|at| ulaw(sample(at))).collect()
}

/// µ-law of ITU-T G.711.
fn ulaw(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = (i32::from(sample).abs() + 0x84).min(0x7FFF);
    let exponent = 7 - magnitude.leading_zeros().saturating_sub(17).min(7);
    let mantissa = (magnitude >> (exponent + 3)) & 0x0F;
    !(sign | (exponent << 4) as u8 | mantissa as u8)
}
