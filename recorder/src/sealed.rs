//! The sealed file: what a recording is on disk, from its first byte to the last, and how it is read.
//!
//! ```text
//! file   = "EARMARK1"  header-length:u32  header  chunk*
//! header = JSON (Header): ids, wrapped key, retention tag; nothing that says who spoke
//! chunk  = length:u32  kind:u8  ciphertext (length bytes, the last 16 of them the tag)
//! kind   = 1 audio | 2 note | 3 final; with 0x80 added if written by recovery after a crash
//! ```
//!
//! Numbers are little-endian. A chunk is sealed with ChaCha20-Poly1305 (RFC 8439) under the recording's own
//! key. The nonce is `kind, 0, 0, 0, index:u64` (`index` counts chunks from 0). The associated data are
//! SHA-256 of everything before the first chunk, the recording's id, `index`, `kind`, `length` and the
//! retention tag. So each bit of the file is authenticated, and a chunk fits only in its own place in its
//! own file.
//!
//! Audio chunks, one after the other, are an Ogg Opus stream ([`ogg_opus`](crate::ogg_opus)). A note chunk is
//! a JSON array of [`Note`]s: the facts that recovery needs if the process ends. The final chunk is a [`Summary`] in
//! JSON, and its presence is what makes the file complete: a file without it is refused by
//! [`SealedReader::read_to_end`].
//!
//! A nonce is never used for two plaintexts: live chunks have an index each, and what recovery appends is
//! of other kinds and follows from the intact part of the file alone, so that a recovery killed half-way
//! writes the same bytes when it is repeated.

use std::io::Read;

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit, Nonce};
use consent::{CallId, Gap, Interval, RecordingId, RetentionTag, Wall};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The first bytes of a sealed file, with the format's version.
pub const MAGIC: [u8; 8] = *b"EARMARK1";
/// Longest header accepted.
const HEADER_BYTES_MAX: usize = 64 * 1024;
/// Longest chunk accepted. The final one is the longest: some 100 bytes for each listed gap.
const CHUNK_BYTES_MAX: usize = 8 * 1024 * 1024;
const TAG_BYTES: usize = 16;
const RECOVERY: u8 = 0x80;

/// The part of a sealed file that needs no key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The recording.
    pub recording: RecordingId,
    /// Its call.
    pub call: CallId,
    /// The recording's key, wrapped by the master key.
    #[serde(with = "hex")]
    pub wrapped_key: Vec<u8>,
    /// The tag under which it is kept.
    pub retention: RetentionTag,
    /// Names of the channels, in order.
    pub channels: Vec<String>,
    /// What the plaintext is: `opus`.
    pub codec: String,
    /// When its first frame arrived.
    pub opened_at: Wall,
    /// Whether audio waited for the look-back before it was written.
    pub look_back: bool,
}

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkKind {
    /// Bytes of the Ogg stream.
    Audio,
    /// [`Note`]s.
    Note,
    /// The [`Summary`]; nothing follows it.
    Final,
}

/// A fact of a recording in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    /// The instant of the first sample, known once the first page is made.
    Started(Wall),
    /// From `from_s` on, audio is stored on this basis; it ends where the next begins.
    Begun(Interval),
    /// The interval in force ended here and none follows yet (hold).
    Ended {
        /// Seconds from the start.
        to_s: f64,
    },
    /// Something is missing.
    Missing(Gap),
}

/// What a complete file says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The instant of the first sample.
    pub started_at: Wall,
    /// Length in seconds.
    pub duration_s: f64,
    /// Which parts were stored on which basis.
    pub intervals: Vec<Interval>,
    /// Which parts are missing and why.
    pub gaps: Vec<Gap>,
    /// Whether it was sealed after a crash.
    pub recovered: bool,
}

/// Why a sealed file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read at all.
    #[error("reading the sealed file failed")]
    Io {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It does not begin as a sealed file does, or breaks off in its header.
    #[error("not a sealed recording")]
    NotSealed,
    /// The header is not what this version writes.
    #[error("the header of the sealed recording is not readable")]
    Header {
        /// What was wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A chunk is damaged, forged, misplaced, or under another key.
    #[error("chunk {index} of the sealed recording is refused: {fault}")]
    Chunk {
        /// Counted from 0.
        index: u64,
        /// What is wrong with it.
        fault: ChunkFault,
    },
    /// The file ends without a final chunk: it was never completed, or cut off.
    #[error("the sealed recording is not complete: it ends after {chunks} chunks")]
    Unfinished {
        /// How many sound chunks there are.
        chunks: u64,
    },
}

/// What is wrong with a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkFault {
    /// The file ends within it.
    #[error("cut off")]
    Truncated,
    /// Its length is impossible.
    #[error("impossible length")]
    Length,
    /// Its kind is unknown.
    #[error("unknown kind")]
    Kind,
    /// Its tag does not match: changed, out of place, or another key.
    #[error("authentication failed")]
    Authentication,
    /// It says something that cannot be understood.
    #[error("unreadable content")]
    Content,
    /// Something follows the final chunk.
    #[error("follows the final chunk")]
    AfterFinal,
}

/// A chunk in clear.
#[derive(Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What it holds.
    pub kind: ChunkKind,
    /// Whether recovery wrote it.
    pub recovery: bool,
    /// Its content.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chunk({:?}, {} bytes)", self.kind, self.bytes.len())
    }
}

/// A complete recording in clear.
#[derive(Clone, PartialEq)]
pub struct Opened {
    /// The header.
    pub header: Header,
    /// The Ogg Opus stream.
    pub ogg: Vec<u8>,
    /// What the recording says of itself.
    pub summary: Summary,
}

/// Reads a sealed file, refusing at the first chunk that is not exactly what was written.
pub struct SealedReader<R> {
    input: R,
    header: Header,
    seal: Seal,
    next: u64,
    intact_bytes: u64,
    complete: bool,
    refused: Option<ChunkFault>,
}

/// Seals the chunks of one recording, in order, and keeps the running hash of its file.
pub(crate) struct Sealer {
    seal: Seal,
    next: u64,
    recovery: bool,
    hash: Sha256,
    bytes: u64,
}

/// The key and what every chunk of a file is bound to.
struct Seal {
    cipher: ChaCha20Poly1305,
    preface: [u8; 32],
    recording: RecordingId,
    retention: String,
}

/// Reads the header of a sealed file, for its wrapped key.
///
/// # Errors
/// [`ReadError`] if it has none.
pub fn read_header(mut input: impl Read) -> Result<Header, ReadError> {
    Ok(read_preface(&mut input)?.0)
}

impl<R: Read> SealedReader<R> {
    /// Reads the header; the key is proved by the first chunk.
    ///
    /// # Errors
    /// [`ReadError`] if there is no readable header.
    pub fn open(mut input: R, key: &[u8; 32]) -> Result<Self, ReadError> {
        let (header, preface) = read_preface(&mut input)?;
        let seal = Seal::new(&header, &preface, key);
        let intact_bytes = preface.len() as u64;
        Ok(Self { input, header, seal, next: 0, intact_bytes, complete: false, refused: None })
    }

    /// The header.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// How many bytes from the start have been read and found sound.
    pub const fn intact_bytes(&self) -> u64 {
        self.intact_bytes
    }

    /// How many chunks have been read and found sound.
    pub const fn chunks(&self) -> u64 {
        self.next
    }

    /// The next chunk, verified; `None` at the end of the file, which may be short of a final chunk.
    ///
    /// # Errors
    /// [`ReadError::Chunk`] names the chunk that is not sound.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>, ReadError> {
        let outcome = self.read_chunk();
        if let Err(ReadError::Chunk { fault, .. }) = &outcome {
            self.refused = Some(*fault);
        }
        outcome
    }

    /// What was wrong with the chunk that was refused, if one was.
    pub(crate) const fn refused(&self) -> Option<ChunkFault> {
        self.refused
    }

    fn read_chunk(&mut self) -> Result<Option<Chunk>, ReadError> {
        let mut preamble = [0; 5];
        let read = read_full(&mut self.input, &mut preamble)?;
        if read == 0 {
            return Ok(None);
        }
        let fault = |fault| ReadError::Chunk { index: self.next, fault };
        if self.complete {
            return Err(fault(ChunkFault::AfterFinal));
        }
        if read < preamble.len() {
            return Err(fault(ChunkFault::Truncated));
        }
        let [a, b, c, d, kind] = preamble;
        let length = u32::from_le_bytes([a, b, c, d]);
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if !(TAG_BYTES..=CHUNK_BYTES_MAX).contains(&size) {
            return Err(fault(ChunkFault::Length));
        }
        let known = ChunkKind::from_byte(kind & !RECOVERY).ok_or_else(|| fault(ChunkFault::Kind))?;
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(u64::from(length)).read_to_end(&mut bytes);
        if read.map_err(|source| ReadError::Io { source })? < size {
            return Err(fault(ChunkFault::Truncated));
        }
        if !self.seal.open(self.next, kind, &mut bytes) {
            return Err(fault(ChunkFault::Authentication));
        }
        self.next += 1;
        self.intact_bytes += 5 + u64::from(length);
        self.complete = known == ChunkKind::Final;
        Ok(Some(Chunk { kind: known, recovery: kind & RECOVERY != 0, bytes }))
    }

    /// Reads everything, verified to the last bit.
    ///
    /// # Errors
    /// [`ReadError`] if any chunk is not sound or the final one is not there.
    pub fn read_to_end(mut self) -> Result<Opened, ReadError> {
        let (mut ogg, mut summary) = (Vec::new(), None);
        while let Some(chunk) = self.next_chunk()? {
            let index = self.next - 1;
            match chunk.kind {
                ChunkKind::Audio => ogg.extend_from_slice(&chunk.bytes),
                ChunkKind::Note => {}
                ChunkKind::Final => summary = Some(parse(&chunk.bytes, index)?),
            }
        }
        let summary = summary.ok_or(ReadError::Unfinished { chunks: self.next })?;
        Ok(Opened { header: self.header, ogg, summary })
    }
}

impl Sealer {
    /// Begins a file: its first bytes, and what seals the rest.
    pub(crate) fn begin(header: &Header, key: &[u8; 32]) -> Result<(Self, Vec<u8>), serde_json::Error> {
        let json = serde_json::to_vec(header)?;
        let mut preface = MAGIC.to_vec();
        preface.extend_from_slice(&u32::try_from(json.len()).unwrap_or(u32::MAX).to_le_bytes());
        preface.extend_from_slice(&json);
        let seal = Seal::new(header, &preface, key);
        let hash = Sha256::new_with_prefix(&preface);
        Ok((Self { seal, next: 0, recovery: false, hash, bytes: preface.len() as u64 }, preface))
    }

    /// Goes on where `reader` found the last sound chunk; `intact` are all the bytes up to there.
    pub(crate) fn resume<R>(reader: SealedReader<R>, intact: &[u8]) -> Self {
        let hash = Sha256::new_with_prefix(intact);
        Self { seal: reader.seal, next: reader.next, recovery: true, hash, bytes: intact.len() as u64 }
    }

    /// Seals a chunk and appends it to `out`, to be written in this order.
    pub(crate) fn seal(&mut self, kind: ChunkKind, content: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        let kind = kind.byte() | if self.recovery { RECOVERY } else { 0 };
        let length = u32::try_from(content.len() + TAG_BYTES).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.push(kind);
        out.extend_from_slice(content);
        let tag = self.seal.close(self.next, kind, &mut out[start + 5..]);
        out.extend_from_slice(&tag);
        self.next += 1;
        self.hash.update(&out[start..]);
        self.bytes += (out.len() - start) as u64;
    }

    /// [`Self::seal`], unless there is nothing to seal.
    pub(crate) fn seal_if_any(&mut self, kind: ChunkKind, content: &[u8], out: &mut Vec<u8>) {
        if !content.is_empty() {
            self.seal(kind, content, out);
        }
    }

    /// SHA-256 of the file so far, in hexadecimal, and its size.
    pub(crate) fn digest(&self) -> (String, u64) {
        (hex::encode(self.hash.clone().finalize()), self.bytes)
    }
}

impl Seal {
    fn new(header: &Header, preface: &[u8], key: &[u8; 32]) -> Self {
        Self {
            cipher: ChaCha20Poly1305::new(&Key::from(*key)),
            preface: Sha256::digest(preface).into(),
            recording: header.recording,
            retention: String::from(header.retention.clone()),
        }
    }

    fn nonce(index: u64, kind: u8) -> Nonce {
        let [a, b, c, d, e, f, g, h] = index.to_le_bytes();
        Nonce::from([kind, 0, 0, 0, a, b, c, d, e, f, g, h])
    }

    fn bound_to(&self, index: u64, kind: u8, content_bytes: usize) -> Vec<u8> {
        let mut bound = Vec::with_capacity(96);
        bound.extend_from_slice(&self.preface);
        bound.extend_from_slice(&self.recording.0.to_le_bytes());
        bound.extend_from_slice(&index.to_le_bytes());
        bound.push(kind);
        bound.extend_from_slice(&(content_bytes as u64).to_le_bytes());
        bound.extend_from_slice(self.retention.as_bytes());
        bound
    }

    fn close(&self, index: u64, kind: u8, content: &mut [u8]) -> [u8; TAG_BYTES] {
        let bound = self.bound_to(index, kind, content.len());
        let tag = self.cipher.encrypt_inout_detached(&Self::nonce(index, kind), &bound, content.into());
        // It fails only beyond 256 GB, which a chunk's length cannot state; a zero tag then opens nothing.
        tag.map(Into::into).unwrap_or_default()
    }

    /// Opens `bytes` in place and cuts off the tag; false if the tag does not match.
    fn open(&self, index: u64, kind: u8, bytes: &mut Vec<u8>) -> bool {
        let Some((_, tag)) = bytes.split_last_chunk::<TAG_BYTES>() else { return false };
        let tag = (*tag).into();
        bytes.truncate(bytes.len() - TAG_BYTES);
        let bound = self.bound_to(index, kind, bytes.len());
        let nonce = Self::nonce(index, kind);
        self.cipher.decrypt_inout_detached(&nonce, &bound, bytes.as_mut_slice().into(), &tag).is_ok()
    }
}

impl ChunkKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Audio => 1,
            Self::Note => 2,
            Self::Final => 3,
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Audio),
            2 => Some(Self::Note),
            3 => Some(Self::Final),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("recording", &self.header.recording).finish_non_exhaustive()
    }
}

impl<R> std::fmt::Debug for SealedReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedReader").field("recording", &self.header.recording).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").field("next", &self.next).finish_non_exhaustive()
    }
}

/// Reads JSON of chunk `index`.
pub(crate) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8], index: u64) -> Result<T, ReadError> {
    serde_json::from_slice(bytes).map_err(|_| ReadError::Chunk { index, fault: ChunkFault::Content })
}

fn read_preface(input: &mut impl Read) -> Result<(Header, Vec<u8>), ReadError> {
    let mut preface = vec![0; 12];
    let read = read_full(input, &mut preface)?;
    let length = match preface.split_first_chunk::<8>() {
        Some((&MAGIC, &[a, b, c, d])) if read == 12 => u32::from_le_bytes([a, b, c, d]) as usize,
        _ => return Err(ReadError::NotSealed),
    };
    if length > HEADER_BYTES_MAX {
        return Err(ReadError::NotSealed);
    }
    preface.resize(12 + length, 0);
    if read_full(input, &mut preface[12..])? < length {
        return Err(ReadError::NotSealed);
    }
    let header = serde_json::from_slice(&preface[12..]).map_err(|source| ReadError::Header { source })?;
    Ok((header, preface))
}

/// Fills `buffer` as far as the input goes.
fn read_full(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize, ReadError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(ReadError::Io { source }),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn header(recording: u128) -> Header {
        Header {
            recording: RecordingId(recording),
            call: CallId(2),
            wrapped_key: vec![1, 2, 0xff],
            retention: RetentionTag::try_from("RT-TEST".to_owned()).unwrap(),
            channels: vec!["caller".into(), "callee".into()],
            codec: "opus".into(),
            opened_at: Wall(1_000_000),
            look_back: false,
        }
    }

    fn summary() -> Summary {
        Summary { started_at: Wall(1), duration_s: 1.5, intervals: vec![], gaps: vec![], recovered: false }
    }

    fn file(recording: u128) -> Vec<u8> {
        let (mut sealer, mut file) = Sealer::begin(&header(recording), &KEY).unwrap();
        sealer.seal(ChunkKind::Audio, b"first page", &mut file);
        sealer.seal(ChunkKind::Note, br#"{"started":1}"#, &mut file);
        sealer.seal(ChunkKind::Audio, b"second page", &mut file);
        sealer.seal(ChunkKind::Final, &serde_json::to_vec(&summary()).unwrap(), &mut file);
        assert_eq!(sealer.digest(), (hex::encode(Sha256::digest(&file)), file.len() as u64));
        file
    }

    fn read(file: &[u8]) -> Result<Opened, ReadError> {
        SealedReader::open(file, &KEY)?.read_to_end()
    }

    #[test]
    fn what_was_sealed_is_read_back() {
        let opened = read(&file(1)).unwrap();
        assert_eq!(opened.header, header(1));
        assert_eq!(opened.ogg, b"first pagesecond page");
        assert_eq!(opened.summary, summary());
        assert_eq!(read_header(file(1).as_slice()).unwrap().wrapped_key, [1, 2, 0xff]);
    }

    #[test]
    fn every_flipped_bit_is_detected() {
        let sound = file(1);
        for bit in 0..sound.len() * 8 {
            let mut damaged = sound.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_and_every_addition_is_detected() {
        let sound = file(1);
        for length in 0..sound.len() {
            assert!(read(&sound[..length]).is_err(), "{length}");
        }
        let longer = [sound.as_slice(), &[0]].concat();
        let error = read(&longer).unwrap_err();
        assert!(matches!(error, ReadError::Chunk { index: 4, fault: ChunkFault::AfterFinal }));
    }

    #[test]
    fn a_damaged_chunk_is_named() {
        let sound = file(1);
        let mut at = Sealer::begin(&header(1), &KEY).unwrap().1.len();
        for index in 0..4 {
            let length = u32::from_le_bytes(sound[at..at + 4].try_into().unwrap()) as usize;
            let mut damaged = sound.clone();
            damaged[at + 5] ^= 1;
            let error = read(&damaged).unwrap_err();
            let expected = ReadError::Chunk { index, fault: ChunkFault::Authentication };
            assert_eq!(error.to_string(), expected.to_string());
            at += 5 + length;
        }
        assert_eq!(at, sound.len());
    }

    #[test]
    fn chunks_cannot_be_moved_within_a_file_or_to_another() {
        let (mut sealer, preface) = Sealer::begin(&header(1), &KEY).unwrap();
        let (mut one, mut two) = (Vec::new(), Vec::new());
        sealer.seal(ChunkKind::Audio, b"one", &mut one);
        sealer.seal(ChunkKind::Audio, b"two", &mut two);
        assert!(matches!(
            read(&[preface.as_slice(), &two, &one].concat()),
            Err(ReadError::Chunk { index: 0, fault: ChunkFault::Authentication })
        ));
        let (_, other) = Sealer::begin(&header(9), &KEY).unwrap();
        assert!(matches!(
            read(&[other.as_slice(), &one, &two].concat()),
            Err(ReadError::Chunk { index: 0, fault: ChunkFault::Authentication })
        ));
        assert!(matches!(
            read(&[preface.as_slice(), &one, &two].concat()),
            Err(ReadError::Unfinished { chunks: 2 })
        ));
    }

    #[test]
    fn the_wrong_key_opens_nothing() {
        let file = file(1);
        let error = SealedReader::open(file.as_slice(), &[8; 32]).unwrap().read_to_end().unwrap_err();
        assert!(matches!(error, ReadError::Chunk { index: 0, fault: ChunkFault::Authentication }));
    }

    #[test]
    fn the_retention_tag_is_sealed_in() {
        let text =
            String::from_utf8(file(1)[12..300].to_vec()).map_or_else(|e| e.into_bytes(), String::into_bytes);
        let at = 12 + text.windows(7).position(|window| window == b"RT-TEST").unwrap();
        let mut changed = file(1);
        changed[at + 3..at + 7].copy_from_slice(b"LESS");
        assert!(read(&changed).is_err());
    }
}
