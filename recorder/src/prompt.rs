//! What the gateway says to a party: notices in the district's languages, in both laws of G.711.
//!
//! Read once at start. Each notice is one piece of audio: its languages in their order, with
//! `PAUSE_MS` between them. Files are RIFF WAVE, 8 kHz mono, 16-bit PCM or µ-law; nothing is resampled.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use consent::Notice;
use sha2::{Digest, Sha256};

use crate::g711;

/// Every notice, in the order in which a [`PromptSet`] holds them.
pub const NOTICES: [Notice; 4] = [Notice::Question, Notice::Recording, Notice::NotRecording, Notice::Stopped];

/// Between two languages: long enough to be heard as the end of a sentence.
const PAUSE_MS: usize = 400;
/// Samples in a millisecond at 8 kHz.
const SAMPLES_PER_MS: usize = 8;
/// A minute of 16-bit audio and its headers: nobody listens to a longer question.
const MAX_FILE_BYTES: u64 = 1_000_000;
/// `WAVE_FORMAT_PCM` of mmreg.h.
const FORMAT_PCM: u16 = 1;
/// `WAVE_FORMAT_MULAW` of mmreg.h.
const FORMAT_ULAW: u16 = 7;

macro_rules! built_in {
    ($($file:literal),+ $(,)?) => {
        [$(($file, include_bytes!(concat!("../prompts/", $file)).as_slice())),+]
    };
}

/// The notices inside the program; their text and making are in `recorder/prompts/`.
const BUILT_IN: [(&str, &[u8]); 8] = built_in!(
    "question.en.wav",
    "question.es.wav",
    "recording.en.wav",
    "recording.es.wav",
    "not-recording.en.wav",
    "not-recording.es.wav",
    "stopped.en.wav",
    "stopped.es.wav",
);

/// All notices, ready to be sent.
#[derive(Debug)]
pub struct PromptSet {
    prompts: [Arc<Prompt>; NOTICES.len()],
}

/// One notice in all languages.
#[derive(Debug)]
pub struct Prompt {
    ulaw: Vec<u8>,
    alaw: Vec<u8>,
    recordings: Vec<PromptRecording>,
}

/// A file that a prompt was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptRecording {
    /// What it says.
    pub notice: Notice,
    /// Language tag, as in the configuration (`en`).
    pub language: String,
    /// The district's file; `None` for the program's own.
    pub file: Option<PathBuf>,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
}

/// Four letters and what they head.
type Chunk<'a> = ([u8; 4], &'a [u8]);

/// Why the prompts cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// A file is there but cannot be read.
    #[error("cannot read the prompt {}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("the prompt {} cannot be used", file.display())]
    Unusable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: WavError,
    },
    /// There is neither a district's file nor a built-in one.
    #[error("there is no prompt {file}: put one, 8 kHz mono WAV, into the prompt folder")]
    Missing {
        /// The name it should have.
        file: String,
    },
}

/// Why a WAV file is of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WavError {
    /// Too long.
    #[error("it is longer than {MAX_FILE_BYTES} bytes, about a minute")]
    TooLong,
    /// Not RIFF WAVE, or a chunk ends after the file.
    #[error("it is not a whole RIFF WAVE file")]
    NotWave,
    /// Another encoding, rate or number of channels.
    #[error(
        "it must be 8000 Hz, 1 channel, 16-bit PCM (format 1) or µ-law (format 7), but is {rate_hz} Hz, \
         {channels} channels, {bits} bits, format {format}"
    )]
    Format {
        /// Format tag.
        format: u16,
        /// Number of channels.
        channels: u16,
        /// Sampling rate.
        rate_hz: u32,
        /// Bits per sample.
        bits: u16,
    },
    /// No audio in it.
    #[error("it holds no audio")]
    Empty,
}

impl PromptSet {
    /// Reads all notices in `languages`, in their order. A file `<notice>.<language>.wav` in `folder`
    /// stands in for the built-in one (`en` and `es`; any other language needs its files).
    ///
    /// # Errors
    ///
    /// The first file that is missing, unreadable or not in the right format.
    pub fn load(folder: Option<&Path>, languages: &[String]) -> Result<Self, PromptError> {
        let [question, recording, not_recording, stopped] = NOTICES;
        let load = |notice| Prompt::load(notice, folder, languages).map(Arc::new);
        Ok(Self { prompts: [load(question)?, load(recording)?, load(not_recording)?, load(stopped)?] })
    }

    /// The notice's audio.
    #[must_use]
    pub fn prompt(&self, notice: Notice) -> &Arc<Prompt> {
        &self.prompts[index_of(notice)]
    }

    /// Every file in use.
    pub fn recordings(&self) -> impl Iterator<Item = &PromptRecording> {
        self.prompts.iter().flat_map(|prompt| &prompt.recordings)
    }
}

impl Prompt {
    /// µ-law, one octet a sample at 8 kHz.
    #[must_use]
    pub fn ulaw(&self) -> &[u8] {
        &self.ulaw
    }

    /// A-law, one octet a sample at 8 kHz.
    #[must_use]
    pub fn alaw(&self) -> &[u8] {
        &self.alaw
    }

    /// Its length.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        (self.ulaw.len() / SAMPLES_PER_MS) as u64
    }

    fn load(notice: Notice, folder: Option<&Path>, languages: &[String]) -> Result<Self, PromptError> {
        let mut samples = Vec::new();
        let mut recordings = Vec::new();
        for language in languages {
            if !samples.is_empty() {
                samples.resize(samples.len() + PAUSE_MS * SAMPLES_PER_MS, 0);
            }
            let name = format!("{}.{language}.wav", name_of(notice));
            let (file, bytes) = find(folder, &name)?;
            let unusable = |source| PromptError::Unusable {
                file: file.clone().unwrap_or_else(|| PathBuf::from(&name)),
                source,
            };
            samples.extend(samples_of(&bytes).map_err(unusable)?);
            let sha256 = hex::encode(Sha256::digest(&bytes));
            recordings.push(PromptRecording { notice, language: language.clone(), file, sha256 });
        }
        let ulaw = samples.iter().map(|sample| g711::to_ulaw(*sample)).collect();
        let alaw = samples.iter().map(|sample| g711::to_alaw(*sample)).collect();
        Ok(Self { ulaw, alaw, recordings })
    }
}

/// The district's file if it has one, else the built-in one.
fn find(folder: Option<&Path>, name: &str) -> Result<(Option<PathBuf>, Vec<u8>), PromptError> {
    if let Some(folder) = folder {
        let file = folder.join(name);
        match read_bounded(&file) {
            Ok(bytes) => return Ok((Some(file), bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(PromptError::Unreadable { file, source }),
        }
    }
    let built_in = BUILT_IN.iter().find(|(file, _)| *file == name);
    let (_, bytes) = built_in.ok_or_else(|| PromptError::Missing { file: name.to_owned() })?;
    Ok((None, bytes.to_vec()))
}

/// One byte over the limit is enough to know that the file is too long.
fn read_bounded(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(file)?, MAX_FILE_BYTES + 1), &mut bytes)?;
    Ok(bytes)
}

/// The audio of a WAV file as linear samples.
fn samples_of(file: &[u8]) -> Result<Vec<i16>, WavError> {
    if file.len() as u64 > MAX_FILE_BYTES {
        return Err(WavError::TooLong);
    }
    let chunks = chunks_of(file)?;
    let body_of = |name: &[u8; 4]| {
        chunks.iter().find(|(id, _)| id == name).map(|(_, body)| *body).ok_or(WavError::NotWave)
    };
    let law = format_of(body_of(b"fmt ")?)?;
    let audio = body_of(b"data")?;
    let samples: Vec<i16> = match law {
        FORMAT_ULAW => audio.iter().map(|octet| g711::from_ulaw(*octet)).collect(),
        _ => audio.as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect(),
    };
    if samples.is_empty() { Err(WavError::Empty) } else { Ok(samples) }
}

/// The chunks of a RIFF WAVE file; a chunk that the file cuts short ends the list.
fn chunks_of(file: &[u8]) -> Result<Vec<Chunk<'_>>, WavError> {
    let mut rest = match (file.get(..4), file.get(8..12)) {
        (Some(b"RIFF"), Some(b"WAVE")) => &file[12..],
        _ => return Err(WavError::NotWave),
    };
    let mut chunks = Vec::new();
    while let Some((chunk, after)) = split_chunk(rest) {
        chunks.push(chunk);
        rest = after;
    }
    Ok(chunks)
}

fn split_chunk(bytes: &[u8]) -> Option<(Chunk<'_>, &[u8])> {
    let (id, bytes) = bytes.split_first_chunk::<4>()?;
    let (size, bytes) = bytes.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*size)).ok()?;
    let body = bytes.get(..size)?;
    // Chunks are padded to even length.
    Some(((*id, body), bytes.get(size + size % 2..).unwrap_or_default()))
}

fn format_of(chunk: &[u8]) -> Result<u16, WavError> {
    let fields: &[u8; 16] = chunk.first_chunk().ok_or(WavError::NotWave)?;
    let short = |at: usize| u16::from_le_bytes([fields[at], fields[at + 1]]);
    let rate_hz = u32::from_le_bytes([fields[4], fields[5], fields[6], fields[7]]);
    let (format, channels, bits) = (short(0), short(2), short(14));
    match (format, channels, rate_hz, bits) {
        (FORMAT_PCM, 1, 8_000, 16) | (FORMAT_ULAW, 1, 8_000, 8) => Ok(format),
        _ => Err(WavError::Format { format, channels, rate_hz, bits }),
    }
}

const fn index_of(notice: Notice) -> usize {
    match notice {
        Notice::Question => 0,
        Notice::Recording => 1,
        Notice::NotRecording => 2,
        Notice::Stopped => 3,
    }
}

const fn name_of(notice: Notice) -> &'static str {
    match notice {
        Notice::Question => "question",
        Notice::Recording => "recording",
        Notice::NotRecording => "not-recording",
        Notice::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn languages(tags: &[&str]) -> Vec<String> {
        tags.iter().map(|tag| (*tag).to_owned()).collect()
    }

    fn wav(format: u16, channels: u16, rate_hz: u32, bits: u16, audio: &[u8]) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0".to_vec();
        file.extend(format.to_le_bytes());
        file.extend(channels.to_le_bytes());
        file.extend(rate_hz.to_le_bytes());
        file.extend([0; 6]);
        file.extend(bits.to_le_bytes());
        file.extend(b"LIST\x03\0\0\0abc\0data");
        file.extend((audio.len() as u32).to_le_bytes());
        file.extend(audio);
        file
    }

    #[test]
    fn the_built_in_notices_are_speech_of_a_fitting_length_in_both_languages() {
        let prompts = PromptSet::load(None, &languages(&["en", "es"])).unwrap();
        for notice in NOTICES {
            let prompt = prompts.prompt(notice);
            let range = if notice == Notice::Question { 12_000..30_000 } else { 2_000..8_000 };
            assert!(range.contains(&prompt.duration_ms()), "{notice:?} {} ms", prompt.duration_ms());
            assert_eq!(prompt.ulaw().len(), prompt.alaw().len());
            let loudest = prompt.ulaw().iter().map(|octet| g711::from_ulaw(*octet).unsigned_abs()).max();
            assert!(loudest.unwrap() > 8_000);
        }
        assert_eq!(prompts.recordings().count(), 8);
        assert!(prompts.recordings().all(|recording| recording.sha256.len() == 64));
    }

    #[test]
    fn the_districts_own_recording_replaces_a_built_in_one() {
        let folder = tempfile::tempdir().unwrap();
        let own = wav(1, 1, 8_000, 16, &1_000i16.to_le_bytes().repeat(800));
        fs::write(folder.path().join("stopped.en.wav"), &own).unwrap();
        let prompts = PromptSet::load(Some(folder.path()), &languages(&["en"])).unwrap();
        assert_eq!(prompts.prompt(Notice::Stopped).ulaw(), vec![g711::to_ulaw(1_000); 800]);
        assert_eq!(prompts.prompt(Notice::Stopped).alaw(), vec![g711::to_alaw(1_000); 800]);
        let own_files: Vec<_> = prompts.recordings().filter(|recording| recording.file.is_some()).collect();
        assert_eq!(own_files.len(), 1);
        assert_eq!(own_files[0].sha256, hex::encode(Sha256::digest(&own)));
    }

    #[test]
    fn a_language_without_a_recording_is_named() {
        let error = PromptSet::load(None, &languages(&["pt"])).unwrap_err();
        assert!(error.to_string().contains("question.pt.wav"), "{error}");
    }

    #[test]
    fn a_file_of_another_kind_is_refused_with_what_it_is() {
        let stereo = samples_of(&wav(1, 2, 44_100, 16, &[0; 4])).unwrap_err();
        assert_eq!(stereo, WavError::Format { format: 1, channels: 2, rate_hz: 44_100, bits: 16 });
        assert_eq!(samples_of(b"ID3\x04mp3"), Err(WavError::NotWave));
        assert_eq!(samples_of(&wav(7, 1, 8_000, 8, &[])), Err(WavError::Empty));
        assert_eq!(samples_of(&vec![0; 1_000_001]), Err(WavError::TooLong));
    }

    #[test]
    fn a_file_cut_short_anywhere_is_refused() {
        let whole = wav(7, 1, 8_000, 8, &[0x7f; 10]);
        assert_eq!(samples_of(&whole).unwrap().len(), 10);
        assert!((0..whole.len()).all(|length| samples_of(&whole[..length]).is_err()));
    }
}
