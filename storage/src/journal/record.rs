//! The bytes of the journal: a file header, then records.
//!
//! ```text
//! file    magic "EARMARJ1" | journal id u128 | file number u64 | first sequence number u64 | crc32 of these
//! record  length of payload u32 | crc32 of length, sequence number, payload | sequence number u64 | payload
//! ```
//!
//! All integers are little-endian. Pure: nothing here knows a file. A record is either whole, cut short
//! or damaged; which of the latter two a stretch at the end of a file is, only the caller can know.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names a file as a journal of this layout.
const MAGIC: &[u8; 8] = b"EARMARJ1";

/// Size of the file header.
pub const FILE_HEADER_BYTES: usize = 44;

/// Size of a record without its payload.
pub const RECORD_HEADER_BYTES: usize = 16;

/// Longest payload. A day-long recording with ten thousand gaps stays below; beyond, an append is refused.
pub const MAX_PAYLOAD_BYTES: usize = 4 * 1024 * 1024;

/// How far from the expected sequence number a record found after damage may be: a random 4 bytes that
/// pass for a length are then refused before a checksum is computed over megabytes.
const RESYNC_WINDOW: u64 = 1 << 20;

/// Which journal: drawn at random when its first file is made, so that the positions of one are never
/// taken for those of another that replaced it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalId(pub u128);

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where an entry is: the journal and its sequence number there, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalPosition {
    /// Which journal.
    pub journal: JournalId,
    /// The n-th record of it.
    pub seq: u64,
}

/// What the head of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// The journal that the file belongs to.
    pub journal: JournalId,
    /// The n-th file of it.
    pub number: u64,
    /// Sequence number of its first record.
    pub first_seq: u64,
}

/// What stands at some offset of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A whole record of `bytes` bytes.
    Record {
        /// Its sequence number.
        seq: u64,
        /// What was appended.
        payload: &'a [u8],
        /// Header and payload.
        bytes: usize,
    },
    /// The bytes end before the record does (or there are none).
    Short,
    /// Not a record.
    Damaged,
}

impl FileHeader {
    /// The header as written.
    #[must_use]
    pub fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut bytes = [0; FILE_HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..24].copy_from_slice(&self.journal.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.number.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first_seq.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..40]);
        bytes[40..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header; `None` if it is cut short, damaged or of another layout.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..FILE_HEADER_BYTES)?;
        let (body, _) = head.split_at(40);
        if !body.starts_with(MAGIC) || u32_at(head, 40)? != crc32fast::hash(body) {
            return None;
        }
        let journal = u128::from_le_bytes(body.get(8..24)?.try_into().ok()?);
        Some(Self { journal: JournalId(journal), number: u64_at(body, 24)?, first_seq: u64_at(body, 32)? })
    }
}

/// Appends a record to `out`. The payload is not empty and not above [`MAX_PAYLOAD_BYTES`].
pub fn encode(seq: u64, payload: &[u8], out: &mut Vec<u8>) {
    debug_assert!(!payload.is_empty() && payload.len() <= MAX_PAYLOAD_BYTES);
    let length = payload.len() as u32;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&checksum(length, seq, payload).to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(payload);
}

/// Reads what stands at the start of `bytes`.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let (Some(length), Some(crc), Some(seq)) = (u32_at(bytes, 0), u32_at(bytes, 4), u64_at(bytes, 8)) else {
        return Parsed::Short;
    };
    if length == 0 || length as usize > MAX_PAYLOAD_BYTES {
        return Parsed::Damaged;
    }
    let end = RECORD_HEADER_BYTES + length as usize;
    let Some(payload) = bytes.get(RECORD_HEADER_BYTES..end) else {
        return Parsed::Short;
    };
    if checksum(length, seq, payload) == crc {
        Parsed::Record { seq, payload, bytes: end }
    } else {
        Parsed::Damaged
    }
}

/// The offset of the next whole record after offset 0, near the sequence number that was expected.
#[must_use]
pub fn resync(bytes: &[u8], expected_seq: u64) -> Option<usize> {
    (1..bytes.len().saturating_sub(RECORD_HEADER_BYTES)).find(|&offset| {
        let rest = &bytes[offset..];
        u64_at(rest, 8).is_some_and(|seq| seq.abs_diff(expected_seq) <= RESYNC_WINDOW)
            && matches!(parse(rest), Parsed::Record { .. })
    })
}

/// The bytes of an entry, as they stand in a record.
///
/// # Errors
/// If it is longer than [`MAX_PAYLOAD_BYTES`] or cannot be written as JSON.
pub fn payload<T: Serialize>(entry: &T) -> Result<Vec<u8>, PayloadError> {
    let bytes = serde_json::to_vec(entry).map_err(|source| PayloadError::Json { source })?;
    if bytes.len() > MAX_PAYLOAD_BYTES {
        return Err(PayloadError::TooLong { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// The entry of a payload.
///
/// # Errors
/// If the payload is not such an entry (a later version of the program wrote it).
pub fn entry<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, PayloadError> {
    serde_json::from_slice(payload).map_err(|source| PayloadError::Json { source })
}

/// Why an entry cannot be a payload, or a payload an entry.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// Not the JSON of an entry.
    #[error("not the JSON of a journal entry")]
    Json {
        /// What serde says.
        source: serde_json::Error,
    },
    /// Above [`MAX_PAYLOAD_BYTES`].
    #[error("an entry of {bytes} bytes is above the journal's limit of {MAX_PAYLOAD_BYTES}")]
    TooLong {
        /// Its size.
        bytes: usize,
    },
}

fn checksum(length: u32, seq: u64, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&length.to_le_bytes());
    crc.update(&seq.to_le_bytes());
    crc.update(payload);
    crc.finalize()
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    /// The records that a reader finds in `bytes`, going on after damage.
    fn survivors(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let (mut found, mut offset, mut expected) = (Vec::new(), 0, 1);
        while offset < bytes.len() {
            match parse(&bytes[offset..]) {
                Parsed::Record { seq, payload, bytes } => {
                    found.push((seq, payload.to_vec()));
                    expected = seq + 1;
                    offset += bytes;
                }
                Parsed::Short | Parsed::Damaged => match resync(&bytes[offset..], expected) {
                    Some(skip) => offset += skip,
                    None => break,
                },
            }
        }
        found
    }

    fn written(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for (index, payload) in payloads.iter().enumerate() {
            encode(index as u64 + 1, payload, &mut bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 1..8)
    }

    proptest! {
        #[test]
        fn cut_at_any_offset_the_whole_records_before_it_are_read_and_nothing_else(payloads in payloads()) {
            let (bytes, ends) = written(&payloads);
            for cut in 0..=bytes.len() {
                let whole = ends.iter().filter(|&&end| end <= cut).count();
                let found = survivors(&bytes[..cut]);
                prop_assert_eq!(found.len(), whole);
                for (index, (seq, payload)) in found.iter().enumerate() {
                    prop_assert_eq!(*seq, index as u64 + 1);
                    prop_assert_eq!(payload, &payloads[index]);
                }
            }
        }

        #[test]
        fn a_flipped_bit_costs_the_record_it_is_in_and_no_other(payloads in payloads(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let (mut bytes, ends) = written(&payloads);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let hit = ends.iter().position(|&end| at < end).unwrap();
            let expected: Vec<_> = payloads.iter().enumerate().filter(|(index, _)| *index != hit)
                .map(|(index, payload)| (index as u64 + 1, payload.clone())).collect();
            prop_assert_eq!(survivors(&bytes), expected);
        }

        #[test]
        fn arbitrary_bytes_are_never_a_record(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(survivors(&bytes).is_empty());
        }

        #[test]
        fn a_file_header_comes_back_and_any_flipped_bit_is_seen(journal in any::<u128>(), number in any::<u64>(), first_seq in any::<u64>(), at in 0usize..FILE_HEADER_BYTES, bit in 0u8..8) {
            let header = FileHeader { journal: JournalId(journal), number, first_seq };
            let mut bytes = header.encode();
            prop_assert_eq!(FileHeader::decode(&bytes), Some(header));
            prop_assert_eq!(FileHeader::decode(&bytes[..FILE_HEADER_BYTES - 1]), None);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(FileHeader::decode(&bytes), None);
        }
    }

    #[test]
    fn zeros_that_a_power_cut_left_are_damage() {
        assert_eq!(parse(&[0; 64]), Parsed::Damaged);
        assert_eq!(resync(&[0; 4096], 7), None);
    }
}
