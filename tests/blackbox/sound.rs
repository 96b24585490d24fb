//! Sounds that survive a telephone codec, and how to find them again: G.711 µ-law (ITU-T G.711), tone
//! ladders, Goertzel's filter, correlation.

/// Samples a second of everything here.
pub(crate) const RATE: usize = 8_000;
/// One step of a ladder: 200 ms.
const STEP_SAMPLES: usize = RATE / 5;
/// Steps of a ladder; after the last it begins anew.
const STEPS: usize = 25;
const STEP_HZ: f64 = 40.0;
/// Length of the windows in which a ladder is looked for: 50 ms. With steps of 40 Hz a window that stands
/// across two of them still has half of its energy in their two frequencies, wherever the cut lies.
const WINDOW: usize = RATE / 20;
/// Share of a window's energy that its step and the louder neighbour must hold.
const LEAST_SHARE: f64 = 0.4;
/// Windows in order that make a ladder; a vowel of a prompt may look like one or two.
const LEAST_RUN: usize = 8;

/// Lowest tone of the ladder that callers speak.
pub(crate) const LADDER_A_HZ: f64 = 400.0;
/// Lowest tone of the ladder that callees speak; clear of all of A's.
pub(crate) const LADDER_B_HZ: f64 = 1_600.0;
/// Whole rounds of a ladder, so that it may be spoken over and over.
pub(crate) const LADDER_S: f64 = 20.0;

/// One sample, compressed.
pub(crate) fn ulaw_encode(sample: i16) -> u8 {
    const BIAS: i32 = 0x84;
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = (i32::from(sample).abs() + BIAS).min(0x7FFF);
    let exponent = (7 - (magnitude.leading_zeros().saturating_sub(17)).min(7)) as u8;
    let mantissa = ((magnitude >> (exponent + 3)) & 0x0F) as u8;
    !(sign | (exponent << 4) | mantissa)
}

/// One sample, expanded.
pub(crate) fn ulaw_decode(code: u8) -> i16 {
    let code = !code;
    let exponent = (code >> 4) & 0x07;
    let magnitude = (((i32::from(code & 0x0F) << 3) + 0x84) << exponent) - 0x84;
    (if code & 0x80 == 0 { magnitude } else { -magnitude }) as i16
}

/// A ladder of tones in linear samples: 40 Hz higher every 200 ms, over and over.
pub(crate) fn ladder(base_hz: f64, seconds: f64) -> Vec<i16> {
    let mut phase = 0.0_f64;
    (0..(seconds * RATE as f64) as usize)
        .map(|at| {
            let step = (at / STEP_SAMPLES) % STEPS;
            phase += std::f64::consts::TAU * (base_hz + STEP_HZ * step as f64) / RATE as f64;
            (phase.sin() * 8_000.0) as i16
        })
        .collect()
}

/// What was found of a ladder in a recording.
#[derive(Debug)]
pub(crate) struct LadderFound {
    /// Windows (50 ms) in which a step of the ladder prevails.
    pub(crate) on: usize,
    /// Of the windows from the first to the last of those, how many are anything else.
    pub(crate) off: usize,
    /// Times at which the ladder jumped.
    pub(crate) breaks: usize,
    /// Seconds from the start of the recording to each run of more than one window that is anything else.
    pub(crate) wounds_s: Vec<f64>,
    /// Seconds from the start of the recording to the first window on the ladder.
    pub(crate) from_s: f64,
    /// Seconds from the start of the recording to the end of the last.
    pub(crate) to_s: f64,
}

impl LadderFound {
    /// Seconds of audio on the ladder.
    pub(crate) fn seconds(&self) -> f64 {
        self.on as f64 * WINDOW as f64 / RATE as f64
    }
}

/// Looks for the ladder that begins at `base_hz`.
pub(crate) fn find_ladder(samples: &[i16], base_hz: f64) -> LadderFound {
    let steps = samples.chunks_exact(WINDOW).map(|window| ladder_step(window, base_hz)).collect();
    let steps = without_short_runs(steps);
    let first = steps.iter().position(Option::is_some).unwrap_or(steps.len());
    let last = steps.iter().rposition(Option::is_some).map_or(first, |last| last + 1);
    let within = steps.get(first..last).unwrap_or_default();
    let on: Vec<usize> = within.iter().flatten().copied().collect();
    let seconds = |window: usize| (window * WINDOW) as f64 / RATE as f64;
    let is_wound = |at: &usize| {
        let is_off = |at: Option<usize>| at.and_then(|at| within.get(at)).is_some_and(Option::is_none);
        is_off(Some(*at)) && is_off(Some(at + 1)) && !is_off(at.checked_sub(1))
    };
    let wounds_s = (0..within.len()).filter(is_wound).map(|at| seconds(first + at)).collect();
    LadderFound {
        on: on.len(),
        off: within.len() - on.len(),
        breaks: on.windows(2).filter(|pair| !in_order(pair[0], pair[1])).count(),
        wounds_s,
        from_s: seconds(first),
        to_s: seconds(last),
    }
}

fn in_order(step: usize, next: usize) -> bool {
    next == step || next == (step + 1) % STEPS
}

/// Forgets steps that do not belong to a run of at least [`LEAST_RUN`] windows in order.
fn without_short_runs(mut steps: Vec<Option<usize>>) -> Vec<Option<usize>> {
    let mut start = 0;
    for at in 0..steps.len() {
        let goes_on = match (steps[at], steps.get(at + 1).copied().flatten()) {
            (Some(step), Some(next)) => in_order(step, next),
            _ => false,
        };
        if !goes_on {
            if at + 1 - start < LEAST_RUN {
                steps[start..=at].fill(None);
            }
            start = at + 1;
        }
    }
    steps
}

/// The step that prevails in a window.
fn ladder_step(window: &[i16], base_hz: f64) -> Option<usize> {
    let energy: f64 = window.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    if energy < 10_000.0 * window.len() as f64 {
        return None;
    }
    let at = |step: usize| goertzel(window, base_hz + STEP_HZ * step as f64);
    let powers: Vec<f64> = (0..STEPS).map(at).collect();
    let best = (0..STEPS).max_by(|a, b| powers[*a].total_cmp(&powers[*b]))?;
    let below = best.checked_sub(1).map_or(0.0, |step| powers[step]);
    let above = powers.get(best + 1).copied().unwrap_or(0.0);
    let share = (powers[best] + below.max(above)) / (energy * window.len() as f64 / 2.0);
    (share > LEAST_SHARE).then_some(best)
}

/// Power of `samples` at `hz`.
pub(crate) fn goertzel(samples: &[i16], hz: f64) -> f64 {
    let factor = 2.0 * (std::f64::consts::TAU * hz / RATE as f64).cos();
    let (mut last, mut before) = (0.0_f64, 0.0_f64);
    for sample in samples {
        let next = f64::from(*sample) + factor * last - before;
        before = last;
        last = next;
    }
    last * last + before * before - factor * last * before
}

/// Whether key 1 (697 and 1209 Hz) sounds anywhere in `samples`.
pub(crate) fn key_one_sounds(samples: &[i16]) -> bool {
    samples.chunks_exact(RATE / 25).any(|window| {
        let energy: f64 = window.iter().map(|sample| f64::from(*sample).powi(2)).sum();
        let total = energy * window.len() as f64 / 2.0;
        let (low, high) = (goertzel(window, 697.0), goertzel(window, 1_209.0));
        energy > 100_000.0 * window.len() as f64 && (low + high) / total > 0.6 && low.min(high) / total > 0.1
    })
}

/// Root mean square.
pub(crate) fn loudness(samples: &[i16]) -> f64 {
    let energy: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    (energy / samples.len().max(1) as f64).sqrt()
}

/// The lag (in samples, within `lags`) at which `needle` fits best into `hay`, and the normalised
/// correlation there. A lag says where the needle's first sample lies in the hay.
pub(crate) fn correlate(needle: &[i16], hay: &[i16], lags: std::ops::Range<i64>) -> (i64, f64) {
    let mut best = (0, 0.0);
    for lag in lags {
        let value = correlation_at(needle, hay, lag);
        if value > best.1 {
            best = (lag, value);
        }
    }
    best
}

fn correlation_at(needle: &[i16], hay: &[i16], lag: i64) -> f64 {
    let (mut product, mut needle_energy, mut hay_energy) = (0.0_f64, 0.0_f64, 0.0_f64);
    for (at, sample) in needle.iter().enumerate() {
        let other = usize::try_from(lag + at as i64).ok().and_then(|at| hay.get(at)).copied().unwrap_or(0);
        let (sample, other) = (f64::from(*sample), f64::from(other));
        product += sample * other;
        needle_energy += sample * sample;
        hay_energy += other * other;
    }
    let scale = (needle_energy * hay_energy).sqrt();
    if scale > 0.0 { product / scale } else { 0.0 }
}

/// The channels of a WAV file with 16-bit samples.
pub(crate) fn read_wav(path: &std::path::Path) -> Vec<Vec<i16>> {
    let mut reader = hound::WavReader::open(path).expect("a WAV file");
    let spec = reader.spec();
    assert_eq!((spec.sample_rate as usize, spec.bits_per_sample), (RATE, 16), "{}", path.display());
    let mut channels = vec![Vec::new(); usize::from(spec.channels)];
    // A dump whose writer was killed has a length of 0 in its header and ends where the file ends.
    for (at, sample) in reader.samples::<i16>().map_while(Result::ok).enumerate() {
        channels[at % usize::from(spec.channels)].push(sample);
    }
    channels
}

/// Writes one channel as a WAV file.
pub(crate) fn write_wav(path: &std::path::Path, samples: &[i16]) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: RATE as u32,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).expect("a new WAV file");
    for sample in samples {
        writer.write_sample(*sample).expect("room for a sample");
    }
    writer.finalize().expect("a whole WAV file");
}

#[test]
fn ulaw_is_that_of_g711() {
    // The table's corners: silence, and the loudest of either sign.
    assert_eq!([0x00, 0x80, 0xFF, 0x7F].map(ulaw_decode), [-32_124, 32_124, 0, 0]);
    for code in 0..=u8::MAX {
        let expected = if code == 0x7F { 0xFF } else { code };
        assert_eq!(ulaw_encode(ulaw_decode(code)), expected);
    }
}

#[test]
fn a_ladder_is_found_whole_and_its_wounds_are_seen() {
    let sound = ladder(LADDER_A_HZ, 8.0);
    let whole = find_ladder(&sound, LADDER_A_HZ);
    assert!(whole.breaks == 0 && whole.off <= 2 && whole.on >= 158, "{whole:?}");
    assert_eq!(find_ladder(&sound, LADDER_B_HZ).on, 0, "the other ladder is another sound");
    let cut = [&sound[..16_000], &sound[24_000..]].concat();
    assert_eq!(find_ladder(&cut, LADDER_A_HZ).breaks, 1);
    let hushed = [&sound[..16_000], &[0; 8_000], &sound[24_000..]].concat();
    let hushed = find_ladder(&hushed, LADDER_A_HZ);
    assert!(hushed.off >= 18 && hushed.wounds_s == [2.0], "{hushed:?}");
}
