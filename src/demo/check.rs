//! Whether the exported dispatch recording holds what was said, from the first packet to the last.
//!
//! The recording is read back as an ordinary player would (WAV), and compared with what the telephones sent
//! by their own clocks. Speech is found by normalised cross-correlation: 1 is the same waveform at whatever
//! volume, 0 nothing of it. The limits are those of the product's acceptance.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::Value;

use super::mu_law;
use super::scenario::Media;

/// The least correlation of a channel with its party's speech. Opus keeps speech at above 0.9.
const LEAST_CORRELATION: f64 = 0.85;

/// How far beginning, length, speech and the answer's offset may be off.
const TOLERANCE_MS: f64 = 100.0;

/// How far from its expected place speech is looked for.
const SEARCH: Duration = Duration::from_millis(300);

/// Telephony's samples in a second.
const SAMPLE_RATE: u32 = 8_000;

/// What was measured, for `demo.json` and the report.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    /// The first RTP packet, by the telephones' clock.
    first_rtp_at: String,
    /// From the first RTP packet to the end of the last.
    media_s: f64,
    /// From the first RTP packet to the answer.
    answered_after_s: f64,
    /// How much later than the first RTP packet the recording begins.
    begins_late_ms: f64,
    /// How much longer than the media the exported audio is.
    longer_ms: f64,
    /// How much later than the answer the first interval of phase `answered` begins; `None` without one.
    answer_late_ms: Option<f64>,
    /// Caller, called party.
    channels: Vec<Channel>,
}

/// One channel's speech.
#[derive(Debug, Serialize)]
pub(super) struct Channel {
    /// The file with what was said, beside the recording.
    played: String,
    /// When it was said, from the first RTP packet.
    spoken_after_s: f64,
    /// How much later it was found in the recording.
    late_ms: f64,
    correlation: f64,
}

/// Where a sound was found.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Found {
    place: usize,
    correlation: f64,
}

/// Compares the exported WAV and the recording's row with what the telephones sent.
pub(super) fn measure(wav: &Path, recording: &Value, media: &Media) -> anyhow::Result<Measured> {
    let channels = read_channels(wav)?;
    let [caller, called] = channels.as_slice() else {
        bail!("{} has {} channels, not one for each party", wav.display(), channels.len());
    };
    let media_s = media.last.duration_since(media.first).as_secs_f64();
    let answered_after_s = media.answered.duration_since(media.first).as_secs_f64();
    let started =
        recording.get("started_at").and_then(Value::as_str).context("the recording has no started_at")?;
    let started: jiff::Timestamp = started.parse().context("the recording's started_at")?;
    let first = timestamp(media.first_wall)?;
    let found = [caller, called].into_iter().zip(&media.spoken).map(|(channel, utterance)| {
        let played: Vec<i16> = utterance.clip.mu_law.iter().map(|&code| mu_law::to_linear(code)).collect();
        let after = utterance.began.duration_since(media.first);
        let expected = samples_in(after);
        let found = locate(channel, &played, expected, samples_in(SEARCH));
        Channel {
            played: super::played_file(utterance.clip),
            spoken_after_s: after.as_secs_f64(),
            late_ms: (found.place as f64 - expected as f64) * 1_000.0 / f64::from(SAMPLE_RATE),
            correlation: found.correlation,
        }
    });
    Ok(Measured {
        first_rtp_at: first.to_string(),
        media_s,
        answered_after_s,
        begins_late_ms: (started.as_microsecond() - first.as_microsecond()) as f64 / 1_000.0,
        longer_ms: (caller.len() as f64 / f64::from(SAMPLE_RATE) - media_s) * 1_000.0,
        answer_late_ms: answered_from(recording).map(|from_s| (from_s - answered_after_s) * 1_000.0),
        channels: found.collect(),
    })
}

impl Measured {
    /// What is not as it must be; nothing if all is well.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, channel) in ["caller", "called party"].iter().zip(&self.channels) {
            if channel.correlation < LEAST_CORRELATION {
                faults.push(format!(
                    "the {name}'s speech is in its channel with a correlation of {:.3}, under {LEAST_CORRELATION}",
                    channel.correlation
                ));
            }
        }
        let mut near = |what: &str, off_ms: f64| {
            if off_ms.abs() > TOLERANCE_MS {
                faults.push(format!("{what} is off by {off_ms:.0} ms, more than {TOLERANCE_MS:.0} ms"));
            }
        };
        near("the recording's beginning", self.begins_late_ms);
        near("the recording's length", self.longer_ms);
        // Where speech is not found, its place says nothing.
        for channel in self.channels.iter().filter(|channel| channel.correlation >= LEAST_CORRELATION) {
            near("speech in the recording", channel.late_ms);
        }
        match self.answer_late_ms {
            Some(off_ms) => near("the answer's offset in the intervals", off_ms),
            None => faults.push("no interval of the recording begins with the answer".to_owned()),
        }
        faults
    }

    /// The figures in a sentence.
    pub(super) fn sentence(&self) -> String {
        let correlations: Vec<_> =
            self.channels.iter().map(|channel| format!("{:.2}", channel.correlation)).collect();
        format!(
            "The exported file holds what both said (correlation {}), begins {:+.0} ms from the first RTP packet, \
             is {:+.0} ms from as long as the media's {:.1} s, and marks the answer at {:.2} s.",
            correlations.join(" and "),
            self.begins_late_ms,
            self.longer_ms,
            self.media_s,
            self.answered_after_s + self.answer_late_ms.unwrap_or(0.0) / 1_000.0,
        )
    }
}

/// The wall clock for JSON.
pub(super) fn timestamp(at: SystemTime) -> anyhow::Result<jiff::Timestamp> {
    jiff::Timestamp::try_from(at).context("the wall clock is out of range")
}

fn samples_in(time: Duration) -> usize {
    usize::try_from(time.as_micros() * u128::from(SAMPLE_RATE) / 1_000_000).unwrap_or(usize::MAX)
}

/// Where the first interval of the conversation begins, in seconds.
fn answered_from(recording: &Value) -> Option<f64> {
    let intervals = recording.get("intervals")?.as_array()?;
    let answered = intervals.iter().find(|interval| interval["phase"] == "answered")?;
    answered.get("from_s")?.as_f64()
}

/// The channels of a 16-bit WAV at 8 kHz.
fn read_channels(wav: &Path) -> anyhow::Result<Vec<Vec<i16>>> {
    let mut reader = hound::WavReader::open(wav).with_context(|| format!("cannot read {}", wav.display()))?;
    let spec = reader.spec();
    if spec.sample_rate != SAMPLE_RATE || spec.bits_per_sample != 16 || spec.channels == 0 {
        bail!("{} is not 16 bits at {SAMPLE_RATE} Hz", wav.display());
    }
    let samples = reader.samples::<i16>().collect::<Result<Vec<_>, _>>()?;
    let count = usize::from(spec.channels);
    Ok((0..count).map(|channel| samples.iter().skip(channel).step_by(count).copied().collect()).collect())
}

/// The place within `search` samples of `expected` at which `played` correlates best with `recorded`.
fn locate(recorded: &[i16], played: &[i16], expected: usize, search: usize) -> Found {
    let energy: f64 = played.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    let places = expected.saturating_sub(search)..=expected.saturating_add(search);
    places
        .filter_map(|place| Some((place, recorded.get(place..place.checked_add(played.len())?)?)))
        .map(|(place, window)| Found { place, correlation: correlation(window, played, energy) })
        .max_by(|a, b| a.correlation.total_cmp(&b.correlation))
        .unwrap_or(Found { place: expected, correlation: 0.0 })
}

fn correlation(window: &[i16], played: &[i16], played_energy: f64) -> f64 {
    let (mut product, mut energy) = (0_i64, 0_i64);
    for (&heard, &said) in window.iter().zip(played) {
        product += i64::from(heard) * i64::from(said);
        energy += i64::from(heard) * i64::from(heard);
    }
    let norm = (energy as f64 * played_energy).sqrt();
    if norm > 0.0 { product as f64 / norm } else { 0.0 }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Instant;

    use super::super::scenario::Utterance;
    use super::super::speech::{self, Clip};
    use super::*;

    /// The clips' beginnings: enough to find, and soon compared.
    fn clips() -> [Clip; 2] {
        [speech::DISPATCH_CALLER, speech::DISPATCH_OFFICER]
            .map(|clip| Clip { name: clip.name, mu_law: &clip.mu_law[4_000..8_000] })
    }

    /// What a perfect recorder would keep of both parties, delayed by `late` samples.
    fn recorded(dir: &Path, late: usize, swap: bool) -> std::path::PathBuf {
        let clips = clips();
        let starts = [8_000 + late, 60_000 + late];
        let mut channels = [vec![0_i16; 120_000], vec![0_i16; 120_000]];
        for party in 0..2 {
            let heard: Vec<i16> =
                clips[party].mu_law.iter().map(|&code| mu_law::to_linear(code) / 2).collect();
            let channel = if swap { 1 - party } else { party };
            channels[channel][starts[party]..starts[party] + heard.len()].copy_from_slice(&heard);
        }
        let file = dir.join(format!("{late}-{swap}.wav"));
        let spec = hound::WavSpec {
            channels: 2,
            sample_rate: SAMPLE_RATE,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(&file, spec).unwrap();
        for (a, b) in channels[0].iter().zip(&channels[1]) {
            writer.write_sample(*a).unwrap();
            writer.write_sample(*b).unwrap();
        }
        writer.finalize().unwrap();
        file
    }

    fn media() -> Media {
        let [caller, called] = clips();
        let first = Instant::now();
        let at = |ms| first + Duration::from_millis(ms);
        Media {
            first,
            first_wall: SystemTime::UNIX_EPOCH + Duration::from_millis(1_000),
            last: at(15_000),
            answered: at(1_000),
            spoken: [
                Utterance { clip: caller, began: at(1_000) },
                Utterance { clip: called, began: at(7_500) },
            ],
        }
    }

    fn row(started_at: &str, answered_s: f64) -> Value {
        serde_json::json!({ "started_at": started_at, "intervals": [
            { "from_s": 0.0, "to_s": answered_s, "phase": "early-media" },
            { "from_s": answered_s, "to_s": 15.0, "phase": "answered" },
        ]})
    }

    #[test]
    fn a_faithful_recording_has_no_faults() {
        let dir = tempfile::tempdir().unwrap();
        let wav = recorded(dir.path(), 160, false);
        let measured = measure(&wav, &row("1970-01-01T00:00:01.020Z", 1.01), &media()).unwrap();
        assert_eq!(measured.faults(), Vec::<String>::new());
        assert!((measured.begins_late_ms - 20.0).abs() < 0.01);
        assert!(measured.channels.iter().all(|c| c.correlation > 0.999 && (c.late_ms - 20.0).abs() < 0.2));
    }

    #[test]
    fn swapped_parties_a_late_beginning_and_a_missing_answer_are_faults() {
        let dir = tempfile::tempdir().unwrap();
        let wav = recorded(dir.path(), 0, true);
        let late = measure(&wav, &row("1970-01-01T00:00:01.200Z", 1.3), &media()).unwrap();
        let faults = late.faults();
        assert_eq!(faults.len(), 4, "{faults:?}");
        let unmarked =
            measure(&wav, &serde_json::json!({"started_at": "1970-01-01T00:00:01Z"}), &media()).unwrap();
        assert!(unmarked.faults().iter().any(|fault| fault.contains("no interval")));
    }

    #[test]
    fn speech_in_the_wrong_place_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        let wav = recorded(dir.path(), 1_000, false);
        let measured = measure(&wav, &row("1970-01-01T00:00:01Z", 1.0), &media()).unwrap();
        assert_eq!(measured.faults().len(), 2, "{:?}", measured.faults());
    }

    #[test]
    fn silence_and_a_recording_too_short_correlate_with_nothing() {
        assert_eq!(locate(&[0; 100], &[1, 2, 3], 10, 5).correlation, 0.0);
        assert_eq!(locate(&[7; 4], &[7; 9], 0, 5), Found { place: 0, correlation: 0.0 });
    }
}
