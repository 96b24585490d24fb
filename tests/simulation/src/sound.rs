//! What people sound like here: each a sine of its own, in µ-law, 20 ms at a time. All frequencies are
//! multiples of 50 Hz, so that every packet of one voice is alike, and keep away from the keys' tones. The
//! µ-law is the demonstration's: the recorder's is what it checks.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::sync::LazyLock;

use earmark::demo::mu_law;

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
/// A fraction of the strongest tone below which another is its shadow.
const DOMINANT: f64 = 0.6;
/// ITU-T Q.23, but for the column that no telephone here has.
const KEYS_HZ: [u32; 7] = [697, 770, 852, 941, 1_209, 1_336, 1_477];

static TONES: LazyLock<BTreeMap<u32, Vec<u8>>> = LazyLock::new(|| {
    let all = VOICES.into_iter().chain([STRANGER_HZ, QUESTION_HZ, NOTICE_HZ]);
    all.map(|hz| (hz, (0..160).map(|n| mu_law::from_linear(sample(hz, n))).collect())).collect()
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

/// Whether a tone is in these samples.
pub(crate) fn is_heard(samples: &[i16], hz: u32) -> bool {
    strength(samples, hz) > AMPLITUDE * HEARD
}

/// Whether somebody speaks all the time in these samples: what begins, breaks off or is lost within has no clear
/// pitch. Two voices beat within 10 ms, so their sum is as even as one. A decoder rings into what was lost.
pub(crate) fn is_steady(samples: &[i16]) -> bool {
    let peaks = samples.chunks(80).map(|part| part.iter().map(|s| s.unsigned_abs()).max().unwrap_or(0));
    let (weakest, strongest) = peaks.fold((u16::MAX, 0), |(low, high), peak| (low.min(peak), high.max(peak)));
    weakest >= 1_500.max(strongest / 2)
}

/// The voices in these samples. One that is weaker than another tone beside it does not count: a tone that
/// begins or ends within the samples has a shadow on its neighbours.
pub(crate) fn voices(samples: &[i16]) -> Vec<u32> {
    let voices = VOICES.into_iter().chain([STRANGER_HZ]);
    let heard: Vec<(u32, f64)> = voices.map(|hz| (hz, strength(samples, hz))).collect();
    let others = KEYS_HZ.into_iter().chain([QUESTION_HZ, NOTICE_HZ]).map(|hz| strength(samples, hz));
    let strongest = heard.iter().map(|(_, strength)| *strength).chain(others).fold(0.0, f64::max);
    let counts = |strength: f64| strength > AMPLITUDE * HEARD && strength > strongest * DOMINANT;
    heard.into_iter().filter(|(_, strength)| counts(*strength)).map(|(hz, _)| hz).collect()
}

/// The amplitude of a sine in these samples (Goertzel under a Hann window).
fn strength(samples: &[i16], hz: u32) -> f64 {
    let length = samples.len() as f64;
    let coefficient = 2.0 * (TAU * f64::from(hz) / 8_000.0).cos();
    let (mut one, mut two) = (0.0, 0.0);
    for (sample, window) in samples.iter().zip(hann(samples.len())) {
        let next = f64::from(*sample) * window + coefficient * one - two;
        two = one;
        one = next;
    }
    let power = one * one + two * two - coefficient * one * two;
    // Half of the window's mean is the gain of a sine.
    power.max(0.0).sqrt() / (length / 4.0)
}

fn hann(length: usize) -> &'static [f64] {
    static WINDOWS: LazyLock<[Vec<f64>; 2]> = LazyLock::new(|| {
        [160, 320].map(|length| {
            (0..length).map(|n| 0.5 - 0.5 * (TAU * f64::from(n) / f64::from(length)).cos()).collect()
        })
    });
    &WINDOWS[usize::from(length > 160)]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn window(sample_at: impl Fn(u32) -> i16) -> Vec<i16> {
        (0..320).map(sample_at).collect()
    }

    #[test]
    fn voices_are_steady_alone_and_together_and_a_voice_broken_off_is_not() {
        for hz in VOICES {
            assert!(is_steady(&window(|n| sample(hz, n))), "{hz}");
            for (other, louder) in
                VOICES.into_iter().filter(|other| *other != hz).flat_map(|o| [(o, 1), (o, 8)])
            {
                let both = window(|n| sample(hz, n) + sample(other, n) / louder);
                assert!(is_steady(&both), "{hz} and {other}");
                assert_eq!(voices(&both).contains(&other), louder == 1, "{hz} and {other}");
            }
            let lost = window(|n| if (72..232).contains(&n) { sample(hz, n) / 3 } else { sample(hz, n) });
            assert!(!is_steady(&lost), "{hz}");
        }
    }
}
