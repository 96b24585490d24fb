//! What people sound like here: each a sine of its own, in µ-law, 20 ms at a time. All frequencies are
//! multiples of 50 Hz, so that every packet of one voice is alike, and keep away from the keys' tones.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::sync::LazyLock;

/// What parties sound like, in Hz: distinct within a seed.
pub(crate) const VOICES: [u32; 12] = [400, 500, 600, 1050, 1700, 1800, 1900, 2000, 2100, 2200, 2300, 2400];
/// What somebody sounds like who has no business here.
pub(crate) const STRANGER_HZ: u32 = 2_500;
/// The question, and the other notices.
pub(crate) const QUESTION_HZ: u32 = 2_700;
pub(crate) const NOTICE_HZ: u32 = 2_900;

const AMPLITUDE: f64 = 6_000.0;
/// A fraction of [`AMPLITUDE`] from which a voice counts as heard: 18 dB below.
const HEARD: f64 = 0.125;

static TONES: LazyLock<BTreeMap<u32, Vec<u8>>> = LazyLock::new(|| {
    let all = VOICES.into_iter().chain([STRANGER_HZ, QUESTION_HZ, NOTICE_HZ]);
    all.map(|hz| (hz, (0..160).map(|n| recorder::g711::to_ulaw(sample(hz, n))).collect())).collect()
});

/// One sample of a voice.
pub(crate) fn sample(hz: u32, n: u32) -> i16 {
    (AMPLITUDE * (TAU * f64::from(hz) * f64::from(n) / 8_000.0).sin()) as i16
}

/// A packet of a voice.
pub(crate) fn tone(hz: u32) -> Vec<u8> {
    TONES.get(&hz).cloned().unwrap_or_default()
}

/// The RFC 4733 event of a key.
pub(crate) fn event_of(key: char) -> u8 {
    match key {
        '*' => 10,
        '#' => 11,
        digit => digit as u8 - b'0',
    }
}

/// Whether a voice is in these samples (Goertzel under a Hann window).
pub(crate) fn is_heard(samples: &[i16], hz: u32) -> bool {
    let length = samples.len() as f64;
    let coefficient = 2.0 * (TAU * f64::from(hz) / 8_000.0).cos();
    let (mut one, mut two) = (0.0, 0.0);
    for (n, sample) in samples.iter().enumerate() {
        let window = 0.5 - 0.5 * (TAU * n as f64 / length).cos();
        let next = f64::from(*sample) * window + coefficient * one - two;
        two = one;
        one = next;
    }
    let power = one * one + two * two - coefficient * one * two;
    // Half of the window's mean is the gain of a sine.
    power.max(0.0).sqrt() / (length / 4.0) > AMPLITUDE * HEARD
}

/// A WAV file of one tone.
pub(crate) fn wav(hz: u32, ms: u32) -> Vec<u8> {
    let samples: Vec<u8> = (0..ms * 8).flat_map(|n| sample(hz, n % 160).to_le_bytes()).collect();
    let mut file = b"RIFF".to_vec();
    file.extend((36 + samples.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(8_000_u32.to_le_bytes());
    file.extend(16_000_u32.to_le_bytes());
    file.extend([2, 0, 16, 0]);
    file.extend(b"data");
    file.extend((samples.len() as u32).to_le_bytes());
    file.extend(samples);
    file
}
