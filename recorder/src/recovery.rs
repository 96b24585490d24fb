//! Sealing what a process left open when it ended without notice.
//!
//! | file | is | then |
//! |---|---|---|
//! | `.sealed` | complete | reported again: the store has not acknowledged it |
//! | `.part`, locked | written by a live process | left alone |
//! | `.part` with a final chunk | complete, not yet renamed | synced, renamed, reported |
//! | `.part` without | broken off | cut after its last sound chunk, closed, synced, renamed, reported |
//! | `.part`, broken off before its first page of audio | no recording | removed, reported as such |
//! | either, without a readable header, refused by its key, or (sealed, or before the first audio) unsound | unreadable | left in place, reported as such |
//!
//! If what follows the last sound chunk is more than a torn write, it is kept in `<recording>.damaged`.
//!
//! Closing appends the page that ends the Ogg stream, a note of the gap, and the final chunk. When the call
//! ended is not known here: the gap is stated from the last sample that was written, over what can have been
//! on its way (1 s, or 2 s where a look-back was kept); it lies after the end of the audio. All of it follows
//! from the sound part of the file, so that a recovery that was itself cut short is repeated to the same
//! bytes, and one after another changes nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use consent::{Gap, GapCause, Interval, RecordingId, Wall};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::Sealed;
use crate::ogg_opus::{SAMPLE_RATE, closed_samples, closing_page};
use crate::sealed::{ChunkFault, ChunkKind, Header, Note, ReadError, SealedReader, Sealer, Summary};
use crate::sealed::{MAGIC, parse, read_header};
use crate::spool::{PART, SEALED, seal_file, sync_directory};

/// What can have been on its way to the file when the process ended, in seconds.
const AT_RISK_S: f64 = 1.0;
/// The same where audio waited for the look-back.
const AT_RISK_LOOK_BACK_S: f64 = 2.0;

/// The longest tail that a write cut off by a crash can leave; appends are not longer.
const TORN_BYTES_MAX: usize = 256 * 1024;
/// Name of what was cut away though it was no torn write.
const DAMAGED: &str = "damaged";

/// A file in the spool that cannot be used.
#[derive(Debug)]
pub struct Unreadable {
    /// Which; it was left as it is, unless there was no audio in it.
    pub file: PathBuf,
    /// Why.
    pub cause: RecoveryError,
}

/// Why a file in the spool cannot be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The system refused to read or write.
    #[error("the spool file cannot be read or completed")]
    Io(#[from] io::Error),
    /// It is not what a spool file is.
    #[error("the spool file is not sound")]
    Read(#[from] ReadError),
    /// Its key could not be unwrapped.
    #[error("the key of the spool file cannot be unwrapped")]
    Key,
    /// It broke off before its first audio, which makes it no recording, and was removed.
    #[error("the spool file holds no audio and was removed")]
    NoAudio,
    /// What it says of itself cannot be written.
    #[error("the summary cannot be written")]
    Summary(#[from] serde_json::Error),
}

/// What a broken-off file told before it broke off.
struct Remains {
    header: Header,
    ogg: Vec<u8>,
    started_at: Option<Wall>,
    intervals: Vec<Interval>,
    gaps: Vec<Gap>,
    summary: Option<Summary>,
    /// An earlier recovery came this far.
    gap_noted: bool,
}

/// Unwraps a recording's key, given its id and the wrapped key of its file's header.
pub type UnwrapKey<'a> = dyn Fn(RecordingId, &[u8]) -> Option<Zeroizing<[u8; 32]>> + 'a;

/// Seals every unfinished recording in `directory` and returns all that are sealed there and not yet released.
/// Unreadable files are logged and left, files without audio logged and removed.
#[must_use]
pub fn recover(directory: &Path, unwrap_key: &UnwrapKey<'_>) -> Vec<Sealed> {
    recover_with(directory, unwrap_key, &mut |unreadable| {
        let (file, error) = (unreadable.file.display(), &unreadable.cause as &dyn std::error::Error);
        if matches!(unreadable.cause, RecoveryError::NoAudio) {
            tracing::warn!(%file, error, "a recording broke off before it began");
        } else {
            tracing::error!(%file, error, "a spool file cannot be recovered");
        }
    })
}

/// [`recover`], telling `report` of each file that cannot be used.
#[must_use]
pub fn recover_with(
    directory: &Path,
    unwrap_key: &UnwrapKey<'_>,
    report: &mut dyn FnMut(Unreadable),
) -> Vec<Sealed> {
    let mut sealed = Vec::new();
    for file in spool_files(directory) {
        let outcome = if file.extension().is_some_and(|extension| extension == PART) {
            recover_part(&file, unwrap_key)
        } else {
            read_sealed(&file, unwrap_key).map(Some)
        };
        match outcome {
            Ok(found) => sealed.extend(found),
            Err(cause) => report(Unreadable { file, cause }),
        }
    }
    sealed
}

fn spool_files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let ours =
        |path: &PathBuf| path.extension().is_some_and(|extension| extension == PART || extension == SEALED);
    let mut files: Vec<PathBuf> = entries.filter(ours).collect();
    files.sort();
    files
}

fn key_of(header: &Header, unwrap_key: &UnwrapKey<'_>) -> Result<Zeroizing<[u8; 32]>, RecoveryError> {
    unwrap_key(header.recording, &header.wrapped_key).ok_or(RecoveryError::Key)
}

fn read_sealed(path: &Path, unwrap_key: &UnwrapKey<'_>) -> Result<Sealed, RecoveryError> {
    let bytes = std::fs::read(path)?;
    let key = key_of(&read_header(bytes.as_slice())?, unwrap_key)?;
    let opened = SealedReader::open(bytes.as_slice(), &key)?.read_to_end()?;
    let sha256 = hex::encode(Sha256::digest(&bytes));
    let sealed = Sealed::new(opened.header, opened.summary, bytes.len() as u64, sha256);
    Ok(Sealed { file: path.to_owned(), ..sealed })
}

/// `None` if the file belongs to a live process.
fn recover_part(path: &Path, unwrap_key: &UnwrapKey<'_>) -> Result<Option<Sealed>, RecoveryError> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
        Err(std::fs::TryLockError::Error(error)) => return Err(error.into()),
    }
    let mut bytes = Vec::new();
    BufReader::new(&mut file).read_to_end(&mut bytes)?;
    if is_torn_preface(&bytes) {
        return remove_empty(path);
    }
    let key = key_of(&read_header(bytes.as_slice())?, unwrap_key)?;
    let mut reader = SealedReader::open(bytes.as_slice(), &key)?;
    let mut remains = read_remains(&mut reader)?;
    let intact = usize::try_from(reader.intact_bytes()).unwrap_or(bytes.len());
    let tail = &bytes[intact..];
    let torn = |fault: &ChunkFault| *fault == ChunkFault::Truncated && tail.len() <= TORN_BYTES_MAX;
    let damage = reader.refused().filter(|fault| !torn(fault));
    match damage {
        // Audio may be among what is damaged, and cannot be had without this file's header.
        Some(fault) if remains.is_empty() => {
            return Err(ReadError::Chunk { index: reader.chunks(), fault }.into());
        }
        Some(_) => keep_tail(path, tail)?,
        None if remains.is_empty() => return remove_empty(path),
        None => {}
    }
    let sealer = Sealer::resume(reader, &bytes[..intact]);
    let (summary, end, sha256, size) = close(&mut remains, sealer)?;
    cut_and_append(&mut file, intact as u64, &end)?;
    seal_file(&file, path)?;
    let sealed = Sealed::new(remains.header, summary, size, sha256);
    Ok(Some(Sealed { file: path.with_extension(SEALED), ..sealed }))
}

/// Removes a file without audio: sealed, it would be an object in the store that no record speaks of.
fn remove_empty(path: &Path) -> Result<Option<Sealed>, RecoveryError> {
    std::fs::remove_file(path)?;
    Err(RecoveryError::NoAudio)
}

/// The process ended while it wrote the file's first bytes: there is no audio in it, and no key.
fn is_torn_preface(bytes: &[u8]) -> bool {
    let Some((magic, rest)) = bytes.split_first_chunk::<8>() else { return MAGIC.starts_with(bytes) };
    let Some((length, rest)) = rest.split_first_chunk::<4>() else { return *magic == MAGIC };
    *magic == MAGIC && rest.len() < u32::from_le_bytes(*length) as usize && rest.len() < TORN_BYTES_MAX
}

/// What follows the last sound chunk was not cut off by a crash but damaged: sound chunks may be among it.
/// It is kept beside the file, sealed as it is.
fn keep_tail(part: &Path, tail: &[u8]) -> io::Result<()> {
    let path = part.with_extension(DAMAGED);
    let mut kept = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
    kept.write_all(tail)?;
    kept.sync_all()?;
    tracing::warn!(file = %path.display(), bytes = tail.len(), "damaged chunks were kept apart");
    sync_directory(&path)
}

/// Reads as far as the file is sound.
fn read_remains<R: Read>(reader: &mut SealedReader<R>) -> Result<Remains, ReadError> {
    let mut remains = Remains {
        header: reader.header().clone(),
        ogg: Vec::new(),
        started_at: None,
        intervals: Vec::new(),
        gaps: Vec::new(),
        summary: None,
        gap_noted: false,
    };
    loop {
        let chunk = match reader.next_chunk() {
            Ok(Some(chunk)) => chunk,
            Ok(None) | Err(ReadError::Chunk { .. }) => return Ok(remains),
            Err(error) => return Err(error),
        };
        let index = reader.chunks().saturating_sub(1);
        match chunk.kind {
            ChunkKind::Audio => remains.ogg.extend_from_slice(&chunk.bytes),
            ChunkKind::Note => {
                parse::<Vec<Note>>(&chunk.bytes, index)?.into_iter().for_each(|note| remains.learn(note));
                remains.gap_noted |= chunk.recovery;
            }
            ChunkKind::Final => remains.summary = Some(parse(&chunk.bytes, index)?),
        }
    }
}

/// What is to be appended, and the file's final summary, hash and size.
fn close(
    remains: &mut Remains,
    mut sealer: Sealer,
) -> Result<(Summary, Vec<u8>, String, u64), RecoveryError> {
    let mut end = Vec::new();
    if remains.summary.is_none() {
        let samples = match closing_page(&remains.ogg) {
            Some((page, samples)) => {
                sealer.seal(ChunkKind::Audio, &page, &mut end);
                samples
            }
            None => remains.samples_played(),
        };
        let gap = remains.crash_gap(samples);
        if !remains.gap_noted {
            let note = serde_json::to_vec(&[Note::Missing(gap.clone())])?;
            sealer.seal(ChunkKind::Note, &note, &mut end);
            remains.gaps.push(gap);
        }
        let summary = remains.summarise(samples);
        sealer.seal(ChunkKind::Final, &serde_json::to_vec(&summary)?, &mut end);
        remains.summary = Some(summary);
    }
    let (sha256, size) = sealer.digest();
    let summary = remains.summary.clone().ok_or(ReadError::Unfinished { chunks: 0 })?;
    Ok((summary, end, sha256, size))
}

fn cut_and_append(file: &mut File, intact: u64, end: &[u8]) -> io::Result<()> {
    file.set_len(intact)?;
    file.seek(SeekFrom::Start(intact))?;
    file.write_all(end)
}

impl Remains {
    fn learn(&mut self, note: Note) {
        match note {
            Note::Started(at) => self.started_at = Some(at),
            Note::Begun(interval) => {
                if let Some(last) = self.intervals.last_mut().filter(|last| last.to_s <= last.from_s) {
                    last.to_s = interval.from_s;
                }
                self.intervals.retain(|interval| interval.to_s > interval.from_s);
                self.intervals.push(interval);
            }
            Note::Ended { to_s } => {
                if let Some(last) = self.intervals.last_mut() {
                    last.to_s = to_s;
                }
            }
            Note::Missing(gap) => self.gaps.push(gap),
        }
    }

    /// Whether not one sample is in it.
    fn is_empty(&self) -> bool {
        closing_page(&self.ogg).map_or_else(|| self.samples_played(), |(_, samples)| samples) == 0
    }

    /// The length of a stream that has its closing page.
    fn samples_played(&self) -> u64 {
        closed_samples(&self.ogg).unwrap_or_default()
    }

    fn crash_gap(&self, samples: u64) -> Gap {
        let at_risk_s = if self.header.look_back { AT_RISK_LOOK_BACK_S } else { AT_RISK_S };
        let from_s = samples as f64 / f64::from(SAMPLE_RATE);
        let to_s = from_s + at_risk_s;
        Gap { from_s, to_s, cause: GapCause::Crash, leg: None }
    }

    fn summarise(&self, samples: u64) -> Summary {
        let duration_s = samples as f64 / f64::from(SAMPLE_RATE);
        let mut intervals = self.intervals.clone();
        intervals.retain(|interval| interval.from_s < duration_s);
        if let Some(last) = intervals.last_mut().filter(|last| last.to_s <= last.from_s) {
            last.to_s = duration_s;
        }
        intervals.iter_mut().for_each(|interval| interval.to_s = interval.to_s.min(duration_s));
        let mut gaps = self.gaps.clone();
        gaps.sort_by(|a, b| a.from_s.total_cmp(&b.from_s));
        let started_at = self.started_at.unwrap_or(self.header.opened_at);
        Summary { started_at, duration_s, intervals, gaps, recovered: true }
    }
}
